"""``make bench``: what one container costs, from nothing to removed, beside bare runtimes and other engines.

Two series, each interleaved run by run, the order turned by one from round to round: the raw API beside ``crun run``
and ``runc run`` of the same root file system with an equivalent configuration; then whole programs (``docker run``,
``podman run``), with ``crun run`` again as their own reference.  Results go to bench/results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
from engines import BIN, IMAGE, Daemon, Dockerd, Podman, command, remove_tree
from runtimes import Failed, Helper, bare_config, bundle, remove_cgroups

from silo.client.engine import EngineClient, exit_code
from silo.config import Config
from silo.errors import SiloError
from silo.host.linux import cgroup

RESULTS = Path(__file__).resolve().parent / "results.json"
WARM_UP = 2
RUN_SECONDS = 60
GONE_SECONDS = 5
TRACES = 50
"""At most this many containers of each network are asked for their traces."""
CRUN, CRUN_AGAIN, RUNC = "crun run", "crun run (beside the programs)", "runc run"
NONE, BRIDGE = "silo API, network none", "silo API, default bridge"

Measure = Callable[[], float]


class Bench:
    """Everything that is started, in the order in which it is taken down again."""

    def __init__(self, work: Path, stack: ExitStack) -> None:
        self.work, self._stack = work, stack
        self.group = f"silo-bench-{os.getpid()}"
        self.samples: dict[str, list[float]] = {}
        self.skipped: dict[str, str] = {}
        self.containers: dict[str, list[str]] = {"none": [], "bridge": []}
        self.versions: dict[str, str] = {}
        stack.callback(remove_cgroups, self.group)
        settings = work / "docker" / "config.json"
        settings.parent.mkdir()
        settings.write_text("{}")  # podman reads it as well, and wants it to exist
        self.helper = Helper({"DOCKER_CONFIG": str(settings.parent)})
        stack.callback(report_left, work)
        self.silod = Daemon(work / "silo", [str(BIN / "silod")], ["--log-level", "warn"])
        stack.callback(self.silod.stop)
        stack.callback(self.helper.close)  # first of all: what it still runs must not make a container meanwhile
        self.silod.prepare()

    def bundles(self) -> None:
        """Bundles for the bare runtimes, from a container of the engine."""
        anyio.run(self._bundles)

    async def _bundles(self) -> None:
        client = EngineClient(self.silod.host)
        made = await client.create("", {"Image": IMAGE, "Cmd": ["sleep", "100"], "HostConfig": {"NetworkMode": "none"}})
        await client.start(made)
        own = json.loads((self.silod.data / "containers" / made / "config.json").read_text())
        shutil.copytree(own["root"]["path"], self.work / "rootfs", symlinks=True)
        await client.delete(f"/containers/{made}", force=1)
        for name in ("crun", "runc"):
            bundle(self.work / name, bare_config(own, self.work / "rootfs", f"/{self.group}/{name}"))

    def bare(self, name: str) -> Measure:
        """``crun run`` or ``runc run``."""
        argv = [name, "--root", f"{self.work}/{name}-state", "run", "--bundle", f"{self.work}/{name}", f"bench-{name}"]
        return lambda: self.helper.run(argv)

    def api(self, network: str) -> Measure:
        """Create, start, wait and remove through the raw API."""
        return lambda: anyio.run(self._api, network)

    async def _api(self, network: str) -> float:
        client = EngineClient(self.silod.host)
        body = {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"NetworkMode": network}}
        with anyio.fail_after(RUN_SECONDS):
            began = time.perf_counter()
            made = await client.create("", body)
            async with client.waiting(made, "next-exit") as answer:
                await client.start(made)
                code = await exit_code(answer)
            await client.delete(f"/containers/{made}")
            seconds = time.perf_counter() - began
        if code != 0:
            raise Failed(f"true in a container with network {network}: exit code {code}")
        self.containers[network].append(made)
        return seconds

    def docker(self, host: str) -> Measure:
        """``docker run`` against an engine."""
        argv = ["docker", "-H", host, "run", "--rm", "--network", "none", IMAGE, "true"]
        return lambda: self.helper.run(argv)

    def programs(self) -> dict[str, Measure]:
        """The second series: what of it is here and works."""
        found: dict[str, Measure] = {CRUN_AGAIN: self.bare("crun")}
        if shutil.which("docker"):
            found["docker run, silo"] = self.docker(self.silod.host)
        else:
            self.skip("docker run", "no docker CLI on this machine (Debian: docker-cli)")
        try:
            if shutil.which("docker"):
                dockerd = Dockerd(self.work / "dockerd")
                self._stack.callback(dockerd.stop)
                self._stack.callback(self.helper.close)
                dockerd.prepare()
                form = "{{.ServerVersion}}, {{.Driver}}, {{.DefaultRuntime}}, cgroup v{{.CgroupVersion}}"
                self.versions["dockerd"] = command(["docker", "-H", dockerd.host, "info", "--format", form])
                measure = self.docker(dockerd.host)
                measure()
                found["docker run, dockerd"] = measure
        except Failed as exc:
            self.skip("docker run, dockerd", str(exc))
        try:
            argv = Podman(self.work / "podman", f"/{self.group}").run()
            self.helper.run(argv)
            found["podman run"] = lambda: self.helper.run(argv)
        except Failed as exc:
            self.skip("podman run", str(exc))
        return found

    def skip(self, name: str, why: str) -> None:
        """Leave a row out, and say so."""
        self.skipped[name] = why
        print(f"skipped: {name}: {why}", flush=True)

    def series(self, measures: dict[str, Measure], runs: int) -> None:
        """Run all of them in turn, ``runs`` times after the warm-up."""
        print(f"{runs} runs each of: {'; '.join(measures)}", flush=True)
        names = list(measures)
        for number in range(-WARM_UP, runs):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                seconds = measures[name]()
                if number >= 0:
                    self.samples.setdefault(name, []).append(seconds * 1000)

    def shares(self, runs: int) -> dict[str, dict[str, Any]]:
        """The engine's own part of ``start``, from the traces of the last containers."""
        return {network: anyio.run(self._share, network, min(runs, TRACES)) for network in self.containers}

    async def _share(self, network: str, count: int) -> dict[str, Any]:
        client = EngineClient(self.silod.host)
        rows = []
        for one in self.containers[network][-count:]:
            for trace in (await client.get(f"/silo/traces/{one}"))["traces"]:
                spans = trace["spans"]
                if spans[0]["name"] == "api::POST /containers/{name}/start":
                    rows.append(_share_of(spans))
        if not rows:
            raise Failed(f"no traces of a start with network {network}")
        medians = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        return {"starts": len(rows), **medians, "raw": rows}


def report_left(work: Path) -> None:
    """Say what the engine left on the host, which would be its fault."""
    instance = Config(data_root=work / "silo" / "data").instance
    deadline = time.monotonic() + GONE_SECONDS
    while True:
        found = [one.name for one in Path("/sys/class/net").iterdir() if one.name.startswith(f"silo{instance[:4]}")]
        found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/silo-{instance}")]
        tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
        found += [line for line in tables.splitlines() if instance in line]
        if not found or time.monotonic() > deadline:
            break
        time.sleep(0.05)  # the kernel takes links away a moment after their namespace
    if found:
        print(f"bench: silod left behind: {', '.join(found)}", file=sys.stderr)


def _share_of(spans: list[dict[str, Any]]) -> dict[str, float]:
    """One start: all of it, the runtime's part, the rest, and how much of it the innermost spans account for."""
    root, parents = spans[0], {span["parent_id"] for span in spans}
    total = root["duration_ns"]
    runtime = sum(
        span["duration_ns"]
        for span in spans
        if span["name"] in {"crun::create", "crun::start", "runc::create", "runc::start"}
    )
    leaves = sorted(
        (span["start_ns"], span["start_ns"] + span["duration_ns"]) for span in spans if span["span_id"] not in parents
    )
    covered, reached, end = 0, root["start_ns"], root["start_ns"] + total
    for first, last in leaves:
        first, last = max(first, reached), min(last, end)
        if last > first:
            covered, reached = covered + last - first, last
    return {
        "start_ms": total / 1e6,
        "runtime_ms": runtime / 1e6,
        "engine_ms": (total - runtime) / 1e6,
        "engine_share": (total - runtime) / total,
        "leaf_coverage": covered / total,
    }


def summary(samples: dict[str, list[float]]) -> list[dict[str, Any]]:
    """A row for each measurement; each series has its own ``crun run`` to compare with."""
    rows, reference = [], 0.0
    for name, values in samples.items():
        median = statistics.median(values)
        if name in {CRUN, CRUN_AGAIN}:
            reference = median
        p90 = statistics.quantiles(values, n=10, method="inclusive")[8] if len(values) > 1 else median
        rows.append({"name": name, "median_ms": median, "p90_ms": p90, "ratio_to_crun_run": median / reference})
    return rows


def facts(work: Path, versions: dict[str, str]) -> dict[str, Any]:
    """What the numbers depend on."""
    models = [one for one in Path("/proc/cpuinfo").read_text().splitlines() if one.startswith("model name")]
    found = dict(versions)
    for name in ("crun", "runc", "docker", "podman"):
        if shutil.which(name):
            found[name] = command([name, "--version"]).splitlines()[0]
    root = RESULTS.parent.parent
    commit = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return {
        "kernel": platform.release(),
        "cpu": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "cgroups": str(cgroup.host().mode),
        "file_system": command(["stat", "-f", "-c", "%T", str(work)]),
        "load": list(os.getloadavg()),
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": found,
    }


def show(rows: list[dict[str, Any]], shares: dict[str, dict[str, Any]]) -> None:
    """The table."""
    print(f"\n{'':32}{'median ms':>10}{'p90 ms':>10}{'ratio to crun run':>20}")
    for row in rows:
        print(f"{row['name']:32}{row['median_ms']:10.1f}{row['p90_ms']:10.1f}{row['ratio_to_crun_run']:20.2f}")
    print("\nOf a start, from the engine's own traces (medians):")
    for network, one in shares.items():
        print(
            f"  network {network:7} start {one['start_ms']:5.1f} ms = runtime {one['runtime_ms']:5.1f} ms + engine "
            f"{one['engine_ms']:5.1f} ms ({one['engine_share']:.0%}); leaf spans cover {one['leaf_coverage']:.0%}"
        )


def measure(work: Path, stack: ExitStack, runs: int) -> None:
    """All of it."""
    load = list(os.getloadavg())
    bench = Bench(work, stack)
    bench.bundles()
    first = {CRUN: bench.bare("crun")}
    if shutil.which("runc"):
        first[RUNC] = bench.bare("runc")
    else:
        bench.skip(RUNC, "no runc on this machine")
    bench.series({**first, NONE: bench.api("none"), BRIDGE: bench.api("bridge")}, runs)
    shares = bench.shares(runs)
    bench.series(bench.programs(), runs)
    # rows in the order of the table, whichever came first in its turn
    order = [CRUN, RUNC, NONE, BRIDGE, CRUN_AGAIN]
    samples = dict(sorted(bench.samples.items(), key=lambda one: order.index(one[0]) if one[0] in order else 99))
    rows = summary(samples)
    machine = {**facts(work, bench.versions), "load": load}
    show(rows, shares)
    RESULTS.write_text(
        json.dumps(
            {"machine": machine, "runs": runs, "rows": rows, "start": shares, "skipped": bench.skipped,
             "samples_ms": samples},
            indent=1,
        )
    )  # fmt: skip
    print(f"\n{machine['cpus']} x {machine['cpu']}, Linux {machine['kernel']}, cgroups {machine['cgroups']}; {RESULTS}")


def main() -> int:
    """Measure; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="runs of each kind (default 20)")
    runs: int = max(1, parser.parse_args().runs)
    if os.geteuid() != 0:
        print("bench: root is needed: it makes namespaces, mounts and containers", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with ExitStack() as stack:
        work = Path(tempfile.mkdtemp(prefix="silo-bench-"))
        stack.callback(remove_tree, work)
        try:
            measure(work, stack, runs)
        except (Failed, SiloError, TimeoutError) as exc:
            print(f"bench: {type(exc).__name__}: {exc}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("bench: interrupted", file=sys.stderr)
            return 130
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):  # taking down is not interrupted
                signal.signal(number, signal.SIG_IGN)
    return 0


if __name__ == "__main__":
    sys.exit(main())
