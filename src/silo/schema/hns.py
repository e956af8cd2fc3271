"""Documents of the Host Network Service, v1, with their keys as they are on Windows (reference, section 5.2)."""

from __future__ import annotations

from typing import Any, Final

import msgspec

STATE_CREATED: Final = 1
STATE_ATTACHED: Final = 2
STATE_ATTACHED_SHARING: Final = 3
STATE_DETACHED: Final = 4


class Subnet(msgspec.Struct, frozen=True, omit_defaults=True):
    """A subnet of a network."""

    AddressPrefix: str
    GatewayAddress: str = ""


class HnsNetwork(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A network.  ``Bridge`` is ours: the link that is its virtual switch."""

    ID: str = ""
    Name: str = ""
    Type: str = "nat"
    Subnets: tuple[Subnet, ...] = ()
    DNSSuffix: str = ""
    DNSServerList: str = ""
    ManagementIP: str = ""
    Policies: tuple[dict[str, Any], ...] = ()
    Bridge: str = ""


class HnsEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint.  A plain document until a compute system is created with it."""

    ID: str = ""
    Name: str = ""
    VirtualNetwork: str = ""
    VirtualNetworkName: str = ""
    MacAddress: str = ""
    IPAddress: str = ""
    PrefixLength: int = 0
    GatewayAddress: str = ""
    DNSServerList: str = ""
    EnableInternalDNS: bool = False
    DisableICC: bool = False
    Policies: tuple[dict[str, Any], ...] = ()
    SharedContainers: tuple[str, ...] = ()
    State: int = STATE_CREATED
    Port: str = ""


class AttachRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What attaches an endpoint to, or detaches it from, a running compute system."""

    ContainerId: str = ""
    SystemType: str = ""
    CompartmentId: int = 0
    VirtualNicName: str = ""


class HnsResponse(msgspec.Struct, frozen=True):
    """The envelope of an HNSCall."""

    Success: bool
    Error: str = ""
    Output: msgspec.Raw = msgspec.Raw(b"null")
