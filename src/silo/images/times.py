"""Times in the forms that image configurations, filters and Dockerfile flags have them."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Final

from silo.errors import InvalidParameter

ZERO: Final = "0001-01-01T00:00:00Z"
"""How the Engine API writes "never"."""

_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART: Final = re.compile(r"([0-9]*(?:\.[0-9]*)?)([a-zµμ]*)")
_MOMENT: Final = re.compile(r"(\d{4}-\d\d-\d\d)(?:T(\d\d(?::\d\d(?::\d\d)?)?)(\.\d+)?)?(Z|[+-]\d\d:\d\d)?")


def rfc3339(nanoseconds: int) -> str:
    """Nanoseconds since the epoch in UTC with nine digits."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def now() -> str:
    """The present in UTC."""
    return rfc3339(time.time_ns())


def nanoseconds(text: str) -> int | None:
    """An RFC 3339 time in nanoseconds since the epoch; None when it is absent, "never", or not a time."""
    match = _MOMENT.fullmatch(text)
    if match is None or text.startswith("0001-"):
        return None
    day, clock, fraction, zone = match.groups()
    try:
        whole = datetime.fromisoformat(day + (f"T{clock}" if clock else "") + (zone or "+00:00").replace("Z", "+00:00"))
    except ValueError:
        return None
    return int(whole.timestamp()) * 1_000_000_000 + int((fraction or ".0")[1:].ljust(9, "0")[:9])


def seconds(text: str) -> int | None:
    """The same in whole seconds, as image lists show it."""
    value = nanoseconds(text)
    return None if value is None else value // 1_000_000_000


def parse_duration(text: str) -> int:
    """A duration as Go writes it (``1m30s``) in nanoseconds.  Raises InvalidParameter with Go's text."""
    rest = text.lstrip("+-") if text[:1] in {"+", "-"} else text
    sign = -1 if text.startswith("-") else 1
    if rest == "0":
        return 0
    total, at = 0.0, 0
    while at < len(rest):
        match = _PART.match(rest, at)
        if match is None or match.end() == at or match[1] in {"", "."}:
            raise InvalidParameter(f'time: invalid duration "{text}"')
        if not match[2]:
            raise InvalidParameter(f'time: missing unit in duration "{text}"')
        if match[2] not in _UNITS:
            raise InvalidParameter(f'time: unknown unit "{match[2]}" in duration "{text}"')
        total += float(match[1]) * _UNITS[match[2]]
        at = match.end()
    if not rest:
        raise InvalidParameter(f'time: invalid duration "{text}"')
    return sign * round(total)


def parse_moment(text: str, now_ns: int) -> int:
    """A filter's time in nanoseconds: Unix seconds, RFC 3339, or a duration before ``now_ns``.

    Raises InvalidParameter when it is none of these.
    """
    whole, _, fraction = text.partition(".")
    if whole.lstrip("-").isdigit() and (fraction.isdigit() or not fraction):
        return int(whole) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9] or 0)
    moment = nanoseconds(text)
    return moment if moment is not None else now_ns - parse_duration(text)
