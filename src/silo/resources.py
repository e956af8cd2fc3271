"""Who releases what: undo stacks, locks by key, and leaves that may block."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Final, Generic, ParamSpec, TypeVar

import anyio
import anyio.to_thread

UNDO_SECONDS: Final = 30.0
"""How long all undo steps of one operation together may take."""

K = TypeVar("K")
P = ParamSpec("P")
R = TypeVar("R")


class Undo(AsyncExitStack):
    """Steps back, in reverse order, shielded from cancellation and within a deadline.

    Push a step as soon as what it undoes exists; ``pop_all`` on success hands the steps on instead of running them.
    (A plain AsyncExitStack stops at its first ``await`` when the request is cancelled, and leaks the rest.)
    """

    async def __aexit__(self, *exc: object) -> bool:
        with anyio.fail_after(UNDO_SECONDS, shield=True):
            return bool(await super().__aexit__(*exc))  # type: ignore[arg-type]


@contextmanager
def ungrouped() -> Generator[None]:
    """Let the one exception of a task group out of its group: callers understand the error, not its wrapping."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from None


class KeyedLock(Generic[K]):
    """One lock per key, there only while somebody holds or wants it."""

    def __init__(self) -> None:
        self._locks: dict[K, tuple[anyio.Lock, int]] = {}

    @asynccontextmanager
    async def hold(self, key: K) -> AsyncGenerator[None]:
        """Hold the lock of ``key`` for the block."""
        lock, users = self._locks.get(key, (None, 0))
        lock = lock or anyio.Lock()
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[key]
            if users == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, users - 1)

    def __len__(self) -> int:
        """How many keys are held or wanted."""
        return len(self._locks)


async def leaf(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run blocking kernel or disk work in a worker thread.  The context (span) goes along; it is not interrupted."""
    return await anyio.to_thread.run_sync(partial(function, *args, **kwargs))
