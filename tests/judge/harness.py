"""A real silod on its own roots, driven by the real docker CLI; and what of it is on the host."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio

from silo.client.engine import EngineClient
from silo.config import Config

BIN = Path(__file__).resolve().parents[2] / ".venv" / "bin"
IMAGE = "silo/busybox"
READY = 20.0


def until(condition, seconds: float = 20.0, what: str = "") -> Any:
    """Poll a fact of the kernel's or of another process until it holds; the value, or a failure that names it."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        time.sleep(0.01)


class Engine:
    """One silod.  ``kill`` and ``start`` again to see what survives."""

    def __init__(self, *flags: str) -> None:
        self.work = Path(tempfile.mkdtemp(prefix="silo-test-"))
        self.data, self.exec = self.work / "data", self.work / "run"
        self.socket = f"unix://{self.work}/silo.sock"
        self.flags = flags
        self.instance = Config(data_root=self.data).instance
        self.process: subprocess.Popen[bytes] | None = None
        self.environment = {**os.environ, "DOCKER_CONFIG": str(self.work / "docker"), "DOCKER_HOST": self.socket}
        self.environment.pop("DOCKER_API_VERSION", None)

    def start(self) -> None:
        argv = [BIN / "silod", "--data-root", self.data, "--exec-root", self.exec, "-H", self.socket]
        with (self.work / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*map(str, argv), "--pidfile", str(self.work / "pid"), *self.flags],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            anyio.run(EngineClient(self.socket).wait_ready, READY)
        except BaseException as exc:
            raise AssertionError(f"silod does not answer:\n{self.log()}") from exc

    def log(self) -> str:
        return (self.work / "log").read_text()

    def kill(self) -> None:
        """As if the power went: nothing is told."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)

    def close(self) -> None:
        """Everything down, whatever a test did; then nothing of it may be on the host."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        ids = self.docker("ps", "-aq").stdout.split()
        if ids:
            self.docker("rm", "-f", "-v", *ids)
        self.stop()
        left = {}
        with contextlib.suppress(AssertionError):
            until(lambda: not any(self.leftovers().values()), 20)
        left = {kind: things for kind, things in self.leftovers().items() if things}
        log = self.log()
        shutil.rmtree(self.work, ignore_errors=True)
        assert not left, f"left on the host: {left}\n{log}"
        assert "Traceback" not in log, log

    def docker(self, *arguments: str, data: bytes | None = None, seconds: float = 60) -> Any:
        """A docker command; text out, also of a failing one."""
        done = subprocess.run(
            ["docker", *map(str, arguments)],
            input=data,
            capture_output=True,
            env=self.environment,
            timeout=seconds,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str, data: bytes | None = None) -> str:
        """A docker command that must succeed; its output."""
        done = self.docker(*arguments, data=data)
        assert done.code == 0, (
            f"docker {' '.join(map(str, arguments))}: {done.code} {done.stderr}\n{self.log()[-3000:]}"
        )
        return done.stdout.strip()

    def inspect(self, name: str) -> dict[str, Any]:
        return json.loads(self.ok("inspect", name))[0]

    def silo(self, *arguments: str) -> str:
        done = subprocess.run(
            [BIN / "silo", "-H", self.socket, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, path: str, **query: Any) -> Any:
        return anyio.run(lambda: EngineClient(self.socket).get(path, **query))

    def traces(self, name: str) -> list[dict[str, Any]]:
        return json.loads(self.silo("trace", name, "--format", "json"))["traces"]

    def leftovers(self) -> dict[str, list[str]]:
        """What of this engine is on the host, by kind."""
        tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
        return {
            "mounts": [line for line in Path("/proc/mounts").read_text().splitlines() if str(self.work) in line],
            "namespaces": [str(path) for path in self.exec.glob("netns/*")],
            "links": sorted(one.name for one in Path("/sys/class/net").iterdir() if one.name.startswith(self.mark)),
            "tables": [line for line in tables.splitlines() if self.instance in line],
            "cgroups": sorted(map(str, Path("/sys/fs/cgroup").glob(f"*/silo-{self.instance}"))),
            "processes": self.processes(),
            "containers": [str(path) for path in (self.data / "containers").glob("*")],
        }

    @property
    def mark(self) -> str:
        """How the names of this engine's bridges begin."""
        return f"silo{self.instance[:4]}"

    def processes(self) -> list[str]:
        """Processes that have our roots in their arguments: the engine and the monitors."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal() and int(folder.name) != os.getpid():
                with contextlib.suppress(OSError):
                    words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    if any(str(self.work) in word for word in words):
                        found.append(f"{folder.name} {words[0]}")
        return sorted(found)


class Done:
    """How a command ended."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code = code
        self.raw = out
        self.stdout = out.decode(errors="replace")
        self.stderr = err.decode(errors="replace")


@contextlib.contextmanager
def running(*flags: str) -> Iterator[Engine]:
    """An engine with an image, closed and checked at the end."""
    engine = Engine(*flags)
    try:
        engine.start()
        engine.silo("image", "bootstrap", IMAGE)
        yield engine
    finally:
        engine.close()
