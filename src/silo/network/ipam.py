"""Which subnet a network gets and which addresses its endpoints get.  Pure: dockerd's rules and its texts."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from silo.errors import Forbidden, InvalidParameter, Unavailable
from silo.schema.network import IPAM, IPAMConfig

Block = ipaddress.IPv4Network
Address = ipaddress.IPv4Address
DEFAULT_POOLS: Final = (
    *((f"172.{number}.0.0/16", 16) for number in range(17, 32)),
    ("192.168.0.0/16", 20),
)
"""dockerd's local default pools: each base, cut into blocks of the given length."""


class InUse(Forbidden):
    """The address that was asked for is somebody's."""


class Pool(msgspec.Struct, frozen=True):
    """A chosen subnet with its gateway."""

    subnet: str
    gateway: str


def default_blocks() -> Iterator[Block]:
    """Every block of the default pools in order."""
    for base, length in DEFAULT_POOLS:
        yield from Block(base).subnets(new_prefix=length)


def ipv4(configs: Iterable[IPAMConfig]) -> list[IPAMConfig]:
    """The IPv4 pools among those asked for; the others have no meaning without IPv6, as with dockerd.

    Raises InvalidParameter with everything that is wrong with them.
    """
    kept, wrong = [], []
    for config in configs:
        try:
            if "/" not in config.subnet:
                raise ValueError(config.subnet)
            block = ipaddress.ip_network(config.subnet, strict=False)
        except ValueError:
            wrong.append(f"invalid subnet {config.subnet}: invalid CIDR block notation")
            continue
        if isinstance(block, Block):
            kept.append(config)
            wrong += _problems(config, block)
    if wrong:
        raise InvalidParameter("\n".join(("invalid network config:", *wrong)))
    return kept


def _problems(config: IPAMConfig, block: Block) -> Iterator[str]:
    if config.subnet != str(block):
        yield f"invalid subnet {config.subnet}: it should be {block}"
    if config.ip_range:
        yield from _range_problems(config.ip_range, block)
    named = [(f"gateway {config.gateway}", config.gateway)] if config.gateway else []
    named += [(f"auxiliary address {name}", address) for name, address in config.auxiliary_addresses.items()]
    for what, text in named:
        why = _address_problem(text, block)
        if why:
            yield f"invalid {what}: {why}"


def _range_problems(text: str, block: Block) -> Iterator[str]:
    try:
        part = ipaddress.ip_network(text, strict=False)
    except ValueError:
        yield f"invalid ip-range {text}: invalid CIDR block notation"
        return
    if not isinstance(part, Block):
        yield f"invalid ip-range {text}: parent subnet is an IPv4 block"
        return
    if part.prefixlen < block.prefixlen:
        yield f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {block}"
    if text != str(part):
        yield f"invalid ip-range {text}: it should be {part}"
    if not block.overlaps(part):
        yield f"invalid ip-range {text}: parent subnet {block} doesn't contain ip-range"


def _address_problem(text: str, block: Block) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return "invalid address"
    if not isinstance(address, Address):
        return "parent subnet is an IPv4 block"
    return "" if address in block else f"parent subnet {block} doesn't contain this address"


def choose(config: IPAMConfig | None, taken: Iterable[str], routed: Iterable[str]) -> Pool:
    """The subnet asked for (one that :func:`ipv4` gave), or the first default block that nobody uses.

    ``taken`` are the engine's own subnets, ``routed`` what the host routes: a subnet that the user names may overlap
    with a route of the host (as with dockerd), never with another network.  Raises Forbidden, InvalidParameter,
    Unavailable.
    """
    own = [Block(text) for text in taken]
    if config is not None:
        block = Block(config.subnet)
        if any(block.overlaps(other) for other in own):
            raise Forbidden("invalid pool request: Pool overlaps with other one on this address space")
        return Pool(str(block), _gateway(config, block))
    foreign = [block for block in (_route(text) for text in routed) if block is not None]
    for block in default_blocks():
        if not any(block.overlaps(other) for other in [*own, *foreign]):
            return Pool(str(block), str(block[1]))
    raise Unavailable("could not find an available, non-overlapping IPv4 address pool among the defaults to assign")


def _route(text: str) -> Block | None:
    """A route's destination; the default route takes nothing away."""
    block = Block(text, strict=False)
    return block if block.prefixlen else None


def _gateway(config: IPAMConfig, block: Block) -> str:
    """The gateway asked for, else the first address of the range or subnet."""
    space = Addresses(IPAMConfig(subnet=str(block), ip_range=config.ip_range))
    try:
        gateway = space.take(config.gateway)
    except Unavailable:
        raise InvalidParameter("failed to allocate gateway (): No available addresses on this pool") from None
    except InUse:
        raise Forbidden(f"failed to allocate gateway ({config.gateway}): Address already in use") from None
    for name, address in config.auxiliary_addresses.items():
        if address in {gateway, *_ends(block)}:
            raise Forbidden(f"failed to allocate secondary ip address ({name}:{address}): Address already in use")
    return gateway


def _ends(block: Block) -> set[str]:
    """The addresses that nobody may have: the network's own and the broadcast one."""
    return {str(block.network_address), str(block.broadcast_address)}


def complete(ipam: IPAM | None, config: IPAMConfig | None, pool: Pool) -> IPAM:
    """What inspect shows: the request with the subnet and gateway that were chosen."""
    given, asked = ipam or IPAM(), config or IPAMConfig()
    chosen = msgspec.structs.replace(asked, subnet=pool.subnet, gateway=pool.gateway)
    return IPAM(driver=given.driver or "default", options=given.options, config=[chosen])


class Addresses:
    """The addresses of one network: which are taken, and the lowest that is free.

    Nothing of this is stored: it is made from the network and its endpoints.  Taking and giving back cost the same
    whatever the number of endpoints.
    """

    def __init__(self, config: IPAMConfig) -> None:
        self.block = Block(config.subnet)
        self._range = Block(config.ip_range, strict=False) if config.ip_range else self.block
        self._first = max(int(self._range.network_address), int(self.block.network_address))
        self._last = min(int(self._range.broadcast_address), int(self.block.broadcast_address))
        fixed = {*_ends(self.block), *filter(None, (config.gateway, *config.auxiliary_addresses.values()))}
        self._taken = {int(Address(text)) for text in fixed}
        self._lowest = self._first
        """No address of the range below this one is free."""

    def take(self, wanted: str = "") -> str:
        """Reserve the wanted address, or the lowest free one of the range.

        Raises InUse, InvalidParameter for an address that is not of this subnet, Unavailable when all are taken.
        """
        number = self._wanted(wanted) if wanted else self._free()
        self._taken.add(number)
        return str(Address(number))

    def _wanted(self, text: str) -> int:
        try:
            address = Address(text)
        except ValueError:
            raise InvalidParameter(f"invalid IPv4 address: {text}") from None
        if address not in self.block:
            raise InvalidParameter(f"no configured subnet or ip-range contain the IP address {text}")
        if int(address) in self._taken:
            raise InUse(f"{text}: Address already in use")
        return int(address)

    def _free(self) -> int:
        number = self._lowest
        while number in self._taken:
            number += 1
        if number > self._last:
            raise Unavailable(f"no available IPv4 addresses on {self._range}")
        self._lowest = number
        return number

    def hold(self, address: str) -> None:
        """The address is somebody's already (an endpoint that was there before the engine)."""
        self._taken.add(int(Address(address)))

    def give_back(self, address: str) -> None:
        """The address is free again."""
        number = int(Address(address))
        self._taken.discard(number)
        if self._first <= number < self._lowest:
            self._lowest = number

    @property
    def prefix(self) -> int:
        """The subnet's prefix length."""
        return self.block.prefixlen
