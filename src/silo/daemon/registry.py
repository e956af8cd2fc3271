"""All containers by id and name, in memory and on disk.  Reads never wait for a container's verbs."""

from __future__ import annotations

import msgspec

from silo.daemon.container import Container
from silo.daemon.life import Life
from silo.errors import Conflict, InvalidParameter, NotFound
from silo.ids import ContainerID
from silo.store import Delete, Put, Store, decode_all

TABLE = "containers"


class Registry:
    """The index of containers; ``save`` is the one way to the disk."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._containers: dict[ContainerID, Container] = {}
        self._lives: dict[ContainerID, Life] = {}
        self._names: dict[str, ContainerID] = {}

    def load(self) -> list[Container]:
        """Read every container from disk; for start-up."""
        for container in decode_all(Container, self._store.load(TABLE)).values():
            self._add(container)
        return self.all()

    def _add(self, container: Container) -> None:
        self._containers[container.id] = container
        self._lives[container.id] = Life()
        self._names[container.name] = container.id

    def reserve(self, name: str, container_id: ContainerID) -> None:
        """Take ``name``.  Raises Conflict with dockerd's text when another container has it."""
        holder = self._names.get(name)
        if holder is not None:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )
        self._names[name] = container_id

    def taken(self, name: str) -> bool:
        """Whether a container has, or is about to have, this name."""
        return name in self._names

    def release(self, name: str, container_id: ContainerID) -> None:
        """Give a reserved name back, if it is ``container_id`` that holds it."""
        if self._names.get(name) == container_id:
            del self._names[name]

    async def add(self, container: Container) -> None:
        """Record a new container whose name is reserved already."""
        await self._store.write(self._put(container))
        self._add(container)

    async def save(self, container: Container) -> None:
        """Write the container as it is now; a removed one stays removed."""
        if container.id in self._containers:
            await self._store.write(self._put(container))

    @staticmethod
    def _put(container: Container) -> Put:
        return Put(TABLE, container.id, msgspec.json.encode(container))

    async def drop(self, container: Container) -> None:
        """Forget the container, on disk first."""
        await self._store.write(Delete(TABLE, container.id))
        self._containers.pop(container.id, None)
        self._lives.pop(container.id, None)
        self.release(container.name, container.id)

    def all(self) -> list[Container]:
        """Every container, newest first."""
        return sorted(self._containers.values(), key=lambda container: container.created, reverse=True)

    def get(self, container_id: ContainerID) -> Container | None:
        """The container of exactly this id."""
        return self._containers.get(container_id)

    def life(self, container: Container) -> Life:
        """The container's companion in memory.  Raises NotFound when it was removed meanwhile."""
        life = self._lives.get(container.id)
        if life is None:
            raise NotFound(f"No such container: {container.id}")
        return life

    def find(self, reference: str) -> Container:
        """The container of this id, name or unique id prefix, in this order.  Raises NotFound, InvalidParameter."""
        if not reference:
            raise InvalidParameter("Container name cannot be empty")
        exact = self._containers.get(ContainerID(reference))
        if exact is not None:
            return exact
        named = self._names.get(reference.removeprefix("/"))
        if named is not None and named in self._containers:
            return self._containers[named]
        matching = [key for key in self._containers if key.startswith(reference)]
        if len(matching) > 1:
            raise InvalidParameter(f"Multiple IDs found with provided prefix: {reference}")
        if not matching:
            raise NotFound(f"No such container: {reference}")
        return self._containers[matching[0]]
