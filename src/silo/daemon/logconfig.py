"""Log drivers and their options: what is refused at create, what at start, and what an option comes to.

As in dockerd, names of drivers and options are judged when a container is created, values when it starts.  conmon
writes the file of every driver but ``none`` (docs/logs.md); a driver decides what becomes of that file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from silo.daemon.container import Container
from silo.daemon.settings import environment, parse_size
from silo.errors import HostFault, InvalidParameter
from silo.ids import short
from silo.schema.engine import LogConfig
from silo.schema.hcs import Journal

DRIVERS: Final = ("journald", "json-file", "local")
"""As ``docker info`` lists them; ``none`` is not one."""
JOURNAL_SOCKET: Final = "/run/systemd/journal/socket"
_ATTRIBUTES: Final = frozenset({"env", "env-regex", "labels", "labels-regex", "tag"})
_FILE: Final = frozenset({"max-file", "max-size", "compress"})
_OPTIONS: Final = {"json-file": _FILE | _ATTRIBUTES, "local": _FILE | _ATTRIBUTES, "journald": _ATTRIBUTES}
_UNKNOWN: Final = {
    "json-file": "unknown log opt '{}' for json-file log driver",
    "local": "unknown log opt '{}' for log driver local",
    "journald": "unknown log opt '{}' for journald log driver",
}
_ANY_DRIVER: Final = frozenset({"mode", "max-buffer-size"})
_CACHE: Final = frozenset({"cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"})
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")
_ACTION: Final = re.compile(r"\{\{-? *(.*?) *-?\}\}")


class Rotation(msgspec.Struct, frozen=True):
    """When a log begins a new file, in bytes (0: never), and how many files there are at most, the present one too."""

    max_size: int = 0
    max_files: int = 1
    compress: bool = False


LOCAL: Final = Rotation(20 << 20, 5, compress=True)
"""What ``local`` does when nothing is said, and the local copy that is kept of what goes to journald."""


def merge(given: LogConfig, default: LogConfig) -> LogConfig:
    """The client's configuration, completed by the daemon's.  Raises InvalidParameter as :func:`verify`."""
    kind = given.type or default.type
    inherited = default.config if kind == default.type else {}
    merged = LogConfig(type=kind, config={**inherited, **given.config})
    verify(merged)
    return merged


def verify(config: LogConfig) -> None:
    """Refuse drivers and options that there are not, with dockerd's texts.  Raises InvalidParameter."""
    given = config.config
    if config.type == "none":
        return
    mode = given.get("mode", "")
    if mode not in {"", "blocking", "non-blocking"}:
        raise InvalidParameter(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in given:
        if mode != "non-blocking":
            raise InvalidParameter("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        try:
            parse_size(given["max-buffer-size"])
        except InvalidParameter as exc:
            raise InvalidParameter(f"error parsing option max-buffer-size: {exc}") from exc
    if not is_boolean(given.get("cache-disabled", "false")):
        raise InvalidParameter(f"invalid value for option cache-disabled: {given['cache-disabled']}")
    if config.type not in _OPTIONS:
        raise InvalidParameter(f'error looking up logging plugin {config.type}: plugin "{config.type}" not found')
    for name in given:
        if name not in _OPTIONS[config.type] | _ANY_DRIVER | _CACHE:
            raise InvalidParameter(_UNKNOWN[config.type].format(name))


def is_boolean(text: str) -> bool:
    """Whether Go's ``strconv.ParseBool`` takes it."""
    return text in _TRUE | _FALSE


def warnings(config: LogConfig) -> list[str]:
    """Options that are taken and have no effect: the client shows it."""
    if config.type != "journald":
        return []
    ignored = sorted((_ATTRIBUTES - {"tag"}) & config.config.keys())
    return [f"Options of the journald log driver without effect: {', '.join(ignored)}"] if ignored else []


def readable(config: LogConfig) -> bool:
    """Whether ``docker logs`` has something to read."""
    kept = config.type != "journald" or config.config.get("cache-disabled") not in _TRUE
    return kept and config.type != "none"


def rotation(config: LogConfig) -> Rotation:
    """What the options come to.  Raises HostFault with dockerd's text, as its driver does when it is started."""
    if config.type == "json-file":
        return _json_file(config.config)
    if config.type == "local":
        return _local(config.config)
    return LOCAL


def _json_file(given: Mapping[str, str]) -> Rotation:
    size = _size(given["max-size"]) if "max-size" in given else 0
    if "max-size" in given and not size:
        raise HostFault("max-size must be a positive number")
    files = _integer(given["max-file"]) if "max-file" in given else 1
    if files < 1:
        raise HostFault("max-file cannot be less than 1")
    compress = _boolean(given.get("compress", "false"))
    if compress and (files == 1 or not size):
        raise HostFault("compress cannot be true when max-file is less than 2 or max-size is not set")
    return Rotation(size, files, compress)


def _local(given: Mapping[str, str]) -> Rotation:
    def value(name: str, default: str) -> str:
        return given.get(name, default)

    try:
        size = _size(value("max-size", str(LOCAL.max_size)))
    except HostFault as exc:
        raise HostFault(f"invalid value for max-size: {given['max-size']}: {exc}") from exc
    try:
        files = _integer(value("max-file", str(LOCAL.max_files)))
    except HostFault as exc:
        raise HostFault(f"invalid value for max-file: {given['max-file']}: {exc}") from exc
    try:
        compress = _boolean(value("compress", "true"))
    except HostFault as exc:
        raise HostFault(f"invalid boolean value for compress: {exc}") from exc
    if files < 0:
        raise HostFault("max-file must not be negative")
    if compress and files <= 1:
        raise HostFault("compression cannot be enabled when max file count is 1")
    return Rotation(size, max(files, 1), compress)


def _size(text: str) -> int:
    """A size in bytes, units base 1000 as for dockerd's files."""
    try:
        return parse_size(text, base=1000)
    except InvalidParameter as exc:
        raise HostFault(str(exc)) from exc


def _integer(text: str) -> int:
    if _INTEGER.fullmatch(text) is None:
        raise HostFault(f'strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)


def _boolean(text: str) -> bool:
    if not is_boolean(text):
        raise HostFault(f'strconv.ParseBool: parsing "{text}": invalid syntax')
    return text in _TRUE


def check(container: Container, daemon_name: str) -> None:
    """Raises HostFault when the driver cannot be started on this host, or with these patterns and templates."""
    attributes(container, daemon_name)
    if container.host_config.log_config.type == "journald" and not _has_journal():
        raise HostFault("journald is not enabled on this host")


def _has_journal() -> bool:
    return Path(JOURNAL_SOCKET).is_socket()


def journal(container: Container, daemon_name: str) -> Journal | None:
    """How entries are marked in the host's journal; None when nothing goes there.  Raises HostFault."""
    config = container.host_config.log_config
    if config.type != "journald":
        return None
    return Journal(container.name, tag(config.config.get("tag", ""), container, daemon_name))


def attributes(container: Container, daemon_name: str) -> dict[str, str]:
    """What ``docker logs --details`` shows beside each line.  Raises HostFault for a bad pattern or template."""
    given = container.host_config.log_config.config
    variables = dict(entry.split("=", 1) for entry in environment(container.config, container.config.hostname))
    found: dict[str, str] = {}
    for name, values in (("labels", container.config.labels), ("env", variables)):
        wanted = set(filter(None, given.get(name, "").split(",")))
        pattern = _pattern(given.get(f"{name}-regex", ""))
        found |= {
            key: value
            for key, value in values.items()
            if key in wanted or (pattern is not None and pattern.search(key))
        }
    if given.get("tag"):
        found["tag"] = tag(given["tag"], container, daemon_name)
    return found


def _pattern(text: str) -> re.Pattern[str] | None:
    try:
        return re.compile(text) if text else None
    except re.error as exc:
        raise HostFault(f"error parsing regexp: {exc}: `{text}`") from exc


def tag(template: str, container: Container, daemon_name: str) -> str:
    """The ``tag`` option with its fields filled in; empty is the container's short id.  Raises HostFault."""
    fields = {
        "ID": short(container.id),
        "FullID": container.id,
        "Name": container.name,
        "ImageID": short(container.image.removeprefix("sha256:")),
        "ImageFullID": container.image,
        "ImageName": container.image_ref,
        "Command": " ".join([container.path, *container.args]),
        "Hostname": daemon_name,
        "DaemonName": "docker",
    }

    def field(found: re.Match[str]) -> str:
        name = found[1].removeprefix(".")
        if name not in fields or not found[1].startswith("."):
            at = f'template: log-tag:1:{found.start() + 2}: executing "log-tag" at <{found[1]}>'
            raise HostFault(f"{at}: can't evaluate field {name} in type *logger.Info")
        return fields[name]

    if "{{" in _ACTION.sub("", template):
        raise HostFault("template: log-tag:1: unclosed action")
    return _ACTION.sub(field, template or "{{.ID}}")
