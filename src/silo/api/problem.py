"""The one table from kinds of failure to HTTP status, and the body that says what went wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from silo import errors
from silo.httpd.messages import Response, empty, json_response

log = logging.getLogger(__name__)

STATUS: Final[Mapping[type[BaseException], int]] = {
    errors.NotModified: 304,
    errors.InvalidParameter: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.TooLarge: 413,
    errors.HostFault: 500,
    errors.Corrupt: 500,
    errors.SiloError: 500,
    errors.Unimplemented: 501,
    errors.Unavailable: 503,
    errors.Deadline: 504,
}


def status_of(exc: BaseException) -> int:
    """The status that stands for ``exc``; 500 when nothing in its ancestry is in the table."""
    return next((STATUS[kind] for kind in type(exc).__mro__ if kind in STATUS), 500)


def problem(exc: Exception) -> Response:
    """The answer to a request that failed with ``exc``.  What is no SiloError is a bug: logged, and not shown."""
    if not isinstance(exc, errors.SiloError):
        log.error("bug", exc_info=exc)
        return json_response({"message": f"internal error ({type(exc).__name__}): see the engine's log"}, 500)
    status = status_of(exc)
    return empty(status) if status == 304 else json_response({"message": str(exc)}, status)
