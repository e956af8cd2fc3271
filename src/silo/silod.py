"""The daemon's process, and the one place that names concrete classes.

``silod`` reads its flags, builds the engine from its parts, opens the API and, when told to stop, leaves the containers
running: their monitors hold everything that a next silod needs.
"""

from __future__ import annotations

import fcntl
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import click
from anyio.abc import TaskGroup

from silo import __version__, telemetry
from silo.api.router import Router
from silo.api.routes import absent, containers, images, networks, silo, system, volumes
from silo.api.server import ApiServer
from silo.config import DEFAULT_HOST, Config, load
from silo.daemon import exits, logconfig, recover, rotation
from silo.daemon.daemon import Daemon
from silo.daemon.system import host_facts
from silo.daemon.traces import TraceStore
from silo.errors import Conflict, InvalidParameter, SiloError
from silo.execution.systems import ComputeSystems
from silo.graphdriver.windowsfilter import WindowsFilter
from silo.host.hcs.service import HcsService
from silo.host.hns.service import HnsService
from silo.host.service import HostService
from silo.host.storagefilter.service import StorageFilterService
from silo.httpd.listen import open_host
from silo.images.service import ImageService
from silo.layerstore.store import LayerStore
from silo.network.controller import Controller
from silo.network.driverapi import Driver
from silo.network.drivers.host import HostNetwork
from silo.network.drivers.null import NullDriver
from silo.network.drivers.windows import WindowsDriver
from silo.schema.engine import LogConfig
from silo.store import Store
from silo.volumes.local import VolumeStore

log = logging.getLogger("silod")


@contextmanager
def sole_user(root: Path) -> Generator[None]:
    """Hold ``root`` for this process.  Raises Conflict while another silod has it."""
    root.mkdir(parents=True, exist_ok=True)
    fd = os.open(root / "silod.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Conflict(f"another silod uses {root}") from None
    finally:
        os.close(fd)


def _make_roots(config: Config) -> None:
    config.data_root.mkdir(parents=True, exist_ok=True)
    config.data_root.chmod(0o711)
    config.exec_root.mkdir(parents=True, exist_ok=True)
    config.exec_root.chmod(0o711)
    (config.data_root / "containers").mkdir(mode=0o710, exist_ok=True)


@asynccontextmanager
async def engine(config: Config) -> AsyncGenerator[Daemon]:
    """The whole engine on its roots, recovered and watching; on the way out everything but the containers ends."""
    data = config.data_root
    _make_roots(config)
    with sole_user(data), Store(data / "silo.db") as store, Store(data / "host.db") as host_store:
        traces = TraceStore(data / "traces")
        telemetry.use_sink(traces)
        async with anyio.create_task_group() as background:
            background.start_soon(traces.run)
            async with _host_services(config, host_store) as (host, hcs), anyio.create_task_group() as tasks:
                daemon = _assemble(config, store, host, hcs, traces, tasks)
                async with daemon.systems:
                    await recover.recover(daemon)
                    tasks.start_soon(exits.watch, daemon)
                    tasks.start_soon(rotation.Watch(daemon).run)
                    try:
                        yield daemon
                    finally:
                        tasks.cancel_scope.cancel()
            background.cancel_scope.cancel()


@asynccontextmanager
async def _host_services(config: Config, store: Store) -> AsyncGenerator[tuple[HostService, HcsService]]:
    """The three services and their function table; what they hold is released in reverse."""
    filters = StorageFilterService(config.data_root, config.exec_root)
    hns = HnsService(store, config.instance, config.exec_root)
    host = HostService()
    hcs = HcsService(
        store,
        exec_root=config.exec_root,
        instance=config.instance,
        compartments=hns,
        notify=host.notify,
        runtime=config.default_runtime,
    )
    for service in (filters, hns, hcs):
        host.add(service.exports())
    try:
        async with filters, hns, hcs:
            yield host, hcs
    finally:
        host.close()


def log_config(config: Config) -> LogConfig:
    """The log driver of containers that name none.  Raises InvalidParameter."""
    default = LogConfig(type=config.log_driver, config=config.log_opts)
    try:
        logconfig.verify(default)
    except InvalidParameter as exc:
        raise InvalidParameter(f"failed to set log opts: {exc}") from exc
    return default


def _assemble(
    config: Config, store: Store, host: HostService, hcs: HcsService, traces: TraceStore, tasks: TaskGroup
) -> Daemon:
    host_network = HostNetwork(host)
    drivers: dict[str, Driver] = {
        "bridge": WindowsDriver(host, "bridge"),
        "nat": WindowsDriver(host, "nat"),
        "null": NullDriver("null"),
        "host": NullDriver("host"),
    }
    layers = LayerStore(WindowsFilter(host, config.data_root / "windowsfilter"), store)
    return Daemon(
        data_root=config.data_root,
        exec_root=config.exec_root,
        store=store,
        images=ImageService(config.data_root, store, layers),
        layers=layers,
        network=Controller(store, drivers, host_network),
        host_network=host_network,
        systems=ComputeSystems(host),
        volumes=VolumeStore(config.data_root / "volumes", store),
        traces=traces,
        facts=host_facts(
            instance=config.instance,
            cgroup_version=hcs.cgroup_version,
            runtime=hcs.runtimes[0].name,
            runtimes={runtime.name: runtime.version for runtime in hcs.runtimes},
        ),
        log_config=log_config(config),
        tasks=tasks,
    )


def routes(daemon: Daemon) -> Router:
    """Every route of the API."""
    router = Router()
    for resource in (system, containers, images, networks, volumes, absent, silo):
        resource.routes(daemon, router)
    return router


@contextmanager
def pidfile(path: Path | None) -> Generator[None]:
    """Keep our pid in ``path``.  Raises Conflict when the process it names is alive."""
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        text = path.read_text("ascii", "replace").strip()
        if text.isdecimal() and int(text) != os.getpid() and Path(f"/proc/{text}").exists():
            raise Conflict(f"process with PID {text} is still running: {path}")
    path.write_text(f"{os.getpid()}\n", "ascii")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def remove_sockets(hosts: list[str]) -> None:
    """Take the sockets' files away: nobody answers there any more."""
    for host in hosts:
        if host.startswith("unix://"):
            Path(host.removeprefix("unix://")).unlink(missing_ok=True)


async def serve(config: Config) -> None:
    """Run until SIGTERM or SIGINT."""
    with pidfile(config.pidfile), anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with engine(config) as daemon, anyio.create_task_group() as tasks:
            hosts = config.hosts or [DEFAULT_HOST]
            listeners = [open_host(host, group=config.group) for host in hosts]
            server = ApiServer(routes(daemon), version=__version__)
            await tasks.start(server.serve, listeners)
            gc.collect()
            gc.freeze()  # what is alive now stays: no collection need ever look at it again
            log.info("API listens on %s", ", ".join(hosts))
            async for number in signals:
                log.info("%s: stopping; containers run on", signal.Signals(number).name)
                break
            remove_sockets(hosts)
            tasks.cancel_scope.cancel()


def _pairs(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """``KEY=VALUE`` as a table."""
    if wrong := [text for text in given if "=" not in text]:
        raise click.BadParameter(f"invalid key value pair: {wrong[0]}", context, option)
    return dict(text.split("=", 1) for text in given)


@click.command(context_settings={"help_option_names": ["--help"]})
@click.option("--config-file", type=click.Path(path_type=Path), help="Settings as JSON, in the flags' names")
@click.option("--data-root", type=click.Path(path_type=Path), help="Root of what is kept  [/var/lib/silo]")
@click.option("--exec-root", type=click.Path(path_type=Path), help="Root of what lives until a reboot  [/run/silo]")
@click.option("-H", "--host", "hosts", multiple=True, help=f"Where to listen, may be repeated  [{DEFAULT_HOST}]")
@click.option("-p", "--pidfile", type=click.Path(path_type=Path), help="Where to keep the process id")
@click.option("-G", "--group", help="Group of the unix socket  [docker]")
@click.option("--default-runtime", type=click.Choice(["crun", "runc"]), help="OCI runtime  [the first that works]")
@click.option("-l", "--log-level", type=click.Choice(["debug", "info", "warn", "error", "fatal"]))
@click.option("--log-driver", help="Log driver of containers that name none  [json-file]")
@click.option("--log-opt", "log_opts", multiple=True, callback=_pairs, help="Option of that driver, KEY=VALUE")
@click.version_option(__version__, "-v", "--version", message="Silo version %(version)s")
def main(config_file: Path | None, **flags: object) -> None:
    """Run the Silo container engine."""
    try:
        given = {key.replace("_", "-"): value for key, value in flags.items() if value}
        config = load(config_file, {k: str(v) if isinstance(v, Path) else v for k, v in given.items()})
        logging.basicConfig(
            level={"warn": "WARNING", "fatal": "CRITICAL"}.get(config.log_level, config.log_level.upper()),
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        )
        logging.getLogger("pyroute2").setLevel(logging.WARNING)  # at debug level it prints every message whole
        if os.geteuid() != 0:
            raise InvalidParameter("silod needs to be started with root privileges")
        anyio.run(serve, config)
    except SiloError as exc:
        sys.exit(f"silod: {exc}")
