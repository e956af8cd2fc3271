"""Looking for processes in /proc: for what a crash left behind, never on the path of a verb."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec


class ProcessInfo(msgspec.Struct, frozen=True):
    """A process as /proc shows it: its session (setsid), when it began (ticks since boot) and its arguments."""

    pid: int
    session: int
    began: int
    argv: tuple[str, ...]


def processes() -> Iterator[ProcessInfo]:
    """Every process of this pid namespace that is there while we look; kernel threads have no arguments."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            fields = (entry / "stat").read_text("ascii", "replace").rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes().decode("utf-8", "surrogateescape")
        except (FileNotFoundError, ProcessLookupError):
            continue
        yield ProcessInfo(int(entry.name), int(fields[3]), int(fields[19]), tuple(command.split("\0")[:-1]))


def process_state(pid: int) -> str:
    """The state's letter: ``S`` sleeps until something comes; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def boot_id() -> str:
    """Names this boot of the host: pids and start times mean nothing in another one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
