"""Links, addresses and routes: made in batches, and listed, in the network namespace of the calling thread."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from silo.errors import HostFault, NotFound
from silo.host.linux import netlink
from silo.host.linux.linkspec import Address, Bridge, Link, Route, VirtualNic
from silo.host.linux.netlink import CREATE, RTM_DELLINK, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE, Request

ROUTE_PROTOCOLS: Final = {2: "Local", 3: "NetMgmt", 4: "NetMgmt", 16: "Dhcp"}
_LOOPBACK: Final = 1
_UP: Final = {"flags": 1, "change": 1}  # IFF_UP
_MAIN_TABLE: Final = 254
_LOCAL_TABLE: Final = 255
_UNICAST: Final = 1
_BY_ADMINISTRATOR: Final = 4  # RTPROT_STATIC
_IPV6: Final = Path("/proc/sys/net/ipv6/conf")


def index_of(name: str) -> int:
    """The index of a link.  Raises NotFound."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        raise NotFound(f"link {name} does not exist") from None


def exists(name: str) -> bool:
    """Whether there is a link of this name."""
    try:
        return socket.if_nametoindex(name) > 0
    except OSError:
        return False


def without_ipv6(name: str) -> None:
    """No IPv6 on a link, ``default`` for those to come: no address of its own making, no router is asked.

    The namespace is the calling thread's.  A kernel without IPv6 needs nothing.
    """
    with contextlib.suppress(FileNotFoundError):
        (_IPV6 / name / "disable_ipv6").write_text("1", "ascii")


def ensure_bridge(bridge: Bridge) -> bool:
    """Make the bridge be there, up, with its address; True when it was not there before."""
    new = not exists(bridge.name)
    with netlink.Socket() as kernel:
        if new:
            kernel.run([_add_bridge(bridge)])
        index = index_of(bridge.name)
        try:
            without_ipv6(bridge.name)
            kernel.run(_configure(bridge.name, index, bridge.alias, bridge.address, bridge.prefix))
        except Exception:
            if new:
                kernel.run([_delete(bridge.name)])
            raise
    return new


def _add_bridge(bridge: Bridge) -> Request:
    return Request(
        what=f"add bridge {bridge.name}",
        kind=RTM_NEWLINK,
        flags=CREATE,
        attributes=[
            ["IFLA_IFNAME", bridge.name],
            ["IFLA_ADDRESS", bridge.mac],
            ["IFLA_LINKINFO", {"attrs": [["IFLA_INFO_KIND", "bridge"]]}],
        ],
    )


def _configure(name: str, index: int, alias: str, address: str, prefix: int) -> list[Request]:
    """Alias, address (which may be there already) and state of a link that exists."""
    requests = [
        Request(
            what=f"bring {name} up",
            kind=RTM_NEWLINK,
            fields={"index": index, **_UP},
            attributes=[["IFLA_IFALIAS", alias]],
        )
    ]
    if address:
        broadcast = _broadcast(address, prefix)
        requests.append(
            Request(
                what=f"add address {address}/{prefix} to {name}",
                kind=RTM_NEWADDR,
                flags=CREATE,
                fields={"family": socket.AF_INET, "prefixlen": prefix, "index": index},
                attributes=[["IFA_LOCAL", address], ["IFA_ADDRESS", address], ["IFA_BROADCAST", broadcast]],
                accept={errno.EEXIST},
            )
        )
    return requests


def _broadcast(address: str, prefix: int) -> str:
    number = int.from_bytes(socket.inet_aton(address), "big") | ((1 << (32 - prefix)) - 1)
    return socket.inet_ntoa(number.to_bytes(4, "big"))


def _delete(name: str) -> Request:
    return Request(
        what=f"delete link {name}", kind=RTM_DELLINK, attributes=[["IFLA_IFNAME", name]], accept={errno.ENODEV}
    )


def delete(*names: str) -> None:
    """Delete links; one that is not there is no error.  Each takes the kernel some 15 ms."""
    if names:
        with netlink.Socket() as kernel:
            kernel.run([_delete(name) for name in names])


def loopback_up() -> None:
    """Bring ``lo`` up in the present namespace."""
    with netlink.Socket() as kernel:
        kernel.run([Request(what="bring lo up", kind=RTM_NEWLINK, fields={"index": _LOOPBACK, **_UP})])


def add_nics(nics: Sequence[VirtualNic], host: netlink.Socket) -> None:
    """In the namespace the vNICs are for: make the pairs, configure the near ends, set the default route.

    The far ends appear in the namespace of ``host``, down and on no bridge yet.  The default route is by the first
    gateway.
    """
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        host.run([request for nic in nics for request in (_delete(nic.port), _add_pair(nic, here))])
    finally:
        os.close(here)
    requests = []
    for nic in nics:
        requests += _configure(nic.name, index_of(nic.name), nic.alias, nic.address, nic.prefix)
    gateway = next((nic.gateway for nic in nics if nic.gateway), "")
    if gateway:
        requests.append(_default_route(gateway))
    with netlink.Socket() as kernel:
        kernel.run(requests)


def _add_pair(nic: VirtualNic, namespace: int) -> Request:
    peer = [["IFLA_IFNAME", nic.name], ["IFLA_ADDRESS", nic.mac], ["IFLA_NET_NS_FD", namespace]]
    data = {"attrs": [["VETH_INFO_PEER", {"attrs": peer}]]}
    return Request(
        what=f"add veth pair {nic.port}, {nic.name}",
        kind=RTM_NEWLINK,
        flags=CREATE,
        attributes=[
            ["IFLA_IFNAME", nic.port],
            ["IFLA_LINKINFO", {"attrs": [["IFLA_INFO_KIND", "veth"], ["IFLA_INFO_DATA", data]]}],
        ],
    )


def _default_route(gateway: str) -> Request:
    return Request(
        what=f"add default route via {gateway}",
        kind=RTM_NEWROUTE,
        flags=CREATE,
        fields={"family": socket.AF_INET, "table": _MAIN_TABLE, "type": _UNICAST, "proto": _BY_ADMINISTRATOR},
        attributes=[["RTA_GATEWAY", gateway]],
    )


def add_default_route(gateway: str) -> None:
    """The default route of the present namespace.  Raises Conflict when it has one."""
    with netlink.Socket() as kernel:
        kernel.run([_default_route(gateway)])


def connect_ports(nics: Sequence[VirtualNic]) -> None:
    """On the host: put each vNIC's port on its bridge and bring it up."""
    if not nics:
        return
    requests = []
    for nic in nics:
        without_ipv6(nic.port)
        requests.append(_connect(nic.port, nic.alias, index_of(nic.bridge)))
    with netlink.Socket() as kernel:
        kernel.run(requests)


def _connect(port: str, alias: str, bridge: int) -> Request:
    return Request(
        what=f"put {port} on its bridge",
        kind=RTM_NEWLINK,
        fields=_UP,
        attributes=[["IFLA_IFNAME", port], ["IFLA_MASTER", bridge], ["IFLA_IFALIAS", alias]],
    )


def reconnect_ports(ports: Mapping[str, str]) -> None:
    """On the host: put ports (to their bridges) back where they belong; ports that are gone are left out."""
    requests = [
        Request(
            what=f"put {port} on {bridge}",
            kind=RTM_NEWLINK,
            fields=_UP,
            attributes=[["IFLA_IFNAME", port], ["IFLA_MASTER", index_of(bridge)]],
            accept={errno.ENODEV},
        )
        for port, bridge in ports.items()
    ]
    with netlink.Socket() as kernel:
        kernel.run(requests)


def disconnect_ports(ports: Sequence[str]) -> None:
    """On the host: take ports off their bridges, so that nobody reaches what is behind them; quick.

    What is gone already is no error.
    """
    if not ports:
        return
    requests = [
        Request(
            what=f"take {port} off its bridge",
            kind=RTM_NEWLINK,
            attributes=[["IFLA_IFNAME", port], ["IFLA_MASTER", 0]],
            accept={errno.ENODEV},
        )
        for port in ports
    ]
    with netlink.Socket() as kernel:
        kernel.run(requests)


@contextlib.contextmanager
def _dump(what: str) -> Generator[Any]:
    """pyroute2's socket in this thread's namespace, for lists."""
    try:
        with IPRoute() as ip:
            yield ip
    except NetlinkError as exc:
        raise HostFault(f"list {what}: {os.strerror(int(exc.code))}") from exc


def links() -> list[Link]:
    """Every link of the present namespace."""
    with _dump("links") as ip:
        return [
            Link(
                message["index"],
                message.get("ifname") or "",
                message.get("ifalias") or "",
                message.get("mtu") or 0,
                bool(message["flags"] & _UP["flags"]),
                message.get("address") or "",
                (message.get("linkinfo") or {}).get("kind") or "",
                message.get("master") or 0,
            )
            for message in ip.get_links()
        ]


def addresses() -> list[Address]:
    """Every address of the present namespace."""
    with _dump("addresses") as ip:
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
    with _dump("routes") as ip:
        for message in ip.get_routes():
            tables = {_MAIN_TABLE, _LOCAL_TABLE}
            if message["family"] not in {socket.AF_INET, socket.AF_INET6} or message.get("table") not in tables:
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
