"""What one expects of a function that runs over many items."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from peers.adapters.parallel import Mapper
from peers.checks import Family
from peers.outcomes import DoesNotHold, Holds, NotOffered, once, sampled, together

FAMILY = Family("parallel", "A function over many items")
_LIMIT = 4
_NAME = ContextVar("_NAME", default="unset")


class _Counts:
    """Calls of a function: how many have begun, run now, and ran at once at most."""

    def __init__(self) -> None:
        self.begun = self.running = self.most = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.begun += 1
            self.running += 1
            self.most = max(self.most, self.running)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.running -= 1

    def reached(self, number: int, deadline: float = 5.0) -> bool:
        """Wait until so many have begun."""
        end = time.monotonic() + deadline
        while self.begun < number and time.monotonic() < end:
            time.sleep(0.005)
        return self.begun >= number


def _outcome(call: Callable[[], Any], deadline: float = 15.0) -> Any:
    """What the call returns or raises, in a thread with a deadline."""
    result = together(call, deadline=deadline)[0]
    if isinstance(result, NotOffered):
        raise result
    return result


def _interrupted(call: Callable[[], Any], ready: Callable[[], Any]) -> BaseException | None:
    """What comes out of the call in this, the main thread, with a Ctrl-C once it is ready."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs
    main = threading.main_thread().ident
    assert main == threading.get_ident()

    def press() -> None:
        ready()
        time.sleep(0.5)  # until all are handed out, and the call waits
        signal.pthread_kill(main, signal.SIGINT)  # pyright: ignore[reportArgumentType]

    threading.Thread(target=press, daemon=True).start()
    try:
        call()
    except BaseException as error:
        return error
    return None


@FAMILY.check("The adapter works")
def adapter_sound(row: type[Mapper]) -> Holds:
    """A function runs over items, two of them at the same time, and each result is there.

    Otherwise no other cell of the row says anything.
    """
    meeting = threading.Barrier(2)

    def double(item: int) -> int:
        if item < 2:
            meeting.wait(5)
        return item * 2

    results = _outcome(lambda: row.over(double, range(20)))
    if not isinstance(results, list) or sorted(results) != [item * 2 for item in range(20)]:
        raise DoesNotHold(f"over 20 items: {results!r}")
    told = ["over"]
    try:
        results = row.settled(double, range(2, 6))
        if results != [4, 6, 8, 10]:
            raise DoesNotHold(f"settled: {results!r}")
        told.append("settled")
    except NotOffered:
        pass

    async def main() -> Any:
        pair, met = asyncio.Barrier(2), []

        async def twice(item: int) -> int:
            if item < 2:
                met.append(await asyncio.wait_for(pair.wait(), 5))
            return item * 2

        return sorted(await row.gather(twice, range(6)))

    try:
        results = asyncio.run(main())
        if results != [0, 2, 4, 6, 8, 10]:
            raise DoesNotHold(f"gather: {results!r}")
        told.append("gather")
    except NotOffered:
        pass
    return once(", ".join(told))


@FAMILY.check(
    "Results in the items' order",
    uses=("over",),
    reproduction="""
import time
def slower(item):
    time.sleep(1 - item / 3)
    return item
results = over(slower, range(4))
assert list(results) == [0, 1, 2, 3], f"the results of 0, 1, 2, 3 came as {results}"
""",
)
def order(row: type[Mapper]) -> Holds:
    """The results come in the order of the items, whichever is done first.

    Then a result belongs to its item by its place, and `zip` puts them together.
    """
    last = threading.Event()

    def wait(item: int) -> int:
        if item == 0:
            last.wait(5)
        elif item == 3:
            last.set()
        return item

    results = _outcome(lambda: row.over(wait, range(30)))
    if list(results) != list(range(30)):
        raise DoesNotHold(f"the results of 0, 1, 2, … came as {str(results)[:60]}…")
    return once("the first item was done last")


@FAMILY.check(
    "Items are drawn as needed",
    uses=("over",),
    reports={"stdlib": "https://github.com/python/cpython/issues/74508"},
    reproduction="""
import threading
ended, early = threading.Event(), []
def items():
    yield from range(5000)
    ended.set()
over(lambda item: early.append(ended.wait(1)), items())
assert not early[0], "all 5,000 items were drawn before the first was done"
""",
)
def lazy_input(row: type[Mapper]) -> Holds:
    """While no item is done, only a bounded number of items is drawn from an iterator.

    Otherwise a file or a query of a million rows is in memory as a whole, and an endless one
    never starts to give results.
    """
    if row.wants_sequence:
        raise NotOffered(row.wants_sequence)
    taken, enough, seen = [], threading.Event(), []

    def items() -> Iterator[int]:
        for item in range(5000):
            taken.append(item)
            yield item
        enough.set()

    def wait(item: int) -> int:
        enough.wait(1.5)
        seen.append(len(taken))
        enough.set()
        return item

    error = _outcome(lambda: row.over(wait, items()), deadline=40)
    if isinstance(error, BaseException):
        raise DoesNotHold(f"{type(error).__name__}: {error}")
    if seen[0] >= 5000:
        raise DoesNotHold("all 5,000 items were drawn before the first was done")
    return once(f"{seen[0]} of 5,000 items were drawn before the first was done")


@FAMILY.check("The others' results remain")
def others_results(row: type[Mapper]) -> Holds:
    """Where one item fails, one can ask for the results of all others, and for the error.

    Otherwise one bad row in a thousand costs the work on the 999, unless the function catches
    all itself.
    """
    wrong = ValueError(3)

    def fail(item: int) -> int:
        if item == 3:
            raise wrong
        return item

    results = _outcome(lambda: row.settled(fail, range(10)))
    if not isinstance(results, list):
        raise DoesNotHold(f"{type(results).__name__} came out, and no result")
    if results != [0, 1, 2, wrong, *range(4, 10)]:
        raise DoesNotHold(f"instead of nine results and an error: {results}")
    return once("nine results, and the error at its place")


@FAMILY.check(
    "Its own exception comes out",
    uses=("over",),
    reproduction="""
def fail(item):
    raise KeyError("mine")
try:
    over(fail, range(5))
except BaseException as error:
    assert isinstance(error, KeyError), f"`except KeyError` does not catch {error!r}"
""",
)
def error_type(row: type[Mapper]) -> Holds:
    """What a failing item raises comes out of the call as it is.

    Then `except KeyError` around the call catches the KeyError of an item.
    """
    mine = KeyError("mine")

    def fail(item: int) -> int:
        if item == 3:
            raise mine
        return item

    error = _outcome(lambda: row.over(fail, range(5)))
    if error is mine:
        return once("the very exception")
    if isinstance(error, KeyError):
        return once("a KeyError, though another object")
    raise DoesNotHold(f"the KeyError of an item comes out as {error!r}"[:200])


@FAMILY.check(
    "A failure stops the rest",
    uses=("over",),
    reports={"stdlib": "https://github.com/python/cpython/issues/130975"},
    reproduction="""
import time
begun = []
def work(item):
    begun.append(item)
    if item == 0:
        raise ValueError("the first item fails")
    time.sleep(0.01)
try:
    over(work, range(400))
except Exception:
    pass
assert len(begun) < 400, "after the first item had failed, all the other 399 were run"
""",
)
def failure_stops(row: type[Mapper]) -> Holds:
    """Where the call ends with a failure, it does not run all other items before it says so.

    Otherwise a wrong password is tried on each of a thousand servers.
    """
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 0:
            raise ValueError("the first item fails")
        time.sleep(0.01)
        return item

    error = _outcome(lambda: row.over(work, range(400)))
    if not isinstance(error, Exception):
        raise DoesNotHold(f"no failure came out, but {str(error)[:60]}")
    if len(begun) >= 400:
        raise DoesNotHold("after the first item had failed, all the other 399 were run")
    return once(f"{len(begun)} of 400 items had begun when the failure came out")


@FAMILY.check(
    "A failure leaves nothing running",
    uses=("over",),
    reports={"joblib": "https://github.com/joblib/joblib/issues/1304"},
    reproduction="""
import threading, time
running, met = set(), threading.Barrier(4)
def work(item):
    met.wait(5)
    if item == 0:
        raise ValueError("it fails")
    running.add(item)
    time.sleep(3)
    running.discard(item)
try:
    over(work, range(4))
except Exception:
    time.sleep(0.5)
assert not running, f"the failure has come out while items {running} still run"
""",
)
def failure_leaves_none(row: type[Mapper]) -> Holds:
    """When a failure comes out, no other item still runs.

    Otherwise the files and connections that are closed after the call are still in use.
    """
    counts, met, gate = _Counts(), threading.Barrier(_LIMIT), threading.Event()

    def work(item: int) -> None:
        with counts:
            met.wait(5)
            if item == 0:
                raise ValueError("it fails")
            gate.wait(3)

    error = _outcome(lambda: row.over(work, range(_LIMIT)))
    left = counts.running
    gate.set()
    if not isinstance(error, Exception):
        raise DoesNotHold(f"no failure came out, but {error!r}")
    if left:
        raise DoesNotHold(f"the failure has come out while {left} items still run")
    return once("it waited for three items")


@FAMILY.check(
    "A failing iterator ends the call",
    plain=True,
    uses=("over",),
    reproduction="""
import threading
def items():
    yield from range(20)
    raise ValueError("the source fails")
came = []
def call():
    try:
        over(str, items())
    except Exception as error:
        came.append(error)
thread = threading.Thread(target=call, daemon=True)
thread.start()
thread.join(5)
assert not thread.is_alive(), "the iterator has failed, and the call waits forever"
assert came, "the iterator has failed, and the call returned as if it had ended"
""",
)
def source_raises(row: type[Mapper]) -> Holds:
    """An iterator of items that raises ends the call with its error.

    Otherwise a broken file looks like a short one, or the program stands still.
    """
    mine = ValueError("the source fails")

    def items() -> Iterator[int]:
        yield from range(20)
        raise mine

    error = _outcome(lambda: row.over(str, items()), deadline=5)
    if not isinstance(error, BaseException):
        raise DoesNotHold("the iterator has failed, and the call returned as if it had ended")
    if error is mine:
        return once("its error")
    return once(f"{type(error).__name__}: {error}")


@FAMILY.check(
    "Context variables are seen",
    uses=("over",),
    reproduction="""
import contextvars
name = contextvars.ContextVar("name", default="unset")
name.set("mine")
seen = set(over(lambda item: name.get(), range(6)))
assert seen == {"mine"}, f"the caller has set 'mine', the function sees {seen}"
""",
)
def context(row: type[Mapper]) -> Holds:
    """The function sees the context variables of the caller.

    Request numbers in logs, the language, a transaction: all are kept in them.
    """

    def call() -> Any:
        _NAME.set("mine")
        return row.over(lambda _: _NAME.get(), range(6))

    seen = _outcome(call)
    if not isinstance(seen, list) or set(seen) != {"mine"}:
        raise DoesNotHold(f"the caller has set 'mine', the function sees {seen}")
    return once("six items saw the caller's value")


@FAMILY.check("A call in a call works", plain=True)
def nested(row: type[Mapper]) -> Holds:
    """The function may use the same way in turn.

    A bounded pool that both share would wait for itself.
    """

    def outer(item: int) -> int:
        return sum(row.over(lambda inner: inner + item, range(4), 2))

    results = _outcome(lambda: row.over(outer, range(8), 2), deadline=20)
    if isinstance(results, BaseException):
        raise DoesNotHold(f"{type(results).__name__}: {results}")
    if sorted(results) != [6 + 4 * item for item in range(8)]:
        raise DoesNotHold(f"wrong results: {results}")
    return once("eight calls in a call, two at once")


@FAMILY.check("Never more than the limit", plain=True)
def limit_kept(row: type[Mapper]) -> Holds:
    """No more items run at once than one allows.

    The limit is what the other side bears: connections, licences, memory.
    """
    most = 0
    for _ in range(3):
        counts = _Counts()

        def work(item: int, counts: _Counts = counts) -> int:
            with counts:
                time.sleep(0.002)
            return item

        error = _outcome(lambda work=work: row.over(work, range(200), _LIMIT))  # type: ignore[misc]
        if isinstance(error, BaseException):
            raise DoesNotHold(f"{type(error).__name__}: {error}")
        most = max(most, counts.most)
    if most > _LIMIT:
        raise DoesNotHold(f"{most} items ran at once, where {_LIMIT} were allowed")
    return sampled(3, f"at most {most} of 200 items ran at once")


@FAMILY.check("Threads do not pile up", plain=True)
def threads_left(row: type[Mapper]) -> Holds:
    """Call after call, failing ones too, leaves no further thread.

    What a library keeps once for all calls is told, and is no fault.
    """

    def fail(item: int) -> int:
        if item == 5:
            raise ValueError(item)
        return item

    def call() -> None:
        row.over(lambda item: item, range(8))
        try:
            row.over(fail, range(8))
        except Exception:
            return

    before = threading.active_count()
    call()
    time.sleep(0.3)
    kept = threading.active_count()
    for _ in range(10):
        call()
    end = time.monotonic() + 5
    while threading.active_count() > kept and time.monotonic() < end:
        time.sleep(0.05)
    more = threading.active_count() - kept
    if more > 0:
        raise DoesNotHold(f"{more} more threads after 20 more calls")
    return once(f"{max(0, kept - before)} threads kept after the first calls, none more after 20")


@FAMILY.check(
    "Ctrl-C stops the rest",
    uses=("over",),
    reports={"stdlib": "https://github.com/python/cpython/issues/130975"},
    reproduction="""
import os, signal, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)
begun = []
def work(item):
    begun.append(item)
    time.sleep(0.02)
threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    over(work, range(400))
except KeyboardInterrupt:
    assert len(begun) < 400, "all 400 items were run before KeyboardInterrupt came out"
""",
)
def ctrl_c(row: type[Mapper]) -> Holds:
    """Ctrl-C ends the call with KeyboardInterrupt, and no further item begins.

    A run over ten thousand items is started with a wrong argument now and then.
    """
    counts, gate = _Counts(), threading.Event()

    def work(_: int) -> None:
        with counts:
            gate.wait(5)
            time.sleep(0.02)

    def ready() -> None:
        counts.reached(_LIMIT)
        threading.Timer(0.8, gate.set).start()

    error = _interrupted(lambda: row.over(work, range(200)), ready)
    begun, running = counts.begun, counts.running
    gate.set()
    if not isinstance(error, KeyboardInterrupt):
        raise DoesNotHold(f"not KeyboardInterrupt came out, but {error!r}")
    if begun >= 200:
        raise DoesNotHold("all 200 items were run before KeyboardInterrupt came out")
    time.sleep(0.5)
    if counts.begun > begun:
        raise DoesNotHold(f"{counts.begun - begun} items began after KeyboardInterrupt")
    return once(f"{begun} of 200 items had begun; {running} still ran when it came out")


@FAMILY.check(
    "Ctrl-C waits for no item",
    uses=("over",),
    reports={"stdlib": "https://github.com/python/cpython/issues/111358"},
    reproduction="""
import os, signal, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
began = time.monotonic()
try:
    over(lambda item: time.sleep(5), range(4))
except KeyboardInterrupt:
    took = time.monotonic() - began
assert took < 4, f"Ctrl-C came after 1 s, KeyboardInterrupt came out after {took:.1f} s"
""",
)
def ctrl_c_stuck(row: type[Mapper]) -> Holds:
    """Ctrl-C comes out at once, though items wait for a server that does not answer.

    Otherwise the program seems to ignore it. The price is that those items still run in their
    threads when KeyboardInterrupt is handled; who must not have that needs them waited for.
    """
    counts, gate = _Counts(), threading.Event()

    def stuck(_: int) -> None:
        with counts:
            gate.wait(20)

    def ready() -> None:
        counts.reached(_LIMIT)
        threading.Timer(4, gate.set).start()

    error = _interrupted(lambda: row.over(stuck, range(_LIMIT)), ready)
    late, running = gate.is_set(), counts.running
    gate.set()
    if not isinstance(error, KeyboardInterrupt):
        raise DoesNotHold(f"not KeyboardInterrupt came out, but {error!r}")
    if late:
        raise DoesNotHold("KeyboardInterrupt came out only when the items were done, after 4 s")
    return once(f"it came out while {running} items still ran")


def _left_behind(row: type[Mapper], *, cancel: bool) -> tuple[int, BaseException | None]:
    """How many items of a cancelled or failing async call run on when it has ended, and how."""
    running: set[int] = set()

    async def main() -> tuple[int, BaseException | None]:
        begun, gate = asyncio.Semaphore(0), asyncio.Event()

        async def work(item: int) -> None:
            running.add(item)
            try:
                begun.release()
                if item == 0 and not cancel:
                    await gate.wait()
                    raise ValueError("it fails")
                await asyncio.sleep(5)
            finally:
                try:
                    if item:
                        await asyncio.sleep(0.2)  # its clean-up, which may be cut short
                finally:
                    running.discard(item)

        task = asyncio.ensure_future(row.gather(work, range(10), _LIMIT))
        for _ in range(_LIMIT):
            await asyncio.wait_for(begun.acquire(), 5)
        if cancel:
            task.cancel()
        else:
            gate.set()
        await asyncio.wait({task}, timeout=4)
        if not task.done():
            raise DoesNotHold("the call has not ended after 4 s")
        left = len(running)
        return left, asyncio.CancelledError() if task.cancelled() else task.exception()

    return asyncio.run(main())


_ASYNC_REPRODUCTION = """
import asyncio
running = set()
async def work(item):
    running.add(item)
    await asyncio.sleep(item)
    running.discard(item)
    1 / item  # the first one fails
async def main():
    task = asyncio.ensure_future(gather(work, range(4)))
    await asyncio.wait({task})
    assert not running, f"the failure has come out while items {running} still run"
asyncio.run(main())
"""


@FAMILY.check(
    "Cancelled, nothing runs on",
    uses=("gather",),
    reproduction="""
import asyncio
ended = []
async def work(item):
    try:
        await asyncio.sleep(9)
    finally:
        await asyncio.sleep(item)
        ended.append(item)
async def main():
    await asyncio.wait([asyncio.ensure_future(asyncio.wait_for(gather(work, range(4)), 1))])
    assert len(ended) == 4, f"of four cancelled items only {ended} had ended when the call did"
asyncio.run(main())
""",
)
def cancelled_leaves_none(row: type[Mapper]) -> Holds:
    """When an awaited call is cancelled, its items are cancelled, and end before it does.

    Otherwise what a timed-out request has begun goes on behind its back.
    """
    left, error = _left_behind(row, cancel=True)
    if not isinstance(error, asyncio.CancelledError):
        raise DoesNotHold(f"it was cancelled, and ended with {error!r}")
    if left:
        raise DoesNotHold(f"the cancelled call has ended while {left} items still run")
    return once("none of four items ran when the cancelled call ended")


@FAMILY.check(
    "Failed, no async item runs on",
    uses=("gather",),
    reports={"stdlib": "https://github.com/python/cpython/issues/75633"},
    reproduction=_ASYNC_REPRODUCTION,
)
def failed_async_leaves_none(row: type[Mapper]) -> Holds:
    """When an awaited call fails, its other items are cancelled, and end before it does.

    Otherwise they use what the caller closes after the failure, and their own failures are
    told to nobody.
    """
    left, error = _left_behind(row, cancel=False)
    if error is None:
        # The failure is told otherwise: as a result of its item.
        return once("the failure is a result among others")
    if left:
        raise DoesNotHold(f"the failure has come out while {left} items still run")
    return once("none of three other items ran when the failure came out")
