"""FW-4: a directory that is not there, or goes, ends in an error and not in silence."""

import asyncio
import errno
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from watchdog import events

from reference_impl.bridges import file_watch
from tests.bridges.file_watch.faults import deaf_to, hears, hurried, made_with, wakes_nobody
from tests.bridges.file_watch.helpers import Looks, linux, posix
from tests.bridges.file_watch.spying import Event, Pass, entered, quiet
from tests.kit.fakes import Gate
from tests.kit.proofs import Proof, failing, holding
from tests.kit.twins import Twin

pytestmark = posix


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
                async with file_watch.DirectoryWatch(path):
                    pytest.fail("entered")
        watch = file_watch.DirectoryWatch(inbox / "missing")
        with pytest.raises(FileNotFoundError):
            await watch.__aenter__()
        (inbox / "missing").mkdir()
        (inbox / "missing" / "file").touch()
        async with watch:
            assert (await anext(watch)).name == "file"

    asyncio.run(main())


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


def vanishing(how: Callable[[Path], None]) -> Callable[[ModuleType, Path], object]:
    """The check that this ends the iteration of who waits, and of all who ask later."""

    async def check(m: ModuleType, inbox: Path) -> None:
        async with quiet(m, inbox, rescan_interval=60.0) as spy:
            await spy.nothing_more()
            waiting = asyncio.create_task(spy.name())
            await asyncio.sleep(0)
            how(inbox)
            if how in {renamed, replaced}:
                spy.set(60.0)
            with pytest.raises(FileNotFoundError, match=f"enter it again: .*'{inbox}'") as e:
                await waiting
            assert (e.value.errno, e.value.filename) == (errno.ENOENT, inbox)
            with pytest.raises(FileNotFoundError):
                await anext(spy.watch)

    check.__name__ = f"check_a_directory_that_is_{how.__name__}"
    return check


async def check_an_empty_directory_that_vanishes(m: ModuleType, inbox: Path) -> None:
    """No file below tells of it, and at once another directory has its name."""
    for recursive in (False, True):
        async with entered(m, inbox, recursive=recursive) as spy:
            await spy.at_rest()
            removed_and_made_anew(inbox)
            with pytest.raises(FileNotFoundError):
                await spy.name()


def after(gate: Gate, event: Event) -> Event:
    gate()
    return event


async def vanishes_in_use(m: ModuleType, inbox: Path, kept: str) -> None:
    """What is open holds back the news of the end; nothing that is wanted goes with it.

    No event comes through until all has gone, however long that takes.
    """
    for recursive in (False, True):
        inbox.mkdir(exist_ok=True)
        (inbox / ".log").touch() if kept == ".log" else (inbox / "below").mkdir()
        held = os.open(inbox / kept, os.O_RDONLY)
        options: dict[str, Any] = {"clock": time.monotonic, "patterns": ["*.csv"]}
        try:
            async with entered(m, inbox, recursive=recursive, **options) as spy:
                await spy.at_rest()
                gate = Gate()
                spy.change = partial(after, gate)
                shutil.rmtree(inbox)
                gate.open()
                with pytest.raises(FileNotFoundError, match="enter it again"):
                    await spy.name()
        finally:
            os.close(held)


async def check_a_directory_with_an_open_file(m: ModuleType, inbox: Path) -> None:
    await vanishes_in_use(m, inbox, ".log")


async def check_a_directory_that_is_somebody_s_place_of_work(m: ModuleType, inbox: Path) -> None:
    await vanishes_in_use(m, inbox, ".")


async def check_a_burst_of_files_that_go_costs_one_look(m: ModuleType, inbox: Path) -> None:
    """The look is when the burst is over; then the watch sleeps."""
    for number in range(100):
        (inbox / f".{number}").touch()
    async with quiet(m, inbox) as spy:
        with Looks() as looks:
            for number in range(100):
                (inbox / f".{number}").unlink()
                if number == 50:
                    await spy.nothing_more()
                    await spy.at(0.0625)
            await spy.nothing_more()
            await spy.at(0.125)
            assert spy.root not in looks.paths, "some have gone since"
            for now in (0.25, 1e3, 1e6):
                await spy.at(now)
                assert looks.paths.count(spy.root) == 1, "one look, not more"
            await spy.nothing_more()


async def check_only_what_goes_raises_a_doubt(m: ModuleType, inbox: Path) -> None:
    async with quiet(m, inbox) as spy:
        root = spy.root + os.sep
        for kind, source, target, doubted in (
            (events.FileDeletedEvent, ".a", "", True),
            (events.FileMovedEvent, ".a", ".b", True),
            (events.FileMovedEvent, "", ".b", False),
            (events.DirDeletedEvent, "a", "", True),
            (events.DirMovedEvent, "a", "b", True),
            (events.FileCreatedEvent, ".a", "", False),
            (events.FileModifiedEvent, ".a", "", False),
            (events.FileClosedEvent, ".a", "", False),
        ):
            with Looks() as looks:
                spy.tell(kind(source and root + source, target and root + target))
                await spy.at(spy.clock.now + 1.0)
            assert (spy.root in looks.paths) is doubted, (kind.__name__, source, target)


def look_each_time(tell: Pass, event: Event) -> None:
    tell(event)
    if event.event_type == "deleted":
        os.lstat(Path(os.fsdecode(event.src_path)).parent)


PROOFS = [
    *(Proof("FW-4", vanishing(how)) for how in (removed, renamed)),
    Proof(
        "FW-4",
        vanishing(removed_and_made_anew),
        [
            Twin(
                "does not hear that its directory goes",
                deaf_to(events.DirDeletedEvent, events.FileDeletedEvent),
                "hang",
            )
        ],
    ),
    Proof(
        "FW-4",
        vanishing(replaced),
        [Twin("never scans again", made_with(rescan_interval=None), "hang")],
    ),
    Proof(
        "FW-4",
        vanishing(renamed_and_used),
        [Twin("does not hear of what happens inside", deaf_to(events.FileClosedEvent), "hang")],
    ),
    Proof(
        "FW-4",
        check_an_empty_directory_that_vanishes,
        [Twin("does not hear that its directory goes", deaf_to(events.DirDeletedEvent), "hang")],
    ),
    Proof(
        "FW-4",
        check_a_directory_with_an_open_file,
        [
            Twin(
                "does not hear of files that go",
                deaf_to(events.FileDeletedEvent, events.DirDeletedEvent),
                "hang",
            ),
            Twin("lets the keeper sleep", wakes_nobody(), "hang"),
        ],
    ),
    Proof(
        "FW-4",
        check_a_directory_that_is_somebody_s_place_of_work,
        [
            Twin(
                "does not hear of directories that go",
                deaf_to(events.DirDeletedEvent),
                "hang",
            )
        ],
    ),
    Proof(
        "FW-4",
        check_a_burst_of_files_that_go_costs_one_look,
        [
            Twin("looks for each", hears(look_each_time), "AssertionError: some have gone since"),
            Twin("waits too short a moment", hurried(4.0), "AssertionError: some have gone since"),
        ],
    ),
    Proof(
        "FW-4",
        check_only_what_goes_raises_a_doubt,
        [
            Twin(
                "does not hear of moves",
                deaf_to(events.FileMovedEvent),
                "AssertionError: is doubted",
            )
        ],
    ),
]

test_a_directory_does_not_vanish_in_silence = linux(holding(PROOFS, file_watch, "inbox"))
test_silence_is_noticed = linux(failing(PROOFS, file_watch, "inbox"))
