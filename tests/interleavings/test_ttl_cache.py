"""TTLCache under every schedule of a few threads; its broken twins under the same search."""

import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import detangle
import pytest
from detangle.lin import Model, Operation

from reference_impl.caches import ttl_cache
from tests.kit.explore import Interleavings
from tests.kit.twins import twin

interleave_test = pytest.importorskip("interleave_test", reason="needs Python >= 3.12")

NO_LOCK = [
    ("self._lock = threading.RLock()", "self._lock = contextlib.nullcontext()"),
    ("            self._lock.acquire()\n", ""),
    ("        self._lock.release()\n", ""),
]


def cache_of(module: ModuleType, **arguments: Any) -> Any:
    """A cache whose clock stands still, so that the schedule decides everything."""
    return module.TTLCache(10.0, clock=lambda: 1.0, **arguments)


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


def check_linearizable(module: ModuleType, clients: int) -> None:
    cache, history = cache_of(module, max_size=2), detangle.History()
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


@pytest.mark.guarantee("TC-1")
def test_two_clients_are_linearizable(interleavings: Interleavings) -> None:
    interleavings.prove(lambda: check_linearizable(ttl_cache, 2))
    interleavings.prove(lambda: check_linearizable(ttl_cache, 2), preemptions=2, granularity="line")


@pytest.mark.guarantee("TC-1", "TC-3")
def test_three_clients_are_linearizable(interleavings: Interleavings) -> None:
    interleavings.sample(lambda: check_linearizable(ttl_cache, 3), schedules=1_000)


@pytest.mark.twin("TC-1", "TC-3")
def test_without_the_lock_they_are_not(interleavings: Interleavings) -> None:
    broken = twin("caches/ttl_cache.py", *NO_LOCK)
    interleavings.catch(
        lambda: check_linearizable(broken, 2), diagram="Two threads and no lock: a lost update"
    )


def check_nobody_sees_one_too_many(module: ModuleType) -> None:
    cache = cache_of(module, max_size=1)
    cache.set("a", 1)
    seen = together(lambda: cache.set("b", 2), lambda: cache.keys())
    assert seen[1] in (["a"], ["b"])


def check_look_ups_are_counted(module: ModuleType) -> None:
    cache = cache_of(module)
    cache.set("a", 1)
    together(lambda: cache.get("a"), lambda: (cache.get("a"), cache.get("b")))
    assert (cache.stats.hits, cache.stats.misses) == (2, 1)


# ---- single flight -----------------------------------------------------------------------


def check_loaded_once(module: ModuleType) -> None:
    cache, calls = cache_of(module), list[object]()

    def load() -> object:
        calls.append(object())
        return calls[-1]

    results = together(*[lambda: cache.get_or_load("key", load)] * 2)
    assert len(calls) == 1
    assert results == [calls[0]] * 2
    assert cache.stats.misses + cache.stats.hits == 2


def check_a_failure_reaches_all_and_stays_with_none(module: ModuleType) -> None:
    cache, failures = cache_of(module), list[Exception]()

    def fail() -> object:
        failures.append(ValueError(len(failures)))
        raise failures[-1]

    results = together(*[lambda: cache.get_or_load("key", fail)] * 2)
    assert set(results) == set(failures)  # one load and one error, or one after the other
    assert cache.stats.load_failures == len(failures)
    assert not cache._loads
    assert cache.get_or_load("key", lambda: "better") == "better"


def check_an_interrupted_load_is_loaded_again(module: ModuleType) -> None:
    cache, calls = cache_of(module), list[object]()

    def load() -> object:
        calls.append(None)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return "value"

    results = together(*[lambda: cache.get_or_load("key", load)] * 2)
    assert sorted(map(str, results)) == ["", "value"]
    assert len(calls) == 2


def check_an_invalidation_wins(module: ModuleType, invalidate: str) -> None:
    """Whatever the schedule: what was invalidated is not there afterwards."""
    cache, version = cache_of(module), ["old"]

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


def check_crossing_loads_end(module: ModuleType) -> None:
    cache = cache_of(module)

    def load(key: str, other: str) -> object:
        return cache.get_or_load(key, lambda: cache.get_or_load(other, lambda: "inner"))

    results = together(lambda: load("a", "b"), lambda: load("b", "a"))
    assert all(result == "inner" or isinstance(result, RuntimeError) for result in results)
    assert not cache._loads


def check_waits_that_cross_end(module: ModuleType) -> None:
    """The part of the above that matters most, alone: small enough for a deeper search."""
    one, two = module._Load(), module._Load()

    def wait(mine: Any, other: Any) -> str:
        module._loading.set((weakref.ref(mine),))
        try:
            module._wait(other, "key")
        except RuntimeError:
            return "refused"
        finally:
            mine.landed.set()
        return "waited"

    assert "refused" in together(lambda: wait(one, two), lambda: wait(two, one))
    assert not one.joined
    assert not two.joined


def invalidation(how: str) -> Callable[[ModuleType], None]:
    def check(module: ModuleType) -> None:
        check_an_invalidation_wins(module, how)

    check.__name__ = f"check_an_invalidation_by_{how}_wins"
    return check


INVALIDATIONS = {how: invalidation(how) for how in ("set", "delete", "clear")}
CHECKS: list[tuple[str, Callable[[ModuleType], None], list[tuple[str, str]], str | None]] = [
    (
        "TC-3",
        check_nobody_sees_one_too_many,
        [
            (
                "        while len(entries)",
                "        self._lock.release(), self._lock.acquire()\n        while len(entries)",
            )
        ],
        None,
    ),
    ("TC-5", check_look_ups_are_counted, NO_LOCK, None),
    (
        "TC-6",
        check_loaded_once,
        [("load = self._loads.setdefault(key, mine)", "load = self._loads[key] = mine")],
        "Check, then load: two loaders for one key",
    ),
    (
        "TC-6",  # the second look under the lock: the load may have ended since the first
        check_loaded_once,
        [("                    return entry[0]\n", "                    pass\n")],
        None,
    ),
    (
        "TC-6",
        check_a_failure_reaches_all_and_stays_with_none,
        [("            mine.landed.set()\n", "            pass\n")],
        "A loader that raises, and a waiter whom nobody wakes",
    ),
    (
        "TC-6",
        check_an_interrupted_load_is_loaded_again,
        [("except Exception as error:", "except BaseException as error:")],
        None,
    ),
    (
        "TC-7",
        INVALIDATIONS["set"],
        [("if self._loads.get(key) is load:", "self._loads[key] = load\n                if True:")],
        "The load undoes a set that came after it began",
    ),
    (
        "TC-7",
        INVALIDATIONS["delete"],
        [("            self._loads.pop(key, None)\n            entry", "            entry")],
        None,
    ),
    ("TC-7", INVALIDATIONS["clear"], [("{}, [], {}", "{}, [], self._loads")], None),
    (
        "TC-8",
        check_crossing_loads_end,
        [("if load in blocked:", "if load in chain:")],
        "Two loaders that wait for each other",
    ),
    (
        "TC-8",  # searched before announced: both look, and neither sees the other
        check_waits_that_cross_end,
        [
            ("    with load.lock:\n        load.joined.append(chain)\n    try:", "    try:"),
            (
                "load.joined.remove(chain)",
                "load.joined = [c for c in load.joined if c is not chain]",
            ),
            (
                "        load.landed.wait()\n",
                "        with load.lock:\n            load.joined.append(chain)\n"
                "        load.landed.wait()\n",
            ),
        ],
        None,
    ),
]
PROVED = {check: identifier for identifier, check, _, _ in CHECKS}


def name(check: object) -> str:
    return getattr(check, "__name__", "check").removeprefix("check_")


@pytest.mark.parametrize(
    "check",
    [pytest.param(c, marks=pytest.mark.guarantee(i), id=name(c)) for c, i in PROVED.items()],
)
def test_every_schedule(check: Callable[[ModuleType], None], interleavings: Interleavings) -> None:
    interleavings.prove(lambda: check(ttl_cache))


@pytest.mark.parametrize(
    ("check", "faults", "diagram"),
    [pytest.param(*c[1:], marks=pytest.mark.twin(c[0]), id=name(c[1])) for c in CHECKS],
)
def test_a_schedule_catches(
    check: Callable[[ModuleType], None],
    faults: list[tuple[str, str]],
    diagram: str | None,
    interleavings: Interleavings,
) -> None:
    broken = twin("caches/ttl_cache.py", *faults)
    failure = interleavings.catch(lambda: check(broken), diagram=diagram)
    assert failure.kind == "deadlock" or isinstance(failure.exception, AssertionError)


@pytest.mark.guarantee("TC-8")
def test_waits_that_cross_end_even_so(interleavings: Interleavings) -> None:
    interleavings.prove(
        lambda: check_waits_that_cross_end(ttl_cache), preemptions=2, granularity="line"
    )


def check_three_loads_in_a_circle_end(module: ModuleType) -> None:
    cache = cache_of(module)

    def load(key: str, other: str) -> object:
        return cache.get_or_load(key, lambda: cache.get_or_load(other, lambda: "inner"))

    results = together(*[lambda p=pair: load(*p) for pair in ("ab", "bc", "ca")])
    assert all(result == "inner" or isinstance(result, RuntimeError) for result in results)


@pytest.mark.guarantee("TC-8")
def test_three_loads_in_a_circle_end(interleavings: Interleavings) -> None:
    interleavings.sample(lambda: check_three_loads_in_a_circle_end(ttl_cache), schedules=300)
