"""A connection that stopped being HTTP: raw bytes both ways, each half closed by itself."""

from __future__ import annotations

import socket

import anyio
from anyio.abc import SocketAttribute, SocketStream


class HijackedStream:
    """Raw bytes to and from the peer.  ``leftover`` was read together with the head and comes first."""

    def __init__(self, stream: SocketStream, leftover: bytes = b"") -> None:
        self._stream = stream
        self._leftover = leftover

    async def receive(self) -> bytes:
        """The next bytes; empty once the peer has closed its sending half, or is gone."""
        if self._leftover:
            data, self._leftover = self._leftover, b""
            return data
        try:
            return await self._stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return b""

    async def send(self, data: bytes) -> None:
        """Raises BrokenResourceError once the peer is gone."""
        await self._stream.send(data)

    async def close_write(self) -> None:
        """Tell the peer that nothing more comes; receiving goes on."""
        try:
            raw: socket.socket = self._stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - not Django
            raw.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the peer was quicker

    async def aclose(self) -> None:
        """Close both halves."""
        await self._stream.aclose()
