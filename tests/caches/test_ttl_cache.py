"""TTLCache: the caches' contract, several threads, interrupts, cost, leaks, processes."""

import contextvars
import gc
import inspect
import itertools
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from types import FrameType, ModuleType
from typing import Any, ClassVar

import pytest

from reference_impl.caches import ttl_cache
from reference_impl.caches.ttl_cache import CacheStats, TTLCache
from tests.contracts import cache_contract as contract
from tests.contracts.cache_contract import Clock
from tests.kit.process import run_python
from tests.kit.twins import twin

LONG = 60.0  # seconds; a safety net against a hang, never reached and never measured


def broken(*replacements: tuple[str, str]) -> ModuleType:
    return twin("caches/ttl_cache.py", *replacements)


class _TTLCache(contract.CacheCases):
    module: ModuleType = ttl_cache

    def make(self, **arguments: Any) -> Any:
        return self.module.TTLCache(**arguments)


@pytest.mark.guarantee("TC-2")
class TestExpiry(_TTLCache, contract.ExpiryCases):
    pass


@pytest.mark.guarantee("TC-3")
class TestBound(_TTLCache, contract.BoundCases):
    pass


@pytest.mark.guarantee("TC-4")
class TestEviction(_TTLCache, contract.EvictionCases):
    pass


@pytest.mark.guarantee("TC-5")
class TestStats(_TTLCache, contract.StatsCases):
    pass


@pytest.mark.guarantee("TC-6")
class TestLoading(_TTLCache, contract.LoadingCases):
    pass


@pytest.mark.guarantee("TC-7")
class TestInvalidation(_TTLCache, contract.InvalidationCases):
    pass


@pytest.mark.guarantee("TC-10")
class TestNone(_TTLCache, contract.NoneCases):
    pass


class TestBadInput(_TTLCache, contract.BadInputCases):
    pass


# Ways to be wrong, each one edit of the component; what the original did is among them.
HIT = "if entry is not None and entry[1] > self._clock():\n                self._entries.move"
IN = "return entry is not None and entry[1] > self._clock()"
OUTDATE = "            self._loads.pop(key, None)\n"
REPLACE = "if old is not None:\n            self._remove_locked(old, expired=old[1] <= now)\n"
MAKE_ROOM_FIRST = "if len(entries) >= self._max_size:\n            entries.popitem(last=False)\n"
Fault = tuple[str, type[_TTLCache], str, str, str]
FAULTS: list[Fault] = [
    # A moment too long; a view that still shows the dead; a life that reading renews.
    ("TC-2", TestExpiry, "an_entry_lives_for", HIT, HIT.replace("> self", ">= self")),
    ("TC-2", TestExpiry, "each_entry_has", "self._expire_locked(self._clock(), _SLICE)", "[]"),
    ("TC-2", TestExpiry, "no_view_shows", IN, "return entry is not None"),
    ("TC-2", TestExpiry, "reading_does", "found = entry[0]", "self.set(key, found := entry[0])"),
    ("TC-3", TestBound, "the_bound_is", "> self._max_size:", "> self._max_size + 1:"),
    ("TC-3", TestBound, "replacing_needs", REPLACE, MAKE_ROOM_FIRST),
    # The oldest write goes first; a live entry goes while a dead one stays.
    ("TC-4", TestEviction, "the_least_recent", "self._entries.move_to_end(key)", "pass"),
    ("TC-4", TestEviction, "an_expired_entry", "if self._heap[0][0] <= now:", "if False:"),
    ("TC-4", TestEviction, "asking_whether", IN, "return self.get(key, _ABSENT) is not _ABSENT"),
    ("TC-4", TestEviction, "the_dead_are", "heapq.heappush(", "list.append("),
    ("TC-5", TestStats, "every_look_up", "self.get(key, _ABSENT)", "_ABSENT"),
    ("TC-5", TestStats, "removing_a_live", "expired=not live", "expired=True"),
    ("TC-5", TestStats, "loads_are_succ", "not load.values", "0"),
    ("TC-6", TestLoading, "a_failure_is", "raise\n        finally", "value = 0\n        finally"),
    # The load undoes what came between, as in lru_cache, cachetools and others.
    (
        "TC-7",
        TestInvalidation,
        "a_set_during",
        OUTDATE + "        d",
        "            pass\n        d",
    ),
    ("TC-7", TestInvalidation, "a_delete_during", OUTDATE + "            e", "            e"),
    ("TC-7", TestInvalidation, "a_clear_during", "{}, [], {}", "{}, [], self._loads"),
    # None as the mark of absence.
    ("TC-10", TestNone, "a_loaded_none", "if load.values:", "if load.values != [None]:"),
    ("TC-10", TestNone, "none_is_stored", "if entry is not None and", "if entry and entry[0] and"),
]


@pytest.mark.parametrize(
    ("cases", "name", "old", "new"),
    [pytest.param(*f[1:], marks=pytest.mark.twin(f[0]), id=f"{f[0]}-{f[2]}") for f in FAULTS],
)
def test_the_contract_catches(cases: type[_TTLCache], name: str, old: str, new: str) -> None:
    instance = cases()
    instance.module = broken((old, new))
    (case,) = (getattr(instance, test) for test in dir(cases) if test.startswith(f"test_{name}"))
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        case(*["in"] * (case.__name__ == "test_no_view_shows_an_expired_entry"))


# ---- several threads ---------------------------------------------------------------------


@contextmanager
def threads(number: int) -> Iterator[Callable[..., Future[Any]]]:
    """Threads enough for `number` calls at once; a failing test does not wait for them."""
    pool = ThreadPoolExecutor(number)
    try:
        yield pool.submit
    finally:
        for gate in Gate.made:
            gate.open.set()
        Gate.made.clear()
        pool.shutdown(wait=False, cancel_futures=True)


def until(predicate: Callable[[], bool]) -> None:
    """Wait for something that must come about; the deadline only ends a hang."""
    deadline, pause = time.monotonic() + LONG, threading.Event()
    while not predicate():
        assert time.monotonic() < deadline, "it did not come about"
        pause.wait(0.001)


class Gate:
    """A loader that waits to be let through, and counts its calls."""

    made: ClassVar[list["Gate"]] = []

    def __init__(self, result: Callable[[], Any]) -> None:
        self.result = result
        self.calls = 0
        self.entered = threading.Event()
        self.open = threading.Event()
        Gate.made.append(self)

    def __call__(self) -> Any:
        self.calls += 1
        self.entered.set()
        assert self.open.wait(LONG)
        return self.result()


def raises(error: BaseException) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


def joined(cache: Any, key: object) -> int:
    load = cache._loads.get(key)
    return len(load.joined) if load is not None else 0


def check_twenty_threads_load_once(module: ModuleType) -> None:
    cache, load = module.TTLCache(), Gate(object)
    with threads(20) as start:
        results = [start(cache.get_or_load, "key", load) for _ in range(20)]
        until(lambda: cache.stats.misses == 20)
        load.open.set()
        values = [result.result(LONG) for result in results]
    assert load.calls == 1
    assert len(set(map(id, values))) == 1
    assert (cache.stats.loads, cache.stats.misses, cache.stats.hits) == (1, 20, 0)


def check_a_failing_loader_releases_every_waiter(module: ModuleType) -> None:
    failure = ValueError("no such report")
    cache, load = module.TTLCache(), Gate(raises(failure))
    with threads(5) as start:
        results = [start(cache.get_or_load, "key", load) for _ in range(5)]
        until(lambda: joined(cache, "key") == 4)
        load.open.set()
        errors = [result.exception(LONG) for result in results]
    assert all(error is failure for error in errors)
    assert (load.calls, cache.stats.load_failures) == (1, 1)
    assert cache.get_or_load("key", lambda: "better") == "better"


def check_one_waiter_loads_again_after_an_interrupt(module: ModuleType) -> None:
    cache, interrupted = module.TTLCache(), Gate(raises(KeyboardInterrupt()))
    again = Gate(lambda: "value")
    again.open.set()
    with threads(5) as start:
        first = start(cache.get_or_load, "key", interrupted)
        assert interrupted.entered.wait(LONG)
        others = [start(cache.get_or_load, "key", again) for _ in range(4)]
        until(lambda: joined(cache, "key") == 4)
        interrupted.open.set()
        assert isinstance(first.exception(LONG), KeyboardInterrupt)
        assert [other.exception(LONG) for other in others] == [None] * 4
        assert [other.result(LONG) for other in others] == ["value"] * 4
    assert (again.calls, cache.stats.loads, cache.stats.load_failures) == (1, 1, 1)


def check_a_waiter_takes_what_was_stored_only_alive(module: ModuleType) -> None:
    """Stored during a load that was then interrupted; its waiter looks before it loads again."""
    for age, taken in ((9.0, "stored"), (10.0, "loaded")):
        clock = Clock()
        cache = module.TTLCache(10.0, clock=clock)

        def store(cache: Any = cache, clock: Clock = clock, age: float = age) -> None:
            cache.set("key", "stored")
            clock.tick(age)
            raise KeyboardInterrupt

        interrupted = Gate(store)
        with threads(2) as start:
            first = start(cache.get_or_load, "key", interrupted)
            assert interrupted.entered.wait(LONG)
            second = start(cache.get_or_load, "key", lambda: "loaded")
            until(lambda cache=cache: joined(cache, "key") == 1)  # type: ignore[misc]
            interrupted.open.set()
            assert isinstance(first.exception(LONG), KeyboardInterrupt)
            assert second.result(LONG) == taken


INVALIDATE: list[Callable[[Any], object]] = [
    lambda cache: cache.delete("key"),
    lambda cache: cache.clear(),
    lambda cache: (cache.set("key", "soon gone"), cache.delete("key")),
]


def check_callers_after_an_invalidation_load_anew(module: ModuleType) -> None:
    for invalidate in INVALIDATE:
        cache, old = module.TTLCache(), Gate(lambda: "old")
        with threads(3) as start:
            before = [start(cache.get_or_load, "key", old) for _ in range(2)]
            until(lambda cache=cache: joined(cache, "key") == 1)  # type: ignore[misc]
            invalidate(cache)
            new = start(cache.get_or_load, "key", lambda: "new")
            assert new.result(LONG) == "new"  # it does not wait for the old one
            old.open.set()
            assert [caller.result(LONG) for caller in before] == ["old", "old"]
        assert cache.get("key") == "new"


def check_other_keys_go_on_during_a_load(module: ModuleType) -> None:
    cache, load = module.TTLCache(), Gate(lambda: "slow")
    with threads(2) as start:
        slow = start(cache.get_or_load, "slow", load)
        assert load.entered.wait(LONG)
        use = start(lambda: (cache.set("a", 1), cache.get("a"), len(cache), cache.stats))
        assert use.result(LONG)[1:3] == (1, 1)
        assert cache.get_or_load("b", lambda: cache.get_or_load("c", lambda: 2)) == 2
        load.open.set()
        assert slow.result(LONG) == "slow"


THREADS = [
    ("TC-6", check_twenty_threads_load_once, "self._loads.setdefault(key, mine)", "mine"),
    (
        "TC-6",
        check_a_failing_loader_releases_every_waiter,
        "load.error = error\n",
        "pass\n",
    ),
    (
        "TC-6",
        check_one_waiter_loads_again_after_an_interrupt,
        "except Exception as error:",
        "except BaseException as error:",
    ),
    (
        "TC-2",
        check_a_waiter_takes_what_was_stored_only_alive,
        "> self._clock():  # stored since",
        ">= self._clock():  # stored since",
    ),
    (
        "TC-7",
        check_callers_after_an_invalidation_load_anew,
        "if self._loads.get(key) is load:",
        "if not load.landed.is_set():\n                    self._loads[key] = load",
    ),
]


@pytest.mark.parametrize(
    "check", [pytest.param(c[1], marks=pytest.mark.guarantee(c[0])) for c in THREADS]
)
def test_threads(check: Callable[[ModuleType], None]) -> None:
    check(ttl_cache)


@pytest.mark.parametrize(
    ("check", "old", "new"), [pytest.param(*c[1:], marks=pytest.mark.twin(c[0])) for c in THREADS]
)
def test_threads_are_checked(check: Callable[[ModuleType], None], old: str, new: str) -> None:
    module = broken((old, new))
    with pytest.raises(AssertionError):
        check(module)


@pytest.mark.guarantee("TC-1", "TC-3", "TC-5")
def test_eight_busy_threads_agree_on_the_counts() -> None:
    """Real threads, so that builds without the GIL have something to get wrong."""
    cache, together = TTLCache[int, int](max_size=50), threading.Barrier(8)

    def work(seed: int) -> int:
        together.wait(LONG)
        most = 0
        for number in range(1_500):
            key = number * (seed + 3) % 97
            if number % 3 == 0:
                cache.set(key, key)
            elif number % 3 == 1:
                assert cache.get(key, key) == key
            else:
                assert cache.get_or_load(key, partial(int, key)) == key
            most = max(most, len(cache))
        return most

    with threads(8) as start:
        most = [future.result(LONG) for future in [start(work, seed) for seed in range(8)]]
    stats = cache.stats
    assert max(most) == 50
    assert stats.hits + stats.misses == 8 * 1_000
    assert len(cache) == len(cache.keys()) == sum(map(len, cache._lines.values())) == 50
    assert stats.load_failures == stats.expirations == 0


@pytest.mark.guarantee("TC-8")
def test_other_keys_go_on_during_a_load() -> None:
    check_other_keys_go_on_during_a_load(ttl_cache)


# ---- loads that would wait for themselves ------------------------------------------------


def check_a_direct_recursion(module: ModuleType) -> None:
    cache = module.TTLCache()
    with pytest.raises(RuntimeError) as caught:
        cache.get_or_load("key", lambda: cache.get_or_load("key", lambda: 1))
    assert str(caught.value) == (
        "the load of 'key' would wait for itself: its loader asks for that key, "
        "directly or by way of other loads; let it do without"
    )
    assert cache.get_or_load("key", lambda: 2) == 2


def check_a_recursion_through_other_keys_and_caches(module: ModuleType) -> None:
    one, two = module.TTLCache(), module.TTLCache()
    with pytest.raises(RuntimeError, match="'a' would wait for itself"):
        one.get_or_load("a", lambda: two.get_or_load("b", lambda: one.get_or_load("a", lambda: 1)))
    assert (one.stats.load_failures, two.stats.load_failures) == (1, 1)


def check_a_recursion_through_a_thread(module: ModuleType) -> None:
    cache = module.TTLCache()

    def load() -> Any:
        context = contextvars.copy_context()
        with threads(1) as start:
            return start(context.run, cache.get_or_load, "key", lambda: 1).result(LONG)

    with pytest.raises(RuntimeError, match="would wait for itself"):
        cache.get_or_load("key", load)


def check_two_loads_that_cross(module: ModuleType) -> None:
    """Two loaders, each asking for the other's key, in two caches: one at least is refused."""
    one, two = module.TTLCache(), module.TTLCache()
    both = threading.Barrier(2)

    def crossing(other: Any, key: str) -> Any:
        both.wait(LONG)
        return other.get_or_load(key, lambda: "never")

    with threads(2) as start:
        a = start(one.get_or_load, "a", lambda: crossing(two, "b"))
        b = start(two.get_or_load, "b", lambda: crossing(one, "a"))
        assert isinstance(a.exception(LONG), RuntimeError)
        assert isinstance(b.exception(LONG), RuntimeError)


def check_a_chain_that_is_no_circle(module: ModuleType) -> None:
    """Loads may wait for each other in any way but in circles."""
    cache, last = module.TTLCache(), Gate(lambda: "c")
    with threads(4) as start:
        c = start(cache.get_or_load, "c", last)
        assert last.entered.wait(LONG)
        b = start(cache.get_or_load, "b", lambda: cache.get_or_load("c", lambda: "not c") + "b")
        a = start(cache.get_or_load, "a", lambda: cache.get_or_load("c", lambda: "not c") + "a")
        until(lambda: joined(cache, "c") == 2 or a.done())
        d = start(cache.get_or_load, "d", lambda: cache.get_or_load("b", lambda: "not b") + "d")
        until(lambda: joined(cache, "b") == 1 or d.done())
        last.open.set()
        assert [x.result(LONG) for x in (a, b, c, d)] == ["ca", "cb", "c", "cbd"]


def check_a_context_that_outlives_its_load(module: ModuleType) -> None:
    """Who kept a loader's context may load the key again once that load is over."""
    cache = module.TTLCache()
    context = cache.get_or_load("key", contextvars.copy_context)
    cache.delete("key")
    again = Gate(lambda: "again")
    with threads(2) as start:
        first = start(cache.get_or_load, "key", again)
        assert again.entered.wait(LONG)
        second = start(context.run, cache.get_or_load, "key", lambda: "not this")
        until(lambda: second.done() or joined(cache, "key") == 1)
        again.open.set()
        assert [first.result(LONG), second.result(LONG)] == ["again", "again"]


class Slow(threading.Event):
    """What wakes who waits, but lets nobody go on before `leave` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.woken, self.leave = threading.Event(), threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        super().wait(timeout)
        self.woken.set()
        return self.leave.wait(LONG)


def check_a_wait_that_is_over_closes_no_circle(module: ModuleType) -> None:
    """It counts no more, though who waited has yet to notice that the load has ended.

    "outer" waits for "first", in whose context somebody then asks for "outer". While "first"
    is loaded that would be a circle; afterwards it is none.
    """
    cache, first, slow = module.TTLCache(), Gate(contextvars.copy_context), Slow()
    with threads(3) as start:
        leader = start(cache.get_or_load, "first", first)
        assert first.entered.wait(LONG)
        cache._loads["first"].landed = slow
        try:
            outer = start(cache.get_or_load, "outer", lambda: cache.get_or_load("first", dict))
            until(lambda: joined(cache, "first") == 1)
            first.open.set()
            context = leader.result(LONG)
            assert slow.woken.wait(LONG)
            late = start(context.run, cache.get_or_load, "outer", lambda: "not this")
            until(lambda: late.done() or joined(cache, "outer") == 1)
        finally:
            slow.leave.set()
        assert late.result(LONG) is outer.result(LONG) is context


CIRCLES = [
    check_a_direct_recursion,
    check_a_recursion_through_other_keys_and_caches,
    check_a_recursion_through_a_thread,
    check_two_loads_that_cross,
]
HANGS = ("        load.landed.wait()", "        assert load.landed.wait(0.2), 'it hangs'")


@pytest.mark.guarantee("TC-8")
@pytest.mark.parametrize(
    "check",
    [
        *CIRCLES,
        check_a_chain_that_is_no_circle,
        check_a_context_that_outlives_its_load,
        check_a_wait_that_is_over_closes_no_circle,
    ],
)
def test_a_load_never_waits_for_itself(check: Callable[[ModuleType], None]) -> None:
    check(ttl_cache)


@pytest.mark.twin("TC-8")
@pytest.mark.parametrize("check", CIRCLES)
def test_an_unseen_circle_is_noticed(check: Callable[[ModuleType], None]) -> None:
    module = broken(("if load in blocked:", "if False:"), HANGS)
    with pytest.raises(AssertionError):
        check(module)


@pytest.mark.twin("TC-8")
@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (check_a_chain_that_is_no_circle, "if load in blocked:", "if chain:"),
        (
            check_a_wait_that_is_over_closes_no_circle,
            "[] if step.landed.is_set() else step.joined.copy()",
            "step.joined.copy()",
        ),
    ],
)
def test_a_circle_seen_where_there_is_none_is_noticed(
    check: Callable[[ModuleType], None], old: str, new: str
) -> None:
    module = broken((old, new))
    with pytest.raises(RuntimeError, match="would wait for itself"):
        check(module)


@pytest.mark.guarantee("TC-6")
def test_the_loader_runs_in_the_thread_and_context_of_its_caller() -> None:
    cache = TTLCache[str, object]()
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")
    name.set("caller")
    assert cache.get_or_load("context", name.get) == "caller"
    assert cache.get_or_load("thread", threading.get_ident) == threading.get_ident()


# ---- time and cost -----------------------------------------------------------------------


def check_the_default_clock_is_monotonic(module: ModuleType) -> None:
    """A wall clock that is set an hour on, or back, is none of the cache's business."""
    default = inspect.signature(module.TTLCache).parameters["clock"].default
    assert default is time.monotonic


def check_a_clock_that_steps_back_does_no_harm(module: ModuleType) -> None:
    clock = Clock(now=100.0)
    cache = module.TTLCache(default_ttl=10.0, clock=clock)
    cache.set("before", 1)
    clock.now = 50.0
    cache.set("after", 2)
    for now in (50.0, 60.0, 70.0, 109.0, 110.0):
        clock.now = now
        live = [key for key in ("before", "after") if key in cache]
        assert sorted(cache.keys()) == sorted(live)
    assert cache.size == 0


@pytest.mark.guarantee("TC-2")
@pytest.mark.parametrize(
    "check", [check_the_default_clock_is_monotonic, check_a_clock_that_steps_back_does_no_harm]
)
def test_time(check: Callable[[ModuleType], None]) -> None:
    check(ttl_cache)


@pytest.mark.twin("TC-2")
@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (check_the_default_clock_is_monotonic, "= time.monotonic", "= time.time"),
        (check_a_clock_that_steps_back_does_no_harm, "self._latest + ttl", "now + ttl"),
    ],
)
def test_time_is_checked(check: Callable[[ModuleType], None], old: str, new: str) -> None:
    module = broken((old, new))
    with pytest.raises(AssertionError):
        check(module)


class Key:
    """A key that counts how often any key is hashed or compared."""

    work = 0

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        Key.work += 1
        return hash(self.number)

    def __eq__(self, other: object) -> bool:
        Key.work += 1
        return isinstance(other, Key) and self.number == other.number


def steps(module: ModuleType, action: Callable[[], object]) -> int:
    """The lines of the component that `action` runs, and the hashes and comparisons of keys."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        if frame.f_code.co_filename != module.__file__:
            return None
        lines += event == "line"
        return trace

    before, work = sys.gettrace(), Key.work
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return lines + Key.work - work


def check_cost_does_not_grow_with_the_entries(module: ModuleType) -> None:
    def costs(size: int) -> list[int]:
        clock = Clock()
        cache = module.TTLCache(100.0, size, clock=clock)
        for number in range(size):
            cache.set(Key(number), number)
        old, new = Key(size // 2), Key(-1)
        return [
            steps(module, action)
            for action in (
                lambda: cache.get(old),
                lambda: cache.get(new),
                lambda: cache.set(old, 1),
                lambda: cache.set(new, 1),
                lambda: cache.get_or_load(Key(-2), lambda: 1),
                lambda: old in cache,
                lambda: cache.delete(old),
                lambda: len(cache),
                lambda: cache.stats,
            )
        ]

    assert costs(10) == costs(5_000)


def check_many_times_to_live_cost_little(module: ModuleType) -> None:
    def cost(size: int) -> float:
        clock = Clock()
        cache = module.TTLCache(100.0, size, clock=clock)

        def fill() -> None:
            for number in range(4 * size):
                clock.tick(0.5)
                cache.set(number, number, ttl=1.0 + number * 7919 % 100_003)

        return steps(module, fill) / size

    assert cost(800) < 1.5 * cost(200)


def check_many_times_to_live_leave_nothing_behind(module: ModuleType) -> None:
    cache = module.TTLCache(100.0, 50, clock=Clock())
    for number in range(5_000):
        cache.set(number, number, ttl=1.0 + number)
        assert len(cache._lines) == len(cache._heap) <= 2 * 50 + 65


def check_a_sweep_lets_others_in(module: ModuleType) -> None:
    sizes: list[int] = []

    class Watch(Clock):
        def __call__(self) -> float:
            sizes.append(len(cache._entries))
            return super().__call__()

    clock = Watch()
    cache = module.TTLCache(1.0, None, clock=clock)
    for number in range(3_000):
        cache.set(number, number)
    clock.tick(1.0)
    del sizes[:]
    assert len(cache) == 0
    assert max(a - b for a, b in zip(sizes, [*sizes[1:], 0], strict=True)) <= 500


def check_sets_work_off_a_backlog(module: ModuleType) -> None:
    """Without a bound, and without any clean-up, what is dead does not pile up."""
    clock = Clock()
    cache = module.TTLCache(1.0, None, clock=clock)
    for number in range(1_000):
        cache.set(number, number)
    clock.tick(1.0)
    for number in range(1_000):
        cache.set(-number, number, ttl=10.0)
    assert len(cache._entries) == 1_000


COSTS = [
    (
        check_cost_does_not_grow_with_the_entries,
        "_, evicted = entries.popitem(last=False)",
        "evicted = entries.pop(min(entries, key=lambda k: entries[k][3]))",
    ),
    (
        check_many_times_to_live_cost_little,
        "> 2 * len(self._entries) + 64:",
        "> 0:",
    ),
    (check_many_times_to_live_leave_nothing_behind, "if len(self._heap) > 2", "if 0 > 2"),
    (check_a_sweep_lets_others_in, "_SLICE = 256", "_SLICE = 10**9"),
    (check_sets_work_off_a_backlog, "self._expire_locked(now, 2)", "self._expire_locked(now, 0)"),
]


@pytest.mark.guarantee("TC-9")
@pytest.mark.parametrize("check", [cost[0] for cost in COSTS])
def test_cost(check: Callable[[ModuleType], None]) -> None:
    check(ttl_cache)


@pytest.mark.twin("TC-9")
@pytest.mark.parametrize(("check", "old", "new"), COSTS)
def test_cost_is_checked(check: Callable[[ModuleType], None], old: str, new: str) -> None:
    module = broken((old, new))
    with pytest.raises(AssertionError):
        check(module)


# ---- what a call drops -------------------------------------------------------------------


def lock_is_free(cache: Any) -> bool:
    """Whether this thread, which alone uses the cache, leaves it to others right now.

    No helper thread tries the lock: a finalizer that the collector runs, maybe in the middle
    of starting a thread, asks this, too.
    """
    return not cache._lock._is_owned()


class Dropped:
    """Tells, when it is released, whether another thread could use the cache."""

    def __init__(self, cache: Any, log: list[bool], number: int = 0) -> None:
        self.cache, self.log, self.number = cache, log, number

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dropped) and self.number == other.number

    def __del__(self) -> None:
        self.log.append(lock_is_free(self.cache))


def when_dead(action: Callable[[Any], object]) -> Callable[[Any, Clock], object]:
    def act(cache: Any, clock: Clock) -> object:
        clock.tick(10.0)
        return action(cache)

    return act


DROPS: dict[str, Callable[[Any, Clock], object]] = {
    "replaced": lambda cache, clock: cache.set(Dropped(cache, []), 1),
    "evicted": lambda cache, clock: cache.set("new", 1),
    "deleted": lambda cache, clock: cache.delete(Dropped(cache, [])),
    "cleared": lambda cache, clock: cache.clear(),
    "replaced when dead": when_dead(lambda cache: cache.set(Dropped(cache, []), 1)),
    "dead, for room": when_dead(lambda cache: cache.set("new", 1)),
    "dead, by get": when_dead(lambda cache: cache.get(Dropped(cache, []))),
    "dead, by len": when_dead(len),
    "dead, cleaned up": when_dead(lambda cache: cache.cleanup_expired()),
    "dead, loaded anew": when_dead(lambda cache: cache.get_or_load(Dropped(cache, []), lambda: 1)),
}


def check_what_is_dropped_is_released_outside_the_lock(module: ModuleType, how: str) -> None:
    """Key and value: without the lock, before the call returns, and without a collector."""
    clock, log = Clock(), list[bool]()
    cache = module.TTLCache(10.0, 1, clock=clock)
    cache.set(Dropped(cache, log), Dropped(cache, log))
    gc.disable()
    try:
        DROPS[how](cache, clock)
        assert log == [True, True]
    finally:
        gc.enable()


@pytest.mark.parametrize("how", DROPS)
def test_what_is_dropped_is_released_outside_the_lock(how: str) -> None:
    check_what_is_dropped_is_released_outside_the_lock(ttl_cache, how)


@pytest.mark.parametrize(
    ("how", "old", "new"),
    [
        ("evicted", "            dropped = dropped, evicted\n", "            del _, evicted\n"),
        ("replaced", "dropped: object = old\n", "dropped: object = (old := None)\n"),
        ("dead, cleaned up", "expired.append(entry)\n", "expired.append(0)\n"),
        ("cleared", "dropped = self._entries\n", "dropped = self._entries.clear()\n"),
    ],
)
def test_a_release_under_the_lock_is_noticed(how: str, old: str, new: str) -> None:
    module = broken((old, new))
    with pytest.raises(AssertionError):
        check_what_is_dropped_is_released_outside_the_lock(module, how)


def check_a_failed_load_leaves_no_cycle(module: ModuleType) -> None:
    cache, log = module.TTLCache(), list[bool]()

    def fail() -> None:
        _local = Dropped(cache, log)
        raise ValueError

    gc.disable()
    try:
        with pytest.raises(ValueError) as caught:
            cache.get_or_load("key", fail)
        del caught
        assert log == [True]
    finally:
        gc.enable()


def check_a_context_keeps_no_value(module: ModuleType) -> None:
    cache, contexts = module.TTLCache(), list[contextvars.Context]()

    def load() -> Key:
        contexts.append(contextvars.copy_context())
        return Key(1)

    value = weakref.ref(cache.get_or_load("key", load))
    cache.delete("key")
    assert value() is None


LEAKS = [
    (check_a_failed_load_leaves_no_cycle, "            del load, mine  #", "            pass  #"),
    (check_a_failed_load_leaves_no_cycle, "            del load, dropped\n", "            pass\n"),
    (check_a_context_keeps_no_value, "weakref.ref(load)", "lambda kept=load: kept"),
]


@pytest.mark.parametrize("check", {leak[0]: 0 for leak in LEAKS})
def test_leaks(check: Callable[[ModuleType], None]) -> None:
    check(ttl_cache)


@pytest.mark.parametrize(("check", "old", "new"), LEAKS)
def test_a_leak_is_noticed(check: Callable[[ModuleType], None], old: str, new: str) -> None:
    module = broken((old, new))
    with pytest.raises(AssertionError):
        check(module)


# ---- interrupts --------------------------------------------------------------------------


class Interrupt(BaseException):
    """What a signal handler raises."""


def interrupted(module: ModuleType, action: Callable[[], object], step: int) -> bool:
    """Run `action`; raise as it comes back from its `step`-th call of a C function.

    That is where the interpreter runs signal handlers; and while it waits for a lock, so that
    `acquire` may raise without the lock. False if there were fewer such places.
    """
    calls = 0

    def profile(frame: FrameType, event: str, function: Any) -> None:
        nonlocal calls
        if event not in {"c_call", "c_return"} or frame.f_code.co_filename != module.__file__:
            return
        if function.__name__ in {"__enter__", "__exit__"}:  # `with` takes care of its own
            return
        if event == "c_return" or function.__name__ == "acquire":
            calls += 1
            if calls == step:
                raise Interrupt

    sys.setprofile(profile)
    try:
        action()
    except Interrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


class Word(str):
    """A key whose `__hash__` is Python code, where a signal handler may run, too."""

    __slots__ = ()
    calls = until = 0

    def __hash__(self) -> int:
        Word.calls += 1
        if Word.calls == Word.until:
            raise Interrupt
        return super().__hash__()


def interrupted_in_a_key(_: ModuleType, action: Callable[[], object], step: int) -> bool:
    """Run `action`; raise in the `step`-th hash of a Word. False if there were fewer."""
    Word.calls, Word.until = 0, step
    try:
        action()
    except Interrupt:
        return True
    finally:
        Word.until = 0
    return False


INTERRUPTED: dict[str, Callable[[Any], object]] = {
    "get": lambda cache: cache.get(Word("d")),
    "get the dead": lambda cache: cache.get(Word("e")),
    "set": lambda cache: cache.set(Word("new"), 1),
    "set again": lambda cache: cache.set(Word("d"), 1),
    "set with a new ttl": lambda cache: cache.set(Word("new"), 1, ttl=5.0),
    "delete": lambda cache: cache.delete(Word("d")),
    "len": lambda cache: len(cache),
    "clear": lambda cache: cache.clear(),
    "load": lambda cache: cache.get_or_load(Word("new"), lambda: 1),
}
Interrupted = Callable[[ModuleType, Callable[[], object], int], bool]


def check_an_interrupt_leaves_the_cache_usable(
    module: ModuleType, name: str, where: Interrupted = interrupted
) -> None:
    step = 0
    for step in itertools.count(1):
        clock = Clock()
        cache = module.TTLCache(10.0, 3, clock=clock)
        for key in map(Word, "abcde"):
            cache.set(key, key, ttl=4.0 if key in "ace" else None)
        clock.tick(4.0)  # c and e are dead now, d is alive, a and b are gone
        if not where(module, partial(INTERRUPTED[name], cache), step):
            break
        assert lock_is_free(cache)
        assert cache.get_or_load("new", lambda: 1) == 1
        for number in range(5):
            cache.set(number, number)
            assert len(cache) == len(cache.keys()) <= 3
        assert cache.keys() == [2, 3, 4]
        clock.tick(10.0)
        assert len(cache) == len(cache._entries) == 0
        assert not any(cache._lines.values())
    assert step > 1


@pytest.mark.parametrize("name", INTERRUPTED)
def test_an_interrupt_leaves_the_cache_usable(name: str) -> None:
    check_an_interrupt_leaves_the_cache_usable(ttl_cache, name)


@pytest.mark.parametrize("name", [name for name in INTERRUPTED if name != "clear"])  # no hash
def test_an_interrupt_in_a_key_leaves_the_cache_usable(name: str) -> None:
    check_an_interrupt_leaves_the_cache_usable(ttl_cache, name, interrupted_in_a_key)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (
            "get",
            "try:  # not `with`: see _give_back\n            self._lock.acquire()",
            "self._lock.acquire()\n        try:",
        ),
        (
            "set",
            "try:\n            self._lock.acquire()\n            dropped",
            "self._lock.acquire()\n        try:\n            dropped",
        ),
        ("load", "load = self._loads[key] = mine", "raise AssertionError"),
        # The lock was not taken; what gives it back must not replace the interrupt.
        ("get", "contextlib.suppress(RuntimeError)", "contextlib.nullcontext()"),
    ],
)
def test_an_interrupt_that_does_harm_is_noticed(name: str, old: str, new: str) -> None:
    module = broken((old, new))
    with pytest.raises((AssertionError, RuntimeError)):
        check_an_interrupt_leaves_the_cache_usable(module, name)


def test_an_interrupt_in_a_key_that_does_harm_is_noticed() -> None:
    module = broken(("if entry is None or entry[3] != serial:", "if False:"))
    with pytest.raises(TypeError):
        check_an_interrupt_leaves_the_cache_usable(module, "set", interrupted_in_a_key)


# ---- processes ---------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
def test_a_forked_child_has_a_copy_and_can_leave_the_parents_loads_behind() -> None:
    run_python(
        """
        import os, threading, warnings
        from reference_impl.caches.ttl_cache import TTLCache

        warnings.simplefilter("ignore", DeprecationWarning)  # a fork while threads run
        cache, entered, leave = TTLCache(), threading.Event(), threading.Event()
        cache.set("kept", 1)
        load = lambda: (entered.set(), leave.wait(60), "parent")[2]
        thread = threading.Thread(target=cache.get_or_load, args=("key", load))
        thread.start()
        entered.wait(60)
        if (child := os.fork()) == 0:
            assert cache.get("kept") == 1
            cache.delete("key")  # in the child, the parent's load would never end
            assert cache.get_or_load("key", lambda: "child") == "child"
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        leave.set()
        thread.join()
        assert cache.get("key") == "parent"
        """
    )


@pytest.mark.skipif(sys.platform == "win32", reason="signals reach waiting threads on POSIX only")
def test_ctrl_c_ends_a_wait_for_a_load_and_leaves_the_load_alone() -> None:
    run_python(
        """
        import signal, threading
        from reference_impl.caches.ttl_cache import TTLCache

        cache, entered, leave = TTLCache(), threading.Event(), threading.Event()
        load = lambda: (entered.set(), leave.wait(60), "value")[2]
        thread = threading.Thread(target=cache.get_or_load, args=("key", load))
        thread.start()
        entered.wait(60)

        def once(*_):
            signal.signal(signal.SIGINT, lambda *_: None)
            raise KeyboardInterrupt

        def interrupt():
            while not cache._loads["key"].joined:
                pass
            while cache._loads["key"].joined:  # one that comes just before the wait is not seen
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        signal.signal(signal.SIGINT, once)
        killer = threading.Thread(target=interrupt)
        killer.start()
        try:
            cache.get_or_load("key", lambda: "not this")
        except KeyboardInterrupt:
            pass
        else:
            raise SystemExit("the wait was not interrupted")
        killer.join()
        assert not cache._loads["key"].joined
        leave.set()
        thread.join()
        assert cache.get("key") == "value"
        """
    )


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGALRM on Windows")
@pytest.mark.stress
def test_signals_that_raise_in_a_busy_thread_never_keep_the_lock() -> None:
    run_python(
        """
        import signal, threading
        from reference_impl.caches.ttl_cache import TTLCache

        class Alarm(Exception):
            pass

        def handler(*_):
            raise Alarm

        signal.signal(signal.SIGALRM, handler)
        cache = TTLCache(max_size=10)
        for number in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0005 + number * 1e-6)
                while True:
                    cache.set(number, number)
                    cache.get(number)
            except Alarm:
                pass
            results = []
            thread = threading.Thread(target=lambda: results.append(len(cache)), daemon=True)
            thread.start()
            thread.join(30)
            assert results and results[0] <= 10, (number, results)
        """
    )


def test_the_interpreter_exits_with_a_load_in_progress() -> None:
    done = run_python(
        """
        import atexit, threading
        from reference_impl.caches.ttl_cache import TTLCache

        cache, entered = TTLCache(), threading.Event()
        load = lambda: (entered.set(), threading.Event().wait())
        threading.Thread(target=cache.get_or_load, args=("key", load), daemon=True).start()
        entered.wait(60)
        atexit.register(lambda: print("at exit", cache.get_or_load("other", lambda: 1)))
        """
    )
    assert done.stdout == "at exit 1\n"


def test_a_finalizer_may_use_the_cache() -> None:
    """Of what a call drops, on a build with the GIL; and when the interpreter shuts down."""
    run_python(
        """
        from reference_impl.caches.ttl_cache import TTLCache

        class Value:
            def __del__(self):
                cache.set("last words", cache.get("count", 0))
                cache.set("count", cache.get("count", 0) + 1)

        cache = TTLCache(max_size=3)
        for number in range(10):
            cache.set(("value", number), Value())
        assert cache.get("count") >= 7, cache.items()
        cache.clear()
        cache.set("left for the shutdown", Value())
        """
    )


def test_statistics_are_immutable_and_have_a_rate() -> None:
    stats = CacheStats(hits=3, misses=1)
    assert stats.hit_rate == 0.75
    with pytest.raises(AttributeError):
        stats.hits = 4  # type: ignore[misc]
