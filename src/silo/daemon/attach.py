"""``POST /containers/{id}/attach`` and ``resize``: a client's connection joined to the container's streams."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Protocol

import anyio
import msgspec

from silo.daemon.container import Container, Status
from silo.daemon.daemon import Daemon
from silo.daemon.life import AttachSlot
from silo.daemon.logs import LogRequest, check_readable, read_log
from silo.errors import Conflict, InvalidParameter, Unimplemented
from silo.execution.systems import Stdio
from silo.resources import ungrouped
from silo.telemetry import assign, traced
from silo.wire.stdcopy import Stream, frame

DETACH_KEYS: Final = b"\x10\x11"
"""ctrl-p, ctrl-q."""
_NAMED: Final = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


class Duplex(Protocol):
    """The client's side of a hijacked connection."""

    async def receive(self) -> bytes:
        """The next bytes; empty once the client has closed its sending half."""
        ...

    async def send(self, data: bytes) -> None:
        """Raises BrokenResourceError once the client is gone."""
        ...


class AttachRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which streams a client wants, and whether the log comes first."""

    logs: bool = False
    stream: bool = False
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    detach_keys: str = ""


def parse_detach_keys(text: str) -> bytes:
    """``ctrl-p,ctrl-q`` or single characters as the bytes a terminal sends.  Raises InvalidParameter."""
    if not text:
        return DETACH_KEYS
    keys = bytearray()
    for part in text.split(","):
        name = part.removeprefix("ctrl-")
        if len(part) == 1 and part.isascii():
            keys.append(ord(part))
        elif part != name and len(name) == 1 and "a" <= name <= "z":
            keys.append(ord(name) - ord("a") + 1)
        elif part != name and name in _NAMED:
            keys.append(_NAMED[name])
        else:
            raise InvalidParameter(f"Invalid detach keys ({text}) provided")
    return bytes(keys)


class DetachScanner:
    """Finds the detach sequence in typed input, also when it comes in pieces; keys before it go through."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Bytes to pass on, and whether the sequence is complete."""
        out = bytearray()
        for byte in data:
            if byte == self._keys[self._held]:
                self._held += 1
                if self._held == len(self._keys):
                    return bytes(out), True
                continue
            out += self._keys[: self._held]
            self._held = 1 if byte == self._keys[0] else 0
            if not self._held:
                out.append(byte)
        return bytes(out), False


def attach(daemon: Daemon, reference: str, request: AttachRequest) -> Callable[[Duplex], Awaitable[None]]:
    """Register for the streams now; run what is returned with the client's connection.

    On a container that does not run, the streams are those of its next run.  Raises NotFound, Conflict.
    """
    container = daemon.registry.find(reference)
    assign(container.id)
    keys = parse_detach_keys(request.detach_keys)
    if container.state.status == Status.PAUSED:
        raise Conflict(f"container {reference} is paused, unpause the container before attach")
    if container.state.status == Status.RESTARTING:
        raise Conflict(f"container {reference} is restarting, wait until the container is running")
    life = daemon.registry.life(container)
    slot = AttachSlot() if request.stream and not container.running else None
    if slot is not None:
        life.attaching.append(slot)

    async def serve(client: Duplex) -> None:
        try:
            if request.logs:
                check_readable(container)
                async for chunk in _replay(daemon, container, request):
                    await client.send(chunk)
            daemon.tell(container, "attach")
            stdio = await _streams(daemon, container, slot) if request.stream else None
            if stdio is not None:
                await _join(daemon, container, request, client, stdio, keys)
        except Unimplemented as exc:
            text = f"Error attaching: {exc}\n".encode()
            with contextlib.suppress(anyio.BrokenResourceError):
                await client.send(text if container.config.tty else frame(Stream.STDOUT, text))
        except anyio.BrokenResourceError:
            return  # the client is gone; the container does not care
        finally:
            if slot is not None and slot in life.attaching:
                life.attaching.remove(slot)

    return serve


async def _streams(daemon: Daemon, container: Container, slot: AttachSlot | None) -> Stdio | None:
    """The streams of this run, or of the next one; None when there will be none."""
    if slot is not None:
        await slot.ready.wait()
        return slot.stdio
    return await daemon.systems.attach(container.id) if container.running else None


async def _replay(daemon: Daemon, container: Container, request: AttachRequest) -> AsyncIterator[bytes]:
    wanted = LogRequest(stdout=request.stdout, stderr=request.stderr)
    async for chunk in read_log(daemon, container, wanted):
        yield chunk


async def _join(
    daemon: Daemon, container: Container, request: AttachRequest, client: Duplex, stdio: Stdio, keys: bytes
) -> None:
    """Pump both ways until the container's streams end, the client goes, or it types the detach keys."""
    tty = container.config.tty
    wanted = {Stream.STDOUT: request.stdout, Stream.STDERR: request.stderr}

    async def outward() -> None:
        async for number, data in stdio:
            stream = Stream(number)
            if wanted[stream]:
                await client.send(data if tty else frame(stream, data))
        tasks.cancel_scope.cancel()

    async def inward() -> None:
        if await _type(client, stdio if request.stdin else None, DetachScanner(keys) if tty else None):
            daemon.tell(container, "detach")
            tasks.cancel_scope.cancel()

    async with stdio:
        with ungrouped():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(outward)
                tasks.start_soon(inward)


async def _type(client: Duplex, stdio: Stdio | None, scanner: DetachScanner | None) -> bool:
    """Pass on what the client sends until it stops; True when it typed the detach keys."""
    while data := await client.receive():
        detached = False
        if scanner is not None:
            data, detached = scanner.feed(data)
        if data and stdio is not None:
            await stdio.send(data)
        if detached:
            return True
    if stdio is not None:
        await stdio.close_stdin()
    return False


@traced("daemon::ContainerResize", "reference", "height", "width")
async def resize(daemon: Daemon, reference: str, height: int, width: int) -> None:
    """Set the size of the container's terminal in characters.  Raises Conflict when it does not run."""
    container = daemon.registry.find(reference)
    if not container.running:
        raise Conflict(f"container {container.id} is not running")
    await daemon.systems.resize(container.id, height, width)
