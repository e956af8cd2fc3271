"""The nouns of the container network model.  A network has endpoints; a container's sandbox has one on each network."""

from __future__ import annotations

import msgspec

from silo.ids import ContainerID, EndpointID, HnsID, NetworkID
from silo.schema.engine import EndpointSettings
from silo.schema.network import IPAM


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """A network; ``driver`` is the name the user gave, ``hns_id`` what HNS calls it (empty for none and host).

    ``static`` says that the user named the subnet: only then may addresses in it be asked for.
    """

    id: NetworkID
    name: str
    driver: str
    created: str
    internal: bool = False
    attachable: bool = False
    ipam: IPAM = msgspec.field(default_factory=IPAM)
    static: bool = False
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    hns_id: str = ""


class EndpointRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a container wants on one network; empty means: choose."""

    network: str
    settings: EndpointSettings


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A container on a network; addresses are without prefix length."""

    id: EndpointID
    network_id: NetworkID
    network_name: str
    container_id: ContainerID
    container_name: str
    hns_id: HnsID = HnsID("")
    address: str = ""
    prefix: int = 0
    gateway: str = ""
    mac: str = ""
    joined: bool = False


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """A container's network stack: id and key are the container's id, as on Windows; endpoints in NIC order."""

    id: ContainerID
    key: str
    endpoints: tuple[Endpoint, ...] = ()
