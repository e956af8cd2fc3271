"""The codes the host services answer with, and which code stands for what went wrong.

The numbers are part of the interface at the gate: ``silo.hcsshim.errors`` reads them; the host does not import upward,
so the ones it uses are written here (a test holds the two lists against each other).
"""

from __future__ import annotations

import enum
import errno

from silo.errors import Conflict, Corrupt, InvalidParameter, NotFound, SiloError, Unavailable, Unimplemented


class Code(enum.IntEnum):
    """HRESULTs and Win32 codes used by the host services."""

    FILE_NOT_FOUND = 0x2
    PATH_NOT_FOUND = 0x3
    ACCESS_DENIED = 0x5
    INVALID_DATA = 0xD
    NOT_READY = 0x15
    SHARING_VIOLATION = 0x20
    NOT_SUPPORTED = 0x32
    INVALID_PARAMETER = 0x57
    DISK_FULL = 0x70
    ALREADY_EXISTS = 0xB7
    ELEMENT_NOT_FOUND = 0x490
    NO_SYSTEM_RESOURCES = 0x5AA
    FAIL = 0x80004005
    INVALID_LAYER = 0x80370112
    OPERATION_TIMEOUT = 0x80370118
    PROCESS_ALREADY_STOPPED = 0x8037011F
    TERMINATED_DURING_START = 0xC0370100
    INVALID_STATE = 0xC0370105
    UNEXPECTED_EXIT = 0xC0370106
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


class HostError(SiloError):
    """A service refuses with exactly this code."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


_ERRNO = {
    errno.ENOENT: Code.FILE_NOT_FOUND,
    errno.EACCES: Code.ACCESS_DENIED,
    errno.EPERM: Code.ACCESS_DENIED,
    errno.EEXIST: Code.ALREADY_EXISTS,
    errno.EBUSY: Code.SHARING_VIOLATION,
    errno.ENOSPC: Code.DISK_FULL,
    errno.EDQUOT: Code.DISK_FULL,
    errno.ENOMEM: Code.NO_SYSTEM_RESOURCES,
    errno.EMFILE: Code.NO_SYSTEM_RESOURCES,
    errno.ENFILE: Code.NO_SYSTEM_RESOURCES,
    errno.EINVAL: Code.INVALID_PARAMETER,
}
_KIND: tuple[tuple[type[Exception], Code], ...] = (
    (NotFound, Code.ELEMENT_NOT_FOUND),
    (Conflict, Code.SHARING_VIOLATION),
    (InvalidParameter, Code.INVALID_PARAMETER),
    (Corrupt, Code.INVALID_DATA),
    (Unimplemented, Code.NOT_SUPPORTED),
    (Unavailable, Code.NO_SYSTEM_RESOURCES),
)


def code_for(exc: Exception) -> Code:
    """The code that stands for ``exc``; FAIL when there is none."""
    if isinstance(exc, OSError):
        return _ERRNO.get(exc.errno or 0, Code.FAIL)
    return next((code for kind, code in _KIND if isinstance(exc, kind)), Code.FAIL)
