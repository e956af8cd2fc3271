"""From the records to the plain values that the pure parts take: endpoint requests, document facts, shown settings."""

from __future__ import annotations

from pathlib import Path

import msgspec

from silo.daemon import logconfig, settings
from silo.daemon.container import Container, MountPoint
from silo.daemon.daemon import Daemon
from silo.daemon.document import ContainerFacts
from silo.daemon.files import bound_files
from silo.errors import Conflict
from silo.network.model import EndpointRequest, Sandbox
from silo.schema.engine import EndpointSettings


def endpoint_requests(container: Container) -> list[EndpointRequest]:
    """What the container asks of the network strip, in NIC order."""
    return [EndpointRequest(network=name, settings=asked) for name, asked in container.wanted_networks.items()]


def network_mode(daemon: Daemon, container: Container) -> str:
    """``private``, ``host`` or ``shared:<id>``.  Raises Conflict when the container to share with does not run."""
    mode = container.host_config.network_mode
    if mode == "host":
        return "host"
    if mode.startswith("container:"):
        other = daemon.registry.find(mode.removeprefix("container:"))
        if not other.running:
            raise Conflict(f"cannot join network of a non running container: {other.id}")
        return f"shared:{other.id}"
    return "private"


def namespaces(daemon: Daemon, container: Container) -> dict[str, str]:
    """Namespaces of other containers to join, by OCI type.  Raises Conflict when the other one does not run."""
    joined: dict[str, str] = {}
    for kind, mode in (("ipc", container.host_config.ipc_mode), ("pid", container.host_config.pid_mode)):
        if mode.startswith("container:"):
            other = daemon.registry.find(mode.removeprefix("container:"))
            if not other.running:
                raise Conflict(f"cannot join {kind.upper()} of a non running container: {other.id}")
            joined[kind] = f"/proc/{other.state.pid}/ns/{kind}"
    return joined


def container_facts(daemon: Daemon, container: Container, root: Path, sandbox: Sandbox) -> ContainerFacts:
    """Everything the create document is made from."""
    config, host = container.config, container.host_config
    folder = daemon.container_dir(container.id)
    return ContainerFacts(
        id=container.id,
        hostname=config.hostname or (daemon.facts.name if host.network_mode == "host" else ""),
        domainname=config.domainname,
        argv=(container.path, *container.args),
        environment=tuple(settings.environment(config, config.hostname or daemon.facts.name)),
        working_dir=config.working_dir,
        user=config.user,
        tty=config.tty,
        open_stdin=config.open_stdin,
        stdin_once=config.stdin_once,
        volume=str(root),
        layer_folder=daemon.layers.metadata(container.id)["dir"],
        layers=tuple(str(path) for path in daemon.layers.parents(container.id)),
        bundle=str(folder),
        log=str(daemon.log_path(container.id)) if logconfig.readable(host.log_config) else "",
        journal=logconfig.journal(container, daemon.facts.name),
        files=bound_files(folder),
        mounts=tuple(_existing(point) for point in container.mounts),
        endpoints=tuple(endpoint.hns_id for endpoint in sandbox.endpoints if endpoint.hns_id),
        network_mode=network_mode(daemon, container),
        host=host,
        cgroup_parent=f"/silo-{daemon.facts.instance}",
        machine=daemon.facts.architecture,
        namespaces=namespaces(daemon, container),
    )


def _existing(point: MountPoint) -> MountPoint:
    """A bind's source that is not there is made, as dockerd does for ``-v``."""
    if point.type == "bind" and not Path(point.source).exists():
        Path(point.source).mkdir(parents=True)
    return point


def shown_settings(sandbox: Sandbox, name: str, asked: EndpointSettings) -> EndpointSettings:
    """What inspect shows of the container on one network while it runs."""
    endpoint = next((one for one in sandbox.endpoints if one.network_name == name or one.network_id == name), None)
    if endpoint is None:
        return asked
    return msgspec.structs.replace(
        asked,
        network_id=endpoint.network_id,
        endpoint_id=endpoint.id,
        gateway=endpoint.gateway,
        ip_address=endpoint.address,
        ip_prefix_len=endpoint.prefix,
        mac_address=endpoint.mac,
        dns_names=[endpoint.container_name, endpoint.container_id[:12], *(asked.aliases or [])],
    )
