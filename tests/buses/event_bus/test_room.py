"""Room for events, order, and workers: EB-5 to EB-7."""

import threading
from types import ModuleType

import pytest

from reference_impl.buses import event_bus
from reference_impl.buses.event import BusFull, Event
from tests.buses.event_bus import faults
from tests.buses.event_bus.faults import arguments, wrong
from tests.buses.event_bus.helpers import Proofs, occupied, running, watched, workers
from tests.contracts.bus_contract import numbered, payloads
from tests.kit.fakes import PATIENCE, Beside
from tests.kit.proofs import failing, holding
from tests.kit.twins import Twin

PROOFS = Proofs()

# EB-5: room.


@PROOFS.prove(
    "EB-5",
    Twin("has no bound", arguments(max_queue=lambda asked: 10**9), "Failed: pytest.raises(BusFull"),
    Twin(
        "takes one event more than it should",
        arguments(max_queue=lambda asked: asked + 1),
        "Failed: pytest.raises(BusFull",
    ),
)
def check_a_full_bus_waits_then_refuses(m: ModuleType) -> None:
    events = numbered(4, "gate")
    with occupied(m, *events[:2], max_queue=2) as (bus, gate, hooks):
        with pytest.raises(BusFull, match="2 events"):
            bus.publish(events[2], timeout=0)
        before = bus.stats
        with pytest.raises(BusFull):
            bus.publish(events[2], timeout=0.001)
        assert bus.stats == before
        publisher = Beside(bus.publish, events[3], timeout=PATIENCE)
        hooks.await_waiting()
        assert bus.stats.published == 3
        gate.open()
        publisher.result()
        bus.wait_idle(PATIENCE)
        assert gate.seen[1:] == [*events[:2], events[3]]


@PROOFS.prove("EB-5")
def check_a_handler_with_a_timeout_waits_for_room(m: ModuleType) -> None:
    with watched(m) as waits, running(m, 2, max_queue=1, gates=2) as (bus, gate, chained):

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
        waits.forget()
        chained.open()
        waits.await_waiting()
        gate.open()
        bus.wait_idle(PATIENCE)
        assert bus.stats.failed == 0
        assert len(gate.seen) == 3


@PROOFS.prove("EB-5")
def check_an_interrupted_publisher_leaves_the_bus_unchanged(m: ModuleType) -> None:
    """Nor does it keep a wake-up for itself that came as it was interrupted."""
    with occupied(m, Event("gate"), max_queue=1) as (bus, gate, hooks):
        before = bus.stats
        with hooks.interrupting(), pytest.raises(KeyboardInterrupt):
            bus.publish(Event("gate"), PATIENCE)
        assert bus.stats == before
        assert not hooks.waits.held
        gate.open()
        bus.publish(Event("gate"), timeout=PATIENCE)


@PROOFS.prove("EB-5")
def check_an_interrupted_publisher_passes_the_room_on(m: ModuleType) -> None:
    """Two wait for room; the one that is told of it is interrupted, and the other gets it."""
    with occupied(m, Event("gate"), max_queue=1) as (bus, gate, hooks):
        first = Beside(bus.publish, Event("gate"), PATIENCE)
        hooks.await_waiting()
        second = Beside(bus.publish, Event("gate"), PATIENCE)
        hooks.await_waiting()

        def interrupt() -> None:
            if threading.current_thread() is first:
                raise KeyboardInterrupt

        hooks.after = interrupt
        gate.open()
        with pytest.raises(KeyboardInterrupt):
            first.result()
        second.result()


@PROOFS.prove("EB-5")
def check_who_waits_for_room_for_nobody_any_more_is_let_go(m: ModuleType) -> None:
    with occupied(m, Event("gate"), max_queue=1) as (bus, _, hooks):
        lone = bus.subscribe("lone", lambda event: None)
        publisher = Beside(bus.publish, Event("lone"))
        hooks.await_waiting()
        lone.cancel()
        publisher.result()  # accepted without a call, though the bus is still full
        assert (bus.stats.published, bus.stats.pending) == (3, 2)


# EB-6: order.


@PROOFS.prove("EB-6")
def check_each_publishers_order_is_kept(m: ModuleType) -> None:
    """Many workers, several publishers: each one's events arrive in its order, alone."""
    with running(m, 8, max_queue=20) as bus:
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

        for thread in [Beside(publish, number) for number in range(4)]:
            thread.result()
        bus.wait_idle(PATIENCE)
        assert overlaps == []
        for publisher in range(4):
            assert [n for p, n in seen if p == publisher] == list(range(100))


@PROOFS.prove("EB-6", wrong(faults.ForgetsTheOrder, "AssertionError: assert overlaps == []"))
def check_an_ordered_handler_holds_up_nobody_else(m: ModuleType) -> None:
    """A busy ordered handler keeps one worker, however many events wait for it."""
    with running(m, 2, gates=1) as (bus, gate):
        free = threading.Event()
        overlaps: list[Event] = []
        events = numbered(10)

        def handler(event: Event) -> None:
            if gate.seen and not free.is_set():
                overlaps.append(event)
            else:
                gate(event)

        bus.subscribe("topic", handler, ordered=True)
        bus.subscribe("other", lambda event: free.set())
        for event in events:
            bus.publish(event)
        gate.await_entered()
        bus.publish(Event("other"))
        assert free.wait(PATIENCE), "its calls hold both workers"
        assert overlaps == []
        assert payloads(gate.seen) == [0]
        gate.open()
        bus.wait_idle(PATIENCE)
        assert gate.seen == events


# EB-7: workers.


@PROOFS.prove(
    "EB-7",
    Twin(
        "has a worker too many",
        arguments(max_workers=lambda asked: asked + 1),
        "AssertionError: assert len(workers",
    ),
)
def check_no_more_workers_than_asked_for(m: ModuleType) -> None:
    """The original's pool was never used: one handler ran at a time."""
    with running(m, 2, gates=1, name="pair") as (bus, gate):
        bus.subscribe("topic", gate)
        for event in numbered(5):
            bus.publish(event)
        gate.await_entered(2)
        assert len(workers("pair")) == 2
        assert len(gate.seen) == 2
        assert bus.stats.pending == 5


@PROOFS.prove("EB-7", wrong(faults.Polls, "AssertionError: assert waits.timeouts =="))
def check_an_idle_bus_sleeps(m: ModuleType) -> None:
    """Each worker waits once, without a timeout that would wake it; the original polled."""
    with watched(m) as waits, running(m, 3):
        waits.await_waiting(3)
        assert waits.timeouts == [None, None, None]


@PROOFS.prove("EB-7")
def check_the_defaults_are_ten_named_workers_and_room_for_ten_thousand(m: ModuleType) -> None:
    with running(m, gates=1) as (bus, gate):
        assert [worker.name for worker in workers()] == [f"event-bus-{n}" for n in range(1, 11)]
        assert all(worker.daemon for worker in workers())  # none holds up the exit
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


test_it_holds = holding(PROOFS, event_bus)
test_its_twin_fails = failing(PROOFS, "buses/event_bus")
