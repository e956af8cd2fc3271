"""Links, addresses and routes as plain values, for those who decide and for those who show."""

from __future__ import annotations

import msgspec


class Link(msgspec.Struct, frozen=True):
    """One link as the kernel has it; ``master`` is the index of its bridge, 0 for none."""

    index: int
    name: str
    alias: str
    mtu: int
    up: bool
    mac: str
    kind: str
    master: int = 0


class Address(msgspec.Struct, frozen=True):
    """One address of a link; family is 4 or 6."""

    index: int
    address: str
    prefix: int
    family: int


class Route(msgspec.Struct, frozen=True):
    """One route of the main or local table; ``gateway`` is empty for on-link ones."""

    index: int
    destination: str
    gateway: str
    metric: int
    protocol: int
    family: int


class Bridge(msgspec.Struct, frozen=True, kw_only=True):
    """A bridge to be.  Its MAC address is fixed: one taken from the ports changes as they come and go."""

    name: str
    alias: str
    mac: str
    address: str = ""
    prefix: int = 0


class VirtualNic(msgspec.Struct, frozen=True, kw_only=True):
    """A veth pair to be: ``name`` inside a namespace, ``port`` on the host's ``bridge``."""

    name: str
    port: str
    bridge: str
    alias: str
    mac: str
    address: str = ""
    prefix: int = 0
    gateway: str = ""
