"""parallel_execute: what it promises, bad input, what the original got wrong, processes, leaks."""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import copy
import functools
import gc
import itertools
import math
import multiprocessing
import os
import pickle
import threading
import tracemalloc
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
from dataclasses import FrozenInstanceError
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from reference_impl.bridges import parallel_execute as module
from reference_impl.bridges.parallel_execute import Failure, Success, parallel_execute, partition
from tests.kit.process import run_python
from tests.kit.twins import twin

Check = Callable[[ModuleType], None]
request_id = contextvars.ContextVar("request_id", default="none")


class Clock:
    """Stands in for `time` in a module; its time passes only when told."""

    def __init__(self, m: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(m, "time", SimpleNamespace(monotonic=lambda: self.now))


class Gate(threading.Event):
    """Holds operations until it is opened; that nobody opens it in time fails the test."""

    patience = 60.0

    def pass_through(self) -> None:
        assert self.wait(self.patience), "the gate was not opened"


class Inline(Executor):
    """Runs each call within `submit`."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


def fail(key: object) -> None:
    raise LookupError(key)


def outcomes(results: list[Any]) -> list[Any]:
    """The values, and the errors' types."""
    return [r.value if r.is_success else type(r.error) for r in results]


def own_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("parallel_execute-")]


def join_own_threads() -> None:
    for thread in own_threads():
        thread.join(Gate.patience)
        assert not thread.is_alive(), f"{thread.name} does not end"


# Each check runs on the component (the guarantee), and on broken twins, where it must fail.


def check_results_come_in_the_order_of_the_keys(m: ModuleType) -> None:
    ended = [Gate() for _ in range(4)]
    ended[3].set()

    def after_the_next(key: int) -> int:
        ended[key + 1].pass_through()
        ended[key].set()
        return -key

    results = m.parallel_execute(range(3), after_the_next, 3)
    assert [(r.key, r.unwrap()) for r in results] == [(0, 0), (1, -1), (2, -2)]


def check_none_is_a_success(m: ModuleType) -> None:
    (result,) = m.parallel_execute([1], lambda key: None)
    assert result == m.Success(1, None)
    assert (result.is_success, result.is_failure, result.unwrap()) == (True, False, None)


def check_an_error_stays_with_its_key(m: ModuleType) -> None:
    raised = {key: ValueError(key) for key in (1, 3)}

    def operation(key: int) -> int:
        if key in raised:
            raise raised[key]
        return key

    results = m.parallel_execute(range(5), operation, 2)
    assert outcomes(results) == [0, ValueError, 2, ValueError, 4]
    assert all(results[key].error is error for key, error in raised.items())
    with pytest.raises(ValueError, match="3") as caught:
        results[3].unwrap()
    assert caught.value is raised[3]


def check_no_more_threads_than_workers(m: ModuleType) -> None:
    counts = []
    gate = Gate()

    def keys() -> Iterator[int]:
        for key in range(9):
            yield key
            counts.append(len(own_threads()))
        gate.set()

    m.parallel_execute(keys(), lambda key: gate.pass_through(), 3)
    assert counts == [1, 2, 3, 3, 3, 3, 3, 3, 3]
    assert not own_threads()


def check_keys_are_drawn_one_by_one_by_the_caller(m: ModuleType) -> None:
    ran = [Gate(), Gate()]
    callers = set()

    def keys() -> Iterator[int]:
        for key in (0, 1):
            callers.add(threading.get_ident())
            yield key
            ran[key].pass_through()

    results = m.parallel_execute(keys(), lambda key: ran[key].set())
    assert outcomes(results) == [None, None]
    assert callers == {threading.get_ident()}


def watch(
    m: ModuleType, monkeypatch: pytest.MonkeyPatch, *, workers: bool = False
) -> tuple[threading.Semaphore, list[float | None]]:
    """Tells when the caller sleeps (who then gets the lock finds it asleep), and how long.

    Or when the workers do.
    """
    caller, asleep = threading.get_ident(), threading.Semaphore(0)
    timeouts: list[float | None] = []

    class Watched(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            if (threading.get_ident() != caller) is workers:
                timeouts.append(timeout)
                asleep.release()
            return super().wait(timeout)

    replace_threading(m, monkeypatch, Condition=Watched)
    return asleep, timeouts


def replace_threading(m: ModuleType, monkeypatch: pytest.MonkeyPatch, **parts: Any) -> None:
    monkeypatch.setattr(m, "threading", SimpleNamespace(**{**vars(threading), **parts}))


def check_no_more_keys_in_flight_than_promised(m: ModuleType) -> None:
    gate, drawn, seen = Gate(), [], []

    def keys() -> Iterator[int]:
        for key in range(200):
            drawn.append(key)
            yield key

    with pytest.MonkeyPatch.context() as monkeypatch:
        asleep, _ = watch(m, monkeypatch)

        def look() -> None:
            asleep.acquire(timeout=Gate.patience)
            seen.append(len(drawn))
            gate.set()

        watcher = threading.Thread(target=look)
        watcher.start()
        m.parallel_execute(keys(), lambda key: gate.pass_through(), 2)
        watcher.join()
    assert seen == [4 * 2 + 32]


def check_more_keys_are_drawn_when_half_are_left(m: ModuleType) -> None:
    """Of 36 operations in flight the first waits for that, the 19th for one more key."""
    more = Gate()

    def keys() -> Iterator[int]:
        yield from range(36)
        more.set()
        yield 36

    with pytest.MonkeyPatch.context() as monkeypatch:
        asleep, _ = watch(m, monkeypatch)

        def operation(key: int) -> None:
            if key == 0:
                assert asleep.acquire(timeout=Gate.patience)
            elif key == 18:
                more.pass_through()

        results = m.parallel_execute(keys(), operation, 1)
    assert outcomes(results) == [None] * 37


def check_keys_wake_workers_before_they_start_new_ones(m: ModuleType) -> None:
    for slowly in (False, True):
        in_groups(m, (1, 1, 2, 2, 1, 3, 3, 2), slowly=slowly)


def in_groups(m: ModuleType, sizes: tuple[int, ...], *, slowly: bool) -> None:
    """Keys come in groups, each when all workers sleep; those of a group wait for each other.

    They come at once, or slowly: each when the one before it has begun.
    """
    names, begun = list[list[str]](), threading.Semaphore(0)
    groups = [threading.Barrier(size) for size in sizes]
    with pytest.MonkeyPatch.context() as monkeypatch:
        asleep, timeouts = watch(m, monkeypatch, workers=True)

        def keys() -> Iterator[threading.Barrier]:
            for group in groups:
                for _ in range(group.parties):
                    yield group
                    assert not slowly or begun.acquire(timeout=Gate.patience)
                for _ in range(group.parties):
                    assert asleep.acquire(timeout=Gate.patience)
                names.append(sorted(thread.name for thread in own_threads()))

        def operation(group: threading.Barrier) -> None:
            begun.release()
            group.wait(Gate.patience)

        results = m.parallel_execute(keys(), operation, max(sizes))
    assert outcomes(results) == [None] * sum(sizes)
    numbers = itertools.accumulate(sizes, max)
    assert names == [[f"parallel_execute-{n + 1}" for n in range(most)] for most in numbers]
    assert timeouts == [None] * sum(sizes), "workers wait for keys, not for time to pass"


def check_what_finished_in_time_is_kept(m: ModuleType) -> None:
    """There is one worker: as one operation is stuck there, the first has its result."""
    gate, stuck, returned = Gate(), Gate(), threading.Event()
    daemons, waited_for = [], []

    def operation(key: str) -> str:
        if key == "stuck":
            daemons.append(threading.current_thread().daemon)
            stuck.set()
            gate.wait(gate.patience)
            waited_for.append(not returned.is_set())
        return key

    with pytest.MonkeyPatch.context() as monkeypatch:
        clock = Clock(m, monkeypatch)

        def keys() -> Iterator[str]:
            yield from ("quick", "stuck")
            stuck.pass_through()
            clock.now = 10.0

        results = m.parallel_execute(keys(), operation, 1, timeout=10.0)
        returned.set()
    before = list(results)
    gate.set()
    join_own_threads()
    assert [r.key for r in before] == ["quick", "stuck"]
    assert outcomes(before) == ["quick", TimeoutError]
    assert str(before[1].error) == "not finished within 10.0 s"
    assert results == before, "a late result came into the list"
    assert waited_for == [False], "the call waited for a stuck thread"
    assert daemons == [True]


def check_after_the_deadline_keys_are_drawn_not_run(m: ModuleType) -> None:
    ran: list[int] = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        clock = Clock(m, monkeypatch)

        def keys() -> Iterator[int]:
            yield 0
            clock.now = 1.0
            yield from range(1, 100)

        results = m.parallel_execute(keys(), ran.append, 1, timeout=1.0, executor=Inline())
    assert [r.key for r in results] == list(range(100))
    assert outcomes(results) == [None, *[TimeoutError] * 99]
    assert str(results[99].error) == "not started within 1.0 s"
    assert results[99].error is not results[98].error
    assert ran == [0]


def check_a_deadline_of_zero_runs_nothing(m: ModuleType) -> None:
    ran: list[int] = []
    results = m.parallel_execute(range(3), ran.append, timeout=0)
    assert outcomes(results) == [TimeoutError] * 3
    assert ran == []


def check_a_failure_stops_what_has_not_started(m: ModuleType) -> None:
    """By then some keys are ready, and more are not yet drawn."""
    ready, ran = Gate(), []

    def keys() -> Iterator[int]:
        yield from range(10)
        ready.set()
        yield from range(10, 100)

    def operation(key: int) -> None:
        ran.append(key)
        if key == 1:
            ready.pass_through()
            fail(key)

    results = m.parallel_execute(keys(), operation, 1, fail_fast=True)
    assert [r.key for r in results] == list(range(100))
    assert outcomes(results) == [None, LookupError, *[CancelledError] * 98]
    assert {str(r.error) for r in results[2:]} == {"not started, since another key failed"}
    assert ran == [0, 1]


def check_what_runs_at_the_first_failure_keeps_its_result(m: ModuleType) -> None:
    with ThreadPoolExecutor(2) as pool:
        for executor in (None, pool):
            begun, failed = Gate(), Gate()

            def operation(key: str, begun: Gate = begun, failed: Gate = failed) -> str:
                if key == "bad":
                    begun.pass_through()
                    fail(key)
                begun.set()
                failed.pass_through()
                return "kept"

            def on_progress(completed: int, total: int, failed: Gate = failed) -> None:
                failed.set()

            results = m.parallel_execute(
                ["good", "bad"],
                operation,
                2,
                fail_fast=True,
                on_progress=on_progress,
                executor=executor,
            )
            assert outcomes(results) == ["kept", LookupError]


def check_a_failure_without_fail_fast_stops_nothing(m: ModuleType) -> None:
    assert outcomes(m.parallel_execute(range(3), fail, 1)) == [LookupError] * 3


def check_what_is_no_exception_ends_the_call(m: ModuleType) -> None:
    """It is raised as it is, draws no more keys, and waits for nobody."""
    gate, both, waited_for, drawn = Gate(), threading.Barrier(2), [], list[int]()
    error = SystemExit("enough")

    def operation(key: int) -> None:
        if key < 2:
            both.wait(Gate.patience)
        if key == 0:
            raise error
        if key == 1:
            waited_for.append(gate.wait(gate.patience))

    def keys(count: int) -> Iterator[int]:
        for key in range(count):
            drawn.append(key)
            yield key

    for count in (2, 100):
        gate.clear()
        with pytest.raises(SystemExit) as caught:
            m.parallel_execute(keys(count), operation, 2)
        gate.set()
        join_own_threads()
        assert caught.value is error
    assert waited_for == [True, True], "the call waited for an operation"
    assert len(drawn) <= 2 + 40


def check_an_exit_is_heard_of_at_the_next_key(m: ModuleType) -> None:
    drawn = []

    def keys() -> Iterator[int]:
        for key in range(9):
            drawn.append(key)
            yield key
            join_own_threads()  # it ends when it has told of the exit

    def leave(key: int) -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        m.parallel_execute(keys(), leave, 1)
    assert drawn == [0, 1]


def check_no_error_is_released_under_the_lock(m: ModuleType) -> None:
    """Two operations exit, then the source fails: that is raised, and the exits are dropped."""
    locks, free = list[Any](), dict[Any, bool]()

    class Leave(SystemExit):
        def __del__(self) -> None:
            with ThreadPoolExecutor(1) as another:
                free[self.code] = another.submit(locks[-1].acquire, timeout=0.01).result()
                if free[self.code]:
                    another.submit(locks[-1].release).result()

    class Exit:
        def __init__(self, name: str) -> None:
            self.name, self.begun, self.gate = name, Gate(), Gate()

    def a_lock() -> Any:
        locks.append(threading.RLock())
        return locks[-1]

    def leave(key: Exit) -> None:
        key.begun.set()
        key.gate.pass_through()
        raise Leave(key.name)

    def keys(*exits: Exit) -> Iterator[Exit]:
        for key in exits:
            yield key
            key.begun.pass_through()
        for key, thread in zip(exits, own_threads(), strict=True):
            key.gate.set()
            thread.join()  # it has told of its exit
        raise OSError("the list ends here")

    with pytest.MonkeyPatch.context() as monkeypatch:
        replace_threading(m, monkeypatch, RLock=a_lock)
        for names in (["one", "other"], ["only"]):
            with pytest.raises(OSError, match="ends here"):
                m.parallel_execute(keys(*map(Exit, names)), leave, 2)
    assert free == dict.fromkeys(("one", "other", "only"), True)


def check_a_failing_source_starts_nothing_more(m: ModuleType) -> None:
    """What runs goes on unseen by nobody: it is not waited for, and nothing follows it."""
    gate, started, ran = Gate(), Gate(), []

    def operation(key: int) -> None:
        ran.append(key)
        started.set()
        gate.pass_through()

    def keys() -> Iterator[int]:
        yield from (0, 1, 2)
        started.pass_through()
        raise OSError("the list ends here")

    with pytest.raises(OSError, match="the list ends here"):
        m.parallel_execute(keys(), operation, 1)
    gate.set()
    join_own_threads()
    assert ran == [0]


def check_a_failing_on_progress_ends_the_call(m: ModuleType) -> None:
    callers = []

    def on_progress(completed: int, total: int | None) -> None:
        callers.append(threading.get_ident())
        raise OSError("no terminal")

    with pytest.raises(OSError, match="no terminal"):
        m.parallel_execute(range(100), str, 1, on_progress=on_progress)
    join_own_threads()
    assert callers == [threading.get_ident()]


def check_progress_is_told_in_order(m: ModuleType) -> None:
    told: list[tuple[int, int | None]] = []
    m.parallel_execute(range(50), str, 3, on_progress=lambda *now: told.append(now))
    assert told == [(n, 50) for n in range(1, 51)]
    told.clear()
    m.parallel_execute(iter(range(3)), fail, 3, on_progress=lambda *now: told.append(now))
    assert told == [(1, None), (2, None), (3, None)]


def check_progress_does_not_wait_for_the_next_outcome(m: ModuleType) -> None:
    """The first operation ends while the caller sleeps; the second one when that was told."""
    told = Gate()
    with pytest.MonkeyPatch.context() as monkeypatch:
        asleep, _ = watch(m, monkeypatch)

        def operation(key: int) -> None:
            if key == 1:
                told.pass_through()
            else:
                assert asleep.acquire(timeout=Gate.patience)

        results = m.parallel_execute((0, 1), operation, on_progress=lambda *_: told.set())
    assert outcomes(results) == [None, None]


def check_the_caller_sleeps_when_it_has_attended_to_all(m: ModuleType) -> None:
    """The first outcome is there when it comes to wait; the second one when it sleeps."""
    for on_progress in (None, lambda *_: None):
        began = Gate()
        with pytest.MonkeyPatch.context() as monkeypatch:
            asleep, _ = watch(m, monkeypatch)

            def keys(began: Gate = began) -> Iterator[int]:
                yield from (0, 1)
                began.pass_through()

            def operation(
                key: int, began: Gate = began, asleep: threading.Semaphore = asleep
            ) -> None:
                if key == 1:
                    began.set()
                    assert asleep.acquire(timeout=Gate.patience), "the caller does not sleep"

            results = m.parallel_execute(keys(), operation, 1, on_progress=on_progress)
        assert outcomes(results) == [None, None]


def sees_the_callers_context(m: ModuleType, executor: Executor | None) -> None:
    def operation(key: int) -> str:
        seen = request_id.get()
        request_id.set(f"spoilt by {key}")
        return seen

    def call() -> list[Any]:
        request_id.set("r-7")
        results = m.parallel_execute(range(20), operation, 2, executor=executor)
        assert request_id.get() == "r-7"
        return outcomes(results)

    assert contextvars.Context().run(call) == ["r-7"] * 20


def check_threads_see_the_callers_context(m: ModuleType) -> None:
    sees_the_callers_context(m, None)


def check_a_thread_pool_sees_the_callers_context(m: ModuleType) -> None:
    with ThreadPoolExecutor(2) as pool:
        sees_the_callers_context(m, pool)


def check_an_executor_has_no_more_than_the_workers(m: ModuleType) -> None:
    lock, given, most = threading.Lock(), 0, 0

    class Counting(ThreadPoolExecutor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            nonlocal given, most
            with lock:
                given += 1
                most = max(most, given)
            return super().submit(fn, *args, **kwargs)

    def operation(key: int) -> None:
        nonlocal given
        with lock:
            given -= 1

    with Counting(8) as pool:
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

    with pytest.MonkeyPatch.context() as monkeypatch, ThreadPoolExecutor(1) as pool:
        clock = Clock(m, monkeypatch)

        def keys() -> Iterator[str]:
            yield from ("quick", "stuck", "waits")
            stuck.pass_through()
            clock.now = 5.0

        results = m.parallel_execute(keys(), operation, 4, timeout=5.0, executor=pool)
        before = list(results)
        gate.set()
    assert [r.key for r in before] == ["quick", "stuck", "waits"]
    assert outcomes(before) == [None, TimeoutError, TimeoutError]
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
    assert outcomes(results) == [TimeoutError] * 9
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
    with pytest.MonkeyPatch.context() as monkeypatch:
        asleep, _ = watch(m, monkeypatch)

        def let_the_first_fail() -> None:
            asleep.acquire(timeout=Gate.patience)
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


def check_few_workers_are_refused_and_many_warned_of(m: ModuleType) -> None:
    for number in (0, -1):
        with pytest.raises(ValueError, match=f"max_workers must be 1 or more, got {number}"):
            m.parallel_execute([], str, number)
    with pytest.warns(UserWarning, match="max_workers is 101") as caught:
        m.parallel_execute([1], str, 101)
    assert caught[0].filename == __file__
    m.parallel_execute([1], str, 100)


SUCCESS = "outcome = Success(key, self.context.copy().run(self.operation, key))"
PROOFS: list[tuple[str, Check, list[list[tuple[str, str]]]]] = [
    (
        "PE-1",
        check_results_come_in_the_order_of_the_keys,
        [[("self.results[index] = outcome", "self.results[self.completed - 1] = outcome")]],
    ),
    (
        "PE-1",
        check_none_is_a_success,
        [
            [
                (
                    SUCCESS,
                    "value = self.operation(key)\n"
                    "                    if value is None:\n"
                    "                        raise LookupError\n"
                    "                    outcome = Success(key, value)",
                )
            ]
        ],
    ),
    (
        "PE-2",
        check_an_error_stays_with_its_key,
        [
            [
                (
                    "outcome = Failure(key, error)\n                except",
                    "outcome = Failure(key, ValueError())\n                except",
                )
            ],
            [("if outcome.is_failure and self.options.fail_fast", "if outcome.is_failure")],
        ],
    ),
    (
        "PE-3",
        check_no_more_threads_than_workers,
        [[("count < self.options.max_workers", "count < 2 * self.options.max_workers")]],
    ),
    (
        "PE-3",
        check_keys_are_drawn_one_by_one_by_the_caller,
        [
            [("drawn = iter(keys)", "drawn = iter(list(keys))")],
            [
                (
                    "drawn = iter(keys)",
                    "with ThreadPoolExecutor(1) as pool:\n"
                    "            drawn = iter(list(pool.submit(list, keys).result()))",
                )
            ],
        ],
    ),
    (
        "PE-3",
        check_no_more_keys_in_flight_than_promised,
        [
            [("full = len(self.unfinished) >= self.limit", "full = False")],
            [("4 * options.max_workers + 32", "4 * options.max_workers + 33")],
        ],
    ),
    (
        "PE-3",
        check_more_keys_are_drawn_when_half_are_left,
        [[("resume=limit // 2", "resume=limit // 2 - 1")]],
    ),
    (
        "PE-3",
        check_keys_wake_workers_before_they_start_new_ones,
        [
            [("            self.waking = False\n", "")],
            [("self.work.notify()", "pass")],
            [("len(self.ready) > self.sleeping + self.waking", "self.ready")],
            [("len(self.ready) > self.sleeping + self.waking", "not self.threads")],
        ],
    ),
    (
        "PE-4",
        check_what_finished_in_time_is_kept,
        [
            [("() if self.stuck else self.threads", "self.threads")],
            [("daemon=True", "daemon=False")],
            [("for index, key in self.unfinished.items()", "for index, key in enumerate('ab')")],
            [
                (
                    "        if index not in self.unfinished:\n"
                    "            return\n"
                    "        del self.unfinished[index]\n",
                    "        self.unfinished.pop(index, None)\n",
                ),
                ("results, self.results = self.results, []", "results = self.results"),
            ],
        ],
    ),
    (
        "PE-4",
        check_after_the_deadline_keys_are_drawn_not_run,
        [
            [("if self.refusal is None and self.seconds_left() == 0:", "if False:")],
            [("self.refusal = partial(error, why)", "self.refusal = partial(Exception, why)")],
        ],
    ),
    (
        "PE-4",
        check_a_deadline_of_zero_runs_nothing,
        [[("if options.timeout is not None", "if options.timeout")]],
    ),
    (
        "PE-5",
        check_a_failure_stops_what_has_not_started,
        [
            [("if outcome.is_failure and self.options.fail_fast", "if False")],
            [
                ("for index in self.ready:", "for index in ():"),
                ("        self.ready.clear()\n\n    def give", "\n    def give"),
            ],
        ],
    ),
    (
        "PE-5",
        check_what_runs_at_the_first_failure_keeps_its_result,
        [
            [("for index in self.ready:", "for index in list(self.unfinished):")],
            [("if not begun and self.refusal is not None", "if self.refusal is not None")],
        ],
    ),
    (
        "PE-5",
        check_a_failure_without_fail_fast_stops_nothing,
        [[("if outcome.is_failure and self.options.fail_fast", "if outcome.is_failure")]],
    ),
    (
        "PE-5",
        check_fail_fast_cancels_what_an_executor_has_not_begun,
        [
            [("return _NOT_BEGUN if refused else", "return")],
            [("outcome = Failure(key, self.refusal())", "pass")],
        ],
    ),
    (
        "PE-6",
        check_what_is_no_exception_ends_the_call,
        [
            [
                (
                    "                    outcome = error\n",
                    "                    outcome = Failure(key, error)\n",
                )
            ],
            [("self.stuck = self.stuck or bool(unfinished)", "pass")],
            [("raise self.fatal", "raise type(self.fatal)")],
        ],
    ),
    (
        "PE-6",
        check_no_error_is_released_under_the_lock,
        [
            [("outcome if self.fatal is None else self.fatal", "outcome")],
            [("fatal, self.fatal = self.fatal, None", "fatal = self.fatal = None")],
        ],
    ),
    (
        "PE-6",
        check_an_exit_is_heard_of_at_the_next_key,
        [[("        if urgent:\n", "        if False:\n")]],
    ),
    (
        "PE-6",
        check_a_failing_source_starts_nothing_more,
        [
            [
                ("for index in self.ready:", "for index in ():"),
                ("        self.ready.clear()\n\n    def give", "\n    def give"),
                ("results, self.results = self.results, []", "results = self.results"),
                ("unfinished, self.unfinished = self.unfinished, {}", "unfinished = {}"),
                ("self.stuck = self.stuck or bool(unfinished)", "self.stuck = True"),
            ],
        ],
    ),
    (
        "PE-6",
        check_a_failing_on_progress_ends_the_call,
        [
            [
                (
                    "self.options.on_progress(self.reported, self.options.total)",
                    "with __import__('contextlib').suppress(OSError):\n"
                    "                    self.options.on_progress(self.reported, None)",
                )
            ],
        ],
    ),
    (
        "PE-6",
        check_progress_is_told_in_order,
        [[("self.reported += 1", "self.reported = completed")]],
    ),
    (
        "PE-6",
        check_progress_does_not_wait_for_the_next_outcome,
        [[("self.options.on_progress is not None and self.completed > self.reported", "False")]],
    ),
    (
        "PE-6",
        check_the_caller_sleeps_when_it_has_attended_to_all,
        [
            [("self.completed > self.reported)", "self.completed >= self.reported)")],
            [
                (
                    "(self.options.on_progress is not None and self.completed > self.reported)",
                    "self.completed > self.reported",
                )
            ],
        ],
    ),
    (
        "PE-7",
        check_threads_see_the_callers_context,
        [
            [(SUCCESS, "outcome = Success(key, self.operation(key))")],
            [
                (SUCCESS, "outcome = Success(key, self.context.run(self.operation, key))"),
                ("4 * options.max_workers + 32", "1"),
            ],
        ],
    ),
    (
        "PE-7",
        check_a_thread_pool_sees_the_callers_context,
        [[("self.context.copy().run(self.operation, key)", "self.operation(key)")]],
    ),
    (
        "PE-8",
        check_an_executor_has_no_more_than_the_workers,
        [[("limit = options.max_workers\n", "limit = options.max_workers + 1\n")]],
    ),
    (
        "PE-8",
        check_an_executor_that_breaks_fails_its_keys,
        [
            [("except Exception as error:  # the pool", "except OSError as error:  # the pool")],
            [
                (
                    "self.settle_locked(index, Failure(key, error))",
                    "self.settle_locked(index, error)",
                )
            ],
        ],
    ),
    (
        "PE-8",
        check_the_deadline_holds_with_an_executor,
        [
            [
                ("        self.doomed += self.futures.values()\n", ""),
                ("return _NOT_BEGUN if refused else", "return"),
            ]
        ],
    ),
    (
        "PE-8",
        check_the_deadline_cancels_what_an_executor_has_not_begun,
        [[("        self.doomed += self.futures.values()\n", "")], [("future.cancel()", "pass")]],
    ),
    (
        "PE-6",
        check_a_failing_source_cancels_what_an_executor_has_not_begun,
        [
            [
                (
                    "    def leave(self) -> None:\n        self.cancel()",
                    "    def leave(self) -> None:\n        pass",
                )
            ]
        ],
    ),
    (
        "PE-5",
        check_fail_fast_wakes_the_caller_to_cancel,
        [
            [("bool(self.ready or self.doomed) or", "bool(self.ready) or")],
            [("        self.cancel()\n        super().attend()", "        super().attend()")],
        ],
    ),
    (
        "PE-5",
        check_a_failure_during_submit_cancels_what_was_submitted,
        [
            [("self.doomed.append(future)", "pass")],
            [("self.completed += begun", "self.completed += 1")],
        ],
    ),
    (
        "PE-9",
        check_few_workers_are_refused_and_many_warned_of,
        [
            [("if max_workers < 1", "if max_workers < 0")],
            [("if max_workers > 100", "if max_workers > 101")],
            [("stacklevel=3", "stacklevel=2")],
        ],
    ),
]


def _named(check: Check) -> str:
    return check.__name__.removeprefix("check_")


@pytest.mark.parametrize(
    "check",
    [pytest.param(c, id=_named(c), marks=pytest.mark.guarantee(pe)) for pe, c, _ in PROOFS],
)
def test_promise(check: Check) -> None:
    check(module)


@pytest.mark.parametrize(
    ("check", "faults"),
    [
        pytest.param(c, faults, id=f"{_named(c)}-{n}", marks=pytest.mark.twin(pe))
        for pe, c, twins in PROOFS
        for n, faults in enumerate(twins)
    ],
)
def test_check_catches_a_broken_twin(
    check: Check, faults: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = twin("bridges/parallel_execute.py", *faults)
    monkeypatch.setattr(Gate, "patience", 0.2)  # here the gate may stay shut
    with pytest.raises((AssertionError, BrokenExecutor, pytest.fail.Exception)):
        check(broken)


# The interface.


def test_all_workers_work_at_once() -> None:
    """Each operation waits for the others: a worker that sleeps on would hang them all."""
    together = threading.Barrier(5)
    for _ in range(50):
        results = parallel_execute(range(10), lambda key: together.wait(Gate.patience) >= 0, 5)
        assert outcomes(results) == [True] * 10


def test_ten_operations_at_once_by_default() -> None:
    gate, counts = Gate(), []

    def keys() -> Iterator[int]:
        yield from range(12)
        counts.append(len(own_threads()))
        gate.set()

    parallel_execute(keys(), lambda key: gate.pass_through())
    assert counts == [10]


@pytest.mark.guarantee("PE-9")
def test_a_hundred_workers_are_the_most_without_a_warning() -> None:
    parallel_execute([1], str, 100)  # a warning would be an error
    words = "max_workers is 101: .* at once mostly wait for each other; try fewer, or asyncio"
    with pytest.warns(UserWarning, match=f"^{words}$"):
        parallel_execute([1], str, 101)


def test_partition_gives_values_and_failures_in_order() -> None:
    results = parallel_execute(["1", "x", "2", "y"], int)
    values, failures = partition(iter(results))
    assert values == [1, 2]
    assert [failure.key for failure in failures] == ["x", "y"]
    assert all(isinstance(failure.error, ValueError) for failure in failures)
    assert partition([]) == ([], [])


def test_results_are_immutable_comparable_and_matched() -> None:
    success, failure = parallel_execute(["1", "x"], int)
    assert success == Success("1", 1)
    with pytest.raises(AttributeError):
        success.value = 2  # type: ignore[misc]
    match failure:
        case Failure(key, ValueError() as error):
            assert (key, failure.is_failure, failure.is_success) == ("x", True, False)
            assert error is failure.error
        case _:
            raise AssertionError("no match")


@pytest.mark.parametrize("result", [Success("1", 1), Failure("x", ValueError())])
def test_a_result_refuses_new_attributes_too(result: Any) -> None:
    for name in ("value", "error", "another"):
        with pytest.raises(FrozenInstanceError, match=f"^cannot set or delete '{name}': results"):
            setattr(result, name, 2)
        with pytest.raises(FrozenInstanceError, match=f"^cannot set or delete '{name}': results"):
            delattr(result, name)


def test_results_can_be_made_with_their_types_named() -> None:
    """Up to Python 3.12 that was a TypeError."""
    assert Success[int, str](1, "a") == Success(1, "a")
    error = ValueError()
    assert Failure[int](1, error) == Failure(1, error)
    assert pickle.loads(pickle.dumps(Success(1, "a"))) == Success(1, "a")
    assert copy.copy(Failure(1, error)) == Failure(1, error)


def test_keys_may_be_equal_or_without_hash() -> None:
    keys: list[Any] = [[1], [1], {}]
    results = parallel_execute(keys, len)
    assert all(result.key is key for result, key in zip(results, keys, strict=True))
    assert outcomes(results) == [1, 1, 0]


def test_stop_iteration_in_an_operation_is_a_failure_like_any_other() -> None:
    nothing: list[int] = []
    results = parallel_execute(range(3), lambda key: next(iter(nothing)))
    assert outcomes(results) == [StopIteration] * 3


def test_a_call_inside_an_operation_has_threads_of_its_own() -> None:
    def nested(key: int) -> list[Any]:
        return outcomes(parallel_execute(range(key), nested, 2)) if key else []

    assert outcomes(parallel_execute([4, 4], nested, 1))[0][3][2] == [[], [[]]]


def test_an_endless_timeout_is_none() -> None:
    for endless in (math.inf, 1e300, 10**18, 10**400, None):
        assert outcomes(parallel_execute([1], str, timeout=endless)) == ["1"]


def test_without_a_deadline_nobody_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    asleep, timeouts = watch(module, monkeypatch)
    go = Gate()

    def release() -> None:
        asleep.acquire(timeout=Gate.patience)
        go.set()

    releaser = threading.Thread(target=release)
    releaser.start()
    parallel_execute([1], lambda key: go.pass_through())
    releaser.join()
    assert set(timeouts) == {None}


# Bad arguments: refused before a key is drawn.


async def coroutine_function(key: object) -> None:
    """Not to be called."""


class AsyncCallable:
    async def __call__(self, key: object) -> None:
        """Not to be called."""


COROUTINE_FUNCTION = (
    r"operation .* is a coroutine function: let a function call run_sync, or use asyncio\.gather"
)


class OldSequence:
    """Iterable without `__iter__`."""

    def __getitem__(self, index: int) -> int:
        return [5, 6][index]


@pytest.mark.guarantee("PE-9")
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_workers": True}, TypeError, r"max_workers must be an int, got True: pass .* from 1"),
        ({"max_workers": 2.0}, TypeError, r"max_workers must be an int, got 2\.0: pass .* from 1"),
        ({"max_workers": "2"}, TypeError, "max_workers must be an int, got '2': pass .* from 1"),
        ({"max_workers": None}, TypeError, "max_workers must be an int, got None: pass .* from 1"),
        ({"max_workers": 0}, ValueError, "max_workers must be 1 or more, got 0"),
        ({"timeout": -0.1}, ValueError, r"timeout must be None or at least 0 seconds, got -0\.1"),
        ({"timeout": math.nan}, ValueError, "timeout must be None or at least 0 seconds, got nan"),
        ({"timeout": "1"}, TypeError, "timeout must be None or a number of seconds, got '1'"),
        ({"timeout": False}, TypeError, "timeout must be None or a number of seconds, got False"),
        ({"operation": None}, TypeError, "operation must be callable, got None: pass a function"),
        ({"operation": coroutine_function}, TypeError, COROUTINE_FUNCTION),
        ({"operation": AsyncCallable()}, TypeError, COROUTINE_FUNCTION),
        ({"operation": functools.partial(coroutine_function)}, TypeError, COROUTINE_FUNCTION),
        ({"on_progress": 7}, TypeError, "on_progress must be callable, got 7: pass a function"),
        (
            {"on_progress": coroutine_function},
            TypeError,
            "on_progress <function .*> is a coroutine function: pass a plain function",
        ),
        (
            {"executor": 4},
            TypeError,
            r"executor must be None or a concurrent\.futures\.Executor, got 4: "
            "pass an instance, or leave it out for threads",
        ),
        ({"executor": ThreadPoolExecutor}, TypeError, "executor must .* got <class .*instance.*"),
    ],
)
def test_a_bad_argument_is_named_and_nothing_is_drawn(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    keys = iter([1])
    with pytest.raises(error, match=f"^{message}$"):
        parallel_execute(**{"keys": keys, "operation": str, **arguments})
    assert list(keys) == [1]


def test_keys_that_cannot_be_iterated_are_named() -> None:
    with pytest.raises(
        TypeError, match=r"^keys must be iterable, got 5: pass a list or a generator$"
    ):
        parallel_execute(5, str)  # type: ignore[arg-type]
    old: Any = OldSequence()
    assert outcomes(parallel_execute(old, str)) == ["5", "6"]


def test_a_system_without_threads_is_an_error_that_leaves_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, gate, ran = threading.Thread.start, Gate(), []

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "parallel_execute-3":
            raise RuntimeError("can't start new thread")
        start(thread)

    def operation(key: int) -> None:
        ran.append(key)
        gate.pass_through()

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="start new thread"):
        parallel_execute(range(9), operation, 5)
    gate.set()
    join_own_threads()
    assert set(ran) <= {0, 1}


# Any executor.


def processes() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))


@pytest.mark.guarantee("PE-8", "PE-1", "PE-2")
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
def test_a_pool_of_interpreters_is_given_the_operation_itself(
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
    assert given == [math.sqrt]


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
        pool.shutdown(wait=False, cancel_futures=True)
        gate.set()

    def operation(key: int) -> None:
        begun.set()
        gate.pass_through()

    begun, told = Gate(), list[int]()
    with ThreadPoolExecutor(1) as pool:
        results = parallel_execute(
            keys(), operation, 4, on_progress=lambda now, _: told.append(now), executor=pool
        )
    assert [r.key for r in results] == [0, 1, 2]
    assert outcomes(results) == [None, CancelledError, CancelledError]
    assert str(results[1].error) == "cancelled by its executor"  # type: ignore[union-attr]
    assert told == [1], "what was cancelled has not ended"


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


# What is left behind.


class Oops(Exception):
    """Can be referred to weakly."""


def test_a_call_that_returns_has_joined_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    joined = Gate()

    class Lingering(threading.Thread):
        """Ends only when it is joined."""

        def run(self) -> None:
            super().run()
            joined.pass_through()

        def join(self, timeout: float | None = None) -> None:
            joined.set()
            super().join(timeout)

    replace_threading(module, monkeypatch, Thread=Lingering)
    assert outcomes(parallel_execute(range(2), str, 2)) == ["0", "1"]
    assert own_threads() == []


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("error", [Oops, type("Stop", (BaseException,), {})])
def test_results_are_freed_without_the_collector(pooled: bool, error: type[BaseException]) -> None:
    """An error keeps the frames that it came through; none of them keeps the results."""

    class Value:
        """Can be referred to weakly."""

    refs: list[weakref.ref[Any]] = []

    def remembered(made: Any) -> Any:
        refs.append(weakref.ref(made))
        return made

    def operation(key: int) -> Any:
        if key == 1:
            raise remembered(error())  # in a local variable it would be a cycle of its own
        return remembered(Value())

    gc.collect()
    gc.disable()
    pool = ThreadPoolExecutor(1) if pooled else None
    try:
        try:
            results = parallel_execute(range(3), operation, 1, executor=pool)
        except error:
            pass
        else:
            assert [ref() is not None for ref in refs] == [True] * 3
            del results
        join_own_threads()
        if pool is not None:
            pool.shutdown()
        assert [ref() for ref in refs if ref() is not None] == []
    finally:
        gc.enable()


def test_a_stuck_thread_keeps_neither_results_nor_keys() -> None:
    class Key:
        """Can be referred to weakly."""

    gate, begun, stuck = Gate(), Gate(), object()

    def operation(key: object) -> None:
        if key is stuck:
            begun.set()
            gate.pass_through()

    def keys() -> Iterator[object]:
        yield stuck
        begun.pass_through()
        for _ in range(10):
            key = Key()
            refs.append(weakref.ref(key))
            yield key
            del key

    refs: list[weakref.ref[Key]] = []
    results = parallel_execute(keys(), operation, 1, timeout=0.05)
    assert outcomes(results) == [TimeoutError] * 11
    assert own_threads()
    del results
    assert [ref() for ref in refs] == [None] * 10
    gate.set()
    join_own_threads()


def test_a_call_takes_less_than_500_bytes_a_key_beyond_its_results() -> None:
    count = 20_000
    parallel_execute(range(100), str)
    gc.collect()
    tracemalloc.start()
    try:
        results = parallel_execute(iter(range(count)), lambda key: None)
        held, peak = tracemalloc.get_traced_memory()
        assert len(results) == count
    finally:
        tracemalloc.stop()
    assert (peak - held) / count < 500


# Processes: each in an interpreter of its own.


@pytest.mark.skipif("sys.platform == 'win32'", reason="signals are sent to a thread")
@pytest.mark.guarantee("PE-6")
def test_ctrl_c_ends_the_call_and_then_the_process() -> None:
    done = run_python("""
        import itertools, signal, threading
        from reference_impl.bridges.parallel_execute import parallel_execute

        all_begun, over, ran = threading.Barrier(5), threading.Event(), []

        def stuck(key):
            ran.append(key)
            all_begun.wait()
            threading.Event().wait()

        def once(*_):
            signal.signal(signal.SIGINT, lambda *_: None)
            raise KeyboardInterrupt

        def interrupt():
            all_begun.wait()
            while not over.wait(0.01):  # one may come just before a wait, and not be seen
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        signal.signal(signal.SIGINT, once)
        helper = threading.Thread(target=interrupt)
        helper.start()
        drawn = itertools.count()
        try:
            parallel_execute(drawn, stuck, 4)
        except KeyboardInterrupt:
            over.set()
        else:
            raise SystemExit("not interrupted")
        helper.join()
        assert sorted(ran) == [0, 1, 2, 3]
        assert next(drawn) == 4 * 4 + 32
    """)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.skipif("sys.platform == 'win32'", reason="signals are sent to a thread")
@pytest.mark.guarantee("PE-6")
def test_ctrl_c_while_the_caller_takes_its_lock_back_is_raised_when_it_has_it() -> None:
    done = run_python("""
        import signal, threading
        from types import SimpleNamespace
        from reference_impl.bridges import parallel_execute as module

        conditions = []
        asleep, gate, never = threading.Event(), threading.Event(), threading.Event()

        class Watched(threading.Condition):
            def __init__(self, lock):
                super().__init__(lock)
                conditions.append(self)

            def wait(self, timeout=None):
                asleep.set()
                return super().wait(timeout)

        def interrupt():
            asleep.wait()
            with conditions[0]:  # free only once the caller sleeps
                conditions[0].notify()
                for _ in range(50):  # some strike when it has woken up, and waits for the lock
                    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                    never.wait(0.001)
                assert not raised

        module.threading = SimpleNamespace(**{**vars(threading), "Condition": Watched})
        raised = False
        helper = threading.Thread(target=interrupt)
        helper.start()
        try:
            module.parallel_execute([1], lambda key: gate.wait())
        except KeyboardInterrupt:
            raised = True
        helper.join()
        gate.set()
        assert raised
    """)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.guarantee("PE-4")
def test_a_stuck_thread_does_not_hold_up_the_exit() -> None:
    done = run_python("""
        import threading
        from reference_impl.bridges.parallel_execute import parallel_execute
        results = parallel_execute([1, 2], lambda key: threading.Event().wait(), timeout=0.05)
        assert [type(result.error) for result in results] == [TimeoutError] * 2
    """)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.skipif("sys.platform == 'win32'", reason="there is no fork on Windows")
def test_a_forked_child_may_call() -> None:
    run_python("""
        import os
        from reference_impl.bridges.parallel_execute import parallel_execute
        def works():
            results = parallel_execute(range(99), str)
            return [result.unwrap() for result in results] == list(map(str, range(99)))
        assert works()
        child = os.fork()
        if child == 0:
            os._exit(0 if works() else 1)
        assert os.waitpid(child, 0)[1] == 0
    """)


@pytest.mark.skipif("sys.platform == 'win32'", reason="signals are sent to a thread")
def test_signal_handlers_and_finalizers_may_call() -> None:
    run_python("""
        import signal, threading
        from reference_impl.bridges.parallel_execute import parallel_execute
        seen = []

        def call(*_):
            seen.extend(result.value for result in parallel_execute(range(20), str, 2))

        class Dropped:
            __del__ = call

        def operation(key):
            if key == 3:
                signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

        signal.signal(signal.SIGUSR1, call)
        assert len(parallel_execute(range(100), operation, 2)) == 100
        Dropped()
        assert len(seen) == 40
    """)


@pytest.mark.stress
@pytest.mark.guarantee("PE-1", "PE-3")
def test_many_calls_at_once_under_real_threads() -> None:
    def call(number: int) -> list[Any]:
        return outcomes(parallel_execute(iter(range(number)), str, 1 + number % 7))

    for _ in range(20):
        for number, values in enumerate(outcomes(parallel_execute(range(200), call, 8))):
            assert values == [str(key) for key in range(number)]
