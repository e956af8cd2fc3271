"""Dockerfile instructions that change an image's configuration: what ``docker import --change`` takes.

Texts of errors are those of dockerd's builder.
"""

from __future__ import annotations

import posixpath
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from silo.errors import InvalidParameter
from silo.images.times import parse_duration
from silo.images.words import expand, split_words

_INSTRUCTION: Final = re.compile(r"([A-Za-z]+)(?:\s+(.*))?", re.DOTALL)
_FLAG: Final = re.compile(r"--([a-z-]+)(?:=(\S*))?\s*")
_PORT: Final = re.compile(r"(?:[^/]*:)?(\d+)(?:-(\d+))?(?:/([A-Za-z0-9]+))?")
_MAX_PORT: Final = 65535
_MILLISECOND: Final = 1_000_000
_SHELLS: Final = {"windows": ["cmd", "/S", "/C"]}
_HEALTH_TIMES: Final = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


def apply_changes(changes: Sequence[str], os: str = "linux") -> dict[str, Any]:
    """The ``config`` section that the instructions make of an empty one.  Raises InvalidParameter."""
    lines = _lines("\n".join(changes))
    if changes and not lines:
        raise InvalidParameter("file with no instructions")
    section = _Section(_SHELLS.get(os, ["/bin/sh", "-c"]))
    for line in lines:
        match = _INSTRUCTION.fullmatch(line)
        name = match[1] if match else line.split()[0]
        verb = section.verbs.get(name.upper())
        if match is None or verb is None:
            raise InvalidParameter(f"{name.lower()} is not a valid change command")
        verb((match[2] or "").rstrip())
    return {key: value for key, value in section.config.items() if value}


def _lines(text: str) -> list[str]:
    """The instructions: comments and empty lines left out, continued lines joined."""
    result: list[str] = []
    held = ""
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line.rstrip().endswith("\\"):
            held += line.rstrip()[:-1]
            continue
        result.append((held + line).strip())
        held = ""
    return [*result, held.strip()] if held.strip() else result


class _Section:
    """The configuration in the making."""

    def __init__(self, shell: Sequence[str]) -> None:
        self.config: dict[str, Any] = {}
        self._shell = list(shell)
        self.verbs: Mapping[str, Callable[[str], None]] = {
            "CMD": self._cmd,
            "ENTRYPOINT": self._entrypoint,
            "ENV": self._env,
            "EXPOSE": self._expose,
            "HEALTHCHECK": self._healthcheck,
            "LABEL": self._label,
            "ONBUILD": self._onbuild,
            "STOPSIGNAL": self._stopsignal,
            "USER": self._user,
            "VOLUME": self._volume,
            "WORKDIR": self._workdir,
        }

    def _variables(self) -> dict[str, str]:
        return dict(entry.partition("=")[::2] for entry in self.config.get("Env", []))

    def _expand(self, text: str) -> str:
        return expand(text, self._variables())

    def _command(self, rest: str) -> list[str]:
        listed = _json_list(rest)
        return listed if listed is not None else self._shell + ([rest] if rest else [])

    def _cmd(self, rest: str) -> None:
        self.config["Cmd"] = self._command(rest)

    def _entrypoint(self, rest: str) -> None:
        self.config["Entrypoint"] = self._command(rest)

    def _env(self, rest: str) -> None:
        variables = self._variables()
        entries = {entry.partition("=")[0]: entry for entry in self.config.get("Env", [])}
        for name, value in _pairs("ENV", rest):
            key = expand(name, variables)
            if not key:
                raise InvalidParameter("ENV names can not be blank")
            entries[key] = f"{key}={expand(value, variables)}"
        self.config["Env"] = list(entries.values())

    def _label(self, rest: str) -> None:
        for name, value in _pairs("LABEL", rest):
            key = self._expand(name)
            if not key:
                raise InvalidParameter("LABEL names can not be blank")
            self.config.setdefault("Labels", {})[key] = self._expand(value)

    def _expose(self, rest: str) -> None:
        words = [word for raw in split_words(rest) for word in self._expand(raw).split()]
        if not words:
            raise InvalidParameter("EXPOSE requires at least one argument")
        for word in words:
            for port in exposed_ports(word):
                self.config.setdefault("ExposedPorts", {})[port] = {}

    def _volume(self, rest: str) -> None:
        listed = _json_list(rest)
        paths = [self._expand(word) for word in (split_words(rest) if listed is None else listed)]
        if not paths:
            raise InvalidParameter("VOLUME requires at least one argument")
        for path in paths:
            if not path.strip():
                raise InvalidParameter("VOLUME specified can not be an empty string")
            self.config.setdefault("Volumes", {})[path.strip()] = {}

    def _user(self, rest: str) -> None:
        self.config["User"] = self._expand(_one("USER", rest))

    def _workdir(self, rest: str) -> None:
        path = posixpath.join("/", self.config.get("WorkingDir", ""), self._expand(_one("WORKDIR", rest)))
        self.config["WorkingDir"] = "/" + posixpath.normpath(path).lstrip("/")

    def _stopsignal(self, rest: str) -> None:
        self.config["StopSignal"] = _signal(self._expand(_one("STOPSIGNAL", rest)))

    def _onbuild(self, rest: str) -> None:
        if not rest:
            raise InvalidParameter("ONBUILD requires at least one argument")
        trigger = rest.split()[0].upper()
        if trigger == "ONBUILD":
            raise InvalidParameter("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
        if trigger in {"FROM", "MAINTAINER"}:
            raise InvalidParameter(f"{trigger} isn't allowed as an ONBUILD trigger")
        self.config.setdefault("OnBuild", []).append(rest)

    def _healthcheck(self, rest: str) -> None:
        check: dict[str, Any] = {}
        while match := _FLAG.match(rest):
            _health_flag(check, match[1], match[2] or "")
            rest = rest[match.end() :]
        kind, _, command = rest.partition(" ")
        if not kind:
            raise InvalidParameter("HEALTHCHECK requires at least one argument")
        command = command.strip()
        if kind.upper() == "NONE":
            if command:
                raise InvalidParameter("HEALTHCHECK NONE takes no arguments")
            check = {"Test": ["NONE"]}
        elif kind.upper() == "CMD":
            if not command:
                raise InvalidParameter("Missing command after HEALTHCHECK CMD")
            listed = _json_list(command)
            check = {"Test": ["CMD-SHELL", command] if listed is None else ["CMD", *listed], **check}
        else:
            raise InvalidParameter(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
        self.config["Healthcheck"] = check


def _health_flag(check: dict[str, Any], flag: str, value: str) -> None:
    if flag in _HEALTH_TIMES:
        duration = parse_duration(value)
        if 0 < duration < _MILLISECOND or duration < 0:
            raise InvalidParameter(f'Interval "{flag}" cannot be less than 1ms')
        check[_HEALTH_TIMES[flag]] = duration
    elif flag == "retries":
        if not value.isdecimal():
            raise InvalidParameter(f'strconv.ParseInt: parsing "{value}": invalid syntax')
        check["Retries"] = int(value)
    else:
        raise InvalidParameter(f"Unknown flag: {flag}")


def exposed_ports(word: str) -> list[str]:
    """``80``, ``80-82/udp`` or ``8080:80`` as container ports ``80/tcp`` ...  Raises InvalidParameter."""
    match = _PORT.fullmatch(word)
    if match is None:
        raise InvalidParameter(f"Invalid containerPort: {word}")
    first, last, protocol = int(match[1]), int(match[2] or match[1]), (match[3] or "tcp").lower()
    if protocol not in {"tcp", "udp", "sctp"}:
        raise InvalidParameter(f"Invalid proto: {protocol}")
    if not first <= last <= _MAX_PORT:
        raise InvalidParameter(f"Invalid containerPort: {word.partition('/')[0]}")
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def _pairs(verb: str, rest: str) -> list[tuple[str, str]]:
    """``name=value ...`` or, in the old form, ``name value``."""
    words = split_words(rest)
    if not words:
        raise InvalidParameter(f"{verb} requires at least one argument")
    if "=" not in words[0]:
        name, _, value = rest.partition(" ")
        if not value.strip():
            raise InvalidParameter(f"{verb} must have two arguments")
        return [(name, value.strip())]
    for word in words:
        if "=" not in word:
            raise InvalidParameter(f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value')
    return [(name, value) for name, _, value in (word.partition("=") for word in words)]


def _one(verb: str, rest: str) -> str:
    if not rest:
        raise InvalidParameter(f"{verb} requires exactly one argument")
    return rest


def _json_list(rest: str) -> list[str] | None:
    """The argument as a JSON array; None when it is not one, and so a line for the shell."""
    if not rest.startswith("["):
        return None
    try:
        value = msgspec.json.decode(rest)
    except msgspec.MsgspecError:
        return None
    if not isinstance(value, list):
        return None
    if not all(isinstance(item, str) for item in value):
        raise InvalidParameter("when using JSON array syntax, arrays must be comprised of strings only")
    return value


def _signal(text: str) -> str:
    """``text`` when it names a signal of Linux.  Raises InvalidParameter."""
    name = text.upper().removeprefix("SIG")
    if text.isdecimal():
        known = 0 < int(text) < signal.NSIG
    else:
        known = f"SIG{name}" in signal.Signals.__members__ or re.fullmatch(r"RTM(IN\+|AX-)\d{1,2}", name) is not None
    if not known:
        raise InvalidParameter(f"Invalid signal: {text}")
    return text
