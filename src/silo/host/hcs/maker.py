"""Makes and dismantles the kernel side of a compute system, step by step, with everything undone on failure."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import anyio
import msgspec

from silo.errors import HostFault, InvalidParameter, SiloError
from silo.host.hcs import users
from silo.host.hcs.conmon import MonitorPlan, command, read_answer
from silo.host.hcs.records import Folders, SystemRecord
from silo.host.hcs.runtime import Runtime, clamp, explain, may_raise_limits
from silo.host.hcs.states import SystemState
from silo.host.linux import pidfd
from silo.host.linux.cgroup import Cgroups, ControlGroup
from silo.host.linux.paths import make_in_root
from silo.host.linux.spawn import Spawner, fd_path
from silo.ids import new_guid
from silo.resources import Undo, leaf
from silo.schema.hcs import ContainerDocument
from silo.telemetry import annotate, effect, span

CREATE_SECONDS: Final = 120.0
"""The runtime's create may take this long (a cold disk); hcsshim allows four minutes."""
LOST: Final = 255
"""The exit code when the monitor died without leaving one."""


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
        self, spawner: Spawner, folders: Folders, cgroups: Cgroups, runtime: Runtime, cgroup_parent: str
    ) -> None:
        self._spawner = spawner
        self._folders = folders
        self._cgroups = cgroups
        self._runtime = runtime
        self._parent = cgroup_parent
        self._may_raise = may_raise_limits()

    async def make(self, system_id: str, document: ContainerDocument, compartments: MakesCompartments) -> SystemRecord:
        """Compartment, bundle, cgroup and waiting init.  Raises what failed, after undoing the rest."""
        folder = self._folders.system(system_id)
        async with Undo() as undo:
            undo.push_async_callback(self.undo, system_id)
            await leaf(self._prepare, system_id, folder)
            undo.push_async_callback(compartments.release_compartment, system_id)
            namespace = await compartments.create_compartment(system_id, document.EndpointList, _network_mode(document))
            with contextlib.ExitStack() as stack:
                # the namespace's mount is not visible where the runtime runs, our descriptor of it is
                fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC) if namespace else None
                if fd is not None:
                    stack.callback(os.close, fd)
                configuration = await leaf(self._configuration, system_id, document, fd)
                record = await self._monitor(system_id, document, configuration["linux"]["cgroupsPath"])
            undo.pop_all()
        return record

    def _prepare(self, system_id: str, folder: Path) -> None:
        self._folders.exit_file(system_id).unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True, mode=0o711)

    def _configuration(self, system_id: str, document: ContainerDocument, namespace: int | None) -> dict[str, Any]:
        """Write the bundle's config.json: the document's, with what only the host can fill in."""
        configuration = document.OCISpecification
        linux, process = configuration["linux"], configuration["process"]
        linux["cgroupsPath"] = linux.get("cgroupsPath") or f"{self._parent}/{system_id}"
        for kind in linux["namespaces"]:
            if kind["type"] == "network" and namespace is not None:
                kind["path"] = fd_path(namespace)
        if namespace is None:
            linux["namespaces"] = [kind for kind in linux["namespaces"] if kind["type"] != "network"]
        root = Path(configuration["root"]["path"])
        user = users.resolve(root, document.Process.User, document.Process.AdditionalGroups)
        process["user"] = {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.additional)}
        if user.uid != 0:  # what is permitted is for root; others keep the bounding set only, as with dockerd
            process["capabilities"] = {"bounding": process["capabilities"]["bounding"]}
        make_in_root(root, process["cwd"], user.uid, user.gid)
        lowered = clamp(configuration, may_raise=self._may_raise)
        if lowered:
            annotate(clamped="; ".join(lowered))
        path = Path(document.BundlePath) / "config.json"
        path.write_bytes(msgspec.json.encode(configuration))
        return configuration

    async def _monitor(self, system_id: str, document: ContainerDocument, group: str) -> SystemRecord:
        process = document.Process
        plan = MonitorPlan(
            system_id=system_id,
            runtime=self._runtime.path,
            runtime_root=str(self._folders.runtime),
            bundle=document.BundlePath,
            log=document.LogPath,
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
        )

    async def _launch(self, plan: MonitorPlan, argv0: str) -> tuple[int, int]:
        """Start conmon and take its answer; return the init's pid and conmon's."""
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            os.set_blocking(writer, True)
            try:
                monitor = await self._spawner.start(
                    command(plan),
                    folder=plan.bundle,  # where conmon leaves its word of an OOM kill
                    pass_fds=[writer],
                    environment={"_OCI_SYNCPIPE": str(writer)},
                )
            finally:
                os.close(writer)
            began = pidfd.start_time(monitor)
            _write_pid(self._folders.system(plan.system_id), monitor, began)
            try:
                answer = await read_answer(reader, CREATE_SECONDS)
            except TimeoutError:
                raise HostFault(
                    f"{self._runtime.name} create {plan.system_id}: no answer in {CREATE_SECONDS} s"
                ) from None
        finally:
            os.close(reader)
        if answer.data <= 0:
            annotate(stderr=answer.message.strip())
            raise InvalidParameter(explain(self._runtime.name, answer.message, argv0))
        return answer.data, monitor

    async def start(self, record: SystemRecord) -> None:
        """Let the init go on: it becomes the container's process."""
        await self._runtime_call(record, "start")

    async def freeze(self, record: SystemRecord, verb: str) -> None:
        """Pause or resume."""
        await self._runtime_call(record, verb)

    async def _runtime_call(self, record: SystemRecord, verb: str) -> None:
        argv = [self._path_of(record.runtime), f"--root={self._folders.runtime}", verb, record.id]
        with span(f"{record.runtime}::{verb}", argv=" ".join(argv)):
            done = await self._spawner.run(argv)
            annotate(exit_code=done.code)
            if done.code != 0:
                text = done.err.decode("utf-8", "replace")
                annotate(stderr=text.strip())
                raise InvalidParameter(explain(record.runtime, text, record.document.Process.CommandArgs[0]))

    def _path_of(self, name: str) -> str:
        path = self._runtime.path if name == self._runtime.name else shutil.which(name)
        if path is None:
            raise HostFault(f"the OCI runtime {name} that made the container is no longer installed")
        return path

    async def wait_monitor(self, record: SystemRecord) -> None:
        """Return when the monitor has ended."""
        fd = pidfd.open_process(record.monitor_pid, record.monitor_began)
        if fd is None:
            return
        try:
            await pidfd.wait_gone(fd)
        finally:
            os.close(fd)
        pidfd.reap(record.monitor_pid)

    def read_exit(self, record: SystemRecord) -> None:
        """Put how the process ended into the record."""
        path = self._folders.exit_file(record.id)
        try:
            record.exit_code = int(path.read_text("ascii").strip() or LOST)
            record.finished_ns = path.stat().st_mtime_ns
        except (FileNotFoundError, ValueError):
            record.exit_code, record.finished_ns = LOST, time.time_ns()
            pidfd.send_signal(record.pid, record.pid_began, signal.SIGKILL)  # nobody holds its streams any more
        oom = Path(record.document.BundlePath) / "oom"
        record.oom_killed = oom.exists() or ControlGroup(self._cgroups, record.cgroup).oom_kills() > 0

    async def dismantle(self, record: SystemRecord) -> None:
        """Runtime state, cgroup and files of a system whose process has ended."""
        argv = [self._path_of(record.runtime), f"--root={self._folders.runtime}", "delete", record.id]
        done = await self._spawner.run(argv)
        if done.code != 0 and (self._folders.runtime / record.id).exists():
            await leaf(shutil.rmtree, self._folders.runtime / record.id, ignore_errors=True)
        await self._remove_group(record.cgroup)
        await leaf(self._remove_files, record.id, Path(record.document.BundlePath))

    async def _remove_group(self, path: str) -> None:
        """The kernel lets a group go a moment after its last process: try again for a while."""
        group = ControlGroup(self._cgroups, path)
        for pause in (0.0, 0.002, 0.01, 0.05, 0.2, 1.0):
            await anyio.sleep(pause)
            if await leaf(group.remove):
                effect("cgroup", "-", path)
                return
        raise HostFault(f"cgroup {path} cannot be removed: processes {group.pids()} are still in it")

    def _remove_files(self, system_id: str, bundle: Path | None) -> None:
        self._folders.exit_file(system_id).unlink(missing_ok=True)
        shutil.rmtree(self._folders.system(system_id), ignore_errors=True)
        if bundle is not None:
            for name in ("attach", "ctl", "winsz", "oom", "config.json"):
                (bundle / name).unlink(missing_ok=True)

    async def undo(self, system_id: str) -> None:
        """Take away whatever there is of a system that was not made to its end; nothing of it need exist."""
        folder = self._folders.system(system_id)
        with contextlib.suppress(OSError, ValueError):
            pid, began = map(int, (folder / "monitor").read_text("ascii").split())
            await self._kill(pid, began)
        with contextlib.suppress(OSError, ValueError):
            pid = int(self._folders.pidfile(system_id).read_text("ascii"))
            if ControlGroup(self._cgroups, f"{self._parent}/{system_id}").pids().count(pid):
                await self._kill(pid, pidfd.start_time(pid) or 0)
        if (self._folders.runtime / system_id).exists():
            argv = [self._runtime.path, f"--root={self._folders.runtime}", "delete", "--force", system_id]
            await self._spawner.run(argv)
            await leaf(shutil.rmtree, self._folders.runtime / system_id, ignore_errors=True)
        with contextlib.suppress(SiloError):
            await self._remove_group(f"{self._parent}/{system_id}")
        await leaf(self._remove_files, system_id, None)

    async def _kill(self, pid: int, began: int) -> None:
        fd = pidfd.open_process(pid, began)
        if fd is None:
            return
        try:
            pidfd.send_signal(pid, began, signal.SIGKILL)
            with anyio.move_on_after(5):
                await pidfd.wait_gone(fd)
        finally:
            os.close(fd)
        pidfd.reap(pid)


def _write_pid(folder: Path, pid: int, began: int | None) -> None:
    (folder / "monitor").write_text(f"{pid} {began or 0}\n", "ascii")


def _network_mode(document: ContainerDocument) -> str:
    if document.HostNetwork:
        return "host"
    if document.NetworkSharedContainerName:
        return f"shared:{document.NetworkSharedContainerName}"
    return "private"
