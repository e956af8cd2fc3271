"""The route table: method and pattern to handler."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import unquote

from silo.httpd.messages import Answer, Request

Handler = Callable[[Request], Awaitable[Answer]]
_PARAMETER = re.compile(r"\{(\w+)(?::([^}]+))?\}")


@dataclass(frozen=True, slots=True)
class Route:
    """One line of the table.

    ``traced``: each request is kept as a trace.  ``cancelled``: a client that leaves cancels the handler.
    """

    method: str
    pattern: str
    regex: re.Pattern[str]
    handler: Handler
    traced: bool
    cancelled: bool


class Router:
    """Patterns are tried in the order they were added; ``{name}`` is one segment, ``{name:.*}`` may hold slashes."""

    def __init__(self) -> None:
        self._routes: dict[str, list[Route]] = {}
        self._plain: dict[tuple[str, str], Route] = {}

    def add(
        self, method: str, pattern: str, handler: Handler, *, traced: bool = True, cancelled: bool | None = None
    ) -> None:
        """Put a route behind those there are.

        A handler that only reads is cancelled when its client leaves.  One that changes something finishes, as
        dockerd's do (a stop must not stay half done because a client lost patience), unless ``cancelled`` says that
        it can be broken off.
        """
        source, last = "", 0
        for found in _PARAMETER.finditer(pattern):
            source += re.escape(pattern[last : found.start()])
            source += f"(?P<{found[1]}>{(found[2] or '[^/]+').replace('.*', '.+')})"
            last = found.end()
        source += re.escape(pattern[last:])
        breakable = method in {"GET", "HEAD"} if cancelled is None else cancelled
        route = Route(method, pattern, re.compile(source), handler, traced, breakable)
        self._routes.setdefault(method, []).append(route)
        if last == 0:
            self._plain.setdefault((method, pattern), route)

    def match(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """The first route for the request, with its parameters percent-decoded.

        An escaped slash is part of a name, not a new segment; other escapes may also be in what a pattern spells out.
        """
        if found := self._match(method, path):
            return found[0], {name: unquote(value) for name, value in found[1].items()}
        return self._match(method, unquote(path)) if "%" in path else None

    def _match(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        plain = self._plain.get((method, path))
        if plain is not None:
            return plain, {}
        for route in self._routes.get(method, ()):
            if found := route.regex.fullmatch(path):
                return route, found.groupdict()
        return None
