"""Two publishers wait for room, and the first is cancelled: the second one gets the room."""

import asyncio
from types import ModuleType
from typing import Any


async def model(module: ModuleType) -> None:
    handled: list[Any] = []
    go = asyncio.Event()

    async def handler(event: Any) -> None:
        handled.append(event.payload)
        await go.wait()

    bus = module.AsyncEventBus(max_concurrency=1, max_queue=1)
    bus.subscribe("topic", handler)
    await bus.start()
    await bus.publish(module.Event("topic", 0))
    await asyncio.sleep(0)  # it runs
    await bus.publish(module.Event("topic", 1))  # it waits, and the bus is full
    first = asyncio.create_task(bus.publish(module.Event("topic", 2)), name="first publisher")
    second = asyncio.create_task(bus.publish(module.Event("topic", 3)), name="second publisher")
    await asyncio.sleep(0)
    go.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    in_time = first.cancel()
    await asyncio.wait([first, second])
    await bus.stop()
    assert handled == ([0, 1, 3] if in_time else [0, 1, 2, 3]), f"handled: {handled}"
