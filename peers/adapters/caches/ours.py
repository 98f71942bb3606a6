"""The caches of this site."""

from collections.abc import Callable
from typing import Any

from peers.adapters.caches import Cache
from reference_impl.caches import sharded_cache, ttl_cache


class TTLCache(Cache):
    """get, set and get_or_load."""

    name = "TTLCache"
    ours = True
    documented = "caches/ttl_cache.md"
    take_it = "One file to copy: loads shared, invalidation respected, each promise proved."
    imports = "from reference_impl.caches import ttl_cache"
    explorable = ("reference_impl.caches",)

    @staticmethod
    def new(size: int = 100, ttl: float = 3600.0) -> Any:
        return ttl_cache.TTLCache(ttl, size)

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
        cache: Any = ttl_cache.TTLCache(ttl, size)

        def load(key: object) -> object:
            return cache.get_or_load(key, lambda: function(key))

        memoized: Any = load
        memoized.cache = cache
        return memoized

    @staticmethod
    def invalidate(function: Any, key: Any) -> None:
        function.cache.delete(key)


class ShardedCache(TTLCache):
    """The same interface over several locks."""

    name = "ShardedCache"
    documented = "caches/sharded_cache.md"
    take_it = "As TTLCache, where threads were seen to wait for its lock."
    imports = "from reference_impl.caches import sharded_cache"

    @staticmethod
    def new(size: int = 100, ttl: float = 3600.0) -> Any:
        return sharded_cache.ShardedCache(min(4, size), default_ttl=ttl, max_size=size)

    @staticmethod
    def cached(function: Callable[[Any], Any], size: int = 100, ttl: float = 3600.0) -> Any:
        cache: Any = sharded_cache.ShardedCache(min(4, size), default_ttl=ttl, max_size=size)

        def load(key: object) -> object:
            return cache.get_or_load(key, lambda: function(key))

        memoized: Any = load
        memoized.cache = cache
        return memoized
