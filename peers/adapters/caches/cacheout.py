"""cacheout: https://github.com/dgilland/cacheout."""

from collections.abc import Callable
from typing import Any

import cacheout

from peers.adapters.caches import Cache


class LRU(Cache):
    """LRUCache with a time to live, and its memoize."""

    name = "cacheout.LRUCache"
    package = "cacheout"
    documented = "https://cacheout.readthedocs.io/en/latest/"
    take_it = "Six policies, bulk operations and callbacks in pure Python."
    imports = "import cacheout"
    explorable = ("cacheout",)

    @staticmethod
    def new(size: int = 100, ttl: float = 3600.0) -> Any:
        return cacheout.LRUCache(maxsize=size, ttl=ttl)

    @staticmethod
    def get(cache: Any, key: Any, default: Any = None) -> Any:
        return cache.get(key, default)

    @staticmethod
    def put(cache: Any, key: Any, value: Any) -> None:
        cache.set(key, value)

    @staticmethod
    def delete(cache: Any, key: Any) -> None:
        cache.delete(key)

    @staticmethod
    def length(cache: Any) -> int:
        return len(cache)

    @staticmethod
    def cached(function: Callable[[Any], Any], size: int = 100, ttl: float = 3600.0) -> Any:
        return cacheout.lru_memoize(maxsize=size, ttl=ttl)(function)

    @staticmethod
    def invalidate(function: Any, key: Any) -> None:
        function.cache.delete(function.cache_key(key))
