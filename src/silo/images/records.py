"""Which images there are and what they are called: kept in the store, read from memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from silo.errors import InvalidParameter, NotFound
from silo.ids import ChainID, Digest, ImageID
from silo.images.config import ImageConfig, chains
from silo.images.references import Reference, parse_any, parse_reference
from silo.store import Delete, Put, Step, Store, decode_all

IMAGES: Final = "images"
REFERENCES: Final = "references"


class ImageRecord(msgspec.Struct, frozen=True):
    """What the store keeps of an image beside its configuration, which is in the content store."""

    id: ImageID
    manifest: Digest | None = None
    parent: ImageID | None = None
    last_tagged: str = ""


class ReferenceRecord(msgspec.Struct, frozen=True):
    """What a name (the key, normalised, with tag or digest) stands for."""

    image: ImageID


@dataclass(frozen=True, slots=True)
class Image:
    """One image as it is now."""

    record: ImageRecord
    raw: bytes
    config: ImageConfig

    @property
    def id(self) -> ImageID:
        """The digest of its configuration."""
        return self.record.id

    @property
    def chain(self) -> ChainID | None:
        """Its top layer with all below; None when it has no layers."""
        return next(reversed(self.chains), None)

    @property
    def chains(self) -> list[ChainID]:
        """The chain of each of its layers, base first."""
        return chains(self.config.rootfs.diff_ids)

    def container_config(self) -> dict[str, Any]:
        """The ``config`` section as the image has it: what a container of it runs if its creator says nothing."""
        section = msgspec.json.decode(self.raw).get("config")
        return section if isinstance(section, dict) else {}


@dataclass(frozen=True, slots=True)
class Change:
    """What one verb does to images and names, all at once."""

    add: tuple[Image, ...] = ()
    name: Mapping[str, ImageID] = field(default_factory=dict)
    unname: tuple[str, ...] = ()
    remove: tuple[ImageID, ...] = ()

    def steps(self) -> list[Step]:
        """The change as one transaction."""
        return [
            *(Put(IMAGES, image.id, msgspec.json.encode(image.record)) for image in self.add),
            *(Put(REFERENCES, key, msgspec.json.encode(ReferenceRecord(to))) for key, to in self.name.items()),
            *(Delete(REFERENCES, key) for key in self.unname),
            *(Delete(IMAGES, image) for image in self.remove),
        ]


class ImageTable:
    """The images and their names."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._images: dict[ImageID, Image] = {}
        self._names: dict[str, ImageID] = {}

    def documents(self) -> tuple[dict[str, ImageRecord], dict[str, ReferenceRecord]]:
        """What the store has; for start-up."""
        return (
            decode_all(ImageRecord, self._store.load(IMAGES)),
            decode_all(ReferenceRecord, self._store.load(REFERENCES)),
        )

    async def commit(self, change: Change) -> None:
        """Record the change durably; readers see it at once when that is done."""
        await self._store.write(*change.steps())
        self.apply(change)

    def apply(self, change: Change) -> None:
        """Show readers what the store already has."""
        self._images.update({image.id: image for image in change.add})
        self._names.update(change.name)
        for key in change.unname:
            self._names.pop(key, None)
        for image in change.remove:
            self._images.pop(image, None)

    def __contains__(self, image: ImageID) -> bool:
        return image in self._images

    def __iter__(self) -> Iterator[Image]:
        return iter(list(self._images.values()))

    def get(self, image: ImageID) -> Image | None:
        """The image of that id."""
        return self._images.get(image)

    def target(self, key: str) -> ImageID | None:
        """What the normalised name ``key`` stands for."""
        return self._names.get(key)

    def names(self) -> dict[ImageID, list[Reference]]:
        """The names of every image that has some, sorted."""
        result: dict[ImageID, list[Reference]] = {}
        for key in sorted(self._names):
            result.setdefault(self._names[key], []).append(parse_reference(key))
        return result

    def names_of(self, image: ImageID) -> list[Reference]:
        """The names of an image, sorted, tags and digests."""
        return [parse_reference(key) for key in sorted(key for key, to in self._names.items() if to == image)]

    def children(self, image: ImageID) -> list[ImageID]:
        """The images that were made locally from this one."""
        return [other.id for other in self._images.values() if other.record.parent == image]

    def resolve(self, text: str) -> Image:
        """The image that ``text`` means: a name, an id, or the beginning of just one id.

        Raises NotFound, and InvalidParameter when it cannot be a name, with dockerd's texts.
        """
        wanted = parse_any(text)
        if isinstance(wanted, Reference):
            found = self._images.get(self._names.get(wanted.key(), ImageID("")))
            found = found or self._by_prefix(text)
            shown = wanted.with_default_tag().familiar
        else:
            found, shown = self._images.get(ImageID(wanted)), str(wanted)
        if found is None:
            raise NotFound(f"No such image: {shown}")
        return found

    def named_by(self, text: str, image: ImageID) -> bool:
        """Whether ``text`` is at present a name of ``image``, or (part of) its id."""
        if is_id_prefix(text, image):
            return True
        try:
            wanted = parse_any(text)
        except InvalidParameter:
            return False
        return isinstance(wanted, Reference) and self._names.get(wanted.key()) == image

    def _by_prefix(self, text: str) -> Image | None:
        found = [image for image in self._images.values() if is_id_prefix(text, image.id)]
        return found[0] if len(found) == 1 else None


def is_id_prefix(text: str, image: ImageID) -> bool:
    """Whether ``text`` is the beginning of the id, with or without its algorithm."""
    digits = text.removeprefix("sha256:")
    return bool(digits) and image.removeprefix("sha256:").startswith(digits)
