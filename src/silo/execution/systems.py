"""Containers as compute systems: create, start, run the process, attach, signal, and know how each run ended."""

from __future__ import annotations

import logging
from collections.abc import Collection
from types import TracebackType
from typing import Any, Self

import anyio
import msgspec
from anyio.abc import TaskGroup

from silo.hcsshim import hcs
from silo.hcsshim.errors import HcsError, is_already_exists, is_already_stopped, is_not_exist
from silo.hcsshim.gate import Gate
from silo.hcsshim.hcs import Process, Stdio, System
from silo.ids import ContainerID
from silo.schema.hcs import PROCESS_EXITED, ContainerDocument, Notification, ProcessStatus

log = logging.getLogger(__name__)

__all__ = ["ComputeSystems", "Exit", "Live", "Stdio"]


class Exit(msgspec.Struct, frozen=True):
    """How a run ended; ``finished_ns`` is nanoseconds since the epoch."""

    container_id: ContainerID
    exit_code: int
    finished_ns: int
    oom_killed: bool = False


class Live(msgspec.Struct, frozen=True):
    """A container whose process runs."""

    container_id: ContainerID
    pid: int


class ComputeSystems:
    """The engine's containers as the Host Compute Service has them.  An async context manager: it listens."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._send, self.exits = anyio.create_memory_object_stream[Exit](float("inf"))
        self._restored = anyio.Event()
        self._told: set[str] = set()
        self._attached: dict[ContainerID, list[Stdio]] = {}
        self._tasks: TaskGroup

    async def __aenter__(self) -> Self:
        self._tasks = await anyio.create_task_group().__aenter__()
        await self._tasks.start(self._listen)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)
        self._send.close()
        self.exits.close()

    async def _listen(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        decoder = msgspec.json.Decoder(Notification)
        with self._gate.notifications() as stream:
            task_status.started()
            await self._restored.wait()  # what restore() answers must not come a second time
            async for data in stream:
                notice = decoder.decode(data)
                if notice.Type == PROCESS_EXITED and notice.RuntimeId not in self._told:
                    status = msgspec.convert(notice.EventData, ProcessStatus)
                    self._send.send_nowait(
                        Exit(ContainerID(notice.SystemId), status.ExitCode, status.FinishedAt, status.OOMKilled)
                    )

    async def restore(self, known: Collection[ContainerID]) -> dict[ContainerID, Live | Exit]:
        """What the service has after a restart of the engine: what lives, and what ended and how.

        Systems of containers nobody knows, and systems whose process never ran, are taken away.  To be called once,
        before anything else: ``exits`` begins with the first exit that this did not answer.
        """
        found: dict[ContainerID, Live | Exit] = {}
        unwanted: list[ContainerID] = []
        for properties in await hcs.enumerate_compute_systems(self._gate):
            container_id = ContainerID(properties["Id"])
            if container_id not in known or not properties["ProcessCreated"]:
                self._told.add(properties["RuntimeId"])
                unwanted.append(container_id)
            elif properties["Stopped"]:
                self._told.add(properties["RuntimeId"])
                found[container_id] = Exit(
                    container_id, properties["ExitCode"], properties["FinishedAt"], properties["OOMKilled"]
                )
            else:
                found[container_id] = Live(container_id, properties["ProcessId"])
        self._restored.set()
        async with anyio.create_task_group() as tasks:
            for container_id in unwanted:
                tasks.start_soon(System(self._gate, container_id).close)
        return found

    async def create(self, container_id: ContainerID, document: ContainerDocument) -> None:
        """Make the compute system with an init that waits.  All or nothing.

        A stopped one of an earlier run, which a crash kept from being closed, makes room: its container would be
        unstartable for ever otherwise.  Raises HcsError; see ``is_already_exists`` for one that lives.
        """
        try:
            await hcs.create_compute_system(self._gate, container_id, document)
        except HcsError as exc:
            if not is_already_exists(exc) or not (await self.properties(container_id))["Stopped"]:
                raise
            await self.close(container_id)
            await hcs.create_compute_system(self._gate, container_id, document)

    async def start(self, container_id: ContainerID) -> None:
        """From Created to Running."""
        await System(self._gate, container_id).start()

    async def create_process(self, container_id: ContainerID, document: ContainerDocument) -> int:
        """Let the container's process run; return its pid."""
        process = await System(self._gate, container_id).create_process(document.Process)
        return process.pid

    async def attach(self, container_id: ContainerID) -> Stdio:
        """Connect to the streams; before ``create_process`` no output is missed.  The caller closes it."""
        process = await System(self._gate, container_id).open_process()
        stdio = process.stdio()
        attached = self._attached.get(container_id)
        if attached is None:
            attached = self._attached[container_id] = []
            self._tasks.start_soon(self._drain, container_id, process)
        attached[:] = [one for one in attached if not one.closed] + [stdio]
        return stdio

    async def _drain(self, container_id: ContainerID, process: Process) -> None:
        """When the process has ended, take the rest of its output off conmon's hands for those who read slowly.

        Otherwise one client that does not read would keep the exit from being recorded.
        """
        try:
            await process.wait()
        except HcsError:
            log.warning("wait for the process of %s", container_id, exc_info=True)
        async with anyio.create_task_group() as tasks:
            for stdio in self._attached.pop(container_id):
                tasks.start_soon(stdio.drain)

    async def resize(self, container_id: ContainerID, height: int, width: int) -> None:
        """Set the size of the terminal, in characters."""
        await (await System(self._gate, container_id).open_process()).resize_console(height, width)

    async def reopen_log(self, container_id: ContainerID, inode: int) -> bool:
        """Have a new log file begun in the place of the one with ``inode``; False when nobody writes it any more."""
        try:
            await (await System(self._gate, container_id).open_process()).reopen_log(inode)
        except Exception as exc:
            if not (is_already_stopped(exc) or is_not_exist(exc)):
                raise
            return False
        return True

    async def signal(self, container_id: ContainerID, number: int) -> None:
        """Send a signal to the process; one that has just ended is no error."""
        try:
            await System(self._gate, container_id).shutdown(number)
        except Exception as exc:
            if not (is_already_stopped(exc) or is_not_exist(exc)):
                raise

    async def terminate(self, container_id: ContainerID) -> None:
        """Kill the process; one that has just ended is no error."""
        try:
            await System(self._gate, container_id).terminate()
        except Exception as exc:
            if not (is_already_stopped(exc) or is_not_exist(exc)):
                raise

    async def modify_network(self, container_id: ContainerID, request: str, endpoint: str) -> None:
        """``Add`` or ``Remove`` an HNS endpoint of the live compartment."""
        await System(self._gate, container_id).modify("Network", request, endpoint)

    async def close(self, container_id: ContainerID) -> None:
        """Release the compute system, ending it if it lives.  Idempotent."""
        await System(self._gate, container_id).close()

    async def properties(self, container_id: ContainerID, *types: str) -> dict[str, Any]:
        """What the service knows of the system, its document included; ``types`` may ask for ``Statistics``."""
        return await System(self._gate, container_id).properties(*types)

    async def pids(self, container_id: ContainerID) -> list[int]:
        """The processes in the container, as the host numbers them."""
        found = await System(self._gate, container_id).properties("ProcessList")
        return [row["ProcessId"] for row in found["ProcessList"]]

    async def pause(self, container_id: ContainerID) -> None:
        """Freeze every process."""
        await System(self._gate, container_id).pause()

    async def resume(self, container_id: ContainerID) -> None:
        """Let them go on."""
        await System(self._gate, container_id).resume()

    async def enumerate(self) -> list[dict[str, Any]]:
        """Every compute system."""
        return await hcs.enumerate_compute_systems(self._gate)

    async def event_log(self, log_name: str = "") -> list[dict[str, Any]]:
        """The event log, oldest entry first."""
        return await hcs.win_events(self._gate, log_name)
