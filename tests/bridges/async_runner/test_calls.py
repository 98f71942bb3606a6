"""AR-3 to AR-6: refused and racing submissions; run, its timeouts and interrupts; contexts."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import async_runner
from reference_impl.bridges.async_runner import AsyncRunner
from tests.bridges.async_runner.helpers import (
    IS_NOWHERE,
    LEAVES_REFUSED_OPEN,
    Job,
    fail,
    forever,
    forgetting,
    in_waits,
    logged,
    running,
    turn,
    value,
    was_closed,
)
from tests.kit.fakes import PATIENCE, Beside
from tests.kit.proofs import Proof
from tests.kit.twins import Twin, override

# AR-3: submissions that are refused, or race.


def check_refusals_close_the_coroutine(m: ModuleType) -> None:
    runner = m.AsyncRunner(name="bench")
    early = value()
    with pytest.raises(RuntimeError, match=r"bench is not started: call start\(\)"):
        runner.submit(early)
    runner.start()
    job = Job(gated=True)
    runner.submit(job())
    assert job.begun.wait(PATIENCE)
    closing = Beside(runner.close)
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

    submitters = [Beside(submit_until_refused) for _ in range(4)]
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


# AR-4: run in the runner's own thread.


def check_run_refuses_its_own_thread(m: ModuleType) -> None:
    """Where a twin would hang, it is told."""
    inner = value()

    def ask(_: float | None) -> None:
        if threading.current_thread().name == "bench":
            raise AssertionError("this would be waited for without an end")

    runner = m.AsyncRunner(name="bench")

    async def outer() -> None:
        runner.run(inner)

    with runner, in_waits(m, ask):
        with pytest.raises(RuntimeError, match="wait for itself in bench's own thread: await"):
            runner.run(outer(), PATIENCE)
    assert was_closed(inner), "it was left open"


@pytest.mark.guarantee("AR-4")
def test_run_is_legal_in_helpers_and_in_other_runners() -> None:
    with AsyncRunner() as first, AsyncRunner() as second:

        async def by_way_of_the_second() -> object:
            return second.run(value(2), PATIENCE)

        async def by_way_of_a_helper() -> object:
            return await asyncio.to_thread(lambda: first.run(value(3), PATIENCE))

        assert first.run(by_way_of_the_second(), PATIENCE) == 2
        assert first.run(by_way_of_a_helper(), PATIENCE) == 3


# AR-5: run with a timeout, or interrupted.


@contextmanager
def time_is_up_once(m: ModuleType, begun: threading.Event, over: threading.Event) -> Iterator[None]:
    """Whatever limit there is: it is reached once one has `begun`; a wait without one is told."""

    def ask(timeout: float | None) -> None:
        if timeout is None:
            over.set()
        else:
            assert begun.wait(PATIENCE)
            raise TimeoutError

    with in_waits(m, ask):
        yield


def check_a_timeout_waits_for_the_clean_up(m: ModuleType) -> None:
    """The clean-up goes on once `run` has either returned or is seen to wait for it."""
    order: list[str] = []
    over, begun = threading.Event(), threading.Event()

    async def job() -> None:
        try:
            begun.set()
            await forever()
        finally:
            assert over.wait(PATIENCE)
            await asyncio.sleep(0)
            order.append("cleaned up")

    with running(m) as runner:
        try:
            with (
                time_is_up_once(m, begun, over),
                pytest.raises(TimeoutError, match=r"async-runner: cancelled after 0\.5 s"),
            ):
                runner.run(job(), timeout=0.5)
            order.append("raised")
        finally:
            over.set()
    assert order == ["cleaned up", "raised"]


@pytest.mark.guarantee("AR-5")
def test_a_timeout_of_zero_cancels() -> None:
    with AsyncRunner() as runner:
        job = Job()
        with pytest.raises(TimeoutError):
            runner.run(job(), timeout=0)
        assert job.clean == job.begun.is_set()


def check_what_comes_in_spite_of_the_cancellation(m: ModuleType) -> None:
    error = LookupError()
    results, fails = Job(ends="a result"), Job(ends=error)
    with running(m) as runner:
        with time_is_up_once(m, results.begun, threading.Event()):
            assert runner.run(results(), timeout=0) == "a result"
        with time_is_up_once(m, fails.begun, threading.Event()):
            with pytest.raises(LookupError) as caught:
                runner.run(fails(), timeout=0)
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
def test_a_timeout_that_comes_when_close_has_ended_the_coroutine_is_still_a_timeout() -> None:
    job = Job()

    def ask(timeout: float | None) -> None:
        if timeout is not None:
            assert job.begun.wait(PATIENCE)
            runner.close(PATIENCE)
            raise TimeoutError

    with AsyncRunner(name="bench") as runner, in_waits(async_runner, ask):
        with pytest.raises(TimeoutError, match=r"^bench: cancelled after 0\.5 s$"):
            runner.run(job(), timeout=0.5)
    assert job.clean == 1


class Interruption(BaseException):
    """What a signal handler raises."""


def test_what_a_signal_handler_raises_in_run_cancels_and_waits() -> None:
    """It waits for the clean-up, which ends once `run` is seen to wait for it."""
    job = Job(gated=True)
    waits = 0

    def interrupt(_: object) -> None:
        nonlocal waits
        waits += 1
        if waits == 1:
            assert job.begun.wait(PATIENCE)
            raise Interruption
        assert job.cleaning.wait(PATIENCE), "it was not cancelled"
        job.open()

    with running(async_runner) as runner:
        try:
            with in_waits(async_runner, interrupt), pytest.raises(Interruption):
                runner.run(job())
            assert waits == 2, "settled too early"
            assert job.clean == 1, "it was left running"
        finally:
            job.open()
    assert job.broken == 0


@pytest.mark.guarantee("AR-2")
def test_close_ends_a_run_in_another_thread() -> None:
    for timeout in (None, PATIENCE, float("inf")):
        runner = AsyncRunner()
        runner.start()
        job = Job()
        call = Beside(runner.run, job(), timeout)
        assert job.begun.wait(PATIENCE)
        runner.close()
        with pytest.raises(concurrent.futures.CancelledError):
            call.result()
        assert job.clean == 1


# AR-6: contexts.

variable: ContextVar[str] = ContextVar("variable", default="unset")


def check_the_callers_context_is_seen(m: ModuleType) -> None:
    with running(m) as runner:
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
        calls = [copy_context().run(call, name) for name in ("first", "second")]
        gate.set()
        assert [future.result(PATIENCE) for future, _ in calls] == [
            ("first", "the coroutine's"),
            ("second", "the coroutine's"),
        ]
        assert [seen for _, seen in calls] == ["too late"] * 2
        assert runner.run(look())[0] == "unset"


def open_refusals(original: Any) -> Any:
    return lambda runner, coro, timeout=None: original(runner, forgetting(coro), timeout)


def hasty(_: Any) -> Any:
    def run(runner: Any, coro: Any, timeout: float | None = None) -> Any:
        future = runner.submit(coro)
        try:
            return future.result(timeout)
        except TimeoutError:
            Beside(future.cancel).result()
            raise TimeoutError(f"async-runner: cancelled after {timeout} s") from None

    return run


PROOFS = [
    Proof(
        "AR-3",
        check_refusals_close_the_coroutine,
        [
            Twin(
                "leaves open what it refuses",
                LEAVES_REFUSED_OPEN,
                "AssertionError: was_closed(coro) for coro",
            )
        ],
    ),
    Proof(
        "AR-4",
        check_run_refuses_its_own_thread,
        [
            Twin(
                "does not know its own thread",
                IS_NOWHERE,
                "AssertionError: waited for without an end",
            ),
            Twin(
                "leaves open what it refuses to run",
                override("AsyncRunner.run", open_refusals),
                "AssertionError: it was left open",
            ),
        ],
    ),
    Proof(
        "AR-5",
        check_a_timeout_waits_for_the_clean_up,
        [
            Twin(
                "does not wait for the clean-up",
                override("AsyncRunner.run", hasty),
                "AssertionError: order ==",
            )
        ],
    ),
    Proof(
        "AR-5",
        check_what_comes_in_spite_of_the_cancellation,
        [
            Twin(
                "loses a result that comes late",
                override("AsyncRunner.run", hasty),
                "TimeoutError: cancelled after 0 s",
            )
        ],
    ),
    Proof(
        "AR-6",
        check_the_callers_context_is_seen,
        [
            Twin(
                "runs coroutines in an empty context",
                override(
                    "AsyncRunner.submit",
                    lambda original: lambda *arguments: Context().run(original, *arguments),
                ),
                "AssertionError: unset",
            )
        ],
    ),
]
