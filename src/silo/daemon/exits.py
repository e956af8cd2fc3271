"""What happens when a container's process ends: the record first, then who waits, then its things are released."""

from __future__ import annotations

import logging

from silo.daemon.clock import nanoseconds, rfc3339
from silo.daemon.container import Container
from silo.daemon.daemon import Daemon
from silo.daemon.life import Ended
from silo.daemon.remove import release
from silo.errors import SiloError
from silo.execution.systems import Exit
from silo.telemetry import assign, new_trace

log = logging.getLogger(__name__)


async def watch(daemon: Daemon) -> None:
    """Handle every exit, each in a task of its own, until cancelled."""
    async for event in daemon.systems.exits:
        container = daemon.registry.get(event.container_id)
        if container is not None:
            daemon.tasks.start_soon(ended, daemon, container, event)


async def ended(daemon: Daemon, container: Container, event: Exit) -> None:
    """One container ended.  Waiters are told once the state is durable; teardown follows under the container's lock."""
    life = daemon.registry.life(container)
    with new_trace("daemon::ContainerExit", exit_code=event.exit_code, oom_killed=event.oom_killed):
        assign(container.id)
        async with life.lock:
            if not container.running:
                return
            record_exit(container, event)
            await daemon.registry.save(container)
            ran = nanoseconds(container.state.finished_at) - nanoseconds(container.state.started_at)
            if event.oom_killed:
                daemon.tell(container, "oom")
            daemon.tell(container, "die", exitCode=event.exit_code, execDuration=max(0, ran) // 1_000_000_000)
            life.ended(Ended(event.exit_code))
            life.manually_stopped = False
            try:
                await teardown(daemon, container)
                if container.host_config.auto_remove:
                    await release(daemon, container, volumes=True)
            except SiloError:  # what is left is found again by the next start, removal or start-up
                log.exception("release container %s after its exit", container.id)


def record_exit(container: Container, event: Exit) -> None:
    """Put the end of a run into the container's state."""
    container.move("exit")
    container.state.pid = 0
    container.state.exit_code = event.exit_code
    container.state.oom_killed = event.oom_killed
    container.state.finished_at = rfc3339(event.finished_ns)
    container.sandbox_key = ""
    container.networks = dict(container.wanted_networks)


async def teardown(daemon: Daemon, container: Container) -> None:
    """Release what a run held: the compute system first, then the network, then the mount."""
    await daemon.systems.close(container.id)
    await daemon.network.release(container.id)
    await daemon.layers.unmount(container.id)
