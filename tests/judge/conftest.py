"""One engine per test file; every test leaves it without containers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.judge.harness import Engine, running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if shutil.which("docker") is None:
        for item in items:
            if "/tests/judge/" in str(item.path):
                item.add_marker(pytest.mark.skip(reason="no docker command: make setup installs one"))


@pytest.fixture(scope="module")
def shared() -> Iterator[Engine]:
    with running() as engine:
        yield engine


@pytest.fixture
def engine(shared: Engine) -> Iterator[Engine]:
    yield shared
    ids = shared.docker("ps", "-aq").stdout.split()
    if ids:
        shared.ok("rm", "-f", "-v", *ids)
    for network in shared.ok("network", "ls", "-q", "--filter", "type=custom").split():
        shared.ok("network", "rm", network)
