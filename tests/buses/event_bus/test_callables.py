"""EventBus: handlers of which nothing runs, where that is seen no sooner than they are called."""

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from reference_impl.buses import event_bus
from reference_impl.buses.event import Event
from tests.buses.event_bus.helpers import logged
from tests.kit.proofs import Proof, failing, holding
from tests.kit.twins import Twin, patch


async def coroutine(event: Event) -> None:
    await asyncio.sleep(0)


def generator(event: Event) -> Iterator[None]:
    yield


def kept(call: Callable[[Event], Any], made: list[Any]) -> Callable[[Event], Any]:
    """A plain function that returns what the call makes; wraps keeps the name alone."""

    @functools.wraps(call)
    def handler(event: Event) -> Any:
        made.append(call(event))
        return made[-1]

    return handler


def check_a_coroutine_that_a_handler_returns_is_a_failure(m: ModuleType) -> None:
    made: list[Any] = []
    errors: list[Any] = []
    with m.EventBus(1, on_error=lambda *about: errors.append(about)) as bus:
        for call in (coroutine, generator):
            bus.subscribe("topic", kept(call, made))
        bus.subscribe("topic", made.append)
        bus.publish(Event("topic"))
    try:
        assert (bus.stats.delivered, bus.stats.failed) == (1, 2)
        assert inspect.getcoroutinestate(made[0]) == inspect.CORO_CLOSED  # without a warning
        (_, handler, error), (_, _, other) = errors
        assert handler.__name__ == "coroutine"
        assert str(error).startswith("the call returned <coroutine object coroutine at ")
        assert str(error).endswith(">, which nobody awaits: await it in a handler of AsyncEventBus")
        assert "<generator object generator at " in str(other)
        assert str(other).endswith(">, which nobody runs: loop over it inside")
        assert type(error) is type(other) is TypeError
    finally:
        made[0].close()


def check_a_coroutine_that_on_error_returns_is_logged(m: ModuleType) -> None:
    """So is the failure that it did not hear of."""
    made: list[Any] = []
    lost = ValueError("no such unit")

    def fail(event: Event) -> None:
        raise lost

    on_error = kept(coroutine, made)
    with (
        logged() as records,
        m.EventBus(1, on_error=lambda event, *_: on_error(event), name="deaf") as bus,
    ):
        bus.subscribe("topic", fail)
        bus.publish(Event("topic"))
    made[0].close()
    (record,) = records
    assert record.getMessage() == "deaf: on_error failed"
    assert record.exc_info
    assert record.exc_info[1]
    assert "which nobody awaits" in str(record.exc_info[1])
    assert record.exc_info[1].__context__ is lost


def check_a_class_is_a_handler(m: ModuleType) -> None:
    """What it makes is dropped, as any result is."""
    made: list[Event] = []

    class Note:
        def __init__(self, event: Event) -> None:
            made.append(event)

    event = Event("topic")
    with m.EventBus(1) as bus:
        bus.subscribe("topic", Note)
        bus.publish(event)
    assert made == [event]
    assert bus.stats.delivered == 1


def _ignores_results(module: ModuleType) -> None:
    module.check_result = lambda result: None  # type: ignore[attr-defined]


def _wants_none(module: ModuleType) -> None:
    def check(result: object) -> None:
        if result is not None:
            raise TypeError(f"the call returned {result!r}")

    module.check_result = check  # type: ignore[attr-defined]


IGNORES_RESULTS = "ignores what handlers return"
PROOFS = [
    Proof(
        "EB-3",
        check_a_coroutine_that_a_handler_returns_is_a_failure,
        [
            Twin(
                IGNORES_RESULTS,
                patch(_ignores_results),
                "AssertionError: assert (3, 0) == (1, 2)",
            )
        ],
    ),
    Proof(
        "EB-3",
        check_a_coroutine_that_on_error_returns_is_logged,
        [Twin(IGNORES_RESULTS, patch(_ignores_results), "ValueError: (record,) = records")],
    ),
    Proof(
        "EB-1",
        check_a_class_is_a_handler,
        [Twin("wants handlers to return None", patch(_wants_none), "AssertionError: delivered")],
    ),
]
test_holds = holding(PROOFS, event_bus)
test_twin_fails = failing(PROOFS, event_bus)
