"""Decisions of the compute strip: states, users, runtime texts, cgroup modes, monitor arguments.  No kernel."""

from __future__ import annotations

import itertools

import pytest

from silo.errors import HostFault, InvalidParameter
from silo.host import results
from silo.host.hcs.conmon import Answer, MonitorPlan, command, parse_answer
from silo.host.hcs.runtime import explain
from silo.host.hcs.states import MOVES, SystemState, move
from silo.host.hcs.users import User, decide
from silo.host.linux.cgroup import Mode, detect

VERBS = sorted({verb for _, verb in MOVES})


@pytest.mark.parametrize(("state", "verb"), list(itertools.product(SystemState, VERBS)))
def test_only_the_tables_moves(state, verb):
    if (state, verb) in MOVES:
        assert move("x", state, verb) == MOVES[state, verb]
        return
    with pytest.raises(results.HostError) as failure:
        move("x", state, verb)
    stopped = state == SystemState.STOPPED
    assert failure.value.code == (results.Code.SYSTEM_ALREADY_STOPPED if stopped else results.Code.INVALID_STATE)


PASSWD = [line.split(":") for line in ("root:x:0:0:::", "web:x:33:34:::", "bad:x:y:z:::")]
GROUP = [line.split(":") for line in ("root:x:0:", "web:x:34:", "tape:x:26:web,other", "disk:x:6:root")]


@pytest.mark.parametrize(
    ("user", "groups", "wanted"),
    [
        ("", (), User(0, 0, (6, 0))),
        ("web", (), User(33, 34, (26, 34))),
        ("33", (), User(33, 34, (26, 34))),
        ("web:tape", (), User(33, 26, (26,))),
        ("1000", (), User(1000, 0, (0,))),
        ("1000:5", (), User(1000, 5, (5,))),
        ("web", ("6", "tape"), User(33, 34, (26, 6, 34))),
    ],
)
def test_users(user, groups, wanted):
    assert decide(PASSWD, GROUP, user, groups) == wanted


@pytest.mark.parametrize(
    ("user", "text"),
    [
        ("nope", "unable to find user nope: no matching entries in passwd file"),
        ("bad", "unable to find user bad"),
        ("web:nope", "unable to find group nope: no matching entries in group file"),
        ("99999999999", "unable to find user"),
    ],
)
def test_users_that_are_none(user, text):
    with pytest.raises(InvalidParameter, match=text):
        decide(PASSWD, GROUP, user)


RUNC = 'time="t" level=error msg="runc create failed: unable to start container process: exec: {}"'


@pytest.mark.parametrize(
    ("runtime", "message", "argv0", "words"),
    [
        ("crun", "executable file `nosuch` not found in $PATH", "nosuch", "executable file not found in $PATH"),
        ("crun", "open executable: No such file or directory", "/no", "stat /no: no such file or directory"),
        ("crun", "open executable: Permission denied", "/x", 'exec: "/x": permission denied'),
        ("runc", RUNC.format('\\"n\\": executable file not found in $PATH'), "n", "executable file not found in $PATH"),
        ("runc", RUNC.format('\\"/etc\\": permission denied'), "/etc", 'exec: "/etc": permission denied'),
        ("crun", "something else", "x", "crun create failed: something else: unknown"),
    ],
)
def test_runtime_errors_in_dockerds_words(runtime, message, argv0, words):
    text = explain(runtime, message, argv0)
    assert text.startswith("failed to create task for container: failed to create shim task: OCI runtime create failed")
    assert words in text


V1 = "30 29 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n31 29 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n32 29 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
V2 = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
UNIFIED = "33 29 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "mode", "version"),
    [(V1, Mode.V1, "1"), (V2, Mode.V2, "2"), (V1 + UNIFIED, Mode.HYBRID, "1"), ("", Mode.NONE, "1")],
)
def test_cgroup_modes(mountinfo, mode, version):
    found = detect(mountinfo)
    assert (found.mode, found.version) == (mode, version)


def test_hierarchies_by_controller():
    found = detect(V1 + UNIFIED)
    assert found.hierarchies["cpuacct"] == found.hierarchies["cpu"] == "/sys/fs/cgroup/cpu,cpuacct"
    assert found.hierarchies["name=systemd"] == "/sys/fs/cgroup/systemd"
    assert found.unified == "/sys/fs/cgroup/unified"


def plan(**changes) -> MonitorPlan:
    values = {
        "system_id": "c", "runtime": "/usr/bin/crun", "runtime_root": "/r", "bundle": "/b", "log": "/l", "pidfile": "/p",
        "exits": "/e", "terminal": False, "stdin": False, "stdin_once": False,
    }  # fmt: skip
    return MonitorPlan(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({}, set()),
        ({"stdin": True}, {"-i", "--leave-stdin-open"}),
        ({"stdin": True, "stdin_once": True}, {"-i"}),
        ({"stdin": True, "stdin_once": True, "terminal": True}, {"-i", "-t", "--leave-stdin-open"}),
    ],
)
def test_monitor_flags(changes, flags):
    assert set(command(plan(**changes))) & {"-i", "-t", "--leave-stdin-open"} == flags


def test_the_monitors_answer():
    assert parse_answer(b'{"data": 42}\n') == Answer(42)
    assert parse_answer(b'noise\n{"data": -1, "message": "no"}\n') == Answer(-1, "no")
    with pytest.raises(HostFault):
        parse_answer(b"")
