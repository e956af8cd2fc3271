"""What the engine says of itself, and of what it does not have."""

from __future__ import annotations

import json
import socket

import pytest

from tests.judge.harness import IMAGE, Engine

NO_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)


def ask(engine: Engine, method: str, path: str, body: str = "") -> tuple[int, object]:
    """One request, as no client of ours would make it."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(engine.socket.removeprefix("unix://"))
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
        sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        answer = b""
        while data := sock.recv(65536):
            answer += data
    status, _, rest = answer.partition(b"\r\n\r\n")
    return int(status.split()[1]), json.loads(rest) if rest.strip() else None


def test_disk_usage_agrees_with_what_is_there(engine: Engine):
    engine.ok(
        "run",
        "--name",
        "fat",
        "-v",
        "bulk:/v",
        IMAGE,
        "sh",
        "-c",
        "head -c 5000 /dev/zero >/f; cp /f /v/f; ln /v/f /v/g",
    )
    try:
        _, shown = ask(engine, "GET", "/v1.50/system/df")
        (image,) = shown["Images"]
        (container,) = shown["Containers"]
        (volume,) = shown["Volumes"]
        assert image["Containers"] == 1
        assert image["SharedSize"] == 0
        assert shown["LayersSize"] == image["Size"] > 0
        assert container["SizeRw"] == 5000
        assert container["SizeRootFs"] == 5000 + image["Size"]
        assert volume["UsageData"] == {"Size": 5000, "RefCount": 1}
        assert shown["BuildCache"] == []
        _, some = ask(engine, "GET", "/v1.50/system/df?type=volume&type=container")
        assert some["Images"] is None
        assert len(some["Volumes"]) == len(some["Containers"]) == 1
        assert ask(engine, "GET", "/v1.50/system/df?type=x") == (400, {"message": "unknown object type: x"})
        table = engine.ok("system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}")
        assert table.splitlines() == ["Images 1 1", "Containers 1 0", "Local Volumes 1 1", "Build Cache 0 0"]
        assert "bulk" in engine.ok("system", "df", "-v")
    finally:
        engine.ok("rm", "fat")
        engine.ok("volume", "rm", "bulk")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/swarm"),
        ("GET", "/services"),
        ("POST", "/services/create"),
        ("GET", "/nodes"),
        ("GET", "/tasks/x/logs"),
        ("DELETE", "/secrets/x"),
        ("POST", "/configs/create"),
        ("POST", "/swarm/unlock"),
    ],
)
def test_cluster_routes_answer_as_a_dockerd_in_no_swarm(engine: Engine, method: str, path: str):
    assert ask(engine, method, f"/v1.41{path}", "{}" if method == "POST" else "") == (503, {"message": NO_MANAGER})


def test_the_commands_of_swarm_and_plugins_say_why(engine: Engine):
    assert NO_MANAGER in engine.docker("node", "ls").stderr
    assert "This node is not part of a swarm" in engine.docker("swarm", "leave").stderr
    assert "swarm mode: this engine does not have it" in engine.docker("swarm", "init").stderr
    assert engine.ok("plugin", "ls", "-q") == ""
    assert ask(engine, "GET", "/plugins/a/b/json") == (404, {"message": 'plugin "a/b" not found'})


def test_info_is_what_the_command_prints(engine: Engine):
    shown = engine.docker("info")
    assert shown.code == 0
    assert "Storage Driver: windowsfilter" in shown.stdout
    assert " Swarm: inactive" in shown.stdout
    assert "ERROR" not in shown.stderr
    _, info = ask(engine, "GET", "/v1.50/info")
    assert info["MemoryLimit"] is True
    assert info["FirewallBackend"] == {"Driver": "nftables"}
    assert "BridgeNfIptables" not in info
    _, old = ask(engine, "GET", "/v1.48/info")
    assert "FirewallBackend" not in old
    assert old["BridgeNfIptables"] is False
    assert "Expected" in old["RuncCommit"]


@pytest.mark.parametrize(
    ("version", "text"),
    [
        ("1.51", "client version 1.51 is too new. Maximum supported API version is 1.50"),
        (
            "1.23",
            (
                "client version 1.23 is too old. Minimum supported API version is 1.24, "
                "please upgrade your client to a newer version"
            ),
        ),
    ],
)
def test_versions_beyond_the_range_are_refused(engine: Engine, version: str, text: str):
    assert ask(engine, "GET", f"/v{version}/info") == (400, {"message": text})
