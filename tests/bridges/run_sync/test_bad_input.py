"""RS-6: what run_sync refuses, and what becomes of a refused coroutine."""

import asyncio
import functools
import inspect
import math
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import run_sync as component
from reference_impl.bridges.run_sync import run_sync
from tests.bridges.run_sync.faults import Call, around
from tests.bridges.run_sync.helpers import Loops, answer, both_ways, within_a_loop
from tests.kit.proofs import Proof
from tests.kit.twins import Twin


async def numbers() -> AsyncIterator[int]:
    yield 1


@pytest.mark.guarantee("RS-6")
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (answer, r"not the function <function answer at .*>: call answer\(\.\.\.\)"),
        (asyncio.Event().wait, r"call wait\(\.\.\.\)"),
        (functools.partial(answer), r"the function functools.partial.*: call function\(\.\.\.\)"),
        (numbers(), "not <async_generator object numbers"),
        ((number for number in [1]), "what an `async def` returns, not <generator"),
        (42, "not 42"),
        (None, "not None"),
    ],
    ids=["function", "method", "partial", "async generator", "generator", "int", "none"],
)
@both_ways
def test_what_is_no_coroutine_is_refused(way: Call, value: Any, message: str) -> None:
    with Loops() as loops, pytest.raises(TypeError, match=f"coro must be a coroutine.*{message}"):
        way(component, lambda: value)
    assert loops.made == (way is within_a_loop), "a loop was made for nothing"


@pytest.mark.guarantee("RS-6")
def test_a_future_is_refused_and_left_alone() -> None:
    async def main() -> None:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        with pytest.raises(TypeError, match="not <Future pending>: await it in the loop it is of"):
            run_sync(future)  # type: ignore[arg-type]
        assert not future.done()

    asyncio.run(main())


BAD_TIMEOUTS = [
    (-1, ValueError, "timeout must be at least 0 seconds, not -1"),
    (-0.001, ValueError, "not -0.001"),
    (-math.inf, ValueError, "not -inf"),
    (math.nan, ValueError, "not nan"),
    ("5", TypeError, "timeout must be a number of seconds, not '5'"),
    (True, TypeError, "not True"),
]


def check_refusals(m: ModuleType, way: Call) -> None:
    for timeout, error, text in BAD_TIMEOUTS:
        coro = answer()
        with pytest.raises(error, match=text):
            way(m, lambda coro=coro: coro, timeout=timeout)
        state = inspect.getcoroutinestate(coro)
        coro.close()
        assert state == inspect.CORO_CLOSED, "the refused coroutine is open"


def leaves_it_open(original: Call, coro: Any, timeout: float | None) -> Any:
    if timeout == -1:
        raise ValueError("timeout must be at least 0 seconds, not -1")
    return original(coro, timeout=timeout)


def takes_nan(original: Call, coro: Any, timeout: float | None) -> Any:
    return original(coro, timeout=None if timeout is math.nan else timeout)


PROOFS = [
    Proof(
        "RS-6",
        check_refusals,
        [
            Twin(
                "leaves a refused coroutine open",
                around(leaves_it_open),
                "AssertionError: the refused coroutine is open",
            ),
            Twin("takes NaN for no timeout", around(takes_nan), "Failed: DID NOT RAISE"),
        ],
    )
]


@pytest.mark.guarantee("RS-6")
def test_a_coroutine_that_another_task_drives_is_not_closed() -> None:
    async def main() -> None:
        go_on = asyncio.Event()
        theirs = go_on.wait()
        task = asyncio.create_task(theirs)
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError):
            run_sync(theirs)
        with pytest.raises(ValueError, match="timeout"):
            run_sync(theirs, timeout=-1)
        assert inspect.getcoroutinestate(theirs) == inspect.CORO_SUSPENDED
        go_on.set()
        await task

    asyncio.run(main())
