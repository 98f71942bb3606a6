"""TTLCache under every schedule of a few threads; its broken twins under the same search."""

from collections.abc import Callable
from contextvars import Context, copy_context
from types import ModuleType
from typing import Any

import detangle
import pytest
from detangle.lin import Model, Operation

from reference_impl.caches import ttl_cache
from tests.caches.ttl_cache import faults
from tests.caches.ttl_cache.helpers import proves
from tests.kit.explore import Interleavings
from tests.kit.primitives import unlocked
from tests.kit.profile import budget
from tests.kit.proofs import Proof, caught, explored
from tests.kit.twins import Twin, edit

interleave_test = pytest.importorskip("interleave_test", reason="needs Python >= 3.12")

COMPONENT = "caches/ttl_cache"


def cache_of(m: ModuleType, **arguments: Any) -> Any:
    """A cache whose clock stands still, so that the schedule decides everything."""
    return m.TTLCache(10.0, clock=lambda: 1.0, **arguments)


def together(*calls: Callable[[], object]) -> list[Any]:
    """The results of calls made by as many threads at once; an error is a result, too."""

    def settle(call: Callable[[], object]) -> object:
        try:
            return call()
        except BaseException as error:
            return error

    tasks = [interleave_test.spawn(settle, call) for call in calls]
    for task in tasks:
        task.join()
    return [task.result() for task in tasks]


# ---- atomic operations -------------------------------------------------------------------


class Sequential(Model):
    """The cache, one call at a time: (key, value) pairs in the order of use, and counts."""

    name = "TTLCache of two entries"

    def init(self) -> Any:
        return (), 0, 0

    def step(self, state: Any, op: Operation) -> tuple[bool, Any]:
        pairs, hits, misses = state
        key, value = op.arg or (None, None)
        found = dict(pairs).get(key)
        rest = tuple(pair for pair in pairs if pair[0] != key)
        if op.f == "get":
            hit = found is not None
            after = (*rest, (key, found)) if hit else pairs
            return op.output == found, (after, hits + hit, misses + (not hit))
        if op.f == "set":
            return op.output is None, ((*rest, (key, value))[-2:], hits, misses)
        if op.f == "delete":
            return op.output == (found is not None), (rest, hits, misses)
        if op.f == "items":
            return op.output == list(pairs), state
        return op.output == (hits, misses), state


CLIENTS: list[list[tuple[str, tuple[str, int | None] | None]]] = [
    [("set", ("a", 1)), ("get", ("b", None))],
    [("set", ("b", 2)), ("delete", ("a", None)), ("stats", None)],
    [("set", ("c", 3)), ("items", None)],
]


def check_linearizable(m: ModuleType, clients: int) -> None:
    cache, history = cache_of(m, max_size=2), detangle.History()
    cache.set("before", 0)
    cache.delete("before")
    calls: dict[str, Callable[..., object]] = {
        "get": lambda key, _: cache.get(key),
        "set": cache.set,
        "delete": lambda key, _: cache.delete(key),
        "items": cache.items,
        "stats": lambda: (cache.stats.hits, cache.stats.misses),
    }

    def client(number: int) -> None:
        for name, argument in CLIENTS[number]:
            operation = history.invoke(number, name, argument)
            history.ok(operation, calls[name](*(argument or ())))

    for error in together(*(lambda number=number: client(number) for number in range(clients))):
        if error is not None:
            raise error
    history.assert_linearizable(Sequential())


def check_two_clients_are_linearizable(m: ModuleType) -> None:
    check_linearizable(m, 2)


@pytest.mark.guarantee("TC-1")
def test_two_clients_are_linearizable_deeper(interleavings: Interleavings) -> None:
    check = check_two_clients_are_linearizable
    interleavings.prove(lambda: check(ttl_cache), preemptions=budget(1, 2), granularity="line")


@pytest.mark.guarantee("TC-1")
def test_three_clients_are_linearizable(interleavings: Interleavings) -> None:
    interleavings.sample(lambda: check_linearizable(ttl_cache, 3), schedules=1_000)


def check_nobody_sees_one_too_many(m: ModuleType) -> None:
    cache = cache_of(m, max_size=1)
    cache.set("a", 1)
    seen = together(lambda: cache.set("b", 2), lambda: cache.keys())
    assert seen[1] in (["a"], ["b"])


def check_look_ups_are_counted(m: ModuleType) -> None:
    cache = cache_of(m)
    cache.set("a", 1)
    together(lambda: cache.get("a"), lambda: (cache.get("a"), cache.get("b")))
    assert (cache.stats.hits, cache.stats.misses) == (2, 1)


# ---- single flight -----------------------------------------------------------------------


def check_loaded_once(m: ModuleType) -> None:
    cache, calls = cache_of(m), list[object]()

    def load() -> object:
        calls.append(object())
        return calls[-1]

    results = together(*[lambda: cache.get_or_load("key", load)] * 2)
    assert len(calls) == 1
    assert results == [calls[0]] * 2
    assert cache.stats.misses + cache.stats.hits == 2


def check_a_failure_reaches_all_and_stays_with_none(m: ModuleType) -> None:
    cache, failures = cache_of(m), list[Exception]()

    def fail() -> object:
        failures.append(ValueError(len(failures)))
        raise failures[-1]

    results = together(*[lambda: cache.get_or_load("key", fail)] * 2)
    assert set(results) == set(failures)  # one load and one error, or one after the other
    assert cache.stats.load_failures == len(failures)
    assert cache.get_or_load("key", lambda: "better") == "better"


def check_an_interrupted_load_is_loaded_again(m: ModuleType) -> None:
    cache, calls = cache_of(m), list[object]()

    def load() -> object:
        calls.append(None)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return "value"

    results = together(*[lambda: cache.get_or_load("key", load)] * 2)
    assert sorted(map(str, results)) == ["", "value"]
    assert len(calls) == 2


def check_an_invalidation_wins(m: ModuleType, invalidate: str) -> None:
    """Whatever the schedule: what was invalidated is not there afterwards."""
    cache, version = cache_of(m), ["old"]

    def change() -> None:
        version[0] = "new"
        if invalidate == "set":
            cache.set("key", "new")
        elif invalidate == "delete":
            cache.delete("key")
        else:
            cache.clear()

    together(lambda: cache.get_or_load("key", lambda: version[0]), change)
    assert cache.get("key", "new") == "new"
    assert cache.get_or_load("key", lambda: "new") == "new"


def check_crossing_loads_end(m: ModuleType) -> None:
    cache = cache_of(m)

    def load(key: str, other: str) -> object:
        return cache.get_or_load(key, lambda: cache.get_or_load(other, lambda: "inner"))

    results = together(lambda: load("a", "b"), lambda: load("b", "a"))
    assert all(result == "inner" or isinstance(result, RuntimeError) for result in results)
    for key in ("a", "b"):  # no load is left that somebody could wait for
        assert cache.get_or_load(key, lambda: "after") in {"inner", "after"}


def check_waits_that_cross_end(m: ModuleType) -> None:
    """The part of the above that matters most, alone: small enough for a deeper search.

    Two loads are under way, until somebody is refused; two threads run in their contexts.
    """
    cache, refused, tasks = cache_of(m), interleave_test.Event(), list[Any]()
    first: Context

    def cross(context: Context, other: str) -> None:
        try:
            context.run(cache.get_or_load, other, lambda: "not this")
        except RuntimeError:
            refused.set()

    def outer() -> object:
        nonlocal first
        first = copy_context()
        return Context().run(cache.get_or_load, "b", inner)

    def inner() -> str:
        tasks.append(interleave_test.spawn(cross, first, "b"))
        tasks.append(interleave_test.spawn(cross, copy_context(), "a"))
        refused.wait()
        return "loaded"

    assert cache.get_or_load("a", outer) == "loaded"
    for task in tasks:
        task.join()


def invalidation(how: str) -> Callable[[ModuleType], None]:
    def check(m: ModuleType) -> None:
        check_an_invalidation_wins(m, how)

    check.__name__ = f"check_an_invalidation_by_{how}_wins"
    return check


# ---- what leaves -------------------------------------------------------------------------


def check_told_once(m: ModuleType) -> None:
    told = list[Any]()
    cache = cache_of(m, on_evict=lambda *left: told.append(left))
    cache.set("a", 1)
    results = together(lambda: cache.delete("a"), lambda: cache.delete("a"))
    assert sorted(results) == [False, True]
    assert told == [("a", 1, "deleted")]


def check_each_value_is_told_once(m: ModuleType) -> None:
    """Of a value that one thread replaces while another makes room, and of those after it."""
    told = list[Any]()
    cache = cache_of(m, max_size=1, on_evict=lambda *left: told.append(left))
    cache.set("a", 1)
    together(lambda: cache.set("a", 2), lambda: cache.set("b", 3))
    stays = cache.items()
    assert sorted([value for _, value, _ in told] + [value for _, value in stays]) == [1, 2, 3]
    assert {reason for *_, reason in told} <= {"evicted", "replaced"}


def check_each_tells_of_its_own(m: ModuleType) -> None:
    """One thread drops nothing while another does."""
    told = list[Any]()
    cache = cache_of(m, on_evict=lambda *left: told.append(left))
    cache.set("a", 1)
    together(lambda: cache.set("b", 2), lambda: cache.delete("a"))
    assert told == [("a", 1, "deleted")]


# ---- stale values ------------------------------------------------------------------------


def stale_cache(m: ModuleType) -> Any:
    """A cache whose "key" is stale."""
    now = [0.0]
    cache = m.TTLCache(10.0, clock=lambda: now[0])
    cache.get_or_load("key", lambda: "old", stale=10.0)
    now[0] = 15.0
    return cache


def check_one_refresh(m: ModuleType) -> None:
    cache, calls = stale_cache(m), list[object]()

    def load() -> str:
        calls.append(None)
        return "new"

    results = together(*[lambda: cache.get_or_load("key", load, stale=10.0)] * 2)
    assert len(calls) == 1
    assert sorted(results) in (["new", "old"], ["new", "new"])
    assert cache.get("key") == "new"


def check_an_invalidation_beats_a_refresh(m: ModuleType) -> None:
    cache, version = stale_cache(m), ["old"]

    def change() -> None:
        version[0] = "new"
        cache.delete("key")

    together(lambda: cache.get_or_load("key", lambda: version[0], stale=10.0), change)
    assert cache.get("key", "new") == "new"
    assert cache.get_or_load("key", lambda: "new", stale=10.0) == "new"


def check_a_refresh_and_a_joiner(m: ModuleType) -> None:
    """Who takes no stale value gets the refreshed one, or loads it where that was not begun."""
    cache = stale_cache(m)
    results = together(
        lambda: cache.get_or_load("key", lambda: "new", stale=10.0),
        lambda: cache.get_or_load("key", lambda: "new"),
    )
    assert results[0] in {"old", "new"}
    assert results[1] == cache.get("key") == "new"


INVALIDATIONS = {how: invalidation(how) for how in ("set", "delete", "clear")}
PROOFS = [
    proves(
        "TC-1",
        check_two_clients_are_linearizable,
        "has no lock",
        unlocked(),
        ("KeyError", "AttributeError: has no attribute", "NotLinearizable: history"),
    ),
    proves(
        "TC-3",
        check_nobody_sees_one_too_many,
        *faults.makes_room_too_late(),
        'AssertionError: assert seen[1] in (["a"], ["b"])',
    ),
    proves(
        "TC-5",
        check_look_ups_are_counted,
        "counts without a lock",
        unlocked("TTLCache.get"),
        "AssertionError: assert (cache.stats.hits, cache.stats.misses) == (2, 1)",
        granularity="opcode",  # by line, no count is lost
    ),
    Proof(
        "TC-6",
        check_loaded_once,
        [
            Twin(*faults.looks_then_loads(), "AssertionError: assert len(calls) == 1"),
            Twin(
                "does not look again, under the lock, before it loads",
                edit("TTLCache._find_or_register_locked", "if live:\n    return found, None", ""),
                "AssertionError: assert len(calls) == 1",
            ),
        ],
    ),
    proves(
        "TC-6",
        check_a_failure_reaches_all_and_stays_with_none,
        "wakes nobody when a load ends",
        faults.deaf,
        "deadlock",
    ),
    proves(
        "TC-6",
        check_an_interrupted_load_is_loaded_again,
        *faults.hands_on_an_interrupt(),
        'AssertionError: assert sorted(map(str, results)) == ["", "value"]',
    ),
    proves(
        "TC-7",
        INVALIDATIONS["set"],
        *faults.stores_in_any_case(),
        'AssertionError: assert cache.get("key", "new") == "new"',
    ),
    proves(
        "TC-7",
        INVALIDATIONS["delete"],
        *faults.deletes_what_it_sees(),
        'AssertionError: assert cache.get("key", "new") == "new"',
    ),
    proves(
        "TC-7",
        INVALIDATIONS["clear"],
        *faults.clears_what_it_sees(),
        'AssertionError: assert cache.get("key", "new") == "new"',
    ),
    proves("TC-8", check_crossing_loads_end, *faults.sees_its_own_circles(), "deadlock"),
    proves(
        "TC-8",
        check_waits_that_cross_end,
        "looks for a circle before it says that it waits",
        edit("_wait", "load.joined[mine] = _own_loads()", "")
        + edit("_wait", "load.wait()", "load.joined[mine] = _own_loads()\nload.wait()"),
        "deadlock",
        preemptions=budget(1, 2),
        granularity="line",
    ),
    proves(
        "TC-11",
        check_told_once,
        *faults.tells_what_it_saw(),
        'AssertionError: assert told == [("a", 1, "deleted")]',
    ),
    proves("TC-11", check_each_value_is_told_once),
    proves(
        "TC-11",
        check_each_tells_of_its_own,
        "takes along the list that the next call fills",
        edit(
            "TTLCache.set",
            "if store.left:\n    ...",
            "left = store.left\nif left:\n    store.left = []",
        ),
        'AssertionError: assert told == [("a", 1, "deleted")]',
    ),
    proves(
        "TC-12",
        check_one_refresh,
        *faults.refreshes_each_time(),
        "AssertionError: assert len(calls) == 1",
    ),
    proves(
        "TC-12",
        check_an_invalidation_beats_a_refresh,
        *faults.stores_in_any_case(),
        'AssertionError: assert cache.get("key", "new") == "new"',
    ),
    proves("TC-12", check_a_refresh_and_a_joiner, granularity="line"),
]

test_every_schedule = explored(PROOFS, ttl_cache)
test_a_schedule_catches = caught(PROOFS, COMPONENT)


def check_three_loads_in_a_circle_end(m: ModuleType) -> None:
    cache = cache_of(m)

    def load(key: str, other: str) -> object:
        return cache.get_or_load(key, lambda: cache.get_or_load(other, lambda: "inner"))

    results = together(*[lambda p=pair: load(*p) for pair in ("ab", "bc", "ca")])
    assert all(result == "inner" or isinstance(result, RuntimeError) for result in results)


@pytest.mark.guarantee("TC-8")
def test_three_loads_in_a_circle_end(interleavings: Interleavings) -> None:
    interleavings.sample(lambda: check_three_loads_in_a_circle_end(ttl_cache), schedules=300)
