"""Start-up: what ran goes on running, what ended meanwhile is recorded, what a crash cut short is finished."""

from __future__ import annotations

import logging
import shutil
import time
from typing import Final

from silo.daemon.container import Container, Status
from silo.daemon.daemon import Daemon
from silo.daemon.exits import record_exit, teardown
from silo.daemon.life import Ended
from silo.daemon.remove import release
from silo.errors import SiloError
from silo.execution.systems import Exit, Live
from silo.ids import ContainerID
from silo.resources import leaf
from silo.telemetry import assign, new_trace

log = logging.getLogger(__name__)

LOST: Final = 255
"""The exit code of a container whose end nobody saw (a reboot), as dockerd gives it."""


async def recover(daemon: Daemon) -> None:
    """Bring records, compute systems, networks and mounts into agreement.  Called once, before the API opens."""
    containers = daemon.registry.load()
    found = await daemon.systems.restore({container.id for container in containers})
    live = {key for key, what in found.items() if isinstance(what, Live)}
    await daemon.layers.restore(live)
    await _sweep(daemon, {container.id for container in containers})
    await daemon.images.restore()
    await daemon.volumes.restore()
    await daemon.network.restore(live)
    for container in containers:
        try:
            with new_trace("daemon::Restore"):
                await _one(daemon, container, found.get(container.id))
        except SiloError:
            log.exception("restore container %s", container.id)


async def _sweep(daemon: Daemon, known: set[ContainerID]) -> None:
    """A crash in the middle of a creation leaves a layer or a folder of a container that was never recorded."""
    for container_id in daemon.layers.containers():
        if container_id not in known:
            await daemon.layers.release_rw_layer(container_id)
    for folder in (daemon.data_root / "containers").iterdir():
        if folder.name not in known:
            await leaf(shutil.rmtree, folder)


async def _one(daemon: Daemon, container: Container, what: Live | Exit | None) -> None:
    if isinstance(what, Live):
        if not container.running:  # the crash came between the process's start and the record of it
            assign(container.id)
            await daemon.systems.terminate(container.id)
            await teardown(daemon, container)
        return
    if container.running:
        assign(container.id)
        event = what if isinstance(what, Exit) else Exit(container.id, LOST, time.time_ns(), oom_killed=False)
        record_exit(container, event)
        await daemon.registry.save(container)
        daemon.registry.life(container).last = Ended(event.exit_code)
        await teardown(daemon, container)
        if container.host_config.auto_remove:
            await release(daemon, container, volumes=True)
    elif isinstance(what, Exit):  # recorded, and the crash came before its compute system was closed
        assign(container.id)
        await teardown(daemon, container)
    elif container.state.status in {Status.REMOVING, Status.DEAD}:
        assign(container.id)
        container.state.status = Status.DEAD
        await release(daemon, container, volumes=False)
