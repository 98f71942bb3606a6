"""bubus: https://github.com/browser-use/bubus."""

import asyncio
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import bubus

from peers.adapters.buses import AsyncBus


class Changed(bubus.BaseEvent[None]):
    """The one event."""

    value: Any


class EventBus(AsyncBus):
    """Its bus."""

    name = "bubus.EventBus"
    package = "bubus"
    documented = "https://github.com/browser-use/bubus"
    take_it = "Typed events with results, parents and a log, in one order over several buses."
    imports = """
from types import SimpleNamespace
import asyncio
import bubus
import inspect
Changed = type("Changed", (bubus.BaseEvent,), {"__annotations__": {"value": object}})
"""

    @staticmethod
    def new() -> Any:
        return SimpleNamespace(runner=asyncio.Runner(), bus=bubus.EventBus())

    @staticmethod
    def subscribe(bus: Any, handler: Callable[[Any], Any]) -> Any:
        async def receiver(event: Any) -> None:
            if inspect.isawaitable(result := handler(event.value)):
                await result

        # It tells handlers apart by name and object.
        receiver.__name__ = f"receiver_{id(receiver)}"
        bus.bus.on("Changed", receiver)

    @staticmethod
    def emit(bus: Any, value: Any) -> None:
        async def main() -> None:
            bus.bus.dispatch(Changed(value=value))

        bus.runner.run(main())

    @staticmethod
    def settle(bus: Any) -> None:
        bus.runner.run(bus.bus.wait_until_idle(timeout=10))

    @staticmethod
    def close(bus: Any) -> None:
        bus.runner.run(bus.bus.stop(timeout=10))
