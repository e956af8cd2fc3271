"""What no other engine shows: traces, compartments, interfaces, routes, layers, compute systems, HNS objects."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from silo.cli.common import blocks, call, format_option, grid, json_option, print_json, table

COMPUTE_LOG: Final = "Microsoft-Windows-Hyper-V-Compute-Operational"
INTERFACE_COLUMNS: Final = (
    "ifIndex", "InterfaceAlias", "AddressFamily", "NlMtu", "InterfaceMetric", "Dhcp", "ConnectionState", "PolicyStore",
)  # fmt: skip
HEADS: Final = {"NlMtu": "NlMtu(Bytes)"}
"""Where a cmdlet's column has another name than the property."""
NUMBERS: Final = {"NlMtu(Bytes)", "InterfaceMetric", "RouteMetric", "Id"}
"""The columns that the cmdlets align to the right."""
ROUTE_COLUMNS: Final = ("ifIndex", "DestinationPrefix", "NextHop", "RouteMetric", "ifMetric", "PolicyStore")
EVENT_COLUMNS: Final = ("TimeCreated", "Id", "LevelDisplayName", "Message")


def _show_table(rows: Sequence[dict[str, Any]], columns: Sequence[str], form: str) -> None:
    if form == "json":
        print_json(rows)
    else:
        click.echo(table(columns, [[row.get(column, "") for column in columns] for row in rows]))


def _show_grid(rows: Sequence[dict[str, Any]], columns: Sequence[str], form: str) -> None:
    if form == "json":
        print_json(rows)
    elif rows:
        cells = [[row.get(column, "") for column in columns] for row in rows]
        heads = [HEADS.get(column, column) for column in columns]
        click.echo(f"\n{grid(heads, cells, right=NUMBERS)}\n")


def _show_blocks(rows: Sequence[dict[str, Any]], form: str) -> None:
    if form == "json":
        print_json(rows)
    elif rows:
        click.echo(f"\n{blocks(rows)}\n")


@click.command()
@click.option("--format", "form", type=click.Choice(["tree", "json"]), default="tree", show_default=True)
@click.argument("container")
@click.pass_obj
def trace(host: str, form: str, container: str) -> None:
    """Show what happened to CONTAINER, call by call, with every kernel object made and removed."""
    document = call(host, lambda engine: engine.traces(container))
    if form == "json":
        print_json(document)
        return
    from silo.cli.trace import lines

    if not sys.stdout.isatty():
        click.echo("\n".join(lines(document, colour=False)))
        return
    for line in lines(document, colour=True, columns=shutil.get_terminal_size().columns):
        click.echo(line, color=True)


@click.command()
@format_option
@click.pass_obj
def compartments(host: str, form: str) -> None:
    """Show network compartments, as Get-NetCompartment does."""
    _show_blocks(call(host, lambda engine: engine.compartments()), form)


@click.command()
@click.option("--all-compartments", is_flag=True, help="Not only the host's")
@click.option("--compartment", type=int, help="Only this one")
@click.option("--family", type=click.Choice(["ipv4", "ipv6"]))
@format_option
@click.pass_obj
def interfaces(host: str, all_compartments: bool, compartment: int | None, family: str | None, form: str) -> None:  # noqa: FBT001
    """Show interfaces, as Get-NetIPInterface does."""
    wanted = compartment or (None if all_compartments else 1)
    rows = call(host, lambda engine: engine.interfaces(wanted))
    rows = [row for row in rows if family is None or row["AddressFamily"].lower() == family]
    _show_grid(rows, (*INTERFACE_COLUMNS, "CompartmentId") if wanted is None else INTERFACE_COLUMNS, form)


@click.command()
@click.option("--compartment", type=int, default=1, show_default=True)
@format_option
@click.pass_obj
def routes(host: str, compartment: int, form: str) -> None:
    """Show the routes of a compartment, as Get-NetRoute does."""
    rows = call(host, lambda engine: engine.routes(compartment))
    _show_grid(rows, ROUTE_COLUMNS, form)


@click.command()
@click.option("--log", "channel", default=COMPUTE_LOG, show_default=True)
@format_option
@click.pass_obj
def eventlog(host: str, channel: str, form: str) -> None:
    """Show the event log, newest first, as Get-WinEvent does."""
    rows = call(host, lambda engine: engine.event_log(channel))[::-1]
    if not rows and form != "json":
        click.echo("No events were found that match the specified selection criteria.", err=True)
        sys.exit(1)
    if form != "json":
        click.echo(f"\n   ProviderName: {rows[0]['ProviderName']}")
    _show_grid(rows, EVENT_COLUMNS, form)


@click.command()
@format_option
@click.pass_obj
def layers(host: str, form: str) -> None:
    """Show every layer with its directory."""
    _show_table(call(host, lambda engine: engine.layers()), ("Kind", "Id", "Size", "Dir"), form)


@click.command()
@format_option
@click.argument("name")
@click.pass_obj
def layerchain(host: str, form: str, name: str) -> None:
    """Show layerchain.json of a container or image: the parents' directories, nearest first."""
    shown = call(host, lambda engine: engine.layerchain(name))
    if form == "json":
        print_json(shown)
    else:
        click.echo("\n".join([shown["dir"], *(f"  └─ {parent}" for parent in shown["chain"])]))


@click.group()
def hcs() -> None:
    """Show the Host Compute Service's systems."""


@hcs.command("list")
@format_option
@click.pass_obj
def list_systems(host: str, form: str) -> None:
    """Every compute system."""
    rows = call(host, lambda engine: engine.systems())
    _show_table(rows, ("Id", "State", "SystemType", "Owner", "ProcessId", "Runtime"), form)


@hcs.command("inspect")
@json_option
@click.argument("name")
@click.pass_obj
def inspect_system(host: str, name: str) -> None:
    """One compute system with its create document, as JSON."""
    print_json(call(host, lambda engine: engine.system(name)))


@click.group()
def hns() -> None:
    """Show the Host Network Service's objects."""


@hns.command()
@format_option
@click.pass_obj
def networks(host: str, form: str) -> None:
    """Every HNS network."""
    _show_blocks(call(host, lambda engine: engine.hns("networks")), form)


@hns.command()
@format_option
@click.pass_obj
def endpoints(host: str, form: str) -> None:
    """Every HNS endpoint."""
    _show_blocks(call(host, lambda engine: engine.hns("endpoints")), form)
