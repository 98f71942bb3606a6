"""AsyncRunner's threads under every schedule, up to a bound.

The explorer of threads cannot run a real event loop, so there the runner gets a small one:
callbacks in a line guarded by a condition, and tasks that are stepped by them. It stops at
once when told to, and drops what was posted and not called: harsher than asyncio's.
"""

import asyncio
import concurrent.futures
import inspect
import threading
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from reference_impl.bridges import async_runner
from tests.bridges.async_runner.helpers import FILE, IS_NOWHERE, NOT_AWAITED, BareLoop, left_behind
from tests.kit.explore import Interleavings
from tests.kit.fakes import Pause
from tests.kit.primitives import rebind, unlocked
from tests.kit.profile import budget
from tests.kit.proofs import Proof, each_proof, each_twin
from tests.kit.twins import Twin, build, edit

interleave_test = pytest.importorskip("interleave_test")
spawn: Callable[..., Any] = interleave_test.spawn


class ModelTask:
    """A task of the model's loop, whose thread is the only one that touches it."""

    def __init__(
        self, coro: Coroutine[Any, Any, Any], *, loop: "ModelLoop", name: str = ""
    ) -> None:
        self._coro, self._loop = coro, loop
        self._outcome: tuple[str, Any] | None = None
        self._cancelled = self._waits = False
        self._callbacks: list[Callable[[Any], object]] = []
        self.cancellations = 0
        loop.tasks.append(self)
        loop.call_soon_threadsafe(self._step)

    def _step(self) -> None:
        self._loop.current = self
        try:
            if self._cancelled:
                self._cancelled = False
                awaited = self._coro.throw(asyncio.CancelledError())
            else:
                awaited = self._coro.send(None)
        except StopIteration as stop:
            self._end("result", stop.value)
        except asyncio.CancelledError:
            self._end("cancelled", None)
        except BaseException as error:
            self._end("exception", error)
            if isinstance(error, SystemExit):
                raise
        else:
            self._waits = awaited.forever
            if not self._waits or self._cancelled:
                self._waits = False
                self._loop.call_soon_threadsafe(self._step)

    def _end(self, *outcome: Any) -> None:
        self._outcome = outcome
        self._loop.tasks.remove(self)
        for callback in self._callbacks:
            self._loop.call_soon_threadsafe(callback, self)

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        self._callbacks.append(callback)

    def cancel(self) -> None:
        if self._outcome is None:
            self.cancellations += 1
            self._cancelled = True
            if self._waits:
                self._waits = False
                self._loop.call_soon_threadsafe(self._step)

    def cancelling(self) -> int:
        return self.cancellations

    def done(self) -> bool:
        return self._outcome is not None

    def cancelled(self) -> bool:
        return self._outcome is not None and self._outcome[0] == "cancelled"

    def exception(self) -> Any:
        assert self._outcome is not None
        return self._outcome[1] if self._outcome[0] == "exception" else None

    def result(self) -> Any:
        assert self._outcome is not None
        return self._outcome[1]


class ModelLoop(BareLoop):
    def __init__(self) -> None:
        self._line: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._posted = threading.Condition()
        self._stopping = self.closed = False
        self.tasks: list[ModelTask] = []
        self.current: ModelTask | None = None

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *arguments: Any, context: object = None
    ) -> None:
        with self._posted:
            if self.closed:
                raise RuntimeError("Event loop is closed")
            self._line.append((callback, arguments))
            self._posted.notify()

    def run_forever(self) -> None:
        try:
            while not self._stopping:
                with self._posted:
                    while not self._line:
                        self._posted.wait()
                    callback, arguments = self._line.popleft()
                callback(*arguments)
        finally:
            self._stopping = False

    def run_next(self) -> None:
        callback, arguments = self._line.popleft()
        callback(*arguments)

    def run_all(self) -> None:
        """As long as there is something, without a wait."""
        while self._line:
            self.run_next()

    def stop(self) -> None:
        self._stopping = True

    def close(self) -> None:
        with self._posted:
            self.closed = True
            self._line.clear()

    def create_task(self, coro: Coroutine[Any, Any, Any]) -> ModelTask:
        return ModelTask(coro, loop=self)


async def wait_for_all(
    tasks: Collection[ModelTask], *, timeout: float | None = None, return_when: object = None
) -> tuple[set[ModelTask], set[ModelTask]]:
    while pending := {task for task in tasks if not task.done()}:
        await Pause()
        if return_when or timeout is not None:  # whose time is a turn of the loop
            break
    return set(tasks) - pending, pending


@contextmanager
def seen(m: ModuleType, loop: Any, **threads: Any) -> Iterator[None]:
    """The component sees this loop in the place of asyncio's, and perhaps other threads."""
    model = SimpleNamespace(
        new_event_loop=lambda: loop,
        get_running_loop=lambda: loop,
        Task=ModelTask,
        all_tasks=lambda: set(loop.tasks),
        current_task=lambda: loop.current,
        wait=wait_for_all,
        FIRST_COMPLETED="FIRST_COMPLETED",
        ALL_COMPLETED="",
        sleep=lambda _: Pause(),
    )
    undo = rebind(m, **threads)
    replaced = mock.patch.multiple(
        m,
        asyncio=model,
        ThreadPoolExecutor=lambda **_: None,
        # What is to run beside an interrupted caller would be a thread that no schedule knows.
        start_new_thread=lambda work, arguments: work(*arguments),
    )
    try:
        with replaced:
            yield
    finally:
        undo()


@contextmanager
def started(m: ModuleType) -> Iterator[Any]:
    """A runner on a model's loop; at the end it is closed, and its loop, too."""
    loop = ModelLoop()
    with seen(m, loop):
        runner = m.AsyncRunner()
        runner.start()
        yield runner
        runner.close()
        assert loop.closed


class NoThread:
    """A thread that never runs: the model makes the loop's turns."""

    def __init__(self, **_: object) -> None:
        pass

    def start(self) -> None:
        pass


@contextmanager
def ended(m: ModuleType) -> Iterator[tuple[Any, ModelLoop]]:
    """The future of a coroutine that has ended, which the loop is about to tell it."""
    loop = ModelLoop()

    async def done() -> str:
        return "done"

    with seen(m, loop, Thread=NoThread):
        runner = m.AsyncRunner()
        runner.start()
        future = runner.submit(done())
        loop.run_next()  # it gets its task
        loop.run_next()  # which makes its only step
        yield future, loop
        loop.run_all()


class Job:
    """A coroutine for the model's loop, and what became of it."""

    def __init__(self, *, forever: bool = False, exits: bool = False, turns: int = 1) -> None:
        self._forever, self._exits, self._turns = forever, exits, turns
        self.cleaning = self.clean = 0
        self.finished = False
        self.coro = self._run()

    async def _run(self) -> str:
        try:
            await Pause(forever=self._forever)
        except asyncio.CancelledError:
            self.cleaning += 1
            for _ in range(self._turns):
                await Pause()
            self.clean += 1
            raise
        if self._exits:
            raise SystemExit(3)
        self.finished = True
        return "done"

    @property
    def ended(self) -> bool:
        """Whether it came to its end, and its clean-up, if any, was not broken off."""
        closed = inspect.getcoroutinestate(self.coro) == inspect.CORO_CLOSED
        return closed and self.clean == self.cleaning


def outcome(future: Any) -> str:
    """How a settled future ended."""
    assert future.done(), "this future never settles"
    try:
        return str(future.result(0))
    except concurrent.futures.CancelledError:
        return "cancelled"
    except BaseException as error:
        return repr(error)


def submit(runner: Any, job: Job) -> Any:
    """The future, or None where the runner refused and closed the coroutine."""
    try:
        return runner.submit(job.coro)
    except RuntimeError as error:
        if "is closed: submit before" not in str(error):
            raise
    assert job.ended
    return None


def result(thread: Any) -> Any:
    thread.join()
    return thread.result()


# The models of threads.


def a_submission_and_close(m: ModuleType) -> None:
    with started(m) as runner:
        job = Job(forever=True)
        closer = spawn(runner.close, name="closer")
        future = submit(runner, job)
        closer.join()
        if future is not None:
            assert outcome(future) == "cancelled"
        assert job.ended


def two_submissions_and_close(m: ModuleType) -> None:
    with started(m) as runner:
        jobs = [Job(), Job(exits=True)]
        submitters = [spawn(submit, runner, job) for job in jobs]
        runner.close()
        for job, submitter in zip(jobs, submitters, strict=True):
            if (future := result(submitter)) is not None:
                assert outcome(future) in {"done", "SystemExit(3)", "cancelled"}
            assert job.ended


def a_cancellation_and_the_end(m: ModuleType) -> None:
    """Who cancels is told the truth, who waits is told once. Without a thread for the loop."""
    told: list[Any] = []
    with ended(m) as (future, loop):
        future.add_done_callback(told.append)
        waiter = spawn(concurrent.futures.wait, [future], name="waiter")
        canceller = spawn(future.cancel, name="canceller")
        turns = spawn(loop.run_all, name="loop")
        assert result(waiter).done == {future}
        was_cancelled = result(canceller)
        result(turns)
        assert outcome(future) == ("cancelled" if was_cancelled else "done")
        assert told == [future]


def two_cancellations_and_the_end(m: ModuleType) -> None:
    with ended(m) as (future, loop):
        cancellers = [spawn(future.cancel), spawn(future.cancel)]
        turns = spawn(loop.run_all)
        answers = [result(canceller) for canceller in cancellers]
        result(turns)
        assert concurrent.futures.wait([future], timeout=0).done == {future}
        assert outcome(future) == ("cancelled" if any(answers) else "done")


def a_cancellation_and_the_runner(m: ModuleType) -> None:
    """The same with everything: the task ends in either case."""
    with started(m) as runner:
        job = Job()
        future = runner.submit(job.coro)
        canceller = spawn(future.cancel)
        concurrent.futures.wait([future])
        assert outcome(future) == ("cancelled" if result(canceller) else "done")
    assert job.ended


def a_cancellation_and_close(m: ModuleType) -> None:
    with started(m) as runner:
        job = Job(forever=True, turns=9)
        future = runner.submit(job.coro)
        canceller = spawn(future.cancel)
        runner.close()
        canceller.join()
        assert outcome(future) == "cancelled"
        assert job.ended


def a_timeout_and_the_end(m: ModuleType) -> None:
    """With nothing to wait for, the time may be up at any moment of the coroutine's life."""
    with started(m) as runner:
        job = Job()
        try:
            assert runner.run(job.coro, timeout=0) == "done"
        except TimeoutError:
            assert not job.finished, "a result was lost"
        assert job.ended, "run returned while the coroutine went on"


def a_timeout_and_close(m: ModuleType) -> None:
    with started(m) as runner:
        job = Job(forever=True)

        def run() -> None:
            try:
                runner.run(job.coro, timeout=0)
            except (TimeoutError, RuntimeError, concurrent.futures.CancelledError):
                assert job.ended, "run returned while the coroutine went on"
                return
            raise AssertionError("there was no result to return")

        thread = spawn(run)
        runner.close()
        thread.join()


def two_closes(m: ModuleType) -> None:
    """Each returns only once everything has ended."""
    with started(m) as runner:
        job = Job(forever=True)
        future = runner.submit(job.coro)

        def close() -> None:
            runner.close()
            assert future.done(), "close returned before the future had settled"
            assert job.ended

        other = spawn(close)
        close()
        other.join()


def a_close_that_gives_up_and_another(m: ModuleType) -> None:
    with started(m) as runner:
        job = Job(forever=True)
        future = runner.submit(job.coro)
        try:
            runner.close(timeout=0)
            assert future.done()
        except TimeoutError:
            pass
        runner.close()
        assert outcome(future) == "cancelled"


def run_in_the_own_thread(m: ModuleType) -> None:
    with started(m) as runner:
        inner = Job()

        async def outer() -> str:
            return str(runner.run(inner.coro))

        with pytest.raises(RuntimeError, match="wait for itself"):
            runner.run(outer())
        assert inner.ended


def an_exit_and_another(m: ModuleType) -> None:
    """SystemExit ends a turn of the loop, and nothing else."""
    with started(m) as runner:
        exits, other = Job(exits=True), Job()
        submitter = spawn(submit, runner, other)
        with pytest.raises(SystemExit):
            runner.run(exits.coro)
        future = result(submitter)
        concurrent.futures.wait([future])
        assert outcome(future) == "done"


RIGHT = "not self._right_to_settle.acquire(blocking=False)"
LOOK_FIRST = Twin(
    "looks whether a future is settled, and then settles it",
    edit("_Submission._cancel", RIGHT, "self.done()")
    + edit("_Submission.settle", RIGHT, "self.done()"),
    (
        "AssertionError: outcome(future)",
        "AssertionError: told == [future]",
        "RuntimeError: Future in unexpected state",
        "deadlock",
    ),
)
NO_RIGHT = Twin(
    "lets everybody settle a future",
    unlocked(),
    ("AssertionError: outcome(future)", "InvalidStateError", "RuntimeError", "deadlock"),
)
LEFT = "AssertionError: run returned while the coroutine went on"
NO_WAIT = Twin(
    "does not wait for the clean-up after a timeout",
    edit(
        "AsyncRunner.run",
        "submission.request_cancel()\noutcome.wait()",
        "submission.request_cancel()\noutcome.is_cancelled = True",
    ),
    LEFT,
)
NO_SECOND_LOOK = Twin(
    "loses a result that comes just when the time is up",
    edit("AsyncRunner.run", "outcome.is_cancelled and is_late", "is_late"),
    "AssertionError: a result was lost",
)
UNHURRIED = Twin(
    "stops its loop without what is still open",
    NOT_AWAITED + edit("AsyncRunner._wind_down", "await _end_tasks(rest)", ""),
    "AssertionError: job.ended",
)
CLOSED_IS_ENDED = Twin(
    "takes a runner that is being closed for one that has ended",
    edit(
        "AsyncRunner.close",
        "hasattr(self._current, 'role')",
        "self._is_winding_down or hasattr(self._current, 'role')",
    ),
    (
        "AssertionError: before the future had settled",
        "AssertionError: this future never settles",
        "AssertionError: loop.closed",
    ),
)

PROOFS = [
    Proof(
        "AR-3",
        a_submission_and_close,
        [
            Twin(
                "accepts a coroutine without the lock",
                unlocked("AsyncRunner.submit"),
                ("RuntimeError: Event loop is closed", "AssertionError: this future never settles"),
            )
        ],
        preemptions=budget(1, 2),
        granularity="line",
    ),
    Proof("AR-1", a_cancellation_and_the_end, [LOOK_FIRST, NO_RIGHT]),
    Proof("AR-1", two_cancellations_and_the_end, [LOOK_FIRST, NO_RIGHT]),
    Proof("AR-1", a_cancellation_and_the_runner, [LOOK_FIRST], granularity="line"),
    Proof("AR-2", a_cancellation_and_close, [UNHURRIED], granularity="line"),
    Proof("AR-2", two_closes, [CLOSED_IS_ENDED], granularity="line"),
    Proof("AR-2", a_close_that_gives_up_and_another, [CLOSED_IS_ENDED], granularity="line"),
    Proof("AR-5", a_timeout_and_the_end, [NO_WAIT, NO_SECOND_LOOK]),
    Proof("AR-5", a_timeout_and_close, [NO_WAIT], granularity="line"),
    Proof(
        "AR-4",
        run_in_the_own_thread,
        [Twin("does not know its own thread", IS_NOWHERE, "deadlock")],
        granularity="line",
    ),
    Proof(
        "AR-1",
        an_exit_and_another,
        [
            Twin(
                "ends its loop with a SystemExit",
                edit("AsyncRunner._run_loop", "(SystemExit, KeyboardInterrupt)", "ValueError"),
                ("SystemExit", "deadlock", "AssertionError: outcome(future)"),
            )
        ],
        granularity="line",
    ),
]


@each_proof(PROOFS)
def test_every_schedule(proof: Proof, interleavings: Interleavings) -> None:
    proof.explore(build(async_runner), interleavings)


@each_twin(PROOFS)
def test_the_search_catches_a_twin(proof: Proof, twin: Twin, interleavings: Interleavings) -> None:
    with left_behind():
        proof.catch(twin, FILE, interleavings)


@pytest.mark.guarantee("AR-3")
def test_sampled_schedules_of_two_submissions(interleavings: Interleavings) -> None:
    m = build(async_runner)
    interleavings.sample(lambda: two_submissions_and_close(m), schedules=300)
