"""What a dockerd that is in no swarm and has no plugins answers: this engine is always such a one."""

from __future__ import annotations

from typing import Final

from silo.api.router import Router
from silo.daemon.daemon import Daemon
from silo.errors import NotFound, Unavailable, Unimplemented
from silo.httpd.messages import Request, Response, json_response

_NO_MANAGER: Final = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)
_CLUSTER: Final = (
    ("GET", "/swarm", "/swarm/unlockkey", "/services", "/services/{id}", "/services/{id}/logs", "/nodes"),
    ("GET", "/nodes/{id}", "/tasks", "/tasks/{id}", "/tasks/{id}/logs", "/secrets", "/secrets/{id}"),
    ("GET", "/configs", "/configs/{id}"),
    ("POST", "/swarm/update", "/swarm/unlock", "/services/create", "/services/{id}/update", "/nodes/{id}/update"),
    ("POST", "/secrets/create", "/secrets/{id}/update", "/configs/create", "/configs/{id}/update"),
    ("DELETE", "/services/{id}", "/nodes/{id}", "/secrets/{id}", "/configs/{id}"),
)


def routes(daemon: Daemon, router: Router) -> None:  # noqa: ARG001 - every resource is added in the same way
    """Put the routes of swarm mode and of managed plugins into ``router``."""
    for method, *paths in _CLUSTER:
        for path in paths:
            router.add(method, path, no_manager, traced=False)
    router.add("POST", "/swarm/leave", no_swarm, traced=False)
    for path in ("/swarm/init", "/swarm/join"):
        router.add("POST", path, no_swarm_mode, traced=False)
    router.add("GET", "/plugins", no_plugins, traced=False)
    router.add("GET", "/plugins/privileges", no_plugins, traced=False)
    router.add("GET", "/plugins/{name:.*}/json", no_such_plugin, traced=False)
    router.add("DELETE", "/plugins/{name:.*}", no_such_plugin, traced=False)
    for path in ("/plugins/pull", "/plugins/create"):
        router.add("POST", path, no_managed_plugins, traced=False)
    for verb in ("enable", "disable", "push", "set", "upgrade"):
        router.add("POST", f"/plugins/{{name:.*}}/{verb}", no_such_plugin, traced=False)


async def no_manager(_request: Request) -> Response:
    """Everything that only a manager can answer."""
    raise Unavailable(_NO_MANAGER)


async def no_swarm(_request: Request) -> Response:
    """``docker swarm leave``."""
    raise Unavailable("This node is not part of a swarm")


async def no_swarm_mode(_request: Request) -> Response:
    """``docker swarm init`` and ``join``."""
    raise Unimplemented("swarm mode: this engine does not have it")


async def no_plugins(_request: Request) -> Response:
    """``docker plugin ls``."""
    return json_response([])


async def no_such_plugin(request: Request) -> Response:
    """Every operation on a plugin that is installed."""
    raise NotFound(f'plugin "{request.params["name"]}" not found')


async def no_managed_plugins(_request: Request) -> Response:
    """``docker plugin install`` and ``create``."""
    raise Unimplemented("managed plugins: this engine does not have them")
