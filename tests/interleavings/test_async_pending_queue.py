"""AsyncPendingQueue under a deterministic loop: schedules, stop and cancellation at any time.

The files are real ones in a fresh directory for each schedule; the watch is a plain one on the
same loop, whose announcements may come at any time, twice, or for files that are gone.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import ModuleType
from typing import Any

import detangle
import pytest

from reference_impl.queues import async_pending_queue
from tests.kit.explore import Schedules
from tests.kit.twins import twin
from tests.queues.pending_queue_crashes import PlainWatch, drop, files, unfinished

FILE = "queues/async_pending_queue.py"
Model = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture(autouse=True)
def plain_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_pending_queue, "DirectoryWatch", PlainWatch)


def broken(*faults: tuple[str, str]) -> ModuleType:
    module = twin(FILE, *faults)
    module.__dict__["DirectoryWatch"] = PlainWatch
    return module


class Server:
    """Uploads take a few turns; it sees which run at once, and which were completed."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.running: list[str] = []
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.most = self.cancelled = 0

    async def upload(self, path: Path) -> None:
        content = path.read_text()
        assert content not in self.running, f"{content} is uploaded twice at once"
        self.running.append(content)
        self.begun.append(content)
        self.most = max(self.most, len(self.running))
        try:
            await asyncio.sleep(0)
            if self.failures:
                self.failures -= 1
                raise ConnectionError(content)
            self.ended.append(content)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running.remove(content)


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def finished(directory: Path) -> None:
    """Wait until all is completed; the loop's time is virtual."""
    for _ in range(200):
        if not unfinished(directory):
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"these are left alone: {unfinished(directory)}")


def everything_comes_to_its_end(module: ModuleType) -> Model:
    """Four files and two slots; announcements again, and a newer file while one is uploaded."""

    async def model() -> None:
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(folder, "queue")
            directory.mkdir()
            for name in "ab":
                drop(directory, name, name.encode())
            server = Server(failures=1)
            queue = module.AsyncPendingQueue(
                directory, server.upload, max_concurrency=2, backoff=lambda n: 0.0
            )

            async def produce() -> None:
                for name, content in (("c", "c"), ("a", "newer a")):
                    await asyncio.sleep(0)
                    if not (directory / f"{name}.queued").exists():
                        drop(directory, name, content.encode())
                    PlainWatch.last.announce(f"{name}.queued")

            async with queue:
                producing = asyncio.create_task(produce(), name="producer")
                await producing
                await finished(directory)
            assert server.most <= 2, "more uploads than slots"
            there = {data.decode() for data in files(directory).values()}
            assert {"a", "b", "c"} <= there <= {"a", "b", "c", "newer a"}, f"lost: {there}"
            assert sorted(server.ended) == sorted(there), f"uploaded {server.ended}"
            assert not queue._ready, f"left alone: {queue._ready}"
            assert not queue._waiting

    return model


@pytest.mark.guarantee("PQ-2", "PQ-3")
def test_no_schedule_leaves_a_file_or_uploads_it_twice(schedules: Schedules) -> None:
    schedules.prove(everything_comes_to_its_end(async_pending_queue), delays=3)
    schedules.sample(everything_comes_to_its_end(async_pending_queue), schedules=300)


@pytest.mark.twin("PQ-2", "PQ-3")
@pytest.mark.parametrize(
    "fault",
    [
        ("        if name not in self._running:  # else", "        if True:  # else"),
        ("if name not in self._waiting and any", "if False and any"),
        ("len(self._running) < self._max_concurrency", "len(self._running) < 3"),
        ("            self._room.set_result(None)", "            pass"),
    ],
    ids=[
        "a running name starts again",
        "a newer file is left alone",
        "one upload too many",
        "the one that draws is not woken",
    ],
)
def test_faulty_bookkeeping_is_caught(schedules: Schedules, fault: tuple[str, str]) -> None:
    schedules.catch(everything_comes_to_its_end(broken(fault)))


def stop_at_any_time(module: ModuleType, *, how: str) -> Model:
    """However it ends: nothing runs, nothing is lost, the next owner finds all there is."""

    async def model() -> None:
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(folder, "queue")
            directory.mkdir()
            for name in "abc":
                drop(directory, name, name.encode())
            server = Server(failures=1)
            queue = module.AsyncPendingQueue(
                directory, server.upload, max_concurrency=2, backoff=lambda n: 0.0
            )
            running = asyncio.create_task(queue.run(), name="run")
            await turns(detangle.choice(list(range(8))))
            if how == "run is cancelled":
                running.cancel()
            else:
                stopping = asyncio.create_task(queue.stop(0 if how == "stop" else 30), name="stop")
                if how == "stop is cancelled":
                    await turns(detangle.choice([0, 1]))
                    stopping.cancel()
                await asyncio.wait([stopping])
                if not queue._stop_asked:  # the task was cancelled before its first step
                    running.cancel()
            await asyncio.wait([running])
            assert running.cancelled() or running.exception() is None
            assert not server.running, "an upload goes on"
            if how == "stop in time":
                assert not server.cancelled, "an upload was cancelled before its time"
            assert asyncio.all_tasks() == {asyncio.current_task()}, "a task is left"
            found = files(directory)
            assert sorted(found.values()) == [b"a", b"b", b"c"], f"lost: {sorted(found)}"
            assert not any(name.endswith(".processing") for name in found), "left .processing"
            completed = [d.decode() for n, d in found.items() if n.endswith(".completed")]
            assert sorted(completed) == sorted(server.ended)
            for path in directory.glob(".*.attempts"):
                failed = server.begun.count(path.name[1]) - server.ended.count(path.name[1])
                assert len(path.read_bytes()) <= failed
            again = module.AsyncPendingQueue(directory, Server().upload)
            async with again:
                await finished(directory)
            assert again.stats.recovered == 0

    return model


HOWS = ["stop", "stop in time", "stop is cancelled", "run is cancelled"]


@pytest.mark.guarantee("PQ-1", "PQ-4", "PQ-5")
@pytest.mark.parametrize("how", HOWS)
def test_it_ends_at_any_time_and_loses_nothing(schedules: Schedules, how: str) -> None:
    schedules.prove(stop_at_any_time(async_pending_queue, how=how), delays=3)
    schedules.sample(stop_at_any_time(async_pending_queue, how=how), schedules=200)


@pytest.mark.twin("PQ-1", "PQ-4", "PQ-5")
@pytest.mark.parametrize(
    ("how", "fault"),
    [
        (
            "stop",
            (
                "                self._put_back(name, attempt)\n                raise asyncio",
                "                raise asyncio",
            ),
        ),
        (
            "run is cancelled",
            ("while not serving.done() or self._running:", "while not serving.done():"),
        ),
        ("stop in time", ("call_later(timeout,", "call_later(0,")),
    ],
    ids=["a cancelled file is not put back", "uploads outlive run", "no time for uploads"],
)
def test_an_end_without_care_is_caught(
    schedules: Schedules, how: str, fault: tuple[str, str]
) -> None:
    schedules.catch(stop_at_any_time(broken(fault), how=how))


def stop_beside_timeouts(module: ModuleType) -> Model:
    """An upload has timeouts of its own, and after each it closes what it used, and goes on."""

    async def model() -> None:
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(folder, "queue")
            directory.mkdir()
            drop(directory, "a", b"a")

            async def upload(path: Path) -> None:
                for timeout in (0, 0, None):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(timeout):
                            try:
                                await asyncio.get_running_loop().create_future()
                            finally:
                                await asyncio.sleep(0)

            queue = module.AsyncPendingQueue(directory, upload)
            running = asyncio.create_task(queue.run(), name="run")
            await turns(detangle.choice(list(range(12))))
            stopping = asyncio.create_task(queue.stop(0), name="stop")
            await asyncio.wait([running, stopping])  # a deadlock, unless the upload is cancelled
            assert list(files(directory)) == ["a.queued"]
            assert queue.stats.failed == 0

    return model


@pytest.mark.guarantee("PQ-5")
def test_a_stop_at_any_time_of_an_uploads_own_timeouts_cancels_it(schedules: Schedules) -> None:
    schedules.prove(stop_beside_timeouts(async_pending_queue), delays=3)


@pytest.mark.twin("PQ-5")
def test_a_stop_that_leaves_out_what_a_timeout_cancels_is_caught(schedules: Schedules) -> None:
    fault = (
        "                task.cancel()\n",
        "                task.cancelling() or task.cancel()\n",
    )
    schedules.catch(stop_beside_timeouts(broken(fault)))


def put_back(module: ModuleType) -> Model:
    """A producer's newer file comes at any time while the older one is uploaded, and fails."""

    async def model() -> None:
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(folder, "queue")
            directory.mkdir()
            drop(directory, "a", b"old")
            begun: list[bytes] = []
            dropped = [b"old"]

            async def upload(path: Path) -> None:
                begun.append(path.read_bytes())
                await asyncio.sleep(0)  # the server has a.processing now
                if len(begun) == 1:
                    raise ConnectionError("the server refuses it: it is put back")

            async def producer() -> None:
                while not begun:
                    await asyncio.sleep(0)  # nothing to report yet
                if not (directory / "a.queued").exists():
                    drop(directory, "a", b"new")
                    dropped.append(b"new")
                    PlainWatch.last.announce("a.queued")
                    await asyncio.sleep(0)  # a newer a.queued is there

            queue = module.AsyncPendingQueue(directory, upload, backoff=lambda n: 0.0)
            async with queue:
                producing = asyncio.create_task(producer(), name="producer")
                await producing
                await finished(directory)
            left = sorted(files(directory).values())
            assert left == sorted(dropped), "the put-back has overwritten the newer file"

    return model


PUT_BACK_BY_RENAME = (
    'target.hardlink_to(self._path(name, "processing"))',
    'self._path(name, "processing").replace('
    "self._path(name, state) if state == 'queued' else target)",
)


@pytest.mark.guarantee("PQ-1")
def test_a_newer_file_at_any_time_of_an_upload(schedules: Schedules) -> None:
    schedules.prove(put_back(async_pending_queue), delays=3)


@pytest.mark.twin("PQ-1")
def test_a_put_back_by_rename_is_caught(schedules: Schedules) -> None:
    schedules.catch(
        put_back(broken(PUT_BACK_BY_RENAME)),
        diagram="A put-back by rename overwrites the newer file of that name",
        lanes=("producer", "upload"),
    )
