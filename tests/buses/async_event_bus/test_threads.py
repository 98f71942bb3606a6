"""AsyncEventBus: publications that race stop, from tasks and threads, and the loop's end."""

import asyncio
import concurrent.futures
import functools
import threading
from concurrent.futures import Future
from types import ModuleType
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest

from reference_impl.buses import async_event_bus
from reference_impl.buses.event import BusStats, BusStopped, Event
from tests.buses.async_event_bus.helpers import (
    COMPONENT,
    Gate,
    event,
    forever,
    hold,
    instead,
    never_says_refused,
    running,
    says_accepted,
    twin,
)
from tests.kit.fakes import Beside, run, turns
from tests.kit.process import run_python
from tests.kit.profile import budget
from tests.kit.proofs import Proof, each_proof, failing
from tests.kit.twins import Fault, Twin

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

# AB-2: publications that race stop


async def check_publications_that_race_stop(m: ModuleType) -> None:
    gate = Gate()
    bus = m.AsyncEventBus(1, max_queue=1)
    bus.subscribe("topic", gate)
    await bus.start()
    await bus.publish(event("runs"))
    await turns()
    await bus.publish(event("waits"))
    in_line = asyncio.create_task(bus.publish(event("in line")))
    posted = bus.publish_threadsafe(event("posted"))
    await turns()
    stopping = asyncio.create_task(bus.stop())
    inbox = bus.publish_threadsafe(event("in the inbox"))  # where stop finds it
    await turns()
    assert in_line.done()
    assert isinstance(in_line.exception(), BusStopped)
    assert all(isinstance(f.exception(timeout=0), BusStopped) for f in (posted, inbox))
    with pytest.raises(BusStopped, match="stopping"):
        await bus.publish(event())
    with pytest.raises(BusStopped, match="stopping"):
        bus.publish_nowait(event())
    assert isinstance(bus.publish_threadsafe(event()).exception(timeout=0), BusStopped)
    assert not bus.is_running
    gate.open()
    assert await stopping == []
    assert gate.ended == ["runs", "waits"]
    assert bus.stats == BusStats(published=2, delivered=2, failed=0, dropped=0, pending=0)


def _never_tells_a_thread(publish: Any, bus: Any, event: Event) -> Future[None]:
    told: Future[None] = Future()

    def pass_on(future: Future[None]) -> None:
        if future.exception() is None:
            told.set_result(None)

    publish(bus, event).add_done_callback(pass_on)
    return told


async def check_an_event_in_line_when_the_bus_restarts(m: ModuleType) -> None:
    """A publisher that was in line is refused, even if the bus runs again by its turn."""
    gate = Gate()
    bus = m.AsyncEventBus(1, max_queue=1, on_error=lambda *_: None)
    bus.subscribe("topic", gate)
    await bus.start()
    await bus.publish(event(1))
    await turns()
    await bus.publish(event(2))
    turn = asyncio.create_task(bus.publish(event(3)))
    await turns()
    assert [e.payload for e in await bus.stop(0)] == [2]
    await bus.start()
    with pytest.raises(BusStopped):
        await turn
    gate.open()
    await bus.stop()


@twin("has a publisher wait for the next run", "Failed: DID NOT RAISE", "publish")
async def _waits_for_the_next_run(publish: Any, bus: Any, *arguments: Any) -> None:
    try:
        await publish(bus, *arguments)
    except BusStopped:
        while not bus.is_running:
            await asyncio.sleep(0)
        await publish(bus, *arguments)


async def check_a_posted_event_that_is_cancelled(m: ModuleType) -> None:
    """It can be cancelled until it is accepted."""
    gate = Gate()
    async with running(m, 1, max_queue=1) as bus:
        bus.subscribe("topic", gate)
        await bus.publish(event(0))
        await turns()
        await bus.publish(event(1))
        futures = [bus.publish_threadsafe(event(payload)) for payload in (2, 3, 4)]
        await turns()
        assert futures[1].cancel()
        gate.open()
        await asyncio.wrap_future(futures[2])
    assert gate.ended == [0, 1, 2, 4]
    assert futures[0].result(0) is futures[2].result(0) is None
    assert bus.stats.published == 4


@twin(
    "accepts a posted event that was cancelled",
    "AssertionError: gate.ended == [0, 1, 2, 4]",
    "publish_threadsafe",
)
def _accepts_what_was_cancelled(publish: Any, bus: Any, event: Event) -> Future[None]:
    told: Future[None] = Future()

    def pass_on(future: Future[None]) -> None:
        if told.set_running_or_notify_cancel():
            told.set_result(future.result())

    publish(bus, event).add_done_callback(pass_on)
    return told


def check_a_loop_that_ends_without_stop(m: ModuleType) -> None:
    """asyncio.run cancels the bus's tasks: every future settles, nothing more is started."""
    seen: list[object] = []
    futures: list[Future[None]] = []
    bus = m.AsyncEventBus(1, max_queue=1, on_error=lambda *_: None)

    async def hangs(event: Event) -> None:
        seen.append(event.payload)
        await forever()

    async def main() -> None:
        await bus.start()
        bus.subscribe("topic", hangs)
        await bus.publish(event(0))
        await turns()
        await bus.publish(event(1))
        futures.append(bus.publish_threadsafe(event(2)))
        await turns()
        futures.append(bus.publish_threadsafe(event(3)))

    run(main())
    futures.append(bus.publish_threadsafe(event(4)))
    assert all(isinstance(future.exception(0), BusStopped) for future in futures)
    assert seen == [0]
    assert not bus.is_running
    assert bus.stats == BusStats(published=2, delivered=0, failed=1, dropped=1, pending=0)


async def check_what_is_posted_to_a_stopped_bus(m: ModuleType) -> None:
    """It is refused once, and forgotten."""
    bus = m.AsyncEventBus()
    await bus.start()
    await bus.stop()
    assert isinstance(bus.publish_threadsafe(event()).exception(0), BusStopped)
    await turns()
    async with bus:
        await turns()
    assert bus.stats.published == 0


def check_a_closed_loop(m: ModuleType) -> None:
    """What is posted to it is refused."""
    bus = m.AsyncEventBus()
    loop = asyncio.new_event_loop()
    # Its tasks were not cancelled, and that is told when they are collected.
    loop.set_exception_handler(lambda *_: None)
    loop.run_until_complete(bus.start())
    loop.close()
    assert isinstance(bus.publish_threadsafe(event()).exception(0), BusStopped)


def check_threads_that_post_while_the_bus_closes(m: ModuleType) -> None:
    """Threads post on while the bus stops, the loop closes, and after: every future settles."""
    for _ in range(budget(5, 20)):
        _post_while_the_bus_closes(m.AsyncEventBus(2, max_queue=2))


def _post_while_the_bus_closes(bus: Any) -> None:
    posted: list[Future[None]] = []
    posting, enough = threading.Barrier(3), threading.Event()
    seen: list[Event] = []

    def post() -> None:
        posting.wait()
        while not enough.is_set():
            posted.append(bus.publish_threadsafe(event()))

    async def main() -> None:
        bus.subscribe("topic", seen.append)
        await bus.start()
        await asyncio.to_thread(posting.wait)
        await turns()
        assert await bus.stop() == []

    threads = [Beside(post) for _ in range(2)]
    try:
        run(main())
    finally:
        enough.set()
    for thread in threads:
        thread.result()
    done, pending = concurrent.futures.wait(posted, timeout=0)
    assert not pending
    accepted = sum(future.exception() is None for future in done)
    assert accepted == len(seen) == bus.stats.delivered
    assert all(isinstance(f.exception(), BusStopped | None) for f in done)


# AB-6: the order of threads


def check_the_order_of_threads(m: ModuleType) -> None:
    """Many threads into a small, busy bus: each event once, in each thread's order."""
    seen: list[tuple[int, int]] = []
    names, each = range(4), 50  # as many as the default executor surely has threads
    barrier = threading.Barrier(len(names))
    futures: dict[int, list[Future[None]]] = {name: [] for name in names}

    async def handler(event: Event) -> None:
        seen.append(event.payload)
        await asyncio.sleep(0)

    async def main() -> None:
        def post(name: int) -> None:
            barrier.wait()
            for number in range(each):
                futures[name].append(bus.publish_threadsafe(event((name, number))))

        async with running(m, 2, max_queue=3) as bus:
            bus.subscribe("topic", handler, ordered=True)
            async with asyncio.TaskGroup() as group:
                for name in names:
                    group.create_task(asyncio.to_thread(post, name))
            for name in names:
                await asyncio.gather(*map(asyncio.wrap_future, futures[name]))
        assert bus.stats.published == bus.stats.delivered == len(names) * each

    run(main())
    for name in names:
        assert [number for who, number in seen if who == name] == list(range(each))


def _second_post_first() -> Fault:
    """Of two events of a thread the second one comes first."""
    kept = threading.local()

    def publish(original: Any, bus: Any, event: Event) -> Future[None]:
        if (before := kept.__dict__.pop("before", None)) is None:
            kept.before = event, Future()
            return kept.before[1]  # type: ignore[no-any-return]
        future: Future[None] = original(bus, event)
        original(bus, before[0]).add_done_callback(lambda _: before[1].set_result(None))
        return future

    return instead("publish_threadsafe", publish)


NEVER_TELLS_A_THREAD = Twin(
    "tells no thread that its event was refused",
    instead("publish_threadsafe", _never_tells_a_thread),
    "TimeoutError",
)
PROOFS = [
    Proof(
        "AB-2",
        check_publications_that_race_stop,
        [
            NEVER_TELLS_A_THREAD,
            Twin(
                "leaves publishers waiting for room when it stops",
                instead("publish", never_says_refused),
                "AssertionError: in_line.done()",
            ),
            Twin(
                "says of a refused event that it was accepted",
                instead("publish", says_accepted),
                "AssertionError: isinstance(in_line.exception(), BusStopped)",
            ),
        ],
    ),
    Proof("AB-2", check_an_event_in_line_when_the_bus_restarts, [_waits_for_the_next_run]),
    Proof("AB-2", check_a_posted_event_that_is_cancelled, [_accepts_what_was_cancelled]),
    Proof("AB-2", check_a_loop_that_ends_without_stop, [NEVER_TELLS_A_THREAD]),
    Proof("AB-2", check_what_is_posted_to_a_stopped_bus),
    Proof("AB-2", check_a_closed_loop),
    Proof("AB-2", check_threads_that_post_while_the_bus_closes),
    Proof(
        "AB-6",
        check_the_order_of_threads,
        [
            Twin(
                "swaps two events of a thread",
                _second_post_first(),
                "AssertionError: who == name",
            )
        ],
    ),
]


@each_proof(PROOFS)
def test_publications_of_tasks_and_threads(proof: Proof) -> None:
    hold(proof)


test_a_lost_or_wrong_answer_is_caught = failing(PROOFS, COMPONENT)


def test_a_burst_of_posted_events_wakes_the_loop_once() -> None:
    async def main() -> None:
        async with running(async_event_bus) as bus:
            with patch.object(loop := asyncio.get_running_loop(), "call_soon_threadsafe") as wake:
                wake.side_effect = functools.partial(type(loop).call_soon_threadsafe, loop)
                for burst in (1, 2):
                    for _ in range(3):
                        bus.publish_threadsafe(event())
                    await turns()
                    assert wake.call_count == burst
                    assert bus.stats.published == 3 * burst

    run(main())


# Processes


@pytest.mark.guarantee("AB-2")
def test_a_forked_child_is_refused() -> None:
    run_python(
        """
        import asyncio, os, threading
        from reference_impl.buses import async_event_bus
        from reference_impl.buses.event import BusStopped, Event
        from tests.kit.primitives import rebind

        locks = []
        def make_lock():
            locks.append(threading.Lock())
            return locks[-1]

        async def main():
            rebind(async_event_bus, Lock=make_lock)
            async with async_event_bus.AsyncEventBus() as bus:
                assert locks
                for lock in locks:
                    lock.acquire()  # as another thread may hold it
                child = os.fork()
                if not child:
                    error = bus.publish_threadsafe(Event.create("topic")).exception(0)
                    refused = isinstance(error, BusStopped) and "forked child" in str(error)
                    os._exit(0 if refused else 1)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                for lock in locks:
                    lock.release()

        asyncio.run(main())
        """
    )


@pytest.mark.guarantee("AB-2")
def test_a_thread_that_waits_on_an_abandoned_bus_does_not_hold_up_the_exit() -> None:
    done = run_python(
        """
        import asyncio, threading
        from reference_impl.buses.async_event_bus import AsyncEventBus
        from reference_impl.buses.event import Event

        bus = AsyncEventBus(1, max_queue=1, on_error=lambda *_: None)

        def post():
            futures = [bus.publish_threadsafe(Event.create("topic")) for _ in range(5)]
            posted.set()
            print([type(future.exception()).__name__ for future in futures])

        async def hangs(event):
            await asyncio.get_running_loop().create_future()

        async def main():
            await bus.start()
            bus.subscribe("topic", hangs)
            thread.start()
            await asyncio.to_thread(posted.wait)
            for _ in range(5):
                await asyncio.sleep(0)

        posted, thread = threading.Event(), threading.Thread(target=post)
        asyncio.run(main())
        """
    )
    assert done.stdout == str(["NoneType"] * 2 + ["BusStopped"] * 3) + "\n"
    assert done.stderr == "event-bus: its loop ended without stop(), calls dropped: 1\n"


# One loop


def test_a_second_loop_is_refused() -> None:
    bus = async_event_bus.AsyncEventBus()
    uses: list[Callable[[], Coroutine[Any, Any, object]]] = [
        bus.start,
        bus.stop,
        bus.wait_idle,
        lambda: bus.publish(event()),
    ]
    asyncio.run(bus.start())  # and its loop is gone
    for use in uses:
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(use())

    async def plain_methods() -> None:
        for plain in (lambda: bus.publish_nowait(event()), lambda: bus.subscribe("topic", print)):
            with pytest.raises(RuntimeError, match="another event loop"):
                plain()

    asyncio.run(plain_methods())


def test_a_thread_without_a_loop_is_refused_while_the_loop_runs() -> None:
    async def main() -> None:
        async with async_event_bus.AsyncEventBus() as bus:
            subscription = bus.subscribe("topic", print)
            for use in (lambda: bus.publish_nowait(event()), subscription.cancel):
                with pytest.raises(RuntimeError, match=r"and publish_threadsafe from .* threads$"):
                    await asyncio.to_thread(use)

    asyncio.run(main())
