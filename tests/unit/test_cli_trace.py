"""``silo trace``: a recorded document, printed."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import click
import pytest

from silo.cli.trace import lines

DATA = Path(__file__).parent / "data"
README = Path(__file__).parents[2] / "README.md"
DOCUMENT = json.loads((DATA / "trace-example.json").read_text())
PRINTED = (DATA / "trace-example.txt").read_text()


def printed(document, **how) -> list[str]:
    return list(lines(document, **({"colour": False} | how)))


def test_the_recorded_trace_to_the_letter():
    assert printed(DOCUMENT) == PRINTED.splitlines()


def test_the_readme_shows_that_trace():
    assert f"```\n{PRINTED}```\n" in README.read_text()


def test_colours_change_nothing_but_colour():
    coloured = printed(DOCUMENT, colour=True)
    assert [click.unstyle(line) for line in coloured] == printed(DOCUMENT)
    assert any("\x1b[" in line for line in coloured)


@pytest.mark.parametrize("columns", [80, 100, 160, 240])
def test_durations_end_at_the_right_edge(columns):
    assert {len(line) for line in printed(DOCUMENT, columns=columns) if line.endswith(" ms")} == {columns}


def test_an_object_is_never_shortened():
    narrow = "\n".join(printed(DOCUMENT, columns=80))
    for trace in DOCUMENT["traces"]:
        for span in trace["spans"]:
            for effect in span["effects"]:
                assert f"{effect['action']} {effect['kind']} {effect['object']}" in narrow


def test_every_call_is_there_once_and_in_order():
    spans = [span["name"] for trace in DOCUMENT["traces"] for span in trace["spans"]]
    starts = [span["start_ns"] for trace in DOCUMENT["traces"] for span in trace["spans"]]
    assert starts == sorted(starts)
    shown = [re.match(r"[│├└─ ]*(.+?)(?: [\w.]+=| {2,}|$)", line)[1] for line in printed(DOCUMENT) if " ms" in line]
    assert [name.split(" +")[0] for name in shown] == spans


def test_a_failure_is_red_with_its_text_below_the_call():
    failed = copy.deepcopy(DOCUMENT)
    span = next(one for one in failed["traces"][2]["spans"] if one["name"] == "crun::create")
    span["status"], span["error"] = "error", "crun create failed: no such file"
    plain = printed(failed)
    below = next(number for number, line in enumerate(plain) if "crun::create" in line)
    assert any(line.endswith("✗ crun create failed: no such file") for line in plain[below : below + 6])
    coloured = "\n".join(printed(failed, colour=True))
    assert click.style("✗ crun create failed: no such file", fg="red") in coloured
    assert click.style("crun::create", fg="red", bold=False) in coloured


def test_a_call_that_goes_on_has_no_time_yet():
    growing = copy.deepcopy(DOCUMENT)
    growing["traces"][1]["spans"][0]["duration_ns"] = 0
    row = next(line for line in printed(growing) if line.startswith("api::POST /containers/{name}/wait"))
    assert row.endswith(" ...")
    assert len(row) == 122


def test_what_was_removed_has_a_minus():
    undone = copy.deepcopy(DOCUMENT)
    undone["traces"][0]["spans"][0]["effects"] = [{"kind": "mount", "action": "-", "object": "/run/silo/volumes/x"}]
    assert printed(undone)[1] == "│  - mount /run/silo/volumes/x"


def test_no_traces_is_said():
    assert printed({"traces": []}) == ["no traces"]
