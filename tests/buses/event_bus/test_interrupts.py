"""Exceptions that a signal handler raises, at each point of each public call of EventBus."""

import atexit
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any

import pytest

from reference_impl.buses import event_bus
from reference_impl.buses.event import BusFull, BusStopped, Event
from tests.buses.event_bus import faults
from tests.buses.event_bus.faults import wrong
from tests.buses.event_bus.helpers import workers
from tests.buses.event_bus.sweeps import Sweep, Sweeps
from tests.kit.fakes import PATIENCE, Beside, Gate
from tests.kit.interrupts import Ending, Hang, Interrupts, elsewhere, patience
from tests.kit.primitives import Over, rebind
from tests.kit.profile import budget
from tests.kit.proofs import each_proof, each_twin
from tests.kit.twins import Twin, build, edit, patch

NAME = "scene"


class Scene:
    """A bus, what its handlers saw, and threads that wait at it.

    Handlers of "gate" hold their worker; "topic" has two handlers, one of them ordered.
    """

    def __init__(
        self, m: ModuleType, *, started: bool = True, size: int = 1, **options: Any
    ) -> None:
        self.bus = m.EventBus(size, name=NAME, **options)
        self.size = size
        self.gate = Gate()
        self.seen: list[Event] = []
        self.ordered: list[Event] = []
        self.handled = threading.Semaphore(0)
        self.accepted: list[Event] = []
        self.returned: list[Event] = []
        self.beside: list[Beside] = []
        self.other: Any = None  # a subscription
        self.bus.subscribe("gate", self.gate)
        self.handlers = [self.handler(self.seen), self.handler(self.ordered)]
        self.plain = self.bus.subscribe("topic", self.handlers[0])
        self.bus.subscribe("topic", self.handlers[1], ordered=True)
        if started:
            elsewhere(self.bus.start)

    def handler(self, seen: list[Event]) -> Callable[[Event], None]:
        def handle(event: Event) -> None:
            seen.append(event)
            self.handled.release()

        return handle

    def occupied(self, waiting: int = 0) -> "Scene":
        """A worker is held, and this many events wait."""
        elsewhere(self.bus.publish, Event("gate"))
        self.gate.await_entered()
        for number in range(waiting):
            self.publish(Event("topic", number))
        return self

    def publish(self, event: Event) -> None:
        """It is accepted, and to be accounted for in the end."""
        self.bus.publish(event, PATIENCE)
        self.accepted.append(event)

    def waits(self, call: Callable[..., object], *arguments: object) -> "Scene":
        """Another thread is in this call, which is to end."""
        self.beside.append(Beside(call, *arguments))
        self.beside[-1].join(0.002)
        return self

    def join(self) -> None:
        """Who is in a call comes out of it."""
        while self.beside:
            elsewhere(self.beside.pop().result)

    def calls(self) -> int:
        """Of all that was published, as the bus counts them."""
        stats = elsewhere(lambda: self.bus.stats)
        return int(stats.delivered + stats.failed + stats.dropped + stats.pending)

    def settle(self) -> None:
        """The bus can be used in full by another thread, and all is accounted for."""
        self.gate.open()
        if not elsewhere(lambda: self.bus.is_running):
            elsewhere(self.stop)
        self.join()
        elsewhere(self.use)
        for worker in workers(NAME):
            worker.join(PATIENCE)  # where the start was interrupted it may be leaving still
            assert not worker.is_alive(), "a worker is left"
        stats = elsewhere(lambda: self.bus.stats)
        assert stats.pending == 0
        for event in self.accepted:
            handled = self.seen.count(event) + self.ordered.count(event)
            returned = self.returned.count(event)
            assert (handled == 2 and not returned) or (handled < 2 and returned == 1), (
                f"handled {handled} times, returned {returned} times"
            )

    def stop(self, timeout: float | None = None, *, drain: bool = True) -> None:
        """What it returns is accounted for."""
        self.returned.extend(self.bus.stop(timeout, drain=drain))

    def use(self) -> None:
        """Start and stop it, and have as many handlers at work as there are workers."""
        bus = self.bus
        bus.start()
        together = threading.Barrier(self.size)
        with bus.subscribe("use", lambda event: together.wait(PATIENCE)):
            failed = bus.stats.failed
            for _ in range(self.size):
                bus.publish(Event("use"), PATIENCE)
            bus.wait_idle(PATIENCE)
        assert bus.stats.failed == failed, "there are too few workers"
        assert len(workers(NAME)) == self.size
        self.stop()


def settled(scene: Scene, ending: Ending) -> None:
    """What every call leaves."""
    assert ending.error is None or ending.interrupted, f"it raised {ending.error!r}"
    scene.settle()


SWEEPS = Sweeps()


# publish.


def publish(scene: Scene) -> None:
    scene.bus.publish(Event("topic", "interrupted"), 0.001)


def check_accepted(scene: Scene, ending: Ending, before: int = 0) -> None:
    accepted = elsewhere(lambda: scene.bus.stats).published - before
    assert accepted == 1 or (accepted == 0 and ending.error is not None)
    for _ in range(2 * accepted):
        elsewhere(scene.handled.acquire)
    assert scene.calls() == before + 2 * accepted
    assert len(scene.seen) == len(scene.ordered) == accepted
    settled(scene, ending)


@SWEEPS.prove(
    "EB-1",
    Scene,
    publish,
    wrong(faults.CountsBeforehand, "hang"),
)
def check_publish_accepts_an_event_with_all_its_calls_or_not(scene: Scene, ending: Ending) -> None:
    """They are handled without anybody's doing."""
    check_accepted(scene, ending)


@SWEEPS.prove("EB-1", lambda m: Scene(m, size=2).occupied(), publish)
def check_publish_wakes_a_second_worker(scene: Scene, ending: Ending) -> None:
    check_accepted(scene, ending, before=1)


def two_wait_for_room(m: ModuleType) -> Scene:
    scene = Scene(m, max_queue=1).occupied(1)
    return scene.waits(scene.publish, Event("topic", "beside"))


def with_room_soon(m: ModuleType) -> Scene:
    """Another comes to wait a little later, and then there is room."""
    scene = Scene(m, max_queue=1).occupied(1)

    def after(seconds: float, call: Callable[..., object], *arguments: object) -> None:
        time.sleep(seconds)
        call(*arguments)

    scene.beside.append(Beside(after, 0.003, scene.publish, Event("topic", "beside")))
    scene.beside.append(Beside(after, 0.006, scene.gate.open))
    return scene


def publish_patiently(scene: Scene) -> None:
    scene.bus.publish(Event("topic", "interrupted"), PATIENCE)


@SWEEPS.prove("EB-5", two_wait_for_room, publish)
def check_a_publisher_in_vain_leaves_the_room_to_others(scene: Scene, ending: Ending) -> None:
    if not ending.interrupted:
        assert isinstance(ending.error, BusFull)
        ending.error = None
    assert elsewhere(lambda: scene.bus.stats).published == 2
    scene.gate.open()
    scene.join()
    settled(scene, ending)


@SWEEPS.prove(
    "EB-5",
    with_room_soon,
    publish_patiently,
    Twin(
        "keeps a wake-up that it does not need",
        edit("EventBus._wait", "if last: last.release()", "pass"),
        "hang",
    ),
)
def check_a_publisher_passes_room_on_that_it_does_not_take(scene: Scene, ending: Ending) -> None:
    """Another waits behind it, and there is room for both, or for that one alone."""
    scene.join()
    published = elsewhere(lambda: scene.bus.stats).published
    assert published == 4 or (published == 3 and ending.error is not None)
    settled(scene, ending)
    assert len(scene.seen) == len(scene.ordered) == published - 1


# subscribe, cancel, unsubscribe.


class Topic:
    """One whose hash and equality are Python code."""

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Topic)


class Handler:
    """One that compares in Python code."""

    def __init__(self, seen: list[Event]) -> None:
        self.seen = seen

    def __call__(self, event: Event) -> None:
        self.seen.append(event)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Handler)

    __hash__ = None  # type: ignore[assignment]


def subscribe(scene: Scene) -> None:
    scene.bus.subscribe(Topic(), Handler(scene.seen))


def beside_another(m: ModuleType) -> Scene:
    scene = Scene(m)
    scene.bus.subscribe(Topic(), scene.ordered.append)
    return scene


def check_subscribed(scene: Scene, ending: Ending, others: int = 0) -> None:
    def use() -> None:
        for subscribed in (True, False):
            scene.bus.publish(Event(Topic()))
            scene.bus.wait_idle(PATIENCE)
            if subscribed:
                assert len(scene.seen) == 1 or (not scene.seen and ending.error is not None)
                assert scene.bus.unsubscribe(Topic(), Handler([])) == len(scene.seen)
        assert len(scene.ordered) == 2 * others
        assert scene.bus.stats.delivered == len(scene.seen) + 2 * others

    elsewhere(use)
    settled(scene, ending)


@SWEEPS.prove("EB-4", Scene, subscribe)
def check_subscribe_subscribes_or_does_not(scene: Scene, ending: Ending) -> None:
    check_subscribed(scene, ending)


@SWEEPS.prove("EB-4", beside_another, subscribe)
def check_subscribe_leaves_other_subscriptions_alone(scene: Scene, ending: Ending) -> None:
    check_subscribed(scene, ending, others=1)


def waiting_for_everything(m: ModuleType) -> Scene:
    """Calls of both handlers wait, and threads for room and for idleness; the worker is held."""
    scene = Scene(m, max_queue=2).occupied(2)
    scene.accepted.clear()
    scene.waits(scene.bus.wait_idle, PATIENCE)
    return scene.waits(scene.bus.publish, Event("gate"), PATIENCE)


@SWEEPS.prove("EB-4", waiting_for_everything, lambda scene: scene.plain.cancel())
def check_cancel_drops_all_or_nothing(scene: Scene, ending: Ending) -> None:
    dropped = elsewhere(lambda: scene.bus.stats).dropped
    assert dropped == 2 or (dropped == 0 and ending.error is not None)
    settled(scene, ending)
    assert (len(scene.seen), len(scene.ordered)) == (2 - dropped, 2)
    assert elsewhere(scene.plain.cancel) == (not dropped)


def one_runs_two_wait(m: ModuleType) -> Scene:
    scene = Scene(m)
    scene.other = scene.bus.subscribe("alone", scene.gate, ordered=True)
    for number in range(3):
        scene.bus.publish(Event("alone", number))
    scene.gate.await_entered()
    return scene.waits(scene.bus.wait_idle, PATIENCE)


def cancel_other(scene: Scene) -> None:
    scene.other.cancel()


@SWEEPS.prove("EB-4", one_runs_two_wait, cancel_other)
def check_cancelling_an_ordered_handler_drops_all_or_nothing(scene: Scene, ending: Ending) -> None:
    """One call of it runs, two wait behind that."""
    dropped = elsewhere(lambda: scene.bus.stats).dropped
    assert dropped == 2 or (dropped == 0 and ending.error is not None)
    settled(scene, ending)
    assert len(scene.gate.seen) == 3 - dropped
    assert elsewhere(scene.other.cancel) == (not dropped)


def subscribed_twice(m: ModuleType) -> Scene:
    scene = Scene(m).occupied()
    for ordered in (False, True):
        scene.bus.subscribe(Topic(), Handler(scene.seen), ordered=ordered)
    scene.bus.publish(Event(Topic()))
    return scene


@SWEEPS.prove(
    "EB-4",
    subscribed_twice,
    lambda scene: scene.bus.unsubscribe(Topic(), Handler([])),
    wrong(faults.CancelsOneByOne, "AssertionError: assert dropped == 2 or"),
)
def check_unsubscribe_ends_all_or_nothing(scene: Scene, ending: Ending) -> None:
    dropped = elsewhere(lambda: scene.bus.stats).dropped
    assert dropped == 2 or (dropped == 0 and ending.error is not None)
    settled(scene, ending)
    assert len(scene.seen) == 2 - dropped
    assert elsewhere(lambda: scene.bus.unsubscribe(Topic(), Handler([]))) == (not dropped)


def one_waits_for_nobody(m: ModuleType) -> Scene:
    scene = Scene(m, max_queue=1).occupied(1)
    scene.other = scene.bus.subscribe("lone", print)
    scene.waits(scene.publish, Event("topic"))
    return scene.waits(scene.bus.publish, Event("lone"), PATIENCE)


@SWEEPS.prove("EB-5", one_waits_for_nobody, cancel_other)
def check_who_waits_for_room_for_nobody_is_let_go(scene: Scene, ending: Ending) -> None:
    """Another waits for room that there is not."""
    if not elsewhere(scene.other.cancel):  # it was cancelled before
        elsewhere(scene.beside.pop().result)
    settled(scene, ending)


# start.


def check_started(scene: Scene, ending: Ending) -> None:
    if elsewhere(lambda: scene.bus.is_running):
        elsewhere(scene.publish, Event("topic"))
        elsewhere(scene.handled.acquire)
    else:
        assert ending.error is not None
    settled(scene, ending)


def start(scene: Scene) -> None:
    scene.bus.start()


@SWEEPS.prove(
    "EB-8",
    lambda m: Scene(m, started=False, size=2),
    start,
    wrong(faults.RunsBeforeItHasStarted, "BusStopped"),
)
def check_start_starts_or_does_not(scene: Scene, ending: Ending) -> None:
    """With as many workers as there should be, whoever starts it in the end."""
    check_started(scene, ending)


def with_a_stuck_handler(m: ModuleType) -> Scene:
    scene = Scene(m, size=2).occupied()
    elsewhere(scene.stop, 0)
    return scene


@SWEEPS.prove("EB-8", with_a_stuck_handler, start)
def check_a_stuck_worker_counts_after_the_start(scene: Scene, ending: Ending) -> None:
    check_started(scene, ending)


# stop.


def stop_soon(scene: Scene) -> None:
    scene.stop(0.001)


@SWEEPS.prove("EB-2", Scene, Scene.stop)
def check_a_stop_of_an_idle_bus_is_finished_by_the_next(scene: Scene, ending: Ending) -> None:
    assert ending.error is not None or not scene.bus.is_running
    settled(scene, ending)


def in_python(module: ModuleType) -> None:
    """The module's locks are taken and given back by Python code."""
    rebind(module, Lock=lambda: Over(threading.Lock()))


@SWEEPS.prove(
    "EB-8",
    lambda m: Scene(m, started=False),
    Scene.stop,
    Twin("takes its lock in Python code", patch(in_python), "hang"),
)
def check_a_stopped_bus_can_be_stopped(scene: Scene, ending: Ending) -> None:
    settled(scene, ending)


@SWEEPS.prove(
    "EB-8",
    lambda m: Scene(m).occupied(2),
    lambda scene: scene.stop(0, drain=False),
    wrong(faults.LosesWhatItTook, "AssertionError: handled 0 times, returned 0 times"),
)
def check_a_stop_that_takes_all_back_loses_nothing(scene: Scene, ending: Ending) -> None:
    assert ending.error is not None or not scene.bus.is_running
    settled(scene, ending)


@SWEEPS.prove("EB-8", lambda m: Scene(m).occupied(2), stop_soon)
def check_a_stop_that_gives_up_loses_nothing(scene: Scene, ending: Ending) -> None:
    assert ending.error is not None or not scene.bus.is_running
    settled(scene, ending)


def some_wait_besides(m: ModuleType) -> Scene:
    scene = Scene(m, max_queue=1).occupied(1)

    def publish_in_vain() -> None:
        with suppress(BusStopped):
            scene.publish(Event("topic", "beside"))

    scene.waits(scene.bus.wait_idle, PATIENCE)
    return scene.waits(publish_in_vain)


@SWEEPS.prove("EB-8", some_wait_besides, stop_soon)
def check_stop_lets_go_who_waits(scene: Scene, ending: Ending) -> None:
    """For room, once it refuses events; for idleness, once it has stopped."""
    if not elsewhere(lambda: scene.bus.is_running):
        elsewhere(scene.beside.pop().result)
    if ending.error is None:
        scene.join()
    settled(scene, ending)


def another_stops(m: ModuleType) -> Scene:
    scene = Scene(m).occupied(1)
    return scene.waits(scene.stop)


@SWEEPS.prove("EB-8", another_stops, stop_soon)
def check_two_stops_do_not_disturb_each_other(scene: Scene, ending: Ending) -> None:
    settled(scene, ending)


# wait_idle, stats, with.


def one_waits_for_idleness(m: ModuleType) -> Scene:
    scene = Scene(m).occupied(1)
    return scene.waits(scene.bus.wait_idle, PATIENCE)


@SWEEPS.prove("EB-10", one_waits_for_idleness, lambda scene: scene.bus.wait_idle(0.001))
def check_wait_idle_changes_nothing(scene: Scene, ending: Ending) -> None:
    if not ending.interrupted:
        assert isinstance(ending.error, TimeoutError)
        ending.error = None
    assert scene.calls() == 3
    scene.gate.open()
    scene.join()
    settled(scene, ending)


@SWEEPS.prove(
    "EB-1",
    lambda m: Scene(m).occupied(1),
    lambda scene: (scene.bus.stats, scene.bus.is_running),
)
def check_stats_change_nothing(scene: Scene, ending: Ending) -> None:
    assert scene.calls() == 3
    settled(scene, ending)


def through_a_block(scene: Scene) -> None:
    with scene.bus as bus:
        bus.publish(Event("topic", "interrupted"))


@SWEEPS.prove("EB-8", lambda m: Scene(m, started=False), through_a_block)
def check_a_block_is_left_with_a_bus_to_use(scene: Scene, ending: Ending) -> None:
    settled(scene, ending)
    assert len(scene.seen) == len(scene.ordered)


@each_proof(SWEEPS)
def test_it_holds_wherever_it_is_interrupted(proof: Sweep, interrupts: Interrupts) -> None:
    twice = proof.call is not through_a_block or budget(False, True)
    interrupts.prove(lambda: proof.prepare(event_bus), proof.call, proof.check, twice=twice)


@each_twin(SWEEPS)
def test_its_twin_breaks(
    proof: Sweep, twin: Twin, interrupts: Interrupts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atexit, "register", lambda hook: hook)  # its lock may be lost by then
    broken, scenes = build("buses/event_bus", twin.fault), list[Scene]()

    def prepare() -> Scene:
        scenes[:] = [proof.prepare(broken)]
        return scenes[0]

    try:
        interrupts.catch(prepare, proof.call, proof.check, twin=twin)
    finally:
        scenes[0].gate.open()
        with suppress(Hang), patience(1):
            elsewhere(scenes[0].bus.stop)
