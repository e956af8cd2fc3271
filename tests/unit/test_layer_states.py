"""The life of a layer: the table against a model of the mission's picture, whatever is called in whatever order."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from silo.host.results import Code, HostError
from silo.host.storagefilter.layer import MOVES, LayerState, move

VERBS = sorted({verb for _, verb in MOVES})
RW = ("absent", "created", "activated", "prepared")


class Life(RuleBasedStateMachine):
    """A model in other words: what is on disk, has a volume, has a union; each is taken away before what carries it."""

    def __init__(self) -> None:
        super().__init__()
        self.state = LayerState.ABSENT
        self.directory = self.scratch = self.volume = self.union = False

    def _allowed(self, verb: str) -> bool:
        return {
            "CreateLayer": not self.directory,
            "CreateScratchLayer": not self.directory,
            "ImportLayer": self.directory and not self.scratch,
            "ExpandScratchSize": self.scratch and not self.volume,
            "ActivateLayer": self.scratch and not self.volume,
            "PrepareLayer": self.volume and not self.union,
            "UnprepareLayer": self.union,
            "DeactivateLayer": self.volume and not self.union,
            "DestroyLayer": self.directory and not self.volume,
            "ExportLayer": self.directory,
        }[verb]

    def _do(self, verb: str) -> None:
        match verb:
            case "CreateLayer":
                self.directory = True
            case "CreateScratchLayer":
                self.directory = self.scratch = True
            case "ActivateLayer":
                self.volume = True
            case "PrepareLayer":
                self.union = True
            case "UnprepareLayer":
                self.union = False
            case "DeactivateLayer":
                self.volume = False
            case "DestroyLayer":
                self.directory = self.scratch = False

    @rule(verb=st.sampled_from(VERBS))
    def call(self, verb: str) -> None:
        if self._allowed(verb):
            self.state = move("layer", self.state, verb)
            self._do(verb)
            return
        with pytest.raises(HostError, match=f"{verb} layer: the layer") as refusal:
            move("layer", self.state, verb)
        if not self.directory:
            assert refusal.value.code == Code.PATH_NOT_FOUND
        elif verb == "DestroyLayer":
            assert refusal.value.code == Code.SHARING_VIOLATION
        elif verb.startswith("Create"):
            assert refusal.value.code == Code.ALREADY_EXISTS
        else:
            assert refusal.value.code == Code.INVALID_STATE

    @invariant()
    def the_state_says_what_there_is(self) -> None:
        if not self.directory:
            expected = LayerState.ABSENT
        elif not self.scratch:
            expected = LayerState.READ_ONLY
        else:
            expected = (LayerState.CREATED, LayerState.ACTIVATED, LayerState.PREPARED)[self.volume + self.union]
        assert self.state == expected


Life.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase


def test_a_layer_goes_up_and_strictly_back() -> None:
    way = {
        (before, after): verb
        for (before, verb), after in MOVES.items()
        if before != after and LayerState.READ_ONLY not in {before, after}
    }
    up, down = list(pairwise(RW)), list(pairwise(reversed(RW)))
    assert {(str(before), str(after)) for before, after in way} == {*up, *down}


@pytest.mark.parametrize("state", list(LayerState))
def test_every_refusal_names_layer_verb_and_state(state: LayerState) -> None:
    for verb in VERBS:
        if (state, verb) not in MOVES:
            with pytest.raises(HostError) as refusal:
                move("/x/y", state, verb)
            assert str(refusal.value).startswith(f"{verb} /x/y: the layer ")
