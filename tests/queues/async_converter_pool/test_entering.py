"""A pool runs once, on one loop, and nobody takes it away."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import reference_impl.queues.async_converter_pool as ours
from reference_impl.bridges.file_watch import DirectoryWatch
from reference_impl.queues.async_converter_pool import AsyncConverterPool
from tests.queues.async_converter_pool.helpers import (
    Site,
    converter_of,
    looped,
    on_a_loop,
    run,
    submit,
    until,
)


def test_a_body_that_is_cancelled_stops_the_pool(tmp_path: Path, warnings_of_loops: None) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        site.drop("x.csv", "x")

        async def body() -> None:
            async with site.running(module):
                await until(lambda: site.submitted)
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
            pool = site.pool(module)
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
        pool = site.pool(module)
        await pool.stop()
        await pool.run()
        async with site.running(module) as pool:
            with pytest.raises(RuntimeError, match="runs once"):
                await pool.run()
        await pool.run()

    run(main, ours, tmp_path)


def test_another_loop_is_refused(tmp_path: Path) -> None:
    elsewhere = r"\Athis AsyncConverterPool belongs to the event loop that ran it: use it there"

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
        pool = site.pool(module)
        running = asyncio.create_task(pool.run())
        await site.begin("x.csv", "x")

        async def enter() -> None:
            async with pool:
                raise AssertionError("entered")

        with pytest.raises(RuntimeError, match="AsyncConverterPool runs once"):
            await enter()
        with pytest.raises(RuntimeError, match="belongs to the event loop that ran it"):
            await asyncio.to_thread(asyncio.run, enter())
        held.set()
        await site.left()
        await pool.stop()
        await running
        assert site.submitted == site.texts("done") == ["x"]

    run(main, ours, tmp_path)


@looped
async def check_second_entry(module: ModuleType, root: Path) -> None:
    """Within the first one, or at the same time: it is refused, and the first goes on."""
    site = Site(root)
    async with site.running(module) as pool:
        with pytest.raises(RuntimeError, match="AsyncConverterPool runs once"):
            await pool.__aenter__()
        site.drop("x.csv", "x")
        await site.left()
    pool = site.pool(module)
    entries = asyncio.gather(pool.__aenter__(), pool.__aenter__(), return_exceptions=True)
    first, second = await entries
    assert (first is pool, type(second)) == (True, RuntimeError), "it was let in"
    site.drop("y.csv", "y")
    await site.left()
    await pool.__aexit__()
    assert site.submitted == site.texts("done") == ["x", "y"]


@looped
async def check_run_that_comes_late(module: ModuleType, root: Path) -> None:
    """A task that is to `run` begins when the pool is being entered already."""
    site = Site(root)
    pool = site.pool(module)
    late = asyncio.create_task(pool.run())
    async with pool:
        assert late.done(), "it took the pool away"
        with pytest.raises(RuntimeError, match="AsyncConverterPool runs once"):
            await late
        site.drop("x.csv", "x")
        await site.left()
    assert site.submitted == ["x"]


@pytest.mark.parametrize("check", [check_second_entry, check_run_that_comes_late])
def test_a_pool_that_is_entered_is_not_taken_away(
    check: Callable[[ModuleType, Path], None], tmp_path: Path
) -> None:
    check(ours, tmp_path)


def test_a_pool_that_was_stopped_can_be_entered_and_does_nothing(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        site.drop("x.csv", "x")
        pool = site.pool(module)
        await pool.stop()
        for _ in range(2):
            async with pool:
                pass
        assert (site.started, (site.box / "x.csv").exists()) == ([], True)

    run(main, ours, tmp_path)


@looped
async def check_left_elsewhere(module: ModuleType, root: Path) -> None:
    """From another loop it is refused, and what is under way goes on."""
    site = Site(root)
    held = site.hold("x.csv")
    async with site.running(module) as pool:
        await site.begin("x.csv", "x")
        with pytest.raises(RuntimeError, match="belongs to the event loop that ran it"):
            await asyncio.to_thread(asyncio.run, pool.__aexit__())
        held.set()
        await site.unless_it_ends(lambda: not pool.stats.running)
        assert site.submitted == site.texts("done") == ["x"], "it was cancelled"


def test_leaving_on_another_loop_is_refused(tmp_path: Path) -> None:
    check_left_elsewhere(ours, tmp_path)


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
        with pytest.raises(RuntimeError, match="AsyncConverterPool runs once"):
            await pool.run()

    on_a_loop(main())


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
    on_a_loop(main())
