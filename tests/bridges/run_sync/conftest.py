"""After each test of run_sync nothing that it left idle goes on."""

from collections.abc import Iterator

import pytest

from tests.bridges.run_sync.helpers import close_idle, kept


@pytest.fixture(autouse=True)
def _nothing_idle_is_left() -> Iterator[None]:
    yield
    close_idle()


@pytest.fixture(autouse=True)
def _nothing_is_kept() -> Iterator[None]:
    yield
    kept.clear()
