"""Objects die when they should, and never under the lock; nothing piles up."""

import gc
import tracemalloc
import weakref

from reference_impl.buses import event_bus
from reference_impl.buses.event import Event
from reference_impl.buses.event_bus import EventBus
from tests.buses.event_bus.helpers import running, watched
from tests.kit.fakes import PATIENCE
from tests.kit.primitives import Waits


class Mortal:
    """Notes, when it dies, how many locks of the bus its thread holds."""

    def __init__(self, waits: Waits, fates: list[int]) -> None:
        self.waits, self.fates = waits, fates

    def __del__(self) -> None:
        self.fates.append(self.waits.mine())


def test_payloads_die_at_once_and_without_the_lock() -> None:
    """Handled, dropped by cancel, taken back by stop: released at once, no lock held."""
    with watched(event_bus) as waits, running(event_bus, 1, gates=1) as (bus, gate):
        fates: list[int] = []
        bus.subscribe("gate", gate)
        cancelled = bus.subscribe("cancelled", lambda event: None)
        for ordered in (False, True):
            bus.subscribe("topic", lambda event: None, ordered=ordered)
        bus.publish(Event("topic", Mortal(waits, fates)))
        bus.wait_idle(PATIENCE)
        bus.publish(Event("gate"))  # the worker has dropped the first when it runs this
        gate.await_entered()
        assert fates == [0]
        bus.publish(Event("cancelled", Mortal(waits, fates)))
        cancelled.cancel()
        assert fates == [0, 0]
        for _ in range(2):
            bus.publish(Event("topic", Mortal(waits, fates)))
        assert len(bus.stop(timeout=0)) == 2
        assert fates == [0] * 4


def test_a_topic_dies_without_the_lock() -> None:
    """An equal topic that came later must not leave the first to the bus alone."""
    fates: list[int] = []

    class Topic(Mortal):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Topic)

        def __hash__(self) -> int:
            return 1

    with watched(event_bus) as waits:
        bus = EventBus(1)
        subscriptions = [bus.subscribe(Topic(waits, fates), print) for _ in range(2)]
        while subscriptions:
            assert subscriptions.pop(0).cancel()
        gc.collect()
    assert fates == [0, 0]


def test_a_sleeping_worker_holds_no_event() -> None:
    with watched(event_bus) as waits, running(event_bus, 1) as bus:
        bus.subscribe("topic", lambda event: None)
        waits.await_waiting()
        fates: list[int] = []
        event = Event("topic", Mortal(waits, fates))
        alive = weakref.ref(event.payload)
        bus.publish(event)
        del event
        waits.await_waiting()
        assert alive() is None
        assert fates == [0]


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
    class Topic: ...

    def subscribed_and_cancelled() -> "weakref.ref[Topic]":
        topic = Topic()
        bus.subscribe(topic, print).cancel()
        return weakref.ref(topic)

    bus = EventBus(1)
    left = [subscribed_and_cancelled() for _ in range(1000)]
    assert all(topic() is None for topic in left)


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
