"""A cancelled call returns when none of its operations runs any more."""

import asyncio


async def model(module):
    running = set()

    async def operation(key):
        running.add(key)
        try:
            await asyncio.Event().wait()  # forever
        finally:
            await asyncio.sleep(0)  # it cleans up
            running.discard(key)

    async def call():
        try:
            await module.async_parallel_execute([1], operation)
        finally:
            assert not running, "an operation still runs"

    caller = asyncio.create_task(call(), name="caller")
    for _ in range(3):
        await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait([caller])
    if not caller.cancelled():
        caller.result()
