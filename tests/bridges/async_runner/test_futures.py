"""AR-1: results, exceptions and cancellations of what was submitted to AsyncRunner."""

import asyncio
import concurrent.futures
import gc
import sys
import threading
import weakref
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import async_runner
from reference_impl.bridges.async_runner import AsyncRunner
from tests.bridges.async_runner.helpers import (
    FORGETS_RESULTS,
    LEAVES_REFUSED_OPEN,
    LETS_THE_TASK_GO_ON,
    Job,
    fail,
    forever,
    logged,
    place,
    running,
    submitting,
    turn,
    value,
    was_closed,
)
from tests.kit.fakes import PATIENCE, Beside
from tests.kit.proofs import Proof
from tests.kit.twins import Twin, edit, override


def check_outcomes_reach_the_future(m: ModuleType) -> None:
    errors = [ValueError("v"), GeneratorExit(), LookupError(), TimeoutError("its own")]
    with running(m) as runner:
        thing = object()
        assert runner.submit(value(thing)).result(PATIENCE) is thing
        assert runner.submit(value(None)).result(PATIENCE) is None
        assert runner.run(value(thing)) is thing
        for error in errors:
            assert runner.submit(fail(error)).exception(PATIENCE) is error
            with pytest.raises(type(error)) as caught:
                runner.run(fail(error), PATIENCE)
            assert caught.value is error


def check_a_system_exit_settles_its_future(m: ModuleType) -> None:
    """The original gave no signal at all; a bare loop ends, and strands all the others."""
    with logged(m.__name__) as records, running(m) as runner:
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
    assert not records, "the future's owner was told, so the log need not be"


def test_a_system_exit_that_no_future_takes_is_logged() -> None:
    async def exits_in_a_callback() -> None:
        asyncio.get_running_loop().call_soon(sys.exit, 3)

    with logged(async_runner.__name__) as records, AsyncRunner(name="bench") as runner:
        runner.run(exits_in_a_callback())
        turn(runner, 2)
    assert [record.getMessage() for record in records] == ["bench: no future takes SystemExit(3)"]
    assert records[0].exc_info is not None
    assert records[0].exc_info[0] is SystemExit, "the log lacks the traceback"


def check_cancelling_settles_at_once(m: ModuleType) -> None:
    """While the clean-up still runs; and the clean-up runs to its end."""
    job = Job(gated=True)
    with running(m) as runner:
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


def check_running_tells_whether_the_task_runs(m: ModuleType) -> None:
    """And a future that runs can be cancelled, and is waited for as any other."""
    job, other = Job(gated=True), Job()
    gate, begun = threading.Event(), threading.Event()

    async def block() -> None:
        begun.set()
        assert gate.wait(PATIENCE)

    with running(m) as runner:
        try:
            blocks = runner.submit(block())
            assert begun.wait(PATIENCE)
            future = runner.submit(job())
            assert (blocks.running(), future.running()) == (True, False), "before it has begun"
            gate.set()
            assert job.begun.wait(PATIENCE)
            assert future.running(), "it runs"
            assert not future.done()
            assert concurrent.futures.wait([blocks, future], timeout=0.01).not_done == {future}
            assert blocks.result(PATIENCE) is None
            assert not blocks.running(), "after its end"
            assert future.cancel(), "what runs can be cancelled"
            assert (future.running(), future.done(), future.cancelled()) == (False, True, True)
            waits = runner.submit(other())
            assert other.begun.wait(PATIENCE)
        finally:
            gate.set()
            job.open()
    assert (waits.running(), waits.done(), waits.cancelled()) == (False, True, True)


def check_it_never_starts_when_cancelled_before(m: ModuleType) -> None:
    with logged("asyncio") as records, running(m) as runner:
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
        ended = weakref.ref(future)
        del future
        gc.collect()
        assert ended() is None, "the runner holds what has ended"
    assert not records


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


@pytest.mark.guarantee("AR-1")
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

        for thread in [Beside(work, first) for first in range(4)]:
            thread.result()
        assert not concurrent.futures.wait(futures, PATIENCE).not_done
        ended = {future.result() for future in futures if not future.cancelled()}
    assert len(futures) == 20_000
    assert len(ended) + sum(future.cancelled() for future in futures) == 20_000
    assert all(future.done() and not future.running() for future in futures)


@pytest.mark.guarantee("AR-1")
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


@pytest.mark.guarantee("AR-1")
def test_a_task_factory_that_fails_fails_the_future() -> None:
    error = LookupError("no task today")

    def factory(*_: object, **__: object) -> Any:
        raise error

    async def install(factory: Any) -> None:
        asyncio.get_running_loop().set_task_factory(factory)

    with AsyncRunner() as runner:
        runner.run(install(factory))
        coro = value()
        future = runner.submit(coro)
        assert future.exception(PATIENCE) is error
        assert was_closed(coro)
        ended = weakref.ref(future)
        error.__traceback__ = None  # whose frames hold it
        del future
        gc.collect()
        assert ended() is None, "the runner holds what has ended"


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
        place(runner)  # while there is a task for that
        runner.run(install(factory))
        coro = value()
        futures.append(runner.submit(coro))
        submitted.set()
        turn(runner)
        assert futures[0].cancelled()
        assert was_closed(coro)
    assert not asyncios
    assert not futures_own


@pytest.mark.guarantee("AR-1")
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


def asyncios_own(original: Any) -> Any:
    def submit(runner: Any, coro: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coro, place(runner)[0])

    return submit


async def copying(coro: Any) -> Any:
    try:
        return await coro
    except Exception as error:
        raise type(error)(*error.args) from None


PROOFS = [
    Proof(
        "AR-1",
        check_outcomes_reach_the_future,
        [
            Twin("forgets the result", FORGETS_RESULTS, "AssertionError: is thing"),
            Twin("raises a copy", submitting(copying), "AssertionError: is error"),
        ],
    ),
    Proof(
        "AR-1",
        check_a_system_exit_settles_its_future,
        [
            Twin(
                "ends its loop with a SystemExit",
                edit("AsyncRunner._run_loop", "(SystemExit, KeyboardInterrupt)", "LookupError"),
                "CancelledError",
            )
        ],
    ),
    Proof(
        "AR-1",
        check_cancelling_settles_at_once,
        [
            Twin("lets the task go on", LETS_THE_TASK_GO_ON, "AssertionError: was not cancelled"),
            Twin(
                "hands out the future of run_coroutine_threadsafe",
                override("AsyncRunner.submit", asyncios_own),
                "AssertionError: concurrent.futures.wait([future]",
            ),
        ],
    ),
    Proof(
        "AR-1",
        check_running_tells_whether_the_task_runs,
        [
            Twin(
                "leaves its futures pending while they run",
                edit("_Submission.running", "self.has_begun and not self.done()", "False"),
                "AssertionError: before it has begun",
            ),
        ],
    ),
    Proof(
        "AR-1",
        check_it_never_starts_when_cancelled_before,
        [
            Twin(
                "leaves open what never starts",
                LEAVES_REFUSED_OPEN,
                "AssertionError: was_closed(coro)",
            )
        ],
    ),
]
