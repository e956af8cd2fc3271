"""Times as the Engine API writes them."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from silo.errors import InvalidParameter


def rfc3339(nanoseconds: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 in UTC, always nine digits: texts sort as the times do."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def now() -> str:
    """The present as RFC 3339."""
    return rfc3339(time.time_ns())


def nanoseconds(text: str) -> int:
    """The inverse of :func:`rfc3339`; any offset and number of digits is understood.  Raises InvalidParameter."""
    try:
        head, _, tail = text.partition(".")
        digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
        zone = tail[len(digits) :] if tail else ""
        whole = datetime.fromisoformat(head + zone)
    except ValueError as exc:
        raise InvalidParameter(f'parsing time "{text}": {exc}') from exc
    if whole.tzinfo is None:
        whole = whole.replace(tzinfo=UTC)
    return int(whole.timestamp()) * 1_000_000_000 + int(digits.ljust(9, "0")[:9] or 0)


def parse_moment(text: str) -> int:
    """A ``since``/``until`` parameter (Unix seconds with an optional fraction, or RFC 3339) in nanoseconds."""
    seconds, _, fraction = text.partition(".")
    if seconds.lstrip("-").isdigit():
        return int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9] or 0)
    return nanoseconds(text)


def ago(since_ns: int, now_ns: int) -> str:
    """How long ago, in the words of ``docker ps`` (units.HumanDuration of docker/go-units)."""
    seconds = max(0, now_ns - since_ns) // 1_000_000_000
    hours = round(seconds / 3600)
    for limit, text in (
        (1, "Less than a second"),
        (2, "1 second"),
        (60, f"{seconds} seconds"),
        (120, "About a minute"),
        (3600, f"{seconds // 60} minutes"),
    ):
        if seconds < limit:
            return text
    for limit, text in (
        (2, "About an hour"),
        (48, f"{hours} hours"),
        (24 * 7 * 2, f"{hours // 24} days"),
        (24 * 30 * 2, f"{hours // 24 // 7} weeks"),
        (24 * 365 * 2, f"{hours // 24 // 30} months"),
    ):
        if hours < limit:
            return text
    return f"{hours // 24 // 365} years"
