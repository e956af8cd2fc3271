"""Network namespaces: made, entered and pinned by threads that live for one call.

pyroute2's sockets belong to the thread that uses them, and ``setns`` changes a thread for good: so every piece of work
inside a namespace is one function, run from beginning to end in a thread of its own.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from silo.host.linux import libc

R = TypeVar("R")


def _in_thread(work: Callable[[], R]) -> R:
    """Run ``work`` in a new thread with our context, and return or raise what it does."""
    context = contextvars.copy_context()
    result: list[R] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            result.append(context.run(work))
        except BaseException as exc:  # noqa: BLE001 - handed over to the thread that waits
            failure.append(exc)

    thread = threading.Thread(target=body, name="silo-netns", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def create(pin: Path, work: Callable[[], R]) -> R:
    """Make a namespace, pin it as the file ``pin``, and run ``work`` inside of it.  Undone when ``work`` fails."""

    def body() -> R:
        libc.unshare(libc.CLONE_NEWNET)
        pin.touch(mode=0o444, exist_ok=False)
        try:
            libc.mount("/proc/thread-self/ns/net", str(pin), "", libc.MS_BIND)
            return work()
        except BaseException:
            remove(pin)
            raise

    return _in_thread(body)


def inside(path: Path | str, work: Callable[[], R]) -> R:
    """Run ``work`` in the namespace that ``path`` refers to."""

    def body() -> R:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            libc.setns(fd, libc.CLONE_NEWNET)
        finally:
            os.close(fd)
        return work()

    return _in_thread(body)


def remove(pin: Path) -> None:
    """Let go of the namespace; the kernel takes its links away in its own time.  Idempotent."""
    with contextlib.suppress(OSError):
        libc.umount(str(pin), libc.MNT_DETACH)
    pin.unlink(missing_ok=True)


def is_pinned(pin: Path) -> bool:
    """Whether the file is a namespace's (an nsfs mount), not an empty file that a crash or a reboot left."""
    try:
        return pin.stat().st_dev != pin.parent.stat().st_dev
    except FileNotFoundError:
        return False


def inode(path: Path | str) -> int:
    """The number that ``/proc/<pid>/ns/net`` shows for the namespace."""
    return Path(path).stat().st_ino
