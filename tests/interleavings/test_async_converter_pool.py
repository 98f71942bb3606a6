"""AsyncConverterPool's loop side under every schedule, its threads' hand-over likewise.

The files are real. The watch is a list of announcements, and conversions are tasks of the
explored loop, which complete the pool's futures as threads or a process pool would.
"""

import asyncio
import collections
import contextlib
import logging
import queue
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import detangle
import pytest

import reference_impl.queues.async_converter_pool as ours
from tests.kit.explore import Interleavings, Schedules
from tests.kit.fakes import PATIENCE
from tests.kit.primitives import rebind
from tests.kit.profile import budget
from tests.kit.proofs import Proof, each_proof, each_twin
from tests.kit.twins import Twin, build
from tests.queues.async_converter_pool import faults
from tests.queues.async_converter_pool.faults import put_watch
from tests.queues.async_converter_pool.helpers import COMPONENT

Model = Callable[[], Coroutine[Any, Any, None]]
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
LOST = "AssertionError: it never came to pass: a file or a slot was lost"


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
            World.now.noted(news)


class World(Executor):
    """Directories, a pool, what became of the files, and where they are converted."""

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
        self.threads: list[Thread] = []
        self.hangs = asyncio.Event()
        self.busy = self.most = 0
        self.noted: Callable[[Path], None] = lambda path: None  # the pool took note of it

    def pool(self, *, own: bool = False, **options: Any) -> Any:
        converters = [
            self.module.Converter(name, box, ("*.csv",), self.convert, priority=number)
            for number, (name, box) in enumerate(self.boxes.items())
        ]
        options["executor"] = None if own else self
        return self.module.AsyncConverterPool(converters, self.send, **options)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        future: Future[Any] = Future()
        asyncio.get_running_loop().create_task(
            self._call(future, partial(fn, *args, **kwargs)), name="call"
        )
        return future

    async def _call(self, future: "Future[Any]", call: Callable[[], str]) -> None:
        await asyncio.sleep(0)
        if future.set_running_or_notify_cancel():
            self.busy += 1
            self.most = max(self.busy, self.most)
            try:
                text = call()
                await (self.hangs.wait() if text == "hangs" else asyncio.sleep(0))
                future.set_result(text)
            except OSError as error:
                future.set_exception(error)
            self.busy -= 1

    def convert(self, path: Path) -> str:
        self.started.append(path.name)
        text = path.read_text()
        if isinstance(thread := threading.current_thread(), Thread) and text == "hangs":
            thread.hang()
        return text

    async def send(self, text: str) -> None:
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


class Thread(threading.Thread):
    """A thread that runs only while a task of the loop waits for it, until it hangs or ends."""

    def __init__(self, *, target: Any, args: Any = (), **_: object) -> None:
        super().__init__(daemon=True)
        self._call = partial(target, *args)
        self._turn, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._hanging = self._given_up = False
        self._world = World.now
        self._world.threads.append(self)

    def start(self) -> None:
        asyncio.get_running_loop().create_task(self._go(), name="thread")

    async def _go(self) -> None:
        await asyncio.sleep(0)
        world = self._world
        world.busy += 1
        world.most = max(world.busy, world.most)
        super().start()
        self._await_back()
        if self._hanging:
            await world.hangs.wait()
            self._turn.release()
            self._await_back()
        world.busy -= 1

    def _await_back(self) -> None:
        assert self._back.acquire(timeout=PATIENCE)

    def run(self) -> None:
        """In the thread."""
        self._call()
        self._hanging = False
        self._back.release()

    def hang(self) -> None:
        """In the thread: wait for another turn."""
        self._hanging = True
        self._back.release()
        assert self._turn.acquire(timeout=PATIENCE)
        if self._given_up:
            raise SystemExit

    def give_up(self) -> None:
        """End it if it hangs."""
        if self._hanging:
            self._given_up = True
            self._turn.release()
            self.join(PATIENCE)


@contextlib.contextmanager
def world(module: Any, *boxes: str) -> Iterator[World]:
    root = Path(tempfile.mkdtemp(dir=MEMORY))
    undo = [put_watch(module, Watch), rebind(module, Thread=Thread)]
    there = World(module, root, *boxes)
    try:
        yield there
    finally:
        for thread in there.threads:
            thread.give_up()
        for each in reversed(undo):
            each()
        shutil.rmtree(root)


def check_urgency(m: ModuleType) -> Model:
    """The next is the most urgent of the files that are known when a slot is free."""

    async def model() -> None:
        with world(m, "urgent", "normal") as site:
            pool = site.pool(max_concurrency=1)
            before: list[str] = []
            chosen = 0

            def note(path: Path) -> None:
                nonlocal before, chosen
                if path.parent.name == "urgent":
                    before, chosen = list(site.started), pool.stats.converted + pool.stats.running
                    assert pool.stats.running <= 1, "files were chosen without a slot"

            site.noted = note

            async def produce(box: str, count: int) -> None:
                for number in range(count):
                    await asyncio.sleep(0)
                    site.drop(f"{box}{number}.csv", f"{box}{number}", box)

            async with pool:
                await asyncio.gather(produce("normal", 3), produce("urgent", 1))
                await site.until(lambda: len(site.submitted) == 4)
            earlier = site.started.index("urgent0.csv")
            assert earlier <= max(chosen, len(before)), "others were chosen before the urgent one"
            assert site.most == 1

    return model


def check_hanging(m: ModuleType, *, own: bool) -> Model:
    """The slot of a conversion that hangs."""

    async def model() -> None:
        with world(m, "in") as site:
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


def check_hanging_in_own_threads(m: ModuleType) -> Model:
    return check_hanging(m, own=True)


def check_hanging_in_an_executor(m: ModuleType) -> Model:
    return check_hanging(m, own=False)


def check_just_in_time(m: ModuleType) -> Model:
    """A conversion that ends at the very moment of its timeout: done, or failed, not both."""

    async def model() -> None:
        with world(m, "in") as site:
            pool = site.pool(own=True, max_concurrency=1, convert_timeout=5.0)

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


def ending(m: ModuleType, how: str) -> Model:
    """Files are announced while it is stopped or cancelled; the next start does the rest."""

    async def model() -> None:
        with world(m, "in") as site:
            pool = site.pool(max_concurrency=2)
            site.drop("0.csv", "0")
            most, asked = 3, False

            async def produce() -> None:
                for number in (1, 2):
                    await asyncio.sleep(0)
                    site.drop(f"{number}.csv", str(number))

            async def end() -> None:
                nonlocal most, asked
                for _ in range(detangle.randint(0, 12)):
                    await asyncio.sleep(0)
                if how == "run is cancelled":
                    running.cancel()
                else:
                    most, asked = pool.stats.converted + pool.stats.running, True
                    await pool.stop(timeout=0 if how == "stop at once" else 30)

            running = asyncio.create_task(pool.run(), name="run")
            producing = asyncio.create_task(produce(), name="producer")
            stopping = asyncio.create_task(end(), name="stop")
            if how == "stop is cancelled":
                detangle.inject_cancellation(stopping, points=16)
            await asyncio.wait([stopping, producing])
            if how != "run is cancelled" and not asked:  # cancelled before it asked
                await pool.stop()
            await asyncio.wait([running])
            assert running.cancelled() or running.exception() is None, "run has failed"
            assert not pool.stats.running
            assert len(site.started) <= most, "a file was chosen after stop"
            assert sorted(site.submitted) == site.texts("done"), "submitted, and not moved"
            assert site.texts("error") == [], "a file was blamed for the end of the pool"
            left = site.texts(".")
            assert sorted(left + site.texts("done")) == ["0", "1", "2"]
            await site.finish()
            assert sorted(site.submitted) == ["0", "1", "2"], "lost, or submitted twice"

    return model


def check_a_stop(m: ModuleType) -> Model:
    return ending(m, "stop")


def check_a_stop_at_once(m: ModuleType) -> Model:
    return ending(m, "stop at once")


def check_a_stop_that_is_cancelled(m: ModuleType) -> Model:
    return ending(m, "stop is cancelled")


def check_a_run_that_is_cancelled(m: ModuleType) -> Model:
    return ending(m, "run is cancelled")


def check_replacing(m: ModuleType) -> Model:
    """A producer that replaces its file, and a watch that repeats itself."""

    async def model() -> None:
        with world(m, "in") as site:
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


def check_vanishing(m: ModuleType) -> Model:
    """One directory vanishes, and the other one's files are converted."""

    async def model() -> None:
        with world(m, "in", "gone") as site:
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


BLAMES = "AssertionError: a file was blamed for the end of the pool"
NOT_IN_TIME = "AssertionError: the slot was not free in time, or too early"
# With each, how many steps out of asyncio's order, and how many schedules are drawn besides.
SEARCHES: list[tuple[Proof, int, int]] = [
    (
        Proof(
            "CP-2",
            check_urgency,
            [
                Twin(
                    "chooses files before there is a slot",
                    faults.chooses_early(),
                    (
                        "AssertionError: files were chosen without a slot",
                        "AssertionError: others were chosen before the urgent one",
                    ),
                )
            ],
            diagram="Files that were chosen before there was a slot go before the urgent one",
        ),
        budget(2, 3),
        300,
    ),
    (
        Proof(
            "CP-3",
            check_hanging_in_own_threads,
            [Twin("lets a thread that hangs keep its slot", faults.keeps_the_slot(), LOST)],
        ),
        6,
        0,
    ),
    (
        Proof(
            "CP-3",
            check_hanging_in_an_executor,
            [
                Twin(
                    "takes a lost worker for a free slot",
                    faults.ignores_its_executor(),
                    NOT_IN_TIME,
                ),
                Twin("forgets who ends late", faults.never_frees_the_slot(), LOST),
            ],
        ),
        6,
        0,
    ),
    (Proof("CP-3", check_just_in_time), 6, 0),
    (
        Proof(
            "CP-4",
            check_a_stop,
            [
                Twin(
                    "goes on while it stops",
                    faults.stops_when_nothing_waits(),
                    "AssertionError: a file was chosen after stop",
                )
            ],
        ),
        budget(1, 2),
        200,
    ),
    (
        Proof(
            "CP-1",
            check_a_stop_at_once,
            [
                Twin(
                    "waits between submission and move",
                    faults.waits_after_submitting(),
                    "AssertionError: submitted, and not moved",
                ),
                Twin(
                    "blames a file whose submission it stops",
                    faults.blames_cancelled_submissions(),
                    BLAMES,
                ),
            ],
            diagram="An await between submission and move: the result is submitted again",
        ),
        budget(1, 2),
        200,
    ),
    (Proof("CP-4", check_a_stop_that_is_cancelled), budget(1, 2), 200),
    (
        Proof(
            "CP-4",
            check_a_run_that_is_cancelled,
            [
                Twin(
                    "blames a file whose submission it cancels",
                    faults.blames_cancelled_submissions(),
                    BLAMES,
                )
            ],
        ),
        budget(1, 2),
        200,
    ),
    (
        Proof(
            "CP-1",
            check_replacing,
            [
                Twin(
                    "sees no difference between a file and the next",
                    faults.sees_no_difference(),
                    "AssertionError: the last version was lost",
                ),
                Twin("is deaf while it converts", faults.deaf_while_it_converts(), LOST),
                Twin(
                    "takes a file for another when it is told again",
                    faults.hears_of_another(),
                    "AssertionError: submitted twice",
                ),
                Twin(
                    "submits a result before it looks again",
                    faults.submits_at_once(),
                    "AssertionError: submitted twice",
                ),
            ],
        ),
        budget(3, 4),
        300,
    ),
    (
        Proof(
            "CP-5",
            check_vanishing,
            [Twin("stops when one directory is lost", faults.stops_when_one_is_lost(), LOST)],
        ),
        budget(3, 4),
        0,
    ),
]
PROOFS = [proof for proof, _, _ in SEARCHES]
LANES: dict[Any, tuple[str, ...]] = {
    check_urgency: ("urgent", "normal"),
    check_a_stop_at_once: ("stop", "in: "),
}


@each_proof(PROOFS)
def test_each_schedule_keeps_the_promise(proof: Proof, schedules: Schedules) -> None:
    ((delays, drawn),) = [rest for each, *rest in SEARCHES if each is proof]
    model: Any = proof.check(ours)
    schedules.prove(model, delays=delays)
    if drawn:
        schedules.sample(model, schedules=drawn)


@each_twin(PROOFS)
def test_a_schedule_shows_the_fault(proof: Proof, twin: Twin, schedules: Schedules) -> None:
    model: Any = proof.check(build(COMPONENT, twin.fault))
    diagram = proof.diagram if twin is proof.twins[0] else None
    schedules.catch(model, twin=twin, diagram=diagram, lanes=LANES.get(proof.check, ()))


# The threads' side: a conversion is cancelled, or it runs, but not both.


class Line:
    """A loop whose callbacks stand in one line, and whose timers are due when it is empty."""

    def __init__(self) -> None:
        self.calls: queue.Queue[Callable[[], object]] = queue.Queue()
        self.soon: collections.deque[Any] = collections.deque()
        self.timers: list[Any] = []

    def get_debug(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return False

    def time(self) -> float:
        return 0.0

    def create_future(self) -> asyncio.Future[Any]:
        loop: Any = self
        return asyncio.Future(loop=loop)

    def create_task(self, coroutine: Any, **options: Any) -> Any:
        loop: Any = self
        return asyncio.Task(coroutine, loop=loop, **options)

    def call_soon(self, call: Any, *arguments: Any, context: Any = None) -> Any:
        loop: Any = self
        self.soon.append(asyncio.Handle(call, arguments, loop, context))
        return self.soon[-1]

    def call_soon_threadsafe(self, call: Any, *arguments: Any, context: Any = None) -> Any:
        self.calls.put(partial(call, *arguments))

    def call_at(self, when: float, call: Any, *arguments: Any, context: Any = None) -> Any:
        loop: Any = self
        self.timers.append(asyncio.TimerHandle(when, call, arguments, loop, context))
        return self.timers[-1]

    call_later = call_at

    def _timer_handle_cancelled(self, timer: Any) -> None:
        self.timers.remove(timer)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        loop: Any = self
        asyncio._set_running_loop(loop)
        try:
            task = self.create_task(coroutine)
            while not task.done():
                if self.soon:
                    handle = self.soon.popleft()
                    if not handle.cancelled():
                        handle._run()
                elif self.calls.empty() and self.timers:
                    self.soon.append(self.timers.pop(self.timers.index(min(self.timers))))
                else:
                    self.calls.get()()
            return task.result()
        finally:
            asyncio._set_running_loop(None)


def check_hand_over(m: ModuleType) -> None:
    """The pool cancels, at its timeout, what a thread may be about to begin.

    A conversion that begins when its file has been moved has been abandoned, and counts as that.
    """
    ran: list[str] = []
    given_up: list[str] = []
    submitted: list[str] = []
    threads: list[Any] = []
    pool: Any = None

    def thread(**options: Any) -> Any:
        threads.append(threading.Thread(**options))
        return threads[-1]

    def convert(path: Path) -> str:
        ran.append(path.name)
        if not path.exists() and not pool.stats.abandoned:
            given_up.append(path.name)
        return path.name

    async def submit(result: str) -> None:
        submitted.append(result)

    async def main() -> None:
        nonlocal pool
        with world(m, "in") as site:
            rebind(m, Thread=thread)
            site.drop("x.csv", "x")
            converter = m.Converter("c", site.boxes["in"], ("*.csv",), convert)
            pool = m.AsyncConverterPool([converter], submit, convert_timeout=1.0)
            async with pool:
                while not pool.stats.running:
                    await asyncio.sleep(0)
            ends = site.texts("done"), site.texts("error")
            assert ends == (["x"] * len(submitted), ["x"] * (1 - len(submitted)))

    Line().run(main())
    for each in threads:
        each.join()
    assert len(ran) == 1 or not (ran or submitted)
    assert not given_up, "cancelled, and converted all the same"


HAND_OVER = [
    Proof(
        "CP-3",
        check_hand_over,
        [
            Twin(
                "does not ask whether its conversion was cancelled",
                faults.does_not_ask(),
                "AssertionError: cancelled, and converted all the same",
            )
        ],
        diagram="A thread that does not ask whether its conversion was cancelled",
    )
]


@pytest.fixture
def _no_names_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log records ask for those, and the explorer's threads have none."""
    monkeypatch.setattr(logging, "logThreads", False)


@pytest.mark.usefixtures("_no_names_of_threads")
@each_proof(HAND_OVER)
def test_a_thread_takes_no_conversion_that_was_cancelled(
    proof: Proof, interleavings: Interleavings
) -> None:
    proof.explore(ours, interleavings)
    interleavings.sample(lambda: proof.check(ours), schedules=200)


@pytest.mark.usefixtures("_no_names_of_threads")
@each_twin(HAND_OVER)
def test_a_thread_that_does_not_ask_is_caught(
    proof: Proof, twin: Twin, interleavings: Interleavings
) -> None:
    proof.catch(twin, COMPONENT, interleavings)
