"""What one expects of an event bus."""

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from peers.adapters.buses import RUNNER, Bus
from peers.checks import Family
from peers.outcomes import (
    DoesNotHold,
    Holds,
    NotOffered,
    explore,
    once,
    raise_first,
    sampled,
    settle,
    spawned,
)

FAMILY = Family("buses", "Event buses and signals")


def _until(condition: Callable[[], bool], row: type[Bus], bus: Any, deadline: float = 5.0) -> bool:
    """Wait for the handlers, in the loop where there is one; whether it came true."""
    end = time.monotonic() + deadline
    while not condition() and time.monotonic() < end:
        row.settle(bus)
        if not condition():
            time.sleep(0.01)
    return condition()


def _made(row: type[Bus], handler: Callable[[Any], Any]) -> Any:
    """The handler as one writes it for this bus."""
    return row.slow(handler, lambda _: 0.0)


def _over(row: type[Bus], bus: Any) -> None:
    """End its threads, where many buses are made."""
    with suppress(NotOffered):
        row.close(bus)


@contextmanager
def _captured() -> Iterator[Callable[[], str]]:
    """What the process writes to its standard error meanwhile, whoever writes it."""
    with tempfile.TemporaryFile() as file:
        before = os.dup(2)
        os.dup2(file.fileno(), 2)

        def text() -> str:
            sys.stderr.flush()
            return os.pread(file.fileno(), 1_000_000, 0).decode(errors="replace")

        try:
            yield text
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)


@FAMILY.check("The adapter works")
def adapter_sound(row: type[Bus]) -> Holds:
    """Each of its functions does what it is for while nothing else goes on.

    It shows that a failure elsewhere is not the fault of how the library is used here.
    """
    bus, first, second = row.new(), list[Any](), list[Any]()
    token = row.subscribe(bus, _made(row, first.append))
    row.subscribe(bus, _made(row, second.append))
    offered = ["subscribe and emit"]
    row.emit(bus, 1)
    if not _until(lambda: first == second == [1], row, bus):
        raise DoesNotHold(f"one event, two handlers: they saw {first} and {second}")
    try:
        row.unsubscribe(bus, token)
        offered.append("unsubscribe")
    except NotOffered:
        first.append(2)
    row.emit(bus, 2)
    if not _until(lambda: second == [1, 2], row, bus):
        raise DoesNotHold(f"two events: a handler saw {second}")
    try:
        row.close(bus)
        offered.append("close")
    except NotOffered:
        pass
    return once(", ".join(offered))


@FAMILY.check(
    "A raising handler harms no other",
    reports={"blinker": "https://github.com/pallets-eco/blinker/issues/10"},
    uses=("new", "subscribe", "emit"),
    reproduction="""
bus, got = new(), []
class Done: __await__ = lambda self: iter(())  # for those that await what a handler returns
def good(value): got.append(value); return Done()
def bad(value): raise ValueError("a handler's error")
handlers = [lambda _, n=n: good(n) for n in range(99)]
for handler in (*handlers[:50], bad, *handlers[50:]): subscribe(bus, handler)
try: emit(bus, 1)
except ValueError: pass
assert len(got) == 99, f"one handler raised, {len(got)} of the 99 others got the event"
""",
)
def raising_handler(row: type[Bus]) -> Holds:
    """Where one handler raises, the others still get the event.

    Otherwise a fault in one feature silently switches off the features after it.
    """

    def bad(_: Any) -> None:
        raise ValueError("a handler's error")

    for _ in range(20):  # some do not say in which order they call handlers
        bus, got = row.new(), list[str]()
        row.subscribe(bus, _made(row, lambda _: got.append("a")))
        row.subscribe(bus, _made(row, bad))
        row.subscribe(bus, _made(row, lambda _: got.append("b")))
        with _captured():
            with suppress(ValueError):
                row.emit(bus, 1)
            reached = _until(lambda: len(got) == 2, row, bus, 2.0)
            _over(row, bus)
        if not reached:
            raise DoesNotHold("one handler of three raised, another one did not get the event")
    return once("of three handlers one raised, both others got the event; 20 times")


@FAMILY.check(
    "An error is not lost silently",
    plain=True,
)
def error_reported(row: type[Bus]) -> Holds:
    """What a handler raises reaches the caller, a log or standard error.

    An error that nobody hears of is found by a customer.
    """
    mark = "an error with a mark of its own"

    def bad(_: Any) -> None:
        raise ValueError(mark)

    bus, raised = row.new(), list[str]()
    row.subscribe(bus, _made(row, bad))
    with _captured() as text:
        try:
            row.emit(bus, 1)
            _until(lambda: mark in text(), row, bus, 2.0)
            row.close(bus)
        except NotOffered:
            pass
        except Exception as error:
            raised.append(str(error))
        heard = mark in text()
    if raised and mark in raised[0]:
        return once("it was raised where the event was emitted")
    if not heard:
        raise DoesNotHold("nothing was raised, logged or written to standard error")
    return once("it was written to standard error")


@FAMILY.check("Once unsubscribed, not called", plain=True)
def unsubscribed_stays_out(row: type[Bus]) -> Holds:
    """A handler is not called for an event that is emitted after it was unsubscribed.

    What belongs to it has been closed by then: a file, a connection, a window.
    """
    bus, gone, stays = row.new(), list[Any](), list[Any]()
    token = row.subscribe(bus, _made(row, gone.append))
    row.subscribe(bus, _made(row, stays.append))
    row.emit(bus, 1)
    _until(lambda: gone == stays == [1], row, bus)
    row.unsubscribe(bus, token)
    row.emit(bus, 2)
    if not _until(lambda: stays == [1, 2], row, bus):
        raise DoesNotHold(f"the handler that stays saw {stays}, not 1 and 2")
    time.sleep(0.2)
    if gone != [1]:
        raise DoesNotHold(f"the handler that was unsubscribed after event 1 saw {gone}")
    return once("it saw the event before, not the one after")


@FAMILY.check(
    "It may unsubscribe in its call",
)
def unsubscribe_in_handler(row: type[Bus]) -> Holds:
    """A handler that unsubscribes itself takes no event from the others.

    It is how one waits for one event, and how one cleans up after it.
    """
    bus, first, others, tokens = row.new(), list[Any](), list[str](), list[Any]()

    def unsubscribing(value: Any) -> None:
        first.append(value)
        row.unsubscribe(bus, tokens[0])

    probe = row.new()
    row.unsubscribe(probe, row.subscribe(probe, _made(row, first.append)))
    tokens.append(row.subscribe(bus, _made(row, unsubscribing)))
    for name in "abc":
        handler = lambda value, name=name: others.append(f"{name}{value}")  # noqa: E731
        row.subscribe(bus, _made(row, handler))
    for each in (1, 2):
        row.emit(bus, each)
        expected = sorted(f"{name}{number}" for name in "abc" for number in range(1, each + 1))
        if not _until(lambda: sorted(others) == expected, row, bus, 3.0):
            raise DoesNotHold(f"a handler unsubscribed itself; then a, b and c saw {others}")
    if first != [1]:
        raise DoesNotHold(f"a handler unsubscribed itself as it saw event 1, and saw {first}")
    return once("it saw one event, three others both")


def _threads(row: type[Bus]) -> None:
    if row.asynchronous:
        raise NotOffered("it is for one event loop, not for threads")


@FAMILY.check(
    "Threads may subscribe meanwhile",
    deadline=120,
)
def subscribing_concurrently(row: type[Bus]) -> Holds:
    """Two threads subscribe while a third emits: nothing raises and no handler is lost.

    A handler that is lost as a program starts is missing until it ends.
    """
    _threads(row)

    def run(together: Callable[..., list[Any]], wait: bool) -> None:
        bus, got = row.new(), list[Any]()
        row.subscribe(bus, lambda _: None)
        results = together(
            lambda: row.subscribe(bus, lambda value: got.append((1, value))),
            lambda: row.subscribe(bus, lambda value: got.append((2, value))),
            lambda: row.emit(bus, "before"),
        )
        raise_first(results)
        row.emit(bus, "after")

        def both() -> bool:
            return {(1, "after"), (2, "after")} <= set(got)

        if not (_until(both, row, bus) if wait else both()):
            raise DoesNotHold(f"two threads subscribed, then an event: only {got} were called")
        if wait:
            _over(row, bus)

    warm = row.new()
    row.subscribe(warm, lambda _: None)
    row.emit(warm, 1)
    if row.explorable:
        return explore(lambda: run(spawned, False), row.explorable, granularity="line")
    for _ in range(100):
        run(lambda *calls: settle(*calls)[0], True)
    return sampled(100, "both were called by the next event")


@FAMILY.check(
    "Threads may unsubscribe meanwhile",
    deadline=120,
)
def unsubscribing_concurrently(row: type[Bus]) -> Holds:
    """One thread unsubscribes a handler while another emits: the other handler gets the event.

    Otherwise whoever leaves takes an event from whoever stays.
    """
    _threads(row)

    def run(together: Callable[..., list[Any]], wait: bool) -> None:
        bus, got = row.new(), list[Any]()
        token = row.subscribe(bus, lambda _: None)
        row.subscribe(bus, got.append)
        raise_first(together(lambda: row.unsubscribe(bus, token), lambda: row.emit(bus, 1)))
        if not (_until(lambda: bool(got), row, bus) if wait else got):
            raise DoesNotHold("a handler was unsubscribed, the other did not get the event")
        if wait:
            _over(row, bus)
        if got != [1]:
            raise DoesNotHold(f"a handler was unsubscribed, the other saw {got}")

    warm = row.new()
    row.unsubscribe(warm, row.subscribe(warm, lambda _: None))
    row.emit(warm, 1)
    if row.explorable:
        return explore(lambda: run(spawned, False), row.explorable)
    for _ in range(100):
        run(lambda *calls: settle(*calls)[0], True)
    return sampled(100, "the other handler got the event")


@FAMILY.check(
    "A handler sees events in order",
    uses=("new", "slow", "subscribe", "emit", "close"),
    reproduction="""
import time
bus, got = new(), []; subscribe(bus, slow(got.append, lambda value: 0.3 * (value == 0)))
for value in range(5): emit(bus, value)
close(bus)
assert got == [0, 1, 2, 3, 4], f"events 0 to 4 were emitted, a handler saw {got}"
""",
)
def order(row: type[Bus]) -> Holds:
    """One handler sees the events of one publisher in the order in which they were emitted.

    "created" after "deleted" leaves behind what was to be gone.
    """
    bus, got, events = row.new(), list[Any](), list(range(20))
    row.subscribe(bus, row.slow(got.append, lambda value: 0.1 if value % 7 == 0 else 0.0))
    for each in events:
        row.emit(bus, each)
    _until(lambda: len(got) == len(events), row, bus, 10.0)
    if sorted(got) != events:
        raise DoesNotHold(f"{len(events)} events were emitted, a handler saw {len(got)}")
    if got != events:
        raise DoesNotHold(
            "events 0, 1, 2 and more, of which each seventh takes longer, came out "
            f"of order: {', '.join(map(str, got[:4]))}"
        )
    return once(f"{len(events)} events in order, though each seventh took longer")


@FAMILY.check("A close lets handlers finish")
def close_drains(row: type[Bus]) -> Holds:
    """When close returns, the handlers have had each event that was emitted before.

    Otherwise the last events of each run are lost.
    """
    probe = row.new()
    row.close(probe)
    bus, got = row.new(), list[Any]()
    row.subscribe(bus, row.slow(got.append, lambda _: 0.05))
    for each in range(5):
        row.emit(bus, each)
    row.close(bus)
    if sorted(got) != list(range(5)):
        raise DoesNotHold(f"5 events were emitted, handlers had {len(got)} when close returned")
    return once("5 events, all handled when close returned")


@FAMILY.check(
    "The program ends, closed or not",
    plain=True,
    # Of browser-use, for which it was written.
    reports={"bubus": "https://github.com/browser-use/browser-use/pull/4112"},
    uses=("new", "emit", "end"),
    reproduction="""
import threading
bus = new()
emit(bus, 1)
ending = threading.Thread(target=end, args=(bus,), daemon=True)
ending.start(); ending.join(5)
assert not ending.is_alive(), "5 s after the main coroutine returned, asyncio.run still runs"
""",
)
def process_ends(row: type[Bus]) -> Holds:
    """A program that has used a bus and closes nothing comes to its end.

    A script that does not end holds up whatever runs it: a terminal, a pipeline, a deployment.
    """
    program = f"""
from peers.cell import row
bus = row("{row.__module__}:{row.__name__}")
it = bus.new()
bus.subscribe(it, bus.slow(lambda value: None, lambda value: 0))
bus.emit(it, 1)
bus.settle(it)
print("used", flush=True)
bus.end(it)
"""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        used = process.stdout.readline()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            if used:
                raise DoesNotHold("10 s after its last line the program still runs") from None
    if not used:
        raise DoesNotHold("the program did not come to its last line")
    return once("the program ended")


@FAMILY.check(
    "A cancelled handler harms nobody",
    uses=("new", "subscribe", "emit"),
    reproduction="""
bus, got, gone = new(), [], RUNNER.get_loop().create_future(); gone.cancel()
async def bad(value): await gone  # which somebody else has cancelled
async def good(value): got.append(value)
subscribe(bus, bad); subscribe(bus, good)
try: emit(bus, 1)
except asyncio.CancelledError: pass
RUNNER.run(asyncio.sleep(1))
assert got == [1], f"one handler was cancelled, the other saw {got}"
""",
)
def cancelled_handler(row: type[Bus]) -> Holds:
    """A handler that ends by CancelledError takes no event from others, now or later.

    It is what awaiting a task raises that somebody else has cancelled.
    """
    if not row.asynchronous:
        raise NotOffered("its handlers are plain functions")
    bus, got = row.new(), list[Any]()

    async def cancelled(value: Any) -> None:
        if value == 1:
            task = asyncio.ensure_future(asyncio.sleep(10))
            task.cancel()
            await task

    row.subscribe(bus, cancelled)
    row.subscribe(bus, _made(row, got.append))

    def scene() -> None:
        for value in (1, 2):
            with suppress(asyncio.CancelledError):
                row.emit(bus, value)
        for _ in range(50):
            if got == [1, 2]:
                break
            RUNNER.run(asyncio.sleep(0.05))

    thread = threading.Thread(target=scene, daemon=True)
    with _captured():
        thread.start()
        thread.join(8)
    if got != [1, 2]:
        raise DoesNotHold(f"a handler of event 1 was cancelled, the other handler saw {got}")
    return once("the other handler saw that event and the next")
