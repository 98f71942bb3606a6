"""async_parallel_execute: deadlines, failures, cancellation, errors of others, ways out."""

import asyncio
import concurrent.futures
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import async_parallel_execute as module
from reference_impl.bridges.parallel_execute import DeadlineExceeded
from tests.bridges.async_parallel_execute import faults
from tests.bridges.async_parallel_execute.helpers import (
    Operation,
    Source,
    begun,
    caught,
    end_of,
    fails,
    forms,
    outcomes,
    stopped_clock,
)
from tests.kit.fakes import run, turns
from tests.kit.proofs import Proof, holding
from tests.kit.twins import Twin

Ended = concurrent.futures.CancelledError


# AP-3.


async def check_a_cancelled_caller_cancels_and_awaits(m: ModuleType) -> None:
    for call in forms(m):
        operation, source = Operation(passes=[0]), Source(*range(9))
        calling = begun(call, source, operation, 3)
        await operation.runs([1, 2, 3])
        calling.cancel()
        assert isinstance(await end_of(calling), asyncio.CancelledError)
        assert sorted(operation.cleaned) == [1, 2, 3]
        assert (operation.running, source.closed) == ([], 1)


async def check_a_swallowed_cancellation_is_waited_for(m: ModuleType) -> None:
    for call in forms(m):
        first, second = asyncio.Event(), asyncio.Event()
        heard = list[str]()

        async def stubborn(
            key: int,
            gates: tuple[asyncio.Event, ...] = (first, second),
            heard: list[str] = heard,
        ) -> None:
            for gate in gates:
                try:
                    await gate.wait()
                except asyncio.CancelledError:
                    heard.append("cancelled")
            heard.append("ended")

        calling = begun(call, [1], stubborn)
        await turns()
        calling.cancel()
        await turns()
        assert not calling.done(), "the operation still runs"
        second.set()
        assert isinstance(await end_of(calling), asyncio.CancelledError)
        assert heard == ["cancelled", "ended"]


async def check_each_cancellation_is_passed_on(m: ModuleType) -> None:
    for call in forms(m):
        heard = list[int]()

        over = asyncio.Event()

        async def stubborn(key: int, heard: list[int] = heard, over: asyncio.Event = over) -> None:
            while len(heard) < 3 and not over.is_set():
                try:
                    await over.wait()
                except asyncio.CancelledError:
                    heard.append(key)

        calling = begun(call, [7], stubborn)
        for number in range(3):
            await turns()
            if heard != [7] * number:
                over.set()
            assert heard == [7] * number
            calling.cancel()
        await turns()
        assert calling.cancelled(), "it was cancelled three times"


async def check_leaving_early_cancels_and_awaits(m: ModuleType) -> None:
    operation, source = Operation(passes=[1]), Source(*range(9))
    async with m.async_as_completed(source, operation, 3) as results:
        async for index, _result in results:
            assert index == 1
            break
        assert len(operation.running) == 2
    assert sorted(operation.cleaned) == [0, 2], "the clean-up has ended"
    assert (operation.running, source.closed) == ([], 1)


async def check_an_error_in_the_block_cancels_and_awaits(m: ModuleType) -> None:
    operation, error = Operation(passes=[0]), OSError("the block's own")
    with pytest.raises(OSError) as raised:
        async with m.async_as_completed(range(9), operation, 3) as results:
            async for _ in results:
                raise error
    assert raised.value is error
    assert sorted(operation.cleaned) == [1, 2]


async def check_a_cancelled_wait_for_a_result_loses_none(m: ModuleType) -> None:
    operation = Operation()
    async with m.async_as_completed(range(2), operation) as results:
        waiting = asyncio.ensure_future(anext(results))
        await turns()
        waiting.cancel()
        assert isinstance(await end_of(waiting), asyncio.CancelledError)
        assert operation.running == [0, 1], "operations go on"
        operation.let_go.set()
        assert [index async for index, _ in results] == [0, 1]


# AP-4.


async def check_a_deadline_keeps_what_has_finished(m: ModuleType) -> None:
    for call in forms(m):
        clock, operation = stopped_clock(), Operation(passes=[0, 1])
        calling = begun(call, range(6), operation, 3, timeout=1.0)
        await operation.runs([2, 3, 4])
        clock.tick(1.0)
        results = await calling
        assert outcomes(results) == [0, 1, *[DeadlineExceeded] * 4]
        assert [str(r.error) for r in results[4:]] == [
            "not finished within 1.0 s",
            "not started within 1.0 s",
        ]
        assert sorted(operation.cleaned) == [2, 3, 4]
        assert operation.begun == [0, 1, 2, 3, 4]


async def check_no_time_starts_nothing(m: ModuleType) -> None:
    for call in forms(m):
        operation = Operation(passes=range(3))
        assert outcomes(await call(range(3), operation, timeout=0)) == [DeadlineExceeded] * 3
        assert operation.begun == []


async def check_the_deadline_is_looked_at_before_each_start(m: ModuleType) -> None:
    """Also where the loop had no turn since: the key source took the time."""
    for call in forms(m):
        clock, operation = stopped_clock(), Operation(passes=range(3))

        def keys(clock: Any = clock) -> Iterator[int]:
            yield 0
            clock.tick(1.0)
            yield 1

        results = await call(keys(), operation, timeout=1.0)
        assert outcomes(results) == [DeadlineExceeded] * 2
        assert operation.begun == [], "cancelled before its first step"


async def check_what_comes_after_the_deadline_is_late(m: ModuleType) -> None:
    for call in forms(m):
        clock = stopped_clock()

        async def late(key: str) -> str:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if key == "raises":
                    raise OSError("in its clean-up") from None
            return key

        calling = begun(call, ["returns", "raises"], late, timeout=1.0)
        await turns()
        clock.tick(1.0)
        results = await calling
        assert outcomes(results) == [DeadlineExceeded] * 2
        assert results[0].error.__cause__ is None
        assert isinstance(results[1].error.__cause__, OSError)


async def check_an_operations_own_cancellation_is_a_failure(m: ModuleType) -> None:
    own = asyncio.CancelledError("its own")

    async def operation(key: str) -> str:
        if key == "raises":
            raise own
        if key == "is cancelled":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        if key == "awaits":
            await asyncio.sleep(0)
            await cancelled
        await asyncio.sleep(0)
        return key

    for call in forms(m):
        cancelled = asyncio.get_running_loop().create_future()
        cancelled.cancel()
        results = await call(["well", "raises", "is cancelled", "awaits"], operation)
        assert outcomes(results) == ["well", *[asyncio.CancelledError] * 3]
        assert results[1].error is own


async def check_a_source_that_hangs_at_the_deadline_is_cancelled(m: ModuleType) -> None:
    for call in forms(m):
        clock, operation = stopped_clock(), Operation(passes=[0])
        never = asyncio.get_running_loop().create_future()
        source = Source(0, 1, never, 2)
        calling = begun(call, source, operation, timeout=1.0)
        await source.gives([0, 1])
        await turns()
        clock.tick(1.0)
        assert outcomes(await calling) == [0, DeadlineExceeded]
        assert (source.closed, never.cancelled()) == (1, True)


async def check_the_keys_at_hand_are_drawn_after_the_deadline(m: ModuleType) -> None:
    """A source that lets the loop turn hangs at nothing."""
    for call in forms(m):
        clock, operation = stopped_clock(), Operation()
        source = Source(*range(250))
        calling = begun(call, source, operation, 2, timeout=1.0)
        await operation.runs([0, 1])
        clock.tick(1.0)
        assert outcomes(await calling) == [DeadlineExceeded] * 250
        assert (operation.begun, source.closed) == ([0, 1], 1)


# AP-5.


async def check_fail_fast_cancels_what_runs(m: ModuleType) -> None:
    for call in forms(m):
        operation = Operation(passes=[0, 2], fails=[2])
        results = await call(range(6), operation, 3, fail_fast=True)
        assert outcomes(results) == [0, Ended, LookupError, Ended, Ended, Ended]
        assert [str(r.error) for r in (results[1], results[5])] == [
            "cancelled, since another key failed",
            "not started, since another key failed",
        ]
        assert operation.cleaned == [1]
        assert operation.begun == [0, 1, 2]


async def check_what_ends_well_is_not_reported_as_cancelled(m: ModuleType) -> None:
    async def place(order: str) -> str:
        if order == "bad":
            raise ValueError(order)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if order == "worse":
                raise OSError(order) from None
        return order

    for call in forms(m):
        results = await call(["good", "worse", "bad", "next"], place, 3, fail_fast=True)
        assert outcomes(results) == ["good", OSError, ValueError, Ended]


async def check_failures_end_nothing_without_fail_fast(m: ModuleType) -> None:
    for call in forms(m):
        operation = Operation(passes=range(4), fails=[0, 2])
        results = await call(range(4), operation, 2)
        assert outcomes(results) == [LookupError, 1, LookupError, 3]


PROOFS = [
    Proof(
        "AP-3",
        check_a_cancelled_caller_cancels_and_awaits,
        [
            Twin(
                "leaves operations running",
                faults.leaves_operations_running,
                fails("sorted(operation.cleaned) == [1, 2, 3]"),
            ),
            Twin(
                "waits for nobody",
                faults.waits_for_nobody,
                fails("sorted(operation.cleaned) == [1, 2, 3]"),
            ),
        ],
    ),
    Proof(
        "AP-3",
        check_a_swallowed_cancellation_is_waited_for,
        [Twin("waits for nobody", faults.waits_for_nobody, fails("the operation still runs"))],
    ),
    Proof(
        "AP-3",
        check_each_cancellation_is_passed_on,
        [
            Twin(
                "passes only the first cancellation on",
                faults.passes_one_cancellation_on,
                fails("heard == [7] * number"),
            )
        ],
    ),
    Proof(
        "AP-3",
        check_leaving_early_cancels_and_awaits,
        [
            Twin(
                "leaves operations running",
                faults.leaves_operations_running,
                fails("the clean-up has ended"),
            )
        ],
    ),
    Proof(
        "AP-3",
        check_an_error_in_the_block_cancels_and_awaits,
        [
            Twin(
                "waits for nobody",
                faults.waits_for_nobody,
                fails("sorted(operation.cleaned) == [1, 2]"),
            )
        ],
    ),
    Proof("AP-3", check_a_cancelled_wait_for_a_result_loses_none),
    Proof(
        "AP-4",
        check_a_deadline_keeps_what_has_finished,
        [
            Twin("ignores deadlines", faults.ignores_deadlines, "hang"),
            Twin("leaves what runs to itself", faults.leaves_what_runs_to_itself, "hang"),
            Twin(
                "leaves operations running",
                faults.leaves_operations_running,
                fails("sorted(operation.cleaned) == [2, 3, 4]"),
            ),
        ],
    ),
    Proof(
        "AP-4",
        check_no_time_starts_nothing,
        [
            Twin(
                "ignores deadlines",
                faults.ignores_deadlines,
                fails("timeout=0)) == [DeadlineExceeded] * 3"),
            )
        ],
    ),
    Proof(
        "AP-4",
        check_the_deadline_is_looked_at_before_each_start,
        [
            Twin(
                "ignores deadlines",
                faults.ignores_deadlines,
                fails("outcomes(results) == [DeadlineExceeded] * 2"),
            )
        ],
    ),
    Proof(
        "AP-4",
        check_what_comes_after_the_deadline_is_late,
        [
            Twin(
                "takes what is late",
                faults.takes_what_is_late,
                fails("outcomes(results) == [DeadlineExceeded] * 2"),
            )
        ],
    ),
    Proof(
        "AP-4",
        check_an_operations_own_cancellation_is_a_failure,
        [
            Twin(
                "takes each cancelled operation for one that it cancelled",
                faults.takes_a_cancelled_operation_for_cancelled_by_it,
                fails('outcomes(results) == ["well"'),
            )
        ],
    ),
    Proof(
        "AP-4",
        check_a_source_that_hangs_at_the_deadline_is_cancelled,
        [Twin("waits for a source that hangs", faults.waits_for_a_hanging_source, "hang")],
    ),
    Proof(
        "AP-4",
        check_the_keys_at_hand_are_drawn_after_the_deadline,
        [
            Twin(
                "waits for no source",
                faults.waits_for_no_source,
                fails("outcomes(await calling) == [DeadlineExceeded] * 250"),
            )
        ],
    ),
    Proof(
        "AP-5",
        check_fail_fast_cancels_what_runs,
        [
            Twin("ignores fail_fast", faults.ignores_fail_fast, "hang"),
            Twin("leaves what runs to itself", faults.leaves_what_runs_to_itself, "hang"),
        ],
    ),
    Proof(
        "AP-5",
        check_what_ends_well_is_not_reported_as_cancelled,
        [
            Twin(
                "leaves operations running",
                faults.leaves_operations_running,
                fails('outcomes(results) == ["good"'),
            )
        ],
    ),
    Proof("AP-5", check_failures_end_nothing_without_fail_fast),
]

test_holds = holding(PROOFS, module)
test_a_broken_twin_fails = caught(PROOFS)


@pytest.mark.guarantee("AP-3")
def test_a_timeout_around_the_call_stays_a_timeout() -> None:
    """The caller's cancellation goes through unchanged, so that asyncio counts right."""

    async def main() -> None:
        for call in forms(module):
            operation = Operation()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await call(range(3), operation)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            assert operation.running == []

    run(main())
