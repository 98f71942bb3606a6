"""Exceptions that a signal handler raises, at each point of each public call of EventBus."""

import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from reference_impl.buses import event_bus
from reference_impl.buses.event import BusFull, BusStopped, Event
from tests.buses.event_bus.helpers import workers
from tests.kit.fakes import PATIENCE, Beside, Gate
from tests.kit.interrupts import Ending, Interrupts, elsewhere

NAME = "scene"


class Scene:
    """A bus, what its handlers saw, and threads that wait at it.

    Handlers of "gate" hold their worker; "topic" has two handlers, one of them ordered.
    """

    def __init__(
        self, m: ModuleType = event_bus, *, started: bool = True, size: int = 1, **options: Any
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

    def calls(self) -> int:
        """Of all that was published, as the bus counts them."""
        stats = elsewhere(lambda: self.bus.stats)
        return int(stats.delivered + stats.failed + stats.dropped + stats.pending)

    def settle(self) -> None:
        """The bus can be used in full by another thread, and all is accounted for."""
        self.gate.open()
        if not elsewhere(lambda: self.bus.is_running):
            elsewhere(self.stop)
        for thread in self.beside:
            thread.result()
        elsewhere(self.use)
        for worker in workers(NAME):
            worker.join(PATIENCE)
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


# publish


def publish(scene: Scene) -> None:
    scene.bus.publish(Event("topic", "interrupted"), 0.001)


def is_accepted_or_not(before: int, calls: int = 2) -> Callable[[Scene, Ending], None]:
    """With all its calls or none; those come without anybody's doing."""

    def check(scene: Scene, ending: Ending) -> None:
        accepted = elsewhere(lambda: scene.bus.stats).published - before
        assert accepted == 1 or (accepted == 0 and ending.error is not None)
        for _ in range(calls * accepted):
            assert scene.handled.acquire(timeout=PATIENCE), "an accepted event is not handled"
        assert scene.calls() == before + calls * accepted
        assert len(scene.seen) == len(scene.ordered) == accepted
        settled(scene, ending)

    return check


def test_publish_accepts_the_event_or_does_not(interrupts: Interrupts) -> None:
    interrupts.prove(Scene, publish, is_accepted_or_not(0))


def test_publish_wakes_a_second_worker(interrupts: Interrupts) -> None:
    """One is held, the other sleeps."""
    interrupts.prove(lambda: Scene(size=2).occupied(), publish, is_accepted_or_not(1))


def test_publish_that_waits_for_room_leaves_it_to_others(interrupts: Interrupts) -> None:
    """Another waits as well; in the end there is room for one alone."""

    def prepare() -> Scene:
        scene = Scene(max_queue=1).occupied(1)
        return scene.waits(scene.publish, Event("topic", "beside"))

    def check(scene: Scene, ending: Ending) -> None:
        if not ending.interrupted:
            assert isinstance(ending.error, BusFull)
            ending.error = None
        assert elsewhere(lambda: scene.bus.stats).published == 2
        scene.gate.open()
        scene.beside[0].result()
        settled(scene, ending)

    interrupts.prove(prepare, publish, check)


def test_publish_that_gets_room_accepts_or_leaves_it_to_others(interrupts: Interrupts) -> None:
    """There is room soon after it began to wait, for each of two."""

    def prepare() -> Scene:
        scene = Scene(max_queue=1).occupied(1)
        scene.waits(scene.publish, Event("topic", "beside"))
        opener = threading.Timer(0.003, scene.gate.open)
        opener.start()
        scene.opener = opener
        return scene

    def call(scene: Scene) -> None:
        scene.bus.publish(Event("topic", "interrupted"), PATIENCE)

    def check(scene: Scene, ending: Ending) -> None:
        scene.opener.join()
        scene.beside[0].result()
        published = elsewhere(lambda: scene.bus.stats).published
        assert published == 4 or (published == 3 and ending.error is not None)
        settled(scene, ending)
        assert len(scene.seen) == len(scene.ordered) == published - 1

    interrupts.prove(prepare, call, check)


# subscribe, cancel, unsubscribe


class Topic:
    """One whose hash and equality are Python code."""

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Topic)


def test_subscribe_subscribes_or_does_not(interrupts: Interrupts) -> None:
    for earlier in (0, 1):
        seen: list[Event] = []

        def prepare(earlier: int = earlier, seen: list[Event] = seen) -> Scene:
            scene = Scene()
            for _ in range(earlier):
                scene.bus.subscribe(Topic(), print).cancel()
                scene.bus.subscribe(Topic(), lambda event: None)
            seen.clear()
            return scene

        def call(scene: Scene, seen: list[Event] = seen) -> None:
            scene.bus.subscribe(Topic(), seen.append)

        def check(
            scene: Scene, ending: Ending, earlier: int = earlier, seen: list[Event] = seen
        ) -> None:
            def use() -> None:
                scene.bus.publish(Event(Topic()))
                scene.bus.wait_idle(PATIENCE)
                assert len(seen) <= 1
                assert len(seen) == 1 or ending.interrupted
                assert scene.bus.stats.delivered == earlier + len(seen)
                assert scene.bus.unsubscribe(Topic(), seen.append) == len(seen)
                scene.bus.publish(Event(Topic()))
                scene.bus.wait_idle(PATIENCE)
                assert scene.bus.stats.delivered == 2 * earlier + len(seen)

            elsewhere(use)
            settled(scene, ending)

        interrupts.prove(prepare, call, check)


def waiting_for_everything() -> Scene:
    """Calls of both handlers wait, and threads for room and for idleness; the worker is held."""
    scene = Scene(max_queue=2).occupied(2)
    scene.accepted.clear()
    scene.waits(scene.bus.publish, Event("gate"), PATIENCE)
    return scene.waits(scene.bus.wait_idle, PATIENCE)


def drops(scene: Scene, ending: Ending, both: bool) -> None:
    """The calls of one handler, or of two, are dropped, or none is."""
    dropped = elsewhere(lambda: scene.bus.stats).dropped
    handlers = 2 if both else 1
    assert dropped == 2 * handlers or (dropped == 0 and ending.error is not None)
    if dropped and both:
        scene.beside[0].result()  # there is room, though nobody has made a call
    settled(scene, ending)
    assert len(scene.seen) + len(scene.ordered) == 4 - dropped
    assert elsewhere(lambda: scene.bus.unsubscribe("topic", scene.handlers[0])) == (not dropped)


def test_cancel_drops_all_or_nothing(interrupts: Interrupts) -> None:
    interrupts.prove(
        waiting_for_everything,
        lambda scene: scene.plain.cancel(),
        lambda scene, ending: drops(scene, ending, both=False),
    )


def test_cancelling_an_ordered_handler_drops_all_or_nothing(interrupts: Interrupts) -> None:
    """One call of it runs, two wait behind; afterwards it is not called again."""

    def prepare() -> Scene:
        scene = Scene()
        scene.subscription = scene.bus.subscribe("alone", scene.gate, ordered=True)
        for number in range(3):
            scene.bus.publish(Event("alone", number))
        scene.gate.await_entered()
        return scene.waits(scene.bus.wait_idle, PATIENCE)

    def check(scene: Scene, ending: Ending) -> None:
        dropped = elsewhere(lambda: scene.bus.stats).dropped
        assert dropped == 2 or (dropped == 0 and ending.error is not None)
        settled(scene, ending)
        assert len(scene.gate.seen) == 3 - dropped
        assert elsewhere(scene.subscription.cancel) == (not dropped)

    interrupts.prove(prepare, lambda scene: scene.subscription.cancel(), check)


def test_unsubscribe_ends_all_its_subscriptions_or_none(interrupts: Interrupts) -> None:
    """Two of an equal handler, which compares in Python, to a topic that does so, too."""

    class Handler:
        def __init__(self, seen: list[Event]) -> None:
            self.seen = seen

        def __call__(self, event: Event) -> None:
            self.seen.append(event)

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Handler)

        __hash__ = None  # type: ignore[assignment]

    def prepare() -> Scene:
        scene = Scene().occupied()
        for ordered in (False, True):
            scene.bus.subscribe(Topic(), Handler(scene.seen), ordered=ordered)
        scene.bus.publish(Event(Topic()))
        return scene

    def check(scene: Scene, ending: Ending) -> None:
        dropped = elsewhere(lambda: scene.bus.stats).dropped
        assert dropped == 2 or (dropped == 0 and ending.error is not None)
        settled(scene, ending)
        assert len(scene.seen) == 2 - dropped
        assert elsewhere(lambda: scene.bus.unsubscribe(Topic(), Handler([]))) == (not dropped)

    interrupts.prove(prepare, lambda scene: scene.bus.unsubscribe(Topic(), Handler([])), check)


def test_who_waits_to_publish_to_nobody_is_let_go(interrupts: Interrupts) -> None:
    """Two wait for room, of whom one no longer needs it once the handler is cancelled."""

    def prepare() -> Scene:
        scene = Scene(max_queue=1).occupied(1)
        scene.lone = scene.bus.subscribe("lone", print)
        scene.waits(scene.publish, Event("topic"))
        return scene.waits(scene.bus.publish, Event("lone"), PATIENCE)

    def check(scene: Scene, ending: Ending) -> None:
        if not elsewhere(scene.lone.cancel):  # it was cancelled before
            scene.beside[1].result()
        settled(scene, ending)

    interrupts.prove(prepare, lambda scene: scene.lone.cancel(), check)


# start


def starts_or_does_not(scene: Scene, ending: Ending) -> None:
    if elsewhere(lambda: scene.bus.is_running):
        elsewhere(scene.publish, Event("topic"))
        assert scene.handled.acquire(timeout=PATIENCE)
    else:
        assert ending.error is not None
    settled(scene, ending)


def test_start_starts_or_does_not(interrupts: Interrupts) -> None:
    """With exactly as many workers as there should be afterwards."""
    interrupts.prove(
        lambda: Scene(started=False, size=2), lambda scene: scene.bus.start(), starts_or_does_not
    )


def test_a_start_after_a_handler_got_stuck(interrupts: Interrupts) -> None:
    """Its worker counts, whether the start is interrupted or not."""

    def prepare() -> Scene:
        scene = Scene(size=2).occupied()
        elsewhere(scene.stop, 0)
        return scene

    interrupts.prove(prepare, lambda scene: scene.bus.start(), starts_or_does_not)


# stop


def stopped(scene: Scene, ending: Ending) -> None:
    """It is stopped or the next stop does it; who waits is let go by then."""
    if ending.error is None:
        assert not scene.bus.is_running
    settled(scene, ending)


STOPS: dict[str, tuple[Callable[[], Scene], Callable[[Scene], None]]] = {
    "an idle bus": (Scene, Scene.stop),
    "a stopped bus": (lambda: Scene(started=False), Scene.stop),
    "what waits, without draining": (
        lambda: Scene(size=2).occupied(2),
        lambda scene: scene.stop(0, drain=False),
    ),
    "a bus whose handler is stuck": (lambda: Scene().occupied(3), lambda scene: scene.stop(0.001)),
}


@pytest.mark.parametrize("name", STOPS)
def test_stop_loses_nothing(name: str, interrupts: Interrupts) -> None:
    prepare, call = STOPS[name]
    interrupts.prove(prepare, call, stopped)


def test_stop_lets_go_who_waits(interrupts: Interrupts) -> None:
    """For room, for idleness, and in another stop."""

    def prepare() -> Scene:
        scene = Scene(max_queue=1).occupied(1)
        scene.refused = []

        def publish() -> None:
            try:
                scene.publish(Event("topic", "beside"))
            except BusStopped:
                scene.refused.append(True)

        scene.waits(publish).waits(scene.bus.wait_idle, PATIENCE)
        return scene

    def check(scene: Scene, ending: Ending) -> None:
        if not elsewhere(lambda: scene.bus.is_running):
            scene.beside[0].result()
        if ending.error is None:
            scene.beside[1].result()
        settled(scene, ending)

    interrupts.prove(prepare, lambda scene: scene.stop(0.001), check)


def test_a_stop_beside_another_leaves_that_alone(interrupts: Interrupts) -> None:
    def prepare() -> Scene:
        scene = Scene().occupied(1)
        return scene.waits(scene.stop)

    interrupts.prove(prepare, lambda scene: scene.stop(0.001), stopped)


# wait_idle, stats, with


def test_wait_idle_changes_nothing(interrupts: Interrupts) -> None:
    def check(scene: Scene, ending: Ending) -> None:
        if not ending.interrupted:
            assert isinstance(ending.error, TimeoutError)
            ending.error = None
        assert scene.calls() == 3
        scene.gate.open()
        for thread in scene.beside:
            thread.result()
        settled(scene, ending)

    def prepare() -> Scene:
        scene = Scene().occupied(1)
        return scene.waits(scene.bus.wait_idle, PATIENCE)

    interrupts.prove(prepare, lambda scene: scene.bus.wait_idle(0.001), check)


def test_stats_change_nothing(interrupts: Interrupts) -> None:
    interrupts.prove(
        lambda: Scene().occupied(1),
        lambda scene: (scene.bus.stats, scene.bus.is_running),
        settled,
    )


def test_a_block_is_left_with_a_bus_to_use(interrupts: Interrupts) -> None:
    def call(scene: Scene) -> None:
        with scene.bus as bus:
            bus.publish(Event("topic", "interrupted"))

    def check(scene: Scene, ending: Ending) -> None:
        settled(scene, ending)
        assert len(scene.seen) == len(scene.ordered)

    interrupts.prove(lambda: Scene(started=False), call, check)
