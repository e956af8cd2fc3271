"""The network controller: networks by name, and each container's sandbox with its endpoints.

Making endpoints and joining them changes nothing in the kernel; the compute system's creation does.  What is kept are
networks and endpoints; everything else is counted from them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import anyio
import msgspec

from silo.errors import Conflict, Forbidden, InvalidParameter, NotFound, SiloError
from silo.ids import ContainerID, EndpointID, NetworkID, random_id
from silo.network import ipam
from silo.network.driverapi import Driver, HostView
from silo.network.model import Endpoint, EndpointRequest, Network, Sandbox
from silo.resources import Undo
from silo.schema.engine import EndpointSettings
from silo.schema.network import IPAM, NetworkCreate
from silo.store import Delete, Put, Store, decode_all
from silo.telemetry import span, traced

NETWORKS: Final = "networks"
ENDPOINTS: Final = "endpoints"
PREDEFINED: Final = {"bridge": "bridge", "host": "host", "none": "null"}
ALIASES: Final = {"default": "bridge", "nat": "bridge"}
"""Other names of the default network: Docker's word for it, and its name on Windows."""
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


class Controller:
    """Networks, sandboxes and endpoints of one engine."""

    def __init__(self, store: Store, drivers: Mapping[str, Driver], host: HostView) -> None:
        self._store = store
        self._drivers = drivers
        self._host = host
        self._networks: dict[NetworkID, Network] = {}
        self._endpoints: dict[EndpointID, Endpoint] = {}
        self._lock = anyio.Lock()

    async def restore(self, live: Collection[ContainerID]) -> None:
        """At start: the default networks exist, endpoints of containers that do not run are given back."""
        self._networks = {one.id: one for one in decode_all(Network, self._store.load(NETWORKS)).values()}
        self._endpoints = {one.id: one for one in decode_all(Endpoint, self._store.load(ENDPOINTS)).values()}
        for container_id in {one.container_id for one in self._endpoints.values()} - set(live):
            await self.release(container_id)
        for one in self._drivers.values():
            await one.sweep(self._networks.values(), self._endpoints.values())
        names = {network.name for network in self._networks.values()}
        for name, driver in PREDEFINED.items():
            if name not in names:
                await self._create(NetworkCreate(name=name, driver=driver))

    async def create_network(self, request: NetworkCreate) -> tuple[NetworkID, str]:
        """Make a network; return its id and a warning.

        Raises InvalidParameter, Conflict for a name in use, NotFound for an unknown driver, Forbidden for a pool that
        overlaps.
        """
        if not _NAME.fullmatch(request.name):
            raise InvalidParameter(
                f"invalid network name {request.name!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-]* are allowed"
                if request.name.strip()
                else "invalid network name: name is empty"
            )
        if request.name in {*PREDEFINED, *ALIASES}:
            raise Forbidden(f"operation is not permitted on predefined {request.name} network")
        if request.config_only or request.config_from or request.ingress:
            raise InvalidParameter(f"network {request.name}: config-only, config-from and ingress are not supported")
        if request.enable_ipv6:
            raise InvalidParameter(f"network {request.name}: IPv6 is not supported yet")
        return (await self._create(request)).id, ""

    @traced("cnm::CreateNetwork")
    async def _create(self, request: NetworkCreate) -> Network:
        driver = self._driver(request.driver or "bridge")
        async with self._lock:
            if any(network.name == request.name for network in self._networks.values()):
                raise Conflict(f"network with name {request.name} already exists")
            if driver.max_networks is not None and any(
                network.driver == driver.name for network in self._networks.values()
            ):
                raise Forbidden(f"only one instance of {driver.name!r} network is allowed".replace("'", '"'))
            network = Network(
                id=NetworkID(random_id()),
                name=request.name,
                driver=request.driver or "bridge",
                created=_now(),
                internal=request.internal,
                attachable=request.attachable,
                ipam=await self._ipam(driver, request),
                options=request.options,
                labels=request.labels,
            )
            async with Undo() as undo:
                network = await driver.create_network(network)
                undo.push_async_callback(driver.delete_network, network)
                await self._store.write(Put(NETWORKS, network.id, msgspec.json.encode(network)))
                self._networks[network.id] = network
                undo.pop_all()
            return network

    async def _ipam(self, driver: Driver, request: NetworkCreate) -> IPAM:
        if driver.max_networks is not None:
            return request.ipam or IPAM()
        if request.ipam is not None and request.ipam.driver not in {"", "default"}:
            raise NotFound(f'could not find plugin "{request.ipam.driver}" in v1 plugin registry: plugin not found')
        configs = request.ipam.config if request.ipam else []
        if len(configs) > 1:
            raise InvalidParameter(f"network {request.name}: one IPv4 subnet, not {len(configs)}")
        taken = [pool.subnet for network in self._networks.values() for pool in network.ipam.config]
        routed = await self._host.route_destinations()
        pool = ipam.choose(configs[0] if configs else None, taken, routed)
        return ipam.complete(request.ipam, pool)

    def _driver(self, name: str) -> Driver:
        driver = self._drivers.get(name)
        if driver is None:
            raise NotFound(f'could not find plugin "{name}" in v1 plugin registry: plugin not found')
        return driver

    def networks(self) -> list[Network]:
        """Every network by name."""
        return sorted(self._networks.values(), key=lambda network: network.name)

    def find(self, reference: str) -> Network:
        """The network of this id, name or unique id prefix.  Raises NotFound, InvalidParameter."""
        exact = self._networks.get(NetworkID(reference))
        if exact is not None:
            return exact
        name = ALIASES.get(reference, reference)
        for network in self._networks.values():
            if network.name == name:
                return network
        matching = [network for network in self._networks.values() if reference and network.id.startswith(reference)]
        if len(matching) > 1:
            raise InvalidParameter(f"network {reference} is ambiguous ({len(matching)} matches found on ID prefix)")
        if not matching:
            raise NotFound(f"network {reference} not found")
        return matching[0]

    def inspect(self, network: Network) -> dict[str, Any]:
        """A network as the Engine API shows it, with the endpoints that are joined."""
        return {
            "Name": network.name,
            "Id": network.id,
            "Created": network.created,
            "Scope": "local",
            "Driver": network.driver,
            "EnableIPv4": True,
            "EnableIPv6": False,
            "IPAM": {
                "Driver": network.ipam.driver,
                "Options": network.ipam.options,
                "Config": [_pool(msgspec.to_builtins(pool)) for pool in network.ipam.config],
            },
            "Internal": network.internal,
            "Attachable": network.attachable,
            "Ingress": False,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": False,
            "Containers": {
                endpoint.container_id: {
                    "Name": endpoint.container_name,
                    "EndpointID": endpoint.id,
                    "MacAddress": endpoint.mac,
                    "IPv4Address": f"{endpoint.address}/{endpoint.prefix}" if endpoint.address else "",
                    "IPv6Address": "",
                }
                for endpoint in self._endpoints.values()
                if endpoint.network_id == network.id
            },
            "Options": network.options,
            "Labels": network.labels,
        }

    @traced("cnm::DeleteNetwork", "reference")
    async def remove_network(self, reference: str) -> None:
        """Remove a network that no running container is on.  Raises NotFound, Forbidden."""
        network = self.find(reference)
        if network.name in PREDEFINED:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        async with self._lock:
            users = [endpoint for endpoint in self._endpoints.values() if endpoint.network_id == network.id]
            if users:
                shown = ", ".join(f'name:"{one.container_name}" id:"{one.id[:12]}"' for one in users)
                raise Forbidden(f"error while removing network: network {network.name} has active endpoints ({shown})")
            await self._driver(network.driver).delete_network(network)
            await self._store.write(Delete(NETWORKS, network.id))
            self._networks.pop(network.id, None)

    async def allocate(
        self, container_id: ContainerID, container_name: str, requests: Sequence[EndpointRequest]
    ) -> Sandbox:
        """A sandbox with a joined endpoint on every network, in the order of ``requests``.  All or nothing.

        No kernel object is made.  What an earlier run left is released first.
        """
        await self.release(container_id)
        with span("cnm::NewSandbox", id=container_id):
            endpoints: list[Endpoint] = []
            async with Undo() as undo:
                undo.push_async_callback(self.release, container_id)
                for request in requests:
                    made = await self._connect(container_id, container_name, request)
                    endpoints.append(made)
                if endpoints:
                    puts = [Put(ENDPOINTS, one.id, msgspec.json.encode(one)) for one in endpoints]
                    await self._store.write(*puts)
                undo.pop_all()
            return Sandbox(id=container_id, key=container_id, endpoints=tuple(endpoints))

    async def _connect(self, container_id: ContainerID, container_name: str, request: EndpointRequest) -> Endpoint:
        network = self.find(request.network)
        driver = self._driver(network.driver)
        endpoint = Endpoint(
            id=EndpointID(random_id()),
            network_id=network.id,
            network_name=network.name,
            container_id=container_id,
            container_name=container_name,
        )
        _check(network, request.settings)
        with span("cnm::CreateEndpoint", network=network.name, endpoint=endpoint.id):
            endpoint = await driver.create_endpoint(network, endpoint, request.settings)
        self._endpoints[endpoint.id] = endpoint
        with span("cnm::Join", network=network.name, endpoint=endpoint.id):
            endpoint = await driver.join(network, endpoint, container_id)
        self._endpoints[endpoint.id] = endpoint
        return endpoint

    async def release(self, container_id: ContainerID) -> None:
        """Leave and delete every endpoint of the container.  Idempotent; what cannot be released now stays recorded."""
        mine = [endpoint for endpoint in self._endpoints.values() if endpoint.container_id == container_id]
        if not mine:
            return
        failed: SiloError | None = None
        with span("cnm::DeleteSandbox", id=container_id):
            for endpoint in mine:
                try:
                    await self._disconnect(endpoint)
                except SiloError as exc:
                    failed = exc
            gone = [endpoint.id for endpoint in mine if endpoint.id not in self._endpoints]
            if gone:
                await self._store.write(*(Delete(ENDPOINTS, one) for one in gone))
        if failed is not None:
            raise failed

    async def _disconnect(self, endpoint: Endpoint) -> None:
        network = self._networks[endpoint.network_id]
        driver = self._driver(network.driver)
        if endpoint.joined:
            await driver.leave(network, endpoint)
        await driver.delete_endpoint(network, endpoint)
        self._endpoints.pop(endpoint.id, None)

    async def connect(self, container_id: ContainerID, container_name: str, request: EndpointRequest) -> Endpoint:
        """One more endpoint for a container that runs; the caller has it attached to the live compartment."""
        endpoint = await self._connect(container_id, container_name, request)
        await self._store.write(Put(ENDPOINTS, endpoint.id, msgspec.json.encode(endpoint)))
        return endpoint

    async def disconnect(self, container_id: ContainerID, network: Network) -> None:
        """Give back the container's endpoint on one network.  Raises NotFound."""
        endpoint = self.endpoint_of(container_id, network)
        await self._disconnect(endpoint)
        await self._store.write(Delete(ENDPOINTS, endpoint.id))

    def endpoint_of(self, container_id: ContainerID, network: Network) -> Endpoint:
        """The container's endpoint on the network.  Raises NotFound."""
        for endpoint in self._endpoints.values():
            if endpoint.container_id == container_id and endpoint.network_id == network.id:
                return endpoint
        raise NotFound(f"container {container_id} is not connected to network {network.name}")


def _check(network: Network, settings: EndpointSettings) -> None:
    wanted = settings.ipam_config
    if wanted and (wanted.ipv4_address or wanted.ipv6_address) and network.name in {*PREDEFINED}:
        raise InvalidParameter("user specified IP address is supported on user defined networks only")


def _pool(shown: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in shown.items() if value}


def _now() -> str:
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"
