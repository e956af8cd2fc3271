"""Requests to the kernel's routing service, a whole batch in one message.

pyroute2 encodes the requests.  The socket is ours: pyroute2's own take a millisecond and more for each request, a batch
on a plain socket about as long as the kernel's work.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from silo.errors import Conflict, HostFault, NotFound

RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_NEWADDR: Final = 20
RTM_NEWROUTE: Final = 24
CREATE: Final = 0x600  # NLM_F_CREATE | NLM_F_EXCL
_MESSAGES: Final = {RTM_NEWLINK: ifinfmsg, RTM_DELLINK: ifinfmsg, RTM_NEWADDR: ifaddrmsg, RTM_NEWROUTE: rtmsg}
_REQUEST_ACK: Final = 0x5  # NLM_F_REQUEST | NLM_F_ACK
_NLMSG_ERROR: Final = 2
_NLMSG_HEADER: Final = struct.Struct("=IHHII")
_SOL_NETLINK: Final = 270
_NETLINK_CAP_ACK: Final = 10
_BATCH: Final = 64
"""Requests per message: their answers fit into any receive buffer."""
_KINDS: Final = {
    errno.EEXIST: Conflict,
    errno.EADDRINUSE: Conflict,
    errno.EBUSY: Conflict,
    errno.ENODEV: NotFound,
    errno.ESRCH: NotFound,
    errno.EADDRNOTAVAIL: NotFound,
}


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request: ``what`` it does, for the error's text; ``accept`` are errnos that are as good as success."""

    what: str
    kind: int
    fields: dict[str, Any] = {}
    attributes: list[list[Any]] = []
    flags: int = 0
    accept: Collection[int] = ()

    def encode(self, sequence: int) -> bytes:
        """The request as the kernel reads it, with its padding."""
        message = _MESSAGES[self.kind]()
        for key, value in self.fields.items():
            message[key] = value
        message["attrs"] = self.attributes
        message["header"]["type"] = self.kind
        message["header"]["flags"] = self.flags | _REQUEST_ACK
        message["header"]["sequence_number"] = sequence
        message.encode()
        data = bytes(message.data)
        return data + bytes(-len(data) % 4)


class Socket:
    """A socket to the network namespace of the thread that makes it; another thread may use it afterwards."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)  # an answer need not repeat its request
        self._socket.bind((0, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._socket.close()

    def run(self, requests: Sequence[Request]) -> None:
        """Do the requests in order.

        Raises for the first that failed; the kernel did those after it all the same, so the caller undoes the whole.
        """
        for start in range(0, len(requests), _BATCH):
            part = requests[start : start + _BATCH]
            self._socket.send(b"".join(request.encode(number) for number, request in enumerate(part)))
            failed = {number: code for number, code in self._answers(len(part)) if code not in part[number].accept}
            if failed:
                number = min(failed)
                code = failed[number]
                text = f"{part[number].what}: {os.strerror(code)} ({errno.errorcode.get(code, code)})"
                raise _KINDS.get(code, HostFault)(text)

    def _answers(self, count: int) -> Iterator[tuple[int, int]]:
        """Number and errno of each request that failed, once all are answered."""
        while count:
            data = self._socket.recv(1 << 16)
            offset = 0
            while offset < len(data):
                length, kind, _, sequence, _ = _NLMSG_HEADER.unpack_from(data, offset)
                if kind == _NLMSG_ERROR:
                    (code,) = struct.unpack_from("=i", data, offset + _NLMSG_HEADER.size)
                    count -= 1
                    if code:
                        yield sequence, -code
                offset += (length + 3) & ~3
