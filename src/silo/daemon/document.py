"""A container's create document: schema 1 of the Host Compute Service with the OCI runtime configuration inside.

Pure: the same facts give the same document.  The defaults equal dockerd's; ``tests/unit/test_document.py`` compares
them with configurations recorded from dockerd 20.10.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from silo.daemon.container import MountPoint
from silo.daemon.seccomp import default_profile
from silo.errors import InvalidParameter
from silo.ids import name_to_guid
from silo.schema.engine import HostConfig
from silo.schema.hcs import (
    AssignedDevice,
    ContainerDocument,
    DeviceRate,
    Journal,
    Layer,
    MappedDirectory,
    ProcessConfig,
)
from silo.schema.oci import CAPABILITIES

DEFAULT_CAPABILITIES: Final = tuple(
    "CAP_" + name
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL "
        "AUDIT_WRITE"
    ).split()
)
MASKED_PATHS: Final = (
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
READONLY_PATHS: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_DEVICES: Final = ((1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1))
"""zero, null, urandom, random, tty, console.  The runtime itself adds what else it makes in /dev (full, ptmx, pts)."""
_FUSE: Final = (10, 229)
_TMPFS: Final = ("noexec", "nosuid", "nodev")
"""Options of the user's own tmpfs mounts; ``exec``, ``suid`` and ``dev`` each take one away."""
_RATES: Final = (
    ("throttleReadBpsDevice", "blkio_device_read_bps"),
    ("throttleWriteBpsDevice", "blkio_device_write_bps"),
    ("throttleReadIOPSDevice", "blkio_device_read_iops"),
    ("throttleWriteIOPSDevice", "blkio_device_write_iops"),
)
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
    journal: Journal | None = None
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
        AssignedDevices=tuple(
            AssignedDevice(one.path_on_host, one.path_in_container or one.path_on_host, one.cgroup_permissions or "rwm")
            for one in facts.host.devices
        ),
        AllDevices=facts.host.privileged,
        AllCapabilities=facts.host.privileged or "ALL" in _capability_names(facts.host.cap_add),
        DeviceRates=_device_rates(facts.host),
        Process=_process_config(facts),
        BundlePath=facts.bundle,
        LogPath=facts.log,
        Journal=facts.journal,
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


def _device_rates(host: HostConfig) -> tuple[DeviceRate, ...]:
    rates = [DeviceRate(one.path, kind, one.rate) for kind, name in _RATES for one in getattr(host, name)]
    weights = [DeviceRate(one.path, "weightDevice", one.weight) for one in host.blkio_weight_device]
    return tuple(rates + weights)


def oci_configuration(facts: ContainerFacts) -> dict[str, Any]:
    """The OCI runtime's config.json.  What only the host knows is left to it: the user's ids, devices' numbers."""
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
        **({"hostname": facts.hostname} if facts.hostname and host.uts_mode != "host" else {}),
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
        return CAPABILITIES
    add, drop = _capability_names(host.cap_add), _capability_names(host.cap_drop)
    base = CAPABILITIES if "ALL" in add else DEFAULT_CAPABILITIES
    kept = [name for name in base if name not in drop and "ALL" not in drop]
    return (*kept, *(name for name in sorted(add - {"ALL"}) if name not in kept))


def _capability_names(given: Sequence[str] | None) -> set[str]:
    names = set()
    for text in given or []:
        upper = text.upper()
        name = upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"
        if name != "ALL" and name not in CAPABILITIES:
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
        mounts.append(_mount("/dev/shm", "bind", "/dev/shm", ["rbind", "rprivate"]))  # noqa: S108 - the container's
    elif facts.host.ipc_mode != "none" and "ipc" not in facts.namespaces:
        mounts.append(_mount("/dev/shm", "tmpfs", "shm", [*quiet, "mode=1777", f"size={facts.host.shm_size}"]))  # noqa: S108
    taken = {point.destination for point in facts.mounts}
    mounts = [mount for mount in mounts if mount["destination"] not in taken]
    writable = ["ro"] if facts.host.readonly_rootfs else []
    mounts += [
        _mount(path, "bind", source, ["rbind", *writable, "rprivate"])
        for path, source in facts.files.items()
        if path not in taken
    ]
    return mounts + [_user_mount(point) for point in facts.mounts]


def _mount(destination: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": options}


def _user_mount(point: MountPoint) -> dict[str, Any]:
    read_only = [] if point.rw else ["ro"]
    if point.type == "tmpfs":
        defaults = [option for option in _TMPFS if option.removeprefix("no") not in point.options]
        return _mount(point.destination, "tmpfs", "tmpfs", [*defaults, "rprivate", *read_only, *point.options])
    spread = [point.propagation] if point.propagation else []
    return _mount(point.destination, "bind", point.source, ["rbind", *read_only, *spread])


def _linux(facts: ContainerFacts, security: dict[str, str]) -> dict[str, Any]:
    host = facts.host
    linux: dict[str, Any] = {
        "cgroupsPath": _cgroup(host.cgroup_parent or facts.cgroup_parent, facts.id),
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
    return linux


def _cgroup(parent: str, container_id: str) -> str:
    """The group's path from the hierarchy's root; ``..`` leads no further up than that."""
    return posixpath.join(posixpath.normpath("/" + parent.lstrip("/")), container_id)


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
    """What dockerd sets in a container's own network and host name's namespace, with the user's on top."""
    own: dict[str, str] = {}
    if facts.domainname and facts.host.uts_mode != "host":
        own["kernel.domainname"] = facts.domainname
    if facts.network_mode == "private":
        own["net.ipv4.ip_unprivileged_port_start"] = "0"
        own["net.ipv4.ping_group_range"] = "0 2147483647"
    return {**own, **facts.host.sysctls}


def _resources(host: HostConfig) -> dict[str, Any]:
    devices: list[dict[str, Any]] = [{"allow": bool(host.privileged), "access": "rwm"}]
    if not host.privileged:
        devices += [_character(*numbers, allow=True) for numbers in _DEVICES]
        devices.append(_character(*_FUSE, allow=False))
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


def _character(major: int, minor: int, *, allow: bool) -> dict[str, Any]:
    return {"allow": allow, "type": "c", "major": major, "minor": minor, "access": "rwm"}


def _device_rule(text: str) -> dict[str, Any]:
    """``c 1:3 rwm`` as the runtime takes it.  Raises InvalidParameter."""
    parts = text.split()
    numbers = parts[1].split(":") if len(parts) == 3 else []
    if len(numbers) != 2 or parts[0] not in {"a", "b", "c"} or not set(parts[2]) <= set("rwm"):
        raise InvalidParameter(f"invalid device cgroup rule format: '{text}'")
    rule: dict[str, Any] = {"allow": True, "type": parts[0], "access": parts[2]}
    for key, number in zip(("major", "minor"), numbers, strict=True):
        if number != "*" and not number.isdecimal():
            raise InvalidParameter(f"invalid device cgroup rule format: '{text}'")
        rule[key] = -1 if number == "*" else int(number)
    return rule
