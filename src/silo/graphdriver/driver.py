"""What a graph driver is, in words."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from silo.ids import DiffID, LayerID


class Applied(msgspec.Struct, frozen=True):
    """What applying a tar gave: its digest when uncompressed, and the bytes of its files."""

    diff_id: DiffID
    size: int


class Change(msgspec.Struct, frozen=True):
    """One difference of a read-write layer: kind 0 modified, 1 added, 2 deleted."""

    kind: int
    path: str


class GraphDriver(Protocol):
    """Keeps layers of files, each on top of its parents.

    A layer is named by a ``layer_id`` that says nothing of its parents; ``parents`` are given nearest first.  A
    read-only layer is made by ``create`` and filled once by ``apply_diff``.  A read-write layer is made by
    ``create_read_write`` and seen through ``get``, which nests: each ``get`` needs one ``put``, the last ``put``
    unmounts.  ``remove`` is final as soon as it begins: after a crash in the middle of it the layer is gone.
    """

    name: str

    async def create(self, layer_id: LayerID, parents: Sequence[LayerID]) -> None:
        """Make an empty read-only layer.  Raises Conflict, NotFound for a parent."""
        ...

    async def apply_diff(self, layer_id: LayerID, tar: Path) -> Applied:
        """Fill a layer made by ``create``.  Raises Corrupt, InvalidParameter, TooLarge."""
        ...

    async def create_read_write(self, layer_id: LayerID, parents: Sequence[LayerID], size: int | None) -> None:
        """Make an empty read-write layer, bounded to ``size`` bytes if given.  Raises Conflict, NotFound."""
        ...

    async def get(self, layer_id: LayerID) -> Path:
        """Mount, and return the root."""
        ...

    async def put(self, layer_id: LayerID) -> None:
        """Undo one ``get``; without a ``get`` it does nothing."""
        ...

    async def remove(self, layer_id: LayerID) -> None:
        """Delete a layer; one that is not there is no error.  Raises Conflict while it is mounted."""
        ...

    async def exists(self, layer_id: LayerID) -> bool:
        """Whether there is such a layer."""
        ...

    async def adopt(self, live: Collection[LayerID]) -> None:
        """After a restart: mounts of ``live`` layers count as one ``get`` each, others are unmounted."""
        ...

    def metadata(self, layer_id: LayerID) -> Mapping[str, str]:
        """What inspect shows of the layer."""
        ...

    def known(self) -> list[LayerID]:
        """Every layer there is a directory of."""
        ...

    async def changes(self, layer_id: LayerID) -> list[Change]:
        """How a read-write layer differs from its parents."""
        ...

    async def export(self, layer_id: LayerID, destination: Path) -> None:
        """Write a layer's own files as a tar with OCI whiteouts."""
        ...

    async def size(self, layer_id: LayerID) -> int:
        """Bytes of a layer's own files."""
        ...
