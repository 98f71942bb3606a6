"""EventBus keeps what both buses promise."""

from typing import Any

import pytest

from reference_impl.buses.event import Event
from reference_impl.buses.event_bus import EventBus
from tests.contracts.bus_contract import BlockingHarness, BusContract


class TestContract(BusContract):
    def make(self, limit: int = 4, **options: Any) -> Any:
        return BlockingHarness(EventBus(limit, **options))


def test_a_coroutine_function_is_refused() -> None:
    async def handler(event: Event) -> None: ...

    bus = EventBus()
    with pytest.raises(TypeError, match="AsyncEventBus"):
        bus.subscribe("topic", handler)
    assert not bus.unsubscribe("topic", handler)


def test_endless_timeouts_are_accepted() -> None:
    with EventBus(1) as bus:
        bus.publish(Event("topic"), timeout=float("inf"))
        bus.wait_idle(1e300)
        assert bus.stop(float("inf")) == []
