"""``GET /system/df``: what images, containers and volumes take on disk."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any, Final

from silo.daemon.daemon import Daemon
from silo.daemon.listing import list_containers
from silo.daemon.remove import users_of
from silo.errors import InvalidParameter
from silo.resources import leaf
from silo.volumes.local import Volume

KINDS: Final = ("container", "image", "volume", "build-cache")


async def disk_usage(daemon: Daemon, version: tuple[int, int], kinds: list[str]) -> dict[str, Any]:
    """Sizes in bytes of the ``kinds`` asked for, of all when there are none.  Raises InvalidParameter."""
    for kind in kinds:
        if kind not in KINDS:
            raise InvalidParameter(f"unknown object type: {kind}")
    wanted = kinds or KINDS
    shown: dict[str, Any] = {"LayersSize": 0, "Images": None, "Containers": None, "Volumes": None, "BuildCache": None}
    if "image" in wanted:
        shown["LayersSize"] = sum(layer.size for layer in daemon.layers.layers())
        shown["Images"] = await _images(daemon, version)
    if "container" in wanted:
        shown["Containers"] = await list_containers(daemon, version, everything=True, size=True)
    if "volume" in wanted:
        shown["Volumes"] = await volumes(daemon)
    if "build-cache" in wanted:
        shown["BuildCache"] = []
    return shown


async def _images(daemon: Daemon, version: tuple[int, int]) -> list[dict[str, Any]]:
    users = Counter(container.image for container in daemon.registry.all())
    rows = await daemon.images.list(shared_size=True, version=version)
    return [{**row, "Containers": users[row["Id"]]} for row in rows]


async def volumes(daemon: Daemon) -> list[dict[str, Any]]:
    """Every volume with its size, and how many containers use it."""
    return [
        shown_volume(daemon, volume)
        | {
            "UsageData": {
                "Size": await leaf(size_of, daemon.volumes.mountpoint(volume.name)),
                "RefCount": len(users_of(daemon, volume.name)),
            }
        }
        for volume in daemon.volumes.all()
    ]


def shown_volume(daemon: Daemon, volume: Volume) -> dict[str, Any]:
    """A volume as ``docker volume inspect`` shows it."""
    return {
        "CreatedAt": volume.created,
        "Driver": "local",
        "Labels": volume.labels or None,
        "Mountpoint": str(daemon.volumes.mountpoint(volume.name)),
        "Name": volume.name,
        "Options": volume.options or None,
        "Scope": "local",
    }


def size_of(folder: Path) -> int:
    """Bytes of the files below ``folder``, each once however many names it has; what vanishes meanwhile counts not."""
    total = 0
    seen: set[tuple[int, int]] = set()
    pending = [folder]
    while pending:
        try:
            entries = [*os.scandir(pending.pop())]
        except OSError:
            continue
        for entry in entries:
            try:
                state = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(Path(entry.path))
            elif (names := (state.st_dev, state.st_ino)) not in seen:
                total += state.st_size
                if state.st_nlink > 1:
                    seen.add(names)
    return total
