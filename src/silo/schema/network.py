"""The Engine API's documents of networks: what a client asks for, and what is kept."""

from __future__ import annotations

import msgspec
from msgspec import field


class IPAMConfig(msgspec.Struct, rename="pascal", kw_only=True):
    """One pool of a network."""

    subnet: str = ""
    ip_range: str = field(name="IPRange", default="")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] = {}


class IPAM(msgspec.Struct, rename="pascal", kw_only=True):
    """Who hands out addresses, and from which pools."""

    driver: str = "default"
    options: dict[str, str] | None = None
    config: list[IPAMConfig] = []


class NetworkCreate(msgspec.Struct, rename="pascal", kw_only=True):
    """The body of ``POST /networks/create``."""

    name: str = ""
    check_duplicate: bool = False
    driver: str = ""
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: dict[str, str] | None = None
    ipam: IPAM | None = field(name="IPAM", default=None)
    enable_ipv4: bool | None = field(name="EnableIPv4", default=None)
    enable_ipv6: bool | None = field(name="EnableIPv6", default=None)
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
