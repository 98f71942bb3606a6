"""theine: https://github.com/Yiling-J/theine."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import theine

from peers.adapters.caches import Cache


class TinyLfu(Cache):
    """Cache for get and set, Memoize for loads. What is memoized cannot be invalidated."""

    name = "theine"
    package = "theine"
    documented = "https://github.com/Yiling-J/theine#api"
    take_it = "A policy that learns from use: more hits than LRU on many workloads."
    imports = "import theine\nfrom datetime import timedelta"
    unexplored = "its policy is compiled, and a thread of its own expires entries"

    @staticmethod
    def new(size: int = 100, ttl: float = 3600.0) -> Any:
        return theine.Cache(size), timedelta(seconds=ttl)

    @staticmethod
    def get(cache: Any, key: Any, default: Any = None) -> Any:
        value, found = cache[0].get(key)
        return value if found else default

    @staticmethod
    def put(cache: Any, key: Any, value: Any) -> None:
        cache[0].set(key, value, cache[1])

    @staticmethod
    def delete(cache: Any, key: Any) -> None:
        cache[0].delete(key)

    @staticmethod
    def length(cache: Any) -> int:
        return len(cache[0])

    @staticmethod
    def cached(function: Callable[[Any], Any], size: int = 100, ttl: float = 3600.0) -> Any:
        memoized: Any = theine.Memoize(size, timedelta(seconds=ttl))(function)
        memoized.key(lambda key: key)
        return memoized
