"""The upload queue in a directory against the renames that it cannot do without.

The floor renames each file to its state before and after the upload, and awaits the upload,
one file after the other: nothing less can tell after a crash what was under way.
"""

import asyncio
import functools
import tempfile
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import Contestant, Effort, Group, Plan, Subject, TableFigures, renewed
from reference_impl.queues.async_pending_queue import AsyncPendingQueue

UPLOADS = 1_000
WAITING = 100_000
TICK = 0.001  # seconds
DEADLINE = 600.0  # seconds

UploadAll = Callable[[Path, int], Coroutine[None, None, None]]


async def _nothing(path: Path) -> None:
    """An upload that takes no time: what is left is the queue's own work."""


async def _renames(folder: Path, count: int) -> None:
    for number in range(count):
        queued, processing = folder / f"{number}.queued", folder / f"{number}.processing"
        queued.rename(processing)
        await _nothing(processing)
        processing.rename(folder / f"{number}.completed")


async def _ours(folder: Path, count: int) -> None:
    """Run a queue until it has uploaded so many."""
    started, enough = 0, asyncio.Event()

    async def counted(path: Path) -> None:
        nonlocal started
        await _nothing(path)
        started += 1
        if started == count:
            enough.set()

    async with asyncio.timeout(DEADLINE), AsyncPendingQueue(folder, counted):
        await enough.wait()


def _fill(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / f"{number}.queued").touch()


def _renew(folder: Path) -> None:
    """Queue what was completed again."""
    for path in list(folder.glob("*.completed")):
        path.rename(path.with_suffix(".queued"))


def _completed(folder: Path) -> int:
    return sum(path.suffix == ".completed" for path in folder.iterdir())


def _subject(upload_all: UploadAll, count: int) -> Subject:
    scratch, runner = tempfile.TemporaryDirectory(), asyncio.Runner()
    folder = Path(scratch.name)
    _fill(folder, count)

    def batch() -> None:
        runner.run(upload_all(folder, count))

    def close() -> None:
        with scratch, runner:
            pass

    completed, renew = functools.partial(_completed, folder), functools.partial(_renew, folder)
    return renewed(batch, count, completed, renew, close)


RENAMES: Contestant[UploadAll] = Contestant(
    "two renames and an await for each file",
    _renames,
    "floor",
    lacks="finding the files, ownership, recovery, attempts, several at once, stopping",
)
OURS: Contestant[UploadAll] = Contestant("AsyncPendingQueue", _ours, "ours")


def _uploads(count: int) -> Group:
    return Group(
        f"{count:,} uploads that do nothing",
        [
            contestant.measured(functools.partial(_subject, contestant.make, count))
            for contestant in (RENAMES, OURS)
        ],
        note="The files are there at the start; ours includes the queue's start and stop.",
        real_time=True,
        longer=4,
    )


@dataclass(slots=True)
class Ticks:
    longest: float = 0.0  # seconds
    tasks: int = 0

    async def run(self) -> None:
        """Tick for ever; a tick that is late tells that something blocked the loop."""
        while True:
            before = time.perf_counter()
            await asyncio.sleep(TICK)
            self.longest = max(self.longest, time.perf_counter() - before - TICK)
            self.tasks = max(self.tasks, len(asyncio.all_tasks()))


async def _ticking(work: Awaitable[None]) -> tuple[Ticks, float]:
    """The ticks beside some work, and the seconds that it took."""
    ticks, started = Ticks(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        ticker = group.create_task(ticks.run())
        await work
        ticker.cancel()
    return ticks, time.perf_counter() - started


def _traced(folder: Path, count: int) -> int:
    """The most bytes that Python held, above what it held before."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        asyncio.run(_ours(folder, count))
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def _crowd(count: int) -> TableFigures:
    """A queue that finds as many files as nobody could upload for weeks."""
    many, some = count // 5, count // 20
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _fill(folder, count)
        ticks, seconds = asyncio.run(_ticking(_ours(folder, many)))
        if (found := _completed(folder)) < many:
            raise AssertionError(f"{found} completed instead of {many}")
        _renew(folder)
        # Tracing slows everything down: it has a run of its own.
        memory = _traced(folder, some)
    idle, idle_seconds = asyncio.run(_ticking(asyncio.sleep(min(seconds, 5.0))))
    return {
        "title": f"{count:,} files queued at the start",
        "note": (
            f"Until {many:,} of them are uploaded. The longest block is by how much a task that "
            f"sleeps for {TICK * 1000:g} ms woke late; the idle loop shows what of it is the "
            "machine's. Tasks include the one that ticks and the one that waits for the end. "
            "Memory is the most that Python held at once, above what it held before, in a second "
            f"run until {some:,} are uploaded."
        ),
        "columns": ["Case", "Longest block, ms", "Memory, KiB", "Tasks at once", "Seconds"],
        "rows": [
            [
                "AsyncPendingQueue",
                round(ticks.longest * 1000, 1),
                round(memory / 1024),
                ticks.tasks,
                round(seconds, 1),
            ],
            ["idle loop", round(idle.longest * 1000, 1), 0, idle.tasks, round(idle_seconds, 1)],
        ],
        "not_measured": [],
    }


def plans(effort: Effort) -> list[Plan]:
    """What is measured for each component of the family."""
    files = min(WAITING, max(20, effort.items // 100))
    uploads = min(UPLOADS, max(20, effort.items // 1_000))
    groups, tables = [functools.partial(_uploads, uploads)], [functools.partial(_crowd, files)]
    return [Plan("queues/async_pending_queue", groups, tables)]
