"""``POST /containers/create``: image and request become a container with a read-write layer, and nothing more.

No mount, no network object and no compute system is made here (reference, section 1.2).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from silo.daemon import logconfig, settings
from silo.daemon.clock import now
from silo.daemon.container import Container, MountPoint
from silo.daemon.daemon import Daemon
from silo.daemon.mounts import mount_points
from silo.daemon.names import invent
from silo.errors import InvalidParameter, Unimplemented
from silo.ids import ContainerID, check_container_name, random_id, short
from silo.resources import Undo, leaf
from silo.schema.engine import ContainerConfig, ContainerCreate, EndpointSettings, HostConfig, convert
from silo.telemetry import assign, effect, traced


@traced("daemon::ContainerCreate", "name")
async def create(daemon: Daemon, name: str, request: ContainerCreate) -> tuple[ContainerID, list[str]]:
    """Make a container called ``name`` (an invented name when empty); return its id and warnings.

    All or nothing.  Raises NotFound for the image, Conflict for the name, InvalidParameter for the rest.
    """
    if name:
        name = check_container_name(name)
    request.host_config.log_config = logconfig.merge(request.host_config.log_config, daemon.log_config)
    host = settings.complete_host(request.host_config, daemon.facts.cgroup_version)
    settings.verify(request, host)
    if host.runtime and host.runtime not in daemon.facts.runtimes:
        raise InvalidParameter(f"unknown or invalid runtime name: {host.runtime}")
    if host.runtime not in {"", daemon.facts.runtime}:
        raise Unimplemented(f"runtime {host.runtime} for one container: silod's --default-runtime is for all of them")
    if not request.image:
        raise InvalidParameter("no image specified")
    image = daemon.images.resolve(request.image)
    config = settings.merge(request, convert(image.container_config(), ContainerConfig))
    size = settings.storage_size(host.storage_opt)
    container_id = ContainerID(random_id())
    assign(container_id)
    config.hostname = config.hostname or ("" if host.network_mode == "host" else short(container_id))
    async with Undo() as undo:
        name = name or invent(daemon.registry.taken)
        daemon.registry.reserve(name, container_id)
        undo.callback(daemon.registry.release, name, container_id)
        argv = settings.command_line(config)
        wanted = _networks(host, request)
        container = Container(
            id=container_id,
            name=name,
            created=now(),
            image=image.id,
            image_ref=request.image,
            chain=image.chain,
            path=argv[0],
            args=argv[1:],
            config=config,
            host_config=host,
            wanted_networks=wanted,
            networks=dict(wanted),
        )
        points = mount_points(host, config.volumes, _inherited(daemon, host))
        container.mounts = await _with_volumes(daemon, points, undo)
        await daemon.layers.create_rw_layer(container_id, image.chain, size=size)
        undo.push_async_callback(daemon.layers.release_rw_layer, container_id)
        folder = daemon.container_dir(container_id)
        await leaf(_make_folder, folder)
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        await daemon.registry.add(container)
        undo.pop_all()
    daemon.tell(container, "create")
    return container_id, settings.warnings(config) + logconfig.warnings(host.log_config)


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, mode=0o710)
    effect("file", "+", folder)


def _networks(host: HostConfig, request: ContainerCreate) -> dict[str, EndpointSettings]:
    """The networks to join at start, in NIC order.  That each exists is checked then, as dockerd does."""
    wanted = request.networking_config.endpoints_config
    names = settings.network_names(host.network_mode, wanted, disabled=request.network_disabled)
    result: dict[str, EndpointSettings] = {}
    for name in names:
        given = wanted.get(name) or (wanted.get("default") if name == "bridge" else None)
        result[name] = given or EndpointSettings()
    first = next(iter(result.values()), None)
    if request.mac_address and first is not None and not first.mac_address:
        first.mac_address = request.mac_address
    return result


def _inherited(daemon: Daemon, host: HostConfig) -> list[MountPoint]:
    """The mounts of the containers named by ``--volumes-from``."""
    points: list[MountPoint] = []
    for entry in host.volumes_from or []:
        reference, _, mode = entry.partition(":")
        if mode not in {"", "ro", "rw"}:
            raise InvalidParameter(f"invalid mode: {mode}")
        for point in daemon.registry.find(reference).mounts:
            if point.type != "tmpfs":
                points.append(MountPoint(**{name: getattr(point, name) for name in point.__struct_fields__}))
                points[-1].rw = point.rw and mode != "ro"
    return points


async def _with_volumes(daemon: Daemon, points: list[MountPoint], undo: Undo) -> list[MountPoint]:
    """Give every volume mount its volume; those made here are undone when a later step fails."""
    for point in points:
        if point.type != "volume" or point.source:
            continue
        known = {volume.name for volume in daemon.volumes.all()}
        volume = await daemon.volumes.create(point.name, now())
        if volume.name not in known:
            undo.push_async_callback(daemon.volumes.remove, volume.name, [])
        point.name, point.source = volume.name, str(daemon.volumes.mountpoint(volume.name))
    return points
