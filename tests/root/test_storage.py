"""The storage strip on the real kernel: unpacking what is hostile, layers, unions, bounds, and what a crash leaves."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import json
import lzma
import os
import stat
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo.errors import Corrupt, InvalidParameter, NotFound, SiloError, TooLarge
from silo.graphdriver.windowsfilter import WindowsFilter
from silo.host.linux import mounts
from silo.host.service import HostService
from silo.host.storagefilter.layer import MOVES, LayerState, move
from silo.host.storagefilter.service import StorageFilterService
from silo.host.storagefilter.unpack import unpack
from silo.ids import ContainerID, DiffID, random_id
from silo.layerstore.store import LayerStore
from silo.store import Store

pytestmark = pytest.mark.anyio


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **more) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o644
    for key, value in more.items():
        setattr(info, key, value)
    return info


def pack(path: Path, *members, form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for member in members:
            info, data = member if isinstance(member, tuple) else (member, b"")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    path = tmp_path / "canary"
    path.write_text("alive")
    return path


@pytest.mark.parametrize("name", ["../canary", "a/../../canary", "a/b/../../../canary", ".."])
def test_a_name_that_leads_out_is_refused_and_named(tmp_path, canary, name):
    tar = pack(tmp_path / "t", (entry("fine"), b"x"), (entry(name), b"dead"))
    with pytest.raises(InvalidParameter, match="breakout") as failure:
        unpack(tar, tmp_path / "out")
    assert repr(name) in str(failure.value)
    assert canary.read_text() == "alive"
    assert not (tmp_path / "out").exists()


def test_absolute_names_and_symlinks_stay_inside(tmp_path, canary):
    members = [
        (entry("/abs"), b"1"),
        entry("etc", tarfile.DIRTYPE, mode=0o755),
        entry("out", tarfile.SYMTYPE, str(tmp_path)),
        entry("up", tarfile.SYMTYPE, "../../../../etc"),
        (entry("up/passwd"), b"inside"),
    ]
    unpack(pack(tmp_path / "t", *members), tmp_path / "root")
    assert (tmp_path / "root" / "abs").read_text() == "1"
    assert os.readlink(tmp_path / "root" / "out") == str(tmp_path)
    assert (tmp_path / "root" / "etc" / "passwd").read_text() == "inside"
    with pytest.raises(InvalidParameter):
        unpack(pack(tmp_path / "t2", *members[2:3], (entry("out/canary"), b"dead")), tmp_path / "root2")
    assert canary.read_text() == "alive"


@pytest.mark.parametrize("target", ["../canary", "../../etc/passwd", "nothing"])
def test_hard_links_lead_nowhere_else(tmp_path, canary, target):
    with pytest.raises(InvalidParameter):
        unpack(pack(tmp_path / "t", entry("link", tarfile.LNKTYPE, target)), tmp_path / "out")
    assert canary.stat().st_nlink == 1


def test_a_hard_link_to_a_lower_layer_is_copied(tmp_path):
    lower = tmp_path / "lower"
    lower.mkdir()
    (lower / "file").write_text("below")
    unpack(pack(tmp_path / "t", entry("link", tarfile.LNKTYPE, "file")), tmp_path / "out", [lower])
    assert (tmp_path / "out" / "link").read_text() == "below"


def test_later_entries_win_whatever_came_before(tmp_path):
    tar = pack(
        tmp_path / "t",
        entry("d", tarfile.DIRTYPE, mode=0o755),
        (entry("d/x"), b"1"),
        (entry("d"), b"now a file"),
        entry("l", tarfile.SYMTYPE, "/etc"),
        entry("l", tarfile.DIRTYPE, mode=0o700),
        (entry("l/y"), b"2"),
        (entry("f"), b"1"),
        (entry("f"), b"22"),
    )
    unpack(tar, tmp_path / "out")
    assert (tmp_path / "out" / "d").read_text() == "now a file"
    assert (tmp_path / "out" / "l" / "y").read_text() == "2"
    assert not (tmp_path / "out" / "l").is_symlink()
    assert (tmp_path / "out" / "f").read_text() == "22"


def test_whiteouts_become_what_overlayfs_understands(tmp_path):
    members = [
        entry("d", tarfile.DIRTYPE, mode=0o755),
        entry("d/.wh..wh..opq"),
        entry(".wh.gone"),
        entry(".wh..wh.plnk"),
    ]
    unpack(pack(tmp_path / "t", *members), tmp_path / "out")
    there = (tmp_path / "out" / "gone").lstat()
    assert stat.S_ISCHR(there.st_mode)
    assert there.st_rdev == 0
    assert os.getxattr(tmp_path / "out" / "d", "trusted.overlay.opaque") == b"y"
    assert sorted(os.listdir(tmp_path / "out")) == ["d", "gone"]


def test_what_is_kept_of_a_file(tmp_path):
    xattrs = {"SCHILY.xattr.user.kept": "yes", "SCHILY.xattr.trusted.overlay.redirect": "/etc"}
    long = "n" * 200 + "/" + "m" * 200
    tar = pack(
        tmp_path / "t",
        entry("d", tarfile.DIRTYPE, mode=0o1777, mtime=1000),
        (entry("d/su", mode=0o4755, uid=5, gid=6, mtime=12345, pax_headers=xattrs), b"x"),
        (entry(long), b"deep"),
        entry("fifo", tarfile.FIFOTYPE),
        entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
    )
    unpack(tar, tmp_path / "out")
    file = tmp_path / "out" / "d" / "su"
    there = file.stat()
    assert (stat.S_IMODE(there.st_mode), there.st_uid, there.st_gid, int(there.st_mtime)) == (0o4755, 5, 6, 12345)
    assert os.listxattr(file) == ["user.kept"]
    folder = (tmp_path / "out" / "d").stat()
    assert (stat.S_IMODE(folder.st_mode), int(folder.st_mtime)) == (0o1777, 1000)
    assert (tmp_path / "out" / long).read_text() == "deep"
    assert stat.S_ISFIFO((tmp_path / "out" / "fifo").stat().st_mode)
    assert (tmp_path / "out" / "null").stat().st_rdev == os.makedev(1, 3)


def test_a_device_that_would_be_a_whiteout_is_refused(tmp_path):
    with pytest.raises(InvalidParameter, match="whiteout"):
        unpack(pack(tmp_path / "t", entry("x", tarfile.CHRTYPE)), tmp_path / "out")


def test_every_compression_gives_the_same_digest(tmp_path):
    from backports import zstd

    plain = pack(tmp_path / "t", (entry("f"), b"data" * 1000)).read_bytes()
    import bz2

    forms = [plain, gzip.compress(plain), zstd.compress(plain), lzma.compress(plain), bz2.compress(plain)]
    digests = set()
    for number, data in enumerate(forms):
        (tmp_path / f"c{number}").write_bytes(data)
        digests.add(unpack(tmp_path / f"c{number}", tmp_path / f"o{number}").DiffID)
    assert len(digests) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: gzip.compress(data)[:-20],
        lambda data: gzip.compress(data)[:40] + b"\xff" * 40,
        lambda data: b"this is no tar" * 100,
    ],
)
def test_what_is_not_whole_is_refused_and_leaves_nothing(tmp_path, damage):
    data = pack(tmp_path / "t", *((entry(f"f{number}"), os.urandom(5000)) for number in range(20))).read_bytes()
    (tmp_path / "bad").write_bytes(damage(data))
    with pytest.raises(Corrupt):
        unpack(tmp_path / "bad", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_limits(tmp_path):
    with pytest.raises(TooLarge, match="header record"):
        unpack(pack(tmp_path / "t", entry("x", pax_headers={"k": "v" * (2 << 20)})), tmp_path / "out")
    with pytest.raises(TooLarge, match="path is over"):
        unpack(pack(tmp_path / "t2", entry("/".join(["d" * 100] * 50))), tmp_path / "out2")


NAMES = st.sampled_from(["a", "b", "c", "a/b", "b/c", "c/a/b", "a/b/c"])
TREES = st.lists(
    st.tuples(NAMES, st.sampled_from(["file", "dir", "link", "white"]), st.sampled_from(["/", "a", "../..", "b/c"])),
    max_size=12,
)


@given(TREES)
@settings(max_examples=150, deadline=None)
def test_nothing_ever_leaves_the_target(tmp_path_factory, tree):
    base = tmp_path_factory.mktemp("any")
    members = []
    for name, kind, target in tree:
        folder, _, last = name.rpartition("/")
        match kind:
            case "file":
                members.append((entry(name), b"x"))
            case "dir":
                members.append(entry(name, tarfile.DIRTYPE, mode=0o755))
            case "link":
                members.append(entry(name, tarfile.SYMTYPE, target))
            case "white":
                members.append(entry(f"{folder}/.wh.{last}" if folder else f".wh.{last}"))
    with contextlib.suppress(SiloError):
        unpack(pack(base / "t", *members), base / "out")
    assert sorted(os.listdir(base)) in (["out", "t"], ["t"])


@pytest.mark.parametrize("state", list(LayerState))
def test_the_table_of_a_layers_life(state):
    for verb in {verb for _, verb in MOVES}:
        if (state, verb) in MOVES:
            assert move("x", state, verb) == MOVES[state, verb]
        else:
            with pytest.raises(SiloError):
                move("x", state, verb)


class Storage:
    """The strip on roots of its own; ``again`` is what a next silod sees."""

    def __init__(self, base: Path) -> None:
        self.base, self.data = base, base / "data"
        self.stack = contextlib.AsyncExitStack()

    async def open(self, live: tuple[str, ...] = ()) -> None:
        self.host = HostService()
        self.filters = StorageFilterService(self.data, self.base / "run")
        self.host.add(self.filters.exports())
        self.stack = contextlib.AsyncExitStack()
        await self.stack.enter_async_context(self.filters)
        self.store = self.stack.enter_context(Store(self.data / "silo.db"))
        self.layers = LayerStore(WindowsFilter(self.host, self.data / "windowsfilter"), self.store)
        await self.layers.restore([ContainerID(one) for one in live])

    async def again(self, live: tuple[str, ...] = ()) -> None:
        """As after kill -9: what is mounted stays, what was in memory is gone."""
        self.store.close()
        await self.open(live)

    def tar(self, name: str, *members) -> Path:
        return pack(self.base / name, *members)


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    one = Storage(tmp_path)
    await one.open()
    try:
        yield one
    finally:
        await one.stack.aclose()
        for entry_ in reversed(mounts.mount_table()):
            if entry_.target.startswith(str(tmp_path)):
                mounts.unmount(entry_.target, lazily=True)


async def test_a_union_of_three_layers(storage: Storage):
    layers = storage.layers
    base = await layers.register(storage.tar("1", (entry("f"), b"base"), (entry("gone"), b"x")), None)
    mid = await layers.register(storage.tar("2", (entry("f"), b"mid"), entry(".wh.gone")), base.chain_id)
    container = ContainerID(random_id())
    await layers.create_rw_layer(container, mid.chain_id)
    root = await layers.mount(container)
    assert await layers.mount(container) == root
    assert (root / "f").read_text() == "mid"
    assert not (root / "gone").exists()
    (root / "new").write_text("mine")
    assert [(change.kind, change.path) for change in await layers.changes(container)] == [(1, "/new")]
    chain = storage.data / "windowsfilter" / container / "layerchain.json"
    assert json.loads(chain.read_text()) == [str(storage.data / "windowsfilter" / one.layer_id) for one in (mid, base)]
    assert stat.S_IMODE(chain.stat().st_mode) == 0o600
    await layers.unmount(container)
    assert root.is_mount()
    with pytest.raises(SiloError):
        await layers.release_rw_layer(container)
    await layers.unmount(container)
    assert not root.exists()
    await layers.release_rw_layer(container)


async def test_a_hundred_and_twenty_five_layers_mount_and_one_more_does_not(storage: Storage):
    parent = None
    for number in range(125):
        parent = (await storage.layers.register(storage.tar("t", (entry(f"f{number}"), b"x")), parent)).chain_id
    container = ContainerID(random_id())
    await storage.layers.create_rw_layer(container, parent)
    root = await storage.layers.mount(container)
    assert len(os.listdir(root)) == 125
    lower = [str(path / "Files") for path in storage.layers.parents(container)]
    for name in ("u", "w", "m"):
        (storage.base / name).mkdir()
    mounts.mount_union_by_page(lower, str(storage.base / "u"), str(storage.base / "w"), str(storage.base / "m"))
    assert len(os.listdir(storage.base / "m")) == 125
    mounts.unmount(storage.base / "m")
    top = await storage.layers.register(storage.tar("t", (entry("one-more"), b"x")), parent)
    with pytest.raises(SiloError, match="max depth exceeded"):
        await storage.layers.create_rw_layer(ContainerID(random_id()), top.chain_id)


async def test_a_size_is_a_bound(storage: Storage):
    base = await storage.layers.register(storage.tar("t", (entry("f"), b"x")), None)
    container = ContainerID(random_id())
    await storage.layers.create_rw_layer(container, base.chain_id, size=16 << 20)
    root = await storage.layers.mount(container)
    with pytest.raises(OSError, match="No space left") as failure, (root / "big").open("wb") as file:
        for _ in range(64):
            file.write(b"x" * (1 << 20))
            file.flush()
    assert failure.value.errno == errno.ENOSPC
    (root / "big").unlink()
    await storage.layers.unmount(container)
    root = await storage.layers.mount(container)
    assert (root / "f").read_text() == "x"
    await storage.layers.unmount(container)


async def test_a_layer_that_is_not_what_it_says_leaves_nothing(storage: Storage):
    before = os.listdir(storage.data / "windowsfilter")
    with pytest.raises(Corrupt, match="not sha256:beef"):
        await storage.layers.register(storage.tar("t", (entry("f"), b"x")), None, DiffID("sha256:beef"))
    with pytest.raises(NotFound):
        await storage.layers.register(storage.tar("t"), "sha256:nothing")
    assert os.listdir(storage.data / "windowsfilter") == before
    assert not storage.layers.layers()


async def test_one_chain_registered_at_once_is_unpacked_once(storage: Storage):
    tar = storage.tar("t", (entry("f"), b"x"))
    first = await storage.layers.register(tar, None)
    await storage.layers.retain(first.chain_id, "me")
    got = []

    async def register() -> None:
        got.append(await storage.layers.register(tar, first.chain_id, first.diff_id))

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(register)
    assert len({layer.layer_id for layer in got}) == 1
    assert len(storage.layers.layers()) == 2


async def test_layers_go_with_their_last_owner(storage: Storage):
    base = await storage.layers.register(storage.tar("t", (entry("f"), b"x")), None)
    top = await storage.layers.register(storage.tar("u", (entry("g"), b"x")), base.chain_id)
    await storage.layers.retain(top.chain_id, "image")
    container = ContainerID(random_id())
    await storage.layers.create_rw_layer(container, top.chain_id)
    await storage.layers.release(top.chain_id, "image")
    assert len(storage.layers.layers()) == 2
    await storage.layers.release_rw_layer(container)
    assert storage.layers.layers() == []


async def test_the_next_start_finishes_what_a_crash_left(storage: Storage):
    base = await storage.layers.register(storage.tar("t", (entry("f"), b"x")), None)
    await storage.layers.retain(base.chain_id, "image")
    live, dead = ContainerID(random_id()), ContainerID(random_id())
    for one in (live, dead):
        await storage.layers.create_rw_layer(one, base.chain_id)
    root = await storage.layers.mount(live)
    other = await storage.layers.mount(dead)
    home = storage.data / "windowsfilter"
    (home / "half" / "Files").mkdir(parents=True)
    (home / "old-removing").mkdir()
    (storage.base / "run" / "volumes" / "loose").mkdir()
    await storage.again(live=(live,))
    assert root.is_mount()
    assert not other.exists()
    assert sorted(one for one in os.listdir(home) if one != ".empty") == sorted([base.layer_id, live, dead])
    assert os.listdir(storage.base / "run" / "volumes") == [root.name]
    assert await storage.layers.mount(live) == root
    await storage.layers.unmount(live)
    await storage.layers.unmount(live)
    assert not root.exists()
