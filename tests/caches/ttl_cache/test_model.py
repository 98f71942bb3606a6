"""TTLCache against a plain model: a list of entries, looked through from end to end."""

import gc
import logging
import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from reference_impl.caches import ttl_cache
from tests.caches.ttl_cache import faults
from tests.caches.ttl_cache.faults import counted
from tests.caches.ttl_cache.helpers import Key, proves
from tests.contracts.cache_contract import Clock
from tests.kit.profile import budget
from tests.kit.proofs import Proof, failing
from tests.kit.twins import Fault, edit

KEYS = st.integers(0, 7)
STALE_KEYS = st.integers(8, 10)  # only they are loaded with `stale`
VALUES = st.none() | st.integers()
TTLS = st.sampled_from([None, 1.0, 2.0, 3, 5.0, 8.0, math.inf])
DEFAULT = 4.0
STALE = 3.0


@dataclass
class Entry:
    """One entry of the model; the list that holds it is ordered by use."""

    key: int
    value: int | None
    deadline: float
    stale: float = 0.0


class Caches(RuleBasedStateMachine):
    """The real cache and the model get the same calls and must give the same answers.

    The model removes an expired entry when time passes, the cache when it comes across it: so
    the number of expirations is compared after a call that sweeps.
    """

    module: ModuleType = ttl_cache

    @initialize(max_size=st.sampled_from([1, 2, 3, 5, None]))
    def start(self, max_size: int | None) -> None:
        self.clock = Clock()
        self.cache = self.module.TTLCache(
            DEFAULT, max_size, clock=self.clock, on_evict=self.on_evict
        )
        self.begin(math.inf if max_size is None else max_size)

    def begin(self, max_size: float) -> None:
        self.max_size = max_size
        self.entries: list[Entry] = []
        self.stale: list[Entry] = []  # past their life, but not yet their end
        self.left: list[tuple[int, int | None, str]] = []
        self.told: list[tuple[int, int | None, str]] = []
        self.hits = self.misses = self.evictions = self.expirations = 0
        self.loads = self.failures = 0
        self.held: list[int] = []  # the numbers of the keys that are alive

    def on_evict(self, key: Key, value: int | None, reason: str) -> None:
        self.told.append((key.number, value, reason))

    def leaves(self, entry: Entry, reason: str) -> None:
        (self.stale if entry in self.stale else self.entries).remove(entry)
        self.left.append((entry.key, entry.value, reason))
        self.expirations += reason == "expired"
        self.evictions += reason == "evicted"

    def key(self, number: int) -> Key:
        return Key(number, self.held)

    def find(self, key: int) -> Entry | None:
        return next((entry for entry in self.entries if entry.key == key), None)

    def look_up(self, key: int) -> Entry | None:
        entry = self.find(key)
        if entry is None:
            self.misses += 1
        else:
            self.hits += 1
            self.entries.remove(entry)
            self.entries.append(entry)
        return entry

    def find_stale(self, key: int) -> Entry | None:
        return next((entry for entry in self.stale if entry.key == key), None)

    def store(
        self, key: int, value: int | None, ttl: float | None = None, stale: float = 0.0
    ) -> None:
        self.forget(key, "replaced")
        deadline = self.clock.now + (DEFAULT if ttl is None else ttl)
        self.entries.append(Entry(key, value, deadline, stale))
        self.make_room(self.entries, self.stale, self.max_size)

    def forget(self, key: int, reason: str) -> None:
        if (old := self.find(key)) is not None:
            self.leaves(old, reason)
        elif (old := self.find_stale(key)) is not None:
            self.leaves(old, "expired")

    def make_room(self, live: list[Entry], stale: list[Entry], room: float) -> None:
        if len(live) + len(stale) > room:
            self.leaves((stale or live)[0], "expired" if stale else "evicted")

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.tick(seconds)
        now, live = self.clock.now, self.entries
        dead = [entry for entry in live if entry.deadline <= now]
        self.stale += sorted(dead, key=lambda entry: entry.deadline)
        self.entries = [entry for entry in live if entry not in dead]
        for entry in self.stale.copy():
            if entry.deadline + entry.stale <= now:
                self.leaves(entry, "expired")

    @rule(key=KEYS | STALE_KEYS)
    def get(self, key: int) -> None:
        entry = self.look_up(key)
        assert self.cache.get(self.key(key), "absent") == (
            "absent" if entry is None else entry.value
        )

    @rule(key=KEYS, value=VALUES, ttl=TTLS)
    def set(self, key: int, value: int | None, ttl: float | None) -> None:
        self.store(key, value, ttl)
        self.cache.set(self.key(key), value, ttl)

    @rule(key=KEYS, value=VALUES, ttl=TTLS)
    def get_or_load(self, key: int, value: int | None, ttl: float | None) -> None:
        entry = self.look_up(key)
        expected = value if entry is None else entry.value
        if entry is None:
            self.loads += 1
            self.store(key, value, ttl)
        assert self.cache.get_or_load(self.key(key), lambda: value, ttl) == expected

    @rule(key=STALE_KEYS, value=VALUES, fails=st.booleans())
    def refresh_or_load(self, key: int, value: int | None, fails: bool) -> None:
        """A load of a key without a value does not fail here."""
        before, live = self.find(key) or self.find_stale(key), self.find(key)
        expected = value if before is None else before.value

        def load() -> int | None:
            if fails and before is not None:
                raise ZeroDivisionError
            return value

        self.hits += before is not None
        self.misses += before is None
        if live is not None:
            self.entries.remove(live)
            self.entries.append(live)
        elif fails and before is not None:
            self.failures += 1
        else:
            self.loads += 1
            self.store(key, value, stale=STALE)
            expected = value
        assert self.cache.get_or_load(self.key(key), load, stale=STALE) == expected

    @rule(key=KEYS)
    def fail_to_load(self, key: int) -> None:
        if self.look_up(key) is not None:
            assert self.cache.get_or_load(self.key(key), lambda: 1 // 0) == self.entries[-1].value
        else:
            self.failures += 1
            with pytest.raises(ZeroDivisionError):
                self.cache.get_or_load(self.key(key), lambda: 1 // 0)

    @rule(key=KEYS, value=VALUES)
    def load_is_outdated(self, key: int, value: int | None) -> None:
        entry = self.look_up(key)

        def load() -> int | None:
            self.cache.set(self.key(key), value)
            self.cache.delete(self.key(key))
            return value

        if entry is None:
            self.loads += 1
            self.store(key, value)
            self.forget(key, "deleted")
        self.cache.get_or_load(self.key(key), load)

    @rule(key=KEYS | STALE_KEYS)
    def delete(self, key: int) -> None:
        live = self.find(key) is not None
        self.forget(key, "deleted")
        assert self.cache.delete(self.key(key)) == live

    @rule(key=KEYS | STALE_KEYS)
    def contains(self, key: int) -> None:
        assert (self.key(key) in self.cache) == (self.find(key) is not None)

    @rule()
    def clear(self) -> None:
        for entry in (*self.entries, *self.stale):
            self.forget(entry.key, "cleared")
        self.cache.clear()

    @rule()
    def clean_up(self) -> None:
        assert self.cache.cleanup_expired() >= 0
        assert self.cache.cleanup_expired() == 0

    @rule()
    def views_agree(self) -> None:
        pairs = [(entry.key, entry.value) for entry in self.entries]
        assert [(key.number, value) for key, value in self.cache.items()] == pairs
        assert [key.number for key in self.cache.keys()] == [key for key, _ in pairs]  # noqa: SIM118
        assert self.cache.size == len(self.cache) == len(pairs)
        stats = self.cache.stats
        assert stats.expirations == self.expirations
        assert stats.evictions == self.evictions
        assert sorted(map(repr, self.told)) == sorted(map(repr, self.left))

    @invariant()
    def counters_agree(self) -> None:
        if hasattr(self, "cache"):
            stats = self.cache.stats
            assert (stats.hits, stats.misses) == (self.hits, self.misses)
            assert (stats.loads, stats.load_failures) == (self.loads, self.failures)

    @invariant()
    def no_more_is_held(self) -> None:
        """Dead entries count as well, and what was noted of those that are gone."""
        if hasattr(self, "cache"):
            if len(self.held) > self.max_size:
                gc.collect()  # whoever measures a call that fails may leave a cycle
            assert len(self.held) <= self.max_size

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            self.views_agree()


def run_model(machine: type[Caches], m: ModuleType, **options: Any) -> None:
    """Let the model drive the module's cache."""
    chosen = settings(stateful_step_count=40, database=None, **options)
    logging.disable()  # of refreshes that fail: pytest would keep the records, and so the keys
    try:
        run_state_machine_as_test(type("Machine", (machine,), {"module": m}), settings=chosen)
    finally:
        logging.disable(logging.NOTSET)


# A fault is found each time, or never.
SEARCH: dict[str, Any] = {"derandomize": True, "phases": (Phase.generate,), "max_examples": 500}


@pytest.mark.guarantee("TC-4")
def test_the_cache_does_what_the_model_does() -> None:
    run_model(Caches, ttl_cache, max_examples=budget(60, 300))


# What is seen first depends on the calls that are drawn.
DIFFERS = tuple(
    f"AssertionError: {place}"
    for place in (
        "== pairs",
        "assert self.cache.size ==",
        "assert self.cache.get(self.key(key)",
        "assert self.cache.get_or_load(self.key(key)",
        "assert self.cache.delete(self.key(key))",
        "assert (self.key(key) in self.cache)",
        "assert stats.expirations ==",
        "assert stats.evictions ==",
        "assert (stats.hits, stats.misses) ==",
        "assert sorted(map(repr, self.told)) ==",
        "assert len(self.held) <=",
    )
)


def differs(guarantee: str, name: str, fault: Fault, machine: type[Caches] = Caches) -> Proof:
    """A twin that the model is to catch."""

    def check_the_model_agrees(m: ModuleType) -> None:
        run_model(machine, m, **SEARCH)

    return proves(guarantee, check_the_model_agrees, name, fault, DIFFERS)


DIFFERENT = [
    differs("TC-2", *faults.ignores_the_ttl()),
    differs(
        "TC-2",
        "notes the first death too late",
        edit(
            "_Store._open_line",
            "(deadline, self.serial, line)",
            "(deadline + 9, self.serial, line)",
        ),
    ),
    differs("TC-3", *faults.has_room_for_one_more()),
    differs(
        "TC-4",
        "evicts the living before the dead",
        edit("_Store.put", "self.heap and self.heap[0][0] <= now", "False"),
    ),
    differs("TC-4", *faults.does_not_refresh()),
    differs("TC-5", "counts no expiration", counted("TTLCache.stats", expirations=lambda _: 0)),
    differs("TC-7", *faults.stores_in_any_case()),
    differs("TC-10", *faults.takes_none_for_absence()),
    differs("TC-11", *faults.gives_one_reason()),
    differs("TC-12", *faults.knows_no_stale()),
]

test_a_broken_cache_differs_from_the_model = failing(DIFFERENT, "caches/ttl_cache")
