"""What a client may ask of networks and endpoints, and how the core answers, with drivers that only remember."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from msgspec.structs import replace

from silo.errors import Conflict, Forbidden, HostFault, InvalidParameter, NotFound, Unavailable, Unimplemented
from silo.ids import ContainerID
from silo.network import requests
from silo.network.controller import Controller
from silo.network.drivers.null import NullDriver
from silo.network.model import EndpointRequest, Network
from silo.schema.engine import EndpointIPAMConfig, EndpointSettings
from silo.schema.network import IPAM, IPAMConfig, NetworkCreate
from silo.store import Store

pytestmark = pytest.mark.anyio
ONE, TWO = ContainerID("1" * 64), ContainerID("2" * 64)


class Remembers(NullDriver):
    """A driver of any number of networks that keeps what it has, and fails when told to."""

    max_networks = None

    def __init__(self, name="bridge"):
        super().__init__(name)
        self.networks: dict[str, Network] = {}
        self.endpoints: dict[str, str] = {}
        self.failing = ""

    def _may(self, verb):
        if self.failing == verb:
            raise HostFault(f"{verb} failed")

    async def create_network(self, network):
        self._may("create_network")
        self.networks[network.id] = network
        return network

    async def delete_network(self, network):
        self._may("delete_network")
        self.networks.pop(network.id, None)

    async def create_endpoint(self, network, endpoint):
        self._may("create_endpoint")
        self.endpoints[endpoint.id] = endpoint.address
        return endpoint

    async def join(self, network, endpoint, sandbox_key):
        self._may("join")
        return await super().join(network, endpoint, sandbox_key)

    async def delete_endpoint(self, network, endpoint):
        self._may("delete_endpoint")
        self.endpoints.pop(endpoint.id, None)


class Host:
    async def route_destinations(self):
        return ["0.0.0.0/0", "172.17.0.0/24"]


@contextmanager
def engine(path, driver):
    with Store(path / "silo.db") as store:
        yield Controller(store, {"bridge": driver, "null": NullDriver("null"), "host": NullDriver("host")}, Host())


@pytest.fixture
def driver():
    return Remembers()


@pytest.fixture
async def controller(tmp_path, driver):
    with engine(tmp_path, driver) as made:
        await made.restore(set())
        yield made


def wants(network, ip="", mac=""):
    settings = EndpointSettings(mac_address=mac, ipam_config=EndpointIPAMConfig(ipv4_address=ip) if ip else None)
    return EndpointRequest(network=network, settings=settings)


def asks(name, subnet="", **fields):
    return NetworkCreate(name=name, ipam=IPAM(config=[IPAMConfig(subnet=subnet)]) if subnet else None, **fields)


async def test_the_default_networks_are_there(controller):
    shown = [controller.inspect(network) for network in controller.networks()]
    assert [(one["Name"], one["Driver"]) for one in shown] == [
        ("bridge", "bridge"),
        ("host", "host"),
        ("none", "null"),
    ]
    # the host routes a part of the first pool
    assert shown[0]["IPAM"]["Config"] == [{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}]
    assert shown[1]["IPAM"] == {"Driver": "default", "Options": None, "Config": []}


@pytest.mark.parametrize(
    ("request_", "kind", "text"),
    [
        (asks(""), InvalidParameter, "invalid network name: name is empty"),
        (asks(" "), InvalidParameter, "invalid network name: name is empty"),
        (asks("a/b"), InvalidParameter, "invalid network name"),
        (asks("bridge"), Forbidden, "operation is not permitted on predefined bridge network"),
        (asks("default"), Forbidden, "operation is not permitted on predefined default network"),
        (asks("x", driver="nosuch"), NotFound, "could not find plugin nosuch in v1 plugin registry: plugin not found"),
        (NetworkCreate(name="x", ipam=IPAM(driver="other")), NotFound, "plugin other in v1"),
        (asks("x", driver="host"), Forbidden, 'only one instance of "host" network is allowed'),
        (asks("x", driver="null"), Forbidden, 'only one instance of "null" network is allowed'),
        (asks("x", scope="swarm"), Forbidden, "cannot create a swarm scoped network when swarm is not active"),
        (asks("x", ingress=True), Forbidden, "Ingress network can only be global scope network"),
        (asks("x", enable_ipv6=True), Unimplemented, "IPv6"),
        (asks("x", config_only=True), Unimplemented, "config-only"),
        (
            asks("x", options={"com.docker.network.bridge.enable_icc": "false"}),
            Unimplemented,
            "option com.docker.network.bridge.enable_icc=false",
        ),
        (asks("x", "10.1.0.9/16"), InvalidParameter, "invalid subnet 10.1.0.9/16: it should be 10.1.0.0/16"),
        (asks("x", "172.18.3.0/24"), Forbidden, "Pool overlaps with other one on this address space"),
    ],
)
async def test_networks_that_are_refused(controller, driver, request_, kind, text):
    with pytest.raises(kind) as failure:
        await controller.create_network(request_)
    assert text in str(failure.value)
    assert len(controller.networks()) == 3
    assert len(driver.networks) == 1


async def test_a_name_is_taken_once_and_a_failed_network_leaves_nothing(controller, driver):
    network_id, warning = await controller.create_network(
        asks("net", options={"com.docker.network.driver.mtu": "1400"})
    )
    assert warning == "These options have no effect yet: com.docker.network.driver.mtu"
    assert controller.inspect(controller.find(network_id))["Options"] == {"com.docker.network.driver.mtu": "1400"}
    with pytest.raises(Conflict, match="network with name net already exists"):
        await controller.create_network(asks("net"))
    driver.failing = "create_network"
    with pytest.raises(HostFault):
        await controller.create_network(asks("more", "10.5.0.0/24"))
    driver.failing = ""
    await controller.create_network(asks("more", "10.5.0.0/24"))


async def test_finding(controller):
    network_id, _ = await controller.create_network(asks("net"))
    for reference in ("net", network_id, network_id[:10]):
        assert controller.find(reference).id == network_id
    assert controller.find("default") == controller.find("nat") == controller.find("bridge")
    with pytest.raises(NotFound, match="network nosuch not found"):
        controller.find("nosuch")
    with pytest.raises(NotFound):
        controller.find("")
    twins = [replace(controller.find("net"), id=f"feed{number}", name=f"twin{number}") for number in (1, 2)]
    for one in twins:
        controller._add(one)
    with pytest.raises(InvalidParameter, match=r"network feed is ambiguous \(2 matches found based on ID prefix\)"):
        controller.find("feed")


async def test_endpoints_get_the_lowest_addresses_and_give_them_back(controller, driver):
    await controller.create_network(asks("net", "10.6.0.0/29"))
    one = await controller.allocate(ONE, "one", [wants("net"), wants("bridge")])
    assert [(end.network_name, end.address, end.prefix) for end in one.endpoints] == [
        ("net", "10.6.0.2", 29),
        ("bridge", "172.18.0.2", 16),
    ]
    assert (one.id, one.key) == (ONE, ONE)
    two = await controller.allocate(TWO, "two", [wants("net", "10.6.0.5", "02-42-AA-BB-CC-DD")])
    assert two.endpoints[0].mac == "02:42:aa:bb:cc:dd"
    shown = controller.inspect(controller.find("net"))["Containers"]
    assert shown[TWO] == {
        "Name": "two",
        "EndpointID": two.endpoints[0].id,
        "MacAddress": "02:42:aa:bb:cc:dd",
        "IPv4Address": "10.6.0.5/29",
        "IPv6Address": "",
    }
    with pytest.raises(Forbidden) as failure:
        await controller.remove_network("net")
    ids = [one.endpoints[0].id[:12], two.endpoints[0].id[:12]]
    assert str(failure.value) == (
        "error while removing network: network net has active endpoints "
        f'(name:"one" id:"{ids[0]}", name:"two" id:"{ids[1]}")'
    )
    await controller.release(ONE)
    await controller.release(ONE)
    again = await controller.allocate(ONE, "one", [wants("net")])
    assert again.endpoints[0].address == "10.6.0.2"
    assert again.endpoints[0].id != one.endpoints[0].id
    await controller.release(ONE)
    await controller.release(TWO)
    assert not driver.endpoints
    await controller.remove_network("net")
    with pytest.raises(NotFound):
        await controller.remove_network("net")
    with pytest.raises(Forbidden, match="none is a pre-defined network and cannot be removed"):
        await controller.remove_network("none")


@pytest.mark.parametrize(
    ("wanted", "kind", "text"),
    [
        (wants("nosuch"), NotFound, "network nosuch not found"),
        (wants("bridge", "172.18.0.9"), InvalidParameter, "supported on user defined networks only"),
        (wants("auto", "172.19.0.9"), InvalidParameter, "networks with user configured subnets"),
        (
            wants("net", "10.9.9.9"),
            InvalidParameter,
            "network net: invalid endpoint settings:\nno configured subnet or ip-range contain the IP address 10.9.9.9",
        ),
        (wants("net", "abc"), InvalidParameter, "invalid IPv4 address: abc"),
        (wants("net", mac="zz"), InvalidParameter, "invalid MAC address: zz"),
        (wants("net", "10.6.0.1"), Forbidden, "10.6.0.1: Address already in use"),
        (wants("full"), Unavailable, "no available IPv4 addresses on this network's address pools: full"),
    ],
)
async def test_endpoints_that_are_refused_leave_nothing(controller, driver, wanted, kind, text):
    await controller.create_network(asks("net", "10.6.0.0/29"))
    await controller.create_network(asks("auto"))
    await controller.create_network(asks("full", "10.7.0.0/30"))
    await controller.allocate(TWO, "two", [wants("full")])
    with pytest.raises(kind) as failure:
        await controller.allocate(ONE, "one", [wants("net"), wanted])
    assert text in str(failure.value)
    assert list(driver.endpoints.values()) == ["10.7.0.2"]
    assert (await controller.allocate(ONE, "one", [wants("net")])).endpoints[0].address == "10.6.0.2"


@pytest.mark.parametrize("verb", ["create_endpoint", "join"])
async def test_a_driver_that_fails_leaves_nothing(controller, driver, verb):
    driver.failing = verb
    with pytest.raises(HostFault):
        await controller.allocate(ONE, "one", [wants("bridge")])
    assert not driver.endpoints
    driver.failing = ""
    assert (await controller.allocate(ONE, "one", [wants("bridge")])).endpoints[0].address == "172.18.0.2"


async def test_what_cannot_be_released_stays_until_it_can(controller, driver):
    await controller.allocate(ONE, "one", [wants("bridge")])
    driver.failing = "delete_endpoint"
    with pytest.raises(HostFault):
        await controller.release(ONE)
    assert ONE in controller.inspect(controller.find("bridge"))["Containers"]
    driver.failing = ""
    await controller.release(ONE)
    assert not controller.inspect(controller.find("bridge"))["Containers"]


async def test_a_network_that_cannot_be_deleted_stays(controller, driver):
    await controller.create_network(asks("net"))
    driver.failing = "delete_network"
    with pytest.raises(HostFault):
        await controller.remove_network("net")
    await controller.allocate(ONE, "one", [wants("net")])


async def test_connecting_and_disconnecting_a_container_that_runs(controller, driver):
    await controller.create_network(asks("net", "10.6.0.0/29"))
    await controller.allocate(ONE, "one", [wants("bridge")])
    endpoint = await controller.connect(ONE, "one", wants("net", "10.6.0.4"))
    assert endpoint.address == "10.6.0.4"
    net = controller.find("net")
    assert controller.endpoint_of(ONE, net) == endpoint
    await controller.disconnect(ONE, net)
    with pytest.raises(NotFound, match=f"container {ONE} is not connected to network net"):
        await controller.disconnect(ONE, net)
    assert list(driver.endpoints.values()) == ["172.18.0.2"]


async def test_after_a_restart(tmp_path, driver):
    with engine(tmp_path, driver) as first:
        await first.restore(set())
        await first.create_network(asks("net", "10.6.0.0/29"))
        await first.allocate(ONE, "one", [wants("net")])
        await first.allocate(TWO, "two", [wants("net")])
        before = [first.inspect(network) for network in first.networks()]
    with engine(tmp_path, driver) as second:
        await second.restore({ONE})
        del before[2]["Containers"][TWO]
        assert [second.inspect(network) for network in second.networks()] == before
        assert list(driver.endpoints.values()) == ["10.6.0.2"]
        assert (await second.allocate(TWO, "two", [wants("net")])).endpoints[0].address == "10.6.0.3"
        assert second.find("net").static


def test_an_address_needs_a_subnet_of_the_users():
    network = Network(id="n", name="net", driver="bridge", created="", static=True)
    assert requests.check_endpoint(network, wants("net", "10.1.1.1").settings) == "10.1.1.1"
    assert requests.check_endpoint(network, EndpointSettings()) == ""
    with pytest.raises(InvalidParameter) as failure:
        requests.check_endpoint(replace(network, static=False), wants("net", "10.1.1.1", "zz").settings)
    assert len(str(failure.value).split("\n")) == 3
