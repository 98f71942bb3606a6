"""ShardedCache under every schedule of two threads, on one shard and on several."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import detangle
import pytest
from detangle.lin import Model, Operation

from reference_impl.caches import sharded_cache
from tests.caches.test_sharded_cache import broken, home, in_each, with_shards
from tests.interleavings.test_ttl_cache import NO_LOCK, together
from tests.kit.explore import Interleavings

pytest.importorskip("interleave_test", reason="needs Python >= 3.12")

Check = Callable[[ModuleType], None]


def cache_of(module: ModuleType, shards: int = 2, **arguments: Any) -> Any:
    """A cache whose clock stands still, so that the schedule decides everything."""
    return module.ShardedCache(shards, default_ttl=10.0, clock=lambda: 1.0, **arguments)


def keys_of(cache: Any, *shards: int) -> list[int]:
    """A key for each of the shards named, all different."""
    found: list[int] = []
    for shard in shards:
        keys = (key for key in range(1_000) if home(cache, key) == shard and key not in found)
        found.append(next(keys))
    return found


# ---- one key, one shard, two shards ------------------------------------------------------


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


def check_linearizable(module: ModuleType, shards: tuple[int, int]) -> None:
    """Two clients, whose keys live in the shards given; each shard has room for one entry."""
    cache, history = cache_of(module, max_size=2), detangle.History()
    a, b = keys_of(cache, *shards)
    clients: list[list[tuple[str, int, int, int | None]]] = [
        [("delete", shards[0], a, None), ("get", shards[1], b, None)],
        [("set", shards[1], b, 2), ("get", shards[0], a, None)],
        [("set", shards[0], a, 1)],
    ]
    calls: dict[str, Callable[..., object]] = {
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


def check_one_shard_is_linearizable(module: ModuleType) -> None:
    check_linearizable(module, (0, 0))


def check_two_shards_are_linearizable(module: ModuleType) -> None:
    check_linearizable(module, (0, 1))


def check_nobody_sees_one_too_many(module: ModuleType) -> None:
    cache = cache_of(module, max_size=2)
    a, b = keys_of(cache, 0, 0)
    cache.set(a, 1)
    _, seen = together(lambda: cache.set(b, 2), cache.keys)
    assert seen in ([a], [b])


# ---- all shards at once ------------------------------------------------------------------


def check_what_stays_is_seen_once(module: ModuleType) -> None:
    """While others come and go, in all shards: an entry that stays is there, and once."""
    cache = cache_of(module, max_size=None)
    stays, leaves, comes = keys_of(cache, 0, 0, 1)
    for key in (stays, leaves):
        cache.set(key, key)
    _, seen = together(lambda: (cache.delete(leaves), cache.set(comes, comes)), cache.keys)
    assert seen.count(stays) == 1
    assert len(set(seen)) == len(seen)
    assert set(seen) <= {stays, leaves, comes}


def check_no_call_is_counted_twice_or_lost(module: ModuleType) -> None:
    cache = cache_of(module, max_size=None)
    a, b = in_each(cache)
    cache.set(a, 1)
    _, during = together(lambda: (cache.get(a), cache.get(b)), lambda: (cache.get(a), cache.stats))
    assert 1 <= during[1].hits <= 2
    assert during[1].misses <= 1
    assert (cache.stats.hits, cache.stats.misses) == (2, 1)


def check_clear_removes_what_was_there(module: ModuleType) -> None:
    cache = cache_of(module, max_size=None)
    a, b = in_each(cache)
    cache.set(a, "old")
    cache.set(b, "old")
    together(cache.clear, lambda: cache.set(a, "new"))
    assert b not in cache
    assert cache.get(a, "new") == "new"


# ---- loads -------------------------------------------------------------------------------


def check_loaded_once(module: ModuleType) -> None:
    cache, calls = cache_of(module), list[object]()
    (key,) = keys_of(cache, 1)

    def load() -> object:
        calls.append(object())
        return calls[-1]

    results = together(*[lambda: cache.get_or_load(key, load)] * 2)
    assert len(calls) == 1
    assert results == [calls[0]] * 2


def check_crossing_loads_end(module: ModuleType) -> None:
    """Two loaders in different shards, each asking for the other's key."""
    cache = cache_of(module)
    a, b = in_each(cache)

    def load(key: int, other: int) -> object:
        return cache.get_or_load(key, lambda: cache.get_or_load(other, lambda: "inner"))

    results = together(lambda: load(a, b), lambda: load(b, a))
    assert all(result == "inner" or isinstance(result, RuntimeError) for result in results)
    assert not any(shard._loads for shard in cache._shards)


def check_clear_wins_over_a_load(module: ModuleType) -> None:
    cache, version = cache_of(module), ["old"]
    _, key = in_each(cache)

    def change() -> None:
        version[0] = "new"
        cache.clear()

    together(lambda: cache.get_or_load(key, lambda: version[0]), change)
    assert cache.get(key, "new") == "new"


LOAD = "return self._shard(key).get_or_load(key, loader, ttl)"
CHECK_THEN_ACT = (
    LOAD,
    "if key not in self:\n            self.set(key, loader(), ttl)\n"
    "        return self._shard(key)._entries[key][0]",
)
KEYS = "[key for shard in self._shards for key in shard.keys()]"
CHECKS: list[tuple[str, Check, Callable[[], ModuleType], str | None]] = [
    (
        "SC-4",
        check_one_shard_is_linearizable,
        lambda: with_shards(*NO_LOCK),
        "One shard and no lock: sharding does not replace it",
    ),
    (  # the shard is chosen by who comes first, not by the key
        "SC-1",
        check_two_shards_are_linearizable,
        lambda: broken(
            (
                "return self._shards[mixed * len(self._shards) >> _WIDTH]",
                "self.turn = turn = getattr(self, 'turn', 0) + 1\n"
                "        return self._shards[turn % len(self._shards)]",
            )
        ),
        None,
    ),
    (
        "SC-2",
        check_nobody_sees_one_too_many,
        lambda: with_shards(
            (
                "        while len(entries)",
                "        self._lock.release(), self._lock.acquire()\n        while len(entries)",
            )
        ),
        None,
    ),
    (  # two walks, for a list that shows what came meanwhile
        "SC-3",
        check_what_stays_is_seen_once,
        lambda: broken((f"return {KEYS}", f"return {KEYS} + {KEYS}[len(self):]")),
        None,
    ),
    (
        "SC-3",
        check_no_call_is_counted_twice_or_lost,
        lambda: with_shards(*NO_LOCK),
        None,
    ),
    (  # new shards in place of a clearing: who has found the old one stores there
        "SC-3",
        check_clear_removes_what_was_there,
        lambda: broken(
            (
                "for shard in self._shards:\n            shard.clear()",
                "for key in self._shards[0].keys():\n            self.delete(key)",
            )
        ),
        None,
    ),
    (
        "SC-4",
        check_loaded_once,
        lambda: broken(CHECK_THEN_ACT),
        "Look, then load, then set: each step has its lock, and two threads load",
    ),
    (
        "SC-4",
        check_crossing_loads_end,
        lambda: with_shards(("if load in blocked:", "if load in chain:")),
        "Two loaders in different shards that wait for each other",
    ),
    (
        "SC-4",
        check_clear_wins_over_a_load,
        lambda: with_shards(("{}, [], {}", "{}, [], self._loads")),
        None,
    ),
    (  # the keys that are seen are deleted, and a load that is under way is not among them
        "SC-3",
        check_clear_wins_over_a_load,
        lambda: broken(
            (
                "for shard in self._shards:\n            shard.clear()",
                "for key in self.keys():\n            self.delete(key)",
            )
        ),
        "Clearing key by key misses a load that is under way",
    ),
]
PROVED: dict[Check, set[str]] = {}
for _identifier, _check, _make, _diagram in CHECKS:
    PROVED.setdefault(_check, set()).add(_identifier)
# These take many steps; what they do inside a shard, TTLCache's own search exhausts by opcode.
BY_LINE = {
    check_loaded_once,
    check_crossing_loads_end,
    check_clear_wins_over_a_load,
}


def granularity(check: Check) -> str:
    return "line" if check in BY_LINE else "opcode"


def name(check: object) -> str:
    return getattr(check, "__name__", "check").removeprefix("check_")


@pytest.mark.parametrize(
    "check",
    [pytest.param(c, marks=pytest.mark.guarantee(*i), id=name(c)) for c, i in PROVED.items()],
)
def test_every_schedule(check: Check, interleavings: Interleavings) -> None:
    interleavings.prove(lambda: check(sharded_cache), granularity=granularity(check))


@pytest.mark.parametrize(
    ("check", "make", "diagram"),
    [pytest.param(*c[1:], marks=pytest.mark.twin(c[0]), id=name(c[1])) for c in CHECKS],
)
def test_a_schedule_catches(
    check: Check,
    make: Callable[[], ModuleType],
    diagram: str | None,
    interleavings: Interleavings,
) -> None:
    module = make()
    failure = interleavings.catch(
        lambda: check(module), granularity=granularity(check), diagram=diagram
    )
    assert failure.kind == "deadlock" or isinstance(failure.exception, AssertionError)
