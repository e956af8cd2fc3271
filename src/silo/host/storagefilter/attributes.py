"""Owner, mode, attributes and times of a layer's files."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from typing import Final

from silo.errors import InvalidParameter
from silo.host.storagefilter.tarstream import Entry

OVERLAY: Final = (b"trusted.overlay.", b"user.overlay.")
_FAR: Final = (1 << 33) * 1_000_000_000
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def moment(entry: Entry) -> int:
    """The modification time; what no file system takes becomes the epoch."""
    return entry.mtime_ns if -_FAR < entry.mtime_ns < _FAR else 0


def owner(entry: Entry) -> tuple[int, int]:
    """User and group.  Raises InvalidParameter for ids that no file can have."""
    if not (0 <= entry.uid < 0xFFFFFFFF and 0 <= entry.gid < 0xFFFFFFFF):
        raise InvalidParameter(f"layer entry {entry.label}: owner {entry.uid}:{entry.gid} does not exist on Linux")
    return entry.uid, entry.gid


def own(fd: int, entry: Entry) -> None:
    """Owner, mode and attributes, in this order: a change of owner takes setuid and capabilities away."""
    os.fchown(fd, *owner(entry))
    os.fchmod(fd, entry.mode)
    for key, value in entry.xattrs.items():
        set_xattr(fd, key, value)


def set_xattr(target: int | bytes, key: bytes, value: bytes) -> None:
    """One attribute; those that would steer overlayfs are not an image's to give, those the host lacks are left out."""
    if key.startswith(OVERLAY) or b"\0" in key:
        return
    try:
        if isinstance(target, int):
            os.setxattr(target, key, value)
        else:
            os.setxattr(target, key, value, follow_symlinks=False)
    except OSError as exc:
        if exc.errno not in {errno.ENOTSUP, errno.EPERM}:
            raise


def copy(folder: int, last: bytes, there: os.stat_result, parent: int, name: bytes) -> None:
    """A copy of one file of another layer, whatever its kind."""
    source = f"/proc/self/fd/{folder}/".encode() + last
    if stat.S_ISREG(there.st_mode):
        with (
            os.fdopen(os.open(name, _NEW, 0o600, dir_fd=parent), "wb") as out,
            os.fdopen(os.open(last, _READ, dir_fd=folder), "rb") as file,
        ):
            shutil.copyfileobj(file, out, 1 << 20)
    elif stat.S_ISLNK(there.st_mode):
        os.symlink(os.readlink(last, dir_fd=folder), name, dir_fd=parent)
    else:
        os.mknod(name, there.st_mode, there.st_rdev, dir_fd=parent)
    target = f"/proc/self/fd/{parent}/".encode() + name
    os.chown(name, there.st_uid, there.st_gid, dir_fd=parent, follow_symlinks=False)
    if not stat.S_ISLNK(there.st_mode):
        os.chmod(name, stat.S_IMODE(there.st_mode), dir_fd=parent)
    for key in os.listxattr(source, follow_symlinks=False):
        set_xattr(target, os.fsencode(key), os.getxattr(source, key, follow_symlinks=False))
    os.utime(name, ns=(there.st_atime_ns, there.st_mtime_ns), dir_fd=parent, follow_symlinks=False)
