"""The Engine API's edge: version prefix, route, root span, and errors as answers."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Generator
from typing import Any, Final

import anyio
from anyio.abc import TaskStatus

from silo import telemetry
from silo.api.problem import problem
from silo.api.router import Route, Router
from silo.errors import InvalidParameter
from silo.httpd import server
from silo.httpd.messages import Answer, Request, json_response

MIN_VERSION: Final = (1, 24)
MAX_VERSION: Final = (1, 50)
_PREFIX: Final = re.compile(r"/v(\d+)\.(\d+)(/.*|$)")
_SECRET: Final = re.compile(r"(?i)auth|token|secret|password|buildargs")


class ApiServer:
    """Answers the Engine API on any number of listeners."""

    def __init__(self, router: Router, *, version: str) -> None:
        self._router = router
        self._headers = {
            "Api-Version": ".".join(map(str, MAX_VERSION)),
            "Docker-Experimental": "false",
            "Ostype": "linux",
            "Server": f"Silo/{version} (linux)",
        }

    async def serve(
        self, listeners: list[socket.socket], *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Answer until cancelled; the sockets listen already, so clients may connect from the start."""
        task_status.started()
        await server.serve(self._answer, listeners, self._headers)

    async def _answer(self, request: Request, respond: server.Respond) -> None:
        try:
            request.version, request.path = negotiate(request.path)
        except InvalidParameter as exc:
            await respond(problem(exc))
            return
        found = self._router.match(request.method, request.path)
        if found is None:
            # also for a wrong method: dockerd's router has one answer for both
            await respond(json_response({"message": "page not found"}, 404))
            return
        route, request.params = found
        with _span(route, request):
            await respond(await _handle(route, request))


async def _handle(route: Route, request: Request) -> Answer:
    try:
        return await route.handler(request)
    except server.ClientGone:
        raise
    except Exception as exc:  # noqa: BLE001 - whatever it was, the client gets an answer and the log the stack
        telemetry.fail(exc)
        return problem(exc)


@contextlib.contextmanager
def _span(route: Route, request: Request) -> Generator[None]:
    """The root span of a recorded route.  A client that leaves ends it without making it a failure."""
    if not route.traced:
        yield
        return
    attributes: dict[str, Any] = {"http.method": request.method, "http.path": request.path}
    if query := {key: "***" if _SECRET.search(key) else value for key, value in request.query.items()}:
        attributes["http.query"] = "&".join(f"{key}={value}" for key, value in query.items())
    if parent := request.headers.get("traceparent"):
        attributes["traceparent"] = parent
    gone: server.ClientGone | None = None
    with telemetry.span(f"api::{request.method} {route.pattern}", **attributes):
        try:
            yield
        except server.ClientGone as exc:
            telemetry.annotate(client="left before the answer was complete")
            gone = exc
    if gone is not None:
        raise gone


def negotiate(path: str) -> tuple[tuple[int, int], str]:
    """The API version and the path behind its prefix.  Raises InvalidParameter with dockerd's texts."""
    found = _PREFIX.fullmatch(path)
    if found is None:
        return MAX_VERSION, path
    version = int(found[1]), int(found[2])
    shown = f"{version[0]}.{version[1]}"
    if version > MAX_VERSION:
        newest = ".".join(map(str, MAX_VERSION))
        raise InvalidParameter(f"client version {shown} is too new. Maximum supported API version is {newest}")
    if version < MIN_VERSION:
        oldest = ".".join(map(str, MIN_VERSION))
        raise InvalidParameter(
            f"client version {shown} is too old. Minimum supported API version is {oldest}, "
            "please upgrade your client to a newer version"
        )
    return version, found[3] or "/"
