"""AsyncEventBus: behaviour, bad input, other threads, leaks, and the twins of each check."""

import asyncio
import concurrent.futures
import contextvars
import functools
import gc
import logging
import math
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from reference_impl.buses import async_event_bus
from reference_impl.buses.event import (
    ANY,
    BusFull,
    BusStats,
    BusStopped,
    Event,
    Handler,
    Subscription,
)
from tests.contracts import bus_contract
from tests.kit.process import run_python
from tests.kit.twins import twin

if TYPE_CHECKING:
    from reference_impl.buses.async_event_bus import AsyncEventBus

FILE = "buses/async_event_bus.py"
EAGER = "if sys.version_info >= (3, 12) else {}"
T = TypeVar("T")
Check = Callable[[ModuleType], Coroutine[Any, Any, None]]


def event(payload: object = None, topic: str = "topic") -> Event:
    return Event.create(topic, payload)


async def turns(number: int = 20) -> None:
    """Give every other task of the loop `number` turns."""
    for _ in range(number):
        await asyncio.sleep(0)


@functools.cache
def builds() -> dict[str, ModuleType]:
    """The component as it is, and as it runs on 3.11, where no task is eager."""
    return {"as it is": async_event_bus, "plain tasks": twin(FILE, (EAGER, "if False else {}"))}


def run_all(check: Check) -> None:
    for module in builds().values():
        asyncio.run(check(module))


def catches(check: Check, *replacements: tuple[str, str]) -> None:
    """The check fails, or hangs, on the component with pieces of its source replaced."""
    broken = twin(FILE, *replacements)

    async def bounded() -> None:
        task = asyncio.create_task(check(broken))
        for _ in range(20_000):
            await asyncio.sleep(0)
            if task.done():
                return await task
        raise AssertionError("it hangs")

    with pytest.raises((Exception, pytest.fail.Exception)):
        asyncio.run(bounded())


class Gate:
    """A handler that notes the payloads that it was given and waits for `open()`."""

    def __init__(self) -> None:
        self.started: list[object] = []
        self.ended: list[object] = []
        self._opened = asyncio.Event()

    def open(self) -> None:
        self._opened.set()

    async def __call__(self, event: Event) -> None:
        self.started.append(event.payload)
        await self._opened.wait()
        self.ended.append(event.payload)


# AB-1: exactly once per subscription


async def check_once_per_subscription(module: ModuleType) -> None:
    seen: list[tuple[str, object]] = []

    async def slow(event: Event) -> None:
        await asyncio.sleep(0)
        seen.append(("slow", event.payload))

    def plain(event: Event) -> None:
        seen.append(("plain", event.payload))

    async with module.AsyncEventBus() as bus:
        for topic, handler in (("topic", slow), ("topic", slow), (ANY, plain), ("else", plain)):
            bus.subscribe(topic, handler)
        for payload in range(3):
            await bus.publish(event(payload))
        await bus.publish(event("no more", topic="nobody's"))
    expected = [("slow", n) for n in range(3)] * 2 + [("plain", n) for n in range(3)]
    assert sorted(seen, key=str) == sorted([*expected, ("plain", "no more")], key=str)
    assert bus.stats == BusStats(published=4, delivered=10, failed=0, dropped=0, pending=0)


@pytest.mark.guarantee("AB-1")
def test_each_subscription_is_called_once_for_each_event() -> None:
    run_all(check_once_per_subscription)


@pytest.mark.twin("AB-1")
def test_the_check_of_once_catches_a_bus_without_any() -> None:
    catches(check_once_per_subscription, (" + self._routes.get(ANY, ())", ""))


@pytest.mark.twin("AB-1")
def test_the_check_of_once_catches_a_handler_registered_once() -> None:
    catches(
        check_once_per_subscription,
        ("(*self._routes.get(event_type, ()), route)", "(route,)"),
    )


async def check_subscriptions_of_the_acceptance(module: ModuleType) -> None:
    """Who subscribes while a publisher waits for room is called; who left, is not."""
    gate = Gate()
    late: list[Event] = []
    gone: list[Event] = []
    async with module.AsyncEventBus(1, max_queue=1) as bus:
        bus.subscribe("topic", gate)
        leaving = bus.subscribe("topic", gone.append)
        await bus.publish(event(1, topic="topic"))
        waiting = asyncio.create_task(bus.publish(event(2)))
        await turns()
        assert not waiting.done()
        leaving.cancel()
        bus.subscribe("topic", late.append)
        gate.open()
        await waiting
    assert [e.payload for e in late] == [2]
    assert gone == []


@pytest.mark.guarantee("AB-1", "AB-5")
def test_who_subscribes_while_the_publisher_waits_is_called() -> None:
    run_all(check_subscriptions_of_the_acceptance)


@pytest.mark.twin("AB-1")
def test_the_check_of_acceptance_catches_subscriptions_taken_before_the_wait() -> None:
    catches(
        check_subscriptions_of_the_acceptance,
        (
            "        limit = check_timeout(timeout)\n        if not self._has_room(event):",
            "        limit = check_timeout(timeout)\n        routes = self._routes_of(event)\n"
            "        self._routes_of = lambda _: routes\n        if not self._has_room(event):",
        ),
    )


# AB-2: publications that race stop


async def check_publications_that_race_stop(module: ModuleType) -> None:
    gate = Gate()
    bus = module.AsyncEventBus(1, max_queue=1)
    bus.subscribe("topic", gate)
    await bus.start()
    await bus.publish(event("runs"))
    await turns()
    await bus.publish(event("waits"))
    in_line = asyncio.create_task(bus.publish(event("in line")))
    posted = bus.publish_threadsafe(event("posted"))
    await turns()
    stopping = asyncio.create_task(bus.stop())
    inbox = bus.publish_threadsafe(event("in the inbox"))  # where stop finds it
    await turns()
    assert in_line.done()
    assert isinstance(in_line.exception(), BusStopped)
    assert all(isinstance(f.exception(timeout=0), BusStopped) for f in (posted, inbox))
    with pytest.raises(BusStopped, match="stopping"):
        await bus.publish(event())
    with pytest.raises(BusStopped, match="stopping"):
        bus.publish_nowait(event())
    assert isinstance(bus.publish_threadsafe(event()).exception(timeout=0), BusStopped)
    assert not bus.is_running
    gate.open()
    assert await stopping == []
    assert gate.ended == ["runs", "waits"]
    assert bus.stats == BusStats(published=2, delivered=2, failed=0, dropped=0, pending=0)


@pytest.mark.guarantee("AB-2")
def test_a_publication_that_races_stop_is_accepted_or_refused() -> None:
    run_all(check_publications_that_race_stop)


@pytest.mark.twin("AB-2")
@pytest.mark.parametrize(
    "fault",
    [
        ("                self._refuse(waiter)\n", "                pass\n"),
        (
            ("                waiter.set_result(None)\n\n    def _abandon"),
            "                pass\n\n    def _abandon",
        ),
        (
            ("posted, self._inbox = self._inbox, []\n        line"),
            "posted: list[Any] = []\n        line",
        ),
        (
            ("if self._state != _RUNNING:\n            raise self._stopped()"),
            "if False:\n            pass",
        ),
    ],
    ids=["posted forgotten", "waiters forgotten", "inbox forgotten", "accepts while it drains"],
)
def test_the_check_of_stop_catches(fault: tuple[str, str]) -> None:
    catches(check_publications_that_race_stop, fault)


async def check_an_event_in_the_line_when_the_bus_restarts(module: ModuleType) -> None:
    """A publisher that was in line is refused, even if the bus runs again by its turn."""
    gate = Gate()
    bus = module.AsyncEventBus(1, max_queue=1)
    bus.subscribe("topic", gate)
    await bus.start()
    await bus.publish(event(1))
    await turns()
    await bus.publish(event(2))
    turn = asyncio.create_task(bus.publish(event(3)))
    await turns()
    assert [e.payload for e in await bus.stop(0)] == [2]
    await bus.start()
    with pytest.raises(BusStopped):
        await turn
    gate.open()
    await bus.stop()


@pytest.mark.guarantee("AB-2", "AB-8")
def test_a_waiting_publisher_is_refused_though_the_bus_restarts() -> None:
    run_all(check_an_event_in_the_line_when_the_bus_restarts)


# AB-3: failing handlers


async def check_failing_handlers(module: ModuleType) -> None:
    heard: list[tuple[object, type[BaseException]]] = []
    seen: list[object] = []

    async def on_error(event: Event, handler: object, error: BaseException) -> None:
        await asyncio.sleep(0)
        heard.append((event.payload, type(error)))

    def plain(event: Event) -> None:
        raise KeyError(event.payload)

    async def at_once(event: Event) -> None:
        raise ValueError(event.payload)

    async def later(event: Event) -> None:
        await asyncio.sleep(0)
        raise OSError(event.payload)

    async def cancelled(event: Event) -> None:
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    async def cancels_itself(event: Event) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    def wrong_signature() -> None:
        raise AssertionError("never called")

    handlers = [plain, at_once, later, cancelled, cancels_itself, wrong_signature]
    async with module.AsyncEventBus(2, on_error=on_error) as bus:
        for handler in handlers:
            bus.subscribe("topic", handler)
        bus.subscribe("topic", lambda e: seen.append(e.payload))
        for payload in (1, 2):
            await bus.publish(event(payload))
        await turns()
        await turns(100)
        assert bus.stats.pending == 0, "a slot or a call was lost"
    errors = [
        KeyError,
        ValueError,
        OSError,
        asyncio.CancelledError,
        asyncio.CancelledError,
        TypeError,
    ]
    assert sorted(map(str, heard)) == sorted(str((n, e)) for n in (1, 2) for e in errors)
    assert seen == [1, 2]
    assert bus.stats == BusStats(published=2, delivered=2, failed=12, dropped=0, pending=0)


@pytest.mark.guarantee("AB-3")
def test_a_failing_handler_harms_nobody_and_is_reported() -> None:
    run_all(check_failing_handlers)


@pytest.mark.twin("AB-3")
def test_the_check_of_failures_catches_a_missed_cancellederror() -> None:
    catches(
        check_failing_handlers,
        (
            "except BaseException as error:\n            await self",
            "except Exception as error:\n            await self",
        ),
    )


@pytest.mark.twin("AB-3")
def test_the_check_of_failures_catches_an_on_error_that_nobody_awaits() -> None:
    catches(
        check_failing_handlers,
        (
            (
                "result = self._on_error(event, handler, error)\n"
                "            if isawaitable(result):\n"
                "                await result"
            ),
            (
                "result = self._on_error(event, handler, error)\n"
                "            if isawaitable(result):\n"
                "                result.close()"
            ),
        ),
    )


def broken_on_error(*_: object) -> None:
    raise RuntimeError("on_error fails, too")


@pytest.mark.guarantee("AB-3")
@pytest.mark.parametrize("on_error", [None, broken_on_error])
def test_without_a_working_on_error_failures_are_logged(
    caplog: pytest.LogCaptureFixture, on_error: Any
) -> None:
    async def check(module: ModuleType) -> None:
        caplog.clear()

        def faulty(_: Event) -> None:
            raise ValueError("the handler's own")

        async with module.AsyncEventBus(on_error=on_error) as bus:
            bus.subscribe("topic", faulty)
            await bus.publish(event())
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
        error = RuntimeError if on_error else ValueError
        assert caplog.messages == [f"{on_error or faulty!r} failed on a 'topic' event"]
        assert caplog.records[0].exc_info is not None
        assert isinstance(caplog.records[0].exc_info[1], error)
        assert bus.stats.failed == 1

    run_all(check)
    broken = twin(FILE, ('_logger.error("%r failed', '_logger.debug("%r failed'))
    with pytest.raises(AssertionError):
        asyncio.run(check(broken))


@pytest.mark.guarantee("AB-3")
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_exit_in_a_handler_leaves_the_loop_and_is_counted(error: type[BaseException]) -> None:
    """SystemExit and KeyboardInterrupt end the loop, as they do in any of its tasks."""
    for module in builds().values():
        heard: list[BaseException] = []
        bus = module.AsyncEventBus(on_error=lambda _, __, e, heard=heard: heard.append(e))

        def leave(_: Event) -> None:
            raise error

        async def main(bus: Any = bus, leave: Any = leave) -> None:
            await bus.start()
            bus.subscribe("topic", leave)
            bus.publish_nowait(event())
            await asyncio.get_running_loop().create_future()

        with pytest.raises(error):
            asyncio.run(main())
        assert [type(e) for e in heard] == [error]
        assert bus.stats == BusStats(published=1, delivered=0, failed=1, dropped=0, pending=0)
        gc.collect()


# AB-4: cancelling a subscription


async def check_cancelling_with_calls_waiting(module: ModuleType) -> None:
    for ordered in (False, True):
        gate, other = Gate(), list[object]()
        async with module.AsyncEventBus(1, max_queue=3) as bus:
            subscription = bus.subscribe("topic", gate, ordered=ordered)
            for payload in range(4):
                await bus.publish(event(payload))
                await turns()
            with pytest.raises(BusFull):
                bus.publish_nowait(event())
            assert subscription.cancel()
            assert not subscription.cancel(), "idempotent"
            assert bus.stats == BusStats(4, delivered=0, failed=0, dropped=3, pending=1)
            bus.subscribe("topic", lambda e, other=other: other.append(e.payload))
            for letter in "abc":  # the room is free again
                bus.publish_nowait(event(letter))
            assert gate.ended == [], "the running call was not waited for"
            gate.open()
        assert gate.started == gate.ended == [0]
        assert other == ["a", "b", "c"]
        assert bus.stats == BusStats(7, delivered=4, failed=0, dropped=3, pending=0)


@pytest.mark.guarantee("AB-4")
def test_cancelling_drops_what_waits_and_frees_its_room() -> None:
    run_all(check_cancelling_with_calls_waiting)


@pytest.mark.twin("AB-4")
@pytest.mark.parametrize(
    "fault",
    [
        ("        self._drop(route)\n        return True", "        return True"),
        (
            ("            self._unqueue(call)\n        self._dropped"),
            "            pass\n        self._dropped",
        ),
        ("            dropped += route.mailbox\n", ""),
        ("self._subtract(len(dropped))", "pass"),
    ],
    ids=["nothing dropped", "room not freed", "mailbox forgotten", "pending not counted"],
)
def test_the_check_of_cancelling_catches(fault: tuple[str, str]) -> None:
    catches(check_cancelling_with_calls_waiting, fault)


@pytest.mark.guarantee("AB-4")
def test_subscribing_and_cancelling_in_a_handler() -> None:
    async def check(module: ModuleType) -> None:
        seen: list[object] = []
        async with module.AsyncEventBus() as bus:

            def once(event: Event) -> None:
                seen.append(event.payload)
                bus.unsubscribe("topic", once)
                bus.subscribe("topic", lambda e: seen.append(("then", e.payload)))

            bus.subscribe("topic", once)
            await bus.publish(event(1))
            await turns()
            await bus.publish(event(2))
        assert seen == [1, ("then", 2)]

    run_all(check)


def test_unsubscribe_finds_equal_handlers_of_exactly_this_topic() -> None:
    class Listener:
        def hear(self, event: Event) -> None: ...

    bus, listener = async_event_bus.AsyncEventBus(), Listener()
    bus.subscribe("topic", listener.hear)
    bus.subscribe("topic", listener.hear)
    assert not bus.unsubscribe(ANY, listener.hear)
    assert not bus.unsubscribe("topic", Listener().hear)
    assert bus.unsubscribe("topic", listener.hear)
    assert not bus.unsubscribe("topic", listener.hear)


# AB-5: backpressure


async def check_backpressure(module: ModuleType) -> None:
    gate = Gate()
    async with module.AsyncEventBus(1, max_queue=2) as bus:
        bus.subscribe("topic", gate)
        await bus.publish(event("runs"))
        await turns()
        await bus.publish(event(1))
        await bus.publish(event(2))
        for timeout in (0, 0.001):
            with pytest.raises(BusFull, match="2 events"):
                await bus.publish(event("refused"), timeout)
        with pytest.raises(BusFull):
            bus.publish_nowait(event("refused"))
        await bus.publish(event("free", topic="nobody's"))  # without a call it takes no room
        posted = bus.publish_threadsafe(event(3))
        waiting = asyncio.create_task(bus.publish(event(4)))
        with pytest.raises(BusFull):
            await bus.publish(event("refused"), 0.001)
        await turns()
        assert not waiting.done()
        assert not posted.done()
        assert bus.stats.pending == 3
        gate.open()
        await waiting
        assert posted.result(timeout=0) is None
    assert gate.ended == ["runs", 1, 2, 3, 4]
    assert bus.stats == BusStats(published=6, delivered=5, failed=0, dropped=0, pending=0)


@pytest.mark.guarantee("AB-5")
def test_a_full_bus_makes_publishers_wait_or_refuses() -> None:
    run_all(check_backpressure)


@pytest.mark.twin("AB-5")
@pytest.mark.parametrize(
    "fault",
    [
        ("full = self._line or self._backlog >= self._max_queue", "full = False"),
        ("while self._line and self._backlog < self._max_queue:", "while self._line:"),
        ("return not full or not self._routes_of(event)", "return not full"),
    ],
    ids=["no limit", "posted events pass it", "a call-less event waits"],
)
def test_the_check_of_backpressure_catches(fault: tuple[str, str]) -> None:
    catches(check_backpressure, fault)


async def check_a_handler_in_a_full_bus(module: ModuleType) -> None:
    """With the only slot and no room, a handler that waited for room would wait for itself."""
    heard: list[object] = []
    async with module.AsyncEventBus(1, max_queue=1) as bus:

        async def fills(first: Event) -> None:
            if first.payload != "start":
                return
            await asyncio.sleep(0)
            await bus.publish(event("fits"))
            for timeout in (0.001, None):
                try:
                    await bus.publish(event(), timeout)
                except BusFull as error:
                    heard.append(str(error))
            with pytest.raises(BusFull):
                bus.publish_nowait(event())
            # A task of its own is not the handler's, and may wait.
            background.append(asyncio.create_task(bus.publish(event("waited"))))

        background: list[asyncio.Task[None]] = []
        bus.subscribe("topic", fills)
        await bus.publish(event("start"))
        await bus.wait_idle()
        await asyncio.gather(*background)
    assert heard == [
        "event-bus holds 1 events: no room within 0.001 s; wait longer",
        "event-bus holds 1 events: a handler that waits may wait for itself: pass a timeout",
    ]
    assert bus.stats == BusStats(published=3, delivered=3, failed=0, dropped=0, pending=0)


@pytest.mark.guarantee("AB-5")
def test_a_handler_that_fills_the_bus_is_told_at_once() -> None:
    run_all(check_a_handler_in_a_full_bus)


@pytest.mark.twin("AB-5")
def test_the_check_of_a_full_handler_catches_one_that_waits_for_itself() -> None:
    catches(
        check_a_handler_in_a_full_bus,
        ("if limit is None and asyncio.current_task() in self._running:", "if limit is False:"),
    )


def test_a_handler_in_its_first_step_is_known_as_one() -> None:
    async def check(module: ModuleType) -> None:
        heard: list[str] = []
        async with module.AsyncEventBus(1, max_queue=1) as bus:

            async def at_once(_: Event) -> None:
                try:
                    await bus.wait_idle()
                except RuntimeError:
                    heard.append("wait_idle")
                with pytest.raises(BusFull):
                    for number in range(2):
                        await bus.publish(event(number, topic="topic 2"))
                heard.append("publish")

            bus.subscribe("topic", at_once)
            bus.subscribe("topic 2", lambda _: None)
            await bus.publish(event())
            await bus.wait_idle()
        assert heard == ["wait_idle", "publish"]

    run_all(check)


@pytest.mark.guarantee("AB-5", "AB-7")
def test_the_defaults_are_a_hundred_handlers_and_room_for_ten_thousand() -> None:
    async def check(module: ModuleType) -> None:
        gate = Gate()
        async with module.AsyncEventBus() as bus:
            assert "event-bus" in {task.get_name() for task in asyncio.all_tasks()}
            bus.subscribe("gate", gate)
            bus.subscribe("topic", lambda _: None)
            for number in range(102):
                await bus.publish(event(number, topic="gate"))
            await turns()
            assert len(gate.started) == 100
            assert not bus._scheduled, "it turns with the loop, though no call can start"
            for _ in range(9_998):
                bus.publish_nowait(event())
            with pytest.raises(BusFull, match=r"^event-bus holds 10000 events: "):
                bus.publish_nowait(event())
            gate.open()

    run_all(check)


# AB-6: order


async def check_order(module: ModuleType) -> None:
    seen: list[tuple[str, int]] = []
    running, free = 0, 0

    async def in_turn(event: Event) -> None:
        nonlocal running
        running += 1
        assert running == 1, "two at once"
        # Later events are quicker: without the order they would overtake.
        await turns(max(0, 20 - 2 * event.payload[1]))
        seen.append(event.payload)
        running -= 1

    def unhindered(_: Event) -> None:
        nonlocal free
        free += 1

    async def publisher(name: str) -> None:
        for number in range(10):
            await bus.publish(event((name, number)))
            await asyncio.sleep(0)

    async with module.AsyncEventBus(4) as bus:
        bus.subscribe("topic", in_turn, ordered=True)
        bus.subscribe("topic", unhindered)
        await asyncio.gather(publisher("a"), publisher("b"))
        await turns(3)
        assert free == 20, "the ordered subscription holds up the other"
        assert len(seen) < 20
        await bus.wait_idle()
        await bus.publish(event(("a", 10)))
        await turns()
        assert seen.pop() == ("a", 10)
    for name in "ab":
        assert [number for who, number in seen if who == name] == list(range(10))
    assert bus.stats.delivered == 42


@pytest.mark.guarantee("AB-6")
def test_ordered_calls_come_one_by_one_in_each_publishers_order() -> None:
    run_all(check_order)


@pytest.mark.twin("AB-6")
@pytest.mark.parametrize(
    "fault",
    [
        ("route.busy = route.ordered", "route.busy = False"),
        ("route.mailbox.popleft()", "route.mailbox.pop()"),
        (
            ("            route.busy = False\n        self._subtract(1)"),
            "            pass\n        self._subtract(1)",
        ),
    ],
    ids=["no order", "last in first out", "stuck after the first"],
)
def test_the_check_of_order_catches(fault: tuple[str, str]) -> None:
    catches(check_order, fault)


async def check_the_line_for_room(module: ModuleType) -> None:
    """Publishers are served in the order in which they came, tasks and threads alike."""
    gate, accepted = Gate(), []
    async with module.AsyncEventBus(1, max_queue=1) as bus:
        bus.subscribe("topic", gate, ordered=True)
        await bus.publish(event("runs"))
        await turns()
        await bus.publish(event("waits"))

        async def publish(number: int) -> None:
            await bus.publish(event(number))
            accepted.append(number)

        tasks = []
        for number in range(6):
            if number == 3:
                bus.publish_threadsafe(event(3)).add_done_callback(lambda _: accepted.append(3))
            else:
                tasks.append(asyncio.create_task(publish(number)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        tasks[1].cancel()
        gate.open()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert accepted == [0, 2, 3, 4, 5]
    assert gate.ended == ["runs", "waits", 0, 2, 3, 4, 5]


@pytest.mark.guarantee("AB-6", "AB-5")
def test_who_waits_for_room_is_served_first_come_first_served() -> None:
    run_all(check_the_line_for_room)


@pytest.mark.twin("AB-6")
def test_the_check_of_the_line_catches_a_publisher_that_passes_it() -> None:
    catches(
        check_the_line_for_room,
        ("self._line.append(turn)", "self._line.appendleft(turn)"),
    )


async def check_room_for_two(module: ModuleType) -> None:
    """Room that comes free all at once reaches all who wait for it, not the first alone."""
    gate = Gate()
    async with module.AsyncEventBus(1, max_queue=2) as bus:
        bus.subscribe("topic", gate)
        doomed = bus.subscribe("doomed", gate)
        await bus.publish(event("runs"))
        await turns()
        for _ in range(2):
            await bus.publish(event(topic="doomed"))
        tasks = [asyncio.create_task(bus.publish(event(number))) for number in range(3)]
        await turns()
        doomed.cancel()
        await turns()
        assert [task.done() for task in tasks] == [True, True, False]
        gate.open()
        await asyncio.gather(*tasks)


@pytest.mark.guarantee("AB-5")
def test_all_room_is_given_away() -> None:
    run_all(check_room_for_two)


@pytest.mark.twin("AB-5")
@pytest.mark.parametrize(
    "fault",
    [
        ("        if self._line:\n            self._offer()\n", ""),
        ("        self._offer()\n        return dropped", "        return dropped"),
    ],
    ids=["not after an acceptance", "not after a cancellation"],
)
def test_the_check_of_room_catches(fault: tuple[str, str]) -> None:
    catches(check_room_for_two, fault)


# AB-7: concurrency and idleness


async def check_concurrency(module: ModuleType) -> None:
    now = most = 0

    async def handler(_: Event) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await turns(3)
        now -= 1

    async with module.AsyncEventBus(3) as bus:
        bus.subscribe("topic", handler)
        before = len(asyncio.all_tasks())
        for _ in range(50):
            await bus.publish(event())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) - before <= 3, "a task for a call that waits"
    assert most == 3
    assert bus.stats.delivered == 50


@pytest.mark.guarantee("AB-7")
def test_no_more_than_max_concurrency_run_and_waiting_calls_have_no_task() -> None:
    run_all(check_concurrency)


@pytest.mark.twin("AB-7")
def test_the_check_of_concurrency_catches_one_too_many() -> None:
    catches(
        check_concurrency,
        (
            "if not self._ready or self._active >= self._max_concurrency:",
            "if not self._ready or self._active > self._max_concurrency:",
        ),
    )


@pytest.mark.twin("AB-7")
def test_the_check_of_concurrency_catches_slots_that_are_lost() -> None:
    catches(
        check_concurrency,
        ("        self._active -= 1\n        route = call.route", "        route = call.route"),
    )


async def check_that_the_loop_does_not_starve(module: ModuleType) -> None:
    """A handler that publishes for ever leaves the loop's other tasks their turns."""
    left = 20_000

    def again(_: Event) -> None:
        nonlocal left
        left -= 1
        if left > 0:
            bus.publish_nowait(event())

    async with module.AsyncEventBus() as bus:
        bus.subscribe("topic", again)
        await bus.publish(event())
        await turns(10)
        assert 0 < left < 20_000
        left = 0


@pytest.mark.guarantee("AB-7")
def test_a_handler_that_publishes_for_ever_starves_nobody() -> None:
    run_all(check_that_the_loop_does_not_starve)


@pytest.mark.twin("AB-7")
@pytest.mark.skipif(sys.version_info < (3, 12), reason="a task that is not eager takes a turn")
def test_the_check_of_starvation_catches_a_dispatcher_without_slices() -> None:
    catches(check_that_the_loop_does_not_starve, ("_SLICE = 32", "_SLICE = 10**9"))


# AB-8: stop


async def check_a_stop_that_times_out(module: ModuleType) -> None:
    cleaned_up: list[object] = []
    heard: list[object] = []
    told: list[object] = []

    async def hangs(event: Event) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await turns(3)
            cleaned_up.append(event.payload)

    async def swallows(event: Event) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await turns(5)
            cleaned_up.append("swallowed")

    def on_error(event: Event, handler: object, error: BaseException) -> None:
        assert isinstance(error, asyncio.CancelledError)
        heard.append(event.payload)
        if handler is not hangs:
            told.append((handler, str(error)))

    bus = module.AsyncEventBus(3, on_error=on_error)
    await bus.start()
    bus.subscribe("topic", hangs, ordered=True)
    bus.subscribe("topic", hangs)
    bus.subscribe("else", swallows)
    await bus.publish(event("else", topic="else"))
    for payload in range(4):
        await bus.publish(event(payload))
    await turns()
    left = await bus.stop(0.001)
    assert [e.payload for e in left] == [1, 2, 3]
    assert sorted(cleaned_up, key=str) == [0, 0, "swallowed"], "the clean-up was not awaited"
    assert sorted(heard, key=str) == [0, 0, "else"]
    assert told == [(swallows, "by stop(), though the handler went on to its end")]
    assert bus.stats == BusStats(published=5, delivered=0, failed=3, dropped=6, pending=0)
    assert len(asyncio.all_tasks()) == 1 + tasks_of_the_harness()
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


def tasks_of_the_harness() -> int:
    """0, or 1 where `catches` runs the check in a task of its own."""
    return sum("bounded" in repr(task.get_coro()) for task in asyncio.all_tasks())


@pytest.mark.guarantee("AB-8")
def test_a_stop_that_times_out_cancels_and_returns_what_did_not_start() -> None:
    run_all(check_a_stop_that_times_out)


@pytest.mark.twin("AB-8")
@pytest.mark.parametrize(
    "fault",
    [
        ("        return [taken[number] for number in sorted(taken)]", "        return []"),
        ("in sorted(taken)", "in reversed(sorted(taken))"),
        ("self._taken[call.accepted.number] =", "self._taken[id(call)] ="),
        ("                task.cancel()\n", "                pass\n"),
        (
            (
                "                self._cancel_running()\n"
                "                await self._reached(over, None)"
            ),
            "                self._cancel_running()",
        ),
        ("call.delivered = not call.cancelled", "call.delivered = True"),
        (
            ("                self._take_back()\n                self._cancel"),
            "                self._cancel",
        ),
        (
            "            keeper.cancel()\n",
            (
                "            self._abandon(keeper); self._keeper = keeper = "
                "asyncio.create_task(asyncio.sleep(0))\n"
            ),
        ),
    ],
    ids=[
        "returns nothing",
        "out of order",
        "returns twice",
        "does not cancel",
        "does not await the clean-up",
        "a swallowed cancellation delivers",
        "takes nothing back",
        "leaves its keeper",
    ],
)
def test_the_check_of_a_timed_out_stop_catches(fault: tuple[str, str]) -> None:
    catches(check_a_stop_that_times_out, fault)


async def check_stop_in_a_handler(module: ModuleType) -> None:
    """It drains what others can handle, and takes back what waits behind itself."""
    for limit, ordered, expected in ((2, False, []), (2, True, [1, 2]), (1, False, [1, 2])):
        left: list[object] = []
        seen: list[object] = []
        bus = module.AsyncEventBus(limit)

        async def stopper(event: Event, bus: Any = bus, left: Any = left, seen: Any = seen) -> None:
            seen.append(event.payload)
            if event.payload == 0:
                await asyncio.sleep(0)
                left.extend(e.payload for e in await bus.stop())
                left.append("returned")

        await bus.start()
        bus.subscribe("topic", stopper, ordered=ordered)
        for payload in range(3):
            await bus.publish(event(payload))
        await turns(50)
        assert left == [*expected, "returned"]
        assert sorted([*seen, *left[:-1]], key=str) == [0, 1, 2]
        assert not bus.is_running
        assert bus.stats.pending == 0
        await bus.start()
        await bus.publish(event("again"))
        assert await bus.stop() == []
        assert seen[-1] == "again"


@pytest.mark.guarantee("AB-8")
def test_stop_in_a_handler_waits_for_all_others_and_for_nothing_else() -> None:
    run_all(check_stop_in_a_handler)


@pytest.mark.twin("AB-8")
@pytest.mark.parametrize(
    "fault",
    [
        (
            ("        if me is not None:\n            self._enter_stop(me)"),
            "        if False:\n            pass",
        ),
        ("        elif me.route.ordered:\n            self._take_back(me.route)", ""),
        ("if len(self._inside) == self._max_concurrency:", "if False:"),
    ],
    ids=["waits for itself", "waits for its mailbox", "waits for its slot"],
)
def test_the_check_of_stop_in_a_handler_catches(fault: tuple[str, str]) -> None:
    catches(check_stop_in_a_handler, fault)


async def check_stop_in_an_ordered_handler(module: ModuleType) -> None:
    """It takes back what waits behind itself, and no call that another slot can handle."""
    left: list[object] = []
    others: list[object] = []
    bus = module.AsyncEventBus(2)

    async def stopper(_: Event) -> None:
        bus.publish_nowait(event("other's", topic="other"))
        left.extend(e.payload for e in await bus.stop())

    await bus.start()
    bus.subscribe("topic", stopper, ordered=True)
    bus.subscribe("other", lambda e: others.append(e.payload))
    for payload in range(3):
        await bus.publish(event(payload))
    await turns(50)
    assert left == [1, 2]
    assert others == ["other's"]


@pytest.mark.guarantee("AB-8")
def test_stop_in_an_ordered_handler_takes_back_its_own_calls_alone() -> None:
    run_all(check_stop_in_an_ordered_handler)


@pytest.mark.guarantee("AB-8", "AB-6")
def test_an_ordered_call_that_was_taken_back_holds_up_nothing_after_a_restart() -> None:
    async def check(module: ModuleType) -> None:
        gate = Gate()
        seen: list[object] = []
        bus = module.AsyncEventBus(1)
        bus.subscribe("gate", gate)
        bus.subscribe("topic", lambda e: seen.append(e.payload), ordered=True)
        await bus.start()
        await bus.publish(event(topic="gate"))
        await turns()
        await bus.publish(event(1))
        await bus.publish(event(2))
        assert [e.payload for e in await bus.stop(0)] == [1, 2]
        await bus.start()
        await bus.publish(event(3))
        await turns()
        assert seen == [3]
        await bus.stop()

    run_all(check)


@pytest.mark.guarantee("AB-8")
def test_a_second_stop_does_not_interrupt_the_clean_up() -> None:
    async def check(module: ModuleType) -> None:
        cleaning_up, finish = asyncio.Event(), asyncio.Event()
        cleaned_up: list[object] = []

        async def hangs(event: Event) -> None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                cleaning_up.set()
                await finish.wait()
                cleaned_up.append(event.payload)

        bus = module.AsyncEventBus()
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

    run_all(check)


async def check_a_cancelled_stop(module: ModuleType) -> None:
    gate = Gate()
    bus = module.AsyncEventBus(1)
    await bus.start()
    bus.subscribe("topic", gate)
    for payload in range(3):
        await bus.publish(event(payload))
    await turns()
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
    assert [e.payload for e in await bus.stop()] == [1, 2], "what the first one took back"
    assert gate.ended == [0]
    await bus.start()
    assert await bus.stop() == []


@pytest.mark.guarantee("AB-8")
def test_a_cancelled_stop_stays_stopping_and_the_next_one_finishes() -> None:
    run_all(check_a_cancelled_stop)


@pytest.mark.twin("AB-8")
@pytest.mark.parametrize(
    "fault",
    [
        (
            ("            if me is not None:\n                self._inside.discard(me)"),
            "            self._taken = {}",
        ),
        (
            ("            if me is not None:\n                self._inside.discard(me)"),
            "            self._state = _STOPPED",
        ),
    ],
    ids=["forgets what it took back", "is stopped at once"],
)
def test_the_check_of_a_cancelled_stop_catches(fault: tuple[str, str]) -> None:
    catches(check_a_cancelled_stop, fault)


@pytest.mark.guarantee("AB-8")
def test_start_and_stop_can_be_repeated_and_two_stops_can_race() -> None:
    async def check(module: ModuleType) -> None:
        gate = Gate()
        bus = module.AsyncEventBus(1)
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

    run_all(check)


async def check_that_restarts_lose_nothing(module: ModuleType) -> None:
    handled: list[object] = []

    async def handler(event: Event) -> None:
        await turns(2)
        handled.append(event.payload)

    bus = module.AsyncEventBus(4)
    bus.subscribe("topic", handler)
    for cycle in range(50):
        await bus.start()
        for number in range(8):
            await bus.publish(event(8 * cycle + number))
            await asyncio.sleep(0)
        assert await bus.stop() == []
    assert sorted(handled, key=str) == sorted(range(400), key=str)


@pytest.mark.guarantee("AB-1", "AB-8")
def test_four_hundred_events_over_fifty_restarts_are_all_handled() -> None:
    run_all(check_that_restarts_lose_nothing)


@pytest.mark.twin("AB-8")
def test_the_check_of_restarts_catches_a_stop_that_cancels_first() -> None:
    catches(
        check_that_restarts_lose_nothing,
        ("            if not await self._reached(over, limit):", "            if True:"),
    )


async def check_that_handlers_may_publish(module: ModuleType) -> None:
    """However deep, and with one slot: nothing waits for the publishing handler's slot."""
    handled: list[object] = []

    async def handler(event_: Event) -> None:
        if event_.payload:
            await bus.publish(event(event_.payload - 1))
        handled.append(event_.payload)

    async with module.AsyncEventBus(1) as bus:
        bus.subscribe("topic", handler)
        await bus.publish(event(1000))
        await bus.wait_idle()
    assert handled == list(range(1000, -1, -1)), "breadth first"


@pytest.mark.guarantee("AB-7", "AB-10")
def test_a_handler_may_publish_at_the_limit_of_concurrency() -> None:
    run_all(check_that_handlers_may_publish)


@pytest.mark.twin("AB-7", "AB-10")
def test_the_check_of_publishing_catches_a_publisher_that_waits_for_its_handlers() -> None:
    catches(
        check_that_handlers_may_publish,
        (
            "        if self._line:\n            self._offer()\n",
            "        await self._reached(lambda: not self._pending, None)\n",
        ),
    )


# AB-9: contexts

who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


async def check_contexts(module: ModuleType) -> None:
    seen: list[str] = []

    async def handler(event: Event) -> None:
        seen.append(who.get())
        who.set("a handler")
        await asyncio.sleep(0)
        assert who.get() == "a handler"
        if event.payload == "fail":
            raise ValueError

    async def publisher(name: str) -> None:
        who.set(name)
        await bus.publish(event())
        await bus.publish(event("fail"))

    def on_error(*_: object) -> None:
        seen.append("on_error in " + who.get())

    async with module.AsyncEventBus(on_error=on_error) as bus:
        bus.subscribe("topic", handler)
        bus.subscribe("topic", handler)
        await asyncio.gather(publisher("a"), publisher("b"))
        context = contextvars.copy_context()
        context.run(who.set, "a thread")
        context.run(bus.publish_threadsafe, event())
        await turns()
        assert who.get() == "nobody"
    expected = ["a"] * 4 + ["b"] * 4 + ["a thread"] * 2 + ["on_error in a handler"] * 4
    assert sorted(seen) == sorted(expected)


@pytest.mark.guarantee("AB-9")
def test_each_call_has_its_own_copy_of_the_publishers_context() -> None:
    run_all(check_contexts)


@pytest.mark.twin("AB-9")
@pytest.mark.parametrize(
    "fault",
    [
        ("call.accepted.context.copy()", "call.accepted.context"),
        ("call.accepted.context.copy()", "copy_context()"),
    ],
    ids=["one copy for all calls", "the dispatcher's context"],
)
def test_the_check_of_contexts_catches(fault: tuple[str, str]) -> None:
    catches(check_contexts, fault)


# AB-10: wait_idle


async def check_wait_idle(module: ModuleType) -> None:
    seen: list[object] = []
    gate = Gate()
    bus = module.AsyncEventBus()
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
    assert not bus._watchers, "it leaves something behind"
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


@pytest.mark.guarantee("AB-10")
def test_wait_idle_returns_once_the_bus_was_idle() -> None:
    run_all(check_wait_idle)


@pytest.mark.twin("AB-10")
@pytest.mark.parametrize(
    "fault",
    [
        ("            self._idle_moments += 1\n", "            pass\n"),
        ("return not self._pending or self._idle", "return not self._backlog or self._idle"),
        (
            ("if asyncio.current_task() in self._running:\n            raise RuntimeError"),
            "if False:\n            raise RuntimeError",
        ),
    ],
    ids=["misses a moment", "ignores what runs", "waits for itself"],
)
def test_the_check_of_wait_idle_catches(fault: tuple[str, str]) -> None:
    catches(check_wait_idle, fault)


@pytest.mark.guarantee("AB-10")
def test_calls_that_end_beside_others_make_no_idle_moment() -> None:
    async def check(module: ModuleType) -> None:
        gate = Gate()
        async with module.AsyncEventBus(1) as bus:
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

    run_all(check)


# Other threads


def check_threads(module: ModuleType) -> None:
    """Many threads into a small, busy bus: each event once, in each thread's order."""
    seen: list[tuple[int, int]] = []
    names, each = range(4), 50  # as many as the default executor surely has threads
    barrier = threading.Barrier(len(names))
    futures: dict[int, list[concurrent.futures.Future[None]]] = {name: [] for name in names}

    async def handler(event: Event) -> None:
        seen.append(event.payload)
        await asyncio.sleep(0)

    async def main() -> None:
        def post(name: int) -> None:
            barrier.wait()
            for number in range(each):
                futures[name].append(bus.publish_threadsafe(event((name, number))))

        async with module.AsyncEventBus(2, max_queue=3) as bus:
            bus.subscribe("topic", handler, ordered=True)
            async with asyncio.TaskGroup() as group:
                for name in names:
                    group.create_task(asyncio.to_thread(post, name))
            for name in names:
                await asyncio.gather(*map(asyncio.wrap_future, futures[name]))
        assert bus.stats.published == bus.stats.delivered == len(names) * each

    asyncio.run(main())
    for name in names:
        assert [number for who, number in seen if who == name] == list(range(each))


@pytest.mark.guarantee("AB-1", "AB-5", "AB-6")
def test_events_from_many_threads_arrive_once_and_in_order() -> None:
    for module in builds().values():
        check_threads(module)


@pytest.mark.guarantee("AB-2")
def test_events_posted_while_the_bus_closes_settle() -> None:
    """Threads post on while the bus stops, the loop closes, and after: every future settles."""
    for _ in range(20):
        posted: list[concurrent.futures.Future[None]] = []
        running, enough = threading.Barrier(3), threading.Event()
        bus = async_event_bus.AsyncEventBus(2, max_queue=2)
        seen: list[Event] = []

        def post(posted: Any = posted, bus: Any = bus, running: Any = running) -> None:
            running.wait()
            while not enough.is_set():  # noqa: B023
                posted.append(bus.publish_threadsafe(event()))

        async def main(bus: Any = bus, seen: Any = seen, running: Any = running) -> None:
            bus.subscribe("topic", seen.append)
            await bus.start()
            await asyncio.to_thread(running.wait)
            await turns()
            assert await bus.stop() == []

        threads = [threading.Thread(target=post) for _ in range(2)]
        for thread in threads:
            thread.start()
        asyncio.run(main())
        enough.set()
        for thread in threads:
            thread.join()
        done, pending = concurrent.futures.wait(posted, timeout=0)
        assert not pending
        accepted = sum(future.exception() is None for future in done)
        assert accepted == len(seen) == bus.stats.delivered
        assert all(isinstance(f.exception(), BusStopped | None) for f in done)


async def check_a_posted_event_that_is_cancelled(module: ModuleType) -> None:
    gate = Gate()
    async with module.AsyncEventBus(1, max_queue=1) as bus:
        bus.subscribe("topic", gate)
        await bus.publish(event(0))
        await turns()
        await bus.publish(event(1))
        futures = [bus.publish_threadsafe(event(payload)) for payload in (2, 3, 4)]
        await turns()
        assert futures[1].cancel()
        gate.open()
        await asyncio.wrap_future(futures[2])
    assert gate.ended == [0, 1, 2, 4]
    assert futures[0].result(0) is futures[2].result(0) is None
    assert bus.stats.published == 4


@pytest.mark.guarantee("AB-2")
def test_a_posted_event_can_be_cancelled_until_it_is_accepted() -> None:
    run_all(check_a_posted_event_that_is_cancelled)


@pytest.mark.twin("AB-2")
def test_the_check_of_cancelled_posts_catches_one_that_is_accepted_all_the_same() -> None:
    catches(
        check_a_posted_event_that_is_cancelled,
        (
            "if head.future.set_running_or_notify_cancel():",
            "if head.future.set_running_or_notify_cancel() or True:",
        ),
    )


@pytest.mark.guarantee("AB-2", "AB-8")
def test_a_loop_that_ends_without_stop_settles_everything(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """asyncio.run cancels the bus's tasks: nothing hangs, nothing more is started."""
    for module in builds().values():
        gate: list[object] = []
        bus = module.AsyncEventBus(1, max_queue=1)
        futures: list[concurrent.futures.Future[None]] = []

        async def hangs(event: Event, gate: Any = gate) -> None:
            gate.append(event.payload)
            await asyncio.get_running_loop().create_future()

        async def main(bus: Any = bus, futures: Any = futures, hangs: Any = hangs) -> None:
            await bus.start()
            bus.subscribe("topic", hangs)
            await bus.publish(event(0))
            await turns()
            await bus.publish(event(1))
            futures.append(bus.publish_threadsafe(event(2)))
            await turns()
            futures.append(bus.publish_threadsafe(event(3)))

        asyncio.run(main())
        futures.append(bus.publish_threadsafe(event(4)))
        assert all(isinstance(future.exception(0), BusStopped) for future in futures)
        assert gate == [0]
        assert not bus.is_running
        assert bus.stats == BusStats(published=2, delivered=0, failed=1, dropped=1, pending=0)
        gc.collect()


@pytest.mark.guarantee("AB-8")
@pytest.mark.parametrize("bus_first", [False, True])
def test_a_loop_that_ends_starts_no_handler_whatever_it_cancels_first(bus_first: bool) -> None:
    async def check(module: ModuleType) -> None:
        gate = Gate()
        bus = module.AsyncEventBus(1)
        mine = asyncio.all_tasks()
        await bus.start()
        bus.subscribe("topic", gate)
        await bus.publish(event(0))
        await bus.publish(event(1))
        await turns()
        tasks = asyncio.all_tasks() - mine
        for task in sorted(tasks, key=lambda task: (task is bus._keeper) != bus_first):
            task.cancel()  # as asyncio.run does
        await turns()
        assert gate.started == [0]
        assert not bus.is_running
        assert bus.stats == BusStats(published=2, delivered=0, failed=1, dropped=1, pending=0)

    run_all(check)


@pytest.mark.guarantee("AB-2")
def test_what_is_posted_to_a_stopped_bus_is_refused_once_and_forgotten() -> None:
    async def check(module: ModuleType) -> None:
        faults: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, about: faults.append(about))
        bus = module.AsyncEventBus()
        await bus.start()
        await bus.stop()
        assert isinstance(bus.publish_threadsafe(event()).exception(0), BusStopped)
        await turns()
        async with bus:
            await turns()
        assert faults == []
        assert bus.stats.published == 0

    run_all(check)


def test_a_closed_loop_refuses_what_is_posted() -> None:
    bus = async_event_bus.AsyncEventBus()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(bus.start())
    loop.close()
    assert isinstance(bus.publish_threadsafe(event()).exception(0), BusStopped)
    del bus._keeper  # else its destruction is reported, as it should be


def test_a_forked_child_is_refused() -> None:
    run_python(
        """
        import asyncio, os
        from reference_impl.buses.async_event_bus import AsyncEventBus
        from reference_impl.buses.event import BusStopped, Event

        async def main():
            async with AsyncEventBus() as bus:
                bus._lock.acquire()  # as another thread may hold it
                child = os.fork()
                if not child:
                    error = bus.publish_threadsafe(Event.create("topic")).exception(0)
                    os._exit(0 if isinstance(error, BusStopped) else 1)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                bus._lock.release()

        asyncio.run(main())
        """
    )


def test_a_thread_that_waits_on_an_abandoned_bus_does_not_hold_up_the_exit() -> None:
    done = run_python(
        """
        import asyncio, threading
        from reference_impl.buses.async_event_bus import AsyncEventBus
        from reference_impl.buses.event import Event

        bus = AsyncEventBus(1, max_queue=1, on_error=lambda *_: None)

        def post():
            futures = [bus.publish_threadsafe(Event.create("topic")) for _ in range(5)]
            posted.set()
            print([type(future.exception()).__name__ for future in futures])

        async def hangs(event):
            await asyncio.get_running_loop().create_future()

        async def main():
            await bus.start()
            bus.subscribe("topic", hangs)
            thread.start()
            await asyncio.to_thread(posted.wait)
            for _ in range(5):
                await asyncio.sleep(0)

        posted, thread = threading.Event(), threading.Thread(target=post)
        asyncio.run(main())
        """
    )
    assert done.stdout == str(["NoneType"] * 2 + ["BusStopped"] * 3) + "\n"
    assert done.stderr == ""


# One loop, bad input, tasks that others cancel, memory


def test_a_second_loop_is_refused() -> None:
    bus = async_event_bus.AsyncEventBus()
    uses: list[Callable[[], Coroutine[Any, Any, object]]] = [
        bus.start,
        bus.stop,
        bus.wait_idle,
        lambda: bus.publish(event()),
    ]
    asyncio.run(bus.start())  # and its loop is gone
    for use in uses:
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(use())

    async def plain_methods() -> None:
        for plain in (
            lambda: bus.publish_nowait(event()),
            lambda: bus.subscribe("topic", print),
        ):
            with pytest.raises(RuntimeError, match="another event loop"):
                plain()

    asyncio.run(plain_methods())


def test_a_thread_without_a_loop_is_refused_while_the_loop_runs() -> None:
    async def main() -> None:
        async with async_event_bus.AsyncEventBus() as bus:
            subscription = bus.subscribe("topic", print)
            for use in (lambda: bus.publish_nowait(event()), subscription.cancel):
                with pytest.raises(RuntimeError, match=r"and publish_threadsafe from .* threads$"):
                    await asyncio.to_thread(use)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_concurrency": 0}, ValueError, "max_concurrency.*0"),
        ({"max_concurrency": -1}, ValueError, "max_concurrency.*-1"),
        ({"max_concurrency": 1.5}, TypeError, r"max_concurrency.*1\.5"),
        ({"max_concurrency": True}, TypeError, "max_concurrency.*True"),
        ({"max_queue": 0}, ValueError, "max_queue.*0"),
        ({"max_queue": "9"}, TypeError, "max_queue.*'9'"),
        ({"on_error": 5}, TypeError, "on_error.*5"),
    ],
)
def test_bad_arguments_are_named(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        async_event_bus.AsyncEventBus(**arguments)


def test_bad_input_changes_nothing() -> None:
    async def main() -> None:
        seen: list[object] = []
        bus = async_event_bus.AsyncEventBus()
        bad: Any
        for refused in (bus.publish(event()), bus.publish(event(), 1.0)):
            with pytest.raises(BusStopped, match=r"not running: await start"):
                await refused
        with pytest.raises(BusStopped):
            bus.publish_nowait(event())
        assert isinstance(bus.publish_threadsafe(event()).exception(0), BusStopped)
        async with bus:
            bus.subscribe("topic", lambda e: seen.append(e.payload))
            for bad in ("text", None, 3):
                with pytest.raises(TypeError, match="event must be an Event"):
                    await bus.publish(bad)
                with pytest.raises(TypeError, match="event must be an Event"):
                    bus.publish_nowait(bad)
                with pytest.raises(TypeError, match="event must be an Event"):
                    bus.publish_threadsafe(bad)
                with pytest.raises(TypeError, match="handler must be callable"):
                    bus.subscribe("topic", bad)
            with pytest.raises(TypeError, match=r"event_type.*\[\]"):
                bus.subscribe([], print)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match=r"event_type.*\[\]"):
                bus.unsubscribe([], print)  # type: ignore[arg-type]
            for bad, error in ((-1, ValueError), (math.nan, ValueError), ("1", TypeError)):
                for use in (
                    lambda bad=bad: bus.publish(event(), bad),
                    lambda bad=bad: bus.stop(bad),
                    lambda bad=bad: bus.wait_idle(bad),
                ):
                    with pytest.raises(error, match="timeout"):
                        await use()
            assert bus.is_running
            assert bus.stats == BusStats(0, 0, 0, 0, 0)
            await bus.publish(event("good"), math.inf)
            await bus.wait_idle(math.inf)
        assert seen == ["good"]

    asyncio.run(main())


async def check_tasks_that_others_cancel(module: ModuleType) -> None:
    """Whoever cancels every task he sees loses no call that had not started."""
    heard: list[object] = []
    gate = Gate()
    bus = module.AsyncEventBus(on_error=lambda e, _, error: heard.append((e.payload, type(error))))
    await bus.start()
    for ordered in (False, True):
        bus.subscribe("topic", gate, ordered=ordered)
    mine = asyncio.all_tasks()
    await bus.publish(event(1))
    await bus.publish(event(2))
    while not asyncio.all_tasks() - mine:
        await asyncio.sleep(0)
    for task in asyncio.all_tasks() - mine:
        task.cancel()
    gate.open()
    await bus.wait_idle()
    stats = bus.stats
    assert stats.pending == stats.dropped == 0
    assert stats.delivered + stats.failed == 4
    assert len(gate.ended) == stats.delivered
    assert len(heard) == stats.failed
    assert len(gate.started) == 4, "a call was lost"
    await bus.stop()


@pytest.mark.guarantee("AB-1", "AB-3")
def test_a_task_cancelled_before_its_first_step_loses_no_call() -> None:
    run_all(check_tasks_that_others_cancel)


@pytest.mark.twin("AB-1")
@pytest.mark.parametrize(
    "fault",
    [
        ("                self._put_back(call)\n", ""),
        ("                self._put_back(call)\n", "                self._settle(call)\n"),
    ],
    ids=["its slot is lost", "its call is lost"],
)
def test_the_check_of_cancelled_tasks_catches(fault: tuple[str, str]) -> None:
    catches(check_tasks_that_others_cancel, (EAGER, "if False else {}"), fault)


async def check_a_stop_before_the_first_step(module: ModuleType) -> None:
    gate = Gate()
    bus = module.AsyncEventBus(1)
    await bus.start()
    bus.subscribe("topic", gate)
    for payload in range(3):
        await bus.publish(event(payload))
    bus._dispatch()
    left = await bus.stop(0)
    assert [*gate.started, *(e.payload for e in left)] == [0, 1, 2]
    assert bus.stats.pending == 0


@pytest.mark.guarantee("AB-8")
def test_a_stop_that_times_out_returns_a_call_whose_task_had_no_step() -> None:
    run_all(check_a_stop_before_the_first_step)


async def cancel_before_the_first_step(bus: Any) -> None:
    """Start what may start, and cancel its tasks at once: its calls are put back."""
    mine = asyncio.all_tasks()
    bus._dispatch()
    tasks = asyncio.all_tasks() - mine
    assert len(tasks) == 1
    for task in tasks:
        task.cancel()
    await asyncio.sleep(0)
    assert all(task.done() for task in tasks)


async def check_a_call_that_is_put_back(module: ModuleType) -> None:
    """It is first in line again, and takes its room and no slot."""
    gate = Gate()
    async with module.AsyncEventBus(1, max_queue=1) as bus:
        bus.subscribe("topic", gate)
        bus.publish_nowait(event(1))
        await cancel_before_the_first_step(bus)
        with pytest.raises(BusFull):
            bus.publish_nowait(event("refused"))
        await turns()
        assert gate.started == [1]
        bus.publish_nowait(event(2))
        await turns()
        assert gate.started == [1], "one slot too many"
        with pytest.raises(BusFull):
            bus.publish_nowait(event("refused"))
        gate.open()
    assert gate.ended == [1, 2]
    assert bus.stats == BusStats(published=2, delivered=2, failed=0, dropped=0, pending=0)


async def check_one_of_two_calls_that_is_put_back(module: ModuleType) -> None:
    """The event keeps its room until both calls have started."""
    gate = Gate()
    async with module.AsyncEventBus(1, max_queue=2) as bus:
        for _ in range(2):
            bus.subscribe("topic", gate)
        bus.publish_nowait(event(1))
        bus.publish_nowait(event(2))
        await cancel_before_the_first_step(bus)
        for _ in range(2):
            with pytest.raises(BusFull):
                bus.publish_nowait(event("refused"))
            await turns()
            assert gate.started in ([], [1])
        gate.open()
    assert gate.ended == [1, 1, 2, 2]


async def check_calls_that_stop_cancels_before_their_first_step(module: ModuleType) -> None:
    """It returns them with those that wait, though it started one."""
    gate = Gate()
    bus = module.AsyncEventBus(1)
    await bus.start()
    bus.subscribe("topic", gate)
    for payload in range(3):
        await bus.publish(event(payload))
    bus._dispatch()
    bus._close()
    bus._cancel_running()  # as in a stop whose time is over
    assert [e.payload for e in await bus.stop()] == [0, 1, 2]
    assert gate.started == []
    assert bus.stats == BusStats(published=3, delivered=0, failed=0, dropped=3, pending=0)


async def check_a_cancelled_subscriptions_call_that_is_put_back(module: ModuleType) -> None:
    """It is dropped, and no call of another."""
    gone: list[Event] = []
    others: list[Event] = []
    async with module.AsyncEventBus(1) as bus:
        subscription = bus.subscribe("topic", gone.append)
        bus.subscribe("other", others.append)
        bus.publish_nowait(event())
        bus.publish_nowait(event(topic="other"))
        mine = asyncio.all_tasks()
        bus._dispatch()
        subscription.cancel()
        for task in asyncio.all_tasks() - mine:
            task.cancel()
    assert gone == []
    assert len(others) == 1
    assert bus.stats == BusStats(published=2, delivered=1, failed=0, dropped=1, pending=0)


@pytest.mark.guarantee("AB-1", "AB-5")
@pytest.mark.parametrize(
    "check",
    [
        check_tasks_that_others_cancel,
        check_a_stop_before_the_first_step,
        check_calls_that_stop_cancels_before_their_first_step,
        check_a_call_that_is_put_back,
        check_one_of_two_calls_that_is_put_back,
        check_a_cancelled_subscriptions_call_that_is_put_back,
    ],
)
def test_tasks_that_are_not_eager_put_back_what_had_no_step(
    monkeypatch: pytest.MonkeyPatch, check: Check
) -> None:
    """On Python 3.11 no task is eager."""
    monkeypatch.setattr(async_event_bus, "_EAGER", {})
    asyncio.run(check(async_event_bus))


def test_an_eager_task_factory_changes_nothing() -> None:
    factory = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        pytest.skip("Python 3.11 has no eager tasks")

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        for check in (
            check_once_per_subscription,
            check_failing_handlers,
            check_stop_in_a_handler,
            check_a_handler_in_a_full_bus,
        ):
            await check(async_event_bus)

    asyncio.run(main())


def test_delivered_events_are_released() -> None:
    class Payload:
        pass

    async def check(module: ModuleType) -> None:
        payload = Payload()
        alive = weakref.ref(payload)

        async def handler(event: Event) -> None:
            await asyncio.sleep(0)
            raise ValueError(event)

        async with module.AsyncEventBus(on_error=lambda *_: None) as bus:
            bus.subscribe("topic", handler)
            bus.subscribe("topic", handler, ordered=True)
            await bus.publish(event(payload))
            del payload
            await bus.wait_idle()
            assert alive() is None, "the bus holds an event that is settled"

    gc.collect()
    gc.disable()
    try:
        run_all(check)
    finally:
        gc.enable()


def test_many_events_leave_memory_flat() -> None:
    async def check(module: ModuleType) -> None:
        async with module.AsyncEventBus(10, max_queue=100) as bus:
            bus.subscribe("topic", lambda _: None)
            bus.subscribe("topic", lambda _: asyncio.sleep(0), ordered=True)
            sizes = []
            for _ in range(3):
                for _ in range(5_000):
                    await bus.publish(event())
                await bus.wait_idle()
                await asyncio.gather(
                    *(bus.wait_idle(0) for _ in range(100)), return_exceptions=True
                )
                gc.collect()
                sizes.append(len(gc.get_objects()))
        assert sizes[2] - sizes[1] < 100

    run_all(check)


# What both buses promise


class LoopGate:
    """A handler of the loop that waits until it is opened from outside."""

    def __init__(self, harness: "LoopHarness") -> None:
        self.seen: list[Event] = []
        self._harness = harness
        self._entered = threading.Semaphore(0)
        self._opened = asyncio.Event()
        self.handler: Handler = self._handle

    async def _handle(self, event: Event) -> None:
        self.seen.append(event)
        self._entered.release()
        await self._opened.wait()

    def await_entered(self, calls: int = 1) -> None:
        for _ in range(calls):
            assert self._entered.acquire(timeout=bus_contract.PATIENCE)

    def open(self) -> None:
        self._harness.on_loop(self._opened.set)


class LoopSubscription:
    def __init__(self, harness: "LoopHarness", subscription: Subscription) -> None:
        self._harness, self._subscription = harness, subscription

    def cancel(self) -> bool:
        return self._harness.on_loop(self._subscription.cancel)

    def __enter__(self) -> "LoopSubscription":
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()


class LoopHarness:
    """An AsyncEventBus behind blocking calls, its loop in a thread of its own."""

    def __init__(self, module: ModuleType, limit: int, options: dict[str, Any]) -> None:
        self._bus: AsyncEventBus = module.AsyncEventBus(limit, **options)
        self._gates: list[bus_contract.Gate] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def _wait(self, coro: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(coro, self._loop)
        return future.result(bus_contract.PATIENCE)

    def on_loop(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return self._wait(call())

    def start(self) -> None:
        self._wait(self._bus.start())

    def stop(self, timeout: float | None = None, *, drain: bool = True) -> list[Event]:
        return self._wait(self._bus.stop(timeout, drain=drain))

    def publish(self, event: Event, timeout: float | None = None) -> None:
        self._wait(self._bus.publish(event, timeout))

    def publish_in_handler(self, event: Event) -> None:
        self._bus.publish_nowait(event)

    def wait_idle(self, timeout: float | None = None) -> None:
        self._wait(self._bus.wait_idle(timeout))

    def subscribe(
        self, event_type: Any, handler: Handler, *, ordered: bool = False
    ) -> LoopSubscription:
        subscribe = functools.partial(self._bus.subscribe, ordered=ordered)
        return LoopSubscription(self, self.on_loop(lambda: subscribe(event_type, handler)))

    def unsubscribe(self, event_type: Any, handler: Handler) -> bool:
        return self.on_loop(lambda: self._bus.unsubscribe(event_type, handler))

    def gate(self) -> bus_contract.Gate:
        self._gates.append(LoopGate(self))
        return self._gates[-1]

    def close(self) -> None:
        for gate in self._gates:
            gate.open()
        self._wait(self._bus.stop())
        left = self.on_loop(lambda: len(asyncio.all_tasks()))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        assert left == 1, "the bus left a task"

    @property
    def stats(self) -> BusStats:
        return self.on_loop(lambda: self._bus.stats)

    @property
    def is_running(self) -> bool:
        return self._bus.is_running


class TestAsEveryBus(bus_contract.BusContract):
    @pytest.fixture(params=["as it is", "plain tasks"], autouse=True)
    def build(self, request: pytest.FixtureRequest) -> None:
        self.module = builds()[request.param]

    def make(self, limit: int = 4, *, name: str = "bus", **options: Any) -> bus_contract.Harness:
        options["name"] = name
        harness: bus_contract.Harness = LoopHarness(self.module, limit, options)
        return harness
