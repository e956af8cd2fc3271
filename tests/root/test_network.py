"""The container network model on the real host network service: from a request to a NIC, and after a crash."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from silo.errors import Forbidden, NotFound
from silo.hcsshim import hns
from silo.ids import ContainerID
from silo.network.controller import Controller
from silo.network.drivers.host import HostNetwork
from silo.network.drivers.null import NullDriver
from silo.network.drivers.windows import WindowsDriver
from silo.network.model import EndpointRequest
from silo.schema.engine import EndpointIPAMConfig, EndpointSettings
from silo.schema.hns import HnsEndpoint
from silo.schema.network import IPAM, IPAMConfig, NetworkCreate
from silo.store import Store
from silo.telemetry import new_trace
from tests.netrig import NetRig, until

pytestmark = pytest.mark.anyio
ONE, TWO = ContainerID("1" * 64), ContainerID("2" * 64)


class Engine:
    """The two storeys of the network strip, on roots of their own."""

    def __init__(self, base: Path) -> None:
        self.rig = NetRig(base)
        self.base = base
        self.cnm: Controller

    @asynccontextmanager
    async def running(self, *live: ContainerID, killed: bool = False):
        """From start, with the containers that are found running, to stop (or kill -9)."""
        with Store(self.base / "silo.db") as store:
            async with self.rig.killed() if killed else self.rig.running():
                gate = self.rig.gate
                drivers = {
                    "bridge": WindowsDriver(gate, "bridge"),
                    "nat": WindowsDriver(gate, "nat"),
                    "null": NullDriver("null"),
                    "host": NullDriver("host"),
                }
                self.cnm = Controller(store, drivers, HostNetwork(gate))
                await self.cnm.restore(set(live))
                yield self

    async def network(self, name: str, number: int = 0, **fields) -> str:
        """A user's network; a subnet of the rig's own with ``number``."""
        config = [IPAMConfig(subnet=f"{self.rig.prefix}.{number}.0/24")] if number else []
        return (await self.cnm.create_network(NetworkCreate(name=name, ipam=IPAM(config=config), **fields)))[0]

    async def start(self, container: ContainerID, *wanted: EndpointRequest):
        """What the daemon does for a container: the sandbox first, the compartment with the compute system."""
        sandbox = await self.cnm.allocate(container, f"name-{container[0]}", wanted)
        await self.rig.hns.create_compartment(container, [one.hns_id for one in sandbox.endpoints], "private")
        return sandbox

    async def stop(self, container: ContainerID) -> None:
        await self.rig.hns.release_compartment(container)
        await self.cnm.release(container)


def on(network: str, ip: str = "") -> EndpointRequest:
    settings = EndpointSettings(ipam_config=EndpointIPAMConfig(ipv4_address=ip) if ip else None)
    return EndpointRequest(network=network, settings=settings)


@pytest.fixture
def stopped(tmp_path):
    engine = Engine(tmp_path)
    try:
        yield engine
        assert engine.rig.leftovers() == {}
    finally:
        engine.rig.clean()


@pytest.fixture
async def engine(stopped):
    async with stopped.running():
        yield stopped


async def test_from_a_request_to_a_nic(engine):
    await engine.network("examplenetwork", 1)
    before = engine.rig.links()
    with new_trace("test"):
        sandbox = await engine.cnm.allocate(ONE, "example", [on("examplenetwork")])
    (endpoint,) = sandbox.endpoints
    names = [span.name for span in engine.rig.traces.spans]
    assert names == [
        "test",
        "cnm::NewSandbox",
        "cnm::CreateEndpoint",
        "windows::CreateEndpoint",
        "hcsshim::HNSCall",
        "cnm::Join",
        "windows::Join",
    ]
    call = engine.rig.traces.spans[4]
    assert (call.attributes["method"], call.attributes["path"]) == ("POST", "/endpoints/")
    assert not engine.rig.traces.effects("+")
    assert engine.rig.links() == before
    assert not (engine.rig.pins / ONE).exists()

    await engine.rig.hns.create_compartment(ONE, [endpoint.hns_id], "private")
    eth0 = engine.rig.shown(ONE, "addr", "show", "eth0")[0]
    assert eth0["address"] == endpoint.mac
    assert eth0["addr_info"][0]["local"] == endpoint.address == f"{engine.rig.prefix}.1.2"
    assert engine.rig.reaches(ONE, endpoint.gateway)
    with pytest.raises(Forbidden, match="has active endpoints"):
        await engine.cnm.remove_network("examplenetwork")
    await engine.stop(ONE)
    await engine.cnm.remove_network("examplenetwork")
    with pytest.raises(NotFound):
        engine.cnm.find("examplenetwork")


async def test_the_default_network_and_a_network_of_ones_own(engine):
    network_id = await engine.network("net", internal=True)
    default, own = engine.cnm.find("bridge"), engine.cnm.find(network_id)
    assert default.ipam.config[0].subnet != own.ipam.config[0].subnet
    shown = await hns.get_network(engine.rig.gate, own.hns_id)
    assert (shown.Name, shown.Type) == ("net", "internal")
    assert (await hns.get_network(engine.rig.gate, default.hns_id)).Type == "nat"
    sandbox = await engine.start(ONE, on("net"), on("bridge"))
    assert [bool(one.gateway) for one in sandbox.endpoints] == [False, True]
    assert engine.rig.shown(ONE, "route", "show", "default")[0]["dev"] == "eth1"
    await engine.stop(ONE)


async def test_a_network_more_for_a_container_that_runs(engine):
    await engine.network("net", 1)
    await engine.start(ONE, on("bridge"))
    endpoint = await engine.cnm.connect(ONE, "name-1", on("net", f"{engine.rig.prefix}.1.77"))
    await engine.rig.hns.attach_endpoint(ONE, endpoint.hns_id)
    assert engine.rig.shown(ONE, "addr", "show", "eth1")[0]["addr_info"][0]["local"] == f"{engine.rig.prefix}.1.77"
    await engine.cnm.disconnect(ONE, engine.cnm.find("net"))
    assert [link["ifname"] for link in engine.rig.shown(ONE, "link")] == ["lo", "eth0"]
    await engine.stop(ONE)


async def test_an_address_that_cannot_be_had_leaves_nothing(engine):
    await engine.network("net", 1)
    await engine.start(TWO, on("net", f"{engine.rig.prefix}.1.9"))
    with pytest.raises(Forbidden, match="Address already in use"):
        await engine.cnm.allocate(ONE, "one", [on("bridge"), on("net", f"{engine.rig.prefix}.1.9")])
    assert [one.VirtualNetworkName for one in await hns.list_endpoints(engine.rig.gate)] == ["net"]
    await engine.stop(TWO)


async def test_networks_made_at_once_do_not_overlap(engine):
    async def make(number: int) -> None:
        await engine.network(f"net{number}")

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(make, number)
    networks = [network for network in engine.cnm.networks() if network.ipam.config]
    assert len({network.ipam.config[0].subnet for network in networks}) == 9
    assert len(engine.rig.links()) == 9


async def test_after_kill_9_what_runs_goes_on_and_what_ended_is_given_back(stopped):
    async with stopped.running(killed=True):
        await stopped.network("net", 1, labels={"a": "b"})
        one = await stopped.start(ONE, on("net"))
        await stopped.start(TWO, on("net"))
        # the crash comes between HNS and the record of it
        hns_id = stopped.cnm.find("net").hns_id
        await hns.create_endpoint(stopped.rig.gate, HnsEndpoint(VirtualNetwork=hns_id))
        before = stopped.cnm.inspect(stopped.cnm.find("net"))
    async with stopped.running(ONE, killed=True):
        after = stopped.cnm.inspect(stopped.cnm.find("net"))
        assert after["Containers"].pop(ONE) == before["Containers"].pop(ONE)
        assert after["Containers"] == {}
        assert {**after, "Containers": None} == {**before, "Containers": None}
        assert [end.ID for end in await hns.list_endpoints(stopped.rig.gate)] == [one.endpoints[0].hns_id]
        assert stopped.rig.reaches(ONE, f"{stopped.rig.prefix}.1.1")
        await stopped.rig.hns.release_compartment(TWO)
        assert (await stopped.start(TWO, on("net"))).endpoints[0].address == f"{stopped.rig.prefix}.1.3"
        assert stopped.rig.reaches(ONE, f"{stopped.rig.prefix}.1.3")
    async with stopped.running(ONE, TWO):
        await stopped.stop(ONE)
        await stopped.stop(TWO)
    async with stopped.running():
        await stopped.cnm.remove_network("net")


async def test_networks_are_made_anew_when_hns_lost_them(stopped):
    async with stopped.running():
        network_id = await stopped.network("net", 1)
        before = {network.name: network for network in stopped.cnm.networks()}
    for path in stopped.base.glob("host.db*"):
        os.unlink(path)
    async with stopped.running():
        after = {network.name: network for network in stopped.cnm.networks()}
        assert after.keys() == before.keys()
        assert after["net"].id == network_id
        assert after["net"].ipam == before["net"].ipam
        assert after["net"].hns_id != before["net"].hns_id
        await stopped.start(ONE, on("net"))
        assert stopped.rig.reaches(ONE, f"{stopped.rig.prefix}.1.1")
        await stopped.stop(ONE)
    async with stopped.running():
        assert {network.name: network for network in stopped.cnm.networks()} == after


async def test_a_hundred_runs_leave_nothing(engine):
    ports = set()
    for _ in range(100):
        await engine.start(ONE, on("bridge"))
        ports |= {one.Port for one in await hns.list_endpoints(engine.rig.gate)}
        await engine.stop(ONE)
    await until(lambda: not ports & set(os.listdir("/sys/class/net")))
    assert len(ports) == 100
    assert await hns.list_endpoints(engine.rig.gate) == []
    assert (await engine.start(ONE, on("bridge"))).endpoints[0].address.endswith(".0.2")
    await engine.stop(ONE)
