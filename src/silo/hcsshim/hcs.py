"""Compute systems and processes by hcsshim's names (``internal/hcs``): handles on what the service keeps.

A wait races the wanted notification against the system's exit, the loss of the service and a deadline.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import anyio
import msgspec

from silo.hcsshim.errors import Code, hcs_error
from silo.hcsshim.gate import Gate, invoke
from silo.schema.hcs import ContainerDocument, ProcessConfig
from silo.telemetry import annotate, span

CREATE_SECONDS: Final = 240.0
"""hcsshim's limit for HcsCreateComputeSystem (its ``internal/timeout``)."""
PACKET: Final = 32 << 10
STDOUT: Final = 2
STDERR: Final = 3


class System:
    """A compute system by id.  Holding one costs nothing; ``close`` releases the system itself."""

    def __init__(self, gate: Gate, system_id: str) -> None:
        self._gate = gate
        self.id = system_id

    async def start(self) -> None:
        """From Created to Running."""
        with span("hcsshim::ComputeSystem::Start", id=self.id):
            await self._call("hcs::System::Start", "HcsStartComputeSystem")

    async def create_process(self, config: ProcessConfig) -> Process:
        """Run the system's process.  Raises HcsError with the runtime's reason."""
        with span("hcsshim::ComputeSystem::CreateProcess", id=self.id, command=" ".join(config.CommandArgs)):
            output = await self._call(
                "hcs::System::CreateProcess", "HcsCreateProcess", Process=msgspec.to_builtins(config)
            )
            info = msgspec.json.decode(output)
            annotate(pid=info["ProcessId"])
            return Process(self._gate, self.id, info["ProcessId"], Path(info["StdioSocket"]))

    async def open_process(self) -> Process:
        """The system's process; before ``create_process`` that is the init which waits."""
        info = msgspec.json.decode(await self._call("hcs::System::OpenProcess", "HcsGetProcessInfo"))
        return Process(self._gate, self.id, info["ProcessId"], Path(info["StdioSocket"]))

    async def shutdown(self, signal_number: int) -> None:
        """Ask the system to end.  Raises HcsError; see ``is_already_stopped``."""
        with span("hcsshim::ComputeSystem::Shutdown", id=self.id, signal=signal_number):
            await self._call("hcs::System::Shutdown", "HcsShutdownComputeSystem", Signal=signal_number)

    async def terminate(self) -> None:
        """Kill the system.  Raises HcsError; see ``is_already_stopped``."""
        with span("hcsshim::ComputeSystem::Terminate", id=self.id):
            await self._call("hcs::System::Terminate", "HcsTerminateComputeSystem")

    async def pause(self) -> None:
        """Freeze it."""
        with span("hcsshim::ComputeSystem::Pause", id=self.id):
            await self._call("hcs::System::Pause", "HcsPauseComputeSystem")

    async def resume(self) -> None:
        """Let it go on."""
        with span("hcsshim::ComputeSystem::Resume", id=self.id):
            await self._call("hcs::System::Resume", "HcsResumeComputeSystem")

    async def modify(self, resource_type: str, request_type: str, settings: str) -> None:
        """Hot attach or detach (reference, section 4.6)."""
        with span("hcsshim::ComputeSystem::Modify", id=self.id, resource=resource_type, request=request_type):
            await self._call(
                "hcs::System::Modify",
                "HcsModifyComputeSystem",
                ResourceType=resource_type,
                RequestType=request_type,
                Settings=settings,
            )

    async def properties(self) -> dict[str, Any]:
        """What the service knows of it."""
        output = await self._call("hcs::System::Properties", "HcsGetComputeSystemProperties")
        return msgspec.json.decode(output, type=dict[str, Any])

    async def close(self) -> None:
        """End it if it lives, and release everything of it.  Idempotent."""
        with span("hcsshim::ComputeSystem::Close", id=self.id):
            await self._call("hcs::System::Close", "HcsCloseComputeSystem")

    async def _call(self, op: str, function: str, **arguments: Any) -> msgspec.Raw:
        return await invoke(self._gate, op, self.id, function, SystemId=self.id, **arguments)


async def create_compute_system(gate: Gate, system_id: str, document: ContainerDocument) -> System:
    """Create the system: compartment, vNIC, cgroup, and an init that waits.  All or nothing.  Raises HcsError."""
    op = "hcs::CreateComputeSystem"
    with span("hcsshim::CreateComputeSystem", id=system_id, endpoints=",".join(document.EndpointList)):
        with anyio.move_on_after(CREATE_SECONDS) as scope:
            await invoke(
                gate,
                op,
                system_id,
                "HcsCreateComputeSystem",
                SystemId=system_id,
                Configuration=msgspec.to_builtins(document),
            )
        if scope.cancelled_caught:
            raise hcs_error(op, system_id, Code.OPERATION_TIMEOUT, "hcsshim: timeout waiting for notification")
        return System(gate, system_id)


async def enumerate_compute_systems(gate: Gate) -> list[dict[str, Any]]:
    """Every compute system's properties, without documents."""
    output = await invoke(gate, "hcs::EnumerateComputeSystems", "", "HcsEnumerateComputeSystems")
    return msgspec.json.decode(output, type=list[dict[str, Any]])


async def win_events(gate: Gate, log_name: str) -> list[dict[str, Any]]:
    """Entries of the event log, oldest first; of every channel when ``log_name`` is empty."""
    output = await invoke(gate, "hcs::GetWinEvents", log_name, "GetWinEvents", LogName=log_name)
    return msgspec.json.decode(output, type=list[dict[str, Any]])


class Process:
    """The process of a compute system, and the way to its streams."""

    def __init__(self, gate: Gate, system_id: str, pid: int, stdio_socket: Path) -> None:
        self._gate = gate
        self._system_id = system_id
        self._socket = stdio_socket
        self.pid = pid

    async def resize_console(self, height: int, width: int) -> None:
        """Set the size of the console, in characters."""
        with span("hcsshim::Process::ResizeConsole", id=self._system_id, height=height, width=width):
            await invoke(
                self._gate,
                "hcs::Process::ResizeConsole",
                self._system_id,
                "HcsModifyProcess",
                SystemId=self._system_id,
                ConsoleSize={"Height": height, "Width": width},
            )

    def stdio(self) -> Stdio:
        """Connect to the streams: all output from now on.  Raises HcsError when the monitor is gone."""
        try:
            return Stdio(connect_seqpacket(self._socket))
        except OSError as exc:
            raise hcs_error(
                "hcs::Process::Stdio", self._system_id, Code.SYSTEM_ALREADY_STOPPED, exc.strerror or ""
            ) from exc


def connect_seqpacket(path: Path) -> socket.socket:
    """Connect to conmon's socket by way of its directory's descriptor: the path may be longer than sun_path."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{directory}/{path.name}")
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(directory)
    return sock


class Stdio:
    """A process's streams: iterate for ``(1 or 2, data)`` until the process has ended and everything was read.

    A packet from conmon is one byte for the stream (2 stdout, 3 stderr) and at most 8 KiB of data.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect.  Without ``--leave-stdin-open`` conmon then closes the process's stdin."""
        if self._sock.fileno() >= 0:
            anyio.notify_closing(self._sock)
            self._sock.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, bytes]:
        while True:
            try:
                packet = self._sock.recv(PACKET)
            except BlockingIOError:
                await anyio.wait_readable(self._sock)
                continue
            except ConnectionResetError:
                packet = b""
            if not packet:
                raise StopAsyncIteration
            if packet[0] in {STDOUT, STDERR}:
                return packet[0] - 1, packet[1:]

    async def send(self, data: bytes) -> None:
        """Write to the process's stdin.  What a process that ended does not take is dropped, as by a pipe."""
        for start in range(0, len(data), PACKET // 4):
            piece = data[start : start + PACKET // 4]
            while True:
                try:
                    self._sock.send(piece)
                    break
                except BlockingIOError:
                    await anyio.wait_writable(self._sock)
                except (BrokenPipeError, ConnectionResetError):
                    return

    async def close_stdin(self) -> None:
        """Nothing more comes: the process reads end of file, unless its stdin stays open for others."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            return  # it has ended
