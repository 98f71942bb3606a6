"""AsyncRunner on a real loop and real threads, with broken twins, and its surroundings."""

import asyncio
import concurrent.futures
import contextvars
import gc
import inspect
import logging
import os
import signal
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import async_runner
from reference_impl.bridges.async_runner import AsyncRunner
from tests.kit.process import run_python
from tests.kit.twins import twin

PATIENCE = 60.0  # a safety net against hangs, never a measurement
FILE = "bridges/async_runner.py"
Check = Callable[[ModuleType], None]
unix_only = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


async def value(of: Any = None) -> Any:
    return of


async def fail(error: BaseException) -> None:
    raise error


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def must_fail(
    check: Check, *faults: tuple[str, str], error: type[BaseException] = AssertionError
) -> None:
    broken = twin(FILE, *faults)
    with pytest.raises((error, pytest.fail.Exception)):
        check(broken)


def _open(gate: "asyncio.Future[None]") -> None:
    if not gate.done():
        gate.set_result(None)


class Job:
    """A coroutine that waits to be cancelled, cleans up once its gate is open, and then ends.

    `clean` counts clean-ups that were done, `broken` those that were cancelled in turn.
    """

    def __init__(self, *, gated: bool = False, ends: Any = None) -> None:
        self.begun, self.cleaning = threading.Event(), threading.Event()
        self.clean = self.broken = 0
        self._opened, self._ends = not gated, ends
        self._gate: asyncio.Future[None] | None = None

    async def __call__(self) -> Any:
        try:
            self.begun.set()
            await forever()
        except asyncio.CancelledError:
            try:
                self._gate = asyncio.get_running_loop().create_future()
                self.cleaning.set()
                if not self._opened:
                    await self._gate
                await asyncio.sleep(0)
                self.clean += 1
            except asyncio.CancelledError:
                self.broken += 1
                raise
            if self._ends is None:
                raise
            if isinstance(self._ends, BaseException):
                raise self._ends from None
            return self._ends

    def open(self) -> None:
        """Let the clean-up end, from any thread, also before it begins."""
        self._opened = True
        gate = self._gate
        if gate is not None:
            with suppress(RuntimeError):  # over, and the loop is closed
                gate.get_loop().call_soon_threadsafe(_open, gate)


class Thread(threading.Thread):
    """A call in a thread of its own, and how it ended."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        super().__init__(daemon=True)
        self._call = call
        self._arguments = arguments
        self._value: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._value = self._call(*self._arguments)
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        self.join(PATIENCE)
        assert not self.is_alive(), "the call hangs"
        if self._error is not None:
            raise self._error
        return self._value


@contextmanager
def running(module: ModuleType) -> Iterator[Any]:
    runner = module.AsyncRunner()
    runner.start()
    try:
        yield runner
    finally:
        runner.close(PATIENCE)


@contextmanager
def logged(logger: str) -> Iterator[list[logging.LogRecord]]:
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    gc.collect()  # what an earlier test has left complains before
    keep = Keep()
    logging.getLogger(logger).addHandler(keep)
    try:
        yield records
    finally:
        logging.getLogger(logger).removeHandler(keep)


def turn(runner: Any, count: int = 1) -> None:
    """Let the loop make so many turns, and do what was posted before; also while it closes."""
    for _ in range(count):
        passed = threading.Event()
        try:
            runner._loop.call_soon_threadsafe(passed.set)
        except RuntimeError:  # closed: a twin may be that fast
            return
        while not passed.wait(0.1) and runner._thread.is_alive():
            pass


def was_closed(coro: Coroutine[Any, Any, Any]) -> bool:
    return inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED


# --- AR-1: results, exceptions, cancellation ---


def check_outcomes_reach_the_future(module: ModuleType) -> None:
    errors = [ValueError("v"), GeneratorExit(), LookupError(), TimeoutError("its own")]
    with running(module) as runner:
        thing = object()
        assert runner.submit(value(thing)).result(PATIENCE) is thing
        assert runner.submit(value(None)).result(PATIENCE) is None
        assert runner.run(value(thing)) is thing
        for error in errors:
            assert runner.submit(fail(error)).exception(PATIENCE) is error
            with pytest.raises(type(error)) as caught:
                runner.run(fail(error), PATIENCE)
            assert caught.value is error


@pytest.mark.guarantee("AR-1")
def test_results_and_exceptions_reach_the_future() -> None:
    check_outcomes_reach_the_future(async_runner)


@pytest.mark.twin("AR-1")
@pytest.mark.parametrize(
    "fault",
    [
        ("self.set_result(task.result())", "self.set_result(None)"),
        ("self.set_exception(error)\n\n    def", "self.set_exception(type(error)())\n\n    def"),
    ],
)
def test_losing_an_outcome_is_found(fault: tuple[str, str]) -> None:
    must_fail(check_outcomes_reach_the_future, fault)


def check_a_system_exit_settles_its_future(module: ModuleType) -> None:
    """The original gave no signal at all; a bare loop ends, and strands all the others."""
    with running(module) as runner:
        other = Job()
        waits = runner.submit(other())
        assert other.begun.wait(PATIENCE)
        for error in (SystemExit(3), KeyboardInterrupt()):
            assert runner.submit(fail(error)).exception(PATIENCE) is error
            with pytest.raises(type(error)) as caught:
                runner.run(fail(error), PATIENCE)
            assert caught.value is error
        assert runner.run(value(1), PATIENCE) == 1
        assert not waits.done()
    assert other.clean == 1


@pytest.mark.guarantee("AR-1", "AR-2")
def test_a_system_exit_settles_its_future_and_the_runner_goes_on() -> None:
    with logged(async_runner.__name__) as records:
        check_a_system_exit_settles_its_future(async_runner)
    assert not records, "the future's owner was told, so the log need not be"


@pytest.mark.twin("AR-1")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_a_loop_that_ends_with_a_system_exit_is_found() -> None:
    must_fail(
        check_a_system_exit_settles_its_future,
        ("except (SystemExit, KeyboardInterrupt) as error:", "except ZeroDivisionError as error:"),
        error=concurrent.futures.CancelledError,
    )


def test_a_system_exit_that_no_future_takes_is_logged() -> None:
    async def exits_in_a_callback() -> None:
        asyncio.get_running_loop().call_soon(sys.exit, 3)

    with logged(async_runner.__name__) as records, AsyncRunner(name="bench") as runner:
        runner.run(exits_in_a_callback())
        turn(runner, 2)
    assert [record.getMessage() for record in records] == ["bench: no future takes SystemExit(3)"]
    assert records[0].exc_info is not None
    assert records[0].exc_info[0] is SystemExit, "the log lacks the traceback"


def check_cancelling_settles_at_once(module: ModuleType) -> None:
    """While the clean-up still runs; and the clean-up runs to its end."""
    job = Job(gated=True)
    with running(module) as runner:
        try:
            future = runner.submit(job())
            assert job.begun.wait(PATIENCE)
            told: list[Any] = []
            future.add_done_callback(told.append)
            assert future.cancel()
            assert future.done()
            assert future.cancelled()
            assert told == [future]
            assert concurrent.futures.wait([future], timeout=0).done == {future}
            with pytest.raises(concurrent.futures.CancelledError):
                future.result(timeout=0)
            assert future.cancel(), "a second time is no failure"
            turn(runner, 5)
            assert job.cleaning.is_set(), "the task was not cancelled"
            assert not job.clean
        finally:
            job.open()
    assert (job.clean, job.broken) == (1, 0)


@pytest.mark.guarantee("AR-1")
def test_cancelling_the_future_settles_it_at_once_and_cancels_the_task() -> None:
    check_cancelling_settles_at_once(async_runner)


@pytest.mark.twin("AR-1")
@pytest.mark.parametrize(
    "faults",
    [
        [("        self.request_cancel()  # first", "        # first")],
        [
            (
                "        self.set_running_or_notify_cancel()\n        return True",
                "        return True",
            )
        ],
        [
            ("        super().cancel()\n        # Not left", "        # Not left"),
            (
                "        self.set_running_or_notify_cancel()\n        return True",
                "        return True",
            ),
        ],
    ],
    ids=["the task goes on", "who waits is not told", "only the task is cancelled"],
)
def test_a_half_hearted_cancellation_is_found(faults: list[tuple[str, str]]) -> None:
    must_fail(check_cancelling_settles_at_once, *faults)


def check_it_never_starts_when_cancelled_before(module: ModuleType) -> None:
    with running(module) as runner:
        gate, begun = threading.Event(), threading.Event()

        async def block() -> None:
            begun.set()
            assert gate.wait(PATIENCE)

        blocking = runner.submit(block())
        assert begun.wait(PATIENCE)
        started: list[bool] = []

        async def late() -> None:
            started.append(True)

        coro = late()
        future = runner.submit(coro)
        assert future.cancel()
        gate.set()
        blocking.result(PATIENCE)
        turn(runner)
        assert future.cancelled()
        assert not started
        assert was_closed(coro)
        assert not runner._open, "the runner holds what has ended"


@pytest.mark.guarantee("AR-1")
def test_a_coroutine_cancelled_before_its_first_step_never_runs() -> None:
    with logged("asyncio") as records:
        check_it_never_starts_when_cancelled_before(async_runner)
    assert not records


@pytest.mark.twin("AR-1")
def test_running_a_cancelled_coroutine_is_found() -> None:
    must_fail(
        check_it_never_starts_when_cancelled_before,
        ("if submission.cancelled():", "if False:"),
        ("if self.task is not None and not self.is_task_cancelled:", "if False:"),
    )


@pytest.mark.guarantee("AR-1")
def test_a_settled_future_cannot_be_cancelled() -> None:
    with AsyncRunner() as runner:
        future = runner.submit(value(1))
        assert future.result(PATIENCE) == 1
        assert not future.cancel()
        failed = runner.submit(fail(ValueError()))
        assert failed.exception(PATIENCE)
        assert not failed.cancel()
    assert (future.result(), future.cancelled(), failed.cancelled()) == (1, False, False)


@pytest.mark.guarantee("AR-1")
def test_a_coroutine_may_cancel_itself_and_others() -> None:
    with AsyncRunner() as runner:
        job = Job()
        other = runner.submit(job())
        mine: list[concurrent.futures.Future[None]] = []

        async def suicidal() -> None:
            assert other.cancel()
            assert mine[0].cancel()
            await forever()

        async def begin() -> None:
            mine.append(runner.submit(suicidal()))

        runner.run(begin(), PATIENCE)
        with pytest.raises(concurrent.futures.CancelledError):
            mine[0].result(PATIENCE)
    assert job.clean == 1


@pytest.mark.guarantee("AR-1")
def test_a_coroutine_that_raises_cancelled_error_is_a_cancelled_future() -> None:
    with AsyncRunner() as runner:
        future = runner.submit(fail(asyncio.CancelledError()))
        assert concurrent.futures.wait([future], PATIENCE).done == {future}
        assert future.cancelled()
        with pytest.raises(concurrent.futures.CancelledError):
            runner.run(fail(asyncio.CancelledError()), PATIENCE)


@pytest.mark.guarantee("AR-1")
def test_another_loop_can_await_the_future_and_cancel_it() -> None:
    async def main(runner: AsyncRunner) -> None:
        assert await asyncio.wrap_future(runner.submit(value(1))) == 1
        job = Job()
        future = runner.submit(job())
        waiter = asyncio.wrap_future(future)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        await asyncio.sleep(0)
        assert future.cancelled()

    with AsyncRunner() as runner:
        asyncio.run(main(runner))


@pytest.mark.guarantee("AR-1")
def test_as_completed_hears_of_results_and_cancellations() -> None:
    with AsyncRunner() as runner:
        futures = [runner.submit(forever()) for _ in range(5)]
        futures += [runner.submit(value(n)) for n in range(5)]
        for future in futures[:5]:
            future.cancel()
        assert set(concurrent.futures.as_completed(futures, PATIENCE)) == set(futures)


def test_the_failure_of_an_abandoned_clean_up_is_not_silent() -> None:
    """Nobody waits for it any more, so asyncio's own log has it."""
    job = Job(ends=ValueError("the clean-up failed"))
    with logged("asyncio") as records, AsyncRunner() as runner:
        future = runner.submit(job())
        assert job.begun.wait(PATIENCE)
        future.cancel()
    gc.collect()
    assert any("never retrieved" in record.getMessage() for record in records)
    assert future.cancelled()


def test_a_failed_run_leaves_no_garbage() -> None:
    """The error dies with its last reference, not by the cyclic collector."""

    class Failure(Exception):
        pass

    async def fail() -> None:
        raise Failure

    with AsyncRunner() as runner:
        gc.collect()
        gc.disable()
        try:
            deaths = []
            for timeout in (None, PATIENCE):
                try:
                    runner.run(fail(), timeout)
                except Failure as error:
                    deaths.append(weakref.ref(error))
            turn(runner)
            assert [death() for death in deaths] == [None, None]
        finally:
            gc.enable()


def test_what_a_coroutine_held_is_released_with_its_future() -> None:
    class Thing:
        pass

    with AsyncRunner() as runner:
        thing = Thing()
        dead = weakref.ref(thing)
        future = runner.submit(value(thing))
        assert future.result(PATIENCE) is thing
        turn(runner)
        gc.collect()
        del thing, future
        assert dead() is None


# --- AR-2: close ---


def check_close_settles_everything(module: ModuleType) -> None:
    """Running, cancelled before its first step, cleaning up, ended, just submitted."""
    runner = module.AsyncRunner()
    runner.start()
    run, cleans = Job(), Job(gated=True)
    futures = [runner.submit(run()), runner.submit(cleans()), runner.submit(value(7))]
    assert run.begun.wait(PATIENCE)
    assert cleans.begun.wait(PATIENCE)
    futures[1].cancel()
    assert cleans.cleaning.wait(PATIENCE)
    gate = threading.Event()

    async def block() -> None:
        gate.wait(PATIENCE)

    futures.append(runner.submit(block()))
    late = Job()
    futures.append(runner.submit(late()))
    cancelled = forever()
    futures.append(runner.submit(cancelled))
    futures[-1].cancel()
    loop, thread = runner._loop, runner._thread
    closing = Thread(runner.close)
    gate.set()
    cleans.open()
    closing.result()
    assert all(future.done() for future in futures)
    assert [future.cancelled() for future in futures] == [True, True, False, False, True, True]
    assert (run.clean, cleans.clean, cleans.broken) == (1, 1, 0)
    assert late.clean == late.begun.is_set()
    assert was_closed(cancelled)
    assert loop.is_closed()
    assert not thread.is_alive()


@pytest.mark.guarantee("AR-2")
@pytest.mark.parametrize("attempt", range(10))
def test_close_settles_everything(attempt: int) -> None:
    check_close_settles_everything(async_runner)


@pytest.mark.twin("AR-2")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize(
    "faults",
    [
        [("loop = asyncio.get_running_loop()\n        ours =", "return\n        ours =")],
        [("                last.callback(loop.close)\n", "")],
        [("and not self.is_task_cancelled:", ":")],
    ],
    ids=["nothing awaited", "the loop stays open", "cancelled twice"],
)
def test_a_close_that_leaves_something_is_found(faults: list[tuple[str, str]]) -> None:
    with logged("asyncio"):  # of tasks that are destroyed
        must_fail(check_close_settles_everything, *faults)
        gc.collect()


@pytest.mark.guarantee("AR-2")
def test_thousands_of_futures_settle_and_their_clean_up_runs() -> None:
    """Of the original's 5,000 futures 4,572 never settled, and no clean-up ran."""
    cleaned: list[int] = []

    async def job(number: int) -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            cleaned.append(number)

    with AsyncRunner() as runner:
        futures = [runner.submit(job(number)) for number in range(5_000)]
        turn(runner)
    assert all(future.cancelled() for future in futures)
    assert sorted(cleaned) == list(range(5_000))


@pytest.mark.guarantee("AR-1", "AR-2")
def test_no_future_stays_without_an_end() -> None:
    """Of the original's 20,000 tasks 1,285 stayed "running" for ever."""
    with AsyncRunner() as runner:
        start = threading.Barrier(4)
        futures: list[concurrent.futures.Future[int]] = []

        def work(first: int) -> None:
            start.wait(PATIENCE)
            for number in range(first, 20_000, 4):
                future = runner.submit(value(number))
                if not number % 3:
                    future.cancel()
                futures.append(future)

        for thread in [Thread(work, first) for first in range(4)]:
            thread.result()
        assert not concurrent.futures.wait(futures, PATIENCE).not_done
        ended = {future.result() for future in futures if not future.cancelled()}
    assert len(futures) == 20_000
    assert len(ended) + sum(future.cancelled() for future in futures) == 20_000
    assert all(future.done() and not future.running() for future in futures)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0


def check_start_and_close_leave_nothing(module: ModuleType, cycles: int) -> None:
    def cycle() -> None:
        with module.AsyncRunner() as runner:
            assert runner.run(value(1)) == 1
            runner.submit(forever())

    cycle()
    threads, before = threading.active_count(), descriptors()
    for _ in range(cycles):
        cycle()
    gc.collect()
    assert (threading.active_count(), descriptors()) == (threads, before)


@pytest.mark.guarantee("AR-2")
def test_a_thousand_starts_and_closes_leave_nothing() -> None:
    """The original never closed a loop: three descriptors for each runner."""
    check_start_and_close_leave_nothing(async_runner, 1_000)


@pytest.mark.twin("AR-2")
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
def test_a_loop_that_is_never_closed_is_found() -> None:
    kept: list[Any] = []
    broken = twin(FILE, ("last.callback(loop.close)", "last.callback(kept.append, loop)"))
    vars(broken)["kept"] = kept
    with pytest.raises(AssertionError):
        check_start_and_close_leave_nothing(broken, 10)
    for loop in kept:
        loop.close()


def test_dropped_runners_die() -> None:
    """One that was never started needs no close; a closed one is not kept by anything."""
    unused, closed = AsyncRunner(), AsyncRunner()
    with closed:
        closed.run(asyncio.to_thread(int))
    deaths = [weakref.ref(unused), weakref.ref(closed)]
    del unused, closed
    gc.collect()
    assert [death() for death in deaths] == [None, None]


def check_generators_and_executor_are_closed(module: ModuleType) -> None:
    closed: list[str] = []
    entered, gate = threading.Event(), threading.Event()

    async def numbers() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)
            closed.append("generator")

    def helper() -> None:
        entered.set()
        assert gate.wait(PATIENCE)
        closed.append("executor")

    runner = module.AsyncRunner()
    runner.start()
    generator = numbers()

    async def first() -> int:
        return await anext(generator)

    runner.run(first())
    runner.submit(asyncio.to_thread(helper))
    assert entered.wait(PATIENCE)
    helpers = [t for t in threading.enumerate() if t.name.startswith("async-runner-helper")]
    closing = Thread(runner.close)
    gate.set()
    closing.result()
    assert sorted(closed) == ["executor", "generator"]
    assert len(helpers) == 1
    assert not helpers[0].is_alive()


@pytest.mark.guarantee("AR-2")
def test_close_closes_generators_and_waits_for_the_executor() -> None:
    check_generators_and_executor_are_closed(async_runner)


@pytest.mark.twin("AR-2")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine method .*:RuntimeWarning")
def test_leaving_a_generator_open_is_found() -> None:
    with logged("asyncio"):
        must_fail(
            check_generators_and_executor_are_closed,
            ("        await loop.shutdown_asyncgens()\n", ""),
        )
        gc.collect()


def check_the_executor_is_waited_for(module: ModuleType) -> None:
    runner, entered, gate = module.AsyncRunner(), threading.Event(), threading.Event()

    def helper() -> None:
        entered.set()
        assert gate.wait(PATIENCE)

    runner.start()
    runner.submit(asyncio.to_thread(helper))
    assert entered.wait(PATIENCE)
    try:
        with pytest.raises(TimeoutError):
            runner.close(timeout=0)
        loop = runner._loop
        turn(runner, 50)
        # Not whether the thread lives: one that has closed its loop may need a moment to end.
        assert not loop.is_closed()
    finally:
        gate.set()
        runner.close()


@pytest.mark.guarantee("AR-2")
def test_close_waits_for_a_helper() -> None:
    check_the_executor_is_waited_for(async_runner)


@pytest.mark.twin("AR-2")
def test_not_waiting_for_a_helper_is_found() -> None:
    must_fail(check_the_executor_is_waited_for, ("await loop.shutdown_default_executor()", "pass"))


def check_tasks_of_coroutines_are_awaited(module: ModuleType) -> None:
    """Tasks that a coroutine leaves behind, and those that clean-up code begins."""
    order: list[str] = []
    begun = threading.Event()

    async def background() -> None:
        try:
            begun.set()
            await forever()
        finally:
            for _ in range(100):  # longer than the job's
                await asyncio.sleep(0)
            order.append("background")

    async def goodbye() -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        order.append("goodbye")

    async def stray() -> None:
        try:
            await forever()
        finally:
            order.append("stray")

    kept: list[Any] = []

    async def job() -> None:
        kept.append(asyncio.create_task(background()))
        try:
            await forever()
        finally:
            await asyncio.wait_for(asyncio.create_task(goodbye()), PATIENCE)
            kept.append(asyncio.create_task(stray()))
            await asyncio.sleep(0)

    runner = module.AsyncRunner()
    runner.start()
    runner.submit(job())
    assert begun.wait(PATIENCE)
    runner.close()
    assert sorted(order) == ["background", "goodbye", "stray"]
    assert all(task.done() for task in kept)


@pytest.mark.guarantee("AR-2")
def test_tasks_that_coroutines_begin_are_awaited() -> None:
    check_tasks_of_coroutines_are_awaited(async_runner)


@pytest.mark.twin("AR-2")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "fault",
    [
        ("while tasks := _other_tasks():", "while tasks := set():"),
        ("for task in tasks.difference(cancelled):", "for task in tasks:"),
    ],
    ids=["not awaited", "cancelled twice"],
)
def test_not_awaiting_tasks_is_found(fault: tuple[str, str]) -> None:
    with logged("asyncio"):
        must_fail(check_tasks_of_coroutines_are_awaited, fault)
        gc.collect()


def check_a_clean_up_may_wait_for_a_background_task(module: ModuleType, depth: int) -> None:
    """One that nobody else cancels, so that the runner has to, while the clean-up waits."""
    tasks: list[asyncio.Task[None]] = []
    begun, ended = threading.Event(), []

    async def begin() -> None:
        tasks.append(asyncio.create_task(forever()))

    async def nested(depth: int) -> None:
        try:
            if depth:
                async with asyncio.TaskGroup() as group:
                    group.create_task(nested(depth - 1))
            else:
                begun.set()
                await forever()
        finally:
            if not depth:
                await asyncio.wait(tasks)
            ended.append(depth)

    runner = module.AsyncRunner()
    runner.start()
    runner.run(begin())
    runner.submit(nested(depth))
    assert begun.wait(PATIENCE)
    runner.close(PATIENCE)
    assert ended == list(range(depth + 1))
    assert tasks[0].cancelled()


@pytest.mark.guarantee("AR-2")
@pytest.mark.parametrize("depth", [0, 1, 2, 5])
def test_a_clean_up_may_wait_for_a_background_task(depth: int) -> None:
    check_a_clean_up_may_wait_for_a_background_task(async_runner, depth)


def check_what_a_helper_begins_late_is_awaited(module: ModuleType) -> None:
    """A thread of the executor, which is waited for last, hands a coroutine to the loop."""
    runner, late = module.AsyncRunner(), Job()
    entered, waited_for = threading.Event(), threading.Event()
    runner.start()
    loop = runner._loop
    shutdown = loop.shutdown_default_executor

    async def shut_down() -> None:
        waited_for.set()
        await shutdown()

    loop.shutdown_default_executor = shut_down

    def helper() -> None:
        entered.set()
        assert waited_for.wait(PATIENCE)
        asyncio.run_coroutine_threadsafe(late(), loop)
        assert late.begun.wait(PATIENCE)

    runner.submit(asyncio.to_thread(helper))
    assert entered.wait(PATIENCE)
    runner.close(PATIENCE)
    assert late.clean == 1, "it was left behind"


@pytest.mark.guarantee("AR-2")
def test_what_a_helper_begins_late_is_awaited() -> None:
    check_what_a_helper_begins_late_is_awaited(async_runner)


@pytest.mark.twin("AR-2")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_leaving_what_a_helper_begins_late_is_found() -> None:
    with logged("asyncio"):
        must_fail(
            check_what_a_helper_begins_late_is_awaited,
            ("        await _end_tasks(set())  # which those", "        # which those"),
        )
        gc.collect()


@pytest.mark.guarantee("AR-2")
def test_close_ends_where_no_thread_is_left_to_wait_for_the_helpers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As at the interpreter's exit. Nothing is left behind by that, or logged."""

    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    job = Job()
    with logged("asyncio") as records:
        runner = AsyncRunner()
        runner.start()
        runner.run(asyncio.to_thread(int))
        future, loop = runner.submit(job()), runner._loop
        assert job.begun.wait(PATIENCE)
        helpers = [t for t in threading.enumerate() if t.name.startswith("async-runner-helper")]
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            runner.close(PATIENCE)
        gc.collect()
    for helper in helpers:
        helper.join(PATIENCE)
    assert future.cancelled()
    assert job.clean == 1
    assert loop is not None
    assert loop.is_closed()
    assert [helper.is_alive() for helper in helpers] == [False]
    assert not records


def check_children_finish_their_clean_up(module: ModuleType) -> None:
    """Cancelling a future cancels the tasks of its group; close does not cancel them again."""
    child = Job(gated=True)

    async def parent() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())

    with running(module) as runner:
        try:
            future = runner.submit(parent())
            assert child.begun.wait(PATIENCE)
            future.cancel()
            assert child.cleaning.wait(PATIENCE)
            with pytest.raises(TimeoutError):
                runner.close(timeout=0)
            turn(runner, 5)
        finally:
            child.open()
    assert (child.clean, child.broken) == (1, 0)


@pytest.mark.guarantee("AR-2")
def test_close_leaves_children_to_their_clean_up() -> None:
    check_children_finish_their_clean_up(async_runner)


@pytest.mark.twin("AR-2")
def test_cancelling_children_twice_is_found() -> None:
    must_fail(
        check_children_finish_their_clean_up,
        (" if not task.cancelling()}", "}"),
    )


def check_close_meets_a_timeout(module: ModuleType) -> None:
    """A background task just ends a timeout of its own, and what was submitted waits for it.

    Another one is cancelled at once, and cleans up for longer than both.
    """
    job, other, ended = Job(gated=True), Job(gated=True), []
    tasks: list[asyncio.Task[None]] = []

    async def background() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                await job()
        try:
            await forever()  # its next try
        finally:
            ended.append("background")

    async def foreground() -> None:
        tasks.append(asyncio.create_task(background()))
        beside = asyncio.create_task(other())
        try:
            await forever()
        finally:
            del beside
            await asyncio.wait(tasks)
            ended.append("foreground")

    with running(module) as runner, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_LOOK_EVERY", 0.0)
        runner.submit(foreground())
        assert job.cleaning.wait(PATIENCE)
        try:
            with pytest.raises(TimeoutError):
                runner.close(timeout=0)
            turn(runner, 5)
            job.open()
            turn(runner, 30)
            assert (job.clean, job.broken) == (1, 0)
            assert ended == ["background", "foreground"], "it goes on, and nothing cancels it"
            other.open()
            turn(runner, 10)
            assert (other.clean, other.broken) == (1, 0), "cancelled twice"
        finally:
            job.open()
            other.open()
            turn(runner, 5)
            with suppress(RuntimeError):  # over, and the loop is closed
                runner._loop.call_soon_threadsafe(tasks[0].cancel)


@pytest.mark.guarantee("AR-2")
def test_close_cancels_a_background_task_that_has_ended_its_timeout() -> None:
    check_close_meets_a_timeout(async_runner)


@pytest.mark.twin("AR-2")
@pytest.mark.parametrize(
    "fault",
    [
        ("_LOOK_EVERY if others - rest else None", "None"),
        ("            rest |= free\n", "            rest |= others\n"),
        ("            rest |= free\n", "            rest = free\n"),
        (" if not task.cancelling()}", "}"),
    ],
    ids=["does not look again", "looks once", "forgets whom it cancelled", "in its clean-up"],
)
def test_a_close_that_takes_a_timeout_for_a_cancellation_is_found(fault: tuple[str, str]) -> None:
    must_fail(check_close_meets_a_timeout, fault)


def check_close_sleeps_until_a_clean_up_ends(module: ModuleType) -> None:
    """Where nobody is ending a timeout, there is nothing to look for."""
    job, background, waits = Job(gated=True), Job(gated=True), 0
    wait = asyncio.wait

    async def counted(*tasks: Any, **options: Any) -> Any:
        nonlocal waits
        waits += 1
        return await wait(*tasks, **options)

    async def begin() -> None:
        asyncio.create_task(background())  # noqa: RUF006 - the job keeps its own future

    with running(module) as runner, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_LOOK_EVERY", 0.0)
        patch.setattr(asyncio, "wait", counted)
        runner.run(begin())
        runner.submit(job())
        assert job.begun.wait(PATIENCE)
        try:
            with pytest.raises(TimeoutError):
                runner.close(timeout=0)
            assert job.cleaning.wait(PATIENCE)
            assert background.cleaning.wait(PATIENCE)
            turn(runner, 20)
            assert waits == 1, "it looks again and again"
        finally:
            background.open()
            job.open()
    assert (job.clean, background.clean, background.broken) == (1, 1, 0)


@pytest.mark.guarantee("AR-2")
def test_close_sleeps_until_a_clean_up_ends() -> None:
    check_close_sleeps_until_a_clean_up_ends(async_runner)


@pytest.mark.twin("AR-2")
def test_a_close_that_looks_again_and_again_is_found() -> None:
    must_fail(
        check_close_sleeps_until_a_clean_up_ends,
        ("_LOOK_EVERY if others - rest else None", "_LOOK_EVERY"),
    )


def check_close_times_out_and_goes_on(module: ModuleType) -> None:
    runner = module.AsyncRunner(name="bench")
    runner.start()
    job = Job(gated=True)
    future = runner.submit(job())
    thread = runner._thread
    assert job.begun.wait(PATIENCE)
    try:
        for _ in range(2):
            with pytest.raises(
                TimeoutError,
                match=r"bench has not ended after 0 s, with 1 coroutines left: "
                r"it goes on, call close\(\) again to wait$",
            ):
                runner.close(timeout=0)
        assert job.cleaning.wait(PATIENCE)
        refused = value()
        with pytest.raises(RuntimeError, match="bench is closed"):
            runner.submit(refused)
        assert was_closed(refused)
        with pytest.raises(RuntimeError, match="bench is closed: make another AsyncRunner"):
            runner.start()
        assert not future.done()
        assert thread.is_alive()
    finally:
        job.open()
        runner.close(PATIENCE)
        thread.join(PATIENCE)
    assert future.cancelled()
    assert (job.clean, job.broken) == (1, 0)


@pytest.mark.guarantee("AR-2")
def test_close_times_out_and_a_later_one_waits_again() -> None:
    check_close_times_out_and_goes_on(async_runner)


@pytest.mark.twin("AR-2")
@pytest.mark.parametrize(
    "faults",
    [
        [("if not self._ended.wait(timeout):", "if False:"), ("        thread.join()\n", "")],
        [('raise RuntimeError(f"{self._name} is {self._state}: make another', "return\n#")],
    ],
    ids=["says nothing", "starts again"],
)
def test_a_close_that_forgets_its_state_is_found(faults: list[tuple[str, str]]) -> None:
    must_fail(check_close_times_out_and_goes_on, *faults)


def check_the_own_thread_only_requests(module: ModuleType) -> None:
    """In a coroutine, in a callback on the loop, and in the default executor."""
    outcomes: list[str] = []

    def close(runner: Any) -> None:
        try:
            runner.close(0)
            outcomes.append("returned")
        except (RuntimeError, TimeoutError) as error:
            outcomes.append(repr(error))

    async def by_coroutine(runner: Any) -> None:
        close(runner)
        await forever()

    async def by_callback(runner: Any) -> None:
        asyncio.get_running_loop().call_soon(close, runner)
        await forever()

    async def by_executor(runner: Any) -> None:
        await asyncio.to_thread(close, runner)

    for way in (by_coroutine, by_callback, by_executor):
        with running(module) as runner:
            future = runner.submit(way(runner))
            assert concurrent.futures.wait([future], PATIENCE).done
            runner.close(PATIENCE)
            with pytest.raises(RuntimeError, match="closed"):
                runner.submit(value())
    assert outcomes == ["returned"] * 3


@pytest.mark.guarantee("AR-2")
def test_in_its_own_threads_close_only_requests() -> None:
    check_the_own_thread_only_requests(async_runner)


@pytest.mark.twin("AR-2")
@pytest.mark.parametrize(
    "fault",
    [
        ('if hasattr(self._here, "role")', 'if getattr(self._here, "role", "") == "helper"'),
        ('if hasattr(self._here, "role")', 'if getattr(self._here, "role", "") == "loop"'),
    ],
)
def test_a_close_that_waits_for_itself_is_found(fault: tuple[str, str]) -> None:
    must_fail(check_the_own_thread_only_requests, fault)


@pytest.mark.guarantee("AR-2")
def test_a_futures_callback_may_close() -> None:
    runner = AsyncRunner()
    runner.start()
    closed = threading.Event()
    job = Job()
    future = runner.submit(job())
    assert job.begun.wait(PATIENCE)
    ending = runner.submit(value())

    def close(_: object) -> None:
        runner.close()
        closed.set()

    ending.add_done_callback(close)
    assert closed.wait(PATIENCE)
    runner.close(PATIENCE)
    assert future.cancelled()


@pytest.mark.guarantee("AR-2")
def test_close_is_idempotent_and_final() -> None:
    for started in (False, True):
        runner = AsyncRunner(name="bench")
        if started:
            runner.start()
            runner.start()
        for _ in range(3):
            runner.close()
        with pytest.raises(RuntimeError, match="bench is closed: make another AsyncRunner"):
            runner.start()
        with pytest.raises(RuntimeError, match="bench is closed"), runner:
            pass


@pytest.mark.guarantee("AR-2")
def test_threads_may_close_together() -> None:
    runner = AsyncRunner()
    runner.start()
    job = Job(gated=True)
    future = runner.submit(job())
    assert job.begun.wait(PATIENCE)
    closers = [Thread(runner.close) for _ in range(5)]
    job.open()
    for closer in closers:
        closer.result()
    assert future.cancelled()
    assert (job.clean, job.broken) == (1, 0)


def check_close_survives_hostile_coroutines(module: ModuleType) -> None:
    """Clean-up code that exits, stops the loop, or cancels each task that it finds."""
    cleaned: list[str] = []

    async def hostile(name: str, act: Callable[[], object], turns: int = 1) -> None:
        try:
            await forever()
        finally:
            for _ in range(turns):
                await asyncio.sleep(0)
            cleaned.append(name)
            act()

    def stop() -> None:
        asyncio.get_running_loop().stop()

    def cancel_all() -> None:
        for task in asyncio.all_tasks():
            task.cancel()

    async def slow() -> None:
        try:
            await forever()
        finally:
            for _ in range(100):
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    cleaned.append("slow, cancelled twice")
            cleaned.append("slow")

    runner = module.AsyncRunner()
    runner.start()
    exits = runner.submit(hostile("exits", lambda: sys.exit(3)))
    futures = [runner.submit(hostile("stops", stop)), runner.submit(slow())]
    futures.append(runner.submit(hostile("cancels", cancel_all, turns=9)))
    turn(runner)
    runner.close()
    assert isinstance(exits.exception(0), SystemExit)
    assert all(future.cancelled() for future in futures)
    assert sorted(set(cleaned)) == ["cancels", "exits", "slow", "slow, cancelled twice", "stops"]


@pytest.mark.guarantee("AR-2")
def test_close_survives_hostile_coroutines() -> None:
    check_close_survives_hostile_coroutines(async_runner)


@pytest.mark.twin("AR-2")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_close_that_a_coroutine_can_cancel_is_found() -> None:
    with logged("asyncio"):
        must_fail(
            check_close_survives_hostile_coroutines,
            ("if task.cancelled():  # by a coroutine", "if False:  # by a coroutine"),
        )
        gc.collect()


@pytest.mark.guarantee("AR-2")
def test_a_loop_that_a_coroutine_stops_goes_on() -> None:
    async def stop() -> int:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)
        return 1

    with AsyncRunner() as runner:
        assert [runner.run(stop(), PATIENCE) for _ in range(3)] == [1] * 3


@pytest.mark.guarantee("AR-1", "AR-2", "AR-3")
def test_every_future_settles_though_the_loop_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a coroutine closes the selector under it; the thread ends with the error."""
    errors: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", errors.append)

    async def sabotage() -> None:
        loop: Any = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "_selector", Broken(loop._selector))
        futures.append(runner.submit(value(1)))

    class Broken:
        def __init__(self, selector: Any) -> None:
            self._selector = selector

        def select(self, timeout: object) -> Any:
            if futures:
                raise OSError("the selector broke")
            return self._selector.select(timeout)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._selector, name)

    futures: list[concurrent.futures.Future[Any]] = []
    runner = AsyncRunner()
    runner.start()
    futures += [runner.submit(forever()), runner.submit(sabotage())]
    with logged("asyncio"):
        assert not concurrent.futures.wait(futures, PATIENCE).not_done
        runner.close(PATIENCE)
    assert str(errors[0].exc_value) == "the selector broke"
    del futures[:], errors[:]
    gc.collect()
    with pytest.raises(RuntimeError, match="closed"):
        runner.run(value())


@pytest.mark.guarantee("AR-1", "AR-2")
def test_a_task_factory_that_fails_fails_the_future() -> None:
    error = LookupError("no task today")

    def factory(*_: object, **__: object) -> Any:
        raise error

    async def install(factory: Any) -> None:
        asyncio.get_running_loop().set_task_factory(factory)

    with AsyncRunner() as runner:
        runner.run(install(factory))
        coro = value()
        assert runner.submit(coro).exception(PATIENCE) is error
        assert was_closed(coro)
        assert not runner._open, "the runner holds what has ended"


@pytest.mark.guarantee("AR-1")
def test_a_future_that_is_cancelled_while_its_task_cannot_be_made_stays_cancelled() -> None:
    """The factory's error comes too late for it, and disturbs nobody."""
    futures: list[concurrent.futures.Future[Any]] = []
    submitted = threading.Event()

    def factory(*_: object, **__: object) -> Any:
        assert submitted.wait(PATIENCE)
        assert futures[0].cancel()
        raise LookupError("no task today")

    async def install(factory: Any) -> None:
        asyncio.get_running_loop().set_task_factory(factory)

    with (
        logged("asyncio") as asyncios,
        logged("concurrent.futures") as futures_own,
        AsyncRunner() as runner,
    ):
        runner.run(install(factory))
        coro = value()
        futures.append(runner.submit(coro))
        submitted.set()
        turn(runner)
        assert futures[0].cancelled()
        assert was_closed(coro)
    assert not asyncios
    assert not futures_own


@pytest.mark.guarantee("AR-1", "AR-2")
@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks need Python >= 3.12")
def test_eager_tasks_work() -> None:
    async def install() -> None:
        factory = vars(asyncio)["eager_task_factory"]
        asyncio.get_running_loop().set_task_factory(factory)

    with AsyncRunner() as runner:
        runner.run(install())
        assert runner.run(value(1), PATIENCE) == 1
        exits = SystemExit(3)
        assert runner.submit(fail(exits)).exception(PATIENCE) is exits
        job = Job()
        future = runner.submit(job())
    assert future.cancelled()
    assert job.clean == 1


# --- AR-3: submissions that are refused, or race ---


def check_refusals_close_the_coroutine(module: ModuleType) -> None:
    runner = module.AsyncRunner(name="bench")
    early = value()
    with pytest.raises(RuntimeError, match=r"bench is not started: call start\(\)"):
        runner.submit(early)
    runner.start()
    job = Job(gated=True)
    runner.submit(job())
    assert job.begun.wait(PATIENCE)
    closing = Thread(runner.close)
    assert job.cleaning.wait(PATIENCE)
    during, late = value(), value()
    try:
        with pytest.raises(RuntimeError, match="bench is closed"):
            runner.submit(during)
    finally:
        job.open()
        closing.result()
    for call in (runner.submit, runner.run):
        with pytest.raises(RuntimeError, match="bench is closed"):
            call(late)
    assert all(was_closed(coro) for coro in (early, during, late))


@pytest.mark.guarantee("AR-3")
def test_a_closed_runner_refuses_and_closes_the_coroutine() -> None:
    check_refusals_close_the_coroutine(async_runner)


@pytest.mark.twin("AR-3")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "fault",
    [
        (
            "            state = self._state\n        coro.close()",
            "            state = self._state",
        ),
        (
            "if self._state == _RUNNING and self._loop is not None:\n                sub",
            "if self._loop:\n                sub",
        ),
    ],
    ids=["left open", "accepted"],
)
def test_a_careless_refusal_is_found(fault: tuple[str, str]) -> None:
    must_fail(check_refusals_close_the_coroutine, fault)
    gc.collect()


@pytest.mark.guarantee("AR-3")
@pytest.mark.parametrize("attempt", range(10))
def test_racing_submissions_settle_or_are_refused(attempt: int) -> None:
    runner = AsyncRunner()
    runner.start()
    start = threading.Barrier(5)

    def submit_until_refused() -> list[concurrent.futures.Future[Any]]:
        accepted: list[concurrent.futures.Future[Any]] = []
        start.wait(PATIENCE)
        while True:
            coro = value(1) if len(accepted) % 2 else forever()
            try:
                accepted.append(runner.submit(coro))
            except RuntimeError:
                assert was_closed(coro)
                return accepted

    submitters = [Thread(submit_until_refused) for _ in range(4)]
    start.wait(PATIENCE)
    runner.close(PATIENCE)
    futures = [future for submitter in submitters for future in submitter.result()]
    assert all(future.cancelled() or future.result(0) == 1 for future in futures)


@pytest.mark.guarantee("AR-3")
def test_helpers_that_submit_while_it_closes_are_refused() -> None:
    """A thread of the loop's executor is waited for, and cannot begin anything new."""
    entered, gate = threading.Event(), threading.Event()
    outcomes: list[str] = []

    def helper() -> None:
        entered.set()
        assert gate.wait(PATIENCE)
        coro = value()
        try:
            runner.run(coro)
        except RuntimeError as error:
            outcomes.append(str(error))

    runner = AsyncRunner(name="bench")
    runner.start()
    runner.submit(asyncio.to_thread(helper))
    assert entered.wait(PATIENCE)
    with pytest.raises(TimeoutError):
        runner.close(0)
    gate.set()
    runner.close()
    assert outcomes == ["bench is closed: submit before close()"]


@pytest.mark.guarantee("AR-3")
def test_coroutines_start_in_the_order_of_submission() -> None:
    order: list[int] = []

    async def note(number: int) -> None:
        order.append(number)

    with AsyncRunner() as runner:
        futures = [runner.submit(note(number)) for number in range(1_000)]
        concurrent.futures.wait(futures, PATIENCE)
    assert order == list(range(1_000))


# --- AR-4: run in the runner's own thread ---


def check_run_refuses_its_own_thread(module: ModuleType) -> None:
    """Where the twin would hang, it meets a runner that has no room for another coroutine."""
    inner = value()

    class Full(module.AsyncRunner):  # type: ignore[misc, name-defined]
        def _submit(self, coro: Any) -> Any:
            assert coro is not inner, "this would have been waited for, for ever"
            return super()._submit(coro)

    runner = Full(name="bench")
    with runner:

        async def outer() -> None:
            runner.run(inner)

        with pytest.raises(RuntimeError, match="wait for itself in bench's own thread: await"):
            runner.run(outer(), PATIENCE)
    assert was_closed(inner)


@pytest.mark.guarantee("AR-4")
def test_run_in_its_own_thread_raises() -> None:
    check_run_refuses_its_own_thread(async_runner)


@pytest.mark.twin("AR-4")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize(
    "fault",
    [
        ("            self._check_thread()\n", ""),
        (
            "        except BaseException:\n            coro.close()\n",
            "        except ValueError:\n",
        ),
    ],
)
def test_run_that_waits_for_itself_is_found(fault: tuple[str, str]) -> None:
    must_fail(check_run_refuses_its_own_thread, fault)
    gc.collect()


@pytest.mark.guarantee("AR-4")
def test_run_is_legal_in_helpers_and_in_other_runners() -> None:
    with AsyncRunner() as first, AsyncRunner() as second:

        async def by_way_of_the_second() -> object:
            return second.run(value(2), PATIENCE)

        async def by_way_of_a_helper() -> object:
            return await asyncio.to_thread(lambda: first.run(value(3), PATIENCE))

        assert first.run(by_way_of_the_second(), PATIENCE) == 2
        assert first.run(by_way_of_a_helper(), PATIENCE) == 3


# --- AR-5: run with a timeout ---


def check_a_timeout_waits_for_the_clean_up(module: ModuleType) -> None:
    """The clean-up goes on once `run` has either returned or is seen to wait for it."""
    order: list[str] = []
    over, begun = threading.Event(), threading.Event()

    class Watched(module._Submission):  # type: ignore[misc, name-defined]
        def result(self, timeout: float | None = None) -> Any:
            if timeout is None:
                if not self.done():
                    over.set()
                return super().result(PATIENCE)
            assert begun.wait(PATIENCE)
            raise TimeoutError

    async def job() -> None:
        try:
            begun.set()
            await forever()
        finally:
            assert over.wait(PATIENCE)
            await asyncio.sleep(0)
            order.append("cleaned up")

    with running(module) as runner, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_Submission", Watched)
        try:
            with pytest.raises(TimeoutError, match=r"async-runner: cancelled after 0\.5 s"):
                runner.run(job(), timeout=0.5)
            order.append("raised")
        finally:
            over.set()
    assert order == ["cleaned up", "raised"]


@pytest.mark.guarantee("AR-5")
def test_a_timeout_cancels_and_waits_for_the_clean_up() -> None:
    check_a_timeout_waits_for_the_clean_up(async_runner)


@pytest.mark.twin("AR-5")
@pytest.mark.parametrize(
    "fault",
    [
        ("                return submission.result()\n", "                raise CancelledError\n"),
        (
            "                submission.request_cancel()  # of",
            "                submission.cancel()  # of",
        ),
        (
            'raise TimeoutError(f"{self._name}: cancelled after {timeout} s") from None',
            "raise",
        ),
    ],
    ids=["does not wait", "settles at once", "another error"],
)
def test_a_hasty_timeout_is_found(fault: tuple[str, str]) -> None:
    broken = twin(FILE, fault)
    with pytest.raises((AssertionError, concurrent.futures.CancelledError)):
        check_a_timeout_waits_for_the_clean_up(broken)


@pytest.mark.guarantee("AR-5")
def test_a_timeout_of_zero_cancels() -> None:
    with AsyncRunner() as runner:
        job = Job()
        with pytest.raises(TimeoutError):
            runner.run(job(), timeout=0)
        assert job.clean == job.begun.is_set()


@pytest.mark.guarantee("AR-5")
def test_what_comes_in_spite_of_the_cancellation_is_passed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = LookupError()
    jobs = [Job(ends="a result"), Job(ends=error)]

    class Begun(async_runner._Submission[Any]):
        def result(self, timeout: float | None = None) -> Any:
            if timeout is not None:
                assert job.begun.wait(PATIENCE)
            return super().result(timeout)

    monkeypatch.setattr(async_runner, "_Submission", Begun)
    with AsyncRunner() as runner:
        job = jobs[0]
        assert runner.run(job(), timeout=0) == "a result"
        job = jobs[1]
        with pytest.raises(LookupError) as caught:
            runner.run(job(), timeout=0)
    assert caught.value is error


@pytest.mark.guarantee("AR-5")
def test_a_coroutines_own_timeout_error_is_passed_on() -> None:
    """Though it looks as if the time were up, there is nothing to cancel any more."""
    error = TimeoutError("its own")
    with logged("asyncio") as records, AsyncRunner() as runner:
        with pytest.raises(TimeoutError) as caught:
            runner.run(fail(error), timeout=PATIENCE)
        turn(runner)
    assert caught.value is error
    assert not records


@pytest.mark.guarantee("AR-5")
def test_a_timeout_that_comes_when_close_has_ended_the_coroutine_is_still_a_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = Job()

    class Late(async_runner._Submission[Any]):
        def result(self, timeout: float | None = None) -> Any:
            if timeout is not None:
                assert job.begun.wait(PATIENCE)
                runner.close(PATIENCE)
                raise TimeoutError
            return super().result(timeout)

    monkeypatch.setattr(async_runner, "_Submission", Late)
    with AsyncRunner(name="bench") as runner:
        with pytest.raises(TimeoutError, match=r"^bench: cancelled after 0\.5 s$"):
            runner.run(job(), timeout=0.5)
    assert job.clean == 1


class Interruption(BaseException):
    """What a signal handler raises."""


def check_an_interrupted_run(module: ModuleType) -> None:
    """It waits for the clean-up, which ends once `run` has returned or is seen to wait."""
    job = Job(gated=True)

    class Interrupted(module._Submission):  # type: ignore[misc, name-defined]
        def result(self, timeout: float | None = None) -> Any:
            assert job.begun.wait(PATIENCE)
            raise Interruption

    def wait(submissions: Any) -> Any:
        assert job.cleaning.wait(PATIENCE), "it was not cancelled"
        assert not any(submission.done() for submission in submissions), "settled too early"
        job.open()
        return concurrent.futures.wait(submissions, PATIENCE)

    with running(module) as runner, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_Submission", Interrupted)
        patch.setattr(module, "wait", wait)
        try:
            with pytest.raises(Interruption):
                runner.run(job())
            assert job.clean == 1, "it was left running"
        finally:
            job.open()
    assert job.broken == 0


def test_what_a_signal_handler_raises_in_run_cancels_and_waits() -> None:
    check_an_interrupted_run(async_runner)


@pytest.mark.parametrize(
    "fault",
    [
        ("                if not submission.done():", "                if submission.done():"),
        ("                    wait([submission])\n", ""),
        (
            "                    submission.request_cancel()\n",
            "                    submission.cancel()\n",
        ),
    ],
    ids=["goes on", "does not wait", "settles at once"],
)
def test_an_interrupted_run_that_leaves_its_coroutine_is_found(fault: tuple[str, str]) -> None:
    must_fail(check_an_interrupted_run, fault)


@pytest.mark.guarantee("AR-2", "AR-5")
def test_close_ends_a_run_in_another_thread() -> None:
    for timeout in (None, PATIENCE, float("inf")):
        runner = AsyncRunner()
        runner.start()
        job = Job()
        call = Thread(runner.run, job(), timeout)
        assert job.begun.wait(PATIENCE)
        runner.close()
        with pytest.raises(concurrent.futures.CancelledError):
            call.result()
        assert job.clean == 1


@unix_only
def test_an_interrupt_cancels_the_coroutine_and_waits_for_its_clean_up() -> None:
    done = run_python(
        """
    import asyncio, signal, threading
    from reference_impl.bridges.async_runner import AsyncRunner

    cleaned, begun, over = [], threading.Event(), threading.Event()
    async def job():
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append("clean")

    pending = [True]
    def interrupt(_, frame):
        if pending and frame.f_code is threading.Condition.wait.__code__:
            pending.clear()
            raise KeyboardInterrupt
    signal.signal(signal.SIGINT, interrupt)

    def send():
        begun.wait()
        while pending:  # a signal just before the wait for a lock can be missed
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            over.wait(0.05)

    sender = threading.Thread(target=send)
    sender.start()
    with AsyncRunner() as runner:
        try:
            runner.run(job())
        except KeyboardInterrupt:
            print("interrupted after", *cleaned)
        assert runner.run(asyncio.sleep(0, 1)) == 1
    over.set()
    sender.join()
    """
    )
    assert done.stdout == "interrupted after clean\n"


# --- AR-6: contexts ---

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def check_the_callers_context_is_seen(module: ModuleType) -> None:
    with running(module) as runner:
        gate, begun = threading.Event(), threading.Event()

        async def block() -> None:
            begun.set()
            assert gate.wait(PATIENCE)

        async def look() -> tuple[str, str]:
            before = variable.get()
            variable.set("the coroutine's")
            await asyncio.sleep(0)
            inner = await asyncio.create_task(value_of_variable())
            return before, inner

        async def value_of_variable() -> str:
            return variable.get()

        def call(name: str) -> Any:
            variable.set(name)
            future = runner.submit(look())
            variable.set("too late")
            seen = variable.get()
            return future, seen

        runner.submit(block())
        assert begun.wait(PATIENCE)
        calls = [contextvars.copy_context().run(call, name) for name in ("first", "second")]
        gate.set()
        assert [future.result(PATIENCE) for future, _ in calls] == [
            ("first", "the coroutine's"),
            ("second", "the coroutine's"),
        ]
        assert [seen for _, seen in calls] == ["too late"] * 2
        assert runner.run(look())[0] == "unset"


@pytest.mark.guarantee("AR-6")
def test_the_callers_context_is_seen_and_not_changed() -> None:
    check_the_callers_context_is_seen(async_runner)


@pytest.mark.twin("AR-6")
def test_losing_the_context_is_found() -> None:
    must_fail(
        check_the_callers_context_is_seen,
        ("context=copy_context()", "context=type(copy_context())()"),
    )


# --- bad input ---


async def asynchronous() -> None:
    pass


def generator() -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    ("bad", "advice"),
    [
        (asynchronous, "got <function asynchronous .*>: call the function"),
        (None, "got None"),
        (generator(), "got <generator object"),
        ("coroutine", "got 'coroutine'"),
        (concurrent.futures.Future(), "got <Future .*: await other awaitables in one"),
    ],
)
def test_anything_but_a_coroutine_is_refused(bad: Any, advice: str) -> None:
    with AsyncRunner() as runner:
        for call in (runner.submit, runner.run):
            with pytest.raises(TypeError, match=f"coro must be a coroutine, {advice}"):
                call(bad)
        assert not runner._open
        assert runner.run(value(1)) == 1


@pytest.mark.parametrize(
    ("timeout", "error"),
    [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError), (True, TypeError)],
)
def test_a_bad_timeout_is_refused_and_the_coroutine_closed(
    timeout: Any, error: type[Exception]
) -> None:
    with AsyncRunner() as runner:
        coro = value()
        with pytest.raises(error, match=f"timeout must be .*, got {timeout!r}"):
            runner.run(coro, timeout)
        assert was_closed(coro)
        with pytest.raises(error, match=f"timeout must be .*, got {timeout!r}"):
            runner.close(timeout)
        assert runner.run(value(1)) == 1, "it was not closed by the refused call"


@pytest.mark.parametrize("name", [None, 3, b"runner"])
def test_a_bad_name_is_refused(name: Any) -> None:
    with pytest.raises(TypeError, match="name must be a str, got"):
        AsyncRunner(name=name)


def test_there_is_no_argument_without_effect() -> None:
    """The original's `max_workers` did nothing."""
    with pytest.raises(TypeError):
        AsyncRunner(max_workers=4)  # type: ignore[call-arg]


def test_a_coroutine_that_has_run_already_fails_its_future() -> None:
    with AsyncRunner() as runner:
        coro = value()
        runner.run(coro)
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            runner.run(coro)


def test_a_start_that_fails_leaves_nothing_and_can_be_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = descriptors()
    runner = AsyncRunner()
    with monkeypatch.context() as patch:

        def refuse(_: object) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            runner.start()
    assert descriptors() == before
    coro = value()
    with pytest.raises(RuntimeError, match="not started"):
        runner.submit(coro)
    with runner:
        assert runner.run(value(1)) == 1


def test_threads_and_the_task_that_closes_have_the_runners_name() -> None:
    """And its thread is a daemon: one that is never closed must not hold up the exit for ever."""
    tasks: set[str] = set()

    async def thread() -> threading.Thread:
        return threading.current_thread()

    async def job() -> None:
        try:
            begun.set()
            await forever()
        finally:
            tasks.update(task.get_name() for task in asyncio.all_tasks())

    begun = threading.Event()
    with AsyncRunner(name="bench") as runner:
        own = runner.run(thread())
        assert (own.name, own.daemon) == ("bench", True)
        helper = runner.run(asyncio.to_thread(threading.current_thread))
        assert helper.name.startswith("bench-helper")
        runner.submit(job())
        assert begun.wait(PATIENCE)
        assert "bench" not in tasks
    assert "bench" in tasks


def test_an_idle_runner_sleeps() -> None:
    """Its loop waits in the selector without a timeout: nothing is polled."""
    timeouts: list[object] = []
    waiting = threading.Event()

    async def watch() -> None:
        loop: Any = asyncio.get_running_loop()
        select = loop._selector.select

        def watched(timeout: object = None) -> Any:
            timeouts.append(timeout)
            if timeout is None:
                waiting.set()
            return select(timeout)

        loop._selector.select = watched

    with AsyncRunner() as runner:
        runner.run(watch())
        assert waiting.wait(PATIENCE)
        assert timeouts[-1] is None


# --- fork, exit, signals ---

SETUP = """
    import asyncio, os, sys, threading, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of fork with threads
    from reference_impl.bridges.async_runner import AsyncRunner

    async def value(of=None):
        return of

    async def forever():
        await asyncio.get_running_loop().create_future()
"""


@pytest.fixture
def no_other_runners(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a hook, called by hand, reaches those of this test only."""
    monkeypatch.setattr(async_runner, "_runners", weakref.WeakValueDictionary())
    monkeypatch.setattr(async_runner, "_inherited", [])


def end_abandoned(runner: Any, loop: Any, thread: threading.Thread) -> None:
    """What a fork's parent does later: here it is the same process."""
    vars(loop).pop("close", None)
    loop.call_soon_threadsafe(runner._start_winding_down)
    thread.join(PATIENCE)
    assert loop.is_closed()


@pytest.mark.guarantee("AR-2", "AR-3")
@pytest.mark.usefixtures("no_other_runners")
def test_what_a_child_inherits_is_closed_without_its_loop() -> None:
    """What the hook does in the child, where another thread may have held the lock."""
    runner, unused = AsyncRunner(name="bench"), AsyncRunner()
    runner.start()
    loop, thread, pending = runner._loop, runner._thread, runner.submit(forever())
    assert loop is not None
    assert thread is not None
    try:
        with runner._lock:
            async_runner._after_fork()
            for call in (runner.submit, runner.run):
                coro = value()
                with pytest.raises(
                    RuntimeError, match="bench is closed in this process, as it was started"
                ):
                    call(coro)
                assert was_closed(coro)
            with pytest.raises(RuntimeError, match="fork: make another AsyncRunner"):
                runner.start()
            runner.close()
        loop.close()
        assert not loop.is_closed(), "the parent's descriptors were taken off its selector"
        assert loop in async_runner._inherited, "it can be closed by the collector"
        assert not pending.done()
        with unused:
            assert unused.run(value(1)) == 1
    finally:
        end_abandoned(runner, loop, thread)
    assert pending.cancelled()


@pytest.mark.usefixtures("no_other_runners")
def test_a_child_inherits_a_loop_that_takes_no_attribute() -> None:
    """Such as one written in another language: it is kept, and that is all."""
    runner: Any = AsyncRunner()
    runner._loop, runner._thread = object(), threading.current_thread()
    runner._abandon()
    assert async_runner._inherited.pop() is runner._loop
    runner.close()


@unix_only
@pytest.mark.guarantee("AR-2", "AR-3")
@pytest.mark.parametrize("ending", ["os._exit(0)", "sys.exit(0)"])
def test_a_forked_child_has_a_closed_runner_and_does_the_parents_no_harm(ending: str) -> None:
    run_python(
        SETUP
        + f"""
    runner, unused = AsyncRunner(name="bench"), AsyncRunner()
    runner.start()
    pending = runner.submit(forever())
    runner.run(value())
    with runner._lock:  # as if another thread held it at the fork
        child = os.fork()
    if not child:
        warnings.simplefilter("ignore", ResourceWarning)  # the parent's loop is not closed
        try:
            for call in (runner.submit, runner.run):
                coro = value()
                try:
                    call(coro)
                except RuntimeError as error:
                    assert "as it was started before the fork" in str(error)
                else:
                    raise AssertionError("accepted")
                assert coro.cr_frame is None
            try:
                runner.start()
            except RuntimeError as error:
                assert "make another AsyncRunner" in str(error)
            runner.close()
            with unused:
                assert unused.run(value(1)) == 1
            with AsyncRunner() as other:
                assert other.run(value(2)) == 2
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        {ending}
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for number in range(100):
        assert runner.run(value(number), 60) == number
    runner.close(60)
    assert pending.cancelled()
    """
    )


@pytest.mark.usefixtures("no_other_runners")
def test_the_exit_hook_closes_every_runner_and_tells_which_have_not_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(async_runner, "_EXIT_TIMEOUT", 0)
    jobs = [Job(gated=True) for _ in "ab"]
    runners = [AsyncRunner(name="first"), AsyncRunner(name="second"), AsyncRunner(name="unused")]
    try:
        for runner, job in zip(runners, jobs, strict=False):
            runner.start()
            runner.submit(job())
            assert job.begun.wait(PATIENCE)
        with logged(async_runner.__name__) as records:
            async_runner._close_all()
        assert [(record.levelname, record.getMessage()) for record in records] == [
            (
                "WARNING",
                f"the interpreter exits: {name} has not ended after 0 s, with 1 coroutines left: "
                "it goes on, call close() again to wait",
            )
            for name in ("first", "second")
        ]
        for runner in runners:
            with pytest.raises(RuntimeError, match="is closed"):
                runner.start()
    finally:
        for runner, job in zip(runners, jobs, strict=False):
            job.open()
            runner.close(PATIENCE)
    assert [(job.clean, job.broken) for job in jobs] == [(1, 0)] * 2


def test_the_interpreters_exit_closes_a_running_runner() -> None:
    done = run_python(
        SETUP
        + """
    async def job():
        try:
            await asyncio.to_thread(int)
            await forever()
        finally:
            await asyncio.sleep(0)
            print("clean", flush=True)
    runner = AsyncRunner()
    runner.start()
    runner.submit(job())
    runner.run(asyncio.to_thread(int))
    """
    )
    assert done.stdout == "clean\n"
    assert done.stderr == ""


def test_the_interpreter_does_not_wait_for_ever_for_a_stuck_coroutine() -> None:
    done = run_python(
        SETUP
        + """
    from reference_impl.bridges import async_runner
    async_runner._EXIT_TIMEOUT = 0.1
    begun = threading.Event()
    async def stuck():
        begun.set()
        threading.Event().wait()
    runner = AsyncRunner()
    runner.start()
    runner.submit(stuck())
    begun.wait()
    """
    )
    assert "the interpreter exits: async-runner has not ended after 0.1 s" in done.stderr


@unix_only
def test_close_may_be_interrupted_and_repeated() -> None:
    """The handler raises once, in the wait for the thread."""
    job = Job(gated=True)
    runner = AsyncRunner()
    runner.start()
    future = runner.submit(job())
    assert job.begun.wait(PATIENCE)
    pending = [True]

    def interrupt(*_: object) -> None:
        if pending:
            pending.clear()
            raise KeyboardInterrupt

    over = threading.Event()

    def send() -> None:
        assert job.cleaning.wait(PATIENCE)
        while pending:
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, signal.SIGINT)
            over.wait(0.05)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        sender = Thread(send)
        with pytest.raises(KeyboardInterrupt):
            runner.close()
        over.set()
        sender.result()
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(RuntimeError, match="closed"):
        runner.submit(value())
    job.open()
    runner.close(PATIENCE)
    assert future.cancelled()
    assert (job.clean, job.broken) == (1, 0)
