"""``/silo``: what happened, and what there is on the host because of it."""

from __future__ import annotations

from silo.api.router import Router
from silo.daemon import introspect
from silo.daemon.daemon import Daemon
from silo.httpd.messages import Request, Response, json_response


def routes(daemon: Daemon, router: Router) -> None:
    """Put Silo's own routes into ``router``."""
    resource = Silo(daemon)
    for path, handler in (
        ("/silo/traces", resource.traces),
        ("/silo/traces/{name}", resource.trace),
        ("/silo/compartments", resource.compartments),
        ("/silo/interfaces", resource.interfaces),
        ("/silo/routes", resource.routes),
        ("/silo/layers", resource.layers),
        ("/silo/layerchain/{name:.*}", resource.layerchain),
        ("/silo/eventlog", resource.eventlog),
        ("/silo/hcs", resource.systems),
        ("/silo/hcs/{name}", resource.system),
        ("/silo/hns/networks", resource.hns_networks),
        ("/silo/hns/endpoints", resource.hns_endpoints),
    ):
        router.add("GET", path, handler, traced=False)


class Silo:
    """One method a route."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    async def traces(self, request: Request) -> Response:  # noqa: ARG002 - every handler takes the request
        """Which containers have traces."""
        return json_response(introspect.containers_with_traces(self.daemon))

    async def trace(self, request: Request) -> Response:
        """Every trace of one container."""
        return json_response(await introspect.traces(self.daemon, request.params["name"]))

    async def compartments(self, request: Request) -> Response:  # noqa: ARG002 - every handler takes the request
        """Get-NetCompartment."""
        return json_response(await self.daemon.host_network.compartments())

    async def interfaces(self, request: Request) -> Response:
        """Get-NetIPInterface -IncludeAllCompartments; ``compartment`` chooses one."""
        return json_response(await self.daemon.host_network.interfaces(_compartment(request)))

    async def routes(self, request: Request) -> Response:
        """Get-NetRoute -CompartmentId."""
        return json_response(await self.daemon.host_network.routes(_compartment(request)))

    async def layers(self, request: Request) -> Response:  # noqa: ARG002 - every handler takes the request
        """Every layer with its directory."""
        return json_response(introspect.layers(self.daemon))

    async def layerchain(self, request: Request) -> Response:
        """``layerchain.json`` of a container or image."""
        return json_response(introspect.layerchain(self.daemon, request.params["name"]))

    async def eventlog(self, request: Request) -> Response:
        """Get-WinEvent; ``log`` chooses a channel."""
        return json_response(await self.daemon.systems.event_log(request.query.get("log") or ""))

    async def systems(self, request: Request) -> Response:  # noqa: ARG002 - every handler takes the request
        """Every compute system."""
        return json_response(await self.daemon.systems.enumerate())

    async def system(self, request: Request) -> Response:
        """One compute system: its create document and properties."""
        container = self.daemon.registry.find(request.params["name"])
        return json_response(await self.daemon.systems.properties(container.id))

    async def hns_networks(self, request: Request) -> Response:  # noqa: ARG002 - every handler takes the request
        """Every HNS network."""
        return json_response(await self.daemon.host_network.hns("/networks/"))

    async def hns_endpoints(self, request: Request) -> Response:  # noqa: ARG002 - every handler takes the request
        """Every HNS endpoint."""
        return json_response(await self.daemon.host_network.hns("/endpoints/"))


def _compartment(request: Request) -> int | None:
    text = request.query.get("compartment")
    return request.query.number("compartment", 0) if text else None
