"""``POST /containers/{id}/start``: the three strips in order, one undo stack.

1 storage: the scratch layer is activated and prepared.  2 network: endpoints are made in HNS, with no kernel effect.
3 compute: the compute system is created (compartment, vNIC, cgroup), attached clients are connected, it is started and
the process runs (ARCHITECTURE, section 1).
"""

from __future__ import annotations

from pathlib import Path

from silo.daemon import logconfig, rotation
from silo.daemon.clock import now
from silo.daemon.container import NEVER, Container, Status
from silo.daemon.daemon import Daemon
from silo.daemon.document import container_document
from silo.daemon.facts import container_facts, endpoint_requests, shown_settings
from silo.daemon.files import write_files
from silo.daemon.life import Ended
from silo.daemon.logconfig import Rotation
from silo.daemon.logfile import LogFiles
from silo.daemon.remove import release
from silo.errors import Conflict, HostFault, NotFound, NotModified, SiloError
from silo.network.model import Sandbox
from silo.resources import Undo, leaf
from silo.telemetry import assign, traced


@traced("daemon::ContainerStart", "reference")
async def start(daemon: Daemon, reference: str) -> None:
    """Start the container; on return its process runs.

    Raises NotModified when it runs already, Conflict when it may not start now; a failure of a strip is raised as it
    is, after everything that was done is undone, the record holds it and who waits is told.
    """
    container = daemon.registry.find(reference)
    assign(container.id)
    async with daemon.registry.life(container).lock:
        _check(daemon, container)
        try:
            async with Undo() as undo:
                await _start(daemon, container, undo)
                undo.pop_all()
        except SiloError as exc:
            await _failed(daemon, container, exc)
            raise
    daemon.tell(container, "start")


def _check(daemon: Daemon, container: Container) -> None:
    match container.state.status:
        case Status.RUNNING:
            raise NotModified(f"container {container.id} is already running")
        case Status.PAUSED:
            raise Conflict("cannot start a paused container, try unpause instead")
        case Status.REMOVING | Status.DEAD:
            raise Conflict("container is marked for removal and cannot be started")
    if daemon.registry.get(container.id) is None:
        raise NotFound(f"No such container: {container.id}")


async def _start(daemon: Daemon, container: Container, undo: Undo) -> None:
    plan = _logging(daemon, container)
    root = await daemon.layers.mount(container.id)
    undo.push_async_callback(daemon.layers.unmount, container.id)
    sandbox = await daemon.network.allocate(container.id, container.name, endpoint_requests(container))
    undo.push_async_callback(daemon.network.release, container.id)
    folder = daemon.container_dir(container.id)
    await leaf(write_files, folder, container, sandbox, daemon.facts.name)
    async with daemon.log_locks.hold(container.id):
        await leaf(rotation.prepare, LogFiles(daemon.log_path(container.id)), plan)
    undo.push_async_callback(daemon.systems.close, container.id)
    await _run(daemon, container, root, sandbox)


def _logging(daemon: Daemon, container: Container) -> Rotation:
    """What the log's options come to.  Raises HostFault, as dockerd, for a driver that cannot work so."""
    try:
        logconfig.check(container, daemon.facts.name)
        return logconfig.rotation(container.host_config.log_config)
    except HostFault as exc:
        raise HostFault(f"failed to create task for container: failed to initialize logging driver: {exc}") from exc


async def _run(daemon: Daemon, container: Container, root: Path, sandbox: Sandbox) -> None:
    """Create the compute system, connect who is attached, start, and record that it runs."""
    life = daemon.registry.life(container)
    document = container_document(container_facts(daemon, container, root, sandbox))
    await daemon.systems.create(container.id, document)
    for slot in life.attaching:
        slot.connect(await daemon.systems.attach(container.id))
    life.attaching.clear()
    await daemon.systems.start(container.id)
    started = now()  # before the process runs: an exit is never earlier than its start
    pid = await daemon.systems.create_process(container.id, document)
    container.move("start")
    state = container.state
    state.pid, state.started_at, state.finished_at = pid, started, NEVER
    state.error, state.exit_code, state.oom_killed = "", 0, False
    container.sandbox_key = sandbox.key
    container.networks = {
        name: shown_settings(sandbox, name, asked) for name, asked in container.wanted_networks.items()
    }
    await daemon.registry.save(container)


async def _failed(daemon: Daemon, container: Container, exc: SiloError) -> None:
    """Record why the start failed, and tell who waits."""
    life = daemon.registry.life(container)
    container.state.error = str(exc)
    container.state.exit_code = exit_code_for(str(exc))
    await daemon.registry.save(container)
    for slot in life.attaching:
        slot.cancel()
    life.attaching.clear()
    life.ended(Ended(container.state.exit_code, str(exc)))
    if container.host_config.auto_remove:
        await release(daemon, container, volumes=True)


def exit_code_for(text: str) -> int:
    """127 for a command that is not there, 126 for one that cannot be run, else 128 (dockerd's rule)."""
    lower = text.lower()
    if "executable file not found" in lower or "no such file or directory" in lower:
        return 127
    if "permission denied" in lower or "is a directory" in lower:
        return 126
    return 128
