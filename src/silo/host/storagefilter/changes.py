"""How a scratch layer differs from the layers below it, and how big it is.

A container may be at work in the layer meanwhile: everything goes by descriptor and follows no symlink.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from silo.host.linux import tree
from silo.host.storagefilter.union import Seen, Union, is_opaque, is_whiteout

MODIFY: Final = 0
ADD: Final = 1
DELETE: Final = 2


class Change(msgspec.Struct, frozen=True):
    """One difference: 0 modified, 1 added, 2 deleted (Engine API, FilesystemChange)."""

    Kind: int
    Path: str


def changes(upper: Path, parents: Sequence[Path]) -> list[Change]:
    """Every difference, sorted by path as bytes.  Raises OSError."""
    found: list[tuple[bytes, int]] = []
    root = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with Union(parents) as below:
            layers: dict[bytes, tuple[int, ...]] = {b"": below.whole}  # what is below each directory still to come
            for one in tree.walk(root):
                folder = one.path.rpartition(b"/")[0]
                seen = below.look(folder, one.name, layers.get(folder, ()))
                if is_whiteout(one.stat):
                    found.append((one.path, DELETE))
                    continue
                found.append((one.path, MODIFY if seen else ADD))
                if stat.S_ISDIR(one.stat.st_mode) and seen and stat.S_ISDIR(seen.stat.st_mode):
                    layers[one.path] = seen.also
                    found += _hidden(below, one, seen)
    finally:
        os.close(root)
    return [Change(kind, "/" + path.decode("utf-8", "replace")) for path, kind in sorted(found)]


def _hidden(below: Union, one: tree.Found, seen: Seen) -> Iterator[tuple[bytes, int]]:
    """What a directory that was deleted and made again no longer shows."""
    if not is_opaque(one.folder, one.name) or (folder := tree.open_child(one.folder, one.name)) is None:
        return
    try:
        here = set(tree.names(folder))
    finally:
        os.close(folder)
    for name in {name for name in below.names(one.path, seen.also) if name not in here}:
        if below.look(one.path, name, seen.also) is not None:
            yield one.path + b"/" + name, DELETE


def size(root: Path) -> int:
    """Bytes of the files below ``root``, each hard-linked file once."""
    linked: set[int] = set()
    total = 0
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for one in tree.walk(top, skip_unnameable=True):
            if not stat.S_ISREG(one.stat.st_mode):
                continue
            if one.stat.st_nlink > 1:
                if one.stat.st_ino in linked:
                    continue
                linked.add(one.stat.st_ino)
            total += one.stat.st_size
    finally:
        os.close(top)
    return total
