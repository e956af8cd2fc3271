"""Sentences about bad input, compared with those that dockerd 20.10 gave for the same bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.wire.gotext import json_fault, media_type

DOCKERD = [
    (b'{"Name":', "unexpected EOF"),
    (b'{"Name":"abc', "unexpected EOF"),
    (b"{", "unexpected EOF"),
    (b'{"a":-', "unexpected EOF"),
    (b"x", "invalid character 'x' looking for beginning of value"),
    (b"{'a':1}", r"invalid character '\'' looking for beginning of object key string"),
    (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
    (b'{"a":01}', "invalid character '1' after object key:value pair"),
    (b'{"a":tru}', "invalid character '}' in literal true (expecting 'e')"),
    (b'{"a":"\n"}', r"invalid character '\n' in string literal"),
    (b'{"a":"\\x"}', "invalid character 'x' in string escape code"),
    (b'{"a":"\\u12x"}', r"invalid character 'x' in \u hexadecimal character escape"),
    (b'{"a" 1}', "invalid character '1' after object key"),
    (b'{"a":[1 2]}', "invalid character '2' after array element"),
    (b'{"a":-x}', "invalid character 'x' in numeric literal"),
    (b'{"a":1.x}', "invalid character 'x' after decimal point in numeric literal"),
    (b'{"a":1ex}', "invalid character 'x' in exponent of numeric literal"),
    (b'{"a":1 "b"}', "invalid character '\"' after object key:value pair"),
    (b"\xef\xbb\xbf{}", "invalid character 'ï' looking for beginning of value"),
    (b'{"a":\xe9}', "invalid character 'é' looking for beginning of value"),
    (b'{"a":' + b"[" * 20000, "invalid character '[' exceeded max depth"),
    (b"", "got EOF while reading request body"),
    (b"  \n", "got EOF while reading request body"),
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(("data", "sentence"), DOCKERD)
def test_json_faults_as_dockerd_names_them(data, sentence):
    assert json_fault(data) == f"invalid JSON: {sentence}"


@pytest.mark.parametrize("data", [b"{} {}", b"{}x", b"1 2", b"[]]"])
def test_more_than_one_value(data):
    assert json_fault(data) == "unexpected content after JSON"


@given(VALUES, st.sampled_from([None, 2]), st.booleans())
def test_json_has_no_fault(value, indent, ascii_only):
    assert json_fault(json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "replace")) is None


@given(VALUES, st.data())
def test_a_fault_is_found_exactly_where_there_is_one(value, data):
    text = json.dumps(value)
    at = data.draw(st.integers(0, len(text)))
    changed = text[:at] + data.draw(st.sampled_from('{}[]:,"\\0e-.tx ')) + text[at + data.draw(st.booleans()) :]
    try:
        json.loads(changed)
        valid = True
    except ValueError:
        valid = False
    assert (json_fault(changed.encode()) is None) == valid


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("application/json", "application/json"),
        ("Application/JSON", "application/json"),
        ("application/json; charset=utf-8", "application/json"),
        ('application/json;a="b;\\"c" ; d=e;', "application/json"),
        ("text", "text"),
    ],
)
def test_media_types(text, kind):
    assert media_type(text) == kind


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "mime: no media type"),
        (";;;", "mime: no media type"),
        ("a b", "mime: expected slash after first token"),
        ("a/", "mime: expected token after slash"),
        ("a/b c", "mime: unexpected content after media subtype"),
        ("application/json; x", "mime: invalid media parameter"),
    ],
)
def test_what_is_no_media_type(text, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        media_type(text)
