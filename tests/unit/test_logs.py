"""The container's log as conmon writes it, and as clients get it."""

from __future__ import annotations

import gzip
import os
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.daemon import logfile
from silo.daemon.logconfig import Rotation
from silo.daemon.logfile import BEGINNING, LogFiles, Reader, last_lines
from silo.daemon.logs import LogRequest, Renderer, details_of
from silo.daemon.rotation import prepare
from silo.wire.stdcopy import FrameReader, Stream, frame

T = "2026-11-24T12:19:05.226512960+00:00"


def line(text: str, stream: str = "stdout", tag: str = "F", at: str = T) -> bytes:
    return f"{at} {stream} {tag} {text}\n".encode()


def rendered(path: Path, request: LogRequest, *, tty: bool = True, details: bytes = b"") -> bytes:
    renderer = Renderer(request, tty=tty, details=details)
    files = LogFiles(path)
    start = BEGINNING
    if request.tail is not None:
        start, starts = last_lines(files, request.tail, renderer.wants)
        renderer.start_at(starts)
    elif request.since:
        start = files.since(request.since)
    out = b""
    with closing(Reader(files, start)) as reader:
        while (found := reader.read())[1] and not renderer.finished:
            out += renderer.render(*found)
    return out


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "container.log"


def test_a_last_line_without_newline_keeps_it_away(path):
    path.write_bytes(line("a") + line("b", tag="P"))
    assert rendered(path, LogRequest()) == b"a\nb"


def test_pieces_of_a_line_are_one_line_with_one_head(path):
    path.write_bytes(line("a", tag="P") + line("b", tag="P") + line("c") + line("d"))
    assert rendered(path, LogRequest(timestamps=True)).splitlines() == [
        b"2026-11-24T12:19:05.226512960Z abc",
        b"2026-11-24T12:19:05.226512960Z d",
    ]
    assert rendered(path, LogRequest(timestamps=True, details=True), details=b"k=v").splitlines() == [
        b"2026-11-24T12:19:05.226512960Z k=v abc",
        b"2026-11-24T12:19:05.226512960Z k=v d",
    ]
    assert rendered(path, LogRequest(details=True)) == b" abc\n d\n"


def test_details_are_one_word():
    assert details_of({"b": "2 3", "a": "x=y"}) == b"a=x%3Dy,b=2+3"


def test_tail_counts_lines_not_pieces(path):
    path.write_bytes(line("x") + line("a", tag="P") + line("b") + line("c"))
    assert rendered(path, LogRequest(tail=2)) == b"ab\nc\n"
    assert rendered(path, LogRequest(tail=0)) == b""
    assert rendered(path, LogRequest(tail=9)) == b"x\nab\nc\n"


def test_a_tail_has_the_whole_of_a_line_whose_pieces_lie_between_others(path):
    path.write_bytes(
        line("no") + line("a", tag="P") + line("e1", "stderr") + line("b", tag="P") + line("e2", "stderr") + line("c")
    )
    assert rendered(path, LogRequest(tail=1)) == b"abc\n"
    assert rendered(path, LogRequest(tail=2)) == b"abe2\nc\n"


def test_streams_are_chosen_before_the_tail_is_taken(path):
    path.write_bytes(line("o1") + line("e1", "stderr") + line("o2") + line("e2", "stderr"))
    assert rendered(path, LogRequest(stderr=False, tail=1)) == b"o2\n"
    assert rendered(path, LogRequest(stdout=False), tty=False) == frame(Stream.STDERR, b"e1\n") + frame(
        Stream.STDERR, b"e2\n"
    )


def test_since_and_until(path):
    moments = [f"2026-11-24T12:19:0{second}.000000000+00:00" for second in range(5)]
    path.write_bytes(b"".join(line(str(number), at=at) for number, at in enumerate(moments)))
    base = 1795522740 * 10**9
    assert rendered(path, LogRequest(since=base + 2 * 10**9)) == b"2\n3\n4\n"
    assert rendered(path, LogRequest(since=base + 1, until=base + 2 * 10**9)) == b"1\n2\n"
    assert rendered(path, LogRequest(until=base + 3 * 10**9, tail=1)) == b"3\n"


def test_an_offset_in_the_files_times_is_understood(path):
    path.write_bytes(b"2026-11-24T14:19:05.000000001+02:00 stdout F x\n")
    assert rendered(path, LogRequest(timestamps=True)) == b"2026-11-24T12:19:05.000000001Z x\n"


def test_a_torn_line_is_left_out_and_the_next_run_begins_a_line(path):
    path.write_bytes(line("a") + b"2026-11-24T12:19:05")
    assert rendered(path, LogRequest()) == b"a\n"
    LogFiles(path).settle()
    path.write_bytes(path.read_bytes() + line("b"))
    assert rendered(path, LogRequest()) == b"a\nb\n"
    assert rendered(path, LogRequest(tail=2)) == b"a\nb\n"


PIECES = st.lists(
    st.tuples(
        st.sampled_from(["stdout", "stderr"]),
        st.sampled_from("FP"),
        st.binary(max_size=60).filter(lambda data: b"\n" not in data),
    ),
    max_size=40,
)


@given(PIECES, st.integers(1, 200), st.data())
def test_whatever_is_written_comes_back_across_files_and_blocks(tmp_path_factory, pieces, block, data):
    """Through blocks of any size and files cut anywhere, all of it and any tail of it, as plain Python has it."""
    path = tmp_path_factory.mktemp("log") / "container.log"
    written = [b"%s %s %s %s\n" % (T.encode(), s.encode(), tag.encode(), text) for s, tag, text in pieces]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=3)))
    parts = [written[a:b] for a, b in zip([0, *cuts], [*cuts, len(written)], strict=True)]
    for number, part in enumerate(parts[:-1], 1):
        name = path.with_name(f"container.log.{number}")
        if number % 2:
            name.with_name(name.name + ".gz").write_bytes(gzip.compress(b"".join(part)))
        else:
            name.write_bytes(b"".join(part))
    path.write_bytes(b"".join(parts[-1]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logfile, "BLOCK", block)
        whole = b"".join(text + (b"\n" if tag == "F" else b"") for _, tag, text in pieces)
        assert rendered(path, LogRequest()) == whole
        frames = FrameReader().feed(rendered(path, LogRequest(), tty=False))
        assert b"".join(body for _, body in frames) == whole
        count = data.draw(st.integers(0, len(pieces) + 1))
        wanted = _tail(pieces, count)
        frames = FrameReader().feed(rendered(path, LogRequest(tail=count), tty=False))
        assert [(stream.name.lower(), body) for stream, body in frames] == wanted


def _tail(pieces: list[tuple[str, str, bytes]], count: int) -> list[tuple[str, bytes]]:
    """The pieces of the last ``count`` lines, in the order of the lines' ends."""
    lines: list[list[int]] = []
    unfinished: dict[str, list[int]] = {}
    for index, (stream, tag, _) in enumerate(pieces):
        unfinished.setdefault(stream, []).append(index)
        if tag == "F":
            lines.append(unfinished.pop(stream))
    lines += sorted(unfinished.values(), key=lambda one: one[-1])
    lines.sort(key=lambda one: one[-1])
    kept = sorted(index for one in (lines[-count:] if count else []) for index in one)
    return [(pieces[i][0], pieces[i][2] + (b"\n" if pieces[i][1] == "F" else b"")) for i in kept]


def test_a_follower_goes_on_in_the_next_file(path):
    path.write_bytes(line("a"))
    files = LogFiles(path)
    with closing(Reader(files)) as reader:
        assert reader.read()[1] == line("a")
        assert not reader.grown()
        files.retire()
        with path.open("ab") as writer:  # conmon has not looked yet
            writer.write(line("b"))
        assert reader.read()[1] == line("b")
        _begin(path, line("c"))
        assert reader.grown()
        assert reader.read()[1] == line("c")
        files.tidy(2, compress=True)
        assert rendered(path, LogRequest()) == b"a\nb\nc\n"
        assert reader.read()[1] == b""


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_a_follower_misses_nothing_over_many_rotations(path, keep):
    path.write_bytes(line("0"))
    files = LogFiles(path)
    seen = b""
    with closing(Reader(files)) as reader:
        for number in range(1, 8):
            seen += reader.read()[1]
            files.retire()
            _begin(path, line(str(number)))
            files.tidy(keep, compress=True)
            assert len(files.earlier()) == min(number, keep - 1)
        while more := reader.read()[1]:
            seen += more
    assert seen == b"".join(line(str(number)) for number in range(8))


def _begin(path: Path, text: bytes) -> None:
    """What conmon does when it is told to."""
    path.with_name("container.log.tmp").write_bytes(text)
    path.with_name("container.log.tmp").rename(path)


def test_a_rotation_cut_short_shows_every_line_once(path):
    path.write_bytes(line("a"))
    files = LogFiles(path)
    files.retire()
    assert rendered(path, LogRequest()) == rendered(path, LogRequest(tail=5)) == b"a\n"
    inode = files.retire()  # again, as the next silod does
    assert [*files.earlier()] == [1]
    assert inode == path.stat().st_ino
    files.settle()  # or the container ended
    assert not files.earlier()


def test_compression_keeps_the_time_and_can_be_cut_short(path):
    old = path.with_name("container.log.1")
    old.write_bytes(line("a"))
    os.utime(old, (1000, 1000))
    path.with_name("container.log.1.gz.half").write_bytes(b"half")
    path.write_bytes(line("b"))
    files = LogFiles(path)
    files.tidy(5, compress=True)
    assert [name.name for name in files.earlier().values()] == ["container.log.1.gz"]
    assert files.earlier()[1].stat().st_mtime == 1000
    assert files.since(2000 * 10**9).number == 2
    old.write_bytes(line("a"))  # the crash came before it was deleted
    assert rendered(path, LogRequest()) == b"a\nb\n"
    files.tidy(5, compress=True)
    assert sorted(one.name for one in path.parent.iterdir()) == ["container.log", "container.log.1.gz"]


def test_a_log_that_has_its_size_is_rotated_before_the_next_run(path):
    path.write_bytes(line("a") * 100)
    prepare(LogFiles(path), Rotation(1000, 2))
    assert not path.exists()
    path.write_bytes(line("b"))
    assert rendered(path, LogRequest()) == b"a\n" * 100 + b"b\n"


def test_a_log_that_is_not_there_is_empty(path):
    assert rendered(path, LogRequest()) == rendered(path, LogRequest(tail=3)) == b""


def test_the_tail_of_a_big_log_reads_little(path):
    path.write_bytes(line("x" * 80) * 200_000)
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
    start, _ = last_lines(LogFiles(path), 10, lambda _: True)
    assert size - start.offset == 10 * len(line("x" * 80))
