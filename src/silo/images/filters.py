"""The filters of ``docker images``, with dockerd's rules."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from silo.errors import InvalidParameter
from silo.images.records import Image
from silo.images.references import Reference
from silo.images.times import nanoseconds, parse_moment

Filters = Mapping[str, Sequence[str]]

_KNOWN: Final = frozenset({"dangling", "label", "before", "since", "reference", "until"})
_TRUE: Final = frozenset({"1", "true"})
_FALSE: Final = frozenset({"0", "false"})
_NEVER: Final = -(1 << 62)


@dataclass(frozen=True, slots=True)
class Selection:
    """Filters, checked and ready."""

    dangling: bool | None
    labels: tuple[str, ...]
    patterns: tuple[re.Pattern[str], ...]
    made_after: int
    made_before: int

    def takes(self, image: Image) -> bool:
        """Whether the image passes, leaving its names aside."""
        made = nanoseconds(image.config.created) or _NEVER + 1
        labels = image.config.config.labels
        return self.made_after < made < self.made_before and all(_has_label(labels, wanted) for wanted in self.labels)

    def takes_name(self, name: Reference) -> bool:
        """Whether the name passes."""
        return not self.patterns or any(
            pattern.fullmatch(name.familiar) or pattern.fullmatch(name.familiar_name) for pattern in self.patterns
        )


def selection(filters: Filters, resolve: Callable[[str], Image]) -> Selection:
    """Check the filters.  Raises InvalidParameter with dockerd's texts, NotFound for an image they name."""
    for key in filters:
        if key not in _KNOWN:
            raise InvalidParameter(f"invalid filter '{key}'")
    before = [nanoseconds(resolve(text).config.created) or _NEVER for text in filters.get("before", ())]
    until = [parse_moment(text, time.time_ns()) for text in filters.get("until", ())]
    since = [nanoseconds(resolve(text).config.created) or _NEVER for text in filters.get("since", ())]
    return Selection(
        dangling=_dangling(filters.get("dangling", ())),
        labels=tuple(filters.get("label", ())),
        patterns=tuple(compile_pattern(text) for text in filters.get("reference", ())),
        made_after=max(since, default=_NEVER),
        made_before=min([*before, *until], default=-_NEVER),
    )


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A pattern of Go's ``path.Match`` as an expression: ``*`` and ``?`` stop at ``/``.  Raises InvalidParameter."""
    result, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            result += "[^/]*"
        elif char == "?":
            result += "[^/]"
        elif char == "[":
            piece, at = _character_class(pattern, at)
            result += piece
        elif char == "\\":
            if at == len(pattern):
                raise InvalidParameter("syntax error in pattern")
            result += re.escape(pattern[at])
            at += 1
        else:
            result += re.escape(char)
    return re.compile(result)


def _character_class(pattern: str, at: int) -> tuple[str, int]:
    """``[...]`` from behind its bracket on, and where it ends."""
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges, first = "", True
    while first or pattern[at : at + 1] != "]":
        first = False
        low, at = _class_member(pattern, at)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _class_member(pattern, at + 1)
        if low <= high:
            ranges += f"{re.escape(low)}-{re.escape(high)}"
    if not ranges:  # only ranges that are upside down
        return ("." if negated else "(?!)"), at + 1
    return f"[{'^' if negated else ''}{ranges}]", at + 1


def _class_member(pattern: str, at: int) -> tuple[str, int]:
    char = pattern[at : at + 1]
    if char == "\\":
        at += 1
        char = pattern[at : at + 1]
    elif char in {"-", "]"}:
        char = ""
    if not char:
        raise InvalidParameter("syntax error in pattern")
    return char, at + 1


def _dangling(values: Sequence[str]) -> bool | None:
    if not values:
        return None
    wanted = set(values)
    if wanted & _TRUE and not wanted & _FALSE:
        return True
    if wanted & _FALSE and not wanted & _TRUE:
        return False
    raise InvalidParameter(f"invalid filter 'dangling=[{' '.join(values)}]'")


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, sep, value = wanted.partition("=")
    return key in labels and (not sep or labels[key] == value)
