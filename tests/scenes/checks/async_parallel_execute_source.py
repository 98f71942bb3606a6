"""Where the source of keys fails, the call raises its error, whatever ends first."""

import asyncio


async def model(module):
    async def keys():
        yield 1
        for _ in range(2):
            await asyncio.sleep(0)
        raise OSError("the connection is lost")

    async def operation(key):
        await asyncio.sleep(0)
        return key

    try:
        results = await module.async_parallel_execute(keys(), operation)
    except OSError:
        return
    raise AssertionError(f"no error, and {results}")
