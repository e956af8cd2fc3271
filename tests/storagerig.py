"""The storage strip on roots of its own, and what the kernel and the disk say of it."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from silo.graphdriver.windowsfilter import WindowsFilter
from silo.host.linux import mounts
from silo.host.service import HostService
from silo.host.storagefilter.service import StorageFilterService
from silo.host.storagefilter.unpack import Limits
from silo.ids import ContainerID, random_id
from silo.layerstore.store import LayerStore
from silo.store import Store

Member = tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **more: Any) -> tarfile.TarInfo:
    """A header; a regular file or directory is readable by all unless ``mode`` says otherwise."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in more.items():
        setattr(info, key, value)
    return info


def folder(name: str, **more: Any) -> tarfile.TarInfo:
    return entry(name, tarfile.DIRTYPE, **more)


def packed(*members: Member, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for member in members:
            info, data = member if isinstance(member, tuple) else (member, b"")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def pack(path: Path, *members: Member, form: int = tarfile.PAX_FORMAT) -> Path:
    path.write_bytes(packed(*members, form=form))
    return path


def mounted_below(path: Path) -> list[str]:
    real = os.path.realpath(path)
    return [one.target for one in mounts.mount_table() if one.target == real or one.target.startswith(f"{real}/")]


def loops_of(path: Path) -> list[str]:
    """Loop devices whose image is below ``path``."""
    found = []
    for one in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if one.read_text().startswith(f"{path}/"):
                found.append(one.parts[3])
        except OSError:
            continue
    return found


def dig(root: Path, depth: int) -> None:
    """What ``mkdir d; cd d`` in a loop makes: far beyond the longest path."""
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


class Strip:
    """A process' worth of the storage strip: dropped without ``close`` it is as after kill -9."""

    def __init__(self, base: Path, data: Path, run: Path, limits: Limits) -> None:
        self.base, self.data, self.run = base, data, run
        self.home = data / "windowsfilter"
        self.host = HostService()
        self.filters = StorageFilterService(data, run, limits)
        self.host.add(self.filters.exports())
        self.store = Store(data / "silo.db")
        self.driver = WindowsFilter(self.host, self.home)
        self.layers = LayerStore(self.driver, self.store)

    async def open(self, live: tuple[ContainerID, ...] = ()) -> None:
        await self.filters.__aenter__()
        self.store.open()
        await self.layers.restore(live)

    async def close(self) -> None:
        self.store.close()
        await self.filters.__aexit__(None, None, None)

    def tar(self, *members: Member) -> Path:
        return pack(self.base / f"{random_id()}.tar", *members)

    async def container(self, *members: Member, size: int | None = None) -> ContainerID:
        """A container's layer on one layer of ``members``, or on none."""
        parent = (await self.layers.register(self.tar(*members), None)).chain_id if members else None
        container = ContainerID(random_id())
        await self.layers.create_rw_layer(container, parent, size=size)
        return container

    def volumes(self) -> list[str]:
        return sorted(os.listdir(self.run / "volumes"))

    def directories(self) -> set[str]:
        return {name for name in os.listdir(self.home) if name != ".empty"}


class Host:
    """Strips one after the other on the same roots."""

    def __init__(self, base: Path) -> None:
        self.base = base

    async def start(
        self,
        live: tuple[ContainerID, ...] = (),
        *,
        data: Path | None = None,
        run: Path | None = None,
        limits: Limits = Limits(),
    ) -> Strip:
        strip = Strip(self.base, data or self.base / "data", run or self.base / "run", limits)
        await strip.open(live)
        return strip

    def clean(self) -> None:
        for target in reversed(mounted_below(self.base)):
            mounts.unmount(target, lazily=True)


@asynccontextmanager
async def host(base: Path) -> AsyncGenerator[Host]:
    one = Host(base)
    try:
        yield one
    finally:
        one.clean()
