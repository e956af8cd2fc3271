"""One client's connection, from its first byte to its last: requests in, answers out."""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from email.utils import formatdate
from functools import lru_cache
from typing import Final, Protocol

import anyio
import h11

from silo.errors import InvalidParameter, SiloError
from silo.httpd.hangup import ClientGone, Disconnect, Hangups, half_close_is_leaving
from silo.httpd.hijack import HijackedStream
from silo.httpd.messages import Answer, Headers, Hijack, Query, Request, Response, StreamResponse
from silo.httpd.sockets import Connection
from silo.resources import UNDO_SECONDS, ungrouped
from silo.wire.http1 import MAX_HEAD, Refused, reason, refusal, split_target

log = logging.getLogger(__name__)

HEAD_SECONDS: Final = 300.0
"""How long a request's head may take from its first byte, as dockerd's ReadHeaderTimeout."""
DRAIN: Final = 1 << 20
"""Bytes of a body nobody read that are taken from the wire to keep the connection; beyond that it is closed."""
LINGER: Final = 4 << 20
LINGER_SECONDS: Final = 0.5
"""How much, and how long, of what is still sent is thrown away before closing, lest the answer be lost with it."""
GONE_SECONDS: Final = 5.0
"""How long the handler of a hijacked connection may go on when its client has ended, and left."""

_CONTINUE: Final = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
_GONE: Final = (ClientGone, anyio.BrokenResourceError, anyio.ClosedResourceError)

Respond = Callable[[Answer], Awaitable[None]]


class App(Protocol):
    """What answers requests: call ``respond`` exactly once.  It raises ClientGone when nobody listens any more."""

    async def __call__(self, request: Request, respond: Respond, /) -> None:
        """Answer one request."""
        ...


class _Phase(enum.Enum):
    IDLE = enum.auto()
    HANDLING = enum.auto()
    ANSWERING = enum.auto()


class Session:
    """A connection's requests, one after the other; each is answered in a task of its own, with its own context."""

    def __init__(self, app: App, connection: Connection, headers: list[tuple[bytes, bytes]], hangups: Hangups) -> None:
        self._app = app
        self._stream = connection
        self._headers = headers
        self._hangups = hangups
        self._half = half_close_is_leaving(connection)
        self._gone = hangups.watch(connection, half=self._half)
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._scope = anyio.CancelScope()
        self._phase = _Phase.IDLE
        self._last = False
        self._head_sent = False
        self._method = ""

    def retire(self) -> None:
        """Take no further request."""
        self._last = True
        if self._phase is _Phase.IDLE:
            self._scope.cancel()

    def cut(self) -> None:
        """End, unless a request is being handled whose client has heard nothing yet."""
        if self._phase is not _Phase.HANDLING:
            self._scope.cancel()

    async def run(self) -> None:
        """Serve until the client leaves or the connection can serve no more; closing it is the caller's."""
        with self._scope, suppress(*_GONE):
            try:
                while await self._next():
                    pass
            except h11.RemoteProtocolError as exc:
                await self._refuse(exc.error_status_hint, _cause(exc))
            except Refused as exc:
                await self._refuse(exc.status, exc.cause)
            if self._h11.their_state is not h11.CLOSED:
                await self._linger()

    async def _next(self) -> bool:
        """One request and its answer; whether the connection can be used again.  Raises Refused."""
        event = await self._next_request()
        if event is None:
            return False
        request = self._request(event)
        self._phase = _Phase.HANDLING
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._exchange, request)
        if self._last or self._h11.our_state is not h11.DONE or not await self._drain():
            return False
        self._phase = _Phase.IDLE
        self._head_sent = False
        self._h11.start_next_cycle()
        return True

    async def _next_request(self) -> h11.Request | None:
        with anyio.CancelScope() as scope:
            while (event := self._h11.next_event()) is h11.NEED_DATA:
                self._h11.receive_data(await self._stream.receive())
                scope.deadline = min(scope.deadline, anyio.current_time() + HEAD_SECONDS)
            return event if isinstance(event, h11.Request) else None
        return None

    def _request(self, event: h11.Request) -> Request:
        """The request as handlers see it.  Raises Refused."""
        path, query = split_target(event.target)
        fields = Headers((name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers)
        if not event.http_version.startswith(b"1."):
            raise Refused(505, "unsupported protocol version")
        if fields.get("expect", "100-continue").lower() != "100-continue":
            raise Refused(417)
        if "transfer-encoding" not in fields and not fields.get("content-length").strip("0"):
            self._h11.next_event()  # the end of a message without body, so that the state says so
        self._method = event.method.decode("ascii")
        return Request(self._method, path, Query(query), fields, _Body(self.read_body), disconnected=self._gone)

    async def _exchange(self, request: Request) -> None:
        """Have the request answered; what goes wrong ends this connection and nothing else."""
        try:
            await self._app(request, self._respond)
        except _GONE:
            return
        except Refused as exc:
            await self._refuse(exc.status, exc.cause)
        except SiloError as exc:
            log.warning("%s %s: the answer is cut short: %s", request.method, request.path, exc)
        except Exception:  # a bug of one handler must not end the engine
            log.exception("%s %s", request.method, request.path)
        if not self._head_sent:
            with suppress(*_GONE):
                await self._refuse(500)

    async def read_body(self) -> bytes | None:
        """The next bytes of the request's body; None at its end.  Raises InvalidParameter when it is broken off."""
        while self._h11.their_state is h11.SEND_BODY:
            try:
                event = self._h11.next_event()
                if event is h11.NEED_DATA:
                    self._h11.receive_data(await self._receive_body())
            except h11.RemoteProtocolError as exc:
                raise InvalidParameter(_cause(exc)) from exc
            if isinstance(event, h11.Data):
                return bytes(event.data)
        if self._h11.their_state is h11.ERROR:
            raise InvalidParameter("unexpected EOF")
        return None

    async def _receive_body(self) -> bytes:
        data = b""
        with suppress(anyio.BrokenResourceError):
            if self._h11.they_are_waiting_for_100_continue:
                await self._write(_CONTINUE)
            data = await self._stream.receive()
        if not data:
            with suppress(h11.RemoteProtocolError):  # h11 is told as well: what it has is not the whole
                self._h11.receive_data(b"")
                self._h11.next_event()
            raise InvalidParameter("unexpected EOF")
        return data

    async def _drain(self) -> bool:
        """Read what is left of the body; whether its end was reached."""
        left = DRAIN
        with suppress(InvalidParameter):
            while left > 0 and (chunk := await self.read_body()) is not None:
                left -= len(chunk)
        return self._h11.their_state not in {h11.SEND_BODY, h11.ERROR}

    async def _linger(self) -> None:
        """Throw away what is still being sent: closing before would reset the connection, and the answer with it."""
        self._stream.close_write()
        left = LINGER
        with anyio.move_on_after(LINGER_SECONDS):
            while left > 0 and (data := await self._stream.receive()):
                left -= len(data)

    async def _write(self, *events: h11.Event) -> None:
        """Send events in one piece."""
        data = b"".join(self._h11.send(event) or b"" for event in events)
        self._head_sent = self._head_sent or self._h11.our_state is not h11.SEND_RESPONSE
        if data:
            await self._stream.send(data)

    def _head(self, status: int, headers: Mapping[str, str], *, close: bool = False) -> h11.Response:
        fields = [*self._headers, (b"Date", _date(int(time.time())))]
        fields += [(name.encode(), value.encode()) for name, value in headers.items()]
        if close or self._last:
            fields.append((b"Connection", b"close"))
        return h11.Response(status_code=status, headers=fields, reason=reason(status).encode())

    async def _respond(self, answer: Answer) -> None:
        if self._head_sent:
            raise RuntimeError("a request was answered twice")
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
        bodyless = answer.status in {204, 304}
        headers = answer.headers if bodyless else {**answer.headers, "Content-Length": str(len(answer.body))}
        # A client that waits for 100 Continue may now send its body or not: what follows cannot be told apart.
        head = self._head(answer.status, headers, close=self._h11.they_are_waiting_for_100_continue)
        body = [h11.Data(data=answer.body)] if answer.body and not bodyless and self._method != "HEAD" else []
        await self._write(head, *body, h11.EndOfMessage())

    async def _respond_stream(self, answer: StreamResponse) -> None:
        async with _closing(answer.body):
            if self._h11.they_are_waiting_for_100_continue:  # the body is read while the answer goes out
                await self._write(_CONTINUE)
            await self._write(self._head(answer.status, answer.headers))
            self._phase = _Phase.ANSWERING
            if self._method != "HEAD":
                with self._gone.cancels():
                    async for chunk in answer.body:
                        if chunk:
                            await self._write(h11.Data(data=chunk))
            await self._write(h11.EndOfMessage())

    async def _hijack(self, answer: Hijack) -> None:
        if not await self._drain():
            raise Refused(413)
        kind = answer.content_type.encode()
        if str(self._h11.their_state) == "MIGHT_SWITCH_PROTOCOL":
            fields = [(b"Upgrade", b"tcp"), (b"Connection", b"Upgrade"), (b"Content-Type", kind), *self._headers]
            await self._write(h11.InformationalResponse(status_code=101, headers=fields, reason=b"UPGRADED"))
        else:
            self._head_sent = True
            await self._stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: " + kind + b"\r\n\r\n")
        self._phase = _Phase.ANSWERING
        gone = self._hangups.watch(self._stream, half=False) if self._half else self._gone
        stream = HijackedStream(self._stream, bytes(self._h11.trailing_data[0]))
        with ungrouped():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_end_without_client, stream, gone, tasks.cancel_scope)
                await answer.handler(stream)
                tasks.cancel_scope.cancel()

    async def _refuse(self, status: int, cause: str = "") -> None:
        """End with an answer in plain text, unless another one has begun."""
        if not self._head_sent:
            self._head_sent = True
            await self._stream.send(refusal(status, cause))


class _Body:
    """A request's body: each step of the iteration drives the connection.  It may be left and taken up again."""

    def __init__(self, read: Callable[[], Awaitable[bytes | None]]) -> None:
        self._read = read

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._read()
        if chunk is None:
            raise StopAsyncIteration
        return chunk


async def _end_without_client(stream: HijackedStream, gone: Disconnect, handling: anyio.CancelScope) -> None:
    """Cancel a handler that goes on although its client ended, and left: it may have nothing to send for days."""
    await stream.ended.wait()
    await gone.wait()
    await anyio.sleep(GONE_SECONDS)
    handling.cancel()


def _cause(exc: h11.RemoteProtocolError) -> str:
    """What h11 found wrong, without the bytes it found it in."""
    return str(exc).partition(": bytearray(")[0]


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


@asynccontextmanager
async def _closing(body: AsyncIterator[bytes]) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        close = getattr(body, "aclose", None)
        if close is not None:
            with anyio.move_on_after(UNDO_SECONDS, shield=True):
                await close()
