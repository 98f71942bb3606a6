"""Start, stop and idleness: EB-8 and EB-10."""

import threading
from types import ModuleType

import pytest

from reference_impl.buses import event_bus
from reference_impl.buses.event import BusStopped, Event
from tests.buses.event_bus import faults
from tests.buses.event_bus.faults import wrong
from tests.buses.event_bus.helpers import (
    Proofs,
    hooked,
    logged,
    occupied,
    running,
    workers,
)
from tests.contracts.bus_contract import numbered
from tests.kit.fakes import PATIENCE, Beside
from tests.kit.primitives import rebound
from tests.kit.proofs import failing, holding

PROOFS = Proofs()
_RETURNED = "AssertionError: assert bus.stop(timeout=0, drain=drain) == events"

# EB-8: what stop returns, and what it leaves.


@PROOFS.prove(
    "EB-8",
    wrong(faults.ReturnsNothing, _RETURNED),
    wrong(faults.ReturnsInReverse, _RETURNED),
    wrong(faults.ReturnsAgain, "AssertionError: assert bus.stop(timeout=0) == []"),
)
def check_stop_returns_what_was_not_started(m: ModuleType) -> None:
    """In order, each once, though an event has two calls; one of them may have started."""
    for drain in (True, False):
        with running(m, 1, gates=1) as (bus, gate):
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


@PROOFS.prove(
    "EB-8", wrong(faults.TellsOfNoHandlerLeft, "AssertionError: assert len(records) == 1")
)
def check_a_stuck_handler_counts_over_a_restart(m: ModuleType) -> None:
    """After the original's `stop(timeout)` a restart had two workers instead of one."""
    with running(m, 2, gates=2, name="stuck") as (bus, stuck, busy):
        bus.subscribe("stuck", stuck)
        bus.subscribe("busy", busy, ordered=False)
        with logged() as records:
            bus.publish(Event("stuck"))
            stuck.await_entered()
            assert bus.stop(timeout=0) == []
            assert len(records) == 1
            assert "Gate" in records[0].getMessage()
        assert not bus.is_running
        assert Beside(bus.stop).result() == []  # at once: that handler was given up
        bus.wait_idle()  # at once: the bus is stopped
        bus.start()
        for _ in range(2):
            bus.publish(Event("busy"))
        busy.await_entered()
        assert len(workers("stuck")) == 2
        assert len(busy.seen) == 1
        assert bus.stats.pending == 3
        stuck.open()
        busy.await_entered()  # its thread goes on as one of the workers
        busy.open()
        assert bus.stop() == []
        assert bus.stats.delivered == 3


@PROOFS.prove("EB-8")
def check_no_thread_is_left_after_stop(m: ModuleType) -> None:
    for _ in range(20):
        before = set(threading.enumerate())
        bus = m.EventBus(5)
        bus.subscribe("topic", lambda event, bus=bus: bus.stop() if event.payload else None)
        for payload in (None, "stop in the handler"):
            bus.start()
            bus.publish(Event("topic", payload))
            bus.stop()
            bus.stop()
            assert set(threading.enumerate()) == before


@PROOFS.prove("EB-8")
def check_stop_joins_its_workers(m: ModuleType) -> None:
    joined: list[str] = []

    class Noted(threading.Thread):
        def join(self, timeout: float | None = None) -> None:
            joined.append(self.name)
            super().join(timeout)

    with rebound(m, Thread=Noted), running(m, 3, name="noted") as bus:
        names = [worker.name for worker in workers("noted")]
        bus.stop()
        assert sorted(joined) == names


@PROOFS.prove("EB-8", wrong(faults.StartsWhileStopping, "Failed: pytest.raises(RuntimeError"))
def check_the_last_stop_ends_the_stopping(m: ModuleType) -> None:
    """One stop gives up while another still waits: until that returns, the bus is stopping."""
    with occupied(m) as (bus, gate, hooks):
        patient = Beside(bus.stop)
        hooks.await_waiting()
        assert bus.stop(timeout=0) == []
        with pytest.raises(RuntimeError, match="stopping"):
            bus.start()
        gate.open()
        assert patient.result() == []
        bus.start()


@PROOFS.prove("EB-8")
def check_an_interrupted_stop_is_finished_by_the_next(m: ModuleType) -> None:
    waiting = Event("gate")
    with occupied(m, waiting) as (bus, gate, hooks):
        with hooks.interrupting(), pytest.raises(KeyboardInterrupt):
            bus.stop(drain=False)
        with pytest.raises(BusStopped, match="stopping"):
            bus.publish(Event("topic"))
        with pytest.raises(RuntimeError, match="stopping"):
            bus.start()
        gate.open()
        assert bus.stop() == [waiting]
        bus.start()


@PROOFS.prove("EB-8")
def check_a_start_without_threads_leaves_the_bus_stopped(m: ModuleType) -> None:
    made: list[threading.Thread] = []

    class Scarce(threading.Thread):
        def start(self) -> None:
            if len(made) == 2:
                raise RuntimeError("can't start new thread")
            made.append(self)
            super().start()

    bus = m.EventBus(3, name="scarce")
    with rebound(m, Thread=Scarce), pytest.raises(RuntimeError, match="can't start"):
        bus.start()
    assert not bus.is_running
    for thread in made:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    with bus:
        assert len(workers("scarce")) == 3


@PROOFS.prove("EB-8")
def check_a_handler_left_before_a_restart_is_waited_for_again(m: ModuleType) -> None:
    with occupied(m) as (bus, gate, hooks):
        assert bus.stop(timeout=0) == []
        bus.start()
        hooks.forget()
        stopper = Beside(bus.stop)
        hooks.await_waiting()
        gate.open()
        assert stopper.result() == []
        assert bus.stats.pending == 0


# EB-8: stop in handlers.


@PROOFS.prove(
    "EB-8",
    wrong(faults.DrainsAlways, "AssertionError: assert seen =="),
    wrong(faults.ForgetsWhatAHandlerTookBack, "AssertionError: assert bus.stop() =="),
)
def check_stop_in_a_handler_only_requests_it(m: ModuleType) -> None:
    """It returns at once; the next stop elsewhere, or leaving the block, returns the rest."""
    for drain in (True, False):
        with running(m, 1, gates=1) as (bus, gate):
            returned: list[list[Event]] = []
            seen: list[Event] = []

            def stop(event: Event, bus=bus, gate=gate, returned=returned, drain=drain) -> None:  # type: ignore[no-untyped-def]
                gate(event)
                returned.append(bus.stop(drain=drain))
                returned.append(bus.stop())

            bus.subscribe("stop", stop, ordered=True)
            bus.subscribe("topic", seen.append)
            events = [Event("topic", 1), Event("topic", 2)]
            for event in (Event("stop"), *events):
                bus.publish(event)
            gate.open()
            bus.wait_idle(PATIENCE)
            assert returned == [[], []]
            assert seen == (events if drain else [])
            with pytest.raises(BusStopped, match="stopping"):
                bus.publish(Event("topic"))
            with pytest.raises(RuntimeError, match=r"stopping.*outside its handlers"):
                bus.start()
            assert bus.stop() == ([] if drain else events)
            assert bus.stop() == []
            bus.start()
            assert bus.is_running


@PROOFS.prove("EB-8")
def check_leaving_a_block_finishes_what_a_handler_requested(m: ModuleType) -> None:
    seen: list[Event] = []
    before = set(threading.enumerate())
    with m.EventBus(2) as bus:
        bus.subscribe("stop", lambda event: bus.stop())
        bus.subscribe("topic", seen.append)
        events = numbered(3)
        for event in (*events, Event("stop")):
            bus.publish(event)
    assert sorted(event.payload for event in seen) == [0, 1, 2]
    assert set(threading.enumerate()) == before
    bus.start()
    bus.stop()


@PROOFS.prove("EB-8")
def check_a_stop_elsewhere_waits_for_the_handler_that_has_requested_it(m: ModuleType) -> None:
    """Within its time; then that is a handler left running, as any other."""
    with hooked(m) as hooks, logged() as records, running(m, 1, gates=1) as (bus, gate):

        def stop(event: Event) -> None:
            assert bus.stop() == []
            gate(event)

        bus.subscribe("topic", stop)
        bus.publish(Event("topic"))
        gate.await_entered()
        hooks.forget()
        patient = Beside(bus.stop)
        hooks.await_waiting()
        assert bus.stop(timeout=0) == []
        assert len(records) == 1
        assert patient.is_alive()
        gate.open()
        assert patient.result() == []
        assert bus.stats.delivered == 1


@PROOFS.prove("EB-8")
def check_a_handler_of_a_stopped_bus_has_nothing_to_request(m: ModuleType) -> None:
    with running(m, 1, gates=1) as (bus, gate):
        started = threading.Event()

        def stop(event: Event) -> None:
            gate(event)
            assert bus.stop() == []
            bus.start()
            started.set()

        bus.subscribe("topic", stop)
        bus.publish(Event("topic"))
        gate.await_entered()
        bus.stop(timeout=0)
        gate.open()
        assert started.wait(PATIENCE)
        assert bus.is_running


@PROOFS.prove("EB-8")
def check_two_buses_may_stop_each_other_in_handlers(m: ModuleType) -> None:
    """A handler of any bus only requests: two that waited would wait for each other."""
    with running(m, 1, name="first") as first, running(m, 1, name="second") as second:
        together = threading.Barrier(2)
        returned: list[list[Event]] = []

        def stop(event: Event) -> None:
            together.wait(PATIENCE)
            returned.append(event.payload.stop())

        first.subscribe("topic", stop)
        second.subscribe("topic", stop)
        first.publish(Event("topic", second))
        second.publish(Event("topic", first))
        assert Beside(first.stop).result() == []
        assert Beside(second.stop).result() == []
        assert returned == [[], []]
        assert not workers("first")
        assert not workers("second")


@PROOFS.prove("EB-8")
def check_a_block_in_a_handler_waits_for_the_bus_of_that_block(m: ModuleType) -> None:
    """Unless it is the handler's own bus."""
    seen: list[Event] = []
    left: list[tuple[int, bool]] = []
    with running(m, 1) as bus:

        def use_another(event: Event) -> None:
            with m.EventBus(1, name="inner") as inner:
                inner.subscribe("topic", seen.append)
                for each in numbered(20):
                    inner.publish(each)
            left.append((len(seen), not workers("inner")))
            with bus:
                pass

        bus.subscribe("outer", use_another)
        bus.publish(Event("outer"))
        bus.wait_idle(PATIENCE)
        assert left == [(20, True)]
        assert not bus.is_running


# EB-10: idleness.


@PROOFS.prove(
    "EB-10", wrong(faults.WaitsForItself, 'AssertionError: assert "handler" in errors[0]')
)
def check_waiting_for_idle_in_a_handler_is_refused(m: ModuleType) -> None:
    with running(m, 1) as bus:
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


@PROOFS.prove("EB-10")
def check_who_waits_for_idle_is_released_by_stop(m: ModuleType) -> None:
    with occupied(m) as (bus, _, hooks):
        waiter = Beside(bus.wait_idle)
        hooks.await_waiting()
        bus.stop(timeout=0)
        waiter.result()


@PROOFS.prove("EB-10")
def check_waiting_for_idle_tells_how_much_is_left(m: ModuleType) -> None:
    with occupied(m, Event("gate")) as (bus, gate, _):
        with pytest.raises(TimeoutError, match="2 calls left"):
            bus.wait_idle(0.001)
        gate.open()


@PROOFS.prove("EB-10")
def check_an_idle_moment_counts_though_the_bus_is_busy_again(m: ModuleType) -> None:
    with hooked(m) as hooks, running(m, 1, gates=2) as (bus, before, after):
        bus.subscribe("other", lambda event: None)
        bus.publish(Event("other"))
        bus.wait_idle(PATIENCE)  # one such moment is over
        bus.subscribe("before", before)
        bus.subscribe("after", after)
        bus.publish(Event("before"))
        before.await_entered()

        def publish() -> None:
            """The one who waits is woken, and looks when the bus is busy again."""
            if threading.current_thread() is waiter and not after.seen:
                bus.publish(Event("after"))
                after.await_entered()

        hooks.after = publish
        hooks.forget()
        waiter = Beside(bus.wait_idle)
        hooks.await_waiting()
        before.open()
        waiter.result()
        assert bus.stats.pending == 1


test_it_holds = holding(PROOFS, event_bus)
test_its_twin_fails = failing(PROOFS, "buses/event_bus")
