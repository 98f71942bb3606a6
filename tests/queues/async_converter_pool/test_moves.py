"""What becomes of a file: done, or error with the reason, once and never lost (CP-1)."""

import asyncio
import csv
import datetime as dt
import json
import os
from pathlib import Path
from types import ModuleType

import pytest

import reference_impl.queues.async_converter_pool as ours
from tests.kit.primitives import rebind
from tests.kit.proofs import Proof, each_proof, each_twin
from tests.kit.twins import Twin
from tests.queues.async_converter_pool import faults
from tests.queues.async_converter_pool.helpers import (
    COMPONENT,
    DATA,
    Site,
    Undecided,
    looped,
    on_a_loop,
    run,
    until,
)


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

    on_a_loop(main())


@looped
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


@looped
async def check_long_names(module: ModuleType, root: Path) -> None:
    """A name that leaves no room for a suffix, or for .error.json."""
    site = Site(root)
    names = ["é" * 125 + ".csv", "x" * 251 + ".csv", "x" * 250 + "y.csv"]
    async with site.running(module) as pool:
        for turn in range(2):
            for name in names:
                site.drop(name, f"bad {turn} {name}")
                await until(lambda: pool.stats.held or not site.files())
                assert not pool.stats.held, "it could not be moved"
    assert site.texts("error") == sorted(
        f"bad {turn} {name}" for turn in range(2) for name in names
    )
    files = list((site.box / "error").glob("*.error.json"))
    assert sorted(json.loads(file.read_text())["file"] for file in files) == sorted(names * 2)


@looped
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
        await until(lambda: not site.files() and not pool.stats.running)
    assert sorted(site.submitted) == ["deleted.csv", "moved.csv"]
    assert (site.texts("done"), site.texts("error")) == ([], [])
    assert (pool.stats.converted, pool.stats.failed, pool.stats.held) == (0, 0, 0)


@looped
async def check_dated_back(module: ModuleType, root: Path) -> None:
    """Copies that keep the date set it after closing: the watch hears nothing of that."""
    site = Site(root)
    held = site.hold("a.csv", "b.csv")
    async with site.running(module, max_concurrency=1) as pool:
        await site.begin("a.csv", "a")
        site.drop("b.csv", "b")
        await until(lambda: pool.stats.waiting == 1)
        for name in ("a.csv", "b.csv"):
            os.utime(site.box / name, (1e9, 1e9))
        held.set()
        await until(lambda: not pool.stats.running and not pool.stats.waiting)
    assert sorted(site.submitted) == ["a", "b"]
    assert site.texts("done") == ["a", "b"]


@looped
async def check_submit_raises(module: ModuleType, root: Path) -> None:
    site = Site(root)

    async def submit(result: str) -> None:
        if result == "refused":
            raise ConnectionError("the server says no")
        if result == "cancelled":
            raise asyncio.CancelledError
        await site.submit(result)

    async with site.running(module, submit=submit, max_concurrency=1) as pool:
        for text in ("refused", "cancelled", "accepted"):
            site.drop(f"{text}.csv", text)
        await site.unless_it_ends(lambda: not site.files())
    assert (site.submitted, site.texts("done")) == (["accepted"], ["accepted"])
    assert site.texts("error") == ["cancelled", "refused"]
    reason = json.loads((site.box / "error" / "refused.csv.error.json").read_text())
    assert (reason["stage"], reason["error"]) == ("submit", "ConnectionError")
    assert reason["message"] == "the server says no"
    assert "the server says no" in "".join(reason["traceback"])
    assert reason["failed_at"].endswith("+00:00")
    assert pool.stats.failed == 2


PROOFS = [
    Proof(
        "CP-1",
        check_clashes,
        [
            Twin(
                "overwrites a name that is taken",
                faults.overwrites(),
                "AssertionError: site.texts(",
            )
        ],
    ),
    Proof("CP-1", check_long_names),
    Proof(
        "CP-1",
        check_consumed,
        [
            Twin(
                "takes a converter that moves its file for a failed one",
                faults.needs_its_file(),
                "AssertionError: sorted(site.submitted) ==",
            )
        ],
    ),
    Proof("CP-1", check_dated_back),
    Proof(
        "CP-1",
        check_submit_raises,
        [
            Twin(
                "takes a refusal for a submission",
                faults.swallows_refusals(),
                "AssertionError: site.submitted",
            )
        ],
    ),
]


@each_proof(PROOFS)
def test_each_file_is_converted_once_and_moved(proof: Proof, tmp_path: Path) -> None:
    proof.hold(ours, tmp_path)


@each_twin(PROOFS)
def test_a_file_that_is_lost_is_caught(proof: Proof, twin: Twin, tmp_path: Path) -> None:
    proof.must_fail(twin, COMPONENT, tmp_path)


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
        async with site.running(
            module, converters=[converter], submit=submit, max_concurrency=1
        ) as pool:
            await site.begin("first.csv", "1")
            file = site.drop("x.csv", "x")
            await until(lambda: pool.stats.waiting == 1)
            if when == "it waits":
                file.unlink()
            first.set()
            if when == "it is converted":
                await until(lambda: "x.csv" in site.started)
                file.rename(root / "x.csv")
            held.set()
            site.drop("last.csv", "2")
            await until(lambda: "2" in site.submitted)
        assert site.submitted == ["1", *(["x"] if when == "it is submitted" else []), "2"]
        assert (pool.stats.converted, pool.stats.failed, pool.stats.held) == (2, 0, 0)
        gone = [] if when == "it waits" else [f"{file} has gone before it was moved"]
        assert [record.getMessage() for record in caplog.records] == gone

    run(main, ours, tmp_path)


def test_why_the_result_of_a_file_that_is_gone_was_refused_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """There is no file to put the reason beside."""
    refusal, refused = Undecided("the server says no"), list[str]()

    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)

        async def submit(result: str) -> None:
            refused.append(result)
            raise refusal

        def convert(path: Path) -> str:
            path.unlink()
            return "x"

        async with site.running(
            module, converters=[site.converter(module, convert=convert)], submit=submit
        ) as pool:
            site.drop("x.csv", "x")
            await site.unless_it_ends(lambda: refused and not pool.stats.running)
        assert site.texts("error") == []

    run(main, ours, tmp_path)
    (record,) = caplog.records
    assert record.getMessage() == f"{tmp_path / 'in' / 'x.csv'} has gone before it was moved"
    assert record.exc_info
    assert object.__repr__(refusal) in str(record.exc_info[1])


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


class WallClock(dt.datetime):
    """A fixed moment, on a machine whose local time is five hours ahead of UTC."""

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> "WallClock":
        moment = cls(2026, 1, 2, 3, 4, 5, 67, tzinfo=dt.UTC)
        return moment if tz is dt.UTC else (moment + dt.timedelta(hours=5)).replace(tzinfo=tz)


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
def test_the_suffix_is_the_time_in_utc(name: str, second: str, tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        undo = rebind(module, dt, datetime=WallClock)
        converter = site.converter(module, patterns=("*",))
        async with site.running(module, converters=[converter]) as pool:
            for turn in ("1", "2"):
                site.drop(name, turn)
                await until(lambda: pool.stats.held or not (site.box / name).exists())
        undo()
        assert {file.name: file.read_text() for file in (site.box / "done").iterdir()} == {
            name: "1",
            second: "2",
        }

    run(main, ours, tmp_path)


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


def test_what_a_lambda_gives_is_awaited(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        async with site.running(module, submit=lambda result: site.submit(f"{result}!")):
            site.drop("x.csv", "x")
            await site.left()
        assert (site.submitted, site.texts("done")) == (["x!"], ["x"])

    run(main, ours, tmp_path)
