r"""A container's log on disk: the file that conmon writes, and those before it.

A line is ``<RFC 3339 time> stdout|stderr F|P <bytes>\n``; ``P`` marks a piece whose line goes on (or a last line
without a newline), so the newline behind it is the format's, not the container's.  ``container.log`` is the present
file, ``container.log.<number>`` (``.gz`` when compressed) are earlier ones; numbers only grow, so a reader knows where
to go on.  A file gets its number as a second name before conmon is told to begin another: it is never without one.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from isal import igzip

from silo.errors import Deadline

BLOCK: Final = 256 << 10
SEARCH: Final = 4 << 20
"""How far back from the last lines wanted the beginning of one that came in pieces is looked for, in bytes."""
RECORD: Final = re.compile(rb"(\d[^ \n]*) (stdout|stderr) ([FP]) ([^\n]*)\n")


class Place(msgspec.Struct, frozen=True, order=True):
    """Where a record begins: in which file, at which byte of its text."""

    number: int
    offset: int


BEGINNING: Final = Place(0, 0)


class LogFiles:
    """The files of one log, by number.  Its functions block."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def earlier(self) -> dict[int, Path]:
        """The finished files, oldest first; one that is being compressed counts as not compressed."""
        found: dict[int, Path] = {}
        prefix = self.path.name + "."
        for name in sorted(os.listdir(self.path.parent)):  # noqa: PTH208 - names are all that is wanted
            number = name.removeprefix(prefix).removesuffix(".gz")
            if name.startswith(prefix) and number.isdecimal():
                found.setdefault(int(number), self.path.parent / name)
        return dict(sorted(found.items()))

    def open(self, least: int) -> tuple[int, BinaryIO] | None:
        """The oldest file whose number is at least ``least``, else the present one; None when there is no log."""
        while True:
            try:
                present = self.path.open("rb")
            except FileNotFoundError:
                return None
            try:
                found = self._choose(present, least)
            except FileNotFoundError:  # rotated or deleted just now
                present.close()
                continue
            if found[1] is not present:
                present.close()
            return found

    def _choose(self, present: BinaryIO, least: int) -> tuple[int, BinaryIO]:
        last = 0
        for number, path in self.earlier().items():
            if os.path.samestat(os.fstat(present.fileno()), path.stat()):
                break  # it has its number, and conmon has not begun another yet
            if number >= least:
                return number, _plain(path)
            last = number
        if not os.path.samestat(os.fstat(present.fileno()), self.path.stat()):
            raise FileNotFoundError
        return last + 1, present

    def since(self, moment: int) -> Place:
        """A place with everything of ``moment`` (ns since the epoch) and later behind it."""
        for number, path in self.earlier().items():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime_ns >= moment:
                    return Place(number, 0)
        found = self.open(1 << 62)
        if found is None:
            return BEGINNING
        found[1].close()
        return Place(found[0], 0)

    def end(self) -> Place:
        """The present end."""
        found = self.open(1 << 62)
        if found is None:
            return BEGINNING
        with found[1] as file:
            return Place(found[0], file.seek(0, os.SEEK_END))

    def is_present(self, file: BinaryIO) -> bool:
        """Whether more may come into ``file``."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    def wait_begun(self, inode: int, seconds: float) -> None:
        """Return when the present file is not the one with ``inode`` any more.  Raises Deadline."""
        deadline = time.monotonic() + seconds
        while self.path.stat().st_ino == inode:
            if time.monotonic() > deadline:
                raise Deadline(f"no new log file in place of {self.path} in {seconds} s")
            time.sleep(0.001)

    def retire(self) -> int:
        """Give the present file its number, unless it has one; return its inode."""
        present = self.path.stat()
        last = 0
        for number, path in self.earlier().items():
            if os.path.samestat(present, path.stat()):
                return present.st_ino
            last = number
        os.link(self.path, self._numbered(last + 1))
        return present.st_ino

    def tidy(self, keep: int, *, compress: bool) -> None:
        """Delete all but the newest ``keep`` files, the present one counted, and compress the earlier ones."""
        earlier = [*self.earlier().items()]
        kept = max(0, len(earlier) - (keep - 1))
        for number, path in earlier[:kept]:
            path.unlink(missing_ok=True)
            self._numbered(number, ".gz").unlink(missing_ok=True)
        for _, path in earlier[kept:] if compress else []:
            if path.suffix != ".gz":
                _compress(path)

    def settle(self) -> None:
        """Take back a rotation that was begun when the log's writer ended, and end a torn last line.

        A killed conmon or a full disk tears lines, and the next one must begin a line.
        """
        try:
            with self.path.open("r+b") as file:
                for path in self.earlier().values():
                    if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                        path.unlink()
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":
                        file.write(b"\n")
        except FileNotFoundError:
            return

    def _numbered(self, number: int, suffix: str = "") -> Path:
        return self.path.with_name(f"{self.path.name}.{number}{suffix}")


def _compress(path: Path) -> None:
    """Put ``path`` into ``path``.gz, with its time; a crash leaves either or both, and no half of one."""
    done = path.with_name(f"{path.name}.gz")
    half = path.with_name(f"{path.name}.gz.half")
    with path.open("rb") as file, igzip.open(half, "wb", compresslevel=1) as packed:  # type: ignore[no-untyped-call]
        shutil.copyfileobj(file, packed, BLOCK)
    times = path.stat()
    os.utime(half, ns=(times.st_atime_ns, times.st_mtime_ns))
    half.rename(done)
    path.unlink()


def _plain(path: Path) -> BinaryIO:
    """A file's text; a compressed one is unpacked into a file without a name."""
    file = path.open("rb")
    if path.suffix != ".gz":
        return file
    with file, igzip.IGzipFile(fileobj=file, mode="rb") as packed:  # type: ignore[no-untyped-call]
        text: BinaryIO = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - the reader closes it
        shutil.copyfileobj(packed, text, BLOCK)
    text.seek(0)
    return text


class Reader:
    """Reads a log from a place on, across files, as it grows.  To be closed."""

    def __init__(self, files: LogFiles, start: Place = BEGINNING) -> None:
        self._files = files
        self._start = start
        self._file: BinaryIO | None = None
        self._number = 0
        self._rest = b""
        self._offset = 0

    def close(self) -> None:
        """Release the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self) -> tuple[Place, bytes]:
        """Whole lines of the next block, and where they begin; nothing at the present end.  Blocks."""
        if self._file is None and not self._open(self._start.number, self._start):
            return self._start, b""
        while True:
            more = self._files.is_present(self._file) if self._file else False  # asked before reading
            if lines := self._block():
                return lines
            if more or not self._open(self._number + 1):
                return Place(self._number, self._offset), b""

    def grown(self) -> bool:
        """Whether :meth:`read` may find something; cheap enough to be asked often, does not block."""
        if self._file is None:
            return self._files.path.exists()
        return os.fstat(self._file.fileno()).st_size > self._file.tell() or not self._files.is_present(self._file)

    def _open(self, least: int, start: Place = BEGINNING) -> bool:
        found = self._files.open(least)
        if found is None:
            return False
        self.close()
        number, self._file = found
        self._offset = start.offset if number == start.number else 0
        self._number = max(number, self._number + 1)  # with max-file=1 numbers begin anew, places must not
        self._rest = b""
        self._file.seek(self._offset)
        return True

    def _block(self) -> tuple[Place, bytes] | None:
        assert self._file is not None
        while data := self._file.read(BLOCK):
            data = self._rest + data
            end = data.rfind(b"\n") + 1
            self._rest = data[end:]
            if end:
                place = Place(self._number, self._offset)
                self._offset += end
                return place, data[:end]
        return None


def backwards(files: LogFiles) -> Iterator[tuple[Place, re.Match[bytes] | None]]:
    """The log's records from the last to the first, each with its place.

    The first item has no record: it is the place behind the last whole line.
    """
    number = 1 << 62  # beyond all: the present file
    first = True
    while True:
        found = files.open(number)
        if found is None:
            return
        if first:
            number = found[0]
        elif found[0] != number:  # deleted meanwhile, and what is older as well
            found[1].close()
            return
        with found[1] as file:
            for offset, line in _lines_backwards(file):
                place = Place(number, offset)
                if first:
                    first = False
                    yield Place(number, offset + len(line)), None
                if record := RECORD.fullmatch(line):
                    yield place, record
            if first:
                first = False
                yield Place(number, 0), None
        older = [one for one in files.earlier() if one < number]
        if not older:
            return
        number = older[-1]


def _lines_backwards(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Whole lines with their offsets, the last one first; bytes behind the last newline are no line."""
    start = file.seek(0, os.SEEK_END)
    later = b""  # the end of a line whose beginning is further back
    trimmed = False
    while start > 0:
        end, start = start, max(0, start - BLOCK)
        file.seek(start)
        data = file.read(end - start) + later
        if not trimmed:
            data = data[: data.rfind(b"\n") + 1]
            trimmed = bool(data)
        head = data.find(b"\n") + 1 if start else 0
        later = data[:head]
        at = start + len(data)
        for line in reversed(data[head:].split(b"\n")[:-1]):
            at -= len(line) + 1
            yield at, line + b"\n"


def last_lines(
    files: LogFiles, count: int, wanted: Callable[[re.Match[bytes]], bool]
) -> tuple[Place, dict[bytes, Place]]:
    """Where the last ``count`` wanted lines begin: of all streams, and of each, by its name.

    A line in pieces counts once.  Reads from the end, as far as it must.
    """
    begun: dict[bytes, Place] = {}
    unsettled: set[bytes] = set()
    end = BEGINNING
    lines = 0
    searched = 0
    for place, record in backwards(files):
        if record is None:
            end = place
            if not count:
                break
            continue
        if lines == count:
            searched += len(record[0])
        if not wanted(record):
            continue
        stream = record[2]
        if record[3] == b"P" and stream in unsettled:
            begun[stream] = place
            continue
        unsettled.discard(stream)
        if lines < count:
            lines += 1
            begun[stream] = place
            unsettled.add(stream)
        if lines == count and (not unsettled or searched > SEARCH):
            break
    starts = {stream: begun.get(stream, end) for stream in (b"stdout", b"stderr")}
    return min(starts.values()), starts
