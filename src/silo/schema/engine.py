"""The Engine API's documents that the engine keeps and gives back: what a container runs and what it gets.

Names on the wire are Docker's (``rename="pascal"``; exceptions are spelled out).  Defaults are the wire's zero values,
so that what a client sent and what ``inspect`` shows agree.  Source: Engine API 1.50, definitions ContainerConfig,
Resources, HostConfig, EndpointSettings.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec
from msgspec import field

from silo.errors import InvalidParameter

T = TypeVar("T")

_MAPS: Final = {"EndpointsConfig": dict, "PortBindings": list, "ExposedPorts": dict, "Volumes": dict, "Networks": dict}


class Document(msgspec.Struct, rename="pascal", kw_only=True):
    """A document of the Engine API."""


class HealthConfig(Document):
    """How to probe a container; times in nanoseconds, 0 means "as the image says"."""

    test: list[str] = []
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ContainerConfig(Document):
    """What runs in a container, independent of the host."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, dict[str, Any]] = {}
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] = []
    cmd: list[str] | str | None = None
    healthcheck: HealthConfig | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, dict[str, Any]] = {}
    working_dir: str = ""
    entrypoint: list[str] | str | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: list[str] | None = None
    labels: dict[str, str] = {}
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: list[str] | None = None


class LogConfig(Document):
    """Which log driver, with its options."""

    type: str = ""
    config: dict[str, str] = {}


class RestartPolicy(Document):
    """When the engine starts an ended container again."""

    name: str = ""
    maximum_retry_count: int = 0


class PortBinding(Document):
    """Where on the host a port is published."""

    host_ip: str = ""
    host_port: str = ""


class DeviceMapping(Document):
    """A device of the host given to a container."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = "rwm"


class ThrottleDevice(Document):
    """A rate limit on one block device."""

    path: str = ""
    rate: int = 0


class WeightDevice(Document):
    """A weight for one block device."""

    path: str = ""
    weight: int = 0


class Ulimit(Document):
    """One resource limit; -1 is unlimited."""

    name: str = ""
    soft: int = 0
    hard: int = 0


class BindOptions(Document):
    """Options of a bind mount."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class VolumeOptions(Document):
    """Options of a volume mount."""

    no_copy: bool = False
    labels: dict[str, str] = {}
    driver_config: dict[str, Any] = {}
    subpath: str = ""


class TmpfsOptions(Document):
    """Options of a tmpfs mount; ``size_bytes`` 0 is without limit."""

    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] = []


class Mount(Document):
    """A mount as the ``--mount`` flag gives it."""

    target: str = ""
    source: str = ""
    type: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


class HostConfig(Document):
    """What a container gets of the host."""

    cpu_shares: int = 0
    memory: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] = []
    blkio_device_read_bps: list[ThrottleDevice] = []
    blkio_device_write_bps: list[ThrottleDevice] = []
    blkio_device_read_iops: list[ThrottleDevice] = field(name="BlkioDeviceReadIOps", default=[])
    blkio_device_write_iops: list[ThrottleDevice] = field(name="BlkioDeviceWriteIOps", default=[])
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] = []
    device_cgroup_rules: list[str] | None = None
    device_requests: list[dict[str, Any]] | None = None
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    nano_cpus: int = 0
    oom_kill_disable: bool | None = None
    init: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] = []
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = field(name="IOMaximumIOps", default=0)
    io_maximum_bandwidth: int = field(name="IOMaximumBandwidth", default=0)
    binds: list[str] | None = None
    container_id_file: str = field(name="ContainerIDFile", default="")
    log_config: LogConfig = field(default_factory=LogConfig)
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding]] = {}
    restart_policy: RestartPolicy = field(default_factory=RestartPolicy)
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    mounts: list[Mount] = []
    console_size: list[int] = field(default_factory=lambda: [0, 0])
    annotations: dict[str, str] = {}
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    cgroupns_mode: str = ""
    dns: list[str] = []
    dns_options: list[str] = []
    dns_search: list[str] = []
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    storage_opt: dict[str, str] = {}
    tmpfs: dict[str, str] = {}
    uts_mode: str = field(name="UTSMode", default="")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] = {}
    runtime: str = ""
    isolation: str = ""
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None


class EndpointIPAMConfig(Document):
    """Addresses that the user wants an endpoint to have."""

    ipv4_address: str = field(name="IPv4Address", default="")
    ipv6_address: str = field(name="IPv6Address", default="")
    link_local_ips: list[str] = field(name="LinkLocalIPs", default=[])


class EndpointSettings(Document):
    """A container's place on one network: what was asked for, and what it got while it runs."""

    ipam_config: EndpointIPAMConfig | None = field(name="IPAMConfig", default=None)
    links: list[str] | None = None
    aliases: list[str] | None = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0
    network_id: str = field(name="NetworkID", default="")
    endpoint_id: str = field(name="EndpointID", default="")
    gateway: str = ""
    ip_address: str = field(name="IPAddress", default="")
    ip_prefix_len: int = field(name="IPPrefixLen", default=0)
    ipv6_gateway: str = field(name="IPv6Gateway", default="")
    global_ipv6_address: str = field(name="GlobalIPv6Address", default="")
    global_ipv6_prefix_len: int = field(name="GlobalIPv6PrefixLen", default=0)
    dns_names: list[str] | None = field(name="DNSNames", default=None)


class NetworkingConfig(Document):
    """The networks that a container shall join."""

    endpoints_config: dict[str, EndpointSettings] = {}


class ContainerCreate(ContainerConfig):
    """The body of ``POST /containers/create``: a ContainerConfig with two more members."""

    host_config: HostConfig = field(default_factory=HostConfig)
    networking_config: NetworkingConfig = field(default_factory=NetworkingConfig)


def without_nulls(value: Any, within: str = "") -> Any:
    """``value`` without members that are null, as Go's decoder takes them: null is the zero value of any field.

    In maps from names to documents (``EndpointsConfig`` ...) a null stands for an empty document.
    """
    if isinstance(value, dict):
        empty = _MAPS.get(within)
        return {
            key: empty() if item is None and empty else without_nulls(item, key)
            for key, item in value.items()
            if item is not None or empty
        }
    if isinstance(value, list):
        return [without_nulls(item) for item in value if item is not None]
    return value


def convert(value: Any, kind: type[T]) -> T:
    """A decoded JSON value as a document.  Raises InvalidParameter naming the member that does not fit."""
    try:
        return msgspec.convert(without_nulls(value), kind)
    except msgspec.ValidationError as exc:
        raise InvalidParameter(f"invalid JSON: {exc}") from exc
