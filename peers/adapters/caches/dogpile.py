"""dogpile.cache: https://github.com/sqlalchemy/dogpile.cache."""

from collections.abc import Callable
from typing import Any

from dogpile.cache import make_region
from dogpile.cache.api import NO_VALUE

from peers.adapters.caches import Cache


class Memory(Cache):
    """A region of the memory backend, and its decorator."""

    name = "dogpile.cache, memory"
    package = "dogpile.cache"
    documented = "https://dogpilecache.sqlalchemy.org/en/latest/usage.html"
    take_it = "One interface for memory, Redis and memcached, with one load for many callers."
    imports = "from dogpile.cache import make_region\nfrom dogpile.cache.api import NO_VALUE"
    explorable = ("dogpile",)
    no_bound = "the memory backend has no bound"

    @staticmethod
    def new(size: int = 100, ttl: float = 3600.0) -> Any:
        return make_region().configure("dogpile.cache.memory", expiration_time=ttl)

    @staticmethod
    def get(cache: Any, key: Any, default: Any = None) -> Any:
        value = cache.get(key)
        return default if value is NO_VALUE else value

    @staticmethod
    def put(cache: Any, key: Any, value: Any) -> None:
        cache.set(key, value)

    @staticmethod
    def delete(cache: Any, key: Any) -> None:
        cache.delete(key)

    @staticmethod
    def cached(function: Callable[[Any], Any], size: int = 100, ttl: float = 3600.0) -> Any:
        region = make_region().configure("dogpile.cache.memory", expiration_time=ttl)
        return region.cache_on_arguments()(function)

    @staticmethod
    def invalidate(function: Any, key: Any) -> None:
        function.invalidate(key)
