"""An attached run: bytes both ways, signals passed on, the terminal's mode and size."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
import tty as terminal
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Generator
from typing import Any, BinaryIO, Final

import anyio
import anyio.to_thread

from silo.client.engine import EngineClient, exit_code
from silo.errors import SiloError
from silo.httpd.client import ClientResponse
from silo.httpd.hijack import HijackedStream
from silo.wire.stdcopy import FrameReader, Stream

CHUNK: Final = 1 << 16
DETACH_KEYS: Final = b"\x10\x11"
"""ctrl-p, ctrl-q: what the engine looks for when no other keys are asked for."""
FORWARDED: Final = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip


class Session:
    """A container that is about to start, and this process's streams joined to it."""

    def __init__(
        self, engine: EngineClient, container: str, stream: HijackedStream, *, tty: bool, interactive: bool
    ) -> None:
        self._engine = engine
        self._container = container
        self._stream = stream
        self._tty = tty
        self._interactive = interactive
        self._typed = b""
        self._detached = False

    async def run(self, start: Callable[[], Awaitable[None]], answer: ClientResponse) -> int:
        """Start it and stay until it has ended or the user has typed the detach keys; its exit code, or 0.

        ``answer`` is the registered wait.  The terminal is as before whatever happens; signals go to the container from
        before it starts, so none of them can end this process in between.
        """
        with (
            raw(enabled=self._tty and self._interactive and sys.stdin.isatty()),
            anyio.open_signal_receiver(*FORWARDED, signal.SIGWINCH) as received,
        ):
            await start()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._signals, received)
                if self._interactive:
                    tasks.start_soon(self._input)
                await self._output()
                code = 0 if self._detached else await exit_code(answer)
                tasks.cancel_scope.cancel()
        return code

    async def _output(self) -> None:
        reader = FrameReader()
        while data := await self._stream.receive():
            for number, piece in [(Stream.STDOUT, data)] if self._tty else reader.feed(data):
                await write(sys.stderr.buffer if number == Stream.STDERR else sys.stdout.buffer, piece)

    async def _input(self) -> None:
        """Standard input to the container; its end is the container's end of file."""
        async for data in _stdin():
            self._watch(data)
            try:
                await self._stream.send(data)
            except anyio.BrokenResourceError:
                return
        await self._stream.close_write()

    def _watch(self, data: bytes) -> None:
        """The engine acts on the detach keys, and closes; here they tell that end from the container's own."""
        if self._tty:
            self._detached = self._detached or DETACH_KEYS in self._typed + data
            self._typed = (self._typed + data)[1 - len(DETACH_KEYS) :]

    async def _signals(self, received: AsyncIterable[signal.Signals]) -> None:
        """Pass signals on; with a terminal, tell the container its size, now and when it changes."""
        await self._resize()
        async for number in received:
            if number == signal.SIGWINCH:
                await self._resize()
            else:
                with contextlib.suppress(SiloError):  # it has ended meanwhile
                    await self._engine.kill(self._container, number.name)

    async def _resize(self) -> None:
        if self._tty and sys.stdout.isatty():
            size = os.get_terminal_size(sys.stdout.fileno())
            with contextlib.suppress(SiloError):  # it has ended meanwhile, or the terminal has no size
                await self._engine.resize(self._container, size.lines, size.columns)


async def write(out: BinaryIO, data: bytes) -> None:
    """Write and flush in a thread: while nobody reads our output, signals still have to be passed on."""

    def body() -> None:
        out.write(data)
        out.flush()

    await anyio.to_thread.run_sync(body)


async def _stdin() -> AsyncGenerator[bytes]:
    fd = sys.stdin.fileno()
    while True:
        with contextlib.suppress(OSError):  # a plain file is always readable, and epoll refuses it
            await anyio.wait_readable(fd)
        data = await anyio.to_thread.run_sync(os.read, fd, CHUNK)
        if not data:
            return
        yield data


@contextlib.contextmanager
def raw(*, enabled: bool) -> Generator[None]:
    """Standard input's terminal in raw mode, restored whatever happens."""
    if not enabled:
        yield
        return
    fd = sys.stdin.fileno()
    before: list[Any] = termios.tcgetattr(fd)
    try:
        terminal.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
