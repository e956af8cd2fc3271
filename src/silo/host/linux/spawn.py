"""Starts programs of the host from one thread that, on hybrid-cgroup hosts, has a mount namespace of its own.

crun refuses hosts where a cgroup2 file system is mounted beside version 1.  It works where that mount is not visible,
so the thread unshares its mount namespace and takes the mount away there; the host's own mounts are untouched. The
namespace is a slave of the host's: a shared mount made on the host later (the containers' roots) appears in it.
Children are made by vfork and inherit the thread's namespaces.  The thread only starts programs; waiting for them is
the event loop's work, so a program that hangs holds up nobody else.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import anyio
import msgspec

from silo.errors import Deadline
from silo.host.linux import libc, pidfd
from silo.host.linux.cgroup import Cgroups, Mode

R = TypeVar("R")

ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
MAX_OUTPUT: Final = 1 << 20
"""Bytes kept of what a program writes to one of its streams."""
KILL_SECONDS: Final = 5.0


class Finished(msgspec.Struct, frozen=True):
    """How a program ended (negative: the signal), and what it wrote."""

    code: int
    out: bytes
    err: bytes


class Spawner:
    """One thread that starts programs; made at first use, so that mounts made before are there."""

    def __init__(self, cgroups: Cgroups) -> None:
        self._cgroups = cgroups
        self._thread: ThreadPoolExecutor | None = None

    def _pool(self) -> ThreadPoolExecutor:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "silo-spawner", initializer=self._enter)
        return self._thread

    def _enter(self) -> None:
        if self._cgroups.mode != Mode.HYBRID or self._cgroups.unified is None:
            return
        libc.unshare(libc.CLONE_FS | libc.CLONE_NEWNS)
        libc.mount("none", "/", "", libc.MS_REC | libc.MS_SLAVE)
        libc.umount(self._cgroups.unified, libc.MNT_DETACH)

    async def start(
        self,
        argv: Sequence[str],
        *,
        directory: str,
        pass_fds: Sequence[int] = (),
        environment: dict[str, str] | None = None,
    ) -> int:
        """Start a program in a session of its own, without our streams; return its pid.  The caller reaps it."""
        null = subprocess.DEVNULL
        return await self._call(lambda: _popen(argv, null, null, directory, pass_fds, environment))

    async def run(self, argv: Sequence[str], *, seconds: float = 60) -> Finished:
        """Run a program to its end.  Raises Deadline; the program is then killed.

        Cancellation waits for the program: what it did must be known.
        """
        out, err = os.memfd_create("stdout"), os.memfd_create("stderr")
        try:
            pid = await self._call(lambda: _popen(argv, out, err))
            with anyio.CancelScope(shield=True):
                code = await _wait(pid, seconds)
            if code is None:
                raise Deadline(f"{' '.join(argv)} did not end within {seconds} s")
            return Finished(code, os.pread(out, MAX_OUTPUT, 0), os.pread(err, MAX_OUTPUT, 0))
        finally:
            os.close(out)
            os.close(err)

    async def _call(self, work: Callable[[], R]) -> R:
        """Run ``work`` in the thread; cancellation waits for it, since what it started must be known."""
        with anyio.CancelScope(shield=True):
            done = asyncio.wrap_future(self._pool().submit(work))
            await asyncio.wait([done])
        return done.result()

    def close(self) -> None:
        """End the thread; its namespace goes with the last program in it."""
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None


def _popen(
    argv: Sequence[str],
    stdout: int,
    stderr: int,
    directory: str = "/",
    pass_fds: Sequence[int] = (),
    environment: dict[str, str] | None = None,
) -> int:
    child = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        cwd=directory,
        env={**ENVIRONMENT, **(environment or {})},
        pass_fds=tuple(pass_fds),
        start_new_session=True,
    )
    child.returncode = 0  # watched by pidfd and reaped by us: Popen must not wait for it
    return child.pid


async def _wait(pid: int, seconds: float) -> int | None:
    """The exit code of our child; None when it had to be killed."""
    fd = os.pidfd_open(pid)
    try:
        with anyio.move_on_after(seconds) as scope:
            await pidfd.wait_gone(fd)
        if scope.cancelled_caught:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            with anyio.move_on_after(KILL_SECONDS):
                await pidfd.wait_gone(fd)
                pidfd.collect(fd)
            return None
        return pidfd.collect(fd)
    finally:
        os.close(fd)


def fd_path(fd: int) -> str:
    """A path by which another process of this user may open our descriptor."""
    return f"/proc/{os.getpid()}/fd/{fd}"
