"""Every operation of the Engine API's file, asked with generated parameters and bodies on a real engine.

Nothing may answer 500, hang, or contradict the file's schema.  ``SILO_API_EXAMPLES`` sets the requests per operation
(50 makes more than 5,000); names in paths are mostly those of things that exist, so that requests go deep.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema_rs
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case

from tests.judge.harness import IMAGE, Engine, running

EXAMPLES = int(os.environ.get("SILO_API_EXAMPLES", "6"))
SECONDS = 60
FACTS = json.loads((Path(__file__).resolve().parents[1] / "data" / "engine-api-v1.50.json").read_text())
NAMES = {
    "containers": ["running", "created", "nosuch"],
    "images": [IMAGE, "nosuch"],
    "networks": ["wired", "none", "nosuch"],
    "volumes": ["filled", "nosuch"],
}
STREAMS = {
    "/containers/{id}/attach", "/containers/{id}/attach/ws", "/containers/{id}/wait", "/containers/{id}/logs",
    "/containers/{id}/stats", "/exec/{id}/start", "/events", "/session", "/services/{id}/logs", "/tasks/{id}/logs",
}  # fmt: skip
"""Answers without an end: their head is judged."""
OUTSIDE = {"/images/create", "/images/search", "/distribution/{name}/json", "/auth", "/images/{name}/push", "/build"}
"""What asks a registry answers 500 when there is none, as dockerd does."""
BOUNDED = {"t": 1, "h": 50, "w": 50}

POINTERS = {"MemorySwappiness", "OomKillDisable"}
"""Pointers in dockerd's structures, so null where nothing was said; the file has them as plain values."""


@schemathesis.serializer("application/x-tar", "application/octet-stream", "text/plain")
def raw(_context: Any, value: Any) -> bytes:
    """Bytes as they are."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


SCHEMA = schemathesis.openapi.from_dict(FACTS)
OPERATIONS = {f"{one.ok().method.upper()} {one.ok().path}": one.ok() for one in SCHEMA.get_all_operations()}


class Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=SECONDS)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self.sock.connect(self.path)


def nullable(node: Any) -> Any:
    """JSON Schema of Swagger's: Go's nil slices and maps are null, and so is what x-nullable says."""
    if isinstance(node, list):
        return [nullable(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: nullable(value) for key, value in node.items()}
    kind = made.get("type")
    for name in POINTERS & set(made.get("properties") or ()):
        made["properties"][name]["type"] = [made["properties"][name]["type"], "null"]
    if isinstance(kind, str) and (made.get("x-nullable") or kind in {"array", "object"}):
        made["type"] = [kind, "null"]
        if "enum" in made:
            made["enum"] = [*made["enum"], None]
    if isinstance(made.get("allOf"), list) and len(made["allOf"]) == 1 and "$ref" in made["allOf"][0]:
        made = {"anyOf": [made["allOf"][0], {"type": "null"}]}
    return made


DEFINITIONS = nullable(FACTS["definitions"])


def validator(path: str, method: str, status: int) -> Any:
    """Of the body the file promises for this answer, or None when it promises nothing."""
    responses = FACTS["paths"][path][method.lower()]["responses"]
    schema = responses.get(str(status), {}).get("schema")
    if schema is None or schema == {"type": "string", "format": "binary"}:
        return None
    return jsonschema_rs.Draft7Validator({**nullable(schema), "definitions": DEFINITIONS})


@pytest.fixture(scope="module")
def world() -> Iterator[Engine]:
    with running() as engine:
        yield engine
        for network in engine.ok("network", "ls", "-q", "--filter", "type=custom").split():
            engine.docker("network", "rm", network)


def furnish(engine: Engine) -> None:
    """What the generated names name."""
    engine.docker("rm", "-f", "running", "created")
    engine.docker("network", "create", "wired")
    engine.docker("volume", "create", "filled")
    if engine.docker("image", "inspect", IMAGE).code:
        engine.silo("image", "bootstrap", IMAGE)
    engine.ok("create", "--name", "created", IMAGE, "true")
    engine.ok("run", "-d", "--name", "running", IMAGE, "sh", "-c", "trap exit TERM; while :; do sleep 0.1; done")


def ask(engine: Engine, case: Case) -> tuple[int, dict[str, str], bytes]:
    """Send one request; its status, head and body."""
    given_to = case.as_transport_kwargs(base_url="http://docker/v1.50")
    prepared = requests.Request(**{k: v for k, v in given_to.items() if k in REQUEST}).prepare()
    parts = urlsplit(prepared.url)
    connection = Connection(engine.socket.removeprefix("unix://"))
    try:
        connection.request(
            prepared.method,
            parts.path + (f"?{parts.query}" if parts.query else ""),
            prepared.body,
            dict(prepared.headers),
        )
        answer = connection.getresponse()
        body = b"" if case.operation.path in STREAMS and answer.status < 400 else answer.read()
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}, body
    finally:
        connection.close()


REQUEST = {"method", "url", "headers", "params", "data", "json", "cookies", "files"}


def judge(case: Case, status: int, head: dict[str, str], body: bytes) -> None:
    """Raise when an answer is none that the file knows."""
    told = f"{case.as_curl_command()}\n{status} {body[:2000]!r}"
    path, method = case.operation.path, case.operation.method
    assert status < 500 or status in {501, 503} or path in OUTSIDE, told
    if status >= 400 and method.upper() != "HEAD":
        assert isinstance(json.loads(body)["message"], str), told
        return
    wanted = validator(path, method, status)
    if wanted is None or not body or "json" not in head.get("content-type", ""):
        return
    for document in [json.loads(line) for line in body.splitlines()] if path in LINES else [json.loads(body)]:
        wrong = [
            f"{'/'.join(map(str, error.instance_path))}: {error.message}" for error in wanted.iter_errors(document)
        ]
        assert not wrong, f"{told}\n" + "\n".join(wrong)


LINES = {"/images/create", "/images/{name}/push", "/images/load", "/build", "/events"}


def names(path: str) -> list[str]:
    return NAMES.get(path.split("/")[1], ["nosuch"])


@pytest.mark.timeout(900)
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
def test_an_operation_answers_as_the_file_says(world: Engine, operation: Any) -> None:
    furnish(world)
    picked = st.sampled_from(names(operation.path))

    @settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(), name=picked, image=st.booleans())
    def asked(case: Case, name: str, image: bool) -> None:
        for key in case.path_parameters or {}:
            case.path_parameters[key] = name
        for key, limit in BOUNDED.items():
            if key in (case.query or {}):
                case.query[key] = limit
        if image and isinstance(case.body, dict) and operation.path == "/containers/create":
            case.body["Image"] = IMAGE
        judge(case, *ask(world, case))

    asked()
    left = world.docker("ps", "-aq", "--no-trunc").stdout.split()
    if left:
        world.docker("rm", "-f", "-v", *left)
