"""Two tasks need one value that is not there: one loader must run for both."""

import asyncio


async def model(module):
    cache = module.AsyncTTLCache(60.0, clock=lambda: 1.0)
    calls = []

    async def load():
        calls.append("load")
        await asyncio.sleep(0)
        return 9.90

    first = asyncio.create_task(cache.get_or_load("bolt", load), name="first caller")
    second = asyncio.create_task(cache.get_or_load("bolt", load), name="second caller")
    await asyncio.gather(first, second)
    assert len(calls) == 1, f"2 callers, {len(calls)} loads"
