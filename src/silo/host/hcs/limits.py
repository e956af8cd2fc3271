"""What this host lets us give: limits are lowered to it instead of failing the start.

In a container or a small VM the engine itself may lack capabilities; without CAP_SYS_RESOURCE it can raise no hard
limit and lower no OOM score, and a capability that it lacks it cannot give.
"""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any, Final

from silo.schema.oci import CAPABILITIES

APPARMOR: Final = Path("/sys/module/apparmor/parameters/enabled")
RAISES_LIMITS: Final = "CAP_SYS_RESOURCE"


def own_capabilities() -> frozenset[str]:
    """The capabilities that this process may hand on: permitted and in the bounding set."""
    sets: dict[str, int] = {}
    for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
        name, _, value = line.partition(":")
        if name in {"CapPrm", "CapBnd"}:
            sets[name] = int(value, 16)
    both = sets["CapPrm"] & sets["CapBnd"]
    return frozenset(name for number, name in enumerate(CAPABILITIES) if both >> number & 1)


def clamp(process: dict[str, Any], have: frozenset[str], *, all_capabilities: bool) -> list[str]:
    """Lower what a container's ``process`` asks beyond what we have; return what was lowered, for the trace.

    Capabilities are lowered only where "all" was asked for: one asked for by name that cannot be given is an error,
    which the runtime raises.
    """
    lowered = _capabilities(process, have) if all_capabilities else []
    if "apparmorProfile" in process and not _has_apparmor():
        lowered.append(f"without the AppArmor profile {process.pop('apparmorProfile')}")
    if RAISES_LIMITS in have:
        return lowered
    return [*lowered, *_rlimits(process), *_oom_score(process)]


def _capabilities(process: dict[str, Any], have: frozenset[str]) -> list[str]:
    sets = process["capabilities"]
    missing = [name for name in sets["bounding"] if name not in have]
    for key, names in sets.items():
        sets[key] = [name for name in names if name in have]
    return [f"without {name}" for name in missing]


def _has_apparmor() -> bool:
    try:
        return APPARMOR.read_text("ascii").startswith("Y")
    except OSError:
        return False


def _rlimits(process: dict[str, Any]) -> list[str]:
    lowered = []
    for limit in process.get("rlimits") or []:
        _, hard = resource.getrlimit(getattr(resource, limit["type"]))
        if hard != resource.RLIM_INFINITY and limit["hard"] > hard:
            lowered.append(f"{limit['type']} {limit['hard']} -> {hard}")
            limit["hard"] = hard
        limit["soft"] = min(limit["soft"], limit["hard"])
    return lowered


def _oom_score(process: dict[str, Any]) -> list[str]:
    own = int(Path("/proc/self/oom_score_adj").read_text("ascii"))
    asked = process.get("oomScoreAdj", 0)
    if asked >= own:
        return []
    process["oomScoreAdj"] = own
    return [f"oom_score_adj {asked} -> {own}"]
