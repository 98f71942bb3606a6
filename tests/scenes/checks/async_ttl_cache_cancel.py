"""Two callers share a load, and the first is cancelled: the second must get the value."""

import asyncio


async def model(module):
    cache = module.AsyncTTLCache(60.0, clock=lambda: 1.0)
    begun = asyncio.Event()

    async def load():
        begun.set()
        await asyncio.sleep(0.2)
        return 9.90

    async def cancel(caller):
        await begun.wait()
        caller.cancel()

    first = asyncio.create_task(cache.get_or_load("bolt", load), name="first caller")
    second = asyncio.create_task(cache.get_or_load("bolt", load), name="second caller")
    leaving = asyncio.create_task(cancel(first), name="canceller")
    await asyncio.wait([first, second, leaving])
    assert not second.cancelled(), "the second caller is cancelled, too"
    assert second.result() == 9.90
