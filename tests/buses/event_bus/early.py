"""A bus that its module starts, maybe in a child that has not begun, but unpickles its task."""

import sys
import threading
from typing import Any

from reference_impl.buses.event import Event
from reference_impl.buses.event_bus import EventBus

gate = threading.Event()


class Bus(EventBus):
    """Calls no handler before it is stopped."""

    def stop(self, *arguments: Any, **options: Any) -> list[Event]:
        """Open the gate."""
        gate.set()
        return super().stop(*arguments, **options)


def handle(event: Event) -> None:
    """Wait for the stop."""
    gate.wait()
    print(event.payload, flush=True)


if "pytest" not in sys.modules:  # which imports this file, too, for its doctests
    bus = Bus(1)
    bus.subscribe("topic", handle)
    bus.start()
    for number in range(5):
        bus.publish(Event.create("topic", number))
