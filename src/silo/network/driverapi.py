"""What a network driver does, in the container network model's verbs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from silo.network.model import Endpoint, Network


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

    async def create_endpoint(self, network: Network, endpoint: Endpoint) -> Endpoint:
        """Make the endpoint; the answer may fill what is empty (address, MAC address, gateway), and change nothing.

        Raises SiloError, having undone what it did.
        """
        ...

    async def delete_endpoint(self, network: Network, endpoint: Endpoint) -> None:
        """Give it back; one that is not there is no error."""
        ...

    async def join(self, network: Network, endpoint: Endpoint, sandbox_key: str) -> Endpoint:
        """The endpoint is to be part of the sandbox."""
        ...

    async def leave(self, network: Network, endpoint: Endpoint) -> None:
        """It no longer is."""
        ...

    async def restore(self, networks: Collection[Network], endpoints: Collection[Endpoint]) -> list[Network]:
        """After a restart: what the driver has beyond these is given back (a crash came before it was recorded).

        Networks of the driver's own that it no longer has are made anew; the answer has those that changed thereby.
        """
        ...


class HostView(Protocol):
    """What the core asks of the host: facts only."""

    async def route_destinations(self) -> list[str]:
        """The prefixes that the host routes, as ``a.b.c.d/n``."""
        ...
