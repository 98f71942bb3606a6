"""AsyncEventBus: what handlers may return, and of what nothing would run."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

from reference_impl.buses.event import Event
from tests.buses.async_event_bus.helpers import COMPONENT, builds, event
from tests.buses.event_bus.helpers import logged
from tests.kit.proofs import Proof, each_proof, failing
from tests.kit.twins import Twin, patch


def generator(_: Event) -> Iterator[None]:
    yield


async def async_generator(_: Event) -> AsyncIterator[None]:
    yield


async def check_a_generator_that_a_handler_returns_is_a_failure(m: ModuleType) -> None:
    errors: list[BaseException] = []
    async with m.AsyncEventBus(on_error=lambda *about: errors.append(about[2])) as bus:
        for call in (generator, async_generator):
            bus.subscribe("topic", lambda event, call=call: call(event))
        bus.subscribe("topic", lambda _: asyncio.sleep(0))  # which is awaited
        bus.subscribe("topic", str)
        await bus.publish(event())
    assert (bus.stats.delivered, bus.stats.failed) == (2, 2)
    assert [type(error) for error in errors] == [TypeError] * 2
    assert "<generator object generator at " in str(errors[0])
    assert "<async_generator object async_generator at " in str(errors[1])
    assert all(str(error).endswith("nobody runs: loop over it inside") for error in errors)


async def check_a_coroutine_that_is_returned_unawaited_is_a_failure(m: ModuleType) -> None:
    """Its handler forgot to await it."""
    made = asyncio.sleep(0)
    errors: list[BaseException] = []

    async def handler(_: Event) -> object:
        return made

    async with m.AsyncEventBus(on_error=lambda *about: errors.append(about[2])) as bus:
        bus.subscribe("topic", handler)
        await bus.publish(event())
    made.close()
    assert [type(error) for error in errors] == [TypeError]
    assert "which nobody awaits" in str(errors[0])


async def check_a_generator_that_on_error_returns_is_logged(m: ModuleType) -> None:
    def fail(_: Event) -> None:
        raise ValueError("no such unit")

    with logged() as records:
        async with m.AsyncEventBus(on_error=lambda event, *_: generator(event)) as bus:
            bus.subscribe("topic", fail)
            await bus.publish(event())
    assert len(records) == 1
    assert records[0].exc_info
    assert "which nobody runs" in str(records[0].exc_info[1])


def _ignores_results(module: ModuleType) -> None:
    module.check_result = lambda result: None  # type: ignore[attr-defined]


def _ignores(fails: str) -> list[Twin]:
    return [Twin("ignores what handlers return", patch(_ignores_results), fails)]


PROOFS = [
    Proof(
        "AB-3",
        check_a_generator_that_a_handler_returns_is_a_failure,
        _ignores("AssertionError: assert (4, 0) == (2, 2)"),
    ),
    Proof(
        "AB-3",
        check_a_coroutine_that_is_returned_unawaited_is_a_failure,
        _ignores("AssertionError: assert [] == [<class 'TypeError'>]"),
    ),
    Proof(
        "AB-3",
        check_a_generator_that_on_error_returns_is_logged,
        _ignores("AssertionError: assert 0 == 1"),
    ),
]


@each_proof(PROOFS)
def test_holds(proof: Proof) -> None:
    modules: list[Any] = list(builds().values())
    for module in modules:
        proof.hold(module)


test_twin_fails = failing(PROOFS, COMPONENT)
