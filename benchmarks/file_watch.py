"""DirectoryWatch against the least that brings a file event from watchdog to an event loop.

The floor is a watchdog observer that listens to the one kind of event that matters, and a
handler that puts the path into an asyncio.Queue with call_soon_threadsafe.
"""

import asyncio
import functools
import importlib
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from watchdog import events
from watchdog.observers import Observer

from benchmarks import harness
from reference_impl.bridges.file_watch import DirectoryWatch

EVENTS = 20
FILES = 10_000
START = 0.2  # seconds in which a watch that tells nothing of its start has started
QUIET = 3.0  # seconds without a file after which a burst is over
DEADLINE = 60.0  # seconds

Bring = Callable[[Path, Path], None]


class Ear:
    """What listens to a folder: the paths come as `expected` gives them."""

    async def start(self, folder: Path, kind: type[events.FileSystemEvent]) -> None:
        raise NotImplementedError

    async def take(self) -> object:
        raise NotImplementedError

    async def end(self) -> None:
        raise NotImplementedError

    def expected(self, path: Path) -> object:
        """What one file at this path is given as."""
        return str(path)

    def names(self, found: Any) -> set[str]:
        return {Path(found).name}


class _Handler(events.FileSystemEventHandler):
    def __init__(self, pass_on: Callable[[str], object]) -> None:
        self._pass_on = pass_on

    def dispatch(self, event: events.FileSystemEvent) -> None:
        self._pass_on(os.fsdecode(event.src_path))


class ObserverEar(Ear):
    async def start(self, folder: Path, kind: type[events.FileSystemEvent]) -> None:
        post = asyncio.get_running_loop().call_soon_threadsafe
        line: asyncio.Queue[str] = asyncio.Queue()
        self._get = line.get
        self._observer = Observer()
        handler = _Handler(lambda path: post(line.put_nowait, path))
        self._observer.schedule(handler, str(folder), event_filter=[kind])
        self._observer.start()

    def take(self) -> Awaitable[object]:  # type: ignore[override]  # the queue's own coroutine
        return self._get()

    async def end(self) -> None:
        self._observer.stop()
        self._observer.join()


class OursEar(Ear):
    async def start(self, folder: Path, kind: type[events.FileSystemEvent]) -> None:
        self._watch = DirectoryWatch(folder)
        await self._watch.__aenter__()

    def take(self) -> Awaitable[object]:  # type: ignore[override]  # the watch's own coroutine
        return self._watch.__anext__()

    async def end(self) -> None:
        await self._watch.__aexit__(None, None, None)

    def expected(self, path: Path) -> object:
        return path


class WatchfilesEar(Ear):
    """It starts with the first request, so one is made ahead of the first file."""

    async def start(self, folder: Path, kind: type[events.FileSystemEvent]) -> None:
        self._changes = importlib.import_module("watchfiles").awatch(folder)
        self._first: asyncio.Task[Any] | None = asyncio.create_task(self._changes.__anext__())

    async def take(self) -> object:
        if self._first is None:
            changes = await self._changes.__anext__()
        else:
            changes = await asyncio.shield(self._first)
            self._first = None
        return {path for _, path in changes}

    async def end(self) -> None:
        if self._first is not None:
            self._first.cancel()
            await asyncio.wait([self._first])
        await self._changes.aclose()

    def expected(self, path: Path) -> object:
        return {str(path)}

    def names(self, found: Any) -> set[str]:
        return {Path(path).name for path in found}


def _write(outside: Path, path: Path) -> None:
    with path.open("wb", 0) as file:
        file.write(b"x")


def _rename(outside: Path, path: Path) -> None:
    with outside.open("wb", 0) as file:
        file.write(b"x")
    outside.rename(path)


@dataclass(frozen=True, slots=True)
class Contestant(harness.Contestant[Callable[[], Ear]]):
    events: int = EVENTS


CONTESTANTS = [
    Contestant(
        "watchdog Observer + call_soon_threadsafe + asyncio.Queue",
        ObserverEar,
        "floor",
        lacks=(
            "files that were there before, that are still being written, or whose events were "
            "dropped; patterns; the end of the iteration, and that of the directory"
        ),
    ),
    Contestant("DirectoryWatch", OursEar, "ours"),
    Contestant(
        "watchfiles.awatch, default settings",
        WatchfilesEar,
        package="watchfiles",
        lacks="files that were there before, or that are still being written",
        events=1,
    ),
]


def _subject(
    contestant: Contestant, bring: Bring, kind: type[events.FileSystemEvent]
) -> harness.Subject:
    """A folder, a loop and a watch that stay as they are from the first sample to the last."""
    scratch, runner, ear = tempfile.TemporaryDirectory(), asyncio.Runner(), contestant.make()
    root = Path(scratch.name).resolve()
    folder, outside = root / "watched", root / "outside"
    folder.mkdir()
    # By turns: a path that was given twice, or late, is not the one that is expected.
    paths = itertools.cycle([(path, ear.expected(path)) for path in (folder / "a", folder / "b")])

    async def start() -> None:
        await ear.start(folder, kind)
        await asyncio.sleep(START)

    async def bring_and_take() -> None:
        take = ear.take
        for path, expected in itertools.islice(paths, contestant.events):
            bring(outside, path)
            found = await take()
            if found != expected:
                raise AssertionError(f"{found} instead of {expected}")

    async def check() -> None:
        async with asyncio.timeout(DEADLINE):
            await bring_and_take()

    def close() -> None:
        with scratch, runner:
            runner.run(ear.end())

    runner.run(start())
    return harness.Subject(
        [lambda: runner.run(bring_and_take())],
        contestant.events,
        check=lambda: runner.run(check()),
        close=close,
    )


def _latency(point: str, bring: Bring, kind: type[events.FileSystemEvent]) -> harness.Group:
    return harness.Group(
        f"a file to the task that waits for it, {point}",
        [
            contestant.measured(functools.partial(_subject, contestant, bring, kind))
            for contestant in CONTESTANTS
        ],
        note=(
            "One file at a time, its making included. Most of it is the system's time to wake\n"
            "three threads one after the other: read the range. watchfiles gathers changes for\n"
            "some time before it gives any."
        ),
        aim=1.25,
        series="a file to the task that waits for it",
        point=point,
        real_time=True,
        longer=4,
    )


_BURST = """
import sys
for number in range(int(sys.argv[2])):
    with open(f"{sys.argv[1]}/{number}", "wb", 0) as file:
        file.write(b"x")
"""


async def _take_burst(ear: Ear, folder: Path, count: int) -> tuple[int, float]:
    """How many of the files that another process writes are given, and after how long."""
    await ear.start(folder, events.FileClosedEvent)
    await asyncio.sleep(START)
    seen: set[str] = set()
    started = last = time.perf_counter()
    command = [sys.executable, "-c", _BURST, str(folder), str(count)]
    with subprocess.Popen(command) as process:  # noqa: ASYNC220
        while len(seen) < count:
            try:
                async with asyncio.timeout(QUIET):
                    seen |= ear.names(await ear.take())
            except TimeoutError:
                if process.poll() is not None:
                    break
            else:
                last = time.perf_counter()
    await ear.end()
    return len(seen), last - started


def _burst(count: int) -> harness.TableFigures:
    rows: list[list[str | int | float]] = []
    absent: list[harness.NotMeasured] = []
    for contestant in CONTESTANTS:
        if reason := harness.missing(contestant.package) if contestant.package else "":
            absent.append({"name": contestant.name, "reason": reason})
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name).resolve()
            found, seconds = asyncio.run(_take_burst(contestant.make(), folder, count))
        rows.append([contestant.name, found, count - found, round(seconds, 2)])
    return {
        "title": f"A burst of {count:,} files",
        "note": (
            "Another process writes them in place as fast as it can; seconds from its start to "
            "the last file that was given."
        ),
        "columns": ["Case", "Files given", "Lost", "Seconds"],
        "rows": rows,
        "not_measured": absent,
    }


async def _take_backlog(folder: Path, count: int) -> float:
    """Seconds of processor time until the files that are there on entry have been taken."""
    started = time.process_time()
    async with DirectoryWatch(folder) as watch:
        for _ in range(count):
            await anext(watch)
        return time.process_time() - started


def _look_and_open(folder: Path) -> float:
    """The same for the least that tells whether files are there and can be read."""
    started = time.process_time()
    with os.scandir(folder) as entries:
        for entry in entries:
            os.lstat(entry.path)
            os.close(os.open(entry.path, os.O_RDONLY))
    return time.process_time() - started


def _backlog(count: int) -> harness.TableFigures:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for number in range(count):
            (folder / f"{number}").touch()
        least = min(_look_and_open(folder) for _ in range(5))
        ours = min(asyncio.run(_take_backlog(folder, count)) for _ in range(5))
    rows: list[list[str | int | float]] = [
        ["os.scandir, lstat, open and close", round(1e6 * least / count, 1)],
        ["DirectoryWatch, all its threads", round(1e6 * ours / count, 1)],
    ]
    return {
        "title": f"A backlog of {count:,} files on entry",
        "note": "Microseconds of processor time for each file; the best of five runs.",
        "columns": ["Case", "Microseconds"],
        "rows": rows,
        "not_measured": [],
    }


WAYS: Sequence[tuple[str, Bring, type[events.FileSystemEvent]]] = [
    ("written and closed", _write, events.FileClosedEvent),
    ("written elsewhere and renamed", _rename, events.FileCreatedEvent),
]


def plans(effort: harness.Effort) -> list[harness.Plan]:
    """What is measured for each component of the family."""
    files = min(FILES, max(20, effort.items // 100))
    groups = [functools.partial(_latency, *way) for way in WAYS]
    tables = [functools.partial(_burst, files), functools.partial(_backlog, files)]
    return [harness.Plan("bridges/file_watch", groups, tables)]
