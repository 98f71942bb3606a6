"""What the tests of AsyncEventBus share: events, both builds, ways to make a twin of it."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from types import ModuleType
from typing import Any

from reference_impl.buses import async_event_bus
from reference_impl.buses.event import BusStopped, Event, Handler, Subscription
from tests.kit.fakes import AsyncGate, turns
from tests.kit.proofs import Proof
from tests.kit.twins import Fault, Twin, build, edit, override

COMPONENT = "buses/async_event_bus"
# As on Python 3.11, where no task is eager.
PLAIN_TASKS = edit("", "sys.version_info >= (3, 12)", "False")


@functools.cache
def builds() -> dict[str, ModuleType]:
    """The component as it is, and as it runs on 3.11."""
    return {"as it is": async_event_bus, "plain tasks": build(COMPONENT, PLAIN_TASKS)}


def hold(proof: Proof, *arguments: Any) -> None:
    """The proof's check holds for both builds."""
    for module in builds().values():
        proof.hold(module, *arguments)


def event(payload: object = None, topic: str = "topic") -> Event:
    return Event.create(topic, payload)


def payloads(events: list[Event]) -> list[Any]:
    return [event.payload for event in events]


class Gate(AsyncGate):
    """A handler that notes the payloads that it was given, and waits until it is opened."""

    async def __call__(self, given: Event | None = None) -> None:
        await super().__call__(None if given is None else given.payload)


@asynccontextmanager
async def running(module: ModuleType, *arguments: Any, **options: Any) -> AsyncIterator[Any]:
    """A bus that runs within the block; where that fails, nobody waits for its handlers."""
    bus = module.AsyncEventBus(*arguments, **options)
    await bus.start()
    yield bus
    await bus.stop()


async def held_up(module: ModuleType) -> tuple[Any, Gate]:
    """A bus that makes one call at a time: the first waits at the gate, two events for it."""
    gate, bus = Gate(), module.AsyncEventBus(1)
    await bus.start()
    bus.subscribe("topic", gate)
    for payload in range(3):
        await bus.publish(event(payload))
    await turns()
    return bus, gate


async def starts_again(bus: Any, seen: list[Any]) -> None:
    """The bus has been stopped, and can be started; its handlers append to `seen`."""
    assert not bus.is_running
    assert bus.stats.pending == 0
    await bus.start()
    await bus.publish(event("again"))
    assert await bus.stop() == []
    assert seen[-1] == "again"


# Faults.


def instead(method: str, call: Callable[..., Any]) -> Fault:
    """`call(the original method, bus, ...)` in place of a public method of the bus."""

    def make(original: Any) -> Any:
        return lambda *arguments, **options: call(original, *arguments, **options)

    return override(f"AsyncEventBus.{method}", make)


def handlers(wrap: Callable[[Handler], Handler]) -> Fault:
    """Handlers are called as `wrap` says."""

    def subscribe(
        original: Any, bus: Any, topic: Any, handler: Handler, **options: Any
    ) -> Subscription:
        subscription: Subscription = original(bus, topic, wrap(handler), **options)
        return subscription

    return instead("subscribe", subscribe)


def twin(
    name: str, fails: str | tuple[str, ...], method: str = ""
) -> Callable[[Callable[..., Any]], Twin]:
    """The decorated function in place of that method, or without one around each handler."""
    return lambda call: Twin(name, instead(method, call) if method else handlers(call), fails)


def ends_handlers_instead_of_cancelling() -> Fault:
    """Who cancels a subscription is spared further calls, but its calls stay in line."""

    def subscribe(
        original: Any, bus: Any, topic: Any, handler: Handler, **options: Any
    ) -> Subscription:
        cancelled: list[bool] = []

        def call(event: Event) -> object:
            return None if cancelled else handler(event)

        def cancel() -> bool:
            cancelled.append(True)
            return len(cancelled) == 1

        original(bus, topic, call, **options)
        return Subscription(cancel)

    return instead("subscribe", subscribe)


def forgets_what_a_cancelled_stop_took_back() -> Fault:
    cancelled: list[object] = []

    async def stop(original: Any, *arguments: Any, **options: Any) -> Any:
        try:
            left = await original(*arguments, **options)
        except asyncio.CancelledError:
            cancelled.append(arguments)
            raise
        forgotten = [*cancelled]
        cancelled.clear()
        return [] if forgotten else left

    return instead("stop", stop)


_tasks: set[asyncio.Task[None]] = set()


def in_background(coro: Coroutine[Any, Any, None]) -> None:
    """Start a task that nobody waits for."""
    task = asyncio.create_task(coro)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


async def leaves_a_task(start: Any, bus: Any) -> None:
    in_background(forever())
    await start(bus)


async def says_accepted(publish: Any, *arguments: Any) -> None:
    with suppress(BusStopped):
        await publish(*arguments)


async def never_says_refused(publish: Any, *arguments: Any) -> None:
    try:
        await publish(*arguments)
    except BusStopped:
        await forever()


async def in_a_task(operation: Any, *arguments: Any, **options: Any) -> Any:
    """The call has a task of its own: a handler that makes it is not recognised."""
    return await asyncio.ensure_future(operation(*arguments, **options))


async def forever() -> None:
    """Wait for what never comes."""
    await asyncio.get_running_loop().create_future()
