"""Processes by descriptor: no signal ever reaches a stranger that got the same number."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path

import anyio


def start_time(pid: int) -> int | None:
    """When the process began, in clock ticks since boot; None when there is none.  A zombie still has its time."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(text.rpartition(")")[2].split()[19])


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


def has_ended(pid: int, began: int) -> bool:
    """Whether that process has ended; one that nobody has collected yet has."""
    fd = open_process(pid, began)
    if fd is None:
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))
    finally:
        os.close(fd)


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


def reap(pid: int, began: int) -> None:
    """Collect the status of that child if it has ended; nothing happens when it is not ours."""
    if start_time(pid) == began:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def collect(fd: int) -> int:
    """The exit code of our child that has ended, negative for the signal it died of; it is then gone for good."""
    found = os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG)
    if found is None:
        raise ChildProcessError(f"the process of pidfd {fd} has not ended")
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


async def kill_and_wait(pid: int, began: int, seconds: float) -> bool:
    """Kill the process and wait until it has ended; False when it has not within ``seconds``."""
    fd = open_process(pid, began)
    if fd is None:
        return True
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        with anyio.move_on_after(seconds) as scope:
            await wait_gone(fd)
    finally:
        os.close(fd)
    reap(pid, began)
    return not scope.cancelled_caught
