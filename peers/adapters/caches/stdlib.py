"""The standard library: functools."""

import functools
from collections.abc import Callable
from typing import Any

from peers.adapters.caches import Cache


class LruCache(Cache):
    """The decorator, with a bound."""

    name = "functools.lru_cache"
    documented = "https://docs.python.org/3/library/functools.html#functools.lru_cache"
    take_it = "In every Python, written in C, and the fastest where nothing has to expire."
    imports = "import functools"
    unexplored = "it is compiled"
    no_expiry = "its entries have no time to live"

    @staticmethod
    def length(cache: Any) -> int:
        return cache.cache_info().currsize

    @staticmethod
    def cached(function: Callable[[Any], Any], size: int = 100, ttl: float = 3600.0) -> Any:
        return functools.lru_cache(maxsize=size)(function)

    @staticmethod
    def invalidate(function: Any, key: Any) -> None:
        function.cache_clear()
