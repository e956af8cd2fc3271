"""The files that a container gets from the engine: hostname, hosts and resolv.conf, bind-mounted into it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from silo.daemon.container import Container
from silo.network.model import Sandbox
from silo.network.resolvconf import hosts_text, resolv_text

HOST_RESOLV_CONF: Final = Path("/etc/resolv.conf")
HOST_HOSTS: Final = Path("/etc/hosts")
NAMES: Final = ("resolv.conf", "hostname", "hosts")


def bound_files(folder: Path) -> dict[str, str]:
    """Path in the container to file of the engine."""
    return {f"/etc/{name}": str(folder / name) for name in NAMES}


def write_files(folder: Path, container: Container, sandbox: Sandbox, host_name: str) -> None:
    """Write the three files anew for a run.  Blocks."""
    config, host = container.config, container.host_config
    hostname = config.hostname or host_name
    (folder / "hostname").write_text(f"{hostname}\n", "utf-8")
    gateway = next((endpoint.gateway for endpoint in sandbox.endpoints if endpoint.gateway), "")
    if host.network_mode == "host":
        hosts = _read(HOST_HOSTS)
    else:
        addresses = [endpoint.address for endpoint in sandbox.endpoints]
        hosts = hosts_text(hostname, config.domainname, addresses, host.extra_hosts or (), gateway)
    (folder / "hosts").write_text(hosts, "utf-8")
    resolv = resolv_text(_read(HOST_RESOLV_CONF), host.dns, host.dns_search, host.dns_options)
    (folder / "resolv.conf").write_text(resolv, "utf-8")


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
