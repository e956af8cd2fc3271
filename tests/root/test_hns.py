"""The host network service on the real kernel: what is there before, after, and after a crash."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from pathlib import Path

import anyio
import pytest

from silo.errors import Conflict, InvalidParameter, NotFound, Unimplemented
from silo.hcsshim import hns
from silo.host.results import HostError
from silo.schema.hns import HnsEndpoint, HnsNetwork
from silo.telemetry import new_trace
from tests.netrig import NetRig, run, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def net(tmp_path):
    rig = NetRig(tmp_path)
    try:
        yield rig
        assert rig.leftovers() == {}
    finally:
        rig.clean()


@pytest.fixture
async def rig(net):
    async with net.running():
        yield net


def json_of(*argv: str):
    (one,) = json.loads(run(*argv))
    return one


async def test_a_network_is_a_bridge_and_elements_of_the_one_table(rig):
    with new_trace("test"):
        made = await rig.network(1, name="examplenetwork")
    (bridge,) = rig.links()
    shown = json_of("ip", "-j", "-d", "addr", "show", bridge)
    assert bridge == made.Bridge
    assert shown["ifalias"] == "vEthernet (examplenetwork)"
    assert [(one["local"], one["prefixlen"]) for one in shown["addr_info"]] == [(f"{rig.prefix}.1.1", 24)]
    assert "UP" in shown["flags"]
    table = f"silo-{rig.instance}"
    effects = rig.traces.effects("+")
    assert effects[0] == ("link", bridge)
    assert [one for one in effects if one[0] == "nft"] == [
        ("nft", f"table ip {table}"),
        ("nft", f"ip {table} bridges {bridge}"),
        ("nft", f"ip {table} sources {rig.prefix}.1.0/24"),
    ]
    shown = rig.rules()
    assert shown["bridges"] == [bridge]
    assert shown["sources"] == [{"prefix": {"addr": f"{rig.prefix}.1.0", "len": 24}}]
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"

    inner = await rig.network(2, "internal")
    assert rig.rules()["closed"] == [inner.Bridge]
    assert rig.rules()["rules"] == shown["rules"], "a network more is no rule more"
    with new_trace("test"):
        await hns.delete_network(rig.gate, inner.ID)
    assert ("link", inner.Bridge) in rig.traces.effects("-")
    assert rig.rules()["closed"] == []
    await hns.delete_network(rig.gate, made.ID)
    assert rig.links() == set()
    assert rig.rules() == {}


async def test_the_bridge_keeps_its_mac_address_as_ports_come_and_go(rig):
    network = await rig.network(1)
    before = json_of("ip", "-j", "link", "show", network.Bridge)["address"]
    endpoints = await rig.box("box", network)
    assert json_of("ip", "-j", "link", "show", network.Bridge)["address"] == before
    await rig.unbox("box", endpoints)
    assert json_of("ip", "-j", "link", "show", network.Bridge)["address"] == before


async def test_an_endpoint_is_virtual_until_its_compartment_is_made(rig):
    network = await rig.network(1)
    with new_trace("test"):
        endpoint = await rig.endpoint(network)
    assert not rig.traces.effects("+")
    assert (endpoint.State, endpoint.IPAddress) == (1, f"{rig.prefix}.1.2")
    assert endpoint.Port not in os.listdir("/sys/class/net")
    assert rig.links() == {network.Bridge}
    assert list(rig.pins.iterdir()) == []

    name = "c" * 64
    with new_trace("test"):
        path = await rig.hns.create_compartment(name, [endpoint.ID], "private")
    alias = f"vEthernet (Container NIC {endpoint.ID[:8]})"
    assert rig.traces.effects("+") == [
        ("netns", f"{path} net:[{Path(path).stat().st_ino}]"),
        ("link", f"{endpoint.Port} {alias}"),
        ("link", f"eth0 {alias}"),
        ("address", f"{rig.prefix}.1.2/24"),
        ("route", f"0.0.0.0/0 via {rig.prefix}.1.1"),
        ("port", f"{network.Bridge}/{endpoint.Port}"),
        ("compartment", f"2 \\Container_{name}"),
    ]
    assert Path(f"/sys/class/net/{network.Bridge}/brif/{endpoint.Port}").exists()
    assert Path(f"/sys/class/net/{endpoint.Port}/ifalias").read_text().strip() == alias
    lo, eth0 = rig.shown(name, "addr")
    assert "UP" in lo["flags"]
    assert (eth0["ifname"], eth0["ifalias"]) == ("eth0", alias)
    assert eth0["address"].upper().replace(":", "-") == endpoint.MacAddress
    (address,) = eth0["addr_info"]
    assert (address["local"], address["prefixlen"]) == (f"{rig.prefix}.1.2", 24)
    assert address["broadcast"] == f"{rig.prefix}.1.255"
    routes = {one["dst"]: one.get("gateway") for one in rig.shown(name, "route")}
    assert routes == {"default": f"{rig.prefix}.1.1", f"{rig.prefix}.1.0/24": None}
    assert (await hns.get_endpoint(rig.gate, endpoint.ID.upper())).State == 2

    with new_trace("test"):
        await rig.hns.release_compartment(name)
    assert rig.traces.effects("-") == [
        ("port", endpoint.Port),
        ("netns", path),
        ("compartment", f"2 \\Container_{name}"),
    ]
    assert (await hns.get_endpoint(rig.gate, endpoint.ID)).State == 4
    await rig.hns.release_compartment(name)
    await hns.delete_endpoint(rig.gate, endpoint.ID)
    await until(lambda: endpoint.Port not in os.listdir("/sys/class/net"))


async def test_neighbours_reach_each_other_and_other_networks_do_not(rig):
    one, two, inner = await rig.network(1), await rig.network(2), await rig.network(3, "internal")
    boxes = {
        "a": await rig.box("a", one),
        "b": await rig.box("b", one),
        "c": await rig.box("c", two),
        "d": await rig.box("d", inner),
        "e": await rig.box("e", inner),
    }
    address = {name: endpoints[0].IPAddress for name, endpoints in boxes.items()}
    reached = {(here, there): rig.reaches(here, address[there]) for here, there in ("ab", "ba", "ac", "de", "ad")}
    assert reached == {("a", "b"): True, ("b", "a"): True, ("a", "c"): False, ("d", "e"): True, ("a", "d"): False}
    assert rig.reaches("a", f"{rig.prefix}.1.1")
    assert "default" not in rig.inside("d", "ip", "route")
    rig.inside("d", "ip", "route", "add", "default", "via", f"{rig.prefix}.3.1")
    assert not rig.reaches("d", address["a"])
    for name, endpoints in boxes.items():
        await rig.unbox(name, endpoints)


@pytest.fixture
def outside():
    """A host beyond ours, with no route back to anybody's containers; its address."""
    name, number = f"out{secrets.token_hex(3)}", secrets.randbelow(60) * 4
    near, far = f"198.51.100.{number + 1}", f"198.51.100.{number + 2}"
    try:
        run("ip", "netns", "add", name)
        run("ip", "link", "add", name, "type", "veth", "peer", "name", "out", "netns", name)
        run("ip", "addr", "add", f"{near}/30", "dev", name)
        run("ip", "link", "set", name, "up")
        run("ip", "-n", name, "addr", "add", f"{far}/30", "dev", "out")
        run("ip", "-n", name, "link", "set", "out", "up")
        yield far
    finally:
        subprocess.run(["ip", "link", "del", name], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


async def test_a_nat_network_is_masqueraded_and_a_closed_one_stays_in(rig, outside):
    nat, inner, private = await rig.network(1), await rig.network(2, "internal"), await rig.network(3, "private")
    boxes = {"a": await rig.box("a", nat), "b": await rig.box("b", inner), "c": await rig.box("c", private)}
    assert rig.reaches("a", outside), "the answer finds its way back only to an address of the host"
    for name, route in (("b", ["via", f"{rig.prefix}.2.1"]), ("c", ["dev", "eth0"])):
        rig.inside(name, "ip", "route", "add", "default", *route)
        assert not rig.reaches(name, outside)
    assert json_of("ip", "-j", "addr", "show", private.Bridge)["addr_info"] == [], "the host is not on it"
    for name, endpoints in boxes.items():
        await rig.unbox(name, endpoints)


async def test_no_ipv6_of_its_own_making(rig):
    network = await rig.network(1)
    endpoints = await rig.box("box", network)
    shown = {link["ifname"]: [one["local"] for one in link["addr_info"]] for link in rig.shown("box", "-6", "addr")}
    assert shown == {"lo": ["::1"]}
    assert run("ip", "-6", "addr", "show", "dev", network.Bridge) == ""
    assert run("ip", "-6", "addr", "show", "dev", endpoints[0].Port) == ""
    await rig.unbox("box", endpoints)


async def test_several_nics_in_the_order_asked_for_the_first_gateway_is_the_default(rig):
    networks = [await rig.network(1, "internal"), await rig.network(2), await rig.network(3)]
    endpoints = await rig.box("box", *networks)
    shown = {link["ifname"]: link["addr_info"][0]["local"] for link in rig.shown("box", "-4", "addr")}
    assert shown == {
        "lo": "127.0.0.1",
        "eth0": f"{rig.prefix}.1.2",
        "eth1": f"{rig.prefix}.2.2",
        "eth2": f"{rig.prefix}.3.2",
    }
    assert rig.shown("box", "route", "show", "default")[0]["gateway"] == f"{rig.prefix}.2.1"
    await rig.unbox("box", endpoints)


async def test_hot_attach_and_detach(rig):
    one, two = await rig.network(1), await rig.network(2)
    (first,) = await rig.box("box", one)
    (other,) = await rig.box("other", two)
    second = await rig.endpoint(two)
    body = {"ContainerId": "box", "SystemType": "Container"}
    assert not rig.reaches("box", other.IPAddress)
    await hns.hns_call(rig.gate, "POST", f"/endpoints/{second.ID}/attach", body)
    assert ("port", f"{two.Bridge}/{second.Port}") in rig.traces.effects("+")
    await hns.hns_call(rig.gate, "POST", f"/endpoints/{second.ID}/attach", body)
    assert not rig.traces.effects("+")
    assert rig.reaches("box", other.IPAddress)
    assert rig.shown("box", "route", "show", "default")[0]["gateway"] == f"{rig.prefix}.1.1"
    with pytest.raises(Conflict, match="is attached to container box"):
        await hns.hns_call(rig.gate, "POST", f"/endpoints/{second.ID}/attach", {"ContainerId": "other"})

    await hns.hns_call(rig.gate, "POST", f"/endpoints/{first.ID}/detach", body)
    await hns.hns_call(rig.gate, "POST", f"/endpoints/{first.ID}/detach", body)
    assert (await hns.get_endpoint(rig.gate, first.ID)).State == 4
    assert rig.shown("box", "route", "show", "default")[0]["gateway"] == f"{rig.prefix}.2.1", "the next one takes over"
    assert [link["ifname"] for link in rig.shown("box", "link")] == ["lo", "eth1"]
    await rig.hns.attach_endpoint("box", first.ID)
    assert [link["ifname"] for link in rig.shown("box", "link")] == ["lo", "eth1", "eth0"]

    await hns.delete_endpoint(rig.gate, second.ID)  # attached as it is
    assert rig.shown("box", "route", "show", "default")[0]["gateway"] == f"{rig.prefix}.1.1"
    for container, kind in (("nosuch", NotFound), ("", InvalidParameter)):
        with pytest.raises(kind):
            await hns.hns_call(rig.gate, "POST", f"/endpoints/{other.ID}/attach", {"ContainerId": container})
    body = {"ContainerId": "x", "SystemType": "VirtualMachine"}
    with pytest.raises(Unimplemented):
        await hns.hns_call(rig.gate, "POST", f"/endpoints/{other.ID}/attach", body)
    await rig.unbox("box", [first])
    await rig.unbox("other", [other])


async def test_an_attach_that_fails_leaves_the_container_as_it_was(rig):
    one, two = await rig.network(1), await rig.network(2)
    (first,) = await rig.box("box", one)
    second = await rig.endpoint(two)
    run("ip", "link", "del", two.Bridge)
    with pytest.raises(NotFound):
        await rig.hns.attach_endpoint("box", second.ID)
    assert [link["ifname"] for link in rig.shown("box", "link")] == ["lo", "eth0"]
    assert not Path(f"/sys/class/net/{second.Port}").exists()
    assert (await hns.get_endpoint(rig.gate, second.ID)).SharedContainers == ()
    assert rig.reaches("box", f"{rig.prefix}.1.1")
    await rig.unbox("box", [first, second])


async def test_an_address_is_given_out_again_while_its_old_namespace_lives_on(rig):
    network = await rig.network(1)
    peer = await rig.box("peer", network)
    old = await rig.box("old", network)
    assert rig.reaches("peer", old[0].IPAddress)
    holder = rig.hold("old")
    try:
        inode = (rig.pins / "old").stat().st_ino
        await until(lambda: os.stat(f"/proc/{holder.pid}/ns/net").st_ino == inode)
        await rig.unbox("old", old)
        assert Path(f"/sys/class/net/{old[0].Port}").exists()
        assert not rig.reaches("peer", old[0].IPAddress), "nobody answers for an address that was given back"
        new = await rig.box("new", network)
        assert new[0].IPAddress == old[0].IPAddress
        assert rig.reaches("peer", new[0].IPAddress)
        await rig.unbox("new", new)
    finally:
        holder.kill()
        holder.wait()
    await rig.unbox("peer", peer)
    await until(lambda: not Path(f"/sys/class/net/{old[0].Port}").exists())


async def test_a_compartment_is_shared(rig):
    network = await rig.network(1)
    (endpoint,) = await rig.box("owner", network)
    for guest in ("guest", "third", "guest"):
        assert await rig.hns.create_compartment(guest, [], "shared:owner") == str(rig.pins / "owner")
    shown = await hns.get_endpoint(rig.gate, endpoint.ID)
    assert (shown.State, shown.SharedContainers) == (3, ("owner", "guest", "third"))
    await rig.hns.release_compartment("guest")
    await rig.hns.release_compartment("third")
    shown = await hns.get_endpoint(rig.gate, endpoint.ID)
    assert (shown.State, shown.SharedContainers) == (2, ("owner",))
    assert rig.reaches("owner", f"{rig.prefix}.1.1")
    with pytest.raises(HostError, match="container nobody has no compartment"):
        await rig.hns.create_compartment("guest", [], "shared:nobody")
    assert await rig.hns.create_compartment("host", [], "host") == ""
    await rig.hns.release_compartment("host")
    await rig.unbox("owner", [endpoint])


async def test_a_compartment_that_cannot_be_made_leaves_nothing(rig):
    one, two = await rig.network(1), await rig.network(2)
    endpoints = [await rig.endpoint(one), await rig.endpoint(two)]
    run("ip", "link", "del", two.Bridge)
    before = rig.leftovers()
    with pytest.raises(NotFound, match=f"link {two.Bridge} does not exist"):
        await rig.hns.create_compartment("box", [e.ID for e in endpoints], "private")
    assert rig.leftovers() == before
    assert [row["CompartmentId"] for row in await hns.compartments(rig.gate)] == [1]
    with pytest.raises(HostError, match="endpoint nosuch does not exist"):
        await rig.hns.create_compartment("box", [endpoints[0].ID, "nosuch"], "private")
    await rig.hns.create_compartment("box", [endpoints[0].ID], "private")
    with pytest.raises(HostError, match="is attached to container box"):
        await rig.hns.create_compartment("more", [endpoints[0].ID], "private")
    await rig.unbox("box", endpoints)


async def test_a_compartment_is_made_again_with_the_endpoints_it_had(rig):
    network = await rig.network(1)
    (endpoint,) = await rig.box("box", network)
    for _ in range(3):
        await rig.hns.release_compartment("box")
        await rig.hns.create_compartment("box", [endpoint.ID], "private")
    await rig.hns.create_compartment("box", [endpoint.ID], "private")  # what a crash left is released first
    assert rig.reaches("box", f"{rig.prefix}.1.1")
    await rig.unbox("box", [endpoint])


async def test_numbers_are_the_lowest_that_are_free(rig):
    for name in ("a", "b", "c"):
        await rig.hns.create_compartment(name, [], "private")
    await rig.hns.release_compartment("a")
    await rig.hns.create_compartment("d", [], "private")
    rows = await hns.compartments(rig.gate)
    assert [(row["CompartmentId"], row["CompartmentDescription"], row["CompartmentType"]) for row in rows] == [
        (1, "Default Compartment", "Native"),
        (2, "\\Container_d", "Unspecified"),
        (3, "\\Container_b", "Unspecified"),
        (4, "\\Container_c", "Unspecified"),
    ]
    assert rows[0]["Namespace"] == os.readlink("/proc/self/ns/net")
    assert rows[1]["Namespace"] == f"net:[{(rig.pins / 'd').stat().st_ino}]"
    assert len({row["CompartmentGuid"] for row in rows}) == 4
    for name in ("b", "c", "d"):
        await rig.hns.release_compartment(name)


async def test_what_the_cmdlets_show(rig):
    network = await rig.network(1)
    (endpoint,) = await rig.box("box", network)
    rows = await hns.ip_interfaces(rig.gate, 2)
    nic = next(row for row in rows if row["InterfaceName"] == "eth0")
    assert nic["InterfaceAlias"] == f"vEthernet (Container NIC {endpoint.ID[:8]})"
    assert (nic["AddressFamily"], nic["NlMtu"], nic["CompartmentId"]) == ("IPv4", 1500, 2)
    assert (nic["ConnectionState"], nic["IPAddresses"]) == ("Connected", [f"{rig.prefix}.1.2/24"])
    routes = {row["DestinationPrefix"]: row["NextHop"] for row in await hns.routes(rig.gate, 2)}
    assert routes["0.0.0.0/0"] == f"{rig.prefix}.1.1"
    assert routes[f"{rig.prefix}.1.0/24"] == "0.0.0.0"
    assert f"{rig.prefix}.1.2/32" in routes
    everywhere = await hns.ip_interfaces(rig.gate)
    assert {row["CompartmentId"] for row in everywhere} == {1, 2}
    assert f"vEthernet ({network.Name})" in {row["InterfaceAlias"] for row in everywhere if row["CompartmentId"] == 1}
    with pytest.raises(NotFound, match="compartment 9 does not exist"):
        await hns.routes(rig.gate, 9)
    namespaces = await hns._typed(rig.gate, list[dict], "GET", "/namespaces/")
    assert [(one["IsDefault"], one["CompartmentId"]) for one in namespaces] == [(True, 1), (False, 2)]
    assert await hns._typed(rig.gate, dict, "GET", f"/namespaces/{namespaces[1]['ID']}") == namespaces[1]
    assert await hns._typed(rig.gate, dict, "GET", "/globals/version") == {"Major": 9, "Minor": 2}
    await rig.unbox("box", [endpoint])


@pytest.mark.parametrize(
    ("method", "path", "body", "kind"),
    [
        ("GET", "/networks/nosuch", None, NotFound),
        ("DELETE", "/networks/nosuch", None, NotFound),
        ("GET", "/endpoints/nosuch", None, NotFound),
        ("DELETE", "/endpoints/nosuch", None, NotFound),
        ("GET", "/namespaces/nosuch", None, NotFound),
        ("POST", "/endpoints/", {"VirtualNetwork": "nosuch"}, NotFound),
        ("POST", "/networks/", {"Name": 7}, InvalidParameter),
        ("POST", "/networks/", {"Type": "transparent"}, Unimplemented),
        ("POST", "/networks/", {"Type": "nonsense"}, InvalidParameter),
        ("POST", "/networks/x", {}, Unimplemented),
        ("PUT", "/endpoints/", {}, Unimplemented),
        ("GET", "/nonsense", None, Unimplemented),
    ],
)
async def test_calls_that_are_refused(rig, method, path, body, kind):
    with pytest.raises(kind):
        await hns.hns_call(rig.gate, method, path, body)
    assert await hns.list_networks(rig.gate) == []


async def test_documents_that_clash(rig):
    network = await rig.network(1)
    with pytest.raises(Conflict):
        await hns.create_network(rig.gate, HnsNetwork(ID=network.ID.upper()))
    with pytest.raises(InvalidParameter, match="overlaps"):
        await rig.network(1)
    endpoint = await rig.endpoint(network, f"{rig.prefix}.1.9")
    with pytest.raises(Conflict, match="is in use"):
        await rig.endpoint(network, f"{rig.prefix}.1.9")
    with pytest.raises(Conflict, match="exists already"):
        await hns.create_endpoint(rig.gate, HnsEndpoint(ID=endpoint.ID, VirtualNetwork=network.ID))
    with pytest.raises(Conflict, match=f"has endpoint {endpoint.ID}"):
        await hns.delete_network(rig.gate, network.ID)
    await hns.delete_endpoint(rig.gate, endpoint.ID)
    await hns.delete_network(rig.gate, network.ID)


async def test_many_at_once(rig):
    made: list[HnsNetwork] = []

    async def life(number: int) -> None:
        network = await rig.network(number)
        made.append(network)
        endpoints = [await rig.endpoint(network), await rig.endpoint(network)]
        await rig.hns.create_compartment(f"box{number}", [one.ID for one in endpoints], "private")
        await rig.hns.detach_endpoint(f"box{number}", endpoints[1].ID)
        await hns.delete_endpoint(rig.gate, endpoints[1].ID)
        await rig.unbox(f"box{number}", endpoints[:1])
        await hns.delete_network(rig.gate, network.ID)

    async with anyio.create_task_group() as tasks:
        for number in range(16):
            tasks.start_soon(life, number)
    assert len({one.Bridge for one in made}) == 16
    assert await hns.list_networks(rig.gate) == []
    assert rig.rules() == {}
    assert rig.links() == set()


async def test_a_hundred_cycles_leave_the_counts_as_they_were(rig):
    network = await rig.network(1)
    await rig.unbox("warm", await rig.box("warm", network))
    ports: list[str] = []

    def counts() -> dict[str, int]:
        return {
            "mounts": Path("/proc/self/mountinfo").read_text().count(str(rig.base)),
            "links": sum(Path(f"/sys/class/net/{one}").exists() for one in ports),
            "fds": len(os.listdir("/proc/self/fd")),
        }

    before = counts()
    for number in range(100):
        endpoints = await rig.box(f"box{number}", network)
        ports += [one.Port for one in endpoints]
        await rig.unbox(f"box{number}", endpoints)
    assert len(set(ports)) == 100
    await until(lambda: counts() == before)
    assert rig.links() == {network.Bridge}
    assert await hns.list_endpoints(rig.gate) == []


async def test_nothing_is_forgotten_on_kill_9_and_nothing_is_left_at_the_end(net):
    async with net.killed():
        network, other = await net.network(1), await net.network(2, "internal")
        (one,), (two,) = await net.box("one", network), await net.box("two", network)
        guid = (await hns.compartments(net.gate))[1]["CompartmentGuid"]
    async with net.killed():
        assert net.reaches("one", two.IPAddress)
        rows = await hns.compartments(net.gate)
        assert [row["CompartmentId"] for row in rows] == [1, 2, 3]
        assert rows[1]["CompartmentGuid"] == guid
        assert (await net.endpoint(network)).IPAddress == f"{net.prefix}.1.4"
    # somebody cleans up too much
    run("ip", "link", "del", network.Bridge)
    run("nft", "delete", "table", "ip", f"silo-{net.instance}")
    async with net.killed():
        assert net.reaches("one", two.IPAddress)
        assert net.reaches("one", f"{net.prefix}.1.1")
        assert sorted(net.rules()["bridges"]) == sorted([network.Bridge, other.Bridge])
        assert net.rules()["closed"] == [other.Bridge]
    # a reboot: namespaces, links and rules are gone, files are there; and a pin that no document names
    net.clean()
    for name in ("one", "two", "stranger"):
        (net.pins / name).touch()
    async with net.running():
        assert [row["CompartmentId"] for row in await hns.compartments(net.gate)] == [1]
        assert list(net.pins.iterdir()) == []
        assert net.links() == {network.Bridge, other.Bridge}
        assert (await hns.get_endpoint(net.gate, one.ID)).State == 4
    assert net.leftovers() == {}, "stopped without containers: nothing stays on the host"
    async with net.running():
        assert net.links() == {network.Bridge, other.Bridge}, "and it comes back"
        await hns.delete_endpoint(net.gate, one.ID)


async def test_stopping_with_a_container_leaves_it_connected(net):
    async with net.running():
        network = await net.network(1)
        endpoints = await net.box("box", network)
    assert net.reaches("box", f"{net.prefix}.1.1")
    async with net.running():
        await net.unbox("box", endpoints)


async def test_a_bridge_that_is_not_as_it_was_made_is_repaired(net):
    async with net.killed():
        network = await net.network(1)
        run("ip", "link", "set", network.Bridge, "down")
        run("ip", "addr", "flush", "dev", network.Bridge)
    async with net.running():
        endpoints = await net.box("box", network)
        assert net.reaches("box", f"{net.prefix}.1.1")
        await net.unbox("box", endpoints)


async def test_somebody_elses_flush_does_not_keep_a_network_from_going(rig):
    one, two = await rig.network(1), await rig.network(2)
    run("nft", "delete", "table", "ip", f"silo-{rig.instance}")
    await hns.delete_network(rig.gate, one.ID)
    assert rig.rules()["bridges"] == [two.Bridge]
    await hns.delete_network(rig.gate, two.ID)
