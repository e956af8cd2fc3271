"""Chains of read-only layers shared by images, and one read-write layer per container.

A chain is kept while somebody owns it (an image, an import in progress), a container runs on it, or another chain is
built on it; the number of users is always counted, never stored.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from silo.errors import Conflict, Corrupt, NotFound, SiloError
from silo.graphdriver.driver import Change, GraphDriver
from silo.ids import ChainID, ContainerID, DiffID, LayerID, chain_id, random_id
from silo.resources import KeyedLock, Undo
from silo.store import Delete, Put, Store, decode_all
from silo.telemetry import traced

log = logging.getLogger(__name__)

LAYERS: Final = "layers"
RW_LAYERS: Final = "rw_layers"


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """A read-only layer on its parents; ``size`` is bytes of its own files unpacked."""

    chain_id: ChainID
    diff_id: DiffID
    parent: ChainID | None
    layer_id: LayerID
    size: int
    owners: tuple[str, ...] = ()


class ReadWriteLayer(msgspec.Struct, frozen=True):
    """A container's layer; ``size`` bounds it, in bytes."""

    parent: ChainID | None
    size: int | None = None


class LayerStore:
    """Every layer of the engine."""

    def __init__(self, driver: GraphDriver, store: Store) -> None:
        self._driver = driver
        self._store = store
        self._layers: dict[ChainID, Layer] = {}
        self._rw: dict[ContainerID, ReadWriteLayer] = {}
        self._growing: Counter[ChainID] = Counter()
        self._locks: KeyedLock[str] = KeyedLock()

    async def restore(self, live: Collection[ContainerID]) -> None:
        """At start: adopt the mounts of ``live`` containers, unmount others, delete what no document names.

        A chain with a layer whose directory is gone is left out, and told.
        """
        layers = {layer.chain_id: layer for layer in decode_all(Layer, self._store.load(LAYERS)).values()}
        self._rw = {
            ContainerID(key): layer for key, layer in decode_all(ReadWriteLayer, self._store.load(RW_LAYERS)).items()
        }
        await self._driver.adopt([LayerID(one) for one in live])
        there = set(self._driver.known())
        self._layers = {chain: layer for chain, layer in layers.items() if _whole(layer, layers, there)}
        for chain in layers.keys() - self._layers.keys():
            log.warning("layer %s or one below it has lost its directory: it is left out", chain)
        for layer_id in there - {layer.layer_id for layer in layers.values()} - {LayerID(one) for one in self._rw}:
            try:
                await self._driver.remove(layer_id)
            except SiloError:
                log.exception("leftover layer %s", layer_id)

    @traced("layerstore::Register", "tar", "parent", "expected")
    async def register(self, tar: Path, parent: ChainID | None, expected: DiffID | None = None) -> Layer:
        """Unpack ``tar`` on ``parent``; a chain that is there already is kept as it is.

        Raises Corrupt when the tar is not whole or not ``expected``, NotFound for the parent.  Concurrent calls for one
        chain share the work.
        """
        key = chain_id(parent, expected) if expected else f"unknown {random_id()}"
        async with self._locks.hold(key):
            if expected is not None and (there := self._layers.get(ChainID(key))) is not None:
                return there
            with self._growing_on(parent):
                return await self._unpack(tar, parent, expected)

    async def _unpack(self, tar: Path, parent: ChainID | None, expected: DiffID | None) -> Layer:
        below = self._chain(parent)
        layer_id = LayerID(random_id())
        async with Undo() as undo:
            await self._driver.create(layer_id, [layer.layer_id for layer in below])
            undo.push_async_callback(self._driver.remove, layer_id)
            done = await self._driver.apply_diff(layer_id, tar)
            if expected is not None and done.diff_id != expected:
                raise Corrupt(f"layer {tar.name}: its content is {done.diff_id}, not {expected}")
            chain = chain_id(parent, done.diff_id)
            there = self._layers.get(chain)
            if there is not None:
                return there  # and the undo takes away what turned out to be a copy
            undo.callback(self._layers.pop, chain, None)
            layer = Layer(chain_id=chain, diff_id=done.diff_id, parent=parent, layer_id=layer_id, size=done.size)
            await self._save(layer)
            undo.pop_all()
        return layer

    @contextmanager
    def _growing_on(self, parent: ChainID | None) -> Generator[None]:
        """For the block, a layer is being made on ``parent``: it cannot go."""
        if parent is None:
            yield
            return
        self._growing[parent] += 1
        try:
            yield
        finally:
            self._growing[parent] -= 1
            if not self._growing[parent]:
                del self._growing[parent]

    async def _save(self, layer: Layer) -> None:
        self._layers[layer.chain_id] = layer
        await self._store.write(Put(LAYERS, layer.chain_id, msgspec.json.encode(layer)))

    def _chain(self, top: ChainID | None) -> list[Layer]:
        """The layers of a chain, nearest first."""
        layers = []
        while top is not None:
            layers.append(self.get(top))
            top = layers[-1].parent
        return layers

    def get(self, chain: ChainID) -> Layer:
        """The top layer of ``chain``.  Raises NotFound."""
        layer = self._layers.get(chain)
        if layer is None:
            raise NotFound(f"layer {chain} does not exist")
        return layer

    def layers(self) -> list[Layer]:
        """Every read-only layer."""
        return list(self._layers.values())

    def owners(self, chain: ChainID) -> Collection[str]:
        """Who holds ``chain`` itself."""
        return self.get(chain).owners

    async def retain(self, chain: ChainID, owner: str) -> None:
        """Hold ``chain`` for ``owner``; holding twice is holding once.  Raises NotFound."""
        layer = self.get(chain)
        if owner not in layer.owners:
            await self._save(msgspec.structs.replace(layer, owners=(*layer.owners, owner)))

    @traced("layerstore::Release", "chain", "owner")
    async def release(self, chain: ChainID, owner: str) -> None:
        """Let go of ``chain``; it and its parents are deleted as far as nobody needs them any more."""
        layer = self._layers.get(chain)
        if layer is not None and owner in layer.owners:
            layer = msgspec.structs.replace(layer, owners=tuple(one for one in layer.owners if one != owner))
            await self._save(layer)
            layer = self._layers.get(chain)  # while we wrote, somebody else may have taken hold of it
        while layer is not None and not self._needed(layer):
            del self._layers[layer.chain_id]
            await self._store.write(Delete(LAYERS, layer.chain_id))
            await self._driver.remove(layer.layer_id)
            layer = self._layers.get(layer.parent) if layer.parent else None

    def _needed(self, layer: Layer) -> bool:
        chain = layer.chain_id
        return bool(
            layer.owners
            or chain in self._growing
            or any(rw.parent == chain for rw in self._rw.values())
            or any(other.parent == chain for other in self._layers.values())
        )

    @traced("layerstore::CreateRWLayer", "container_id", "parent", "size")
    async def create_rw_layer(
        self, container_id: ContainerID, parent: ChainID | None, *, size: int | None = None
    ) -> None:
        """Make a container's layer; its id is the container's.  Raises NotFound for the parent, Conflict."""
        if container_id in self._rw:
            raise Conflict(f"container {container_id} has a layer already")
        below = [layer.layer_id for layer in self._chain(parent)]
        async with Undo() as undo:
            # known before it is made: the parents cannot go, and start-up removes the rest of a crash
            self._rw[container_id] = ReadWriteLayer(parent, size)
            undo.callback(self._rw.pop, container_id, None)
            await self._driver.create_read_write(LayerID(container_id), below, size)
            undo.push_async_callback(self._driver.remove, LayerID(container_id))
            await self._store.write(Put(RW_LAYERS, container_id, msgspec.json.encode(self._rw[container_id])))
            undo.pop_all()

    async def mount(self, container_id: ContainerID) -> Path:
        """Mount the container's union, and return its root.  Calls nest."""
        return await self._driver.get(LayerID(container_id))

    async def unmount(self, container_id: ContainerID) -> None:
        """Undo one :meth:`mount`; without one it does nothing."""
        await self._driver.put(LayerID(container_id))

    @traced("layerstore::ReleaseRWLayer", "container_id")
    async def release_rw_layer(self, container_id: ContainerID) -> None:
        """Delete the container's layer.  Idempotent.  Raises Conflict while it is mounted."""
        await self._driver.remove(LayerID(container_id))
        if container_id in self._rw:
            await self._store.write(Delete(RW_LAYERS, container_id))
            parent = self._rw.pop(container_id).parent
            if parent is not None:
                await self.release(parent, container_id)

    def metadata(self, layer: ContainerID | ChainID) -> dict[str, str]:
        """``GraphDriver.Data`` of inspect."""
        chain = self._layers.get(ChainID(layer))
        return dict(self._driver.metadata(chain.layer_id if chain is not None else LayerID(layer)))

    async def rw_size(self, container_id: ContainerID) -> int:
        """Bytes of the container's own files."""
        return await self._driver.size(LayerID(container_id))

    async def chain_size(self, chain: ChainID) -> int:
        """Bytes of a chain's files, all layers together."""
        return sum(layer.size for layer in self._chain(chain))

    def containers(self) -> list[ContainerID]:
        """Every container that has a layer."""
        return list(self._rw)

    def parents(self, container_id: ContainerID) -> list[Path]:
        """The directories of the layers below a container's, nearest first."""
        rw = self._rw.get(container_id)
        if rw is None:
            raise NotFound(f"container {container_id} has no layer")
        return [Path(self._driver.metadata(layer.layer_id)["dir"]) for layer in self._chain(rw.parent)]

    async def changes(self, container_id: ContainerID) -> list[Change]:
        """How the container's files differ from its image's."""
        return await self._driver.changes(LayerID(container_id))

    async def export_rw(self, container_id: ContainerID, destination: Path) -> None:
        """Write the container's own files as a layer tar."""
        await self._driver.export(LayerID(container_id), destination)


def _whole(layer: Layer, layers: Mapping[ChainID, Layer], there: Collection[LayerID]) -> bool:
    """Whether the layer and all below it are recorded and have their directories."""
    one: Layer | None = layer
    while one is not None and one.layer_id in there:
        if one.parent is None:
            return True
        one = layers.get(one.parent)
    return False
