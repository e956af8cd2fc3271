"""The archive around images, as a push parser: bytes in, entries and their data out, no I/O.

``docker load`` sends one tar, perhaps compressed.  It is not trusted: names are only labels here, sizes are bounded by
the caller, and sparse or other rare kinds of entry are reported without data.  Texts of errors are those of the reader
in dockerd.
"""

from __future__ import annotations

import bz2
import lzma
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol, cast

from isal import isal_zlib

from silo.errors import Corrupt

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK: Final = 512
MAX_EXTENSION: Final = 1 << 20
"""Bytes of a PAX or GNU long-name header."""
WINDOW: Final = 1 << 20
"""Most bytes handed out at once, however well they were compressed."""

_HEADER_MORE, _MAP_MORE = 482, 504  # where an old GNU sparse entry says that its map goes on in another block
_MAGIC: Final = 6  # bytes that tell one compression from another
_NO_DATA: Final = frozenset(
    {tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE}
)
_DAMAGED: Final[tuple[type[Exception], ...]] = (
    cast("type[Exception]", isal_zlib.error),  # its stub says it is an instance
    lzma.LZMAError,
    zstd.ZstdError,
    OSError,
    EOFError,
    ValueError,
)
_EOF: Final = "unexpected EOF"
_BAD_HEADER: Final = "archive/tar: invalid tar header"


@dataclass(frozen=True, slots=True)
class Entry:
    """The head of one entry: ``kind`` is file, link (hard), symlink or other; ``size`` is 0 except for files."""

    name: str
    kind: str
    size: int
    target: str = ""


Event = Entry | bytes


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class Inflater:
    """Undoes the compression that the first bytes show: gzip, xz, zstd, bzip2 or none; members may be several."""

    def __init__(self) -> None:
        self._between = bytearray()  # input before a member whose kind is not known yet
        self._codec: _Decompressor | None = None
        self._plain = False
        self._members = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decompressed pieces of at most about ``WINDOW`` bytes.  Raises Corrupt."""
        if self._plain:
            yield data
            return
        try:
            yield from self._inflate(data)
        except _DAMAGED as exc:
            raise Corrupt(f"decompress the archive: {exc}") from exc

    def finish(self) -> bytes:
        """What is left when the input ends.  Raises Corrupt when it ends inside a compressed member."""
        if self._codec is not None:
            raise Corrupt(_EOF)
        return bytes(self._between) if not self._members else b""

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        while True:
            if self._codec is None:
                self._between += data
                if len(self._between) < _MAGIC:
                    return
                data = bytes(self._between)
                self._codec = _codec(data)
                if self._codec is None:
                    # The first bytes of all: a plain archive.  Behind a member: padding, which nobody wants.
                    self._plain = not self._members
                    self._between.clear()
                    if self._plain:
                        yield data
                    return
                self._between.clear()
                self._members += 1
            piece = self._codec.decompress(data, WINDOW)
            data = b""
            if piece:
                yield piece
            if self._codec.eof:
                data, self._codec = self._codec.unused_data, None
            elif not piece:
                return


def _codec(magic: bytes) -> _Decompressor | None:
    if magic.startswith(b"\x1f\x8b\x08"):
        return _Gzip()
    if magic.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=256 << 20)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return zstd.ZstdDecompressor()
    if magic.startswith(b"BZh"):
        return bz2.BZ2Decompressor()
    return None


class _Gzip:
    """A zlib object with the manners of the others: it keeps its own unread input."""

    def __init__(self) -> None:
        self._inner = isal_zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


class TarReader:
    """Splits an uncompressed tar into entries; each ``Entry`` is followed by its data in pieces."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._left = 0  # bytes of the current entry's data still to come
        self._padding = 0
        self._extension: tuple[bytes, bytearray] | None = None  # kind and data of a header that is being collected
        self._pax: dict[str, str] = {}
        self._sparse: tarfile.TarInfo | None = None  # an entry whose map goes on in the next block
        self._ended = False

    def feed(self, data: bytes) -> Iterator[Event]:
        """What ``data`` completes.  Raises Corrupt on a bad header."""
        self._buffer += data
        while not self._ended:
            if self._left:
                piece = self._take(self._left)
                if not piece:
                    return
                self._left -= len(piece)
                if self._extension is None:
                    yield piece
                else:
                    self._extension[1].extend(piece)
            elif self._extension is not None:
                self._apply_extension()
            elif self._padding and self._buffer:
                self._padding -= len(self._take(self._padding))
            elif self._padding or len(self._buffer) < BLOCK:
                return
            elif (entry := self._header(self._take(BLOCK))) is not None:
                yield entry
        self._buffer.clear()  # padding after the end, whatever it holds

    def finish(self) -> None:
        """The input has ended.  Raises Corrupt when it ends inside an entry."""
        if not self._ended and (self._left or self._padding or self._extension or self._sparse or any(self._buffer)):
            raise Corrupt(_EOF)

    def _take(self, count: int) -> bytes:
        piece = bytes(self._buffer[:count])
        del self._buffer[:count]
        return piece

    def _header(self, block: bytes) -> Entry | None:
        if self._sparse is not None:
            if block[_MAP_MORE]:
                return None
            info, self._sparse = self._sparse, None
            return self._entry(info)
        if not any(block):
            self._ended = True
            return None
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
        except tarfile.HeaderError as exc:
            raise Corrupt(_BAD_HEADER) from exc
        if info.type in {b"x", b"g", b"L", b"K"}:
            if not 0 <= info.size <= MAX_EXTENSION:
                raise Corrupt(_BAD_HEADER)
            self._extension = (info.type, bytearray())
            self._expect(info.size)
            return None
        if info.type == tarfile.GNUTYPE_SPARSE and block[_HEADER_MORE]:
            self._sparse = info
            return None
        return self._entry(info)

    def _entry(self, info: tarfile.TarInfo) -> Entry:
        pax, self._pax = self._pax, {}
        name, target = pax.get("path", info.name), pax.get("linkpath", info.linkname)
        size = int(pax["size"]) if pax.get("size", "").isdecimal() else info.size
        if size < 0:
            raise Corrupt(_BAD_HEADER)
        sparse = info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in pax)
        if info.type in _NO_DATA:
            # Some writers give a link the size of what it points at; no data follows.
            return Entry(name, {b"1": "link", b"2": "symlink"}.get(info.type, "other"), 0, target)
        self._expect(size)
        regular = info.type in {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE} and not sparse
        return Entry(name, "file" if regular else "other", size)

    def _expect(self, size: int) -> None:
        self._left, self._padding = size, -size % BLOCK

    def _apply_extension(self) -> None:
        assert self._extension is not None
        kind, data = self._extension
        self._extension = None
        if kind == b"L":
            self._pax["path"] = _text(bytes(data))
        elif kind == b"K":
            self._pax["linkpath"] = _text(bytes(data))
        elif kind == b"x":
            self._pax.update(_pax_records(bytes(data)))


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "replace")


def _pax_records(data: bytes) -> dict[str, str]:
    """Records of ``<length> <key>=<value>`` and a line feed.  Raises Corrupt."""
    records: dict[str, str] = {}
    while data:
        digits, space, _ = data.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 9 else 0
        record = data[len(digits) + 1 : length]
        if not space or length > len(data) or not record.endswith(b"\n") or b"=" not in record:
            raise Corrupt(_BAD_HEADER)
        key, _, value = record[:-1].partition(b"=")
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        data = data[length:]
    return records
