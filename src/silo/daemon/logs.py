"""``GET /containers/{id}/logs``: what conmon wrote as a client gets it, without losing a byte."""

from __future__ import annotations

import re
import struct
import time
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Final
from urllib.parse import quote_plus

import anyio
import msgspec

from silo.daemon import logconfig
from silo.daemon.clock import nanoseconds, rfc3339
from silo.daemon.container import Container, Status
from silo.daemon.daemon import Daemon
from silo.daemon.logfile import BEGINNING, RECORD, LogFiles, Place, Reader, last_lines
from silo.errors import Conflict, InvalidParameter, Unimplemented
from silo.resources import leaf
from silo.telemetry import assign
from silo.wire.stdcopy import Stream

POLL_SECONDS: Final = (0.005, 0.1)
"""How soon a follower looks for more: at once after a line, and ever later, up to the second number, without one."""
_HEADER: Final = struct.Struct(">BxxxL")


class LogRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What of the log is wanted; ``tail`` None is all of it, times are ns since the epoch."""

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    timestamps: bool = False
    details: bool = False
    tail: int | None = None
    since: int = 0
    until: int | None = None


class Renderer:
    """Turns blocks of the file into what a client gets: raw bytes for a terminal, frames otherwise."""

    def __init__(self, request: LogRequest, *, tty: bool, details: bytes = b"") -> None:
        self._request = request
        self._details = details
        self._streams = {
            name: stream
            for name, stream, wanted in (
                (b"stdout", Stream.STDOUT, request.stdout),
                (b"stderr", Stream.STDERR, request.stderr),
            )
            if wanted
        }
        self._tty = tty
        self._plain = not (request.timestamps or request.details or request.since or request.until is not None)
        self._middle: set[bytes] = set()
        self._moment = (b"", 0)
        self._starts: dict[bytes, Place] = {}
        self.finished = False
        """Whether the log has come to ``until``: nothing that is wanted can follow."""

    def start_at(self, starts: dict[bytes, Place]) -> None:
        """Leave out what comes before these places."""
        self._starts = starts

    def wants(self, record: re.Match[bytes]) -> bool:
        """Whether the request asks for this record."""
        if record[2] not in self._streams:
            return False
        request = self._request
        if not request.since and request.until is None:
            return True
        moment = self._nanoseconds(record[1])
        return moment >= request.since and (request.until is None or moment <= request.until)

    def render(self, place: Place, block: bytes) -> bytes:
        """The client's bytes for whole lines that begin at ``place``."""
        if self._starts and place < max(self._starts.values()):
            return b"".join(
                self._one(record)
                for record in RECORD.finditer(block)
                if Place(place.number, place.offset + record.start()) >= self._starts[record[2]] and self.wants(record)
            )
        self._starts = {}
        if self._plain:
            return self._render_plain(block)
        self.finished = self._is_over(block)
        return b"".join(self._one(record) for record in RECORD.finditer(block) if self.wants(record))

    def _render_plain(self, block: bytes) -> bytes:
        """The short way: nothing to decide but the stream."""
        streams = self._streams
        found = [
            (streams[stream], data if tag == b"P" else data + b"\n")
            for _, stream, tag, data in RECORD.findall(block)
            if stream in streams
        ]
        if self._tty:
            return b"".join([data for _, data in found])
        pack = _HEADER.pack
        return b"".join([pack(stream, len(data)) + data for stream, data in found])

    def _one(self, record: re.Match[bytes]) -> bytes:
        stamp, name, tag, data = record.groups()
        partial = tag == b"P"
        if not partial:
            data += b"\n"
        if name not in self._middle:  # a line in pieces has one head
            data = self._head(stamp) + data
        if partial:
            self._middle.add(name)
        else:
            self._middle.discard(name)
        return data if self._tty else _HEADER.pack(self._streams[name], len(data)) + data

    def _head(self, stamp: bytes) -> bytes:
        head = rfc3339(self._nanoseconds(stamp)).encode() + b" " if self._request.timestamps else b""
        return head + self._details + b" " if self._request.details else head

    def _nanoseconds(self, stamp: bytes) -> int:
        """A record's time; conmon gives all lines of one read the same."""
        if self._moment[0] != stamp:
            self._moment = stamp, nanoseconds(stamp.decode("ascii", "replace"))
        return self._moment[1]

    def _is_over(self, block: bytes) -> bool:
        if self._request.until is None:
            return False
        last = RECORD.search(block, block.rfind(b"\n", 0, -1) + 1)
        return last is not None and self._nanoseconds(last[1]) > self._request.until


def check_readable(container: Container) -> None:
    """Raises Unimplemented when the log driver keeps nothing that could be read."""
    if not logconfig.readable(container.host_config.log_config):
        raise Unimplemented("configured logging driver does not support reading")


def logs(daemon: Daemon, reference: str, request: LogRequest) -> AsyncIterator[bytes]:
    """The log as a stream of the client's bytes.

    Raises NotFound, InvalidParameter, Conflict of a container that is being removed, Unimplemented at once.
    """
    if not (request.stdout or request.stderr):
        raise InvalidParameter("Bad parameters: you must choose at least one stream")
    container = daemon.registry.find(reference)
    assign(container.id)
    if container.state.status in {Status.REMOVING, Status.DEAD}:
        raise Conflict("can not get logs from container which is dead or marked for removal")
    check_readable(container)
    details = details_of(logconfig.attributes(container, daemon.facts.name)) if request.details else b""
    return read_log(daemon, container, request, details)


def details_of(attributes: dict[str, str]) -> bytes:
    """Attributes in one word, as ``docker logs --details`` shows them."""
    return ",".join(f"{quote_plus(key)}={quote_plus(attributes[key])}" for key in sorted(attributes)).encode()


async def read_log(
    daemon: Daemon, container: Container, request: LogRequest, details: bytes = b""
) -> AsyncIterator[bytes]:
    """What is in the files; with ``follow`` also what comes until the container's run ends."""
    renderer = Renderer(request, tty=container.config.tty, details=details)
    files = LogFiles(daemon.log_path(container.id))
    start = BEGINNING
    if request.tail is not None:
        start, starts = await leaf(last_lines, files, request.tail, renderer.wants)
        renderer.start_at(starts)
    elif request.since:
        start = await leaf(files.since, request.since)
    end = None if request.follow else await leaf(files.end)  # a container that writes without end has no other

    def block(reader: Reader) -> tuple[bytes, bytes]:
        place, lines = reader.read()
        if end is not None and place >= end:
            return b"", b""
        return lines, renderer.render(place, lines)

    life = daemon.registry.life(container)
    run = life.runs_ended
    pause = POLL_SECONDS[0]
    with closing(Reader(files, start)) as reader:
        while True:
            # asked before reading: what ends now has written all it will
            live = request.follow and container.running and life.runs_ended == run
            if not live or reader.grown():
                lines, chunk = await leaf(block, reader)
                if chunk:
                    yield chunk
                if renderer.finished:
                    return
                if lines:
                    pause = POLL_SECONDS[0]
                    continue
            if not live or (request.until is not None and time.time_ns() > request.until):
                return
            await anyio.sleep(pause)
            pause = min(2 * pause, POLL_SECONDS[1])
