"""AsyncEventBus: who is called for an event, with what context, and what a failure does."""

import asyncio
import contextvars
import itertools
import logging
from inspect import isawaitable
from types import ModuleType
from typing import Any

import pytest

from reference_impl.buses import async_event_bus
from reference_impl.buses.event import ANY, BusFull, BusStats, Event, Handler
from tests.buses.async_event_bus.helpers import (
    COMPONENT,
    Gate,
    ends_handlers_instead_of_cancelling,
    event,
    forever,
    handlers,
    hold,
    instead,
    payloads,
    running,
    twin,
)
from tests.kit.fakes import turns
from tests.kit.proofs import Proof, each_proof, failing
from tests.kit.twins import Fault, Twin

# AB-1: exactly once per subscription


async def check_once_per_subscription(m: ModuleType) -> None:
    seen: list[tuple[str, object]] = []

    async def slow(event: Event) -> None:
        await asyncio.sleep(0)
        seen.append(("slow", event.payload))

    def plain(event: Event) -> None:
        seen.append(("plain", event.payload))

    async with m.AsyncEventBus() as bus:
        for topic, handler in (("topic", slow), ("topic", slow), (ANY, plain), ("else", plain)):
            bus.subscribe(topic, handler)
        for payload in range(3):
            await bus.publish(event(payload))
        await bus.publish(event("no more", topic="nobody's"))
    expected = [("slow", n) for n in range(3)] * 2 + [("plain", n) for n in range(3)]
    assert sorted(seen, key=str) == sorted([*expected, ("plain", "no more")], key=str)
    assert bus.stats == BusStats(published=4, delivered=10, failed=0, dropped=0, pending=0)


@twin(
    "does not call those who subscribed to ANY",
    "AssertionError: sorted(seen, key=str)",
    "subscribe",
)
def _never_for_any(subscribe: Any, bus: Any, topic: Any, handler: Handler, **options: Any) -> Any:
    return subscribe(bus, object() if topic is ANY else topic, handler, **options)


@twin(
    "calls a handler that subscribed twice once",
    "AssertionError: sorted(seen, key=str)",
    "subscribe",
)
def _once_a_handler(subscribe: Any, bus: Any, topic: Any, handler: Handler, **options: Any) -> Any:
    bus.unsubscribe(topic, handler)
    return subscribe(bus, topic, handler, **options)


async def check_subscriptions_of_the_acceptance(m: ModuleType) -> None:
    """Who subscribes while a publisher waits for room is called; who left, is not."""
    gate = Gate()
    late: list[Event] = []
    gone: list[Event] = []
    async with running(m, 1, max_queue=1) as bus:
        bus.subscribe("topic", gate)
        leaving = bus.subscribe("topic", gone.append)
        await bus.publish(event(1))
        waiting = asyncio.create_task(bus.publish(event(2)))
        await turns()
        assert not waiting.done()
        leaving.cancel()
        bus.subscribe("topic", late.append)
        gate.open()
        await waiting
    assert payloads(late) == [2]
    assert gone == []


def _subscriptions_before_the_wait() -> Fault:
    moments = itertools.count()
    published: dict[int, int] = {}

    async def publish(original: Any, bus: Any, event: Event, timeout: float | None = None) -> None:
        published[id(event)] = next(moments)
        await original(bus, event, timeout)

    def wrap(handler: Handler) -> Handler:
        subscribed = next(moments)

        def call(event: Event) -> object:
            return handler(event) if subscribed < published[id(event)] else None

        return call

    return instead("publish", publish) + handlers(wrap)


# AB-3: failing handlers


async def check_failing_handlers(m: ModuleType) -> None:
    heard: list[tuple[object, type[BaseException]]] = []
    seen: list[object] = []

    async def on_error(event: Event, handler: object, error: BaseException) -> None:
        await asyncio.sleep(0)
        heard.append((event.payload, type(error)))

    def plain(event: Event) -> None:
        raise KeyError(event.payload)

    async def at_once(event: Event) -> None:
        raise ValueError(event.payload)

    async def later(event: Event) -> None:
        await asyncio.sleep(0)
        raise OSError(event.payload)

    async def cancelled(event: Event) -> None:
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    async def cancels_itself(event: Event) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    def wrong_signature() -> None:
        raise AssertionError("never called")

    async with running(m, 2, on_error=on_error) as bus:
        for handler in (plain, at_once, later, cancelled, cancels_itself, wrong_signature):
            bus.subscribe("topic", handler)
        bus.subscribe("topic", lambda e: seen.append(e.payload))
        for payload in (1, 2):
            await bus.publish(event(payload))
        await turns(120)
        assert bus.stats.pending == 0, "a slot or a call was lost"
    errors: list[type[BaseException]] = [KeyError, ValueError, OSError, TypeError]
    errors += [asyncio.CancelledError] * 2
    assert sorted(map(str, heard)) == sorted(str((n, e)) for n in (1, 2) for e in errors)
    assert seen == [1, 2]
    assert bus.stats == BusStats(published=2, delivered=2, failed=12, dropped=0, pending=0)


@twin("keeps the slot of a handler that was cancelled", "AssertionError: a slot or a call was lost")
def _keeps_cancelled(handler: Handler) -> Handler:
    async def call(event: Event) -> None:
        try:
            result = handler(event)
            if isawaitable(result):
                await result
        except asyncio.CancelledError:
            await forever()

    return call


@twin(
    "does not await an on_error that is a coroutine function",
    "AssertionError: sorted(map(str, heard))",
    "__init__",
)
def _closes_what_on_error_gives(init: Any, bus: Any, *limits: Any, on_error: Any, **o: Any) -> None:
    init(bus, *limits, on_error=lambda *about: on_error(*about).close(), **o)


def _fails(_: Event) -> None:
    raise ValueError("the handler's own")


def _fails_too(*_: object) -> None:
    raise RuntimeError("on_error fails, too")


async def check_failures_are_logged(m: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    """Without an on_error, and where that fails itself."""
    for on_error, told, error in ((None, _fails, ValueError), (_fails_too,) * 2 + (RuntimeError,)):
        caplog.clear()
        async with running(m, on_error=on_error) as bus:
            bus.subscribe("topic", _fails)
            await bus.publish(event())
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
        assert caplog.messages == [f"{told!r} failed on a 'topic' event"]
        assert caplog.records[0].exc_info is not None
        assert isinstance(caplog.records[0].exc_info[1], error)
        assert bus.stats.failed == 1


@twin("logs nothing", "AssertionError: record.levelno", "__init__")
def _hears_nothing(init: Any, bus: Any, *limits: Any, on_error: Any = None, **options: Any) -> None:
    init(bus, *limits, on_error=on_error or (lambda *_: None), **options)


def check_an_exit_in_a_handler(m: ModuleType) -> None:
    """SystemExit and KeyboardInterrupt end the loop, as in any of its tasks, and are counted."""
    for error in (SystemExit, KeyboardInterrupt):
        heard: list[BaseException] = []
        bus = m.AsyncEventBus(on_error=lambda _, __, e, heard=heard: heard.append(e))

        def leave(_: Event, error: type[BaseException] = error) -> None:
            raise error

        async def main(bus: Any = bus, leave: Handler = leave) -> None:
            # The loop would tell of the exit once more, when its task is collected.
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)
            await bus.start()
            bus.subscribe("topic", leave)
            bus.publish_nowait(event())
            await turns()

        with pytest.raises(error):
            asyncio.run(main())
        assert [type(e) for e in heard] == [error]
        assert bus.stats == BusStats(published=1, delivered=0, failed=1, dropped=0, pending=0)


@twin("swallows an exit in a handler", "Failed: DID NOT RAISE")
def _survives_an_exit(handler: Handler) -> Handler:
    def call(event: Event) -> object:
        try:
            return handler(event)
        except (SystemExit, KeyboardInterrupt) as error:
            raise RuntimeError from error

    return call


# AB-4: cancelling a subscription


async def check_cancelling_with_calls_waiting(m: ModuleType) -> None:
    for ordered in (False, True):
        gate, other = Gate(), list[object]()
        async with running(m, 1, max_queue=3) as bus:
            subscription = bus.subscribe("topic", gate, ordered=ordered)
            for payload in range(4):
                await bus.publish(event(payload))
                await turns()
            with pytest.raises(BusFull):
                bus.publish_nowait(event())
            assert subscription.cancel()
            assert not subscription.cancel(), "idempotent"
            assert bus.stats == BusStats(4, delivered=0, failed=0, dropped=3, pending=1)
            bus.subscribe("topic", lambda e, other=other: other.append(e.payload))
            for letter in "abc":  # the room is free again
                bus.publish_nowait(event(letter))
            assert gate.ended == [], "the running call was not waited for"
            gate.open()
        assert gate.started == gate.ended == [0]
        assert other == ["a", "b", "c"]
        assert bus.stats == BusStats(7, delivered=4, failed=0, dropped=3, pending=0)


@twin("says of each cancelling that it was the first", "AssertionError: idempotent", "subscribe")
def _always_the_first(subscribe: Any, *arguments: Any, **options: Any) -> Any:
    subscription = subscribe(*arguments, **options)
    return type(subscription)(lambda: subscription.cancel() or True)


async def check_subscribing_and_cancelling_in_a_handler(m: ModuleType) -> None:
    seen: list[object] = []
    async with running(m) as bus:

        def once(event: Event) -> None:
            seen.append(event.payload)
            bus.unsubscribe("topic", once)
            bus.subscribe("topic", lambda e: seen.append(("then", e.payload)))

        bus.subscribe("topic", once)
        await bus.publish(event(1))
        await turns()
        await bus.publish(event(2))
    assert seen == [1, ("then", 2)]


# AB-9: contexts

who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


async def check_contexts(m: ModuleType) -> None:
    seen: list[str] = []

    async def handler(event: Event) -> None:
        seen.append(who.get())
        who.set("a handler")
        await asyncio.sleep(0)
        assert who.get() == "a handler"
        if event.payload == "fail":
            raise ValueError

    async def publisher(name: str) -> None:
        who.set(name)
        await bus.publish(event())
        await bus.publish(event("fail"))

    def on_error(*_: object) -> None:
        seen.append("on_error in " + who.get())

    async with running(m, on_error=on_error) as bus:
        bus.subscribe("topic", handler)
        bus.subscribe("topic", handler)
        await asyncio.gather(publisher("a"), publisher("b"))
        context = contextvars.copy_context()
        context.run(who.set, "a thread")
        context.run(bus.publish_threadsafe, event())
        await turns()
        assert who.get() == "nobody"
    expected = ["a"] * 4 + ["b"] * 4 + ["a thread"] * 2 + ["on_error in a handler"] * 4
    assert sorted(seen) == sorted(expected)


def _in_context(handler: Any, event: Event, context: contextvars.Context) -> Any:
    return asyncio.get_running_loop().create_task(handler(event), context=context)


@twin("calls a handler in the context of its subscription", "AssertionError: sorted(seen)")
def _subscribers_context(handler: Handler) -> Handler:
    context = contextvars.copy_context()
    return lambda event: _in_context(handler, event, context)


def _one_context_for_all_calls() -> Fault:
    contexts: dict[int, tuple[Event, contextvars.Context]] = {}

    def wrap(handler: Handler) -> Handler:
        def call(event: Event) -> object:
            kept = contexts.setdefault(id(event), (event, contextvars.copy_context()))
            return _in_context(handler, event, kept[1])

        return call

    return handlers(wrap)


PROOFS = [
    Proof("AB-1", check_once_per_subscription, [_never_for_any, _once_a_handler]),
    Proof(
        "AB-1",
        check_subscriptions_of_the_acceptance,
        [
            Twin(
                "calls those who had subscribed before the wait for room",
                _subscriptions_before_the_wait(),
                "AssertionError: payloads(late) == [2]",
            )
        ],
    ),
    Proof("AB-3", check_failing_handlers, [_keeps_cancelled, _closes_what_on_error_gives]),
    Proof("AB-3", check_an_exit_in_a_handler, [_survives_an_exit]),
    Proof(
        "AB-4",
        check_cancelling_with_calls_waiting,
        [
            Twin(
                "leaves the calls of a cancelled subscription in line",
                ends_handlers_instead_of_cancelling(),
                "AssertionError: dropped=3, pending=1",
            ),
            _always_the_first,
        ],
    ),
    Proof(
        "AB-4",
        check_subscribing_and_cancelling_in_a_handler,
        [
            Twin(
                "forgets to unsubscribe",
                instead("unsubscribe", lambda *_: False),
                "AssertionError: seen == [1, ",
            )
        ],
    ),
    Proof(
        "AB-9",
        check_contexts,
        [
            _subscribers_context,
            Twin(
                "has all calls of an event share one context",
                _one_context_for_all_calls(),
                "AssertionError: sorted(seen)",
            ),
        ],
    ),
]
LOGGED = [Proof("AB-3", check_failures_are_logged, [_hears_nothing])]


@each_proof(PROOFS)
def test_delivery(proof: Proof) -> None:
    hold(proof)


test_a_broken_delivery_is_caught = failing(PROOFS, COMPONENT)


@each_proof(LOGGED)
def test_failures_are_logged(proof: Proof, caplog: pytest.LogCaptureFixture) -> None:
    hold(proof, caplog)


test_a_bus_that_logs_nothing_is_caught = failing(LOGGED, COMPONENT, "caplog")


def test_unsubscribe_finds_equal_handlers_of_exactly_this_topic() -> None:
    class Listener:
        def hear(self, event: Event) -> None: ...

    bus, listener = async_event_bus.AsyncEventBus(), Listener()
    bus.subscribe("topic", listener.hear)
    bus.subscribe("topic", listener.hear)
    assert not bus.unsubscribe(ANY, listener.hear)
    assert not bus.unsubscribe("topic", Listener().hear)
    assert bus.unsubscribe("topic", listener.hear)
    assert not bus.unsubscribe("topic", listener.hear)
