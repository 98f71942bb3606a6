"""async_parallel_execute: errors of key sources, of on_progress, and what is no Exception."""

import asyncio
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import async_parallel_execute as module
from tests.bridges.async_parallel_execute import faults
from tests.bridges.async_parallel_execute.helpers import (
    Operation,
    Source,
    begun,
    caught,
    end_of,
    fails,
    forms,
)
from tests.kit.fakes import turns
from tests.kit.proofs import Proof, holding
from tests.kit.twins import Twin


class Stop(BaseException):
    """No Exception, and none that asyncio treats in its own way."""


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


PROOFS = [
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
