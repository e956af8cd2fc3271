"""Stopping: the stop signal, patience, then SIGKILL; and signals by themselves."""

from __future__ import annotations

import signal
from typing import Final

import anyio

from silo.daemon.container import Container, Status
from silo.daemon.daemon import Daemon
from silo.daemon.signals import parse_signal
from silo.daemon.wait import wait
from silo.errors import Conflict, HostFault, NotModified
from silo.telemetry import assign, traced

PATIENCE: Final = 10
"""Seconds between the stop signal and SIGKILL when nobody says otherwise."""
KILL_SECONDS: Final = 30
"""How long a container may take to vanish after SIGKILL before the verb gives up and says so."""


@traced("daemon::ContainerStop", "reference", "timeout")
async def stop(daemon: Daemon, reference: str, *, signal_name: str = "", timeout: int | None = None) -> None:
    """Stop the container; ``timeout`` in seconds, negative waits for ever.  Raises NotModified when it does not run."""
    container = daemon.registry.find(reference)
    assign(container.id)
    if container.state.status == Status.RESTARTING:
        daemon.registry.life(container).manually_stopped = True
        return
    if not container.running:
        raise NotModified(f"container {container.id} is not running")
    number = parse_signal(signal_name or container.config.stop_signal or "SIGTERM")
    if timeout is None:
        timeout = PATIENCE if container.config.stop_timeout is None else container.config.stop_timeout
    daemon.registry.life(container).manually_stopped = True
    exited = wait(daemon, container.id, "not-running")
    await daemon.systems.signal(container.id, number)
    with anyio.move_on_after(float("inf") if timeout < 0 else timeout):
        await exited()
    if container.running:
        await _terminate(daemon, container)
    daemon.tell(container, "stop")


async def _terminate(daemon: Daemon, container: Container) -> None:
    exited = wait(daemon, container.id, "not-running")
    await daemon.systems.terminate(container.id)
    with anyio.move_on_after(KILL_SECONDS) as scope:
        await exited()
    if scope.cancelled_caught:
        raise HostFault(f"container {container.id} did not end within {KILL_SECONDS} s of SIGKILL")


@traced("daemon::ContainerKill", "reference", "signal_name")
async def kill(daemon: Daemon, reference: str, signal_name: str) -> None:
    """Send a signal to the container's process; SIGKILL returns once it is gone.  Raises Conflict."""
    number = parse_signal(signal_name or "SIGKILL")
    container = daemon.registry.find(reference)
    assign(container.id)
    if not container.running:
        raise Conflict(f"cannot kill container: {reference}: container {container.id} is not running")
    if number == signal.SIGKILL:
        daemon.registry.life(container).manually_stopped = True
        await _terminate(daemon, container)
    else:
        await daemon.systems.signal(container.id, number)
    daemon.tell(container, "kill", signal=number)


async def kill_if_running(daemon: Daemon, container: Container) -> None:
    """End the container at once if it runs; for removal by force."""
    if container.running:
        daemon.registry.life(container).manually_stopped = True
        await _terminate(daemon, container)
        daemon.tell(container, "kill", signal=int(signal.SIGKILL))
