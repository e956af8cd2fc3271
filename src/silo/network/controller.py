"""The network controller: networks by name, and each container's sandbox with its endpoints.

Making endpoints and joining them changes nothing in the kernel; the compute system's creation does.  What is kept are
networks and endpoints; everything else follows from them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import anyio
import msgspec

from silo.errors import Conflict, Forbidden, InvalidParameter, NotFound, SiloError, Unavailable
from silo.ids import ContainerID, EndpointID, NetworkID, random_id
from silo.network import ipam, requests, views
from silo.network.driverapi import Driver, HostView
from silo.network.model import Endpoint, EndpointRequest, Network, Sandbox
from silo.network.requests import ALIASES, PREDEFINED
from silo.resources import Undo
from silo.schema.engine import EndpointSettings
from silo.schema.network import IPAM, NetworkCreate
from silo.store import Delete, Put, Store, decode_all
from silo.telemetry import span, traced

log = logging.getLogger(__name__)

NETWORKS: Final = "networks"
ENDPOINTS: Final = "endpoints"


class Controller:
    """Networks, sandboxes and endpoints of one engine."""

    def __init__(self, store: Store, drivers: Mapping[str, Driver], host: HostView) -> None:
        self._store = store
        self._drivers = drivers
        self._host = host
        self._networks: dict[NetworkID, Network] = {}
        self._endpoints: dict[EndpointID, Endpoint] = {}
        self._addresses: dict[NetworkID, ipam.Addresses] = {}
        self._lock = anyio.Lock()

    async def restore(self, live: Collection[ContainerID]) -> None:
        """At start: the default networks exist, endpoints of containers that do not run are given back."""
        for network in decode_all(Network, self._store.load(NETWORKS)).values():
            self._add(network)
        for endpoint in decode_all(Endpoint, self._store.load(ENDPOINTS)).values():
            self._endpoints[endpoint.id] = endpoint
            if endpoint.address and endpoint.network_id in self._addresses:
                self._addresses[endpoint.network_id].hold(endpoint.address)
        for container_id in {one.container_id for one in self._endpoints.values()} - set(live):
            try:
                await self.release(container_id)
            except SiloError:  # it stays recorded, and is tried again at the container's next start
                log.exception("release the network of container %s", container_id)
        for driver in self._drivers.values():
            for network in await driver.restore(self.networks(), list(self._endpoints.values())):
                await self._store.write(Put(NETWORKS, network.id, msgspec.json.encode(network)))
                self._networks[network.id] = network
        names = {network.name for network in self._networks.values()}
        for name, driver_name in PREDEFINED.items():
            if name not in names:
                await self._create(NetworkCreate(name=name, driver=driver_name))

    def _add(self, network: Network) -> None:
        self._networks[network.id] = network
        if network.ipam.config:
            self._addresses[network.id] = ipam.Addresses(network.ipam.config[0])

    def _drop(self, network: Network) -> None:
        self._networks.pop(network.id, None)
        self._addresses.pop(network.id, None)

    async def create_network(self, request: NetworkCreate) -> tuple[NetworkID, str]:
        """Make a network; return its id and a warning.

        Raises InvalidParameter, Conflict for a name in use, NotFound for an unknown driver, Forbidden for a pool that
        overlaps.
        """
        requests.check_network(request)
        return (await self._create(request)).id, requests.warning(request)

    @traced("cnm::CreateNetwork")
    async def _create(self, request: NetworkCreate) -> Network:
        driver = self._driver(request.driver or "bridge")
        async with self._lock:
            if any(network.name == request.name for network in self._networks.values()):
                raise Conflict(f"network with name {request.name} already exists")
            if driver.max_networks is not None and any(
                network.driver == driver.name for network in self._networks.values()
            ):
                raise Forbidden(f'only one instance of "{driver.name}" network is allowed')
            chosen, static = await self._ipam(driver, request)
            network = Network(
                id=NetworkID(random_id()),
                name=request.name,
                driver=request.driver or "bridge",
                created=_now(),
                internal=request.internal,
                attachable=request.attachable,
                ipam=chosen,
                static=static,
                options=request.options,
                labels=request.labels,
            )
            async with Undo() as undo:
                network = await driver.create_network(network)
                undo.push_async_callback(driver.delete_network, network)
                await self._store.write(Put(NETWORKS, network.id, msgspec.json.encode(network)))
                self._add(network)
                undo.pop_all()
            return network

    async def _ipam(self, driver: Driver, request: NetworkCreate) -> tuple[IPAM, bool]:
        """The network's pool, and whether the user named it."""
        if driver.max_networks is not None:
            return request.ipam or IPAM(), False
        configs = ipam.ipv4(request.ipam.config if request.ipam else [])
        if len(configs) > 1:
            raise Forbidden("bridge driver doesn't support multiple subnets")
        config = configs[0] if configs else None
        taken = [pool.subnet for network in self._networks.values() for pool in network.ipam.config]
        routed = [] if config else await self._host.route_destinations()
        return ipam.complete(request.ipam, config, ipam.choose(config, taken, routed)), config is not None

    def _driver(self, name: str) -> Driver:
        driver = self._drivers.get(name)
        if driver is None:
            raise NotFound(requests.no_plugin(name))
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
            raise InvalidParameter(
                f"network {reference} is ambiguous ({len(matching)} matches found based on ID prefix)"
            )
        if not matching:
            raise NotFound(f"network {reference} not found")
        return matching[0]

    def inspect(self, network: Network) -> dict[str, Any]:
        """A network as the Engine API shows it, with the endpoints that are joined."""
        return views.network(network, self._endpoints_on(network))

    def _endpoints_on(self, network: Network) -> list[Endpoint]:
        return [endpoint for endpoint in self._endpoints.values() if endpoint.network_id == network.id]

    @traced("cnm::DeleteNetwork", "reference")
    async def remove_network(self, reference: str) -> None:
        """Remove a network that no running container is on.  Raises NotFound, Forbidden."""
        network = self.find(reference)
        if network.name in PREDEFINED:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        async with self._lock:
            network = self.find(network.id)  # it may have gone while we waited
            users = self._endpoints_on(network)
            if users:
                shown = ", ".join(f'name:"{one.container_name}" id:"{one.id[:12]}"' for one in users)
                raise Forbidden(f"error while removing network: network {network.name} has active endpoints ({shown})")
            addresses = self._addresses.get(network.id)
            self._drop(network)  # from now on no endpoint is made on it
            try:
                await self._driver(network.driver).delete_network(network)
                await self._store.write(Delete(NETWORKS, network.id))
            except BaseException:
                self._networks[network.id] = network
                if addresses is not None:
                    self._addresses[network.id] = addresses
                raise

    async def allocate(
        self, container_id: ContainerID, container_name: str, wanted: Sequence[EndpointRequest]
    ) -> Sandbox:
        """A sandbox with a joined endpoint on every network, in the order of ``wanted``.  All or nothing.

        No kernel object is made.  What an earlier run left is released first.  Raises NotFound for a network,
        InvalidParameter, Forbidden for an address in use, Unavailable when a network has none left.
        """
        await self.release(container_id)
        with span("cnm::NewSandbox", id=container_id):
            async with Undo() as undo:
                undo.push_async_callback(self.release, container_id)
                endpoints = [await self._connect(container_id, container_name, request) for request in wanted]
                if endpoints:
                    await self._store.write(*(Put(ENDPOINTS, one.id, msgspec.json.encode(one)) for one in endpoints))
                undo.pop_all()
            return Sandbox(id=container_id, key=container_id, endpoints=tuple(endpoints))

    async def _connect(self, container_id: ContainerID, container_name: str, request: EndpointRequest) -> Endpoint:
        network = self.find(request.network)
        driver = self._driver(network.driver)
        address, prefix = self._take(network, request.settings)
        endpoint = Endpoint(
            id=EndpointID(random_id()),
            network_id=network.id,
            network_name=network.name,
            container_id=container_id,
            container_name=container_name,
            address=address,
            prefix=prefix,
            mac=request.settings.mac_address.lower().replace("-", ":"),
        )
        self._endpoints[endpoint.id] = endpoint  # before the first wait: the network stays while we are at it
        try:
            with span("cnm::CreateEndpoint", network=network.name, endpoint=endpoint.id):
                endpoint = await driver.create_endpoint(network, endpoint)
        except BaseException:
            self._forget(endpoint)
            raise
        self._endpoints[endpoint.id] = endpoint
        with span("cnm::Join", network=network.name, endpoint=endpoint.id):
            endpoint = await driver.join(network, endpoint, container_id)
        self._endpoints[endpoint.id] = endpoint
        return endpoint

    def _take(self, network: Network, settings: EndpointSettings) -> tuple[str, int]:
        """An address for an endpoint and its prefix length; none on a network without a pool."""
        asked = requests.check_endpoint(network, settings)
        addresses = self._addresses.get(network.id)
        if addresses is None:
            return "", 0
        try:
            return addresses.take(asked), addresses.prefix
        except InvalidParameter as exc:
            raise InvalidParameter(requests.in_settings(network, str(exc))) from None
        except Unavailable as exc:
            text = f"no available IPv4 addresses on this network's address pools: {network.name} ({network.id})"
            raise Unavailable(text) from exc

    def _forget(self, endpoint: Endpoint) -> None:
        """The endpoint is no more: its address may be given out again."""
        self._endpoints.pop(endpoint.id, None)
        addresses = self._addresses.get(endpoint.network_id)
        if addresses is not None and endpoint.address:
            addresses.give_back(endpoint.address)

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
        network = self._networks.get(endpoint.network_id)
        if network is not None:  # a network that is gone took its endpoints with it
            driver = self._driver(network.driver)
            if endpoint.joined:
                await driver.leave(network, endpoint)
            await driver.delete_endpoint(network, endpoint)
        self._forget(endpoint)

    async def connect(self, container_id: ContainerID, container_name: str, request: EndpointRequest) -> Endpoint:
        """One more endpoint for a container that runs; the caller has it attached to the live compartment."""
        async with Undo() as undo:
            endpoint = await self._connect(container_id, container_name, request)
            undo.push_async_callback(self._disconnect, endpoint)
            await self._store.write(Put(ENDPOINTS, endpoint.id, msgspec.json.encode(endpoint)))
            undo.pop_all()
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


def _now() -> str:
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"
