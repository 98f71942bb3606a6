"""Calls of coroutine functions from plain code."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from peers.adapters import Row
from peers.outcomes import NotOffered

Function = Callable[[], Coroutine[Any, Any, Any]]


class Bridge(Row):
    """Runs coroutine functions that take no arguments, and returns what they return."""

    @staticmethod
    def call(function: Function) -> Any:
        """Run it to its end, from plain code."""
        raise NotOffered("no calls from plain code")

    @staticmethod
    def timed(function: Function, seconds: float) -> Any:
        """As `call`, but raise TimeoutError when the time is up."""
        raise NotOffered("no time limit")

    @staticmethod
    def program(plain: Callable[[], Any]) -> Any:
        """Run plain code that makes calls, in the way that a program is laid out for them."""
        return plain()

    @staticmethod
    def within(plain: Callable[[], Any]) -> Any:
        """Run plain code that makes calls in a task of a loop, as the library says to do."""

        async def main() -> Any:
            return plain()

        return asyncio.run(main())
