"""A connection that stopped being HTTP: raw bytes both ways, each half closed by itself."""

from __future__ import annotations

import anyio

from silo.httpd.sockets import Connection


class HijackedStream:
    """Raw bytes to and from the peer.  ``leftover`` was read together with the head and comes first."""

    def __init__(self, connection: Connection, leftover: bytes = b"") -> None:
        self._connection = connection
        self._leftover = leftover
        self.ended = anyio.Event()
        """Set once :meth:`receive` has said that nothing more comes."""

    async def receive(self) -> bytes:
        """The next bytes; empty once the peer has closed its sending half, or is gone."""
        if self._leftover:
            data, self._leftover = self._leftover, b""
            return data
        try:
            data = await self._connection.receive()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            data = b""
        if not data:
            self.ended.set()
        return data

    async def send(self, data: bytes) -> None:
        """Raises BrokenResourceError once the peer is gone."""
        await self._connection.send(data)

    async def close_write(self) -> None:
        """Tell the peer that nothing more comes; receiving goes on."""
        self._connection.close_write()

    async def aclose(self) -> None:
        """Close both halves."""
        self._connection.close()
