"""The HTTP server on real sockets: what a client sends is what a handler gets, and the other way round."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

import anyio
import pytest

from silo.api.router import Router
from silo.api.server import ApiServer
from silo.errors import Conflict, NotModified
from silo.httpd.client import Client
from silo.httpd.listen import open_tcp, open_unix
from silo.httpd.messages import Hijack, Response, StreamResponse, json_response

pytestmark = pytest.mark.anyio


class Handlers:
    def __init__(self) -> None:
        self.cancelled = anyio.Event()
        self.go = anyio.Event()

    def router(self) -> Router:
        router = Router()
        for method, path, handler in (
            ("GET", "/_ping", self.ping),
            ("POST", "/echo", self.echo),
            ("POST", "/json", self.json),
            ("POST", "/ignore", self.ping),
            ("GET", "/slow", self.slow),
            ("POST", "/raw", self.raw),
            ("GET", "/conflict", self.conflict),
            ("GET", "/same", self.same),
            ("GET", "/bug", self.bug),
            ("GET", "/images/{name:.*}/json", self.name),
        ):
            router.add(method, path, handler, traced=False)
        return router

    async def ping(self, request):
        return Response(200, b"OK")

    async def echo(self, request):
        return StreamResponse(200, {"Content-Type": "x"}, request.stream())

    async def json(self, request):
        return json_response(await request.json(dict))

    async def name(self, request):
        return json_response(request.params)

    async def slow(self, request):
        async def body():
            try:
                await self.go.wait()
                yield b"done"
            finally:
                self.cancelled.set()

        return StreamResponse(200, {}, body())

    async def raw(self, request):
        async def handler(stream):
            total = b""
            while data := await stream.receive():
                total += data
            await stream.send(total)  # after the client's half-close

        return Hijack(handler, "application/vnd.docker.raw-stream")

    async def conflict(self, request):
        raise Conflict("no: it is taken")

    async def same(self, request):
        raise NotModified("already")

    async def bug(self, request):
        raise ZeroDivisionError("secret")


@contextlib.asynccontextmanager
async def served(path: Path):
    handlers = Handlers()
    server = ApiServer(handlers.router(), version="t")
    async with anyio.create_task_group() as tasks:
        await tasks.start(server.serve, [open_unix(path)])
        yield handlers
        tasks.cancel_scope.cancel()


@pytest.fixture
def path(tmp_path):
    deep = tmp_path / ("d" * 100)  # beyond what sun_path holds
    deep.mkdir()
    return deep / "s.sock"


def talk(path: Path, *parts: bytes, half_close: bool = False) -> bytes:
    """Send raw bytes; read until the server closes or is silent for as long as it takes to know."""
    fd = socket.socket(socket.AF_UNIX)
    fd.settimeout(20)
    with fd:
        import os

        directory = os.open(path.parent, os.O_PATH)
        fd.connect(f"/proc/self/fd/{directory}/{path.name}")
        os.close(directory)
        for part in parts:
            fd.sendall(part)
        if half_close:
            fd.shutdown(socket.SHUT_WR)
        out = b""
        while data := fd.recv(65536):
            out += data
        return out


async def raw(path: Path, *parts: bytes, half_close: bool = False) -> bytes:
    return await anyio.to_thread.run_sync(lambda: talk(path, *parts, half_close=half_close))


PING = b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /v1.41/_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def test_keep_alive_and_pipelining(path):
    async with served(path):
        out = await raw(path, PING + PING + LAST)
    assert out.count(b"HTTP/1.1 200 OK") == 3
    assert out.count(b"Api-Version: 1.50") == 3
    assert out.count(b"Docker-Experimental: false") == 3


async def test_bodies_both_ways_in_chunks(path):
    data = bytes(range(256)) * 4096

    async def chunks():
        for start in range(0, len(data), 5000):
            yield data[start : start + 5000]

    async with served(path), Client(f"unix://{path}").request("POST", "/echo", body=chunks()) as answer:
        assert await answer.read() == data


async def test_expect_continue(path):
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
    async with served(path):
        out = await raw(path, head, b"hi")
    assert out.startswith(b"HTTP/1.1 100")
    assert b"hi" in out


async def test_a_body_nobody_reads_does_not_spoil_the_connection(path):
    ignored = b"POST /ignore HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100000
    async with served(path):
        out = await raw(path, ignored + LAST)
    assert out.count(b"HTTP/1.1 200 OK") == 2


@pytest.mark.parametrize("upgrade", [True, False])
async def test_hijack_with_half_close_is_byte_exact(path, upgrade):
    data = bytes(range(256)) * (3 << 12)
    extra = b"Upgrade: tcp\r\nConnection: Upgrade\r\n" if upgrade else b""
    head = b"POST /raw HTTP/1.1\r\nHost: x\r\n" + extra + b"Content-Length: 0\r\n\r\n"
    async with served(path):
        out = await raw(path, head + data[:10], data[10:], half_close=True)
    top, _, body = out.partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 101 UPGRADED" if upgrade else b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd")
    assert body == data


async def test_the_client_upgrades(path):
    async with served(path):
        response, stream = await Client(f"unix://{path}").upgrade("POST", "/raw")
        assert response.status == 101
        await stream.send(b"abc")
        await stream.close_write()
        assert await stream.receive() == b"abc"
        assert await stream.receive() == b""
        await stream.aclose()


async def test_the_head_is_flushed_before_the_body_is_there(path):
    async with served(path) as handlers, Client(f"unix://{path}").request("GET", "/slow") as answer:
        assert answer.status == 200
        assert not handlers.cancelled.is_set()
        handlers.go.set()
        assert await answer.read() == b"done"


async def test_a_client_that_leaves_cancels_its_stream(path):
    async with served(path) as handlers:
        async with Client(f"unix://{path}").request("GET", "/slow"):
            pass
        with anyio.fail_after(5):
            await handlers.cancelled.wait()


@pytest.mark.parametrize(
    ("method", "target", "status", "message"),
    [
        ("GET", "/nothing", 404, "page not found"),
        ("GET", "/v1.99/_ping", 400, "client version 1.99 is too new. Maximum supported API version is 1.50"),
        ("GET", "/v1.10/_ping", 400, "client version 1.10 is too old. Minimum supported API version is 1.24, please"),
        ("GET", "/conflict", 409, "no: it is taken"),
        ("GET", "/bug", 500, "internal error (ZeroDivisionError)"),
    ],
)
async def test_errors_are_answers(path, method, target, status, message):
    async with served(path), Client(f"unix://{path}").request(method, target) as answer:
        assert answer.status == status
        body = (await answer.json())["message"]
    assert body.startswith(message)
    assert "secret" not in body


async def test_not_modified_has_no_body(path):
    async with served(path), Client(f"unix://{path}").request("GET", "/same") as answer:
        assert (answer.status, await answer.read()) == (304, b"")


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b'{"a": ', "application/json", "invalid JSON: unexpected EOF"),
        (b"", "application/json", "invalid JSON: got EOF while reading request body"),
        (b"{}", "text/plain", "unsupported Content-Type header (text/plain): must be 'application/json'"),
        (b"[]", "application/json", "invalid JSON: Expected `object`, got `array`"),
        (b"[" * 100000, "application/json", "invalid JSON: "),
    ],
)
async def test_json_that_is_none(path, body, kind, message):
    async with served(path):
        client = Client(f"unix://{path}")
        async with client.request("POST", "/json", body=body, headers={"Content-Type": kind}) as answer:
            assert answer.status == 400
            assert (await answer.json())["message"].startswith(message)


async def test_a_body_that_is_too_large(path):
    async def endless():
        while True:
            yield b"[" * 65536

    async with (
        served(path),
        Client(f"unix://{path}").request(
            "POST", "/json", body=endless(), headers={"Content-Type": "application/json"}
        ) as answer,
    ):
        assert answer.status == 413


async def test_a_name_with_slashes(path):
    async with served(path), Client(f"unix://{path}").request("GET", "/images/reg:5000/a/b:c/json") as answer:
        assert await answer.json() == {"name": "reg:5000/a/b:c"}


async def test_a_gigabyte_of_header_is_refused_early(path):
    sent = 0

    def flood() -> bytes:
        nonlocal sent
        with socket.socket(socket.AF_UNIX) as fd:
            fd.settimeout(20)
            with contextlib.ExitStack() as stack:
                import os

                directory = os.open(path.parent, os.O_PATH)
                stack.callback(os.close, directory)
                fd.connect(f"/proc/self/fd/{directory}/{path.name}")
            fd.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\nX: ")
            try:
                for _ in range(1 << 14):
                    fd.sendall(b"x" * 65536)
                    sent += 65536
            except (BrokenPipeError, ConnectionResetError):
                pass
            try:
                return fd.recv(4096)
            except ConnectionResetError:
                return b""

    async with served(path):
        out = await anyio.to_thread.run_sync(flood)
    assert sent < 32 << 20
    assert out == b"" or b"431" in out


@pytest.mark.parametrize(
    "junk", [b"\x16\x03\x01\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"]
)
async def test_what_is_not_http_gets_a_400(path, junk):
    async with served(path):
        assert (await raw(path, junk)).startswith(b"HTTP/1.1 400 Bad Request")


def test_tcp_is_for_the_loopback_only():
    open_tcp("127.0.0.1", 0).close()
    with pytest.raises(Exception, match="beyond the loopback"):
        open_tcp("0.0.0.0", 0)


async def test_no_thread_is_left(path):
    before = threading.active_count()
    async with served(path), Client(f"unix://{path}").request("GET", "/_ping") as answer:
        assert await answer.read() == b"OK"
    assert threading.active_count() <= before + 1
