"""The windowsfilter driver on the real kernel: the contract of graph drivers, and what is its own."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import msgspec
import pytest

from silo import telemetry
from silo.errors import Conflict, NotFound, SiloError, Unavailable
from silo.hcsshim import layer as shim
from silo.hcsshim.errors import Code, HcsError
from silo.host.linux import libc, mounts
from silo.host.storagefilter.unpack import Limits
from silo.ids import ContainerID, LayerID, random_id
from silo.testing.graphdriver import GraphDriverContract, new_layer, stack
from tests.storagerig import Host, Strip, dig, entry, folder, host, loops_of, mounted_below

pytestmark = pytest.mark.anyio


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncGenerator[Host]:
    async with host(tmp_path) as one:
        yield one


@pytest.fixture
async def strip(machine: Host) -> AsyncGenerator[Strip]:
    one = await machine.start()
    yield one
    await one.close()


class TestContract(GraphDriverContract):
    @pytest.fixture
    async def driver(self, strip: Strip):
        return strip.driver


class Spans:
    """Keeps the finished traces."""

    def __init__(self) -> None:
        self.traces: list[telemetry.Trace] = []

    def begin(self, trace: telemetry.Trace) -> None: ...

    def end(self, trace: telemetry.Trace) -> None:
        self.traces.append(trace)

    def names(self) -> list[str]:
        return [span.name for trace in self.traces for span in trace.spans]

    def effects(self) -> list[tuple[str, str, str]]:
        return [(one.kind, one.action, one.object) for t in self.traces for span in t.spans for one in span.effects]


async def test_layerchain_lists_the_parents_nearest_first(strip: Strip, tmp_path: Path) -> None:
    parents = await stack(strip.driver, tmp_path, [("a", b"")], [("b", b"")], [("c", b"")])
    layer = new_layer()
    await strip.driver.create_read_write(layer, parents, None)
    file = strip.home / layer / "layerchain.json"
    assert json.loads(file.read_bytes()) == [str(strip.home / one) for one in parents]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    below = json.loads((strip.home / parents[0] / "layerchain.json").read_bytes())
    assert below == [str(strip.home / one) for one in parents[1:]]
    assert not (strip.home / parents[2] / "layerchain.json").exists()  # a base layer has none


async def test_the_calls_and_their_effects_are_those_of_the_flow(strip: Strip, tmp_path: Path) -> None:
    parents = await stack(strip.driver, tmp_path, [("a", b"")])
    layer, spans = new_layer(), Spans()
    telemetry.use_sink(spans)
    await strip.driver.create_read_write(layer, parents, None)
    root = await strip.driver.get(layer)
    await strip.driver.put(layer)
    await strip.driver.remove(layer)
    assert spans.names() == [
        "windowsfilter::CreateReadWrite",
        "hcsshim::GetLayerMountPath",
        "hcsshim::CreateScratchLayer",
        "windowsfilter::Get",
        "hcsshim::ActivateLayer",
        "hcsshim::PrepareLayer",
        "hcsshim::GetLayerMountPath",
        "windowsfilter::Put",
        "hcsshim::UnprepareLayer",
        "hcsshim::DeactivateLayer",
        "windowsfilter::Remove",
        "hcsshim::DestroyLayer",
    ]
    path = str(strip.home / layer)
    assert spans.effects() == [
        ("file", "+", path),
        ("volume", "+", str(root)),
        ("mount", "+", str(root)),
        ("mount", "-", str(root)),
        ("volume", "-", str(root)),
        ("file", "-", f"{path}-removing"),
    ]


async def test_the_volume_is_another_one_each_time(strip: Strip) -> None:
    layer = new_layer()
    await strip.driver.create_read_write(layer, [], None)
    roots = set()
    for _ in range(3):
        roots.add(await strip.driver.get(layer))
        await strip.driver.put(layer)
    assert len(roots) == 3
    assert strip.volumes() == []


async def test_the_union_is_mounted_as_overlay2_does_it(strip: Strip) -> None:
    container = await strip.container(entry("f"))
    root = await strip.layers.mount(container)
    (found,) = [one for one in mounts.mount_table() if one.target == str(root)]
    assert found.kind == "overlay"
    assert found.shared  # so that a runtime in a slave namespace sees it
    assert not {"index=on", "metacopy=on", "redirect_dir=on", "nfs_export=on"} & set(found.options.split(","))
    assert mounts.upper_directory(found) == str(strip.home / container / "sandbox" / "upper")
    await strip.layers.unmount(container)


async def test_the_root_directory_is_open_to_all_whatever_the_umask(machine: Host) -> None:
    old = os.umask(0o077)
    try:
        strip = await machine.start()
        container = await strip.container((entry("a/b/c"), b"x"))
        root = await strip.layers.mount(container)
        for path in (root, root / "a", root / "a" / "b"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o755
        assert stat.S_IMODE(strip.home.stat().st_mode) == 0o711
        await strip.layers.unmount(container)
        await strip.close()
    finally:
        os.umask(old)


async def test_a_layer_in_use_is_not_destroyed_through_the_gate_either(strip: Strip) -> None:
    container = await strip.container((entry("f"), b"x"))
    path = strip.home / container
    root = await strip.layers.mount(container)
    with pytest.raises(HcsError) as failure:
        await shim.destroy_layer(strip.host, path)
    assert failure.value.code == Code.SHARING_VIOLATION
    doomed = path.rename(f"{path}-removing")
    with pytest.raises(HcsError) as failure:
        await shim.destroy_layer(strip.host, doomed)
    assert failure.value.code == Code.SHARING_VIOLATION
    doomed.rename(path)
    assert (root / "f").read_bytes() == b"x"
    await strip.layers.unmount(container)


@pytest.mark.parametrize("path", ["/etc", "{home}/..", "{home}", "{home}/a/b", "relative", "{home}/../windowsfilter/x"])
async def test_the_gate_takes_layers_of_its_root_only(strip: Strip, path: str) -> None:
    for function in ("DestroyLayer", "ActivateLayer", "CreateLayer", "LayerExists", "GetLayerSize"):
        answer = await strip.host.call(function, msgspec.json.encode({"Path": path.format(home=strip.home)}))
        assert msgspec.json.decode(answer)["Result"] == Code.INVALID_PARAMETER, function


async def test_calls_out_of_order_are_refused_and_change_nothing(strip: Strip) -> None:
    container = await strip.container((entry("f"), b"x"))
    path = strip.home / container
    for call, code in [
        (shim.unprepare_layer(strip.host, path), Code.INVALID_STATE),
        (shim.deactivate_layer(strip.host, path), Code.INVALID_STATE),
        (shim.prepare_layer(strip.host, path, []), Code.INVALID_STATE),
        (shim.create_scratch_layer(strip.host, path, []), Code.ALREADY_EXISTS),
        (shim.activate_layer(strip.host, strip.home / "no"), Code.PATH_NOT_FOUND),
        (shim.get_layer_mount_path(strip.host, strip.home / "no"), Code.PATH_NOT_FOUND),
        (shim.import_layer(strip.host, path, path, []), Code.INVALID_STATE),
    ]:
        with pytest.raises(HcsError) as failure:
            await call
        assert failure.value.code == code
    root = await strip.layers.mount(container)
    assert (root / "f").read_bytes() == b"x"
    await strip.layers.unmount(container)
    assert mounted_below(strip.run) == [str(strip.run / "volumes")]


async def test_activating_at_once_makes_one_volume(strip: Strip) -> None:
    container = await strip.container()
    outcomes: list[str] = []

    async def activate() -> None:
        try:
            await shim.activate_layer(strip.host, strip.home / container)
            outcomes.append("ok")
        except HcsError as exc:
            outcomes.append(Code(exc.code).name)

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(activate)
    assert sorted(outcomes) == ["INVALID_STATE"] * 7 + ["ok"]
    assert len(strip.volumes()) == 1
    await shim.deactivate_layer(strip.host, strip.home / container)
    assert strip.volumes() == []


async def test_a_failing_prepare_is_undone(strip: Strip, tmp_path: Path) -> None:
    parents = await stack(strip.driver, tmp_path, [("a", b"")])
    layer = new_layer()
    await strip.driver.create_read_write(layer, parents, None)
    files = strip.home / parents[0] / "Files"
    files.rename(tmp_path / "elsewhere")
    with pytest.raises(NotFound, match="Files"):
        await strip.driver.get(layer)
    assert strip.volumes() == []
    (tmp_path / "elsewhere").rename(files)
    assert (await strip.driver.get(layer) / "a").exists()
    await strip.driver.put(layer)


async def test_a_put_that_failed_can_be_done_again(strip: Strip, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = new_layer()
    await strip.driver.create_read_write(layer, [], None)
    root = await strip.driver.get(layer)
    call = strip.host.call

    async def failing(function: str, document: bytes) -> bytes:
        if function == "DeactivateLayer":
            return msgspec.json.encode({"Result": int(Code.SHARING_VIOLATION), "ErrorMessage": "busy"})
        return await call(function, document)

    with monkeypatch.context() as patch:
        patch.setattr(strip.host, "call", failing)
        with pytest.raises(Conflict, match="busy"):
            await strip.driver.put(layer)
    assert root.exists()
    again = await strip.driver.get(layer)  # finishes what was begun, and mounts anew
    assert not root.exists()
    assert again != root
    await strip.driver.put(layer)
    assert strip.volumes() == []


async def test_somebody_inside_does_not_hold_up_the_unmount(strip: Strip) -> None:
    container = await strip.container((entry("f"), b"x"), size=16 << 20)
    root = await strip.layers.mount(container)
    (root / "mine").write_bytes(b"before")
    inside = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        await strip.layers.unmount(container)
        assert strip.volumes() == []
        # Mounted again while the first file system lives: it must be the same one, not a second on the same image.
        root = await strip.layers.mount(container)
        assert (root / "mine").read_bytes() == b"before"
        assert len(loops_of(strip.home / container)) == 1
        (root / "mine").write_bytes(b"after")
        await strip.layers.unmount(container)
    finally:
        os.close(inside)
    root = await strip.layers.mount(container)
    assert (root / "mine").read_bytes() == b"after"
    await strip.layers.unmount(container)
    await strip.layers.release_rw_layer(container)
    with anyio.fail_after(10):
        while loops_of(strip.home):  # noqa: ASYNC110 - the kernel lets go in its own time
            await anyio.sleep(0.01)


async def test_a_size_bounds_the_layer_and_can_grow(strip: Strip) -> None:
    container = await strip.container((entry("f"), b"x"), size=16 << 20)
    image = strip.home / container / "sandbox.img"
    assert image.stat().st_size == 16 << 20
    assert image.stat().st_blocks * 512 < 4 << 20  # sparse
    assert not (strip.home / container / "sandbox").exists()
    assert _fill(await strip.layers.mount(container)) < 16 << 20
    await strip.layers.unmount(container)
    await shim.expand_scratch_size(strip.host, strip.home / container, 48 << 20)
    await shim.expand_scratch_size(strip.host, strip.home / container, 8 << 20)  # "at least": never shrinks
    assert image.stat().st_size == 48 << 20
    root = await strip.layers.mount(container)
    assert 16 << 20 < _fill(root) < 48 << 20
    with pytest.raises(HcsError) as failure:
        await shim.expand_scratch_size(strip.host, strip.home / container, 64 << 20)
    assert failure.value.code == Code.INVALID_STATE
    await strip.layers.unmount(container)


def _fill(root: Path) -> int:
    """Write until there is no room; bytes written."""
    written = 0
    with pytest.raises(OSError) as failure, (root / "big").open("wb", buffering=0) as file:
        while True:
            written += file.write(b"x" * (1 << 20))
    assert failure.value.errno == errno.ENOSPC
    (root / "big").unlink()
    return written


async def test_a_bounded_layer_is_readable_when_its_container_is_stopped(strip: Strip, tmp_path: Path) -> None:
    container = await strip.container((entry("f"), b"x"), size=16 << 20)
    root = await strip.layers.mount(container)
    (root / "new").write_bytes(b"12345")
    await strip.layers.unmount(container)
    assert await strip.layers.rw_size(container) == 5
    assert [one.path for one in await strip.layers.changes(container)] == ["/new"]
    await strip.layers.export_rw(container, tmp_path / "diff")
    listed = await anyio.run_process(["tar", "-tf", tmp_path / "diff"])
    assert listed.stdout.split() == [b"new"]
    assert mounted_below(strip.run) == [str(strip.run / "volumes")]


async def test_a_layer_with_content_is_not_emptied_by_a_bound(strip: Strip) -> None:
    container = await strip.container((entry("f"), b"x"))
    root = await strip.layers.mount(container)
    (root / "mine").write_bytes(b"precious")
    await strip.layers.unmount(container)
    with pytest.raises(SiloError, match="content"):
        await shim.expand_scratch_size(strip.host, strip.home / container, 16 << 20)
    assert (strip.home / container / "sandbox" / "upper" / "mine").read_bytes() == b"precious"


async def test_a_bound_that_cannot_be_made_leaves_no_layer(strip: Strip) -> None:
    before = strip.directories()
    with pytest.raises(SiloError):
        await strip.layers.create_rw_layer(ContainerID(random_id()), None, size=1 << 62)
    assert strip.directories() == before
    assert strip.layers.containers() == []


@pytest.mark.parametrize("length", [10, 200])
async def test_125_layers_mount_whatever_the_length_of_their_paths(machine: Host, tmp_path: Path, length: int) -> None:
    base = tmp_path / ("d" * length) / ("e" * length)
    base.mkdir(parents=True)
    strip = await machine.start(data=base / "data", run=tmp_path / "r")
    parents: list[LayerID] = []
    for number in range(125):
        layer = new_layer()
        await strip.driver.create(layer, parents)
        await strip.driver.apply_diff(layer, strip.tar((entry("same"), b"%d" % number), entry(f"f{number}")))
        parents.insert(0, layer)
    top = new_layer()
    await strip.driver.create_read_write(top, parents, None)
    root = await strip.driver.get(top)
    assert len(os.listdir(root)) == 126
    assert (root / "same").read_bytes() == b"124"
    with pytest.raises(SiloError, match="max depth exceeded"):
        await strip.driver.create_read_write(new_layer(), [*parents, parents[0]], None)
    await strip.driver.put(top)
    await strip.close()


async def test_kernels_before_6_8_mount_125_layers_too(machine: Host, tmp_path: Path) -> None:
    lower = [tmp_path / ("d" * 100) / str(number) for number in range(125)]
    for number, one in enumerate(lower):
        one.mkdir(parents=True)
        (one / f"f{number}").write_bytes(b"")
    upper, work, target = (tmp_path / name for name in ("u,p", "w\\ork", "target"))
    for one in (upper, work, target):
        one.mkdir()
    mounts.mount_union_by_page([str(one) for one in lower], str(upper), str(work), str(target))
    assert len(os.listdir(target)) == 125
    (target / "mine").write_bytes(b"")
    assert os.listdir(upper) == ["mine"]
    (found,) = [one for one in mounts.mount_table() if one.target == str(target)]
    assert mounts.upper_directory(found) == str(upper)


@pytest.mark.parametrize("name", ["with, comma", "back\\slash", "colon:equals=", "tab\tand ünicode"])
async def test_roots_of_any_name(machine: Host, tmp_path: Path, name: str) -> None:
    data, run = tmp_path / name / "data", tmp_path / name / "run"
    strip = await machine.start(data=data, run=run)
    containers = (
        await strip.container((entry("f"), b"x"), size=16 << 20),
        await strip.container((entry("f"), b"x")),
    )
    roots = [await strip.layers.mount(one) for one in containers]
    strip.store.close()
    again = await machine.start(containers, data=data, run=run)
    assert again.volumes() == sorted(root.name for root in roots)
    for one in containers:
        await again.layers.unmount(one)
        await again.layers.release_rw_layer(one)
    await again.close()
    assert mounted_below(tmp_path) == []


async def test_after_kill_live_mounts_are_adopted_and_the_rest_is_swept(machine: Host) -> None:
    strip = await machine.start()
    live = await strip.container((entry("f"), b"live"), size=16 << 20)
    dead = await strip.container((entry("f"), b"dead"), size=16 << 20)
    half = await strip.container((entry("f"), b"half"), size=16 << 20)
    root, gone = await strip.layers.mount(live), await strip.layers.mount(dead)
    await shim.activate_layer(strip.host, strip.home / half)
    known = strip.directories()
    doomed, cut_short = strip.home / f"{random_id()}-removing", strip.home / random_id()
    (doomed / "d" / "d").mkdir(parents=True)
    (cut_short / "Files").mkdir(parents=True)
    strip.store.close()

    again = await machine.start((live,))
    assert (root / "f").read_bytes() == b"live"
    assert not gone.exists()
    assert again.volumes() == [root.name]
    assert again.directories() == known
    with pytest.raises(Conflict):
        await again.layers.release_rw_layer(live)
    await again.layers.unmount(live)  # the one reference that was adopted
    assert again.volumes() == []
    for one in (live, dead, half):  # all of them can be used again
        assert (await again.layers.mount(one) / "f").exists()
        await again.layers.unmount(one)
        await again.layers.release_rw_layer(one)
    await again.close()
    assert mounted_below(machine.base) == []


async def test_a_mount_is_known_again_however_the_roots_are_spelt(machine: Host, tmp_path: Path) -> None:
    strip = await machine.start()
    container = await strip.container((entry("f"), b"x"))
    root = await strip.layers.mount(container)
    strip.store.close()
    for name in ("data", "run"):
        (tmp_path / f"{name}-link").symlink_to(tmp_path / name)
    again = await machine.start((container,), data=tmp_path / "data-link", run=tmp_path / "run-link")
    assert await again.layers.mount(container) == root
    assert mounted_below(tmp_path) == [str(tmp_path / "run" / "volumes"), str(root)]  # not shared a second time
    for _ in range(2):
        await again.layers.unmount(container)
    await again.close()
    assert mounted_below(tmp_path) == []


async def test_a_start_survives_what_it_cannot_clean(machine: Host, caplog: pytest.LogCaptureFixture) -> None:
    strip = await machine.start()
    await strip.close()
    doomed, stray = strip.home / "x-removing", strip.run / "volumes" / "stray"
    (doomed / "busy").mkdir(parents=True)
    stray.mkdir(parents=True)
    (stray / "somebody's").write_bytes(b"")
    libc.mount("tmpfs", str(doomed / "busy"), "tmpfs")
    again = await machine.start()
    assert doomed.name in caplog.text
    assert str(stray) in caplog.text
    assert await again.container()
    mounts.unmount(doomed / "busy")
    (stray / "somebody's").unlink()
    again.store.close()
    last = await machine.start()
    assert not doomed.exists()
    assert not stray.exists()
    await last.close()


async def test_a_layer_of_any_depth_can_be_removed(strip: Strip) -> None:
    container = await strip.container()
    dig(await strip.layers.mount(container), 5000)
    assert await strip.layers.rw_size(container) == 0
    await strip.layers.unmount(container)
    await strip.layers.release_rw_layer(container)
    assert strip.directories() == set()


async def test_limits_hold_through_the_whole_strip(machine: Host) -> None:
    strip = await machine.start(limits=Limits(entries=3, content=1000))
    for members in ([entry(str(number)) for number in range(4)], [(entry("big"), b"x" * 1001)]):
        with pytest.raises(SiloError, match="more than"):
            await strip.layers.register(strip.tar(*members), None)
    assert strip.directories() == set()
    await strip.close()


async def test_a_full_disk_is_told_as_such_and_leaves_nothing(machine: Host, tmp_path: Path) -> None:
    data = tmp_path / "small"
    data.mkdir()
    libc.mount("tmpfs", str(data), "tmpfs", 0, "size=4m")
    strip = await machine.start(data=data)
    with pytest.raises(Unavailable, match="No space left"):
        await strip.layers.register(strip.tar((entry("big"), os.urandom(6 << 20))), None)
    assert strip.directories() == set()
    await strip.layers.register(strip.tar(folder("d"), (entry("d/f"), b"x")), None)
    await strip.close()


KILLED = """
import os, signal, sys
import anyio
from pathlib import Path
from tests.storagerig import Host, entry

step, base = sys.argv[1], Path(sys.argv[2])

def die():
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    strip = await Host(base).start()
    call = strip.host.call
    async def counted(function, document):
        if step == f"before {function}":
            die()
        answer = await call(function, document)
        if step == f"after {function}":
            die()
        return answer
    strip.host.call = counted
    container = await strip.container((entry("f"), b"x"), size=16 << 20)
    await strip.layers.mount(container)
    await strip.layers.unmount(container)
    await strip.layers.release_rw_layer(container)

anyio.run(main)
"""

STEPS = [
    f"{when} {function}"
    for function in (
        "CreateLayer",
        "ImportLayer",
        "CreateSandboxLayer",
        "ExpandSandboxSize",
        "ActivateLayer",
        "PrepareLayer",
        "GetLayerMountPath",
        "UnprepareLayer",
        "DeactivateLayer",
        "DestroyLayer",
    )
    for when in ("before", "after")
]


@pytest.mark.parametrize("step", STEPS)
async def test_killed_at_any_step_the_next_start_has_a_clean_view(machine: Host, step: str, tmp_path: Path) -> None:
    done = await anyio.run_process([sys.executable, "-c", KILLED, step, str(tmp_path)], check=False)
    assert done.returncode == -9, done.stderr
    strip = await machine.start()
    assert strip.volumes() == []
    assert mounted_below(tmp_path) == [str(strip.run / "volumes")]
    named = {str(layer.layer_id) for layer in strip.layers.layers()} | set(strip.layers.containers())
    assert strip.directories() <= named
    for container in strip.layers.containers():
        if container in strip.directories():
            assert (await strip.layers.mount(container) / "f").read_bytes() == b"x"
            await strip.layers.unmount(container)
        await strip.layers.release_rw_layer(container)
    await strip.close()
    assert mounted_below(tmp_path) == []
