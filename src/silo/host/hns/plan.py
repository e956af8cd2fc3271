"""Decisions of HNS, as data: names, addresses, subnets and vNICs.  Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from silo.host.linux.linkspec import Bridge, VirtualNic
from silo.host.results import Code, HostError
from silo.schema.hns import HnsEndpoint, HnsNetwork, Subnet

MAX_LINK_NAME: Final = 15
MAX_ALIAS: Final = 255
TYPES: Final = ("nat", "internal", "private")
"""Network types that exist here; transparent and l2bridge are known and come later."""
KNOWN_TYPES: Final = (*TYPES, "transparent", "l2bridge", "l2tunnel", "overlay", "ics", "mirrored")
"""Every type the API names."""
CHOSEN_FROM: Final = ipaddress.IPv4Network("172.16.0.0/12")
"""Where HNS takes the subnet of a network that comes without one, in blocks of /20 (reference, section 5.4)."""
ANY: Final = "0.0.0.0/0"
_MAC: Final = re.compile(r"[0-9A-F]{2}(-[0-9A-F]{2}){5}")

Block = ipaddress.IPv4Network


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


def bridge_mac(network_id: str) -> str:
    """The MAC address of a network's bridge, as Linux writes it; the same for the network's whole life."""
    digits = network_id.replace("-", "")[:8]
    return "02:43:" + ":".join(digits[start : start + 2] for start in range(0, 8, 2))


def linux_mac(mac: str) -> str:
    """``AA-BB-..`` as Linux writes it."""
    return mac.replace("-", ":").lower()


def check_mac(mac: str) -> str:
    """``mac`` as HNS writes it.  Raises HostError for what is not the address of one card."""
    text = mac.upper().replace(":", "-")
    if not _MAC.fullmatch(text) or int(text[:2], 16) & 1:
        raise HostError(Code.HCN_INVALID_ENDPOINT, f"{mac} is not a MAC address that a network card can have")
    return text


def check_type(kind: str) -> str:
    """The network type in lower case.  Raises HostError for what is unknown, or not there yet."""
    lower = kind.lower()
    if lower not in KNOWN_TYPES:
        raise HostError(Code.HCN_INVALID_NETWORK_TYPE, f"network type {kind} is unknown")
    if lower not in TYPES:
        raise HostError(Code.HCN_REQUEST_UNSUPPORTED, f"network type {lower} is not supported on this host yet")
    return lower


def complete_network(
    wanted: HnsNetwork, identifier: str, instance: str, networks: Collection[HnsNetwork], routed: Iterable[str] = ()
) -> HnsNetwork:
    """The network as it will be: with its id, subnet, gateway and bridge.  Raises HostError.

    ``networks`` are those there are, ``routed`` what the host routes: a chosen subnet overlaps with neither, one that
    is asked for only not with another network's.
    """
    kind = check_type(wanted.Type)
    if len(wanted.Subnets) > 1:
        raise HostError(Code.HCN_INVALID_NETWORK, f"network {wanted.Name}: one subnet, not {len(wanted.Subnets)}")
    taken = [Block(subnet.AddressPrefix) for network in networks for subnet in network.Subnets]
    given = wanted.Subnets[0] if wanted.Subnets else Subnet(ANY)
    if given.AddressPrefix in {"", ANY}:
        subnet = _choose_subnet([*taken, *filter(None, map(_block, routed))])
    else:
        subnet = _check_subnet(wanted.Name, given, taken)
    if kind == "private":
        subnet = Subnet(subnet.AddressPrefix)
    return replace(
        wanted,
        ID=identifier,
        Name=wanted.Name or identifier,
        Type=kind,
        Subnets=(subnet,),
        ManagementIP=subnet.GatewayAddress,
        Bridge=bridge_name(instance, identifier),
    )


def _block(text: str) -> Block | None:
    """A destination; none for the default route, which takes nothing away."""
    block = Block(text, strict=False)
    return block if block.prefixlen else None


def _choose_subnet(taken: Collection[Block]) -> Subnet:
    for block in CHOSEN_FROM.subnets(new_prefix=20):
        if not any(block.overlaps(other) for other in taken):
            return Subnet(str(block), str(block[1]))
    raise HostError(Code.NO_SYSTEM_RESOURCES, f"no free subnet in {CHOSEN_FROM}")


def _check_subnet(name: str, given: Subnet, taken: Collection[Block]) -> Subnet:
    try:
        block = Block(given.AddressPrefix)
    except ValueError as exc:
        raise HostError(Code.HCN_INVALID_NETWORK, f"network {name}: subnet {exc}") from exc
    if any(block.overlaps(other) for other in taken):
        raise HostError(Code.HCN_INVALID_NETWORK, f"network {name}: subnet {block} overlaps with another network's")
    if not given.GatewayAddress:
        raise HostError(Code.HCN_INVALID_NETWORK, f"network {name}: subnet {block} has no gateway")
    if not _inside(given.GatewayAddress, block):
        text = f"network {name}: gateway {given.GatewayAddress} is not in {block}"
        raise HostError(Code.HCN_INVALID_NETWORK, text)
    return given


def _inside(text: str, block: Block) -> bool:
    try:
        return ipaddress.IPv4Address(text) in block
    except ValueError:
        return False


def choose_address(network: HnsNetwork, wanted: str, used: Collection[str]) -> tuple[str, int]:
    """An address and its prefix length: the wanted one, or the lowest that is free.  Raises HostError."""
    if not network.Subnets:
        raise HostError(Code.HCN_SUBNET_NOT_FOUND, f"network {network.Name} has no subnet")
    subnet = network.Subnets[0]
    block = Block(subnet.AddressPrefix)
    if wanted:
        if not _inside(wanted, block):
            raise HostError(Code.HCN_INVALID_IP, f"address {wanted} is not in {block}")
        if wanted in used or wanted == subnet.GatewayAddress:
            raise HostError(Code.HCN_ADDR_INVALID_OR_RESERVED, f"address {wanted} is in use")
        return wanted, block.prefixlen
    for address in block.hosts():
        text = str(address)
        if text != subnet.GatewayAddress and text not in used:
            return text, block.prefixlen
    raise HostError(Code.NO_SYSTEM_RESOURCES, f"no available IPv4 addresses on network {network.Name} ({block})")


def complete_endpoint(wanted: HnsEndpoint, identifier: str, network: HnsNetwork, used: Collection[str]) -> HnsEndpoint:
    """The endpoint as it will be: with its address, MAC address, gateway and port.  Raises HostError."""
    address, prefix = choose_address(network, wanted.IPAddress, used)
    gateway = network.Subnets[0].GatewayAddress if network.Type == "nat" else ""
    return replace(
        wanted,
        ID=identifier,
        VirtualNetwork=network.ID,
        VirtualNetworkName=network.Name,
        IPAddress=address,
        PrefixLength=prefix,
        MacAddress=check_mac(wanted.MacAddress) if wanted.MacAddress else mac_for(address),
        GatewayAddress=wanted.GatewayAddress or gateway,
        Port=port_name(identifier),
        SharedContainers=(),
    )


def order(endpoint_ids: Sequence[str], endpoints: Mapping[str, HnsEndpoint]) -> list[HnsEndpoint]:
    """The endpoints in the order they were asked for: eth0, eth1 ...  Raises HostError: none is left out silently."""
    missing = [one for one in endpoint_ids if one not in endpoints]
    if missing:
        raise HostError(Code.HCN_ENDPOINT_NOT_FOUND, f"endpoint {missing[0]} does not exist")
    return [endpoints[one] for one in endpoint_ids]


def vnic(endpoint: HnsEndpoint, network: HnsNetwork, name: str) -> VirtualNic:
    """The vNIC and port that an endpoint becomes, called ``name`` in its compartment."""
    return VirtualNic(
        name=name,
        port=endpoint.Port,
        bridge=network.Bridge,
        alias=nic_alias(endpoint.ID),
        mac=linux_mac(endpoint.MacAddress),
        address=endpoint.IPAddress,
        prefix=endpoint.PrefixLength,
        gateway=endpoint.GatewayAddress,
    )


def nic_name(taken: Collection[str]) -> str:
    """The first of eth0, eth1 ... that a compartment has no link of."""
    number = 0
    while f"eth{number}" in taken:
        number += 1
    return f"eth{number}"


def switch(network: HnsNetwork) -> Bridge:
    """The bridge that is a network's virtual switch; the host has an address on it unless the network is private."""
    subnet = network.Subnets[0]
    return Bridge(
        name=network.Bridge,
        alias=f"vEthernet ({network.Name})"[:MAX_ALIAS],
        mac=bridge_mac(network.ID),
        address=subnet.GatewayAddress,
        prefix=Block(subnet.AddressPrefix).prefixlen,
    )
