"""How connections end: clients that leave, handlers that fail, a server that is told to stop."""

from __future__ import annotations

import logging
import socket
from contextlib import contextmanager

import anyio
import pytest

from silo import telemetry
from silo.api.router import Router
from silo.api.server import ApiServer
from silo.errors import Unavailable
from silo.httpd import exchange, server
from silo.httpd.client import Client
from silo.httpd.hangup import Disconnect
from silo.httpd.listen import open_tcp, open_unix
from silo.httpd.messages import Response, StreamResponse
from tests.httprig import LAST, PING, connected, descriptors, in_thread, raw, read_all, served

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s.sock"


def ask(line: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join([line + b" HTTP/1.1", b"Host: x", *fields, b"", b""])


@contextmanager
def within(seconds: float = 10):
    with anyio.fail_after(seconds):
        yield


async def test_a_client_that_leaves_cancels_its_stream(path):
    async with served(path) as handlers:
        async with Client(f"unix://{path}").request("GET", "/slow"):
            pass
        with within():
            await handlers.cancelled.wait()


async def test_a_client_that_leaves_cancels_a_handler_that_only_reads(path):
    async with served(path) as handlers:
        with connected(path) as sock, within():
            sock.sendall(ask(b"GET /think"))
            await handlers.began.wait()
        with within():
            await handlers.cancelled.wait()


async def test_a_client_that_leaves_is_noticed_behind_what_it_sent_ahead(path):
    async with served(path) as handlers:
        with connected(path) as sock, within():
            sock.sendall(ask(b"GET /think") + PING * 1000)
            await handlers.began.wait()
        with within():
            await handlers.cancelled.wait()


async def test_a_verb_that_changes_something_finishes_without_its_client(path):
    async with served(path) as handlers:
        with connected(path) as sock, within():
            sock.sendall(ask(b"POST /think", b"Content-Length: 0"))
            await handlers.began.wait()
        assert (await raw(path, LAST)).endswith(b"OK")  # time for the news to arrive
        assert not handlers.cancelled.is_set()
        handlers.go.set()
        with within():
            await handlers.finished.wait()


async def test_a_handler_can_ask_whether_its_client_is_there(path):
    async with served(path) as handlers:
        with connected(path) as sock, within():
            sock.sendall(ask(b"POST /ask", b"Content-Length: 0"))
            await handlers.began.wait()
            assert not handlers.finished.is_set()
        with within():
            await handlers.finished.wait()


async def test_a_client_that_only_stops_sending_gets_its_answer(path):
    """Unix sockets tell a half-close from leaving: ``printf ... | nc -U`` is answered."""

    def talk():
        with connected(path) as sock:
            sock.sendall(ask(b"GET /think"))
            sock.shutdown(socket.SHUT_WR)
            return read_all(sock)

    async with served(path) as handlers, anyio.create_task_group() as tasks:

        async def answer() -> None:
            await handlers.began.wait()
            handlers.go.set()

        tasks.start_soon(answer)
        assert (await in_thread(talk)).endswith(b"thought")


async def test_leaving_over_tcp_is_noticed(path):
    left = anyio.Event()
    router = Router()

    async def wait(request):
        async def body():
            try:
                await anyio.sleep_forever()
                yield b""
            finally:
                left.set()

        return StreamResponse(200, {}, body())

    router.add("GET", "/wait", wait, traced=False)
    listener = open_tcp("127.0.0.1", 0)
    async with anyio.create_task_group() as tasks:
        await tasks.start(ApiServer(router, version="t").serve, [listener])
        async with Client(f"tcp://127.0.0.1:{listener.getsockname()[1]}").request("GET", "/wait") as answer:
            assert answer.status == 200
        with within():
            await left.wait()
        tasks.cancel_scope.cancel()


async def test_a_hijacked_connection_outlives_its_clients_half_close(path):
    def talk():
        with connected(path) as sock:
            sock.sendall(ask(b"POST /mute", b"Upgrade: tcp", b"Connection: Upgrade"))
            sock.shutdown(socket.SHUT_WR)
            return read_all(sock)

    async with served(path) as handlers, anyio.create_task_group() as tasks:

        async def later() -> None:
            await handlers.began.wait()
            handlers.go.set()

        tasks.start_soon(later)
        assert (await in_thread(talk)).endswith(b"\r\n\r\nat last")


async def test_a_hijacked_connection_ends_after_its_client_left(path, monkeypatch):
    monkeypatch.setattr(exchange, "GONE_SECONDS", 0.01)
    async with served(path) as handlers:
        with connected(path) as sock, within():
            sock.sendall(ask(b"POST /mute", b"Upgrade: tcp", b"Connection: Upgrade"))
            await handlers.began.wait()
            assert not handlers.cancelled.is_set()
        with within():
            await handlers.cancelled.wait()


@pytest.mark.parametrize("target", [b"GET /late/bug", b"GET /late/error", b"POST /hijackbug"])
async def test_what_fails_after_the_head_cuts_the_answer_and_nothing_else(path, target, caplog):
    async with served(path):
        out = await raw(path, ask(target))
        assert (await raw(path, LAST)).endswith(b"OK")
    assert b"so far" in out
    assert not out.endswith(b"0\r\n\r\n")
    assert b"secret" not in out
    assert [record.levelno for record in caplog.records] == [logging.WARNING if b"error" in target else logging.ERROR]


async def test_the_client_notices_a_cut_answer(path, caplog):
    async with served(path), Client(f"unix://{path}").request("GET", "/late/bug") as answer:
        with pytest.raises(Unavailable, match="closed the connection"):
            await answer.read()


async def test_a_header_cannot_be_split(path, caplog):
    async with served(path):
        out = await raw(path, ask(b"GET /crlf"))
        assert (await raw(path, LAST)).endswith(b"OK")
    assert out.startswith(b"HTTP/1.1 500 Internal Server Error")
    assert b"Injected" not in out


async def test_a_bug_is_logged_with_its_stack(path, caplog):
    async with served(path):
        assert b"secret" not in await raw(path, ask(b"GET /bug", b"Connection: close"))
    assert any(record.exc_info and "secret" in str(record.exc_info[1]) for record in caplog.records)


async def test_stopping_lets_a_request_finish_and_closes_what_is_idle(path):
    out: list[bytes] = []

    def talk():
        with connected(path) as sock:
            sock.sendall(ask(b"POST /think", b"Content-Length: 0") + PING)
            return read_all(sock)

    async def keep() -> None:
        out.append(await in_thread(talk))

    async with served(path) as handlers, anyio.create_task_group() as tasks:
        with connected(path) as idle, within():
            idle.sendall(PING)
            assert (await in_thread(lambda: idle.recv(4096))).endswith(b"OK")
            tasks.start_soon(keep)
            await handlers.began.wait()
            handlers.stop()
            assert await in_thread(lambda: read_all(idle)) == b""
            with pytest.raises(ConnectionRefusedError), connected(path):
                pass
            assert not handlers.stopped.is_set()
            handlers.go.set()
            await handlers.stopped.wait()
    assert out[0].endswith(b"thought")
    assert b"Connection: close" in out[0]
    assert out[0].count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("line", [b"GET /slow", b"POST /mute", b"POST /think"])
async def test_stopping_cuts_what_does_not_end(path, line, monkeypatch):
    monkeypatch.setattr(server, "STREAM_GRACE", 0.01)
    monkeypatch.setattr(server, "GRACE", 0.1 if b"think" in line else 60)
    async with served(path) as handlers:
        with connected(path) as sock, within():
            sock.sendall(ask(line, b"Content-Length: 0"))
            await handlers.began.wait()
            handlers.stop()
            await handlers.cancelled.wait()
            await handlers.stopped.wait()
            assert not (await in_thread(lambda: read_all(sock))).endswith(b"0\r\n\r\n")


async def test_nothing_is_left_of_connections(path):
    async with served(path) as handlers:
        handlers.go.set()
        await raw(path, LAST)
        before = descriptors()
        for line in (b"GET /think", b"GET /bug", b"GET /slow", b"HEAD /think", b"POST /raw", b"GET /late/error"):
            for _ in range(5):
                await raw(path, ask(line, b"Connection: close"), half_close=True)
                with connected(path) as sock:
                    sock.sendall(ask(line))
        await raw(path, LAST)
        with within():
            while descriptors() > before:
                await raw(path, LAST)


async def test_the_span_of_a_recorded_route(path):
    class Sink:
        def __init__(self):
            self.traces = []
            self.ended = anyio.Event()

        def begin(self, trace):
            pass

        def end(self, trace):
            self.traces.append(trace)
            self.ended.set()

    async def start(request):
        return Response(204)

    async def fail(request):
        raise Unavailable("the host is away")

    router, sink = Router(), Sink()
    router.add("POST", "/containers/{name}/start", start)
    router.add("POST", "/fail", fail)
    router.add("GET", "/quiet", start, traced=False)
    telemetry.use_sink(sink)
    client = Client(f"unix://{path}")
    async with anyio.create_task_group() as tasks:
        await tasks.start(ApiServer(router, version="t").serve, [open_unix(path)])
        headers = {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}
        for target, query in (
            ("/quiet", {}),
            ("/v1.44/containers/web/start", {"x": 1, "authToken": "s3"}),
            ("/fail", {}),
        ):
            method = "GET" if target == "/quiet" else "POST"
            async with client.request(method, target, query=query, headers=headers) as answer:
                await answer.read()
        tasks.cancel_scope.cancel()
    begun, failed = (trace.spans[0] for trace in sink.traces)
    assert begun.name == "api::POST /containers/{name}/start"
    assert begun.attributes == {
        "http.method": "POST",
        "http.path": "/containers/web/start",
        "http.query": "x=1&authToken=***",
        "traceparent": headers["traceparent"],
    }
    assert (begun.status, failed.status, failed.error) == ("ok", "error", "Unavailable: the host is away")


async def test_a_disconnect_that_is_known_cancels_at_once():
    gone = Disconnect()
    gone.set()
    with pytest.raises(exchange.ClientGone), gone.cancels():
        await anyio.sleep_forever()
    with gone.cancels():
        pass  # what does not wait is not broken off
