"""Faults of parallel_execute: other arguments go in, or other results come out."""

import contextvars
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from typing import Any

from tests.kit.primitives import rebind
from tests.kit.twins import Fault, override, patch

Operation = Callable[[Any], Any]


def given(change: Callable[[dict[str, Any]], object]) -> Fault:
    """It is called with other arguments, which `change` alters in place."""

    def make(original: Any) -> Any:
        def call(keys: Any, operation: Any, max_workers: int = 10, **options: Any) -> Any:
            arguments = {"keys": keys, "operation": operation, "max_workers": max_workers}
            arguments |= {"timeout": None, "fail_fast": False, "on_progress": None} | options
            change(arguments)
            return original(**arguments)

        return call

    return override("parallel_execute", make)


def _with(name: str, change: Callable[[Any], Any]) -> Fault:
    return given(lambda arguments: arguments.update({name: change(arguments[name])}))


def then(change: Callable[[list[Any]], list[Any]]) -> Fault:
    """It gives other results than it should."""
    return override(
        "parallel_execute",
        lambda original: lambda *arguments, **options: change(original(*arguments, **options)),
    )


# Keys.


def _drawn_by_another(keys: Any) -> Iterator[Any]:
    ahead, end = iter(keys), object()
    with ThreadPoolExecutor(1) as pool:
        while (key := pool.submit(next, ahead, end).result()) is not end:
            yield key


def _until_it_fails(keys: Any) -> Iterator[Any]:
    try:
        yield from keys
    except OSError:
        return


draws_all_at_once = _with("keys", list)
draws_in_another_thread = _with("keys", _drawn_by_another)
takes_a_failing_source_for_its_end = _with("keys", _until_it_fails)


# Operations.


def _operation(wrap: Callable[[Operation], Operation]) -> Fault:
    return _with("operation", wrap)


def _none_fails(operation: Operation) -> Operation:
    def checked(key: Any) -> Any:
        if (value := operation(key)) is None:
            raise LookupError
        return value

    return checked


def raises_instead(kind: type[BaseException], other: Callable[[Any], BaseException]) -> Fault:
    """Instead of such an error it raises, or keeps, another one."""

    def wrap(operation: Operation) -> Operation:
        def changed(key: Any) -> Any:
            try:
                return operation(key)
            except kind as error:
                raise other(error) from None

        return changed

    return _operation(wrap)


def _cancelled_if_one_failed(operation: Operation) -> Operation:
    failed = list[Any]()

    def changed(key: Any) -> Any:
        try:
            value = operation(key)
        except Exception:
            failed.append(key)
            raise
        if failed:
            raise CancelledError
        return value

    return changed


def _in_one_context(operation: Operation) -> Operation:
    context, lock = contextvars.copy_context(), threading.Lock()

    def changed(key: Any) -> Any:
        with lock:
            return context.run(operation, key)

    return changed


def _swallow_exits(operation: Operation) -> Operation:
    def changed(key: Any) -> Any:
        try:
            return operation(key)
        except SystemExit:
            return None

    return changed


takes_none_for_a_failure = _operation(_none_fails)
gives_zero = _operation(lambda operation: lambda key: operation(key) and 0)
copies_errors = raises_instead(Exception, lambda error: type(error)(*error.args))
mistakes_errors = raises_instead(Exception, lambda error: OSError())
copies_exits = raises_instead(SystemExit, lambda error: SystemExit())
keeps_exits_to_itself = _operation(_swallow_exits)
cancels_what_runs = _operation(_cancelled_if_one_failed)
shares_one_context = _operation(_in_one_context)
forgets_the_context = override(
    "parallel_execute",
    lambda original: (
        lambda *arguments, **options: contextvars.Context().run(original, *arguments, **options)
    ),
)


def _wait_for_all(original: Any) -> Any:
    def call(keys: Any, operation: Operation, *arguments: Any, **options: Any) -> Any:
        begun, ended = list[Any](), threading.Semaphore(0)

        def noted(key: Any) -> Any:
            begun.append(key)
            try:
                return operation(key)
            finally:
                ended.release()

        try:
            return original(keys, noted, *arguments, **options)
        finally:
            for _ in begun:
                ended.acquire()

    return call


def _let_late_results_in(original: Any) -> Any:
    def call(keys: Any, operation: Operation, *arguments: Any, **options: Any) -> Any:
        returned = list[list[Any]]()

        def noted(key: Any) -> Any:
            value = operation(key)
            for results in returned:
                results[:] = [type(r)(key, value) if r.key == key else r for r in results]
            return value

        results = original(keys, noted, *arguments, **options)
        returned.append(results)
        return results

    return call


def _as_they_end(original: Any) -> Any:
    def call(keys: Any, operation: Operation, *arguments: Any, **options: Any) -> Any:
        ended = list[Any]()

        def noted(key: Any) -> Any:
            try:
                return operation(key)
            finally:
                ended.append(key)

        results = original(keys, noted, *arguments, **options)
        return sorted(results, key=lambda result: ended.index(result.key))

    return call


waits_for_all_operations = override("parallel_execute", _wait_for_all)
lets_late_results_in = override("parallel_execute", _let_late_results_in)
gives_results_as_they_end = override("parallel_execute", _as_they_end)


# Workers, deadlines, failures.


def _in_batches(original: Any) -> Any:
    def call(keys: Any, operation: Operation, workers: int = 10, **options: Any) -> Any:
        results, batch = list[Any](), list[Any]()
        for key in keys:
            batch.append(key)
            if len(batch) == 4 * workers + 32:
                results += original(batch, operation, workers, **options)
                batch = []
        return results + original(batch, operation, workers, **options)

    return call


def _not_daemonic(**options: Any) -> threading.Thread:
    options["daemon"] = False
    return threading.Thread(**options)


def _quietly(original: Any) -> Any:
    def call(*arguments: Any, **options: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return original(*arguments, **options)

    return call


works_in_batches = override("parallel_execute", _in_batches)
has_twice_the_workers = _with("max_workers", lambda number: 2 * number)
has_one_worker_more = _with("max_workers", lambda number: number + 1)
has_one_worker = _with("max_workers", lambda number: 1)
takes_any_number_of_workers = _with("max_workers", lambda number: max(1, number))
warns_nobody = override("parallel_execute", _quietly)
blames_another = given(lambda arguments: None)
ignores_deadlines = _with("timeout", lambda seconds: None)
takes_zero_for_no_deadline = _with("timeout", lambda seconds: seconds or None)
ignores_fail_fast = _with("fail_fast", lambda wanted: False)
always_fails_fast = _with("fail_fast", lambda wanted: True)


def _keep_the_process(m: Any) -> None:
    rebind(m, Thread=_not_daemonic)


keeps_the_process_alive = patch(_keep_the_process)


# Progress.


def _quiet(tell: Any) -> Any:
    def told(completed: int, total: int | None) -> None:
        try:
            tell(completed, total)
        except OSError:
            return

    return tell and told


def _at_the_end(original: Any) -> Any:
    def call(*arguments: Any, on_progress: Any = None, **options: Any) -> Any:
        told = list[tuple[int, int | None]]()
        results = original(
            *arguments, on_progress=lambda *progress: told.append(progress), **options
        )
        for progress in told:
            on_progress(*progress)
        return results

    return call


hides_failures_of_on_progress = _with("on_progress", _quiet)
tells_of_progress_at_the_end = override("parallel_execute", _at_the_end)
tells_of_no_progress = _with("on_progress", lambda tell: None)
tells_no_total = _with("on_progress", lambda tell: lambda completed, total: tell(completed, None))


# Executors.


class _NeverCancelled(Executor):
    """Its futures cannot be cancelled."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = self._executor.submit(fn, *args, **kwargs)
        future.cancel = lambda: False  # type: ignore[method-assign]
        return future


def _raise_what_broke(results: list[Any]) -> list[Any]:
    for result in results:
        if result.is_failure:
            raise result.error
    return results


def _leave_it_in_the_executor(arguments: dict[str, Any]) -> None:
    arguments["executor"] = _NeverCancelled(arguments["executor"])


raises_what_broke_the_pool = then(_raise_what_broke)
cancels_nothing = given(_leave_it_in_the_executor)


# Results as they come.


def streams(make: Callable[[Any, Any], Any]) -> Fault:
    """The iterator is what `make` makes of the module's two functions."""

    def change(m: Any) -> None:
        m.parallel_as_completed = make(m.parallel_execute, m.parallel_as_completed)

    return patch(change)


def _with_option(name: str, value: Any) -> Fault:
    return streams(
        lambda _, original: (
            lambda *arguments, **options: original(*arguments, **options | {name: value})
        )
    )


def _all_first(together: Any, _: Any) -> Any:
    return lambda *arguments, **options: enumerate(together(*arguments, **options))


def _from_a_generator(_: Any, original: Any) -> Any:
    def call(*arguments: Any, **options: Any) -> Any:
        yield from original(*arguments, **options)

    return call


def _drawing_all(_: Any, original: Any) -> Any:
    return lambda keys, *arguments, **options: original(list(keys), *arguments, **options)


class _Unclosed:
    """Closing it draws another key."""

    def __init__(self, keys: Iterator[Any], results: Iterator[Any]) -> None:
        self._keys = keys
        self._results = results

    def __iter__(self) -> Iterator[Any]:
        return self._results

    def __next__(self) -> Any:
        return next(self._results)

    def close(self) -> None:
        next(self._keys)


def _unclosed(_: Any, original: Any) -> Any:
    def call(keys: Any, *arguments: Any, **options: Any) -> Any:
        drawn = iter(keys)
        return _Unclosed(drawn, original(drawn, *arguments, **options))

    return call


def _silent(_: Any, original: Any) -> Any:
    def call(*arguments: Any, **options: Any) -> Any:
        return (each for each in original(*arguments, **options) if each[1].is_success)

    return call


gives_all_at_the_end = streams(_all_first)
checks_at_the_first_result = streams(_from_a_generator)
draws_all_for_a_stream = streams(_drawing_all)
goes_on_when_it_is_closed = streams(_unclosed)
drops_failures = streams(_silent)
ignores_the_streams_deadline = _with_option("timeout", None)
ignores_the_streams_fail_fast = _with_option("fail_fast", False)
