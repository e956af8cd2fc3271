"""Image archives made by hand, honest ones and others, for the tests of images."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

Entries = Iterable[tuple[str, bytes] | tarfile.TarInfo]

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar(entries: Entries, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
                continue
            info = tarfile.TarInfo(entry[0])
            info.size, info.mode = len(entry[1]), 0o644
            archive.addfile(info, io.BytesIO(entry[1]))
    return buffer.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def config(diff_ids: Sequence[str], **more: Any) -> bytes:
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["sh"], "Env": ["A=b"], "Labels": {"kind": "test"}},
            "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
            **more,
        }
    ).encode()


def docker_entries(
    layers: Sequence[bytes], tags: Sequence[str] | None, prefix: str = "", **more: Any
) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    """One image as ``docker save`` writes it: its item of manifest.json, and its entries."""
    raw = config([sha256(layer) for layer in layers], **more)
    names = [f"{prefix}{number}/layer.tar" for number in range(len(layers))]
    item = {"Config": f"{prefix}config.json", "RepoTags": tags, "Layers": names}
    return item, [(f"{prefix}config.json", raw), *zip(names, layers, strict=True)]


def docker_archive(layers: Sequence[bytes], tags: Sequence[str] | None = ("t:1",), **more: Any) -> bytes:
    item, entries = docker_entries(layers, tags, **more)
    return tar([*entries, ("manifest.json", json.dumps([item]).encode())])


class OciLayout:
    """The blobs of an OCI layout."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def blob(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        digest = sha256(data)
        self.blobs[f"blobs/sha256/{digest[7:]}"] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    def image(self, layers: Sequence[bytes], sent: Sequence[bytes] | None = None, **more: Any) -> dict[str, Any]:
        """An image of ``layers``; ``sent`` are their blobs when these are compressed."""
        raw = config([sha256(layer) for layer in layers], **more.pop("config", {}))
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.blob(raw, OCI_CONFIG),
            "layers": [self.blob(layer, OCI_LAYER) for layer in sent or layers],
        }
        return self.blob(json.dumps(manifest).encode(), OCI_MANIFEST, **more)

    def index(self, manifests: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(manifests)}
        return self.blob(json.dumps(document).encode(), OCI_INDEX, **more)

    def archive(self, manifests: Sequence[dict[str, Any]]) -> bytes:
        top = json.dumps({"schemaVersion": 2, "manifests": list(manifests)}).encode()
        return tar([("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), ("index.json", top), *self.blobs.items()])


def named(name: str) -> dict[str, Any]:
    return {"annotations": {"io.containerd.image.name": name}}


async def stream(data: bytes, size: int = 50_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]
