"""A container's traces as a tree: each call with its time, and below it what it made (+) and removed (-).  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import click

WIDTH: Final = 122
"""Columns when there is no terminal to ask."""
NARROWEST: Final = 80
_HIDDEN: Final = {"http.method", "http.path", "argv"}
_ID: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


def lines(document: Mapping[str, Any], *, colour: bool, columns: int = WIDTH) -> Iterator[str]:
    """The lines of ``GET /silo/traces/{container}``; with ``colour`` for a terminal.

    Durations end at ``columns`` (80 at least); an effect's object is never shortened, so that it can be looked up.
    """
    traces = document["traces"]
    if not traces:
        yield "no traces"
        return
    first = min(trace["spans"][0]["start_ns"] for trace in traces)
    for number, trace in enumerate(traces):
        if number:
            yield ""
        yield from _trace(trace, first, _Look(max(columns, NARROWEST), colour=colour))


class _Look:
    """How wide, and with which colours."""

    def __init__(self, columns: int, *, colour: bool) -> None:
        self.columns = columns
        self._colour = colour

    def __call__(self, text: str, **style: Any) -> str:
        """The text in a style, or plain when no colours are wanted."""
        return click.style(text, **style) if self._colour else text


def _trace(trace: Mapping[str, Any], first: int, look: _Look) -> Iterator[str]:
    below: dict[str | None, list[Mapping[str, Any]]] = {}
    for span in trace["spans"]:
        below.setdefault(span["parent_id"], []).append(span)
    for root in below.get(None, trace["spans"][:1]):
        after = (root["start_ns"] - first) / 1e6
        yield _row(root, "", look, note=f"+{after:.1f} ms")
        yield from _children(root, below, "", look)


def _children(
    span: Mapping[str, Any], below: Mapping[str | None, Sequence[Mapping[str, Any]]], indent: str, look: _Look
) -> Iterator[str]:
    children = below.get(span["span_id"], [])
    rail = "│  " if children else "   "
    for effect in span["effects"]:
        mark = look(effect["action"], fg="green" if effect["action"] == "+" else "yellow", bold=True)
        yield f"{indent}{rail}{mark} {effect['kind']} {effect['object']}"
    if span["error"]:
        yield f"{indent}{rail}" + look(f"✗ {span['error']}", fg="red")
    for position, child in enumerate(children):
        last = position == len(children) - 1
        yield _row(child, indent + ("└─ " if last else "├─ "), look)
        yield from _children(child, below, indent + ("   " if last else "│  "), look)


def _row(span: Mapping[str, Any], indent: str, look: _Look, note: str = "") -> str:
    """One call: indentation, name, what it was called with, and its duration on the right."""
    name = span["name"]
    duration = f"{span['duration_ns'] / 1e6:9.2f} ms" if span["duration_ns"] else f"{'...':>12}"
    room = look.columns - len(indent) - len(name) - len(note) - len(duration) - 2
    attributes = _attributes(span["attributes"], room - 1)
    padding = max(1, room - len(attributes))
    bold = "hcsshim::" in name or not indent
    colour = "red" if span["status"] == "error" else "cyan" if "hcsshim::" in name else None
    shown = look(name, fg=colour, bold=bold)
    return f"{indent}{shown} {look(attributes, dim=True)}{' ' * padding}{look(note, dim=True)} {duration}".rstrip()


def _attributes(attributes: Mapping[str, Any], room: int) -> str:
    """As many attributes as there is room for, ids by their first twelve digits."""
    shown = [
        f"{key.removeprefix('http.')}={_ID.sub(lambda found: found[0][:12], str(value))}"
        for key, value in attributes.items()
        if key not in _HIDDEN and value is not None
    ]
    text = " ".join(shown)
    if len(text) <= room:
        return text
    return f"{text[: room - 1]}…" if room > 1 else ""
