"""ShardedCache: the choice of the shard, the bound, all shards at once, TTLCache's contract."""

import inspect
import math
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule, run_state_machine_as_test

from benchmarks import sharded
from benchmarks.harness import Effort
from reference_impl.caches import sharded_cache, ttl_cache
from reference_impl.caches.sharded_cache import ShardedCache
from reference_impl.caches.ttl_cache import CacheStats, TTLCache
from tests.caches import test_ttl_cache
from tests.caches.test_ttl_cache import LONG, Gate, threads, until
from tests.caches.test_ttl_cache_model import DEFAULT, Caches, Entry
from tests.contracts import cache_contract as contract
from tests.contracts.cache_contract import Clock
from tests.kit import ROOT
from tests.kit.process import run_python
from tests.kit.twins import twin

Check = Callable[[ModuleType], None]


def broken(*replacements: tuple[str, str]) -> ModuleType:
    return twin("caches/sharded_cache.py", *replacements)


def home(cache: Any, key: object) -> int:
    """The number of the shard that `key` lives in."""
    return int(cache._shards.index(cache._shard(key)))


def spread(cache: Any, keys: Any) -> list[int]:
    """How many of `keys` each shard gets."""
    counts = Counter(home(cache, key) for key in keys)
    return [counts[number] for number in range(len(cache._shards))]


def in_each(cache: Any) -> list[int]:
    """One key for each shard, in the shards' order."""
    found: dict[int, int] = {}
    number = 0
    while len(found) < len(cache._shards):
        found.setdefault(home(cache, number), number)
        number += 1
    return [found[shard] for shard in sorted(found)]


# ---- a key and its shard: SC-1 -----------------------------------------------------------


def check_equal_keys_are_one_key(module: ModuleType) -> None:
    cache = module.ShardedCache(16)
    for same in (
        (1, 1.0, True, 1 + 0j),
        (0, -0.0, False),
        (2**70, float(2**70)),
        ("a", "".join("a")),
    ):
        cache.clear()
        for value, key in enumerate(same):
            cache.set(key, value)
            assert [cache.get(other) for other in same] == [value] * len(same)
        assert len(cache) == 1


def check_multiples_spread(module: ModuleType) -> None:
    """Each shard gets keys, and none gets twice its share."""
    for shards in (2, 3, 4, 7, 8, 10, 16, 21, 32, 64, 100, 144, 256):
        cache = module.ShardedCache(shards, max_size=None)
        for step in (1, shards, -shards, 7 * shards):
            counts = spread(cache, range(0, 100 * shards * step, step))
            assert min(counts) >= 40, (shards, step)
            assert max(counts) <= 200, (shards, step)


def check_other_patterns_spread(module: ModuleType) -> None:
    cache = module.ShardedCache(16, max_size=None)
    patterns: dict[str, list[Any]] = {
        "addresses": [0x7F00_0000_0000 + 64 * n for n in range(1_600)],
        "dates and a counter": [n << 32 for n in range(1_600)],
        "the upper bits only": [n << 48 for n in range(1_600)],
        "thousands": [1_000 * n for n in range(1_600)],
        "a bad step for the golden ratio": [832_040 * n for n in range(1_600)],
        "fractions": [n / 1_024 for n in range(1_600)],
        "pairs": [(n, 0) for n in range(1_600)],
    }
    for name, keys in patterns.items():
        counts = spread(cache, keys)
        assert min(counts) >= 40, name
        assert max(counts) <= 200, name


@pytest.mark.guarantee("SC-1")
@pytest.mark.parametrize(
    "check",
    [check_equal_keys_are_one_key, check_multiples_spread, check_other_patterns_spread],
)
def test_keys(check: Check) -> None:
    check(sharded_cache)


MIXED = "mixed = hash((key, 0)) & _MASK"
CHOSEN = "self._shards[mixed * len(self._shards) >> _WIDTH]"


@pytest.mark.twin("SC-1")
@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (check_equal_keys_are_one_key, "hash((key, 0))", "hash(repr(key))"),
        (check_equal_keys_are_one_key, "hash((key, 0))", "hash((key, type(key).__name__))"),
        # The sketch, which sends every multiple of 16 to one shard of 16.
        (check_multiples_spread, CHOSEN, "self._shards[hash(key) % len(self._shards)]"),
        # Fibonacci hashing alone: good for small steps, and not for its own.
        (
            check_other_patterns_spread,
            MIXED,
            "mixed = hash(key) * 0x9E3779B97F4A7C15 & _MASK",
        ),
        (check_other_patterns_spread, CHOSEN, "self._shards[hash(key) * 31 % len(self._shards)]"),
    ],
)
def test_keys_are_checked(check: Check, old: str, new: str) -> None:
    module = broken((old, new))
    with pytest.raises(AssertionError):
        check(module)


KEYS = st.integers() | st.floats() | st.text() | st.binary() | st.none() | st.booleans()


@pytest.mark.guarantee("SC-1")
@given(key=KEYS | st.tuples(KEYS, KEYS), shards=st.integers(1, 1_000))
def test_a_key_always_goes_to_the_same_shard(key: object, shards: int) -> None:
    cache = ShardedCache[object, int](shards, max_size=None)
    assert cache._shard(key) is cache._shard(key)
    cache.set(key, 1)
    assert cache.get(key) == 1
    assert cache.delete(key)


@pytest.mark.guarantee("SC-1")
def test_strings_spread_whatever_their_hashes_are_salted_with() -> None:
    for salt in ("0", "1", "random"):
        run_python(
            f"""
            import os, sys
            if os.environ.get("PYTHONHASHSEED") != "{salt}":
                os.environ["PYTHONHASHSEED"] = "{salt}"
                os.execv(sys.executable, [sys.executable, "-c", sys.orig_argv[-1]])
            from reference_impl.caches.sharded_cache import ShardedCache
            cache = ShardedCache(16, max_size=None)
            for number in range(1600):
                cache.set("report " + str(number), number)
            sizes = [len(shard) for shard in cache._shards]
            assert 40 <= min(sizes) <= max(sizes) <= 200, sizes
            """
        )


# ---- the bound: SC-2 ---------------------------------------------------------------------


def check_the_shares_add_up(module: ModuleType) -> None:
    for shards in (1, 2, 3, 7, 16, 100):
        for max_size in (shards, shards + 1, 2 * shards - 1, 1_000, 10_007):
            cache = module.ShardedCache(shards, max_size=max_size)
            sizes = [shard._max_size for shard in cache._shards]
            assert sum(sizes) == max_size
            assert max(sizes) - min(sizes) <= 1


def check_the_defaults(module: ModuleType) -> None:
    """16 shards, and a thousand entries in all of them together."""
    cache = module.ShardedCache()
    assert len(cache._shards) == 16
    for number in range(20_000):
        cache.set(number, number)
    assert len(cache) == 1_000


def check_a_flood_fills_it_exactly(module: ModuleType) -> None:
    """The sketch held 16 times as much: 160,000 entries instead of 10,000."""
    cache = module.ShardedCache(16, max_size=1_000)
    for number in range(20_000):
        cache.set(number, number)
        assert number % 1_000 or len(cache) <= 1_000
    assert len(cache) == len(cache.keys()) == 1_000
    assert cache.stats.evictions == 19_000


def check_a_bound_below_the_shards_is_refused(module: ModuleType) -> None:
    for max_size in (15, 1):
        message = rf"max_size must be at least num_shards.*{max_size} with num_shards 16: raise"
        with pytest.raises(ValueError, match=message):
            module.ShardedCache(16, max_size=max_size)
    assert [shard._max_size for shard in module.ShardedCache(16, max_size=16)._shards] == [1] * 16


BOUND = "share + (number < remainder)"
BOUNDS: list[tuple[Check, str, str]] = [
    (check_the_defaults, "num_shards: int = 16", "num_shards: int = 8"),
    (check_the_defaults, "max_size: int | None = 1000", "max_size: int | None = None"),
    (check_the_shares_add_up, BOUND, "share"),
    (check_the_shares_add_up, BOUND, "share + remainder * (number == 0)"),
    (check_a_flood_fills_it_exactly, BOUND, "max_size"),  # the sketch
    (check_a_flood_fills_it_exactly, BOUND, "-(-max_size // num_shards)"),  # rounded up
    (check_a_bound_below_the_shards_is_refused, "if max_size < num_shards:", "if False:"),
    (check_a_bound_below_the_shards_is_refused, "max_size < num", "max_size <= num"),
]


@pytest.mark.guarantee("SC-2")
@pytest.mark.parametrize("check", {check: None for check, _, _ in BOUNDS})
def test_the_bound(check: Check) -> None:
    check(sharded_cache)


@pytest.mark.twin("SC-2")
@pytest.mark.parametrize(("check", "old", "new"), BOUNDS)
def test_the_bound_is_checked(check: Check, old: str, new: str) -> None:
    module = broken((old, new))
    with pytest.raises((AssertionError, ValueError, pytest.fail.Exception)):
        check(module)


@pytest.mark.guarantee("SC-2")
def test_without_a_bound_no_shard_has_one() -> None:
    cache = ShardedCache[int, int](16, max_size=None)
    assert {shard._max_size for shard in cache._shards} == {math.inf}


# ---- all shards at once: SC-3 ------------------------------------------------------------


def filled(module: ModuleType) -> tuple[Any, list[int], Clock]:
    """A cache of four shards with one entry in each, and their keys."""
    clock = Clock()
    cache = module.ShardedCache(4, default_ttl=10.0, max_size=8, clock=clock)
    keys = in_each(cache)
    for key in keys:
        cache.set(key, f"value {key}")
    return cache, keys, clock


def check_views_cover_all_shards(module: ModuleType) -> None:
    cache, keys, _ = filled(module)
    assert cache.keys() == keys
    assert cache.items() == [(key, f"value {key}") for key in keys]
    assert cache.size == len(cache) == 4
    assert all(key in cache for key in keys)


def check_clear_covers_all_shards(module: ModuleType) -> None:
    cache, keys, _ = filled(module)
    cache.clear()
    assert (cache.size, cache.keys(), cache.items()) == (0, [], [])
    assert not any(key in cache for key in keys)


def check_clean_up_covers_all_shards(module: ModuleType) -> None:
    cache, _, clock = filled(module)
    clock.tick(10.0)
    assert cache.cleanup_expired() == 4
    assert cache.cleanup_expired() == 0
    assert sum(len(shard._entries) for shard in cache._shards) == 0


def check_stats_add_up_all_shards(module: ModuleType) -> None:
    """Each counter gets a number of its own, in each shard."""
    cache, keys, clock = filled(module)
    for key in keys:
        for _ in range(3):
            cache.get(key)
        for _ in range(5):
            cache.get(("absent", key))
        for _ in range(2):
            cache.get_or_load(key, lambda: pytest.fail("it is there"))
        with pytest.raises(ZeroDivisionError):
            cache.get_or_load(("fails", key), lambda: 1 // 0)
    clock.tick(10.0)
    for number in range(100):
        cache.get_or_load(10_000 + number, lambda: 1)
    assert cache.stats == CacheStats(
        hits=20, misses=124, evictions=92, expirations=4, loads=100, load_failures=4
    )


SUM = "for shard in self._shards)"
FIRST = "for shard in self._shards[:1])"
ALL: list[tuple[Check, str, str]] = [
    (
        check_views_cover_all_shards,
        "shard in self._shards for key",
        "shard in self._shards[1:] for key",
    ),
    (check_views_cover_all_shards, "in self._shards for item", "in self._shards[1:] for item"),
    (check_views_cover_all_shards, "shard.size " + SUM, "shard.size " + FIRST),
    (check_clear_covers_all_shards, "in self._shards:", "in self._shards[1:]:"),
    (check_clean_up_covers_all_shards, "expired() " + SUM, "expired() " + FIRST),
    (
        check_stats_add_up_all_shards,
        "for shard in self._shards]\n        return Ca",
        "for shard in self._shards[1:]]\n        return Ca",
    ),
    (check_stats_add_up_all_shards, "loads=sum(stats.loads", "loads=max(stats.loads"),
    (check_stats_add_up_all_shards, "sum(stats.evictions", "sum(stats.expirations"),
]


@pytest.mark.guarantee("SC-3")
@pytest.mark.parametrize("check", {check: None for check, _, _ in ALL})
def test_all_shards(check: Check) -> None:
    check(sharded_cache)


@pytest.mark.twin("SC-3")
@pytest.mark.parametrize(("check", "old", "new"), ALL)
def test_all_shards_are_checked(check: Check, old: str, new: str) -> None:
    module = broken((old, new))
    with pytest.raises(AssertionError):
        check(module)


def test_a_sum_is_of_several_instants() -> None:
    """The limit that SC-3 states: an entry that moves may be counted where it was and is."""
    plan: list[Callable[[], None]] = []

    def clock() -> float:
        if plan:
            thread = threading.Thread(target=plan.pop())  # a badly timed switch of threads
            thread.start()
            thread.join()
        return 1.0

    def nothing() -> None:
        pass

    def move() -> None:
        cache.delete(first)
        cache.set(last, "entry")

    cache = ShardedCache[int, str](3, max_size=None, clock=clock)
    first, _, last = in_each(cache)
    cache.set(first, "entry")
    plan += [move, nothing]  # when the first shard is counted, nothing; then, the move
    assert cache.size == 2  # the first shard before the move, the last one after it
    assert cache.size == 1


# ---- what TTLCache promises, in each shard: SC-4 -----------------------------------------


class Same:
    """A key that shares its shard with every other one of its kind."""

    def __init__(self, key: Any) -> None:
        self.key = key

    def __hash__(self) -> int:
        return hash(self.key) * 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and bool(self.key == other.key)

    def __repr__(self) -> str:
        return repr(self.key)


class OneShard:
    """One shard of four, used like a TTLCache by way of the whole ShardedCache."""

    def __init__(
        self, default_ttl: Any = 3600.0, max_size: Any = 1000, module: Any = None, **more: Any
    ) -> None:
        whole = max_size
        if type(max_size) is int and max_size > 0:
            whole = 4 * max_size  # the keys meet in one shard, and that holds a quarter
        made = (module or sharded_cache).ShardedCache(
            4, default_ttl=default_ttl, max_size=whole, **more
        )
        self.cache = made
        self.shard = made._shard(Same(0))

    def get(self, key: Any, default: Any = None) -> Any:
        return self.cache.get(Same(key), default)

    def set(self, key: Any, value: Any, ttl: Any = None) -> None:
        self.cache.set(Same(key), value, ttl)

    def delete(self, key: Any) -> bool:
        return bool(self.cache.delete(Same(key)))

    def clear(self) -> None:
        self.cache.clear()

    def cleanup_expired(self) -> int:
        return int(self.cache.cleanup_expired())

    def get_or_load(self, key: Any, loader: Any, ttl: Any = None) -> Any:
        return self.cache.get_or_load(Same(key), loader, ttl)

    def keys(self) -> list[Any]:
        return [same.key for same in self.cache.keys()]  # noqa: SIM118 - no dict

    def items(self) -> list[tuple[Any, Any]]:
        return [(same.key, value) for same, value in self.cache.items()]

    @property
    def stats(self) -> CacheStats:
        stats: CacheStats = self.cache.stats
        return stats

    @property
    def size(self) -> int:
        return int(self.cache.size)

    def __len__(self) -> int:
        return len(self.cache)

    def __contains__(self, key: Any) -> bool:
        return Same(key) in self.cache

    @property
    def _loads(self) -> dict[Any, Any]:
        return {same.key: load for same, load in self.shard._loads.items()}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.shard, name)


def as_ttl_cache(module: ModuleType) -> ModuleType:
    """A module whose TTLCache is one shard of four; its lines are those of ttl_cache."""
    found = ModuleType("one_shard")
    found.__file__ = ttl_cache.__file__

    def make(default_ttl: Any = 3600.0, max_size: Any = 1000, **more: Any) -> OneShard:
        return OneShard(default_ttl, max_size, module, **more)

    vars(found)["TTLCache"] = make
    return found


def with_shards(*faults: tuple[str, str]) -> ModuleType:
    """ShardedCache, as it is, over TTLCaches with `faults`."""
    module = broken(('"""A TTLCache in shards', '"""Broken TTLCaches in shards'))
    vars(module)["TTLCache"] = twin("caches/ttl_cache.py", *faults).TTLCache
    return module


class _OneShard(contract.CacheCases):
    module: ModuleType = sharded_cache

    def make(self, **arguments: Any) -> Any:
        return OneShard(module=self.module, **arguments)


class _FourShards(contract.CacheCases):
    module: ModuleType = sharded_cache

    def make(self, **arguments: Any) -> Any:
        shards = 1 if arguments.get("max_size") == 1 else 4
        return self.module.ShardedCache(shards, **({"max_size": None} | arguments))


@pytest.mark.guarantee("SC-4")
class TestExpiry(_OneShard, contract.ExpiryCases):
    pass


@pytest.mark.guarantee("SC-4")
class TestBound(_OneShard, contract.BoundCases):
    pass


@pytest.mark.guarantee("SC-4")
class TestEviction(_OneShard, contract.EvictionCases):
    pass


@pytest.mark.guarantee("SC-4")
class TestStats(_OneShard, contract.StatsCases):
    pass


@pytest.mark.guarantee("SC-4")
class TestLoading(_OneShard, contract.LoadingCases):
    pass


@pytest.mark.guarantee("SC-4")
class TestInvalidation(_OneShard, contract.InvalidationCases):
    pass


@pytest.mark.guarantee("SC-4")
class TestNone(_OneShard, contract.NoneCases):
    pass


# Over all four shards: all cases but those that look at the order of use.


@pytest.mark.guarantee("SC-4")
class TestExpiryInAllShards(_FourShards, contract.ExpiryCases):
    pass


@pytest.mark.guarantee("SC-4")
class TestStatsOfAllShards(_FourShards, contract.StatsCases):
    pass


@pytest.mark.guarantee("SC-4")
class TestLoadingInAllShards(_FourShards, contract.LoadingCases):
    pass


@pytest.mark.guarantee("SC-4")
class TestInvalidationInAllShards(_FourShards, contract.InvalidationCases):
    pass


@pytest.mark.guarantee("SC-4")
class TestNoneInAllShards(_FourShards, contract.NoneCases):
    pass


class TestBadInput(_FourShards, contract.BadInputCases):
    @pytest.mark.parametrize(
        ("bad", "error"),
        [
            (0, ValueError),
            (-16, ValueError),
            (True, TypeError),
            (4.0, TypeError),
            ("4", TypeError),
            (None, TypeError),
        ],
    )
    def test_a_bad_number_of_shards_is_refused(self, bad: Any, error: type[Exception]) -> None:
        with pytest.raises(error) as caught:
            ShardedCache[int, int](bad)
        words = "an int" if error is TypeError else "at least 1"
        assert str(caught.value) == f"num_shards must be {words}, not {bad!r}"

    def test_the_number_of_shards_and_nothing_else_goes_by_position(self) -> None:
        make: Any = ShardedCache
        with pytest.raises(TypeError, match="positional"):
            make(16, 60.0)


def case(cases: type[Any], module: ModuleType, name: str) -> Callable[..., object]:
    instance = cases()
    instance.module = module
    (found,) = (getattr(instance, test) for test in dir(cases) if test.startswith(f"test_{name}"))
    return lambda: found(*["in"] * (found.__name__ == "test_no_view_shows_an_expired_entry"))


WRONG = [
    (TestExpiry, "each_entry_has", "set(key, value, ttl)", "set(key, value)"),
    (TestExpiry, "an_expired_value", "get_or_load(key, loader, ttl)", "get_or_load(key, loader)"),
    (
        TestExpiry,
        "an_entry_lives",
        "TTLCache[K, V](default_ttl, size, clock=clock)",
        "TTLCache[K, V](3600.0, size, clock=clock)",
    ),
    (TestBound, "the_bound", "(default_ttl, size, clock", "(default_ttl, None, clock"),
    (TestEviction, "asking_whether", "key in self._shard(key)", "self.get(key) is not None"),
    (
        TestEviction,
        "the_least_recent",
        ".get(key, default)",
        ".__dict__['_entries'].get(key, [default])[0]",
    ),
    (TestStats, "looking_without", "key in self._shard(key)", "self.get(key) is not None"),
    (TestLoading, "a_value_is", "get_or_load(key, loader, ttl)", "_load_or_join(key, loader, 0.0)"),
    (
        TestInvalidation,
        "a_clear_during",
        "            shard.clear()",
        "            [shard._entries.popitem() for _ in shard.keys()]",
    ),
    (
        TestInvalidation,
        "a_set_during",
        "return self._shard(key).get_or_load(key, loader, ttl)",
        "self.set(key, value := loader(), ttl)\n        return value",
    ),
    (TestNone, "none_is_stored", ".get(key, default)", ".get(key) or default"),
    (TestNoneInAllShards, "none_is_stored", "key in self._shard(key)", "bool(self.get(key))"),
]


@pytest.mark.twin("SC-4")
@pytest.mark.parametrize(("cases", "name", "old", "new"), WRONG)
def test_the_contract_catches(cases: type[Any], name: str, old: str, new: str) -> None:
    run = case(cases, broken((old, new)), name)
    with pytest.raises((AssertionError, KeyError, pytest.fail.Exception)):
        run()


@pytest.mark.twin("SC-4")
@pytest.mark.parametrize(
    ("name", "test", "old", "new"), [(f[1].__name__, *f[2:]) for f in test_ttl_cache.FAULTS]
)
def test_the_contract_catches_a_broken_shard(name: str, test: str, old: str, new: str) -> None:
    run = case(globals()[name], with_shards((old, new)), test)
    with pytest.raises((AssertionError, KeyError, pytest.fail.Exception)):
        run()


# TTLCache's own checks of several threads, of circles, of cost and of what a call drops.
OF_ONE_SHARD: list[Check] = [
    *(entry[1] for entry in test_ttl_cache.THREADS),
    *test_ttl_cache.CIRCLES,
    test_ttl_cache.check_other_keys_go_on_during_a_load,
    test_ttl_cache.check_a_chain_that_is_no_circle,
    test_ttl_cache.check_a_clock_that_steps_back_does_no_harm,
    test_ttl_cache.check_many_times_to_live_leave_nothing_behind,
    test_ttl_cache.check_sets_work_off_a_backlog,
    test_ttl_cache.check_a_failed_load_leaves_no_cycle,
]


@pytest.mark.guarantee("SC-4")
@pytest.mark.parametrize("check", OF_ONE_SHARD)
def test_one_shard_is_a_ttl_cache(check: Check) -> None:
    check(as_ttl_cache(sharded_cache))


@pytest.mark.guarantee("SC-4")
@pytest.mark.parametrize("how", test_ttl_cache.DROPS)
def test_what_is_dropped_is_released_outside_the_lock(how: str) -> None:
    module = as_ttl_cache(sharded_cache)
    test_ttl_cache.check_what_is_dropped_is_released_outside_the_lock(module, how)


@pytest.mark.twin("SC-4")
@pytest.mark.parametrize(("check", "old", "new"), [f[1:] for f in test_ttl_cache.THREADS])
def test_threads_are_checked(check: Check, old: str, new: str) -> None:
    module = as_ttl_cache(with_shards((old, new)))
    with pytest.raises(AssertionError):
        check(module)


def check_the_cost_does_not_grow(module: ModuleType) -> None:
    """Steps of ShardedCache itself: by the number of shards only, not by that of entries."""

    def costs(entries: int) -> list[int]:
        cache = module.ShardedCache(16, max_size=None)
        for number in range(entries):
            cache.set(number, number)
        return [
            test_ttl_cache.steps(module, action)
            for action in (
                lambda: cache.get(1),
                lambda: cache.set(1, 2),
                lambda: cache.delete(1),
                lambda: cache.get_or_load(1, lambda: 2),
                lambda: 1 in cache,
                lambda: len(cache),
                lambda: cache.stats,
                lambda: cache.cleanup_expired(),
            )
        ]

    assert costs(100) == costs(5_000)


@pytest.mark.guarantee("SC-4")
def test_the_cost_does_not_grow() -> None:
    check_the_cost_does_not_grow(sharded_cache)


@pytest.mark.twin("SC-4")
def test_a_cost_that_grows_is_noticed() -> None:
    module = broken(("sum(shard.size " + SUM, "len([1 for _ in self.keys()\n])"))
    with pytest.raises(AssertionError):
        check_the_cost_does_not_grow(module)


def check_loads_across_shards(module: ModuleType) -> None:
    """A circle through three shards of one cache is noticed; a chain is none."""
    cache = module.ShardedCache(4, max_size=None)
    a, b, c, _ = in_each(cache)
    load = cache.get_or_load
    with pytest.raises(RuntimeError, match=f"the load of {a} would wait for itself"):
        load(a, lambda: load(b, lambda: load(c, lambda: load(a, lambda: 1))))
    assert (cache.stats.load_failures, len(cache)) == (3, 0)
    assert load(a, lambda: load(b, lambda: load(c, lambda: 1))) == 1
    assert (cache.stats.loads, len(cache)) == (3, 3)


@pytest.mark.guarantee("SC-4")
def test_a_circle_of_loads_across_shards_is_noticed() -> None:
    check_loads_across_shards(sharded_cache)


@pytest.mark.twin("SC-4")
def test_a_circle_that_only_each_shard_looks_for_is_noticed() -> None:
    hangs = test_ttl_cache.HANGS
    with pytest.raises(AssertionError, match="it hangs"):
        check_loads_across_shards(with_shards(("if load in blocked:", "if False:"), hangs))


# ---- against a model ---------------------------------------------------------------------


class ShardedCaches(Caches):
    """The model of TTLCache, but that room is made, and order kept, in each shard."""

    module: ModuleType = sharded_cache

    @initialize(max_size=st.sampled_from([3, 4, 5, 7, None]), shards=st.integers(1, 3))
    def start(self, max_size: int | None, shards: int = 1) -> None:
        self.clock = Clock()
        self.cache: Any = self.module.ShardedCache(
            shards, default_ttl=DEFAULT, max_size=max_size, clock=self.clock
        )
        whole = 1_000_000 if max_size is None else max_size
        self.room = [(whole + shards - 1 - n) // shards for n in range(shards)]
        self.entries: list[Entry] = []
        self.hits = self.misses = self.evictions = self.expirations = 0
        self.loads = self.failures = 0

    def store(self, key: int, value: int | None, ttl: float | None) -> None:
        if (old := self.find(key)) is not None:
            self.entries.remove(old)
        deadline = self.clock.now + (DEFAULT if ttl is None else ttl)
        self.entries.append(Entry(key, value, deadline))
        shard = home(self.cache, key)
        mates = [entry for entry in self.entries if home(self.cache, entry.key) == shard]
        if len(mates) > self.room[shard]:
            self.entries.remove(mates[0])
            self.evictions += 1

    @rule()
    def views_agree(self) -> None:
        self.entries.sort(key=lambda entry: home(self.cache, entry.key))  # stable
        super().views_agree()

    @invariant()
    def counters_agree(self) -> None:
        if hasattr(self, "cache"):
            stats = self.cache.stats
            assert (stats.hits, stats.misses) == (self.hits, self.misses)
            assert (stats.loads, stats.load_failures) == (self.loads, self.failures)
            for shard, room in zip(self.cache._shards, self.room, strict=True):
                assert len(shard._entries) <= room


def run_model(module: ModuleType, examples: int, phases: tuple[Phase, ...] = tuple(Phase)) -> None:
    machine = type("Machine", (ShardedCaches,), {"module": module})
    chosen = settings(
        max_examples=examples,
        stateful_step_count=40,
        database=None,
        phases=phases,
        derandomize=phases == (Phase.generate,),  # a fault is found each time, or never
    )
    run_state_machine_as_test(machine, settings=chosen)


@pytest.mark.guarantee("SC-2", "SC-3", "SC-4")
def test_the_cache_does_what_the_model_does() -> None:
    run_model(sharded_cache, examples=100)


@pytest.mark.twin("SC-2", "SC-3", "SC-4")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("share + (number < remainder)", "share"),
        ("shard.size " + SUM, "shard.size " + FIRST),
        ("self._shard(key).delete(key)", "self._shards[0].delete(key)"),
        ("set(key, value, ttl)", "set(key, value)"),
        ("key in self._shard(key)", "self.get(key) is not None"),
        ("sum(stats.evictions", "max(stats.evictions"),
    ],
)
def test_a_broken_cache_differs_from_the_model(old: str, new: str) -> None:
    with pytest.raises((AssertionError, KeyError, ExceptionGroup)):
        run_model(broken((old, new)), examples=2000, phases=(Phase.generate,))


# ---- who waits for whom: SC-5 ------------------------------------------------------------


class Held:
    """A clock that, once armed, holds its caller, and with it the lock of one shard."""

    def __init__(self) -> None:
        self.armed, self.entered, self.leave = False, threading.Event(), threading.Event()

    def __call__(self) -> float:
        if self.armed:
            self.armed = False
            self.entered.set()
            assert self.leave.wait(LONG)
        return 1.0


def check_shards_do_not_wait_for_each_other(module: ModuleType) -> None:
    """While one thread is held inside the first shard, calls on the others go through."""
    clock = Held()
    cache = module.ShardedCache(4, max_size=None, clock=clock)
    keys = in_each(cache)
    for key in keys:
        cache.set(key, "value")
    with threads(3) as start:
        clock.armed = True
        holder = start(cache.get, keys[0])
        try:
            assert clock.entered.wait(LONG)
            for key in keys[1:]:
                assert not is_locked(cache._shard(key))
                assert start(cache.get, key).result(LONG) == "value"
            assert is_locked(cache._shard(keys[0]))  # and its own would wait
        finally:
            clock.leave.set()
        assert holder.result(LONG) == "value"


def is_locked(shard: TTLCache[Any, Any]) -> bool:
    """Asked in a thread that does not hold it."""
    free = shard._lock.acquire(blocking=False)
    if free:
        shard._lock.release()
    return not free


@pytest.mark.guarantee("SC-5")
def test_shards_do_not_wait_for_each_other() -> None:
    check_shards_do_not_wait_for_each_other(sharded_cache)


@pytest.mark.twin("SC-5")
def test_shards_that_share_a_lock_are_noticed() -> None:
    """Many shards, and one lock for all: nothing but the cost of sharding."""
    made = "for size in sizes)\n"
    lock = "        for shard in self._shards:\n            shard._lock = self._shards[0]._lock\n"
    with pytest.raises(AssertionError):
        check_shards_do_not_wait_for_each_other(broken((made, made + lock)))


PAGE = (ROOT / "docs/caches/sharded_cache.md").read_text(encoding="utf-8")
FIGURES = '--8<-- "docs/evidence/sharded_cache.md:figures"'


def check_what_is_claimed_is_measured(page: str) -> None:
    """The page shows the generated figures, and its prose types none of its own."""
    tuning = page[page.index("## Tuning") : page.index("## Testing your own use")]
    assert f"\n{FIGURES}\n" in tuning
    assert "nox -s bench" in tuning
    prose = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    claims = re.findall(
        r"\d[\d.,]* ?(?:×|%|per cent|times|-fold|x\b|ns\b|ms\b|µs\b)|(?:ten|twice|half) as \w+",
        prose,
    )
    assert claims == []


@pytest.mark.guarantee("SC-5")
def test_what_the_page_claims_of_contention_is_measured() -> None:
    check_what_is_claimed_is_measured(PAGE)


@pytest.mark.guarantee("SC-5")
def test_contention_and_throughput_are_what_the_benchmark_measures() -> None:
    assert {load.threads for load in sharded.LOADS} >= {1, 8, 100}
    (plan,) = sharded.plans(Effort(rounds=2, sample_ns=1, sizes=(10,), items=10))
    assert plan.component == "caches/sharded_cache"
    assert [getattr(table, "func", None) for table in plan.tables] == [
        sharded._contention,
        sharded._throughput,
    ]


@pytest.mark.twin("SC-5")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (FIGURES, "See the evidence."),
        ("## Tuning\n", "## Tuning\n\nA 16x reduction in lock contention.\n"),
        ("## Tuning\n", "## Tuning\n\nEight threads wait 6.4 times less.\n"),
    ],
)
def test_a_claim_that_is_typed_is_noticed(old: str, new: str) -> None:
    assert old in PAGE
    with pytest.raises(AssertionError):
        check_what_is_claimed_is_measured(PAGE.replace(old, new))


# ---- the whole interface, processes ------------------------------------------------------


def check_the_interface_is_that_of_ttl_cache(module: ModuleType) -> None:
    """The sketch had two of its twelve members, and not one of them whole."""
    names = {n for n in vars(TTLCache) if not n.startswith("_")} | {"__len__", "__contains__"}
    assert len(names) == 12
    for name in names:
        theirs: Any = getattr(TTLCache, name)
        ours: Any = vars(module.ShardedCache).get(name)
        assert ours is not None, name
        if isinstance(theirs, property):
            theirs, ours = theirs.fget, ours.fget
        assert str(inspect.signature(ours)) == str(inspect.signature(theirs)), name
    defaults = inspect.signature(TTLCache).parameters
    parameters = inspect.signature(module.ShardedCache).parameters
    assert {**parameters, "num_shards": None}.keys() == {*defaults, "num_shards"}
    assert all(parameters[n].default == defaults[n].default for n in defaults)


def test_the_interface_is_that_of_ttl_cache() -> None:
    check_the_interface_is_that_of_ttl_cache(sharded_cache)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def cleanup_expired", "def clean_up"),
        ("key: K, value: V, ttl: float | None = None", "key: K, value: V"),
    ],
)
def test_a_method_that_is_missing_is_noticed(old: str, new: str) -> None:
    module = broken((old, new))
    with pytest.raises(AssertionError):
        check_the_interface_is_that_of_ttl_cache(module)


def test_twenty_threads_load_each_key_once() -> None:
    cache, loads = ShardedCache[int, object](16), [Gate(object) for _ in range(4)]
    with threads(20) as start:
        results = [[start(cache.get_or_load, k, loads[k]) for _ in range(5)] for k in range(4)]
        until(lambda: cache.stats.misses == 20)
        for load in loads:
            load.open.set()
        values = [{id(result.result(LONG)) for result in group} for group in results]
    assert [load.calls for load in loads] == [1] * 4
    assert [len(group) for group in values] == [1] * 4


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
def test_a_forked_child_has_a_copy() -> None:
    run_python(
        """
        import os
        from reference_impl.caches.sharded_cache import ShardedCache

        cache = ShardedCache(4)
        for number in range(100):
            cache.set(str(number), number)
        if (child := os.fork()) == 0:
            assert all(cache.get(str(number)) == number for number in range(100))
            cache.clear()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert len(cache) == 100
        """
    )
