"""What images need of the storage strip, and nothing more."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Protocol

from silo.ids import ChainID, ContainerID, DiffID


class LayerInfo(Protocol):
    """One read-only layer on its chain."""

    @property
    def chain_id(self) -> ChainID:
        """The layer with all its parents."""
        ...

    @property
    def diff_id(self) -> DiffID:
        """The digest of the layer's own tar."""
        ...

    @property
    def parent(self) -> ChainID | None:
        """The chain below; None for a base layer."""
        ...

    @property
    def size(self) -> int:
        """Bytes of the layer's own files."""
        ...


class Layers(Protocol):
    """Keeps the layers of images, each on its parents, as long as an owner holds them (``silo.layerstore``)."""

    async def register(self, tar: Path, parent: ChainID | None, expected: DiffID | None = None) -> LayerInfo:
        """Unpack ``tar`` on ``parent``; a chain that is there is kept as it is.

        Raises Corrupt when the tar is not whole or is not ``expected``, NotFound for the parent.
        """
        ...

    def get(self, chain: ChainID) -> LayerInfo:
        """The top layer of ``chain``.  Raises NotFound."""
        ...

    def layers(self) -> Iterable[LayerInfo]:
        """Every layer."""
        ...

    async def retain(self, chain: ChainID, owner: str) -> None:
        """Hold ``chain`` for ``owner``; holding twice is holding once.  Raises NotFound."""
        ...

    async def release(self, chain: ChainID, owner: str) -> None:
        """Let go of ``chain``; layers that nobody holds any more are deleted."""
        ...

    def owners(self, chain: ChainID) -> Collection[str]:
        """Who holds ``chain`` itself (a child that needs it is not an owner)."""
        ...

    def metadata(self, layer: ContainerID | ChainID) -> dict[str, str]:
        """What inspect shows as ``GraphDriver.Data``."""
        ...
