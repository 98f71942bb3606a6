"""async-lru: https://github.com/aio-libs/async-lru."""

from collections.abc import Callable
from typing import Any

from async_lru import alru_cache

from peers.adapters.async_caches import AsyncCache


class Alru(AsyncCache):
    """`functools.lru_cache` for coroutine functions, as its README shows it."""

    name = "async_lru.alru_cache"
    package = "async-lru"
    documented = "https://github.com/aio-libs/async-lru#usage"
    take_it = "One decorator in pure Python, with the interface of functools.lru_cache."
    imports = "from async_lru import alru_cache"

    @staticmethod
    def cached(function: Callable[[Any], Any]) -> Any:
        return alru_cache(ttl=3600)(function)

    @staticmethod
    def bounded(function: Callable[[Any], Any], size: int) -> Any:
        return alru_cache(maxsize=size)(function)

    @staticmethod
    def invalidate(function: Any, key: Any) -> Any:
        function.cache_invalidate(key)
