"""``make demo``: the main job from nothing to nothing, on the real kernel, with what happened printed.

Starts an engine on roots of its own, makes an image from the host's busybox, runs
``docker run -id --network examplenetwork --name example IMAGE sh``, shows the trace, takes everything down and checks
that nothing is left.  Exit code 0 only if all of it worked.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
IMAGE = "silo/busybox"
NETWORK = "examplenetwork"
NAME = "example"
READY_SECONDS = 20
GONE_SECONDS = 20
DIRECTORIES = ("data/containers/*", "data/windowsfilter/*/sandbox*", "data/windowsfilter/*-removing", "run/volumes/*")
"""Containers, scratch layers, half-removed layers, activated volumes: an image's layers may stay."""
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Failed(Exception):
    """A step of the demo did not do what it must."""


class Demo:
    """One engine on its own roots, and the steps of the main job."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.socket = f"unix://{work}/silo.sock"
        self.silod = [
            str(BIN / "silod"), "--data-root", f"{work}/data", "--exec-root", f"{work}/run",
            "-H", self.socket, "--pidfile", f"{work}/silod.pid", "--log-level", "warn",
        ]  # fmt: skip
        self.engine: subprocess.Popen[bytes] | None = None
        self.ports: list[str] = []
        docker = shutil.which("docker")
        self.client = [docker, "-H", self.socket] if docker else [str(BIN / "silo"), "-H", self.socket]
        self.shown = "docker" if docker else "silo"
        self.environment = {**os.environ, "DOCKER_CONFIG": str(work / "docker"), "DOCKER_API_VERSION": ""}
        self.environment.pop("DOCKER_API_VERSION")

    def start(self) -> None:
        """Start silod and wait until it answers."""
        title("The engine")
        print("$", " ".join(self.silod).replace(str(ROOT) + "/", ""))
        self.launch()

    def launch(self) -> None:
        """The engine's process, answering."""
        self.engine = subprocess.Popen(self.silod, start_new_session=True)
        deadline = time.monotonic() + READY_SECONDS
        while not self._answers():
            if self.engine.poll() is not None or time.monotonic() > deadline:
                raise Failed("silod does not answer")
            time.sleep(0.05)

    def _answers(self) -> bool:
        return self.run([str(BIN / "silo"), "-H", self.socket, "version"], check=False, quiet=True) is not None

    def run(self, argv: Sequence[str], *, check: bool = True, quiet: bool = False, shown: str = "") -> str | None:
        """Run a command, print it and what it prints; its output, or None when it failed and may."""
        if not quiet:
            print("$", shown or " ".join(argv), flush=True)
        done = subprocess.run(argv, capture_output=True, text=True, env=self.environment, timeout=60, check=False)
        if not quiet:
            print(done.stdout, end="", flush=True)
        if done.returncode == 0:
            return done.stdout
        if check:
            raise Failed(f"{' '.join(argv)}: exit code {done.returncode}: {done.stderr.strip()}")
        return None

    def docker(self, *arguments: str) -> str:
        """A command of the docker CLI (or of ours, which takes the same words)."""
        return self.run([*self.client, *arguments], shown=f"{self.shown} {' '.join(arguments)}") or ""

    def silo(self, *arguments: str) -> str:
        """A command of the silo CLI."""
        argv = [str(BIN / "silo"), "-H", self.socket, *arguments]
        return self.run(argv, shown=f"silo {' '.join(arguments)}") or ""

    def main_job(self) -> None:
        """The flow of the design, section 1."""
        title("An image, without a registry")
        self.silo("image", "bootstrap", IMAGE)
        title("The main job")
        self.docker("network", "create", NETWORK)
        self.docker("run", "-id", "--network", NETWORK, "--name", NAME, IMAGE, "sh")
        self.docker("ps")
        shown = json.loads(self.run([*self.client, "inspect", NAME], quiet=True) or "[]")[0]
        endpoint = shown["NetworkSettings"]["Networks"][NETWORK]
        print(f"  pid {shown['State']['Pid']}, {shown['GraphDriver']['Name']} {shown['GraphDriver']['Data']['dir']}")
        print(f"  address {endpoint['IPAddress']}, mac {endpoint['MacAddress']}, gateway {endpoint['Gateway']}")
        title("Its layers and its compartment")
        self.silo("layerchain", NAME)
        self.silo("compartments")
        title("What happened")
        self.silo("trace", NAME)
        self.check_trace()

    def check_trace(self) -> None:
        """The calls of the mission document, in their order; and which links to look for in the end."""
        document = json.loads(
            self.run([str(BIN / "silo"), "-H", self.socket, "trace", NAME, "--format", "json"], quiet=True) or "{}"
        )
        spans = [span for trace in document["traces"] for span in trace["spans"]]
        made = [effect["object"] for span in spans for effect in span["effects"] if effect["kind"] == "port"]
        self.ports = [port.rpartition("/")[2] for port in made]
        names = [span["name"] for span in spans]
        wanted = [
            "hcsshim::GetLayerMountPath", "hcsshim::CreateScratchLayer", "hcsshim::ActivateLayer",
            "hcsshim::PrepareLayer", "hcsshim::HNSCall", "cnm::Join", "hcsshim::CreateComputeSystem",
            "hcsshim::ComputeSystem::Start", "hcsshim::ComputeSystem::CreateProcess",
        ]  # fmt: skip
        places = [names.index(name) if name in names else -1 for name in wanted]
        if -1 in places or places != sorted(places):
            raise Failed(
                f"the trace lacks a call, or has it in the wrong order: {dict(zip(wanted, places, strict=True))}"
            )

    def take_down(self) -> None:
        """Everything off again, by the commands a user has."""
        title("Down again")
        self.docker("stop", "-t", "1", NAME)
        self.docker("rm", NAME)
        self.docker("network", "rm", NETWORK)

    def stop(self) -> None:
        """End the engine, and what a failed step has left in it.  One that died is started again for that."""
        if self.engine is None:
            return
        died = self.engine.poll()
        try:
            if died is not None:
                self.launch()
            self.run([*self.client, "rm", "-f", NAME], check=False, quiet=True)
            self.run([*self.client, "network", "rm", NETWORK], check=False, quiet=True)
            self.engine.send_signal(signal.SIGTERM)
            code = self.engine.wait(GONE_SECONDS)
        except subprocess.TimeoutExpired as exc:
            self.engine.kill()
            self.engine.wait()
            raise Failed(f"silod did not end within its time: {exc}") from exc
        if code != 0 or died is not None:
            raise Failed(f"silod ended with exit code {code if died is None else died}")

    def leftovers(self) -> dict[str, list[str]]:
        """What of ours is on the host, by kind."""
        mark = str(self.work)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if mark in line]
        tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
        instance = self.instance()
        return {
            "mounts": mounts,
            "namespaces": [str(path) for path in (self.work / "run").glob("netns/*")],
            "links": [
                one.name
                for one in Path("/sys/class/net").iterdir()
                if one.name.startswith(f"silo{instance[:4]}") or one.name in self.ports
            ],
            "nft tables": [line for line in tables.splitlines() if instance in line],
            "cgroups": [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/silo-{instance}")],
            "processes": _processes(mark),
            "directories": [str(path) for pattern in DIRECTORIES for path in self.work.glob(pattern)],
        }

    def instance(self) -> str:
        """The mark that the engine's links, tables and cgroups carry."""
        sys.path.insert(0, str(ROOT / "src"))
        from silo.config import Config

        return Config(data_root=self.work / "data").instance

    def check_nothing_left(self) -> None:
        """Print a line for each kind; raise when something is left."""
        title("What is left on the host")
        deadline = time.monotonic() + GONE_SECONDS
        while any(self.leftovers().values()) and time.monotonic() < deadline:
            time.sleep(0.05)  # the kernel takes links away a moment after their namespace
        found = self.leftovers()
        for kind, things in found.items():
            print(f"  {kind:12} {'none' if not things else ', '.join(things)}")
        if any(found.values()):
            raise Failed("something is left")


def _processes(mark: str) -> list[str]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            try:
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if any(mark in word for word in words):
                found.append(f"{folder.name} {words[0]}")
    return found


def title(text: str) -> None:
    """A heading."""
    print(f"\n── {text} {'─' * max(0, 90 - len(text))}", flush=True)


def attempt(*steps: Callable[[], None]) -> list[str]:
    """Do the steps up to the first that fails; what failed, or nothing."""
    try:
        for step in steps:
            step()
    except KeyboardInterrupt:
        return ["interrupted"]
    except (Failed, subprocess.SubprocessError, OSError, LookupError, ValueError) as exc:
        return [f"{step.__name__}: {exc if isinstance(exc, Failed) else repr(exc)}"]
    return []


def main() -> int:
    """Run the demo; the exit code."""
    if os.geteuid() != 0:
        print("demo: root is needed: it makes namespaces, mounts and containers", file=sys.stderr)
        return 1
    for number in STOPPING:
        signal.signal(number, signal.default_int_handler)
    work = Path(tempfile.mkdtemp(prefix="silo-demo-"))
    demo = Demo(work)
    began = time.monotonic()
    failures = attempt(demo.start, demo.main_job, demo.take_down)
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)  # cleaning up is not interrupted
    failures += attempt(demo.stop)
    failures += attempt(demo.check_nothing_left)
    if any(demo.leftovers().values()):
        print(f"\ndemo: see {work}", file=sys.stderr)
    else:
        shutil.rmtree(work)
    if failures:
        print("".join(f"\ndemo: {failure}" for failure in failures), file=sys.stderr)
        return 1
    print(f"\nAll of it worked, in {time.monotonic() - began:.1f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
