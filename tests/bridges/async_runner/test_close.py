"""AR-2: what AsyncRunner's close ends and leaves, and who may call it."""

import asyncio
import concurrent.futures
import gc
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import async_runner
from reference_impl.bridges.async_runner import AsyncRunner
from tests.bridges.async_runner.helpers import (
    IS_NOWHERE,
    Job,
    begin,
    descriptors,
    forever,
    logged,
    nothing,
    place,
    running,
    turn,
    value,
    was_closed,
    with_loop,
)
from tests.kit.fakes import PATIENCE, Beside
from tests.kit.profile import budget
from tests.kit.proofs import Proof
from tests.kit.twins import Twin, edit


def check_close_settles_everything(m: ModuleType) -> None:
    """Running, cancelled before its first step, cleaning up, ended, just submitted."""
    runner = begin(m)
    run, cleans = Job(), Job(gated=True)
    futures = [runner.submit(run()), runner.submit(cleans()), runner.submit(value(7))]
    assert run.begun.wait(PATIENCE)
    assert cleans.begun.wait(PATIENCE)
    futures[1].cancel()
    assert cleans.cleaning.wait(PATIENCE)
    gate = threading.Event()

    async def block() -> None:
        gate.wait(PATIENCE)

    futures.append(runner.submit(block()))
    late = Job()
    futures.append(runner.submit(late()))
    cancelled = forever()
    futures.append(runner.submit(cancelled))
    futures[-1].cancel()
    loop, thread = place(runner)
    closing = Beside(runner.close)
    gate.set()
    cleans.open()
    closing.result()
    assert all(future.done() for future in futures)
    assert [future.cancelled() for future in futures] == [True, True, False, False, True, True]
    assert (run.clean, cleans.clean, cleans.broken) == (1, 1, 0)
    assert late.clean == late.begun.is_set()
    assert was_closed(cancelled)
    assert loop.is_closed()
    assert not thread.is_alive()


@pytest.mark.guarantee("AR-2")
def test_close_settles_everything_each_time() -> None:
    for _ in range(9):
        check_close_settles_everything(async_runner)


@pytest.mark.guarantee("AR-2")
def test_thousands_of_futures_settle_and_their_clean_up_runs() -> None:
    """Of the original's 5,000 futures 4,572 never settled, and no clean-up ran."""
    cleaned: list[int] = []

    async def job(number: int) -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            cleaned.append(number)

    with AsyncRunner() as runner:
        futures = [runner.submit(job(number)) for number in range(5_000)]
        turn(runner)
    assert all(future.cancelled() for future in futures)
    assert sorted(cleaned) == list(range(5_000))


def check_start_and_close_leave_nothing(m: ModuleType, cycles: int = 10) -> None:
    def cycle() -> None:
        with m.AsyncRunner() as runner:
            assert runner.run(value(1)) == 1
            runner.submit(forever())

    cycle()
    threads, before = threading.active_count(), descriptors()
    for _ in range(cycles):
        cycle()
    gc.collect()
    assert (threading.active_count(), descriptors()) == (threads, before)


@pytest.mark.guarantee("AR-2")
def test_a_thousand_starts_and_closes_leave_nothing() -> None:
    """The original never closed a loop: three descriptors for each runner."""
    check_start_and_close_leave_nothing(async_runner, budget(300, 1_000))


def test_dropped_runners_die() -> None:
    """One that was never started needs no close; a closed one is not kept by anything."""
    unused, closed = AsyncRunner(), AsyncRunner()
    with closed:
        closed.run(asyncio.to_thread(int))
    deaths = [weakref.ref(unused), weakref.ref(closed)]
    del unused, closed
    gc.collect()
    assert [death() for death in deaths] == [None, None]


def check_generators_and_executor_are_closed(m: ModuleType) -> None:
    closed: list[str] = []
    entered, gate = threading.Event(), threading.Event()

    async def numbers() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)
            closed.append("generator")

    def helper() -> None:
        entered.set()
        assert gate.wait(PATIENCE)
        closed.append("executor")

    runner = m.AsyncRunner()
    runner.start()
    generator = numbers()

    async def first() -> int:
        return await anext(generator)

    runner.run(first())
    runner.submit(asyncio.to_thread(helper))
    assert entered.wait(PATIENCE)
    helpers = [t for t in threading.enumerate() if t.name.startswith("async-runner-helper")]
    closing = Beside(runner.close)
    gate.set()
    closing.result()
    assert sorted(closed) == ["executor", "generator"]
    assert len(helpers) == 1
    assert not helpers[0].is_alive()


def check_the_executor_is_waited_for(m: ModuleType) -> None:
    runner, entered, gate = begin(m), threading.Event(), threading.Event()

    def helper() -> None:
        entered.set()
        assert gate.wait(PATIENCE)

    runner.submit(asyncio.to_thread(helper))
    assert entered.wait(PATIENCE)
    try:
        with pytest.raises(TimeoutError):
            runner.close(timeout=0)
        turn(runner, 50)
        # Not whether the thread lives: one that has closed its loop may need a moment to end.
        assert not place(runner)[0].is_closed(), "it has not waited"
    finally:
        gate.set()
        runner.close()


def check_tasks_of_coroutines_are_awaited(m: ModuleType) -> None:
    """Tasks that a coroutine leaves behind, and those that clean-up code begins."""
    order: list[str] = []
    begun = threading.Event()

    async def background() -> None:
        try:
            begun.set()
            await forever()
        finally:
            for _ in range(100):  # longer than the job's
                await asyncio.sleep(0)
            order.append("background")

    async def goodbye() -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        order.append("goodbye")

    async def stray() -> None:
        try:
            await forever()
        finally:
            order.append("stray")

    kept: list[Any] = []

    async def job() -> None:
        kept.append(asyncio.create_task(background()))
        try:
            await forever()
        finally:
            await asyncio.wait_for(asyncio.create_task(goodbye()), PATIENCE)
            kept.append(asyncio.create_task(stray()))
            await asyncio.sleep(0)

    runner = m.AsyncRunner()
    runner.start()
    runner.submit(job())
    assert begun.wait(PATIENCE)
    runner.close()
    assert sorted(order) == ["background", "goodbye", "stray"]
    assert all(task.done() for task in kept)


def check_what_a_helper_begins_late_is_awaited(m: ModuleType) -> None:
    """A thread of the executor, which is waited for last, hands a coroutine to the loop."""
    runner, late = begin(m), Job()
    entered, waited_for = threading.Event(), threading.Event()
    loop, _ = place(runner)
    shutdown = loop.shutdown_default_executor

    async def shut_down() -> None:
        waited_for.set()
        await shutdown()

    vars(loop)["shutdown_default_executor"] = shut_down

    def helper() -> None:
        entered.set()
        assert waited_for.wait(PATIENCE)
        asyncio.run_coroutine_threadsafe(late(), loop)
        assert late.begun.wait(PATIENCE)

    runner.submit(asyncio.to_thread(helper))
    assert entered.wait(PATIENCE)
    runner.close(PATIENCE)
    assert late.clean == 1, "it was left behind"


@pytest.mark.guarantee("AR-2")
def test_close_ends_where_no_thread_is_left_to_wait_for_the_helpers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As at the interpreter's exit. Nothing is left behind by that, or logged."""

    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    job = Job()
    with logged("asyncio") as records:
        runner = AsyncRunner()
        runner.start()
        runner.run(asyncio.to_thread(int))
        future, loop = runner.submit(job()), place(runner)[0]
        assert job.begun.wait(PATIENCE)
        helpers = [t for t in threading.enumerate() if t.name.startswith("async-runner-helper")]
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            runner.close(PATIENCE)
        gc.collect()
    for helper in helpers:
        helper.join(PATIENCE)
    assert future.cancelled()
    assert job.clean == 1
    assert loop.is_closed()
    assert [helper.is_alive() for helper in helpers] == [False]
    assert not records


def check_the_own_thread_only_requests(m: ModuleType) -> None:
    """In a coroutine, in a callback on the loop, and in the default executor."""
    outcomes: list[str] = []

    def close(runner: Any) -> None:
        try:
            runner.close(0)
            outcomes.append("returned")
        except (RuntimeError, TimeoutError) as error:
            outcomes.append(repr(error))

    async def by_coroutine(runner: Any) -> None:
        close(runner)
        await forever()

    async def by_callback(runner: Any) -> None:
        asyncio.get_running_loop().call_soon(close, runner)
        await forever()

    async def by_executor(runner: Any) -> None:
        await asyncio.to_thread(close, runner)

    for way in (by_coroutine, by_callback, by_executor):
        with running(m) as runner:
            future = runner.submit(way(runner))
            assert concurrent.futures.wait([future], PATIENCE).done
            runner.close(PATIENCE)
            with pytest.raises(RuntimeError, match="closed"):
                runner.submit(value())
    assert outcomes == ["returned"] * 3


@pytest.mark.guarantee("AR-2")
def test_a_futures_callback_may_close() -> None:
    runner = AsyncRunner()
    runner.start()
    closed = threading.Event()
    job = Job()
    future = runner.submit(job())
    assert job.begun.wait(PATIENCE)
    ending = runner.submit(value())

    def close(_: object) -> None:
        runner.close()
        closed.set()

    ending.add_done_callback(close)
    assert closed.wait(PATIENCE)
    runner.close(PATIENCE)
    assert future.cancelled()


@pytest.mark.guarantee("AR-2")
def test_close_is_idempotent_and_final() -> None:
    for started in (False, True):
        runner = AsyncRunner(name="bench")
        if started:
            runner.start()
            runner.start()
        for _ in range(3):
            runner.close()
        with pytest.raises(RuntimeError, match="bench is closed: make another AsyncRunner"):
            runner.start()
        with pytest.raises(RuntimeError, match="bench is closed"), runner:
            pass


@pytest.mark.guarantee("AR-2")
def test_threads_may_close_together() -> None:
    runner = AsyncRunner()
    runner.start()
    job = Job(gated=True)
    future = runner.submit(job())
    assert job.begun.wait(PATIENCE)
    closers = [Beside(runner.close) for _ in range(5)]
    job.open()
    for closer in closers:
        closer.result()
    assert future.cancelled()
    assert (job.clean, job.broken) == (1, 0)


@pytest.mark.guarantee("AR-2")
def test_a_close_that_finds_the_stack_full_can_be_repeated() -> None:
    """A RecursionError is a RuntimeError, as that of a closed loop is."""

    def at_depth(left: int, act: Callable[[], object]) -> object:
        return at_depth(left - 1, act) if left else act()

    def close_at_every_depth() -> int:
        failed, limit = 0, sys.getrecursionlimit()
        for depth in range(limit - 60, limit, 2):
            runner = begin(async_runner)
            try:
                at_depth(depth, runner.close)
            except RecursionError:
                failed += 1
            runner.close(PATIENCE)
            assert not place(runner)[1].is_alive()
        return failed

    assert Beside(close_at_every_depth).result()


def check_close_survives_hostile_coroutines(m: ModuleType) -> None:
    """Clean-up code that exits, stops the loop, or cancels each task that it finds."""
    cleaned: list[str] = []

    async def hostile(name: str, act: Callable[[], object], turns: int = 1) -> None:
        try:
            await forever()
        finally:
            for _ in range(turns):
                await asyncio.sleep(0)
            cleaned.append(name)
            act()

    def stop() -> None:
        asyncio.get_running_loop().stop()

    def cancel_all() -> None:
        for task in asyncio.all_tasks():
            task.cancel()

    async def slow() -> None:
        try:
            await forever()
        finally:
            for _ in range(100):
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    cleaned.append("slow, cancelled twice")
            cleaned.append("slow")

    runner = begin(m)
    exits = runner.submit(hostile("exits", lambda: sys.exit(3)))
    futures = [runner.submit(hostile("stops", stop)), runner.submit(slow())]
    futures.append(runner.submit(hostile("cancels", cancel_all, turns=9)))
    turn(runner)
    runner.close()
    assert isinstance(exits.exception(0), SystemExit)
    assert all(future.cancelled() for future in futures)
    assert sorted(set(cleaned)) == ["cancels", "exits", "slow", "slow, cancelled twice", "stops"]


@pytest.mark.guarantee("AR-2")
def test_a_loop_that_a_coroutine_stops_goes_on() -> None:
    async def stop() -> int:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)
        return 1

    with AsyncRunner() as runner:
        assert [runner.run(stop(), PATIENCE) for _ in range(3)] == [1] * 3


@pytest.fixture(autouse=True)
def _loops_are_closed() -> Iterator[None]:
    yield
    for loop in left_open:
        type(loop).close(loop)
    left_open.clear()


left_open: list[asyncio.AbstractEventLoop] = []


def leaving_it_open(loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    return lambda: left_open.append(loop)


PROOFS = [
    Proof(
        "AR-2",
        check_close_settles_everything,
        [
            Twin(
                "awaits no clean-up",
                edit("AsyncRunner._wind_down", "loop = asyncio.get_running_loop()", "return"),
                "AssertionError: run.clean, cleans.clean",
            ),
            Twin(
                "leaves its loop open",
                with_loop(close=leaving_it_open),
                "AssertionError: loop.is_closed()",
            ),
        ],
    ),
    Proof(
        "AR-2",
        check_start_and_close_leave_nothing,
        [
            Twin(
                "leaves its loops open",
                with_loop(close=leaving_it_open),
                "AssertionError: descriptors()",
            )
        ],
    ),
    Proof(
        "AR-2",
        check_generators_and_executor_are_closed,
        [
            Twin(
                "leaves generators open",
                with_loop(shutdown_asyncgens=lambda _: nothing),
                "AssertionError: sorted(closed)",
            )
        ],
    ),
    Proof(
        "AR-2",
        check_the_executor_is_waited_for,
        [
            Twin(
                "does not wait for its executor",
                with_loop(shutdown_default_executor=lambda _: nothing),
                ("AssertionError: it has not waited", "Failed: DID NOT RAISE"),
            )
        ],
    ),
    Proof(
        "AR-2",
        check_tasks_of_coroutines_are_awaited,
        [
            Twin(
                "does not await tasks that a coroutine left",
                edit("_end_tasks", "_other_tasks()", "set()"),
                "AssertionError: sorted(order)",
            )
        ],
    ),
    Proof(
        "AR-2",
        check_what_a_helper_begins_late_is_awaited,
        [
            Twin(
                "forgets what its helpers begin last",
                edit("AsyncRunner._wind_down", "await _end_tasks(set())", ""),
                "AssertionError: it was left behind",
            )
        ],
    ),
    Proof(
        "AR-2",
        check_the_own_thread_only_requests,
        [
            Twin(
                "does not know its own threads",
                IS_NOWHERE,
                "AssertionError: outcomes ==",
            )
        ],
    ),
    Proof(
        "AR-2",
        check_close_survives_hostile_coroutines,
        [
            Twin(
                "lets a coroutine cancel the closing",
                edit("AsyncRunner._end_winding_down", "task.cancelled()", "False"),
                "AssertionError: sorted(set(cleaned))",
            )
        ],
    ),
]
