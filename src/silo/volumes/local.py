"""The ``local`` volume driver: ``<data-root>/volumes/<name>/_data``, one document of table ``volumes`` each."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

import msgspec

from silo.errors import Conflict, InvalidParameter, NotFound
from silo.ids import random_id
from silo.resources import KeyedLock, leaf
from silo.store import Delete, Put, Store, decode_all
from silo.telemetry import effect, traced

TABLE: Final = "volumes"
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """A named volume; ``created`` is RFC 3339."""

    name: str
    created: str
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    anonymous: bool = False


class VolumeStore:
    """Every volume of the engine."""

    def __init__(self, root: Path, store: Store) -> None:
        self.root = root
        self._store = store
        self._volumes: dict[str, Volume] = {}
        self._locks: KeyedLock[str] = KeyedLock()

    async def restore(self) -> None:
        """Read the volumes from disk, and finish removals that a crash cut short."""
        self._volumes = decode_all(Volume, self._store.load(TABLE))
        await leaf(self._sweep)

    def _sweep(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True, mode=0o701)
        for path in self.root.glob("*-removing"):
            shutil.rmtree(path)

    def mountpoint(self, name: str) -> Path:
        """The directory whose content the volume is."""
        return self.root / name / "_data"

    def find(self, name: str) -> Volume:
        """The volume of this name.  Raises NotFound with dockerd's text."""
        volume = self._volumes.get(name)
        if volume is None:
            raise NotFound(f"get {name}: no such volume")
        return volume

    def all(self) -> list[Volume]:
        """Every volume by name."""
        return [self._volumes[name] for name in sorted(self._volumes)]

    @traced("volumes::Create", "name")
    async def create(
        self,
        name: str,
        created: str,
        *,
        labels: dict[str, str] | None = None,
        options: dict[str, str] | None = None,
    ) -> Volume:
        """Make the volume, or return the one there is.  An empty name makes an anonymous one."""
        if options:
            raise InvalidParameter(f'create {name}: the local driver takes no options here: "{next(iter(options))}"')
        anonymous = not name
        name = name or random_id()
        if not _NAME.fullmatch(name) or name.endswith("-removing"):
            raise InvalidParameter(
                f'create {name}: "{name}" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
            )
        async with self._locks.hold(name):
            if name in self._volumes:
                return self._volumes[name]
            volume = Volume(name=name, created=created, labels=labels or {}, anonymous=anonymous)
            path = self.mountpoint(name)
            await leaf(path.mkdir, parents=True, exist_ok=True)
            effect("file", "+", path)
            await self._store.write(Put(TABLE, name, msgspec.json.encode(volume)))
            self._volumes[name] = volume
            return volume

    @traced("volumes::Remove", "name")
    async def remove(self, name: str, users: list[str]) -> None:
        """Remove the volume.  Raises NotFound; Conflict when ``users`` (container ids) is not empty."""
        async with self._locks.hold(name):
            self.find(name)
            if users:
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
            await self._store.write(Delete(TABLE, name))
            del self._volumes[name]
            await leaf(self._delete, name)
            effect("file", "-", self.mountpoint(name))

    def _delete(self, name: str) -> None:
        doomed = self.root / f"{name}-removing"
        (self.root / name).rename(doomed)
        shutil.rmtree(doomed)
