"""Unpacks a layer's tar into a directory of ours, within limits, and says what its digest is.

``tarstream`` reads, ``writer`` writes.  A layer comes from anywhere: everything about it may be wrong.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from silo.errors import Corrupt, InvalidParameter, TooLarge
from silo.host.linux import tree
from silo.host.storagefilter.tarstream import UNEXPECTED_EOF, Entry, TarStream
from silo.host.storagefilter.writer import Writer
from silo.wire import compression

CHUNK: Final = 1 << 20
MAX_RATIO: Final = 1032 * 2
"""Decompressed to compressed bytes; deflate itself cannot do better than 1032."""
RATIO_FROM: Final = 4 << 30
"""Below so many bytes the ratio does not matter: zeros compress well and do no harm."""
_NOT_THE_TARS_FAULT: Final = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE}


class Limits(msgspec.Struct, frozen=True):
    """How much one layer may be: entries, bytes of the tar, bytes of the files (holes of sparse files count)."""

    entries: int = 5_000_000
    stream: int = 1 << 40
    content: int = 1 << 40


class Unpacked(msgspec.Struct, frozen=True):
    """What came out: the digest of the whole uncompressed tar, bytes of the files, number of entries."""

    DiffID: str
    Size: int
    Entries: int


class _Source:
    """The uncompressed bytes of a file, counted and digested as they go by."""

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        head = file.read(8)
        file.seek(0)
        self._compressed = max(1, os.fstat(file.fileno()).st_size)
        self._file = compression.reader(file, compression.kind(head))
        self._sha = hashlib.sha256()
        self._limit = limits.stream
        self._count = 0

    def read(self) -> bytes:
        try:
            data = self._file.read(CHUNK)
        except EOFError as exc:
            raise Corrupt(f"{UNEXPECTED_EOF}: {exc}") from exc
        except compression.FAULTS as exc:
            if isinstance(exc, OSError) and exc.errno:
                raise
            raise Corrupt(f"the compressed layer is not whole: {exc}") from exc
        self._sha.update(data)
        self._count += len(data)
        if self._count > self._limit:
            raise TooLarge(f"the layer is over {self._limit} bytes")
        if self._count > RATIO_FROM and self._count > MAX_RATIO * self._compressed:
            raise TooLarge(f"{self._compressed} bytes unpack to over {self._count}: refused")
        return data

    def digest(self) -> str:
        """The digest of everything, what follows the end of the tar too."""
        while self.read():
            pass
        return f"sha256:{self._sha.hexdigest()}"


def unpack(source: Path, target: Path, parents: Sequence[Path] = (), limits: Limits = Limits()) -> Unpacked:
    """Unpack the tar ``source`` (plain, gzip, zstd, xz or bzip2) into the directory ``target``, which is made.

    ``parents`` are the files of the layers below, nearest first: a hard link may name one of theirs.  On failure
    everything is removed.  Raises Corrupt, InvalidParameter, TooLarge, naming the entry; OSError for a full disk.
    """
    target.mkdir()
    try:
        target.chmod(0o755)  # whatever the umask is
        with source.open("rb") as file, Writer(target, parents, limits.content) as writer:
            stream = _Source(file, limits)
            count = _unpack(TarStream(stream), writer, limits)
            writer.finish()
            return Unpacked(stream.digest(), writer.size, count)
    except BaseException:
        tree.remove(target)
        raise


def _unpack(tar: TarStream, writer: Writer, limits: Limits) -> int:
    count = 0
    for entry in tar:
        count += 1
        if count > limits.entries:
            raise TooLarge(f"the layer has more than {limits.entries} entries")
        _add(writer, entry, tar)
    return count


def _add(writer: Writer, entry: Entry, tar: TarStream) -> None:
    try:
        writer.add(entry, tar.data())
    except Corrupt as exc:
        raise Corrupt(f"layer entry {entry.label}: {exc}") from exc
    except OSError as exc:
        if exc.errno in _NOT_THE_TARS_FAULT:
            raise
        raise InvalidParameter(f"layer entry {entry.label}: {exc.strerror}") from exc
