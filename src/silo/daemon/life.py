"""What silod knows of a container only while it runs itself: who waits for what, and who is attached."""

from __future__ import annotations

import anyio
import msgspec

from silo.execution.systems import Stdio


class Ended(msgspec.Struct, frozen=True):
    """How a run ended: the exit code and, for a run that never began, why."""

    exit_code: int
    error: str = ""


class Life:
    """What silod knows of a container only while it runs itself: the lock of its verbs, and who waits for what."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.runs_ended = 0
        self.last = Ended(0)
        self.removed = False
        self.manually_stopped = False
        self.attaching: list[AttachSlot] = []
        self._changed = anyio.Event()

    def ended(self, how: Ended) -> None:
        """A run ended, or a start failed: wake who waits for the next exit."""
        self.runs_ended += 1
        self.last = how
        self._wake()

    def gone(self) -> None:
        """The container is removed: wake who waits for that."""
        self.removed = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def next_change(self) -> None:
        """Wait until something above happens."""
        await self._changed.wait()


class AttachSlot:
    """Somebody who wants the streams of a container's next run from their first byte on.

    ``start`` connects every slot between creating the compute system and letting its process run.
    """

    def __init__(self) -> None:
        self.stdio: Stdio | None = None
        self.ready = anyio.Event()

    def connect(self, stdio: Stdio) -> None:
        """Hand over the streams; the slot's owner closes them."""
        self.stdio = stdio
        self.ready.set()

    def cancel(self) -> None:
        """There will be no run: the start failed, or the container is removed."""
        self.ready.set()
