"""FW-1: every file is given, on a real file system, with real watchdog observers.

Nothing here sleeps to let events arrive: a test waits for the next file, and shows that one is
not given by making another behind it.
"""

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from watchdog import events

from reference_impl.bridges import file_watch
from tests.bridges.file_watch import inside
from tests.bridges.file_watch.faults import (
    deaf_to,
    gives_hidden,
    gives_once,
    hears,
    made_with,
    name_and_look,
    scans_by,
    sees_files,
    shadowed,
    stale_listing,
)
from tests.bridges.file_watch.helpers import Looks, age, linux, logged, twice
from tests.bridges.file_watch.spying import Event, Pass, entered, quiet
from tests.kit.fakes import until
from tests.kit.primitives import silent
from tests.kit.proofs import Proof, each_proof, failing
from tests.kit.twins import Twin, patch

pytestmark = linux


async def check_each_way_in(m: ModuleType, inbox: Path) -> None:
    outside = inbox.with_name("outside")
    outside.mkdir()
    (inbox / "there").write_text("x")
    (outside / "moved").write_text("x")
    async with entered(m, inbox) as spy:
        assert await spy.name() == "there"
        await spy.at_rest()
        (inbox / "closed").write_text("x")
        assert await spy.name() == "closed"
        (outside / "moved").rename(inbox / "moved")
        assert await spy.name() == "moved"
        (inbox / "moved").rename(inbox / "renamed")
        assert await spy.name() == "renamed"
        (inbox / "closed").write_text("overwritten")
        assert await spy.name() == "closed"
        (outside / "another").write_text("overwritten")
        (outside / "another").replace(inbox / "closed")
        assert await spy.name() == "closed"
        (inbox / "closed").unlink()
        # Else its end and its return may both be told of the new one.
        await until(lambda: spy.told(events.FileDeletedEvent, "closed"))
        (inbox / "closed").write_text("overwritten")
        assert await spy.name() == "closed"
        await spy.nothing_more()


async def check_no_gap_between_scan_and_watch(m: ModuleType, inbox: Path) -> None:
    """Files come just before the observer starts, and just after."""
    make: Any = vars(m)["Observer"]

    def late(**options: Any) -> Any:
        observer = make(**options)
        start = observer.start

        def between_two_files() -> None:
            (inbox / "before").touch()
            start()
            (inbox / "after").touch()

        observer.start = between_two_files
        return observer

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(m, "Observer", late)
        async with entered(m, inbox) as spy:
            found = set[str]()
            while found != {"before", "after"}:  # one of them twice, where both tell of it
                found.add(await spy.name())


async def check_a_file_that_is_open_for_writing_is_given_once_closed(
    m: ModuleType, inbox: Path
) -> None:
    with (inbox / "report").open("w") as report:
        report.write("HEAD;")
        report.flush()
        async with quiet(m, inbox) as spy:
            with (inbox / "second").open("w"):
                await spy.nothing_more()
            assert await spy.name() == "second"
            report.write("tail")
            report.close()
            assert await spy.name() == "report"


async def check_a_file_that_is_open_for_writing_may_move_with_its_directory(
    m: ModuleType, inbox: Path
) -> None:
    """watchdog makes up an event for each file below a directory that is renamed."""
    (inbox / "deep").mkdir()
    with (inbox / "deep" / "report").open("w") as report:
        async with quiet(m, inbox, recursive=True) as spy:
            (inbox / "deep").rename(inbox / "renamed")
            await spy.nothing_more()
            await spy.at_rest()
            await spy.nothing_more()
            report.close()
            assert await spy.name() == "renamed/report"


async def check_a_file_must_not_change_while_it_settles(m: ModuleType, inbox: Path) -> None:
    (inbox / "file").touch()
    age(inbox / "file")
    async with entered(m, inbox, settle=5.0) as spy:
        await spy.nothing_more()
        await spy.at_rest()  # the first scan has looked at it
        await spy.at(4.0)
        os.truncate(inbox / "file", 7)  # as of one who has it open, no event tells of that
        for now in (5.0, 9.0):
            await spy.at(now)
            await spy.nothing_more()
        await spy.at(10.0)
        assert await spy.name() == "file"
        await spy.nothing_more()


async def check_a_closed_file_settles_too(m: ModuleType, inbox: Path) -> None:
    """A producer opens and closes its file again and again: each time the wait begins again."""
    async with entered(m, inbox, settle=5.0, rescan_interval=3.0) as spy:
        await spy.at_rest()
        for now, text in ((0.0, "one"), (4.0, "one, two"), (8.0, "one, two, three")):
            await spy.at(now)
            (inbox / "file").write_text(text)
            await spy.nothing_more()
        for now in (9.0, 12.0):
            await spy.at(now)
            await spy.nothing_more()
        spy.set(13.0)
        assert await spy.name() == "file"
        await spy.nothing_more()
        with (inbox / "file").open("a") as file:
            await spy.at(20.0)
            await spy.at(26.0)
            await spy.nothing_more()
            file.write(", four")
        await spy.nothing_more()
        await spy.at_rest()
        spy.set(40.0)
        assert await spy.name() == "file"


async def check_links_are_found_by_the_rescan(m: ModuleType, inbox: Path) -> None:
    (inbox.parent / "original").touch()
    async with entered(m, inbox, rescan_interval=60.0) as spy:
        await spy.at_rest()
        os.link(inbox.parent / "original", inbox / "link")
        await spy.nothing_more()
        spy.set(60.0)
        assert await spy.name() == "link"
        await spy.at_rest()
        await spy.at(120.0)
        await spy.nothing_more()


async def check_directories_may_appear_with_files_inside(m: ModuleType, inbox: Path) -> None:
    outside = inbox.with_name("outside")
    (outside / "deep" / "er").mkdir(parents=True)
    (outside / "deep" / "er" / "moved").touch()
    (inbox / "old" / "er").mkdir(parents=True)
    (inbox / "old" / "er" / "there").touch()
    (inbox / ".git" / "refs").mkdir(parents=True)
    (inbox / ".git" / "refs" / "head").touch()
    async with entered(m, inbox, recursive=True) as spy:
        assert await spy.name() == "old/er/there"
        (outside / "deep").rename(inbox / "deep")
        assert await spy.name() == "deep/er/moved"
        (inbox / "deep" / "er" / "more").touch()
        assert await spy.name() == "deep/er/more"
        (inbox / "new" / "er" / "still").mkdir(parents=True)
        for directory in ("new/er/still", "new/er", "new"):
            (inbox / directory / "file").touch()
        found, wanted = set[str](), {"new/file", "new/er/file", "new/er/still/file"}
        while not wanted <= found:  # "more" may come twice, where the scan has found it, too
            found.add(await spy.name())
        assert found <= wanted | {"deep/er/more"}
        (inbox / ".git" / "refs" / "tail").touch()
        (inbox / ".hidden" / "deep").mkdir(parents=True)
        (inbox / ".hidden" / "deep" / "file").touch()
        (inbox / "old").rename(inbox / "renamed")
        found = set()
        while "renamed/er/there" not in found:
            found.add(await spy.name())
        (inbox / "renamed" / "er" / "late").touch()
        while "renamed/er/late" not in found:
            found.add(await spy.name())
        assert not any("." in each or "old" in each for each in found)


ODD = ["new\nline.csv", "x" * 251 + ".csv", "späce and 'quotes'.csv", "*.csv", "-rf.csv", " .csv"]


async def check_patterns_match_names_and_never_hidden_ones(m: ModuleType, inbox: Path) -> None:
    odd = [*ODD, os.fsdecode(b"latin-\xe9.csv")] if sys.platform == "linux" else ODD
    for each in odd:
        (inbox / each).touch()
    for each in ("notes.txt", ".hidden.csv", "a.csv.part", "csv", "UPPER.CSV"):
        (inbox / each).touch()
    async with entered(m, inbox, patterns=["*.csv", "report-?"]) as spy:
        assert set(await spy.names(len(odd))) == set(odd), "not the names that match"
        await spy.at_rest()
        for each in ("notes.txt", ".late.csv", "b.csv.part", "report-10", "report-1"):
            (inbox / each).touch()
        assert await spy.name() == "report-1"
        (inbox / "b.csv.part").rename(inbox / "b.csv")
        assert await spy.name() == "b.csv"
        for each in odd:
            (inbox / each).write_text("again")
            assert await spy.name() == each


async def check_a_scan_waits_for_who_takes_the_files(m: ModuleType, inbox: Path) -> None:
    """More files than it may run ahead of; others come and go while it waits."""
    old = [inbox / f"old-{number}" for number in range(1200)]
    for path in old:
        path.touch()
    with Looks() as looks:
        async with entered(m, inbox, patterns=["old-*", "new-*"]) as spy:
            given = [await spy.name()]
            await spy.at_rest()
            assert len([path for path in looks.paths if "old-" in path]) <= 1024 + 1, (
                "the scan runs away"
            )
            for number in range(20):
                (inbox / f"new-{number}").touch()
            for path in old[::2]:
                path.unlink()
            wanted = {path.name for path in old[1::2]} | {f"new-{number}" for number in range(20)}
            while not wanted <= set(given):
                given.append(await spy.name())


async def check_a_file_that_is_put_back_is_given_again(m: ModuleType, inbox: Path) -> None:
    """What a queue does with its files: claim by renaming, put back, or be done."""
    (inbox / "job.queued").write_text("x")
    age(inbox / "job.queued")
    async with entered(m, inbox, patterns=["*.queued", "sentinel*"]) as spy:
        for _ in range(3):
            assert await spy.name() == "job.queued"
            (inbox / "job.queued").rename(inbox / "job.processing")
            (inbox / "job.processing").rename(inbox / "job.queued")
        assert await spy.name() == "job.queued"
        await spy.caught_up()  # the event of its end may find it back, and so does the next
        (inbox / "job.queued").rename(inbox / "job.processing")
        (inbox / "job.processing").rename(inbox / "job.completed")
        await spy.nothing_more()


def take_for_real(tell: Pass, event: Event) -> None:
    tell(replace(event, is_synthetic=False))


PROOFS = [
    Proof(
        "FW-1",
        check_each_way_in,
        [
            Twin("scans nothing", scans_by(lambda time, there: []), "hang"),
            Twin("does not hear of closing", deaf_to(events.FileClosedEvent), "hang"),
            Twin("does not hear of moves", deaf_to(events.FileMovedEvent), "hang"),
        ],
    ),
    Proof(
        "FW-1",
        check_no_gap_between_scan_and_watch,
        [Twin("scans before it watches", stale_listing(), "hang")],
    ),
    Proof(
        "FW-1",
        check_a_file_that_is_open_for_writing_is_given_once_closed,
        [
            Twin(
                "does not ask whether a file is open",
                shadowed("fcntl", fcntl=lambda *_: 0),
                ("AssertionError: early", "AssertionError: == sentinel"),  # as the scan finds them
            )
        ],
    ),
    Proof(
        "FW-1",
        check_a_file_that_is_open_for_writing_may_move_with_its_directory,
        [
            Twin(
                "takes watchdog's inventions for events",
                hears(take_for_real),
                "AssertionError: == sentinel",
            )
        ],
    ),
    Proof(
        "FW-1",
        check_a_file_must_not_change_while_it_settles,
        [
            Twin("gives at once what it finds", made_with(settle=0.0), "AssertionError: sentinel"),
            Twin(
                "overlooks changes while a file settles",
                sees_files(lambda _: {"st_mtime_ns": 10**18, "st_size": 1}),
                "AssertionError: sentinel",
            ),
        ],
    ),
    Proof(
        "FW-1",
        check_a_closed_file_settles_too,
        [Twin("gives at once what is closed", made_with(settle=0.0), "AssertionError: sentinel")],
    ),
    Proof(
        "FW-1",
        check_links_are_found_by_the_rescan,
        [Twin("never scans again", made_with(rescan_interval=None), "hang")],
    ),
    Proof(
        "FW-1",
        check_directories_may_appear_with_files_inside,
        [
            Twin(
                "does not look into a directory that appears",
                deaf_to(events.DirCreatedEvent, events.DirMovedEvent),
                "hang",
            )
        ],
    ),
    Proof(
        "FW-1",
        check_patterns_match_names_and_never_hidden_ones,
        [Twin("gives hidden files, too", gives_hidden(), "AssertionError: not the names")],
    ),
    Proof(
        "FW-1",
        check_a_scan_waits_for_who_takes_the_files,
        [
            Twin(
                "scans far ahead",
                patch(lambda module: inside.run_ahead(module, 10**9)),
                "AssertionError: the scan runs away",
            ),
            Twin("does not let the scan go on", silent("DirectoryWatch.__anext__"), "hang"),
        ],
    ),
    Proof(
        "FW-1",
        check_a_file_that_is_put_back_is_given_again,
        [Twin("goes by the look of a file alone", gives_once(name_and_look), "hang")],
    ),
]


@twice
@each_proof(PROOFS)
def test_every_file_is_given(proof: Proof, inbox: Path, caplog: pytest.LogCaptureFixture) -> None:
    proof.hold(file_watch, inbox)
    assert not logged(caplog), "the rescan after a fault would hide it"


test_a_file_that_is_not_given_is_noticed = twice(failing(PROOFS, file_watch, "inbox"))


# More of what is given, and what is not.


def test_settling_concerns_what_scans_find_and_not_what_events_tell(inbox: Path) -> None:
    async def main() -> None:
        (inbox / "there").touch()
        async with entered(file_watch, inbox, settle=5.0, rescan_interval=7.0) as spy:
            await spy.nothing_more()
            await spy.at_rest()
            spy.set(5.0)
            assert await spy.name() == "there"
            os.link(inbox / "there", inbox / "link")
            await spy.at(7.0)
            await spy.nothing_more()
            (inbox / "there").rename(inbox / "moved")  # and it is given at once
            assert await spy.name() == "moved"
            spy.set(12.0)
            assert await spy.name() == "link"

    asyncio.run(main())


@twice
def test_a_directory_that_is_moved_away_and_back_brings_its_files_again(inbox: Path) -> None:
    async def main() -> None:
        (inbox / "deep").mkdir()
        (inbox / "deep" / "file").touch()
        async with entered(file_watch, inbox, recursive=True) as spy:
            for _ in range(2):
                assert await spy.name() == "deep/file"
                (inbox / "deep").rename(inbox.parent / "deep")
                (inbox.parent / "deep").rename(inbox / "deep")
            assert await spy.name() == "deep/file"

    asyncio.run(main())


@twice
def test_what_is_told_of_a_directory_concerns_the_files_below(inbox: Path) -> None:
    """Told here by hand, since a file below mostly has an event of its own; a link has none."""
    deep, original = inbox / "deep", inbox.with_name("original")

    async def main() -> None:
        original.touch()
        age(original)
        async with quiet(file_watch, inbox, recursive=True) as spy:
            deep.mkdir()
            await spy.nothing_more()
            await spy.at_rest()
            os.link(original, deep / "link")
            await spy.nothing_more()
            spy.tell(events.DirCreatedEvent(str(deep)))
            assert await spy.name() == "deep/link"
            for told in (events.DirCreatedEvent(str(deep)), events.DirMovedEvent("", str(deep))):
                spy.tell(told)
                await spy.at_rest()
                await spy.nothing_more()
            for gone in (events.DirDeletedEvent(str(deep)), events.DirMovedEvent(str(deep), "")):
                spy.tell(gone)  # so what is there now is new
                assert await spy.name() == "deep/link"
            await spy.nothing_more()

    asyncio.run(main())


def test_a_file_that_is_moved_in_is_given_though_nothing_told_that_it_had_gone(inbox: Path) -> None:
    async def main() -> None:
        (inbox.parent / "file").touch()
        age(inbox.parent / "file")
        async with quiet(file_watch, inbox) as spy:
            (inbox.parent / "file").rename(inbox / "file")
            assert await spy.name() == "file"
            spy.tell(events.FileMovedEvent("", str(inbox / "file")))
            assert await spy.name() == "file"

    asyncio.run(main())


@pytest.mark.parametrize("recursive", [False, True])
def test_only_events_that_matter_are_asked_for(inbox: Path, recursive: bool) -> None:
    async def main() -> None:
        async with quiet(file_watch, inbox, recursive=recursive) as spy:
            spy.handled.clear()
            (inbox / "file").write_text("x")
            assert (inbox / "file").read_text() == "x"
            (inbox / "file").chmod(0o600)
            (inbox / "deep").mkdir()
            (inbox / "deep").rename(inbox / "renamed")
            assert await spy.name() == "file"
            await spy.nothing_more()
            below = {events.DirCreatedEvent, events.DirMovedEvent} if recursive else set()
            assert {type(event) for event in spy.handled} == {events.FileClosedEvent} | below
            os.link(inbox / "file", inbox / "link")
            for event in (events.FileCreatedEvent, events.FileModifiedEvent):
                spy.tell(event(str(inbox / "link")))  # nor are they news: it may be half written
            await spy.nothing_more()

    asyncio.run(main())


@pytest.mark.parametrize("recursive", [False, True])
def test_a_directory_below_may_be_removed(inbox: Path, recursive: bool) -> None:
    async def main() -> None:
        (inbox / "deep").mkdir()
        async with quiet(file_watch, inbox, recursive=recursive) as spy:
            (inbox / "deep").rmdir()
            await spy.nothing_more()
            await spy.at_rest()
            await spy.nothing_more()

    asyncio.run(main())


@pytest.mark.parametrize("recursive", [False, True])
def test_hidden_directories_and_links_to_others_are_not_entered(
    inbox: Path, monkeypatch: pytest.MonkeyPatch, recursive: bool
) -> None:
    seen, scandir = set[str](), os.scandir

    def noted(path: Any) -> Any:
        if isinstance(path, str):  # bytes are watchdog's
            seen.add(path)
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
        async with entered(file_watch, inbox, patterns=patterns, recursive=recursive) as spy:
            assert set(await spy.names(len(wanted))) == wanted
            await spy.at_rest()
            await spy.nothing_more()
        below = ["deep/", "deep/er/"] if recursive else []
        assert seen - {spy.root} == {f"{spy.root}/{each}" for each in ["", *below]}

    asyncio.run(main())


def test_directories_below_are_left_alone_unless_asked_for(inbox: Path) -> None:
    async def main() -> None:
        (inbox / "deep").mkdir()
        (inbox / "deep" / "file").touch()
        async with entered(file_watch, inbox) as spy:
            await spy.nothing_more()
            (inbox / "deep" / "more").touch()
            (inbox / "another").mkdir()
            (inbox / "another" / "file").touch()
            (inbox / "deep").rename(inbox / "moved")
            await spy.nothing_more()

    asyncio.run(main())


def test_only_regular_files_are_given(inbox: Path) -> None:
    async def main() -> None:
        def litter(suffix: str) -> None:
            os.mkfifo(inbox / f"pipe{suffix}")
            (inbox / f"link{suffix}").symlink_to(inbox.parent)
            (inbox / f"file{suffix}").symlink_to("/etc/hostname")
            (inbox / f"dangling{suffix}").symlink_to("nowhere")
            (inbox / f"directory{suffix}").mkdir()

        litter("1")
        async with entered(file_watch, inbox) as spy:
            await spy.nothing_more()
            litter("2")
            (inbox / "pipe2").rename(inbox / "pipe3")
            (inbox / "file2").rename(inbox / "file3")
            await spy.nothing_more()

    asyncio.run(main())
