"""Unpacks a layer's tar into a directory of ours, by descriptor, so that nothing in the tar reaches outside of it.

Every path is resolved by openat2 with RESOLVE_IN_ROOT: symlinks of the layer are followed inside the layer, absolute
ones too, and ``..`` in a name is refused.  Whiteouts become what overlayfs understands: a character device 0/0 for one
name, the ``trusted.overlay.opaque`` attribute for a directory.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import msgspec

from silo.errors import Corrupt, InvalidParameter, TooLarge
from silo.host.linux import libc
from silo.wire import compression

MAX_ENTRIES: Final = 5_000_000
MAX_PATH: Final = 4096
MAX_BYTES: Final = 1 << 40
MAX_RECORD: Final = 1 << 20
"""Bytes of one PAX or GNU header record; tarfile reads it into memory."""
MAX_RATIO: Final = 1032 * 2
"""Decompressed to compressed bytes; deflate itself cannot do better than 1032."""
RATIO_FROM: Final = 4 << 30
"""Below so many bytes the ratio does not matter: zeros compress well and do no harm."""
CHUNK: Final = 1 << 20
WHITEOUT: Final = ".wh."
OPAQUE: Final = ".wh..wh..opq"
_XATTR: Final = "SCHILY.xattr."
_OVERLAY: Final = ("trusted.overlay.", "user.overlay.")
_RECORDS: Final = {
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}


class Unpacked(msgspec.Struct, frozen=True):
    """What came out: the digest of the whole uncompressed tar, and the bytes of its files."""

    DiffID: str
    Size: int
    Entries: int


class _Member(tarfile.TarInfo):
    """A header whose extension records may not be large."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _RECORDS and self.size > MAX_RECORD:
            raise TooLarge(f"tar header record of {self.size} bytes: the limit is {MAX_RECORD}")
        return cast("tarfile.TarInfo", super()._proc_member(tar))  # type: ignore[misc]


class _Hashing:
    """Reads a stream and keeps the digest and number of what went through."""

    def __init__(self, file: BinaryIO, compressed: int) -> None:
        self._file = file
        self._compressed = compressed
        self._sha = hashlib.sha256()
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._file.read(size)
        except compression.FAULTS as exc:
            if isinstance(exc, OSError) and exc.errno:
                raise
            raise Corrupt(f"the compressed layer is not whole: {exc}") from exc
        self._sha.update(data)
        self.count += len(data)
        if self.count > MAX_BYTES:
            raise TooLarge(f"the layer is over {MAX_BYTES} bytes")
        if self.count > RATIO_FROM and self.count > MAX_RATIO * self._compressed:
            raise TooLarge(f"{self._compressed} bytes unpack to over {self.count}: refused")
        return data

    def digest(self) -> str:
        while self.read(CHUNK):
            pass
        return f"sha256:{self._sha.hexdigest()}"


def unpack(source: Path, target: Path, parents: Sequence[Path] = ()) -> Unpacked:
    """Unpack the tar ``source`` (plain, gzip, zstd, xz or bzip2) into the directory ``target``, which is made.

    ``parents`` (nearest first) are where a hard link to a file of a lower layer finds it.  On failure everything is
    removed.  Raises Corrupt, InvalidParameter, TooLarge, all naming the entry; OSError for a full disk.
    """
    target.mkdir(mode=0o755)
    try:
        with source.open("rb") as file:
            head = file.read(8)
            file.seek(0)
            stream = _Hashing(compression.reader(file, compression.kind(head)), max(1, source.stat().st_size))
            writer = _Writer(target, parents)
            try:
                _read(stream, writer)
                writer.finish()
            finally:
                writer.close()
            return Unpacked(stream.digest(), writer.size, writer.entries)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def _read(stream: _Hashing, writer: _Writer) -> None:
    try:
        tar = tarfile.open(fileobj=cast("Any", stream), mode="r|", bufsize=CHUNK, tarinfo=_Member)  # noqa: SIM115
    except tarfile.ReadError as exc:
        if stream.count == 0:
            return  # an empty file is an empty layer
        raise Corrupt(f"the layer is not a tar: {exc}") from exc
    with tar:
        try:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else every header stays in memory
                writer.add(member, tar)
        except tarfile.TarError as exc:
            raise Corrupt(f"the layer's tar is not whole: unexpected EOF ({exc})") from exc


class _Writer:
    """Makes one entry after the other below a directory."""

    def __init__(self, target: Path, parents: Sequence[Path]) -> None:
        self._root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._parents = parents
        self._times: list[tuple[str, int]] = []
        self._cached: tuple[str, int] | None = None
        self.size = 0
        self.entries = 0

    def close(self) -> None:
        self._forget()
        os.close(self._root)

    def _forget(self) -> None:
        if self._cached is not None:
            os.close(self._cached[1])
            self._cached = None

    def add(self, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        """One entry.  Raises with the entry's name in the text."""
        self.entries += 1
        if self.entries > MAX_ENTRIES:
            raise TooLarge(f"the layer has more than {MAX_ENTRIES} entries")
        path = clean(member.name, member.name)
        try:
            self._add(member, path, tar)
        except OSError as exc:
            if exc.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE}:
                raise
            raise InvalidParameter(f"layer entry {member.name!r}: {exc.strerror}") from exc

    def _add(self, member: tarfile.TarInfo, path: str, tar: tarfile.TarFile) -> None:
        if not path:
            self._directory_metadata(self._root, member, "")
            return
        folder, _, name = path.rpartition("/")
        parent = self._parent(folder)
        if name.startswith(WHITEOUT):
            self._whiteout(parent, name, member)
            return
        self._make_room(parent, name, keep_directory=member.isdir())
        if member.isdir():
            self._directory(parent, name, path, member)
        elif member.isreg():
            self._file(parent, name, member, tar)
        elif member.issym():
            os.symlink(member.linkname, name, dir_fd=parent)
            self._forget()  # what the cached path meant may have changed
            self._metadata(self._parent(folder), name, member)
        elif member.islnk():
            self._link(parent, name, member)
        elif member.ischr() or member.isblk() or member.isfifo():
            self._device(parent, name, member)
        else:
            raise InvalidParameter(f"layer entry {member.name!r}: unhandled tar header type {member.type!r}")

    def _parent(self, folder: str) -> int:
        """A descriptor of the directory; missing parts are made as dockerd makes them (0755, root)."""
        if self._cached is not None and self._cached[0] == folder:
            return self._cached[1]
        self._forget()
        try:
            fd = self._open_directory(folder or ".")
        except FileNotFoundError:
            self._make_parents(folder)
            fd = self._open_directory(folder)
        self._cached = (folder, fd)
        return fd

    def _open_directory(self, path: str) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY
        return libc.openat2(self._root, path, flags, 0, libc.RESOLVE_IN_ROOT | libc.RESOLVE_NO_MAGICLINKS)

    def _make_parents(self, folder: str) -> None:
        done = "."
        for name in folder.split("/"):
            fd = self._open_directory(done)
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=fd)
            finally:
                os.close(fd)
            done = f"{done}/{name}"

    def _make_room(self, parent: int, name: str, *, keep_directory: bool) -> None:
        """An entry of the same name that came before goes; a directory stays when another directory comes."""
        try:
            there = os.lstat(name, dir_fd=parent)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(there.st_mode):
            if keep_directory:
                return
            shutil.rmtree(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)
        folder = self._cached[0] if self._cached else None
        if folder is not None and (folder == name or f"{folder}/".startswith(f"{name}/")):
            self._forget()

    def _whiteout(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        if name == OPAQUE:
            os.setxattr(parent, "trusted.overlay.opaque", b"y")
            return
        target = name[len(WHITEOUT) :]
        if target.startswith(WHITEOUT):
            return  # bookkeeping of aufs
        if target in {"", ".", ".."}:
            raise InvalidParameter(f"layer entry {member.name!r}: a whiteout of nothing")
        self._make_room(parent, target, keep_directory=False)
        os.mknod(target, stat.S_IFCHR | 0o000, os.makedev(0, 0), dir_fd=parent)

    def _directory(self, parent: int, name: str, path: str, member: tarfile.TarInfo) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            self._directory_metadata(fd, member, path)
        finally:
            os.close(fd)

    def _directory_metadata(self, fd: int, member: tarfile.TarInfo, path: str) -> None:
        os.chown(fd, member.uid, member.gid)
        os.chmod(fd, member.mode & 0o7777)
        self._xattrs(f"/proc/self/fd/{fd}", member, follow=True)
        self._times.append((path, _time(member)))

    def _file(self, parent: int, name: str, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            self._data(fd, member, tar)
            os.fchown(fd, member.uid, member.gid)
            os.fchmod(fd, member.mode & 0o7777)  # after chown, which takes setuid away
            if member.pax_headers:
                self._xattrs(f"/proc/self/fd/{fd}", member, follow=True)
            moment = _time(member)
            os.utime(fd, ns=(moment, moment))
        finally:
            os.close(fd)
        self.size += member.size

    def _data(self, fd: int, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        """Copy the content; the holes of a sparse file stay holes."""
        if member.size == 0:
            return
        source = tar.extractfile(member)
        if source is None:
            raise Corrupt(f"layer entry {member.name!r}: no data")
        left = member.size
        sparse = bool(member.sparse)
        while left:
            data = source.read(min(CHUNK, left))
            if not data:
                raise Corrupt(f"layer entry {member.name!r}: unexpected EOF")
            left -= len(data)
            if sparse and not data.strip(b"\0"):
                os.lseek(fd, len(data), os.SEEK_CUR)
                continue
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        if sparse:
            os.ftruncate(fd, member.size)

    def _link(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        target = clean(member.linkname, member.name)
        folder, _, last = target.rpartition("/")
        try:
            source = self._open_directory(folder or ".")
        except FileNotFoundError:
            self._copy_up(parent, name, target, member)
            return
        try:
            os.link(last, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            self._copy_up(parent, name, target, member)
        finally:
            os.close(source)

    def _copy_up(self, parent: int, name: str, target: str, member: tarfile.TarInfo) -> None:
        """A hard link to a file of a lower layer: overlayfs links nothing across layers, so its content is copied."""
        for layer in self._parents:
            root = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                source = libc.openat2(
                    root, target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, 0, libc.RESOLVE_IN_ROOT
                )
            except OSError:
                continue
            finally:
                os.close(root)
            with os.fdopen(source, "rb") as file:
                self._copy_file(parent, name, file)
            return
        raise InvalidParameter(f"layer entry {member.name!r}: hard link to {member.linkname!r}, which is not there")

    def _copy_file(self, parent: int, name: str, file: BinaryIO) -> None:
        there = os.fstat(file.fileno())
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, 0o600, dir_fd=parent), "wb") as out:
            shutil.copyfileobj(file, out, CHUNK)
            out.flush()
            os.fchown(out.fileno(), there.st_uid, there.st_gid)
            os.fchmod(out.fileno(), stat.S_IMODE(there.st_mode))
            os.utime(out.fileno(), ns=(there.st_atime_ns, there.st_mtime_ns))
        self.size += there.st_size

    def _device(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        kind = stat.S_IFIFO if member.isfifo() else stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        device = 0 if member.isfifo() else os.makedev(member.devmajor, member.devminor)
        if kind == stat.S_IFCHR and device == 0:
            raise InvalidParameter(f"layer entry {member.name!r}: character device 0/0 means a whiteout here")
        os.mknod(name, kind | 0o600, device, dir_fd=parent)
        self._metadata(parent, name, member)
        os.chmod(name, member.mode & 0o7777, dir_fd=parent)

    def _metadata(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        if member.pax_headers:
            self._xattrs(f"/proc/self/fd/{parent}/{name}", member, follow=False)
        moment = _time(member)
        os.utime(name, ns=(moment, moment), dir_fd=parent, follow_symlinks=False)

    def _xattrs(self, path: str, member: tarfile.TarInfo, *, follow: bool) -> None:
        """Extended attributes; those that would steer overlayfs itself are not an image's to give."""
        for key, value in member.pax_headers.items():
            if not key.startswith(_XATTR):
                continue
            name = key[len(_XATTR) :]
            if name.startswith(_OVERLAY):
                continue
            try:
                os.setxattr(path, name, value.encode("utf-8", "surrogateescape"), follow_symlinks=follow)
            except OSError as exc:
                if exc.errno not in {errno.ENOTSUP, errno.EPERM}:
                    raise

    def finish(self) -> None:
        """Directories get their times last: making entries in them changed those."""
        self._forget()
        for path, moment in reversed(self._times):
            with contextlib.suppress(OSError):  # a later entry replaced the directory
                fd = libc.openat2(
                    self._root,
                    path or ".",
                    os.O_RDONLY | os.O_DIRECTORY,
                    0,
                    libc.RESOLVE_BENEATH | libc.RESOLVE_NO_SYMLINKS,
                )
                try:
                    os.utime(fd, ns=(moment, moment))
                finally:
                    os.close(fd)


def _time(member: tarfile.TarInfo) -> int:
    """The modification time in nanoseconds; what no file system takes becomes the epoch."""
    seconds = float(member.mtime)
    return int(seconds * 1_000_000_000) if -(1 << 33) < seconds < 1 << 33 else 0


def clean(name: str, entry: str) -> str:
    """An entry's name as a relative path without ``.``; empty for the root.  Raises InvalidParameter for ``..``."""
    if len(name.encode("utf-8", "surrogateescape")) > MAX_PATH:
        raise TooLarge(f"layer entry {entry[:64]!r}...: the path is over {MAX_PATH} bytes")
    if "\0" in name:
        raise InvalidParameter(f"layer entry {entry!r}: a zero byte in the path")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise InvalidParameter(f"layer entry {entry!r} is outside of the layer: invalid path (breakout)")
    return "/".join(parts)
