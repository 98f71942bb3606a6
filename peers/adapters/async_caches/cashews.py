"""cashews: https://github.com/Krukov/cashews."""

from collections.abc import Callable
from typing import Any

from cashews import Cache

from peers.adapters.async_caches import AsyncCache


class Simple(AsyncCache):
    """In memory; concurrent calls of one process share a load, which is its default."""

    name = "cashews.Cache, memory"
    package = "cashews"
    documented = "https://github.com/Krukov/cashews#simple-cache"
    take_it = "Templates for keys, tags, and many strategies, in memory or in Redis."
    imports = "from cashews import Cache"

    @staticmethod
    def cached(function: Callable[[Any], Any]) -> Any:
        store = Cache()
        store.setup("mem://")
        function.store = store  # type: ignore[attr-defined]  # the decorator carries it over
        return store(ttl=3600, key="{key}")(function)

    @staticmethod
    def bounded(function: Callable[[Any], Any], size: int) -> Any:
        store = Cache()
        store.setup("mem://", size=size)
        return store(ttl=3600, key="{key}")(function)

    @staticmethod
    def invalidate(function: Any, key: Any) -> Any:
        return function.store.delete(str(key))

    @staticmethod
    def close(function: Any) -> Any:
        return function.store.close()


class WithLock(AsyncCache):
    """In memory, with `lock=True`, which makes callers wait in other processes as well."""

    name = "cashews.Cache, memory, lock=True"
    package = "cashews"
    documented = "https://github.com/Krukov/cashews#locked"
    take_it = "With Redis behind it, one load serves all processes."
    imports = "from cashews import Cache"

    @staticmethod
    def cached(function: Callable[[Any], Any]) -> Any:
        store = Cache()
        store.setup("mem://")
        function.store = store  # type: ignore[attr-defined]  # the decorator carries it over
        return store(ttl=3600, key="{key}", lock=True)(function)

    @staticmethod
    def bounded(function: Callable[[Any], Any], size: int) -> Any:
        store = Cache()
        store.setup("mem://", size=size)
        return store(ttl=3600, key="{key}", lock=True)(function)

    @staticmethod
    def invalidate(function: Any, key: Any) -> Any:
        return function.store.delete(str(key))

    @staticmethod
    def close(function: Any) -> Any:
        return function.store.close()
