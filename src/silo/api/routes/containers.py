"""``/containers``: decode, call one verb of the daemon, encode."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from silo.api.router import Router
from silo.api.routes.common import filters_of
from silo.daemon import attach, create, inspect, listing, logs, remove, start, stop, wait
from silo.daemon.clock import parse_moment
from silo.daemon.daemon import Daemon
from silo.daemon.life import Ended
from silo.errors import InvalidParameter
from silo.httpd.messages import Hijack, Request, Response, StreamResponse, empty, json_response
from silo.schema.engine import ContainerCreate, convert
from silo.telemetry import traced

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"


def routes(daemon: Daemon, router: Router) -> None:
    """Put the containers' routes into ``router``."""
    resource = Containers(daemon)
    for method, path, handler, recorded in (
        ("GET", "/containers/json", resource.list, False),
        ("POST", "/containers/create", resource.create, True),
        ("GET", "/containers/{name}/json", resource.inspect, False),
        ("GET", "/containers/{name}/logs", resource.logs, False),
        ("POST", "/containers/{name}/start", resource.start, True),
        ("POST", "/containers/{name}/stop", resource.stop, True),
        ("POST", "/containers/{name}/kill", resource.kill, True),
        ("POST", "/containers/{name}/wait", resource.wait, True),
        ("POST", "/containers/{name}/attach", resource.attach, True),
        ("POST", "/containers/{name}/resize", resource.resize, False),
        ("DELETE", "/containers/{name}", resource.remove, True),
    ):
        router.add(method, path, handler, traced=recorded)


class Containers:
    """One method a route."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    async def list(self, request: Request) -> Response:
        """``docker ps``."""
        query = request.query
        return json_response(
            await listing.list_containers(
                self.daemon,
                request.version,
                everything=query.flag("all"),
                limit=query.number("limit", 0),
                size=query.flag("size"),
                filters=filters_of(request),
            )
        )

    async def create(self, request: Request) -> Response:
        """``docker create``."""
        body = convert(await request.json(dict[str, Any]), ContainerCreate)
        container_id, warnings = await create.create(self.daemon, request.query.get("name", "") or "", body)
        return json_response({"Id": container_id, "Warnings": warnings}, 201)

    async def inspect(self, request: Request) -> Response:
        """``docker inspect``."""
        return json_response(
            await inspect.inspect(self.daemon, request.params["name"], request.version, size=request.query.flag("size"))
        )

    async def start(self, request: Request) -> Response:
        """``docker start``; a body, which old clients sent, is ignored as dockerd does."""
        await start.start(self.daemon, request.params["name"])
        return empty(204)

    async def stop(self, request: Request) -> Response:
        """``docker stop``."""
        seconds = request.query.number("t", 0) if request.query.get("t") else None
        await stop.stop(
            self.daemon, request.params["name"], signal_name=request.query.get("signal", "") or "", timeout=seconds
        )
        return empty(204)

    async def kill(self, request: Request) -> Response:
        """``docker kill``."""
        await stop.kill(self.daemon, request.params["name"], request.query.get("signal", "") or "")
        return empty(204)

    async def wait(self, request: Request) -> StreamResponse:
        """``docker wait``: the head goes out at once, the body at the exit."""
        condition = request.query.get("condition", "") or "" if request.version >= (1, 30) else ""
        outcome = wait.wait(self.daemon, request.params["name"], condition)

        async def body() -> AsyncIterator[bytes]:
            how = await waited(outcome)
            yield msgspec.json.encode({"StatusCode": how.exit_code}) + b"\n"

        return StreamResponse(200, {"Content-Type": "application/json"}, body())

    async def attach(self, request: Request) -> Hijack:
        """``docker attach`` and ``docker run``."""
        query = request.query
        wanted = attach.AttachRequest(
            logs=query.flag("logs"),
            stream=query.flag("stream"),
            stdin=query.flag("stdin"),
            stdout=query.flag("stdout"),
            stderr=query.flag("stderr"),
            detach_keys=query.get("detachKeys", "") or "",
        )
        serve = attach.attach(self.daemon, request.params["name"], wanted)
        return Hijack(serve, self._stream_type(request))

    def _stream_type(self, request: Request) -> str:
        tty = self.daemon.registry.find(request.params["name"]).config.tty
        return RAW if tty or request.version < (1, 42) else MULTIPLEXED

    async def logs(self, request: Request) -> StreamResponse:
        """``docker logs``."""
        query = request.query
        wanted = logs.LogRequest(
            stdout=query.flag("stdout"),
            stderr=query.flag("stderr"),
            follow=query.flag("follow"),
            timestamps=query.flag("timestamps"),
            details=query.flag("details"),
            tail=_tail(query.get("tail", "") or ""),
            since=parse_moment(query.get("since") or "0"),
            until=parse_moment(query.get("until") or "0") or None,
        )
        body = logs.logs(self.daemon, request.params["name"], wanted)
        return StreamResponse(200, {"Content-Type": self._stream_type(request)}, body)

    async def resize(self, request: Request) -> Response:
        """The size of the terminal, in characters."""
        height, width = request.query.number("h", 0), request.query.number("w", 0)
        if not (0 < height < 1 << 16 and 0 < width < 1 << 16):
            raise InvalidParameter(f"invalid terminal size: {height}x{width}")
        await attach.resize(self.daemon, request.params["name"], height, width)
        return empty(200)

    async def remove(self, request: Request) -> Response:
        """``docker rm``."""
        query = request.query
        if query.flag("link"):
            raise InvalidParameter("removing links is not supported: networks have aliases")
        await remove.remove(self.daemon, request.params["name"], force=query.flag("force"), volumes=query.flag("v"))
        return empty(204)


@traced("daemon::ContainerWait")
async def waited(outcome: wait.Outcome) -> Ended:
    """The span of a wait lasts as long as the wait."""
    return await outcome()


def _tail(text: str) -> int | None:
    """``all``, nothing or garbage is all of it, as dockerd has it."""
    return int(text) if text.isdecimal() else None
