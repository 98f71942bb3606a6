"""Two callers share a load, and the first is cancelled: the second must get the value."""

import asyncio

import detangle


async def model(module):
    cache = module.AsyncTTLCache(60.0, clock=lambda: 1.0)

    async def load():
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return 9.90

    first = asyncio.create_task(cache.get_or_load("bolt", load), name="first caller")
    second = asyncio.create_task(cache.get_or_load("bolt", load), name="second caller")
    detangle.inject_cancellation(first)
    await asyncio.wait([first, second])
    assert not second.cancelled(), "the second caller is cancelled, too"
    assert second.result() == 9.90
