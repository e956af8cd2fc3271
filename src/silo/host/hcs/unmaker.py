"""Takes compute systems apart: those whose process has ended, and those that a failure or a crash left half made."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Final

import anyio
import msgspec

from silo.errors import HostFault
from silo.host.hcs.records import Folders, MakingPlan, SystemRecord
from silo.host.hcs.runtime import Runtime, locate
from silo.host.hcs.states import move
from silo.host.linux import pidfd
from silo.host.linux.cgroup import Cgroups, ControlGroup
from silo.host.linux.proc import processes
from silo.host.linux.spawn import Spawner
from silo.resources import leaf
from silo.telemetry import effect

LOST: Final = 255
"""The exit code when the monitor died without leaving one, as dockerd gives it."""
KILL_SECONDS: Final = 5.0
_RETRIES: Final = (0.0, 0.002, 0.01, 0.05, 0.2, 1.0, 2.0)
"""The kernel lets a cgroup go a moment after its last process: seconds to wait before each try."""
_BUNDLE_FILES: Final = ("attach", "ctl", "winsz", "oom", "config.json")


class Unmaker:
    """The steps back; the service decides when they are taken."""

    def __init__(self, spawner: Spawner, folders: Folders, cgroups: Cgroups, runtime: Runtime, parent: str) -> None:
        self._spawner = spawner
        self._folders = folders
        self._cgroups = cgroups
        self._runtime = runtime
        self._parent = parent

    async def wait_monitor(self, record: SystemRecord) -> None:
        """Return when the monitor has ended."""
        fd = pidfd.open_process(record.monitor_pid, record.monitor_began)
        if fd is None:
            return
        try:
            await pidfd.wait_gone(fd)
        finally:
            os.close(fd)
        pidfd.reap(record.monitor_pid, record.monitor_began)

    def ended(self, record: SystemRecord) -> SystemRecord:
        """The record of a system whose monitor has ended, with how its process did.  Blocks."""
        path = self._folders.exit_file(record.id)
        lost = False
        try:
            code, finished = int(path.read_text("ascii")), path.stat().st_mtime_ns
        except (FileNotFoundError, ValueError):
            code, finished, lost = LOST, time.time_ns(), True
            pidfd.send_signal(record.pid, record.pid_began, signal.SIGKILL)  # nobody holds its streams any more
        oom = Path(record.document.BundlePath) / "oom"
        return msgspec.structs.replace(
            record,
            state=move(record.id, record.state, "exit"),
            exit_code=code,
            finished_ns=finished,
            lost=lost,
            oom_killed=oom.exists() or ControlGroup(self._cgroups, record.cgroup).oom_kills() > 0,
        )

    async def dismantle(self, record: SystemRecord) -> None:
        """Runtime state, cgroup and files of a system whose process has ended."""
        path = locate(record.runtime)
        if path is not None:
            await self._spawner.run([path, f"--root={self._folders.runtime}", "delete", record.id])
        await leaf(shutil.rmtree, self._folders.runtime / record.id, ignore_errors=True)
        await self._remove_group(record.cgroup)
        await leaf(self._remove_files, record.id, Path(record.document.BundlePath))

    async def undo(self, system_id: str) -> None:
        """Take away whatever there is of a system that was not made to its end; nothing of it need exist."""
        plan = await leaf(self._plan, system_id)
        group = ControlGroup(self._cgroups, plan.cgroup)
        await self._kill_makers(system_id)
        await leaf(group.thaw)
        await leaf(group.kill)
        if (self._folders.runtime / system_id).exists():
            await self._spawner.run(
                [self._runtime.path, f"--root={self._folders.runtime}", "delete", "--force", system_id]
            )
            await leaf(shutil.rmtree, self._folders.runtime / system_id, ignore_errors=True)
        try:
            await self._remove_group(plan.cgroup)
        finally:
            await leaf(self._remove_files, system_id, Path(plan.bundle) if plan.bundle else None)

    def _plan(self, system_id: str) -> MakingPlan:
        """What was to be made; without a note of it, where things go by default."""
        try:
            return msgspec.json.decode(self._folders.plan(system_id).read_bytes(), type=MakingPlan)
        except (FileNotFoundError, msgspec.MsgspecError):
            return MakingPlan(f"{self._parent}/{system_id}", "")

    async def _kill_makers(self, system_id: str) -> None:
        """End the system's conmon and OCI runtime, which outlive a killed silod and may still be at work.

        They are known by their arguments: a pid file might not have been written yet, or name a stranger by now.
        """
        root = f"--root={self._folders.runtime}"
        while victims := await leaf(_naming, system_id, root):
            for pid, began in victims:
                if not await pidfd.kill_and_wait(pid, began, KILL_SECONDS):
                    raise HostFault(f"process {pid} of compute system {system_id} does not end")

    def orphans(self, known: set[str]) -> set[str]:
        """Ids of systems that something is left of, other than the known ones.  Blocks."""
        folders = [self._folders.root / "hcs", self._folders.runtime, self._folders.exits]
        folders += ControlGroup(self._cgroups, self._parent).directories()
        names: set[str] = set()
        for folder in folders:
            with contextlib.suppress(OSError):
                names.update(entry.name for entry in folder.iterdir() if entry.is_dir() or folder == folders[2])
        return names - known

    async def _remove_group(self, path: str) -> None:
        group = ControlGroup(self._cgroups, path)
        for pause in _RETRIES:
            await anyio.sleep(pause)
            if await leaf(group.remove):
                effect("cgroup", "-", path)
                return
            # with the host's pid namespace, what the init started is still there
            await leaf(group.thaw)
            await leaf(group.kill)
        raise HostFault(f"cgroup {path} cannot be removed: processes {group.pids()} are still in it")

    def _remove_files(self, system_id: str, bundle: Path | None) -> None:
        self._folders.exit_file(system_id).unlink(missing_ok=True)
        shutil.rmtree(self._folders.system(system_id), ignore_errors=True)
        if bundle is not None:
            for name in _BUNDLE_FILES:
                (bundle / name).unlink(missing_ok=True)


def _naming(system_id: str, root: str) -> list[tuple[int, int]]:
    """Processes with both words among their arguments that have not ended."""
    found = [(one.pid, one.began) for one in processes() if system_id in one.argv and root in one.argv]
    return [(pid, began) for pid, began in found if not pidfd.has_ended(pid, began)]
