"""The dispatcher of both buses, without a bus: against a plain model, and interrupted anywhere."""

from collections.abc import Callable, Iterable
from contextvars import copy_context
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from reference_impl.buses import event_bus
from reference_impl.buses.event import ANY, Event
from tests.buses.event_bus.sweeps import Sweep, Sweeps
from tests.kit.interrupts import Ending, Interrupts
from tests.kit.profile import budget, same_each_time
from tests.kit.proofs import Proof, each_proof, each_twin
from tests.kit.twins import Fault, Twin, build, must_fail, override, within

COMPONENT, PART = "buses/event_bus", "buses/_dispatcher"
CONTEXT = copy_context()


def accept(dispatcher: Any, event: Event) -> list[Any]:
    """The calls of an event that is accepted, each an (accepted event, route)."""
    routes = dispatcher.routes_of(event)
    before = len(dispatcher.ready)
    dispatcher.accept(event, CONTEXT, routes)
    return list(dispatcher.ready)[before:]


def agree(dispatcher: Any) -> None:
    """The invariants that its docstring states."""
    ready, mailboxes = list(dispatcher.ready), dispatcher.mailboxes
    behind = [(each, route) for route, box in mailboxes.items() for each in list(box)[1:]]
    assert dispatcher.pending == len(ready) + len(behind) + dispatcher.started, "pending"
    assert len({*ready, *behind}) == len(ready) + len(behind), "a call waits twice"
    running = [(box[0], route) for route, box in mailboxes.items() if (box[0], route) not in ready]
    assert len(running) <= dispatcher.started, "a mailbox waits for nobody"
    stats = dispatcher.stats()
    assert stats.pending == dispatcher.pending
    assert min(stats.delivered, stats.failed, stats.dropped, stats.pending) >= 0


def fault(method: str, make: Callable[..., Any]) -> Fault:
    """`make(the original, dispatcher, ...)` in place of a method of the dispatcher."""

    def replaced(original: Any) -> Any:
        return lambda *arguments, **options: make(original, *arguments, **options)

    return within(PART, override(f"Dispatcher.{method}", replaced))


# Against a model: every call has a state, and each subscription a line.


class DispatcherMachine(RuleBasedStateMachine):
    module: Any = event_bus

    def __init__(self) -> None:
        super().__init__()
        self.dispatcher = self.module.Dispatcher()
        self.routes: list[Any] = []  # that have not ended
        self.unordered: list[Any] = []  # calls that wait, first come, first started
        self.ordered: dict[Any, list[Any]] = {}  # by route: likewise
        self.started: list[Any] = []
        self.events = self.delivered = self.failed = self.dropped = self.idle_moments = 0
        self.taken: set[int] = set()

    def waiting(self) -> list[Any]:
        return self.unordered + [call for calls in self.ordered.values() for call in calls]

    def line_of(self, route: Any) -> list[Any]:
        return self.ordered.setdefault(route, []) if route.ordered else self.unordered

    def settled(self, before: int) -> None:
        """Calls are gone; there were so many before."""
        self.idle_moments += before > 0 and not (self.waiting() or self.started)

    @rule(topic=st.sampled_from(["a", "b", ANY]), ordered=st.booleans())
    def subscribe(self, topic: Any, ordered: bool) -> None:
        self.routes.append(self.dispatcher.subscribe(topic, print, ordered))

    @rule(topics=st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=4))
    def accept(self, topics: list[str]) -> None:
        for topic in topics:
            event = Event(topic)
            met = [route for route in self.routes if route.topic == topic]
            met += [route for route in self.routes if route.topic is ANY]
            calls = accept(self.dispatcher, event)
            assert [route for _, route in calls] == met
            self.events += 1
            for call in calls:
                assert (call[0].event, call[0].number) == (event, self.events)
                self.line_of(call[1]).append(call)

    @rule(most=st.sampled_from([1, 2, 20]))
    def start(self, most: int) -> None:
        for _ in range(most):
            busy = {route for _, route in self.started if route.ordered}
            may = self.unordered[:1]
            may += [
                calls[0] for route, calls in self.ordered.items() if calls and route not in busy
            ]
            call = self.dispatcher.start()
            if call is None:
                assert not may, "a call that may start is left"
                return
            assert call in may, "it starts out of turn"
            self.line_of(call[1]).remove(call)
            self.started.append(call)

    @precondition(lambda self: self.started)
    @rule(data=st.data(), delivered=st.booleans())
    def finish(self, data: st.DataObject, delivered: bool) -> None:
        call = self.started.pop(data.draw(st.integers(0, len(self.started) - 1)))
        self.dispatcher.finish(call, delivered)
        self.delivered += delivered
        self.failed += not delivered
        self.settled(1)

    @precondition(lambda self: self.started)
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        """One of a subscription that has ended is dropped instead."""
        call = self.started.pop(data.draw(st.integers(0, len(self.started) - 1)))
        if call[1] in self.routes:
            self.dispatcher.put_back(call)
            self.line_of(call[1]).insert(0, call)
        else:
            self.dispatcher.finish(call, False, dropped=True)
            self.dropped += 1
            self.settled(1)

    @precondition(lambda self: self.routes)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Some of a topic, or one that has ended besides."""
        topic = data.draw(st.sampled_from(self.routes)).topic
        of_topic = [route for route in self.routes if route.topic == topic]
        ended = data.draw(st.sets(st.sampled_from(of_topic), min_size=1))
        assert self.dispatcher.left_of(list(ended)) == ended
        dropped = self.dispatcher.drop(ended, cancel=True)
        assert self.dispatcher.left_of(list(ended)) == set()
        self.routes = [route for route in self.routes if route not in ended]
        self.drop(ended, dropped)

    @rule()
    def take_back(self) -> None:
        dropped = self.dispatcher.drop(self.dispatcher.all_routes(), cancel=False)
        self.drop(self.routes, dropped)
        self.taken |= {accepted.number for accepted, _ in dropped}

    def drop(self, routes: Iterable[Any], dropped: list[Any]) -> None:
        expected = [call for call in self.waiting() if call[1] in routes]
        assert len(dropped) == len(expected)
        assert {*dropped} == {*expected}
        for call in dropped:
            self.line_of(call[1]).remove(call)
        self.dropped += len(dropped)
        self.settled(len(dropped))

    @invariant()
    def it_agrees(self) -> None:
        agree(self.dispatcher)
        waiting = self.waiting()
        assert self.dispatcher.started == len(self.started)
        assert self.dispatcher.pending == len(waiting) + len(self.started)
        assert self.dispatcher.backlog == len({accepted for accepted, _ in waiting}), "backlog"
        assert self.dispatcher.idle_moments == self.idle_moments
        assert self.dispatcher.taken_back.keys() == self.taken
        stats = self.dispatcher.stats()
        figures = (stats.published, stats.delivered, stats.failed, stats.dropped)
        assert figures == (self.events, self.delivered, self.failed, self.dropped), "figures"


def _keeps_room(drop: Any, dispatcher: Any, routes: Any, *, cancel: bool) -> Any:
    dropped = drop(dispatcher, routes, cancel=cancel)
    for accepted, route in dropped:
        dispatcher.accept(accepted.event, CONTEXT, [route])
        dispatcher.ready.pop()
        dispatcher.pending -= 1
        dispatcher.published -= 1
    return dropped


def _jumps(finish: Any, dispatcher: Any, *call: Any, **how: Any) -> None:
    finish(dispatcher, *call, **how)
    dispatcher.mailboxes.pop(call[0][1], None)


MODEL_TWINS = [
    Twin(
        "keeps the room of what was dropped",
        fault("drop", _keeps_room),
        "AssertionError: backlog",
    ),
    Twin(
        "empties the mailbox of a call that has ended",
        fault("finish", _jumps),
        "AssertionError: pending",
    ),
    Twin(
        "calls ANY alone",
        fault("routes_of", lambda _, dispatcher, event: dispatcher.routes.get(ANY, ())),
        "AssertionError: assert [route for _, route in calls] == met",
    ),
]


@pytest.mark.guarantee("EB-1")
def test_the_dispatcher_does_what_the_model_does() -> None:
    run_state_machine_as_test(DispatcherMachine, settings=settings(max_examples=budget(60, 500)))


@each_twin([Proof("EB-1", test_the_dispatcher_does_what_the_model_does, MODEL_TWINS)])
def test_the_model_finds_its_fault(proof: Proof, twin: Twin) -> None:
    class Broken(DispatcherMachine):
        module = build(COMPONENT, twin.fault)

    must_fail(twin, lambda: run_state_machine_as_test(Broken, settings=same_each_time(1000)))


# Order.


def check_the_next_of_a_mailbox_goes_behind_what_is_ready(m: ModuleType) -> None:
    """Or an ordered handler that is always busy would hold up all others."""
    dispatcher = m.Dispatcher()
    dispatcher.subscribe("ordered", print, True)
    dispatcher.subscribe("other", print, False)
    for topic in ("ordered", "ordered", "other", "other"):
        accept(dispatcher, Event(topic))
    first, other = dispatcher.start(), dispatcher.start()
    dispatcher.finish(first, True)
    dispatcher.finish(other, True)
    started = [dispatcher.start()[0].event.event_type for _ in range(2)]
    assert started == ["other", "ordered"]
    assert dispatcher.start() is None


def _first_in_line(finish: Any, dispatcher: Any, *call: Any, **how: Any) -> None:
    before = len(dispatcher.ready)
    finish(dispatcher, *call, **how)
    if len(dispatcher.ready) > before:
        dispatcher.ready.rotate(1)


ORDER = [
    Proof(
        "EB-6",
        check_the_next_of_a_mailbox_goes_behind_what_is_ready,
        [
            Twin(
                "puts the next of a mailbox first in line",
                fault("finish", _first_in_line),
                'AssertionError: assert started == ["other", "ordered"]',
            )
        ],
    )
]


@each_proof(ORDER)
def test_it_keeps_the_order(proof: Proof) -> None:
    proof.hold(event_bus)


@each_twin(ORDER)
def test_another_order_is_found(proof: Proof, twin: Twin) -> None:
    proof.must_fail(twin, COMPONENT)


# Interrupts: each operation happens or does not.


class Topic:
    """One whose hash and equality are Python code."""

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Topic)


class Scene:
    """A dispatcher with calls in each state, and pictures of it before and after an operation."""

    def __init__(self, m: ModuleType, operation: Callable[["Scene"], object]) -> None:
        self._fill(m)
        operation(self)
        self.after = self.picture()
        self._fill(m)
        self.before = self.picture()

    def _fill(self, m: ModuleType) -> None:
        dispatcher = self.dispatcher = m.Dispatcher()
        topic = Topic()
        self.plain = dispatcher.subscribe(topic, "plain", False)
        self.ordered = dispatcher.subscribe(topic, "ordered", True)
        dispatcher.subscribe("alone", "alone", False)
        for number in range(4):
            accept(dispatcher, Event(topic, number))
        self.calls = [dispatcher.start() for _ in range(3)]

    def picture(self) -> object:
        """All that can be seen of it."""
        dispatcher = self.dispatcher
        return (
            {str(topic is ANY): [r.handler for r in rs] for topic, rs in dispatcher.routes.items()},
            [(accepted.number, route.handler) for accepted, route in dispatcher.ready],
            [[accepted.number for accepted in box] for box in dispatcher.mailboxes.values()],
            sorted(dispatcher.taken_back),
            (dispatcher.stats(), dispatcher.started, dispatcher.backlog, dispatcher.idle_moments),
        )


SWEEPS = Sweeps()


def check_all_or_nothing(scene: Scene, ending: Ending) -> None:
    agree(scene.dispatcher)
    picture = scene.picture()
    assert picture == scene.after or (ending.error and picture == scene.before), "half is done"


def sweep(guarantee: str, operation: Callable[[Scene], object], *twins: Twin) -> None:
    """The operation is one of those to be interrupted."""

    def check(scene: Scene, ending: Ending) -> None:
        check_all_or_nothing(scene, ending)

    check.__name__ = operation.__name__
    SWEEPS.prove(guarantee, lambda m: Scene(m, operation), operation, *twins)(check)


def subscribes(scene: Scene) -> None:
    scene.dispatcher.subscribe(Topic(), "another", True)


def accepts(scene: Scene) -> None:
    event = Event(Topic())
    scene.dispatcher.accept(event, CONTEXT, scene.dispatcher.routes_of(event))


def starts(scene: Scene) -> None:
    """A call that must wait for its handler goes into a mailbox, the one behind it starts."""
    scene.calls.append(scene.dispatcher.start())


def puts_back(scene: Scene) -> None:
    scene.dispatcher.put_back(scene.calls[0])


def finishes(scene: Scene) -> None:
    scene.dispatcher.finish(scene.calls[0], True)


def finishes_one_with_a_mailbox(scene: Scene) -> None:
    scene.dispatcher.finish(scene.calls[1], False)


def cancels(scene: Scene) -> None:
    scene.dispatcher.drop({scene.ordered}, cancel=True)


def cancels_all(scene: Scene) -> None:
    scene.dispatcher.drop(scene.dispatcher.left_of([scene.plain, scene.ordered]), cancel=True)


def takes_back(scene: Scene) -> None:
    scene.dispatcher.drop(scene.dispatcher.all_routes(), cancel=False)


def _counts_beforehand(accept: Any, dispatcher: Any, event: Any, context: Any, routes: Any) -> None:
    dispatcher.published += 1
    accept(dispatcher, event, context, routes)
    dispatcher.published -= 1


def _in_two_steps(drop: Any, dispatcher: Any, routes: Any, *, cancel: bool) -> Any:
    dropped: list[Any] = []
    for route in routes:
        dropped += drop(dispatcher, {route}, cancel=cancel)
    return dropped


_HALF = "AssertionError: half is done"
sweep("EB-4", subscribes)
sweep(
    "EB-1",
    accepts,
    Twin("counts an event before it has accepted it", fault("accept", _counts_beforehand), _HALF),
)
sweep("EB-1", starts)
sweep("EB-1", puts_back)
sweep("EB-1", finishes)
sweep("EB-6", finishes_one_with_a_mailbox)
sweep("EB-4", cancels)
sweep(
    "EB-4",
    cancels_all,
    Twin("cancels one subscription after another", fault("drop", _in_two_steps), _HALF),
)
sweep("EB-8", takes_back)


@each_proof(SWEEPS)
def test_each_operation_happens_or_does_not(proof: Sweep, interrupts: Interrupts) -> None:
    interrupts.prove(lambda: proof.prepare(event_bus), proof.call, proof.check)


@each_twin(SWEEPS)
def test_half_an_operation_is_found(proof: Sweep, twin: Twin, interrupts: Interrupts) -> None:
    broken = build(COMPONENT, twin.fault)
    interrupts.catch(lambda: proof.prepare(broken), proof.call, proof.check, twin=twin)
