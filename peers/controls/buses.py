"""For each check of buses a bus that fails it, and one that holds them or says not offered."""

import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from peers.adapters.buses import RUNNER, AsyncBus, Bus


class Sound(Bus):
    """Calls handlers where it is told, and prints what they raise."""

    name = "a list and a lock"
    package = None
    documented = ""
    take_it = ""

    @staticmethod
    def new() -> Any:
        return SimpleNamespace(lock=threading.Lock(), handlers=[])

    @staticmethod
    def subscribe(bus: Any, handler: Callable[[Any], Any]) -> Any:
        with bus.lock:
            bus.handlers = [*bus.handlers, handler]
        return handler

    @staticmethod
    def unsubscribe(bus: Any, token: Any) -> None:
        with bus.lock:
            bus.handlers = [each for each in bus.handlers if each is not token]

    @staticmethod
    def emit(bus: Any, value: Any) -> None:
        for handler in bus.handlers:
            try:
                handler(value)
            except Exception:
                traceback.print_exc()


class Forgetful(Sound):
    """Knows one handler alone."""

    @staticmethod
    def subscribe(bus: Any, handler: Callable[[Any], Any]) -> Any:
        bus.handlers = [handler]
        return handler


class Raises(Sound):
    """Stops at the first error."""

    @staticmethod
    def emit(bus: Any, value: Any) -> None:
        for handler in bus.handlers:
            handler(value)


class Silent(Sound):
    """Tells nobody."""

    @staticmethod
    def emit(bus: Any, value: Any) -> None:
        for handler in bus.handlers:
            with suppress(Exception):
                handler(value)


class Keeps(Sound):
    """Does not unsubscribe."""

    @staticmethod
    def unsubscribe(bus: Any, token: Any) -> None:
        """Nothing."""


class Live(Sound):
    """Walks the list that others change."""

    explorable = ("peers.controls.buses",)

    @staticmethod
    def unsubscribe(bus: Any, token: Any) -> None:
        with bus.lock:
            bus.handlers.remove(token)


class Unlocked(Sound):
    """Two that subscribe at once replace each other's list."""

    explorable = ("peers.controls.buses",)

    @staticmethod
    def subscribe(bus: Any, handler: Callable[[Any], Any]) -> Any:
        before = bus.handlers
        bus.handlers = [*before, handler]
        return handler


class Threads(Sound):
    """A thread for each event, which close does not wait for."""

    @staticmethod
    def emit(bus: Any, value: Any) -> None:
        threading.Thread(target=Sound.emit, args=(bus, value), daemon=True).start()

    @staticmethod
    def close(bus: Any) -> None:
        """Nothing."""


class Stays(Sound):
    """A thread that waits for more, and keeps the program from its end."""

    @staticmethod
    def new() -> Any:
        bus = Sound.new()
        threading.Thread(target=threading.Event().wait).start()
        return bus


class OneByOne(AsyncBus):
    """Awaits handlers in turn, up to the first that is cancelled."""

    name = "a loop over coroutine functions"
    package = None
    documented = ""
    take_it = ""

    @staticmethod
    def new() -> Any:
        return []

    @staticmethod
    def subscribe(bus: Any, handler: Callable[[Any], Any]) -> Any:
        bus.append(handler)

    @staticmethod
    def emit(bus: Any, value: Any) -> None:
        async def main() -> None:
            for handler in bus:
                await handler(value)

        RUNNER.run(main())


SOUND = Sound
CONTROLS: dict[str, type[Bus]] = {
    "adapter_sound": Forgetful,
    "raising_handler": Raises,
    "error_reported": Silent,
    "unsubscribed_stays_out": Keeps,
    "unsubscribe_in_handler": Live,
    "subscribing_concurrently": Unlocked,
    "unsubscribing_concurrently": Live,
    "order": Threads,
    "close_drains": Threads,
    "process_ends": Stays,
    "cancelled_handler": OneByOne,
}
