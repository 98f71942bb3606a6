"""AsyncPendingQueue under a deterministic loop: schedules, stop and cancellation at any time.

The files are real ones in a fresh directory for each schedule; the watch is a plain one on the
same loop, whose announcements may come at any time, twice, or for files that are gone.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import detangle

from reference_impl.queues import async_pending_queue
from tests.kit.explore import Schedules
from tests.kit.fakes import turns
from tests.kit.proofs import Proof, each_proof, each_twin
from tests.kit.twins import Twin, build, edit
from tests.queues.async_pending_queue import faults
from tests.queues.async_pending_queue.disk import drop, files, unfinished
from tests.queues.async_pending_queue.helpers import COMPONENT, MEMORY
from tests.queues.async_pending_queue.uploads import Pauses
from tests.queues.async_pending_queue.watch import Check, PlainWatch, on_plain_watch


@contextlib.contextmanager
def directory_with(*names: str) -> Iterator[Path]:
    """A directory with these files, whose contents are their names."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        directory = Path(folder, "queue")
        directory.mkdir()
        for name in names:
            drop(directory, name, name.encode())
        yield directory


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


async def finished(directory: Path) -> None:
    """Wait until all is completed; the loop's time is virtual."""
    for _ in range(200):
        if not unfinished(directory):
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"these are left alone: {unfinished(directory)}")


@on_plain_watch
async def check_everything_comes_to_its_end(m: ModuleType) -> None:
    """Four files and two slots; announcements again, and a newer file while one is uploaded."""
    with directory_with("a", "b") as directory:
        server = Server(failures=1)
        queue = m.AsyncPendingQueue(
            directory, server.upload, max_concurrency=2, backoff=Pauses(0.0)
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
        assert not queue.stats.waiting


@on_plain_watch
async def check_it_ends_at_any_time(m: ModuleType, how: str) -> None:
    """However it ends: nothing runs, nothing is lost, the next owner finds all there is."""
    with directory_with("a", "b", "c") as directory:
        server, asked = Server(failures=1), list[str]()
        queue = m.AsyncPendingQueue(
            directory, server.upload, max_concurrency=2, backoff=Pauses(0.0)
        )

        async def stop() -> None:
            asked.append(how)
            await queue.stop(0 if how == "stop" else 30)

        running = asyncio.create_task(queue.run(), name="run")
        await turns(detangle.choice(list(range(8))))
        if how == "run is cancelled":
            running.cancel()
        else:
            stopping = asyncio.create_task(stop(), name="stop")
            if how == "stop is cancelled":
                await turns(detangle.choice([0, 1]))
                stopping.cancel()
            await asyncio.wait([stopping])
            if not asked:  # the task was cancelled before its first step
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
        again = m.AsyncPendingQueue(directory, Server().upload)
        async with again:
            await finished(directory)
        assert again.stats.recovered == 0


HOWS = ("stop", "stop in time", "stop is cancelled", "run is cancelled")


def ending(how: str) -> Check:
    async def check(m: ModuleType) -> None:
        await check_it_ends_at_any_time(m, how)

    check.__name__ = how
    return check


@on_plain_watch
async def check_stop_beside_timeouts(m: ModuleType) -> None:
    """An upload has timeouts of its own, and after each it closes what it used, and goes on."""
    with directory_with("a") as directory:

        async def upload(path: Path) -> None:
            for timeout in (0, 0, None):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        try:
                            await asyncio.get_running_loop().create_future()
                        finally:
                            await asyncio.sleep(0)

        queue = m.AsyncPendingQueue(directory, upload)
        running = asyncio.create_task(queue.run(), name="run")
        await turns(detangle.choice(list(range(12))))
        stopping = asyncio.create_task(queue.stop(0), name="stop")
        await asyncio.wait([running, stopping])  # a deadlock, unless the upload is cancelled
        assert list(files(directory)) == ["a.queued"]
        assert queue.stats.failed == 0


@on_plain_watch
async def check_put_back(m: ModuleType) -> None:
    """A producer's newer file comes at any time while the older one is uploaded, and fails."""
    with directory_with("a") as directory:
        begun: list[bytes] = []
        dropped = [b"a"]

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

        queue = m.AsyncPendingQueue(directory, upload, backoff=Pauses(0.0))
        async with queue:
            producing = asyncio.create_task(producer(), name="producer")
            await producing
            await finished(directory)
        left = sorted(files(directory).values())
        assert left == sorted(dropped), "the put-back has overwritten the newer file"


AGAIN = Twin(
    "starts a name again that is being uploaded",
    faults.STARTS_AGAIN,
    ("KeyError: 'a'", "AssertionError: are left alone"),
)
OVERLOOKS = Twin(
    "overlooks a file that came meanwhile",
    faults.SEES_NO_NEWER_FILE,
    "AssertionError: these are left alone",
)
ONE_MORE = Twin(
    "uploads one too many",
    faults.one_more("max_concurrency"),
    "AssertionError: more uploads than slots",
)
NOT_WOKEN = Twin(
    "does not wake the one that draws",
    edit("AsyncPendingQueue._dispatch", "self._room.set()", "pass"),
    "AssertionError: these are left alone",
)
NOT_PUT_BACK = Twin(
    "does not put back what it cancels",
    edit("AsyncPendingQueue._attempt", "self._put_back(name, attempt - 1)", "pass"),
    "AssertionError: left .processing",
)
NO_TIME = Twin(
    "gives uploads no time",
    faults.STOPS_AT_ONCE,
    "AssertionError: an upload was cancelled before its time",
)
GOES_ON = Twin(
    "lets an upload go on that it cancels",
    faults.lets_uploads_go(),
    ("AssertionError: an upload goes on", "AssertionError: sorted(server.ended)"),
)
NOT_CANCELLED = Twin(
    "takes an upload's own timeout for its cancellation",
    faults.STOPS_NO_TIMEOUT,
    "DeadlockError: can never finish",
)
BY_RENAME = Twin(
    "puts a file back by rename",
    faults.PUTS_BACK_BY_RENAME,
    "AssertionError: the put-back has overwritten the newer file",
)
PROOFS = [
    Proof("PQ-3", check_everything_comes_to_its_end, [AGAIN, OVERLOOKS, ONE_MORE, NOT_WOKEN]),
    Proof("PQ-5", ending("stop"), [NOT_PUT_BACK]),
    Proof("PQ-5", ending("stop in time"), [NO_TIME]),
    Proof("PQ-5", ending("stop is cancelled")),
    Proof("PQ-5", ending("run is cancelled"), [GOES_ON]),
    Proof("PQ-5", check_stop_beside_timeouts, [NOT_CANCELLED]),
    Proof("PQ-1", check_put_back, [BY_RENAME]),
]


DRAWN = {"everything_comes_to_its_end": 300} | dict.fromkeys(HOWS, 200)


def model_of(proof: Proof, m: ModuleType) -> Callable[[], Coroutine[Any, Any, None]]:
    check: Any = proof.check
    return partial(check, m)


@each_proof(PROOFS)
def test_no_schedule_breaks_it(schedules: Schedules, proof: Proof) -> None:
    model = model_of(proof, async_pending_queue)
    schedules.prove(model, delays=3)
    if drawn := DRAWN.get(proof.name):
        schedules.sample(model, schedules=drawn)


@each_twin(PROOFS)
def test_its_faults_are_found(schedules: Schedules, proof: Proof, twin: Twin) -> None:
    broken = build(COMPONENT, twin.fault)
    schedules.catch(model_of(proof, broken), twin=twin)
