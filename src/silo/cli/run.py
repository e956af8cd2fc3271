"""``silo run``: create, attach, wait, start, and the container's exit code, in the docker CLI's order."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

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
    if given["tty"] and given["interactive"] and not given["detach"] and not sys.stdin.isatty():
        click.echo("the input device is not a TTY", err=True)
        sys.exit(1)
    sys.exit(call(host, lambda engine: _run(engine, given), code=DAEMON_ERROR, prefix="silo: "))


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
        "Env": list(map(_variable, given["env"])),
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
            "Binds": list(map(_volume, given["volume"])) or None,
            "ReadonlyRootfs": given["read_only"],
            "Privileged": given["privileged"],
            "Memory": memory(given["memory"]),
        },
    }


def _variable(entry: str) -> str:
    """``NAME`` alone is this process's variable; one that is not set here takes the image's away."""
    return f"{entry}={os.environ[entry]}" if "=" not in entry and entry in os.environ else entry


def _volume(entry: str) -> str:
    """A source that begins with a dot is a path from here."""
    source, colon, rest = entry.partition(":")
    return f"{Path(source).absolute()}{colon}{rest}" if source.startswith(".") else entry


def memory(text: str) -> int:
    """``512m`` as bytes; nothing is no limit."""
    if not text:
        return 0
    units = {"b": 0, "k": 10, "m": 20, "g": 30}
    number, unit = (text[:-1], text[-1].lower()) if text[-1].isalpha() else (text, "b")
    if unit not in units or not number.isdecimal():
        raise click.BadParameter(f"invalid size: '{text}'", param_hint="--memory")
    return int(number) << units[unit]


class NotStarted(Exception):
    """The engine refused to start the container that it had made."""


async def _run(engine: Any, given: dict[str, Any]) -> int:
    from silo.client.engine import EngineError

    container = await engine.create(given["name"], body_of(given))

    async def start() -> None:
        try:
            await engine.start(container)
        except EngineError as exc:
            raise NotStarted(str(exc)) from exc

    condition = "removed" if given["remove"] else "next-exit"
    try:
        if given["detach"]:
            async with engine.waiting(container, condition):
                await start()
            click.echo(container)
            return 0
        return await _attached(engine, container, given, start, condition)
    except NotStarted as exc:
        click.echo(f"silo: Error response from daemon: {exc}", err=True)
        return code_for(str(exc))


async def _attached(
    engine: Any, container: str, given: dict[str, Any], start: Callable[[], Awaitable[None]], condition: str
) -> int:
    from silo.cli.session import Session

    stream = await engine.attach(container, stdin=given["interactive"])
    try:
        session = Session(engine, container, stream, tty=given["tty"], interactive=given["interactive"])
        async with engine.waiting(container, condition) as answer:
            return await session.run(start, answer)
    finally:
        await stream.aclose()


def code_for(text: str) -> int:
    """127 for a command that is not there, 126 for one that cannot be run, else 125 (the docker CLI's rule)."""
    lower = text.lower()
    if "executable file not found" in lower or "no such file or directory" in lower:
        return 127
    return 126 if "permission denied" in lower or "is a directory" in lower else DAEMON_ERROR
