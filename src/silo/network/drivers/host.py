"""What the network core and the introspection routes ask of the host, through the shim."""

from __future__ import annotations

from typing import Any

import msgspec

from silo.hcsshim import hns
from silo.hcsshim.gate import Gate


class HostNetwork:
    """See :class:`silo.network.driverapi.HostView`; and HNS as it is, for ``silo compartments`` and the like."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def route_destinations(self) -> list[str]:
        """See the Protocol."""
        rows = await hns.routes(self._gate, 1)
        return [row["DestinationPrefix"] for row in rows if row["AddressFamily"] == "IPv4"]

    async def compartments(self) -> list[dict[str, Any]]:
        """What Get-NetCompartment shows."""
        return await hns.compartments(self._gate)

    async def interfaces(self, compartment: int | None) -> list[dict[str, Any]]:
        """What Get-NetIPInterface shows."""
        return await hns.ip_interfaces(self._gate, compartment)

    async def routes(self, compartment: int | None) -> list[dict[str, Any]]:
        """What Get-NetRoute shows."""
        return await hns.routes(self._gate, compartment)

    async def hns(self, path: str) -> list[dict[str, Any]]:
        """A listing of HNS objects."""
        return msgspec.json.decode(await hns.hns_call(self._gate, "GET", path), type=list[dict[str, Any]])
