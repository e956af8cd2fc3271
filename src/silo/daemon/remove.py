"""``DELETE /containers/{id}``: from the moment the record is gone the container is gone; start-up finishes the rest."""

from __future__ import annotations

import shutil
from pathlib import Path

from silo.daemon.container import Container, Status
from silo.daemon.daemon import Daemon
from silo.daemon.stop import kill_if_running
from silo.errors import Conflict
from silo.resources import leaf
from silo.telemetry import assign, effect, traced


@traced("daemon::ContainerRemove", "reference", "force", "volumes")
async def remove(daemon: Daemon, reference: str, *, force: bool = False, volumes: bool = False) -> None:
    """Remove the container, with ``volumes`` also its anonymous ones.  Raises NotFound, Conflict while it runs."""
    container = daemon.registry.find(reference)
    assign(container.id)
    life = daemon.registry.life(container)
    while not life.removed:
        _check(container, reference, force=force)
        await kill_if_running(daemon, container)
        async with life.lock:  # the exit's cleanup holds it: nothing of the last run is left when we get it
            if not (life.removed or container.running):  # a start may have been under way
                await release(daemon, container, volumes=volumes)


def _check(container: Container, reference: str, *, force: bool) -> None:
    if container.state.status == Status.REMOVING:
        raise Conflict(f"removal of container {reference} is already in progress")
    if container.running and not force:
        paused = container.state.status == Status.PAUSED
        hint = "unpause and then stop" if paused else "stop"
        raise Conflict(
            f'cannot remove container "/{container.name}": container is {container.state.status}: '
            f"{hint} the container before removing or force remove"
        )


async def release(daemon: Daemon, container: Container, *, volumes: bool) -> None:
    """Take apart a container that does not run; the caller holds its lock."""
    life = daemon.registry.life(container)
    container.move("remove")
    try:
        await daemon.registry.save(container)
        await daemon.systems.close(container.id)
        await daemon.network.release(container.id)
        await daemon.layers.release_rw_layer(container.id)
        folder = daemon.container_dir(container.id)
        async with daemon.log_locks.hold(container.id):
            await leaf(_delete_folder, folder)
    except BaseException:
        container.move("fail")
        await daemon.registry.save(container)
        raise
    await daemon.registry.drop(container)
    for slot in life.attaching:
        slot.cancel()
    life.gone()
    daemon.tell(container, "destroy")
    if volumes:
        await _remove_anonymous(daemon, container)
    daemon.tasks.start_soon(daemon.traces.prune, [other.id for other in daemon.registry.all()])


def _delete_folder(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
        effect("file", "-", folder)


async def _remove_anonymous(daemon: Daemon, container: Container) -> None:
    for point in container.mounts:
        if point.type == "volume" and point.anonymous and not users_of(daemon, point.name):
            await daemon.volumes.remove(point.name, [])


def users_of(daemon: Daemon, volume: str) -> list[str]:
    """Ids of the containers that mount the volume."""
    return [
        container.id for container in daemon.registry.all() if any(point.name == volume for point in container.mounts)
    ]
