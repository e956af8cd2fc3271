"""What several resources decode the same way."""

from __future__ import annotations

from typing import Any

import msgspec

from silo.errors import InvalidParameter
from silo.httpd.messages import Request


def filters_of(request: Request) -> dict[str, list[str]]:
    """The ``filters`` parameter: ``{"key": ["value"]}``, or the old ``{"key": {"value": true}}``."""
    text = request.query.get("filters")
    if not text:
        return {}
    try:
        value: Any = msgspec.json.decode(text)
    except msgspec.MsgspecError as exc:
        raise InvalidParameter(f"invalid filter: {exc}") from exc
    if not isinstance(value, dict):
        raise InvalidParameter("invalid filter")
    result: dict[str, list[str]] = {}
    for key, wanted in value.items():
        if isinstance(wanted, dict):
            result[key] = [name for name, on in wanted.items() if on]
        elif isinstance(wanted, list) and all(isinstance(one, str) for one in wanted):
            result[key] = wanted
        else:
            raise InvalidParameter("invalid filter")
    return result


async def any_json(request: Request, *, limit: int = 4 << 20) -> dict[str, Any]:
    """A JSON object as plain values; an empty body is an empty object.  Raises InvalidParameter."""
    body = await request.body(limit)
    if not body.strip():
        return {}
    return await request.json(dict[str, Any])
