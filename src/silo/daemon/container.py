"""A container as the engine keeps it.

``Container`` is one document of table ``containers``.  Its life cycle is the table ``MOVES``.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from silo.errors import Conflict
from silo.ids import ChainID, ContainerID, ImageID
from silo.schema.engine import ContainerConfig, EndpointSettings, HostConfig

NEVER: Final = "0001-01-01T00:00:00Z"
"""Go's zero time, which clients take for "has not happened"."""


class Status(enum.StrEnum):
    """Docker's words for where a container is in its life."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    EXITED = "exited"
    REMOVING = "removing"
    DEAD = "dead"


MOVES: Final[dict[tuple[Status, str], Status]] = {
    (Status.CREATED, "start"): Status.RUNNING,
    (Status.EXITED, "start"): Status.RUNNING,
    (Status.RESTARTING, "start"): Status.RUNNING,
    (Status.RUNNING, "pause"): Status.PAUSED,
    (Status.PAUSED, "unpause"): Status.RUNNING,
    (Status.RUNNING, "exit"): Status.EXITED,
    (Status.PAUSED, "exit"): Status.EXITED,
    (Status.RUNNING, "restart"): Status.RESTARTING,
    (Status.RESTARTING, "exit"): Status.EXITED,
    (Status.CREATED, "remove"): Status.REMOVING,
    (Status.EXITED, "remove"): Status.REMOVING,
    (Status.DEAD, "remove"): Status.REMOVING,
    (Status.REMOVING, "fail"): Status.DEAD,
}
"""What may follow what.  A failed start leaves the status as it was."""


class MountPoint(msgspec.Struct, rename="pascal", kw_only=True):
    """One mount of a container as ``inspect`` shows it."""

    type: str
    name: str = ""
    source: str = ""
    destination: str
    driver: str = ""
    mode: str = ""
    rw: bool = msgspec.field(name="RW", default=True)
    propagation: str = ""
    anonymous: bool = False
    no_copy: bool = False
    options: list[str] = []


class State(msgspec.Struct, kw_only=True):
    """Where the container is in its life; times are RFC 3339 in UTC with nanoseconds."""

    status: Status = Status.CREATED
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: str = NEVER
    finished_at: str = NEVER


class Container(msgspec.Struct, kw_only=True):
    """Everything about a container that outlives silod."""

    id: ContainerID
    name: str
    created: str
    image: ImageID
    image_ref: str
    chain: ChainID | None
    path: str
    args: list[str]
    config: ContainerConfig
    host_config: HostConfig
    wanted_networks: dict[str, EndpointSettings]
    networks: dict[str, EndpointSettings]
    sandbox_key: str = ""
    mounts: list[MountPoint] = []
    state: State = msgspec.field(default_factory=State)
    restart_count: int = 0
    platform: str = "linux"

    @property
    def running(self) -> bool:
        """A process of the container is there: running or paused."""
        return self.state.status in {Status.RUNNING, Status.PAUSED}

    def move(self, verb: str) -> None:
        """Take the step ``verb``.  Raises Conflict when the life cycle has no such step."""
        following = MOVES.get((self.state.status, verb))
        if following is None:
            raise Conflict(f"cannot {verb} container {self.id}: it is {self.state.status}")
        self.state.status = following
