"""Caches called from threads."""

from collections.abc import Callable
from typing import Any

from peers.adapters import Row
from peers.outcomes import NotOffered


class Cache(Row):
    """A mapping, a loading decorator, or both."""

    @staticmethod
    def new(size: int = 100, ttl: float = 3600.0) -> Any:
        """A cache of so many entries that live so many seconds."""
        raise NotOffered("no get and set")

    @staticmethod
    def get(cache: Any, key: Any, default: Any = None) -> Any:
        raise NotOffered("no get")

    @staticmethod
    def put(cache: Any, key: Any, value: Any) -> None:
        raise NotOffered("no set")

    @staticmethod
    def delete(cache: Any, key: Any) -> None:
        raise NotOffered("no delete")

    @staticmethod
    def length(cache: Any) -> int:
        raise NotOffered("its entries cannot be counted")

    @staticmethod
    def cached(function: Callable[[Any], Any], size: int = 100, ttl: float = 3600.0) -> Any:
        """The function of one key, memoized."""
        raise NotOffered("no loading decorator")

    @staticmethod
    def invalidate(function: Any, key: Any) -> None:
        """Drop one key of what `cached` returned."""
        raise NotOffered("one key cannot be invalidated")
