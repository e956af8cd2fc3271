"""Two hundred lives: what there is of kernel objects, descriptors and threads is what there was at first."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.judge.harness import IMAGE, Engine, running, until


def count(engine: Engine) -> dict[str, int]:
    pid = engine.process.pid
    return {
        "mounts": len(Path("/proc/mounts").read_text().splitlines()),
        "namespaces": len(list(engine.exec.glob("netns/*"))),
        "links": len(list(Path("/sys/class/net").iterdir())),
        "cgroups": len(list(Path("/sys/fs/cgroup").glob(f"*/silo-{engine.instance}/*"))),
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": len(os.listdir(f"/proc/{pid}/task")),
        "processes": len(engine.processes()),
        "volumes": len(list(engine.exec.glob("volumes/*"))),
        "layers": len(list((engine.data / "windowsfilter").iterdir())),
    }


def run_at_once(engine: Engine, number: int) -> None:
    """So many runs side by side: after it every worker thread and connection that one run needs is there."""
    argv = ["docker", "run", "--rm", IMAGE, "true"]
    clients = [subprocess.Popen(argv, env=engine.environment) for _ in range(number)]
    assert [client.wait(60) for client in clients] == [0] * number


def test_two_hundred_cycles_leave_nothing():
    with running() as engine:
        run_at_once(engine, 8)
        engine.ok("ps")
        before = count(engine)
        for number in range(200):
            assert engine.ok("run", "--rm", IMAGE, "echo", str(number)) == str(number)

        def settled() -> bool:
            now = count(engine)
            return all(now[key] <= before[key] for key in before)

        until(settled, 30, f"{before} -> {count(engine)}")
