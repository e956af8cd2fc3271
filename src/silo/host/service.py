"""The function table of the host services: what ``vmcompute.dll`` exports, each name with its handler.

Every handler takes the decoded arguments as keywords and returns something msgspec can encode.  Whatever it raises is
answered as a code and a message: no exception crosses the gate.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import anyio
import anyio.streams.memory
import msgspec

from silo.errors import SiloError
from silo.host.results import Code, HostError, code_for

log = logging.getLogger(__name__)

Handler = Callable[..., Awaitable[Any]]
BACKLOG: Final = 4096
"""Notifications a subscriber may lag behind before it is cut off (it must then re-read the state)."""


class HostService:
    """The gate's other side, in this process."""

    def __init__(self) -> None:
        self._table: dict[str, Handler] = {}
        self._subscribers: list[anyio.streams.memory.MemoryObjectSendStream[bytes]] = []

    def add(self, exports: Mapping[str, Handler]) -> None:
        """Put a service's exports into the table."""
        self._table.update(exports)

    async def call(self, function: str, document: bytes) -> bytes:
        """See :meth:`silo.hcsshim.gate.Gate.call`."""
        handler = self._table.get(function)
        if handler is None:
            return _failed(Code.NOT_SUPPORTED, f"no such export: {function}")
        try:
            output = await handler(**msgspec.json.decode(document))
        except HostError as exc:
            return _failed(exc.code, str(exc))
        except (SiloError, OSError, msgspec.MsgspecError) as exc:
            return _failed(code_for(exc), str(exc))
        except TypeError as exc:
            log.exception("%s", function)
            return _failed(Code.INVALID_PARAMETER, f"{function}: {exc}")
        except Exception as exc:  # the answer is a Result whatever a handler's bug was
            log.exception("%s", function)
            return _failed(Code.FAIL, f"{type(exc).__name__}: {exc}")
        return msgspec.json.encode({"Result": 0, "Output": output})

    def notify(self, notification: Any) -> None:
        """Give a notification to every subscriber, without waiting."""
        data = msgspec.json.encode(notification)
        for stream in tuple(self._subscribers):
            try:
                stream.send_nowait(data)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                self._subscribers.remove(stream)
                stream.close()
            except anyio.WouldBlock:
                log.error("a subscriber lags %d notifications behind: cut off", BACKLOG)
                self._subscribers.remove(stream)
                stream.close()

    def notifications(self) -> anyio.streams.memory.MemoryObjectReceiveStream[bytes]:
        """See :meth:`silo.hcsshim.gate.Gate.notifications`."""
        for stream in tuple(self._subscribers):
            if not stream.statistics().open_receive_streams:  # gone since the last notification
                self._subscribers.remove(stream)
                stream.close()
        send, receive = anyio.create_memory_object_stream[bytes](BACKLOG)
        self._subscribers.append(send)
        return receive

    def close(self) -> None:
        """End every subscription: who waits for a notification learns that none will come."""
        for stream in self._subscribers:
            stream.close()
        self._subscribers.clear()


def _failed(code: int, message: str) -> bytes:
    return msgspec.json.encode({"Result": int(code), "ErrorMessage": message})
