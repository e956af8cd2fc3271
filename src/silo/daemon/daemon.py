"""What every verb of the engine works with: the strips, the registry, and where a container's files are.

A verb is a function in a file of its own (``create.create``, ``start.start`` ...) that takes the Daemon first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from anyio.abc import TaskGroup

from silo.daemon.container import Container
from silo.daemon.events import EventBus
from silo.daemon.probe import Limits
from silo.daemon.registry import Registry
from silo.daemon.traces import TraceStore
from silo.execution.systems import ComputeSystems
from silo.ids import ContainerID
from silo.images.service import ImageService
from silo.layerstore.store import LayerStore
from silo.network.controller import Controller
from silo.network.drivers.host import HostNetwork
from silo.resources import KeyedLock
from silo.schema.engine import LogConfig
from silo.store import Store
from silo.volumes.local import VolumeStore


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is true of this host for as long as silod runs."""

    instance: str
    name: str
    kernel_version: str
    operating_system: str
    os_version: str
    architecture: str
    cpus: int
    memory: int
    cgroup_version: str
    runtime: str
    runtimes: dict[str, str]
    security_options: list[str] = []
    limits: Limits = msgspec.field(default_factory=Limits)


class Daemon:
    """The engine's parts.  Built by :mod:`silo.silod`; lives as long as the engine."""

    def __init__(
        self,
        *,
        data_root: Path,
        exec_root: Path,
        store: Store,
        images: ImageService,
        layers: LayerStore,
        network: Controller,
        host_network: HostNetwork,
        systems: ComputeSystems,
        volumes: VolumeStore,
        traces: TraceStore,
        facts: HostFacts,
        log_config: LogConfig,
        tasks: TaskGroup,
    ) -> None:
        self.data_root = data_root
        self.exec_root = exec_root
        self.store = store
        self.images = images
        self.layers = layers
        self.network = network
        self.host_network = host_network
        self.systems = systems
        self.volumes = volumes
        self.traces = traces
        self.facts = facts
        self.log_config = log_config
        self.tasks = tasks
        self.registry = Registry(store)
        self.events = EventBus()
        self.log_locks: KeyedLock[ContainerID] = KeyedLock()
        """Held by who changes which log files there are."""

    def container_dir(self, container_id: ContainerID) -> Path:
        """Bundle, hostname, hosts, resolv.conf and log of one container."""
        return self.data_root / "containers" / container_id

    def log_path(self, container_id: ContainerID) -> Path:
        """The container's log, written by conmon (CRI text format)."""
        return self.container_dir(container_id) / "container.log"

    def tell(self, container: Container, action: str, **attributes: Any) -> None:
        """Publish an event about ``container``, with its labels, image and name as attributes."""
        self.events.publish(
            "container",
            action,
            container.id,
            {
                **container.config.labels,
                "image": container.image_ref,
                "name": container.name,
                **{key: str(value) for key, value in attributes.items()},
            },
        )
