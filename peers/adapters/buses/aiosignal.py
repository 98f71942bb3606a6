"""aiosignal: https://github.com/aio-libs/aiosignal."""

from collections.abc import Callable
from typing import Any

import aiosignal

from peers.adapters.buses import RUNNER, AsyncBus
from peers.outcomes import NotOffered


class Signal(AsyncBus):
    """Its signal: a list of coroutine functions, frozen before it is sent."""

    name = "aiosignal.Signal"
    package = "aiosignal"
    documented = "https://aiosignal.readthedocs.io/"
    take_it = "The signals of aiohttp: a frozen list of callbacks that are awaited one by one."
    imports = "import aiosignal\nimport asyncio\nRUNNER = asyncio.Runner()"

    @staticmethod
    def new() -> Any:
        return aiosignal.Signal(None)

    @staticmethod
    def subscribe(bus: Any, handler: Callable[[Any], Any]) -> Any:
        bus.append(handler)

    @staticmethod
    def unsubscribe(bus: Any, token: Any) -> None:
        raise NotOffered("a signal is frozen before it is sent")

    @staticmethod
    def emit(bus: Any, value: Any) -> None:
        bus.freeze()
        RUNNER.run(bus.send(value))
