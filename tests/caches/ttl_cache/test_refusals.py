"""What TTLCache refuses, and that it has changed nothing then: copies, loaders of other kinds."""

import copy
import functools
import math
import pickle
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from reference_impl.caches import ttl_cache
from reference_impl.caches.ttl_cache import CacheStats, TTLCache
from tests.contracts.cache_contract import Clock

COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_refused_and_says_what_to_do(how: str) -> None:
    cache = TTLCache[str, int]()
    cache.set("key", 1)
    with pytest.raises(TypeError, match="TTLCache cannot be copied or pickled: "):
        COPIES[how](cache)
    assert cache.items() == [("key", 1)]


def test_statistics_are_values() -> None:
    stats = CacheStats(hits=3, misses=1)
    assert copy.copy(stats) == copy.deepcopy(stats) == pickle.loads(pickle.dumps(stats)) == stats
    assert weakref.ref(stats)() is stats


async def load_later(_: object = None) -> int:
    return 1


async def load_in_turns(_: object = None) -> AsyncIterator[int]:
    yield 1


def load_in_steps(_: object = None) -> Iterator[int]:
    yield 1


class Loads:
    async def __call__(self) -> int:
        return 1

    async def method(self) -> int:
        return 1

    def steps(self) -> Iterator[int]:
        yield 1


LOADERS: dict[str, Any] = {
    "a coroutine function": load_later,
    "a part of one": functools.partial(load_later, 1),
    "a part of a part": functools.partial(functools.partial(load_later, 1)),
    "a method": Loads().method,
    "an object": Loads(),
    "an async generator function": load_in_turns,
    "a generator function": load_in_steps,
    "a part of a generator function": functools.partial(load_in_steps, 1),
    "a method that is one": Loads().steps,
}


def check_such_a_loader_changes_nothing(m: ModuleType, kind: str, **options: Any) -> None:
    cache = m.TTLCache()
    cache.set("key", 1)
    before = cache.stats
    for key in ("key", "new"):
        with pytest.raises(TypeError, match=r"^loader must be") as caught:
            cache.get_or_load(key, LOADERS[kind], **options)
        if "generator" not in kind and "that is one" not in kind:
            assert "AsyncTTLCache" in str(caught.value)
    assert cache.stats == before
    assert cache.items() == [("key", 1)]


@pytest.mark.parametrize("kind", LOADERS)
def test_such_a_loader_changes_nothing(kind: str) -> None:
    check_such_a_loader_changes_nothing(ttl_cache, kind)
    check_such_a_loader_changes_nothing(ttl_cache, kind, stale=5.0)


@pytest.mark.parametrize("number", [10**400, math.inf, 1e308])
def test_a_number_beyond_a_float_is_forever(number: float) -> None:
    clock = Clock()
    cache = TTLCache[str, int](number, clock=clock)
    cache.set("default", 1)
    cache.set("own", 2, ttl=number)
    cache.get_or_load("loaded", lambda: 3, ttl=number, stale=number)
    cache.get_or_load("stale", lambda: 4, ttl=1.0, stale=number)
    clock.tick(1e200)
    assert sorted(cache.keys()) == ["default", "loaded", "own"]
    assert cache.get_or_load("stale", lambda: 1 // 0, stale=number) == 4


def test_an_executor_that_is_none_is_refused() -> None:
    executor: Any = "pool"
    with pytest.raises(TypeError, match=r"^executor must be .*'pool'"):
        TTLCache[str, int](executor=executor)
