"""Control groups of all three kinds of host: version 1, version 2, and version 1 beside a version 2 mount (hybrid)."""

from __future__ import annotations

import contextlib
import enum
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

ROOT: Final = Path("/sys/fs/cgroup")
CONTROLLERS: Final = frozenset(
    "cpu cpuacct cpuset memory devices freezer blkio pids net_cls net_prio perf_event hugetlb rdma misc debug".split()
)
"""Every controller of version 1; other words among a mount's options say how it is mounted."""
UNLIMITED: Final = 1 << 62
"""Version 1 shows "no limit" as the largest number of whole pages: anything from here on is none."""


class Mode(enum.StrEnum):
    """How the host mounts its control groups."""

    V1 = "v1"
    V2 = "v2"
    HYBRID = "hybrid"
    NONE = "none"


class Cgroups(msgspec.Struct, frozen=True):
    """What a mount table says: the mode, and where each hierarchy is (controller to mount point)."""

    mode: Mode
    hierarchies: dict[str, str]
    unified: str | None = None

    @property
    def version(self) -> str:
        """``1`` or ``2``, as ``docker info`` shows it."""
        return "2" if self.mode == Mode.V2 else "1"


def detect(mountinfo: str) -> Cgroups:
    """Read a mount table (proc(5), mountinfo).  Pure: recorded tables of other hosts are tested with it."""
    hierarchies: dict[str, str] = {}
    unified: list[str] = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(kind) < 3 or len(fields) < 5:
            continue
        if kind[0] == "cgroup2":
            unified.append(fields[4])
        elif kind[0] == "cgroup":
            for name in kind[2].split(","):
                if name in CONTROLLERS or name.startswith("name="):
                    hierarchies.setdefault(name, fields[4])
    # others mount version 2 elsewhere for themselves; the host's own is below /sys/fs/cgroup
    unified.sort(key=lambda where: not Path(where).is_relative_to(ROOT))
    first = unified[0] if unified else None
    if hierarchies:
        return Cgroups(Mode.HYBRID if first else Mode.V1, hierarchies, first)
    return Cgroups(Mode.V2 if first else Mode.NONE, {}, first)


def host() -> Cgroups:
    """This host's control groups."""
    return detect(Path("/proc/self/mountinfo").read_text("utf-8"))


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a group uses now: bytes, nanoseconds of CPU, numbers of processes; a limit of 0 is none."""

    memory: int = 0
    memory_peak: int = 0
    memory_limit: int = 0
    inactive_file: int = 0
    cpu_total: int = 0
    cpu_user: int = 0
    cpu_system: int = 0
    pids: int = 0
    pids_limit: int = 0


class ControlGroup:
    """One container's group in every hierarchy; ``path`` is relative to their mount points."""

    def __init__(self, cgroups: Cgroups, path: str) -> None:
        self._cgroups = cgroups
        self._v2 = cgroups.mode == Mode.V2
        self.path = path

    def directories(self) -> list[Path]:
        """The group's directory in each hierarchy, without repeats."""
        if self._v2:
            mounts = [self._cgroups.unified or str(ROOT)]
        else:
            mounts = list(dict.fromkeys(self._cgroups.hierarchies.values()))
        return [Path(mount) / self.path.lstrip("/") for mount in mounts]

    def _of(self, controller: str) -> Path | None:
        if self._v2:
            return Path(self._cgroups.unified or ROOT) / self.path.lstrip("/")
        mount = self._cgroups.hierarchies.get(controller)
        return None if mount is None else Path(mount) / self.path.lstrip("/")

    def exists(self) -> bool:
        """Whether the group is there in any hierarchy."""
        return any(directory.exists() for directory in self.directories())

    def _read(self, controller: str, name: str) -> str:
        """A file of the group; empty when the host, or the group any more, has none."""
        directory = self._of(controller)
        if directory is None:
            return ""
        try:
            return (directory / name).read_text("ascii")
        except OSError:
            return ""

    def oom_kills(self) -> int:
        """How many processes of the group the kernel killed for want of memory."""
        name = "memory.events" if self._v2 else "memory.oom_control"
        return _table(self._read("memory", name)).get("oom_kill", 0)

    def usage(self) -> Usage:
        """What the group uses now; zero where the host does not say."""
        return self._usage_v2() if self._v2 else self._usage_v1()

    def _usage_v1(self) -> Usage:
        memory = _table(self._read("memory", "memory.stat"))
        ticks = _table(self._read("cpuacct", "cpuacct.stat"))
        tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        return Usage(
            memory=_number(self._read("memory", "memory.usage_in_bytes")),
            memory_peak=_number(self._read("memory", "memory.max_usage_in_bytes")),
            memory_limit=_number(self._read("memory", "memory.limit_in_bytes")),
            inactive_file=memory.get("total_inactive_file", 0),
            cpu_total=_number(self._read("cpuacct", "cpuacct.usage")),
            cpu_user=ticks.get("user", 0) * tick,
            cpu_system=ticks.get("system", 0) * tick,
            pids=_number(self._read("pids", "pids.current")),
            pids_limit=_number(self._read("pids", "pids.max")),
        )

    def _usage_v2(self) -> Usage:
        cpu = _table(self._read("cpu", "cpu.stat"))
        return Usage(
            memory=_number(self._read("memory", "memory.current")),
            memory_peak=_number(self._read("memory", "memory.peak")),
            memory_limit=_number(self._read("memory", "memory.max")),
            inactive_file=_table(self._read("memory", "memory.stat")).get("inactive_file", 0),
            cpu_total=cpu.get("usage_usec", 0) * 1000,
            cpu_user=cpu.get("user_usec", 0) * 1000,
            cpu_system=cpu.get("system_usec", 0) * 1000,
            pids=_number(self._read("pids", "pids.current")),
            pids_limit=_number(self._read("pids", "pids.max")),
        )

    def thaw(self) -> None:
        """Let a frozen group run: on version 1 a frozen process does not even die of SIGKILL."""
        name, word = ("cgroup.freeze", "0") if self._v2 else ("freezer.state", "THAWED")
        directory = self._of("freezer")
        if directory is not None:
            with contextlib.suppress(OSError):
                (directory / name).write_text(word, "ascii")

    def kill(self) -> list[int]:
        """Kill every process of the group that is there now; return their pids.  For what its init left behind."""
        killed = []
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                fd = os.pidfd_open(pid)
                try:
                    # the number may have become a stranger's since the list was read: it would not be in the group
                    if pid in self.pids():
                        signal.pidfd_send_signal(fd, signal.SIGKILL)
                        killed.append(pid)
                finally:
                    os.close(fd)
        return killed

    def pids(self) -> list[int]:
        """The processes in the group."""
        directory = self._of("pids") or next(iter(self.directories()), None)
        if directory is None:
            return []
        found: set[int] = set()
        for folder in _below(directory):
            with contextlib.suppress(OSError):
                found.update(map(int, (folder / "cgroup.procs").read_text("ascii").split()))
        return sorted(found)

    def remove(self) -> bool:
        """Remove the group and those below it; False while a process is in one of them."""
        done = True
        for directory in self.directories():
            for folder in reversed(list(_below(directory))):
                try:
                    os.rmdir(folder)  # noqa: PTH106 - cgroupfs: rmdir is the verb
                except FileNotFoundError:
                    continue
                except OSError:
                    done = False
        return done


def _table(text: str) -> dict[str, int]:
    """Lines of a word and a number."""
    rows = (line.split() for line in text.splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdecimal()}


def _number(text: str) -> int:
    """One number; 0 for none and for "max"."""
    word = text.strip()
    value = int(word) if word.isdecimal() else 0
    return 0 if value >= UNLIMITED else value


def _below(directory: Path) -> Iterator[Path]:
    if directory.is_dir():
        yield directory
        for folder, names, _ in os.walk(directory):
            for name in names:
                yield Path(folder) / name
