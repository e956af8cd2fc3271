"""The server: who listens, which clients are connected, and how it comes to an end.

h11 decides, ``exchange`` moves bytes.  aiohttp's server loses output at a client's half-close and ASGI cannot hijack,
which is why there is a server here (ADR 2).
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Mapping
from typing import Final

import anyio
from anyio.abc import TaskGroup, TaskStatus

from silo.httpd.exchange import App, Respond, Session
from silo.httpd.hangup import ClientGone, Hangups
from silo.httpd.sockets import Connection, accept
from silo.resources import ungrouped

__all__ = ["App", "ClientGone", "Respond", "serve"]

log = logging.getLogger(__name__)

ACCEPT_PAUSE: Final = 0.1
STREAM_GRACE: Final = 1.0
"""Seconds that answers under way and hijacked connections have when the server ends: many would never end."""
GRACE: Final = 10.0
"""Seconds that requests have, which are not answered yet when the server ends."""


async def serve(app: App, listeners: list[socket.socket], headers: Mapping[str, str]) -> None:
    """Answer on every listener until cancelled; ``headers`` go with every answer.

    When cancelled, the listeners are closed, idle connections too, and requests get ``GRACE`` seconds to finish.
    """
    server = _Server(app, headers)
    with ungrouped():
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope(shield=True):  # cancelled in here, nobody would tell ``keep`` to end
                connections: TaskGroup = await tasks.start(server.keep)
            try:
                async with anyio.create_task_group() as accepting:
                    for listener in listeners:
                        accepting.start_soon(server.accept, listener, connections)
            finally:
                for listener in listeners:
                    listener.close()
                server.closing.set()


class _Server:
    def __init__(self, app: App, headers: Mapping[str, str]) -> None:
        self._app = app
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._hangups = Hangups()
        self._sessions: set[Session] = set()
        self._one_less = anyio.Event()
        self.closing = anyio.Event()

    async def keep(self, *, task_status: TaskStatus[TaskGroup]) -> None:
        """Keep the tasks of connections, out of reach of what cancels the server, until they have had their time."""
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as connections:
                connections.start_soon(self._hangups.run)
                task_status.started(connections)
                await self.closing.wait()
                for session in tuple(self._sessions):
                    session.retire()
                await self._emptied(STREAM_GRACE)
                for session in tuple(self._sessions):
                    session.cut()
                await self._emptied(GRACE - STREAM_GRACE)
                connections.cancel_scope.cancel()
            self._hangups.close()

    async def _emptied(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            while self._sessions:
                self._one_less = anyio.Event()
                await self._one_less.wait()

    async def accept(self, listener: socket.socket, connections: TaskGroup) -> None:
        """Take connections until cancelled."""
        while True:
            try:
                connections.start_soon(self._serve, await accept(listener))
            except OSError as exc:
                if exc.errno in {errno.EBADF, errno.EINVAL, errno.ENOTSOCK}:
                    raise  # it does not listen: no pause would help
                log.exception("accept")  # out of descriptors or memory: some connection will give them back
                await anyio.sleep(ACCEPT_PAUSE)

    async def _serve(self, connection: Connection) -> None:
        """One connection.  Whatever goes wrong here is this client's loss only."""
        async with connection:
            session = Session(self._app, connection, self._headers, self._hangups)
            self._sessions.add(session)
            try:
                await session.run()
            except Exception:
                log.exception("a connection failed")
            finally:
                self._hangups.forget(connection)
                self._sessions.discard(session)
                self._one_less.set()
