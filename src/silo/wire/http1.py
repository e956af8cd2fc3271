"""What HTTP/1.1 needs besides h11: targets of requests, and refusals of what is no request.  Does no I/O."""

from __future__ import annotations

import posixpath
import re
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

MAX_HEAD: Final = 1 << 20
"""Bytes of request line and header fields, as Go's DefaultMaxHeaderBytes."""

_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2}).{0,2}")


class Refused(Exception):
    """What was sent is no request that can be answered: the client gets ``refusal(status, cause)``."""

    def __init__(self, status: int, cause: str = "") -> None:
        super().__init__(f"{status} {cause}")
        self.status, self.cause = status, cause


def split_target(target: bytes) -> tuple[str, str]:
    """Path and query of a request line's target, still percent-encoded.  Raises Refused.

    A client that takes the engine for a proxy sends the absolute form, whose host says nothing here; ``*`` stands
    for the server itself.
    """
    text = target.decode("ascii", "replace")
    if text.lower().startswith(("http://", "https://")):
        url = urlsplit(text)
        text = (url.path or "/") + (f"?{url.query}" if url.query else "")
    path, _, query = text.partition("?")
    if (path != "*" and not path.startswith("/")) or _BAD_ESCAPE.search(path):
        raise Refused(400)
    return path, query


def bad_escape(text: str) -> str | None:
    """The first thing in ``text`` that looks like a percent-escape and is none."""
    found = _BAD_ESCAPE.search(text)
    return found[0] if found else None


def cleaned(path: str) -> str:
    """``path`` without empty, ``.`` and ``..`` segments; a slash at its end stays."""
    if path == "*" or ("//" not in path and "/." not in path):
        return path
    clean = posixpath.normpath("/" + path.lstrip("/"))
    return clean + "/" if path.endswith("/") and clean != "/" else clean


def reason(status: int) -> str:
    """The words that go with a status; empty when it has none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def refusal(status: int, cause: str = "") -> bytes:
    """A whole answer in plain text that ends the connection, as Go's server sends it for what is not HTTP."""
    text = f"{status} {reason(status)}{': ' if cause else ''}{cause}"
    head = f"HTTP/1.1 {status} {reason(status)}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close"
    return f"{head}\r\n\r\n{text}".encode("ascii", "replace")
