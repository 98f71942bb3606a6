"""parallel_execute: deadlines, first failures, exits, progress."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import (
    CancelledError,
    ThreadPoolExecutor,
)
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import parallel_execute as module
from tests.bridges.parallel_execute import faults
from tests.bridges.parallel_execute.helpers import (
    LATE,
    Asleep,
    Gate,
    Inline,
    clocked,
    fail,
    failing,
    join_own_threads,
    outcomes,
    own_threads,
    watch,
)
from tests.kit.primitives import watched
from tests.kit.proofs import Proof, holding
from tests.kit.twins import Twin

# Each check runs on the component (the guarantee), and on broken twins, where it must fail.


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

    with clocked(m) as clock:

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
    assert outcomes(before) == ["quick", LATE]
    assert str(before[1].error) == "not finished within 10.0 s"
    assert results == before, "a late result came into the list"
    assert waited_for == [False], "the call waited for a stuck thread"
    assert daemons == [True]


def check_after_the_deadline_keys_are_drawn_not_run(m: ModuleType) -> None:
    ran: list[int] = []
    with clocked(m) as clock:

        def keys() -> Iterator[int]:
            yield 0
            clock.now = 1.0
            yield from range(1, 100)

        results = m.parallel_execute(keys(), ran.append, 1, timeout=1.0, executor=Inline())
    assert [r.key for r in results] == list(range(100))
    assert outcomes(results) == [None, *[LATE] * 99]
    assert str(results[99].error) == "not started within 1.0 s"
    assert results[99].error is not results[98].error
    assert ran == [0]


def check_a_deadline_of_zero_runs_nothing(m: ModuleType) -> None:
    ran: list[int] = []
    results = m.parallel_execute(range(3), ran.append, timeout=0)
    assert outcomes(results) == [LATE] * 3
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
    drawn, begun = [], Gate()

    def keys() -> Iterator[int]:
        for key in range(9):
            drawn.append(key)
            yield key
            begun.pass_through()
            join_own_threads()  # it ends when it has told of the exit

    def leave(key: int) -> None:
        begun.set()
        raise SystemExit

    with pytest.raises(SystemExit):
        m.parallel_execute(keys(), leave, 1)
    assert drawn == [0, 1]


def check_no_error_is_released_under_the_lock(m: ModuleType) -> None:
    """Two operations exit, then the source fails: that is raised, and the exits are dropped."""
    held = dict[Any, int]()  # locks, while nobody but who releases an error runs

    class Leave(SystemExit):
        def __del__(self) -> None:
            held[self.code] = waits.held

    class Exit:
        def __init__(self, name: str) -> None:
            self.name, self.begun, self.gate = name, Gate(), Gate()

    def leave(key: Exit) -> None:
        key.begun.set()
        key.gate.pass_through()
        raise Leave(key.name)

    def keys(*exits: Exit) -> Iterator[Exit]:
        for key in exits:
            yield key
            key.begun.pass_through()
        while waits.held:  # by who started the threads, which may take a while to hear of that
            time.sleep(0.0001)
        for key, thread in zip(exits, own_threads(), strict=True):
            key.gate.set()
            thread.join()  # it has told of its exit
        raise OSError("the list ends here")

    with watched(m) as waits:
        for names in (["one", "other"], ["only"]):
            with pytest.raises(OSError, match="ends here"):
                m.parallel_execute(keys(*map(Exit, names)), leave, 2)
            join_own_threads()
    assert held == dict.fromkeys(("one", "other", "only"), 0)


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
    with watch(m) as asleep:

        def operation(key: int) -> None:
            if key == 1:
                told.pass_through()
            else:
                asleep.await_one()

        results = m.parallel_execute((0, 1), operation, on_progress=lambda *_: told.set())
    assert outcomes(results) == [None, None]


def check_the_caller_sleeps_when_it_has_attended_to_all(m: ModuleType) -> None:
    """The first outcome is there when it comes to wait; the second one when it sleeps."""
    for on_progress in (None, lambda *_: None):
        began = Gate()
        with watch(m) as asleep:

            def keys(began: Gate = began) -> Iterator[int]:
                yield from (0, 1)
                began.pass_through()

            def operation(key: int, began: Gate = began, asleep: Asleep = asleep) -> None:
                if key == 1:
                    began.set()
                    asleep.await_one()

            results = m.parallel_execute(keys(), operation, 1, on_progress=on_progress)
        assert outcomes(results) == [None, None]


PROOFS = [
    Proof(
        "PE-4",
        check_what_finished_in_time_is_kept,
        [
            Twin(
                "waits for stuck threads",
                faults.waits_for_all_operations,
                "AssertionError: the call waited for a stuck thread",
            ),
            Twin(
                "keeps the process alive",
                faults.keeps_the_process_alive,
                "AssertionError: daemons == [True]",
            ),
            Twin(
                "lets late results in",
                faults.lets_late_results_in,
                "AssertionError: a late result came into the list",
            ),
        ],
    ),
    Proof(
        "PE-4",
        check_after_the_deadline_keys_are_drawn_not_run,
        [
            Twin(
                "ignores the deadline",
                faults.ignores_deadlines,
                "AssertionError: == [None, *[LATE] * 99]",
            )
        ],
    ),
    Proof(
        "PE-4",
        check_a_deadline_of_zero_runs_nothing,
        [
            Twin(
                "takes 0 for no deadline",
                faults.takes_zero_for_no_deadline,
                "AssertionError: == [LATE] * 3",
            )
        ],
    ),
    Proof(
        "PE-5",
        check_a_failure_stops_what_has_not_started,
        [
            Twin(
                "ignores fail_fast",
                faults.ignores_fail_fast,
                "AssertionError: == [None, LookupError, *[CancelledError] * 98]",
            )
        ],
    ),
    Proof(
        "PE-5",
        check_what_runs_at_the_first_failure_keeps_its_result,
        [
            Twin(
                "cancels what runs",
                faults.cancels_what_runs,
                'AssertionError: == ["kept", LookupError]',
            )
        ],
    ),
    Proof(
        "PE-5",
        check_a_failure_without_fail_fast_stops_nothing,
        [
            Twin(
                "always fails fast",
                faults.always_fails_fast,
                "AssertionError: == [LookupError] * 3",
            )
        ],
    ),
    Proof(
        "PE-6",
        check_what_is_no_exception_ends_the_call,
        [
            Twin(
                "keeps an exit to itself",
                faults.keeps_exits_to_itself,
                "Failed: DID NOT RAISE SystemExit",
            ),
            Twin(
                "raises a copy of an exit",
                faults.copies_exits,
                "AssertionError: caught.value is error",
            ),
        ],
    ),
    Proof("PE-6", check_an_exit_is_heard_of_at_the_next_key),
    Proof("PE-6", check_no_error_is_released_under_the_lock),
    Proof(
        "PE-6",
        check_a_failing_source_starts_nothing_more,
        [
            Twin(
                "takes a failing source for its end",
                faults.takes_a_failing_source_for_its_end,
                "Failed: DID NOT RAISE OSError",
            ),
        ],
    ),
    Proof(
        "PE-6",
        check_a_failing_on_progress_ends_the_call,
        [
            Twin(
                "hides what on_progress raises",
                faults.hides_failures_of_on_progress,
                "Failed: DID NOT RAISE OSError",
            )
        ],
    ),
    Proof(
        "PE-6",
        check_progress_is_told_in_order,
        [
            Twin(
                "tells no total",
                faults.tells_no_total,
                "AssertionError: told == [(n, 50) for n in range(1, 51)]",
            )
        ],
    ),
    Proof(
        "PE-6",
        check_progress_does_not_wait_for_the_next_outcome,
        [
            Twin(
                "tells of progress at the end",
                faults.tells_of_progress_at_the_end,
                "AssertionError: == [None, None]",
            )
        ],
    ),
    Proof("PE-6", check_the_caller_sleeps_when_it_has_attended_to_all),
]

test_an_ending = holding(PROOFS, module)
test_check_catches_a_twin_that_ends_otherwise = failing(PROOFS)
