"""Where the source of keys fails, the call raises its error, whatever ends first."""

import asyncio
from collections.abc import AsyncIterator
from types import ModuleType


async def model(module: ModuleType) -> None:
    async def keys() -> AsyncIterator[int]:
        yield 1
        for _ in range(2):
            await asyncio.sleep(0)
        raise OSError("the connection is lost")

    async def operation(key: int) -> int:
        await asyncio.sleep(0)
        return key

    try:
        results = await module.async_parallel_execute(keys(), operation)
    except OSError:
        return
    raise AssertionError(f"no error, and {results}")
