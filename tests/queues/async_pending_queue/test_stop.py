"""AsyncPendingQueue: how it ends, and that it runs once (PQ-5)."""

import asyncio
import contextlib
import math
import shutil
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import pytest

from reference_impl.queues import async_pending_queue
from reference_impl.queues.async_pending_queue import AsyncPendingQueue
from tests.kit.fakes import turns, until
from tests.kit.proofs import Proof, failing, holding
from tests.kit.twins import Twin, override
from tests.queues.async_pending_queue import faults
from tests.queues.async_pending_queue.disk import drop, files
from tests.queues.async_pending_queue.helpers import owning
from tests.queues.async_pending_queue.uploads import Server, nothing
from tests.queues.async_pending_queue.watch import PlainWatch, on_plain_watch, started

pytestmark = pytest.mark.usefixtures("plain_watch")


@on_plain_watch
async def check_stop_when_idle(m: ModuleType, directory: Path) -> None:
    """In the original `run` went on for up to a minute, and uploaded what came meanwhile."""
    queue = m.AsyncPendingQueue(directory, nothing)
    running = await started(queue)
    stopping = asyncio.create_task(queue.stop(None))
    await turns()
    assert running.done(), "it goes on though it is idle"
    await stopping
    drop(directory, "after", b"1")
    PlainWatch.last.announce("after.queued")
    await queue.run()
    await queue.stop()
    assert files(directory) == {"after.queued": b"1"}
    assert asyncio.all_tasks() == {asyncio.current_task()}


@on_plain_watch
async def check_stop_when_busy(m: ModuleType, directory: Path) -> None:
    """One upload ends in time, one is cancelled, one ignores that; the rest is not started."""
    server = Server(holds=True)
    stubborn = asyncio.Event()

    async def upload(path: Path) -> None:
        try:
            await server.upload(path)
        except asyncio.CancelledError:
            if path.stem == "c":
                await stubborn.wait()
                return
            raise

    for name in "abcd":
        drop(directory, name, b"")

    async def stop(queue: Any) -> None:
        running = asyncio.create_task(queue.run())
        await server.until(lambda: len(server.running) == 3)
        stopping = asyncio.create_task(queue.stop(None))
        await turns()
        assert len(server.running) == 3, "it did not wait for its uploads"
        assert not running.done(), "it did not wait for its uploads"
        server.end("a")
        await until(lambda: queue.stats.completed)
        await turns()
        assert server.seen == ["a", "b", "c"], "an upload was started while it stops"
        assert not stopping.done(), "it did not wait for its uploads"
        second = asyncio.create_task(queue.stop(0))
        await until(lambda: not server.running)
        await turns()
        assert not running.done(), "it did not wait for the one that ignores cancellation"
        with pytest.raises(m.DirectoryInUse):
            await m.AsyncPendingQueue(directory, nothing).run()
        stubborn.set()
        await asyncio.gather(running, stopping, second)
        assert sorted(files(directory)) == ["a.completed", "b.queued", "c.completed", "d.queued"]

    queue = m.AsyncPendingQueue(directory, upload, max_concurrency=3)
    try:
        await stop(queue)
    finally:
        stubborn.set()


@on_plain_watch
async def check_stop_meets_a_timeout(m: ModuleType, directory: Path) -> None:
    """The upload's own timeout is over, and closes what it used, when it is time to cancel."""
    closing = asyncio.Event()

    async def upload(path: Path) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                try:
                    await asyncio.get_running_loop().create_future()
                finally:
                    closing.set()
                    await turns()
        await asyncio.get_running_loop().create_future()  # its next try

    drop(directory, "a", b"1")
    queue = m.AsyncPendingQueue(directory, upload)
    running = asyncio.create_task(queue.run())
    await closing.wait()
    stopping = asyncio.create_task(queue.stop(0))
    await turns(50)
    assert running.done(), "the upload goes on, and nothing will cancel it"
    await asyncio.gather(running, stopping)
    assert files(directory) == {"a.queued": b"1"}
    assert (queue.stats.failed, queue.stats.errors) == (0, 0)


@on_plain_watch
async def check_entries(m: ModuleType, directory: Path) -> None:
    """A second entry, or run beside an entry, is refused, and the first goes on."""
    once = "this AsyncPendingQueue runs once: make a new one to run again"

    async def refused(use: Awaitable[object]) -> None:
        try:
            await use
        except RuntimeError as error:
            assert str(error) == once  # noqa: PT017
        else:
            raise AssertionError("it is accepted")

    async def goes_on(queue: Any, name: str) -> None:
        completed = queue.stats.completed
        await queue.submit(name, b"1")
        await until(lambda: queue.stats.completed > completed)

    queue = m.AsyncPendingQueue(directory, nothing)
    async with owning(queue):  # nested
        await refused(queue.__aenter__())
        await refused(queue.run())
        await goes_on(queue, "a")
    queue = m.AsyncPendingQueue(directory, nothing)
    running = await started(queue)
    await refused(queue.__aenter__())  # while run runs
    await goes_on(queue, "b")
    await queue.stop()
    await running
    queue = m.AsyncPendingQueue(directory, nothing)
    entering = asyncio.create_task(queue.__aenter__())
    await asyncio.sleep(0)  # it is entered, and has not begun
    await refused(queue.__aenter__())
    await refused(queue.run())
    await entering
    await goes_on(queue, "c")
    await queue.__aexit__(None, None, None)
    queue = m.AsyncPendingQueue(directory, nothing)
    running = asyncio.create_task(queue.run())
    async with owning(queue):  # before run has begun
        await refused(running)
        await goes_on(queue, "d")


def _in_a_minute(stop: Any) -> Any:
    async def call(queue: Any, timeout: float | None = 30.0) -> None:
        await asyncio.sleep(60)
        await stop(queue, timeout)

    return call


def _in_the_background(stop: Any) -> Any:
    stops: list[asyncio.Task[None]] = []

    async def call(queue: Any, timeout: float | None = 30.0) -> None:
        stops.append(asyncio.create_task(stop(queue, timeout)))

    return call


def _for_anybody(enter: Any) -> Any:
    async def call(queue: Any) -> Any:
        with contextlib.suppress(RuntimeError):
            await enter(queue)
        return queue

    return call


LATE = Twin(
    "looks once a minute whether it is stopped",
    override("AsyncPendingQueue.stop", _in_a_minute),
    "AssertionError: it goes on though it is idle",
)
NO_TIME = Twin(
    "gives uploads no time", faults.STOPS_AT_ONCE, "AssertionError: it did not wait for its uploads"
)
BACKGROUND = Twin(
    "stops in the background",
    override("AsyncPendingQueue.stop", _in_the_background),
    "AssertionError: it did not wait for its uploads",
)
NOT_CANCELLED = Twin(
    "takes an upload's own timeout for its cancellation",
    faults.STOPS_NO_TIMEOUT,
    "AssertionError: nothing will cancel it",
)
ENTERED_TWICE = Twin(
    "may be entered twice",
    override("AsyncPendingQueue.__aenter__", _for_anybody),
    "AssertionError: it is accepted",
)
PROOFS = [
    Proof("PQ-5", check_stop_when_idle, [LATE]),
    Proof("PQ-5", check_stop_when_busy, [NO_TIME, BACKGROUND]),
    Proof("PQ-5", check_stop_meets_a_timeout, [NOT_CANCELLED]),
    Proof("PQ-5", check_entries, [ENTERED_TWICE]),
]

test_it_ends_with_care_and_runs_once = holding(PROOFS, async_pending_queue, "directory")
test_an_end_without_care_is_caught = failing(PROOFS, async_pending_queue, "directory")


@pytest.mark.guarantee("PQ-5")
async def test_to_stop_again_does_not_interrupt_the_leaving_of_the_watch(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving, may_leave = asyncio.Event(), asyncio.Event()
    left: list[PlainWatch] = []

    class Slow(PlainWatch):
        async def __aexit__(self, *_: object) -> None:
            leaving.set()
            await may_leave.wait()
            left.append(self)

    monkeypatch.setattr(async_pending_queue, "DirectoryWatch", Slow)
    queue = AsyncPendingQueue(directory, nothing)
    running = await started(queue)
    stops = [asyncio.create_task(queue.stop())]
    await leaving.wait()
    stops.append(asyncio.create_task(queue.stop()))
    await turns()
    assert not running.done()
    may_leave.set()
    await asyncio.gather(running, *stops)
    assert left == [Slow.last]


@pytest.mark.guarantee("PQ-5")
async def test_a_stop_that_waits_for_an_upload_does_not_poll(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait, waits = asyncio.wait, 0

    async def counted(*args: Any, **options: Any) -> Any:
        nonlocal waits
        waits += 1
        return await wait(*args, **options)

    server = Server(holds=True)
    drop(directory, "a", b"1")
    async with owning(AsyncPendingQueue(directory, server.upload)) as queue:
        await server.until(lambda: server.running)
        monkeypatch.setattr(asyncio, "wait", counted)
        stopping = asyncio.create_task(queue.stop(math.inf))
        await turns()
        before = waits
        await turns()
        assert waits == before, "it looks again and again"
        server.end("a")
        await stopping


@pytest.mark.guarantee("PQ-5")
async def test_uploads_are_cancelled_at_the_end_of_the_timeout(directory: Path) -> None:
    drop(directory, "a", b"1")
    server = Server(holds=True)
    queue = AsyncPendingQueue(directory, server.upload)
    async with queue:
        await server.until(lambda: server.running)
        await queue.stop(timeout=0.01)
        assert files(directory) == {"a.queued": b"1"}


@pytest.mark.guarantee("PQ-5")
async def test_to_stop_again_leaves_the_clean_up_of_uploads_in_peace(directory: Path) -> None:
    cleaning, may_end = asyncio.Event(), asyncio.Event()
    cleaned: list[str] = []

    async def upload(path: Path) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cleaning.set()
            await may_end.wait()
            cleaned.append(path.stem)

    drop(directory, "a", b"1")
    queue = AsyncPendingQueue(directory, upload)
    running = asyncio.create_task(queue.run())
    await until(lambda: queue.stats.uploading)
    await turns()
    stops = [asyncio.create_task(queue.stop(0)) for _ in range(2)]
    await cleaning.wait()
    stops.append(asyncio.create_task(queue.stop(0)))
    await turns()
    assert not running.done()
    may_end.set()
    await asyncio.gather(running, *stops)
    assert cleaned == ["a"]
    assert files(directory) == {"a.queued": b"1"}


@pytest.mark.guarantee("PQ-5")
async def test_stop_in_an_upload_only_requests_it(directory: Path) -> None:
    async def upload(path: Path) -> None:
        await queue.stop()
        await queue.stop()

    for name in "ab":
        drop(directory, name, b"1")
    queue = AsyncPendingQueue(directory, upload, max_concurrency=1)
    await queue.run()
    assert sorted(files(directory)) == ["a.completed", "b.queued"]


@pytest.mark.guarantee("PQ-5")
async def test_a_queue_stopped_before_it_runs_does_not_run(directory: Path) -> None:
    drop(directory, "a", b"1")
    queue = AsyncPendingQueue(directory, nothing)
    await queue.stop()
    await queue.run()
    async with queue:
        pass
    assert files(directory) == {"a.queued": b"1"}


async def test_a_queue_runs_once(directory: Path) -> None:
    once = "^this AsyncPendingQueue runs once: make a new one to run again$"
    queue = AsyncPendingQueue(directory, nothing)
    running = await started(queue)
    with pytest.raises(RuntimeError, match=once):
        await queue.run()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    with pytest.raises(RuntimeError, match=once):
        await queue.run()


@pytest.mark.guarantee("PQ-5")
async def test_a_cancelled_run_puts_back_and_lets_go(directory: Path) -> None:
    drop(directory, "a", b"1")
    server = Server(holds=True)
    running = asyncio.create_task(AsyncPendingQueue(directory, server.upload).run())
    await server.until(lambda: server.running)
    running.cancel()
    await turns()
    assert running.cancelled(), "it takes time"
    assert files(directory) == {"a.queued": b"1"}
    async with AsyncPendingQueue(directory, nothing) as queue:
        await until(lambda: queue.stats.completed)


async def test_a_block_that_is_cancelled_while_it_is_left_still_ends(directory: Path) -> None:
    drop(directory, "a", b"1")
    server = Server(holds=True)

    async def block() -> None:
        async with AsyncPendingQueue(directory, server.upload):
            await server.until(lambda: server.running)

    task = asyncio.create_task(block())
    await server.until(lambda: server.running)
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert files(directory) == {"a.queued": b"1"}
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_block_that_is_cancelled_while_it_is_entered_lets_go(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entering = asyncio.Event()

    class Endless(PlainWatch):
        async def __aenter__(self) -> Self:
            entering.set()
            await asyncio.get_running_loop().create_future()
            return self

    with monkeypatch.context() as patch:
        patch.setattr(async_pending_queue, "DirectoryWatch", Endless)
        task = asyncio.create_task(AsyncPendingQueue(directory, nothing).__aenter__())
        await entering.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert asyncio.all_tasks() == {asyncio.current_task()}
    async with AsyncPendingQueue(directory, nothing):
        pass


async def test_a_directory_that_vanishes_ends_run_and_its_uploads(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Vanishing(PlainWatch):
        async def __anext__(self) -> Path:
            path = await super().__anext__()
            if path.name == "end":
                raise FileNotFoundError("the directory has vanished")
            return path

    monkeypatch.setattr(async_pending_queue, "DirectoryWatch", Vanishing)
    server = Server(holds=True)
    drop(directory, "a", b"1")
    over = False
    with pytest.raises(FileNotFoundError, match="has vanished"):
        async with AsyncPendingQueue(directory, server.upload):
            await server.until(lambda: server.running)
            shutil.rmtree(directory)
            Vanishing.last.announce("end")
            await turns(50)
            over = asyncio.all_tasks() == {asyncio.current_task()}
    assert over, "it takes time"
    assert not server.running
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("timeout", [-1, math.nan, "1", True])
async def test_a_bad_timeout_stops_nothing(directory: Path, timeout: Any) -> None:
    async with AsyncPendingQueue(directory, nothing) as queue:
        with pytest.raises((TypeError, ValueError), match="timeout must be"):
            await queue.stop(timeout)
        await queue.submit("a", b"1")
        await until(lambda: queue.stats.completed)


@pytest.mark.guarantee("PQ-5")
def test_a_block_that_is_left_on_another_loop_does_not_hang(directory: Path) -> None:
    """To leave it on another loop is refused at once, and stops nothing."""
    queue = AsyncPendingQueue(directory, nothing)

    async def elsewhere(use: Callable[[], Coroutine[Any, Any, object]]) -> None:
        using = asyncio.create_task(use())
        await turns()
        assert using.done(), "it waits for another loop's task"
        with pytest.raises(RuntimeError, match="belongs to the event loop that ran it"):
            await using

    async def goes_on() -> None:
        await queue.submit("a", b"1")
        await until(lambda: queue.stats.completed)
        await queue.__aexit__(None, None, None)

    with asyncio.Runner() as its_own:
        its_own.run(queue.__aenter__())
        asyncio.run(elsewhere(lambda: queue.__aexit__(None, None, None)))
        asyncio.run(elsewhere(queue.__aenter__))
        its_own.run(goes_on())
