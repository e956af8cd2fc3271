"""The layer exports of ``vmcompute.dll`` on overlayfs.

A scratch layer is *activated* when it has a volume (a directory below ``<exec-root>/volumes``, a new GUID each time)
and *prepared* when the union of its layers is mounted there.  The kernel's mount table is the only record of both, so
nothing can disagree with it after a crash.  Left out, because they have no meaning here: ProcessBaseImage,
ProcessUtilityImage, GetBaseImages, GrantVmAccess, CopyLayer.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import anyio
import msgspec

from silo.host.linux import tree
from silo.host.results import Code, HostError
from silo.host.storagefilter import scratch
from silo.host.storagefilter.changes import changes, size
from silo.host.storagefilter.export import export
from silo.host.storagefilter.layer import MAX_DEPTH, LayerState, move
from silo.host.storagefilter.unpack import Limits, unpack
from silo.host.storagefilter.volumes import FILES, Volume, Volumes
from silo.ids import name_to_guid
from silo.resources import KeyedLock, leaf
from silo.telemetry import annotate, effect

log = logging.getLogger(__name__)

Handler = Callable[..., Awaitable[Any]]
T = TypeVar("T")

REMOVING: Final = "-removing"
"""What the name of a layer ends with when its removal has begun."""


class StorageFilterService:
    """Layers below one data root.  An async context manager: it shares the volumes' mount and sweeps leftovers.

    ``limits`` are those of one imported layer.  Calls for one layer wait for each other.
    """

    def __init__(self, data_root: Path, exec_root: Path, limits: Limits = Limits()) -> None:
        self._home = data_root / "windowsfilter"
        self._mounts = Volumes(self._home, exec_root)
        self._limits = limits
        self._volumes: dict[str, Volume] = {}
        self._locks: KeyedLock[str] = KeyedLock()

    async def __aenter__(self) -> Self:
        self._volumes = await leaf(self._mounts.open)
        for leftover in self._home.glob(f"*{REMOVING}"):
            try:
                await self.destroy(str(leftover))
            except (HostError, OSError) as exc:
                log.warning("removal of layer %s is not finished: %s", leftover.name, exc)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            if not self._volumes:
                await leaf(self._mounts.close)

    def exports(self) -> dict[str, Handler]:
        """The service's part of the function table."""
        return {
            "ActivateLayer": self.activate,
            "DeactivateLayer": self.deactivate,
            "PrepareLayer": self.prepare,
            "UnprepareLayer": self.unprepare,
            "CreateLayer": self.create,
            "CreateSandboxLayer": self.create_scratch,
            "ExpandSandboxSize": self.expand,
            "GetLayerMountPath": self.mount_path,
            "LayerExists": self.exists,
            "DestroyLayer": self.destroy,
            "ExportLayer": self.export,
            "ImportLayer": self.import_layer,
            "GetLayerChanges": self.changes,
            "GetLayerSize": self.size,
            "EnumerateVolumes": self.volumes,
            "NameToGuid": self.name_to_guid,
        }

    def _state(self, path: str) -> LayerState:
        volume = self._volumes.get(path)
        if volume is not None:
            return LayerState.PREPARED if volume.prepared else LayerState.ACTIVATED
        folder = self._folder(path)
        if (folder / scratch.FOLDER).is_dir() or (folder / scratch.IMAGE).exists():
            return LayerState.CREATED
        return LayerState.READ_ONLY if folder.is_dir() else LayerState.ABSENT

    def _folder(self, path: str) -> Path:
        folder = Path(path)
        if folder.parent != self._home or folder.name in {"", ".", ".."}:
            raise HostError(Code.INVALID_PARAMETER, f"{path} is not a layer below {self._home}")
        return folder

    def _step(self, path: str, verb: str) -> Path:
        move(path, self._state(path), verb)
        return self._folder(path)

    async def create(self, Path: str) -> None:  # noqa: N803 - names of the wire
        """An empty read-only layer."""
        async with self._locks.hold(Path):
            folder = self._step(Path, "CreateLayer")
            await leaf(_make_folder, folder)
            effect("file", "+", folder)

    async def create_scratch(self, Path: str, Parents: Sequence[str]) -> None:  # noqa: N803
        """A scratch layer on its parents, nearest first.  Raises when there are too many, or one is missing."""
        async with self._locks.hold(Path):
            folder = self._step(Path, "CreateScratchLayer")
            await leaf(_create_scratch, folder, Parents)
            effect("file", "+", folder)

    async def expand(self, Path: str, Size: int) -> None:  # noqa: N803
        """Bound the scratch layer to ``Size`` bytes at least: an ext4 image instead of a directory."""
        async with self._locks.hold(Path):
            folder = self._step(Path, "ExpandScratchSize")
            await leaf(scratch.expand, folder, Size)
            effect("file", "+", folder / scratch.IMAGE)

    async def activate(self, Path: str) -> None:  # noqa: N803
        """Give the scratch layer a volume with a new GUID.  A read-only layer needs none."""
        async with self._locks.hold(Path):
            if self._state(Path) == LayerState.READ_ONLY:
                return
            folder = self._step(Path, "ActivateLayer")
            self._volumes[Path] = await leaf(self._mounts.activate, folder)

    async def prepare(self, Path: str, Parents: Sequence[str]) -> None:  # noqa: N803
        """Mount the union of the scratch layer and its parents (nearest first) on the volume."""
        async with self._locks.hold(Path):
            self._step(Path, "PrepareLayer")
            volume = self._volumes[Path]
            await leaf(self._mounts.prepare, volume, Parents)
            self._volumes[Path] = msgspec.structs.replace(volume, prepared=True)

    async def unprepare(self, Path: str) -> None:  # noqa: N803
        """Unmount the union."""
        async with self._locks.hold(Path):
            self._step(Path, "UnprepareLayer")
            volume = self._volumes[Path]
            if await leaf(self._mounts.unprepare, volume):
                annotate(busy=True)
            self._volumes[Path] = msgspec.structs.replace(volume, prepared=False)

    async def deactivate(self, Path: str) -> None:  # noqa: N803
        """Take the volume away."""
        async with self._locks.hold(Path):
            if self._state(Path) == LayerState.READ_ONLY:
                return
            self._step(Path, "DeactivateLayer")
            await leaf(self._mounts.deactivate, self._volumes[Path])
            del self._volumes[Path]

    async def mount_path(self, Path: str) -> str:  # noqa: N803
        """A read-only layer's directory, or the volume of an activated scratch layer."""
        if self._state(Path) == LayerState.ABSENT:
            raise HostError(Code.PATH_NOT_FOUND, f"layer {Path} does not exist")
        volume = self._volumes.get(Path)
        return volume.path if volume is not None else Path

    async def exists(self, Path: str) -> bool:  # noqa: N803
        """Whether there is such a layer."""
        return self._state(Path) != LayerState.ABSENT

    async def destroy(self, Path: str) -> None:  # noqa: N803
        """Delete a layer that is not activated, under its own name or the one that its removal gave it."""
        async with self._locks.hold(Path):
            folder = self._step(Path, "DestroyLayer")
            if Path.removesuffix(REMOVING) in self._volumes:
                raise HostError(Code.SHARING_VIOLATION, f"DestroyLayer {Path}: the layer is still mounted")
            await leaf(tree.remove, folder)
            effect("file", "-", folder)

    async def import_layer(self, Path: str, Source: str, Parents: Sequence[str]) -> Any:  # noqa: N803
        """Unpack a tar into the layer's ``Files``; answers its digest and size."""
        async with self._locks.hold(Path):
            folder = self._step(Path, "ImportLayer")
            unpacked = await leaf(unpack, _path(Source), folder / FILES, _files(Parents), self._limits)
            effect("file", "+", folder / FILES)
            return unpacked

    async def export(self, Path: str, Destination: str) -> None:  # noqa: N803
        """Write the scratch layer, or a read-only layer's files, as a tar."""
        self._step(Path, "ExportLayer")
        await self._on_content(Path, export, _path(Destination))

    async def changes(self, Path: str, Parents: Sequence[str]) -> Any:  # noqa: N803
        """How the scratch layer differs from its parents."""
        return await self._on_content(Path, changes, _files(Parents))

    async def size(self, Path: str) -> int:  # noqa: N803
        """Bytes of the layer's own files."""
        return await self._on_content(Path, size)

    async def _on_content(self, path: str, function: Callable[..., T], *arguments: object) -> T:
        """Call ``function`` with the directory of the layer's own files; a bounded layer's may have to be mounted."""
        folder, volume = self._folder(path), self._volumes.get(path)
        if volume is None and (folder / scratch.IMAGE).exists():
            async with self._locks.hold(path):  # nobody activates it meanwhile
                if (volume := self._volumes.get(path)) is None:
                    return await leaf(self._on_image, folder, function, *arguments)
        if volume is not None:
            content = _path(volume.scratch) / "upper"
        else:
            upper = folder / scratch.FOLDER / "upper"
            content = upper if upper.is_dir() else folder / FILES
        return await leaf(function, content, *arguments)

    def _on_image(self, folder: Path, function: Callable[..., T], *arguments: object) -> T:
        with self._mounts.opened(folder) as content:
            return function(content, *arguments)

    async def volumes(self) -> dict[str, str]:
        """Volume by layer directory, of every prepared layer."""
        return {layer: volume.path for layer, volume in self._volumes.items() if volume.prepared}

    async def name_to_guid(self, Name: str) -> str:  # noqa: N803
        """The GUID that stands for a layer's name."""
        return name_to_guid(Name)


def _path(text: str) -> Path:
    return Path(text)


def _files(parents: Sequence[str]) -> list[Path]:
    return [Path(parent) / FILES for parent in parents]


def _make_folder(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o711)  # passable, not readable, whatever the umask is


def _create_scratch(folder: Path, parents: Sequence[str]) -> None:
    if len(parents) > MAX_DEPTH:
        raise HostError(Code.INVALID_LAYER, f"{folder.name}: {len(parents)} layers below: max depth exceeded")
    for parent in parents:
        if not Path(parent).is_dir():
            raise HostError(Code.PATH_NOT_FOUND, f"cannot create layer with missing parent {parent}")
    _make_folder(folder)
    try:
        scratch.make(folder / scratch.FOLDER)
    except BaseException:
        tree.remove(folder)
        raise
