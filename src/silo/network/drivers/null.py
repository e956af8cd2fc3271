"""``none`` and ``host``: networks without endpoints of their own in HNS."""

from __future__ import annotations

from collections.abc import Collection

from msgspec.structs import replace

from silo.network.model import Endpoint, Network


class NullDriver:
    """See :class:`silo.network.driverapi.Driver`.  There is one network of each of these kinds, made by the engine."""

    max_networks: int | None = 1

    def __init__(self, name: str) -> None:
        self.name = name

    async def create_network(self, network: Network) -> Network:
        """See the Protocol."""
        return network

    async def delete_network(self, network: Network) -> None:
        """See the Protocol."""

    async def create_endpoint(self, network: Network, endpoint: Endpoint) -> Endpoint:  # noqa: ARG002 - the Protocol's
        """See the Protocol."""
        return endpoint

    async def delete_endpoint(self, network: Network, endpoint: Endpoint) -> None:
        """See the Protocol."""

    async def join(self, network: Network, endpoint: Endpoint, sandbox_key: str) -> Endpoint:  # noqa: ARG002
        """See the Protocol."""
        return replace(endpoint, joined=True)

    async def leave(self, network: Network, endpoint: Endpoint) -> None:
        """See the Protocol."""

    async def restore(self, networks: Collection[Network], endpoints: Collection[Endpoint]) -> list[Network]:  # noqa: ARG002
        """See the Protocol."""
        return []
