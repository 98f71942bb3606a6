"""Exceptions that a signal handler raises, at each point of AsyncEventBus's plain methods."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from reference_impl.buses import async_event_bus
from reference_impl.buses.event import Event
from tests.buses.event_bus.sweeps import Sweep, Sweeps
from tests.kit.fakes import PATIENCE, AsyncGate
from tests.kit.interrupts import Ending, Interrupts, elsewhere
from tests.kit.proofs import each_proof, each_twin
from tests.kit.twins import Fault, Twin, build, override


class Scene:
    """A started bus on a loop that does not run, but when the scene asks for it."""

    open: "list[Scene]" = []

    def __init__(self, m: ModuleType, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.open.append(self)
        self.bus = m.AsyncEventBus(2, **options)
        self.gate = AsyncGate()
        self.seen: list[Event] = []
        self.ordered: list[Event] = []
        self.bus.subscribe("gate", self.gate)
        self.plain = self.bus.subscribe("topic", self.seen.append)
        self.bus.subscribe("topic", self.ordered.append, ordered=True)
        self.waiting: list[asyncio.Task[Any]] = []
        self.posted: Any = None
        self.run(self.bus.start())

    def run(self, steps: Awaitable[Any]) -> Any:
        """The loop runs these to their end."""
        return self.loop.run_until_complete(asyncio.wait_for(steps, PATIENCE))

    def full(self, *waits: Callable[["Scene"], Coroutine[Any, Any, Any]]) -> "Scene":
        """Handlers are held, two events wait, and these tasks as well."""
        for topic in ("gate", "gate", "topic", "topic"):
            self.bus.publish_nowait(Event(topic))
            self.run(asyncio.sleep(0))
        self.waiting = [self.loop.create_task(wait(self)) for wait in waits]
        self.run(asyncio.sleep(0))
        return self

    def settle(self, ending: Ending) -> None:
        """The bus can be used in full, and all is accounted for."""
        assert ending.error is None or ending.interrupted, f"it raised {ending.error!r}"
        self.gate.open()
        self.run(self.use())
        self.close()
        stats = self.bus.stats
        assert stats.pending == 0
        assert len(self.gate.ended) + len(self.seen) + len(self.ordered) == stats.delivered

    def close(self) -> None:
        """Its loop, with what still runs there where a check has failed."""
        self.open.remove(self)
        for task in (tasks := asyncio.all_tasks(self.loop)):
            task.cancel()
        self.loop.run_until_complete(asyncio.wait(tasks) if tasks else asyncio.sleep(0))
        self.loop.close()

    async def use(self) -> None:
        await asyncio.gather(*self.waiting)
        await self.bus.wait_idle()
        for topic in ("gate", "topic"):
            await self.bus.publish(Event(topic))
        await self.bus.wait_idle()
        assert await self.bus.stop() == []


@pytest.fixture(autouse=True)
def _each_loop_is_closed() -> Iterator[None]:
    yield
    while Scene.open:
        Scene.open[0].close()


SWEEPS = Sweeps()


def publish(scene: Scene) -> None:
    scene.bus.publish_nowait(Event("topic"))


def counting_beforehand() -> Fault:
    begun: list[Event] = []

    def publishing(original: Any) -> Any:
        def publish_nowait(bus: Any, event: Event) -> None:
            begun[:] = [event]
            original(bus, event)

        return publish_nowait

    def counting(original: Any) -> Any:
        return property(lambda bus: replace(original.fget(bus), published=len(begun)))

    count = override("AsyncEventBus.stats", counting)
    return override("AsyncEventBus.publish_nowait", publishing) + count


@SWEEPS.prove(
    "AB-1",
    Scene,
    publish,
    Twin(
        "counts an event and only then accepts it",
        counting_beforehand(),
        "AssertionError: assert len(scene.seen) == len(scene.ordered) == accepted",
    ),
)
def check_publish_nowait_accepts_an_event_with_all_its_calls_or_not(
    scene: Scene, ending: Ending
) -> None:
    """They are handled without anybody's doing."""
    accepted = scene.bus.stats.published
    assert accepted == 1 or (accepted == 0 and ending.error is not None)
    scene.run(asyncio.sleep(0.001))
    assert len(scene.seen) == len(scene.ordered) == accepted
    scene.settle(ending)


@SWEEPS.prove("AB-5", lambda m: Scene(m).full(), publish)
def check_publish_nowait_behind_others(scene: Scene, ending: Ending) -> None:
    accepted = scene.bus.stats.published - 4
    assert accepted == 1 or (accepted == 0 and ending.error is not None)
    assert scene.bus.stats.pending == 6 + 2 * accepted
    scene.settle(ending)
    assert len(scene.seen) == len(scene.ordered) == 3 + accepted


@SWEEPS.prove("AB-4", Scene, lambda scene: scene.bus.subscribe("topic", scene.seen.append))
def check_subscribe_subscribes_or_does_not(scene: Scene, ending: Ending) -> None:
    scene.settle(ending)
    subscribed = len(scene.seen) - 1
    assert subscribed == 1 or (subscribed == 0 and ending.error is not None)


def for_everything(m: ModuleType) -> Scene:
    return Scene(m, max_queue=2).full(
        lambda scene: scene.bus.publish(Event("gate")), lambda scene: scene.bus.wait_idle()
    )


@SWEEPS.prove("AB-4", for_everything, lambda scene: scene.plain.cancel())
def check_cancel_drops_all_or_nothing(scene: Scene, ending: Ending) -> None:
    dropped = scene.bus.stats.dropped
    assert dropped == 2 or (dropped == 0 and ending.error is not None)
    assert scene.bus.stats.pending == 6 - dropped
    scene.settle(ending)
    assert (len(scene.seen), len(scene.ordered)) == (0 if dropped else 3, 3)
    assert scene.plain.cancel() == (not dropped)


def subscribed_twice(m: ModuleType) -> Scene:
    scene = Scene(m, max_queue=3)
    for ordered in (False, True):
        scene.bus.subscribe("twice", scene.gate, ordered=ordered)
    scene.full(lambda scene: scene.bus.wait_idle())
    scene.bus.publish_nowait(Event("twice"))
    waiting = scene.loop.create_task(scene.bus.publish(Event("twice")))
    scene.waiting.append(waiting)
    scene.run(asyncio.sleep(0))
    return scene


@SWEEPS.prove("AB-4", subscribed_twice, lambda scene: scene.bus.unsubscribe("twice", scene.gate))
def check_unsubscribe_ends_all_or_nothing(scene: Scene, ending: Ending) -> None:
    """Who waits for room gets it, though no handler has ended."""
    dropped = scene.bus.stats.dropped
    assert dropped == 2 or (dropped == 0 and ending.error is not None)
    if dropped:
        scene.run(scene.waiting.pop())
    scene.settle(ending)
    assert scene.bus.unsubscribe("twice", scene.gate) == (not dropped)


def post(scene: Scene) -> None:
    scene.posted = scene.bus.publish_threadsafe(Event("topic"))


@SWEEPS.prove("AB-2", Scene, post)
def check_publish_threadsafe_posts_or_does_not(scene: Scene, ending: Ending) -> None:
    """Its lock is free for others, whose events are accepted."""
    other = elsewhere(scene.bus.publish_threadsafe, Event("topic"))
    scene.run(asyncio.wrap_future(other, loop=scene.loop))
    assert other.result() is None
    if scene.posted is not None:
        assert scene.posted.result() is None
    accepted = scene.bus.stats.published - 1
    assert accepted == 1 or (accepted == 0 and ending.error is not None)
    scene.settle(ending)


@SWEEPS.prove(
    "AB-1", lambda m: Scene(m).full(), lambda scene: (scene.bus.stats, scene.bus.is_running)
)
def check_stats_change_nothing(scene: Scene, ending: Ending) -> None:
    assert scene.bus.stats.pending == 6
    scene.settle(ending)


@each_proof(SWEEPS)
def test_it_holds_wherever_it_is_interrupted(proof: Sweep, interrupts: Interrupts) -> None:
    interrupts.prove(lambda: proof.prepare(async_event_bus), proof.call, proof.check)


@each_twin(SWEEPS)
def test_its_twin_breaks(proof: Sweep, twin: Twin, interrupts: Interrupts) -> None:
    broken = build("buses/async_event_bus", twin.fault)
    interrupts.catch(lambda: proof.prepare(broken), proof.call, proof.check, twin=twin)
