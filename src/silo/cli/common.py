"""What every command shares: the engine, the output format, and Docker's exit code for failures."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import click

R = TypeVar("R")

DAEMON_ERROR: Final = 125
"""Docker's exit code when the engine or the client failed, not the container."""

format_option = click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print"
)


def call(host: str, work: Callable[[Any], Awaitable[R]], *, code: int = 1) -> R:
    """Run ``work`` with a client of the engine; an error becomes one line and the exit code ``code``."""
    import anyio

    from silo.client.engine import EngineClient
    from silo.errors import SiloError

    async def body() -> R:
        return await work(EngineClient(host))

    try:
        return anyio.run(body)
    except* SiloError as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        fail(str(error), code)
    except* KeyboardInterrupt:
        sys.exit(130)
    raise AssertionError  # fail does not return


def fail(text: str, code: int = 1) -> None:
    """One line on stderr, and out."""
    click.echo(f"silo: {text}", err=True)
    sys.exit(code)


def print_json(value: Any) -> None:
    """A value as indented JSON."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns as wide as they need, two blanks between them, like Docker's."""
    lines = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def blocks(rows: Iterable[dict[str, Any]]) -> str:
    """``Name : value`` blocks with a blank line between, as PowerShell prints objects."""
    shown = []
    for row in rows:
        width = max(map(len, row))
        shown.append("\n".join(f"{key.ljust(width)} : {value}" for key, value in row.items()))
    return "\n\n".join(shown)
