"""async_parallel_execute: progress, bad arguments, misuse, what is left behind."""

import asyncio
import contextvars
import copy
import functools
import gc
import inspect
import math
import pickle
import sys
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from reference_impl.bridges import async_parallel_execute as module
from reference_impl.bridges.async_parallel_execute import (
    async_as_completed,
    async_parallel_execute,
)
from reference_impl.bridges.parallel_execute import DeadlineExceeded
from tests.bridges.async_parallel_execute.helpers import Operation, Source, forms, outcomes
from tests.kit.fakes import run, turns, until

FORMS = (async_parallel_execute, async_as_completed)
each_form = pytest.mark.parametrize("form", FORMS, ids=["collected", "as completed"])


async def negative(key: int) -> int:
    await asyncio.sleep(0)
    return -key


# Progress.


def test_progress_is_told_once_for_each_operation() -> None:
    async def main() -> None:
        for call in forms(module):
            for keys, total in ((range(3), 3), (iter(range(3)), None), (Source(0, 1, 2), None)):
                told = list[Any]()
                await call(keys, negative, 2, on_progress=lambda *t, told=told: told.append(t))
                assert told == [(1, total), (2, total), (3, total)]

    run(main())


def test_progress_is_told_in_the_callers_task_and_context() -> None:
    variable = contextvars.ContextVar("variable", default="none")

    async def main() -> None:
        for call in forms(module):
            me, found = asyncio.current_task(), list[Any]()
            variable.set("the caller's")

            def progress(completed: int, total: int | None, found: list[Any] = found) -> None:
                found.append((asyncio.current_task(), variable.get()))

            await call([1], negative, on_progress=progress)
            assert found == [(me, "the caller's")]

    run(main())


def test_progress_counts_what_ran_only() -> None:
    async def main() -> None:
        for call in forms(module):
            told = list[Any]()
            operation = Operation(passes=[0], fails=[0])
            await call(
                range(9),
                operation,
                2,
                fail_fast=True,
                on_progress=lambda *t, told=told: told.append(t),
            )
            assert told == [(1, 9), (2, 9)], "one failed, one was cancelled"

    run(main())


class Unsized(list[int]):
    """Its length costs much, or cannot be told."""

    asked = 0
    error: Any = None

    def __len__(self) -> int:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return -1  # noqa: PLE0303 - that is the point


def test_a_length_is_asked_for_only_for_progress() -> None:
    async def main() -> None:
        keys = Unsized([1, 2])
        for call in forms(module):
            assert outcomes(await call(keys, negative)) == [-1, -2]
            assert keys.asked == 0
            for keys.error in (TypeError("generator"), OSError("query"), AttributeError(), None):
                told = list[Any]()
                await call(keys, negative, on_progress=lambda *t, told=told: told.append(t))
                assert told == [(1, None), (2, None)]
            keys.asked = 0

    run(main())


# Bad arguments: refused at the call, and nothing is begun, bound, or left un-awaited.


def plain(key: int) -> int:
    return key


def generator(key: int) -> Iterator[int]:
    yield key


async def async_generator(key: int) -> AsyncIterator[int]:
    yield key


class Plain:
    def __call__(self, key: int) -> int:
        return key


class Async:
    async def __call__(self, key: int) -> int:
        return await negative(key)

    async def method(self, key: int) -> int:
        return await negative(key)


async def coroutine_progress(completed: int, total: int | None) -> None:
    pass


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    *(
        ({"operation": wrong}, TypeError, "operation must be a coroutine function, not ")
        for wrong in (plain, generator, async_generator, Plain(), Plain().__call__, 7, None)
    ),
    (
        {"operation": functools.partial(generator, 1)},
        TypeError,
        "operation must be a coroutine function, not functools.partial",
    ),
    ({"keys": 5}, TypeError, "keys must be iterable, not 5: pass a list, a generator or an async"),
    ({"keys": None}, TypeError, "keys must be iterable, not None"),
    ({"max_concurrency": 0}, ValueError, "max_concurrency must be at least 1, not 0"),
    ({"max_concurrency": True}, TypeError, "max_concurrency must be an int, not True"),
    ({"max_concurrency": 2.0}, TypeError, "max_concurrency must be an int, not 2.0"),
    ({"timeout": -1}, ValueError, "timeout must be at least 0 seconds, not -1"),
    ({"timeout": math.nan}, ValueError, "timeout must be at least 0 seconds, not nan"),
    ({"timeout": "1"}, TypeError, "timeout must be a number of seconds, not '1'"),
    ({"timeout": True}, TypeError, "timeout must be a number of seconds, not True"),
    ({"fail_fast": "no"}, TypeError, "fail_fast must be a bool, not 'no'"),
    ({"on_progress": coroutine_progress}, TypeError, "on_progress must be a plain function, not"),
    ({"on_progress": 1}, TypeError, "on_progress must be a plain function, not 1"),
]


@each_form
@pytest.mark.parametrize(("given", "kind", "words"), BAD)
def test_bad_arguments_are_refused_at_the_call(
    form: Callable[..., Any], given: dict[str, Any], kind: type[Exception], words: str
) -> None:
    drawn = iter([1, 2])
    with pytest.raises(kind) as refused:
        form(**({"keys": drawn, "operation": negative} | given))
    assert str(refused.value).startswith(words)
    assert list(drawn) == [1, 2]


@each_form
def test_a_coroutine_where_a_function_or_keys_belong_is_closed(form: Callable[..., Any]) -> None:
    for given in ({"operation": negative(1)}, {"keys": negative(1)}):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(TypeError, match=r"must be .*coroutine"):
                form(**({"keys": [1], "operation": negative} | given))
            (coroutine,) = given.values()
            assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


@pytest.mark.parametrize(
    "operation",
    [
        negative,
        Async(),
        Async().method,
        functools.partial(negative),
        lambda key: negative(key),
        lambda key: asyncio.ensure_future(negative(key)),
    ],
)
def test_whatever_gives_an_awaitable_is_an_operation(operation: Any) -> None:
    async def main() -> None:
        for call in forms(module):
            assert outcomes(await call([1, 2], operation)) == [-1, -2]

    run(main())


def test_a_lambda_that_gives_no_awaitable_fails_its_keys() -> None:
    async def main() -> None:
        for call in forms(module):
            results = await call([1], lambda key: key)
            assert outcomes(results) == [TypeError]
            results = await call([1], lambda key: 1 / 0)
            assert outcomes(results) == [ZeroDivisionError]
            results = await call([1], lambda key: next(iter(())))
            assert outcomes(results) == [StopIteration]

    run(main())


class Sequence:
    """Iterable by its items, as was usual before `__iter__`."""

    def __getitem__(self, index: int) -> int:
        return (5, 6)[index]


@pytest.mark.parametrize(
    ("keys", "found"),
    [("ab", ["a", "b"]), ({1: 2}, [1]), ([[1], [1]], [[1], [1]]), (Sequence(), [5, 6])],
)
def test_keys_may_be_any_iterable_of_anything(keys: Any, found: list[Any]) -> None:
    async def same(key: Any) -> Any:
        return key

    async def main() -> None:
        for call in forms(module):
            assert outcomes(await call(keys, same)) == found

    run(main())


@pytest.mark.parametrize("timeout", [math.inf, 1e300, 10**400, 3600])
def test_a_timeout_may_be_long(timeout: float) -> None:
    async def main() -> None:
        for call in forms(module):
            assert outcomes(await call([1], negative, timeout=timeout)) == [-1]

    run(main())


# Misuse.


def test_without_a_running_loop_it_says_so() -> None:
    coroutine = async_parallel_execute([1], negative)
    with pytest.raises(RuntimeError, match="no asyncio event loop is running here: await this in"):
        coroutine.send(None)
    entering = async_as_completed([1], negative).__aenter__()
    with pytest.raises(RuntimeError, match="no asyncio event loop is running here"):
        entering.send(None)


def test_what_is_never_awaited_or_entered_starts_nothing() -> None:
    drawn = iter([1])
    async_as_completed(drawn, negative)
    async_parallel_execute(drawn, negative).close()
    gc.collect()
    assert list(drawn) == [1]


def test_results_are_given_inside_the_block_only() -> None:
    async def main() -> None:
        completed = async_as_completed([1, 2], negative)
        with pytest.raises(RuntimeError, match=r"inside the block only: `async with async_as_co"):
            await anext(completed)
        async with completed as results:
            assert await anext(results) is not None
        with pytest.raises(RuntimeError, match="inside the block only"):
            await anext(completed)
        with pytest.raises(RuntimeError, match="was entered before: make another one"):
            async with completed:
                pass

    run(main())


def test_the_end_stays_the_end() -> None:
    async def main() -> None:
        async with async_as_completed([1], negative) as results:
            assert [index async for index, _ in results] == [0]
            assert [index async for index, _ in results] == []

    run(main())


def test_a_second_consumer_is_refused_and_the_first_goes_on() -> None:
    async def main() -> None:
        operation = Operation()
        async with async_as_completed([1], operation) as results:
            first = asyncio.ensure_future(anext(results))
            await turns()
            with pytest.raises(RuntimeError, match="another task waits for the next result"):
                await anext(results)
            operation.let_go.set()
            assert (await first)[1].unwrap() == 1

    run(main())


def test_a_consumer_that_waits_when_the_block_is_left_is_let_go() -> None:
    async def main() -> None:
        async with async_as_completed([1], Operation()) as results:
            first = asyncio.ensure_future(anext(results))
            await turns()
        with pytest.raises(StopAsyncIteration):
            await first

    run(main())


@pytest.mark.parametrize("copying", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_call_cannot_be_copied(copying: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="async_as_completed cannot be copied or pickled: make"):
        copying(async_as_completed([1], negative))


def test_a_task_factory_that_fails_fails_the_call() -> None:
    def factory(loop: Any, coroutine: Any, **options: Any) -> Any:
        if coroutine.__qualname__ == "negative" or made:
            coroutine.close()
            raise OSError("no more tasks")
        made.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)

    async def main() -> None:
        for call in forms(module):
            made.clear()
            asyncio.get_running_loop().set_task_factory(factory)
            try:
                with pytest.raises(OSError, match="no more tasks"):
                    await call([1, 2], negative)
            finally:
                asyncio.get_running_loop().set_task_factory(None)

    made = list[Any]()
    run(main())


def test_a_call_in_an_operation_is_a_call_of_its_own() -> None:
    async def nested(key: int) -> list[Any]:
        return outcomes(await async_parallel_execute(range(key), nested, 1)) if key else []

    assert outcomes(run(async_parallel_execute(range(4), nested, 1)))[3] == [[], [[]], [[], [[]]]]


def test_a_caller_that_is_closed_stops_its_operations() -> None:
    async def main() -> None:
        operation = Operation()
        coroutine = async_parallel_execute(range(3), operation)
        coroutine.send(None)
        await until(lambda: operation.running == [0, 1, 2])
        coroutine.close()
        await until(lambda: operation.cleaned == [0, 1, 2])

    run(main())


# What is left behind.


def test_an_endless_source_can_be_cancelled_after_the_deadline() -> None:
    async def main() -> None:
        def endless() -> Iterator[int]:
            while True:
                yield 0

        calling = asyncio.ensure_future(async_parallel_execute(endless(), negative, timeout=0))
        await turns(5)
        calling.cancel()
        await asyncio.wait([calling])
        assert calling.cancelled()

    run(main())


def test_operations_that_never_wait_leave_the_loop_its_turns() -> None:
    async def at_once(key: int) -> int:
        return key

    async def main() -> None:
        loop = asyncio.get_running_loop()
        if sys.version_info >= (3, 12):
            loop.set_task_factory(asyncio.eager_task_factory)
        calling = loop.create_task(async_parallel_execute(iter(int, 1), at_once))
        await turns(50)
        calling.cancel()
        await asyncio.wait([calling])
        assert calling.cancelled()

    run(main())


class Error(Exception):
    """Can be referred to weakly."""


@pytest.mark.parametrize("where", ["operation", "key source", "on_progress"])
def test_an_error_leaves_no_cycle(where: str) -> None:
    """So that what its frames hold is freed at once, and not when the collector runs."""

    async def main() -> None:
        async def operation(key: int) -> int:
            await asyncio.sleep(0)
            if where == "operation":
                raise Error
            return key

        async def keys() -> AsyncIterator[int]:
            yield 1
            if where == "key source":
                raise Error

        def progress(completed: int, total: int | None) -> None:
            if where == "on_progress":
                raise Error

        async def call(number: int) -> "weakref.ref[Error]":
            try:
                (result,) = await forms(module)[number](keys(), operation, on_progress=progress)
            except Error as error:
                return weakref.ref(error)
            return weakref.ref(result.error)

        for number in (0, 1):
            found = await call(number)
            await turns()
            assert found() is None, f"kept alive by {gc.get_referrers(found())}"

    gc.collect()
    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()


def test_the_failure_of_a_deadline_can_be_matched() -> None:
    async def own(key: int) -> None:
        raise TimeoutError("its own")

    async def main() -> list[str]:
        kinds = []
        for timeout in (0, None):
            for call in forms(module):
                (result,) = await call([1], own, timeout=timeout)
                match result.error:
                    case DeadlineExceeded():
                        kinds.append("the deadline's")
                    case TimeoutError():
                        kinds.append("its own")
        return kinds

    assert run(main()) == ["the deadline's"] * 2 + ["its own"] * 2
