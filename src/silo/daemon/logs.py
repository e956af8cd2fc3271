r"""``GET /containers/{id}/logs``: reads what conmon wrote, line by line, without losing a byte.

The file is CRI text: ``<RFC 3339 time> stdout|stderr F|P <bytes>\n``; ``P`` marks a piece whose line goes on (or a last
line without a newline), so the newline behind it is the format's, not the container's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import anyio
import msgspec

from silo.daemon.clock import nanoseconds, rfc3339
from silo.daemon.daemon import Daemon
from silo.errors import InvalidParameter, Unimplemented
from silo.ids import ContainerID
from silo.resources import leaf
from silo.telemetry import assign
from silo.wire.stdcopy import Stream, frame

BLOCK: Final = 256 << 10
POLL_SECONDS: Final = 0.02
"""How soon a follower sees a new line."""


class LogRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What of the log is wanted; ``tail`` None is all of it, times are ns since the epoch."""

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    timestamps: bool = False
    tail: int | None = None
    since: int = 0
    until: int | None = None


class Record(msgspec.Struct, frozen=True):
    """One piece of output: ``partial`` when its line goes on behind it."""

    time: str
    stream: Stream
    partial: bool
    data: bytes


def parse_record(line: bytes) -> Record | None:
    """A line of the file without its newline; None when it is not one of conmon's (a torn write)."""
    parts = line.split(b" ", 3)
    if len(parts) != 4 or parts[1] not in {b"stdout", b"stderr"} or parts[2] not in {b"F", b"P"}:
        return None
    stream = Stream.STDOUT if parts[1] == b"stdout" else Stream.STDERR
    return Record(parts[0].decode("ascii", "replace"), stream, parts[2] == b"P", parts[3])


class Renderer:
    """Turns records into what a client gets: raw bytes for a terminal, frames otherwise."""

    def __init__(self, request: LogRequest, *, tty: bool) -> None:
        self._request = request
        self._tty = tty
        self._middle = {Stream.STDOUT: False, Stream.STDERR: False}

    def wants(self, record: Record) -> bool:
        """Whether the request asks for this record."""
        request = self._request
        if not (request.stdout if record.stream == Stream.STDOUT else request.stderr):
            return False
        if not request.since and request.until is None:
            return True
        moment = nanoseconds(record.time)
        return moment >= request.since and (request.until is None or moment <= request.until)

    def render(self, record: Record) -> bytes:
        """The client's bytes for a wanted record."""
        data = record.data if record.partial else record.data + b"\n"
        if self._request.timestamps and not self._middle[record.stream]:
            data = rfc3339(nanoseconds(record.time)).encode() + b" " + data
        self._middle[record.stream] = record.partial
        return data if self._tty else frame(record.stream, data)


class LogFile:
    """Reads a growing file in whole lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""

    def read(self) -> list[bytes]:
        """Whole lines of the next block; empty at the present end."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(BLOCK)
        except FileNotFoundError:
            return []
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if data and not lines:
            return self.read()
        return lines

    def records(self) -> Iterator[Record]:
        """Everything up to the present end."""
        while lines := self.read():
            yield from filter(None, map(parse_record, lines))


def _tail(log: LogFile, renderer: Renderer, count: int) -> list[Record]:
    """The records of the last ``count`` lines that the renderer wants; leaves the file at its end."""
    lines: deque[list[Record]] = deque(maxlen=count or 1)
    open_line: dict[Stream, list[Record]] = {}
    for record in log.records():
        if not renderer.wants(record):
            continue
        line = open_line.get(record.stream)
        if line is None:
            line = []
            lines.append(line)
        line.append(record)
        if record.partial:
            open_line[record.stream] = line
        else:
            open_line.pop(record.stream, None)
    return [record for line in lines for record in line] if count else []


def logs(daemon: Daemon, reference: str, request: LogRequest) -> AsyncIterator[bytes]:
    """The log as a stream of the client's bytes.  Raises NotFound, InvalidParameter, Unimplemented at once."""
    container = daemon.registry.find(reference)
    assign(container.id)
    if not (request.stdout or request.stderr):
        raise InvalidParameter("Bad parameters: you must choose at least one stream")
    if container.host_config.log_config.type == "none":
        raise Unimplemented("configured logging driver does not support reading")
    return read_log(daemon, container.id, request)


async def read_log(daemon: Daemon, container_id: ContainerID, request: LogRequest) -> AsyncIterator[bytes]:
    """What is in the file; with ``follow`` also what comes until the container's run ends."""
    container = daemon.registry.get(container_id)
    if container is None:
        return
    renderer = Renderer(request, tty=container.config.tty)
    log = LogFile(daemon.log_path(container_id))
    if request.tail is not None:
        for record in await leaf(_tail, log, renderer, request.tail):
            yield renderer.render(record)
    while True:
        live = request.follow and container.running  # asked before reading: what ends now has written all it will
        wrote = False
        while lines := await leaf(log.read):
            wrote = True
            chunk = b"".join(
                renderer.render(record) for record in filter(None, map(parse_record, lines)) if renderer.wants(record)
            )
            if chunk:
                yield chunk
        if not live:
            return
        if not wrote:
            await anyio.sleep(POLL_SECONDS)
