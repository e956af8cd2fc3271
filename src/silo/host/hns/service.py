"""HNS: ``HNSCall(method, path, request)`` over documents, and the compartments that HCS asks for.

A network is a bridge and rules; an endpoint is a document with a reserved address until a compute system is created
with it.  Only then the compartment (a network namespace with an id), the vNIC and the port on the virtual switch come
to be.  A document is written before its kernel objects are made and deleted after they are gone, so that after a crash
:meth:`HnsService.__aenter__` finds everything that may be on the host.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import anyio
import msgspec

from silo.host.hns import plan, views
from silo.host.hns.compartments import Compartments
from silo.host.hns.state import Compartment, State
from silo.host.hns.switches import Switches
from silo.host.linux import links
from silo.host.results import Code, HostError
from silo.ids import new_guid
from silo.resources import KeyedLock, Undo, leaf
from silo.schema.hns import AttachRequest, HnsEndpoint, HnsNetwork
from silo.store import Store

T = TypeVar("T")
Handler = Callable[..., Awaitable[Any]]
VERSION: Final = {"Major": 9, "Minor": 2}


class HnsService:
    """The networks of this engine.  An async context manager: on the way in the kernel is made to agree."""

    def __init__(self, store: Store, instance: str, exec_root: Path) -> None:
        self._instance = instance
        self._pins = exec_root / "netns"
        self._state = State(store)
        self._switches = Switches(instance)
        self._compartments = Compartments(self._state, self._pins)
        self._locks = KeyedLock[str]()

    async def __aenter__(self) -> Self:
        self._state.load()
        await self._switches.restore(self._state.networks.values())
        await self._compartments.restore()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Without compartments nothing needs the switches: they go, and come back at the next start."""
        if self._state.compartments:
            return
        with anyio.CancelScope(shield=True):
            await self._switches.idle(self._state.networks.values())
            if self._pins.is_dir() and not any(self._pins.iterdir()):
                self._pins.rmdir()

    def exports(self) -> dict[str, Handler]:
        """The service's part of the function table."""
        return {
            "HNSCall": self.call,
            "GetCompartments": self.get_compartments,
            "GetIPInterfaces": self.get_interfaces,
            "GetRoutes": self.get_routes,
        }

    async def call(self, Method: str, Path: str, Request: Any = None) -> dict[str, Any]:  # noqa: N803 - the wire's
        """One REST-shaped call; returns the envelope.  Raises HostError for what is refused."""
        output: Any = None
        match [part for part in Path.split("/") if part]:
            case ["networks", *rest]:
                output = await self._call_networks(Method, rest, Request)
            case ["endpoints", *rest]:
                output = await self._call_endpoints(Method, rest, Request)
            case ["namespaces"] if Method == "GET":
                output = views.namespaces(self._by_number())
            case ["namespaces", identifier] if Method == "GET":
                output = self._namespace(identifier)
            case ["globals", "version"] if Method == "GET":
                output = VERSION
            case _:
                raise _unknown(Method, Path)
        return {"Success": True, "Output": output}

    async def _call_networks(self, method: str, rest: list[str], request: Any) -> Any:
        match method, rest:
            case "GET", []:
                return list(self._state.networks.values())
            case "POST", []:
                return await self._create_network(_document(request, HnsNetwork))
            case "GET", [identifier]:
                return self._state.network(identifier)
            case "DELETE", [identifier]:
                await self._delete_network(identifier)
            case _:
                raise _unknown(method, "/".join(["/networks", *rest]))
        return None

    async def _call_endpoints(self, method: str, rest: list[str], request: Any) -> Any:
        match method, rest:
            case "GET", []:
                return [self._state.shown(one) for one in self._state.endpoints.values()]
            case "POST", []:
                return self._state.shown(await self._create_endpoint(_document(request, HnsEndpoint)))
            case "GET", [identifier]:
                return self._state.shown(self._state.endpoint(identifier))
            case "DELETE", [identifier]:
                await self._delete_endpoint(identifier)
            case "POST", [identifier, "attach"]:
                await self.attach_endpoint(_container_of(request), identifier)
            case "POST", [identifier, "detach"]:
                await self.detach_endpoint(_container_of(request), identifier)
            case _:
                raise _unknown(method, "/".join(["/endpoints", *rest]))
        return None

    def _namespace(self, identifier: str) -> dict[str, Any]:
        for namespace in views.namespaces(self._by_number()):
            if namespace["ID"] == identifier.lower():
                return namespace
        raise HostError(Code.ELEMENT_NOT_FOUND, f"namespace {identifier}: Element not found.")

    async def _create_network(self, wanted: HnsNetwork) -> HnsNetwork:
        routed = [] if wanted.Subnets else await leaf(_routed)
        identifier = (wanted.ID or new_guid()).lower()
        async with self._locks.hold(identifier):
            if identifier in self._state.networks:
                raise HostError(Code.HCN_NETWORK_ALREADY_EXISTS, f"network {identifier} exists already")
            others = list(self._state.networks.values())
            network = plan.complete_network(wanted, identifier, self._instance, others, routed)
            self._state.networks[identifier] = network  # its subnet is taken from now on
            async with Undo() as undo:
                undo.push_async_callback(self._state.forget_network, network)
                await self._state.write_network(network)
                await self._switches.make(network)
                undo.pop_all()
        return network

    async def _delete_network(self, identifier: str) -> None:
        async with self._locks.hold(identifier.lower()):
            network = self._state.network(identifier)
            users = list(self._state.addresses(network.ID).values())
            if users:
                raise HostError(Code.HCN_ENTITY_HAS_REFERENCES, f"network {network.Name} has endpoint {users[0]}")
            await self._switches.unmake(network)
            await self._state.forget_network(network)

    async def _create_endpoint(self, wanted: HnsEndpoint) -> HnsEndpoint:
        """Reserve an address.  Nothing is made in the kernel."""
        async with self._locks.hold(wanted.VirtualNetwork.lower()):
            network = self._state.network(wanted.VirtualNetwork)
            identifier = (wanted.ID or new_guid()).lower()
            if identifier in self._state.endpoints:
                raise HostError(Code.ALREADY_EXISTS, f"endpoint {identifier} exists already")
            endpoint = plan.complete_endpoint(wanted, identifier, network, self._state.addresses(network.ID))
            async with Undo() as undo:
                undo.callback(self._state.drop_endpoint, endpoint)
                self._state.hold_endpoint(endpoint)
                await self._state.write_endpoint(endpoint)
                undo.pop_all()
        return endpoint

    async def _delete_endpoint(self, identifier: str) -> None:
        endpoint = self._state.endpoint(identifier)
        holder = self._state.compartment_with(endpoint.ID)
        if holder is not None:
            await self._compartments.detach(holder.container_id, endpoint.ID)
        async with self._locks.hold(endpoint.VirtualNetwork):
            await self._state.forget_endpoint(self._state.endpoint(identifier))

    async def create_compartment(self, container_id: str, endpoint_ids: Sequence[str], mode: str) -> str:
        """See :meth:`Compartments.create`."""
        return await self._compartments.create(container_id, endpoint_ids, mode)

    async def release_compartment(self, container_id: str) -> None:
        """See :meth:`Compartments.release`."""
        await self._compartments.release(container_id)

    async def attach_endpoint(self, container_id: str, endpoint_id: str) -> None:
        """See :meth:`Compartments.attach`."""
        await self._compartments.attach(container_id, endpoint_id)

    async def detach_endpoint(self, container_id: str, endpoint_id: str) -> None:
        """See :meth:`Compartments.detach`."""
        await self._compartments.detach(container_id, endpoint_id)

    async def get_compartments(self) -> list[dict[str, Any]]:
        """What Get-NetCompartment shows, with the namespace's number as the kernel has it."""
        return await leaf(views.compartments, self._by_number(), self._pins)

    async def get_interfaces(self, CompartmentId: int | None = None) -> list[dict[str, Any]]:  # noqa: N803
        """What Get-NetIPInterface shows, read from the kernel."""
        return await leaf(views.interfaces, self._pins_by_id(CompartmentId))

    async def get_routes(self, CompartmentId: int | None = None) -> list[dict[str, Any]]:  # noqa: N803
        """What Get-NetRoute shows, read from the kernel."""
        return await leaf(views.routes, self._pins_by_id(CompartmentId))

    def _by_number(self) -> list[Compartment]:
        return sorted(self._state.compartments.values(), key=lambda one: one.id)

    def _pins_by_id(self, number: int | None) -> dict[int, Path | None]:
        """Namespaces by compartment id; None is the host's own."""
        pins: dict[int, Path | None] = {1: None}
        for compartment in self._by_number():
            pins[compartment.id] = self._pins / compartment.container_id
        if number is None:
            return pins
        if number not in pins:
            raise HostError(Code.ELEMENT_NOT_FOUND, f"compartment {number} does not exist")
        return {number: pins[number]}


def _routed() -> list[str]:
    return [route.destination for route in links.routes() if route.family == 4]


def _unknown(method: str, path: str) -> HostError:
    return HostError(Code.HCN_REQUEST_UNSUPPORTED, f"HNS has no {method} {path}")


def _document(request: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(request or {}, kind)
    except msgspec.ValidationError as exc:
        raise HostError(Code.HCN_INVALID_JSON, f"request: {exc}") from exc


def _container_of(request: Any) -> str:
    wanted = _document(request, AttachRequest)
    if wanted.SystemType not in {"", "Container"}:
        text = f"endpoints are attached to containers here, not to a {wanted.SystemType}"
        raise HostError(Code.HCN_REQUEST_UNSUPPORTED, text)
    if not wanted.ContainerId:
        raise HostError(Code.HCN_INVALID_JSON, "request: ContainerId must name a container")
    return wanted.ContainerId
