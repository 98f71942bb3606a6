"""A publisher that is cancelled while it waits for room ends by that, and publishes nothing."""

import asyncio
from types import ModuleType
from typing import Any


async def model(module: ModuleType) -> None:
    handled: list[Any] = []
    bus = module.AsyncEventBus(max_concurrency=1, max_queue=1)
    bus.subscribe("topic", lambda event: handled.append(event.payload))
    await bus.start()
    bus.publish_nowait(module.Event("topic", 0))  # the bus is full
    publisher = asyncio.create_task(bus.publish(module.Event("topic", 1)), name="publisher")
    await asyncio.sleep(0)
    in_time = publisher.cancel()
    await asyncio.wait([publisher])
    await bus.stop()
    assert publisher.cancelled() == in_time, "it was cancelled, and went on"
    assert handled == ([0] if in_time else [0, 1]), f"handled: {handled}"
