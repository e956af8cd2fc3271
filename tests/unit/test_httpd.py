"""The HTTP server on real sockets: what a client sends is what a handler gets, and the other way round."""

from __future__ import annotations

import shutil
import subprocess
import threading
import tracemalloc

import anyio
import pytest

from silo.api.router import Router
from silo.api.server import ApiServer
from silo.errors import Conflict, InvalidParameter, Unavailable
from silo.httpd.client import Client
from silo.httpd.listen import open_host, open_tcp, open_unix
from silo.httpd.messages import Response, json_response
from tests.httprig import LAST, PING, connected, in_thread, raw, read_all, served

pytestmark = pytest.mark.anyio
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def path(tmp_path):
    deep = tmp_path / ("d" * 100)  # beyond what sun_path holds
    deep.mkdir()
    return deep / "s.sock"


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


EXPECT = b"Host: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"


async def test_the_body_is_asked_for_when_it_is_read(path):
    def talk():
        with connected(path) as sock:
            sock.sendall(b"POST /echo HTTP/1.1\r\n" + EXPECT)
            assert sock.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
            sock.sendall(b"hi" + LAST)
            return read_all(sock)

    async with served(path):
        out = await in_thread(talk)
    assert b"\r\n\r\n2\r\nhi\r\n0\r\n\r\nHTTP/1.1 200 OK" in out  # the connection went on


async def test_a_body_nobody_wants_is_not_asked_for(path):
    async with served(path):
        out = await raw(path, b"POST /ignore HTTP/1.1\r\n" + EXPECT)
    assert out.startswith(b"HTTP/1.1 200 OK")
    assert b"Connection: close" in out  # whether the body comes now cannot be known


async def test_other_expectations_fail(path):
    async with served(path):
        assert (await raw(path, PING[:-2] + b"Expect: miracles\r\n\r\n")).startswith(b"HTTP/1.1 417")


@pytest.mark.parametrize(
    ("target", "head"),
    [("/_ping", b"Content-Length: 2\r\n\r\n"), ("/nothing", b"Content-Length: 29\r\n\r\n"), ("/slow", b"\r\n\r\n")],
)
async def test_head_has_the_head_only(path, target, head):
    line = f"HEAD {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    async with served(path):
        out = await raw(path, line + line + LAST)
    assert out.count(head + b"HTTP/1.1") == 2
    assert out.endswith(b"\r\n\r\nOK")


async def test_every_answer_says_who_when_and_what(path):
    async with served(path):
        out = await raw(path, LAST)
    for field in (b"Api-Version: 1.50", b"Docker-Experimental: false", b"Ostype: linux", b"Server: Silo/t (linux)"):
        assert field + b"\r\n" in out
    assert b"\r\nDate: " in out


async def test_a_body_nobody_reads_does_not_spoil_the_connection(path):
    ignored = b"POST /ignore HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100000
    async with served(path):
        out = await raw(path, ignored + LAST)
    assert out.count(b"HTTP/1.1 200 OK") == 2


async def test_a_body_read_in_part_does_not_spoil_the_connection(path):
    chunked = b"POST /first HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"
    async with served(path):
        out = await raw(path, chunked + LAST)
    assert out.count(b"HTTP/1.1 200 OK") == 2
    assert b"\r\n\r\naHTTP" in out


async def test_a_long_body_nobody_reads_ends_the_connection_but_not_the_answer(path):
    def talk():
        with connected(path) as sock:
            sock.sendall(b"POST /ignore HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n")
            sent = 0
            try:
                while sent < 1 << 30:
                    sent += sock.send(b"x" * 65536)
            except (BrokenPipeError, ConnectionResetError):
                pass
            assert sent < 32 << 20
            return sock.recv(65536)

    async with served(path):
        assert (await in_thread(talk)).startswith(b"HTTP/1.1 200 OK")


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
        ("POST", "/_ping", 404, "page not found"),
        ("DELETE", "/images/a/json", 404, "page not found"),
        ("GET", "/v1.99/nothing", 404, "page not found"),
        ("GET", "/v1.41", 404, "page not found"),
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
        (b" ", "application/json; charset=utf-8", "invalid JSON: got EOF while reading request body"),
        (b"x", "Application/JSON", "invalid JSON: invalid character 'x' looking for beginning of value"),
        (b"{} {}", "application/json", "unexpected content after JSON"),
        (b"{}", "text/plain", "unsupported Content-Type header (text/plain): must be 'application/json'"),
        (b"{}", "a b", "malformed Content-Type header (a b): mime: expected slash after first token"),
        (b"{}", None, "malformed Content-Type header (): mime: no media type"),
        (b"[]", "application/json", "invalid JSON: Expected `object`, got `array`"),
        (b"[" * 100000, "application/json", "invalid JSON: "),
        (b"[" + b"1," * 40000, "application/json", "invalid JSON: "),
    ],
)
async def test_json_that_is_none(path, body, kind, message):
    headers = {} if kind is None else {"Content-Type": kind}
    async with served(path), Client(f"unix://{path}").request("POST", "/json", body=body, headers=headers) as answer:
        assert answer.status == 400
        assert (await answer.json())["message"].startswith(message)


@pytest.mark.parametrize("body", [b"", b" null\n"])
async def test_no_json_can_mean_something(path, body):
    async with served(path), Client(f"unix://{path}").request("POST", "/lenient", body=body, headers=JSON) as answer:
        assert await answer.json() == {"default": True}


async def test_no_type_is_well_without_a_body(path):
    async with served(path), Client(f"unix://{path}").request("POST", "/lenient") as answer:
        assert await answer.json() == {"default": True}


async def test_what_is_no_utf8_is_replaced(path):
    async with (
        served(path),
        Client(f"unix://{path}").request("POST", "/json", body=b'{"a":"\xff"}', headers=JSON) as answer,
    ):
        assert await answer.json() == {"a": "\ufffd"}


@pytest.mark.parametrize(
    ("framing", "message"),
    [
        (b"Content-Length: 10\r\n\r\n{", b"unexpected EOF"),
        (b"Transfer-Encoding: chunked\r\n\r\n5\r\n{", b"unexpected EOF"),
        (b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"illegal chunk header"),
    ],
)
async def test_a_body_that_breaks_off(path, framing, message):
    head = b"POST /json HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    async with served(path):
        out = await raw(path, head + framing, half_close=True)
    assert out.startswith(b"HTTP/1.1 400 Bad Request")
    assert b'{"message":"' + message + b'"}\n' in out


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


@pytest.mark.parametrize(
    "start", [b"GET /_ping HTTP/1.1\r\nHost: x\r\nX: ", b"GET /", b"GET /_ping HTTP/1.1\r\nX: y\r\n"]
)
async def test_a_gigabyte_of_header_is_refused_early_and_not_kept(path, start):
    def flood():
        with connected(path) as sock:
            sent = len(start)
            sock.sendall(start)
            block = b"x" * 65536 if not start.endswith(b"\n") else b"x: y\r\n" * 10000
            try:
                for _ in range(1 << 14):
                    sock.sendall(block)
                    sent += len(block)
            except (BrokenPipeError, ConnectionResetError):
                pass
            assert sent < 32 << 20
            return sock.recv(4096)

    async with served(path):
        tracemalloc.start()
        out = await in_thread(flood)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (await raw(path, LAST)).startswith(b"HTTP/1.1 200 OK")
    assert out.startswith(b"HTTP/1.1 431 Request Header Fields Too Large")
    assert peak < 16 << 20


@pytest.mark.parametrize(
    ("junk", "status"),
    [
        (b"\x16\x03\x01\r\n\r\n", b"400 Bad Request"),
        (b"GET\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400 Bad Request"),
        (b"GET /a%zz HTTP/1.1\r\nHost: x\r\n\r\n", b"400 Bad Request"),
        (b"GET a HTTP/1.1\r\nHost: x\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\na b: c\r\n\r\n", b"400 Bad Request"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", b"501 Not Implemented"),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", b"505 HTTP Version Not Supported"),
    ],
)
@pytest.mark.parametrize("before", [b"", PING])
async def test_what_is_not_http_is_refused_as_go_does(path, before, junk, status):
    async with served(path):
        out = await raw(path, before + junk)
    answer = (
        b"HTTP/1.1 " + status + b"\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n" + status
    )
    assert answer in out
    assert out.count(b"HTTP/1.1") == 1 + bool(before)
    assert b"bytearray" not in out


@pytest.mark.parametrize(
    ("line", "start"),
    [
        (b"OPTIONS /x", b"HTTP/1.1 200 OK"),
        (b"OPTIONS *", b"HTTP/1.1 200 OK"),
        (b"GET http://silo/_ping", b"HTTP/1.1 200 OK"),
        (b"GET //_ping?a=b", b"HTTP/1.1 301 Moved Permanently"),
    ],
)
async def test_targets(path, line, start):
    async with served(path):
        out = await raw(path, line + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert out.startswith(start)
    assert (b"\r\nLocation: /_ping?a=b\r\n" in out) == (b"301" in start)


@pytest.mark.parametrize("query", ["a=%zz", "a;b"])
async def test_a_query_that_cannot_be_parsed(path, query):
    async with served(path):
        out = await raw(path, f"GET /query?{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert out.startswith(b"HTTP/1.1 400 Bad Request")


async def test_names_arrive_as_they_were_sent(path):
    query = {"n": "a b&c=d/é%", "many": ["1", "2"], "flag": True, "not": None}
    async with served(path), Client(f"unix://{path}").request("GET", "/query", query=query) as answer:
        assert await answer.json() == [["n", "a b&c=d/é%"], ["many", "1"], ["many", "2"], ["flag", "1"]]


async def test_each_request_has_a_context_of_its_own(path):
    ask = b"GET /context HTTP/1.1\r\nHost: x\r\n\r\n"
    async with served(path):
        out = await raw(path, ask + ask + LAST)
    assert out.count(b"nothing") == 2


def test_tcp_is_for_the_loopback_only():
    open_tcp("127.0.0.1", 0).close()
    for host in ("0.0.0.0", "192.0.2.1", "::"):
        with pytest.raises(Exception, match="beyond the loopback"):
            open_tcp(host, 0)


def test_a_socket_somebody_listens_on_is_left_alone(path):
    with open_unix(path), pytest.raises(Conflict, match="another process listens there"):
        open_unix(path)
    open_unix(path).close()  # nobody listens any more: it is replaced
    assert path.stat().st_mode & 0o777 == 0o660
    with pytest.raises(InvalidParameter):
        open_host("ftp://x")


async def test_tcp(path):
    listener = open_tcp("127.0.0.1", 0)
    router = Router()

    async def echo(request):
        return json_response((await request.body()).decode())

    router.add("POST", "/echo", echo, traced=False)
    async with anyio.create_task_group() as tasks:
        await tasks.start(ApiServer(router, version="t").serve, [listener])
        client = Client(f"http://127.0.0.1:{listener.getsockname()[1]}")
        async with client.request("POST", "/echo", body=b"hi") as answer:
            assert await answer.json() == "hi"
        tasks.cancel_scope.cancel()
    with pytest.raises(Unavailable, match=f"cannot connect to the engine at {client.base}: Connection refused"):
        async with client.request("GET", "/"):
            pass


async def test_no_engine(path):
    with pytest.raises(Unavailable, match=f"unix://{path}: No such file or directory. Is silod running"):
        async with Client(f"unix://{path}").request("GET", "/_ping"):
            pass


async def test_the_client_hears_what_the_engine_refuses(path):
    async with served(path):
        response, stream = await Client(f"unix://{path}").upgrade("POST", "/nothing")
        assert (response.status, stream) == (404, None)
        assert (await response.json())["message"] == "page not found"


@pytest.mark.skipif(not shutil.which("docker"), reason="the docker command is not installed")
async def test_the_docker_command_talks_to_it(tmp_path):
    router = Router()

    async def ping(request):
        return Response(200, b"OK", {"Content-Type": "text/plain"})

    async def version(request):
        return json_response({"Version": "1", "ApiVersion": "1.50", "MinAPIVersion": "1.24", "Os": "linux"})

    router.add("HEAD", "/_ping", ping, traced=False)
    router.add("GET", "/version", version, traced=False)
    command = [
        "docker",
        "-H",
        f"unix://{tmp_path}/s",
        "version",
        "--format",
        "{{.Client.APIVersion}} {{.Server.APIVersion}}",
    ]
    async with anyio.create_task_group() as tasks:
        await tasks.start(ApiServer(router, version="t").serve, [open_unix(tmp_path / "s")])
        done = await anyio.to_thread.run_sync(
            lambda: subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        )
        tasks.cancel_scope.cancel()
    assert done.stdout.split()[-1] == "1.50", done.stderr


async def test_no_thread_is_left(path):
    before = threading.active_count()
    async with served(path), Client(f"unix://{path}").request("GET", "/_ping") as answer:
        assert await answer.read() == b"OK"
    assert threading.active_count() <= before + 1


async def test_a_server_that_is_stopped_as_it_starts_ends(path):
    with anyio.fail_after(10, shield=True), anyio.CancelScope() as scope:
        scope.cancel()
        await ApiServer(Router(), version="t").serve([open_unix(path)])
    assert scope.cancelled_caught
