"""What no other engine shows: traces, compartments, layers and compute systems, in the words of the Windows stack."""

from __future__ import annotations

from typing import Any

import msgspec

from silo.daemon.daemon import Daemon
from silo.errors import NotFound
from silo.telemetry import Trace


async def traces(daemon: Daemon, reference: str) -> dict[str, Any]:
    """Every trace of one container, also of one that is gone (by id or unique prefix).  Raises NotFound."""
    try:
        container_id: str = daemon.registry.find(reference).id
    except NotFound:
        known = [one for one in daemon.traces.known() if len(reference) >= 4 and one.startswith(reference)]
        if len(known) != 1:
            raise
        container_id = known[0]
    return {"traces": [shown(trace) for trace in await daemon.traces.of(container_id)]}


def shown(trace: Trace) -> dict[str, Any]:
    """A trace as ``GET /silo/traces/{container}`` gives it."""
    value: dict[str, Any] = msgspec.to_builtins(trace)
    del value["container"]
    return value


def containers_with_traces(daemon: Daemon) -> list[dict[str, Any]]:
    """Ids, newest first, with the name where the container still exists."""
    names: dict[str, str] = {container.id: container.name for container in daemon.registry.all()}
    return [{"Id": one, "Name": names.get(one)} for one in daemon.traces.known()]


def layers(daemon: Daemon) -> list[dict[str, Any]]:
    """Every read-only layer, and every container's scratch layer."""
    rows = [
        {
            "Id": layer.layer_id,
            "Kind": "ReadOnly",
            "ChainId": layer.chain_id,
            "DiffId": layer.diff_id,
            "Size": layer.size,
            "Dir": daemon.layers.metadata(layer.chain_id)["dir"],
        }
        for layer in daemon.layers.layers()
    ]
    rows += [
        {"Id": one.id, "Kind": "Scratch", "ChainId": one.chain, "Dir": daemon.layers.metadata(one.id)["dir"]}
        for one in daemon.registry.all()
    ]
    return rows


def layerchain(daemon: Daemon, reference: str) -> dict[str, Any]:
    """The content of ``layerchain.json``: directories of the parents, nearest first.  Raises NotFound."""
    try:
        chain, own = (container := daemon.registry.find(reference)).chain, daemon.layers.metadata(container.id)["dir"]
    except NotFound:
        chain = daemon.images.resolve(reference).chain
        if chain is None:
            return {"id": "", "dir": "", "chain": []}
        top = daemon.layers.get(chain)
        own, chain = daemon.layers.metadata(chain)["dir"], top.parent
    parents: list[str] = []
    while chain is not None:
        parents.append(daemon.layers.metadata(chain)["dir"])
        chain = daemon.layers.get(chain).parent
    return {"id": own.rsplit("/", 1)[-1], "dir": own, "chain": parents}
