"""What both buses promise, as one class of cases.

A subclass gives `make`, which returns a `Harness`: a bus behind plain blocking calls, so that
a bus of an event loop passes the same cases from a thread beside its loop; `BlockingHarness` is
one for a bus whose calls block anyway. Handlers given to `subscribe` are plain functions that do
not block; one that is to block is a `gate`. `reference_impl.contracts` gives the class to readers,
and says what it needs; imports are relative, since there the package has another name.
"""

import re
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Protocol

import pytest

from reference_impl.buses.event import (
    ANY,
    BusFull,
    BusStats,
    BusStopped,
    Event,
    EventType,
    Handler,
)

from ..kit import fakes
from .making import Made

PATIENCE = fakes.PATIENCE
request_id: ContextVar[str] = ContextVar("request_id", default="none")


class Gate(Protocol):
    """A handler that records each event and then waits until the gate is opened."""

    seen: list[Event]
    handler: Handler

    def await_entered(self, calls: int = 1) -> None: ...  # that many more calls have begun
    def open(self) -> None: ...


class Harness(Protocol):
    """A bus behind blocking calls; each means what the bus's own operation means."""

    def start(self) -> None: ...
    def stop(self, timeout: float | None = None, *, drain: bool = True) -> list[Event]: ...
    def publish(self, event: Event, timeout: float | None = None) -> None: ...
    def publish_in_handler(self, event: Event) -> None: ...  # without waiting for room
    def wait_idle(self, timeout: float | None = None) -> None: ...
    def subscribe(
        self, event_type: Any, handler: Handler, *, ordered: bool = False
    ) -> Any: ...  # something with cancel() and a context manager
    def unsubscribe(self, event_type: Any, handler: Handler) -> bool: ...
    def gate(self) -> Gate: ...
    def stopping(
        self, returned: list[list[Event]], *, drain: bool
    ) -> Handler: ...  # it stops the bus, and notes what that returned
    def close(self) -> None: ...  # after the case: opens the gates, stops the bus
    @property
    def stats(self) -> BusStats: ...
    @property
    def is_running(self) -> bool: ...


BusOf = Callable[..., Harness]


def numbered(count: int, topic: str = "topic") -> list[Event]:
    return [Event.create(topic, number) for number in range(count)]


def payloads(events: list[Event]) -> list[Any]:
    return [event.payload for event in events]


def behind_a_gate(bus: Harness, count: int) -> tuple[Gate, list[Event]]:
    """So many events, published while the one handler that may run waits at the gate."""
    gate = bus.gate()
    bus.subscribe("gate", gate.handler)
    bus.publish(Event.create("gate"))
    gate.await_entered()
    events = numbered(count)
    for event in events:
        bus.publish(event)
    return gate, events


class BlockingGate(fakes.Gate):
    """A gate that a thread of the bus waits at."""

    @property
    def handler(self) -> Handler:
        return self


class BlockingHarness:
    """A bus whose calls block: they are its own, and the gates are opened at the end."""

    def __init__(self, bus: Any) -> None:
        self.bus = bus
        self.gates: list[BlockingGate] = []
        self.publish_in_handler = bus.publish

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bus, name)

    def gate(self) -> BlockingGate:
        self.gates.append(BlockingGate())
        return self.gates[-1]

    def stopping(self, returned: list[list[Event]], *, drain: bool) -> Handler:
        return lambda event: returned.append(self.bus.stop(drain=drain))

    def close(self) -> None:
        for gate in self.gates:
            gate.open()
        self.bus.stop()
        self.bus.start()  # a handler that a case left behind ends before the next stop
        self.bus.stop()


class BusContract(Made):
    """The cases."""

    @abstractmethod
    def make(self, *args: Any, **options: Any) -> Harness:
        """A bus of at most `limit` handlers at once (4), with the bus's own other options."""

    def named(self, *args: Any, **options: Any) -> Harness:
        """A bus that calls itself "bus" in what it says."""
        return self.make(*args, **{"name": "bus"} | options)

    @pytest.fixture
    def bus_of(self) -> Iterator[BusOf]:
        """Makes started buses that are closed after the case."""
        made: list[Harness] = []

        def start(*args: Any, **options: Any) -> Harness:
            bus = self.named(*args, **options)
            made.append(bus)
            bus.start()
            return bus

        yield start
        for bus in made:
            bus.close()

    @pytest.fixture
    def bus(self, bus_of: BusOf) -> Harness:
        return bus_of()

    # --- delivery ---

    def test_each_subscription_is_called_once(self, bus: Harness) -> None:
        seen: list[tuple[str, Event]] = []

        def twice(event: Event) -> None:
            seen.append(("twice", event))

        bus.subscribe("topic", twice)
        bus.subscribe("topic", twice)
        bus.subscribe(ANY, lambda event: seen.append(("any", event)))
        bus.subscribe("other", lambda event: seen.append(("other", event)))
        event = Event.create("topic")
        bus.publish(event)
        bus.wait_idle()
        assert sorted(name for name, _ in seen) == ["any", "twice", "twice"]
        assert all(got is event for _, got in seen)
        assert bus.stats == BusStats(published=1, delivered=3, failed=0, dropped=0, pending=0)

    def test_an_event_without_a_subscription_is_accepted(self, bus: Harness) -> None:
        bus.publish(Event.create("topic"))
        bus.wait_idle()
        assert bus.stats == BusStats(published=1, delivered=0, failed=0, dropped=0, pending=0)

    def test_an_enum_member_and_its_text_are_one_topic(self, bus: Harness) -> None:
        seen: list[Event] = []
        bus.subscribe("test_result", seen.append)
        bus.publish(Event.create(EventType.TEST_RESULT))
        bus.wait_idle()
        assert len(seen) == 1

    def test_a_subscription_meets_only_later_events(self, bus: Harness) -> None:
        seen: list[Event] = []
        early, late = numbered(2)
        bus.publish(early)
        bus.subscribe("topic", seen.append)
        bus.publish(late)
        bus.wait_idle()
        assert seen == [late]

    # --- life ---

    def test_a_bus_that_does_not_run_refuses(self) -> None:
        bus = self.named()
        try:
            running = [bus.is_running]
            with pytest.raises(BusStopped, match=r"^bus is not running: "):
                bus.publish(Event.create("topic"))
            bus.start()
            bus.start()
            running.append(bus.is_running)
            assert bus.stop() == []
            assert bus.stop() == []
            running.append(bus.is_running)
            assert running == [False, True, False]
            with pytest.raises(BusStopped):
                bus.publish(Event.create("topic"))
            assert bus.stats.published == 0
        finally:
            bus.close()

    def test_stop_drains(self, bus_of: BusOf) -> None:
        seen: list[Event] = []
        bus = bus_of(1)
        bus.subscribe("topic", seen.append)
        events = numbered(50)
        for event in events:
            bus.publish(event)
        assert bus.stop() == []
        assert sorted(payloads(seen)) == payloads(events)

    def test_a_stop_that_times_out_returns_what_was_not_started(self, bus_of: BusOf) -> None:
        bus = bus_of(1)
        seen: list[Event] = []
        bus.subscribe("topic", seen.append)
        bus.subscribe("topic", seen.append, ordered=True)
        _, events = behind_a_gate(bus, 5)
        assert bus.stop(timeout=0) == events
        assert seen == []
        assert bus.stats.dropped == 10

    def test_stop_without_drain_returns_the_events_in_order(self, bus_of: BusOf) -> None:
        bus = bus_of(1)
        seen: list[Event] = []
        bus.subscribe("topic", seen.append, ordered=True)
        _, events = behind_a_gate(bus, 5)
        assert bus.stop(timeout=0, drain=False) == events
        assert seen == []

    def test_it_can_be_started_again(self, bus: Harness) -> None:
        seen: list[Event] = []
        bus.subscribe("topic", seen.append)
        for event in numbered(3):
            bus.publish(event)
            bus.stop()
            bus.start()
        assert payloads(seen) == [0, 1, 2]

    @pytest.mark.parametrize("ordered", [False, True])
    @pytest.mark.parametrize("drain", [True, False])
    def test_stop_in_a_handler_only_requests_it(
        self, bus_of: BusOf, *, drain: bool, ordered: bool
    ) -> None:
        """The next one elsewhere waits, and returns the rest."""
        bus = bus_of(1)
        returned: list[list[Event]] = []
        seen: list[Event] = []
        bus.subscribe("stop", bus.stopping(returned, drain=drain), ordered=ordered)
        bus.subscribe("topic", seen.append, ordered=ordered)
        gate = bus.gate()
        bus.subscribe("gate", gate.handler)
        bus.publish(Event.create("gate"))
        gate.await_entered()
        events = [Event.create("stop"), *numbered(3)]
        for event in events:
            bus.publish(event)
        gate.open()
        bus.wait_idle()
        assert returned == [[]]
        assert not bus.is_running
        with pytest.raises(BusStopped, match=r"^bus is stopping: "):
            bus.publish(Event.create("topic"))
        with pytest.raises(RuntimeError, match=r"^bus is stopping: .*stop\(\)"):
            bus.start()
        assert seen == (events[1:] if drain else [])
        assert bus.stop() == ([] if drain else events[1:])
        assert bus.stop() == []
        assert bus.stats == BusStats(
            published=5, delivered=5 if drain else 2, failed=0, dropped=0 if drain else 3, pending=0
        )
        bus.start()
        bus.publish(events[-1])
        bus.wait_idle()
        assert seen[-1:] == events[-1:]

    # --- failures ---

    def test_a_failing_handler_harms_nobody_else(self, bus_of: BusOf) -> None:
        errors: list[tuple[Event, object, BaseException]] = []
        seen: list[Event] = []
        failure = ValueError("no")

        def fail(event: Event) -> None:
            raise failure

        bus = bus_of(on_error=lambda *about: errors.append(about))
        bus.subscribe("topic", fail)
        bus.subscribe("topic", seen.append)
        event = Event.create("topic")
        bus.publish(event)
        bus.wait_idle()
        assert seen == [event]
        assert errors == [(event, fail, failure)]
        assert bus.stats == BusStats(published=1, delivered=1, failed=1, dropped=0, pending=0)

    def test_without_on_error_a_failure_is_logged(
        self, bus: Harness, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(event: Event) -> None:
            raise ValueError("no such unit")

        bus.subscribe("topic", fail)
        bus.publish(Event.create("topic"))
        bus.wait_idle()
        assert caplog.messages == [f"{fail!r} failed on a 'topic' event"]
        assert "no such unit" in caplog.text

    def test_a_failing_on_error_is_logged(
        self, bus_of: BusOf, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(event: Event) -> None:
            raise ValueError("no such unit")

        def fail_too(*about: object) -> None:
            raise RuntimeError("no such log")

        seen: list[Event] = []
        bus = bus_of(1, on_error=fail_too)
        bus.subscribe("topic", fail)
        bus.subscribe("topic", seen.append)
        bus.publish(Event.create("topic"))
        bus.wait_idle()
        assert len(seen) == 1
        assert "no such unit" in caplog.text
        assert "no such log" in caplog.text

    # --- cancelling ---

    def test_cancel_drops_what_waits(self, bus_of: BusOf) -> None:
        bus = bus_of(1)
        seen: list[Event] = []
        plain = bus.subscribe("topic", seen.append)
        ordered = bus.subscribe("topic", seen.append, ordered=True)
        gate, _ = behind_a_gate(bus, 3)
        plain.cancel()
        assert bus.stats.dropped == 3
        ordered.cancel()
        ordered.cancel()
        assert bus.stats == BusStats(published=4, delivered=0, failed=0, dropped=6, pending=1)
        gate.open()
        bus.wait_idle()
        assert seen == []

    def test_cancel_does_not_wait_for_a_call_that_runs(self, bus: Harness) -> None:
        gate = bus.gate()
        subscription = bus.subscribe("topic", gate.handler)
        bus.publish(Event.create("topic"))
        gate.await_entered()
        subscription.cancel()
        bus.publish(Event.create("topic"))
        assert bus.stats.pending == 1
        gate.open()
        bus.wait_idle()
        assert len(gate.seen) == 1

    def test_a_subscription_ends_with_its_block(self, bus: Harness) -> None:
        seen: list[Event] = []
        with bus.subscribe("topic", seen.append):
            bus.publish(Event.create("topic"))
            bus.wait_idle()
        bus.publish(Event.create("topic"))
        bus.wait_idle()
        assert len(seen) == 1

    def test_unsubscribe_finds_equal_handlers(self, bus: Harness) -> None:
        class Recorder:
            def __init__(self) -> None:
                self.seen: list[Event] = []

            def record(self, event: Event) -> None:
                self.seen.append(event)

        recorder = Recorder()
        bus.subscribe("topic", recorder.record)
        bus.subscribe("topic", recorder.record)
        assert not bus.unsubscribe("other", recorder.record)
        assert not bus.unsubscribe(ANY, recorder.record)
        assert bus.unsubscribe("topic", recorder.record)  # a new, equal bound method
        assert not bus.unsubscribe("topic", recorder.record)
        bus.publish(Event.create("topic"))
        bus.wait_idle()
        assert recorder.seen == []

    # --- room ---

    def test_a_full_bus_refuses_in_time(self, bus_of: BusOf) -> None:
        bus = bus_of(1, max_queue=2)
        gate = bus.gate()
        bus.subscribe("topic", gate.handler)
        bus.publish(Event.create("topic"))
        gate.await_entered()
        for event in numbered(2):
            bus.publish(event)
        with pytest.raises(BusFull, match=r"^bus holds 2 events: .*\b0 s\b"):
            bus.publish(Event.create("topic"), timeout=0)
        bus.publish(Event.create("nobody listens"), timeout=0)
        assert bus.stats.published == 4
        gate.open()
        bus.publish(Event.create("topic"), timeout=PATIENCE)
        bus.wait_idle()
        assert len(gate.seen) == 4

    def test_a_handler_in_a_full_bus_is_refused_at_once(self, bus_of: BusOf) -> None:
        errors: list[BaseException] = []
        bus = bus_of(1, max_queue=1, on_error=lambda e, h, error: errors.append(error))

        def chain(event: Event) -> None:
            bus.publish_in_handler(Event.create("next"))
            bus.publish_in_handler(Event.create("nobody listens"))  # needs no room
            bus.publish_in_handler(Event.create("next"))

        bus.subscribe("next", lambda event: None)
        bus.subscribe("topic", chain)
        bus.publish(Event.create("topic"))
        bus.wait_idle()
        assert [type(error) for error in errors] == [BusFull]
        advice = r"(or pass a timeout, as .* itself|: publish later, or await publish\(\))"
        assert re.search(rf"^bus holds 1 events\b.*{advice}$", str(errors[0]))
        assert bus.stats.delivered == 1

    # --- order and concurrency ---

    def test_an_ordered_handler_sees_one_event_at_a_time_in_order(self, bus: Harness) -> None:
        gate, free = bus.gate(), threading.Event()
        bus.subscribe("topic", gate.handler, ordered=True)
        bus.subscribe("other", lambda event: free.set())
        events = numbered(20)
        for event in events:
            bus.publish(event)
        gate.await_entered()
        bus.publish(Event.create("other"))
        assert free.wait(PATIENCE), "the ordered handler held up another"
        assert payloads(gate.seen) == [0]
        gate.open()
        bus.wait_idle()
        assert gate.seen == events

    def test_no_more_handlers_than_allowed_run_at_once(self, bus_of: BusOf) -> None:
        bus = bus_of(3)
        gate = bus.gate()
        bus.subscribe("topic", gate.handler)
        for event in numbered(10):
            bus.publish(event)
        gate.await_entered(3)
        assert len(gate.seen) == 3
        gate.open()
        bus.wait_idle()
        assert len(gate.seen) == 10

    # --- context ---

    def test_handlers_see_the_publishers_context_each_in_its_copy(self, bus_of: BusOf) -> None:
        seen: list[str] = []
        bus = bus_of(1)

        def spoil(event: Event) -> None:
            seen.append(request_id.get())
            request_id.set("spoilt")

        bus.subscribe("topic", spoil)
        bus.subscribe("topic", spoil)
        token = request_id.set("r-1")
        try:
            bus.publish(Event.create("topic"))
            bus.wait_idle()
            assert request_id.get() == "r-1"
        finally:
            request_id.reset(token)
        assert seen == ["r-1", "r-1"]

    # --- idleness ---

    def test_idle_includes_what_handlers_publish(self, bus: Harness) -> None:
        seen: list[int] = []

        def count_down(event: Event) -> None:
            seen.append(event.payload)
            if event.payload:
                bus.publish_in_handler(Event.create("topic", event.payload - 1))

        bus.subscribe("topic", count_down)
        bus.publish(Event.create("topic", 20))
        bus.wait_idle()
        assert seen == list(range(20, -1, -1))

    def test_waiting_for_idle_times_out(self, bus: Harness) -> None:
        gate = bus.gate()
        bus.subscribe("topic", gate.handler)
        bus.publish(Event.create("topic"))
        gate.await_entered()
        with pytest.raises(TimeoutError):
            bus.wait_idle(timeout=0)
        gate.open()
        bus.wait_idle()
        bus.stop()
        bus.wait_idle()

    # --- bad input ---

    @pytest.mark.parametrize(
        ("call", "error", "words"),
        [
            (lambda bus: bus.publish("topic"), TypeError, "event"),
            (lambda bus: bus.publish(Event("topic"), -1), ValueError, "timeout.*-1"),
            (lambda bus: bus.publish(Event("topic"), "1"), TypeError, "timeout.*'1'"),
            (lambda bus: bus.publish(Event("topic"), float("nan")), ValueError, "timeout"),
            (lambda bus: bus.subscribe("topic", None), TypeError, "^handler .*None"),
            (lambda bus: bus.subscribe([], print), TypeError, r"event_type.*\[\]"),
            (lambda bus: bus.unsubscribe([], print), TypeError, r"event_type.*\[\]"),
            (lambda bus: bus.stop(-1), ValueError, "timeout.*-1"),
            (lambda bus: bus.wait_idle(-1), ValueError, "timeout.*-1"),
        ],
    )
    def test_a_bad_argument_changes_nothing(
        self,
        bus: Harness,
        call: Callable[[Harness], object],
        error: type[Exception],
        words: str,
    ) -> None:
        before = bus.stats
        with pytest.raises(error, match=words):
            call(bus)
        assert bus.stats == before
        assert bus.is_running
        seen: list[Event] = []
        bus.subscribe("topic", seen.append)
        bus.publish(Event.create("topic"))
        bus.wait_idle()
        assert len(seen) == 1

    @pytest.mark.parametrize(
        ("arguments", "error", "words"),
        [
            ({"limit": 0}, ValueError, "^max_.*0"),
            ({"limit": -1}, ValueError, "max_.*-1"),
            ({"limit": 1.5}, TypeError, "max_.*1.5"),
            ({"limit": True}, TypeError, "max_.*True"),
            ({"max_queue": 0}, ValueError, "^max_queue .*0"),
            ({"max_queue": "9"}, TypeError, "^max_queue .*'9'"),
            ({"on_error": 3}, TypeError, "^on_error .*3"),
            ({"name": 3}, TypeError, "name.*3"),
        ],
    )
    def test_a_bad_bus_is_refused(
        self, arguments: dict[str, Any], error: type[Exception], words: str
    ) -> None:
        with pytest.raises(error, match=words):
            self.named(**arguments)
