"""Faults of async_parallel_execute: other arguments go in, or a part of the way out is missing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextvars import Context
from typing import Any

from tests.kit.twins import Fault, edit, override

Operation = Callable[[Any], Any]


def given(change: Callable[[dict[str, Any]], object]) -> Fault:
    """Both forms are called with other arguments, which `change` alters in place."""

    def make(original: Any) -> Any:
        def __init__(
            self: Any, keys: Any, operation: Any, max_concurrency: int = 10, **options: Any
        ) -> None:
            arguments = {"keys": keys, "operation": operation, "max_concurrency": max_concurrency}
            arguments |= {"timeout": None, "fail_fast": False, "on_progress": None} | options
            change(arguments)
            original(self, **arguments)

        return __init__

    return override("async_as_completed.__init__", make)


def _with(name: str, change: Callable[[Any], Any]) -> Fault:
    return given(lambda arguments: arguments.update({name: change(arguments[name])}))


# Keys.


async def _until_it_fails(keys: Any) -> AsyncIterator[Any]:
    with contextlib.suppress(OSError):
        if hasattr(keys, "__aiter__"):
            async for key in keys:
                yield key
        else:
            for key in keys:
                yield key


class _NotClosed:
    def __init__(self, keys: Any) -> None:
        self.keys = aiter(keys)

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        return await anext(self.keys)


def _drawn_at_once(keys: Any) -> Any:
    return keys if hasattr(keys, "__aiter__") else list(keys)


draws_all_at_once = _with("keys", _drawn_at_once)
takes_a_failing_source_for_its_end = _with("keys", _until_it_fails)
closes_no_source = _with("keys", lambda keys: _NotClosed(keys))
reverses_the_keys = _with("keys", lambda keys: list(keys)[::-1])


# Operations.


def _none_fails(operation: Operation) -> Operation:
    async def checked(key: Any) -> Any:
        if (value := await operation(key)) is None:
            raise LookupError
        return value

    return checked


def _mistaken(operation: Operation) -> Operation:
    async def wrapped(key: Any) -> Any:
        try:
            return await operation(key)
        except Exception as error:
            raise ValueError(*error.args) from error

    return wrapped


def _shielded(operation: Operation) -> Operation:
    async def wrapped(key: Any) -> Any:
        return await asyncio.shield(asyncio.ensure_future(operation(key)))

    return wrapped


def _in_no_context(operation: Operation) -> Operation:
    async def wrapped(key: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.create_task(operation(key), context=Context())

    return wrapped


fails_for_none = _with("operation", _none_fails)
mistakes_errors = _with("operation", _mistaken)
leaves_operations_running = _with("operation", _shielded)
runs_in_no_context = _with("operation", _in_no_context)
runs_all_in_one_context = edit(
    "async_as_completed._start",
    "self._context.run(self._loop.create_task, _run(self._operation, key, self._doomed))",
    "self._loop.create_task(_run(self._operation, key, self._doomed), context=self._context)",
)
takes_a_cancelled_operation_for_cancelled_by_it = edit(
    "_run", "if asyncio.current_task() in doomed: raise", "raise"
)


# Settings.


def _deaf(tell: Any) -> Any:
    def progress(completed: int, total: int | None) -> None:
        with contextlib.suppress(OSError):
            tell(completed, total)

    return tell and progress


runs_one_more = _with("max_concurrency", lambda limit: limit + 1)
ignores_deadlines = _with("timeout", lambda timeout: None)
ignores_fail_fast = _with("fail_fast", lambda fail_fast: False)
hears_no_error_of_on_progress = _with("on_progress", _deaf)
is_told_of_no_progress = _with("on_progress", lambda tell: tell and (lambda *told: None))


# Ways out.

waits_for_nobody = edit(
    "async_as_completed._leave",
    "while tasks := [t for t in (*self._feeder, *self._running) if not t.done()]: ...".replace(
        "t for t", "task for task"
    ).replace("not t.", "not task."),
    "tasks = []",
)
passes_one_cancellation_on = edit(
    "async_as_completed._leave", "self._cancel(*tasks, again=True)", ""
)
takes_what_is_late = edit("async_as_completed._ended", "result = Failure(key, late)", "pass")
leaves_what_runs_to_itself = edit("async_as_completed._refuse", "self._cancel(*self._running)", "")
waits_for_a_hanging_source = edit(
    "async_as_completed._hurry", "self._cancel(*self._feeder)", "pass"
)
waits_for_no_source = edit(
    "async_as_completed._draw", "self._hurry(self._drawn, _TURNS)", "self._hurry(self._drawn, 0)"
)
counts_no_untaken_results = edit(
    "async_as_completed._is_full",
    "len(self._running) + len(self._ready)",
    "len(self._running)",
)
ends_without_the_last = edit(
    "async_as_completed._is_over", "self._feeder or self._running", "self._feeder"
)
asks_the_task_of_the_feeder = edit(
    "async_as_completed._is_over",
    "self._feeder or self._running",
    "[task for task in self._feeder if not task.done()] or self._running",
) + edit(
    "async_as_completed._leave",
    "if self._feeder: ...",
    "pass",
)
