"""What HNS knows: networks, endpoints and compartments as documents, and what follows from them."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec.structs import replace

from silo.host.results import Code, HostError
from silo.schema import hns
from silo.schema.hns import HnsEndpoint, HnsNetwork
from silo.store import Delete, Put, Store, decode_all

NETWORKS: Final = "hns_networks"
ENDPOINTS: Final = "hns_endpoints"
COMPARTMENTS: Final = "hns_compartments"


class Compartment(msgspec.Struct, frozen=True):
    """A container's network namespace: its number and GUID, its endpoints in NIC order, and who shares it."""

    id: int
    guid: str
    container_id: str
    endpoints: tuple[str, ...] = ()
    sharers: tuple[str, ...] = ()


class State:
    """The documents in memory; what is written is on disk when the verb returns.

    An endpoint's state and containers are not kept: they follow from the compartments.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.networks: dict[str, HnsNetwork] = {}
        self.endpoints: dict[str, HnsEndpoint] = {}
        self.compartments: dict[str, Compartment] = {}
        self._addresses: dict[str, dict[str, str]] = {}
        self._attached: dict[str, str] = {}
        self._detached: set[str] = set()

    def load(self) -> None:
        """Read the documents; once, at start."""
        self.networks = decode_all(HnsNetwork, self._store.load(NETWORKS))
        for endpoint in decode_all(HnsEndpoint, self._store.load(ENDPOINTS)).values():
            self.hold_endpoint(endpoint)
        for compartment in decode_all(Compartment, self._store.load(COMPARTMENTS)).values():
            self.hold_compartment(compartment)

    def network(self, identifier: str) -> HnsNetwork:
        """Raises HostError when there is none of this id."""
        network = self.networks.get(identifier.lower())
        if network is None:
            raise HostError(Code.HCN_NETWORK_NOT_FOUND, f"network {identifier}: Element not found.")
        return network

    def endpoint(self, identifier: str) -> HnsEndpoint:
        """Raises HostError when there is none of this id."""
        endpoint = self.endpoints.get(identifier.lower())
        if endpoint is None:
            raise HostError(Code.HCN_ENDPOINT_NOT_FOUND, f"endpoint {identifier}: Element not found.")
        return endpoint

    def addresses(self, network_id: str) -> dict[str, str]:
        """The addresses in use on a network, each with its endpoint."""
        return self._addresses.setdefault(network_id, {})

    def hold_endpoint(self, endpoint: HnsEndpoint) -> None:
        """The endpoint is there, in memory: its id and address are taken from now on."""
        self.endpoints[endpoint.ID] = endpoint
        self.addresses(endpoint.VirtualNetwork)[endpoint.IPAddress] = endpoint.ID

    def drop_endpoint(self, endpoint: HnsEndpoint) -> None:
        """It is no longer, in memory."""
        self.endpoints.pop(endpoint.ID, None)
        self.addresses(endpoint.VirtualNetwork).pop(endpoint.IPAddress, None)
        self._detached.discard(endpoint.ID)

    def hold_compartment(self, compartment: Compartment) -> None:
        """The compartment is there, in memory, in place of an earlier version of it."""
        self.drop_compartment(compartment.container_id)
        self.compartments[compartment.container_id] = compartment
        for identifier in compartment.endpoints:
            self._attached[identifier] = compartment.container_id
            self._detached.discard(identifier)

    def drop_compartment(self, container_id: str) -> None:
        """It is no longer, in memory; its endpoints are detached."""
        before = self.compartments.pop(container_id, None)
        for identifier in before.endpoints if before else ():
            self._attached.pop(identifier, None)
            self._detached.add(identifier)

    def compartment_with(self, endpoint_id: str) -> Compartment | None:
        """The compartment that an endpoint is in."""
        return self.compartments.get(self._attached.get(endpoint_id, ""))

    def shared_by(self, container_id: str) -> Compartment | None:
        """The compartment of another container that this one shares."""
        return next((one for one in self.compartments.values() if container_id in one.sharers), None)

    def endpoints_of(self, compartment: Compartment) -> list[HnsEndpoint]:
        """In NIC order."""
        return [self.endpoints[one] for one in compartment.endpoints if one in self.endpoints]

    def shown(self, endpoint: HnsEndpoint) -> HnsEndpoint:
        """The endpoint with its state and containers as they are now."""
        compartment = self.compartment_with(endpoint.ID)
        if compartment is None:
            state = hns.STATE_DETACHED if endpoint.ID in self._detached else hns.STATE_CREATED
            return replace(endpoint, State=state, SharedContainers=())
        state = hns.STATE_ATTACHED_SHARING if compartment.sharers else hns.STATE_ATTACHED
        return replace(endpoint, State=state, SharedContainers=(compartment.container_id, *compartment.sharers))

    async def write_network(self, network: HnsNetwork) -> None:
        """Keep a network's document."""
        await self._store.write(Put(NETWORKS, network.ID, msgspec.json.encode(network)))

    async def forget_network(self, network: HnsNetwork) -> None:
        """Delete it, on disk and in memory."""
        await self._store.write(Delete(NETWORKS, network.ID))
        self.networks.pop(network.ID, None)
        self._addresses.pop(network.ID, None)

    async def write_endpoint(self, endpoint: HnsEndpoint) -> None:
        """Keep an endpoint's document."""
        await self._store.write(Put(ENDPOINTS, endpoint.ID, msgspec.json.encode(endpoint)))

    async def forget_endpoint(self, endpoint: HnsEndpoint) -> None:
        """Delete it, on disk and in memory."""
        await self._store.write(Delete(ENDPOINTS, endpoint.ID))
        self.drop_endpoint(endpoint)

    async def write_compartment(self, compartment: Compartment) -> None:
        """Keep a compartment's document."""
        await self._store.write(Put(COMPARTMENTS, compartment.container_id, msgspec.json.encode(compartment)))

    async def forget_compartment(self, container_id: str) -> None:
        """Delete it, on disk and in memory."""
        await self._store.write(Delete(COMPARTMENTS, container_id))
        self.drop_compartment(container_id)
