"""The life of a compute system: the table, and the codes of what it does not have."""

from __future__ import annotations

import itertools

import pytest

from silo.host.hcs.states import MOVES, SystemState, move
from silo.host.results import Code, HostError

VERBS = sorted({verb for _, verb in MOVES})


@pytest.mark.parametrize(("state", "verb"), sorted(itertools.product(SystemState, VERBS)))
def test_every_verb_in_every_state(state: SystemState, verb: str) -> None:
    if (state, verb) in MOVES:
        assert move("c", state, verb) == MOVES[state, verb]
        return
    with pytest.raises(HostError) as caught:
        move("c", state, verb)
    stopped = state == SystemState.STOPPED
    assert caught.value.code == (Code.SYSTEM_ALREADY_STOPPED if stopped else Code.INVALID_STATE)
    assert "c" in str(caught.value)


def test_whatever_lives_can_be_killed_and_can_exit() -> None:
    for state in set(SystemState) - {SystemState.STOPPED}:
        assert move("c", state, "terminate") == state
        assert move("c", state, "exit") == SystemState.STOPPED


def test_nothing_follows_a_stop() -> None:
    assert not [verb for state, verb in MOVES if state == SystemState.STOPPED]


def test_a_system_starts_once() -> None:
    started = move("c", SystemState.CREATED, "start")
    with pytest.raises(HostError):
        move("c", started, "start")
