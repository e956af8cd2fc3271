"""Run docker-py's own integration tests against a silod of our own, and write ``docs/conformance.md``.

    make conformance SUITE=DIR      DIR holds docker_py.sh and baseline/docker_py.txt

The suite's source is given from outside; the baseline is what dockerd 20.10 scores on the same machine.  Exit 1 when
something that dockerd passes does not pass here and is no exception below.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from tests.judge.harness import Engine  # noqa: E402 - the repository's root is no package

TARGET = ROOT / "docs" / "conformance.md"
REGISTRY = "127.0.0.1:5917"
EXCEPTIONS: dict[str, str] = {}
"""Cases that dockerd passes and Silo does not, each with the reason."""


def results(path: Path) -> dict[str, str]:
    """Case -> PASS, FAIL or SKIP, of a suite's result file."""
    found = {}
    for line in path.read_text("utf-8").splitlines():
        state, _, rest = line.partition(" ")
        if state in {"PASS", "FAIL", "SKIP"}:
            found[rest.split("\t")[0].removeprefix("tests/integration/")] = state
    return found


def page(ours: dict[str, str], theirs: dict[str, str]) -> str:
    """The table by file, and each case that differs."""
    lines = [
        "# Conformance: docker-py's integration tests",
        "",
        "Written by `make conformance SUITE=DIR`. The bar is Debian's dockerd 20.10 on the same machine.",
        "",
        "| file | dockerd passes | Silo passes | of dockerd's, Silo fails |",
        "|---|---|---|---|",
    ]
    files = sorted({case.split("::")[0] for case in {*ours, *theirs}})
    for name in [*files, ""]:
        cases = [case for case in {*ours, *theirs} if case.startswith(name)]
        bar = [case for case in cases if theirs.get(case) == "PASS"]
        worse = [case for case in bar if ours.get(case) != "PASS"]
        mine = sum(ours.get(case) == "PASS" for case in cases)
        lines.append(f"| {f'`{name}`' if name else '**all**'} | {len(bar)} | {mine} | {len(worse)} |")
    count = Counter(ours.values())
    lines += ["", f"Silo: {count['PASS']} passed, {count['FAIL']} failed, {count['SKIP']} skipped.", ""]
    worse = sorted(case for case, state in theirs.items() if state == "PASS" and ours.get(case) != "PASS")
    better = sorted(case for case, state in ours.items() if state == "PASS" and theirs.get(case) != "PASS")
    for title, cases in (("Passes with dockerd only", worse), ("Passes with Silo only", better)):
        if cases:
            lines += [f"## {title}", "", *(f"- `{case}` {EXCEPTIONS.get(case, '')}".rstrip() for case in cases), ""]
    return "\n".join(lines).rstrip() + "\n"


def run(suite: Path, *expressions: str) -> dict[str, str]:
    """The suite's results against a fresh engine, which is closed whatever happens."""
    engine = Engine()
    with tempfile.TemporaryDirectory(prefix="silo-conformance-") as folder, contextlib.ExitStack() as stack:
        stack.callback(engine.close)
        engine.start()
        file = Path(folder) / "results.txt"
        environment = {**os.environ, "RESULTS": str(file), "SUITE_REGISTRY": REGISTRY, "SUITE_TIME": "1500"}
        environment["SUITE_PYTEST_ARGS"] = " ".join(expressions)
        subprocess.run(["bash", suite / "docker_py.sh", engine.socket], env=environment, check=True)
        ids = engine.docker("ps", "-aq").stdout.split()
        if ids:
            engine.docker("rm", "-f", "-v", *ids)
        for network in engine.docker("network", "ls", "-q", "--filter", "type=custom").stdout.split():
            engine.docker("network", "rm", network)
        return results(file)


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("usage: make conformance SUITE=DIR   (the folder of docker_py.sh)")
    suite = Path(sys.argv[1]).resolve()
    theirs = results(suite / "baseline" / "docker_py.txt")
    ours = run(suite, *sys.argv[2:])
    if len(sys.argv) == 2:
        TARGET.write_text(page(ours, theirs), "utf-8")
    worse = [case for case, state in theirs.items() if state == "PASS" and ours.get(case, "SKIP") == "FAIL"]
    print(*(f"worse than dockerd: {case}" for case in sorted(worse)), sep="\n")
    if set(worse) - set(EXCEPTIONS):
        sys.exit(1)


if __name__ == "__main__":
    main()
