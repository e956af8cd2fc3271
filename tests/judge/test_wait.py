"""Waiting: registered at once, answered at the exit, whatever the condition and however the run ends."""

from __future__ import annotations

import anyio
import pytest

from silo.client.engine import EngineClient, EngineError, exit_code
from tests.judge.harness import IMAGE, Engine

pytestmark = pytest.mark.anyio


def body(*command: str, **host: object) -> dict[str, object]:
    return {"Image": IMAGE, "Cmd": list(command), "OpenStdin": True, "HostConfig": {"NetworkMode": "none", **host}}


async def test_the_head_comes_before_the_end(engine: Engine):
    client = EngineClient(engine.socket)
    name = await client.create("", body("cat"))
    with anyio.fail_after(30):
        async with client.waiting(name, "next-exit") as answer:
            assert answer.status == 200  # the head is here, the container has not even begun
            state = (await client.get(f"/containers/{name}/json"))["State"]
            assert state["Status"] == "created"
            await client.start(name)
            assert (await client.get(f"/containers/{name}/json"))["State"]["Running"]
            await client.post(f"/containers/{name}/kill", signal="KILL")
            assert await exit_code(answer) == 137


async def test_not_running_answers_at_once_when_it_does_not_run(engine: Engine):
    client = EngineClient(engine.socket)
    name = await client.create("", body("sh", "-c", "exit 6"))
    with anyio.fail_after(30):
        async with client.waiting(name, "not-running") as answer:
            assert await exit_code(answer) == 0
        async with client.waiting(name, "next-exit") as answer:
            await client.start(name)
            assert await exit_code(answer) == 6
        async with client.waiting(name, "not-running") as answer:
            assert await exit_code(answer) == 6


async def test_next_exit_does_not_count_the_last_one(engine: Engine):
    client = EngineClient(engine.socket)
    name = await client.create("", body("true"))
    async with client.waiting(name, "next-exit") as answer:
        await client.start(name)
        await exit_code(answer)
    async with client.waiting(name, "next-exit") as answer:
        with anyio.move_on_after(0.3) as scope:
            await exit_code(answer)
        assert scope.cancelled_caught


async def test_removed_waits_for_the_removal(engine: Engine):
    client = EngineClient(engine.socket)
    name = await client.create("", body("sh", "-c", "exit 5", AutoRemove=True))
    with anyio.fail_after(30):
        async with client.waiting(name, "removed") as answer:
            await client.start(name)
            assert await exit_code(answer) == 5
    with pytest.raises(EngineError, match="No such container"):
        await client.get(f"/containers/{name}/json")


async def test_a_failed_start_completes_the_wait(engine: Engine):
    client = EngineClient(engine.socket)
    name = await client.create("", body("nosuch"))
    with anyio.fail_after(30):
        async with client.waiting(name, "next-exit") as answer:
            with pytest.raises(EngineError, match="executable file not found") as failure:
                await client.start(name)
            assert failure.value.status == 400
            assert await exit_code(answer) == 127
    state = (await client.get(f"/containers/{name}/json"))["State"]
    assert (state["Status"], state["ExitCode"]) == ("created", 127)
    assert "executable file not found" in state["Error"]


async def test_the_wait_request_precedes_the_start(engine: Engine):
    engine.ok("run", "-d", "--name", "order", IMAGE, "true")
    roots = [trace["spans"][0] for trace in engine.traces("order")]
    names = [root["name"] for root in sorted(roots, key=lambda root: root["start_ns"])]
    wait, start = names.index("api::POST /containers/{name}/wait"), names.index("api::POST /containers/{name}/start")
    assert wait < start


async def test_an_unknown_condition_is_refused(engine: Engine):
    client = EngineClient(engine.socket)
    name = await client.create("", body("true"))
    with pytest.raises(EngineError, match='invalid condition: "soon"') as failure:
        async with client.waiting(name, "soon"):
            pass
    assert failure.value.status == 400
