# ttl_cache.py: an LRU cache whose entries also expire (TTLCache)
# https://executable-guarantees.example/caches/ttl_cache.html
# Version 1.0.0 (2026-11-23); Python 3.11 to 3.14, with or without the GIL; standard library only
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: 2026 The Executable Guarantees authors
"""A cache for the threads of a process: bounded, exact expiry, exact LRU, one load per key."""

import contextlib
import heapq
import math
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

__all__ = ["CacheStats", "TTLCache"]

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

_Line = OrderedDict[int, K]  # the keys of one time to live, by serial number
_Entry = tuple[V, float, _Line[K], int, K]  # value, deadline, its line, its number there, key
_ABSENT: Any = object()
_SLICE = 256  # so many expired entries are removed before other threads are let in


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What a cache has counted since it was made; immutable.

    Attributes:
        hits: look-ups that found a live entry.
        misses: look-ups that found none; one that joins another caller's load is a miss.
        evictions: live entries removed to make room.
        expirations: expired entries removed, for whatever reason.
        loads: loaders that returned a value.
        load_failures: loaders that raised.
    """

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    expirations: int = 0
    loads: int = 0
    load_failures: int = 0

    @property
    def hit_rate(self) -> float:
        """The share of look-ups that hit, from 0.0 to 1.0; 0.0 before the first."""
        return self.hits / max(1, self.hits + self.misses)


class _Load(Generic[V]):
    """A load in progress; landed with neither value nor error, it was abandoned."""

    def __init__(self) -> None:
        self.values: list[V] = []
        self.error: Exception | None = None
        self.landed = threading.Event()
        self.lock = threading.Lock()  # guards joined
        self.joined: list[list[_Load[Any]]] = []  # the loads that each who waits is part of


# The loads, of all caches, that the running code is part of. A context can outlive its loads,
# and must not keep what they loaded: hence weak references.
_loading: ContextVar[tuple[weakref.ref[_Load[Any]], ...]] = ContextVar("loading", default=())


class TTLCache(Generic[K, V]):
    """A bounded mapping whose entries expire; the least recently used one makes room.

    `None` is a value like any other. Expired entries cannot be seen; they are removed by the
    calls that come across them.

    Args:
        default_ttl: seconds that an entry lives, above zero; `math.inf` is for ever. If in
            doubt, how old an answer may be.
        max_size: how many entries it holds at most, from 1; None is for no bound. If in doubt,
            what the memory allows: the bound costs no time.
        clock: returns seconds. It is read under the lock and must not use the cache. When it
            steps back, new entries count from its latest reading.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: a number is not above zero.

    Thread safety:
        Internally synchronized: any thread may call any method, and each is linearizable, with
        or without the GIL. Under the one lock no code of the caller's runs but the clock and the
        keys' `__hash__` and `__eq__`, which must not use the cache. What a call drops is
        released after the lock and before the call returns.

    Contexts:
        *Fork*: a child has a sound copy if no other thread was inside a call; but the loads of
        other threads never end there, so make a new cache. *Interpreter exit*: there is nothing
        to close. *Signal handlers* may raise at any point (Ctrl-C) and leave the cache usable;
        they must not use it. *`__del__`* of what a call drops may use the cache; not so where
        the cyclic collector or a *free-threaded build* runs it, as that can be in mid-call.

    Examples:
        >>> cache = TTLCache[str, int](default_ttl=60.0, max_size=100)
        >>> cache.set("answer", 42)
        >>> cache.get_or_load("question", lambda: 6 * 9)
        54
        >>> cache.items()
        [('answer', 42), ('question', 54)]
    """

    def __init__(
        self,
        default_ttl: float = 3600.0,
        max_size: int | None = 1000,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not callable(clock):
            raise TypeError(f"clock must be a function that returns seconds, not {clock!r}")
        self._default_ttl = _seconds("default_ttl", default_ttl)
        self._max_size = _size("max_size", max_size)
        self._clock = clock
        # Guards all below. Between two calls each entry stands in its line under its number; each
        # line is sorted by deadline, and its record in the heap is no later than its first one.
        # An interrupted call may leave more in lines and heap, never less.
        self._lock = threading.RLock()  # never entered twice; _give_back says why it is one
        self._entries: OrderedDict[K, _Entry[V, K]] = OrderedDict()  # least recently used first
        self._lines: dict[float, _Line[K]] = {}  # by time to live
        self._heap: list[tuple[float, float]] = []  # (deadline, time to live)
        self._loads: dict[K, _Load[V]] = {}  # without those that were outdated
        self._latest = -math.inf  # reading of the clock, so that lines stay sorted
        self._serial = 0
        self._hits = self._misses = self._evictions = self._expirations = 0
        self._loaded = self._failed = 0

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: T) -> V | T: ...
    def get(self, key: K, default: T | None = None) -> V | T | None:
        """Return the value of `key`, which becomes the most recently used, or else `default`.

        Raises:
            TypeError: `key` is not hashable.

        Cost: constant.
        """
        found: V | T | None = default
        try:  # not `with`: see _give_back
            self._lock.acquire()
            entry = self._entries.get(key)
            if entry is not None and entry[1] > self._clock():
                self._entries.move_to_end(key)
                self._hits += 1
                found = entry[0]
            else:
                self._misses += 1
                if entry is not None:
                    self._remove_locked(entry, expired=True)
        except BaseException:
            self._give_back(key)
            raise
        self._lock.release()
        return found

    def set(self, key: K, value: V, ttl: float | None = None) -> None:
        """Store `value` under `key`, as the most recently used entry.

        A full cache drops an expired entry or, if there is none, the least recently used one.
        A load of `key` that is under way will not be stored.

        Args:
            key: anything hashable.
            value: anything.
            ttl: seconds that it lives, above zero; None is for `default_ttl`.

        Raises:
            TypeError: `key` is not hashable, or `ttl` is not a number.
            ValueError: `ttl` is not above zero.

        Cost: constant; logarithmic in the number of different `ttl` in use (amortised).
        """
        seconds = self._default_ttl if ttl is None else _seconds("ttl", ttl)
        try:
            self._lock.acquire()
            dropped = self._put_locked(key, value, seconds)
        except BaseException:
            self._give_back(key)
            raise
        self._lock.release()
        del dropped  # not before: its finalizers may use the cache

    def delete(self, key: K) -> bool:
        """Remove `key`; return whether it was there.

        A load of `key` that is under way will not be stored.

        Raises:
            TypeError: `key` is not hashable.

        Cost: constant.
        """
        _check_hashable(key)
        with self._lock:
            self._loads.pop(key, None)
            entry = self._entries.get(key)
            live = entry is not None and entry[1] > self._clock()
            if entry is not None:
                self._remove_locked(entry, expired=not live)
        return live

    def clear(self) -> None:
        """Remove every entry; loads that are under way will not be stored.

        Cost: linear, but only to release the entries, which needs no lock.
        """
        self._when_swept(self._reset_locked)

    def cleanup_expired(self) -> int:
        """Remove the expired entries; return how many this call removed.

        It frees memory, and is never needed for a right answer. Like all that sweeps, it lets
        other threads in after every few hundred entries.

        Cost: constant for each entry removed.
        """
        return self._when_swept(lambda removed: removed)

    def get_or_load(self, key: K, loader: Callable[[], V], ttl: float | None = None) -> V:
        """Return the value of `key`; if there is none, load and store it, once for all who ask.

        The first who asks runs its loader, in its own thread and context and without the lock.
        The others wait for it, without limit, and get its result or its exception, the very same
        object. A failure is not stored. An exception that is no `Exception` (KeyboardInterrupt)
        is for the loading thread alone, and one of the others loads again. After a `set`,
        `delete` or `clear`, a load that was under way still answers those who asked before, but
        is not stored.

        Args:
            key: anything hashable.
            loader: a function without arguments; it may use the cache, except to load `key`.
            ttl: seconds that the value lives once loaded, above zero; None is for `default_ttl`.

        Raises:
            RuntimeError: the load would wait for itself: its loader asks for `key`, directly or
                by way of other loads, other caches, or threads that run in its context.
            TypeError: `key` is not hashable, `loader` not callable, or `ttl` not a number.
            ValueError: `ttl` is not above zero.
            BaseException: what the loader raised.

        Cost: that of `get`, if there is a value.
        """
        if not callable(loader):
            raise TypeError(f"loader must be a function without arguments, not {loader!r}")
        seconds = self._default_ttl if ttl is None else _seconds("ttl", ttl)
        found: V = self.get(key, _ABSENT)
        while found is _ABSENT:
            found = self._load_or_join(key, loader, seconds)
        return found

    def keys(self) -> list[K]:
        """Return the live keys of one instant, least recently used first.

        Cost: linear, under the lock.
        """
        return self._when_swept(lambda _: list(self._entries))

    def items(self) -> list[tuple[K, V]]:
        """Return the live keys and values of one instant, least recently used first.

        Cost: linear, under the lock.
        """
        entries = self._when_swept(lambda _: list(self._entries.values()))
        return [(entry[4], entry[0]) for entry in entries]

    @property
    def stats(self) -> CacheStats:
        """The counts of one instant. Cost: constant."""
        with self._lock:
            return CacheStats(
                self._hits,
                self._misses,
                self._evictions,
                self._expirations,
                self._loaded,
                self._failed,
            )

    @property
    def size(self) -> int:
        """The number of live entries. Cost: constant (amortised: it removes expired ones)."""
        return self._when_swept(lambda _: len(self._entries))

    def __len__(self) -> int:
        return self.size

    def __contains__(self, key: K) -> bool:
        _check_hashable(key)
        with self._lock:
            entry = self._entries.get(key)
            return entry is not None and entry[1] > self._clock()

    def _load_or_join(self, key: K, loader: Callable[[], V], ttl: float) -> V:
        """Load, or wait for who does; `_ABSENT` if that load was abandoned."""
        load = mine = _Load[V]()  # first made, then registered: an interrupt must not strand it
        try:
            with self._lock:
                entry = self._entries.get(key)
                if entry is not None and entry[1] > self._clock():  # stored since the look-up
                    return entry[0]
                load = self._loads.setdefault(key, mine)
                if load.landed.is_set():  # an interrupt left it there
                    load = self._loads[key] = mine
            if load is mine:
                return self._lead(key, mine, loader, ttl)
            _wait(load, key)
            if load.error is not None:
                raise load.error
            return load.values[0] if load.values else _ABSENT
        finally:
            mine.landed.set()
            del load, mine  # an error keeps this frame, which must not keep the error

    def _lead(self, key: K, load: _Load[V], loader: Callable[[], V], ttl: float) -> V:
        dropped: object = None
        token = _loading.set((*_loading.get(), weakref.ref(load)))
        try:
            value = loader()
            load.values.append(value)
        except Exception as error:
            load.error = error
            raise
        finally:
            _loading.reset(token)
            with self._lock:
                self._loaded += len(load.values)
                self._failed += not load.values
                if self._loads.get(key) is load:  # no set, delete or clear came between
                    del self._loads[key]
                    if load.values:
                        dropped = self._put_locked(key, load.values[0], ttl)
            del load, dropped
        return value

    def _put_locked(self, key: K, value: V, ttl: float) -> object:
        """Store it and make room; what is returned must outlive the lock."""
        entries, now = self._entries, self._clock()
        if now > self._latest:  # noqa: PLR1730 - max() takes longer
            self._latest = now
        deadline = self._latest + ttl
        line = self._lines.get(ttl)
        if line is None:
            line = self._open_line_locked(ttl, deadline)
        old = entries.get(key)
        if old is not None:
            self._remove_locked(old, expired=old[1] <= now)
        self._serial = serial = self._serial + 1
        line[serial] = key
        entries[key] = (value, deadline, line, serial, key)
        if self._loads:
            self._loads.pop(key, None)
        dropped: object = old
        if self._heap[0][0] <= now:
            dropped = old, self._expire_locked(now, 2)  # two for one: a backlog shrinks
        while len(entries) > self._max_size:
            _, evicted = entries.popitem(last=False)
            del evicted[2][evicted[3]]
            self._evictions += 1
            dropped = dropped, evicted
        return dropped

    def _open_line_locked(self, ttl: float, deadline: float) -> _Line[K]:
        if len(self._heap) > 2 * len(self._entries) + 64:  # most lines stand empty: drop those
            self._lines = {seconds: line for seconds, line in self._lines.items() if line}
            self._heap = [record for record in self._heap if record[1] in self._lines]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (deadline, ttl))
        line: _Line[K] = OrderedDict()
        self._lines[ttl] = line
        return line

    def _remove_locked(self, entry: _Entry[V, K], *, expired: bool) -> None:
        del self._entries[entry[4]]
        del entry[2][entry[3]]
        self._expirations += expired

    def _expire_locked(self, now: float, limit: int) -> list[_Entry[V, K]]:
        """Remove and return up to `limit` expired entries, in the order of their deadlines."""
        expired: list[_Entry[V, K]] = []
        while len(expired) < limit and self._heap and self._heap[0][0] <= now:
            ttl = self._heap[0][1]
            line = self._lines.get(ttl)
            if not line:
                self._lines.pop(ttl, None)
                heapq.heappop(self._heap)
                continue
            serial, key = next(iter(line.items()))
            entry = self._entries.get(key)
            if entry is None or entry[3] != serial:  # an interrupt left the number there
                del line[serial]
            elif entry[1] > now:  # the record was that of an entry now gone
                heapq.heapreplace(self._heap, (entry[1], ttl))
            else:
                expired.append(entry)
                self._remove_locked(entry, expired=True)
        return expired

    def _when_swept(self, read: Callable[[int], T]) -> T:
        """Remove all that is expired, in slices; `read` in the step that finds no more."""
        removed = 0
        while True:
            with self._lock:
                expired = self._expire_locked(self._clock(), _SLICE)
                removed += len(expired)
                if len(expired) < _SLICE:
                    return read(removed)
            del expired  # before the lock is taken again

    def _reset_locked(self, _removed: int) -> object:
        dropped = self._entries
        self._entries, self._lines, self._heap, self._loads = OrderedDict(), {}, [], {}
        return dropped

    def _give_back(self, key: K) -> None:
        """Release the lock, if this thread holds it, after an exception.

        A signal handler can raise right after `acquire`, so that call stands inside the `try`. It
        can raise before, too; then the release must be refused, which RLock does to all but its
        owner. `with` is as safe where nobody measures: it takes markedly longer.
        """
        with contextlib.suppress(RuntimeError):
            self._lock.release()
        _check_hashable(key)


def _wait(load: _Load[Any], key: object) -> None:
    """Wait for `load`, unless it waits, itself or by way of others, for this caller."""
    chain = [outer for reference in _loading.get() if (outer := reference()) is not None]
    with load.lock:
        load.joined.append(chain)
    try:
        # Announced first, searched second: who closes a circle last is sure to see all of it.
        blocked = chain.copy()
        for step in blocked:  # grows by those who wait for one that is in it
            with step.lock:
                joined = [] if step.landed.is_set() else step.joined.copy()
            blocked += [outer for others in joined for outer in others if outer not in blocked]
        if load in blocked:
            raise RuntimeError(
                f"the load of {key!r} would wait for itself: its loader asks for that key, "
                "directly or by way of other loads; let it do without"
            )
        load.landed.wait()
    finally:
        with load.lock:
            load.joined.remove(chain)


def _check_hashable(key: object) -> None:
    try:
        hash(key)
    except TypeError as error:
        raise TypeError(f"key must be hashable, such as a str or a tuple, not {key!r}") from error


def _seconds(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not value > 0:
        raise ValueError(f"{name} must be above zero, not {value!r}; math.inf is for ever")
    return min(value, 1e300)  # as good as for ever, also for an int that fits no float


def _size(name: str, value: int | None) -> float:
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int or None, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value!r}; None is for no bound")
    return value
