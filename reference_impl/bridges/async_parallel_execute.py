# async_parallel_execute.py: one coroutine function on many keys at once (async_parallel_execute)
# https://executable-guarantees.example/bridges/async_parallel_execute.html
# Version 1.0.0 (2026-11-30); Python 3.11 to 3.14, with or without the GIL; standard library only
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: 2026 The Executable Guarantees authors
"""Run one coroutine function on many keys, a bounded number at a time, on an event loop.

It is parallel_execute's twin for asyncio, and gives the same results.

Examples:
    >>> async def double(key):
    ...     return key * 2
    >>> results = asyncio.run(async_parallel_execute([4, None, 2], double, max_concurrency=2))
    >>> [result.value if result.is_success else type(result.error) for result in results]
    [8, <class 'TypeError'>, 4]

    Results in the order in which they come; the block may be left at any time:

    >>> async def first_of_many():
    ...     async with async_as_completed(range(10**6), double) as results:
    ...         async for index, result in results:
    ...             return result.unwrap()
    >>> asyncio.run(first_of_many())
    0

Async safety:
    Calls are independent and share nothing. A call belongs to the event loop that it runs on,
    with all its tasks. The results are immutable; keys, values and errors are the caller's.

Fork: nothing outlives a call, so fork before or after it; a child that is forked by an
operation should leave by `os._exit`. Interpreter exit: nothing is left to do. Signal handlers
must not call; what one raises leaves the loop, whose owner (`asyncio.run`) then cancels the
caller, and with it the operations. Finalizers (`__del__`) cannot await, so they cannot call.
Nothing here relies on the GIL.
"""

import asyncio
import functools
import inspect
import math
from collections import deque
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
)
from concurrent.futures import CancelledError
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, Generic, NoReturn, Self, SupportsIndex, TypeVar, cast

from .parallel_execute import DeadlineExceeded, Failure, Result, Success

__all__ = ["async_as_completed", "async_parallel_execute"]

K = TypeVar("K")
T = TypeVar("T")

_BATCH = 100  # keys, after which the loop has a turn where none of them has to wait
_TURNS = 10  # of the loop that a key source may take for a key once the deadline is over


def async_parallel_execute(
    keys: Iterable[K] | AsyncIterable[K],
    operation: Callable[[K], Awaitable[T]],
    max_concurrency: int = 10,
    *,
    timeout: float | None = None,
    fail_fast: bool = False,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> Coroutine[Any, Any, list[Result[K, T]]]:
    """Await `operation` for each key, several at once; return what came of each, in order.

    However it ends, no operation is left running: those that run are cancelled and awaited
    first, also where they ignore the cancellation for a while.

    Args:
        keys: drawn one by one in a task of the call, each when an operation for it may begin.
            They may be a generator or an async generator, which is closed at the end.
        operation: a coroutine function of one key, or a lambda that returns an awaitable. Each
            call runs in a task of its own, in a copy of the caller's context variables.
        max_concurrency: the most operations that run at once, from 1. If in doubt, what the
            other side tolerates.
        timeout: seconds for the whole call; None waits without limit. At the deadline the
            operations that run are cancelled and awaited, and every key without a result fails
            with DeadlineExceeded. An async key source that waits by then is cancelled.
        fail_fast: after the first failure, start no other operation, and cancel those that
            run; their keys fail with `concurrent.futures.CancelledError`.
        on_progress: a plain function, called as `on_progress(completed, total)` in the
            caller's task, once for each operation that ended; `total` is None if `len(keys)`
            fails.

    Returns:
        What to await, once.

    Raises:
        TypeError: at the call: an argument is of the wrong kind.
        ValueError: at the call: `max_concurrency` is below 1, or `timeout` negative or NaN.
        RuntimeError: when awaited: asyncio's event loop is not running.
        BaseException: when awaited: what `keys` or `on_progress` raised; what an operation
            raised that is no Exception, other than CancelledError.

    Async safety:
        Calls are independent. Cancelling the caller cancels the operations that run.

    Cost: a task for each operation that runs, none for keys that wait; microseconds a key.
    """
    call = partial(_Collected[K, T], keys, operation, max_concurrency)
    return call(timeout=timeout, fail_fast=fail_fast, on_progress=on_progress).results()


class async_as_completed(Generic[K, T]):  # noqa: N801 - it is used as a function is
    """The same in the order of completion, as an async iterator of `(index, Result)`.

    Use it as `async with async_as_completed(...) as results`, and `async for index, result in
    results` within the block; `index` counts the keys from 0. Leaving the block, early or
    not, cancels the operations that run and awaits them. Operations see the context in which
    the block is entered, where the `timeout` begins, too.

    Results that were not taken yet count as running, so a slow consumer slows down the rest,
    and no more than `max_concurrency` keys are under way. When the key source or `on_progress`
    raises, the results that are there are given first.

    Args and errors are those of `async_parallel_execute`; `on_progress` is called while
    results are taken.

    Async safety:
        It is entered once, and one task at a time takes results: others are refused.
        Cancelling `anext(results)` loses no result, and ends no operation.

    Cost: a task for each operation that runs; memory does not grow with the number of keys.
    """

    def __init__(
        self,
        keys: Iterable[K] | AsyncIterable[K],
        operation: Callable[[K], Awaitable[T]],
        max_concurrency: int = 10,
        *,
        timeout: float | None = None,
        fail_fast: bool = False,
        on_progress: Callable[[int, int | None], None] | None = None,
    ) -> None:
        try:
            self._limit = _check_count("max_concurrency", max_concurrency)
            self._timeout = None if timeout is None else _check_seconds("timeout", timeout)
            _check_type("fail_fast", fail_fast, "a bool", bool)
            _check_async("operation", operation)
            if on_progress is not None:
                _check_plain("on_progress", on_progress)
            self._source = _iterator(keys)
        except (TypeError, ValueError):
            given: tuple[object, ...] = keys, operation
            for coroutine in filter(inspect.iscoroutine, given):
                coroutine.close()  # or Python would warn that it was never awaited
            raise
        self._close = getattr(self._source, "aclose", None)
        self._operation = operation
        self._fail_fast = fail_fast
        self._on_progress = on_progress
        self._total: int | None = None
        if on_progress is not None:
            with suppress(Exception):  # whatever the keys object raises, there is no total
                self._total = len(keys)  # type: ignore[arg-type]
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None
        # All happens in steps of one loop, so that nothing needs a lock. Between two steps each
        # key that was drawn is in `_running` or was settled, never both.
        self._running: dict[asyncio.Task[Result[K, T]], tuple[int, K]] = {}
        self._doomed = set[asyncio.Task[Any]]()  # those that we cancelled, and the feeder if so
        self._ready = deque[tuple[int, Result[K, T]]]()  # settled, and not taken yet
        self._feeder: list[asyncio.Task[None]] = []  # the task that draws keys, until it ends
        self._drawn = 0
        self._completed = 0  # operations that ended
        self._reported = 0  # calls of on_progress
        self._refusal: Callable[[], Exception] | None = None  # why no operation begins any more
        self._fatal: BaseException | None = None  # for the caller to raise
        self._is_drawing = False  # an async key source is asked for a key
        self._is_late = False  # the deadline is over
        self._is_entered = self._is_open = self._is_left = False
        self._is_awaited = False  # a task waits for the next result
        self._has_news = asyncio.Event()  # wakes the caller
        self._has_room = asyncio.Event()  # wakes the feeder

    async def __aenter__(self) -> Self:
        if self._is_entered:
            raise RuntimeError("this async_as_completed was entered before: make another one")
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "no asyncio event loop is running here: await this in what asyncio.run runs"
            ) from None
        self._is_entered = True
        self._context = copy_context()
        if self._timeout is not None:
            self._deadline = self._loop.time() + self._timeout
        self._feeder.append(self._loop.create_task(self._feed()))
        self._feeder[0].add_done_callback(self._fed)
        if self._timeout is not None:
            self._timer = self._loop.call_at(self._deadline, self._expire)
        self._is_open = True
        return self

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._ready.clear()
        self._is_open = False
        await self._leave(error)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, Result[K, T]]:
        if not self._is_open:
            raise RuntimeError(
                "results are given inside the block only: "
                "`async with async_as_completed(...) as results`"
            )
        if self._is_awaited:
            raise RuntimeError("another task waits for the next result: let one task take them")
        self._is_awaited = True
        try:
            while not (self._ready or self._is_over()):
                await self._news()
            self._report()
            if not self._ready:
                await self._leave()
                raise StopAsyncIteration
            self._has_room.set()
            return self._ready.popleft()
        finally:
            self._is_awaited = False

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse copy, deepcopy and pickle: a call has tasks."""
        raise TypeError(f"{type(self).__name__} cannot be copied or pickled: make another one")

    # The caller's steps.

    def _is_over(self) -> bool:
        """Whether the caller has nothing to wait for."""
        return self._is_left or self._fatal is not None or not (self._feeder or self._running)

    async def _news(self) -> None:
        """Wait until the call is over, or there is something to take or to report."""
        await self._has_news.wait()
        self._has_news.clear()

    def _report(self) -> None:
        if self._on_progress is None:
            return
        try:
            while self._reported < self._completed and self._fatal is None:
                self._reported += 1
                self._on_progress(self._reported, self._total)
        except BaseException as error:
            self._fail(error)

    async def _leave(self, error: BaseException | None = None) -> None:
        """Cancel what runs, wait until nothing does, and raise what ended the call.

        Each task is cancelled once, and again whenever the caller is cancelled meanwhile.
        """
        self._is_left = True
        if self._timer is not None:
            self._timer.cancel()
        self._refuse(CancelledError, "not started, since the call ended")
        self._cancel(*self._feeder)
        if isinstance(error, GeneratorExit):
            return  # the caller was closed, and cannot wait
        cancelled: asyncio.CancelledError | None = None
        while tasks := [task for task in (*self._feeder, *self._running) if not task.done()]:
            try:
                await asyncio.wait(tasks)
            except asyncio.CancelledError as request:
                cancelled = request
                self._cancel(*tasks, again=True)
        if self._feeder:
            await asyncio.sleep(0)  # then its callback has run
        await self._close_source()  # of a feeder that was cancelled before it began
        self._has_news.set()
        fatal, self._fatal = self._fatal, None
        try:
            if cancelled is not None:
                raise cancelled
            if fatal is not None and (error is None or isinstance(fatal, Exception)):
                raise fatal
        finally:
            del cancelled, fatal, error  # an error keeps this frame, which must not keep it

    # The feeder's steps.

    async def _feed(self) -> None:
        """Draw keys while there is room for them, until there are no more."""
        if not isinstance(self._source, AsyncIterator):
            for key in self._source:
                self._start(key)
                if self._is_full() or self._drawn % _BATCH == 0:
                    await self._pause()
            return
        try:
            self._draw()
            async for key in self._source:
                self._is_drawing = False
                self._start(key)
                if self._is_full() or self._drawn % _BATCH == 0:
                    await self._pause()
                if self._is_left:
                    break  # though the source has swallowed the cancellation
                self._draw()
        finally:
            self._is_drawing = False
            await self._close_source()

    async def _pause(self) -> None:
        """Wait until a key can be drawn; let the loop turn in any case."""
        if not self._is_full():
            await asyncio.sleep(0)
        while self._is_full():
            self._has_room.clear()
            await self._has_room.wait()

    def _is_full(self) -> bool:
        return len(self._running) + len(self._ready) >= self._limit

    def _draw(self) -> None:
        """The next key is about to be asked for."""
        self._is_drawing = True
        if self._is_late:
            self._hurry(self._drawn, _TURNS)

    async def _close_source(self) -> None:
        close, self._close = self._close, None
        if close is not None:
            await close()

    def _start(self, key: K) -> None:
        """Begin the operation for a key, or settle why it does not begin."""
        index = self._drawn
        self._drawn += 1
        if self._timeout is not None and self._loop.time() >= self._deadline:
            self._expire()
        if self._refusal is not None:
            self._settle(index, Failure(key, self._refusal()))
            return
        # So it gets a copy of the context from whatever task factory the loop has.
        task = self._context.run(self._loop.create_task, _run(self._operation, key, self._doomed))
        self._running[task] = index, key
        task.add_done_callback(self._ended, context=self._context)

    # What the loop calls.

    def _fed(self, feeder: "asyncio.Task[None]") -> None:
        """The feeder has ended."""
        self._feeder.clear()  # which would keep its error
        self._has_news.set()
        if feeder.cancelled():
            if feeder not in self._doomed:
                self._fail(asyncio.CancelledError("the key source was cancelled"))
        elif (error := feeder.exception()) is not None:
            self._fail(error)

    def _ended(self, task: "asyncio.Task[Result[K, T]]") -> None:
        """An operation has ended: settle its key."""
        index, key = self._running.pop(task)
        self._completed += 1
        self._has_room.set()
        if self._on_progress is not None or not self._running:
            self._has_news.set()
        result: Result[K, T]
        if task.cancelled():  # by others than us only before it began
            result = Failure(key, CancelledError("cancelled, since another key failed"))
        elif (error := task.exception()) is not None:
            self._fail(error)
            return
        else:
            result = task.result()
        if task in self._doomed and self._is_late:
            late = DeadlineExceeded(f"not finished within {self._timeout} s")
            if isinstance(result, Failure) and not isinstance(result.error, CancelledError):
                late.__cause__ = result.error
            result = Failure(key, late)
        self._doomed.discard(task)
        self._settle(index, result)
        if self._fail_fast and result.is_failure:
            self._refuse(CancelledError, "not started, since another key failed")

    def _settle(self, index: int, result: Result[K, T]) -> None:
        """Keep what came of a key, for the caller."""
        if not self._is_left:
            self._ready.append((index, result))
            self._has_news.set()

    def _expire(self) -> None:
        """The deadline is over."""
        if not self._is_late:
            self._is_late = True
            self._refuse(DeadlineExceeded, f"not started within {self._timeout} s")
            self._hurry(self._drawn, _TURNS)

    def _hurry(self, drawn: int, turns: int) -> None:
        """Cancel an async key source that waits for something; a few turns are no wait."""
        if self._is_drawing and self._drawn == drawn:
            if turns:
                self._loop.call_soon(self._hurry, drawn, turns - 1)
            else:
                self._cancel(*self._feeder)

    # What ends operations.

    def _fail(self, error: BaseException) -> None:
        """Have the caller raise the first such error, when nothing runs any more."""
        if self._fatal is None:
            self._fatal = error
        self._refuse(CancelledError, "not started, since the call failed")
        self._cancel(*self._feeder)
        self._has_news.set()

    def _refuse(self, error: type[Exception], why: str) -> None:
        """Begin no more operations, and cancel those that run."""
        if self._refusal is None:
            self._refusal = partial(error, why)
        self._cancel(*self._running)

    def _cancel(self, *tasks: asyncio.Task[Any], again: bool = False) -> None:
        for task in tasks:
            if (again or task not in self._doomed) and task.cancel():
                self._doomed.add(task)


class _Collected(async_as_completed[K, T]):
    """A call whose results are returned at its end, in the order of the keys."""

    async def results(self) -> list[Result[K, T]]:
        self._places: list[Result[K, T] | None] = []  # None: of a key whose operation runs
        async with self:
            while not self._is_over():
                await self._news()
                self._report()
        return cast("list[Result[K, T]]", self._places)

    def _settle(self, index: int, result: Result[K, T]) -> None:
        if index >= len(self._places):
            self._places += [None] * (index + 1 - len(self._places))
        self._places[index] = result


async def _run(
    operation: Callable[[K], Awaitable[T]], key: K, doomed: set[asyncio.Task[Any]]
) -> Result[K, T]:
    """What the task of an operation does; its frame, which errors keep, keeps little."""
    try:
        return Success(key, await operation(key))
    except Exception as error:
        return Failure(key, error)
    except asyncio.CancelledError as error:
        if asyncio.current_task() in doomed:
            raise
        return Failure(key, cast("Exception", error))  # the operation's own


def _iterator(keys: Iterable[K] | AsyncIterable[K]) -> Iterator[K] | AsyncIterator[K]:
    try:
        return aiter(keys) if isinstance(keys, AsyncIterable) else iter(keys)
    except TypeError as error:
        raise TypeError(
            f"keys must be iterable, not {keys!r}: pass a list, a generator or an async generator"
        ) from error


def _check_type(name: str, value: object, wanted: str, *kinds: type) -> None:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise TypeError(f"{name} must be {wanted}, not {value!r}")


def _check_count(name: str, value: int) -> int:
    _check_type(name, value, "an int", int)
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value!r}")
    return value


def _check_seconds(name: str, value: float, *, zero: bool = True) -> float:
    _check_type(name, value, "a number of seconds", int, float)
    if not (value > 0 or (zero and value == 0)):  # so put, it refuses NaN, too
        least = "at least" if zero else "above"
        raise ValueError(f"{name} must be {least} 0 seconds, not {value!r}")
    return float(min(value, 1e300))  # also for an int that fits no float


def _check_async(name: str, function: object) -> None:
    """Refuse what cannot be awaited when called: a plain function would block the loop."""
    inner = _unwrapped(function)
    # A lambda may return an awaitable; what else is plain cannot.
    plain = inspect.isroutine(inner) and getattr(inner, "__name__", "") != "<lambda>"
    wrong = _is_generator(inner) or (plain and not inspect.iscoroutinefunction(inner))
    if not callable(function) or wrong:
        raise TypeError(
            f"{name} must be a coroutine function, not {function!r}: define it with `async def`, "
            "and put what blocks into asyncio.to_thread"
        )


def _check_plain(name: str, function: object) -> None:
    """Refuse what only makes a coroutine or a generator when called."""
    inner = _unwrapped(function)
    if not callable(function) or _is_generator(inner) or inspect.iscoroutinefunction(inner):
        raise TypeError(
            f"{name} must be a plain function, not {function!r}: define it with `def`, "
            "and await elsewhere"
        )


def _unwrapped(function: object) -> object:
    """What a call runs, behind partials, bound methods and an object's `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    known = inspect.isroutine(function) or inspect.isclass(function)
    if known or inspect.iscoroutinefunction(function):  # the last are marked objects, mocks too
        return function
    return getattr(function, "__call__", function)  # noqa: B004  (of an object that can be called)


def _is_generator(function: object) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
