"""Caches that fail one check each, and one that fails none: the standard library alone."""

import functools
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from peers.adapters.caches import Cache


class Store:
    """An LRU cache with expiry, under one lock; what it drops goes after the lock is free."""

    def __init__(self, size: int, ttl: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.size, self.ttl, self.clock = size, ttl, clock
        self.entries: OrderedDict[Any, tuple[Any, float]] = OrderedDict()
        self.lock = threading.RLock()
        self.changes = 0  # invalidations; a load that began before one is not stored

    def find(self, key: Any) -> tuple[Any, ...]:
        """(value,), or nothing; counts as a use."""
        with self.lock:
            entry = self.entries.get(key)
            if entry is None or entry[1] <= self.clock():
                return ()
            self.entries.move_to_end(key)
            return entry[:1]

    def put(self, key: Any, value: Any) -> None:
        dropped = []
        with self.lock:
            while len(self.entries) >= self.size and key not in self.entries:
                dropped.append(self.entries.popitem(last=False))
            dropped.append((key, self.entries.get(key, (None, 0.0))))
            self.entries[key] = value, self.clock() + self.ttl
            self.entries.move_to_end(key)

    def delete(self, key: Any) -> None:
        with self.lock:
            self.changes += 1
            dropped = self.entries.pop(key, None)
        del dropped


class Loading:
    """A memoized function whose callers of one key take turns."""

    def __init__(self, function: Callable[[Any], Any], store: Store) -> None:
        self.function, self.store = function, store
        self.turns: dict[Any, Any] = {}

    def turn(self, key: Any) -> Any:
        """The lock of a key's load; a forked child has locks of its own."""
        return self.turns.setdefault((os.getpid(), key), threading.RLock())

    def __call__(self, key: Any) -> Any:
        if found := self.store.find(key):
            return found[0]
        with self.turn(key):
            if found := self.store.find(key):
                return found[0]
            before = self.store.changes
            value = self.function(key)
            if self.store.changes == before:
                self.store.put(key, value)
            return value


class Sound(Cache):
    """Keeps all that the checks ask for."""

    name = "sound"
    documented = ""
    take_it = ""
    explorable = ("peers.controls.caches",)

    @staticmethod
    def new(size: int = 100, ttl: float = 3600.0) -> Any:
        return Store(size, ttl)

    @staticmethod
    def get(cache: Any, key: Any, default: Any = None) -> Any:
        found = cache.find(key)
        return found[0] if found else default

    @staticmethod
    def put(cache: Any, key: Any, value: Any) -> None:
        cache.put(key, value)

    @staticmethod
    def delete(cache: Any, key: Any) -> None:
        cache.delete(key)

    @staticmethod
    def length(cache: Any) -> int:
        with cache.lock:
            return len(cache.entries)

    @staticmethod
    def cached(function: Callable[[Any], Any], size: int = 100, ttl: float = 3600.0) -> Any:
        return Loading(function, Store(size, ttl))

    @staticmethod
    def invalidate(function: Any, key: Any) -> None:
        function.store.delete(key)


class Forgets(Sound):
    """Deleting does nothing."""

    @staticmethod
    def delete(cache: Any, key: Any) -> None:
        pass


class LosesUpdates(Sound):
    """A set copies all entries, without a lock: another thread's set in between is lost."""

    @staticmethod
    def put(cache: Any, key: Any, value: Any) -> None:
        entries = OrderedDict(cache.entries)
        entries[key] = value, cache.clock() + cache.ttl
        cache.entries = entries


class Overfull(Sound):
    """Looks for room, then stores, in two steps."""

    @staticmethod
    def put(cache: Any, key: Any, value: Any) -> None:
        with cache.lock:
            if len(cache.entries) >= cache.size:
                cache.entries.popitem(last=False)
        with cache.lock:
            cache.entries[key] = value, cache.clock() + cache.ttl


class FirstIn(Sound):
    """What was set first goes first, read or not."""

    @staticmethod
    def get(cache: Any, key: Any, default: Any = None) -> Any:
        entry = cache.entries.get(key)
        return entry[0] if entry else default


class WallClock(Sound):
    """Lives end by the wall clock."""

    @staticmethod
    def new(size: int = 100, ttl: float = 3600.0) -> Any:
        return Store(size, ttl, time.time)


class NoneIsAbsent(Sound):
    """A None that is found counts as a miss."""

    @staticmethod
    def get(cache: Any, key: Any, default: Any = None) -> Any:
        found = cache.find(key)
        return found[0] if found and found[0] is not None else default


class Alone(Loading):
    """Each caller who misses loads."""

    def __call__(self, key: Any) -> Any:
        found = self.store.find(key)
        if not found:
            self.store.put(key, self.function(key))
        return found[0] if found else self.store.find(key)[0]


class Stampede(Sound):
    """Each caller who misses loads."""

    @staticmethod
    def cached(function: Callable[[Any], Any], size: int = 100, ttl: float = 3600.0) -> Any:
        return Alone(function, Store(size, ttl))


class Rare(Loading):
    """Waits for a load that it sees, and looks and registers in two steps."""

    def __call__(self, key: Any) -> Any:
        loading = self.turns.get(key)
        if loading is None:
            if found := self.store.find(key):
                return found[0]
            self.turns[key] = loading = threading.Lock()
            with loading:
                self.store.put(key, self.function(key))
        with loading:
            return self.store.find(key)[0]


class RareStampede(Sound):
    """Two callers who miss at nearly the same step both load."""

    @staticmethod
    def cached(function: Callable[[Any], Any], size: int = 100, ttl: float = 3600.0) -> Any:
        return Rare(function, Store(size, ttl))


class Strands(Loading):
    """Tells its waiters of a load that ended well, and of no other."""

    def __call__(self, key: Any) -> Any:
        mine = threading.Event()
        event = self.turns.setdefault(key, mine)
        if event is mine:
            self.store.put(key, self.function(key))
            event.set()
        event.wait()
        return self.store.find(key)[0]


class FailureStrands(Sound):
    """A load that raises leaves its waiters; so does one that a forked child sees under way."""

    @staticmethod
    def cached(function: Callable[[Any], Any], size: int = 100, ttl: float = 3600.0) -> Any:
        return Strands(function, Store(size, ttl))


class StoresFailure(Sound):
    """What a load raised is found by the next caller."""

    @staticmethod
    def cached(function: Callable[[Any], Any], size: int = 100, ttl: float = 3600.0) -> Any:
        def load(key: Any) -> tuple[bool, Any]:
            try:
                return True, function(key)
            except Exception as error:
                return False, error

        loading = Loading(load, Store(size, ttl))

        def memoized(key: Any) -> Any:
            went_well, found = loading(key)
            if not went_well:
                raise found
            return found

        return memoized


class OneTurn(Loading):
    """One lock, which is held during each load."""

    def __init__(self, function: Callable[[Any], Any], store: Store) -> None:
        super().__init__(function, store)
        self.lock = threading.Lock()

    def __call__(self, key: Any) -> Any:
        with self.lock:
            found = self.store.find(key)
            if not found:
                self.store.put(key, self.function(key))
            return found[0] if found else self.store.find(key)[0]


class HoldsLock(Sound):
    """A load holds the cache's lock: other keys wait, and its own key waits forever."""

    @staticmethod
    def cached(function: Callable[[Any], Any], size: int = 100, ttl: float = 3600.0) -> Any:
        return OneTurn(function, Store(size, ttl))


class Slow(Sound):
    """Looks through all entries for the one to drop."""

    @staticmethod
    def put(cache: Any, key: Any, value: Any) -> None:
        with cache.lock:
            if len(cache.entries) >= cache.size:
                del cache.entries[min(cache.entries, key=lambda each: cache.entries[each][1])]
            cache.entries[key] = value, cache.clock() + cache.ttl


class DropsLocked(Sound):
    """What makes room is dropped while a lock is held that the same thread cannot take again."""

    @staticmethod
    def new(size: int = 100, ttl: float = 3600.0) -> Any:
        store = Store(size, ttl)
        store.lock = threading.Lock()  # type: ignore[assignment]
        return store

    @staticmethod
    def put(cache: Any, key: Any, value: Any) -> None:
        with cache.lock:
            if len(cache.entries) >= cache.size:
                cache.entries.popitem(last=False)
            cache.entries[key] = value, cache.clock() + cache.ttl


class KeepsLock(Sound):
    """Takes and releases its lock without `with`: an exception in between keeps it."""

    @staticmethod
    def get(cache: Any, key: Any, default: Any = None) -> Any:
        cache.lock.acquire()
        found = cache.find(key)
        cache.lock.release()
        return found[0] if found else default


class StoresStale(Sound):
    """functools.lru_cache: what a load returns is stored, whatever was invalidated meanwhile."""

    @staticmethod
    def cached(function: Callable[[Any], Any], size: int = 100, ttl: float = 3600.0) -> Any:
        return functools.lru_cache(size)(function)

    @staticmethod
    def invalidate(function: Any, key: Any) -> None:
        function.cache_clear()


SOUND = Sound
CONTROLS: dict[str, type[Cache]] = {
    "adapter_sound": Forgets,
    "linearizable": LosesUpdates,
    "bound": Overfull,
    "exact_lru": FirstIn,
    "wall_clock": WallClock,
    "none_cached": NoneIsAbsent,
    "single_flight": Stampede,
    "single_flight_explored": RareStampede,
    "failing_loader": FailureStrands,
    "failure_not_stored": StoresFailure,
    "recursion": HoldsLock,
    "invalidation": StoresStale,
    "flat_set": Slow,
    "other_keys_go_on": HoldsLock,
    "finalizer": DropsLocked,
    "interrupted": KeepsLock,
    "fork": FailureStrands,
}
