"""Compressed streams, recognised by their first bytes."""

from __future__ import annotations

import bz2
import lzma
import sys
from typing import Any, BinaryIO, Final, cast

from isal import igzip, igzip_lib

if sys.version_info >= (3, 14):  # pragma: no cover - the standard library's own
    from compression import zstd
else:
    from backports import zstd

MAGIC: Final = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
}
_ISAL: Any = igzip_lib.IsalError  # its type stub has an instance where the class is
FAULTS: Final[tuple[type[Exception], ...]] = (EOFError, OSError, lzma.LZMAError, zstd.ZstdError, _ISAL)
"""What reading a broken stream raises (OSError: bz2 and gzip)."""


def kind(head: bytes) -> str:
    """``gzip``, ``zstd``, ``bzip2``, ``xz`` or, for anything else, ``plain``."""
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), "plain")


def reader(file: BinaryIO, name: str) -> BinaryIO:
    """A stream of the uncompressed bytes; reading raises one of :data:`FAULTS` when they are not whole."""
    opened: Any
    match name:
        case "gzip":
            opened = igzip.IGzipFile(fileobj=file, mode="rb")  # type: ignore[no-untyped-call]
        case "zstd":
            opened = zstd.ZstdFile(file, "rb")
        case "bzip2":
            opened = bz2.BZ2File(file, "rb")
        case "xz":
            opened = lzma.LZMAFile(file, "rb")  # noqa: SIM115 - the caller closes it
        case _:
            opened = file
    return cast("BinaryIO", opened)
