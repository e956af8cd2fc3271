"""The words of a Dockerfile instruction: quotes, escapes and variables, without I/O.

Rules are those of Docker's builder: single quotes keep everything, double quotes keep spaces, a backslash takes the
next character as it is, and ``$name``, ``${name}``, ``${name:-word}``, ``${name:+word}`` stand for variables.
"""

from __future__ import annotations

from collections.abc import Mapping

from silo.errors import InvalidParameter


def split_words(text: str) -> list[str]:
    """The words between unquoted blanks, quotes and escapes still in them."""
    words: list[str] = []
    word, quote, at = "", "", 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "\\" and quote != "'" and at < len(text):
            word += char + text[at]
            at += 1
        elif quote:
            word += char
            quote = "" if char == quote else quote
        elif char in "\"'":
            word += char
            quote = char
        elif char.isspace():
            words += [word] if word else []
            word = ""
        else:
            word += char
    return [*words, word] if word else words


def expand(text: str, variables: Mapping[str, str]) -> str:
    """``text`` without quotes and escapes, variables replaced.  Raises InvalidParameter on what is not closed."""
    return _Expander(text, variables).run("")


class _Expander:
    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        self._text, self._variables, self._at = text, variables, 0

    def run(self, stop: str) -> str:
        """Up to an unquoted ``stop``, which is taken too; up to the end when there is none to look for."""
        result = ""
        while self._at < len(self._text):
            char = self._next()
            if char == stop:
                return result
            if char == "'":
                result += self._single()
            elif char == '"':
                result += self._double()
            elif char == "$":
                result += self._variable()
            elif char == "\\":
                result += self._next() if self._at < len(self._text) else char
            else:
                result += char
        if stop:
            raise InvalidParameter(f"failed to process {self._text!r}: syntax error: missing '{stop}'")
        return result

    def _next(self) -> str:
        self._at += 1
        return self._text[self._at - 1]

    def _single(self) -> str:
        end = self._text.find("'", self._at)
        if end < 0:
            raise self._unterminated("single")
        inside, self._at = self._text[self._at : end], end + 1
        return inside

    def _double(self) -> str:
        result = ""
        while self._at < len(self._text):
            char = self._next()
            if char == '"':
                return result
            if char == "$":
                result += self._variable()
            elif char == "\\" and self._text[self._at : self._at + 1] in {'"', "$", "\\"}:
                result += self._next()
            else:
                result += char
        raise self._unterminated("double")

    def _variable(self) -> str:
        if self._text[self._at : self._at + 1] != "{":
            name = self._name()
            return self._variables.get(name, "") if name else "$"
        self._at += 1
        name = self._name()
        operator = self._next() if self._at < len(self._text) else ""
        if operator == ":" and self._at < len(self._text):
            operator = self._next()
        value = self._variables.get(name, "")
        if name and operator == "}":
            return value
        if name and operator in {"-", "+"}:
            word = self.run("}")
            return (value or word) if operator == "-" else (word if value else "")
        raise InvalidParameter(f"failed to process {self._text!r}: unsupported modifier in substitution")

    def _name(self) -> str:
        start = self._at
        while self._at < len(self._text) and (self._text[self._at].isalnum() or self._text[self._at] == "_"):
            self._at += 1
        return self._text[start : self._at]

    def _unterminated(self, kind: str) -> InvalidParameter:
        return InvalidParameter(
            f"failed to process {self._text!r}: unexpected end of statement while looking for matching {kind}-quote"
        )
