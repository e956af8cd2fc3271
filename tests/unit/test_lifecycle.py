"""The container's life cycle is the table, and waiting follows it."""

from __future__ import annotations

import itertools

import pytest

from silo.daemon.clock import ago, nanoseconds, parse_moment, rfc3339
from silo.daemon.container import MOVES, Container, Status
from silo.daemon.signals import parse_signal
from silo.errors import Conflict, InvalidParameter
from silo.schema.engine import ContainerConfig, HostConfig

VERBS = sorted({verb for _, verb in MOVES})


def container(status: Status) -> Container:
    made = Container(
        id="c" * 64,
        name="n",
        created="",
        image="",
        image_ref="",
        chain=None,
        path="",
        args=[],
        config=ContainerConfig(),
        host_config=HostConfig(),
        wanted_networks={},
        networks={},
    )
    made.state.status = status
    return made


@pytest.mark.parametrize(("status", "verb"), list(itertools.product(Status, VERBS)))
def test_only_the_tables_moves(status, verb):
    one = container(status)
    if (status, verb) in MOVES:
        one.move(verb)
        assert one.state.status == MOVES[status, verb]
    else:
        with pytest.raises(Conflict):
            one.move(verb)
        assert one.state.status == status


def test_running_means_that_a_process_is_there():
    assert {status for status in Status if container(status).running} == {Status.RUNNING, Status.PAUSED}


@pytest.mark.parametrize(
    ("text", "number"), [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX", 64), ("HUP", 1)]
)
def test_signals(text, number):
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "0", "99", "SIGNOTHING", "-1", "RTMIN+x"])
def test_signals_that_are_none(text):
    with pytest.raises(InvalidParameter, match="invalid signal"):
        parse_signal(text)


def test_times_go_there_and_back():
    moment = 1_795_522_745_226_512_960
    assert nanoseconds(rfc3339(moment)) == moment
    assert parse_moment("1795522745.5") == 1_795_522_745_500_000_000
    assert parse_moment(rfc3339(moment)) == moment
    with pytest.raises(InvalidParameter):
        parse_moment("yesterday")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (61, "About a minute"),
        (150, "2 minutes"),
        (3700, "About an hour"),
        (7300, "2 hours"),
        (86400 * 3, "3 days"),
        (86400 * 15, "2 weeks"),
        (86400 * 70, "2 months"),
        (86400 * 800, "2 years"),
    ],
)
def test_how_long_ago(seconds, text):
    assert ago(0, seconds * 1_000_000_000) == text
