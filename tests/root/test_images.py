"""Images on the real layer store: what loads, what is refused, what is left behind (nothing)."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from silo.client.bootstrap import bootstrap_archive
from silo.errors import Conflict, Corrupt, InvalidParameter, NotFound, SiloError
from silo.graphdriver.windowsfilter import WindowsFilter
from silo.host.service import HostService
from silo.host.storagefilter.service import StorageFilterService
from silo.ids import ChainID
from silo.images.service import ImageService
from silo.layerstore.store import LayerStore
from silo.store import Store
from tests.imagefiles import OciLayout, config, docker_archive, docker_entries, link, named, sha256, stream, tar

pytestmark = pytest.mark.anyio

BASE = tar([("bin/sh", b"#!"), ("etc/name", b"base")])
TOP = tar([("etc/name", b"top"), ("new", b"file")])


@dataclass
class Opened:
    root: Path
    images: ImageService
    layers: LayerStore
    store: Store

    def files(self, reference: str) -> Path:
        chain = self.images.resolve(reference).chain
        assert chain is not None
        return Path(self.layers.metadata(chain)["dir"]) / "Files"

    async def load(self, data: bytes, *, quiet: bool = True) -> list[dict[str, Any]]:
        return [row async for row in self.images.load(stream(data), quiet)]

    async def load_id(self, data: bytes) -> str:
        """Load an archive of one image without a name; return its id."""
        (row,) = await self.load(data)
        return str(row["stream"]).removeprefix("Loaded image ID: ").strip()

    async def take(self, data: bytes, **more: Any) -> str:
        (row,) = [row async for row in self.images.import_tar(stream(data), **more)]
        return str(row["status"])

    async def remove(
        self, reference: str, *, force: bool = False, users: Sequence[tuple[str, bool]] = ()
    ) -> list[dict[str, Any]]:
        return await self.images.remove(reference, force=force, prune=True, in_use=lambda _: users)

    def left(self) -> dict[str, list[str]]:
        """Everything on disk and in the store that an image leaves."""
        return {
            "layers": [layer.chain_id for layer in self.layers.layers()],
            "folders": _names(self.root / "windowsfilter"),
            "content": _names(self.root / "content" / "sha256"),
            "scratch": _names(self.root / "tmp" / "images"),
            "documents": [*self.store.load("images"), *self.store.load("references")],
        }


NOTHING: dict[str, list[str]] = {"layers": [], "folders": [], "content": [], "scratch": [], "documents": []}


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@asynccontextmanager
async def opened(root: Path) -> AsyncGenerator[Opened]:
    with Store(root / "silo.db") as store:
        async with StorageFilterService(root, root / "run") as filters:
            host = HostService()
            host.add(filters.exports())
            layers = LayerStore(WindowsFilter(host, root / "windowsfilter"), store)
            images = ImageService(root, store, layers)
            await layers.restore(set())
            await images.restore()
            yield Opened(root, images, layers, store)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncGenerator[Opened]:
    async with opened(tmp_path / "root") as engine:
        yield engine


async def test_the_bootstrap_image(engine: Opened) -> None:
    buffer, again = io.BytesIO(), io.BytesIO()
    bootstrap_archive("localhost:5000/tiny", buffer)
    bootstrap_archive("localhost:5000/tiny", again)
    assert buffer.getvalue() == again.getvalue()
    assert await engine.load(buffer.getvalue()) == [{"stream": "Loaded image: localhost:5000/tiny:latest\n"}]
    files = engine.files("localhost:5000/tiny")
    assert (files / "bin/busybox").read_bytes() == Path("/bin/busybox").read_bytes()
    assert (files / "bin/sh").readlink() == Path("busybox")
    assert (files / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert engine.images.resolve("localhost:5000/tiny").container_config()["Cmd"] == ["sh"]


async def test_both_formats_give_the_same_image(engine: Opened) -> None:
    layout = OciLayout()
    oci = layout.archive([layout.image([BASE, TOP], [gzip.compress(BASE), TOP], **named("docker.io/library/oci:1"))])
    assert await engine.load(docker_archive([BASE, TOP], ["dock:1"])) == [{"stream": "Loaded image: dock:1\n"}]
    folders = engine.left()["folders"]
    assert await engine.load(gzip.compress(oci)) == [{"stream": "Loaded image: oci:1\n"}]
    assert (
        engine.images.resolve("oci:1").id
        == engine.images.resolve("dock:1").id
        == sha256(config([sha256(BASE), sha256(TOP)]))
    )
    assert engine.left()["folders"] == folders
    assert len(folders) == 2
    assert (engine.files("dock:1") / "etc/name").read_bytes() == b"top"
    assert not (engine.files("dock:1") / "bin/sh").exists()


async def test_several_images_in_one_archive_share_their_layers(engine: Opened) -> None:
    one, first = docker_entries([BASE], ["one:1", "one:2"], "a")
    two, second = docker_entries([BASE, TOP], None, "b")
    data = tar([*first, *second, ("manifest.json", json.dumps([one, two]).encode())])
    rows = await engine.load(data, quiet=False)
    ids = [sha256(config([sha256(BASE)])), sha256(config([sha256(BASE), sha256(TOP)]))]
    assert [row["stream"] for row in rows if "stream" in row] == [
        "Loaded image: one:1\n",
        "Loaded image: one:2\n",
        f"Loaded image ID: {ids[1]}\n",
    ]
    progress = [row for row in rows if "stream" not in row]
    assert {row["status"] for row in progress} == {"Loading layer"}
    assert progress[0]["progressDetail"] == {"current": 0, "total": len(BASE)}
    assert len(engine.left()["layers"]) == 2
    rows = await engine.images.list(shared_size=True)
    assert {row["Id"]: row["SharedSize"] for row in rows} == dict.fromkeys(ids, 6)
    assert {row["Id"]: row["Size"] for row in rows} == {ids[0]: 6, ids[1]: 13}
    assert await engine.remove(ids[1]) == [{"Deleted": ids[1]}, {"Deleted": str(_chain(BASE, TOP))}]
    assert len(engine.left()["layers"]) == 1


def _chain(*layers: bytes) -> ChainID:
    chain = sha256(layers[0])
    for layer in layers[1:]:
        chain = sha256(f"{chain} {sha256(layer)}".encode())
    return ChainID(chain)


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")
async def test_archives_that_skopeo_writes(engine: Opened, tmp_path: Path) -> None:
    source = tmp_path / "source.tar"
    with source.open("wb") as file:
        bootstrap_archive("made:1", file)
    for kind, name in (("docker-archive", "docker"), ("oci-archive", "oci")):
        target = tmp_path / f"{name}.tar"
        _run("skopeo", "--insecure-policy", "copy", f"docker-archive:{source}", f"{kind}:{target}:localhost/{name}:2")
        assert await engine.load(target.read_bytes()) == [{"stream": f"Loaded image: localhost/{name}:2\n"}]
    ids = {engine.images.resolve(f"localhost/{name}:2").chain for name in ("docker", "oci")}
    assert len(ids) == 1


@pytest.mark.skipif(shutil.which("podman") is None, reason="needs podman")
async def test_archives_that_podman_writes(engine: Opened, tmp_path: Path) -> None:
    (tmp_path / "files.tar").write_bytes(BASE)
    with tempfile.TemporaryDirectory() as short:  # podman refuses a runroot of more than 50 characters
        podman = ["podman", "--root", f"{tmp_path}/p", "--runroot", short, "--storage-driver", "vfs"]
        _run(*podman, "import", "--change", "CMD sh", str(tmp_path / "files.tar"), "localhost/pod:1")
        for kind in ("docker-archive", "oci-archive"):
            target = tmp_path / f"{kind}.tar"
            _run(*podman, "save", "--format", kind, "-o", str(target), "localhost/pod:1")
            rows = await engine.load(target.read_bytes())
            assert rows[-1] == {"stream": "Loaded image: localhost/pod:1\n"}
            assert (engine.files("localhost/pod:1") / "etc/name").read_bytes() == b"base"


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def _bad(**change: Any) -> bytes:
    item, entries = docker_entries([BASE, TOP], ["t:1"])
    files = dict(entries) | change.pop("files", {})
    return tar([*files.items(), ("manifest.json", json.dumps([item | change]).encode())])


async def test_what_is_refused_leaves_nothing(engine: Opened) -> None:
    whole = docker_archive([BASE, TOP])
    layout = OciLayout()
    lying = layout.archive([layout.image([BASE, TOP], [BASE, gzip.compress(BASE)], **named("t:1"))])
    for data, kind, error in [
        (b"garbage garbage", Corrupt, "Error processing tar file(exit status 1): unexpected EOF"),
        (b"", InvalidParameter, "invalid archive: does not contain a manifest.json"),
        (BASE, InvalidParameter, "invalid archive: does not contain a manifest.json"),
        (whole[: len(whole) // 2], Corrupt, "unexpected EOF"),
        (gzip.compress(whole)[:-9], Corrupt, "unexpected EOF"),
        (_bad(files={"1/layer.tar": b"x" * 2000}), Corrupt, "1/layer.tar"),
        (_bad(files={"1/layer.tar": TOP[:600]}), Corrupt, "1/layer.tar"),
        (_bad(files={"1/layer.tar": gzip.compress(TOP)[:-5]}), Corrupt, "1/layer.tar"),
        (_bad(files={"1/layer.tar": tar([("other", b"")])}), Corrupt, "1/layer.tar"),
        (_bad(Layers=["0/layer.tar", "gone"]), NotFound, "open gone: no such file or directory"),
        (_bad(RepoTags=["t:1", "Bad:1"]), InvalidParameter, "must be lowercase"),
        (lying, Corrupt, sha256(TOP)),
    ]:
        with pytest.raises(kind) as caught:
            await engine.load(data)
        assert error in str(caught.value)
        assert engine.left() == NOTHING
    with pytest.raises(NotFound, match="No such image: t:1"):
        engine.images.resolve("t:1")


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_bytes(b"alive")
    return outside


def _evil(outside: Path) -> list[bytes]:
    up = "../" * 30 + str(outside).lstrip("/")
    return [
        tar([(f"{up}/canary", b"dead")]),
        tar([(f"{outside}/canary", b"dead"), (f"{outside}/more", b"dead")]),
        tar([link("in", str(outside)), ("in/canary", b"dead"), ("in/more", b"dead")]),
        tar([link("in", up), ("in/canary", b"dead"), ("in/more", b"dead")]),
        tar([link("hard", f"{up}/canary", tarfile.LNKTYPE), ("hard", b"dead")]),
        tar([link("hard", str(outside / "canary"), tarfile.LNKTYPE), ("hard", b"dead")]),
        tar([link("a", "b"), link("b", up), (".wh.a", b""), ("a/more", b"dead"), ("b/.wh.canary", b"")]),
        tar([(f"{up}/.wh.canary", b""), (f"{up}/.wh..wh..opq", b"")]),
    ]


async def test_evil_archives_do_not_reach_the_host(engine: Opened, canary: Path) -> None:
    def untouched() -> bool:
        return _names(canary) == ["canary"] and (canary / "canary").read_bytes() == b"alive"

    for number, layer in enumerate(_evil(canary)):
        for verb, data in ((engine.load, docker_archive([layer], [f"evil:{number}"])), (engine.take, layer)):
            with suppress(SiloError):
                await verb(data)
            assert untouched(), number
    item, entries = docker_entries([BASE], ["outer:1"])
    up = "../" * 30 + str(canary).lstrip("/")
    outer = [(f"{up}/canary", b"dead"), (f"{canary}/canary", b"dead"), link("x", str(canary)), ("x/canary", b"dead")]
    await engine.load(tar([*outer, *entries, ("manifest.json", json.dumps([item]).encode())]))
    assert untouched()
    for row in await engine.images.list(all=True):
        await engine.remove(row["Id"], force=True)
    assert untouched()
    assert engine.left() == NOTHING


async def test_a_client_that_goes_away_leaves_nothing(engine: Opened) -> None:
    waiting = anyio.Event()

    async def half() -> AsyncIterator[bytes]:
        data = docker_archive([BASE, TOP])
        yield data[: len(data) // 2]
        waiting.set()
        await anyio.sleep_forever()

    for verb in (engine.images.load(half()), engine.images.import_tar(half(), repo="x")):
        waiting = anyio.Event()
        async with anyio.create_task_group() as tasks:

            async def consume(verb: AsyncGenerator[dict[str, Any]] = verb) -> None:
                async with aclosing(verb):
                    async for _ in verb:
                        pass

            tasks.start_soon(consume)
            await waiting.wait()
            assert engine.left()["scratch"]
            tasks.cancel_scope.cancel()
        assert engine.left() == NOTHING


async def test_a_load_given_up_between_layers_leaves_nothing(engine: Opened) -> None:
    async with aclosing(engine.images.load(stream(docker_archive([BASE, TOP])), False)) as rows:
        async for row in rows:
            if row["id"] == sha256(TOP)[7:19]:
                break
    assert engine.left() == NOTHING


CHILD = """
import os, signal, sys
import anyio
from pathlib import Path
from tests.imagefiles import docker_archive, stream
import test_images as t

async def main():
    async with t.opened(Path(sys.argv[1])) as engine:
        await engine.load(docker_archive([t.BASE], ["kept:1"]))
        point = sys.argv[2]
        if point == "commit":
            real = engine.store.write
            async def write(*steps):
                if any(getattr(step, "table", "") == "images" for step in steps):
                    os.kill(os.getpid(), signal.SIGKILL)
                await real(*steps)
            engine.store.write = write
        elif point == "delete":
            real_apply = engine.images._table.apply
            engine.images._table.apply = lambda change: os.kill(os.getpid(), signal.SIGKILL)
            await engine.remove("kept:1")
        async for row in engine.images.load(stream(docker_archive([t.BASE, t.TOP], ["lost:1"])), False):
            if point == "layer" and row["progressDetail"]["current"] and row["id"] == t.sha256(t.TOP)[7:19]:
                os.kill(os.getpid(), signal.SIGKILL)

anyio.run(main)
"""


@pytest.mark.parametrize("point", ["layer", "commit", "delete"])
async def test_kill_9_in_the_middle_leaves_nothing_half_done(tmp_path: Path, point: str) -> None:
    root = tmp_path / "root"
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), *sys.path])
    child = await anyio.run_process(
        [sys.executable, "-c", CHILD, str(root), point], check=False, env={**os.environ, "PYTHONPATH": path}
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    async with opened(root) as engine:
        if point == "delete":
            assert engine.left() == NOTHING
            return
        image = engine.images.resolve("kept:1")
        assert engine.left() == {
            "layers": [sha256(BASE)],
            "folders": [Path(engine.layers.metadata(ChainID(sha256(BASE)))["dir"]).name],
            "content": [image.id.removeprefix("sha256:")],
            "scratch": [],
            "documents": [image.id, "docker.io/library/kept:1"],
        }
        with pytest.raises(NotFound):
            engine.images.resolve("lost:1")
        assert await engine.load(docker_archive([BASE, TOP], ["lost:1"])) == [{"stream": "Loaded image: lost:1\n"}]


async def test_images_are_there_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as engine:
        await engine.load(docker_archive([BASE, TOP], ["a:1", "b:2"]))
        other = await engine.take(BASE, repo="c")
        before = await engine.images.list()
        shown = await engine.images.inspect("a:1")
    async with opened(tmp_path) as engine:
        assert await engine.images.list() == before
        assert await engine.images.inspect("a:1") == shown
        (tmp_path / "content" / "sha256" / other.removeprefix("sha256:")).write_bytes(b"{}")
    async with opened(tmp_path) as engine:
        with pytest.raises(NotFound):
            engine.images.resolve("c")
        assert engine.images.resolve("a:1").id == shown["Id"]


async def test_import(engine: Opened) -> None:
    image = await engine.take(
        gzip.compress(BASE), repo="foo/bar", tag="v1", message="hello", changes=["ENV A=b", "CMD x y"]
    )
    shown = await engine.images.inspect("foo/bar:v1")
    assert shown["Id"] == image
    assert shown["Comment"] == "hello"
    assert shown["RootFS"] == {"Type": "layers", "Layers": [sha256(BASE)]}
    assert shown["Config"]["Env"] == ["A=b"]
    assert shown["Config"]["Cmd"] == ["/bin/sh", "-c", "x y"]
    (step,) = await engine.images.history("foo/bar:v1")
    assert (step["Comment"], step["Tags"], step["Size"], step["Id"]) == ("hello", ["foo/bar:v1"], 6, image)
    again = await engine.take(b"", platform="linux/arm64")
    assert (await engine.images.inspect(again))["Architecture"] == "arm64"
    assert (await engine.images.inspect(again))["Comment"] == "Imported from -"
    before = engine.left()
    for more, kind, error in [
        ({"repo": "Bad"}, InvalidParameter, "must be lowercase"),
        ({"repo": "a", "tag": "-"}, InvalidParameter, "invalid tag format"),
        ({"repo": f"a@{image}"}, InvalidParameter, "cannot import digest reference"),
        ({"changes": ["RUN x"]}, InvalidParameter, "run is not a valid change command"),
        ({"platform": "foo"}, InvalidParameter, "unknown operating system or architecture"),
    ]:
        with pytest.raises(kind, match=error):
            await engine.take(BASE, **more)
    for data in (b"garbage garbage", gzip.compress(TOP)[:-5], TOP[:700]):
        with pytest.raises(Corrupt, match=r"Error processing tar file\(exit status 1\): .*unexpected EOF"):
            await engine.take(data, repo="x")
    assert engine.left() == before


async def test_inspect_list_and_history(engine: Opened) -> None:
    steps = [
        {"created": "2020-01-01T00:00:00Z", "created_by": "ADD"},
        {"created": "2020-01-02T00:00:00Z", "created_by": "ENV", "empty_layer": True},
        {"created": "2020-01-03T00:00:00Z", "created_by": "COPY", "comment": "last"},
    ]
    data = docker_archive([BASE, TOP], ["a:1", "b:2"], history=steps, created="2020-01-03T00:00:00Z", author="me")
    await engine.load(data)
    image = engine.images.resolve("a:1")
    assert image.chain == _chain(BASE, TOP)
    shown = await engine.images.inspect(image.id[7:19])
    assert shown["Id"] == image.id
    assert shown["RepoTags"] == ["a:1", "b:2"]
    assert shown["RepoDigests"] == []
    assert (shown["Author"], shown["Comment"], shown["Created"]) == ("me", "last", "2020-01-03T00:00:00Z")
    assert (shown["Architecture"], shown["Os"], shown["Size"]) == ("amd64", "linux", 13)
    assert shown["GraphDriver"]["Name"] == "windowsfilter"
    assert Path(shown["GraphDriver"]["Data"]["dir"]).parent == engine.root / "windowsfilter"
    assert shown["Metadata"]["LastTagTime"].startswith("20")
    assert [
        (step["CreatedBy"], step["Size"], step["Id"], step["Tags"]) for step in await engine.images.history("b:2")
    ] == [
        ("COPY", 7, image.id, ["a:1", "b:2"]),
        ("ENV", 0, "<missing>", None),
        ("ADD", 6, "<missing>", None),
    ]
    (row,) = await engine.images.list()
    assert row == {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": ["a:1", "b:2"],
        "RepoDigests": [],
        "Created": 1578009600,
        "Size": 13,
        "SharedSize": -1,
        "Labels": {"kind": "test"},
        "Containers": -1,
    }


async def test_an_oci_image_has_its_manifests_digest(engine: Opened) -> None:
    layout = OciLayout()
    image = layout.image([BASE], **named("docker.io/library/oci:1"))
    await engine.load(layout.archive([image]))
    digest = f"oci@{image['digest']}"
    assert (await engine.images.inspect("oci:1"))["RepoDigests"] == [digest]
    assert engine.images.resolve(digest) == engine.images.resolve("oci:1")
    assert [list(row) for row in await engine.remove("oci:1")] == [["Untagged"], ["Untagged"], ["Deleted"], ["Deleted"]]
    assert engine.left() == NOTHING


async def test_filters(engine: Opened) -> None:
    for name, created in (("one", "2020"), ("two:2", "2021"), ("ns/three:2", "2022")):
        tag = name if ":" in name else f"{name}:latest"
        await engine.load(docker_archive([BASE], [tag], created=f"{created}-01-01T00:00:00Z"))
    await engine.images.tag("one", "four", "1")
    dangling = await engine.load_id(docker_archive([TOP], None, created="2023-01-01T00:00:00Z"))

    async def names(**filters: list[str]) -> list[str]:
        rows = await engine.images.list(filters)
        return [" ".join(row["RepoTags"]) or row["Id"] for row in rows]

    everything = [dangling, "ns/three:2", "two:2", "four:1 one:latest"]
    assert await names() == everything
    assert await names(dangling=["true"]) == [dangling]
    assert await names(dangling=["0"]) == everything[1:]
    assert await names(reference=["o*"]) == ["one:latest"]
    assert await names(reference=["*"]) == ["two:2", "four:1 one:latest"]
    assert await names(reference=["*/*", "four"]) == ["ns/three:2", "four:1"]
    assert await names(reference=["docker.io/library/one"]) == []
    assert await names(before=["two:2"]) == ["four:1 one:latest"]
    assert await names(since=["two:2"]) == everything[:2]
    assert await names(label=["kind=test"]) == everything
    with pytest.raises(NotFound, match="No such image: nope:latest"):
        await names(before=["nope"])
    (old,) = await engine.images.list({"dangling": ["true"]}, version=(1, 41))
    assert (old["RepoTags"], old["RepoDigests"]) == (["<none>:<none>"], ["<none>@<none>"])
    assert old["VirtualSize"] == old["Size"]


async def test_tag(engine: Opened) -> None:
    await engine.load(docker_archive([BASE], ["a:1"]))
    first = engine.images.resolve("a:1").id
    second = await engine.take(TOP, repo="b")
    assert await engine.images.tag("a:1", "localhost:5000/x") == "localhost:5000/x:latest"
    assert await engine.images.tag(first[7:17], "x:1", "2") == "x:2"
    assert engine.images.names(first, "x:2") and engine.images.names(first, first)
    await engine.images.tag("b", "x:2")
    assert engine.images.resolve("x:2").id == second
    assert not engine.images.names(first, "x:2")
    assert engine.images.tags(first) == ["a:1", "localhost:5000/x:latest"]
    for source, repo, tag, kind, error in [
        ("nope", "x", "", NotFound, "No such image: nope:latest"),
        ("a:1", "X", "", InvalidParameter, "must be lowercase"),
        ("a:1", "x", "-y", InvalidParameter, "invalid tag format"),
        ("a:1", f"x@{first}", "", InvalidParameter, "refusing to create a tag with a digest reference"),
        ("a:1", "sha256", "2", InvalidParameter, "refusing to create an ambiguous tag using digest algorithm as name"),
    ]:
        with pytest.raises(kind, match=error):
            await engine.images.tag(source, repo, tag)


async def test_a_name_that_moves_leaves_the_old_image_without_it(engine: Opened) -> None:
    await engine.load(docker_archive([BASE], ["a:1"]))
    old = engine.images.resolve("a:1").id
    assert await engine.load(docker_archive([TOP], ["a:1"])) == [
        {"stream": f"The image a:1 already exists, renaming the old one with ID {old} to empty string\n"},
        {"stream": "Loaded image: a:1\n"},
    ]
    assert [row["Id"] for row in await engine.images.list({"dangling": ["true"]})] == [old]


# What dockerd 20.10 answered to the same requests.
async def test_removal_follows_dockerds_rules(engine: Opened) -> None:
    data = docker_archive([BASE], ["busybox:latest", "x:1"])
    gone = [{"Deleted": sha256(config([sha256(BASE)]))}, {"Deleted": sha256(BASE)}]
    image = gone[0]["Deleted"]
    short = image[7:19]
    user = "c" * 64

    async def refused(reference: str, error: str, **more: Any) -> None:
        before = engine.left()
        with pytest.raises(SiloError) as caught:
            await engine.remove(reference, **more)
        assert str(caught.value) == error
        assert isinstance(caught.value, Conflict if error.startswith("conflict") else (NotFound, InvalidParameter))
        assert engine.left() == before

    await engine.load(data)
    await refused("nope", "No such image: nope:latest")
    await refused("sha256:abc", "No such image: sha256:abc")
    await refused("foo:", "invalid reference format")
    multiple = f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
    for reference in (image, short):
        await refused(reference, multiple)
    assert await engine.remove("busybox") == [{"Untagged": "busybox:latest"}]
    await refused("busybox", "No such image: busybox:latest")
    assert await engine.remove(short) == [{"Untagged": "x:1"}, *gone]
    assert engine.left() == NOTHING

    await engine.load(data)
    assert await engine.remove(image, force=True) == [{"Untagged": "busybox:latest"}, {"Untagged": "x:1"}, *gone]

    await engine.load(data)
    stopped, running = [(user, False)], [(user, True)]
    assert await engine.remove("busybox", users=stopped) == [{"Untagged": "busybox:latest"}]
    needed = (
        'conflict: unable to remove repository reference "x:1" (must force) - '
        f"container {user[:12]} is using its referenced image {short}"
    )
    await refused("x:1", needed, users=stopped)
    await refused("x:1", needed, users=running)
    by_stopped = f"conflict: unable to delete {short} (must be forced) - image is being used by stopped container"
    await refused(image, f"{by_stopped} {user[:12]}", users=stopped)
    by_running = f"conflict: unable to delete {short} (cannot be forced) - image is being used by running container"
    await refused(image, f"{by_running} {user[:12]}", users=running)
    await refused(image, f"{by_running} {user[:12]}", users=running, force=True)
    assert await engine.remove("x:1", users=running, force=True) == [{"Untagged": "x:1"}]
    assert [row["Id"] for row in await engine.images.list()] == [image]
    assert await engine.remove(image, users=stopped, force=True) == gone
    assert engine.left() == NOTHING


async def test_an_id_is_found_by_its_beginning(engine: Opened) -> None:
    await engine.load(docker_archive([BASE], ["a:1"]))
    image = engine.images.resolve("a:1").id
    for text in (image, image[7:], image[7:19], image[7:9], image[:12]):
        assert engine.images.resolve(text).id == image
    for text, error in (("sha", "No such image: sha:latest"), ("sha256:", "invalid reference format")):
        with pytest.raises(SiloError, match=error):
            engine.images.resolve(text)
    with pytest.raises(NotFound, match=f"No such image: sha256:{'0' * 64}"):
        engine.images.resolve("0" * 64)


async def test_a_windows_image_loads_and_is_shown(engine: Opened) -> None:
    layer = tar([("Files/Windows/System32/cmd.exe", b"MZ"), ("Hives/SYSTEM_BASE", b"regf")])
    await engine.load(docker_archive([layer], ["nano:1"], os="windows", **{"os.version": "10.0.20348.1"}))
    shown = await engine.images.inspect("nano:1")
    assert (shown["Os"], shown["OsVersion"]) == ("windows", "10.0.20348.1")
    await engine.remove("nano:1")
    assert engine.left() == NOTHING


async def test_loads_and_removals_at_the_same_time_agree(engine: Opened) -> None:
    archives = [docker_archive([BASE, TOP], [f"t:{number}"]) for number in range(4)]

    async def again(number: int) -> None:
        for _ in range(3):
            await engine.load(archives[number])
            await engine.remove(f"t:{number}")

    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(again, number)
    assert engine.left() == NOTHING


async def test_an_image_without_layers(engine: Opened) -> None:
    assert await engine.load(docker_archive([], ["empty:1"])) == [{"stream": "Loaded image: empty:1\n"}]
    assert engine.images.resolve("empty:1").chain is None
    assert (await engine.images.inspect("empty:1"))["GraphDriver"] == {"Name": "windowsfilter", "Data": {}}
    await engine.remove("empty:1")
    assert engine.left() == NOTHING
