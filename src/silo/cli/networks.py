"""``silo network``."""

from __future__ import annotations

from typing import Any

import click

from silo.cli.common import call, each, format_option, print_json, table


@click.group()
def network() -> None:
    """Make, list and remove networks."""


@network.command()
@click.option("-d", "--driver", default="bridge", show_default=True)
@click.option("--subnet", help="Addresses, as a.b.c.d/n")
@click.option("--gateway")
@click.option("--internal", is_flag=True, help="Without a way out")
@click.argument("name")
@click.pass_obj
def create(host: str, driver: str, subnet: str | None, gateway: str | None, internal: bool, name: str) -> None:  # noqa: FBT001
    """Make a network."""
    body: dict[str, Any] = {"Name": name, "Driver": driver, "Internal": internal}
    if subnet or gateway:
        body["IPAM"] = {"Config": [{"Subnet": subnet or "", "Gateway": gateway or ""}]}
    click.echo(call(host, lambda engine: engine.create_network(body)))


@network.command("ls")
@format_option
@click.pass_obj
def list_networks(host: str, form: str) -> None:
    """List networks."""
    rows = call(host, lambda engine: engine.networks())
    if form == "json":
        print_json(rows)
    else:
        click.echo(
            table(
                ("NETWORK ID", "NAME", "DRIVER", "SUBNET"),
                [
                    (
                        row["Id"][:12],
                        row["Name"],
                        row["Driver"],
                        ", ".join(one["Subnet"] for one in row["IPAM"]["Config"] or []),
                    )
                    for row in rows
                ],
            )
        )


@network.command("rm")
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def remove(host: str, names: tuple[str, ...]) -> None:
    """Remove networks."""
    each(host, names, lambda engine, name: engine.remove_network(name))
