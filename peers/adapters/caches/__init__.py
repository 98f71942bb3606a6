"""Caches called from threads."""

from collections.abc import Callable
from typing import Any, ClassVar

from peers.adapters import Row
from peers.outcomes import NotOffered


class Cache(Row):
    """A mapping, a loading decorator, or both."""

    no_bound: ClassVar[str] = ""  # why it has no bound on the number of its entries, if so
    no_expiry: ClassVar[str] = ""  # why its entries have no time to live, if so

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
        """How many entries are in what `new`, or `cached` where there is no `new`, returned."""
        raise NotOffered("its entries cannot be counted")

    @staticmethod
    def cached(function: Callable[[Any], Any], size: int = 100, ttl: float = 3600.0) -> Any:
        """The function of one key, memoized."""
        raise NotOffered("no loading decorator")

    @staticmethod
    def invalidate(function: Any, key: Any) -> None:
        """Drop one key of what `cached` returned, or all where one alone cannot be dropped."""
        raise NotOffered("what is memoized cannot be invalidated")
