"""What TTLCache promises holds in each shard of a ShardedCache: SC-4."""

import asyncio
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from reference_impl.caches import sharded_cache
from tests.caches.sharded_cache.helpers import (
    COMPONENT,
    FourShardsCases,
    OneShardCases,
    as_ttl_cache,
    in_one_shard,
    in_shards,
    one_in_each,
)
from tests.caches.ttl_cache import faults, test_cost
from tests.caches.ttl_cache.faults import impatient
from tests.caches.ttl_cache.helpers import proves, steps
from tests.caches.ttl_cache.interrupted import CALLS, happens_or_not
from tests.caches.ttl_cache.interrupted import LOADS as INTERRUPTED_LOADS
from tests.caches.ttl_cache.test_circles import run
from tests.caches.ttl_cache.test_leaving import LEAVING
from tests.caches.ttl_cache.test_loads import CIRCLES, LOADS, check_two_loads_that_cross
from tests.caches.ttl_cache.test_promises import check_a_clock_that_steps_back_does_no_harm
from tests.caches.ttl_cache.test_stale import STALE
from tests.contracts import cache_contract as contract
from tests.contracts.cache_contract import case
from tests.kit.interrupts import Interrupts
from tests.kit.proofs import Proof, each_proof, failing, holding
from tests.kit.twins import override


@pytest.mark.guarantee("SC-4")
class TestOneShard(
    OneShardCases,
    contract.ExpiryCases,
    contract.BoundCases,
    contract.EvictionCases,
    contract.StatsCases,
    contract.LoadingCases,
    contract.InvalidationCases,
    contract.NoneCases,
    contract.LeavingCases,
): ...


@pytest.mark.guarantee("SC-4")
class TestAllShards(
    FourShardsCases,
    contract.ExpiryCases,
    contract.StatsCases,
    contract.LoadingCases,
    contract.InvalidationCases,
    contract.NoneCases,
    contract.LeavingCases,
):
    """All cases but those that look at the order of use."""


# TTLCache's own checks of several threads, of circles, what leaves and is stale, time and cost.
ONE_SHARD = [
    replace(proof, guarantee="SC-4", twins=[]) for proof in LOADS + CIRCLES + LEAVING + STALE
] + [
    proves("SC-4", check)
    for check in (
        check_a_clock_that_steps_back_does_no_harm,
        test_cost.check_many_times_to_live_leave_nothing_behind,
        test_cost.check_sets_work_off_a_backlog,
        test_cost.check_a_failed_load_leaves_no_cycle,
    )
]


@each_proof(ONE_SHARD)
def test_one_shard_is_a_ttl_cache(proof: Proof) -> None:
    with as_ttl_cache(sharded_cache) as of_shards:
        proof.hold(of_shards)


@pytest.mark.guarantee("SC-4")
@pytest.mark.parametrize("how", test_cost.DROPS)
def test_what_is_dropped_is_released_outside_the_lock(how: str) -> None:
    with as_ttl_cache(sharded_cache) as of_shards:
        test_cost.check_what_is_dropped_is_released_outside_the_lock(of_shards, how)


def check_the_cost_does_not_grow(m: ModuleType) -> None:
    """Steps of ShardedCache itself: by the number of shards only, not by that of entries."""

    def costs(entries: int) -> list[int]:
        cache = m.ShardedCache(16, max_size=None)
        for number in range(entries):
            cache.set(number, number)
        return [
            steps(m, action)
            for action in (
                lambda: cache.get(1),
                lambda: cache.set(1, 2),
                lambda: cache.delete(1),
                lambda: cache.get_or_load(1, lambda: 2),
                lambda: 1 in cache,
                lambda: len(cache),
                lambda: cache.stats,
                lambda: cache.cleanup_expired(),
            )
        ]

    assert costs(100) == costs(5_000)


def check_loads_across_shards(m: ModuleType) -> None:
    """A circle through three shards of one cache is noticed; a chain is none."""
    cache = m.ShardedCache(4, max_size=None)
    a, b, c, _ = one_in_each(4)
    load = cache.get_or_load
    with pytest.raises(RuntimeError, match=f"the load of {a} would wait for itself"):
        load(a, lambda: load(b, lambda: load(c, lambda: load(a, lambda: 1))))
    assert (cache.stats.load_failures, len(cache)) == (3, 0)
    assert load(a, lambda: load(b, lambda: load(c, lambda: 1))) == 1
    assert (cache.stats.loads, len(cache)) == (3, 3)


def check_a_circle_through_another_cache_and_a_loop(m: ModuleType) -> None:
    sharded, single = m.ShardedCache(4), m.TTLCache()

    def through_a_loop() -> Any:
        return run(lambda: asyncio.to_thread(single.get_or_load, "b", back))

    def back() -> Any:
        return sharded.get_or_load("a", lambda: "never")

    with pytest.raises(RuntimeError, match="'a' would wait for itself"):
        sharded.get_or_load("a", through_a_loop)
    assert sharded.get_or_load("a", lambda: "after") == "after"


SHARDS = [
    proves("SC-4", check_a_circle_through_another_cache_and_a_loop),
    proves(
        "SC-4",
        check_the_cost_does_not_grow,
        "counts its keys to tell its size",
        override("ShardedCache.size", lambda _: property(lambda cache: len(cache.keys()))),
        "AssertionError: assert costs(100) == costs(5_000)",
    ),
    proves(
        "SC-4",
        check_loads_across_shards,
        *in_shards(faults.sees_no_circle(), impatient),
        "AssertionError: it hangs",
    ),
]
WRONG = [
    proves(
        "SC-4",
        in_one_shard(check_two_loads_that_cross),
        *in_shards(faults.sees_its_own_circles(), impatient),
        "AssertionError: it hangs",
    ),
    proves(
        "SC-4",
        case(TestOneShard, "the_bound_is_kept"),
        *in_shards(faults.has_room_for_one_more()),
        "AssertionError: assert len(cache) == len(cache.keys()) <= 3",
    ),
    proves(
        "SC-4",
        case(TestOneShard, "the_least_recently_used_entry_makes_room_not_the_oldest_write"),
        *faults.does_not_refresh("ShardedCache"),
        'AssertionError: assert cache.keys() == ["read", "new"]',
    ),
    proves(
        "SC-4",
        case(TestOneShard, "a_clear_during_the_load_stays"),
        *faults.clears_what_it_sees("ShardedCache"),
        'AssertionError: assert "key" not in cache',
    ),
    proves(
        "SC-4",
        case(TestAllShards, "none_is_stored_found_and_counted"),
        *faults.takes_none_for_absence("ShardedCache"),
        'AssertionError: assert cache.get("key", "default") is None',
    ),
]

test_shards = holding(SHARDS, sharded_cache)
test_a_broken_shard_is_noticed = failing(SHARDS + WRONG, COMPONENT)


# A signal handler that raises. With one shard, all that TTLCache promises of it holds here.

one_shard = partial(sharded_cache.ShardedCache, 1)


@pytest.mark.guarantee("SC-4")
@pytest.mark.parametrize("name", ["get a hit", "set where it is full", "delete", "clear"])
def test_an_interrupted_call_happens_or_not(name: str, interrupts: Interrupts) -> None:
    assert name in CALLS
    interrupts.prove(*happens_or_not(one_shard, name, str))


@pytest.mark.guarantee("SC-4")
@pytest.mark.parametrize("name", INTERRUPTED_LOADS)
def test_an_interrupted_load_strands_nobody(name: str, interrupts: Interrupts) -> None:
    _, prepare, call, check = INTERRUPTED_LOADS[name]
    interrupts.prove(partial(prepare, one_shard, str), call, check)
