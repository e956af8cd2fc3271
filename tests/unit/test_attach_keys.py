"""Detach keys: how they are written, and how they are found in what is typed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.daemon.attach import DETACH_KEYS, DetachScanner, parse_detach_keys
from silo.errors import InvalidParameter


@pytest.mark.parametrize(
    ("text", "keys"),
    [("", b"\x10\x11"), ("ctrl-p,ctrl-q", b"\x10\x11"), ("a", b"a"), ("ctrl-@,x", b"\0x"), ("ctrl-[", b"\x1b")],
)
def test_keys(text, keys):
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-pp", "ab", "ctrl-A", ","])
def test_keys_that_are_none(text):
    with pytest.raises(InvalidParameter, match="Invalid detach keys"):
        parse_detach_keys(text)


@given(st.lists(st.sampled_from([b"\x10", b"\x11", b"a"]), max_size=30), st.integers(1, 5))
def test_everything_before_the_sequence_goes_through_however_it_is_cut(typed, step):
    data = b"".join(typed)
    scanner, out, found = DetachScanner(DETACH_KEYS), b"", False
    for start in range(0, len(data), step):
        passed, found = scanner.feed(data[start : start + step])
        out += passed
        if found:
            break
    head, sequence, _ = data.partition(DETACH_KEYS)
    assert found == bool(sequence)
    if found:
        assert out == head
    else:
        assert data.startswith(out)
        assert data[len(out) :] in {b"", b"\x10"}
