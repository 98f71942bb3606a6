"""EventBus against a plain model: lists for the line, and one log for each subscription.

One worker, which a gate holds at times: then calls wait, and the model knows which. While
it is not held, the bus is idle after each rule.
"""

import queue
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from reference_impl.buses import event_bus
from reference_impl.buses.event import ANY, BusFull, BusStats, BusStopped, Event
from tests.buses.event_bus import faults
from tests.buses.event_bus.faults import wrong
from tests.kit.fakes import PATIENCE
from tests.kit.profile import budget, same_each_time
from tests.kit.proofs import Proof, each_twin
from tests.kit.twins import Twin, build, must_fail

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_QUEUE = 4
topics = st.sampled_from(["a", "b"])


@dataclass(eq=False)
class Subscriber:
    topic: Any
    expected: list[Event] = field(default_factory=list)
    seen: list[Event] = field(default_factory=list)
    subscription: Any = None


class BusMachine(RuleBasedStateMachine):
    module: Any = event_bus
    subscribers = Bundle("subscribers")

    def __init__(self) -> None:
        super().__init__()
        self.bus = self.module.EventBus(1, max_queue=MAX_QUEUE)
        self.bus.start()
        self.live: list[Subscriber] = []
        self.line: list[tuple[Event, Subscriber]] = []
        self.published = self.delivered = self.dropped = 0
        self.gate: queue.SimpleQueue[Callable[[], object]] | None = None
        self.stopping = False  # a handler has requested it
        self.taken: list[Event] = []  # by that

    def backlog(self) -> list[Event]:
        """The events that wait, each once, in order of acceptance."""
        return list({event.event_id: event for event, _ in self.line}.values())

    @rule(target=subscribers, topic=st.one_of(topics, st.just(ANY)), ordered=st.booleans())
    def subscribe(self, topic: Any, ordered: bool) -> Subscriber:
        subscriber = Subscriber(topic)
        subscriber.subscription = self.bus.subscribe(topic, subscriber.seen.append, ordered=ordered)
        self.live.append(subscriber)
        return subscriber

    @rule(subscriber=consumes(subscribers))
    def cancel(self, subscriber: Subscriber) -> None:
        assert subscriber.subscription.cancel()
        assert not subscriber.subscription.cancel()
        self.live.remove(subscriber)
        kept = [call for call in self.line if call[1] is not subscriber]
        self.dropped += len(self.line) - len(kept)
        self.line = kept

    @rule(topic=topics)
    def publish(self, topic: str) -> None:
        event = Event(topic)
        if self.stopping:
            with pytest.raises(BusStopped):
                self.bus.publish(event)
            return
        met = [s for s in self.live if s.topic is not ANY and s.topic == topic]
        met += [s for s in self.live if s.topic is ANY]
        if met and len(self.backlog()) >= MAX_QUEUE:
            with pytest.raises(BusFull):
                self.bus.publish(event, timeout=0)
            return
        self.bus.publish(event, timeout=0)
        self.published += 1
        self.line += [(event, subscriber) for subscriber in met]
        if self.gate is None:
            self.settle()

    def settle(self) -> None:
        self.bus.wait_idle(PATIENCE)
        for event, subscriber in self.line:
            subscriber.expected.append(event)
        self.delivered += len(self.line)
        self.line.clear()

    @precondition(lambda self: self.gate is None and not self.stopping)
    @rule()
    def hold(self) -> None:
        gate: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        entered = threading.Event()

        def wait(event: Event) -> None:
            entered.set()
            while gate.get(timeout=PATIENCE)():
                pass

        with self.bus.subscribe("gate", wait):
            listening = [s for s in self.live if s.topic is ANY]
            event = Event("gate")
            self.bus.publish(event, timeout=0)
            assert entered.wait(PATIENCE)
        self.published += 1
        self.line = [(event, subscriber) for subscriber in listening]
        self.gate = gate

    @precondition(lambda self: self.gate is not None)
    @rule()
    def release(self) -> None:
        assert self.gate is not None
        self.gate.put(lambda: False)
        self.gate = None
        self.delivered += 1
        self.settle()

    @precondition(lambda self: self.gate is not None)
    @rule(drain=st.booleans())
    def stop_in_the_handler(self, drain: bool) -> None:
        assert self.gate is not None
        returned: queue.SimpleQueue[list[Event]] = queue.SimpleQueue()

        def stop() -> bool:
            returned.put(self.bus.stop(drain=drain))
            return True

        self.gate.put(stop)
        assert returned.get(timeout=PATIENCE) == []
        self.stopping = True
        if not drain:
            self.taken += self.backlog()
            self.dropped += len(self.line)
            self.line.clear()
        with pytest.raises(RuntimeError, match="stopping"):
            self.bus.start()

    @rule(drain=st.booleans())
    def stop_and_start(self, drain: bool) -> None:
        returned = self.bus.stop(timeout=0 if self.gate else None, drain=drain)
        assert returned == self.taken + self.backlog()
        self.stopping = False
        self.taken.clear()
        self.dropped += len(self.line)
        self.line.clear()
        with pytest.raises(BusStopped):
            self.bus.publish(Event("a"))
        self.bus.start()

    @invariant()
    def figures_agree(self) -> None:
        held = self.gate is not None
        assert self.bus.stats == BusStats(
            published=self.published,
            delivered=self.delivered,
            failed=0,
            dropped=self.dropped,
            pending=len(self.line) + held,
        )

    @invariant()
    def each_saw_what_it_should(self) -> None:
        for subscriber in self.live:
            assert subscriber.seen == subscriber.expected

    def teardown(self) -> None:
        if self.gate is not None:
            self.gate.put(lambda: False)
        self.bus.stop(timeout=PATIENCE)
        self.bus.start()
        self.bus.stop(timeout=PATIENCE)


_FIGURES = "AssertionError: assert self.bus.stats =="
TWINS = [
    wrong(faults.ForgetsAny, _FIGURES, "AssertionError: assert subscriber.seen =="),
    wrong(faults.KeepsTheRoomOfTheDropped, "BusFull: the dropped calls take up the room"),
    wrong(faults.ReplacesOthers, _FIGURES),
    wrong(faults.CountsNoDropped, _FIGURES),
    wrong(faults.ReturnsAgain, "AssertionError: assert returned == self.taken"),
]


@pytest.mark.guarantee("EB-1")
def test_the_bus_does_what_the_model_does() -> None:
    run_state_machine_as_test(BusMachine, settings=settings(max_examples=budget(50, 150)))


@each_twin([Proof("EB-1", test_the_bus_does_what_the_model_does, TWINS)])
def test_the_model_finds_its_fault(proof: Proof, twin: Twin) -> None:
    class Broken(BusMachine):
        module = build("buses/event_bus", twin.fault)

    must_fail(twin, lambda: run_state_machine_as_test(Broken, settings=same_each_time(1000)))
