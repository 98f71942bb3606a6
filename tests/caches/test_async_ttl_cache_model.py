"""AsyncTTLCache against the cases of all caches, and against a plain model."""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

import reference_impl.caches.async_ttl_cache as ours
from reference_impl.caches.async_ttl_cache import AsyncTTLCache
from tests.contracts import cache_contract as contract
from tests.kit.twins import twin

R = TypeVar("R")
FILE = "caches/async_ttl_cache.py"
LOOP = asyncio.new_event_loop()  # on which the synchronous cases run


@pytest.fixture(autouse=True, scope="module")
def _close_the_loop() -> Iterator[None]:
    yield
    LOOP.close()


def step(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine that does not suspend."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    coroutine.close()
    raise AssertionError("it suspended")


class Adapter:
    """Lets the cases of all caches call an AsyncTTLCache."""

    def __init__(self, cache: AsyncTTLCache[Any, Any]) -> None:
        self.cache = cache

    def call(self, coroutine: Coroutine[Any, Any, R]) -> R:
        if LOOP.is_running():  # a loader calls
            return step(coroutine)
        return LOOP.run_until_complete(coroutine)

    def get(self, key: Any, default: Any = None) -> Any:
        return self.call(self.cache.get(key, default))

    def set(self, key: Any, value: Any, ttl: float | None = None) -> None:
        self.call(self.cache.set(key, value, ttl))

    def delete(self, key: Any) -> bool:
        return self.call(self.cache.delete(key))

    def clear(self) -> None:
        self.call(self.cache.clear())

    def cleanup_expired(self) -> int:
        return self.call(self.cache.cleanup_expired())

    def get_or_load(self, key: Any, loader: Callable[[], Any], ttl: float | None = None) -> Any:
        async def load() -> Any:
            return loader()

        usable: Any = load if callable(loader) else loader
        return self.call(self.cache.get_or_load(key, usable, ttl))

    def keys(self) -> list[Any]:
        return self.call(self.cache.keys())

    def items(self) -> list[tuple[Any, Any]]:
        return self.call(self.cache.items())

    @property
    def stats(self) -> ours.CacheStats:
        return self.cache.stats

    @property
    def size(self) -> int:
        return self.cache.size

    def __len__(self) -> int:
        return len(self.cache)

    def __contains__(self, key: Any) -> bool:
        return key in self.cache


class Adapted(contract.CacheCases):
    module: Any = ours

    def make(self, **arguments: Any) -> contract.Cache:
        return Adapter(self.module.AsyncTTLCache(**arguments))


@pytest.mark.guarantee("AC-1")
class TestExpiry(Adapted, contract.ExpiryCases): ...


@pytest.mark.guarantee("AC-1")
class TestBound(Adapted, contract.BoundCases): ...


@pytest.mark.guarantee("AC-1")
class TestEviction(Adapted, contract.EvictionCases): ...


@pytest.mark.guarantee("AC-1")
class TestStats(Adapted, contract.StatsCases): ...


@pytest.mark.guarantee("AC-2")
class TestLoading(Adapted, contract.LoadingCases): ...


@pytest.mark.guarantee("AC-1")
class TestInvalidation(Adapted, contract.InvalidationCases): ...


@pytest.mark.guarantee("AC-1")
class TestNone(Adapted, contract.NoneCases): ...


class TestBadInput(Adapted, contract.BadInputCases):
    @pytest.mark.parametrize(("bad", "error"), contract.BAD_SECONDS)
    def test_a_bad_interval_is_refused(self, bad: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match=r"^cleanup_interval must be") as caught:
            self.make(cleanup_interval=bad)
        assert repr(bad) in str(caught.value)


BROKEN: dict[str, tuple[Callable[[Any], None], tuple[str, str]]] = {
    "alive for a moment too long": (
        TestExpiry.test_an_entry_lives_for_its_time_and_not_a_moment_longer,
        ("entry[1] > self._clock()", "entry[1] >= self._clock()"),
    ),
    "dead entries are counted": (
        lambda cases: cases.test_no_view_shows_an_expired_entry("len"),
        ("self._expire(self._clock(), math.inf)", "None"),
    ),
    "one entry too many": (
        TestBound.test_the_bound_is_kept,
        ("len(self._entries) > self._max_size", "len(self._entries) > self._max_size + 1"),
    ),
    "the oldest write makes room": (
        TestEviction.test_the_least_recently_used_entry_makes_room_not_the_oldest_write,
        ("self._entries.move_to_end(key)", "pass"),
    ),
    "a live entry makes room for a dead one": (
        TestEviction.test_an_expired_entry_makes_room_before_any_live_one,
        ("self._expire(now, 2)", "[]"),
    ),
    "a replaced dead entry is not counted": (
        lambda cases: cases.test_removing_an_expired_entry_is_an_expiration_whoever_does_it("set"),
        ("expired=old[1] <= now", "expired=False"),
    ),
    "a load undoes a set": (
        TestInvalidation.test_a_set_during_the_load_stays,
        ("if self._loads.get(key) is load:", "if True:\n            self._loads[key] = load"),
    ),
    "a load undoes a clear": (
        TestInvalidation.test_a_clear_during_the_load_stays,
        ("OrderedDict(), {}, [], {}\n", "OrderedDict(), {}, [], self._loads\n"),
    ),
    "None is no value": (
        TestNone.test_none_is_stored_found_and_counted,
        ("return entry[0]\n", "return default if entry[0] is None else entry[0]\n"),
    ),
}


@pytest.mark.twin("AC-1")
@pytest.mark.parametrize("name", BROKEN)
def test_the_cases_catch(name: str) -> None:
    case, fault = BROKEN[name]

    class Cases(TestExpiry, TestBound, TestEviction, TestStats, TestInvalidation, TestNone):
        module = twin(FILE, fault)

    with pytest.raises((AssertionError, KeyError)):
        case(Cases())


class Model(RuleBasedStateMachine):
    """The cache against a plain list of [key, value, deadline], least recently used first."""

    module: Any = ours
    keys = st.integers(0, 5)
    lives = st.sampled_from([1.0, 2.0, 3.0, math.inf])

    def __init__(self) -> None:
        super().__init__()
        self.clock = contract.Clock()
        self.cache = Adapter(
            self.module.AsyncTTLCache(2.0, 3, clock=self.clock, cleanup_interval=1.0)
        )
        self.entries: list[list[Any]] = []
        self.hits = self.misses = self.evicted = 0

    def live(self) -> list[list[Any]]:
        return [entry for entry in self.entries if entry[2] > self.clock.now]

    def find(self, key: int) -> list[Any] | None:
        return next((entry for entry in self.live() if entry[0] == key), None)

    def put(self, key: int, value: object, ttl: float) -> None:
        self.entries = [entry for entry in self.live() if entry[0] != key]
        self.entries.append([key, value, self.clock.now + ttl])
        if len(self.entries) > 3:
            del self.entries[0]
            self.evicted += 1

    def look(self, key: int) -> list[Any] | None:
        found = self.find(key)
        if found is None:
            self.misses += 1
        else:
            self.hits += 1
            self.entries.remove(found)
            self.entries.append(found)
        return found

    @rule(key=keys)
    def get(self, key: int) -> None:
        found = self.look(key)
        assert self.cache.get(key, "none") == ("none" if found is None else found[1])

    @rule(key=keys, value=st.none() | st.integers(), ttl=lives)
    def set(self, key: int, value: object, ttl: float) -> None:
        self.cache.set(key, value, ttl)
        self.put(key, value, ttl)

    @rule(key=keys, value=st.integers())
    def load(self, key: int, value: int) -> None:
        found = self.look(key)
        if found is None:
            self.put(key, value, 2.0)
        assert self.cache.get_or_load(key, lambda: value) == (found[1] if found else value)

    @rule(key=keys)
    def delete(self, key: int) -> None:
        found = self.find(key)
        assert self.cache.delete(key) == (found is not None)
        self.entries = [entry for entry in self.live() if entry[0] != key]

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.entries = []

    @rule()
    def clean_up(self) -> None:
        self.cache.cleanup_expired()
        self.entries = self.live()

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.5]))
    def tick(self, seconds: float) -> None:
        self.clock.tick(seconds)

    @invariant()
    def agree(self) -> None:
        live = self.live()
        for entry in live:
            assert entry[0] in self.cache
        assert self.cache.items() == [(entry[0], entry[1]) for entry in live]
        assert self.cache.size == len(self.cache) == len(live)
        stats = self.cache.stats
        counted = (stats.hits, stats.misses, stats.evictions)
        assert counted == (self.hits, self.misses, self.evicted)


TestModel = pytest.mark.guarantee("AC-1")(Model.TestCase)
TestModel.settings = settings(max_examples=60, stateful_step_count=40)


@pytest.mark.twin("AC-1")
def test_the_model_catches_an_eviction_out_of_order() -> None:
    class Broken(Model):
        module = twin(FILE, ("self._entries.move_to_end(key)", "pass"))

    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            Broken,
            settings=settings(  # the same examples each time
                max_examples=1000, database=None, phases=[Phase.generate], derandomize=True
            ),
        )


# What the cases above leave out.


def check_many_times_to_live(module: Any) -> None:
    """Each entry has a time to live of its own, as with "until midnight"."""
    clock = contract.Clock()
    cache = Adapter(module.AsyncTTLCache(10.0, 40, clock=clock))
    lives = [1.0 + (number * 7919) % 5003 for number in range(3000)]
    for number, ttl in enumerate(lives):
        cache.set(number, number, ttl)
        assert len(cache.cache._lines) == len(cache.cache._heap) <= 2 * 40 + 65
    for later in range(100, 5200, 100):
        clock.tick(100.0)
        assert len(cache) == sum(ttl > later for ttl in lives[-40:])


@pytest.mark.guarantee("AC-1")
def test_records_of_expiry_neither_pile_up_nor_get_lost() -> None:
    check_many_times_to_live(ours)


@pytest.mark.twin("AC-1")
@pytest.mark.parametrize(
    "fault",
    [
        ("            heapq.heapify(self._heap)\n", ""),
        ("if len(self._heap) > 2 * len(self._entries) + 64:", "if False:"),
    ],
)
def test_records_that_pile_up_or_get_lost_are_caught(fault: tuple[str, str]) -> None:
    with pytest.raises((AssertionError, KeyError)):
        check_many_times_to_live(twin(FILE, fault))


def check_a_dead_entry_behind_a_removed_one(module: Any) -> None:
    clock = contract.Clock()
    cache = Adapter(module.AsyncTTLCache(1.0, clock=clock))
    cache.set("first", 1)
    clock.tick(0.5)
    cache.set("second", 2)
    cache.delete("first")
    clock.tick(0.5)
    assert len(cache) == 1
    clock.tick(0.5)
    assert len(cache) == 0
    assert cache.stats.expirations == 1


@pytest.mark.guarantee("AC-1")
def test_a_dead_entry_is_found_behind_one_that_was_removed() -> None:
    check_a_dead_entry_behind_a_removed_one(ours)


@pytest.mark.twin("AC-1")
def test_a_dead_entry_that_is_not_found_is_caught() -> None:
    fault = ("heapq.heapreplace(self._heap, (deadline, ttl))", "heapq.heappop(self._heap)")
    with pytest.raises(AssertionError):
        check_a_dead_entry_behind_a_removed_one(twin(FILE, fault))


@pytest.mark.guarantee("AC-1")
def test_a_clock_that_steps_back_revives_nothing_and_kills_nothing() -> None:
    clock = contract.Clock()
    cache = Adapter(AsyncTTLCache[str, int](10.0, clock=clock))
    cache.set("old", 1)
    clock.tick(10.0)
    assert len(cache) == 0
    cache.set("later", 1)
    clock.tick(-5.0)
    cache.set("new", 2)
    assert cache.keys() == ["later", "new"]
    clock.tick(14.0)
    assert cache.get("new") == 2
    clock.tick(1.0)
    assert len(cache) == 0


@pytest.mark.guarantee("AC-1")
def test_the_wall_clock_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Adapter(AsyncTTLCache[str, int](3600.0))
    cache.set("key", 1)
    for jump in (7200.0, -7200.0):
        monkeypatch.setattr(time, "time", lambda jump=jump: 1.7e9 + jump)
        assert cache.items() == [("key", 1)]


class Talkative:
    """Uses the cache when it is dropped, and says what it saw."""

    def __init__(self, cache: Adapter, seen: list[int]) -> None:
        self.cache, self.seen = cache, seen

    def __del__(self) -> None:
        self.seen.append(len(self.cache))


@pytest.mark.guarantee("AC-1")
@pytest.mark.parametrize("call", ["replace", "evict", "delete", "clear", "expire", "get"])
def test_what_is_dropped_may_use_the_cache_and_is_gone_on_return(call: str) -> None:
    clock = contract.Clock()
    cache = Adapter(AsyncTTLCache[str, object](10.0, 2, clock=clock))
    seen: list[int] = []
    cache.set("first", Talkative(cache, seen))
    cache.set("second", 2, math.inf)
    if call in {"expire", "get"}:
        clock.tick(10.0)
    calls: dict[str, Callable[[], object]] = {
        "replace": lambda: cache.set("first", 3),
        "evict": lambda: cache.set("third", 3),
        "delete": lambda: cache.delete("first"),
        "clear": cache.clear,
        "expire": cache.cleanup_expired,
        "get": lambda: cache.get("first"),
    }
    calls[call]()
    assert seen == [{"replace": 2, "evict": 2, "clear": 0}.get(call, 1)]


class Impatient:
    """Lets so much time pass, when it is dropped, that all else is expired, and looks."""

    def __init__(self, cache: Adapter, clock: contract.Clock, seen: list[int]) -> None:
        self.cache, self.clock, self.seen = cache, clock, seen

    def __del__(self) -> None:
        self.clock.tick(1000.0)
        self.seen.append(len(self.cache))


def check_clear_is_whole(module: Any) -> None:
    clock, seen = contract.Clock(), list[int]()
    cache = Adapter(module.AsyncTTLCache(10.0, clock=clock))
    cache.set("first", Impatient(cache, clock, seen))
    cache.set("second", 2)
    cache.clear()
    assert seen == [0]
    assert cache.stats.expirations == 0


@pytest.mark.guarantee("AC-1")
def test_a_finalizer_sees_the_cache_cleared_and_not_half_of_it() -> None:
    check_clear_is_whole(ours)


@pytest.mark.twin("AC-1")
@pytest.mark.filterwarnings("ignore")
def test_entries_that_are_dropped_too_early_are_caught() -> None:
    early = (
        "        self._entries, self._lines, self._heap, self._loads = OrderedDict(), {}, [], {}\n"
    )
    late = "        self._entries = OrderedDict()\n        self._lines, self._heap = {}, []\n"
    held = (
        "        _dropped = self._entries  # until the return: their finalizers may use the cache\n"
    )
    with pytest.raises(AssertionError):
        check_clear_is_whole(twin(FILE, (held, ""), (early, late)))
