"""HNS's documents: what a network and an endpoint become, and what follows from compartments.  No kernel."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from silo.host.hns import plan
from silo.host.hns.state import Compartment, State
from silo.host.results import Code, HostError
from silo.schema import hns
from silo.schema.hns import HnsEndpoint, HnsNetwork, Subnet
from silo.store import Store

pytestmark = pytest.mark.anyio
ID = "0a1b2c3d-0000-4000-8000-000000000000"
OTHER = "eef2649d-bb17-4d53-9937-295a8efe6f2c"


def network(prefix="", gateway="", networks=(), routed=(), **fields):
    subnets = (Subnet(prefix, gateway),) if prefix else ()
    return plan.complete_network(HnsNetwork(Subnets=subnets, **fields), ID, "abcd1234", networks, routed)


NET = network("10.0.0.0/29", "10.0.0.1", Name="net")


def test_a_network_with_a_subnet():
    assert (NET.Type, NET.Bridge, NET.ManagementIP) == ("nat", "siloabcd0a1b2c", "10.0.0.1")
    bridge = plan.switch(NET)
    assert (bridge.name, bridge.alias, bridge.mac) == ("siloabcd0a1b2c", "vEthernet (net)", "02:43:0a:1b:2c:3d")
    assert (bridge.address, bridge.prefix) == ("10.0.0.1", 29)


def test_a_network_without_a_name_or_a_subnet_gets_both():
    first = network()
    assert first.Name == ID
    assert first.Subnets == (Subnet("172.16.0.0/20", "172.16.0.1"),)
    assert network("0.0.0.0/0", networks=[first]).Subnets[0].AddressPrefix == "172.16.16.0/20"
    routed = ["172.16.16.0/22", "0.0.0.0/0"]
    assert network(networks=[first], routed=routed).Subnets[0].AddressPrefix == "172.16.32.0/20"
    with pytest.raises(HostError) as failure:
        network(routed=["172.16.0.0/12"])
    assert failure.value.code == Code.NO_SYSTEM_RESOURCES


def test_the_host_has_no_address_on_a_private_network():
    private = network("10.3.0.0/24", "10.3.0.1", Type="Private")
    assert private.Type == "private"
    assert plan.switch(private).address == ""


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"prefix": "10.0.0.4/29", "gateway": "10.0.0.1"}, Code.HCN_INVALID_NETWORK),
        ({"prefix": "nonsense", "gateway": "10.0.0.1"}, Code.HCN_INVALID_NETWORK),
        ({"prefix": "10.1.0.0/24"}, Code.HCN_INVALID_NETWORK),
        ({"prefix": "10.1.0.0/24", "gateway": "10.2.0.1"}, Code.HCN_INVALID_NETWORK),
        ({"prefix": "10.1.0.0/24", "gateway": "x"}, Code.HCN_INVALID_NETWORK),
        ({"prefix": "10.0.0.0/8", "gateway": "10.2.0.1", "networks": [NET]}, Code.HCN_INVALID_NETWORK),
        ({"Type": "l2bridge"}, Code.HCN_REQUEST_UNSUPPORTED),
        ({"Type": "transparent"}, Code.HCN_REQUEST_UNSUPPORTED),
        ({"Type": "nonsense"}, Code.HCN_INVALID_NETWORK_TYPE),
    ],
)
def test_networks_that_are_refused(fields, code):
    with pytest.raises(HostError) as failure:
        network(**fields)
    assert failure.value.code == code


def test_an_endpoint():
    endpoint = plan.complete_endpoint(HnsEndpoint(VirtualNetwork=ID.upper()), OTHER, NET, {"10.0.0.2"})
    assert (endpoint.IPAddress, endpoint.PrefixLength, endpoint.GatewayAddress) == ("10.0.0.3", 29, "10.0.0.1")
    assert (endpoint.VirtualNetwork, endpoint.VirtualNetworkName) == (ID, "net")
    assert endpoint.MacAddress == "02-42-0A-00-00-03"
    nic = plan.vnic(endpoint, NET, "eth0")
    assert (nic.port, nic.bridge, nic.alias) == ("vetheef2649dbb", NET.Bridge, "vEthernet (Container NIC eef2649d)")
    assert (nic.mac, nic.address, nic.gateway) == ("02:42:0a:00:00:03", "10.0.0.3", "10.0.0.1")


def test_an_endpoint_of_an_internal_network_has_no_gateway():
    inner = network("10.4.0.0/24", "10.4.0.1", Type="internal")
    assert plan.complete_endpoint(HnsEndpoint(), OTHER, inner, ()).GatewayAddress == ""


@pytest.mark.parametrize("mac", ["01-00-5E-00-00-01", "FF-FF-FF-FF-FF-FF", "02-42", "zz"])
def test_mac_addresses_that_no_card_has(mac):
    with pytest.raises(HostError) as failure:
        plan.complete_endpoint(HnsEndpoint(MacAddress=mac), OTHER, NET, ())
    assert failure.value.code == Code.HCN_INVALID_ENDPOINT


def test_nics_are_in_the_order_asked_for_and_none_is_left_out():
    one, two = HnsEndpoint(ID="a"), HnsEndpoint(ID="b")
    assert plan.order(["b", "a"], {"a": one, "b": two}) == [two, one]
    with pytest.raises(HostError) as failure:
        plan.order(["a", "c"], {"a": one, "b": two})
    assert failure.value.code == Code.HCN_ENDPOINT_NOT_FOUND
    assert plan.nic_name({"lo", "eth0", "eth2"}) == "eth1"


@pytest.fixture
async def state(tmp_path):
    with Store(tmp_path / "host.db") as store:
        made = State(store)
        made.networks[NET.ID] = NET
        await made.write_network(NET)
        for number, identifier in enumerate(("a", "b"), 2):
            endpoint = HnsEndpoint(ID=identifier, VirtualNetwork=ID, IPAddress=f"10.0.0.{number}")
            made.hold_endpoint(endpoint)
            await made.write_endpoint(endpoint)
        yield made


def shown(state, identifier):
    endpoint = state.shown(state.endpoint(identifier))
    return endpoint.State, endpoint.SharedContainers


async def test_an_endpoints_state_follows_from_the_compartments(state):
    assert shown(state, "a") == (hns.STATE_CREATED, ())
    box = Compartment(2, "guid", "box", ("a",))
    state.hold_compartment(box)
    assert shown(state, "A") == (hns.STATE_ATTACHED, ("box",))
    assert state.compartment_with("a") == box
    assert state.compartment_with("b") is None
    state.hold_compartment(replace(box, sharers=("guest",)))
    assert shown(state, "a") == (hns.STATE_ATTACHED_SHARING, ("box", "guest"))
    assert state.shared_by("guest").container_id == "box"
    state.hold_compartment(replace(box, endpoints=("b",)))
    assert shown(state, "a") == (hns.STATE_DETACHED, ())
    assert shown(state, "b") == (hns.STATE_ATTACHED, ("box",))
    state.drop_compartment("box")
    assert shown(state, "b") == (hns.STATE_DETACHED, ())


async def test_documents_are_read_again(state, tmp_path):
    await state.write_compartment(Compartment(2, "guid", "box", ("a",)))
    await state.forget_endpoint(state.endpoint("b"))
    with Store(tmp_path / "host.db") as store:
        again = State(store)
        again.load()
        assert again.networks == {ID: NET}
        assert again.addresses(ID) == {"10.0.0.2": "a"}
        assert shown(again, "a") == (hns.STATE_ATTACHED, ("box",))
        await again.forget_compartment("box")
        await again.forget_network(NET)
    for missing, find in (("x", state.network), ("b", state.endpoint)):
        with pytest.raises(HostError, match="Element not found"):
            find(missing)
