"""The engine's one nftables table: four sets of constant rules, an element or two a network.  Pure.

Traffic between networks is dropped, a closed (internal or private) network has no way out or in, a nat network is
masqueraded on its way out.  Because the rules look things up in sets, a packet costs the same whatever the number of
networks, and a network is one element more.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any, Final

from silo.schema.hns import HnsNetwork

FAMILY: Final = "ip"
SETS: Final[dict[str, dict[str, Any]]] = {
    "bridges": {"type": "ifname"},
    "within": {"type": ["ifname", "ifname"]},
    "closed": {"type": "ifname"},
    "sources": {"type": "ipv4_addr", "flags": ["interval"]},
}
"""bridges: every network's; within: each with itself; closed: those without a way out; sources: what is masqueraded."""

Command = dict[str, Any]


def table_name(instance: str) -> str:
    """The one nftables table of this engine."""
    return f"silo-{instance}"


def ruleset(instance: str, networks: Iterable[HnsNetwork]) -> list[Command]:
    """One transaction that makes the table what the networks need, whatever it was before."""
    commands = [*no_table(instance), {"add": {"table": {"family": FAMILY, "name": table_name(instance)}}}]
    base = _base(instance)
    commands += [{"add": {"set": {**base, "name": name, **kind}}} for name, kind in SETS.items()]
    forward = {**base, "name": "forward", "type": "filter", "hook": "forward", "prio": 0, "policy": "accept"}
    postrouting = {**base, "name": "postrouting", "type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}
    commands += [{"add": {"chain": forward}}, {"add": {"chain": postrouting}}]
    commands += [
        {"add": {"rule": {**base, "chain": chain, "expr": expression, "comment": comment}}}
        for chain, comment, expression in _rules()
    ]
    for network in networks:
        commands += add_network(instance, network)
    return commands


def _rules() -> list[tuple[str, str, list[Command]]]:
    both = {"concat": [_meta("iifname"), _meta("oifname")]}
    from_ours, to_ours = _match(_meta("iifname"), "@bridges"), _match(_meta("oifname"), "@bridges")
    source = _match({"payload": {"protocol": "ip", "field": "saddr"}}, "@sources")
    outward = {"match": {"op": "!=", "left": _meta("oifname"), "right": "@bridges"}}
    return [
        ("forward", "within one network", [_match(both, "@within"), {"accept": None}]),
        ("forward", "from one network to another", [from_ours, to_ours, {"drop": None}]),
        ("forward", "out of a closed network", [_match(_meta("iifname"), "@closed"), {"drop": None}]),
        ("forward", "into a closed network", [_match(_meta("oifname"), "@closed"), {"drop": None}]),
        ("postrouting", "out of a nat network", [source, outward, {"masquerade": None}]),
    ]


def add_network(instance: str, network: HnsNetwork) -> list[Command]:
    """One transaction that puts a network into the sets of a table that is there."""
    return [{"add": {"element": element}} for element in _elements(instance, network)]


def remove_network(instance: str, network: HnsNetwork) -> list[Command]:
    """One transaction that takes a network out of the sets."""
    return [{"delete": {"element": element}} for element in _elements(instance, network)]


def _elements(instance: str, network: HnsNetwork) -> list[Command]:
    base, bridge = _base(instance), network.Bridge
    chosen: dict[str, list[Any]] = {"bridges": [bridge], "within": [{"concat": [bridge, bridge]}]}
    if network.Type == "nat":
        chosen["sources"] = [_prefix(subnet.AddressPrefix) for subnet in network.Subnets]
    else:
        chosen["closed"] = [bridge]
    return [{**base, "name": name, "elem": elements} for name, elements in chosen.items()]


def described(instance: str, network: HnsNetwork) -> list[str]:
    """A network's elements in words: family, table, set and element, for the trace."""
    kind = [f"sources {subnet.AddressPrefix}" for subnet in network.Subnets] if network.Type == "nat" else []
    sets = [f"bridges {network.Bridge}", *(kind or [f"closed {network.Bridge}"])]
    return [f"{FAMILY} {table_name(instance)} {one}" for one in sets]


def no_table(instance: str) -> list[Command]:
    """One transaction after which the table is gone; it need not be there."""
    table = {"family": FAMILY, "name": table_name(instance)}
    return [{"add": {"table": table}}, {"delete": {"table": table}}]


def _base(instance: str) -> dict[str, str]:
    return {"family": FAMILY, "table": table_name(instance)}


def _meta(key: str) -> Command:
    return {"meta": {"key": key}}


def _match(left: Command, right: str) -> Command:
    return {"match": {"op": "==", "left": left, "right": right}}


def _prefix(text: str) -> Command:
    block = ipaddress.IPv4Network(text)
    return {"prefix": {"addr": str(block.network_address), "len": block.prefixlen}}
