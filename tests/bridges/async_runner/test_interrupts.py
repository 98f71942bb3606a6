"""AsyncRunner interrupted at each point where CPython runs signal handlers; not copied."""

import concurrent.futures
import copy
import gc
import inspect
import pickle
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import async_runner
from reference_impl.bridges.async_runner import AsyncRunner
from tests.bridges.async_runner.helpers import FILE, Job, descriptors, logged, of_a_twin, value
from tests.kit import fakes
from tests.kit.fakes import PATIENCE, Beside
from tests.kit.interrupts import Ending, Interrupts
from tests.kit.process import run_python
from tests.kit.profile import budget
from tests.kit.twins import Twin, build, edit


def until(condition: Callable[[], object], fault: str) -> None:
    """What goes on in other threads comes to its end by itself."""
    deadline = time.monotonic() + fakes.PATIENCE
    while not condition():
        assert time.monotonic() < deadline, fault
        time.sleep(0.0005)


class Calls:
    """A runner, what was submitted before, and all that a call may leave behind."""

    def __init__(self, m: ModuleType, *, started: bool = True) -> None:
        # No more than now: the thread of the attempt before may still be about to end.
        self.threads, self.descriptors = threading.active_count(), descriptors()
        self.runner = m.AsyncRunner()
        self.job, self.pending = Job(), None
        if started:
            self.runner.start()
            self.pending = self.runner.submit(self.job())
            assert self.job.begun.wait(PATIENCE)
            self.waiter = Beside(concurrent.futures.wait, [self.pending], fakes.PATIENCE / 2)
        self.mine = Job(ends="result")
        self.coro = self.mine()
        self.quick = value("quick")

    def check(self, ending: Ending) -> None:
        """In full use from another thread, as long as it runs; then nothing is left."""
        try:
            if not Beside(self.is_usable).result():  # it is closed, and ends by itself
                until(lambda: threading.active_count() <= self.threads, "a thread is left")
            if ending.error is not None:
                until(self.mine_has_ended, "it was left running")
        finally:
            Beside(self.runner.close).result()
        self.coro.close()
        self.quick.close()
        assert inspect.getcoroutinestate(self.coro) == inspect.CORO_CLOSED
        assert self.mine_has_ended(), "it was left running"
        assert self.mine.broken == 0, "its clean-up was cancelled"
        if self.pending is not None:
            assert self.pending.cancelled(), "a future never settles"
            assert not self.waiter.result().not_done, "a waiter is stranded"
            assert self.job.clean == 1
        until(lambda: threading.active_count() <= self.threads, "a thread is left")
        until(lambda: descriptors() <= self.descriptors, "a descriptor is left")

    def mine_has_ended(self) -> bool:
        return self.mine.begun.is_set() == bool(self.mine.clean)

    def is_usable(self) -> bool:
        try:
            assert self.runner.run(value(1), PATIENCE) == 1
        except RuntimeError as error:
            return "is closed" not in str(error)
        return True


def start(calls: Calls) -> None:
    calls.runner.start()


def enter(calls: Calls) -> None:
    with calls.runner:
        pass


def submit(calls: Calls) -> Any:
    return calls.runner.submit(calls.coro)


def run(calls: Calls) -> Any:
    return calls.runner.run(calls.quick)


def run_out_of_time(calls: Calls) -> Any:
    return calls.runner.run(calls.coro, 0.001)


def close(calls: Calls) -> None:
    calls.runner.close()


def close_in_time(calls: Calls) -> None:
    calls.runner.close(PATIENCE)


def cancel(calls: Calls) -> None:
    assert calls.pending is not None
    calls.pending.cancel()


SWEPT: dict[str, list[tuple[Callable[[Calls], Any], bool]]] = {
    "AR-1": [(run, True), (cancel, True)],
    "AR-2": [(start, False), (enter, False), (close, True), (close_in_time, True)],
    "AR-3": [(submit, True)],
    "AR-5": [(run_out_of_time, True)],
}
UNBEGUN = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")


@UNBEGUN
@pytest.mark.parametrize(
    ("call", "started"),
    [
        pytest.param(call, started, id=call.__name__, marks=pytest.mark.guarantee(guarantee))
        for guarantee, calls in SWEPT.items()
        for call, started in calls
    ],
)
def test_an_interrupt_at_any_point_strands_nobody(
    call: Callable[[Calls], Any], started: bool, interrupts: Interrupts
) -> None:
    interrupts.prove(partial(Calls, async_runner, started=started), call, Calls.check)


NOT_WITHDRAWN = edit(
    "AsyncRunner._withdraw", "_post(submission.loop, self._drop, submission)", "pass"
)
TWINS: list[tuple[str, Callable[[Calls], Any], Twin]] = [
    (
        "AR-1",
        cancel,
        Twin(
            "settles a future where it may be interrupted",
            edit("_Submission.cancel", "_undisturbed(self._cancel)", "self._cancel()"),
            "AssertionError: a waiter is stranded",
        ),
    ),
    (
        "AR-2",
        close,
        Twin(
            "lets an interrupt keep the close from the loop",
            edit("AsyncRunner.close", "_undisturbed(self._request_close)", "self._request_close()"),
            "AssertionError: a thread is left",
        ),
    ),
    (
        "AR-3",
        submit,
        Twin(
            "does not take back what an interrupted caller has submitted",
            NOT_WITHDRAWN,
            "AssertionError: it was left running",
        ),
    ),
    (
        "AR-5",
        run_out_of_time,
        Twin(
            "leaves at the interrupt at once",
            NOT_WITHDRAWN + edit("AsyncRunner.run", "not outcome.is_settled", "False"),
            "AssertionError: it was left running",
        ),
    ),
]


@UNBEGUN
@of_a_twin
@pytest.mark.parametrize(
    ("call", "twin"),
    [
        pytest.param(
            call, twin, id=twin.name, marks=pytest.mark.twin(ID, fault=twin.name, fails=twin.ends)
        )
        for ID, call, twin in TWINS
    ],
)
def test_the_sweep_catches_a_twin(
    call: Callable[[Calls], Any],
    twin: Twin,
    interrupts: Interrupts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fakes, "PATIENCE", 4.0)
    prepare = partial(Calls, build(FILE, twin.fault))
    with logged("asyncio"):
        interrupts.catch(prepare, call, Calls.check, twin=twin, twice=False)
        gc.collect()


STORM = """
    import asyncio, os, random, signal, threading, time, warnings
    from concurrent.futures import CancelledError
    from reference_impl.bridges.async_runner import AsyncRunner

    warnings.simplefilter("ignore", RuntimeWarning)  # a coroutine whose call did not begin
    signals, armed = 0, False

    class Alarm(BaseException):
        pass

    def ring(*_):
        global signals
        if armed:  # else it went to another thread, which was late
            signals += 1
            raise Alarm

    async def work(seconds):
        await asyncio.sleep(seconds)
        return 42

    def use(runner):
        assert runner.run(work(0)) == 42

    signal.signal(signal.SIGALRM, ring)
    draw = random.Random(7)
    for _ in range(ROUNDS):
        runner = AsyncRunner()
        futures = []
        for number in range(20):
            try:
                try:
                    armed = True
                    signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-6, 4e-4))
                    runner.start()
                    if number % 3 == 0:
                        assert runner.run(work(0.0001)) == 42
                    elif number % 3 == 1:
                        futures.append(runner.submit(work(0)))
                    else:
                        try:
                            runner.run(work(60), timeout=0.0001)
                        except TimeoutError:
                            pass
                finally:
                    armed = False
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except Alarm:
                pass
        runner.start()
        user = threading.Thread(target=use, args=(runner,))
        user.start()
        user.join(60)
        assert not user.is_alive(), "a lock is held"
        assert all(future.result(60) == 42 for future in futures)
        try:
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-6, 4e-4))
                runner.close()
            finally:
                armed = False
                signal.setitimer(signal.ITIMER_REAL, 0)
        except Alarm:
            pass
        runner.close()
    deadline = time.monotonic() + 60
    while threading.active_count() > 1:
        assert time.monotonic() < deadline, "a thread is left"
        time.sleep(0.01)
    assert signals > ROUNDS, signals
    print("calm")
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that ring")
def test_a_storm_of_real_signals_leaves_it_usable() -> None:
    code = STORM.replace("ROUNDS", str(budget(15, 200)))
    assert run_python(code).stdout == "calm\n"


@pytest.mark.parametrize("refused", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_runner_is_not_copied(refused: Callable[[Any], Any]) -> None:
    with AsyncRunner() as runner:
        with pytest.raises(TypeError, match="AsyncRunner cannot be copied or pickled: share this"):
            refused(runner)
        assert runner.run(value(1), PATIENCE) == 1
