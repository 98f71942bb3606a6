"""The sharded cache against one TTLCache: what sixteen locks gain over one, and when nothing.

Two things are told apart: the share of the lock's acquisitions that have to wait, which is what
contention means, and the operations that get done in a given time, which is what it costs.
"""

import functools
import importlib
import importlib.util
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import caches, harness
from reference_impl.caches.ttl_cache import TTLCache

COMPONENT = "reference_impl.caches.sharded_cache"
SIZE = 10_000
SHARDS = 16
CHUNK = 200
TTL = caches.TTL
VALUE = caches.VALUE

Keys = Sequence[str]


class CountingLock:
    """A lock in place of another, which counts how often it is taken and how often one waits.

    The counts are guarded by the lock itself.
    """

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self.taken = self.waited = 0

    def acquire(self) -> bool:
        if self._lock.acquire(blocking=False):
            self.taken += 1
            return True
        self._lock.acquire()
        self.taken += 1
        self.waited += 1
        return True

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class NoLock:
    """No exclusion at all."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def _one() -> Any:
    return TTLCache[str, object](TTL, SIZE)


def _sharded(shards: int = SHARDS) -> Any:
    return importlib.import_module(COMPONENT).ShardedCache(shards, default_ttl=TTL, max_size=SIZE)


def _replace_locks(cache: Any, make: Callable[[Any], Any]) -> list[Any]:
    """Put another lock in each TTLCache that this is or consists of."""
    parts = [cache] if isinstance(cache, TTLCache) else _parts(cache)
    locks = []
    for part in parts:
        part._lock = make(part._lock)
        locks.append(part._lock)
    return locks


def _parts(cache: Any) -> list[Any]:
    for value in vars(cache).values():
        if isinstance(value, list | tuple) and value and isinstance(value[0], TTLCache):
            return list(value)
    raise LookupError(f"{cache!r} has no list of TTLCaches: tell this benchmark where they are")


@functools.lru_cache(maxsize=1)
def _random_keys() -> Keys:
    return random.Random(0).choices(caches._names("key", SIZE // 2), k=100_000)


@functools.lru_cache(maxsize=1)
def _frequent_keys() -> Keys:
    return caches._asked_for(SIZE // 2)


def _one_key() -> Keys:
    return ["key:0"] * 100_000


def _use(cache: Any, threads: int, keys: Keys, sets: int = 0) -> harness.Subject:
    """Each thread looks up keys that are there, and sets `sets` of each 200."""
    # Half full: sixteen shards do not fill evenly, and no entry is to be dropped.
    for key in caches._names("key", SIZE // 2):
        cache.set(key, VALUE)
    get, put = cache.get, cache.set

    def worker(number: int) -> harness.Batch:
        chunks = caches._chunks(keys, number * 4 % (len(keys) // CHUNK))

        def batch() -> None:
            chunk = next(chunks)
            for key in chunk[sets:]:
                get(key)
            for key in chunk[:sets]:
                put(key, VALUE)

        return batch

    def look() -> None:
        caches._require(cache.size == SIZE // 2, f"{cache.size} entries")
        for key in keys[:1_000]:
            caches._require(get(key) is VALUE, f"no hit for {key}")

    return harness.Subject([worker(number) for number in range(threads)], CHUNK, look)


@dataclass(frozen=True, slots=True)
class Load:
    """How many threads ask for which keys, and how many of 200 operations are a `set`."""

    threads: int
    keys: Callable[[], Keys] = _random_keys
    sets: int = 0

    @property
    def name(self) -> str:
        keys: dict[Callable[[], Keys], str] = {
            _random_keys: "random keys",
            _frequent_keys: "some keys often, Zipf's law",
            _one_key: "one key",
        }
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        mix = "all hits" if not self.sets else "19 hits to one `set`"
        return f"{threads}, {keys[self.keys]}, {mix}"

    def use(self, cache: Any) -> harness.Subject:
        return _use(cache, self.threads, self.keys(), self.sets)


LOADS = (
    Load(1),
    Load(8),
    Load(100),
    Load(8, sets=10),
    Load(8, _frequent_keys),
    Load(8, _one_key),
)


def _times(threads: int, effort: harness.Effort) -> tuple[int, int]:
    """How long a sample lasts in nanoseconds, and how many rounds are taken."""
    # With the GIL threads change places every 5 ms: a sample is to see many of these moments.
    longer = 1 if threads == 1 else 40
    return effort.sample_ns * longer, max(2, effort.rounds // longer, min(effort.rounds, 15))


def _contention(effort: harness.Effort) -> harness.TableFigures:
    rows: list[list[str | int | float]] = []
    for load in LOADS:
        one, sharded = _shares(load, effort)
        fewer = f"{sum(one) / sum(sharded):.1f}" if any(sharded) else "n/a"
        rows.append([load.name, _spread(one), _spread(sharded), fewer])
    return {
        "title": "Acquisitions of a lock that have to wait, in per cent",
        "note": (
            "The median of the rounds, and the range from the 10th to the 90th percentile;\n"
            "how many times fewer, of all rounds together.\n"
            "Counted by a lock in place of the cache's own, which first tries without waiting.\n"
            f"{_build()}"
        ),
        "columns": ["Load", "One TTLCache", f"{SHARDS} shards", "Times fewer"],
        "rows": rows,
        "not_measured": [],
    }


def _spread(shares: Sequence[float]) -> str:
    """The median and the range, in per cent."""
    low, median, high = (f"{100 * share:.2f}" for share in harness.spread(shares))
    return f"{median} ({low} to {high})"


def _shares(load: Load, effort: harness.Effort) -> tuple[list[float], list[float]]:
    """The shares of one cache and of the sharded one, round by round in turn."""
    enough, rounds = _times(load.threads, effort)
    subjects, locks = [], []
    for cache in (_one(), _sharded()):
        subjects.append(load.use(cache))
        harness.check("the cache", subjects[-1])
        locks.append(_replace_locks(cache, CountingLock))
    shares: tuple[list[float], list[float]] = ([], [])
    with harness.quiet_collector():
        loops = [harness.calibrate(subject, enough, time.perf_counter_ns) for subject in subjects]
        for _ in range(rounds):
            for at, subject in enumerate(subjects):
                before = [(lock.taken, lock.waited) for lock in locks[at]]
                harness.sample(subject, loops[at], time.perf_counter_ns)
                taken = sum(lock.taken - t for lock, (t, _) in zip(locks[at], before, strict=True))
                waited = sum(
                    lock.waited - w for lock, (_, w) in zip(locks[at], before, strict=True)
                )
                caches._require(
                    taken >= loops[at] * load.threads * CHUNK, "the lock in place is not used"
                )
                shares[at].append(waited / taken)
    return shares


def _throughput(effort: harness.Effort) -> harness.TableFigures:
    rows: list[list[str | int | float]] = []
    for load in LOADS:
        cases = [_case("one", load, _one, "floor"), _case("sharded", load, _sharded, "ours")]
        if not load.sets and _has_gil():
            cases.append(_case("no lock", load, _unlocked))
        group = harness.Group(
            load.name,
            cases,
            real_time=load.threads > 1,
            longer=_times(load.threads, effort)[0] // effort.sample_ns,
        )
        found = {case["name"]: case for case in harness.measure(group, effort)["cases"]}
        rows.append([load.name, *(_times_as_many(found.get(n)) for n in ("sharded", "no lock"))])
    absent: list[harness.NotMeasured] = []
    if not _has_gil():
        reason = "without the GIL a TTLCache breaks when its lock is taken away"
        absent.append({"name": "one TTLCache without its lock", "reason": reason})
    return {
        "title": "Operations in a given time, as a multiple of one TTLCache's",
        "note": (
            "The median of the rounds, and the range from the 10th to the 90th percentile.\n"
            "Without its lock the cache is wrong: it only shows what there is to gain, where all\n"
            f"are hits. {_build()}"
        ),
        "columns": ["Load", f"{SHARDS} shards", "One TTLCache without its lock"],
        "rows": rows,
        "not_measured": absent,
    }


def _case(
    name: str, load: Load, make: Callable[[], Any], role: harness.Role = "reference"
) -> harness.Case:
    return harness.Case(name, lambda: load.use(make()), role)


def _unlocked() -> Any:
    cache = _one()
    _replace_locks(cache, lambda _: NoLock())
    return cache


def _times_as_many(case: harness.CaseFigures | None) -> str:
    if case is None:
        return "n/a"
    found = (1 / case["ratio_median"], 1 / case["ratio_high"], 1 / case["ratio_low"])
    median, low, high = (f"{times:.2f}" for times in found)
    return f"{median} ({low} to {high})"


def _has_gil() -> bool:
    return getattr(sys, "_is_gil_enabled", lambda: True)()


def _build() -> str:
    return f"This build runs {'with' if _has_gil() else 'without'} the GIL."


def plans(effort: harness.Effort) -> list[harness.Plan]:
    """What is measured for each component of the family; nothing until the component exists."""
    if importlib.util.find_spec(COMPONENT) is None:
        return []
    tables = [functools.partial(table, effort) for table in (_contention, _throughput)]
    return [harness.Plan("caches/sharded_cache", [], tables)]
