"""conmon, the monitor of one container: its command line, its answer, its control files.

conmon holds the container's streams, writes its log and records its exit code; it outlives silod.  It talks on a pipe
named by ``_OCI_SYNCPIPE``: one JSON line ``{"data": <pid>}``, or ``{"data": -1, "message": "..."}`` when the runtime
failed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import termios
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import anyio
import msgspec

from silo.errors import Deadline, HostFault
from silo.host.linux.proc import process_state
from silo.schema.hcs import Journal

PROGRAM: Final = "/usr/bin/conmon"
MAX_ANSWER: Final = 64 << 10
CONTROL_SECONDS: Final = 5.0
"""How long conmon may take to read a line of its control fifo; it cannot while it waits for an attached client."""


class Answer(msgspec.Struct, frozen=True):
    """conmon's word on the runtime's create: the pid of the waiting init, or a negative number and why."""

    data: int
    message: str = ""


class MonitorPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a monitor is started with."""

    system_id: str
    runtime: str
    runtime_root: str
    bundle: str
    log: str
    journal: Journal | None = None
    pidfile: str
    exits: str
    terminal: bool
    stdin: bool
    stdin_once: bool


def command(plan: MonitorPlan) -> list[str]:
    """The argument vector.  With ``--sync`` conmon stays our child until we die."""
    argv = [
        PROGRAM, "--api-version", "1", "-c", plan.system_id, "-u", plan.system_id,
        "-r", plan.runtime, "-b", plan.bundle, "-p", plan.pidfile,
        "-l", f"k8s-file:{plan.log}" if plan.log else "none",
        "--no-sync-log", "--exit-dir", plan.exits, "--full-attach", "--sync", "--log-level", "error",
        "--runtime-arg", f"--root={plan.runtime_root}",
    ]  # fmt: skip
    if plan.journal is not None:
        argv += ["-l", "journald", "-n", plan.journal.Name, "--log-tag", plan.journal.Tag]
    if plan.terminal:
        argv.append("-t")
    if plan.stdin:
        argv.append("-i")
        if plan.terminal or not plan.stdin_once:  # a terminal stays for whoever attaches next, as with dockerd
            argv.append("--leave-stdin-open")
    return argv


def parse_answer(data: bytes) -> Answer:
    """The last whole line of what came through the pipe.  Raises HostFault when there is none."""
    for line in reversed(data.splitlines()):
        try:
            return msgspec.json.decode(line, type=Answer)
        except msgspec.MsgspecError:
            continue
    raise HostFault(f"conmon ended without an answer: {data[:200]!r}")


async def read_answer(fd: int, seconds: float) -> Answer:
    """Read the pipe until a line is complete or conmon closes it."""
    data = b""
    with anyio.fail_after(seconds):
        while not data.endswith(b"\n") and len(data) < MAX_ANSWER:
            await anyio.wait_readable(fd)
            chunk = os.read(fd, 4096)
            if not chunk:
                break
            data += chunk
    return parse_answer(data)


def resize(bundle: Path, height: int, width: int) -> None:
    """Set the size of the terminal, in characters.  Blocks.  Raises Deadline, OSError when conmon has ended."""
    with _control(bundle) as fifo:
        for _ in _attempts(bundle):
            if not waiting(fifo):
                os.write(fifo, f"1 {height} {width}\n".encode())
                return


def begin_log(bundle: Path, log: Path, inode: int, monitor: int) -> None:
    """Have conmon make a new log file in the place of the one with ``inode``: harmless when repeated.  Blocks.

    The order may have been given before, by a silod that was killed then, and who begins a file twice loses the first.
    conmon is through with an order when it sleeps, or has written since its fifo was seen empty; only then the inode
    tells whether one is still to be given.  Raises Deadline, OSError when conmon has ended.
    """
    size = -1
    with _control(bundle) as fifo:
        for _ in _attempts(bundle):
            unread, state = waiting(fifo), log.stat()
            if state.st_ino != inode:
                return
            if unread:
                size = -1
            elif size < 0:
                size = state.st_size
            elif (state.st_size != size or process_state(monitor) == "S") and log.stat().st_ino == inode:
                os.write(fifo, b"2 0 0\n")
                return


@contextlib.contextmanager
def _control(bundle: Path) -> Generator[int]:
    """The control fifo.  An order is one line; it must be alone in there.

    Of two lines that conmon reads at once it obeys the first one twice (2.1.6).
    """
    fifo = os.open(bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield fifo
    finally:
        os.close(fifo)


def _attempts(bundle: Path) -> Iterator[None]:
    """One a millisecond.  Raises Deadline after the last."""
    deadline = time.monotonic() + CONTROL_SECONDS
    while time.monotonic() < deadline:
        yield
        time.sleep(0.001)
    raise Deadline(f"conmon of {bundle.name} has not read its last order in {CONTROL_SECONDS} s")


def waiting(fifo: int) -> int:
    """How many bytes are in the fifo that conmon has not read."""
    return int.from_bytes(fcntl.ioctl(fifo, termios.FIONREAD, bytes(4)), sys.byteorder)
