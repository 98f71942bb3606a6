"""AsyncEventBus: what stop does, in handlers and elsewhere, and who waits for an idle bus."""

import asyncio
from inspect import isawaitable
from types import ModuleType
from typing import Any

import pytest

from reference_impl.buses.event import BusStats, BusStopped, Event, Handler
from tests.buses.async_event_bus.helpers import (
    COMPONENT,
    Gate,
    event,
    forever,
    forgets_what_a_cancelled_stop_took_back,
    handlers,
    held_up,
    hold,
    in_a_task,
    instead,
    leaves_a_task,
    payloads,
    running,
    starts_again,
    twin,
)
from tests.kit.fakes import turns
from tests.kit.proofs import Proof, each_proof, failing
from tests.kit.twins import Fault, Twin

# AB-8: stop


async def check_a_stop_that_times_out(m: ModuleType) -> None:
    cleaned_up: list[object] = []
    heard: list[object] = []
    told: list[object] = []

    async def hangs(event: Event) -> None:
        try:
            await forever()
        finally:
            await turns(3)
            cleaned_up.append(event.payload)

    async def swallows(event: Event) -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            await turns(5)
            cleaned_up.append("swallowed")

    def on_error(event: Event, handler: object, error: BaseException) -> None:
        assert isinstance(error, asyncio.CancelledError)
        heard.append(event.payload)
        if handler is not hangs:
            told.append((handler, str(error)))

    mine = asyncio.all_tasks()
    bus = m.AsyncEventBus(3, on_error=on_error)
    await bus.start()
    bus.subscribe("topic", hangs, ordered=True)
    bus.subscribe("topic", hangs)
    bus.subscribe("else", swallows)
    await bus.publish(event("else", topic="else"))
    for payload in range(4):
        await bus.publish(event(payload))
    await turns()
    left = await bus.stop(0.001)
    assert payloads(left) == [1, 2, 3]
    assert sorted(cleaned_up, key=str) == [0, 0, "swallowed"], "the clean-up was not awaited"
    assert sorted(heard, key=str) == [0, 0, "else"]
    assert told == [(swallows, "by stop(), though the handler went on to its end")]
    assert bus.stats == BusStats(published=5, delivered=0, failed=3, dropped=6, pending=0)
    assert asyncio.all_tasks() == mine, "it leaves a task"
    assert await bus.stop() == [], "returned once"
    gate = Gate()
    gate.open()
    bus.subscribe("topic", gate, ordered=True)
    await bus.start()
    bus.unsubscribe("topic", hangs)
    for payload in range(3):
        await bus.publish(event(payload))
    assert await bus.stop() == []
    assert gate.ended == [0, 1, 2]


@twin("returns the newest event first", "AssertionError: payloads(left) == [1, 2, 3]", "stop")
async def _newest_first(stop: Any, *arguments: Any, **options: Any) -> list[Event]:
    return [*reversed(await stop(*arguments, **options))]


@twin("cancels no handler when the time is over", "hang", "stop")
async def _without_limit(stop: Any, bus: Any, _: Any = None, **options: Any) -> Any:
    return await stop(bus, **options)


async def check_stop_in_a_handler(m: ModuleType) -> None:
    """It only requests the stop; the next one elsewhere waits, and returns the rest."""
    for limit, ordered, drain in (
        (2, False, True),
        (2, True, True),
        (1, False, True),
        (1, False, False),
        (2, True, False),
    ):
        returned: list[object] = []
        seen: list[object] = []
        bus = m.AsyncEventBus(limit)

        async def stopper(
            event: Event,
            bus: Any = bus,
            returned: Any = returned,
            seen: Any = seen,
            drain: Any = drain,
        ) -> None:
            seen.append(event.payload)
            if event.payload == 0:
                await asyncio.sleep(0)
                returned.append(await bus.stop(drain=drain))
                returned.append(await bus.stop())

        await bus.start()
        bus.subscribe("topic", stopper, ordered=ordered)
        for payload in range(3):
            await bus.publish(event(payload))
        await turns(50)
        assert returned == [[], []]
        await bus.wait_idle()
        with pytest.raises(BusStopped, match=r"is stopping: await stop\(\) outside its"):
            bus.publish_nowait(event("refused"))
        with pytest.raises(RuntimeError, match=r"is stopping: await stop\(\) outside its"):
            await bus.start()
        left = payloads(await bus.stop())
        assert left == ([] if drain else [1, 2])
        assert sorted([*seen, *left], key=str) == [0, 1, 2]
        assert await bus.stop() == []
        await starts_again(bus, seen)


@twin("drains in any case", "AssertionError: left == ([] if drain else [1, 2])", "stop")
async def _drains(stop: Any, bus: Any, timeout: float | None = None, **_: Any) -> Any:
    return await stop(bus, timeout)


async def check_a_stop_elsewhere_waits_for_the_handler_that_requested_it(m: ModuleType) -> None:
    """Within its time; then it is cancelled, as every other handler."""
    heard: list[object] = []

    async def stopper(event: Event) -> None:
        await bus.stop()
        await gate(event)

    for limit in (None, 0):
        gate = Gate()
        bus = m.AsyncEventBus(on_error=lambda e, _, error: heard.append((e.payload, type(error))))
        bus.subscribe("topic", stopper)
        await bus.start()
        await bus.publish(event(limit))
        await turns()
        stopping = asyncio.create_task(bus.stop(limit))
        await turns()
        assert stopping.done() == (limit == 0)
        gate.open()
        assert await stopping == []
        assert bus.stats.pending == 0
    assert heard == [(0, asyncio.CancelledError)]


async def check_two_buses_that_stop_each_other(m: ModuleType) -> None:
    """A handler of any bus only requests: two that waited would wait for each other."""
    buses = [m.AsyncEventBus(), m.AsyncEventBus()]
    entered: list[object] = []
    returned: list[object] = []

    async def stopper(event: Event) -> None:
        entered.append(event)
        while len(entered) < 2:
            await asyncio.sleep(0)
        returned.append(await event.payload.stop())

    mine = asyncio.all_tasks()
    for bus in buses:
        bus.subscribe("topic", stopper)
        await bus.start()
    for bus, other in zip(buses, reversed(buses), strict=True):
        await bus.publish(event(other))
    assert await asyncio.gather(*(bus.stop() for bus in buses)) == [[], []]
    assert returned == [[], []]
    assert asyncio.all_tasks() == mine


async def check_a_block_in_a_handler(m: ModuleType) -> None:
    """Leaving it waits for the bus of that block, unless that is the handler's own."""
    seen: list[object] = []
    left: list[object] = []
    bus = m.AsyncEventBus()

    async def use_another(_: Event) -> None:
        async with m.AsyncEventBus(1) as inner:
            inner.subscribe("topic", lambda e: seen.append(e.payload))
            for payload in range(40):
                await inner.publish(event(payload))
        left.append(len(seen))
        async with bus:
            pass

    await bus.start()
    bus.subscribe("topic", use_another)
    await bus.publish(event())
    await bus.wait_idle()
    assert left == [40]
    assert not bus.is_running
    assert await bus.stop() == []


async def check_a_restart_after_an_ordered_call_was_taken_back(m: ModuleType) -> None:
    gate = Gate()
    seen: list[object] = []
    bus = m.AsyncEventBus(1)
    bus.subscribe("gate", gate)
    bus.subscribe("topic", lambda e: seen.append(e.payload), ordered=True)
    await bus.start()
    await bus.publish(event(topic="gate"))
    await turns()
    await bus.publish(event(1))
    await bus.publish(event(2))
    assert payloads(await bus.stop(0)) == [1, 2]
    await bus.start()
    await bus.publish(event(3))
    await turns()
    assert seen == [3]
    await bus.stop()


async def check_a_second_stop_during_the_clean_up(m: ModuleType) -> None:
    """It does not interrupt the clean-up, and waits for it, too."""
    cleaning_up, finish = asyncio.Event(), asyncio.Event()
    cleaned_up: list[object] = []

    async def hangs(event: Event) -> None:
        try:
            await forever()
        finally:
            cleaning_up.set()
            await finish.wait()
            cleaned_up.append(event.payload)

    bus = m.AsyncEventBus()
    bus.subscribe("topic", hangs)
    await bus.start()
    await bus.publish(event("it"))
    await turns()
    first = asyncio.create_task(bus.stop(0))
    await cleaning_up.wait()
    second = asyncio.create_task(bus.stop(0))
    await turns()
    finish.set()
    assert [*await asyncio.gather(first, second)] == [[], []]
    assert cleaned_up == ["it"]


def _cancels_again() -> Fault:
    tasks: list[asyncio.Task[Any]] = []

    def wrap(handler: Handler) -> Handler:
        async def call(event: Event) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.append(task)
            result = handler(event)
            if isawaitable(result):
                await result

        return call

    async def stop(original: Any, bus: Any, *arguments: Any, **options: Any) -> Any:
        if not bus.is_running:
            for task in tasks:
                task.cancel()
        return await original(bus, *arguments, **options)

    return handlers(wrap) + instead("stop", stop)


async def check_a_cancelled_stop(m: ModuleType) -> None:
    bus, gate = await held_up(m)
    for drain in (True, False):
        first = asyncio.create_task(bus.stop(drain=drain))
        await turns()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert not bus.is_running
        with pytest.raises(RuntimeError, match="stopping"):
            await bus.start()
    gate.open()
    assert payloads(await bus.stop()) == [1, 2], "what the first one took back"
    assert gate.ended == [0]
    await bus.start()
    assert await bus.stop() == []


@twin("ends although its stop was cancelled", "Failed: DID NOT RAISE", "stop")
async def _stops_although_cancelled(stop: Any, bus: Any, *arguments: Any, **options: Any) -> Any:
    try:
        return await stop(bus, *arguments, **options)
    except asyncio.CancelledError:
        await stop(bus, 0)
        raise


async def check_repetitions_and_two_stops_at_once(m: ModuleType) -> None:
    gate = Gate()
    bus = m.AsyncEventBus(1)
    assert await bus.stop() == []
    bus.subscribe("topic", gate)
    for _ in range(3):
        await bus.start()
        await bus.start()
        for payload in range(3):
            await bus.publish(event(payload))
        await turns()
        returned = await asyncio.gather(bus.stop(), bus.stop(0.001), bus.stop(0))
        assert sorted(len(events) for events in returned) == [0, 0, 2]
    assert bus.stats == BusStats(published=9, delivered=0, failed=3, dropped=6, pending=0)


async def check_that_restarts_lose_nothing(m: ModuleType) -> None:
    handled: list[object] = []

    async def handler(event: Event) -> None:
        await turns(5)
        handled.append(event.payload)

    bus = m.AsyncEventBus(4)
    bus.subscribe("topic", handler)
    for cycle in range(50):
        await bus.start()
        for number in range(8):
            await bus.publish(event(8 * cycle + number))
            await asyncio.sleep(0)
        assert await bus.stop() == []
    assert sorted(handled, key=str) == sorted(range(400), key=str)


@twin(
    "cancels before it drains",
    ("AssertionError: sorted(handled, key=str)", "AssertionError: await bus.stop() == []"),
    "stop",
)
async def _cancels_first(stop: Any, bus: Any, _: Any = None, **options: Any) -> Any:
    return await stop(bus, 0, **options)


async def check_a_loop_that_ends(m: ModuleType) -> None:
    """It starts no handler, whichever of its tasks it cancels first."""
    for bus_first in (False, True):
        gate = Gate()
        bus = m.AsyncEventBus(1, on_error=lambda *_: None, name="the bus")
        mine = asyncio.all_tasks()
        await bus.start()
        bus.subscribe("topic", gate)
        await bus.publish(event(0))
        await bus.publish(event(1))
        await turns()
        tasks = asyncio.all_tasks() - mine
        assert "the bus" in {task.get_name() for task in tasks}
        for task in sorted(tasks, key=lambda t: (t.get_name() == "the bus") != bus_first):
            task.cancel()  # as asyncio.run does
        await turns()
        assert gate.started == [0]
        assert not bus.is_running
        assert bus.stats == BusStats(published=2, delivered=0, failed=1, dropped=1, pending=0)


async def check_a_bus_whose_task_was_cancelled(m: ModuleType) -> None:
    """The loop goes on: who cancelled all tasks is told what to do, and the bus can go on."""
    seen: list[object] = []
    advice = r"^event-bus .* cancelled with all others: await stop\(\), then start\(\)$"
    mine = asyncio.all_tasks()
    bus = m.AsyncEventBus()
    bus.subscribe("topic", lambda e: seen.append(e.payload))
    await bus.start()
    for task in asyncio.all_tasks() - mine:
        task.cancel()
    await turns()
    with pytest.raises(BusStopped, match=advice):
        await bus.publish(event())
    with pytest.raises(BusStopped, match=advice):
        await asyncio.wrap_future(bus.publish_threadsafe(event()))
    with pytest.raises(RuntimeError, match=advice):
        await bus.start()
    assert await bus.stop() == []
    with pytest.raises(BusStopped, match=r"^event-bus is not running: await start\(\)"):
        await bus.publish(event())
    await starts_again(bus, seen)


# AB-10: wait_idle


async def check_wait_idle(m: ModuleType) -> None:
    seen: list[object] = []
    gate = Gate()
    bus = m.AsyncEventBus()
    await bus.wait_idle()

    async def chain(event_: Event) -> None:
        seen.append(event_.payload)
        await asyncio.sleep(0)
        if event_.payload:
            await bus.publish(event(event_.payload - 1))

    async def in_a_handler(_: Event) -> None:
        advice = "^a handler of event-bus .*: call wait_idle from another task$"
        with pytest.raises(RuntimeError, match=advice):
            await bus.wait_idle()
        seen.append("refused")

    await bus.start()
    bus.subscribe("topic", chain)
    bus.subscribe("wait", in_a_handler)
    bus.subscribe("gate", gate)
    await bus.wait_idle()
    await bus.publish(event(5))
    await bus.wait_idle()
    assert seen == [5, 4, 3, 2, 1, 0]
    await bus.publish(event(topic="wait"))
    await bus.wait_idle()
    assert seen[-1] == "refused"
    await bus.publish(event(topic="gate"))
    with pytest.raises(TimeoutError, match="1 calls left"):
        await bus.wait_idle(0.001)
    waiting = asyncio.create_task(bus.wait_idle())
    await turns()
    assert not waiting.done()
    gate.open()
    # The bus is idle, and busy again, before the waiting task has its turn: that is enough.
    await asyncio.create_task(bus.publish(event(100)))
    await turns(3)
    assert waiting.done()
    await bus.stop()
    await bus.wait_idle()


@twin("waits until the bus stays idle", "AssertionError: waiting.done()", "wait_idle")
async def _until_it_stays_idle(wait_idle: Any, bus: Any, timeout: float | None = None) -> None:
    await wait_idle(bus, timeout)
    while bus.stats.pending:
        await wait_idle(bus, timeout)


@twin(
    "does not wait for the calls that run",
    "AssertionError: seen == [5, 4, 3, 2, 1, 0]",
    "wait_idle",
)
async def _while_calls_wait(_: Any, bus: Any, timeout: float | None = None) -> None:
    await asyncio.sleep(0)


async def check_calls_that_end_beside_others(m: ModuleType) -> None:
    """They make no idle moment."""
    gate = Gate()
    async with running(m, 1) as bus:
        bus.subscribe("gate", gate)
        subscription = bus.subscribe("topic", lambda _: None)
        await bus.publish(event(topic="gate"))
        await turns()
        await bus.publish(event())
        waiting = asyncio.create_task(bus.wait_idle(0))
        await asyncio.sleep(0)  # it waits
        subscription.cancel()
        with pytest.raises(TimeoutError, match="1 calls left"):
            await waiting
        gate.open()


PROOFS = [
    Proof(
        "AB-8",
        check_a_stop_that_times_out,
        [
            _newest_first,
            _without_limit,
            Twin(
                "leaves a task behind",
                instead("start", leaves_a_task),
                "AssertionError: it leaves a task",
            ),
        ],
    ),
    Proof(
        "AB-8",
        check_stop_in_a_handler,
        [
            Twin(
                "waits in a handler for that handler",
                instead("stop", in_a_task),
                "AssertionError: returned == [[], []]",
            ),
            _drains,
        ],
    ),
    Proof("AB-8", check_a_stop_elsewhere_waits_for_the_handler_that_requested_it),
    Proof(
        "AB-8",
        check_two_buses_that_stop_each_other,
        [
            Twin(
                "waits in a handler for a bus whose handler waits for this one",
                instead("stop", in_a_task),
                "hang",
            )
        ],
    ),
    Proof("AB-8", check_a_block_in_a_handler),
    Proof("AB-8", check_a_restart_after_an_ordered_call_was_taken_back),
    Proof(
        "AB-8",
        check_a_second_stop_during_the_clean_up,
        [
            Twin(
                "cancels once more the handlers that clean up",
                _cancels_again(),
                'AssertionError: cleaned_up == ["it"]',
            )
        ],
    ),
    Proof(
        "AB-8",
        check_a_cancelled_stop,
        [
            Twin(
                "forgets what a cancelled stop took back",
                forgets_what_a_cancelled_stop_took_back(),
                "AssertionError: what the first one took back",
            ),
            _stops_although_cancelled,
        ],
    ),
    Proof("AB-8", check_repetitions_and_two_stops_at_once),
    Proof("AB-8", check_that_restarts_lose_nothing, [_cancels_first]),
    Proof("AB-8", check_a_loop_that_ends),
    Proof("AB-8", check_a_bus_whose_task_was_cancelled),
    Proof(
        "AB-10",
        check_wait_idle,
        [
            _until_it_stays_idle,
            _while_calls_wait,
            Twin("lets a handler wait for itself", instead("wait_idle", in_a_task), "hang"),
        ],
    ),
    Proof("AB-10", check_calls_that_end_beside_others),
]


@each_proof(PROOFS)
def test_stop(proof: Proof) -> None:
    hold(proof)


test_a_stop_that_loses_or_hangs_is_caught = failing(PROOFS, COMPONENT)
