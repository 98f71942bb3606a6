"""AsyncTTLCache's loads: one for all who ask, whoever of them is cancelled."""

import asyncio
import contextvars
import functools
import gc
import re
import traceback
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

import reference_impl.caches.async_ttl_cache as ours
from reference_impl.caches.async_ttl_cache import AsyncTTLCache
from tests.caches.async_ttl_cache import faults
from tests.caches.async_ttl_cache.helpers import (
    COMPONENT,
    Loader,
    ask,
    each_way,
    hold,
    holding,
    load_42,
    no_collector,
    says,
    step,
    weight,
)
from tests.kit.fakes import turns
from tests.kit.proofs import Proof, failing

# Who is cancelled.


async def check_a_cancelled_caller_leaves_the_load_to_the_others(m: ModuleType) -> None:
    cache, loader = m.AsyncTTLCache(), Loader()
    callers = ask(cache, loader, 4)
    await turns()
    callers[0].cancel()
    callers[2].cancel()
    await turns()
    assert [caller.cancelled() for caller in callers] == [True, False, True, False]
    value = object()
    loader.gate.set_result(value)
    assert await callers[1] is await callers[3] is await cache.get("key") is value
    assert (loader.started, loader.cancelled) == (1, 0)
    assert (cache.stats.misses, cache.stats.loads, cache.stats.load_failures) == (4, 1, 0)


async def check_when_the_last_caller_leaves_the_load_is_cancelled(m: ModuleType) -> None:
    cache, loader = m.AsyncTTLCache(), Loader()
    callers = ask(cache, loader, 3)
    await turns()
    for caller in callers:
        assert loader.cancelled == 0
        caller.cancel()
        await turns()
    assert loader.cleaned == 1
    assert (cache.stats.loads, cache.stats.load_failures) == (0, 1)
    assert await cache.get_or_load("key", load_42) == 42


async def check_who_asks_after_an_abandonment_starts_a_load(m: ModuleType) -> None:
    """Also while the abandoned load still cleans up, whose end does not touch the new one."""
    cache, first, second = m.AsyncTTLCache(), Loader(), Loader()
    release = asyncio.Event()
    first.after_cancel = release.wait
    (caller,) = ask(cache, first)
    await turns()
    caller.cancel()
    await turns()
    later = ask(cache, second, 2)
    await turns()
    assert second.started == 1
    release.set()
    await turns()
    assert (first.cleaned, second.started, second.cancelled) == (1, 1, 0)
    second.gate.set_result("second")
    assert await asyncio.gather(*later) == ["second", "second"]
    assert await cache.get("key") == "second"


async def check_who_waits_is_served_in_the_order_of_asking(m: ModuleType) -> None:
    cache, loader, served = m.AsyncTTLCache(), Loader(), list[int]()

    async def caller(number: int) -> None:
        await cache.get_or_load("key", loader)
        served.append(number)

    callers = [asyncio.create_task(caller(number)) for number in range(50)]
    await turns()
    loader.gate.set_result(1)
    await asyncio.wait(callers)
    assert served == list(range(50))


async def check_the_clean_up_of_a_cancelled_load_is_not_cut_short(m: ModuleType) -> None:
    """As at the end of `asyncio.run`, which cancels a load and those who wait for it alike."""
    cache, loader, before = m.AsyncTTLCache(), Loader(), asyncio.all_tasks()
    loader.after_cancel = turns
    callers = ask(cache, loader, 2)
    await turns()
    (load,) = asyncio.all_tasks() - before - set(callers)
    load.cancel()
    await asyncio.sleep(0)
    assert (loader.cancelled, loader.cleaned) == (1, 0)
    for caller in callers:
        caller.cancel()
    await asyncio.wait([*callers, load])
    assert loader.cleaned == 1


# How a load ends.


async def check_a_failure_reaches_all_who_wait_and_is_not_stored(m: ModuleType) -> None:
    cache, loader = m.AsyncTTLCache(), Loader()
    callers = ask(cache, loader, 3)
    await turns()
    failure = OSError("no route")
    loader.gate.set_exception(failure)
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert all(result is failure for result in results)
    assert "key" not in cache
    assert (cache.stats.loads, cache.stats.load_failures) == (0, 1)
    assert await cache.get_or_load("key", load_42) == 42


async def check_a_failure_is_told_to_each_as_to_the_first(m: ModuleType) -> None:
    """As long for the hundredth as for the first, and without what another was handling."""
    cache, gate = m.AsyncTTLCache(), asyncio.Event()
    told, depths = list[str](), list[int]()

    async def fail() -> None:
        try:
            await gate.wait()
            raise KeyError("the loader's own trouble")
        except KeyError:
            raise OSError("no route")  # noqa: B904

    async def caller(number: int) -> OSError:
        try:
            raise ValueError(f"the secret of caller {number}")
        except ValueError:
            try:
                await cache.get_or_load("key", fail)
            except OSError as error:
                told.append("".join(traceback.format_exception(error)))
                depths.append(len(list(traceback.walk_tb(error.__traceback__))))
                return error
        raise AssertionError("it did not fail")

    callers = [asyncio.create_task(caller(number)) for number in range(100)]
    await turns()
    gate.set()
    (failure,) = set(await asyncio.gather(*callers))
    for number, text in enumerate(told):
        assert "the loader's own trouble" in text
        secrets = set(re.findall(r"the secret of caller \d+", text))
        assert secrets <= {f"the secret of caller {number}"}, "another's secret"
    assert "secret" not in "".join(traceback.format_exception(failure)), "a secret was left"
    assert len(set(depths)) == 1, "it grew"


async def check_the_loaders_own_cancellation_is_for_its_caller(m: ModuleType) -> None:
    """One of the others loads again."""
    cache, first, second = m.AsyncTTLCache(), Loader(), Loader()
    (leader,) = ask(cache, first)
    await turns()
    others = ask(cache, second, 3)
    await turns()
    first.gate.cancel()
    await turns()
    assert leader.cancelled()
    assert second.started == 1
    second.gate.set_result("second")
    assert await asyncio.gather(*others) == ["second"] * 3


async def check_who_waited_for_a_lost_load_takes_a_value_stored_meanwhile(m: ModuleType) -> None:
    """Between the end of a load that was lost and the turn of who waited for it."""
    cache, first, second = m.AsyncTTLCache(), Loader(), Loader()
    leader, joiner = cache.get_or_load("key", first), cache.get_or_load("key", second)
    leader.send(None)
    joiner.send(None)
    await turns()
    first.gate.cancel()
    await turns()
    await cache.set("key", "set")
    assert step(joiner) == "set"
    leader.close()


async def check_a_load_that_is_cancelled_before_its_first_step_strands_nobody(
    m: ModuleType,
) -> None:
    asyncio.get_running_loop().set_task_factory(None)  # or it takes its first step at once
    cache, loader = m.AsyncTTLCache(), Loader()
    me, before = asyncio.current_task(), asyncio.all_tasks()
    leader, joiner = cache.get_or_load("key", loader), cache.get_or_load("key", loader)
    waits = [leader.send(None), joiner.send(None)]  # both wait; the load has not begun
    (load,) = asyncio.all_tasks() - before - {me}
    load.cancel()
    await turns()
    assert loader.started == 0
    assert all(wait.done() for wait in waits)
    with pytest.raises(asyncio.CancelledError):
        leader.send(None)
    joiner.send(None)  # loads again
    await turns()
    assert loader.started == 1
    joiner.close()


async def check_a_loader_may_return_any_awaitable(m: ModuleType) -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_result(42)
    assert await m.AsyncTTLCache().get_or_load("key", lambda: future) == 42


async def check_a_stop_iteration_from_a_loader_becomes_a_runtime_error(m: ModuleType) -> None:
    def load() -> Awaitable[int]:
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        await m.AsyncTTLCache().get_or_load("key", load)


# What changes meanwhile.


async def outdated(m: ModuleType, change: Callable[[Any], Awaitable[object]]) -> None:
    cache, first, second = m.AsyncTTLCache(), Loader(), Loader()
    before = ask(cache, first, 2)
    await turns()
    await change(cache)
    after = ask(cache, second, 2)
    await turns()
    assert (first.started, second.started) == (1, 1)
    second.gate.set_result("new")
    assert await asyncio.gather(*after) == ["new", "new"]
    first.gate.set_result("old")
    assert await asyncio.gather(*before) == ["old", "old"]
    assert await cache.get("key") == "new"
    assert cache.stats.loads == 2


async def check_a_load_outdated_by_a_set_answers_nobody_later(m: ModuleType) -> None:
    await outdated(m, lambda cache: cache.set("key", "set", 1e-9))


async def check_a_load_outdated_by_a_delete_answers_nobody_later(m: ModuleType) -> None:
    await outdated(m, lambda cache: cache.delete("key"))


async def check_a_load_outdated_by_a_clear_answers_nobody_later(m: ModuleType) -> None:
    await outdated(m, lambda cache: cache.clear())


# What is kept, and what is let go.

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="nobody")


async def check_the_load_runs_in_a_copy_of_the_first_callers_context(m: ModuleType) -> None:
    cache, gate, seen = m.AsyncTTLCache(), asyncio.Event(), list[str]()

    async def load() -> str:
        await gate.wait()
        seen.append(VARIABLE.get())
        VARIABLE.set("the loader")
        return "value"

    async def caller(name: str) -> None:
        VARIABLE.set(name)
        await cache.get_or_load("key", load)
        assert VARIABLE.get() == name

    callers = [asyncio.create_task(caller(name)) for name in ("first", "second")]
    await turns()
    gate.set()
    await asyncio.gather(*callers)
    assert seen == ["first"]


class Failure(Exception): ...


class Value: ...


async def check_a_failure_is_let_go_without_the_collector(m: ModuleType) -> None:
    cache = m.AsyncTTLCache()

    async def load() -> None:
        await asyncio.sleep(0)
        raise Failure

    async def caller() -> "weakref.ref[Failure]":
        try:
            await cache.get_or_load("key", load)
        except Failure as failure:
            return weakref.ref(failure)
        raise AssertionError("it did not fail")

    with no_collector():
        callers = [asyncio.create_task(caller()) for _ in range(3)]
        await asyncio.wait(callers)
        await turns()
        assert [task.result()() for task in callers] == [None] * 3


async def check_a_task_that_a_loader_left_keeps_no_value(m: ModuleType) -> None:
    cache, gate = m.AsyncTTLCache(), asyncio.Event()
    background = []

    async def load() -> Value:
        background.append(asyncio.create_task(gate.wait()))
        return Value()

    with no_collector():
        reference = weakref.ref(await cache.get_or_load("key", load))
        await turns()
        assert reference() is await cache.get("key") is not None
        await cache.delete("key")
        assert reference() is None, "it is kept"
        gate.set()
        await background[0]


async def check_a_load_that_nobody_else_refers_to_is_not_collected(m: ModuleType) -> None:
    cache, gates = m.AsyncTTLCache(), list["weakref.ref[asyncio.Future[str]]"]()

    async def load() -> str:
        gate = asyncio.get_running_loop().create_future()
        gates.append(weakref.ref(gate))
        return str(await gate)

    caller = asyncio.ensure_future(cache.get_or_load("key", load))
    await turns()
    await cache.delete("key")
    del caller  # nothing but the cache refers to the load, nor to who waits for it
    gc.collect()
    gate = gates[0]()
    assert gate is not None
    gate.set_result("value")
    await turns()
    assert cache.stats.loads == 1


async def check_loads_leave_nothing_behind(m: ModuleType) -> None:
    cache, weights = m.AsyncTTLCache(), list[int]()

    async def fail() -> None:
        raise Failure

    for _ in range(4):
        await cache.get_or_load("good", load_42)
        for key in ("bad", "worse"):
            with pytest.raises(Failure):
                await cache.get_or_load(key, fail)
        abandoned, outdated_loader = Loader(), Loader()
        callers = ask(cache, abandoned, 2, "abandoned") + ask(cache, outdated_loader, 2, "outdated")
        await turns()
        await cache.clear()
        for caller in callers[:3]:
            caller.cancel()
        outdated_loader.gate.set_result("old")
        await asyncio.wait(callers)
        await turns()
        weights.append(weight(cache))
    assert weights[1:] == weights[:1] * 3


CALLERS = [
    says("lets all await one task", faults.all_await_one_task, "[True, False, True, False]"),
    says("ends a load with its first caller", faults.ends_with_the_first_caller, "[True, "),
]
FOR_NOBODY = says("loads on for nobody", faults.goes_on_for_nobody, "loader.cleaned == 1")
JOINED = says("joins an abandoned load", faults.joins_the_abandoned, "second.started == 1")
AGAIN = says("loads again for those who joined", faults.repeats_a_failure, "== (0, 1)")
STORES = says("stores an outdated load", faults.stores_whatever_has_happened, '"key") == "new"')
DELETES = says("deletes only what is there", faults.deletes_only_what_is_there, "== (1, 1)")
CLEARS = says("clears only what is there", faults.deletes_one_by_one, "== (1, 1)")
EMPTY = says("loads in an empty context", faults.loads_in_an_empty_context, 'seen == ["first"]')
KEEPS_ERROR = says("keeps an error in a circle", faults.keeps_an_error, "== [None] * 3")
KEEPS_LOADER = says("keeps each loader", faults.keeps_each_loader, "weights[1:] == weights[:1]")
GROWS = says("adds each caller to the traceback", faults.lengthens_the_traceback, "it grew")
SECRET = says("lets a caller's own error in", faults.adds_what_is_handled, "another's secret")
LOADS = [
    Proof("AC-2", check_a_cancelled_caller_leaves_the_load_to_the_others, CALLERS),
    Proof("AC-2", check_when_the_last_caller_leaves_the_load_is_cancelled, [FOR_NOBODY]),
    Proof("AC-2", check_who_asks_after_an_abandonment_starts_a_load, [JOINED]),
    Proof("AC-2", check_who_waits_is_served_in_the_order_of_asking),
    Proof("AC-4", check_the_clean_up_of_a_cancelled_load_is_not_cut_short),
    Proof("AC-2", check_a_failure_reaches_all_who_wait_and_is_not_stored, [AGAIN]),
    Proof("AC-2", check_a_failure_is_told_to_each_as_to_the_first, [GROWS, SECRET]),
    Proof("AC-2", check_the_loaders_own_cancellation_is_for_its_caller),
    Proof("AC-2", check_a_loader_may_return_any_awaitable),
    Proof("AC-2", check_a_stop_iteration_from_a_loader_becomes_a_runtime_error),
    Proof("AC-1", check_a_load_outdated_by_a_set_answers_nobody_later, [STORES]),
    Proof("AC-1", check_a_load_outdated_by_a_delete_answers_nobody_later, [DELETES]),
    Proof("AC-1", check_a_load_outdated_by_a_clear_answers_nobody_later, [CLEARS]),
    Proof("AC-2", check_the_load_runs_in_a_copy_of_the_first_callers_context, [EMPTY]),
    Proof("AC-2", check_a_failure_is_let_go_without_the_collector, [KEEPS_ERROR]),
    Proof("AC-2", check_a_task_that_a_loader_left_keeps_no_value),
    Proof("AC-4", check_loads_leave_nothing_behind, [KEEPS_LOADER]),
    Proof("AC-2", check_who_waited_for_a_lost_load_takes_a_value_stored_meanwhile),
    Proof("AC-2", check_a_load_that_is_cancelled_before_its_first_step_strands_nobody),
    Proof("AC-2", check_a_load_that_nobody_else_refers_to_is_not_collected),
]

test_loads = holding(LOADS)
test_loads_catch = failing(LOADS, COMPONENT)


@each_way
@pytest.mark.parametrize("value", [42, "a value", None])
def test_a_loader_that_is_not_asynchronous_is_refused(value: object, tasks: str) -> None:
    async def check(m: ModuleType) -> None:
        cache = m.AsyncTTLCache()
        with pytest.raises(TypeError, match="loader must be an async function") as caught:
            await cache.get_or_load("key", lambda: value)
        assert repr(value) in str(caught.value)
        assert await cache.items() == []

    hold(check, ours, tasks)


class Generates:
    """Loaders that would never run."""

    async def __call__(self) -> AsyncIterator[int]:
        yield 42

    async def later(self) -> AsyncIterator[int]:
        yield 42

    def generate(self) -> Iterator[int]:
        yield 42


GENERATORS: dict[str, Any] = {
    "object": Generates(),
    "method": Generates().later,
    "partial": functools.partial(Generates.later, Generates()),
    "generator": Generates().generate,
}


@each_way
@pytest.mark.parametrize("kind", GENERATORS)
def test_a_generator_is_no_loader(kind: str, tasks: str) -> None:
    async def check(m: ModuleType) -> None:
        cache = m.AsyncTTLCache()
        with pytest.raises(TypeError, match=r"^loader must be an async function"):
            await cache.get_or_load("key", GENERATORS[kind])
        assert (cache.stats.misses, cache.stats.load_failures) == (0, 0), "it changed something"

    hold(check, ours, tasks)


@each_way
@pytest.mark.guarantee("AC-2")
def test_a_keyboard_interrupt_in_a_loader_ends_the_loop_and_spoils_nothing(tasks: str) -> None:
    cache = AsyncTTLCache[str, int]()

    async def interrupted(_: ModuleType) -> None:
        async def load() -> int:
            raise KeyboardInterrupt

        await cache.get_or_load("key", load)

    async def afterwards(_: ModuleType) -> None:
        assert await cache.get_or_load("key", load_42) == 42

    with pytest.raises(KeyboardInterrupt):
        hold(interrupted, ours, tasks)
    hold(afterwards, ours, tasks)
