"""What Go's standard library says about input it cannot read, because clients know dockerd's sentences.

The sentences are those of ``encoding/json`` and ``mime``; the tests hold what dockerd itself answered.
"""

from __future__ import annotations

import re
from typing import Final

MAX_DEPTH: Final = 10_000
"""Nesting that Go's decoder takes."""

_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_PLAIN: Final = re.compile(rb'(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*')
_DIGITS: Final = re.compile(rb"[0-9]*")
_HEX: Final = re.compile(rb"[0-9a-fA-F]*")
_LITERALS: Final = {ord("t"): b"true", ord("f"): b"false", ord("n"): b"null"}

_WORD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_FIRST: Final = re.compile(_WORD)
_PARAMETER: Final = re.compile(rf'\s*;\s*{_WORD}\s*=\s*(?:{_WORD}|"(?:[^"\\]|\\.)*")')


class _Fault(Exception):
    """The sentence about the first byte that is wrong."""


def json_fault(data: bytes) -> str | None:
    """Why ``data`` is not one JSON value; None when it is.  Takes about a microsecond a byte."""
    start = _skip(data, 0)
    if start == len(data):
        return "invalid JSON: got EOF while reading request body"
    try:
        end = _skip(data, _scan(data, start))
    except _Fault as fault:
        return f"invalid JSON: {fault}"
    return None if end == len(data) else "unexpected content after JSON"


def _skip(data: bytes, at: int) -> int:
    found = _SPACE.match(data, at)
    return found.end() if found else at


def _scan(data: bytes, at: int) -> int:
    """The end of the value at ``at``: values in arrays and objects are followed on a stack, not by recursion."""
    open_: list[int] = []
    while True:
        at = _skip(data, at)
        first = _byte(data, at)
        if first in b"[{":
            open_.append(first)
            if len(open_) > MAX_DEPTH:
                raise _bad(data, at, "exceeded max depth")
            at = _skip(data, at + 1)
            if _byte(data, at) != first + 2:  # "]" and "}" are two behind "[" and "{"
                at = _key(data, at) if first == ord("{") else at
                continue
            open_.pop()
            at += 1
        else:
            at = _scalar(data, at)
        while open_:
            at = _skip(data, at)
            follows = _byte(data, at)
            if follows == ord(","):
                at = _key(data, _skip(data, at + 1)) if open_[-1] == ord("{") else at + 1
                break
            if follows != open_[-1] + 2:
                raise _bad(data, at, "after object key:value pair" if open_[-1] == ord("{") else "after array element")
            open_.pop()
            at += 1
        else:
            return at


def _key(data: bytes, at: int) -> int:
    if _byte(data, at) != ord('"'):
        raise _bad(data, at, "looking for beginning of object key string")
    at = _skip(data, _string(data, at))
    if _byte(data, at) != ord(":"):
        raise _bad(data, at, "after object key")
    return at + 1


def _scalar(data: bytes, at: int) -> int:
    first = data[at]
    if first == ord('"'):
        return _string(data, at)
    if first in b"-0123456789":
        return _number(data, at)
    word = _LITERALS.get(first)
    if word is None:
        raise _bad(data, at, "looking for beginning of value")
    for offset, wanted in enumerate(word):
        if _byte(data, at + offset) != wanted:
            raise _bad(data, at + offset, f"in literal {word.decode()} (expecting {chr(wanted)!r})")
    return at + len(word)


def _string(data: bytes, at: int) -> int:
    at = _run(_PLAIN, data, at + 1)
    stop = _byte(data, at)
    if stop == ord('"'):
        return at + 1
    if stop != ord("\\"):
        raise _bad(data, at, "in string literal")
    if _byte(data, at + 1) != ord("u"):
        raise _bad(data, at + 1, "in string escape code")
    raise _bad(data, _run(_HEX, data, at + 2), "in \\u hexadecimal character escape")


def _number(data: bytes, at: int) -> int:
    if data[at] == ord("-"):
        at += 1
    if _byte(data, at) not in b"0123456789":
        raise _bad(data, at, "in numeric literal")
    at = at + 1 if data[at] == ord("0") else _run(_DIGITS, data, at)
    if data[at : at + 1] == b".":
        at = _digits(data, at + 1, "after decimal point in numeric literal")
    if data[at : at + 1] in {b"e", b"E"}:
        signed = data[at + 1 : at + 2] in {b"+", b"-"}
        at = _digits(data, at + 1 + signed, "in exponent of numeric literal")
    return at


def _digits(data: bytes, at: int, where: str) -> int:
    if _byte(data, at) not in b"0123456789":
        raise _bad(data, at, where)
    return _run(_DIGITS, data, at)


def _run(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
    found = pattern.match(data, at)
    return found.end() if found else at


def _byte(data: bytes, at: int) -> int:
    if at >= len(data):
        raise _Fault("unexpected EOF")
    return data[at]


def _bad(data: bytes, at: int, where: str) -> _Fault:
    return _Fault(f"invalid character {_quoted(_byte(data, at))} {where}")


def _quoted(byte: int) -> str:
    """One byte as Go quotes it: read as a code point, escaped when it cannot be printed."""
    char = chr(byte)
    if char == "'":
        return r"'\''"
    short = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v", "\\": r"\\"}
    if char in short:
        return f"'{short[char]}'"
    if char.isprintable():
        return f"'{char}'"
    return f"'\\x{byte:02x}'" if byte < 0x80 else f"'\\u{byte:04x}'"


def media_type(text: str) -> str:
    """The media type of a Content-Type field in lower case.  Raises ValueError with the sentence of Go's ``mime``."""
    base, _, _ = text.partition(";")
    kind = base.strip().lower()
    first = _FIRST.match(kind)
    if first is None:
        raise ValueError("mime: no media type")
    rest = kind[first.end() :]
    if rest and not rest.startswith("/"):
        raise ValueError("mime: expected slash after first token")
    second = _FIRST.match(rest, 1)
    if rest and second is None:
        raise ValueError("mime: expected token after slash")
    if second is not None and second.end() != len(rest):
        raise ValueError("mime: unexpected content after media subtype")
    at = len(base)
    while found := _PARAMETER.match(text, at):
        at = found.end()
    if text[at:].strip() not in {"", ";"}:
        raise ValueError("mime: invalid media parameter")
    return kind
