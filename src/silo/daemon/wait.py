"""``POST /containers/{id}/wait``: who waits is registered at once, the answer comes at the exit.

Unlike dockerd's, a wait is also completed when a start fails (reference, pain point 28).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from silo.daemon.container import Container
from silo.daemon.daemon import Daemon
from silo.daemon.life import Ended, Life
from silo.errors import InvalidParameter
from silo.telemetry import assign

Outcome = Callable[[], Awaitable[Ended]]
CONDITIONS: Final = ("not-running", "next-exit", "removed")


def wait(daemon: Daemon, reference: str, condition: str) -> Outcome:
    """Register a waiter now; await what is returned for the outcome.  Raises NotFound, InvalidParameter."""
    condition = condition or "not-running"
    if condition not in CONDITIONS:
        raise InvalidParameter(f'invalid condition: "{condition}"')
    container = daemon.registry.find(reference)
    assign(container.id)
    life = daemon.registry.life(container)
    seen = life.runs_ended

    async def outcome() -> Ended:
        while not _met(condition, container, life, seen):
            await life.next_change()
        if life.runs_ended == seen:
            return Ended(container.state.exit_code, container.state.error)
        return life.last

    return outcome


def _met(condition: str, container: Container, life: Life, seen: int) -> bool:
    match condition:
        case "removed":
            return life.removed
        case "next-exit":
            return life.runs_ended > seen or life.removed
        case _:
            return not container.running or life.removed
