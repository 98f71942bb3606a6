"""What is there on start, what comes while it stops, and what stop leaves (CP-4)."""

import asyncio
import gc
import math
import os
import sys
import threading
import weakref
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import reference_impl.queues.async_converter_pool as ours
from tests.kit.fakes import turns
from tests.kit.proofs import Proof, each_proof, each_twin
from tests.kit.twins import Twin
from tests.queues.async_converter_pool import faults
from tests.queues.async_converter_pool.helpers import (
    COMPONENT,
    LIMIT,
    Site,
    converter_of,
    forward,
    looped,
    on_a_loop,
    run,
    start,
    until,
)


@looped
async def check_restart(module: ModuleType, root: Path) -> None:
    site = Site(root)
    site.drop("early.csv", "early")
    held = site.hold("early.csv")
    async with site.running(module) as pool:
        await until(lambda: site.started)
        stopping = asyncio.create_task(pool.stop())
        await turns()
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


@looped
async def check_backlog(module: ModuleType, root: Path) -> None:
    """Those that waited for a slot wait for the next start."""
    site = Site(root)
    names = [f"{number}.csv" for number in range(200)]
    held = site.hold(*names)
    for name in names:
        site.drop(name, name)
    async with site.running(module, max_concurrency=2) as pool:
        await until(lambda: pool.stats.waiting >= 64 or not site.files())
        assert pool.stats.waiting >= 64, "files were taken without a slot"
        stopping = asyncio.create_task(pool.stop())
        await turns()
        held.set()
        await stopping
    assert len(site.submitted) == 2, "a file was chosen after stop"
    async with site.running(module):
        await site.left()
    assert sorted(site.submitted) == sorted(names)


@looped
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

    pool = site.pool(module, submit=submit)
    running = asyncio.create_task(pool.run())
    for name in ("converting.csv", "submitting.csv"):
        site.drop(name, name)
    await until(lambda: site.submitted and len(site.started) == 2)
    stopping = asyncio.create_task(pool.stop(timeout=LIMIT))
    await turns()
    assert not running.done()
    await forward(LIMIT)
    await stopping
    held.set()
    assert running.done()
    await running
    assert cleaned_up
    assert site.files() == [
        "converting.csv",
        "submitting.csv",
    ]
    assert (site.texts("done"), site.texts("error")) == ([], [])
    async with site.running(module):
        await site.left()
    assert sorted(site.submitted) == ["converting.csv", "submitting.csv", "submitting.csv"]


PROOFS = [
    Proof("CP-4", check_restart),
    Proof(
        "CP-4",
        check_backlog,
        [
            Twin(
                "chooses what waits while it stops",
                faults.stops_when_nothing_waits(),
                "AssertionError: a file was chosen after stop",
            ),
            Twin(
                "takes files without a slot",
                faults.takes_at_once(),
                "AssertionError: files were taken without a slot",
            ),
        ],
    ),
    Proof(
        "CP-4",
        check_stop_late,
        [
            Twin(
                "blames a file whose submission it cancels",
                faults.blames_cancelled_submissions(),
                "AssertionError: submitting.csv",
            )
        ],
    ),
]


@each_proof(PROOFS)
def test_what_stop_leaves_is_done_by_the_next_start(proof: Proof, tmp_path: Path) -> None:
    proof.hold(ours, tmp_path)


@each_twin(PROOFS)
def test_an_end_that_loses_files_is_caught(proof: Proof, twin: Twin, tmp_path: Path) -> None:
    proof.must_fail(twin, COMPONENT, tmp_path)


@pytest.mark.guarantee("CP-4")
def test_files_that_come_while_it_starts_are_seen(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        names = {f"{number}.csv" for number in range(300)}
        producer = threading.Thread(target=lambda: [site.drop(name, name) for name in names])
        producer.start()
        async with site.running(module):
            await until(lambda: len(site.submitted) >= 300)
            producer.join()
        assert sorted(site.submitted) == sorted(names)

    run(main, ours, tmp_path)


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


def test_stop_in_a_submit_only_requests(tmp_path: Path, warnings_of_loops: None) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)

        async def submit(result: str) -> None:
            await site.submit(result)
            await pool.stop()

        pool = site.pool(module, submit=submit, max_concurrency=1)
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
            await site.begin("x.csv", "x")
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
        pool = site.pool(module)
        running = asyncio.create_task(pool.run())
        await site.begin("x.csv", "x")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (site.box / "x.csv").exists()
        held.set()
        again = r"\Athis AsyncConverterPool runs once: make a new one to run again\Z"
        with pytest.raises(RuntimeError, match=again):
            await pool.run()

    run(main, ours, tmp_path)


def test_stop_waits_for_half_a_minute_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    async def main() -> None:
        site = Site(tmp_path)
        held = site.hold("x.csv")
        async with site.running() as pool:
            await site.begin("x.csv", "x")
            stopping = asyncio.create_task(pool.stop())
            await asyncio.sleep(0)
            await forward(29.0)
            assert pool.stats.abandoned == 0
            await forward(1.0)
            assert pool.stats.abandoned == 1
            await stopping
        held.set()
        assert (site.box / "x.csv").exists()

    on_a_loop(main())


def test_stop_with_no_time_cancels_at_once(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        site.hold("x.csv")
        async with site.running(module) as pool:
            await site.begin("x.csv", "x")
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
            await site.begin("x.csv", "x")
            stopping = asyncio.create_task(pool.stop(timeout))
            await asyncio.sleep(0)
            held.set()
            await stopping
        assert site.submitted == ["x"]

    run(main, ours, tmp_path)


@pytest.mark.parametrize("timeout", [-1, math.nan])
def test_a_bad_timeout_does_not_stop(timeout: float, tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        async with site.running(module) as pool:
            with pytest.raises(ValueError, match=r"\Atimeout must be at least 0 seconds, not"):
                await pool.stop(timeout)
            with pytest.raises(TypeError, match=r"\Atimeout must be a number of seconds, not '1'"):
                await pool.stop("1")
            site.drop("x.csv", "x")
            await site.left()

    run(main, ours, tmp_path)


@pytest.mark.parametrize("timeout", [None, 30.0])
def test_a_pool_that_has_ended_is_held_by_no_timer(timeout: float | None, tmp_path: Path) -> None:
    async def stopped_in_submit(module: ModuleType, site: Site) -> "weakref.ref[Any]":
        async def submit(result: str) -> None:
            await pool.stop(timeout)

        pool = site.pool(module, submit=submit)
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
        on_a_loop(main())
    assert (tmp_path / "in" / "x.csv").exists()
    assert len(cancelled) == 1
    gc.collect()  # a task that was not asked how it ended says so now


def test_an_interrupt_of_run_itself_leaves_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "access", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start(converter_of(tmp_path))
    gc.collect()
