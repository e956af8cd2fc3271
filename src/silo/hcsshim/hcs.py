"""Compute systems and processes by hcsshim's names (``internal/hcs``): handles on what the service keeps.

A wait races the wanted notification against the system's exit, the loss of the service and a deadline.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import anyio
import anyio.lowlevel
import msgspec

from silo.hcsshim.errors import Code, HcsError, hcs_error, is_not_exist
from silo.hcsshim.gate import Gate, invoke
from silo.schema.hcs import SYSTEM_EXITED, ContainerDocument, Notification, ProcessConfig, ProcessStatus
from silo.telemetry import annotate, span

CREATE_SECONDS: Final = 240.0
"""hcsshim's limit for HcsCreateComputeSystem (its ``internal/timeout``)."""
PACKET: Final = 32 << 10
STDOUT: Final = 2
STDERR: Final = 3
FAIR: Final = 16
"""Packets taken in one go before others get their turn."""
MAX_HELD: Final = 4 << 20
"""Bytes held for a reader after its process has ended."""


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

    async def properties(self, *types: str) -> dict[str, Any]:
        """What the service knows of it; ``types`` may ask for ``Statistics`` and ``ProcessList``."""
        output = await self._call("hcs::System::Properties", "HcsGetComputeSystemProperties", PropertyTypes=types)
        return msgspec.json.decode(output, type=dict[str, Any])

    async def wait(self, seconds: float) -> None:
        """Return when the system has ended; at once when there is none.  Raises HcsError: timeout, service lost."""
        op = "hcs::System::Wait"
        with self._gate.notifications() as notices:  # subscribed before the state is read: no exit falls between
            try:
                if (await self.properties())["Stopped"]:
                    return
            except HcsError as exc:
                if is_not_exist(exc):
                    return
                raise
            with anyio.move_on_after(seconds):
                async for data in notices:
                    notice = msgspec.json.decode(data, type=Notification)
                    if notice.Type == SYSTEM_EXITED and notice.SystemId == self.id:
                        return
                raise hcs_error(op, self.id, Code.UNEXPECTED_EXIT, "lost communication with compute service")
        raise hcs_error(op, self.id, Code.OPERATION_TIMEOUT, "hcsshim: timeout waiting for notification")

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


async def open_compute_system(gate: Gate, system_id: str) -> System:
    """A handle on a system that is there.  Raises HcsError; see ``is_not_exist``."""
    await invoke(gate, "hcs::OpenComputeSystem", system_id, "HcsOpenComputeSystem", SystemId=system_id)
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
            size = {"Height": height, "Width": width}
            await self._call("hcs::Process::ResizeConsole", "HcsModifyProcess", ConsoleSize=size)

    async def reopen_log(self, inode: int) -> None:
        """Begin a new log file in the place of the one with ``inode``; happens once, however often it is asked."""
        with span("hcsshim::Process::ReopenLog", id=self._system_id, inode=inode):
            await self._call("hcs::Process::ReopenLog", "HcsModifyProcess", LogFile=inode)

    async def signal(self, number: int) -> None:
        """Send a signal.  Raises HcsError; see ``is_already_stopped``."""
        with span("hcsshim::Process::Signal", id=self._system_id, signal=number):
            await self._call("hcs::Process::Signal", "HcsSignalProcess", Signal=number)

    async def kill(self) -> None:
        """Kill it.  Raises HcsError; see ``is_already_stopped``."""
        with span("hcsshim::Process::Kill", id=self._system_id):
            await self._call("hcs::Process::Kill", "HcsTerminateProcess")

    async def wait(self) -> None:
        """Return when it has ended; its last output may still be on the way."""
        await self._call("hcs::Process::Wait", "HcsWaitProcess")

    async def properties(self) -> ProcessStatus:
        """Whether it has ended, and how."""
        output = await self._call("hcs::Process::Properties", "HcsGetProcessProperties")
        return msgspec.json.decode(output, type=ProcessStatus)

    async def _call(self, op: str, function: str, **arguments: Any) -> msgspec.Raw:
        return await invoke(self._gate, op, self._system_id, function, SystemId=self._system_id, **arguments)

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

    A packet from conmon is one byte for the stream (2 stdout, 3 stderr) and at most 8 KiB of data.  conmon's sends
    block: a reader that takes its time slows the process down and nothing is lost.  It also means that conmon records
    no exit while somebody does not read; see :meth:`drain`.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._held: deque[bytes] = deque()
        self._reading = anyio.Lock(fast_acquire=True)
        self._ended = False
        self._run = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether nobody wants the streams any more."""
        return self._sock.fileno() < 0

    def close(self) -> None:
        """Disconnect.  Without ``--leave-stdin-open`` conmon then closes the process's stdin."""
        if not self.closed:
            anyio.notify_closing(self._sock)
            self._sock.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, bytes]:
        self._run += 1
        if self._run % FAIR == 0:  # a process that writes without end must not keep the loop to itself
            await anyio.lowlevel.checkpoint()
        while True:
            packet = self._held.popleft() if self._held else await self._next()
            if packet and packet[0] in {STDOUT, STDERR}:
                return packet[0] - 1, packet[1:]
            if not packet and self._ended and not self._held:
                raise StopAsyncIteration

    async def _next(self) -> bytes:
        """A packet in its turn; nothing when another reader has held one, or has seen the end."""
        async with self._reading:
            return b"" if self._held or self._ended else await self._receive()

    async def _receive(self) -> bytes:
        """The next packet from conmon; empty at the end."""
        while True:
            try:
                packet = self._sock.recv(PACKET)
            except BlockingIOError:
                await anyio.wait_readable(self._sock)
                continue
            except ConnectionResetError:
                packet = b""
            self._ended = not packet
            return packet

    async def drain(self) -> None:
        """Hold what is left to read, so that conmon can end; for when the process has.

        What a process that has ended left in its pipes is bounded by their size.  Children of it that go on writing
        (with the host's pid namespace) to a reader that does not read lose what is over ``MAX_HELD``.
        """
        held = 0
        try:
            while not self._ended and held < MAX_HELD:
                async with self._reading:
                    if not self._ended and (packet := await self._receive()):
                        self._held.append(packet)
                        held += len(packet)
        except (anyio.ClosedResourceError, OSError):
            return  # nobody wants it
        if not self._ended:
            self._ended = True
            self.close()

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
