"""A layer's own files as a tar in OCI's form: what ``unpack`` takes in.

A container may be at work in the layer meanwhile: a file is opened only once it is known to be a regular one, by
descriptor, so that neither a symlink nor a device put in its place is ever followed.
"""

from __future__ import annotations

import os
import stat
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, cast

from silo.host.linux import tree
from silo.host.storagefilter.attributes import OVERLAY
from silo.host.storagefilter.union import is_opaque, is_whiteout

_TYPES: Final = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


def export(root: Path, dest: Path) -> None:
    """Write the directory to the new file ``dest``: whiteouts as ``.wh.`` names, opaque directories with their mark.

    Sockets are left out: they mean nothing without their process.  On failure ``dest`` is removed.  Raises OSError.
    """
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with dest.open("wb") as file, tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            linked: dict[int, bytes] = {}
            for one in tree.walk(top):
                with suppress(FileNotFoundError):  # deleted while we looked
                    _add(tar, one, linked)
    except BaseException:
        dest.unlink(missing_ok=True)
        raise
    finally:
        os.close(top)


def _add(tar: tarfile.TarFile, one: tree.Found, linked: dict[int, bytes]) -> None:
    kind = stat.S_IFMT(one.stat.st_mode)
    if is_whiteout(one.stat):
        folder, slash, _ = one.path.rpartition(b"/")
        tar.addfile(tarfile.TarInfo(os.fsdecode(folder + slash + b".wh." + one.name)))
    elif kind == stat.S_IFREG:
        _add_file(tar, one, linked)
    elif kind in _TYPES:
        info = _info(one, one.stat)
        if kind == stat.S_IFLNK:
            info.linkname = os.readlink(os.fsdecode(one.name), dir_fd=one.folder)
        tar.addfile(info)
        if kind == stat.S_IFDIR and is_opaque(one.folder, one.name):
            tar.addfile(tarfile.TarInfo(f"{info.name}/.wh..wh..opq"))


def _add_file(tar: tarfile.TarFile, one: tree.Found, linked: dict[int, bytes]) -> None:
    handle = os.open(one.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=one.folder)
    try:
        there = os.fstat(handle)
        if not stat.S_ISREG(there.st_mode):
            return  # something else took its place
        info = _info(one, there)
        first = linked.setdefault(there.st_ino, one.path) if there.st_nlink > 1 else one.path
        if first != one.path:
            info.type, info.linkname = tarfile.LNKTYPE, os.fsdecode(first)
            tar.addfile(info)
            return
        info.size = there.st_size
        with Path(f"/proc/self/fd/{handle}").open("rb") as data:
            tar.addfile(info, cast("BinaryIO", _Steady(data)))
    finally:
        os.close(handle)


def _info(one: tree.Found, there: os.stat_result) -> tarfile.TarInfo:
    info = tarfile.TarInfo(os.fsdecode(one.path))
    info.type = _TYPES[stat.S_IFMT(there.st_mode)]
    info.mode, info.uid, info.gid = stat.S_IMODE(there.st_mode), there.st_uid, there.st_gid
    info.mtime = int(there.st_mtime)  # whole seconds, as dockerd's layers have them
    if stat.S_ISCHR(there.st_mode) or stat.S_ISBLK(there.st_mode):
        info.devmajor, info.devminor = os.major(there.st_rdev), os.minor(there.st_rdev)
    path = f"/proc/self/fd/{one.folder}/".encode() + one.name
    info.pax_headers = {
        f"SCHILY.xattr.{key}": os.fsdecode(os.getxattr(path, key, follow_symlinks=False))
        for key in os.listxattr(path, follow_symlinks=False)
        if not os.fsencode(key).startswith(OVERLAY)
    }
    return info


class _Steady:
    """A file that is as long as it was said to be: one that got shorter goes on with zeros, as GNU tar has it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        return self._file.read(size).ljust(size, b"\0")
