"""Makes the kernel side of a compute system, step by step, with everything undone on failure."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from silo.errors import HostFault, InvalidParameter
from silo.host.hcs import devices, limits, users
from silo.host.hcs.conmon import MonitorPlan, command, read_answer
from silo.host.hcs.records import Folders, MakingPlan, SystemRecord
from silo.host.hcs.runtime import Runtime, explain, locate
from silo.host.hcs.states import SystemState
from silo.host.hcs.unmaker import Unmaker
from silo.host.linux import pidfd
from silo.host.linux.cgroup import Cgroups, ControlGroup
from silo.host.linux.paths import make_in_root
from silo.host.linux.proc import boot_id
from silo.host.linux.spawn import Spawner, fd_path
from silo.ids import new_guid
from silo.resources import Undo, leaf
from silo.schema.hcs import ContainerDocument
from silo.telemetry import annotate, effect, span

CREATE_SECONDS: Final = 120.0
"""The runtime's create may take this long (a cold disk); hcsshim allows four minutes."""


class MakesCompartments(Protocol):
    """The part of HNS that making a system needs; see :class:`silo.host.hcs.service.Compartments`."""

    async def create_compartment(self, container_id: str, endpoint_ids: Sequence[str], mode: str) -> str:
        """Make the compartment; return its namespace's path, empty for the host's."""
        ...

    async def release_compartment(self, container_id: str) -> None:
        """Take it away."""
        ...


class Maker:
    """The steps; the service decides when they are taken."""

    def __init__(
        self, spawner: Spawner, folders: Folders, cgroups: Cgroups, runtime: Runtime, unmaker: Unmaker
    ) -> None:
        self._spawner = spawner
        self._folders = folders
        self._cgroups = cgroups
        self._runtime = runtime
        self._unmaker = unmaker
        self._capabilities = limits.own_capabilities()
        self._boot = boot_id()

    async def make(self, system_id: str, document: ContainerDocument, compartments: MakesCompartments) -> SystemRecord:
        """Compartment, bundle, cgroup and waiting init.  Raises what failed, after undoing the rest."""
        group = document.OCISpecification["linux"]["cgroupsPath"]
        async with Undo() as undo:
            undo.push_async_callback(self._unmaker.undo, system_id)
            await leaf(self._prepare, system_id, MakingPlan(group, document.BundlePath))
            undo.push_async_callback(compartments.release_compartment, system_id)
            namespace = await compartments.create_compartment(system_id, document.EndpointList, _network_mode(document))
            with contextlib.ExitStack() as stack:
                # the namespace's mount is not visible where the runtime runs, our descriptor of it is
                fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC) if namespace else None
                if fd is not None:
                    stack.callback(os.close, fd)
                await leaf(self._configure, document, fd)
                record = await self._monitor(system_id, document, group)
            undo.pop_all()
        return record

    def _prepare(self, system_id: str, plan: MakingPlan) -> None:
        self._folders.exit_file(system_id).unlink(missing_ok=True)
        (Path(plan.bundle) / "oom").unlink(missing_ok=True)  # of the last run
        self._folders.system(system_id).mkdir(parents=True, exist_ok=True, mode=0o711)
        self._folders.plan(system_id).write_bytes(msgspec.json.encode(plan))

    def _configure(self, document: ContainerDocument, namespace: int | None) -> None:
        """Write the bundle's config.json: the document's, with what only the host can fill in."""
        configuration = document.OCISpecification
        linux, process = configuration["linux"], configuration["process"]
        _join_network(linux, namespace)
        devices.add_devices(linux, document.AssignedDevices, everything=document.AllDevices)
        devices.add_rates(linux["resources"], document.DeviceRates)
        root = Path(configuration["root"]["path"])
        user = users.resolve(root, document.Process.User, document.Process.AdditionalGroups)
        process["user"] = {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.additional)}
        lowered = limits.clamp(process, self._capabilities, all_capabilities=document.AllCapabilities)
        if user.uid != 0:  # what is permitted is for root; others keep the bounding set only, as with dockerd
            process["capabilities"] = {"bounding": process["capabilities"]["bounding"]}
        make_in_root(root, process["cwd"], user.uid, user.gid)
        if lowered:
            annotate(clamped="; ".join(lowered))
        (Path(document.BundlePath) / "config.json").write_bytes(msgspec.json.encode(configuration))

    async def _monitor(self, system_id: str, document: ContainerDocument, group: str) -> SystemRecord:
        process = document.Process
        plan = MonitorPlan(
            system_id=system_id,
            runtime=self._runtime.path,
            runtime_root=str(self._folders.runtime),
            bundle=document.BundlePath,
            log=document.LogPath,
            journal=document.Journal,
            pidfile=str(self._folders.pidfile(system_id)),
            exits=str(self._folders.exits),
            terminal=process.EmulateConsole,
            stdin=process.CreateStdInPipe,
            stdin_once=process.StdInOnce,
        )
        with span(f"{self._runtime.name}::create", argv=" ".join(command(plan))):
            pid, monitor = await self._launch(plan, process.CommandArgs[0])
            control = ControlGroup(self._cgroups, group)
            effect("monitor", "+", f"{monitor} conmon")
            effect("cgroup", "+", next((str(path) for path in control.directories() if path.exists()), group))
            effect("init", "+", f"{pid} waiting")
        return SystemRecord(
            id=system_id,
            state=SystemState.CREATED,
            runtime=self._runtime.name,
            document=document,
            cgroup=group,
            monitor_pid=monitor,
            monitor_began=pidfd.start_time(monitor) or 0,
            pid=pid,
            pid_began=pidfd.start_time(pid) or 0,
            runtime_id=new_guid(),
            boot=self._boot,
        )

    async def _launch(self, plan: MonitorPlan, argv0: str) -> tuple[int, int]:
        """Start conmon and take its answer; return the init's pid and conmon's.

        A conmon that answered with a failure, or not at all, is ended and collected here.
        """
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reader, False)
        with contextlib.closing(os.fdopen(reader, "rb", buffering=0)):
            try:
                monitor = await self._spawner.start(
                    command(plan),
                    directory=plan.bundle,  # it writes the file "oom" where it is
                    pass_fds=[writer],
                    environment={"_OCI_SYNCPIPE": str(writer), "TZ": "UTC"},
                )
            finally:
                os.close(writer)
            async with Undo() as undo:
                undo.push_async_callback(pidfd.kill_and_wait, monitor, pidfd.start_time(monitor) or 0, 5)
                pid = await self._answer(plan, reader, argv0)
                undo.pop_all()
        return pid, monitor

    async def _answer(self, plan: MonitorPlan, reader: int, argv0: str) -> int:
        """The pid of the waiting init.  Raises what the runtime said instead."""
        try:
            answer = await read_answer(reader, CREATE_SECONDS)
        except TimeoutError:
            raise HostFault(f"{self._runtime.name} create {plan.system_id}: no answer in {CREATE_SECONDS} s") from None
        if answer.data <= 0:
            annotate(stderr=answer.message.strip())
            raise InvalidParameter(explain(self._runtime.name, answer.message, argv0))
        return answer.data

    async def start(self, record: SystemRecord) -> None:
        """Let the init go on: it becomes the container's process."""
        await self._runtime_call(record, "start")

    async def freeze(self, record: SystemRecord, verb: str) -> None:
        """Pause or resume."""
        await self._runtime_call(record, verb)

    async def _runtime_call(self, record: SystemRecord, verb: str) -> None:
        path = locate(record.runtime)
        if path is None:
            raise HostFault(f"the OCI runtime {record.runtime} that made the container is no longer installed")
        argv = [path, f"--root={self._folders.runtime}", verb, record.id]
        with span(f"{record.runtime}::{verb}", argv=" ".join(argv)):
            done = await self._spawner.run(argv)
            annotate(exit_code=done.code)
            if done.code != 0:
                text = done.err.decode("utf-8", "replace")
                annotate(stderr=text.strip())
                raise InvalidParameter(explain(record.runtime, text, record.document.Process.CommandArgs[0]))


def _join_network(linux: dict[str, Any], namespace: int | None) -> None:
    """Put the compartment into the configuration; without one the container is in the host's network."""
    if namespace is None:
        linux["namespaces"] = [kind for kind in linux["namespaces"] if kind["type"] != "network"]
        return
    for kind in linux["namespaces"]:
        if kind["type"] == "network":
            kind["path"] = fd_path(namespace)


def _network_mode(document: ContainerDocument) -> str:
    if document.HostNetwork:
        return "host"
    if document.NetworkSharedContainerName:
        return f"shared:{document.NetworkSharedContainerName}"
    return "private"
