"""The only door from the shim to the host services: a function's name and JSON down, JSON up.

On Windows these are exports of ``vmcompute.dll``.  Here they are :class:`silo.host.service.HostService`, in this
process; because only bytes cross, the services can move to a process of their own without a change above.
"""

from __future__ import annotations

from typing import Any, Protocol

import anyio.streams.memory
import msgspec

from silo.hcsshim.errors import hcs_error
from silo.telemetry import annotate


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """The envelope of every answer: ``Result`` is an HRESULT or Win32 code, 0 for success."""

    Result: int = 0
    ErrorMessage: str = ""
    Output: msgspec.Raw = msgspec.Raw(b"null")


class Gate(Protocol):
    """What the shim needs of the host."""

    async def call(self, function: str, document: bytes) -> bytes:
        """Call the export ``function`` (``ActivateLayer``, ``HNSCall``, ``HcsCreateComputeSystem`` ...).

        ``document`` is a JSON object of its arguments, the answer a JSON :class:`Result`.  Never raises for what the
        service refused: that is in the answer.
        """
        ...

    def notifications(self) -> anyio.streams.memory.MemoryObjectReceiveStream[bytes]:
        """A stream of every notification from now on, as JSON; close it to unsubscribe."""
        ...


async def invoke(gate: Gate, op: str, subject: str, function: str, /, **arguments: Any) -> msgspec.Raw:
    """Call ``function`` and return its ``Output``.  Raises HcsError (see ``hcs_error``) titled ``op`` ``subject``."""
    answer = msgspec.json.decode(await gate.call(function, msgspec.json.encode(arguments)), type=Result)
    if answer.Result != 0:
        annotate(hresult=f"{answer.Result & 0xFFFFFFFF:#010x}")
        raise hcs_error(op, subject, answer.Result, answer.ErrorMessage)
    return answer.Output
