"""``/_ping``, ``/version``, ``/info``, ``/events``."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from silo.api.router import Router
from silo.api.routes.common import filters_of
from silo.daemon import events, system, usage
from silo.daemon.clock import parse_moment
from silo.daemon.daemon import Daemon
from silo.httpd.messages import Request, Response, StreamResponse, json_response


def routes(daemon: Daemon, router: Router) -> None:
    """Put the system's routes into ``router``."""
    resource = System(daemon)
    router.add("GET", "/_ping", resource.ping, traced=False)
    router.add("HEAD", "/_ping", resource.ping, traced=False)
    router.add("GET", "/version", resource.version, traced=False)
    router.add("GET", "/system/df", resource.disk_usage, traced=False)
    router.add("GET", "/info", resource.info, traced=False)
    router.add("GET", "/events", resource.events, traced=False)


class System:
    """One method a route."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    async def ping(self, request: Request) -> Response:
        """Whether the engine answers; the headers tell a client what to speak."""
        headers = {
            "Cache-Control": "no-cache, no-store, must-revalidate",
            "Pragma": "no-cache",
            "Builder-Version": "1",
            "Swarm": "inactive",
            "Content-Type": "text/plain; charset=utf-8",
        }
        return Response(200, b"" if request.method == "HEAD" else b"OK", headers)

    async def version(self, request: Request) -> Response:  # noqa: ARG002 - every handler takes the request
        """``docker version``."""
        return json_response(system.version(self.daemon))

    async def info(self, request: Request) -> Response:
        """``docker info``."""
        return json_response(await system.info(self.daemon, request.version))

    async def disk_usage(self, request: Request) -> Response:
        """``docker system df``."""
        kinds = request.query.all("type") if request.version >= (1, 42) else []
        return json_response(await usage.disk_usage(self.daemon, request.version, kinds))

    async def events(self, request: Request) -> StreamResponse:
        """``docker events``."""
        filters = filters_of(request)
        since, until = request.query.get("since"), request.query.get("until")
        stream = self.daemon.events.listen(
            parse_moment(since) if since else None, parse_moment(until) if until else None
        )

        async def body() -> AsyncIterator[bytes]:
            async for event in stream:
                if events.matches(event, filters):
                    yield msgspec.json.encode(event) + b"\n"

        return StreamResponse(200, {"Content-Type": "application/json"}, body())
