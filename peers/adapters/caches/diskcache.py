"""diskcache: https://github.com/grantjenks/python-diskcache."""

from collections.abc import Callable
from typing import Any

import diskcache

from peers.adapters.caches import Cache


class Memoize(Cache):
    """Cache for get and set, and its memoize."""

    name = "diskcache, memoize"
    package = "diskcache"
    documented = "https://grantjenks.com/docs/diskcache/tutorial.html"
    take_it = "Outlives the process, is shared by several, and holds more than the memory."
    imports = "import diskcache"
    unexplored = "its core is SQLite, which is compiled"
    no_bound = "its bound is in bytes, not in entries"

    @staticmethod
    def new(size: int = 100, ttl: float = 3600.0) -> Any:
        return diskcache.Cache(), ttl

    @staticmethod
    def get(cache: Any, key: Any, default: Any = None) -> Any:
        return cache[0].get(key, default)

    @staticmethod
    def put(cache: Any, key: Any, value: Any) -> None:
        cache[0].set(key, value, expire=cache[1])

    @staticmethod
    def delete(cache: Any, key: Any) -> None:
        cache[0].delete(key)

    @staticmethod
    def length(cache: Any) -> int:
        return len(cache[0])

    @staticmethod
    def cached(function: Callable[[Any], Any], size: int = 100, ttl: float = 3600.0) -> Any:
        cache: Any = diskcache.Cache()
        memoized = cache.memoize(expire=ttl)(function)
        memoized.cache = cache
        return memoized

    @staticmethod
    def invalidate(function: Any, key: Any) -> None:
        function.cache.delete(function.__cache_key__(key))


class Barrier(Memoize):
    """Double-checked locking, as its case study of a landing page says against a stampede."""

    name = "diskcache, barrier"
    documented = "https://grantjenks.com/docs/diskcache/case-study-landing-page-caching.html"
    take_it = "As diskcache with memoize, and one load for many callers in all processes."

    @staticmethod
    def cached(function: Callable[[Any], Any], size: int = 100, ttl: float = 3600.0) -> Any:
        cache: Any = diskcache.Cache()
        memoized = cache.memoize(expire=ttl)(function)
        memoized = diskcache.barrier(cache, diskcache.Lock)(memoized)
        memoized = cache.memoize(expire=0)(memoized)
        memoized.cache = cache
        return memoized
