"""parallel_execute against a plain loop, for whatever keys, operations and settings there are."""

from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from reference_impl.bridges import parallel_execute
from tests.bridges.parallel_execute import faults
from tests.bridges.parallel_execute.helpers import Inline, clocked
from tests.bridges.parallel_execute.helpers import outcomes as outcomes_of
from tests.kit.profile import budget
from tests.kit.twins import Twin, build, must_fail


@dataclass(frozen=True)
class Key:
    """What its operation gives: a value, or an error; and how long it takes to draw."""

    gives: int | str | None
    takes: int


KEYS = st.lists(st.builds(Key, st.sampled_from([1, None, "error"]), st.integers(0, 2)), max_size=60)


def outcome(key: Key) -> Any:
    return LookupError if key.gives == "error" else key.gives


def plain_loop(keys: list[Key], deadline: float, fail_fast: bool) -> list[Any]:
    """What each key gives where operations take no time and run one after the other."""
    now, outcomes = 0, list[Any]()
    refusal: type[Exception] | None = None
    for key in keys:
        now += key.takes
        if refusal is None and now >= deadline:
            refusal = TimeoutError
        outcomes.append(outcome(key) if refusal is None else refusal)
        if refusal is None and fail_fast and key.gives == "error":
            refusal = CancelledError
    return outcomes


def run(
    m: ModuleType, keys: list[Key], executor: Executor | None, **options: Any
) -> tuple[list[Any], list[Key], list[tuple[int, int | None]]]:
    """The outcomes, which operations ran, and the progress; time passes as keys are drawn."""
    ran, told = list[Key](), list[tuple[int, int | None]]()

    def drawn() -> Iterator[Key]:
        for key in keys:
            clock.tick(key.takes)
            yield key

    def operation(key: Key) -> Any:
        ran.append(key)
        if key.gives == "error":
            raise LookupError
        return key.gives

    with clocked(m) as clock:
        results = m.parallel_execute(
            drawn(), operation, executor=executor, on_progress=lambda *t: told.append(t), **options
        )
    assert [result.key for result in results] == keys
    return outcomes_of(results), ran, told


def check_determined(m: ModuleType) -> Callable[[], None]:
    @given(
        keys=KEYS, workers=st.integers(1, 4), deadline=st.integers(0, 40), fail_fast=st.booleans()
    )
    def check(keys: list[Key], workers: int, deadline: int, fail_fast: bool) -> None:
        outcomes, ran, told = run(
            m, keys, Inline(), max_workers=workers, timeout=deadline, fail_fast=fail_fast
        )
        assert outcomes == plain_loop(keys, deadline, fail_fast)
        assert ran == keys[: len(ran)]
        assert told == [(n, None) for n in range(1, len(ran) + 1)]

    return check


def check_in_threads(m: ModuleType) -> Callable[[], None]:
    @given(keys=KEYS, workers=st.integers(1, 4), fail_fast=st.booleans(), pooled=st.booleans())
    def check(keys: list[Key], workers: int, fail_fast: bool, pooled: bool) -> None:
        pool = ThreadPoolExecutor(2) if pooled else None
        try:
            outcomes, ran, told = run(m, keys, pool, max_workers=workers, fail_fast=fail_fast)
        finally:
            if pool is not None:
                pool.shutdown()
        cancelled = outcomes.count(CancelledError)
        assert len(ran) == len(told) == len(keys) - cancelled
        for key, came in zip(keys, outcomes, strict=True):
            assert came in (outcome(key), CancelledError)
        if not fail_fast or LookupError not in outcomes:
            assert cancelled == 0
        elif workers == 1:
            assert outcomes == plain_loop(keys, float("inf"), fail_fast)

    return check


@pytest.mark.guarantee("PE-1")
def test_like_a_plain_loop() -> None:
    check_determined(parallel_execute)()


@pytest.mark.guarantee("PE-2")
def test_threads_give_what_a_plain_loop_gives() -> None:
    settings(max_examples=budget(50, 100))(check_in_threads(parallel_execute))()


LIKE_A_LOOP = "AssertionError: assert outcomes == plain_loop(keys, deadline, fail_fast)"
TOLD = "AssertionError: assert told == [(n, None) for n in range(1, len(ran) + 1)]"
TWINS = [
    ("PE-1", check_determined, Twin("gives 0 for each value", faults.gives_zero, LIKE_A_LOOP)),
    ("PE-1", check_determined, Twin("ignores deadlines", faults.ignores_deadlines, LIKE_A_LOOP)),
    ("PE-1", check_determined, Twin("ignores fail_fast", faults.ignores_fail_fast, LIKE_A_LOOP)),
    ("PE-1", check_determined, Twin("tells of no progress", faults.tells_of_no_progress, TOLD)),
    (
        "PE-2",
        check_in_threads,
        Twin(
            "mistakes each error for another",
            faults.mistakes_errors,
            "AssertionError: came in (outcome(key), CancelledError)",
        ),
    ),
]


@pytest.mark.parametrize(
    ("check", "twin"),
    [
        pytest.param(
            check,
            twin,
            id=twin.name,
            marks=pytest.mark.twin(guarantee, fault=twin.name, fails=twin.ends),
        )
        for guarantee, check, twin in TWINS
    ],
)
def test_a_broken_twin_differs(
    check: Callable[[ModuleType], Callable[[], None]], twin: Twin
) -> None:
    broken = build("bridges/parallel_execute", twin.fault)
    # The same thousand examples each time: a hundred of chance can miss the fault.
    search = settings(phases=[Phase.generate], database=None, derandomize=True, max_examples=1000)
    must_fail(twin, search(check(broken)))
