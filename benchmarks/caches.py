"""The caches against a dict behind a lock, hand-written caches, and packages from PyPI.

The floor of a look-up is a method that takes a Lock and asks a dict; that of a `set` on a full
cache is a method that takes a Lock, inserts into an OrderedDict and drops the oldest entry.
The floor is written with `with`, as anybody would who wants it right. Beside it stands the same
with acquire/try/finally, which is quicker on several builds, but which an interrupt between
the acquire and the try leaves locked for good.
"""

import functools
import importlib
import itertools
import random
import statistics
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from benchmarks import harness
from benchmarks.render import ratio_and_range
from reference_impl.caches.ttl_cache import TTLCache

CHUNK = 200
TTL = 3600.0
VALUE = ("any", "value")


class WithDict:
    """The floor of a look-up, the way it is usually written."""

    def __init__(self) -> None:
        self._lock: Any = threading.Lock()
        self._data: dict[str, object] = {}

    def get(self, key: str, default: object = None) -> object:
        with self._lock:
            return self._data.get(key, default)

    def set(self, key: str, value: object) -> None:
        with self._lock:
            self._data[key] = value

    def __len__(self) -> int:
        return len(self._data)


class AcquireDict(WithDict):
    """The floor of a look-up, the way it runs fastest on several builds."""

    def get(self, key: str, default: object = None) -> object:
        self._lock.acquire()
        try:
            return self._data.get(key, default)
        finally:
            self._lock.release()

    def set(self, key: str, value: object) -> None:
        self._lock.acquire()
        try:
            self._data[key] = value
        finally:
            self._lock.release()


class SubscriptDict(AcquireDict):
    """A look-up by subscript: dear when the key is not there."""

    def get(self, key: str, default: object = None) -> object:
        self._lock.acquire()
        try:
            return self._data[key]
        except KeyError:
            return default
        finally:
            self._lock.release()


class Locked(AcquireDict):
    """cachetools leaves the lock to its user: here is the faster way to write it."""

    def __init__(self, cache: Any) -> None:
        self._lock = threading.RLock()
        self._data = cache

    def __len__(self) -> int:
        with self._lock:
            return super().__len__()


class WithOldest:
    """The floor of a `set` on a full cache, the way it is usually written."""

    def __init__(self, max_size: int) -> None:
        self._lock: Any = threading.Lock()
        self._data: OrderedDict[str, object] = OrderedDict()
        self._max_size = max_size

    def get(self, key: str) -> object:
        with self._lock:
            return self._data.get(key)

    def set(self, key: str, value: object) -> None:
        with self._lock:
            self._data[key] = value
            if len(self._data) > self._max_size:
                self._data.popitem(last=False)

    def __len__(self) -> int:
        return len(self._data)


class AcquireOldest(WithOldest):
    """The floor of a `set` on a full cache, the way it runs fastest on several builds."""

    def set(self, key: str, value: object) -> None:
        self._lock.acquire()
        try:
            self._data[key] = value
            if len(self._data) > self._max_size:
                self._data.popitem(last=False)
        finally:
            self._lock.release()


class WithLRU(WithOldest):
    """What people write by hand: an LRU without expiry."""

    def __init__(self, max_size: int) -> None:
        super().__init__(max_size)
        self._lock = threading.RLock()

    def get(self, key: str, default: object = None) -> object:
        with self._lock:
            if key not in self._data:
                return default
            self._data.move_to_end(key)
            return self._data[key]

    def set(self, key: str, value: object) -> None:
        with self._lock:
            self._data[key] = value
            self._data.move_to_end(key)
            if len(self._data) > self._max_size:
                self._data.popitem(last=False)


class AcquireLRU(WithLRU):
    """The same with acquire/try/finally."""

    def set(self, key: str, value: object) -> None:
        self._lock.acquire()
        try:
            self._data[key] = value
            self._data.move_to_end(key)
            if len(self._data) > self._max_size:
                self._data.popitem(last=False)
        finally:
            self._lock.release()

    def get(self, key: str, default: object = None) -> object:
        self._lock.acquire()
        try:
            if key not in self._data:
                return default
            self._data.move_to_end(key)
            return self._data[key]
        finally:
            self._lock.release()


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Store:
    """A cache as its bound methods, so that no wrapper is timed."""

    get: Callable[[str], Any]
    set: Callable[[str, object], object]
    size: Callable[[], int]
    set_for: Callable[[str, object, float], object] | None = None
    value: Callable[[Any], object] = lambda found: found
    keeps_new: bool = True
    close: harness.Batch = _nothing


@dataclass(frozen=True, slots=True)
class Contestant(harness.Contestant[Callable[[int], Store]]):
    """A cache to measure; `largest` is the size above which it is too slow to be built."""

    largest: int = 10_000_000

    def case(self, build: Callable[[Store, int], harness.Subject], size: int) -> harness.Case:
        def subject() -> harness.Subject:
            store = self.make(size)
            return replace(build(store, size), close=store.close)

        return self.measured(subject, self.too_slow(size))

    def too_slow(self, size: int) -> str:
        """Why it is not built with so many entries, or "" where it is."""
        if size <= self.largest:
            return ""
        return f"its `set` slows down with the entries, {size:,} take too long"


def _plain(make: Callable[[int], Any]) -> Callable[[int], Store]:
    def build(size: int) -> Store:
        cache = make(size)
        return Store(cache.get, cache.set, cache.__len__)

    return build


def _ours(size: int) -> Store:
    cache: TTLCache[str, object] = TTLCache(TTL, size)
    return Store(cache.get, cache.set, cache.__len__, cache.set)


def _cachetools(size: int) -> Store:
    cache = Locked(importlib.import_module("cachetools").TTLCache(size, TTL))
    return Store(cache.get, cache.set, cache.__len__)


def _expiringdict(size: int) -> Store:
    cache = importlib.import_module("expiringdict").ExpiringDict(size, TTL)
    return Store(cache.get, cache.__setitem__, cache.__len__)


def _cacheout(size: int) -> Store:
    cache = importlib.import_module("cacheout").LRUCache(maxsize=size, ttl=TTL)
    return Store(cache.get, cache.set, cache.__len__, cache.set)


def _theine(size: int) -> Store:
    cache = importlib.import_module("theine").Cache(size)
    put, an_hour = cache.set, timedelta(seconds=TTL)

    def set_(key: str, value: object) -> None:
        put(key, value, an_hour)

    def set_for(key: str, value: object, ttl: float) -> None:
        put(key, value, timedelta(seconds=ttl))

    return Store(
        cache.get,
        set_,
        cache.__len__,
        set_for,
        value=lambda found: found[0],
        keeps_new=False,
        close=cache.close,  # its own thread keeps every cache that is not closed
    )


def _cachebox(size: int) -> Store:
    cache = importlib.import_module("cachebox").TTLCache(size, TTL)
    return Store(cache.get, cache.insert, cache.__len__)


def _cachebox_each(size: int) -> Store:
    cache = importlib.import_module("cachebox").VTTLCache(size)

    def set_(key: str, value: object) -> None:
        cache.insert(key, value, TTL)

    return Store(cache.get, set_, cache.__len__, cache.insert)


OURS = Contestant("TTLCache", _ours, "ours")
BARE = "bound, order, expiry, loading, statistics"
GET_FLOORS = [
    Contestant(
        "Lock + dict, acquire/try/finally",
        _plain(lambda _: AcquireDict()),
        "reference",
        lacks=f"{BARE}; a Ctrl-C can leave the lock held",
    ),
    Contestant("Lock + dict, `with`", _plain(lambda _: WithDict()), "floor", lacks=BARE),
    Contestant(
        "Lock + dict, subscript and KeyError",
        _plain(lambda _: SubscriptDict()),
        "reference",
        lacks=BARE,
    ),
]
NO_LRU = "recency, expiry, loading, statistics"
SET_FLOORS = [
    Contestant(
        "Lock + OrderedDict, acquire/try/finally",
        _plain(AcquireOldest),
        "reference",
        lacks=f"{NO_LRU}; a Ctrl-C can leave the lock held",
    ),
    Contestant("Lock + OrderedDict, `with`", _plain(WithOldest), "floor", lacks=NO_LRU),
]
NO_TTL = "expiry, loading, statistics"
PEERS = [
    Contestant(
        "RLock + LRU by hand, acquire/try/finally",
        _plain(AcquireLRU),
        "reference",
        lacks=NO_TTL,
    ),
    Contestant("RLock + LRU by hand, `with`", _plain(WithLRU), "reference", lacks=NO_TTL),
    Contestant(
        "cachetools.TTLCache + RLock",
        _cachetools,
        package="cachetools",
        lacks="a lock of its own (here added), a TTL per entry, invalidation that wins",
    ),
    Contestant(
        "expiringdict.ExpiringDict",
        _expiringdict,
        package="expiringdict",
        lacks="recency, a TTL per entry, a monotonic clock, loading",
    ),
    Contestant(
        "cacheout.LRUCache",
        _cacheout,
        package="cacheout",
        lacks="a monotonic clock by default, single flight, a flat cost of `set`",
        largest=10_000,
    ),
    Contestant(
        "theine.Cache (policy in Rust)",
        _theine,
        package="theine",
        lacks="LRU order: a new entry may be refused; waiters' release when a loader raises",
    ),
    Contestant(
        "cachebox.TTLCache (all in Rust)",
        _cachebox,
        package="cachebox",
        lacks="recency, a TTL per entry, invalidation that wins; not pure Python",
    ),
]
CACHEBOX_EACH = Contestant(
    "cachebox.VTTLCache (all in Rust)",
    _cachebox_each,
    package="cachebox",
    lacks="recency, invalidation that wins; not pure Python",
)


@functools.lru_cache(maxsize=2)
def _names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}:{number}" for number in range(count)]


def _chunks(keys: Sequence[str], start: int = 0) -> Iterator[Sequence[str]]:
    """The keys in endless chunks. Each caller has an iterator of its own: they share none."""
    cut = [keys[at : at + CHUNK] for at in range(0, len(keys), CHUNK)]
    return itertools.cycle(cut[start:] + cut[:start])


@functools.lru_cache(maxsize=1)
def _asked_for(size: int) -> list[str]:
    """100,000 keys as a cache is asked for them: a few often, most seldom (Zipf's law)."""
    chance = random.Random(0)
    by_rank = list(_names("key", size))
    chance.shuffle(by_rank)
    weights = list(itertools.accumulate(1 / rank for rank in range(1, size + 1)))
    return chance.choices(by_rank, cum_weights=weights, k=100_000)


def _fill(store: Store, size: int) -> None:
    for key in _names("key", size):
        store.set(key, VALUE)


def _require(true: bool, what: str) -> None:
    if not true:
        raise AssertionError(what)


def _hits(store: Store, size: int) -> harness.Subject:
    _fill(store, size)
    get, chunks = store.get, _chunks(_asked_for(size))

    def batch() -> None:
        for key in next(chunks):
            get(key)

    def check() -> None:
        _require(store.size() == size, f"{store.size()} entries instead of {size}")
        for key in _asked_for(size)[:1_000]:
            _require(store.value(get(key)) is VALUE, f"no hit for {key}")

    return harness.Subject([batch], CHUNK, check)


def _misses(store: Store, size: int) -> harness.Subject:
    _fill(store, size)
    absent = _names("absent", 10_000)
    get, chunks = store.get, _chunks(absent)

    def batch() -> None:
        for key in next(chunks):
            get(key)

    def check() -> None:
        for key in absent[:1_000]:
            _require(store.value(get(key)) is None, f"a hit for {key}")

    return harness.Subject([batch], CHUNK, check)


def _sets(store: Store, size: int) -> harness.Subject:
    """Each key is new to the cache: twice as many as fit come in turn."""
    keys = _names("key", 2 * size)
    for key in keys:
        store.set(key, VALUE)
    put, chunks = store.set, _chunks(keys)

    def batch() -> None:
        for key in next(chunks):
            put(key, VALUE)

    return harness.Subject([batch], CHUNK, functools.partial(_check_full, store, size))


def _sets_for(store: Store, size: int) -> harness.Subject:
    """As before, and each entry with a TTL of its own, no two alike."""
    put = store.set_for or (lambda key, value, _ttl: store.set(key, value))
    keys = _names("key", 2 * size)
    ttls = [TTL + number / 1_000 for number in range(2 * size)]
    random.Random(0).shuffle(ttls)
    for key, ttl in zip(keys, ttls, strict=True):
        put(key, VALUE, ttl)
    pairs = list(zip(keys, ttls, strict=True))
    chunks = itertools.cycle([pairs[at : at + CHUNK] for at in range(0, len(pairs), CHUNK)])

    def batch() -> None:
        for key, ttl in next(chunks):
            put(key, VALUE, ttl)

    return harness.Subject([batch], CHUNK, functools.partial(_check_full, store, size))


def _check_full(store: Store, size: int) -> None:
    store.set("check", VALUE)
    _require(store.size() <= size, f"{store.size()} entries are more than {size}")
    if store.keeps_new:
        _require(store.size() == size, f"{store.size()} entries do not fill {size}")
        _require(store.value(store.get("check")) is VALUE, "a new entry is not there")


def _mixed(threads: int) -> Callable[[Store, int], harness.Subject]:
    """19 hits and one `set` of a key that is there, in turn, on each of the threads."""

    def build(store: Store, size: int) -> harness.Subject:
        _fill(store, size)
        put, get = store.set, store.get

        def worker(number: int) -> harness.Batch:
            chunks = _chunks(_asked_for(size), number * 50)

            def batch() -> None:
                keys = next(chunks)
                for key in keys[10:]:
                    get(key)
                for key in keys[:10]:
                    put(key, VALUE)

            return batch

        def check() -> None:
            for key in _asked_for(size)[:1_000]:
                _require(store.value(get(key)) is VALUE, f"no hit for {key}")

        return harness.Subject([worker(number) for number in range(threads)], CHUNK, check)

    return build


def _loads(call: Callable[[str], object]) -> harness.Subject:
    chunks = _chunks(_asked_for(1_000))

    def batch() -> None:
        for key in next(chunks):
            call(key)

    def check() -> None:
        for key in _names("key", 1_000):
            _require(call(key) is VALUE, f"no value for {key}")

    return harness.Subject([batch], CHUNK, check)


def _load(key: str) -> object:
    return VALUE


def _load_ours() -> harness.Subject:
    cache: TTLCache[str, object] = TTLCache(TTL, 1_000)
    get_or_load = cache.get_or_load

    def loader() -> object:
        return VALUE

    chunks = _chunks(_asked_for(1_000))

    def batch() -> None:
        for key in next(chunks):
            get_or_load(key, loader)

    def check() -> None:
        for key in _names("key", 1_000):
            _require(get_or_load(key, loader) is VALUE, f"no value for {key}")
        _require(cache.stats.loads == 1_000, f"{cache.stats.loads} loads")

    return harness.Subject([batch], CHUNK, check)


def _load_cachetools() -> harness.Subject:
    cachetools = importlib.import_module("cachetools")
    cached = cachetools.cached(cachetools.TTLCache(1_000, TTL), condition=threading.Condition())
    return _loads(cached(_load))


def _load_cachebox() -> harness.Subject:
    cachebox = importlib.import_module("cachebox")
    return _loads(cachebox.cached(cachebox.TTLCache(1_000, TTL), copy_level=0)(_load))


def _load_theine() -> harness.Subject:
    memoize = importlib.import_module("theine").Memoize(1_000, timedelta(seconds=TTL))
    cached = memoize(_load)
    cached.key(lambda key: key)
    return replace(_loads(cached), close=memoize.cache.close)


def _load_cacheout() -> harness.Subject:
    cache = importlib.import_module("cacheout").LRUCache(maxsize=1_000, ttl=TTL)
    return _loads(cache.memoize()(_load))


def _loading() -> harness.Group:
    floors = [contestant.case(_hits, 1_000) for contestant in GET_FLOORS[:2]]
    failing = "waiters' release when a loader raises"
    return harness.Group(
        "get_or_load, a hit, 1,000 entries",
        [
            *floors,
            harness.Case("TTLCache.get_or_load", _load_ours, "ours"),
            harness.Case(
                "functools.lru_cache (C)",
                lambda: _loads(functools.lru_cache(1_000)(_load)),
                "reference",
                lacks="expiry, single flight, invalidation of one key",
            ),
            harness.Case(
                "cachetools.cached, condition=",
                _load_cachetools,
                package="cachetools",
                lacks="a TTL per entry, invalidation that wins; a failure is retried in series",
            ),
            harness.Case(
                "cacheout.LRUCache.memoize",
                _load_cacheout,
                package="cacheout",
                lacks="single flight",
            ),
            harness.Case(
                "theine.Memoize (policy in Rust)", _load_theine, package="theine", lacks=failing
            ),
            harness.Case(
                "cachebox.cached (all in Rust)",
                _load_cachebox,
                package="cachebox",
                lacks="a TTL per entry, invalidation that wins; not pure Python",
            ),
        ],
        series="get_or_load, a hit",
        point="1,000 entries",
        note="The floor is a plain look-up, which loads nothing.",
    )


def _by_size(
    series: str,
    contestants: Sequence[Contestant],
    build: Callable[[Store, int], harness.Subject],
    size: int,
    *,
    aim: float | None,
    note: str = "",
) -> harness.Group:
    return harness.Group(
        f"{series}, {size:,} entries",
        [contestant.case(build, size) for contestant in contestants],
        series=series,
        point=f"{size:,} entries",
        aim=aim,
        note=note,
    )


def _growth(effort: harness.Effort) -> harness.TableFigures:
    """Each against itself in its smallest size: whether the cost grows with the entries."""
    rows: list[list[str | int | float]] = []
    for what, contestant, build in (
        ("set when full", OURS, _sets),
        ("set when full", SET_FLOORS[0], _sets),
        ("get, a hit", OURS, _hits),
        ("get, a hit", GET_FLOORS[0], _hits),
    ):
        cases = [
            replace(
                contestant.case(build, size),
                name=f"{size:,}",
                role="floor" if size == effort.sizes[0] else "ours",
            )
            for size in effort.sizes
        ]
        measured = harness.measure(harness.Group(what, cases), effort)["cases"]
        rows.append([f"{contestant.name}: {what}", *map(ratio_and_range, measured)])
    return {
        "title": "Cost as the number of entries grows, each against itself",
        "note": (
            "More entries than the processor's caches hold make every design slower:\n"
            "what a plain dict behind a lock loses is the memory's doing."
        ),
        "columns": ["Case", *(f"{size:,} entries" for size in effort.sizes)],
        "rows": rows,
        "not_measured": [],
    }


def plans(effort: harness.Effort) -> list[harness.Plan]:
    """What is measured for each component of the family."""
    groups: list[Callable[[], harness.Group]] = []
    set_cases = [*SET_FLOORS, OURS, *PEERS]
    get_cases = [*GET_FLOORS, OURS, *PEERS]
    for series, contestants, build, aims in (  # of the smallest size, and of the others
        ("get, a hit", get_cases, _hits, (1.2, 1.6)),
        ("get, a miss", get_cases, _misses, (None, None)),
        ("set on a full cache", set_cases, _sets, (1.7, 1.7)),
    ):
        groups += [
            functools.partial(_by_size, series, contestants, build, size, aim=aims[number > 0])
            for number, size in enumerate(effort.sizes)
        ]
    groups.append(
        functools.partial(
            _by_size,
            "set on a full cache, each entry with a TTL of its own",
            [
                *SET_FLOORS,
                OURS,
                *(peer for peer in PEERS if peer.package in {"cacheout", "theine"}),
                CACHEBOX_EACH,
            ],
            _sets_for,
            effort.sizes[0],
            aim=None,
            note="The worst case for expiry: no two entries share a TTL. The floor has none.",
        )
    )
    groups.append(_loading)
    groups.append(functools.partial(_crowd, get_cases))
    tables = [functools.partial(table, effort) for table in (_growth, _bytes, _pauses)]
    return [harness.Plan("caches/ttl_cache", groups, tables)]


def _crowd(contestants: Sequence[Contestant]) -> harness.Group:
    return harness.Group(
        "8 threads, 19 hits to one set, 1,000 entries",
        [contestant.case(_mixed(8), 1_000) for contestant in contestants],
        note=(
            "With several threads a locked design runs now freely, now in convoys, where each\n"
            "operation waits for the lock to change hands: read the range, not the median."
        ),
        real_time=True,
        longer=10,
    )


def _bytes_per_entry(name: str, size: int) -> float:
    """How much this fresh process grows by filling a cache; keys and values are there before."""
    contestant = next(c for c in [*SET_FLOORS, OURS, *PEERS, CACHEBOX_EACH] if c.name == name)
    contestant.make(10).set("warm", VALUE)
    _names("key", size)
    before = harness.resident()
    store = contestant.make(size)
    _fill(store, size)
    after = harness.resident()
    assert before is not None
    assert after is not None
    return (after - before) / store.size()


def _bytes(effort: harness.Effort) -> harness.TableFigures:
    size = min(100_000, effort.sizes[-1])
    contestants = [SET_FLOORS[0], OURS, *PEERS[1:], CACHEBOX_EACH]
    return harness.memory_table(
        f"Memory per entry, {size:,} entries",
        "keys and values are not counted",
        {each.name: harness.missing(each.package) or each.too_slow(size) for each in contestants},
        functools.partial(_bytes_per_entry, size=size),
    )


def _with_clock(name: str, size: int, clock: Callable[[], float]) -> Store:
    if name == "TTLCache":
        ours: TTLCache[str, object] = TTLCache(TTL, size, clock=clock)
        return Store(ours.get, ours.set, ours.__len__)
    cachetools = importlib.import_module("cachetools")
    theirs = Locked(cachetools.TTLCache(size, TTL, timer=clock))
    return Store(theirs.get, theirs.set, theirs.__len__)


def _pauses(effort: harness.Effort) -> harness.TableFigures:
    """The longest call after all entries have expired at once, in ordinary `set`s."""
    size = min(100_000, effort.sizes[-1])
    rows: list[list[str | int | float]] = []
    absent: list[harness.NotMeasured] = []
    for name, package in (("TTLCache", ""), ("cachetools.TTLCache + RLock", "cachetools")):
        if reason := harness.missing(package):
            absent.append({"name": name, "reason": reason})
            continue
        row: list[str | int | float] = [name]
        for operation in ("set", "get", "len"):
            found = [_longest(name, size, operation) for _ in range(5)]
            row.append(round(statistics.median(found)))
        rows.append(row)
    return {
        "title": f"The longest call after {size:,} entries expired at once",
        "note": (
            "As a multiple of an ordinary `set` before; the longest of 1,000 calls, the median\n"
            "of 5 trials. cachetools needs the lock for all of it; TTLCache works in slices and\n"
            "lets other threads in between."
        ),
        "columns": ["Case", "`set`", "`get`", "`len`"],
        "rows": rows,
        "not_measured": absent,
    }


def _longest(name: str, size: int, operation: str) -> float:
    now = [0.0]
    store = _with_clock(name, size, lambda: now[0])
    keys = _names("key", 2 * size)
    for key in keys:
        store.set(key, VALUE)
    call: Callable[[str], object] = {
        "set": lambda key: store.set(key, VALUE),
        "get": store.get,
        "len": lambda _: store.size(),
    }[operation]
    with harness.quiet_collector():
        ordinary = statistics.median(_each(lambda key: store.set(key, VALUE), keys[:1_000]))
        now[0] += 2 * TTL
        return max(_each(call, keys[:1_000])) / ordinary


def _each(call: Callable[[str], object], keys: Sequence[str]) -> list[int]:
    times = []
    for key in keys:
        started = time.process_time_ns()
        call(key)
        times.append(time.process_time_ns() - started)
    return times
