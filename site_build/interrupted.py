"""Queues and caches that readers know, and ours, under exceptions of signal handlers.

`python -m site_build.interrupted` interrupts their calls at each point where CPython runs
handlers, once and twice, by tests/kit/interrupts.py, and writes docs/evidence/interrupts.json,
from which the table on the page about interrupts is rendered.
"""

import functools
import importlib
import json
import platform
import queue
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from reference_impl.caches.ttl_cache import TTLCache
from reference_impl.queues.memory_queue import MemoryQueue
from site_build.interrupts_table import RECORD, table
from tests.kit.fakes import Clock
from tests.kit.interrupts import Ending, Hang, elsewhere, patience, sweep

# Seconds after which a call in another thread counts as one that hangs.
HANGS = 1.0


def _cachetools() -> Any:
    """Installed where it is measured, not where the page is rendered; without types."""
    return importlib.import_module("cachetools")


@dataclass
class Subject:
    """What is interrupted: its calls by name, on a new object each, and what must hold then."""

    name: str
    prepare: Callable[[], Any]
    calls: dict[str, Callable[[Any], object]]
    check: Callable[[Any, Ending], object]


def _drained(get: Callable[[], Any], empty: type[Exception] | None = None) -> list[Any]:
    """All jobs, as another thread gets them; the end is None, or the exception `empty`."""
    found: list[Any] = []
    while True:
        try:
            job = elsewhere(get)
        except Exception as error:
            if empty is None or not isinstance(error, empty):
                raise
            return found
        if job is None:
            return found
        found.append(job)


def _check_jobs(jobs: list[Any], ending: Ending) -> None:
    """One job was there, "a"; the call added "b", or took one, or did nothing."""
    got = [] if ending.result in (None, "b") else [ending.result]
    assert jobs + got or not ending.interrupted, "loses a job"
    assert jobs + got in (["a"], ["a", "b"]), "mixes up its jobs"


def _queue(name: str, make: Callable[[], Any]) -> Subject:
    def prepare() -> Any:
        made = make()
        made.put("a")
        return made

    def full(jobs: Any) -> None:
        jobs.put("b")
        jobs.put("c", timeout=0)

    def check(jobs: Any, ending: Ending) -> None:
        found = _drained(jobs.get_nowait, queue.Empty)
        elsewhere(jobs.put, "later")
        assert elsewhere(jobs.get_nowait) == "later", "gives another job"
        _check_jobs(found, ending)

    calls: dict[str, Callable[[Any], object]] = {
        "put": lambda jobs: jobs.put("b"),
        "get": lambda jobs: jobs.get(),
        "put into a full one": full,
    }
    if name == "queue.SimpleQueue":  # it has no bound
        del calls["put into a full one"]
    return Subject(name, prepare, calls, check)


def _memory_queue() -> Subject:
    def prepare() -> Any:
        jobs = MemoryQueue[str](max_size=2)
        jobs.add("a")
        return jobs

    def full(jobs: Any) -> None:
        jobs.add("b")
        jobs.add("c")

    def complete(jobs: Any) -> None:
        job = jobs.get_next()
        job.mark_completed()
        jobs.update(job)

    def check(jobs: Any, _: Ending) -> None:
        elsewhere(jobs.requeue_stale, 0.0)  # a job whose worker was interrupted is claimed again
        completed = elsewhere(lambda: jobs.stats).completed
        found = [job.data for job in _drained(jobs.get_next)]
        assert found or completed, "loses a job"
        assert ["a"] * completed + found in (["a"], ["a", "b"]), "mixes up its jobs"
        elsewhere(jobs.clear)
        elsewhere(jobs.add, "later")
        assert elsewhere(jobs.get_next).data == "later", "gives another job"

    return Subject(
        "MemoryQueue",
        prepare,
        {
            "put": lambda jobs: jobs.add("b"),
            "get": lambda jobs: jobs.get_next(),
            "get and report": complete,
            "put into a full one": full,
        },
        check,
    )


class _Cachetools:
    """cachetools' TTLCache as its documentation says: with a lock around each call."""

    def __init__(self, clock: Clock) -> None:
        self._lock = threading.RLock()
        self._cache = _cachetools().TTLCache(3, ttl=10.0, timer=clock)

    def get(self, key: object) -> Any:
        with self._lock:
            return self._cache.get(key)

    def set(self, key: object, value: object) -> None:
        with self._lock:
            self._cache[key] = value

    def delete(self, key: object) -> None:
        with self._lock:
            self._cache.pop(key, None)

    def keys(self) -> list[Any]:
        with self._lock:
            return list(self._cache)

    def __len__(self) -> int:
        with self._lock:
            return len(self._cache)


def _cache(name: str, make: Callable[[Clock], Any]) -> Subject:
    def prepare() -> Any:
        clock = Clock()
        made = make(clock)
        for key in "ab":  # dead by the time of the call
            made.set(key, key)
        clock.tick(10.0)
        for key in "cd":
            made.set(key, key)
        return made

    def check(cache: Any, _: Ending) -> None:
        for number in range(5):
            elsewhere(cache.set, number, number)
            keys = elsewhere(cache.keys)
            assert elsewhere(len, cache) == len(keys) <= 3, "holds more than its bound"
            assert all(elsewhere(cache.get, key) is not None for key in keys), "lists what is gone"
        assert sorted(elsewhere(cache.keys)) == [2, 3, 4], "evicts the wrong entry"

    def full(cache: Any) -> None:
        cache.set("e", "e")
        cache.set("f", "f")

    return Subject(
        name,
        prepare,
        {
            "get": lambda cache: cache.get("c"),
            "set": lambda cache: cache.set("c", "new"),
            "set in a full one": full,
            "delete": lambda cache: cache.delete("c"),
        },
        check,
    )


def _memoized(name: str, make: Callable[[Callable[[int], int]], Any]) -> Subject:
    """A function whose results are kept; with single flight, an interrupt can strand others."""

    def check(function: Any, _: Ending) -> None:
        for number in (7, 8, 9, 10, 7):
            assert elsewhere(function, number) == number, "gives another value"

    def prepare() -> Any:
        return make(lambda number: number)

    calls: dict[str, Callable[[Any], object]] = {"load": lambda function: function(7)}
    return Subject(name, prepare, calls, check)


def _loads(function: Callable[[int], int]) -> Any:
    cache = TTLCache[int, int](10.0, 3)
    return lambda number: cache.get_or_load(number, lambda: function(number))


def _cached(function: Callable[[int], int]) -> Any:
    lock = threading.Lock()
    kept = {"lock": lock, "condition": threading.Condition(lock)}
    return _cachetools().cached(_cachetools().LRUCache(3), **kept)(function)


def subjects() -> list[Subject]:
    """The queues first, ours last of each kind."""
    return [
        _queue("queue.Queue", lambda: queue.Queue(2)),
        _queue("queue.SimpleQueue", queue.SimpleQueue),
        _memory_queue(),
        _cache("cachetools.TTLCache with a lock", _Cachetools),
        _cache("TTLCache", lambda clock: TTLCache[Any, Any](10.0, 3, clock=clock)),
        _memoized("functools.lru_cache", functools.lru_cache(maxsize=3)),
        _memoized("cachetools.cached with a condition", _cached),
        _memoized("TTLCache.get_or_load", _loads),
    ]


Row = dict[str, Any]


def measure(names: Iterable[str] = ()) -> list[Row]:
    """A row for each subject and call: interrupts, and what broke how often."""
    wanted = set(names)
    return [
        {"subject": subject.name, "call": name} | _measured(subject, call)
        for subject in subjects()
        if not wanted or subject.name in wanted
        for name, call in subject.calls.items()
    ]


def _measured(subject: Subject, call: Callable[[Any], object]) -> Row:
    points = pairs = 0
    broken: dict[int, Counter[str]] = {1: Counter(), 2: Counter()}
    with patience(HANGS):
        for attempt in sweep(subject.prepare, call, subject.check):
            times = len(attempt.where)
            if times < len(attempt.at):  # the call ended before
                continue
            points, pairs = points + (times == 1), pairs + (times == 2)
            if attempt.error is not None:
                broken[times][_kind(attempt.error)] += 1
    return {"points": points, "once": broken[1], "pairs": pairs, "twice": broken[2]}


def _kind(error: BaseException) -> str:
    if isinstance(error, Hang):
        return "hangs"
    if isinstance(error, AssertionError):
        return str(error).partition("\n")[0]
    return f"raises {type(error).__name__}"


def record() -> dict[str, Any]:
    """What was found, and on what."""
    return {
        "python": platform.python_version(),
        "cachetools": version("cachetools"),
        "rows": measure(),
    }


if __name__ == "__main__":
    if sys.version_info < (3, 12):
        raise SystemExit("it needs sys.monitoring: run it on Python 3.12 or newer")
    rows = record()
    RECORD.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(table())
