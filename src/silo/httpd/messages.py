"""Requests and answers as handlers see them."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import parse_qsl

import msgspec

from silo.errors import InvalidParameter, TooLarge
from silo.httpd.hangup import Disconnect
from silo.wire.gotext import json_fault, media_type
from silo.wire.http1 import bad_escape

T = TypeVar("T")

BODY_LIMIT: Final = 4 << 20
"""Bytes of a JSON body; dockerd has no limit, and no honest client comes near."""
MAX_DIGITS: Final = 100
"""Characters of a number that are looked at: leading zeros are harmless, and Python refuses 4300 digits by itself."""
_NUMBER: Final = re.compile(r"[+-]?[0-9]+")
EXPLAINED: Final = 64 << 10
"""Bytes up to which a malformed JSON body is searched for the fault that Go would name."""


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
    """The query string with dockerd's rules for booleans and numbers.

    It is parsed when something is asked of it, and what cannot be parsed is then an InvalidParameter with Go's text.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._parsed: list[tuple[str, str]] | None = None

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value of ``name``."""
        return next((value for key, value in self.items() if key == name), default)

    def all(self, name: str) -> list[str]:
        """Every value of ``name``."""
        return [value for key, value in self.items() if key == name]

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
        if not _NUMBER.fullmatch(value):
            raise InvalidParameter(f'strconv.Atoi: parsing "{value}": invalid syntax')
        number = int(value) if len(value) <= MAX_DIGITS else sys.maxsize + 1
        if not -sys.maxsize - 1 <= number <= sys.maxsize:
            raise InvalidParameter(f'strconv.Atoi: parsing "{value}": value out of range')
        return number

    def items(self) -> list[tuple[str, str]]:
        """Every pair in order."""
        if self._parsed is None:
            if ";" in self.text:
                raise InvalidParameter("invalid semicolon separator in query")
            if wrong := bad_escape(self.text):
                raise InvalidParameter(f'invalid URL escape "{wrong}"')
            self._parsed = parse_qsl(self.text, keep_blank_values=True)
        return self._parsed


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
    disconnected: Disconnect = field(default_factory=Disconnect)
    _data: bytes | None = None

    def stream(self) -> AsyncIterator[bytes]:
        """The body in chunks, as fast as they are taken.  Raises InvalidParameter when it ends before its end."""
        return aiter(self.source)

    async def body(self, limit: int = BODY_LIMIT) -> bytes:
        """The whole body, as often as it is asked for.  Raises TooLarge beyond ``limit`` bytes."""
        if self._data is None:
            data = bytearray()
            async for chunk in self.stream():
                data += chunk
                if len(data) > limit:
                    raise TooLarge(f"{self.method} {self.path}: the request body is over {limit} bytes")
            self._data = bytes(data)
        return self._data

    async def json(self, kind: type[T], *, default: T | None = None) -> T:
        """The body as ``kind``; ``default`` stands for no body and for ``null``.

        Raises InvalidParameter with dockerd's texts, and TooLarge.
        """
        self._check_json_type()
        data = await self.body()
        if default is not None and data.strip() in {b"", b"null"}:
            return default
        return decode(data, kind)

    def _check_json_type(self) -> None:
        """No type is well without a body; else it is JSON (dockerd's CheckForJSON)."""
        text = self.headers.get("content-type")
        if not text and "transfer-encoding" not in self.headers and self.headers.get("content-length", "0") == "0":
            return
        try:
            kind = media_type(text)
        except ValueError as exc:
            raise InvalidParameter(f"malformed Content-Type header ({text}): {exc}") from None
        if kind != "application/json":
            raise InvalidParameter(f"unsupported Content-Type header ({text}): must be 'application/json'")


def decode(data: bytes, kind: type[T]) -> T:
    """JSON as ``kind``.  Raises InvalidParameter that says what Go would about JSON that is none.

    What is no UTF-8 becomes U+FFFD, as Go's decoder has it.
    """
    try:
        try:
            return msgspec.json.decode(data, type=kind)
        except UnicodeDecodeError:
            return msgspec.json.decode(data.decode("utf-8", "replace"), type=kind)
    except msgspec.ValidationError as exc:
        raise InvalidParameter(f"invalid JSON: {exc}") from exc
    except (msgspec.DecodeError, RecursionError) as exc:
        fault = json_fault(data) if len(data) <= EXPLAINED else None
        raise InvalidParameter(fault or f"invalid JSON: {exc}") from exc


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
