"""conmon's command line and its answer; what runtimes' words become; who a process runs as; limits."""

from __future__ import annotations

import os

import msgspec
import pytest

from silo.errors import HostFault, InvalidParameter
from silo.host.hcs.conmon import Answer, MonitorPlan, command, parse_answer, read_answer
from silo.host.hcs.limits import clamp
from silo.host.hcs.runtime import explain
from silo.host.hcs.users import decide
from silo.schema.oci import CAPABILITIES

PLAN = MonitorPlan(
    system_id="cid",
    runtime="/usr/bin/crun",
    runtime_root="/run/silo/runtime",
    bundle="/b",
    log="/b/log",
    pidfile="/run/silo/hcs/cid/pid",
    exits="/run/silo/exits",
    terminal=False,
    stdin=False,
    stdin_once=False,
)


def option(argv: list[str], name: str) -> str:
    return argv[argv.index(name) + 1]


def test_command() -> None:
    argv = command(PLAN)
    assert argv[0] == "/usr/bin/conmon"
    assert (option(argv, "-c"), option(argv, "-r"), option(argv, "-b")) == ("cid", "/usr/bin/crun", "/b")
    assert (option(argv, "-p"), option(argv, "--exit-dir")) == ("/run/silo/hcs/cid/pid", "/run/silo/exits")
    assert option(argv, "-l") == "k8s-file:/b/log"
    assert option(argv, "--runtime-arg") == "--root=/run/silo/runtime"
    assert {"--sync", "--full-attach"} <= set(argv)
    assert not {"-t", "-i", "--leave-stdin-open"} & set(argv)


@pytest.mark.parametrize(
    ("changes", "there", "absent"),
    [
        ({"terminal": True}, {"-t"}, {"-i"}),
        ({"stdin": True, "stdin_once": True}, {"-i"}, {"--leave-stdin-open"}),
        ({"stdin": True, "stdin_once": False}, {"-i", "--leave-stdin-open"}, set()),
        ({"stdin_once": False}, set(), {"-i", "--leave-stdin-open"}),
        ({"log": ""}, {"none"}, set()),
    ],
)
def test_streams(changes: dict[str, object], there: set[str], absent: set[str]) -> None:
    argv = set(command(msgspec.structs.replace(PLAN, **changes)))
    assert there <= argv
    assert not absent & argv


def test_answers() -> None:
    assert parse_answer(b'{"data": 42}\n') == Answer(42)
    assert parse_answer(b'noise\n{"data": -1, "message": "why"}\n') == Answer(-1, "why")
    for nothing in (b"", b"\n", b"no json\n", b'{"other": 1}\n'):
        with pytest.raises(HostFault):
            parse_answer(nothing)


@pytest.mark.anyio
async def test_an_answer_in_pieces_and_a_conmon_that_dies() -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    try:
        os.write(writer, b'{"data"')
        os.write(writer, b": 7}\n")
        assert await read_answer(reader, 5) == Answer(7)
        os.write(writer, b'{"da')
        os.close(writer)
        with pytest.raises(HostFault):
            await read_answer(reader, 5)
    finally:
        os.close(reader)


HEAD = "failed to create task for container: failed to create shim task: OCI runtime create failed: "
START = "unable to start container process: "
RUNC = 'time="2026-01-01T00:00:00Z" level=error msg="runc create failed: unable to start container process: %s"\n'


@pytest.mark.parametrize(
    ("runtime", "said", "argv0", "reason"),
    [
        ("crun", "executable file `nosuch` not found in $PATH: No such file or directory", "nosuch", "PATH"),
        ("crun", "executable file `/nosuch` not found: No such file or directory", "/nosuch", "stat"),
        ("crun", "open executable: Permission denied", "/bin/plain", "permission denied"),
        ("crun", "open executable: Permission denied", "plain", "PATH"),
        ("crun", "executable path `/etc` is a directory: Is a directory", "/etc", "permission denied"),
        ("runc", RUNC % r"exec: \"nosuch\": executable file not found in $PATH", "nosuch", "PATH"),
        ("runc", RUNC % r"exec: \"/nosuch\": stat /nosuch: no such file or directory", "/nosuch", "stat"),
        ("runc", RUNC % r"exec: \"/bin/plain\": permission denied", "/bin/plain", "permission denied"),
    ],
)
def test_what_cannot_be_run_is_told_as_dockerd_does(runtime: str, said: str, argv0: str, reason: str) -> None:
    words = {
        "PATH": "executable file not found in $PATH",
        "stat": f"stat {argv0}: no such file or directory",
        "permission denied": "permission denied",
    }
    wanted = f'{HEAD}{runtime} create failed: {START}exec: "{argv0}": {words[reason]}: unknown'
    assert explain(runtime, said, argv0) == wanted


def test_other_failures_keep_the_runtimes_words() -> None:
    said = "mount `/a` to `/b`: No such file or directory"
    assert explain("crun", said, "sh") == f"{HEAD}crun create failed: {said}: unknown"


PASSWD = [line.split(":") for line in ("root:x:0:0::/:", "alice:x:1000:1001::/:", "broken:x:y", "")]
GROUP = [line.split(":") for line in ("root:x:0:", "video:x:44:alice,bob", "audio:x:29:alice", "bad:x:zz:alice")]


@pytest.mark.parametrize(
    ("user", "extra", "ids"),
    [  # recorded from dockerd, as sets: tests/unit/data/dockerd-20.10-cases.json
        ("", [], (0, 0, {0})),
        ("alice", [], (1000, 1001, {1001, 44, 29})),
        ("1000", [], (1000, 1001, {1001, 44, 29})),
        ("alice:video", [], (1000, 44, {44})),
        ("1000:44", [], (1000, 44, {44})),
        ("4242", [], (4242, 0, {0})),
        ("alice", ["audio", "777"], (1000, 1001, {1001, 44, 29, 777})),
        (":video", [], (0, 44, {44})),
    ],
)
def test_users(user: str, extra: list[str], ids: tuple[int, int, set[int]]) -> None:
    found = decide(PASSWD, GROUP, user, extra)
    assert (found.uid, found.gid, set(found.additional)) == ids


@pytest.mark.parametrize(
    ("user", "extra", "text"),
    [
        ("nobody", [], "unable to find user nobody: no matching entries in passwd file"),
        ("-1", [], "unable to find user -1: no matching entries in passwd file"),
        ("99999999999", [], "unable to find user 99999999999: no matching entries in passwd file"),
        ("alice:nogroup", [], "unable to find group nogroup: no matching entries in group file"),
        ("alice", ["nogroup"], "unable to find group nogroup"),
    ],
)
def test_unknown_users(user: str, extra: list[str], text: str) -> None:
    with pytest.raises(InvalidParameter, match=text):
        decide(PASSWD, GROUP, user, extra)


def test_limits_are_left_alone_where_the_host_may_raise_them() -> None:
    process = {"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1 << 40, "hard": 1 << 40}], "oomScoreAdj": -1000}
    assert clamp(process, frozenset(CAPABILITIES), all_capabilities=False) == []
    assert process["oomScoreAdj"] == -1000


def test_limits_are_lowered_where_it_may_not() -> None:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    process = {
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1 << 62, "hard": 1 << 62}],
        "oomScoreAdj": -1000,
        "capabilities": {"bounding": ["CAP_CHOWN", "CAP_SYS_RESOURCE"]},
    }
    lowered = clamp(process, frozenset({"CAP_CHOWN"}), all_capabilities=True)
    assert process["rlimits"][0]["hard"] in {hard, 1 << 62}  # a host without a hard limit needs none lowered
    assert process["oomScoreAdj"] > -1000 or not any("oom" in text for text in lowered)
    assert process["capabilities"]["bounding"] == ["CAP_CHOWN"]
    assert "without CAP_SYS_RESOURCE" in lowered


def test_a_capability_asked_for_by_name_is_not_silently_dropped() -> None:
    process = {"capabilities": {"bounding": ["CAP_SYS_RESOURCE"]}, "oomScoreAdj": 1000}
    assert clamp(process, frozenset(), all_capabilities=False) == []
    assert process["capabilities"]["bounding"] == ["CAP_SYS_RESOURCE"]
