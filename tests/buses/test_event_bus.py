"""EventBus: the buses' contract, its own behaviour with broken twins, and its surroundings."""

import asyncio
import contextvars
import gc
import logging
import signal
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest

from reference_impl.buses import event_bus
from reference_impl.buses.event import (
    ANY,
    BusFull,
    BusStats,
    BusStopped,
    ErrorHandler,
    Event,
    Handler,
)
from reference_impl.buses.event_bus import EventBus
from tests.contracts.bus_contract import PATIENCE, BusContract, Harness, numbered, payloads
from tests.kit.process import run_python
from tests.kit.twins import twin

Check = Callable[[ModuleType], None]


class Gate:
    """A handler that records, and waits until it is opened."""

    def __init__(self) -> None:
        self.seen: list[Event] = []
        self.handler: Handler = self
        self._entered = threading.Semaphore(0)
        self._opened = threading.Event()

    def __call__(self, event: Event) -> None:
        self.seen.append(event)
        self._entered.release()
        assert self._opened.wait(PATIENCE)

    def await_entered(self, calls: int = 1) -> None:
        for _ in range(calls):
            assert self._entered.acquire(timeout=PATIENCE)

    def open(self) -> None:
        self._opened.set()


class Watched(threading.Condition):
    """Tells when a thread waits, and with which timeout."""

    def __init__(self, lock: Any) -> None:
        super().__init__(lock)
        self.timeouts: list[float | None] = []
        self._waits = threading.Semaphore(0)

    def wait(self, timeout: float | None = None) -> bool:
        self.timeouts.append(timeout)
        self._waits.release()
        return super().wait(timeout)

    def await_waiting(self, threads: int = 1) -> None:
        """Return once so many more waits have begun: they hold the lock until they wait."""
        for _ in range(threads):
            assert self._waits.acquire(timeout=PATIENCE), "nobody waits"


def watch(bus: Any, name: str) -> Watched:
    condition = Watched(bus._lock)
    setattr(bus, name, condition)
    return condition


class Thread(threading.Thread):
    """Runs a call beside the test; `result` joins it and raises what it raised."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self._error: BaseException | None = None
        self._value: Any = None
        self.start()

    def run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        self.join(PATIENCE)
        assert not self.is_alive(), "the call hangs"
        if self._error is not None:
            raise self._error
        return self._value


@contextmanager
def running(module: ModuleType, *args: int, gates: int = 0, **options: Any) -> Iterator[Any]:
    """A started bus and its gates; afterwards the gates are open and the bus is stopped."""
    bus = module.EventBus(*args, **options)
    doors = [Gate() for _ in range(gates)]
    bus.start()
    try:
        yield (bus, *doors) if doors else bus
    finally:
        for door in doors:
            door.open()
        bus.stop()


def must_fail(check: Check, *faults: tuple[str, str]) -> None:
    broken = twin("buses/event_bus.py", *faults)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(broken)


# --- the contract of both buses ---


class _Blocking:
    """EventBus as the contract's harness: its own calls, and gates to open at the end."""

    def __init__(self, bus: EventBus) -> None:
        self.bus = bus
        self.gates: list[Gate] = []
        self.publish_in_handler = bus.publish

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bus, name)

    def gate(self) -> Gate:
        self.gates.append(Gate())
        return self.gates[-1]

    def close(self) -> None:
        for gate in self.gates:
            gate.open()
        self.bus.stop()
        self.bus.start()  # a handler that a case left behind ends before the next stop
        self.bus.stop()


class TestContract(BusContract):
    def make(
        self,
        limit: int = 4,
        *,
        max_queue: int = 100,
        on_error: ErrorHandler | None = None,
        name: str = "bus",
    ) -> Harness:
        bus: Any = _Blocking(EventBus(limit, max_queue=max_queue, on_error=on_error, name=name))
        harness: Harness = bus
        return harness


# --- EB-1: once per subscription ---


def check_each_subscription_is_called_once(module: ModuleType) -> None:
    with running(module, 2) as bus:
        seen: list[str] = []
        for topic, name in (("topic", "a"), ("topic", "a"), (ANY, "any"), ("other", "b")):
            bus.subscribe(topic, lambda event, name=name: seen.append(name))
        bus.publish(Event("topic"))
        bus.wait_idle(PATIENCE)
        assert sorted(seen) == ["a", "a", "any"]


@pytest.mark.guarantee("EB-1")
def test_each_subscription_is_called_once() -> None:
    check_each_subscription_is_called_once(event_bus)


@pytest.mark.twin("EB-1")
def test_forgetting_any_is_found() -> None:
    must_fail(check_each_subscription_is_called_once, (" + self._routes.get(ANY, ())", ""))


def check_who_subscribes_before_acceptance_is_called(module: ModuleType) -> None:
    """Acceptance comes after the wait for room, and so does the look-up."""
    with running(module, 1, max_queue=1, gates=1) as (bus, gate):
        room = watch(bus, "_room")
        seen: list[Event] = []
        bus.subscribe("topic", gate)
        bus.publish(Event("topic"))
        gate.await_entered()
        bus.publish(Event("topic"))
        late = Event("topic")
        publisher = Thread(lambda: bus.publish(late))
        room.await_waiting()
        bus.subscribe("topic", seen.append)
        gate.open()
        publisher.result()
        bus.wait_idle(PATIENCE)
        assert seen == [late]


@pytest.mark.guarantee("EB-1")
def test_who_subscribes_while_a_publisher_waits_for_room_is_called() -> None:
    check_who_subscribes_before_acceptance_is_called(event_bus)


@pytest.mark.twin("EB-1")
def test_looking_up_before_the_wait_is_found() -> None:
    must_fail(
        check_who_subscribes_before_acceptance_is_called,
        ("routes = self._await_room_locked", "self._await_room_locked"),
    )


@pytest.mark.guarantee("EB-1", "EB-2")
def test_many_publishers_lose_nothing() -> None:
    """The recommended test of the original, without its sleep."""
    counts: list[int] = []
    with EventBus(10, max_queue=50) as bus:
        bus.subscribe("topic", lambda event: counts.append(event.payload))
        start = threading.Barrier(10)

        def publish() -> None:
            start.wait()
            for number in range(50):
                bus.publish(Event("topic", number))

        for thread in [Thread(publish) for _ in range(10)]:
            thread.result()
    assert sorted(counts) == sorted(list(range(50)) * 10)


# --- EB-2: accepted or refused ---


def check_publishing_while_draining_is_refused(module: ModuleType) -> None:
    with running(module, 1, gates=1) as (bus, gate):
        quiet = watch(bus, "_quiet")
        bus.subscribe("topic", gate)
        bus.publish(Event("topic"))
        gate.await_entered()
        stopper = Thread(bus.stop)
        quiet.await_waiting()
        assert not bus.is_running
        with pytest.raises(BusStopped, match="stopping"):
            bus.publish(Event("topic"))
        with pytest.raises(RuntimeError, match="stopping"):
            bus.start()
        gate.open()
        assert stopper.result() == []
        assert len(gate.seen) == 1


@pytest.mark.guarantee("EB-2", "EB-8")
def test_publishing_while_draining_is_refused() -> None:
    check_publishing_while_draining_is_refused(event_bus)


@pytest.mark.twin("EB-2", "EB-8")
def test_accepting_while_draining_is_found() -> None:
    must_fail(
        check_publishing_while_draining_is_refused,
        (
            "        if self._state != _RUNNING:\n            raise",
            "        if self._state == _STOPPED:\n            raise",
        ),
    )


# --- EB-3: failures stay where they are ---


def check_failures_are_heard_of(module: ModuleType) -> None:
    """Any BaseException: counted, told to on_error, and the worker goes on."""
    heard: list[tuple[Event, Handler, BaseException]] = []
    failures = [
        ValueError("v"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
    ]
    with running(module, 1, on_error=lambda *about: heard.append(about)) as bus:
        seen: list[Event] = []

        def fail(event: Event) -> None:
            raise event.payload

        bus.subscribe("topic", fail)
        bus.subscribe("topic", seen.append)
        events = [Event("topic", failure) for failure in failures]
        for event in events:
            bus.publish(event)
        bus.wait_idle(PATIENCE)
        assert seen == events
        assert heard == [(event, fail, event.payload) for event in events]
        assert (bus.stats.failed, bus.stats.delivered) == (5, 5)


@pytest.mark.guarantee("EB-3")
def test_on_error_hears_of_every_failure() -> None:
    check_failures_are_heard_of(event_bus)


@pytest.mark.twin("EB-3")
def test_counting_a_failure_as_delivered_is_found() -> None:
    must_fail(
        check_failures_are_heard_of,
        ("            return False\n        return True", "        return True"),
    )


@contextmanager
def logged(module: ModuleType) -> Iterator[list[logging.LogRecord]]:
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    keep = Keep()
    module._logger.addHandler(keep)
    try:
        yield records
    finally:
        module._logger.removeHandler(keep)


def check_failures_are_logged(module: ModuleType) -> None:
    """Without on_error the failure is logged; with one that raises, both are."""

    def fail(event: Event) -> None:
        raise ValueError("first")

    def fail_too(*about: object) -> None:
        raise SystemExit("second")

    for on_error, words in (
        (None, [f"{fail!r} failed on a 'topic' event", "first"]),
        (fail_too, ["orders: on_error failed", "first", "second"]),
    ):
        with logged(module) as records, running(module, 1, on_error=on_error, name="orders") as bus:
            bus.subscribe("topic", fail)
            bus.publish(Event("topic"))
            bus.wait_idle(PATIENCE)
            assert len(records) == 1
            text = logging.Formatter().format(records[0])
            assert text.startswith(words[0])
            assert all(word in text for word in words)
            assert bus.stats.failed == 1


@pytest.mark.guarantee("EB-3")
def test_failures_are_logged() -> None:
    check_failures_are_logged(event_bus)


@pytest.mark.twin("EB-3")
@pytest.mark.parametrize(
    "fault",
    [
        ("_logger.error(", "_logger.debug("),
        ('_logger.exception("%s: on_error failed", self._name)', "pass"),
        ("exc_info=exception", "exc_info=None"),
    ],
)
def test_silence_about_a_failure_is_found(fault: tuple[str, str]) -> None:
    must_fail(check_failures_are_logged, fault)


@pytest.mark.guarantee("EB-3")
def test_a_faulty_log_handler_ends_no_worker() -> None:
    class Faulty(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("the disk is full")

    faulty = Faulty()
    logging.getLogger(event_bus.__name__).addHandler(faulty)
    try:
        with EventBus(1) as bus:
            bus.subscribe("topic", lambda event: 1 / 0)
            for _ in range(3):
                bus.publish(Event("topic"))
            bus.wait_idle(PATIENCE)
            assert bus.stats.failed == 3
    finally:
        logging.getLogger(event_bus.__name__).removeHandler(faulty)


# --- EB-4: subscribing and cancelling at any time ---


def check_cancel_drops_what_waits(module: ModuleType) -> None:
    with running(module, 1, max_queue=2, gates=1) as (bus, gate):
        room = watch(bus, "_room")
        seen: list[Event] = []
        bus.subscribe("gate", gate)
        plain = bus.subscribe("topic", seen.append)
        ordered = bus.subscribe("topic", seen.append, ordered=True)
        bus.publish(Event("gate"))
        gate.await_entered()
        bus.publish(Event("topic"))
        bus.publish(Event("topic"))
        publisher = Thread(lambda: bus.publish(Event("gate")))
        room.await_waiting()
        assert plain.cancel()
        assert bus.stats.dropped == 2
        assert ordered.cancel()
        assert not ordered.cancel()
        publisher.result()  # the dropped calls made room
        assert bus.stats.dropped == 4
        gate.open()
        bus.wait_idle(PATIENCE)
        assert seen == []
        assert bus.stats.delivered == 2
        assert bus._routes.keys() == {"gate"}


@pytest.mark.guarantee("EB-4", "EB-5")
def test_cancel_drops_what_waits_and_makes_room() -> None:
    check_cancel_drops_what_waits(event_bus)


@pytest.mark.twin("EB-4", "EB-5")
@pytest.mark.parametrize(
    "fault",
    [
        (
            "            dropped = self._drop_locked({route})\n",
            "            dropped = 0\n            self._backlog -= 2\n",
        ),
        ("                del self._routes[route.topic]\n", "                pass\n"),
        ("        self._dropped += len(dropped)\n", ""),
    ],
)
def test_calls_left_behind_by_cancel_are_found(fault: tuple[str, str]) -> None:
    must_fail(check_cancel_drops_what_waits, fault)


@pytest.mark.guarantee("EB-4")
def test_a_handler_may_cancel_itself_and_subscribe_others() -> None:
    seen: list[str] = []
    with EventBus(1) as bus:

        def once(event: Event) -> None:
            seen.append("once")
            subscription.cancel()
            bus.subscribe("topic", lambda event: seen.append("then"))

        subscription = bus.subscribe("topic", once)
        for _ in range(3):
            bus.publish(Event("topic"))
            bus.wait_idle()
    assert seen == ["once", "then", "then"]


def check_comparison_happens_without_the_lock(module: ModuleType) -> None:
    """An `==` that calls the bus would hang if it held the bus's lock."""
    with running(module, 1) as bus:

        class Handler:
            def __call__(self, event: Event) -> None: ...

            def __eq__(self, other: object) -> bool:
                assert not bus._lock.locked()
                return True

            __hash__ = None  # type: ignore[assignment]

        bus.subscribe("topic", Handler())
        assert bus.unsubscribe("topic", Handler())


@pytest.mark.guarantee("EB-4")
def test_handlers_are_compared_without_the_lock() -> None:
    check_comparison_happens_without_the_lock(event_bus)


@pytest.mark.twin("EB-4")
def test_comparing_under_the_lock_is_found() -> None:
    must_fail(
        check_comparison_happens_without_the_lock,
        (
            "            routes = self._routes.get(event_type, ())\n        # Bound",
            "            routes = self._routes.get(event_type, ())\n"
            "            handler == routes[0].handler\n        # Bound",
        ),
    )


# --- EB-5: room ---


def check_a_full_bus_waits_then_refuses(module: ModuleType) -> None:
    with running(module, 1, max_queue=2, gates=1) as (bus, gate):
        room = watch(bus, "_room")
        bus.subscribe("topic", gate)
        events = numbered(5)
        bus.publish(events[0])
        gate.await_entered()
        for event in events[1:3]:
            bus.publish(event)
        with pytest.raises(BusFull, match="2 events"):
            bus.publish(events[3], timeout=0)
        before = bus.stats
        with pytest.raises(BusFull):
            bus.publish(events[3], timeout=0.001)
        assert bus.stats == before
        publisher = Thread(lambda: bus.publish(events[4], timeout=PATIENCE))
        room.await_waiting(2)
        assert bus.stats.published == 3
        gate.open()
        publisher.result()
        bus.wait_idle(PATIENCE)
        assert gate.seen == [*events[:3], events[4]]


@pytest.mark.guarantee("EB-5")
def test_a_full_bus_waits_then_refuses() -> None:
    check_a_full_bus_waits_then_refuses(event_bus)


@pytest.mark.twin("EB-5")
@pytest.mark.parametrize(
    "fault",
    [
        ("self._backlog >= self._max_queue", "False"),
        ("            if not self._room.wait_for(settled, timeout):", "            if False:"),
    ],
)
def test_a_bus_without_bound_is_found(fault: tuple[str, str]) -> None:
    must_fail(check_a_full_bus_waits_then_refuses, fault)


@pytest.mark.guarantee("EB-5")
def test_a_handler_with_a_timeout_waits_for_room() -> None:
    with running(event_bus, 2, max_queue=1, gates=2) as (bus, gate, chained):
        room = watch(bus, "_room")

        def chain(event: Event) -> None:
            chained(event)
            bus.publish(Event("gate"), timeout=PATIENCE)

        bus.subscribe("gate", gate)
        bus.subscribe("chain", chain)
        bus.publish(Event("gate"))
        gate.await_entered()
        bus.publish(Event("chain"))
        chained.await_entered()
        bus.publish(Event("gate"))
        chained.open()
        room.await_waiting()
        gate.open()
        bus.wait_idle(PATIENCE)
        assert bus.stats.failed == 0
        assert len(gate.seen) == 3


def check_interrupted_publisher_passes_the_room_on(module: ModuleType) -> None:
    """A waiter that is notified and interrupted at once must not keep the wake-up."""
    with running(module, 1, max_queue=1, gates=1) as (bus, gate):
        room = watch(bus, "_room")
        bus.subscribe("topic", gate)
        bus.publish(Event("topic"))
        gate.await_entered()
        bus.publish(Event("topic"))
        with bus._lock, pytest.raises(KeyboardInterrupt):
            room.wait = _interrupted  # type: ignore[method-assign]
            bus._await_room_locked(Event("topic"), PATIENCE)
        del room.wait
        assert bus.stats.pending == 2
        gate.open()
        bus.publish(Event("topic"), timeout=PATIENCE)


def _interrupted(timeout: float | None = None) -> bool:
    raise KeyboardInterrupt


@pytest.mark.guarantee("EB-5")
def test_an_interrupted_publisher_leaves_the_bus_unchanged() -> None:
    check_interrupted_publisher_passes_the_room_on(event_bus)


@pytest.mark.guarantee("EB-4", "EB-5")
def test_who_waits_for_room_for_nobody_any_more_is_let_go() -> None:
    with running(event_bus, 1, max_queue=1, gates=1) as (bus, gate):
        room = watch(bus, "_room")
        bus.subscribe("gate", gate)
        lone = bus.subscribe("lone", lambda event: None)
        bus.publish(Event("gate"))
        gate.await_entered()
        bus.publish(Event("gate"))
        publisher = Thread(lambda: bus.publish(Event("lone")))
        room.await_waiting()
        lone.cancel()
        publisher.result()  # accepted without a call, though the bus is still full
        assert (bus.stats.published, bus.stats.pending) == (3, 2)


# --- EB-6: order ---


def check_publishers_order_is_kept(module: ModuleType) -> None:
    """Many workers, several publishers: each one's events arrive in its order, alone."""
    with running(module, 8, max_queue=20) as bus:
        seen: list[tuple[int, int]] = []
        alone = threading.Lock()
        overlaps: list[Event] = []

        def handler(event: Event) -> None:
            if not alone.acquire(blocking=False):
                overlaps.append(event)
                return
            seen.append(event.payload)
            alone.release()

        bus.subscribe("topic", handler, ordered=True)
        start = threading.Barrier(4)

        def publish(publisher: int) -> None:
            start.wait()
            for number in range(100):
                bus.publish(Event("topic", (publisher, number)))

        for thread in [Thread(lambda p=p: publish(p)) for p in range(4)]:  # type: ignore[misc]
            thread.result()
        bus.wait_idle(PATIENCE)
        assert overlaps == []
        for publisher in range(4):
            assert [n for p, n in seen if p == publisher] == list(range(100))


@pytest.mark.guarantee("EB-6")
def test_each_publishers_order_is_kept() -> None:
    check_publishers_order_is_kept(event_bus)


def check_others_are_not_held_up(module: ModuleType) -> None:
    """A busy ordered handler keeps one worker, however many events wait for it."""
    with running(module, 2, gates=1) as (bus, gate):
        bus.subscribe("topic", gate, ordered=True)
        free = threading.Event()
        bus.subscribe("other", lambda event: free.set())
        events = numbered(10)
        for event in events:
            bus.publish(event)
        gate.await_entered()
        bus.publish(Event("other"))
        with bus._lock:
            assert len(bus._ready) + len(bus._running) <= 2, "its calls stand in the line"
        assert free.wait(PATIENCE)
        assert payloads(gate.seen) == [0]
        gate.open()
        bus.wait_idle(PATIENCE)
        assert gate.seen == events


@pytest.mark.guarantee("EB-6")
def test_an_ordered_handler_holds_up_nobody_else() -> None:
    check_others_are_not_held_up(event_bus)


@pytest.mark.twin("EB-6")
def test_an_ordered_handler_without_a_mailbox_is_found() -> None:
    must_fail(check_others_are_not_held_up, ("route.busy = route.ordered", "route.busy = False"))


# --- EB-7: workers ---


def check_no_more_workers_than_asked_for(module: ModuleType) -> None:
    with running(module, 2, gates=1) as (bus, gate):
        bus.subscribe("topic", gate)
        for event in numbered(5):
            bus.publish(event)
        gate.await_entered(2)
        with bus._lock:
            assert len(bus._workers) == len(bus._running) == 2
            assert len(bus._ready) == 3


@pytest.mark.guarantee("EB-7")
def test_no_more_workers_than_asked_for() -> None:
    """The original's pool was never used: one handler ran at a time."""
    check_no_more_workers_than_asked_for(event_bus)


@pytest.mark.twin("EB-7")
def test_a_worker_too_many_is_found() -> None:
    must_fail(
        check_no_more_workers_than_asked_for,
        (
            "while len(self._workers) < self._max_workers",
            "while len(self._workers) <= self._max_workers",
        ),
    )


def check_an_idle_bus_sleeps(module: ModuleType) -> None:
    """Each worker waits once, and without a timeout that would wake it for nothing."""
    bus = module.EventBus(3)
    work = watch(bus, "_work")
    bus.start()
    try:
        work.await_waiting(3)
        with bus._lock:
            assert work.timeouts == [None, None, None]
    finally:
        bus.stop()


@pytest.mark.guarantee("EB-7")
def test_an_idle_bus_sleeps() -> None:
    """The original polled ten times a second."""
    check_an_idle_bus_sleeps(event_bus)


@pytest.mark.twin("EB-7")
def test_polling_is_found() -> None:
    must_fail(check_an_idle_bus_sleeps, ("self._work.wait()", "self._work.wait(0.1)"))


@pytest.mark.guarantee("EB-5", "EB-7")
def test_the_defaults_are_ten_named_workers_and_room_for_ten_thousand() -> None:
    with running(event_bus, gates=1) as (bus, gate):
        workers = list(bus._workers.values())
        assert [worker.name for worker in workers] == [f"event-bus-{n}" for n in range(1, 11)]
        assert all(worker.daemon for worker in workers)  # none holds up the exit
        bus.subscribe("gate", gate)
        bus.subscribe("topic", lambda event: None)
        for _ in range(10):
            bus.publish(Event("gate"))
        gate.await_entered(10)
        event = Event("topic")
        for _ in range(10_000):
            bus.publish(event, timeout=0)
        with pytest.raises(BusFull, match=r"^event-bus holds 10000 events: "):
            bus.publish(event, timeout=0)
        gate.open()


# --- EB-8: stop ---


def check_stop_returns_what_was_not_started(module: ModuleType) -> None:
    """In order, each once, though an event has two calls; one of them may have started."""
    for drain in (True, False):
        with running(module, 1, gates=1) as (bus, gate):
            seen: list[Event] = []
            bus.subscribe("topic", gate)
            bus.subscribe("topic", seen.append)
            bus.subscribe("late", seen.append, ordered=True)
            events = [*numbered(3), *numbered(3, "late"), *numbered(2)]
            for event in events:
                bus.publish(event)
            gate.await_entered()
            assert bus.stop(timeout=0, drain=drain) == events
            assert bus.stop(timeout=0) == []
            assert seen == []
            stats = bus.stats
            assert (stats.dropped, stats.pending, stats.delivered) == (12, 1, 0)


@pytest.mark.guarantee("EB-8")
def test_stop_returns_what_was_not_started() -> None:
    check_stop_returns_what_was_not_started(event_bus)


@pytest.mark.twin("EB-8")
@pytest.mark.parametrize(
    "fault",
    [
        ("        return [events[number] for number in sorted(events)]", "        return []"),
        ("for number in sorted(events)]", "for number in sorted(events, reverse=True)]"),
        (
            "        return [events[number] for",
            "        return [a.event for a in taken] + [events[number] for",
        ),
    ],
)
def test_events_lost_by_stop_are_found(fault: tuple[str, str]) -> None:
    must_fail(check_stop_returns_what_was_not_started, fault)


def check_a_stuck_handler_counts_over_a_restart(module: ModuleType) -> None:
    with running(module, 2, gates=2) as (bus, stuck, busy):
        bus.subscribe("stuck", stuck)
        bus.subscribe("busy", busy, ordered=False)
        with logged(module) as records:
            bus.publish(Event("stuck"))
            stuck.await_entered()
            assert bus.stop(timeout=0) == []
            assert len(records) == 1
            assert "Gate" in records[0].getMessage()
        assert not bus.is_running
        assert Thread(bus.stop).result() == []  # at once: that handler was given up
        bus.wait_idle()  # at once: the bus is stopped
        bus.start()
        for _ in range(2):
            bus.publish(Event("busy"))
        busy.await_entered()
        with bus._lock:
            assert len(bus._workers) == 2
            assert len(bus._ready) == 1
        stuck.open()
        busy.await_entered()  # its thread goes on as one of the workers
        busy.open()
        assert bus.stop() == []
        assert bus.stats.delivered == 3


@pytest.mark.guarantee("EB-8", "EB-7")
def test_a_stuck_handler_counts_over_a_restart() -> None:
    """After the original's `stop(timeout)` a restart had two workers instead of one."""
    check_a_stuck_handler_counts_over_a_restart(event_bus)


@pytest.mark.twin("EB-8", "EB-7")
@pytest.mark.parametrize(
    "fault",
    [
        ("while len(self._workers) < self._max_workers", "for _ in range(self._max_workers)"),
        (
            '            _logger.warning("%s stopped, but',
            '            _logger.debug("%s stopped, but',
        ),
    ],
)
def test_a_worker_that_is_replaced_is_found(fault: tuple[str, str]) -> None:
    must_fail(check_a_stuck_handler_counts_over_a_restart, fault)


def check_nothing_is_left_after_stop(module: ModuleType) -> None:
    before = set(threading.enumerate())
    bus = module.EventBus(5)
    bus.subscribe("topic", lambda event: bus.stop() if event.payload else None)
    for payload in (None, "stop in the handler"):
        bus.start()
        bus.publish(Event("topic", payload))
        bus.stop()
        bus.stop()
        assert set(threading.enumerate()) == before


@pytest.mark.guarantee("EB-8")
def test_no_thread_is_left_after_stop() -> None:
    for _ in range(20):
        check_nothing_is_left_after_stop(event_bus)


def check_stop_joins_its_workers(module: ModuleType) -> None:
    with running(module, 3) as bus:
        joined: list[str] = []
        names = [worker.name for worker in bus._workers.values()]
        for worker in bus._workers.values():
            worker.join = lambda worker=worker: joined.append(worker.name)
        bus.stop()
        assert sorted(joined) == sorted(names)


@pytest.mark.guarantee("EB-8")
def test_stop_joins_its_workers() -> None:
    check_stop_joins_its_workers(event_bus)


@pytest.mark.twin("EB-8")
def test_a_stop_that_does_not_join_is_found() -> None:
    must_fail(
        check_stop_joins_its_workers, ("                worker.join()\n", "                pass\n")
    )


def check_the_last_stop_ends_the_stopping(module: ModuleType) -> None:
    """One stop gives up while another still waits: until that returns, the bus is stopping."""
    with running(module, 1, gates=1) as (bus, gate):
        quiet = watch(bus, "_quiet")
        bus.subscribe("topic", gate)
        bus.publish(Event("topic"))
        gate.await_entered()
        patient = Thread(bus.stop)
        quiet.await_waiting()
        assert bus.stop(timeout=0) == []
        with pytest.raises(RuntimeError, match="stopping"):
            bus.start()
        gate.open()
        assert patient.result() == []
        bus.start()


@pytest.mark.guarantee("EB-8")
def test_the_last_stop_ends_the_stopping() -> None:
    check_the_last_stop_ends_the_stopping(event_bus)


@pytest.mark.twin("EB-8")
def test_a_stop_that_ends_anothers_is_found() -> None:
    must_fail(
        check_the_last_stop_ends_the_stopping,
        ("                self._stops.add(this)\n", ""),
    )


@pytest.mark.guarantee("EB-8")
def test_an_interrupted_stop_is_finished_by_the_next() -> None:
    with running(event_bus, 1, gates=1) as (bus, gate):
        quiet = watch(bus, "_quiet")
        bus.subscribe("topic", gate)
        bus.publish(Event("topic"))
        gate.await_entered()
        waiting = Event("topic")
        bus.publish(waiting)
        quiet.wait = _interrupted  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            bus.stop(drain=False)
        del quiet.wait
        with pytest.raises(BusStopped, match="stopping"):
            bus.publish(Event("topic"))
        with pytest.raises(RuntimeError, match="stopping"):
            bus.start()
        gate.open()
        assert bus.stop() == [waiting]
        bus.start()


@pytest.mark.guarantee("EB-8")
def test_stop_in_a_handler_returns_what_only_it_could_handle() -> None:
    returned: list[Event] = []
    with running(event_bus, 1, gates=1) as (bus, gate):

        def stop(event: Event) -> None:
            gate(event)
            returned.extend(bus.stop())

        bus.subscribe("topic", stop)
        events = numbered(3)
        for event in events:
            bus.publish(event)
        gate.open()
        bus.stop()
        assert returned == events[1:]


@pytest.mark.guarantee("EB-8")
def test_stop_in_a_handler_leaves_to_others_what_they_can_handle() -> None:
    """Even if the other worker has not woken up to it yet."""
    seen: list[Event] = []
    returned: list[list[Event]] = []
    bus = EventBus(2)
    work = watch(bus, "_work")

    def stop(event: Event) -> None:
        work.notify = lambda n=1: None  # type: ignore[method-assign]
        bus.publish(Event("topic"))
        del work.notify
        returned.append(bus.stop())

    bus.subscribe("stop", stop)
    bus.subscribe("topic", seen.append)
    with bus:
        work.await_waiting(2)
        bus.publish(Event("stop"))
        bus.wait_idle(PATIENCE)
    assert returned == [[]]
    assert len(seen) == 1


@pytest.mark.guarantee("EB-8")
def test_a_stop_that_gives_up_excuses_what_waits_with_it() -> None:
    """In a handler it gives up neither itself nor others inside stop; from outside it does."""
    for inside in (True, False):
        with logged(event_bus) as records, running(event_bus, 2, gates=1) as (bus, gate):
            quiet = watch(bus, "_quiet")
            bus.subscribe("topic", gate)
            bus.subscribe("stop", lambda event, inside=inside: bus.stop(0 if inside else None))
            bus.publish(Event("topic"))
            gate.await_entered()
            bus.publish(Event("stop"))
            if inside:
                bus.wait_idle()  # at once, when that stop is through
            else:
                quiet.await_waiting()
                bus.stop(timeout=0)
            gate.open()
        assert len(records) == (1 if inside else 2)
        text = f"event-bus stopped, but {gate!r} runs on ('topic')"
        assert text in [record.getMessage() for record in records]


@pytest.mark.guarantee("EB-8")
def test_a_handler_that_has_left_stop_is_no_longer_counted_inside() -> None:
    """The next handler in stop waits for all others, though one gave up before it."""
    with running(event_bus, 3, gates=3) as (bus, first, second, other):
        quiet = watch(bus, "_quiet")
        threads: dict[str, threading.Thread] = {}
        settled, returned = threading.Event(), threading.Event()

        def stop(event: Event) -> None:
            threads[event.payload] = threading.current_thread()
            if event.payload == "first":
                first(event)
                bus.stop(timeout=0)
            else:
                second(event)
                bus.stop()
                returned.set()
                settled.set()

        bus.subscribe("stop", stop)
        bus.subscribe("other", other)
        for event in (Event("stop", "first"), Event("stop", "second"), Event("other")):
            bus.publish(event)
        for gate in (first, second, other):
            gate.await_entered()
        patient = Thread(bus.stop)  # so that the bus goes on stopping
        quiet.await_waiting()
        first.open()
        threads["first"].join(PATIENCE)

        def wait(timeout: float | None = None) -> bool:
            if threading.current_thread() is threads["second"]:
                settled.set()
            return Watched.wait(quiet, timeout)

        quiet.wait = wait  # type: ignore[method-assign]
        second.open()
        assert settled.wait(PATIENCE)
        assert not returned.is_set(), "it did not wait for the other"
        other.open()
        assert patient.result() == []
        assert bus.stats == BusStats(published=3, delivered=3, failed=0, dropped=0, pending=0)


@pytest.mark.guarantee("EB-8")
def test_a_bus_can_be_restarted_in_a_handler() -> None:
    seen: list[Event] = []
    done = threading.Event()
    with running(event_bus, 1) as bus:

        def restart(event: Event) -> None:
            assert bus.stop() == []
            bus.start()
            bus.publish(Event("after"))
            done.set()

        bus.subscribe("topic", restart)
        bus.subscribe("after", seen.append)
        bus.publish(Event("topic"))
        assert done.wait(PATIENCE)
        bus.wait_idle(PATIENCE)
        assert len(seen) == 1


@pytest.mark.guarantee("EB-8")
def test_a_start_without_threads_leaves_the_bus_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = threading.Thread.start
    made: list[threading.Thread] = []

    def start(thread: threading.Thread) -> None:
        if len(made) == 2:
            raise RuntimeError("can't start new thread")
        made.append(thread)
        real(thread)

    bus = EventBus(3)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start"):
            bus.start()
    assert not bus.is_running
    for thread in made:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    with bus:
        assert len(bus._workers) == 3


@pytest.mark.guarantee("EB-8")
def test_a_handler_left_before_a_restart_is_waited_for_again() -> None:
    with running(event_bus, 2, gates=1) as (bus, gate):
        bus.subscribe("topic", gate)
        bus.publish(Event("topic"))
        gate.await_entered()
        assert bus.stop(timeout=0) == []
        bus.start()
        quiet = watch(bus, "_quiet")
        stopper = Thread(bus.stop)
        quiet.await_waiting()
        gate.open()
        assert stopper.result() == []
        assert bus.stats.pending == 0


@pytest.mark.guarantee("EB-8")
def test_a_handler_that_restarted_the_bus_is_waited_for_by_another() -> None:
    with running(event_bus, 2, gates=1) as (bus, gate):
        quiet = watch(bus, "_quiet")

        def restart(event: Event) -> None:
            bus.stop()
            bus.start()
            gate(event)

        bus.subscribe("restart", restart)
        bus.subscribe("stop", lambda event: bus.stop())
        bus.publish(Event("restart"))
        gate.await_entered()
        seen = len(quiet.timeouts)
        bus.publish(Event("stop"))
        quiet.await_waiting(seen + 1)  # it waits for the first, which is not inside stop now
        assert bus.stats.pending == 2
        gate.open()


# --- EB-9: context ---

request_id = contextvars.ContextVar("request_id", default="none")


def check_each_call_has_its_own_context(module: ModuleType) -> None:
    with running(module, 1) as bus:
        seen: list[str] = []

        def spoil(event: Event) -> None:
            seen.append(request_id.get())
            request_id.set("spoilt")

        bus.subscribe("topic", spoil)
        bus.subscribe("topic", spoil)
        context = contextvars.copy_context()
        context.run(request_id.set, "r-1")
        context.run(bus.publish, Event("topic"))
        bus.wait_idle(PATIENCE)
        assert seen == ["r-1", "r-1"]
        assert context[request_id] == "r-1"


@pytest.mark.guarantee("EB-9")
def test_each_call_has_its_own_copy_of_the_publishers_context() -> None:
    check_each_call_has_its_own_context(event_bus)


@pytest.mark.twin("EB-9")
@pytest.mark.parametrize(
    "fault",
    [("call[0].context.copy().run(", "call[0].context.run("), ("= copy_context()", "= Context()")],
)
def test_a_shared_or_empty_context_is_found(fault: tuple[str, str]) -> None:
    must_fail(check_each_call_has_its_own_context, fault)


@pytest.mark.guarantee("EB-9", "EB-3")
def test_on_error_sees_the_publishers_context() -> None:
    seen: list[str] = []
    with EventBus(1, on_error=lambda *about: seen.append(request_id.get())) as bus:
        bus.subscribe("topic", lambda event: 1 / 0)
        context = contextvars.copy_context()
        context.run(request_id.set, "r-2")
        context.run(bus.publish, Event("topic"))
    assert seen == ["r-2"]


# --- EB-10: idleness ---


def check_waiting_in_a_handler_is_refused(module: ModuleType) -> None:
    with running(module, 1) as bus:
        errors: list[str] = []

        def wait(event: Event) -> None:
            try:
                bus.wait_idle(0)
            except RuntimeError as error:
                errors.append(str(error))
            except TimeoutError:
                errors.append("it waits for itself")

        bus.subscribe("topic", wait)
        bus.publish(Event("topic"))
        bus.wait_idle(PATIENCE)
        assert len(errors) == 1
        assert "handler" in errors[0]


@pytest.mark.guarantee("EB-10")
def test_waiting_for_idle_in_a_handler_is_refused() -> None:
    check_waiting_in_a_handler_is_refused(event_bus)


@pytest.mark.twin("EB-10")
def test_waiting_for_itself_is_found() -> None:
    must_fail(
        check_waiting_in_a_handler_is_refused,
        (
            "if threading.get_ident() in self._running:\n                raise Runtime",
            "if False:\n                raise Runtime",
        ),
    )


@pytest.mark.guarantee("EB-10")
def test_who_waits_for_idle_is_released_by_stop() -> None:
    with running(event_bus, 1, gates=1) as (bus, gate):
        quiet = watch(bus, "_quiet")
        bus.wait_idle()
        bus.subscribe("topic", gate)
        bus.publish(Event("topic"))
        gate.await_entered()
        waiter = Thread(bus.wait_idle)
        quiet.await_waiting()
        bus.stop(timeout=0)
        waiter.result()


@pytest.mark.guarantee("EB-10")
def test_waiting_for_idle_tells_how_much_is_left() -> None:
    with running(event_bus, 1, gates=1) as (bus, gate):
        bus.subscribe("topic", gate)
        bus.publish(Event("topic"))
        bus.publish(Event("topic"))
        with pytest.raises(TimeoutError, match="2 calls left"):
            bus.wait_idle(0.001)
        gate.open()


@pytest.mark.guarantee("EB-10")
def test_an_idle_moment_counts_though_the_bus_is_busy_again() -> None:
    with running(event_bus, 1, gates=2) as (bus, before, after):
        bus.subscribe("other", lambda event: None)
        bus.publish(Event("other"))
        bus.wait_idle(PATIENCE)  # one such moment is over
        quiet = watch(bus, "_quiet")
        bus.subscribe("before", before)
        bus.subscribe("after", after)
        bus.publish(Event("before"))
        before.await_entered()

        def wait(timeout: float | None = None) -> bool:
            del quiet.wait  # once
            notified = Watched.wait(quiet, timeout)
            bus._lock.release()
            try:
                bus.publish(Event("after"))
                after.await_entered()
            finally:
                bus._lock.acquire()
            return notified

        quiet.wait = wait  # type: ignore[method-assign]
        waiter = Thread(bus.wait_idle)
        quiet.await_waiting()
        before.open()
        waiter.result()
        assert bus.stats.pending == 1


# --- where publish may be called ---


@pytest.mark.guarantee("EB-1", "EB-7")
def test_a_coroutine_may_publish_and_handlers_run_elsewhere() -> None:
    """The original raised where a loop ran, and ran handlers in the publisher's thread."""
    threads: list[threading.Thread] = []

    async def main() -> None:
        bus.publish(Event("topic"), timeout=0)

    with EventBus(1) as bus:
        bus.subscribe("topic", lambda event: threads.append(threading.current_thread()))
        asyncio.run(main())
    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()


# --- bad input ---


def test_a_coroutine_function_is_refused() -> None:
    async def handler(event: Event) -> None: ...

    bus = EventBus()
    with pytest.raises(TypeError, match="AsyncEventBus"):
        bus.subscribe("topic", handler)
    assert not bus.unsubscribe("topic", handler)


def test_endless_timeouts_are_accepted() -> None:
    with EventBus(1) as bus:
        bus.publish(Event("topic"), timeout=float("inf"))
        bus.wait_idle(1e300)
        assert bus.stop(float("inf")) == []


# --- objects die when they should, and never under the lock ---


class Payload:
    def __init__(self, bus: Any, fates: list[bool]) -> None:
        self.bus, self.fates = bus, fates

    def __del__(self) -> None:
        self.fates.append(self.bus._lock.locked())


def check_payloads_die_without_the_lock(module: ModuleType) -> None:
    """Handled, dropped by cancel, taken back by stop: released at once, no lock held."""
    with running(module, 1, gates=1) as (bus, gate):
        fates: list[bool] = []
        bus.subscribe("gate", gate)
        cancelled = bus.subscribe("cancelled", lambda event: None)
        for ordered in (False, True):
            bus.subscribe("topic", lambda event: None, ordered=ordered)
        bus.publish(Event("topic", Payload(bus, fates)))
        bus.wait_idle(PATIENCE)
        bus.publish(Event("gate"))  # the worker has dropped the first when it runs this
        gate.await_entered()
        assert fates == [False]
        bus.publish(Event("cancelled", Payload(bus, fates)))
        cancelled.cancel()
        assert fates == [False, False]
        for _ in range(2):
            bus.publish(Event("topic", Payload(bus, fates)))
        assert len(bus.stop(timeout=0)) == 2
        assert fates == [False] * 4


def test_payloads_die_at_once_and_without_the_lock() -> None:
    check_payloads_die_without_the_lock(event_bus)


def test_a_payload_that_dies_under_the_lock_is_found() -> None:
    must_fail(
        check_payloads_die_without_the_lock,
        (
            "            dropped = self._drop_locked({route})\n",
            "            dropped = self._drop_locked({route})[:0]\n",
        ),
    )


def test_a_topic_dies_without_the_lock() -> None:
    """An equal topic that came later must not leave the first to the bus alone."""
    bus = EventBus(1)
    fates: list[bool] = []

    class Topic(Payload):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Topic)

        def __hash__(self) -> int:
            return 1

    subscriptions = [bus.subscribe(Topic(bus, fates), print) for _ in range(2)]
    while subscriptions:
        assert subscriptions.pop(0).cancel()
    gc.collect()
    assert fates == [False, False]


def check_a_sleeping_worker_holds_no_event(module: ModuleType) -> None:
    bus = module.EventBus(1)
    work = watch(bus, "_work")
    bus.start()
    try:
        bus.subscribe("topic", lambda event: None)
        work.await_waiting()
        fates: list[bool] = []
        event = Event("topic", Payload(bus, fates))
        alive = weakref.ref(event.payload)
        bus.publish(event)
        del event
        work.await_waiting()
        assert alive() is None
        assert fates == [False]
    finally:
        bus.stop()


def test_a_sleeping_worker_holds_no_event() -> None:
    check_a_sleeping_worker_holds_no_event(event_bus)


def test_a_worker_that_keeps_its_last_event_is_found() -> None:
    must_fail(
        check_a_sleeping_worker_holds_no_event,
        (
            "            call, following = following, None",
            "            last, call, following = call, following, None",
        ),
    )


def test_memory_is_flat_over_many_events() -> None:
    """The original kept 200,000 waiting events in 128 MB; this bus keeps max_queue."""
    with EventBus(2, max_queue=100) as bus:
        bus.subscribe("topic", lambda event: None)
        bus.subscribe("topic", lambda event: None, ordered=True)
        event = Event("topic")

        def pass_through(count: int) -> int:
            for _ in range(count):
                bus.publish(event)
            bus.wait_idle(PATIENCE)
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        try:
            before = pass_through(2_000)
            after = pass_through(20_000)
        finally:
            tracemalloc.stop()
    assert after - before < 20_000, "more than a byte an event is left"


def test_topics_and_subscriptions_leave_nothing() -> None:
    bus = EventBus(1)
    for number in range(1000):
        bus.subscribe(("topic", number), print).cancel()
    assert bus._routes == {}


def test_a_stopped_bus_can_be_collected_and_a_running_one_lives() -> None:
    bus = EventBus(1)
    bus.start()
    alive = weakref.ref(bus)
    del bus
    gc.collect()
    kept = alive()
    assert kept is not None
    kept.stop()
    del kept
    gc.collect()
    assert alive() is None


# --- processes ---


def test_the_exit_stops_each_bus_and_tells_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_bus, "_EXIT_TIMEOUT", 0.0)
    with (
        logged(event_bus) as records,
        running(event_bus, 1, gates=1, name="first") as (first, gate),
        running(event_bus, 1) as second,
    ):
        first.subscribe("topic", gate)
        for event in numbered(3):
            first.publish(event)
        gate.await_entered()
        event_bus._stop_all()  # what atexit calls
        assert not first.is_running
        assert not second.is_running
        gate.open()
    assert [record.getMessage() for record in records] == [
        f"first stopped, but {gate!r} runs on ('topic')",
        "the interpreter exits: 2 events undelivered",
    ]


def test_a_handler_whose_bus_is_reset_ends_its_worker_and_leaves_a_bus_to_start() -> None:
    """A child forked by a handler goes on in it, on a bus that is as new."""
    seen: list[Event] = []

    def fork(event: Event) -> None:
        seen.append(event)
        if len(seen) == 1:
            bus._reset()  # what the child of a fork calls

    bus = EventBus(1)
    bus.subscribe("topic", fork, ordered=True)
    bus.start()
    (worker,) = bus._workers.values()
    bus.publish(Event("topic"))
    worker.join(PATIENCE)
    assert not worker.is_alive()
    assert not bus.is_running
    assert bus.stats == BusStats(published=1, delivered=0, failed=0, dropped=0, pending=0)
    with bus:
        bus.publish(Event("topic"))
    assert len(seen) == 2


SETUP = """
    import os, sys, threading, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of fork with threads
    from reference_impl.buses.event import Event
    from reference_impl.buses.event_bus import EventBus
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork here")
def test_a_forked_child_has_a_stopped_bus_that_can_be_started() -> None:
    run_python(
        SETUP
        + """
    seen, gate, inside = [], threading.Event(), threading.Event()
    bus = EventBus(2)
    bus.subscribe("gate", lambda event: (inside.set(), gate.wait()))
    bus.subscribe("topic", seen.append, ordered=True)
    bus.start()
    for _ in range(2):
        bus.publish(Event("gate"))
    bus.publish(Event("topic", "parent's"))
    inside.wait()
    bus._lock.acquire()  # as if another thread held it at the fork
    child = os.fork()
    if not child:
        try:
            assert not bus.is_running and bus.stop() == []
            gate.set()
            with bus:
                bus.publish(Event("topic", "child's"))
            assert [event.payload for event in seen] == ["child's"], seen
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    bus._lock.release()
    assert os.waitpid(child, 0)[1] == 0
    gate.set()
    bus.stop()
    assert [event.payload for event in seen] == ["parent's"], seen
    """
    )


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork here")
def test_a_handler_may_fork() -> None:
    run_python(
        SETUP
        + """
    statuses = []
    def fork(event):
        child = os.fork()
        if not child:
            os._exit(7 if not bus.is_running else 1)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    with EventBus(1) as bus:
        bus.subscribe("topic", fork)
        bus.publish(Event("topic"))
    assert statuses == [7], statuses
    """
    )


def test_the_interpreters_exit_drains_a_running_bus() -> None:
    done = run_python(
        SETUP
        + """
    bus = EventBus(1)
    bus.subscribe("topic", lambda event: print(event.payload, flush=True))
    bus.start()
    for number in range(100):
        bus.publish(Event("topic", number))
    """
    )
    assert done.stdout.split() == [str(number) for number in range(100)]
    assert done.stderr == ""


def test_the_interpreter_does_not_wait_for_ever_for_a_stuck_handler() -> None:
    done = run_python(
        SETUP
        + """
    from reference_impl.buses import event_bus
    event_bus._EXIT_TIMEOUT = 0.01
    inside = threading.Event()
    bus = EventBus(1, name="stuck-bus")
    bus.subscribe("topic", lambda event: (inside.set(), threading.Event().wait()))
    bus.start()
    bus.publish(Event("topic"))
    bus.publish(Event("topic"))
    inside.wait()
    """
    )
    assert "stuck-bus stopped, but" in done.stderr
    assert "1 events undelivered" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no signals to oneself")
def test_a_signal_handler_hands_over_while_a_publisher_waits() -> None:
    """It must not call the bus, whose lock its thread may hold; setting an event is enough."""
    run_python(
        SETUP
        + f"""
    import signal
    gate, inside = threading.Event(), threading.Event()
    bus = EventBus(1, max_queue=1)
    bus.subscribe("topic", lambda event: (inside.set(), gate.wait()))
    bus.start()
    bus.publish(Event("topic"))
    inside.wait()
    bus.publish(Event("topic"))
    def handle(*_):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        gate.set()
    signal.signal(signal.SIGTERM, handle)

    wait = bus._room.wait
    def announced(timeout=None):
        threading.Thread(target=send).start()
        return wait(timeout)
    def send():
        with bus._lock:  # held by the main thread until it waits
            pass
        while not gate.is_set():  # one signal may come just before the wait, and not be seen
            signal.pthread_kill(threading.main_thread().ident, {int(signal.SIGTERM)})

    bus._room.wait = announced
    bus.publish(Event("topic"))
    assert bus.stop() == []
    assert bus.stats.delivered == 3, bus.stats
    """
    )
