"""AsyncConverterPool's loop side under every schedule, its threads' hand-over likewise.

The files are real. The watch is a list of announcements, and conversions are tasks of the
explored loop, which complete the pool's futures as threads or a process pool would.
"""

import asyncio
import contextlib
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from unittest.mock import patch

import detangle
import pytest

import reference_impl.queues.async_converter_pool as ours
from tests.kit.explore import Interleavings, Schedules
from tests.kit.twins import twin

FILE = "queues/async_converter_pool.py"
Model = Callable[[], Coroutine[Any, Any, None]]
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


class Watch:
    """In DirectoryWatch's place: gives what is there on entry, and what is announced."""

    def __init__(self, path: Path, patterns: object) -> None:
        self._path = path
        self.news: asyncio.Queue[Path | Exception] = asyncio.Queue()

    async def __aenter__(self) -> "Watch":
        for path in sorted(self._path.glob("*.csv")):
            self.news.put_nowait(path)
        World.now.watches[self._path.name] = self
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)

    async def __aiter__(self) -> AsyncIterator[Path]:
        while True:
            news = await self.news.get()
            if isinstance(news, Exception):
                raise news
            yield news


class World:
    """Directories, a pool, and what became of the files."""

    now: "World"

    def __init__(self, module: Any, root: Path, *boxes: str) -> None:
        World.now = self
        self.module, self.root = module, root
        self.watches: dict[str, Watch] = {}
        self.boxes = {name: root / name for name in boxes}
        for box in self.boxes.values():
            box.mkdir()
        self.started: list[str] = []
        self.submitted: list[str] = []
        self.hangs = asyncio.Event()
        self.busy = self.most = 0

    def pool(self, *, own: bool = True, **options: Any) -> Any:
        converters = [
            self.module.Converter(name, box, ("*.csv",), self.convert, priority=number)
            for number, (name, box) in enumerate(self.boxes.items())
        ]
        pool = self.module.AsyncConverterPool(converters, self.submit, **options)
        pool._own, pool._start = own, self.start
        return pool

    def start(self, call: Callable[[], str]) -> "Future[str]":
        future: Future[str] = Future()
        self.busy += 1
        self.most = max(self.busy, self.most)
        asyncio.get_running_loop().create_task(self._convert(future, call), name="thread")
        return future

    async def _convert(self, future: "Future[str]", call: Callable[[], str]) -> None:
        await asyncio.sleep(0)
        if future.set_running_or_notify_cancel():
            try:
                text = call()
                await (self.hangs.wait() if text == "hangs" else asyncio.sleep(0))
                future.set_result(text)
            except OSError as error:
                future.set_exception(error)
        self.busy -= 1

    def convert(self, path: Path) -> str:
        self.started.append(path.name)
        return path.read_text()

    async def submit(self, text: str) -> None:
        await asyncio.sleep(0)
        self.submitted.append(text)

    def drop(self, name: str, text: str, box: str = "in") -> None:
        """As a producer does, and as a watch announces it."""
        staged = self.root / "staged"
        staged.write_text(text)
        staged.rename(self.boxes[box] / name)
        if box in self.watches:
            self.watches[box].news.put_nowait(self.boxes[box] / name)

    def texts(self, folder: str, box: str = "in") -> list[str]:
        files = (self.boxes[box] / folder).glob("*.csv")
        return sorted(file.read_text() for file in files)

    async def until(self, condition: Callable[[], object]) -> None:
        for _ in range(2000):  # of the explored loop's own time
            if condition():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it never came to pass: a file or a slot was lost")

    async def finish(self) -> None:
        """Start again, until nothing is left."""
        pool = self.pool()
        async with pool:
            await self.until(lambda: not any(self.texts(".", box) for box in self.boxes))


@contextlib.contextmanager
def world(module: Any, *boxes: str) -> Iterator[World]:
    root = Path(tempfile.mkdtemp(dir=MEMORY))
    try:
        with patch.object(module, "DirectoryWatch", Watch):
            yield World(module, root, *boxes)
    finally:
        shutil.rmtree(root)


# CP-2: the most urgent of the files that are known when a slot is free.


def urgency(module: Any) -> Model:
    async def model() -> None:
        with world(module, "urgent", "normal") as site:
            pool = site.pool(max_concurrency=1)
            announce = pool._announce
            known: tuple[list[str], set[str]] = [], set()

            def watched(line: Any, path: Path) -> None:
                nonlocal known
                announce(line, path)
                if path.parent.name == "urgent":
                    active = {each.name for line in pool._lines for each in line.active}
                    known = list(site.started), active
                    assert len(active) <= 1, "files were chosen without a slot"

            pool._announce = watched

            async def produce(box: str, count: int) -> None:
                for number in range(count):
                    await asyncio.sleep(0)
                    site.drop(f"{box}{number}.csv", f"{box}{number}", box)

            async with pool:
                await asyncio.gather(produce("normal", 3), produce("urgent", 1))
                await site.until(lambda: len(site.submitted) == 4)
            before, chosen = known
            between = site.started[len(before) : site.started.index("urgent0.csv")]
            assert set(between) <= chosen, "others were chosen before the urgent one"
            assert site.most == 1

    return model


@pytest.mark.guarantee("CP-2")
def test_whenever_an_urgent_file_comes_it_is_the_next(schedules: Schedules) -> None:
    schedules.prove(urgency(ours), delays=3)
    schedules.sample(urgency(ours), schedules=300)


CHOSEN_EARLY = (
    ("self._taken() < self._max_concurrency", "True"),
    (
        "self._lost: list[str] = []",
        "self._slots = asyncio.Semaphore(max_concurrency); self._lost = []",
    ),
    (
        "            future = await self._settled(line.converter, path)\n",
        "            async with self._slots:\n"
        "                future = await self._settled(line.converter, path)\n",
    ),
)


@pytest.mark.twin("CP-2")
def test_choosing_before_there_is_a_slot_is_caught(schedules: Schedules) -> None:
    title = "Files that were chosen before there was a slot go before the urgent one"
    broken = twin(FILE, *CHOSEN_EARLY)
    schedules.catch(urgency(broken), diagram=title, lanes=("urgent", "normal"))


# CP-3: the slot of a conversion that hangs.


def hanging(module: Any, *, own: bool) -> Model:
    async def model() -> None:
        with world(module, "in") as site:
            site.drop("0.csv", "hangs")
            pool = site.pool(own=own, max_concurrency=1, convert_timeout=5.0)
            async with pool:
                await site.until(lambda: pool.stats.failed)
                site.drop("1.csv", "next")
                if own:
                    await site.until(lambda: site.submitted)
                await asyncio.sleep(1)
                assert bool(site.submitted) == own, "the slot was not free in time, or too early"
                assert pool.stats.abandoned == 1
                site.hangs.set()
                await site.until(lambda: site.submitted and not pool.stats.abandoned)
            assert site.submitted == ["next"], "a late result was submitted"
            assert (site.texts("error"), site.texts("done")) == (["hangs"], ["next"])
            assert site.most == 1 + own

    return model


@pytest.mark.guarantee("CP-3")
@pytest.mark.parametrize("own", [True, False], ids=["own threads", "given executor"])
def test_a_conversion_that_hangs_gives_its_slot_back_in_time(
    own: bool, schedules: Schedules
) -> None:
    schedules.prove(hanging(ours, own=own), delays=6)


def just_in_time(module: Any) -> Model:
    """A conversion that ends at the very moment of its timeout: done, or failed, not both."""

    async def model() -> None:
        with world(module, "in") as site:
            pool = site.pool(max_concurrency=1, convert_timeout=5.0)

            async def end() -> None:
                await asyncio.sleep(5.0)
                site.hangs.set()

            async with pool:
                site.drop("0.csv", "hangs")
                ending = asyncio.create_task(end())
                await site.until(lambda: pool.stats.failed + pool.stats.converted)
                await site.until(lambda: not pool.stats.abandoned)
                await ending
            done, error = site.texts("done"), site.texts("error")
            assert (done, error) in ((["hangs"], []), ([], ["hangs"]))
            assert site.submitted == done

    return model


@pytest.mark.guarantee("CP-3")
def test_a_conversion_that_ends_with_its_timeout_has_one_end(schedules: Schedules) -> None:
    schedules.prove(just_in_time(ours), delays=6)


@pytest.mark.twin("CP-3")
@pytest.mark.parametrize(
    ("own", "fault"),
    [
        (True, ("(0 if self._own else self._abandoned)", "self._abandoned")),
        (False, ("(0 if self._own else self._abandoned)", "0")),
        (False, ("        self._abandoned -= 1\n", "        pass\n")),
    ],
    ids=["the slot is lost", "free too early", "never free"],
)
def test_a_slot_that_is_free_at_the_wrong_time_is_caught(
    own: bool, fault: tuple[str, str], schedules: Schedules
) -> None:
    schedules.catch(hanging(twin(FILE, fault), own=own), schedules=50)


# CP-1 and CP-4: whatever ends the pool, at any await.


def ending(module: Any, how: str) -> Model:
    """Files are announced while it is stopped or cancelled; the next start does the rest."""

    async def model() -> None:
        with world(module, "in") as site:
            pool = site.pool(max_concurrency=2)
            site.drop("0.csv", "0")

            async def produce() -> None:
                for number in (1, 2):
                    await asyncio.sleep(0)
                    site.drop(f"{number}.csv", str(number))

            chosen = {"0.csv", "1.csv", "2.csv"}

            async def end() -> None:
                nonlocal chosen
                for _ in range(detangle.randint(0, 12)):
                    await asyncio.sleep(0)
                if how == "run is cancelled":
                    running.cancel()
                else:
                    (line,) = pool._lines
                    chosen = {*site.started, *(path.name for path in line.active)}
                    await pool.stop(timeout=0 if how == "stop at once" else 30)

            running = asyncio.create_task(pool.run(), name="run")
            producing = asyncio.create_task(produce(), name="producer")
            stopping = asyncio.create_task(end(), name="stop")
            if how == "stop is cancelled":
                detangle.inject_cancellation(stopping, points=16)
            await asyncio.wait([stopping, producing])
            if not pool._stopping.is_set():  # cancelled before it asked
                await pool.stop()
            await asyncio.wait([running])
            assert running.cancelled() or running.exception() is None, "run has failed"
            assert not pool._tasks
            assert set(site.started) <= chosen, "a file was chosen after stop"
            assert sorted(site.submitted) == site.texts("done"), "submitted, and not moved"
            assert site.texts("error") == [], "a file was blamed for the end of the pool"
            left = site.texts(".")
            assert sorted(left + site.texts("done")) == ["0", "1", "2"]
            await site.finish()
            assert sorted(site.submitted) == ["0", "1", "2"], "lost, or submitted twice"

    return model


HOW = ["stop", "stop at once", "stop is cancelled", "run is cancelled"]


@pytest.mark.guarantee("CP-1", "CP-4")
@pytest.mark.parametrize("how", HOW)
def test_the_end_of_the_pool_loses_nothing(how: str, schedules: Schedules) -> None:
    schedules.prove(ending(ours, how), delays=2)
    schedules.sample(ending(ours, how), schedules=200)


@pytest.mark.twin("CP-1", "CP-4")
@pytest.mark.parametrize(
    ("how", "fault"),
    [
        ("run is cancelled", ("(task and task.cancelling())", "task is None")),
        ("stop at once", ("(task and task.cancelling())", "task is None")),
        ("stop", ("while not self._stopping.is_set() and", "while")),
    ],
    ids=["cancelled is failed", "stopped is failed", "it goes on"],
)
def test_an_end_that_loses_files_is_caught(
    how: str, fault: tuple[str, str], schedules: Schedules
) -> None:
    schedules.catch(ending(twin(FILE, fault), how))


@pytest.mark.twin("CP-1")
def test_an_await_between_submission_and_move_is_caught(schedules: Schedules) -> None:
    fault = (
        "        try:\n            self._conclude(",
        "        try:\n            await asyncio.sleep(0)\n            self._conclude(",
    )
    title = "An await between submission and move: the result is submitted again after a stop"
    broken = ending(twin(FILE, fault), "stop at once")
    schedules.catch(broken, diagram=title, lanes=("stop", "in: "))


# CP-1: a producer that replaces its file, and a watch that repeats itself.


def replacing(module: Any) -> Model:
    async def model() -> None:
        with world(module, "in") as site:
            pool = site.pool(max_concurrency=2)
            versions = ["1", "22", "333"]

            async def produce() -> None:
                for text in versions:
                    site.drop("x.csv", text)
                    site.watches["in"].news.put_nowait(site.boxes["in"] / "x.csv")
                    for _ in range(2):
                        await asyncio.sleep(0)

            async with pool:
                await asyncio.create_task(produce(), name="producer")
                await site.until(lambda: not site.texts("."))
            assert len(set(site.submitted)) == len(site.submitted), "submitted twice"
            assert versions[-1] in site.submitted, "the last version was lost"
            done = site.texts("done")
            assert versions[-1] in done
            assert set(done) <= set(site.submitted), "moved to done, and never converted"
            assert site.texts("error") == []

    return model


@pytest.mark.guarantee("CP-1")
def test_a_file_that_is_replaced_at_any_time_is_converted(schedules: Schedules) -> None:
    schedules.prove(replacing(ours), delays=4)
    schedules.sample(replacing(ours), schedules=300)


@pytest.mark.twin("CP-1")
@pytest.mark.parametrize(
    "faults",
    [
        (("elif now != seen:", "elif False:"), ("if _look(target) == seen:", "if True:")),
        (("if announced != seen or _only", "if _only"),),
        (("if path in line.active:", "if False:"),),
        (("error is None and _look(path) in (seen, None)", "error is None"),),
    ],
    ids=["unnoticed", "not taken up again", "converted twice at once", "what is old is submitted"],
)
def test_losing_a_version_is_caught(
    faults: tuple[tuple[str, str], ...], schedules: Schedules
) -> None:
    schedules.catch(replacing(twin(FILE, *faults)))


# CP-5: one directory vanishes.


def vanishing(module: Any) -> Model:
    async def model() -> None:
        with world(module, "in", "gone") as site:
            site.drop("0.csv", "0")
            site.drop("1.csv", "1", "gone")
            pool = site.pool(max_concurrency=1)

            async def vanish() -> None:
                await asyncio.sleep(0)
                shutil.rmtree(site.boxes["gone"])
                site.watches["gone"].news.put_nowait(FileNotFoundError("vanished"))

            async with pool:
                vanishing = asyncio.create_task(vanish())
                await site.until(lambda: pool.stats.lost)
                site.drop("2.csv", "2")
                await site.until(lambda: {"0", "2"} <= set(site.submitted))
                await vanishing
            assert site.texts("done") == ["0", "2"]
            assert site.texts("error") == []

    return model


@pytest.mark.guarantee("CP-5")
def test_a_directory_that_vanishes_at_any_time_stops_no_other(schedules: Schedules) -> None:
    schedules.prove(vanishing(ours), delays=4)


@pytest.mark.twin("CP-5")
def test_a_directory_that_takes_all_with_it_is_caught(schedules: Schedules) -> None:
    fault = ("if not self._up.is_set() or len(self._lost) == len(self._lines):", "if True:")
    schedules.catch(vanishing(twin(FILE, fault)))


# The threads' side: a conversion is cancelled, or it runs, but not both.


def hand_over(module: Any) -> Callable[[], None]:
    """The pool cancels, at its timeout or stop, what a thread may be about to begin."""

    def model() -> None:
        ran: list[int] = []
        told: list[object] = []
        end = threading.Event()

        def call() -> int:
            ran.append(1)
            return 7

        future = module._start_thread(call)

        def tell(future: object) -> None:
            told.append(future)
            end.set()

        future.add_done_callback(tell)
        cancelled = future.cancel()
        if not cancelled:
            assert future.result() == 7
        end.wait()
        assert len(told) == 1, "the loop was told more than once, or never"
        assert ran == ([] if cancelled else [1]), "cancelled, and converted all the same"

    return model


@pytest.mark.guarantee("CP-3")
def test_a_thread_takes_no_conversion_that_was_cancelled(interleavings: Interleavings) -> None:
    interleavings.prove(hand_over(ours), preemptions=2)


@pytest.mark.twin("CP-3")
def test_a_thread_that_does_not_ask_is_caught(interleavings: Interleavings) -> None:
    broken = twin(FILE, ("if future.set_running_or_notify_cancel():", "if True:"))
    title = "A thread that does not ask whether its conversion was cancelled"
    interleavings.catch(hand_over(broken), diagram=title)
