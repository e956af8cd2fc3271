"""A network as the Engine API shows it.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from silo.network.model import Endpoint, Network


def network(shown: Network, endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """``GET /networks/{id}``: the network with the endpoints that are on it."""
    return {
        "Name": shown.name,
        "Id": shown.id,
        "Created": shown.created,
        "Scope": "local",
        "Driver": shown.driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {
            "Driver": shown.ipam.driver,
            "Options": shown.ipam.options,
            "Config": [
                {key: value for key, value in msgspec.to_builtins(pool).items() if value} for pool in shown.ipam.config
            ],
        },
        "Internal": shown.internal,
        "Attachable": shown.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {one.container_id: _container(one) for one in endpoints if one.joined},
        "Options": shown.options,
        "Labels": shown.labels,
    }


def _container(endpoint: Endpoint) -> dict[str, str]:
    return {
        "Name": endpoint.container_name,
        "EndpointID": endpoint.id,
        "MacAddress": endpoint.mac,
        "IPv4Address": f"{endpoint.address}/{endpoint.prefix}" if endpoint.address else "",
        "IPv6Address": "",
    }
