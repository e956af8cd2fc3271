"""HCS: what ``vmcompute.dll`` exports about compute systems and processes, each export one handler.

Creating a system makes its compartment (through the Protocol below: HNS is a service beside this one), its cgroup, and
an init that waits; the process runs at ``HcsCreateProcess``.  Nothing about a system is only in memory.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

import anyio
import msgspec
from anyio.abc import TaskGroup

from silo.errors import SiloError
from silo.host.hcs import conmon, eventlog, views
from silo.host.hcs.maker import Maker
from silo.host.hcs.records import TABLE, Folders, SystemRecord, forget
from silo.host.hcs.runtime import Runtime, probe
from silo.host.hcs.states import SystemState, move
from silo.host.hcs.unmaker import Unmaker
from silo.host.linux import cgroup, pidfd
from silo.host.linux.proc import boot_id
from silo.host.linux.spawn import Spawner
from silo.host.results import Code, HostError
from silo.resources import KeyedLock, Undo, leaf
from silo.schema import hcs
from silo.schema.hcs import ContainerDocument, Notification, SystemExitStatus
from silo.store import Step, Store, decode_all
from silo.telemetry import annotate, assign, effect, new_trace

log = logging.getLogger(__name__)

Handler = Callable[..., Awaitable[Any]]
GONE_SECONDS: Final = 30.0
"""How long a killed process may take to disappear before closing its system fails."""


class Compartments(Protocol):
    """What HCS needs of HNS."""

    async def create_compartment(self, container_id: str, endpoint_ids: Sequence[str], mode: str) -> str:
        """Make the compartment with its endpoints; return the path of its namespace, empty for the host's."""
        ...

    async def release_compartment(self, container_id: str) -> None:
        """Take it away; nothing happens when there is none."""
        ...

    async def attach_endpoint(self, container_id: str, endpoint_id: str) -> None:
        """Add an endpoint to a live compartment."""
        ...

    async def detach_endpoint(self, container_id: str, endpoint_id: str) -> None:
        """Take an endpoint out of a live compartment."""
        ...


class HcsService:
    """The compute systems of this engine."""

    def __init__(
        self,
        store: Store,
        *,
        exec_root: Path,
        instance: str,
        compartments: Compartments,
        notify: Callable[[Notification], None],
        runtime: str = "",
    ) -> None:
        self._store = store
        self._folders = Folders(exec_root)
        self._parent = f"/silo-{instance}"
        self._compartments = compartments
        self._notify = notify
        self._wanted_runtime = runtime
        self._cgroups = cgroup.host()
        self._spawner = Spawner(self._cgroups)
        self._systems: dict[str, SystemRecord] = {}
        self._locks: KeyedLock[str] = KeyedLock()
        self._orders: KeyedLock[str] = KeyedLock()
        self._cleaned: dict[str, anyio.Event] = {}
        self._tasks: TaskGroup
        self._maker: Maker
        self._unmaker: Unmaker
        self.runtimes: list[Runtime] = []

    @property
    def cgroup_version(self) -> str:
        """``1`` or ``2``."""
        return self._cgroups.version

    async def __aenter__(self) -> Self:
        self._folders.make()
        self.runtimes = await probe(self._spawner, self._wanted_runtime)
        parts = self._spawner, self._folders, self._cgroups, self.runtimes[0]
        self._unmaker = Unmaker(*parts, self._parent)
        self._maker = Maker(*parts, self._unmaker)
        self._tasks = await anyio.create_task_group().__aenter__()
        await self._restore()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()  # the watches end; the monitors go on
        await self._tasks.__aexit__(None, None, None)
        with anyio.CancelScope(shield=True):
            if not self._systems:
                await leaf(self._idle)
        self._spawner.close()

    def _idle(self) -> None:
        """Without systems nothing of ours need be there."""
        cgroup.ControlGroup(self._cgroups, self._parent).remove()
        self._folders.remove()

    def exports(self) -> dict[str, Handler]:
        """The service's part of the function table."""
        return {
            "HcsCreateComputeSystem": self.create,
            "HcsOpenComputeSystem": self.open,
            "HcsStartComputeSystem": self.start,
            "HcsShutdownComputeSystem": self.shutdown,
            "HcsTerminateComputeSystem": self.terminate,
            "HcsPauseComputeSystem": self.pause,
            "HcsResumeComputeSystem": self.resume,
            "HcsGetComputeSystemProperties": self.properties,
            "HcsModifyComputeSystem": self.modify,
            "HcsCloseComputeSystem": self.close,
            "HcsEnumerateComputeSystems": self.enumerate,
            "HcsCreateProcess": self.create_process,
            "HcsModifyProcess": self.modify_process,
            "HcsSignalProcess": self.signal_process,
            "HcsTerminateProcess": self.terminate_process,
            "HcsGetProcessProperties": self.process_properties,
            "HcsWaitProcess": self.wait_process,
            "HcsGetProcessInfo": self.process_info,
            "GetWinEvents": self.events,
        }

    def _find(self, system_id: str) -> SystemRecord:
        record = self._systems.get(system_id)
        if record is None:
            raise HostError(Code.SYSTEM_NOT_FOUND, f"compute system {system_id} does not exist")
        return record

    def _logged(self, verb: str, system_id: str, result: int = 0, detail: str = "") -> Step:
        return eventlog.entry(verb, system_id, result, _moment(), detail)

    async def create(self, SystemId: str, Configuration: dict[str, Any]) -> None:  # noqa: N803 - names of the wire
        """Make the system and all its kernel objects, with an init that waits.  All or nothing."""
        document = msgspec.convert(Configuration, ContainerDocument)
        async with self._locks.hold(SystemId):
            if SystemId in self._systems:
                raise HostError(Code.SYSTEM_ALREADY_EXISTS, f"compute system {SystemId} exists already")
            try:
                record = await self._make(SystemId, document)
            except Exception as exc:
                await self._store.write(self._logged("create", SystemId, int(Code.FAIL), str(exc)))
                raise
            self._watch(record)
        self._told(record, hcs.CREATE_COMPLETED)

    async def _make(self, system_id: str, document: ContainerDocument) -> SystemRecord:
        """Make it and write it down: a system without a record would be nobody's."""
        async with Undo() as undo:
            record = await self._maker.make(system_id, document, self._compartments)
            undo.push_async_callback(self._compartments.release_compartment, system_id)
            undo.push_async_callback(self._unmaker.undo, system_id)
            await self._store.write(record.put(), self._logged("create", system_id))
            undo.pop_all()
        self._systems[system_id] = record
        return record

    async def open(self, SystemId: str) -> None:  # noqa: N803
        """Raises HostError when there is no such system."""
        self._find(SystemId)

    def _told(self, record: SystemRecord, kind: int) -> None:
        self._notify(Notification(Type=kind, SystemId=record.id, RuntimeId=record.runtime_id))

    async def start(self, SystemId: str) -> None:  # noqa: N803
        """From Created to Running: from now on processes can be created."""
        record = self._find(SystemId)
        record.state = move(SystemId, record.state, "start")
        self._told(record, hcs.START_COMPLETED)

    async def create_process(self, SystemId: str, Process: dict[str, Any]) -> dict[str, Any]:  # noqa: N803
        """Let the waiting init become the system's process."""
        record = self._find(SystemId)
        async with self._locks.hold(SystemId):
            record.state = move(SystemId, record.state, "create process")
            if record.process_created:
                raise HostError(Code.NOT_SUPPORTED, f"compute system {SystemId} has its process already")
            try:
                await self._maker.start(record)
            except SiloError as exc:
                await self._store.write(self._logged("create process", SystemId, int(Code.FAIL), str(exc)))
                raise
            record.process_created = True
            effect("process", "+", f"{record.pid} {Process['CommandArgs'][0]}")
            await self._store.write(
                record.put(), self._logged("start", SystemId), self._logged("create process", SystemId)
            )
        return {"ProcessId": record.pid, "StdioSocket": str(self._attach_socket(record))}

    def _attach_socket(self, record: SystemRecord) -> Path:
        return Path(record.document.BundlePath) / "attach"

    async def process_info(self, SystemId: str) -> dict[str, Any]:  # noqa: N803
        """The process's pid, and the socket of its streams (SOCK_SEQPACKET, conmon's protocol)."""
        record = self._alive(SystemId)
        return {"ProcessId": record.pid, "StdioSocket": str(self._attach_socket(record))}

    def _alive(self, system_id: str) -> SystemRecord:
        record = self._find(system_id)
        if record.state == SystemState.STOPPED:
            raise _stopped(system_id)
        return record

    async def process_properties(self, SystemId: str) -> dict[str, Any]:  # noqa: N803
        """Whether the process has ended, and how (reference, section 4.5)."""
        return views.process(self._find(SystemId))

    async def wait_process(self, SystemId: str) -> None:  # noqa: N803
        """Return when the process has ended; its output may not be read to the end then, nor its exit recorded."""
        record = self._systems.get(SystemId)
        fd = None if record is None else pidfd.open_process(record.pid, record.pid_began)
        if fd is not None:
            try:
                await pidfd.wait_gone(fd)
            finally:
                os.close(fd)

    async def signal_process(self, SystemId: str, Signal: int) -> None:  # noqa: N803
        """Send any signal to the process."""
        self._kill(self._alive(SystemId), Signal)

    async def terminate_process(self, SystemId: str) -> None:  # noqa: N803
        """Kill the process."""
        await self._force(self._alive(SystemId))

    async def modify_process(
        self,
        SystemId: str,  # noqa: N803
        ConsoleSize: dict[str, int] | None = None,  # noqa: N803
        LogFile: int = 0,  # noqa: N803
    ) -> None:
        """Set the size of the console, or begin a new log file in the place of the one with inode ``LogFile``."""
        record = self._find(SystemId)
        bundle = Path(record.document.BundlePath)
        try:
            async with self._orders.hold(SystemId):
                if ConsoleSize is not None and record.document.Process.EmulateConsole:
                    await leaf(conmon.resize, bundle, ConsoleSize["Height"], ConsoleSize["Width"])
                if LogFile:
                    log_path = Path(record.document.LogPath)
                    await leaf(conmon.begin_log, bundle, log_path, LogFile, record.monitor_pid)
        except OSError as exc:
            if exc.errno not in {errno.ENOENT, errno.ENXIO, errno.EPIPE}:
                raise
            raise _stopped(SystemId) from exc

    async def shutdown(self, SystemId: str, Signal: int) -> None:  # noqa: N803
        """Ask the process to end, with a signal.  Completion is the exit's notification."""
        record = self._find(SystemId)
        move(SystemId, record.state, "shut down")
        self._kill(record, Signal)
        await self._store.write(self._logged("shut down", SystemId))

    async def terminate(self, SystemId: str) -> None:  # noqa: N803
        """Kill.  Completion is the exit's notification."""
        record = self._find(SystemId)
        move(SystemId, record.state, "terminate")
        await self._force(record)
        await self._store.write(self._logged("terminate", SystemId))

    async def _force(self, record: SystemRecord) -> None:
        record.forced = True
        self._kill(record, signal.SIGKILL)
        if record.state == SystemState.PAUSED:
            await leaf(cgroup.ControlGroup(self._cgroups, record.cgroup).thaw)

    def _kill(self, record: SystemRecord, number: int) -> None:
        if not pidfd.send_signal(record.pid, record.pid_began, number):
            raise _stopped(record.id)
        effect("signal", "+", f"{signal.Signals(number).name if number in [*signal.Signals] else number} {record.pid}")

    async def pause(self, SystemId: str) -> None:  # noqa: N803
        """Freeze every process of the system."""
        await self._freeze(SystemId, "pause", hcs.PAUSE_COMPLETED)

    async def resume(self, SystemId: str) -> None:  # noqa: N803
        """Let them go on."""
        await self._freeze(SystemId, "resume", hcs.RESUME_COMPLETED)

    async def _freeze(self, system_id: str, verb: str, notification: int) -> None:
        record = self._find(system_id)
        async with self._locks.hold(system_id):
            following = move(system_id, record.state, verb)
            await self._maker.freeze(record, verb)
            record.state = following
            await self._store.write(record.put(), self._logged(verb, system_id))
        self._told(record, notification)

    async def modify(self, SystemId: str, ResourceType: str, RequestType: str, Settings: str) -> None:  # noqa: N803
        """Hot attach and detach: ``{"ResourceType": "Network", "RequestType": "Add", "Settings": "<endpoint id>"}``."""
        record = self._find(SystemId)
        if record.state not in {SystemState.RUNNING, SystemState.PAUSED}:
            raise HostError(Code.INVALID_STATE, f"cannot modify compute system {SystemId}: it is {record.state}")
        if ResourceType != "Network" or RequestType not in {"Add", "Remove"}:
            raise HostError(Code.NOT_SUPPORTED, f"cannot {RequestType} {ResourceType} of compute system {SystemId}")
        if RequestType == "Add":
            await self._compartments.attach_endpoint(SystemId, Settings)
        else:
            await self._compartments.detach_endpoint(SystemId, Settings)
        await self._store.write(self._logged("modify", SystemId, 0, f"settings {RequestType} {Settings}"))

    async def properties(self, SystemId: str, PropertyTypes: Sequence[str] = ()) -> dict[str, Any]:  # noqa: N803
        """What the service knows of one system, with its create document; ``PropertyTypes`` asks for more.

        ``Statistics`` and ``ProcessList`` as in the reference, section 4.6.
        """
        record = self._find(SystemId)
        group = cgroup.ControlGroup(self._cgroups, record.cgroup)
        found = {**views.basic(record), "Document": record.document}
        if "Statistics" in PropertyTypes:
            found["Statistics"] = await leaf(views.statistics, group)
        if "ProcessList" in PropertyTypes:
            found["ProcessList"] = await leaf(views.process_list, group)
        return found

    async def enumerate(self) -> list[dict[str, Any]]:
        """Every system, without its document."""
        return [views.basic(record) for record in self._systems.values()]

    async def events(self, LogName: str = "") -> list[dict[str, Any]]:  # noqa: N803
        """The event log, oldest entry first."""
        return await leaf(eventlog.read, self._store, LogName)

    async def close(self, SystemId: str) -> None:  # noqa: N803
        """Release everything of the system: end it if it lives, then forget it.  Idempotent."""
        record = self._systems.get(SystemId)
        if record is None:
            return
        cleaned = self._cleaned[SystemId]
        if record.state != SystemState.STOPPED:
            with contextlib.suppress(HostError):  # it ended just now
                await self._force(record)
        with anyio.move_on_after(GONE_SECONDS) as scope:
            await cleaned.wait()
        if scope.cancelled_caught:
            raise HostError(Code.OPERATION_TIMEOUT, f"compute system {SystemId} did not end in {GONE_SECONDS} s")
        async with self._locks.hold(SystemId):
            await self._store.write(forget(SystemId))
            self._systems.pop(SystemId, None)
            self._cleaned.pop(SystemId, None)

    def _watch(self, record: SystemRecord) -> None:
        self._cleaned[record.id] = anyio.Event()
        self._tasks.start_soon(self._until_exit, record)

    async def _until_exit(self, record: SystemRecord) -> None:
        """Wait for the monitor to end: then the streams are drained and the exit code is on disk."""
        await self._unmaker.wait_monitor(record)
        with new_trace("hcs::SystemExited"):
            assign(record.id)
            try:
                await self._ended(record.id)
            except Exception:  # one system's trouble must not end the watch over the others
                log.exception("exit of compute system %s", record.id)

    async def _ended(self, system_id: str) -> None:
        """Record the exit, tell of it, and only then take the system apart."""
        # under the lock: a process may be over before the call that started it has returned and recorded so
        async with self._locks.hold(system_id):
            record = await leaf(self._unmaker.ended, self._systems[system_id])
            annotate(exit_code=record.exit_code)
            effect("process", "-", record.pid)
            await self._store.write(record.put(), self._logged("exit", system_id, 0, f"exit code {record.exit_code}"))
            # no await from here to the notification: who asks sees it stopped exactly when the notification is out
            self._systems[system_id] = record
            if record.process_created:
                self._notify(
                    Notification(
                        Type=hcs.PROCESS_EXITED,
                        SystemId=system_id,
                        RuntimeId=record.runtime_id,
                        ProcessId=record.pid,
                        EventData=views.process(record),
                    )
                )
        await self._clean(record)

    async def _clean(self, record: SystemRecord) -> None:
        """Take a stopped system apart, in the background of the verb that ended it."""
        try:
            await self._unmaker.dismantle(record)
            await self._compartments.release_compartment(record.id)
        except (SiloError, OSError):
            log.exception("release compute system %s", record.id)
        finally:
            self._cleaned[record.id].set()
        status = SystemExitStatus(ExitType=views.exit_type(record))
        self._notify(
            Notification(
                Type=hcs.SYSTEM_EXITED,
                SystemId=record.id,
                RuntimeId=record.runtime_id,
                EventData=msgspec.to_builtins(status),
            )
        )

    async def _restore(self) -> None:
        """After a start of silod: watch what lives, record what ended meanwhile, undo what was half made.

        What ended is Stopped before anybody can ask, and is told by the answer to that question alone.
        """
        self._systems = decode_all(SystemRecord, self._store.load(TABLE))
        for system_id in await leaf(self._unmaker.orphans, set(self._systems)):
            try:
                await self._unmaker.undo(system_id)
                await self._compartments.release_compartment(system_id)
            except (SiloError, OSError):
                log.exception("undo compute system %s", system_id)
        boot = boot_id()
        steps: list[Step] = []
        for record in [*self._systems.values()]:
            self._cleaned[record.id] = anyio.Event()
            if record.boot != boot:  # the host started anew: its pids name others now
                record.monitor_began = record.pid_began = 0
            if record.state == SystemState.STOPPED:
                self._tasks.start_soon(self._clean, record)
            elif pidfd.has_ended(record.monitor_pid, record.monitor_began):
                ended = self._systems[record.id] = await leaf(self._unmaker.ended, record)
                steps += [ended.put(), self._logged("exit", record.id, 0, f"exit code {ended.exit_code}")]
                self._tasks.start_soon(self._clean, ended)
            else:
                if record.state == SystemState.CREATED:
                    record.state = SystemState.RUNNING  # Start itself leaves no trace in the kernel
                self._tasks.start_soon(self._until_exit, record)
        if steps:
            await self._store.write(*steps)


def _stopped(system_id: str) -> HostError:
    return HostError(Code.SYSTEM_ALREADY_STOPPED, f"compute system {system_id} has stopped")


def _moment() -> str:
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"
