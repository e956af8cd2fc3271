"""Volumes of activated layers and the unions on them: making and taking away, and what the mount table says of them.

Blocking; the service calls it from leaves.  ``<exec-root>/volumes`` is a shared mount of itself, so that what is
mounted there also appears in the mount namespace that an OCI runtime may need.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from silo.host.linux import mounts
from silo.host.storagefilter import scratch
from silo.ids import new_guid
from silo.telemetry import effect

log = logging.getLogger(__name__)

FILES: Final = "Files"


class Volume(msgspec.Struct, frozen=True):
    """An activated scratch layer: where its volume is, and where upper and work directories are."""

    path: str
    scratch: str
    prepared: bool


class Volumes:
    """What is below ``exec_root``, for the layers below ``home``."""

    def __init__(self, home: Path, exec_root: Path) -> None:
        self._home = home
        # As the mount table names them: /var/run/silo is found there as /run/silo.
        self._root = Path(os.path.realpath(exec_root)) / "volumes"
        self._scratch = Path(os.path.realpath(exec_root)) / "scratch"

    def open(self) -> dict[str, Volume]:
        """Make ready, and return what the kernel says is prepared, by layer directory.

        A layer that was only half activated is taken back, so is a union whose layer is gone.
        """
        for folder in (self._home, self._root, self._scratch):
            if not folder.is_dir():
                folder.mkdir(parents=True)
                folder.chmod(0o711)
        mounts.share(self._root)
        found = self._prepared()
        for folder, names in (
            (self._root, {Path(volume.path).name for volume in found.values()}),
            (self._scratch, {Path(layer).name for layer in found}),
        ):
            for leftover in folder.iterdir():
                if leftover.name not in names:
                    _take_away(leftover)
        return found

    def close(self) -> None:
        """Leave nothing behind; only when no layer is activated."""
        mounts.unmount(self._root, lazily=True)
        for folder in (self._root, self._scratch):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _prepared(self) -> dict[str, Volume]:
        found: dict[str, Volume] = {}
        for entry in mounts.mount_table():
            if entry.kind != "overlay" or Path(entry.target).parent != self._root:
                continue
            upper = Path(mounts.upper_directory(entry))
            layer = self._layer_of(upper)
            if layer is not None and layer.is_dir() and str(layer) not in found:
                found[str(layer)] = Volume(entry.target, str(upper.parent), prepared=True)
        return found

    def _layer_of(self, upper: Path) -> Path | None:
        """The layer that an overlay's upper directory belongs to, however its path was spelt when it was mounted."""
        real = Path(os.path.realpath(upper))
        for root in (Path(os.path.realpath(self._home)), self._scratch):
            if real.is_relative_to(root):
                return self._home / real.relative_to(root).parts[0]
        return None

    def activate(self, layer: Path) -> Volume:
        """A volume with a new GUID; the layer's own file system, if it has one, is mounted."""
        with ExitStack() as undo:
            folder = layer / scratch.FOLDER
            if (layer / scratch.IMAGE).exists():
                folder = self._scratch / layer.name
                self._mount_scratch(layer, folder)
                undo.callback(self._unmount_scratch, folder)
            path = self._root / new_guid()
            path.mkdir()
            effect("volume", "+", path)
            undo.pop_all()
        return Volume(str(path), str(folder), prepared=False)

    def deactivate(self, volume: Volume) -> None:
        """Take the volume away.  May be repeated after a failure."""
        with contextlib.suppress(FileNotFoundError):
            Path(volume.path).rmdir()  # never a whole tree: were it still mounted, that would eat the layer
            effect("volume", "-", volume.path)
        folder = Path(volume.scratch)
        if folder.parent == self._scratch:
            self._unmount_scratch(folder)

    def prepare(self, volume: Volume, parents: Sequence[str]) -> None:
        """Mount the union of the scratch directory and the parents' files, nearest first."""
        lower = [f"{parent}/{FILES}" for parent in parents] or [str(self._nothing())]
        scratch.clean_work(Path(volume.scratch))
        mounts.mount_union(lower, f"{volume.scratch}/upper", f"{volume.scratch}/work", volume.path)
        effect("mount", "+", volume.path)

    def unprepare(self, volume: Volume) -> bool:
        """Unmount the union; True when somebody is still in it, and it goes when they leave."""
        busy = mounts.unmount(volume.path, lazily=True)
        effect("mount", "-", volume.path)
        return busy

    @contextmanager
    def opened(self, layer: Path) -> Generator[Path]:
        """The upper directory of a bounded layer that is not activated, for the block."""
        folder = self._scratch / layer.name
        self._mount_scratch(layer, folder)
        try:
            yield folder / "upper"
        finally:
            self._unmount_scratch(folder)

    def _mount_scratch(self, layer: Path, folder: Path) -> None:
        with ExitStack() as undo:
            folder.mkdir(exist_ok=True)
            undo.callback(folder.rmdir)
            mounts.mount_image(layer / scratch.IMAGE, folder)
            undo.callback(mounts.unmount, folder)
            scratch.make(folder)
            undo.pop_all()
        effect("mount", "+", folder)

    def _unmount_scratch(self, folder: Path) -> None:
        mounts.unmount(folder, lazily=True)
        effect("mount", "-", folder)
        with contextlib.suppress(FileNotFoundError):
            folder.rmdir()

    def _nothing(self) -> Path:
        """A base without files: overlayfs wants a lower directory."""
        path = self._home / ".empty"
        path.mkdir(exist_ok=True)
        path.chmod(0o755)
        return path


def _take_away(leftover: Path) -> None:
    """Unmount and remove a directory that nothing uses.  What cannot go is told, and stays."""
    try:
        mounts.unmount(leftover, lazily=True)
        leftover.rmdir()
    except OSError as exc:
        log.warning("leftover %s stays: %s", leftover, exc.strerror)
