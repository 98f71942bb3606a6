"""AsyncEventBus passes what both buses promise, from a thread beside its loop."""

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from reference_impl.buses.event import BusStats, Event, Handler, Subscription
from tests.buses.async_event_bus.helpers import builds
from tests.contracts import bus_contract

if TYPE_CHECKING:
    from reference_impl.buses.async_event_bus import AsyncEventBus

T = TypeVar("T")


class LoopGate:
    """A handler of the loop that waits until it is opened from outside."""

    def __init__(self, harness: "LoopHarness") -> None:
        self.seen: list[Event] = []
        self._harness = harness
        self._entered = threading.Semaphore(0)
        self._opened = asyncio.Event()
        self.handler: Handler = self._handle

    async def _handle(self, event: Event) -> None:
        self.seen.append(event)
        self._entered.release()
        await self._opened.wait()

    def await_entered(self, calls: int = 1) -> None:
        for _ in range(calls):
            assert self._entered.acquire(timeout=bus_contract.PATIENCE)

    def open(self) -> None:
        self._harness.on_loop(self._opened.set)


class LoopSubscription:
    def __init__(self, harness: "LoopHarness", subscription: Subscription) -> None:
        self._harness, self._subscription = harness, subscription

    def cancel(self) -> bool:
        return self._harness.on_loop(self._subscription.cancel)

    def __enter__(self) -> "LoopSubscription":
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()


class LoopHarness:
    """An AsyncEventBus behind blocking calls, its loop in a thread of its own."""

    def __init__(self, module: ModuleType, limit: int, options: dict[str, Any]) -> None:
        self._bus: AsyncEventBus = module.AsyncEventBus(limit, **options)
        self._gates: list[bus_contract.Gate] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def _wait(self, coro: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(coro, self._loop)
        return future.result(bus_contract.PATIENCE)

    def on_loop(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return self._wait(call())

    def start(self) -> None:
        self._wait(self._bus.start())

    def stop(self, timeout: float | None = None, *, drain: bool = True) -> list[Event]:
        return self._wait(self._bus.stop(timeout, drain=drain))

    def publish(self, event: Event, timeout: float | None = None) -> None:
        self._wait(self._bus.publish(event, timeout))

    def publish_in_handler(self, event: Event) -> None:
        self._bus.publish_nowait(event)

    def wait_idle(self, timeout: float | None = None) -> None:
        self._wait(self._bus.wait_idle(timeout))

    def subscribe(
        self, event_type: Any, handler: Handler, *, ordered: bool = False
    ) -> LoopSubscription:
        subscribe = functools.partial(self._bus.subscribe, ordered=ordered)
        return LoopSubscription(self, self.on_loop(lambda: subscribe(event_type, handler)))

    def unsubscribe(self, event_type: Any, handler: Handler) -> bool:
        return self.on_loop(lambda: self._bus.unsubscribe(event_type, handler))

    def gate(self) -> bus_contract.Gate:
        self._gates.append(LoopGate(self))
        return self._gates[-1]

    def stopping(self, returned: list[list[Event]], *, drain: bool) -> Handler:
        async def stop(event: Event) -> None:
            returned.append(await self._bus.stop(drain=drain))

        return stop

    def close(self) -> None:
        for gate in self._gates:
            gate.open()
        self._wait(self._bus.stop())
        left = self.on_loop(lambda: len(asyncio.all_tasks()))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        assert left == 1, "the bus left a task"

    @property
    def stats(self) -> BusStats:
        return self.on_loop(lambda: self._bus.stats)

    @property
    def is_running(self) -> bool:
        return self._bus.is_running


class TestAsEveryBus(bus_contract.BusContract):
    @pytest.fixture(params=list(builds()), autouse=True)
    def build(self, request: pytest.FixtureRequest) -> None:
        self.module = builds()[request.param]

    def make(self, limit: int = 4, **options: Any) -> bus_contract.Harness:
        harness: bus_contract.Harness = LoopHarness(self.module, limit, options)
        return harness
