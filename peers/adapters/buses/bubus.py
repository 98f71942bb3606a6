"""bubus: https://github.com/browser-use/bubus."""

from collections.abc import Callable
from typing import Any

import bubus

from peers.adapters.buses import RUNNER, AsyncBus


async def dispatch(bus: Any, event: Any) -> None:
    """It wants a running loop."""
    bus.dispatch(event)


class EventBus(AsyncBus):
    """Its bus."""

    name = "bubus.EventBus"
    package = "bubus"
    documented = "https://github.com/browser-use/bubus"
    take_it = "Typed events with results, parents and a log, in one order over several buses."
    imports = (
        "import asyncio, bubus\nRUNNER = asyncio.Runner()\n"
        "async def dispatch(bus, event): bus.dispatch(event)"
    )

    @staticmethod
    def new() -> Any:
        return bubus.EventBus()

    @staticmethod
    def subscribe(bus: Any, handler: Callable[[Any], Any]) -> Any:
        async def receiver(event):  # type: ignore[no-untyped-def]
            await handler(event.value)

        bus.on("Changed", receiver)

    @staticmethod
    def emit(bus: Any, value: Any) -> None:
        RUNNER.run(dispatch(bus, bubus.BaseEvent(event_type="Changed", value=value)))

    @staticmethod
    def settle(bus: Any) -> None:
        RUNNER.run(bus.wait_until_idle(timeout=10))

    @staticmethod
    def close(bus: Any) -> None:
        RUNNER.run(bus.stop(timeout=10))
