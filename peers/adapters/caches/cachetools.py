"""cachetools: https://github.com/tkem/cachetools."""

import threading
from collections.abc import Callable
from typing import Any

import cachetools

from peers.adapters.caches import Cache


class WithLock(Cache):
    """As its documentation says to use it from several threads: with `lock=`."""

    name = "cachetools, lock="
    package = "cachetools"
    documented = "https://cachetools.readthedocs.io/en/stable/#cachetools.cached"
    take_it = "Many policies in small, pure Python, which most readers know already."
    imports = "import cachetools\nimport threading"
    explorable = ("cachetools",)

    @staticmethod
    def new(size: int = 100, ttl: float = 3600.0) -> Any:
        return cachetools.TTLCache(size, ttl), threading.RLock()

    @staticmethod
    def get(cache: Any, key: Any, default: Any = None) -> Any:
        entries, lock = cache
        with lock:
            return entries.get(key, default)

    @staticmethod
    def put(cache: Any, key: Any, value: Any) -> None:
        entries, lock = cache
        with lock:
            entries[key] = value

    @staticmethod
    def delete(cache: Any, key: Any) -> None:
        entries, lock = cache
        with lock:
            entries.pop(key, None)

    @staticmethod
    def length(cache: Any) -> int:
        entries, lock = cache
        with lock:
            return len(entries)

    @staticmethod
    def cached(function: Callable[[Any], Any], size: int = 100, ttl: float = 3600.0) -> Any:
        cache: Any = cachetools.TTLCache(size, ttl)
        return cachetools.cached(cache, lock=threading.RLock())(function)

    @staticmethod
    def invalidate(function: Any, key: Any) -> None:
        with function.cache_lock:
            function.cache.pop(function.cache_key(key), None)


class WithCondition(WithLock):
    """With `condition=`, which its documentation advises against a cache stampede."""

    name = "cachetools, condition="
    take_it = "As with lock=, and callers of one missing key share a load."

    @staticmethod
    def new(size: int = 100, ttl: float = 3600.0) -> Any:
        return cachetools.TTLCache(size, ttl), threading.Condition()

    @staticmethod
    def cached(function: Callable[[Any], Any], size: int = 100, ttl: float = 3600.0) -> Any:
        cache: Any = cachetools.TTLCache(size, ttl)
        return cachetools.cached(cache, condition=threading.Condition())(function)

    @staticmethod
    def invalidate(function: Any, key: Any) -> None:
        with function.cache_condition:
            function.cache.pop(function.cache_key(key), None)


class Bare(Cache):
    """Without any lock, which its documentation says is not safe: it shows what the lock is for."""

    name = "cachetools, no lock"
    package = "cachetools"
    documented = "https://cachetools.readthedocs.io/en/stable/"
    take_it = "One thread needs no lock; its documentation says that several need one."
    imports = "import cachetools"
    explorable = ("cachetools",)
    no_expiry = "LRUCache has no time to live"

    @staticmethod
    def new(size: int = 100, ttl: float = 3600.0) -> Any:
        return cachetools.LRUCache(size)

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
        return cachetools.cached(cachetools.LRUCache(size))(function)

    @staticmethod
    def invalidate(function: Any, key: Any) -> None:
        function.cache.pop(function.cache_key(key), None)
