"""Pure decisions of ``create``: image and request become one configuration, with dockerd's rules and texts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Final

from silo.errors import InvalidParameter, NotFound, Unimplemented
from silo.schema.engine import ContainerConfig, HealthConfig, HostConfig

DEFAULT_SHM: Final = 64 << 20
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MIN_MEMORY: Final = 6 << 20
_SIZE: Final = re.compile(r"(?i)(\d+(?:\.\d+)?) ?([kmgtp])?(?:i?b)?")
_UNITS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_NETWORK_WORDS: Final = {"", "default", "bridge", "nat", "none", "host"}


def as_list(value: Sequence[str] | str | None) -> list[str] | None:
    """A command given as one string is a list of one, as Go's strslice has it."""
    if value is None:
        return None
    return [value] if isinstance(value, str) else list(value)


def merge_env(image: Sequence[str], user: Sequence[str]) -> list[str]:
    """The image's variables, each replaced by the user's of the same name, then the user's others."""
    names = {entry.partition("=")[0] for entry in user}
    return [*user, *(entry for entry in image if entry.partition("=")[0] not in names)]


def merge_health(user: HealthConfig | None, image: HealthConfig | None) -> HealthConfig | None:
    """A probe of the user's, completed by the image's where the user said nothing."""
    if user is None or image is None:
        return user or image
    return HealthConfig(
        test=user.test or image.test,
        interval=user.interval or image.interval,
        timeout=user.timeout or image.timeout,
        start_period=user.start_period or image.start_period,
        start_interval=user.start_interval or image.start_interval,
        retries=user.retries or image.retries,
    )


def merge(user: ContainerConfig, image: ContainerConfig) -> ContainerConfig:
    """The request on top of the image, as dockerd merges them.

    An image's Cmd counts only when the user changes neither the entrypoint nor the command.  Raises InvalidParameter
    when there is nothing to run.
    """
    entrypoint, cmd = as_list(user.entrypoint), as_list(user.cmd)
    if not entrypoint:
        if not cmd:
            cmd = as_list(image.cmd)
        # [""] is the client's way to say: no entrypoint, whatever the image has
        entrypoint = None if entrypoint == [""] else as_list(image.entrypoint)
    if entrypoint == [""]:
        entrypoint = None
    if not entrypoint and not cmd:
        raise InvalidParameter("no command specified")
    return ContainerConfig(
        hostname=user.hostname,
        domainname=user.domainname,
        user=user.user or image.user,
        attach_stdin=user.attach_stdin,
        attach_stdout=user.attach_stdout,
        attach_stderr=user.attach_stderr,
        exposed_ports={**image.exposed_ports, **user.exposed_ports},
        tty=user.tty,
        open_stdin=user.open_stdin,
        stdin_once=user.stdin_once,
        env=merge_env(image.env, user.env),
        cmd=cmd,
        healthcheck=merge_health(user.healthcheck, image.healthcheck),
        args_escaped=user.args_escaped,
        image=user.image,
        volumes={**image.volumes, **user.volumes},
        working_dir=user.working_dir or image.working_dir,
        entrypoint=entrypoint,
        network_disabled=user.network_disabled,
        mac_address=user.mac_address,
        on_build=user.on_build,
        labels={**image.labels, **user.labels},
        stop_signal=user.stop_signal or image.stop_signal,
        stop_timeout=user.stop_timeout if user.stop_timeout is not None else image.stop_timeout,
        shell=user.shell or image.shell,
    )


def command_line(config: ContainerConfig) -> list[str]:
    """The argument vector: entrypoint, then command."""
    return [*(as_list(config.entrypoint) or []), *(as_list(config.cmd) or [])]


def environment(config: ContainerConfig, hostname: str) -> list[str]:
    """The process's environment: PATH, HOSTNAME and TERM as dockerd sets them, then the configured variables."""
    base = [f"PATH={DEFAULT_PATH}", f"HOSTNAME={hostname}"]
    if config.tty:
        base.append("TERM=xterm")
    wanted: dict[str, str] = {}
    for entry in [*base, *config.env]:
        name, sep, value = entry.partition("=")
        if sep:
            wanted[name] = value
        else:
            wanted.pop(name, None)  # "NAME" alone takes a variable away
    return [f"{name}={value}" for name, value in wanted.items()]


def parse_size(text: str, base: int = 1024) -> int:
    """A size such as ``10G`` or ``512m`` in bytes.  Raises InvalidParameter."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise InvalidParameter(f"invalid size: '{text}'")
    return int(float(found[1]) * base ** _UNITS[(found[2] or "").lower()])


def complete_host(host: HostConfig, cgroup_version: str = "1") -> HostConfig:
    """Fill in what dockerd fills in where the client said nothing."""
    host.network_mode = host.network_mode or "default"
    host.restart_policy.name = host.restart_policy.name or "no"
    host.shm_size = host.shm_size or DEFAULT_SHM
    host.ipc_mode = host.ipc_mode or "private"
    host.cgroupns_mode = host.cgroupns_mode or ("private" if cgroup_version == "2" else "host")
    if host.memory_swappiness == -1:
        host.memory_swappiness = None
    if not host.pids_limit or host.pids_limit < 0:
        host.pids_limit = None
    if host.memory and not host.memory_swap:
        host.memory_swap = 2 * host.memory
    return host


def verify(config: ContainerConfig, host: HostConfig) -> None:
    """Refuse what cannot be right, with dockerd's texts.  Raises InvalidParameter, Unimplemented, NotFound."""
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidParameter(
            f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path"
        )
    for entry in config.env:
        if not entry or entry.startswith("="):
            raise InvalidParameter(f"invalid environment variable: {entry}")
    if len(config.hostname) > 64 or re.search(r"[/\s\0]", config.hostname):
        raise InvalidParameter(f"invalid hostname format for --hostname: {config.hostname}")
    if 0 < host.memory < MIN_MEMORY:
        raise InvalidParameter("Minimum memory limit allowed is 6MB")
    if host.memory_swap > 0 and not host.memory:
        raise InvalidParameter("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host.nano_cpus < 0:
        raise InvalidParameter("range of CPUs is from 0.01 to the number of CPUs of this host")
    if host.shm_size < 0:
        raise InvalidParameter("SHM size can not be less than 0")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidParameter(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    _verify_restart(host)
    _verify_refused(host)


def _verify_restart(host: HostConfig) -> None:
    policy = host.restart_policy
    if policy.name not in {"", "no", "always", "on-failure", "unless-stopped"}:
        raise InvalidParameter(
            f"invalid restart policy: unknown policy '{policy.name}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidParameter("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if host.auto_remove and policy.name not in {"", "no"}:
        raise InvalidParameter("can't create 'AutoRemove' container with restart policy")


def _verify_refused(host: HostConfig) -> None:
    """What this engine cannot honour is refused, never silently ignored."""
    if host.isolation not in {"", "default", "process"}:
        raise InvalidParameter(f"invalid isolation '{host.isolation}' on linux")
    if host.device_requests:
        raise InvalidParameter('could not select device driver "" with capabilities: [[gpu]]')
    if host.volume_driver not in {"", "local"}:
        raise NotFound(f'error looking up volume plugin {host.volume_driver}: plugin "{host.volume_driver}" not found')
    later = {
        "publishing ports": any(host.port_bindings.values()) or host.publish_all_ports,
        "restart policies": host.restart_policy.name not in {"", "no"},
        "an init process": bool(host.init),
        "links": bool(host.links),
        "user namespaces": host.userns_mode not in {"", "host"},
        "real-time scheduling": bool(host.cpu_realtime_period or host.cpu_realtime_runtime),
        "mounting a part of a volume": any(one.volume_options and one.volume_options.subpath for one in host.mounts),
    }
    for what, asked in later.items():
        if asked:
            raise Unimplemented(f"{what}: this engine does not have it yet")


def warnings(config: ContainerConfig) -> list[str]:
    """What is taken and has no effect yet: the client shows it."""
    found = []
    if config.healthcheck is not None and config.healthcheck.test not in ([], ["NONE"]):
        found.append("The health check is kept and not run: this engine does not have health checks yet")
    return found


def storage_size(options: Mapping[str, str]) -> int | None:
    """The ``size`` storage option in bytes.  Raises InvalidParameter for any other option."""
    for key in options:
        if key.lower() != "size":
            raise InvalidParameter(f"unknown storage option: {key}")
    text = next(iter(options.values()), "")
    return parse_size(text) if text else None


def network_names(mode: str, endpoints: Mapping[str, object], *, disabled: bool) -> list[str]:
    """The networks to join, the mode's first: NIC order is decided here and nowhere else."""
    if disabled:
        return ["none"]
    if mode in {"default", "nat", ""}:
        mode = "bridge"
    if mode.startswith("container:"):
        return []
    return [mode, *(name for name in endpoints if name not in {mode, "default"})]


def shown_command(argv: Sequence[str]) -> str:
    """A command as ``docker ps`` prints it: words with blanks are quoted."""
    return " ".join(shlex.quote(word) if re.search(r"\s", word) or not word else word for word in argv)
