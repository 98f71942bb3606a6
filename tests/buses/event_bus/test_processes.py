"""Exit, fork and signals."""

import signal
import sys

import pytest

from reference_impl.buses import event_bus
from reference_impl.buses.event import BusStats, Event
from reference_impl.buses.event_bus import EventBus
from tests.buses.event_bus import inside
from tests.buses.event_bus.helpers import hooked, logged, running, workers
from tests.contracts.bus_contract import numbered
from tests.kit.fakes import PATIENCE
from tests.kit.process import run_python


def test_the_exit_stops_each_bus_and_tells_what_is_left() -> None:
    with (
        logged() as records,
        hooked(event_bus) as hooks,
        running(event_bus, 1, gates=1, name="first") as (first, gate),
        running(event_bus, 1) as second,
    ):
        first.subscribe("topic", gate)
        for event in numbered(3):
            first.publish(event)
        gate.await_entered()
        hooks.impatient = True
        inside.exits()
        assert 9 < hooks.cut[0] <= 10
        assert not first.is_running
        assert not second.is_running
        gate.open()
    assert [record.getMessage() for record in records] == [
        f"first stopped, but {gate!r} runs on ('topic')",
        "the interpreter exits: 2 events undelivered",
    ]


def test_a_handler_whose_bus_is_reset_ends_its_worker_and_leaves_a_bus_to_start() -> None:
    """A child forked by a handler goes on in it, on a bus that is as new."""
    seen: list[Event] = []

    def fork(event: Event) -> None:
        seen.append(event)
        if len(seen) == 1:
            inside.is_forked()

    bus = EventBus(1)
    bus.subscribe("topic", fork, ordered=True)
    bus.start()
    (worker,) = workers()
    bus.publish(Event("topic"))
    worker.join(PATIENCE)
    assert not worker.is_alive()
    assert not bus.is_running
    assert bus.stats == BusStats(published=1, delivered=0, failed=0, dropped=0, pending=0)
    with bus:
        bus.publish(Event("topic"))
    assert len(seen) == 2


SETUP = """
    import os, sys, threading, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of fork with threads
    from reference_impl.buses.event import Event
    from reference_impl.buses.event_bus import EventBus
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork here")
def test_a_forked_child_has_a_stopped_bus_that_can_be_started() -> None:
    run_python(
        SETUP
        + """
    seen, gate, inside, locks = [], threading.Event(), threading.Barrier(3), []
    made = threading.Lock
    threading.Lock = lambda: locks.append(made()) or locks[-1]
    bus = EventBus(2)
    threading.Lock = made
    assert locks
    bus.subscribe("gate", lambda event: (inside.wait(), gate.wait()))
    bus.subscribe("topic", seen.append, ordered=True)
    bus.start()
    for _ in range(2):
        bus.publish(Event("gate"))
    bus.publish(Event("topic", "parent's"))
    inside.wait()  # each worker is in its handler: it holds no lock of the bus
    held = [lock for lock in locks if lock.acquire(blocking=False)]  # as if by other threads
    assert held
    child = os.fork()
    if not child:
        try:
            assert not bus.is_running and bus.stop() == []
            gate.set()
            with bus:
                bus.publish(Event("topic", "child's"))
            assert [event.payload for event in seen] == ["child's"], seen
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    for lock in held:
        lock.release()
    assert os.waitpid(child, 0)[1] == 0
    gate.set()
    bus.stop()
    assert [event.payload for event in seen] == ["parent's"], seen
    """
    )


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork here")
def test_a_handler_may_fork() -> None:
    run_python(
        SETUP
        + """
    statuses = []
    def fork(event):
        child = os.fork()
        if not child:
            os._exit(7 if not bus.is_running else 1)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    with EventBus(1) as bus:
        bus.subscribe("topic", fork)
        bus.publish(Event("topic"))
    assert statuses == [7], statuses
    """
    )


def test_the_interpreter_does_not_wait_for_ever_for_a_stuck_handler() -> None:
    done = run_python(
        SETUP
        + """
    from reference_impl.buses import event_bus
    from tests.buses.event_bus.helpers import hooked
    block = hooked(event_bus)
    block.__enter__().impatient = True
    inside = threading.Event()
    bus = EventBus(1, name="stuck-bus")
    bus.subscribe("topic", lambda event: (inside.set(), threading.Event().wait()))
    bus.start()
    bus.publish(Event("topic"))
    bus.publish(Event("topic"))
    inside.wait()
    """
    )
    assert "stuck-bus stopped, but" in done.stderr
    assert "1 events undelivered" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no signals to oneself")
def test_a_signal_handler_hands_over_while_a_publisher_waits() -> None:
    """It must not call the bus, whose lock its thread may hold; setting an event is enough."""
    run_python(
        SETUP
        + f"""
    import signal
    from reference_impl.buses import event_bus
    from tests.buses.event_bus.helpers import watched
    gate, inside = threading.Event(), threading.Event()
    watching = watched(event_bus)
    waits = watching.__enter__()
    bus = EventBus(1, max_queue=1)
    bus.subscribe("topic", lambda event: (inside.set(), gate.wait()))
    bus.start()
    bus.publish(Event("topic"))
    inside.wait()
    bus.publish(Event("topic"))
    def handle(*_):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        gate.set()
    signal.signal(signal.SIGTERM, handle)

    def send():
        waits.await_waiting()
        bus.stats  # there is no figure before the main thread sleeps, as it holds the lock
        while not gate.is_set():  # one signal may come just before the wait, and not be seen
            signal.pthread_kill(threading.main_thread().ident, {int(signal.SIGTERM)})

    waits.forget()
    threading.Thread(target=send).start()
    bus.publish(Event("topic"))
    assert bus.stop() == []
    assert bus.stats.delivered == 3, bus.stats
    """
    )


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers here")
def test_a_storm_of_signals_leaves_nothing_broken() -> None:
    """Real ones, whose handler raises in whatever the main thread does with the bus."""
    run_python(
        SETUP
        + """
    import random, signal
    from contextlib import suppress
    from tests.kit.fakes import Beside

    class Alarm(BaseException): ...

    armed = False  # a signal may reach another thread, which is late

    def raise_it(*_):
        if armed:
            raise Alarm

    signal.signal(signal.SIGALRM, raise_it)
    seen, returned = [], []
    bus = EventBus(2, max_queue=3, name="storm")
    bus.subscribe("topic", seen.append)
    bus.subscribe("topic", seen.append, ordered=True)

    def use():
        with suppress(RuntimeError):
            bus.start()
        for number in range(5):
            with suppress(RuntimeError):
                bus.publish(Event("topic"), 0.001)
            bus.subscribe("other", print).cancel()
        with suppress(TimeoutError):
            bus.wait_idle(0.001)
        bus.stats
        returned.extend(bus.stop(None if random.random() < 0.5 else 0))

    hits = 0
    for seed in range(400):
        random.seed(seed)
        try:
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 3e-3), 2e-4)
                use()
            finally:
                armed = False
                signal.setitimer(signal.ITIMER_REAL, 0)
        except Alarm:
            hits += 1
            with suppress(Alarm):
                signal.setitimer(signal.ITIMER_REAL, 0)
        if seed % 20 == 0:
            Beside(use).result()
    assert hits > 20, hits

    def settle():
        returned.extend(bus.stop())
        with bus:
            bus.publish(Event("topic"))
            bus.wait_idle()
            names = [thread.name for thread in threading.enumerate()]
            assert sum(name.startswith("storm-") for name in names) == 2, names

    Beside(settle).result()
    stats = bus.stats
    assert stats.pending == stats.failed == 0, stats
    assert stats.delivered == len(seen), (stats, len(seen))
    assert 2 * stats.published == stats.delivered + stats.dropped, stats
    left = [thread for thread in threading.enumerate() if thread.name.startswith("storm-")]
    for thread in left:
        thread.join(10)
        assert not thread.is_alive(), left
    """
    )
