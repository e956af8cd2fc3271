"""What an image archive holds: ``docker save`` archives and OCI layouts, read from a :class:`~silo.images.spool.Spool`.

An archive with a ``manifest.json`` is a Docker archive, also when it is an OCI layout at the same time (Docker 25 and
later write both).  Nothing is taken on trust: a blob named by a digest must have it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec
from msgspec import field

from silo.errors import Corrupt, InvalidParameter, NotFound
from silo.ids import Digest
from silo.images.config import ImageConfig, decode_config
from silo.images.platforms import Platform
from silo.images.references import Reference, check_digest, parse_reference
from silo.images.spool import Spool, Spooled

T = TypeVar("T")

MANIFEST: Final = "manifest.json"
INDEX: Final = "index.json"
MAX_DEPTH: Final = 4
"""How deep indexes may nest."""

_INDEXES: Final = frozenset(
    {"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"}
)
_MANIFESTS: Final = frozenset(
    {"application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"}
)
_FULL_NAME: Final = "io.containerd.image.name"
_REF_NAME: Final = "org.opencontainers.image.ref.name"
_ATTESTATION: Final = "vnd.docker.reference.type"
_BLOB: Final = re.compile(r"(?:.*/)?blobs/sha256/([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class LayerFile:
    """A layer as the archive has it; ``file`` is None when the archive names it and does not have it."""

    name: str
    file: Spooled | None


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """One image of an archive, checked as far as that goes without unpacking its layers (base first)."""

    raw: bytes
    config: ImageConfig
    layers: tuple[LayerFile, ...]
    references: tuple[Reference, ...]
    manifest: bytes | None = None
    parent: str = ""


class _DockerImage(msgspec.Struct, frozen=True, rename="pascal"):
    config: str
    repo_tags: list[str] | None = None
    layers: list[str] | None = None
    parent: str = ""


class _Platform(msgspec.Struct, frozen=True):
    os: str = ""
    architecture: str = ""
    variant: str = ""


class _Descriptor(msgspec.Struct, frozen=True):
    digest: str
    size: int
    media_type: str = field(default="", name="mediaType")
    annotations: dict[str, str] | None = None
    platform: _Platform | None = None


class _Index(msgspec.Struct, frozen=True):
    manifests: list[_Descriptor] = []


class _Manifest(msgspec.Struct, frozen=True):
    config: _Descriptor
    layers: list[_Descriptor] = []


def read_archive(spool: Spool, host: Platform) -> list[ArchivedImage]:
    """The images of the archive, in its order; of one made for several platforms the one for ``host``.

    Raises InvalidParameter when it is no image archive, NotFound naming what it lacks, Corrupt naming what is wrong.
    """
    if spool.find(MANIFEST) is not None:
        return [_docker_image(spool, item) for item in _decode(spool.document(MANIFEST), MANIFEST, list[_DockerImage])]
    if spool.find(INDEX) is not None:
        return _oci_images(spool, host)
    raise InvalidParameter(f"invalid archive: does not contain a {MANIFEST}")


def _docker_image(spool: Spool, item: _DockerImage) -> ArchivedImage:
    raw = spool.document(item.config)
    _check_name(item.config, spool.get(item.config))
    config = _config(raw, item.config)
    names = item.layers or []
    if len(names) != len(config.rootfs.diff_ids):
        raise Corrupt(
            f"invalid manifest, layers length mismatch: expected {len(names)}, got {len(config.rootfs.diff_ids)}"
        )
    layers = tuple(LayerFile(name, spool.find(name)) for name in names)
    for layer in layers:
        if layer.file is not None:
            _check_name(layer.name, layer.file)
    references = tuple(_tag(text) for text in item.repo_tags or [])
    return ArchivedImage(raw, config, layers, references, parent=item.parent)


def _tag(text: str) -> Reference:
    reference = parse_reference(text)
    if not reference.tag or reference.digest:
        raise InvalidParameter(f'invalid tag "{text}"')
    return reference


def _oci_images(spool: Spool, host: Platform) -> list[ArchivedImage]:
    found: dict[Reference | None, list[_Descriptor]] = {}
    for top in _decode(spool.document(INDEX), INDEX, _Index).manifests:
        for descriptor in _flatten(spool, top, 0):
            found.setdefault(_oci_name(top.annotations or {}), []).append(descriptor)
    if not found:
        raise NotFound(f"{INDEX}: no image manifest of which the archive has the content")
    chosen: dict[str, tuple[_Descriptor, list[Reference]]] = {}
    for reference, descriptors in found.items():
        for descriptor in _for_host(descriptors, host):
            names = chosen.setdefault(descriptor.digest, (descriptor, []))[1]
            names.extend([reference] if reference is not None else [])
    return [_oci_image(spool, descriptor, names) for descriptor, names in chosen.values()]


def _flatten(spool: Spool, descriptor: _Descriptor, depth: int) -> list[_Descriptor]:
    """The image manifests at or below ``descriptor`` that the archive has (an index may name more than it brings)."""
    if _ATTESTATION in (descriptor.annotations or {}) or spool.find(_blob_name(descriptor)) is None:
        return []
    if descriptor.media_type in _MANIFESTS:
        return [descriptor]
    if descriptor.media_type not in _INDEXES:
        return []
    if depth == MAX_DEPTH:
        raise Corrupt(f"{_blob_name(descriptor)}: indexes nest deeper than {MAX_DEPTH}")
    index = _decode(_blob(spool, descriptor), _blob_name(descriptor), _Index)
    return [image for below in index.manifests for image in _flatten(spool, below, depth + 1)]


def _for_host(descriptors: Sequence[_Descriptor], host: Platform) -> list[_Descriptor]:
    """Of several images under one name those that the host runs; a single one is taken whatever it is for."""
    if len(descriptors) == 1:
        return list(descriptors)
    fitting = [item for item in descriptors if item.platform is None or host.runs(_platform(item.platform))]
    if not fitting:
        offered = ", ".join(str(_platform(item.platform)) for item in descriptors if item.platform)
        raise NotFound(f"no image for platform {host} in the archive, only for {offered}")
    return fitting


def _platform(wire: _Platform) -> Platform:
    return Platform(wire.os, wire.architecture, wire.variant)


def _oci_image(spool: Spool, descriptor: _Descriptor, names: list[Reference]) -> ArchivedImage:
    manifest_raw = _blob(spool, descriptor)
    manifest = _decode(manifest_raw, _blob_name(descriptor), _Manifest)
    raw = _blob(spool, manifest.config)
    config = _config(raw, _blob_name(manifest.config))
    if len(manifest.layers) != len(config.rootfs.diff_ids):
        raise Corrupt(
            "invalid manifest, layers length mismatch: "
            f"expected {len(manifest.layers)}, got {len(config.rootfs.diff_ids)}"
        )
    layers = tuple(LayerFile(_blob_name(layer), _layer_blob(spool, layer)) for layer in manifest.layers)
    return ArchivedImage(raw, config, layers, tuple(names), manifest=manifest_raw)


def _oci_name(annotations: dict[str, str]) -> Reference | None:
    """The name an index entry gives its image; a bare word such as ``v1`` is a tag of no known repository."""
    full = annotations.get(_FULL_NAME, "")
    short = annotations.get(_REF_NAME, "")
    text = full or (short if {":", "/"} & set(short) else "")
    if not text:
        return None
    reference = parse_reference(text)
    return None if reference.digest else reference.with_default_tag()


def _layer_blob(spool: Spool, descriptor: _Descriptor) -> Spooled | None:
    name = _blob_name(descriptor)
    found = spool.find(name)
    if found is not None:
        _check(name, found, descriptor)
    return found


def _blob(spool: Spool, descriptor: _Descriptor) -> bytes:
    name = _blob_name(descriptor)
    data = spool.document(name)
    _check(name, spool.get(name), descriptor)
    return data


def _blob_name(descriptor: _Descriptor) -> str:
    algorithm, _, value = _digest(descriptor.digest).partition(":")
    return f"blobs/{algorithm}/{value}"


def _digest(text: str) -> Digest:
    try:
        digest = check_digest(text)
    except InvalidParameter as exc:
        raise Corrupt(f"digest {text!r}: {exc}") from exc
    if not digest.startswith("sha256:"):
        raise Corrupt(f"digest {digest}: only sha256 is supported")
    return digest


def _check(name: str, found: Spooled, descriptor: _Descriptor) -> None:
    _check_name(name, found)
    if found.size != descriptor.size:
        raise Corrupt(f"{name}: has {found.size} bytes, its descriptor says {descriptor.size}")


def _check_name(name: str, found: Spooled) -> None:
    """A name that is a digest must tell the truth."""
    match = _BLOB.fullmatch(name)
    if match is not None and match[1] != (digest := found.sha256()):
        raise Corrupt(f"{name}: the content's digest is sha256:{digest}")


def _config(raw: bytes, name: str) -> ImageConfig:
    try:
        return decode_config(raw)
    except Corrupt as exc:
        raise Corrupt(f"{exc} ({name})") from exc


def _decode(raw: bytes, name: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise Corrupt(f"{name}: {exc}") from exc
