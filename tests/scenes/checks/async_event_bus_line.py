"""The first of two that wait for room is cancelled: the second gets the room."""

import asyncio


async def model(module):
    handled, go = [], asyncio.Event()

    async def handler(event):
        handled.append(event.payload)
        await go.wait()

    bus = module.AsyncEventBus(max_concurrency=1, max_queue=1)
    bus.subscribe("topic", handler)
    await bus.start()
    calls = [bus.publish(module.Event("topic", number)) for number in range(4)]
    await calls[0]
    await asyncio.sleep(0)  # its handler runs
    await calls[1]  # its event waits, and the bus is full
    first = asyncio.create_task(calls[2], name="first publisher")
    second = asyncio.create_task(calls[3], name="second publisher")
    await asyncio.sleep(0)
    go.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    in_time = first.cancel()
    await asyncio.wait([first, second])
    await bus.stop()
    assert handled == ([0, 1, 3] if in_time else [0, 1, 2, 3]), f"handled: {handled}"
