"""What every tier needs: the event loop, and a reason printed when root is missing."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    for item in items:
        if "/tests/unit/" not in str(item.path):
            item.add_marker(pytest.mark.skip(reason="needs root: it makes namespaces, mounts and containers"))
