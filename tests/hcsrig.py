"""A host compute service on the real kernel, with a compartment service of a few lines, for tests that need root."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from silo.daemon.container import MountPoint
from silo.daemon.document import ContainerFacts, container_document
from silo.execution.systems import ComputeSystems, Exit, Stdio
from silo.host.hcs.service import HcsService
from silo.host.linux import netns
from silo.host.service import HostService
from silo.ids import ContainerID, random_id
from silo.resources import leaf
from silo.schema.engine import HostConfig
from silo.schema.hcs import ContainerDocument
from silo.store import Store
from silo.telemetry import effect

BUSYBOX = Path("/bin/busybox")
APPLETS = (
    "sh cat echo sleep true id head dd yes stty hostname mount kill wc tail ls env printf seq trap nc sync".split()
)
PASSWD = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1001::/home/alice:/bin/sh\n"
GROUP = "root:x:0:\nalice:x:1001:\nvideo:x:44:alice\naudio:x:29:alice,root\n"


class Pins:
    """Compartments as empty network namespaces: all that HCS asks of HNS."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    async def create_compartment(self, container_id: str, endpoint_ids: Sequence[str], mode: str) -> str:
        if mode == "host":
            return ""
        pin = self.folder / container_id
        await leaf(netns.create, pin, lambda: None)
        effect("netns", "+", pin)
        return str(pin)

    async def release_compartment(self, container_id: str) -> None:
        await leaf(netns.remove, self.folder / container_id)

    async def attach_endpoint(self, container_id: str, endpoint_id: str) -> None:
        raise NotImplementedError

    async def detach_endpoint(self, container_id: str, endpoint_id: str) -> None:
        raise NotImplementedError


def make_rootfs(root: Path) -> None:
    """A busybox root, and files that cannot be run."""
    for name in ("bin", "etc", "proc", "dev", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    (root / "bin/plain").write_text("#!/bin/sh\n")
    (root / "bin/plain").chmod(0o644)


class Rig:
    """A service, the verbs above it, and where its things are."""

    def __init__(self, base: Path, instance: str, runtime: str) -> None:
        self.base = base
        self.exec_root = base / "exec"
        self.instance = instance
        self.runtime = runtime
        self.hcs: HcsService
        self.systems: ComputeSystems
        self.restored: dict[ContainerID, object] = {}

    @asynccontextmanager
    async def running(self, known: set[ContainerID] | None = None) -> AsyncGenerator[Rig]:
        """The service from its start to its stop; a second time on the same roots is a restart."""
        host = HostService()
        with Store(self.base / "host.db") as store:
            self.hcs = HcsService(
                store,
                exec_root=self.exec_root,
                instance=self.instance,
                compartments=Pins(self.exec_root / "netns"),
                notify=host.notify,
                runtime=self.runtime,
            )
            host.add(self.hcs.exports())
            self.systems = ComputeSystems(host)
            try:
                async with self.hcs, self.systems:
                    self.restored = dict(await self.systems.restore(known or set()))
                    yield self
            finally:
                host.close()

    def document(
        self,
        container_id: str,
        *argv: str,
        tty: bool = False,
        stdin: bool = False,
        stdin_once: bool = True,
        user: str = "",
        cwd: str = "",
        network: str = "private",
        mounts: tuple[MountPoint, ...] = (),
        environment: tuple[str, ...] = ("PATH=/usr/local/bin:/usr/bin:/bin",),
        **host: object,
    ) -> ContainerDocument:
        """The create document of a busybox container."""
        root, bundle = self.base / "root" / container_id, self.base / "containers" / container_id
        make_rootfs(root)
        bundle.mkdir(parents=True)
        given = {"ipc_mode": "private", "shm_size": 1 << 20, "cgroupns_mode": "host", **host}
        return container_document(
            ContainerFacts(
                id=container_id,
                hostname="box",
                domainname="",
                argv=argv,
                environment=environment,
                working_dir=cwd,
                user=user,
                tty=tty,
                open_stdin=stdin,
                stdin_once=stdin_once,
                volume=str(root),
                layer_folder=str(bundle),
                layers=(),
                bundle=str(bundle),
                log=str(bundle / "log"),
                files={},
                mounts=mounts,
                endpoints=(),
                network_mode=network,
                host=HostConfig(**given),  # type: ignore[arg-type]
                cgroup_parent=f"/silo-{self.instance}",
                machine=os.uname().machine,
            )
        )

    async def launch(self, *argv: str, **options: object) -> ContainerID:
        """Create, start and run."""
        container_id = ContainerID(random_id())
        document = self.document(container_id, *argv, **options)  # type: ignore[arg-type]
        await self.systems.create(container_id, document)
        await self.systems.start(container_id)
        await self.systems.create_process(container_id, document)
        return container_id

    async def run(self, *argv: str, input: bytes | None = None, **options: object) -> tuple[bytes, bytes, Exit]:
        """Run to the end; everything it wrote, and how it ended."""
        container_id = ContainerID(random_id())
        document = self.document(container_id, *argv, stdin=input is not None, **options)  # type: ignore[arg-type]
        await self.systems.create(container_id, document)
        stdio = await self.systems.attach(container_id)
        await self.systems.start(container_id)
        await self.systems.create_process(container_id, document)
        out, err = await talk(stdio, input)
        ended = await self.exit_of(container_id)
        await self.systems.close(container_id)
        return out, err, ended

    async def exit_of(self, container_id: ContainerID, seconds: float = 20) -> Exit:
        """The next exit, which must be this container's."""
        with anyio.fail_after(seconds):
            ended = await anext(aiter(self.systems.exits))
        assert ended.container_id == container_id
        return ended


async def talk(stdio: Stdio, given: bytes | None = None) -> tuple[bytes, bytes]:
    """Write all input, read all output."""
    taken: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}

    async def write() -> None:
        if given is not None:
            await stdio.send(given)
            await stdio.close_stdin()

    async with stdio, anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        async for number, data in stdio:
            taken[number] += data
    return bytes(taken[1]), bytes(taken[2])


def leftovers(instance: str, base: Path) -> dict[str, list[str]]:
    """Everything of a rig that the host still has."""
    table = Path("/proc/self/mountinfo").read_text("utf-8")
    mounts = [line.split()[4] for line in table.splitlines() if str(base) in line]
    cgroups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/silo-{instance}*")]
    cgroups += [str(path) for path in Path("/sys/fs/cgroup").glob(f"silo-{instance}*")]
    processes = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
                state = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if str(base) in command or (state[0] == "Z" and int(state[1]) == os.getpid()):
                processes.append(f"{entry.name} {state[0]} {command}")
    files = [str(path) for path in (base / "exec").rglob("*") if path.is_file() or path.is_socket()]
    return {
        key: value
        for key, value in (("mounts", mounts), ("cgroups", cgroups), ("processes", processes), ("files", files))
        if value
    }
