"""``silo ps``, ``logs``, ``stop``, ``kill``, ``rm``, ``inspect`` and ``version``."""

from __future__ import annotations

import sys
import time
from typing import Any, Final

import click

from silo.cli.common import call, each, format_option, json_option, print_json, table

PS_COLUMNS: Final = ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES")
COMMAND_WIDTH: Final = 20
NOT_FOUND: Final = 404


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that do not run")
@click.option("-q", "--quiet", is_flag=True, help="Only ids")
@format_option
@click.pass_obj
def ps(host: str, everything: bool, quiet: bool, form: str) -> None:  # noqa: FBT001 - click's
    """List containers."""
    rows = call(host, lambda engine: engine.containers(everything=everything))
    if form == "json":
        print_json(rows)
    elif quiet:
        click.echo("".join(f"{row['Id'][:12]}\n" for row in rows), nl=False)
    else:
        click.echo(table(PS_COLUMNS, [_listed(row, time.time()) for row in rows]))


def _listed(row: dict[str, Any], now: float) -> tuple[str, ...]:
    command = row["Command"]
    short = command if len(command) <= COMMAND_WIDTH else command[: COMMAND_WIDTH - 1] + "…"
    names = ",".join(name.lstrip("/") for name in row["Names"])
    ports = ", ".join(sorted(map(_port, row["Ports"])))
    return row["Id"][:12], row["Image"], f'"{short}"', f"{ago(now - row['Created'])} ago", row["Status"], ports, names


def _port(port: dict[str, Any]) -> str:
    inside = f"{port['PrivatePort']}/{port['Type']}"
    return f"{port.get('IP', '')}:{port['PublicPort']}->{inside}" if port.get("PublicPort") else inside


def ago(seconds: float) -> str:
    """A length of time in docker's words: ``4 seconds``, ``About an hour``, ``3 weeks``."""
    whole = max(0, int(seconds))
    minutes, hours = whole // 60, int(whole / 3600 + 0.5)
    if whole < 60:
        return "Less than a second" if whole < 1 else "1 second" if whole == 1 else f"{whole} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    for unit, size, limit in (("hours", 1, 48), ("days", 24, 24 * 14), ("weeks", 24 * 7, 24 * 60)):
        if hours < limit:
            return "About an hour" if hours == 1 else f"{hours // size} {unit}"
    return f"{hours // (24 * 30)} months" if hours < 24 * 365 * 2 else f"{hours // (24 * 365)} years"


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on while the container runs")
@click.option("-t", "--timestamps", is_flag=True)
@click.option("-n", "--tail", default="all", show_default=True, help="Lines from the end")
@click.argument("container")
@click.pass_obj
def logs(host: str, follow: bool, timestamps: bool, tail: str, container: str) -> None:  # noqa: FBT001
    """Show a container's output."""

    async def work(engine: Any) -> None:
        from contextlib import aclosing

        from silo.cli.session import write
        from silo.wire.stdcopy import FrameReader, Stream

        tty = (await engine.inspect(container))["Config"]["Tty"]
        reader = FrameReader()
        wanted = {"stdout": 1, "stderr": 1, "follow": follow, "timestamps": timestamps, "tail": tail}
        async with aclosing(engine.logs(container, **wanted)) as chunks:
            async for chunk in chunks:
                for stream, data in [(Stream.STDOUT, chunk)] if tty else reader.feed(chunk):
                    await write(sys.stderr.buffer if stream == Stream.STDERR else sys.stdout.buffer, data)

    call(host, work)


@click.command()
@click.option("-t", "--time", "--timeout", "seconds", type=int, help="Seconds before it is killed")
@click.argument("containers", nargs=-1, required=True)
@click.pass_obj
def stop(host: str, seconds: int | None, containers: tuple[str, ...]) -> None:
    """Stop containers."""
    each(host, containers, lambda engine, one: engine.stop(one, seconds))


@click.command()
@click.option("-s", "--signal", default="KILL", show_default=True)
@click.argument("containers", nargs=-1, required=True)
@click.pass_obj
def kill(host: str, signal: str, containers: tuple[str, ...]) -> None:
    """Send a signal to containers."""
    each(host, containers, lambda engine, one: engine.kill(one, signal))


@click.command()
@click.option("-f", "--force", is_flag=True, help="Also those that run; what is not there is no failure")
@click.option("-v", "--volumes", is_flag=True, help="With their anonymous volumes")
@click.argument("containers", nargs=-1, required=True)
@click.pass_obj
def rm(host: str, force: bool, volumes: bool, containers: tuple[str, ...]) -> None:  # noqa: FBT001
    """Remove containers."""
    forgiven = {NOT_FOUND} if force else set[int]()
    each(host, containers, lambda engine, one: engine.remove(one, force=force, volumes=volumes), forgiven=forgiven)


@click.command()
@json_option
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def inspect(host: str, names: tuple[str, ...]) -> None:
    """Show everything about containers, images or networks, as JSON."""
    unknown = []

    async def work(engine: Any) -> list[Any]:
        found = []
        for name in names:
            thing = await _inspected(engine, name)
            if thing is None:
                unknown.append(name)
            else:
                found.append(thing)
        return found

    print_json(call(host, work))
    for name in unknown:
        click.echo(f"Error: No such object: {name}", err=True)
    if unknown:
        sys.exit(1)


async def _inspected(engine: Any, name: str) -> Any:
    """A container, else an image, else a network of that name; None when there is none."""
    from silo.client.engine import EngineError

    for path in ("/containers/{}/json", "/images/{}/json", "/networks/{}"):
        try:
            return await engine.get(path.format(name))
        except EngineError as exc:
            if exc.status != NOT_FOUND:
                raise
    return None


@click.command()
@format_option
@click.pass_obj
def version(host: str, form: str) -> None:
    """Show the engine's version."""
    shown = call(host, lambda engine: engine.version())
    if form == "json":
        print_json(shown)
    else:
        click.echo(
            f"{shown['Platform']['Name']} {shown['Version']}, API {shown['MinAPIVersion']} to {shown['ApiVersion']}"
        )
