"""Compartments: network namespaces with ids, made for compute systems together with their vNICs and ports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from silo.host.hns import plan
from silo.host.hns.state import Compartment, State
from silo.host.linux import links, netlink, netns
from silo.host.linux.linkspec import VirtualNic
from silo.host.results import Code, HostError
from silo.ids import new_guid
from silo.resources import KeyedLock, Undo, leaf
from silo.schema.hns import HnsEndpoint
from silo.telemetry import effect, traced


class Compartments:
    """One per private container, pinned as ``<pins>/<container id>``; the host's own is number 1 and not kept here."""

    def __init__(self, state: State, pins: Path) -> None:
        self._state = state
        self._pins = pins
        self._locks = KeyedLock[str]()

    def pin(self, container_id: str) -> Path:
        """The file that a container's namespace is mounted on."""
        return self._pins / container_id

    @traced("hns::CreateCompartment", "mode")
    async def create(self, container_id: str, endpoint_ids: Sequence[str], mode: str) -> str:
        """Make the compartment with a vNIC and a port for each endpoint; return its namespace's path.

        ``mode`` is ``private``, ``host`` (no compartment: empty path) or ``shared:<container id>``.  All or nothing.
        Raises HostError for an endpoint that is unknown or in use, a container to share with that has no compartment.
        """
        if mode == "host":
            return ""
        if mode.startswith("shared:"):
            return await self._share(container_id, mode.removeprefix("shared:"))
        async with self._locks.hold(container_id):
            await self._release(container_id)  # of a run that a crash cut short
            endpoints = plan.order([one.lower() for one in endpoint_ids], self._state.endpoints)
            self._check_free(endpoints)
            number = plan.lowest_free(one.id for one in self._state.compartments.values())
            compartment = Compartment(number, new_guid(), container_id, tuple(one.ID for one in endpoints))
            # in memory first: the number and the endpoints are ours while the kernel works
            self._state.hold_compartment(compartment)
            async with Undo() as undo:
                undo.push_async_callback(self._release, container_id)
                await leaf(self._build, self.pin(container_id), endpoints)
                effect("compartment", "+", f"{number} \\Container_{container_id}")
                await self._state.write_compartment(compartment)
                undo.pop_all()
        return str(self.pin(container_id))

    def _check_free(self, endpoints: Sequence[HnsEndpoint]) -> None:
        for endpoint in endpoints:
            holder = self._state.compartment_with(endpoint.ID)
            if holder is not None:
                text = f"endpoint {endpoint.ID} is attached to container {holder.container_id}"
                raise HostError(Code.HCN_ENDPOINT_ALREADY_ATTACHED, text)

    def _nic(self, endpoint: HnsEndpoint, name: str) -> VirtualNic:
        return plan.vnic(endpoint, self._state.network(endpoint.VirtualNetwork), name)

    def _build(self, pin: Path, endpoints: Sequence[HnsEndpoint]) -> None:
        """The namespace, its links and the switches' ports."""
        nics = [self._nic(endpoint, f"eth{position}") for position, endpoint in enumerate(endpoints)]
        with netlink.Socket() as host:

            def work() -> None:
                links.without_ipv6("default")
                links.loopback_up()
                if nics:
                    links.add_nics(nics, host)

            netns.create(pin, work)
        effect("netns", "+", f"{pin} net:[{netns.inode(pin)}]")
        for nic in nics:
            _tell_nic(nic)
        gateway = next((nic.gateway for nic in nics if nic.gateway), "")
        if gateway:
            effect("route", "+", f"0.0.0.0/0 via {gateway}")
        _connect(nics)

    async def _share(self, container_id: str, owner: str) -> str:
        async with self._locks.hold(owner):
            compartment = self._live(owner)
            if container_id not in compartment.sharers:
                changed = replace(compartment, sharers=(*compartment.sharers, container_id))
                await self._change(changed)
        return str(self.pin(owner))

    def _live(self, container_id: str) -> Compartment:
        compartment = self._state.compartments.get(container_id)
        if compartment is None:
            raise HostError(Code.ELEMENT_NOT_FOUND, f"container {container_id} has no compartment")
        return compartment

    async def _change(self, compartment: Compartment) -> None:
        await self._state.write_compartment(compartment)
        self._state.hold_compartment(compartment)

    @traced("hns::ReleaseCompartment")
    async def release(self, container_id: str) -> None:
        """Let go of the compartment.  Idempotent.

        The ports leave their switches at once, so that an address may be given out again; the kernel takes the
        namespace and its links away in its own time, once the last process has ended.
        """
        async with self._locks.hold(container_id):
            await self._release(container_id)
        shared = self._state.shared_by(container_id)
        if shared is not None:
            async with self._locks.hold(shared.container_id):
                now = self._state.compartments.get(shared.container_id)
                if now is not None:
                    await self._change(replace(now, sharers=tuple(one for one in now.sharers if one != container_id)))

    async def _release(self, container_id: str) -> None:
        compartment = self._state.compartments.get(container_id)
        pin = self.pin(container_id)
        if compartment is None and not pin.exists():
            return
        ports = [one.Port for one in self._state.endpoints_of(compartment)] if compartment else []
        await leaf(self._unbuild, pin, ports)
        if compartment is not None:
            await self._state.forget_compartment(container_id)
            effect("compartment", "-", f"{compartment.id} \\Container_{container_id}")

    def _unbuild(self, pin: Path, ports: Sequence[str]) -> None:
        links.disconnect_ports(ports)
        for port in ports:
            effect("port", "-", port)
        netns.remove(pin)
        effect("netns", "-", pin)

    @traced("hns::AttachEndpoint", "endpoint_id")
    async def attach(self, container_id: str, endpoint_id: str) -> None:
        """Add an endpoint to a live compartment as its next NIC.  One that is in it already is no error."""
        async with self._locks.hold(container_id):
            compartment = self._live(container_id)
            endpoint = self._state.endpoint(endpoint_id)
            if endpoint.ID in compartment.endpoints:
                return
            self._check_free([endpoint])
            changed = replace(compartment, endpoints=(*compartment.endpoints, endpoint.ID))
            self._state.hold_compartment(changed)
            async with Undo() as undo:
                undo.callback(self._state.hold_compartment, compartment)
                undo.push_async_callback(leaf, links.delete, endpoint.Port)
                await leaf(self._plug, self.pin(container_id), endpoint)
                await self._state.write_compartment(changed)
                undo.pop_all()

    def _plug(self, pin: Path, endpoint: HnsEndpoint) -> None:
        with netlink.Socket() as host:

            def work() -> VirtualNic:
                nic = self._nic(endpoint, plan.nic_name({link.name for link in links.links()}))
                if _has_default_route():
                    nic = replace(nic, gateway="")
                links.add_nics([nic], host)
                return nic

            nic = netns.inside(pin, work)
        _tell_nic(nic)
        if nic.gateway:
            effect("route", "+", f"0.0.0.0/0 via {nic.gateway}")
        _connect([nic])

    @traced("hns::DetachEndpoint", "endpoint_id")
    async def detach(self, container_id: str, endpoint_id: str) -> None:
        """Take an endpoint out of a live compartment.  One that is not in it is no error.

        Another endpoint's gateway becomes the default route when this one's was.
        """
        async with self._locks.hold(container_id):
            compartment = self._live(container_id)
            endpoint = self._state.endpoint(endpoint_id)
            if endpoint.ID not in compartment.endpoints:
                return
            rest = tuple(one for one in compartment.endpoints if one != endpoint.ID)
            changed = replace(compartment, endpoints=rest)
            await leaf(self._unplug, endpoint, changed)
            await self._change(changed)

    def _unplug(self, endpoint: HnsEndpoint, rest: Compartment) -> None:
        links.delete(endpoint.Port)
        effect("port", "-", endpoint.Port)
        effect("link", "-", f"{endpoint.Port} {plan.nic_alias(endpoint.ID)}")
        gateway = next((one.GatewayAddress for one in self._state.endpoints_of(rest) if one.GatewayAddress), "")
        if gateway and not netns.inside(self.pin(rest.container_id), _has_default_route):
            netns.inside(self.pin(rest.container_id), lambda: links.add_default_route(gateway))
            effect("route", "+", f"0.0.0.0/0 via {gateway}")

    async def restore(self) -> None:
        """At start: forget compartments whose namespace is gone (a reboot), remove namespaces that nobody knows.

        Ports of those that live are put back on their switches, for these may have been made anew.
        """
        for container_id in list(self._state.compartments):
            if not netns.is_pinned(self.pin(container_id)):
                await self._state.forget_compartment(container_id)
        await leaf(self._sweep)
        living = [one for compartment in self._state.compartments.values() for one in compartment.endpoints]
        endpoints = [self._state.endpoints[one] for one in living if one in self._state.endpoints]
        ports = {one.Port: self._state.network(one.VirtualNetwork).Bridge for one in endpoints}
        if ports:
            await leaf(links.reconnect_ports, ports)

    def _sweep(self) -> None:
        self._pins.mkdir(parents=True, exist_ok=True, mode=0o711)
        for pin in self._pins.iterdir():
            if pin.name not in self._state.compartments:
                netns.remove(pin)


def _tell_nic(nic: VirtualNic) -> None:
    effect("link", "+", f"{nic.port} {nic.alias}")
    effect("link", "+", f"{nic.name} {nic.alias}")
    effect("address", "+", f"{nic.address}/{nic.prefix}")


def _connect(nics: Sequence[VirtualNic]) -> None:
    links.connect_ports(nics)
    for nic in nics:
        effect("port", "+", f"{nic.bridge}/{nic.port}")


def _has_default_route() -> bool:
    return any(route.destination == "0.0.0.0/0" for route in links.routes())
