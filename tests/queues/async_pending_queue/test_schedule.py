"""AsyncPendingQueue's schedule of names, without files and without a loop (PQ-3, PQ-4)."""

import math
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from reference_impl.queues import async_pending_queue
from tests.kit.fakes import Clock
from tests.kit.profile import budget, same_each_time
from tests.kit.proofs import each_twin_of
from tests.kit.twins import Twin, build, edit, must_fail
from tests.queues.async_pending_queue.helpers import COMPONENT

NAMES = st.sampled_from("abcd")


def machine(m: Any) -> type[RuleBasedStateMachine]:
    """The state machine for this module, which may be a broken twin."""

    class ScheduleMachine(RuleBasedStateMachine):
        """The model: a list of who is ready, and the places of the others."""

        @initialize()
        def start_anew(self) -> None:
            self.clock = Clock()
            self.schedule = m.Schedule(self.clock)
            self.ready: list[str] = []
            self.running: dict[str, bool] = {}
            self.waiting: dict[str, float] = {}
            self.failures: dict[str, int] = {}

        def add_to_model(self, name: str) -> None:
            self.waiting.pop(name, None)
            if name in self.running:
                self.running[name] = True
            elif name not in self.ready:
                self.ready.append(name)

        @rule(name=NAMES)
        def add(self, name: str) -> None:
            self.schedule.add(name)
            self.add_to_model(name)

        @precondition(lambda self: self.ready)
        @rule()
        def start(self) -> None:
            name = self.ready.pop(0)
            assert self.schedule.start() == name, "it is another one's turn"
            self.running[name] = False

        @precondition(lambda self: self.running)
        @rule(data=st.data(), seconds=st.sampled_from([None, 0.0, 1.0, 2.0, math.inf]))
        def end(self, data: st.DataObject, seconds: float | None) -> None:
            name = data.draw(st.sampled_from(sorted(self.running)))
            if seconds is None:
                self.schedule.forget(name)
                self.failures.pop(name, None)
            else:
                self.failures[name] = self.failures.get(name, 0) + 1
                assert self.schedule.fail(name, name) == self.failures[name], "it counts otherwise"
                self.waiting[name] = self.clock.now + seconds
                first = self.schedule.pause(name, seconds)
                assert first <= min(self.waiting.values()), "a pause would end too late"
            assert self.schedule.end(name) is self.running.pop(name)

        @rule(seconds=st.sampled_from([0.0, 0.5, 1.0]), most=st.integers(1, 3))
        def pass_time(self, seconds: float, most: int) -> None:
            self.clock.tick(seconds)
            while True:
                following = self.schedule.end_pauses(self.clock.now, most)
                if following > self.clock.now:
                    break
            over = [name for name, until in self.waiting.items() if until <= self.clock.now]
            for name in sorted(over, key=lambda name: (self.waiting[name], name)):
                self.add_to_model(name)
            assert following <= min(self.waiting.values(), default=math.inf)

        @invariant()
        def each_name_has_one_place(self) -> None:
            assert list(self.schedule.ready) == self.ready, "others are ready"
            assert self.schedule.running == self.running
            assert self.schedule.waiting == self.waiting, "others wait"
            places = [*self.ready, *self.running]
            assert len(set(places)) == len(places), "a name has two places"

    return ScheduleMachine


TestSchedule = pytest.mark.guarantee("PQ-3")(machine(async_pending_queue).TestCase)


@each_twin_of(
    "PQ-3",
    Twin(
        "serves who comes last",
        edit("Schedule.start", "self.ready.popitem(last=False)", "self.ready.popitem()"),
        "AssertionError: it is another one's turn",
    ),
    Twin(
        "ends a pause that was replaced",
        edit("Schedule.end_pauses", "self.waiting.get(name) == until", "True"),
        ("AssertionError: others are ready", "AssertionError: others wait"),
    ),
    Twin(
        "starts a name again that runs",
        edit("Schedule.add", "name in self.running", "False"),
        "AssertionError: others are ready",
    ),
)
def test_the_model_catches_faults(twin: Twin) -> None:
    quick = same_each_time(budget(200, 500), deadline=None)
    broken = machine(build(COMPONENT, twin.fault))
    must_fail(twin, lambda: run_state_machine_as_test(broken, settings=quick))
