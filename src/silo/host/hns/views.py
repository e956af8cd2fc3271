"""What Get-NetCompartment, Get-NetIPInterface and Get-NetRoute show (reference, section 6), read from the kernel."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from silo.host.hns.state import Compartment
from silo.host.linux import links, netns
from silo.host.linux.linkspec import Address, Link, Route

DEFAULT_GUID: Final = "{b1062982-2b18-4b4f-b3d5-a78ddb9cdd49}"
"""The GUID that the default compartment has on every Windows host."""
_FAMILY: Final = {4: "IPv4", 6: "IPv6"}
_SYSTEM_METRIC: Final = 256
DEFAULT_NAMESPACE: Final = DEFAULT_GUID.strip("{}")
T = TypeVar("T")


def compartments(found: Iterable[Compartment], pins: Path) -> list[dict[str, Any]]:
    """The host's own, then those of containers; one that goes away meanwhile is left out."""
    rows = [
        {
            "CompartmentId": 1,
            "CompartmentDescription": "Default Compartment",
            "CompartmentGuid": DEFAULT_GUID,
            "CompartmentType": "Native",
            "Namespace": f"net:[{netns.inode('/proc/self/ns/net')}]",
        }
    ]
    for compartment in found:
        with contextlib.suppress(FileNotFoundError):
            rows.append(
                {
                    "CompartmentId": compartment.id,
                    "CompartmentDescription": f"\\Container_{compartment.container_id}",
                    "CompartmentGuid": f"{{{compartment.guid}}}",
                    "CompartmentType": "Unspecified",
                    "Namespace": f"net:[{netns.inode(pins / compartment.container_id)}]",
                }
            )
    return rows


def namespaces(found: Iterable[Compartment]) -> list[dict[str, Any]]:
    """HNS's own view of the same: the default namespace, then one for each container's compartment."""
    rows: list[dict[str, Any]] = [
        {"ID": DEFAULT_NAMESPACE, "IsDefault": True, "CompartmentId": 1, "ResourceList": []},
    ]
    for compartment in found:
        containers = (compartment.container_id, *compartment.sharers)
        resources = [{"Type": "Container", "Data": {"Id": one}} for one in containers]
        resources += [{"Type": "Endpoint", "Data": {"Id": one}} for one in compartment.endpoints]
        rows.append(
            {
                "ID": compartment.guid,
                "IsDefault": False,
                "CompartmentId": compartment.id,
                "ResourceList": resources,
            }
        )
    return rows


def interfaces(pins: Mapping[int, Path | None]) -> list[dict[str, Any]]:
    """A row per interface and address family."""
    rows = []
    for number, pin in pins.items():
        found, having = _inside(pin, lambda: (links.links(), links.addresses())) or ([], [])
        for link in found:
            mine = [one for one in having if one.index == link.index]
            rows += [_interface(number, link, family, mine) for family in sorted({one.family for one in mine}) or [4]]
    return rows


def _interface(number: int, link: Link, family: int, addresses: Iterable[Address]) -> dict[str, Any]:
    return {
        "ifIndex": link.index,
        "InterfaceAlias": link.alias or link.name,
        "InterfaceName": link.name,
        "AddressFamily": _FAMILY[family],
        "NlMtu": link.mtu,
        "InterfaceMetric": 0,
        "Dhcp": "Disabled",
        "ConnectionState": "Connected" if link.up else "Disconnected",
        "PolicyStore": "ActiveStore",
        "CompartmentId": number,
        "PhysicalAddress": link.mac.upper().replace(":", "-"),
        "IPAddresses": [f"{one.address}/{one.prefix}" for one in addresses if one.family == family],
    }


def routes(pins: Mapping[int, Path | None]) -> list[dict[str, Any]]:
    """A row per route."""
    rows = []
    for number, pin in pins.items():
        found, having = _inside(pin, lambda: (links.routes(), links.links())) or ([], [])
        names = {link.index: link.alias or link.name for link in having}
        rows += [_route(number, route, names.get(route.index, "")) for route in found]
    return rows


def _route(number: int, route: Route, alias: str) -> dict[str, Any]:
    return {
        "ifIndex": route.index,
        "InterfaceAlias": alias,
        "DestinationPrefix": route.destination,
        "NextHop": route.gateway or ("0.0.0.0" if route.family == 4 else "::"),  # noqa: S104 - on-link
        "RouteMetric": route.metric or _SYSTEM_METRIC,
        "ifMetric": 0,
        "Protocol": links.ROUTE_PROTOCOLS.get(route.protocol, "Other"),
        "AddressFamily": _FAMILY[route.family],
        "PolicyStore": "ActiveStore",
        "CompartmentId": number,
    }


def _inside(pin: Path | None, work: Callable[[], T]) -> T | None:
    """``work`` in a namespace, the host's own without ``pin``; None when it went away meanwhile."""
    if pin is None:
        return work()
    try:
        return netns.inside(pin, work)
    except OSError:
        if netns.is_pinned(pin):
            raise
        return None
