"""The ``windows`` driver: networks and endpoints are HNS objects (reference, section 5.4)."""

from __future__ import annotations

import logging
from collections.abc import Collection

from msgspec.structs import replace

from silo.errors import InvalidParameter, NotFound, SiloError
from silo.hcsshim import hns
from silo.hcsshim.gate import Gate
from silo.ids import HnsID
from silo.network.model import Endpoint, Network
from silo.schema.hns import HnsEndpoint, HnsNetwork, Subnet
from silo.telemetry import traced

log = logging.getLogger(__name__)


class WindowsDriver:
    """See :class:`silo.network.driverapi.Driver`.  One instance for each name that the driver goes by."""

    max_networks: int | None = None

    def __init__(self, gate: Gate, name: str) -> None:
        self._gate = gate
        self.name = name

    @traced("windows::CreateNetwork")
    async def create_network(self, network: Network) -> Network:
        """See the Protocol: POST /networks/."""
        pools = network.ipam.config
        if not pools:
            raise InvalidParameter(f"network {network.name} has no IPv4 subnet")
        made = await hns.create_network(
            self._gate,
            HnsNetwork(
                Name=network.name,
                Type="internal" if network.internal else "nat",
                Subnets=tuple(Subnet(pool.subnet, pool.gateway) for pool in pools),
            ),
        )
        return replace(network, hns_id=made.ID)

    @traced("windows::DeleteNetwork")
    async def delete_network(self, network: Network) -> None:
        """See the Protocol: DELETE /networks/<id>."""
        try:
            await hns.delete_network(self._gate, network.hns_id)
        except NotFound:
            return

    @traced("windows::CreateEndpoint")
    async def create_endpoint(self, network: Network, endpoint: Endpoint) -> Endpoint:
        """See the Protocol: POST /endpoints/.  The address is reserved, nothing exists in the kernel."""
        made = await hns.create_endpoint(
            self._gate,
            HnsEndpoint(
                Name=endpoint.id,
                VirtualNetwork=network.hns_id,
                IPAddress=endpoint.address,
                MacAddress=endpoint.mac.upper().replace(":", "-"),
                EnableInternalDNS=True,
            ),
        )
        return replace(
            endpoint,
            hns_id=HnsID(made.ID),
            address=made.IPAddress,
            prefix=made.PrefixLength,
            gateway=made.GatewayAddress,
            mac=made.MacAddress.lower().replace("-", ":"),
        )

    @traced("windows::DeleteEndpoint")
    async def delete_endpoint(self, network: Network, endpoint: Endpoint) -> None:  # noqa: ARG002 - the Protocol's
        """See the Protocol: DELETE /endpoints/<id>."""
        try:
            await hns.delete_endpoint(self._gate, endpoint.hns_id)
        except NotFound:
            return

    @traced("windows::Join")
    async def join(self, network: Network, endpoint: Endpoint, sandbox_key: str) -> Endpoint:  # noqa: ARG002
        """See the Protocol.  Recorded only: HCS attaches the endpoint when it creates the compute system."""
        return replace(endpoint, joined=True)

    @traced("windows::Leave")
    async def leave(self, network: Network, endpoint: Endpoint) -> None:
        """See the Protocol.  The compartment is released with its compute system."""

    @traced("windows::Restore")
    async def restore(self, networks: Collection[Network], endpoints: Collection[Endpoint]) -> list[Network]:
        """See the Protocol: HNS may have more than was recorded, and less when its own record was lost."""
        known = {one.hns_id for one in networks} | {one.hns_id for one in endpoints}
        for endpoint in await hns.list_endpoints(self._gate):
            if endpoint.ID not in known:
                await hns.delete_endpoint(self._gate, endpoint.ID)
        there = {network.ID for network in await hns.list_networks(self._gate)}
        for identifier in there - known:
            await hns.delete_network(self._gate, identifier)
        changed = []
        for network in networks:
            if network.driver == self.name and network.hns_id not in there:
                try:
                    changed.append(await self.create_network(network))
                except SiloError:  # an engine that does not start would be worse than a network that does not work
                    log.exception("make network %s anew", network.name)
        return changed
