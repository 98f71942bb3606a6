"""ShardedCache against the model of TTLCache."""

from functools import partial
from types import ModuleType
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from reference_impl.caches import sharded_cache
from tests.caches.sharded_cache.helpers import COMPONENT, home
from tests.caches.sharded_cache.test_shards import sized
from tests.caches.ttl_cache import faults
from tests.caches.ttl_cache import test_model as model
from tests.caches.ttl_cache.faults import counted
from tests.contracts.cache_contract import Clock
from tests.kit.profile import budget
from tests.kit.proofs import failing
from tests.kit.twins import edit


class ShardedCaches(model.Caches):
    """The same, but that room is made, and order kept, in each shard."""

    module: ModuleType = sharded_cache

    @initialize(max_size=st.sampled_from([3, 4, 5, 7, None]), shards=st.integers(1, 3))
    def start(self, max_size: int | None, shards: int = 1) -> None:
        self.clock = Clock()
        self.cache: Any = self.module.ShardedCache(
            shards,
            default_ttl=model.DEFAULT,
            max_size=max_size,
            clock=self.clock,
            on_evict=self.on_evict,
        )
        whole = 1_000_000 if max_size is None else max_size
        self.room = [(whole + shards - 1 - n) // shards for n in range(shards)]
        self.begin(whole)

    def shard(self, entry: Any) -> int:
        return home(len(self.room), entry.key)

    def make_room(self, live: list[model.Entry], stale: list[model.Entry], room: float) -> None:
        shard = self.shard(live[-1])
        mates = [[each for each in some if self.shard(each) == shard] for some in (live, stale)]
        super().make_room(mates[0], mates[1], min(room, self.room[shard]))

    @rule()
    def views_agree(self) -> None:
        self.entries.sort(key=self.shard)  # stable
        super().views_agree()


@pytest.mark.guarantee("SC-4")
def test_the_cache_does_what_the_model_does() -> None:
    model.run_model(ShardedCaches, sharded_cache, max_examples=budget(60, 300))


differs = partial(model.differs, machine=ShardedCaches)
DIFFERENT = [
    differs("SC-2", "rounds the shares down", sized(lambda size, n: size and size - size % n)),
    differs(
        "SC-3", "counts one shard", edit("ShardedCache.size", "self._shards", "self._shards[:1]")
    ),
    differs("SC-3", "counts no eviction", counted("ShardedCache.stats", evictions=lambda _: 0)),
    differs(
        "SC-4",
        "deletes in one shard",
        edit("ShardedCache.delete", "self._shard(key)", "self._shards[0]"),
    ),
    differs("SC-4", *faults.ignores_the_ttl("ShardedCache")),
    differs("SC-4", *faults.looks_by_get("ShardedCache")),
]

test_a_broken_cache_differs_from_the_model = failing(DIFFERENT, COMPONENT)
