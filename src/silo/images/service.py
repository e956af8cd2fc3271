"""The images of one engine: load, import, list, inspect, tag, remove.

What is kept where: an image's configuration, and its manifest where it came with one, are blobs in ``content/``; its
layers are kept unpacked by the layer store, which holds them as long as an image owns them; which images there are and
what they are called are documents in the store.  Layer blobs are not kept beside their unpacked form: that would double
the disk an image takes, and a layer's tar is made again from its files when one is asked for.

Every verb is one transaction.  Layers that are unpacked for an image that does not come to be are let go at once, and
after a crash when the engine starts again.
"""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

from silo.errors import Corrupt, InvalidParameter, NotFound, SiloError
from silo.ids import ChainID, DiffID, Digest, ImageID, chain_id, short
from silo.images import views
from silo.images.archive import ArchivedImage, LayerFile, read_archive
from silo.images.changes import apply_changes
from silo.images.config import decode_config, image_id
from silo.images.content import ContentStore
from silo.images.filters import Filters, selection
from silo.images.platforms import Platform, host_platform, parse_platform
from silo.images.records import Change, Image, ImageRecord, ImageTable
from silo.images.references import Reference, tagged
from silo.images.removal import InUse, Removal, plan_removal
from silo.images.spool import UNPACK_FAILED, private_folder, save, spooled
from silo.images.times import now
from silo.images.types import Layers
from silo.images.views import Row, Version
from silo.resources import Undo, leaf
from silo.store import Store
from silo.telemetry import span, traced

API_VERSION: Final[Version] = (1, 50)
"""The version whose shapes are given when the caller names none."""

_LOADING: Final = "load:"  # an owner of layers that are on their way to an image
_EMPTY_TAR: Final = bytes(1024)
_LOG: Final = logging.getLogger(__name__)
Rows = list[Row]


class ImageService:
    """The images below ``root``.  Call :meth:`restore` before anything else."""

    def __init__(self, root: Path, store: Store, layers: Layers) -> None:
        self._content = ContentStore(root)
        self._scratch = root / "tmp" / "images"
        self._layers = layers
        self._table = ImageTable(store)
        self._commit = anyio.Lock()

    async def restore(self) -> None:
        """Read the images back and remove what a killed engine left: half-written blobs, layers without an image.

        The layer store must be restored.  An image that is no longer whole is left out and said so in the log.
        """
        await leaf(self._clear_scratch)
        records, names = self._table.documents()
        images = [image for record in records.values() if (image := await self._restored(record)) is not None]
        there = {image.id for image in images}
        self._table.apply(
            Change(
                add=tuple(images),
                name={key: record.image for key, record in names.items() if record.image in there},
            )
        )
        wanted = {blob for record in records.values() for blob in _blobs(record)}
        await leaf(self._content.sweep, wanted)
        for image in images:
            if image.chain is not None:
                await self._layers.retain(image.chain, image.id)
        await self._drop_stale_owners(records)

    async def import_tar(
        self,
        source: AsyncIterator[bytes],
        *,
        repo: str = "",
        tag: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        platform: str | None = None,
    ) -> AsyncGenerator[Row]:
        """Make an image of one layer from a tar of its files, plain or compressed; yield its id as ``status``.

        ``changes`` are Dockerfile instructions, ``message`` the comment in its history.  All errors come before the
        first step, so a server can still answer with their status: InvalidParameter, Corrupt, TooLarge, Unavailable.
        """
        reference = _import_name(repo, tag)
        made_for = parse_platform(platform) if platform else host_platform()
        section = apply_changes(changes, made_for.os)
        yield {"status": await self._import(source, reference, made_for, section, message or "Imported from -")}

    @traced("images::Import", "reference", "made_for")
    async def _import(
        self,
        source: AsyncIterator[bytes],
        reference: Reference | None,
        made_for: Platform,
        section: dict[str, Any],
        comment: str,
    ) -> ImageID:
        async with Undo() as undo:
            folder = await undo.enter_async_context(private_folder(self._scratch))
            tar = folder / "layer.tar"
            if not await save(source, tar):
                tar.write_bytes(_EMPTY_TAR)
            hold = await undo.enter_async_context(self._holding())
            diff_id = await hold.unpack(tar)
            raw = _imported_config(made_for, section, comment, diff_id)
            image = Image(ImageRecord(image_id(raw)), raw, decode_config(raw))
            await self._add([(image, (reference,) if reference else ())])
        return image.id

    async def load(self, source: AsyncIterator[bytes], quiet: bool = True) -> AsyncGenerator[Row]:  # noqa: FBT001, FBT002
        """Take the images of a ``docker save`` archive or an OCI layout: all of them, or none.

        Yields dockerd's progress objects.  Raises Corrupt, InvalidParameter, NotFound, TooLarge, Unavailable; close
        the generator when it is not read to its end.
        """
        async with Undo() as undo:
            spool = await undo.enter_async_context(spooled(source, self._scratch))
            archived = await leaf(read_archive, spool, host_platform())
            hold = await undo.enter_async_context(self._holding())
            for item in archived:
                parent: ChainID | None = None
                for number, (layer, diff_id) in enumerate(zip(item.layers, item.config.rootfs.diff_ids, strict=True)):
                    if not quiet and layer.file is not None:
                        yield _progress(diff_id, 0, layer.file.size)
                    parent = await hold.add(number, layer, parent, diff_id)
                    if not quiet and layer.file is not None:
                        yield _progress(diff_id, layer.file.size, layer.file.size)
            lines = await self._add_archived(archived)
        for line in lines:
            yield {"stream": line}

    def resolve(self, reference: str) -> Image:
        """The image of that name, id, or beginning of an id.  Raises NotFound and InvalidParameter."""
        return self._table.resolve(reference)

    def names(self, image: ImageID, reference: str) -> bool:
        """Whether ``reference`` is at present a name or an id of ``image``."""
        return self._table.named_by(reference, image)

    def tags(self, image: ImageID) -> Sequence[str]:
        """The tags of an image, as people write them."""
        return views.tags_of(self._table.names_of(image))

    def layers_of(self, image: ImageID) -> Sequence[ChainID]:
        """The chain of each layer of an image, base first; none when the image is not here."""
        found = self._table.get(image)
        return found.chains if found is not None else []

    async def list(
        self,
        filters: Filters | None = None,
        all: bool = False,  # noqa: A002, FBT001, FBT002
        *,
        shared_size: bool = False,
        version: Version = API_VERSION,
    ) -> Rows:
        """The rows of ``GET /images/json``, newest first.  Raises InvalidParameter, NotFound for a filter."""
        wanted = selection(filters or {}, self._table.resolve)
        uses = self._layer_uses() if shared_size else None
        rows: Rows = []
        names = self._table.names()
        for image in sorted(self._table, key=views.created, reverse=True):
            own = names.get(image.id, [])
            shown = [name for name in own if wanted.takes_name(name)]
            if not wanted.takes(image) or (own and not shown):
                continue
            tags, digests = views.tags_of(shown), views.digests_of(shown)
            if (wanted.dangling is True and tags) or (wanted.dangling is False and not shown):
                continue
            if not shown and (wanted.patterns or (not all and self._table.children(image.id))):
                continue
            shared = -1 if uses is None else sum(self._size_of(c) for c in image.chains if uses[c] > 1)
            rows.append(views.listed(image, tags, digests, self._size(image), shared, version))
        return rows

    async def inspect(self, reference: str, version: Version = API_VERSION) -> Row:
        """``GET /images/{name}/json``.  Raises NotFound, InvalidParameter."""
        image = self._table.resolve(reference)
        data = self._layers.metadata(image.chain) if image.chain is not None else {}
        return views.inspected(image, self._table.names_of(image.id), self._size(image), data, version)

    async def history(self, reference: str) -> Rows:
        """``GET /images/{name}/history``, newest first.  Raises NotFound, InvalidParameter."""
        image = self._table.resolve(reference)
        return views.history(image, self._size_of, self._table.names_of, self._parent)

    @traced("images::Tag", "source", "repo", "tag")
    async def tag(self, source: str, repo: str, tag: str = "") -> str:
        """Give an image one more name, taking it from the image that has it; return the name as people write it.

        Raises NotFound, InvalidParameter.
        """
        image = self._table.resolve(source)
        reference = tagged(repo, tag)
        if reference.digest:
            raise InvalidParameter("refusing to create a tag with a digest reference")
        if reference.familiar_name == "sha256":
            raise InvalidParameter("refusing to create an ambiguous tag using digest algorithm as name")
        async with self._commit:
            current = self._table.resolve(image.id)
            await self._table.commit(Change(add=(_touched(current),), name={str(reference): image.id}))
        return reference.familiar

    @traced("images::Remove", "reference", "force")
    async def remove(self, reference: str, force: bool, prune: bool, in_use: InUse) -> Rows:  # noqa: FBT001
        """Take a name, or an image with its names and layers, away; return what went as ``Untagged`` and ``Deleted``.

        ``prune`` also removes local parents that nothing needs.  Raises NotFound, Conflict, InvalidParameter.
        """
        async with self._commit:
            removal = plan_removal(self._table, reference, force=force, prune=prune, in_use=in_use)
            rows: Rows = []
            with anyio.CancelScope(shield=True):
                await self._table.commit(removal.change())
                rows += await self._discard(removal)
            return rows

    async def _discard(self, removal: Removal) -> Rows:
        """Remove the blobs and layers of images that are no longer in the table."""
        rows: Rows = [{"Untagged": reference.familiar} for reference in removal.untagged]
        wanted = {blob for image in self._table for blob in _blobs(image.record)}
        for image in removal.images:
            for blob in _blobs(image.record):
                if blob not in wanted:
                    await leaf(self._content.delete, blob)
            if image.chain is not None:
                await self._layers.release(image.chain, image.id)
            rows.append({"Deleted": image.id})
            rows += [{"Deleted": chain} for chain in reversed(image.chains) if not self._has(chain)]
        return rows

    async def _add_archived(self, archived: Sequence[ArchivedImage]) -> Sequence[str]:
        """Record the images of an archive; return the lines that tell of it."""
        known = {image.id: image for image in self._table}
        added: list[tuple[Image, tuple[Reference, ...]]] = []
        lines: list[str] = []
        for item in archived:
            parent = known.get(ImageID(item.parent))
            own, above = item.config.rootfs.diff_ids, parent.config.rootfs.diff_ids if parent else []
            record = ImageRecord(
                image_id(item.raw),
                manifest=image_digest(item.manifest) if item.manifest is not None else None,
                parent=parent.id if parent is not None and own[: len(above)] == above else None,
            )
            image = known[record.id] = _merged(known.get(record.id), Image(record, item.raw, item.config))
            added.append((image, (*item.references, *_digests(item.references, record.manifest))))
            for reference in item.references:
                lines += self._renamed(reference, image.id)
                lines.append(f"Loaded image: {reference.familiar}\n")
            if not item.references:
                lines.append(f"Loaded image ID: {image.id}\n")
        manifests = [item.manifest for item in archived if item.manifest is not None]
        await self._add(added, manifests)
        return lines

    def _renamed(self, reference: Reference, image: ImageID) -> Sequence[str]:
        old = self._table.target(str(reference))
        if old is None or old == image:
            return []
        return [f"The image {reference.familiar} already exists, renaming the old one with ID {old} to empty string\n"]

    async def _add(self, images: Sequence[tuple[Image, Sequence[Reference]]], manifests: Sequence[bytes] = ()) -> None:
        """Keep the images' blobs and layers, and record images and names, all in one."""
        names = {str(reference): image.id for image, references in images for reference in references}
        async with self._commit, Undo() as undo:
            with span("images::Commit", images=len(images)), anyio.CancelScope(shield=True):
                for blob in [image.raw for image, _ in images] + list(manifests):
                    await leaf(self._content.put, blob)
                for image, _ in images:
                    if image.chain is not None and self._table.get(image.id) is None:
                        await self._layers.retain(image.chain, image.id)
                        undo.push_async_callback(self._layers.release, image.chain, image.id)
                add = tuple(_touched(image) if references else image for image, references in images)
                await self._table.commit(Change(add=add, name=names))
                undo.pop_all()

    @asynccontextmanager
    async def _holding(self) -> AsyncGenerator[_Hold]:
        """Something that keeps unpacked layers for the block, until an image owns them."""
        hold = _Hold(self._layers)
        async with Undo() as undo:
            undo.push_async_callback(hold.release)
            yield hold

    async def _restored(self, record: ImageRecord) -> Image | None:
        try:
            raw = await leaf(self._content.read, Digest(record.id))
            image = Image(record, raw, decode_config(raw))
            if image.chain is not None:
                self._layers.get(image.chain)
        except SiloError as exc:
            _LOG.warning("image %s is not whole and is left out: %s", record.id, exc)
            return None
        return image

    async def _drop_stale_owners(self, images: Collection[str]) -> None:
        """Let go the layers of images and loads that a killed engine did not bring to an end."""
        owned = {layer.chain_id: list(self._layers.owners(layer.chain_id)) for layer in self._layers.layers()}
        for chain, owners in owned.items():
            for owner in owners or [_LOADING]:  # a layer that nobody came to own goes too
                if owner.startswith((_LOADING, "sha256:")) and owner not in images:
                    await self._layers.release(chain, owner)

    def _clear_scratch(self) -> None:
        self._content.prepare()
        if self._scratch.exists():
            shutil.rmtree(self._scratch)

    def _parent(self, image: ImageID) -> Image | None:
        found = self._table.get(image)
        return self._table.get(found.record.parent) if found is not None and found.record.parent else None

    def _has(self, chain: ChainID) -> bool:
        try:
            self._layers.get(chain)
        except NotFound:
            return False
        return True

    def _size_of(self, chain: ChainID) -> int:
        return self._layers.get(chain).size

    def _size(self, image: Image) -> int:
        return sum(self._size_of(chain) for chain in image.chains)

    def _layer_uses(self) -> dict[ChainID, int]:
        uses: dict[ChainID, int] = {}
        for image in self._table:
            for chain in image.chains:
                uses[chain] = uses.get(chain, 0) + 1
        return uses


class _Hold:
    """Layers that were unpacked for images still to be recorded."""

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self._owner = f"{_LOADING}{secrets.token_hex(8)}"
        self._chains: list[ChainID] = []

    async def unpack(self, tar: Path) -> DiffID:
        """Make a base layer of ``tar`` and return its diff id.  Raises Corrupt, TooLarge, Unavailable."""
        try:
            layer = await self._layers.register(tar, None)
        except Corrupt as exc:
            raise Corrupt(UNPACK_FAILED + str(exc).removeprefix(UNPACK_FAILED)) from exc
        await self._keep(layer.chain_id)
        return layer.diff_id

    @traced("images::AddLayer", "number", "diff_id")
    async def add(self, number: int, layer: LayerFile, parent: ChainID | None, diff_id: DiffID) -> ChainID:
        """Make sure that the layer is there, from its file if need be; return its chain.  Raises Corrupt, NotFound."""
        chain = chain_id(parent, diff_id)
        try:
            self._layers.get(chain)
        except NotFound:
            await self._register(number, layer, parent, diff_id)
        await self._keep(chain)
        return chain

    async def release(self) -> None:
        """Let all of them go; those that an image owns by now stay."""
        while self._chains:
            await self._layers.release(self._chains.pop(), self._owner)

    async def _register(self, number: int, layer: LayerFile, parent: ChainID | None, diff_id: DiffID) -> None:
        if layer.file is None:
            raise NotFound(f"open {layer.name}: no such file or directory")
        try:
            await self._layers.register(layer.file.path, parent, diff_id)
        except Corrupt as exc:
            raise Corrupt(f"layer {number} ({layer.name}): {exc}") from exc

    async def _keep(self, chain: ChainID) -> None:
        await self._layers.retain(chain, self._owner)
        self._chains.append(chain)


def image_digest(raw: bytes) -> Digest:
    """The digest of a manifest's bytes."""
    return Digest(image_id(raw))


def _blobs(record: ImageRecord) -> list[Digest]:
    return [Digest(record.id), *([record.manifest] if record.manifest else [])]


def _digests(names: Sequence[Reference], manifest: Digest | None) -> set[Reference]:
    """The repositories of ``names`` with the digest of the manifest."""
    return {Reference(name.domain, name.path, digest=manifest) for name in names} if manifest else set()


def _merged(old: Image | None, new: Image) -> Image:
    """The image that is there, with the manifest that it may have got only now."""
    if old is None:
        return new
    manifest = old.record.manifest or new.record.manifest
    return Image(msgspec.structs.replace(old.record, manifest=manifest), old.raw, old.config)


def _touched(image: Image) -> Image:
    """The image, tagged at this moment."""
    return Image(msgspec.structs.replace(image.record, last_tagged=now()), image.raw, image.config)


def _import_name(repo: str, tag: str) -> Reference | None:
    if not repo:
        return None
    reference = tagged(repo, tag)
    if reference.digest:
        raise InvalidParameter("cannot import digest reference")
    return reference


def _imported_config(made_for: Platform, section: dict[str, Any], comment: str, diff_id: DiffID) -> bytes:
    created = now()
    document: dict[str, Any] = {
        "architecture": made_for.architecture,
        **({"variant": made_for.variant} if made_for.variant else {}),
        "comment": comment,
        "config": section,
        "created": created,
        "history": [{"created": created, "comment": comment}],
        "os": made_for.os,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    return msgspec.json.encode(document)


def _progress(diff_id: DiffID, current: int, total: int) -> Row:
    return {
        "status": "Loading layer",
        "progressDetail": {"current": current, "total": total},
        "id": short(diff_id),
    }
