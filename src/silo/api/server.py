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
from silo.httpd.messages import Answer, Request, Response, empty, json_response
from silo.wire.http1 import cleaned

MIN_VERSION: Final = (1, 24)
MAX_VERSION: Final = (1, 50)
_NEWEST, _OLDEST = (".".join(map(str, version)) for version in (MAX_VERSION, MIN_VERSION))
_PREFIX: Final = re.compile(r"/v([0-9.]{1,40})(/.*)")
_SECRET: Final = re.compile(r"(?i)auth|token|secret|password|buildargs")


class ApiServer:
    """Answers the Engine API on any number of listeners."""

    def __init__(self, router: Router, *, version: str) -> None:
        self._router = router
        self._headers = {
            "Api-Version": _NEWEST,
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
        if request.method == "OPTIONS":
            await respond(empty(200))
        elif (clean := cleaned(request.path)) != request.path:
            query = request.query.text
            await respond(Response(301, b"", {"Location": f"{clean}?{query}" if query else clean}))
        else:
            await self._dispatch(request, respond)

    async def _dispatch(self, request: Request, respond: server.Respond) -> None:
        asked, request.path = split_version(request.path)
        found = self._router.match(request.method, request.path)
        if found is None:
            # dockerd has no 405: a path with another method is a page that is not there either
            await respond(json_response({"message": "page not found"}, 404))
            return
        route, request.params = found
        try:
            request.version = negotiate(asked)
            attributes = _attributes(request) if route.traced else {}
        except InvalidParameter as exc:
            await respond(problem(exc))
            return
        with _span(route, attributes):
            await respond(await _handle(route, request))


async def _handle(route: Route, request: Request) -> Answer:
    try:
        with request.disconnected.cancels() if route.cancelled else contextlib.nullcontext():
            return await route.handler(request)
    except server.ClientGone:
        raise
    except Exception as exc:  # noqa: BLE001 - whatever it was, the client gets an answer and the log the stack
        telemetry.fail(exc)
        return problem(exc)


def _attributes(request: Request) -> dict[str, Any]:
    """What the root span says of a request; secrets are not among it.  Raises InvalidParameter."""
    attributes = {"http.method": request.method, "http.path": request.path}
    if query := [f"{key}={'***' if _SECRET.search(key) else value}" for key, value in request.query.items()]:
        attributes["http.query"] = "&".join(query)
    if parent := request.headers.get("traceparent"):
        attributes["traceparent"] = parent
    return attributes


@contextlib.contextmanager
def _span(route: Route, attributes: dict[str, Any]) -> Generator[None]:
    """The root span of a recorded route.  A client that leaves ends it without making it a failure."""
    if not route.traced:
        yield
        return
    gone: server.ClientGone | None = None
    with telemetry.span(f"api::{route.method} {route.pattern}", **attributes):
        try:
            yield
        except server.ClientGone as exc:
            telemetry.annotate(client="left before the answer was complete")
            gone = exc
    if gone is not None:
        raise gone


def split_version(path: str) -> tuple[str, str]:
    """The API version that the path asks for, empty without one, and the path behind it."""
    found = _PREFIX.fullmatch(path)
    return (found[1], found[2]) if found else ("", path)


def negotiate(asked: str) -> tuple[int, int]:
    """The API version to speak.  Raises InvalidParameter with dockerd's texts."""
    if not asked:
        return MAX_VERSION
    version = tuple(int(part or "0") for part in asked.split("."))  # compared part by part, as dockerd does
    if version > MAX_VERSION:
        raise InvalidParameter(f"client version {asked} is too new. Maximum supported API version is {_NEWEST}")
    if version < MIN_VERSION:
        raise InvalidParameter(
            f"client version {asked} is too old. Minimum supported API version is {_OLDEST}, "
            "please upgrade your client to a newer version"
        )
    return version[0], version[1]
