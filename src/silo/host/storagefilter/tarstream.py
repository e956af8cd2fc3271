"""Reads the entries of a layer's tar one after the other: ustar, PAX, GNU and their sparse files.

Our own reader, because a layer comes from anywhere: every length is checked before anything of that length is kept,
damage is always the same one kind of error, and numbers keep their nanoseconds.  Names stay bytes, as the kernel wants
them.  Formats: POSIX.1-2008 "pax Interchange Format"; GNU tar's manual, "Basic Tar Format" and "Storing Sparse Files".
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from silo.errors import Corrupt, TooLarge

BLOCK: Final = 512
MAX_RECORD: Final = 1 << 20
"""Bytes of one PAX or long-name record, or of one sparse map."""
MAX_RECORDS: Final = 16
"""Records before one entry."""
MAX_FRAGMENTS: Final = 1 << 16
"""Pieces of data in one sparse file."""
XATTR: Final = b"SCHILY.xattr."

BAD_HEADER: Final = "archive/tar: invalid tar header"
UNEXPECTED_EOF: Final = "unexpected EOF"
_NO_SIZE: Final = 1 << 63


class Kind(enum.Enum):
    """What an entry is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARD_LINK = "hard link"
    CHARACTER = "character device"
    BLOCK = "block device"
    FIFO = "fifo"
    OTHER = "other"


_KINDS: Final = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"S": Kind.FILE,
    b"1": Kind.HARD_LINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER,
    b"4": Kind.BLOCK,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}


@dataclass(slots=True)
class Entry:
    """One entry.  ``size`` is the file's length, ``stored`` how many bytes of it are in the tar.

    ``fragments`` are (offset, length) of a sparse file's data, in order; None for one without holes.
    """

    name: bytes
    kind: Kind
    flag: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    stored: int
    target: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    fragments: list[tuple[int, int]] | None = None

    @property
    def label(self) -> str:
        """The name as text, for messages."""
        return repr(self.name.decode("utf-8", "backslashreplace"))


class Reader(Protocol):
    """Where the tar comes from."""

    def read(self) -> bytes:
        """The next bytes, as many as come cheaply; empty at the end."""
        ...


class TarStream:
    """Entries in order; the data of one are read, or passed over, before the next.

    Raises Corrupt for what is no tar or not a whole one, TooLarge for headers beyond the limits.
    """

    def __init__(self, source: Reader) -> None:
        self._source = source
        self._held = memoryview(b"")
        self._left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self.next()) is not None:
            yield entry

    def next(self) -> Entry | None:
        """The next entry; None after the last."""
        for _ in self.data():
            pass
        self._skip_padding()
        pax: dict[bytes, bytes] = {}
        fragments: list[bytes] = []
        for _ in range(MAX_RECORDS):
            block = self._header()
            if block is None:
                if pax:
                    raise Corrupt(UNEXPECTED_EOF)
                return None
            flag = block[156:157]
            if flag in b"xXLKg":
                self._record(flag, _number(block[124:136]), pax, fragments)
                continue
            return self._entry(block, flag, pax, fragments)
        raise TooLarge(f"more than {MAX_RECORDS} header records before one entry")

    def data(self) -> Iterator[memoryview]:
        """The stored bytes of the current entry, in pieces."""
        while self._left:
            piece = self._some(self._left)
            self._left -= len(piece)
            yield piece

    def _some(self, limit: int) -> memoryview:
        """At least one byte and at most ``limit``."""
        if not self._more():
            raise Corrupt(UNEXPECTED_EOF)
        piece, self._held = self._held[:limit], self._held[limit:]
        return piece

    def _take(self, count: int) -> bytes:
        if len(self._held) >= count:
            piece, self._held = bytes(self._held[:count]), self._held[count:]
            return piece
        parts = bytearray()
        while len(parts) < count:
            parts += self._some(count - len(parts))
        return bytes(parts)

    def _skip_padding(self) -> None:
        """Go on to the next block; some writers leave out the padding of the last entry."""
        while self._padding and self._more():
            self._padding -= len(self._some(self._padding))

    def _more(self) -> bool:
        if not self._held:
            self._held = memoryview(self._source.read())
        return bool(self._held)

    def _header(self) -> bytes | None:
        """The next header block; None at the end: a block of zeros, or nothing more."""
        if not self._more():
            return None
        block = self._take(BLOCK)
        found = _number(block[148:156])
        total = sum(block) - sum(block[148:156]) + 256
        if found == total:
            return block
        if not any(block):
            return None
        signed = total - 256 * sum(1 for byte in block[:148] + block[156:] if byte > 127)
        if found != signed:
            raise Corrupt(BAD_HEADER)
        return block

    def _record(self, flag: bytes, size: int, pax: dict[bytes, bytes], fragments: list[bytes]) -> None:
        if not 0 <= size <= MAX_RECORD:
            raise TooLarge(f"tar header record of {size} bytes: the limit is {MAX_RECORD}")
        data = self._take(size)
        self._take(-size % BLOCK)
        match flag:
            case b"L":
                pax[b"path"] = data.partition(b"\0")[0]
            case b"K":
                pax[b"linkpath"] = data.partition(b"\0")[0]
            case b"x" | b"X":
                _parse_pax(data, pax, fragments)
            case _:
                pass  # a global record: dockerd pays no attention either

    def _entry(self, block: bytes, flag: bytes, pax: dict[bytes, bytes], fragments: list[bytes]) -> Entry:
        name = pax.get(b"path") or _name(block)
        kind = _KINDS.get(flag, Kind.OTHER)
        if kind is Kind.FILE and flag == b"\0" and name.endswith(b"/"):
            kind = Kind.DIRECTORY  # before ustar a directory was a name with a slash at its end
        size = _decimal(pax[b"size"]) if pax.get(b"size") else _number(block[124:136])
        if not 0 <= size < _NO_SIZE:
            raise Corrupt(BAD_HEADER)
        entry = Entry(
            name=name,
            kind=kind,
            flag=flag,
            mode=_number(block[100:108]) & 0o7777,
            uid=_decimal(pax[b"uid"]) if pax.get(b"uid") else _number(block[108:116]),
            gid=_decimal(pax[b"gid"]) if pax.get(b"gid") else _number(block[116:124]),
            mtime_ns=_moment(pax[b"mtime"]) if pax.get(b"mtime") else _number(block[136:148]) * 1_000_000_000,
            size=size,
            stored=size if kind in {Kind.FILE, Kind.OTHER} else 0,
            target=pax.get(b"linkpath") or block[157:257].partition(b"\0")[0],
            major=_number(block[329:337]) if kind in {Kind.CHARACTER, Kind.BLOCK} else 0,
            minor=_number(block[337:345]) if kind in {Kind.CHARACTER, Kind.BLOCK} else 0,
            xattrs={key[len(XATTR) :]: value for key, value in pax.items() if key.startswith(XATTR)} if pax else {},
        )
        if b"\0" in entry.name or b"\0" in entry.target:
            raise Corrupt(BAD_HEADER)
        self._left, self._padding = entry.stored, -entry.stored % BLOCK
        if kind is Kind.FILE and (flag == b"S" or any(key.startswith(b"GNU.sparse.") for key in pax)):
            self._sparse(entry, block, pax, fragments)
        return entry

    def _sparse(self, entry: Entry, block: bytes, pax: dict[bytes, bytes], fragments: list[bytes]) -> None:
        """Fill in length and fragments of a sparse file, in any of the four ways to write them."""
        if entry.flag == b"S":
            numbers = self._old_map(block)
            entry.size = _number(block[483:495])
        elif pax.get(b"GNU.sparse.major") == b"1":
            numbers = self._map_in_data()
            entry.name = pax.get(b"GNU.sparse.name") or entry.name
            entry.size = _decimal(pax.get(b"GNU.sparse.realsize", b""))
        else:
            text = pax.get(b"GNU.sparse.map")
            numbers = [_decimal(one) for one in (text.split(b",") if text else fragments)]
            entry.name = pax.get(b"GNU.sparse.name") or entry.name
            entry.size = _decimal(pax.get(b"GNU.sparse.size") or pax.get(b"GNU.sparse.realsize") or b"")
        entry.stored = self._left
        entry.fragments = _checked(numbers, entry)

    def _old_map(self, block: bytes) -> list[int]:
        """Old GNU: four pairs in the header, 21 in each block that follows while a flag says so."""
        parts, more = [block[386:482]], block[482]
        while more:
            extension = self._take(BLOCK)
            parts.append(extension[:504])
            more = extension[504]
            if len(parts) * 21 > MAX_FRAGMENTS:
                raise TooLarge(f"a sparse file of more than {MAX_FRAGMENTS} fragments")
        text = b"".join(parts)
        fields = [text[start : start + 12] for start in range(0, len(text), 12)]
        return [_number(one) for one in fields if one.strip(b"\0 ")]

    def _map_in_data(self) -> list[int]:
        """PAX 1.0: decimal numbers, a line each, the first their count, in front of the data and padded to a block."""
        text = self._data_block()
        while b"\n" not in text:
            text += self._data_block()
        first, _, text = text.partition(b"\n")
        count = _decimal(first) * 2
        if count > MAX_FRAGMENTS * 2:
            raise TooLarge(f"a sparse file of more than {MAX_FRAGMENTS} fragments")
        parts, lines = [text], text.count(b"\n")
        while lines < count:
            parts.append(self._data_block())
            lines += parts[-1].count(b"\n")
            if len(parts) * BLOCK > 2 * MAX_RECORD:
                raise TooLarge("a sparse file's map is too long")
        return [_decimal(line) for line in b"".join(parts).split(b"\n")[:count]]

    def _data_block(self) -> bytes:
        if self._left < BLOCK:
            raise Corrupt(UNEXPECTED_EOF)
        self._left -= BLOCK
        return self._take(BLOCK)


def _name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0":  # GNU's own magic is another, and there the prefix is something else
        prefix = block[345:500].partition(b"\0")[0]
        if prefix:
            return prefix + b"/" + name
    return name


def _number(text: bytes) -> int:
    """A number field: octal digits, or base 256 when its first bit is set."""
    if text[0] & 0x80:
        value = int.from_bytes(text, "big")
        bits = len(text) * 8
        return value - (1 << bits) if text[0] & 0x40 else value - (1 << bits - 1)
    digits = text.partition(b"\0")[0].strip()
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise Corrupt(BAD_HEADER)
    return int(digits, 8)


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise Corrupt(BAD_HEADER)
    return int(text)


def _moment(text: bytes) -> int:
    """Decimal seconds with a fraction, as nanoseconds."""
    sign = -1 if text.startswith(b"-") else 1
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    return sign * (_decimal(whole or b"0") * 1_000_000_000 + _decimal((fraction + b"0" * 9)[:9]))


def _parse_pax(data: bytes, pax: dict[bytes, bytes], fragments: list[bytes]) -> None:
    """Records of ``<length> <key>=<value>`` and a line feed."""
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 9)
        if space < 0 or not data[at:space].isdigit():
            raise Corrupt(BAD_HEADER)
        length = int(data[at:space])
        record = data[space + 1 : at + length]
        key, equals, value = record[:-1].partition(b"=")
        if not record.endswith(b"\n") or at + length > len(data) or not equals or not key:
            raise Corrupt(BAD_HEADER)
        if key in {b"GNU.sparse.offset", b"GNU.sparse.numbytes"}:
            fragments.append(value)
            if len(fragments) > 2 * MAX_FRAGMENTS:
                raise TooLarge(f"a sparse file of more than {MAX_FRAGMENTS} fragments")
        pax[key] = value
        at += length


def _checked(numbers: list[int], entry: Entry) -> list[tuple[int, int]]:
    """The map as pairs.  Raises Corrupt unless it is in order, inside the file, and accounts for every stored byte."""
    pairs = list(zip(numbers[::2], numbers[1::2], strict=False))
    end = 0
    for offset, length in pairs:
        if offset < end or length < 0:
            raise Corrupt(BAD_HEADER)
        end = offset + length
    if len(numbers) % 2 or not end <= entry.size < _NO_SIZE or sum(length for _, length in pairs) != entry.stored:
        raise Corrupt(BAD_HEADER)
    if len(pairs) > MAX_FRAGMENTS:
        raise TooLarge(f"a sparse file of more than {MAX_FRAGMENTS} fragments")
    return [pair for pair in pairs if pair[1]]
