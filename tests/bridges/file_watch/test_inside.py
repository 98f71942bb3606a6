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
    def asks(path: Path) -> bool:
        return inside.is_open_for_writing(file_watch, path)

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
    if sys.platform == "linux":
        import fcntl

        states, real = [], fcntl.fcntl

        def noted(file: Any, *arguments: Any) -> Any:
            done = real(file, *arguments)
            states.append((real(file, fcntl.F_GETSIG), real(file, fcntl.F_GETLEASE)))
            return done

        (inbox / "file").touch()
        monkeypatch.setattr(fcntl, "fcntl", noted)
        assert not inside.is_open_for_writing(file_watch, inbox / "file")
        assert [lease for _, lease in states] == [fcntl.F_UNLCK, fcntl.F_RDLCK, fcntl.F_UNLCK]
        assert states[1][0] == signal.SIGURG


@linux
def test_who_opens_a_file_while_it_is_asked_about_waits_and_nobody_dies() -> None:
    """A lease that is broken signals its holder; SIGIO, the default, would end the process."""
    run_python("""
        import fcntl, tempfile, threading
        from reference_impl.bridges import file_watch
        from tests.bridges.file_watch import inside

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
            assert not inside.is_open_for_writing(file_watch, file.name)
            thread.join()
            assert opened.is_set()
    """)


def test_a_file_must_not_change_while_it_settles() -> None:
    clock = Clock()
    box = inside.inbox(file_watch, clock, settle=5.0)
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


def test_the_keeper_looks_again_at_what_has_settled() -> None:
    clock = Clock()
    box = inside.inbox(file_watch, clock, settle=5.0)
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


def test_directories_are_scanned_in_the_order_in_which_that_was_asked_for() -> None:
    box = inside.inbox(file_watch)
    for directory in ("b/", "a/", "b/", "c/"):
        box.request(directory)
    assert [box.next_job() for _ in range(4)] == ["b/", "a/", "c/", ""]  # the first scan is due


def test_a_scan_goes_on_when_half_of_what_it_found_was_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(file_watch, "_AHEAD", 9)
    with watched(file_watch) as waits:
        box = inside.inbox(file_watch)
        assert box.take() is None
        for number in range(9):
            assert box.wait_for_room()
            box.offer(f"{number}", look(number))
        scan = threading.Thread(target=box.wait_for_room, daemon=True)
        scan.start()
        waits.await_waiting()
        before = waits.notified
        told = []
        for number in range(9):
            assert box.take() == f"{number}"
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
        assert box.take() == "file"
        box.offer("file", look(1))
        assert box.take() is None
        box.offer("file", look(1), event=True)
        assert box.take() == again


def test_without_rescans_there_are_none() -> None:
    clock = Clock()
    box = inside.inbox(file_watch, clock)
    assert box.next_job() == ""
    clock.now = 1e12
    box.request("deep/")
    assert box.next_job() == "deep/"


def inbox_of_a_keeper(
    monkeypatch: pytest.MonkeyPatch, *, interval: float
) -> tuple[Any, list[float | None]]:
    """An inbox whose first scan is given out, and how long the keeper sleeps.

    Its clock goes on by the length of each sleep; one without a limit is the end.
    """
    clock, waits = Clock(), list[float | None]()
    box = inside.inbox(file_watch, clock, interval=interval)
    assert box.next_job() == ""

    def wait(timeout: float | None) -> None:
        waits.append(timeout)
        if timeout is None:
            box.closing = True
        else:
            clock.tick(timeout)

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
        assert box.next_job() == os.sep
    assert waits == [pytest.approx(0.1)] * 2
    assert box.next_job() is None
    assert waits[2:] == [None]


def test_on_windows_the_case_does_not_matter_and_a_backslash_parts_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not inside.names_that_match(file_watch, "*.csv").match("UPPER.CSV")
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        patch.setattr(os, "sep", "\\")
        assert inside.names_that_match(file_watch, "*.csv").match("UPPER.CSV")
        for pattern in (r"a\*.csv", "a/*.csv"):
            with pytest.raises(ValueError, match="must match visible names"):
                inside.names_that_match(file_watch, pattern)
