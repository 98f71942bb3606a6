"""aiocache: https://github.com/aio-libs/aiocache."""

from collections.abc import Callable
from typing import Any

import aiocache

from peers.adapters.async_caches import AsyncCache


class Cached(AsyncCache):
    """In memory, which is its default; a key of one's own is needed to delete one."""

    name = "aiocache.cached, memory"
    package = "aiocache"
    documented = "https://aiocache.readthedocs.io/en/latest/decorators.html"
    take_it = "The same decorator stores in memory, in Redis or in Memcached."
    imports = "import aiocache"

    @staticmethod
    def cached(function: Callable[[Any], Any]) -> Any:
        return aiocache.cached(ttl=3600, key_builder=lambda f, key: f"{f.__name__}:{key}")(function)

    @staticmethod
    def invalidate(function: Any, key: Any) -> Any:
        return function.cache.delete(f"{function.__name__}:{key}")


class Stampede(AsyncCache):
    """Its decorator against stampedes, with the default lease; `lease=60` suits slower loads."""

    name = "aiocache.cached_stampede, memory"
    package = "aiocache"
    documented = "https://aiocache.readthedocs.io/en/latest/decorators.html"
    take_it = "Its lease holds across processes with Redis, and ends if a process dies."
    imports = "import aiocache"

    @staticmethod
    def cached(function: Callable[[Any], Any]) -> Any:
        key_of: Any = lambda f, key: f"{f.__name__}:{key}"  # noqa: E731
        return aiocache.cached_stampede(ttl=3600, key_builder=key_of)(function)

    @staticmethod
    def invalidate(function: Any, key: Any) -> Any:
        return function.cache.delete(f"{function.__name__}:{key}")
