"""Events, topics and figures: what both buses share."""

import copy
import functools
import inspect
import math
import pickle
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import FrozenInstanceError
from datetime import UTC, timedelta
from functools import partial
from types import ModuleType
from typing import Any
from unittest.mock import AsyncMock, Mock

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
        ([], TypeError, r"^event_type must be hashable, not \[\]: use a string"),
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
    calls: list[Any] = [copy.copy, copy.deepcopy]
    calls += [partial(pickle.dumps, protocol=each) for each in range(pickle.HIGHEST_PROTOCOL + 1)]
    for call in calls:
        with pytest.raises(TypeError, match=rf"^{type(made).__name__} cannot be copied .*: \w+"):
            call(made)
    assert weakref.ref(made)() is made


async def _coroutine(*_: object) -> None: ...


def _generator(*_: object) -> Iterator[None]:
    yield


async def _async_generator(*_: object) -> AsyncIterator[None]:
    yield


class _Holder:
    """Each kind of function as a method."""

    coroutine, generator, async_generator = _coroutine, _generator, _async_generator


def _method(function: Any) -> Any:
    return getattr(_Holder(), function.__name__[1:])


def _called(function: Any) -> Any:
    """An object whose call is this function's."""
    return type("Called", (), {"__call__": function})()


def _class_method(function: Any) -> Any:
    return type("Holder", (), {"method": classmethod(function)}).method  # type: ignore[attr-defined]


def _partial_method(function: Any) -> Any:
    made: Any = type("Holder", (), {"method": functools.partialmethod(function, 1)})()
    return made.method


FUNCTIONS = [_coroutine, _generator, _async_generator]
WRAPPED: dict[str, Callable[[Any], Any]] = {
    "a function": lambda function: function,
    "a partial of a partial": lambda function: functools.partial(functools.partial(function)),
    "a method": _method,
    "a partial of a method": lambda function: functools.partial(_method(function)),
    "a class method": _class_method,
    "a partial method": _partial_method,
    "an object": _called,
    "a partial of an object": lambda function: functools.partial(_called(function)),
    "an object that calls a partial": lambda function: _called(
        staticmethod(functools.partial(function))
    ),
    "the call of an object": lambda function: _called(function).__call__,
}
OF_MOCKS: dict[str, Any] = {"a mock": AsyncMock(), "a partial of a mock": partial(AsyncMock())}
if sys.version_info >= (3, 12):
    OF_MOCKS["a marked function"] = inspect.markcoroutinefunction(lambda event: _coroutine())
    OF_MOCKS["a marked object"] = inspect.markcoroutinefunction(_called(print))

BUSES: list[Any] = [EventBus, AsyncEventBus]
PLAIN_ONLY = (
    r"^{} must be a plain function, not .*: define it with `def`, and await elsewhere, "
    r"or use AsyncEventBus$"
)
NO_GENERATOR = (
    r"^{} must be a plain or a coroutine function, not .*: "
    r"define it with `def` or `async def`, without `yield`$"
)


def refuses(made: Any, handler: Any, words: str) -> None:
    """Both as a handler and as on_error, and nothing has changed."""
    with pytest.raises(TypeError, match=words.format("on_error")):
        made(on_error=handler)
    bus = made()
    with pytest.raises(TypeError, match=words.format("handler")):
        bus.subscribe("topic", handler)
    assert not bus.unsubscribe("topic", handler)
    assert not bus.is_running
    assert bus.stats == BusStats(0, 0, 0, 0, 0)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda each: each.__name__)
@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=list(WRAPPED))
def test_a_function_that_would_not_run_is_refused(function: Any, wrap: Any) -> None:
    """Coroutine functions run on a loop; generator functions of either kind never do."""
    refuses(EventBus, wrap(function), PLAIN_ONLY)
    if function is _coroutine:
        AsyncEventBus(on_error=wrap(function)).subscribe("topic", wrap(function))
    else:
        refuses(AsyncEventBus, wrap(function), NO_GENERATOR)


@pytest.mark.parametrize("handler", OF_MOCKS.values(), ids=list(OF_MOCKS))
def test_what_is_marked_as_a_coroutine_function_is_one(handler: Any) -> None:
    refuses(EventBus, handler, PLAIN_ONLY)
    AsyncEventBus(on_error=handler).subscribe("topic", handler)


@pytest.mark.parametrize("bad", [None, 3, "text", [print], Event("topic")])
def test_what_cannot_be_called_is_refused(bad: Any) -> None:
    for made, words in ((EventBus, PLAIN_ONLY), (AsyncEventBus, NO_GENERATOR)):
        with pytest.raises(TypeError, match=words.format("handler")):
            made().subscribe("topic", bad)


@functools.wraps(_coroutine)
def _wrapping(*_: object) -> None: ...


@pytest.mark.parametrize(
    "handler",
    [_wrapping, print, str, [].append, lambda event: None, functools.lru_cache(str), Mock()],
    ids=["wraps", "built-in", "class", "method", "lambda", "cached", "mock"],
)
def test_whatever_else_can_be_called_is_taken(handler: Any) -> None:
    for made in BUSES:
        made(on_error=handler).subscribe("topic", handler)


@pytest.mark.parametrize("made", BUSES)
def test_numbers_are_checked_in_the_same_words_everywhere(made: Any) -> None:
    number: Any = 3
    limit = "max_workers" if made is EventBus else "max_concurrency"
    for name in (limit, "max_queue"):
        made(**{name: 10**400})
        for bad, error, words in [
            (0, ValueError, "at least 1, not 0"),
            (-(10**400), ValueError, "at least 1, not -1"),
            (True, TypeError, "an int, not True"),
            (1.0, TypeError, "an int, not 1.0"),
            ("1", TypeError, "an int, not '1'"),
        ]:
            with pytest.raises(error, match=f"^{name} must be {words}"):
                made(**{name: bad})
    with pytest.raises(TypeError, match=r"^name must be a str, not 3$"):
        made(name=number)


def test_what_is_no_event_is_refused_in_the_same_words() -> None:
    words = r"^event must be an Event, not 'topic': use Event\.create$"
    text: Any = "topic"
    bus = AsyncEventBus()
    for publish in (EventBus().publish, bus.publish_nowait, bus.publish_threadsafe):
        with pytest.raises(TypeError, match=words):
            publish(text)
    with pytest.raises(TypeError, match=words):
        run(bus.publish(text))
    assert bus.stats == BusStats(0, 0, 0, 0, 0)


def test_timeouts_beyond_a_float_are_for_ever_or_refused() -> None:
    with EventBus(1) as bus:
        bus.publish(Event("topic"), 10**400)
        bus.wait_idle(10**400)
        uses: list[Any] = [partial(bus.publish, Event("topic")), bus.wait_idle, bus.stop]
        no_numbers: list[Any] = [False, "", []]
        for use in uses:
            for small in (-(10**400), -1, math.nan):
                with pytest.raises(ValueError, match=r"^timeout must be at least 0 seconds, not "):
                    use(small)
            for bad in no_numbers:
                with pytest.raises(TypeError, match=r"^timeout must be a number of seconds, not "):
                    use(bad)
        assert bus.is_running
        assert bus.stop(10**400) == []

    async def main() -> None:
        async with AsyncEventBus() as bus:
            await bus.publish(Event("topic"), 10**400)
            await bus.wait_idle(10**400)
            assert await bus.stop(10**400) == []

    run(main())
