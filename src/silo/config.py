"""The daemon's settings: docker's flag names, a JSON file underneath them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import msgspec

from silo.errors import InvalidParameter

DEFAULT_HOST: Final = "unix:///run/silo/silo.sock"


class Config(msgspec.Struct, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """What silod is told.  The file (``--config-file``, JSON) uses the same names, as dockerd's daemon.json does."""

    data_root: Path = Path("/var/lib/silo")
    exec_root: Path = Path("/run/silo")
    hosts: list[str] = []
    pidfile: Path | None = None
    log_level: str = "info"
    default_runtime: str = ""
    group: str = "docker"
    log_driver: str = "json-file"
    log_opts: dict[str, str] = {}

    @property
    def instance(self) -> str:
        """Eight hex digits that tell this engine's bridges, tables and cgroups from another's on the same host."""
        return hashlib.sha256(str(self.data_root.absolute()).encode()).hexdigest()[:8]


def _path(kind: type[object], value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"expected {kind.__name__}, got {value!r}")


def load(path: Path | None, flags: dict[str, object]) -> Config:
    """The file's settings with the flags on top.  Raises InvalidParameter naming the file and the member."""
    try:
        text = path.read_bytes() if path is not None else b"{}"
        given = msgspec.json.decode(text)
        return msgspec.convert({**given, **flags}, Config, dec_hook=_path)
    except OSError as exc:
        raise InvalidParameter(f"unable to configure silod with file {path}: {exc.strerror}") from exc
    except (msgspec.MsgspecError, TypeError) as exc:
        raise InvalidParameter(f"unable to configure silod with file {path}: {exc}") from exc
