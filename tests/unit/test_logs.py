"""The container's log as conmon writes it, and as clients get it."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from silo.daemon.logs import LogFile, LogRequest, Renderer, _tail, parse_record
from silo.wire.stdcopy import Stream, frame

T = "2026-11-24T12:19:05.226512960+00:00"


def line(text: str, stream: str = "stdout", tag: str = "F") -> bytes:
    return f"{T} {stream} {tag} {text}\n".encode()


def rendered(path: Path, request: LogRequest, *, tty: bool = True) -> bytes:
    renderer = Renderer(request, tty=tty)
    log = LogFile(path)
    records = log.records() if request.tail is None else _tail(log, renderer, request.tail)
    return b"".join(renderer.render(record) for record in records if renderer.wants(record))


def test_a_last_line_without_newline_keeps_it_away(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(line("a") + line("b", tag="P"))
    assert rendered(path, LogRequest()) == b"a\nb"


def test_pieces_of_a_line_are_one_line_with_one_timestamp(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(line("a", tag="P") + line("b", tag="P") + line("c") + line("d"))
    assert rendered(path, LogRequest(timestamps=True)).splitlines() == [
        b"2026-11-24T12:19:05.226512960Z abc",
        b"2026-11-24T12:19:05.226512960Z d",
    ]


def test_tail_counts_lines_not_pieces(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(line("x") + line("a", tag="P") + line("b") + line("c"))
    assert rendered(path, LogRequest(tail=2)) == b"ab\nc\n"
    assert rendered(path, LogRequest(tail=0)) == b""


def test_streams_are_chosen_before_the_tail_is_taken(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(line("o1") + line("e1", "stderr") + line("o2") + line("e2", "stderr"))
    assert rendered(path, LogRequest(stderr=False, tail=1)) == b"o2\n"
    assert rendered(path, LogRequest(stdout=False), tty=False) == frame(Stream.STDERR, b"e1\n") + frame(
        Stream.STDERR, b"e2\n"
    )


def test_an_offset_in_the_files_times_is_understood(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"2026-11-24T14:19:05.000000001+02:00 stdout F x\n")
    assert rendered(path, LogRequest(timestamps=True)) == b"2026-11-24T12:19:05.000000001Z x\n"


def test_a_torn_line_is_left_out():
    assert parse_record(b"2026-11-24T12:19:05") is None
    assert parse_record(b"a b c d") is None


@given(st.lists(st.binary(max_size=40).filter(lambda data: b"\n" not in data), max_size=20))
def test_bytes_come_back_as_they_were_written(pieces):
    records = [parse_record(f"{T} stdout F ".encode() + piece) for piece in pieces]
    renderer = Renderer(LogRequest(), tty=True)
    assert b"".join(renderer.render(record) for record in records) == b"".join(piece + b"\n" for piece in pieces)
