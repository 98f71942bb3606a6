"""parallel_execute: the rest of the interface, bad arguments, what is left behind."""

import copy
import functools
import gc
import math
import pickle
import re
import threading
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import FrozenInstanceError
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import parallel_execute as module
from reference_impl.bridges.parallel_execute import (
    Failure,
    Success,
    parallel_as_completed,
    parallel_execute,
    partition,
)
from tests.bridges.parallel_execute.helpers import (
    LATE,
    Gate,
    join_own_threads,
    outcomes,
    own_threads,
    started_at_once,
    watch,
)
from tests.kit.primitives import Over, rebound

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

    with started_at_once(module):
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


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_results_are_values(copied: Callable[[Any], Any]) -> None:
    success, failure = parallel_execute(["1", "x"], int)
    assert copied(success) == pickle.loads(pickle.dumps(success)) == success
    for same in (copied(failure), pickle.loads(pickle.dumps(failure))):
        assert same.key == "x"
        assert type(same.error) is ValueError
    assert weakref.ref(success)() is success
    assert weakref.ref(failure)() is failure


def test_an_endless_timeout_is_none() -> None:
    for endless in (math.inf, 1e300, 10**18, 10**400, None):
        assert outcomes(parallel_execute([1], str, timeout=endless)) == ["1"]


def test_without_a_deadline_nobody_polls() -> None:
    with watch(module) as asleep:
        parallel_execute([1], lambda key: asleep.await_one())
    assert set(asleep.timeouts) == {None}


# Bad arguments: refused before a key is drawn.


async def coroutine_function(key: object) -> None:
    """Not to be called."""


class AsyncCallable:
    async def __call__(self, key: object) -> None:
        """Not to be called."""


def generator_function(key: object) -> Iterator[object]:
    yield key


async def async_generator_function(key: object) -> AsyncIterator[object]:
    yield key


class Bound:
    """Its methods are of the wrong kinds."""

    async def coroutine(self, key: object) -> None:
        """Not to be called."""

    def generator(self, key: object) -> Iterator[object]:
        yield key

    def __call__(self, key: object) -> Iterator[object]:
        yield key


WRONG = [
    coroutine_function,
    generator_function,
    async_generator_function,
    AsyncCallable(),
    Bound(),
    Bound().coroutine,
    Bound().generator,
    functools.partial(coroutine_function),
    functools.partial(functools.partial(generator_function), 1),
    functools.partial(AsyncCallable(), 1),
    functools.partial(async_generator_function, 1),
]


class OldSequence:
    """Iterable without `__iter__`."""

    def __getitem__(self, index: int) -> int:
        return [5, 6][index]


def refusal(name: str, wanted: str, value: object) -> tuple[dict[str, Any], str]:
    return {name: value}, f"{name} must be {wanted}, not {value!r}"


PLAIN = "a plain function"
TYPE_ERRORS = [
    *(refusal("max_workers", "an int", value) for value in (True, 2.0, "2", None)),
    *(refusal("timeout", "a number of seconds", value) for value in ("1", False, [1])),
    *(refusal("operation", PLAIN, value) for value in (None, "f", *WRONG)),
    *(refusal("on_progress", PLAIN, value) for value in (7, *WRONG)),
    *(
        refusal("executor", "None or a concurrent.futures.Executor", value)
        for value in (4, ThreadPoolExecutor)
    ),
]
VALUE_ERRORS = [
    refusal("max_workers", "at least 1", 0),
    refusal("max_workers", "at least 1", -(10**400)),
    refusal("timeout", "at least 0 seconds", -0.1),
    refusal("timeout", "at least 0 seconds", -(10**400)),
    refusal("timeout", "at least 0 seconds", math.nan),
]


@pytest.mark.guarantee("PE-9")
@pytest.mark.parametrize("call", [parallel_execute, parallel_as_completed])
@pytest.mark.parametrize("kind", [TypeError, ValueError])
def test_a_bad_argument_is_named_and_nothing_is_drawn(
    kind: type[Exception], call: Callable[..., object]
) -> None:
    keys = iter([1])
    for arguments, message in TYPE_ERRORS if kind is TypeError else VALUE_ERRORS:
        with pytest.raises(kind, match=f"^{re.escape(message)}"):
            call(**{"keys": keys, "operation": str, **arguments})
    assert list(keys) == [1]


def test_a_class_is_a_plain_function_and_so_is_an_object_that_can_be_called() -> None:
    class Doubling:
        def __call__(self, key: int) -> int:
            return 2 * key

    for operation in (int, Doubling(), functools.partial(pow, 2), [0, 1, 4].__getitem__):
        assert outcomes(parallel_execute([2], operation)) in ([2], [4])


def test_keys_that_cannot_be_iterated_are_named() -> None:
    with pytest.raises(
        TypeError, match=r"^keys must be iterable, not 5: pass a list or a generator$"
    ):
        parallel_execute(5, str)  # type: ignore[arg-type]
    old: Any = OldSequence()
    assert outcomes(parallel_execute(old, str)) == ["5", "6"]


@pytest.mark.parametrize("start", [nullcontext, started_at_once])
def test_a_system_without_threads_is_an_error_that_leaves_none(
    start: Callable[[ModuleType], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    start_thread, gate, ran = threading.Thread.start, Gate(), []

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "parallel_execute-3":
            raise RuntimeError("can't start new thread")
        start_thread(thread)

    def operation(key: int) -> None:
        ran.append(key)
        gate.pass_through()

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with start(module), pytest.raises(RuntimeError, match="start new thread"):
        parallel_execute(range(9), operation, 5)
    gate.set()
    join_own_threads()
    assert set(ran) <= {0, 1}


def test_a_wake_up_that_comes_twice_is_harmless() -> None:
    class Late(Over):
        """Another thread was quicker than the one that asked."""

        def locked(self) -> bool:
            return True

    with rebound(module, Lock=lambda: Late(threading.Lock())):
        for _ in range(20):
            results = parallel_execute(range(50), str, 3, on_progress=lambda *_: None)
            assert outcomes(results) == [str(key) for key in range(50)]


# What is left behind.


class Oops(Exception):
    """Can be referred to weakly."""


def test_a_call_that_returns_has_joined_its_threads() -> None:
    joined = Gate()

    class Lingering(threading.Thread):
        """Ends only when it is joined."""

        def run(self) -> None:
            super().run()
            joined.pass_through()

        def join(self, timeout: float | None = None) -> None:
            joined.set()
            super().join(timeout)

    with rebound(module, Thread=Lingering):
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
    assert outcomes(results) == [LATE] * 11
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
