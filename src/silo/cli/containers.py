"""``silo ps``, ``logs``, ``stop``, ``kill``, ``rm``, ``inspect`` and ``version``."""

from __future__ import annotations

import sys
from typing import Any

import click

from silo.cli.common import call, format_option, print_json, table


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that do not run")
@click.option("-q", "--quiet", is_flag=True, help="Only ids")
@format_option
@click.pass_obj
def ps(host: str, everything: bool, quiet: bool, form: str) -> None:  # noqa: FBT001 - click's
    """List containers."""
    rows = call(host, lambda engine: engine.get("/containers/json", all=everything))
    if form == "json":
        print_json(rows)
    elif quiet:
        click.echo("".join(f"{row['Id'][:12]}\n" for row in rows), nl=False)
    else:
        click.echo(
            table(
                ("CONTAINER ID", "IMAGE", "COMMAND", "STATUS", "NAMES"),
                [
                    (row["Id"][:12], row["Image"], _short(row["Command"]), row["Status"], row["Names"][0].lstrip("/"))
                    for row in rows
                ],
            )
        )


def _short(command: str) -> str:
    return f'"{command if len(command) <= 20 else command[:19] + "…"}"'


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on while the container runs")
@click.option("-t", "--timestamps", is_flag=True)
@click.option("-n", "--tail", default="all", show_default=True, help="Lines from the end")
@click.argument("container")
@click.pass_obj
def logs(host: str, follow: bool, timestamps: bool, tail: str, container: str) -> None:  # noqa: FBT001
    """Show a container's output."""

    async def work(engine: Any) -> None:
        from silo.wire.stdcopy import FrameReader, Stream

        tty = (await engine.get(f"/containers/{container}/json"))["Config"]["Tty"]
        reader = FrameReader()
        chunks = engine.logs(container, stdout=1, stderr=1, follow=follow, timestamps=timestamps, tail=tail)
        async for chunk in chunks:
            frames = [(Stream.STDOUT, chunk)] if tty else reader.feed(chunk)
            for stream, data in frames:
                out = sys.stderr.buffer if stream == Stream.STDERR else sys.stdout.buffer
                out.write(data)
                out.flush()

    call(host, work)


def _each(host: str, containers: tuple[str, ...], method: str, path: str, **query: Any) -> None:
    """Do one verb to several containers; print each name as it is done."""

    async def work(engine: Any) -> None:
        for container in containers:
            await getattr(engine, method)(path.format(container), **query)
            click.echo(container)

    call(host, work)


@click.command()
@click.option("-t", "--time", "seconds", type=int, help="Seconds before it is killed")
@click.argument("containers", nargs=-1, required=True)
@click.pass_obj
def stop(host: str, seconds: int | None, containers: tuple[str, ...]) -> None:
    """Stop containers."""
    _each(host, containers, "post", "/containers/{}/stop", t=seconds)


@click.command()
@click.option("-s", "--signal", default="KILL", show_default=True)
@click.argument("containers", nargs=-1, required=True)
@click.pass_obj
def kill(host: str, signal: str, containers: tuple[str, ...]) -> None:
    """Send a signal to containers."""
    _each(host, containers, "post", "/containers/{}/kill", signal=signal)


@click.command()
@click.option("-f", "--force", is_flag=True, help="Also those that run")
@click.option("-v", "--volumes", is_flag=True, help="With their anonymous volumes")
@click.argument("containers", nargs=-1, required=True)
@click.pass_obj
def rm(host: str, force: bool, volumes: bool, containers: tuple[str, ...]) -> None:  # noqa: FBT001
    """Remove containers."""
    _each(host, containers, "delete", "/containers/{}", force=force, v=volumes)


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def inspect(host: str, names: tuple[str, ...]) -> None:
    """Show everything about containers, as JSON."""

    async def work(engine: Any) -> list[Any]:
        return [await engine.get(f"/containers/{name}/json") for name in names]

    print_json(call(host, work))


@click.command()
@format_option
@click.pass_obj
def version(host: str, form: str) -> None:
    """Show the engine's version."""
    shown = call(host, lambda engine: engine.get("/version"))
    if form == "json":
        print_json(shown)
    else:
        click.echo(
            f"{shown['Platform']['Name']} {shown['Version']}, API {shown['MinAPIVersion']} to {shown['ApiVersion']}"
        )
