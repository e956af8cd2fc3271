"""The trace against the kernel: what it says was made is there afterwards, and was not there before."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.judge.harness import IMAGE, Engine


class Spans:
    """Every span of a container's traces, by what they are called."""

    def __init__(self, traces: list[dict[str, Any]]) -> None:
        self.traces = traces
        self.all = [span for trace in traces for span in trace["spans"]]

    def one(self, name: str, **attributes: str) -> dict[str, Any]:
        found = [
            span
            for span in self.all
            if span["name"] == name and all(span["attributes"].get(k) == v for k, v in attributes.items())
        ]
        assert found, f"no span {name} {attributes} in {[span['name'] for span in self.all]}"
        return found[0]

    def effects(self, span: dict[str, Any]) -> dict[str, str]:
        """Kind to object of what the span and those below it made."""
        below = {span["span_id"]}
        found: dict[str, str] = {}
        for other in self.all:
            if other["span_id"] in below or other["parent_id"] in below:
                below.add(other["span_id"])
                found.update({one["kind"]: one["object"] for one in other["effects"] if one["action"] == "+"})
        return found


def host(engine: Engine) -> dict[str, set[str]]:
    """What of the host an effect may name."""
    return {
        "mounts": {line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()},
        "volumes": {str(path) for path in engine.exec.glob("volumes/*")},
        "pins": {str(path) for path in engine.exec.glob("netns/*")},
        "links": {one.name for one in Path("/sys/class/net").iterdir()},
        "cgroups": {str(path) for path in Path("/sys/fs/cgroup").glob(f"*/silo-{engine.instance}/*")},
        "pids": {one.name for one in Path("/proc").iterdir() if one.name.isdecimal()},
    }


def nsenter(pid: int, *argv: str) -> str:
    return subprocess.run(["nsenter", "-t", str(pid), "-n", *argv], capture_output=True, text=True, check=True).stdout


def test_the_flow_of_the_mission_document(engine: Engine):
    engine.ok("network", "create", "examplenetwork")
    engine.ok("create", "-i", "--network", "examplenetwork", "--name", "warm", IMAGE, "sh")
    before_create = set(os.listdir(engine.data / "windowsfilter"))
    container = engine.ok("create", "-i", "--network", "examplenetwork", "--name", "example", IMAGE, "sh")
    created = set(os.listdir(engine.data / "windowsfilter")) - before_create
    assert created == {container}
    before = host(engine)
    engine.ok("start", "example")
    pid = engine.inspect("example")["State"]["Pid"]
    after = host(engine)
    spans = Spans(engine.traces("example"))

    assert [trace["spans"][0]["name"] for trace in spans.traces][:2] == [
        "api::POST /containers/create",
        "api::POST /containers/{name}/start",
    ]
    scratch = spans.one("hcsshim::CreateScratchLayer")
    assert spans.effects(scratch)["file"] == f"{engine.data}/windowsfilter/{container}"

    volume = spans.effects(spans.one("hcsshim::ActivateLayer"))["volume"]
    assert volume in after["volumes"] - before["volumes"]
    mount = spans.effects(spans.one("hcsshim::PrepareLayer"))["mount"]
    assert mount == volume
    assert mount in after["mounts"] - before["mounts"]

    assert not spans.effects(spans.one("hcsshim::HNSCall", method="POST", path="/endpoints/"))
    assert not spans.effects(spans.one("cnm::Join"))

    made = spans.effects(spans.one("hcsshim::CreateComputeSystem"))
    pin, _, namespace = made["netns"].partition(" ")
    assert pin in after["pins"] - before["pins"]
    assert os.readlink(f"/proc/{pid}/ns/net") == namespace
    link, _, alias = made["link"].partition(" ")
    shown = json.loads(nsenter(pid, "ip", "-j", "link", "show", link))[0]
    assert shown["ifalias"] == alias
    assert alias.startswith("vEthernet (Container NIC ")
    bridge, port = made["port"].split("/")
    assert port in after["links"] - before["links"]
    assert os.path.exists(f"/sys/class/net/{bridge}/brif/{port}")
    assert made["address"] in nsenter(pid, "ip", "-br", "addr", "show", link)
    assert made["cgroup"] in after["cgroups"] - before["cgroups"]
    assert str(pid) in Path(made["cgroup"], "cgroup.procs").read_text().split()
    assert made["compartment"].split()[1] == f"\\Container_{container}"
    assert int(made["init"].split()[0]) == pid
    assert str(pid) in after["pids"] - before["pids"]

    spans.one("hcsshim::ComputeSystem::Start")
    process = spans.effects(spans.one("hcsshim::ComputeSystem::CreateProcess"))["process"]
    assert process == f"{pid} sh"
    assert os.readlink(f"/proc/{pid}/exe").endswith("busybox")


def test_order_and_nesting(engine: Engine):
    engine.ok("network", "create", "examplenetwork")
    engine.ok("run", "-id", "--network", "examplenetwork", "--name", "example", IMAGE, "sh")
    traces = engine.traces("example")
    roots = [trace["spans"][0] for trace in traces]
    assert [root["name"] for root in roots] == [
        "api::POST /containers/create",
        "api::POST /containers/{name}/wait",
        "api::POST /containers/{name}/start",
    ]
    assert roots[0]["start_ns"] < roots[1]["start_ns"] < roots[2]["start_ns"]
    names = [span["name"] for trace in traces for span in trace["spans"]]
    wanted = [
        "hcsshim::GetLayerMountPath",
        "hcsshim::CreateScratchLayer",
        "hcsshim::ActivateLayer",
        "hcsshim::PrepareLayer",
        "hcsshim::HNSCall",
        "cnm::Join",
        "hcsshim::CreateComputeSystem",
        "hcsshim::ComputeSystem::Start",
        "hcsshim::ComputeSystem::CreateProcess",
    ]
    places = [names.index(name) for name in wanted]
    assert places == sorted(places)
    for trace in traces:
        known = {}
        for span in trace["spans"]:
            end = span["start_ns"] + span["duration_ns"]
            if span["parent_id"] is None:
                assert span["span_id"] == trace["root"]
            else:
                parent = known[span["parent_id"]]
                assert parent["start_ns"] <= span["start_ns"]
                if parent["duration_ns"]:
                    slack = 2_000_000  # starts are wall-clock, durations are not
                    assert end <= parent["start_ns"] + parent["duration_ns"] + slack
            known[span["span_id"]] = span


def test_a_failed_step_shows_its_error_and_what_was_undone(engine: Engine):
    engine.docker("run", "--name", "bad", IMAGE, "nosuch")
    spans = Spans(engine.traces("bad"))
    failed = spans.one("hcsshim::CreateComputeSystem")
    assert failed["status"] == "error"
    assert "executable file not found" in failed["error"]
    undone = {one["kind"] for span in spans.all for one in span["effects"] if one["action"] == "-"}
    assert {"mount", "netns", "compartment"} <= undone


def test_traces_survive_a_restart_and_their_container(engine: Engine):
    container = engine.ok("run", "-d", "--name", "gone", IMAGE, "true")
    engine.ok("wait", "gone")
    engine.ok("rm", "gone")
    engine.stop()
    engine.start()
    names = [span["name"] for trace in engine.traces(container) for span in trace["spans"]]
    assert "hcsshim::CreateComputeSystem" in names
    assert "daemon::ContainerRemove" in names


def test_what_the_other_commands_show(engine: Engine):
    container = engine.ok("run", "-id", "--name", "example", IMAGE, "sh")
    pid = engine.inspect("example")["State"]["Pid"]
    rows = json.loads(engine.silo("compartments", "--format", "json"))
    assert (rows[0]["CompartmentId"], rows[0]["CompartmentType"]) == (1, "Native")
    assert rows[1]["CompartmentDescription"] == f"\\Container_{container}"
    assert rows[1]["CompartmentType"] == "Unspecified"
    assert rows[1]["Namespace"] == os.readlink(f"/proc/{pid}/ns/net")
    number = str(rows[1]["CompartmentId"])
    nics = json.loads(engine.silo("interfaces", "--compartment", number, "--family", "ipv4", "--format", "json"))
    assert any(row["InterfaceAlias"].startswith("vEthernet (Container NIC ") for row in nics)
    routes = json.loads(engine.silo("routes", "--compartment", number, "--format", "json"))
    gateway = engine.inspect("example")["NetworkSettings"]["Gateway"]
    assert ("0.0.0.0/0", gateway) in [(row["DestinationPrefix"], row["NextHop"]) for row in routes]
    assert json.loads(engine.silo("layerchain", "example", "--format", "json"))["chain"] == json.loads(
        (engine.data / "windowsfilter" / container / "layerchain.json").read_text()
    )
    events = json.loads(engine.silo("eventlog", "--format", "json"))
    assert any(event["Id"] == 2000 and container in event["Message"] for event in events)
    assert "Container NIC" in engine.silo("trace", "example")
