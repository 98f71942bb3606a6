"""An idle worker is woken by an event, and handles it."""

from types import ModuleType
from typing import Any


def model(module: ModuleType) -> None:
    from interleave_test import no_interleave, spawn

    seen: list[Any] = []
    with no_interleave():
        bus = module.EventBus(max_workers=1)
        bus.subscribe("topic", seen.append)
        bus.start()
    publisher = spawn(bus.publish, module.Event("topic"), name="publisher")
    publisher.join()
    with no_interleave():
        bus.wait_idle()
        bus.stop()
    assert len(seen) == 1, "the event was not handled once"
