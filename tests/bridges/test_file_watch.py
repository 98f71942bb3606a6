"""DirectoryWatch on a real file system, with real watchdog observers.

Nothing here sleeps to let events arrive: a test waits for the next file, and shows that one is
not given by making another behind it. A check that takes a module is run on broken twins, too.
"""

import asyncio
import contextlib
import errno
import itertools
import logging
import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from watchdog import events
from watchdog.observers.polling import PollingObserver
from watchdog.utils import delayed_queue

from reference_impl.bridges import file_watch
from reference_impl.bridges.file_watch import DirectoryWatch
from tests.kit.process import run_python
from tests.kit.twins import twin

FILE = "bridges/file_watch.py"
PATIENCE = 60.0  # seconds: a net against hangs, far above what anything takes
Check = Callable[[ModuleType, Path], Coroutine[Any, Any, None]]

linux = pytest.mark.skipif(sys.platform != "linux", reason="about inotify, leases or /proc")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="names and renames of POSIX")


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    path = tmp_path / "inbox"
    path.mkdir()
    return path


sentinels = itertools.count()


async def name(watch: Any, wanted: str = "") -> str:
    """The next file, by its path below the directory; sentinels only if wanted."""
    while True:
        async with asyncio.timeout(PATIENCE):
            given = str((await anext(watch)).relative_to(watch._path))
        if given == wanted or not given.startswith("sentinel"):
            return given


async def names(watch: Any, number: int) -> list[str]:
    return [await name(watch) for _ in range(number)]


async def nothing_more(watch: Any) -> None:
    """Nothing is pending: the next file is one that is made now."""
    sentinel = f"sentinel-{next(sentinels)}"
    (watch._path / sentinel).touch()
    assert await name(watch, sentinel) == sentinel


async def caught_up(watch: Any) -> None:
    """All events so far are handled; what they gave again is taken, too."""
    sentinel = f"sentinel-{next(sentinels)}"
    (watch._path / sentinel).touch()
    while await name(watch, sentinel) != sentinel:
        pass


async def at_rest(watch: Any) -> None:
    """The keeper has done all that was asked of it, and waits."""
    changed = watch._inbox._changed
    async with asyncio.timeout(PATIENCE):
        while True:
            with changed:
                if changed._waiters:
                    return
            await asyncio.sleep(0)


def age(path: Path) -> None:
    """Make the last change one of long ago, so that its time differs from any other."""
    os.utime(path, ns=(10**18, 10**18))


@contextlib.asynccontextmanager
async def spied(module: ModuleType, *arguments: Any, **options: Any) -> AsyncIterator[Any]:
    """A watch, entered, with its watcher as `watcher` and its inbox as `inbox`.

    If it has no patterns, its first scan has ended: what comes now comes by events.
    """
    watchers: list[Any] = []
    original: Any = module._Watcher

    def watcher(*given: Any) -> Any:
        watchers.append(original(*given))
        return watchers[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_Watcher", watcher)
        watch = module.DirectoryWatch(*arguments, **options)
        early = f"sentinel-{next(sentinels)}"
        (arguments[0] / early).touch()
        async with watch:
            watch.watcher, watch.inbox = watchers[0], watch._inbox
            if len(arguments) == 1:
                assert await name(watch, early) == early
                await at_rest(watch)
            yield watch


def run(check: Check, inbox: Path, module: ModuleType = file_watch) -> None:
    asyncio.run(check(module, inbox))


def catches(
    check: Check,
    inbox: Path,
    *faults: tuple[str, str],
    failure: type[BaseException] = AssertionError,
) -> None:
    """The check fails on the component with pieces of its source replaced.

    With `failure=TimeoutError` it hangs, for a file that never comes.
    """
    broken = twin(FILE, *faults)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[__name__], "PATIENCE", 0.5 if failure is TimeoutError else 60.0)
        with pytest.raises(failure):
            asyncio.run(check(broken, inbox))


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the component has put into the log."""
    return [each.getMessage() for each in caplog.records if each.name == file_watch.__name__]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def poke(watch: Any) -> None:
    """Have the keeper look at its clock."""
    with watch._inbox._changed:
        watch._inbox._changed.notify_all()


# FW-1: every file is given.


async def each_way_in(module: ModuleType, inbox: Path) -> None:
    outside = inbox.with_name("outside")
    outside.mkdir()
    (inbox / "there").write_text("x")
    (outside / "moved").write_text("x")
    async with module.DirectoryWatch(inbox, rescan_interval=None) as watch:
        assert await name(watch) == "there"
        await at_rest(watch)
        (inbox / "closed").write_text("x")
        assert await name(watch) == "closed"
        (outside / "moved").rename(inbox / "moved")
        assert await name(watch) == "moved"
        (inbox / "moved").rename(inbox / "renamed")
        assert await name(watch) == "renamed"
        (inbox / "closed").write_text("overwritten")
        assert await name(watch) == "closed"
        (outside / "another").write_text("overwritten")
        (outside / "another").replace(inbox / "closed")
        assert await name(watch) == "closed"
        (inbox / "closed").unlink()
        async with asyncio.timeout(PATIENCE):
            while "closed" in watch._inbox._taken:  # else its end and its return may both be told
                await asyncio.sleep(0)
        (inbox / "closed").write_text("overwritten")
        assert await name(watch) == "closed"
        await nothing_more(watch)


@linux
@pytest.mark.guarantee("FW-1")
def test_a_file_is_given_whichever_way_it_comes(
    inbox: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(each_way_in, inbox)
    assert not logged(caplog), "the rescan after a fault would hide it"


@linux
@pytest.mark.twin("FW-1")
@pytest.mark.parametrize(
    "fault",
    [
        ("                        self._check(name)\n", "                        pass\n"),
        ('kind == "closed" or', 'kind == "opened" or'),
        ("self._check(target, gone=True, whole=True)", "pass"),
        ('{"generate_full_events": True} if _INOTIFY else ', ""),
    ],
    ids=["no first scan", "closing is not heard", "moves are not heard", "moves in are creations"],
)
def test_a_deaf_ear_is_caught(fault: tuple[str, str], inbox: Path) -> None:
    catches(each_way_in, inbox, fault, failure=TimeoutError)


async def the_gap(module: ModuleType, inbox: Path) -> None:
    """Files come just before the observer starts, and just after."""
    original: Any = module.Observer

    class Late(original):  # type: ignore[misc]
        def start(self) -> None:
            (inbox / "before").touch()
            super().start()
            (inbox / "after").touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Observer", Late)
        async with module.DirectoryWatch(inbox, rescan_interval=None) as watch:
            found = set[str]()
            while found != {"before", "after"}:  # one of them twice, where both tell of it
                found.add(await name(watch))


@linux
@pytest.mark.guarantee("FW-1")
def test_there_is_no_gap_between_scan_and_watch(inbox: Path) -> None:
    run(the_gap, inbox)


@linux
@pytest.mark.twin("FW-1")
def test_a_watch_that_begins_after_the_scan_is_caught(inbox: Path) -> None:
    catches(
        the_gap,
        inbox,
        (
            "            self._keep_observer()\n            while",
            '            self._scan("")\n            self._keep_observer()\n            while',
        ),
        ("            self._keep_observer()\n            self._inbox.tell()", "            pass"),
        (
            "job := self._inbox.next_job()) is not None:  # first, to scan the root",
            "self._inbox.tell() or (job := self._inbox.next_job())) is not None:",
        ),
        ("self._rescan_at = -math.inf", "self._rescan_at = math.inf"),
        failure=TimeoutError,
    )


async def half_written(module: ModuleType, inbox: Path) -> None:
    with (inbox / "report").open("w") as report:
        report.write("HEAD;")
        report.flush()
        async with spied(module, inbox, rescan_interval=None) as watch:
            with (inbox / "second").open("w"):
                await nothing_more(watch)
            assert await name(watch) == "second"
            report.write("tail")
            report.close()
            assert await name(watch) == "report"


@linux
@pytest.mark.guarantee("FW-1")
def test_a_file_that_is_open_for_writing_is_given_once_closed(inbox: Path) -> None:
    run(half_written, inbox)


@linux
@pytest.mark.twin("FW-1")
def test_a_half_written_file_is_caught(inbox: Path) -> None:
    catches(half_written, inbox, ("return error.errno == errno.EAGAIN", "return False"))


async def half_written_and_moved(module: ModuleType, inbox: Path) -> None:
    """watchdog makes up an event for each file below a directory that is renamed."""
    (inbox / "deep").mkdir()
    with (inbox / "deep" / "report").open("w") as report:
        async with spied(module, inbox, recursive=True, rescan_interval=None) as watch:
            (inbox / "deep").rename(inbox / "renamed")
            await nothing_more(watch)
            await at_rest(watch)
            await nothing_more(watch)
            report.close()
            assert await name(watch) == "renamed/report"


@linux
@pytest.mark.guarantee("FW-1")
def test_a_file_that_is_open_for_writing_may_move_with_its_directory(inbox: Path) -> None:
    run(half_written_and_moved, inbox)


@linux
@pytest.mark.twin("FW-1")
def test_a_half_written_file_that_is_moved_and_given_is_caught(inbox: Path) -> None:
    fault = "self._inbox.closing or event.is_synthetic", "self._inbox.closing"
    catches(half_written_and_moved, inbox, fault)


@linux
def test_whether_a_file_is_open_for_writing(inbox: Path) -> None:
    def asks(path: Path) -> bool:
        return file_watch._open_for_writing(str(path))

    path = inbox / "file"
    with path.open("w"):
        assert asks(path)
    assert not asks(path)
    with path.open("r"):
        assert not asks(path)
    with path.open("a"), path.open("r"):
        assert asks(path)
    assert not asks(inbox / "missing")
    (inbox / "link").symlink_to(path)
    with path.open("a"):
        assert not asks(inbox / "link")
    os.mkfifo(inbox / "pipe")
    assert not asks(inbox / "pipe")


@linux
def test_a_lease_would_break_with_a_signal_that_is_ignored_and_is_given_back(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    states, real = [], fcntl.fcntl

    def noted(file: Any, *arguments: Any) -> Any:
        done = real(file, *arguments)
        states.append((real(file, fcntl.F_GETSIG), real(file, fcntl.F_GETLEASE)))
        return done

    (inbox / "file").touch()
    monkeypatch.setattr(fcntl, "fcntl", noted)
    assert not file_watch._open_for_writing(str(inbox / "file"))
    assert [lease for _, lease in states] == [fcntl.F_UNLCK, fcntl.F_RDLCK, fcntl.F_UNLCK]
    assert states[1][0] == signal.SIGURG


@linux
def test_who_opens_a_file_while_it_is_asked_about_waits_and_nobody_dies() -> None:
    """A lease that is broken signals its holder; SIGIO, the default, would end the process."""
    run_python("""
        import fcntl, signal, tempfile, threading
        from reference_impl.bridges import file_watch

        with tempfile.NamedTemporaryFile() as file:
            real, opened = fcntl.fcntl, threading.Event()

            def write():
                open(file.name, "a").close()
                opened.set()

            def with_a_writer(descriptor, command, value):
                if value == fcntl.F_UNLCK:
                    thread.start()
                    assert not opened.wait(0.1)
                return real(descriptor, command, value)

            file.file.close()
            thread = threading.Thread(target=write)
            fcntl.fcntl = with_a_writer
            assert not file_watch._open_for_writing(file.name)
            thread.join()
            assert opened.is_set()
    """)


def look(number: int) -> Any:
    return (1, number, 10**18, 100)


async def settling(module: ModuleType, inbox: Path) -> None:
    clock = Clock()
    box = module._Inbox(lambda: None, 5.0, math.inf, clock)
    assert not box.due("file", look(1))
    clock.now = 4.0
    assert not box.due("other", look(1))
    assert not box.due("file", look(2)), "it has changed: the wait begins anew"
    clock.now = 8.9
    assert not box.due("file", look(2))
    clock.now = 9.0
    assert box.due("other", look(1))
    assert box.due("file", look(2))
    assert not box.due("late", look(1))
    clock.now = 15.0
    assert not box.due("late", look(2)), "it has changed since it was seen"
    clock.now = 20.0
    assert box.due("late", look(2))
    assert not box.due("vanishes", look(1))
    assert not box.due("vanishes", None)
    assert not box._settling
    box.offer("file", look(2))
    assert not box.due("file", look(2)), "it is pending already"
    assert not box._settling
    assert box.take() == "file"
    assert not box.due("file", look(2)), "it has been given"
    assert not box._settling


@pytest.mark.guarantee("FW-1")
def test_a_file_must_not_change_while_it_settles(inbox: Path) -> None:
    run(settling, inbox)


def test_the_keeper_looks_again_at_what_has_settled() -> None:
    clock = Clock()
    box = file_watch._Inbox(lambda: None, 5.0, math.inf, clock)
    assert box.next_job() == ""
    assert not box.due("file", look(1))
    clock.now = 1.0
    assert not box.due("other", look(1))
    clock.now = 6.0
    for each in ("file", "other"):
        assert box.next_job() == each
        assert box.due(each, look(1))
    box.close()
    assert box.next_job() is None


@pytest.mark.twin("FW-1")
@pytest.mark.parametrize(
    "fault",
    [
        ("(before == look and until", "(until"),
        ("and until <= self._clock()", ""),
        ("            if before != look:\n", "            if True:\n"),
    ],
    ids=["changes do not count", "nor does time", "each look begins anew"],
)
def test_a_file_given_too_early_is_caught(fault: tuple[str, str], inbox: Path) -> None:
    catches(settling, inbox, fault)


@linux
def test_settling_concerns_what_scans_find_and_not_what_events_tell(inbox: Path) -> None:
    async def main() -> None:
        clock = Clock()
        (inbox / "there").touch()
        async with DirectoryWatch(inbox, settle=5.0, rescan_interval=7.0, clock=clock) as watch:
            await nothing_more(watch)
            await at_rest(watch)
            clock.now = 5.0
            poke(watch)
            assert await name(watch) == "there"
            os.link(inbox / "there", inbox / "link")
            clock.now = 7.0
            poke(watch)
            await at_rest(watch)
            await nothing_more(watch)
            (inbox / "there").rename(inbox / "moved")  # and it is given at once
            assert await name(watch) == "moved"
            clock.now = 12.0
            poke(watch)
            assert await name(watch) == "link"

    asyncio.run(main())


def test_directories_are_scanned_in_the_order_in_which_that_was_asked_for() -> None:
    box = file_watch._Inbox(lambda: None, 0.0, math.inf, Clock())
    for directory in ("b/", "a/", "b/", "c/"):
        box.request(directory)
    assert [box.next_job() for _ in range(4)] == ["b/", "a/", "c/", ""]  # the first scan is due


async def links(module: ModuleType, inbox: Path) -> None:
    clock = Clock()
    (inbox.parent / "original").touch()
    async with module.DirectoryWatch(inbox, rescan_interval=60.0, clock=clock) as watch:
        await at_rest(watch)
        os.link(inbox.parent / "original", inbox / "link")
        await nothing_more(watch)
        clock.now = 60.0
        poke(watch)
        assert await name(watch) == "link"
        await at_rest(watch)
        clock.now = 120.0
        poke(watch)
        await at_rest(watch)
        await nothing_more(watch)


@linux
@pytest.mark.guarantee("FW-1", "FW-3")
def test_what_no_event_tells_of_is_found_by_the_rescan(inbox: Path) -> None:
    run(links, inbox)


@linux
@pytest.mark.twin("FW-1", "FW-3")
def test_a_missing_rescan_is_caught(inbox: Path) -> None:
    fault = ("self._rescan_at = None, now + self._interval", "self._rescan_at = None, math.inf")
    catches(links, inbox, fault, failure=TimeoutError)


async def gone_in_silence(module: ModuleType, inbox: Path) -> None:
    """A file goes, and the same one comes back; no event tells of either."""
    clock, lost, outside = Clock(), threading.Semaphore(0), inbox.with_name("file")
    outside.touch()
    age(outside)
    async with spied(module, inbox, clock=clock) as watch:
        outside.rename(inbox / "file")
        assert await name(watch) == "file"
        watch.watcher._handle = lambda event: lost.release()
        for source, target in ((inbox / "file", outside), (outside, inbox / "file")):
            source.rename(target)
            assert await asyncio.to_thread(lost.acquire, timeout=60.0)
            clock.now += 60.0
            poke(watch)
            await at_rest(watch)
        assert await name(watch) == "file"


@linux
@pytest.mark.guarantee("FW-1", "FW-3")
def test_a_file_whose_end_no_event_told_is_forgotten(inbox: Path) -> None:
    run(gone_in_silence, inbox)


@linux
@pytest.mark.twin("FW-1", "FW-3")
def test_a_file_that_went_in_silence_and_is_remembered_is_caught(inbox: Path) -> None:
    fault = "        for name in unseen:\n", "        for name in ():\n"
    catches(gone_in_silence, inbox, fault, failure=TimeoutError)


@linux
def test_a_rescan_looks_once_at_each_file_that_is_known(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, lstat = list[str](), os.lstat

    def noted(path: Any, **options: Any) -> os.stat_result:
        looks.append(os.fspath(path))
        return lstat(path, **options)

    async def main() -> None:
        clock = Clock()
        async with spied(file_watch, inbox, clock=clock) as watch:
            (inbox / "file").touch()
            assert await name(watch) == "file"
            monkeypatch.setattr(os, "lstat", noted)
            clock.now = 60.0
            poke(watch)
            await at_rest(watch)
            assert looks.count(f"{os.path.realpath(inbox)}/file") == 1

    asyncio.run(main())


async def tree(module: ModuleType, inbox: Path) -> None:
    outside = inbox.with_name("outside")
    (outside / "deep" / "er").mkdir(parents=True)
    (outside / "deep" / "er" / "moved").touch()
    (inbox / "old" / "er").mkdir(parents=True)
    (inbox / "old" / "er" / "there").touch()
    (inbox / ".git" / "refs").mkdir(parents=True)
    (inbox / ".git" / "refs" / "head").touch()
    async with module.DirectoryWatch(inbox, recursive=True, rescan_interval=None) as watch:
        assert await name(watch) == "old/er/there"
        (outside / "deep").rename(inbox / "deep")
        assert await name(watch) == "deep/er/moved"
        (inbox / "deep" / "er" / "more").touch()
        assert await name(watch) == "deep/er/more"
        (inbox / "new" / "er" / "still").mkdir(parents=True)
        for directory in ("new/er/still", "new/er", "new"):
            (inbox / directory / "file").touch()
        found, wanted = set[str](), {"new/file", "new/er/file", "new/er/still/file"}
        while not wanted <= found:  # "more" may come twice, where the scan has found it, too
            found.add(await name(watch))
        assert found <= wanted | {"deep/er/more"}
        (inbox / ".git" / "refs" / "tail").touch()
        (inbox / ".hidden" / "deep").mkdir(parents=True)
        (inbox / ".hidden" / "deep" / "file").touch()
        (inbox / "old").rename(inbox / "renamed")
        found = set()
        while "renamed/er/there" not in found:
            found.add(await name(watch))
        (inbox / "renamed" / "er" / "late").touch()
        while "renamed/er/late" not in found:
            found.add(await name(watch))
        assert not any("." in each or "old" in each for each in found)


# watchdog adds a watch twice where a directory below is made at the wrong moment, and warns of it.
twice = pytest.mark.filterwarnings("ignore:Callback with id:RuntimeWarning")


@linux
@twice
@pytest.mark.guarantee("FW-1")
def test_directories_may_appear_with_files_inside(
    inbox: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tree, inbox)
    assert not logged(caplog), "the rescan after a fault would hide it"


@linux
@twice
@pytest.mark.twin("FW-1")
@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        (("self._inbox.request(appeared)", "pass"), TimeoutError),
        (('os.sep + "." not in os.sep + directory', "True"), AssertionError),
    ],
    ids=["a directory that appears is not scanned", "hidden ones are entered"],
)
def test_a_directory_that_is_overlooked_is_caught(
    fault: tuple[str, str], failure: type[BaseException], inbox: Path
) -> None:
    catches(tree, inbox, fault, failure=failure)


@linux
@twice
def test_a_directory_that_is_moved_away_and_back_brings_its_files_again(inbox: Path) -> None:
    async def main() -> None:
        (inbox / "deep").mkdir()
        (inbox / "deep" / "file").touch()
        async with DirectoryWatch(inbox, recursive=True, rescan_interval=None) as watch:
            for _ in range(2):
                assert await name(watch) == "deep/file"
                (inbox / "deep").rename(inbox.parent / "deep")
                (inbox.parent / "deep").rename(inbox / "deep")
            assert await name(watch) == "deep/file"

    asyncio.run(main())


@linux
@twice
def test_what_is_told_of_a_directory_concerns_the_files_below(inbox: Path) -> None:
    """Told here by hand, since a file below mostly has an event of its own; a link has none."""
    deep, original = inbox / "deep", inbox.with_name("original")

    async def main() -> None:
        original.touch()
        age(original)
        async with spied(file_watch, inbox, recursive=True, rescan_interval=None) as watch:
            deep.mkdir()
            await nothing_more(watch)
            await at_rest(watch)
            os.link(original, deep / "link")
            await nothing_more(watch)
            watch.watcher.dispatch(events.DirCreatedEvent(str(deep)))
            assert await name(watch) == "deep/link"
            for told in (events.DirCreatedEvent(str(deep)), events.DirMovedEvent("", str(deep))):
                watch.watcher.dispatch(told)
                await at_rest(watch)
                await nothing_more(watch)
            for gone in (events.DirDeletedEvent(str(deep)), events.DirMovedEvent(str(deep), "")):
                watch.watcher.dispatch(gone)  # so what is there now is new
                assert await name(watch) == "deep/link"
            await nothing_more(watch)

    asyncio.run(main())


@linux
def test_a_file_that_is_moved_in_is_given_though_nothing_told_that_it_had_gone(inbox: Path) -> None:
    async def main() -> None:
        (inbox.parent / "file").touch()
        age(inbox.parent / "file")
        async with spied(file_watch, inbox, rescan_interval=None) as watch:
            (inbox.parent / "file").rename(inbox / "file")
            assert await name(watch) == "file"
            watch.watcher.dispatch(events.FileMovedEvent("", str(inbox / "file")))
            assert await name(watch) == "file"

    asyncio.run(main())


@linux
@pytest.mark.parametrize("recursive", [False, True])
def test_only_events_that_matter_are_asked_for(inbox: Path, recursive: bool) -> None:
    async def main() -> None:
        async with spied(file_watch, inbox, recursive=recursive) as watch:
            kinds, dispatch = set[type](), watch.watcher.dispatch

            def noted(event: events.FileSystemEvent) -> None:
                kinds.add(type(event))
                dispatch(event)

            watch.watcher.dispatch = noted
            (inbox / "file").write_text("x")
            assert (inbox / "file").read_text() == "x"
            (inbox / "file").chmod(0o600)
            (inbox / "deep").mkdir()
            (inbox / "deep").rename(inbox / "renamed")
            assert await name(watch) == "file"
            await nothing_more(watch)
            below = {events.DirCreatedEvent, events.DirMovedEvent} if recursive else set()
            assert kinds == {events.FileClosedEvent} | below
            os.link(inbox / "file", inbox / "link")
            for event in (events.FileCreatedEvent, events.FileModifiedEvent):
                dispatch(event(str(inbox / "link")))  # nor are they news: it may be half written
            await nothing_more(watch)

    asyncio.run(main())


@linux
@pytest.mark.parametrize("recursive", [False, True])
def test_a_directory_below_may_be_removed(inbox: Path, recursive: bool) -> None:
    async def main() -> None:
        (inbox / "deep").mkdir()
        async with spied(file_watch, inbox, recursive=recursive) as watch:
            (inbox / "deep").rmdir()
            await nothing_more(watch)
            await at_rest(watch)
            await nothing_more(watch)

    asyncio.run(main())


@linux
@pytest.mark.parametrize("recursive", [False, True])
def test_hidden_directories_and_links_to_others_are_not_entered(
    inbox: Path, monkeypatch: pytest.MonkeyPatch, recursive: bool
) -> None:
    entered, scandir = set[str](), os.scandir

    def noted(path: Any) -> Any:
        if isinstance(path, str):  # bytes are watchdog's
            entered.add(path)
        return scandir(path)

    async def main() -> None:
        for directory in ("deep/er", "deep/.hidden", ".git/refs", "../outside"):
            (inbox / directory).mkdir(parents=True)
            (inbox / directory / "report-2").touch()
            (inbox / directory / ".csv").touch()
        (inbox / "report-1").touch()
        (inbox / "link").symlink_to(inbox.with_name("outside"))
        wanted = {"report-1", "deep/er/report-2"} if recursive else {"report-1"}
        monkeypatch.setattr(os, "scandir", noted)
        patterns = ["report-?", "*.csv", "sentinel-*"]
        async with DirectoryWatch(inbox, patterns, recursive=recursive) as watch:
            assert set(await names(watch, len(wanted))) == wanted
            await at_rest(watch)
            await nothing_more(watch)
        root, below = os.path.realpath(inbox), ["deep/", "deep/er/"] if recursive else []
        assert entered == {f"{root}/{each}" for each in ["", *below]}

    asyncio.run(main())


def test_directories_below_are_left_alone_unless_asked_for(inbox: Path) -> None:
    async def main() -> None:
        (inbox / "deep").mkdir()
        (inbox / "deep" / "file").touch()
        async with DirectoryWatch(inbox) as watch:
            await nothing_more(watch)
            (inbox / "deep" / "more").touch()
            (inbox / "another").mkdir()
            (inbox / "another" / "file").touch()
            (inbox / "deep").rename(inbox / "moved")
            await nothing_more(watch)

    asyncio.run(main())


ODD = ["new\nline.csv", "x" * 251 + ".csv", "späce and 'quotes'.csv", "*.csv", "-rf.csv", " .csv"]


async def patterns(module: ModuleType, inbox: Path) -> None:
    odd = [*ODD, os.fsdecode(b"latin-\xe9.csv")] if sys.platform == "linux" else ODD
    for each in odd:
        (inbox / each).touch()
    for each in ("notes.txt", ".hidden.csv", "a.csv.part", "csv", "UPPER.CSV"):
        (inbox / each).touch()
    async with module.DirectoryWatch(inbox, ["*.csv", "report-?"]) as watch:
        assert set(await names(watch, len(odd))) == set(odd)
        await at_rest(watch)
        for each in ("notes.txt", ".late.csv", "b.csv.part", "report-10", "report-1"):
            (inbox / each).touch()
        assert await name(watch) == "report-1"
        (inbox / "b.csv.part").rename(inbox / "b.csv")
        assert await name(watch) == "b.csv"
        for each in odd:
            (inbox / each).write_text("again")
            assert await name(watch) == each


@linux
@pytest.mark.guarantee("FW-1")
def test_patterns_match_names_and_never_hidden_ones(inbox: Path) -> None:
    run(patterns, inbox)


@linux
@pytest.mark.twin("FW-1")
def test_hidden_files_that_are_given_are_caught(inbox: Path) -> None:
    catches(patterns, inbox, ("(?![.]|\\Z)", ""))


def test_on_windows_the_case_does_not_matter_and_a_backslash_parts_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not file_watch._compiled(["*.csv"]).match("UPPER.CSV")
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        patch.setattr(os, "sep", "\\")
        assert file_watch._compiled(["*.csv"]).match("UPPER.CSV")
        for pattern in (r"a\*.csv", "a/*.csv"):
            with pytest.raises(ValueError, match="must match visible names"):
                file_watch._compiled([pattern])


@linux
def test_only_regular_files_are_given(inbox: Path) -> None:
    async def main() -> None:
        def litter(suffix: str) -> None:
            os.mkfifo(inbox / f"pipe{suffix}")
            (inbox / f"link{suffix}").symlink_to(inbox.parent)
            (inbox / f"file{suffix}").symlink_to("/etc/hostname")
            (inbox / f"dangling{suffix}").symlink_to("nowhere")
            (inbox / f"directory{suffix}").mkdir()

        litter("1")
        async with DirectoryWatch(inbox) as watch:
            await nothing_more(watch)
            litter("2")
            (inbox / "pipe2").rename(inbox / "pipe3")
            (inbox / "file2").rename(inbox / "file3")
            await nothing_more(watch)

    asyncio.run(main())


def test_paths_begin_with_the_directory_as_it_was_passed(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        (inbox / "there").touch()
        (inbox.parent / "link").symlink_to(inbox)
        monkeypatch.chdir(inbox.parent)
        for given in ("inbox", Path("link"), "inbox/../link/", inbox):
            async with DirectoryWatch(given) as watch:
                assert await anext(watch) == Path(given) / "there"
                (inbox / "late").write_text("x")
                assert await anext(watch) == Path(given) / "late"
                (inbox / "late").unlink()
        monkeypatch.chdir(inbox)
        async with DirectoryWatch(".") as watch:
            assert await anext(watch) == Path("there")
        spaced = inbox.with_name("inbox ")
        spaced.mkdir()
        (spaced / "file").touch()
        async with DirectoryWatch(spaced) as watch:
            assert await anext(watch) == spaced / "file"

    asyncio.run(main())


async def many(module: ModuleType, inbox: Path) -> None:
    """More files than a scan may run ahead of; others come and go while it waits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_AHEAD", 10)
        for number in range(100):
            (inbox / f"old-{number}").touch()
        async with spied(module, inbox, ["old-*", "new-*"], rescan_interval=None) as watch:
            given = [await name(watch)]
            assert len(watch.inbox._pending) <= 10
            for number in range(20):
                (inbox / f"new-{number}").touch()
            for number in range(0, 100, 2):
                (inbox / f"old-{number}").unlink()
            wanted = {f"old-{number}" for number in range(1, 100, 2)}
            wanted |= {f"new-{number}" for number in range(20)}
            while not wanted <= set(given):
                given.append(await name(watch))
                assert len(watch.inbox._pending) <= 30


@linux
@pytest.mark.guarantee("FW-1")
def test_a_scan_waits_for_who_takes_the_files(inbox: Path) -> None:
    run(many, inbox)


@linux
@pytest.mark.twin("FW-1")
@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        (("self._full = len(self._pending) >= _AHEAD", "self._full = False"), AssertionError),
        (
            (
                "                self._full = False\n                self._ch",
                "                self._ch",
            ),
            TimeoutError,
        ),
    ],
    ids=["it does not wait", "it is not let go on"],
)
def test_a_scan_that_runs_away_or_stands_still_is_caught(
    fault: tuple[str, str], failure: type[BaseException], inbox: Path
) -> None:
    catches(many, inbox, fault, failure=failure)


def test_a_scan_goes_on_when_half_of_what_it_found_was_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(file_watch, "_AHEAD", 9)
    box = file_watch._Inbox(lambda: None, 0.0, math.inf, Clock())
    changed: Any = box._changed
    notify, woken_at = changed.notify, list[int]()

    def noted() -> None:
        woken_at.append(len(box._pending))
        notify()

    changed.notify = noted
    assert box.take() is None
    for number in range(9):
        assert box.wait_for_room()
        box.offer(f"{number}", look(number))
    scan = threading.Thread(target=box.wait_for_room, daemon=True)
    scan.start()
    while not changed._waiters:
        assert scan.is_alive(), "it has not waited"
    assert [box.take() for _ in range(9)] == [f"{number}" for number in range(9)]
    assert woken_at == [4]  # once
    scan.join(PATIENCE)
    assert not scan.is_alive()


# FW-2: the bridge.


async def one_wake_up(module: ModuleType, inbox: Path) -> None:
    loop = asyncio.get_running_loop()
    posts, noticed = [], threading.Semaphore(0)
    original = loop.call_soon_threadsafe

    def post(*arguments: Any) -> Any:
        posts.append(threading.current_thread().name)
        return original(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "call_soon_threadsafe", post)
        async with spied(module, inbox, rescan_interval=None) as watch:
            await nothing_more(watch)
            offer = watch.inbox.offer

            def offered(*arguments: Any, **options: Any) -> None:
                offer(*arguments, **options)
                noticed.release()

            patch.setattr(watch.inbox, "offer", offered)
            waiting = asyncio.create_task(name(watch))
            await asyncio.sleep(0)  # it waits now
            posts.clear()
            for number in range(200):  # and the loop stands still
                (inbox / f"{number}").touch()
                assert noticed.acquire(timeout=PATIENCE)
            for _ in range(5):
                (inbox / "199").write_text("changed")
                assert noticed.acquire(timeout=PATIENCE)
            assert len(posts) == 1
            assert await waiting == "0"
            assert await names(watch, 199) == [f"{number}" for number in range(1, 200)]
            assert len(posts) == 1
            await nothing_more(watch)


@linux
@pytest.mark.guarantee("FW-2")
def test_a_burst_is_one_wake_up_and_gives_no_file_twice(inbox: Path) -> None:
    run(one_wake_up, inbox)


@linux
@pytest.mark.twin("FW-2")
@pytest.mark.parametrize(
    "fault",
    [
        ("            if self._awake:\n                return\n", ""),
        (
            "self._pending[name] = look, fresh",
            "self._pending[name + ' ' * len(self._pending)] = look, fresh",
        ),
    ],
    ids=["each file wakes the loop", "a file is pending twice"],
)
def test_a_wake_up_or_a_file_too_many_is_caught(fault: tuple[str, str], inbox: Path) -> None:
    catches(one_wake_up, inbox, fault)


async def tick() -> None:
    while True:
        await asyncio.sleep(0.001)


async def from_the_loop_only(module: ModuleType, inbox: Path) -> None:
    """Whatever is asked of the loop and of the bell is noted, with the thread that asks."""
    here, strangers = threading.get_ident(), set[str]()

    def noted(what: str, original: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if threading.get_ident() != here:
                strangers.add(what)
                if what.startswith("Event."):  # noted, and done on the loop: else it may be lost
                    return post(original, *arguments)
            return original(*arguments, **options)

        return call

    loop = asyncio.get_running_loop()
    post = loop.call_soon_threadsafe
    asked = ["call_soon", "call_soon_threadsafe", "call_later", "call_at", "create_task"]
    asked += ["create_future", "run_in_executor", "is_closed", "is_running", "time", "stop"]
    with pytest.MonkeyPatch.context() as patch:
        for what in asked:
            patch.setattr(loop, what, noted(what, getattr(loop, what)))
        for what in ("set", "clear"):
            patch.setattr(asyncio.Event, what, noted(f"Event.{what}", getattr(asyncio.Event, what)))
        # The loop turns anyway, so that a wake-up that does not reach it shows here, not as a hang.
        ticking = asyncio.create_task(tick())
        async with module.DirectoryWatch(inbox) as watch:
            for _ in range(3):
                await nothing_more(watch)
        ticking.cancel()
    assert strangers == {"call_soon_threadsafe"}


@pytest.mark.guarantee("FW-2")
def test_the_threads_touch_the_loop_by_call_soon_threadsafe_alone(inbox: Path) -> None:
    run(from_the_loop_only, inbox)


@pytest.mark.twin("FW-2")
def test_an_event_set_off_the_loop_is_caught(inbox: Path) -> None:
    fault = "lambda: loop.call_soon_threadsafe(bell.set)", "bell.set"
    catches(from_the_loop_only, inbox, fault)


async def repeated_or_new(module: ModuleType, inbox: Path) -> None:
    path = inbox / "file"
    path.write_text("first")
    age(path)
    async with module.DirectoryWatch(inbox, rescan_interval=None) as watch:
        assert await name(watch) == "file"
        path.open("r+").close()  # closed after writing, says the event, but nothing was written
        await nothing_more(watch)
        path.write_text("other")  # as long as it was
        assert await name(watch) == "file"
        path.unlink()
        path.write_text("third")
        age(path)
        assert await name(watch) == "file"


@linux
@pytest.mark.guarantee("FW-2")
def test_a_repeated_event_is_told_from_a_new_file(inbox: Path) -> None:
    run(repeated_or_new, inbox)


@linux
@pytest.mark.twin("FW-2")
@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        (("known == look and not", "known == 0 and not"), AssertionError),
        (("known == look and not", "known is not None and not"), TimeoutError),
        (("found.st_mtime_ns, found.st_size", "0, found.st_size"), TimeoutError),
    ],
    ids=["nothing is a repetition", "all is", "the time does not count"],
)
def test_a_file_that_is_taken_for_another_is_caught(
    fault: tuple[str, str], failure: type[BaseException], inbox: Path
) -> None:
    catches(repeated_or_new, inbox, fault, failure=failure)


async def same_tick(module: ModuleType, inbox: Path) -> None:
    """Two writes of one length in one step of the file system's clock look the same."""
    path = inbox / "file"
    tick = time.time_ns() + 10**12

    def write(text: str) -> None:
        with path.open("w") as file:
            file.write(text)
            file.flush()
            os.utime(path, ns=(tick, tick))

    async with spied(module, inbox, rescan_interval=None) as watch:
        write("first")
        assert await name(watch) == "file"
        write("other")
        assert await name(watch) == "file"


@linux
@pytest.mark.guarantee("FW-1", "FW-2")
def test_a_file_that_changes_without_a_trace_just_after_it_was_given_is_given_again(
    inbox: Path,
) -> None:
    run(same_tick, inbox)


@linux
@pytest.mark.twin("FW-1", "FW-2")
def test_a_change_in_the_same_tick_that_is_lost_is_caught(inbox: Path) -> None:
    catches(same_tick, inbox, ("and not (event and was_fresh)", ""), failure=TimeoutError)


def test_only_an_event_and_only_soon_after_a_change_gives_again_what_looks_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for since, again in ((0, "file"), (19_999_999, "file"), (20_000_000, None)):
        monkeypatch.setattr(time, "time_ns", lambda since=since: look(1)[2] + since)
        box = file_watch._Inbox(lambda: None, 0.0, math.inf, Clock())
        box.offer("file", look(1))
        assert box.take() == "file"
        box.offer("file", look(1))
        assert box.take() is None
        box.offer("file", look(1), event=True)
        assert box.take() == again


async def put_back(module: ModuleType, inbox: Path) -> None:
    """What a queue does with its files: claim by renaming, put back, or be done."""
    (inbox / "job.queued").write_text("x")
    age(inbox / "job.queued")
    async with module.DirectoryWatch(inbox, ["*.queued", "sentinel*"]) as watch:
        for _ in range(3):
            assert await name(watch) == "job.queued"
            (inbox / "job.queued").rename(inbox / "job.processing")
            (inbox / "job.processing").rename(inbox / "job.queued")
        assert await name(watch) == "job.queued"
        await caught_up(watch)  # the event of its end may find it back, and so does the next
        (inbox / "job.queued").rename(inbox / "job.processing")
        (inbox / "job.processing").rename(inbox / "job.completed")
        await nothing_more(watch)


@linux
@pytest.mark.guarantee("FW-1", "FW-2")
def test_a_file_that_is_put_back_is_given_again(inbox: Path) -> None:
    run(put_back, inbox)


@linux
@pytest.mark.twin("FW-1", "FW-2")
def test_a_file_that_was_put_back_in_vain_is_caught(inbox: Path) -> None:
    fault = "            self._inbox.forget(name)\n", "            pass\n"
    catches(put_back, inbox, fault, failure=TimeoutError)


async def renamed_while_pending(module: ModuleType, inbox: Path) -> None:
    async with spied(module, inbox) as watch:
        for number in range(10):
            (inbox / f"{number}").write_text("x")
        while "9" not in watch.inbox._pending:
            await asyncio.sleep(0)
        for number in range(1, 10):
            (inbox / f"{number}").rename(inbox / f".{number}")
        (inbox / "last").touch()
        while "last" not in watch.inbox._pending:
            await asyncio.sleep(0)
        assert await names(watch, 2) == ["0", "last"]


@linux
@pytest.mark.guarantee("FW-2")
def test_a_file_that_went_while_it_was_pending_is_not_given(inbox: Path) -> None:
    run(renamed_while_pending, inbox)


@linux
@pytest.mark.twin("FW-2")
def test_a_file_that_is_gone_and_given_is_caught(inbox: Path) -> None:
    fault = "            self._pending.pop(name, None)\n", ""
    catches(renamed_while_pending, inbox, fault)


def test_tasks_share_the_files_and_a_cancelled_one_takes_none(inbox: Path) -> None:
    async def main() -> None:
        async with DirectoryWatch(inbox, rescan_interval=None) as watch:
            given: list[str] = []

            async def take() -> None:
                async for path in watch:
                    given.append(path.name)
                    await asyncio.sleep(0)

            async def take_one() -> Path:
                return await anext(watch)

            tasks = [asyncio.create_task(take()) for _ in range(3)]
            cancelled = [asyncio.create_task(take_one()) for _ in range(3)]
            await asyncio.sleep(0)
            for number in range(50):
                (inbox / f"{number}").write_text("x")
            for task in cancelled:
                task.cancel()
            assert all(map(asyncio.Task.cancelled, (await asyncio.wait(cancelled))[0]))
            while len(set(given)) < 50:
                await asyncio.sleep(0)
        await asyncio.gather(*tasks)  # the end of the block is the end of the iteration

    asyncio.run(main())


def test_who_takes_one_file_after_another_lets_others_in(inbox: Path) -> None:
    async def main() -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with spied(file_watch, inbox) as watch:
            for number in range(1000):
                watch.inbox.offer(f"{number}", look(number))
            task = asyncio.create_task(other())
            await asyncio.sleep(0)
            turns = 0
            for _ in range(1000):
                await anext(watch)
            assert 10 <= turns <= 20
            task.cancel()

    asyncio.run(main())


# A loop that is closed under it.


def closed_loop(module: ModuleType, inbox: Path, then: Callable[[Any], None]) -> None:
    loop = asyncio.new_event_loop()
    clock = Clock()
    watch = module.DirectoryWatch(inbox, rescan_interval=60.0, clock=clock)
    loop.run_until_complete(watch.__aenter__())
    loop.close()
    watch.test_clock = clock
    then(watch)
    watch._keeper.join(PATIENCE)
    assert not watch._keeper.is_alive(), "nobody told the threads"
    assert watch._inbox.ended


def event_comes(watch: Any) -> None:
    (watch._path / "file").touch()


def rescan_comes(watch: Any) -> None:
    watch._inbox._awake = True  # a wake-up is on its way that will never arrive
    watch.test_clock.now = 60.0
    poke(watch)


@pytest.mark.guarantee("FW-2", "FW-5")
@pytest.mark.parametrize("then", [event_comes, rescan_comes])
def test_a_loop_that_was_closed_ends_the_threads(inbox: Path, then: Callable[[Any], None]) -> None:
    closed_loop(file_watch, inbox, then)


@pytest.mark.twin("FW-2")
def test_a_closed_loop_that_goes_unnoticed_is_caught(inbox: Path) -> None:
    broken = twin(FILE, ("            self.close()\n\n\nclass", "            pass\n\n\nclass"))
    watches: list[Any] = []

    def then(entered: Any) -> None:
        watches.append(entered)
        rescan_comes(entered)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[__name__], "PATIENCE", 1.0)
        with pytest.raises(AssertionError, match="nobody told"):
            closed_loop(broken, inbox, then)
    watches[0]._inbox.close()


# FW-3: faults and lost events.


async def a_fault(module: ModuleType, inbox: Path) -> None:
    async with spied(module, inbox, rescan_interval=None) as watch:
        await nothing_more(watch)
        handle, faults = watch.watcher._handle, [RuntimeError("a bug"), OSError("a bad disk")]

        def faulty(event: events.FileSystemEvent) -> None:
            if faults and event.event_type == "closed":
                raise faults.pop()
            handle(event)

        watch.watcher._handle = faulty
        for each in ("first", "second", "third"):
            (inbox / each).touch()
            while await name(watch) != each:
                pass  # one that a scan has found, too, just when it came


@linux
@pytest.mark.guarantee("FW-3")
def test_a_fault_in_handling_costs_no_file(inbox: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(a_fault, inbox)
    errors = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert errors == ["a bad disk", "a bug"]
    for message, each in zip(logged(caplog), ("first", "second"), strict=True):
        event = repr(events.FileClosedEvent(os.path.realpath(inbox / each)))
        assert message == f"could not handle {event}: the directory will be scanned"


@linux
@pytest.mark.twin("FW-3")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    "fault",
    [
        ('            self._inbox.request("")\n', ""),
        ("        except Exception:\n", "        except ZeroDivisionError:\n"),
    ],
    ids=["the file is not looked for", "the observer ends"],
)
def test_a_fault_that_costs_a_file_is_caught(fault: tuple[str, str], inbox: Path) -> None:
    catches(a_fault, inbox, fault, failure=TimeoutError)


async def overflow(module: ModuleType, inbox: Path) -> None:
    """More events than the kernel keeps, while watchdog's reader is held up."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text(encoding="ascii"))
    if limit > 65536:
        pytest.skip(f"{limit} events fit this kernel's queue, too many to overflow it here")
    # Two events for each; the reader may have a bufferful, of 2,560, before it is held up.
    files, clock = limit // 2 + 2000, Clock()
    async with spied(module, inbox, recursive=True, clock=clock) as watch:
        await nothing_more(watch)
        with watch.watcher._observer._inotify_fd._lock:
            for number in range(files):
                (inbox / f"{number}").touch()
        given, last = set[str](), inbox / "last"
        while last.name not in given:  # the kernel drops events until it is read
            last.write_text("x")  # (touch would only set the time of one that is there)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    while last.name not in given:
                        given.add((await anext(watch)).name)
        assert len(given) <= files, "no event was lost, so the test shows nothing"
        clock.now = 60.0
        poke(watch)
        while len(given) <= files:
            given.add(await name(watch))


@linux
@pytest.mark.guarantee("FW-3")
def test_an_overflow_is_made_good_by_the_rescan(
    inbox: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(overflow, inbox)
    assert "overflow" in caplog.text  # watchdog's word for it


@linux
@pytest.mark.guarantee("FW-3")
def test_an_observer_whose_threads_have_ended_is_replaced(inbox: Path) -> None:
    async def main() -> None:
        clock = Clock()
        async with spied(file_watch, inbox, rescan_interval=60.0, clock=clock) as watch:
            parts: list[Callable[[Any], Any]] = [
                lambda observer: next(iter(observer.emitters)),
                lambda observer: observer,
                lambda observer: observer._inotify_fd,
            ]
            for part in parts:
                old = watch.watcher._observer
                thread = part(old)
                await asyncio.to_thread(thread.stop)
                await asyncio.to_thread(thread.join)
                (inbox / "lost").touch()
                clock.now += 60.0
                poke(watch)
                assert await name(watch) == "lost"
                assert watch.watcher._observer is not old
                await nothing_more(watch)
                (inbox / "lost").unlink()

    asyncio.run(main())


def test_without_rescans_there_are_none(inbox: Path) -> None:
    clock = Clock()
    box = file_watch._Inbox(lambda: None, 0.0, math.inf, clock)
    assert box.next_job() == ""
    clock.now = 1e12
    box.request("deep/")
    assert box.next_job() == "deep/"


@linux
def test_an_entry_that_cannot_be_looked_at_costs_only_itself(
    inbox: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lstat = os.lstat

    def faulty(path: Any, **options: Any) -> os.stat_result:
        if str(path).endswith("bad"):
            raise OSError(errno.EIO, "Input/output error", path)
        return lstat(path, **options)

    async def main() -> None:
        clock = Clock()
        for each in ("a", "bad", "z"):
            (inbox / each).touch()
        async with DirectoryWatch(inbox, rescan_interval=60.0, clock=clock) as watch:
            assert set(await names(watch, 2)) == {"a", "z"}
            await nothing_more(watch)
            await at_rest(watch)
            monkeypatch.undo()
            clock.now = 60.0
            poke(watch)
            assert await name(watch) == "bad"

    monkeypatch.setattr(os, "lstat", faulty)
    asyncio.run(main())
    error = OSError(errno.EIO, "Input/output error", os.path.realpath(inbox / "bad"))
    assert set(logged(caplog)) == {f"passed over until the next scan: {error}"}


@linux
def test_a_directory_below_that_cannot_be_read_costs_only_itself(
    inbox: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def faulty(path: Any) -> Any:
        if "closed" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    async def main() -> None:
        for each in ("a", "closed", "z"):
            (inbox / each).mkdir()
            (inbox / each / "file").touch()
        async with DirectoryWatch(inbox, recursive=True) as watch:
            assert set(await names(watch, 2)) == {"a/file", "z/file"}
            await nothing_more(watch)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", faulty)
        asyncio.run(main())
    assert logged(caplog) == [f"could not scan '{os.path.realpath(inbox)}/closed/'"]


@linux
@pytest.mark.parametrize("recursive", [False, True])
def test_a_file_that_is_moved_out_holds_up_nothing_but_below_a_root(
    inbox: Path, monkeypatch: pytest.MonkeyPatch, recursive: bool
) -> None:
    """watchdog sleeps half a second on each, where it is left to.

    Below a root it has to: it knows where a directory went only by both halves of the move.
    """
    naps = list[float]()

    class Time:
        sleep = naps.append

        @staticmethod
        def monotonic() -> float:
            return time.monotonic() + sum(naps)

    async def main() -> None:
        async with spied(file_watch, inbox, recursive=recursive) as watch:
            for number in range(3):
                (inbox / f"{number}").touch()
                assert await name(watch) == f"{number}"
                (inbox / f"{number}").rename(inbox.parent / f"{number}")
                await nothing_more(watch)

    monkeypatch.setattr(delayed_queue, "time", Time)
    asyncio.run(main())
    assert bool(naps) == recursive


# FW-4: the directory.


@pytest.mark.guarantee("FW-4")
def test_what_is_no_directory_is_refused_on_entry(inbox: Path) -> None:
    async def main() -> None:
        (inbox / "file").touch()
        for path, error in (
            (inbox / "missing", FileNotFoundError),
            (inbox / "file", NotADirectoryError),
            (inbox / "file" / "below", NotADirectoryError),
        ):
            with pytest.raises(error, match=f"'{path}'"):
                async with DirectoryWatch(path):
                    pytest.fail("entered")
        watch = DirectoryWatch(inbox / "missing")
        with pytest.raises(FileNotFoundError):
            await watch.__aenter__()
        (inbox / "missing").mkdir()
        (inbox / "missing" / "file").touch()
        async with watch:
            assert await name(watch) == "file"

    asyncio.run(main())


async def vanishes(module: ModuleType, inbox: Path, how: Callable[[Path], None]) -> None:
    clock = Clock()
    async with spied(module, inbox, rescan_interval=60.0, clock=clock) as watch:
        await nothing_more(watch)
        waiting = asyncio.create_task(name(watch))
        await asyncio.sleep(0)
        how(inbox)
        if how in {renamed, replaced}:
            clock.now = 60.0
            poke(watch)
        with pytest.raises(FileNotFoundError, match=f"enter the watch anew: .*'{inbox}'") as gone:
            await waiting
        assert (gone.value.errno, gone.value.filename) == (errno.ENOENT, inbox)
        with pytest.raises(FileNotFoundError):  # again, and for all who ask
            await anext(watch)


def removed(path: Path) -> None:
    shutil.rmtree(path)


def removed_and_made_anew(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def renamed(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replaced(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.mkdir()


def renamed_and_used(path: Path) -> None:
    """No event tells of the renaming, but one of what happens inside."""
    renamed(path)
    (path.with_name("elsewhere") / "file").touch()


@linux
@pytest.mark.guarantee("FW-4")
@pytest.mark.parametrize(
    "how", [removed, removed_and_made_anew, renamed, replaced, renamed_and_used]
)
def test_a_directory_that_vanishes_ends_the_iteration(
    inbox: Path, how: Callable[[Path], None]
) -> None:
    asyncio.run(vanishes(file_watch, inbox, how))


async def vanishes_empty(module: ModuleType, inbox: Path) -> None:
    """No file below tells of it, and at once another directory has its name."""
    for recursive in (False, True):
        watch = module.DirectoryWatch(inbox, recursive=recursive, rescan_interval=None)
        async with watch:
            await at_rest(watch)
            removed_and_made_anew(inbox)
            with pytest.raises(FileNotFoundError):
                await name(watch)


@linux
@pytest.mark.guarantee("FW-4")
def test_an_empty_directory_that_vanishes_ends_the_iteration(inbox: Path) -> None:
    run(vanishes_empty, inbox)


@linux
@pytest.mark.twin("FW-4")
def test_an_empty_directory_that_vanishes_in_silence_is_caught(inbox: Path) -> None:
    fault = 'elif kind == "deleted" and not source:', 'elif kind == "deleted" and source:'
    catches(vanishes_empty, inbox, fault, failure=TimeoutError)


async def vanishes_in_use(module: ModuleType, inbox: Path, kept: str) -> None:
    """What is open holds back the news of the end; nothing that is wanted goes with it.

    The lock lets no event through until all has gone, however long that takes.
    """
    for recursive in (False, True):
        inbox.mkdir(exist_ok=True)
        (inbox / ".log").touch() if kept == ".log" else (inbox / "below").mkdir()
        held = os.open(inbox / kept, os.O_RDONLY)
        watch = module.DirectoryWatch(inbox, ["*.csv"], recursive=recursive, rescan_interval=None)
        try:
            async with watch:
                await at_rest(watch)
                with watch._inbox._changed:
                    shutil.rmtree(inbox)
                with pytest.raises(FileNotFoundError, match="enter the watch anew"):
                    await name(watch)
        finally:
            os.close(held)


@linux
@pytest.mark.guarantee("FW-4")
@pytest.mark.parametrize(
    "kept", [".log", "."], ids=["a file in it", "itself, as the place of work"]
)
def test_a_directory_that_vanishes_while_it_is_open_ends_the_iteration(
    inbox: Path, kept: str
) -> None:
    asyncio.run(vanishes_in_use(file_watch, inbox, kept))


GONE_ENDS = 'if kind in {"moved", "deleted"} and source:'


@linux
@pytest.mark.twin("FW-4")
@pytest.mark.parametrize(
    ("kept", "fault"),
    [
        (".log", ("            self._inbox.doubt()\n", "            pass\n")),
        (".", (GONE_ENDS, f"{GONE_ENDS[:-1]} and not event.is_directory:")),
        (
            ".log",
            ("_ROOT:\n                    self._check_root()", "_ROOT:\n                    pass"),
        ),
        (".log", ("            if self._doubt_at == math.inf:\n", "            if False:\n")),
    ],
    ids=["no doubt", "of files alone", "the keeper does not look", "it sleeps on"],
)
def test_an_open_directory_that_vanishes_in_silence_is_caught(
    kept: str, fault: tuple[str, str], inbox: Path
) -> None:
    async def check(module: ModuleType, path: Path) -> None:
        await vanishes_in_use(module, path, kept)

    catches(check, inbox, fault, failure=TimeoutError)


async def few_looks(module: ModuleType, inbox: Path) -> None:
    """A burst of ends costs one look, when it is over, and then the keeper sleeps."""
    clock, looks = Clock(), list[float]()
    for number in range(100):
        (inbox / f".{number}").touch()
    async with spied(module, inbox, rescan_interval=None, clock=clock) as watch:
        watch.watcher._check_root = lambda: looks.append(clock.now)

        async def at(now: float) -> None:
            clock.now = now
            poke(watch)
            await at_rest(watch)

        for number in range(100):
            (inbox / f".{number}").unlink()
            if number == 50:
                await nothing_more(watch)
                await at(0.0625)
        await nothing_more(watch)
        await at(0.125)
        assert not looks, "some have gone since"
        for now in (0.25, 1e3, 1e6):
            await at(now)
        assert looks == [0.25]
        await nothing_more(watch)


@linux
@pytest.mark.guarantee("FW-4")
def test_a_burst_of_files_that_go_costs_one_look(inbox: Path) -> None:
    run(few_looks, inbox)


@linux
@pytest.mark.twin("FW-4")
@pytest.mark.parametrize(
    "fault",
    [
        ("            self._doubt_at = self._clock() + _LULL", "            self._doubt_at = 0.0"),
        ("            self._inbox.doubt()\n", "            self._check_root()\n"),
        ("            self._doubt_at = self._clock()", f"{16 * ' '}self._doubt_at = self._clock()"),
    ],
    ids=["at once", "for each", "counted from the first"],
)
def test_a_look_too_many_is_caught(fault: tuple[str, str], inbox: Path) -> None:
    catches(few_looks, inbox, fault)


async def doubt_where_something_went(module: ModuleType, inbox: Path) -> None:
    async with spied(module, inbox, rescan_interval=None, clock=Clock()) as watch:
        for event, source, target, doubted in (
            (events.FileDeletedEvent, ".a", "", True),
            (events.FileMovedEvent, ".a", ".b", True),
            (events.FileMovedEvent, "", ".b", False),
            (events.DirDeletedEvent, "a", "", True),
            (events.DirMovedEvent, "a", "b", True),
            (events.FileCreatedEvent, ".a", "", False),
            (events.FileModifiedEvent, ".a", "", False),
            (events.FileClosedEvent, ".a", "", False),
        ):
            watch._inbox._doubt_at = math.inf
            root = watch.watcher._root
            watch.watcher.dispatch(event(source and root + source, target and root + target))
            assert (watch._inbox._doubt_at < math.inf) is doubted, (event, source, target)


@linux
@pytest.mark.guarantee("FW-4")
def test_only_what_goes_raises_a_doubt(inbox: Path) -> None:
    run(doubt_where_something_went, inbox)


@linux
@pytest.mark.twin("FW-4")
@pytest.mark.parametrize(
    "fault",
    [
        (GONE_ENDS, "if source:"),
        (GONE_ENDS, 'if kind == "deleted" and source:'),
    ],
    ids=["whatever happens", "what is moved does not count"],
)
def test_a_doubt_too_many_or_too_few_is_caught(fault: tuple[str, str], inbox: Path) -> None:
    catches(doubt_where_something_went, inbox, fault)


def inbox_of_a_keeper(
    monkeypatch: pytest.MonkeyPatch, *, interval: float
) -> tuple[Any, list[float | None]]:
    """An inbox whose first scan is given out, and how long the keeper sleeps.

    Its clock goes on by the length of each sleep; one without a limit is the end.
    """
    clock, waits = Clock(), list[float | None]()
    box = file_watch._Inbox(lambda: None, 0.0, interval, clock)
    assert box.next_job() == ""

    def wait(timeout: float | None) -> None:
        waits.append(timeout)
        if timeout is None:
            box.closing = True
        else:
            clock.now += timeout

    monkeypatch.setattr(box._changed, "wait", wait)
    return box, waits


def test_the_keeper_sleeps_until_the_next_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    box, waits = inbox_of_a_keeper(monkeypatch, interval=60.0)
    for _ in range(2):
        assert box.next_job() == ""
    assert waits == [60.0, 60.0]


def test_the_keeper_is_woken_once_for_a_burst_and_sleeps_when_it_has_looked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    box, waits = inbox_of_a_keeper(monkeypatch, interval=math.inf)
    told: list[None] = []
    monkeypatch.setattr(box._changed, "notify", lambda: told.append(None))
    for bursts in (1, 2):
        for _ in range(100):
            box.doubt()
        assert len(told) == bursts
        assert box.next_job() == file_watch._ROOT
    assert waits == [pytest.approx(0.1)] * 2
    assert box.next_job() is None
    assert waits[2:] == [None]


EVENTS_DO_NOT_LOOK = "            self._check_root()  # perhaps all is gone\n", ""


@linux
@pytest.mark.twin("FW-4")
@pytest.mark.parametrize(
    ("how", "fault"),
    [
        (removed_and_made_anew, ('elif kind == "deleted" and not source:', "elif False:")),
        (
            replaced,
            ("            self._check_root()\n            self._keep", "            self._keep"),
        ),
        (renamed_and_used, EVENTS_DO_NOT_LOOK),
    ],
    ids=["removal is not heard", "the rescan does not look", "nor do events"],
)
def test_a_silent_end_is_caught(
    how: Callable[[Path], None], fault: tuple[str, str], inbox: Path
) -> None:
    async def check(module: ModuleType, path: Path) -> None:
        await vanishes(module, path, how)

    faults = {fault, EVENTS_DO_NOT_LOOK}  # or one of before the end may find it by chance
    catches(check, inbox, *faults, failure=TimeoutError)


# FW-5: leaving.


def descriptors() -> set[str]:
    """What this process has open, each with what it is."""
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(f"{each.name} {each.readlink()}")
    return {each for each in found if "/proc/" not in each}


async def leaving_leaves_nothing(module: ModuleType, inbox: Path) -> None:
    for number in range(30):
        (inbox / f"{number}").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_AHEAD", 10)  # the scan is in the middle when the block is left
        threads, files = set(threading.enumerate()), descriptors()
        for _ in range(3):
            async with module.DirectoryWatch(inbox, recursive=True) as watch:
                await name(watch)
                assert set(threading.enumerate()) > threads
            assert set(threading.enumerate()) == threads
            assert descriptors() == files
            assert asyncio.all_tasks() == {asyncio.current_task()}
            with pytest.raises(StopAsyncIteration):
                await anext(watch)


@linux
@pytest.mark.guarantee("FW-5")
def test_leaving_leaves_no_thread_descriptor_or_task(inbox: Path) -> None:
    run(leaving_leaves_nothing, inbox)


async def a_directory_that_went(module: ModuleType, inbox: Path) -> None:
    """watchdog loses count of its watches: below, one was moved out, and its successor removed."""
    threads, files = set(threading.enumerate()), descriptors()
    (inbox / "deep").mkdir()
    async with module.DirectoryWatch(inbox, recursive=True, rescan_interval=None) as watch:
        await nothing_more(watch)
        (inbox / "deep").rename(inbox.with_name("elsewhere"))
        await nothing_more(watch)
        (inbox / "deep").mkdir()
        await nothing_more(watch)
        (inbox / "deep").rmdir()
        await nothing_more(watch)
    assert set(threading.enumerate()) == threads
    assert descriptors() == files


@linux
@pytest.mark.guarantee("FW-5")
def test_leaving_ends_a_watchdog_that_has_lost_count(inbox: Path) -> None:
    run(a_directory_that_went, inbox)


@linux
@pytest.mark.twin("FW-5")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("check", "faults"),
    [
        (
            leaving_leaves_nothing,
            [
                ("        self._keeper.join()", "        pass"),
                (
                    "                self._inbox.tell(ended=True)\n",
                    "                self._inbox.tell(ended=True)\n"
                    "                time.sleep(0.5)\n",
                ),
            ],
        ),
        (
            leaving_leaves_nothing,
            [("                self._end_observer()\n", "                pass\n")],
        ),
        (a_directory_that_went, [("contextlib.suppress(KeyError)", "contextlib.suppress()")]),
    ],
    ids=["the keeper is not joined", "the observer is not ended", "one that lost count is not"],
)
def test_a_thread_that_is_left_is_caught(
    check: Check, faults: list[tuple[str, str]], inbox: Path
) -> None:
    observers: list[Any] = []
    before = set(threading.enumerate())
    original: Any = vars(file_watch)["Observer"]

    class Noted(original):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            observers.append(self)

    async def noting(module: ModuleType, path: Path) -> None:
        module.Observer = Noted  # type: ignore[attr-defined]
        await check(module, path)

    catches(noting, inbox, *faults)
    observers[0].stop()
    for thread in set(threading.enumerate()) - before:  # lest the next test counts them
        thread.join()


def test_an_observer_that_cannot_be_ended_is_waited_for_no_longer(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault of watchdog's goes to threading.excepthook, and nobody waits for ever."""
    faults: list[threading.ExceptHookArgs] = []

    async def main() -> None:
        async with spied(file_watch, inbox) as watch:
            observer = watch.watcher._observer
            stop = observer.stop

            def faulty() -> None:
                stop()
                raise OSError("a bug of watchdog's")

            observer.stop = faulty
        assert not watch._keeper.is_alive()
        observer.join(PATIENCE)

    monkeypatch.setattr(threading, "excepthook", faults.append)
    asyncio.run(main())
    assert [str(fault.exc_value) for fault in faults] == ["a bug of watchdog's"]


def test_its_threads_are_daemons_and_the_keeper_has_a_name(inbox: Path) -> None:
    async def main() -> None:
        before = set(threading.enumerate())
        async with DirectoryWatch(inbox):
            threads = set(threading.enumerate()) - before
            assert "directory-watch" in {thread.name for thread in threads}
            assert all(thread.daemon for thread in threads)

    asyncio.run(main())


async def leaving_lets_others_go_on(module: ModuleType, inbox: Path) -> None:
    """An observer that takes its time to stop, until another task of the loop lets it."""
    go_on = threading.Event()
    in_time = []

    async def other() -> None:
        await stopping.wait()
        go_on.set()

    async with spied(module, inbox) as watch:
        observer, loop, stopping = watch.watcher._observer, watch._loop, asyncio.Event()
        original = observer.stop

        def stop() -> None:
            loop.call_soon_threadsafe(stopping.set)
            in_time.append(go_on.wait(min(PATIENCE, 2.0) if module is not file_watch else PATIENCE))
            original()

        observer.stop = stop
        task = asyncio.create_task(other())
    assert in_time == [True], "the loop stood still"
    await task


@pytest.mark.guarantee("FW-5")
def test_leaving_does_not_block_the_loop(inbox: Path) -> None:
    run(leaving_lets_others_go_on, inbox)


@pytest.mark.twin("FW-5")
def test_an_observer_that_is_joined_on_the_loop_is_caught(inbox: Path) -> None:
    fault = "        while not self._inbox.ended:\n            await self._rung()\n", ""
    catches(leaving_lets_others_go_on, inbox, fault)


async def leaving_is_quiet(module: ModuleType, inbox: Path) -> None:
    """watchdog's reader holds an event until it is being ended."""
    errors: list[logging.LogRecord] = []
    log = logging.getLogger("watchdog")

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.append(record)

    ear = Ear(logging.ERROR)
    holds, ends = threading.Event(), threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        async with spied(module, inbox) as watch:
            (emitter,) = watch.watcher._observer.emitters
            group = emitter._inotify
            read, deactivate = group.read_event, group.deactivate

            def read_event() -> Any:
                event = read()
                if event is not None and event.path.endswith(b"held"):
                    holds.set()
                    assert ends.wait(PATIENCE)
                return event

            patch.setattr(group, "read_event", read_event)

            def deactivate_and_let_go() -> None:
                deactivate()
                ends.set()

            patch.setattr(group, "deactivate", deactivate_and_let_go)
            await nothing_more(watch)  # so that it has come back for the next event
            (inbox / "held").touch()
            assert await asyncio.to_thread(holds.wait, PATIENCE)
            log.addHandler(ear)
        log.removeHandler(ear)
    assert not [record.getMessage() for record in errors]


@linux
def test_leaving_while_events_come_logs_no_error(inbox: Path) -> None:
    run(leaving_is_quiet, inbox)


@linux
def test_an_observer_that_complains_of_its_end_is_caught(inbox: Path) -> None:
    fault = "while emitter.is_alive() and (group :=", "while False and (group :="
    catches(leaving_is_quiet, inbox, fault)


@pytest.mark.guarantee("FW-5")
@pytest.mark.parametrize("executor", ["busy", "closed"])
def test_leaving_needs_no_executor(inbox: Path, executor: str) -> None:
    async def main() -> None:
        jobs, gate = list[asyncio.Future[Any]](), threading.Event()
        loop = asyncio.get_running_loop()
        async with DirectoryWatch(inbox) as watch:
            if executor == "closed":
                await loop.shutdown_default_executor()
            else:
                jobs = [loop.run_in_executor(None, gate.wait) for _ in range(100)]
            await nothing_more(watch)
        if executor == "busy":
            assert not any(job.done() for job in jobs)
            gate.set()
            await asyncio.gather(*jobs)

    asyncio.run(main())


@pytest.mark.guarantee("FW-5")
def test_the_block_may_be_left_by_an_error_or_a_cancellation(inbox: Path) -> None:
    async def main() -> None:
        watch = DirectoryWatch(inbox)
        with pytest.raises(KeyError):
            async with watch:
                raise KeyError

        async def iterate() -> None:
            async with watch:
                inside.set()
                async for _ in watch:
                    pass

        inside = asyncio.Event()
        task = asyncio.create_task(iterate())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert watch._inbox is not None
        assert watch._inbox.ended
        async with watch:  # it may be entered again
            await nothing_more(watch)

    asyncio.run(main())


def test_leaving_may_be_cancelled_and_the_threads_end_all_the_same(inbox: Path) -> None:
    async def main() -> None:
        go_on = threading.Event()
        async with contextlib.AsyncExitStack() as stack:
            watch = await stack.enter_async_context(spied(file_watch, inbox))
            observer = watch.watcher._observer
            original = observer.stop
            observer.stop = lambda: (go_on.wait(PATIENCE), original())
            leaving = asyncio.create_task(watch.__aexit__())
            await asyncio.sleep(0)
            leaving.cancel()
            await asyncio.wait([leaving])
            assert leaving.cancelled()
            with pytest.raises(RuntimeError, match="in use already"):
                await watch.__aenter__()
            go_on.set()
        assert watch._inbox.ended

    asyncio.run(main())


def test_entering_may_be_cancelled(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original: Any = vars(file_watch)["Observer"]
    go_on = threading.Event()

    class Slow(original):  # type: ignore[misc]
        def start(self) -> None:
            go_on.wait(PATIENCE)
            super().start()

    async def main() -> None:
        watch = DirectoryWatch(inbox)
        entering = asyncio.create_task(watch.__aenter__())
        await asyncio.sleep(0)
        entering.cancel()
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.wait([entering])
        assert entering.cancelled()
        assert watch._inbox is not None
        assert watch._inbox.ended

    monkeypatch.setattr(file_watch, "Observer", Slow)
    asyncio.run(main())


@pytest.mark.guarantee("FW-5")
@pytest.mark.parametrize("when", ["made", "started"])
def test_an_observer_that_does_not_start_leaves_nothing(
    inbox: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    original: Any = vars(file_watch)["Observer"]

    class Failing(original):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            if when == "made":
                raise OSError(errno.EMFILE, "inotify instance limit reached")
            super().__init__(**options)

        def on_thread_start(self) -> None:
            raise OSError(errno.ENOSPC, "inotify watch limit reached")

    async def main() -> None:
        before = set(threading.enumerate())
        with pytest.raises(OSError, match="limit reached"):
            async with DirectoryWatch(inbox):
                pytest.fail("entered")
        assert set(threading.enumerate()) == before

    monkeypatch.setattr(file_watch, "Observer", Failing)
    asyncio.run(main())


def test_a_thread_that_cannot_be_started_leaves_the_watch_usable(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        watch = DirectoryWatch(inbox)
        with monkeypatch.context() as patch:

            def start(self: threading.Thread) -> None:
                raise RuntimeError("can't start new thread")

            patch.setattr(threading.Thread, "start", start)
            with pytest.raises(RuntimeError, match="new thread"):
                await watch.__aenter__()
        async with watch:
            await nothing_more(watch)

    asyncio.run(main())


# Use and misuse.


def test_bad_arguments_are_refused(inbox: Path) -> None:
    bad: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (7, {}, TypeError, "path must be a str or a path, not 7"),
        (b"x", {}, TypeError, "path must be a str or a path, not b'x'"),
        (inbox, {"patterns": "*.csv"}, TypeError, r"such as \['\*.csv'\], not '\*.csv'"),
        (inbox, {"patterns": 7}, TypeError, "patterns must be strings, .* not 7"),
        (inbox, {"patterns": ["*", None]}, TypeError, "patterns must be strings, .* not .*None"),
        (inbox, {"patterns": []}, ValueError, "patterns must match visible names, .* not ''"),
        (inbox, {"patterns": [""]}, ValueError, "patterns must match visible names, .* not ''"),
        (inbox, {"patterns": [".*"]}, ValueError, "patterns must match visible names"),
        (inbox, {"patterns": ["a/*.csv"]}, ValueError, "patterns must match .* not 'a/"),
        (inbox, {"recursive": 1}, TypeError, "recursive must be True or False, not 1"),
        (inbox, {"settle": -1.0}, ValueError, "settle must be at least zero, not -1.0"),
        (inbox, {"settle": math.nan}, ValueError, "settle must be at least zero, not nan"),
        (inbox, {"settle": None}, TypeError, "settle must be a number of seconds, not None"),
        (inbox, {"settle": True}, TypeError, "settle must be a number of seconds, not True"),
        (inbox, {"rescan_interval": 0}, ValueError, "rescan_interval must be above zero, not 0"),
        (inbox, {"rescan_interval": -5}, ValueError, "rescan_interval must be above zero, not -5"),
        (inbox, {"rescan_interval": "1"}, TypeError, "rescan_interval must be a number"),
        (inbox, {"clock": 1.0}, TypeError, "clock must be a function .* not 1.0"),
    ]
    for path, options, error, message in bad:
        with pytest.raises(error, match=message):
            DirectoryWatch(path, **options)


def test_any_number_of_seconds_will_do(inbox: Path) -> None:
    async def main() -> None:
        DirectoryWatch(inbox, rescan_interval=math.ulp(0.0))
        for seconds in (math.inf, 10**400, 1e-9):
            async with DirectoryWatch(inbox, settle=seconds, rescan_interval=seconds) as watch:
                await nothing_more(watch)

    asyncio.run(main())


def test_a_watch_is_for_the_loop_that_entered_it(inbox: Path) -> None:
    async def main() -> None:
        watch = DirectoryWatch(inbox)
        outside = "^iterate inside `async with`, on the loop that entered this watch$"
        with pytest.raises(RuntimeError, match=outside):
            await anext(watch)
        await watch.__aexit__()  # which is for nothing
        async with watch:
            in_use = "^this watch is in use already: make another one, or leave it first$"
            with pytest.raises(RuntimeError, match=in_use):
                await watch.__aenter__()

            def elsewhere() -> None:
                with pytest.raises(RuntimeError, match=outside):
                    asyncio.run(name(watch))
                with pytest.raises(RuntimeError, match="leave this watch on the loop"):
                    asyncio.run(watch.__aexit__())

            await asyncio.to_thread(elsewhere)
            await nothing_more(watch)
        await watch.__aexit__()
        await asyncio.to_thread(lambda: asyncio.run(watch.__aexit__()))  # which is for nothing

    asyncio.run(main())


def test_leaving_elsewhere_ends_the_threads_if_the_loop_is_closed(inbox: Path) -> None:
    watch = DirectoryWatch(inbox, rescan_interval=None)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(watch.__aenter__())
    loop.run_until_complete(at_rest(watch))
    loop.close()
    assert watch._keeper is not None
    assert watch._keeper.is_alive()
    with pytest.raises(RuntimeError, match=r"^leave this watch on the loop that entered it$"):
        asyncio.run(watch.__aexit__())
    watch._keeper.join(PATIENCE)
    assert not watch._keeper.is_alive()


def test_one_watch_serves_one_loop_after_another(inbox: Path) -> None:
    watch = DirectoryWatch(inbox)

    async def main() -> None:
        async with watch:
            await nothing_more(watch)

    for _ in range(2):
        asyncio.run(main())


def test_two_watches_of_one_directory_are_both_told(inbox: Path) -> None:
    async def main() -> None:
        async with DirectoryWatch(inbox) as one, DirectoryWatch(inbox) as other:
            (inbox / "file").touch()
            assert await name(one) == await name(other) == "file"

    asyncio.run(main())


@linux
def test_files_that_one_process_makes_another_is_given(inbox: Path) -> None:
    async def main() -> None:
        async with DirectoryWatch(inbox) as watch:
            code = f"open({str(inbox / 'theirs')!r}, 'w').close()"
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
            assert await name(watch) == "theirs"
            await process.wait()

    asyncio.run(main())


def test_the_interpreter_exits_with_a_watch_that_was_never_left() -> None:
    run_python("""
        import asyncio, tempfile
        from reference_impl.bridges.file_watch import DirectoryWatch

        loop = asyncio.new_event_loop()
        watch = DirectoryWatch(tempfile.mkdtemp())
        loop.run_until_complete(watch.__aenter__())
        loop.close()
        print("the end")
    """)


@linux
def test_a_forked_child_may_enter_a_watch_of_its_own() -> None:
    done = run_python("""
        import asyncio, os, tempfile, warnings
        from pathlib import Path
        from reference_impl.bridges.file_watch import DirectoryWatch

        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork among threads
        inbox = Path(tempfile.mkdtemp())

        async def child():
            async with DirectoryWatch(inbox) as watch:
                (inbox / "file").touch()
                assert (await anext(watch)).name == "file"

        async def main():
            async with DirectoryWatch(inbox):
                if not (pid := os.fork()):
                    asyncio._set_running_loop(None)
                    asyncio.set_event_loop(None)
                    asyncio.run(child())
                    print("child")
                    os._exit(0) if not __import__("sys").stdout.flush() else None
                assert os.waitpid(pid, 0)[1] == 0

        asyncio.run(main())
    """)
    assert "child" in done.stdout


# Where closing is not told: macOS, Windows, and here with watchdog's polling observer.


@pytest.fixture
def polling(monkeypatch: pytest.MonkeyPatch) -> None:
    def observer() -> PollingObserver:
        return PollingObserver(timeout=0.01)

    monkeypatch.setattr(file_watch, "Observer", observer)
    monkeypatch.setattr(file_watch, "_OPTIONS", {})
    monkeypatch.setattr(file_watch, "_INOTIFY", False)


async def given(watch: Any, wanted: str, text: str) -> None:
    """The file is given with that text, after whatever polling saw of it while it was written."""
    size = -1
    while size != len(text):
        if await name(watch) == wanted:
            size = watch._inbox._taken[wanted][0][-1]


@pytest.mark.usefixtures("polling")
@pytest.mark.parametrize("settle", [0.0, 0.01])
def test_without_events_of_closing_what_is_created_or_changed_is_given(
    inbox: Path, settle: float
) -> None:
    async def main() -> None:
        (inbox / "there").touch()
        (inbox / "deep").mkdir()
        async with DirectoryWatch(
            inbox, recursive=True, settle=settle, rescan_interval=None
        ) as watch:
            await given(watch, "there", "")
            (inbox / "deep" / "late").write_text("x")
            await given(watch, "deep/late", "x")
            (inbox / "there").write_text("changed")
            await given(watch, "there", "changed")
            (inbox / "there").rename(inbox / "moved")
            await given(watch, "moved", "changed")
            (inbox / "deep").rename(inbox / "deeper")
            await given(watch, "deeper/late", "x")

    asyncio.run(main())


@pytest.mark.usefixtures("polling")
def test_without_events_of_closing_a_file_settles(inbox: Path) -> None:
    async def main() -> None:
        clock = Clock()
        async with DirectoryWatch(inbox, settle=5.0, clock=clock) as watch:
            (inbox / "slow").write_text("HEAD;")
            (inbox.parent / "whole").touch()
            settling: Any = watch._inbox._settling  # type: ignore[union-attr]
            while "slow" not in settling or settling["slow"][1][-1] != len("HEAD;"):
                await asyncio.sleep(0)
            clock.now = 5.0
            poke(watch)
            assert await name(watch) == "slow"

    asyncio.run(main())
