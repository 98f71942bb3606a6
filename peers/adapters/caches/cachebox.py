"""cachebox: https://github.com/awolverp/cachebox."""

from collections.abc import Callable
from typing import Any

import cachebox

from peers.adapters.caches import Cache


class TTL(Cache):
    """TTLCache, and the decorator with its default lock."""

    name = "cachebox.TTLCache"
    package = "cachebox"
    documented = "https://awolverp.github.io/cachebox/tips/"
    take_it = "Rust: fast, small in memory, and one load for many callers by default."
    imports = "import cachebox"
    unexplored = "its caches are compiled"

    @staticmethod
    def new(size: int = 100, ttl: float = 3600.0) -> Any:
        return cachebox.TTLCache(size, ttl)

    @staticmethod
    def get(cache: Any, key: Any, default: Any = None) -> Any:
        return cache.get(key, default)

    @staticmethod
    def put(cache: Any, key: Any, value: Any) -> None:
        cache[key] = value

    @staticmethod
    def delete(cache: Any, key: Any) -> None:
        cache.pop(key, None)

    @staticmethod
    def length(cache: Any) -> int:
        return len(cache)

    @staticmethod
    def cached(function: Callable[[Any], Any], size: int = 100, ttl: float = 3600.0) -> Any:
        return cachebox.cached(cachebox.TTLCache(size, ttl))(function)

    @staticmethod
    def invalidate(function: Any, key: Any) -> None:
        function.cache.pop(cachebox.make_key(key), None)


class LRU(TTL):
    """LRUCache, and the decorator with its default lock."""

    name = "cachebox.LRUCache"
    take_it = "As cachebox.TTLCache, where recency says what may go and nothing has to expire."
    no_expiry = "LRUCache has no time to live"

    @staticmethod
    def new(size: int = 100, ttl: float = 3600.0) -> Any:
        return cachebox.LRUCache(size)

    @staticmethod
    def cached(function: Callable[[Any], Any], size: int = 100, ttl: float = 3600.0) -> Any:
        return cachebox.cached(cachebox.LRUCache(size))(function)
