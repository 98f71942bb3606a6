"""The bridges between plain code, threads and event loops, against the bare means they rest on.

The coroutine that is run returns at once, and the operation for the keys does nothing, so that
what is measured is the bridge; each call makes a coroutine of its own. Where a call switches
threads, a machine with several processors has two speeds, depending on which of them wakes up;
those groups run on one processor.
"""

import asyncio
import functools
import gc
import importlib
import os
import queue
import threading
import time
import tracemalloc
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import replace
from typing import Any

from benchmarks import harness
from benchmarks.buses import Background
from reference_impl.bridges import run_sync as run_sync_module
from reference_impl.bridges.async_parallel_execute import (
    async_as_completed,
    async_parallel_execute,
)
from reference_impl.bridges.async_runner import AsyncRunner
from reference_impl.bridges.parallel_execute import (
    Success,
    parallel_as_completed,
    parallel_execute,
)
from reference_impl.bridges.run_sync import run_sync

CALLS = 20
DEADLINE = 60.0
NAP = 0.005
KEYS = 10_000
NAPS = 1_000
MEMORY_AIM = 500
# On one processor some thread always works while a call waits, so processor time is its time.
CAN_PIN = hasattr(os, "sched_setaffinity")
ONE_PROCESSOR = (
    "Measured with all threads on one processor: on several, the same call takes a multiple of\n"
    "its time whenever the other thread wakes up on another processor."
    if CAN_PIN
    else "Threads could not be kept on one processor here, so read the range, not the median."
)

Answer = Coroutine[Any, Any, object]
Call = Callable[[Answer], object]
LimitedCall = Callable[[Answer, float], object]  # with the seconds
Operation = Callable[[int], object]
Map = Callable[[Operation, Sequence[int]], Sequence[object]]


async def _answer(value: object) -> object:
    return value


def _nothing() -> None:
    pass


def _on_one_processor(build: Callable[[], harness.Subject]) -> Callable[[], harness.Subject]:
    """Keep this thread, and those that are started meanwhile, on one processor until `close`.

    The subjects of a group are closed in reverse order, so the first restores what was.
    """
    if not CAN_PIN:
        return build

    def pinned() -> harness.Subject:
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(before)})
        try:
            subject = build()
        except BaseException:
            os.sched_setaffinity(0, before)
            raise

        def close() -> None:
            try:
                subject.close()
            finally:
                os.sched_setaffinity(0, before)

        return replace(subject, close=close)

    return pinned


def _calls(call: Call) -> tuple[harness.Batch, harness.Batch]:
    """A batch of calls, and its check: each call returns what its own coroutine does."""

    def batch() -> None:
        for _ in range(CALLS):
            call(_answer(None))

    def check() -> None:
        for _ in range(CALLS):
            mine = object()
            if call(_answer(mine)) is not mine:
                raise AssertionError("not what the coroutine returned")

    return batch, check


def _close_idle() -> None:
    """End the threads and loops that run_sync keeps for the next call."""
    run_sync_module._close_idle()
    run_sync_module._reopen()


def _plain(make: Callable[[], tuple[Call, harness.Batch]]) -> harness.Subject:
    call, close = make()
    batch, check = _calls(call)
    return harness.Subject([batch], CALLS, check, close=close)


def _limited(make: Callable[[], tuple[LimitedCall, harness.Batch]]) -> harness.Subject:
    call, close = make()
    batch, check_calls = _calls(lambda coro: call(coro, DEADLINE))

    def check() -> None:
        """The limit is one: a coroutine that waits long is ended."""
        check_calls()
        try:
            call(asyncio.sleep(DEADLINE), 0)
        except TimeoutError:
            return
        raise AssertionError("no TimeoutError")

    return harness.Subject([batch], CALLS, check, close=close)


async def _within(coro: Answer, seconds: float) -> object:
    async with asyncio.timeout(seconds):
        return await coro


def _our_call() -> tuple[Call, harness.Batch]:
    return run_sync, _close_idle


def _our_limited_call() -> tuple[LimitedCall, harness.Batch]:
    return (lambda coro, seconds: run_sync(coro, timeout=seconds)), _close_idle


def _reused_runner() -> tuple[Call, harness.Batch]:
    runner = asyncio.Runner()
    return runner.run, runner.close


def _limited_runner() -> tuple[LimitedCall, harness.Batch]:
    runner = asyncio.Runner()
    return (lambda coro, seconds: runner.run(_within(coro, seconds))), runner.close


def _asyncio_run() -> tuple[Call, harness.Batch]:
    return asyncio.run, _nothing


def _limited_asyncio_run() -> tuple[LimitedCall, harness.Batch]:
    return (lambda coro, seconds: asyncio.run(_within(coro, seconds))), _nothing


def _asgiref() -> tuple[Call, harness.Batch]:
    async_to_sync = importlib.import_module("asgiref.sync").async_to_sync

    async def forward(coro: Answer) -> object:
        return await coro

    call: Call = async_to_sync(forward)
    return call, _nothing


NOT_IN_A_LOOP = "calls where a loop runs"
RUNNER = harness.Case(
    "asyncio.Runner, used again",
    lambda: _plain(_reused_runner),
    "floor",
    lacks=f"{NOT_IN_A_LOOP}, or in several threads; a clean loop for each call; timeouts",
)


def _no_loop() -> harness.Group:
    return harness.Group(
        "run_sync where no loop runs",
        [
            RUNNER,
            harness.Case("run_sync", lambda: _plain(_our_call), "ours"),
            harness.Case(
                "asyncio.run",
                lambda: _plain(_asyncio_run),
                lacks=f"{NOT_IN_A_LOOP}; timeouts",
            ),
            harness.Case(
                "asgiref.sync.async_to_sync",
                lambda: _plain(_asgiref),
                package="asgiref",
                lacks=f"{NOT_IN_A_LOOP}; timeouts",
            ),
        ],
        aim=1.5,
    )


def _no_loop_limited() -> harness.Group:
    return harness.Group(
        "run_sync with a timeout where no loop runs",
        [
            RUNNER,
            harness.Case(
                "run_sync, timeout",
                lambda: _limited(_our_limited_call),
                "ours",
            ),
            harness.Case(
                "asyncio.Runner, used again, asyncio.timeout",
                lambda: _limited(_limited_runner),
                "reference",
                lacks=f"{NOT_IN_A_LOOP}, or in several threads; a clean loop for each call",
            ),
            harness.Case(
                "asyncio.run, asyncio.timeout",
                lambda: _limited(_limited_asyncio_run),
                lacks=NOT_IN_A_LOOP,
            ),
        ],
        note="The floor has no timeout, so this is the price of one, too.",
        aim=2.0,
    )


class _Elsewhere:
    """A thread with a loop that it uses again, and a queue each way."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        self._replies: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        with asyncio.Runner() as runner:
            while (coro := self._inbox.get()) is not None:
                self._replies.put(runner.run(coro))

    def run(self, coro: Answer) -> object:
        self._inbox.put(coro)
        return self._replies.get()

    def close(self) -> None:
        self._inbox.put(None)
        self._thread.join()


def _inside_a_loop(make: Callable[[], tuple[Call, harness.Batch]]) -> harness.Subject:
    call, close_call = make()
    runner = asyncio.Runner()

    async def in_loop(work: harness.Batch) -> None:
        work()

    def batch(work: harness.Batch) -> None:
        runner.run(in_loop(work))

    def close() -> None:
        close_call()
        runner.close()

    calls, check = _calls(call)
    return harness.Subject(
        [functools.partial(batch, calls)], CALLS, functools.partial(batch, check), close=close
    )


def _round_trip() -> tuple[Call, harness.Batch]:
    elsewhere = _Elsewhere()
    return elsewhere.run, elsewhere.close


def _new_thread() -> tuple[Call, harness.Batch]:
    def call(coro: Answer) -> object:
        found: list[object] = []
        thread = threading.Thread(target=lambda: found.append(asyncio.run(coro)))
        thread.start()
        thread.join()
        return found[0]

    return call, _nothing


def _pool() -> tuple[Call, harness.Batch]:
    pool = ThreadPoolExecutor(4)
    return (lambda coro: pool.submit(asyncio.run, coro).result()), pool.shutdown


def _in_loop() -> harness.Group:
    lacking = "timeouts, the caller's context, a way to interrupt"

    def case(
        name: str,
        make: Callable[[], tuple[Call, harness.Batch]],
        role: harness.Role = "peer",
        lacks: str = "",
    ) -> harness.Case:
        return harness.Case(
            name, _on_one_processor(lambda: _inside_a_loop(make)), role, lacks=lacks
        )

    return harness.Group(
        "run_sync inside a running loop",
        [
            case(
                "two queues to a thread with a Runner, used again",
                _round_trip,
                "floor",
                f"errors, nesting, several callers, a clean loop for each call; {lacking}",
            ),
            case("run_sync", _our_call, "ours"),
            case("a new thread and asyncio.run", _new_thread, lacks=f"errors; {lacking}"),
            case(
                "ThreadPoolExecutor(4) and asyncio.run",
                _pool,
                lacks=f"more than four calls at once, nested ones included; {lacking}",
            ),
        ],
        note=ONE_PROCESSOR,
        aim=1.75,
        real_time=not CAN_PIN,
        longer=2,
    )


def _bare_loop() -> tuple[Call, harness.Batch]:
    background = Background()
    loop = background.loop
    return (lambda coro: asyncio.run_coroutine_threadsafe(coro, loop).result()), background.close


def _our_runner() -> tuple[Call, harness.Batch]:
    runner = AsyncRunner()
    runner.start()
    return runner.run, runner.close


def _portal() -> tuple[Call, harness.Batch]:
    manager = importlib.import_module("anyio.from_thread").start_blocking_portal()
    portal = manager.__enter__()

    async def forward(coro: Answer) -> object:
        return await coro

    return functools.partial(portal.call, forward), lambda: manager.__exit__(None, None, None)


def _background() -> harness.Group:
    return harness.Group(
        "run, on a loop in a background thread",
        [
            harness.Case(
                "asyncio.run_coroutine_threadsafe(...).result()",
                _on_one_processor(lambda: _plain(_bare_loop)),
                "floor",
                lacks="start and close, an end for each future, timeouts, interrupts",
            ),
            harness.Case("AsyncRunner.run", _on_one_processor(lambda: _plain(_our_runner)), "ours"),
            harness.Case(
                "anyio.from_thread.BlockingPortal.call",
                _on_one_processor(lambda: _plain(_portal)),
                package="anyio",
                lacks="timeouts",
            ),
        ],
        note=ONE_PROCESSOR,
        aim=1.5,
        real_time=not CAN_PIN,
        longer=2,
    )


def _no_op(key: int) -> None:
    pass


def _nap(key: int) -> None:
    time.sleep(NAP)


def _our_map(workers: int) -> Map:
    return lambda operation, keys: parallel_execute(keys, operation, workers)


def _serial(operation: Operation, keys: Sequence[int]) -> Sequence[object]:
    return [Success(key, operation(key)) for key in keys]


def _shares(workers: int) -> Map:
    """Plain threads, each with a fixed share of the keys."""

    def run(operation: Operation, keys: Sequence[int]) -> Sequence[object]:
        results: list[object] = [None] * len(keys)

        def work(first: int) -> None:
            for index in range(first, len(keys), workers):
                results[index] = Success(keys[index], operation(keys[index]))

        threads = [threading.Thread(target=work, args=(first,)) for first in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    return run


def _executor(workers: int) -> Map:
    def run(operation: Operation, keys: Sequence[int]) -> Sequence[object]:
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(operation, keys))

    return run


def _joblib(workers: int) -> Map:
    joblib = importlib.import_module("joblib")

    def run(operation: Operation, keys: Sequence[int]) -> Sequence[object]:
        parallel = joblib.Parallel(n_jobs=workers, backend="threading")
        found: list[object] = parallel(joblib.delayed(operation)(key) for key in keys)
        return found

    return run


def _mapped(run: Map, operation: Operation, keys: int, together: int) -> harness.Subject:
    """A call for all keys; `together` operations have to run at once."""
    numbers = range(keys)

    def check() -> None:
        found = [getattr(result, "value", result) for result in run(lambda key: -key, numbers)]
        if found != [-key for key in numbers]:
            raise AssertionError("not one result for each key, in order")
        meeting = threading.Barrier(together)
        run(lambda key: meeting.wait(DEADLINE), range(together))
        if meeting.broken:
            raise AssertionError(f"fewer than {together} at once")

    return harness.Subject([lambda: run(operation, numbers)], keys, check)


NO_RESULTS = "failures as results, the caller's context, a time limit for the call, progress"


def _no_ops() -> harness.Group:
    def case(
        name: str,
        make: Callable[[int], Map],
        role: harness.Role = "peer",
        package: str = "",
        lacks: str = "",
    ) -> harness.Case:
        return harness.Case(name, lambda: _mapped(make(10), _no_op, KEYS, 10), role, package, lacks)

    return harness.Group(
        "10,000 operations that do nothing, 10 workers",
        [
            harness.Case(
                "a serial loop that makes the same results",
                lambda: _mapped(_serial, _no_op, KEYS, 1),
                "floor",
                lacks=f"concurrency; {NO_RESULTS}",
            ),
            case("parallel_execute", _our_map, "ours"),
            case("list(ThreadPoolExecutor(10).map(...))", _executor, lacks=NO_RESULTS),
            case("joblib.Parallel, threading", _joblib, package="joblib", lacks=NO_RESULTS),
        ],
        note=(
            "This is the overhead for a key, at its worst: an operation that does nothing gains\n"
            "nothing by threads. Which thread runs when is the system's choice: read the range."
        ),
        aim=8.0,
        real_time=True,
        longer=2,
    )


def _naps() -> harness.Group:
    def case(
        name: str, make: Callable[[int], Map], role: harness.Role = "peer", lacks: str = ""
    ) -> harness.Case:
        return harness.Case(name, lambda: _mapped(make(50), _nap, NAPS, 50), role, lacks=lacks)

    return harness.Group(
        "1,000 operations that wait 5 ms, 50 workers",
        [
            case(
                "50 threads with 20 keys each",
                _shares,
                "floor",
                f"balance where keys differ in time; {NO_RESULTS}",
            ),
            case("parallel_execute", _our_map, "ours"),
            case("list(ThreadPoolExecutor(50).map(...))", _executor, lacks=NO_RESULTS),
        ],
        note=(
            "Every case starts 50 threads for each call. How long that takes differs from run to\n"
            "run, and not by the same factor for all: read the range."
        ),
        aim=1.05,
        real_time=True,
        longer=10,
    )


def _our_stream(workers: int) -> Map:
    def run(operation: Operation, keys: Sequence[int]) -> Sequence[object]:
        return _in_order(parallel_as_completed(keys, operation, workers), len(keys))

    return run


def _windowed(workers: int) -> Map:
    """`concurrent.futures`, with as many keys in flight as parallel_as_completed has."""

    def stream(operation: Operation, keys: Sequence[int]) -> Iterator[tuple[int, object]]:
        pending: dict[Future[object], int] = {}
        with ThreadPoolExecutor(workers) as pool:
            for index, key in enumerate(keys):
                pending[pool.submit(operation, key)] = index
                if len(pending) >= 4 * workers + 32:
                    for future in wait(pending, return_when=FIRST_COMPLETED).done:
                        yield pending.pop(future), future.result()
            for future in as_completed(pending):
                yield pending[future], future.result()

    def run(operation: Operation, keys: Sequence[int]) -> Sequence[object]:
        return _in_order(stream(operation, keys), len(keys))

    return run


def _serial_stream(operation: Operation, keys: Sequence[int]) -> Sequence[object]:
    stream = ((index, Success(key, operation(key))) for index, key in enumerate(keys))
    return _in_order(stream, len(keys))


def _in_order(stream: Iterator[tuple[int, object]], count: int) -> Sequence[object]:
    """What a consumer does with each result: it puts it in its place."""
    results: list[object] = [None] * count
    for index, result in stream:
        results[index] = result
    return results


def _as_they_come() -> harness.Group:
    def case(
        name: str, run: Map, role: harness.Role, together: int = 10, lacks: str = ""
    ) -> harness.Case:
        return harness.Case(name, lambda: _mapped(run, _no_op, KEYS, together), role, lacks=lacks)

    return harness.Group(
        "10,000 results as they come, of operations that do nothing, 10 workers",
        [
            case(
                "a serial generator of the same results",
                _serial_stream,
                "floor",
                1,
                f"concurrency; {NO_RESULTS}",
            ),
            case("parallel_as_completed", _our_stream(10), "ours"),
            case(
                "concurrent.futures, wait and as_completed with 72 futures in flight",
                _windowed(10),
                "peer",
                lacks=NO_RESULTS,
            ),
        ],
        note=(
            "This is the overhead for a key, at its worst. Which thread runs when is the system's\n"
            "choice: read the range."
        ),
        aim=8.0,
        real_time=True,
        longer=2,
    )


def _peak(run: Map, keys: int) -> float:
    """The most that a call holds for each key beyond what it returns, in bytes; of three."""
    numbers = list(range(keys))
    run(_no_op, numbers)  # what is imported and cached belongs to no call
    beyond = []
    for _ in range(3):
        gc.collect()
        tracemalloc.start()
        try:
            results = run(_no_op, numbers)
            _, peak = tracemalloc.get_traced_memory()
            gc.collect()  # what is garbage now is no result
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        beyond.append((peak - held) / keys)
        del results
    return max(beyond)


def _memory(keys: int) -> harness.TableFigures:
    ours = "parallel_execute"
    maps: list[tuple[str, Callable[[int], Map], str]] = [
        (ours, _our_map, ""),
        ("list(ThreadPoolExecutor(10).map(...))", _executor, ""),
        ("joblib.Parallel, threading", _joblib, "joblib"),
    ]
    absent: list[harness.NotMeasured] = []
    found: dict[str, float] = {}
    for name, make, package in maps:
        if reason := harness.missing(package):
            absent.append({"name": name, "reason": reason})
        else:
            found[name] = _peak(make(10), keys)
    verdict = "reached" if found[ours] < MEMORY_AIM else f"not reached ({found[ours]:,.0f})"
    return {
        "title": f"Memory of a call for each key, {keys:,} keys, 10 workers",
        "note": (
            "The peak of what Python allocates during a call, less what it returns; the most of\n"
            "three calls. The keys exist before, and the threads' stacks are not counted.\n"
            f"Aim: below {MEMORY_AIM} bytes a key; {verdict}."
        ),
        "columns": ["Case", "Bytes"],
        "rows": [[name, round(bytes_)] for name, bytes_ in found.items()],
        "not_measured": absent,
    }


AsyncOperation = Callable[[int], Coroutine[Any, Any, object]]
AsyncMap = Callable[[AsyncOperation, Sequence[int]], Coroutine[Any, Any, Sequence[object]]]


async def _turn(key: int) -> int:
    await asyncio.sleep(0)
    return -key


def _our_async_map(limit: int) -> AsyncMap:
    async def run(operation: AsyncOperation, keys: Sequence[int]) -> Sequence[object]:
        return await async_parallel_execute(keys, operation, limit)

    return run


def _our_completed(limit: int) -> AsyncMap:
    async def run(operation: AsyncOperation, keys: Sequence[int]) -> Sequence[object]:
        found: list[object] = [None] * len(keys)
        async with async_as_completed(keys, operation, limit) as results:
            async for index, result in results:
                found[index] = result
        return found

    return run


def _semaphore(limit: int) -> AsyncMap:
    """What one writes without a library: a task for each key, and a semaphore."""

    async def run(operation: AsyncOperation, keys: Sequence[int]) -> Sequence[object]:
        found: list[object] = [None] * len(keys)
        semaphore = asyncio.Semaphore(limit)

        async def one(index: int, key: int) -> None:
            async with semaphore:
                found[index] = await operation(key)

        async with asyncio.TaskGroup() as group:
            for index, key in enumerate(keys):
                group.create_task(one(index, key))
        return found

    return run


def _as_completed(limit: int) -> AsyncMap:
    async def run(operation: AsyncOperation, keys: Sequence[int]) -> Sequence[object]:
        found: list[object] = [None] * len(keys)
        semaphore = asyncio.Semaphore(limit)

        async def one(index: int, key: int) -> tuple[int, object]:
            async with semaphore:
                return index, await operation(key)

        for ended in asyncio.as_completed([one(*pair) for pair in enumerate(keys)]):
            index, value = await ended
            found[index] = value
        return found

    return run


def _aiometer(limit: int) -> AsyncMap:
    aiometer = importlib.import_module("aiometer")

    async def run(operation: AsyncOperation, keys: Sequence[int]) -> Sequence[object]:
        calls = [functools.partial(operation, key) for key in keys]
        found: list[object] = await aiometer.run_all(calls, max_at_once=limit)
        return found

    return run


def _aioitertools(limit: int) -> AsyncMap:
    gather = importlib.import_module("aioitertools.asyncio").gather

    async def run(operation: AsyncOperation, keys: Sequence[int]) -> Sequence[object]:
        found: list[object] = await gather(*[operation(key) for key in keys], limit=limit)
        return found

    return run


def _async_mapped(run: AsyncMap, keys: int, together: int) -> harness.Subject:
    """A call for all keys; `together` operations have to run at once."""
    runner = asyncio.Runner()
    numbers = range(keys)

    def check() -> None:
        found = runner.run(run(_turn, numbers))
        if [getattr(result, "value", result) for result in found] != [-key for key in numbers]:
            raise AssertionError("not one result for each key, in order")
        meeting = asyncio.Barrier(together)

        async def meet(key: int) -> None:
            await asyncio.wait_for(meeting.wait(), DEADLINE)

        runner.run(run(meet, range(together)))

    return harness.Subject(
        [lambda: runner.run(run(_turn, numbers))], keys, check, close=runner.close
    )


def _turns(limit: int) -> harness.Group:
    def case(
        name: str,
        make: Callable[[int], AsyncMap],
        role: harness.Role = "peer",
        package: str = "",
        lacks: str = "",
    ) -> harness.Case:
        return harness.Case(
            name, lambda: _async_mapped(make(limit), NAPS, limit), role, package, lacks
        )

    return harness.Group(
        f"1,000 operations that let the loop turn once, {limit} at a time",
        [
            case(
                "asyncio.Semaphore and a TaskGroup",
                _semaphore,
                "floor",
                lacks="flat memory, failures as results, a time limit, progress",
            ),
            case("async_parallel_execute", _our_async_map, "ours"),
            case("async_as_completed", _our_completed, "ours"),
            case(
                "asyncio.as_completed and a semaphore",
                _as_completed,
                lacks="flat memory, leaving early, failures as results, progress",
            ),
            case(
                "aioitertools.asyncio.gather(limit=)",
                _aioitertools,
                package="aioitertools",
                lacks="lazy keys, leaving nothing behind, a time limit, progress",
            ),
            case(
                "aiometer.run_all(max_at_once=)",
                _aiometer,
                package="aiometer",
                lacks="failures as results, lazy keys, a time limit, progress",
            ),
        ],
        note="Operations that do nothing else show the overhead for a key at its worst.",
        aim=1.3,
    )


def _async_peak(run: AsyncMap, keys: int) -> float:
    """The most that a call holds for each key beyond what it returns, in bytes; of three."""
    with asyncio.Runner() as runner:
        return _peak(lambda _, numbers: runner.run(run(_turn, numbers)), keys)


def _async_memory(keys: int) -> harness.TableFigures:
    ours = "async_parallel_execute"
    maps: list[tuple[str, Callable[[int], AsyncMap], str]] = [
        (ours, _our_async_map, ""),
        ("asyncio.Semaphore and a TaskGroup", _semaphore, ""),
        ("aioitertools.asyncio.gather(limit=)", _aioitertools, "aioitertools"),
        ("aiometer.run_all(max_at_once=)", _aiometer, "aiometer"),
    ]
    absent: list[harness.NotMeasured] = []
    found: dict[str, float] = {}
    for name, make, package in maps:
        if reason := harness.missing(package):
            absent.append({"name": name, "reason": reason})
        else:
            found[name] = _async_peak(make(10), keys)
    verdict = "reached" if found[ours] < MEMORY_AIM else f"not reached ({found[ours]:,.0f})"
    return {
        "title": f"Memory of a call for each key, {keys:,} keys, 10 at a time",
        "note": (
            "The peak of what Python allocates during a call, less what it returns; the most of\n"
            "three calls. The keys exist before.\n"
            f"Aim: below {MEMORY_AIM} bytes a key; {verdict}."
        ),
        "columns": ["Case", "Bytes"],
        "rows": [[name, round(bytes_)] for name, bytes_ in found.items()],
        "not_measured": absent,
    }


def plans(effort: harness.Effort) -> list[harness.Plan]:
    """What is measured for each component of the family."""
    return [
        harness.Plan("bridges/run_sync", [_no_loop, _no_loop_limited, _in_loop]),
        harness.Plan("bridges/async_runner", [_background]),
        harness.Plan(
            "bridges/parallel_execute",
            [_no_ops, _as_they_come, _naps],
            [functools.partial(_memory, effort.sizes[1])],
        ),
        harness.Plan(
            "bridges/async_parallel_execute",
            [functools.partial(_turns, 10), functools.partial(_turns, 100)],
            [functools.partial(_async_memory, effort.sizes[1])],
        ),
    ]
