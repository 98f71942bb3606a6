"""An event that another thread posts during the stop is handled, or refused."""

import asyncio
from types import ModuleType
from typing import Any


def model(module: ModuleType) -> None:
    from interleave_test import no_interleave, spawn

    handled: list[Any] = []
    futures: list[Any] = []
    with no_interleave():
        bus = module.AsyncEventBus()
        bus.subscribe("topic", handled.append)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(bus.start())

    def post() -> None:
        futures.append(bus.publish_threadsafe(module.Event("topic")))

    def stop() -> None:
        loop.run_until_complete(bus.stop())

    threads = [spawn(post, name="poster"), spawn(stop, name="loop")]
    for thread in threads:
        thread.join()
    with no_interleave():
        loop.run_until_complete(asyncio.sleep(0))  # its last turns
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    assert futures[0].done(), "the future never settles"
    assert futures[0].exception() or handled, "accepted, and never handled"
