"""This project's cache for tasks."""

from collections.abc import Callable
from typing import Any

from peers.adapters.async_caches import AsyncCache
from reference_impl.caches.async_ttl_cache import AsyncTTLCache


class Loading(AsyncCache):
    """`get_or_load`, as its page shows it."""

    name = "AsyncTTLCache"
    ours = True
    documented = "https://executable-guarantees.example/caches/async_ttl_cache.html"
    take_it = "One file to copy, whose guarantees you can prove again after changing it."
    imports = "from reference_impl.caches.async_ttl_cache import AsyncTTLCache"

    @staticmethod
    def cached(function: Callable[[Any], Any]) -> Any:
        cache: Any = AsyncTTLCache(3600.0, 100)

        async def load(key: Any) -> Any:
            return await cache.get_or_load(key, lambda: function(key))

        load.cache = cache  # type: ignore[attr-defined]
        return load

    @staticmethod
    def bounded(function: Callable[[Any], Any], size: int) -> Any:
        cache: Any = AsyncTTLCache(3600.0, size)

        async def load(key: Any) -> Any:
            return await cache.get_or_load(key, lambda: function(key))

        return load

    @staticmethod
    def invalidate(function: Any, key: Any) -> Any:
        return function.cache.delete(key)
