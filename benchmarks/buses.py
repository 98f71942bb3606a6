"""The buses against what is written by hand in their place, and packages from PyPI.

The floor of EventBus is a bounded queue.Queue with as many threads, a copy of the context for
each call and a `try` around it; that of AsyncEventBus is a task for each call, held strongly.
A burst of events is published and waited for, so an operation is one event from end to end.
"""

import asyncio
import functools
import importlib
import logging
import queue
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import harness
from reference_impl.buses.async_event_bus import AsyncEventBus
from reference_impl.buses.event import Event
from reference_impl.buses.event_bus import EventBus

BURST = 1_000
BOUND = 10_000
DEADLINE = 60.0
MARKS = 10
TOPIC = "topic"

Call = Callable[[Event], object]
AsyncCall = Callable[[Event], Coroutine[Any, Any, object]]


def _nothing() -> None:
    pass


def _handlers(count: int) -> list[Call]:
    """That many different functions, as some buses take equal ones for one."""

    def one() -> Call:
        def handle(event: Event) -> None:
            event.payload()

        return handle

    return [one() for _ in range(count)]


def _async_handlers(count: int) -> list[AsyncCall]:
    def one() -> AsyncCall:
        async def handle(event: Event) -> None:
            waiting = event.payload()
            if waiting is not None:
                await waiting

        return handle

    return [one() for _ in range(count)]


class ThreadBus:
    """A bus between threads to measure: `send` is what a publisher calls."""

    send: Call

    def close(self) -> None:
        """End the threads."""


class BareBus(ThreadBus):
    """The least that moves an event to another thread."""

    def __init__(self, workers: int, handlers: Sequence[Call], bound: int) -> None:
        self._line = self._make_line(bound)
        self._handlers = handlers
        self._threads = [threading.Thread(target=self._work) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def _make_line(self, _bound: int) -> Any:
        return queue.SimpleQueue()

    def send(self, event: Event) -> None:
        for handler in self._handlers:
            self._line.put((handler, event))

    def _work(self) -> None:
        while (call := self._line.get()) is not None:
            call[0](call[1])

    def close(self) -> None:
        for _ in self._threads:
            self._line.put(None)
        for thread in self._threads:
            thread.join()


class QueueBus(BareBus):
    """The floor: what EventBus does for a call at least, in the standard library's parts."""

    def _make_line(self, bound: int) -> Any:
        return queue.Queue(bound)

    def send(self, event: Event) -> None:
        for handler in self._handlers:
            self._line.put((copy_context(), handler, event))

    def _work(self) -> None:
        while (call := self._line.get()) is not None:
            context, handler, event = call
            try:
                context.run(handler, event)
            except BaseException:
                logging.exception("%r failed", handler)


class SeriesBus(QueueBus):
    """One call for all handlers of an event: they are called in series."""

    def __init__(self, workers: int, handlers: Sequence[Call], bound: int) -> None:
        def call_each(event: Event) -> None:
            for handler in handlers:
                try:
                    handler(event)
                except BaseException:
                    logging.exception("%r failed", handler)

        super().__init__(workers, [call_each], bound)


class OurBus(ThreadBus):
    def __init__(
        self, workers: int, handlers: Sequence[Call], bound: int, *, ordered: bool = False
    ) -> None:
        self._bus = EventBus(workers, max_queue=bound)
        for handler in handlers:
            self._bus.subscribe(TOPIC, handler, ordered=ordered)
        self._bus.start()
        self.send = self._bus.publish

    def close(self) -> None:
        self._bus.stop()


def _started(workers: int) -> ThreadPoolExecutor:
    """A pool with all its threads: one that has run something may start too few of them."""
    pool, meeting = ThreadPoolExecutor(workers), threading.Barrier(workers)
    for arrival in [pool.submit(meeting.wait, DEADLINE) for _ in range(workers)]:
        arrival.result()
    return pool


class ExecutorBus(ThreadBus):
    def __init__(self, workers: int, handlers: Sequence[Call], _bound: int) -> None:
        self._pool = _started(workers)
        self._handlers = handlers

    def send(self, event: Event) -> None:
        for handler in self._handlers:
            self._pool.submit(handler, event)

    def close(self) -> None:
        self._pool.shutdown()


class PyeeBus(ThreadBus):
    def __init__(self, workers: int, handlers: Sequence[Call], _bound: int) -> None:
        self._pool = _started(workers)
        emitter = importlib.import_module("pyee.executor").ExecutorEventEmitter(self._pool)
        for handler in handlers:
            emitter.on(TOPIC, handler)
        self.send = functools.partial(emitter.emit, TOPIC)

    def close(self) -> None:
        self._pool.shutdown()


class BlinkerBus(ThreadBus):
    def __init__(self, _workers: int, handlers: Sequence[Call], _bound: int) -> None:
        signal = importlib.import_module("blinker").Signal()
        self._kept = handlers
        for handler in handlers:
            signal.connect(handler, weak=False)
        self.send = signal.send


@dataclass(frozen=True, slots=True)
class Contestant(harness.Contestant[Callable[[int, Sequence[Call], int], ThreadBus]]):
    """A way to call handlers in threads; `workers` is 0 where it calls them in the publisher's."""

    workers: int | None = None

    def case(
        self, workers: int, subscribers: int = 1, publishers: int = 1, bound: int = BOUND
    ) -> harness.Case:
        workers = workers if self.workers is None else self.workers

        def build() -> harness.Subject:
            bus = self.make(workers, _handlers(subscribers), bound)
            return _bursts(bus, workers, subscribers, publishers)

        return self.measured(build)


def _await_all(arrivals: threading.Semaphore, expected: int) -> None:
    for number in range(expected):
        if not arrivals.acquire(timeout=DEADLINE):
            raise AssertionError(f"{number} calls instead of {expected}")


def _bursts(bus: ThreadBus, workers: int, subscribers: int, publishers: int) -> harness.Subject:
    """Each publisher sends a burst, and waits for the calls of its last event."""
    send = bus.send

    def publisher() -> harness.Batch:
        done = threading.Semaphore(0)
        events = [Event.create(TOPIC, _nothing)] * (BURST - 1)
        events.append(Event.create(TOPIC, done.release))

        def batch() -> None:
            for event in events:
                send(event)
            _await_all(done, subscribers)

        return batch

    def check() -> None:
        """Each handler is called once for each event, in as many threads as there should be."""
        arrivals = threading.Semaphore(0)
        for _ in range(50):
            send(Event.create(TOPIC, arrivals.release))
        _await_all(arrivals, 50 * subscribers)
        if workers:
            together = threading.Barrier(workers + 1)
            meeting = Event.create(TOPIC, functools.partial(together.wait, DEADLINE))
            for _ in range(workers):
                send(meeting)
            for _ in range(subscribers):
                together.wait(DEADLINE)
        if arrivals.acquire(blocking=False):
            raise AssertionError("a handler was called twice for an event")

    return harness.Subject([publisher() for _ in range(publishers)], BURST, check, close=bus.close)


NO_BUS = "topics, order, drain, `wait_idle`, figures"
POOL = f"a bound, a context per call, {NO_BUS}"
FLOOR = Contestant("queue.Queue, threads, context, try", QueueBus, "floor", lacks=NO_BUS)
OURS = Contestant("EventBus.publish", OurBus, "ours")
EXECUTOR = Contestant("ThreadPoolExecutor.submit", ExecutorBus, lacks=POOL)
PYEE = Contestant(
    "pyee.ExecutorEventEmitter",
    PyeeBus,
    package="pyee",
    lacks="a bound, a context per call, order, drain, `wait_idle`, figures",
)
BLINKER = Contestant(
    "blinker.Signal.send (in the publisher's thread)",
    BlinkerBus,
    package="blinker",
    lacks="threads, a bound; a failing handler keeps the event from those after it",
    workers=0,
)
BARE = Contestant(
    "queue.SimpleQueue (C), threads", BareBus, "reference", lacks=f"a bound, isolation, {POOL}"
)
ALL = [FLOOR, OURS, BARE, EXECUTOR, PYEE, BLINKER]


def _group(
    title: str, cases: Sequence[harness.Case], aim: float | None = None, note: str = ""
) -> harness.Group:
    return harness.Group(title, cases, note, aim, real_time=True, longer=10)


def _pool(workers: int, aim: float) -> harness.Group:
    threads = "1 worker" if workers == 1 else f"{workers} workers"
    return _group(
        f"publish until handled, {threads}",
        [contestant.case(workers) for contestant in ALL],
        aim,
        "A burst of 1,000 events, which fits into the queue: a handler that does next to nothing.",
    )


def _fan_out() -> harness.Group:
    series = Contestant(
        "queue.Queue, the three in series",
        SeriesBus,
        "reference",
        lacks=f"concurrency of an event's handlers, a context per call, {NO_BUS}",
    )
    return _group(
        "publish until handled, three subscribers, 10 workers",
        [contestant.case(10, subscribers=3) for contestant in [*ALL, series]],
        note="An operation is an event with its three calls.",
    )


def _ordered() -> harness.Group:
    ours = Contestant(
        "EventBus.publish, ordered", functools.partial(OurBus, ordered=True), "ours", workers=1
    )

    def ten_workers(_one: int, handlers: Sequence[Call], bound: int) -> ThreadBus:
        return OurBus(10, handlers, bound, ordered=True)

    return _group(
        "an ordered subscription",
        [
            FLOOR.case(1),
            ours.case(1),
            replace(ours, name="EventBus.publish, ordered, 10 workers", make=ten_workers).case(1),
        ],
        note="The floor keeps order by having one thread. Ours has one worker, then ten.",
    )


def _full() -> harness.Group:
    return _group(
        "backpressure: at most 100 events in line, 10 workers",
        [FLOOR.case(10, bound=100), OURS.case(10, bound=100)],
        note="The publisher has to wait for room again and again. The others have no bound.",
    )


def _publishers() -> harness.Group:
    return _group(
        "8 publishers, 10 workers",
        [contestant.case(10, publishers=8) for contestant in ALL if contestant is not BLINKER],
        note=(
            "With several threads a locked design runs now freely, now in convoys, where each\n"
            "operation waits for the lock to change hands: read the range, not the median."
        ),
    )


def _one_by_one() -> harness.Group:
    """The next event is published once the last one is handled."""

    def case(contestant: Contestant) -> harness.Case:
        def build() -> harness.Subject:
            bus = contestant.make(1, _handlers(1), BOUND)
            handled = threading.Semaphore(0)
            event = Event.create(TOPIC, handled.release)

            def batch() -> None:
                for _ in range(20):
                    bus.send(event)
                    _await_all(handled, 1)

            return replace(_bursts(bus, 1, 1, 1), workers=[batch], operations=20)

        return replace(contestant.case(1), make=build)

    return _group(
        "wake-up: one event at a time to a waiting worker",
        [case(contestant) for contestant in ALL if contestant is not BLINKER],
        note="Most of it is the system's time to start a thread, twice.",
    )


class LoopBus:
    """A bus on one event loop to measure: `send_all` publishes a burst."""

    async def start(self, handlers: Sequence[AsyncCall]) -> None:
        raise NotImplementedError

    async def send_all(self, events: Sequence[Event]) -> None:
        raise NotImplementedError

    async def stop(self) -> None:
        pass


class TaskBus(LoopBus):
    """The floor: a task for each call, held by the set that its documentation advises."""

    async def start(self, handlers: Sequence[AsyncCall]) -> None:
        self._handlers = handlers
        self._tasks: set[asyncio.Task[object]] = set()

    async def send_all(self, events: Sequence[Event]) -> None:
        for event in events:
            for handler in self._handlers:
                task = asyncio.create_task(handler(event))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)


class EagerTaskBus(TaskBus):
    """A task that takes its first step where it is made."""

    async def send_all(self, events: Sequence[Event]) -> None:
        loop = asyncio.get_running_loop()
        make: Any = asyncio.Task
        for event in events:
            for handler in self._handlers:
                task = make(handler(event), loop=loop, eager_start=True)
                if not task.done():
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)


class GatherBus(TaskBus):
    async def send_all(self, events: Sequence[Event]) -> None:
        for event in events:
            await asyncio.gather(*(handler(event) for handler in self._handlers))


class ConsumerBus(LoopBus):
    """An asyncio.Queue and one task, which calls one handler after the other."""

    async def start(self, handlers: Sequence[AsyncCall]) -> None:
        self._line: asyncio.Queue[Event] = asyncio.Queue(BOUND)
        self._task = asyncio.create_task(self._work(handlers))

    async def _work(self, handlers: Sequence[AsyncCall]) -> None:
        while True:
            event = await self._line.get()
            for handler in handlers:
                try:
                    await handler(event)
                except Exception:
                    logging.exception("%r failed", handler)

    async def send_all(self, events: Sequence[Event]) -> None:
        for event in events:
            await self._line.put(event)

    async def stop(self) -> None:
        self._task.cancel()


class OurLoopBus(LoopBus):
    def __init__(self, *, ordered: bool = False) -> None:
        self._ordered = ordered

    async def start(self, handlers: Sequence[AsyncCall]) -> None:
        self._bus = AsyncEventBus(max_queue=BOUND)
        for handler in handlers:
            self._bus.subscribe(TOPIC, handler, ordered=self._ordered)
        await self._bus.start()

    async def send_all(self, events: Sequence[Event]) -> None:
        for event in events:
            await self._bus.publish(event)

    async def stop(self) -> None:
        await self._bus.stop()


class OurNowaitBus(OurLoopBus):
    async def send_all(self, events: Sequence[Event]) -> None:
        for event in events:
            self._bus.publish_nowait(event)


class PyeeLoopBus(LoopBus):
    async def start(self, handlers: Sequence[AsyncCall]) -> None:
        self._emitter = importlib.import_module("pyee.asyncio").AsyncIOEventEmitter()
        for handler in handlers:
            self._emitter.on(TOPIC, handler)

    async def send_all(self, events: Sequence[Event]) -> None:
        for event in events:
            self._emitter.emit(TOPIC, event)


class BubusBus(LoopBus):
    """Its events are models of its own, which can be dispatched once: one is made for each."""

    async def start(self, handlers: Sequence[AsyncCall]) -> None:
        bubus = importlib.import_module("bubus")
        self._model = type(
            "Carrier",
            (bubus.BaseEvent,),
            {"__annotations__": {"carried": Any}, "carried": None, "__module__": __name__},
        )
        # It goes through its history again and again: one event is the shortest it can have.
        self._bus = bubus.EventBus(name="benchmark", parallel_handlers=True, max_history_size=1)
        for number, handler in enumerate(handlers):
            self._bus.on("Carrier", self._unpack(handler, f"handler_{number}"))

    @staticmethod
    def _unpack(handler: AsyncCall, name: str) -> Callable[[Any], Coroutine[Any, Any, None]]:
        async def unpacked(event: Any) -> None:
            await handler(event.carried)

        unpacked.__name__ = name
        return unpacked

    async def send_all(self, events: Sequence[Event]) -> None:
        for event in events:
            await self._bus.dispatch(self._model(carried=event))

    async def stop(self) -> None:
        await self._bus.stop(clear=True)


@dataclass(frozen=True, slots=True)
class LoopContestant(harness.Contestant[Callable[[], LoopBus]]):
    """A way to call handlers on a loop; `together` is False where they cannot run side by side."""

    together: bool = True
    burst: int = BURST

    def case(self, payload: Callable[[], object], subscribers: int = 1) -> harness.Case:
        def build() -> harness.Subject:
            return _loop_bursts(self, payload, subscribers)

        return self.measured(build)


def _loop_bursts(
    contestant: LoopContestant, payload: Callable[[], object], subscribers: int
) -> harness.Subject:
    bus, runner = contestant.make(), asyncio.Runner()
    run = runner.get_loop().run_until_complete
    run(bus.start(_async_handlers(subscribers)))
    done = asyncio.Semaphore(0)
    events = [Event.create(TOPIC, payload)] * (contestant.burst - 1)
    events.append(Event.create(TOPIC, done.release))

    async def burst() -> None:
        await bus.send_all(events)
        for _ in range(subscribers):
            await done.acquire()

    async def look() -> None:
        """Each handler is called once for each event, and side by side if it should be."""
        arrivals = asyncio.Semaphore(0)
        async with asyncio.timeout(DEADLINE):
            await bus.send_all([Event.create(TOPIC, arrivals.release)] * 50)
            for _ in range(50 * subscribers):
                await arrivals.acquire()
            if contestant.together:
                meeting = asyncio.Barrier(10 * subscribers + 1)
                await bus.send_all([Event.create(TOPIC, meeting.wait)] * 10)
                await meeting.wait()
            await asyncio.sleep(0)
        if not arrivals.locked():
            raise AssertionError("a handler was called twice for an event")

    def close() -> None:
        run(bus.stop())
        runner.close()

    return harness.Subject([lambda: run(burst())], len(events), lambda: run(look()), close=close)


def _pause() -> Coroutine[Any, Any, None]:
    return asyncio.sleep(0)


NO_LOOP_BUS = "a limit to the tasks, a bound, topics, isolation, order, drain, figures"
TASKS = LoopContestant("asyncio.create_task", TaskBus, "floor", lacks=NO_LOOP_BUS)
LOOP_OURS = LoopContestant("AsyncEventBus.publish", OurLoopBus, "ours")
LOOP_NOWAIT = LoopContestant("AsyncEventBus.publish_nowait", OurNowaitBus, "ours")
LOOP_ORDERED = LoopContestant(
    "AsyncEventBus.publish, ordered",
    functools.partial(OurLoopBus, ordered=True),
    "ours",
    together=False,
)
EAGER = LoopContestant(
    "asyncio.Task, eager",
    EagerTaskBus,
    "reference",
    lacks=f"{NO_LOOP_BUS}; handlers start in the publisher's frame",
)
GATHER = LoopContestant(
    "asyncio.gather for each event",
    GatherBus,
    "reference",
    lacks="concurrency of events; the publisher waits for the handlers",
    together=False,
)
CONSUMER = LoopContestant(
    "asyncio.Queue and one task",
    ConsumerBus,
    "reference",
    lacks="concurrency, topics, drain, figures",
    together=False,
)
LOOP_PYEE = LoopContestant(
    "pyee.AsyncIOEventEmitter", PyeeLoopBus, package="pyee", lacks=NO_LOOP_BUS
)
BUBUS = LoopContestant(
    "bubus.EventBus",
    BubusBus,
    package="bubus",
    lacks="concurrency of events; at most 100 wait; a model is made for each event",
    together=False,
    burst=20,
)
LOOP_ALL = [TASKS, LOOP_OURS, LOOP_NOWAIT, GATHER, CONSUMER, LOOP_PYEE, BUBUS]
if sys.version_info >= (3, 12):  # before, there are no eager tasks
    LOOP_ALL.insert(3, EAGER)


def _loop_pool(
    series: str, point: str, payload: Callable[[], object], subscribers: int
) -> harness.Group:
    return harness.Group(
        f"{series}, {point}",
        [contestant.case(payload, subscribers) for contestant in LOOP_ALL],
        note=(
            "A burst of 1,000 events, which fits into the queue. With three subscribers an\n"
            "operation is an event with its three calls."
        ),
        aim=1.0,
        series=series,
        point=point,
    )


def _loop_ordered() -> harness.Group:
    return harness.Group(
        "an ordered subscription, handlers that do not wait",
        [contestant.case(_nothing) for contestant in (TASKS, LOOP_ORDERED, CONSUMER)],
        note="The floor calls in order, too, as long as no handler waits.",
        aim=1.0 if sys.version_info >= (3, 12) else 2.0,
    )


def _loop_ordered_waiting() -> harness.Group:
    return harness.Group(
        "an ordered subscription, handlers that wait once",
        [
            replace(CONSUMER, role="floor").case(_pause),
            LOOP_ORDERED.case(_pause),
            replace(TASKS, role="reference", lacks=f"order; {NO_LOOP_BUS}").case(_pause),
        ],
        note="Here the floor is a queue and one task, as tasks run side by side.",
    )


class Background:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self.loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, coro: Coroutine[Any, Any, object]) -> None:
        asyncio.run_coroutine_threadsafe(coro, self.loop).result(DEADLINE)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self._runner.close()


def _from_thread(
    make: Callable[[Background, AsyncCall], tuple[Call, harness.Batch]],
) -> harness.Subject:
    background = Background()
    send, stop = make(background, _async_handlers(1)[0])
    done = threading.Semaphore(0)
    events = [Event.create(TOPIC, _nothing)] * (BURST - 1) + [Event.create(TOPIC, done.release)]

    def batch() -> None:
        for event in events:
            send(event)
        _await_all(done, 1)

    def check() -> None:
        arrivals = threading.Semaphore(0)
        for _ in range(50):
            send(Event.create(TOPIC, arrivals.release))
        _await_all(arrivals, 50)
        batch()
        if arrivals.acquire(blocking=False):
            raise AssertionError("a handler was called twice for an event")

    def close() -> None:
        stop()
        background.close()

    return harness.Subject([batch], BURST, check, close=close)


def _post_ours(background: Background, handler: AsyncCall) -> tuple[Call, harness.Batch]:
    bus = AsyncEventBus(max_queue=BOUND)

    async def start() -> None:
        bus.subscribe(TOPIC, handler)
        await bus.start()

    background.run(start())
    return bus.publish_threadsafe, lambda: background.run(bus.stop())


def _post_call_soon(background: Background, handler: AsyncCall) -> tuple[Call, harness.Batch]:
    loop, tasks = background.loop, set[asyncio.Task[object]]()

    def spawn(event: Event) -> None:
        task = loop.create_task(handler(event))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def send(event: Event) -> object:
        return loop.call_soon_threadsafe(spawn, event)

    return send, _nothing


def _post_coroutine(background: Background, handler: AsyncCall) -> tuple[Call, harness.Batch]:
    def send(event: Event) -> object:
        return asyncio.run_coroutine_threadsafe(handler(event), background.loop)

    return send, _nothing


def _threadsafe() -> harness.Group:
    return harness.Group(
        "publish_threadsafe until handled, from a thread",
        [
            harness.Case(
                "loop.call_soon_threadsafe for each event",
                lambda: _from_thread(_post_call_soon),
                "floor",
                lacks=f"a future that tells of acceptance, {NO_LOOP_BUS}",
            ),
            harness.Case(
                "AsyncEventBus.publish_threadsafe", lambda: _from_thread(_post_ours), "ours"
            ),
            harness.Case(
                "asyncio.run_coroutine_threadsafe",
                lambda: _from_thread(_post_coroutine),
                "reference",
                lacks=NO_LOOP_BUS,
            ),
        ],
        note="A burst of 1,000 events to a loop in another thread, which wakes up for the first.",
        real_time=True,
        longer=10,
    )


def _pass_through_threads(name: str, count: int) -> list[int]:
    """The memory of this fresh process, each time after a tenth of the events were handled."""
    done = threading.Semaphore(0)
    contestant = next(c for c in ALL if c.name == name)
    bus = contestant.make(10, _handlers(1), BOUND)

    def marks() -> Iterator[int]:
        for _ in range(MARKS):
            for _ in range(count // MARKS - 1):
                bus.send(Event.create(TOPIC, _nothing))
            bus.send(Event.create(TOPIC, done.release))
            _await_all(done, 1)
            yield harness.resident() or 0

    found = list(marks())
    bus.close()
    return found


def _pass_through_loop(name: str, count: int) -> list[int]:
    contestant = next(c for c in LOOP_ALL if c.name == name)

    async def run() -> list[int]:
        bus, done, found = contestant.make(), asyncio.Semaphore(0), []
        await bus.start(_async_handlers(1))
        for _ in range(MARKS):
            for _ in range(count // MARKS - 1):
                await bus.send_all([Event.create(TOPIC, _nothing)])
            await bus.send_all([Event.create(TOPIC, done.release)])
            await done.acquire()
            found.append(harness.resident() or 0)
        await bus.stop()
        return found

    return asyncio.run(run())


def _flat(
    measure: Callable[[str, int], list[int]], names: Sequence[str], count: int, note: str
) -> harness.TableFigures:
    """How much the process grows as events pass through, each bus in a process of its own."""
    absent: list[harness.NotMeasured] = []
    rows: list[list[str | int | float]] = []
    if reason := harness.untold_memory():
        absent = [{"name": name, "reason": reason} for name in names]
    else:
        grown = []
        for name in names:
            found = harness.in_new_process(measure, name, count)
            grown.append([round((bytes_ - found[0]) / 1024) for bytes_ in found])
        rows = [
            [f"{count // MARKS * (at + 1):,}", *growth]
            for at, growth in enumerate(zip(*grown, strict=True))
        ]
    return {
        "title": f"Growth of memory while {count:,} events are published and handled",
        "note": note,
        "columns": ["Events passed", *(f"{name}, KiB" for name in names)],
        "rows": rows,
        "not_measured": absent,
    }


def _waiting_on_loop(name: str, count: int) -> float:
    """The bytes by which this fresh process grows for each event that waits."""

    async def run() -> float:
        bus = AsyncEventBus(max_queue=count + 200) if name == LOOP_OURS.name else None
        gate, tasks = asyncio.Event(), set[asyncio.Task[object]]()

        async def handler(event: Event) -> None:
            await gate.wait()

        def send(event: Event) -> None:
            if bus is not None:
                bus.publish_nowait(event)
            else:
                tasks.add(asyncio.create_task(handler(event)))

        if bus is not None:
            bus.subscribe(TOPIC, handler)
            await bus.start()
        event = Event.create(TOPIC)
        for _ in range(200):  # as many as run at once, and some that wait
            send(event)
        await asyncio.sleep(0.05)
        before = harness.resident() or 0
        for _ in range(count):
            send(event)
        await asyncio.sleep(0.05)
        after = harness.resident() or 0
        gate.set()
        if bus is not None:
            await bus.stop()
        else:
            await asyncio.gather(*tasks)
        return (after - before) / count

    return asyncio.run(run())


def _waiting(count: int) -> harness.TableFigures:
    return harness.memory_table(
        f"Memory per waiting event, {count:,} events while every handler waits",
        "the event itself is not counted",
        {LOOP_OURS.name: "", TASKS.name: ""},
        functools.partial(_waiting_on_loop, count=count),
    )


def plans(effort: harness.Effort) -> list[harness.Plan]:
    """What is measured for each component of the family."""
    count = max(MARKS, effort.items // 10)
    groups: list[Callable[[], harness.Group]] = [
        functools.partial(_pool, 1, 1.3),
        functools.partial(_pool, 10, 1.5),
        _fan_out,
        _ordered,
        _full,
        _publishers,
        _one_by_one,
    ]
    flat = functools.partial(
        _flat,
        _pass_through_threads,
        (OURS.name, EXECUTOR.name),
        count,
        (
            "Since the first mark; each event is new. The bus lets its publisher wait for room,\n"
            "the executor has no bound: it grows by whatever its threads are behind."
        ),
    )
    loop_groups: list[Callable[[], harness.Group]] = [
        functools.partial(_loop_pool, "publish until handled", point, payload, subscribers)
        for point, payload, subscribers in (
            ("handlers that do not wait", _nothing, 1),
            ("handlers that wait once", _pause, 1),
            ("three subscribers", _nothing, 3),
        )
    ]
    loop_groups += [_loop_ordered, _loop_ordered_waiting, _threadsafe]
    loop_flat = functools.partial(
        _flat,
        _pass_through_loop,
        (LOOP_OURS.name, TASKS.name),
        count,
        (
            "Since the first mark; each event is new. The publisher gives the loop no turn while\n"
            "there is room: a task for each event has no bound, so all of a tenth wait at once."
        ),
    )
    waiting = functools.partial(_waiting, max(10, effort.items // 100))
    return [
        harness.Plan("buses/event_bus", groups, [flat]),
        harness.Plan("buses/async_event_bus", loop_groups, [loop_flat, waiting]),
    ]
