"""What the engine says of itself: ``/version``, ``/info``, and what the introspection routes show."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any, Final

import anyio

from silo import __version__
from silo.daemon import logconfig, probe
from silo.daemon.clock import now
from silo.daemon.container import Status
from silo.daemon.daemon import Daemon, HostFacts

API_VERSION: Final = "1.50"
MIN_API_VERSION: Final = "1.24"
_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def host_facts(*, instance: str, cgroup_version: str, runtime: str, runtimes: dict[str, str]) -> HostFacts:
    """Look at the host once, at start."""
    release = {
        key: value.strip('"')
        for key, _, value in (
            line.partition("=") for line in Path("/etc/os-release").read_text("utf-8").splitlines() if "=" in line
        )
    }
    return HostFacts(
        instance=instance,
        name=platform.node(),
        kernel_version=platform.release(),
        operating_system=release.get("PRETTY_NAME", "Linux"),
        os_version=release.get("VERSION_ID", ""),
        architecture=platform.machine(),
        cpus=os.cpu_count() or 1,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        cgroup_version=cgroup_version,
        runtime=runtime,
        runtimes=runtimes,
        security_options=[
            "name=seccomp,profile=builtin",
            *(["name=cgroupns"] if cgroup_version == "2" and probe.has_cgroup_namespaces() else []),
        ],
        limits=probe.limits(cgroup_version),
    )


def version(daemon: Daemon) -> dict[str, Any]:
    """``docker version``."""
    facts = daemon.facts
    details = {
        "ApiVersion": API_VERSION,
        "Arch": _MACHINES.get(facts.architecture, facts.architecture),
        "BuildTime": "",
        "Experimental": "false",
        "GitCommit": "",
        "GoVersion": "none: Python " + platform.python_version(),
        "KernelVersion": facts.kernel_version,
        "MinAPIVersion": MIN_API_VERSION,
        "Os": "linux",
    }
    return {
        "Platform": {"Name": "Silo"},
        "Components": [
            {"Name": "Engine", "Version": __version__, "Details": details},
            *({"Name": name, "Version": text, "Details": {}} for name, text in facts.runtimes.items()),
        ],
        "Version": __version__,
        **details,
        "Experimental": False,
    }


async def info(daemon: Daemon, api: tuple[int, int]) -> dict[str, Any]:
    """``docker info`` for a client that speaks version ``api``."""
    facts, limits = daemon.facts, daemon.facts.limits
    count = dict.fromkeys(Status, 0)
    for container in daemon.registry.all():
        count[container.state.status] += 1
    running, paused = count[Status.RUNNING], count[Status.PAUSED]
    return {
        "ID": f"silo-{facts.instance}",
        "Containers": sum(count.values()),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": sum(count.values()) - running - paused,
        "Images": len(await daemon.images.list({}, all=True, version=(1, 50))),
        "Driver": "windowsfilter",
        "DriverStatus": [
            ["Storage filter", "overlayfs"],
            ["Backing Filesystem", probe.filesystem_of(daemon.data_root)],
            ["Windows", ""],
        ],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "nat", "none"],
            "Authorization": None,
            "Log": [*logconfig.DRIVERS],
        },
        "MemoryLimit": limits.memory,
        "SwapLimit": limits.swap,
        "CpuCfsPeriod": limits.cpu_cfs,
        "CpuCfsQuota": limits.cpu_cfs,
        "CPUShares": limits.cpu_shares,
        "CPUSet": limits.cpuset,
        "PidsLimit": limits.pids,
        "OomKillDisable": limits.oom_kill_disable,
        "IPv4Forwarding": probe.is_forwarding(),
        "Debug": False,
        "NFd": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - a listing of open files, not of a tree
        "NGoroutines": len(anyio.get_running_tasks()),
        "SystemTime": now(),
        "LoggingDriver": daemon.log_config.type,
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": facts.cgroup_version,
        "NEventsListener": daemon.events.listeners,
        "KernelVersion": facts.kernel_version,
        "OperatingSystem": facts.operating_system,
        "OSVersion": facts.os_version,
        "OSType": "linux",
        "Architecture": facts.architecture,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {
            "IndexConfigs": {"docker.io": {"Mirrors": [], "Name": "docker.io", "Official": True, "Secure": True}},
            "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"],
            "Mirrors": None,
        },
        "NCPU": facts.cpus,
        "MemTotal": facts.memory,
        "GenericResources": None,
        "DockerRootDir": str(daemon.data_root),
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": facts.name,
        "Labels": [],
        "ExperimentalBuild": False,
        "ServerVersion": __version__,
        "Runtimes": {name: {"path": name} for name in facts.runtimes if name in {"crun", "runc"}},
        "DefaultRuntime": facts.runtime,
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "LiveRestoreEnabled": True,
        "Isolation": "",
        "InitBinary": "",
        "SecurityOptions": facts.security_options,
        "Warnings": probe.warnings(limits, facts.cgroup_version) or None,
        "CDISpecDirs": [],
        **_of_version(api),
    }


def _of_version(api: tuple[int, int]) -> dict[str, Any]:
    """Members that came or went with a version of the API."""
    commits = ("ContainerdCommit", "RuncCommit", "InitCommit")
    shown: dict[str, Any] = {
        name: {"ID": "N/A"} if api >= (1, 49) else {"ID": "N/A", "Expected": "N/A"} for name in commits
    }
    if api >= (1, 49):
        shown["FirewallBackend"] = {"Driver": "nftables"}
    if api < (1, 50):
        shown |= {"BridgeNfIptables": False, "BridgeNfIp6tables": False}
    return shown
