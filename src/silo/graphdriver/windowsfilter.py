"""The ``windowsfilter`` graph driver: a thin sequence of hcsshim's layer calls (reference, section 2).

A layer is ``<home>/<id>``; ``layerchain.json`` in it lists its parents' directories, nearest first.  Unlike its model
it checks the parents before it makes anything, and rolls back on every failure.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import msgspec

from silo.errors import Conflict, SiloError
from silo.graphdriver.driver import Applied, Change
from silo.hcsshim import layer as shim
from silo.hcsshim.gate import Gate
from silo.ids import DiffID, LayerID
from silo.resources import KeyedLock, Undo, leaf
from silo.telemetry import traced

log = logging.getLogger(__name__)

CHAIN: Final = "layerchain.json"
REMOVING: Final = "-removing"


class _Mounted(msgspec.Struct):
    """Where a layer is mounted, for how many; ``prepared`` is off once only the volume is left to take away."""

    root: Path
    users: int = 1
    prepared: bool = True


class WindowsFilter:
    """See :class:`silo.graphdriver.driver.GraphDriver`."""

    name = "windowsfilter"

    def __init__(self, gate: Gate, home: Path) -> None:
        self._gate = gate
        self._home = home
        self._mounted: dict[LayerID, _Mounted] = {}
        self._locks: KeyedLock[LayerID] = KeyedLock()

    def _dir(self, layer_id: LayerID) -> Path:
        return self._home / layer_id

    async def _chain(self, layer_id: LayerID) -> list[Path]:
        """The parents' directories, nearest first; a base layer has no file, or ``null`` in it."""
        try:
            text = await leaf((self._dir(layer_id) / CHAIN).read_bytes)
        except FileNotFoundError:
            return []
        return [Path(path) for path in msgspec.json.decode(text, type=list[str] | None) or []]

    async def _write_chain(self, layer_id: LayerID, parents: Sequence[Path]) -> None:
        def write() -> None:
            fd = os.open(self._dir(layer_id) / CHAIN, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(msgspec.json.encode([str(parent) for parent in parents]))

        await leaf(write)

    @traced("windowsfilter::Create", "layer_id")
    async def create(self, layer_id: LayerID, parents: Sequence[LayerID]) -> None:
        """See the Protocol.  A base layer has no ``layerchain.json``."""
        chain = [self._dir(parent) for parent in parents]
        if chain:
            await shim.get_layer_mount_path(self._gate, chain[0])
        async with Undo() as undo:
            await shim.create_layer(self._gate, self._dir(layer_id))
            undo.push_async_callback(self.remove, layer_id)
            if chain:
                await self._write_chain(layer_id, chain)
            undo.pop_all()

    @traced("windowsfilter::ApplyDiff", "layer_id")
    async def apply_diff(self, layer_id: LayerID, tar: Path) -> Applied:
        """See the Protocol."""
        done = await shim.import_layer(self._gate, self._dir(layer_id), tar, await self._chain(layer_id))
        return Applied(DiffID(done.DiffID), done.Size)

    @traced("windowsfilter::CreateReadWrite", "layer_id", "size")
    async def create_read_write(self, layer_id: LayerID, parents: Sequence[LayerID], size: int | None) -> None:
        """See the Protocol.  The calls are those of the mission document's first step."""
        chain = [self._dir(parent) for parent in parents]
        if chain:
            await shim.get_layer_mount_path(self._gate, chain[0])
        async with Undo() as undo:
            await shim.create_scratch_layer(self._gate, self._dir(layer_id), chain)
            undo.push_async_callback(self.remove, layer_id)
            if size is not None:
                await shim.expand_scratch_size(self._gate, self._dir(layer_id), size)
            await self._write_chain(layer_id, chain)
            undo.pop_all()

    @traced("windowsfilter::Get", "layer_id")
    async def get(self, layer_id: LayerID) -> Path:
        """See the Protocol.  The path may differ from mount to mount, by design."""
        async with self._locks.hold(layer_id):
            mounted = self._mounted.get(layer_id)
            if mounted is not None and mounted.prepared:
                mounted.users += 1
                return mounted.root
            if mounted is not None:
                await self._unmount(layer_id, mounted)
            path, chain = self._dir(layer_id), await self._chain(layer_id)
            async with Undo() as undo:
                await shim.activate_layer(self._gate, path)
                undo.push_async_callback(shim.deactivate_layer, self._gate, path)
                await shim.prepare_layer(self._gate, path, chain)
                undo.push_async_callback(shim.unprepare_layer, self._gate, path)
                root = await shim.get_layer_mount_path(self._gate, path)
                undo.pop_all()
            self._mounted[layer_id] = _Mounted(root)
            return root

    @traced("windowsfilter::Put", "layer_id")
    async def put(self, layer_id: LayerID) -> None:
        """See the Protocol."""
        async with self._locks.hold(layer_id):
            mounted = self._mounted.get(layer_id)
            if mounted is None:
                return
            mounted.users -= 1
            if mounted.users <= 0:
                mounted.users = 1  # until it has worked: then a second put can finish what a first one began
                await self._unmount(layer_id, mounted)

    async def _unmount(self, layer_id: LayerID, mounted: _Mounted) -> None:
        if mounted.prepared:
            await shim.unprepare_layer(self._gate, self._dir(layer_id))
            mounted.prepared = False
        await shim.deactivate_layer(self._gate, self._dir(layer_id))
        self._mounted.pop(layer_id, None)

    @traced("windowsfilter::Remove", "layer_id")
    async def remove(self, layer_id: LayerID) -> None:
        """See the Protocol.  The rename is the point of no return; start-up deletes what a crash leaves."""
        async with self._locks.hold(layer_id):
            if layer_id in self._mounted:
                raise Conflict(f"remove layer {layer_id}: it is mounted on {self._mounted[layer_id].root}")
            doomed = self._home / f"{layer_id}{REMOVING}"
            try:
                await leaf(self._dir(layer_id).rename, doomed)
            except FileNotFoundError:
                return
            await shim.destroy_layer(self._gate, doomed)

    async def exists(self, layer_id: LayerID) -> bool:
        """See the Protocol."""
        return await shim.layer_exists(self._gate, self._dir(layer_id))

    async def adopt(self, live: Collection[LayerID]) -> None:
        """See the Protocol."""
        for directory, volume in (await shim.volumes(self._gate)).items():
            layer_id = LayerID(Path(directory).name)
            mounted = self._mounted[layer_id] = _Mounted(Path(volume))
            if layer_id not in live:
                try:
                    await self._unmount(layer_id, mounted)
                except SiloError:
                    log.exception("layer %s stays mounted on %s", layer_id, volume)

    def metadata(self, layer_id: LayerID) -> dict[str, str]:
        """See the Protocol: ``dir`` and ``ID``, as the model shows them."""
        return {"dir": str(self._dir(layer_id)), "ID": layer_id}

    def known(self) -> list[LayerID]:
        """See the Protocol."""
        return [
            LayerID(folder.name)
            for folder in self._home.iterdir()
            if not folder.name.endswith(REMOVING) and not folder.name.startswith(".")
        ]

    async def changes(self, layer_id: LayerID) -> list[Change]:
        """See the Protocol."""
        found = await shim.layer_changes(self._gate, self._dir(layer_id), await self._chain(layer_id))
        return [Change(change.Kind, change.Path) for change in found]

    async def export(self, layer_id: LayerID, destination: Path) -> None:
        """See the Protocol."""
        await shim.export_layer(self._gate, self._dir(layer_id), destination)

    async def size(self, layer_id: LayerID) -> int:
        """See the Protocol."""
        return await shim.layer_size(self._gate, self._dir(layer_id))
