"""The create document against what dockerd 20.10 was recorded to give its runtime for the same options."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import msgspec
import pytest

from silo.daemon.document import ContainerFacts, capability_set, container_document
from silo.daemon.mounts import mount_points
from silo.daemon.seccomp import default_profile
from silo.errors import InvalidParameter
from silo.host.hcs.devices import add_devices
from silo.schema.engine import HostConfig, convert
from silo.schema.hcs import AssignedDevice, ContainerDocument, DeviceRate
from silo.schema.oci import CAPABILITIES

DATA = Path(__file__).parent / "data"
RECORDED: dict[str, Any] = msgspec.json.decode((DATA / "dockerd-20.10-cases.json").read_bytes())
SECCOMP: dict[str, Any] = msgspec.json.decode((DATA / "dockerd-20.10-seccomp.json").read_bytes())
ENGINE_FILES = {f"/etc/{name}": f"/data/containers/CID/{name}" for name in ("resolv.conf", "hostname", "hosts")}
NOT_COMPARED = {
    "device_bps",  # completed from a block device of the recording host
    "ipc_shareable",  # dockerd keeps its shm mounted on the host; here every container's is its own
}


CASES = sorted(set(RECORDED["cases"]) - NOT_COMPARED)


def merged(base: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = copy.deepcopy(base) if isinstance(base, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def facts(**changes: Any) -> ContainerFacts:
    given: dict[str, Any] = {
        "id": "CID",
        "hostname": "CID12",
        "domainname": "",
        "argv": ("sleep", "1000"),
        "environment": ("PATH=/bin",),
        "working_dir": "",
        "user": "",
        "tty": False,
        "open_stdin": False,
        "stdin_once": False,
        "volume": "ROOT",
        "layer_folder": "/data/windowsfilter/CID",
        "layers": ("/data/windowsfilter/top", "/data/windowsfilter/base"),
        "bundle": "/data/containers/CID",
        "log": "/data/containers/CID/log",
        "files": ENGINE_FILES,
        "mounts": (),
        "endpoints": (),
        "network_mode": "private",
        "host": HostConfig(ipc_mode="private", shm_size=64 << 20, cgroupns_mode="host"),
        "cgroup_parent": "/docker",
        "machine": "x86_64",
    }
    return ContainerFacts(**{**given, **changes})


def from_case(case: dict[str, Any], recorded: dict[str, Any]) -> ContainerDocument:
    host, config = convert(case["HostConfig"], HostConfig), case["Config"]
    mounts = mount_points(host, ())
    for point in mounts:
        if point.type == "volume":
            point.source = f"/data/volumes/{point.name}/_data"
    return container_document(
        facts(
            host=host,
            hostname=config.get("Hostname", ""),
            domainname=config.get("Domainname", ""),
            user=config.get("User", ""),
            tty=config.get("Tty", False),
            open_stdin=config.get("OpenStdin", False),
            working_dir=config.get("WorkingDir", ""),
            environment=tuple(recorded["process"]["env"]),
            mounts=tuple(mounts),
            network_mode="host" if host.network_mode == "host" else "private",
        )
    )


def comparable(given: dict[str, Any]) -> dict[str, Any]:
    """Two configurations that mean the same become equal."""
    config = copy.deepcopy(given)
    process, linux = config["process"], config["linux"]
    for key in ("user", "consoleSize"):
        process.pop(key, None)  # the user is looked up by the host
    process["capabilities"] = set(process["capabilities"]["bounding"])
    process["rlimits"] = sorted(process.get("rlimits") or [], key=str)
    process["noNewPrivileges"] = process.get("noNewPrivileges", False)
    process["terminal"] = process.get("terminal", False)
    config["root"]["readonly"] = config["root"].get("readonly", False)
    config["mounts"] = {
        mount["destination"]: (
            mount["type"],
            mount["source"],
            {option.replace("size=1048576", "size=1m") for option in mount["options"]} - {"rw", "exec"},
        )
        for mount in config["mounts"]
    }
    for key in ("seccomp", "maskedPaths", "readonlyPaths"):
        linux.pop(key, None)
    linux["namespaces"] = {one["type"] for one in linux["namespaces"]}
    linux["sysctl"] = linux.get("sysctl") or {}
    linux["devices"] = sorted(linux.get("devices") or [], key=str)
    resources = linux["resources"]
    linux["resources"] = {
        kind: kept
        for kind, values in resources.items()
        if (kept := values if kind == "devices" else {key: value for key, value in values.items() if value})
    }
    for key in ("ociVersion", "annotations"):
        config.pop(key, None)
    return config


@pytest.mark.parametrize("name", CASES)
def test_configuration_means_what_dockerd_gives(name: str) -> None:
    case = RECORDED["cases"][name]
    recorded = merged(RECORDED["default"], case["patch"])
    document = from_case(case, recorded)
    ours = copy.deepcopy(document.OCISpecification)
    add_devices(ours["linux"], document.AssignedDevices, everything=False)
    assert comparable(ours) == comparable(recorded)


@pytest.mark.parametrize("name", CASES)
def test_at_least_dockerds_paths_are_hidden(name: str) -> None:
    recorded = merged(RECORDED["default"], RECORDED["cases"][name]["patch"])["linux"]
    ours = from_case(RECORDED["cases"][name], merged(RECORDED["default"], RECORDED["cases"][name]["patch"]))
    linux = ours.OCISpecification["linux"]
    for key in ("maskedPaths", "readonlyPaths"):
        assert set(recorded.get(key) or []) <= set(linux.get(key) or [])
        assert bool(recorded.get(key)) == bool(linux.get(key))


def rule_set(profile: dict[str, Any]) -> set[tuple[str, ...]]:
    """Every call with its condition and answer."""
    rules: set[tuple[str, ...]] = set()
    for rule in profile["syscalls"]:
        condition = str([(arg["index"], arg["value"], arg["op"]) for arg in rule.get("args") or []])
        rules |= {(name, rule["action"], str(rule.get("errnoRet", "")), condition) for name in rule["names"]}
    return rules


@pytest.mark.parametrize("name", sorted(SECCOMP))
def test_seccomp_profile_allows_what_dockerds_does(name: str) -> None:
    host = convert(RECORDED["cases"][name]["HostConfig"], HostConfig)
    ours = default_profile(capability_set(host), "x86_64")
    assert rule_set(ours) == rule_set(SECCOMP[name])
    assert ours["architectures"] == SECCOMP[name]["architectures"]
    assert ours["defaultAction"] == SECCOMP[name]["defaultAction"]


def test_schema_1_keys() -> None:
    document = container_document(facts(endpoints=("guid-1", "guid-2"), host=HostConfig(memory=64 << 20)))
    wire = msgspec.to_builtins(document)
    assert (wire["SystemType"], wire["Owner"], wire["Name"], wire["HvPartition"]) == ("Container", "silo", "CID", False)
    assert [layer["Path"] for layer in wire["Layers"]] == ["/data/windowsfilter/top", "/data/windowsfilter/base"]
    assert wire["EndpointList"] == ("guid-1", "guid-2")
    assert wire["MemoryMaximumInMB"] == 64
    assert wire["AllowUnqualifiedDNSQuery"] is True
    assert "NetworkSharedContainerName" not in wire
    assert container_document(facts(network_mode="shared:OTHER")).NetworkSharedContainerName == "OTHER"


def test_same_facts_same_document() -> None:
    assert container_document(facts()) == container_document(facts())


def test_a_document_survives_the_gate() -> None:
    document = container_document(facts(host=HostConfig(privileged=True)))
    wire = msgspec.json.decode(msgspec.json.encode(document))
    assert msgspec.convert(wire, ContainerDocument) == document


def test_privileged_leaves_what_is_possible_to_the_host() -> None:
    document = container_document(facts(host=HostConfig(privileged=True)))
    assert document.AllDevices
    assert document.AllCapabilities
    linux = document.OCISpecification["linux"]
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert not {"seccomp", "maskedPaths", "readonlyPaths"} & set(linux)
    assert set(document.OCISpecification["process"]["capabilities"]["bounding"]) == set(CAPABILITIES)
    options = {mount["destination"]: mount["options"] for mount in document.OCISpecification["mounts"]}
    assert "ro" not in options["/sys"]
    assert "ro" not in options["/sys/fs/cgroup"]


def test_devices_and_rates_are_named_for_the_host() -> None:
    case = RECORDED["cases"]["device_bps"]
    rates = from_case(case, RECORDED["default"]).DeviceRates
    assert rates == (
        DeviceRate("/dev/vda", "throttleReadBpsDevice", 1 << 20),
        DeviceRate("/dev/vda", "throttleWriteIOPSDevice", 100),
    )
    assert from_case(RECORDED["cases"]["device"], RECORDED["default"]).AssignedDevices == (
        AssignedDevice("/dev/null", "/dev/mynull", "r"),
        AssignedDevice("/dev/zero", "/dev/zero", "rwm"),
    )


@pytest.mark.parametrize(("parent", "path"), [("p", "/p/CID"), ("/a/b/", "/a/b/CID"), ("../../x", "/x/CID")])
def test_cgroup_parent_stays_below_the_root(parent: str, path: str) -> None:
    linux = container_document(facts(host=HostConfig(cgroup_parent=parent))).OCISpecification["linux"]
    assert linux["cgroupsPath"] == path


@pytest.mark.parametrize(
    "host",
    [
        HostConfig(cap_add=["NOSUCH"]),
        HostConfig(security_opt=["nosuch=1"]),
        HostConfig(device_cgroup_rules=["x 1:3 rwm"]),
        HostConfig(device_cgroup_rules=["c 1:b rwm"]),
        HostConfig(security_opt=["seccomp={"]),
    ],
)
def test_what_no_runtime_could_honour_is_refused(host: HostConfig) -> None:
    with pytest.raises(InvalidParameter):
        container_document(facts(host=host))
