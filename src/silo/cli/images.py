"""``silo images``, ``load`` and ``image bootstrap``."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from typing import Any, BinaryIO

import click

from silo.cli.common import call, format_option, print_json, table


@click.command()
@format_option
@click.pass_obj
def images(host: str, form: str) -> None:
    """List images."""
    rows = call(host, lambda engine: engine.get("/images/json"))
    if form == "json":
        print_json(rows)
        return
    shown = [
        (name, row["Id"].removeprefix("sha256:")[:12], f"{row['Size'] / 1e6:.1f}MB")
        for row in rows
        for name in row["RepoTags"] or ["<none>"]
    ]
    click.echo(table(("IMAGE", "ID", "SIZE"), shown))


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    while data := file.read(1 << 18):
        yield data


def _load(host: str, file: BinaryIO) -> None:
    async def work(engine: Any) -> None:
        async for step in engine.load(_chunks(file)):
            click.echo(step.get("stream", ""), nl=False)

    call(host, work)


@click.command()
@click.option("-i", "--input", "source", type=click.File("rb"), default="-", help="Archive; standard input without it")
@click.pass_obj
def load(host: str, source: BinaryIO) -> None:
    """Load images from a docker or OCI archive."""
    _load(host, source)


@click.group()
def image() -> None:
    """Make images."""


@image.command()
@click.argument("name")
@click.pass_obj
def bootstrap(host: str, name: str) -> None:
    """Make a small image NAME from this host's own busybox: no registry is needed."""
    from silo.cli.common import fail
    from silo.client.bootstrap import bootstrap_archive
    from silo.errors import SiloError

    with tempfile.TemporaryFile() as file:
        try:
            bootstrap_archive(name, file)
        except SiloError as exc:
            fail(str(exc))
        file.seek(0)
        _load(host, file)
