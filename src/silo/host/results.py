"""How a service refuses: with a code of the interface, and a sentence."""

from __future__ import annotations

import errno

from silo.errors import Conflict, Corrupt, InvalidParameter, NotFound, SiloError, Unavailable, Unimplemented
from silo.schema.hresult import Code

__all__ = ["Code", "HostError", "code_for"]


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
