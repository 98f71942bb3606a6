"""AsyncEventBus under a deterministic loop: schedules, cancellation at each await, lost wake-ups.

Each model runs on the component as it is and on plain tasks, as on Python 3.11. A model that
waits for what nobody will ever do is a deadlock, and a failure: so each of them also shows
that no wake-up is lost. The inbox of other threads is explored with a thread scheduler.
"""

import asyncio
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any

import detangle
import pytest

from reference_impl.buses import async_event_bus
from reference_impl.buses.event import BusFull, BusStopped, Event, Handler
from tests.buses.async_event_bus.helpers import (
    COMPONENT,
    builds,
    event,
    forever,
    forgets_what_a_cancelled_stop_took_back,
    handlers,
    in_a_task,
    instead,
    leaves_a_task,
    never_says_refused,
    says_accepted,
    starts_again,
    twin,
)
from tests.kit.explore import Interleavings, Schedules
from tests.kit.fakes import turns
from tests.kit.primitives import unlocked
from tests.kit.proofs import Proof, each_twin
from tests.kit.twins import Fault, Twin, build


async def settled(task: "asyncio.Task[Any]") -> BaseException | None:
    """Wait for the task's end; its exception, or None."""
    await asyncio.wait([task])
    return asyncio.CancelledError() if task.cancelled() else task.exception()


class Ledger:
    """What publishers were told and what handlers saw; `check` compares the two."""

    def __init__(self) -> None:
        self.accepted: list[object] = []
        self.refused: list[object] = []
        self.seen: list[object] = []
        self.returned: list[object] = []

    async def publish(self, bus: Any, payload: object, timeout: float | None = None) -> None:
        try:
            await bus.publish(event(payload), timeout)
        except (BusStopped, BusFull, asyncio.CancelledError):
            self.refused.append(payload)
            raise
        self.accepted.append(payload)

    async def handle(self, event: Event) -> None:
        self.seen.append(event.payload)
        await asyncio.sleep(0)

    def check(self) -> None:
        settled = sorted([*self.seen, *self.returned], key=str)
        assert settled == sorted(self.accepted, key=str), (
            f"accepted {self.accepted}, seen {self.seen}, returned {self.returned}, "
            f"refused {self.refused}"
        )


def publishers_in_line(
    module: ModuleType, cancel_after: int | None
) -> Callable[[], Coroutine[Any, Any, None]]:
    """Three publishers and one slot of room; the second one is cancelled at some turn."""

    async def model() -> None:
        ledger = Ledger()
        async with module.AsyncEventBus(1, max_queue=1) as bus:
            bus.subscribe("topic", ledger.handle)
            tasks = [asyncio.create_task(ledger.publish(bus, n)) for n in range(4)]
            if cancel_after is not None:
                await turns(cancel_after)
                tasks[2].cancel()
            errors = [await settled(task) for task in tasks]
            assert not any(e for e in errors if not isinstance(e, asyncio.CancelledError))
            await bus.wait_idle()
            ledger.check()
            assert bus.stats.published == len(ledger.accepted)
        assert len(ledger.seen) >= 3

    return model


CANCELLED_AT = [None, *range(8)]
STOPS: list[dict[str, Any]] = [{}, {"timeout": 0}, {"drain": False}]


@pytest.mark.guarantee("AB-5")
@pytest.mark.parametrize("cancel_after", CANCELLED_AT)
def test_a_cancelled_publisher_loses_nothing(
    schedules: Schedules, cancel_after: int | None
) -> None:
    for module in builds().values():
        schedules.prove(publishers_in_line(module, cancel_after), delays=2)


async def any_publishers(m: ModuleType) -> None:
    await publishers_in_line(m, detangle.choice(CANCELLED_AT))()


def line_of_its_own(*, offers: bool = True, passes_on: bool = True) -> Fault:
    """Publishers wait in a line; whoever starts a call offers its room to the first of them."""
    line: list[asyncio.Future[None]] = []

    def offer() -> None:
        while line:
            turn = line.pop(0)
            if not turn.done():
                turn.set_result(None)
                break

    async def publish(_: Any, bus: Any, event: Event, timeout: float | None = None) -> None:
        while True:
            try:
                return bus.publish_nowait(event)  # type: ignore[no-any-return]
            except BusFull:
                line.append(asyncio.get_running_loop().create_future())
            turn = line[-1]
            try:
                await turn
            except asyncio.CancelledError:
                if passes_on and turn not in line:
                    offer()
                raise

    def wrap(handler: Handler) -> Handler:
        def call(event: Event) -> object:
            if offers:
                offer()
            return handler(event)

        return call

    def start(original: Any, bus: Any) -> Any:
        line.clear()  # of the schedule before
        return original(bus)

    return instead("publish", publish) + handlers(wrap) + instead("start", start)


def test_the_twins_line_is_sound(schedules: Schedules) -> None:
    """What is caught below is its fault, and not that it has a line of its own."""
    sound = build(COMPONENT, line_of_its_own())
    for cancel_after in CANCELLED_AT:
        schedules.prove(publishers_in_line(sound, cancel_after), delays=1)


@twin("accepts an event whose publisher was cancelled", "AssertionError: accepted [", "publish")
async def accepts_although_cancelled(publish: Any, bus: Any, event: Event, *timeout: Any) -> None:
    try:
        await publish(bus, event, *timeout)
    except asyncio.CancelledError:
        bus.publish_threadsafe(event)
        raise


def prove_both(
    schedules: Schedules, model: Callable[..., Any], argument: object, *, delays: int, **stop: Any
) -> None:
    """Explore the model of both builds."""
    for module in builds().values():
        schedules.prove(model(module, argument, **stop), delays=delays)


def publishers_and_stop(
    module: ModuleType, cancel_after: int | None, **stop: Any
) -> Callable[[], Coroutine[Any, Any, None]]:
    """Publishers race a stop that may be cancelled, and then a second one."""

    async def model() -> None:
        ledger = Ledger()
        bus = module.AsyncEventBus(1, max_queue=1, on_error=lambda *_: None)
        await bus.start()
        for _ in range(2):
            bus.subscribe("topic", ledger.handle, ordered=True)
        tasks = [asyncio.create_task(ledger.publish(bus, n)) for n in range(3)]
        posted = bus.publish_threadsafe(event("posted"))
        await turns(2)
        first = asyncio.create_task(bus.stop(**stop))
        if cancel_after is not None:
            await turns(cancel_after)
            first.cancel()
        error = await settled(first)
        assert error is None or isinstance(error, asyncio.CancelledError)
        left = [] if error else first.result()
        left += await bus.stop()
        for task in tasks:
            error = await settled(task)
            assert error is None or isinstance(error, BusStopped)
        assert posted.done(), "a future from a thread is left"
        if posted.exception() is None:
            ledger.accepted.append("posted")
        # Both calls of an event were made, or its event was returned, once.
        returned = [e.payload for e in left]
        assert len(returned) == len(set(returned))
        for payload in ledger.accepted:
            assert ledger.seen.count(payload) + 2 * returned.count(payload) >= 2
            assert ledger.seen.count(payload) + returned.count(payload) <= 2
        assert set(ledger.seen) | set(returned) == set(ledger.accepted)
        stats = bus.stats
        assert stats.published == len(ledger.accepted)
        assert stats.pending == 0
        assert not asyncio.all_tasks() - {asyncio.current_task()}
        await bus.start()
        assert await bus.stop() == []

    return model


async def any_publishers_and_stop(m: ModuleType) -> None:
    stop: dict[str, Any] = detangle.choice(STOPS)
    await publishers_and_stop(m, detangle.choice([None, *range(10)]), **stop)()


@pytest.mark.guarantee("AB-2")
@pytest.mark.parametrize("stop", STOPS, ids=str)
def test_publications_that_race_stop_are_accepted_or_refused(
    schedules: Schedules, stop: dict[str, Any]
) -> None:
    prove_both(schedules, publishers_and_stop, None, delays=2, **stop)


@pytest.mark.guarantee("AB-8")
@pytest.mark.parametrize("cancel_after", range(10))
@pytest.mark.parametrize("stop", STOPS, ids=str)
def test_a_cancelled_stop_loses_nothing(
    schedules: Schedules, stop: dict[str, Any], cancel_after: int
) -> None:
    prove_both(schedules, publishers_and_stop, cancel_after, delays=1, **stop)


@twin(
    "returns an event once for each call",
    "AssertionError: len(returned) == len(set(returned))",
    "stop",
)
async def twice(stop: Any, *arguments: Any, **options: Any) -> list[Event]:
    return [event for event in await stop(*arguments, **options) for _ in range(2)]


async def sleeps_until_woken(operation: Any, bus: Any, *arguments: Any, **options: Any) -> Any:
    if bus.stats.pending:
        await forever()  # and nobody wakes it
    return await operation(bus, *arguments, **options)


def stops_inside_and_outside(
    module: ModuleType, ordered: bool, **stop: Any
) -> Callable[[], Coroutine[Any, Any, None]]:
    """A handler stops the bus while the main task does, and others are under way."""

    async def model() -> None:
        seen: list[object] = []
        returned: list[object] = []

        async def handler(event: Event) -> None:
            seen.append(event.payload)
            await asyncio.sleep(0)
            if event.payload == 0:
                returned.extend(e.payload for e in await bus.stop(**stop))
                await asyncio.sleep(0)

        bus = module.AsyncEventBus(2, on_error=lambda *_: None)
        await bus.start()
        bus.subscribe("topic", handler, ordered=ordered)
        for payload in range(4):
            await bus.publish(event(payload))
        await asyncio.sleep(0)
        returned.extend(e.payload for e in await bus.stop(**stop))
        assert not asyncio.all_tasks() - {asyncio.current_task()}
        assert sorted([*seen, *returned], key=str) == list(range(4))
        await starts_again(bus, seen)

    return model


@pytest.mark.guarantee("AB-8")
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("stop", STOPS, ids=str)
def test_stops_inside_and_outside_of_a_handler_both_end(
    schedules: Schedules, stop: dict[str, Any], ordered: bool
) -> None:
    prove_both(schedules, stops_inside_and_outside, ordered, delays=2, **stop)


async def any_stops(m: ModuleType) -> None:
    stop: dict[str, Any] = detangle.choice(STOPS)
    await stops_inside_and_outside(m, detangle.flip(), **stop)()


def counts_who_stopped_as_still_inside() -> Fault:
    """Once a handler has stopped it, the stop of a later run waits for nobody."""
    stopped_inside: list[object] = []

    async def stop(original: Any, bus: Any, *arguments: Any, **options: Any) -> Any:
        if stopped_inside and bus.is_running:
            return await original(bus, 0, drain=False)
        if bus.is_running:
            stopped_inside.append(asyncio.current_task())
        return await original(bus, *arguments, **options)

    def forget(init: Any, *arguments: Any, **options: Any) -> None:
        stopped_inside.clear()  # of the schedule before
        init(*arguments, **options)

    return instead("stop", stop) + instead("__init__", forget)


def forgets_what_a_handlers_stop_took_back() -> Fault:
    stopped_inside: list[object] = []

    async def stop(original: Any, bus: Any, *arguments: Any, **options: Any) -> Any:
        try:
            await bus.wait_idle(0)
        except RuntimeError:
            stopped_inside.append(bus)
        except TimeoutError:
            pass
        left = await original(bus, *arguments, **options)
        return [] if bus in stopped_inside else left

    def forget(init: Any, *arguments: Any, **options: Any) -> None:
        stopped_inside.clear()  # of the schedule before
        init(*arguments, **options)

    return instead("stop", stop) + instead("__init__", forget)


def two_that_stop_each_other(module: ModuleType) -> Callable[[], Coroutine[Any, Any, None]]:
    """A handler of each of two buses stops the other."""

    async def model() -> None:
        seen: list[object] = []
        returned: list[object] = []

        async def handler(event: Event) -> None:
            seen.append(event.payload)
            await asyncio.sleep(0)
            returned.extend(await event.payload.stop())

        buses = [module.AsyncEventBus(1), module.AsyncEventBus(1)]
        for bus, other in zip(buses, reversed(buses), strict=True):
            bus.subscribe("topic", handler)
            await bus.start()
            await bus.publish(event(other))
        for bus in buses:
            returned += await bus.stop()
        assert len(seen) == 2
        assert returned == []
        assert not asyncio.all_tasks() - {asyncio.current_task()}

    return model


@pytest.mark.guarantee("AB-8")
def test_two_that_stop_each_other_both_end(schedules: Schedules) -> None:
    for module in builds().values():
        schedules.prove(two_that_stop_each_other(module), delays=2)


async def any_two(m: ModuleType) -> None:
    await two_that_stop_each_other(m)()


def idle_waiters(module: ModuleType) -> Callable[[], Coroutine[Any, Any, None]]:
    """Two tasks wait for an idle bus, one is cancelled; the handlers publish on."""

    async def model() -> None:
        seen: list[object] = []

        async def chain(event_: Event) -> None:
            await asyncio.sleep(0)
            seen.append(event_.payload)
            if event_.payload:
                await bus.publish(event(event_.payload - 1))

        async def idle() -> None:
            await bus.wait_idle()
            assert seen == [2, 1, 0]

        async with module.AsyncEventBus(2) as bus:
            bus.subscribe("topic", chain)
            await bus.publish(event(2))
            waiters = [asyncio.create_task(idle()) for _ in range(2)]
            await turns(2)
            waiters[0].cancel()
            await waiters[1]
            await settled(waiters[0])

    return model


@pytest.mark.guarantee("AB-10")
def test_no_waiter_for_an_idle_bus_is_forgotten(schedules: Schedules) -> None:
    for module in builds().values():
        schedules.prove(idle_waiters(module), delays=2)


async def any_idle_waiters(m: ModuleType) -> None:
    await idle_waiters(m)()


def tells_the_first_alone() -> Fault:
    """Of those who wait for an idle bus, the first one is told."""
    waiting: list[object] = []

    async def wait_idle(original: Any, bus: Any, timeout: float | None = None) -> None:
        waiting.append(asyncio.current_task())
        if len(waiting) > 1:
            await forever()
        await original(bus, timeout)

    def start(original: Any, bus: Any) -> Any:
        waiting.clear()  # of the schedule before
        return original(bus)

    return instead("wait_idle", wait_idle) + instead("start", start)


@twin("does not wait for the calls that run", "AssertionError: seen == [2, 1, 0]", "wait_idle")
async def returns_at_once(_: Any, bus: Any, timeout: float | None = None) -> None:
    await asyncio.sleep(0)


MODELS = [
    Proof(
        "AB-5",
        any_publishers,
        [
            Twin(
                "forgets the room that it offered to a publisher who was cancelled",
                line_of_its_own(passes_on=False),
                "DeadlockError",
            ),
            Twin(
                "offers no room when a call starts", line_of_its_own(offers=False), "DeadlockError"
            ),
            accepts_although_cancelled,
        ],
    ),
    Proof(
        "AB-2",
        any_publishers_and_stop,
        [
            Twin(
                "leaves publishers waiting for room when it stops",
                instead("publish", never_says_refused),
                "DeadlockError",
            ),
            Twin(
                "says of a refused event that it was accepted",
                instead("publish", says_accepted),
                "AssertionError: ledger.seen.count(payload)",
            ),
        ],
    ),
    Proof(
        "AB-8",
        any_publishers_and_stop,
        [
            Twin(
                "forgets what a cancelled stop took back",
                forgets_what_a_cancelled_stop_took_back(),
                "AssertionError: 2 * returned.count(payload) >= 2",
            ),
            twice,
            Twin(
                "leaves a task behind",
                instead("start", leaves_a_task),
                "AssertionError: not asyncio.all_tasks()",
            ),
            Twin("wakes no stop", instead("stop", sleeps_until_woken), "DeadlockError"),
        ],
    ),
    Proof(
        "AB-8",
        any_stops,
        [
            Twin(
                "waits in a handler for that handler", instead("stop", in_a_task), "DeadlockError"
            ),
            Twin(
                "has later stops wait for nobody once a handler has stopped it",
                counts_who_stopped_as_still_inside(),
                "AssertionError: await bus.stop() == []",
            ),
            Twin(
                "forgets what a handler's stop took back",
                forgets_what_a_handlers_stop_took_back(),
                "AssertionError: assert sorted([*seen, *returned], key=str)",
            ),
        ],
    ),
    Proof(
        "AB-8",
        any_two,
        [
            Twin(
                "waits in a handler for a bus whose handler waits for this one",
                instead("stop", in_a_task),
                "DeadlockError",
            )
        ],
    ),
    Proof(
        "AB-10",
        any_idle_waiters,
        [
            returns_at_once,
            Twin(
                "wakes none of those who wait",
                instead("wait_idle", sleeps_until_woken),
                "DeadlockError",
            ),
            Twin("wakes one of those who wait", tells_the_first_alone(), "DeadlockError"),
        ],
    ),
]


@each_twin(MODELS)
def test_a_lost_event_or_wakeup_is_found(schedules: Schedules, proof: Proof, twin: Twin) -> None:
    broken = build(COMPONENT, twin.fault)

    async def model() -> None:
        await proof.check(broken)  # type: ignore[misc]

    schedules.catch(model, twin=twin)


# Threads: the inbox


def posting_races_stop(module: ModuleType, posters: int) -> Callable[[], None]:
    """Threads post while the loop's thread stops the bus."""

    def model() -> None:
        import interleave_test  # pyright: ignore[reportMissingImports]  # not on Python 3.11

        bus = module.AsyncEventBus()
        bus.subscribe("topic", lambda _: None)
        loop, errors = asyncio.new_event_loop(), list[object]()
        loop.set_exception_handler(lambda _, about: errors.append(about))
        loop.run_until_complete(bus.start())
        futures: list[Any] = []

        def post() -> None:
            futures.append(bus.publish_threadsafe(event(1)))

        def stop() -> None:
            loop.run_until_complete(bus.stop())

        try:
            threads = [interleave_test.spawn(each) for each in (*[post] * posters, stop)]
            for thread in threads:
                thread.join()
            loop.run_until_complete(turns(2))  # the loop's last ones
        finally:
            loop.close()
        assert not errors, "an event is accepted, and refused"
        assert all(future.done() for future in futures), "a future never settles"
        accepted = sum(future.exception() is None for future in futures)
        assert accepted == bus.stats.published == bus.stats.delivered

    return model


INBOX = Proof(
    "AB-2",
    posting_races_stop,
    [
        Twin(
            "posts without the inbox's lock",
            unlocked("AsyncEventBus.publish_threadsafe"),
            ("AssertionError: a future never settles", "AssertionError: accepted, and refused"),
        )
    ],
)


@pytest.mark.guarantee("AB-2")
def test_every_event_posted_while_the_bus_stops_settles(interleavings: Interleavings) -> None:
    interleavings.prove(posting_races_stop(async_event_bus, 1))
    interleavings.prove(posting_races_stop(async_event_bus, 2), granularity="line")


@each_twin([INBOX])
def test_an_event_posted_after_the_last_look_is_found(
    interleavings: Interleavings, proof: Proof, twin: Twin
) -> None:
    broken = build(COMPONENT, twin.fault)
    interleavings.catch(posting_races_stop(broken, 1), twin=twin)
