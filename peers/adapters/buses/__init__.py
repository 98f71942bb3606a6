"""Event buses and signals: one part of a program tells others what has happened."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, ClassVar

from peers.adapters import Row
from peers.outcomes import NotOffered


class Bus(Row):
    """A bus with one topic, whose handlers, made by `slow`, get a number."""

    # Used in one event loop, which the row hides; its handlers are coroutine functions.
    asynchronous: ClassVar[bool] = False

    @staticmethod
    def new() -> Any:
        """A bus that is ready."""
        raise NotImplementedError

    @staticmethod
    def subscribe(bus: Any, handler: Callable[[Any], Any]) -> Any:
        """Have the handler called; returns what `unsubscribe` wants."""
        raise NotImplementedError

    @staticmethod
    def unsubscribe(bus: Any, token: Any) -> None:
        """Have it called no more."""
        raise NotOffered("nobody can be unsubscribed")

    @staticmethod
    def emit(bus: Any, value: Any) -> None:
        """Tell all handlers, or have them told soon."""
        raise NotImplementedError

    @staticmethod
    def settle(bus: Any) -> None:
        """Wait until all handlers have been told."""

    @staticmethod
    def close(bus: Any) -> None:
        """Accept nothing more, and let handlers have what was accepted."""
        raise NotOffered("it has nothing to close: emit returns when all handlers have")

    @staticmethod
    def end(bus: Any) -> None:
        """What a program does at its end that knows nothing of the bus."""

    @staticmethod
    def slow(handler: Callable[[Any], Any], seconds: Callable[[Any], float]) -> Any:
        """The handler as one writes it here, when it takes so many seconds."""
        return lambda value: handler(time.sleep(seconds(value)) or value)  # type: ignore[func-returns-value]


async def after(handler: Callable[[Any], Any], seconds: float, value: Any) -> None:
    """What the handlers of such buses do."""
    handler(await asyncio.sleep(seconds, value))


RUNNER = asyncio.Runner()  # runs what a program's main coroutine would do
# For reproductions.
AFTER = "async def after(handler, seconds, value): handler(await asyncio.sleep(seconds, value))"


class AsyncBus(Bus):
    """A bus in an event loop, whose handlers are coroutine functions."""

    asynchronous = True

    @staticmethod
    def end(bus: Any) -> None:
        RUNNER.close()  # as asyncio.run does when the main coroutine returns

    @staticmethod
    def slow(handler: Callable[[Any], Any], seconds: Callable[[Any], float]) -> Any:
        return lambda value: after(handler, seconds(value), value)
