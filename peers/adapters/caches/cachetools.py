"""cachetools: https://github.com/tkem/cachetools."""

import threading
from collections.abc import Callable
from typing import Any

import cachetools

from peers.adapters.caches import Cache


class WithLock(Cache):
    """As its documentation says to use it from several threads: with `lock=`."""

    name = "cachetools.cached, lock="
    package = "cachetools"
    documented = "https://cachetools.readthedocs.io/en/stable/"
    take_it = "Many policies, small and pure Python, twelve years in use."
    imports = "import cachetools\nimport threading"
    explorable = ("cachetools",)

    @staticmethod
    def cached(function: Callable[[Any], Any], size: int = 100, ttl: float = 3600.0) -> Any:
        cache: Any = cachetools.TTLCache(size, ttl)
        return cachetools.cached(cache, lock=threading.RLock())(function)

    @staticmethod
    def invalidate(function: Any, key: Any) -> None:
        with function.cache_lock:
            function.cache.pop(function.cache_key(key), None)
