"""kill -9 at the engine: containers run on, and the next engine knows everything."""

from __future__ import annotations

import os
import random
import subprocess

import pytest

from tests.judge.harness import IMAGE, Engine, running, until


@pytest.fixture
def engine():
    with running() as one:
        yield one


def test_what_runs_goes_on(engine: Engine):
    engine.ok("network", "create", "net")
    engine.ok("run", "-id", "--network", "net", "--name", "cat", IMAGE, "cat")
    engine.ok("run", "-d", "--name", "ends", IMAGE, "sh", "-c", "echo first; sleep 1; echo last; exit 42")
    before = engine.inspect("cat")
    engine.kill()
    until(lambda: len([one for one in engine.processes() if "conmon" in one]) == 1, what="the end of one container")
    engine.start()

    after = engine.inspect("cat")
    for key in ("State", "NetworkSettings", "Mounts"):
        assert after[key] == before[key]
    assert os.path.exists(f"/proc/{after['State']['Pid']}")
    ended = engine.inspect("ends")["State"]
    assert (ended["Status"], ended["ExitCode"], ended["Running"]) == ("exited", 42, False)
    assert engine.ok("wait", "ends") == "42"
    assert engine.ok("logs", "ends") == "first\nlast"

    attached = subprocess.Popen(
        ["docker", "attach", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=engine.environment
    )
    attached.stdin.write(b"still here\n")
    attached.stdin.flush()
    assert attached.stdout.readline() == b"still here\n"
    waiter = subprocess.Popen(["docker", "wait", "cat"], stdout=subprocess.PIPE, env=engine.environment)
    engine.ok("stop", "-t", "1", "cat")
    assert waiter.communicate(timeout=20)[0] == b"137\n"
    attached.communicate(timeout=20)
    engine.ok("start", "cat")
    assert engine.inspect("cat")["State"]["Running"]
    engine.ok("rm", "-f", "cat", "ends")
    engine.ok("network", "rm", "net")


def test_an_ordinary_stop_leaves_containers_running(engine: Engine):
    engine.ok("run", "-d", "--name", "on", IMAGE, "sleep", "100")
    pid = engine.inspect("on")["State"]["Pid"]
    engine.stop()
    assert os.path.exists(f"/proc/{pid}")
    engine.start()
    assert engine.inspect("on")["State"]["Pid"] == pid
    assert engine.ok("run", "--rm", IMAGE, "echo", "next") == "next"


def test_killed_at_any_moment_nothing_is_half_there(engine: Engine):
    """Runs are started while the engine is killed at random moments; the next engine has no half container."""
    chance = random.Random(7)
    for round_ in range(12):
        argv = ["docker", "run", "--rm", "--name", f"half{round_}", IMAGE, "sh", "-c", "exit 0"]
        client = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=engine.environment)
        with_delay = chance.uniform(0.005, 0.12)
        try:
            client.wait(with_delay)
        except subprocess.TimeoutExpired:
            pass
        engine.kill()
        client.wait(20)
        engine.start()
        for container in engine.docker("ps", "-aq").stdout.split():
            engine.docker("rm", "-f", container)  # it may end, and with --rm be gone, by itself meanwhile
        until(lambda: engine.ok("ps", "-aq") == "", what="no container")
        until(lambda: whole(engine) == {}, what=f"round {round_}: {whole(engine)}")


def whole(engine: Engine) -> dict[str, list[str]]:
    """What is there beyond what an engine with one image and no container has."""
    left = engine.leftovers()
    return {
        kind: things
        for kind, things in {
            "mounts": left["mounts"][1:],  # the first is the volumes' own
            "namespaces": left["namespaces"],
            "containers": left["containers"],
            "monitors": [one for one in left["processes"] if "conmon" in one],
            "layers": [one.name for one in (engine.data / "windowsfilter").iterdir() if one.name != ".empty"][1:],
            "systems": [one.name for one in (engine.exec / "hcs").iterdir()],
            "volumes": [one.name for one in (engine.exec / "volumes").iterdir()],
        }.items()
        if things
    }


def test_a_second_engine_on_the_same_roots_is_refused(engine: Engine):
    argv = [engine.process.args[0], *engine.process.args[1:5], "-H", f"unix://{engine.work}/other.sock"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode != 0
    assert "another silod uses" in done.stderr
    assert engine.ok("version", "--format", "{{.Server.Version}}")
