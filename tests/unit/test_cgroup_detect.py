"""What a host's mount table says of its control groups, and what a group's files say: on recorded hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from silo.host.linux.cgroup import Cgroups, ControlGroup, Mode, detect

V1 = """\
25 30 0:23 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
32 25 0:27 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,seclabel,size=4096k,mode=755
33 32 0:28 / /sys/fs/cgroup/systemd rw,relatime shared:10 - cgroup cgroup rw,seclabel,xattr,name=systemd
36 32 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:15 - cgroup cgroup rw,seclabel,cpu,cpuacct
37 32 0:32 / /sys/fs/cgroup/memory rw,relatime shared:16 - cgroup cgroup rw,seclabel,memory
38 32 0:33 / /sys/fs/cgroup/pids rw,relatime shared:17 - cgroup cgroup rw,seclabel,pids
39 32 0:34 / /sys/fs/cgroup/freezer rw,relatime shared:18 - cgroup cgroup rw,seclabel,freezer
40 32 0:35 / /sys/fs/cgroup/net_cls,net_prio rw,relatime shared:19 - cgroup cgroup rw,seclabel,net_cls,net_prio
"""
V2 = """\
24 30 0:22 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
28 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
"""
HYBRID = V1 + "34 32 0:29 / /sys/fs/cgroup/unified rw,nosuid shared:11 - cgroup2 cgroup2 rw,nsdelegate\n"
THIS_KIND = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""


@pytest.mark.parametrize(
    ("table", "mode", "version"),
    [
        (V1, Mode.V1, "1"),
        (V2, Mode.V2, "2"),
        (HYBRID, Mode.HYBRID, "1"),
        (THIS_KIND, Mode.HYBRID, "1"),
        ("", Mode.NONE, "1"),
        ("garbage\n- - -\n1 2 - cgroup\n", Mode.NONE, "1"),
    ],
)
def test_mode(table: str, mode: Mode, version: str) -> None:
    found = detect(table)
    assert (found.mode, found.version) == (mode, version)


def test_controllers_and_where_they_are() -> None:
    found = detect(HYBRID)
    assert found.hierarchies == {
        "name=systemd": "/sys/fs/cgroup/systemd",
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "memory": "/sys/fs/cgroup/memory",
        "pids": "/sys/fs/cgroup/pids",
        "freezer": "/sys/fs/cgroup/freezer",
        "net_cls": "/sys/fs/cgroup/net_cls,net_prio",
        "net_prio": "/sys/fs/cgroup/net_cls,net_prio",
    }
    assert found.unified == "/sys/fs/cgroup/unified"


def test_a_mount_of_somebody_else_is_not_the_hosts() -> None:
    other = "20 30 0:26 / /run/other/cgroupv2 rw - cgroup2 none rw\n"
    assert detect(other + V2).unified == "/sys/fs/cgroup"
    assert detect(other + HYBRID).unified == "/sys/fs/cgroup/unified"


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_usage_on_version_1(tmp_path: Path) -> None:
    names = ("memory", "cpuacct", "pids")
    group = ControlGroup(Cgroups(Mode.V1, {name: str(tmp_path / name) for name in names}), "/g/c")
    write(
        tmp_path / "memory/g/c",
        memory__usage_in_bytes="1000\n",
        memory__max_usage_in_bytes="2000\n",
        memory__limit_in_bytes="9223372036854771712\n",
        memory__stat="cache 5\ntotal_inactive_file 300\n",
        memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    )
    write(tmp_path / "cpuacct/g/c", cpuacct__usage="123456789\n", cpuacct__stat="user 7\nsystem 3\n")
    write(tmp_path / "pids/g/c", pids__current="4\n", pids__max="100\n", cgroup__procs="12\n11\n")
    write(tmp_path / "pids/g/c/below", cgroup__procs="13\n")
    usage = group.usage()
    assert (usage.memory, usage.memory_peak, usage.memory_limit, usage.inactive_file) == (1000, 2000, 0, 300)
    assert (usage.cpu_total, usage.cpu_user, usage.cpu_system) == (123456789, 70_000_000, 30_000_000)
    assert (usage.pids, usage.pids_limit) == (4, 100)
    assert group.oom_kills() == 2
    assert group.pids() == [11, 12, 13]


def test_usage_on_version_2(tmp_path: Path) -> None:
    group = ControlGroup(Cgroups(Mode.V2, {}, str(tmp_path)), "/g/c")
    write(
        tmp_path / "g/c",
        memory__current="1000\n",
        memory__peak="2000\n",
        memory__max="4096\n",
        memory__stat="anon 5\ninactive_file 300\n",
        memory__events="low 0\noom 1\noom_kill 1\n",
        cpu__stat="usage_usec 50\nuser_usec 30\nsystem_usec 20\n",
        pids__current="4\n",
        pids__max="max\n",
        cgroup__procs="11\n",
    )
    usage = group.usage()
    assert (usage.memory, usage.memory_peak, usage.memory_limit, usage.inactive_file) == (1000, 2000, 4096, 300)
    assert (usage.cpu_total, usage.cpu_user, usage.cpu_system) == (50_000, 30_000, 20_000)
    assert (usage.pids, usage.pids_limit, group.oom_kills()) == (4, 0, 1)
    assert group.directories() == [tmp_path / "g/c"]


def test_a_group_that_is_gone_uses_nothing(tmp_path: Path) -> None:
    group = ControlGroup(Cgroups(Mode.V2, {}, str(tmp_path)), "/gone")
    assert group.usage().memory == 0
    assert group.oom_kills() == 0
    assert group.pids() == []
    assert not group.exists()
    assert group.remove()
