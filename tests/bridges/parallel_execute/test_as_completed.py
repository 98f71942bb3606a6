"""parallel_as_completed: the order, what is in flight, all the ways to leave it."""

import contextvars
import gc
import itertools
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, ThreadPoolExecutor
from contextlib import closing, nullcontext
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import parallel_execute as module
from reference_impl.bridges.parallel_execute import Success, parallel_as_completed
from tests.bridges.parallel_execute import faults
from tests.bridges.parallel_execute.helpers import (
    LATE,
    Gate,
    Inline,
    clocked,
    fail,
    failing,
    join_own_threads,
    outcomes,
    own_threads,
)
from tests.bridges.parallel_execute.test_executors import Idle, processes
from tests.kit.proofs import Proof, holding
from tests.kit.twins import Twin

request_id = contextvars.ContextVar("request_id", default="none")


def came(stream: Any) -> list[Any]:
    """The outcomes in the order of the keys, which must have come with their places."""
    given = sorted(stream, key=lambda each: each[0])
    assert [index for index, _ in given] == list(range(len(given)))
    return outcomes(result for _, result in given)


# Each check runs on the component (the guarantee), and on broken twins, where it must fail.


def check_results_come_as_operations_end(m: ModuleType) -> None:
    """Each of the others waits until the one after it has been given."""
    given = [Gate() for _ in range(3)]

    def after_the_next(key: int) -> int:
        if key < 2:
            given[key + 1].pass_through()
        return -key

    order = []
    for index, result in m.parallel_as_completed(range(3), after_the_next, 3):
        order.append((index, result.key, result.unwrap()))
        given[index].set()
    assert order == [(2, 2, -2), (1, 1, -1), (0, 0, 0)]


def check_no_more_wait_than_promised(m: ModuleType) -> None:
    """The consumer takes a result when all operations have ended whose keys were drawn."""
    ended, drawn = threading.Semaphore(0), list[int]()

    def keys() -> Iterator[int]:
        for key in range(100):
            drawn.append(key)
            yield key

    waited = 0
    for taken, _ in enumerate(m.parallel_as_completed(keys(), lambda key: ended.release(), 2)):
        assert len(drawn) - taken <= 4 * 2 + 32
        while waited < len(drawn):
            assert ended.acquire(timeout=Gate.patience)
            waited += 1
    assert waited == 100


def check_an_executor_is_given_no_more_than_promised(m: ModuleType) -> None:
    drawn = list[int]()

    def keys() -> Iterator[int]:
        for key in range(20):
            drawn.append(key)
            yield key

    for taken, _ in enumerate(m.parallel_as_completed(keys(), str, 3, executor=Inline())):
        assert len(drawn) - taken <= 3


def check_closing_starts_nothing_more(m: ModuleType) -> None:
    """One is stuck, one was given; of the others, which were drawn, none begins."""
    gate, begun, ran = Gate(), Gate(), []

    def operation(key: int) -> int:
        ran.append(key)
        if key == 1:
            begun.set()
            gate.pass_through()
        return key

    drawn = itertools.count()
    results = m.parallel_as_completed(drawn, operation, 1)
    assert next(results) == (0, m.Success(0, 0))
    begun.pass_through()
    before = next(drawn)
    results.close()
    assert next(drawn) == before + 1, "a key was drawn"
    gate.set()
    join_own_threads()
    assert ran == [0, 1]
    assert list(results) == []


def check_arguments_are_checked_at_the_call(m: ModuleType) -> None:
    with pytest.raises(ValueError, match="max_workers must be at least 1, not 0"):
        m.parallel_as_completed([1], str, 0)
    with pytest.raises(TypeError, match="keys must be iterable, not 5"):
        m.parallel_as_completed(5, str)


def check_a_failure_is_a_result_of_its_key(m: ModuleType) -> None:
    stream = m.parallel_as_completed(["1", "x", None, "4"], int, 2)
    assert came(stream) == [1, ValueError, TypeError, 4]


def check_a_stream_ends_at_its_deadline(m: ModuleType) -> None:
    """One is stuck there; the keys after it are drawn as results are asked for, and not run."""
    gate, stuck, ran, drawn = Gate(), Gate(), [], []

    def operation(key: int) -> None:
        ran.append(key)
        if key == 1:
            stuck.set()
            gate.pass_through()

    with clocked(m) as clock:

        def keys() -> Iterator[int]:
            yield from (0, 1)
            stuck.pass_through()
            clock.now = 5.0
            for key in range(2, 100):
                drawn.append(key)
                yield key

        stream = m.parallel_as_completed(keys(), operation, 1, timeout=5.0)
        first = [next(stream) for _ in range(3)]
        ahead = len(drawn)
        found = came([*first, *stream])
    gate.set()
    join_own_threads()
    assert found == [None, *[LATE] * 99]
    assert ahead <= 3
    assert ran == [0, 1]


def check_a_stream_fails_fast(m: ModuleType) -> None:
    ran: list[int] = []

    def operation(key: int) -> None:
        ran.append(key)
        fail(key)

    found = came(m.parallel_as_completed(range(100), operation, 1, fail_fast=True))
    assert found == [LookupError, *[CancelledError] * 99]
    assert ran == [0]


IN_ORDER = Twin(
    "gives all results at the end, in order",
    faults.gives_all_at_the_end,
    "AssertionError: the gate was not opened",
)
PROOFS = [
    Proof("PE-11", check_results_come_as_operations_end, [IN_ORDER]),
    Proof(
        "PE-11",
        check_no_more_wait_than_promised,
        [
            Twin(
                "draws all keys at once",
                faults.draws_all_for_a_stream,
                "AssertionError: len(drawn) - taken <= 4 * 2 + 32",
            )
        ],
    ),
    Proof(
        "PE-11",
        check_an_executor_is_given_no_more_than_promised,
        [
            Twin(
                "draws all keys at once",
                faults.draws_all_for_a_stream,
                "AssertionError: len(drawn) - taken <= 3",
            )
        ],
    ),
    Proof(
        "PE-11",
        check_closing_starts_nothing_more,
        [
            Twin(
                "goes on when it is closed",
                faults.goes_on_when_it_is_closed,
                "AssertionError: a key was drawn",
            )
        ],
    ),
    Proof(
        "PE-11",
        check_arguments_are_checked_at_the_call,
        [
            Twin(
                "checks its arguments at the first result",
                faults.checks_at_the_first_result,
                "Failed: DID NOT RAISE ValueError",
            )
        ],
    ),
    Proof(
        "PE-11",
        check_a_failure_is_a_result_of_its_key,
        [
            Twin(
                "drops failures",
                faults.drops_failures,
                "AssertionError: for index, _ in given] == list(range(len(given)))",
            )
        ],
    ),
    Proof(
        "PE-11",
        check_a_stream_ends_at_its_deadline,
        [
            Twin(
                "ignores the deadline",
                faults.ignores_the_streams_deadline,
                "AssertionError: found == [None, *[LATE] * 99]",
            )
        ],
    ),
    Proof(
        "PE-11",
        check_a_stream_fails_fast,
        [
            Twin(
                "ignores fail_fast",
                faults.ignores_the_streams_fail_fast,
                "AssertionError: found == [LookupError, *[CancelledError] * 99]",
            )
        ],
    ),
]

test_a_stream = holding(PROOFS, module)
test_check_catches_a_broken_stream = failing(PROOFS)


# The ways to leave it.


def leave_by_break(stream: Any) -> None:
    for _ in stream:
        break


def leave_by_an_exception(stream: Any) -> None:
    with pytest.raises(OSError, match="disk full"):
        for _ in stream:
            raise OSError("disk full")


def leave_by_closing(stream: Any) -> None:
    with closing(stream):
        next(stream)


@pytest.mark.guarantee("PE-11")
@pytest.mark.parametrize("make", [lambda: None, lambda: ThreadPoolExecutor(2), Inline])
@pytest.mark.parametrize("leave", [leave_by_break, leave_by_an_exception, leave_by_closing])
def test_whoever_leaves_early_leaves_nothing_behind(
    leave: Callable[[Any], None], make: Callable[[], Executor | None]
) -> None:
    """No reference is left, either: the results are freed without the collector."""
    gc.disable()
    try:
        ended = threading.Semaphore(0)
        drawn = itertools.count()
        with make() or nullcontext() as executor:
            leave(parallel_as_completed(drawn, lambda key: ended.release(), 2, executor=executor))
            join_own_threads()
        after = next(drawn)
        assert after <= 4 * 2 + 33
        assert sum(ended.acquire(blocking=False) for _ in range(100)) <= after
    finally:
        gc.enable()


@pytest.mark.guarantee("PE-11")
def test_closing_does_not_wait_for_what_is_stuck() -> None:
    gate, begun = Gate(), Gate()

    def operation(key: int) -> None:
        if key:
            begun.set()
            gate.pass_through()

    with closing(parallel_as_completed(range(9), operation, 1)) as results:
        next(results)
        begun.pass_through()
    assert len(own_threads()) == 1
    gate.set()
    join_own_threads()


@pytest.mark.guarantee("PE-11")
def test_closing_cancels_what_an_executor_has_not_begun() -> None:
    def end_the_first(futures: list[Any]) -> None:
        if len(futures) == 1:
            futures[0].set_result("a")

    idle = Idle(end_the_first)
    results = parallel_as_completed("abc", str, 3, executor=idle)
    assert next(results) == (0, Success("a", "a"))
    results.close()
    assert [future.cancelled() for future in idle.futures[1:]] == [True] * (len(idle.futures) - 1)


@pytest.mark.guarantee("PE-11")
def test_a_stream_that_nobody_asks_draws_no_key_and_starts_no_thread() -> None:
    keys = iter([1])
    results = parallel_as_completed(keys, str)
    assert not own_threads()
    results.close()
    assert list(keys) == [1]


@pytest.mark.guarantee("PE-11")
def test_it_has_joined_its_threads_when_it_ends() -> None:
    assert came(parallel_as_completed(range(200), str, 5)) == [str(key) for key in range(200)]
    assert not own_threads()


@pytest.mark.guarantee("PE-11")
def test_what_ends_the_call_is_raised_by_the_iterator_which_ends() -> None:
    def keys() -> Iterator[int]:
        yield 0
        raise OSError("the list ends here")

    def leave(key: int) -> None:
        raise SystemExit(key)

    def tell(completed: int, total: int | None) -> None:
        raise OSError("no terminal")

    for kind, stream in (
        (OSError, parallel_as_completed(keys(), str)),
        (SystemExit, parallel_as_completed([1, 2], leave)),
        (OSError, parallel_as_completed([1, 2], str, on_progress=tell)),
    ):
        with pytest.raises(kind):
            list(stream)
        assert list(stream) == []
        join_own_threads()


@pytest.mark.guarantee("PE-11")
@pytest.mark.parametrize("make", [lambda: None, lambda: ThreadPoolExecutor(2), Inline])
def test_progress_is_told_before_its_result_is_given(make: Callable[[], Executor | None]) -> None:
    told = list[tuple[int, int | None]]()
    with make() or nullcontext() as executor:
        stream = parallel_as_completed(
            range(50), str, 3, on_progress=lambda *now: told.append(now), executor=executor
        )
        for taken, _ in enumerate(stream, start=1):
            assert len(told) >= taken
    assert told == [(n, 50) for n in range(1, 51)]


@pytest.mark.guarantee("PE-11")
@pytest.mark.parametrize("make", [lambda: None, lambda: ThreadPoolExecutor(2)])
def test_operations_see_the_context_of_the_call(make: Callable[[], Executor | None]) -> None:
    with make() or nullcontext() as executor:

        def call() -> Any:
            request_id.set("r-7")
            return parallel_as_completed(
                range(5), lambda key: request_id.get(), 2, executor=executor
            )

        assert came(contextvars.Context().run(call)) == ["r-7"] * 5


@pytest.mark.guarantee("PE-11")
@pytest.mark.parametrize("make", [processes, Inline])
def test_every_executor_gives_each_result_once(make: Callable[[], Executor]) -> None:
    with make() as executor:
        assert came(parallel_as_completed(["1", "x", "3"], int, 2, executor=executor)) == [
            1,
            ValueError,
            3,
        ]


def test_threads_may_take_turns() -> None:
    """One at a time: another one asks, closes, or drops it."""
    results = parallel_as_completed(range(10), str, 2)
    taken = list[Any]()
    for _ in range(3):
        thread = threading.Thread(target=lambda: taken.append(next(results)))
        thread.start()
        thread.join()
    assert came([*taken, *results]) == [str(key) for key in range(10)]


def test_two_streams_at_once_and_one_within_the_other() -> None:
    pairs = []
    for index, outer in parallel_as_completed(range(3), str, 2):
        pairs += [(index, inner) for inner, _ in parallel_as_completed(range(3), str, 2)]
        assert outer.is_success
    assert sorted(pairs) == [(one, other) for one in range(3) for other in range(3)]


def test_a_stream_keeps_nothing_of_what_it_has_given() -> None:
    stream = parallel_as_completed(iter(range(20_000)), str, 4)
    for _ in range(1000):
        next(stream)
    gc.collect()
    tracemalloc.start()
    try:
        for _ in stream:
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100_000
