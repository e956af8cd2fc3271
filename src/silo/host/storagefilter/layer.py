"""The life of a layer, as one table (reference, section 3.3).  Pure."""

from __future__ import annotations

import enum
from typing import Final

from silo.host.results import Code, HostError


class LayerState(enum.StrEnum):
    """Where a layer is in its life."""

    ABSENT = "absent"
    READ_ONLY = "read-only"
    CREATED = "created"
    ACTIVATED = "activated"
    PREPARED = "prepared"


MOVES: Final = {
    (LayerState.ABSENT, "CreateLayer"): LayerState.READ_ONLY,
    (LayerState.READ_ONLY, "ImportLayer"): LayerState.READ_ONLY,
    (LayerState.READ_ONLY, "DestroyLayer"): LayerState.ABSENT,
    (LayerState.ABSENT, "CreateScratchLayer"): LayerState.CREATED,
    (LayerState.CREATED, "ExpandScratchSize"): LayerState.CREATED,
    (LayerState.CREATED, "ActivateLayer"): LayerState.ACTIVATED,
    (LayerState.ACTIVATED, "PrepareLayer"): LayerState.PREPARED,
    (LayerState.PREPARED, "UnprepareLayer"): LayerState.ACTIVATED,
    (LayerState.ACTIVATED, "DeactivateLayer"): LayerState.CREATED,
    (LayerState.CREATED, "DestroyLayer"): LayerState.ABSENT,
    (LayerState.CREATED, "ExportLayer"): LayerState.CREATED,
    (LayerState.ACTIVATED, "ExportLayer"): LayerState.ACTIVATED,
    (LayerState.PREPARED, "ExportLayer"): LayerState.PREPARED,
    (LayerState.READ_ONLY, "ExportLayer"): LayerState.READ_ONLY,
}
"""What may follow what.  Export reads the scratch directory itself, so the union may stay up (unlike on Windows)."""

MAX_DEPTH: Final = 125
"""Layers below one scratch layer, as dockerd limits them."""


def move(path: str, state: LayerState, verb: str) -> LayerState:
    """The state after ``verb``.  Raises HostError with the code that Windows would answer."""
    following = MOVES.get((state, verb))
    if following is not None:
        return following
    if state == LayerState.ABSENT:
        raise HostError(Code.PATH_NOT_FOUND, f"{verb} {path}: the layer does not exist")
    if verb in {"CreateLayer", "CreateScratchLayer"}:
        raise HostError(Code.ALREADY_EXISTS, f"{verb} {path}: the layer exists already")
    if verb == "DestroyLayer":
        raise HostError(Code.SHARING_VIOLATION, f"{verb} {path}: the layer is {state}")
    raise HostError(Code.INVALID_STATE, f"{verb} {path}: the layer is {state}")
