"""async_parallel_execute when a signal strikes: in an operation, a key source, on_progress."""

import asyncio
import signal
from typing import Any

import pytest

from reference_impl.bridges import async_parallel_execute as ours
from tests.bridges.async_parallel_execute.helpers import Operation, Source, forms


@pytest.mark.guarantee("AP-6")
@pytest.mark.parametrize("where", ["operation", "key source", "on_progress"])
@pytest.mark.parametrize("number", [0, 1], ids=["collected", "as completed"])
def test_a_signal_ends_the_call_and_all_that_runs(where: str, number: int) -> None:
    """Ctrl-C under asyncio.run cancels the caller, wherever it strikes."""

    async def main() -> None:
        def strike(here: str) -> None:
            if here == where:
                signal.raise_signal(signal.SIGINT)

        async def keys() -> Any:
            async for key in source:
                if key == 2:
                    strike("key source")
                yield key

        async def work(key: int) -> Any:
            if key == 2:
                strike("operation")
            return await operation(key)

        await forms(ours)[number](keys(), work, 3, on_progress=lambda *_: strike("on_progress"))

    operation, source = Operation(passes=[0]), Source(*range(9))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(main())
    finally:
        signal.signal(signal.SIGINT, before)
    assert operation.running == []
    assert sorted(operation.cleaned) == sorted(operation.cancelled)
