"""What one expects of a cache that threads share."""

import gc
import itertools
import math
import os
import re
import signal
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from peers.adapters.caches import Cache
from peers.checks import Family
from peers.outcomes import (
    DoesNotHold,
    Holds,
    NotExplored,
    NotOffered,
    chance,
    explore,
    once,
    raise_first,
    sampled,
    settle,
    spawned,
    together,
)

FAMILY = Family("caches", "Caches for threads")
_EXPLORED = 400.0  # seconds for a cell that explores
_DAY = 86_400
_STAMPEDE = """
import threading
import time
calls = []
def slow(key):
    calls.append(key)
    time.sleep(0.5)
f = cached(slow)
threads = [threading.Thread(target=f, args=("k",)) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(calls) == 1, f"8 callers of one missing key made {len(calls)} loads"
"""


def _offered(*calls: Callable[[], object]) -> list[Any]:
    """What the calls return, without those that the row does not offer; NotOffered if all."""
    found, reasons = [], []
    for call in calls:
        try:
            found.append(call())
        except NotOffered as error:
            reasons.append(error)
    if not found:
        raise reasons[0]
    return found


def _is_offered(call: Callable[[], object]) -> bool:
    try:
        call()
    except NotOffered:
        return False
    return True


def _has_mapping(row: type[Cache]) -> bool:
    return _is_offered(row.new)


def _bounded(row: type[Cache]) -> None:
    if row.no_bound:
        raise NotOffered(row.no_bound)


def _explorable(row: type[Cache]) -> None:
    if not row.explorable:
        raise NotExplored(row.unexplored)


def _first(results: list[Any]) -> None:
    """The first exception among them fails the check, in its own words if it has them."""
    for each in results:
        if isinstance(each, DoesNotHold):
            raise each
    raise_first(results)


def _same(key: Any) -> Any:
    return key


def _counted(loads: list[object]) -> Callable[[object], None]:
    """A loader that returns None; a Python function, since decorators may look into it."""

    def load(key: object) -> None:
        loads.append(key)

    return load


@FAMILY.check("The adapter works")
def adapter_sound(row: type[Cache]) -> Holds:
    """One thread sees what it has set, loaded, deleted and let expire.

    If this failed, the adapter of this comparison would be wrong, and each other cell with it.
    """

    def expect(what: str, seen: object, expected: object) -> None:
        if seen != expected:
            raise DoesNotHold(f"{what}: {seen!r} instead of {expected!r}")

    def mapping() -> str:
        cache = row.new()
        expect("get of nothing", row.get(cache, "k"), None)
        expect("get of nothing with a default", row.get(cache, "k", 7), 7)
        row.put(cache, "k", 1)
        row.put(cache, "j", 2)
        row.put(cache, "k", 3)
        expect("get", [row.get(cache, "k"), row.get(cache, "j", 7)], [3, 2])
        if _is_offered(lambda: row.length(cache)):
            expect("length", row.length(cache), 2)
        row.delete(cache, "k")
        row.delete(cache, "nothing")
        expect("get after delete", row.get(cache, "k"), None)
        if row.no_expiry:
            return "get, set and delete"
        cache = row.new(10, 1.0)
        row.put(cache, "k", 1)
        time.sleep(1.5)
        expect("get after its life", row.get(cache, "k"), None)
        return "get, set, delete and expiry"

    def loading() -> str:
        loads: list[object] = []

        def load(key: object) -> object:
            loads.append(key)
            return len(loads)

        function = row.cached(load)
        expect("loads", [function(key) for key in ("k", "k", "j", "k")], [1, 1, 2, 1])
        if _is_offered(lambda: row.invalidate(function, "k")):
            expect("loads after it was dropped", [function("k"), function("k")], [3, 3])
        if not row.no_expiry:
            loads.clear()
            function = row.cached(load, 10, 1.0)
            function("k")
            time.sleep(1.5)
            expect("a load after its life", function("k"), 2)
        return "loads"

    return once(", ".join(_offered(mapping, loading)))


@FAMILY.check(
    "Calls are atomic",
    deadline=_EXPLORED,
    uses=("new", "put", "delete"),
    reports={"cachetools": "https://github.com/tkem/cachetools/issues/82"},
    reproduction="""
import sys
import threading
sys.setswitchinterval(1e-6)
cache, errors = new(100), []
def work():
    try:
        for turn in range(300_000): put(cache, turn % 3, turn), delete(cache, turn % 2)
    except Exception as error: errors.append(error)
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not errors, f"threads that set and delete: {errors[0]!r}"
""",
)
def linearizable(row: type[Cache]) -> Holds:
    """Threads see get, set and delete as if one thread made them, one after the other.

    Otherwise a set can vanish, or a get can raise an error of the cache's inner parts.
    """
    import detangle

    calls: dict[str, Callable[..., object]]
    calls = {"get": row.get, "set": row.put, "delete": row.delete}

    def run(cache: Any, history: Any, guard: Any, client: int, name: str, *argument: Any) -> None:
        with guard:
            call = history.invoke(client, name, argument if name == "set" else argument[0])
        try:
            result = calls[name](cache, *argument)
        except Exception as error:
            text = f"{name}({argument[0]!r}) raised {type(error).__name__}: {error}"
            raise DoesNotHold(text) from error
        with guard:
            history.ok(call, result)

    def judge(history: Any, results: list[Any]) -> None:
        _first(results)
        if not history.check(detangle.lin.KV()).ok:
            told = ", ".join(each.describe() for each in history.operations)
            raise DoesNotHold(f"no order of the calls explains what they returned: {told}")

    class Unguarded:
        def __enter__(self) -> None:
            """The explorer runs one thread at a time, and this code in one piece."""

        def __exit__(self, *_: object) -> None:
            pass

    def model() -> None:
        cache, history = row.new(8), detangle.History()
        row.put(cache, "a", 0)
        setup = history.invoke(0, "set", ("a", 0))
        history.ok(setup)

        def client(number: int, *steps: tuple[Any, ...]) -> None:
            for step in steps:
                run(cache, history, Unguarded(), number, *step)

        one = [("set", "a", 1), ("get", "b")]
        other = [("set", "b", 2), ("delete", "a")]
        judge(history, spawned(lambda: client(1, *one), lambda: client(2, *other)))

    row.new()
    if row.explorable:
        return explore(model, row.explorable)
    sys.setswitchinterval(1e-5)
    cache, runs = row.new(10_000), 200

    def clients(seed: int) -> None:
        history, guard, barrier = detangle.History(), threading.Lock(), threading.Barrier(3)

        def client(number: int) -> None:
            random = chance(seed * 3 + number)
            barrier.wait(5)
            for step in range(5):
                key = f"{seed} {random.choice('ab')}"
                name = random.choice(["get", "get", "set", "delete"])
                value = (number * 10 + step,) if name == "set" else ()
                run(cache, history, guard, number, name, key, *value)

        judge(history, together(*[lambda number=each: client(number) for each in range(3)]))

    for seed in range(runs):
        clients(seed)
    return sampled(runs, "an order explains each")


@FAMILY.check(
    "The bound holds between threads",
    deadline=_EXPLORED,
    uses=("new", "put", "length"),
    reports={"cachetools": "https://github.com/tkem/cachetools/issues/82"},
    reproduction="""
import sys
import threading
sys.setswitchinterval(1e-6)
cache, errors = new(1), []
def work(name):
    try:
        for turn in range(200_000): put(cache, (name, turn), turn)
    except Exception as error: errors.append(error)
threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not errors, f"threads that set in a cache of one: {errors[0]!r}"
assert length(cache) < 2, f"{length(cache)} entries in a cache of one"
""",
)
def bound(row: type[Cache]) -> Holds:
    """Two threads that fill a full cache do not leave more entries than it may hold.

    Otherwise memory grows with the number of threads, or forever.
    """
    _bounded(row)

    def model() -> None:
        cache = row.new(1)
        row.put(cache, "first", 0)
        _first(spawned(*[lambda key=each: row.put(cache, key, 1) for each in "ab"]))
        if (held := row.length(cache)) > 1:
            raise DoesNotHold(f"{held} entries in a cache of one")

    if row.explorable:
        row.new(1)
        return explore(model, row.explorable, granularity="line")

    def fill(put: Callable[[object], object]) -> None:
        keys = [[(name, turn) for turn in range(500)] for name in "ab"]
        _first(together(*[lambda mine=each: [put(key) for key in mine] for each in keys]))

    def mapping() -> None:
        cache = row.new(100)
        fill(lambda key: row.put(cache, key, 1))
        # A library may make room a little later: with the next set, or in a thread of its own.
        row.put(cache, "last", 1)
        end = time.monotonic() + 3
        while (held := row.length(cache)) > 100 and time.monotonic() < end:
            time.sleep(0.01)
        if held > 100:
            raise DoesNotHold(f"{held} entries in a cache of 100")

    def loading() -> None:
        function = row.cached(_same, 100)
        fill(function)
        if (held := row.length(function)) > 100:
            raise DoesNotHold(f"{held} entries in a cache of 100")

    sys.setswitchinterval(1e-5)
    for _ in range(30):
        (mapping if _has_mapping(row) else loading)()
    return sampled(30, "two threads left 100 entries in a cache of 100, with one set after them")


@FAMILY.check(
    "The least recently used goes first",
    uses=("new", "get", "put"),
    reproduction="""
cache = new(4)
for key in (1, 2, 3, 4):
    put(cache, key, key)
for key in (2, 3, 4, 1):
    get(cache, key)
put(cache, 5, 5)
kept = [key for key in (1, 2, 3, 4, 5) if get(cache, key)]
assert kept == [1, 3, 4, 5], f"of 1 to 5, where 2 was used least recently, it kept {kept}"
""",
)
def exact_lru(row: type[Cache]) -> Holds:
    """A full cache makes room by dropping the entry that was read or set longest ago.

    Otherwise an entry that is used all the time can be dropped before one that nobody reads.
    """
    _bounded(row)
    random, size = chance(7), 5
    model: OrderedDict[int, int] = OrderedDict()

    def used(key: int, value: int) -> None:
        model[key] = value
        model.move_to_end(key)
        if len(model) > size:
            model.popitem(last=False)

    def mapping() -> str:
        cache = row.new(size)
        for step in range(400):
            key = random.randrange(12)
            if random.random() < 0.5:
                row.put(cache, key, step)
                used(key, step)
                continue
            seen, expected = row.get(cache, key), model.get(key)
            if seen != expected:
                kept = "dropped" if seen is None else "kept"
                raise DoesNotHold(
                    f"step {step}: it {kept} {key}, which an exact LRU would not have"
                )
            if key in model:
                used(key, model[key])
        return "400 random calls of get and set"

    def loading() -> str:
        loads: list[object] = []
        function = row.cached(_counted(loads), size)
        for step in range(400):
            key = random.randrange(12)
            loads.clear()
            function(key)
            if bool(loads) == (key in model):
                kept = "dropped" if loads else "kept"
                raise DoesNotHold(
                    f"step {step}: it {kept} {key}, which an exact LRU would not have"
                )
            used(key, step)
        return "400 random calls"

    return once(mapping() if _has_mapping(row) else loading())


def _set_clock(seconds: int) -> None:
    Path(os.environ["FAKETIME_TIMESTAMP_FILE"]).write_text(f"{seconds:+d}s\n")


def _pass(seconds: float) -> None:
    """Waits so long by the monotonic clock, without a wait that the fake clock could change."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@FAMILY.check(
    "Wall-clock jumps change nothing",
    clock=True,
    uses=("new", "get", "put"),
    reproduction="""
import glob
import os
import sys
if "LD_PRELOAD" not in os.environ:  # start again with libfaketime (Debian: faketime)
    os.environ["LD_PRELOAD"] = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")[0]
    os.environ |= dict(FAKETIME_TIMESTAMP_FILE="at", FAKETIME_NO_CACHE="1", DONT_FAKE_MONOTONIC="1")
    os.execv(sys.executable, [sys.executable, __file__])
cache = new(10, 3600.0)
put(cache, "k", 1)
open("at", "w").write("+86400s")
assert get(cache, "k") == 1, "set ahead by a day, the clock expired an entry with an hour to live"
""",
)
def wall_clock(row: type[Cache]) -> Holds:
    """A wall clock that is set ahead or back neither ends nor prolongs an entry's life.

    Otherwise an adjustment of the machine's clock empties the cache, or keeps stale values.
    """
    if row.no_expiry:
        raise NotOffered(row.no_expiry)

    def entry(ttl: float) -> Callable[[], bool]:
        """Sets one, and returns how to ask whether it is there."""
        if _has_mapping(row):
            cache = row.new(10, ttl)
            row.put(cache, "k", 1)
            return lambda: row.get(cache, "k") is not None
        loads: list[object] = []
        function = row.cached(_counted(loads), 10, ttl)
        function("k")

        def there() -> bool:
            before = len(loads)
            function("k")
            return len(loads) == before

        return there

    _set_clock(0)
    before, monotonic = time.time(), time.monotonic()
    there = entry(3600.0)
    _set_clock(_DAY)
    if time.time() - before < _DAY / 2 or time.monotonic() - monotonic > _DAY / 2:
        raise NotExplored("libfaketime does not set the clock here")
    if not there():
        raise DoesNotHold("set ahead by a day, the clock expired an entry with an hour to live")
    _set_clock(0)
    there = entry(1.0)
    _set_clock(-_DAY)
    _pass(2.0)
    if there():
        raise DoesNotHold("set back by a day, the clock kept an entry alive after its second")
    return once("a day ahead and a day back")


@FAMILY.check(
    "None is a value",
    uses=("cached",),
    reproduction="""
calls = []
f = cached(lambda key: calls.append(key))
f("k"), f("k")
assert len(calls) == 1, f"a function that returned None was called {len(calls)} times"
""",
)
def none_cached(row: type[Cache]) -> Holds:
    """None is stored and found like any other value.

    Otherwise "there is no such user" is asked of the database again each time.
    """

    def mapping() -> str:
        cache = row.new()
        row.put(cache, "k", None)
        absent = object()
        if row.get(cache, "k", absent) is absent:
            raise DoesNotHold("a None that was set cannot be told from an absent key")
        return "a get finds it"

    def loading() -> str:
        calls: list[object] = []
        function = row.cached(_counted(calls))
        if (function("k"), function("k")) != (None, None):
            raise DoesNotHold("a function that returned None returned something else")
        if len(calls) != 1:
            raise DoesNotHold(f"a function that returned None was called {len(calls)} times")
        return "a load that returned it is not repeated"

    return once(" and ".join(_offered(mapping, loading)))


class _Crowd:
    """Calls of one key at the same time: the load lasts until all have had time to miss."""

    def __init__(self, callers: int, load: Callable[[], object]) -> None:
        self.loads = 0
        self._callers = callers
        self._load = load
        self._asking = threading.Semaphore(0)
        self._gate = threading.Event()

    def function(self) -> Callable[[object], object]:
        """What to memoize. It is no method, as some decorators set attributes of it."""

        def load(_key: object) -> object:
            self.loads += 1
            self._gate.wait(20)
            return self._load()

        return load

    def ask(self, function: Callable[[object], object]) -> list[Any]:
        """What each caller gets."""

        def caller() -> object:
            self._asking.release()
            return function("k")

        def opener() -> None:
            for _ in range(self._callers):
                self._asking.acquire()
            time.sleep(0.5)  # the last caller is about to look the key up
            self._gate.set()

        threading.Thread(target=opener, daemon=True).start()
        results, hanging = settle(*[caller] * self._callers, deadline=8)
        if hanging:
            text = f"the load has ended, and {hanging} of {self._callers} callers still wait"
            raise DoesNotHold(text)
        return results


@FAMILY.check(
    "One load for many callers",
    uses=("cached",),
    reports={
        "stdlib": "https://github.com/python/cpython/issues/103475",
        "cachetools": "https://github.com/tkem/cachetools/issues/294",
        "diskcache": "https://github.com/grantjenks/python-diskcache/issues/165",
    },
    reproduction=_STAMPEDE,
)
def single_flight(row: type[Cache]) -> Holds:
    """Callers who miss one key at the same time wait for one load.

    Otherwise each expiry of a popular key sends every caller to the database at once.
    """
    crowd = _Crowd(8, object)
    _first(crowd.ask(row.cached(crowd.function())))
    if crowd.loads != 1:
        raise DoesNotHold(f"8 callers of one missing key made {crowd.loads} loads")
    return once("8 callers, one load")


@FAMILY.check(
    "One load in any interleaving",
    deadline=_EXPLORED,
    uses=("cached",),
    reports={"cachetools": "https://github.com/tkem/cachetools/issues/294"},
    reproduction=_STAMPEDE,
)
def single_flight_explored(row: type[Cache]) -> Holds:
    """Two callers of a missing key make one load, however their steps interleave.

    A crowd that meets at a slow load shows the usual case; the rare one is between two steps.
    """

    def model() -> None:
        loads: list[object] = []

        def load(key: object) -> object:
            loads.append(key)
            return len(loads)

        function = row.cached(load, 4)
        results = spawned(lambda: function("k"), lambda: function("k"))
        _first(results)
        if len(loads) != 1:
            raise DoesNotHold(f"two callers of one missing key made {len(loads)} loads")
        if results != [1, 1]:
            raise DoesNotHold(f"two callers of one load got {results}")

    row.cached(_same)("k")
    _explorable(row)
    return explore(model, row.explorable, granularity="line")


@FAMILY.check(
    "A failed load frees its waiters",
    plain=True,
    uses=("cached",),
    reproduction="""
import threading
import time
def fail(key):
    time.sleep(0.5)
    raise ValueError("no report")
f = cached(fail)
threading.excepthook = lambda what: None
threads = [threading.Thread(target=f, args=("k",), daemon=True) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join(5)
waiting = sum(thread.is_alive() for thread in threads)
assert not waiting, f"the load raised ValueError; {waiting} of its 4 callers still wait"
""",
)
def failing_loader(row: type[Cache]) -> Holds:
    """When a load raises, each caller who waits for it gets an error, and none waits on.

    Otherwise one error of the database costs a thread of the server for each waiting request.
    """

    def fail() -> object:
        raise ValueError("no report")

    crowd = _Crowd(4, fail)
    results = crowd.ask(row.cached(crowd.function()))
    wrong = [each for each in results if not isinstance(each, ValueError)]
    if wrong:
        raise DoesNotHold(f"the load raised ValueError, and a caller got {wrong[0]!r}")
    return once(f"4 callers got the error of {crowd.loads} load{'s' * (crowd.loads != 1)}")


@FAMILY.check(
    "A failed load is not stored",
    plain=True,
    uses=("cached",),
    reproduction="""
import threading
calls = []
def load(key):
    calls.append(key)
    if len(calls) == 1: raise ValueError("not yet")
f = cached(load)
threading.excepthook = lambda what: None
for _ in range(2):
    thread = threading.Thread(target=f, args=("k",), daemon=True)
    thread.start(), thread.join(5)
    assert not thread.is_alive(), "after a load that raised, the next caller of its key waits"
assert len(calls) == 2, "after a load that raised, the next caller of its key does not load"
""",
)
def failure_not_stored(row: type[Cache]) -> Holds:
    """After a load that raised, the next caller loads again.

    Otherwise one passing error is served until the process is restarted.
    """
    loads: list[object] = []

    def load(key: object) -> str:
        loads.append(key)
        if len(loads) == 1:
            raise ValueError("not yet")
        return "report"

    function = row.cached(load)
    first = together(lambda: function("k"), deadline=4)[0]
    if not isinstance(first, ValueError):
        raise DoesNotHold(f"the load raised ValueError, and its caller got {first!r}")
    results, hanging = settle(lambda: function("k"), deadline=4)
    if hanging:
        raise DoesNotHold("after a load that raised, the next caller of its key waits forever")
    if results != ["report"]:
        raise DoesNotHold(f"after a load that raised, the next caller got {results[0]!r}")
    return once("the next caller loads again")


@FAMILY.check(
    "Own-key recursion is refused",
    uses=("cached",),
    reports={"cachebox": "https://github.com/awolverp/cachebox/issues/54"},
    reproduction="""
import threading
f = cached(lambda key: f(key))
threading.excepthook = lambda what: None
thread = threading.Thread(target=f, args=("k",), daemon=True)
thread.start()
thread.join(5)
assert not thread.is_alive(), "a loader that asks for its own key waits for itself"
""",
)
def recursion(row: type[Cache]) -> Holds:
    """A loader that asks for its own key gets an error instead of waiting for itself.

    Otherwise a mistake that any test would show as an error hangs a thread in production.
    """
    depth = itertools.count()
    function: Any = None

    def load(key: object) -> object:
        next(depth)
        return function(key)

    function = row.cached(load)
    sys.setrecursionlimit(400)
    results, hanging = settle(lambda: function("k"), deadline=4)
    if hanging:
        raise DoesNotHold("a loader that asks for its own key waits for itself forever")
    if not isinstance(results[0], Exception):
        raise DoesNotHold(f"a loader that asks for its own key forever got {results[0]!r}")
    levels = next(depth)
    return once(f"{type(results[0]).__name__}" + f" after {levels} levels" * (levels > 1))


@FAMILY.check(
    "Invalidation during a load counts",
    uses=("cached", "invalidate"),
    reproduction="""
import threading
data = ["old"]
def load(key):
    found, data[0] = data[0], "new"
    thread = threading.Thread(target=invalidate, args=(f, key), daemon=True)
    thread.start(), thread.join(3)
    return found
f = cached(load)
f("k")
assert f("k") == "new", "invalidated during a load, which stored what it had read before"
""",
)
def invalidation(row: type[Cache]) -> Holds:
    """A value whose load began before its key was invalidated is not found afterwards.

    Otherwise what was read just before a change is served for a whole life after it.
    """
    data, dropped = ["old"], threading.Event()
    threads: list[threading.Thread] = []

    def load(_key: object) -> str:
        found = data[0]
        if found == "old":
            data[0] = "new"
            threads.append(threading.Thread(target=drop, daemon=True))
            threads[0].start()
            threads[0].join(3)  # it may also wait for the load: then it comes after it
        return found

    def drop() -> None:
        row.invalidate(function, "k")
        dropped.set()

    function: Any = row.cached(load)
    row.invalidate(row.cached(_same), "k")
    _first(together(lambda: function("k"), deadline=10))
    if not dropped.wait(5):
        raise DoesNotHold("an invalidation during a load does not end")
    found = together(lambda: function("k"), deadline=5)[0]
    if found != "new":
        raise DoesNotHold("invalidated during a load, which stored what it had read before")
    return once("the next caller loads again")


@FAMILY.check(
    "A full cache stays fast",
    deadline=120,
    uses=("new", "put"),
    reproduction="""
import time
def cost(size):
    cache = new(size)
    for key in range(size):
        put(cache, key, key)
    began = time.process_time()
    for key in range(size, size + 500):
        put(cache, key, key)
    return time.process_time() - began
ratio = cost(20_000) / cost(500)
assert ratio < 10, f"a set costs {ratio:.0f} times as much at 20,000 entries as at 500"
""",
)
def flat_set(row: type[Cache]) -> Holds:
    """A set on a full cache costs about the same with 500 and with 20,000 entries.

    Otherwise a bound that is raised for speed makes every miss slower, under the cache's lock.
    """
    _bounded(row)
    gc.disable()

    def cost(size: int) -> float:
        """Seconds of CPU for a set, the best of three trials of a hundred."""
        if _has_mapping(row):
            cache = row.new(size)
            put: Callable[[int], object] = lambda key: row.put(cache, key, key)  # noqa: E731
        else:
            put = row.cached(_same, size)
        keys = itertools.count()
        for _ in range(size + 100):
            put(next(keys))
        best = math.inf
        for _ in range(3):
            began = time.process_time()
            for _ in range(100):
                put(next(keys))
            best = min(best, time.process_time() - began)
        return best / 100

    small, large = cost(500), cost(20_000)
    told = f"{small * 1e6:.1f} µs at 500 entries, {large * 1e6:.1f} µs at 20,000"
    if large > 10 * small:
        raise DoesNotHold(f"a set on a full cache costs {told}")
    return once(told)


@FAMILY.check(
    "Other keys go on meanwhile",
    uses=("cached",),
    reproduction="""
import threading
import time
gate = threading.Event()
f = cached(lambda key: gate.wait(60) if key == "slow" else key)
f("found")
threading.Thread(target=f, args=("slow",), daemon=True).start()
time.sleep(0.5)
for key in ("found", "other"):
    thread = threading.Thread(target=f, args=(key,), daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive(), f"while one key loads, a caller of {key!r} waits"
""",
)
def other_keys_go_on(row: type[Cache]) -> Holds:
    """While one key loads, other keys are found and loaded.

    Otherwise one slow query stops every request that needs the cache at all.
    """
    gate, loading = threading.Event(), threading.Event()

    def load(key: object) -> object:
        if key == "slow":
            loading.set()
            gate.wait(30)
        return key

    function = row.cached(load)
    together(lambda: function("found"))
    threading.Thread(target=lambda: function("slow"), daemon=True).start()
    if not loading.wait(5):
        raise DoesNotHold("a load did not begin")
    for key, what in (("found", "a key that it holds"), ("other", "another missing key")):
        results, hanging = settle(partial(function, key), deadline=4)
        if hanging:
            raise DoesNotHold(f"while one key loads, a caller of {what} waits")
        _first(results)
    gate.set()
    return once("another key is found, and a third is loaded")


@FAMILY.check(
    "A finalizer may use the cache",
    uses=("new", "put", "length"),
    reports={"cachebox": "https://github.com/awolverp/cachebox/issues/84"},
    reproduction="""
import threading
cache = new(2)
class Value:
    def __init__(self, key): self.key = key
    def __del__(self): put(cache, self.key, "last words")
def work():
    for key in range(8): put(cache, key, Value(key))
thread = threading.Thread(target=work, daemon=True)
thread.start()
thread.join(5)
assert not thread.is_alive(), "a dropped value's __del__, which uses the cache, waits for it"
assert length(cache) < 3, f"after a __del__ that uses it, {length(cache)} entries in a cache of 2"
""",
)
def finalizer(row: type[Cache]) -> Holds:
    """A value that is dropped to make room may use the cache in its `__del__`.

    Otherwise closing a cached connection can hang the thread that happened to drop it.
    """
    _bounded(row)
    failures: list[Exception] = []
    ran = itertools.count()

    class Value:
        def __init__(self, key: int) -> None:
            self.key = key

        def __del__(self) -> None:
            try:
                use(self.key)
                next(ran)
            except Exception as error:
                failures.append(error)

    if _has_mapping(row):
        cache = row.new(2)

        def use(key: int) -> None:
            row.get(cache, key)
            row.put(cache, "last words", 1)

        def work() -> None:
            for key in range(8):
                row.put(cache, key, Value(key))
            row.put(cache, 7, 0)
            row.put(cache, 6, Value(6))
            row.delete(cache, 6)
            if row.length(cache) > 2:
                raise DoesNotHold(f"afterwards {row.length(cache)} entries are in a cache of two")
    else:
        function: Any = row.cached(lambda key: Value(key) if isinstance(key, int) else 1, 2)

        def use(key: int) -> None:
            function("last words")

        def work() -> None:
            for key in range(8):
                function(key)

    results, hanging = settle(work, deadline=5)
    if hanging:
        raise DoesNotHold("a dropped value's __del__, which uses the cache, waits for its lock")
    _first([*results, *failures])
    return once(f"{next(ran)} finalizers used it")


@FAMILY.check(
    "Ctrl-C leaves it usable",
    deadline=180,
    uses=("cached",),
    reports={"diskcache": "https://github.com/grantjenks/python-diskcache/issues/315"},
    reproduction="""
import sys
import threading
for point in range(200):
    f, steps, used = cached(lambda key: key, 2), [], []
    def handler(frame, event, _):  # raises where a signal handler can
        steps.extend([event] * (event in ("call", "c_return")))
        if len(steps) > point: raise KeyboardInterrupt
    sys.setprofile(handler)
    try: f("k")
    except KeyboardInterrupt: pass
    sys.setprofile(None)
    use = lambda: used.extend([f(key) for key in "kxy"])
    thread = threading.Thread(target=use, daemon=True)
    thread.start(), thread.join(5)
    assert used, f"after Ctrl-C at point {point} of a load, the next calls fail or hang"
""",
)
def interrupted(row: type[Cache]) -> Holds:
    """A call that a signal handler's exception ends leaves the cache usable by other threads.

    Otherwise Ctrl-C, or a timeout by a signal, in one request hangs all that follow.
    """
    from tests.kit.interrupts import Hang, Interrupt, elsewhere, patience, sweep

    _offered(row.new, lambda: row.cached(_same))
    if not row.explorable:
        raise NotExplored(row.unexplored)
    points = 0

    def filled() -> Any:
        cache = row.new(2)
        for key in "ab":
            row.put(cache, key, 1)
        return cache

    def use(cache: Any) -> None:
        for key in "xyz":
            row.put(cache, key, 2)
            if row.get(cache, key) != 2:
                raise DoesNotHold(f"set({key!r}) is not found by get")
        if not row.no_bound and row.length(cache) > 2:
            raise DoesNotHold(f"{row.length(cache)} entries are in a cache of two")

    def loaded() -> Any:
        function = row.cached(lambda key: [key], 2)
        function("a")
        return function

    def call(function: Any) -> None:
        for key in ("a", "k", "x", "y"):
            if function(key) != [key]:
                raise DoesNotHold(f"it returned {function(key)!r} for {key!r}")

    def interrupt(what: str, prepare: Any, ended: Callable[[Any], object], use: Any) -> None:
        nonlocal points

        def check(subject: Any, ending: Any) -> None:
            if ending.error is None or isinstance(ending.error, Interrupt):
                elsewhere(use, subject)
            else:
                raise ending.error

        for attempt in sweep(prepare, ended, check, twice=False):
            points += bool(attempt.where)
            if attempt.error is None:
                continue
            if not attempt.where:
                raise attempt.error
            where = re.sub(r"\(/\S*/(\S+/\S+:\d+)\)", r"(\1)", attempt.where[0])
            error = attempt.error
            left = f"{type(error).__name__}: {error}"
            if isinstance(error, Hang):
                left = "a call in another thread does not end"
            elif isinstance(error, DoesNotHold):
                left = str(error)
            raise DoesNotHold(f"{what} interrupted {where}: afterwards {left}") from error

    with patience(3.0):
        if _has_mapping(row):
            filled()
            interrupt("set", filled, lambda cache: row.put(cache, "k", 1), use)
            interrupt("get", filled, lambda cache: row.get(cache, "a"), use)
            interrupt("delete", filled, lambda cache: row.delete(cache, "a"), use)
        if _is_offered(loaded):
            interrupt("a load", loaded, lambda function: function("k"), call)
            interrupt("a hit", loaded, lambda function: function("a"), call)
    return Holds("one run", f"interrupted at {points} points, one at a time")


@FAMILY.check(
    "A child forked in a load works",
    uses=("cached",),
    reproduction="""
import os
import signal
import threading
import time
parent = os.getpid()
f = cached(lambda key: time.sleep(3 if os.getpid() == parent else 0))
threading.Thread(target=f, args=("k",), daemon=True).start()
time.sleep(0.5)
child = os.fork()
if not child: signal.alarm(8), f("k"), os._exit(0)
assert os.waitpid(child, 0)[1] == 0, "a child forked during a load of a key waits for it forever"
""",
)
def fork(row: type[Cache]) -> Holds:
    """A child process that is forked while another thread loads can use its copy of the cache.

    Otherwise a worker of a pre-forking server hangs at its first request, now and then.
    """
    gate, loading, parent = threading.Event(), threading.Event(), os.getpid()

    def load(key: object) -> object:
        if key == "slow" and os.getpid() == parent:
            loading.set()
            gate.wait(30)
        return key

    function = row.cached(load)
    function("found")
    threading.Thread(target=lambda: function("slow"), daemon=True).start()
    if not loading.wait(5):
        raise DoesNotHold("a load did not begin")
    asked = {
        "found": "a key that it holds",
        "other": "a missing key",
        "slow": "the key that was loading",
    }
    children = {}
    for key in asked:
        child = os.fork()
        if not child:
            signal.alarm(8)
            try:
                os._exit(0 if function(key) == key else 1)
            except BaseException:
                os._exit(1)
        children[key] = child
    time.sleep(0.5)
    gate.set()  # a lock that processes share is free now
    for key, child in children.items():
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            ended = "waits forever" if status == -signal.SIGALRM else f"ended with {status}"
            raise DoesNotHold(f"a child that asks for {asked[key]} {ended}")
    return once("children found a key, loaded one, and loaded the one that was loading")
