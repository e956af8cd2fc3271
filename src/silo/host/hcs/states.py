"""The life of a compute system, as one table (reference, section 4.2)."""

from __future__ import annotations

import enum
from typing import Final

from silo.host.results import Code, HostError


class SystemState(enum.StrEnum):
    """The words of ``HcsGetComputeSystemProperties``."""

    CREATED = "Created"
    RUNNING = "Running"
    PAUSED = "Paused"
    STOPPED = "Stopped"


MOVES: Final = {
    (SystemState.CREATED, "start"): SystemState.RUNNING,
    (SystemState.RUNNING, "create process"): SystemState.RUNNING,
    (SystemState.RUNNING, "pause"): SystemState.PAUSED,
    (SystemState.PAUSED, "resume"): SystemState.RUNNING,
    (SystemState.RUNNING, "shut down"): SystemState.RUNNING,
    (SystemState.PAUSED, "shut down"): SystemState.PAUSED,
    (SystemState.CREATED, "terminate"): SystemState.CREATED,
    (SystemState.RUNNING, "terminate"): SystemState.RUNNING,
    (SystemState.PAUSED, "terminate"): SystemState.PAUSED,
    (SystemState.CREATED, "exit"): SystemState.STOPPED,
    (SystemState.RUNNING, "exit"): SystemState.STOPPED,
    (SystemState.PAUSED, "exit"): SystemState.STOPPED,
}
"""Shutdown and termination are requests: the state changes when the process has ended."""


def move(system_id: str, state: SystemState, verb: str) -> SystemState:
    """The state after ``verb``.  Raises HostError: already stopped, or invalid state."""
    following = MOVES.get((state, verb))
    if following is not None:
        return following
    if state == SystemState.STOPPED:
        raise HostError(Code.SYSTEM_ALREADY_STOPPED, f"cannot {verb} compute system {system_id}: it has stopped")
    raise HostError(Code.INVALID_STATE, f"cannot {verb} compute system {system_id}: it is {state}")
