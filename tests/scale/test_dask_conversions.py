"""An AsyncConverterPool whose files the worker processes of a Dask cluster convert."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest

from reference_impl.queues.async_converter_pool import AsyncConverterPool, Converter
from tests.kit import ROOT
from tests.kit.process import CTRL_C
from tests.queues.async_converter_pool.helpers import DATA, SAFETY_NET, Site, on_a_loop

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def client(cluster: Any) -> Iterator[Any]:
    with distributed.Client(cluster) as client:
        yield client


@pytest.fixture
def _no_thread_is_left() -> None:
    """Dask keeps threads for as long as its client lives."""


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


async def converted(root: Path, executor: Executor | None) -> tuple[Any, ...]:
    """What became of the files of the running example."""
    from tests.scale.dask_conversions import report_pool

    root.mkdir()
    site = Site(root)
    submit: Any = site.submit
    for file in DATA.glob("*.csv"):
        shutil.copy(file, site.box)
    async with report_pool(site.box, submit, executor):
        await site.left()
    reports: list[Any] = sorted(site.submitted, key=lambda report: report["unit"])
    error = site.box / "error"
    reasons = [json.loads(file.read_text()) for file in sorted(error.glob("*.error.json"))]
    why = [(reason["file"], reason["error"], reason["message"]) for reason in reasons]
    return reports, names(site.box / "done"), names(error), why


@pytest.mark.guarantee("CP-1")
def test_a_cluster_converts_as_the_threads_of_the_pool_do(
    executor: Executor, tmp_path: Path
) -> None:
    there = on_a_loop(converted(tmp_path / "there", executor))
    assert there == on_a_loop(converted(tmp_path / "here", None))
    reports, done, error, why = there
    verdicts = {report["unit"]: report["passed"] for report in reports}
    assert verdicts == {"unit-A7-0041": True, "unit-A7-0042": False, "unit-B2-0007": True}
    assert done == [f"{unit}.csv" for unit in verdicts]
    aborted, empty = "unit-B2-0008-aborted.csv", "unit-B2-0009-empty.csv"
    assert error == [aborted, f"{aborted}.error.json", empty, f"{empty}.error.json"]
    assert why == [
        (aborted, "ValueError", "could not convert string to float: 'operator abort'"),
        (empty, "ValueError", f"{empty} holds no step: was the test aborted?"),
    ]


def text_and_process(path: Path) -> str:
    return f"{path.read_text()} {os.getpid()}"


class Keeping(Executor):
    """Keeps the futures, and so Dask keeps their results."""

    def __init__(self, executor: Executor) -> None:
        self._executor, self._kept = executor, list[Any]()

    def submit(self, *call: Any, **options: Any) -> Any:
        self._kept.append(self._executor.submit(*call, **options))
        return self._kept[-1]


def test_a_file_that_comes_again_is_converted_again_in_a_worker(
    client: Any, executor: Executor, tmp_path: Path
) -> None:
    async def main() -> None:
        site = Site(tmp_path)
        converter = Converter("texts", site.box, ("*.txt",), text_and_process)
        pool = AsyncConverterPool([converter], site.submit, executor=Keeping(executor))
        async with pool:
            for number in range(2):
                site.drop("unit.txt", f"run {number}")
                await site.until(lambda: len(site.submitted) == number + 1)  # noqa: B023
        texts, processes = zip(*(text.rsplit(" ", 1) for text in site.submitted), strict=True)
        assert texts == ("run 0", "run 1")
        workers = set(client.run(os.getpid).values())
        assert {int(process) for process in processes} <= workers - {os.getpid()}

    on_a_loop(main())


def test_the_program_of_the_page(cluster: Any, tmp_path: Path) -> None:
    for file in DATA.glob("*.csv"):
        shutil.copy(file, tmp_path)
    as_main = "import runpy; runpy.run_module('tests.scale.dask_conversions', run_name='__main__')"
    program = (sys.executable, "-c", CTRL_C + as_main)
    with subprocess.Popen(
        [*program, str(tmp_path), cluster.scheduler_address],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            assert running.stdout is not None
            shown = sorted(running.stdout.readline() for _ in range(3))
            running.send_signal(signal.SIGINT)
            _, errors = running.communicate(timeout=SAFETY_NET)
        finally:
            running.kill()
    assert shown == ["unit-A7-0041 passed\n", "unit-A7-0042 failed\n", "unit-B2-0007 passed\n"]
    assert running.returncode == 0, errors
