"""The threads of DirectoryWatch and its loop, under every schedule of interleave-test.

The whole component runs, on a real directory. Its keeper is a thread of the explorer's,
watchdog's observer is one that tells of events by hand, and the loop is a line of callbacks,
which is what `call_soon_threadsafe` appends to.
"""

import asyncio
import collections
import contextlib
import itertools
import os
import queue
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from watchdog import events

from reference_impl.bridges import file_watch
from tests.bridges.file_watch import inside
from tests.bridges.file_watch.faults import (
    GIVE,
    gives_once,
    ignores_a_closed_loop,
    name_and_look,
    rings,
    rings_for_each_event,
    sees_files,
    wakes_nobody,
)
from tests.bridges.file_watch.helpers import age
from tests.interleavings.file_watch.teller import Teller, put_observer
from tests.kit.explore import Interleavings
from tests.kit.primitives import silent, unlocked
from tests.kit.proofs import Proof, caught, explored
from tests.kit.twins import Fault, Twin, edit


def spawn(*arguments: Any, **options: Any) -> Any:
    import interleave_test  # pyright: ignore[reportMissingImports]  # not on Python 3.11

    return interleave_test.spawn(*arguments, **options)


class Line:
    """A loop whose callbacks stand in one line; it waits for the next where there is none."""

    def __init__(self) -> None:
        self.calls: queue.Queue[Callable[[], object]] = queue.Queue()
        self.soon: collections.deque[Callable[[], object]] = collections.deque()
        self.rung, self.closed = 0, False

    def get_debug(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return self.closed

    def create_future(self) -> asyncio.Future[Any]:
        loop: Any = self
        return asyncio.Future(loop=loop)

    def call_soon(self, call: Any, *arguments: Any, context: Any = None) -> Any:
        there = call if context is None else partial(context.run, call)
        self.soon.append(partial(there, *arguments))

    def call_soon_threadsafe(self, call: Any, *arguments: Any, context: Any = None) -> Any:
        if self.closed:
            raise RuntimeError("Event loop is closed")
        self.rung += 1
        self.calls.put(partial(call, *arguments))

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        loop: Any = self
        asyncio._set_running_loop(loop)
        task: Any = asyncio.Task(coroutine, loop=loop)
        try:
            while not task.done():
                call = self.soon.popleft() if self.soon else self.calls.get()
                call()
            return task.result()
        finally:
            asyncio._set_running_loop(None)
            if not task.done():  # the explorer has given this schedule up
                task._log_destroy_pending = False
                with contextlib.suppress(BaseException):
                    coroutine.close()


class Bridge:
    """A watch of a folder, entered on a line, and the teller of its events."""

    def __init__(self, m: ModuleType, folder: str, files: tuple[str, ...], **options: Any) -> None:
        self.inbox = Path(folder, "inbox")
        self.inbox.mkdir()
        for name in files:
            self.make(name)
        self.loop, self.teller = Line(), Teller()
        put_observer(m, lambda **_: self.teller)
        given = {"rescan_interval": None, "clock": time.monotonic} | options
        self.watch = vars(m)["DirectoryWatch"](self.inbox, **given)
        self.loop.run(self.watch.__aenter__())

    def make(self, name: str) -> str:
        """Make a file whose time is that of any other."""
        path = self.inbox / name
        path.touch()
        age(path)
        return str(path)

    def tell(self, kind: Any, *paths: str) -> None:
        """In the observer's thread."""
        self.teller.handler.dispatch(kind(*paths))

    def closed(self, *names: str) -> None:
        """These files are made, one after another, and closed."""
        for name in names:
            self.tell(events.FileClosedEvent, self.make(name))

    def deleted(self, *names: str) -> None:
        """These files go."""
        for name in names:
            (self.inbox / name).unlink()
            self.tell(events.FileDeletedEvent, str(self.inbox / name))

    def take(self, number: int) -> list[str]:
        """The next files."""

        async def take() -> list[str]:
            return [(await anext(self.watch)).name for _ in range(number)]

        return list(self.loop.run(take()))

    def leave(self) -> None:
        """Leave the block."""
        self.loop.run(self.watch.__aexit__())


@contextlib.contextmanager
def bridge(m: ModuleType, *files: str, **options: Any) -> Iterator[Bridge]:
    """A watch of a folder with these files; it is left at the end."""
    with tempfile.TemporaryDirectory() as folder:
        made = Bridge(m, folder, files, **options)
        yield made
        if not made.loop.closed:
            made.leave()


def all_rest() -> None:
    """Return when no thread can go on: the explorer lets time pass only then."""
    time.sleep(1.0)


# The models: what other threads do while the loop takes files.


def check_an_event_and_a_loop_that_goes_to_sleep(m: ModuleType) -> None:
    """The loop finds nothing more and goes to sleep, just when a file comes."""
    with bridge(m) as b:
        b.closed("first")
        b.loop.calls.get()()  # no call is left that might wake the loop by chance
        observer = spawn(b.closed, "second", "third", name="observer")
        assert b.take(3) == ["first", "second", "third"]
        observer.join()


def check_the_observer_and_a_scan(m: ModuleType) -> None:
    """Both find files, one of them the same."""
    with bridge(m, "b") as b:
        observer = spawn(b.closed, "a", "b", name="observer")
        assert sorted(b.take(2)) == ["a", "b"]
        observer.join()
        all_rest()
        b.closed("last")
        assert b.take(1) == ["last"], "a file was given twice"


def check_a_burst_while_the_loop_is_busy(m: ModuleType) -> None:
    with bridge(m) as b:
        before = b.loop.rung
        observers = [spawn(b.closed, name) for name in ("a", "b")]
        for observer in observers:
            observer.join()
        all_rest()
        assert b.loop.rung == before + 1, "the loop was woken too often"
        assert sorted(b.take(2)) == ["a", "b"]
        assert b.loop.rung == before + 1


def check_a_file_that_goes_and_comes_back(m: ModuleType) -> None:
    """It is given or not; put back, it is given again if it was given."""
    with bridge(m) as b:
        b.closed("file")
        path, given, times = b.inbox / "file", list[str](), list[int]()

        def observer() -> None:
            times.append(2 if given else 1)
            path.rename(b.inbox / ".file")
            b.tell(events.FileMovedEvent, str(path), "")
            (b.inbox / ".file").rename(path)
            b.tell(events.FileMovedEvent, "", str(path))  # it is the very same
            b.closed("last")

        thread = spawn(observer, name="observer")
        while "last" not in given:
            given += b.take(1)
        thread.join()
        assert given in (["file"] * times[0] + ["last"], ["file", "file", "last"])


def check_a_scan_that_waits_for_room(m: ModuleType) -> None:
    taken: list[str] = []
    looked = set[str]()
    real = os.lstat

    def lstat(path: Any, **options: Any) -> os.stat_result:
        if len(name := Path(path).name) == 1:
            looked.add(name)
            assert len(looked) <= len(taken) + 3, "the scan runs away"
        return real(path, **options)

    inside.run_ahead(m, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "lstat", lstat)
        with bridge(m, "a", "b", "c", "d") as b:
            for _ in range(4):
                taken += b.take(1)
            assert sorted(taken) == ["a", "b", "c", "d"]


def check_a_scan_whose_files_go(m: ModuleType) -> None:
    """Room is made by a file that goes, not only by those that are taken."""
    inside.run_ahead(m, 1)
    with bridge(m, "a", "b") as b:
        first, last = (path.name for path in b.inbox.iterdir())  # in the order of the scan
        observer = spawn(b.deleted, first, name="observer")
        while b.take(1) != [last]:
            pass
        observer.join()


def check_a_watch_that_is_left(m: ModuleType) -> None:
    """Its keeper ends, also one that is just asked for another scan."""
    with bridge(m, recursive=True) as b:
        (b.inbox / "deep").mkdir()
        observer = spawn(b.tell, events.DirCreatedEvent, str(b.inbox / "deep"), name="observer")
        b.leave()
        observer.join()
        assert b.teller.stopped.is_set()


def check_what_is_asked_of_a_keeper_that_goes_to_sleep(m: ModuleType) -> None:
    """It looks into a directory that appears, and again at a file that settles."""
    with bridge(m, recursive=True, settle=1.0) as b:

        def observer() -> None:
            (b.inbox / "deep").mkdir()
            b.make("deep/file")
            b.tell(events.DirCreatedEvent, str(b.inbox / "deep"))
            b.tell(events.FileDeletedEvent, b.make("again"))

        thread = spawn(observer, name="observer")
        assert sorted(b.take(2)) == ["again", "file"]
        thread.join()


def check_a_directory_that_goes_with_its_last_file(m: ModuleType) -> None:
    """After the last file that goes there is a look at the root, also if one is under way."""
    seconds = itertools.count()  # each time that it is asked, a second later
    with bridge(m, ".a", ".b", clock=lambda: next(seconds)) as b:

        def observer() -> None:
            b.deleted(".a")
            (b.inbox / ".b").unlink()
            b.inbox.rmdir()
            b.tell(events.FileDeletedEvent, str(b.inbox / ".b"))

        thread = spawn(observer, name="observer")
        with pytest.raises(FileNotFoundError, match="enter it again"):
            b.take(1)
        thread.join()


def check_an_end_and_its_reason(m: ModuleType) -> None:
    with bridge(m) as b:
        observer = spawn(b.tell, events.DirDeletedEvent, str(b.inbox), name="observer")
        observer.join()
        with pytest.raises(FileNotFoundError, match="enter it again"):
            b.take(1)


def check_a_closed_loop(m: ModuleType) -> None:
    """Who finds the loop closed ends the keeper; the observer's thread hears no exception."""
    with bridge(m) as b:
        b.loop.closed = True
        observer = spawn(b.closed, "a", name="observer")
        observer.join()
        observer.result()
        b.teller.stopped.wait()  # for which its keeper has to end


def rings_once() -> Fault:
    """When it has been entered, the loop is rung no more."""

    def change(post: Callable[..., Any]) -> Callable[..., Any]:
        left = [post]
        return lambda *arguments: left.pop()(*arguments) if left else None

    return rings(change)


serial = itertools.count(1)
PROOFS = [
    Proof(
        "FW-2",
        check_an_event_and_a_loop_that_goes_to_sleep,
        [
            Twin(
                "looks, and clears its flag outside the lock",
                unlocked(GIVE),
                ("deadlock", "KeyError"),
            ),
            Twin("rings no more when it has been entered", rings_once(), "deadlock"),
        ],
    ),
    Proof(
        "FW-2",
        check_the_observer_and_a_scan,
        [
            Twin(
                "takes each look for that of a new file",
                sees_files(lambda _: {"st_mtime_ns": next(serial)}),
                "AssertionError: a file was given twice",
            )
        ],
    ),
    Proof(
        "FW-2",
        check_a_burst_while_the_loop_is_busy,
        [Twin("rings for each file", rings_for_each_event(), "AssertionError: woken too often")],
    ),
    Proof(
        "FW-1",
        check_a_file_that_goes_and_comes_back,
        [Twin("forgets no file", gives_once(name_and_look), "AssertionError: given in")],
    ),
    Proof(
        "FW-5",
        check_a_watch_that_is_left,
        [Twin("does not tell of the end", silent("DirectoryWatch.__aexit__"), "deadlock")],
    ),
    Proof(
        "FW-3",
        check_what_is_asked_of_a_keeper_that_goes_to_sleep,
        [Twin("asks, and wakes nobody", wakes_nobody(), "deadlock")],
    ),
    Proof(
        "FW-4",
        check_a_directory_that_goes_with_its_last_file,
        [Twin("doubts, and wakes nobody", wakes_nobody(), "deadlock")],
    ),
    Proof(
        "FW-4",
        check_an_end_and_its_reason,
        [
            Twin(
                "ends before it says why",
                edit(
                    "_Inbox.advance",
                    """\
                    with self._lock: ...
                    """,
                    """\
                    with self._lock:
                        self.state = max(self.state, state)
                    with self._lock:
                        ...
                    """,
                ),
                "StopAsyncIteration",
            )
        ],
    ),
    Proof(
        "FW-2",
        check_a_closed_loop,
        [Twin("ignores a closed loop", ignores_a_closed_loop(), "deadlock")],
    ),
]
# How far a scan runs ahead only a look inside can set.
MAKES_ROOM = "if self._full and len(self._pending) <= _READ_AHEAD // 2"
NO_ROOM_IF_EMPTY = f"""\
if not self._pending:
    ...
{MAKES_ROOM}:
    self._full = False
    self._changed.notify()
"""
ROOM = [
    Proof(
        "FW-1",
        check_a_scan_that_waits_for_room,
        [
            Twin("does not let the scan go on", silent(GIVE), "deadlock"),
            Twin(
                "does not let the scan wait",
                edit(
                    "_Inbox.wait_for_room",
                    "self._full = len(self._pending) >= _READ_AHEAD",
                    "self._full = False",
                ),
                "AssertionError: the scan runs away",
            ),
        ],
    ),
    Proof(
        "FW-1",
        check_a_scan_whose_files_go,
        [
            Twin(
                "makes room only for who is given a file",
                edit("_Inbox.take", MAKES_ROOM + ": ...", "pass")
                + edit("_Inbox.take", "if not self._pending: ...", NO_ROOM_IF_EMPTY),
                "deadlock",
            )
        ],
        granularity="line",  # of three threads that wait for each other there are too many
    ),
]

test_each_schedule_keeps_the_promise = explored(PROOFS, file_watch)


@pytest.mark.parametrize("proof", ROOM, ids=lambda proof: proof.name)
def test_each_schedule_of_a_scan_that_waits(proof: Proof, interleavings: Interleavings) -> None:
    proof.explore(file_watch, interleavings)
    if proof.check is check_a_scan_whose_files_go:
        interleavings.sample(lambda: proof.check(file_watch), schedules=500)


test_the_broken_twin_is_caught = caught(PROOFS + ROOM, file_watch)
