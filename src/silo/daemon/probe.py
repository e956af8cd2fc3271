"""Looking at the host, once, at start: what ``docker info`` says of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

_V1: Final = {
    "memory": ("memory", "memory.limit_in_bytes"),
    "swap": ("memory", "memory.memsw.limit_in_bytes"),
    "oom_kill_disable": ("memory", "memory.oom_control"),
    "cpu_cfs": ("cpu", "cpu.cfs_quota_us"),
    "cpu_shares": ("cpu", "cpu.shares"),
    "cpuset": ("cpuset", "cpuset.cpus"),
    "pids": ("pids", ""),
    "blkio": ("blkio", "blkio.throttle.read_bps_device"),
}
"""What a limit is there for: a controller, and the file in the root of its hierarchy."""
_V2: Final = {
    "memory": "memory",
    "swap": "memory",
    "cpu_cfs": "cpu",
    "cpu_shares": "cpu",
    "cpuset": "cpuset",
    "pids": "pids",
    "blkio": "io",
}


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Which limits this host's control groups can set."""

    memory: bool = False
    swap: bool = False
    oom_kill_disable: bool = False
    cpu_cfs: bool = False
    cpu_shares: bool = False
    cpuset: bool = False
    pids: bool = False
    blkio: bool = False


def limits(version: str, mounts: Path = Path("/proc/self/mounts")) -> Limits:
    """What the mounted control groups of ``version`` have."""
    rows = [line.split() for line in mounts.read_text("utf-8", "replace").splitlines()]
    if version == "2":
        root = next((Path(row[1]) for row in rows if row[2] == "cgroup2"), Path("/sys/fs/cgroup"))
        found = (root / "cgroup.controllers").read_text("ascii").split()
        return Limits(**{name: controller in found for name, controller in _V2.items()})
    hierarchies = {option: Path(row[1]) for row in rows if row[2] == "cgroup" for option in row[3].split(",")}
    return Limits(
        **{
            name: controller in hierarchies and (hierarchies[controller] / file).exists()
            for name, (controller, file) in _V1.items()
        }
    )


def filesystem_of(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The kind of file system that ``folder`` is on, in dockerd's words."""
    rows = [line.split() for line in mounts.read_text("utf-8", "replace").splitlines()]
    path = str(folder.absolute())
    holding = [row for row in rows if path == row[1] or path.startswith(row[1].rstrip("/") + "/")]
    kind = max(holding, key=lambda row: len(row[1]), default=["", "", "unknown"])[2]
    return "extfs" if kind in {"ext2", "ext3", "ext4"} else kind


def has_cgroup_namespaces() -> bool:
    """Whether the kernel has them."""
    return os.path.exists("/proc/self/ns/cgroup")  # noqa: PTH110 - a link that leads nowhere counts


def warnings(found: Limits, version: str) -> list[str]:
    """What users should know is missing, in dockerd's words."""
    files = ("rbps", "wbps", "riops", "wiops") if version == "2" else ()
    missing = [
        (found.memory, "No memory limit support"),
        (found.swap, "No swap limit support"),
        (found.oom_kill_disable or version == "2", "No oom kill disable support"),
        (found.cpu_cfs, "No cpu cfs quota support"),
        (found.cpu_cfs, "No cpu cfs period support"),
        (found.cpu_shares, "No cpu shares support"),
        (found.cpuset, "No cpuset support"),
        *((found.blkio, f"No io.max ({name}) support") for name in files),
        *(
            (found.blkio or version == "2", f"No blkio throttle.{name}_device support")
            for name in ("read_bps", "write_bps", "read_iops", "write_iops")
        ),
        (is_forwarding(), "IPv4 forwarding is disabled"),
    ]
    return [f"WARNING: {text}" for there, text in missing if not there]


def is_forwarding() -> bool:
    """Whether the host forwards IPv4 packets now."""
    try:
        return Path("/proc/sys/net/ipv4/ip_forward").read_text("ascii").strip() == "1"
    except OSError:
        return False
