"""A small engine edge on a real socket, and a client that sends exactly the bytes it is told."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from pathlib import Path

import anyio

from silo.api.router import Router
from silo.api.server import ApiServer
from silo.errors import Conflict, NotModified
from silo.httpd.listen import open_unix, short_path
from silo.httpd.messages import Hijack, Response, StreamResponse, json_response

SEEN: ContextVar[str] = ContextVar("seen", default="nothing")
PING = b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /v1.41/_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


class Handlers:
    """Each way a handler may behave, and events that say how far it came."""

    def __init__(self) -> None:
        self.began, self.go, self.cancelled, self.finished, self.stopped = (anyio.Event() for _ in range(5))
        self.stop: Callable[[], None]

    def router(self) -> Router:
        router = Router()
        for method, path, handler in (
            ("GET", "/_ping", self.ping),
            ("HEAD", "/_ping", self.ping),
            ("HEAD", "/slow", self.slow),
            ("POST", "/echo", self.echo),
            ("POST", "/json", self.json),
            ("POST", "/lenient", self.lenient),
            ("POST", "/ignore", self.ping),
            ("POST", "/first", self.first),
            ("GET", "/slow", self.slow),
            ("GET", "/think", self.think),
            ("POST", "/think", self.think),
            ("POST", "/ask", self.ask),
            ("POST", "/raw", self.raw),
            ("POST", "/mute", self.mute),
            ("GET", "/query", self.query),
            ("GET", "/context", self.context),
            ("GET", "/conflict", self.conflict),
            ("GET", "/same", self.same),
            ("GET", "/bug", self.bug),
            ("GET", "/late/{kind}", self.late),
            ("POST", "/hijackbug", self.hijack_bug),
            ("GET", "/crlf", self.crlf),
            ("GET", "/images/{name:.*}/json", self.name),
        ):
            router.add(method, path, handler, traced=False)
        return router

    async def ping(self, request):
        return Response(200, b"OK")

    async def echo(self, request):
        return StreamResponse(200, {"Content-Type": "x"}, request.stream())

    async def first(self, request):
        return Response(200, (await anext(request.stream(), b""))[:1])

    async def json(self, request):
        return json_response(await request.json(dict))

    async def lenient(self, request):
        return json_response(await request.json(dict, default={"default": True}))

    async def name(self, request):
        return json_response(request.params)

    async def query(self, request):
        return json_response(request.query.items())

    async def context(self, request):
        seen = SEEN.get()
        SEEN.set("something")
        return Response(200, seen.encode())

    async def slow(self, request):
        async def body():
            with self._watched():
                await self.go.wait()
                yield b"done"

        return StreamResponse(200, {}, body())

    async def think(self, request):
        with self._watched():
            await self.go.wait()
            return Response(200, b"thought")

    async def ask(self, request):
        self.began.set()
        await request.disconnected.wait()
        self.finished.set()
        return Response(200, b"nobody hears this")

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        self.began.set()
        try:
            yield
            self.finished.set()
        except BaseException:
            self.cancelled.set()
            raise

    async def raw(self, request):
        async def handler(stream):
            total = b""
            while data := await stream.receive():
                total += data
            await stream.send(total)  # after the client's half-close

        return Hijack(handler, "application/vnd.docker.raw-stream")

    async def mute(self, request):
        async def handler(stream):
            with self._watched():
                while await stream.receive():
                    pass
                await self.go.wait()
                await stream.send(b"at last")

        return Hijack(handler, "application/vnd.docker.raw-stream")

    async def conflict(self, request):
        raise Conflict("no: it is taken")

    async def same(self, request):
        raise NotModified("already")

    async def bug(self, request):
        raise ZeroDivisionError("secret")

    async def late(self, request):
        async def body() -> AsyncIterator[bytes]:
            yield b"so far"
            raise (Conflict if request.params["kind"] == "error" else ZeroDivisionError)("secret")

        return StreamResponse(200, {}, body())

    async def hijack_bug(self, request):
        async def handler(stream):
            await stream.send(b"so far")
            raise ZeroDivisionError("secret")

        return Hijack(handler, "x")

    async def crlf(self, request):
        return Response(200, b"", {"X-Name": "a\r\nX-Injected: b"})


@contextlib.asynccontextmanager
async def served(path: Path) -> AsyncIterator[Handlers]:
    """The handlers behind a unix socket; ``handlers.stop()`` and leaving the block end the server as a signal does."""
    handlers = Handlers()
    server = ApiServer(handlers.router(), version="t")
    scope = anyio.CancelScope()

    async def run(*, task_status):
        with scope:
            await server.serve([open_unix(path)], task_status=task_status)
        handlers.stopped.set()

    handlers.stop = scope.cancel
    async with anyio.create_task_group() as tasks:
        await tasks.start(run)
        yield handlers
        scope.cancel()


@contextlib.contextmanager
def connected(path: Path) -> Iterator[socket.socket]:
    """A blocking socket to the server, for a worker thread or for sending and leaving."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        with short_path(path) as name:
            sock.connect(name)
        yield sock


def read_all(sock: socket.socket) -> bytes:
    out = b""
    while data := sock.recv(65536):
        out += data
    return out


async def raw(path: Path, *parts: bytes, half_close: bool = False) -> bytes:
    """Send raw bytes; what comes back until the server closes."""

    def talk() -> bytes:
        with connected(path) as sock:
            for part in parts:
                sock.sendall(part)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
            return read_all(sock)

    return await anyio.to_thread.run_sync(talk)


async def in_thread(function: Callable[[], bytes]) -> bytes:
    return await anyio.to_thread.run_sync(function)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
