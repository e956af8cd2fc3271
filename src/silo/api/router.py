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
    """One line of the table.  ``traced``: each request is kept as a trace."""

    method: str
    pattern: str
    regex: re.Pattern[str]
    handler: Handler
    traced: bool


class Router:
    """Patterns are tried in the order they were added; ``{name}`` is one segment, ``{name:.*}`` may hold slashes."""

    def __init__(self) -> None:
        self.routes: list[Route] = []
        self._plain: dict[tuple[str, str], Route] = {}

    def add(self, method: str, pattern: str, handler: Handler, *, traced: bool = True) -> None:
        """Put a route behind those there are."""
        source, last = "", 0
        for found in _PARAMETER.finditer(pattern):
            source += re.escape(pattern[last : found.start()])
            source += f"(?P<{found[1]}>{(found[2] or '[^/]+').replace('.*', '.+')})"
            last = found.end()
        source += re.escape(pattern[last:])
        route = Route(method, pattern, re.compile(source), handler, traced)
        self.routes.append(route)
        if source == re.escape(pattern):
            self._plain.setdefault((method, pattern), route)

    def match(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """The first route for the request, with its parameters percent-decoded."""
        plain = self._plain.get((method, path))
        if plain is not None:
            return plain, {}
        for route in self.routes:
            if route.method == method and (found := route.regex.fullmatch(path)):
                return route, {name: unquote(value) for name, value in found.groupdict().items()}
        return None
