"""The ``silo`` command: a group of small commands, each in the file of its subject, imported when it is called."""

from __future__ import annotations

import importlib
import os
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


class LazyGroup(click.Group):
    """Imports the module of a command when the command is wanted: ``silo --help`` alone should not cost 100 ms."""

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
