"""An adapter: cachetools behind a lock, with the operations of TTLCache that it has."""

import math
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

import cachetools


@dataclass
class Stats:
    """What can be counted from outside; cachetools itself counts for its decorators only."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    expirations: int = 0

    @property
    def hit_rate(self) -> float:
        return self.hits / max(1, self.hits + self.misses)


class Counting(cachetools.TLRUCache[Any, Any]):
    """Counts what leaves, where cachetools' manual says to override."""

    def __init__(self, stats: Stats, maxsize: float, timer: Callable[[], float]) -> None:
        super().__init__(maxsize, ttu=lambda key, value, now: now + value[1], timer=timer)
        self.stats = stats

    def popitem(self) -> Any:
        """Make room."""
        self.stats.evictions += 1
        return super().popitem()

    def expire(self, time: float | None = None) -> Any:
        """Drop what has expired."""
        expired = super().expire(time)
        self.stats.expirations += len(expired)
        return expired


class CachetoolsCache:
    """As its manual advises, each access is made within a lock."""

    def __init__(
        self,
        default_ttl: float = 3600.0,
        max_size: int | None = 1000,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._default_ttl, self._stats = default_ttl, Stats()
        self._lock = threading.Condition()
        self._cache = Counting(self._stats, math.inf if max_size is None else max_size, clock)
        # Concurrent misses wait for the first, whose call this is.
        decorate = cachetools.cached(
            self._cache, key=lambda key, loader, life: key, condition=self._lock
        )
        self._load = decorate(lambda key, loader, life: (loader(), life))

    def get(self, key: Hashable, default: Any = None) -> Any:
        with self._lock:
            self._count(key)
            return self._cache.get(key, (default, None))[0]

    def set(self, key: Hashable, value: Any, ttl: float | None = None) -> None:
        with self._lock:
            self._cache[key] = value, self._default_ttl if ttl is None else ttl

    def delete(self, key: Hashable) -> bool:
        with self._lock:
            self._cache.expire()
            return self._cache.pop(key, None) is not None

    def clear(self) -> None:
        with self._lock:
            self._cache.expire()
            self._cache.clear()

    def get_or_load(
        self, key: Hashable, loader: Callable[[], Any], ttl: float | None = None
    ) -> Any:
        with self._lock:
            self._count(key)
        return self._load(key, loader, self._default_ttl if ttl is None else ttl)[0]

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._cache

    def __len__(self) -> int:
        with self._lock:
            return len(self._cache)

    @property
    def size(self) -> int:
        return len(self)

    @property
    def stats(self) -> Stats:
        with self._lock:
            return replace(self._stats)

    def _count(self, key: Hashable) -> None:
        self._cache.expire()
        found = key in self._cache
        self._stats.hits += found
        self._stats.misses += not found
