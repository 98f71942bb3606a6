"""AsyncRunner against a plain model: what has become of each coroutine that was submitted.

Every coroutine waits at a gate of its own, so that the model knows what each one does. After
each rule the loop has made enough turns for its consequences.
"""

import asyncio
import concurrent.futures
import gc
import threading
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from reference_impl.bridges import async_runner
from tests.bridges.async_runner.helpers import (
    FILE,
    FORGETS_RESULTS,
    LEAVES_REFUSED_OPEN,
    LETS_THE_TASK_GO_ON,
    STARTS_AGAIN,
    in_waits,
    of_a_twin,
    turn,
    was_closed,
)
from tests.kit.fakes import PATIENCE
from tests.kit.profile import budget
from tests.kit.proofs import Proof, each_twin, holding
from tests.kit.twins import Twin, build, must_fail

ERRORS: list[type[BaseException]] = [ValueError, TimeoutError, SystemExit, KeyboardInterrupt]


@dataclass(eq=False)
class Work:
    """What the model knows of a coroutine: its future's fate, and whether it still runs."""

    ignores: bool  # whether it returns a result in spite of a cancellation
    fate: Any = None  # "cancelled", a result, or an error; None while the future is pending
    runs: bool = True
    was_cancelled: bool = False
    clean_ups: int = 0
    gate: Any = None
    waits: threading.Event = field(default_factory=threading.Event)
    future: Any = field(default=None)

    async def __call__(self) -> Any:
        self.gate = asyncio.get_running_loop().create_future()
        self.waits.set()
        try:
            return await self.gate
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            self.clean_ups += 1
            if self.ignores:
                return "in spite of it"
            raise


class RunnerMachine(RuleBasedStateMachine):
    module: Any = async_runner
    works = Bundle("works")

    def __init__(self) -> None:
        super().__init__()
        self.runner = self.module.AsyncRunner()
        self.state = "new"
        self.all: list[Work] = []

    def settle(self) -> None:
        """Let the loop do what was asked of it."""
        if self.state != "new":
            turn(self.runner, 6)

    @precondition(lambda self: self.state != "closed")
    @rule()
    def start(self) -> None:
        self.runner.start()
        self.state = "running"
        self.settle()

    @rule(target=works, ignores=st.booleans())
    def submit(self, ignores: bool) -> Any:
        work = Work(ignores)
        coro = work()
        if self.state != "running":
            with pytest.raises(RuntimeError):
                self.runner.submit(coro)
            assert was_closed(coro)
            return multiple()
        work.future = self.runner.submit(coro)
        self.all.append(work)
        self.settle()
        return work

    @precondition(lambda self: self.state == "running")
    @rule(work=works, error=st.one_of(st.none(), st.sampled_from(ERRORS)))
    def end(self, work: Work, error: type[BaseException] | None) -> None:
        outcome: Any = "a result" if error is None else error()
        if work.runs:
            work.runs = False
            if work.fate is None:
                work.fate = outcome
        self.runner.run(self.open(work, outcome), PATIENCE)
        self.settle()

    async def open(self, work: Work, outcome: Any) -> None:
        if work.gate.done():
            return
        if isinstance(outcome, BaseException):
            work.gate.set_exception(outcome)
        else:
            work.gate.set_result(outcome)

    @rule(work=works)
    def cancel(self, work: Work) -> None:
        expected = work.fate is None or work.fate == "cancelled"
        assert work.future.cancel() == expected
        if work.fate is None:
            work.fate = "cancelled"
            work.was_cancelled, work.runs = True, False
        assert work.future.done()
        self.settle()

    @precondition(lambda self: self.state == "running")
    @rule(value=st.integers())
    def run(self, value: int) -> None:
        assert self.runner.run(asyncio.sleep(0, value), PATIENCE) == value

    @precondition(lambda self: self.state == "running")
    @rule(ignores=st.booleans())
    def run_out_of_time(self, ignores: bool) -> None:
        """The time is up once the coroutine waits: by a real clock this would be a race."""
        work = Work(ignores)

        def ask(timeout: float | None) -> None:
            if timeout == 0:
                assert work.waits.wait(PATIENCE)
                raise TimeoutError

        with in_waits(async_runner, ask):
            try:
                assert self.runner.run(work(), timeout=0) == "in spite of it"
                assert ignores
            except TimeoutError:
                assert not ignores
        assert work.clean_ups == 1

    @rule(work=consumes(works))
    def forget(self, work: Work) -> None:
        """Nobody need hold a future for its coroutine to go on."""

    @rule()
    def close(self) -> None:
        self.runner.close(PATIENCE)
        self.state = "closed"
        for work in self.all:
            if work.runs:
                work.runs, work.was_cancelled = False, True
                work.fate = "in spite of it" if work.ignores else "cancelled"
        with pytest.raises(RuntimeError):
            self.runner.start()

    @invariant()
    def futures_are_as_the_model_says(self) -> None:
        for work in self.all:
            assert work.future.done() == (work.fate is not None)
            assert work.clean_ups == work.was_cancelled
            if work.fate == "cancelled":
                assert work.future.cancelled()
                with pytest.raises(concurrent.futures.CancelledError):
                    work.future.result(0)
            elif isinstance(work.fate, BaseException):
                assert work.future.exception(0) is work.fate
            elif work.fate is not None:
                assert work.future.result(0) == work.fate

    def teardown(self) -> None:
        self.runner.close(PATIENCE)
        assert all(work.future.done() for work in self.all)


SETTINGS = settings(max_examples=budget(40, 200), stateful_step_count=30)
TO_CATCH = settings(SETTINGS, phases=[Phase.generate], derandomize=True, database=None)


def check_the_model(m: ModuleType, how: settings = SETTINGS) -> None:
    class Machine(RunnerMachine):
        module = m

    run_state_machine_as_test(Machine, settings=how)


PROOFS = [
    Proof(
        "AR-1",
        check_the_model,
        [
            Twin("forgets results", FORGETS_RESULTS, "AssertionError: work.future.result(0)"),
            Twin(
                "lets tasks go on",
                LETS_THE_TASK_GO_ON,
                ("AssertionError: work.clean_ups", "CancelledError"),
            ),
            Twin("leaves refused ones open", LEAVES_REFUSED_OPEN, "AssertionError: was_closed"),
            Twin("starts again", STARTS_AGAIN, "Failed: DID NOT RAISE"),
        ],
    )
]

test_the_runner_behaves_like_its_model = holding(PROOFS, async_runner)


@each_twin(PROOFS)
@of_a_twin
def test_the_model_catches_a_twin(proof: Proof, twin: Twin) -> None:
    must_fail(twin, lambda: check_the_model(build(FILE, twin.fault), TO_CATCH))
    gc.collect()  # here, where coroutines that a twin forgets may warn
