# async_ttl_cache.py: an LRU cache with expiry for the tasks of one event loop (AsyncTTLCache)
# https://executable-guarantees.example/caches/async_ttl_cache.html
# Version 1.0.0 (2026-11-23); Python 3.11 to 3.14, with or without the GIL; standard library only
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: 2026 The Executable Guarantees authors
"""A cache for the tasks of an event loop: bounded, exact expiry, exact LRU, one load per key."""

import asyncio
import heapq
import inspect
import math
import time
from asyncio import Future, Task, get_running_loop
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextvars import Context, ContextVar
from typing import Any, Generic, Self, TypeVar, overload

from .ttl_cache import CacheStats

__all__ = ["AsyncTTLCache", "CacheStats"]

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

_Line = OrderedDict[K, float]  # the keys of one time to live, with their deadlines
_Entry = tuple[V, float, _Line[K]]  # value, deadline, its line
_Loader = Callable[[], Awaitable[V]]
_ABSENT: Any = object()
_SLICE = 256  # so many expired entries are removed before other tasks are let in


class _Load(Generic[V]):
    """A load in progress; its task is here until it ends, and then in the waiters' futures."""

    def __init__(self) -> None:
        self.task: Task[V] | None = None
        self.waiters: dict[Future[Task[V]], None] = {}  # first come, first served
        self.awaits: dict[object, _Load[Any]] = {}  # whose end this one waits for, in any cache
        self.landed = False
        self.lost = False  # it landed with nothing that concerns those who joined


# The load, of any cache, that the running code is part of.
_loading: ContextVar[_Load[Any] | None] = ContextVar("loading", default=None)


class AsyncTTLCache(Generic[K, V]):
    """A bounded mapping whose entries expire; the least recently used one makes room.

    What TTLCache is for threads this is for tasks: the same methods, as coroutines, but for
    `size`, `stats`, `len` and `in`. `async with` adds a clean-up in the background, which frees
    the memory of expired entries; they cannot be seen either way.

    Args:
        default_ttl: seconds that an entry lives, above zero; `math.inf` is for ever. If in
            doubt, how old an answer may be.
        max_size: how many entries it holds at most, from 1; None is for no bound. If in doubt,
            what the memory allows: the bound costs no time.
        clock: returns seconds; it must not use the cache. When it steps back, new entries
            count from the latest reading at which one was stored.
        cleanup_interval: seconds from one clean-up in the background to the next, at least. If
            in doubt, 60.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: a number is not above zero.

    Async safety:
        Loop-bound: it belongs to the loop that used it last, while that one runs; any other use,
        from threads too, is a RuntimeError. Every method is atomic for the loop's tasks. `get`,
        `set` and `delete` never suspend, so no cancellation falls inside. What a call drops is
        released before it returns.

    Contexts:
        *Fork*: a child forked while the loop runs is refused; make a new cache there.
        *Interpreter exit*: there is nothing to close. *Signal handlers* must not use the cache,
        but for those of `loop.add_signal_handler`; one that raises in mid-call can spoil it, as
        the second Ctrl-C under `asyncio.run` can (the first is a cancellation). *`__del__`* of
        what a call drops may use the plain methods; not so where the cyclic collector runs it,
        as that can be in mid-call. *Free-threaded builds*: no difference.

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
    ) -> None:
        if not callable(clock):
            raise TypeError(f"clock must be a function that returns seconds, not {clock!r}")
        self._default_ttl = _seconds("default_ttl", default_ttl)
        self._max_size = _size("max_size", max_size)
        self._interval = _seconds("cleanup_interval", cleanup_interval)
        self._clock = clock
        # No lock: tasks take turns only where one awaits, and there all of this is in order. Each
        # entry stands in its line; a line is sorted by deadline, and has one record in the heap,
        # no later than its first entry.
        self._entries: OrderedDict[K, _Entry[V, K]] = OrderedDict()  # least recently used first
        self._lines: dict[float, _Line[K]] = {}  # by time to live
        self._heap: list[tuple[float, float]] = []  # (deadline, time to live)
        self._latest = -math.inf  # reading of the clock, so that lines stay sorted
        self._hits = self._misses = self._evictions = self._expirations = 0
        self._loaded = self._failed = 0
        self._loop: asyncio.AbstractEventLoop | None = None  # to which the rest belongs
        self._loads: dict[K, _Load[V]] = {}  # without those that were outdated or abandoned
        self._flying: set[_Load[V]] = set()  # with those: the loop itself holds tasks weakly
        self._timer: asyncio.TimerHandle | None = None  # of the next clean-up
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
            self._bind()
        try:
            entry = self._entries.get(key)
        except TypeError:
            _check_hashable(key)
            raise
        if entry is not None and entry[1] > self._clock():
            self._entries.move_to_end(key)
            self._hits += 1
            return entry[0]
        self._misses += 1
        if entry is not None:
            self._remove(key, expired=True)
        return default

    async def set(self, key: K, value: V, ttl: float | None = None) -> None:
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
        self._bind()
        _check_hashable(key)
        self._put(key, value, seconds)

    get_async, set_async = get, set  # noqa: A003

    async def delete(self, key: K) -> bool:
        """Remove `key`; return whether it was there. A load of `key` as in `set`.

        Raises:
            TypeError: `key` is not hashable.

        Cost: constant.
        """
        live = key in self
        self._loads.pop(key, None)
        if key in self._entries:
            self._remove(key, expired=not live)
        return live

    async def clear(self) -> None:
        """Remove every entry; loads that are under way will not be stored. Cost: linear."""
        await self.cleanup_expired()
        _dropped = self._entries  # until the return: their finalizers may use the cache
        self._entries, self._lines, self._heap, self._loads = OrderedDict(), {}, [], {}

    async def cleanup_expired(self) -> int:
        """Remove the expired entries; return how many this call removed.

        It frees memory, and is never needed for a right answer. It lets other tasks in after
        every few hundred entries, as `clear`, `keys` and `items` do before their own single step;
        a cancellation there leaves the live entries as they are.

        Cost: constant for each entry removed.
        """
        self._bind()
        removed = 0
        while expired := len(self._expire(self._clock(), _SLICE)):
            removed += expired
            if expired == _SLICE:
                await asyncio.sleep(0)
        return removed

    async def get_or_load(
        self, key: K, loader: Callable[[], Awaitable[V]], ttl: float | None = None
    ) -> V:
        """Return the value of `key`; if there is none, load and store it, once for all who ask.

        The loader of the first who asks runs as a task, in that caller's context. All who ask
        meanwhile get its result or its exception, the very same object. A failure is not stored.
        A caller who is cancelled leaves the load to the others; when the last one leaves, it is
        cancelled too, and who asks next loads anew. An exception that is no `Exception` (such as
        a CancelledError of the loader's own) is for the first caller alone, and one of the others
        loads again. After a `set`, `delete` or `clear`, a load that was under way still answers
        those who asked before, but is not stored.

        Args:
            key: anything hashable.
            loader: an async function without arguments; it may use the cache, except to load
                `key`. One that blocks holds up the loop: pass `lambda: asyncio.to_thread(loader)`.
            ttl: seconds that the value lives once loaded, above zero; None is for `default_ttl`.

        Raises:
            RuntimeError: the load would wait for itself: its loader asks for `key`, directly or
                by way of other loads, other caches, or tasks that run in its context.
            TypeError: `key` is not hashable, `loader` no async function, or `ttl` not a number.
            ValueError: `ttl` is not above zero.
            BaseException: what the loader raised.

        Cost: that of `get`, if there is a value.
        """
        if not callable(loader):
            raise TypeError(f"loader must be an async function, not {loader!r}")
        seconds = self._default_ttl if ttl is None else _seconds("ttl", ttl)
        found: V = await self.get(key, _ABSENT)
        while found is _ABSENT:
            found = await self._load_or_join(key, loader, seconds)
        return found

    async def keys(self) -> list[K]:
        """Return the live keys of one instant, least recently used first. Cost: linear."""
        await self.cleanup_expired()
        return list(self._entries)

    async def items(self) -> list[tuple[K, V]]:
        """Return the live keys and values of one instant, as `keys` does. Cost: linear."""
        await self.cleanup_expired()
        return [(key, entry[0]) for key, entry in self._entries.items()]

    @property
    def stats(self) -> CacheStats:
        """The counts of one instant; an abandoned load is a failure. Cost: constant."""
        self._bind()
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
        self._bind()
        self._expire(self._clock(), math.inf)
        return len(self._entries)

    def __len__(self) -> int:
        return self.size

    def __contains__(self, key: K) -> bool:
        self._bind()
        _check_hashable(key)
        entry = self._entries.get(key)
        return entry is not None and entry[1] > self._clock()

    async def __aenter__(self) -> Self:
        """Start the clean-up, which sleeps while nothing can expire."""
        self._bind()
        self._entered += 1
        self._arm(self._interval)
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the clean-up, and wait for the end of abandoned loads, which are cancelled already.

        Loads that callers still await go on, and the cache remains usable.
        """
        self._bind()
        self._entered = max(0, self._entered - 1)  # 0 already if another loop had the cache
        if not self._entered:
            self._disarm()
        here, flying = _loading.get(), self._flying
        while ending := [
            load.task
            for load in flying
            if load.task and not load.waiters and not _leads_to(load, here)
        ]:
            await asyncio.wait(ending)

    def _bind(self) -> None:
        """Take the cache over from a loop that does not run any more, or refuse."""
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

    async def _load_or_join(self, key: K, loader: _Loader[V], ttl: float) -> V:
        """Load, or wait for who does; `_ABSENT` if that load was lost."""
        if key in self:  # stored since the look-up
            return self._entries[key][0]
        load, outer = self._loads.get(key), _loading.get()
        mine, awaits = load is None, outer.awaits if outer else {}
        if load is None:
            load = self._loads[key] = _Load()
        elif _leads_to(load, outer):
            raise RuntimeError(
                f"the load of {key!r} would wait for itself: its loader asks for that key, "
                "directly or by way of other loads; let it do without"
            )
        turn: Future[Task[V]] = get_running_loop().create_future()
        load.waiters[turn] = None
        awaits[turn] = load
        try:
            if mine:  # all else is in place, as an eager task takes its first step at once
                load.task = asyncio.create_task(_run(load, loader))
                self._flying.add(load)
                load.task.add_done_callback(lambda task: self._land(key, load, ttl, task))
            await turn
            return _ABSENT if load.lost and not mine else turn.result().result()
        finally:
            del awaits[turn]
            del load.waiters[turn]
            if not load.waiters:
                self._abandon(key, load)
            del turn  # an error keeps this frame, which must not keep the error

    def _abandon(self, key: K, load: _Load[V]) -> None:
        """Cancel a load for which nobody waits, unless its task has ended: then it lands anyway."""
        if load.task and load.task.done():
            return
        if self._loads.get(key) is load:
            del self._loads[key]
        if load.task and not load.task.cancelling():
            load.task.cancel()

    def _land(self, key: K, load: _Load[V], ttl: float, task: Task[V]) -> None:
        """Settle a load whose task has ended; it may have been cancelled before its first step."""
        load.landed, load.task = True, None
        load.lost = task.cancelled() or not isinstance(task.exception(), Exception | None)
        self._flying.discard(load)
        for turn in load.waiters:
            if not turn.done():  # by cancellation
                turn.set_result(task)
        good = not load.lost and not task.exception()
        self._loaded += good
        self._failed += not good
        if self._loads.get(key) is load:  # not outdated
            del self._loads[key]
            if good:
                self._put(key, task.result(), ttl)

    def _remove(self, key: K, *, expired: bool) -> _Entry[V, K]:
        entry = self._entries.pop(key)
        del entry[2][key]
        self._expirations += expired
        return entry

    def _put(self, key: K, value: V, ttl: float) -> None:
        old = self._entries.get(key)  # kept to the end, as `dropped`: a finalizer may use the cache
        now = self._latest = max(self._latest, self._clock())
        if old is not None:
            self._remove(key, expired=old[1] <= now)
        line = self._lines.get(ttl)
        if line is None:
            line = self._open_line(ttl, now + ttl)
        line[key] = now + ttl
        self._entries[key] = (value, now + ttl, line)
        self._loads.pop(key, None)
        dropped = self._expire(now, 2)  # two for one: a backlog shrinks
        if len(self._entries) > self._max_size:
            dropped.append(self._remove(next(iter(self._entries)), expired=False))
            self._evictions += 1

    def _open_line(self, ttl: float, deadline: float) -> _Line[K]:
        if len(self._heap) > 2 * len(self._entries) + 64:  # most lines stand empty: drop those
            self._lines = {seconds: line for seconds, line in self._lines.items() if line}
            self._heap = [record for record in self._heap if record[1] in self._lines]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (deadline, ttl))
        line: _Line[K] = OrderedDict()
        self._lines[ttl] = line
        if self._heap[0][1] == ttl:  # nothing expires before this
            self._arm(self._interval)
        return line

    def _expire(self, now: float, limit: float) -> list[_Entry[V, K]]:
        """Remove and return up to `limit` expired entries, in the order of their deadlines."""
        expired: list[_Entry[V, K]] = []
        while len(expired) < limit and self._heap and self._heap[0][0] <= now:
            ttl = self._heap[0][1]
            line = self._lines[ttl]
            if not line:
                heapq.heappop(self._heap)
                del self._lines[ttl]
                continue
            key, deadline = next(iter(line.items()))
            if deadline > now:  # the record was that of an entry now gone
                heapq.heapreplace(self._heap, (deadline, ttl))
            else:
                expired.append(self._remove(key, expired=True))
        return expired

    def _arm(self, pause: float) -> None:
        """Set the clean-up's timer to `pause` seconds from now, or later if nothing expires then.

        A timer that is set to an earlier time stays.
        """
        due = self._heap[0][0] if self._heap else math.inf
        if due == math.inf or not self._entered:
            return
        if self._clock is time.monotonic:  # the pace of any other clock is unknown
            pause = max(pause, due - self._clock())
        loop = get_running_loop()
        when = loop.time() + pause
        if self._timer is None or when < self._timer.when():
            self._disarm()
            # A context of its own: it must not keep that of the task that happens to set it.
            self._timer = loop.call_at(when, self._tidy, context=Context())

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tidy(self) -> None:
        self._timer = None
        more = len(self._expire(self._clock(), _SLICE)) == _SLICE
        self._arm(0.0 if more else self._interval)


async def _run(load: _Load[V], loader: _Loader[V]) -> V:
    _loading.set(load)
    if not inspect.isawaitable(coming := loader()):
        raise TypeError(f"loader must be an async function, but it returned {coming!r}")
    return await coming


def _leads_to(load: _Load[Any], goal: _Load[Any] | None) -> bool:
    """Whether `load` is `goal`, or waits for it, itself or by way of others."""
    seen, todo = set[_Load[Any]](), [load]
    while todo:
        step = todo.pop()
        if step.landed or step in seen:
            continue
        if step is goal:
            return True
        seen.add(step)
        todo.extend(step.awaits.values())
    return False


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
    return float(value) if value < 1e300 else math.inf  # not every int fits a float


def _size(name: str, value: int | None) -> float:
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int or None, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value!r}; None is for no bound")
    return value
