"""Identifiers as types, and how each is made and checked."""

from __future__ import annotations

import hashlib
import re
import secrets
import uuid
from typing import Final, NewType

from silo.errors import InvalidParameter

ContainerID = NewType("ContainerID", str)
"""64 lower-case hex digits; also the id of the container's read-write layer and of its compute system."""
ExecID = NewType("ExecID", str)
ImageID = NewType("ImageID", str)
"""``sha256:<hex>``, the digest of the image's configuration."""
Digest = NewType("Digest", str)
"""``sha256:<hex>`` of a blob as it is stored or sent."""
DiffID = NewType("DiffID", str)
"""``sha256:<hex>`` of a layer's uncompressed tar."""
ChainID = NewType("ChainID", str)
"""Content address of a layer and all its parents (OCI image specification)."""
LayerID = NewType("LayerID", str)
"""Names one directory below ``<data-root>/windowsfilter``; says nothing of parents."""
NetworkID = NewType("NetworkID", str)
"""64 hex digits, a CNM network as Docker names it."""
EndpointID = NewType("EndpointID", str)
"""64 hex digits, a CNM endpoint as Docker names it."""
HnsID = NewType("HnsID", str)
"""A GUID in lower case: an HNS network, endpoint or namespace."""

CONTAINER_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
HEX64: Final = re.compile(r"[0-9a-f]{64}")
# Any stable private namespace will do: no two hosts compare layer GUIDs (reference, section 3.4).
_LAYER_NAMESPACE: Final = uuid.UUID("6f1b2a58-6d0c-5d0e-9a64-51f06a1c3d10")


def random_id() -> str:
    """64 random hex digits, never all decimal in the first twelve (a short id must not look like a number)."""
    while True:
        text = secrets.token_hex(32)
        if not text[:12].isdecimal():
            return text


def short(identifier: str) -> str:
    """The first twelve hex digits, without ``sha256:``."""
    return identifier.removeprefix("sha256:")[:12]


def new_guid() -> HnsID:
    """A random GUID in lower case."""
    return HnsID(str(uuid.uuid4()))


def name_to_guid(name: str) -> str:
    """The GUID that stands for a layer's name in descriptors; the same name always gives the same GUID."""
    return str(uuid.uuid5(_LAYER_NAMESPACE, name))


def chain_id(parent: ChainID | None, diff_id: DiffID) -> ChainID:
    """The chain id of ``diff_id`` on ``parent`` (OCI image specification, "Layer ChainID")."""
    if parent is None:
        return ChainID(diff_id)
    return ChainID("sha256:" + hashlib.sha256(f"{parent} {diff_id}".encode()).hexdigest())


def check_container_name(name: str) -> str:
    """Return ``name`` without its leading slash.  Raises InvalidParameter with dockerd's text."""
    bare = name.removeprefix("/")
    if not CONTAINER_NAME.fullmatch(bare):
        raise InvalidParameter(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return bare
