"""What the commands print for what an engine answers.  The answers are recorded; the server and the client are real."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal
from click.testing import CliRunner, Result

from silo.api.router import Router
from silo.api.server import ApiServer
from silo.cli.common import shown
from silo.cli.containers import ago
from silo.cli.main import main
from silo.client.engine import EngineClient
from silo.errors import Conflict, NotFound
from silo.httpd.listen import open_unix
from silo.httpd.messages import empty, json_response

ID = "d38c57295888045276e9dbe36d349be4e27aeb1f1c6442a19e5134cfb593c721"
ANSWERS = {
    "/_ping": "OK",
    "/containers/json": [
        {
            "Id": ID, "Names": ["/example"], "Image": "silo/busybox", "Command": "sh -c 'sleep 100000'", "Created": 0,
            "Status": "Up 2 minutes", "Ports": [
                {"PrivatePort": 80, "PublicPort": 8080, "Type": "tcp", "IP": "0.0.0.0"},
                {"PrivatePort": 53, "Type": "udp"},
            ],
        }
    ],
    "/images/json": [{"Id": f"sha256:{ID}", "RepoTags": ["silo/busybox:latest"], "Size": 1982477}],
    "/networks": [{"Id": ID, "Name": "bridge", "Driver": "bridge", "IPAM": {"Config": [{"Subnet": "172.17.0.0/16"}]}}],
    "/containers/example/json": {"Id": ID},
    "/images/silo/busybox/json": {"Id": "an image"},
    "/networks/bridge": {"Id": "a network"},
    "/silo/compartments": [
        {
            "CompartmentId": 1, "CompartmentDescription": "Default Compartment",
            "CompartmentGuid": "{b1062982-2b18-4b4f-b3d5-a78ddb9cdd49}", "CompartmentType": "Native",
        },
        {
            "CompartmentId": 2, "CompartmentDescription": f"\\Container_{ID}",
            "CompartmentGuid": "{cc707629-d8bf-43f3-9de5-756e2b739cf8}", "CompartmentType": "Unspecified",
        },
    ],
    "/silo/interfaces": [
        {
            "ifIndex": 1, "InterfaceAlias": "lo", "AddressFamily": "IPv6", "NlMtu": 65536, "InterfaceMetric": 0,
            "Dhcp": "Disabled", "ConnectionState": "Connected", "PolicyStore": "ActiveStore", "CompartmentId": 2,
        },
        {
            "ifIndex": 25, "InterfaceAlias": "vEthernet (Container NIC 31c28d65)", "AddressFamily": "IPv4",
            "NlMtu": 1500, "InterfaceMetric": 5000, "Dhcp": "Disabled", "ConnectionState": "Connected",
            "PolicyStore": "ActiveStore", "CompartmentId": 2,
        },
    ],
    "/silo/routes": [
        {
            "ifIndex": 2, "DestinationPrefix": "0.0.0.0/0", "NextHop": "172.18.0.1", "RouteMetric": 256, "ifMetric": 0,
            "PolicyStore": "ActiveStore",
        },
        {
            "ifIndex": 1, "DestinationPrefix": "127.0.0.1/32", "NextHop": "0.0.0.0", "RouteMetric": 9, "ifMetric": 0,
            "PolicyStore": "ActiveStore",
        },
    ],
    "/silo/eventlog": [
        {
            "TimeCreated": "2026-01-01T00:00:00Z", "Id": 2000, "LevelDisplayName": "Information", "Message": "first",
            "ProviderName": "Microsoft-Windows-Hyper-V-Compute",
        },
        {
            "TimeCreated": "2026-01-01T00:00:01Z", "Id": 2001, "LevelDisplayName": "Information", "Message": "second",
            "ProviderName": "Microsoft-Windows-Hyper-V-Compute",
        },
    ],
    "/silo/layerchain/example": {"id": "c", "dir": "/d/windowsfilter/c", "chain": ["/d/windowsfilter/b", "/d/a"]},
    "/silo/hcs": [
        {"Id": "c", "State": "Running", "SystemType": "Container", "Owner": "silo", "ProcessId": 7, "Runtime": "crun"}
    ],
    "/silo/hns/networks": [{"Name": "bridge", "Subnets": [{"AddressPrefix": "172.17.0.0/16"}], "Policies": []}],
}  # fmt: skip
PRINTED = {
    "compartments": f"""
CompartmentId          : 1
CompartmentDescription : Default Compartment
CompartmentGuid        : {{b1062982-2b18-4b4f-b3d5-a78ddb9cdd49}}
CompartmentType        : Native

CompartmentId          : 2
CompartmentDescription : \\Container_{ID}
CompartmentGuid        : {{cc707629-d8bf-43f3-9de5-756e2b739cf8}}
CompartmentType        : Unspecified

""",
    "interfaces --compartment 2": """
ifIndex InterfaceAlias                     AddressFamily NlMtu(Bytes) InterfaceMetric Dhcp     ConnectionState PolicyStore
------- --------------                     ------------- ------------ --------------- ----     --------------- -----------
1       lo                                 IPv6                 65536               0 Disabled Connected       ActiveStore
25      vEthernet (Container NIC 31c28d65) IPv4                  1500            5000 Disabled Connected       ActiveStore

""",
    "interfaces --all-compartments --family ipv6": """
ifIndex InterfaceAlias AddressFamily NlMtu(Bytes) InterfaceMetric Dhcp     ConnectionState PolicyStore CompartmentId
------- -------------- ------------- ------------ --------------- ----     --------------- ----------- -------------
1       lo             IPv6                 65536               0 Disabled Connected       ActiveStore 2

""",
    "routes --compartment 2": """
ifIndex DestinationPrefix NextHop    RouteMetric ifMetric PolicyStore
------- ----------------- -------    ----------- -------- -----------
2       0.0.0.0/0         172.18.0.1         256 0        ActiveStore
1       127.0.0.1/32      0.0.0.0              9 0        ActiveStore

""",
    "eventlog": """
   ProviderName: Microsoft-Windows-Hyper-V-Compute

TimeCreated            Id LevelDisplayName Message
-----------            -- ---------------- -------
2026-01-01T00:00:01Z 2001 Information      second
2026-01-01T00:00:00Z 2000 Information      first

""",
    "layerchain example": """/d/windowsfilter/c
  └─ /d/windowsfilter/b
  └─ /d/a
""",
    "hcs list": """Id   State     SystemType   Owner   ProcessId   Runtime
c    Running   Container    silo    7           crun
""",
    "hns networks": """
Name     : bridge
Subnets  : {@{AddressPrefix=172.17.0.0/16}}
Policies : {}

""",
    "images": """IMAGE                 ID             SIZE
silo/busybox:latest   d38c57295888   2.0MB
""",
    "images -q": "d38c57295888\n",
    "network ls": """NETWORK ID     NAME     DRIVER   SUBNET
d38c57295888   bridge   bridge   172.17.0.0/16
""",
    "ps -q": "d38c57295888\n",
}
REFUSED = {
    "running": Conflict('cannot remove container "/running": container is running'),
    "gone": NotFound("No such container: gone"),
}


class Recorded:
    """An engine that answers what was recorded, and remembers which containers it was asked to remove."""

    def __init__(self) -> None:
        self.removed: list[str] = []

    def router(self) -> Router:
        router = Router()
        router.add("GET", "/{path:.*}", self.answer, traced=False)
        router.add("DELETE", "/containers/{name}", self.remove, traced=False)
        return router

    async def answer(self, request):
        if request.path not in ANSWERS:
            raise NotFound(f"No such thing: {request.path}")
        return json_response(ANSWERS[request.path])

    async def remove(self, request):
        name = request.params["name"]
        if name in REFUSED:
            raise REFUSED[name]
        self.removed.append(name)
        return empty(204)


class Silo:
    def __init__(self, recorded: Recorded, host: str) -> None:
        self.recorded = recorded
        self.host = host

    def __call__(self, *words: str) -> Result:
        return CliRunner().invoke(main, ["-H", self.host, *words])


@pytest.fixture
def silo(tmp_path: Path) -> Iterator[Silo]:
    recorded = Recorded()
    socket = tmp_path / "silo.sock"
    with start_blocking_portal() as portal:
        listeners = [open_unix(socket)]
        serving, _ = portal.start_task(ApiServer(recorded.router(), version="0").serve, listeners)
        portal.call(EngineClient(f"unix://{socket}").wait_ready, 10)
        yield Silo(recorded, f"unix://{socket}")
        serving.cancel()


@pytest.mark.parametrize("words", PRINTED)
def test_printed(silo: Silo, words: str):
    done = silo(*words.split())
    assert done.exit_code == 0, done.output
    assert done.output == PRINTED[words]


def test_ps(silo: Silo):
    head, row = silo("ps").output.splitlines()
    assert head.split("   ")[0] == "CONTAINER ID"
    years = int(time.time() / 86400 / 365)
    assert row.split("   ") == [
        "d38c57295888", "silo/busybox", '"sh -c \'sleep 100000\'"', f"{years} years ago", "Up 2 minutes",
        "0.0.0.0:8080->80/tcp, 53/udp", "example",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ("ps -a", "/containers/json"), ("images", "/images/json"), ("network ls", "/networks"),
        ("compartments", "/silo/compartments"), ("interfaces", "/silo/interfaces"), ("routes", "/silo/routes"),
        ("layerchain example", "/silo/layerchain/example"), ("hcs list", "/silo/hcs"),
        ("hns networks", "/silo/hns/networks"),
    ],
)  # fmt: skip
def test_json_is_the_engines_answer(silo: Silo, words: str, path: str):
    done = silo(*words.split(), "--format", "json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == ANSWERS[path]


def test_inspect_finds_containers_images_and_networks(silo: Silo):
    done = silo("inspect", "example", "silo/busybox", "bridge", "--format", "json")
    assert [one["Id"] for one in json.loads(done.output)] == [ID, "an image", "a network"]


def test_inspect_prints_what_it_found_and_names_what_not(silo: Silo):
    done = silo("inspect", "nosuch", "bridge")
    assert json.loads(done.stdout) == [{"Id": "a network"}]
    assert done.stderr == "Error: No such object: nosuch\n"
    assert done.exit_code == 1


def test_one_failure_does_not_keep_the_others_from_being_done(silo: Silo):
    done = silo("rm", "first", "running", "last")
    assert done.stdout == "first\nlast\n"
    assert done.stderr == 'Error response from daemon: cannot remove container "/running": container is running\n'
    assert done.exit_code == 1
    assert sorted(silo.recorded.removed) == ["first", "last"]


def test_removing_by_force_what_is_not_there_is_no_failure(silo: Silo):
    assert silo("rm", "gone").exit_code == 1
    done = silo("rm", "-f", "gone")
    assert done.exit_code == 0
    assert done.stderr == "Error response from daemon: No such container: gone\n"
    assert silo("rm", "-f", "running", "gone").exit_code == 1


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("ps --nosuch", 125), ("--nosuch ps", 125), ("run --memory lots image", 125), ("stop -t soon x", 125),
        ("nosuch", 1), ("run", 1), ("network create a b", 1), ("rm", 1),
    ],
)  # fmt: skip
def test_wrong_words_exit_as_dockers_do(silo: Silo, words: str, code: int):
    done = silo(*words.split())
    assert done.exit_code == code
    assert "Error: " in done.stderr


def test_run_with_a_terminal_needs_one(silo: Silo):
    done = silo("run", "-it", "image")
    assert (done.exit_code, done.stderr) == (1, "the input device is not a TTY\n")


def test_run_exits_with_125_for_what_the_engine_refuses(silo: Silo):
    done = silo("run", "image")
    assert (done.exit_code, done.stderr) == (125, "silo: Error response from daemon: page not found\n")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""), (True, "True"), (7, "7"), ("", ""), ([], "{}"), (["a", 1], "{a, 1}"), ({"A": [1]}, "@{A={1}}"),
    ],
)  # fmt: skip
def test_values_as_powershell_shows_them(value, text):
    assert shown(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "Less than a second"), (0.9, "Less than a second"), (1, "1 second"), (59, "59 seconds"),
        (60, "About a minute"), (120, "2 minutes"), (3599, "59 minutes"), (3600, "About an hour"),
        (47 * 3600, "47 hours"), (48 * 3600, "2 days"), (13 * 86400, "13 days"), (14 * 86400, "2 weeks"),
        (59 * 86400, "8 weeks"), (60 * 86400, "2 months"), (729 * 86400, "24 months"), (731 * 86400, "2 years"),
    ],
)  # fmt: skip
def test_ages_in_dockers_words(seconds, text):
    assert ago(seconds) == text
