"""What the service keeps of each compute system, and where its files are."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

import msgspec

from silo.host.hcs.states import SystemState
from silo.schema.hcs import ContainerDocument
from silo.store import Delete, Put

TABLE: Final = "compute_systems"


class SystemRecord(msgspec.Struct, kw_only=True):
    """One compute system.  ``*_began`` are start times in ticks since boot ``boot``: a pid alone names nobody.

    ``forced``: its end was asked for by force.  ``lost``: its exit code is not known, the monitor died first.
    """

    id: str
    state: SystemState
    runtime: str
    document: ContainerDocument
    cgroup: str
    monitor_pid: int
    monitor_began: int
    pid: int
    pid_began: int
    runtime_id: str
    boot: str
    exit_code: int = 0
    finished_ns: int = 0
    oom_killed: bool = False
    process_created: bool = False
    forced: bool = False
    lost: bool = False

    def put(self) -> Put:
        """The step that records it."""
        return Put(TABLE, self.id, msgspec.json.encode(self))


class MakingPlan(msgspec.Struct, frozen=True):
    """Where a system's things go, written before the first of them is made: who finds it can undo them."""

    cgroup: str
    bundle: str


def forget(system_id: str) -> Delete:
    """The step that forgets a system."""
    return Delete(TABLE, system_id)


class Folders(msgspec.Struct, frozen=True):
    """Where the service keeps files that need not outlive a reboot, below the exec root."""

    root: Path

    @property
    def exits(self) -> Path:
        """Here conmon leaves each exit code, in a file of the system's id."""
        return self.root / "exits"

    @property
    def runtime(self) -> Path:
        """The OCI runtime's state."""
        return self.root / "runtime"

    def system(self, system_id: str) -> Path:
        """One system's files; it is there before anything else of the system is."""
        return self.root / "hcs" / system_id

    def plan(self, system_id: str) -> Path:
        """The system's :class:`MakingPlan`."""
        return self.system(system_id) / "plan"

    def pidfile(self, system_id: str) -> Path:
        """The container process's pid, written by conmon."""
        return self.system(system_id) / "pid"

    def exit_file(self, system_id: str) -> Path:
        """The exit code, written by conmon."""
        return self.exits / system_id

    def remove(self) -> None:
        """Remove the folders that are empty."""
        for folder in (self.exits, self.runtime, self.root / "hcs"):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def make(self) -> None:
        """Make the folders of all systems."""
        for folder in (self.exits, self.runtime, self.root / "hcs"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o711)
