"""What a network driver does, in the container network model's verbs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from silo.network.model import Endpoint, Network
from silo.schema.engine import EndpointSettings


class Driver(Protocol):
    """One kind of network.  Joining must have no effect in the kernel: that comes with the compute system."""

    name: str
    max_networks: int | None
    """How many networks of the kind there may be; None is any number."""

    async def create_network(self, network: Network) -> Network:
        """Make it; the answer may know more (the HNS id).  Raises SiloError, having undone what it did."""
        ...

    async def delete_network(self, network: Network) -> None:
        """Unmake it; one that is not there is no error."""
        ...

    async def create_endpoint(self, network: Network, endpoint: Endpoint, wanted: EndpointSettings) -> Endpoint:
        """Reserve what the endpoint needs; the answer has its addresses."""
        ...

    async def delete_endpoint(self, network: Network, endpoint: Endpoint) -> None:
        """Give it back; one that is not there is no error."""
        ...

    async def join(self, network: Network, endpoint: Endpoint, sandbox_key: str) -> Endpoint:
        """The endpoint is to be part of the sandbox."""
        ...

    async def sweep(self, networks: Collection[Network], endpoints: Collection[Endpoint]) -> None:
        """After a restart: give back what the driver has beyond these (a crash came before they were recorded)."""
        ...

    async def leave(self, network: Network, endpoint: Endpoint) -> None:
        """It no longer is."""
        ...


class HostView(Protocol):
    """What the core asks of the host: facts only."""

    async def route_destinations(self) -> list[str]:
        """The prefixes that the host routes, as ``a.b.c.d/n``."""
        ...
