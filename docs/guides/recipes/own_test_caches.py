"""The contract of the caches, kept by caches of one's own; pytest runs it."""

from typing import Any

from own_async_adapter import Blocking
from own_cachetools_cache import CachetoolsCache
from own_dict_cache import DictCache
from own_racy_cache import RacyCache

from reference_impl.caches.async_ttl_cache import AsyncTTLCache
from reference_impl.contracts import (
    BoundCases,
    CacheContract,
    EvictionCases,
    ExpiryCases,
    LoadingCases,
    NoneCases,
    StatsCases,
)


class TestDictCache(ExpiryCases, BoundCases, EvictionCases, StatsCases, LoadingCases, NoneCases):
    make = DictCache


class TestRacyCache(TestDictCache):
    make = RacyCache


class TestCachetools(ExpiryCases, BoundCases, EvictionCases, StatsCases, LoadingCases):
    make = CachetoolsCache
    lacks = {"keys", "items", "cleanup_expired"}  # keys: in another order
    test_loads_are_successes_and_failures_are_counted_apart = None  # it does not count them


class TestAsync(CacheContract):
    def make(self, **arguments: Any) -> Blocking:
        return Blocking(AsyncTTLCache(**arguments))
