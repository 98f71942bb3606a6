"""Caches called from the tasks of an event loop."""

from collections.abc import Callable
from typing import Any

from peers.adapters import Row
from peers.outcomes import NotOffered


class AsyncCache(Row):
    """A decorator that remembers what a coroutine function returns.

    The functions that it is given take one argument, which they call `key`.
    """

    explored_by_tasks = True  # its await points are Python code: an explorer can order them

    @staticmethod
    def cached(function: Callable[[Any], Any]) -> Any:
        """The function, memoized for an hour, with room for a hundred keys at least."""
        raise NotOffered("no loading decorator")

    @staticmethod
    def bounded(function: Callable[[Any], Any], size: int) -> Any:
        """The function, memoized, with room for so many keys."""
        raise NotOffered("the number of entries has no bound")

    @staticmethod
    def invalidate(function: Any, key: Any) -> Any:
        """Drop one key; what it returns, if anything, is to be awaited."""
        raise NotOffered("one key cannot be invalidated")

    @staticmethod
    def close(function: Any) -> Any:
        """End what runs in the background; what it returns, if anything, is to be awaited."""
