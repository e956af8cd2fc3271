"""The engines that are compared: silod and dockerd on roots of their own, and podman's storage."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import anyio
from runtimes import ENVIRONMENT, Failed

from silo.client.bootstrap import bootstrap_archive
from silo.client.engine import EngineClient
from silo.errors import SiloError

BIN = Path(__file__).resolve().parent.parent / ".venv" / "bin"
IMAGE = "silo/busybox"
READY_SECONDS = 40
END_SECONDS = 30
POLL_SECONDS = 0.05


def command(argv: Sequence[str], environment: dict[str, str] | None = None) -> str:
    """Run a command that is not measured; what it prints.  Raises Failed."""
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **(environment or {})}
    )
    if done.returncode != 0:
        raise Failed(f"{' '.join(argv)}: {' '.join(done.stderr.split())[:300]}")
    return done.stdout.strip()


class Daemon:
    """An engine's process with the Engine API on a socket below its folder."""

    def __init__(self, folder: Path, argv: Sequence[str], extra: Sequence[str] = ()) -> None:
        folder.mkdir()
        self.folder, self.data = folder, folder / "data"
        self.host = f"unix://{folder}/engine.sock"
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*argv, "--data-root", str(self.data), "--exec-root", f"{folder}/run", "-H", self.host,
                 "--pidfile", f"{folder}/pid", *extra],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def prepare(self) -> None:
        """Wait until it answers, and give it the image.  Raises Failed."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                anyio.run(EngineClient(self.host).wait_ready, 0)
                break
            except SiloError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    lines = self._log.read_text("utf-8", "replace").splitlines()
                    raise Failed(f"it does not answer; it last said: {lines[-1] if lines else 'nothing'}") from None
                time.sleep(POLL_SECONDS)
        command([str(BIN / "silo"), "-H", self.host, "image", "bootstrap", IMAGE])

    def stop(self) -> None:
        """Remove what it still runs, then end it."""
        if self.process.poll() is None:
            try:
                anyio.run(_remove_all, self.host)
            except (SiloError, OSError, TimeoutError) as exc:
                print(f"{self.folder.name}: removing its containers: {exc}", file=sys.stderr)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                print(f"killed: {self.folder.name} did not end within {END_SECONDS} s", file=sys.stderr)
                self.process.kill()
                self.process.wait()


async def _remove_all(host: str) -> None:
    client = EngineClient(host)
    with anyio.fail_after(END_SECONDS):
        while found := await client.get("/containers/json", all=1):
            for one in found:
                # refused for now while a start that was interrupted is under way, or gone by itself (--rm)
                with suppress(SiloError):
                    await client.delete(f"/containers/{one['Id']}", force=1, v=1)
            await anyio.sleep(POLL_SECONDS)


class Dockerd(Daemon):
    """Debian's dockerd, in a network namespace of its own: its rules and its bridge touch nobody."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("dockerd") is None:
            raise Failed("no dockerd on this machine (Debian: docker.io)")
        self._space = f"silo-bench-{os.getpid()}"
        command(["ip", "netns", "add", self._space])
        inside = ["nsenter", f"--net=/run/netns/{self._space}", "--"]
        try:
            command([*inside, "ip", "link", "set", "lo", "up"])
            settings = folder.with_name("daemon.json")
            settings.write_text("{}")
            super().__init__(folder, [*inside, "dockerd"], ["--config-file", str(settings)])
        except BaseException:
            command(["ip", "netns", "del", self._space])
            raise

    def stop(self) -> None:
        """End it, its containerd where it did not do so itself, and its namespace."""
        super().stop()
        with suppress(OSError, ValueError):
            pid = int((self.folder / "run/containerd/containerd.pid").read_text())
            if str(self.folder) in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGKILL)
        command(["ip", "netns", "del", self._space])


class Podman:
    """Podman with storage of its own."""

    def __init__(self, folder: Path, group: str) -> None:
        if shutil.which("podman") is None:
            raise Failed("no podman on this machine")
        folder.mkdir()
        self._base = [
            "podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--tmpdir", f"{folder}/tmp",
            "--cgroup-manager", "cgroupfs", "--events-backend", "none", "--runtime", "crun",
        ]  # fmt: skip
        self._group = group
        archive = folder / "image.tar"
        with archive.open("wb") as file:
            bootstrap_archive(IMAGE, file)
        command([*self._base, "load", "-q", "-i", str(archive)], ENVIRONMENT)

    def run(self) -> list[str]:
        """The measured command.  The limits are given since podman otherwise raises them, which not every host lets."""
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--cgroup-parent", self._group]
        return [*self._base, "run", "--rm", "--network", "none", *limits, IMAGE, "true"]


def remove_tree(folder: Path) -> None:
    """Take away what is mounted below the folder, then the folder."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for target in sorted((one for one in mounts if Path(one).is_relative_to(folder)), reverse=True):
        subprocess.run(["umount", "-l", target], check=False)
    shutil.rmtree(folder)
