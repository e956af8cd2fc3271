"""Which subnet a network gets.  Pure: pools, what is taken, and dockerd's texts."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from silo.errors import Forbidden, InvalidParameter, Unavailable
from silo.schema.network import IPAM, IPAMConfig

Block = ipaddress.IPv4Network
DEFAULT_POOLS: Final = (
    *((f"172.{number}.0.0/16", 16) for number in range(17, 32)),
    ("192.168.0.0/16", 20),
)
"""dockerd's local default pools: each base, cut into blocks of the given length."""


class Pool(msgspec.Struct, frozen=True):
    """A chosen subnet with its gateway."""

    subnet: str
    gateway: str


def default_blocks() -> Iterator[Block]:
    """Every block of the default pools in order."""
    for base, length in DEFAULT_POOLS:
        yield from Block(base).subnets(new_prefix=length)


def parse(text: str) -> Block:
    """A subnet.  Raises InvalidParameter with dockerd's text."""
    try:
        return Block(text, strict=False)
    except ValueError:
        raise InvalidParameter(f"invalid subnet {text} : invalid CIDR block notation") from None


def choose(config: IPAMConfig | None, taken: Iterable[str], routed: Iterable[str]) -> Pool:
    """The subnet asked for, or the first default block that nobody uses.

    ``taken`` are the engine's own subnets, ``routed`` what the host routes: a subnet that the user names may overlap
    with a route of the host (as with dockerd), never with another network.  Raises Forbidden, InvalidParameter.
    """
    own = [parse(text) for text in taken]
    if config is not None and config.subnet:
        block = parse(config.subnet)
        if any(block.overlaps(other) for other in own):
            raise Forbidden("invalid pool request: Pool overlaps with other one on this address space")
        return Pool(str(block), _gateway(block, config.gateway))
    if config is not None and (config.gateway or config.ip_range):
        raise InvalidParameter("invalid network config: Subnet is required when a gateway or an ip range is given")
    foreign = [block for block in (_route(text) for text in routed) if block is not None]
    for block in default_blocks():
        if not any(block.overlaps(other) for other in [*own, *foreign]):
            return Pool(str(block), _gateway(block, ""))
    raise Unavailable("could not find an available, non-overlapping IPv4 address pool among the defaults to assign")


def _route(text: str) -> Block | None:
    """A route's destination; the default route takes nothing away."""
    try:
        block = Block(text, strict=False)
    except ValueError:
        return None
    return block if block.prefixlen else None


def _gateway(block: Block, wanted: str) -> str:
    if not wanted:
        return str(next(block.hosts()))
    try:
        gateway = ipaddress.IPv4Address(wanted)
    except ValueError:
        raise InvalidParameter(f"invalid gateway {wanted}: not an IPv4 address") from None
    if gateway not in block:
        raise InvalidParameter(f"no matching subnet for gateway {wanted}")
    return wanted


def complete(ipam: IPAM | None, pool: Pool) -> IPAM:
    """What inspect shows: the request with the subnet and gateway that were chosen."""
    given = ipam or IPAM()
    first = given.config[0] if given.config else IPAMConfig()
    chosen = IPAMConfig(
        subnet=pool.subnet,
        gateway=pool.gateway,
        ip_range=first.ip_range,
        auxiliary_addresses=first.auxiliary_addresses,
    )
    return IPAM(driver=given.driver or "default", options=given.options, config=[chosen])
