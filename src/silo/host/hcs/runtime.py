"""The OCI runtimes: which one works here, what is asked of it, and what its error texts mean."""

from __future__ import annotations

import re
import shutil
from typing import Final

import msgspec

from silo.errors import HostFault
from silo.host.linux.spawn import Spawner

PREFERRED: Final = ("crun", "runc")
SEARCH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FAILED: Final = "failed to create task for container: failed to create shim task: OCI runtime create failed"
_NOT_IN_PATH: Final = re.compile(r"executable file .*not found")
_ABOUT_EXECUTABLE: Final = re.compile(r"open executable|exec:|executable path|exec container process")
_REFUSED: Final = re.compile(r"permission denied|is a directory|not permitted")
_RUNC_LINE: Final = re.compile(r'level=error msg="((?:[^"\\]|\\.)*)"')


class Runtime(msgspec.Struct, frozen=True):
    """A runtime program of this host."""

    name: str
    path: str
    version: str


async def probe(spawner: Spawner, wanted: str = "") -> list[Runtime]:
    """The runtimes that answer, the one to use first.  Raises HostFault naming the package when there is none."""
    found = []
    for name in dict.fromkeys([wanted, *PREFERRED] if wanted else PREFERRED):
        path = locate(name)
        if path is None:
            continue
        done = await spawner.run([path, "--version"], seconds=10)
        if done.code == 0:
            text = re.search(rb"version (\S+)", done.out)
            found.append(Runtime(name, path, text[1].decode() if text else "unknown"))
    if not found or (wanted and found[0].name != wanted):
        raise HostFault(f"no OCI runtime {wanted or 'crun or runc'} on this host: install the Debian package crun")
    return found


def locate(name: str) -> str | None:
    """The path of a runtime by name; None when it is not installed (any more)."""
    return shutil.which(name, path=SEARCH)


def explain(runtime: str, message: str, argv0: str) -> str:
    """A runtime's failure to create a container, in dockerd's words: clients look for them to choose 126 or 127.

    Both runtimes look for the executable at ``create``: before the container's process runs, everything is undone.
    """
    text = message.strip()
    go = _RUNC_LINE.search(text)
    if go:
        text = go[1].replace('\\"', '"').removeprefix(f"{runtime} create failed: ")
    text = text.removeprefix("unable to start container process: ")
    lower = text.lower()
    if _NOT_IN_PATH.search(text) or (_ABOUT_EXECUTABLE.search(lower) and "no such file" in lower):
        reason = _missing(argv0)
    elif _ABOUT_EXECUTABLE.search(lower) and _REFUSED.search(lower):
        # a bare name is searched for, and what cannot be run is not found (Go's LookPath, which dockerd's runc uses)
        reason = "permission denied" if "/" in argv0 else _missing(argv0)
    else:
        return f"{_FAILED}: {runtime} create failed: {text}: unknown"
    return f'{_FAILED}: {runtime} create failed: unable to start container process: exec: "{argv0}": {reason}: unknown'


def _missing(argv0: str) -> str:
    return f"stat {argv0}: no such file or directory" if "/" in argv0 else "executable file not found in $PATH"
