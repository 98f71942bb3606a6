"""Circles of loads across caches of all three kinds, sync and async: RuntimeError, not a hang.

The checks take the module of the cache whose circle it is; those of AsyncTTLCache take that
one's, and find TTLCache in the module that it shares its store with.
"""

import asyncio
import contextvars
import sys
import threading
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import pytest

from reference_impl.caches import ttl_cache
from tests.caches.ttl_cache import faults
from tests.caches.ttl_cache.faults import impatient
from tests.caches.ttl_cache.helpers import outcome, proves
from tests.kit.fakes import PATIENCE, Beside
from tests.kit.proofs import failing, holding
from tests.kit.twins import within

CIRCLE = "would wait for itself"


def sync_of(m: ModuleType) -> ModuleType:
    """The module of TTLCache that this component stands on."""
    return sys.modules[m.CacheStats.__module__]


def run(load: Callable[[], Awaitable[Any]]) -> Any:
    """A loop inside a sync loader."""

    async def main() -> Any:
        return await load()

    return asyncio.run(main())


def check_a_circle_through_a_loop(m: ModuleType) -> None:
    """A load, in whose loader a loop has a thread ask for the same key; by way of another cache."""
    one, two = m.TTLCache(), m.TTLCache()

    def through_a_loop() -> Any:
        return run(lambda: asyncio.to_thread(two.get_or_load, "b", back))

    def back() -> Any:
        return one.get_or_load("a", lambda: "never")

    with pytest.raises(RuntimeError, match=CIRCLE):
        one.get_or_load("a", through_a_loop)
    assert one.get_or_load("a", lambda: two.get_or_load("b", lambda: "b")) == "b"


def check_a_circle_from_sync_through_async(m: ModuleType) -> None:
    sync, later = sync_of(m).TTLCache(), m.AsyncTTLCache()

    async def back() -> Any:
        return await asyncio.to_thread(sync.get_or_load, "a", lambda: "never")

    with pytest.raises(RuntimeError, match=CIRCLE):
        sync.get_or_load("a", lambda: run(lambda: later.get_or_load("b", back)))
    assert sync.stats.load_failures == later.stats.load_failures == 1
    assert sync.get_or_load("a", lambda: "after") == "after"


def check_a_circle_from_async_through_sync(m: ModuleType) -> None:
    sync, later = sync_of(m).TTLCache(), m.AsyncTTLCache()

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def back() -> Any:
            context = contextvars.copy_context()

            async def ask() -> Any:
                return await later.get_or_load("b", lambda: asyncio.sleep(0, "never"))

            made = Beside(lambda: context.run(asyncio.run_coroutine_threadsafe, ask(), loop))
            return made.result().result(PATIENCE)

        with pytest.raises(RuntimeError, match=CIRCLE):
            await later.get_or_load("b", lambda: asyncio.to_thread(sync.get_or_load, "a", back))

    asyncio.run(main())
    assert sync.get_or_load("a", lambda: "after") == "after"


def check_loads_that_cross(m: ModuleType) -> None:
    """Two threads, each with a load of one kind that asks for the other's: one is refused."""
    one, two = sync_of(m).TTLCache(), m.AsyncTTLCache()
    both = threading.Barrier(2)
    loop: Any = None

    def in_the_thread() -> Any:
        both.wait(PATIENCE)
        done = asyncio.run_coroutine_threadsafe(two.get_or_load("b", never), loop)
        return done.result(PATIENCE)

    async def in_the_loop() -> Any:
        await asyncio.to_thread(both.wait, PATIENCE)
        return await asyncio.to_thread(one.get_or_load, "a", lambda: "never")

    async def never() -> Any:
        return "never"

    async def main() -> list[Any]:
        nonlocal loop
        loop = asyncio.get_running_loop()
        calls = (
            asyncio.to_thread(one.get_or_load, "a", in_the_thread),
            two.get_or_load("b", in_the_loop),
        )
        return list(await asyncio.gather(*calls, return_exceptions=True))

    results = asyncio.run(main())
    assert any(isinstance(each, RuntimeError) for each in results), results
    assert not [each for each in results if isinstance(each, TimeoutError)]


def check_a_chain_through_both_is_no_circle(m: ModuleType) -> None:
    sync, later = sync_of(m).TTLCache(), m.AsyncTTLCache()

    async def inner() -> Any:
        return await asyncio.to_thread(sync.get_or_load, "c", lambda: "c")

    assert sync.get_or_load("a", lambda: run(lambda: later.get_or_load("b", inner))) == "c"


def check_crossing_loads_of_two_loops(m: ModuleType) -> None:
    """Each thread has a TTLCache load, inside it a loop, and there a thread that asks the other."""
    one, two, both = m.TTLCache(), m.TTLCache(), threading.Barrier(2)

    def crossing(other: Any, key: str) -> Any:
        both.wait(PATIENCE)
        return run(lambda: asyncio.to_thread(other.get_or_load, key, lambda: "never"))

    a = Beside(one.get_or_load, "a", lambda: crossing(two, "b"))
    b = Beside(two.get_or_load, "b", lambda: crossing(one, "a"))
    for error in (outcome(a), outcome(b)):
        assert isinstance(error, RuntimeError), error


BLIND = faults.sees_no_circle()
SYNC = [
    proves(
        "TC-13",
        check_a_circle_through_a_loop,
        BLIND[0],
        BLIND[1] + impatient,
        "AssertionError: it hangs",
    ),
    proves("TC-13", check_crossing_loads_of_two_loops),
]
BOTH = [
    proves(
        "TC-13",
        check_a_circle_from_sync_through_async,
        "knows the circles of each kind of cache alone",
        within("caches/ttl_cache", BLIND[1] + impatient),
        "AssertionError: it hangs",
    ),
    proves("TC-13", check_a_circle_from_async_through_sync),
    proves("TC-13", check_loads_that_cross),
    proves("TC-13", check_a_chain_through_both_is_no_circle),
]

test_circles_of_one_kind = holding(SYNC, ttl_cache)
test_circles_of_one_kind_are_checked = failing(SYNC, "caches/ttl_cache")

try:
    from reference_impl.caches import async_ttl_cache
except ImportError:  # a copy of TTLCache alone, with private names of its own
    pass
else:
    test_circles_of_both_kinds = holding(BOTH, async_ttl_cache)
    test_circles_of_both_kinds_are_checked = failing(BOTH, "caches/async_ttl_cache")
