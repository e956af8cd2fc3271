"""What queries answer about a compute system, with the keys of the reference, section 4.6."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from silo.host.hcs.records import SystemRecord
from silo.host.hcs.states import SystemState
from silo.host.linux.cgroup import ControlGroup
from silo.schema.hcs import ProcessStatus


def basic(record: SystemRecord) -> dict[str, Any]:
    """A row of the enumeration; the last ones are of this implementation."""
    return {
        "Id": record.id,
        "State": record.state.value,
        "Name": record.document.Name,
        "SystemType": record.document.SystemType,
        "RuntimeOsType": "Linux",
        "Owner": record.document.Owner,
        "RuntimeId": record.runtime_id,
        "Stopped": record.state == SystemState.STOPPED,
        "ExitType": exit_type(record) if record.state == SystemState.STOPPED else "None",
        "ExitCode": record.exit_code,
        "FinishedAt": record.finished_ns,
        "OOMKilled": record.oom_killed,
        "ProcessCreated": record.process_created,
        "ProcessId": record.pid,
        "Runtime": record.runtime,
        "Cgroup": record.cgroup,
    }


def exit_type(record: SystemRecord) -> str:
    """How a stopped system ended: by itself, by force, or so that nobody knows its exit code."""
    if record.forced:
        return "ForcedExit"
    return "UnexpectedExit" if record.lost else "GracefulExit"


def process(record: SystemRecord) -> dict[str, Any]:
    """The process's properties, as :class:`ProcessStatus`."""
    status = ProcessStatus(
        ProcessId=record.pid,
        Exited=record.state == SystemState.STOPPED,
        ExitCode=record.exit_code,
        FinishedAt=record.finished_ns,
        OOMKilled=record.oom_killed,
    )
    return msgspec.to_builtins(status)  # type: ignore[no-any-return]


def statistics(group: ControlGroup) -> dict[str, Any]:
    """What the system uses now; times in units of 100 ns.  Blocks."""
    usage = group.usage()
    return {
        "Memory": {
            "MemoryUsageCommitBytes": usage.memory,
            "MemoryUsageCommitPeakBytes": usage.memory_peak,
            "MemoryUsagePrivateWorkingSetBytes": max(0, usage.memory - usage.inactive_file),
            "MemoryLimitBytes": usage.memory_limit,
        },
        "Processor": {
            "TotalRuntime100ns": usage.cpu_total // 100,
            "RuntimeUser100ns": usage.cpu_user // 100,
            "RuntimeKernel100ns": usage.cpu_system // 100,
        },
        "Processes": {"Count": usage.pids, "Limit": usage.pids_limit},
    }


def process_list(group: ControlGroup) -> list[dict[str, Any]]:
    """The system's processes, by pid.  Blocks."""
    return [row for pid in group.pids() if (row := _process_row(pid))]


def _process_row(pid: int) -> dict[str, Any] | None:
    try:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = rest.split()
    tick = 10_000_000 // os.sysconf("SC_CLK_TCK")
    return {
        "ProcessId": pid,
        "ImageName": name.partition("(")[2],
        "UserTime100ns": int(fields[11]) * tick,
        "KernelTime100ns": int(fields[12]) * tick,
        "MemoryWorkingSetPrivateBytes": int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
    }
