"""Files inside a container's root, found by descriptor: no symlink of the container leads out of it."""

from __future__ import annotations

import os
from pathlib import Path

from silo.errors import TooLarge
from silo.host.linux import libc


def open_in_root(root: int, path: str, flags: int, mode: int = 0) -> int:
    """Open ``path`` as a process whose root is the directory ``root`` would; magic links are refused."""
    return libc.openat2(root, path, flags, mode, libc.RESOLVE_IN_ROOT | libc.RESOLVE_NO_MAGICLINKS)


def read_in_root(root: Path, path: str, limit: int) -> bytes:
    """A file of the container's.  Raises OSError; TooLarge beyond ``limit`` bytes."""
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # O_NONBLOCK: a fifo in place of the file must not hold us up
        with os.fdopen(open_in_root(directory, path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            data = file.read(limit + 1)
    finally:
        os.close(directory)
    if data is None:
        return b""
    if len(data) > limit:
        raise TooLarge(f"{path} in {root} is over {limit} bytes")
    return data


def make_in_root(root: Path, path: str, uid: int, gid: int) -> None:
    """Make the directory ``path`` and its missing parents inside the root, owned by ``uid`` and ``gid``.

    What is there stays as it is.  Raises OSError when a part of it is no directory.
    """
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        done = ""
        for name in filter(None, path.split("/")):
            parent = open_in_root(directory, done or "/", os.O_PATH | os.O_DIRECTORY)
            try:
                os.mkdir(name, 0o755, dir_fd=parent)
                os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
            except FileExistsError:
                pass
            finally:
                os.close(parent)
            done += f"/{name}"
        os.close(open_in_root(directory, done or "/", os.O_PATH | os.O_DIRECTORY))
    finally:
        os.close(directory)
