"""A container as ``GET /containers/{id}/json`` shows it.  Reads memory only: never waits for a verb."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from silo.daemon.container import Container, Status
from silo.daemon.daemon import Daemon
from silo.daemon.document import MASKED_PATHS, READONLY_PATHS
from silo.schema.engine import EndpointSettings


async def inspect(daemon: Daemon, reference: str, version: tuple[int, int], *, size: bool = False) -> dict[str, Any]:
    """Everything about one container; with ``size`` also bytes on disk.  Raises NotFound."""
    container = daemon.registry.find(reference)
    folder = daemon.container_dir(container.id)
    started = container.state.started_at > container.created
    kind = container.host_config.log_config.type
    shown: dict[str, Any] = {
        "Id": container.id,
        "Created": container.created,
        "Path": container.path,
        "Args": container.args,
        "State": state(container),
        "Image": container.image,
        "ResolvConfPath": str(folder / "resolv.conf") if started else "",
        "HostnamePath": str(folder / "hostname") if started else "",
        "HostsPath": str(folder / "hosts") if started else "",
        "LogPath": str(daemon.log_path(container.id)) if started and kind == "json-file" else "",
        "Name": f"/{container.name}",
        "RestartCount": container.restart_count,
        "Driver": "windowsfilter",
        "Platform": container.platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": host_config(container),
        "GraphDriver": {"Name": "windowsfilter", "Data": daemon.layers.metadata(container.id)},
        "Mounts": mounts(container),
        "Config": config(container),
        "NetworkSettings": network_settings(container, version),
    }
    if size:
        shown["SizeRw"] = await daemon.layers.rw_size(container.id)
        base = await daemon.layers.chain_size(container.chain) if container.chain else 0
        shown["SizeRootFs"] = base + shown["SizeRw"]
    return shown


def state(container: Container) -> dict[str, Any]:
    """``State`` as docker shows it."""
    status = container.state.status
    return {
        "Status": status.value,
        "Running": container.running or status == Status.RESTARTING,
        "Paused": status == Status.PAUSED,
        "Restarting": status == Status.RESTARTING,
        "OOMKilled": container.state.oom_killed,
        "Dead": status == Status.DEAD,
        "Pid": container.state.pid,
        "ExitCode": container.state.exit_code,
        "Error": container.state.error,
        "StartedAt": container.state.started_at,
        "FinishedAt": container.state.finished_at,
    }


def config(container: Container) -> dict[str, Any]:
    """``Config`` as docker shows it: what is empty and new is left out, what is old is always there."""
    shown: dict[str, Any] = msgspec.to_builtins(container.config)
    for name in ("ExposedPorts", "Healthcheck", "StopSignal", "StopTimeout", "Shell", "MacAddress", "NetworkDisabled"):
        if not shown[name]:
            del shown[name]
    if not shown["ArgsEscaped"]:
        del shown["ArgsEscaped"]
    shown["Volumes"] = shown["Volumes"] or None
    return shown


def host_config(container: Container) -> dict[str, Any]:
    """``HostConfig`` as docker shows it: what is optional and empty is left out, masked paths are spelled out."""
    shown: dict[str, Any] = msgspec.to_builtins(container.host_config)
    for name in ("Init", "Mounts", "Annotations", "StorageOpt", "Tmpfs", "Sysctls"):
        if not shown[name]:
            del shown[name]
    if not container.host_config.privileged:
        for name, default in (("MaskedPaths", MASKED_PATHS), ("ReadonlyPaths", READONLY_PATHS)):
            if shown[name] is None:
                shown[name] = list(default)
    return shown


def mounts(container: Container) -> list[dict[str, Any]]:
    """``Mounts`` as docker shows it."""
    shown = []
    for point in container.mounts:
        entry = {
            "Type": point.type,
            "Source": point.source,
            "Destination": point.destination,
            "Mode": point.mode,
            "RW": point.rw,
            "Propagation": point.propagation,
        }
        if point.type == "volume":
            entry |= {"Name": point.name, "Driver": point.driver}
        shown.append(entry)
    return shown


def network_settings(container: Container, version: tuple[int, int]) -> dict[str, Any]:
    """``NetworkSettings``: the networks, and the old top-level copy of the default network's addresses."""
    default = container.networks.get("bridge") or EndpointSettings()
    return {
        "Bridge": "",
        "SandboxID": container.id if container.sandbox_key else "",
        "SandboxKey": container.sandbox_key,
        "Ports": {},
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": default.endpoint_id,
        "Gateway": default.gateway,
        "GlobalIPv6Address": default.global_ipv6_address,
        "GlobalIPv6PrefixLen": default.global_ipv6_prefix_len,
        "IPAddress": default.ip_address,
        "IPPrefixLen": default.ip_prefix_len,
        "IPv6Gateway": default.ipv6_gateway,
        "MacAddress": default.mac_address,
        "Networks": networks(container.networks, version),
    }


def networks(endpoints: Mapping[str, EndpointSettings], version: tuple[int, int]) -> dict[str, Any]:
    """Endpoint settings by network, without members that the API version does not know."""
    shown = {}
    for name, settings in endpoints.items():
        entry: dict[str, Any] = msgspec.to_builtins(settings)
        if settings.ipam_config is None:
            entry["IPAMConfig"] = None
        if version < (1, 44):
            del entry["DNSNames"]
        if version < (1, 48):
            del entry["GwPriority"]
        shown[name] = entry
    return shown
