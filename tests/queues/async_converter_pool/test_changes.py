"""Files that are written or replaced while they wait, are converted or are moved (CP-1)."""

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import reference_impl.queues.async_converter_pool as ours
from tests.kit.proofs import Proof, each_proof, each_twin
from tests.kit.twins import Twin
from tests.queues.async_converter_pool import faults
from tests.queues.async_converter_pool.helpers import (
    COMPONENT,
    Site,
    Told,
    looped,
    run,
    told,
    until,
)


@looped
async def check_half_written(module: ModuleType, root: Path) -> None:
    """A file that is written to again while it waits is read when it has been closed."""
    site = Site(root)
    first, file = site.hold("first.csv"), site.box / "slow.csv"
    site.drop("first.csv", "1")
    with told(module):
        async with site.running(module, max_concurrency=1) as pool:
            await until(lambda: site.started)
            Told.entered.tell(site.drop("slow.csv", "HEAD;"))
            await until(lambda: pool.stats.waiting == 1)
            with file.open("a") as half:
                half.write("half;")
                half.flush()
                first.set()
                await until(lambda: len(site.submitted) == 1)
                Told.entered.tell(site.drop("last.csv", "2"))
                await until(lambda: "last.csv" in site.started)
                assert "slow.csv" not in site.started
                half.write("END")
            Told.entered.tell(file)
            await until(lambda: len(site.submitted) == 3)
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
                await until(lambda: site.submitted)
                assert site.started == ["whole.csv"]
                during.write("END")
            before.write("END of the early one")
            before.close()
            await until(lambda: len(site.submitted) == 3)
        assert sorted(site.submitted) == ["HEAD;END", "HEAD;END of the early one", "whole"]

    run(main, ours, tmp_path)


@pytest.mark.guarantee("CP-1")
@pytest.mark.parametrize("replaced", [False, True], ids=["the same file", "another one by then"])
def test_a_file_that_is_being_written_when_it_was_converted_waits_for_its_closing(
    replaced: bool, tmp_path: Path, warnings_of_loops: None
) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        held, file = site.hold("x.csv"), site.drop("x.csv", "old;")
        async with site.running(module) as pool:
            await until(lambda: site.started)
            if replaced:
                Told.entered.tell(site.drop("x.csv", "a new one;"))
                await until(lambda: Told.entered.taken == 2)
            with file.open("a") as growing:
                growing.write("HEAD;")
                growing.flush()
                held.set()
                await until(lambda: not pool.stats.running)
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
            await until(lambda: site.started)
            file = site.drop("x.csv", "old;old")
            Told.entered.tell(file)
            await until(lambda: pool.stats.waiting == 1)
            with file.open("r+") as half:
                half.write("new;")
                half.flush()
                later = file.stat().st_mtime_ns + 10**9  # whatever the clock's steps are
                os.utime(file, ns=(later, later))
                first.set()
                await until(lambda: not pool.stats.running)
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


@looped
async def check_replaced(module: ModuleType, root: Path) -> None:
    """A producer replaces a file while it is converted, and another one while it fails."""
    site = Site(root)
    early = site.hold("good.csv", "bad.csv")
    async with site.running(module):
        for kind in ("good", "bad"):
            site.drop(f"{kind}.csv", f"{kind} old")
        await until(lambda: len(site.started) == 2)
        for kind in ("good", "bad"):
            site.drop(f"{kind}.csv", f"{kind} and new")
        early.set()
        await site.left()
    assert site.submitted == ["good and new"]
    assert (site.texts("done"), site.texts("error")) == (["good and new"], ["bad and new"])


@looped
async def check_replaced_in_submit(module: ModuleType, root: Path) -> None:
    """Replaced when it was read already: both are submitted, and the new one is kept."""
    site = Site(root)

    async def submit(result: str) -> None:
        if not site.submitted:
            site.drop("x.csv", "new and longer")
        await site.submit(result)

    async with site.running(module, submit=submit):
        site.drop("x.csv", "old")
        await site.left()
    assert site.submitted == ["old", "new and longer"]
    assert site.texts("done") == ["new and longer"]


@looped
async def check_replaced_in_the_move(module: ModuleType, root: Path) -> None:
    """Replaced in the last moment, and a third one comes before the second is put back."""
    site = Site(root)
    rename: Callable[[str, str], None] = vars(module)["rename_new"]
    moves = iter(["second", ""])

    def slow_rename(source: str, target: str) -> None:
        if Path(target).parent.name == "done" and (text := next(moves, "")):
            site.drop("x.csv", text)
            rename(source, target)
            site.drop("x.csv", "the third")
        else:
            rename(source, target)

    with pytest.MonkeyPatch.context() as patch:
        async with site.running(module):
            patch.setitem(vars(module), "rename_new", slow_rename)
            site.drop("x.csv", "1")
            await until(lambda: site.submitted)
            await site.left()
    assert sorted(site.submitted) == ["1", "second", "the third"]
    assert site.texts("done") == ["second", "the third"]


PROOFS = [
    Proof(
        "CP-1",
        check_half_written,
        [
            Twin(
                "sees no difference between half a file and all of it",
                faults.sees_no_difference(),
                "AssertionError: slow.csv",
            )
        ],
    ),
    Proof(
        "CP-1",
        check_replaced,
        [
            Twin(
                "submits a result before it looks again",
                faults.submits_at_once(),
                "AssertionError: site.submitted ==",
            ),
        ],
    ),
    Proof(
        "CP-1",
        check_replaced_in_submit,
        [
            Twin(
                "sees no difference after the submission",
                faults.sees_no_difference(),
                "AssertionError: site.submitted ==",
            )
        ],
    ),
    Proof(
        "CP-1",
        check_replaced_in_the_move,
        [
            Twin(
                "puts a file back over another",
                faults.puts_back_over_another(),
                "AssertionError: sorted(site.submitted) ==",
            )
        ],
    ),
]


@each_proof(PROOFS)
def test_no_version_of_a_file_is_lost_or_read_half(proof: Proof, tmp_path: Path) -> None:
    proof.hold(ours, tmp_path)


@each_twin(PROOFS)
def test_a_version_that_is_lost_is_caught(proof: Proof, twin: Twin, tmp_path: Path) -> None:
    proof.must_fail(twin, COMPONENT, tmp_path)
