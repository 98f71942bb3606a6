"""async_parallel_execute: deadlines, failures, cancellation, errors of others, ways out."""

import asyncio
import concurrent.futures
from collections.abc import Awaitable, Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import async_parallel_execute as module
from reference_impl.bridges.parallel_execute import DeadlineExceeded
from tests.bridges.async_parallel_execute import faults
from tests.bridges.async_parallel_execute.helpers import (
    Operation,
    Source,
    caught,
    forms,
    outcomes,
    stopped_clock,
)
from tests.kit.fakes import run, turns
from tests.kit.proofs import Proof, holding
from tests.kit.twins import Twin

Ended = concurrent.futures.CancelledError


class Stop(BaseException):
    """No Exception, and none that asyncio treats in its own way."""


def begun(call: Callable[..., Awaitable[Any]], *arguments: Any, **options: Any) -> Any:
    return asyncio.ensure_future(call(*arguments, **options))


async def end_of(calling: "asyncio.Future[Any]") -> BaseException:
    """What it raises."""
    await asyncio.wait([calling])
    if calling.cancelled():
        return asyncio.CancelledError()
    error = calling.exception()
    assert error is not None, f"it has returned {calling.result()}"
    return error


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


# AP-6.


async def check_a_key_source_that_raises_ends_the_call(m: ModuleType) -> None:
    def keys(error: Exception) -> Iterator[int]:
        yield from range(2)
        raise error

    for call in forms(m):
        for make in (keys, lambda error: Source(0, 1, error)):
            operation, error = Operation(), OSError("no more pages")
            calling = begun(call, make(error), operation)
            assert await end_of(calling) is error
            assert operation.running == []
            assert operation.cleaned == operation.cancelled == [0, 1][: len(operation.begun)]


async def check_results_are_given_before_the_error(m: ModuleType) -> None:
    operation, found = Operation(passes=range(9)), list[int]()
    with pytest.raises(OSError, match="no more"):
        async with m.async_as_completed(Source(0, 1, OSError("no more")), operation) as results:
            await turns()
            async for index, _ in results:
                found.append(index)
    assert found == [0, 1]


async def check_on_progress_that_raises_ends_the_call(m: ModuleType) -> None:
    def progress(completed: int, total: int | None) -> None:
        raise OSError("no terminal")

    for call in forms(m):
        operation, source = Operation(passes=[0]), Source(*range(9))
        calling = begun(call, source, operation, 3, on_progress=progress)
        assert str(await end_of(calling)) == "no terminal"
        assert operation.cleaned == operation.begun[1:]
        assert (operation.running, source.closed) == ([], 1)


async def check_what_is_no_exception_ends_the_call(m: ModuleType) -> None:
    async def operation(key: int) -> None:
        if key == 2:
            raise Stop
        await others(key)

    for call in forms(m):
        others = Operation()
        assert isinstance(await end_of(begun(call, range(9), operation, 3)), Stop)
        assert sorted(others.cleaned) == [0, 1]


async def check_a_source_is_closed_on_every_way_out(m: ModuleType) -> None:
    for call in forms(m):
        for keys, options in (
            ((0, 1), {}),
            ((0, 1), {"fail_fast": True}),
            ((0, OSError()), {}),
            ((0, 1), {"timeout": 0}),
        ):
            source = Source(*keys)
            operation = Operation(passes=[0, 1], fails=[1])
            await asyncio.gather(call(source, operation, **options), return_exceptions=True)
            assert source.closed == 1
        source = Source(*range(9))
        calling = begun(call, source, operation := Operation(), 2)
        await operation.runs([0, 1])
        calling.cancel()
        await asyncio.wait([calling])
        assert source.closed == 1, "left while it was not asked"


async def check_a_source_is_closed_that_was_never_asked(m: ModuleType) -> None:
    class Opened:
        closed = 0

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> int:
            raise StopAsyncIteration

        async def aclose(self) -> None:
            self.closed += 1

    opened = Opened()
    async with m.async_as_completed(opened, Operation()):
        pass
    assert opened.closed == 1


async def check_clean_up_of_a_source_is_not_interrupted(m: ModuleType) -> None:
    """It is cancelled once, whatever follows; and what it raises then is heard."""
    cleaned = list[str]()

    async def keys() -> Any:
        try:
            yield 0
            await asyncio.Event().wait()
        finally:
            await turns()
            cleaned.append("source")
            raise OSError("in its clean-up")

    async def operation(key: int) -> None:
        await turns(5)
        raise Stop

    for call in forms(m):
        cleaned.clear()
        error = await end_of(begun(call, keys(), operation))
        assert isinstance(error, Stop | OSError)
        assert cleaned == ["source"]


async def check_a_source_that_cancels_itself_is_no_end(m: ModuleType) -> None:
    def keys() -> Iterator[int]:
        yield 0
        raise asyncio.CancelledError

    for call in forms(m):
        operation = Operation()
        assert isinstance(await end_of(begun(call, keys(), operation)), asyncio.CancelledError)
        assert operation.running == []


def fails(text: str) -> str:
    return f"AssertionError: {text}"


CANCELLED = "isinstance(await end_of(calling), asyncio.CancelledError)"
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
    Proof(
        "AP-6",
        check_a_key_source_that_raises_ends_the_call,
        [
            Twin(
                "takes a failing source for its end",
                faults.takes_a_failing_source_for_its_end,
                "hang",
            )
        ],
    ),
    Proof(
        "AP-6",
        check_results_are_given_before_the_error,
        [
            Twin(
                "takes a failing source for its end",
                faults.takes_a_failing_source_for_its_end,
                "Failed: DID NOT RAISE",
            )
        ],
    ),
    Proof(
        "AP-6",
        check_on_progress_that_raises_ends_the_call,
        [
            Twin(
                "hears no error of on_progress",
                faults.hears_no_error_of_on_progress,
                "hang",
            )
        ],
    ),
    Proof(
        "AP-6",
        check_what_is_no_exception_ends_the_call,
        [
            Twin(
                "waits for nobody",
                faults.waits_for_nobody,
                fails("sorted(others.cleaned) == [0, 1]"),
            )
        ],
    ),
    Proof(
        "AP-6",
        check_a_source_is_closed_on_every_way_out,
        [
            Twin(
                "closes no source",
                faults.closes_no_source,
                fails("left while it was not asked"),
            )
        ],
    ),
    Proof(
        "AP-6",
        check_a_source_is_closed_that_was_never_asked,
        [Twin("closes no source", faults.closes_no_source, fails("opened.closed == 1"))],
    ),
    Proof("AP-6", check_clean_up_of_a_source_is_not_interrupted),
    Proof("AP-6", check_a_source_that_cancels_itself_is_no_end),
]

test_holds = holding(PROOFS, module)
test_a_broken_twin_fails = caught(PROOFS)


@pytest.mark.guarantee("AP-6")
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["operation", "key source", "on_progress"])
def test_what_leaves_the_loop_leaves_nothing_running(kind: type[BaseException], where: str) -> None:
    async def main(number: int) -> None:
        async def strike(key: int) -> int:
            if key == 2:
                if where == "operation":
                    raise kind
                return key
            return int(await operation(key))

        async def keys() -> Any:
            try:
                for key in range(4):
                    await asyncio.sleep(0)
                    if key == 3 and where == "key source":
                        raise kind
                    yield key
            finally:
                closed.append(where)

        def progress(completed: int, total: int | None) -> None:
            if where == "on_progress":
                raise kind

        await forms(module)[number](keys(), strike, on_progress=progress)

    for number in (0, 1):
        operation, closed = Operation(), list[str]()
        with pytest.raises(kind):
            asyncio.run(main(number))
        assert operation.running == []
        assert closed == [where]


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
