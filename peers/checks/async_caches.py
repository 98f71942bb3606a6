"""What one expects of a cache that the tasks of an event loop share."""

import asyncio
import gc
import inspect
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from peers.adapters.async_caches import AsyncCache
from peers.checks import Family
from peers.outcomes import DoesNotHold, Holds, NotExplored, NotOffered, chance, once

FAMILY = Family("async_caches", "Caches for asyncio")

T = TypeVar("T")
_PATIENCE = 5.0  # seconds that a caller gets who should have nothing to wait for
_TURNS = 20  # of the loop: what is ready runs in them


def _run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """On a loop of its own; what still waits after a minute is the check's own fault."""
    failures: list[DoesNotHold] = []

    async def bounded() -> T:
        try:
            return await asyncio.wait_for(main(), 50)
        except DoesNotHold as failure:
            failures.append(failure)
            raise

    try:
        return asyncio.run(bounded())
    except RecursionError:  # of asyncio, when it cancels tasks that await each other in a circle
        if failures:
            raise failures[0] from None
        raise


async def _ask(function: Any, key: Any) -> Any:
    """One call, as a coroutine, whatever kind of awaitable the function returns."""
    return await function(key)


def _task(function: Any, key: Any) -> "asyncio.Task[Any]":
    return asyncio.create_task(_ask(function, key))


async def _turns() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)


async def _settled(
    *tasks: "asyncio.Task[Any]", what: str, patience: float = _PATIENCE
) -> list[Any]:
    """What each task returned or raised, "cancelled" included; a failure if one still waits."""
    _, waiting = await asyncio.wait(tasks, timeout=patience)
    if waiting:
        raise DoesNotHold(
            f"{what}; {len(waiting)} of {len(tasks)} callers still wait after {patience:g} s"
        )
    return [_outcome(task) for task in tasks]


def _outcome(task: "asyncio.Task[Any]") -> Any:
    if task.cancelled():
        return asyncio.CancelledError()
    return task.exception() or task.result()


async def _invalidate(row: type[AsyncCache], function: Any, key: Any) -> None:
    done = row.invalidate(function, key)
    if inspect.isawaitable(done):
        await done


async def _close(row: type[AsyncCache], function: Any) -> None:
    done = row.close(function)
    if inspect.isawaitable(done):
        await done


def _named(value: Any) -> str:
    """An exception by its type; what else, by itself."""
    return type(value).__name__ if isinstance(value, BaseException) else repr(value)


@FAMILY.check("The adapter works")
def adapter_sound(row: type[AsyncCache]) -> Holds:
    """A value is loaded once, then found, and loaded again after its key was dropped.

    The other cells of a row mean something only if this one holds.
    """
    calls: list[Any] = []

    async def load(key: Any) -> Any:
        calls.append(key)
        return len(calls)

    async def main() -> str:
        function = row.cached(load)
        got = [await function("a"), await function("a"), await function("b"), await function("a")]
        if got != [1, 1, 2, 1]:
            raise DoesNotHold(f"calls for a, a, b, a got {got}")
        try:
            await _invalidate(row, function, "a")
            dropped = "drops"
            got = [await function("a"), await function("b")]
            if got != [3, 2]:
                raise DoesNotHold(f"after a was dropped, calls for a and b got {got}")
        except NotOffered:
            dropped = "cannot drop"
        try:
            small = row.bounded(load, 2)
            calls.clear()
            for key in range(100):
                await small(key)
            await asyncio.sleep(0.1)
            for key in range(100):
                await small(key)
            if len(calls) < 150:
                raise DoesNotHold(f"with room for 2, 200 calls of 100 keys made {len(calls)} loads")
            size = "has a bound"
        except NotOffered:
            size = "has no bound"
        await _close(row, function)
        return f"loads, finds, {dropped}, {size}"

    return once(_run(main))


@FAMILY.check(
    "One load for many callers",
    uses=("cached",),
    reproduction="""
import asyncio
calls = []
async def load(key):
    calls.append(key)
    await asyncio.sleep(0.5)
    return "value"
f = cached(load)
async def main():
    await asyncio.gather(*[f("k") for _ in range(8)])
asyncio.run(main())
assert len(calls) == 1, f"8 callers of one missing key made {len(calls)} loads"
""",
)
def single_flight(row: type[AsyncCache]) -> Holds:
    """Tasks that miss one key at the same time wait for one load.

    Otherwise each expiry of a popular key sends every request to the database at once.
    """
    calls: list[Any] = []

    async def main() -> list[Any]:
        gate = asyncio.Event()

        async def load(key: Any) -> Any:
            calls.append(key)
            await gate.wait()
            return object()

        function = row.cached(load)
        tasks = [_task(function, "k") for _ in range(8)]
        await asyncio.sleep(0.5)
        gate.set()
        return await _settled(*tasks, what="the load has ended")

    got = _run(main)
    if len(calls) != 1:
        raise DoesNotHold(f"8 callers of one missing key made {len(calls)} loads")
    if len({id(each) for each in got}) != 1:
        raise DoesNotHold(f"8 callers of one load got {got}")
    return once("8 callers, one load")


@FAMILY.check(
    "One load, also a slow one",
    uses=("cached",),
    reproduction="""
import asyncio
calls = []
async def load(key):
    calls.append(key)
    await asyncio.sleep(4)
    return "value"
f = cached(load)
async def main():
    await asyncio.gather(*[f("k") for _ in range(8)])
asyncio.run(main())
assert len(calls) == 1, f"8 callers of a load of 4 s made {len(calls)} loads"
""",
)
def single_flight_slow(row: type[AsyncCache]) -> Holds:
    """Tasks wait for one load, too, where it takes four seconds.

    The slowest loads are those that a database can least afford several times.
    """
    calls: list[Any] = []

    async def load(key: Any) -> Any:
        calls.append(key)
        await asyncio.sleep(4)
        return object()

    async def main() -> None:
        function = row.cached(load)
        tasks = [_task(function, "k") for _ in range(8)]
        await asyncio.sleep(4)
        await _settled(*tasks, what="the first load has ended")

    _run(main)
    if len(calls) != 1:
        raise DoesNotHold(f"8 callers of a load of 4 s made {len(calls)} loads")
    return once("8 callers, one load of 4 s")


def _explore(row: type[AsyncCache], model: Callable[[], Coroutine[Any, Any, None]]) -> Holds:
    """Run the model under each order of its tasks' steps, with at most two delays."""
    import detangle

    if not row.explored_by_tasks:
        raise NotExplored(row.unexplored)
    gc.disable()  # a finalizer in the middle of a schedule would make it another one
    try:
        stats = detangle.explore(
            model, strategy=detangle.DFS(max_delays=2), runs=4000, database=False, shrink=False
        )
    except detangle.BugFound as found:
        why = str(found.report.failure.message).strip().splitlines()[0]
        raise DoesNotHold(f"schedule {found.report.runs}: {why}") from None
    if stats.exhausted:
        return Holds("every interleaving", f"{stats.runs:,} schedules, all of 2 delays")
    return Holds("many runs", f"{stats.runs:,} schedules, not all of 2 delays")


@FAMILY.check(
    "One load, whatever the order",
    uses=("cached",),
    reproduction="""
import asyncio
calls = []
async def load(key):
    calls.append(key)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return len(calls)
f = cached(load)
async def main():
    return await asyncio.gather(f("k"), f("k"), f("k"))
got = asyncio.run(main())
assert got == [1, 1, 1], f"{len(calls)} loads, three callers got {got}"
""",
    deadline=120.0,
)
def explored(row: type[AsyncCache]) -> Holds:
    """Three tasks share one load in whatever order the loop runs their steps.

    A test sees one order, a busy server sees them all.
    """

    async def model() -> None:
        calls: list[Any] = []

        async def load(key: Any) -> Any:
            calls.append(key)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return len(calls)

        function = row.cached(load)
        tasks = [_task(function, "k") for _ in range(3)]
        got = await asyncio.gather(*tasks)
        await _close(row, function)
        assert got == [1, 1, 1], f"{len(calls)} loads, three callers got {got}"

    return _explore(row, model)


@FAMILY.check(
    "A cancellation at any step",
    uses=("cached",),
    reproduction="""
import asyncio
async def load(key):
    await asyncio.sleep(0.5)
    return "value"
f = cached(load)
async def main():
    callers = [asyncio.ensure_future(f("k")) for _ in range(3)]
    await asyncio.sleep(0.1)
    callers[0].cancel()
    return await asyncio.gather(*callers[1:], return_exceptions=True)
got = asyncio.run(main())
assert got == ["value", "value"], f"one of three callers was cancelled, the others got {got}"
""",
    deadline=120.0,
)
def explored_cancellation(row: type[AsyncCache]) -> Holds:
    """One of three tasks is cancelled at any of its steps, and the two others get the value.

    A client that hangs up must not take down the requests of others.
    """

    async def model() -> None:
        import detangle

        async def load(key: Any) -> Any:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return "value"

        function = row.cached(load)
        tasks = [_task(function, "k") for _ in range(3)]
        detangle.inject_cancellation(tasks[detangle.randint(0, 2)])
        await asyncio.wait(tasks)
        got = [_outcome(task) for task in tasks]
        later = await asyncio.wait_for(_ask(function, "k"), 5)
        await _close(row, function)
        seen = f"one of three callers was cancelled; they got {', '.join(map(_named, got))}"
        assert got.count("value") >= 2, seen
        assert later == "value", f"a later caller got {later!r}"

    return _explore(row, model)


@FAMILY.check(
    "None is a value",
    uses=("cached",),
    reports={"aiocache": "https://github.com/aio-libs/aiocache/issues/1033"},
    reproduction="""
import asyncio
calls = []
async def load(key):
    calls.append(key)
f = cached(load)
async def main():
    await f("k")
    await f("k")
asyncio.run(main())
assert len(calls) == 1, f"two calls of a function that returns None made {len(calls)} loads"
""",
)
def none_cached(row: type[AsyncCache]) -> Holds:
    """A function that returned None is not called again.

    "There is no such user" is an answer, too, and often the expensive one.
    """
    calls: list[Any] = []

    async def load(key: Any) -> None:
        calls.append(key)

    async def main() -> None:
        function = row.cached(load)
        await function("k")
        await function("k")

    _run(main)
    if len(calls) != 1:
        raise DoesNotHold(f"two calls of a function that returns None made {len(calls)} loads")
    return once("two calls, one load")


@FAMILY.check(
    "The least recently used makes room",
    uses=("bounded",),
    reproduction="""
import asyncio
calls = []
async def load(key):
    calls.append(key)
    return key
f = bounded(load, 3)
async def main():
    for key in "abcadabc":
        await f(key)
asyncio.run(main())
# a b c fill it; a is used again, so d takes the place of b, then b that of c, and c that of d
assert calls == list("abcdbc"), f"room for 3, calls for abcadabc: loaded {''.join(calls)}"
""",
)
def exact_lru(row: type[AsyncCache]) -> Holds:
    """A full cache makes room by dropping exactly the least recently used key.

    Then one can tell what is kept, in a test and in an incident. Other policies can hit more.
    """
    numbers, size = chance(7), 5
    calls: list[Any] = []
    model: OrderedDict[int, None] = OrderedDict()

    async def load(key: Any) -> Any:
        calls.append(key)
        return key

    async def main() -> None:
        function = row.bounded(load, size)
        for step in range(1, 301):
            key = numbers.randrange(12)
            calls.clear()
            await function(key)
            expected = key not in model
            model[key] = None
            model.move_to_end(key)
            if len(model) > size:
                model.popitem(last=False)
            if expected != bool(calls):
                seen = "loaded again" if calls else "found"
                raise DoesNotHold(f"call {step} of 300, room for {size}: key {key} was {seen}")

    _run(main)
    return once("300 random calls as an exact LRU of 5 keys")


@FAMILY.check(
    "The first caller is cancelled",
    plain=True,
    uses=("cached",),
    reproduction="""
import asyncio
async def load(key):
    await asyncio.sleep(0.5)
    return "value"
f = cached(load)
async def main():
    first, second = asyncio.ensure_future(f("k")), asyncio.ensure_future(f("k"))
    await asyncio.sleep(0.1)
    first.cancel()
    return await asyncio.gather(second, return_exceptions=True)
got = asyncio.run(main())
assert got == ["value"], f"the first caller was cancelled, the second one got {got}"
""",
)
def cancelled_first_caller(row: type[AsyncCache]) -> Holds:
    """The task that began a load is cancelled, and one that waits for it still gets the value.

    A client that hangs up must not take down the requests of others.
    """
    calls: list[Any] = []

    async def main() -> Any:
        gate = asyncio.Event()

        async def load(key: Any) -> Any:
            calls.append(key)
            await gate.wait()
            return "value"

        function = row.cached(load)
        first = _task(function, "k")
        await _turns()
        second = _task(function, "k")
        await asyncio.sleep(0.1)
        first.cancel()
        await asyncio.sleep(0.1)
        gate.set()
        return (await _settled(second, what="the first caller was cancelled"))[0]

    got = _run(main)
    if isinstance(got, asyncio.CancelledError):
        raise DoesNotHold("cancelling the first caller cancelled the second one as well")
    if got != "value":
        raise DoesNotHold(f"the first caller was cancelled; the second one got {got!r}")
    return once(f"the second caller got the value; {len(calls)} load{'s' * (len(calls) != 1)}")


@FAMILY.check(
    "A waiting caller is cancelled",
    plain=True,
    uses=("cached",),
    reproduction="""
import asyncio
async def load(key):
    await asyncio.sleep(0.5)
    return "value"
f = cached(load)
async def main():
    first, second, third = [asyncio.ensure_future(f("k")) for _ in range(3)]
    await asyncio.sleep(0.1)
    second.cancel()
    return await asyncio.gather(first, third, return_exceptions=True)
got = asyncio.run(main())
assert got == ["value", "value"], f"the second of three callers was cancelled, the others got {got}"
""",
)
def cancelled_waiter(row: type[AsyncCache]) -> Holds:
    """One of the tasks that wait for a load is cancelled, and all others still get the value.

    A client that hangs up must not take down the requests of others.
    """

    async def main() -> list[Any]:
        gate = asyncio.Event()

        async def load(key: Any) -> Any:
            await gate.wait()
            return "value"

        function = row.cached(load)
        callers = [_task(function, "k") for _ in range(3)]
        await asyncio.sleep(0.1)
        callers[1].cancel()
        await asyncio.sleep(0.1)
        gate.set()
        return await _settled(callers[0], callers[2], what="the second of three was cancelled")

    got = _run(main)
    if got != ["value", "value"]:
        first, third = map(_named, got)
        raise DoesNotHold(
            f"the second of three callers was cancelled; the first got {first}, the third {third}"
        )
    return once("the two others got the value")


@FAMILY.check(
    "All callers are cancelled",
    plain=True,
    uses=("cached",),
    reproduction="""
import asyncio
async def load(key):
    await asyncio.sleep(0.5)
    return "value"
f = cached(load)
async def main():
    callers = [asyncio.ensure_future(f("k")) for _ in range(3)]
    await asyncio.sleep(0.1)
    for caller in callers: caller.cancel()
    await asyncio.wait(callers)
    return await asyncio.gather(asyncio.ensure_future(f("k")), return_exceptions=True)
got = asyncio.run(main())
assert got == ["value"], f"three callers were cancelled, a later one got {got}"
""",
)
def cancelled_alone(row: type[AsyncCache]) -> Holds:
    """When all callers of a load were cancelled, the load ends, and a later task gets a value.

    Otherwise one burst of timeouts leaves a load that never ends, or a key that never has a value.
    """
    begun: list[Any] = []
    ended: list[str] = []

    async def main() -> list[Any]:
        gate = asyncio.Event()

        async def load(key: Any) -> Any:
            begun.append(key)
            try:
                await gate.wait()
                ended.append("finished")
            except asyncio.CancelledError:
                ended.append("was cancelled")
                raise
            return "value"

        function = row.cached(load)
        callers = [_task(function, "k") for _ in range(3)]
        await asyncio.sleep(0.1)
        for caller in callers:
            caller.cancel()
        await _settled(*callers, what="three callers were cancelled")
        await asyncio.sleep(0.1)
        before = len(begun)
        gate.set()
        await _turns()
        if len(ended) < before:
            raise DoesNotHold("three callers were cancelled; the load has not ended")
        got = []
        for _ in range(2):
            later = _task(function, "k")
            got += await _settled(later, what="three callers were cancelled, one came later")
        return got

    got = _run(main)
    if got != ["value", "value"]:
        first, second = map(_named, got)
        raise DoesNotHold(f"three callers were cancelled; later ones got {first}, then {second}")
    return once(f"the load {ended[0]}, later callers got the value")


@FAMILY.check(
    "A failing load lets all go",
    plain=True,
    uses=("cached",),
    reproduction="""
import asyncio
async def load(key):
    await asyncio.sleep(0.5)
    raise ValueError("no report")
f = cached(load)
async def main():
    callers = [asyncio.ensure_future(f("k")) for _ in range(4)]
    done, waiting = await asyncio.wait(callers, timeout=5)
    return [type(t.exception()).__name__ if t.done() else "waits" for t in callers]
got = asyncio.run(main())
assert got == ["ValueError"] * 4, f"the load raised ValueError, four callers: {got}"
""",
)
def failing_loader(row: type[AsyncCache]) -> Holds:
    """When a load fails, each task that waits for it gets an exception.

    Otherwise one failed query leaves requests that never end.
    """
    calls: list[Any] = []

    async def main() -> list[Any]:
        gate = asyncio.Event()

        async def load(key: Any) -> Any:
            calls.append(key)
            await gate.wait()
            raise ValueError("no report")

        function = row.cached(load)
        tasks = [_task(function, "k") for _ in range(4)]
        await asyncio.sleep(0.1)
        gate.set()
        return await _settled(*tasks, what="the load raised")

    got = _run(main)
    if any(not isinstance(each, ValueError) for each in got):
        raise DoesNotHold(f"the load raised ValueError; callers got {[_named(e) for e in got]}")
    return once(f"4 callers got the error; {len(calls)} load{'s' * (len(calls) != 1)}")


@FAMILY.check(
    "A failure is not stored",
    uses=("cached",),
    reproduction="""
import asyncio
calls = []
async def load(key):
    calls.append(key)
    await asyncio.sleep(0.1)
    if len(calls) == 1: raise ValueError("for now")
    return "value"
f = cached(load)
async def main():
    await asyncio.gather(f("k"), return_exceptions=True)
    return await asyncio.gather(f("k"), return_exceptions=True)
got = asyncio.run(main())
assert got == ["value"], f"the call after a failed one got {got}"
""",
)
def failure_not_stored(row: type[AsyncCache]) -> Holds:
    """The task that asks after a failed load begins a new one.

    A database that was away for a second should not be missed for an hour.
    """
    calls: list[Any] = []

    async def main() -> tuple[Any, Any]:
        async def load(key: Any) -> Any:
            calls.append(key)
            await asyncio.sleep(0)
            if len(calls) == 1:
                raise ValueError("for now")
            return "value"

        function = row.cached(load)
        first = await _settled(_task(function, "k"), what="the load raised")
        await _turns()
        second = await _settled(_task(function, "k"), what="an earlier load raised")
        return first[0], second[0]

    first, second = _run(main)
    if not isinstance(first, ValueError) or second != "value":
        raise DoesNotHold(f"the first load raised; callers got {_named(first)}, {_named(second)}")
    return once("the next caller loaded again and got the value")


@FAMILY.check(
    "A load that asks for itself",
    uses=("cached",),
    reports={"cachebox": "https://github.com/awolverp/cachebox/issues/54"},
    reproduction="""
import asyncio
async def load(key):
    return await f(key)
f = cached(load)
async def main():
    caller = asyncio.ensure_future(f("k"))
    await asyncio.wait([caller], timeout=3)
    return caller.done()
assert asyncio.run(main()), "a load that asks for its own key has not ended after 3 s"
""",
)
def recursion(row: type[AsyncCache]) -> Holds:
    """A load that asks for its own key is refused with an exception.

    Otherwise it waits for itself, and a mistake in the code looks like a slow server.
    """

    async def main() -> Any:
        function: Any = None

        async def load(key: Any) -> Any:
            return await function(key)

        function = row.cached(load)
        caller = _task(function, "k")
        return (await _settled(caller, what="a load asked for its own key", patience=3))[0]

    got = _run(main)
    if not isinstance(got, Exception):
        raise DoesNotHold(f"a load that asks for its own key: the caller got {_named(got)}")
    return once(f"refused by {type(got).__name__}")


@FAMILY.check(
    "Two loads that need each other",
    uses=("cached",),
    reproduction="""
import asyncio
async def load(key):
    return await f({"a": "b", "b": "a"}[key])
f = cached(load)
async def main():
    caller = asyncio.ensure_future(f("a"))
    await asyncio.wait([caller], timeout=3)
    assert caller.done(), "a load of a that asks for b, whose load asks for a, waits after 3 s"
asyncio.run(main())
""",
)
def circle(row: type[AsyncCache]) -> Holds:
    """A load of a that asks for b, whose load asks for a, is refused with an exception.

    Otherwise each waits for the other, and so does every later caller of either key.
    """

    async def main() -> Any:
        function: Any = None

        async def load(key: Any) -> Any:
            return await function({"a": "b", "b": "a"}[key])

        function = row.cached(load)
        caller = _task(function, "a")
        what = "a load of a asked for b, whose load asked for a"
        return (await _settled(caller, what=what, patience=3))[0]

    got = _run(main)
    if not isinstance(got, Exception):
        raise DoesNotHold(f"two loads that ask for each other: the caller got {_named(got)}")
    return once(f"refused by {type(got).__name__}")


@FAMILY.check(
    "A slow load blocks no other",
    plain=True,
    uses=("cached",),
    reproduction="""
import asyncio
async def load(key):
    if key == "slow": await asyncio.sleep(8)
    return key
f = cached(load)
async def main():
    slow = asyncio.ensure_future(f("slow"))
    await asyncio.sleep(0.1)
    quick = asyncio.ensure_future(f("quick"))
    done, waiting = await asyncio.wait([quick], timeout=4)
    return bool(done)
assert asyncio.run(main()), "while one key loaded for 8 s, a call for another one took over 4 s"
""",
)
def other_keys(row: type[AsyncCache]) -> Holds:
    """While one key loads, others are found and loaded.

    Otherwise one slow query stops everything that goes through the cache.
    """

    async def main() -> list[Any]:
        gate = asyncio.Event()

        async def load(key: Any) -> Any:
            if key == "slow":
                await gate.wait()
            return key

        function = row.cached(load)
        await function("stored")
        slow = _task(function, "slow")
        await asyncio.sleep(0.1)
        others = [_task(function, key) for key in ("stored", "quick")]
        got = await _settled(*others, what="one key was loading")
        gate.set()
        return got + await _settled(slow, what="its load has ended")

    got = _run(main)
    if got != ["stored", "quick", "slow"]:
        raise DoesNotHold(f"while one key loaded, callers got {[_named(each) for each in got]}")
    return once("two other keys, one stored and one new, while the first one loaded")


@FAMILY.check(
    "Invalidation during a load",
    uses=("cached", "invalidate"),
    reports={"aiocache": "https://github.com/aio-libs/aiocache/issues/95"},
    reproduction="""
import asyncio
database = {"k": "old"}
async def load(key): return await asyncio.sleep(0.5, database[key])
f = cached(load)
async def main():
    reader = asyncio.ensure_future(f("k"))
    await asyncio.sleep(0.1)
    database["k"] = "new"
    if done := invalidate(f, "k"): await done
    return await reader, await f("k")
got = asyncio.run(main())
assert got[1] == "new", f"the key was dropped during a load, a later caller still got {got[1]}"
""",
)
def invalidation(row: type[AsyncCache]) -> Holds:
    """A key that is dropped while it loads does not keep the value of that load.

    Otherwise a request that changes the database and drops the key still finds the old value.
    """
    stored = ["old"]

    async def main() -> Any:
        gate = asyncio.Event()

        async def load(key: Any) -> Any:
            value = stored[0]
            await gate.wait()
            return value

        function = row.cached(load)
        reader = _task(function, "k")
        await asyncio.sleep(0.1)
        stored[0] = "new"
        await asyncio.wait_for(_invalidate(row, function, "k"), _PATIENCE)
        gate.set()
        await _settled(reader, what="the key was dropped during its load")
        await _turns()
        later = _task(function, "k")
        return (await _settled(later, what="the key was dropped, and asked for again"))[0]

    got = _run(main)
    if got != "new":
        raise DoesNotHold(f"the key was dropped during a load; a later caller got {_named(got)}")
    return once("a later caller got the new value")


@FAMILY.check(
    "A late failure drops nothing newer",
    uses=("cached", "invalidate"),
    reproduction="""
import asyncio
calls = []
async def load(key):
    calls.append(key)
    if len(calls) > 1: return f"value {len(calls)}"
    await asyncio.sleep(0.5)
    raise ValueError("the old load")
f = cached(load)
async def main():
    old = asyncio.ensure_future(f("k"))
    await asyncio.sleep(0.1)
    if done := invalidate(f, "k"): await done
    return await f("k"), await asyncio.wait([old]), await f("k")
newer, _, later = asyncio.run(main())
assert newer == later, f"{newer!r} was stored, then a dropped load failed, and it was {later!r}"
""",
)
def late_failure(row: type[AsyncCache]) -> Holds:
    """A load of a dropped key that fails late leaves the newer value where it is.

    Otherwise a value that was just loaded is loaded again, in the moment when the source fails.
    """
    calls: list[Any] = []

    async def main() -> tuple[Any, Any]:
        gate = asyncio.Event()

        async def load(key: Any) -> Any:
            calls.append(key)
            mine = len(calls)
            if mine == 1:
                await gate.wait()
                raise ValueError("the old load")
            return f"value {mine}"

        function = row.cached(load)
        old = _task(function, "k")
        await asyncio.sleep(0.1)
        await asyncio.wait_for(_invalidate(row, function, "k"), _PATIENCE)
        newer = _task(function, "k")
        await asyncio.sleep(0.1)
        if not newer.done():
            # Who came after the invalidation waits for the old load, which is not asked here.
            gate.set()
            await _settled(old, newer, what="the key was dropped, and asked for again")
            newer = _task(function, "k")
        first = (await _settled(newer, what="the key was dropped, and asked for again"))[0]
        gate.set()
        await _settled(old, what="the old load raised")
        await _turns()
        later = (await _settled(_task(function, "k"), what="the old load raised"))[0]
        return first, later

    first, later = _run(main)
    if first != later or not isinstance(first, str):
        raise DoesNotHold(
            f"{_named(first)} was stored; after a dropped load had failed, it was {_named(later)}"
        )
    return once(f"{first} stayed; {len(calls)} loads")


@FAMILY.check(
    "One loop after another",
    uses=("cached",),
    reproduction="""
import asyncio
async def load(key):
    await asyncio.sleep(0.1)
    return "value"
f = cached(load)
async def main():
    return await asyncio.gather(f("k"), f("k"), f("j"), f("j"), return_exceptions=True)
asyncio.run(main())
got = asyncio.run(main())
assert got == ["value"] * 4, f"in the second asyncio.run: {got}"
""",
)
def two_loops(row: type[AsyncCache]) -> Holds:
    """A decorated function can be used in one asyncio.run after another.

    Tests, scripts and workers do so: each of them has a loop of its own.
    """

    async def load(key: Any) -> Any:
        await asyncio.sleep(0.01)
        return f"value of {key}"

    function = row.cached(load)

    def use(*keys: str) -> list[Any]:
        async def main() -> list[Any]:
            tasks = [_task(function, key) for key in keys]
            return await _settled(*tasks, what="a second asyncio.run")

        return asyncio.run(main())

    use("a", "a", "b")
    got = use("a", "a", "b", "c", "c")
    if got != [f"value of {key}" for key in "aabcc"]:
        raise DoesNotHold(
            f"in the second asyncio.run, callers got {[_named(each) for each in got]}"
        )
    return once("found and loaded in a second asyncio.run")


@FAMILY.check(
    "Two caches with equal keys",
    uses=("cached",),
    reproduction="""
import asyncio
async def first(key):
    await asyncio.sleep(0.2)
    return "first"
async def second(key):
    await asyncio.sleep(0.4)
    return "second"
f, g = cached(first), cached(second)
async def main():
    return await asyncio.gather(f("k"), g("k"), return_exceptions=True)
got = asyncio.run(main())
assert got == ["first", "second"], f"two functions, one key: {got}"
""",
)
def same_key_two_caches(row: type[AsyncCache]) -> Holds:
    """Two functions, each with a cache of its own, load an equal key at the same time.

    User 7 and order 7 have nothing to do with each other.
    """

    async def main() -> list[Any]:
        gates = {"first": asyncio.Event(), "second": asyncio.Event()}

        async def first(key: Any) -> Any:
            await gates["first"].wait()
            return "first"

        async def second(key: Any) -> Any:
            await gates["second"].wait()
            return "second"

        f, g = row.cached(first), row.cached(second)
        tasks = [_task(f, "k"), _task(g, "k")]
        await asyncio.sleep(0.1)
        gates["first"].set()
        await asyncio.sleep(0.1)
        gates["second"].set()
        got = await _settled(*tasks, what="two functions loaded an equal key")
        again = await _settled(_task(f, "k"), _task(g, "k"), what="both were loaded")
        return got + again

    got = _run(main)
    if got != ["first", "second"] * 2:
        raise DoesNotHold(f"two functions, one key: callers got {[_named(each) for each in got]}")
    return once("both got their own value")
