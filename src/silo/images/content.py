"""Blobs by digest: ``<data-root>/content/sha256/<hex>``.

A blob appears under its name whole or not at all: it is written beside it and renamed.  Nothing is synced to the disk:
what is lost by a power failure is found by its digest when the engine starts.  Which blobs are wanted is not stored
here: it follows from the images.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from silo.errors import Corrupt, NotFound
from silo.ids import HEX64, Digest
from silo.telemetry import effect

_PREFIX: Final = "sha256:"
_PARTIAL: Final = re.compile(r"\.partial-.*")


class ContentStore:
    """The blobs below one directory.  Its methods block; call them in a leaf."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "content" / "sha256"

    def prepare(self) -> None:
        """Make the directory."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def put(self, data: bytes, expected: Digest | None = None) -> Digest:
        """Keep ``data`` and return its digest.  Raises Corrupt when that is not ``expected``."""
        digest = Digest(_PREFIX + hashlib.sha256(data).hexdigest())
        if expected not in {None, digest}:
            raise Corrupt(f"content {expected}: the data's digest is {digest}")
        path = self._path(digest)
        if path.exists() and path.read_bytes() == data:  # what a power failure damaged is written again
            return digest
        descriptor, name = tempfile.mkstemp(prefix=".partial-", dir=self.folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            Path(name).rename(path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(name).unlink()
            raise
        effect("file", "+", path)
        return digest

    def read(self, digest: Digest) -> bytes:
        """The blob.  Raises NotFound, and Corrupt when it is no longer what its name says."""
        try:
            data = self._path(digest).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"content {digest}: not found") from None
        if _PREFIX + hashlib.sha256(data).hexdigest() != digest:
            raise Corrupt(f"content {digest}: the file's digest is another one")
        return data

    def delete(self, digest: Digest) -> None:
        """Remove the blob; nothing happens when it is not there."""
        path = self._path(digest)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
            effect("file", "-", path)

    def digests(self) -> Iterator[Digest]:
        """Every blob there is."""
        for path in self.folder.iterdir():
            if HEX64.fullmatch(path.name):
                yield Digest(_PREFIX + path.name)

    def sweep(self, wanted: Collection[Digest]) -> None:
        """Remove what a killed engine left half written, and every blob that is not ``wanted``."""
        for path in list(self.folder.iterdir()):
            if _PARTIAL.fullmatch(path.name):
                path.unlink()
        for digest in list(self.digests()):
            if digest not in wanted:
                self.delete(digest)

    def _path(self, digest: Digest) -> Path:
        value = digest.removeprefix(_PREFIX)
        if not HEX64.fullmatch(value):
            raise NotFound(f"content {digest}: not found")
        return self.folder / value
