"""async_parallel_execute: results, bounds, contexts."""

import asyncio
import contextvars
import gc
import itertools
import sys
import tracemalloc
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import async_parallel_execute as module
from tests.bridges.async_parallel_execute import faults
from tests.bridges.async_parallel_execute.helpers import (
    Operation,
    Source,
    caught,
    forms,
    outcomes,
)
from tests.kit.fakes import run, turns, until
from tests.kit.profile import budget
from tests.kit.proofs import Proof, holding
from tests.kit.twins import Twin

request_id = contextvars.ContextVar("request_id", default="none")


# Each check runs on the component (the guarantee), and on broken twins, where it must fail.


async def check_results_come_in_the_order_of_the_keys(m: ModuleType) -> None:
    for call in forms(m):
        ended = [asyncio.Event() for _ in range(4)]
        ended[3].set()

        async def after_the_next(key: int, ended: list[asyncio.Event] = ended) -> int:
            await ended[key + 1].wait()
            ended[key].set()
            return -key

        results = await call(range(3), after_the_next, 3)
        assert [(r.key, r.unwrap()) for r in results] == [(0, 0), (1, -1), (2, -2)]


async def check_completion_decides_the_order(m: ModuleType) -> None:
    operation = Operation(passes=[2, 3])
    async with m.async_as_completed(range(4), operation) as results:
        first = [await anext(results), await anext(results)]
        operation.let_go.set()
        others = [index async for index, _ in results]
    assert sorted(index for index, _ in first) == [2, 3]
    assert all(result.unwrap() == index for index, result in first)
    assert sorted(others) == [0, 1]


async def check_none_is_a_success(m: ModuleType) -> None:
    async def nothing(key: int) -> None:
        await asyncio.sleep(0)

    for call in forms(m):
        (result,) = await call([1], nothing)
        assert outcomes([result]) == [None]


async def check_an_error_stays_with_its_key(m: ModuleType) -> None:
    raised = {key: LookupError(key) for key in (1, 3)}

    async def operation(key: int) -> int:
        if key in raised:
            raise raised[key]
        return key

    for call in forms(m):
        results = await call(range(5), operation, 2)
        assert outcomes(results) == [0, LookupError, 2, LookupError, 4]
        assert all(results[key].error is error for key, error in raised.items())


async def check_no_more_than_the_limit_run(m: ModuleType) -> None:
    for call in forms(m):
        operation = Operation(passes=range(20))
        assert outcomes(await call(range(20), operation, 3)) == [*range(20)]
        assert operation.most == 3


async def check_keys_are_drawn_as_they_are_wanted(m: ModuleType) -> None:
    for call in forms(m):
        operation, drawn = Operation(passes=range(3)), list[int]()

        def keys(drawn: list[int] = drawn) -> Iterator[int]:
            for key in range(50):
                drawn.append(key)
                yield key

        calling = asyncio.ensure_future(call(keys(), operation, 4))
        await operation.runs([3, 4, 5, 6])
        await turns()
        assert drawn == [*range(7)], "three have ended, and four run"
        operation.let_go.set()
        assert len(await calling) == 50


async def check_results_that_nobody_takes_hold_up_the_rest(m: ModuleType) -> None:
    operation, drawn = Operation(passes=range(50)), Source(*range(50))
    async with m.async_as_completed(drawn, operation, 4) as results:
        await turns()
        assert drawn.given == [*range(4)]
        assert (await anext(results))[0] == 0
        await turns()
        assert drawn.given == [*range(5)]


async def check_no_task_for_a_key_that_waits(m: ModuleType) -> None:
    for call in forms(m):
        before, most = len(asyncio.all_tasks()), 0

        async def operation(key: int) -> None:
            nonlocal most
            most = max(most, len(asyncio.all_tasks()))
            await asyncio.sleep(0)

        await call(range(200), operation, 5)
        assert most - before <= 5 + 1


async def check_memory_does_not_grow_with_the_keys(m: ModuleType) -> None:
    async def operation(key: int) -> None:
        pass

    peaks = []
    for number in (1_000, budget(8_000, 1_000_000)):
        gc.collect()
        tracemalloc.start()
        try:
            async with m.async_as_completed(itertools.repeat("key", number), operation) as results:
                count = 0
                async for _ in results:
                    count += 1
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert count == number
    assert peaks[1] < peaks[0] + 50_000


async def sees_the_callers_context(m: ModuleType) -> None:
    async def operation(key: int) -> str:
        seen = request_id.get()
        request_id.set(f"spoilt by {key}")
        await asyncio.sleep(0)
        return seen

    for call in forms(m):
        token = request_id.set("r-7")
        assert outcomes(await call(range(20), operation, 2)) == ["r-7"] * 20
        assert request_id.get() == "r-7"
        request_id.reset(token)


async def check_operations_see_the_callers_context(m: ModuleType) -> None:
    await sees_the_callers_context(m)


async def check_the_context_is_that_of_who_enters(m: ModuleType) -> None:
    async def operation(key: int) -> str:
        return request_id.get()

    request_id.set("made")
    completed = m.async_as_completed([1], operation)
    coroutine = m.async_parallel_execute([1], operation)
    request_id.set("entered")
    found = outcomes(await coroutine)
    async with completed as results:
        found += [result.unwrap() async for _, result in results]
    assert found == ["entered", "entered"]


async def check_contexts_where_tasks_start_at_once(m: ModuleType) -> None:
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    await sees_the_callers_context(m)

    async def at_once(key: int) -> int:
        return key

    for call in forms(m):
        assert outcomes(await call(range(300), at_once, 2)) == [*range(300)]


async def check_contexts_where_a_factory_knows_of_none(m: ModuleType) -> None:
    asyncio.get_running_loop().set_task_factory(
        lambda loop, coroutine, **_: asyncio.Task(coroutine, loop=loop)
    )
    await sees_the_callers_context(m)


PROOFS = [
    Proof(
        "AP-1",
        check_results_come_in_the_order_of_the_keys,
        [
            Twin(
                "takes the keys in reverse",
                faults.reverses_the_keys,
                "AssertionError: [(r.key, r.unwrap()) for r in results]",
            )
        ],
    ),
    Proof(
        "AP-1",
        check_completion_decides_the_order,
        [
            Twin(
                "takes the keys in reverse",
                faults.reverses_the_keys,
                "AssertionError: sorted(index for index, _ in first)",
            )
        ],
    ),
    Proof(
        "AP-1",
        check_none_is_a_success,
        [
            Twin(
                "fails for None",
                faults.fails_for_none,
                "AssertionError: outcomes([result]) == [None]",
            )
        ],
    ),
    Proof(
        "AP-1",
        check_an_error_stays_with_its_key,
        [
            Twin(
                "mistakes each error for another",
                faults.mistakes_errors,
                "AssertionError: outcomes(results) == [0, LookupError",
            )
        ],
    ),
    Proof(
        "AP-2",
        check_no_more_than_the_limit_run,
        [Twin("runs one more", faults.runs_one_more, "AssertionError: operation.most == 3")],
    ),
    Proof(
        "AP-2",
        check_keys_are_drawn_as_they_are_wanted,
        [
            Twin(
                "draws all keys at once",
                faults.draws_all_at_once,
                "AssertionError: three have ended, and four run",
            )
        ],
    ),
    Proof(
        "AP-2",
        check_results_that_nobody_takes_hold_up_the_rest,
        [
            Twin(
                "counts no untaken results",
                faults.counts_no_untaken_results,
                "AssertionError: drawn.given == [*range(4)]",
            )
        ],
    ),
    Proof("AP-2", check_no_task_for_a_key_that_waits),
    Proof("AP-2", check_memory_does_not_grow_with_the_keys),
    Proof(
        "AP-7",
        check_operations_see_the_callers_context,
        [
            Twin(
                "runs them in no context",
                faults.runs_in_no_context,
                'AssertionError: operation, 2)) == ["r-7"] * 20',
            ),
            Twin(
                "runs them all in one context",
                faults.runs_all_in_one_context,
                'AssertionError: operation, 2)) == ["r-7"] * 20',
            ),
        ],
    ),
    Proof(
        "AP-7",
        check_the_context_is_that_of_who_enters,
        [Twin("runs them in no context", faults.runs_in_no_context, "AssertionError: entered")],
    ),
    Proof(
        "AP-7",
        check_contexts_where_tasks_start_at_once,
        [
            Twin(
                "runs them in no context",
                faults.runs_in_no_context,
                'AssertionError: operation, 2)) == ["r-7"] * 20',
            )
        ],
    ),
    Proof("AP-7", check_contexts_where_a_factory_knows_of_none),
]

test_holds = holding(PROOFS, module)
test_a_broken_twin_fails = caught(PROOFS)


def test_ten_operations_at_once_by_default() -> None:
    async def main() -> None:
        operation = Operation()
        calling = asyncio.ensure_future(module.async_parallel_execute(range(12), operation))
        await until(lambda: len(operation.begun) == 10)
        await turns()
        assert len(operation.begun) == 10
        operation.let_go.set()
        await calling

    run(main())


@pytest.mark.parametrize("keys", [[], (), iter([]), Source()])
def test_no_keys_give_no_results(keys: Any) -> None:
    async def main() -> None:
        for call in forms(module):
            assert await call(keys, Operation()) == []

    run(main())
