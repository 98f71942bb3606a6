"""AsyncConverterPool's loop side under every schedule of detangle.

The files are real. The watch is a list of announcements, and conversions are tasks of the
explored loop, which complete the pool's futures as threads or a process pool would.
"""

import asyncio
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import ModuleType
from typing import Any

import detangle

import reference_impl.queues.async_converter_pool as ours
from tests.interleavings.async_converter_pool.world import world
from tests.kit.explore import Schedules
from tests.kit.profile import budget
from tests.kit.proofs import Proof, each_proof, each_twin
from tests.kit.twins import Twin, build
from tests.queues.async_converter_pool import faults
from tests.queues.async_converter_pool.helpers import COMPONENT

Model = Callable[[], Coroutine[Any, Any, None]]
LOST = "AssertionError: it never came to pass: a file or a slot was lost"


def check_urgency(m: ModuleType) -> Model:
    """The next is the most urgent of the files that are known when a slot is free."""

    async def model() -> None:
        with world(m, "urgent", "normal") as site:
            pool = site.pool(max_concurrency=1)
            before: list[str] = []
            chosen = 0

            def note(path: Path) -> None:
                nonlocal before, chosen
                if path.parent.name == "urgent":
                    before, chosen = list(site.started), pool.stats.converted + pool.stats.running
                    assert pool.stats.running <= 1, "files were chosen without a slot"

            site.noted = note

            async def produce(box: str, count: int) -> None:
                for number in range(count):
                    await asyncio.sleep(0)
                    site.drop(f"{box}{number}.csv", f"{box}{number}", box)

            async with pool:
                await asyncio.gather(produce("normal", 3), produce("urgent", 1))
                await site.until(lambda: len(site.submitted) == 4)
            earlier = site.started.index("urgent0.csv")
            assert earlier <= max(chosen, len(before)), "others were chosen before the urgent one"
            assert site.most == 1

    return model


def check_hanging(m: ModuleType, *, own: bool) -> Model:
    """The slot of a conversion that hangs."""

    async def model() -> None:
        with world(m, "in") as site:
            site.drop("0.csv", "hangs")
            pool = site.pool(own=own, max_concurrency=1, convert_timeout=5.0)
            async with pool:
                await site.until(lambda: pool.stats.failed)
                site.drop("1.csv", "next")
                if own:
                    await site.until(lambda: site.submitted)
                await asyncio.sleep(1)
                assert bool(site.submitted) == own, "the slot was not free in time, or too early"
                assert pool.stats.abandoned == 1
                site.hangs.set()
                await site.until(lambda: site.submitted and not pool.stats.abandoned)
            assert site.submitted == ["next"], "a late result was submitted"
            assert (site.texts("error"), site.texts("done")) == (["hangs"], ["next"])
            assert site.most == 1 + own

    return model


def check_hanging_in_own_threads(m: ModuleType) -> Model:
    return check_hanging(m, own=True)


def check_hanging_in_an_executor(m: ModuleType) -> Model:
    return check_hanging(m, own=False)


def check_just_in_time(m: ModuleType) -> Model:
    """A conversion that ends at the very moment of its timeout: done, or failed, not both."""

    async def model() -> None:
        with world(m, "in") as site:
            pool = site.pool(own=True, max_concurrency=1, convert_timeout=5.0)

            async def end() -> None:
                await asyncio.sleep(5.0)
                site.hangs.set()

            async with pool:
                site.drop("0.csv", "hangs")
                ending = asyncio.create_task(end())
                await site.until(lambda: pool.stats.failed + pool.stats.converted)
                await site.until(lambda: not pool.stats.abandoned)
                await ending
            done, error = site.texts("done"), site.texts("error")
            assert (done, error) in ((["hangs"], []), ([], ["hangs"]))
            assert site.submitted == done

    return model


def ending(m: ModuleType, how: str) -> Model:
    """Files are announced while it is stopped or cancelled; the next start does the rest."""

    async def model() -> None:
        with world(m, "in") as site:
            pool = site.pool(max_concurrency=2)
            site.drop("0.csv", "0")
            most, asked = 3, False

            async def produce() -> None:
                for number in (1, 2):
                    await asyncio.sleep(0)
                    site.drop(f"{number}.csv", str(number))

            async def end() -> None:
                nonlocal most, asked
                for _ in range(detangle.randint(0, 12)):
                    await asyncio.sleep(0)
                if how == "run is cancelled":
                    running.cancel()
                else:
                    most, asked = pool.stats.converted + pool.stats.running, True
                    await pool.stop(timeout=0 if how == "stop at once" else 30)

            running = asyncio.create_task(pool.run(), name="run")
            producing = asyncio.create_task(produce(), name="producer")
            stopping = asyncio.create_task(end(), name="stop")
            if how == "stop is cancelled":
                detangle.inject_cancellation(stopping, points=16)
            await asyncio.wait([stopping, producing])
            if how != "run is cancelled" and not asked:  # cancelled before it asked
                await pool.stop()
            await asyncio.wait([running])
            assert running.cancelled() or running.exception() is None, "run has failed"
            assert not pool.stats.running
            assert len(site.started) <= most, "a file was chosen after stop"
            assert sorted(site.submitted) == site.texts("done"), "submitted, and not moved"
            assert site.texts("error") == [], "a file was blamed for the end of the pool"
            left = site.texts(".")
            assert sorted(left + site.texts("done")) == ["0", "1", "2"]
            await site.finish()
            assert sorted(site.submitted) == ["0", "1", "2"], "lost, or submitted twice"

    return model


def check_a_stop(m: ModuleType) -> Model:
    return ending(m, "stop")


def check_a_stop_at_once(m: ModuleType) -> Model:
    return ending(m, "stop at once")


def check_a_stop_that_is_cancelled(m: ModuleType) -> Model:
    return ending(m, "stop is cancelled")


def check_a_run_that_is_cancelled(m: ModuleType) -> Model:
    return ending(m, "run is cancelled")


def check_replacing(m: ModuleType) -> Model:
    """A producer that replaces its file, and a watch that repeats itself."""

    async def model() -> None:
        with world(m, "in") as site:
            pool = site.pool(max_concurrency=2)
            versions = ["1", "22", "333"]

            async def produce() -> None:
                for text in versions:
                    site.drop("x.csv", text)
                    site.watches["in"].news.put_nowait(site.boxes["in"] / "x.csv")
                    for _ in range(2):
                        await asyncio.sleep(0)

            async with pool:
                await asyncio.create_task(produce(), name="producer")
                await site.until(lambda: not site.texts("."))
            assert len(set(site.submitted)) == len(site.submitted), "submitted twice"
            assert versions[-1] in site.submitted, "the last version was lost"
            done = site.texts("done")
            assert versions[-1] in done
            assert set(done) <= set(site.submitted), "moved to done, and never converted"
            assert site.texts("error") == []

    return model


def check_vanishing(m: ModuleType) -> Model:
    """One directory vanishes, and the other one's files are converted."""

    async def model() -> None:
        with world(m, "in", "gone") as site:
            site.drop("0.csv", "0")
            site.drop("1.csv", "1", "gone")
            pool = site.pool(max_concurrency=1)

            async def vanish() -> None:
                await asyncio.sleep(0)
                shutil.rmtree(site.boxes["gone"])
                site.watches["gone"].news.put_nowait(FileNotFoundError("vanished"))

            async with pool:
                vanishing = asyncio.create_task(vanish())
                await site.until(lambda: pool.stats.lost)
                site.drop("2.csv", "2")
                await site.until(lambda: {"0", "2"} <= set(site.submitted))
                await vanishing
            assert site.texts("done") == ["0", "2"]
            assert site.texts("error") == []

    return model


BLAMES = "AssertionError: a file was blamed for the end of the pool"
NOT_IN_TIME = "AssertionError: the slot was not free in time, or too early"
# With each, how many steps out of asyncio's order, and how many schedules are drawn besides.
SEARCHES: list[tuple[Proof, int, int]] = [
    (
        Proof(
            "CP-2",
            check_urgency,
            [
                Twin(
                    "chooses files before there is a slot",
                    faults.chooses_early(),
                    (
                        "AssertionError: files were chosen without a slot",
                        "AssertionError: others were chosen before the urgent one",
                    ),
                )
            ],
        ),
        budget(2, 3),
        300,
    ),
    (
        Proof(
            "CP-3",
            check_hanging_in_own_threads,
            [Twin("lets a thread that hangs keep its slot", faults.keeps_the_slot(), LOST)],
        ),
        6,
        0,
    ),
    (
        Proof(
            "CP-3",
            check_hanging_in_an_executor,
            [
                Twin(
                    "takes a lost worker for a free slot",
                    faults.ignores_its_executor(),
                    NOT_IN_TIME,
                ),
                Twin("forgets who ends late", faults.never_frees_the_slot(), LOST),
            ],
        ),
        6,
        0,
    ),
    (Proof("CP-3", check_just_in_time), 6, 0),
    (
        Proof(
            "CP-4",
            check_a_stop,
            [
                Twin(
                    "goes on while it stops",
                    faults.stops_when_nothing_waits(),
                    "AssertionError: a file was chosen after stop",
                )
            ],
        ),
        budget(1, 2),
        200,
    ),
    (
        Proof(
            "CP-1",
            check_a_stop_at_once,
            [
                Twin(
                    "waits between submission and move",
                    faults.waits_after_submitting(),
                    "AssertionError: submitted, and not moved",
                ),
                Twin(
                    "blames a file whose submission it stops",
                    faults.blames_cancelled_submissions(),
                    BLAMES,
                ),
            ],
        ),
        budget(1, 2),
        200,
    ),
    (Proof("CP-4", check_a_stop_that_is_cancelled), budget(1, 2), 200),
    (
        Proof(
            "CP-4",
            check_a_run_that_is_cancelled,
            [
                Twin(
                    "blames a file whose submission it cancels",
                    faults.blames_cancelled_submissions(),
                    BLAMES,
                )
            ],
        ),
        budget(1, 2),
        200,
    ),
    (
        Proof(
            "CP-1",
            check_replacing,
            [
                Twin(
                    "sees no difference between a file and the next",
                    faults.sees_no_difference(),
                    "AssertionError: the last version was lost",
                ),
                Twin("is deaf while it converts", faults.deaf_while_it_converts(), LOST),
                Twin(
                    "takes a file for another when it is told again",
                    faults.hears_of_another(),
                    "AssertionError: submitted twice",
                ),
                Twin(
                    "submits a result before it looks again",
                    faults.submits_at_once(),
                    "AssertionError: submitted twice",
                ),
            ],
        ),
        budget(3, 4),
        300,
    ),
    (
        Proof(
            "CP-5",
            check_vanishing,
            [Twin("stops when one directory is lost", faults.stops_when_one_is_lost(), LOST)],
        ),
        budget(3, 4),
        0,
    ),
]
PROOFS = [proof for proof, _, _ in SEARCHES]


@each_proof(PROOFS)
def test_each_schedule_keeps_the_promise(proof: Proof, schedules: Schedules) -> None:
    ((delays, drawn),) = [rest for each, *rest in SEARCHES if each is proof]
    model: Any = proof.check(ours)
    schedules.prove(model, delays=delays)
    if drawn:
        schedules.sample(model, schedules=drawn)


@each_twin(PROOFS)
def test_a_schedule_shows_the_fault(proof: Proof, twin: Twin, schedules: Schedules) -> None:
    model: Any = proof.check(build(COMPONENT, twin.fault))
    schedules.catch(model, twin=twin)
