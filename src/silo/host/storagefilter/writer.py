"""Makes a tar's entries below a directory of ours, by descriptor, so that nothing in the tar reaches outside of it.

A directory is found by openat2 with RESOLVE_IN_ROOT: symlinks of the layer lead where they would lead in a container.
The last part of a name is never followed.  Whiteouts become what overlayfs understands: a character device 0/0 for one
name, the attribute ``trusted.overlay.opaque`` for a directory.
"""

from __future__ import annotations

import os
import stat
import struct
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, TypeVar, cast

from silo.errors import InvalidParameter, TooLarge
from silo.host.linux import libc, tree
from silo.host.storagefilter.attributes import copy, moment, own, owner, set_xattr
from silo.host.storagefilter.tarstream import Entry, Kind
from silo.host.storagefilter.union import OPAQUE, Union, is_whiteout

T = TypeVar("T")

MAX_PATH: Final = 4096
WHITEOUT: Final = b".wh."
OPAQUE_MARK: Final = b".wh..wh..opq"
AUFS: Final = b".wh..wh."
"""What begins so is bookkeeping of aufs, except for the mark of an opaque directory."""
_KEPT_OPEN: Final = 32
_TIMES_IN_MEMORY: Final = 4 << 20
_TIME: Final = struct.Struct("=qH")
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Writer:
    """One layer being unpacked.  A context manager; ``size`` counts the bytes of its files, up to ``limit``."""

    def __init__(self, target: Path, parents: Sequence[Path], limit: int) -> None:
        self.size = 0
        self._limit = limit
        self._parents = parents
        self._folders: OrderedDict[bytes, int] = OrderedDict()
        self._outdated: list[int] = []
        self._opaque_root = False
        times = tempfile.SpooledTemporaryFile(_TIMES_IN_MEMORY, dir=str(target.parent))  # noqa: SIM115 - closed in __exit__
        self._times = cast("BinaryIO", times)
        self._root = os.open(target, _DIRECTORY)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._outdate()
        self._close_outdated()
        self._times.close()
        os.close(self._root)

    def add(self, entry: Entry, data: Iterable[memoryview]) -> None:
        """Make one entry; what was there under its name is replaced.  Raises OSError, InvalidParameter, TooLarge."""
        path = clean(entry.name)
        folder, _, name = path.rpartition(b"/")
        if not path:
            if entry.kind is not Kind.DIRECTORY:
                raise InvalidParameter(f"layer entry {entry.label}: the root can only be a directory")
            self._directory_metadata(self._root, entry, path)
        elif name == OPAQUE_MARK:
            self._opaque(folder)
        elif name.startswith(AUFS) or folder.startswith(AUFS):
            pass
        elif name.startswith(WHITEOUT):
            self._whiteout(folder, name.removeprefix(WHITEOUT), entry)
        else:
            self._make(self._folder(folder), name, path, entry, data)

    def _make(self, parent: int, name: bytes, path: bytes, entry: Entry, data: Iterable[memoryview]) -> None:
        match entry.kind:
            case Kind.FILE:
                self._file(parent, name, entry, data)
            case Kind.DIRECTORY:
                self._directory(parent, name, path, entry)
            case Kind.SYMLINK:
                self._fresh(parent, name, lambda: os.symlink(entry.target, name, dir_fd=parent))
                self._metadata(parent, name, entry)
            case Kind.HARD_LINK:
                self._link(parent, name, entry)
            case Kind.CHARACTER | Kind.BLOCK | Kind.FIFO:
                self._device(parent, name, entry)
            case Kind.OTHER:
                raise InvalidParameter(f"layer entry {entry.label}: unhandled tar header type {entry.flag[0]}")

    # Directories

    def _folder(self, path: bytes) -> int:
        """A descriptor of the directory, ours until the next call; missing parts are made as dockerd makes them."""
        self._close_outdated()
        fd = self._folders.get(path)
        if fd is not None:
            self._folders.move_to_end(path)
            return fd
        if len(self._folders) >= _KEPT_OPEN:
            os.close(self._folders.popitem(last=False)[1])
        try:
            fd = self._open(path)
        except FileNotFoundError:
            self._make_folders(path)
            fd = self._open(path)
        self._folders[path] = fd
        return fd

    def _open(self, path: bytes) -> int:
        resolve = libc.RESOLVE_IN_ROOT | libc.RESOLVE_NO_MAGICLINKS
        return libc.openat2(self._root, path or b".", os.O_RDONLY | os.O_DIRECTORY, 0, resolve)

    def _make_folders(self, path: bytes) -> None:
        done = b""
        for name in path.split(b"/"):
            parent = self._open(done)
            try:
                os.mkdir(name, dir_fd=parent)
                os.chmod(name, 0o755, dir_fd=parent)  # noqa: S103 - whatever the umask is
            except FileExistsError:
                pass
            finally:
                os.close(parent)
            done += b"/" + name if done else name

    def _outdate(self) -> None:
        """Paths may lead elsewhere now.  The descriptors stay open: the caller may be working in one of them."""
        self._outdated += self._folders.values()
        self._folders.clear()

    def _close_outdated(self) -> None:
        while self._outdated:
            os.close(self._outdated.pop())

    def _fresh(self, parent: int, name: bytes, make: Callable[[], T]) -> T:
        """Make something under a name; what is there goes first."""
        try:
            return make()
        except FileExistsError:
            self._clear(parent, name)
            return make()

    def _clear(self, parent: int, name: bytes) -> None:
        try:
            there = os.lstat(name, dir_fd=parent)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(there.st_mode):
            folder = os.open(name, _DIRECTORY, dir_fd=parent)
            try:
                tree.remove_content(folder)
            finally:
                os.close(folder)
            os.rmdir(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)
        if stat.S_ISDIR(there.st_mode) or stat.S_ISLNK(there.st_mode):
            self._outdate()

    # Entries

    def _opaque(self, folder: bytes) -> None:
        if folder:
            os.setxattr(self._folder(folder), OPAQUE, b"y")
        else:
            self._opaque_root = True

    def _whiteout(self, folder: bytes, name: bytes, entry: Entry) -> None:
        if name in {b"", b".", b".."}:
            raise InvalidParameter(f"layer entry {entry.label}: a whiteout of nothing")
        parent = self._folder(folder)
        self._fresh(parent, name, lambda: os.mknod(name, stat.S_IFCHR, 0, dir_fd=parent))

    def _directory(self, parent: int, name: bytes, path: bytes, entry: Entry) -> None:
        """A directory that is there is kept with its content; anything else in its place, a symlink too, goes."""
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
                self._clear(parent, name)
                os.mkdir(name, 0o700, dir_fd=parent)
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            self._directory_metadata(fd, entry, path)
        finally:
            os.close(fd)

    def _directory_metadata(self, fd: int, entry: Entry, path: bytes) -> None:
        own(fd, entry)
        self._times.write(_TIME.pack(moment(entry), len(path)) + path)

    def _file(self, parent: int, name: bytes, entry: Entry, data: Iterable[memoryview]) -> None:
        self._grow(entry, entry.size)
        fd = self._fresh(parent, name, lambda: os.open(name, _NEW, 0o600, dir_fd=parent))
        try:
            if entry.fragments is None:
                for piece in data:
                    _write(fd, piece)
            else:
                _write_fragments(fd, entry.fragments, data)
                os.ftruncate(fd, entry.size)
            own(fd, entry)
            when = moment(entry)
            os.utime(fd, ns=(when, when))
        finally:
            os.close(fd)

    def _grow(self, entry: Entry, size: int) -> None:
        self.size += size
        if self.size > self._limit:
            raise TooLarge(f"layer entry {entry.label}: the files have more than {self._limit} bytes")

    def _device(self, parent: int, name: bytes, entry: Entry) -> None:
        kind = {Kind.FIFO: stat.S_IFIFO, Kind.CHARACTER: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK}[entry.kind]
        if not (0 <= entry.major < 1 << 12 and 0 <= entry.minor < 1 << 20):
            raise InvalidParameter(f"layer entry {entry.label}: there is no device {entry.major}:{entry.minor}")
        device = os.makedev(entry.major, entry.minor)
        if kind == stat.S_IFCHR and device == 0:
            raise InvalidParameter(f"layer entry {entry.label}: character device 0/0 means a whiteout here")
        self._fresh(parent, name, lambda: os.mknod(name, kind | 0o600, device, dir_fd=parent))
        self._metadata(parent, name, entry)
        os.chmod(name, entry.mode, dir_fd=parent)

    def _metadata(self, parent: int, name: bytes, entry: Entry) -> None:
        """Owner, attributes and time of what has no descriptor: a symlink or a device."""
        uid, gid = owner(entry)
        os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
        for key, value in entry.xattrs.items():
            set_xattr(f"/proc/self/fd/{parent}/".encode() + name, key, value)
        when = moment(entry)
        os.utime(name, ns=(when, when), dir_fd=parent, follow_symlinks=False)

    # Hard links

    def _link(self, parent: int, name: bytes, entry: Entry) -> None:
        target = clean(entry.target)
        folder, _, last = target.rpartition(b"/")
        try:
            source = self._open(folder)
        except FileNotFoundError:
            self._copy_up(parent, name, target, entry)
            return
        try:
            there = os.lstat(last or b".", dir_fd=source)
            if is_whiteout(there):
                raise InvalidParameter(f"layer entry {entry.label}: hard link to {_text(target)}, which is deleted")
            if stat.S_ISDIR(there.st_mode):
                raise InvalidParameter(f"layer entry {entry.label}: hard link to the directory {_text(target)}")
            self._fresh(
                parent,
                name,
                lambda: os.link(last, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False),
            )
        except FileNotFoundError:
            self._copy_up(parent, name, target, entry)
        finally:
            os.close(source)

    def _copy_up(self, parent: int, name: bytes, target: bytes, entry: Entry) -> None:
        """A hard link to a file of a lower layer: overlayfs links nothing across layers, so it is copied.

        Only a regular file's content is ever opened: a device node in an image may be a disk of the host's.
        """
        with Union([self._root, *self._parents]) as layers:
            found = layers.find(target)
            if found is None or stat.S_ISDIR(found[2].st_mode):
                if found is not None:
                    os.close(found[0])
                missing = f"hard link to {_text(target)}, which is not there"
                raise InvalidParameter(f"layer entry {entry.label}: {missing}")
            folder, last, there = found
            try:
                self._grow(entry, there.st_size if stat.S_ISREG(there.st_mode) else 0)
                self._fresh(parent, name, lambda: copy(folder, last, there, parent, name))
            finally:
                os.close(folder)

    # The end

    def finish(self) -> None:
        """What is done last: a root that hides all below, and the directories' times, which their entries changed."""
        self._outdate()
        if self._opaque_root:
            self._hide_parents()
        self._times.seek(0)
        while head := self._times.read(_TIME.size):
            when, length = _TIME.unpack(head)
            path = self._times.read(length)
            with suppress(OSError):  # a later entry took the directory's place
                fd = tree.open_beneath(self._root, path)
                try:
                    os.utime(fd, ns=(when, when))
                finally:
                    os.close(fd)

    def _hide_parents(self) -> None:
        """Overlayfs heeds no opaque mark on the root itself: hide each name of the parents' instead."""
        with Union(self._parents) as below:
            for name in below.names(b"", below.whole):
                try:
                    os.mknod(name, stat.S_IFCHR, 0, dir_fd=self._root)
                except FileExistsError:
                    folder = tree.open_child(self._root, name)
                    if folder is not None:
                        os.setxattr(folder, OPAQUE, b"y")
                        os.close(folder)


def clean(name: bytes) -> bytes:
    """A name of the tar as a path below the root, ``.`` and ``..`` worked out as text; empty for the root itself.

    Raises InvalidParameter for one that leads out of the root, TooLarge for one that is too long.
    """
    text = _text(name)
    if len(name) > MAX_PATH:
        raise TooLarge(f"layer entry {text[:64]}...: the path is over {MAX_PATH} bytes")
    parts: list[bytes] = []
    absolute = name.startswith(b"/")
    for part in name.split(b"/"):
        if part == b"..":
            if parts:
                parts.pop()
            elif not absolute:
                raise InvalidParameter(f"layer entry {text} is outside of the layer: invalid path (breakout)")
        elif part not in {b"", b"."}:
            parts.append(part)
    return b"/".join(parts)


def _text(name: bytes) -> str:
    return repr(name.decode("utf-8", "backslashreplace"))


def _write(fd: int, piece: memoryview) -> None:
    while piece:
        piece = piece[os.write(fd, piece) :]


def _write_fragments(fd: int, fragments: Sequence[tuple[int, int]], data: Iterable[memoryview]) -> None:
    """Put the stored bytes where the map says; the holes stay holes."""
    places = iter(fragments)
    offset = left = 0
    for piece in data:
        while piece:
            if not left:
                offset, left = next(places)  # the reader has checked that there is a place for every byte
                os.lseek(fd, offset, os.SEEK_SET)
            _write(fd, piece[:left])
            used = min(left, len(piece))
            left, piece = left - used, piece[used:]
