"""EventBus keeps what both buses promise."""

from typing import Any

import pytest

from reference_impl.buses.event import Event, Handler
from reference_impl.buses.event_bus import EventBus
from tests.contracts.bus_contract import BusContract, Harness
from tests.kit import fakes


class Gate(fakes.Gate):
    """A gate as the contract knows it."""

    @property
    def handler(self) -> Handler:
        return self


class Blocking:
    """EventBus as the contract's harness: its own calls, and gates to open at the end."""

    def __init__(self, bus: EventBus) -> None:
        self.bus = bus
        self.gates: list[Gate] = []
        self.publish_in_handler = bus.publish

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bus, name)

    def gate(self) -> Gate:
        self.gates.append(Gate())
        return self.gates[-1]

    def stopping(self, returned: list[list[Event]], *, drain: bool) -> Handler:
        return lambda event: returned.append(self.bus.stop(drain=drain))

    def close(self) -> None:
        for gate in self.gates:
            gate.open()
        self.bus.stop()
        self.bus.start()  # a handler that a case left behind ends before the next stop
        self.bus.stop()


class TestContract(BusContract):
    def make(self, limit: int = 4, **options: Any) -> Harness:
        given: dict[str, Any] = {"max_queue": 100, "name": "bus"} | options
        bus: Any = Blocking(EventBus(limit, **given))
        harness: Harness = bus
        return harness


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
