"""pyee: https://github.com/jfhbrook/pyee."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pyee
import pyee.asyncio
import pyee.executor

from peers.adapters.buses import AFTER, RUNNER, AsyncBus, Bus


class Emitter(Bus):
    """Its base class, which calls handlers in emit."""

    name = "pyee.EventEmitter"
    package = "pyee"
    documented = "https://pyee.readthedocs.io/en/latest/"
    take_it = "Node's interface; handlers run where emit is called, in the order of subscribing."
    imports = "import pyee"
    explorable: ClassVar[tuple[str, ...]] = ("pyee",)

    @staticmethod
    def new() -> Any:
        return pyee.EventEmitter()

    @staticmethod
    def subscribe(bus: Any, handler: Callable[[Any], Any]) -> Any:
        return bus.on("event", handler)

    @staticmethod
    def unsubscribe(bus: Any, token: Any) -> None:
        bus.remove_listener("event", token)

    @staticmethod
    def emit(bus: Any, value: Any) -> None:
        bus.emit("event", value)


class Executor(Emitter):
    """Its class that calls handlers in a thread pool."""

    name = "pyee.executor.ExecutorEventEmitter"
    take_it = "Node's interface; a slow handler does not hold up emit."
    imports = "import pyee.executor"
    explorable = ()
    unexplored = "concurrent.futures has threads of its own"

    @staticmethod
    def new() -> Any:
        return pyee.executor.ExecutorEventEmitter()

    @staticmethod
    def close(bus: Any) -> None:
        bus.shutdown()


class OneWorker(Executor):
    """The same with an executor of one thread, which it may be given."""

    name = "ExecutorEventEmitter, max_workers=1"
    take_it = "Node's interface; handlers run one at a time, apart from emit."
    imports = "from concurrent.futures import ThreadPoolExecutor\nimport pyee.executor"

    @staticmethod
    def new() -> Any:
        return pyee.executor.ExecutorEventEmitter(ThreadPoolExecutor(max_workers=1))


class Asyncio(AsyncBus):
    """Its class whose handlers are coroutine functions."""

    name = "pyee.asyncio.AsyncIOEventEmitter"
    package = "pyee"
    documented = "https://pyee.readthedocs.io/en/latest/"
    take_it = "Node's interface for asyncio; emit is a plain function and does not wait."
    imports = f"import asyncio\nimport pyee.asyncio\nRUNNER = asyncio.Runner()\n{AFTER}"

    @staticmethod
    def new() -> Any:
        return pyee.asyncio.AsyncIOEventEmitter(loop=RUNNER.get_loop())

    @staticmethod
    def subscribe(bus: Any, handler: Callable[[Any], Any]) -> Any:
        return bus.on("event", handler)

    @staticmethod
    def unsubscribe(bus: Any, token: Any) -> None:
        bus.remove_listener("event", token)

    @staticmethod
    def emit(bus: Any, value: Any) -> None:
        bus.emit("event", value)

    @staticmethod
    def settle(bus: Any) -> None:
        RUNNER.run(bus.wait_for_complete())

    @staticmethod
    def close(bus: Any) -> None:
        RUNNER.run(bus.wait_for_complete())
