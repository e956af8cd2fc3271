"""conmon, the monitor of one container: its command line, its answer, its control files.

conmon holds the container's streams, writes its log and records its exit code; it outlives silod.  It talks on a pipe
named by ``_OCI_SYNCPIPE``: one JSON line ``{"data": <pid>}``, or ``{"data": -1, "message": "..."}`` when the runtime
failed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import anyio
import msgspec

from silo.errors import HostFault

PROGRAM: Final = "/usr/bin/conmon"
MAX_ANSWER: Final = 64 << 10


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
        "--exit-dir", plan.exits, "--full-attach", "--sync", "--log-level", "error",
        "--runtime-arg", f"--root={plan.runtime_root}",
    ]  # fmt: skip
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


def write_control(bundle: Path, kind: int, numbers: Sequence[int]) -> None:
    """A line for conmon's control fifo; kind 1 is the size of the terminal, height before width."""
    fd = os.open(bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(fd, f"{kind} {' '.join(map(str, numbers))}\n".encode())
    finally:
        os.close(fd)
