"""Whatever a converter, a submission or a directory does, the others go on (CP-5)."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import reference_impl.queues.async_converter_pool as ours
from tests.kit.proofs import Proof, each_proof, each_twin
from tests.kit.twins import Twin
from tests.queues.async_converter_pool import faults
from tests.queues.async_converter_pool.helpers import (
    COMPONENT,
    LIMIT,
    Site,
    Undecided,
    forward,
    looped,
    run,
    until,
)


@looped
async def check_bad_converters(module: ModuleType, root: Path) -> None:
    """One raises, one hangs, one loses its directory: the good one hears nothing of it."""
    good, raises, hangs, gone = (Site(root, name) for name in ("good", "raises", "hangs", "gone"))
    held = hangs.hold("hangs.csv")
    converters = [site.converter(module) for site in (good, raises, hangs, gone)]
    try:
        async with good.running(
            module, converters=converters, max_concurrency=1, convert_timeout=LIMIT
        ) as pool:
            raises.drop("bad.csv", "bad")
            await good.unless_it_ends(lambda: pool.stats.failed == 1)
            hangs.drop("hangs.csv", "late")
            await good.unless_it_ends(lambda: hangs.started)
            await forward(LIMIT)
            for folder in ("done", "error"):
                (gone.box / folder).rmdir()
            gone.box.rmdir()
            for number in range(3):
                good.drop(f"{number}.csv", str(number))
            await good.unless_it_ends(lambda: pool.stats.failed == 2)
            await good.unless_it_ends(lambda: len(good.submitted) == 3)
            good.drop("after.csv", "after")
            await good.unless_it_ends(lambda: len(good.submitted) == 4)
            assert good.texts("error") == []
            await good.unless_it_ends(lambda: pool.stats.lost)
            good.drop("later.csv", "later")
            await good.unless_it_ends(lambda: len(good.submitted) == 5)
        assert pool.stats.lost == ("gone",)
    finally:
        held.set()
    assert sorted(good.submitted[:3]) == ["0", "1", "2"]
    assert good.texts("done") == ["0", "1", "2", "after", "later"]
    assert raises.texts("error") == ["bad"]
    assert hangs.texts("error") == ["late"]


PROOFS = [
    Proof(
        "CP-5",
        check_bad_converters,
        [
            Twin(
                "stops when one directory is lost",
                faults.stops_when_one_is_lost(),
                "AssertionError: the pool has ended",
            ),
            Twin(
                "takes what a conversion raises for the end of all",
                faults.takes_failures_for_the_end(),
                "BrokenExecutor: broken",
            ),
        ],
    ),
]


@each_proof(PROOFS)
def test_one_bad_converter_touches_no_other(proof: Proof, tmp_path: Path) -> None:
    proof.hold(ours, tmp_path)


@each_twin(PROOFS)
def test_a_fault_that_touches_others_is_caught(proof: Proof, twin: Twin, tmp_path: Path) -> None:
    proof.must_fail(twin, COMPONENT, tmp_path)


def test_one_bad_converter_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_bad_converters(ours, tmp_path)
    messages = [record.getMessage() for record in caplog.records]
    assert "converter 'gone' has lost its directory" in messages
    assert f"converter 'raises' could not convert {tmp_path / 'raises' / 'bad.csv'}" in messages


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


@pytest.mark.guarantee("CP-5")
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

        async with site.running(
            module, converters=[site.converter(module, convert=convert)], submit=submit
        ):
            for name in ("x", "y"):
                site.drop(f"{name}.csv", name)
            await site.unless_it_ends(lambda: not site.files())
        assert (site.submitted, site.texts("error")) == (["y"], ["x"])
        reason = json.loads((site.box / "error" / "x.csv.error.json").read_text())
        assert (reason["file"], reason["stage"]) == ("x.csv", stage)
        assert f"{type(error).__name__} object at" in reason["message"]
        assert "fail_at" in "".join(reason["traceback"]), "where it was raised cannot be seen"
        assert f"converter 'in' could not {stage}" in caplog.text

    run(main, ours, tmp_path)


def test_an_executor_that_was_shut_down_ends_the_pool(
    tmp_path: Path, warnings_of_loops: None
) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        held = site.hold("busy.csv")
        executor, converters = ThreadPoolExecutor(1), [site.converter(module)]
        pool = site.pool(module, converters=converters, executor=executor, max_concurrency=1)
        with pytest.raises(RuntimeError, match="after shutdown"):
            async with site.entered(pool):
                await site.begin("busy.csv", "0")
                for name in ("x.csv", "y.csv"):
                    site.drop(name, name)
                await until(lambda: pool.stats.waiting == 2)
                executor.shutdown(wait=False)
                held.set()
                await until(site.ended)
        assert pool.stats.waiting == 1, "one more was chosen"
        assert site.files() == ["x.csv", "y.csv"]
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
            async with site.running(module, executor=executor):
                for number in range(3):
                    site.drop(f"{number}.csv", "")
                await until(lambda: site.started and executor.taken == 3)
                executor.shutdown(wait=False, cancel_futures=True)
                await until(site.ended)
        held.set()
        executor.shutdown()
        assert len(site.files()) == 3

    run(main, ours, tmp_path)


def test_a_pool_whose_directories_have_all_vanished_says_so(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        with pytest.raises(FileNotFoundError, match="removed, moved or replaced"):
            async with site.running(module):
                site.box.rename(root / "elsewhere")
                site.box.mkdir()
                (root / "elsewhere" / "x.csv").touch()
                await until(site.ended)

    run(main, ours, tmp_path)
