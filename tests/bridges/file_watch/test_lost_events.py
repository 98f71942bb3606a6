"""FW-3: a fault costs no file, and what no event told of is made good by a rescan."""

import asyncio
import contextlib
import errno
import os
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from watchdog import events
from watchdog.utils import delayed_queue

from reference_impl.bridges import file_watch
from tests.bridges.file_watch.faults import gives_once, hears, made_with, name_and_look
from tests.bridges.file_watch.helpers import Looks, age, linux, logged
from tests.bridges.file_watch.spying import Event, Pass, entered, quiet
from tests.kit.fakes import PATIENCE
from tests.kit.proofs import Proof, each_proof, failing
from tests.kit.twins import Twin

pytestmark = linux


class FaultyEvent(events.FileClosedEvent):
    """An event that raises when it is first asked what it is about."""

    faults: tuple[Exception, ...] = ()

    def __getattribute__(self, name: str) -> Any:
        if name in {"src_path", "event_type"} and (faults := FaultyEvent.faults):
            FaultyEvent.faults = faults[1:]
            raise faults[0]
        return super().__getattribute__(name)


async def check_a_fault_in_handling_costs_no_file(m: ModuleType, inbox: Path) -> None:
    """A bug, in handling the events of the first file and of the second."""
    faults = [RuntimeError("a bug"), OSError("a bad disk")]

    def faulty(event: Event) -> Event:
        if faults and event.event_type == "closed":
            event = FaultyEvent(event.src_path)
            FaultyEvent.faults = (faults.pop(),)
        return event

    async with quiet(m, inbox) as spy:
        await spy.nothing_more()
        spy.change = faulty
        for each in ("first", "second", "third"):
            (inbox / each).touch()
            while await spy.name() != each:
                pass  # one that a scan has found, too, just when it came


async def check_a_file_whose_end_no_event_told_is_forgotten(m: ModuleType, inbox: Path) -> None:
    """A file goes, and the same one comes back; no event tells of either."""
    lost, outside = threading.Semaphore(0), inbox.with_name("file")
    outside.touch()
    age(outside)
    async with quiet(m, inbox, rescan_interval=60.0) as spy:
        outside.rename(inbox / "file")
        assert await spy.name() == "file"
        spy.change = lambda event: lost.release()
        for source, target in ((inbox / "file", outside), (outside, inbox / "file")):
            source.rename(target)
            assert await asyncio.to_thread(lost.acquire, timeout=PATIENCE)
            await spy.at(spy.clock.now + 60.0)
        assert await spy.name() == "file"


async def check_an_overflow_is_made_good_by_the_rescan(m: ModuleType, inbox: Path) -> None:
    """More events than the kernel keeps, while watchdog's reader is held up."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text(encoding="ascii"))
    if limit > 65536:
        pytest.skip(f"{limit} events fit this kernel's queue, too many to overflow it here")
    # Two events for each; the reader may have a bufferful, of 2,560, before it is held up.
    files = limit // 2 + 2000
    async with quiet(m, inbox, recursive=True, rescan_interval=60.0) as spy:
        await spy.nothing_more()
        with spy.observers.made[-1]._inotify_fd._lock:
            for number in range(files):
                (inbox / f"{number}").touch()
        given, last = set[str](), inbox / "last"
        while last.name not in given:  # the kernel drops events until it is read
            last.write_text("x")  # (touch would only set the time of one that is there)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    while last.name not in given:
                        given.add((await anext(spy.watch)).name)
        assert len(given) <= files, "no event was lost, so the test shows nothing"
        spy.set(60.0)
        while len(given) <= files:
            given.add(await spy.name())


async def check_an_observer_whose_threads_have_ended_is_replaced(
    m: ModuleType, inbox: Path
) -> None:
    async with quiet(m, inbox, rescan_interval=60.0) as spy:
        for number in (1, 2, 3):
            observer = spy.observers.made[-1]
            thread = (next(iter(observer.emitters)), observer, observer._inotify_fd)[number - 1]
            await asyncio.to_thread(thread.stop)
            await asyncio.to_thread(thread.join)
            (inbox / "lost").touch()
            spy.set(60.0 * number)
            assert await spy.name() == "lost"
            assert len(spy.observers.made) == number + 1
            await spy.nothing_more()
            (inbox / "lost").unlink()


def read_ahead(tell: Pass, event: Event) -> None:
    """What reads the event outside of what catches faults."""
    if event.event_type:
        tell(event)


def swallow(tell: Pass, event: Event) -> None:
    with contextlib.suppress(Exception):
        read_ahead(tell, event)


PROOFS = [
    Proof(
        "FW-3",
        check_a_fault_in_handling_costs_no_file,
        [
            Twin("ends its observer by a fault", hears(read_ahead), "hang"),
            Twin("swallows faults, and that is all", hears(swallow), "hang"),
        ],
    ),
    Proof(
        "FW-3",
        check_a_file_whose_end_no_event_told_is_forgotten,
        [
            Twin("never scans again", made_with(rescan_interval=None), "hang"),
            Twin("remembers for good what it gave", gives_once(name_and_look), "hang"),
        ],
    ),
    Proof("FW-3", check_an_overflow_is_made_good_by_the_rescan),
    Proof("FW-3", check_an_observer_whose_threads_have_ended_is_replaced),
]


@each_proof(PROOFS)
def test_what_was_lost_is_made_good(
    proof: Proof, inbox: Path, caplog: pytest.LogCaptureFixture
) -> None:
    proof.hold(file_watch, inbox)
    if proof.check is check_a_fault_in_handling_costs_no_file:
        errors = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
        assert errors == ["a bad disk", "a bug"]
        for message, each in zip(logged(caplog), ("first", "second"), strict=True):
            event = repr(FaultyEvent(os.path.realpath(inbox / each)))
            assert message == f"could not handle {event}: the directory will be scanned"
    elif proof.check is check_an_overflow_is_made_good_by_the_rescan:
        assert "overflow" in caplog.text  # watchdog's word for it


its_thread_may_die = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)
test_what_stays_lost_is_noticed = its_thread_may_die(failing(PROOFS, file_watch, "inbox"))


# What a rescan costs, and what it does without.


def test_a_rescan_looks_once_at_each_file_that_is_known(inbox: Path) -> None:
    async def main() -> None:
        async with quiet(file_watch, inbox, rescan_interval=60.0) as spy:
            (inbox / "file").touch()
            assert await spy.name() == "file"
            with Looks() as looks:
                await spy.at(60.0)
            assert looks.paths.count(f"{spy.root}/file") == 1

    asyncio.run(main())


def test_an_entry_that_cannot_be_looked_at_costs_only_itself(
    inbox: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lstat = os.lstat

    def faulty(path: Any, **options: Any) -> os.stat_result:
        if str(path).endswith("bad"):
            raise OSError(errno.EIO, "Input/output error", path)
        return lstat(path, **options)

    async def main() -> None:
        for each in ("a", "bad", "z"):
            (inbox / each).touch()
        async with entered(file_watch, inbox, rescan_interval=60.0) as spy:
            assert set(await spy.names(2)) == {"a", "z"}
            await spy.nothing_more()
            await spy.at_rest()
            monkeypatch.undo()
            spy.set(60.0)
            assert await spy.name() == "bad"

    monkeypatch.setattr(os, "lstat", faulty)
    asyncio.run(main())
    error = OSError(errno.EIO, "Input/output error", os.path.realpath(inbox / "bad"))
    assert set(logged(caplog)) == {f"will be tried again: {error}"}


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
        async with entered(file_watch, inbox, recursive=True) as spy:
            assert set(await spy.names(2)) == {"a/file", "z/file"}
            await spy.nothing_more()

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", faulty)
        asyncio.run(main())
    (message,) = logged(caplog)
    assert message.startswith("will be tried again: [Errno 13]")
    assert message.endswith(f"'{os.path.realpath(inbox)}/closed/'")


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
        async with quiet(file_watch, inbox, recursive=recursive) as spy:
            for number in range(3):
                (inbox / f"{number}").touch()
                assert await spy.name() == f"{number}"
                (inbox / f"{number}").rename(inbox.parent / f"{number}")
                await spy.nothing_more()

    monkeypatch.setattr(delayed_queue, "time", Time)
    asyncio.run(main())
    assert bool(naps) == recursive
