"""A publisher that waits for room in a full bus gets it once a call has started."""

from types import ModuleType
from typing import Any


def model(module: ModuleType) -> None:
    from interleave_test import no_interleave, spawn

    seen: list[Any] = []
    with no_interleave():
        bus = module.EventBus(max_workers=1, max_queue=1)
        bus.subscribe("topic", lambda event: seen.append(event.payload))
        bus.start()
        bus.publish(module.Event("topic", 1))  # the bus is full
    publisher = spawn(bus.publish, module.Event("topic", 2), name="publisher")
    publisher.join()
    with no_interleave():
        bus.stop()
    assert seen == [1, 2], f"handled: {seen}"
