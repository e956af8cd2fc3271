"""``--volume``, ``--mount``, ``--tmpfs`` and image volumes as one list of mount points, with dockerd's rules."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from silo.daemon.container import MountPoint
from silo.errors import InvalidParameter
from silo.schema.engine import HostConfig, Mount

PROPAGATION: Final = {"private", "rprivate", "shared", "rshared", "slave", "rslave"}
_FLAGS: Final = {"ro", "rw", "z", "Z", "nocopy", "consistent", "cached", "delegated"}


def _destination(path: str, text: str) -> str:
    if not path.startswith("/"):
        raise InvalidParameter(
            f"invalid volume specification: '{text}': invalid mount config: mount path must be absolute"
        )
    clean = posixpath.normpath(path)
    clean = "/" + clean.lstrip("/")
    if clean == "/":
        raise InvalidParameter(f"invalid volume specification: '{text}': destination can't be '/'")
    return clean


def parse_bind(text: str) -> MountPoint:
    """One ``source:destination[:options]``.  A source that is no absolute path names a volume."""
    parts = text.split(":")
    if len(parts) == 1:
        parts = ["", parts[0]]
    if len(parts) > 3 or not parts[1]:
        raise InvalidParameter(f"invalid volume specification: '{text}'")
    source, destination = parts[0], _destination(parts[1], text)
    flags = parts[2].split(",") if len(parts) == 3 else []
    for flag in flags:
        if flag not in _FLAGS | PROPAGATION:
            raise InvalidParameter(f"invalid mode: {parts[2]}")
    spread = next((flag for flag in flags if flag in PROPAGATION), "")
    bind = source.startswith("/")
    if spread and not bind:
        raise InvalidParameter(f"invalid volume specification: '{text}': propagation needs a bind mount")
    return MountPoint(
        type="bind" if bind else "volume",
        name="" if bind else source,
        source=posixpath.normpath(source) if bind else "",
        destination=destination,
        driver="" if bind else "local",
        mode=parts[2] if len(parts) == 3 else ("" if bind else "z"),
        rw="ro" not in flags,
        propagation=spread or ("rprivate" if bind else ""),
        anonymous=not source,
        no_copy="nocopy" in flags,
    )


def parse_mount(mount: Mount) -> MountPoint:
    """One entry of ``HostConfig.Mounts``.  Raises InvalidParameter."""
    text = f'invalid mount config for type "{mount.type}"'
    if not mount.target:
        raise InvalidParameter(f"{text}: field Target must not be empty")
    if not mount.target.startswith("/") or posixpath.normpath(mount.target) == "/":
        raise InvalidParameter(f"{text}: invalid specification: destination can't be '{mount.target}'")
    target = posixpath.normpath(mount.target)
    match mount.type:
        case "bind":
            if not mount.source.startswith("/"):
                raise InvalidParameter(f"{text}: invalid mount path: '{mount.source}' mount path must be absolute")
            options = mount.bind_options
            if not Path(mount.source).exists() and not (options and options.create_mountpoint):
                raise InvalidParameter(f"{text}: bind source path does not exist: {mount.source}")
            spread = (options.propagation if options else "") or "rprivate"
            if spread not in PROPAGATION:
                raise InvalidParameter(f"{text}: invalid propagation mode: {spread}")
            return MountPoint(
                type="bind", source=mount.source, destination=target, rw=not mount.read_only, propagation=spread
            )
        case "volume":
            return MountPoint(
                type="volume",
                name=mount.source,
                destination=target,
                driver="local",
                mode="z",
                rw=not mount.read_only,
                anonymous=not mount.source,
                no_copy=bool(mount.volume_options and mount.volume_options.no_copy),
            )
        case "tmpfs":
            if mount.source:
                raise InvalidParameter(f"{text}: field Source must not be specified")
            tmpfs = mount.tmpfs_options
            options_list = [f"size={tmpfs.size_bytes}"] if tmpfs and tmpfs.size_bytes else []
            if tmpfs and tmpfs.mode:
                options_list.append(f"mode={tmpfs.mode:o}")
            return MountPoint(type="tmpfs", destination=target, rw=not mount.read_only, options=options_list)
    raise InvalidParameter(f'{text}: mount type unknown: "{mount.type}"')


def mount_points(
    host: HostConfig, image_volumes: Iterable[str], inherited: Iterable[MountPoint] = ()
) -> list[MountPoint]:
    """Every mount of a new container, one per destination, parents before children.

    Later kinds win as in dockerd: image volumes, then volumes-from, then binds and mounts.  Raises InvalidParameter for
    two of the user's on one destination.
    """
    points = {
        (where := _destination(path, path)): MountPoint(
            type="volume", destination=where, driver="local", anonymous=True
        )
        for path in image_volumes
    }
    points.update({point.destination: point for point in inherited})
    given: set[str] = set()
    for point in [*map(parse_bind, host.binds or []), *map(parse_mount, host.mounts), *_tmpfs(host.tmpfs)]:
        if point.destination in given:
            raise InvalidParameter(f"Duplicate mount point: {point.destination}")
        given.add(point.destination)
        points[point.destination] = point
    return [points[where] for where in sorted(points)]


def _tmpfs(wanted: Mapping[str, str]) -> list[MountPoint]:
    return [
        MountPoint(
            type="tmpfs",
            destination=_destination(path, path),
            mode=options,
            rw="ro" not in options.split(","),
            options=[option for option in options.split(",") if option and option not in {"ro", "rw"}],
        )
        for path, options in wanted.items()
    ]
