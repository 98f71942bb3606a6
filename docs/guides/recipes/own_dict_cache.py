"""A cache of one's own: a dict, and a lock around each operation."""

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

_ABSENT = object()


@dataclass(frozen=True)
class Stats:
    """The counters at one instant."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    expirations: int = 0
    loads: int = 0
    load_failures: int = 0

    @property
    def hit_rate(self) -> float:
        return self.hits / max(1, self.hits + self.misses)


class DictCache:
    """The entries are in the order of their use: the first one makes room."""

    def __init__(
        self,
        default_ttl: float = 3600.0,
        max_size: int | None = 1000,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._default_ttl, self._max_size, self._clock = default_ttl, max_size, clock
        self._entries: dict[Hashable, tuple[Any, float]] = {}
        self._stats = Stats()
        self._lock = threading.Lock()

    def get(self, key: Hashable, default: Any = None) -> Any:
        with self._lock:
            self._drop_expired()
            if key not in self._entries:
                self._count(misses=1)
                return default
            self._count(hits=1)
            self._entries[key] = self._entries.pop(key)
            return self._entries[key][0]

    def set(self, key: Hashable, value: Any, ttl: float | None = None) -> None:
        with self._lock:
            self._drop_expired()
            self._entries.pop(key, None)
            if self._max_size is not None and len(self._entries) >= self._max_size:
                del self._entries[next(iter(self._entries))]
                self._count(evictions=1)
            life = self._default_ttl if ttl is None else ttl
            self._entries[key] = value, self._clock() + life

    def delete(self, key: Hashable) -> bool:
        with self._lock:
            self._drop_expired()
            return self._entries.pop(key, None) is not None

    def clear(self) -> None:
        with self._lock:
            self._drop_expired()
            self._entries.clear()

    def cleanup_expired(self) -> int:
        with self._lock:
            return self._drop_expired()

    def get_or_load(
        self, key: Hashable, loader: Callable[[], Any], ttl: float | None = None
    ) -> Any:
        value = self.get(key, _ABSENT)
        if value is _ABSENT:
            try:
                value = loader()  # not within the lock: it takes its time
            except Exception:
                with self._lock:
                    self._count(load_failures=1)
                raise
            self.set(key, value, ttl)
            with self._lock:
                self._count(loads=1)
        return value

    def keys(self) -> list[Hashable]:
        return [key for key, _ in self.items()]

    def items(self) -> list[tuple[Hashable, Any]]:
        with self._lock:
            self._drop_expired()
            return [(key, value) for key, (value, _) in self._entries.items()]

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            self._drop_expired()
            return key in self._entries

    def __len__(self) -> int:
        return len(self.items())

    @property
    def size(self) -> int:
        return len(self)

    @property
    def stats(self) -> Stats:
        with self._lock:
            return self._stats

    def _drop_expired(self) -> int:
        now = self._clock()
        expired = [key for key, (_, end) in self._entries.items() if end <= now]
        for key in expired:
            del self._entries[key]
        self._count(expirations=len(expired))
        return len(expired)

    def _count(self, **more: int) -> None:
        counted = {name: getattr(self._stats, name) + number for name, number in more.items()}
        self._stats = replace(self._stats, **counted)
