"""Files that were dealt with and cannot be moved: hidden, and never submitted again (CP-6)."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import reference_impl.queues.async_converter_pool as ours
from tests.kit.proofs import Proof, each_proof, each_twin
from tests.kit.twins import Fault, Twin
from tests.queues.async_converter_pool import faults
from tests.queues.async_converter_pool.helpers import COMPONENT, Site, looped, run, until


def hidden_in(site: Site) -> list[str]:
    return sorted(file.name for file in site.box.iterdir() if file.name.startswith("."))


@looped
async def check_held(module: ModuleType, root: Path) -> None:
    """Without a done_dir: the next start moves the file, and does not convert it again."""
    site = Site(root)
    async with site.running(module, max_concurrency=1) as pool:
        (site.box / "done").rmdir()
        for number in (1, 2):  # the second meets the first
            site.drop("a.csv", f"a{number}")
            await site.unless_it_ends(lambda number=number: pool.stats.held == number)  # type: ignore[misc]
            assert site.files() == [], "it stays in sight"
        (site.box / "done").mkdir()
        assert (pool.stats.converted, pool.stats.failed) == (0, 0)
        site.drop("b.csv", "b")
        await site.unless_it_ends(lambda: pool.stats.converted)
    hidden = hidden_in(site)
    assert len(hidden) == 2
    assert hidden[-1] == ".a.csv.submitted"
    async with site.running(module) as pool:
        await site.unless_it_ends(lambda: pool.stats.converted == 2)
    assert site.submitted == ["a1", "a2", "b"], "it was submitted again"
    assert site.texts("done") == ["a1", "a2", "b"]
    assert hidden_in(site) == []


@looped
async def check_held_failure(module: ModuleType, root: Path) -> None:
    """The same for a file that failed; its reason is in the log, and says so."""
    site = Site(root)
    async with site.running(module) as pool:
        (site.box / "error").rmdir()
        site.drop("x.csv", "bad")
        await site.unless_it_ends(lambda: pool.stats.held)
        (site.box / "error").mkdir()
    assert hidden_in(site) == [".x.csv.failed"]
    async with site.running(module) as pool:
        await site.unless_it_ends(lambda: pool.stats.failed)
    assert site.started == ["x.csv"], "it was converted again"
    assert site.texts("error") == ["bad"]
    reason = json.loads((site.box / "error" / "x.csv.error.json").read_text())
    assert "log" in reason["message"]


def hides_nothing() -> Fault:
    """A file that cannot be moved stays in sight, and is done again."""

    def move(rename: Callable[[str, str], None], source: str, target: str) -> None:
        if not Path(target).name.startswith("."):
            rename(source, target)
        elif target.endswith((".submitted", ".failed")):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        else:
            rename(source, target)

    return faults.moves_by(move)


PROOFS = [
    Proof(
        "CP-6",
        check_held,
        [Twin("leaves it in sight", hides_nothing(), "AssertionError: it stays in sight")],
    ),
    Proof(
        "CP-6",
        check_held_failure,
        [Twin("leaves a failure in sight", hides_nothing(), "AssertionError: hidden_in(site) ==")],
    ),
]


@each_proof(PROOFS)
def test_a_file_that_cannot_be_moved_is_submitted_once(proof: Proof, tmp_path: Path) -> None:
    proof.hold(ours, tmp_path)


@each_twin(PROOFS)
def test_a_file_that_is_submitted_again_is_caught(proof: Proof, twin: Twin, tmp_path: Path) -> None:
    proof.must_fail(twin, COMPONENT, tmp_path)


def test_what_is_hidden_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_held(ours, tmp_path)
    done = tmp_path / "in" / "done"
    first = caplog.records[0]
    path = tmp_path / "in" / ".a.csv.submitted"
    words = f"{path} could not be moved to {done}: it is hidden until the next start moves it on"
    assert first.getMessage() == words
    assert first.exc_info
    assert first.exc_info[0] is FileNotFoundError


@pytest.mark.guarantee("CP-6")
def test_what_was_held_can_come_again(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        async with site.running(module) as pool:
            (site.box / "done").rmdir()
            site.drop("a.csv", "old")
            await until(lambda: pool.stats.held)
            (site.box / "done").mkdir()
            site.drop("a.csv", "a new one")
            await site.left()
            assert (pool.stats.held, pool.stats.converted) == (1, 1)
        assert site.submitted == ["old", "a new one"]
        assert site.texts("done") == ["a new one"]
        async with site.running(module) as pool:
            await until(lambda: pool.stats.converted)
        assert site.texts("done") == ["a new one", "old"]
        assert len(site.submitted) == 2

    run(main, ours, tmp_path)


@pytest.mark.guarantee("CP-6")
@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ENOSPC, errno.EMFILE])
@pytest.mark.parametrize("text", ["good", "bad"])
def test_a_rename_that_fails_for_a_moment_holds_nothing(
    code: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is hidden, and moved on at once."""
    rename, failed = vars(ours)["rename_new"], list[str]()

    def fails_once(source: str, target: str) -> None:
        if Path(source).name == "x.csv" and not failed:
            failed.append(target)
            raise OSError(code, os.strerror(code), source, None, target)
        rename(source, target)

    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        async with site.running(module) as pool:
            monkeypatch.setattr(ours, "rename_new", fails_once)
            site.drop("x.csv", text)
            await until(lambda: pool.stats.converted + pool.stats.failed)
            assert (pool.stats.held, len(failed)) == (0, 1)
        assert site.texts("done" if text == "good" else "error") == [text]
        assert len(list((site.box / "error").glob("*.json"))) == (text == "bad")

    run(main, ours, tmp_path)


@pytest.mark.guarantee("CP-6")
def test_what_cannot_be_hidden_either_is_left_alone_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), source, None, target)

    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        async with site.running(module) as pool:
            with monkeypatch.context() as patch:
                patch.setattr(ours, "rename_new", refuse)
                file = site.drop("a.csv", "a")
                await until(lambda: pool.stats.held)
                os.close(os.open(file, os.O_WRONLY))  # an event, but no news
            site.drop("b.csv", "b")
            await until(lambda: pool.stats.converted)
            assert site.submitted == ["a", "b"]
            assert site.files() == ["a.csv"]
            with file.open("a") as more:
                more.write(" and more")
            await site.left()
            assert (pool.stats.held, pool.stats.converted) == (0, 2)
        assert site.submitted == ["a", "b", "a and more"]

    run(main, ours, tmp_path)
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.endswith("nor hidden: the next start does it again")


def test_a_hidden_file_of_no_converter_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        (site.box / ".x.txt.submitted").write_text("of a converter that there was")
        (site.box / ".folder.csv.submitted").mkdir()
        async with site.running(module):
            site.drop("a.csv", "a")
            await site.left()
        assert hidden_in(site) == [".folder.csv.submitted", ".x.txt.submitted"]

    run(main, ours, tmp_path)
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.endswith(".x.txt.submitted belongs to no converter: it is left alone")


@pytest.mark.guarantee("CP-6")
def test_a_long_name_can_be_hidden(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        async with site.running(module) as pool:
            (site.box / "done").rmdir()
            site.drop("é" * 125 + ".csv", "long")
            await until(lambda: pool.stats.held)
            (site.box / "done").mkdir()
        async with site.running(module) as pool:
            await until(lambda: pool.stats.converted)
        assert (site.submitted, site.texts("done")) == (["long"], ["long"])

    run(main, ours, tmp_path)
