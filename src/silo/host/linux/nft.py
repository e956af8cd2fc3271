"""nftables through libnftables: one JSON transaction a call, all of it or nothing; no program is started."""

from __future__ import annotations

import threading
from typing import Any

from nftables import Nftables

from silo.errors import HostFault

_lock = threading.Lock()
_context: list[Any] = []


def run(commands: list[dict[str, Any]]) -> dict[str, Any]:
    """Run the commands of one transaction (libnftables-json(5)).  Blocks.  Raises HostFault with nft's own words."""
    with _lock:  # a libnftables context is for one thread at a time
        if not _context:
            _context.append(Nftables())
        code, output, error = _context[0].json_cmd({"nftables": commands})
    if code != 0:
        raise HostFault(f"nftables: {(error or output or 'refused').strip()}")
    return output if isinstance(output, dict) else {}


def table_exists(family: str, name: str) -> bool:
    """Whether there is such a table."""
    listed = run([{"list": {"tables": {"family": family}}}]).get("nftables", [])
    return any(entry.get("table", {}).get("name") == name for entry in listed)
