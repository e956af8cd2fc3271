"""Two hundred lives: what there is of kernel objects, descriptors and threads is what there was at first."""

from __future__ import annotations

import os
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


def test_two_hundred_cycles_leave_nothing():
    with running() as engine:
        for _ in range(10):  # the worker threads are there
            engine.ok("run", "--rm", IMAGE, "true")
        engine.ok("ps")
        before = count(engine)
        for number in range(200):
            assert engine.ok("run", "--rm", IMAGE, "echo", str(number)) == str(number)

        def settled() -> bool:
            now = count(engine)
            return all(now[key] <= before[key] for key in before)

        until(settled, 30, f"{before} -> {count(engine)}")
