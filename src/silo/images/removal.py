"""What ``docker rmi`` takes away: decided here with dockerd's rules and texts, done elsewhere.

A name is removed as long as others remain; with the last one goes the image, unless a container needs it.  An id
removes all names at once when they are of one repository; else that must be forced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from silo.errors import Conflict
from silo.ids import ImageID, short
from silo.images.records import Change, Image, ImageTable
from silo.images.references import Reference, parse_reference

InUse = Callable[[ImageID], Sequence[tuple[str, bool]]]
"""The containers of an image: id, and whether it runs."""


@dataclass(frozen=True, slots=True)
class Removal:
    """The names that go, in order, and the images that go after them."""

    untagged: tuple[Reference, ...]
    images: tuple[Image, ...]

    def change(self) -> Change:
        """The same as one transaction."""
        return Change(
            unname=tuple(str(reference) for reference in self.untagged),
            remove=tuple(image.id for image in self.images),
        )


def plan_removal(table: ImageTable, text: str, *, force: bool, prune: bool, in_use: InUse) -> Removal:
    """What removing ``text`` means.  Raises NotFound, Conflict, InvalidParameter, with dockerd's texts."""
    image = table.resolve(text)
    names = table.names_of(image.id)
    named = _named(table, text, image)
    if named is not None:
        return _by_name(table, text, image, named, force=force, prune=prune, in_use=in_use)
    _check(table, image, in_use, names=[] if _is_single(names) else names, force=force)
    return Removal(tuple(names), _with_parents(table, image, in_use, prune=prune))


def _by_name(
    table: ImageTable,
    text: str,
    image: Image,
    named: Reference,
    *,
    force: bool,
    prune: bool,
    in_use: InUse,
) -> Removal:
    users, names = in_use(image.id), table.names_of(image.id)
    if not force and users and _is_single(names):
        raise Conflict(
            f'conflict: unable to remove repository reference "{text}" (must force) - container '
            f"{short(users[0][0])} is using its referenced image {short(image.id)}"
        )
    gone = [named]
    rest = [name for name in names if name != named]
    if not named.digest and not any(name.tag for name in rest if name.name == named.name):
        # The digests of a repository mean nothing once its last tag has gone.
        gone += [name for name in rest if name.name == named.name]
        rest = [name for name in rest if name.name != named.name]
    if rest:
        return Removal(tuple(gone), ())
    try:
        _check(table, image, in_use, names=[], force=force)
    except Conflict:
        return Removal(tuple(gone), ())  # the name was all that was asked for; the image stays, unnamed
    return Removal(tuple(gone), _with_parents(table, image, in_use, prune=prune))


def _check(table: ImageTable, image: Image, in_use: InUse, *, names: Sequence[Reference], force: bool) -> None:
    """Raises Conflict with the first of dockerd's reasons that holds."""
    if table.children(image.id):
        raise _conflict(image.id, "image has dependent child images", forceable=False)
    users = in_use(image.id)
    for container, running in users:
        if running:
            raise _conflict(image.id, f"image is being used by running container {short(container)}", forceable=False)
    if force:
        return
    if names:
        raise _conflict(image.id, "image is referenced in multiple repositories", forceable=True)
    if users:
        raise _conflict(image.id, f"image is being used by stopped container {short(users[0][0])}", forceable=True)


def _conflict(image: ImageID, reason: str, *, forceable: bool) -> Conflict:
    force = "must be forced" if forceable else "cannot be forced"
    return Conflict(f"conflict: unable to delete {short(image)} ({force}) - {reason}")


def _with_parents(table: ImageTable, image: Image, in_use: InUse, *, prune: bool) -> tuple[Image, ...]:
    """The image and, when ``prune``, those of its local parents that nobody else needs or names."""
    going = [image]
    parent = table.get(image.record.parent) if prune and image.record.parent else None
    while parent is not None:
        others = set(table.children(parent.id)) - {going[-1].id}
        if others or table.names_of(parent.id) or in_use(parent.id):
            break
        going.append(parent)
        parent = table.get(parent.record.parent) if parent.record.parent else None
    return tuple(going)


def _named(table: ImageTable, text: str, image: Image) -> Reference | None:
    """The name that ``text`` is; None when it is (part of) an id."""
    digits = text.removeprefix("sha256:")
    if len(digits) == 64 and image.id.endswith(digits):
        return None
    key = parse_reference(text).key()
    return parse_reference(key) if table.target(key) == image.id else None


def _is_single(names: Sequence[Reference]) -> bool:
    """Whether all names are of one repository, with at most one tag among them."""
    return len({name.name for name in names}) == 1 and sum(bool(name.tag) for name in names) <= 1
