"""A connected stream socket, driven by readiness.

anyio's own unix stream logs an InvalidStateError when a receive is cancelled at the moment data arrives; cancelling
receives is what a server does when an answer is complete, so the few lines are ours.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from types import TracebackType
from typing import Final, Self

import anyio
import anyio.lowlevel

CHUNK: Final = 64 << 10


class Connection:
    """Bytes to and from a peer.  One task receives, one task sends."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self.family = sock.family

    def fileno(self) -> int:
        """The descriptor; -1 when closed."""
        return self._sock.fileno()

    async def receive(self) -> bytes:
        """The next bytes; empty at the peer's half-close.  Raises BrokenResourceError when the peer is gone."""
        waited = False
        while True:
            try:
                data = self._sock.recv(CHUNK)
            except BlockingIOError:
                await anyio.wait_readable(self._sock)
                waited = True
                continue
            except OSError as exc:
                raise anyio.BrokenResourceError from exc
            if not waited:
                await anyio.lowlevel.checkpoint()  # a peer that always has more must not keep others waiting
            return data

    async def send(self, data: bytes) -> None:
        """Send all of it.  Raises BrokenResourceError when the peer is gone."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view) :]
            except BlockingIOError:
                await anyio.wait_writable(self._sock)
            except OSError as exc:
                raise anyio.BrokenResourceError from exc

    def close_write(self) -> None:
        """Tell the peer that nothing more comes."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close both halves; who still waits gets ClosedResourceError."""
        if self._sock.fileno() >= 0:
            anyio.notify_closing(self._sock)
            self._sock.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


async def accept(listener: socket.socket) -> Connection:
    """The next connection.  Raises OSError: too many open files."""
    while True:
        try:
            return Connection(listener.accept()[0])
        except BlockingIOError:
            await anyio.wait_readable(listener)
        except (ConnectionAbortedError, InterruptedError):
            continue


async def connect_tcp(host: str, port: int) -> Connection:
    """Connect to the first address of ``host`` that answers.  Raises OSError."""
    error = OSError(errno.EADDRNOTAVAIL, "no address")
    for family, kind, _, _, address in await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        try:
            code = sock.connect_ex(address)
            if code == errno.EINPROGRESS:
                await anyio.wait_writable(sock)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code == 0:
                return Connection(sock)
            error = OSError(code, os.strerror(code))
        except BaseException:
            sock.close()
            raise
        sock.close()
    raise error
