"""cachebox: https://github.com/awolverp/cachebox."""

from collections.abc import Callable
from typing import Any

import cachebox

from peers.adapters.async_caches import AsyncCache


class Cached(AsyncCache):
    """Its decorator on a coroutine function, with its lock, which is the default."""

    name = "cachebox.cached, async"
    package = "cachebox"
    documented = "https://awolverp.github.io/cachebox/tips/"
    take_it = "Seven policies in Rust, very fast, for threads and for tasks."
    imports = "import cachebox"

    @staticmethod
    def cached(function: Callable[[Any], Any]) -> Any:
        return cachebox.cached(cachebox.LRUCache(100), key_maker=lambda key: key)(function)

    @staticmethod
    def bounded(function: Callable[[Any], Any], size: int) -> Any:
        return cachebox.cached(cachebox.LRUCache(size), key_maker=lambda key: key)(function)

    @staticmethod
    def invalidate(function: Any, key: Any) -> Any:
        function.cache.pop(key, None)
