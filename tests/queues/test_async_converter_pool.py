"""AsyncConverterPool on a real file system, with real watches, threads and processes."""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import csv
import errno
import gc
import json
import logging
import math
import multiprocessing
import os
import pickle
import re
import sys
import tempfile
import textwrap
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import reference_impl.queues.async_converter_pool as ours
from reference_impl.bridges.file_watch import DirectoryWatch
from reference_impl.queues.async_converter_pool import AsyncConverterPool, Converter
from tests.kit.process import run_python
from tests.kit.twins import twin

FILE = "queues/async_converter_pool.py"
DATA = Path(__file__).parent / "data"
Check = Callable[[ModuleType, Path], Coroutine[Any, Any, None]]
SAFETY_NET = 30.0  # seconds, against hangs: nothing is measured by it


def run(check: Check, module: ModuleType, tmp_path: Path) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(SAFETY_NET):
            await check(module, tmp_path)

    asyncio.run(bounded())


class Site:
    """A watched directory, a converter that can be held up, and what became of its files."""

    def __init__(self, root: Path, name: str = "in") -> None:
        self.root, self.box, self.staging = root, root / name, root / "staging"
        for folder in (self.box, self.staging):
            folder.mkdir(exist_ok=True)
        self.name = name
        self.started: list[str] = []  # the files whose conversion has begun, in order
        self.submitted: list[str] = []
        self.holds: dict[str, threading.Event] = {}  # what conversions wait for
        self.calls: list[str] = []  # methods of the pool that have been called
        self._loop, self._bell = asyncio.get_running_loop(), asyncio.Event()

    def converter(self, module: ModuleType = ours, **options: Any) -> "Converter[str]":
        settings: dict[str, Any] = {"patterns": ("*.csv",), "convert": self.convert, **options}
        made: Converter[str] = module.Converter(self.name, self.box, **settings)
        return made

    def convert(self, path: Path) -> str:
        self.started.append(path.name)
        self.ring()
        if path.name in self.holds:
            assert self.holds[path.name].wait(SAFETY_NET)
        text = path.read_text()
        if text.startswith("bad"):
            raise ValueError(f"no table in {path.name}")
        return text

    async def submit(self, result: str) -> None:
        self.submitted.append(result)
        self.ring()

    def hold(self, *names: str) -> threading.Event:
        """Let the conversions of these files wait until the event is set."""
        event = threading.Event()
        self.holds.update(dict.fromkeys(names, event))
        return event

    def drop(self, name: str, text: str) -> Path:
        """Write elsewhere, and rename in."""
        staged = self.staging / name
        staged.write_text(text)
        return staged.replace(self.box / name)

    def ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._bell.set)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until it holds; whatever may change it rings."""
        while not condition():
            self._bell.clear()
            await self._bell.wait()

    def listen(self, pool: Any) -> None:
        """Have the pool ring when it took note of a file, is done with one, or ends."""
        for owner, name in (
            (pool, "_announce"),
            (pool, "_release"),
            (pool, "_ended_late"),
            (pool._over, "set"),
        ):
            setattr(owner, name, partial(self._then_ring, name, getattr(owner, name)))
        feed = pool._feed

        async def feed_then_ring(line: Any) -> None:
            try:
                await feed(line)
            finally:
                self._bell.set()

        pool._feed = feed_then_ring

    def _then_ring(self, name: str, method: Callable[..., None], *arguments: object) -> None:
        method(*arguments)
        self.calls.append(name)
        self._bell.set()

    async def unless_it_ends(self, pool: Any, condition: Callable[[], object]) -> None:
        """Wait until it holds, or fail as soon as the pool ends before that."""
        await self.until(lambda: condition() or pool._over.is_set())
        assert condition(), "the pool has ended"

    async def at_rest(self, pool: Any) -> None:
        """Wait until it has nothing to do any more."""
        await self.until(lambda: not pool.stats.running and not pool.stats.waiting)

    @contextlib.asynccontextmanager
    async def running(
        self, module: ModuleType = ours, *, converters: Any = None, **options: Any
    ) -> AsyncIterator[Any]:
        converters = converters or [self.converter(module)]
        pool = module.AsyncConverterPool(converters, self.submit, **options)
        self.listen(pool)
        async with pool:
            try:
                yield pool
            finally:
                for event in self.holds.values():
                    event.set()

    async def left(self) -> None:
        """Wait until no file is left to convert."""
        await self.until(lambda: not list(self.box.glob("*.csv")))

    def texts(self, folder: str) -> list[str]:
        """The contents of the files in done or error, sorted; reasons left out."""
        files = (self.box / folder).iterdir()
        return sorted(file.read_text() for file in files if not file.name.endswith(".json"))


class Told:
    """In DirectoryWatch's place: tells of what is there on entry, and then of what a test says.

    A real one may tell twice of a file, and when it does so the second time is not for a test
    to say: where that matters, because somebody opens the file again, this one serves.
    """

    entered: "Told"

    def __init__(self, path: Path, patterns: tuple[str, ...]) -> None:
        self._path, self._patterns = Path(path), patterns
        self._news = asyncio.Queue[Path]()

    async def __aenter__(self) -> "Told":
        Told.entered = self
        for file in sorted(self._path.glob(*self._patterns)):
            self.tell(file)
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def tell(self, file: Path) -> None:
        self._news.put_nowait(file)

    async def __aiter__(self) -> AsyncIterator[Path]:
        while True:
            yield await self._news.get()


@contextlib.contextmanager
def told(module: ModuleType) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "DirectoryWatch", Told)
        yield


class Clock:
    """The loop's clock, which the test can put forward, and stop."""

    def __init__(self, *, stopped: bool = False) -> None:
        loop, self._ahead = asyncio.get_running_loop(), 0.0
        time, now = loop.time, loop.time()
        setattr(loop, "time", lambda: (now if stopped else time()) + self._ahead)  # noqa: B010

    async def forward(self, seconds: float) -> None:
        self._ahead += seconds
        for _ in range(20):  # turns of the loop for what that sets off
            await asyncio.sleep(0)


# The running example: a report of measurements becomes JSON.


def csv_to_json(path: Path) -> str:
    with path.open(newline="", encoding="utf-8") as file:
        steps = [
            {**row, "passed": float(row["low"]) <= float(row["measured"]) <= float(row["high"])}
            for row in csv.DictReader(file)
        ]
    if not steps:
        raise ValueError(f"{path.name} holds no step: was the test aborted?")
    passed = all(step["passed"] for step in steps)
    return json.dumps({"unit": path.stem, "passed": passed, "steps": steps})


@pytest.mark.guarantee("CP-1")
def test_reports_become_json_and_what_is_none_goes_to_error(tmp_path: Path) -> None:
    async def main() -> None:
        site = Site(tmp_path)
        for file in DATA.glob("*.csv"):
            site.drop(file.name, file.read_text(encoding="utf-8"))
        async with site.running(converters=[site.converter(convert=csv_to_json)]) as pool:
            await site.left()
        reports = {report["unit"]: report for report in map(json.loads, site.submitted)}
        verdicts = {unit: report["passed"] for unit, report in reports.items()}
        assert verdicts == {"unit-A7-0041": True, "unit-A7-0042": False, "unit-B2-0007": True}
        assert reports["unit-A7-0041"]["steps"][3]["step"] == "Flash, write and verify"
        done, error = site.box / "done", site.box / "error"
        assert {file.name for file in done.iterdir()} == {f"{unit}.csv" for unit in verdicts}
        reasons = {
            reason["file"]: (reason["stage"], reason["error"], reason["message"])
            for reason in (json.loads(file.read_text()) for file in error.glob("*.error.json"))
        }
        aborted, empty = "unit-B2-0008-aborted.csv", "unit-B2-0009-empty.csv"
        message = "could not convert string to float: 'operator abort'"
        assert reasons[aborted] == ("convert", "ValueError", message)
        assert reasons[empty][2] == f"{empty} holds no step: was the test aborted?"
        assert (error / aborted).read_bytes() == (DATA / aborted).read_bytes()
        stats = pool.stats
        assert (stats.converted, stats.failed, stats.held, stats.running) == (3, 2, 0, 0)

    asyncio.run(main())


# CP-1: once per appearance, and nothing lost or overwritten.


async def check_clashes(module: ModuleType, root: Path) -> None:
    """The same name again and again, also after a restart: each file is kept."""
    site = Site(root)
    for start in range(2):
        async with site.running(module):
            for number in range(3):
                for kind in ("good", "bad"):
                    site.drop(f"{kind}.csv", f"{kind} {start}{number}")
                    await site.left()
    numbers = ["00", "01", "02", "10", "11", "12"]
    assert site.submitted == [f"good {number}" for number in numbers]
    assert site.texts("done") == [f"good {number}" for number in numbers]
    assert site.texts("error") == [f"bad {number}" for number in numbers]
    error = site.box / "error"
    for file in error.glob("*.csv"):
        reason = json.loads((error / f"{file.name}.error.json").read_text())
        assert (reason["file"], reason["converter"]) == ("bad.csv", "in")
        assert reason["message"] == "no table in bad.csv"


@pytest.mark.guarantee("CP-1")
def test_name_clashes_get_a_suffix_and_nothing_is_overwritten(tmp_path: Path) -> None:
    run(check_clashes, ours, tmp_path)


@pytest.mark.twin("CP-1")
@pytest.mark.parametrize(
    "fault",
    [
        ("os.O_CREAT | os.O_EXCL | os.O_RDONLY", "os.O_CREAT | os.O_RDONLY"),
        ("return path.replace(made[0])", "path.unlink(); made[0].unlink(); return made[0]"),
        ("self._move(line, path, seen, line.error_dir, reason)", "path.unlink() is None"),
        ("        elif error is None:\n", "        elif error is None or error:\n"),
    ],
    ids=["overwritten", "deleted instead of moved", "deleted when it fails", "failures are done"],
)
def test_lost_files_are_caught(fault: tuple[str, str], tmp_path: Path) -> None:
    broken = twin(FILE, fault)
    with pytest.raises(AssertionError):
        run(check_clashes, broken, tmp_path)


async def check_long_names(module: ModuleType, root: Path) -> None:
    """A name that leaves no room for a suffix, or for .error.json."""
    site = Site(root)
    names = ["é" * 125 + ".csv", "x" * 251 + ".csv", "x" * 250 + "y.csv"]
    async with site.running(module) as pool:
        for turn in range(2):
            for name in names:
                site.drop(name, f"bad {turn} {name}")
                await site.until(lambda: pool.stats.held or not list(site.box.glob("*.csv")))
                assert not pool.stats.held, "it could not be moved"
    assert site.texts("error") == sorted(
        f"bad {turn} {name}" for turn in range(2) for name in names
    )
    files = list((site.box / "error").glob("*.error.json"))
    assert sorted(json.loads(file.read_text())["file"] for file in files) == sorted(names * 2)


@pytest.mark.guarantee("CP-1")
def test_names_of_255_bytes_can_fail_and_clash(tmp_path: Path) -> None:
    run(check_long_names, ours, tmp_path)


@pytest.mark.twin("CP-1")
def test_names_that_grow_too_long_are_caught(tmp_path: Path) -> None:
    broken = twin(FILE, ("os.fsdecode(os.fsencode(name)[:length])", "name"))
    with pytest.raises(AssertionError, match="it could not be moved"):
        run(check_long_names, broken, tmp_path)


async def check_half_written(module: ModuleType, root: Path) -> None:
    """A file that is written to again while it waits is read when it has been closed."""
    site = Site(root)
    first, file = site.hold("first.csv"), site.box / "slow.csv"
    site.drop("first.csv", "1")
    with told(module):
        async with site.running(module, max_concurrency=1) as pool:
            await site.until(lambda: site.started)
            Told.entered.tell(site.drop("slow.csv", "HEAD;"))
            await site.until(lambda: pool.stats.waiting == 1)
            with file.open("a") as half:
                half.write("half;")
                half.flush()
                first.set()
                await site.until(lambda: len(site.submitted) == 1)
                Told.entered.tell(site.drop("last.csv", "2"))
                await site.until(lambda: "last.csv" in site.started)
                assert "slow.csv" not in site.started
                half.write("END")
            Told.entered.tell(file)
            await site.until(lambda: len(site.submitted) == 3)
    assert site.submitted == ["1", "2", "HEAD;half;END"]


@pytest.mark.guarantee("CP-1")
def test_a_file_written_in_place_is_read_when_it_has_been_closed(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        before = (site.box / "before.csv").open("w")
        before.write("HEAD;")
        before.flush()
        async with site.running(module):
            with (site.box / "during.csv").open("w") as during:
                during.write("HEAD;")
                during.flush()
                site.drop("whole.csv", "whole")
                await site.until(lambda: site.submitted)
                assert site.started == ["whole.csv"]
                during.write("END")
            before.write("END of the early one")
            before.close()
            await site.until(lambda: len(site.submitted) == 3)
        assert sorted(site.submitted) == ["HEAD;END", "HEAD;END of the early one", "whole"]

    run(main, ours, tmp_path)


@pytest.mark.guarantee("CP-1")
def test_a_file_written_again_while_it_waits_is_not_read_half(tmp_path: Path) -> None:
    run(check_half_written, ours, tmp_path)


@pytest.mark.twin("CP-1")
def test_reading_half_of_a_file_is_caught(tmp_path: Path) -> None:
    condition = "if now is not None and (now == announced or _only_dated_back(announced, now)):"
    broken = twin(FILE, (condition, "if now is not None:"))
    with pytest.raises(AssertionError):
        run(check_half_written, broken, tmp_path)


@pytest.mark.guarantee("CP-1")
@pytest.mark.parametrize("replaced", [False, True], ids=["the same file", "another one by then"])
def test_a_file_that_is_being_written_when_it_was_converted_waits_for_its_closing(
    replaced: bool, tmp_path: Path, warnings_of_loops: None
) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        held, file = site.hold("x.csv"), site.drop("x.csv", "old;")
        async with site.running(module) as pool:
            await site.until(lambda: site.started)
            if replaced:
                Told.entered.tell(site.drop("x.csv", "a new one;"))
                await site.until(lambda: site.calls.count("_announce") == 2)
            with file.open("a") as growing:
                growing.write("HEAD;")
                growing.flush()
                held.set()
                await site.until(lambda: "_release" in site.calls)
                assert (pool.stats.running, site.started) == (0, ["x.csv"]), "it was read half"
                growing.write("END")
            Told.entered.tell(file)
            await site.left()
        assert site.submitted == [("a new one;" if replaced else "old;") + "HEAD;END"]
        assert site.texts("done") == site.submitted

    with told(ours):
        run(main, ours, tmp_path)


@pytest.mark.guarantee("CP-1")
def test_a_file_that_keeps_its_size_while_it_is_written_is_not_read_half(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        first = site.hold("first.csv")
        site.drop("first.csv", "1")
        async with site.running(module, max_concurrency=1) as pool:
            await site.until(lambda: site.started)
            file = site.drop("x.csv", "old;old")
            Told.entered.tell(file)
            await site.until(lambda: pool.stats.waiting == 1)
            with file.open("r+") as half:
                half.write("new;")
                half.flush()
                later = file.stat().st_mtime_ns + 10**9  # whatever the clock's steps are
                os.utime(file, ns=(later, later))
                first.set()
                await site.until(lambda: "_release" in site.calls)
                assert (pool.stats.running, pool.stats.waiting) == (0, 0), "it was read half"
                half.write("new")
            Told.entered.tell(file)
            await site.left()
        assert site.submitted == ["1", "new;new"]

    with told(ours):
        run(main, ours, tmp_path)


def another_file(file: Path, text: str, date: int) -> None:
    staged = file.with_name("staged")
    staged.write_text(text)
    os.utime(staged, ns=(date, date))
    staged.replace(file)


def the_same_file(file: Path, text: str, date: int) -> None:
    """Dated before it is closed: no event tells of a date."""
    with file.open("r+") as half:
        half.write(text)
        half.flush()
        os.utime(half.fileno(), ns=(date, date))


@pytest.mark.guarantee("CP-1")
@pytest.mark.parametrize(
    ("write", "text", "later"),
    [(another_file, "new", 0), (the_same_file, "newer", 0), (the_same_file, "new", 10**9)],
    ids=["only its inode", "only its size", "only its date"],
)
def test_what_changed_while_it_was_converted_is_not_submitted(
    write: Callable[[Path, str, int], None], text: str, later: int, tmp_path: Path
) -> None:
    """Whatever else of it is as before."""

    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)

        def convert(path: Path) -> str:
            result = site.convert(path)
            if result == "old":
                write(path, text, path.stat().st_mtime_ns + later)
            return result

        async with site.running(module, converters=[site.converter(module, convert=convert)]):
            site.drop("x.csv", "old")
            await site.left()
        assert site.submitted == site.texts("done") == [text]

    run(main, ours, tmp_path)


@pytest.mark.guarantee("CP-1")
@pytest.mark.parametrize("when", ["it waits", "it is converted", "it is submitted"])
def test_a_file_that_is_taken_away_is_nobodys_failure(
    when: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        first, held = site.hold("first.csv"), site.hold("x.csv")

        async def submit(result: str) -> None:
            if result == "x" and when == "it is submitted":
                (site.box / "x.csv").unlink()
            await site.submit(result)

        converter = site.converter(module)
        pool = module.AsyncConverterPool([converter], submit, max_concurrency=1)
        site.listen(pool)
        async with pool:
            site.drop("first.csv", "1")
            await site.until(lambda: site.started)
            file = site.drop("x.csv", "x")
            await site.until(lambda: pool.stats.waiting == 1)
            if when == "it waits":
                file.unlink()
            first.set()
            if when == "it is converted":
                await site.until(lambda: "x.csv" in site.started)
                file.rename(root / "x.csv")
            held.set()
            site.drop("last.csv", "2")
            await site.until(lambda: "2" in site.submitted)
        assert site.submitted == ["1", *(["x"] if when == "it is submitted" else []), "2"]
        assert (pool.stats.converted, pool.stats.failed, pool.stats.held) == (2, 0, 0)
        gone = [] if when == "it waits" else [f"{file} has gone before it was moved"]
        assert [record.getMessage() for record in caplog.records] == gone

    run(main, ours, tmp_path)


async def check_consumed(module: ModuleType, root: Path) -> None:
    """Converters that delete or move their source: the result is submitted all the same."""
    site = Site(root)

    def convert(path: Path) -> str:
        result = site.convert(path)
        path.unlink() if path.name == "deleted.csv" else path.rename(root / "moved.csv")
        return result

    async with site.running(module, converters=[site.converter(module, convert=convert)]) as pool:
        for name in ("deleted.csv", "moved.csv"):
            site.drop(name, name)
        await site.until(lambda: site.calls.count("_release") == 2)
    assert sorted(site.submitted) == ["deleted.csv", "moved.csv"]
    assert (site.texts("done"), site.texts("error")) == ([], [])
    assert (pool.stats.converted, pool.stats.failed, pool.stats.held) == (0, 0, 0)


@pytest.mark.guarantee("CP-1")
def test_the_result_of_a_converter_that_consumes_its_file_is_submitted(tmp_path: Path) -> None:
    run(check_consumed, ours, tmp_path)


@pytest.mark.twin("CP-1")
def test_losing_the_result_of_a_file_that_is_gone_is_caught(tmp_path: Path) -> None:
    broken = twin(FILE, ("_look(path) in (seen, None)", "_look(path) == seen"))
    with pytest.raises(AssertionError):
        run(check_consumed, broken, tmp_path)


def test_why_the_result_of_a_file_that_is_gone_was_refused_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """There is no file to put the reason beside."""
    refusal = Undecided("the server says no")

    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)

        async def submit(result: str) -> None:
            raise refusal

        def convert(path: Path) -> str:
            path.unlink()
            return "x"

        pool = module.AsyncConverterPool([site.converter(module, convert=convert)], submit)
        site.listen(pool)
        async with pool:
            site.drop("x.csv", "x")
            await site.unless_it_ends(pool, lambda: "_release" in site.calls)
        assert site.texts("error") == []

    run(main, ours, tmp_path)
    (record,) = caplog.records
    assert record.getMessage() == f"{tmp_path / 'in' / 'x.csv'} has gone before it was moved"
    assert record.exc_info
    assert object.__repr__(refusal) in str(record.exc_info[1])


async def check_replaced(module: ModuleType, root: Path) -> None:
    """A producer replaces a file while it is converted, and another one while it fails."""
    site = Site(root)
    early = site.hold("good.csv", "bad.csv")
    async with site.running(module):
        for kind in ("good", "bad"):
            site.drop(f"{kind}.csv", f"{kind} old")
        await site.until(lambda: len(site.started) == 2)
        for kind in ("good", "bad"):
            site.drop(f"{kind}.csv", f"{kind} and new")
        early.set()
        await site.left()
    assert site.submitted == ["good and new"]
    assert (site.texts("done"), site.texts("error")) == (["good and new"], ["bad and new"])


async def check_replaced_in_submit(module: ModuleType, root: Path) -> None:
    """Replaced when it was read already: both are submitted, and the new one is kept."""
    site = Site(root)

    async def submit(result: str) -> None:
        if not site.submitted:
            site.drop("x.csv", "new and longer")
        await site.submit(result)

    pool = module.AsyncConverterPool([site.converter(module)], submit)
    site.listen(pool)
    async with pool:
        site.drop("x.csv", "old")
        await site.left()
    assert site.submitted == ["old", "new and longer"]
    assert site.texts("done") == ["new and longer"]


async def check_replaced_in_the_move(module: ModuleType, root: Path) -> None:
    """Replaced in the last moment, and a third one comes before the second is put back."""
    site = Site(root)
    replace = Path.replace
    moves = iter(["second", ""])

    def slow_replace(path: Path, target: Path) -> Path:
        if target.parent.name == "done" and (text := next(moves, "")):
            replace(site.drop("other", text), path)
            moved = replace(path, target)
            replace(site.drop("other", "the third"), path)
            return moved
        return replace(path, target)

    with pytest.MonkeyPatch.context() as patch:
        async with site.running(module):
            patch.setattr(Path, "replace", slow_replace)
            site.drop("x.csv", "1")
            await site.until(lambda: site.submitted)
            await site.left()
    assert sorted(site.submitted) == ["1", "second", "the third"]
    assert site.texts("done") == ["second", "the third"]


@pytest.mark.guarantee("CP-1")
@pytest.mark.parametrize(
    "check", [check_replaced, check_replaced_in_submit, check_replaced_in_the_move]
)
def test_a_file_replaced_meanwhile_is_not_lost(check: Check, tmp_path: Path) -> None:
    run(check, ours, tmp_path)


UNNOTICED = (("elif now != seen:", "elif False:"), ("if _look(target) == seen:", "if True:"))


@pytest.mark.twin("CP-1")
@pytest.mark.parametrize(
    ("check", "faults"),
    [
        (check_replaced, (("error is None and _look(path) in (seen, None)", "error is None"),)),
        (check_replaced, UNNOTICED),
        (check_replaced_in_submit, UNNOTICED),
        (check_replaced_in_the_move, UNNOTICED[1:]),
        (
            check_replaced_in_the_move,
            (("path.with_name(name).hardlink_to(moved)", "moved.replace(path.with_name(name))"),),
        ),
    ],
    ids=["mixed", "the new one is done", "in submit", "in the move", "put back over another"],
)
def test_losing_a_replaced_file_is_caught(
    check: Check, faults: tuple[tuple[str, str], ...], tmp_path: Path
) -> None:
    broken = twin(FILE, *faults)
    with pytest.raises(AssertionError):
        run(check, broken, tmp_path)


async def check_dated_back(module: ModuleType, root: Path) -> None:
    """Copies that keep the date set it after closing: the watch hears nothing of that."""
    site = Site(root)
    held = site.hold("a.csv", "b.csv")
    async with site.running(module, max_concurrency=1) as pool:
        site.drop("a.csv", "a")
        await site.until(lambda: site.started)
        site.drop("b.csv", "b")
        await site.until(lambda: pool.stats.waiting == 1)
        for name in ("a.csv", "b.csv"):
            os.utime(site.box / name, (1e9, 1e9))
        held.set()
        await site.at_rest(pool)
    assert sorted(site.submitted) == ["a", "b"]
    assert site.texts("done") == ["a", "b"]


@pytest.mark.guarantee("CP-1")
def test_a_file_that_gets_its_old_date_is_converted_once(tmp_path: Path) -> None:
    run(check_dated_back, ours, tmp_path)


@pytest.mark.twin("CP-1")
def test_leaving_a_dated_file_is_caught(tmp_path: Path) -> None:
    broken = twin(FILE, ("now[:3] == before[:3] and now.mtime_ns < before.mtime_ns", "False"))
    with pytest.raises(AssertionError):
        run(check_dated_back, broken, tmp_path)


@pytest.mark.guarantee("CP-1")
def test_what_comes_back_from_done_is_converted_again(tmp_path: Path) -> None:
    """The very same file, with its inode, date and size: a new appearance."""

    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        async with site.running(module):
            site.drop("x.csv", "again")
            for turn in range(3):
                await site.left()
                assert site.submitted == ["again"] * (turn + 1)
                (site.box / "done" / "x.csv").replace(site.box / "x.csv")
            await site.left()
        assert site.submitted == ["again"] * 4
        assert site.texts("done") == ["again"]

    run(main, ours, tmp_path)


async def check_submit_raises(module: ModuleType, root: Path) -> None:
    site = Site(root)

    async def submit(result: str) -> None:
        if result == "refused":
            raise ConnectionError("the server says no")
        if result == "cancelled":
            raise asyncio.CancelledError
        await site.submit(result)

    pool = module.AsyncConverterPool([site.converter(module)], submit, max_concurrency=1)
    site.listen(pool)
    async with pool:
        for text in ("refused", "cancelled", "accepted"):
            site.drop(f"{text}.csv", text)
        await site.unless_it_ends(pool, lambda: not list(site.box.glob("*.csv")))
    assert (site.submitted, site.texts("done")) == (["accepted"], ["accepted"])
    assert site.texts("error") == ["cancelled", "refused"]
    reason = json.loads((site.box / "error" / "refused.csv.error.json").read_text())
    assert (reason["stage"], reason["error"]) == ("submit", "ConnectionError")
    assert reason["message"] == "the server says no"
    assert "the server says no" in "".join(reason["traceback"])
    assert reason["failed_at"].endswith("+00:00")
    assert pool.stats.failed == 2


@pytest.mark.guarantee("CP-1", "CP-5")
def test_a_submit_that_raises_moves_the_file_to_error_with_the_reason(tmp_path: Path) -> None:
    run(check_submit_raises, ours, tmp_path)


@pytest.mark.twin("CP-1", "CP-5")
@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        (("            error = raised\n", "            pass\n"), AssertionError),
        (("if fatal or (task", "if True or (task"), ConnectionError),  # what ended the pool
        (('                stage = "submit"\n', ""), AssertionError),
    ],
    ids=["counts as done", "ends the pool", "blames the conversion"],
)
def test_faults_with_a_failed_submit_are_caught(
    fault: tuple[str, str], failure: type[Exception], tmp_path: Path
) -> None:
    broken = twin(FILE, fault)
    with pytest.raises(failure):
        run(check_submit_raises, broken, tmp_path)


def test_what_cannot_be_moved_stays_and_is_not_submitted_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        async with site.running(module, max_concurrency=1) as pool:
            (site.box / "done").rmdir()
            site.drop("a.csv", "a")
            await site.until(lambda: pool.stats.held)
            (site.box / "done").mkdir()
            assert (pool.stats.converted, pool.stats.failed) == (0, 0)
            os.close(os.open(site.box / "a.csv", os.O_WRONLY))  # an event, but no news
            site.drop("b.csv", "b")
            await site.until(lambda: pool.stats.converted)
        assert [record.getMessage() for record in caplog.records] == [
            f"{site.box / 'a.csv'} could not be moved to {site.box / 'done'}: it stays"
        ]
        assert caplog.records[0].exc_info is not None
        assert caplog.records[0].exc_info[0] is FileNotFoundError
        assert (site.box / "a.csv").read_text() == "a"
        async with site.running(module):
            await site.left()
        assert site.texts("done") == ["a", "b"]
        assert site.submitted[-1] == "a"

    run(main, ours, tmp_path)


def test_what_could_not_be_moved_is_converted_when_it_has_changed(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        async with site.running(module) as pool:
            (site.box / "done").rmdir()
            site.drop("a.csv", "old")
            await site.until(lambda: pool.stats.held)
            (site.box / "done").mkdir()
            site.drop("a.csv", "a new one")
            await site.left()
            assert (pool.stats.held, pool.stats.converted) == (0, 1)
        assert site.submitted == ["old", "a new one"]
        assert site.texts("done") == ["a new one"]

    run(main, ours, tmp_path)


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it leave anything behind, not even where somebody clears up meanwhile."""

    def full(path: Path, data: bytes) -> int:
        path.with_name("x.csv").unlink()  # which was reserved first
        raise OSError(28, "No space left on device", str(path))

    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        async with site.running(module) as pool:
            with monkeypatch.context() as patch:
                patch.setattr(Path, "write_bytes", full)
                site.drop("x.csv", "bad")
                await site.until(lambda: pool.stats.held)
            assert pool.stats.failed == 0
        assert (site.box / "x.csv").read_text() == "bad"
        assert list((site.box / "error").iterdir()) == []

    run(main, ours, tmp_path)


@pytest.mark.guarantee("CP-1")
def test_a_reason_that_was_left_alone_is_not_overwritten(tmp_path: Path) -> None:
    """Somebody took a failed file back, and left what was said of it."""

    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        async with site.running(module):
            site.drop("x.csv", "bad 1")
            await site.left()
            (site.box / "error" / "x.csv").unlink()
            site.drop("x.csv", "bad 2")
            await site.left()
        error = site.box / "error"
        (second,) = error.glob("*.csv")  # and no empty file of the name that was half free
        assert second.read_text() == "bad 2"
        assert {file.name for file in error.glob("*.json")} == {
            "x.csv.error.json",
            f"{second.name}.error.json",
        }

    run(main, ours, tmp_path)


def test_a_reason_is_for_people_to_read(tmp_path: Path) -> None:
    """One line for each thing, and with the rights that any new file gets."""

    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        async with site.running(module):
            site.drop("x.csv", "bad")
            await site.left()
        file = site.box / "error" / "x.csv.error.json"
        assert file.read_text() == json.dumps(json.loads(file.read_text()), indent=1) + "\n"
        (root / "any").touch()
        assert file.stat().st_mode == (root / "any").stat().st_mode

    run(main, ours, tmp_path)


class WallClock(datetime):
    """A fixed moment, on a machine whose local time is five hours ahead of UTC."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "WallClock":
        moment = cls(2026, 1, 2, 3, 4, 5, 67, tzinfo=UTC)
        return moment if tz is UTC else (moment + timedelta(hours=5)).replace(tzinfo=tz)


@pytest.mark.guarantee("CP-1")
@pytest.mark.parametrize(
    ("name", "second"),
    [
        ("x.csv", "x-20260102T030405000067.csv"),
        ("report", "report-20260102T030405000067"),
        ("a." + "x" * 253, "a-20260102T030405000067." + "x" * 49),
        ("y" * 251 + ".csv", "y" * 164 + "-20260102T030405000067.csv"),
    ],
    ids=["ending", "no ending", "long ending", "long name"],
)
def test_the_suffix_is_the_time_in_utc(
    name: str, second: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        monkeypatch.setattr(module, "datetime", WallClock)
        converter = site.converter(module, patterns=("*",))
        async with site.running(module, converters=[converter]) as pool:
            for turn in ("1", "2"):
                site.drop(name, turn)
                await site.until(lambda: pool.stats.held or not (site.box / name).exists())
        assert {file.name: file.read_text() for file in (site.box / "done").iterdir()} == {
            name: "1",
            second: "2",
        }

    run(main, ours, tmp_path)


CRASH = """
    import asyncio, os, sys
    from pathlib import Path
    from reference_impl.queues.async_converter_pool import AsyncConverterPool, Converter

    root, point = Path({root!r}), {point}
    steps = 0

    def crash(function):
        def wrapped(*arguments, **options):
            global steps
            # The watch opens files, too, but none of those in done and error.
            paths = " ".join(map(str, arguments))
            inside = "/in/done/" in paths or "/in/error/" in paths
            steps += inside
            if inside and steps == point:
                os._exit(9)
            result = function(*arguments, **options)
            steps += inside
            if inside and steps == point:
                os._exit(9)
            return result
        return wrapped

    def convert(path):
        text = path.read_text()
        if text.startswith("bad"):
            raise ValueError(text)
        return text

    async def main():
        async def submit(text):
            with (root / "submitted").open("a") as file:
                print(text, file=file)

        converter = Converter("c", root / "in", ("*.csv",), convert)
        async with AsyncConverterPool([converter], submit, max_concurrency=1) as pool:
            os.open, Path.replace = crash(os.open), crash(Path.replace)
            Path.write_bytes = crash(Path.write_bytes)
            for name in ("good", "bad"):
                (root / f"{{name}}.csv").write_text(name)
                os.rename(root / f"{{name}}.csv", root / "in" / f"{{name}}.csv")
            while list((root / "in").glob("*.csv")):
                await asyncio.sleep(0.001)  # this is a subject, not a check

    asyncio.run(main())
"""


@pytest.mark.guarantee("CP-1")
def test_ending_the_process_at_any_step_of_the_move_loses_nothing(tmp_path: Path) -> None:
    """Before and after each file operation; then the next start finishes the work."""
    point, code = 0, 9
    while code == 9:
        point += 1
        root = tmp_path / str(point)
        (root / "in").mkdir(parents=True)
        code = run_python(CRASH.format(root=str(root), point=point), expect=None).returncode
        crashed = {file.name for file in (root / "in").glob("*.csv")}
        assert bool(crashed) <= (code == 9)

        async def restart(module: ModuleType, root: Path) -> None:
            site = Site(root)
            async with site.running(module):
                await site.left()
            kept = site.texts("done") + site.texts("error")
            assert sorted(text for text in kept if text) == ["bad", "good"]
            assert len(kept) <= 3  # one name may have been reserved when it ended
            before = root / "submitted"
            log = [*site.submitted, *(before.read_text().split() if before.exists() else [])]
            assert 1 <= log.count("good") <= 2

        run(restart, ours, root)
    assert code == 0
    assert point > 12, "the crash points were not reached"


KILL = """
    import asyncio, os, random, signal, threading
    from pathlib import Path
    from reference_impl.queues.async_converter_pool import AsyncConverterPool, Converter

    root, chance = Path({root!r}), random.Random({seed})
    lock, left = threading.Lock(), chance.randrange(2, 20)

    def convert(path):
        global left
        with lock:
            left -= 1
            if not left:  # any thread, while others convert, submit and move
                os.kill(os.getpid(), signal.SIGKILL)
        text = path.read_text()
        if text.startswith("bad"):
            raise ValueError(text)
        return text

    async def main():
        async def submit(text):
            with (root / "submitted").open("a") as file:
                print(text, file=file)

        pool = AsyncConverterPool([Converter("c", root / "in", ("*.csv",), convert)], submit)
        await pool.run()

    asyncio.run(main())
"""


@pytest.mark.guarantee("CP-1", "CP-4")
@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_killed_again_and_again_while_busy_it_loses_nothing(tmp_path: Path) -> None:
    files = {
        f"{number}.csv": f"{'good' if number % 5 else 'bad'} {number}" for number in range(200)
    }
    (tmp_path / "in").mkdir()
    for name, text in files.items():
        (tmp_path / "in" / name).write_text(text)
    for seed in range(10):
        run_python(KILL.format(root=str(tmp_path), seed=seed), expect=-9)
    assert list((tmp_path / "in").glob("*.csv")), "nothing was left to convert after the last kill"

    async def restart(module: ModuleType, root: Path) -> None:
        site = Site(root)
        async with site.running(module):
            await site.left()
        # A name that was reserved in the moment of a kill is an empty file.
        kept = [text for text in site.texts("done") + site.texts("error") if text]
        assert sorted(kept) == sorted(files.values())
        submitted = [*site.submitted, *(root / "submitted").read_text().splitlines()]
        assert set(submitted) == {text for text in files.values() if text.startswith("good")}
        assert len(submitted) <= len(set(submitted)) + 10 * 4  # at most what the kills cut off

    run(restart, ours, tmp_path)


# CP-2: the most urgent first, and a slot before the choice.


async def check_urgent(module: ModuleType, root: Path) -> None:
    """One urgent file behind three hundred others runs next."""
    site, urgent = Site(root), Site(root, "urgent")
    many = [f"{number:03}.csv" for number in range(300)]
    held = site.hold(*many)
    for name in many:
        site.drop(name, name)
    converters = [site.converter(module), urgent.converter(module, priority=1)]
    async with site.running(module, converters=converters, max_concurrency=1) as pool:

        def noticed() -> int:
            return int(pool.stats.waiting + pool.stats.running)

        await site.until(lambda: noticed() >= 65)
        urgent.drop("now.csv", "!")
        await site.until(lambda: noticed() >= 66)
        assert len(site.started) == 1
        held.set()
        await site.until(lambda: len(site.submitted) == 301)
    assert site.submitted.index("!") == 1, "others were chosen before the urgent one"


@pytest.mark.guarantee("CP-2")
def test_an_urgent_file_behind_300_others_runs_next(tmp_path: Path) -> None:
    run(check_urgent, ours, tmp_path)


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
@pytest.mark.parametrize(
    "faults",
    [CHOSEN_EARLY, (("(each.converter.priority, each.served)", "-each.converter.priority"),)],
    ids=["a file is chosen, then waits for a slot", "the least urgent first"],
)
def test_a_choice_before_the_slot_is_caught(
    faults: tuple[tuple[str, str], ...], tmp_path: Path
) -> None:
    broken = twin(FILE, *faults)
    with pytest.raises(AssertionError, match="chosen before the urgent one"):
        run(check_urgent, broken, tmp_path)


def test_four_run_at_once_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        names = [f"{number}.csv" for number in range(6)]
        site.hold(*names)
        async with site.running(module) as pool:
            for name in names:
                site.drop(name, name)
            await site.until(lambda: pool.stats.running + pool.stats.waiting == 6)
            assert pool.stats.running == 4

    run(main, ours, tmp_path)


@pytest.mark.parametrize(("slots", "ahead"), [(1, 64), (70, 70)])
def test_no_more_is_drawn_from_a_watch_than_the_slots_need(
    slots: int, ahead: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in a line costs memory, a million files would."""

    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        names = [f"{number:03}.csv" for number in range(200)]
        held = site.hold(*names)
        for name in names:
            site.drop(name, name)
        monkeypatch.setattr(module, "DirectoryWatch", Told)
        async with site.running(module, max_concurrency=slots) as pool:
            assert (pool.stats.running, pool.stats.waiting) == (slots, ahead)
            held.set()
            await site.until(lambda: len(site.submitted) == 200)

    run(main, ours, tmp_path)


async def check_slots(module: ModuleType, root: Path) -> None:
    """Fifty conversions run at once, and never fifty-one."""
    site = Site(root)
    names = [f"{number}.csv" for number in range(60)]
    held = site.hold(*names)
    async with site.running(module, max_concurrency=50) as pool:
        for name in names:
            site.drop(name, name)
        await site.until(lambda: pool.stats.running + pool.stats.waiting == 60)
        assert pool.stats.running == 50
        await site.until(lambda: len(site.started) == 50)
        held.set()
        await site.until(lambda: len(site.submitted) == 60)


@pytest.mark.guarantee("CP-2")
def test_as_many_run_at_once_as_there_are_slots(tmp_path: Path) -> None:
    """Also where the default executor has six threads."""
    run(check_slots, ours, tmp_path)


@pytest.mark.twin("CP-2")
def test_one_too_many_is_caught(tmp_path: Path) -> None:
    broken = twin(FILE, ("self._taken() < self._max_concurrency", "self._taken() < 51"))
    with pytest.raises(AssertionError):
        run(check_slots, broken, tmp_path)


@pytest.mark.guarantee("CP-2")
def test_equals_take_turns(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        one, other = Site(root, "one"), Site(root, "other")
        held = one.hold("0.csv")
        converters = [one.converter(module), other.converter(module)]
        async with one.running(module, converters=converters, max_concurrency=1) as pool:
            one.drop("0.csv", "held")
            await one.until(lambda: pool.stats.running)
            for site in (one, other):
                for number in range(1, 4):
                    site.drop(f"{number}.csv", f"{site.name} {number}")
            await one.until(lambda: pool.stats.waiting == 6)
            held.set()
            await one.until(lambda: len(one.submitted) == 7)
        in_turn = [f"{name} {number}" for number in range(1, 4) for name in ("other", "one")]
        assert one.submitted[1:] == in_turn  # and each converter's in the order that they came

    run(main, ours, tmp_path)


# CP-3: off the loop, with a timeout that frees the slot.


def whoami(path: Path) -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


def die(path: Path) -> None:
    if path.name == "die.csv":
        os._exit(1)


def a_process_pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))


@pytest.mark.guarantee("CP-3")
@pytest.mark.parametrize(
    "make", [lambda: None, partial(ThreadPoolExecutor, 2), partial(a_process_pool, 1)]
)
def test_conversion_runs_off_the_loop(make: Callable[[], Executor | None], tmp_path: Path) -> None:
    results: list[tuple[int, int]] = []

    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)

        async def submit(result: tuple[int, int]) -> None:
            results.append(result)

        with contextlib.ExitStack() as stack:
            executor = make()
            if executor is not None:
                stack.enter_context(executor)
            converter = site.converter(module, convert=whoami)
            pool = module.AsyncConverterPool([converter], submit, executor=executor)
            site.listen(pool)
            async with pool:
                site.drop("x.csv", "")
                await site.left()

    run(main, ours, tmp_path)
    (pid, thread) = results[0]
    assert (pid != os.getpid()) == (make().__class__ is ProcessPoolExecutor)
    assert pid != os.getpid() or thread != threading.get_ident()


def test_what_runs_can_be_told_by_its_name(tmp_path: Path) -> None:
    """In a debugger, say; and a thread that hangs does not hold up the exit."""
    threads: list[threading.Thread] = []
    tasks: list[str] = []

    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)

        def convert(path: Path) -> str:
            threads.append(threading.current_thread())
            return path.name

        async def submit(result: str) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.append(task.get_name())

        pool = module.AsyncConverterPool([site.converter(module, convert=convert)], submit)
        site.listen(pool)
        async with pool:
            site.drop("x.csv", "")
            await site.left()

    run(main, ours, tmp_path)
    assert [(thread.name, thread.daemon) for thread in threads] == [("convert", True)]
    assert tasks == ["in: x.csv"]


@pytest.mark.guarantee("CP-3")
def test_a_pool_of_interpreters_is_given_the_conversion_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a ThreadPoolExecutor (Python 3.14), but takes only what can be pickled."""

    class InterpreterPoolExecutor(ThreadPoolExecutor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            return super().submit(pickle.loads(pickle.dumps(fn)), *args, **kwargs)

    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        name = "InterpreterPoolExecutor"
        monkeypatch.setattr(concurrent.futures, name, InterpreterPoolExecutor, raising=False)
        with InterpreterPoolExecutor(1) as executor:
            converters = [site.converter(module, convert=plain)]
            async with site.running(module, converters=converters, executor=executor) as pool:
                site.drop("x.csv", "")
                await site.unless_it_ends(pool, lambda: not list(site.box.glob("*.csv")))
        assert site.submitted == ["x.csv"]

    run(main, ours, tmp_path)


LIMIT = 10.0  # seconds, by a clock that the test puts forward


async def check_timeout(module: ModuleType, root: Path) -> None:
    """A conversion that hangs; its file fails, its slot is free, its late result is dropped."""
    site, clock = Site(root), Clock()
    held = site.hold("hangs.csv")
    async with site.running(module, max_concurrency=1, convert_timeout=LIMIT) as pool:
        site.drop("hangs.csv", "late")
        await site.until(lambda: site.started)
        await clock.forward(LIMIT)
        assert pool.stats.failed == pool.stats.abandoned == 1, "there was no timeout"
        pool._timeout = SAFETY_NET  # the next one may be slow, on a machine that is
        site.drop("next.csv", "next")
        await site.until(lambda: pool.stats.waiting or pool.stats.running)
        assert not pool.stats.waiting, "its slot was not freed"
        await site.until(lambda: site.submitted)
        held.set()
        await site.until(lambda: not pool.stats.abandoned)
    assert site.submitted == ["next"]
    assert site.texts("error") == ["late"]
    reason = json.loads((site.box / "error" / "hangs.csv.error.json").read_text())
    assert (reason["stage"], reason["error"]) == ("convert", "TimeoutError")
    assert reason["message"] == "not converted within 10.0 s: mend converter 'in', or give it more"


async def check_timeout_in_executor(module: ModuleType, root: Path) -> None:
    """The same in a given executor: its worker is lost, and so is the slot, until it ends."""
    site, clock = Site(root), Clock()
    held = site.hold("hangs.csv")
    convert = site.convert

    def convert_next(path: Path) -> str:
        assert path.name == "hangs.csv" or held.is_set(), "more than one at a time"
        return convert(path)

    with ThreadPoolExecutor(2) as executor:
        converters = [site.converter(module, convert=convert_next)]
        async with site.running(
            module,
            converters=converters,
            executor=executor,
            max_concurrency=1,
            convert_timeout=LIMIT,
        ) as pool:
            site.drop("hangs.csv", "late")
            await site.until(lambda: site.started)
            await clock.forward(LIMIT)
            assert pool.stats.failed == 1
            pool._timeout = SAFETY_NET  # the next one may be slow, on a machine that is
            site.drop("next.csv", "next")
            await site.until(lambda: pool.stats.waiting or pool.stats.running)
            assert (pool.stats.running, pool.stats.abandoned) == (0, 1), "its slot is free"
            held.set()
            await site.until(lambda: "_ended_late" in site.calls)
            assert pool.stats.abandoned == 0, "its slot was not freed"
            await site.until(lambda: site.submitted)
    assert site.submitted == ["next"]


@pytest.mark.guarantee("CP-3")
@pytest.mark.parametrize("check", [check_timeout, check_timeout_in_executor])
def test_a_conversion_that_hangs_fails_and_gives_its_slot_back(
    check: Check, tmp_path: Path
) -> None:
    run(check, ours, tmp_path)


@pytest.mark.twin("CP-3")
@pytest.mark.parametrize(
    ("check", "fault", "complaint"),
    [
        (
            check_timeout,
            ("(0 if self._own else self._abandoned)", "self._abandoned"),
            "its slot was not freed",
        ),
        (
            check_timeout,
            ("async with asyncio.timeout(self._timeout):", "if True:"),
            "there was no timeout",
        ),
        (
            check_timeout_in_executor,
            ("(0 if self._own else self._abandoned)", "0"),
            "its slot is free",
        ),
        (
            check_timeout_in_executor,
            ("        self._abandoned -= 1\n", "        pass\n"),
            "its slot was not freed",
        ),
    ],
    ids=["the slot is lost", "no timeout", "free too early", "never free"],
)
def test_a_slot_that_is_not_freed_is_caught(
    check: Check, fault: tuple[str, str], complaint: str, tmp_path: Path
) -> None:
    broken = twin(FILE, fault)
    with pytest.raises(AssertionError, match=complaint):
        run(check, broken, tmp_path)


@pytest.mark.guarantee("CP-3")
def test_a_conversion_that_hangs_does_not_hold_up_the_exit(tmp_path: Path) -> None:
    """stop() leaves its file for the next start, and its thread is a daemon."""
    code = f"""
        import asyncio, threading
        from pathlib import Path
        from reference_impl.queues.async_converter_pool import AsyncConverterPool, Converter

        async def main():
            begun, loop = asyncio.Event(), asyncio.get_running_loop()

            def hang(path):
                loop.call_soon_threadsafe(begun.set)
                threading.Event().wait()

            async def submit(result):
                raise AssertionError

            box = Path({str(tmp_path)!r})
            (box / "x.csv").touch()
            pool = AsyncConverterPool([Converter("c", box, ("*.csv",), hang)], submit)
            running = asyncio.create_task(pool.run())
            await begun.wait()
            await pool.stop(timeout=0.01)
            await running
            assert pool.stats.abandoned == 1
            assert (box / "x.csv").exists()

        asyncio.run(main())
        print("the end")
    """
    assert run_python(code).stdout == "the end\n"


@pytest.mark.parametrize("kind", ["own", "threads"])
def test_conversions_see_the_context_of_run(kind: str, tmp_path: Path) -> None:
    variable = contextvars.ContextVar[str]("variable")

    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)

        def convert(path: Path) -> str:
            seen = variable.get()
            variable.set("of a conversion")
            return seen

        async def submit(result: str) -> None:
            assert variable.get() == "of run"
            variable.set("of a submission")
            await site.submit(result)

        with contextlib.ExitStack() as stack:
            executor = stack.enter_context(ThreadPoolExecutor(1)) if kind == "threads" else None
            converter = site.converter(module, convert=convert)
            variable.set("of run")
            pool = module.AsyncConverterPool([converter], submit, executor=executor)
            site.listen(pool)
            async with pool:
                variable.set("of the main task")
                for name in ("a.csv", "b.csv"):
                    site.drop(name, name)
                await site.left()
        assert site.submitted == ["of run"] * 2

    run(main, ours, tmp_path)


def test_a_slot_that_a_thread_gives_back_has_the_context_of_run(tmp_path: Path) -> None:
    """The thread that ends late wakes the loop; what follows does not run in its context."""
    variable = contextvars.ContextVar[str]("variable", default="of a thread")

    async def main(module: ModuleType, root: Path) -> None:
        site, clock = Site(root), Clock()
        held = site.hold("hangs.csv")

        def convert(path: Path) -> str:
            site.convert(path)
            return variable.get()

        with ThreadPoolExecutor(1) as executor:
            executor.submit(int).result()  # its thread has begun, without the variable
            variable.set("of run")
            pool = module.AsyncConverterPool(
                [site.converter(module, convert=convert)],
                site.submit,
                executor=executor,
                max_concurrency=1,
                convert_timeout=LIMIT,
            )
            site.listen(pool)
            async with pool:
                site.drop("hangs.csv", "")
                await site.until(lambda: site.started)
                await clock.forward(LIMIT)
                assert (pool.stats.running, pool.stats.abandoned) == (0, 1)
                pool._timeout = SAFETY_NET
                site.drop("next.csv", "")
                await site.until(lambda: pool.stats.waiting)
                held.set()
                await site.until(lambda: site.submitted)
        assert site.submitted == ["of run"]

    run(main, ours, tmp_path)


def test_all_that_were_abandoned_are_counted(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site, clock = Site(root), Clock()
        counted: list[int] = []
        first, second = site.hold("1.csv"), site.hold("2.csv")

        async def submit(result: str) -> None:
            counted.append(pool.stats.abandoned)
            await site.submit(result)

        converters = [site.converter(module)]
        pool = module.AsyncConverterPool(converters, submit, convert_timeout=LIMIT)
        site.listen(pool)
        async with pool:
            for name in ("1.csv", "2.csv"):
                site.drop(name, "")
            await site.until(lambda: len(site.started) == 2)
            await clock.forward(LIMIT)
            assert pool.stats.failed == pool.stats.abandoned == 2
            pool._timeout = SAFETY_NET
            first.set()
            await site.until(lambda: pool.stats.abandoned != 2)
            assert pool.stats.abandoned == 1
            second.set()
            await site.until(lambda: pool.stats.abandoned != 1)
            assert pool.stats.abandoned == 0
            site.drop("3.csv", "")
            await site.until(lambda: site.submitted)
        assert counted == [0], "a conversion that ended in time counts as abandoned"

    run(main, ours, tmp_path)


def test_a_conversion_that_outlives_the_loop_ends_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    threads: list[threading.Thread] = []
    held = threading.Event()

    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)

        def convert(path: Path) -> str:
            threads.append(threading.current_thread())
            site.ring()
            held.wait()
            return path.name

        pool = module.AsyncConverterPool([site.converter(module, convert=convert)], site.submit)
        site.drop("x.csv", "")
        running = asyncio.create_task(pool.run())
        await site.until(lambda: threads)
        await pool.stop(timeout=0)
        await running
        assert pool.stats.abandoned == 1

    try:
        run(main, ours, tmp_path)
    finally:
        held.set()
    threads[0].join()
    assert [record for record in caplog.records if record.name != "asyncio"] == []


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words for this")


@pytest.mark.parametrize("executor", [None, 1], ids=["own threads", "given executor"])
@pytest.mark.parametrize(
    "error",
    [SystemExit(3), KeyboardInterrupt(), StopIteration(4), asyncio.CancelledError(), Unprintable()],
)
def test_whatever_a_conversion_raises_is_its_files_failure(
    error: BaseException, executor: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)

        def convert(path: Path) -> str:
            if path.name == "x.csv":
                raise error
            return path.name

        with ThreadPoolExecutor(1) as threads:
            async with site.running(
                module,
                converters=[site.converter(module, convert=convert)],
                executor=None if executor is None else threads,
            ):
                site.drop("x.csv", "x")
                site.drop("y.csv", "y")
                await site.left()
        assert (site.submitted, site.texts("error")) == (["y.csv"], ["x"])
        reason = json.loads((site.box / "error" / "x.csv.error.json").read_text())
        assert reason["error"] == type(error).__name__
        (record,) = caplog.records
        assert record.getMessage() == f"converter 'in' could not convert {site.box / 'x.csv'}"
        assert record.exc_info == (type(error), error, error.__traceback__)

    run(main, ours, tmp_path)


ODD: Any = "no number of a column"


class Undecided(Exception):
    def __bool__(self) -> bool:
        raise RuntimeError("neither true nor false")


@pytest.mark.guarantee("CP-1", "CP-5")
@pytest.mark.parametrize("stage", ["convert", "submit"])
@pytest.mark.parametrize(
    "error",
    [SyntaxError("odd", ("report", 1, ODD, "text")), Undecided()],
    ids=["its traceback cannot be made", "it is neither true nor false"],
)
def test_a_failure_that_cannot_be_told_is_its_files_failure(
    error: Exception, stage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)

        def fail_at(point: str, text: str) -> None:
            if (point, text) == (stage, "x"):
                raise error

        def convert(path: Path) -> str:
            result = site.convert(path)
            fail_at("convert", result)
            return result

        async def submit(result: str) -> None:
            fail_at("submit", result)
            await site.submit(result)

        pool = module.AsyncConverterPool([site.converter(module, convert=convert)], submit)
        site.listen(pool)
        async with pool:
            for name in ("x", "y"):
                site.drop(f"{name}.csv", name)
            await site.unless_it_ends(pool, lambda: not list(site.box.glob("*.csv")))
        assert (site.submitted, site.texts("error")) == (["y"], ["x"])
        reason = json.loads((site.box / "error" / "x.csv.error.json").read_text())
        assert (reason["file"], reason["stage"]) == ("x.csv", stage)
        assert f"{type(error).__name__} object at" in reason["message"]
        assert "fail_at" in "".join(reason["traceback"]), "where it was raised cannot be seen"
        assert f"converter 'in' could not {stage}" in caplog.text

    run(main, ours, tmp_path)


def test_a_process_that_dies_ends_the_pool_and_blames_no_file(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        with a_process_pool(2) as executor:
            converters = [site.converter(module, convert=die)]
            with pytest.raises(BrokenExecutor):
                async with site.running(module, converters=converters, executor=executor) as pool:
                    for name in ("innocent.csv", "die.csv"):
                        site.drop(name, name)
                    await pool._over.wait()
        kept = site.texts("done") + [file.read_text() for file in site.box.glob("*.csv")]
        assert sorted(kept) == ["die.csv", "innocent.csv"]
        assert site.texts("error") == []

    run(main, ours, tmp_path)


def test_an_executor_that_was_shut_down_ends_the_pool(
    tmp_path: Path, warnings_of_loops: None
) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        held = site.hold("busy.csv")
        executor, converters = ThreadPoolExecutor(1), [site.converter(module)]
        pool = module.AsyncConverterPool(
            converters, site.submit, executor=executor, max_concurrency=1
        )
        site.listen(pool)
        with pytest.raises(RuntimeError, match="after shutdown"):
            async with pool:
                site.drop("busy.csv", "0")
                await site.until(lambda: site.started)
                for name in ("x.csv", "y.csv"):
                    site.drop(name, name)
                await site.until(lambda: pool.stats.waiting == 2)
                executor.shutdown(wait=False)
                held.set()
                await pool._over.wait()
        assert pool.stats.waiting == 1, "one more was chosen"
        assert sorted(file.name for file in site.box.glob("*.csv")) == ["x.csv", "y.csv"]
        assert site.texts("error") == []

    run(main, ours, tmp_path)


def test_an_executor_that_drops_its_work_ends_the_pool(tmp_path: Path) -> None:
    site: Site

    class Executor1(ThreadPoolExecutor):
        taken = 0

        def submit(self, *arguments: Any, **options: Any) -> Any:
            self.taken += 1
            site.ring()
            return super().submit(*arguments, **options)

    async def main(module: ModuleType, root: Path) -> None:
        nonlocal site
        site = Site(root)
        held = site.hold("0.csv", "1.csv", "2.csv")
        executor = Executor1(1)
        dropped = r"\Athe executor was shut down: stop the pool first\Z"
        with pytest.raises(RuntimeError, match=dropped):
            async with site.running(module, executor=executor) as pool:
                for number in range(3):
                    site.drop(f"{number}.csv", "")
                await site.until(lambda: site.started and executor.taken == 3)
                executor.shutdown(wait=False, cancel_futures=True)
                await pool._over.wait()
        held.set()
        executor.shutdown()
        assert len(list(site.box.glob("*.csv"))) == 3

    run(main, ours, tmp_path)


# CP-4: what is there on start, and what comes while it stops.


async def check_restart(module: ModuleType, root: Path) -> None:
    site = Site(root)
    site.drop("early.csv", "early")
    held = site.hold("early.csv")
    async with site.running(module) as pool:
        await site.until(lambda: site.started)
        stopping = asyncio.create_task(pool.stop())
        await pool._stopping.wait()
        site.drop("late.csv", "late")
        held.set()
        await stopping
        assert pool.stats.running == 0
    assert site.submitted == ["early"], "a file was chosen after stop"
    assert (site.box / "late.csv").read_text() == "late"
    async with site.running(module):
        await site.left()
    assert site.submitted == ["early", "late"]
    assert site.texts("done") == ["early", "late"]


@pytest.mark.guarantee("CP-4")
def test_files_that_come_while_it_stops_wait_for_the_next_start(tmp_path: Path) -> None:
    run(check_restart, ours, tmp_path)


@pytest.mark.guarantee("CP-4")
def test_files_that_come_while_it_starts_are_seen(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        names = {f"{number}.csv" for number in range(300)}
        producer = threading.Thread(target=lambda: [site.drop(name, name) for name in names])
        producer.start()
        async with site.running(module):
            await site.until(lambda: len(site.submitted) >= 300)
            producer.join()
        assert sorted(site.submitted) == sorted(names)

    run(main, ours, tmp_path)


async def check_backlog(module: ModuleType, root: Path) -> None:
    """Those that waited for a slot wait for the next start."""
    site = Site(root)
    names = [f"{number}.csv" for number in range(200)]
    held = site.hold(*names)
    for name in names:
        site.drop(name, name)
    async with site.running(module, max_concurrency=2) as pool:
        await site.until(lambda: pool.stats.waiting >= 64 or site.calls.count("_announce") == 200)
        assert pool.stats.waiting >= 64, "files were taken without a slot"
        stopping = asyncio.create_task(pool.stop())
        await pool._stopping.wait()
        held.set()
        await stopping
    assert len(site.submitted) == 2, "a file was chosen after stop"
    async with site.running(module):
        await site.left()
    assert sorted(site.submitted) == sorted(names)


@pytest.mark.guarantee("CP-4")
def test_files_that_wait_for_a_slot_when_it_stops_are_done_by_the_next_start(
    tmp_path: Path,
) -> None:
    run(check_backlog, ours, tmp_path)


@pytest.mark.twin("CP-4")
def test_starting_more_while_it_stops_is_caught(tmp_path: Path) -> None:
    broken = twin(FILE, ("while not self._stopping.is_set() and", "while"))
    with pytest.raises(
        (AssertionError, RuntimeError), match=r"a file was chosen after stop|finished"
    ):
        run(check_backlog, broken, tmp_path)


@pytest.mark.twin("CP-4")
def test_a_file_moved_before_it_is_converted_is_caught(tmp_path: Path) -> None:
    """What takes files at once, rather than with a slot, has none left for the next start."""
    broken = twin(
        FILE, ("            line.waiting[path] = seen  #", "            path.unlink()  #")
    )
    with pytest.raises(AssertionError, match="files were taken without a slot"):
        run(check_backlog, broken, tmp_path)


# CP-5: one bad converter among good ones.


async def check_bad_converters(module: ModuleType, root: Path) -> None:
    """One raises, one hangs, one loses its directory: the good one hears nothing of it."""
    good, raises, hangs, gone = (Site(root, name) for name in ("good", "raises", "hangs", "gone"))
    held = hangs.hold("hangs.csv")
    converters = [site.converter(module) for site in (good, raises, hangs, gone)]
    try:
        async with good.running(
            module, converters=converters, max_concurrency=1, convert_timeout=0.02
        ) as pool:
            hangs.drop("hangs.csv", "late")
            await good.unless_it_ends(pool, lambda: pool.stats.failed)
            pool._timeout = SAFETY_NET  # the others may be slow, on a machine that is
            raises.drop("bad.csv", "bad")
            for folder in ("done", "error"):
                (gone.box / folder).rmdir()
            gone.box.rmdir()
            for number in range(3):
                good.drop(f"{number}.csv", str(number))
            await good.unless_it_ends(pool, lambda: pool.stats.failed == 2)
            await good.unless_it_ends(pool, lambda: len(good.submitted) == 3)
            good.drop("after.csv", "after")
            await good.unless_it_ends(pool, lambda: len(good.submitted) == 4)
            assert good.texts("error") == []
            await good.unless_it_ends(pool, lambda: pool.stats.lost)
            good.drop("later.csv", "later")
            await good.unless_it_ends(pool, lambda: len(good.submitted) == 5)
        assert pool.stats.lost == ("gone",)
    finally:
        held.set()
    assert sorted(good.submitted[:3]) == ["0", "1", "2"]
    assert good.texts("done") == ["0", "1", "2", "after", "later"]
    assert raises.texts("error") == ["bad"]
    assert hangs.texts("error") == ["late"]


@pytest.mark.guarantee("CP-5")
def test_one_bad_converter_touches_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(check_bad_converters, ours, tmp_path)
    messages = [record.getMessage() for record in caplog.records]
    assert "converter 'gone' has lost its directory" in messages
    assert f"converter 'raises' could not convert {tmp_path / 'raises' / 'bad.csv'}" in messages


@pytest.mark.twin("CP-5")
@pytest.mark.parametrize(
    ("fault", "failure", "reason"),  # that the pool ended with
    [
        (
            ("if not self._up.is_set() or len(self._lost) == len(self._lines):", "if True:"),
            FileNotFoundError,
            "removed, moved or replaced",
        ),
        (("if fatal or (task", "if True or (task"), TimeoutError, "not converted within"),
        (
            (
                "isinstance(future.exception(), futures.BrokenExecutor) and not self._own",
                "future.exception()",
            ),
            ValueError,
            "no table in bad.csv",
        ),
    ],
    ids=["a directory that is lost ends all", "a timeout ends all", "what it raises is fatal"],
)
def test_a_fault_that_touches_others_is_caught(
    fault: tuple[str, str], failure: type[Exception], reason: str, tmp_path: Path
) -> None:
    broken = twin(FILE, fault)
    with pytest.raises(failure, match=reason):
        run(check_bad_converters, broken, tmp_path)


def test_a_pool_whose_directories_have_all_vanished_says_so(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        with pytest.raises(FileNotFoundError, match="removed, moved or replaced"):
            async with site.running(module) as pool:
                site.box.rename(root / "elsewhere")
                site.box.mkdir()
                (root / "elsewhere" / "x.csv").touch()
                await pool._over.wait()

    run(main, ours, tmp_path)


# Stopping.


@pytest.fixture
def warnings_of_loops(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.WARNING, "asyncio")
    yield
    assert [r for r in caplog.records if r.name == "asyncio"] == []


def test_stop_when_idle_leaves_nothing(tmp_path: Path, warnings_of_loops: None) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        async with site.running(module) as pool:
            pass
        await pool.stop()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    descriptors = set(Path("/proc/self/fd").iterdir()) if sys.platform == "linux" else set()
    run(main, ours, tmp_path)
    if sys.platform == "linux":
        assert set(Path("/proc/self/fd").iterdir()) == descriptors


async def check_stop_late(module: ModuleType, root: Path) -> None:
    """The conversions are abandoned, the submissions cancelled; the files stay."""
    site = Site(root)
    held = site.hold("converting.csv")
    cleaned_up = False

    async def submit(result: str) -> None:
        nonlocal cleaned_up
        await site.submit(result)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned_up = True

    pool = module.AsyncConverterPool([site.converter(module)], submit)
    running = asyncio.create_task(pool.run())
    for name in ("converting.csv", "submitting.csv"):
        site.drop(name, name)
    await site.until(lambda: site.submitted and len(site.started) == 2)
    await pool.stop(timeout=0.01)
    held.set()
    assert running.done()
    await running
    assert cleaned_up
    assert sorted(file.name for file in site.box.glob("*.csv")) == [
        "converting.csv",
        "submitting.csv",
    ]
    assert (site.texts("done"), site.texts("error")) == ([], [])
    async with site.running(module):
        await site.left()
    assert sorted(site.submitted) == ["converting.csv", "submitting.csv", "submitting.csv"]


@pytest.mark.guarantee("CP-1", "CP-4")
def test_what_stop_cancels_stays_for_the_next_start(
    tmp_path: Path, warnings_of_loops: None
) -> None:
    run(check_stop_late, ours, tmp_path)


@pytest.mark.twin("CP-1", "CP-4")
def test_blaming_a_file_for_a_stop_is_caught(tmp_path: Path) -> None:
    broken = twin(FILE, ("(task and task.cancelling())", "task is None"))
    with pytest.raises(AssertionError):
        run(check_stop_late, broken, tmp_path)


def test_stop_in_a_submit_only_requests(tmp_path: Path, warnings_of_loops: None) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)

        async def submit(result: str) -> None:
            await site.submit(result)
            await pool.stop()

        pool = module.AsyncConverterPool([site.converter(module)], submit, max_concurrency=1)
        for number in range(3):
            site.drop(f"{number}.csv", str(number))
        await pool.run()
        assert len(site.submitted) == 1
        assert site.texts("done") == site.submitted

    run(main, ours, tmp_path)


def test_a_cancelled_stop_stands(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        held = site.hold("x.csv")
        async with site.running(module) as pool:
            site.drop("x.csv", "x")
            await site.until(lambda: site.started)
            stopping = asyncio.create_task(pool.stop())
            await asyncio.sleep(0)
            stopping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stopping
            site.drop("y.csv", "y")
            held.set()
            await pool.stop()
        assert site.submitted == ["x"]
        assert (site.box / "y.csv").exists()

    run(main, ours, tmp_path)


def test_cancelling_run_leaves_the_files(tmp_path: Path, warnings_of_loops: None) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        held = site.hold("x.csv")
        pool = module.AsyncConverterPool([site.converter(module)], site.submit)
        running = asyncio.create_task(pool.run())
        site.drop("x.csv", "x")
        await site.until(lambda: site.started)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (site.box / "x.csv").exists()
        held.set()
        again = r"\Aa pool runs once: make a new AsyncConverterPool to run again\Z"
        with pytest.raises(RuntimeError, match=again):
            await pool.run()

    run(main, ours, tmp_path)


def test_a_body_that_is_cancelled_stops_the_pool(tmp_path: Path, warnings_of_loops: None) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        site.drop("x.csv", "x")

        async def body() -> None:
            async with site.running(module):
                await site.until(lambda: site.submitted)
                current = asyncio.current_task()
                assert current is not None
                current.cancel()
                await asyncio.Event().wait()

        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(body())
        assert site.texts("done") == ["x"]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main, ours, tmp_path)


def test_an_entry_that_is_cancelled_leaves_nothing(tmp_path: Path, warnings_of_loops: None) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        for turns in range(6):
            pool = module.AsyncConverterPool([site.converter(module)], site.submit)
            entry = asyncio.create_task(pool.__aenter__())
            for _ in range(turns):
                await asyncio.sleep(0)
            if entry.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await entry
            else:  # the watch had begun by then: how many turns that takes is up to its thread
                assert turns > 1
                await pool.__aexit__()
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main, ours, tmp_path)


def test_run_after_stop_returns_at_once(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        pool = module.AsyncConverterPool([site.converter(module)], site.submit)
        await pool.stop()
        await pool.run()
        async with site.running(module) as pool:
            with pytest.raises(RuntimeError, match="runs once"):
                await pool.run()
        await pool.run()

    run(main, ours, tmp_path)


def test_another_loop_is_refused(tmp_path: Path) -> None:
    elsewhere = r"\Athe pool runs on another event loop: call it there\Z"

    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        async with site.running(module) as pool:
            for call in (pool.run, pool.stop):
                with pytest.raises(RuntimeError, match=elsewhere):
                    await asyncio.to_thread(asyncio.run, call())

    run(main, ours, tmp_path)


def test_a_pool_that_runs_cannot_be_entered(tmp_path: Path) -> None:
    """Neither on its loop nor on another one, and nobody who tries disturbs it."""

    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        held = site.hold("x.csv")
        pool = module.AsyncConverterPool([site.converter(module)], site.submit)
        site.listen(pool)
        running = asyncio.create_task(pool.run())
        site.drop("x.csv", "x")
        await site.until(lambda: site.started)

        async def enter() -> None:
            async with pool:
                raise AssertionError("entered")

        with pytest.raises(RuntimeError, match="a pool runs once"):
            await enter()
        with pytest.raises(RuntimeError, match="the pool runs on another event loop"):
            await asyncio.to_thread(asyncio.run, enter())
        held.set()
        await site.left()
        await pool.stop()
        await running
        assert site.submitted == site.texts("done") == ["x"]

    run(main, ours, tmp_path)


async def check_second_entry(module: ModuleType, root: Path) -> None:
    """Within the first one, or at the same time: it is refused, and the first goes on."""
    site = Site(root)
    async with site.running(module) as pool:
        with pytest.raises(RuntimeError, match="a pool runs once"):
            await pool.__aenter__()
        site.drop("x.csv", "x")
        await site.left()
    pool = module.AsyncConverterPool([site.converter(module)], site.submit)
    site.listen(pool)
    entries = asyncio.gather(pool.__aenter__(), pool.__aenter__(), return_exceptions=True)
    first, second = await entries
    assert (first is pool, type(second)) == (True, RuntimeError), "it was let in"
    site.drop("y.csv", "y")
    await site.left()
    await pool.__aexit__()
    assert site.submitted == site.texts("done") == ["x", "y"]


async def check_run_that_comes_late(module: ModuleType, root: Path) -> None:
    """A task that is to `run` begins when the pool is being entered already."""
    site = Site(root)
    pool = module.AsyncConverterPool([site.converter(module)], site.submit)
    site.listen(pool)
    late = asyncio.create_task(pool.run())
    async with pool:
        assert late.done(), "it took the pool away"
        with pytest.raises(RuntimeError, match="a pool runs once"):
            await late
        site.drop("x.csv", "x")
        await site.left()
    assert site.submitted == ["x"]


@pytest.mark.parametrize("check", [check_second_entry, check_run_that_comes_late])
def test_a_pool_that_is_entered_is_not_taken_away(check: Check, tmp_path: Path) -> None:
    run(check, ours, tmp_path)


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        (check_second_entry, (" or self._runner is not None:", ":")),
        (
            check_run_that_comes_late,
            (" or self._runner not in (None, asyncio.current_task()):", ":"),
        ),
    ],
    ids=["entered twice", "run when it is entered"],
)
def test_taking_a_pool_away_is_caught(check: Check, fault: tuple[str, str], tmp_path: Path) -> None:
    broken = twin(FILE, fault)
    with pytest.raises((AssertionError, RuntimeError)):  # the latter on leaving
        run(check, broken, tmp_path)


def test_a_pool_that_was_stopped_can_be_entered_and_does_nothing(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        site.drop("x.csv", "x")
        pool = module.AsyncConverterPool([site.converter(module)], site.submit)
        await pool.stop()
        for _ in range(2):
            async with pool:
                pass
        assert (site.started, (site.box / "x.csv").exists()) == ([], True)

    run(main, ours, tmp_path)


async def check_left_elsewhere(module: ModuleType, root: Path) -> None:
    """From another loop it is refused, and what is under way goes on."""
    site = Site(root)
    held = site.hold("x.csv")
    async with site.running(module) as pool:
        site.drop("x.csv", "x")
        await site.until(lambda: site.started)
        with pytest.raises(RuntimeError, match="the pool runs on another event loop"):
            await asyncio.to_thread(asyncio.run, pool.__aexit__())
        held.set()
        await site.unless_it_ends(pool, lambda: "_release" in site.calls)
        assert site.submitted == site.texts("done") == ["x"], "it was cancelled"


def test_leaving_on_another_loop_is_refused(tmp_path: Path) -> None:
    run(check_left_elsewhere, ours, tmp_path)


def test_a_loop_that_cancels_what_is_anothers_is_caught(tmp_path: Path) -> None:
    check = (
        "        self._check_loop()  # before anything is cancelled from a loop that is not its own"
    )
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        run(check_left_elsewhere, twin(FILE, (check, "")), tmp_path)


@pytest.mark.parametrize("timeout", [None, 30.0])
def test_a_pool_that_has_ended_is_held_by_no_timer(timeout: float | None, tmp_path: Path) -> None:
    async def stopped_in_submit(module: ModuleType, site: Site) -> "weakref.ref[Any]":
        async def submit(result: str) -> None:
            await pool.stop(timeout)

        pool = module.AsyncConverterPool([site.converter(module)], submit)
        await pool.run()
        return weakref.ref(pool)

    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        site.drop("x.csv", "x")
        ended = await stopped_in_submit(module, site)
        assert site.texts("done") == ["x"]
        gc.collect()
        assert ended() is None

    run(main, ours, tmp_path)


def test_stop_waits_for_half_a_minute_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    async def main() -> None:  # with no net below: it would hang by the same clock
        site, clock = Site(tmp_path), Clock(stopped=True)
        held = site.hold("x.csv")
        async with site.running() as pool:
            site.drop("x.csv", "x")
            await site.until(lambda: site.started)
            stopping = asyncio.create_task(pool.stop())
            await asyncio.sleep(0)
            await clock.forward(29.0)
            assert pool.stats.abandoned == 0
            await clock.forward(1.0)
            assert pool.stats.abandoned == 1
            await stopping
        held.set()
        assert (site.box / "x.csv").exists()

    asyncio.run(main())


def test_stop_with_no_time_cancels_at_once(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        site.hold("x.csv")
        async with site.running(module) as pool:
            site.drop("x.csv", "x")
            await site.until(lambda: site.started)
            await pool.stop(timeout=0)
            assert (pool.stats.running, pool.stats.abandoned) == (0, 1)
        assert (site.box / "x.csv").exists()

    run(main, ours, tmp_path)


@pytest.mark.parametrize("timeout", [None, math.inf])
def test_stop_with_no_limit_waits(timeout: float | None, tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        held = site.hold("x.csv")
        async with site.running(module) as pool:
            site.drop("x.csv", "x")
            await site.until(lambda: site.started)
            stopping = asyncio.create_task(pool.stop(timeout))
            await asyncio.sleep(0)
            held.set()
            await stopping
        assert site.submitted == ["x"]

    run(main, ours, tmp_path)


@pytest.mark.parametrize("entered", [False, True], ids=["run", "entered"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_submit_leaves_the_loop(
    error: type[BaseException], entered: bool, tmp_path: Path, warnings_of_loops: None
) -> None:
    """Once: what ends the loop then, such as asyncio.run, cancels the rest undisturbed."""
    cancelled: list[BaseException] = []

    async def main() -> None:
        site = Site(tmp_path)

        async def submit(result: str) -> None:
            raise error

        site.drop("x.csv", "x")
        pool = ours.AsyncConverterPool([site.converter()], submit)
        try:
            if entered:
                async with pool:
                    await asyncio.Event().wait()
            else:
                await pool.run()
        except asyncio.CancelledError as end:
            cancelled.append(end)
            raise

    with pytest.raises(error):
        asyncio.run(main())
    assert (tmp_path / "in" / "x.csv").exists()
    assert len(cancelled) == 1
    gc.collect()  # a task that was not asked how it ended says so now


def test_an_interrupt_of_run_itself_leaves_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(line: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ours, "_prepare", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start(converter_of(tmp_path))
    gc.collect()


# Bad input.


def plain(path: Path) -> str:
    return path.name


async def coroutine(path: Path) -> str:
    return path.name


class Callable_:
    async def __call__(self, result: str) -> None:
        pass

    def plain(self, result: str) -> None:
        pass


class Awaitable_:
    def __call__(self, result: str) -> Awaitable[None]:
        return submit(result)


def converter_of(tmp_path: Path, **changes: Any) -> "Converter[str]":
    settings = {"name": "c", "watch_dir": tmp_path, "patterns": ("*.csv",), "convert": plain}
    return Converter(**{**settings, **changes})


PLAIN = "convert must be a plain function, which runs in a thread, got"
BY_DEF = "define it with `def`, and await in submit"
VISIBLE = "patterns must match visible names, as '[*].csv' does, not "


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"name": 3}, TypeError, "name must be of type str, got 3"),
        ({"name": ""}, ValueError, "name must not be empty, got ''"),
        ({"watch_dir": 3}, TypeError, "watch_dir must be of type str or PathLike, got 3"),
        ({"patterns": "*.csv"}, TypeError, "patterns must be .*, not '[*].csv'"),
        ({"patterns": ()}, ValueError, f"{VISIBLE}''"),
        ({"patterns": ("",)}, ValueError, f"{VISIBLE}''"),
        ({"patterns": (".x",)}, ValueError, f"{VISIBLE}'.x'"),
        ({"patterns": ("a/b",)}, ValueError, f"{VISIBLE}'a/b'"),
        ({"patterns": (3,)}, TypeError, "patterns must be strings.*3.*"),
        ({"convert": 3}, TypeError, f"{PLAIN} 3: {BY_DEF}"),
        ({"convert": coroutine}, TypeError, f"{PLAIN} <function coroutine .*>: {BY_DEF}"),
        ({"convert": partial(coroutine)}, TypeError, f"{PLAIN} .*: {BY_DEF}"),
        ({"convert": Callable_()}, TypeError, f"{PLAIN} .*: {BY_DEF}"),
        ({"priority": "1"}, TypeError, "priority must be of type int, got '1'"),
        ({"priority": True}, TypeError, "priority must be of type int, got True"),
        ({"done_dir": 3}, TypeError, "done_dir must be of type str or PathLike or NoneType, got 3"),
        (
            {"error_dir": b"error"},
            TypeError,
            "error_dir must be of type str or PathLike or NoneType, got b'error'",
        ),
    ],
)
def test_a_converter_refuses_what_cannot_be_meant(
    changes: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=rf"\A{message}\Z"):
        converter_of(tmp_path, **changes)


@pytest.mark.guarantee("CP-1")
def test_directories_can_be_named_by_strings(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site, done, failed = Site(root), root / "converted", root / "failed"
        for folder in (done, failed):
            folder.mkdir()
        converter = module.Converter(
            "in", str(site.box), ["*.csv"], site.convert, done_dir=str(done), error_dir=str(failed)
        )
        async with site.running(module, converters=[converter]):
            site.drop("a.csv", "good")
            site.drop("b.csv", "bad")
            await site.left()
        assert [file.name for file in done.iterdir()] == ["a.csv"]
        assert sorted(file.name for file in failed.iterdir()) == ["b.csv", "b.csv.error.json"]
        assert list(site.box.iterdir()) == []  # neither done nor error

    run(main, ours, tmp_path)


@pytest.mark.guarantee("CP-1")
def test_patterns_may_come_from_an_iterator(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        converter = site.converter(module, patterns=(f"*.{kind}" for kind in ("csv", "txt")))
        for _ in range(2):
            async with site.running(module, converters=[converter]):
                site.drop("x.csv", "x")
                await site.left()
        assert site.submitted == ["x", "x"]

    run(main, ours, tmp_path)


def test_an_empty_name_of_a_directory_is_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is for a Path: it does not mean that none was named."""

    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        monkeypatch.chdir(site.staging)
        converter = site.converter(module, done_dir="", error_dir="")
        async with site.running(module, converters=[converter]):
            site.drop("a.csv", "good")
            site.drop("b.csv", "bad")
            await site.left()
        assert {"a.csv", "b.csv"} <= {file.name for file in site.staging.iterdir()}
        assert list(site.box.iterdir()) == []

    run(main, ours, tmp_path)


async def submit(result: str) -> None:
    pass


COROUTINE = "submit must be a coroutine function, got"
BY_ASYNC_DEF = "define it with `async def`, and put what blocks into asyncio.to_thread"
DURATION = "convert_timeout must be 0 or more seconds, got"
NUMBER = "convert_timeout must be of type int or float or NoneType"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"converters": []},
            ValueError,
            "converters must hold one Converter at least, got none",
        ),
        ({"converters": 3}, TypeError, "converters must be of type Iterable, got 3"),
        ({"converters": [3]}, TypeError, "converters must be of type Converter, got 3"),
        ({"submit": 3}, TypeError, f"{COROUTINE} 3: {BY_ASYNC_DEF}"),
        ({"submit": print}, TypeError, f"{COROUTINE} <.* print>: {BY_ASYNC_DEF}"),
        ({"submit": plain}, TypeError, f"{COROUTINE} <function plain .*>: {BY_ASYNC_DEF}"),
        ({"submit": partial(plain)}, TypeError, f"{COROUTINE} .*: {BY_ASYNC_DEF}"),
        ({"submit": Callable_().plain}, TypeError, f"{COROUTINE} .*: {BY_ASYNC_DEF}"),
        ({"max_concurrency": 0}, ValueError, "max_concurrency must be 1 or more, got 0"),
        ({"max_concurrency": 1.0}, TypeError, "max_concurrency must be of type int, got 1.0"),
        ({"executor": 4}, TypeError, "executor must be of type Executor or NoneType, got 4"),
        (
            {"convert_timeout": 0},
            ValueError,
            "convert_timeout must be above 0, or None for no limit, got 0",
        ),
        ({"convert_timeout": -1}, ValueError, f"{DURATION} -1"),
        ({"convert_timeout": math.nan}, ValueError, f"{DURATION} nan"),
        ({"convert_timeout": "1"}, TypeError, f"{NUMBER}, got '1'"),
        ({"convert_timeout": ""}, TypeError, f"{NUMBER}, got ''"),
    ],
)
def test_a_pool_refuses_what_cannot_be_meant(
    changes: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    settings = {"converters": [converter_of(tmp_path)], "submit": submit, **changes}
    with pytest.raises(error, match=rf"\A{message}\Z"):
        AsyncConverterPool(settings.pop("converters"), settings.pop("submit"), **settings)


def test_submit_may_be_whatever_gives_an_awaitable(tmp_path: Path) -> None:
    queue = asyncio.Queue[str]()
    kinds: list[Callable[[str], Awaitable[None]]] = [
        submit,
        partial(submit),
        Callable_(),
        partial(Callable_()),
        queue.put,
        lambda result: submit(result),
        Awaitable_(),
    ]
    for each in kinds:
        AsyncConverterPool([converter_of(tmp_path)], each)


def test_what_a_lambda_gives_is_awaited(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        pool = module.AsyncConverterPool(
            [site.converter(module)], lambda result: site.submit(f"{result}!")
        )
        site.listen(pool)
        async with pool:
            site.drop("x.csv", "x")
            await site.left()
        assert (site.submitted, site.texts("done")) == (["x!"], ["x"])

    run(main, ours, tmp_path)


@pytest.mark.parametrize("timeout", [-1, math.nan])
def test_a_bad_timeout_does_not_stop(timeout: float, tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        async with site.running(module) as pool:
            with pytest.raises(ValueError, match=r"\Atimeout must be 0 or more seconds, got"):
                await pool.stop(timeout)
            with pytest.raises(TypeError, match=r"\Atimeout must be of type int or float, got '1'"):
                await pool.stop("1")
            site.drop("x.csv", "x")
            await site.left()

    run(main, ours, tmp_path)


def refused(*converters: "Converter[str]", match: str) -> None:
    with pytest.raises(ValueError, match=rf"\A{match}\Z"):
        AsyncConverterPool(converters, submit)


def test_converters_that_share_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    one = converter_of(tmp_path / "in", name="one", patterns=("*.csv", "*.txt"))
    both = f"converters 'one' and 'two' both watch {str(tmp_path / 'in')!r}, and a name can match "
    for folder, patterns, pair in (
        ("in", ("*.csv",), ("*.csv", "*.csv")),
        ("in", ("report*",), ("*.csv", "report*")),
        ("link", ("*.xml", "a?.t?t"), ("*.txt", "a?.t?t")),
        ("in/../in", ("*",), ("*.csv", "*")),
    ):
        other = converter_of(tmp_path / folder, name="two", patterns=patterns)
        matches = "{!r} as well as {!r}: make them exclude each other".format(*pair)
        refused(one, other, match=both + re.escape(matches))
    named_alike = converter_of(tmp_path / "in", name="one", patterns=("*.xml",))
    refused(one, named_alike, match="converters must have different names, got 'one' twice")
    for folder, patterns in (
        ("in", ("*.xml", "[!c]*.dat")),
        ("in", ("a\n*.cs",)),  # a line end is a letter like others
        ("other", ("*.csv",)),
    ):
        other = converter_of(tmp_path / folder, name="two", patterns=patterns)
        AsyncConverterPool([one, other], submit)


def test_moving_files_to_where_they_are_converted_again_is_refused(tmp_path: Path) -> None:
    again = "which might convert its files again: name another directory than"
    itself = f"of converter 'c' is watched by 'c', {again} {str(tmp_path)!r}"
    refused(converter_of(tmp_path, done_dir=tmp_path), match=f"done_dir {itself}")
    refused(converter_of(tmp_path, error_dir=tmp_path), match=f"error_dir {itself}")
    nested = converter_of(tmp_path / "done", name="nested")
    by_nested = f"is watched by 'nested', {again} {str(tmp_path / 'done')!r}"
    refused(converter_of(tmp_path), nested, match=f"done_dir of converter 'c' {by_nested}")


@example(one="a\nb", other="ab", sets=[])
@given(
    one=st.text("ab*?", max_size=4),
    other=st.text("ab*?", max_size=4),
    sets=st.lists(st.sampled_from(["[ab]", "[!a]", "[]a]"]), max_size=2),
)
def test_patterns_overlap_if_a_name_matches_both(one: str, other: str, sets: list[str]) -> None:
    from fnmatch import fnmatchcase
    from itertools import product

    with_sets = "".join(sets) + one
    names = ["".join(letters) for n in range(8) for letters in product("ab", repeat=n)]
    exact = any(fnmatchcase(name, one) and fnmatchcase(name, other) for name in names)
    assert ours._overlap(one, other) == exact == ours._overlap(other, one)
    if any(fnmatchcase(name, with_sets) and fnmatchcase(name, other) for name in names):
        assert ours._overlap(with_sets, other)  # it may err to the safe side


def missed(module: ModuleType, one: str, other: str) -> list[str]:
    """The names that match both, if they are said not to overlap; one bracket may be a letter."""
    from fnmatch import fnmatchcase
    from itertools import product

    if module._overlap(one, other):
        return []
    names = ["".join(letters) for n in range(5) for letters in product("ab![]", repeat=n)]
    return [name for name in names if fnmatchcase(name, one) and fnmatchcase(name, other)]


@pytest.mark.guarantee("CP-1")
@example(one="[]", other="??")
@example(one="[!]", other="???")
@example(one="bb[]", other="*[*")
@given(one=st.text("ab*?[!]", max_size=4), other=st.text("ab*?[!]", max_size=4))
def test_a_set_that_is_not_closed_hides_no_overlap(one: str, other: str) -> None:
    assert missed(ours, one, other) == missed(ours, other, one) == []


@pytest.mark.twin("CP-1")
def test_a_set_that_ends_with_its_own_first_letter_is_caught() -> None:
    broken = twin(FILE, (r"\[!?+\]?+", r"\[!?\]?"))
    assert missed(broken, "[]", "??") == ["[]"]


def start(*converters: "Converter[str]") -> None:
    asyncio.run(AsyncConverterPool(converters, submit).run())


@pytest.mark.parametrize(
    ("what", "name", "error", "problem"),
    [
        ("watch_dir", "none", FileNotFoundError, "is missing: create it"),
        ("watch_dir", "file", NotADirectoryError, "is no directory: name one"),
        ("done_dir", "none", FileNotFoundError, "is missing: create it"),
        ("error_dir", "file", NotADirectoryError, "is no directory: name one"),
    ],
)
def test_directories_that_cannot_be_used_are_refused_on_start(
    what: str, name: str, error: type[OSError], problem: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "in").mkdir()
    with pytest.raises(error) as caught:
        start(converter_of(**{"tmp_path": tmp_path / "in", what: tmp_path / name}))
    assert caught.value.strerror == f"{what} of converter 'c' {problem}"
    assert caught.value.filename == str(tmp_path / name)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("make", "error", "problem"),
    [
        (Path.touch, NotADirectoryError, "is no directory: name one"),
        (lambda path: path.symlink_to("nowhere"), FileNotFoundError, "is missing: create it"),
    ],
    ids=["a file", "a link to nothing"],
)
def test_what_is_in_the_place_of_done_is_refused_on_start(
    make: Callable[[Path], None], error: type[OSError], problem: str, tmp_path: Path
) -> None:
    make(tmp_path / "done")
    with pytest.raises(error) as caught:
        start(converter_of(tmp_path))
    assert caught.value.strerror == f"done_dir of converter 'c' {problem}"
    assert caught.value.filename == str(tmp_path / "done")


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_another_file_system_is_refused_on_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"/dev/shm") as caught:
        start(converter_of(tmp_path, done_dir=Path("/dev/shm")))
    problem = "is on another file system than watch_dir: name one on it"
    assert caught.value.strerror == f"done_dir of converter 'c' {problem}"
    assert caught.value.errno == errno.EXDEV


@pytest.mark.parametrize("missing", [os.R_OK, os.W_OK, os.X_OK], ids=["read", "write", "enter"])
def test_each_right_to_a_directory_is_needed(
    missing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a user would see it who lacks one of the rights; the superuser has all."""

    def access(path: Path, mode: int) -> bool:
        return path != tmp_path / "done" or not mode & missing

    monkeypatch.setattr(os, "access", access)
    with pytest.raises(PermissionError) as caught:
        start(converter_of(tmp_path))
    problem = "must be readable and writable: change its mode"
    assert caught.value.strerror == f"done_dir of converter 'c' {problem}"


def test_a_directory_that_cannot_be_written_is_refused_on_start() -> None:
    """In a process of its own, since the superuser may write everywhere.

    And in a directory of its own: pytest closes the one above its own to others at each start.
    """
    with tempfile.TemporaryDirectory() as folder:
        code = f"""
            import asyncio, os
            from pathlib import Path
            from reference_impl.queues.async_converter_pool import AsyncConverterPool, Converter

            async def submit(result):
                pass

            os.chmod({folder!r}, 0o555)
            if os.getuid() == 0:
                os.setuid(65534)
            converter = Converter("c", Path({folder!r}), ("*",), len)
            try:
                asyncio.run(AsyncConverterPool([converter], submit).run())
            except PermissionError as error:
                print(error)
        """
        printed = run_python(textwrap.dedent(code)).stdout
    assert "watch_dir of converter 'c' must be readable and writable: change its mode" in printed
    assert folder in printed


def test_a_start_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """The second directory is missing: the first is not watched."""

    async def main() -> None:
        pool = AsyncConverterPool(
            [converter_of(tmp_path), converter_of(tmp_path / "none", name="d")], submit
        )
        with pytest.raises(FileNotFoundError, match="watch_dir of converter 'd' is missing"):
            async with pool:
                raise AssertionError("entered")
        assert asyncio.all_tasks() == {asyncio.current_task()}
        with pytest.raises(RuntimeError, match="a pool runs once"):
            await pool.run()

    asyncio.run(main())


@pytest.mark.parametrize("names", [["c"], ["c", "d"]], ids=["the only one", "one of two"])
def test_a_watch_that_cannot_begin_ends_the_start(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its own error, and not with what caused that."""
    enter = DirectoryWatch.__aenter__

    async def no_watches_left(self: DirectoryWatch) -> DirectoryWatch:
        begun.append(self)
        if len(begun) < len(names):
            return await enter(self)
        raise OSError(24, "inotify instance limit reached") from ValueError("no more")

    async def main() -> None:
        converters = [converter_of(tmp_path / name, name=name) for name in names]
        for name in names:
            (tmp_path / name).mkdir()
        monkeypatch.setattr(DirectoryWatch, "__aenter__", no_watches_left)
        with pytest.raises(OSError, match="instance limit"):
            async with AsyncConverterPool(converters, submit):
                raise AssertionError("entered")
        assert asyncio.all_tasks() == {asyncio.current_task()}

    begun: list[DirectoryWatch] = []
    asyncio.run(main())
