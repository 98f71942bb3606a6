"""An event that `publish` has accepted is handled, or `stop` returns it."""

import threading
from types import ModuleType
from typing import Any


def model(module: ModuleType) -> None:
    from interleave_test import no_interleave, spawn

    seen: list[Any] = []
    accepted: list[Any] = []
    event = module.Event("topic")

    def publish() -> None:
        try:
            bus.publish(event)
            accepted.append(event)
        except module.BusStopped:
            pass

    with no_interleave():
        bus = module.EventBus(max_workers=1)
        bus.subscribe("topic", seen.append)
        bus.start()
        threading.Event().wait(1)  # until the worker sleeps
    publisher = spawn(publish, name="publisher")
    returned = bus.stop()
    publisher.join()
    assert len(seen + returned) == len(accepted), "accepted, but neither handled nor returned"
