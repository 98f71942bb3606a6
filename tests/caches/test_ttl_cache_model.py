"""TTLCache against a plain model: a list of entries, looked through from end to end."""

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
from tests.contracts.cache_contract import Clock
from tests.kit.twins import twin

KEYS = st.integers(0, 7)
VALUES = st.none() | st.integers()
TTLS = st.sampled_from([None, 1.0, 2.0, 3, 5.0, 8.0, math.inf])
DEFAULT = 4.0


@dataclass
class Entry:
    """One entry of the model; the list that holds it is ordered by use."""

    key: int
    value: int | None
    deadline: float


class Caches(RuleBasedStateMachine):
    """The real cache and the model get the same calls and must give the same answers.

    The model removes an expired entry when time passes, the cache when it comes across it: so
    the number of expirations is compared after a call that sweeps.
    """

    module: ModuleType = ttl_cache

    @initialize(max_size=st.sampled_from([1, 2, 3, 5, None]))
    def start(self, max_size: int | None) -> None:
        self.clock = Clock()
        self.cache = self.module.TTLCache(DEFAULT, max_size, clock=self.clock)
        self.max_size = math.inf if max_size is None else max_size
        self.entries: list[Entry] = []
        self.hits = self.misses = self.evictions = self.expirations = 0
        self.loads = self.failures = 0

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

    def store(self, key: int, value: int | None, ttl: float | None) -> None:
        if (old := self.find(key)) is not None:
            self.entries.remove(old)
        deadline = self.clock.now + (DEFAULT if ttl is None else ttl)
        self.entries.append(Entry(key, value, deadline))
        if len(self.entries) > self.max_size:
            del self.entries[0]
            self.evictions += 1

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.tick(seconds)
        live = [entry for entry in self.entries if entry.deadline > self.clock.now]
        self.expirations += len(self.entries) - len(live)
        self.entries = live

    @rule(key=KEYS)
    def get(self, key: int) -> None:
        entry = self.look_up(key)
        assert self.cache.get(key, "absent") == ("absent" if entry is None else entry.value)

    @rule(key=KEYS, value=VALUES, ttl=TTLS)
    def set(self, key: int, value: int | None, ttl: float | None) -> None:
        self.store(key, value, ttl)
        self.cache.set(key, value, ttl)

    @rule(key=KEYS, value=VALUES, ttl=TTLS)
    def get_or_load(self, key: int, value: int | None, ttl: float | None) -> None:
        entry = self.look_up(key)
        expected = value if entry is None else entry.value
        if entry is None:
            self.loads += 1
            self.store(key, value, ttl)
        assert self.cache.get_or_load(key, lambda: value, ttl) == expected

    @rule(key=KEYS)
    def fail_to_load(self, key: int) -> None:
        if self.look_up(key) is not None:
            assert self.cache.get_or_load(key, lambda: 1 // 0) == self.entries[-1].value
        else:
            self.failures += 1
            with pytest.raises(ZeroDivisionError):
                self.cache.get_or_load(key, lambda: 1 // 0)

    @rule(key=KEYS, value=VALUES)
    def load_is_outdated(self, key: int, value: int | None) -> None:
        entry = self.look_up(key)

        def load() -> int | None:
            self.cache.set(key, value)
            self.cache.delete(key)
            return value

        if entry is None:
            self.loads += 1
            self.store(key, value, None)
            del self.entries[-1]
        self.cache.get_or_load(key, load)

    @rule(key=KEYS)
    def delete(self, key: int) -> None:
        entry = self.find(key)
        if entry is not None:
            self.entries.remove(entry)
        assert self.cache.delete(key) == (entry is not None)

    @rule(key=KEYS)
    def contains(self, key: int) -> None:
        assert (key in self.cache) == (self.find(key) is not None)

    @rule()
    def clear(self) -> None:
        self.entries = []
        self.cache.clear()

    @rule()
    def clean_up(self) -> None:
        assert self.cache.cleanup_expired() >= 0
        assert self.cache.cleanup_expired() == 0

    @rule()
    def views_agree(self) -> None:
        pairs = [(entry.key, entry.value) for entry in self.entries]
        assert self.cache.items() == pairs
        assert self.cache.keys() == [key for key, _ in pairs]
        assert self.cache.size == len(self.cache) == len(pairs)
        stats = self.cache.stats
        assert stats.expirations == self.expirations
        assert stats.evictions == self.evictions

    @invariant()
    def counters_agree(self) -> None:
        if hasattr(self, "cache"):
            stats = self.cache.stats
            assert (stats.hits, stats.misses) == (self.hits, self.misses)
            assert (stats.loads, stats.load_failures) == (self.loads, self.failures)
            assert len(self.cache._entries) <= self.max_size

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            self.views_agree()


def run(module: ModuleType, **options: Any) -> None:
    machine = type("Machine", (Caches,), {"module": module})
    chosen = settings(stateful_step_count=40, database=None, **options)
    run_state_machine_as_test(machine, settings=chosen)


@pytest.mark.guarantee("TC-2", "TC-3", "TC-4", "TC-5", "TC-7", "TC-10")
def test_the_cache_does_what_the_model_does() -> None:
    run(ttl_cache, max_examples=100)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(
            "if self._heap[0][0] <= now:", "if False:", marks=pytest.mark.twin("TC-4", "TC-5")
        ),
        pytest.param(
            "                self._entries.move_to_end(key)\n",
            "",
            marks=pytest.mark.twin("TC-4"),
        ),
        pytest.param(
            "deadline = self._latest + ttl",
            "deadline = self._latest + self._default_ttl",
            marks=pytest.mark.twin("TC-2"),
        ),
        pytest.param(
            "heapq.heapreplace(self._heap, (entry[1], ttl))",
            "heapq.heapreplace(self._heap, (entry[1] + 100, ttl))",
            marks=pytest.mark.twin("TC-2"),
        ),
        pytest.param("        self._expirations += expired\n", "", marks=pytest.mark.twin("TC-5")),
        pytest.param("> self._max_size:", "> self._max_size + 1:", marks=pytest.mark.twin("TC-3")),
        pytest.param(
            "if self._loads.get(key) is load:",
            "self._loads[key] = load\n                if True:",
            marks=pytest.mark.twin("TC-7"),
        ),
        pytest.param(
            "found = entry[0]",
            "found = default if entry[0] is None else entry[0]",
            marks=pytest.mark.twin("TC-10"),
        ),
    ],
)
def test_a_broken_cache_differs_from_the_model(old: str, new: str) -> None:
    module = twin("caches/ttl_cache.py", (old, new))
    with pytest.raises((AssertionError, KeyError, ExceptionGroup)):
        run(module, max_examples=500, derandomize=True, phases=(Phase.generate,))
