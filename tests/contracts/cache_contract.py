"""What every cache of the project does: one class of cases for each of its guarantees.

A test file subclasses the classes, marks them with its own guarantees, and says how its cache
is made. An adapter lets an asynchronous cache be called like a synchronous one.
`reference_impl.contracts` gives the classes to readers, and says what they need; imports are
relative, since there the package has another name.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from decimal import Decimal
from types import ModuleType
from typing import Any, Protocol

import pytest

from reference_impl.caches.ttl_cache import CacheStats

from ..kit import fakes
from .making import Made


class Cache(Protocol):
    """The interface that the caches share, as the cases use it."""

    def get(self, key: Any, default: Any = None) -> Any: ...
    def set(self, key: Any, value: Any, ttl: float | None = None) -> None: ...
    def delete(self, key: Any) -> bool: ...
    def clear(self) -> None: ...
    def cleanup_expired(self) -> int: ...
    def get_or_load(
        self, key: Any, loader: Callable[[], Any], ttl: float | None = None, **options: Any
    ) -> Any: ...
    def keys(self) -> list[Any]: ...
    def items(self) -> list[tuple[Any, Any]]: ...
    @property
    def stats(self) -> CacheStats: ...
    @property
    def size(self) -> int: ...
    def __len__(self) -> int: ...
    def __contains__(self, key: Any) -> bool: ...


class Clock(fakes.Clock):
    """The kit's clock, far from zero, where nothing that should be counted from it is."""

    def __init__(self, now: float = 1_000.0) -> None:
        super().__init__(now)


VIEWS: dict[str, Callable[[Cache], object]] = {
    "get": lambda cache: cache.get("key"),
    "in": lambda cache: "key" in cache,
    "len": len,
    "size": lambda cache: cache.size,
    "keys": lambda cache: cache.keys(),
    "items": lambda cache: cache.items(),
    "delete": lambda cache: cache.delete("key"),
}
REMOVERS: dict[str, Callable[[Cache], object]] = VIEWS | {
    "set": lambda cache: cache.set("key", 2),
    "clear": lambda cache: cache.clear(),
    "cleanup_expired": lambda cache: cache.cleanup_expired(),
    "get_or_load": lambda cache: cache.get_or_load("key", lambda: 2),
}
del REMOVERS["in"]  # it only looks


class CacheCases(Made):
    """How the cases come by their cache and their clock."""

    @abstractmethod
    def make(self, **arguments: Any) -> Cache:
        """A new cache; `arguments` are those of TTLCache."""

    def timed(self, default_ttl: float = 10.0, **arguments: Any) -> tuple[Cache, Clock]:
        clock = Clock()
        return self.make(default_ttl=default_ttl, clock=clock, **arguments), clock


class OfModule(CacheCases):
    """The cases of a cache that `module` holds: the component, a twin, a reader's copy."""

    module: ModuleType


def case(cases: type[OfModule], name: str, *arguments: object) -> Callable[[ModuleType], None]:
    """One case as a check of any module: the test of that name, without its `test_`."""

    def check(m: ModuleType) -> None:
        instance = cases()
        instance.module = m
        getattr(instance, f"test_{name}")(*arguments)

    check.__name__ = name
    return check


class ExpiryCases(CacheCases):
    """Only live entries can be seen, whichever way one looks."""

    def test_an_entry_lives_for_its_time_and_not_a_moment_longer(self) -> None:
        cache, clock = self.timed(default_ttl=10.0)
        cache.set("key", "value")
        clock.tick(9.875)
        assert cache.get("key") == "value"
        clock.tick(0.125)
        assert cache.get("key", "gone") == "gone"

    def test_reading_does_not_lengthen_a_life(self) -> None:
        cache, clock = self.timed(default_ttl=10.0)
        cache.set("key", "value")
        for _ in range(4):
            clock.tick(2.5)
            cache.get("key")
        assert "key" not in cache

    def test_without_a_time_to_live_it_is_an_hour(self) -> None:
        clock = Clock()
        cache = self.make(clock=clock)
        cache.set("key", "value")
        clock.tick(3599.5)
        assert cache.get("key") == "value"
        clock.tick(0.5)
        assert "key" not in cache

    def test_each_entry_has_its_own_time_to_live(self) -> None:
        cache, clock = self.timed(default_ttl=10.0)
        cache.set("short", 1, ttl=1.0)
        cache.set("usual", 2)
        cache.set("long", 3, ttl=100)
        cache.set("ever", 4, ttl=math.inf)
        for later, alive in ((1.0, 3), (9.0, 2), (90.0, 1), (1e12, 1)):
            clock.tick(later)
            assert cache.size == len(cache) == len(cache.keys()) == len(cache.items()) == alive

    def test_a_new_value_starts_a_new_life(self) -> None:
        cache, clock = self.timed(default_ttl=10.0)
        cache.set("key", "old")
        clock.tick(8.0)
        cache.set("key", "new", ttl=5.0)
        clock.tick(4.0)
        assert cache.items() == [("key", "new")]
        clock.tick(1.0)
        assert cache.items() == []

    @pytest.mark.parametrize("view", VIEWS)
    def test_no_view_shows_an_expired_entry(self, view: str) -> None:
        cache, clock = self.timed(default_ttl=10.0)
        cache.set("key", "value")
        clock.tick(10.0)
        assert not VIEWS[view](cache)

    def test_an_expired_value_is_loaded_anew(self) -> None:
        cache, clock = self.timed(default_ttl=10.0)
        assert cache.get_or_load("key", lambda: "first") == "first"
        clock.tick(9.0)
        assert cache.get_or_load("key", lambda: "second") == "first"
        clock.tick(1.0)
        assert cache.get_or_load("key", lambda: "third", ttl=1.0) == "third"
        clock.tick(1.0)
        assert "key" not in cache

    def test_a_loaded_value_lives_from_the_end_of_its_load(self) -> None:
        cache, clock = self.timed(default_ttl=10.0)

        def slow() -> str:
            clock.tick(100.0)
            return "value"

        cache.get_or_load("key", slow)
        clock.tick(9.0)
        assert cache.get("key") == "value"

    def test_clean_up_removes_what_is_expired_and_nothing_else(self) -> None:
        cache, clock = self.timed(default_ttl=10.0)
        for number in range(1000):
            cache.set(number, number, ttl=1.0 if number % 2 else None)
        clock.tick(1.0)
        assert cache.cleanup_expired() == 500
        assert cache.cleanup_expired() == 0
        assert sorted(cache.keys()) == list(range(0, 1000, 2))


class BoundCases(CacheCases):
    """Never more than `max_size` entries."""

    def test_the_bound_is_kept(self) -> None:
        cache = self.make(max_size=3)
        for number in range(100):
            cache.set(number, number)
            cache.get_or_load(-number, lambda: "loaded")
            assert len(cache) == len(cache.keys()) <= 3

    def test_a_bound_of_one_keeps_the_newest(self) -> None:
        cache = self.make(max_size=1)
        for number in range(5):
            cache.set(number, number)
        assert cache.items() == [(4, 4)]

    def test_replacing_needs_no_room(self) -> None:
        cache = self.make(max_size=2)
        cache.set("a", 1)
        cache.set("b", 2)
        cache.set("b", 3)
        assert sorted(cache.items()) == [("a", 1), ("b", 3)]
        assert cache.stats.evictions == 0

    def test_if_no_bound_is_given_it_is_a_thousand(self) -> None:
        cache = self.make()
        for number in range(1001):
            cache.set(number, number)
        assert (len(cache), cache.stats.evictions) == (1000, 1)

    def test_without_a_bound_everything_stays(self) -> None:
        cache = self.make(max_size=None)
        for number in range(3000):
            cache.set(number, number)
        assert len(cache) == 3000


class EvictionCases(CacheCases):
    """Room is made by expired entries first, then by the least recently used one."""

    def test_the_least_recently_used_entry_makes_room_not_the_oldest_write(self) -> None:
        cache = self.make(max_size=2)
        cache.set("read", 1)
        cache.set("unread", 2)
        for _ in range(100):
            cache.get("read")
        cache.set("new", 3)
        assert cache.keys() == ["read", "new"]

    def test_writing_and_loading_are_uses_too(self) -> None:
        cache = self.make(max_size=3)
        for key in "abc":
            cache.set(key, key)
        cache.set("a", "again")
        cache.get_or_load("b", lambda: "not needed")
        cache.set("d", "d")
        assert cache.keys() == ["a", "b", "d"]

    def test_asking_whether_a_key_is_there_is_no_use(self) -> None:
        cache = self.make(max_size=2)
        cache.set("a", 1)
        cache.set("b", 2)
        assert "a" in cache
        assert len(cache.keys()) == len(cache.items()) == 2
        cache.set("c", 3)
        assert cache.keys() == ["b", "c"]

    def test_an_expired_entry_makes_room_before_any_live_one(self) -> None:
        cache, clock = self.timed(default_ttl=100.0, max_size=3)
        cache.set("oldest", 1)
        cache.set("dead", 2, ttl=1.0)
        cache.set("newest", 3)
        cache.get("dead")
        clock.tick(1.0)
        cache.set("new", 4)
        assert cache.keys() == ["oldest", "newest", "new"]
        assert (cache.stats.evictions, cache.stats.expirations) == (0, 1)

    @pytest.mark.parametrize("start", [-1_000.0, 0.0, 1e9])
    def test_what_the_clock_counts_from_does_not_matter(self, start: float) -> None:
        clock = Clock(start)
        cache = self.make(max_size=2, clock=clock)
        cache.set("alive", 1)
        cache.set("dead", 2, ttl=600.0)
        clock.tick(600.0)
        cache.set("new", 3)
        assert cache.keys() == ["alive", "new"]

    def test_the_dead_are_found_among_many_times_to_live(self) -> None:
        cache, clock = self.timed(default_ttl=1000.0, max_size=50)
        for number in range(50):
            cache.set(number, number, ttl=1.0 + (number * 7) % 50)
        for dead in range(1, 51):
            clock.tick(1.0)
            cache.set(("new", dead), dead)
            assert len(cache) <= 50
        assert cache.stats.evictions == 0


class StatsCases(CacheCases):
    """The counters agree with what happened."""

    def test_every_look_up_is_a_hit_or_a_miss(self) -> None:
        cache, clock = self.timed(default_ttl=10.0)
        assert cache.stats.hit_rate == 0.0
        cache.get("key")
        cache.get_or_load("key", lambda: 1)
        cache.get("key")
        cache.get_or_load("key", lambda: 2)
        clock.tick(10.0)
        cache.get("key")
        stats = cache.stats
        assert (stats.hits, stats.misses) == (2, 3)
        assert stats.hit_rate == 0.4

    def test_looking_without_taking_is_no_look_up(self) -> None:
        cache = self.make()
        cache.set("key", 1)
        assert "key" in cache
        assert "other" not in cache
        assert len(cache.keys()) == len(cache.items()) == len(cache) == 1
        assert cache.delete("key")
        assert (cache.stats.hits, cache.stats.misses) == (0, 0)

    @pytest.mark.parametrize("remover", REMOVERS)
    def test_removing_an_expired_entry_is_an_expiration_whoever_does_it(self, remover: str) -> None:
        cache, clock = self.timed(default_ttl=10.0)
        cache.set("key", 1)
        clock.tick(10.0)
        REMOVERS[remover](cache)
        assert (cache.stats.expirations, cache.stats.evictions) == (1, 0)

    def test_removing_a_live_entry_for_room_is_an_eviction_and_else_neither(self) -> None:
        cache = self.make(max_size=1)
        cache.set("a", 1)
        cache.set("b", 2)
        assert (cache.stats.evictions, cache.stats.expirations) == (1, 0)
        cache.set("b", 3)
        cache.delete("b")
        cache.set("c", 4)
        cache.clear()
        assert (cache.stats.evictions, cache.stats.expirations) == (1, 0)

    def test_loads_are_successes_and_failures_are_counted_apart(self) -> None:
        cache = self.make()
        for number in (1, 2):
            cache.get_or_load(("good", number), lambda: 1)
            with pytest.raises(ZeroDivisionError):
                cache.get_or_load("bad", lambda: 1 // 0)
            assert (cache.stats.loads, cache.stats.load_failures) == (number, number)

    def test_stats_are_a_snapshot(self) -> None:
        cache = self.make()
        before = cache.stats
        cache.get("key")
        assert (before.misses, cache.stats.misses) == (0, 1)


class LoadingCases(CacheCases):
    """What a load leaves behind; what several callers see of it is tested with each cache."""

    def test_a_value_is_loaded_once_and_then_found(self) -> None:
        cache = self.make()
        values = iter(["first", "second"])
        for _ in range(3):
            assert cache.get_or_load("key", lambda: next(values)) == "first"

    def test_a_failure_is_passed_on_and_not_stored(self) -> None:
        cache = self.make()
        failure = ValueError("no such report")

        def fail() -> str:
            raise failure

        with pytest.raises(ValueError, match="no such report") as caught:
            cache.get_or_load("key", fail)
        assert caught.value is failure
        assert "key" not in cache
        assert cache.get_or_load("key", lambda: "better") == "better"


class InvalidationCases(CacheCases):
    """A load never undoes what happened to its key while it ran."""

    def loaded_while(self, happen: Callable[[Cache], object]) -> Cache:
        """A cache to which this happened while "key" was loaded."""
        cache = self.make()

        def load() -> str:
            happen(cache)
            return "loaded"

        assert cache.get_or_load("key", load) == "loaded"
        return cache

    def test_a_set_during_the_load_stays(self) -> None:
        cache = self.loaded_while(lambda cache: cache.set("key", "set"))
        assert cache.get("key") == "set"

    def test_a_delete_during_the_load_stays(self) -> None:
        cache = self.loaded_while(lambda cache: cache.delete("key"))
        assert "key" not in cache

    def test_a_clear_during_the_load_stays(self) -> None:
        cache = self.loaded_while(lambda cache: cache.clear())
        assert "key" not in cache

    def test_another_key_does_not_disturb_the_load(self) -> None:
        def happen(cache: Cache) -> None:
            cache.set("other", 1)
            cache.delete("other")
            cache.cleanup_expired()

        cache = self.loaded_while(happen)
        assert cache.get("key") == "loaded"


class NoneCases(CacheCases):
    """None is a value like any other."""

    def test_none_is_stored_found_and_counted(self) -> None:
        cache = self.make()
        cache.set("key", None)
        assert cache.get("key", "default") is None
        assert "key" in cache
        assert cache.items() == [("key", None)]
        assert cache.stats.hits == 1

    def test_a_loaded_none_is_not_loaded_again(self) -> None:
        cache = self.make()
        values = iter([None, "second"])
        for _ in range(3):
            assert cache.get_or_load("key", lambda: next(values)) is None

    def test_none_is_a_key_like_any_other(self) -> None:
        cache = self.make()
        cache.set(None, "value")
        assert cache.get(None) == "value"
        assert cache.keys() == [None]


LEAVES: dict[str, Callable[[Cache], object]] = {
    "replaced": lambda cache: cache.set("key", 2),
    "deleted": lambda cache: cache.delete("key"),
    "cleared": lambda cache: cache.clear(),
    "evicted": lambda cache: cache.set("other", 2),
}


class LeavingCases(CacheCases):
    """`on_evict` is told of each entry that leaves, once, and why."""

    def telling(self, **arguments: Any) -> tuple[Cache, Clock, list[tuple[Any, Any, str]]]:
        """A cache, its clock, and what its `on_evict` has been told."""
        told = list[tuple[Any, Any, str]]()
        cache, clock = self.timed(on_evict=lambda *left: told.append(left), **arguments)
        return cache, clock, told

    @pytest.mark.parametrize("reason", LEAVES)
    def test_each_reason_is_told_once(self, reason: str) -> None:
        cache, _, told = self.telling(max_size=1)
        cache.set("key", 1)
        assert told == []
        LEAVES[reason](cache)
        assert told == [("key", 1, reason)]

    @pytest.mark.parametrize("remover", REMOVERS)
    def test_an_expired_entry_has_expired_whoever_removes_it(self, remover: str) -> None:
        cache, clock, told = self.telling()
        cache.set("key", 1)
        clock.tick(10.0)
        REMOVERS[remover](cache)
        assert told == [("key", 1, "expired")]

    def test_a_load_that_is_not_stored_is_not_told(self) -> None:
        cache, _, told = self.telling()
        cache.get_or_load("key", lambda: cache.set("key", "set") or "loaded")  # type: ignore[func-returns-value]
        assert (told, cache.items()) == ([], [("key", "set")])

    def test_nothing_is_told_of_what_stays(self) -> None:
        cache, _, told = self.telling()
        cache.set("key", 1)
        cache.get("key")
        cache.get_or_load("key", lambda: 2)
        assert ("key" in cache, "other" in cache, len(cache)) == (True, False, 1)
        assert (cache.keys(), cache.items()) == (["key"], [("key", 1)])
        assert (cache.delete("other"), cache.cleanup_expired()) == (False, 0)
        with pytest.raises(ZeroDivisionError):
            cache.get_or_load("other", lambda: 1 // 0)
        with pytest.raises(ValueError, match="ttl"):
            cache.set("key", 2, ttl=-1)
        assert told == []

    def test_each_of_many_is_told(self) -> None:
        cache, clock, told = self.telling(max_size=None)
        for number in range(1_000):
            cache.set(number, -number, ttl=1.0 if number % 2 else None)
        clock.tick(1.0)
        assert cache.cleanup_expired() == len(told) == 500
        cache.clear()
        expired = [(number, -number, "expired") for number in range(1, 1_000, 2)]
        cleared = [(number, -number, "cleared") for number in range(0, 1_000, 2)]
        assert (sorted(told[:500]), sorted(told[500:])) == (expired, cleared)

    def test_what_expired_before_a_clear_has_expired(self) -> None:
        cache, clock, told = self.telling()
        cache.set("dead", 1, ttl=1.0)
        cache.set("alive", 2)
        clock.tick(1.0)
        cache.clear()
        assert sorted(told) == [("alive", 2, "cleared"), ("dead", 1, "expired")]

    def test_what_it_raises_is_logged_and_changes_nothing(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        failure, told = ValueError("nobody listens"), list[Any]()

        def fail(key: Any, _value: Any, _reason: str) -> None:
            told.append(key)
            raise failure

        cache = self.make(max_size=3, on_evict=fail)
        for key in "abcd":
            cache.set(key, key)
        assert cache.delete("b") is True
        assert cache.items() == [("c", "c"), ("d", "d")]
        cache.clear()
        assert sorted(told) == ["a", "b", "c", "d"]
        errors = [record.exc_info[1] for record in caplog.records if record.exc_info]
        assert errors == [failure] * 4


BAD_SECONDS: list[tuple[object, type[Exception]]] = [
    (0, ValueError),
    (-5, ValueError),
    (math.nan, ValueError),
    (-math.inf, ValueError),
    (True, TypeError),
    ("60", TypeError),
    (Decimal(60), TypeError),
]

BAD_STALE = [
    *(pair for pair in BAD_SECONDS if pair[0] != 0),
    *((bad, TypeError) for bad in (False, None, "")),
]


class BadInputCases(CacheCases):
    """Bad input is refused by name and value, and changes nothing."""

    @pytest.mark.parametrize(("bad", "error"), BAD_SECONDS)
    def test_a_bad_default_ttl_is_refused(self, bad: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match=r"^default_ttl must be") as caught:
            self.make(default_ttl=bad)
        assert repr(bad) in str(caught.value)

    def test_no_default_ttl_at_all_is_refused(self) -> None:
        with pytest.raises(TypeError, match=r"^default_ttl must be .* not None"):
            self.make(default_ttl=None)

    @pytest.mark.parametrize(
        ("bad", "error"),
        [(0, ValueError), (-1, ValueError), (True, TypeError), (2.5, TypeError), ("9", TypeError)],
    )
    def test_a_bad_max_size_is_refused(self, bad: Any, error: type[Exception]) -> None:
        words = "an int or None, not" if error is TypeError else "at least"
        with pytest.raises(error, match=f"^max_size must be {words}") as caught:
            self.make(max_size=bad)
        assert repr(bad) in str(caught.value)

    def test_a_clock_that_is_no_function_is_refused(self) -> None:
        with pytest.raises(TypeError, match=r"clock .* not 12\.5"):
            self.make(clock=12.5)

    @pytest.mark.parametrize(("bad", "error"), BAD_SECONDS)
    def test_a_bad_ttl_changes_nothing(self, bad: Any, error: type[Exception]) -> None:
        cache = self.make()
        cache.set("key", "kept")
        before = cache.stats
        with pytest.raises(error, match=r"^ttl must be") as caught:
            cache.set("key", "lost", ttl=bad)
        assert repr(bad) in str(caught.value)
        with pytest.raises(error, match=r"^ttl must be"):
            cache.get_or_load("new", lambda: pytest.fail("loaded in spite of its ttl"), ttl=bad)
        assert cache.stats == before
        assert cache.items() == [("key", "kept")]

    @pytest.mark.parametrize(("bad", "error"), BAD_STALE)
    def test_a_bad_stale_changes_nothing(self, bad: Any, error: type[Exception]) -> None:
        cache = self.make()
        cache.set("key", "kept")
        before = cache.stats
        for key in ("key", "new"):
            with pytest.raises(error, match=r"^stale must be") as caught:
                cache.get_or_load(key, lambda: pytest.fail("loaded"), stale=bad)
            assert repr(bad) in str(caught.value)
        assert cache.stats == before
        assert cache.items() == [("key", "kept")]

    def test_an_on_evict_that_is_no_plain_function_is_refused(self) -> None:
        async def later(*_: object) -> None: ...

        def never(*_: object) -> Any:
            yield

        for bad in ("log", later, never):
            with pytest.raises(TypeError, match=r"^on_evict must be"):
                self.make(on_evict=bad)

    def test_a_loader_that_is_no_function_changes_nothing(self) -> None:
        cache = self.make()
        loader: Any = "value"
        with pytest.raises(TypeError, match=r"loader .* not 'value'"):
            cache.get_or_load("key", loader)
        assert cache.stats.misses == 0
        assert cache.items() == []

    @pytest.mark.parametrize("call", ["get", "set", "delete", "get_or_load", "in"])
    def test_an_unhashable_key_changes_nothing(self, call: str) -> None:
        cache = self.make()
        cache.set("key", "kept")
        before = cache.stats
        calls: dict[str, Callable[[], object]] = {
            "get": lambda: cache.get(["key"]),
            "set": lambda: cache.set(["key"], 1),
            "delete": lambda: cache.delete(["key"]),
            "get_or_load": lambda: cache.get_or_load(["key"], lambda: 1),
            "in": lambda: ["key"] in cache,
        }
        with pytest.raises(TypeError, match=r"key must be hashable.* not \['key'\]"):
            calls[call]()
        assert cache.stats == before
        assert cache.items() == [("key", "kept")]

    def test_a_number_too_large_for_a_clock_is_for_ever(self) -> None:
        cache, clock = self.timed()
        cache.set("key", "value", ttl=10**400)
        clock.tick(1e15)
        assert cache.get("key") == "value"
