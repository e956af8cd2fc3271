"""The create document against a configuration recorded from dockerd 20.10, and the options on top of it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from silo.daemon.container import MountPoint
from silo.daemon.document import ContainerFacts, capability_set, container_document
from silo.daemon.seccomp import default_profile
from silo.errors import InvalidParameter
from silo.schema.engine import HostConfig, Ulimit
from silo.schema.oci import CAPABILITIES

RECORDED = json.loads((Path(__file__).parent / "data" / "dockerd-20.10-config.json").read_text())


def facts(host: HostConfig | None = None, **changes) -> ContainerFacts:
    values = {
        "id": "c" * 64,
        "hostname": "22323a8be3af",
        "domainname": "",
        "argv": ("sh", "-c", "true"),
        "environment": ("PATH=/bin",),
        "working_dir": "",
        "user": "",
        "tty": False,
        "open_stdin": False,
        "stdin_once": False,
        "volume": "/run/volumes/x",
        "layer_folder": "/data/windowsfilter/" + "c" * 64,
        "layers": ("/data/windowsfilter/aa", "/data/windowsfilter/bb"),
        "bundle": "/data/containers/c",
        "log": "/data/containers/c/log",
        "files": {"/etc/resolv.conf": "/f/resolv.conf", "/etc/hostname": "/f/hostname", "/etc/hosts": "/f/hosts"},
        "mounts": (),
        "endpoints": ("guid",),
        "network_mode": "private",
        "host": host or HostConfig(shm_size=67108864),
        "cgroup_parent": "/silo-x",
        "machine": "x86_64",
    }
    return ContainerFacts(**{**values, **changes})


def oci(host: HostConfig | None = None, **changes) -> dict:
    return container_document(facts(host, **changes)).OCISpecification


def test_capabilities_equal_dockerds():
    for kind, names in RECORDED["process"]["capabilities"].items():
        assert set(oci()["process"]["capabilities"][kind]) == set(names)


def test_mounts_equal_dockerds():
    ours = {mount["destination"]: (mount["type"], set(mount["options"])) for mount in oci()["mounts"]}
    for mount in RECORDED["mounts"]:
        assert ours[mount["destination"]] == (mount["type"], set(mount["options"])), mount["destination"]
    assert len(ours) == len(RECORDED["mounts"])


def test_everything_that_dockerd_masks_is_masked():
    assert set(RECORDED["linux"]["maskedPaths"]) <= set(oci()["linux"]["maskedPaths"])
    assert set(RECORDED["linux"]["readonlyPaths"]) == set(oci()["linux"]["readonlyPaths"])


def test_namespaces_and_sysctls_equal_dockerds():
    assert {one["type"] for one in oci()["linux"]["namespaces"]} == {
        one["type"] for one in RECORDED["linux"]["namespaces"]
    }
    assert oci()["linux"]["sysctl"] == RECORDED["linux"]["sysctl"]


def test_the_seccomp_table_equals_dockerds():
    def flat(profile: dict) -> set[tuple]:
        return {
            (name, rule["action"], rule.get("errnoRet"), json.dumps(arguments, sort_keys=True))
            for rule in profile["syscalls"]
            for name in rule["names"]
            for arguments in [
                [{key: one[key] for key in ("index", "value", "op")} for one in rule.get("args") or []],
            ]
        }

    recorded = RECORDED["linux"]["seccomp"]
    assert recorded["defaultAction"] == oci()["linux"]["seccomp"]["defaultAction"]
    assert flat(oci()["linux"]["seccomp"]) == flat(recorded)
    assert oci()["linux"]["seccomp"]["architectures"] == recorded["architectures"]


def test_more_capabilities_allow_more_calls():
    plain, admin = default_profile((), "x86_64"), default_profile(("CAP_SYS_ADMIN",), "x86_64")
    assert "mount" not in plain["syscalls"][0]["names"]
    assert {"mount", "clone", "setns"} <= set(admin["syscalls"][0]["names"])


def test_the_schema_1_keys():
    document = msgspec.to_builtins(container_document(facts(HostConfig(memory=64 << 20))))
    assert document["SystemType"] == "Container"
    assert document["Owner"] == "silo"
    assert document["VolumePath"] == "/run/volumes/x"
    assert [layer["Path"] for layer in document["Layers"]] == ["/data/windowsfilter/aa", "/data/windowsfilter/bb"]
    assert document["EndpointList"] == ("guid",)
    assert document["MemoryMaximumInMB"] == 64
    assert document["HvPartition"] is False


@pytest.mark.parametrize(
    ("add", "drop", "more", "less"),
    [
        (["NET_ADMIN"], None, {"CAP_NET_ADMIN"}, set()),
        (["net_admin"], ["CHOWN"], {"CAP_NET_ADMIN"}, {"CAP_CHOWN"}),
        (None, ["ALL"], set(), {"CAP_CHOWN", "CAP_KILL"}),
        (["ALL"], ["SYS_ADMIN"], {"CAP_SYS_TIME"}, {"CAP_SYS_ADMIN"}),
        (["CHOWN"], ["ALL"], {"CAP_CHOWN"}, {"CAP_KILL"}),
    ],
)
def test_capabilities_added_and_dropped(add, drop, more, less):
    names = set(capability_set(HostConfig(cap_add=add, cap_drop=drop)))
    assert more <= names
    assert not less & names


def test_privileged_has_it_all_and_nothing_masked():
    made = oci(HostConfig(privileged=True))
    assert set(made["process"]["capabilities"]["effective"]) == set(CAPABILITIES)
    assert "maskedPaths" not in made["linux"]
    assert "seccomp" not in made["linux"]
    assert made["linux"]["resources"]["devices"][0]["allow"] is True


def test_limits():
    host = HostConfig(
        memory=1 << 30, nano_cpus=1_500_000_000, pids_limit=50, ulimits=[Ulimit(name="nofile", soft=9, hard=-1)]
    )
    made = oci(host)
    assert made["linux"]["resources"]["memory"]["limit"] == 1 << 30
    assert made["linux"]["resources"]["cpu"] == {"quota": 150_000, "period": 100_000}
    assert made["linux"]["resources"]["pids"] == {"limit": 50}
    assert made["process"]["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 9, "hard": (1 << 64) - 1}]


@pytest.mark.parametrize(
    ("host", "text"),
    [
        (HostConfig(cap_add=["NOPE"]), 'invalid capability: "NOPE"'),
        (HostConfig(ulimits=[Ulimit(name="nope")]), "invalid ulimit type"),
        (HostConfig(security_opt=["nope"]), "invalid --security-opt"),
        (HostConfig(device_cgroup_rules=["x"]), "invalid device cgroup rule format"),
        (HostConfig(security_opt=["seccomp={"]), "opening seccomp profile failed"),
    ],
)
def test_what_no_runtime_could_honour(host, text):
    with pytest.raises(InvalidParameter, match=text):
        container_document(facts(host))


def test_a_users_mount_replaces_a_default_one():
    point = MountPoint(type="bind", source="/h", destination="/etc/hosts", rw=False, propagation="rprivate")
    mounts = [mount for mount in oci(mounts=(point,))["mounts"] if mount["destination"] == "/etc/hosts"]
    assert [(mount["source"], mount["options"]) for mount in mounts] == [("/h", ["rbind", "ro", "rprivate"])]


def test_the_same_facts_give_the_same_document():
    assert msgspec.json.encode(container_document(facts())) == msgspec.json.encode(container_document(facts()))
