"""What Get-NetCompartment, Get-NetIPInterface and Get-NetRoute show (reference, section 6), read from the kernel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from silo.host.linux import links, netns

DEFAULT_GUID: Final = "{b1062982-2b18-4b4f-b3d5-a78ddb9cdd49}"
"""The GUID that the default compartment has on every Windows host."""
_FAMILY: Final = {4: "IPv4", 6: "IPv6"}
_SYSTEM_METRIC: Final = 256


def default_compartment() -> dict[str, Any]:
    """The host's own."""
    return {
        "CompartmentId": 1,
        "CompartmentDescription": "Default Compartment",
        "CompartmentGuid": DEFAULT_GUID,
        "CompartmentType": "Native",
        "Namespace": f"net:[{netns.inode('/proc/self/ns/net')}]",
    }


def compartment(number: int, guid: str, container_id: str, pin: Path) -> dict[str, Any]:
    """A container's."""
    return {
        "CompartmentId": number,
        "CompartmentDescription": f"\\Container_{container_id}",
        "CompartmentGuid": f"{{{guid}}}",
        "CompartmentType": "Unspecified",
        "Namespace": f"net:[{netns.inode(pin)}]",
    }


def interfaces(pins: Mapping[int, Path | None]) -> list[dict[str, Any]]:
    """A row per interface and address family."""
    rows = []
    for number, pin in pins.items():
        found, having = _inside(pin, lambda: (links.links(), links.addresses()))
        families = {link.index: sorted({one.family for one in having if one.index == link.index}) for link in found}
        for link in found:
            rows += [
                {
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
                    "IPAddresses": [
                        f"{one.address}/{one.prefix}"
                        for one in having
                        if one.index == link.index and one.family == family
                    ],
                }
                for family in families[link.index] or [4]
            ]
    return rows


def routes(pins: Mapping[int, Path | None]) -> list[dict[str, Any]]:
    """A row per route."""
    rows = []
    for number, pin in pins.items():
        found, having = _inside(pin, lambda: (links.routes(), links.links()))
        names = {link.index: link.alias or link.name for link in having}
        rows += [
            {
                "ifIndex": route.index,
                "InterfaceAlias": names.get(route.index, ""),
                "DestinationPrefix": route.destination,
                "NextHop": route.gateway or ("0.0.0.0" if route.family == 4 else "::"),  # noqa: S104 - on-link
                "RouteMetric": route.metric or _SYSTEM_METRIC,
                "ifMetric": 0,
                "Protocol": links.ROUTE_PROTOCOLS.get(route.protocol, "Other"),
                "AddressFamily": _FAMILY[route.family],
                "PolicyStore": "ActiveStore",
                "CompartmentId": number,
            }
            for route in found
        ]
    return rows


def _inside(pin: Path | None, work: Any) -> Any:
    return work() if pin is None else netns.inside(pin, work)
