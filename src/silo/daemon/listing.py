"""``GET /containers/json``: which containers, and a line's worth about each."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from silo.daemon.clock import ago, nanoseconds
from silo.daemon.container import Container, Status
from silo.daemon.daemon import Daemon
from silo.daemon.inspect import mounts, networks
from silo.daemon.settings import shown_command
from silo.errors import InvalidParameter, NotFound

FILTERS: Final = {
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "label!", "name",
    "network", "publish", "since", "status", "volume",
}  # fmt: skip


async def list_containers(
    daemon: Daemon,
    version: tuple[int, int],
    *,
    everything: bool = False,
    limit: int = 0,
    size: bool = False,
    filters: Mapping[str, list[str]] | None = None,
) -> list[dict[str, Any]]:
    """Newest first; only running ones unless ``everything``, ``limit`` or a status filter says otherwise.

    Raises InvalidParameter for a filter that is none.
    """
    filters = filters or {}
    for key in filters:
        if key not in FILTERS:
            raise InvalidParameter(f"invalid filter '{key}'")
    chosen = [container for container in daemon.registry.all() if _passes(daemon, container, filters)]
    if not (everything or limit > 0 or {"status", "exited", "before", "since"} & filters.keys()):
        chosen = [container for container in chosen if container.running or container.state.status == Status.RESTARTING]
    if limit > 0:
        chosen = chosen[:limit]
    rows = [summary(daemon, container, version) for container in chosen]
    if size:
        for row, container in zip(rows, chosen, strict=True):
            row["SizeRw"] = await daemon.layers.rw_size(container.id)
            base = await daemon.layers.chain_size(container.chain) if container.chain else 0
            row["SizeRootFs"] = base + row["SizeRw"]
    return rows


def summary(daemon: Daemon, container: Container, version: tuple[int, int]) -> dict[str, Any]:
    """One row of ``docker ps``."""
    return {
        "Id": container.id,
        "Names": [f"/{container.name}"],
        "Image": container.image_ref if daemon.images.names(container.image, container.image_ref) else container.image,
        "ImageID": container.image,
        "Command": shown_command([container.path, *container.args]),
        "Created": nanoseconds(container.created) // 1_000_000_000,
        "Ports": [],
        "Labels": container.config.labels,
        "State": container.state.status.value,
        "Status": status_text(container, time.time_ns()),
        "HostConfig": {"NetworkMode": container.host_config.network_mode},
        "NetworkSettings": {"Networks": networks(container.networks, version)},
        "Mounts": mounts(container),
    }


def status_text(container: Container, now_ns: int) -> str:
    """``Up 3 minutes``, ``Exited (0) 2 hours ago`` and the like."""
    kept = container.state
    match kept.status:
        case Status.RUNNING:
            return f"Up {ago(nanoseconds(kept.started_at), now_ns)}"
        case Status.PAUSED:
            return f"Up {ago(nanoseconds(kept.started_at), now_ns)} (Paused)"
        case Status.RESTARTING:
            return f"Restarting ({kept.exit_code}) {ago(nanoseconds(kept.finished_at), now_ns)} ago"
        case Status.REMOVING:
            return "Removal In Progress"
        case Status.DEAD:
            return "Dead"
        case Status.EXITED:
            return f"Exited ({kept.exit_code}) {ago(nanoseconds(kept.finished_at), now_ns)} ago"
        case Status.CREATED:
            return "Created"


def _passes(daemon: Daemon, container: Container, filters: Mapping[str, list[str]]) -> bool:
    return all(_one(daemon, container, key, wanted) for key, wanted in filters.items())


def _one(daemon: Daemon, container: Container, key: str, wanted: list[str]) -> bool:
    """One filter that looks beyond the container itself, or at what is asked for."""
    match key:
        case "before":
            return all(container.created < daemon.registry.find(one).created for one in wanted)
        case "since":
            return all(container.created > daemon.registry.find(one).created for one in wanted)
        case "ancestor":
            return any(_ancestor(daemon, container, one) for one in wanted)
        case "status":
            _refuse(key, (one for one in wanted if one not in [*Status]))
        case "exited":
            _refuse(key, (one for one in wanted if not one.lstrip("-").isdecimal()))
    return _own(container, key, wanted)


def _refuse(key: str, values: Iterable[str]) -> None:
    for value in values:
        raise InvalidParameter(f"invalid filter '{key}={value}'")


def _own(container: Container, key: str, wanted: list[str]) -> bool:
    """One filter on what the container itself is."""
    labels = container.config.labels
    tests: dict[str, Callable[[str], bool]] = {
        "id": container.id.startswith,
        "name": lambda one: bool(re.search(one.removeprefix("/"), container.name)),
        "status": lambda one: container.state.status == one,
        "exited": lambda one: container.state.status == Status.EXITED and str(container.state.exit_code) == one,
        "network": lambda one: _on_network(container, one),
        "volume": lambda one: any(one in {point.name, point.destination, point.source} for point in container.mounts),
        "health": lambda one: one == "none",
        "is-task": lambda one: one == "false",
        "isolation": lambda one: container.host_config.isolation == one,
    }
    if key == "label":
        return all(has_label(labels, one) for one in wanted)
    if key == "label!":
        return not any(has_label(labels, one) for one in wanted)
    if key in {"expose", "publish"}:
        numbers = {port.partition("/")[0] for port in _ports(container, key)}
        return any(one.partition("/")[0] in numbers for one in wanted)
    return any(tests[key](one) for one in wanted)


def _on_network(container: Container, wanted: str) -> bool:
    return any(
        wanted == name or bool(settings.network_id and settings.network_id.startswith(wanted))
        for name, settings in container.networks.items()
    )


def _ports(container: Container, key: str) -> list[str]:
    if key == "expose":
        return list(container.config.exposed_ports)
    return [binding.host_port for bindings in container.host_config.port_bindings.values() for binding in bindings]


def has_label(labels: Mapping[str, str], wanted: str) -> bool:
    """Whether the labels have ``key`` or ``key=value``."""
    key, sep, value = wanted.partition("=")
    return key in labels and (not sep or labels[key] == value)


def _ancestor(daemon: Daemon, container: Container, reference: str) -> bool:
    try:
        wanted = daemon.images.resolve(reference)
    except NotFound:
        return False
    if container.image == wanted.id:
        return True
    own = daemon.images.layers_of(container.image)
    other = daemon.images.layers_of(wanted.id)
    return bool(other) and own[: len(other)] == other
