"""The layer exports of ``vmcompute.dll`` on overlayfs.

A scratch layer is *activated* when it has a volume (a directory below ``<exec-root>/volumes``, a new GUID each time)
and *prepared* when the union of its layers is mounted there.  The kernel's mount table is the only record of both, so
nothing can disagree with it after a crash.  Left out, because they have no meaning here: ProcessBaseImage,
ProcessUtilityImage, GetBaseImages, GrantVmAccess, CopyLayer.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import anyio
import msgspec

from silo.host.linux import mounts
from silo.host.results import Code, HostError
from silo.host.storagefilter.export import changes, export, size
from silo.host.storagefilter.layer import MAX_DEPTH, LayerState, move
from silo.host.storagefilter.unpack import unpack
from silo.ids import name_to_guid, new_guid
from silo.resources import leaf
from silo.telemetry import effect

Handler = Callable[..., Awaitable[Any]]
IMAGE: Final = "sandbox.img"
MIN_IMAGE: Final = 8 << 20


class Volume(msgspec.Struct, frozen=True):
    """An activated scratch layer: where its volume is, and where upper and work directories are."""

    path: str
    scratch: str
    prepared: bool


class StorageFilterService:
    """Layers below one data root.  An async context manager: it shares the volumes' mount and sweeps leftovers."""

    def __init__(self, data_root: Path, exec_root: Path) -> None:
        self._home = data_root / "windowsfilter"
        self._volumes_root = exec_root / "volumes"
        self._scratch_root = exec_root / "scratch"
        self._volumes: dict[str, Volume] = {}

    async def __aenter__(self) -> Self:
        await leaf(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            if not self._volumes:
                await leaf(self._unshare)

    def _open(self) -> None:
        for folder in (self._home, self._volumes_root, self._scratch_root):
            folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        mounts.share(self._volumes_root)
        self._reconcile()
        for doomed in self._home.glob("*-removing"):
            shutil.rmtree(doomed)
            effect("file", "-", doomed)

    def _unshare(self) -> None:
        mounts.unmount(self._volumes_root)
        for folder in (self._volumes_root, self._scratch_root):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _reconcile(self) -> None:
        """Read the mount table: prepared layers are taken as they are, half-activated ones are taken back."""
        prefix = f"{self._volumes_root}/"
        for entry in mounts.mount_table():
            if entry.kind == "overlay" and entry.target.startswith(prefix):
                upper = mounts.option(entry, "upperdir")
                layer = self._layer_of(upper)
                if layer:
                    self._volumes[layer] = Volume(entry.target, str(Path(upper).parent), prepared=True)
        used = {volume.path for volume in self._volumes.values()}
        for folder in self._volumes_root.iterdir():
            if str(folder) not in used:
                folder.rmdir()
        for folder in self._scratch_root.iterdir():
            if str(self._home / folder.name) not in self._volumes:
                mounts.unmount(folder)
                folder.rmdir()

    def _layer_of(self, upper: str) -> str:
        """The layer directory that an overlay's upper directory belongs to."""
        path = Path(upper)
        if path.is_relative_to(self._home):
            return str(self._home / path.relative_to(self._home).parts[0])
        if path.is_relative_to(self._scratch_root):
            return str(self._home / path.relative_to(self._scratch_root).parts[0])
        return ""

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
        if (folder / "sandbox").is_dir() or (folder / IMAGE).exists():
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
        folder = self._step(Path, "CreateLayer")
        await leaf(folder.mkdir, mode=0o711)
        effect("file", "+", folder)

    async def create_scratch(self, Path: str, Parents: Sequence[str]) -> None:  # noqa: N803
        """A scratch layer on its parents, nearest first.  Raises when there are too many, or one is missing."""
        folder = self._step(Path, "CreateScratchLayer")
        await leaf(self._create_scratch, folder, Parents)
        effect("file", "+", folder)

    def _create_scratch(self, folder: Path, parents: Sequence[str]) -> None:
        if len(parents) > MAX_DEPTH:
            raise HostError(Code.INVALID_LAYER, f"{folder.name}: {len(parents)} layers below: max depth exceeded")
        for parent in parents:
            if not Path(parent).is_dir():
                raise HostError(Code.PATH_NOT_FOUND, f"cannot create layer with missing parent {parent}")
        try:
            folder.mkdir(mode=0o711)
            _make_scratch(folder / "sandbox")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    async def expand(self, Path: str, Size: int) -> None:  # noqa: N803
        """Bound the scratch layer to ``Size`` bytes at least: an ext4 image instead of a directory."""
        await leaf(_expand, self._step(Path, "ExpandScratchSize"), Size)

    async def activate(self, Path: str) -> None:  # noqa: N803
        """Give the scratch layer a volume with a new GUID.  A read-only layer needs none."""
        if self._state(Path) == LayerState.READ_ONLY:
            return
        folder = self._step(Path, "ActivateLayer")
        self._volumes[Path] = await leaf(self._activate, folder)

    def _activate(self, folder: Path) -> Volume:
        scratch = folder / "sandbox"
        if (folder / IMAGE).exists():
            scratch = self._scratch_root / folder.name
            scratch.mkdir(mode=0o711, exist_ok=True)
            mounts.mount_image(folder / IMAGE, scratch)
            effect("mount", "+", scratch)
            _make_scratch(scratch)
        path = self._volumes_root / new_guid()
        path.mkdir(mode=0o711)
        effect("volume", "+", path)
        return Volume(str(path), str(scratch), prepared=False)

    async def prepare(self, Path: str, Parents: Sequence[str]) -> None:  # noqa: N803
        """Mount the union of the scratch layer and its parents (nearest first) on the volume."""
        self._step(Path, "PrepareLayer")
        volume = self._volumes[Path]
        await leaf(self._prepare, volume, [f"{parent}/Files" for parent in Parents])
        effect("mount", "+", volume.path)
        self._volumes[Path] = Volume(volume.path, volume.scratch, prepared=True)

    def _prepare(self, volume: Volume, lower: list[str]) -> None:
        if not lower:  # overlayfs wants a lower directory: a base without files
            empty = self._home / ".empty"
            empty.mkdir(exist_ok=True, mode=0o755)
            lower = [str(empty)]
        work = f"{volume.scratch}/work"
        inner = Path(work) / "work"
        if inner.exists():  # what an unclean unmount left; the kernel wants it empty
            shutil.rmtree(inner)
        mounts.mount_union(lower, f"{volume.scratch}/upper", work, volume.path)

    async def unprepare(self, Path: str) -> None:  # noqa: N803
        """Unmount the union."""
        self._step(Path, "UnprepareLayer")
        volume = self._volumes[Path]
        await leaf(_unmount_for_good, volume.path)
        effect("mount", "-", volume.path)
        self._volumes[Path] = Volume(volume.path, volume.scratch, prepared=False)

    async def deactivate(self, Path: str) -> None:  # noqa: N803
        """Take the volume away."""
        if self._state(Path) == LayerState.READ_ONLY:
            return
        self._step(Path, "DeactivateLayer")
        volume = self._volumes[Path]
        await leaf(self._deactivate, volume)
        del self._volumes[Path]

    def _deactivate(self, volume: Volume) -> None:
        Path(volume.path).rmdir()  # never rmtree: were it still mounted, that would eat the layer
        effect("volume", "-", volume.path)
        scratch = Path(volume.scratch)
        if scratch.parent == self._scratch_root:
            mounts.unmount(scratch)
            effect("mount", "-", scratch)
            scratch.rmdir()

    async def mount_path(self, Path: str) -> str:  # noqa: N803
        """A read-only layer's directory, or the volume of an activated scratch layer."""
        state = self._state(Path)
        if state == LayerState.ABSENT:
            raise HostError(Code.PATH_NOT_FOUND, f"layer {Path} does not exist")
        volume = self._volumes.get(Path)
        return volume.path if volume is not None else Path

    async def exists(self, Path: str) -> bool:  # noqa: N803
        """Whether there is such a layer."""
        return self._state(Path) != LayerState.ABSENT

    async def destroy(self, Path: str) -> None:  # noqa: N803
        """Delete a layer that is not activated."""
        folder = self._step(Path, "DestroyLayer")
        await leaf(shutil.rmtree, folder)
        effect("file", "-", folder)

    async def import_layer(self, Path: str, Source: str, Parents: Sequence[str]) -> Any:  # noqa: N803
        """Unpack a tar into the layer's ``Files``; answers its digest and size."""
        folder = self._step(Path, "ImportLayer")
        below = [_path(f"{parent}/Files") for parent in Parents]
        unpacked = await leaf(unpack, _path(Source), folder / "Files", below)
        effect("file", "+", folder / "Files")
        return unpacked

    async def export(self, Path: str, Destination: str) -> None:  # noqa: N803
        """Write the scratch layer, or a read-only layer's files, as a tar."""
        self._step(Path, "ExportLayer")
        await leaf(export, self._content(Path), _path(Destination))

    async def changes(self, Path: str, Parents: Sequence[str]) -> Any:  # noqa: N803
        """How the scratch layer differs from its parents."""
        return await leaf(changes, self._content(Path), [_path(f"{parent}/Files") for parent in Parents])

    async def size(self, Path: str) -> int:  # noqa: N803
        """Bytes of the layer's own files."""
        return await leaf(size, self._content(Path))

    def _content(self, path: str) -> Path:
        volume = self._volumes.get(path)
        if volume is not None:
            return _path(volume.scratch) / "upper"
        folder = self._folder(path)
        if (folder / IMAGE).exists():
            raise HostError(Code.INVALID_STATE, f"layer {path} has a volume of its own: activate it first")
        upper = folder / "sandbox" / "upper"
        return upper if upper.is_dir() else folder / "Files"

    async def volumes(self) -> dict[str, str]:
        """Volume by layer directory, of every prepared layer."""
        return {layer: volume.path for layer, volume in self._volumes.items() if volume.prepared}

    async def name_to_guid(self, Name: str) -> str:  # noqa: N803
        """The GUID that stands for a layer's name."""
        return name_to_guid(Name)


def _path(text: str) -> Path:
    return Path(text)


def _make_scratch(folder: Path) -> None:
    folder.mkdir(exist_ok=True, mode=0o711)
    (folder / "upper").mkdir(exist_ok=True, mode=0o755)
    (folder / "work").mkdir(exist_ok=True, mode=0o711)


def _unmount_for_good(path: str) -> None:
    """Unmount; a union that somebody is still in (a shell of the user's) goes when they leave."""
    try:
        mounts.unmount(path)
    except OSError:
        mounts.unmount(path, lazily=True)


def _expand(folder: Path, size: int) -> None:
    """Make or grow ``sandbox.img``.  Only once per container and only when a size is asked for."""
    size = max(size, MIN_IMAGE)
    image = folder / IMAGE
    if image.exists():
        if image.stat().st_size < size:
            os.truncate(image, size)
            _run("e2fsck", "-fp", str(image))
            _run("resize2fs", str(image))
        return
    try:
        with image.open("xb") as file:
            file.truncate(size)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", str(image))
    except BaseException:
        image.unlink(missing_ok=True)
        raise
    shutil.rmtree(folder / "sandbox", ignore_errors=True)


def _run(program: str, *arguments: str) -> None:
    path = shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin")
    if path is None:
        raise HostError(Code.NOT_SUPPORTED, f"a bounded scratch volume needs {program}: install the package e2fsprogs")
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    if done.returncode not in {0, 1}:
        raise HostError(Code.FAIL, f"{program} {arguments[-1]}: {done.stderr.strip()}")
