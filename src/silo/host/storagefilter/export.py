"""A scratch layer as changes and as a tar: what differs from the layers below, in OCI's form."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

MODIFY: Final = 0
ADD: Final = 1
DELETE: Final = 2


class Change(msgspec.Struct, frozen=True):
    """One difference: 0 modified, 1 added, 2 deleted (Engine API, FilesystemChange)."""

    Kind: int
    Path: str


def is_whiteout(there: os.stat_result) -> bool:
    """A character device 0/0 hides a name of the layers below."""
    return stat.S_ISCHR(there.st_mode) and there.st_rdev == 0


def is_opaque(path: Path) -> bool:
    """Whether the directory hides everything below it."""
    try:
        return os.getxattr(path, "trusted.overlay.opaque", follow_symlinks=False) == b"y"
    except OSError:
        return False


def changes(upper: Path, parents: Sequence[Path]) -> list[Change]:
    """Every difference, sorted by path."""
    found = []
    for path, there in _walk(upper):
        relative = path.relative_to(upper)
        if is_whiteout(there):
            kind = DELETE
        else:
            kind = MODIFY if any(os.path.lexists(parent / relative) for parent in parents) else ADD
        found.append(Change(kind, f"/{relative}"))
    return sorted(found, key=lambda change: change.Path)


def _walk(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    with os.scandir(root) as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            there = entry.stat(follow_symlinks=False)
            yield Path(entry.path), there
            if stat.S_ISDIR(there.st_mode):
                yield from _walk(Path(entry.path))


def size(root: Path) -> int:
    """Bytes of the files below ``root``, each hard-linked file once."""
    seen: set[int] = set()
    total = 0
    for _, there in _walk(root):
        if stat.S_ISREG(there.st_mode) and there.st_ino not in seen:
            seen.add(there.st_ino)
            total += there.st_size
    return total


def export(upper: Path, dest: Path) -> None:
    """Write the directory as a layer tar: whiteouts as ``.wh.`` names, opaque directories with their marker."""
    linked: dict[int, str] = {}
    with dest.open("wb") as file, tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for path, there in _walk(upper):
            name = str(path.relative_to(upper))
            if is_whiteout(there):
                folder, _, last = name.rpartition("/")
                tar.addfile(tarfile.TarInfo(f"{folder}/.wh.{last}" if folder else f".wh.{last}"))
                continue
            if stat.S_ISSOCK(there.st_mode):
                continue  # a socket means nothing without its process
            _add(tar, path, name, there, linked)
            if stat.S_ISDIR(there.st_mode) and is_opaque(path):
                tar.addfile(tarfile.TarInfo(f"{name}/.wh..wh..opq"))


def _add(tar: tarfile.TarFile, path: Path, name: str, there: os.stat_result, linked: dict[int, str]) -> None:
    info = tar.gettarinfo(str(path), name)
    info.uname = info.gname = ""
    if stat.S_ISREG(there.st_mode) and there.st_nlink > 1:
        first = linked.setdefault(there.st_ino, name)
        if first != name:
            info.type, info.linkname, info.size = tarfile.LNKTYPE, first, 0
        else:
            info.type = tarfile.REGTYPE
    info.pax_headers = {
        f"SCHILY.xattr.{key}": os.getxattr(path, key, follow_symlinks=False).decode("utf-8", "surrogateescape")
        for key in os.listxattr(path, follow_symlinks=False)
        if not key.startswith(("trusted.overlay.", "user.overlay."))
    }
    if info.isreg():
        with path.open("rb") as data:
            tar.addfile(info, data)
    else:
        tar.addfile(info)
