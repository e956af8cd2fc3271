"""``/networks``: decode, call the CNM controller, encode."""

from __future__ import annotations

from typing import Any

from silo.api.router import Router
from silo.api.routes.common import filters_of
from silo.daemon import networks
from silo.daemon.daemon import Daemon
from silo.httpd.messages import Request, Response, empty, json_response


def routes(daemon: Daemon, router: Router) -> None:
    """Put the networks' routes into ``router``."""
    resource = Networks(daemon)
    router.add("GET", "/networks", resource.list, traced=False)
    router.add("POST", "/networks/create", resource.create)
    router.add("POST", "/networks/prune", resource.prune)
    router.add("GET", "/networks/{name}", resource.inspect, traced=False)
    router.add("GET", "/networks/", resource.list, traced=False)
    router.add("DELETE", "/networks/{name}", resource.remove)
    router.add("POST", "/networks/{name}/connect", resource.connect)
    router.add("POST", "/networks/{name}/disconnect", resource.disconnect)


class Networks:
    """One method a route."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    async def list(self, request: Request) -> Response:
        """``docker network ls``."""
        return json_response(networks.list_networks(self.daemon, filters_of(request)))

    async def create(self, request: Request) -> Response:
        """``docker network create``."""
        network_id, warning = await networks.create(self.daemon, await request.json(dict[str, Any]))
        return json_response({"Id": network_id, "Warning": warning}, 201)

    async def inspect(self, request: Request) -> Response:
        """``docker network inspect``."""
        return json_response(networks.inspect(self.daemon, request.params["name"]))

    async def remove(self, request: Request) -> Response:
        """``docker network rm``."""
        await networks.remove(self.daemon, request.params["name"])
        return empty(204)

    async def prune(self, request: Request) -> Response:
        """``docker network prune``."""
        return json_response({"NetworksDeleted": await networks.prune(self.daemon, filters_of(request))})

    async def connect(self, request: Request) -> Response:
        """``docker network connect``."""
        await networks.connect(self.daemon, request.params["name"], await request.json(dict[str, Any]))
        return empty(200)

    async def disconnect(self, request: Request) -> Response:
        """``docker network disconnect``."""
        await networks.disconnect(self.daemon, request.params["name"], await request.json(dict[str, Any]))
        return empty(200)
