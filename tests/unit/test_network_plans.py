"""Decisions of the network strip: names, addresses, rules, pools, files.  No kernel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.host.hns import plan, rules
from silo.host.results import Code, HostError
from silo.network.resolvconf import hosts_text, resolv_text
from silo.schema.hns import HnsNetwork, Subnet

NETWORK = HnsNetwork(ID="n", Name="n", Subnets=(Subnet("10.0.0.0/29", "10.0.0.1"),), Bridge="silobr")


@given(st.uuids(), st.from_regex("[0-9a-f]{8}", fullmatch=True))
def test_names_of_links_fit(guid, instance):
    assert len(plan.bridge_name(instance, str(guid))) <= 15
    assert len(plan.port_name(str(guid))) <= 15


@given(st.sets(st.integers(2, 50)))
def test_the_lowest_compartment_id_that_is_free(used):
    number = plan.lowest_free(used)
    assert number >= 2
    assert number not in used
    assert set(range(2, number)) <= used


def test_addresses_are_the_lowest_free_and_run_out():
    used: set[str] = set()
    for wanted in ("10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"):
        address, prefix = plan.choose_address(NETWORK, "", used)
        assert (address, prefix) == (wanted, 29)
        used.add(address)
    with pytest.raises(HostError, match="no available IPv4 addresses"):
        plan.choose_address(NETWORK, "", used)
    used.remove("10.0.0.4")
    assert plan.choose_address(NETWORK, "", used)[0] == "10.0.0.4"


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ("10.1.0.2", Code.HCN_INVALID_IP),
        ("10.0.0.1", Code.HCN_ADDR_INVALID_OR_RESERVED),
        ("10.0.0.9", Code.HCN_INVALID_IP),
    ],
)
def test_addresses_that_cannot_be(wanted, code):
    with pytest.raises(HostError) as failure:
        plan.choose_address(NETWORK, wanted, set())
    assert failure.value.code == code


def test_network_types():
    assert plan.check_type("NAT") == "nat"
    with pytest.raises(HostError) as failure:
        plan.check_type("transparent")
    assert failure.value.code == Code.HCN_REQUEST_UNSUPPORTED
    with pytest.raises(HostError) as failure:
        plan.check_type("nope")
    assert failure.value.code == Code.HCN_INVALID_NETWORK_TYPE


def test_the_rule_set_is_one_transaction_that_starts_from_nothing():
    inner = HnsNetwork(ID="i", Name="i", Type="internal", Subnets=(Subnet("10.1.0.0/24", "10.1.0.1"),), Bridge="silobi")
    commands = rules.ruleset("abcd1234", [NETWORK, inner])
    table = {"table": {"family": "ip", "name": "silo-abcd1234"}}
    assert commands[:3] == [{"add": table}, {"delete": table}, {"add": table}]
    made = [thing for command in commands[3:] for thing in command["add"].values()]
    assert {thing["table"] for thing in made} == {"silo-abcd1234"}
    assert elements(commands) == {
        "bridges": ["silobr", "silobi"],
        "within": [{"concat": ["silobr", "silobr"]}, {"concat": ["silobi", "silobi"]}],
        "closed": ["silobi"],
        "sources": [{"prefix": {"addr": "10.0.0.0", "len": 29}}],
    }


def test_a_network_more_is_a_few_elements_more_and_they_go_again():
    added, removed = rules.add_network("abcd1234", NETWORK), rules.remove_network("abcd1234", NETWORK)
    assert [next(iter(command)) for command in added] == ["add"] * 3
    assert [command["delete"] for command in removed] == [command["add"] for command in added]
    assert rules.described("abcd1234", NETWORK) == [
        "ip silo-abcd1234 bridges silobr",
        "ip silo-abcd1234 sources 10.0.0.0/29",
    ]


def elements(commands):
    found: dict[str, list] = {}
    for command in commands:
        if "element" in command.get("add", {}):
            element = command["add"]["element"]
            found.setdefault(element["name"], []).extend(element["elem"])
    return found


def test_hosts():
    text = hosts_text("box", "example.org", ["10.0.0.2"], ["db:10.0.0.9", "up:host-gateway"], "10.0.0.1")
    assert "127.0.0.1\tlocalhost\n" in text
    assert "10.0.0.9\tdb\n10.0.0.1\tup\n10.0.0.2\tbox.example.org box\n" in text


@pytest.mark.parametrize(
    ("host", "options", "text"),
    [
        ("nameserver 10.0.0.53\nsearch a b\n", {}, "nameserver 10.0.0.53\nsearch a b\n"),
        ("nameserver 127.0.0.53\n", {}, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"),
        (
            "# x\nnameserver 10.0.0.53\noptions edns0\n",
            {"nameservers": ["9.9.9.9"]},
            "nameserver 9.9.9.9\noptions edns0\n",
        ),
        ("search a\n", {"search": ["."]}, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"),
    ],
)
def test_resolv_conf(host, options, text):
    assert resolv_text(host, **options) == text
