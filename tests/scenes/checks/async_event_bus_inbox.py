"""An event posted just before the stop is handled, or refused."""

import asyncio


async def model(module):
    handled = []
    bus = module.AsyncEventBus()
    bus.subscribe("topic", handled.append)
    await bus.start()
    posted = bus.publish_threadsafe(module.Event("topic"))
    await bus.stop()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert posted.done(), "the future never settles"
    assert posted.exception() or handled, "accepted, and never handled"
