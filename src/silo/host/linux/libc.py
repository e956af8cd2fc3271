"""System calls that Python does not offer, through ctypes; a failure is an OSError with the path in it."""

from __future__ import annotations

import ctypes
import os
from typing import Final

_libc: Final = ctypes.CDLL(None, use_errno=True)

CLONE_FS: Final = 0x200
CLONE_NEWNS: Final = 0x20000
CLONE_NEWNET: Final = 0x40000000

MS_RDONLY: Final = 1
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MS_SHARED: Final = 1 << 20
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8

_OPENAT2: Final = 437
_FSOPEN: Final = 430
_FSCONFIG: Final = 431
_FSMOUNT: Final = 432
_MOVE_MOUNT: Final = 429
_CLOEXEC: Final = 1
_FSCONFIG_SET_FLAG: Final = 0
_FSCONFIG_SET_STRING: Final = 1
_FSCONFIG_CMD_CREATE: Final = 6
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4
AT_FDCWD: Final = -100

RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None
    )
    _check(result, target)


def umount(target: str, flags: int = UMOUNT_NOFOLLOW) -> None:
    """umount2(2)."""
    _check(_libc.umount2(target.encode(), flags), target)


def unshare(flags: int) -> None:
    """unshare(2): for the calling thread."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int = 0) -> None:
    """setns(2): for the calling thread."""
    _check(_libc.setns(fd, kind), "setns")


def mount_filesystem(kind: str, target: str, options: list[tuple[str, str | None]], source: str = "none") -> None:
    """The new mount interface: options one by one, so that no page limits their length.

    An option without a value is a flag.  The kernel's own message is part of the error.
    """
    fd = _check(_libc.syscall(_FSOPEN, kind.encode(), _CLOEXEC), kind)
    try:
        try:
            _config(fd, _FSCONFIG_SET_STRING, "source", source)
            for key, value in options:
                _config(fd, _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING, key, value)
            _config(fd, _FSCONFIG_CMD_CREATE, None, None)
            mounted = _check(_libc.syscall(_FSMOUNT, fd, _CLOEXEC, 0), target)
        except OSError as exc:
            raise OSError(exc.errno, f"{exc.strerror}{_messages(fd)}: {exc.filename}", target) from exc
        try:
            moved = _libc.syscall(_MOVE_MOUNT, mounted, b"", AT_FDCWD, target.encode(), _MOVE_MOUNT_F_EMPTY_PATH)
            _check(moved, target)
        finally:
            os.close(mounted)
    finally:
        os.close(fd)


def _config(fd: int, command: int, key: str | None, value: str | None) -> None:
    name = None if key is None else key.encode()
    text = None if value is None else value.encode()
    _check(_libc.syscall(_FSCONFIG, fd, command, name, text, 0), "create" if key is None else f"{key}={value}")


def _messages(fd: int) -> str:
    """What the kernel has to say about a file system context: a message a read, ``e `` before errors."""
    texts = []
    while True:
        try:
            texts.append(os.read(fd, 1024).decode("utf-8", "replace").strip().removeprefix("e "))
        except OSError:
            return f" ({'; '.join(texts)})" if texts else ""


def openat2(directory: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2): open below a directory with restrictions on what the path may pass through."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    result = _libc.syscall(_OPENAT2, directory, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    return _check(result, os.fsdecode(path))
