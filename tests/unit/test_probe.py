"""What the host's control groups and mounts come to; what a volume takes on disk; log options as values."""

from __future__ import annotations

from pathlib import Path

import pytest

from silo.daemon import logconfig, probe
from silo.daemon.logconfig import Rotation
from silo.daemon.usage import size_of
from silo.errors import InvalidParameter
from silo.schema.engine import LogConfig


def test_limits_of_version_1_are_those_whose_file_is_there(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").touch()
    (tmp_path / "cpu,cpuacct").mkdir()
    (tmp_path / "cpu,cpuacct" / "cpu.shares").touch()
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"cgroup {tmp_path}/memory cgroup rw,memory 0 0\ncgroup {tmp_path}/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n"
    )
    found = probe.limits("1", mounts)
    assert (found.memory, found.swap, found.cpu_shares, found.cpu_cfs, found.pids) == (True, False, True, False, False)
    texts = probe.warnings(found, "1")
    assert "WARNING: No swap limit support" in texts
    assert "WARNING: No memory limit support" not in texts
    assert "WARNING: No blkio throttle.read_bps_device support" in texts


def test_limits_of_version_2_are_its_controllers(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    (tmp_path / "mounts").write_text(f"none {tmp_path} cgroup2 rw 0 0\n")
    found = probe.limits("2", tmp_path / "mounts")
    assert (found.memory, found.cpu_cfs, found.pids, found.blkio, found.oom_kill_disable) == (
        (True, True, True, False, False)
    )
    assert "WARNING: No io.max (rbps) support" in probe.warnings(found, "2")
    assert not any("oom kill" in text for text in probe.warnings(found, "2"))


def test_the_file_system_is_that_of_the_deepest_mount(tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text("a / overlay rw 0 0\nb /var ext4 rw 0 0\nc /variant xfs rw 0 0\n")
    assert probe.filesystem_of(Path("/var/lib/silo"), tmp_path / "mounts") == "extfs"
    assert probe.filesystem_of(Path("/variant"), tmp_path / "mounts") == "xfs"
    assert probe.filesystem_of(Path("/srv"), tmp_path / "mounts") == "overlay"


def test_a_file_of_many_names_counts_once_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_bytes(bytes(1000))
    (tmp_path / "b").hardlink_to(tmp_path / "deep" / "a")
    (tmp_path / "c").symlink_to("/etc")
    assert size_of(tmp_path) == 1000 + len("/etc")
    assert size_of(tmp_path / "none") == 0


@pytest.mark.parametrize(
    ("kind", "options", "rotation"),
    [
        ("json-file", {}, Rotation()),
        ("json-file", {"max-size": "10m"}, Rotation(10_000_000, 1)),
        ("json-file", {"max-size": "1.5k", "max-file": "3", "compress": "T"}, Rotation(1500, 3, compress=True)),
        ("local", {}, Rotation(20 << 20, 5, compress=True)),
        ("local", {"max-file": "0", "compress": "false"}, Rotation(20 << 20, 1)),
        ("journald", {}, Rotation(20 << 20, 5, compress=True)),
    ],
)
def test_rotation(kind: str, options: dict[str, str], rotation: Rotation) -> None:
    assert logconfig.rotation(LogConfig(type=kind, config=options)) == rotation


def test_the_daemons_options_are_for_its_own_driver_only() -> None:
    default = LogConfig(type="local", config={"max-size": "1m"})
    assert logconfig.merge(LogConfig(), default) == default
    assert logconfig.merge(LogConfig(type="json-file"), default).config == {}
    own = LogConfig(type="local", config={"max-size": "2m", "max-file": "7"})
    assert logconfig.merge(own, default) == own
    with pytest.raises(InvalidParameter, match="unknown log opt 'x' for log driver local"):
        logconfig.merge(LogConfig(config={"x": "1"}), default)


def test_the_driver_none_takes_any_option_as_dockerd_does() -> None:
    given = LogConfig(type="none", config={"x": "1"})
    assert logconfig.merge(given, LogConfig(type="local", config={"max-size": "1m"})) == given
    assert not logconfig.readable(given)
