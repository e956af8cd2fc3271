"""The service's event log: what Get-WinEvent shows of Hyper-V-Compute (reference, section 6.5), bounded and kept."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from silo.store import Append, Store

TABLE: Final = "eventlog"
KEEP: Final = 5000
LOG_NAME: Final = "Microsoft-Windows-Hyper-V-Compute-Operational"
PROVIDER: Final = "Microsoft-Windows-Hyper-V-Compute"
_EVENTS: Final = {
    "create": (2000, "Create compute system"),
    "start": (2001, "Start compute system"),
    "shut down": (2002, "Shutdown compute system"),
    "terminate": (2003, "Terminate compute system"),
    "pause": (2004, "Pause compute system"),
    "resume": (2005, "Resume compute system"),
    "create process": (2006, "Create process"),
    "modify": (2007, "Modify compute system"),
    "exit": (2010, "Compute system exited"),
}
"""2000 and 2007 are documented; the others are our reading of the range the reference leaves open."""


def entry(verb: str, system_id: str, result: int, time_created: str, detail: str = "") -> Append:
    """The step that appends one entry."""
    number, text = _EVENTS[verb]
    event = {
        "TimeCreated": time_created,
        "Id": number,
        "LevelDisplayName": "Information" if result == 0 else "Error",
        "Message": f"[{system_id}] {text}{', ' + detail if detail else ''}, result {result & 0xFFFFFFFF:#010x}",
        "ProviderName": PROVIDER,
        "LogName": LOG_NAME,
    }
    return Append(TABLE, msgspec.json.encode(event), KEEP)


def read(store: Store, log_name: str, limit: int = KEEP) -> list[dict[str, Any]]:
    """The newest entries of a channel (all channels when ``log_name`` is empty), oldest first."""
    events = [msgspec.json.decode(value) for value in store.tail(TABLE, limit)]
    return [event for event in events if not log_name or event["LogName"] == log_name]
