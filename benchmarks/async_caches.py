"""The cache for one event loop against a dict in a coroutine, locks, and packages from PyPI.

The floor of a look-up is `await` of a coroutine method that asks a dict; that of a `set` on a
full cache is one that inserts into an OrderedDict and drops the oldest entry. Nothing in them
awaits, so they need no lock. Every batch is one long coroutine, so that starting the loop does
not count.
"""

import asyncio
import functools
import importlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from threading import RLock
from typing import Any

from benchmarks import caches, harness
from benchmarks.harness import Case, Effort, Group, Plan, Subject
from reference_impl.caches.async_ttl_cache import AsyncTTLCache
from reference_impl.caches.ttl_cache import TTLCache

SIZE = 1_000
CHUNK = 20_000
TTL = caches.TTL
VALUE = caches.VALUE

Burst = Callable[[Sequence[str]], Coroutine[Any, Any, None]]


class CoroutineDict:
    """The floor of a look-up."""

    def __init__(self) -> None:
        self._data: dict[str, object] = {}

    async def get(self, key: str) -> object:
        return self._data.get(key)

    async def set(self, key: str, value: object) -> None:
        self._data[key] = value


class CoroutineOldest:
    """The floor of a `set` on a full cache."""

    def __init__(self, max_size: int) -> None:
        self._data: OrderedDict[str, object] = OrderedDict()
        self._max_size = max_size

    async def get(self, key: str) -> object:
        return self._data.get(key)

    async def set(self, key: str, value: object) -> None:
        self._data[key] = value
        if len(self._data) > self._max_size:
            self._data.popitem(last=False)


class Plain:
    """An LRU with expiry and counts as it is written by hand, without any lock."""

    def __init__(self, max_size: int) -> None:
        self._data: OrderedDict[str, tuple[object, float]] = OrderedDict()
        self._max_size = max_size
        self._hits = self._misses = 0

    def look_up(self, key: str) -> object:
        entry = self._data.get(key)
        if entry is None or entry[1] <= time.monotonic():
            self._misses += 1
            self._data.pop(key, None)
            return None
        self._data.move_to_end(key)
        self._hits += 1
        return entry[0]

    def put(self, key: str, value: object) -> None:
        self._data[key] = (value, time.monotonic() + TTL)
        self._data.move_to_end(key)
        if len(self._data) > self._max_size:
            self._data.popitem(last=False)


class NoLock(Plain):
    async def get(self, key: str) -> object:
        return self.look_up(key)

    async def set(self, key: str, value: object) -> None:
        self.put(key, value)


class SingleLock(Plain):
    """What the analysis recommends: one asyncio.Lock around each operation."""

    def __init__(self, max_size: int) -> None:
        super().__init__(max_size)
        self._lock = asyncio.Lock()

    async def get(self, key: str) -> object:
        async with self._lock:
            return self.look_up(key)

    async def set(self, key: str, value: object) -> None:
        async with self._lock:
            self.put(key, value)


class DualLock(SingleLock):
    """What it was before: a cache for threads, and an asyncio.Lock around its own lock."""

    def __init__(self, max_size: int) -> None:
        super().__init__(max_size)
        self._thread_lock = RLock()

    def look_up(self, key: str) -> object:
        with self._thread_lock:
            return super().look_up(key)

    def put(self, key: str, value: object) -> None:
        with self._thread_lock:
            super().put(key, value)


async def _load() -> object:
    return VALUE


async def _load_key(key: str) -> object:
    return VALUE


async def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Store:
    """A cache as what is awaited for one key; `each` is a burst of that, where it differs."""

    get: Callable[[str], Awaitable[object]]
    set: Callable[[str, object], Awaitable[object]]
    load: Callable[[str], Awaitable[object]] | None = None
    size: Callable[[], int] | None = None
    get_each: Burst | None = None
    set_each: Burst | None = None
    load_each: Burst | None = None
    close: Callable[[], Awaitable[object]] = _nothing


async def _dict() -> Store:
    cache = CoroutineDict()
    return Store(cache.get, cache.set)


async def _oldest() -> Store:
    cache = CoroutineOldest(SIZE)
    return Store(cache.get, cache.set, size=lambda: len(cache._data))


def _by_hand(make: Callable[[int], Any]) -> Callable[[], Coroutine[Any, Any, Store]]:
    async def build() -> Store:
        cache = make(SIZE)
        get, put = cache.get, cache.set

        async def load(key: str) -> object:
            found = await get(key)
            if found is None:
                found = await _load()
                await put(key, found)
            return found

        return Store(get, put, load, lambda: len(cache._data))

    return build


async def _ours() -> Store:
    cache: AsyncTTLCache[str, object] = AsyncTTLCache(TTL, SIZE)
    get_or_load = cache.get_or_load

    async def load_each(keys: Sequence[str]) -> None:
        for key in keys:
            await get_or_load(key, _load)

    return Store(
        cache.get,
        cache.set,
        lambda key: get_or_load(key, _load),
        cache.__len__,
        load_each=load_each,
    )


async def _for_threads() -> Store:
    """TTLCache, called in coroutines as it is."""
    cache: TTLCache[str, object] = TTLCache(TTL, SIZE)
    look_up, put = cache.get, cache.set

    async def get(key: str) -> object:
        return look_up(key)

    async def set_(key: str, value: object) -> None:
        put(key, value)

    async def get_each(keys: Sequence[str]) -> None:
        for key in keys:
            look_up(key)

    async def set_each(keys: Sequence[str]) -> None:
        for key in keys:
            put(key, VALUE)

    return Store(get, set_, None, cache.__len__, get_each, set_each)


async def _cashews() -> Store:
    cache = importlib.import_module("cashews").Cache()
    backend = cache.setup("mem://", size=SIZE)
    await cache.init()
    put = cache.set

    async def set_each(keys: Sequence[str]) -> None:
        for key in keys:
            await put(key, VALUE, expire=TTL)

    load = cache(ttl=TTL, key="{key}")(_load_key)
    return Store(
        cache.get,
        functools.partial(put, expire=TTL),
        load,
        lambda: len(backend.store),
        set_each=set_each,
        close=cache.close,
    )


async def _aiocache() -> Store:
    module = importlib.import_module("aiocache")
    cache = module.SimpleMemoryCache()
    put = cache.set

    async def set_each(keys: Sequence[str]) -> None:
        for key in keys:
            await put(key, VALUE, ttl=TTL)

    load = module.cached(ttl=TTL, key_builder=lambda _function, key: key)(_load_key)
    return Store(
        cache.get, functools.partial(put, ttl=TTL), load, None, set_each=set_each, close=cache.clear
    )


async def _alru() -> Store:
    """It is a decorator only: the look-up is a call that finds its result."""
    cached = importlib.import_module("async_lru").alru_cache(maxsize=SIZE, ttl=TTL)(_load_key)

    async def set_(key: str, value: object) -> None:
        await cached(key)

    async def close() -> None:
        cached.cache_clear()

    return Store(cached, set_, cached, close=close)


@dataclass(frozen=True, slots=True)
class Contestant(harness.Contestant[Callable[[], Coroutine[Any, Any, Store]]]):
    def case(self, build: "Build") -> Case:
        def subject() -> Subject:
            runner = asyncio.Runner()
            run = runner.get_loop().run_until_complete
            store: Store = run(self.make())
            burst, check = run(build(store))

            def close() -> None:
                run(store.close())
                runner.close()

            return Subject([lambda: run(burst())], CHUNK, lambda: run(check()), close=close)

        return self.measured(subject)


Step = Callable[[], Coroutine[Any, Any, None]]
Build = Callable[[Store], Coroutine[Any, Any, tuple[Step, Step]]]


def _each(call: Callable[[str], Awaitable[object]]) -> Burst:
    async def burst(keys: Sequence[str]) -> None:
        for key in keys:
            await call(key)

    return burst


async def _hits(store: Store) -> tuple[Step, Step]:
    for key in caches._names("key", SIZE):
        await store.set(key, VALUE)
    keys = caches._asked_for(SIZE)[:CHUNK]

    async def check() -> None:
        for key in keys[:1_000]:
            caches._require(await store.get(key) is VALUE, f"no hit for {key}")

    return functools.partial(store.get_each or _each(store.get), keys), check


async def _sets(store: Store) -> tuple[Step, Step]:
    """Each key is new to the cache: twice as many as fit come in turn."""
    keys = caches._names("key", 2 * SIZE) * (CHUNK // (2 * SIZE))
    put = store.set

    async def set_each(keys: Sequence[str]) -> None:
        for key in keys:
            await put(key, VALUE)

    burst = functools.partial(store.set_each or set_each, keys)
    await burst()

    async def check() -> None:
        await put("check", VALUE)
        caches._require(await store.get("check") is VALUE, "a new entry is not there")
        if store.size is not None:
            caches._require(store.size() == SIZE, f"{store.size()} entries do not fill {SIZE}")

    return burst, check


async def _loads(store: Store) -> tuple[Step, Step]:
    load = store.load or store.get
    for key in caches._names("key", SIZE):
        await store.set(key, VALUE)
        await load(key)
    keys = caches._asked_for(SIZE)[:CHUNK]

    async def check() -> None:
        for key in keys[:1_000]:
            caches._require(await load(key) is VALUE, f"no value for {key}")

    return functools.partial(store.load_each or _each(load), keys), check


BARE = "bound, order, expiry, loading, statistics"
BY_HAND = "exact expiry before eviction, single flight, a clock to inject"
FLOOR = Contestant("coroutine + dict", _dict, "floor", lacks=BARE)
SET_FLOOR = Contestant(
    "coroutine + OrderedDict", _oldest, "floor", lacks="recency, expiry, loading, statistics"
)
OURS = Contestant("AsyncTTLCache", _ours, "ours")
SINGLE = Contestant(
    "asyncio.Lock + LRU by hand (single lock)", _by_hand(SingleLock), "reference", lacks=BY_HAND
)
DUAL = Contestant(
    "asyncio.Lock + RLock + LRU by hand (dual lock)",
    _by_hand(DualLock),
    "reference",
    lacks=BY_HAND,
)
HAND = Contestant("LRU by hand, no lock", _by_hand(NoLock), "reference", lacks=BY_HAND)
THREADS = Contestant(
    "TTLCache, called in a coroutine",
    _for_threads,
    "reference",
    lacks="loading without holding up the loop",
)
CASHEWS = Contestant(
    "cashews.Cache, mem://",
    _cashews,
    package="cashews",
    lacks="a monotonic clock, invalidation that wins",
)
ALRU = Contestant(
    "async_lru.alru_cache",
    _alru,
    package="async-lru",
    lacks="`set`, a TTL per entry, exact expiry; it is a decorator, so a look-up is a call",
)
AIOCACHE = Contestant(
    "aiocache.SimpleMemoryCache",
    _aiocache,
    package="aiocache",
    lacks="a bound, recency, single flight",
)


def _group(
    title: str, cases: Sequence[Contestant], build: Build, aim: float | None = None, note: str = ""
) -> Group:
    return Group(title, [contestant.case(build) for contestant in cases], note, aim)


def _get() -> Group:
    cases = [FLOOR, OURS, HAND, SINGLE, DUAL, THREADS, CASHEWS, ALRU, AIOCACHE]
    note = "No task ever waits for these locks: nothing is awaited while they are held."
    return _group(f"get, a hit, {SIZE:,} entries", cases, _hits, 2.8, note)


def _set() -> Group:
    cases = [SET_FLOOR, OURS, HAND, SINGLE, DUAL, THREADS, CASHEWS, AIOCACHE]
    note = "aiocache has no bound: it only replaces entries."
    return _group(f"set on a full cache, {SIZE:,} entries", cases, _sets, note=note)


def _get_or_load() -> Group:
    cases = [FLOOR, OURS, HAND, SINGLE, DUAL, CASHEWS, ALRU, AIOCACHE]
    note = "The floor is a plain look-up, which loads nothing."
    return _group(f"get_or_load, a hit, {SIZE:,} entries", cases, _loads, note=note)


def plans(effort: Effort) -> list[Plan]:
    """What is measured for each component of the family."""
    return [Plan("caches/async_ttl_cache", [_get, _set, _get_or_load])]
