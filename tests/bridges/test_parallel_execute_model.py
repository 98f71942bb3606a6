"""parallel_execute against a plain loop, for whatever keys, operations and settings there are."""

from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from reference_impl.bridges import parallel_execute
from tests.kit.twins import twin


class Inline(Executor):
    """Runs each call within `submit`: with it, every outcome is determined."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


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
    now, ran, told = 0, list[Key](), list[tuple[int, int | None]]()

    def drawn() -> Iterator[Key]:
        nonlocal now
        for key in keys:
            now += key.takes
            yield key

    def operation(key: Key) -> Any:
        ran.append(key)
        if key.gives == "error":
            raise LookupError
        return key.gives

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(m, "time", SimpleNamespace(monotonic=lambda: now))
        results = m.parallel_execute(
            drawn(), operation, executor=executor, on_progress=lambda *t: told.append(t), **options
        )
    assert [result.key for result in results] == keys
    return [r.value if r.is_success else type(r.error) for r in results], ran, told


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


@pytest.mark.guarantee("PE-1", "PE-2", "PE-4", "PE-5", "PE-8")
def test_like_a_plain_loop() -> None:
    check_determined(parallel_execute)()


@pytest.mark.guarantee("PE-1", "PE-2", "PE-5")
def test_threads_give_what_a_plain_loop_gives() -> None:
    settings(max_examples=50)(check_in_threads(parallel_execute))()


@pytest.mark.parametrize(
    ("check", "faults"),
    [
        pytest.param(check, faults, id=name, marks=pytest.mark.twin(pe))
        for name, pe, check, faults in [
            (
                "none",
                "PE-1",
                check_determined,
                ("outcome = Success(key, future.result())", "outcome = Success(key, 0)"),
            ),
            (
                "error",
                "PE-2",
                check_in_threads,
                (
                    "outcome = Failure(key, error)\n                except",
                    "outcome = Failure(key, OSError())\n                except",
                ),
            ),
            (
                "deadline",
                "PE-4",
                check_determined,
                ("self.refusal is None and self.seconds_left() == 0", "False"),
            ),
            (
                "fail-fast",
                "PE-5",
                check_determined,
                ("outcome.is_failure and self.options.fail_fast", "False"),
            ),
            (
                "begun",
                "PE-8",
                check_determined,
                ("self.completed += begun", "pass"),
            ),
        ]
    ],
)
def test_a_broken_twin_differs(
    check: Callable[[ModuleType], Callable[[], None]], faults: tuple[str, str]
) -> None:
    broken = twin("bridges/parallel_execute.py", faults)
    # The same thousand examples each time: a hundred of chance can miss the fault.
    quick = settings(phases=[Phase.generate], database=None, derandomize=True, max_examples=1000)
    with pytest.raises((AssertionError, ExceptionGroup)):
        quick(check(broken))()
