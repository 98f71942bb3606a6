"""What the parts of DirectoryWatch do by themselves; these tests prove no promise."""

import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from reference_impl.bridges import file_watch
from tests.bridges.file_watch import inside
from tests.bridges.file_watch.helpers import linux, posix
from tests.bridges.file_watch.inside import look
from tests.kit.fakes import PATIENCE, Clock
from tests.kit.primitives import watched
from tests.kit.process import run_python

pytestmark = posix


@linux
def test_whether_a_file_is_open_for_writing(inbox: Path) -> None:
    def asks(path: Path) -> bool | None:
        return inside.is_open_for_writing(file_watch, path)

    path = inbox / "file"
    with path.open("w"):
        assert asks(path)
    assert asks(path) is False
    with path.open("r"):
        assert asks(path) is False
    with path.open("a"), path.open("r"):
        assert asks(path)
    assert asks(inbox / "missing"), "what comes next, events tell"
    (inbox / "link").symlink_to(path)
    with path.open("a"), pytest.raises(OSError, match="symbolic links"):
        asks(inbox / "link")
    os.mkfifo(inbox / "pipe")
    assert asks(inbox / "pipe") is None


@linux
def test_a_lease_would_break_with_a_signal_that_is_ignored_and_is_given_back(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform == "linux":
        import fcntl

        states, real, close = [], fcntl.fcntl, os.close

        def noted(file: Any, *arguments: Any) -> Any:
            done = real(file, *arguments)
            states.append((real(file, fcntl.F_GETSIG), real(file, fcntl.F_GETLEASE)))
            return done

        closed = list[int]()
        (inbox / "file").touch()
        monkeypatch.setattr(fcntl, "fcntl", noted)

        def noted_close(file: int) -> None:
            closed.append(file)
            close(file)

        monkeypatch.setattr(os, "close", noted_close)
        assert inside.is_open_for_writing(file_watch, inbox / "file") is False
        assert [lease for _, lease in states] == [fcntl.F_UNLCK, fcntl.F_RDLCK]
        assert states[1][0] == signal.SIGURG
        assert len(closed) == 1, "and closing gives it back"


@linux
def test_who_opens_a_file_while_it_is_asked_about_waits_and_nobody_dies() -> None:
    """A lease that is broken signals its holder; SIGIO, the default, would end the process."""
    run_python("""
        import os, tempfile, threading
        from reference_impl.bridges import file_watch
        from tests.bridges.file_watch import inside

        with tempfile.NamedTemporaryFile() as file:
            close, opened = os.close, threading.Event()

            def write():
                open(file.name, "a").close()
                opened.set()

            def with_a_writer(descriptor):
                thread.start()
                assert not opened.wait(0.1)
                close(descriptor)

            file.file.close()
            thread = threading.Thread(target=write)
            os.close = with_a_writer
            assert inside.is_open_for_writing(file_watch, file.name) is False
            os.close = close
            thread.join()
            assert opened.is_set()
    """)


def test_a_file_must_not_change_while_it_settles() -> None:
    clock = Clock()
    box = inside.inbox(file_watch, clock, settle=5.0)
    assert inside.next_job(box) == ""  # the first scan
    inside.settle(box, "file", look(1))
    clock.now = 4.0
    inside.settle(box, "other", look(1))
    inside.settle(box, "file", look(1))  # the same
    inside.settle(box, "other", look(2))  # as another inode would look, which may drift
    clock.now = 5.0
    assert inside.next_job(box) == "file"
    inside.settle(box, "file", (1, 1, 10**18, 7))
    clock.now = 6.0
    inside.settle(box, "file", (1, 1, 10**18, 8))  # it has changed: the wait begins again
    clock.now = 9.0
    assert inside.next_job(box) == "other"
    inside.settle(box, "late", look(1))
    clock.now = 11.0
    assert inside.next_job(box) == "file"
    clock.now = 14.0
    assert inside.next_job(box) == "late"


def test_jobs_are_done_in_the_order_in_which_they_were_asked_for() -> None:
    box = inside.inbox(file_watch)
    for directory in ("b/", "a/", "b/", "c/"):
        inside.request(box, directory)
    assert [inside.next_job(box) for _ in range(4)] == ["", "b/", "a/", "c/"]
    inside.close(file_watch, box)
    assert inside.next_job(box) is None


def test_a_scan_goes_on_when_half_of_what_it_found_was_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(file_watch, "_READ_AHEAD", 9)
    with watched(file_watch) as waits:
        box = inside.inbox(file_watch)
        assert inside.take(box) is None
        for number in range(9):
            assert box.wait_for_room()
            box.offer(f"{number}", look(number))
        scan = threading.Thread(target=box.wait_for_room, daemon=True)
        scan.start()
        waits.await_waiting()
        before = waits.notified
        told = []
        for number in range(9):
            assert inside.take(box) == f"{number}"
            told.append(waits.notified - before)
        assert told == [0] * 5 + [1] * 4  # once, before the sixth is taken
        scan.join(PATIENCE)
        assert not scan.is_alive()


def test_only_an_event_and_only_soon_after_a_change_gives_again_what_looks_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for since, again in ((0, "file"), (19_999_999, "file"), (20_000_000, None)):
        monkeypatch.setattr(time, "time_ns", lambda since=since: look(1)[2] + since)
        box = inside.inbox(file_watch)
        box.offer("file", look(1))
        assert inside.take(box) == "file"
        box.offer("file", look(1))
        assert inside.take(box) is None
        box.offer("file", look(1), told=True)
        assert inside.take(box) == again


def test_only_a_scan_takes_a_time_that_was_set_back_for_that_of_the_original() -> None:
    box = inside.inbox(file_watch)
    box.offer("file", look(1))
    assert inside.take(box) == "file"
    device, inode, then, size = look(1)
    assert not box.is_news("file", (device, inode, then - 1, size))
    assert box.is_news("file", (device, inode, then - 1, size), told=True)
    for other in ((9, inode, then, size), (device, 9, then - 1, size), (device, inode, then, 9)):
        assert box.is_news("file", other)
    assert box.is_news("file", (device, inode, then + 1, size))


def test_without_rescans_there_are_none() -> None:
    clock = Clock()
    box = inside.inbox(file_watch, clock)
    assert inside.next_job(box) == ""
    clock.now = 1e12
    inside.request(box, "deep/")
    assert inside.next_job(box) == "deep/"


def inbox_of_a_keeper(
    monkeypatch: pytest.MonkeyPatch, *, interval: float
) -> tuple[Any, list[float | None]]:
    """An inbox whose first scan is given out, and how long the keeper sleeps.

    Its clock goes on by the length of each sleep; one without a limit is the end.
    """
    clock, waits = Clock(), list[float | None]()
    box = inside.inbox(file_watch, clock, interval=interval)
    assert inside.next_job(box) == ""

    def wait(timeout: float | None) -> None:
        waits.append(timeout)
        if timeout is None:
            inside.close(file_watch, box)
        else:
            clock.tick(timeout)

    monkeypatch.setattr(box._changed, "wait", wait)
    return box, waits


def test_the_keeper_sleeps_until_the_next_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    box, waits = inbox_of_a_keeper(monkeypatch, interval=60.0)
    for _ in range(2):
        assert inside.next_job(box) == ""
    assert waits == [60.0, 60.0]


def test_a_job_that_is_done_early_is_not_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    box, waits = inbox_of_a_keeper(monkeypatch, interval=60.0)
    inside.request(box, "")
    assert inside.next_job(box) == ""
    assert waits == []
    assert inside.next_job(box) == ""
    assert waits == [60.0]


def test_the_keeper_is_woken_once_for_a_burst_and_sleeps_when_it_has_looked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    box, waits = inbox_of_a_keeper(monkeypatch, interval=math.inf)
    told: list[None] = []
    monkeypatch.setattr(box._changed, "notify", lambda *_: told.append(None))
    for bursts in (1, 2):
        for _ in range(100):
            inside.doubt(box)
        assert len(told) == bursts
        assert inside.next_job(box) == os.sep
    assert waits == [pytest.approx(0.1)] * 2
    assert inside.next_job(box) is None
    assert waits[2:] == [None]


def test_on_windows_the_case_does_not_matter_and_a_backslash_parts_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name_filter = file_watch.name_filter
    assert not name_filter(["*.csv"])("UPPER.CSV")
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        patch.setattr(os, "sep", "\\")
        assert name_filter(["*.csv"])("UPPER.CSV")
        assert not name_filter(["*"], ["*.TMP"])("a.tmp")
        for pattern in (r"a\*.csv", "a/*.csv"):
            with pytest.raises(ValueError, match="patterns must match visible names"):
                name_filter([pattern])
            with pytest.raises(ValueError, match="exclude must match names"):
                name_filter(["*"], [pattern])
