"""HCS: what ``vmcompute.dll`` exports about compute systems and processes, each export one handler.

Creating a system makes its compartment (through the Protocol below: HNS is a service beside this one), its cgroup, and
an init that waits; the process runs at ``HcsCreateProcess``.  Nothing about a system is only in memory.
"""

from __future__ import annotations

import logging
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
from silo.host.hcs import eventlog
from silo.host.hcs.conmon import write_control
from silo.host.hcs.maker import Maker
from silo.host.hcs.records import TABLE, Folders, SystemRecord, forget
from silo.host.hcs.runtime import Runtime, probe
from silo.host.hcs.states import SystemState, move
from silo.host.linux import cgroup, pidfd
from silo.host.linux.spawn import Spawner
from silo.host.results import Code, HostError
from silo.resources import KeyedLock, leaf
from silo.schema import hcs
from silo.schema.hcs import ContainerDocument, Notification
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
        self._instance = instance
        self._compartments = compartments
        self._notify = notify
        self._wanted_runtime = runtime
        self._cgroups = cgroup.host()
        self._spawner = Spawner(self._cgroups)
        self._systems: dict[str, SystemRecord] = {}
        self._locks: KeyedLock[str] = KeyedLock()
        self._cleaned: dict[str, anyio.Event] = {}
        self._tasks: TaskGroup
        self._maker: Maker
        self.runtimes: list[Runtime] = []

    @property
    def cgroup_version(self) -> str:
        """``1`` or ``2``."""
        return self._cgroups.version

    async def __aenter__(self) -> Self:
        self._folders.make()
        self.runtimes = await probe(self._spawner, self._wanted_runtime)
        self._maker = Maker(self._spawner, self._folders, self._cgroups, self.runtimes[0], f"/silo-{self._instance}")
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
        cgroup.ControlGroup(self._cgroups, f"/silo-{self._instance}").remove()
        self._folders.remove()

    def exports(self) -> dict[str, Handler]:
        """The service's part of the function table."""
        return {
            "HcsCreateComputeSystem": self.create,
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
                record = await self._maker.make(SystemId, document, self._compartments)
            except SiloError as exc:
                await self._store.write(self._logged("create", SystemId, int(Code.FAIL), str(exc)))
                raise
            self._systems[SystemId] = record
            await self._store.write(record.put(), self._logged("create", SystemId))
            self._watch(record)
        self._notify(Notification(Type=hcs.CREATE_COMPLETED, SystemId=SystemId))

    async def start(self, SystemId: str) -> None:  # noqa: N803
        """From Created to Running: from now on processes can be created."""
        record = self._find(SystemId)
        record.state = move(SystemId, record.state, "start")
        self._notify(Notification(Type=hcs.START_COMPLETED, SystemId=SystemId))

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
        record = self._find(SystemId)
        if record.state == SystemState.STOPPED:
            raise HostError(Code.SYSTEM_ALREADY_STOPPED, f"compute system {SystemId} has stopped")
        return {"ProcessId": record.pid, "StdioSocket": str(self._attach_socket(record))}

    async def modify_process(self, SystemId: str, ConsoleSize: dict[str, int]) -> None:  # noqa: N803
        """Set the size of the console."""
        record = self._find(SystemId)
        if not record.document.Process.EmulateConsole:
            return
        size = ConsoleSize["Height"], ConsoleSize["Width"]
        await leaf(write_control, Path(record.document.BundlePath), 1, size)

    async def shutdown(self, SystemId: str, Signal: int) -> None:  # noqa: N803
        """Ask the process to end, with a signal.  Completion is the exit's notification."""
        await self._signal(SystemId, "shut down", Signal)

    async def terminate(self, SystemId: str) -> None:  # noqa: N803
        """Kill.  Completion is the exit's notification."""
        await self._signal(SystemId, "terminate", signal.SIGKILL)

    async def _signal(self, system_id: str, verb: str, number: int) -> None:
        record = self._find(system_id)
        record.state = move(system_id, record.state, verb)
        if not pidfd.send_signal(record.pid, record.pid_began, number):
            raise HostError(Code.SYSTEM_ALREADY_STOPPED, f"compute system {system_id} has stopped")
        effect("signal", "+", f"{signal.Signals(number).name if number in [*signal.Signals] else number} {record.pid}")
        await self._store.write(self._logged(verb, system_id))

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
        self._notify(Notification(Type=notification, SystemId=system_id))

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

    async def properties(self, SystemId: str) -> dict[str, Any]:  # noqa: N803
        """What the service knows of one system, its create document included."""
        record = self._find(SystemId)
        return {**_basic(record), "ProcessList": self._processes(record), "Document": record.document}

    def _processes(self, record: SystemRecord) -> list[int]:
        return cgroup.ControlGroup(self._cgroups, record.cgroup).pids()

    async def enumerate(self) -> list[dict[str, Any]]:
        """Every system, without its document."""
        return [_basic(record) for record in self._systems.values()]

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
            pidfd.send_signal(record.pid, record.pid_began, signal.SIGKILL)
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
        await self._maker.wait_monitor(record)
        with new_trace("hcs::SystemExited"):
            assign(record.id)
            await self._ended(record)

    async def _ended(self, record: SystemRecord) -> None:
        await leaf(self._maker.read_exit, record)
        annotate(exit_code=record.exit_code)
        effect("process", "-", record.pid)
        record.state = move(record.id, record.state, "exit")
        await self._store.write(record.put(), self._logged("exit", record.id, 0, f"exit code {record.exit_code}"))
        if record.process_created:
            self._notify(
                Notification(
                    Type=hcs.PROCESS_EXITED,
                    SystemId=record.id,
                    ProcessId=record.pid,
                    ExitCode=record.exit_code,
                    FinishedAt=record.finished_ns,
                    OOMKilled=record.oom_killed,
                )
            )
        try:
            await self._clean(record)
        finally:
            self._cleaned[record.id].set()
        self._notify(Notification(Type=hcs.SYSTEM_EXITED, SystemId=record.id))

    async def _clean(self, record: SystemRecord) -> None:
        try:
            await self._maker.dismantle(record)
            await self._compartments.release_compartment(record.id)
        except SiloError:
            log.exception("release compute system %s", record.id)

    async def _restore(self) -> None:
        """After a start of silod: watch what lives, record what ended meanwhile, undo what was half made."""
        self._systems = decode_all(SystemRecord, self._store.load(TABLE))
        known = set(self._systems)
        for folder in (self._folders.root / "hcs").iterdir():
            if folder.name not in known:
                await self._maker.undo(folder.name)
                await self._compartments.release_compartment(folder.name)
        for record in self._systems.values():
            self._cleaned[record.id] = anyio.Event()
            if record.state == SystemState.CREATED:
                record.state = SystemState.RUNNING  # Start itself leaves no trace in the kernel
            if record.state == SystemState.STOPPED:
                await self._clean(record)
                self._cleaned[record.id].set()
            else:
                self._tasks.start_soon(self._until_exit, record)


def _basic(record: SystemRecord) -> dict[str, Any]:
    return {
        "Id": record.id,
        "State": record.state.value,
        "Name": record.document.Name,
        "SystemType": record.document.SystemType,
        "RuntimeOsType": "Linux",
        "Owner": record.document.Owner,
        "RuntimeId": record.runtime_id,
        "Stopped": record.state == SystemState.STOPPED,
        "ExitCode": record.exit_code,
        "FinishedAt": record.finished_ns,
        "OOMKilled": record.oom_killed,
        "ProcessCreated": record.process_created,
        "ProcessId": record.pid,
        "Runtime": record.runtime,
        "Cgroup": record.cgroup,
    }


def _moment() -> str:
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"
