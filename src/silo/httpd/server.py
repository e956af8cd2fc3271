"""h11 on anyio sockets: keep-alive, chunked bodies both ways, 100-continue, 101 upgrades and the legacy hijack.

h11 decides, this file moves bytes.  aiohttp's server loses output at a client's half-close and ASGI cannot hijack,
which is why there is a server here (ADR 2).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final, Protocol

import anyio
import h11

from silo.httpd.hijack import HijackedStream
from silo.httpd.messages import Answer, Headers, Hijack, Query, Request, Response, StreamResponse
from silo.httpd.sockets import Connection, accept
from silo.resources import ungrouped

log = logging.getLogger(__name__)

MAX_HEAD: Final = 1 << 20
"""Bytes of request line and header fields, as Go's DefaultMaxHeaderBytes."""
ACCEPT_PAUSE: Final = 0.1
PIPELINE: Final = 64 << 10
"""Bytes a client may send ahead while an answer is streamed."""
DRAIN: Final = 1 << 20
"""Bytes of a body nobody read that are taken from the wire to keep the connection; beyond that it is closed."""


class ClientGone(Exception):
    """The client closed the connection before it had the whole answer."""


Respond = Callable[[Answer], Awaitable[None]]


class App(Protocol):
    """What answers requests: call ``respond`` exactly once.  It raises ClientGone when nobody listens any more."""

    async def __call__(self, request: Request, respond: Respond, /) -> None:
        """Answer one request."""
        ...


async def serve(app: App, listeners: list[socket.socket], headers: Mapping[str, str]) -> None:
    """Answer on every listener until cancelled, and close them; ``headers`` go with every answer."""

    async def handle(connection: Connection) -> None:
        async with connection:
            await _Exchanges(app, connection, headers).run()

    async def listen(listener: socket.socket) -> None:
        while True:
            try:
                tasks.start_soon(handle, await accept(listener))
            except OSError as exc:
                if exc.errno not in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
                    raise
                log.exception("accept")  # some connection will end and give its descriptor back
                await anyio.sleep(ACCEPT_PAUSE)

    try:
        async with anyio.create_task_group() as tasks:
            for listener in listeners:
                tasks.start_soon(listen, listener)
    finally:
        for listener in listeners:
            listener.close()


class _Exchanges:
    """One client's connection, from its first byte to its last."""

    def __init__(self, app: App, connection: Connection, headers: Mapping[str, str]) -> None:
        self._app = app
        self._stream = connection
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._early = bytearray()
        self._answered = False
        self._body_done = anyio.Event()

    async def run(self) -> None:
        try:
            while await self._exchange():
                self._h11.start_next_cycle()
        except h11.RemoteProtocolError as exc:
            await self._refuse(exc)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, ClientGone):
            return

    async def _exchange(self) -> bool:
        """One request and its answer; whether the connection can be used again."""
        event = await self._next_event()
        if not isinstance(event, h11.Request):
            return False
        self._answered = False
        self._body_done = anyio.Event()
        request = _request(event, self._body())
        if not _has_body(request.headers):
            self._h11.next_event()  # the end of a message without body, so that the state says so
            self._body_done.set()
        await self._app(request, self._respond)
        if self._h11.our_state is not h11.DONE:
            return False
        await self._drain()
        return self._h11.their_state is h11.DONE

    async def _next_event(self) -> object:
        while True:
            event = self._h11.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._h11.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            self._h11.receive_data(await self._receive())

    async def _receive(self) -> bytes:
        if self._early:
            data = bytes(self._early)
            self._early.clear()
            return data
        return await self._stream.receive()

    async def _body(self) -> AsyncGenerator[bytes]:
        while self._h11.their_state is h11.SEND_BODY:
            try:
                event = await self._next_event()
            except h11.RemoteProtocolError as exc:
                raise ClientGone("the request body ended early") from exc
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._body_done.set()
            else:
                raise ClientGone("the request body ended early")

    async def _drain(self) -> None:
        left = DRAIN
        while self._h11.their_state is h11.SEND_BODY and left > 0:
            event = await self._next_event()
            if isinstance(event, h11.Data):
                left -= len(event.data)
            elif not isinstance(event, h11.EndOfMessage):
                return

    async def _send(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data:
            await self._stream.send(data)

    def _head(self, status: int, headers: Mapping[str, str]) -> h11.Response:
        fields = [*self._headers, *((name.encode(), value.encode()) for name, value in headers.items())]
        return h11.Response(status_code=status, headers=fields, reason=_reason(status))

    async def _respond(self, answer: Answer) -> None:
        if self._answered:
            raise RuntimeError("a request was answered twice")
        self._answered = True
        try:
            match answer:
                case Response():
                    await self._respond_whole(answer)
                case StreamResponse():
                    await self._respond_stream(answer)
                case Hijack():
                    await self._hijack(answer)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as exc:
            raise ClientGone("the connection is closed") from exc

    async def _respond_whole(self, answer: Response) -> None:
        bodyless = answer.status in {204, 304} or answer.status < 200
        headers = dict(answer.headers)
        if not bodyless:
            headers["Content-Length"] = str(len(answer.body))
        out = self._h11.send(self._head(answer.status, headers)) or b""
        if answer.body and not bodyless:
            out += self._h11.send(h11.Data(data=answer.body)) or b""
        out += self._h11.send(h11.EndOfMessage()) or b""
        await self._stream.send(out)

    async def _respond_stream(self, answer: StreamResponse) -> None:
        if self._h11.they_are_waiting_for_100_continue:  # the body is read while the answer goes out
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))
        await self._send(self._head(answer.status, answer.headers))
        with ungrouped():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch, tasks.cancel_scope)
                async with _closing(answer.body):
                    async for chunk in answer.body:
                        if chunk:
                            await self._send(h11.Data(data=chunk))
                    await self._send(h11.EndOfMessage())
                tasks.cancel_scope.cancel()
        if self._h11.our_state is h11.SEND_BODY:
            raise ClientGone("the client left while an answer was streamed")

    async def _watch(self, answering: anyio.CancelScope) -> None:
        """Cancel the answer when the client leaves; what it sends ahead is kept.

        While a handler still reads the request's body, that reading notices a lost client.
        """
        await self._body_done.wait()
        while len(self._early) < PIPELINE:
            try:
                data = await self._stream.receive()
            except anyio.BrokenResourceError:
                data = b""
            if not data:
                answering.cancel()
                return
            self._early += data

    async def _hijack(self, answer: Hijack) -> None:
        await self._drain()
        state = self._h11
        if str(state.their_state) == "MIGHT_SWITCH_PROTOCOL":
            fields = [
                (b"Upgrade", b"tcp"),
                (b"Connection", b"Upgrade"),
                (b"Content-Type", answer.content_type.encode()),
            ]
            await self._send(
                h11.InformationalResponse(status_code=101, headers=[*fields, *self._headers], reason=b"UPGRADED")
            )
        else:
            head = [b"HTTP/1.1 200 OK", b"Content-Type: " + answer.content_type.encode(), b"", b""]
            await self._stream.send(b"\r\n".join(head))
        leftover = bytes(state.trailing_data[0]) + bytes(self._early)
        await answer.handler(HijackedStream(self._stream, leftover))

    async def _refuse(self, exc: h11.RemoteProtocolError) -> None:
        """The text that Go's server gives for what is not HTTP."""
        if self._h11.our_state not in {h11.IDLE, h11.SEND_RESPONSE, h11.ERROR}:
            return
        status = exc.error_status_hint if exc.error_status_hint in {400, 431, 501} else 400
        reason = _reason(status).decode()
        text = f"{status} {reason}"
        head = f"HTTP/1.1 {text}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n{text}"
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await self._stream.send(head.encode())


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0").strip() != "0"


def _request(event: h11.Request, body: AsyncIterator[bytes]) -> Request:
    path, _, query = event.target.decode("ascii", "replace").partition("?")
    fields = Headers((name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers)
    return Request(event.method.decode("ascii"), path, Query(query), fields, body)


@contextlib.asynccontextmanager
async def _closing(body: AsyncIterator[bytes]) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        close = getattr(body, "aclose", None)
        if close is not None:
            with anyio.CancelScope(shield=True):
                await close()
