"""A host network service on the real kernel, and what of it the kernel shows, for tests that need root."""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from silo.hcsshim import hns
from silo.host.hns import rules
from silo.host.hns.service import HnsService
from silo.host.service import HostService
from silo.schema.hns import HnsEndpoint, HnsNetwork, Subnet
from silo.store import Store
from silo.telemetry import Effect, Span, Trace, new_trace, use_sink


class Traces:
    """Keeps the last trace."""

    def __init__(self) -> None:
        self.last: Trace | None = None

    def begin(self, trace: Trace) -> None:
        self.last = trace

    def end(self, trace: Trace) -> None:
        self.last = trace

    @property
    def spans(self) -> list[Span]:
        assert self.last is not None
        return self.last.spans

    def effects(self, action: str) -> list[tuple[str, str]]:
        """Kind and object of every effect of the last trace."""
        found: list[Effect] = [one for span in self.spans for one in span.effects]
        return [(one.kind, one.object) for one in found if one.action == action]


class NetRig:
    """One service on roots of its own; ``running`` again to see what survives."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.exec_root = base / "run"
        self.pins = self.exec_root / "netns"
        self.instance = secrets.token_hex(4)
        self.mark = f"silo{self.instance[:4]}"
        # tests of other people run at the same time: subnets are drawn, not fixed
        self.prefix = f"10.{100 + secrets.randbelow(90)}"
        self.traces = Traces()
        self.gate = HostService()
        self.hns: HnsService

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[NetRig]:
        """The service from start to orderly stop."""
        with Store(self.base / "host.db") as store:
            self._make(store)
            async with self.hns:
                yield self

    @asynccontextmanager
    async def killed(self) -> AsyncGenerator[NetRig]:
        """The service from start to kill -9: nothing is told."""
        with Store(self.base / "host.db") as store:
            self._make(store)
            await self.hns.__aenter__()
            yield self

    def _make(self, store: Store) -> None:
        self.hns = HnsService(store, self.instance, self.exec_root)
        self.gate = HostService()
        self.gate.add(self.hns.exports())
        use_sink(self.traces)

    async def network(self, number: int, kind: str = "nat", name: str = "") -> HnsNetwork:
        """A network ``<prefix>.<number>.0/24``."""
        subnet = Subnet(f"{self.prefix}.{number}.0/24", f"{self.prefix}.{number}.1")
        wanted = HnsNetwork(Name=name or f"net{number}", Type=kind, Subnets=(subnet,))
        return await hns.create_network(self.gate, wanted)

    async def endpoint(self, network: HnsNetwork, address: str = "") -> HnsEndpoint:
        return await hns.create_endpoint(self.gate, HnsEndpoint(VirtualNetwork=network.ID, IPAddress=address))

    async def box(self, name: str, *networks: HnsNetwork) -> list[HnsEndpoint]:
        """A compartment with a new endpoint on each network."""
        endpoints = [await self.endpoint(network) for network in networks]
        with new_trace("test"):
            await self.hns.create_compartment(name, [one.ID for one in endpoints], "private")
        return endpoints

    async def unbox(self, name: str, endpoints: list[HnsEndpoint]) -> None:
        await self.hns.release_compartment(name)
        for endpoint in endpoints:
            await hns.delete_endpoint(self.gate, endpoint.ID)

    def inside(self, name: str, *argv: str) -> str:
        """What a program prints in a compartment; fails when it does."""
        return run("nsenter", f"--net={self.pins / name}", *argv)

    def hold(self, name: str) -> subprocess.Popen[bytes]:
        """A process that keeps a compartment's namespace alive."""
        return subprocess.Popen(["nsenter", f"--net={self.pins / name}", "sleep", "60"])

    def shown(self, name: str, *argv: str) -> Any:
        """``ip -j ...`` in a compartment."""
        return json.loads(self.inside(name, "ip", "-j", "-d", *argv))

    def reaches(self, name: str, address: str) -> bool:
        done = subprocess.run(
            ["nsenter", f"--net={self.pins / name}", "busybox", "ping", "-c", "1", "-W", "1", address],
            capture_output=True,
            check=False,
        )
        return done.returncode == 0

    def links(self) -> set[str]:
        """The bridges of this rig, and every port on them."""
        bridges = {one.name for one in Path("/sys/class/net").iterdir() if one.name.startswith(self.mark)}
        ports = {port.name for bridge in bridges for port in Path(f"/sys/class/net/{bridge}/brif").iterdir()}
        return bridges | ports

    def rules(self) -> dict[str, Any]:
        """Elements of the sets of the table, and ``rules``, how many there are; empty without a table."""
        name = rules.table_name(self.instance)
        done = subprocess.run(["nft", "-j", "list", "table", "ip", name], capture_output=True, check=False)
        if done.returncode:
            return {}
        found = json.loads(done.stdout)["nftables"]
        shown = {one["set"]["name"]: one["set"].get("elem", []) for one in found if "set" in one}
        return {**shown, "rules": sum("rule" in one for one in found)}

    def leftovers(self) -> dict[str, Any]:
        """What of this rig is on the host, by kind."""
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.base) in line]
        pins = sorted(self.pins.iterdir()) if self.pins.is_dir() else []
        found = {"links": self.links(), "table": self.rules(), "mounts": mounts, "pins": pins}
        return {key: value for key, value in found.items() if value}

    def clean(self) -> None:
        """Whatever a test did: nothing stays on the host."""
        for pin in self.pins.iterdir() if self.pins.is_dir() else ():
            subprocess.run(["umount", "-l", pin], capture_output=True, check=False)
            pin.unlink(missing_ok=True)
        for name in sorted(self.links()):
            subprocess.run(["ip", "link", "del", name], capture_output=True, check=False)
        table = rules.table_name(self.instance)
        subprocess.run(["nft", "delete", "table", "ip", table], capture_output=True, check=False)


def run(*argv: str) -> str:
    """What a program prints; fails when it does."""
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, argv))}: {done.stdout}{done.stderr}"
    return done.stdout


async def until(condition: Any, seconds: float = 20.0) -> None:
    """Poll a fact of the kernel until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await anyio.sleep(0.01)
