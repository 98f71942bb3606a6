"""What several files of these tests ask for."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def warnings_of_loops(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Asyncio must not warn of anything."""
    caplog.set_level(logging.WARNING, "asyncio")
    yield
    assert [r for r in caplog.records if r.name == "asyncio"] == []
