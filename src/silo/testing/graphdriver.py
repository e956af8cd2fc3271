"""What every graph driver must do, as a suite: subclass it in a test module and give it the fixture ``driver``."""

# ruff: noqa: D102 - a test's name says what it is about

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from silo.errors import Conflict, Corrupt, InvalidParameter, NotFound
from silo.graphdriver.driver import Change, GraphDriver
from silo.ids import LayerID, random_id


def new_layer() -> LayerID:
    """A name that no layer has."""
    return LayerID(random_id())


def tar_of(path: Path, *entries: tuple[str, bytes | None]) -> Path:
    """A tar of files; None instead of content makes a directory."""
    with tarfile.open(path, "w") as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            if content is None:
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content or b""))
    return path


def files_of(root: Path) -> dict[str, bytes]:
    """Every regular file below ``root``."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


async def stack(driver: GraphDriver, folder: Path, *layers: Sequence[tuple[str, bytes | None]]) -> list[LayerID]:
    """Read-only layers on each other, the first at the bottom; returned nearest first."""
    made: list[LayerID] = []
    for entries in layers:
        layer = new_layer()
        await driver.create(layer, made)
        await driver.apply_diff(layer, tar_of(folder / f"{layer}.tar", *entries))
        made.insert(0, layer)
    return made


class GraphDriverContract:
    """The promises in :class:`silo.graphdriver.driver.GraphDriver`, each as a test."""

    async def test_a_new_layer_exists_until_it_is_removed(self, driver: GraphDriver) -> None:
        read_only, read_write = new_layer(), new_layer()
        await driver.create(read_only, [])
        await driver.create_read_write(read_write, [], None)
        for layer in (read_only, read_write):
            assert await driver.exists(layer)
            assert layer in driver.known()
            await driver.remove(layer)
            assert not await driver.exists(layer)
            assert layer not in driver.known()

    async def test_removing_what_is_not_there_is_no_error(self, driver: GraphDriver) -> None:
        await driver.remove(new_layer())

    async def test_a_name_is_taken_once(self, driver: GraphDriver) -> None:
        layer = new_layer()
        await driver.create_read_write(layer, [], None)
        with pytest.raises(Conflict):
            await driver.create_read_write(layer, [], None)
        with pytest.raises(Conflict):
            await driver.create(layer, [])
        assert files_of(await driver.get(layer)) == {}  # and what was there is as it was
        await driver.put(layer)

    async def test_a_missing_parent_leaves_nothing(self, driver: GraphDriver) -> None:
        before = driver.known()
        with pytest.raises(NotFound):
            await driver.create_read_write(new_layer(), [new_layer()], None)
        with pytest.raises(NotFound):
            await driver.create(new_layer(), [new_layer()])
        assert driver.known() == before

    async def test_a_read_write_layer_shows_its_parents_nearest_first(
        self, driver: GraphDriver, tmp_path: Path
    ) -> None:
        parents = await stack(
            driver,
            tmp_path,
            [("both", b"lower"), ("gone", b"x"), ("d", None), ("d/old", b"old"), ("below", b"lower")],
            [("both", b"upper"), (".wh.gone", b""), ("d", None), ("d/.wh..wh..opq", b""), ("d/new", b"new")],
        )
        layer = new_layer()
        await driver.create_read_write(layer, parents, None)
        assert files_of(await driver.get(layer)) == {"both": b"upper", "d/new": b"new", "below": b"lower"}
        await driver.put(layer)

    async def test_a_layer_without_parents_is_empty_and_takes_files(self, driver: GraphDriver) -> None:
        layer = new_layer()
        await driver.create_read_write(layer, [], None)
        root = await driver.get(layer)
        assert files_of(root) == {}
        (root / "f").write_bytes(b"mine")
        await driver.put(layer)
        assert files_of(await driver.get(layer)) == {"f": b"mine"}
        await driver.put(layer)

    async def test_what_is_written_stays_in_the_layer(self, driver: GraphDriver, tmp_path: Path) -> None:
        parents = await stack(driver, tmp_path, [("f", b"base")])
        one, two = new_layer(), new_layer()
        for layer in (one, two):
            await driver.create_read_write(layer, parents, None)
        root = await driver.get(one)
        (root / "f").write_bytes(b"changed")
        assert files_of(await driver.get(two)) == {"f": b"base"}
        await driver.put(one)
        assert files_of(await driver.get(one)) == {"f": b"changed"}
        for layer in (one, two):
            await driver.put(layer)

    async def test_gets_nest(self, driver: GraphDriver) -> None:
        layer = new_layer()
        await driver.create_read_write(layer, [], None)
        root = await driver.get(layer)
        assert await driver.get(layer) == root
        (root / "f").write_bytes(b"")
        await driver.put(layer)
        assert (root / "f").exists()
        await driver.put(layer)
        assert not (root / "f").exists()

    async def test_many_gets_at_once_are_one_mount(self, driver: GraphDriver) -> None:
        layer = new_layer()
        await driver.create_read_write(layer, [], None)
        roots: list[Path] = []

        async def get() -> None:
            roots.append(await driver.get(layer))

        async with anyio.create_task_group() as tasks:
            for _ in range(16):
                tasks.start_soon(get)
        assert len(set(roots)) == 1
        (roots[0] / "f").write_bytes(b"")
        async with anyio.create_task_group() as tasks:
            for _ in range(16):
                tasks.start_soon(driver.put, layer)
        assert not (roots[0] / "f").exists()

    async def test_put_without_get_does_nothing(self, driver: GraphDriver) -> None:
        await driver.put(new_layer())
        layer = new_layer()
        await driver.create_read_write(layer, [], None)
        await driver.put(layer)
        await driver.get(layer)
        await driver.put(layer)
        await driver.put(layer)
        assert await driver.exists(layer)

    async def test_a_mounted_layer_is_not_removed(self, driver: GraphDriver) -> None:
        layer = new_layer()
        await driver.create_read_write(layer, [], None)
        root = await driver.get(layer)
        (root / "f").write_bytes(b"alive")
        with pytest.raises(Conflict):
            await driver.remove(layer)
        assert files_of(root) == {"f": b"alive"}
        await driver.put(layer)
        await driver.remove(layer)

    async def test_get_of_what_is_not_there(self, driver: GraphDriver) -> None:
        layer = new_layer()
        with pytest.raises(NotFound):
            await driver.get(layer)
        await driver.create_read_write(layer, [], None)  # the failure left nothing behind
        await driver.get(layer)
        await driver.put(layer)

    async def test_applying_a_tar_gives_its_digest_and_size(self, driver: GraphDriver, tmp_path: Path) -> None:
        tar = tar_of(tmp_path / "t", ("f", b"12345"), ("d", None), ("d/g", b"678"))
        layer = new_layer()
        await driver.create(layer, [])
        applied = await driver.apply_diff(layer, tar)
        assert applied.diff_id == f"sha256:{hashlib.sha256(tar.read_bytes()).hexdigest()}"
        assert applied.size == 8
        assert await driver.size(layer) == 8

    async def test_a_bad_tar_can_be_tried_again(self, driver: GraphDriver, tmp_path: Path) -> None:
        layer = new_layer()
        await driver.create(layer, [])
        bad = tmp_path / "bad"
        bad.write_bytes(tar_of(tmp_path / "t", ("f", b"x" * 4000)).read_bytes()[:2000])
        with pytest.raises(Corrupt):
            await driver.apply_diff(layer, bad)
        with pytest.raises(InvalidParameter):
            await driver.apply_diff(layer, tar_of(tmp_path / "out", ("../f", b"x")))
        assert (await driver.apply_diff(layer, tmp_path / "t")).size == 4000

    async def test_changes_and_size_of_a_read_write_layer(self, driver: GraphDriver, tmp_path: Path) -> None:
        parents = await stack(driver, tmp_path, [("d", None), ("d/f", b"base"), ("gone", b"x"), ("same", b"same")])
        layer = new_layer()
        await driver.create_read_write(layer, parents, None)
        assert await driver.changes(layer) == []
        root = await driver.get(layer)
        (root / "d" / "f").write_bytes(b"changed")
        (root / "new").write_bytes(b"abc")
        (root / "gone").unlink()
        expected = [Change(0, "/d"), Change(0, "/d/f"), Change(2, "/gone"), Change(1, "/new")]
        assert await driver.changes(layer) == expected
        assert await driver.size(layer) == 10
        await driver.put(layer)
        assert await driver.changes(layer) == expected
        assert await driver.size(layer) == 10

    async def test_an_exported_layer_applied_elsewhere_shows_the_same(
        self, driver: GraphDriver, tmp_path: Path
    ) -> None:
        parents = await stack(driver, tmp_path, [("d", None), ("d/f", b"base"), ("gone", b"x"), ("same", b"same")])
        layer, again, view = new_layer(), new_layer(), new_layer()
        await driver.create_read_write(layer, parents, None)
        root = await driver.get(layer)
        (root / "d" / "f").unlink()
        (root / "d").rmdir()
        (root / "d").mkdir()
        (root / "d" / "g").write_bytes(b"new")
        (root / "gone").unlink()
        await driver.export(layer, tmp_path / "diff")
        await driver.create(again, parents)
        await driver.apply_diff(again, tmp_path / "diff")
        await driver.create_read_write(view, [again, *parents], None)
        assert files_of(await driver.get(view)) == files_of(root) == {"d/g": b"new", "same": b"same"}
        for one in (layer, view):
            await driver.put(one)

    async def test_inspect_names_the_layer(self, driver: GraphDriver) -> None:
        layer = new_layer()
        await driver.create(layer, [])
        shown = driver.metadata(layer)
        assert shown["ID"] == layer
        assert Path(shown["dir"]).is_dir()
