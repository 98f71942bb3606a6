"""AsyncTTLCache as a mapping: against the cases of all caches, and against a plain model."""

import asyncio
import heapq
import math
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

import reference_impl.caches.async_ttl_cache as ours
from tests.caches.async_ttl_cache import faults
from tests.caches.async_ttl_cache.helpers import COMPONENT, says, step, weight
from tests.contracts import cache_contract as contract
from tests.kit.fakes import Clock, turns
from tests.kit.profile import budget, same_each_time
from tests.kit.proofs import Proof, failing, holding
from tests.kit.twins import within

R = TypeVar("R")


@pytest.fixture(autouse=True, scope="module")
def _a_loop() -> Iterator[None]:
    Adapter.loop = asyncio.new_event_loop()
    yield
    Adapter.loop.close()


class Adapter:
    """Lets the cases of all caches call an AsyncTTLCache."""

    loop: ClassVar[asyncio.AbstractEventLoop]

    def __init__(self, cache: Any) -> None:
        self.cache = cache

    def __getattr__(self, name: str) -> Any:
        found: Any = getattr(self.cache, name)

        def call(*arguments: Any, **options: Any) -> Any:
            return self.run(found(*arguments, **options))

        return call if callable(found) else found

    def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        if self.loop.is_running():  # a loader calls
            return step(coroutine)
        return self.loop.run_until_complete(coroutine)

    def get_or_load(
        self, key: Any, loader: Callable[[], Any], ttl: float | None = None, **options: Any
    ) -> Any:
        async def load() -> Any:
            return loader()

        usable: Any = load if callable(loader) else loader
        return self.run(self.cache.get_or_load(key, usable, ttl, **options))

    def __len__(self) -> int:
        return len(self.cache)

    def __contains__(self, key: Any) -> bool:
        return key in self.cache


class Adapted(contract.CacheCases):
    module: Any = ours

    def make(self, **arguments: Any) -> Any:
        return Adapter(self.module.AsyncTTLCache(**arguments))


@pytest.mark.guarantee("AC-1")
class Promised(Adapted): ...


class TestExpiry(Promised, contract.ExpiryCases): ...


class TestBound(Promised, contract.BoundCases): ...


class TestEviction(Promised, contract.EvictionCases): ...


class TestStats(Promised, contract.StatsCases): ...


@pytest.mark.guarantee("AC-2")
class TestLoading(Adapted, contract.LoadingCases): ...


class TestInvalidation(Promised, contract.InvalidationCases): ...


class TestNone(Promised, contract.NoneCases): ...


@pytest.mark.guarantee("AC-6")
class TestLeaving(Adapted, contract.LeavingCases): ...


class TestBadInput(Adapted, contract.BadInputCases):
    @pytest.mark.parametrize(("bad", "error"), contract.BAD_SECONDS)
    def test_a_bad_interval_is_refused(self, bad: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match=r"^cleanup_interval must be") as caught:
            self.make(cleanup_interval=bad)
        assert repr(bad) in str(caught.value)


class Cases(TestExpiry, TestBound, TestStats, TestNone, TestLeaving):  # of which some must fail
    __test__ = False


def case(name: str, *arguments: Any) -> Callable[[ModuleType], None]:
    """One of the cases, as a check of a module."""

    def check(m: ModuleType) -> None:
        cases = Cases()
        cases.module = m
        getattr(cases, name)(*arguments)

    check.__name__ = name.removeprefix("test_")
    return check


@dataclass
class Held:
    """An entry of the model: live until its deadline, then kept for as long as it may be stale."""

    key: int
    value: object
    deadline: float
    stale: float


class Model(RuleBasedStateMachine):
    """The cache against a plain list of what it holds, least recently used first."""

    module: Any = ours
    keys = st.integers(0, 5)
    lives = st.sampled_from([1.0, 2.0, 3.0, math.inf])

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.left, self.told = list[tuple[int, object, str]](), list[tuple[int, object, str]]()
        self.cache = Adapter(
            self.module.AsyncTTLCache(
                2.0,
                3,
                clock=self.clock,
                cleanup_interval=1.0,
                on_evict=lambda *left: self.told.append(left),
            )
        )
        self.held: list[Held] = []
        self.hits = self.misses = self.loads = 0

    def live(self) -> list[Held]:
        return [held for held in self.held if held.deadline > self.clock.now]

    def find(self, key: int) -> Held | None:
        return next((held for held in self.live() if held.key == key), None)

    def leave(self, held: Held, reason: str) -> None:
        """One leaves; whatever the reason, one that is not live has expired."""
        self.held.remove(held)
        is_live = held.deadline > self.clock.now
        self.left.append((held.key, held.value, reason if is_live else "expired"))

    def leave_key(self, key: int, reason: str) -> None:
        for held in [held for held in self.held if held.key == key]:
            self.leave(held, reason)

    def put(self, key: int, value: object, ttl: float, stale: float = 0.0) -> None:
        self.leave_key(key, "replaced")
        if len(self.held) == 3:  # what is stale goes first, then the least recently used
            stale_ones = [held for held in self.held if held.deadline <= self.clock.now]
            first = min(stale_ones, key=lambda held: held.deadline, default=self.held[0])
            self.leave(first, "evicted")
        self.held.append(Held(key, value, self.clock.now + ttl, stale))

    def look(self, key: int, stale: float = 0.0) -> Held | None:
        found = next((held for held in self.held if held.key == key), None)
        if found is None or found.deadline + stale <= self.clock.now:
            self.misses += 1
            return None
        self.hits += 1
        if found.deadline > self.clock.now:
            self.held.remove(found)
            self.held.append(found)
        return found

    @rule(key=keys)
    def get(self, key: int) -> None:
        found = self.look(key)
        assert self.cache.get(key, "none") == ("none" if found is None else found.value)

    @rule(key=keys, value=st.none() | st.integers(), ttl=lives)
    def set(self, key: int, value: object, ttl: float) -> None:
        self.cache.set(key, value, ttl)
        self.put(key, value, ttl)

    @rule(key=keys, value=st.integers())
    def load(self, key: int, value: int) -> None:
        found = self.look(key)
        if found is None:
            self.loads += 1
            self.put(key, value, 2.0)
        assert self.cache.get_or_load(key, lambda: value) == (found.value if found else value)

    @rule(key=keys, value=st.integers(), stale=st.sampled_from([0.5, 1.0, 3.0]))
    def load_or_take_stale(self, key: int, value: int, stale: float) -> None:
        """A value that is stale is given, and then refreshed."""
        found = self.look(key, stale)
        given = found.value if found else value
        ttl = 1.0 + self.loads / 1024  # no two of them end at once: it is clear which goes first
        if found is None or found.deadline <= self.clock.now:
            self.loads += 1
            self.put(key, value, ttl, stale)
        assert self.cache.get_or_load(key, lambda: value, ttl, stale=stale) == given
        self.cache.run(turns(3))

    @rule(key=keys)
    def delete(self, key: int) -> None:
        assert self.cache.delete(key) == (self.find(key) is not None)
        self.leave_key(key, "deleted")

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        for held in list(self.held):
            self.leave(held, "cleared")

    @rule()
    def clean_up(self) -> None:
        self.cache.cleanup_expired()

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.5]))
    def tick(self, seconds: float) -> None:
        self.clock.tick(seconds)
        for held in [held for held in self.held if held.deadline + held.stale <= self.clock.now]:
            self.leave(held, "expired")

    @invariant()
    def agree(self) -> None:
        live = self.live()
        for held in live:
            assert held.key in self.cache
        assert self.cache.items() == [(held.key, held.value) for held in live]
        assert self.cache.size == len(self.cache) == len(live)
        assert sorted(self.told, key=repr) == sorted(self.left, key=repr)
        stats, reasons = self.cache.stats, [reason for _, _, reason in self.left]
        counted = (stats.hits, stats.misses, stats.loads, stats.evictions, stats.expirations)
        told = reasons.count("evicted"), reasons.count("expired")
        assert counted == (self.hits, self.misses, self.loads, *told)


TestModel = pytest.mark.guarantee("AC-1")(Model.TestCase)
TestModel.settings = settings(max_examples=budget(60, 300), stateful_step_count=40)


def check_the_model(m: ModuleType) -> None:
    """On the same examples each time."""

    class Examined(Model):
        module = m

    run_state_machine_as_test(Examined, settings=same_each_time(1000))


# What the cases above leave out.


def check_records_of_expiry_do_not_pile_up(m: ModuleType) -> None:
    """Each entry has a time to live of its own, as with "until midnight".

    What a record weighs is seen in caches of 40 entries with one such time, and with 40.
    """

    def weight_of(lives: list[float]) -> int:
        cache = Adapter(m.AsyncTTLCache(10.0, 40, clock=Clock()))
        most = 0
        for number, ttl in enumerate(lives):
            cache.set(number, number, ttl)
            most = max(most, weight(cache.cache))
        return most

    alone, each = weight_of([1.0] * 40), weight_of([1.0 + number for number in range(40)])
    record = (each - alone) // 39
    piled = weight_of([1.0 + number * 7919 % 5003 for number in range(500)])
    assert (piled - alone) // record <= 2 * 40 + 64, "they pile up"


def check_records_of_expiry_do_not_get_lost(m: ModuleType) -> None:
    clock = Clock()
    cache = Adapter(m.AsyncTTLCache(10.0, 40, clock=clock))
    lives = [1.0 + number * 7919 % 5003 for number in range(3000)]
    for number, ttl in enumerate(lives):
        cache.set(number, number, ttl)
    for later in range(100, 5200, 100):
        clock.tick(100.0)
        assert len(cache) == sum(ttl > later for ttl in lives[-40:])


def check_a_dead_entry_is_found_behind_one_that_was_removed(m: ModuleType) -> None:
    clock = Clock()
    cache = Adapter(m.AsyncTTLCache(1.0, clock=clock))
    cache.set("first", 1)
    clock.tick(0.5)
    cache.set("second", 2)
    cache.delete("first")
    clock.tick(0.5)
    assert len(cache) == 1
    clock.tick(0.5)
    assert len(cache) == 0, "it is still there"
    assert cache.stats.expirations == 1


def check_a_clock_that_steps_back_revives_nothing_and_kills_nothing(m: ModuleType) -> None:
    clock = Clock()
    cache = Adapter(m.AsyncTTLCache(10.0, clock=clock))
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


def check_the_wall_clock_is_not_asked(m: ModuleType) -> None:
    cache = Adapter(m.AsyncTTLCache(3600.0))
    cache.set("key", 1)
    with pytest.MonkeyPatch.context() as patch:
        for jump in (7200.0, -7200.0):
            patch.setattr(time, "time", lambda jump=jump: 1.7e9 + jump)
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
    clock = Clock()
    cache = Adapter(ours.AsyncTTLCache[str, object](10.0, 2, clock=clock))
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

    def __init__(self, cache: Adapter, clock: Clock, seen: list[int]) -> None:
        self.cache, self.clock, self.seen = cache, clock, seen

    def __del__(self) -> None:
        self.clock.tick(1000.0)
        self.seen.append(len(self.cache))


def check_a_finalizer_sees_the_cache_cleared_and_not_half_of_it(m: ModuleType) -> None:
    clock, seen = Clock(), list[int]()
    cache = Adapter(m.AsyncTTLCache(10.0, clock=clock))
    cache.set("first", Impatient(cache, clock, seen))
    cache.set("second", 2)
    cache.clear()
    assert seen == [0]
    assert cache.stats.expirations == 0


STORE = "caches/ttl_cache"
LIFE = faults.made_with(lambda given: {"default_ttl": given["default_ttl"] + 0.0625})
SIZE = faults.made_with(lambda given: {"max_size": given["max_size"] + 1})
UNSORTED = within(STORE, faults.collaborator("heapq", heapify=lambda heap: None))
POPPED = within(
    STORE, faults.collaborator("heapq", heapreplace=lambda heap, _: heapq.heappop(heap))
)
LONGER = says("lets entries live a little longer", LIFE, "gone")
ONE_MORE = says("keeps one entry too many", SIZE, "<= 3")
UNCOUNTED = says("counts no expiration", faults.counts_no_expiration, "(1, 0)")
NO_VALUE = says("takes None for no value", faults.takes_none_for_no_value, "default")
OLDEST = says("evicts the oldest write", faults.evicts_the_oldest_write, "self.cache.items() ==")
PILES = says("keeps a record of each entry", faults.notes_each_life, "they pile up")
LOSES = says("leaves its heap in disorder", UNSORTED, "len(cache) == sum(")
FORGETS = says("forgets a time to live with its first entry", POPPED, "it is still there")
HALF = says("clears one entry after another", faults.deletes_one_by_one, "expirations == 0")
UNTOLD = says(
    "tells of evictions only",
    faults.telling(lambda tell, *left: left[2] == "evicted" and tell(*left)),
    "told == [",
)
MISTAKEN = says(
    "takes each reason for an eviction",
    faults.telling(lambda tell, key, value, _: tell(key, value, "evicted")),
    "told == [",
)
CLEARED = says("takes what expired for cleared", faults.tells_of_expired_as_cleared, '"expired"')
CASES = [  # which hold above
    Proof("AC-1", case("test_an_entry_lives_for_its_time_and_not_a_moment_longer"), [LONGER]),
    Proof("AC-1", case("test_the_bound_is_kept"), [ONE_MORE]),
    Proof(
        "AC-1",
        case("test_removing_an_expired_entry_is_an_expiration_whoever_does_it", "set"),
        [UNCOUNTED],
    ),
    Proof("AC-1", case("test_none_is_stored_found_and_counted"), [NO_VALUE]),
    Proof("AC-6", case("test_each_reason_is_told_once", "replaced"), [UNTOLD, MISTAKEN]),
    Proof("AC-6", case("test_what_expired_before_a_clear_has_expired"), [CLEARED]),
    Proof("AC-1", check_the_model, [OLDEST]),
]
MAPPING = [
    Proof("AC-1", check_records_of_expiry_do_not_pile_up, [PILES]),
    Proof("AC-1", check_records_of_expiry_do_not_get_lost, [LOSES]),
    Proof("AC-1", check_a_dead_entry_is_found_behind_one_that_was_removed, [FORGETS]),
    Proof("AC-1", check_a_clock_that_steps_back_revives_nothing_and_kills_nothing),
    Proof("AC-1", check_the_wall_clock_is_not_asked),
    Proof("AC-1", check_a_finalizer_sees_the_cache_cleared_and_not_half_of_it, [HALF]),
]

test_mapping = holding(MAPPING, ours)
test_mapping_catches = failing(CASES + MAPPING, COMPONENT)
