"""HNS: ``HNSCall(method, path, request)`` over documents, and the compartments that HCS asks for.

An endpoint is a document with a reserved address until a compute system is created with it; only then the compartment
(a network namespace with an id), the vNIC and the port on the virtual switch (a bridge) come to be.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import anyio
import msgspec

from silo.errors import SiloError
from silo.host.hns import plan, views
from silo.host.linux import links, netns, nft
from silo.host.results import Code, HostError
from silo.ids import new_guid
from silo.resources import Undo, leaf
from silo.schema import hns
from silo.schema.hns import HnsEndpoint, HnsNetwork
from silo.store import Delete, Put, Step, Store, decode_all
from silo.telemetry import effect, traced

log = logging.getLogger(__name__)

Handler = Callable[..., Awaitable[Any]]
NETWORKS: Final = "hns_networks"
ENDPOINTS: Final = "hns_endpoints"
COMPARTMENTS: Final = "hns_compartments"
FORWARD: Final = Path("/proc/sys/net/ipv4/ip_forward")
VERSION: Final = {"Major": 9, "Minor": 2}


class Compartment(msgspec.Struct, frozen=True):
    """A container's network namespace: the id and GUID that Windows shows, and the endpoints in it, in NIC order."""

    id: int
    guid: str
    container_id: str
    endpoints: tuple[str, ...] = ()


class HnsService:
    """The networks of this engine.  An async context manager: on the way in the kernel is made to agree."""

    def __init__(self, store: Store, instance: str, exec_root: Path) -> None:
        self._store = store
        self._instance = instance
        self._pins = exec_root / "netns"
        self._networks: dict[str, HnsNetwork] = {}
        self._endpoints: dict[str, HnsEndpoint] = {}
        self._compartments: dict[str, Compartment] = {}
        self._lock = anyio.Lock()
        self._host = -1

    async def __aenter__(self) -> Self:
        self._networks = decode_all(HnsNetwork, self._store.load(NETWORKS))
        self._endpoints = decode_all(HnsEndpoint, self._store.load(ENDPOINTS))
        self._compartments = decode_all(Compartment, self._store.load(COMPARTMENTS))
        self._host = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        await leaf(self._sweep)
        for network in self._networks.values():
            await leaf(self._make_switch, network)
        if self._networks:
            await self._program()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Without compartments nothing needs the switches: they go, and come back at the next start."""
        with anyio.CancelScope(shield=True):
            try:
                if not self._compartments:
                    await leaf(self._idle)
            finally:
                os.close(self._host)

    def _idle(self) -> None:
        for network in self._networks.values():
            links.delete(network.Bridge)
        if self._networks:
            nft.run(plan.no_table(self._instance))
        if self._pins.is_dir() and not any(self._pins.iterdir()):
            self._pins.rmdir()

    def _sweep(self) -> None:
        """Forget compartments whose namespace is gone (a reboot), let go of namespaces that nobody knows."""
        self._pins.mkdir(parents=True, exist_ok=True, mode=0o711)
        for container_id in list(self._compartments):
            if not netns.is_pinned(self._pins / container_id):
                del self._compartments[container_id]
                self._store.write_now(Delete(COMPARTMENTS, container_id))
        for pin in self._pins.iterdir():
            if pin.name not in self._compartments:
                netns.remove(pin)

    def exports(self) -> dict[str, Handler]:
        """The service's part of the function table."""
        return {
            "HNSCall": self.call,
            "GetCompartments": self.get_compartments,
            "GetIPInterfaces": self.get_interfaces,
            "GetRoutes": self.get_routes,
        }

    async def call(self, Method: str, Path: str, Request: Any = None) -> dict[str, Any]:  # noqa: N803 - the wire's
        """One REST-shaped call.  What is refused is in the envelope, with the code's text in front."""
        output: Any = None
        match [part for part in Path.split("/") if part]:
            case ["networks", *rest]:
                output = await self._call_networks(Method, rest, Request)
            case ["endpoints", *rest]:
                output = await self._call_endpoints(Method, rest, Request)
            case ["namespaces"] if Method == "GET":
                output = self._namespaces()
            case ["globals", "version"] if Method == "GET":
                output = VERSION
            case _:
                raise _unknown(Method, Path)
        return {"Success": True, "Output": output}

    async def _call_networks(self, method: str, rest: list[str], request: Any) -> Any:
        match method, rest:
            case "GET", []:
                return list(self._networks.values())
            case "POST", []:
                return await self._create_network(_document(request, HnsNetwork))
            case "GET", [identifier]:
                return self._network(identifier)
            case "DELETE", [identifier]:
                await self._delete_network(identifier)
            case _:
                raise _unknown(method, "/".join(["/networks", *rest]))
        return None

    async def _call_endpoints(self, method: str, rest: list[str], request: Any) -> Any:
        match method, rest:
            case "GET", []:
                return list(self._endpoints.values())
            case "POST", []:
                return await self._create_endpoint(_document(request, HnsEndpoint))
            case "GET", [identifier]:
                return self._endpoint(identifier)
            case "DELETE", [identifier]:
                await self._delete_endpoint(identifier)
            case "POST", [identifier, "attach"]:
                await self.attach_endpoint(_container_of(request), identifier)
            case "POST", [identifier, "detach"]:
                await self.detach_endpoint(_container_of(request), identifier)
            case _:
                raise _unknown(method, "/".join(["/endpoints", *rest]))
        return None

    def _network(self, identifier: str) -> HnsNetwork:
        network = self._networks.get(identifier.lower())
        if network is None:
            raise HostError(Code.HCN_NETWORK_NOT_FOUND, f"network {identifier}: Element not found.")
        return network

    def _endpoint(self, identifier: str) -> HnsEndpoint:
        endpoint = self._endpoints.get(identifier.lower())
        if endpoint is None:
            raise HostError(Code.HCN_ENDPOINT_NOT_FOUND, f"endpoint {identifier}: Element not found.")
        return endpoint

    async def _create_network(self, wanted: HnsNetwork) -> HnsNetwork:
        kind = plan.check_type(wanted.Type)
        for subnet in wanted.Subnets:
            if not subnet.GatewayAddress and kind != "private":
                raise HostError(Code.HCN_INVALID_NETWORK, f"subnet {subnet.AddressPrefix} has no gateway")
        identifier = (wanted.ID or new_guid()).lower()
        async with self._lock:
            if identifier in self._networks:
                raise HostError(Code.HCN_NETWORK_ALREADY_EXISTS, f"network {identifier} exists already")
            bridge = plan.bridge_name(self._instance, identifier)
            network = msgspec.structs.replace(wanted, ID=identifier, Type=kind, Bridge=bridge)
            async with Undo() as undo:
                await leaf(self._make_switch, network)
                undo.push_async_callback(leaf, links.delete, bridge)
                self._networks[identifier] = network
                undo.callback(self._networks.pop, identifier, None)
                await self._program()
                effect("nft", "+", f"table ip {plan.table_name(self._instance)}: rules of {bridge}")
                await self._store.write(Put(NETWORKS, identifier, msgspec.json.encode(network)))
                undo.pop_all()
        return network

    def _make_switch(self, network: HnsNetwork) -> None:
        """The bridge that is the network's virtual switch, if it is not there."""
        if links.exists(network.Bridge):
            return
        subnet = network.Subnets[0] if network.Subnets else None
        gateway = subnet.GatewayAddress if subnet and network.Type != "private" else None
        prefix = int(subnet.AddressPrefix.partition("/")[2]) if subnet else 0
        links.add_bridge(network.Bridge, f"vEthernet ({network.Name or network.Type})"[:255], gateway, prefix)
        effect("link", "+", network.Bridge)
        if network.Type == "nat" and FORWARD.read_text("ascii").strip() == "0":
            FORWARD.write_text("1", "ascii")
            effect("sysctl", "+", "net.ipv4.ip_forward=1")

    async def _program(self) -> None:
        """Make the nftables table what the networks need."""
        networks = list(self._networks.values())
        commands = plan.ruleset(self._instance, networks) if networks else plan.no_table(self._instance)
        await leaf(nft.run, commands)

    async def _delete_network(self, identifier: str) -> None:
        async with self._lock:
            network = self._network(identifier)
            users = [one.ID for one in self._endpoints.values() if one.VirtualNetwork == network.ID]
            if users:
                raise HostError(Code.HCN_ENTITY_HAS_REFERENCES, f"network {network.Name} has endpoint {users[0]}")
            await self._store.write(Delete(NETWORKS, network.ID))
            del self._networks[network.ID]
            await self._program()
            await leaf(links.delete, network.Bridge)
            effect("link", "-", network.Bridge)

    async def _create_endpoint(self, wanted: HnsEndpoint) -> HnsEndpoint:
        """Reserve an address.  Nothing is made in the kernel."""
        network = self._network(wanted.VirtualNetwork)
        async with self._lock:
            identifier = (wanted.ID or new_guid()).lower()
            used = {one.IPAddress for one in self._endpoints.values() if one.VirtualNetwork == network.ID}
            address, prefix = plan.choose_address(network, wanted.IPAddress, used)
            gateway = network.Subnets[0].GatewayAddress if network.Type == "nat" else ""
            endpoint = msgspec.structs.replace(
                wanted,
                ID=identifier,
                VirtualNetwork=network.ID,
                VirtualNetworkName=network.Name,
                IPAddress=address,
                PrefixLength=prefix,
                MacAddress=(wanted.MacAddress or plan.mac_for(address)).upper().replace(":", "-"),
                GatewayAddress=wanted.GatewayAddress or gateway,
                State=hns.STATE_CREATED,
                Port=plan.port_name(identifier),
                SharedContainers=(),
            )
            self._endpoints[identifier] = endpoint
            try:
                await self._store.write(_put(endpoint))
            except BaseException:
                del self._endpoints[identifier]
                raise
        return endpoint

    async def _delete_endpoint(self, identifier: str) -> None:
        async with self._lock:
            endpoint = self._endpoint(identifier)
            for compartment in self._compartments.values():
                if endpoint.ID in compartment.endpoints:
                    await self._detach(compartment, endpoint)
                    break
            await self._store.write(Delete(ENDPOINTS, endpoint.ID))
            del self._endpoints[endpoint.ID]

    @traced("hns::CreateCompartment", "mode")
    async def create_compartment(self, container_id: str, endpoint_ids: Sequence[str], mode: str) -> str:
        """Make the compartment with a vNIC and a port for each endpoint; return its namespace's path.

        ``mode`` is ``private``, ``host`` (no compartment: empty path) or ``shared:<container id>``.  All or nothing.
        """
        if mode == "host":
            return ""
        if mode.startswith("shared:"):
            return await self._share(container_id, mode.removeprefix("shared:"))
        async with self._lock:
            endpoints = plan.order(endpoint_ids, self._endpoints)
            number = plan.lowest_free(compartment.id for compartment in self._compartments.values())
            compartment = Compartment(number, new_guid(), container_id, tuple(endpoint_ids))
            # in memory first: the id and the addresses are ours while the kernel works
            self._compartments[container_id] = compartment
        pin = self._pins / container_id
        async with Undo() as undo:
            undo.push_async_callback(self.release_compartment, container_id)
            await leaf(self._build, pin, endpoints)
            effect("compartment", "+", f"{number} \\Container_{container_id}")
            await self._record(compartment, endpoints, hns.STATE_ATTACHED, (container_id,))
            undo.pop_all()
        return str(pin)

    def _build(self, pin: Path, endpoints: Sequence[HnsEndpoint]) -> None:
        """The namespace, its links and the switch's ports."""
        netns.remove(pin)  # of a run that a crash cut short
        nics = [
            links.VirtualNic(
                name=f"eth{position}",
                port=endpoint.Port,
                alias=plan.nic_alias(endpoint.ID),
                mac=plan.linux_mac(endpoint.MacAddress),
                address=endpoint.IPAddress,
                prefix=endpoint.PrefixLength,
                gateway=endpoint.GatewayAddress,
            )
            for position, endpoint in enumerate(endpoints)
        ]

        def work() -> None:
            links.loopback_up()
            if nics:
                links.add_nics(nics, self._host)

        netns.create(pin, work)
        effect("netns", "+", f"{pin} net:[{netns.inode(pin)}]")
        for nic in nics:
            effect("link", "+", f"{nic.name} {nic.alias}")
            effect("address", "+", f"{nic.address}/{nic.prefix}")
        self._connect(endpoints)

    def _connect(self, endpoints: Sequence[HnsEndpoint]) -> None:
        if not endpoints:
            return
        ports = {one.Port: self._network(one.VirtualNetwork).Bridge for one in endpoints}
        links.connect_ports(ports, {one.Port: plan.nic_alias(one.ID) for one in endpoints})
        for port, bridge in ports.items():
            effect("port", "+", f"{bridge}/{port}")

    async def _record(
        self, compartment: Compartment, endpoints: Sequence[HnsEndpoint], state: int, containers: tuple[str, ...]
    ) -> None:
        steps: list[Step] = [Put(COMPARTMENTS, compartment.container_id, msgspec.json.encode(compartment))]
        for endpoint in endpoints:
            changed = msgspec.structs.replace(endpoint, State=state, SharedContainers=containers)
            self._endpoints[endpoint.ID] = changed
            steps.append(_put(changed))
        await self._store.write(*steps)

    async def _share(self, container_id: str, owner: str) -> str:
        compartment = self._compartments.get(owner)
        if compartment is None:
            raise HostError(Code.ELEMENT_NOT_FOUND, f"container {owner} has no compartment to share")
        sharing = [self._endpoints[one] for one in compartment.endpoints]
        containers = (owner, container_id)
        await self._record(compartment, sharing, hns.STATE_ATTACHED_SHARING, containers)
        return str(self._pins / owner)

    @traced("hns::ReleaseCompartment")
    async def release_compartment(self, container_id: str) -> None:
        """Let go of the compartment.  The kernel takes links away once the last process is gone.  Idempotent."""
        pin = self._pins / container_id
        if container_id not in self._compartments and not pin.exists():
            return
        await leaf(netns.remove, pin)
        effect("netns", "-", pin)
        async with self._lock:  # an endpoint of it may be deleted at this moment
            compartment = self._compartments.pop(container_id, None)
            if compartment is None:
                return
            steps: list[Step] = [Delete(COMPARTMENTS, container_id)]
            for identifier in compartment.endpoints:
                endpoint = self._endpoints.get(identifier)
                if endpoint is not None:
                    changed = msgspec.structs.replace(endpoint, State=hns.STATE_DETACHED, SharedContainers=())
                    self._endpoints[identifier] = changed
                    steps.append(_put(changed))
            await self._store.write(*steps)
        effect("compartment", "-", f"{compartment.id} \\Container_{container_id}")

    async def attach_endpoint(self, container_id: str, endpoint_id: str) -> None:
        """Add an endpoint to a live compartment as its next NIC."""
        endpoint = self._endpoint(endpoint_id)
        async with self._lock:
            compartment = self._live(container_id)
            if endpoint.ID in compartment.endpoints:
                return
            await leaf(self._plug, compartment, endpoint)
            changed = msgspec.structs.replace(compartment, endpoints=(*compartment.endpoints, endpoint.ID))
            self._compartments[container_id] = changed
            await self._record(changed, [endpoint], hns.STATE_ATTACHED, (container_id,))

    def _live(self, container_id: str) -> Compartment:
        compartment = self._compartments.get(container_id)
        if compartment is None:
            raise HostError(Code.SYSTEM_NOT_FOUND, f"container {container_id} has no compartment")
        return compartment

    def _plug(self, compartment: Compartment, endpoint: HnsEndpoint) -> None:
        pin = self._pins / compartment.container_id

        def work() -> str:
            taken = {link.name for link in links.links()}
            name = next(f"eth{number}" for number in range(1000) if f"eth{number}" not in taken)
            has_default = any(route.destination == "0.0.0.0/0" for route in links.routes())
            nic = links.VirtualNic(
                name=name,
                port=endpoint.Port,
                alias=plan.nic_alias(endpoint.ID),
                mac=plan.linux_mac(endpoint.MacAddress),
                address=endpoint.IPAddress,
                prefix=endpoint.PrefixLength,
                gateway="" if has_default else endpoint.GatewayAddress,
            )
            links.add_nics([nic], self._host)
            return name

        effect("link", "+", f"{netns.inside(pin, work)} {plan.nic_alias(endpoint.ID)}")
        try:
            self._connect([endpoint])
        except SiloError:
            links.delete(endpoint.Port)
            raise

    async def detach_endpoint(self, container_id: str, endpoint_id: str) -> None:
        """Take an endpoint out of a live compartment.  One that is not in it is no error."""
        endpoint = self._endpoint(endpoint_id)
        async with self._lock:
            compartment = self._live(container_id)
            if endpoint.ID in compartment.endpoints:
                await self._detach(compartment, endpoint)

    async def _detach(self, compartment: Compartment, endpoint: HnsEndpoint) -> None:
        await leaf(links.delete, endpoint.Port)
        effect("link", "-", endpoint.Port)
        rest = tuple(one for one in compartment.endpoints if one != endpoint.ID)
        changed = msgspec.structs.replace(compartment, endpoints=rest)
        self._compartments[compartment.container_id] = changed
        await self._record(changed, [endpoint], hns.STATE_DETACHED, ())

    def _namespaces(self) -> list[dict[str, Any]]:
        return [
            {
                "ID": compartment.guid,
                "IsDefault": False,
                "CompartmentId": compartment.id,
                "ResourceList": [{"Type": "Endpoint", "Data": {"Id": one}} for one in compartment.endpoints],
            }
            for compartment in self._compartments.values()
        ]

    def _pins_by_id(self, number: int | None) -> dict[int, Path | None]:
        """Namespaces by compartment id; None is the host's own."""
        pins: dict[int, Path | None] = {1: None}
        for compartment in sorted(self._compartments.values(), key=lambda one: one.id):
            pins[compartment.id] = self._pins / compartment.container_id
        if number is None:
            return pins
        if number not in pins:
            raise HostError(Code.ELEMENT_NOT_FOUND, f"compartment {number} does not exist")
        return {number: pins[number]}

    async def get_compartments(self) -> list[dict[str, Any]]:
        """What Get-NetCompartment shows, with the namespace's number as the kernel has it."""
        rows = [views.default_compartment()]
        for compartment in sorted(self._compartments.values(), key=lambda one: one.id):
            pin = self._pins / compartment.container_id
            rows.append(views.compartment(compartment.id, compartment.guid, compartment.container_id, pin))
        return rows

    async def get_interfaces(self, CompartmentId: int | None = None) -> list[dict[str, Any]]:  # noqa: N803
        """What Get-NetIPInterface shows, read from the kernel."""
        return await leaf(views.interfaces, self._pins_by_id(CompartmentId))

    async def get_routes(self, CompartmentId: int | None = None) -> list[dict[str, Any]]:  # noqa: N803
        """What Get-NetRoute shows, read from the kernel."""
        return await leaf(views.routes, self._pins_by_id(CompartmentId))


def _unknown(method: str, path: str) -> HostError:
    return HostError(Code.HCN_REQUEST_UNSUPPORTED, f"HNS has no {method} {path}")


def _put(endpoint: HnsEndpoint) -> Put:
    return Put(ENDPOINTS, endpoint.ID, msgspec.json.encode(endpoint))


def _document(request: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(request or {}, kind)
    except msgspec.ValidationError as exc:
        raise HostError(Code.HCN_INVALID_JSON, f"request: {exc}") from exc


def _container_of(request: Any) -> str:
    container_id = (request or {}).get("ContainerId", "")
    if not isinstance(container_id, str) or not container_id:
        raise HostError(Code.HCN_INVALID_JSON, "request: ContainerId must name a container")
    return container_id
