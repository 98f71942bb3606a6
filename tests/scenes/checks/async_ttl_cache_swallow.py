"""Two callers share a load, and the second is cancelled: its task must end as cancelled."""

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
    detangle.inject_cancellation(second)
    await asyncio.wait([first, second])
    was_cancelled = second in detangle.current_loop().injected
    assert second.cancelled() == was_cancelled, "the second caller goes on, though cancelled"
