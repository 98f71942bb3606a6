"""An event posted just before the stop is handled, or its future says BusStopped."""

import asyncio
from types import ModuleType
from typing import Any


async def model(module: ModuleType) -> None:
    handled: list[Any] = []
    bus = module.AsyncEventBus()
    bus.subscribe("topic", handled.append)
    await bus.start()
    posted = bus.publish_threadsafe(module.Event("topic"))
    await bus.stop()
    for _ in range(2):
        await asyncio.sleep(0)
    assert posted.done(), "the future never settles"
    if posted.exception() is None:
        assert handled, "accepted, and never handled"
