"""AsyncEventBus: how many events wait and handlers run, in what order, and who waits for room."""

import asyncio
import functools
from collections import deque
from types import ModuleType
from typing import Any

import detangle
import pytest

from reference_impl.buses.event import BusFull, BusStats, Event, Handler
from tests.buses.async_event_bus.helpers import (
    COMPONENT,
    Gate,
    ends_handlers_instead_of_cancelling,
    event,
    handlers,
    hold,
    in_a_task,
    in_background,
    instead,
    running,
    twin,
)
from tests.kit.fakes import turns
from tests.kit.proofs import Proof, each_proof, failing
from tests.kit.twins import Fault, Twin

# AB-5: backpressure


async def check_backpressure(m: ModuleType) -> None:
    gate = Gate()
    async with running(m, 1, max_queue=2) as bus:
        bus.subscribe("topic", gate)
        await bus.publish(event("runs"))
        await turns()
        await bus.publish(event(1))
        await bus.publish(event(2))
        for timeout in (0, 0.001):
            with pytest.raises(BusFull, match="2 events"):
                await bus.publish(event("refused"), timeout)
        with pytest.raises(BusFull):
            bus.publish_nowait(event("refused"))
        await bus.publish(event("free", topic="nobody's"))  # without a call it takes no room
        posted = bus.publish_threadsafe(event(3))
        waiting = asyncio.create_task(bus.publish(event(4)))
        with pytest.raises(BusFull):
            await bus.publish(event("refused"), 0.001)
        await turns()
        assert not waiting.done()
        assert not posted.done()
        assert bus.stats.pending == 3
        gate.open()
        await waiting
        assert posted.result(timeout=0) is None
    assert gate.ended == ["runs", 1, 2, 3, 4]
    assert bus.stats == BusStats(published=6, delivered=5, failed=0, dropped=0, pending=0)


@twin("holds one event more than max_queue", "Failed: DID NOT RAISE", "__init__")
def _one_event_more(init: Any, bus: Any, *limits: Any, max_queue: int = 10_000, **o: Any) -> None:
    init(bus, *limits, max_queue=max_queue + 1, **o)


@twin(
    "refuses at once publishers who may wait for room",
    "AssertionError: not waiting.done()",
    "publish",
)
async def _at_once(publish: Any, bus: Any, event: Event, timeout: float | None = None) -> None:
    await publish(bus, event, timeout or 0)


@twin("waits for room without a limit", "hang", "publish")
async def _without_limit(publish: Any, bus: Any, event: Event, _: float | None = None) -> None:
    await publish(bus, event)


async def check_a_handler_in_a_full_bus(m: ModuleType) -> None:
    """With the only slot and no room, a handler that waited for room would wait for itself."""
    heard: list[object] = []
    background: list[asyncio.Task[None]] = []
    async with running(m, 1, max_queue=1) as bus:

        async def fills(first: Event) -> None:
            if first.payload != "start":
                return
            await asyncio.sleep(0)
            await bus.publish(event("fits"))
            for timeout in (0.001, None):
                try:
                    await bus.publish(event(), timeout)
                except BusFull as error:
                    heard.append(str(error))
            with pytest.raises(BusFull):
                bus.publish_nowait(event())
            # A task of its own is not the handler's, and may wait.
            background.append(asyncio.create_task(bus.publish(event("waited"))))

        bus.subscribe("topic", fills)
        await bus.publish(event("start"))
        await bus.wait_idle()
        await asyncio.gather(*background)
    assert heard == [
        "event-bus holds 1 events: no room within 0.001 s; wait longer",
        "event-bus holds 1 events: a handler that waits may wait for itself: pass a timeout",
    ]
    assert bus.stats == BusStats(published=3, delivered=3, failed=0, dropped=0, pending=0)


async def check_a_handler_in_its_first_step(m: ModuleType) -> None:
    """It is known as a handler as well."""
    heard: list[str] = []
    async with running(m, 1, max_queue=1) as bus:

        async def at_once(_: Event) -> None:
            try:
                await bus.wait_idle()
            except RuntimeError:
                heard.append("wait_idle")
            with pytest.raises(BusFull):
                for number in range(2):
                    await bus.publish(event(number, topic="topic 2"))
            heard.append("publish")

        bus.subscribe("topic", at_once)
        bus.subscribe("topic 2", lambda _: None)
        await bus.publish(event())
        await bus.wait_idle()
    assert heard == ["wait_idle", "publish"]


async def check_room_for_two(m: ModuleType) -> None:
    """Room that comes free all at once reaches all who wait for it, not the first alone."""
    gate = Gate()
    async with running(m, 1, max_queue=2) as bus:
        bus.subscribe("topic", gate)
        doomed = bus.subscribe("doomed", gate)
        await bus.publish(event("runs"))
        await turns()
        for _ in range(2):
            await bus.publish(event(topic="doomed"))
        tasks = [asyncio.create_task(bus.publish(event(number))) for number in range(3)]
        await turns()
        doomed.cancel()
        await turns()
        assert [task.done() for task in tasks] == [True, True, False]
        gate.open()
        await asyncio.gather(*tasks)


async def check_the_default_room(m: ModuleType) -> None:
    gate = Gate()
    async with running(m) as bus:
        bus.subscribe("gate", gate, ordered=True)
        for _ in range(10_001):  # the first one runs
            await bus.publish(event(topic="gate"))
            if not gate.started:
                await turns()
        with pytest.raises(BusFull, match=r"^event-bus holds 10000 events: "):
            bus.publish_nowait(event(topic="gate"))
        gate.open()


# AB-6: order


async def check_order(m: ModuleType) -> None:
    seen: list[tuple[str, int]] = []
    running_now: list[int] = []
    most = free = 0

    async def in_turn(event: Event) -> None:
        nonlocal most
        running_now.append(1)
        most = max(most, len(running_now))
        # Later events are quicker: without the order they would overtake.
        await turns(max(0, 20 - 2 * event.payload[1]))
        seen.append(event.payload)
        running_now.pop()

    def unhindered(_: Event) -> None:
        nonlocal free
        free += 1

    async def publisher(name: str) -> None:
        for number in range(10):
            await bus.publish(event((name, number)))
            await asyncio.sleep(0)

    async with running(m, 4) as bus:
        bus.subscribe("topic", in_turn, ordered=True)
        bus.subscribe("topic", unhindered)
        await asyncio.gather(publisher("a"), publisher("b"))
        await turns(3)
        assert most == 1, "two at once"
        assert free == 20, "the ordered subscription holds up the other"
        assert len(seen) < 20
        await bus.wait_idle()
        await bus.publish(event(("a", 10)))
        await turns()
        assert seen.pop() == ("a", 10)
    assert most == 1
    for name in "ab":
        assert [number for who, number in seen if who == name] == list(range(10))
    assert bus.stats.delivered == 42


@twin("calls an ordered handler side by side", "AssertionError: two at once", "subscribe")
def _side_by_side(subscribe: Any, *arguments: Any, ordered: bool = False) -> Any:
    return subscribe(*arguments)


async def check_the_line_for_room(m: ModuleType) -> None:
    """Publishers are served in the order in which they came, tasks and threads alike."""
    gate, accepted = Gate(), []
    async with running(m, 1, max_queue=1) as bus:
        bus.subscribe("topic", gate, ordered=True)
        await bus.publish(event("runs"))
        await turns()
        await bus.publish(event("waits"))

        async def publish(number: int) -> None:
            await bus.publish(event(number))
            accepted.append(number)

        tasks = []
        for number in range(6):
            if number == 3:
                bus.publish_threadsafe(event(3)).add_done_callback(lambda _: accepted.append(3))
            else:
                tasks.append(asyncio.create_task(publish(number)))
            await turns(2)
        tasks[1].cancel()
        gate.open()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert accepted == [0, 2, 3, 4, 5]
    assert gate.ended == ["runs", "waits", 0, 2, 3, 4, 5]


@twin(
    "lets publishers look for room again and again, in no order",
    "AssertionError: accepted == [0, 2, 3, 4, 5]",
    "publish",
)
async def _polls(_: Any, bus: Any, event: Event, timeout: float | None = None) -> None:
    while True:
        try:
            return bus.publish_nowait(event)  # type: ignore[no-any-return]
        except BusFull:
            await asyncio.sleep(0)


# AB-7: concurrency and idleness


async def check_concurrency(m: ModuleType) -> None:
    now = most = 0

    async def handler(_: Event) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await turns(3)
        now -= 1

    async with running(m, 3) as bus:
        bus.subscribe("topic", handler)
        before = len(asyncio.all_tasks())
        for _ in range(50):
            await bus.publish(event())
        await turns(2)
        assert len(asyncio.all_tasks()) - before <= 3, "a task for a call that waits"
    assert most == 3
    assert bus.stats.delivered == 50


@twin(
    "runs one handler more than max_concurrency",
    "AssertionError: a task for a call that waits",
    "__init__",
)
def _one_handler_more(init: Any, bus: Any, max_concurrency: int = 100, **options: Any) -> None:
    init(bus, max_concurrency + 1, **options)


async def check_a_hundred_handlers_by_default(m: ModuleType) -> None:
    gate = Gate()
    async with running(m) as bus:
        assert "event-bus" in {task.get_name() for task in asyncio.all_tasks()}
        bus.subscribe("topic", gate)
        for number in range(102):
            await bus.publish(event(number))
        await turns()
        assert len(gate.started) == 100
        gate.open()


async def check_that_the_loop_does_not_starve(m: ModuleType) -> None:
    """A handler that publishes for ever leaves the loop's other tasks their turns."""
    left = 20_000

    def again(_: Event) -> None:
        nonlocal left
        left -= 1
        if left > 0:
            bus.publish_nowait(event())

    async with running(m) as bus:
        bus.subscribe("topic", again)
        await bus.publish(event())
        await turns(10)
        assert 0 < left < 20_000
        left = 0


def _handles_at_once() -> Fault:
    """A handler that publishes is followed by what it published, in the same turn."""
    line: deque[Event] = deque()
    subscribed: list[Handler] = []

    def wrap(handler: Handler) -> Handler:
        subscribed.append(handler)

        def call(event: Event) -> None:
            line.append(event)
            while line:
                first = line.popleft()
                for each in subscribed:
                    each(first)

        return call

    return handlers(wrap) + instead("publish_nowait", lambda _, __, event: line.append(event))


async def check_that_handlers_may_publish(m: ModuleType) -> None:
    """However deep, and with one slot: nothing waits for the publishing handler's slot."""
    handled: list[object] = []

    async def handler(event_: Event) -> None:
        if event_.payload:
            await bus.publish(event(event_.payload - 1))
        handled.append(event_.payload)

    async with running(m, 1) as bus:
        bus.subscribe("topic", handler)
        await bus.publish(event(1000))
        await bus.wait_idle()
    assert handled == list(range(1000, -1, -1)), "breadth first"


@twin("has a publisher wait for its handlers", "hang", "publish")
async def _waits_for_its_handlers(publish: Any, bus: Any, *arguments: Any) -> None:
    await publish(bus, *arguments)
    while bus.stats.pending:
        await asyncio.sleep(0)


async def _idle(m: ModuleType) -> None:
    async with m.AsyncEventBus() as bus:
        bus.subscribe("topic", lambda _: None)
        await bus.publish(event(1))
        await bus.wait_idle()
        await asyncio.get_running_loop().create_future()


async def _full(m: ModuleType) -> None:
    """The only handler runs, a call waits for it, and a publisher for room."""
    async with running(m, 1, max_queue=1) as bus:
        bus.subscribe("topic", Gate())
        for number in range(3):
            await bus.publish(event(number))
            await turns()


def check_that_nothing_is_run_in_vain(m: ModuleType) -> None:
    """No timer, no ready callback: the loop finds nothing that could ever run again."""
    for state in (_idle, _full):
        with pytest.raises(detangle.DeadlockError):
            detangle.run(functools.partial(state, m), max_time=10.0)


@twin("wakes up ten times a second", "TimeLimitExceeded", "start")
async def _polls_ten_times_a_second(start: Any, bus: Any) -> None:
    async def poll() -> None:
        while True:
            await asyncio.sleep(0.1)

    in_background(poll())
    await start(bus)


PROOFS = [
    Proof("AB-5", check_backpressure, [_one_event_more, _at_once, _without_limit]),
    Proof(
        "AB-5",
        check_a_handler_in_a_full_bus,
        [Twin("lets a handler wait for itself", instead("publish", in_a_task), "hang")],
    ),
    Proof("AB-5", check_a_handler_in_its_first_step),
    Proof(
        "AB-5",
        check_room_for_two,
        [
            Twin(
                "keeps the room of a cancelled subscription's calls",
                ends_handlers_instead_of_cancelling(),
                "AssertionError: [True, True, False]",
            )
        ],
    ),
    Proof("AB-5", check_the_default_room),
    Proof("AB-6", check_order, [_side_by_side]),
    Proof("AB-6", check_the_line_for_room, [_polls]),
    Proof("AB-7", check_concurrency, [_one_handler_more]),
    Proof("AB-7", check_a_hundred_handlers_by_default),
    Proof(
        "AB-7",
        check_that_the_loop_does_not_starve,
        [
            Twin(
                "handles what a handler publishes in the same turn of the loop",
                _handles_at_once(),
                "AssertionError: 0 < left < 20_000",
            )
        ],
    ),
    Proof("AB-7", check_that_handlers_may_publish, [_waits_for_its_handlers]),
    Proof("AB-7", check_that_nothing_is_run_in_vain, [_polls_ten_times_a_second]),
]


@each_proof(PROOFS)
def test_room(proof: Proof) -> None:
    hold(proof)


test_a_bus_without_limits_or_order_is_caught = failing(PROOFS, COMPONENT)
