"""``silo run``: create, attach, wait, start, and the container's exit code, in the docker CLI's order."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
import tty as terminal
from collections.abc import AsyncGenerator, Generator
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
import click

from silo.cli.common import DAEMON_ERROR, call


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.option("-i", "--interactive", is_flag=True, help="Keep standard input open")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal")
@click.option("-d", "--detach", is_flag=True, help="Print the id and leave")
@click.option("--rm", "remove", is_flag=True, help="Remove it when it ends")
@click.option("--name", default="")
@click.option("--network", default="default")
@click.option("-e", "--env", multiple=True)
@click.option("-w", "--workdir", default="")
@click.option("-u", "--user", default="")
@click.option("-v", "--volume", multiple=True, help="source:destination[:ro]")
@click.option("-h", "--hostname", default="")
@click.option("--entrypoint", default=None)
@click.option("-l", "--label", multiple=True)
@click.option("-m", "--memory", default="", help="Bytes, or with a unit such as 512m")
@click.option("--read-only", is_flag=True, help="Mount the root read-only")
@click.option("--privileged", is_flag=True)
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def run(host: str, /, **given: Any) -> None:
    """Run COMMAND in a new container of IMAGE."""
    sys.exit(call(host, lambda engine: _run(engine, given), code=DAEMON_ERROR))


def body_of(given: dict[str, Any]) -> dict[str, Any]:
    """The create request for the options.  Pure."""
    attached = not given["detach"]
    return {
        "Image": given["image"],
        "Cmd": list(given["command"]) or None,
        "Entrypoint": [given["entrypoint"]] if given["entrypoint"] is not None else None,
        "Hostname": given["hostname"],
        "User": given["user"],
        "WorkingDir": given["workdir"],
        "Env": [entry if "=" in entry else f"{entry}={os.environ.get(entry, '')}" for entry in given["env"]],
        "Labels": dict(entry.partition("=")[::2] for entry in given["label"]),
        "Tty": given["tty"],
        "OpenStdin": given["interactive"],
        "StdinOnce": given["interactive"] and attached,
        "AttachStdin": given["interactive"] and attached,
        "AttachStdout": attached,
        "AttachStderr": attached,
        "HostConfig": {
            "NetworkMode": given["network"],
            "AutoRemove": given["remove"],
            "Binds": list(given["volume"]) or None,
            "ReadonlyRootfs": given["read_only"],
            "Privileged": given["privileged"],
            "Memory": memory(given["memory"]),
        },
    }


def memory(text: str) -> int:
    """``512m`` as bytes; nothing is no limit."""
    if not text:
        return 0
    units = {"b": 0, "k": 10, "m": 20, "g": 30}
    number, unit = (text[:-1], text[-1].lower()) if text[-1].isalpha() else (text, "b")
    if unit not in units or not number.isdecimal():
        raise click.BadParameter(f"invalid size: '{text}'", param_hint="--memory")
    return int(number) << units[unit]


async def _run(engine: Any, given: dict[str, Any]) -> int:
    from silo.client.engine import EngineError, exit_code

    container = await engine.create(given["name"], body_of(given))
    condition = "removed" if given["remove"] else "next-exit"
    try:
        if given["detach"]:
            async with engine.waiting(container, condition):
                await engine.start(container)
            click.echo(container)
            return 0
        stream = await engine.attach(container, stdin=given["interactive"])
        async with engine.waiting(container, condition) as answer:
            await _attached(engine, container, given, stream)
            return await exit_code(answer)
    except EngineError as exc:
        click.echo(f"silo: {exc}", err=True)
        return code_for(str(exc))


def code_for(text: str) -> int:
    """127 for a command that is not there, 126 for one that cannot be run, else 125 (the docker CLI's rule)."""
    lower = text.lower()
    if "executable file not found" in lower or "no such file or directory" in lower:
        return 127
    return 126 if "permission denied" in lower or "is a directory" in lower else DAEMON_ERROR


async def _attached(engine: Any, container: str, given: dict[str, Any], stream: Any) -> None:
    """Start, and pump both ways until the container's streams end."""
    try:
        await engine.start(container)
        with _raw(enabled=given["tty"] and sys.stdin.isatty()):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_signals, engine, container, given["tty"])
                if given["interactive"]:
                    tasks.start_soon(_input, stream)
                await _output(stream, tty=given["tty"])
                tasks.cancel_scope.cancel()
    finally:
        await stream.aclose()


async def _output(stream: Any, *, tty: bool) -> None:
    from silo.wire.stdcopy import FrameReader, Stream

    reader = FrameReader()
    while data := await stream.receive():
        for number, piece in [(Stream.STDOUT, data)] if tty else reader.feed(data):
            out = sys.stderr.buffer if number == Stream.STDERR else sys.stdout.buffer
            out.write(piece)
            out.flush()


async def _input(stream: Any) -> None:
    """Standard input to the container; its end is the container's end of file."""
    async for data in _stdin():
        try:
            await stream.send(data)
        except anyio.BrokenResourceError:
            return
    await stream.close_write()


async def _stdin() -> AsyncGenerator[bytes]:
    fd = sys.stdin.fileno()
    while True:
        with contextlib.suppress(OSError, PermissionError):  # a plain file is always readable, and epoll refuses it
            await anyio.wait_readable(fd)
        data = await anyio.to_thread.run_sync(os.read, fd, 1 << 16)
        if not data:
            return
        yield data


async def _signals(engine: Any, container: str, tty: bool) -> None:  # noqa: FBT001 - started as a task
    """Pass signals on; with a terminal, tell the container its size."""
    if tty and sys.stdout.isatty():
        await _resize(engine, container)
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGWINCH) as received:
        async for number in received:
            if number == signal.SIGWINCH:
                if tty and sys.stdout.isatty():
                    await _resize(engine, container)
            else:
                with contextlib.suppress(Exception):
                    await engine.post(f"/containers/{container}/kill", signal=number.name)


async def _resize(engine: Any, container: str) -> None:
    size = os.get_terminal_size(sys.stdout.fileno())
    with contextlib.suppress(Exception):
        await engine.post(f"/containers/{container}/resize", h=size.lines, w=size.columns)


@contextlib.contextmanager
def _raw(*, enabled: bool) -> Generator[None]:
    """The terminal in raw mode, restored whatever happens."""
    if not enabled:
        yield
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        terminal.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
