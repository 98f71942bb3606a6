"""A handler that publishes into its own full bus gets an answer."""

from types import ModuleType
from typing import Any


def model(module: ModuleType) -> None:
    from interleave_test import no_interleave

    refused: list[Any] = []

    def handler(event: Any) -> None:
        try:
            bus.publish(module.Event("other"))  # fills the bus
            bus.publish(module.Event("other"))
        except module.BusFull as error:
            refused.append(error)

    with no_interleave():
        bus = module.EventBus(max_workers=1, max_queue=1)
        bus.subscribe("topic", handler)
        bus.subscribe("other", lambda event: None)
        bus.start()
        bus.publish(module.Event("topic"))
        bus.wait_idle()
        bus.stop()
    assert len(refused) == 1, "nobody was told that the bus is full"
