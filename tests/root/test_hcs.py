"""Compute systems on the real kernel with both runtimes: streams, ends, failures, restarts, and nothing left."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from silo import telemetry
from silo.execution.systems import Exit, Live
from silo.hcsshim import hcs as shim
from silo.hcsshim.errors import Code, HcsError, is_already_exists, is_not_exist
from silo.host.hcs.limits import RAISES_LIMITS, own_capabilities
from silo.host.linux import pidfd
from silo.ids import ContainerID, random_id
from silo.schema.engine import DeviceMapping, Ulimit
from silo.schema.hcs import PROCESS_EXITED, SYSTEM_EXITED, Notification, ProcessStatus
from tests.hcsrig import Rig, leftovers, talk

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["crun", "runc"])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    found = leftovers(instance_of(tmp_path), tmp_path)
    assert found == {}


def instance_of(base: Path) -> str:
    return hashlib.sha256(str(base).encode()).hexdigest()[:8]


@pytest.fixture
async def rig(base: Path, runtime: str) -> AsyncGenerator[Rig]:
    async with Rig(base, instance_of(base), runtime).running() as running:
        yield running
        for properties in await running.systems.enumerate():
            await running.systems.close(ContainerID(properties["Id"]))


class Traces:
    def __init__(self) -> None:
        self.spans: list[telemetry.Span] = []

    def begin(self, trace: telemetry.Trace) -> None:
        return

    def end(self, trace: telemetry.Trace) -> None:
        self.spans += trace.spans

    def effects(self, name: str) -> list[tuple[str, str]]:
        return [(one.kind, one.action) for span in self.spans if span.name == name for one in span.effects]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that tells nobody."""
    with anyio.fail_after(10):
        for pause in itertools.chain((0.0, 0.001), itertools.repeat(0.01)):
            await anyio.sleep(pause)
            if await condition():
                return


async def test_streams_are_apart_and_the_exit_code_is_right(rig: Rig) -> None:
    out, err, ended = await rig.run("sh", "-c", "echo out; echo err >&2; exit 3")
    assert (out, err, ended.exit_code, ended.oom_killed) == (b"out\n", b"err\n", 3, False)


async def test_three_megabytes_through_stdin_and_stdout(rig: Rig) -> None:
    data = os.urandom(3 << 20)
    out, _, ended = await rig.run("cat", input=data)
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()
    assert ended.exit_code == 0


async def test_stdin_stays_open_for_others_unless_once(rig: Rig) -> None:
    container_id = ContainerID(random_id())
    document = rig.document(container_id, "cat", stdin=True, stdin_once=False)
    await rig.systems.create(container_id, document)
    await rig.systems.start(container_id)
    await rig.systems.create_process(container_id, document)
    for word in (b"first\n", b"second\n"):
        async with await rig.systems.attach(container_id) as stdio:
            await stdio.send(word)
            with anyio.fail_after(10):
                assert await anext(aiter(stdio)) == (1, word)
    await rig.systems.terminate(container_id)
    assert (await rig.exit_of(container_id)).exit_code == 137


async def test_a_terminal_has_its_size_and_takes_a_new_one(rig: Rig) -> None:
    script = "stty size; trap 'stty size; exit 5' WINCH; echo ready; while :; do sleep 0.01; done"
    container_id = ContainerID(random_id())
    document = rig.document(container_id, "sh", "-c", script, tty=True, stdin=True, console_size=[33, 77])
    await rig.systems.create(container_id, document)
    seen = b""
    async with await rig.systems.attach(container_id) as stdio:
        await rig.systems.start(container_id)
        await rig.systems.create_process(container_id, document)
        with anyio.fail_after(20):
            async for number, data in stdio:
                assert number == 1
                if b"ready" in data:
                    await rig.systems.resize(container_id, 40, 120)
                seen += data
    assert seen.split(b"\r\n") == [b"33 77", b"ready", b"40 120", b""]
    assert (await rig.exit_of(container_id)).exit_code == 5
    with pytest.raises(HcsError) as caught:
        await rig.systems.resize(container_id, 1, 1)
    assert caught.value.code == Code.SYSTEM_ALREADY_STOPPED


@pytest.mark.parametrize(
    ("argv0", "words"),
    [
        ("nosuch", "executable file not found in $PATH"),
        ("/nosuch", "no such file or directory"),
        ("/bin/plain", "permission denied"),
        ("/etc", "permission denied"),
    ],
)
async def test_what_cannot_run_fails_the_create_and_leaves_nothing(rig: Rig, argv0: str, words: str) -> None:
    traces, container_id = Traces(), ContainerID(random_id())
    telemetry.use_sink(traces)
    with pytest.raises(HcsError) as caught:
        await rig.systems.create(container_id, rig.document(container_id, argv0))
    assert f'exec: "{argv0}": ' in str(caught.value)
    assert words in str(caught.value)
    failed = next(span for span in traces.spans if span.name == f"{rig.runtime}::create")
    assert failed.status == "error"
    assert "stderr" in failed.attributes
    found = leftovers(rig.instance, rig.base)
    assert not {"processes", "mounts", "files"} & set(found)
    assert not [path for path in found.get("cgroups", []) if container_id in path]
    with pytest.raises(HcsError) as caught:
        await rig.systems.properties(container_id)
    assert is_not_exist(caught.value)


async def test_unknown_user(rig: Rig) -> None:
    with pytest.raises(HcsError, match="unable to find user nobody: no matching entries in passwd file"):
        await rig.run("true", user="nobody")


async def test_a_user_has_ids_groups_and_no_capabilities(rig: Rig) -> None:
    out, _, _ = await rig.run(
        "sh", "-c", "id; grep CapEff /proc/self/status; pwd; ls -dl .", user="alice", cwd="/new/dir"
    )
    lines = out.decode().splitlines()
    assert lines[0].startswith("uid=1000(alice) gid=1001(alice)")
    assert set(lines[0].partition("groups=")[2].split(",")) == {"1001(alice)", "29(audio)", "44(video)"}
    assert lines[1].split()[1] == "0000000000000000"
    assert lines[2] == "/new/dir"
    assert lines[3].split()[2:4] == ["alice", "alice"]


async def test_default_devices_work_and_others_do_not(rig: Rig) -> None:
    script = "head -c 1 /dev/zero | wc -c; : > /dev/null; busybox mknod /tmp/x b 254 0; head -c 1 /tmp/x; echo $?"
    out, err, _ = await rig.run("sh", "-c", script)
    assert out == b"1\n1\n"
    assert b"Operation not permitted" in err


async def test_a_device_of_the_host(rig: Rig) -> None:
    devices = [DeviceMapping(path_on_host="/dev/zero", path_in_container="/dev/mine", cgroup_permissions="r")]
    out, _, _ = await rig.run("sh", "-c", "head -c 3 /dev/mine | wc -c", devices=devices)
    assert out == b"3\n"
    devices = [DeviceMapping(path_on_host="/dev/nosuch", path_in_container="/dev/mine")]
    with pytest.raises(HcsError, match='custom device "/dev/nosuch": no such file or directory'):
        await rig.run("true", devices=devices)


async def test_privileged_gets_what_the_host_has(rig: Rig) -> None:
    out, _, ended = await rig.run("sh", "-c", "grep CapEff /proc/self/status; ls -d /dev/loop*", privileged=True)
    own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapPrm"))
    assert ended.exit_code == 0
    assert out.split()[1].decode() == own.split()[1]


async def test_limits_beyond_the_hosts_do_not_fail_the_start(rig: Rig) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    asked = hard if RAISES_LIMITS in own_capabilities() else hard + 1000
    out, _, ended = await rig.run(
        "sh", "-c", "ulimit -n", ulimits=[Ulimit(name="nofile", soft=asked, hard=asked)], oom_score_adj=-500
    )
    assert ended.exit_code == 0
    assert int(out) == hard


async def test_namespaces_of_the_host(rig: Rig) -> None:
    out, _, _ = await rig.run("hostname", uts_mode="host")
    assert out.decode().strip() == os.uname().nodename
    out, _, _ = await rig.run("hostname")
    assert out == b"box\n"
    out, _, _ = await rig.run("sh", "-c", "busybox readlink /proc/self/ns/net", network="host")
    assert out.decode().strip() == str(Path("/proc/self/ns/net").readlink())
    _, _, ended = await rig.run("ls", "/dev/shm", ipc_mode="none")
    assert ended.exit_code != 0


async def test_children_in_the_hosts_pid_namespace_end_with_the_container(rig: Rig) -> None:
    container_id = await rig.launch("sh", "-c", "sleep 1000 & exec cat /dev/zero > /dev/null", pid_mode="host")

    async def both_run() -> bool:
        return len(await rig.systems.pids(container_id)) == 2

    await until(both_run)
    pids = await rig.systems.pids(container_id)
    began = {pid: pidfd.start_time(pid) or 0 for pid in pids}
    await rig.systems.terminate(container_id)
    await rig.exit_of(container_id)
    await rig.systems.close(container_id)
    assert all(pidfd.has_ended(pid, when) for pid, when in began.items())


async def test_out_of_memory(rig: Rig) -> None:
    grow = "a=x; while :; do a=$a$a; done"
    _, _, ended = await rig.run("sh", "-c", grow, memory=16 << 20, memory_swap=16 << 20)
    assert (ended.exit_code, ended.oom_killed) == (137, True)
    assert not Path("oom").exists()  # conmon's note is in the bundle, and gone with the run
    assert not list(rig.base.glob("containers/*/oom"))
    _, _, ended = await rig.run("true", memory=16 << 20, memory_swap=16 << 20)
    assert not ended.oom_killed


async def test_stop_by_signal_and_by_force(rig: Rig) -> None:
    container_id = await rig.launch("sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.01; done")

    async def trap_is_set() -> bool:  # before, a pid 1 ignores the signal
        return _catches(await rig.systems.properties(container_id), signal.SIGTERM)

    await until(trap_is_set)
    await rig.systems.signal(container_id, signal.SIGTERM)
    assert (await rig.exit_of(container_id)).exit_code == 9
    assert (await rig.systems.properties(container_id))["ExitType"] == "GracefulExit"
    await rig.systems.signal(container_id, signal.SIGTERM)  # has ended: no error
    await rig.systems.terminate(container_id)
    container_id = await rig.launch("sleep", "1000")
    await rig.systems.terminate(container_id)
    assert (await rig.exit_of(container_id)).exit_code == 137
    assert (await rig.systems.properties(container_id))["ExitType"] == "ForcedExit"


def _catches(properties: dict[str, object], number: int) -> bool:
    status = Path(f"/proc/{properties['ProcessId']}/status").read_text()
    if status.splitlines()[0].split()[1] != "sh":
        return False  # still the runtime's init, and runc's catches every signal itself
    mask = next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1]
    return bool(int(mask, 16) >> number - 1 & 1)


async def test_what_is_paused_can_be_killed_and_closed(rig: Rig) -> None:
    first, second = await rig.launch("sleep", "1000"), await rig.launch("sleep", "1000")
    await rig.systems.pause(first)
    assert (await rig.systems.properties(first))["State"] == "Paused"
    await rig.systems.resume(first)
    await rig.systems.pause(first)
    await rig.systems.terminate(first)
    assert (await rig.exit_of(first)).exit_code == 137
    await rig.systems.pause(second)
    with anyio.fail_after(10):
        await rig.systems.close(second)


async def test_an_exit_before_the_start_has_returned_is_told(rig: Rig) -> None:
    maker = rig.hcs._maker
    start = maker.start

    async def slow(record) -> None:
        await start(record)
        fd = pidfd.open_process(record.monitor_pid, record.monitor_began)
        if fd is not None:
            await pidfd.wait_gone(fd)
            os.close(fd)
        for _ in range(20):  # everybody who waits for the monitor too has his turn
            await anyio.lowlevel.checkpoint()

    maker.start = slow
    _, _, ended = await rig.run("sh", "-c", "exit 4")
    assert ended.exit_code == 4


async def test_a_reader_that_takes_its_time_loses_nothing(rig: Rig) -> None:
    container_id = ContainerID(random_id())
    document = rig.document(container_id, "dd", "if=/dev/zero", "bs=65536", "count=800")
    await rig.systems.create(container_id, document)
    total = packets = 0
    async with await rig.systems.attach(container_id) as stdio:
        await rig.systems.start(container_id)
        await rig.systems.create_process(container_id, document)
        async for number, data in stdio:
            if number == 1:
                total += len(data)
            packets += 1
            if packets % 500 == 0:
                await anyio.sleep(0.02)
    assert total == 50 << 20
    assert (await rig.exit_of(container_id)).exit_code == 0


async def test_a_reader_that_does_not_read_holds_up_no_exit_and_still_gets_the_rest(rig: Rig) -> None:
    container_id = ContainerID(random_id())
    document = rig.document(container_id, "cat", "/dev/zero")
    await rig.systems.create(container_id, document)
    idle = await rig.systems.attach(container_id)
    await rig.systems.start(container_id)
    await rig.systems.create_process(container_id, document)
    log = Path(document.LogPath)
    sizes: list[int] = []

    async def stalled() -> bool:  # conmon's send blocks: the log has grown, and does so no more
        sizes.append(log.stat().st_size)
        return len(sizes) > 20 and sizes[-1] > 0 and len(set(sizes[-20:])) == 1

    async with idle:
        await until(stalled)
        await rig.systems.terminate(container_id)
        assert (await rig.exit_of(container_id)).exit_code == 137
        read = sum([len(data) async for _, data in idle])
    logged = sum(len(line.split(b" ", 3)[3]) for line in log.read_bytes().splitlines())
    assert read == logged > sizes[-1] // 2


async def test_two_readers_see_the_same(rig: Rig) -> None:
    container_id = ContainerID(random_id())
    document = rig.document(container_id, "seq", "1", "20000")
    await rig.systems.create(container_id, document)
    first, second = await rig.systems.attach(container_id), await rig.systems.attach(container_id)
    await rig.systems.start(container_id)
    await rig.systems.create_process(container_id, document)
    taken: list[bytes] = []

    async def read(stdio: shim.Stdio) -> None:
        taken.append((await talk(stdio))[0])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, first)
        tasks.start_soon(read, second)
    assert taken[0] == taken[1] == "".join(f"{number}\n" for number in range(1, 20001)).encode()
    await rig.exit_of(container_id)


async def test_effects_and_notifications_in_order(rig: Rig) -> None:
    traces, container_id = Traces(), ContainerID(random_id())
    telemetry.use_sink(traces)
    gate = rig.systems._gate
    with gate.notifications() as notices:
        document = rig.document(container_id, "sh", "-c", "exit 6")
        await rig.systems.create(container_id, document)
        group = Path((await rig.systems.properties(container_id))["Cgroup"]).name
        assert list(Path("/sys/fs/cgroup").glob(f"**/{group}"))
        await rig.systems.start(container_id)
        await rig.systems.create_process(container_id, document)
        await rig.exit_of(container_id)
        await shim.System(gate, container_id).wait(10)
        await rig.systems.close(container_id)
        told = []
        while notices.statistics().current_buffer_used:
            told.append(msgspec.json.decode(notices.receive_nowait(), type=Notification))
    assert [one.Type for one in told] == [2, 3, PROCESS_EXITED, SYSTEM_EXITED]
    assert len({one.RuntimeId for one in told}) == 1
    assert ProcessStatus(**told[2].EventData).ExitCode == 6
    assert told[3].EventData["ExitType"] == "GracefulExit"
    assert ("netns", "+") in traces.effects("hcsshim::CreateComputeSystem")
    assert traces.effects(f"{rig.runtime}::create") == [("monitor", "+"), ("cgroup", "+"), ("init", "+")]
    assert traces.effects("hcsshim::ComputeSystem::CreateProcess") == [("process", "+")]
    log = [event["Message"] for event in await rig.systems.event_log() if container_id in event["Message"]]
    assert [line.split("] ")[1].split(",")[0] for line in log] == [
        "Create compute system",
        "Start compute system",
        "Create process",
        "Compute system exited",
    ]


async def test_the_same_id_twice_and_unknown_ids(rig: Rig) -> None:
    container_id = await rig.launch("sleep", "1000")
    document = rig.document(random_id(), "true")
    with pytest.raises(HcsError) as caught:
        await rig.systems.create(container_id, document)
    assert is_already_exists(caught.value)
    gate = rig.systems._gate
    with pytest.raises(HcsError) as caught:
        await shim.open_compute_system(gate, "nosuch")
    assert is_not_exist(caught.value)
    process = await (await shim.open_compute_system(gate, container_id)).open_process()
    assert not (await process.properties()).Exited
    with pytest.raises(HcsError) as caught:
        await shim.System(gate, container_id).wait(0.05)
    assert caught.value.code == Code.OPERATION_TIMEOUT
    await process.kill()
    await process.wait()
    assert (await rig.exit_of(container_id)).exit_code == 137


async def test_a_stopped_system_that_nobody_closed_makes_room(rig: Rig) -> None:
    container_id = ContainerID(random_id())
    document = rig.document(container_id, "sh", "-c", "exit 3")
    for _ in range(2):
        await rig.systems.create(container_id, document)
        await rig.systems.start(container_id)
        await rig.systems.create_process(container_id, document)
        assert (await rig.exit_of(container_id)).exit_code == 3


async def test_a_cancelled_create_leaves_nothing(rig: Rig) -> None:
    for seconds in (0.0, 0.004, 0.01, 0.015, 0.02):
        container_id = ContainerID(random_id())
        with anyio.move_on_after(seconds) as scope:
            await rig.systems.create(container_id, rig.document(container_id, "sleep", "1000"))
        if not scope.cancelled_caught:
            await rig.systems.close(container_id)
        found = leftovers(rig.instance, rig.base)
        assert not {"processes", "mounts", "files"} & set(found)
        assert not [path for path in found.get("cgroups", []) if container_id in path]


async def test_statistics_and_processes(rig: Rig) -> None:
    container_id = await rig.launch("sh", "-c", "while :; do :; done", pids_limit=50)
    found: dict[str, Any] = {}

    async def works() -> bool:  # until then it is the runtime's init that is measured
        found.update(await rig.systems.properties(container_id, "Statistics", "ProcessList"))
        names = [row["ImageName"] for row in found["ProcessList"]]
        return names == ["sh"] and found["Statistics"]["Processor"]["TotalRuntime100ns"] > 0

    await until(works)
    assert found["Statistics"]["Memory"]["MemoryUsageCommitBytes"] > 0
    assert found["Statistics"]["Processes"]["Limit"] == 50
    assert [row["ProcessId"] for row in found["ProcessList"]] == [found["ProcessId"]]
    await rig.systems.close(container_id)


async def test_fds_and_threads_do_not_grow(rig: Rig) -> None:
    async def round_trips(count: int) -> tuple[int, int]:
        for _ in range(count):
            await rig.run("true")
            with pytest.raises(HcsError):
                await rig.run("nosuch")
        return len(list(Path("/proc/self/fd").iterdir())), len(list(Path("/proc/self/task").iterdir()))

    first = await round_trips(5)
    assert await round_trips(15) == first


SERVICE = """
import json, sys
from pathlib import Path
import anyio
from tests.hcsrig import Rig

async def main(base, instance, runtime, commands):
    rig = Rig(Path(base), instance, runtime)
    async with rig.running():
        for argv in json.loads(commands):
            if argv[0] == "@created":
                from silo.ids import random_id
                container_id = random_id()
                await rig.systems.create(container_id, rig.document(container_id, *argv[1:]))
            else:
                container_id = await rig.launch(*argv, stdin=True, stdin_once=False)
            print(container_id, flush=True)
        print("ready", flush=True)
        await anyio.sleep_forever()

anyio.run(main, *sys.argv[1:])
"""


def spawn_service(script: str, base: Path, runtime: str, commands: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(base), instance_of(base), runtime, commands],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )


def start_service(base: Path, runtime: str, *commands: list[str]) -> tuple[subprocess.Popen[str], list[ContainerID]]:
    """A service in a process of its own, with containers started; killed without warning by the test."""
    child = spawn_service(SERVICE, base, runtime, json.dumps(commands))
    assert child.stdout is not None
    lines = [child.stdout.readline().strip() for _ in range(len(commands) + 1)]
    assert lines[-1] == "ready"
    return child, [ContainerID(line) for line in lines[:-1]]


def kill_service(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.wait()
    assert child.stdout is not None
    child.stdout.close()


async def test_killed_service_finds_everything_again(base: Path, runtime: str) -> None:
    wait_for = ["sh", "-c", "read code; exit $code"]
    child, ids = start_service(base, runtime, wait_for, wait_for, ["@created", "sleep", "1000"], ["sleep", "1000"])
    runs_on, ends, created, _ = ids  # the last one is of a container that the engine does not know
    kill_service(child)
    bundle = base / "containers" / ends
    with shim.connect_seqpacket(bundle / "attach") as sock:
        sock.send(b"42\n")

        async def has_ended() -> bool:
            return (base / "exec/exits" / ends).exists()

        await until(has_ended)
    rig = Rig(base, instance_of(base), runtime)
    async with rig.running({runs_on, ends, created}):
        assert isinstance(rig.restored[runs_on], Live)
        ended = rig.restored[ends]
        assert isinstance(ended, Exit)
        assert ended.exit_code == 42
        assert set(rig.restored) == {runs_on, ends}  # what never ran is undone, what nobody knows is ended
        assert {one["Id"] for one in await rig.systems.enumerate()} == {runs_on, ends}
        async with await rig.systems.attach(runs_on) as stdio:
            await stdio.send(b"7\n")
            assert (await rig.exit_of(runs_on)).exit_code == 7
        with pytest.raises(anyio.WouldBlock):  # each exit once: the other one was the answer to restore()
            rig.systems.exits.receive_nowait()
        await rig.systems.close(runs_on)
    async with rig.running({ends}):
        ended = rig.restored[ends]  # not closed yet: whoever asks again is told again
        assert isinstance(ended, Exit)
        assert ended.exit_code == 42
        await rig.systems.close(ends)
    async with rig.running({runs_on, ends}):
        assert rig.restored == {}


async def test_killed_in_the_middle_of_a_create(base: Path, runtime: str) -> None:
    """At whatever instant: the next service has no such system, and nothing of it is left."""
    script = SERVICE.replace('print("ready", flush=True)', "").replace(
        "async with rig.running():", 'async with rig.running():\n        print("ready", flush=True)'
    )
    found_something = 0
    for milliseconds in (0, 3, 6, 9, 12, 15, 20, 30, 45):
        child = spawn_service(script, base, runtime, '[["@created", "sleep", "1000"]]')
        assert child.stdout is not None
        child.stdout.readline()
        await anyio.sleep(milliseconds / 1000)  # which instant is what is tested
        kill_service(child)
        found_something += bool(leftovers(instance_of(base), base).get("processes"))
        rig = Rig(base, instance_of(base), runtime)
        async with rig.running():
            assert await rig.systems.enumerate() == []
            assert not {"processes", "files"} & set(leftovers(rig.instance, base))
        assert leftovers(rig.instance, base) == {}
    assert found_something  # the kills did come while there was something to undo


async def test_a_monitor_that_is_killed_is_an_exit_nobody_saw(rig: Rig) -> None:
    container_id = await rig.launch("sleep", "1000")
    record = rig.hcs._systems[container_id]
    assert pidfd.send_signal(record.monitor_pid, record.monitor_began, signal.SIGKILL)
    assert (await rig.exit_of(container_id)).exit_code == 255
    assert (await rig.systems.properties(container_id))["ExitType"] == "UnexpectedExit"
    await rig.systems.close(container_id)
    assert pidfd.has_ended(record.pid, record.pid_began)


async def test_many_at_once(rig: Rig) -> None:
    ids: list[ContainerID] = []

    async def one(number: int) -> None:
        ids.append(await rig.launch("sh", "-c", f"exit {number}"))

    async with anyio.create_task_group() as tasks:
        for number in range(12):
            tasks.start_soon(one, number)
    codes = {}
    with anyio.fail_after(30):
        while len(codes) < 12:
            ended = await anext(aiter(rig.systems.exits))
            codes[ended.container_id] = ended.exit_code
    assert sorted(codes.values()) == list(range(12))
    for container_id in ids:
        await rig.systems.close(container_id)
