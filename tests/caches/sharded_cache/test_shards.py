"""ShardedCache: the choice of the shard, the bound, all shards at once, who waits for whom."""

import inspect
import re
import sys
import threading
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference_impl.caches import sharded_cache
from reference_impl.caches.sharded_cache import ShardedCache
from reference_impl.caches.ttl_cache import CacheStats, TTLCache
from tests.caches.sharded_cache.helpers import COMPONENT, FourShardsCases, in_each, one_in_each
from tests.caches.ttl_cache.faults import counted, wrapped
from tests.caches.ttl_cache.helpers import Loader, outcome, proves, until
from tests.contracts import cache_contract as contract
from tests.contracts.cache_contract import Clock
from tests.kit import ROOT
from tests.kit.fakes import Beside
from tests.kit.primitives import rebind
from tests.kit.process import run_python
from tests.kit.profile import budget
from tests.kit.proofs import Proof, failing, holding
from tests.kit.twins import Fault, Twin, edit, must_fail, override, patch

# A key and its shard: SC-1.


def check_equal_keys_are_one_key(m: ModuleType) -> None:
    cache = m.ShardedCache(16)
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


def check_they_spread(m: ModuleType, shards: int, keys: Iterable[object]) -> None:
    """Of 100 keys for each shard, each shard gets 40 at least, and none more than 200."""
    small = m.ShardedCache(shards, max_size=40 * shards)
    large = m.ShardedCache(shards, max_size=200 * shards)
    for key in keys:
        small.set(key, None)
        large.set(key, None)
    assert len(small) == 40 * shards, "a shard gets few keys"
    assert large.stats.evictions == 0, "a shard gets many keys"


def check_multiples_spread(m: ModuleType) -> None:
    more = (4, 8, 10, 21, 32, 100, 144, 256)
    for shards in (2, 3, 7, 16, 64, *budget((), more)):
        for step in (1, shards, -shards, 7 * shards):
            check_they_spread(m, shards, range(0, 100 * shards * step, step))


def check_other_patterns_spread(m: ModuleType) -> None:
    patterns: dict[str, Callable[[int], object]] = {
        "addresses": lambda n: 0x7F00_0000_0000 + 64 * n,
        "dates and a counter": lambda n: n << 32,
        "the upper bits only": lambda n: n << 48,
        "thousands": lambda n: 1_000 * n,
        "a bad step for the golden ratio": lambda n: 832_040 * n,
        "fractions": lambda n: n / 1_024,
        "pairs": lambda n: (n, 0),
    }
    for pattern in patterns.values():
        check_they_spread(m, 16, map(pattern, range(1_600)))


def hashed(by: Callable[[Any], int]) -> Fault:
    """The module has another `hash`, in 64 bits; it is given (key, 0)."""

    def change(m: ModuleType) -> None:
        vars(m)["hash"] = lambda pair: by(pair) << sys.hash_info.width >> 64

    return patch(change)


KEYS = [
    proves(
        "SC-1",
        check_equal_keys_are_one_key,
        "goes by what a key looks like",
        hashed(lambda pair: hash(repr(pair))),
        "AssertionError: assert [cache.get(other) for other in same]",
    ),
    proves(
        "SC-1",
        check_multiples_spread,
        "goes by the remainder of the hash",
        hashed(lambda pair: hash(pair[0]) % 16 << 60),
        "AssertionError: a shard gets few keys",
    ),
    proves(
        "SC-1",
        check_other_patterns_spread,
        "multiplies the hash once",
        hashed(lambda pair: hash(pair[0]) * 0x9E3779B97F4A7C15),
        "AssertionError: a shard gets few keys",
    ),
]
ANY = st.integers() | st.floats() | st.text() | st.binary() | st.none() | st.booleans()


@pytest.mark.guarantee("SC-1")
@given(key=ANY | st.tuples(ANY, ANY), shards=st.integers(1, 100))
def test_a_key_always_goes_to_the_same_shard(key: object, shards: int) -> None:
    cache = ShardedCache[object, int](shards, max_size=None)
    cache.set(key, 1)
    assert cache.get(key) == 1
    assert cache.delete(key)


@pytest.mark.guarantee("SC-1")
def test_strings_spread_whatever_their_hashes_are_salted_with() -> None:
    for salt in ("0", "random"):
        run_python(
            f"""
            import os, sys
            if os.environ.get("PYTHONHASHSEED") != "{salt}":
                os.environ["PYTHONHASHSEED"] = "{salt}"
                os.execv(sys.executable, [sys.executable, "-c", sys.orig_argv[-1]])
            from reference_impl.caches.sharded_cache import ShardedCache
            small, large = ShardedCache(16, max_size=640), ShardedCache(16, max_size=3_200)
            for number in range(1_600):  # 40 at least in each shard, and 200 at most
                small.set(f"report {{number}}", number)
                large.set(f"report {{number}}", number)
            assert (len(small), large.stats.evictions) == (640, 0)
            """
        )


# The bound: SC-2.


def check_the_defaults(m: ModuleType) -> None:
    """16 shards, and a thousand entries in all of them together."""
    cache = m.ShardedCache()
    for number in range(5_000):
        cache.set(number, number)
    assert len(cache) == 1_000
    assert m.ShardedCache(max_size=16).size == 0
    with pytest.raises(ValueError, match="15 with num_shards 16"):
        m.ShardedCache(max_size=15)


def check_the_shares_add_up(m: ModuleType) -> None:
    for shards in (1, 2, 3, 7, 16):
        for max_size in (shards, shards + 1, 2 * shards - 1, 9 * shards + 5):
            cache = m.ShardedCache(shards, max_size=max_size)
            for keys in in_each(shards, 16):
                for key in keys:
                    cache.set(key, key)
            room = [sum(key in cache for key in keys) for keys in in_each(shards, 16)]
            assert sum(room) == max_size
            assert max(room) - min(room) <= 1


def check_a_flood_fills_it_exactly(m: ModuleType) -> None:
    """The sketch held 16 times as much."""
    cache = m.ShardedCache(16, max_size=1_000)
    for number in range(20_000):
        cache.set(number, number)
        assert number % 1_000 or len(cache) <= 1_000
    assert len(cache) == len(cache.keys()) == 1_000
    assert cache.stats.evictions == 19_000


def check_a_bound_below_the_shards_is_refused(m: ModuleType) -> None:
    for max_size in (15, 1):
        message = rf"max_size must be at least num_shards.*{max_size} with num_shards 16: raise"
        with pytest.raises(ValueError, match=message):
            m.ShardedCache(16, max_size=max_size)
    assert m.ShardedCache(16, max_size=16).size == 0


def check_without_a_bound_no_shard_has_one(m: ModuleType) -> None:
    cache = m.ShardedCache(16, max_size=None)
    for number in range(20_000):
        cache.set(number, number)
    assert (len(cache), cache.stats.evictions) == (20_000, 0)


def sized(room: Callable[[int, int], int]) -> Fault:
    """Another bound than was asked for, by that and the number of shards."""

    def make(
        init: Any, cache: Any, num_shards: int = 16, *, max_size: Any = 1000, **more: Any
    ) -> None:
        init(cache, num_shards, max_size=room(max_size, num_shards), **more)

    return wrapped("ShardedCache.__init__", make)


BOUNDS = [
    proves(
        "SC-2",
        check_the_defaults,
        "has room for less by default",
        sized(lambda size, _: size // 2),
        "AssertionError: assert len(cache) == 1_000",
    ),
    proves(
        "SC-2",
        check_the_shares_add_up,
        "gives one shard the whole remainder",
        edit("_shares", "share + (number < remainder)", "share + remainder * (number == 0)"),
        "AssertionError: assert max(room) - min(room) <= 1",
    ),
    Proof(
        "SC-2",
        check_a_flood_fills_it_exactly,
        [
            Twin(
                "gives each shard the whole room",
                sized(lambda size, shards: size * shards),
                "AssertionError: assert number % 1_000 or len(cache) <= 1_000",
            ),
            Twin(
                "rounds the shares down",
                sized(lambda size, shards: size - size % shards),
                "AssertionError: assert len(cache) == len(cache.keys()) == 1_000",
            ),
        ],
    ),
    proves(
        "SC-2",
        check_a_bound_below_the_shards_is_refused,
        "makes room for one entry in each shard, asked or not",
        sized(max),
        "Failed: DID NOT RAISE",
    ),
    proves("SC-2", check_without_a_bound_no_shard_has_one),
]


# All shards at once: SC-3.


def filled(m: ModuleType) -> tuple[Any, list[int], Clock]:
    """A cache of four shards with one entry in each, and their keys."""
    clock = Clock()
    cache = m.ShardedCache(4, default_ttl=10.0, max_size=8, clock=clock)
    keys = one_in_each(4)
    for key in keys:
        cache.set(key, f"value {key}")
    return cache, keys, clock


def check_views_cover_all_shards(m: ModuleType) -> None:
    cache, keys, _ = filled(m)
    assert cache.keys() == keys
    assert cache.items() == [(key, f"value {key}") for key in keys]
    assert cache.size == len(cache) == 4
    assert all(key in cache for key in keys)


def check_clear_covers_all_shards(m: ModuleType) -> None:
    cache, keys, _ = filled(m)
    cache.clear()
    assert (cache.size, cache.keys(), cache.items()) == (0, [], [])
    assert not any(key in cache for key in keys)


def check_clean_up_covers_all_shards(m: ModuleType) -> None:
    cache, _, clock = filled(m)
    clock.tick(10.0)
    assert cache.cleanup_expired() == 4
    assert cache.cleanup_expired() == 0
    assert cache.stats.expirations == 4


def check_clean_up_passes_shards_without_expired_entries(m: ModuleType) -> None:
    cache, keys, clock = filled(m)
    clock.tick(5.0)
    for key in keys[::2]:
        cache.set(key, "lives on")
    clock.tick(5.0)
    assert cache.cleanup_expired() == 2
    assert cache.keys() == keys[::2]


def check_stats_add_up_all_shards(m: ModuleType) -> None:
    """Each counter gets a number of its own, in each shard."""
    cache, keys, clock = filled(m)
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


ALL = [
    proves(
        "SC-3",
        check_views_cover_all_shards,
        "shows one shard less",  # each holds one entry
        wrapped("ShardedCache.keys", lambda keys, cache: keys(cache)[1:]),
        "AssertionError: assert cache.keys() == keys",
    ),
    proves(
        "SC-3",
        check_clear_covers_all_shards,
        "clears one shard less",
        wrapped(
            "ShardedCache.clear", lambda _, cache: [cache.delete(key) for key in cache.keys()[1:]]
        ),
        "AssertionError: assert (cache.size, cache.keys(), cache.items()) == (0, [], [])",
    ),
    proves("SC-3", check_clean_up_covers_all_shards),
    proves(
        "SC-3",
        check_clean_up_passes_shards_without_expired_entries,
        "stops at a shard that has nothing to clean",
        edit(
            "ShardedCache.cleanup_expired",
            "sum(shard.cleanup_expired() for shard in self._shards)",
            "sum(takewhile(bool, (shard.cleanup_expired() for shard in self._shards)))",
        )
        + edit("", "import sys", "import sys\nfrom itertools import takewhile"),
        "AssertionError: assert cache.cleanup_expired() == 2",
    ),
    proves(
        "SC-3",
        check_stats_add_up_all_shards,
        "adds up the wrong counter",
        counted("ShardedCache.stats", evictions=lambda right: right.expirations),
        "AssertionError: assert cache.stats == CacheStats(",
    ),
]


def test_a_sum_is_of_several_instants() -> None:
    """The limit that SC-3 states: an entry that moves may be counted where it was and is."""
    clock = Clock()

    def move(_key: int, _value: str, reason: str) -> None:
        if reason == "expired":
            cache.delete(first)
            cache.set(last, "entry")

    cache = ShardedCache[int, str](3, max_size=None, clock=clock, on_evict=move)
    first, second, last = one_in_each(3)
    cache.set(first, "entry")
    cache.set(second, "expires as the second shard is counted", ttl=1.0)
    clock.tick(1.0)
    assert cache.size == 2  # the first shard before the move, the last one after it
    assert cache.size == 1


# Who waits for whom: SC-5.


class Occupied(Exception):
    """The thread would have to wait for a lock."""


class NoWait:
    """A lock that raises where it would wait."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.release = self._lock.release

    def acquire(self) -> bool:
        if not self._lock.acquire(blocking=False):
            raise Occupied("another thread holds the lock")
        return True

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def check_shards_do_not_wait_for_each_other(m: ModuleType) -> None:
    """While one thread is inside the first shard, calls on the others go through."""
    answers, asked = list[Any](), list[int]()

    def clock() -> float:  # it is read with the shard's lock held
        keys = asked.copy()
        asked.clear()
        answers.extend(outcome(Beside(cache.get, key)) for key in keys)
        return 1.0

    undo = rebind(sys.modules[m.TTLCache.__module__], RLock=NoWait, Lock=NoWait)
    try:
        cache = m.ShardedCache(4, max_size=None, clock=clock)
    finally:
        undo()
    first, *others = one_in_each(4)
    for key in (first, *others):
        cache.set(key, "value")
    asked += [*others, first]
    assert cache.get(first) == "value"
    assert answers[:3] == ["value"] * 3, "a shard waits for another"
    assert isinstance(answers[3], Occupied)  # and its own would wait


def one_at_a_time(original: Any) -> Any:
    lock = NoWait()

    def get(*arguments: Any) -> Any:
        with lock:
            return original(*arguments)

    return get


WAITS = [
    proves(
        "SC-5",
        check_shards_do_not_wait_for_each_other,
        "has one lock for all shards",
        override("ShardedCache.get", one_at_a_time),
        "AssertionError: a shard waits for another",
    )
]

test_shards = holding(KEYS + BOUNDS + ALL + WAITS, sharded_cache)
test_shards_are_checked = failing(KEYS + BOUNDS + ALL + WAITS, COMPONENT)


PAGE = "".join(
    (ROOT / f"docs/caches/{name}.md").read_text(encoding="utf-8")
    for name in ("sharded_cache/internals", "sharded_cache")  # the figures, then the page
)
FIGURES = '--8<-- "docs/evidence/sharded_cache.inc:figures"'


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


CLAIM = Twin("types a claim of its own", Fault(), "AssertionError: assert claims == []")


@pytest.mark.twin("SC-5", fault=CLAIM.name, fails=CLAIM.ends)
@pytest.mark.parametrize(
    "claim", ["A 16x reduction in lock contention.", "Eight threads wait 6.4 times less."]
)
def test_a_claim_that_is_typed_is_noticed(claim: str) -> None:
    page = PAGE.replace("## Tuning\n", f"## Tuning\n\n{claim}\n")
    must_fail(CLAIM, lambda: check_what_is_claimed_is_measured(page))


# The whole interface, bad input, processes.


def test_the_interface_is_that_of_ttl_cache() -> None:
    """The sketch had two of its twelve members, and not one of them whole."""
    names = {n for n in vars(TTLCache) if not n.startswith("_")} | {"__len__", "__contains__"}
    assert len(names) == 12
    for name in names:
        theirs: Any = getattr(TTLCache, name)
        ours: Any = vars(ShardedCache).get(name)
        assert ours is not None, name
        if isinstance(theirs, property):
            theirs, ours = theirs.fget, ours.fget
        assert str(inspect.signature(ours)) == str(inspect.signature(theirs)), name
    defaults = inspect.signature(TTLCache).parameters
    parameters = inspect.signature(ShardedCache).parameters
    assert {**parameters, "num_shards": None}.keys() == {*defaults, "num_shards"}
    assert all(parameters[n].default == defaults[n].default for n in defaults)


class TestBadInput(FourShardsCases, contract.BadInputCases):
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


def test_twenty_threads_load_each_key_once() -> None:
    cache = ShardedCache[int, object](16)
    loads = [Loader(object) for _ in range(4)]
    results = [[Beside(cache.get_or_load, k, loads[k]) for _ in range(5)] for k in range(4)]
    until(lambda: cache.stats.misses == 20)
    for load in loads:
        load.open()
    values = [{id(result.result()) for result in group} for group in results]
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
