"""Links, addresses and routes through pyroute2, in whatever network namespace the calling thread is."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Generator
from typing import Any, Final

import msgspec
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from silo.errors import Conflict, HostFault, NotFound

UP: Final = 1
_KINDS: Final = {errno.EEXIST: Conflict, errno.ENODEV: NotFound, errno.EADDRINUSE: Conflict, errno.EBUSY: Conflict}
ROUTE_PROTOCOLS: Final = {2: "Local", 3: "NetMgmt", 4: "NetMgmt", 16: "Dhcp"}


class Link(msgspec.Struct, frozen=True):
    """One link as the kernel has it."""

    index: int
    name: str
    alias: str
    mtu: int
    up: bool
    mac: str
    kind: str


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


@contextlib.contextmanager
def _netlink(what: str) -> Generator[Any]:
    """A socket in this thread's namespace; what the kernel refuses becomes an error naming ``what``."""
    try:
        with IPRoute() as ip:
            yield ip
    except NetlinkError as exc:
        code = int(exc.code)
        raise _KINDS.get(code, HostFault)(f"{what}: {errno.errorcode.get(code, code)} {exc}") from exc


def _index(ip: Any, name: str) -> int:
    found = ip.link_lookup(ifname=name)
    if not found:
        raise NotFound(f"link {name} does not exist")
    return int(found[0])


def exists(name: str) -> bool:
    """Whether there is a link of this name."""
    with _netlink(f"look up link {name}") as ip:
        return bool(ip.link_lookup(ifname=name))


def add_bridge(name: str, alias: str, address: str | None, prefix: int) -> None:
    """A bridge that is up, with the gateway's address on it if given."""
    with _netlink(f"add bridge {name}") as ip:
        ip.link("add", ifname=name, kind="bridge", ifalias=alias)
        index = _index(ip, name)
        try:
            if address is not None:
                ip.addr("add", index=index, address=address, prefixlen=prefix)
            ip.link("set", index=index, state="up")
        except NetlinkError:
            ip.link("del", index=index)
            raise


def delete(name: str) -> None:
    """Delete a link; one that is not there is no error."""
    with _netlink(f"delete link {name}") as ip:
        for index in ip.link_lookup(ifname=name):
            ip.link("del", index=index)


class VirtualNic(msgspec.Struct, frozen=True, kw_only=True):
    """A veth pair to be: ``name`` inside the namespace the thread is in, ``port`` on the host's bridge."""

    name: str
    port: str
    alias: str
    mac: str
    address: str
    prefix: int
    gateway: str = ""


def loopback_up() -> None:
    """Bring ``lo`` up in the present namespace."""
    with _netlink("bring lo up") as ip:
        ip.link("set", index=1, state="up")


def add_nics(nics: list[VirtualNic], host_namespace: int) -> None:
    """Inside a new namespace: the vNICs with their addresses and the default route; the ports appear on the host."""
    with _netlink(f"add vNICs {', '.join(nic.name for nic in nics)}") as ip:
        for nic in nics:
            ip.link(
                "add",
                ifname=nic.name,
                kind="veth",
                address=nic.mac,
                peer={"ifname": nic.port, "net_ns_fd": host_namespace},
            )
            index = _index(ip, nic.name)
            if nic.address:
                ip.addr("add", index=index, address=nic.address, prefixlen=nic.prefix)
            ip.link("set", index=index, ifalias=nic.alias, state="up")
        for nic in nics:
            if nic.gateway:
                ip.route("add", dst="0.0.0.0/0", gateway=nic.gateway)
                break


def connect_ports(ports: dict[str, str], aliases: dict[str, str]) -> None:
    """On the host: put each port on its bridge and bring it up."""
    with _netlink(f"connect ports {', '.join(ports)}") as ip:
        for port, bridge in ports.items():
            ip.link("set", index=_index(ip, port), master=_index(ip, bridge), ifalias=aliases.get(port, ""), state="up")


def links() -> list[Link]:
    """Every link of the present namespace."""
    with _netlink("list links") as ip:
        return [
            Link(
                message["index"],
                message.get("ifname") or "",
                message.get("ifalias") or "",
                message.get("mtu") or 0,
                bool(message["flags"] & UP),
                message.get("address") or "",
                (message.get("linkinfo") or {}).get("kind") or "",
            )
            for message in ip.get_links()
        ]


def addresses() -> list[Address]:
    """Every address of the present namespace."""
    with _netlink("list addresses") as ip:
        return [
            Address(
                message["index"],
                message.get("local") or message.get("address") or "",
                message["prefixlen"],
                6 if message["family"] == socket.AF_INET6 else 4,
            )
            for message in ip.get_addr()
        ]


def routes() -> list[Route]:
    """Routes of the main and local tables of the present namespace."""
    found = []
    with _netlink("list routes") as ip:
        for message in ip.get_routes():
            if message["family"] not in {socket.AF_INET, socket.AF_INET6} or message.get("table") not in {254, 255}:
                continue
            six = message["family"] == socket.AF_INET6
            nothing = "::" if six else "0.0.0.0"  # noqa: S104 - a route's destination
            found.append(
                Route(
                    message.get("oif") or 0,
                    f"{message.get('dst') or nothing}/{message['dst_len']}",
                    message.get("gateway") or "",
                    message.get("priority") or 0,
                    message["proto"],
                    6 if six else 4,
                )
            )
    return found
