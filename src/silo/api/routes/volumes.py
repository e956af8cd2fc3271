"""``/volumes``: decode, call the volume store, encode."""

from __future__ import annotations

from typing import Any

from silo.api.router import Router
from silo.daemon import usage
from silo.daemon.clock import now
from silo.daemon.daemon import Daemon
from silo.daemon.remove import users_of
from silo.errors import InvalidParameter, NotFound
from silo.httpd.messages import Request, Response, empty, json_response
from silo.volumes.local import Volume


def routes(daemon: Daemon, router: Router) -> None:
    """Put the volumes' routes into ``router``."""
    resource = Volumes(daemon)
    router.add("GET", "/volumes", resource.list, traced=False)
    router.add("POST", "/volumes/create", resource.create)
    router.add("GET", "/volumes/{name}", resource.inspect, traced=False)
    router.add("DELETE", "/volumes/{name}", resource.remove)


class Volumes:
    """One method a route."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    def _shown(self, volume: Volume) -> dict[str, Any]:
        return usage.shown_volume(self.daemon, volume)

    async def list(self, request: Request) -> Response:  # noqa: ARG002 - every handler takes the request
        """``docker volume ls``."""
        return json_response({"Volumes": [self._shown(one) for one in self.daemon.volumes.all()], "Warnings": None})

    async def create(self, request: Request) -> Response:
        """``docker volume create``."""
        body = await request.json(dict[str, Any])
        driver = body.get("Driver") or "local"
        if driver != "local":
            raise NotFound(f'error looking up volume plugin {driver}: plugin "{driver}" not found')
        labels = body.get("Labels") or {}
        if not isinstance(labels, dict) or not isinstance(body.get("Name") or "", str):
            raise InvalidParameter("invalid JSON: Name is a string and Labels an object of strings")
        volume = await self.daemon.volumes.create(
            body.get("Name") or "", now(), labels=labels, options=body.get("DriverOpts") or {}
        )
        return json_response(self._shown(volume), 201)

    async def inspect(self, request: Request) -> Response:
        """``docker volume inspect``."""
        return json_response(self._shown(self.daemon.volumes.find(request.params["name"])))

    async def remove(self, request: Request) -> Response:
        """``docker volume rm``."""
        name = request.params["name"]
        await self.daemon.volumes.remove(name, users_of(self.daemon, name))
        return empty(204)
