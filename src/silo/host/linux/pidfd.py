"""Processes by descriptor: no signal ever reaches a stranger that got the same number."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from pathlib import Path

import anyio


def start_time(pid: int) -> int | None:
    """When the process began, in clock ticks since boot; None when there is no such process (or a zombie of one)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def open_process(pid: int, began: int) -> int | None:
    """A pidfd of the process ``pid`` that began at ``began``; None when it is gone."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if start_time(pid) != began:
        os.close(fd)
        return None
    return fd


async def wait_gone(fd: int) -> None:
    """Return when the process of this pidfd has ended; it need not be a child."""
    await anyio.wait_readable(fd)


def send_signal(pid: int, began: int, number: int) -> bool:
    """Signal the process ``pid`` that began at ``began``; False when it is gone."""
    fd = open_process(pid, began)
    if fd is None:
        return False
    try:
        signal.pidfd_send_signal(fd, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)


def reap(pid: int) -> None:
    """Collect the status of a child that has ended; nothing happens when it is not ours."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def is_gone(exc: OSError) -> bool:
    """Whether an error says that there is no such process."""
    return exc.errno == errno.ESRCH
