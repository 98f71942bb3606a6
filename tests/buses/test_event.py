"""Events, topics and figures: what both buses share."""

import copy
import functools
import pickle
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import FrozenInstanceError
from datetime import UTC, timedelta
from types import ModuleType
from typing import Any

import pytest

from reference_impl.buses import event as event_module
from reference_impl.buses.async_event_bus import AsyncEventBus
from reference_impl.buses.event import ANY, BusStats, Event, EventType, Subscription
from reference_impl.buses.event_bus import EventBus
from tests.kit.fakes import run
from tests.kit.twins import Twin, build, must_fail, override


def test_an_event_is_made_with_an_identity_and_a_utc_time() -> None:
    first, second = Event.create("topic", 1), Event.create("topic", 1)
    assert first.event_id != second.event_id
    assert first.created_at.tzinfo is UTC
    assert first.created_at.utcoffset() == timedelta(0)
    assert (first.event_type, first.payload) == ("topic", 1)
    assert Event.create("topic").payload is None


def test_an_event_is_immutable() -> None:
    event = Event.create("topic")
    with pytest.raises(FrozenInstanceError):
        event.payload = 1  # type: ignore[misc]


@pytest.mark.parametrize("topic", ["text", 7, ("a", 1), EventType.JOB_FAILED, None, frozenset()])
def test_any_hashable_value_is_a_topic(topic: Any) -> None:
    assert Event.create(topic).event_type == topic


def test_a_member_of_the_enum_and_its_text_are_one_topic() -> None:
    assert {EventType.TEST_RESULT: 1}["test_result"] == 1  # type: ignore[index]


def check_the_hash_leaves_the_payload_out(m: ModuleType) -> None:
    event = m.Event.create("topic", {"not": "hashable"})
    assert hash(event) == hash(copy.copy(event))
    assert len({event, copy.copy(event)}) == 1


def test_the_hash_leaves_the_payload_out() -> None:
    check_the_hash_leaves_the_payload_out(event_module)


def test_a_twin_that_hashes_the_payload_fails() -> None:
    hashes_it = override(
        "Event.__hash__", lambda original: lambda self: hash((self.event_type, self.payload))
    )
    twin = Twin("hashes the payload", hashes_it, "TypeError: unhashable")
    must_fail(twin, lambda: check_the_hash_leaves_the_payload_out(build(event_module, hashes_it)))


def test_values_survive_copying_and_pickling_and_can_be_referred_to_weakly() -> None:
    event = Event.create(EventType.ITEM_ADDED, [1, 2])
    assert pickle.loads(pickle.dumps(event)) == event
    assert copy.copy(event) == copy.deepcopy(event) == event
    stats = BusStats(1, 2, 3, 4, 5)
    assert copy.copy(stats) == copy.deepcopy(stats) == pickle.loads(pickle.dumps(stats)) == stats
    assert weakref.ref(event)() is event
    assert weakref.ref(stats)() is stats
    assert copy.deepcopy(ANY) is pickle.loads(pickle.dumps(ANY)) is ANY
    assert repr(ANY) == "ANY"


@pytest.mark.parametrize(
    ("topic", "error", "words"),
    [
        ([], TypeError, r"^event_type must be hashable, got \[\]"),
        (ANY, ValueError, r"^event_type is ANY, .*: publish under a topic of your own$"),
    ],
)
def test_a_bad_topic_is_refused(topic: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Event.create(topic)
    with pytest.raises(error, match=words):
        Event(topic)


def test_figures_are_immutable_and_named() -> None:
    stats = BusStats(published=1, delivered=2, failed=3, dropped=4, pending=5)
    with pytest.raises(FrozenInstanceError):
        stats.pending = 0  # type: ignore[misc]


def test_a_subscription_cancels_by_its_bus_and_on_leaving() -> None:
    calls: list[str] = []

    def cancel() -> bool:
        calls.append("cancel")
        return len(calls) == 1

    with Subscription(cancel) as subscription:
        assert subscription.cancel()
    assert not subscription.cancel()
    assert len(calls) == 3


def test_an_event_of_a_subclass_is_made_as_such() -> None:
    class Alarm(Event):
        def text(self) -> str:
            return f"alarm: {self.payload}"

    assert Alarm.create("topic", 7).text() == "alarm: 7"


@pytest.mark.parametrize(
    "made",
    [EventBus(), AsyncEventBus(), Subscription(lambda: True)],
    ids=lambda made: type(made).__name__,
)
def test_copying_is_refused_in_words(made: object) -> None:
    for call in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=rf"^{type(made).__name__} cannot be copied .*: \w+"):
            call(made)


async def _coroutine(*_: object) -> None: ...


def _generator(*_: object) -> Iterator[None]:
    yield


async def _async_generator(*_: object) -> AsyncIterator[None]:
    yield


class _Holder:
    """Each kind of function as a method."""

    coroutine, generator, async_generator = _coroutine, _generator, _async_generator


def _called(function: Any) -> Any:
    """An object whose call is this function's."""
    return type("Called", (), {"__call__": function})()


FUNCTIONS = {"coroutine": _coroutine, "generator": _generator, "generator ": _async_generator}
WRAPPED: dict[str, Callable[[Any], Any]] = {
    "a function": lambda function: function,
    "a partial": lambda function: functools.partial(functools.partial(function)),
    "a method": lambda function: getattr(_Holder(), function.__name__[1:]),
    "an object": _called,
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=lambda each: each.__name__)
@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=list(WRAPPED))
def test_a_function_that_would_not_run_is_refused(function: Any, wrap: Any) -> None:
    """Coroutine functions run on a loop; generator functions of either kind never do."""
    handler = wrap(function)
    makes: list[Any] = [EventBus, AsyncEventBus]
    for made in makes:
        may_await = made is AsyncEventBus and function is _coroutine
        uses: list[Any] = [
            lambda made=made: made(on_error=handler),
            lambda made=made: made().subscribe("topic", handler),
        ]
        for use in uses:
            if may_await:
                use()
                continue
            words = "coroutine function: use AsyncEventBus"
            words = words if function is _coroutine else "generator function, .* without yield"
            with pytest.raises(TypeError, match=rf"^(handler|on_error) .*{words}$"):
                use()


def test_timeouts_beyond_a_float_are_for_ever_or_refused() -> None:
    with EventBus(1) as bus:
        bus.publish(Event("topic"), 10**400)
        bus.wait_idle(10**400)
        with pytest.raises(ValueError, match="timeout"):
            bus.stop(-(10**400))
        refused: list[Any] = [False, "", []]
        for bad in refused:
            with pytest.raises(TypeError, match="timeout"):
                bus.publish(Event("topic"), bad)
        assert bus.stop(10**400) == []

    async def main() -> None:
        async with AsyncEventBus() as bus:
            await bus.publish(Event("topic"), 10**400)
            await bus.wait_idle(10**400)
            assert await bus.stop(10**400) == []

    run(main())
