"""What one expects of a queue within one process."""

import asyncio
import inspect
import itertools
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers.adapters.queues import WorkQueue
from peers.checks import Family
from peers.outcomes import (
    DoesNotHold,
    Holds,
    NotExplored,
    NotOffered,
    explore,
    once,
    raise_first,
    sampled,
    settle,
    spawned,
)

FAMILY = Family("queues", "Queues in one process")


def _settle(
    row: type[WorkQueue], *calls: Callable[[], Any], deadline: float = 5.0
) -> tuple[list[Any], int]:
    """Each call in a thread or task of its own: what they return or raise; how many still wait."""
    if not row.asynchronous:
        return settle(*calls, deadline=deadline)

    async def go(call: Callable[[], Any]) -> Any:
        try:
            result = call()
            return await result if inspect.isawaitable(result) else result
        except Exception as error:
            return error

    async def scene() -> tuple[list[Any], int]:
        tasks = [asyncio.create_task(go(call)) for call in calls]
        _, waiting = await asyncio.wait(tasks, timeout=deadline)
        return [None if task in waiting else task.result() for task in tasks], len(waiting)

    return asyncio.run(scene())


def _later(row: type[WorkQueue], seconds: float, call: Callable[[], object]) -> Callable[[], Any]:
    """The call after so many seconds, in which the others come to wait."""

    def plainly() -> None:
        time.sleep(seconds)
        call()

    async def asynchronously() -> None:
        await asyncio.sleep(seconds)
        call()

    return asynchronously if row.asynchronous else plainly


def _threads(row: type[WorkQueue]) -> None:
    if row.asynchronous:
        raise NotOffered("it is for one event loop, not for threads")


def _drained(row: type[WorkQueue], q: Any) -> list[Any]:
    """All that is there."""
    found = []
    while (item := row.get(q)) is not None:
        found.append(item)
    return found


def _warm(row: type[WorkQueue]) -> None:
    """Whatever it imports or makes at its first use is there."""
    q = row.new()
    row.put(q, "warm")
    row.get(q)


def _many(row: type[WorkQueue], run: Callable[[], None]) -> int:
    """Run it often, with threads that change often; returns how often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(row.runs):
            run()
    finally:
        sys.setswitchinterval(before)
    return row.runs


@FAMILY.check("The adapter works")
def adapter_sound(row: type[WorkQueue]) -> Holds:
    """Each of its functions does what it is for while nothing else goes on.

    It shows that a failure elsewhere is not the fault of how the library is used here.
    """
    q = row.new()
    seen = [row.get(q)]
    for item in ("a", "b"):
        row.put(q, item)
    seen += [row.get(q), row.get(q), row.get(q)]
    if seen != [None, "a", "b", None]:
        raise DoesNotHold(f"empty, put a, put b, three times get: {seen}")
    offered = []

    def ask(what: str, use: Callable[[], bool]) -> None:
        try:
            if not use():
                raise DoesNotHold(f"{what} does not do what it is for")
        except NotOffered:
            return
        offered.append(what)

    def waits() -> bool:
        row.put(q, "c")
        results, waiting = _settle(row, lambda: row.wait(q, 3.0))
        if isinstance(results[0], NotOffered):
            raise results[0]
        return not waiting and results == ["c"]

    def awaits() -> bool:
        async def scene() -> Any:
            mine = row.new()
            row.put(mine, "d")
            return await asyncio.wait_for(row.awaited(mine), 3.0)

        return bool(asyncio.run(scene()) == "d")

    def bounds() -> bool:
        row.put(row.bounded(2), "e")
        return True

    def closes() -> bool:
        row.close(q)
        return True

    def reclaims() -> bool:
        mine = row.new()
        row.put(mine, "f")
        first = row.get(mine)
        row.reclaim(mine)
        return bool(first == "f")

    ask("wait", waits)
    ask("awaited", awaits)
    ask("a bound", bounds)
    ask("reclaim", reclaims)
    ask("close", closes)
    return once(", ".join(["put and get", *offered]))


@dataclass
class _Call:
    """A put or get, and between which instants it ran."""

    began: int
    ended: int
    item: str | None  # put, or returned
    put: bool


def _explained(calls: Sequence[_Call], there: tuple[str | None, ...] = ()) -> bool:
    """Whether the calls did, in some order that they may have had, what they returned."""
    for call in calls:
        rest = [each for each in calls if each is not call]
        if any(each.ended < call.began for each in rest):
            continue  # another one was over before it began
        if call.put:
            left = (*there, call.item)
        elif call.item is None and not there:
            left = there
        elif call.item in there:
            left = tuple(each for each in there if each != call.item)
        else:
            continue
        if _explained(rest, left):
            return True
    return not calls


@FAMILY.check("Calls are atomic", deadline=150)
def linearizable(row: type[WorkQueue]) -> Holds:
    """Calls from several threads act as if they ran one after the other.

    Otherwise an item is given out twice, or is lost, or is not found though its put has returned.
    """
    _threads(row)
    _warm(row)

    def run(together: Callable[..., list[Any]]) -> None:
        q, instants, done = row.new(), itertools.count(), list[_Call]()

        def client(*steps: str) -> None:
            for step in steps:
                began, item = next(instants), step
                if step == "get":
                    item = row.get(q)
                else:
                    row.put(q, step)
                done.append(_Call(began, next(instants), item, step != "get"))

        raise_first(together(lambda: client("a", "get"), lambda: client("b", "get", "get")))
        if not _explained(done):
            told = [f"{'put' if each.put else 'get →'} {each.item}" for each in done]
            raise DoesNotHold(f"no order of the calls explains {', '.join(told)}")

    if row.explorable:
        return explore(lambda: run(spawned), row.explorable, granularity=row.granularity)

    def threads(*calls: Callable[[], Any]) -> list[Any]:
        results, waiting = settle(*calls)
        if waiting:
            raise DoesNotHold(f"{waiting} of {len(calls)} calls do not end")
        return results

    return sampled(_many(row, lambda: run(threads)), "an order of the calls explains each run")


@FAMILY.check(
    "No waiter sleeps beside an item",
    plain=True,
    deadline=150,
    uses=("new", "put", "wait"),
    reproduction="""
import sys
import threading
for at in range(1, 99):  # before each line of the waiting get in turn, an item is put
    q, left = new(), [at]
    putter = threading.Thread(target=put, args=(q, "job"), daemon=True)
    def line(frame, event, arg):
        left[0] -= 1
        if left[0] == 0: putter.start(); putter.join(1)
        return line
    waiter = threading.Thread(target=lambda: (sys.settrace(line), wait(q)), daemon=True)
    waiter.start(); waiter.join(5)
    assert left[0] > 0 or not waiter.is_alive(), f"put before line {at} of get, which sleeps on"
""",
)
def no_lost_wakeup(row: type[WorkQueue]) -> Holds:
    """Nobody waits for an item while one is there.

    A worker that sleeps beside its work looks like a program that hangs.
    """
    _warm(row)
    ready = row.new()
    row.put(ready, "x")
    results, _ = _settle(row, lambda: row.wait(ready, 3.0))
    if isinstance(results[0], NotOffered):
        raise results[0]

    def fill(q: Any) -> None:
        row.put(q, "a")
        row.put(q, "b")

    def look(results: list[Any], took: float) -> None:
        if took > 4.0:
            raise DoesNotHold(f"a waiter slept {took:.0f} s beside an item")
        raise_first(results)
        if sorted(results[:2]) != ["a", "b"]:
            raise DoesNotHold(f"a and b were put, two waiters got {results[:2]}")

    def run() -> None:
        q = row.new()
        calls = (lambda: row.wait(q), lambda: row.wait(q), lambda: fill(q))
        results, waiting = _settle(row, *calls, deadline=5.0)
        if waiting:
            raise DoesNotHold(f"{waiting} of 2 waiters still sleep 5 s after 2 items were put")
        look(results, 0.0)

    def alone() -> None:
        q, began = row.new(), time.monotonic()  # of the explorer, which passes only in waits
        results = spawned(lambda: row.wait(q), lambda: fill(q))
        look([*results[:1], row.get(q)], time.monotonic() - began)

    def pair() -> None:
        q, began = row.new(), time.monotonic()
        results = spawned(lambda: row.wait(q), lambda: row.wait(q), lambda: fill(q))
        look(results, time.monotonic() - began)

    if row.explorable:
        explore(alone, row.explorable, granularity="line")
        return explore(pair, row.explorable, granularity="line")
    if row.asynchronous:
        run()
        return once("two tasks that waited got two items")
    return sampled(_many(row, run), "two waiters got two items")


@FAMILY.check("The bound is exact", deadline=120)
def bounded(row: type[WorkQueue]) -> Holds:
    """Of two puts at the same time on the last place, one succeeds and one is refused.

    A bound is there to keep memory or a downstream service from being overrun.
    """
    row.bounded(1)
    _warm(row)

    def run(together: Callable[..., list[Any]]) -> None:
        q = row.bounded(1)
        results = together(lambda: row.put(q, "a"), lambda: row.put(q, "b"))
        refused = sum(isinstance(each, Exception) for each in results)
        if refused != 1 or len(_drained(row, q)) != 1:
            raise DoesNotHold(f"two puts on one place: {refused} of them refused")

    if row.explorable:
        return explore(lambda: run(spawned), row.explorable, granularity=row.granularity)
    if row.asynchronous:
        run(lambda *calls: _settle(row, *calls)[0])
        return once("two tasks, one put was refused")
    runs = _many(row, lambda: run(lambda *calls: settle(*calls)[0]))
    return sampled(runs, "of two puts one was refused")


@FAMILY.check(
    "Equals leave first in, first out",
    uses=("new", "put", "get"),
    reproduction="""
q = new()
for item in "dbca": put(q, item)
got = [get(q) for _ in range(4)]
assert got == list("dbca"), f"put d b c a at one priority, got {' '.join(got)}"
""",
)
def fifo_equal(row: type[WorkQueue]) -> Holds:
    """Items of one priority leave in the order in which they came.

    Without it an early item can wait for as long as later ones keep coming.
    """
    q, items = row.new(), list("dbca")
    for item in items:
        row.put(q, item)
    got = [row.get(q) for _ in items]
    if got != items:
        raise DoesNotHold(f"put d b c a at one priority, got {' '.join(map(str, got))}")
    return once("put d b c a, got d b c a")


@FAMILY.check(
    "Payloads need no order",
    reports={"stdlib": "https://github.com/python/cpython/issues/75328"},
    uses=("new", "put", "get"),
    reproduction="""
q = new()
seen = "nothing was raised"
try:
    for number in range(3): put(q, {"n": number})
except TypeError as error:
    seen = f"TypeError: {error}"
assert seen == "nothing was raised", f"three dicts were put: {seen}"
""",
)
def uncomparable(row: type[WorkQueue]) -> Holds:
    """Items that cannot be compared with each other can be put, and come out again.

    Otherwise the first two jobs of equal priority raise, which small tests do not see.
    """
    q, items = row.new(), [{"n": number} for number in range(3)]
    try:
        for item in items:
            row.put(q, item)
    except TypeError as error:
        raise DoesNotHold(f"three dicts were put: TypeError: {error}") from error
    got = _drained(row, q)
    if sorted(each["n"] for each in got) != [0, 1, 2]:
        raise DoesNotHold(f"three dicts were put, and came out as {got}")
    return once("three dicts came back")


@FAMILY.check(
    "A close lets waiters go",
    uses=("new", "wait", "close"),
    reproduction="""
import threading
q = new()
waiter = threading.Thread(target=wait, args=(q,), daemon=True)
waiter.start()
waiter.join(0.5)
close(q)
waiter.join(5)
assert not waiter.is_alive(), "a waiter still waits 5 s after the close"
""",
)
def close_releases(row: type[WorkQueue]) -> Holds:
    """Whoever waits for an item when the queue is closed is told so.

    Otherwise workers cannot be stopped, and the program does not end.
    """
    row.close(row.new())
    q = row.new()
    shut = _later(row, 0.3, lambda: row.close(q))
    results, waiting = _settle(row, lambda: row.wait(q), lambda: row.wait(q), shut)
    if isinstance(results[0], NotOffered):
        raise results[0]
    if waiting or isinstance(results[2], BaseException):
        raise DoesNotHold(f"{waiting} of 2 waiters still wait 5 s after the close")
    if not all(isinstance(each, Exception) for each in results[:2]):
        raise DoesNotHold(f"nothing was put, but waiters got {results[:2]}")
    return once(f"both waiters got {type(results[0]).__name__}")


@FAMILY.check(
    "A close keeps what was put",
    uses=("new", "put", "get", "close"),
    reproduction="""
q = new()
put(q, "job")
close(q)
try:
    got = get(q)
except Exception as error:
    got = f"{type(error).__name__}: {error}"
assert got == "job", f"a job was put, the queue closed; then get: {got}"
""",
)
def close_keeps(row: type[WorkQueue]) -> Holds:
    """What was put before the close can still be taken after it.

    Otherwise each restart loses the work that was accepted.
    """
    q = row.new()
    row.put(q, "job")
    row.close(q)
    try:
        got = row.get(q)
    except Exception as error:
        raise DoesNotHold(f"get after the close raised {type(error).__name__}") from error
    if got != "job":
        raise DoesNotHold(f"get after the close returned {got!r}: the item is gone")
    return once("the item was still given out")


def _timed(row: type[WorkQueue], q: Any, seconds: float, deadline: float) -> tuple[Any, float]:
    """What a wait with a timeout on an empty queue raised, and after how long."""
    began = time.monotonic()
    results, waiting = _settle(row, lambda: row.wait(q, seconds), deadline=deadline)
    took = time.monotonic() - began
    if isinstance(results[0], NotOffered):
        raise results[0]
    if waiting:
        raise DoesNotHold(f"a get with timeout={seconds} still waits after {deadline:g} s")
    if type(results[0]) is OSError:
        raise NotExplored(f"libfaketime does not go with how it waits: {results[0]}")
    if not isinstance(results[0], Exception):
        raise DoesNotHold(f"a get of an empty queue returned {results[0]!r}")
    return results[0], took


@FAMILY.check("A timed get ends in time")
def timed_get(row: type[WorkQueue]) -> Holds:
    """A get with a timeout raises once that has passed, neither early nor late.

    A deadline that does not hold makes every deadline above it wrong.
    """
    _timed(row, row.new(), 0.05, 5.0)
    _, took = _timed(row, row.new(), 0.3, 5.0)
    if not 0.28 < took < 2.5:
        raise DoesNotHold(f"a get with timeout=0.3 raised after {took:.2f} s")
    return once("it raised in time")


@FAMILY.check(
    "A clock set back is harmless",
    clock=True,
    uses=("new", "wait"),
    reproduction="""
import sys
import threading
import time
day, real = [0.0], [time.time]
for module in list(sys.modules.values()):  # whoever reads the wall clock reads one that is set
    for name, value in list(vars(module).items()):
        if value is real[0]: setattr(module, name, lambda: real[0]() - day[0])
waiter = threading.Thread(target=wait, args=(new(), 1.0), daemon=True)
waiter.start(); waiter.join(0.5)
day[0] = 86400.0  # back by a day
waiter.join(4)
assert not waiter.is_alive(), "a get with timeout=1 still waits after 4.5 s"
""",
)
def wall_clock(row: type[WorkQueue]) -> Holds:
    """A wall clock that is set back by a day does not lengthen a get with a timeout.

    Clocks are set after a suspend, by an administrator, and by NTP as a machine starts.
    """
    stamp = Path(os.environ["FAKETIME_TIMESTAMP_FILE"])
    q, before, begins = row.new(), time.time(), threading.Event()

    class Beginning(row):  # type: ignore[misc, valid-type]
        @staticmethod
        def wait(q: Any, timeout: float | None = None) -> Any:
            begins.set()
            return row.wait(q, timeout)

    def set_back() -> None:
        begins.wait(5)
        threading.Event().wait(0.4)  # time.sleep does not go with libfaketime
        fresh = stamp.with_suffix(".new")
        fresh.write_text("-86400s\n")
        fresh.replace(stamp)

    back = threading.Thread(target=set_back)
    back.start()
    _timed(Beginning, q, 1.0, 6.0)
    back.join()
    if time.time() > before - 80_000:
        raise NotExplored("the clock could not be set back")
    return once("it raised in time, though the clock was set back meanwhile")


@FAMILY.check("A dead worker's item returns")
def redelivery(row: type[WorkQueue]) -> Holds:
    """An item whose worker died with it can be had again.

    Otherwise each crash of a worker loses the job that it had.
    """
    q = row.new()
    row.put(q, "job")
    first = row.get(q)
    before = row.get(q)
    row.reclaim(q)
    again = row.get(q)
    if (first, before, again) != ("job", None, "job"):
        raise DoesNotHold(f"the job was taken and reclaimed; then get: {again!r}")
    return once("the item came back, and was with nobody else before")


@FAMILY.check(
    "Ctrl-C loses no item",
    reports={"stdlib": "https://github.com/python/cpython/issues/74174"},
    deadline=180,
    uses=("new", "put", "wait"),
    reproduction="""
import sys, threading
for at in range(1, 99):
    q, left, got = new(), [at], []
    def ctrl_c(frame, event, arg):  # raises where CPython runs signal handlers
        left[0] -= event in ("call", "c_return")
        if left[0] == 0: raise KeyboardInterrupt
    put(q, "job"); again = threading.Thread(target=lambda: got.append(wait(q, 3)), daemon=True)
    try: sys.setprofile(ctrl_c); wait(q, 1); break
    except KeyboardInterrupt: pass
    again.start(); again.join(4)
    assert got, f"get was interrupted at point {at}: the job is lost, or a lock kept"
""",
)
def interrupted(row: type[WorkQueue]) -> Holds:
    """A put or get that Ctrl-C interrupts loses no item and leaves no lock held.

    A signal handler may raise at any moment, also at the one between taking and returning.
    """
    from tests.kit.interrupts import Ending, Hang, elsewhere, patience, sweep

    if row.uninterrupted:
        raise NotExplored(row.uninterrupted)
    _warm(row)
    broken: list[str] = []
    points = 0

    def filled() -> Any:
        q = row.new()
        row.put(q, "old")
        return q

    def rest(q: Any) -> list[Any]:
        found = _drained(row, q)
        try:
            row.reclaim(q)
        except NotOffered:
            return found
        return found + _drained(row, q)

    def look(q: Any, ending: Ending, put: bool) -> None:
        try:
            left = elsewhere(rest, q)
        except Hang:
            raise DoesNotHold("a lock stays held, other threads hang") from None
        accepted = ["old"] if put or not ending.happened else []
        accepted += ["new"] if put and ending.happened else []
        if any(each not in left for each in accepted):
            raise DoesNotHold("an item is lost")

    def put(q: Any) -> None:
        row.put(q, "new")

    def get(q: Any) -> Any:
        return row.get(q)

    def wait(q: Any) -> Any:
        return row.wait(q, 1.0)

    def sweeps(name: str, call: Callable[[Any], Any]) -> None:
        """Stops at the first that does not hold: each that hangs takes seconds."""
        nonlocal points

        def check(q: Any, ending: Ending) -> None:
            look(q, ending, call is put)

        for attempt in sweep(filled, call, check, twice=False):
            place = "; ".join(attempt.where)
            if not place or str(Path(__file__).parents[1] / "adapters") in place:
                continue  # the last one, or in the adapter itself
            points += 1
            if attempt.error is not None:
                place = re.sub(r"/\S*/", "", place)
                broken.append(f"{name}, interrupted {place}: {attempt.error}")
                return

    with patience(2.0):
        sweeps("put", put)
        sweeps("get", get)
        q = filled()
        results, _ = _settle(row, lambda: row.wait(q, 1.0))
        if not isinstance(results[0], NotOffered):
            sweeps("a get that may wait", wait)
    if broken:
        raise DoesNotHold("; ".join(broken))
    return once(f"an exception at each of {points} points where CPython runs signal handlers")


@FAMILY.check(
    "A forked child can use it",
    uses=("new", "put", "wait"),
    reproduction="""
import os
import threading
q = new()
first, second = [threading.Thread(target=wait, args=(q,), daemon=True) for _ in "12"]
first.start(); first.join(0.5)
if os.fork() == 0:
    second.start(); second.join(0.5)
    put(q, "job"); second.join(4)
    os._exit(second.is_alive())
assert os.wait()[1] == 0, "in the child a thread waits beside the item that was put there"
""",
)
def fork(row: type[WorkQueue]) -> Holds:
    """A child that is forked while a thread waits for an item can use its copy of the queue.

    multiprocessing forks by default before Python 3.14, whatever other threads do.
    """
    _threads(row)
    _warm(row)
    q = row.new()
    ended: list[Any] = []

    def waits() -> None:
        try:
            ended.append(row.wait(q))
        except BaseException as error:
            ended.append(error)

    threading.Thread(target=waits, daemon=True).start()
    time.sleep(0.4)
    if ended and isinstance(ended[0], NotOffered):
        raise ended[0]
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            results, waiting = settle(
                lambda: row.wait(q), _later(row, 0.4, lambda: row.put(q, "job")), deadline=4.0
            )
            told = f"{waiting} calls hang" if waiting else repr(results[0])
        except BaseException as error:
            told = repr(error)
        os.write(write, told.encode())
        os._exit(0)
    os.close(write)
    end = time.monotonic() + 15
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise DoesNotHold("the child hangs")
        time.sleep(0.02)
    told = os.read(read, 4096).decode()
    if told != "'job'":
        raise DoesNotHold(f"in the child one thread waits and one puts: {told}")
    return once("in the child one thread waited, another put, and it got the item")


@FAMILY.check("A cancelled get loses no item")
def cancelled_get(row: type[WorkQueue]) -> Holds:
    """Of two tasks that wait for one item, cancelling either at any step loses nothing.

    Timeouts cancel: each that comes as an item arrives would lose it, or leave others asleep.
    """

    async def scene(first: bool, turns: int) -> None:
        q = row.new()
        waiters = [asyncio.ensure_future(row.awaited(q)) for _ in range(2)]
        for _ in range(5):
            await asyncio.sleep(0)
        if row.asynchronous:
            row.put(q, "job")
        else:
            await asyncio.to_thread(row.put, q, "job")
        for _ in range(turns):
            await asyncio.sleep(0)
        cancelled = waiters[0 if first else 1]
        cancelled.cancel()
        await asyncio.wait(waiters, timeout=3.0, return_when=asyncio.FIRST_COMPLETED)
        done, waiting = await asyncio.wait(waiters, timeout=3.0 if cancelled.cancelled() else 0.05)
        got = [each.result() for each in done if not each.cancelled()]
        for each in waiting:
            each.cancel()
        if got != ["job"]:
            left = row.get(q)
            lost = "is in the queue, and a task waits beside it" if left else "is lost"
            raise DoesNotHold(f"a get was cancelled {turns} steps after the put: the item {lost}")

    probe = row.new()
    row.put(probe, "x")

    async def asked() -> None:
        await row.awaited(probe)

    asyncio.run(asked())
    scenes = [(first, turns) for first in (True, False) for turns in range(8)]
    for each in scenes:
        asyncio.run(scene(*each))
    return once(f"either of two tasks cancelled 0 to 7 steps after the put: {len(scenes)} runs")
