"""``silo images``, ``load`` and ``image bootstrap``."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from typing import Any, BinaryIO

import click

from silo.cli.common import call, fail, format_option, print_json, table


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Only ids")
@format_option
@click.pass_obj
def images(host: str, quiet: bool, form: str) -> None:  # noqa: FBT001 - click's
    """List images."""
    rows = call(host, lambda engine: engine.images())
    if form == "json":
        print_json(rows)
        return
    if quiet:
        click.echo("".join(f"{_short(row)}\n" for row in rows), nl=False)
        return
    shown = [
        (name, _short(row), f"{row['Size'] / 1e6:.1f}MB") for row in rows for name in row["RepoTags"] or ["<none>"]
    ]
    click.echo(table(("IMAGE", "ID", "SIZE"), shown))


def _short(row: dict[str, Any]) -> str:
    digits: str = row["Id"].removeprefix("sha256:")
    return digits[:12]


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    while data := file.read(1 << 18):
        yield data


def _load(host: str, file: BinaryIO) -> None:
    async def work(engine: Any) -> None:
        from contextlib import aclosing

        async with aclosing(engine.load(_chunks(file))) as steps:
            async for step in steps:
                click.echo(step.get("stream", ""), nl=False)

    call(host, work)


@click.command()
@click.option("-i", "--input", "source", type=click.File("rb"), default="-", help="Archive; standard input without it")
@click.pass_obj
def load(host: str, source: BinaryIO) -> None:
    """Load images from a docker or OCI archive."""
    if source.isatty():
        fail("load reads an archive: redirect one to standard input, or name it with -i")
    _load(host, source)


@click.group()
def image() -> None:
    """Make images."""


@image.command()
@click.argument("name")
@click.pass_obj
def bootstrap(host: str, name: str) -> None:
    """Make a small image NAME from this host's own busybox: no registry is needed."""
    from silo.client.bootstrap import bootstrap_archive
    from silo.errors import SiloError

    with tempfile.TemporaryFile() as file:
        try:
            bootstrap_archive(name, file)
        except SiloError as exc:
            fail(str(exc))
        file.seek(0)
        _load(host, file)
