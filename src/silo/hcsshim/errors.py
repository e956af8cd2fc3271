"""HRESULTs of the host services, and the predicates callers ask instead of comparing numbers.

Values: reference "Windows container creation", sections 3.3, 4.9 and 5.5.
"""

from __future__ import annotations

from silo.errors import Conflict, Corrupt, HostFault, InvalidParameter, NotFound, SiloError, Unavailable, Unimplemented
from silo.schema.hresult import Code

__all__ = [
    "Code",
    "HcsError",
    "code_of",
    "hcs_error",
    "is_already_exists",
    "is_already_stopped",
    "is_not_exist",
    "is_pending",
    "is_timeout",
    "kind_of",
]

_NAMES = {int(code): code.name for code in Code}


class HcsError(SiloError):
    """A host service refused: ``op`` as traced on Windows, ``subject`` the layer, system or path, ``code`` why.

    ``message`` is the service's own sentence.  The error is also an instance of the kind that ``kind_of`` gives, see
    :func:`hcs_error`, so that callers which do not care for codes may catch NotFound or Conflict.
    """

    def __init__(self, op: str, subject: str, code: int, message: str = "") -> None:
        # the service's own sentence names object and cause, and clients match on it; op and code are in the trace
        super().__init__(message or f"{op} {subject}: {_NAMES.get(code, 'UNKNOWN')} ({code:#010x})")
        self.op, self.subject, self.code, self.message = op, subject, code, message


_KINDS: dict[int, type[SiloError]] = {
    Code.FILE_NOT_FOUND: NotFound,
    Code.PATH_NOT_FOUND: NotFound,
    Code.ELEMENT_NOT_FOUND: NotFound,
    Code.SYSTEM_NOT_FOUND: NotFound,
    Code.HCN_NETWORK_NOT_FOUND: NotFound,
    Code.HCN_ENDPOINT_NOT_FOUND: NotFound,
    Code.ALREADY_EXISTS: Conflict,
    Code.SYSTEM_ALREADY_EXISTS: Conflict,
    Code.INVALID_STATE: Conflict,
    Code.SHARING_VIOLATION: Conflict,
    Code.HCN_NETWORK_ALREADY_EXISTS: Conflict,
    Code.HCN_ENDPOINT_ALREADY_ATTACHED: Conflict,
    Code.HCN_ENTITY_HAS_REFERENCES: Conflict,
    Code.HCN_ADDR_INVALID_OR_RESERVED: Conflict,
    Code.INVALID_PARAMETER: InvalidParameter,
    Code.INVALID_LAYER: InvalidParameter,
    Code.INVALID_DATA: Corrupt,
    Code.INVALID_JSON: InvalidParameter,
    Code.HCN_INVALID_JSON: InvalidParameter,
    Code.HCN_INVALID_NETWORK: InvalidParameter,
    Code.HCN_INVALID_NETWORK_TYPE: InvalidParameter,
    Code.HCN_INVALID_ENDPOINT: InvalidParameter,
    Code.HCN_INVALID_IP: InvalidParameter,
    Code.NOT_SUPPORTED: Unimplemented,
    Code.HCN_REQUEST_UNSUPPORTED: Unimplemented,
    Code.DISK_FULL: Unavailable,
    Code.NO_SYSTEM_RESOURCES: Unavailable,
    Code.OPERATION_TIMEOUT: Unavailable,
}
_classes: dict[type[SiloError], type[HcsError]] = {}


def kind_of(code: int) -> type[SiloError]:
    """The kind of failure that ``code`` stands for; HostFault when it is none of the known ones."""
    return _KINDS.get(code, HostFault)


def code_of(exc: BaseException) -> Code:
    """The code a service answers with when its own work failed with ``exc`` (the inverse of :func:`kind_of`)."""
    if isinstance(exc, HcsError) and exc.code in _NAMES:
        return Code(exc.code)
    for kind, code in (
        (NotFound, Code.ELEMENT_NOT_FOUND),
        (Conflict, Code.INVALID_STATE),
        (InvalidParameter, Code.INVALID_PARAMETER),
        (Corrupt, Code.INVALID_DATA),
        (Unimplemented, Code.NOT_SUPPORTED),
        (Unavailable, Code.NO_SYSTEM_RESOURCES),
    ):
        if isinstance(exc, kind):
            return code
    return Code.FAIL


def hcs_error(op: str, subject: str, code: int, message: str = "") -> HcsError:
    """An HcsError that is also of the kind its code stands for."""
    kind = kind_of(code)
    made = _classes.get(kind)
    if made is None:
        made = _classes[kind] = type(f"Hcs{kind.__name__}", (HcsError, kind), {})
    return made(op, subject, code, message)


def is_not_exist(exc: BaseException) -> bool:
    """The compute system, or the element asked for, is not there."""
    return isinstance(exc, HcsError) and exc.code in {Code.SYSTEM_NOT_FOUND, Code.ELEMENT_NOT_FOUND}


def is_already_stopped(exc: BaseException) -> bool:
    """The compute system or process had already ended."""
    return isinstance(exc, HcsError) and exc.code in {
        Code.SYSTEM_ALREADY_STOPPED,
        Code.PROCESS_ALREADY_STOPPED,
        Code.ELEMENT_NOT_FOUND,
    }


def is_already_exists(exc: BaseException) -> bool:
    """A compute system of that id is there already."""
    return isinstance(exc, HcsError) and exc.code == Code.SYSTEM_ALREADY_EXISTS


def is_pending(exc: BaseException) -> bool:
    """Accepted, completion follows as a notification."""
    return isinstance(exc, HcsError) and exc.code == Code.OPERATION_PENDING


def is_timeout(exc: BaseException) -> bool:
    """The notification that was waited for did not come in time."""
    return isinstance(exc, HcsError) and exc.code == Code.OPERATION_TIMEOUT
