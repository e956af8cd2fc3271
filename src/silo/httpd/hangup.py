"""Noticing that a client has gone, without reading from its connection.

Reading ahead would notice it too, but would take bytes that belong to the next request or to a hijacked stream, and
stops noticing when a client sends ahead more than one cares to keep.  Linux tells through epoll: EPOLLHUP when both
directions are closed, EPOLLRDHUP when the peer has closed its sending half.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Generator
from contextlib import contextmanager

import anyio

from silo.httpd.sockets import Connection


class ClientGone(Exception):
    """The client closed the connection before it had the whole answer."""


class Disconnect:
    """An event, set once the client has gone; a block can be tied to it."""

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._scopes: set[anyio.CancelScope] = set()

    def set(self) -> None:
        """The client has gone: wake who waits, cancel what is tied to it."""
        self._event.set()
        for scope in tuple(self._scopes):
            scope.cancel()

    def is_set(self) -> bool:
        """Whether the client has gone."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Return once the client has gone."""
        await self._event.wait()

    @contextmanager
    def cancels(self) -> Generator[None]:
        """Cancel the block when the client goes.  Raises ClientGone then."""
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            if self.is_set():
                scope.cancel()
            try:
                yield
            finally:
                self._scopes.discard(scope)
        if scope.cancelled_caught:
            raise ClientGone("the client left before the answer was complete")


class Hangups:
    """Watches any number of connections with one descriptor."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, Disconnect] = {}

    def watch(self, connection: Connection, *, half: bool) -> Disconnect:
        """What is set when the peer goes.  ``half``: a peer that has closed only its sending half counts as gone.

        Watching a connection again replaces what was asked before.
        """
        fd, gone = connection.fileno(), Disconnect()
        mask = select.EPOLLRDHUP if half else 0  # EPOLLHUP is always told
        if fd in self._watched:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)
        self._watched[fd] = gone
        return gone

    def forget(self, connection: Connection) -> None:
        """Before the connection is closed."""
        if self._watched.pop(connection.fileno(), None) is not None:
            self._epoll.unregister(connection.fileno())

    async def run(self) -> None:
        """Tell, until cancelled."""
        while True:
            await anyio.wait_readable(self._epoll)
            for fd, _ in self._epoll.poll(0):
                self._epoll.unregister(fd)  # it would be told for ever
                self._watched.pop(fd).set()

    def close(self) -> None:
        """When no connection is left."""
        self._epoll.close()


def half_close_is_leaving(connection: Connection) -> bool:
    """Whether a peer that closed its sending half is taken for gone: TCP does not tell the two apart, unix does."""
    return connection.family != socket.AF_UNIX
