"""HRESULTs of the host services, and the predicates callers ask instead of comparing numbers.

Values: reference "Windows container creation", sections 3.3, 4.9 and 5.5.
"""

from __future__ import annotations

import enum

from silo.errors import Conflict, Corrupt, HostFault, InvalidParameter, NotFound, SiloError, Unavailable, Unimplemented


class Code(enum.IntEnum):
    """Codes that the host services answer with (v1 status values for HCS, Win32 codes for layers)."""

    OK = 0
    FILE_NOT_FOUND = 0x2
    PATH_NOT_FOUND = 0x3
    ACCESS_DENIED = 0x5
    INVALID_DATA = 0xD
    NOT_READY = 0x15
    SHARING_VIOLATION = 0x20
    NOT_SUPPORTED = 0x32
    DISK_FULL = 0x70
    ALREADY_EXISTS = 0xB7
    ELEMENT_NOT_FOUND = 0x490
    NO_SYSTEM_RESOURCES = 0x5AA
    INVALID_PARAMETER = 0x57
    FAIL = 0x80004005
    INVALID_LAYER = 0x80370112
    OPERATION_TIMEOUT = 0x80370118
    PROCESS_ALREADY_STOPPED = 0x8037011F
    TERMINATED_DURING_START = 0xC0370100
    OPERATION_PENDING = 0xC0370103
    INVALID_STATE = 0xC0370105
    UNEXPECTED_EXIT = 0xC0370106
    UNKNOWN_MESSAGE = 0xC037010B
    INVALID_JSON = 0xC037010D
    SYSTEM_NOT_FOUND = 0xC037010E
    SYSTEM_ALREADY_EXISTS = 0xC037010F
    SYSTEM_ALREADY_STOPPED = 0xC0370110
    HCN_NETWORK_NOT_FOUND = 0x803B0001
    HCN_ENDPOINT_NOT_FOUND = 0x803B0002
    HCN_SUBNET_NOT_FOUND = 0x803B0005
    HCN_INVALID_NETWORK = 0x803B000A
    HCN_INVALID_NETWORK_TYPE = 0x803B000B
    HCN_INVALID_ENDPOINT = 0x803B000C
    HCN_NETWORK_ALREADY_EXISTS = 0x803B0010
    HCN_ENDPOINT_ALREADY_ATTACHED = 0x803B0014
    HCN_REQUEST_UNSUPPORTED = 0x803B0015
    HCN_INVALID_JSON = 0x803B001B
    HCN_INVALID_IP = 0x803B001E
    HCN_ENTITY_HAS_REFERENCES = 0x803B002C
    HCN_ADDR_INVALID_OR_RESERVED = 0x803B002F


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
