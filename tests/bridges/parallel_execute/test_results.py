"""parallel_execute: results, workers, keys in flight, contexts."""

import contextvars
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import (
    Executor,
    ThreadPoolExecutor,
)
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import parallel_execute as module
from tests.bridges.parallel_execute import faults
from tests.bridges.parallel_execute.helpers import (
    Gate,
    failing,
    outcomes,
    own_threads,
    started_at_once,
    watch,
)
from tests.kit.proofs import Proof, holding
from tests.kit.twins import Twin

request_id = contextvars.ContextVar("request_id", default="none")


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

    with started_at_once(m):
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


def check_no_more_keys_in_flight_than_promised(m: ModuleType) -> None:
    gate, drawn, seen = Gate(), [], []

    def keys() -> Iterator[int]:
        for key in range(200):
            drawn.append(key)
            yield key

    with watch(m) as asleep:

        def look() -> None:
            asleep.await_one()
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

    with watch(m) as asleep:

        def operation(key: int) -> None:
            if key == 0:
                asleep.await_one()
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
    with watch(m, workers=True) as asleep:

        def keys() -> Iterator[threading.Barrier]:
            for group in groups:
                for _ in range(group.parties):
                    yield group
                    assert not slowly or begun.acquire(timeout=Gate.patience)
                for _ in range(group.parties):
                    asleep.await_one()
                names.append(sorted(thread.name for thread in own_threads()))

        def operation(group: threading.Barrier) -> None:
            begun.release()
            group.wait(Gate.patience)

        results = m.parallel_execute(keys(), operation, max(sizes))
    assert outcomes(results) == [None] * sum(sizes)
    numbers = itertools.accumulate(sizes, max)
    assert names == [[f"parallel_execute-{n + 1}" for n in range(most)] for most in numbers]
    assert asleep.timeouts == [None] * sum(sizes), "workers wait for keys, not for time to pass"


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


def check_few_workers_are_refused_and_many_warned_of(m: ModuleType) -> None:
    for number in (0, -1):
        with pytest.raises(ValueError, match=f"max_workers must be at least 1, not {number}"):
            m.parallel_execute([], str, number)
    with pytest.warns(UserWarning, match="max_workers is 101") as caught:
        m.parallel_execute([1], str, 101)
    assert caught[0].filename == __file__
    m.parallel_execute([1], str, 100)


PROOFS = [
    Proof(
        "PE-1",
        check_results_come_in_the_order_of_the_keys,
        [
            Twin(
                "gives results as they end",
                faults.gives_results_as_they_end,
                "AssertionError: == [(0, 0), (1, -1), (2, -2)]",
            ),
        ],
    ),
    Proof(
        "PE-1",
        check_none_is_a_success,
        [
            Twin(
                "takes None for a failure",
                faults.takes_none_for_a_failure,
                "AssertionError: result == m.Success(1, None)",
            )
        ],
    ),
    Proof(
        "PE-2",
        check_an_error_stays_with_its_key,
        [
            Twin(
                "keeps a copy of an error",
                faults.copies_errors,
                "AssertionError: results[key].error is error",
            ),
            Twin(
                "stops at the first failure",
                faults.always_fails_fast,
                "AssertionError: == [0, ValueError, 2, ValueError, 4]",
            ),
        ],
    ),
    Proof(
        "PE-3",
        check_no_more_threads_than_workers,
        [
            Twin(
                "has twice the workers",
                faults.has_twice_the_workers,
                "AssertionError: counts == [1, 2, 3, 3, 3, 3, 3, 3, 3]",
            )
        ],
    ),
    Proof(
        "PE-3",
        check_keys_are_drawn_one_by_one_by_the_caller,
        [
            Twin(
                "draws keys in another thread",
                faults.draws_in_another_thread,
                "AssertionError: callers == {threading.get_ident()}",
            )
        ],
    ),
    Proof(
        "PE-3",
        check_no_more_keys_in_flight_than_promised,
        [
            Twin(
                "draws all keys at once",
                faults.draws_all_at_once,
                "AssertionError: seen == [4 * 2 + 32]",
            )
        ],
    ),
    Proof(
        "PE-3",
        check_more_keys_are_drawn_when_half_are_left,
        [Twin("works in batches", faults.works_in_batches, "AssertionError: == [None] * 37")],
    ),
    Proof("PE-3", check_keys_wake_workers_before_they_start_new_ones),
    Proof(
        "PE-7",
        check_threads_see_the_callers_context,
        [
            Twin(
                "forgets the context", faults.forgets_the_context, 'AssertionError: == ["r-7"] * 20'
            ),
            Twin(
                "has one context for all",
                faults.shares_one_context,
                'AssertionError: == ["r-7"] * 20',
            ),
        ],
    ),
    Proof(
        "PE-7",
        check_a_thread_pool_sees_the_callers_context,
        [
            Twin(
                "forgets the context", faults.forgets_the_context, 'AssertionError: == ["r-7"] * 20'
            )
        ],
    ),
    Proof(
        "PE-9",
        check_few_workers_are_refused_and_many_warned_of,
        [
            Twin(
                "takes any number",
                faults.takes_any_number_of_workers,
                "Failed: DID NOT RAISE ValueError",
            ),
            Twin("warns nobody", faults.warns_nobody, "Failed: DID NOT WARN"),
            Twin(
                "blames another",
                faults.blames_another,
                "AssertionError: caught[0].filename == __file__",
            ),
        ],
    ),
]

test_promise = holding(PROOFS, module)
test_check_catches_a_broken_twin = failing(PROOFS)
