"""An event that another thread posts during the stop is handled, or refused."""

import asyncio

from interleave_test import no_interleave, spawn


def model(module):
    handled = []
    with no_interleave():
        bus = module.AsyncEventBus()
        bus.subscribe("topic", handled.append)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(bus.start())

    def stop():
        loop.run_until_complete(bus.stop())

    stopper = spawn(stop, name="loop's thread")
    future = bus.publish_threadsafe(module.Event("topic"))
    stopper.join()
    with no_interleave():
        loop.run_until_complete(asyncio.sleep(0))  # its last turns
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    assert future.done(), "the future never settles"
    assert future.exception() or handled, "accepted, and never handled"
