"""This project's EventBus and AsyncEventBus."""

from collections.abc import Callable
from typing import Any

from peers.adapters.buses import AFTER, RUNNER, AsyncBus, Bus
from reference_impl.buses.async_event_bus import AsyncEventBus
from reference_impl.buses.event import ANY, Event
from reference_impl.buses.event_bus import EventBus

_SITE = "https://executable-guarantees.example/buses"


class Threads(Bus):
    """EventBus as it is by default: calls of one handler may run side by side."""

    name = "EventBus"
    package = None
    ours = True
    documented = f"{_SITE}/event_bus.html"
    take_it = "Three files to copy; worker threads, a bound, and a stop that drains."
    imports = (
        "from reference_impl.buses.event import ANY, Event\n"
        "from reference_impl.buses.event_bus import EventBus"
    )
    unexplored = "it has threads of its own"

    @staticmethod
    def new() -> Any:
        bus = EventBus()
        bus.start()
        return bus

    @staticmethod
    def subscribe(bus: Any, handler: Callable[[Any], Any]) -> Any:
        return bus.subscribe(ANY, lambda event: handler(event.payload))

    @staticmethod
    def unsubscribe(bus: Any, token: Any) -> None:
        token.cancel()

    @staticmethod
    def emit(bus: Any, value: Any) -> None:
        bus.publish(Event.create("event", value))

    @staticmethod
    def settle(bus: Any) -> None:
        bus.wait_idle(10)

    @staticmethod
    def close(bus: Any) -> None:
        bus.stop()


class ThreadsOrdered(Threads):
    """EventBus, one event at a time for each handler."""

    name = "EventBus, ordered=True"
    take_it = "As EventBus; each handler sees each publisher's events in order."

    @staticmethod
    def subscribe(bus: Any, handler: Callable[[Any], Any]) -> Any:
        return bus.subscribe(ANY, lambda event: handler(event.payload), ordered=True)


class Loop(AsyncBus):
    """AsyncEventBus as it is by default."""

    name = "AsyncEventBus"
    package = None
    ours = True
    documented = f"{_SITE}/async_event_bus.html"
    take_it = "Three files to copy; asyncio, a bound, and a stop that drains."
    imports = (
        "from reference_impl.buses.async_event_bus import AsyncEventBus\n"
        "from reference_impl.buses.event import ANY, Event\n"
        f"import asyncio\nRUNNER = asyncio.Runner()\n{AFTER}"
    )

    @staticmethod
    def new() -> Any:
        return RUNNER.run(AsyncEventBus().__aenter__())

    @staticmethod
    def subscribe(bus: Any, handler: Callable[[Any], Any]) -> Any:
        return bus.subscribe(ANY, lambda event: handler(event.payload))

    @staticmethod
    def unsubscribe(bus: Any, token: Any) -> None:
        token.cancel()

    @staticmethod
    def emit(bus: Any, value: Any) -> None:
        RUNNER.run(bus.publish(Event.create("event", value)))

    @staticmethod
    def settle(bus: Any) -> None:
        RUNNER.run(bus.wait_idle(10))

    @staticmethod
    def close(bus: Any) -> None:
        RUNNER.run(bus.stop())


class LoopOrdered(Loop):
    """AsyncEventBus, one event at a time for each handler."""

    name = "AsyncEventBus, ordered=True"
    take_it = "As AsyncEventBus; each handler sees each publisher's events in order."

    @staticmethod
    def subscribe(bus: Any, handler: Callable[[Any], Any]) -> Any:
        return bus.subscribe(ANY, lambda event: handler(event.payload), ordered=True)
