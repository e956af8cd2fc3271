"""The measured commands, and the OCI bundles of the bare runtimes.

Run as a program, this module is the helper: it enters a mount namespace without the cgroup2 mount of hybrid hosts
(where crun refuses to work otherwise; the engine does the same, once), then runs the commands it reads and answers how
long each took.  So neither the namespace nor Python's start is part of a measurement.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from silo.host.linux import cgroup, libc

END_SECONDS = 30
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


class Failed(Exception):
    """A command did not do what it must, or a part could not be started."""


class Helper:
    """The process that runs the measured commands."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, start_new_session=True,
            env={**ENVIRONMENT, **environment},
        )  # fmt: skip

    def run(self, argv: Sequence[str]) -> float:
        """Seconds from the command's start to its end.  Raises Failed unless its exit code is 0."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(list(argv)) + "\n")
        line = self._process.stdout.readline()
        if not line:
            raise Failed("the helper ended")
        answer = json.loads(line)
        if answer["code"] != 0:
            text = " ".join(answer["stderr"].split())
            raise Failed(f"{Path(argv[0]).name}: exit code {answer['code']}: {text[:300]}")
        return float(answer["seconds"])

    def close(self) -> None:
        """Let the command under way end, then the helper.  May be called again."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def bare_config(own: dict[str, Any], rootfs: Path, group: str) -> dict[str, Any]:
    """A container's own config.json, for a runtime alone: other rootfs and cgroup, a new empty network namespace."""
    spaces = [{"type": one["type"]} if one["type"] == "network" else one for one in own["linux"]["namespaces"]]
    return {
        **own,
        "process": {**own["process"], "args": ["true"]},
        "root": {**own["root"], "path": str(rootfs)},
        "mounts": [one for one in own["mounts"] if not one["destination"].startswith("/etc/")],
        "linux": {**own["linux"], "namespaces": spaces, "cgroupsPath": group},
    }


def bundle(folder: Path, config: dict[str, Any]) -> Path:
    """Write an OCI bundle; its folder."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def remove_cgroups(name: str) -> None:
    """Remove the (by then empty) group ``name`` and those below it, in every hierarchy."""
    found = cgroup.host()
    for mount in {*found.hierarchies.values(), *([found.unified] if found.unified else [])}:
        for folder, _, _ in os.walk(Path(mount) / name, topdown=False):
            try:
                Path(folder).rmdir()
            except OSError as exc:
                print(f"left behind: {exc}", file=sys.stderr)


def _run(argv: list[str]) -> dict[str, Any]:
    errors = os.memfd_create("stderr")
    try:
        began = time.perf_counter()
        try:
            code = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
            ).wait()
        except OSError as exc:
            return {"code": 127, "seconds": 0, "stderr": str(exc)}
        seconds = time.perf_counter() - began
        return {"code": code, "seconds": seconds, "stderr": os.pread(errors, 4096, 0).decode("utf-8", "replace")}
    finally:
        os.close(errors)


def _serve() -> None:
    found = cgroup.host()
    libc.unshare(libc.CLONE_FS | libc.CLONE_NEWNS)
    libc.mount("none", "/", "", libc.MS_REC | libc.MS_SLAVE)
    if found.mode == cgroup.Mode.HYBRID and found.unified is not None:
        libc.umount(found.unified, libc.MNT_DETACH)
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), flush=True)


if __name__ == "__main__":
    _serve()
