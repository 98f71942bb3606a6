"""Two callers share a load; the first one is cancelled. The second must not notice."""

import asyncio

import detangle


async def model(module):
    cache = module.AsyncTTLCache()

    async def load():
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return 1

    first = asyncio.create_task(cache.get_or_load("key", load), name="first caller")
    second = asyncio.create_task(cache.get_or_load("key", load), name="second caller")
    detangle.inject_cancellation(first)
    await asyncio.wait([first, second])
    assert not second.cancelled(), "the second caller is cancelled, too"
