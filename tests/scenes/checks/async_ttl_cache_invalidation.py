"""A price changes while it is loaded: the cache must not keep the old one."""

import asyncio


async def model(module):
    cache = module.AsyncTTLCache(60.0, clock=lambda: 1.0)
    price = {"bolt": "old"}

    async def load():
        seen = price["bolt"]
        await asyncio.sleep(0)  # the answer is on its way
        return seen

    async def read():
        return await cache.get_or_load("bolt", load)

    async def change():
        price["bolt"] = "new"
        await cache.delete("bolt")

    reader = asyncio.create_task(read(), name="reader")
    writer = asyncio.create_task(change(), name="writer")
    await asyncio.gather(reader, writer)
    kept = await cache.get("bolt", "nothing")
    assert kept != "old", f"the cache keeps the {kept} price"
