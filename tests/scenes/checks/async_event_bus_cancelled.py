"""A publisher that is cancelled while it waits for room publishes nothing."""

import asyncio


async def model(module):
    handled = []
    bus = module.AsyncEventBus(max_concurrency=1, max_queue=1)
    bus.subscribe("topic", lambda event: handled.append(event.payload))
    await bus.start()
    await bus.publish(module.Event("topic", 0))  # the bus is full
    publishing = bus.publish(module.Event("topic", 1))
    publisher = asyncio.create_task(publishing, name="publisher")
    await asyncio.sleep(0)
    in_time = publisher.cancel()
    await asyncio.wait([publisher])
    await bus.stop()
    assert publisher.cancelled() == in_time, "it was cancelled, and went on"
    assert handled == ([0] if in_time else [0, 1]), f"handled: {handled}"
