"""Directory trees that others wrote, by descriptor: of any depth, and changing while we look.

No function here follows a symlink, and none needs more than a few descriptors, whatever the tree is.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from silo.host.linux import libc

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_GONE: Final = {errno.ENOENT, errno.ELOOP, errno.ENOTDIR}
_TAKEN: Final = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


@dataclass(frozen=True, slots=True)
class Found:
    """One name in a tree: ``path`` from the root, ``folder`` a descriptor of its directory while it is looked at."""

    path: bytes
    name: bytes
    folder: int
    stat: os.stat_result


def names(folder: int) -> list[bytes]:
    """The names in an open directory."""
    return [os.fsencode(name) for name in os.listdir(folder)]


def open_beneath(root: int, path: bytes) -> int:
    """A directory below ``root``, through directories only.  Raises OSError."""
    resolve = libc.RESOLVE_BENEATH | libc.RESOLVE_NO_SYMLINKS | libc.RESOLVE_NO_MAGICLINKS
    return libc.openat2(root, path or b".", _DIRECTORY, 0, resolve)


def open_child(folder: int, name: bytes) -> int | None:
    """The directory ``name`` in an open one; None when it is not, or no longer, a directory."""
    try:
        return os.open(name, _DIRECTORY, dir_fd=folder)
    except OSError as exc:
        if exc.errno not in _GONE:
            raise
        return None


def walk(root: int, *, skip_unnameable: bool = False) -> Iterator[Found]:
    """Everything below the directory ``root``, parents first, each directory's names sorted.

    What vanishes meanwhile is left out.  Raises OSError (ENAMETOOLONG) for what lies so deep that no path names it,
    unless that is to be left out too.
    """
    pending = [b""]
    while pending:
        path = pending.pop()
        try:
            folder = open_beneath(root, path)
        except OSError as exc:
            if exc.errno in _GONE or (skip_unnameable and exc.errno == errno.ENAMETOOLONG):
                continue
            raise
        try:
            folders = []
            for name in sorted(names(folder)):
                try:
                    there = os.lstat(name, dir_fd=folder)
                except FileNotFoundError:
                    continue
                full = path + b"/" + name if path else name
                yield Found(full, name, folder, there)
                if stat.S_ISDIR(there.st_mode):
                    folders.append(full)
        finally:
            os.close(folder)
        pending.extend(reversed(folders))


def remove(path: Path) -> None:
    """Delete a directory with all that is in it; one that is not there is no error.  Raises OSError.

    A directory inside is first moved to the top, so that neither its depth nor the length of its path matters.
    """
    try:
        top = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        remove_content(top)
    finally:
        os.close(top)
    path.rmdir()


def remove_content(top: int) -> None:
    """Empty the directory ``top``."""
    numbers = itertools.count()
    pending = _empty(top, top, numbers)
    while pending:
        name = pending.pop()
        folder = open_child(top, name)
        if folder is None:
            continue
        try:
            pending += _empty(folder, top, numbers)
        finally:
            os.close(folder)
        os.rmdir(name, dir_fd=top)


def _empty(folder: int, top: int, numbers: Iterator[int]) -> list[bytes]:
    """Delete what is in ``folder``; its directories that are not empty go to ``top``, under the names returned."""
    moved = []
    for name in names(folder):
        try:
            os.unlink(name, dir_fd=folder)
            continue
        except (IsADirectoryError, PermissionError):  # EISDIR on Linux, EPERM in POSIX
            pass
        try:
            os.rmdir(name, dir_fd=folder)
        except OSError as exc:
            if exc.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            moved.append(name if folder == top else _move_up(folder, name, top, numbers))
    return moved


def _move_up(folder: int, name: bytes, top: int, numbers: Iterator[int]) -> bytes:
    for number in numbers:
        fresh = b".silo-%d" % number
        try:
            os.rename(name, fresh, src_dir_fd=folder, dst_dir_fd=top)
        except OSError as exc:
            if exc.errno not in _TAKEN:
                raise
        else:
            return fresh
    raise AssertionError("numbers end")
