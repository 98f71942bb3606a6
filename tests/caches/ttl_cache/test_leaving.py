"""TTLCache's `on_evict`: told once of each entry that leaves, without the lock, before the end."""

import threading
from types import ModuleType
from typing import Any

import pytest

from reference_impl.caches import ttl_cache
from tests.caches.ttl_cache import faults
from tests.caches.ttl_cache.helpers import Cases, proves, raises, watched
from tests.contracts import cache_contract as contract
from tests.contracts.cache_contract import LEAVES, Clock, case
from tests.kit.fakes import PATIENCE, Beside
from tests.kit.proofs import failing, holding

COMPONENT = "caches/ttl_cache"


@pytest.mark.guarantee("TC-11")
class TestLeaving(Cases, contract.LeavingCases):
    module = ttl_cache


def check_it_is_called_without_the_lock(m: ModuleType) -> None:
    """For each reason, in the thread of the call that caused it, and before that returns."""
    clock, seen = Clock(), list[tuple[str, int, int]]()

    def look(_key: Any, _value: Any, reason: str) -> None:
        seen.append((reason, waits.held, threading.get_ident()))

    with watched(m) as waits:
        cache = m.TTLCache(10.0, 1, clock=clock, on_evict=look)
        for reason, leave in LEAVES.items():
            cache.set("key", 1)
            seen.clear()
            leave(cache)
            assert seen == [(reason, 0, threading.get_ident())]
            cache.clear()
        for view in contract.REMOVERS.values():
            cache.set("key", 1)
            clock.tick(10.0)
            seen.clear()
            view(cache)
            assert seen == [("expired", 0, threading.get_ident())]
            cache.clear()


def check_it_may_use_the_cache(m: ModuleType) -> None:
    """Even to store again what leaves, and from another thread, for which it waits."""
    told = list[str]()

    def note(key: Any, value: Any, reason: str) -> None:
        told.append(reason)
        if key == 0:
            cache.set(("evicted", key), value)
        assert Beside(cache.get, "absent", "absent").result() == "absent"

    cache = m.TTLCache(max_size=3, on_evict=note)
    for number in range(2):
        cache.set(number, number)
    cache.set("new", 2)
    cache.set("newer", 3)  # evicts 0, for which 1 must go
    assert len(cache) == 3
    assert ("evicted", 0) not in cache or cache.get(("evicted", 0)) == 0
    assert told[0] == "evicted"


def check_a_sweep_tells_of_each(m: ModuleType) -> None:
    """Also where one of the calls to on_evict stops others from being seen: none is left out."""
    clock, told = Clock(), list[int]()

    def fail(key: int, _value: object, _reason: str) -> None:
        told.append(key)
        raise ValueError(key)

    cache = m.TTLCache(1.0, None, clock=clock, on_evict=fail)
    for number in range(600):
        cache.set(number, None)
    clock.tick(1.0)
    assert len(cache) == 0
    assert sorted(told) == list(range(600))


def check_an_interrupt_goes_through(m: ModuleType) -> None:
    """What is no Exception is not logged but raised; the call has happened."""
    cache = m.TTLCache(on_evict=lambda *_: raises(KeyboardInterrupt())())
    cache.set("key", 1)
    with pytest.raises(KeyboardInterrupt):
        cache.delete("key")
    assert Beside(cache.keys).result() == []


def check_busy_threads_leave_no_value_untold(m: ModuleType) -> None:
    """Each value that eight threads store is told of once, by whichever of them it leaves."""
    told, clock, together = list[tuple[int, int]](), Clock(), threading.Barrier(8)
    cache = m.TTLCache(5.0, 20, clock=clock, on_evict=lambda _, value, __: told.append(value))

    def work(seed: int) -> None:
        together.wait(PATIENCE)
        for number in range(400):
            key = number * (seed + 3) % 37
            cache.set(key, (seed, number), 3.0 + number % 3)
            if number % 5 == 0:
                cache.delete(key)
            elif number % 7 == 0:
                clock.tick(1.0)
                cache.get(key)
            elif number % 97 == 0:
                cache.clear()

    for worker in [Beside(work, seed) for seed in range(8)]:
        worker.result()
    cache.clear()
    assert sorted(told) == [(seed, number) for seed in range(8) for number in range(400)]


LEAVING = [
    proves(
        "TC-11",
        check_it_is_called_without_the_lock,
        *faults.tells_everything_twice(),
        "AssertionError: assert seen == [(reason, 0, threading.get_ident())]",
    ),
    proves("TC-11", check_it_may_use_the_cache),
    proves("TC-11", check_a_sweep_tells_of_each),
    proves("TC-11", check_an_interrupt_goes_through),
    proves("TC-11", check_busy_threads_leave_no_value_untold),
]
WRONG = [
    proves(
        "TC-11",
        case(TestLeaving, "an_expired_entry_has_expired_whoever_removes_it", "get"),
        *faults.gives_one_reason(),
        'AssertionError: assert told == [("key", 1, "expired")]',
    ),
    proves(
        "TC-11",
        case(TestLeaving, "each_reason_is_told_once", "deleted"),
        *faults.tells_later(),
        'AssertionError: assert told == [("key", 1, reason)]',
    ),
]

test_leaving = holding(LEAVING, ttl_cache)
test_what_is_told_is_checked = failing(LEAVING + WRONG, COMPONENT)
