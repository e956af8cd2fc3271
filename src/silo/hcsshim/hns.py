"""HNS by hcsshim's names: ``HNSCall`` and the typed verbs on top of it (reference, section 5)."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from silo.hcsshim.gate import Gate, invoke
from silo.schema.hns import HnsEndpoint, HnsNetwork, HnsResponse
from silo.telemetry import span

T = TypeVar("T")


async def hns_call(gate: Gate, method: str, path: str, request: Any = None) -> msgspec.Raw:
    """One call; returns ``Output``.  Raises HcsError with HNS's own sentence.  A span of its own."""
    with span("hcsshim::HNSCall", method=method, path=path):
        output = await invoke(
            gate, f"hcsshim::HNSCall {method}", path, "HNSCall", Method=method, Path=path, Request=request
        )
        return msgspec.json.decode(output, type=HnsResponse).Output


async def _typed(gate: Gate, kind: type[T], method: str, path: str, request: Any = None) -> T:
    body = msgspec.to_builtins(request) if request is not None else None
    return msgspec.json.decode(await hns_call(gate, method, path, body), type=kind)


async def create_network(gate: Gate, network: HnsNetwork) -> HnsNetwork:
    """Make a network; the answer has its id and final subnets."""
    return await _typed(gate, HnsNetwork, "POST", "/networks/", network)


async def get_network(gate: Gate, network_id: str) -> HnsNetwork:
    """One network.  Raises NotFound."""
    return await _typed(gate, HnsNetwork, "GET", f"/networks/{network_id}")


async def list_networks(gate: Gate) -> list[HnsNetwork]:
    """Every network."""
    return await _typed(gate, list[HnsNetwork], "GET", "/networks/")


async def delete_network(gate: Gate, network_id: str) -> None:
    """Delete a network without endpoints.  Raises NotFound, Conflict."""
    await hns_call(gate, "DELETE", f"/networks/{network_id}")


async def create_endpoint(gate: Gate, endpoint: HnsEndpoint) -> HnsEndpoint:
    """Make an endpoint: a document with a reserved address.  Nothing appears in the kernel."""
    return await _typed(gate, HnsEndpoint, "POST", "/endpoints/", endpoint)


async def get_endpoint(gate: Gate, endpoint_id: str) -> HnsEndpoint:
    """One endpoint.  Raises NotFound."""
    return await _typed(gate, HnsEndpoint, "GET", f"/endpoints/{endpoint_id}")


async def list_endpoints(gate: Gate) -> list[HnsEndpoint]:
    """Every endpoint."""
    return await _typed(gate, list[HnsEndpoint], "GET", "/endpoints/")


async def delete_endpoint(gate: Gate, endpoint_id: str) -> None:
    """Delete an endpoint and give its address back.  Raises NotFound."""
    await hns_call(gate, "DELETE", f"/endpoints/{endpoint_id}")


async def _rows(gate: Gate, function: str, compartment: int | None) -> list[dict[str, Any]]:
    arguments = {} if compartment is None else {"CompartmentId": compartment}
    output = await invoke(gate, f"hcsshim::{function}", str(compartment or ""), function, **arguments)
    return msgspec.json.decode(output, type=list[dict[str, Any]])


async def compartments(gate: Gate) -> list[dict[str, Any]]:
    """What Get-NetCompartment shows."""
    return await _rows(gate, "GetCompartments", None)


async def ip_interfaces(gate: Gate, compartment: int | None = None) -> list[dict[str, Any]]:
    """What Get-NetIPInterface shows, of every compartment or of one."""
    return await _rows(gate, "GetIPInterfaces", compartment)


async def routes(gate: Gate, compartment: int | None = None) -> list[dict[str, Any]]:
    """What Get-NetRoute shows, of every compartment or of one."""
    return await _rows(gate, "GetRoutes", compartment)
