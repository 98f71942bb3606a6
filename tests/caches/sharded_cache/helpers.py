"""Which shard a key lives in, as one can see from outside; and one shard as a cache of its own."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from types import ModuleType
from typing import Any, ClassVar

from reference_impl.caches import sharded_cache
from reference_impl.caches.sharded_cache import ShardedCache
from tests.caches.ttl_cache.faults import Named
from tests.contracts import cache_contract as contract
from tests.kit.twins import Fault, within

COMPONENT = "caches/sharded_cache"


@cache
def _full(shards: int) -> ShardedCache[Any, None]:
    """One entry in each shard, and no room for another: so each new one shows where it went."""
    found = ShardedCache[Any, None](shards, max_size=shards)
    for number in range(100 * shards):
        found.set(number, None)
    assert len(found) == shards
    return found


def home(shards: int, key: object) -> int:
    """The number of the shard, of so many, that `key` lives in."""
    probe = _full(shards)
    probe.set(key, None)
    return probe.keys().index(key)


@cache
def in_each(shards: int, number: int) -> list[list[int]]:
    """So many keys of each shard, in the shards' order."""
    found: list[list[int]] = [[] for _ in range(shards)]
    for key in range(10_000):
        if all(len(keys) == number for keys in found):
            return found
        if len(keys := found[home(shards, key)]) < number:
            keys.append(key)
    raise AssertionError(f"not even 10,000 keys spread over {shards} shards")


def _in_the_first() -> list[int]:
    """Keys of the first of four shards; none where they do not spread, for the checks to say so."""
    try:
        return in_each(4, 32)[0]
    except (AssertionError, ValueError):
        return []


def one_in_each(shards: int) -> list[int]:
    """One key for each shard, in the shards' order."""
    return [key for (key,) in in_each(shards, 1)]


class Same:
    """A key that lives in the first of four shards, as all of its kind do."""

    # Found here, by one thread: to find them, one cache is probed.
    NUMBERS: ClassVar[list[int]] = _in_the_first()

    def __init__(self, key: Any) -> None:
        self.key = key

    def __hash__(self) -> int:  # that of an int is that int
        return self.NUMBERS[hash(self.key) % len(self.NUMBERS)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and bool(self.key == other.key)

    def __repr__(self) -> str:
        return repr(self.key)


class OneShard:
    """One shard of four, used like a TTLCache by way of the whole ShardedCache."""

    def __init__(
        self, m: ModuleType, default_ttl: Any = 3600.0, max_size: Any = 1000, **more: Any
    ) -> None:
        # The keys meet in one shard, and that holds a quarter.
        whole = None if max_size is None else 4 * max_size
        if callable(on_evict := more.get("on_evict")):
            more["on_evict"] = lambda same, *left: on_evict(same.key, *left)
        self.cache = m.ShardedCache(4, default_ttl=default_ttl, max_size=whole, **more)

    def __getattr__(self, name: str) -> Any:  # what is about all keys
        return getattr(self.cache, name)

    def get(self, key: Any, *more: Any) -> Any:
        return self.cache.get(Same(key), *more)

    def set(self, key: Any, value: Any, ttl: Any = None) -> None:
        self.cache.set(Same(key), value, ttl)

    def delete(self, key: Any) -> bool:
        return bool(self.cache.delete(Same(key)))

    def get_or_load(self, key: Any, loader: Any, ttl: Any = None, **options: Any) -> Any:
        return self.cache.get_or_load(Same(key), loader, ttl, **options)

    def keys(self) -> list[Any]:
        return [same.key for same in self.cache.keys()]  # noqa: SIM118 - no dict

    def items(self) -> list[tuple[Any, Any]]:
        return [(same.key, value) for same, value in self.cache.items()]

    def __len__(self) -> int:
        return len(self.cache)

    def __contains__(self, key: Any) -> bool:
        return Same(key) in self.cache


@contextmanager
def as_ttl_cache(m: ModuleType) -> Iterator[ModuleType]:
    """The module of its shards, whose TTLCache is meanwhile one shard of four."""
    of_shards = sys.modules[m.TTLCache.__module__]
    before = vars(of_shards)["TTLCache"]
    vars(of_shards)["TTLCache"] = partial(OneShard, m)
    try:
        yield of_shards
    finally:
        vars(of_shards)["TTLCache"] = before


def in_one_shard(check: Callable[[ModuleType], object]) -> Callable[[ModuleType], None]:
    """A check of TTLCache as one of ShardedCache."""

    def check_in_one_shard(m: ModuleType) -> None:
        with as_ttl_cache(m) as of_shards:
            check(of_shards)

    check_in_one_shard.__name__ = getattr(check, "__name__", "check")
    return check_in_one_shard


def in_shards(twin: Named, more: Fault | None = None) -> Named:
    """The same fault, in the TTLCaches that the shards are."""
    name, fault = twin
    return f"has shards of which each {name}", within("caches/ttl_cache", fault + (more or Fault()))


class OneShardCases(contract.OfModule):
    """The contract's cases on one shard."""

    module = sharded_cache

    def make(self, **arguments: Any) -> Any:
        return OneShard(self.module, **arguments)


class FourShardsCases(contract.OfModule):
    """The contract's cases on all four shards."""

    module = sharded_cache

    def make(self, **arguments: Any) -> Any:
        shards = 1 if arguments.get("max_size") in {1, 3} else 4
        return self.module.ShardedCache(shards, **({"max_size": None} | arguments))
