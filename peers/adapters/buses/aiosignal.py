"""aiosignal: https://github.com/aio-libs/aiosignal."""

import asyncio
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import aiosignal

from peers.adapters.buses import AsyncBus
from peers.outcomes import NotOffered


class Signal(AsyncBus):
    """Its signal: a list of coroutine functions, frozen before it is sent."""

    name = "aiosignal.Signal"
    package = "aiosignal"
    documented = "https://aiosignal.aio-libs.org/en/stable/"
    take_it = "The signals of aiohttp: a frozen list of callbacks that are awaited one by one."
    imports = """
from types import SimpleNamespace
import aiosignal
import asyncio
import inspect
"""

    @staticmethod
    def new() -> Any:
        return SimpleNamespace(runner=asyncio.Runner(), bus=aiosignal.Signal(None))

    @staticmethod
    def subscribe(bus: Any, handler: Callable[[Any], Any]) -> Any:
        async def receiver(value: Any) -> None:
            if inspect.isawaitable(result := handler(value)):
                await result

        bus.bus.append(receiver)

    @staticmethod
    def unsubscribe(bus: Any, token: Any) -> None:
        raise NotOffered("a signal is frozen before it is sent")

    @staticmethod
    def emit(bus: Any, value: Any) -> None:
        bus.bus.freeze()
        bus.runner.run(bus.bus.send(value))
