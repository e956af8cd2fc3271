"""Layers by hcsshim's names (``internal/wclayer``): one function a call, the directory of the layer as its argument.

Each call is a span with the title it has on Windows (reference, section 3.2).  Not here, for want of meaning on Linux:
ProcessUtilityVMImage, GrantVmAccess, GetSharedBaseImages, ConvertToBaseLayer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from silo.hcsshim.gate import Gate, invoke
from silo.ids import name_to_guid as guid_of
from silo.telemetry import annotate, span


class Imported(msgspec.Struct, frozen=True):
    """What an import made: the digest of the uncompressed tar, bytes of its files, number of entries."""

    DiffID: str
    Size: int
    Entries: int


class LayerChange(msgspec.Struct, frozen=True):
    """One difference to the parents: kind 0 modified, 1 added, 2 deleted."""

    Kind: int
    Path: str


async def _call(gate: Gate, title: str, function: str, path: Path, /, **arguments: Any) -> msgspec.Raw:
    op = f"hcsshim::{title}"
    with span(op, path=str(path)):
        return await invoke(gate, op, str(path), function, Path=str(path), **arguments)


def _paths(parents: Sequence[Path]) -> list[str]:
    return [str(parent) for parent in parents]


async def activate_layer(gate: Gate, path: Path) -> None:
    """Give a scratch layer its volume.  Undone by :func:`deactivate_layer`."""
    await _call(gate, "ActivateLayer", "ActivateLayer", path)


async def deactivate_layer(gate: Gate, path: Path) -> None:
    """Take the volume away."""
    await _call(gate, "DeactivateLayer", "DeactivateLayer", path)


async def prepare_layer(gate: Gate, path: Path, parents: Sequence[Path]) -> None:
    """Attach the filter: the union of the layer and ``parents`` (nearest first) appears on the volume."""
    await _call(gate, "PrepareLayer", "PrepareLayer", path, Parents=_paths(parents))


async def unprepare_layer(gate: Gate, path: Path) -> None:
    """Detach the filter."""
    await _call(gate, "UnprepareLayer", "UnprepareLayer", path)


async def create_layer(gate: Gate, path: Path) -> None:
    """Make an empty read-only layer."""
    await _call(gate, "CreateLayer", "CreateLayer", path)


async def create_scratch_layer(gate: Gate, path: Path, parents: Sequence[Path]) -> None:
    """Make a scratch layer on ``parents``, nearest first."""
    await _call(gate, "CreateScratchLayer", "CreateSandboxLayer", path, Parents=_paths(parents))


create_sandbox_layer = create_scratch_layer
"""The old name of the same call: scratch, sandbox and read-write layer are one thing."""


async def expand_scratch_size(gate: Gate, path: Path, size: int) -> None:
    """Bound a scratch layer that is not activated to ``size`` bytes, or grow its bound."""
    await _call(gate, "ExpandScratchSize", "ExpandSandboxSize", path, Size=size)


async def get_layer_mount_path(gate: Gate, path: Path) -> Path:
    """The volume of an activated scratch layer, else the layer's own directory."""
    op = "hcsshim::GetLayerMountPath"
    with span(op, path=str(path)):
        output = await invoke(gate, op, str(path), "GetLayerMountPath", Path=str(path))
        mounted = msgspec.json.decode(output, type=str)
        annotate(result=mounted)
        return Path(mounted)


async def layer_exists(gate: Gate, path: Path) -> bool:
    """Whether there is such a layer."""
    return msgspec.json.decode(await _call(gate, "LayerExists", "LayerExists", path), type=bool)


async def destroy_layer(gate: Gate, path: Path) -> None:
    """Delete a layer that is not activated."""
    await _call(gate, "DestroyLayer", "DestroyLayer", path)


async def import_layer(gate: Gate, path: Path, source: Path, parents: Sequence[Path]) -> Imported:
    """Unpack the tar ``source`` into a read-only layer on ``parents``."""
    output = await _call(gate, "ImportLayer", "ImportLayer", path, Source=str(source), Parents=_paths(parents))
    return msgspec.json.decode(output, type=Imported)


async def export_layer(gate: Gate, path: Path, destination: Path) -> None:
    """Write a layer's own files as a tar, deletions as whiteouts."""
    await _call(gate, "ExportLayer", "ExportLayer", path, Destination=str(destination))


async def layer_changes(gate: Gate, path: Path, parents: Sequence[Path]) -> list[LayerChange]:
    """How a scratch layer differs from its parents."""
    output = await _call(gate, "GetLayerChanges", "GetLayerChanges", path, Parents=_paths(parents))
    return msgspec.json.decode(output, type=list[LayerChange])


async def layer_size(gate: Gate, path: Path) -> int:
    """Bytes of the layer's own files."""
    return msgspec.json.decode(await _call(gate, "GetLayerSize", "GetLayerSize", path), type=int)


async def volumes(gate: Gate) -> dict[str, str]:
    """Volume by layer directory, of every layer whose filter is attached."""
    output = await invoke(gate, "hcsshim::EnumerateVolumes", "", "EnumerateVolumes")
    return msgspec.json.decode(output, type=dict[str, str])


async def name_to_guid(gate: Gate, name: str) -> str:
    """The GUID that stands for a layer's name in descriptors."""
    return msgspec.json.decode(await invoke(gate, "hcsshim::NameToGuid", name, "NameToGuid", Name=name), type=str)


def layer_id(path: Path) -> str:
    """The GUID of a layer: that of its directory's name."""
    return guid_of(path.name)
