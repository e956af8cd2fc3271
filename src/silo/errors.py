"""The few kinds of failure a caller can act on.

The text of an error names the object, the operation and the cause.  ``silo.api.problem`` alone maps a kind to an HTTP
status; the kinds are those of moby's ``errdefs``.
"""


class SiloError(Exception):
    """What a caller may act on; the text says what was asked, of what, and why it failed."""


class InvalidParameter(SiloError):
    """The request cannot be right, whatever the state of the engine is."""


class Unauthorized(SiloError):
    """The caller did not say who it is, or not convincingly."""


class Forbidden(SiloError):
    """The request is understood and will not be done for anybody."""


class NotFound(SiloError):
    """The object that the request names does not exist."""


class Conflict(SiloError):
    """The object is in a state, or has a name, that excludes the request."""


class NotModified(SiloError):
    """The object is already as the request wants it."""


class TooLarge(SiloError):
    """The request or one of its parts is over a limit."""


class Unimplemented(SiloError):
    """The engine, or this host, cannot do it."""


class Unavailable(SiloError):
    """A service that is needed does not answer, or there is no room left."""


class Deadline(Unavailable):
    """A service that is needed did not answer in time."""


class HostFault(SiloError):
    """The kernel or a program of the host refused; the text carries its reason."""


class Corrupt(SiloError):
    """Data that should be whole is not: a digest, a size or a format does not hold."""
