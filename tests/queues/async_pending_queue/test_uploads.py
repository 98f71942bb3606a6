"""AsyncPendingQueue: so many uploads at once, and nobody waits for a slow one (PQ-3)."""

import asyncio
import sys
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reference_impl.queues import async_pending_queue
from reference_impl.queues.async_pending_queue import AsyncPendingQueue, PendingStats
from tests.kit.fakes import turns, until
from tests.kit.proofs import Proof, failing, holding
from tests.kit.twins import Twin, patch
from tests.queues.async_pending_queue import faults
from tests.queues.async_pending_queue.disk import drop, files, unfinished
from tests.queues.async_pending_queue.helpers import LOGGER, owning, stopped_clock
from tests.queues.async_pending_queue.uploads import Pauses, Server, fails_with
from tests.queues.async_pending_queue.watch import PlainWatch, on_plain_watch, started

pytestmark = pytest.mark.usefixtures("plain_watch")


@on_plain_watch
async def check_concurrency(m: ModuleType, directory: Path) -> None:
    """Three slots, two slow uploads: all others go through the third, new ones, too.

    In the original a slow one held up a new file for as long as it took.
    """
    server = Server(holds=True)
    for number in range(6):
        drop(directory, f"{number}", b"")
    queue = m.AsyncPendingQueue(directory, server.upload, max_concurrency=3)
    async with owning(queue):
        await server.until(lambda: len(server.running) >= 3)
        await turns()
        assert server.seen == ["0", "1", "2"], "more than three at once"
        for name in ("2", "3", "4", "5"):
            assert name in server.running, f"{name} waits for a slow upload"
            server.end(name)
            await turns()
        drop(directory, "new", b"")
        PlainWatch.last.announce("new.queued")
        await turns()
        assert "new" in server.running, "the new one waits for a slow upload"
        for name in ("0", "1", "new"):
            server.end(name)
        await until(lambda: queue.stats.completed == 7)
    assert server.most == 3


@on_plain_watch
async def check_lazy(m: ModuleType, directory: Path) -> None:
    """However many files there are: a task for each slot, and one name drawn ahead.

    In the original 5,000 files were 5,002 tasks.
    """

    class Endless(PlainWatch):
        async def __anext__(self) -> Path:
            self.drawn += 1
            return self.path / f"{self.drawn}.queued"

    vars(m)["DirectoryWatch"] = Endless  # until the check is over
    server = Server(holds=True)
    for number in range(1, 10):
        drop(directory, f"{number}", b"")
    before = len(asyncio.all_tasks())
    queue = m.AsyncPendingQueue(directory, server.upload, max_concurrency=4)
    async with owning(queue):
        await server.until(lambda: len(server.running) == 4)
        await turns()
        assert Endless.last.drawn == 5, f"{Endless.last.drawn} names were drawn for 4 slots"
        assert len(asyncio.all_tasks()) - before == 4 + 2  # run, and the one that draws
        server.end("1")
        await server.until(lambda: "5" in server.running)
        await turns()
        assert Endless.last.drawn == 6
        await queue.stop(0)


def _draws_ahead(m: ModuleType) -> None:
    """Whatever watch it has is read a hundred names ahead."""
    run = m.AsyncPendingQueue.run

    async def reading_ahead(queue: Any) -> None:
        names: list[Path] = []

        class Ahead(m.DirectoryWatch):  # type: ignore[misc, name-defined]
            async def __anext__(self) -> Path:
                while len(names) < 100:
                    names.append(await super().__anext__())
                return Path(names.pop(0))

        vars(m)["DirectoryWatch"] = Ahead
        await run(queue)

    m.AsyncPendingQueue.run = reading_ahead


ONE_MORE = Twin(
    "starts more uploads than it may",
    faults.given(max_concurrency=lambda most: most + 1),
    "AssertionError: more than three at once",
)
BATCHES = Twin(
    "uploads in batches", faults.uploads_in_batches(), "AssertionError: waits for a slow upload"
)
AHEAD = Twin(
    "draws names ahead", patch(_draws_ahead), "AssertionError: names were drawn for 4 slots"
)
PROOFS = [Proof("PQ-3", check_concurrency, [ONE_MORE, BATCHES]), Proof("PQ-3", check_lazy, [AHEAD])]

test_slots_are_free_for_whoever_comes = holding(PROOFS, async_pending_queue, "directory")
test_slots_that_are_not_slots_are_caught = failing(PROOFS, async_pending_queue, "directory")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks need Python >= 3.12")
@pytest.mark.guarantee("PQ-3")
async def test_eager_tasks_work(directory: Path) -> None:
    """They take their first step at once: the queue is to know them by then."""
    asyncio.get_running_loop().set_task_factory(vars(asyncio)["eager_task_factory"])
    seen: list[str] = []

    async def upload(path: Path) -> None:
        seen.append(path.stem)
        assert queue.stats.uploading <= 2
        if path.stem == "c":
            await queue.stop()

    for name in "abcd":
        drop(directory, name, b"1")
    queue = AsyncPendingQueue(directory, upload, max_concurrency=2)
    running = await started(queue)
    await turns()
    assert running.done(), "it takes time"
    assert seen[:3] == ["a", "b", "c"]
    assert queue.stats.completed == len(seen)
    assert not any(name.endswith(".processing") for name in files(directory))


@pytest.mark.guarantee("PQ-3")
async def test_by_default_there_are_five_slots_and_thirty_seconds_to_stop(directory: Path) -> None:
    clock = stopped_clock()
    server = Server(holds=True)
    for name in "abcdefg":
        drop(directory, name, b"")
    async with owning(AsyncPendingQueue(directory, server.upload)) as queue:
        await server.until(lambda: len(server.running) >= 5)
        await turns()
        assert server.seen == list("abcde")
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert {"AsyncPendingQueue", *(f"upload {name}" for name in "abcde")} <= names
        stopping = asyncio.create_task(queue.stop())
        await turns()
        clock.tick(29.5)
        await turns()
        assert len(server.running) == 5, "they were cancelled before their time"
        clock.tick(1.0)
        await turns()
        assert stopping.done()
    assert sorted(files(directory)) == [f"{name}.queued" for name in "abcdefg"]


async def test_uploads_see_the_context_of_run_and_not_each_others(directory: Path) -> None:
    variable = ContextVar("variable", default="unset")
    seen: list[str] = []

    async def upload(path: Path) -> None:
        seen.append(variable.get())
        variable.set(path.stem)
        if len(seen) < 6:
            raise ConnectionError

    variable.set("of run")
    for name in "ab":
        drop(directory, name, b"1")
    queue = AsyncPendingQueue(directory, upload, max_attempts=9, backoff=lambda n: 0.0)
    async with queue:
        variable.set("later")
        await queue.submit("c", b"1")
        await until(lambda: queue.stats.completed == 3)
    assert set(seen) == {"of run"}


async def test_stats_count_files_and_attempts(directory: Path) -> None:
    async def upload(path: Path) -> None:
        if path.stem in "abc":
            raise ConnectionError

    for name in "abcde":
        drop(directory, name, b"1")
    queue = AsyncPendingQueue(directory, upload, max_attempts=2, backoff=lambda n: 0.0)
    async with queue:
        await until(lambda: not unfinished(directory))
        await turns()
        assert queue.stats == PendingStats(completed=2, failed=6, given_up=3)


async def test_what_happens_is_logged(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    drop(directory, "a", b"1")
    upload = fails_with(ConnectionError("no route"))
    queue = AsyncPendingQueue(directory, upload, max_attempts=2, backoff=Pauses(0.0))
    async with queue:
        await until(lambda: queue.stats.given_up)
    assert [(r.levelname, r.getMessage()) for r in caplog.records if r.name == LOGGER] == [
        ("WARNING", "attempt 1 to upload 'a' failed: ConnectionError('no route')"),
        ("WARNING", "attempt 2 to upload 'a' failed: ConnectionError('no route')"),
        ("ERROR", "'a' is given up: see its .error.json"),
    ]
