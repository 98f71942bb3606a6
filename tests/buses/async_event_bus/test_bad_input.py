"""AsyncEventBus: what it refuses and says of it, and what it keeps no longer than it must."""

import asyncio
import gc
import math
import weakref
from types import ModuleType
from typing import Any

import pytest

from reference_impl.buses import async_event_bus
from reference_impl.buses.event import BusStats, BusStopped, Event
from tests.buses.async_event_bus.helpers import builds, event
from tests.kit.fakes import run


def test_bad_input_changes_nothing() -> None:
    async def main() -> None:
        seen: list[object] = []
        bus = async_event_bus.AsyncEventBus()
        bad: Any
        for refused in (bus.publish(event()), bus.publish(event(), 1.0)):
            with pytest.raises(BusStopped, match=r"not running: await start"):
                await refused
        with pytest.raises(BusStopped):
            bus.publish_nowait(event())
        assert isinstance(bus.publish_threadsafe(event()).exception(0), BusStopped)
        async with bus:
            bus.subscribe("topic", lambda e: seen.append(e.payload))
            for bad in ("text", None, 3):
                with pytest.raises(TypeError, match="event must be an Event"):
                    await bus.publish(bad)
                with pytest.raises(TypeError, match="event must be an Event"):
                    bus.publish_nowait(bad)
                with pytest.raises(TypeError, match="event must be an Event"):
                    bus.publish_threadsafe(bad)
                with pytest.raises(TypeError, match="handler must be a plain or"):
                    bus.subscribe("topic", bad)
            with pytest.raises(TypeError, match=r"event_type.*\[\]"):
                bus.subscribe([], print)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match=r"event_type.*\[\]"):
                bus.unsubscribe([], print)  # type: ignore[arg-type]
            for bad, error in ((-1, ValueError), (math.nan, ValueError), ("1", TypeError)):
                for use in (
                    lambda bad=bad: bus.publish(event(), bad),
                    lambda bad=bad: bus.stop(bad),
                    lambda bad=bad: bus.wait_idle(bad),
                ):
                    with pytest.raises(error, match="timeout"):
                        await use()
            assert bus.is_running
            assert bus.stats == BusStats(0, 0, 0, 0, 0)
            await bus.publish(event("good"), math.inf)
            await bus.wait_idle(math.inf)
        assert seen == ["good"]

    run(main())


@pytest.mark.parametrize("build", builds())
def test_delivered_events_are_released(build: str) -> None:
    class Payload:
        pass

    async def check(m: ModuleType) -> None:
        payload = Payload()
        alive = weakref.ref(payload)

        async def handler(event: Event) -> None:
            await asyncio.sleep(0)
            raise ValueError(event)

        async with m.AsyncEventBus(on_error=lambda *_: None) as bus:
            bus.subscribe("topic", handler)
            bus.subscribe("topic", handler, ordered=True)
            await bus.publish(event(payload))
            del payload
            await bus.wait_idle()
            assert alive() is None, "the bus holds an event that is settled"

    gc.collect()
    gc.disable()
    try:
        run(check(builds()[build]))
    finally:
        gc.enable()


@pytest.mark.parametrize("build", builds())
def test_many_events_leave_memory_flat(build: str) -> None:
    async def check(m: ModuleType) -> None:
        async with m.AsyncEventBus(10, max_queue=100) as bus:
            bus.subscribe("topic", lambda _: None)
            bus.subscribe("topic", lambda _: asyncio.sleep(0), ordered=True)
            sizes = []
            for _ in range(3):
                for _ in range(2_000):
                    await bus.publish(event())
                waits = [bus.wait_idle(0) for _ in range(200)]
                errors = await asyncio.gather(*waits, return_exceptions=True)
                assert all(isinstance(error, TimeoutError) for error in errors)
                await bus.wait_idle()
                gc.collect()
                sizes.append(len(gc.get_objects()))
                del errors
        assert sizes[2] - sizes[1] < 100

    run(check(builds()[build]))
