"""Bad input: the status and text that dockerd gives, and nothing left."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from silo.client.engine import EngineClient, EngineError
from silo.httpd.client import Client
from tests.judge.harness import IMAGE, Engine


def refused(engine: Engine, method: str, path: str, body: object = None, **query: object) -> tuple[int, str]:
    async def work() -> tuple[int, str]:
        client = EngineClient(engine.socket)
        try:
            if method == "POST":
                await client.post(path, body, **query)
            elif method == "DELETE":
                await client.delete(path, **query)
            else:
                await client.get(path, **query)
        except EngineError as exc:
            return exc.status, str(exc)
        raise AssertionError("it was not refused")

    return anyio.run(work)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("POST", "/containers/create", {"Image": "nosuch"}, 404, "No such image: nosuch:latest"),
        (
            "POST",
            "/containers/create?name=a/b",
            {"Image": IMAGE},
            400,
            "Invalid container name (a/b), only [a-zA-Z0-9]",
        ),
        ("POST", "/containers/create", {"Image": IMAGE, "Tty": "yes"}, 400, "invalid JSON: Expected `bool`"),
        ("POST", "/containers/create", {"Image": ""}, 400, "no image specified"),
        ("POST", "/containers/nosuch/start", None, 404, "No such container: nosuch"),
        ("GET", "/containers/nosuch/json", None, 404, "No such container: nosuch"),
        ("DELETE", "/containers/nosuch", None, 404, "No such container: nosuch"),
        ("GET", "/images/nosuch/json", None, 404, "No such image: nosuch"),
        ("DELETE", "/images/nosuch", None, 404, "No such image: nosuch"),
        ("GET", "/networks/nosuch", None, 404, "network nosuch not found"),
        ("DELETE", "/networks/bridge", None, 403, "bridge is a pre-defined network and cannot be removed"),
        ("POST", "/networks/create", {"Name": "x", "Driver": "nosuch"}, 404, "could not find plugin nosuch in v1"),
        ("POST", "/networks/create", {"Name": "host"}, 403, "operation is not permitted on predefined host network"),
        ("GET", "/containers/json?filters=x", None, 400, "invalid filter"),
        ("GET", '/containers/json?filters={"no":["x"]}', None, 400, "invalid filter 'no'"),
        ("GET", "/nothing", None, 404, "page not found"),
    ],
)
def test_requests(engine: Engine, method, path, body, status, text):
    path, _, query = path.partition("?")
    pairs = dict([query.split("=", 1)]) if query else {}
    code, message = refused(engine, method, path, body, **pairs)
    assert code == status
    assert message.startswith(text)


def test_a_taken_name(engine: Engine):
    holder = engine.ok("create", "--name", "taken", IMAGE)
    status, text = refused(engine, "POST", "/containers/create", {"Image": IMAGE}, name="taken")
    assert status == 409
    assert text == (
        f'Conflict. The container name "/taken" is already in use by container "{holder}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )


def test_an_unknown_network_fails_the_start_and_leaves_nothing(engine: Engine):
    done = engine.docker("run", "--rm", "--network", "nosuch", IMAGE, "true")
    assert done.code == 125
    assert "network nosuch not found" in done.stderr
    assert engine.ok("ps", "-aq") == ""


def test_start_and_stop_of_what_is_so_already(engine: Engine):
    engine.ok("run", "-d", "--name", "up", IMAGE, "sleep", "100")

    async def status(path: str) -> int:
        async with Client(engine.socket).request("POST", path) as answer:
            return answer.status

    assert anyio.run(status, "/containers/up/start") == 304
    engine.ok("kill", "up")
    assert anyio.run(status, "/containers/up/stop") == 304
    code, text = refused(engine, "POST", "/containers/up/kill")
    assert code == 409
    assert "is not running" in text


def test_removing_what_runs(engine: Engine):
    engine.ok("run", "-d", "--name", "up", IMAGE, "sleep", "100")
    code, text = refused(engine, "DELETE", "/containers/up")
    assert code == 409
    assert text.startswith('cannot remove container "/up": container is running: stop the container before removing')
    engine.ok("rm", "-f", "up")


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_garbage_is_no_image(engine: Engine):
    assert engine.docker("load", data=b"this is no tar" * 1000).code != 0
    assert engine.docker("import", "-", "bad", data=b"this is no tar" * 1000).code != 0
    assert "bad" not in engine.ok("images")


def test_a_tar_that_wants_out_stays_in(engine: Engine, tmp_path: Path):
    canary = tmp_path / "canary"
    canary.write_text("alive")
    out = archive((entry("../../../../../../" + str(canary).lstrip("/")), b"dead"))
    done = engine.docker("import", "-", "breakout", data=out)
    assert done.code != 0
    assert "breakout" in done.stderr or "outside" in done.stderr

    through = archive(
        (entry("bin/busybox"), Path("/bin/busybox").read_bytes()),
        (entry("way", tarfile.SYMTYPE, "/"), b""),
        (entry("way/silo-canary"), b"inside"),
        (entry("abs", tarfile.SYMTYPE, str(tmp_path)), b""),
    )
    engine.ok("import", "-", "linked", data=through)
    assert canary.read_text() == "alive"
    assert list(tmp_path.iterdir()) == [canary]
    assert not Path("/silo-canary").exists()
    (layer,) = (path for path in (engine.data / "windowsfilter").glob("*/Files/silo-canary"))
    assert layer.read_text() == "inside"
    engine.ok("rmi", "linked")
    before = sorted(path.name for path in (engine.data / "windowsfilter").iterdir())
    assert len([name for name in before if not name.startswith(".")]) == 1


def test_truncated_json_and_a_head_without_end(engine: Engine):
    async def truncated() -> tuple[int, str]:
        client = Client(engine.socket)
        headers = {"Content-Type": "application/json"}
        async with client.request("POST", "/containers/create", body=b'{"Image": "x', headers=headers) as answer:
            return answer.status, json.loads(await answer.read())["message"]

    assert anyio.run(truncated) == (400, "invalid JSON: unexpected EOF")


def test_nothing_is_left_of_a_start_that_failed(engine: Engine):
    before = engine.leftovers()
    engine.docker("run", "--rm", IMAGE, "nosuch")
    engine.docker("run", "--rm", "-u", "nobody-knows", IMAGE, "true")
    engine.docker("run", "--rm", "--cap-add", "nosuch", IMAGE, "true")
    engine.docker("run", "--rm", "-v", "/a:/", IMAGE, "true")
    after = engine.leftovers()
    del before["cgroups"], after["cgroups"]  # the parent stays while the engine runs
    assert after == before


def test_removal_by_force_while_a_start_is_under_way(engine: Engine):
    async def both() -> None:
        client = EngineClient(engine.socket)
        for _ in range(10):
            name = await client.create("", {"Image": IMAGE, "Cmd": ["sleep", "100"]})

            async def start(name: str = name) -> None:
                with contextlib.suppress(EngineError):  # it may be gone before its turn
                    await client.start(name)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(start)
                await anyio.lowlevel.checkpoint()
                await client.delete(f"/containers/{name}", force=True)

    anyio.run(both)
    assert engine.ok("ps", "-aq") == ""
