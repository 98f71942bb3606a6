"""Thread interleavings of EventBus, each check with a twin that it catches."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest

from reference_impl.buses import event_bus
from reference_impl.buses.event import BusFull, BusStopped, Event
from tests.kit.explore import Interleavings
from tests.kit.twins import twin

interleave_test = pytest.importorskip("interleave_test", reason="needs Python >= 3.12")

Model = Callable[[], object]
ONE, TWO, THREE, FOUR = (Event("topic", number) for number in (1, 2, 3, 4))
OTHER = Event("other")


@contextmanager
def running(module: ModuleType, *args: int, **options: Any) -> Iterator[Any]:
    """A started bus; only what happens between start and the final stop is explored."""
    with interleave_test.no_interleave():
        bus = module.EventBus(*args, **options)
    with interleave_test.no_interleave():
        bus.start()
    yield bus
    bus.stop()
    stats = bus.stats
    assert stats.pending == 0
    assert not bus._backlog
    assert not bus._workers


def announced(condition: Any, method: str) -> threading.Semaphore:
    """Counts the waits: each is announced under the lock, so nothing comes in between."""
    waits = threading.Semaphore(0)
    original = getattr(condition, method)

    def announce(*arguments: Any) -> Any:
        waits.release()
        return original(*arguments)

    setattr(condition, method, announce)
    return waits


def catch(
    interleavings: Interleavings,
    model: Callable[[ModuleType], Model],
    *faults: tuple[str, str],
    diagram: str | None = None,
    **search: Any,
) -> None:
    broken = twin("buses/event_bus.py", *faults)
    interleavings.catch(model(broken), granularity="line", diagram=diagram, **search)
    broken._buses.clear()  # its exit hook shall not touch the explorer's locks


@pytest.fixture(autouse=True)
def _explored_buses_neither_log_nor_exit() -> Iterator[None]:
    before = set(event_bus._buses)
    logging.disable()  # a log record asks for the current thread, which the explorer has replaced
    yield
    logging.disable(logging.NOTSET)
    for key in set(event_bus._buses) - before:
        del event_bus._buses[key]


# --- EB-2, EB-1: accepted and handled, or accepted and returned, or refused ---


def publish_racing_stop(module: ModuleType, *, drain: bool = True) -> Model:
    def model() -> None:
        with running(module, 1) as bus:
            seen: list[Event] = []
            accepted: list[Event] = []
            bus.subscribe("topic", seen.append)

            def publish() -> None:
                try:
                    bus.publish(ONE)
                except BusStopped:
                    return
                accepted.append(ONE)

            publisher = interleave_test.spawn(publish)
            returned = bus.stop(drain=drain)
            publisher.join()
            assert seen + returned == accepted

    return model


LOOK_UP_BEFORE_THE_LOCK = (
    "        with self._lock:\n            routes = self._routes_locked(event)\n",
    "        routes = self._routes_locked(event)\n        with self._lock:\n",
)


@pytest.mark.guarantee("EB-1", "EB-2")
def test_publish_racing_stop_is_delivered_or_refused(interleavings: Interleavings) -> None:
    interleavings.prove(publish_racing_stop(event_bus))


@pytest.mark.guarantee("EB-2", "EB-8")
def test_publish_racing_stop_without_drain(interleavings: Interleavings) -> None:
    interleavings.prove(publish_racing_stop(event_bus, drain=False), granularity="line")


@pytest.mark.twin("EB-1", "EB-2")
def test_checking_before_the_lock_strands_an_event(interleavings: Interleavings) -> None:
    catch(
        interleavings,
        publish_racing_stop,
        LOOK_UP_BEFORE_THE_LOCK,
        diagram="An event put between the check and the stop is never handled",
    )


def room_racing_stop(module: ModuleType) -> Model:
    """A publisher that waits for room is refused, or accepted and accounted for."""

    def model() -> None:
        with running(module, 1, max_queue=1) as bus:
            seen: list[Event] = []
            accepted: list[Event] = []
            bus.subscribe("topic", seen.append)

            def publish() -> None:
                try:
                    for event in (ONE, TWO, THREE):
                        bus.publish(event)
                        accepted.append(event)
                except BusStopped:
                    pass

            publisher = interleave_test.spawn(publish)
            returned = bus.stop(drain=False)
            publisher.join()
            assert seen + returned == accepted

    return model


@pytest.mark.guarantee("EB-2", "EB-5")
def test_stop_refuses_who_waits_for_room(interleavings: Interleavings) -> None:
    interleavings.prove(room_racing_stop(event_bus), granularity="line")


@pytest.mark.twin("EB-2", "EB-5")
def test_stop_without_telling_the_room_hangs_a_publisher(interleavings: Interleavings) -> None:
    catch(
        interleavings,
        room_racing_stop,
        ("(self._work, self._room, self._quiet)", "(self._work, self._quiet)"),
    )


# --- EB-4: subscribing and cancelling during publication ---


def cancel_racing_publish(module: ModuleType, *, ordered: bool = False) -> Model:
    """Each call is delivered or dropped, and none starts after `cancel` found none."""

    def model() -> None:
        with running(module, 1) as bus:
            seen: list[Event] = []
            subscription = bus.subscribe("topic", seen.append, ordered=ordered)

            def publish() -> None:
                bus.publish(ONE)
                bus.publish(TWO)

            publisher = interleave_test.spawn(publish)
            subscription.cancel()
            after = bus.stats
            begun = after.delivered + after.pending  # delivered, or running at this instant
            publisher.join()
            bus.wait_idle()
            stats = bus.stats
            assert stats.published == 2
            assert len(seen) == stats.delivered == begun
            assert stats.delivered + stats.dropped <= 2

    return model


@pytest.mark.guarantee("EB-4")
@pytest.mark.parametrize("ordered", [False, True])
def test_no_call_starts_after_cancel(interleavings: Interleavings, ordered: bool) -> None:
    interleavings.prove(cancel_racing_publish(event_bus, ordered=ordered), granularity="line")


@pytest.mark.twin("EB-4")
def test_a_stale_look_up_calls_a_cancelled_handler(interleavings: Interleavings) -> None:
    catch(interleavings, cancel_racing_publish, LOOK_UP_BEFORE_THE_LOCK)


def two_subscribers_at_once(module: ModuleType) -> Model:
    def model() -> None:
        with running(module, 1) as bus:
            seen: list[str] = []
            other = interleave_test.spawn(
                bus.subscribe, "topic", lambda event: seen.append("other")
            )
            bus.subscribe("topic", lambda event: seen.append("own"))
            bus.publish(ONE)
            assert "own" in seen or bus.stats.published
            other.join()
            bus.wait_idle()
            assert seen in (["own"], ["own", "other"], ["other", "own"])
            seen.clear()
            bus.publish(TWO)
            bus.wait_idle()
            assert sorted(seen) == ["other", "own"]

    return model


@pytest.mark.guarantee("EB-1", "EB-4")
def test_no_subscription_is_lost_to_another(interleavings: Interleavings) -> None:
    """The original's look-up during a registration missed a permanent handler."""
    interleavings.prove(two_subscribers_at_once(event_bus), granularity="line")


@pytest.mark.twin("EB-1", "EB-4")
def test_subscribing_without_the_lock_loses_a_subscription(
    interleavings: Interleavings,
) -> None:
    catch(
        interleavings,
        two_subscribers_at_once,
        (
            "        with self._lock:\n            others = self._routes.get(event_type, ())\n",
            "        if True:\n            others = self._routes.get(event_type, ())\n",
        ),
    )


# --- EB-6: ordered subscriptions ---


def ordered_mailbox(module: ModuleType) -> Model:
    """Two workers, one ordered handler: one event at a time, in the publisher's order."""

    def model() -> None:
        with running(module, 2) as bus:
            log: list[tuple[str, int]] = []

            def handler(event: Event) -> None:
                log.append(("begin", event.payload))
                threading.Event().is_set()  # a place where the explorer may switch
                log.append(("end", event.payload))

            bus.subscribe("topic", handler, ordered=True)
            bus.publish(ONE)
            bus.publish(TWO)
            bus.wait_idle()
            assert log == [("begin", 1), ("end", 1), ("begin", 2), ("end", 2)]

    return model


@pytest.mark.guarantee("EB-6")
def test_an_ordered_handler_sees_one_event_at_a_time_in_order(
    interleavings: Interleavings,
) -> None:
    interleavings.prove(ordered_mailbox(event_bus), granularity="line")


@pytest.mark.twin("EB-6")
@pytest.mark.parametrize(
    "fault",
    [
        ("                route.busy = route.ordered\n", ""),  # no mailbox: side by side
        ("        if route.mailbox:\n", "        if False:\n"),  # the next call is stranded
    ],
)
def test_a_broken_mailbox_is_found(interleavings: Interleavings, fault: tuple[str, str]) -> None:
    catch(interleavings, ordered_mailbox, fault)


# --- EB-5, EB-7: wake-ups of workers and of publishers who wait for room ---


def two_publishers_one_place(module: ModuleType) -> Model:
    """While there is room nobody keeps waiting for it, and never more than max_queue wait."""

    def model() -> None:
        with running(module, 1, max_queue=1) as bus:
            seen: list[Event] = []
            bus.subscribe("topic", seen.append)

            def publish(*events: Event) -> None:
                for event in events:
                    bus.publish(event)
                    assert bus._backlog <= 1

            other = interleave_test.spawn(publish, ONE, TWO)
            publish(THREE)
            other.join()
            bus.wait_idle()
            assert sorted(event.payload for event in seen) == [1, 2, 3]

    return model


@pytest.mark.guarantee("EB-5")
def test_who_waits_for_room_gets_it(interleavings: Interleavings) -> None:
    interleavings.prove(two_publishers_one_place(event_bus), granularity="line")


@pytest.mark.twin("EB-5")
@pytest.mark.parametrize(
    "fault",
    [
        (
            "                self._room.notify()\n        return call\n",
            "                pass\n        return call\n",
        ),
        ("self._backlog >= self._max_queue", "self._backlog > self._max_queue"),
        (
            "not self._routes_locked(event) or self._backlog < self._max_queue",
            "True",
        ),
    ],
)
def test_lost_room_is_found(interleavings: Interleavings, fault: tuple[str, str]) -> None:
    catch(interleavings, two_publishers_one_place, fault)


def two_wait_for_two_places(module: ModuleType) -> Model:
    """Two places get free before either waiter wakes: the first tells the second."""

    def model() -> None:
        with running(module, 1, max_queue=2) as bus:
            go, begun = threading.Event(), threading.Event()

            def plug(event: Event) -> None:
                begun.set()
                go.wait()

            bus.subscribe("topic", lambda event: None)
            bus.subscribe("other", plug)
            bus.publish(OTHER)
            begun.wait()
            bus.publish(ONE)
            bus.publish(TWO)
            waiting = [interleave_test.spawn(bus.publish, event) for event in (THREE, FOUR)]
            go.set()
            for publisher in waiting:
                publisher.join()

    return model


@pytest.mark.guarantee("EB-5")
def test_room_for_two_wakes_two(interleavings: Interleavings) -> None:
    interleavings.sample(two_wait_for_two_places(event_bus), schedules=400)


@pytest.mark.twin("EB-5")
def test_a_wake_up_that_is_not_passed_on_is_found(interleavings: Interleavings) -> None:
    catch(
        interleavings,
        two_wait_for_two_places,
        ("            self._room.notify()  # one waiter", "            pass  # one waiter"),
    )


def full_bus_in_a_handler(module: ModuleType) -> Model:
    """With every worker publishing into the full bus nobody would make room."""

    def model() -> None:
        with running(module, 1, max_queue=1) as bus:
            refused: list[BaseException] = []

            def handler(event: Event) -> None:
                bus.publish(OTHER)
                try:
                    bus.publish(OTHER)
                except BusFull as error:
                    refused.append(error)

            bus.subscribe("other", lambda event: None)
            bus.subscribe("topic", handler)
            bus.publish(ONE)
            bus.wait_idle()
            assert len(refused) == 1

    return model


@pytest.mark.guarantee("EB-5")
def test_a_handler_cannot_wait_for_itself(interleavings: Interleavings) -> None:
    interleavings.prove(full_bus_in_a_handler(event_bus), granularity="line")


@pytest.mark.twin("EB-5")
def test_waiting_for_oneself_is_a_deadlock(interleavings: Interleavings) -> None:
    catch(
        interleavings,
        full_bus_in_a_handler,
        ("        if timeout is None and threading.get_ident() in", "        if False and 0 in"),
        diagram="A handler that publishes into the full bus waits for itself",
    )


def a_worker_for_each_call(module: ModuleType) -> Model:
    """Two calls that wait for each other need both workers: none may sleep on."""

    def model() -> None:
        with running(module, 2) as bus:
            asleep = announced(bus._work, "wait")
            met = [threading.Event(), threading.Event()]

            def meet(own: int) -> None:
                met[own].set()
                met[1 - own].wait()

            for _ in range(2):
                asleep.acquire()
            bus.subscribe("topic", lambda event: meet(0))
            bus.subscribe("other", lambda event: meet(1))
            other = interleave_test.spawn(bus.publish, OTHER)
            bus.publish(ONE)
            other.join()
            bus.wait_idle()

    return model


@pytest.mark.guarantee("EB-7", "EB-6")
def test_no_worker_sleeps_while_a_call_is_ready(interleavings: Interleavings) -> None:
    interleavings.sample(a_worker_for_each_call(event_bus), schedules=400)


@pytest.mark.twin("EB-7", "EB-6")
@pytest.mark.parametrize(
    "fault",
    [
        ("                    self._work.notify()\n", "                    pass\n"),
        ("                    self._sleeping -= 1\n", "                    self._sleeping = 0\n"),
    ],
)
def test_a_sleeping_worker_is_found(interleavings: Interleavings, fault: tuple[str, str]) -> None:
    catch(interleavings, a_worker_for_each_call, fault)


# --- EB-3: a worker survives what its handler raises ---


def exit_in_a_handler(module: ModuleType) -> Model:
    def model() -> None:
        with running(module, 1, on_error=lambda *_: None) as bus:
            seen: list[Event] = []

            def handler(event: Event) -> None:
                if event is ONE:
                    raise SystemExit
                seen.append(event)

            bus.subscribe("topic", handler)
            bus.publish(ONE)
            bus.publish(TWO)
            bus.wait_idle()
            assert seen == [TWO]
            assert bus.stats.failed == 1

    return model


@pytest.mark.guarantee("EB-3")
def test_a_worker_survives_system_exit(interleavings: Interleavings) -> None:
    interleavings.prove(exit_in_a_handler(event_bus), granularity="line")


@pytest.mark.twin("EB-3")
def test_a_worker_that_only_survives_exceptions_is_found(interleavings: Interleavings) -> None:
    catch(
        interleavings,
        exit_in_a_handler,
        ("        except BaseException as error:", "        except Exception as error:"),
    )


# --- EB-8: stop, also in handlers and several at once ---


def stop_in_a_handler(module: ModuleType, *, ordered: bool = False) -> Model:
    """One worker, its handler stops the bus, calls wait behind it: nothing hangs or is lost."""

    def model() -> None:
        with running(module, 1) as bus:
            seen: list[Event] = []
            returned: list[Event] = []
            accepted: list[Event] = []

            def handler(event: Event) -> None:
                seen.append(event)
                returned.extend(bus.stop())

            bus.subscribe("topic", handler, ordered=ordered)
            try:
                for event in (ONE, TWO):
                    bus.publish(event)
                    accepted.append(event)
            except BusStopped:
                pass
            returned.extend(bus.stop())
            assert seen + returned == accepted

    return model


@pytest.mark.guarantee("EB-8", "EB-2")
@pytest.mark.parametrize("ordered", [False, True])
def test_stop_in_a_handler_returns(interleavings: Interleavings, ordered: bool) -> None:
    interleavings.prove(stop_in_a_handler(event_bus, ordered=ordered), granularity="line")


@pytest.mark.twin("EB-8", "EB-2")
@pytest.mark.parametrize(
    "fault",
    [
        ("        if me not in self._inside:\n", "        if True:\n"),  # waits for itself
        (" or len(self._workers) == inside)", ")"),  # for calls that nobody can start
    ],
)
def test_a_stop_that_waits_for_itself_is_found(
    interleavings: Interleavings, fault: tuple[str, str]
) -> None:
    catch(interleavings, stop_in_a_handler, fault)


def two_handlers_stop(module: ModuleType) -> Model:
    def model() -> None:
        with running(module, 2) as bus:
            returned: list[Event] = []
            seen: list[Event] = []
            accepted: list[Event] = []

            def handler(event: Event) -> None:
                seen.append(event)
                returned.extend(bus.stop())

            bus.subscribe("topic", handler)
            try:
                for event in (ONE, TWO):
                    bus.publish(event)
                    accepted.append(event)
            except BusStopped:
                pass
            returned.extend(bus.stop())
            handled = sorted(event.payload for event in seen + returned)
            assert handled == [event.payload for event in accepted]

    return model


@pytest.mark.guarantee("EB-8")
def test_two_handlers_and_the_owner_stop_at_once(interleavings: Interleavings) -> None:
    interleavings.sample(two_handlers_stop(event_bus), schedules=400)


@pytest.mark.twin("EB-8")
def test_two_handlers_that_wait_for_each_other_are_found(interleavings: Interleavings) -> None:
    catch(
        interleavings,
        two_handlers_stop,
        ("        inside = len(self._inside)\n", "        inside = 1\n"),
    )


def two_owners_stop(module: ModuleType) -> Model:
    """Each undelivered event is returned once; afterwards the bus can be started again."""

    def model() -> None:
        with running(module, 1) as bus:
            go, begun = threading.Event(), threading.Event()

            def plug(event: Event) -> None:
                begun.set()
                go.wait()

            bus.subscribe("topic", plug)
            bus.publish(ONE)
            begun.wait()
            bus.publish(TWO)
            other: list[Event] = []
            stopper = interleave_test.spawn(lambda: other.extend(bus.stop(drain=False)))
            go.set()
            own = bus.stop(drain=False)
            stopper.join()
            assert own + other in ([], [TWO])
            assert bus.stats.delivered + len(own + other) == 2
            bus.start()
            assert bus.is_running

    return model


@pytest.mark.guarantee("EB-8")
def test_two_stops_return_each_event_once(interleavings: Interleavings) -> None:
    interleavings.prove(two_owners_stop(event_bus), granularity="line")


@pytest.mark.twin("EB-8")
@pytest.mark.parametrize(
    "fault",
    [
        ("taken, self._taken_back = self._taken_back, []", "taken = self._taken_back"),
        ("                self._stops.discard(this)\n", ""),
    ],
)
def test_an_event_returned_twice_is_found(
    interleavings: Interleavings, fault: tuple[str, str]
) -> None:
    catch(interleavings, two_owners_stop, fault)


def stop_with_calls_in_a_mailbox(module: ModuleType) -> Model:
    """What `stop` took back leaves no trace: the ordered handler works after a restart."""

    def model() -> None:
        with running(module, 1) as bus:
            seen: list[Event] = []
            bus.subscribe("topic", seen.append, ordered=True)
            bus.publish(ONE)
            bus.publish(TWO)
            returned = bus.stop(drain=False)
            assert seen + returned == [ONE, TWO]
            bus.start()
            bus.publish(THREE)
            bus.wait_idle()
            assert seen[-1] is THREE

    return model


@pytest.mark.guarantee("EB-8", "EB-6")
def test_an_ordered_handler_works_after_a_restart(interleavings: Interleavings) -> None:
    interleavings.prove(stop_with_calls_in_a_mailbox(event_bus), granularity="line")


@pytest.mark.twin("EB-8", "EB-6")
def test_a_mailbox_that_stays_busy_is_found(interleavings: Interleavings) -> None:
    catch(interleavings, stop_with_calls_in_a_mailbox, ("                route.busy = False\n", ""))


# --- EB-10: wait_idle ---


def stop_releases_who_waits_for_idle(module: ModuleType) -> Model:
    """The handler is stuck, so the bus does not get idle, but it gets stopped."""

    def model() -> None:
        with running(module, 1) as bus:
            go, begun = threading.Event(), threading.Event()

            def plug(event: Event) -> None:
                begun.set()
                go.wait()

            bus.subscribe("topic", plug)
            bus.publish(ONE)
            begun.wait()
            waiter = interleave_test.spawn(bus.wait_idle)
            assert bus.stop(timeout=0) == []
            waiter.join()
            go.set()
            bus.start()

    return model


@pytest.mark.guarantee("EB-10", "EB-8")
def test_a_stopped_bus_keeps_nobody_waiting_for_idle(interleavings: Interleavings) -> None:
    interleavings.prove(stop_releases_who_waits_for_idle(event_bus), granularity="line")


@pytest.mark.twin("EB-10", "EB-8")
def test_a_stop_that_does_not_tell_is_found(interleavings: Interleavings) -> None:
    catch(
        interleavings,
        stop_releases_who_waits_for_idle,
        ("                        self._quiet.notify_all()\n", ""),
    )


def cancel_makes_idle(module: ModuleType) -> Model:
    """The last call is dropped, not handled: who waits for idle is released by that, too."""

    def model() -> None:
        with running(module, 1) as bus:
            subscription = bus.subscribe("topic", lambda event: None)
            canceller = interleave_test.spawn(subscription.cancel)
            bus.publish(ONE)
            bus.wait_idle()
            canceller.join()

    return model


@pytest.mark.guarantee("EB-10", "EB-4")
def test_dropping_the_last_call_makes_idle(interleavings: Interleavings) -> None:
    interleavings.prove(cancel_makes_idle(event_bus), granularity="line")


@pytest.mark.twin("EB-10", "EB-4")
def test_dropping_without_telling_is_found(interleavings: Interleavings) -> None:
    catch(
        interleavings,
        cancel_makes_idle,
        ("        self._progress_locked()\n        return dropped", "        return dropped"),
    )


def idle_moment(module: ModuleType) -> Model:
    """Idle for an instant and busy again: who waited for that is released all the same."""

    def model() -> None:
        with running(module, 1) as bus:
            go, begun, released = (threading.Event() for _ in range(3))
            entered = announced(bus._quiet, "wait_for")

            def plug(event: Event) -> None:
                begun.set()
                go.wait()

            def wait() -> None:
                bus.wait_idle()
                released.set()

            bus.subscribe("topic", plug)
            bus.subscribe("other", lambda event: released.wait())
            bus.publish(ONE)
            begun.wait()
            waiter = interleave_test.spawn(wait)
            entered.acquire()
            go.set()
            bus.wait_idle()
            bus.publish(OTHER)
            waiter.join()

    return model


@pytest.mark.guarantee("EB-10")
def test_an_idle_moment_releases_who_waits(interleavings: Interleavings) -> None:
    interleavings.prove(idle_moment(event_bus), granularity="line")


@pytest.mark.twin("EB-10")
def test_a_missed_idle_moment_is_found(interleavings: Interleavings) -> None:
    catch(
        interleavings,
        idle_moment,
        ("idle = not self._pending or self._idle_moments != seen", "idle = not self._pending"),
    )


def idle_includes_what_handlers_publish(module: ModuleType) -> Model:
    def model() -> None:
        with running(module, 1) as bus:
            seen: list[Event] = []
            go, begun = threading.Event(), threading.Event()

            def chain(event: Event) -> None:
                begun.set()
                go.wait()
                bus.publish(OTHER)

            bus.subscribe("topic", chain)
            bus.subscribe("other", seen.append)
            bus.publish(ONE)
            begun.wait()
            go.set()
            bus.wait_idle()
            assert seen == [OTHER]

    return model


@pytest.mark.guarantee("EB-10")
def test_idle_means_the_handlers_events_too(interleavings: Interleavings) -> None:
    interleavings.prove(idle_includes_what_handlers_publish(event_bus), granularity="line")


@pytest.mark.twin("EB-10")
def test_idle_with_calls_in_hand_is_found(interleavings: Interleavings) -> None:
    catch(
        interleavings,
        idle_includes_what_handlers_publish,
        ("idle = not self._pending or", "idle = not self._ready or"),
    )


# --- beyond one preemption: many schedules drawn at random ---


@pytest.mark.guarantee("EB-1", "EB-2", "EB-5", "EB-6", "EB-8")
def test_publishers_subscribers_and_stop_in_random_schedules(
    interleavings: Interleavings,
) -> None:
    def model() -> None:
        with running(event_bus, 2, max_queue=1) as bus:
            seen: list[Event] = []
            accepted: list[Event] = []

            def publish(*events: Event) -> None:
                try:
                    for event in events:
                        bus.publish(event)
                        accepted.append(event)
                except BusStopped:
                    pass

            bus.subscribe("topic", seen.append, ordered=True)
            brief = bus.subscribe("topic", lambda event: None)
            publishers = [
                interleave_test.spawn(publish, ONE, TWO),
                interleave_test.spawn(publish, THREE, FOUR),
                interleave_test.spawn(brief.cancel),
            ]
            returned = bus.stop()
            for publisher in publishers:
                publisher.join()
            assert returned == []
            numbers = [event.payload for event in seen]
            assert sorted(numbers) == sorted(event.payload for event in accepted)
            assert [n for n in numbers if n <= 2] == [1, 2][: len([n for n in numbers if n <= 2])]
            assert [n for n in numbers if n > 2] == [3, 4][: len([n for n in numbers if n > 2])]

    interleavings.sample(model, schedules=400)
