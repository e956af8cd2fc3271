"""What a stack of layers shows, looked at from outside of a mount: nearest layer first, whiteouts and all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from silo.host.linux import tree

OPAQUE: Final = "trusted.overlay.opaque"
_ABSENT: Final = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


def is_whiteout(there: os.stat_result) -> bool:
    """A character device 0/0 hides a name of the layers below."""
    return stat.S_ISCHR(there.st_mode) and there.st_rdev == 0


def is_opaque(folder: int, name: bytes) -> bool:
    """Whether ``name`` in an open directory is a directory that hides everything below it."""
    child = tree.open_child(folder, name)
    if child is None:
        return False
    try:
        return os.getxattr(child, OPAQUE) == b"y"
    except OSError as exc:
        if exc.errno not in {errno.ENODATA, errno.ENOTSUP}:
            raise
        return False
    finally:
        os.close(child)


@dataclass(frozen=True, slots=True)
class Seen:
    """A name that the union shows: in which of its layers, where it is a directory in which others too."""

    layer: int
    stat: os.stat_result
    also: tuple[int, ...]


class Union:
    """Layers by the descriptors of their roots.  A context manager."""

    def __init__(self, layers: Sequence[Path | int]) -> None:
        self._stack = ExitStack()
        self._roots: list[int] = []
        for layer in layers:
            if isinstance(layer, int):
                self._roots.append(layer)
                continue
            root = os.open(layer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._stack.callback(os.close, root)
            self._roots.append(root)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    @property
    def whole(self) -> tuple[int, ...]:
        """Every layer: where the root directory is looked up."""
        return tuple(range(len(self._roots)))

    def open(self, layer: int, folder: bytes) -> int:
        """A directory of one layer.  Raises OSError."""
        return tree.open_beneath(self._roots[layer], folder)

    def look(self, folder: bytes, name: bytes, layers: Sequence[int]) -> Seen | None:
        """What ``name`` is in ``folder``, a directory that ``layers`` make up; None when it is not there."""
        also: list[int] = []
        first: Seen | None = None
        for layer in layers:
            there, opaque = self._in_one(layer, folder, name)
            if there is None:
                continue
            if is_whiteout(there) or (first is not None and not stat.S_ISDIR(there.st_mode)):
                break
            also.append(layer)
            first = first or Seen(layer, there, ())
            if not stat.S_ISDIR(there.st_mode) or opaque:
                break
        return Seen(first.layer, first.stat, tuple(also)) if first is not None else None

    def _in_one(self, layer: int, folder: bytes, name: bytes) -> tuple[os.stat_result | None, bool]:
        try:
            parent = self.open(layer, folder)
        except OSError as exc:
            if exc.errno in _ABSENT:
                return None, False
            raise
        try:
            there = os.lstat(name, dir_fd=parent)
            if not stat.S_ISDIR(there.st_mode):
                return there, False
            return there, is_opaque(parent, name)
        except FileNotFoundError:
            return None, False
        finally:
            os.close(parent)

    def names(self, folder: bytes, layers: Sequence[int]) -> Iterator[bytes]:
        """Every name that ``layers`` have in a directory of theirs, whiteouts too."""
        for layer in layers:
            fd = self.open(layer, folder)
            try:
                yield from tree.names(fd)
            finally:
                os.close(fd)

    def find(self, path: bytes) -> tuple[int, bytes, os.stat_result] | None:
        """Where the union has ``path``: a descriptor of its directory (to be closed), its name there, what it is."""
        layers: tuple[int, ...] = self.whole
        folder, seen = b"", None
        parts = path.split(b"/")
        for number, name in enumerate(parts):
            folder = b"/".join(parts[:number])
            seen = self.look(folder, name, layers)
            if seen is None:
                return None
            layers = seen.also
        return (self.open(seen.layer, folder), parts[-1], seen.stat) if seen is not None else None
