"""Networks in the kernel: a bridge each, and the one nftables table."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

import anyio

from silo.errors import HostFault
from silo.host.hns import plan, rules
from silo.host.linux import links, nft
from silo.resources import Undo, leaf
from silo.schema.hns import HnsNetwork
from silo.telemetry import effect

FORWARD: Final = Path("/proc/sys/net/ipv4/ip_forward")


class Switches:
    """Virtual switches of one engine, made and unmade one by one, or all as the documents want them."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._ruled: dict[str, HnsNetwork] = {}
        """The networks in the table; there is a table while there is one."""
        self._lock = anyio.Lock()

    async def make(self, network: HnsNetwork) -> None:
        """The network's bridge and rules.  Undone as a whole when a part fails."""
        async with Undo() as undo:
            undo.push_async_callback(leaf, links.delete, network.Bridge)
            await leaf(self._bridge, network)
            await self._add_rules(network)
            undo.pop_all()

    def _bridge(self, network: HnsNetwork) -> None:
        if links.ensure_bridge(plan.switch(network)):
            effect("link", "+", network.Bridge)
        if network.Type == "nat" and FORWARD.read_text("ascii").strip() == "0":
            FORWARD.write_text("1", "ascii")
            effect("sysctl", "+", "net.ipv4.ip_forward=1")

    async def _add_rules(self, network: HnsNetwork) -> None:
        async with self._lock:
            if not self._ruled:
                await leaf(nft.run, rules.ruleset(self._instance, []))
                effect("nft", "+", f"table {rules.FAMILY} {rules.table_name(self._instance)}")
            await leaf(nft.run, rules.add_network(self._instance, network))
            self._ruled[network.ID] = network
        for element in rules.described(self._instance, network):
            effect("nft", "+", element)

    async def unmake(self, network: HnsNetwork) -> None:
        """The bridge and rules of a network go, with the last network's the table."""
        async with self._lock:
            left = [one for one in self._ruled.values() if one.ID != network.ID]
            try:
                commands = rules.remove_network(self._instance, network) if left else rules.no_table(self._instance)
                await leaf(nft.run, commands)
            except HostFault:  # somebody else changed the table: it is made anew without this network
                await leaf(nft.run, rules.ruleset(self._instance, left))
            self._ruled.pop(network.ID, None)
        for element in rules.described(self._instance, network):
            effect("nft", "-", element)
        if not left:
            effect("nft", "-", f"table {rules.FAMILY} {rules.table_name(self._instance)}")
        await leaf(links.delete, network.Bridge)
        effect("link", "-", network.Bridge)

    async def restore(self, networks: Collection[HnsNetwork]) -> None:
        """Make the kernel what the documents say: after a reboot, a crash, or somebody's `nft flush ruleset`."""
        for network in networks:
            await leaf(self._bridge, network)
        async with self._lock:
            commands = rules.ruleset(self._instance, networks) if networks else rules.no_table(self._instance)
            await leaf(nft.run, commands)
            self._ruled = {network.ID: network for network in networks}

    async def idle(self, networks: Collection[HnsNetwork]) -> None:
        """Take every bridge and the table away; the documents stay, and :meth:`restore` brings all back."""
        async with self._lock:
            await leaf(links.delete, *(network.Bridge for network in networks))
            await leaf(nft.run, rules.no_table(self._instance))
            self._ruled.clear()
