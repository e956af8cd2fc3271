"""Docker's multiplexed stream: eight bytes of header, then the data of one of the standard streams.

Header: stream number, three zero bytes, length as a big-endian 32-bit number (Engine API, "Stream format").
"""

from __future__ import annotations

import enum
import struct
from typing import Final

from silo.errors import Corrupt

MAX_FRAME: Final = 16 << 20
_HEADER: Final = struct.Struct(">BxxxL")


class Stream(enum.IntEnum):
    """Which stream a frame is of; SYSTEMERR carries an error of the engine itself."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    SYSTEMERR = 3


def frame(stream: Stream, data: bytes) -> bytes:
    """``data`` (below 4 GiB) as one frame."""
    return _HEADER.pack(stream, len(data)) + data


class FrameReader:
    """Bytes in, whole frames out; keeps the rest.  Does no I/O."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[tuple[Stream, bytes]]:
        """The frames that are complete now.  Raises Corrupt for what cannot be a frame."""
        self._rest += data
        frames: list[tuple[Stream, bytes]] = []
        offset = 0
        while len(self._rest) - offset >= _HEADER.size:
            kind, size = _HEADER.unpack_from(self._rest, offset)
            if kind > Stream.SYSTEMERR or size > MAX_FRAME:
                raise Corrupt(f"bad frame: stream {kind}, {size} bytes")
            end = offset + _HEADER.size + size
            if len(self._rest) < end:
                break
            frames.append((Stream(kind), bytes(self._rest[offset + _HEADER.size : end])))
            offset = end
        del self._rest[:offset]
        return frames

    @property
    def incomplete(self) -> bool:
        """Whether a frame has begun and not ended: at the end of a connection, something was lost."""
        return bool(self._rest)
