"""Devices of the host given to a container: names become the numbers that the kernel and the cgroup know."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from silo.errors import InvalidParameter
from silo.schema.hcs import AssignedDevice, DeviceRate

DEV: Final = Path("/dev")
_NOT_DEVICES: Final = {"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"}
"""Directories of /dev that a privileged container gets of its own, or not at all (as dockerd)."""


def add_devices(linux: dict[str, Any], assigned: Sequence[AssignedDevice], *, everything: bool) -> None:
    """Complete the runtime configuration's ``linux`` part.  Raises InvalidParameter for what is no device."""
    nodes = linux.setdefault("devices", [])
    rules = linux["resources"]["devices"]
    if everything:
        nodes += [node for path in _below(DEV) if (node := _node(path, str(path)))]
    for device in assigned:
        found = _assigned(device)
        nodes += found
        if not everything:  # all is allowed already
            rules += [
                {
                    "allow": True,
                    "type": node["type"],
                    "major": node["major"],
                    "minor": node["minor"],
                    "access": device.Access,
                }
                for node in found
            ]


def _assigned(device: AssignedDevice) -> list[dict[str, Any]]:
    """One device, or all below a directory."""
    failed = f'error gathering device information while adding custom device "{device.HostPath}"'
    try:
        source = Path(device.HostPath).resolve(strict=True)
    except OSError as exc:
        raise InvalidParameter(f"{failed}: {(exc.strerror or str(exc)).lower()}") from exc
    if source.is_dir():
        target = Path(device.ContainerPath)
        found = [_node(path, str(target / path.relative_to(source))) for path in _below(source)]
    else:
        found = [_node(source, device.ContainerPath)]
    nodes = [node for node in found if node]
    if not nodes:
        raise InvalidParameter(f"{failed}: not a device node")
    return nodes


def _node(path: Path, name: str) -> dict[str, Any] | None:
    """A node as the runtime makes it; None for what is neither a character nor a block device."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISCHR(found.st_mode) and not stat.S_ISBLK(found.st_mode):
        return None
    return {
        "path": name,
        "type": "c" if stat.S_ISCHR(found.st_mode) else "b",
        "major": os.major(found.st_rdev),
        "minor": os.minor(found.st_rdev),
        "fileMode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
    }


def _below(folder: Path) -> Iterator[Path]:
    for directory, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _NOT_DEVICES)
        for name in sorted(names):
            if name != "console":
                yield Path(directory) / name


def add_rates(resources: dict[str, Any], rates: Sequence[DeviceRate]) -> None:
    """Complete the block I/O limits.  Raises InvalidParameter for a path that is no block device."""
    for rate in rates:
        try:
            found = os.stat(rate.HostPath)  # noqa: PTH116 - a plain call on a text
        except OSError as exc:
            raise InvalidParameter(f"device {rate.HostPath}: {(exc.strerror or '').lower()}") from exc
        if not stat.S_ISBLK(found.st_mode):
            raise InvalidParameter(f"{rate.HostPath} is not a block device")
        row = {"major": os.major(found.st_rdev), "minor": os.minor(found.st_rdev)}
        value = {"weight" if rate.Kind == "weightDevice" else "rate": rate.Rate}
        resources.setdefault("blockIO", {}).setdefault(rate.Kind, []).append({**row, **value})
