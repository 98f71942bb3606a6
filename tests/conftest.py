"""Settings and fixtures that every test has."""

import sys
import threading
from collections.abc import Iterator

import pytest

from tests.kit.explore import Interleavings, Schedules
from tests.kit.interrupts import Interrupts


@pytest.fixture(autouse=True, scope="session")
def _switch_threads_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [
        thread
        for thread in threading.enumerate()
        # What `elsewhere` started is not threading's: a twin may have stranded it. It is listed
        # from where it asked for current_thread(), and cannot be joined.
        if thread not in before and not isinstance(thread, threading._DummyThread)
    ]
    for thread in left:
        # It is listed from before its start, when it cannot be joined yet.
        thread._started.wait(timeout=5)  # type: ignore[attr-defined]
        thread.join(timeout=5)
    alive = [thread.name for thread in left if thread.is_alive()]
    assert not alive, f"the test left threads behind: {alive}"


@pytest.fixture
def interleavings(request: pytest.FixtureRequest) -> Interleavings:
    """Explores thread interleavings and writes what it explored to the evidence."""
    pytest.importorskip("interleave_test", reason="thread exploration needs Python >= 3.12")
    return Interleavings(request.node)


@pytest.fixture
def schedules(request: pytest.FixtureRequest) -> Schedules:
    """Explores asyncio schedules and writes what it explored to the evidence."""
    return Schedules(request.node)


@pytest.fixture
def interrupts(request: pytest.FixtureRequest) -> Interrupts:
    """Interrupts calls at each point where CPython runs signal handlers; needs sys.monitoring."""
    if sys.version_info < (3, 12):
        pytest.skip("sys.monitoring needs Python >= 3.12")
    return Interrupts(request.node)
