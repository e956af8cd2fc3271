"""Condense the Engine API's Swagger file to what tests and tables need: operations, parameters and schemas, no prose.

    python tools/api_facts.py docker-engine-api-v1.50.yaml

Writes ``tests/data/engine-api-v1.50.json``.  The file is a set of facts (names, types, which fields are required); its
descriptions and examples stay where they are.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

TARGET = Path(__file__).resolve().parents[1] / "tests" / "data" / "engine-api-v1.50.json"
PROSE = {"description", "summary", "example", "examples", "title", "externalDocs", "tags", "info", "x-displayName"}
NAMED = {"properties", "definitions", "paths", "responses", "headers", "patternProperties"}
"""Keys whose own keys are names: a property may well be called ``description``."""


def condensed(node: Any, *, names: bool = False) -> Any:
    """The same tree without prose and without vendor extensions, other than ``x-nullable``."""
    if isinstance(node, list):
        return [condensed(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        str(key): condensed(value, names=not names and key in NAMED)
        for key, value in node.items()
        if names or (key not in PROSE and (not str(key).startswith("x-") or key == "x-nullable"))
    }


def main() -> None:
    source = yaml.safe_load(Path(sys.argv[1]).read_text("utf-8"))
    facts = condensed(source)
    facts["info"] = {"title": "Engine API", "version": str(source["info"]["version"])}
    for responses in (
        operation["responses"]
        for path in facts["paths"].values()
        for operation in path.values()
        if "responses" in operation
    ):
        for response in responses.values():
            response.setdefault("description", "")
    TARGET.write_text(json.dumps(facts, separators=(",", ":"), sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    main()
