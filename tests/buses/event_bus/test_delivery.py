"""Who is called, and what becomes of failures: EB-1 to EB-4, and the handlers' context, EB-9."""

import asyncio
import contextvars
import logging
import threading
from contextlib import suppress
from types import ModuleType
from typing import Any

import pytest

from reference_impl.buses import event_bus
from reference_impl.buses.event import ANY, BusStopped, Event, Handler
from tests.buses.event_bus import faults
from tests.buses.event_bus.faults import arguments, wrong
from tests.buses.event_bus.helpers import Proofs, logged, occupied, running, watched
from tests.kit.fakes import PATIENCE, Beside
from tests.kit.proofs import failing, holding
from tests.kit.twins import Twin, edit, within

PROOFS = Proofs()

# EB-1: once for each subscription.


@PROOFS.prove("EB-1", wrong(faults.ForgetsAny, "AssertionError: assert sorted(seen) =="))
def check_each_subscription_is_called_once(m: ModuleType) -> None:
    with running(m, 2) as bus:
        seen: list[str] = []
        for topic, name in (("topic", "a"), ("topic", "a"), (ANY, "any"), ("other", "b")):
            bus.subscribe(topic, lambda event, name=name: seen.append(name))
        bus.publish(Event("topic"))
        bus.wait_idle(PATIENCE)
        assert sorted(seen) == ["a", "a", "any"]


@PROOFS.prove("EB-1")
def check_any_is_no_topic_of_its_name(m: ModuleType) -> None:
    with running(m, 1) as bus:
        seen: list[object] = []
        bus.subscribe(ANY, lambda event: seen.append(("ANY", event.event_type)))
        bus.subscribe(ANY.value, lambda event: seen.append((ANY.value, event.event_type)))
        bus.publish(Event(ANY.value))
        bus.publish(Event("other"))
        bus.wait_idle(PATIENCE)
        assert sorted(map(str, seen)) == [
            "('ANY', 'any')",
            "('ANY', 'other')",
            "('any', 'any')",
        ]


@PROOFS.prove("EB-1", wrong(faults.LooksUpBeforeTheWait, "AssertionError: assert seen == [late]"))
def check_who_subscribes_while_a_publisher_waits_for_room_is_called(m: ModuleType) -> None:
    """Acceptance comes after the wait for room, and so does the look-up."""
    with occupied(m, Event("gate"), max_queue=1) as (bus, gate, hooks):
        seen: list[Event] = []
        late = Event("gate")
        publisher = Beside(bus.publish, late)
        hooks.await_waiting()
        bus.subscribe("gate", seen.append)
        gate.open()
        publisher.result()
        bus.wait_idle(PATIENCE)
        assert seen == [late]


@PROOFS.prove("EB-1")
def check_many_publishers_lose_nothing(m: ModuleType) -> None:
    """The recommended test of the original, without its sleep."""
    counts: list[int] = []
    with m.EventBus(10, max_queue=50) as bus:
        bus.subscribe("topic", lambda event: counts.append(event.payload))
        start = threading.Barrier(10)

        def publish() -> None:
            start.wait()
            for number in range(50):
                bus.publish(Event("topic", number))

        for thread in [Beside(publish) for _ in range(10)]:
            thread.result()
    assert sorted(counts) == sorted(list(range(50)) * 10)


@PROOFS.prove("EB-1")
def check_a_coroutine_may_publish_and_handlers_run_elsewhere(m: ModuleType) -> None:
    """The original raised where a loop ran, and ran handlers in the publisher's thread."""
    threads: list[threading.Thread] = []

    async def main() -> None:
        bus.publish(Event("topic"), timeout=0)

    with m.EventBus(1) as bus:
        bus.subscribe("topic", lambda event: threads.append(threading.current_thread()))
        asyncio.run(main())
    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()


# EB-2: accepted or refused.


@PROOFS.prove("EB-2", wrong(faults.AcceptsWhileStopping, "Failed: pytest.raises(BusStopped"))
def check_publishing_while_draining_is_refused(m: ModuleType) -> None:
    with occupied(m) as (bus, gate, hooks):
        stopper = Beside(bus.stop)
        hooks.await_waiting()
        assert not bus.is_running
        with pytest.raises(BusStopped, match="stopping"):
            bus.publish(Event("topic"))
        with pytest.raises(RuntimeError, match="stopping"):
            bus.start()
        gate.open()
        assert stopper.result() == []
        assert len(gate.seen) == 1


# EB-3: failures stay where they are.


def _silent(on_error: Any) -> Any:
    def hear(*about: Any) -> None:
        with suppress(BaseException):
            on_error(*about)

    return on_error and hear


@PROOFS.prove(
    "EB-3", wrong(faults.ForgivesExits, "AssertionError: assert [about[::2] for about in heard]")
)
def check_on_error_hears_of_every_failure(m: ModuleType) -> None:
    """Any BaseException: counted, told to on_error, and the worker goes on."""
    heard: list[tuple[Event, Handler, BaseException]] = []
    failures = [
        ValueError("v"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
    ]
    with running(m, 1, on_error=lambda *about: heard.append(about)) as bus:
        seen: list[Event] = []

        def fail(event: Event) -> None:
            raise event.payload

        bus.subscribe("topic", fail)
        bus.subscribe("topic", seen.append)
        events = [Event("topic", failure) for failure in failures]
        for event in events:
            bus.publish(event)
        bus.wait_idle(PATIENCE)
        assert seen == events
        assert [about[::2] for about in heard] == [(event, event.payload) for event in events]
        assert {handler for _, handler, _ in heard} == {fail}
        assert (bus.stats.failed, bus.stats.delivered) == (5, 5)


@PROOFS.prove(
    "EB-3",
    Twin(
        "says nothing of a failure that nobody hears of",
        arguments(on_error=lambda on_error: on_error or (lambda *about: None)),
        "AssertionError: assert len(records) == 1",
    ),
    Twin(
        "says nothing of a failing on_error",
        arguments(on_error=_silent),
        "AssertionError: assert len(records) == 1",
    ),
)
def check_failures_are_logged(m: ModuleType) -> None:
    """Without on_error the failure is logged; with one that raises, both are."""

    def fail(event: Event) -> None:
        raise ValueError("first")

    def fail_too(*about: object) -> None:
        raise SystemExit("second")

    for on_error, words in (
        (None, [f"{fail!r} failed on a 'topic' event", "first"]),
        (fail_too, ["orders: on_error failed", "first", "second"]),
    ):
        with logged() as records, running(m, 1, on_error=on_error, name="orders") as bus:
            bus.subscribe("topic", fail)
            bus.publish(Event("topic"))
            bus.wait_idle(PATIENCE)
            assert len(records) == 1
            text = logging.Formatter().format(records[0])
            assert text.startswith(words[0])
            assert all(word in text for word in words)
            assert bus.stats.failed == 1


@PROOFS.prove("EB-3")
def check_a_faulty_log_handler_ends_no_worker(m: ModuleType) -> None:
    class Faulty(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("the disk is full")

    faulty, logger = Faulty(), logging.getLogger(m.__name__)
    logger.addHandler(faulty)
    try:
        with m.EventBus(1) as bus:
            bus.subscribe("topic", lambda event: 1 / 0)
            for _ in range(3):
                bus.publish(Event("topic"))
            bus.wait_idle(PATIENCE)
            assert bus.stats.failed == 3
    finally:
        logger.removeHandler(faulty)


# EB-4: subscribing and cancelling at any time.


@PROOFS.prove("EB-4", wrong(faults.IgnoresCalls, "AssertionError: assert bus.stats.dropped == 2"))
def check_cancel_drops_what_waits_and_makes_room(m: ModuleType) -> None:
    with occupied(m, max_queue=2) as (bus, gate, hooks):
        seen: list[Event] = []
        plain = bus.subscribe("topic", seen.append)
        ordered = bus.subscribe("topic", seen.append, ordered=True)
        bus.publish(Event("topic"))
        bus.publish(Event("topic"))
        publisher = Beside(bus.publish, Event("gate"), PATIENCE)
        hooks.await_waiting()
        assert plain.cancel()
        assert bus.stats.dropped == 2
        assert ordered.cancel()
        assert not ordered.cancel()
        publisher.result()  # the dropped calls made room
        assert bus.stats.dropped == 4
        gate.open()
        bus.wait_idle(PATIENCE)
        assert seen == []
        assert bus.stats.delivered == 2


@PROOFS.prove(
    "EB-4",
    Twin(
        "cancels nothing when a block is left",
        within("buses/event", edit("Subscription.__exit__", "self.cancel()", "pass")),
        "AssertionError: assert bus.stats.delivered == 1",
    ),
)
def check_a_subscription_ends_with_its_block(m: ModuleType) -> None:
    with running(m, 1) as bus:
        with bus.subscribe("topic", lambda event: None):
            bus.publish(m.Event("topic"))
            bus.wait_idle(PATIENCE)
        bus.publish(m.Event("topic"))
        bus.wait_idle(PATIENCE)
        assert bus.stats.delivered == 1


@PROOFS.prove("EB-4")
def check_a_handler_may_cancel_itself_and_subscribe_others(m: ModuleType) -> None:
    seen: list[str] = []
    with m.EventBus(1) as bus:

        def once(event: Event) -> None:
            seen.append("once")
            subscription.cancel()
            bus.subscribe("topic", lambda event: seen.append("then"))

        subscription = bus.subscribe("topic", once)
        for _ in range(3):
            bus.publish(Event("topic"))
            bus.wait_idle()
    assert seen == ["once", "then", "then"]


@PROOFS.prove("EB-4", wrong(faults.ComparesUnderItsLock, "AssertionError: compared under a lock"))
def check_handlers_are_compared_without_the_lock(m: ModuleType) -> None:
    """An `==` that calls the bus would hang if it held the bus's lock."""
    with watched(m) as waits, running(m, 1) as bus:

        class Handler:
            def __call__(self, event: Event) -> None: ...

            def __eq__(self, other: object) -> bool:
                assert not waits.mine(), "compared under a lock"
                return True

            __hash__ = None  # type: ignore[assignment]

        bus.subscribe("topic", Handler())
        assert bus.unsubscribe("topic", Handler())


# EB-9: each call has a copy of the publisher's context.

request_id = contextvars.ContextVar("request_id", default="none")


SEEN = "AssertionError: assert seen =="


@PROOFS.prove("EB-9", wrong(faults.SharedContext, SEEN), wrong(faults.EmptyContext, SEEN))
def check_each_call_has_its_own_copy_of_the_publishers_context(m: ModuleType) -> None:
    with running(m, 1) as bus:
        seen: list[str] = []

        def spoil(event: Event) -> None:
            seen.append(request_id.get())
            request_id.set("spoilt")

        bus.subscribe("topic", spoil)
        bus.subscribe("topic", spoil)
        context = contextvars.copy_context()
        context.run(request_id.set, "r-1")
        context.run(bus.publish, Event("topic"))
        bus.wait_idle(PATIENCE)
        assert seen == ["r-1", "r-1"]
        assert context[request_id] == "r-1"


@PROOFS.prove("EB-9")
def check_on_error_sees_the_publishers_context(m: ModuleType) -> None:
    seen: list[str] = []
    with m.EventBus(1, on_error=lambda *about: seen.append(request_id.get())) as bus:
        bus.subscribe("topic", lambda event: 1 / 0)
        context = contextvars.copy_context()
        context.run(request_id.set, "r-2")
        context.run(bus.publish, Event("topic"))
    assert seen == ["r-2"]


test_it_holds = holding(PROOFS, event_bus)
test_its_twin_fails = failing(PROOFS, "buses/event_bus")
