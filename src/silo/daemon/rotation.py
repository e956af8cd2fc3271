"""Log rotation: a file that has its size gets a number, conmon begins another, the oldest go.

conmon writes on while this happens, also when silod is killed in the middle: the file has its second name before conmon
is told, so nothing is ever without a name, and the next look finishes what was begun.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Final

import anyio

from silo.daemon import logconfig
from silo.daemon.container import Container
from silo.daemon.daemon import Daemon
from silo.daemon.logconfig import Rotation
from silo.daemon.logfile import LogFiles
from silo.errors import SiloError
from silo.ids import ContainerID
from silo.resources import leaf

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = (0.02, 0.2)
"""How often sizes are looked at: the faster a log grows, the sooner again."""
RETRY_SECONDS: Final = 1.0
"""How long to leave a log alone that could not be rotated."""
REOPEN_SECONDS: Final = 5.0
"""How long conmon may take to begin a new file; after that it is asked again, at the next look."""


class Watch:
    """Looks at the sizes of running containers' logs."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._seen: dict[ContainerID, tuple[float, int]] = {}
        self._plans: dict[ContainerID, Rotation] = {}
        self._busy: set[ContainerID] = set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            pause = self._look()
            await anyio.sleep(pause)

    def _look(self) -> float:
        """Begin the rotations that are due; return when to look again, in seconds."""
        running = [one for one in self._daemon.registry.all() if one.running]
        ids = {one.id for one in running}
        for table in (self._seen, self._plans):
            for gone in table.keys() - ids:
                del table[gone]
        return min([self._look_at(one) for one in running], default=LOOK_SECONDS[1])

    def _look_at(self, container: Container) -> float:
        plan = self._plans.get(container.id)
        if plan is None:
            plan = self._plans[container.id] = plan_of(container)
        if not plan.max_size or container.id in self._busy:
            return LOOK_SECONDS[1]
        try:
            size = os.stat(self._daemon.log_path(container.id)).st_size  # noqa: PTH116 - the cheapest way, done often
        except FileNotFoundError:
            return LOOK_SECONDS[1]
        if size >= plan.max_size:
            self._busy.add(container.id)
            self._daemon.tasks.start_soon(self._rotate, container, plan)
            return LOOK_SECONDS[0]
        moment = time.monotonic()
        then, before = self._seen.get(container.id, (moment, size))
        self._seen[container.id] = moment, size
        if size <= before:
            return LOOK_SECONDS[1]
        left = (plan.max_size - size) * (moment - then) / (size - before)
        return min(max(left / 2, LOOK_SECONDS[0]), LOOK_SECONDS[1])

    async def _rotate(self, container: Container, plan: Rotation) -> None:
        try:
            await rotate(self._daemon, container, plan)
        except (SiloError, OSError) as exc:  # the file grows on, and the next look tries again
            if container.running:
                log.warning("rotate the log of container %s: %s", container.id, exc)
                await anyio.sleep(RETRY_SECONDS)
        finally:
            self._busy.discard(container.id)


def plan_of(container: Container) -> Rotation:
    """The container's rotation; values that its driver refuses never came to run."""
    try:
        return logconfig.rotation(container.host_config.log_config)
    except SiloError:
        return Rotation()


async def rotate(daemon: Daemon, container: Container, plan: Rotation) -> None:
    """Begin a new log file, and put the finished ones in order.  Raises SiloError, OSError; can be repeated."""
    files = LogFiles(daemon.log_path(container.id))
    async with daemon.log_locks.hold(container.id):
        inode = await leaf(files.retire)
        if not await daemon.systems.reopen_log(container.id, inode):
            await leaf(files.settle)  # it has ended: the file stays the present one
            return
        await leaf(files.wait_begun, inode, REOPEN_SECONDS)
        await leaf(files.tidy, plan.max_files, compress=plan.compress)


def prepare(files: LogFiles, plan: Rotation) -> None:
    """Make the log ready for a run, when nobody writes it: no torn last line, no half-done rotation.  Blocks."""
    files.settle()
    if plan.max_size and files.path.exists() and files.path.stat().st_size >= plan.max_size:
        files.retire()
        files.path.unlink()
        files.tidy(plan.max_files, compress=False)  # what is to be compressed waits for the next rotation
