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

    async def _object(self, path: str, **query: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await self.get(path, **query)
        return answer

    async def _objects(self, path: str, **query: Any) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = await self.get(path, **query)
        return answer

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

    async def version(self) -> dict[str, Any]:
        """The engine's version, and the API versions it speaks."""
        return await self._object("/version")

    async def containers(self, *, everything: bool = False) -> list[dict[str, Any]]:
        """Containers that run; with ``everything`` also the others."""
        return await self._objects("/containers/json", all=everything)

    async def create(self, name: str, body: Mapping[str, Any]) -> str:
        """Make a container; return its id."""
        made = await self.post("/containers/create", body, name=name or None)
        return str(made["Id"])

    async def inspect(self, container: str) -> dict[str, Any]:
        """Everything about a container."""
        return await self._object(f"/containers/{container}/json")

    async def start(self, container: str) -> None:
        """Start a container."""
        await self.post(f"/containers/{container}/start")

    async def stop(self, container: str, seconds: int | None = None) -> None:
        """Stop a container; it is killed after ``seconds``, or after its own time when that is None."""
        await self.post(f"/containers/{container}/stop", t=seconds)

    async def kill(self, container: str, signal: str = "KILL") -> None:
        """Send a signal, by name or number."""
        await self.post(f"/containers/{container}/kill", signal=signal)

    async def remove(self, container: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container; with ``volumes`` also its anonymous volumes."""
        await self.delete(f"/containers/{container}", force=force, v=volumes)

    async def resize(self, container: str, height: int, width: int) -> None:
        """Tell a container's terminal its size, in characters."""
        await self.post(f"/containers/{container}/resize", h=height, w=width)

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

    async def logs(self, container: str, **query: Any) -> AsyncGenerator[bytes]:
        """The log in chunks.  Close it in the task that reads it (``contextlib.aclosing``)."""
        async with self._request("GET", f"/containers/{container}/logs", query=query) as answer:
            async for chunk in answer.stream():
                yield chunk

    async def images(self) -> list[dict[str, Any]]:
        """Every image."""
        return await self._objects("/images/json")

    async def load(self, archive: AsyncIterator[bytes]) -> AsyncGenerator[dict[str, Any]]:
        """Load images; yields the engine's progress.  Raises EngineError when it reports one.

        Close it in the task that reads it (``contextlib.aclosing``).
        """
        async with self._request("POST", "/images/load", query={"quiet": 1}, body=archive) as answer:
            rest = b""
            async for chunk in answer.stream():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(bytes.strip, lines):
                    step = msgspec.json.decode(line, type=dict[str, Any])
                    if "error" in step:
                        raise EngineError(500, step["error"])
                    yield step

    async def networks(self) -> list[dict[str, Any]]:
        """Every network."""
        return await self._objects("/networks")

    async def create_network(self, body: Mapping[str, Any]) -> str:
        """Make a network; return its id."""
        return str((await self.post("/networks/create", body))["Id"])

    async def remove_network(self, network: str) -> None:
        """Remove a network."""
        await self.delete(f"/networks/{network}")

    async def traces(self, container: str) -> dict[str, Any]:
        """What happened to a container: ``{"traces": [...]}`` in the order they began."""
        return await self._object(f"/silo/traces/{container}")

    async def traced_containers(self) -> list[dict[str, Any]]:
        """Ids and names of the containers that have traces, newest first."""
        return await self._objects("/silo/traces")

    async def compartments(self) -> list[dict[str, Any]]:
        """Network compartments."""
        return await self._objects("/silo/compartments")

    async def interfaces(self, compartment: int | None = None) -> list[dict[str, Any]]:
        """IP interfaces, of one compartment or of all."""
        return await self._objects("/silo/interfaces", compartment=compartment)

    async def routes(self, compartment: int | None = None) -> list[dict[str, Any]]:
        """Routes, of one compartment or of all."""
        return await self._objects("/silo/routes", compartment=compartment)

    async def event_log(self, channel: str) -> list[dict[str, Any]]:
        """The events of a channel, oldest first."""
        return await self._objects("/silo/eventlog", log=channel)

    async def layers(self) -> list[dict[str, Any]]:
        """Every read-only layer and every container's scratch layer."""
        return await self._objects("/silo/layers")

    async def layerchain(self, name: str) -> dict[str, Any]:
        """``{"id", "dir", "chain"}`` of a container or image; the chain nearest first."""
        return await self._object(f"/silo/layerchain/{name}")

    async def systems(self) -> list[dict[str, Any]]:
        """Every compute system."""
        return await self._objects("/silo/hcs")

    async def system(self, container: str) -> dict[str, Any]:
        """A container's compute system, with its create document."""
        return await self._object(f"/silo/hcs/{container}")

    async def hns(self, kind: str) -> list[dict[str, Any]]:
        """The Host Network Service's objects; ``kind`` is ``networks`` or ``endpoints``."""
        return await self._objects(f"/silo/hns/{kind}")


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
