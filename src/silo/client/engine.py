"""An async client of the Engine API, and of Silo's own routes."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import msgspec

from silo.errors import SiloError, Unavailable
from silo.httpd.client import Client, ClientResponse
from silo.httpd.hijack import HijackedStream

DEFAULT_HOST: Final = "unix:///run/silo/silo.sock"
POLL_SECONDS: Final = 0.02


class EngineError(SiloError):
    """The engine answered with an error: its status and its own text."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class EngineClient:
    """One engine.  Every method raises EngineError for what the engine refuses, Unavailable when there is none."""

    def __init__(self, host: str = DEFAULT_HOST) -> None:
        self._http = Client(host)
        self.host = host

    async def get(self, path: str, **query: Any) -> Any:
        """A GET's JSON."""
        async with self._request("GET", path, query=query) as answer:
            return await answer.json()

    async def post(self, path: str, body: Any = None, **query: Any) -> Any:
        """A POST's JSON."""
        async with self._request("POST", path, query=query, json=body) as answer:
            return await answer.json()

    async def delete(self, path: str, **query: Any) -> Any:
        """A DELETE's JSON."""
        async with self._request("DELETE", path, query=query) as answer:
            return await answer.json()

    @asynccontextmanager
    async def _request(self, method: str, path: str, **arguments: Any) -> AsyncGenerator[ClientResponse]:
        async with self._http.request(method, path, **arguments) as answer:
            if answer.status >= 400:
                raise await _error(answer)
            yield answer

    async def wait_ready(self, seconds: float) -> None:
        """Return once the engine answers.  Raises Unavailable when it does not within ``seconds``."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                async with self._request("GET", "/_ping") as answer:
                    await answer.read()
                    return
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                await anyio.sleep(POLL_SECONDS)

    async def create(self, name: str, body: Mapping[str, Any]) -> str:
        """Make a container; return its id."""
        made = await self.post("/containers/create", body, name=name or None)
        return str(made["Id"])

    async def start(self, container: str) -> None:
        """Start a container."""
        await self.post(f"/containers/{container}/start")

    @asynccontextmanager
    async def waiting(self, container: str, condition: str) -> AsyncGenerator[ClientResponse]:
        """Inside of the block the wait is registered; :func:`exit_code` of what it gives is the outcome."""
        async with self._request("POST", f"/containers/{container}/wait", query={"condition": condition}) as answer:
            yield answer

    async def attach(self, container: str, *, stdin: bool, detach_keys: str = "") -> HijackedStream:
        """The container's streams."""
        query = {"stream": 1, "stdin": stdin, "stdout": 1, "stderr": 1, "detachKeys": detach_keys or None}
        answer, stream = await self._http.upgrade("POST", f"/containers/{container}/attach", query=query)
        if stream is None:
            raise await _error(answer)
        return stream

    async def logs(self, container: str, **query: Any) -> AsyncIterator[bytes]:
        """The log in chunks."""
        async with self._request("GET", f"/containers/{container}/logs", query=query) as answer:
            async for chunk in answer.stream():
                yield chunk

    async def load(self, archive: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
        """Load images; yields the engine's progress.  Raises EngineError when it reports one."""
        async with self._request("POST", "/images/load", query={"quiet": 1}, body=archive) as answer:
            rest = b""
            async for chunk in answer.stream():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(bytes.strip, lines):
                    step = msgspec.json.decode(line, type=dict[str, Any])
                    if "error" in step:
                        raise EngineError(500, step["error"])
                    yield step


async def exit_code(answer: ClientResponse) -> int:
    """The exit code that a wait's answer ends with."""
    return int((await answer.json())["StatusCode"])


async def _error(answer: ClientResponse) -> EngineError:
    data = await answer.read()
    try:
        text = msgspec.json.decode(data, type=dict[str, Any]).get("message") or data.decode("utf-8", "replace")
    except msgspec.MsgspecError:
        text = data.decode("utf-8", "replace")
    return EngineError(answer.status, str(text))
