"""TTLCache's stale values: returned at once, while exactly one refresh runs."""

import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest

from reference_impl.caches import ttl_cache
from tests.caches.ttl_cache import faults
from tests.caches.ttl_cache.faults import impatient
from tests.caches.ttl_cache.helpers import Later, Loader, outcome, proves, raises
from tests.contracts.cache_contract import Clock
from tests.kit.fakes import Beside
from tests.kit.proofs import Proof, failing, holding
from tests.kit.twins import Twin

COMPONENT = "caches/ttl_cache"


def unused() -> Any:
    pytest.fail("loaded once more")


def stale_cache(m: ModuleType, **options: Any) -> tuple[Any, Clock]:
    """A cache whose "key" had "old" for ten seconds, three seconds ago."""
    clock = Clock()
    cache = m.TTLCache(10.0, clock=clock, **options)
    assert cache.get_or_load("key", lambda: "old", stale=5.0) == "old"
    clock.tick(13.0)
    return cache, clock


def ask(cache: Any, loader: Callable[[], Any] = unused, **options: Any) -> Any:
    return cache.get_or_load("key", loader, **({"stale": 5.0} | options))


# Without an executor.


def check_one_refreshes_and_the_others_get_the_stale_value(m: ModuleType) -> None:
    cache, _ = stale_cache(m)
    with Loader(lambda: "new") as load:
        first = Beside(ask, cache, load)
        load.await_entered()
        assert [ask(cache), ask(cache)] == ["old", "old"]
        load.open()
        assert first.result() == "new"
    assert ask(cache) == cache.get("key") == "new"
    assert (cache.stats.loads, cache.stats.load_failures) == (2, 0)
    assert cache.stats.hits + cache.stats.misses == 6


def check_who_takes_no_stale_value_joins_the_refresh(m: ModuleType) -> None:
    cache, _ = stale_cache(m)
    with Loader(lambda: "new") as load:
        first = Beside(ask, cache, load)
        load.await_entered()
        second = Beside(cache.get_or_load, "key", unused)
        load.open()
        assert (first.result(), second.result()) == ("new", "new")


def check_past_its_end_a_value_is_loaded(m: ModuleType) -> None:
    for late, found in ((1.875, "old"), (2.0, "new")):
        cache, clock = stale_cache(m, executor=(executor := Later()))
        clock.tick(late)
        assert ask(cache, lambda: "new") == found
        assert len(executor.jobs) == (found == "old")


def check_only_who_asks_for_it_sees_a_stale_value(m: ModuleType) -> None:
    cache, _ = stale_cache(m, executor=Later())
    assert (cache.size, len(cache), cache.keys(), cache.items()) == (0, 0, [], [])
    assert ("key" in cache, cache.get("key")) == (False, None)
    assert ask(cache) == "old"  # and who looked has not taken it away
    assert cache.get_or_load("key", lambda: "new") == "new"


def check_stale_values_make_room_first(m: ModuleType) -> None:
    told = list[Any]()
    cache, _ = stale_cache(m, max_size=2, on_evict=lambda *left: told.append(left))
    cache.set("a", 1)
    cache.set("b", 2)
    assert told == [("key", "old", "expired")]
    assert cache.keys() == ["a", "b"]
    assert (cache.stats.expirations, cache.stats.evictions) == (1, 0)
    assert ask(cache, lambda: "new") == "new"


# On an executor.


def check_an_executor_refreshes(m: ModuleType) -> None:
    cache, clock = stale_cache(m, executor=(executor := Later()))
    assert [ask(cache, lambda: "new"), ask(cache), ask(cache)] == ["old"] * 3
    assert cache.stats.loads == 1
    assert executor.run() == 1
    assert cache.get("key") == "new"
    assert cache.stats.loads == 2
    clock.tick(9.0)
    assert ask(cache) == "new"  # it lives from the end of its load
    clock.tick(2.0)
    assert ask(cache) == "new"  # and is stale in its turn
    assert len(executor.jobs) == 1


def check_a_refresh_sees_its_callers_context(m: ModuleType) -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")
    cache, _ = stale_cache(m, executor=(executor := Later()))
    name.set("caller")
    assert ask(cache, name.get) == "old"
    name.set("later")
    executor.run()
    assert cache.get("key") == "caller"


def check_a_pool_refreshes(m: ModuleType) -> None:
    with ThreadPoolExecutor(1) as pool:
        cache, _ = stale_cache(m, executor=pool)
        with Loader(lambda: "new") as load:
            assert ask(cache, load) == "old"
            load.await_entered()
            joined = Beside(cache.get_or_load, "key", unused)
            load.open()
            assert joined.result() == "new"


def check_without_a_running_executor_the_caller_refreshes(m: ModuleType) -> None:
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    cache, _ = stale_cache(m, executor=pool)
    assert ask(cache, lambda: "new") == cache.get("key") == "new"


def check_a_refresh_that_is_dropped_is_made_again(m: ModuleType) -> None:
    """As by a pool that is shut down, and cancels what it has not begun."""
    cache, _ = stale_cache(m, executor=(executor := Later()))
    assert ask(cache) == ask(cache) == "old"
    executor.jobs.clear()
    assert ask(cache, lambda: "new") == "old"
    assert executor.run() == 1
    assert cache.get("key") == "new"


# Failures and invalidations.


def refresh_by(cache: Any, executor: Later | None, loader: Callable[[], Any]) -> Any:
    """What a caller gets from a refresh, which has come to its end."""
    found = outcome(Beside(ask, cache, loader))
    if executor is not None:
        assert executor.run() == 1
    return found


def check_a_failed_refresh_keeps_the_stale_value(m: ModuleType, executor: Later | None) -> None:
    cache, clock = stale_cache(m, executor=executor)
    for failures in (1, 2):
        assert refresh_by(cache, executor, raises(OSError("no connection"))) == "old"
        assert cache.stats.load_failures == failures
    clock.tick(2.0)
    with pytest.raises(OSError, match="no connection"):
        ask(cache, raises(OSError("no connection")))
    assert ask(cache, lambda: "new") == "new"


INVALIDATIONS: dict[str, Callable[[Any], object]] = {
    "set": lambda cache: cache.set("key", "set"),
    "delete": lambda cache: cache.delete("key"),
    "clear": lambda cache: cache.clear(),
}


def check_an_invalidation_wins(m: ModuleType, executor: Later | None) -> None:
    for how, invalidate in INVALIDATIONS.items():
        cache, _ = stale_cache(m, executor=executor)

        def load(cache: Any = cache, invalidate: Callable[[Any], object] = invalidate) -> str:
            invalidate(cache)
            return "loaded too late"

        refresh_by(cache, executor, load)
        assert cache.get("key") == ("set" if how == "set" else None)
        assert ask(cache, lambda: "new") == ("set" if how == "set" else "new")


def each_way(check: Callable[[ModuleType, Later | None], None]) -> Callable[[ModuleType], None]:
    def check_each_way(m: ModuleType) -> None:
        check(m, None)
        check(m, Later())

    check_each_way.__name__ = check.__name__
    return check_each_way


def check_an_interrupted_refresh_is_made_again(m: ModuleType) -> None:
    cache, _ = stale_cache(m)
    with pytest.raises(KeyboardInterrupt):
        ask(cache, raises(KeyboardInterrupt()))
    assert ask(cache, lambda: "new") == "new"


_NAME, _FAULT = faults.knows_no_stale()
STALE = [
    Proof(
        "TC-12",
        check_one_refreshes_and_the_others_get_the_stale_value,
        [
            Twin(_NAME, _FAULT + impatient, "AssertionError: it hangs"),
            Twin(*faults.refreshes_each_time(), "Failed: loaded once more"),
        ],
    ),
    proves("TC-12", check_who_takes_no_stale_value_joins_the_refresh),
    proves(
        "TC-12",
        check_past_its_end_a_value_is_loaded,
        *faults.stale_for_longer(),
        'AssertionError: assert ask(cache, lambda: "new") == found',
    ),
    proves("TC-12", check_only_who_asks_for_it_sees_a_stale_value),
    proves("TC-12", check_stale_values_make_room_first),
    proves("TC-12", check_an_executor_refreshes),
    proves("TC-12", check_a_refresh_sees_its_callers_context),
    proves("TC-12", check_a_pool_refreshes),
    proves("TC-12", check_a_refresh_that_is_dropped_is_made_again),
    proves("TC-12", check_without_a_running_executor_the_caller_refreshes),
    proves("TC-12", each_way(check_a_failed_refresh_keeps_the_stale_value)),
    proves(
        "TC-12",
        each_way(check_an_invalidation_wins),
        *faults.stores_in_any_case(),
        "AssertionError: assert cache.get(",
    ),
    proves("TC-12", check_an_interrupted_refresh_is_made_again),
]

test_stale = holding(STALE, ttl_cache)
test_stale_is_checked = failing(STALE, COMPONENT)
