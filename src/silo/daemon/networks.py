"""``/networks`` verbs: the CNM controller's networks seen together with the containers on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from silo.daemon.container import Container
from silo.daemon.daemon import Daemon
from silo.daemon.listing import has_label
from silo.errors import Conflict, InvalidParameter
from silo.network.model import Network
from silo.schema.engine import EndpointSettings, convert
from silo.schema.network import NetworkCreate
from silo.telemetry import traced

FILTERS: Final = {"dangling", "driver", "id", "label", "label!", "name", "scope", "type", "until"}
PREDEFINED: Final = {"bridge", "host", "none"}


async def create(daemon: Daemon, body: dict[str, Any]) -> tuple[str, str]:
    """Make a network; return its id and a warning.  Raises InvalidParameter, Conflict, NotFound, Forbidden."""
    network_id, warning = await daemon.network.create_network(convert(body, NetworkCreate))
    _tell(daemon, "create", daemon.network.find(network_id))
    return network_id, warning


async def remove(daemon: Daemon, reference: str) -> None:
    """Remove a network that nobody is on.  Raises NotFound, Forbidden."""
    network = daemon.network.find(reference)
    await daemon.network.remove_network(network.id)
    _tell(daemon, "destroy", network)


async def prune(daemon: Daemon, filters: Mapping[str, list[str]]) -> list[str]:
    """Remove every network of the user's that no container refers to; return their names."""
    _check(filters)
    removed = []
    for network in daemon.network.networks():
        if network.name in PREDEFINED or users(daemon, network) or not passes(daemon, network, filters):
            continue
        await remove(daemon, network.id)
        removed.append(network.name)
    return removed


def list_networks(daemon: Daemon, filters: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    """Every network that passes; without the containers, as dockerd lists them."""
    _check(filters)
    rows = [
        daemon.network.inspect(network) for network in daemon.network.networks() if passes(daemon, network, filters)
    ]
    for row in rows:
        row["Containers"] = {}
    return rows


def inspect(daemon: Daemon, reference: str) -> dict[str, Any]:
    """One network with its containers.  Raises NotFound."""
    return daemon.network.inspect(daemon.network.find(reference))


async def connect(daemon: Daemon, reference: str, body: dict[str, Any]) -> None:
    """Put a container on a network: at once when it runs, else from its next start on."""
    network = daemon.network.find(reference)
    container = daemon.registry.find(_container_of(body))
    settings = convert(body.get("EndpointConfig") or {}, EndpointSettings)
    async with daemon.registry.life(container).lock:
        if network.name in container.wanted_networks:
            raise Conflict(f"container {container.id} is already attached to network {network.name}")
        if container.host_config.network_mode == "host" or network.name in {"host", "none"}:
            raise InvalidParameter("container cannot be disconnected from host network or connected to host network")
        if container.running:
            raise Conflict(f"container {container.id} is running: stop it to connect it to network {network.name}")
        container.wanted_networks[network.name] = settings
        container.networks = dict(container.wanted_networks)
        await daemon.registry.save(container)
    _tell(daemon, "connect", network, container=container.id)


@traced("daemon::NetworkDisconnect", "reference")
async def disconnect(daemon: Daemon, reference: str, body: dict[str, Any]) -> None:
    """Take a container off a network.  Raises NotFound, Forbidden."""
    network = daemon.network.find(reference)
    container = daemon.registry.find(_container_of(body))
    async with daemon.registry.life(container).lock:
        if network.name not in container.wanted_networks:
            raise Conflict(f"container {container.id} is not connected to network {network.name}")
        if container.running:
            raise Conflict(f"container {container.id} is running: stop it to disconnect it from {network.name}")
        del container.wanted_networks[network.name]
        container.networks = dict(container.wanted_networks)
        await daemon.registry.save(container)
    _tell(daemon, "disconnect", network, container=container.id)


def _container_of(body: Mapping[str, Any]) -> str:
    reference = body.get("Container")
    if not isinstance(reference, str) or not reference:
        raise InvalidParameter("invalid JSON: Container must name a container")
    return reference


def users(daemon: Daemon, network: Network) -> list[Container]:
    """The containers that are, or will be, on the network."""
    return [
        container
        for container in daemon.registry.all()
        if any(
            name in {network.name, network.id} or settings.network_id == network.id
            for name, settings in container.networks.items()
        )
    ]


def passes(daemon: Daemon, network: Network, filters: Mapping[str, list[str]]) -> bool:
    """Whether the network passes dockerd's filters."""
    shown = daemon.network.inspect(network)
    for key, wanted in filters.items():
        match key:
            case "name":
                passed = any(one in network.name for one in wanted)
            case "id":
                passed = any(network.id.startswith(one) for one in wanted)
            case "driver":
                passed = shown["Driver"] in wanted
            case "scope":
                passed = shown["Scope"] in wanted
            case "label":
                passed = all(has_label(shown["Labels"] or {}, one) for one in wanted)
            case "label!":
                passed = not any(has_label(shown["Labels"] or {}, one) for one in wanted)
            case "type":
                passed = ("builtin" if network.name in PREDEFINED else "custom") in wanted
            case "dangling":
                unused = network.name not in PREDEFINED and not users(daemon, network)
                passed = unused == (wanted[0].lower() in {"true", "1", "t"})
            case _:
                passed = True
        if not passed:
            return False
    return True


def _check(filters: Mapping[str, list[str]]) -> None:
    for key in filters:
        if key not in FILTERS:
            raise InvalidParameter(f"invalid filter '{key}'")


def _tell(daemon: Daemon, action: str, network: Network, **attributes: str) -> None:
    shown = daemon.network.inspect(network)
    daemon.events.publish("network", action, network.id, {"name": network.name, "type": shown["Driver"], **attributes})
