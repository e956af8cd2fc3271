"""Decisions of HNS, as data: names, addresses, and the rule set of all networks.  Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

from silo.host.results import Code, HostError
from silo.schema.hns import HnsEndpoint, HnsNetwork

MAX_LINK_NAME: Final = 15
TYPES: Final = ("nat", "internal", "private")
"""Network types that exist here; transparent and l2bridge are known and come later."""
KNOWN_TYPES: Final = (*TYPES, "transparent", "l2bridge", "l2tunnel", "overlay", "ics", "mirrored")
"""Every type the API names."""


def bridge_name(instance: str, network_id: str) -> str:
    """The bridge of a network: at most 15 characters, of this engine and this network only."""
    return f"silo{instance[:4]}{network_id.replace('-', '')[:6]}"[:MAX_LINK_NAME]


def port_name(endpoint_id: str) -> str:
    """The host's end of an endpoint's veth pair."""
    return f"veth{endpoint_id.replace('-', '')[:10]}"[:MAX_LINK_NAME]


def nic_alias(endpoint_id: str) -> str:
    """The vNIC's alias as Windows Server 2016 shows it."""
    return f"vEthernet (Container NIC {endpoint_id[:8]})"


def lowest_free(used: Iterable[int]) -> int:
    """The lowest free compartment id; 1 is the host's."""
    taken = set(used)
    number = 2
    while number in taken:
        number += 1
    return number


def mac_for(address: str) -> str:
    """A locally administered MAC address made from the IP address: the same address always has the same one."""
    return "02-42-" + "-".join(f"{part:02X}" for part in ipaddress.IPv4Address(address).packed)


def linux_mac(mac: str) -> str:
    """``AA-BB-..`` as Linux writes it."""
    return mac.replace("-", ":").lower()


def choose_address(network: HnsNetwork, wanted: str, used: Collection[str]) -> tuple[str, int]:
    """An address and its prefix length: the wanted one, or the lowest that is free.  Raises HostError."""
    if not network.Subnets:
        raise HostError(Code.HCN_SUBNET_NOT_FOUND, f"network {network.Name} has no subnet")
    subnet = network.Subnets[0]
    block = ipaddress.IPv4Network(subnet.AddressPrefix)
    if wanted:
        address = ipaddress.IPv4Address(wanted)
        if address not in block:
            raise HostError(Code.HCN_INVALID_IP, f"address {wanted} is not in {block}")
        if wanted in used or wanted == subnet.GatewayAddress:
            raise HostError(Code.HCN_ADDR_INVALID_OR_RESERVED, f"address {wanted} is in use")
        return wanted, block.prefixlen
    for address in block.hosts():
        text = str(address)
        if text != subnet.GatewayAddress and text not in used:
            return text, block.prefixlen
    raise HostError(Code.NO_SYSTEM_RESOURCES, f"no available IPv4 addresses on network {network.Name} ({block})")


def check_type(kind: str) -> str:
    """The network type in lower case.  Raises HostError for what is unknown, or not there yet."""
    lower = kind.lower()
    if lower not in KNOWN_TYPES:
        raise HostError(Code.HCN_INVALID_NETWORK_TYPE, f"network type {kind} is unknown")
    if lower not in TYPES:
        raise HostError(Code.HCN_REQUEST_UNSUPPORTED, f"network type {lower} is not supported on this host yet")
    return lower


def table_name(instance: str) -> str:
    """The one nftables table of this engine."""
    return f"silo-{instance}"


def ruleset(instance: str, networks: Sequence[HnsNetwork]) -> list[dict[str, Any]]:
    """One transaction that makes the table what the networks need, whatever it was before.

    Traffic between networks is dropped, an internal network has no way out, a nat network is masqueraded.
    """
    table = {"family": "ip", "name": table_name(instance)}
    commands: list[dict[str, Any]] = [{"add": {"table": table}}, {"flush": {"table": table}}]
    base = {"family": "ip", "table": table["name"]}
    postrouting = {**base, "name": "postrouting", "type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}
    forward = {**base, "name": "forward", "type": "filter", "hook": "forward", "prio": 0, "policy": "accept"}
    commands += [{"add": {"chain": postrouting}}, {"add": {"chain": forward}}]
    bridges = sorted(network.Bridge for network in networks)
    for network in networks:
        commands += _rules(base, network, bridges)
    return commands


def _rules(base: dict[str, str], network: HnsNetwork, bridges: Sequence[str]) -> list[dict[str, Any]]:
    here, out = _match("iifname", "==", network.Bridge), _match("oifname", "!=", network.Bridge)
    rules = []
    if network.Type == "nat":
        others = [name for name in bridges if name != network.Bridge]
        if others:
            rules.append(("forward", [here, _match("oifname", "==", {"set": others}), {"drop": None}]))
        for subnet in network.Subnets:
            block = ipaddress.IPv4Network(subnet.AddressPrefix)
            source = {"prefix": {"addr": str(block.network_address), "len": block.prefixlen}}
            payload = {"payload": {"protocol": "ip", "field": "saddr"}}
            match = {"match": {"op": "==", "left": payload, "right": source}}
            rules.append(("postrouting", [match, out, {"masquerade": None}]))
    else:
        foreign = _match("iifname", "!=", network.Bridge)
        rules.append(("forward", [here, out, {"drop": None}]))
        rules.append(("forward", [foreign, _match("oifname", "==", network.Bridge), {"drop": None}]))
    return [
        {"add": {"rule": {**base, "chain": chain, "comment": network.Name[:100], "expr": expression}}}
        for chain, expression in rules
    ]


def _match(key: str, op: str, right: Any) -> dict[str, Any]:
    return {"match": {"op": op, "left": {"meta": {"key": key}}, "right": right}}


def no_table(instance: str) -> list[dict[str, Any]]:
    """One transaction after which the table is gone; it need not be there."""
    table = {"family": "ip", "name": table_name(instance)}
    return [{"add": {"table": table}}, {"delete": {"table": table}}]


def order(endpoint_ids: Sequence[str], endpoints: dict[str, HnsEndpoint]) -> list[HnsEndpoint]:
    """The endpoints in the order they were asked for: eth0, eth1 ...  Raises HostError: none is left out silently."""
    missing = [one for one in endpoint_ids if one not in endpoints]
    if missing:
        raise HostError(Code.HCN_ENDPOINT_NOT_FOUND, f"endpoint {missing[0]} does not exist")
    return [endpoints[one] for one in endpoint_ids]
