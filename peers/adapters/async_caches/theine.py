"""theine: https://github.com/Yiling-J/theine."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from theine import Memoize

from peers.adapters.async_caches import AsyncCache


class Memoized(AsyncCache):
    """Its decorator, with an explicit key function, which is what its README recommends."""

    name = "theine.Memoize, async"
    package = "theine"
    documented = "https://github.com/Yiling-J/theine#cache-decorator"
    take_it = "A policy in Rust that keeps more of what will be asked for than LRU does."
    imports = "from datetime import timedelta\nfrom theine import Memoize"

    @staticmethod
    def cached(function: Callable[[Any], Any]) -> Any:
        decorated: Any = Memoize(100, timedelta(hours=1))(function)
        decorated.key(lambda key: key)
        return decorated

    @staticmethod
    def bounded(function: Callable[[Any], Any], size: int) -> Any:
        decorated: Any = Memoize(size, timedelta(hours=1))(function)
        decorated.key(lambda key: key)
        return decorated
