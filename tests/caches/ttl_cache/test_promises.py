"""TTLCache keeps the caches' contract, and keeps its time."""

import inspect
import time
from types import ModuleType
from typing import Any

import pytest

from reference_impl.caches import ttl_cache
from reference_impl.caches.ttl_cache import CacheStats
from tests.caches.ttl_cache import faults
from tests.caches.ttl_cache.faults import counted
from tests.caches.ttl_cache.helpers import Cases, proves
from tests.contracts import cache_contract as contract
from tests.contracts.cache_contract import Clock, case
from tests.kit.proofs import failing, holding
from tests.kit.twins import edit, override

COMPONENT = "caches/ttl_cache"


class _TTLCache(Cases):
    module = ttl_cache


@pytest.mark.guarantee("TC-2")
class TestExpiry(_TTLCache, contract.ExpiryCases): ...


@pytest.mark.guarantee("TC-3")
class TestBound(_TTLCache, contract.BoundCases): ...


@pytest.mark.guarantee("TC-4")
class TestEviction(_TTLCache, contract.EvictionCases): ...


@pytest.mark.guarantee("TC-5")
class TestStats(_TTLCache, contract.StatsCases): ...


@pytest.mark.guarantee("TC-6")
class TestLoading(_TTLCache, contract.LoadingCases): ...


@pytest.mark.guarantee("TC-7")
class TestInvalidation(_TTLCache, contract.InvalidationCases): ...


@pytest.mark.guarantee("TC-10")
class TestNone(_TTLCache, contract.NoneCases): ...


class TestBadInput(_TTLCache, contract.BadInputCases): ...


WRONG = [
    proves(
        "TC-2",
        case(TestExpiry, "an_entry_lives_for_its_time_and_not_a_moment_longer"),
        *faults.lives_longer(),
        'AssertionError: assert cache.get("key", "gone") == "gone"',
    ),
    proves(
        "TC-2",
        case(TestExpiry, "reading_does_not_lengthen_a_life"),
        *faults.renews(),
        'AssertionError: assert "key" not in cache',
    ),
    proves(
        "TC-3",
        case(TestBound, "the_bound_is_kept"),
        *faults.has_room_for_one_more(),
        "AssertionError: assert len(cache) == len(cache.keys()) <= 3",
    ),
    proves(
        "TC-4",
        case(TestEviction, "the_least_recently_used_entry_makes_room_not_the_oldest_write"),
        *faults.does_not_refresh(),
        'AssertionError: assert cache.keys() == ["read", "new"]',
    ),
    proves(
        "TC-4",
        case(TestEviction, "asking_whether_a_key_is_there_is_no_use"),
        *faults.looks_by_get(),
        'AssertionError: assert cache.keys() == ["b", "c"]',
    ),
    proves(
        "TC-5",
        case(TestStats, "looking_without_taking_is_no_look_up"),
        *faults.looks_by_get(),
        "AssertionError: assert (cache.stats.hits, cache.stats.misses) == (0, 0)",
    ),
    proves(
        "TC-5",
        case(TestStats, "loads_are_successes_and_failures_are_counted_apart"),
        "counts a failure among the loads",
        counted("TTLCache.stats", loads=lambda right: right.loads + right.load_failures),
        "AssertionError: assert (cache.stats.loads, cache.stats.load_failures)",
    ),
    proves(
        "TC-6",
        case(TestLoading, "a_failure_is_passed_on_and_not_stored"),
        *faults.swallows_the_failure(),
        "Failed: DID NOT RAISE",
    ),
    proves(
        "TC-7",
        case(TestInvalidation, "a_set_during_the_load_stays"),
        *faults.stores_in_any_case(),
        'AssertionError: assert cache.get("key") == "set"',
    ),
    proves(
        "TC-10",
        case(TestNone, "none_is_stored_found_and_counted"),
        *faults.takes_none_for_absence(),
        'AssertionError: assert cache.get("key", "default") is None',
    ),
]

test_the_contract_catches = failing(WRONG, COMPONENT)


# Time.


def check_the_default_clock_is_monotonic(m: ModuleType) -> None:
    """A wall clock that is set an hour on, or back, is none of the cache's business."""
    default = inspect.signature(m.TTLCache).parameters["clock"].default
    assert default is time.monotonic


def check_a_clock_that_steps_back_does_no_harm(m: ModuleType) -> None:
    clock = Clock(now=100.0)
    cache = m.TTLCache(default_ttl=10.0, clock=clock)
    cache.set("before", 1)
    clock.now = 50.0
    cache.set("after", 2)
    for now in (50.0, 60.0, 70.0, 109.0, 110.0):
        clock.now = now
        live = [key for key in ("before", "after") if key in cache]
        assert sorted(cache.keys()) == sorted(live)
    assert cache.size == 0


def _by_the_wall_clock(original: Any) -> Any:
    def __init__(self: Any, *arguments: Any, clock: Any = time.time, **options: Any) -> None:
        original(self, *arguments, clock=clock, **options)

    return __init__


TIME = [
    proves(
        "TC-2",
        check_the_default_clock_is_monotonic,
        "goes by the wall clock",
        override("TTLCache.__init__", _by_the_wall_clock),
        "AssertionError: assert default is time.monotonic",
    ),
    proves(
        "TC-2",
        check_a_clock_that_steps_back_does_no_harm,
        "counts from a reading that has stepped back",
        edit("_Store.put", "self.latest + ttl", "now + ttl"),
        "AssertionError: assert sorted(cache.keys()) == sorted(live)",
    ),
]

test_time = holding(TIME, ttl_cache)
test_time_is_checked = failing(TIME, COMPONENT)


def test_statistics_are_immutable_and_have_a_rate() -> None:
    stats = CacheStats(hits=3, misses=1)
    assert stats.hit_rate == 0.75
    with pytest.raises(AttributeError):
        stats.hits = 4  # type: ignore[misc]
