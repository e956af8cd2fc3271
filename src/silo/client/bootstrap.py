"""A small image from the host's own busybox, so that the first container needs no registry.

The result is an archive for ``POST /images/load``.  The same busybox always gives the same bytes, and so the same
image.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import posixpath
import struct
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Final

from silo.errors import HostFault, NotFound

BUSYBOX: Final = Path("/bin/busybox")
PACKAGE: Final = "busybox-static"
SECONDS: Final = 10
"""How long busybox may take to list its applets."""

_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CREATED: Final = "1970-01-01T00:00:00Z"
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_FOLDERS: Final = {
    "bin": 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "proc": 0o555,
    "root": 0o700,
    "run": 0o755,
    "sbin": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
    "usr": 0o755,
    "usr/bin": 0o755,
    "usr/sbin": 0o755,
    "var": 0o755,
    "var/tmp": 0o1777,
}
_FILES: Final = {
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
        "nobody:x:65534:65534:nobody:/home:/bin/false\n"
    ),
    "etc/group": "root:x:0:\ndaemon:x:1:\ntty:x:5:\nusers:x:100:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_PT_INTERP: Final = 3


def bootstrap_archive(name: str, destination: BinaryIO) -> None:
    """Write a ``docker load`` archive with one busybox image called ``name`` (``latest`` when it has no tag).

    Raises NotFound when this host has no static busybox, naming the Debian package, and HostFault when it does not run.
    """
    layer = _layer(_static_busybox(), _applets())
    diff_id = hashlib.sha256(layer).hexdigest()
    config = _json(_config(f"sha256:{diff_id}"))
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    tag = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
    manifest = _json([{"Config": config_name, "RepoTags": [tag], "Layers": [f"{diff_id}/layer.tar"]}])
    with _archive(destination) as tar:
        _add_file(tar, config_name, config)
        _add_file(tar, f"{diff_id}/layer.tar", layer)
        _add_file(tar, "manifest.json", manifest)


def _static_busybox() -> bytes:
    try:
        program = BUSYBOX.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{BUSYBOX}: not found; install the Debian package {PACKAGE}") from None
    if _needs_loader(program):
        raise NotFound(f"{BUSYBOX}: is not statically linked; install the Debian package {PACKAGE}")
    return program


def _needs_loader(program: bytes) -> bool:
    """Whether an ELF program asks for a dynamic loader, which the image would not have."""
    wide = program[4:5] == b"\x02"
    order = "<" if program[5:6] == b"\x01" else ">"
    try:
        (table,) = struct.unpack_from(order + ("Q" if wide else "I"), program, 32 if wide else 28)
        size, count = struct.unpack_from(order + "HH", program, 54 if wide else 42)
        kinds = [struct.unpack_from(order + "I", program, table + size * index)[0] for index in range(count)]
    except struct.error as exc:
        raise NotFound(f"{BUSYBOX}: is not a program; install the Debian package {PACKAGE}") from exc
    return _PT_INTERP in kinds


def _applets() -> list[str]:
    """Where busybox wants its names: ``bin/ls``, ``usr/bin/env`` ..."""
    try:
        run = subprocess.run(
            [BUSYBOX, "--list-full"], capture_output=True, text=True, check=True, timeout=SECONDS, env={}
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise HostFault(f"{BUSYBOX} --list-full: {exc}") from exc
    return sorted({path for path in run.stdout.split() if posixpath.dirname(path) in _FOLDERS} - {"bin/busybox"})


def _layer(busybox: bytes, applets: Iterable[str]) -> bytes:
    """The tar of the image's files."""
    buffer = io.BytesIO()
    with _archive(buffer) as tar:
        for path, mode in _FOLDERS.items():
            folder = tarfile.TarInfo(path)
            folder.type, folder.mode = tarfile.DIRTYPE, mode
            tar.addfile(folder)
        _add_file(tar, "bin/busybox", busybox, 0o755)
        for path in applets:
            link = tarfile.TarInfo(path)
            link.type, link.mode = tarfile.SYMTYPE, 0o777
            link.linkname = posixpath.relpath("bin/busybox", posixpath.dirname(path))
            tar.addfile(link)
        for path, text in _FILES.items():
            _add_file(tar, path, text.encode())
    return buffer.getvalue()


def _config(diff_id: str) -> dict[str, Any]:
    machine = platform.machine()
    return {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "config": {"Cmd": ["sh"], "Env": [_PATH]},
        "created": _CREATED,
        "history": [{"created": _CREATED, "created_by": f"silo image bootstrap ({PACKAGE})"}],
        "os": "linux",
        "rootfs": {"diff_ids": [diff_id], "type": "layers"},
    }


def _archive(destination: BinaryIO) -> tarfile.TarFile:
    return tarfile.open(fileobj=destination, mode="w|", format=tarfile.USTAR_FORMAT)


def _add_file(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    """Owner root, time 0: nothing of this host or this moment gets into the archive."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    tar.addfile(info, io.BytesIO(data))


def _json(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
