"""AsyncTTLCache's loads that ask for other loads: a circle is an error, and all else goes on."""

import asyncio
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import pytest

from tests.caches.async_ttl_cache import faults
from tests.caches.async_ttl_cache.helpers import (
    COMPONENT,
    Loader,
    ask,
    holding,
    lines_run,
    load_42,
)
from tests.kit.fakes import turns
from tests.kit.proofs import Proof, failing
from tests.kit.twins import Twin


async def check_a_load_that_asks_for_itself_is_an_error(m: ModuleType) -> None:
    cache, other = m.AsyncTTLCache(), m.AsyncTTLCache()

    async def itself() -> str:
        return str(await cache.get_or_load("itself", itself))

    async def by_task() -> str:
        return str(await asyncio.create_task(cache.get_or_load("task", by_task)))

    async def there() -> str:
        return str(await other.get_or_load("key", back))

    async def back() -> str:
        return str(await cache.get_or_load("key", there))

    before = asyncio.all_tasks()
    for key, loader in (("itself", itself), ("task", by_task), ("key", there)):
        with pytest.raises(RuntimeError) as caught:
            await cache.get_or_load(key, loader)
        assert str(caught.value) == (
            f"the load of '{key}' would wait for itself: its loader asks for that key, "
            "directly or by way of other loads; let it do without"
        )
        assert await cache.get_or_load(key, load_42) == 42
    assert asyncio.all_tasks() == before


async def check_loads_that_wait_for_each_other_are_an_error(m: ModuleType) -> None:
    """Each of them is led by another caller."""
    cache, gate = m.AsyncTTLCache(), asyncio.Event()

    def asking(key: str) -> Callable[[], Awaitable[str]]:
        async def load() -> str:
            await gate.wait()
            return "got " + str(await cache.get_or_load(key, Loader()))

        return load

    callers = ask(cache, asking("b"), key="a") + ask(cache, asking("a"), key="b")
    await turns()
    gate.set()
    errors = await asyncio.gather(*callers, return_exceptions=True)
    assert [str(error).startswith("the load of") for error in errors] == [True, True]
    assert await cache.get_or_load("a", load_42) == 42


async def check_a_circle_behind_a_fork_is_an_error(m: ModuleType) -> None:
    """Two branches come together, and one of them leads back, too.

    "top" waits for "left" and "right", and both for "meet"; "left" waits for "back" as well,
    whose loader asks for "top".
    """
    cache, gate, errors = m.AsyncTTLCache(), asyncio.Event(), list[str]()

    def both(*keys: str) -> Callable[[], Awaitable[object]]:
        return lambda: asyncio.gather(*(cache.get_or_load(k, loaders[k]) for k in keys))

    async def back() -> object:
        await gate.wait()
        try:
            return await cache.get_or_load("top", Loader())
        except RuntimeError as error:
            errors.append(str(error))
            return "back"

    async def meet() -> object:
        await gate.wait()
        await turns()
        return "meet"

    loaders: dict[str, Any] = {"back": back, "meet": meet}
    loaders |= {"left": both("back", "meet"), "right": both("meet")}
    (asked,) = ask(cache, both("left", "right"), key="top")
    await turns()
    gate.set()
    assert await asked == [["back", "meet"], ["meet"]]
    assert [error[:27] for error in errors] == ["the load of 'top' would wai"]


async def check_the_search_for_circles_is_short(m: ModuleType) -> None:
    """Each load on the way is looked at once, however many ways lead to it."""

    async def work(levels: int) -> int:
        cache, gate = m.AsyncTTLCache(), Loader()

        def loader(level: int) -> Callable[[], Awaitable[object]]:
            if level == levels:
                return gate
            return lambda: asyncio.gather(
                *(cache.get_or_load((level + 1, side), loader(level + 1)) for side in "ab")
            )

        async def outer() -> int:
            asking = cache.get_or_load((0, "a"), loader(0))
            try:
                return lines_run(m, lambda: asking.send(None))
            finally:
                asking.close()

        asked = asyncio.create_task(cache.get_or_load((0, "a"), loader(0)))
        await turns(4 * levels)
        found = await cache.get_or_load("outer", outer)
        gate.gate.set_result("value")
        await asked
        return int(found)

    lines = [await work(levels) for levels in (1, 2, 5, 6)]
    assert lines[3] - lines[2] <= lines[1] - lines[0]


async def check_a_loader_may_load_other_keys_and_others_go_on_meanwhile(m: ModuleType) -> None:
    cache, slow = m.AsyncTTLCache(), Loader()

    async def outer() -> str:
        asked = cache.get_or_load("slow", slow), cache.get_or_load("quick", quick)
        return "+".join(await asyncio.gather(*asked))

    async def quick() -> str:
        return "quick"

    (asked,) = ask(cache, outer, key="outer")
    await turns()
    await cache.set("unrelated", "set")
    assert await cache.get_or_load("other", quick) == "quick"
    assert await cache.get_or_load("unrelated", quick) == "set"
    slow.gate.set_result("slow")
    assert await asked == "slow+quick"


async def check_a_task_that_outlives_its_load_is_no_part_of_it(m: ModuleType) -> None:
    """It has the load's context, but the load waits for it no more; nor must who waited for that.

    When it asks, "first" has ended, and "outer", which waits for "first", has yet to hear of it.
    """
    cache, gate = m.AsyncTTLCache(), asyncio.Event()
    left: list[asyncio.Task[Any]] = []

    async def later() -> Any:
        await gate.wait()
        await asyncio.sleep(0)
        assert "first" in cache
        assert "outer" not in cache
        return await cache.get_or_load("outer", outer)

    async def first() -> str:
        left.append(asyncio.create_task(later()))
        await turns()
        gate.set()
        return "first"

    async def outer() -> str:
        return "outer, " + str(await cache.get_or_load("first", first))

    assert await cache.get_or_load("outer", outer) == "outer, first"
    assert await left[0] == "outer, first"


FORGETS = Twin("forgets in which load it is", faults.loads_in_an_empty_context, "hang")
OWN_KEY = Twin("sees only circles of one key", faults.sees_only_its_own_key, "hang")
CIRCLES = [
    Proof("AC-2", check_a_load_that_asks_for_itself_is_an_error, [FORGETS, OWN_KEY]),
    Proof("AC-2", check_loads_that_wait_for_each_other_are_an_error, [FORGETS]),
    Proof("AC-2", check_a_circle_behind_a_fork_is_an_error, [OWN_KEY]),
    Proof("AC-2", check_a_loader_may_load_other_keys_and_others_go_on_meanwhile),
    Proof("AC-2", check_the_search_for_circles_is_short),
    Proof("AC-2", check_a_task_that_outlives_its_load_is_no_part_of_it),
]

test_loads_within_loads = holding(CIRCLES)
test_loads_within_loads_catch = failing(CIRCLES, COMPONENT)
