"""expiringdict: https://github.com/mailgun/expiringdict."""

from typing import Any

import expiringdict

from peers.adapters.caches import Cache


class ExpiringDict(Cache):
    """The dictionary, which has a lock of its own."""

    name = "expiringdict"
    package = "expiringdict"
    documented = "https://github.com/mailgun/expiringdict#usage"
    take_it = "One short file that behaves as a dictionary."
    imports = "import expiringdict"
    explorable = ("expiringdict",)

    @staticmethod
    def new(size: int = 100, ttl: float = 3600.0) -> Any:
        return expiringdict.ExpiringDict(max_len=size, max_age_seconds=ttl)

    @staticmethod
    def get(cache: Any, key: Any, default: Any = None) -> Any:
        return cache.get(key, default)

    @staticmethod
    def put(cache: Any, key: Any, value: Any) -> None:
        cache[key] = value

    @staticmethod
    def delete(cache: Any, key: Any) -> None:
        cache.pop(key)

    @staticmethod
    def length(cache: Any) -> int:
        return len(cache)
