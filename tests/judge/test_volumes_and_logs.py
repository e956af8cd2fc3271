"""Binds, volumes, logs: what a user's first day needs."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

from tests.judge.harness import IMAGE, Engine


def test_a_bind_both_ways_and_read_only(engine: Engine, tmp_path: Path):
    (tmp_path / "in").write_text("from the host")
    assert (
        engine.ok("run", "--rm", "-v", f"{tmp_path}:/x", IMAGE, "sh", "-c", "cat /x/in; echo out >/x/out")
        == "from the host"
    )
    assert (tmp_path / "out").read_text() == "out\n"
    assert engine.docker("run", "--rm", "-v", f"{tmp_path}:/x:ro", IMAGE, "touch", "/x/no").code != 0
    assert not (tmp_path / "no").exists()


def test_a_named_volume_outlives_and_an_anonymous_one_goes(engine: Engine):
    engine.ok("run", "--rm", "-v", "data:/d", "-v", "/anonymous", IMAGE, "sh", "-c", "echo kept >/d/f")
    assert engine.ok("run", "--rm", "-v", "data:/d", IMAGE, "cat", "/d/f") == "kept"
    assert engine.ok("volume", "ls", "-q") == "data"
    engine.ok("volume", "rm", "data")


def test_tmpfs_and_read_only_root(engine: Engine):
    done = engine.docker(
        "run", "--rm", "--read-only", "--tmpfs", "/t:size=1m", IMAGE, "sh", "-c", "echo x >/t/f && echo x >/f"
    )
    assert "Read-only file system" in done.stderr


def test_logs_tail_follow_and_timestamps(engine: Engine):
    script = "for i in 1 2 3; do echo line $i; done; echo oops >&2; printf end"
    engine.ok("run", "-d", "--name", "talks", IMAGE, "sh", "-c", script)
    engine.ok("wait", "talks")
    done = engine.docker("logs", "talks")
    assert (done.stdout, done.stderr) == ("line 1\nline 2\nline 3\nend", "oops\n")
    assert engine.docker("logs", "--tail", "0", "talks").stdout == ""
    engine.ok("run", "-d", "--name", "tail", IMAGE, "sh", "-c", "echo one; echo two; printf three")
    engine.ok("wait", "tail")
    assert engine.docker("logs", "--tail", "2", "tail").stdout == "two\nthree"
    stamped = engine.docker("logs", "-t", "talks").stdout.splitlines()
    assert stamped[0].endswith("Z line 1")
    assert engine.docker("logs", "-f", "talks").stdout == done.stdout
    assert Path(engine.inspect("talks")["LogPath"]).exists()


def test_following_ends_with_the_container(engine: Engine):
    engine.ok("run", "-id", "--name", "cat", IMAGE, "cat")
    follower = subprocess.Popen(["docker", "logs", "-f", "cat"], stdout=subprocess.PIPE, env=engine.environment)
    writer = subprocess.Popen(
        ["docker", "attach", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=engine.environment
    )
    writer.stdin.write(b"one\ntwo\n")
    writer.stdin.flush()
    assert follower.stdout.readline() == b"one\n"
    assert follower.stdout.readline() == b"two\n"
    engine.ok("kill", "cat")
    assert follower.communicate(timeout=20)[0] == b""
    writer.communicate(timeout=20)


def test_binary_and_long_lines_come_back_whole(engine: Engine):
    script = "dd if=/dev/urandom of=/r bs=1000 count=300 2>/dev/null; cat /r; sha256sum /r >&2"
    engine.ok("run", "-d", "--name", "raw", IMAGE, "sh", "-c", script)
    engine.ok("wait", "raw")
    done = engine.docker("logs", "raw")
    assert hashlib.sha256(done.raw).hexdigest() == done.stderr.split()[0]


def test_import_tag_and_remove(engine: Engine):
    tar = subprocess.run(["tar", "-C", "/bin", "-c", "busybox"], capture_output=True, check=True).stdout
    image = engine.ok("import", "-c", 'CMD ["/busybox","echo","made"]', "-m", "by hand", "-", "mine:1", data=tar)
    assert image.startswith("sha256:")
    assert engine.ok("run", "--rm", "mine:1") == "made"
    engine.ok("tag", "mine:1", "also/mine:2")
    assert json.loads(engine.ok("inspect", "also/mine:2"))[0]["Id"] == image
    engine.ok("create", "--name", "holds", "mine:1")
    assert engine.docker("rmi", image).code != 0
    engine.ok("rm", "holds")
    engine.ok("rmi", "mine:1", "also/mine:2")
    assert "mine" not in engine.ok("images")
