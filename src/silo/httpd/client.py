"""An HTTP client on the same h11 code, for unix sockets and loopback TCP: one connection a request."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import anyio
import h11
import msgspec

from silo.errors import Corrupt, InvalidParameter, Unavailable
from silo.httpd.hijack import HijackedStream
from silo.httpd.listen import connect_unix
from silo.httpd.messages import Headers
from silo.httpd.sockets import Connection, connect_tcp
from silo.resources import ungrouped


class ClientResponse:
    """An answer: status and headers are there, the body is read on demand while the request's block is open."""

    def __init__(self, status: int, headers: Headers, chunks: AsyncIterator[bytes]) -> None:
        self.status = status
        self.headers = headers
        self._chunks = chunks

    def stream(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        return self._chunks

    async def read(self) -> bytes:
        """The whole body."""
        return b"".join([chunk async for chunk in self._chunks])

    async def json(self) -> Any:
        """The whole body as JSON; None when it is empty.  Raises Corrupt."""
        data = await self.read()
        try:
            return msgspec.json.decode(data) if data.strip() else None
        except msgspec.MsgspecError as exc:
            raise Corrupt(f"the answer is not JSON: {exc}") from exc


class Client:
    """Requests to ``unix:///path`` or ``tcp://host:port``.  Deadlines are the caller's (``anyio.fail_after``)."""

    def __init__(self, base: str) -> None:
        url = urlsplit(base)
        if url.scheme not in {"unix", "tcp", "http"} or not (url.path if url.scheme == "unix" else url.hostname):
            raise InvalidParameter(f"unable to parse docker host `{base}`")
        self.base = base
        self._url = url

    async def _connect(self) -> Connection:
        try:
            if self._url.scheme == "unix":
                return connect_unix(Path(self._url.path))
            return await connect_tcp(self._url.hostname or "", self._url.port or 2375)
        except OSError as exc:
            cause = exc.strerror or str(exc)
            raise Unavailable(f"cannot connect to the engine at {self.base}: {cause}. Is silod running?") from exc

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        json: Any = None,
        body: bytes | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[ClientResponse]:
        """Send a request; the block has its answer.  Raises Unavailable when there is no engine or it hangs up."""
        fields = {"Host": "docker", **(headers or {})}
        if json is not None:
            body = msgspec.json.encode(json)
            fields["Content-Type"] = "application/json"
        if isinstance(body, bytes):
            fields["Content-Length"] = str(len(body))
        elif body is not None:
            fields["Transfer-Encoding"] = "chunked"
        elif method in {"POST", "PUT"}:
            fields["Content-Length"] = "0"
        async with await self._connect() as stream:
            exchange = _Exchange(stream, self.base)
            await exchange.send(h11.Request(method=method, target=target(path, query), headers=list(fields.items())))
            with ungrouped():
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(exchange.send_body, body)
                    yield await exchange.answer()
                    tasks.cancel_scope.cancel()

    async def upgrade(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, json: Any = None
    ) -> tuple[ClientResponse, HijackedStream | None]:
        """Ask for the raw connection.  None instead of it when the engine refused: the answer is read then."""
        body = b"" if json is None else msgspec.json.encode(json)
        fields = {
            "Host": "docker",
            "Upgrade": "tcp",
            "Connection": "Upgrade",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
        }
        stream = await self._connect()
        try:
            exchange = _Exchange(stream, self.base)
            await exchange.send(h11.Request(method=method, target=target(path, query), headers=list(fields.items())))
            await exchange.send_body(body)
            response = await exchange.answer()
            if response.status == 101:
                return response, HijackedStream(stream, exchange.leftover())
            data = await response.read()
            stream.close()
            return ClientResponse(response.status, response.headers, _once(data)), None
        except BaseException:
            stream.close()
            raise


class _Exchange:
    def __init__(self, stream: Connection, base: str) -> None:
        self._stream = stream
        self._base = base
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)

    async def send(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data:
            try:
                await self._stream.send(data)
            except anyio.BrokenResourceError as exc:
                raise Unavailable(f"{self._base} closed the connection") from exc

    async def send_body(self, body: bytes | AsyncIterator[bytes] | None) -> None:
        """An engine that has seen enough may answer and close before it has everything: then its answer counts."""
        try:
            if isinstance(body, bytes):
                if body:
                    await self.send(h11.Data(data=body))
            elif body is not None:
                async for chunk in body:
                    await self.send(h11.Data(data=chunk))
            await self.send(h11.EndOfMessage())
        except Unavailable:
            return

    async def answer(self) -> ClientResponse:
        while True:
            event = await self._next()
            if isinstance(event, h11.InformationalResponse) and event.status_code != 101:
                continue
            if isinstance(event, h11.Response | h11.InformationalResponse):
                fields = Headers((name.decode(), value.decode("latin-1")) for name, value in event.headers)
                return ClientResponse(event.status_code, fields, self._chunks())

    async def _next(self) -> Any:
        try:
            while (event := self._h11.next_event()) is h11.NEED_DATA:
                self._h11.receive_data(await self._stream.receive())
        except (h11.RemoteProtocolError, anyio.BrokenResourceError) as exc:
            raise Unavailable(f"{self._base} closed the connection: {exc}") from exc
        if isinstance(event, h11.ConnectionClosed):
            raise Unavailable(f"{self._base} closed the connection without an answer")
        return event

    async def _chunks(self) -> AsyncGenerator[bytes]:
        while True:
            event = await self._next()
            if isinstance(event, h11.EndOfMessage):
                return
            if isinstance(event, h11.Data):
                yield bytes(event.data)

    def leftover(self) -> bytes:
        return bytes(self._h11.trailing_data[0])


async def _once(data: bytes) -> AsyncGenerator[bytes]:
    if data:
        yield data


def target(path: str, query: Mapping[str, Any] | None) -> str:
    """Path and query, percent-encoded; members that are None are left out, booleans are 1 and 0."""
    pairs = [(key, int(value) if isinstance(value, bool) else value) for key, value in (query or {}).items()]
    text = urlencode([pair for pair in pairs if pair[1] is not None], doseq=True)
    return quote(path, safe="/:@") + (f"?{text}" if text else "")
