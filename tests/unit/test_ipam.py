"""Pools and addresses: dockerd's rules, and the allocator against a simple model of it."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from silo.errors import Forbidden, InvalidParameter, Unavailable
from silo.network import ipam
from silo.schema.network import IPAM, IPAMConfig


def config(subnet, ip_range="", gateway="", **aux):
    return IPAMConfig(subnet=subnet, ip_range=ip_range, gateway=gateway, auxiliary_addresses=aux)


@given(st.lists(st.sampled_from([str(block) for block in ipam.default_blocks()]), unique=True, max_size=25))
def test_a_default_pool_overlaps_with_nothing(taken):
    pool = ipam.choose(None, taken, ["0.0.0.0/0", "172.20.0.0/14"])
    block = ipaddress.ip_network(pool.subnet)
    assert not any(block.overlaps(ipaddress.ip_network(other)) for other in [*taken, "172.20.0.0/14"])
    assert ipaddress.ip_address(pool.gateway) in block


def test_default_pools_come_in_dockers_order():
    taken: list[str] = []
    for _ in range(18):
        taken.append(ipam.choose(None, taken, []).subnet)
    assert taken[0] == "172.17.0.0/16"
    assert taken[14:] == ["172.31.0.0/16", "192.168.0.0/20", "192.168.16.0/20", "192.168.32.0/20"]
    every = [str(block) for block in ipam.default_blocks()]
    with pytest.raises(Unavailable, match="could not find an available, non-overlapping IPv4 address pool"):
        ipam.choose(None, every, [])


def test_the_hosts_routes_take_default_pools_away_but_not_asked_for_ones():
    assert ipam.choose(None, [], ["172.17.0.5/32"]).subnet == "172.18.0.0/16"
    assert ipam.choose(config("172.17.0.0/16"), [], ["172.17.0.0/24"]).subnet == "172.17.0.0/16"


# what dockerd 20.10 gives for these (checked against one), with the gateway that it takes
@pytest.mark.parametrize(
    ("asked", "gateway", "first"),
    [
        (config("10.200.3.0/24"), "10.200.3.1", "10.200.3.2"),
        (config("10.200.3.0/24", "10.200.3.128/25"), "10.200.3.128", "10.200.3.129"),
        (config("10.200.3.0/24", gateway="10.200.3.254"), "10.200.3.254", "10.200.3.1"),
        (config("10.200.5.0/24", a="10.200.5.2", b="10.200.5.3"), "10.200.5.1", "10.200.5.4"),
        (config("10.200.12.0/30"), "10.200.12.1", "10.200.12.2"),
    ],
)
def test_pools_that_are_asked_for(asked, gateway, first):
    pool = ipam.choose(asked, [], [])
    assert (pool.subnet, pool.gateway) == (asked.subnet, gateway)
    shown = ipam.complete(IPAM(options={"a": "b"}), asked, pool)
    assert (shown.driver, shown.options, shown.config[0].ip_range) == ("default", {"a": "b"}, asked.ip_range)
    assert ipam.Addresses(shown.config[0]).take() == first


@pytest.mark.parametrize(
    ("asked", "kind", "text"),
    [
        (config("10.9.0.0/16"), Forbidden, "Pool overlaps with other one on this address space"),
        (config("10.200.10.0/31"), InvalidParameter, "No available addresses on this pool"),
        (config("10.200.11.0/32"), InvalidParameter, "No available addresses on this pool"),
        (config("10.200.13.0/24", x="10.200.13.1"), Forbidden, "(x:10.200.13.1): Address already in use"),
        (config("10.200.14.0/24", gateway="10.200.14.0"), Forbidden, "(10.200.14.0): Address already in use"),
        (config("10.200.15.0/24", gateway="10.200.15.255"), Forbidden, "(10.200.15.255): Address already in use"),
    ],
)
def test_pools_that_cannot_be(asked, kind, text):
    with pytest.raises(kind) as failure:
        ipam.choose(asked, ["10.9.8.0/24"], [])
    assert text in str(failure.value)


@pytest.mark.parametrize(
    ("asked", "wrong"),
    [
        (config("10.200.0.0"), ["invalid subnet 10.200.0.0: invalid CIDR block notation"]),
        (config(""), ["invalid subnet : invalid CIDR block notation"]),
        (config("10.200.0.5/24"), ["invalid subnet 10.200.0.5/24: it should be 10.200.0.0/24"]),
        (config("10.0.0.0/8", "foobar"), ["invalid ip-range foobar: invalid CIDR block notation"]),
        (config("10.0.0.0/8", "fd00::/64"), ["invalid ip-range fd00::/64: parent subnet is an IPv4 block"]),
        (
            config("10.10.10.0/24", "10.0.0.0/8"),
            ["invalid ip-range 10.0.0.0/8: CIDR block is bigger than its parent subnet 10.10.10.0/24"],
        ),
        (
            config("10.0.0.0/8", "192.168.0.1/24", "192.168.0.1", gw="192.168.0.1"),
            [
                "invalid ip-range 192.168.0.1/24: it should be 192.168.0.0/24",
                "invalid ip-range 192.168.0.1/24: parent subnet 10.0.0.0/8 doesn't contain ip-range",
                "invalid gateway 192.168.0.1: parent subnet 10.0.0.0/8 doesn't contain this address",
                "invalid auxiliary address gw: parent subnet 10.0.0.0/8 doesn't contain this address",
            ],
        ),
        (config("10.0.0.0/8", gateway="1001.1.1.1"), ["invalid gateway 1001.1.1.1: invalid address"]),
        (config("10.0.0.0/8", gateway="fd00::1"), ["invalid gateway fd00::1: parent subnet is an IPv4 block"]),
    ],
)
def test_all_that_is_wrong_is_said_at_once(asked, wrong):
    with pytest.raises(InvalidParameter) as failure:
        ipam.ipv4([config("10.1.0.0/16"), asked])
    assert str(failure.value).split("\n") == ["invalid network config:", *wrong]


def test_pools_of_ipv6_are_left_out():
    assert ipam.ipv4([config("fd00::/64"), config("10.1.0.0/16")]) == [config("10.1.0.0/16")]


def test_addresses_that_are_asked_for():
    space = ipam.Addresses(config("10.0.0.0/29", "10.0.0.4/30", "10.0.0.1"))
    assert space.take("10.0.0.2") == "10.0.0.2", "outside of the range, and inside of the subnet"
    assert [space.take(), space.take(), space.take()] == ["10.0.0.4", "10.0.0.5", "10.0.0.6"]
    with pytest.raises(Unavailable):
        space.take()
    for taken in ("10.0.0.2", "10.0.0.1", "10.0.0.0", "10.0.0.7"):
        with pytest.raises(ipam.InUse, match=f"{taken}: Address already in use"):
            space.take(taken)
    with pytest.raises(InvalidParameter, match="no configured subnet or ip-range contain"):
        space.take("10.0.0.9")
    with pytest.raises(InvalidParameter, match="invalid IPv4 address: abc"):
        space.take("abc")


class AddressesMachine(RuleBasedStateMachine):
    """The allocator beside a set in which the lowest member that is missing is looked for from the start."""

    @initialize(ranged=st.booleans())
    def make(self, ranged):
        self.space = ipam.Addresses(config("10.0.0.0/27", "10.0.0.8/29" if ranged else "", "10.0.0.9"))
        self.block = [str(address) for address in ipaddress.ip_network("10.0.0.0/27").hosts()]
        self.range = [one for one in self.block if not ranged or 8 <= int(one.rpartition(".")[2]) <= 15]
        self.taken = {"10.0.0.9"}

    @rule()
    def take_any(self):
        free = [address for address in self.range if address not in self.taken]
        if not free:
            with pytest.raises(Unavailable):
                self.space.take()
            return
        assert self.space.take() == free[0]
        self.taken.add(free[0])

    @rule(number=st.integers(1, 30))
    def take_one(self, number):
        address = f"10.0.0.{number}"
        if address in self.taken:
            with pytest.raises(ipam.InUse):
                self.space.take(address)
            return
        assert self.space.take(address) == address
        self.taken.add(address)

    @precondition(lambda self: len(self.taken) > 1)
    @rule(data=st.data())
    def give_back(self, data):
        address = data.draw(st.sampled_from(sorted(self.taken - {"10.0.0.9"})))
        self.space.give_back(address)
        self.taken.remove(address)

    @invariant()
    def nothing_reserved_is_given_out(self):
        assert not self.taken & {"10.0.0.0", "10.0.0.31"}


TestAddresses = AddressesMachine.TestCase
