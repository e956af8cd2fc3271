"""The multiplexed stream: what was framed comes out again however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.errors import Corrupt
from silo.wire.stdcopy import MAX_FRAME, FrameReader, Stream, frame

FRAMES = st.lists(st.tuples(st.sampled_from(Stream), st.binary(max_size=300)), max_size=20)


def test_a_frame_is_as_docker_documents_it():
    assert frame(Stream.STDERR, b"hello") == b"\x02\x00\x00\x00\x00\x00\x00\x05hello"


@given(FRAMES, st.data())
def test_any_split_gives_the_same_frames(frames, data):
    wire = b"".join(frame(stream, payload) for stream, payload in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=10)))
    reader, out = FrameReader(), []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        out += reader.feed(wire[start:end])
    assert out == frames
    assert not reader.incomplete


@given(st.binary(min_size=1, max_size=50), st.integers(1, 57))
def test_a_stream_that_ends_early_is_noticed(payload, cut):
    wire = frame(Stream.STDOUT, payload)
    reader = FrameReader()
    assert reader.feed(wire[: min(cut, len(wire) - 1)]) == []
    assert reader.incomplete


def test_one_byte_at_a_time():
    reader, out = FrameReader(), []
    for byte in frame(Stream.STDOUT, b"ab") + frame(Stream.STDERR, b""):
        out += reader.feed(bytes([byte]))
    assert out == [(Stream.STDOUT, b"ab"), (Stream.STDERR, b"")]


@pytest.mark.parametrize("header", [b"\x04\0\0\0\0\0\0\x01", b"\x01\0\0\0" + (MAX_FRAME + 1).to_bytes(4), b"HTTP/1.1"])
def test_what_is_no_frame_is_refused_before_it_is_read(header):
    with pytest.raises(Corrupt, match="bad frame"):
        FrameReader().feed(header)
