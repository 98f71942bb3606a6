"""AsyncTTLCache does each thing in one step, and without a lock."""

import ast
import asyncio
import copy
import math
import pickle
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import reference_impl.caches.async_ttl_cache as ours
from reference_impl.caches.async_ttl_cache import AsyncTTLCache
from tests.caches.async_ttl_cache import faults
from tests.caches.async_ttl_cache.helpers import (
    COMPONENT,
    holding,
    load_42,
    says,
    step,
    virtual,
)
from tests.caches.ttl_cache.helpers import Key
from tests.kit.copies import own_file
from tests.kit.fakes import Clock, run
from tests.kit.proofs import Proof, failing


async def check_calls_never_suspend(m: ModuleType) -> None:
    cache = m.AsyncTTLCache(max_size=2)
    step(cache.set("a", 1))
    assert step(cache.get("a")) == step(cache.get_async("a")) == 1
    step(cache.set_async("b", 2))
    assert step(cache.get_or_load("b", lambda: pytest.fail("it is there"))) == 2
    assert step(cache.delete("a")) is True
    step(cache.set("c", 3))
    step(cache.set("d", 4))
    assert step(cache.keys()) == ["c", "d"]
    step(cache.clear())


async def check_no_lock_is_made(m: ModuleType) -> None:
    made: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event"):
            for place in (asyncio, threading):
                patch.setattr(place, name, lambda *_, name=name: made.append(name), raising=False)
        cache = m.AsyncTTLCache()
        async with cache:
            await asyncio.gather(*(cache.get_or_load("key", load_42) for _ in range(3)))
            await cache.set("other", 1)
            await cache.clear()
    assert made == []


async def mostly_expired(m: ModuleType) -> Any:
    """A cache with a thousand expired entries and a live one."""
    clock = Clock()
    cache = m.AsyncTTLCache(10.0, None, clock=clock)
    for number in range(1000):
        await cache.set(number, number)
    await cache.set("alive", 1, math.inf)
    clock.tick(10.0)
    return cache


async def check_a_large_clean_up_lets_other_tasks_in(m: ModuleType) -> None:
    cache, counts = await mostly_expired(m), list[int]()

    async def watch() -> None:
        while True:
            counts.append(cache.stats.expirations)
            await asyncio.sleep(0)

    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0)
    assert await cache.keys() == ["alive"]
    watcher.cancel()
    assert len(counts) >= 4, "it did all in one go"
    assert all(after - before < 300 for before, after in pairwise(counts))


@virtual
async def check_a_large_clean_up_takes_no_time(m: ModuleType) -> None:
    """It gives up its turn, and does not sleep."""
    cache, loop = await mostly_expired(m), asyncio.get_running_loop()
    before = loop.time()
    assert await cache.cleanup_expired() == 1000
    assert loop.time() == before, "it slept"


async def check_a_cancelled_clear_leaves_the_live_entries(m: ModuleType) -> None:
    cache = await mostly_expired(m)
    clearing = asyncio.create_task(cache.clear())
    await asyncio.sleep(0)
    clearing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await clearing
    assert await cache.items() == [("alive", 1)]


async def check_the_cost_does_not_grow_with_the_entries(m: ModuleType) -> None:
    async def work(size: int) -> int:
        cache = m.AsyncTTLCache(10.0, size, clock=Clock())
        for number in range(size):
            await cache.set(Key(number), number)
        before = Key.work
        for number in range(size, size + 20):
            await cache.set(Key(number), number)
            await cache.get(Key(number))
            await cache.delete(Key(number - 1))
        return Key.work - before

    assert await work(5000) < 2 * await work(50)


IN_ONE_GO = says("cleans up in one go", faults.cleans_up_in_one_go, "it did all in one go")
SLEEPS = says("sleeps while it cleans up", faults.sleeps_to_clean_up, "it slept")
SEARCHES = says("looks at all keys to delete one", faults.searches_to_delete, "work(5000)")
SUSPENDS = says("suspends in set", faults.suspends_in_set, "it suspended")
LOCKS = [
    says("has a lock for tasks", faults.has_a_lock_for_tasks, "made == []"),
    says("has a lock for threads", faults.has_a_lock_for_threads, "made == []"),
]
STEPS = [
    Proof("AC-3", check_calls_never_suspend, [SUSPENDS]),
    Proof("AC-3", check_no_lock_is_made, LOCKS),
    Proof("AC-1", check_a_large_clean_up_lets_other_tasks_in, [IN_ONE_GO]),
    Proof("AC-1", check_a_large_clean_up_takes_no_time, [SLEEPS]),
    Proof("AC-1", check_a_cancelled_clear_leaves_the_live_entries),
    Proof("AC-1", check_the_cost_does_not_grow_with_the_entries, [SEARCHES]),
]

test_steps = holding(STEPS)
test_steps_catch = failing(STEPS, COMPONENT)


@pytest.mark.guarantee("AC-3")
def test_the_source_names_no_lock() -> None:
    tree = ast.parse(Path(own_file(ours)).read_text(encoding="utf-8"))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    modules = {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    assert not names & {"Lock", "RLock", "Semaphore", "Condition", "acquire", "release"}
    assert "threading" not in modules


def test_the_names_that_the_guide_used_exist() -> None:
    async def main() -> None:
        cache = AsyncTTLCache[str, int]()
        await cache.set_async("key", 1)
        assert await cache.get_async("key") == 1
        assert await cache.get_async("other", "default") == "default"

    run(main())


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_refuses_to_be_copied(copied: Callable[[object], object]) -> None:
    words = r"^AsyncTTLCache cannot be copied or pickled: "
    with pytest.raises(TypeError, match=words):
        copied(AsyncTTLCache[str, int]())
