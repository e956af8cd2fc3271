"""What every command shares: the engine, the output formats, and Docker's texts and exit codes for failures."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Container, Iterable, Sequence
from typing import Any, Final, NoReturn, TypeVar

import click

R = TypeVar("R")

DAEMON_ERROR: Final = 125
"""Docker's exit code when the engine or the client failed, not the container."""
BROKEN_PIPE: Final = 141
"""The shell's code for a program that SIGPIPE ended: whoever read our output has gone."""
INTERRUPTED: Final = 130

format_option = click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print"
)
json_option = click.option(
    "--format", type=click.Choice(["json"]), default="json", expose_value=False, help="Only json"
)


def call(host: str, work: Callable[[Any], Awaitable[R]], *, code: int = 1, prefix: str = "") -> R:
    """Run ``work`` with a client of the engine; an error becomes one line and the exit code."""
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
        click.echo(described(error, prefix), err=True)
        sys.exit(code)
    except* BrokenPipeError:
        # what is buffered cannot be written either: let the flush at exit go nowhere instead of failing
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
    except* KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    raise AssertionError  # every handler above exits


def described(error: BaseException, prefix: str = "") -> str:
    """An error's line: ``prefix`` and docker's words before what the engine said, our name before what failed here."""
    from silo.client.engine import EngineError

    return f"{prefix}Error response from daemon: {error}" if isinstance(error, EngineError) else f"silo: {error}"


def each(
    host: str, names: Sequence[str], verb: Callable[[Any, str], Awaitable[None]], *, forgiven: Container[int] = ()
) -> None:
    """Do ``verb`` to all of ``names`` at once, then print each name or its error, in their order.

    One failure does not keep the others from being done; it makes the exit code 1, unless the engine's status is one of
    ``forgiven``.
    """
    from silo.client.engine import EngineError

    refused: dict[str, EngineError] = {}

    async def work(engine: Any) -> None:
        import anyio

        async def one(name: str) -> None:
            try:
                await verb(engine, name)
            except EngineError as exc:
                refused[name] = exc

        async with anyio.create_task_group() as tasks:
            for name in dict.fromkeys(names):
                tasks.start_soon(one, name)

    call(host, work)
    for name in dict.fromkeys(names):
        click.echo(described(refused[name]) if name in refused else name, err=name in refused)
    if any(exc.status not in forgiven for exc in refused.values()):
        sys.exit(1)


def fail(text: str, code: int = 1) -> NoReturn:
    """One line on stderr, and out."""
    click.echo(f"silo: {text}", err=True)
    sys.exit(code)


def print_json(value: Any) -> None:
    """A value as indented JSON."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns as wide as they need, three blanks between them, like Docker's."""
    return "\n".join(_columns([head, *rows], gap="   "))


def grid(head: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Container[str] = ()) -> str:
    """Columns with a rule below the head, as PowerShell prints tables; those named in ``right`` are right-aligned."""
    rule = ["-" * len(name) for name in head]
    return "\n".join(_columns([head, rule, *rows], gap=" ", right=right))


def _columns(rows: Sequence[Sequence[Any]], *, gap: str, right: Container[str] = ()) -> Iterable[str]:
    cells = [[shown(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    places = [str.rjust if name in right else str.ljust for name in rows[0]]
    for row in cells:
        yield gap.join(place(cell, width) for cell, width, place in zip(row, widths, places, strict=True)).rstrip()


def blocks(rows: Iterable[dict[str, Any]]) -> str:
    """``Name : value`` blocks with a blank line between, as PowerShell prints objects."""
    printed = []
    for row in rows:
        width = max(map(len, row))
        printed.append("\n".join(f"{key.ljust(width)} : {shown(value)}".rstrip() for key, value in row.items()))
    return "\n\n".join(printed)


def shown(value: Any) -> str:
    """A value as PowerShell shows it in a list or table: ``{a, b}`` for arrays, ``@{A=1; B=2}`` for objects."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return "@{" + "; ".join(f"{key}={shown(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "{" + ", ".join(map(shown, value)) + "}"
    return str(value)
