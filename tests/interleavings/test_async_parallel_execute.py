"""async_parallel_execute under every schedule and every cancellation, by detangle's loop.

A deviation from asyncio's order and a cancellation both count as a delay, so two delays cover,
for example, any single cancellation at any await together with any single change of order.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from types import ModuleType
from typing import Any

import detangle

from reference_impl.bridges import async_parallel_execute as ours
from reference_impl.bridges.parallel_execute import DeadlineExceeded
from tests.bridges.async_parallel_execute import faults
from tests.bridges.async_parallel_execute.helpers import COMPONENT, forms, outcomes
from tests.kit.explore import Schedules
from tests.kit.profile import budget
from tests.kit.proofs import Proof, each_proof, each_twin
from tests.kit.twins import Twin, build

NUMBERS = (0, 1)  # of the form: results collected, or as they come


class World:
    """What is around a call: the keys, an operation that watches itself, and its caller."""

    def __init__(self, limit: int, *, bad: int = -1, breaks: int = -1) -> None:
        self.limit = limit
        self.bad = bad  # the key whose operation raises
        self.breaks = breaks  # the key at which the source raises
        self.begun: list[int] = []
        self.running = self.drawn = self.closed = self.ended = 0

    async def keys(self, number: int) -> AsyncIterator[int]:
        try:
            for key in range(number):
                await asyncio.sleep(0)
                if key == self.breaks:
                    raise OSError(key)
                self.drawn += 1
                assert self.drawn - self.ended <= self.limit + 1
                yield key
        finally:
            self.closed += 1

    async def operation(self, key: int) -> int:
        self.begun.append(key)
        self.running += 1
        assert self.running <= self.limit, "more than the limit run"
        try:
            await asyncio.sleep(0)
            if key == self.bad:
                raise LookupError(key)
            await asyncio.sleep(0)
        finally:
            try:
                await asyncio.sleep(0)  # clean-up that must not be cut short
            finally:
                self.running -= 1
                self.ended += 1
        return key

    def is_quiet(self) -> None:
        assert self.running == 0, "an operation still runs"
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task is left"


async def results_in_order(m: ModuleType) -> None:
    for number in NUMBERS:
        world = World(2)
        results = await forms(m)[number](world.keys(3), world.operation, 2)
        assert outcomes(results) == [0, 1, 2], "not one result for each key, in order"
        assert world.closed == 1
        world.is_quiet()


async def plain_keys(m: ModuleType) -> None:
    for number in NUMBERS:
        world = World(2, bad=1)
        results = await forms(m)[number](range(4), world.operation, 2)
        assert outcomes(results) == [0, LookupError, 2, 3]
        world.is_quiet()


async def cancellation(m: ModuleType, number: int) -> None:
    """The caller is cancelled at each of its awaits."""
    world = World(2)

    async def call() -> list[Any]:
        try:
            return await forms(m)[number](world.keys(3), world.operation, 2)
        finally:
            assert world.running == 0, "an operation still runs"
            assert world.closed == (world.drawn > 0) or world.closed == 1

    task = asyncio.ensure_future(call())
    detangle.inject_cancellation(task)
    await asyncio.wait([task])
    if not task.cancelled():
        assert outcomes(task.result()) == [0, 1, 2]
    world.is_quiet()


async def cancellation_of_the_collected(m: ModuleType) -> None:
    await cancellation(m, 0)


async def cancellation_as_they_come(m: ModuleType) -> None:
    await cancellation(m, 1)


async def leaving_early(m: ModuleType) -> None:
    world = World(2)
    async with m.async_as_completed(world.keys(4), world.operation, 2) as results:
        async for _ in results:
            break
    assert world.running == 0, "an operation still runs"
    assert world.closed == 1, "the source is not closed"
    world.is_quiet()


async def failing_fast(m: ModuleType) -> None:
    for number in NUMBERS:
        world = World(2, bad=0)
        results = await forms(m)[number](range(4), world.operation, 2, fail_fast=True)
        found = outcomes(results)
        assert found[0] is LookupError
        ran = [key for key, came in enumerate(found) if came == key]
        assert set(ran) <= set(world.begun)
        assert all(came in (LookupError, CancelledError, key) for key, came in enumerate(found))
        assert CancelledError in found, "no key was refused"
        world.is_quiet()


async def source_that_breaks(m: ModuleType) -> None:
    """Whatever ends first, the last operation or the source, its error is raised."""
    for number in NUMBERS:
        world = World(2, breaks=2)
        try:
            await forms(m)[number](world.keys(3), world.operation, 2)
        except OSError:
            world.is_quiet()
            assert world.closed == 1
        else:
            raise AssertionError("the error of the source is lost")


async def deadline(m: ModuleType) -> None:
    """It strikes between any two steps, as a key source may take any time."""
    for number in NUMBERS:
        world = World(2)
        loop: Any = asyncio.get_running_loop()
        over = loop.time() + 1e9

        def keys(loop: Any = loop, over: float = over) -> Iterator[int]:
            yield 0
            yield 1
            loop.time = lambda: over
            yield 2

        before = loop.time
        results = await forms(m)[number](keys(), world.operation, 2, timeout=5.0)
        loop.time = before
        found = outcomes(results)
        assert found[2] is DeadlineExceeded, "begun after the deadline"
        assert all(came in (DeadlineExceeded, key) for key, came in enumerate(found))
        world.is_quiet()


def says(name: str, fault: Any, *fails: str) -> Twin:
    return Twin(name, fault, fails=tuple(f"AssertionError: {text}" for text in fails))


LEFT = "an operation still runs", "a task is left"
PROOFS = [
    Proof(
        "AP-1",
        results_in_order,
        [
            says(
                "ends when its feeder has, whatever that says",
                faults.ends_without_the_last,
                "not one result for each key",
            )
        ],
    ),
    Proof(
        "AP-2",
        plain_keys,
        [says("runs one more", faults.runs_one_more, "outcomes(results) == [0, ")],
    ),
    Proof(
        "AP-3",
        cancellation_of_the_collected,
        [says("waits for nobody", faults.waits_for_nobody, *LEFT)],
    ),
    Proof(
        "AP-3",
        cancellation_as_they_come,
        [says("waits for nobody", faults.waits_for_nobody, *LEFT)],
    ),
    Proof(
        "AP-3",
        leaving_early,
        [
            says(
                "leaves operations running",
                faults.leaves_operations_running,
                *LEFT,
            )
        ],
    ),
    Proof(
        "AP-5",
        failing_fast,
        [says("ignores fail_fast", faults.ignores_fail_fast, "no key was refused")],
    ),
    Proof(
        "AP-6",
        source_that_breaks,
        [
            says(
                "asks the feeder's task whether it has ended",
                faults.asks_the_task_of_the_feeder,
                "the error of the source is lost",
            )
        ],
    ),
    Proof(
        "AP-4",
        deadline,
        [says("ignores deadlines", faults.ignores_deadlines, "begun after the deadline")],
    ),
]

Model = Callable[[], Coroutine[Any, Any, object]]


@each_proof(PROOFS)
def test_in_every_schedule(proof: Proof, schedules: Schedules) -> None:
    schedules.prove(lambda: proof.check(ours), delays=budget(1, 2))  # type: ignore[arg-type, return-value]


@each_twin(PROOFS)
def test_the_search_finds(proof: Proof, twin: Twin, schedules: Schedules) -> None:
    broken = build(COMPONENT, twin.fault)
    schedules.catch(
        lambda: proof.check(broken),  # type: ignore[arg-type, return-value]
        twin=twin,
    )
