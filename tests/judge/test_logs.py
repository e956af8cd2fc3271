"""Log drivers, rotation and following, on a real engine."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.judge.harness import IMAGE, Engine, running, until

COUNT = 60_000
NUMBERS = f"i=0; while [ $i -lt {COUNT} ]; do i=$((i+1)); echo line $i; [ $((i%1000)) -ne 0 ] || usleep 10000; done"
LINES = "".join(f"line {number}\n" for number in range(1, COUNT + 1))
ROTATED = ["--log-opt", "max-size=100k", "--log-opt", "max-file=100"]


def files(engine: Engine, name: str) -> list[str]:
    return sorted(one.name for one in (engine.data / "containers" / engine.inspect(name)["Id"]).glob("container.log*"))


@pytest.mark.parametrize("compress", ["false", "true"])
def test_nothing_is_lost_over_rotations_and_a_follower_sees_all(engine: Engine, compress: str):
    options = [*ROTATED, "--log-opt", f"compress={compress}"]
    engine.ok("run", "-id", "--name", "talk", *options, IMAGE, "sh", "-c", f"read x; {NUMBERS}")
    follower = subprocess.Popen(["docker", "logs", "-f", "talk"], stdout=subprocess.PIPE, env=engine.environment)
    attached = engine.docker("attach", "talk", data=b"go\n")
    assert attached.stdout == LINES
    assert follower.communicate(timeout=60)[0].decode() == LINES
    assert engine.docker("logs", "talk").stdout == LINES
    assert len(files(engine, "talk")) > 2
    assert engine.docker("logs", "--tail", "3000", "talk").stdout == "".join(LINES.splitlines(True)[-3000:])
    if compress == "true":
        until(lambda: any(name.endswith(".gz") for name in files(engine, "talk")))


def test_no_more_files_than_asked_for_are_kept(engine: Engine):
    engine.ok(
        "run", "--name", "few", "--log-opt", "max-size=50k", "--log-opt", "max-file=2", IMAGE, "sh", "-c", NUMBERS
    )
    shown = engine.docker("logs", "few").stdout
    assert shown
    assert LINES.endswith(shown)
    assert len(files(engine, "few")) <= 2
    engine.ok("run", "--name", "one", "--log-opt", "max-size=50k", IMAGE, "sh", "-c", NUMBERS)
    assert LINES.endswith(engine.docker("logs", "one").stdout)
    assert files(engine, "one") == ["container.log"]


def test_restarts_add_to_the_log(engine: Engine):
    engine.ok("create", "--name", "again", *ROTATED, IMAGE, "sh", "-c", "echo one; printf two")
    for _ in range(3):
        engine.ok("start", "again")
        engine.ok("wait", "again")
    assert engine.docker("logs", "again").stdout == "one\ntwo" * 3
    assert engine.docker("logs", "--tail", "1", "again").stdout == "two"


def test_a_created_container_has_an_empty_log(engine: Engine):
    engine.ok("create", "--name", "new", IMAGE, "true")
    assert engine.docker("logs", "new").stdout == ""
    assert engine.docker("logs", "-f", "--tail", "1", "new").stdout == ""


def test_attach_logs_and_a_follower_agree_byte_by_byte(engine: Engine):
    """A megabyte without a newline, NUL bytes, bytes that are no text, and both streams in their order."""
    script = (
        "read x; head -c 1048576 /dev/zero | tr '\\0' y; echo; head -c 3000 /dev/zero; "
        "for i in 1 2 3 4; do printf '\\377\\376\\r\\n'; echo err $i >&2; done; printf end"
    )
    engine.ok("run", "-id", "--name", "odd", IMAGE, "sh", "-c", script)
    follower = subprocess.Popen(
        ["docker", "logs", "-f", "odd"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=engine.environment
    )
    attached = engine.docker("attach", "odd", data=b"\n")
    out, err = follower.communicate(timeout=60)
    expected = b"y" * (1 << 20) + b"\n" + bytes(3000) + b"\xff\xfe\r\n" * 4 + b"end"
    assert attached.raw == out == engine.docker("logs", "odd").raw == expected
    assert err == b"err 1\nerr 2\nerr 3\nerr 4\n"


def test_details_timestamps_since_and_until(engine: Engine):
    options = ["--log-opt", "labels=who", "--log-opt", "env-regex=^SHO", "--log-opt", "tag={{.Name}}/{{.ImageName}}"]
    engine.ok(
        "run", "--name", "tagged", "--label", "who=me & you", "-e", "SHOW=1", "-e", "HIDE=2", *options, IMAGE,
        "sh", "-c", "echo a; sleep 1.1; echo b",
    )  # fmt: skip
    assert engine.docker("logs", "--details", "tagged").stdout.splitlines()[0] == (
        f"SHOW=1,tag=tagged%2F{IMAGE.replace('/', '%2F')},who=me+%26+you a"
    )
    stamps = [line.split()[0] for line in engine.docker("logs", "-t", "tagged").stdout.splitlines()]
    assert engine.docker("logs", "--since", stamps[1], "tagged").stdout == "b\n"
    assert engine.docker("logs", "--until", stamps[0], "tagged").stdout == "a\n"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--log-driver", "nope"], 'error looking up logging plugin nope: plugin "nope" not found'),
        (["--log-opt", "nope=1"], "unknown log opt 'nope' for json-file log driver"),
        (["--log-driver", "local", "--log-opt", "nope=1"], "unknown log opt 'nope' for log driver local"),
        (["--log-opt", "mode=foo"], "logger: logging mode not supported: foo"),
        (
            ["--log-opt", "max-buffer-size=1m"],
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        (
            ["--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=x"],
            "error parsing option max-buffer-size: invalid size: 'x'",
        ),
        (["--log-opt", "cache-disabled=foo"], "invalid value for option cache-disabled: foo"),
    ],
)
def test_what_is_refused_at_create(engine: Engine, options: list[str], text: str):
    done = engine.docker("create", *options, IMAGE, "true")
    assert done.code != 0
    assert f"Error response from daemon: {text}" in done.stderr


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--log-opt", "max-size=abc"], "invalid size: 'abc'"),
        (["--log-opt", "max-file=abc"], 'strconv.Atoi: parsing "abc": invalid syntax'),
        (["--log-opt", "max-file=0"], "max-file cannot be less than 1"),
        (["--log-opt", "compress=maybe"], 'strconv.ParseBool: parsing "maybe": invalid syntax'),
        (
            ["--log-opt", "compress=true"],
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        ),
        (["--log-opt", "tag={{.ID"], "template: log-tag:1: unclosed action"),
        (
            ["--log-opt", "tag={{.Foo}}"],
            'template: log-tag:1:2: executing "log-tag" at <.Foo>: can\'t evaluate field Foo in type *logger.Info',
        ),
        (
            ["--log-driver", "local", "--log-opt", "max-size=abc"],
            "invalid value for max-size: abc: invalid size: 'abc'",
        ),
        (
            ["--log-driver", "local", "--log-opt", "max-file=1"],
            "compression cannot be enabled when max file count is 1",
        ),
    ],
)
def test_what_is_refused_at_start(engine: Engine, options: list[str], text: str):
    engine.ok("create", "--name", "wrong", *options, IMAGE, "true")
    done = engine.docker("start", "wrong")
    assert done.code != 0
    assert f"failed to create task for container: failed to initialize logging driver: {text}" in done.stderr
    assert engine.inspect("wrong")["State"]["Status"] == "created"


@pytest.mark.skipif(Path("/run/systemd/journal/socket").exists(), reason="this host has a journal")
def test_a_journal_that_is_not_there_is_refused(engine: Engine):
    done = engine.docker("run", "--rm", "--log-driver", "journald", IMAGE, "true")
    assert "journald is not enabled on this host" in done.stderr


def test_what_the_driver_none_keeps_cannot_be_read(engine: Engine):
    assert engine.ok("run", "--name", "mute", "--log-driver", "none", IMAGE, "echo", "heard") == "heard"
    done = engine.docker("logs", "mute")
    assert done.code != 0
    assert "configured logging driver does not support reading" in done.stderr
    assert engine.inspect("mute")["LogPath"] == ""


def test_only_json_file_shows_its_path(engine: Engine):
    engine.ok("run", "--name", "kept", "--log-driver", "local", IMAGE, "echo", "x")
    assert engine.inspect("kept")["LogPath"] == ""
    assert engine.docker("logs", "kept").stdout == "x\n"


@pytest.fixture(scope="module")
def own() -> Iterator[Engine]:
    with running("--log-driver", "local", "--log-opt", "max-size=60k", "--log-opt", "max-file=200") as engine:
        yield engine


def test_the_daemons_defaults_are_for_containers_that_say_nothing(own: Engine):
    own.ok("create", "--name", "default", IMAGE, "true")
    own.ok("create", "--name", "other", "--log-driver", "json-file", IMAGE, "true")
    own.ok("create", "--name", "partly", "--log-opt", "max-file=3", IMAGE, "true")
    shown = {name: own.inspect(name)["HostConfig"]["LogConfig"] for name in ("default", "other", "partly")}
    assert shown == {
        "default": {"Type": "local", "Config": {"max-size": "60k", "max-file": "200"}},
        "other": {"Type": "json-file", "Config": {}},
        "partly": {"Type": "local", "Config": {"max-size": "60k", "max-file": "3"}},
    }
    assert own.ok("info", "--format", "{{.LoggingDriver}}") == "local"


def test_silod_killed_at_any_moment_loses_no_line(own: Engine):
    """The container writes and its log is rotated all the while; a client that comes back reads on."""
    own.ok("run", "-d", "--name", "steady", IMAGE, "sh", "-c", NUMBERS)
    dice = random.Random(7)
    for _ in range(4):
        time.sleep(dice.random() / 4)  # the moment of the kill, not a synchronisation
        own.kill()
        own.start()
    own.ok("wait", "steady")
    assert own.docker("logs", "steady").stdout == LINES
    assert len(files(own, "steady")) > 1


def test_a_reader_that_does_not_read_costs_no_memory_and_stops_nobody(own: Engine):
    own.ok("run", "-d", "--name", "loud", "--log-driver", "json-file", IMAGE, "sh", "-c", f"{NUMBERS}; {NUMBERS}")
    lazy = subprocess.Popen(["docker", "logs", "-f", "loud"], stdout=subprocess.PIPE, env=own.environment)
    own.ok("wait", "loud")
    assert own.inspect("loud")["State"]["Status"] == "exited"
    assert lazy.communicate(timeout=60)[0].decode() == LINES * 2
