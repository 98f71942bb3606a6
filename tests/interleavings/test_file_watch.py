"""DirectoryWatch: the bridge between its threads and the loop, under every schedule.

The threads' side runs on interleave-test: `_Inbox` whole, with the loop replaced by a line of
callbacks, which is what `call_soon_threadsafe` appends to. The loop's side runs on detangle:
`DirectoryWatch` whole, with the keeper's thread replaced by a callback. watchdog, the file system
and the real loop are in neither; the tests in tests/bridges run those.
"""

import asyncio
import itertools
import math
import queue
import threading
from collections.abc import Callable, Coroutine
from types import ModuleType, SimpleNamespace
from typing import Any

import detangle
import pytest

from reference_impl.bridges import file_watch
from tests.kit.explore import Interleavings, Schedules
from tests.kit.twins import twin

FILE = "bridges/file_watch.py"
Model = Callable[[ModuleType], None]


def look(number: int = 1) -> Any:
    return (1, number, 10**18, 100)


def spawn(*arguments: Any, **options: Any) -> Any:
    import interleave_test  # pyright: ignore[reportMissingImports]  # not on Python 3.11

    return interleave_test.spawn(*arguments, **options)


class Loop:
    """The loop and its one task that takes files: it waits for a callback when it finds none."""

    def __init__(self, m: ModuleType, *, settle: float = 0.0, interval: float = math.inf) -> None:
        self.calls: queue.Queue[None] = queue.Queue()
        self.rung = 0
        self.inbox = m._Inbox(self.ring, settle, interval, lambda: 0.0)

    def ring(self) -> None:
        self.rung += 1
        self.calls.put(None)

    def take(self, number: int) -> list[str]:
        taken: list[str] = []
        while len(taken) < number:
            name = self.inbox.take()
            if name is None:
                self.calls.get()
            else:
                taken.append(name)
        return taken


# The models: what other threads do while the loop takes files.


def an_event_and_an_empty_inbox(m: ModuleType) -> None:
    """The loop finds nothing more and goes to sleep, just when a file comes."""
    loop = Loop(m)

    def observer() -> None:
        loop.inbox.offer("first", look())
        loop.inbox.offer("second", look())

    observers, taker = spawn(observer, name="observer"), spawn(loop.take, 2, name="loop")
    for thread in (observers, taker):
        thread.join()
    assert taker.result() == ["first", "second"]


def the_observer_and_a_scan(m: ModuleType) -> None:
    """Both find files, one of them the same."""
    loop = Loop(m)

    def observer() -> None:
        loop.inbox.offer("a", look(), event=True)
        loop.inbox.offer("b", look(), event=True)

    def scan() -> None:
        if loop.inbox.due("b", look()):
            loop.inbox.offer("b", look())

    threads = [spawn(observer), spawn(scan)]
    assert sorted(loop.take(2)) == ["a", "b"]
    for thread in threads:
        thread.join()
    assert loop.inbox.take() is None, "a file was given twice"


def a_burst_while_the_loop_is_busy(m: ModuleType) -> None:
    loop = Loop(m)
    observers = [spawn(loop.inbox.offer, name, look()) for name in ("a", "b")]
    for observer in observers:
        observer.join()
    assert loop.rung == 1, f"the loop was woken {loop.rung} times"
    assert sorted(loop.take(2)) == ["a", "b"]
    assert loop.rung == 1


def a_file_that_goes(m: ModuleType) -> None:
    """It is given or not; put back, it is given again if it was given."""
    loop = Loop(m)
    loop.inbox.offer("file", look(1))
    times = []

    def observer() -> None:
        times.append(2 if "file" in loop.inbox._taken else 1)
        loop.inbox.forget("file")
        loop.inbox.offer("file", look(1), event=True)  # it is the very same
        loop.inbox.offer("last", look(2), event=True)

    thread = spawn(observer)
    given = []
    while "last" not in given:
        given += loop.take(1)
    thread.join()
    assert given in (["file"] * times[0] + ["last"], ["file", "file", "last"])


def a_scan_that_waits_for_room(m: ModuleType) -> None:
    loop = Loop(m)

    def scan() -> None:
        for name in ("a", "b", "c"):
            assert loop.inbox.wait_for_room()
            loop.inbox.offer(name, look())
            assert len(loop.inbox._pending) <= 2

    m._AHEAD = 2  # type: ignore[attr-defined]
    thread = spawn(scan)
    assert loop.take(3) == ["a", "b", "c"]
    thread.join()


def a_scan_whose_files_go(m: ModuleType) -> None:
    """Room is made by files that go, not only by those that are taken."""
    loop = Loop(m)

    def scan() -> None:
        for name in ("a", "b", "c"):
            assert loop.inbox.wait_for_room()
            loop.inbox.offer(name, look())

    def observer() -> None:
        loop.inbox.forget("a")
        loop.inbox.forget("b")

    m._AHEAD = 2  # type: ignore[attr-defined]
    threads = [spawn(scan), spawn(observer)]
    while loop.take(1) != ["c"]:
        pass
    for thread in threads:
        thread.join()


def a_keeper_that_is_told_to_end(m: ModuleType) -> None:
    loop = Loop(m)

    def keeper() -> None:
        while loop.inbox.next_job() is not None:
            loop.inbox.wait_for_room()
        loop.inbox.tell(ended=True)

    thread = spawn(keeper)
    requester = spawn(loop.inbox.request, "deep/")
    loop.inbox.close()
    while not loop.inbox.ended:
        loop.calls.get()
    for each in (thread, requester):
        each.join()


def a_request_for_a_scan(m: ModuleType) -> None:
    """Whatever is asked for is done, also when it is asked for just before the keeper sleeps."""
    loop = Loop(m)
    jobs: list[str] = []

    def keeper() -> None:
        while "deep/" not in jobs or "file" not in jobs:
            jobs.append(loop.inbox.next_job())
            if jobs[-1] == "file":
                loop.inbox.due("file", None)

    def observer() -> None:
        loop.inbox._settle = -1.0  # due at once
        assert not loop.inbox.due("file", look())
        loop.inbox.request("deep/")

    threads = [spawn(keeper), spawn(observer)]
    for thread in threads:
        thread.join()


def a_file_that_goes_and_a_keeper_that_sleeps(m: ModuleType) -> None:
    """After the last file that goes there is a look at the root, also if one is under way."""
    loop = Loop(m)
    assert loop.inbox.next_job() == ""
    loop.inbox._clock = itertools.count().__next__  # each time that it is asked, a second later
    gone: list[str] = []
    looks: list[list[str]] = []

    def keeper() -> None:
        while not looks or len(looks[-1]) < 2:
            assert loop.inbox.next_job() == m._ROOT
            looks.append(gone.copy())

    def observer() -> None:
        for name in ("a", "b"):
            gone.append(name)
            loop.inbox.doubt()

    threads = [spawn(keeper), spawn(observer)]
    for thread in threads:
        thread.join()
        thread.result()


def an_error_and_those_who_wait(m: ModuleType) -> None:
    loop = Loop(m)

    def keeper() -> None:
        while loop.inbox.next_job() is not None:
            pass
        loop.inbox.tell(ended=True)

    threads = [spawn(keeper), spawn(loop.inbox.close, FileNotFoundError("gone"))]
    with pytest.raises(FileNotFoundError, match="gone"):
        loop.take(1)
    for thread in threads:
        thread.join()


def a_closed_loop(m: ModuleType) -> None:
    """Who finds the loop closed ends the keeper; the observer's thread hears no exception."""
    loop = Loop(m)

    def closed() -> None:
        raise RuntimeError("Event loop is closed")

    def keeper() -> None:
        while loop.inbox.next_job() is not None:
            pass

    loop.inbox._ring = closed
    threads = [spawn(keeper), spawn(loop.inbox.offer, "a", look())]
    for thread in threads:
        thread.join()
        thread.result()


MODELS: list[Model] = [
    an_event_and_an_empty_inbox,
    the_observer_and_a_scan,
    a_burst_while_the_loop_is_busy,
    a_file_that_goes,
    a_scan_that_waits_for_room,
    a_scan_whose_files_go,
    a_keeper_that_is_told_to_end,
    a_request_for_a_scan,
    a_file_that_goes_and_a_keeper_that_sleeps,
    an_error_and_those_who_wait,
    a_closed_loop,
]


@pytest.mark.guarantee("FW-1", "FW-2", "FW-3", "FW-4", "FW-5")
@pytest.mark.parametrize("model", MODELS)
def test_each_schedule_keeps_the_promise(
    model: Model, interleavings: Interleavings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_watch, "_AHEAD", 2)
    if model is a_scan_whose_files_go:  # three threads that wait for each other: too many
        interleavings.prove(lambda: model(file_watch), granularity="line")
        interleavings.sample(lambda: model(file_watch), schedules=500)
        return
    interleavings.prove(lambda: model(file_watch))
    if model not in {the_observer_and_a_scan, a_keeper_that_is_told_to_end}:
        interleavings.prove(lambda: model(file_watch), preemptions=2, granularity="line")


ROOM = """\
            if self._full and len(self._pending) <= _AHEAD // 2:
                self._full = False
                self._changed.notify()
"""
NOTHING = """\
            if not self._pending:
                self._awake = False
                return None
"""
TAKE = """\
            name, self._taken[name] = self._pending.popitem(last=False)
            return name
"""
UNLOCKED = NOTHING + TAKE
IN_TWO_STEPS = """\
            if self._pending:
                name, self._taken[name] = self._pending.popitem(last=False)
                return name
        self._awake = False
        return None
"""
CLOSED = """\
            self.closing, self.error = True, self.error or error
            self._changed.notify_all()
"""
CLOSED_IN_TWO_STEPS = """\
            self.closing = True
            self._changed.notify_all()
        self.error = self.error or error
"""
TWINS: list[tuple[str, Model, tuple[str, str], str]] = [
    (
        "the flag is cleared after the look",
        an_event_and_an_empty_inbox,
        (UNLOCKED, IN_TWO_STEPS),
        "deadlock",
    ),
    (
        "nobody rings",
        an_event_and_an_empty_inbox,
        ("_awake = True\n        self._post()\n", "_awake = True\n"),
        "deadlock",
    ),
    (
        "each file rings",
        a_burst_while_the_loop_is_busy,
        ("            if self._awake:\n                return\n", ""),
        "woken 2",
    ),
    (
        "no file is known",
        the_observer_and_a_scan,
        ("known == look and not", "known == 0 and not"),
        "given twice",
    ),
    (
        "none is forgotten",
        a_file_that_goes,
        ("            self._taken.pop(name, None)\n", ""),
        "AssertionError",
    ),
    (
        "the scan is not let go on",
        a_scan_that_waits_for_room,
        ("                self._full = False\n                self", "                self"),
        "deadlock",
    ),
    (
        "the scan does not wait",
        a_scan_that_waits_for_room,
        ("self._full = len(self._pending) >= _AHEAD", "self._full = False"),
        "AssertionError",
    ),
    (
        "only who is given a file makes room",
        a_scan_whose_files_go,
        (ROOM + NOTHING, NOTHING + ROOM),
        "deadlock",
    ),
    (
        "the end is not told",
        a_keeper_that_is_told_to_end,
        ("or error\n            self._changed.notify_all()\n", "or error\n"),
        "deadlock",
    ),
    (
        "a request is not told",
        a_request_for_a_scan,
        ("[directory] = None\n            self._changed.notify()\n", "[directory] = None\n"),
        "deadlock",
    ),
    (
        "a doubt is not told",
        a_file_that_goes_and_a_keeper_that_sleeps,
        ("            if self._doubt_at == math.inf:\n", "            if False:\n"),
        "deadlock",
    ),
    (
        "the end comes before its reason",
        an_error_and_those_who_wait,
        (CLOSED, CLOSED_IN_TWO_STEPS),
        "StopAsyncIteration",
    ),
    (
        "a closed loop is ignored",
        a_closed_loop,
        ("            self.close()\n\n\nclass", "            pass\n\n\nclass"),
        "deadlock",
    ),
]


@pytest.mark.twin("FW-1", "FW-2", "FW-3", "FW-4", "FW-5")
@pytest.mark.parametrize(
    ("model", "fault", "expected"), [pytest.param(*rest, id=name) for name, *rest in TWINS]
)
def test_the_broken_twin_is_caught(
    model: Model, fault: tuple[str, str], expected: str, interleavings: Interleavings
) -> None:
    broken = twin(FILE, fault)
    failure = interleavings.catch(lambda: model(broken), preemptions=2, granularity="line")
    found = f"{failure.kind} {failure.details} {failure.exception!r}"
    assert expected in found, found


@pytest.mark.twin("FW-2")
def test_a_flag_that_is_cleared_outside_the_lock_loses_the_wake_up(
    interleavings: Interleavings,
) -> None:
    broken = twin(FILE, (UNLOCKED, IN_TWO_STEPS))
    title = "The loop clears its flag after it has looked, and sleeps although a file is there"
    interleavings.catch(
        lambda: an_event_and_an_empty_inbox(broken),
        preemptions=2,
        granularity="line",
        diagram=title,
    )


# The loop's side.


class LoopCondition:
    """What the keeper waits on, where it is a task: on one loop there is nothing to lock."""

    def __init__(self, _: object) -> None:
        self.changed = asyncio.Event()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def notify(self) -> None:
        self.changed.set()

    notify_all = notify


class KeeperTask:
    """A keeper that has no files: it says that it has started, and ends when it is told to."""

    def __init__(self, *, target: Callable[[], Coroutine[Any, Any, None]], **_: object) -> None:
        self.target = target
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.target(), name="keeper")

    def join(self) -> None:
        assert self.task is not None


class NoWatcher:
    def __init__(self, inbox: Any, *_: object) -> None:
        self.inbox = inbox

    async def run(self) -> None:
        self.inbox.tell()
        while not self.inbox.closing:
            self.inbox._changed.changed.clear()
            await self.inbox._changed.changed.wait()
        self.inbox.tell(ended=True)


@pytest.fixture
def on_one_loop(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType], ModuleType]:
    """Puts a module's keeper on the loop."""

    def patched(module: ModuleType) -> ModuleType:
        lock, most = threading.Lock, threading.TIMEOUT_MAX
        shim = SimpleNamespace(
            Thread=KeeperTask, Condition=LoopCondition, Lock=lock, TIMEOUT_MAX=most
        )
        monkeypatch.setattr(module, "threading", shim)
        monkeypatch.setattr(module, "_Watcher", NoWatcher)
        return module

    return patched


def takers(module: ModuleType, files: int = 3) -> Callable[[], Coroutine[Any, Any, None]]:
    """Two tasks iterate, one of them may be cancelled at any await; files come meanwhile."""

    async def model() -> None:
        given: list[str] = []
        enough = asyncio.Event()

        async def take() -> None:
            async for path in watch:
                given.append(path.name)
                if len(given) == files:
                    enough.set()
                await asyncio.sleep(0)

        async def produce() -> None:
            for number in range(files):
                watch._inbox.offer(f"{number}", look(number))
                await asyncio.sleep(0)

        async with module.DirectoryWatch("anywhere") as watch:
            tasks = [asyncio.create_task(take(), name=f"taker {number}") for number in range(2)]
            detangle.inject_cancellation(tasks[0])
            await asyncio.create_task(produce(), name="observer")
            await enough.wait()
        await asyncio.wait(tasks)  # the end of the block ends the iteration
        assert given == [f"{number}" for number in range(files)], given
        assert watch._inbox.ended

    return model


def one_who_enters(module: ModuleType) -> Callable[[], Coroutine[Any, Any, None]]:
    """Entering, iterating and leaving may be cancelled at any await; the keeper ends."""

    async def model() -> None:
        watch = module.DirectoryWatch("anywhere")

        async def use() -> None:
            async with watch:
                watch._inbox.offer("file", look())
                assert (await anext(watch)).name == "file"

        task = asyncio.create_task(use(), name="user")
        detangle.inject_cancellation(task)
        await asyncio.wait([task])
        if not task.cancelled():
            await task
            assert watch._inbox.ended, "the block was left before the keeper had ended"
        if watch._keeper is not None:
            await watch._keeper.task

    return model


@pytest.mark.guarantee("FW-2", "FW-5")
@pytest.mark.parametrize("model", [takers, one_who_enters])
def test_no_cancellation_takes_a_file_or_leaves_the_keeper(
    model: Callable[[ModuleType], Callable[[], Coroutine[Any, Any, None]]],
    schedules: Schedules,
    on_one_loop: Callable[[ModuleType], ModuleType],
) -> None:
    schedules.prove(model(on_one_loop(file_watch)), delays=2)
    schedules.sample(model(file_watch), schedules=500)


@pytest.mark.twin("FW-2", "FW-5")
@pytest.mark.parametrize(
    ("model", "fault"),
    [
        (
            takers,
            (
                "        return self._path / name\n",
                "        await asyncio.sleep(0)\n        return self._path / name\n",
            ),
        ),
        (
            takers,
            (
                "                raise self.error or StopAsyncIteration\n",
                "                return None\n",
            ),
        ),
        (
            one_who_enters,
            ("        while not self._inbox.ended:\n            await self._rung()\n", ""),
        ),
        (
            one_who_enters,
            ("            await self.__aexit__()\n            raise", "            raise"),
        ),
    ],
    ids=[
        "it waits with a file in hand",
        "the end is not told",
        "it does not wait for the keeper",
        "who does not get in leaves the keeper",
    ],
)
def test_a_fault_on_the_loop_is_caught(
    model: Callable[[ModuleType], Callable[[], Coroutine[Any, Any, None]]],
    fault: tuple[str, str],
    schedules: Schedules,
    on_one_loop: Callable[[ModuleType], ModuleType],
) -> None:
    schedules.catch(model(on_one_loop(twin(FILE, fault))))
