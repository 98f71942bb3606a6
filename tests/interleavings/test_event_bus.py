"""Thread interleavings of EventBus, each check with twins that it catches."""

import atexit
import gc
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

import pytest

from reference_impl.buses import event_bus
from reference_impl.buses.event import BusFull, BusStopped, Event
from tests.buses.event_bus import faults
from tests.buses.event_bus.faults import arguments, lost, wrong
from tests.buses.event_bus.helpers import Check, Proofs
from tests.kit.explore import Interleavings
from tests.kit.primitives import unlocked
from tests.kit.profile import budget
from tests.kit.proofs import Proof, caught, each_proof, explored
from tests.kit.twins import Twin, edit

interleave_test = pytest.importorskip("interleave_test", reason="needs Python >= 3.12")

calm = interleave_test.no_interleave
ONE, TWO, THREE, FOUR = (Event("topic", number) for number in (1, 2, 3, 4))
OTHER = Event("other")


def rest() -> None:
    """Return when nobody else can run: that is when the explorer lets a wait time out."""
    threading.Event().wait(1)


class ByLine(Proofs):
    """By line in both profiles, where nothing else is said: by opcode the searches are long."""

    def prove(self, guarantee: str, *twins: Twin, **search: Any) -> Callable[[Check], Check]:
        return super().prove(guarantee, *twins, **{"granularity": "line", **search})


EXPLORED = ByLine()
DRAWN = ByLine()  # of too many threads for all schedules


@contextmanager
def running(m: ModuleType, *args: int, **options: Any) -> Iterator[Any]:
    """A started bus; what happens between start and the final stop is explored."""
    with calm():
        bus = m.EventBus(*args, **options)
        bus.start()
        rest()  # the workers sleep
    yield bus
    with calm():
        bus.stop()
    assert bus.stats.pending == 0


def subscribe(bus: Any, *arguments: Any, **options: Any) -> Any:
    """Where it matters to nobody when that happens."""
    with calm():
        return bus.subscribe(*arguments, **options)


class Plug:
    """A handler that keeps its worker until `pull`."""

    @classmethod
    def into(cls, bus: Any, *waiting: Event) -> "Plug":
        """The only worker is held up, and these events wait behind."""
        plug = cls()
        with calm():
            bus.subscribe("plug", plug)
            bus.publish(Event("plug"))
            plug.await_begun()
            for event in waiting:
                bus.publish(event)
        return plug

    def __init__(self) -> None:
        self._begun, self._go = threading.Event(), threading.Event()

    def __call__(self, event: Event) -> None:
        self._begun.set()
        self._go.wait()

    def await_begun(self) -> None:
        self._begun.wait()

    def pull(self) -> None:
        self._go.set()


def publishing(bus: Any, accepted: list[Event], *events: Event) -> None:
    """Publish until the bus stops, and note what it accepted."""
    try:
        for event in events:
            bus.publish(event)
            accepted.append(event)
    except BusStopped:
        pass


def numbers(events: list[Event]) -> list[int]:
    return sorted(event.payload for event in events)


@pytest.fixture(autouse=True)
def _explored_buses_neither_log_nor_exit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # A broken bus may be running still when its search ends, on the explorer's locks.
    monkeypatch.setattr(atexit, "register", lambda hook: hook)
    if hasattr(os, "register_at_fork"):
        monkeypatch.setattr(os, "register_at_fork", lambda **hooks: None)
    logging.disable()  # a log record asks for the current thread, which the explorer has replaced
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(autouse=True, scope="module")
def _explored_buses_are_gone_before_the_exit() -> Iterator[None]:
    yield
    gc.collect()


# EB-2: accepted and handled, or accepted and returned, or refused.


@EXPLORED.prove(
    "EB-2",
    wrong(faults.ChecksThenPuts, "AssertionError: assert seen + returned == accepted"),
    granularity=None,
)
def check_publish_racing_stop_is_delivered_or_refused(m: ModuleType, drain: bool = True) -> None:
    with running(m, 1) as bus:
        seen: list[Event] = []
        accepted: list[Event] = []
        subscribe(bus, "topic", seen.append)
        publisher = interleave_test.spawn(publishing, bus, accepted, ONE)
        returned = bus.stop(drain=drain)
        publisher.join()
        assert seen + returned == accepted


@EXPLORED.prove("EB-2")
def check_publish_racing_stop_without_drain(m: ModuleType) -> None:
    check_publish_racing_stop_is_delivered_or_refused(m, drain=False)


@EXPLORED.prove(
    "EB-2", Twin("stops and tells none who wait for room", lost("stop", "publish"), "deadlock")
)
def check_stop_refuses_who_waits_for_room(m: ModuleType) -> None:
    """A publisher that waits for room is refused, or accepted and accounted for."""
    with running(m, 1, max_queue=1) as bus:
        seen: list[Event] = []
        accepted: list[Event] = []
        subscribe(bus, "topic", seen.append)
        publisher = interleave_test.spawn(publishing, bus, accepted, ONE, TWO, THREE)
        returned = bus.stop(drain=False)
        publisher.join()
        assert seen + returned == accepted


# EB-3: a worker survives what its handler raises.


@EXPLORED.prove("EB-3", wrong(faults.LosesAWorker, "deadlock"))
def check_a_worker_survives_system_exit(m: ModuleType) -> None:
    with running(m, 1, on_error=lambda *_: None) as bus:
        seen: list[Event] = []

        def handler(event: Event) -> None:
            if event is ONE:
                raise SystemExit
            seen.append(event)

        subscribe(bus, "topic", handler)
        bus.publish(ONE)
        bus.publish(TWO)
        bus.wait_idle()
        assert seen == [TWO]
        assert bus.stats.failed == 1


# EB-4: subscribing and cancelling during publication.


@EXPLORED.prove(
    "EB-4", wrong(faults.CallsTheCancelled, "AssertionError: assert len(seen) == stats.delivered")
)
def check_no_call_starts_after_cancel(m: ModuleType, ordered: bool = False) -> None:
    """Each call is delivered or dropped, and none starts after `cancel` found none."""
    with running(m, 1) as bus:
        seen: list[Event] = []
        subscription = subscribe(bus, "topic", seen.append, ordered=ordered)

        def publish() -> None:
            bus.publish(ONE)
            bus.publish(TWO)

        publisher = interleave_test.spawn(publish)
        subscription.cancel()
        after = bus.stats
        begun = after.delivered + after.pending  # delivered, or running at this instant
        publisher.join()
        bus.wait_idle()
        stats = bus.stats
        assert stats.published == 2
        assert len(seen) == stats.delivered == begun
        assert stats.delivered + stats.dropped <= 2


@EXPLORED.prove("EB-4")
def check_no_ordered_call_starts_after_cancel(m: ModuleType) -> None:
    check_no_call_starts_after_cancel(m, ordered=True)


@EXPLORED.prove(
    "EB-4",
    Twin(
        "subscribes without its lock",
        unlocked("EventBus.subscribe"),
        ("AssertionError: assert seen in", "AssertionError: assert sorted(seen) =="),
    ),
)
def check_no_subscription_is_lost_to_another(m: ModuleType) -> None:
    """The original's look-up during a registration missed a permanent handler."""
    with running(m, 1) as bus:
        seen: list[str] = []
        other = interleave_test.spawn(bus.subscribe, "topic", lambda event: seen.append("other"))
        bus.subscribe("topic", lambda event: seen.append("own"))
        bus.publish(ONE)
        assert "own" in seen or bus.stats.published
        other.join()
        bus.wait_idle()
        assert seen in (["own"], ["own", "other"], ["other", "own"])
        seen.clear()
        bus.publish(TWO)
        bus.wait_idle()
        assert sorted(seen) == ["other", "own"]


# EB-5: who waits for room.


@EXPLORED.prove("EB-5", Twin("tells nobody of new room", lost("", "publish"), "deadlock"))
def check_who_waits_for_room_gets_it(m: ModuleType) -> None:
    """While there is room nobody keeps waiting for it, and never more than max_queue wait."""
    with running(m, 1, max_queue=1) as bus:
        seen: list[Event] = []
        subscribe(bus, "topic", seen.append)

        def publish(*events: Event) -> None:
            for event in events:
                bus.publish(event)
                assert bus.stats.pending <= 2, "more than one waits"

        other = interleave_test.spawn(publish, ONE, TWO)
        publish(THREE)
        other.join()
        bus.wait_idle()
        assert numbers(seen) == [1, 2, 3]


@DRAWN.prove(
    "EB-5",
    Twin(
        "takes one event more than it should",
        arguments(max_queue=lambda asked: asked + 1),
        "AssertionError: more than one waits",
    ),
)
def check_a_wake_up_is_not_taken_for_room(m: ModuleType) -> None:
    """Two wait for one place: the one that is woken second finds it taken."""
    with running(m, 1, max_queue=1) as bus:
        with calm():
            second = Plug()
            subscribe(bus, "topic", lambda event: second(event) if event is ONE else None)
        first = Plug.into(bus, ONE)
        other = interleave_test.spawn(bus.publish, TWO)
        first.pull()
        with suppress(BusFull):
            bus.publish(THREE, timeout=1)  # passes once nothing else can run
        assert bus.stats.pending <= 2, "more than one waits"
        second.pull()
        other.join()


@DRAWN.prove("EB-5", Twin("does not pass a wake-up on", lost("publish", "publish"), "deadlock"))
def check_room_for_two_wakes_two(m: ModuleType) -> None:
    """Two places get free before either waiter wakes: the first tells the second."""
    with running(m, 1, max_queue=2) as bus:
        subscribe(bus, "topic", lambda event: None)
        plug = Plug.into(bus, ONE, TWO)
        waiting = [interleave_test.spawn(bus.publish, event) for event in (THREE, FOUR)]
        plug.pull()
        for publisher in waiting:
            publisher.join()


@EXPLORED.prove("EB-5", wrong(faults.HoldsItselfUp, "deadlock"))
def check_a_handler_cannot_wait_for_itself(m: ModuleType) -> None:
    """With every worker publishing into the full bus nobody would make room."""
    with running(m, 1, max_queue=1) as bus:
        refused: list[BaseException] = []

        def handler(event: Event) -> None:
            bus.publish(OTHER)
            try:
                bus.publish(OTHER)
            except BusFull as error:
                refused.append(error)

        subscribe(bus, "other", lambda event: None)
        subscribe(bus, "topic", handler)
        bus.publish(ONE)
        bus.wait_idle()
        assert len(refused) == 1


# EB-6: ordered subscriptions.


@EXPLORED.prove(
    "EB-6",
    wrong(faults.ForgetsTheOrder, "AssertionError: assert log =="),
    wrong(faults.LosesWhatAnOrderedHandlerMisses, "AssertionError: assert log =="),
)
def check_an_ordered_handler_sees_one_event_at_a_time_in_order(m: ModuleType) -> None:
    """Two workers, one ordered handler: one event at a time, in the publisher's order."""
    with running(m, 2) as bus:
        log: list[tuple[str, int]] = []

        def handler(event: Event) -> None:
            log.append(("begin", event.payload))
            rest()
            log.append(("end", event.payload))

        subscribe(bus, "topic", handler, ordered=True)
        bus.publish(ONE)
        bus.publish(TWO)
        bus.wait_idle()
        assert log == [("begin", 1), ("end", 1), ("begin", 2), ("end", 2)]


@DRAWN.prove("EB-6", wrong(faults.SerializesByALock, "deadlock"))
def check_an_ordered_handler_leaves_a_worker_to_others(m: ModuleType) -> None:
    """Its first call waits for another handler, its second for its first."""
    with running(m, 2) as bus:
        free = threading.Event()
        subscribe(bus, "topic", lambda event: free.wait(), ordered=True)
        subscribe(bus, "other", lambda event: free.set())
        for event in (ONE, TWO, OTHER):
            bus.publish(event)
        bus.wait_idle()


# EB-7: wake-ups of workers.


@DRAWN.prove(
    "EB-7",
    Twin("wakes no worker", lost("publish", ""), "deadlock"),
    Twin("wakes one worker for two calls", lost("publish", "", first=1), "deadlock"),
)
def check_no_worker_sleeps_while_a_call_is_ready(m: ModuleType) -> None:
    """Two calls that wait for each other need both workers, which sleep at first."""
    with running(m, 2) as bus:
        met = [threading.Event(), threading.Event()]

        def meet(own: int) -> None:
            met[own].set()
            met[1 - own].wait()

        subscribe(bus, "topic", lambda event: meet(0))
        subscribe(bus, "other", lambda event: meet(1))
        other = interleave_test.spawn(bus.publish, OTHER)
        bus.publish(ONE)
        other.join()
        bus.wait_idle()


# EB-8: stop, also in handlers and several at once.


@EXPLORED.prove(
    "EB-8", wrong(faults.StopsBeside, "deadlock"), wrong(faults.WaitsForCallsBehindIt, "deadlock")
)
def check_stop_in_a_handler_returns(m: ModuleType, workers: int = 1, ordered: bool = False) -> None:
    """A handler stops the bus, calls wait behind it: nothing hangs or is lost."""
    with running(m, workers) as bus:
        seen: list[Event] = []
        returned: list[Event] = []
        accepted: list[Event] = []

        def handler(event: Event) -> None:
            seen.append(event)
            returned.extend(bus.stop())

        subscribe(bus, "topic", handler, ordered=ordered)
        publishing(bus, accepted, ONE, TWO)
        returned.extend(bus.stop())
        assert numbers(seen + returned) == numbers(accepted)


@EXPLORED.prove("EB-8")
def check_stop_in_an_ordered_handler_returns(m: ModuleType) -> None:
    check_stop_in_a_handler_returns(m, ordered=True)


@DRAWN.prove("EB-8", wrong(faults.StopsBeside, "deadlock"))
def check_two_buses_stop_each_other(m: ModuleType) -> None:
    """Each in a handler, which has begun before either stops the other."""
    with running(m, 1) as first, running(m, 1) as second:
        met = [threading.Event(), threading.Event()]
        returned: list[Event] = []

        def stopping(own: int, other: Any) -> Callable[[Event], None]:
            def handler(event: Event) -> None:
                met[own].set()
                met[1 - own].wait()
                returned.extend(other.stop())

            return handler

        subscribe(first, "topic", stopping(0, second))
        subscribe(second, "topic", stopping(1, first))
        first.publish(ONE)
        second.publish(TWO)
        assert first.stop() + second.stop() + returned == []
        assert first.stats.delivered == second.stats.delivered == 1


@EXPLORED.prove(
    "EB-8",
    Twin(
        "lets a worker sleep on when a call came with its wake-up",
        edit(
            "EventBus._await_call",
            "self._dispatcher.ready or self._state is not State.RUNNING",
            "self._dispatcher.ready",
        ),
        "deadlock",
    ),
)
def check_an_idle_worker_leaves_though_a_handler_is_stuck(m: ModuleType) -> None:
    with calm():
        bus = m.EventBus(2, name="stuck")
        bus.start()
        rest()  # both workers sleep
    free = threading.Event()
    subscribe(bus, "topic", lambda event: free.wait())
    bus.publish(ONE)
    bus.stop(timeout=0)
    rest()
    left = [thread for thread in threading.enumerate() if thread.name.startswith("stuck")]
    free.set()
    assert len(left) <= 1, "an idle worker is left"


@DRAWN.prove("EB-8", wrong(faults.StopsOneAtATime, "deadlock"))
def check_two_handlers_and_the_owner_stop_at_once(m: ModuleType) -> None:
    check_stop_in_a_handler_returns(m, workers=2)


@EXPLORED.prove(
    "EB-8",
    wrong(faults.ReturnsAgain, "AssertionError: assert own + other in"),
    wrong(faults.StaysStopping, "RuntimeError: it is stopping"),
    preemptions=budget(0, 1),
)
def check_two_stops_return_each_event_once(m: ModuleType) -> None:
    """Afterwards the bus can be started again."""
    with running(m, 1) as bus:
        subscribe(bus, "topic", lambda event: None)
        plug = Plug.into(bus, TWO)
        other: list[Event] = []
        stopper = interleave_test.spawn(lambda: other.extend(bus.stop(drain=False)))
        plug.pull()
        own = bus.stop(drain=False)
        stopper.join()
        assert own + other in ([], [TWO])
        with calm():
            assert bus.stats.delivered + len(own + other) == 2
            bus.start()
        assert bus.is_running


@EXPLORED.prove(
    "EB-8", wrong(faults.LosesAnOrderedHandler, "AssertionError: assert seen[-1:] == [THREE]")
)
def check_an_ordered_handler_works_after_a_restart(m: ModuleType) -> None:
    """What `stop` took back out of a mailbox leaves no trace."""
    with running(m, 1) as bus:
        seen: list[Event] = []
        subscribe(bus, "topic", seen.append, ordered=True)
        bus.publish(ONE)
        bus.publish(TWO)
        returned = bus.stop(drain=False)
        assert seen + returned == [ONE, TWO]
        with calm():
            bus.start()
        bus.publish(THREE)
        bus.wait_idle()
        assert seen[-1:] == [THREE]


# EB-10: wait_idle.


@EXPLORED.prove(
    "EB-10", Twin("stops and tells none who wait for idle", lost("stop", "wait_idle"), "deadlock")
)
def check_a_stopped_bus_keeps_nobody_waiting_for_idle(m: ModuleType) -> None:
    """The handler is stuck, so the bus does not get idle, but it gets stopped."""
    with running(m, 1) as bus:
        plug = Plug.into(bus)
        waiter = interleave_test.spawn(bus.wait_idle)
        assert bus.stop(timeout=0) == []
        waiter.join()
        plug.pull()
        bus.start()


@EXPLORED.prove(
    "EB-10",
    Twin(
        "drops calls without telling",
        lost("cancel", "wait_idle"),
        "deadlock",
    ),
)
def check_dropping_the_last_call_makes_idle(m: ModuleType) -> None:
    """It is dropped, not handled: who waits for idle is released by that, too."""
    with running(m, 1) as bus:
        subscription = subscribe(bus, "topic", lambda event: None)
        canceller = interleave_test.spawn(subscription.cancel)
        bus.publish(ONE)
        bus.wait_idle()
        canceller.join()


@EXPLORED.prove("EB-10", wrong(faults.MissesIdleMoments, "deadlock"))
def check_an_idle_moment_releases_who_waits(m: ModuleType) -> None:
    """Idle for an instant and busy again: who waited for that is released all the same."""
    with running(m, 1) as bus:
        released = threading.Event()

        def wait() -> None:
            bus.wait_idle()
            released.set()

        plug = Plug.into(bus)
        subscribe(bus, "other", lambda event: released.wait())
        waiter = interleave_test.spawn(wait)
        rest()
        plug.pull()
        bus.wait_idle()
        bus.publish(OTHER)
        waiter.join()


@EXPLORED.prove("EB-10", wrong(faults.ForgetsTheRunning, "AssertionError: assert seen == [OTHER]"))
def check_idle_means_the_handlers_events_too(m: ModuleType) -> None:
    with running(m, 1) as bus:
        seen: list[Event] = []
        plug = Plug()

        def chain(event: Event) -> None:
            plug(event)
            bus.publish(OTHER)

        subscribe(bus, "topic", chain)
        subscribe(bus, "other", seen.append)
        bus.publish(ONE)
        plug.await_begun()
        plug.pull()
        bus.wait_idle()
        assert seen == [OTHER]


# Beyond one preemption: many schedules drawn at random.


@DRAWN.prove("EB-1", granularity=None)
def check_publishers_subscribers_and_stop_at_once(m: ModuleType) -> None:
    with running(m, 2, max_queue=1) as bus:
        seen: list[Event] = []
        accepted: list[Event] = []
        subscribe(bus, "topic", seen.append, ordered=True)
        brief = subscribe(bus, "topic", lambda event: None)
        publishers = [
            interleave_test.spawn(publishing, bus, accepted, ONE, TWO),
            interleave_test.spawn(publishing, bus, accepted, THREE, FOUR),
            interleave_test.spawn(brief.cancel),
        ]
        returned = bus.stop()
        for publisher in publishers:
            publisher.join()
        assert returned == []
        assert numbers(seen) == numbers(accepted)
        for own in ([1, 2], [3, 4]):
            handled = [event.payload for event in seen if event.payload in own]
            assert handled == own[: len(handled)]


test_it_holds_in_each_schedule = explored(EXPLORED, event_bus)


@each_proof(DRAWN)
def test_it_holds_in_many_schedules(proof: Proof, interleavings: Interleavings) -> None:
    interleavings.sample(lambda: proof.check(event_bus), schedules=400)


test_its_twin_is_caught = caught(EXPLORED + DRAWN, "buses/event_bus")
