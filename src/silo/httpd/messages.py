"""Requests and answers as handlers see them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import parse_qsl

import msgspec

from silo.errors import InvalidParameter, TooLarge

T = TypeVar("T")

BODY_LIMIT: Final = 4 << 20
"""Bytes of a JSON body; dockerd has no limit, and no honest client comes near."""


class Headers:
    """Header fields by name in any case; the last of a name wins, ``all`` gives every one."""

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._fields = [(name.lower(), value) for name, value in fields]

    def get(self, name: str, default: str = "") -> str:
        """The value of the last field of this name."""
        wanted = name.lower()
        return next((value for key, value in reversed(self._fields) if key == wanted), default)

    def all(self, name: str) -> list[str]:
        """The values of every field of this name, in order."""
        return [value for key, value in self._fields if key == name.lower()]

    def has_token(self, name: str, token: str) -> bool:
        """Whether the comma-separated field has ``token``, in any case."""
        return any(part.strip().lower() == token for value in self.all(name) for part in value.split(","))

    def __contains__(self, name: str) -> bool:
        return any(key == name.lower() for key, _ in self._fields)

    def items(self) -> list[tuple[str, str]]:
        """Every field, names in lower case."""
        return list(self._fields)


class Query:
    """The query string with dockerd's rules for booleans and numbers."""

    def __init__(self, text: str) -> None:
        self._pairs = parse_qsl(text, keep_blank_values=True)

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value of ``name``."""
        return next((value for key, value in self._pairs if key == name), default)

    def all(self, name: str) -> list[str]:
        """Every value of ``name``."""
        return [value for key, value in self._pairs if key == name]

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A boolean: empty, 0, no, false and none are false, anything else is true (dockerd's BoolValue)."""
        value = self.get(name)
        if value is None:
            return default
        return value.strip().lower() not in {"", "0", "no", "false", "none"}

    def number(self, name: str, default: int) -> int:
        """A whole number.  Raises InvalidParameter with Go's text."""
        value = self.get(name)
        if not value:
            return default
        try:
            return int(value, 10)
        except ValueError:
            raise InvalidParameter(f'strconv.Atoi: parsing "{value}": invalid syntax') from None

    def items(self) -> list[tuple[str, str]]:
        """Every pair in order."""
        return list(self._pairs)


class BodySource(Protocol):
    """Where a request's body comes from."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Chunks as they arrive; reading drives the connection."""
        ...


@dataclass(slots=True)
class Request:
    """One request.  ``path`` is without the version prefix; ``version`` is (1, 50) when there was none."""

    method: str
    path: str
    query: Query
    headers: Headers
    source: BodySource
    version: tuple[int, int] = (1, 50)
    params: dict[str, str] = field(default_factory=dict)

    def stream(self) -> AsyncIterator[bytes]:
        """The body in chunks, as fast as they are taken.  Raises BrokenResourceError when the client goes away."""
        return aiter(self.source)

    async def body(self, limit: int = BODY_LIMIT) -> bytes:
        """The whole body.  Raises TooLarge beyond ``limit`` bytes."""
        data = bytearray()
        async for chunk in self.stream():
            data += chunk
            if len(data) > limit:
                raise TooLarge(f"{self.method} {self.path}: the request body is over {limit} bytes")
        return bytes(data)

    async def json(self, kind: type[T]) -> T:
        """The body as ``kind``.  Raises InvalidParameter with dockerd's texts."""
        text = self.headers.get("content-type")
        media = text.partition(";")[0].strip().lower()
        data = await self.body()
        if not data.strip():
            raise InvalidParameter("invalid JSON: got EOF while reading request body")
        if text and media != "application/json":
            raise InvalidParameter(f"unsupported Content-Type header ({text}): must be 'application/json'")
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.ValidationError as exc:
            raise InvalidParameter(f"invalid JSON: {exc}") from exc
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            cause = "unexpected EOF" if "truncated" in str(exc) else str(exc)
            raise InvalidParameter(f"invalid JSON: {cause}") from exc


@dataclass(slots=True)
class Response:
    """An answer that is all there."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class StreamResponse:
    """An answer that comes in pieces: the head goes out at once, the iterator is closed when the client goes away."""

    status: int
    headers: Mapping[str, str]
    body: AsyncIterator[bytes]


@dataclass(slots=True)
class Hijack:
    """The connection stops being HTTP: ``handler`` gets it, and it is closed when the handler returns."""

    handler: Callable[[Any], Awaitable[None]]
    content_type: str


Answer = Response | StreamResponse | Hijack
JSON_TYPE: Final = {"Content-Type": "application/json"}


def json_response(value: Any, status: int = 200) -> Response:
    """``value`` as JSON with a newline, as Go's encoder ends it."""
    return Response(status, msgspec.json.encode(value) + b"\n", JSON_TYPE)


def empty(status: int) -> Response:
    """An answer without a body."""
    return Response(status)
