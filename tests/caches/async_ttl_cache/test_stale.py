"""AsyncTTLCache's stale values: given at once, and refreshed once, by a task of the cache."""

import asyncio
import contextvars
import math
import weakref
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

from tests.caches.async_ttl_cache import faults
from tests.caches.async_ttl_cache.helpers import (
    COMPONENT,
    Loader,
    ask,
    holding,
    load_42,
    says,
    step,
    weight,
)
from tests.kit.fakes import Clock, turns
from tests.kit.proofs import Proof, failing


async def load_old() -> str:
    return "old"


async def with_a_stale_value(m: ModuleType, stale: float = 5.0) -> tuple[Any, Clock]:
    """A cache whose value of "key" is past its life, by nothing yet, and the cache's clock."""
    clock = Clock(1_000.0)
    cache = m.AsyncTTLCache(10.0, clock=clock)
    assert await cache.get_or_load("key", load_old, stale=stale) == "old"
    clock.tick(10.0)
    return cache, clock


def take(cache: Any, loader: Any, stale: float = 5.0) -> object:
    """What one more caller gets, who does not wait."""
    return step(cache.get_or_load("key", loader, stale=stale))


# One refresh, meanwhile the stale value.


async def check_a_stale_value_is_given_at_once_while_one_refresh_runs(m: ModuleType) -> None:
    cache, clock = await with_a_stale_value(m)
    loader = Loader()
    assert [take(cache, loader) for _ in range(3)] == ["old"] * 3
    await turns()
    clock.tick(1.0)
    assert take(cache, loader) == "old"
    await turns()
    assert (loader.started, cache.stats.loads) == (1, 1), "it was refreshed more than once"
    loader.gate.set_result("new")
    await turns()
    assert take(cache, loader) == step(cache.get("key")) == "new"
    assert (loader.started, cache.stats.loads, cache.stats.load_failures) == (1, 2, 0)
    clock.tick(9.0)
    assert step(cache.get("key")) == "new"
    clock.tick(1.0)
    assert "key" not in cache


async def check_a_value_is_stale_for_so_long_and_not_a_moment_longer(m: ModuleType) -> None:
    cache, clock = await with_a_stale_value(m)
    clock.tick(4.875)
    failing_loader = Loader()
    assert take(cache, failing_loader) == "old"
    await turns()
    failing_loader.gate.set_exception(OSError("not now"))
    await turns()
    clock.tick(0.125)
    assert await cache.get_or_load("key", load_42, stale=5.0) == 42


async def check_only_those_who_say_so_get_a_stale_value(m: ModuleType) -> None:
    """The others find nothing, and wait for the refresh, of which there is still one."""
    cache, _ = await with_a_stale_value(m)
    loader = Loader()
    assert take(cache, loader) == "old"
    await turns()
    callers = ask(cache, loader, 2)
    await turns()
    assert not any(caller.done() for caller in callers)
    assert "key" not in cache
    assert (len(cache), step(cache.keys()), step(cache.items())) == (0, [], [])
    assert step(cache.get("key", "none")) == "none"
    loader.gate.set_result("new")
    assert await asyncio.gather(*callers) == ["new"] * 2
    assert loader.started == 1


async def check_every_look_up_is_a_hit_or_a_miss(m: ModuleType) -> None:
    cache, _ = await with_a_stale_value(m)
    loader = Loader()
    before = cache.stats
    assert [take(cache, loader) for _ in range(3)] == ["old"] * 3
    await turns()
    stats = cache.stats
    assert stats.hits + stats.misses == before.hits + before.misses + 3
    loader.gate.set_result("new")
    await turns()


async def check_other_keys_have_refreshes_of_their_own(m: ModuleType) -> None:
    cache, _ = await with_a_stale_value(m)
    assert await cache.get_or_load("other", load_old, stale=20.0) == "old"
    one = Loader()
    assert take(cache, one) == "old"
    await turns()
    assert (one.started, await cache.get("other")) == (1, "old")
    one.gate.set_result("new")
    await turns()
    assert (await cache.get("key"), await cache.get("other")) == ("new", "old")


# Who is cancelled, and what changes meanwhile.


async def check_no_callers_cancellation_ends_a_refresh(m: ModuleType) -> None:
    """Neither that of the one who noticed, nor that of one who waits for it."""
    cache, _ = await with_a_stale_value(m)
    loader, taken = Loader(), list[object]()

    async def noticing() -> None:
        taken.append(await cache.get_or_load("key", loader, stale=5.0))
        await asyncio.get_running_loop().create_future()

    noticed = asyncio.create_task(noticing())
    await turns()
    (waiting,) = ask(cache, loader)
    await turns()
    noticed.cancel()
    waiting.cancel()
    await turns()
    assert taken == ["old"]
    assert (loader.started, loader.cancelled) == (1, 0), "a caller's cancellation ended it"
    loader.gate.set_result("new")
    await turns()
    assert step(cache.get("key")) == "new"


async def outdated(m: ModuleType, change: Callable[[Any], Awaitable[object]]) -> None:
    cache, _ = await with_a_stale_value(m)
    first, second = Loader(), Loader()
    assert take(cache, first) == "old"
    await turns()
    await change(cache)
    callers = [asyncio.create_task(cache.get_or_load("key", second, stale=5.0)) for _ in range(2)]
    await turns()
    assert (first.started, second.started) == (1, 1), "the stale value was still given"
    first.gate.set_result("outdated")
    await turns()
    second.gate.set_result("new")
    assert await asyncio.gather(*callers) == ["new"] * 2
    assert await cache.get("key") == "new"


async def check_a_delete_ends_a_stale_value_and_outdates_its_refresh(m: ModuleType) -> None:
    await outdated(m, lambda cache: cache.delete("key"))


async def check_a_clear_ends_a_stale_value_and_outdates_its_refresh(m: ModuleType) -> None:
    await outdated(m, lambda cache: cache.clear())


async def check_a_refresh_does_not_undo_a_set(m: ModuleType) -> None:
    cache, _ = await with_a_stale_value(m)
    loader = Loader()
    assert take(cache, loader) == "old"
    await turns()
    await cache.set("key", "set")
    loader.gate.set_result("outdated")
    await turns()
    assert step(cache.get("key")) == take(cache, loader) == "set"


async def check_a_refresh_does_not_undo_a_delete(m: ModuleType) -> None:
    cache, _ = await with_a_stale_value(m)
    loader = Loader()
    assert take(cache, loader) == "old"
    await turns()
    await cache.delete("key")
    loader.gate.set_result("outdated")
    await turns()
    assert "key" not in cache, "the refresh undid it"


async def check_a_refresh_that_fails_keeps_the_stale_value_and_is_counted(m: ModuleType) -> None:
    """The next one who asks starts another; nobody hears of the first."""
    cache, _ = await with_a_stale_value(m)
    for failures in range(1, 4):
        loader = Loader()
        assert take(cache, loader) == "old"
        await turns()
        loader.gate.set_exception(OSError("no route"))
        await turns()
        assert (loader.started, cache.stats.load_failures) == (1, failures)
    loader = Loader()
    assert take(cache, loader) == "old"
    (caller,) = ask(cache, loader)
    await turns()
    loader.gate.set_exception(failure := OSError("no route for one who waits"))
    await asyncio.wait([caller])
    assert caller.exception() is failure
    assert take(cache, load_42) == "old"
    await turns()
    assert step(cache.get("key")) == 42


async def check_a_loader_that_cannot_be_awaited_is_a_refresh_that_fails(m: ModuleType) -> None:
    cache, _ = await with_a_stale_value(m)
    assert take(cache, lambda: 42) == take(cache, lambda: 1 // 0) == "old"
    await turns()
    assert take(cache, load_42) == "old"
    await turns()
    assert step(cache.get("key")) == 42


# The refresh is a load.


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="nobody")


async def check_a_refresh_sees_the_context_of_the_one_who_noticed(m: ModuleType) -> None:
    cache, _ = await with_a_stale_value(m)
    seen = list[str]()

    async def load() -> str:
        seen.append(VARIABLE.get())
        return "new"

    loop = asyncio.get_running_loop()
    for name in ("first", "second"):
        context = contextvars.copy_context()
        context.run(VARIABLE.set, name)
        loop.call_soon(lambda: step(cache.get_or_load("key", load, stale=5.0)), context=context)
    await turns()
    assert seen == ["first"]


async def check_a_refresh_that_waits_for_itself_fails(m: ModuleType) -> None:
    cache, _ = await with_a_stale_value(m)
    errors = list[str]()

    async def itself() -> object:
        assert await cache.get_or_load("key", load_42, stale=5.0) == "old"
        try:
            return await cache.get_or_load("key", load_42)
        except RuntimeError as error:
            errors.append(str(error))
            raise

    assert take(cache, itself) == "old"
    await turns()
    assert [error[:37] for error in errors] == ["the load of 'key' would wait for itse"]
    assert take(cache, load_42) == "old"
    await turns()
    assert step(cache.get("key")) == 42


async def check_a_load_does_not_wait_for_the_refresh_that_it_starts(m: ModuleType) -> None:
    """So the refresh may wait for the load."""
    cache, _ = await with_a_stale_value(m)
    gate = asyncio.Event()

    async def outer() -> str:
        found = await cache.get_or_load("key", refresh, stale=5.0)
        await gate.wait()
        return f"outer with {found}"

    async def refresh() -> str:
        return "new with " + str(await cache.get_or_load("outer", load_42))

    (asked,) = ask(cache, outer, key="outer")
    await turns()
    gate.set()
    assert await asked == "outer with old"
    await turns()
    assert step(cache.get("key")) == "new with outer with old"


# What remains.


async def check_leaving_the_block_ends_a_refresh_and_waits_for_its_end(m: ModuleType) -> None:
    cache, _ = await with_a_stale_value(m)
    before, loader, release = asyncio.all_tasks(), Loader(), asyncio.Event()
    loader.after_cancel = release.wait

    async def block() -> None:
        async with cache:
            assert take(cache, loader) == "old"
            await turns()

    leaving = asyncio.create_task(block())
    await turns(50)
    try:
        assert (loader.started, loader.cancelled) == (1, 1), "it goes on"
        assert not leaving.done(), "it did not wait"
    finally:
        release.set()
    await leaving
    assert loader.cleaned == 1
    assert asyncio.all_tasks() == before
    assert cache.stats.load_failures == 1
    assert take(cache, load_42) == "old"
    await turns()
    assert step(cache.get("key")) == 42


async def check_leaving_leaves_a_refresh_to_those_who_wait_for_it(m: ModuleType) -> None:
    cache, _ = await with_a_stale_value(m)
    loader = Loader()
    async with cache:
        assert take(cache, loader) == "old"
        (caller,) = ask(cache, loader)
        await turns()
    assert (loader.started, loader.cancelled) == (1, 0)
    loader.gate.set_result("new")
    assert await caller == "new"


async def check_an_inner_block_ends_no_refresh(m: ModuleType) -> None:
    cache, _ = await with_a_stale_value(m)
    loader = Loader()
    async with cache:
        async with cache:
            assert take(cache, loader) == "old"
            await turns()
        assert loader.cancelled == 0
        loader.gate.set_result("new")
        await turns()
        assert step(cache.get("key")) == "new"


async def check_stale_values_count_against_the_bound(m: ModuleType) -> None:
    """However long they are kept, there are no more than `max_size` of them in memory."""

    class Value: ...

    clock, references = Clock(), list["weakref.ref[Value]"]()
    cache = m.AsyncTTLCache(10.0, 3, clock=clock)

    async def load() -> Value:
        value = Value()
        references.append(weakref.ref(value))
        return value

    for number in range(20):
        await cache.get_or_load(number, load, stale=math.inf)
        await turns()
        clock.tick(10.0)
        assert len(cache) == 0
    assert sum(reference() is not None for reference in references) <= 3
    await cache.clear()
    await turns()
    assert sum(reference() is not None for reference in references) == 0


async def check_refreshes_leave_nothing_behind(m: ModuleType) -> None:
    cache, clock = await with_a_stale_value(m, math.inf)
    weights = list[int]()
    for _ in range(4):
        good, bad = Loader(), Loader()
        for loader in (bad, good):
            assert take(cache, loader, math.inf) == "old"
            await turns()
            if loader is bad:
                bad.gate.set_exception(OSError("no route"))
            else:
                good.gate.set_result("old")
            await turns()
        del good, bad, loader
        clock.tick(10.0)
        weights.append(weight(cache))
    assert weights[1:] == weights[:1] * 3


def check_the_next_loop_refreshes_what_the_one_before_did_not(m: ModuleType) -> None:
    clock = Clock()
    cache = m.AsyncTTLCache(10.0, clock=clock)

    async def first() -> None:
        assert await cache.get_or_load("key", load_old, stale=math.inf) == "old"
        clock.tick(10.0)
        assert take(cache, Loader(), math.inf) == "old"
        await turns()

    async def second() -> None:
        assert take(cache, load_42, math.inf) == "old"
        await turns()
        assert step(cache.get("key")) == 42

    asyncio.run(first())
    asyncio.run(second())


TWO = says("lets each who asks refresh", faults.refreshes_for_each, "refreshed more than once")
WAITS = says("waits for the refresh", faults.waits_for_the_refresh, "it suspended")
LONGER = says("keeps a stale value too long", faults.stale_for_twice_as_long, "== 42")
ENDED = says("refreshes in the caller's task", faults.ends_with_who_noticed, "ended it")
UNDONE = says("stores each refresh", faults.stores_each_refresh, "the refresh undid it")
UNSET = says("stores each refresh", faults.stores_each_refresh, '== "set"')
GIVEN = says("gives what was deleted", faults.deletes_only_what_is_there, "stale value was still")
NOT_ENDED = says("leaves a refresh to itself", faults.shields_each_load, "it goes on")
STALE = [
    Proof("AC-6", check_a_stale_value_is_given_at_once_while_one_refresh_runs, [TWO, WAITS]),
    Proof("AC-6", check_a_value_is_stale_for_so_long_and_not_a_moment_longer, [LONGER]),
    Proof("AC-6", check_only_those_who_say_so_get_a_stale_value),
    Proof("AC-6", check_every_look_up_is_a_hit_or_a_miss),
    Proof("AC-6", check_other_keys_have_refreshes_of_their_own),
    Proof("AC-6", check_no_callers_cancellation_ends_a_refresh, [ENDED]),
    Proof("AC-6", check_a_delete_ends_a_stale_value_and_outdates_its_refresh, [GIVEN]),
    Proof("AC-6", check_a_clear_ends_a_stale_value_and_outdates_its_refresh),
    Proof("AC-6", check_a_refresh_does_not_undo_a_set, [UNSET]),
    Proof("AC-6", check_a_refresh_does_not_undo_a_delete, [UNDONE]),
    Proof("AC-6", check_a_refresh_that_fails_keeps_the_stale_value_and_is_counted),
    Proof("AC-6", check_a_loader_that_cannot_be_awaited_is_a_refresh_that_fails),
    Proof("AC-6", check_a_refresh_sees_the_context_of_the_one_who_noticed),
    Proof("AC-6", check_a_refresh_that_waits_for_itself_fails),
    Proof("AC-6", check_a_load_does_not_wait_for_the_refresh_that_it_starts),
    Proof("AC-6", check_leaving_the_block_ends_a_refresh_and_waits_for_its_end, [NOT_ENDED]),
    Proof("AC-6", check_leaving_leaves_a_refresh_to_those_who_wait_for_it),
    Proof("AC-6", check_an_inner_block_ends_no_refresh),
    Proof("AC-6", check_stale_values_count_against_the_bound),
    Proof("AC-6", check_refreshes_leave_nothing_behind),
    Proof("AC-6", check_the_next_loop_refreshes_what_the_one_before_did_not),
]

test_stale = holding(STALE)
test_stale_catches = failing(STALE, COMPONENT)
