"""Control groups of all three kinds of host: version 1, version 2, and version 1 beside a version 2 mount (hybrid)."""

from __future__ import annotations

import contextlib
import enum
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

ROOT: Final = Path("/sys/fs/cgroup")


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
    unified: str | None = None
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(kind) < 3 or len(fields) < 5:
            continue
        where = fields[4]
        if kind[0] == "cgroup2" and unified is None:
            unified = where
        elif kind[0] == "cgroup":
            options = kind[2].split(",")
            for name in options:
                if (
                    name not in {"rw", "ro", "xattr", "relatime", "nosuid", "nodev", "noexec"} and "=" not in name
                ) or name.startswith("name="):
                    hierarchies.setdefault(name, where)
    if hierarchies:
        return Cgroups(Mode.HYBRID if unified else Mode.V1, hierarchies, unified)
    return Cgroups(Mode.V2 if unified else Mode.NONE, {}, unified)


def host() -> Cgroups:
    """This host's control groups."""
    return detect(Path("/proc/self/mountinfo").read_text("utf-8"))


class ControlGroup:
    """One container's group in every hierarchy; ``path`` is relative to their mount points."""

    def __init__(self, cgroups: Cgroups, path: str) -> None:
        self._cgroups = cgroups
        self.path = path

    def directories(self) -> list[Path]:
        """The group's directory in each hierarchy, without repeats."""
        if self._cgroups.mode == Mode.V2:
            mounts = [self._cgroups.unified or str(ROOT)]
        else:
            mounts = list(dict.fromkeys(self._cgroups.hierarchies.values()))
        return [Path(mount) / self.path.lstrip("/") for mount in mounts]

    def _of(self, controller: str) -> Path | None:
        if self._cgroups.mode == Mode.V2:
            return Path(self._cgroups.unified or ROOT) / self.path.lstrip("/")
        mount = self._cgroups.hierarchies.get(controller)
        return None if mount is None else Path(mount) / self.path.lstrip("/")

    def exists(self) -> bool:
        """Whether the group is there in any hierarchy."""
        return any(directory.exists() for directory in self.directories())

    def oom_kills(self) -> int:
        """How many processes of the group the kernel killed for want of memory."""
        directory = self._of("memory")
        if directory is None:
            return 0
        name = "memory.events" if self._cgroups.mode == Mode.V2 else "memory.oom_control"
        with contextlib.suppress(OSError):
            for line in (directory / name).read_text("ascii").splitlines():
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    return int(value)
        return 0

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


def _below(directory: Path) -> Iterator[Path]:
    if directory.is_dir():
        yield directory
        for folder, names, _ in os.walk(directory):
            for name in names:
                yield Path(folder) / name
