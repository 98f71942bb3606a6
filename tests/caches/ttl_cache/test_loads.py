"""TTLCache's loads, with real threads: who waits for whom, and who gets what."""

import contextvars
import threading
import traceback
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from reference_impl.caches import ttl_cache
from reference_impl.caches.ttl_cache import TTLCache
from tests.caches.ttl_cache import faults
from tests.caches.ttl_cache.helpers import (
    Loader,
    Tidings,
    outcome,
    proves,
    raises,
    reach,
    until,
    watched,
)
from tests.contracts.cache_contract import Clock
from tests.kit.fakes import PATIENCE, Beside, Gate
from tests.kit.primitives import rebind
from tests.kit.proofs import Proof, failing, holding
from tests.kit.twins import Twin, edit

COMPONENT = "caches/ttl_cache"


# One load for all who ask.


def check_twenty_threads_load_once(m: ModuleType) -> None:
    cache = m.TTLCache()
    with Loader(object) as load:
        results = [Beside(cache.get_or_load, "key", load) for _ in range(20)]
        until(lambda: cache.stats.misses == 20)
        load.open()
        values = [result.result() for result in results]
    assert load.calls == 1
    assert len(set(map(id, values))) == 1
    assert (cache.stats.loads, cache.stats.misses, cache.stats.hits) == (1, 20, 0)


def check_a_failing_loader_releases_every_waiter(m: ModuleType) -> None:
    failure = ValueError("no such report")
    with watched(m) as waits, Loader(raises(failure)) as load:
        cache = m.TTLCache()
        results = [Beside(cache.get_or_load, "key", load) for _ in range(5)]
        waits.await_waiting(4)
        load.open()
        errors = [outcome(result) for result in results]
    assert all(error is failure for error in errors)
    assert (load.calls, cache.stats.load_failures) == (1, 1)
    assert cache.get_or_load("key", lambda: "better") == "better"


def check_one_waiter_loads_again_after_an_interrupt(m: ModuleType) -> None:
    with (
        watched(m) as waits,
        Loader(raises(KeyboardInterrupt())) as interrupted,
        Loader(lambda: "value") as again,
    ):
        cache = m.TTLCache()
        first = Beside(cache.get_or_load, "key", interrupted)
        interrupted.await_entered()
        others = [Beside(cache.get_or_load, "key", again) for _ in range(4)]
        waits.await_waiting(4)
        again.open()
        interrupted.open()
        assert isinstance(outcome(first), KeyboardInterrupt)
        assert [outcome(other) for other in others] == ["value"] * 4
    assert (again.calls, cache.stats.loads, cache.stats.load_failures) == (1, 1, 1)


def check_a_waiter_takes_what_was_stored_only_alive(m: ModuleType) -> None:
    """Stored during a load that was then interrupted; its waiter looks before it loads again."""
    for age, taken in ((9.0, "stored"), (10.0, "loaded")):
        clock = Clock()

        with watched(m) as waits, Loader(raises(KeyboardInterrupt())) as interrupted:
            cache = m.TTLCache(10.0, clock=clock)
            first = Beside(cache.get_or_load, "key", interrupted)
            interrupted.await_entered()
            second = Beside(cache.get_or_load, "key", lambda: "loaded")
            waits.await_waiting()
            cache.set("key", "stored")
            clock.tick(age)
            interrupted.open()
            assert isinstance(outcome(first), KeyboardInterrupt)
            assert second.result() == taken


def check_callers_after_an_invalidation_load_anew(m: ModuleType) -> None:
    for invalidate in (
        lambda cache: cache.delete("key"),
        lambda cache: cache.clear(),
        lambda cache: (cache.set("key", "soon gone"), cache.delete("key")),
    ):
        with watched(m) as waits, Loader(lambda: "old") as old:
            cache = m.TTLCache()
            before = [Beside(cache.get_or_load, "key", old) for _ in range(2)]
            waits.await_waiting()
            invalidate(cache)
            new = Beside(cache.get_or_load, "key", lambda: "new")
            assert new.result() == "new"  # it does not wait for the old one
            old.open()
            assert [caller.result() for caller in before] == ["old", "old"]
        assert cache.get("key") == "new"


def check_other_keys_go_on_during_a_load(m: ModuleType) -> None:
    cache = m.TTLCache()
    with Loader(lambda: "slow") as load:
        slow = Beside(cache.get_or_load, "slow", load)
        load.await_entered()
        use = Beside(lambda: (cache.set("a", 1), cache.get("a"), len(cache), cache.stats))
        assert use.result()[1:3] == (1, 1)
        assert cache.get_or_load("b", lambda: cache.get_or_load("c", lambda: 2)) == 2
        load.open()
        assert slow.result() == "slow"


def check_the_loader_runs_in_the_thread_and_context_of_its_caller(m: ModuleType) -> None:
    cache = m.TTLCache()
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")
    name.set("caller")
    assert cache.get_or_load("thread", threading.get_ident) == threading.get_ident()
    assert cache.get_or_load("context", name.get) == "caller"


# One error for all who asked.


def check_an_error_costs_each_caller_the_same(m: ModuleType) -> None:
    """Who logs a failure that a hundred share writes as much as one who has it alone."""

    def ask() -> int:
        try:
            cache.get_or_load("key", load)
        except ValueError as error:
            return len(list(traceback.walk_tb(error.__traceback__)))
        raise AssertionError("the load has not failed")

    with watched(m) as waits, Loader(raises(ValueError())) as load:
        cache = m.TTLCache()
        callers = [Beside(ask) for _ in range(100)]
        waits.await_waiting(99)
        load.open()
        assert max(caller.result() for caller in callers) < 50


def check_an_error_brings_no_callers_own_troubles(m: ModuleType) -> None:
    """A caller that asks while it handles an error of its own keeps that to itself."""
    failure = ValueError("no such report")

    def ask(trouble: str) -> Any:
        try:
            raise KeyError(trouble)
        except KeyError:
            return cache.get_or_load("key", load)

    def troubles(error: Any) -> list[BaseException]:
        found = list[BaseException]()
        while (error := error.__context__) is not None:
            found.append(error)
        return found

    with watched(m) as waits, Loader(raises(failure)) as load:
        cache = m.TTLCache()
        callers = [Beside(ask, "the first one's secret")]
        load.await_entered()
        callers += [Beside(ask, "a secret"), Beside(cache.get_or_load, "key", load)]
        waits.await_waiting(2)
        load.open()
        assert [outcome(caller) for caller in callers] == [failure] * 3
    assert "secret" not in str(troubles(failure))


LOADS = [
    proves(
        "TC-6",
        check_an_error_costs_each_caller_the_same,
        "raises an error on top of its last traceback",
        edit("_Load.result", "error.with_traceback(self.traceback)", "error"),
        "AssertionError: < 50",
    ),
    proves(
        "TC-6",
        check_an_error_brings_no_callers_own_troubles,
        "leaves a caller's own trouble at the shared error",
        edit("_Load.result", "error.__context__ = context", ""),
        'AssertionError: assert "secret" not in',
    ),
    proves(
        "TC-6",
        check_twenty_threads_load_once,
        *faults.looks_then_loads(),
        "AssertionError: assert load.calls == 1",
    ),
    proves("TC-6", check_a_failing_loader_releases_every_waiter),
    proves(
        "TC-6",
        check_one_waiter_loads_again_after_an_interrupt,
        *faults.hands_on_an_interrupt(),
        'AssertionError: assert [outcome(other) for other in others] == ["value"] * 4',
    ),
    proves("TC-2", check_a_waiter_takes_what_was_stored_only_alive),
    proves("TC-7", check_callers_after_an_invalidation_load_anew),
    proves("TC-8", check_other_keys_go_on_during_a_load),
    proves("TC-6", check_the_loader_runs_in_the_thread_and_context_of_its_caller),
]


# Loads that would wait for themselves.


def check_a_direct_recursion(m: ModuleType) -> None:
    cache = m.TTLCache()
    with pytest.raises(RuntimeError) as caught:
        cache.get_or_load("key", lambda: cache.get_or_load("key", lambda: 1))
    assert str(caught.value) == (
        "the load of 'key' would wait for itself: its loader asks for that key, "
        "directly or by way of other loads; let it do without"
    )
    assert cache.get_or_load("key", lambda: 2) == 2


def check_a_recursion_through_other_keys_and_caches(m: ModuleType) -> None:
    one, two = m.TTLCache(), m.TTLCache()
    with pytest.raises(RuntimeError, match="'a' would wait for itself"):
        one.get_or_load("a", lambda: two.get_or_load("b", lambda: one.get_or_load("a", lambda: 1)))
    assert (one.stats.load_failures, two.stats.load_failures) == (1, 1)


def check_a_recursion_through_a_thread(m: ModuleType) -> None:
    cache = m.TTLCache()

    def load() -> Any:
        context = contextvars.copy_context()
        return Beside(context.run, cache.get_or_load, "key", lambda: 1).result()

    with pytest.raises(RuntimeError, match="would wait for itself"):
        cache.get_or_load("key", load)


def check_two_loads_that_cross(m: ModuleType) -> None:
    """Two loaders, each asking for the other's key, in two caches: one at least is refused."""
    one, two = m.TTLCache(), m.TTLCache()
    both = threading.Barrier(2)

    def crossing(other: Any, key: str) -> Any:
        both.wait(PATIENCE)
        return other.get_or_load(key, lambda: "never")

    a = Beside(one.get_or_load, "a", lambda: crossing(two, "b"))
    b = Beside(two.get_or_load, "b", lambda: crossing(one, "a"))
    for error in (outcome(a), outcome(b)):
        assert isinstance(error, RuntimeError), error


def check_a_chain_that_is_no_circle(m: ModuleType) -> None:
    """Loads may wait for each other in any way but in circles."""
    with watched(m) as waits, Loader(lambda: "c") as last:
        cache = m.TTLCache()

        def load(key: str, other: str) -> Beside:
            before = len(waits.timeouts)
            call = Beside(
                cache.get_or_load, key, lambda: cache.get_or_load(other, lambda: "none") + key
            )
            until(lambda: len(waits.timeouts) > before or not call.is_alive())
            return call

        c = Beside(cache.get_or_load, "c", last)
        last.await_entered()
        calls = [c, load("b", "c"), load("a", "c"), load("d", "b")]
        last.open()
        assert [call.result() for call in calls] == ["c", "cb", "ca", "cbd"]


def check_a_context_that_outlives_its_load(m: ModuleType) -> None:
    """Who kept a loader's context may load the key again once that load is over."""
    with watched(m) as waits, Loader(lambda: "again") as again:
        cache = m.TTLCache()
        context = cache.get_or_load("key", contextvars.copy_context)
        cache.delete("key")
        first = Beside(cache.get_or_load, "key", again)
        again.await_entered()
        second = Beside(context.run, cache.get_or_load, "key", lambda: "not this")
        until(lambda: bool(waits.timeouts) or not second.is_alive())
        again.open()
        assert [first.result(), second.result()] == ["again", "again"]


def check_a_wait_that_is_over_closes_no_circle(m: ModuleType) -> None:
    """It counts no more, though who waited has yet to notice that the load has ended.

    "outer" waits for "first", in whose context somebody then asks for "outer". While "first"
    is loaded that would be a circle; afterwards it is none.
    """
    begun, woken = list[object](), Gate()

    class Slow(Tidings):
        def wait(self, timeout: float) -> bool:
            begun.append(self)
            super().wait(timeout)
            woken()
            return True

    undo = rebind(m, Lock=Slow)
    try:
        with Loader(contextvars.copy_context) as first:
            cache = m.TTLCache()
            leader = Beside(cache.get_or_load, "first", first)
            first.await_entered()
            outer = Beside(cache.get_or_load, "outer", lambda: cache.get_or_load("first", dict))
            until(lambda: len(begun) == 1)
            first.open()
            context = leader.result()
            woken.await_entered()
            late = Beside(context.run, cache.get_or_load, "outer", lambda: "not this")
            until(lambda: len(begun) == 2 or not late.is_alive())
    finally:
        woken.open()
        undo()
    assert late.result() is outer.result() is context


_NAME, _FAULT = faults.sees_no_circle()
_BLIND = Twin(_NAME, _FAULT + faults.impatient, "AssertionError: it hangs")
CIRCLES = [
    Proof("TC-8", check_a_direct_recursion, [_BLIND]),
    proves("TC-8", check_a_recursion_through_other_keys_and_caches),
    proves("TC-8", check_a_recursion_through_a_thread),
    Proof("TC-8", check_two_loads_that_cross, [_BLIND]),
    proves(
        "TC-8",
        check_a_chain_that_is_no_circle,
        *faults.refuses_to_wait(),
        "RuntimeError: would wait for itself",
    ),
    proves("TC-8", check_a_context_that_outlives_its_load),
    proves(
        "TC-8",
        check_a_wait_that_is_over_closes_no_circle,
        "counts who waits for a load that has ended",
        edit("_waits_for_caller", "not step.ended", "True"),
        "RuntimeError: would wait for itself",
    ),
]

test_loads = holding(LOADS + CIRCLES, ttl_cache)
test_loads_are_checked = failing(LOADS + CIRCLES, COMPONENT)


@pytest.mark.guarantee("TC-1")
def test_eight_busy_threads_agree_on_the_counts() -> None:
    """Real threads, so that builds without the GIL have something to get wrong."""
    cache, together = TTLCache[int, int](max_size=50), threading.Barrier(8)

    def work(seed: int) -> int:
        together.wait(PATIENCE)
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

    workers = [Beside(work, seed) for seed in range(8)]
    most = [worker.result() for worker in workers]
    stats = cache.stats
    assert max(most) == 50
    assert stats.hits + stats.misses == 8 * 1_000
    assert len(cache) == len(cache.keys()) == 50
    assert reach(cache) <= 50 * 4 + 50  # an entry, its deadline, its number, its key, the rest
    assert stats.load_failures == stats.expirations == 0
