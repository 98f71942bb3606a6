"""Prices that an API knows, kept for a minute."""

from reference_impl.caches.ttl_cache import TTLCache


class Prices:
    """Looks prices up by `ask`, which calls the API."""

    def __init__(self, ask):
        self.ask = ask
        self.cache = TTLCache(60.0)

    def get(self, item):
        """The price, from the cache if it is there."""
        return self.cache.get_or_load(item, lambda: self.ask(item))
