"""AsyncEventBus: calls whose task is cancelled before its first step are not lost."""

import asyncio
from collections.abc import Awaitable, Coroutine, Generator
from types import ModuleType
from typing import Any

import pytest

from reference_impl.buses import async_event_bus
from reference_impl.buses.event import BusFull, BusStats, Event
from tests.buses.async_event_bus.helpers import (
    COMPONENT,
    Gate,
    builds,
    event,
    held_up,
    hold,
    payloads,
    running,
)
from tests.buses.async_event_bus.test_delivery import (
    check_failing_handlers,
    check_once_per_subscription,
)
from tests.buses.async_event_bus.test_room import check_a_handler_in_a_full_bus
from tests.buses.async_event_bus.test_stop import check_stop_in_a_handler
from tests.kit.fakes import run, turns, until
from tests.kit.primitives import rebind
from tests.kit.proofs import Proof, each_proof, failing
from tests.kit.twins import Fault, Twin, patch


async def _new_tasks(mine: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """The tasks of the calls that come next; plain ones have had no step."""
    await until(lambda: asyncio.all_tasks() - mine)
    return asyncio.all_tasks() - mine


async def check_tasks_that_others_cancel(m: ModuleType) -> None:
    """Whoever cancels every task he sees loses no call that had not started."""
    heard: list[object] = []
    gate = Gate()
    bus = m.AsyncEventBus(on_error=lambda e, _, error: heard.append((e.payload, type(error))))
    await bus.start()
    for ordered in (False, True):
        bus.subscribe("topic", gate, ordered=ordered)
    mine = asyncio.all_tasks()
    await bus.publish(event(1))
    await bus.publish(event(2))
    for task in await _new_tasks(mine):
        task.cancel()
    gate.open()
    await bus.wait_idle()
    stats = bus.stats
    assert stats.pending == stats.dropped == 0
    assert stats.delivered + stats.failed == 4
    assert len(gate.ended) == stats.delivered
    assert len(heard) == stats.failed
    assert len(gate.started) == 4, "a call was lost"
    await bus.stop()


class _Begun(Awaitable[Any]):
    """Goes on with a coroutine that may have begun."""

    def __init__(self, coro: Coroutine[Any, Any, Any]) -> None:
        self._coro = coro

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield from self._coro.__await__())


def _loses_what_had_no_step() -> Fault:
    async def go_on(coro: Coroutine[Any, Any, Any]) -> Any:
        return await _Begun(coro)

    def task(coro: Coroutine[Any, Any, Any], *, loop: Any, context: Any, **_: Any) -> Any:
        made = asyncio.Task(go_on(coro), loop=loop, context=context)
        made.add_done_callback(lambda _: coro.close())
        return made

    def change(module: ModuleType) -> None:
        rebind(module, asyncio, Task=task)

    return patch(change)


async def check_a_stop_before_the_first_step(m: ModuleType) -> None:
    """If it times out, the call is returned, or was made."""
    gate = Gate()
    bus = m.AsyncEventBus(1, on_error=lambda *_: None)
    await bus.start()
    bus.subscribe("topic", gate)
    mine = asyncio.all_tasks()
    for payload in range(3):
        await bus.publish(event(payload))
    await _new_tasks(mine)
    left = await bus.stop(0)
    assert [*gate.started, *payloads(left)] == [0, 1, 2]
    assert bus.stats.pending == 0


async def check_a_stop_whose_time_is_over_in_the_turn_that_starts_a_call(m: ModuleType) -> None:
    """It returns that call with those that wait: its task was made, and had no step."""
    bus, gate = await held_up(m)
    asyncio.get_running_loop().call_soon(gate.open)  # just before the time is over
    assert payloads(await bus.stop(0)) == [1, 2]
    assert gate.started == gate.ended == [0]
    assert bus.stats == BusStats(published=3, delivered=1, failed=0, dropped=2, pending=0)


PROOFS = [
    Proof(
        "AB-1",
        check_tasks_that_others_cancel,
        [
            Twin(
                "loses a call whose task is cancelled before its first step",
                _loses_what_had_no_step(),
                "hang",
            )
        ],
    ),
    Proof("AB-8", check_a_stop_before_the_first_step),
    Proof("AB-8", check_a_stop_whose_time_is_over_in_the_turn_that_starts_a_call),
]


@each_proof(PROOFS)
def test_a_call_without_a_step(proof: Proof) -> None:
    hold(proof)


test_a_lost_call_is_caught = failing(PROOFS, COMPONENT)


def test_an_eager_task_factory_changes_nothing() -> None:
    factory = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        pytest.skip("Python 3.11 has no eager tasks")

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        await check_once_per_subscription(async_event_bus)
        await check_failing_handlers(async_event_bus)
        await check_stop_in_a_handler(async_event_bus)
        await check_a_handler_in_a_full_bus(async_event_bus)

    run(main())


# Plain tasks alone: an eager one has its first step at once.


async def _cancel_before_the_first_step(mine: set[asyncio.Task[Any]]) -> None:
    """Its call is put back."""
    tasks = await _new_tasks(mine)
    assert len(tasks) == 1
    for task in tasks:
        task.cancel()
    await asyncio.sleep(0)
    assert all(task.done() for task in tasks)


async def check_a_call_that_is_put_back(m: ModuleType) -> None:
    """It is first in line again, and takes its room and no slot."""
    gate = Gate()
    async with running(m, 1, max_queue=1) as bus:
        bus.subscribe("topic", gate)
        mine = asyncio.all_tasks()
        bus.publish_nowait(event(1))
        await _cancel_before_the_first_step(mine)
        with pytest.raises(BusFull):
            bus.publish_nowait(event("refused"))
        await turns()
        assert gate.started == [1]
        bus.publish_nowait(event(2))
        await turns()
        assert gate.started == [1], "one slot too many"
        with pytest.raises(BusFull):
            bus.publish_nowait(event("refused"))
        gate.open()
    assert gate.ended == [1, 2]
    assert bus.stats == BusStats(published=2, delivered=2, failed=0, dropped=0, pending=0)


async def check_one_of_two_calls_that_is_put_back(m: ModuleType) -> None:
    """The event keeps its room until both calls have started."""
    gate = Gate()
    async with running(m, 1, max_queue=2) as bus:
        for _ in range(2):
            bus.subscribe("topic", gate)
        mine = asyncio.all_tasks()
        bus.publish_nowait(event(1))
        bus.publish_nowait(event(2))
        await _cancel_before_the_first_step(mine)
        for _ in range(2):
            with pytest.raises(BusFull):
                bus.publish_nowait(event("refused"))
            await turns()
            assert gate.started in ([], [1])
        gate.open()
        await bus.wait_idle()
        for number in (3, 4):
            bus.publish_nowait(event(number))  # no room is lost
    assert gate.ended == [1, 1, 2, 2, 3, 3, 4, 4]


async def check_a_cancelled_subscriptions_call_that_is_put_back(m: ModuleType) -> None:
    """It is dropped, and no call of another."""
    gone: list[Event] = []
    others: list[Event] = []
    async with running(m, 1) as bus:
        subscription = bus.subscribe("topic", gone.append)
        bus.subscribe("other", others.append)
        mine = asyncio.all_tasks()
        bus.publish_nowait(event())
        bus.publish_nowait(event(topic="other"))
        tasks = await _new_tasks(mine)
        subscription.cancel()
        for task in tasks:
            task.cancel()
    assert gone == []
    assert len(others) == 1
    assert bus.stats == BusStats(published=2, delivered=1, failed=0, dropped=1, pending=0)


ON_PLAIN_TASKS = [
    Proof("AB-5", check_a_call_that_is_put_back),
    Proof("AB-5", check_one_of_two_calls_that_is_put_back),
    Proof("AB-4", check_a_cancelled_subscriptions_call_that_is_put_back),
]


@each_proof(ON_PLAIN_TASKS)
def test_a_call_that_is_put_back(proof: Proof) -> None:
    proof.hold(builds()["plain tasks"])
