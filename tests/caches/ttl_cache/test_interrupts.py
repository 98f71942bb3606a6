"""TTLCache holds when a signal handler raises: at every point of every call, once and twice."""

import threading
from functools import partial
from types import ModuleType

import pytest

from reference_impl.caches import ttl_cache
from tests.caches.ttl_cache.interrupted import CALLS, KINDS, LOADS, happens_or_not
from tests.kit.interrupts import Interrupts
from tests.kit.primitives import Over, rebind
from tests.kit.proofs import each_twin_of
from tests.kit.twins import Twin, build, edit, patch

kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.guarantee("TC-1")
@kinds
@pytest.mark.parametrize("name", CALLS)
def test_a_call_happens_or_not(name: str, kind: str, interrupts: Interrupts) -> None:
    interrupts.prove(*happens_or_not(ttl_cache.TTLCache, name, KINDS[kind]))


TOLD = ("get the expired", "set where it is full", "set with a backlog", "delete", "clear")


@pytest.mark.guarantee("TC-11")
@pytest.mark.parametrize("name", TOLD)
def test_a_call_that_tells_happens_or_not(name: str, interrupts: Interrupts) -> None:
    interrupts.prove(*happens_or_not(ttl_cache.TTLCache, name, str, telling=True))


@kinds
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.guarantee(LOADS[name][0])) for name in LOADS]
)
def test_a_load_strands_nobody(name: str, kind: str, interrupts: Interrupts) -> None:
    _, prepare, call, check = LOADS[name]
    interrupts.prove(partial(prepare, ttl_cache.TTLCache, KINDS[kind]), call, check)


class InPython(Over):
    """A lock that is released by a Python function, in which a handler can run."""

    def release(self) -> None:
        self.inner.release()


def _released_in_python(m: ModuleType) -> None:
    rebind(m, Lock=lambda: InPython(threading.Lock()), RLock=lambda: InPython(threading.RLock()))


RELEASED = Twin("releases its locks by a Python function", patch(_released_in_python), "hang")


@each_twin_of("TC-1", RELEASED)
def test_a_lock_that_is_kept_is_noticed(twin: Twin, interrupts: Interrupts) -> None:
    m = build("caches/ttl_cache", twin.fault)
    interrupts.catch(*happens_or_not(m.TTLCache, "get a hit", str), twin=twin)


@each_twin_of("TC-6", RELEASED)
def test_a_waiter_that_is_stranded_is_noticed(twin: Twin, interrupts: Interrupts) -> None:
    m = build("caches/ttl_cache", twin.fault)
    _, prepare, call, check = LOADS["lead others"]
    interrupts.catch(partial(prepare, m.TTLCache, str), call, check, twin=twin)


TWO_STEPS = Twin(
    "calls a function between a key and its place",
    edit(
        "_Store.put",
        "entry.older, entry.newer = order.older, order",
        "abs(0)\nentry.older, entry.newer = order.older, order",
    ),
    ("AssertionError: half a call", "AssertionError: assert len(cache) == len(cache.keys())"),
)


@each_twin_of("TC-1", TWO_STEPS)
def test_half_a_call_is_noticed(twin: Twin, interrupts: Interrupts) -> None:
    m = build("caches/ttl_cache", twin.fault)
    interrupts.catch(*happens_or_not(m.TTLCache, "set in the place of the expired", str), twin=twin)


REFRESHED = Twin(
    "lets an interrupted refresh count as one that runs",
    edit("TTLCache._find_or_register_locked", "load.ended", "False"),
    ("hang", "AssertionError: assert found", "AssertionError: assert elsewhere(refresh"),
)


@each_twin_of("TC-12", REFRESHED)
def test_a_refresh_that_never_ends_is_noticed(twin: Twin, interrupts: Interrupts) -> None:
    m = build("caches/ttl_cache", twin.fault)
    _, prepare, call, check = LOADS["refresh"]
    interrupts.catch(partial(prepare, m.TTLCache, str), call, check, twin=twin)
