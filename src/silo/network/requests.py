"""What a client may ask of networks and endpoints: dockerd's rules and its texts.  Pure."""

from __future__ import annotations

import re
from typing import Final

from silo.errors import Forbidden, InvalidParameter, NotFound, Unimplemented
from silo.network.model import Network
from silo.schema.engine import EndpointSettings
from silo.schema.network import NetworkCreate

PREDEFINED: Final = {"bridge": "bridge", "host": "host", "none": "null"}
"""The networks that are always there, with their drivers."""
ALIASES: Final = {"default": "bridge", "nat": "bridge"}
"""Other names of the default network: Docker's word for it, and its name on Windows."""
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_MAC: Final = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")
_BRIDGE: Final = "com.docker.network.bridge."
_DEFAULTS: Final = {f"{_BRIDGE}enable_icc": "true", f"{_BRIDGE}enable_ip_masquerade": "true"}
"""Options that only have their default value here: to take another and not do it would open what shall be shut."""


def check_network(request: NetworkCreate) -> None:
    """Refuse what cannot be, or is not there yet.  Raises InvalidParameter, Forbidden, Unimplemented, NotFound."""
    if not request.name.strip():
        raise InvalidParameter("invalid network name: name is empty")
    if not _NAME.fullmatch(request.name):
        raise InvalidParameter(f"invalid network name {request.name!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-]* are allowed")
    if request.name in {*PREDEFINED, *ALIASES}:
        raise Forbidden(f"operation is not permitted on predefined {request.name} network")
    if request.scope not in {"", "local"}:
        raise Forbidden(f"cannot create a {request.scope} scoped network when swarm is not active")
    if request.ingress:
        raise Forbidden("Ingress network can only be global scope network")
    later = {
        "config-only networks": request.config_only or bool(request.config_from and request.config_from.get("Network")),
        "IPv6": bool(request.enable_ipv6),
        "a network without IPv4": request.enable_ipv4 is False,
    }
    later |= {
        f"option {key}={request.options[key]}": request.options.get(key, default).lower() != default
        for key, default in _DEFAULTS.items()
        if key in request.options
    }
    for what, asked in later.items():
        if asked:
            raise Unimplemented(f"network {request.name}: {what}: this engine does not have it yet")
    driver = request.ipam.driver if request.ipam else ""
    if driver not in {"", "default"}:
        raise NotFound(no_plugin(driver))


def warning(request: NetworkCreate) -> str:
    """Which options are kept and have no effect yet; empty for none."""
    ignored = [key for key in sorted(request.options) if key.startswith("com.docker.network.") and key not in _DEFAULTS]
    return f"These options have no effect yet: {', '.join(ignored)}" if ignored else ""


def no_plugin(name: str) -> str:
    """The text for a driver that is neither built in nor a plugin."""
    return f"could not find plugin {name} in v1 plugin registry: plugin not found"


def check_endpoint(network: Network, settings: EndpointSettings) -> str:
    """The IPv4 address asked for, empty for any.  Raises InvalidParameter with all that is wrong."""
    wanted = settings.ipam_config
    address = wanted.ipv4_address if wanted else ""
    wrong = []
    if wanted and (address or wanted.ipv6_address):
        if network.name in PREDEFINED:
            wrong.append("user specified IP address is supported on user defined networks only")
        elif not network.static:
            wrong.append(
                "user specified IP address is supported only when connecting to networks with user configured subnets"
            )
        if wanted.ipv6_address:
            wrong.append(f"no configured subnet or ip-range contain the IP address {wanted.ipv6_address}")
    if settings.mac_address and not _MAC.fullmatch(settings.mac_address):
        wrong.append(f"invalid MAC address: {settings.mac_address}")
    if wrong:
        raise InvalidParameter(in_settings(network, *wrong))
    return address


def in_settings(network: Network, *wrong: str) -> str:
    """Dockerd's frame around what is wrong with a container's settings for a network."""
    return "\n".join((f"invalid config for network {network.name}: invalid endpoint settings:", *wrong))
