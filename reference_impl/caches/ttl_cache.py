# ttl_cache.py: an LRU cache whose entries also expire (TTLCache)
# https://executable-guarantees.example/caches/ttl_cache.html
# Version 1.1.0 (2026-11-30); Python 3.11 to 3.14, with or without the GIL; standard library only
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: 2026 The Executable Guarantees authors
"""A cache for the threads of a process: bounded, exact expiry, exact LRU, one load per key."""

import heapq
import inspect
import logging
import math
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from functools import partial
from types import CodeType, CoroutineType, FunctionType, TracebackType
from typing import Any, Generic, Literal, NoReturn, SupportsIndex, TypeVar, overload

__all__ = ["CacheStats", "EvictReason", "TTLCache"]

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

EvictReason = Literal["evicted", "expired", "replaced", "deleted", "cleared"]
_Left = tuple[K, V, EvictReason]
_OnEvict = Callable[[K, V, EvictReason], object]
_Span = float | tuple[float, float, bool]  # time to live, or with `stale` and whether it is over

_ABSENT: Any = object()
_PEEK: Any = object()  # as a default of `get`: count no miss
_NOT_LIVE = -math.inf  # the deadline of what cannot be seen any more
_FOREVER = 1e300  # seconds
_SLICE = 256  # so many expired entries are removed before other threads are let in
_DEFERRED = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class CacheStats:
    """What a cache has counted since it was made; immutable.

    Attributes:
        hits: look-ups that found a live entry, or a stale one that they accept.
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


class _Used(Generic[K, V]):
    """What a look-up uses of an entry: here, as the slots of a base class lie side by side."""

    __slots__ = ("deadline", "newer", "older", "value")
    value: V
    deadline: float  # `_NOT_LIVE` once it is stale or has left
    older: "_Entry[K, V]"
    newer: "_Entry[K, V]"


class _Entry(_Used[K, V]):
    """What is stored under a key, with its neighbours in the order of use and in its line."""

    __slots__ = ("earlier", "expired_at", "key", "later", "line")
    key: K
    line: "_Line[K, V]"  # `_NOWHERE` once it has left
    expired_at: float  # the deadline that a stale entry had
    earlier: "_Entry[K, V]"
    later: "_Entry[K, V]"


class _Line(Generic[K, V]):
    """The entries of one time to live, a circle through the line itself, first to expire first.

    An entry that may be stale for a while moves at its deadline to another line, where `over` is
    true, and leaves that one `stale` seconds later.
    """

    __slots__ = ("earlier", "later", "over", "span", "stale", "ttl")

    def __init__(self, span: _Span) -> None:
        self.span = span
        self.ttl, self.stale, self.over = span if isinstance(span, tuple) else (span, 0.0, False)
        self.earlier: Any = self
        self.later: Any = self


_NOWHERE: _Line[Any, Any] = _Line((0.0, math.inf, True))


class _Store(Generic[K, V]):
    """Entries by key, by use and by deadline; its user sees to it that one call runs at a time.

    A signal handler may raise wherever a Python function is entered, a call into C returns or a
    loop jumps back; the code of keys and the clock are Python functions, too. Hence each change
    is one piece of straight-line code without a call. The only statement in it that may raise,
    as it can run a key's own code, is the first (then nothing has changed) or the last (then
    `leaving` is the entry that the next change has to take out of the dict).
    """

    def __init__(self, max_size: float, clock: Callable[[], float], *, listens: bool) -> None:
        self.max_size = max_size
        self.clock = clock
        self.listens = listens  # to what leaves
        self.left: list[_Left[K, V]] = []  # to be told of, and released
        self.latest = -math.inf  # reading of the clock, so that lines stay sorted
        self.serial = 0
        self.hits = 0.0  # in a float, as adding to it is quicker
        self.misses = self.evictions = self.expirations = 0
        self.loads = self.load_failures = 0
        self.entries: dict[K, _Entry[K, V]] = {}
        self.leaving: _Entry[K, V] | None = None
        self.order: _Entry[K, V] = _circle()  # from order.newer, the least recently used
        self.stale: _Entry[K, V] = _circle()  # what is stale, in the order in which it became so
        self.count = self.stale_count = 0  # of both; of the latter
        self.lines: dict[_Span, _Line[K, V]] = {}
        # (no later than the line's first deadline, its number, line), one for each line
        self.heap: list[tuple[float, int, _Line[K, V]]] = []

    def put(self, key: K, value: V, ttl: float, stale: float = 0.0) -> object:  # noqa: PLR0912, PLR0915 - one step
        """Store it and make room; what is returned, and `left`, must outlive the lock."""
        now = self.clock()
        if now > self.latest:  # noqa: PLR1730 - max() takes longer
            self.latest = now
        if self.leaving is not None:
            self._finish_leaving(self.leaving)
        if self.heap and self.heap[0][0] <= now:
            self.expire(now, 2)  # two for one: a backlog shrinks
        span = (ttl, stale, False) if stale else ttl
        line: Any = self.lines.get(span)
        if line is None:
            line = self._open_line(span, self.latest + ttl)
        deadline, order, entries = self.latest + ttl, self.order, self.entries
        entry = entries.get(key)
        oldest: _Entry[K, V] | None = None
        if entry is None or entry.line is _NOWHERE:
            dropped: object = None
            if self.count >= self.max_size:
                dropped = oldest = self.stale.newer if self.stale_count else order.newer
            entry = _Entry()
            entry.key = key
            entries[key] = entry  # may raise: from here on, nothing may until `oldest` left
            if oldest is None:
                self.count += 1
        else:
            dropped, expired = entry.value, entry.deadline <= now
            if self.listens:
                left: _Left[K, V] = entry.key, entry.value, "expired" if expired else "replaced"
                self.left += [left]
            if expired:
                self.expirations += 1
                self.stale_count -= entry.deadline == _NOT_LIVE
            entry.older.newer, entry.newer.older = entry.newer, entry.older
            entry.earlier.later, entry.later.earlier = entry.later, entry.earlier
        entry.value, entry.deadline, entry.line = value, deadline, line
        entry.older, entry.newer = order.older, order
        order.older.newer = order.older = entry
        entry.earlier, entry.later = line.earlier, line
        line.earlier.later = line.earlier = entry
        if oldest is not None:
            expired = oldest.deadline == _NOT_LIVE
            if self.listens:
                left = oldest.key, oldest.value, "expired" if expired else "evicted"
                self.left += [left]
            if expired:
                self.expirations += 1
                self.stale_count -= 1
            else:
                self.evictions += 1
            oldest.older.newer, oldest.newer.older = oldest.newer, oldest.older
            oldest.earlier.later, oldest.later.earlier = oldest.later, oldest.earlier
            oldest.deadline, oldest.line, self.leaving = _NOT_LIVE, _NOWHERE, oldest
            del entries[oldest.key]
            self.leaving = None
        return dropped

    def remove(self, entry: _Entry[K, V], reason: EvictReason) -> None:
        """Take out what has not left yet."""
        if self.leaving is not None:
            self._finish_leaving(self.leaving)
        entry.older.newer, entry.newer.older = entry.newer, entry.older
        entry.earlier.later, entry.later.earlier = entry.later, entry.earlier
        self.count -= 1
        self.stale_count -= entry.deadline == _NOT_LIVE
        self.expirations += reason == "expired"
        left: _Left[K, V] = entry.key, entry.value, reason
        self.left += [left]
        entry.deadline, entry.line, self.leaving = _NOT_LIVE, _NOWHERE, entry
        del self.entries[entry.key]
        self.leaving = None

    def expire(self, now: float, limit: int) -> int:
        """Remove what has expired by `now`, first to expire first; return how many.

        What may be returned stale is moved. `limit` bounds both together.
        """
        removed = moved = 0
        while removed + moved < limit and self.heap and self.heap[0][0] <= now:
            _, number, line = self.heap[0]
            if line.later is line:  # no entry is left
                if self.lines.get(line.span) is line:
                    del self.lines[line.span]
                heapq.heappop(self.heap)
                del line.earlier, line.later  # a circle
                continue
            entry: _Entry[K, V] = line.later
            due = entry.expired_at + line.stale if line.over else entry.deadline
            if due > now:  # the record was that of an entry now gone
                heapq.heapreplace(self.heap, (due, number, line))
            elif line.stale and not line.over:
                self._make_stale(entry, line)
                moved += 1
            else:
                self.remove(entry, "expired")
                removed += 1
        return removed

    def is_due(self) -> bool:
        """Whether `expire` may find more."""
        return bool(self.heap) and self.heap[0][0] <= self.clock()

    def live(self, key: K) -> bool:
        """Whether there is a value that has not expired."""
        entry = self.entries.get(key)
        return entry is not None and entry.deadline > self.clock()

    def find(self, key: K, stale: float) -> tuple[V, bool]:
        """The value, up to `stale` seconds past its life, or `_ABSENT`; and whether it is live."""
        entry = self.entries.get(key)
        if entry is None or entry.line is _NOWHERE:
            return _ABSENT, False
        now = self.clock()
        expired_at = entry.expired_at if entry.line.over else entry.deadline
        return (entry.value if expired_at + stale > now else _ABSENT), entry.deadline > now

    def delete(self, key: K, reason: EvictReason = "deleted") -> bool:
        """Remove `key`; whether it was live. As "expired", only what is neither live nor stale."""
        entry = self.entries.get(key)
        if entry is None or entry.line is _NOWHERE:
            return False
        live = entry.deadline > self.clock()
        if reason == "deleted" or not (live or entry.line.stale):
            self.remove(entry, reason if live else "expired")
        return live

    def by_use(self) -> list[_Entry[K, V]]:
        """The entries that are not stale, least recently used first."""
        found, entry = list[_Entry[K, V]](), self.order.newer
        while entry is not self.order:
            found.append(entry)
            entry = entry.newer
        return found

    def clear(self) -> dict[K, _Entry[K, V]]:
        """Remove every entry, and return them."""
        order, stale = _circle(), _circle()
        cleared, self.entries, self.lines, self.heap = self.entries, {}, {}, []
        self.order, self.stale, self.leaving = order, stale, None
        self.expirations += self.stale_count
        self.count = self.stale_count = 0
        return cleared

    def counts(self) -> CacheStats:
        """The counts of this instant."""
        return CacheStats(*(int(getattr(self, name)) for name in CacheStats.__match_args__))

    def _finish_leaving(self, entry: _Entry[K, V]) -> None:
        """Take out of the dict what an interrupt, or the code of its key, has left there."""
        if self.entries.get(entry.key) is entry:
            if not self.listens:  # else it has been told of; in any case it must outlive the lock
                left: _Left[K, V] = entry.key, entry.value, "evicted"
                self.left += [left]
            del self.entries[entry.key]
        self.leaving = None

    def _make_stale(self, entry: _Entry[K, V], line: _Line[K, V]) -> None:
        now_stale, expired_at = self.stale, entry.deadline
        span, end = (line.ttl, line.stale, True), expired_at + line.stale
        over: Any = self.lines.get(span) or self._open_line(span, end)
        entry.older.newer, entry.newer.older = entry.newer, entry.older
        entry.earlier.later, entry.later.earlier = entry.later, entry.earlier
        entry.older, entry.newer = now_stale.older, now_stale
        now_stale.older.newer = now_stale.older = entry
        entry.earlier, entry.later = over.earlier, over
        over.earlier.later = over.earlier = entry
        entry.expired_at, entry.deadline, entry.line = expired_at, _NOT_LIVE, over
        self.stale_count += 1

    def _open_line(self, span: _Span, deadline: float) -> _Line[K, V]:
        if len(self.heap) > 2 * self.count + 64:  # most lines have no entry: drop those
            lines = {key: line for key, line in self.lines.items() if line.later is not line}
            heap = [record for record in self.heap if lines.get(record[2].span) is record[2]]
            heapq.heapify(heap)
            self.lines, self.heap = lines, heap
        self.serial += 1
        line = _Line[K, V](span)
        heapq.heappush(self.heap, (deadline, self.serial, line))
        self.lines[span] = line
        return line


class _Load:
    """A load in progress, of any cache; once it has ended, nobody waits for it any more."""

    def __init__(self) -> None:
        self.ended = False
        # The loads that each who waits for this one is part of. No lock: each use is one
        # operation of a dict whose keys are compared by identity.
        self.joined: dict[object, list[_Load]] = {}
        self.value: Any = _ABSENT
        self.error: Exception | None = None  # with neither value nor error, it was abandoned
        self.traceback: TracebackType | None = None
        self.context: BaseException | None = None

    def fail(self, error: Exception, outer: BaseException | None) -> None:
        """Keep `error` as it is now, but without `outer`, which its first caller was handling."""
        link: BaseException | None = error
        seen = set[int]()
        while outer is not None and link is not None and id(link) not in seen:
            seen.add(id(link))
            if link.__context__ is outer:
                link.__context__ = None
            link = link.__context__
        self.traceback, self.context = error.__traceback__, error.__context__
        self.error = error

    def result(self) -> Any:
        """The value, or `_ABSENT`; or raise the error with the traceback that it had."""
        error, context = self.error, self.context
        if error is None:
            return self.value
        try:
            raise error.with_traceback(self.traceback)
        finally:
            error.__context__ = context  # not what this caller is handling
            del error, context, self  # the error keeps this frame, which must not keep the error


class _ThreadLoad(_Load, Generic[K, V]):
    """A load that threads wait for.

    `gate` is closed while it runs. The end of the load opens it, by one call that no interrupt
    can cut short, and each who comes through opens it for the next. It may be open too early,
    when an interrupt ends a wait: so whoever comes through looks at `ended`.
    """

    def __init__(self, key: K, loader: Callable[[], V], ttl: float, stale: float) -> None:
        super().__init__()
        self.key, self.loader, self.ttl, self.stale = key, loader, ttl, stale
        self.queued = self.handed_over = False  # not begun by the executor; it ends the load
        self.job: object = None  # what it has to run
        self.gate = threading.Lock()
        self.gate.acquire()

    def wait(self) -> None:
        """Wait until it has ended."""
        try:
            while not self.ended:
                self.gate.acquire()
        finally:
            try:  # noqa: SIM105 - suppress() is Python code
                self.gate.release()
            except RuntimeError:  # it is open
                pass

    def end(self, _: object = None) -> None:
        """Let go who waits."""
        self.ended, self.job = True, None
        try:  # noqa: SIM105 - suppress() is Python code
            self.gate.release()
        except RuntimeError:  # it is open
            pass


# The loads, of all caches, that the running code is part of. A context can outlive its loads,
# and must not keep what they loaded: hence weak references.
_loading: ContextVar[tuple[weakref.ref[_Load], ...]] = ContextVar("loading", default=())


class TTLCache(Generic[K, V]):
    """A bounded mapping whose entries expire; the least recently used one makes room.

    `None` is a value like any other. Expired entries cannot be seen; they are removed by the
    calls that come across them. An empty cache is false, as any empty container is: write
    `TTLCache() if cache is None else cache`, not `cache or TTLCache()`.

    Args:
        default_ttl: seconds that an entry lives, above zero; `math.inf` is forever. If in
            doubt, how old an answer may be.
        max_size: how many entries it holds at most, from 1; None is for no bound. If in doubt,
            what the memory allows: the bound costs no time.
        clock: returns seconds. It is read under the lock and must not use the cache. When it
            steps back, new entries count from its latest reading.
        on_evict: is called with the key, the value and the reason for each entry that leaves:
            "expired" (its life was over, whatever removed it), "evicted" (to make room),
            "replaced", "deleted" or "cleared". It runs in the thread whose call removed the
            entry, without the lock and before that call returns. It may use the cache. What it
            raises is logged. An interrupt (Ctrl-C) can keep it from being called.
        executor: runs the refreshes of stale values, in threads of this process. It should have
            a thread to spare; if it refuses one, the caller loads.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: a number is not above zero.

    Thread safety:
        Internally synchronized: any thread may call any method, and each is linearizable, with
        or without the GIL. Under the one lock no code of the caller's runs but the clock and the
        keys' `__hash__` and `__eq__`, which must not use the cache. What a call drops is
        released after the lock and before the call returns. What a cache holds when it is
        dropped itself is released by the cyclic collector; `clear` does so at once.

    Fork:
        A child has a sound copy if no other thread was inside a call; but the loads of other
        threads never end there, so make a new cache.

    Exit:
        There is nothing to close.

    Signals:
        A handler may raise at any point of any call (Ctrl-C), and the cache stays consistent;
        it must not use the cache. `__del__` of what a call drops may use it; not so where the
        cyclic collector or a free-threaded build runs it, as that can be in mid-call.

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
        on_evict: Callable[[K, V, EvictReason], object] | None = None,
        executor: Executor | None = None,
    ) -> None:
        _check_call("clock", clock, "a function that returns seconds")
        if on_evict is not None:
            _check_call("on_evict", on_evict, "a function of key, value and reason")
        if executor is not None and not callable(getattr(executor, "submit", None)):
            raise TypeError(f"executor must be a concurrent.futures.Executor, not {executor!r}")
        self._default_ttl = _seconds("default_ttl", default_ttl)
        self._on_evict = on_evict
        self._executor = executor
        listens = on_evict is not None
        self._store: _Store[K, V] = _Store(_size("max_size", max_size), clock, listens=listens)
        self._loads: dict[K, _ThreadLoad[K, V]] = {}  # without those that were outdated
        # Guards both. It is never entered twice: it is an RLock as that refuses to be released by
        # a thread that does not hold it. So `acquire` can be called inside the `try`, whose
        # handler need not know whether an interrupt came before or after. No Python function
        # is entered before that release. `with` is as safe up to Python 3.13, but slower.
        self._lock = threading.RLock()

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
        expired = False
        store = self._store
        try:
            self._lock.acquire()
            entry = store.entries.get(key)
            if entry is not None and entry.deadline > store.clock():
                order = store.order
                newer = entry.newer
                if newer is not order:  # one by one, this is quicker than in pairs
                    older = entry.older
                    newest = order.older
                    entry.newer = order
                    entry.older = newest
                    order.older = entry
                    newest.newer = entry
                    older.newer = newer
                    newer.older = older
                store.hits += 1.0
                found = entry.value
            elif default is not _PEEK:
                store.misses += 1
                expired = entry is not None
        except BaseException:
            try:  # noqa: SIM105 - suppress() is Python code
                self._lock.release()
            except RuntimeError:
                pass
            _check_hashable(key)
            raise
        self._lock.release()
        if expired:
            self._locked(store.delete, key, "expired")
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
        store = self._store
        try:
            self._lock.acquire()
            if self._loads:
                self._loads.pop(key, None)
            dropped = store.put(key, value, seconds)
            left: list[_Left[K, V]] | None = None  # not the store's own list, which others fill
            if store.left:
                left, store.left = store.left, []
        except BaseException:
            try:  # noqa: SIM105 - suppress() is Python code
                self._lock.release()
            except RuntimeError:
                pass
            _check_hashable(key)
            raise
        self._lock.release()
        if left:
            _notify(self._on_evict, left)
        del dropped  # not before: its finalizers may use the cache

    def delete(self, key: K) -> bool:
        """Remove `key`; return whether it was there.

        A load of `key` that is under way will not be stored.

        Raises:
            TypeError: `key` is not hashable.

        Cost: constant.
        """
        _check_hashable(key)
        return self._locked(self._delete_locked, key)

    def clear(self) -> None:
        """Remove every entry; loads that are under way will not be stored.

        Cost: linear, but only to release the entries, which needs no lock.
        """
        _release(self._when_swept(self._clear_locked), self._on_evict)

    def cleanup_expired(self) -> int:
        """Remove the expired entries; return how many this call removed.

        It frees memory, and is never needed for a right answer. Like all that sweeps, it lets
        other threads in after every few hundred entries. Values that may be returned stale stay.

        Cost: constant for each entry removed.
        """
        return self._when_swept(lambda removed: removed)

    def get_or_load(
        self, key: K, loader: Callable[[], V], ttl: float | None = None, *, stale: float = 0.0
    ) -> V:
        """Return the value of `key`; if there is none, load and store it, once for all who ask.

        The first who asks runs its loader, in its own thread and context and without the lock.
        The others wait for it, without limit, and get its result or its exception, the very same
        object; their own `ttl` and `stale` are ignored. A failure is not stored. An exception
        that is no `Exception` (KeyboardInterrupt) is for the loading thread alone, and one of the
        others loads again. After a `set`, `delete` or `clear`, a load that was under way still
        answers those who asked before, but is not stored.

        With `stale`, a value whose life is over by less than that is returned at once, and counts
        as a hit, while one refresh runs: on the cache's executor or, without one, by the caller
        who notices first, who then gets the new value. If the refresh fails, that is logged, and
        the old value stays until its end. A value loaded so is kept for `stale` seconds past its
        life, unless its place is needed; all else takes it for absent.

        Args:
            key: anything hashable.
            loader: a function without arguments; it may use the cache, except to load `key`.
            ttl: seconds that the value lives once loaded, above zero; None is for `default_ttl`.
            stale: seconds past its life during which a value will do, from 0.

        Raises:
            RuntimeError: the load would wait for itself: its loader asks for `key`, directly or
                by way of other loads, other caches, or threads that run in its context.
            TypeError: `key` is not hashable, `loader` is a coroutine or generator function or
                cannot be called, or `ttl` or `stale` is not a number.
            ValueError: `ttl` is not above zero, or `stale` is below.
            BaseException: what the loader raised.

        Cost: that of `get`, if there is a value.
        """
        if type(loader) is not FunctionType or loader.__code__.co_flags & _DEFERRED:
            _check_call("loader", loader, "a plain function (AsyncTTLCache takes async ones)")
        seconds = self._default_ttl if ttl is None else _seconds("ttl", ttl)
        if stale != 0.0 or stale is False:
            stale = _seconds("stale", stale, least="from zero")
        found: V = self.get(key, _PEEK if stale else _ABSENT)
        counts = found is _PEEK  # it has not been counted yet
        while found is _ABSENT or counts:
            found = self._load_or_join(_ThreadLoad(key, loader, seconds, stale), counts)
            counts = False
        return found

    def keys(self) -> list[K]:
        """Return the live keys of one instant, least recently used first.

        Cost: linear, under the lock.
        """
        return self._when_swept(lambda _: [entry.key for entry in self._store.by_use()])

    def items(self) -> list[tuple[K, V]]:
        """Return the live keys and values of one instant, least recently used first.

        Cost: linear, under the lock.
        """
        return self._when_swept(lambda _: [(e.key, e.value) for e in self._store.by_use()])

    @property
    def stats(self) -> CacheStats:
        """The counts of one instant. Cost: constant."""
        return self._locked(self._store.counts)

    @property
    def size(self) -> int:
        """The number of live entries. Cost: constant (amortised: it removes expired ones)."""
        return self._when_swept(lambda _: self._store.count - self._store.stale_count)

    def __len__(self) -> int:
        return self.size

    def __contains__(self, key: K) -> bool:
        _check_hashable(key)
        return self._locked(self._store.live, key)

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse copy.copy, copy.deepcopy and pickle."""
        raise TypeError(
            f"{type(self).__name__} cannot be copied or pickled: make a new one, and set in it "
            "what items() returns"
        )

    def _locked(self, change: Callable[..., T], *arguments: Any) -> T:
        """Make a change under the lock; then tell of what left, and release it."""
        store = self._store
        try:
            self._lock.acquire()
            result = change(*arguments)
            left, store.left = store.left, []
        except BaseException:
            try:  # noqa: SIM105 - suppress() is Python code
                self._lock.release()
            except RuntimeError:
                pass
            raise
        self._lock.release()
        _notify(self._on_evict, left)
        return result

    def _delete_locked(self, key: K) -> bool:
        self._loads.pop(key, None)
        return self._store.delete(key)

    def _clear_locked(self, _removed: int) -> dict[K, _Entry[K, V]]:
        self._loads = {}
        return self._store.clear()

    def _when_swept(self, read: Callable[[int], T]) -> T:
        """Remove all that is expired, in slices; `read` in the step that finds no more."""
        store, removed = self._store, 0

        def sweep() -> T:
            nonlocal removed
            removed += store.expire(store.clock(), _SLICE)
            return _ABSENT if store.is_due() else read(removed)

        while (result := self._locked(sweep)) is _ABSENT:
            pass
        return result

    def _load_or_join(self, mine: _ThreadLoad[K, V], counts: bool) -> V:
        """Return what may be returned, load, or wait for who does; `_ABSENT` if that gave up."""
        load: _ThreadLoad[K, V] | None = mine  # made, then registered, so that it always ends
        try:
            found, load = self._locked(self._find_or_register_locked, mine, counts)
            if load is None:
                return found
            if load is not mine:
                _wait(load, mine)
            elif found is _ABSENT:
                self._lead(mine)
            else:
                return self._refresh(mine, found)
            result: V = load.result()
            return result
        finally:
            if not mine.handed_over:
                mine.ended = True
                try:  # noqa: SIM105 - suppress() is Python code
                    mine.gate.release()
                except RuntimeError:  # it is open
                    pass
            del load, mine  # an error keeps this frame, which must not keep the error

    def _find_or_register_locked(
        self, mine: _ThreadLoad[K, V], counts: bool
    ) -> tuple[V, _ThreadLoad[K, V] | None]:
        """What is there, live or stale; and the load to wait for, or `mine` to be run."""
        found, live = self._store.find(mine.key, mine.stale)
        if counts:
            self._store.hits += found is not _ABSENT
            self._store.misses += found is _ABSENT
        load = self._loads.get(mine.key)
        if live:  # stored since the look-up
            return found, None
        # An interrupt may have left one that has ended; and nobody need wait for the executor.
        if load is None or load.ended or (load.queued and found is _ABSENT):
            mine.queued = found is not _ABSENT and self._executor is not None
            self._loads[mine.key] = mine
            return found, mine
        return found, load if found is _ABSENT else None

    def _lead(self, load: _ThreadLoad[K, V]) -> None:
        """Run the loader, and store its value, unless a set, delete or clear came between."""
        outer, handled = _loading.get(), sys.exception()
        try:
            _loading.set((*outer, weakref.ref(load)))
            try:
                load.value = _plain_result(load.loader)
            except Exception as error:
                load.fail(error, handled)
        finally:
            try:
                _loading.set(outer)
            finally:
                self._locked(self._land_locked, load)
                del load, handled

    def _land_locked(self, load: _ThreadLoad[K, V]) -> object:
        store, loaded = self._store, load.value is not _ABSENT
        store.loads += loaded
        store.load_failures += not loaded
        if self._loads.get(load.key) is not load:
            return None
        del self._loads[load.key]
        return store.put(load.key, load.value, load.ttl, load.stale) if loaded else None

    def _refresh(self, load: _ThreadLoad[K, V], found: V) -> V:
        """Have the executor load, and return what was found; or load here."""
        if self._executor is not None:
            context = copy_context()
            context.run(_loading.set, ())  # nobody who waits for this caller waits for the load
            job = partial(context.run, partial(self._run_queued, load))
            load.job = weakref.ref(job, load.end)  # it is dropped when it is cancelled
            try:
                self._executor.submit(job)
            except Exception as error:
                _log.warning("the executor refused a refresh, so its caller loads: %r", error)
            else:
                load.handed_over = True
                return found
        self._run_queued(load)
        if load.value is _ABSENT:
            found, _ = self._locked(self._store.find, load.key, load.stale)
        return load.result() if load.value is not _ABSENT or found is _ABSENT else found

    def _run_queued(self, load: _ThreadLoad[K, V]) -> None:
        try:
            if self._locked(self._claim_locked, load):
                self._lead(load)
                if load.error is not None:
                    _log.warning("the refresh of key %r failed", load.key, exc_info=load.error)
        finally:
            load.end()

    def _claim_locked(self, load: _ThreadLoad[K, V]) -> bool:
        """Whether this load is still wanted: not outdated, nor replaced by one who waits."""
        load.queued = False
        return not load.ended and self._loads.get(load.key) is load


def _circle() -> _Entry[Any, Any]:
    """The two ends of an order, which is empty yet."""
    ends: _Entry[Any, Any] = _Entry()
    ends.older = ends.newer = ends
    return ends


def _release(cleared: dict[K, _Entry[K, V]], on_evict: _OnEvict[K, V] | None) -> None:
    """Take apart what was cleared, as circles would wait for the collector; tell of it."""
    left: list[_Left[K, V]] = []
    for entry in cleared.values():
        if on_evict is not None and entry.line is not _NOWHERE:
            live = entry.deadline > _NOT_LIVE
            left.append((entry.key, entry.value, "cleared" if live else "expired"))
        del entry.older, entry.newer, entry.earlier, entry.later, entry.line
    _notify(on_evict, left)


def _notify(on_evict: _OnEvict[K, V] | None, left: list[_Left[K, V]]) -> None:
    if on_evict is not None:
        for key, value, reason in left:
            try:
                on_evict(key, value, reason)
            except Exception:
                _log.exception("on_evict failed for key %r, which was %s", key, reason)


def _plain_result(loader: Callable[[], V]) -> V:
    value = loader()
    if isinstance(value, CoroutineType):
        value.close()
        raise TypeError(f"loader returned a coroutine: AsyncTTLCache takes {loader!r}")
    return value


def _wait(load: _ThreadLoad[K, V], mine: _ThreadLoad[K, V]) -> None:
    """Wait for `load`, unless it waits, itself or by way of others, for this caller."""
    try:
        # Announced first, searched second: who closes a circle last is sure to see all of it.
        load.joined[mine] = _own_loads()
        _refuse_circle(load, mine.key)
        load.wait()
    finally:
        load.joined.pop(mine, None)


def _own_loads() -> list[_Load]:
    """The loads that the running code is part of."""
    return [load for reference in _loading.get() if (load := reference()) is not None]


def _waits_for_caller(load: _Load) -> bool:
    blocked = _own_loads()
    for step in blocked:  # grows by those who wait for one that is in it
        if not step.ended:
            for others in step.joined.copy().values():
                blocked += [outer for outer in others if outer not in blocked]
    return load in blocked


def _refuse_circle(load: _Load, key: object) -> None:
    if _waits_for_caller(load):
        raise RuntimeError(
            f"the load of {key!r} would wait for itself: its loader asks for that key, "
            "directly or by way of other loads; let it do without"
        )


def _check_hashable(key: object) -> None:
    try:
        hash(key)
    except TypeError as error:
        raise TypeError(f"key must be hashable, such as a str or a tuple, not {key!r}") from error


def _check_call(name: str, function: object, kind: str, refused: int = _DEFERRED) -> None:
    if not callable(function) or _code_flags(function) & refused:
        raise TypeError(f"{name} must be {kind}, not {function!r}")


def _code_flags(function: Any) -> int:
    """The flags of the code that a call runs, behind partials, bound methods and `__call__`."""
    while isinstance(function, partial):
        function = function.func
    if not hasattr(function, "__code__"):
        function = type(function).__call__
    code = getattr(function, "__code__", None)
    return code.co_flags if isinstance(code, CodeType) else 0


def _seconds(name: str, value: float, least: str = "above zero") -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not (value > 0 or (value == 0 and least == "from zero")):
        raise ValueError(f"{name} must be {least}, not {value!r}; math.inf is forever")
    return float(min(value, _FOREVER))  # also for an int that fits no float


def _size(name: str, value: int | None) -> float:
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int or None, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value!r}; None is for no bound")
    return value
