"""AsyncTTLCache's `async with`: the clean-up in the background, and leaving."""

import asyncio
import contextvars
import gc
import math
import time
import weakref
from types import ModuleType

import pytest

from tests.caches.async_ttl_cache import faults
from tests.caches.async_ttl_cache.helpers import (
    COMPONENT,
    Loader,
    ask,
    holding,
    says,
    spy_on_timers,
    virtual,
)
from tests.kit.fakes import turns
from tests.kit.process import run_python
from tests.kit.proofs import Proof, failing


@virtual
async def check_the_clean_up_runs_until_the_block_is_left(m: ModuleType) -> None:
    """In virtual time, which the cache's clock tells as well."""
    loop = asyncio.get_running_loop()
    cache = m.AsyncTTLCache(10.0, None, clock=loop.time, cleanup_interval=4.0)
    async with cache:
        await cache.set("ever", 1, math.inf)
        await asyncio.sleep(100.0)
        for number in range(1000):
            await cache.set(number, number)
        await asyncio.sleep(9.0)
        assert cache.stats.expirations == 0
        await asyncio.sleep(4.0)
        assert cache.stats.expirations == 1000
        await cache.set("again", 1, 1.0)
        await asyncio.sleep(5.0)
        assert cache.stats.expirations == 1001
        await cache.set("first", 1, 3.0)
        await asyncio.sleep(1.0)
        await cache.set("second", 1, 0.5)  # does not put the clean-up off
        await asyncio.sleep(3.25)
        assert cache.stats.expirations == 1003
        await cache.set("left", 1, 1.0)
    await asyncio.sleep(100.0)
    assert cache.stats.expirations == 1003, "it goes on"
    assert await cache.keys() == ["ever"]


async def check_the_clean_up_sleeps_while_nothing_can_expire(m: ModuleType) -> None:
    timers = spy_on_timers()
    async with m.AsyncTTLCache(math.inf) as cache:
        await cache.set("ever", 1)
        await cache.set("too long for a float", 1, 10**400)
        await cache.set("as good as for ever", 1, 1e300)
        assert timers == []
        await cache.set("long", 2, 3600.0)
        await cache.set("as long", 3, 3600.0)
        await cache.set("longer", 4, 7200.0)
        assert len(timers) == 1
        assert timers[0][0] > 3500.0
        await cache.set("short", 5, 600.0)
        assert len(timers) == 2
        assert 500.0 < timers[1][0] <= 600.0
        await cache.set("sooner than a clean-up is due", 5, 1.0)
        assert len(timers) == 3
        assert 50.0 < timers[2][0] <= 60.0
    await cache.set("outside of the block", 6, 0.5)
    assert len(timers) == 3
    assert all(timer.cancelled() for _, timer in timers)


@virtual
async def check_a_timer_that_is_early_enough_stays(m: ModuleType) -> None:
    """In virtual time, where several entries want the clean-up at the same moment."""
    loop, timers = asyncio.get_running_loop(), spy_on_timers()
    async with m.AsyncTTLCache(10.0, clock=loop.time, cleanup_interval=4.0) as cache:
        for ttl in (3.0, 2.0, 1.0):
            await cache.set(ttl, ttl, ttl)
        assert [pause for pause, _ in timers] == [4.0]


async def check_leaving_waits_for_abandoned_loads_and_for_no_other(m: ModuleType) -> None:
    before, cache, entered = asyncio.all_tasks(), m.AsyncTTLCache(), asyncio.Event()
    awaited, abandoned, release = Loader(), Loader(), asyncio.Event()
    abandoned.after_cancel = release.wait

    async def block() -> None:
        async with cache:
            entered.set()
            await turns(5)

    (stays,) = ask(cache, awaited, key="awaited")
    (leaves,) = ask(cache, abandoned, key="abandoned")
    leaving = asyncio.create_task(block())
    await entered.wait()
    leaves.cancel()
    await turns()
    assert not leaving.done(), "it did not wait"
    assert abandoned.cancelled == 1
    release.set()
    await leaving
    assert abandoned.cleaned == 1
    assert awaited.cancelled == 0
    awaited.gate.set_result("value")
    assert await stays == await cache.get("awaited") == "value"
    await asyncio.wait([leaves])
    assert asyncio.all_tasks() == before


@virtual
async def check_an_abandoned_load_that_leaves_does_not_wait_for_itself(m: ModuleType) -> None:
    cache, left = m.AsyncTTLCache(), asyncio.Event()

    async def load() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            async with cache:
                pass
            left.set()

    (caller,) = ask(cache, load)
    await turns()
    caller.cancel()
    await left.wait()


@virtual
async def check_blocks_can_be_nested_and_entered_again(m: ModuleType) -> None:
    loop = asyncio.get_running_loop()
    cache = m.AsyncTTLCache(1.0, clock=loop.time, cleanup_interval=1.0)
    for round_ in range(1, 3):
        async with cache:
            async with cache:
                pass
            await cache.set("key", 1)
            await asyncio.sleep(3.0)
            assert cache.stats.expirations == round_


async def check_an_interval_may_be_longer_than_any_float(m: ModuleType) -> None:
    timers = spy_on_timers()
    async with m.AsyncTTLCache(1.0, cleanup_interval=10**400) as cache:
        await cache.set("key", 1)
        await cache.set("key", 1, 1e-9)
    assert all(timer.cancelled() for _, timer in timers)


class Value: ...


async def check_the_clean_up_keeps_no_callers_context_alive(m: ModuleType) -> None:
    async with m.AsyncTTLCache(60.0) as cache:
        kept = contextvars.ContextVar[Value]("kept")

        async def task() -> weakref.ref[Value]:
            kept.set(Value())
            await cache.set("key", 1)
            return weakref.ref(kept.get())

        reference = await asyncio.create_task(task())
        await turns()
        gc.collect()
        assert reference() is None


PACE = faults.made_with(lambda _: {"cleanup_interval": 50.0})
CLOCK = faults.made_with(lambda _: {"clock": lambda: time.monotonic()})
GOES_ON = says("never ends the clean-up", faults.never_ends_the_clean_up, "it goes on")
SELDOM = says("cleans up too seldom", PACE, "cache.stats.expirations == 1000")
RESTLESS = says("asks the clock again and again", CLOCK, "timers[0][0] > 3500.0")
KEEPS = says("keeps a caller's context", faults.keeps_a_context, "reference() is None")
EARLY = says("leaves too early", faults.leaves_too_early, "it did not wait")
ALL = says("cancels all loads", faults.cancels_all_loads, "awaited.cancelled == 0")
BLOCKS = [
    Proof("AC-4", check_the_clean_up_runs_until_the_block_is_left, [GOES_ON, SELDOM]),
    Proof("AC-4", check_the_clean_up_sleeps_while_nothing_can_expire, [RESTLESS]),
    Proof("AC-4", check_a_timer_that_is_early_enough_stays),
    Proof("AC-4", check_an_interval_may_be_longer_than_any_float),
    Proof("AC-4", check_an_abandoned_load_that_leaves_does_not_wait_for_itself),
    Proof("AC-4", check_blocks_can_be_nested_and_entered_again),
    Proof("AC-4", check_the_clean_up_keeps_no_callers_context_alive, [KEEPS]),
    Proof("AC-4", check_leaving_waits_for_abandoned_loads_and_for_no_other, [EARLY, ALL]),
]

test_block = holding(BLOCKS)
test_block_catches = failing(BLOCKS, COMPONENT)


@pytest.mark.guarantee("AC-4")
def test_a_process_that_leaves_loads_and_clean_up_behind_says_nothing() -> None:
    done = run_python(
        """
        import asyncio
        from reference_impl.caches.async_ttl_cache import AsyncTTLCache

        cleaned = []

        async def load():
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                cleaned.append(1)

        async def failing():
            await asyncio.sleep(0)
            raise OSError("nobody hears of it")

        async def main():
            cache = AsyncTTLCache(60.0)
            await cache.__aenter__()
            await cache.set("key", 1)
            tasks = [asyncio.create_task(cache.get_or_load(n, load)) for n in range(3)]
            alone = asyncio.create_task(cache.get_or_load("failing", failing))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            alone.cancel()
            tasks[0].cancel()
            return cache, tasks

        cache, tasks = asyncio.run(main())
        assert cleaned == [1, 1, 1]
        print(len(cache), cache.stats.load_failures)
        """
    )
    assert (done.stdout, done.stderr) == ("1 4\n", "")
