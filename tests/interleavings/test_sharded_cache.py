"""ShardedCache under every schedule of two threads, on one shard and on several."""

from itertools import count
from types import ModuleType
from typing import Any

import detangle
import pytest
from detangle.lin import Model, Operation

from reference_impl.caches import sharded_cache
from tests.caches.sharded_cache.helpers import COMPONENT, in_each, in_shards, one_in_each
from tests.caches.sharded_cache.test_shards import hashed
from tests.caches.ttl_cache import faults
from tests.caches.ttl_cache.faults import wrapped
from tests.caches.ttl_cache.helpers import proves
from tests.interleavings.test_ttl_cache import together
from tests.kit.primitives import unlocked
from tests.kit.proofs import Proof, caught, explored
from tests.kit.twins import Twin

pytest.importorskip("interleave_test", reason="needs Python >= 3.12")


@pytest.fixture(autouse=True)
def _the_keys_of_each_shard_are_known() -> None:
    """So that no model looks for them."""
    in_each(2, 1)
    in_each(2, 2)


def cache_of(m: ModuleType, shards: int = 2, **arguments: Any) -> Any:
    """A cache whose clock stands still, so that the schedule decides everything."""
    return m.ShardedCache(shards, default_ttl=10.0, clock=lambda: 1.0, **arguments)


# One key, one shard, two shards.


class Sequential(Model):
    """Two shards of one entry each, one call at a time: the entry that each holds."""

    name = "ShardedCache, two shards of one entry"

    def init(self) -> Any:
        return (), ()

    def step(self, state: Any, op: Operation) -> tuple[bool, Any]:
        if op.f == "items":
            return op.output == [pair for entries in state for pair in entries], state
        shard, key, value = op.arg
        held = dict(state[shard])
        after = list(state)
        if op.f == "get":
            return op.output == held.get(key), state
        if op.f == "delete":
            after[shard] = () if key in held else state[shard]
            return op.output == (key in held), tuple(after)
        after[shard] = ((key, value),)
        return op.output is None, tuple(after)


def check_linearizable(m: ModuleType, shards: tuple[int, int]) -> None:
    """Two clients, whose keys live in the shards given; each shard has room for one entry."""
    cache, history = cache_of(m, max_size=2), detangle.History()
    a, b = in_each(2, 2)[shards[0]][0], in_each(2, 2)[shards[1]][1]
    clients: list[list[tuple[str, int, int, int | None]]] = [
        [("delete", shards[0], a, None), ("get", shards[1], b, None)],
        [("set", shards[1], b, 2), ("get", shards[0], a, None)],
        [("set", shards[0], a, 1)],
    ]
    calls: dict[str, Any] = {
        "get": lambda key, _: cache.get(key),
        "set": cache.set,
        "delete": lambda key, _: cache.delete(key),
    }

    def client(number: int) -> None:
        for name, shard, key, value in clients[number]:
            operation = history.invoke(number, name, (shard, key, value))
            history.ok(operation, calls[name](key, value))

    client(2)
    for error in together(lambda: client(0), lambda: client(1)):
        if error is not None:
            raise error
    last = history.invoke(2, "items", None)
    history.ok(last, cache.items())
    history.assert_linearizable(Sequential())


def check_one_shard_is_linearizable(m: ModuleType) -> None:
    check_linearizable(m, (0, 0))


def check_two_shards_are_linearizable(m: ModuleType) -> None:
    check_linearizable(m, (0, 1))


def check_nobody_sees_one_too_many(m: ModuleType) -> None:
    cache = cache_of(m, max_size=2)
    a, b = in_each(2, 2)[0]
    cache.set(a, 1)
    _, seen = together(lambda: cache.set(b, 2), cache.keys)
    assert seen in ([a], [b])


# All shards at once.


def check_what_stays_is_seen_once(m: ModuleType) -> None:
    """While others come and go, in all shards: an entry that stays is there, and once."""
    cache = cache_of(m, max_size=None)
    (stays, leaves), (comes, _) = in_each(2, 2)
    for key in (stays, leaves):
        cache.set(key, key)
    _, seen = together(lambda: (cache.delete(leaves), cache.set(comes, comes)), cache.keys)
    assert seen.count(stays) == 1
    assert len(set(seen)) == len(seen)
    assert set(seen) <= {stays, leaves, comes}


def check_no_call_is_lost(m: ModuleType) -> None:
    cache, key = cache_of(m, max_size=None), one_in_each(2)[0]
    together(*[lambda: cache.get(key)] * 2)
    assert cache.stats.misses == 2


def check_no_call_is_counted_twice(m: ModuleType) -> None:
    cache = cache_of(m, max_size=None)
    a, b = one_in_each(2)
    cache.set(a, 1)
    _, during = together(lambda: (cache.get(a), cache.get(b)), lambda: (cache.get(a), cache.stats))
    assert 1 <= during[1].hits <= 2
    assert during[1].misses <= 1
    assert (cache.stats.hits, cache.stats.misses) == (2, 1)


def check_clear_removes_what_was_there(m: ModuleType) -> None:
    cache = cache_of(m, max_size=None)
    a, b = one_in_each(2)
    cache.set(a, "old")
    cache.set(b, "old")
    together(cache.clear, lambda: cache.set(a, "new"))
    assert b not in cache
    assert cache.get(a, "new") == "new"


# Loads.


def check_loaded_once(m: ModuleType) -> None:
    cache, calls = cache_of(m), list[object]()
    _, key = one_in_each(2)

    def load() -> object:
        calls.append(object())
        return calls[-1]

    results = together(*[lambda: cache.get_or_load(key, load)] * 2)
    assert len(calls) == 1
    assert results == [calls[0]] * 2


def check_crossing_loads_end(m: ModuleType) -> None:
    """Two loaders in different shards, each asking for the other's key."""
    cache = cache_of(m)
    a, b = one_in_each(2)

    def load(key: int, other: int) -> object:
        return cache.get_or_load(key, lambda: cache.get_or_load(other, lambda: "inner"))

    results = together(lambda: load(a, b), lambda: load(b, a))
    assert all(result == "inner" or isinstance(result, RuntimeError) for result in results)
    for key in (a, b):  # no load is left that somebody could wait for
        assert cache.get_or_load(key, lambda: "after") in {"inner", "after"}


def check_clear_wins_over_a_load(m: ModuleType) -> None:
    cache, version = cache_of(m), ["old"]
    _, key = one_in_each(2)

    def change() -> None:
        version[0] = "new"
        cache.clear()

    together(lambda: cache.get_or_load(key, lambda: version[0]), change)
    assert cache.get(key, "new") == "new"


def walks_twice(keys: Any, cache: Any) -> list[Any]:
    return list(keys(cache) + keys(cache)[len(cache) :])


_turns = count()
PROOFS = [
    proves(
        "SC-4",
        check_one_shard_is_linearizable,
        *in_shards(("has no lock", unlocked())),
        ("KeyError", "AttributeError: has no attribute", "NotLinearizable: history"),
    ),
    proves(
        "SC-1",
        check_two_shards_are_linearizable,
        "gives each call the next shard",
        hashed(lambda _: next(_turns) << 63),
        "NotLinearizable: history",
    ),
    proves(
        "SC-2",
        check_nobody_sees_one_too_many,
        *in_shards(faults.makes_room_too_late()),
        "AssertionError: assert seen in ([a], [b])",
    ),
    proves(
        "SC-3",
        check_what_stays_is_seen_once,
        "looks a second time, for what came meanwhile",
        wrapped("ShardedCache.keys", walks_twice),
        "AssertionError: assert len(set(seen)) == len(seen)",
    ),
    proves(
        "SC-3",
        check_no_call_is_lost,
        *in_shards(("counts without a lock", unlocked("TTLCache.get"))),
        "AssertionError: assert cache.stats.misses == 2",
        granularity="opcode",  # by line, no count is lost
    ),
    proves("SC-3", check_no_call_is_counted_twice),
    proves(
        "SC-3",
        check_clear_removes_what_was_there,
        "clears one shard less",
        wrapped("ShardedCache.clear", lambda _, cache: cache.delete(cache.keys()[0])),
        "AssertionError: assert b not in cache",
    ),
    proves(
        "SC-4",
        check_loaded_once,
        *faults.looks_then_loads("ShardedCache"),
        "AssertionError: assert len(calls) == 1",
    ),
    proves("SC-4", check_crossing_loads_end, *in_shards(faults.sees_its_own_circles()), "deadlock"),
    Proof(
        "SC-3",
        check_clear_wins_over_a_load,
        [
            Twin(
                *faults.clears_what_it_sees("ShardedCache"),
                'AssertionError: assert cache.get(key, "new") == "new"',
            ),
            Twin(
                *in_shards(faults.clears_what_it_sees()),
                'AssertionError: assert cache.get(key, "new") == "new"',
            ),
        ],
    ),
]

test_every_schedule = explored(PROOFS, sharded_cache)
test_a_schedule_catches = caught(PROOFS, COMPONENT)
