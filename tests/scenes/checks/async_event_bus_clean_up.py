"""When `stop` returns, no handler is still cleaning up."""

import asyncio


async def model(module):
    started, cleaned = [], []

    async def handler(event):
        started.append(event)
        try:
            await asyncio.Event().wait()  # forever
        finally:
            for _ in range(3):
                await asyncio.sleep(0)
            cleaned.append(event)

    bus = module.AsyncEventBus(on_error=lambda *_: None)
    bus.subscribe("topic", handler)
    await bus.start()
    await bus.publish(module.Event("topic"))
    await asyncio.sleep(0)
    await bus.stop(timeout=0)
    assert cleaned == started, "stop returned before the handler had cleaned up"
