"""Conversions run off the loop, with a timeout that frees the slot (CP-3)."""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import json
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
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
    forward,
    looped,
    plain,
    run,
    until,
)


def whoami(path: Path) -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


def a_process_pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))


async def where_it_runs(module: ModuleType, root: Path, executor: Executor | None) -> Any:
    site = Site(root)
    converters = [site.converter(module, convert=whoami)]
    async with site.running(module, converters=converters, executor=executor):
        site.drop("x.csv", "")
        await site.left()
    return site.submitted[0]


@looped
async def check_off_the_loop(module: ModuleType, root: Path) -> None:
    here = whoami(root)
    with ThreadPoolExecutor(2) as executor:
        for each in (None, executor):
            there = await where_it_runs(module, root, each)
            assert there[0] == here[0]
            assert there[1] != here[1], "it is converted on the loop"


@pytest.mark.guarantee("CP-3")
def test_conversions_run_in_another_process_if_that_is_given(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        with a_process_pool(1) as executor:
            assert (await where_it_runs(module, root, executor))[0] != os.getpid()

    run(main, ours, tmp_path)


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

        async with site.running(
            module, converters=[site.converter(module, convert=convert)], submit=submit
        ):
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
            async with site.running(module, converters=converters, executor=executor):
                site.drop("x.csv", "")
                await site.unless_it_ends(lambda: not site.files())
        assert site.submitted == ["x.csv"]

    run(main, ours, tmp_path)


@looped
async def check_timeout(module: ModuleType, root: Path) -> None:
    """A conversion that hangs; its file fails, its slot is free, its late result is dropped."""
    site = Site(root)
    held = site.hold("hangs.csv")
    async with site.running(module, max_concurrency=1, convert_timeout=LIMIT) as pool:
        await site.begin("hangs.csv", "late")
        await forward(LIMIT)
        assert pool.stats.failed == pool.stats.abandoned == 1, "there was no timeout"
        site.drop("next.csv", "next")
        await until(lambda: pool.stats.waiting or pool.stats.running)
        assert not pool.stats.waiting, "its slot was not freed"
        await until(lambda: site.submitted)
        held.set()
        await until(lambda: not pool.stats.abandoned)
    assert site.submitted == ["next"]
    assert site.texts("error") == ["late"]
    reason = json.loads((site.box / "error" / "hangs.csv.error.json").read_text())
    assert (reason["stage"], reason["error"]) == ("convert", "TimeoutError")
    assert reason["message"] == "not converted within 10.0 s: mend converter 'in', or give it more"


class Kept(ThreadPoolExecutor):
    """Keeps the future of the first that it was given."""

    first: Any = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        future = super().submit(fn, *args, **kwargs)
        self.first = self.first or future
        return future


@looped
async def check_timeout_in_executor(module: ModuleType, root: Path) -> None:
    """The same in a given executor: its worker is lost, and so is the slot, until it ends."""
    site = Site(root)
    held = site.hold("hangs.csv")
    convert = site.convert

    def convert_next(path: Path) -> str:
        assert path.name == "hangs.csv" or held.is_set(), "more than one at a time"
        return convert(path)

    with Kept(2) as executor:
        converters = [site.converter(module, convert=convert_next)]
        async with site.running(
            module,
            converters=converters,
            executor=executor,
            max_concurrency=1,
            convert_timeout=LIMIT,
        ) as pool:
            await site.begin("hangs.csv", "late")
            await forward(LIMIT)
            assert pool.stats.failed == 1
            site.drop("next.csv", "next")
            await until(lambda: pool.stats.waiting or pool.stats.running)
            assert (pool.stats.running, pool.stats.abandoned) == (0, 1), "its slot is free"
            ended: list[object] = []
            executor.first.add_done_callback(lambda it: site.post(ended.append, it))  # the last
            held.set()
            await until(lambda: ended)
            assert pool.stats.abandoned == 0, "its slot was not freed"
            await until(lambda: site.submitted)
    assert site.submitted == ["next"]


PROOFS = [
    Proof(
        "CP-3",
        check_off_the_loop,
        [
            Twin(
                "converts on the loop",
                faults.converts_on_the_loop(),
                "AssertionError: it is converted on the loop",
            )
        ],
    ),
    Proof(
        "CP-3",
        check_timeout,
        [
            Twin("has no timeout", faults.no_timeout(), "AssertionError: there was no timeout"),
            Twin(
                "lets a thread that hangs keep its slot",
                faults.keeps_the_slot(),
                "AssertionError: its slot was not freed",
            ),
        ],
    ),
    Proof(
        "CP-3",
        check_timeout_in_executor,
        [
            Twin(
                "takes a lost worker for a free slot",
                faults.ignores_its_executor(),
                "AssertionError: its slot is free",
            ),
            Twin(
                "forgets who ends late",
                faults.never_frees_the_slot(),
                "AssertionError: its slot was not freed",
            ),
        ],
    ),
]


@each_proof(PROOFS)
def test_conversion_runs_off_the_loop_and_gives_its_slot_back(proof: Proof, tmp_path: Path) -> None:
    proof.hold(ours, tmp_path)


@each_twin(PROOFS)
def test_a_slot_that_is_free_at_the_wrong_time_is_caught(
    proof: Proof, twin: Twin, tmp_path: Path
) -> None:
    proof.must_fail(twin, COMPONENT, tmp_path)


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
            async with site.running(
                module, converters=[converter], submit=submit, executor=executor
            ):
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
        site = Site(root)
        held = site.hold("hangs.csv")

        def convert(path: Path) -> str:
            site.convert(path)
            return variable.get()

        with ThreadPoolExecutor(1) as executor:
            executor.submit(int).result()  # its thread has begun, without the variable
            variable.set("of run")
            async with site.running(
                module,
                converters=[site.converter(module, convert=convert)],
                executor=executor,
                max_concurrency=1,
                convert_timeout=LIMIT,
            ) as pool:
                await site.begin("hangs.csv", "")
                await forward(LIMIT)
                assert (pool.stats.running, pool.stats.abandoned) == (0, 1)
                site.drop("next.csv", "")
                await until(lambda: pool.stats.waiting)
                held.set()
                await until(lambda: site.submitted)
        assert site.submitted == ["of run"]

    run(main, ours, tmp_path)


def test_all_that_were_abandoned_are_counted(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        counted: list[int] = []
        first, second = site.hold("1.csv"), site.hold("2.csv")

        async def submit(result: str) -> None:
            counted.append(pool.stats.abandoned)
            await site.submit(result)

        converters = [site.converter(module)]
        async with site.running(
            module, converters=converters, submit=submit, convert_timeout=LIMIT
        ) as pool:
            for name in ("1.csv", "2.csv"):
                site.drop(name, "")
            await until(lambda: len(site.started) == 2)
            await forward(LIMIT)
            assert pool.stats.failed == pool.stats.abandoned == 2
            first.set()
            await until(lambda: pool.stats.abandoned != 2)
            assert pool.stats.abandoned == 1
            second.set()
            await until(lambda: pool.stats.abandoned != 1)
            assert pool.stats.abandoned == 0
            site.drop("3.csv", "")
            await until(lambda: site.submitted)
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

        pool = site.pool(module, converters=[site.converter(module, convert=convert)])
        site.drop("x.csv", "")
        running = asyncio.create_task(pool.run())
        await until(lambda: threads)
        await pool.stop(timeout=0)
        await running
        assert pool.stats.abandoned == 1

    try:
        run(main, ours, tmp_path)
    finally:
        held.set()
    threads[0].join()
    assert [record for record in caplog.records if record.name != "asyncio"] == []
