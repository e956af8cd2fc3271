"""The ``silo`` command: a group of small commands, each in the file of its subject, imported when it is called."""

from __future__ import annotations

import importlib
import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

import click

from silo import __version__

COMMANDS: Final = {
    "run": "silo.cli.run",
    "ps": "silo.cli.containers",
    "logs": "silo.cli.containers",
    "stop": "silo.cli.containers",
    "kill": "silo.cli.containers",
    "rm": "silo.cli.containers",
    "inspect": "silo.cli.containers",
    "images": "silo.cli.images",
    "load": "silo.cli.images",
    "image": "silo.cli.images",
    "network": "silo.cli.networks",
    "trace": "silo.cli.introspect",
    "compartments": "silo.cli.introspect",
    "interfaces": "silo.cli.introspect",
    "routes": "silo.cli.introspect",
    "eventlog": "silo.cli.introspect",
    "layers": "silo.cli.introspect",
    "layerchain": "silo.cli.introspect",
    "hcs": "silo.cli.introspect",
    "hns": "silo.cli.introspect",
    "version": "silo.cli.containers",
}


class WrongOption(click.UsageError):
    """An option that is not known or cannot be read: the docker CLI exits with 125."""

    exit_code = 125


class WrongArguments(click.UsageError):
    """Too many arguments, too few, or an unknown command: the docker CLI exits with 1."""

    exit_code = 1


@contextmanager
def _docker_codes() -> Generator[None]:
    try:
        yield
    except (WrongOption, WrongArguments):
        raise
    except click.UsageError as exc:
        option = isinstance(exc, click.NoSuchOption | click.BadOptionUsage | click.BadParameter)
        kind = WrongOption if option and not isinstance(exc, click.MissingParameter) else WrongArguments
        raise kind(exc.format_message(), exc.ctx) from exc


class LazyGroup(click.Group):
    """Imports the module of a command when the command is wanted: ``silo --help`` alone should not cost 100 ms."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The options before the command."""
        with _docker_codes():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """The command with its own options."""
        with _docker_codes():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Every command by name."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """One command."""
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: Any = getattr(importlib.import_module(module), cmd_name.replace("-", "_"))
        return command if isinstance(command, click.Command) else None


def default_host() -> str:
    """``SILO_HOST``, then ``DOCKER_HOST``, then silod's own default."""
    return os.environ.get("SILO_HOST") or os.environ.get("DOCKER_HOST") or "unix:///run/silo/silo.sock"


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-H", "--host", default=default_host, show_default="$SILO_HOST, $DOCKER_HOST or silod's", help="Engine")
@click.version_option(__version__, "-v", "--version", message="Silo version %(version)s")
@click.pass_context
def main(ctx: click.Context, host: str) -> None:
    """Containers that show what happened.  Talks to silod, or to any engine with the Docker Engine API."""
    ctx.obj = host
