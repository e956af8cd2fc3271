"""Images as the Engine API shows them: rows of the list, inspect, history.

What a client of an old API version expects is added here and nowhere else.  Sources: Engine API 1.50 and its change
log (``VirtualSize`` ends with 1.44, ``ContainerConfig`` with 1.45, the container's fields in ``Config`` with 1.50).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from silo.ids import ChainID, ImageID
from silo.images.records import Image
from silo.images.references import Reference
from silo.images.times import ZERO, nanoseconds, seconds

Version = tuple[int, int]
Row = dict[str, Any]

_CONTAINER_FIELDS: Final[Row] = {
    "Hostname": "",
    "Domainname": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Image": "",
}
_ALWAYS: Final[Row] = {
    "User": "",
    "Env": None,
    "Cmd": None,
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
}
_IMAGE_FIELDS: Final = frozenset(
    {*_ALWAYS, "ExposedPorts", "Healthcheck", "ArgsEscaped", "StopSignal", "Shell"},
)


def tags_of(names: Sequence[Reference]) -> list[str]:
    """The tags among an image's names, as people write them."""
    return [name.familiar for name in names if not name.digest]


def digests_of(names: Sequence[Reference]) -> list[str]:
    """The digests among an image's names, as people write them."""
    return [name.familiar for name in names if name.digest]


def inspected(
    image: Image, names: Sequence[Reference], size: int, driver_data: dict[str, str], version: Version
) -> Row:
    """``GET /images/{name}/json``."""
    config = image.config
    row: Row = {
        "Id": image.id,
        "RepoTags": tags_of(names),
        "RepoDigests": digests_of(names),
        "Parent": image.record.parent or "",
        "Comment": config.comment or (config.history[-1].comment if config.history else ""),
        "DockerVersion": config.docker_version,
        "Author": config.author,
        "Config": _shown_config(image.container_config(), version),
        "Architecture": config.architecture,
        "Os": config.os or "linux",
        "Size": size,
        "GraphDriver": {"Name": "windowsfilter", "Data": driver_data},
        "RootFS": {"Type": config.rootfs.type, "Layers": list(config.rootfs.diff_ids)},
        "Metadata": {"LastTagTime": image.record.last_tagged or ZERO},
    }
    if config.created or version < (1, 44):
        row["Created"] = config.created or ZERO
    if config.variant:
        row["Variant"] = config.variant
    if config.os_version:
        row["OsVersion"] = config.os_version
    if version < (1, 44):
        row["VirtualSize"] = size
    if version < (1, 45):
        row |= {"Container": "", "ContainerConfig": {**_CONTAINER_FIELDS, **_ALWAYS}}
    return row


def _shown_config(section: Row, version: Version) -> Row:
    """The ``config`` section with the members that clients of ``version`` always find."""
    if version < (1, 50):
        return {**_CONTAINER_FIELDS, **_ALWAYS, **section}
    return {**_ALWAYS, **{key: value for key, value in section.items() if key in _IMAGE_FIELDS}}


def listed(image: Image, tags: Sequence[str], digests: Sequence[str], size: int, shared: int, version: Version) -> Row:
    """One row of ``GET /images/json``; ``shared`` is -1 when it was not asked for."""
    if not tags and not digests and version < (1, 43):
        tags, digests = ["<none>:<none>"], ["<none>@<none>"]
    row: Row = {
        "Id": image.id,
        "ParentId": image.record.parent or "",
        "RepoTags": list(tags),
        "RepoDigests": list(digests),
        "Created": created(image) // 1_000_000_000,
        "Size": size,
        "SharedSize": shared,
        "Labels": image.config.config.labels or None,
        "Containers": -1,
    }
    if version < (1, 44):
        row["VirtualSize"] = size
    return row


def created(image: Image) -> int:
    """When the image was made, in nanoseconds since the epoch; 0 when it does not say."""
    return nanoseconds(image.config.created) or 0


def history(
    image: Image,
    layer_size: Callable[[ChainID], int],
    names: Callable[[ImageID], Sequence[Reference]],
    parent: Callable[[ImageID], Image | None],
) -> list[Row]:
    """``GET /images/{name}/history``, newest first; only images that are here have an id in it."""
    chains = iter(image.chains)
    rows: list[Row] = [
        {
            "Id": "<missing>",
            "Created": seconds(step.created) or 0,
            "CreatedBy": step.created_by,
            "Tags": None,
            "Size": 0 if step.empty_layer else layer_size(next(chains)),
            "Comment": step.comment,
        }
        for step in image.config.history
    ]
    rows.reverse()
    at: Image | None = image
    for row in rows:
        if at is None:
            break
        row["Id"], row["Tags"] = at.id, tags_of(names(at.id)) or None
        at = parent(at.id)
    return rows
