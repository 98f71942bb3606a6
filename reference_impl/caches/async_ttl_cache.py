# async_ttl_cache.py: an LRU cache with expiry for the tasks of one event loop (AsyncTTLCache)
# https://executable-guarantees.example/caches/async_ttl_cache.html
# Version 1.1.0 (2026-11-30); Python 3.11 to 3.14, with or without the GIL; standard library only
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: 2026 The Executable Guarantees authors
"""A cache for the tasks of an event loop: bounded, exact expiry, exact LRU, one load per key."""

import asyncio
import inspect
import logging
import math
import sys
import time
import weakref
from asyncio import Future, Task, get_running_loop
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial
from types import FunctionType
from typing import Generic, NoReturn, Self, SupportsIndex, TypeVar, overload

from .ttl_cache import (
    _ABSENT,
    _FOREVER,
    _PEEK,
    _SLICE,
    CacheStats,
    EvictReason,
    _check_call,
    _check_hashable,
    _Load,
    _loading,
    _notify,
    _own_loads,
    _refuse_circle,
    _release,
    _seconds,
    _size,
    _Store,
    _waits_for_caller,
)

__all__ = ["AsyncTTLCache", "CacheStats", "EvictReason"]

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

_GENERATES = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
_log = logging.getLogger(__name__)


class _TaskLoad(_Load, Generic[K, V]):
    """A load in progress; its task is here until it ends, and then in the waiters' futures."""

    def __init__(
        self, key: K, loader: Callable[[], Awaitable[V]], ttl: float, stale: float
    ) -> None:
        super().__init__()
        self.key, self.loader, self.ttl, self.stale = key, loader, ttl, stale
        self.task: Task[None] | None = None
        self.waiters: dict[Future[Task[None]], None] = {}  # first come, first served
        self.refreshes = False  # a stale value: it needs nobody who waits


class AsyncTTLCache(Generic[K, V]):
    """A bounded mapping whose entries expire; the least recently used one makes room.

    What TTLCache is for threads this is for tasks: the same methods, as coroutines, except
    `size`, `stats`, `len` and `in`. `async with` adds a clean-up in the background, which frees
    the memory of expired entries; they cannot be seen either way.

    Args:
        default_ttl: as for TTLCache.
        max_size: as for TTLCache.
        clock: returns seconds; it must not use the cache. When it steps back, new entries
            count from the latest reading at which one was stored.
        cleanup_interval: seconds from one clean-up in the background to the next, at least. If
            in doubt, 60.
        on_evict: as for TTLCache, a plain function; it is called in the step that removed the
            entry, in the task that did so or by the clean-up.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: a number is not above zero.

    Async safety:
        Loop-bound: it belongs to the loop that used it last, while that one runs; any other use,
        from threads too, is a RuntimeError. Every method is atomic for the loop's tasks. `get`,
        `set` and `delete` never suspend, so no cancellation falls inside. What a call drops is
        released before it returns.

    Fork:
        A child forked while the loop runs is refused; make a new cache there.

    Exit:
        There is nothing to close.

    Signals:
        A handler must not use the cache, except one of `loop.add_signal_handler`. One that raises
        in mid-call, as the second Ctrl-C under `asyncio.run` does (the first is a cancellation),
        leaves the cache consistent; whether the loop can go on is for asyncio to say. `__del__`
        of what a call drops may use the plain methods; not so where the cyclic collector runs
        it, as that can be in mid-call. Free-threaded builds make no difference.

    Examples:
        >>> async def main() -> None:
        ...     async def question() -> int:
        ...         return 6 * 9
        ...     cache = AsyncTTLCache[str, int](default_ttl=60.0, max_size=100)
        ...     await cache.set("answer", 42)
        ...     print(await cache.get_or_load("question", question), await cache.items())
        >>> asyncio.run(main())
        54 [('answer', 42), ('question', 54)]
    """

    def __init__(
        self,
        default_ttl: float = 3600.0,
        max_size: int | None = 1000,
        *,
        clock: Callable[[], float] = time.monotonic,
        cleanup_interval: float = 60.0,
        on_evict: Callable[[K, V, EvictReason], object] | None = None,
    ) -> None:
        _check_call("clock", clock, "a function that returns seconds")
        if on_evict is not None:
            _check_call("on_evict", on_evict, "a plain function of key, value and reason")
        self._default_ttl = _seconds("default_ttl", default_ttl)
        self._interval = _seconds("cleanup_interval", cleanup_interval)
        self._clock = clock
        self._on_evict = on_evict
        # No lock: tasks take turns only where one awaits, and there all of this is in order.
        listens = on_evict is not None
        self._store: _Store[K, V] = _Store(_size("max_size", max_size), clock, listens=listens)
        self._loop: asyncio.AbstractEventLoop | None = None  # to which the rest belongs
        self._loads: dict[K, _TaskLoad[K, V]] = {}  # without those outdated or abandoned
        self._flying: set[_TaskLoad[K, V]] = set()  # with those: the loop holds tasks weakly
        self._timer: asyncio.TimerHandle | None = None  # of the next clean-up
        self._timer_due = math.inf  # the deadline that it was set for
        self._entered = 0  # `async with` blocks

    @overload
    async def get(self, key: K) -> V | None: ...
    @overload
    async def get(self, key: K, default: D) -> V | D: ...
    async def get(self, key: K, default: D | None = None) -> V | D | None:
        """Return the value of `key`, which becomes the most recently used, or else `default`.

        Raises:
            TypeError: `key` is not hashable.
            RuntimeError: here and in every method, the cache belongs to another loop.

        Cost: constant.
        """
        if get_running_loop() is not self._loop:
            self._bind(key)
        store = self._store
        try:
            entry = store.entries.get(key)
        except TypeError:
            _check_hashable(key)
            raise
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
            return entry.value
        if default is not _PEEK:
            store.misses += 1
            if entry is not None:
                store.delete(key, "expired")
                self._tell()
        return default

    async def set(self, key: K, value: V, ttl: float | None = None) -> None:
        """Store `value` under `key`, as `TTLCache.set` does.

        Raises:
            TypeError: `key` is not hashable, or `ttl` is not a number.
            ValueError: `ttl` is not above zero.

        Cost: constant; logarithmic in the number of different `ttl` in use (amortised).
        """
        seconds = self._default_ttl if ttl is None else _seconds("ttl", ttl)
        self._bind(key)
        self._put(key, value, seconds)

    get_async, set_async = get, set  # noqa: A003

    async def delete(self, key: K) -> bool:
        """Remove `key`; return whether it was there. A load of `key` as in `set`.

        Raises:
            TypeError: `key` is not hashable.

        Cost: constant.
        """
        self._bind(key)
        self._loads.pop(key, None)
        live = self._store.delete(key)
        self._tell()
        return live

    async def clear(self) -> None:
        """Remove every entry; loads that are under way will not be stored. Cost: linear."""
        await self.cleanup_expired()
        self._loads = {}
        _release(self._store.clear(), self._on_evict)

    async def cleanup_expired(self) -> int:
        """Remove the expired entries; return how many this call removed.

        It frees memory, and is never needed for a right answer. It lets other tasks in after
        every few hundred entries, as `clear`, `keys` and `items` do before their own single step;
        a cancellation there leaves the live entries as they are.

        Cost: constant for each entry removed.
        """
        self._bind()
        removed = self._expire()
        while self._store.is_due():
            await asyncio.sleep(0)
            removed += self._expire()
        return removed

    async def get_or_load(
        self,
        key: K,
        loader: Callable[[], Awaitable[V]],
        ttl: float | None = None,
        *,
        stale: float = 0.0,
    ) -> V:
        """Return the value of `key`; if there is none, load and store it, once for all who ask.

        As `TTLCache.get_or_load`, except that the loader of the first who asks runs as a task,
        in that caller's context, and so does the refresh of a stale value, which nobody need
        wait for; leaving `async with` ends it. A caller who is cancelled leaves the load to the
        others; when the last one leaves, it is cancelled too, and the next to ask loads again.
        An exception that is no `Exception` (such as a CancelledError of the loader's own) is for
        the first caller alone, and one of the others loads again.

        Args:
            key: anything hashable.
            loader: an async function without arguments; it may use the cache, except to load
                `key`. One that blocks holds up the loop: pass `lambda: asyncio.to_thread(loader)`.
            ttl: seconds that the value lives once loaded, above zero; None is for `default_ttl`.
            stale: seconds past its life during which a value will do, from 0.

        Raises:
            RuntimeError: the load would wait for itself: its loader asks for `key`, directly or
                by way of other loads, other caches, or tasks that run in its context.
            TypeError: `key` is not hashable, `loader` no async function, or `ttl` or `stale` not
                a number.
            ValueError: `ttl` is not above zero, or `stale` is below.
            BaseException: what the loader raised.

        Cost: that of `get`, if there is a value.
        """
        if type(loader) is not FunctionType or loader.__code__.co_flags & _GENERATES:
            _check_call("loader", loader, "an async function", _GENERATES)
        seconds = self._default_ttl if ttl is None else _seconds("ttl", ttl)
        if stale != 0.0 or stale is False:
            stale = _seconds("stale", stale, least="from zero")
        found: V = await self.get(key, _PEEK if stale else _ABSENT)
        counts = found is _PEEK  # it has not been counted yet
        while found is _ABSENT or counts:
            found = await self._load_or_join(_TaskLoad(key, loader, seconds, stale), counts)
            counts = False
        return found

    async def keys(self) -> list[K]:
        """Return the live keys of one instant, least recently used first. Cost: linear."""
        await self.cleanup_expired()
        return [entry.key for entry in self._store.by_use()]

    async def items(self) -> list[tuple[K, V]]:
        """Return the live keys and values of one instant, as `keys` does. Cost: linear."""
        await self.cleanup_expired()
        return [(entry.key, entry.value) for entry in self._store.by_use()]

    @property
    def stats(self) -> CacheStats:
        """The counts of one instant; an abandoned load is a failure. Cost: constant."""
        self._bind()
        return self._store.counts()

    @property
    def size(self) -> int:
        """The number of live entries. Cost: constant (amortised: it removes expired ones)."""
        self._bind()
        while self._store.is_due():
            self._expire()
        return self._store.count - self._store.stale_count

    def __len__(self) -> int:
        return self.size

    def __contains__(self, key: K) -> bool:
        self._bind(key)
        return self._store.live(key)

    async def __aenter__(self) -> Self:
        """Start the clean-up, which sleeps while nothing can expire."""
        self._bind()
        self._entered += 1
        self._arm(self._interval)
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the clean-up, refreshes, and abandoned loads, and wait for the end of these two.

        Loads that callers still await go on, and the cache remains usable.
        """
        self._bind()
        self._entered = max(0, self._entered - 1)  # 0 already if another loop had the cache
        if not self._entered:
            self._disarm()
            for load in self._flying.difference(_own_loads()):
                load.refreshes = False
                self._abandon(load)
        while ending := [
            load.task
            for load in self._flying
            if load.task and not load.waiters and not load.refreshes and not _waits_for_caller(load)
        ]:
            await asyncio.wait(ending)

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse copy.copy, copy.deepcopy and pickle."""
        raise TypeError(
            f"{type(self).__name__} cannot be copied or pickled: make a new one, and set in it "
            "what items() returns"
        )

    def _bind(self, key: object = None) -> None:
        """Take the cache over from a loop that does not run any more, or refuse."""
        _check_hashable(key)
        try:
            loop = get_running_loop()
        except RuntimeError:  # a plain method, outside of any loop
            loop = None
        if loop is self._loop:
            return
        if self._loop is not None and self._loop.is_running():
            raise RuntimeError(
                "this cache belongs to another event loop, which is running (or was, when this "
                "process forked): make a cache for each loop, or have that loop use this one, "
                "by asyncio.run_coroutine_threadsafe()"
            )
        if loop is not None:
            self._disarm()
            self._loop, self._loads, self._flying, self._entered = loop, {}, set(), 0

    async def _load_or_join(self, mine: _TaskLoad[K, V], counts: bool) -> V:
        """Return what may be returned, load, or wait for who does; `_ABSENT` if that gave up."""
        key, store, own = mine.key, self._store, _own_loads()
        turn: Future[Task[None]] = get_running_loop().create_future()
        found, live = store.find(key, mine.stale)
        load = self._loads.get(key)
        # All that can be interrupted is behind, except that a key's own code may raise here.
        if not live and (load is None or load.ended):
            self._loads[key] = load = mine
        if counts:
            store.hits += found is not _ABSENT
            store.misses += found is _ABSENT
        if load is None or (load is not mine and found is not _ABSENT):
            if load is not None and not live:
                load.refreshes = True  # it goes on though all who wait for it should leave
            return found  # a live one was stored since the look-up, or somebody refreshes it
        mine.refreshes = found is not _ABSENT
        if not mine.refreshes:
            load.joined[turn], load.waiters[turn] = own, None
        try:
            if load is mine:
                self._start(mine)
            else:  # announced first, searched second, as threads may be doing the same now
                _refuse_circle(load, key)
            if mine.refreshes:
                return found
            await turn
            if load is mine and load.value is _ABSENT and load.error is None:
                turn.result().result()  # what is no Exception
            result: V = load.result()
            return result
        finally:
            if load is mine and mine.task is None:  # it was not started, or has landed
                mine.ended = True
            if turn in load.waiters:
                del load.waiters[turn], load.joined[turn]
            self._abandon(load)
            del turn, load, mine  # an error keeps this frame, which must not keep the error

    def _start(self, load: _TaskLoad[K, V]) -> None:
        """Begin; all else is in place, as an eager task takes its first step at once."""
        self._flying.add(load)
        task = asyncio.create_task(_run(load))
        task.add_done_callback(partial(self._land, load))
        load.task = task  # last: without it, the caller takes it for not started

    def _abandon(self, load: _TaskLoad[K, V]) -> None:
        """Cancel a load that nobody waits for, unless its task has ended: then it lands anyway."""
        if load.waiters or load.refreshes or (load.task and load.task.done()):
            return
        if load.task is None:
            self._flying.discard(load)
        if self._loads.get(load.key) is load:
            del self._loads[load.key]
        if load.task and not load.task.cancelling():
            load.task.cancel()

    def _land(self, load: _TaskLoad[K, V], task: Task[None]) -> None:
        """Settle a load whose task has ended; it may have been cancelled before its first step."""
        load.ended, load.task = True, None
        self._flying.discard(load)
        for turn in load.waiters:
            if not turn.done():  # by cancellation
                turn.set_result(task)
        if not task.cancelled():
            task.exception()  # is known
        loaded = load.value is not _ABSENT
        self._store.loads += loaded
        self._store.load_failures += not loaded
        if load.refreshes and load.error is not None:
            _log.warning("the refresh of key %r failed", load.key, exc_info=load.error)
        if self._loads.get(load.key) is load:  # not outdated
            del self._loads[load.key]
            if loaded:
                self._put(load.key, load.value, load.ttl, load.stale)

    def _put(self, key: K, value: V, ttl: float, stale: float = 0.0) -> None:
        if self._loads:
            self._loads.pop(key, None)
        _dropped = self._store.put(key, value, ttl, stale)  # kept to the end
        if self._entered and self._store.heap[0][0] < self._timer_due:
            self._arm(self._interval)
        self._tell()

    def _expire(self) -> int:
        removed = self._store.expire(self._clock(), _SLICE)
        self._tell()
        return removed

    def _tell(self) -> None:
        """Tell of what has left, and release it."""
        if self._store.left:
            left, self._store.left = self._store.left, []
            _notify(self._on_evict, left)

    def _arm(self, pause: float) -> None:
        """Set the clean-up's timer to `pause` seconds from now, or later if nothing expires then.

        A timer that is set to an earlier time stays.
        """
        heap = self._store.heap
        if not self._entered or not heap or heap[0][0] >= _FOREVER:
            return
        if self._clock is time.monotonic:  # the pace of any other clock is unknown
            pause = max(pause, heap[0][0] - self._clock())
        loop = get_running_loop()
        when = loop.time() + pause
        if self._timer is None or when < self._timer.when():
            self._disarm()
            # A context of its own: it must not keep that of the task that happens to set it.
            self._timer = loop.call_at(when, self._tidy, context=Context())
            self._timer_due = heap[0][0]

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_due = None, math.inf

    def _tidy(self) -> None:
        self._disarm()
        self._expire()
        self._arm(0.0 if self._store.is_due() else self._interval)


async def _run(load: _TaskLoad[K, V]) -> None:
    handled = sys.exception()  # by the caller, if this task is an eager one
    _loading.set((weakref.ref(load),))
    try:
        if load.ended:  # an interrupt came before its caller knew of this task
            return
        coming: object = load.loader()
        if not inspect.isawaitable(coming):
            what = f"loader must be an async function, but it returned {coming!r}"
            raise TypeError(what)  # noqa: TRY301 - it is the loader's failure
        load.value = await coming
    except Exception as error:
        load.fail(error, handled)
    finally:
        del load, handled
