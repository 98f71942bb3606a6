# sharded_cache.py: several TTLCaches behind one interface, each with a lock (ShardedCache)
# https://executable-guarantees.example/caches/sharded_cache.html
# Version 1.1.0 (2026-11-30); Python 3.11 to 3.14, with or without the GIL; standard library only
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: 2026 The Executable Guarantees authors
"""A TTLCache in shards: threads wait for each other only where their keys share a shard."""

import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Generic, NoReturn, SupportsIndex, TypeVar, overload

from .ttl_cache import CacheStats, EvictReason, TTLCache

__all__ = ["ShardedCache"]

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

_WIDTH = sys.hash_info.width
_MASK = (1 << _WIDTH) - 1  # makes a hash, which may be negative, a number from zero


class ShardedCache(Generic[K, V]):
    """Several TTLCaches behind the interface of one; a key's hash says which one it lives in.

    What TTLCache promises holds within each shard. Least recently used, and full, are a shard's
    own affairs: a full shard drops an entry of its own though others have room, or hold an entry
    that is older or expired. What looks at all shards (`stats`, `size`, `len`, `keys`, `items`,
    `clear`, `cleanup_expired`) goes from one to the next; it sees each at one instant, but not
    all at the same. An empty one is false, as an empty TTLCache is.

    Args:
        num_shards: how many shards, and so locks, from 1. If in doubt, take a TTLCache: sharding
            pays where threads were seen to wait for its lock.
        default_ttl: as for TTLCache, and for every shard.
        max_size: how many entries all shards together hold at most, at least `num_shards`. The
            shards' shares add up to it and differ by one at most. None is for no bound.
        clock: returns seconds. It is read under a shard's lock, so by several threads at the same
            time, and must not use the cache.
        on_evict: as for TTLCache; several threads may be in it at the same time.
        executor: as for TTLCache, and for all shards together.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: a number is not above zero, or `max_size` is less than `num_shards`.

    Thread safety:
        Internally synchronized: any thread may call any method, with or without the GIL. What is
        about one key is linearizable. What looks at all shards is a series of linearizable steps,
        one for each, and is not one step itself. No call holds two locks at the same time. Under
        a lock no code of the caller's runs but the clock and the keys' `__eq__` and `__hash__`,
        which must not use the cache.

    Fork:
        As TTLCache says, of every shard.

    Exit:
        There is nothing to close.

    Signals:
        As TTLCache says, of every shard. A call that looks at all shards, when a signal handler
        raises in it, has done some of them and not the others.

    Examples:
        >>> cache = ShardedCache[str, int](4, default_ttl=60.0, max_size=100)
        >>> cache.set("answer", 42)
        >>> cache.get_or_load("question", lambda: 6 * 9)
        54
        >>> sorted(cache.items())
        [('answer', 42), ('question', 54)]
    """

    def __init__(
        self,
        num_shards: int = 16,
        *,
        default_ttl: float = 3600.0,
        max_size: int | None = 1000,
        clock: Callable[[], float] = time.monotonic,
        on_evict: Callable[[K, V, EvictReason], object] | None = None,
        executor: Executor | None = None,
    ) -> None:
        _check_int("num_shards", num_shards, "an int")
        if num_shards < 1:
            raise ValueError(f"num_shards must be at least 1, not {num_shards!r}")
        sizes = _shares(max_size, num_shards)
        # Never changes, and the shards have locks of their own: so none is needed here.
        self._shards = tuple(
            TTLCache[K, V](default_ttl, size, clock=clock, on_evict=on_evict, executor=executor)
            for size in sizes
        )

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: T) -> V | T: ...
    def get(self, key: K, default: T | None = None) -> V | T | None:
        """Return the value of `key`, or else `default`, as `TTLCache.get` does.

        Raises:
            TypeError: `key` is not hashable.

        Cost: constant; the choice of the shard on top of `TTLCache.get`.
        """
        return self._shard(key).get(key, default)

    def set(self, key: K, value: V, ttl: float | None = None) -> None:
        """Store `value` under `key`, as `TTLCache.set` does; room is made in the key's shard.

        Args:
            key: anything hashable.
            value: anything.
            ttl: seconds that it lives, above zero; None is for `default_ttl`.

        Raises:
            TypeError: `key` is not hashable, or `ttl` is not a number.
            ValueError: `ttl` is not above zero.

        Cost: constant; logarithmic in the number of different `ttl` in use (amortised).
        """
        self._shard(key).set(key, value, ttl)

    def delete(self, key: K) -> bool:
        """Remove `key`; return whether it was there, as `TTLCache.delete` does.

        Raises:
            TypeError: `key` is not hashable.

        Cost: constant.
        """
        return self._shard(key).delete(key)

    def clear(self) -> None:
        """Remove, from one shard after the other, every entry that was there at the call.

        An entry that another thread stores meanwhile may stay. Loads that were under way at the
        call will not be stored.

        Cost: linear, but only to release the entries, which needs no lock.
        """
        for shard in self._shards:
            shard.clear()

    def cleanup_expired(self) -> int:
        """Remove the expired entries of all shards; return how many this call removed.

        Cost: constant for each shard and for each entry removed.
        """
        return sum(shard.cleanup_expired() for shard in self._shards)

    def get_or_load(
        self, key: K, loader: Callable[[], V], ttl: float | None = None, *, stale: float = 0.0
    ) -> V:
        """Return the value of `key`; if there is none, load and store it, once for all who ask.

        As `TTLCache.get_or_load` does; that a load would wait for itself is noticed across the
        shards, too.

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
        return self._shard(key).get_or_load(key, loader, ttl, stale=stale)

    def keys(self) -> list[K]:
        """Return the live keys, shard by shard; in each, the least recently used first.

        No key is there twice; each that is live throughout the call is there.

        Cost: linear, under one shard's lock at a time.
        """
        return [key for shard in self._shards for key in shard.keys()]  # noqa: SIM118 - no dict

    def items(self) -> list[tuple[K, V]]:
        """Return the live keys and values, in the order of `keys`.

        Cost: linear, under one shard's lock at a time.
        """
        return [item for shard in self._shards for item in shard.items()]

    @property
    def stats(self) -> CacheStats:
        """The sums of the shards' counts. Cost: constant for each shard."""
        each = [shard.stats for shard in self._shards]
        return CacheStats(
            hits=sum(stats.hits for stats in each),
            misses=sum(stats.misses for stats in each),
            evictions=sum(stats.evictions for stats in each),
            expirations=sum(stats.expirations for stats in each),
            loads=sum(stats.loads for stats in each),
            load_failures=sum(stats.load_failures for stats in each),
        )

    @property
    def size(self) -> int:
        """The sum of the shards' sizes. Cost: constant for each shard (amortised)."""
        return sum(shard.size for shard in self._shards)

    def __len__(self) -> int:
        return self.size

    def __contains__(self, key: K) -> bool:
        return key in self._shard(key)

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse copy.copy, copy.deepcopy and pickle."""
        raise TypeError(
            f"{type(self).__name__} cannot be copied or pickled: make a new one, and set in it "
            "what items() returns"
        )

    def _shard(self, key: K) -> TTLCache[K, V]:
        # Equal keys have equal hashes, and so have the pairs. The hash of an int is the int: by
        # its remainder, multiples of num_shards would share one shard. A pair's hash multiplies
        # and rotates that of its key, twice and by fixed numbers; then the upper bits, which
        # depend on all others, say how far along the shards it is.
        try:
            mixed = hash((key, 0)) & _MASK
        except TypeError as error:
            hint = f"key must be hashable, such as a str or a tuple, not {key!r}"
            raise TypeError(hint) from error
        return self._shards[mixed * len(self._shards) >> _WIDTH]


def _shares(max_size: int | None, num_shards: int) -> list[int | None]:
    """The shards' bounds, which add up to `max_size`; the first ones take the remainder."""
    if max_size is None:
        return [None] * num_shards
    _check_int("max_size", max_size, "an int or None")
    if max_size < num_shards:
        raise ValueError(
            f"max_size must be at least num_shards, one entry for each, not {max_size!r} with "
            f"num_shards {num_shards!r}: raise max_size, or take fewer shards"
        )
    share, remainder = divmod(max_size, num_shards)
    return [share + (number < remainder) for number in range(num_shards)]


def _check_int(name: str, value: object, kind: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be {kind}, not {value!r}")
