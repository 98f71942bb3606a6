"""AsyncTTLCache tells `on_evict` of each entry that leaves, in the step that removes it."""

import asyncio
import functools
import weakref
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

import pytest

import reference_impl.caches.async_ttl_cache as ours
from tests.caches.async_ttl_cache import faults
from tests.caches.async_ttl_cache.helpers import (
    COMPONENT,
    Loader,
    ask,
    holding,
    load_42,
    logged,
    no_collector,
    says,
    step,
    virtual,
)
from tests.kit.fakes import Clock, turns
from tests.kit.proofs import Proof, failing
from tests.kit.twins import Twin

Left = tuple[str, object, str]


def recording(m: ModuleType, max_size: int | None = 2) -> tuple[Any, Clock, list[Left]]:
    """A cache whose entries live for 10 seconds, its clock, and what left it."""
    clock, left = Clock(), list[Left]()
    cache = m.AsyncTTLCache(10.0, max_size, clock=clock, on_evict=lambda *each: left.append(each))
    return cache, clock, left


@virtual
async def check_the_clean_up_in_the_background_tells_too(m: ModuleType) -> None:
    loop, left = asyncio.get_running_loop(), list[Left]()
    cache = m.AsyncTTLCache(
        10.0, clock=loop.time, cleanup_interval=4.0, on_evict=lambda *each: left.append(each)
    )
    async with cache:
        await cache.set("key", 1)
        await asyncio.sleep(100.0)
        assert left == [("key", 1, "expired")]


async def check_a_value_that_was_loaded_makes_room_in_the_same_way(m: ModuleType) -> None:
    cache, _, left = recording(m, 1)
    loader = Loader()
    await cache.set("old", 1)
    callers = ask(cache, loader, 2)
    await turns()
    assert left == []
    loader.gate.set_result("new")
    assert await asyncio.gather(*callers) == ["new"] * 2
    assert left == [("old", 1, "evicted")]


async def check_it_is_told_in_the_step_that_removes_when_all_is_done(m: ModuleType) -> None:
    """It may use the plain methods, which see the cache without the entry."""
    seen = list[object]()
    cache: Any = m.AsyncTTLCache(
        10.0, 2, on_evict=lambda key, *_: seen.append((key in cache, len(cache), len(seen)))
    )
    for number in range(3):
        step(cache.set(number, number))
    step(cache.set(2, "again"))
    step(cache.delete(1))
    step(cache.clear())
    assert seen == [(False, 2, 0), (True, 2, 1), (False, 1, 2), (False, 0, 3)], "not in its step"


async def check_all_may_expire_while_it_is_told(m: ModuleType) -> None:
    """It takes its time, and looks at the cache."""
    sizes, clock = list[int](), Clock()

    def look_later(*_: object) -> None:
        clock.tick(1_000.0)
        sizes.append(len(cache))

    cache: Any = m.AsyncTTLCache(10.0, 2, clock=clock, on_evict=look_later)
    async with cache:
        await cache.set("key", 1)
        await cache.set("key", 2)
        await cache.set("other", 3)
        await cache.delete("other")
        assert await cache.get_or_load("key", load_42) == 42
    assert sizes[:1] == [0]
    assert len(cache) == 0 or await cache.get("key") == 42


async def check_a_task_that_it_starts_may_use_the_cache(m: ModuleType) -> None:
    tasks = list[asyncio.Task[Any]]()

    def archive(key: str, value: object, reason: str) -> None:
        if reason == "deleted":
            tasks.append(asyncio.create_task(cache.set(key, value)))

    cache: Any = m.AsyncTTLCache(10.0, 2, on_evict=archive)
    await cache.set("key", 1)
    await cache.delete("key")
    await tasks[0]
    assert await cache.get("key") == 1


async def check_what_it_raises_is_logged_and_changes_nothing(m: ModuleType) -> None:
    def fail(*_: object) -> None:
        raise OSError("the archive is full")

    clock = Clock()
    cache = m.AsyncTTLCache(10.0, 2, clock=clock, on_evict=fail)
    with logged() as records:
        for number in range(4):
            await cache.set(number, number)
        await cache.set(3, "again")
        assert await cache.delete(3) is True
        assert await cache.items() == [(2, 2)]
        assert await asyncio.gather(*ask(cache, load_42, 2, "a"), *ask(cache, load_42, 2, "b")) == (
            [42] * 4
        )
        clock.tick(10.0)
        assert await cache.cleanup_expired() == 2
        await cache.set("last", 1)
        await cache.clear()
    told = [record.exc_info[1] for record in records if record.exc_info]
    assert [str(error) for error in told] == ["the archive is full"] * 8
    assert (cache.stats.evictions, cache.stats.expirations, cache.size) == (3, 2, 0)


class Value: ...


async def check_what_has_left_is_released_before_the_call_returns(m: ModuleType) -> None:
    cache = m.AsyncTTLCache(10.0, 1, on_evict=lambda *_: None)
    with no_collector():
        for call in (
            lambda: cache.set("key", 1),
            lambda: cache.set("other", 1),
            lambda: cache.delete("key"),
            cache.clear,
        ):
            await cache.clear()
            await cache.set("key", value := Value())
            reference = weakref.ref(value)
            del value
            await call()
            assert reference() is None


TWICE = faults.telling(lambda tell, *left: (tell(*left), tell(*left)))
LATER = faults.telling(lambda tell, *left: asyncio.get_running_loop().call_soon(tell, *left))
NOT_EXPIRED = faults.telling(lambda tell, *left: left[2] == "expired" or tell(*left))
KEPT = faults.telling(lambda tell, *left, kept=[]: (kept.append(left), tell(*left)))
EVICTION = [
    Proof(
        "AC-6",
        check_the_clean_up_in_the_background_tells_too,
        [says("tells of no expired entry", NOT_EXPIRED, 'left == [("key", 1, "expired")]')],
    ),
    Proof(
        "AC-6",
        check_a_value_that_was_loaded_makes_room_in_the_same_way,
        [says("tells twice", TWICE, 'left == [("old", 1, "evicted")]')],
    ),
    Proof(
        "AC-6",
        check_it_is_told_in_the_step_that_removes_when_all_is_done,
        [says("tells in a later step", LATER, "not in its step")],
    ),
    Proof("AC-6", check_a_task_that_it_starts_may_use_the_cache),
    Proof("AC-6", check_all_may_expire_while_it_is_told),
    Proof(
        "AC-6",
        check_what_it_raises_is_logged_and_changes_nothing,
        [Twin("lets its errors out", faults.raises_what_it_raises, "OSError: archive is full")],
    ),
    Proof(
        "AC-6",
        check_what_has_left_is_released_before_the_call_returns,
        [says("keeps what has left", KEPT, "reference() is None")],
    ),
]

test_eviction = holding(EVICTION)
test_eviction_catches = failing(EVICTION, COMPONENT)


class Later:
    """Of the wrong kind, in each way in which a callable can be."""

    async def __call__(self, *_: object) -> None: ...

    async def method(self, *_: object) -> None: ...

    def generate(self, *_: object) -> Iterator[None]:
        yield

    async def generate_later(self, *_: object) -> AsyncIterator[None]:
        yield


WRONG = {
    "object": Later(),
    "method": Later().method,
    "generator": Later().generate,
    "async generator": Later().generate_later,
    "partial": functools.partial(Later().method, 1),
    "partial object": functools.partial(Later(), 1),
    "no function": "log",
}


@pytest.mark.parametrize("kind", WRONG)
def test_an_on_evict_of_the_wrong_kind_is_refused(kind: str) -> None:
    wrong: Any = WRONG[kind]
    with pytest.raises(TypeError, match=r"^on_evict must be"):
        ours.AsyncTTLCache(on_evict=wrong)
