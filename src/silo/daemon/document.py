"""A container's create document: schema 1 of the Host Compute Service with the OCI runtime configuration inside.

Pure: the same facts give the same document.  The defaults equal dockerd's; ``tests/unit/test_document.py`` compares
them with a configuration recorded from dockerd 20.10.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from silo.daemon.container import MountPoint
from silo.daemon.seccomp import default_profile
from silo.errors import InvalidParameter
from silo.ids import name_to_guid
from silo.schema.engine import HostConfig
from silo.schema.hcs import ContainerDocument, Layer, MappedDirectory, ProcessConfig

DEFAULT_CAPABILITIES: Final = tuple(
    "CAP_" + name
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL "
        "AUDIT_WRITE"
    ).split()
)
ALL_CAPABILITIES: Final = tuple(
    "CAP_" + name
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
        "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
        "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL "
        "SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)
MASKED_PATHS: Final = (
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
READONLY_PATHS: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_DEVICES: Final = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2))
"""null, zero, full, random, urandom, tty, console, ptmx: what the runtime makes in /dev may also be used."""
_LIMITS: Final = {
    name: f"RLIMIT_{name.upper()}"
    for name in (
        "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"
    ).split()
}


class ContainerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the document is made from, as plain values.

    ``layers`` are the directories of the parents, nearest first, and ``layer_folder`` that of the scratch layer;
    ``volume`` is where the union is mounted.  ``files`` maps paths in the container to files of the engine.
    ``network_mode`` is ``private``, ``host`` or ``shared:<container id>``.
    """

    id: str
    hostname: str
    domainname: str
    argv: tuple[str, ...]
    environment: tuple[str, ...]
    working_dir: str
    user: str
    tty: bool
    open_stdin: bool
    stdin_once: bool
    volume: str
    layer_folder: str
    layers: tuple[str, ...]
    bundle: str
    log: str
    files: dict[str, str]
    mounts: tuple[MountPoint, ...]
    endpoints: tuple[str, ...]
    network_mode: str
    host: HostConfig
    cgroup_parent: str
    machine: str
    namespaces: dict[str, str] = {}
    """Paths of namespaces to join instead of new ones, by OCI type."""


def container_document(facts: ContainerFacts) -> ContainerDocument:
    """The create document.  Raises InvalidParameter for options that no runtime could honour."""
    shared = facts.network_mode.removeprefix("shared:") if facts.network_mode.startswith("shared:") else ""
    return ContainerDocument(
        SystemType="Container",
        Name=facts.id,
        Owner="silo",
        VolumePath=facts.volume,
        LayerFolderPath=facts.layer_folder,
        Layers=tuple(Layer(name_to_guid(path.rsplit("/", 1)[-1]), path) for path in facts.layers),
        HvPartition=False,
        HostName=facts.hostname,
        EndpointList=facts.endpoints,
        NetworkSharedContainerName=shared,
        HostNetwork=facts.network_mode == "host",
        MemoryMaximumInMB=facts.host.memory >> 20,
        MappedDirectories=tuple(
            MappedDirectory(point.source, point.destination, not point.rw) for point in facts.mounts if point.source
        ),
        AllowUnqualifiedDNSQuery=bool(facts.endpoints),
        Process=_process_config(facts),
        BundlePath=facts.bundle,
        LogPath=facts.log,
        OCISpecification=oci_configuration(facts),
    )


def _process_config(facts: ContainerFacts) -> ProcessConfig:
    return ProcessConfig(
        CommandArgs=facts.argv,
        User=facts.user,
        AdditionalGroups=tuple(facts.host.group_add or ()),
        WorkingDirectory=facts.working_dir or "/",
        EmulateConsole=facts.tty,
        CreateStdInPipe=facts.open_stdin,
        CreateStdErrPipe=not facts.tty,
        StdInOnce=facts.stdin_once,
        ConsoleSize=(facts.host.console_size[0], facts.host.console_size[1]),
    )


def oci_configuration(facts: ContainerFacts) -> dict[str, Any]:
    """The OCI runtime's config.json; the user's ids are filled in by the host, which can look into the root."""
    host = facts.host
    security = _security_options(host)
    capabilities = list(capability_set(host))
    process: dict[str, Any] = {
        "terminal": facts.tty,
        "user": {"uid": 0, "gid": 0},
        "args": list(facts.argv),
        "env": list(facts.environment),
        "cwd": facts.working_dir or "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
        "oomScoreAdj": host.oom_score_adj,
        "noNewPrivileges": security.get("no-new-privileges", "false") == "true",
        "rlimits": [_rlimit(one.name, one.soft, one.hard) for one in host.ulimits],
    }
    if facts.tty and any(host.console_size):
        process["consoleSize"] = {"height": host.console_size[0], "width": host.console_size[1]}
    if security.get("apparmor"):
        process["apparmorProfile"] = security["apparmor"]
    return {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": facts.volume, "readonly": host.readonly_rootfs},
        "hostname": facts.hostname,
        **({"domainname": facts.domainname} if facts.domainname else {}),
        "mounts": _mounts(facts),
        "linux": _linux(facts, security),
        **({"annotations": host.annotations} if host.annotations else {}),
    }


def _security_options(host: HostConfig) -> dict[str, str]:
    """``--security-opt`` as a table.  Raises InvalidParameter with dockerd's text."""
    options: dict[str, str] = {}
    for text in host.security_opt or []:
        key, sep, value = text.partition("=")
        if not sep:
            key, sep, value = text.partition(":")
        if key == "no-new-privileges":
            options[key] = (value or "true").lower()
        elif key in {"seccomp", "apparmor", "label", "systempaths"} and value:
            options[key] = value
        else:
            raise InvalidParameter(f'invalid --security-opt 1: "{text}"')
    return options


def capability_set(host: HostConfig) -> tuple[str, ...]:
    """The capabilities of the process: the default ones with what is added and dropped, all when privileged."""
    if host.privileged:
        return ALL_CAPABILITIES
    add, drop = _capability_names(host.cap_add), _capability_names(host.cap_drop)
    base = ALL_CAPABILITIES if "ALL" in add else DEFAULT_CAPABILITIES
    kept = [name for name in base if name not in drop and "ALL" not in drop]
    return (*kept, *(name for name in sorted(add - {"ALL"}) if name not in kept))


def _capability_names(given: Sequence[str] | None) -> set[str]:
    names = set()
    for text in given or []:
        upper = text.upper()
        name = upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"
        if name != "ALL" and name not in ALL_CAPABILITIES:
            raise InvalidParameter(f'invalid capability: "{text}"')
        names.add(name)
    return names


def _rlimit(name: str, soft: int, hard: int) -> dict[str, Any]:
    if name not in _LIMITS:
        raise InvalidParameter(f"invalid ulimit type: {name}")
    unlimited = (1 << 64) - 1
    return {
        "type": _LIMITS[name],
        "soft": unlimited if soft < 0 else soft,
        "hard": unlimited if hard < 0 else hard,
    }


def _mounts(facts: ContainerFacts) -> list[dict[str, Any]]:
    quiet = ["nosuid", "noexec", "nodev"]
    read_only = [] if facts.host.privileged else ["ro"]
    mounts = [
        _mount("/proc", "proc", "proc", quiet),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
        ),
        _mount("/sys", "sysfs", "sysfs", [*quiet, *read_only]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*read_only, *quiet]),
        _mount("/dev/mqueue", "mqueue", "mqueue", quiet),
    ]
    if facts.host.ipc_mode == "host":
        mounts.append(_mount("/dev/shm", "bind", "/dev/shm", ["rbind", *quiet]))  # noqa: S108 - the container's
    elif "ipc" not in facts.namespaces:
        mounts.append(_mount("/dev/shm", "tmpfs", "shm", [*quiet, "mode=1777", f"size={facts.host.shm_size}"]))  # noqa: S108
    taken = {point.destination for point in facts.mounts}
    mounts = [mount for mount in mounts if mount["destination"] not in taken]
    writable = [] if not facts.host.readonly_rootfs else ["ro"]
    mounts += [
        _mount(path, "bind", source, ["rbind", "rprivate", *writable])
        for path, source in facts.files.items()
        if path not in taken
    ]
    return mounts + [_user_mount(point) for point in facts.mounts]


def _mount(destination: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": options}


def _user_mount(point: MountPoint) -> dict[str, Any]:
    mode = "rw" if point.rw else "ro"
    if point.type == "tmpfs":
        return _mount(point.destination, "tmpfs", "tmpfs", ["nosuid", "nodev", "noexec", mode, *point.options])
    return _mount(point.destination, "bind", point.source, ["rbind", mode, point.propagation or "rprivate"])


def _linux(facts: ContainerFacts, security: dict[str, str]) -> dict[str, Any]:
    host = facts.host
    linux: dict[str, Any] = {
        "cgroupsPath": f"{host.cgroup_parent.rstrip('/') or facts.cgroup_parent}/{facts.id}",
        "namespaces": _namespaces(facts),
        "resources": _resources(host),
        "sysctl": _sysctls(facts),
    }
    if not host.privileged and security.get("systempaths") != "unconfined":
        linux["maskedPaths"] = list(MASKED_PATHS if host.masked_paths is None else host.masked_paths)
        linux["readonlyPaths"] = list(READONLY_PATHS if host.readonly_paths is None else host.readonly_paths)
    seccomp = security.get("seccomp", "")
    if not host.privileged and seccomp != "unconfined":
        linux["seccomp"] = _seccomp(seccomp, facts)
    if any(point.propagation in {"shared", "rshared"} for point in facts.mounts):
        linux["rootfsPropagation"] = "shared"
    elif any(point.propagation in {"slave", "rslave"} for point in facts.mounts):
        linux["rootfsPropagation"] = "slave"
    if host.devices:
        linux["resources"]["devices"] += [
            {"allow": True, "access": one.cgroup_permissions or "rwm", "path": one.path_on_host} for one in host.devices
        ]
    return linux


def _seccomp(given: str, facts: ContainerFacts) -> dict[str, Any]:
    if not given or given == "builtin":
        return default_profile(capability_set(facts.host), facts.machine)
    try:
        profile: dict[str, Any] = msgspec.json.decode(given, type=dict[str, Any])
    except msgspec.MsgspecError as exc:
        raise InvalidParameter(f"opening seccomp profile failed: {exc}") from exc
    return profile


def _namespaces(facts: ContainerFacts) -> list[dict[str, str]]:
    host = facts.host
    own = {"mount": True, "network": True, "uts": host.uts_mode != "host", "pid": host.pid_mode != "host"}
    own["ipc"] = host.ipc_mode != "host"
    own["cgroup"] = host.cgroupns_mode == "private"
    return [
        {"type": kind, **({"path": facts.namespaces[kind]} if kind in facts.namespaces else {})}
        for kind, wanted in own.items()
        if wanted
    ]


def _sysctls(facts: ContainerFacts) -> dict[str, str]:
    """What dockerd sets in a container's own network, with the user's on top."""
    if facts.network_mode != "private":
        return dict(facts.host.sysctls)
    return {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ping_group_range": "0 2147483647",
        **facts.host.sysctls,
    }


def _resources(host: HostConfig) -> dict[str, Any]:
    devices: list[dict[str, Any]] = [{"allow": bool(host.privileged), "access": "rwm"}]
    if not host.privileged:
        for major, minor in _DEVICES:
            devices.append({"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"})
        devices.append({"allow": True, "type": "c", "major": 136, "access": "rwm"})
    devices += [_device_rule(text) for text in host.device_cgroup_rules or []]
    memory = {
        "limit": host.memory,
        "reservation": host.memory_reservation,
        "swap": host.memory_swap,
        "disableOOMKiller": host.oom_kill_disable,
    }
    quota, period = host.cpu_quota, host.cpu_period
    if host.nano_cpus:
        period = 100_000
        quota = host.nano_cpus * period // 1_000_000_000
    cpu = {
        "shares": host.cpu_shares,
        "quota": quota,
        "period": period,
        "cpus": host.cpuset_cpus,
        "mems": host.cpuset_mems,
    }
    resources: dict[str, Any] = {"devices": devices}
    if any(memory.values()):
        resources["memory"] = {key: value for key, value in memory.items() if value}
    if host.memory_swappiness is not None and host.memory_swappiness >= 0:
        resources.setdefault("memory", {})["swappiness"] = host.memory_swappiness
    if any(cpu.values()):
        resources["cpu"] = {key: value for key, value in cpu.items() if value}
    if host.pids_limit and host.pids_limit > 0:
        resources["pids"] = {"limit": host.pids_limit}
    if host.blkio_weight:
        resources["blockIO"] = {"weight": host.blkio_weight}
    return resources


def _device_rule(text: str) -> dict[str, Any]:
    """``c 1:3 rwm`` as the runtime takes it.  Raises InvalidParameter."""
    parts = text.split()
    numbers = parts[1].split(":") if len(parts) == 3 else []
    if len(numbers) != 2 or parts[0] not in {"a", "b", "c"} or not set(parts[2]) <= set("rwm"):
        raise InvalidParameter(f"invalid device cgroup rule format: '{text}'")
    rule: dict[str, Any] = {"allow": True, "type": parts[0], "access": parts[2]}
    for key, number in zip(("major", "minor"), numbers, strict=True):
        if number != "*":
            if not number.isdecimal():
                raise InvalidParameter(f"invalid device cgroup rule format: '{text}'")
            rule[key] = int(number)
    return rule
