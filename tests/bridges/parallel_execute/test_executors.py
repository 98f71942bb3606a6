"""parallel_execute with any executor."""

import asyncio
import concurrent.futures
import contextlib
import itertools
import math
import multiprocessing
import os
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import parallel_execute as module
from reference_impl.bridges.parallel_execute import parallel_execute
from tests.bridges.parallel_execute import faults
from tests.bridges.parallel_execute.helpers import (
    LATE,
    Gate,
    Inline,
    clocked,
    fail,
    failing,
    outcomes,
    started_at_once,
    watch,
)
from tests.kit.proofs import Proof, holding
from tests.kit.twins import Twin

# Each check runs on the component (the guarantee), and on broken twins, where it must fail.


def check_an_executor_has_no_more_than_the_workers(m: ModuleType) -> None:
    """The first operation waits until the caller sleeps, and the others for the first one."""
    lock, given, most, gate = threading.Lock(), 0, 0, Gate()

    class Counting(ThreadPoolExecutor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            nonlocal given, most
            with lock:
                given += 1
                most = max(most, given)
            return super().submit(fn, *args, **kwargs)

    def operation(key: int) -> None:
        nonlocal given
        if key == 0:
            asleep.await_one()
            gate.set()
        gate.pass_through()
        with lock:
            given -= 1

    with watch(m) as asleep, Counting(8) as pool:
        results = m.parallel_execute(range(200), operation, 3, executor=pool)
    assert outcomes(results) == [None] * 200
    assert most == 3


def check_an_executor_that_breaks_fails_its_keys(m: ModuleType) -> None:
    class Breaking(Inline):
        """The third call breaks it: a future fails; what comes later is refused."""

        calls = 0

        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            self.calls += 1
            if self.calls < 3:
                return super().submit(fn, *args, **kwargs)
            if self.calls > 3:
                raise BrokenExecutor("broken")
            future: Future[Any] = Future()
            future.set_exception(BrokenExecutor("breaking"))
            return future

    results = m.parallel_execute(range(5), str, executor=Breaking())
    assert [r.key for r in results] == list(range(5))
    assert outcomes(results) == ["0", "1", *[BrokenExecutor] * 3]


def check_fail_fast_cancels_what_an_executor_has_not_begun(m: ModuleType) -> None:
    """One thread, three keys given to it: two wait there, and must not begin."""
    ran, waiting, told = [], Gate(), []

    def operation(key: int) -> None:
        ran.append(key)
        waiting.pass_through()
        fail(key)

    def on_progress(completed: int, total: int | None) -> None:
        told.append(completed)

    def keys() -> Iterator[int]:
        yield from range(3)
        waiting.set()
        yield from range(3, 6)

    with ThreadPoolExecutor(1) as pool:
        results = m.parallel_execute(
            keys(), operation, 4, fail_fast=True, on_progress=on_progress, executor=pool
        )
    assert [r.key for r in results] == list(range(6))
    assert outcomes(results) == [LookupError, *[CancelledError] * 5]
    assert {str(r.error) for r in results[1:]} == {"not started, since another key failed"}
    assert (ran, told) == ([0], [1])


def check_the_deadline_holds_with_an_executor(m: ModuleType) -> None:
    """It has one thread: as one operation is stuck there, the first has its result."""
    gate, stuck, ran = Gate(), Gate(), []

    def operation(key: str) -> None:
        ran.append(key)
        if key == "stuck":
            stuck.set()
            gate.pass_through()

    with clocked(m) as clock, ThreadPoolExecutor(1) as pool:

        def keys() -> Iterator[str]:
            yield from ("quick", "stuck", "waits")
            stuck.pass_through()
            clock.now = 5.0

        results = m.parallel_execute(keys(), operation, 4, timeout=5.0, executor=pool)
        before = list(results)
        gate.set()
    assert [r.key for r in before] == ["quick", "stuck", "waits"]
    assert outcomes(before) == [None, LATE, LATE]
    assert results == before
    assert ran == ["quick", "stuck"]


class Idle(Executor):
    """Takes calls and never runs them; `now` tells what to do with them instead."""

    def __init__(self, now: Callable[[list[Future[Any]]], object] = len) -> None:
        self.futures: list[Future[Any]] = []
        self.now = now

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.futures.append(Future())
        self.now(self.futures)
        return self.futures[-1]


def check_the_deadline_cancels_what_an_executor_has_not_begun(m: ModuleType) -> None:
    idle = Idle()
    results = m.parallel_execute(range(9), str, 3, timeout=0.01, executor=idle)
    assert outcomes(results) == [LATE] * 9
    assert [future.cancelled() for future in idle.futures] == [True] * 3


def check_a_failing_source_cancels_what_an_executor_has_not_begun(m: ModuleType) -> None:
    def keys() -> Iterator[int]:
        yield from range(3)
        raise OSError("the list ends here")

    idle = Idle()
    with pytest.raises(OSError, match="ends here"):
        m.parallel_execute(keys(), str, 4, executor=idle)
    assert [future.cancelled() for future in idle.futures] == [True] * 3


def check_fail_fast_wakes_the_caller_to_cancel(m: ModuleType) -> None:
    """The first future fails while the caller sleeps; the second one would never end."""
    idle = Idle()
    with watch(m) as asleep:

        def let_the_first_fail() -> None:
            asleep.await_one()
            idle.futures[0].set_exception(LookupError())
            if not waited.wait(Gate.patience):
                idle.futures[1].set_result("not cancelled")

        waited = threading.Event()
        failing = threading.Thread(target=let_the_first_fail)
        failing.start()
        results = m.parallel_execute("ab", str, 3, fail_fast=True, executor=idle)
        waited.set()
        failing.join()
    assert outcomes(results) == [LookupError, CancelledError]


def check_a_failure_during_submit_cancels_what_was_submitted(m: ModuleType) -> None:
    def fail_the_first(futures: list[Future[Any]]) -> None:
        if len(futures) == 2:
            futures[0].set_exception(LookupError())

    idle, told = Idle(fail_the_first), []
    results = m.parallel_execute(
        "ab",
        str,
        2,
        timeout=Gate.patience,
        fail_fast=True,
        on_progress=lambda *now: told.append(now),
        executor=idle,
    )
    assert outcomes(results) == [LookupError, CancelledError]
    assert results[1].key == "b"
    assert str(results[1].error) == "not started, since another key failed"
    assert told == [(1, 2)], "what was cancelled has not ended"


GOES_ON = Twin(
    "ignores fail_fast",
    faults.ignores_fail_fast,
    "AssertionError: == [LookupError, CancelledError]",
)
PROOFS = [
    Proof(
        "PE-8",
        check_an_executor_has_no_more_than_the_workers,
        [Twin("has one worker more", faults.has_one_worker_more, "AssertionError: most == 3")],
    ),
    Proof(
        "PE-8",
        check_an_executor_that_breaks_fails_its_keys,
        [Twin("raises what broke the pool", faults.raises_what_broke_the_pool, "BrokenExecutor")],
    ),
    Proof(
        "PE-8",
        check_the_deadline_holds_with_an_executor,
        [
            Twin(
                "ignores the deadline",
                faults.ignores_deadlines,
                "AssertionError: == [None, LATE, LATE]",
            )
        ],
    ),
    Proof(
        "PE-8",
        check_the_deadline_cancels_what_an_executor_has_not_begun,
        [
            Twin(
                "cancels nothing",
                faults.cancels_nothing,
                "AssertionError: for future in idle.futures] == [True] * 3",
            )
        ],
    ),
    Proof("PE-5", check_fail_fast_cancels_what_an_executor_has_not_begun),
    Proof("PE-5", check_fail_fast_wakes_the_caller_to_cancel),
    Proof("PE-5", check_a_failure_during_submit_cancels_what_was_submitted, [GOES_ON]),
    Proof("PE-6", check_a_failing_source_cancels_what_an_executor_has_not_begun),
]

test_with_an_executor = holding(PROOFS, module)
test_check_catches_a_twin_with_an_executor = failing(PROOFS)


# Any executor.


def processes() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))


@pytest.mark.guarantee("PE-8")
@pytest.mark.parametrize("make", [processes, Inline, lambda: None])
def test_every_executor_gives_the_same_results(make: Callable[[], Executor | None]) -> None:
    keys = [4.0, -1.0, 9.0, -4.0, 0.0]
    told: list[tuple[int, int | None]] = []
    with make() or contextlib.nullcontext() as executor:
        results = parallel_execute(
            iter(keys), math.sqrt, 2, executor=executor, on_progress=lambda *now: told.append(now)
        )
    assert [result.key for result in results] == keys
    assert outcomes(results) == [2.0, ValueError, 3.0, ValueError, 0.0]
    assert told == [(n, None) for n in range(1, 6)]


@pytest.mark.guarantee("PE-8")
def test_a_pool_of_interpreters_is_given_what_can_be_pickled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is a ThreadPoolExecutor (Python 3.14), but takes only what can be pickled."""
    given = []

    class InterpreterPoolExecutor(ThreadPoolExecutor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            given.append(fn)
            return super().submit(fn, *args, **kwargs)

    name = "InterpreterPoolExecutor"
    monkeypatch.setattr(concurrent.futures, name, InterpreterPoolExecutor, raising=False)
    with InterpreterPoolExecutor(1) as pool:
        assert outcomes(parallel_execute([1.0], math.sqrt, executor=pool)) == [1.0]
    assert [pickle.loads(pickle.dumps(function))(4.0) for function in given] == [2.0]


@pytest.mark.guarantee("PE-8")
def test_what_cannot_be_pickled_fails_its_key_only() -> None:
    keys: list[Any] = [[1], [lambda: None], [2]]
    with processes() as pool:
        results = parallel_execute(keys, len, executor=pool)
    assert results[0].unwrap() == results[2].unwrap() == 1
    assert results[1].is_failure


@pytest.mark.guarantee("PE-8")
def test_a_process_pool_that_breaks_is_a_failure_for_each_key() -> None:
    with processes() as pool:
        results = parallel_execute(range(20), os._exit, 2, executor=pool)
    assert all(isinstance(result.error, BrokenExecutor) for result in results)  # type: ignore[union-attr]
    assert [result.key for result in results] == list(range(20))


@pytest.mark.guarantee("PE-8")
def test_an_executor_that_was_shut_down_refuses_each_key() -> None:
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    results = parallel_execute(range(3), str, executor=pool)
    assert outcomes(results) == [RuntimeError] * 3
    assert "shutdown" in str(results[0].error)  # type: ignore[union-attr]


@pytest.mark.guarantee("PE-8")
def test_what_others_cancel_is_a_failure() -> None:
    """Someone shuts the pool down, and cancels what waits there."""
    gate = Gate()

    def keys() -> Iterator[int]:
        yield from range(3)
        begun.pass_through()
        for _ in range(3):
            assert given.acquire(timeout=Gate.patience)
        pool.shutdown(wait=False, cancel_futures=True)
        gate.set()

    def operation(key: int) -> None:
        begun.set()
        gate.pass_through()

    class Telling(ThreadPoolExecutor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            future = super().submit(fn, *args, **kwargs)
            given.release()
            return future

    begun, given, told = Gate(), threading.Semaphore(0), list[int]()
    with Telling(1) as pool:
        results = parallel_execute(
            keys(), operation, 4, on_progress=lambda now, _: told.append(now), executor=pool
        )
    assert [r.key for r in results] == [0, 1, 2]
    assert outcomes(results) == [None, CancelledError, CancelledError]
    assert str(results[1].error) == "cancelled by its executor"  # type: ignore[union-attr]
    assert told == [1], "what was cancelled has not ended"


@pytest.mark.guarantee("PE-6")
@pytest.mark.parametrize("kind", [ThreadPoolExecutor, Inline])
def test_what_submit_raises_that_is_no_exception_ends_the_call(kind: type[Any]) -> None:
    class Leaving(kind):  # type: ignore[misc]
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            raise SystemExit("no more")

    drawn = itertools.count()
    with Leaving() as pool, pytest.raises(SystemExit, match="no more"):
        parallel_execute(drawn, str, 2, executor=pool)
    assert next(drawn) <= 4


@pytest.mark.guarantee("PE-8")
def test_a_pool_that_is_handed_its_keys_by_one_thread_gives_all_results() -> None:
    with started_at_once(module), ThreadPoolExecutor(3) as pool:
        results = parallel_execute(range(100), str, 5, executor=pool)
    assert outcomes(results) == [str(key) for key in range(100)]


@pytest.mark.guarantee("PE-6")
def test_an_exit_in_an_executor_ends_the_call() -> None:
    def leave(key: int) -> None:
        raise SystemExit(key)

    drawn = itertools.count()
    with ThreadPoolExecutor(2) as pool, pytest.raises(SystemExit):
        parallel_execute(drawn, leave, 2, executor=pool)
    assert next(drawn) <= 4


@pytest.mark.parametrize("make", [contextlib.nullcontext, lambda: ThreadPoolExecutor(2)])
def test_a_slow_operation_holds_up_no_other(make: Callable[[], Any]) -> None:
    last = Gate()

    def operation(key: int) -> None:
        if key == 0:
            last.pass_through()
        elif key == 199:
            last.set()

    with make() as executor:
        results = parallel_execute(range(200), operation, 2, executor=executor)
    assert outcomes(results) == [None] * 200


def test_an_executors_futures_are_not_kept() -> None:
    alive: list[weakref.ref[Future[Any]]] = []

    class Weak(ThreadPoolExecutor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            future = super().submit(fn, *args, **kwargs)
            alive.append(weakref.ref(future))
            alive[:] = [ref for ref in alive if ref() is not None]
            most.append(len(alive))
            return future

    most: list[int] = []
    with Weak(2) as pool:
        parallel_execute(range(500), str, 4, executor=pool)
    assert max(most) < 20  # four not done, and a few that their threads still hold


def test_on_an_event_loop_it_goes_to_a_thread() -> None:
    async def main() -> list[Any]:
        return outcomes(await asyncio.to_thread(parallel_execute, range(3), str))

    assert asyncio.run(main()) == ["0", "1", "2"]
