"""Prices that a slow API knows, kept for a minute."""

import threading

from reference_impl.caches.ttl_cache import TTLCache


class Api:
    """Takes its time, and counts how often it is called."""

    def __init__(self) -> None:
        self.calls = 0
        self.answer = threading.Event()

    def price(self, item: str) -> float:
        """What the item costs."""
        self.calls += 1
        self.answer.wait(timeout=0.2)
        return 9.90


class Prices:
    """What the API says, asked once a minute."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.cache: TTLCache[str, float] = TTLCache(60.0)

    def get(self, item: str) -> float:
        """What the item costs, from the cache where it knows."""
        price: float = self.cache.get_or_load(item, lambda: self.api.price(item))
        return price
