"""An image's configuration: the document whose digest is the image's id.

The bytes are kept exactly as they came; what the engine needs of them is read into structs.  Absent and ``null``
members are the same, members that are not known are left alone.  Source: OCI image specification, "Image
Configuration", and Docker's additions to its ``config`` section (Healthcheck, OnBuild, Shell).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import field

from silo.errors import Corrupt, InvalidParameter
from silo.ids import ChainID, DiffID, ImageID, chain_id
from silo.images.references import check_digest


class Healthcheck(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """How to probe a container of the image; times in nanoseconds."""

    test: list[str] = []
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class RunConfig(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """What a container of the image runs when its creator says nothing else."""

    user: str = ""
    exposed_ports: dict[str, dict[str, Any]] = {}
    env: list[str] = []
    entrypoint: list[str] = []
    cmd: list[str] = []
    volumes: dict[str, dict[str, Any]] = {}
    working_dir: str = ""
    labels: dict[str, str] = {}
    stop_signal: str = ""
    args_escaped: bool = False
    healthcheck: Healthcheck | None = None
    on_build: list[str] = []
    shell: list[str] = []


class History(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step of the image's making; ``empty_layer`` says that it added no layer."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class RootFS(msgspec.Struct, frozen=True):
    """The layers, base first."""

    type: str
    diff_ids: list[DiffID] = []


class ImageConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole document."""

    rootfs: RootFS
    architecture: str = ""
    variant: str = ""
    os: str = ""
    os_version: str = field(default="", name="os.version")
    created: str = ""
    author: str = ""
    comment: str = ""
    docker_version: str = ""
    config: RunConfig = RunConfig()
    history: list[History] = []


def image_id(raw: bytes) -> ImageID:
    """The id of the image whose configuration is ``raw``."""
    return ImageID(f"sha256:{hashlib.sha256(raw).hexdigest()}")


def decode_config(raw: bytes) -> ImageConfig:
    """Read a configuration.  Raises Corrupt, with dockerd's texts where it has one."""
    try:
        document = _without_nulls(msgspec.json.decode(raw))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise Corrupt(f"invalid image JSON: {exc}") from exc
    if not isinstance(document, dict) or not isinstance(document.get("rootfs"), dict):
        raise Corrupt("invalid image JSON, no RootFS key")
    _listed(document.get("config"))
    try:
        config = msgspec.convert(document, ImageConfig)
        for diff_id in config.rootfs.diff_ids:
            check_digest(diff_id)
    except (msgspec.ValidationError, InvalidParameter) as exc:
        raise Corrupt(f"invalid image JSON: {exc}") from exc
    if sum(not step.empty_layer for step in config.history) > len(config.rootfs.diff_ids):
        raise Corrupt("too many non-empty layers in History section")
    return config


def chains(diff_ids: Sequence[DiffID]) -> list[ChainID]:
    """The chain ids of the layers, base first."""
    result: list[ChainID] = []
    for diff_id in diff_ids:
        result.append(chain_id(result[-1] if result else None, diff_id))
    return result


def _listed(section: Any) -> None:
    """Docker also takes one string where a command's list of arguments belongs."""
    for key in ("Cmd", "Entrypoint"):
        if isinstance(section, dict) and isinstance(section.get(key), str):
            section[key] = [section[key]]


def _without_nulls(value: Any) -> Any:
    """``value`` without the members that are null, at any depth."""
    if isinstance(value, dict):
        return {key: _without_nulls(member) for key, member in value.items() if member is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value if item is not None]
    return value
