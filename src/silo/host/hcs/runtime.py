"""The OCI runtimes: which one works here, what is asked of it, and what its error texts mean."""

from __future__ import annotations

import re
import resource
import shutil
from typing import Any, Final

import msgspec

from silo.errors import HostFault
from silo.host.linux.spawn import Spawner

PREFERRED: Final = ("crun", "runc")
_FAILED: Final = "failed to create task for container: failed to create shim task: OCI runtime create failed"
_NOT_IN_PATH: Final = re.compile(
    r"executable file [`'\"]?(?P<name>[^`'\"]*)[`'\"]? not found in \$PATH"
    r"|exec: \"(?P<go>[^\"]*)\": executable file not found"
)
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
        path = shutil.which(name, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        if path is None:
            continue
        done = await spawner.run([path, "--version"], seconds=10)
        if done.code == 0:
            text = re.search(rb"version (\S+)", done.out)
            found.append(Runtime(name, path, text[1].decode() if text else "unknown"))
    if not found or (wanted and found[0].name != wanted):
        raise HostFault(f"no OCI runtime {wanted or 'crun or runc'} on this host: install the Debian package crun")
    return found


def explain(runtime: str, message: str, argv0: str) -> str:
    """A runtime's failure to create a container, in dockerd's words: clients look for them to choose 126 or 127."""
    text = message.strip()
    go = _RUNC_LINE.search(text)
    if go:
        text = go[1].replace('\\"', '"').removeprefix(f"{runtime} create failed: ")
    text = text.removeprefix("unable to start container process: ")
    head = f"{_FAILED}: {runtime} create failed: unable to start container process: "
    missing = _NOT_IN_PATH.search(text)
    lower = text.lower()
    if missing:
        name = missing["name"] or missing["go"] or argv0
        return f'{head}exec: "{name}": executable file not found in $PATH: unknown'
    if (
        "open executable" in lower
        or "exec:" in lower
        or "executable path" in lower
        or "exec container process" in lower
    ):
        if "no such file" in lower:
            return f'{head}exec: "{argv0}": stat {argv0}: no such file or directory: unknown'
        if "permission denied" in lower or "is a directory" in lower or "not permitted" in lower:
            return f'{head}exec: "{argv0}": permission denied: unknown'
    return f"{_FAILED}: {runtime} create failed: {text}: unknown"


def clamp(configuration: dict[str, Any], *, may_raise: bool) -> list[str]:
    """Lower what the host does not let us give (rlimits above our own hard ones); return what was lowered.

    Without CAP_SYS_RESOURCE raising a hard limit or lowering the OOM score fails the whole start otherwise.
    """
    lowered: list[str] = []
    if may_raise:
        return lowered
    process = configuration["process"]
    for limit in process.get("rlimits") or []:
        _, hard = resource.getrlimit(getattr(resource, limit["type"]))
        if hard != resource.RLIM_INFINITY and limit["hard"] > hard:
            lowered.append(f"{limit['type']} {limit['hard']} -> {hard}")
            limit["hard"] = hard
        limit["soft"] = min(limit["soft"], limit["hard"])
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:  # noqa: PTH123 - one short read
        own = int(file.read())
    if process.get("oomScoreAdj", 0) < own:
        lowered.append(f"oom_score_adj {process.get('oomScoreAdj', 0)} -> {own}")
        process["oomScoreAdj"] = own
    return lowered


def may_raise_limits() -> bool:
    """Whether this process has CAP_SYS_RESOURCE (bit 24)."""
    with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123 - one short read
        for line in file:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> 24 & 1)
    return False
