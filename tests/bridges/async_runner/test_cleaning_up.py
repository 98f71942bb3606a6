"""AR-2: AsyncRunner's close leaves clean-ups alone, waits for them, and may give up waiting."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import async_runner
from tests.bridges.async_runner.helpers import (
    STARTS_AGAIN,
    Job,
    begin,
    forever,
    place,
    running,
    turn,
    value,
    was_closed,
)
from tests.kit.fakes import PATIENCE
from tests.kit.proofs import Proof
from tests.kit.twins import Twin, edit, override


def check_a_clean_up_may_wait_for_a_background_task(m: ModuleType, depth: int) -> None:
    """One that nobody else cancels, so that the runner has to, while the clean-up waits."""
    tasks: list[asyncio.Task[None]] = []
    begun, ended = threading.Event(), []

    async def begin() -> None:
        tasks.append(asyncio.create_task(forever()))

    async def nested(depth: int) -> None:
        try:
            if depth:
                async with asyncio.TaskGroup() as group:
                    group.create_task(nested(depth - 1))
            else:
                begun.set()
                await forever()
        finally:
            if not depth:
                await asyncio.wait(tasks)
            ended.append(depth)

    runner = m.AsyncRunner()
    runner.start()
    runner.run(begin())
    runner.submit(nested(depth))
    assert begun.wait(PATIENCE)
    runner.close(PATIENCE)
    assert ended == list(range(depth + 1))
    assert tasks[0].cancelled()


@pytest.mark.guarantee("AR-2")
@pytest.mark.parametrize("depth", [0, 1, 2, 5])
def test_a_clean_up_may_wait_for_a_background_task(depth: int) -> None:
    check_a_clean_up_may_wait_for_a_background_task(async_runner, depth)


def check_children_finish_their_clean_up(m: ModuleType) -> None:
    """Cancelling a future cancels the tasks of its group; close does not cancel them again."""
    child = Job(gated=True)

    async def parent() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())

    with running(m) as runner:
        try:
            future = runner.submit(parent())
            assert child.begun.wait(PATIENCE)
            future.cancel()
            assert child.cleaning.wait(PATIENCE)
            with pytest.raises(TimeoutError):
                runner.close(timeout=0)
            turn(runner, 5)
        finally:
            child.open()
    assert (child.clean, child.broken) == (1, 0)


class Waits:
    """Counts the waits for tasks of asyncio, which take no time where they have a limit."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        wait = asyncio.wait

        async def counted(*tasks: Any, timeout: float | None = None, **options: Any) -> Any:
            self.count += 1
            return await wait(*tasks, timeout=timeout and 0.0, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio, "wait", counted)
            yield


def check_close_meets_a_timeout(m: ModuleType) -> None:
    """A background task just ends a timeout of its own, and what was submitted waits for it.

    Another one is cancelled at once, and cleans up for longer than both.
    """
    job, other, ended = Job(gated=True), Job(gated=True), []
    tasks: list[asyncio.Task[None]] = []

    async def background() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                await job()
        try:
            await forever()  # its next try
        finally:
            ended.append("background")

    async def foreground() -> None:
        tasks.append(asyncio.create_task(background()))
        beside = asyncio.create_task(other())
        try:
            await forever()
        finally:
            del beside
            await asyncio.wait(tasks)
            ended.append("foreground")

    waits = Waits()
    with running(m) as runner, waits.counted():
        runner.submit(foreground())
        assert job.cleaning.wait(PATIENCE)
        try:
            with pytest.raises(TimeoutError):
                runner.close(timeout=0)
            turn(runner, 20)
            assert waits.count <= 2, "it looks again and again"  # ours, and the foreground's
            job.open()
            turn(runner, 30)
            assert (job.clean, job.broken) == (1, 0)
            assert ended == ["background", "foreground"], "it goes on, and nothing cancels it"
            other.open()
            turn(runner, 10)
            assert (other.clean, other.broken) == (1, 0), "cancelled twice"
        finally:
            job.open()
            other.open()
            turn(runner, 5)
            with suppress(RuntimeError):  # over, and the loop is closed
                place(runner)[0].call_soon_threadsafe(tasks[0].cancel)


def check_close_sleeps_until_a_clean_up_ends(m: ModuleType) -> None:
    """Where nobody is ending a timeout, there is nothing to look for."""
    job, background, waits = Job(gated=True), Job(gated=True), Waits()

    kept: list[asyncio.Task[None]] = []

    async def begin() -> None:
        kept.append(asyncio.create_task(background()))

    with running(m) as runner, waits.counted():
        runner.run(begin())
        runner.submit(job())
        assert job.begun.wait(PATIENCE)
        try:
            with pytest.raises(TimeoutError):
                runner.close(timeout=0)
            assert job.cleaning.wait(PATIENCE)
            assert background.cleaning.wait(PATIENCE)
            turn(runner, 20)
            assert waits.count == 1, "it looks again and again"
        finally:
            background.open()
            job.open()
    assert (job.clean, background.clean, background.broken) == (1, 1, 0)


def check_close_times_out_and_goes_on(m: ModuleType) -> None:
    runner = begin(m, name="bench")
    job = Job(gated=True)
    future = runner.submit(job())
    _, thread = place(runner)
    assert job.begun.wait(PATIENCE)
    try:
        for _ in range(2):
            with pytest.raises(
                TimeoutError,
                match=r"bench has not ended after 0 s, with 1 coroutines left: "
                r"it goes on, call close\(\) again to wait$",
            ):
                runner.close(timeout=0)
        assert job.cleaning.wait(PATIENCE)
        refused = value()
        with pytest.raises(RuntimeError, match="bench is closed"):
            runner.submit(refused)
        assert was_closed(refused)
        with pytest.raises(RuntimeError, match="bench is closed: make another AsyncRunner"):
            runner.start()
        assert not future.done()
        assert thread.is_alive()
    finally:
        job.open()
        runner.close(PATIENCE)
        thread.join(PATIENCE)
    assert future.cancelled()
    assert (job.clean, job.broken) == (1, 0)


def says_nothing(original: Any) -> Any:
    def close(runner: Any, timeout: float | None = None) -> None:
        with suppress(TimeoutError):
            original(runner, timeout)

    return close


PROOFS = [
    Proof(
        "AR-2",
        check_children_finish_their_clean_up,
        [
            Twin(
                "cancels children in their clean-up",
                edit("AsyncRunner._wind_down", "not task.cancelling()", "True"),
                ("AssertionError: (child.clean, child.broken)", "Failed: DID NOT RAISE"),
            )
        ],
    ),
    Proof(
        "AR-2",
        check_close_meets_a_timeout,
        [
            Twin(
                "does not look again at who ends a timeout",
                edit(
                    "_wait_until_one_may_be_free",
                    "asyncio.FIRST_COMPLETED if waits else asyncio.ALL_COMPLETED",
                    "asyncio.ALL_COMPLETED",
                ),
                "AssertionError: it goes on, and nothing cancels it",
            ),
            Twin(
                "forgets whom it has cancelled",
                edit("AsyncRunner._wind_down", "rest |= free", "rest = free"),
                "AssertionError: cancelled twice",
            ),
        ],
    ),
    Proof(
        "AR-2",
        check_close_sleeps_until_a_clean_up_ends,
        [
            Twin(
                "looks again and again",
                edit(
                    "_wait_until_one_may_be_free",
                    "await asyncio.wait(ours | (waits - {None}), timeout=soon, return_when=how)",
                    "await asyncio.wait(ours, timeout=0.05)",
                ),
                "AssertionError: it looks again and again",
            )
        ],
    ),
    Proof(
        "AR-2",
        check_close_times_out_and_goes_on,
        [
            Twin(
                "says nothing of a close that has given up",
                override("AsyncRunner.close", says_nothing),
                "Failed: DID NOT RAISE",
            ),
            Twin(
                "lets a closed runner be started",
                STARTS_AGAIN,
                "Failed: DID NOT RAISE",
            ),
        ],
    ),
]
