"""parallel_execute against a plain loop, for whatever keys, operations and settings there are."""

import itertools
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor, ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reference_impl.bridges import parallel_execute
from tests.bridges.parallel_execute import faults
from tests.bridges.parallel_execute.helpers import LATE, Inline, clocked, join_own_threads
from tests.bridges.parallel_execute.helpers import outcomes as outcomes_of
from tests.kit.profile import same_each_time
from tests.kit.proofs import Proof, each_twin, holding
from tests.kit.twins import Twin


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
    refusal: object = None
    for key in keys:
        now += key.takes
        if refusal is None and now >= deadline:
            refusal = LATE
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


USUAL = settings()
# The same thousand examples each time: a hundred of chance can miss a twin's fault.
SEARCH = same_each_time(1000)


def check_like_a_plain_loop(m: ModuleType, how: settings = USUAL) -> None:
    @how
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

    check()


def check_threads_give_what_a_plain_loop_gives(m: ModuleType, how: settings = USUAL) -> None:
    @how
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

    check()


def check_a_stream_that_is_left_gives_what_a_plain_loop_gives(
    m: ModuleType, how: settings = USUAL
) -> None:
    """Results may wait unread, the consumer may leave: each is given once, and none too many."""

    @how
    @given(
        keys=KEYS,
        workers=st.integers(1, 4),
        taken=st.integers(0, 60),
        fail_fast=st.booleans(),
        kind=st.sampled_from(["own", "inline", "pool"]),
    )
    def check(keys: list[Key], workers: int, taken: int, fail_fast: bool, kind: str) -> None:
        drawn, ran = list[Key](), list[Key]()

        def source() -> Iterator[Key]:
            for key in keys:
                drawn.append(key)
                yield key

        def operation(key: Key) -> Any:
            ran.append(key)
            if key.gives == "error":
                raise LookupError
            return key.gives

        pool = ThreadPoolExecutor(2) if kind == "pool" else None
        executor = Inline() if kind == "inline" else pool
        received = list[tuple[int, Any]]()
        stream = m.parallel_as_completed(
            source(), operation, workers, fail_fast=fail_fast, executor=executor
        )
        most = 4 * workers + 32 if executor is None else workers
        ahead = 0
        for each in itertools.islice(stream, taken):
            received.append(each)
            ahead = max(ahead, len(drawn) - len(received))
        stream.close()
        begun = len(drawn)
        if pool is not None:
            pool.shutdown()
        join_own_threads()
        assert ahead < most
        assert len(drawn) == begun
        assert len(received) == min(taken, len(keys))
        assert len({index for index, _ in received}) == len(received)
        for index, result in received:
            assert result.key is keys[index]
            (found,) = outcomes_of([result])
            assert found in (outcome(keys[index]), *([CancelledError] if fail_fast else []))
        assert len(ran) <= len(drawn)

    check()


LIKE_A_LOOP = "AssertionError: assert outcomes == plain_loop(keys, deadline, fail_fast)"
TOLD = "AssertionError: assert told == [(n, None) for n in range(1, len(ran) + 1)]"
PROOFS = [
    Proof(
        "PE-1",
        check_like_a_plain_loop,
        [
            Twin("gives 0 for each value", faults.gives_zero, LIKE_A_LOOP),
            Twin("ignores deadlines", faults.ignores_deadlines, LIKE_A_LOOP),
            Twin("ignores fail_fast", faults.ignores_fail_fast, LIKE_A_LOOP),
            Twin("tells of no progress", faults.tells_of_no_progress, TOLD),
        ],
    ),
    Proof(
        "PE-2",
        check_threads_give_what_a_plain_loop_gives,
        [
            Twin(
                "mistakes each error for another",
                faults.mistakes_errors,
                "AssertionError: came in (outcome(key), CancelledError)",
            )
        ],
    ),
    Proof(
        "PE-11",
        check_a_stream_that_is_left_gives_what_a_plain_loop_gives,
        [
            Twin(
                "draws all keys at once",
                faults.draws_all_for_a_stream,
                "AssertionError: assert ahead < most",
            ),
            Twin(
                "drops failures",
                faults.drops_failures,
                (
                    "AssertionError: assert len(received) == min(taken, len(keys))",
                    "AssertionError: assert ahead < most",
                ),
            ),
        ],
    ),
]

test_model = holding(PROOFS, parallel_execute)


@each_twin(PROOFS)
def test_a_broken_twin_differs(proof: Proof, twin: Twin) -> None:
    proof.must_fail(twin, "bridges/parallel_execute", SEARCH)
