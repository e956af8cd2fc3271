"""The entries of an image archive as files of our own, and the stream that is turned into them.

Nothing of the archive becomes a path on the host: each regular entry is written to a numbered file in a directory made
for this one archive, and found again by its name in a table.  A name with ``..`` in it cannot be meant honestly; such
an entry is left out, as is everything that is neither a regular file nor a link to one inside the archive.
"""

from __future__ import annotations

import errno
import hashlib
import posixpath
import shutil
import tempfile
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from silo.errors import Corrupt, NotFound, TooLarge, Unavailable
from silo.images.outertar import Entry, Inflater, TarReader
from silo.resources import Undo, leaf
from silo.telemetry import annotate, effect, span

MAX_ENTRIES: Final = 100_000
MAX_BYTES: Final = 256 << 30
"""Bytes of all entries together, decompressed."""
MAX_DOCUMENT: Final = 8 << 20
"""Bytes of one JSON document."""
MAX_LINKS: Final = 16
BATCH: Final = 1 << 20
"""Bytes of the stream that are handed to a worker thread at once."""

# What dockerd says when its unpacker fails; clients look for these words.
UNPACK_FAILED: Final = "Error processing tar file(exit status 1): "


@dataclass(frozen=True, slots=True)
class Spooled:
    """One regular entry: where its data are, and how many bytes."""

    path: Path
    size: int

    def sha256(self) -> str:
        """The digest of the data in hex.  Reads them; only entries that claim a digest are worth it."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


class Spool:
    """The entries of one archive, in ``folder``.  ``feed`` and ``finish`` block."""

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES, max_entries: int = MAX_ENTRIES) -> None:
        self.folder = folder
        self._max_bytes, self._max_entries = max_bytes, max_entries
        self._inflater, self._reader = Inflater(), TarReader()
        self._files: dict[str, Spooled] = {}
        self._links: dict[str, str] = {}
        self._open: _Writing | None = None
        self._entries = self._bytes = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream.  Raises Corrupt, TooLarge, and Unavailable when there is no room."""
        with _explained():
            for piece in self._inflater.feed(data):
                self._read(piece)

    def finish(self) -> None:
        """The stream has ended.  Raises Corrupt when the archive has not."""
        with _explained():
            self._read(self._inflater.finish())
            self._reader.finish()
            self._close()

    def close(self) -> None:
        """Close the file being written, if any; for an archive that was given up."""
        if self._open is not None:
            self._open.file.close()
            self._open = None

    def counts(self) -> dict[str, int]:
        """How much there was."""
        return {"entries": self._entries, "bytes": self._bytes}

    def find(self, name: str) -> Spooled | None:
        """The regular entry called ``name``, through links inside the archive; None when there is none."""
        at: str | None = _clean(name)
        for _ in range(MAX_LINKS):
            if at is None:
                return None
            if at in self._files:
                return self._files[at]
            at = self._links.get(at)
        return None

    def get(self, name: str) -> Spooled:
        """The same.  Raises NotFound with the text of a file that is not there."""
        found = self.find(name)
        if found is None:
            raise NotFound(f"open {name}: no such file or directory")
        return found

    def document(self, name: str) -> bytes:
        """The bytes of a small entry.  Raises NotFound, TooLarge."""
        found = self.get(name)
        if found.size > MAX_DOCUMENT:
            raise TooLarge(f"{name}: {found.size} bytes are too many for a document, the limit is {MAX_DOCUMENT}")
        return found.path.read_bytes()

    def _read(self, piece: bytes) -> None:
        for event in self._reader.feed(piece):
            if isinstance(event, Entry):
                self._close()
                self._begin(event)
            elif self._open is not None:
                self._open.write(event)

    def _begin(self, entry: Entry) -> None:
        self._entries += 1
        self._bytes += entry.size
        if self._entries > self._max_entries:
            raise TooLarge(f"image archive: more than {self._max_entries} entries")
        if self._bytes > self._max_bytes:
            raise TooLarge(f"image archive: {entry.name}: the entries have more than {self._max_bytes} bytes")
        name = _clean(entry.name)
        if name is None:
            return
        if entry.kind == "file":
            self._forget(name)
            path = self.folder / f"{self._entries}"
            self._open = _Writing(name, path, path.open("xb"))
        elif entry.kind in {"link", "symlink"}:
            base = posixpath.dirname(name) if entry.kind == "symlink" else ""
            target = None if entry.target.startswith("/") else _inside(posixpath.join(base, entry.target))
            if target is not None:
                self._forget(name)
                self._links[name] = target

    def _forget(self, name: str) -> None:
        """A later entry of the same name wins, as it does when an archive is unpacked."""
        self._links.pop(name, None)
        earlier = self._files.pop(name, None)
        if earlier is not None:
            earlier.path.unlink()

    def _close(self) -> None:
        if self._open is not None:
            self._open.file.close()
            self._files[self._open.name] = Spooled(self._open.path, self._open.size)
            self._open = None


class _Writing:
    """The entry whose data are arriving."""

    def __init__(self, name: str, path: Path, file: BinaryIO) -> None:
        self.name, self.path, self.file = name, path, file
        self.size = 0

    def write(self, data: bytes) -> None:
        self.file.write(data)
        self.size += len(data)


@asynccontextmanager
async def private_folder(parent: Path) -> AsyncGenerator[Path]:
    """A directory of one's own below ``parent`` for the block, removed with all that is in it."""
    async with Undo() as undo:
        folder = await leaf(_make_folder, parent)
        undo.push_async_callback(leaf, _remove_folder, folder)
        yield folder


@asynccontextmanager
async def spooled(source: AsyncIterator[bytes], parent: Path) -> AsyncGenerator[Spool]:
    """The archive that ``source`` sends, for the block.  Raises Corrupt, TooLarge, Unavailable."""
    async with private_folder(parent) as folder:
        spool = Spool(folder)
        try:
            with span("images::Spool"):
                async for batch in batches(source):
                    await leaf(spool.feed, batch)
                await leaf(spool.finish)
                annotate(**spool.counts())
        finally:
            spool.close()
        yield spool


async def save(source: AsyncIterator[bytes], path: Path) -> int:
    """Write the tar that ``source`` sends to ``path`` as it comes, compressed or not; return its length.

    Raises Corrupt as soon as it is seen not to be a whole tar, TooLarge, Unavailable.
    """
    total = 0
    check = _Check()
    with path.open("xb") as file:
        async for batch in batches(source):
            total += len(batch)
            if total > MAX_BYTES:
                raise TooLarge(f"image archive: more than {MAX_BYTES} bytes")
            await leaf(_write, file, check, batch)
        await leaf(check.finish)
    return total


class _Check:
    """Reads a tar through and keeps nothing: whoever unpacks it later finds it whole."""

    def __init__(self) -> None:
        self._inflater, self._reader = Inflater(), TarReader()

    def feed(self, data: bytes) -> None:
        with _explained():
            for piece in self._inflater.feed(data):
                deque(self._reader.feed(piece), maxlen=0)

    def finish(self) -> None:
        with _explained():
            deque(self._reader.feed(self._inflater.finish()), maxlen=0)
            self._reader.finish()


async def batches(source: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """``source`` in pieces of at least ``BATCH`` bytes, except the last: few changes of thread."""
    held: list[bytes] = []
    size = 0
    async for data in source:
        held.append(data)
        size += len(data)
        if size >= BATCH:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def _write(file: BinaryIO, check: _Check, data: bytes) -> None:
    check.feed(data)
    with _explained():
        file.write(data)


def _make_folder(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = Path(tempfile.mkdtemp(dir=parent))
    effect("file", "+", folder)
    return folder


def _remove_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    effect("file", "-", folder)


def _clean(name: str) -> str | None:
    """The name without ``./`` and leading slashes; None when it has ``..`` in it or is empty."""
    if ".." in name.split("/"):
        return None
    return posixpath.normpath(name).strip("/") if name.strip("/.") else None


def _inside(path: str) -> str | None:
    """A link's target; None when it leaves the archive."""
    path = posixpath.normpath(path)
    return None if path == ".." or path.startswith("../") else path


@contextmanager
def _explained() -> Generator[None]:
    """Give the reader's errors dockerd's words, and a full disk its own."""
    try:
        yield
    except Corrupt as exc:
        raise Corrupt(UNPACK_FAILED + str(exc)) from exc
    except OSError as exc:
        if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise Unavailable(f"image archive: {exc.strerror}") from exc
        raise
