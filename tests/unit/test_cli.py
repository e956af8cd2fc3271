"""How the silo command shows things.  No engine."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from silo.cli.common import blocks, table
from silo.cli.main import COMMANDS, main
from silo.cli.run import body_of, code_for, memory
from silo.cli.trace import lines

ID = "12aa686c6ecd4b25761e9c8e05ba7c4782eb40af4ffbca191b3319d67b2f9cc6"
DOCUMENT = {
    "traces": [
        {
            "trace_id": "t",
            "root": "a",
            "spans": [
                {
                    "span_id": "a", "parent_id": None, "name": "api::POST /containers/{name}/start",
                    "start_ns": 1_000_000_000, "duration_ns": 40_000_000,
                    "attributes": {"http.method": "POST", "http.path": "/containers/x/start"},
                    "effects": [], "status": "ok", "error": None,
                },
                {
                    "span_id": "b", "parent_id": "a", "name": "hcsshim::PrepareLayer",
                    "start_ns": 1_001_000_000, "duration_ns": 360_000,
                    "attributes": {"path": f"/d/windowsfilter/{ID}"},
                    "effects": [{"kind": "mount", "action": "+", "object": "/r/volumes/g"}],
                    "status": "ok", "error": None,
                },
                {
                    "span_id": "c", "parent_id": "a", "name": "hcsshim::CreateComputeSystem",
                    "start_ns": 1_002_000_000, "duration_ns": 30_000_000, "attributes": {"id": ID},
                    "effects": [], "status": "error", "error": "HcsInvalidParameter: no",
                },
            ],
        }
    ]
}  # fmt: skip


def test_a_trace_as_a_tree():
    shown = list(lines(DOCUMENT, colour=False))
    assert [line.split("  ")[0].rstrip() for line in shown] == [
        "api::POST /containers/{name}/start",
        "├─ hcsshim::PrepareLayer path=/d/windowsfilter/12aa686c6ecd",
        "│",
        "└─ hcsshim::CreateComputeSystem id=12aa686c6ecd",
        "",
    ]
    assert shown[2].strip() == "│     + mount /r/volumes/g"
    assert shown[4].strip() == "✗ HcsInvalidParameter: no"
    assert shown[0].endswith("+0.0 ms     40.00 ms")
    assert len({len(line) for line in shown if line.endswith(" ms")}) == 1
    assert "\x1b" not in "".join(shown)


def test_colour_is_for_terminals():
    assert "\x1b[" in "".join(lines(DOCUMENT, colour=True))


def test_blocks_and_tables():
    assert blocks([{"A": 1, "Long": "x"}, {"A": 2, "Long": "y"}]) == "A    : 1\nLong : x\n\nA    : 2\nLong : y"
    assert table(("A", "B"), [("1", "2"), ("333", "")]) == "A     B\n1     2\n333"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_its_help(name):
    done = CliRunner().invoke(main, [name, "--help"])
    assert done.exit_code == 0, done.output
    assert "Usage:" in done.output


def test_run_takes_the_words_of_docker():
    given = {
        "image": "i", "command": ("sh", "-c", "x"), "entrypoint": None, "hostname": "", "user": "", "workdir": "",
        "env": ("A=b",), "label": ("k=v",), "tty": False, "interactive": True, "detach": False, "network": "n",
        "remove": True, "volume": (), "read_only": False, "privileged": False, "memory": "64m",
    }  # fmt: skip
    body = body_of(given)
    assert body["Cmd"] == ["sh", "-c", "x"]
    assert (body["OpenStdin"], body["StdinOnce"], body["AttachStdin"]) == (True, True, True)
    assert body["Labels"] == {"k": "v"}
    assert body["HostConfig"]["Memory"] == 64 << 20
    assert body_of({**given, "detach": True})["StdinOnce"] is False
    with pytest.raises(click.BadParameter):
        memory("x")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('exec: "x": executable file not found in $PATH', 127),
        ("stat /x: no such file or directory", 127),
        ('exec: "/etc": permission denied', 126),
        ("No such image: x", 125),
    ],
)
def test_exit_codes_are_the_docker_clis(text, code):
    assert code_for(text) == code


def test_without_an_engine_there_is_one_line():
    done = CliRunner().invoke(main, ["-H", "unix:///nonexistent/silo.sock", "ps"])
    assert done.exit_code == 1
    assert "cannot connect to the engine at unix:///nonexistent/silo.sock" in done.output
