"""AsyncEventBus under a deterministic loop: schedules, cancellation at each await, lost wake-ups.

Each model runs on the component as it is and on plain tasks, as on Python 3.11. A model that
waits for what nobody will ever do is a deadlock, and a failure: so each of them also shows
that no wake-up is lost. The inbox of other threads is explored with a thread scheduler.
"""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any

import detangle
import pytest

from reference_impl.buses import async_event_bus
from reference_impl.buses.event import BusFull, BusStopped, Event
from tests.kit.explore import Interleavings, Schedules
from tests.kit.twins import twin

FILE = "buses/async_event_bus.py"
PLAIN = ("if sys.version_info >= (3, 12) else {}", "if False else {}")
Model = Callable[[ModuleType], Callable[[], Coroutine[Any, Any, object]]]


@functools.cache
def builds() -> tuple[ModuleType, ...]:
    """The component as it is, and as on 3.11, where no task is eager."""
    return async_event_bus, twin(FILE, PLAIN)


def event(payload: object) -> Event:
    return Event.create("topic", payload)


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def settled(task: "asyncio.Task[Any]") -> BaseException | None:
    """Wait for the task's end; its exception, or None."""
    await asyncio.wait([task])
    return asyncio.CancelledError() if task.cancelled() else task.exception()


class Ledger:
    """What publishers were told and what handlers saw; `check` compares the two."""

    def __init__(self) -> None:
        self.accepted: list[object] = []
        self.refused: list[object] = []
        self.seen: list[object] = []
        self.returned: list[object] = []

    async def publish(self, bus: Any, payload: object, timeout: float | None = None) -> None:
        try:
            await bus.publish(event(payload), timeout)
        except (BusStopped, BusFull, asyncio.CancelledError):
            self.refused.append(payload)
            raise
        self.accepted.append(payload)

    async def handle(self, event: Event) -> None:
        self.seen.append(event.payload)
        await asyncio.sleep(0)

    def check(self) -> None:
        settled = sorted([*self.seen, *self.returned], key=str)
        assert settled == sorted(self.accepted, key=str), (
            f"accepted {self.accepted}, seen {self.seen}, returned {self.returned}, "
            f"refused {self.refused}"
        )


def publishers_in_line(
    module: ModuleType, cancel_after: int | None
) -> Callable[[], Coroutine[Any, Any, None]]:
    """Three publishers and one slot of room; the second one is cancelled at some turn."""

    async def model() -> None:
        ledger = Ledger()
        async with module.AsyncEventBus(1, max_queue=1) as bus:
            bus.subscribe("topic", ledger.handle)
            tasks = [asyncio.create_task(ledger.publish(bus, n)) for n in range(4)]
            if cancel_after is not None:
                await turns(cancel_after)
                tasks[2].cancel()
            errors = [await settled(task) for task in tasks]
            assert not any(e for e in errors if not isinstance(e, asyncio.CancelledError))
            await bus.wait_idle()
            ledger.check()
            assert bus.stats.published == len(ledger.accepted)
        assert len(ledger.seen) >= 3

    return model


CANCELLED_AT = [None, *range(8)]
STOPS: list[dict[str, Any]] = [{}, {"timeout": 0}, {"drain": False}]


@pytest.mark.guarantee("AB-5", "AB-2")
@pytest.mark.parametrize("cancel_after", CANCELLED_AT)
def test_a_cancelled_publisher_loses_nothing(
    schedules: Schedules, cancel_after: int | None
) -> None:
    for module in builds():
        schedules.prove(publishers_in_line(module, cancel_after), delays=2)


@pytest.mark.twin("AB-5", "AB-2")
@pytest.mark.parametrize(
    "fault",
    [
        ("                self._offer()  # the offer may", "                pass  # the offer may"),
        ("        finally:\n            self._offer()\n", "        finally:\n"),
    ],
    ids=["offer not passed on", "no offer after a start"],
)
def test_a_lost_offer_of_room_is_found(schedules: Schedules, fault: tuple[str, str]) -> None:
    broken = twin(FILE, fault)

    async def any_turn() -> None:
        await publishers_in_line(broken, detangle.choice(CANCELLED_AT))()

    schedules.catch(any_turn)


@pytest.mark.twin("AB-5", "AB-2")
def test_a_publisher_accepted_on_behalf_of_a_cancelled_task_is_found(schedules: Schedules) -> None:
    """Handing over acceptance instead of an offer: cancelled, and accepted all the same."""
    broken = twin(
        FILE,
        (
            (
                "                if not head.done():\n"
                "                    head.set_result(None)\n"
                "                return"
            ),
            "                self._line.popleft()\n                if not head.done():\n"
            "                    self._accept(head.event, copy_context())\n"
            "                    head.set_result(None)\n                continue",
        ),
        (
            "turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()",
            "turn = Turn(loop=asyncio.get_running_loop()); turn.event = event",
        ),
        ("await self._stand_in_line(limit)", "return await self._stand_in_line(limit, event)"),
        ("def _stand_in_line(self, limit: float | None)", "def _stand_in_line(self, limit, event)"),
        (
            (
                "        if not self._line or self._line[0] is not turn:\n"
                "            raise self._stopped()\n"
                "        self._line.popleft()\n"
            ),
            "",
        ),
        (
            "class AsyncEventBus:",
            ("class Turn(asyncio.Future):\n    pass\n\n\nclass AsyncEventBus:"),
        ),
    )

    async def any_turn() -> None:
        await publishers_in_line(broken, detangle.choice(CANCELLED_AT))()

    schedules.catch(any_turn)


def publishers_and_stop(
    module: ModuleType, cancel_after: int | None, **stop: Any
) -> Callable[[], Coroutine[Any, Any, None]]:
    """Publishers race a stop that may be cancelled, and then a second one."""

    async def model() -> None:
        ledger = Ledger()
        bus = module.AsyncEventBus(1, max_queue=1, on_error=lambda *_: None)
        await bus.start()
        for _ in range(2):
            bus.subscribe("topic", ledger.handle, ordered=True)
        tasks = [asyncio.create_task(ledger.publish(bus, n)) for n in range(3)]
        posted = bus.publish_threadsafe(event("posted"))
        await turns(2)
        first = asyncio.create_task(bus.stop(**stop))
        if cancel_after is not None:
            await turns(cancel_after)
            first.cancel()
        error = await settled(first)
        assert error is None or isinstance(error, asyncio.CancelledError)
        left = [] if error else first.result()
        left += await bus.stop()
        for task in tasks:
            error = await settled(task)
            assert error is None or isinstance(error, BusStopped)
        assert posted.done(), "a future from a thread is left"
        if posted.exception() is None:
            ledger.accepted.append("posted")
        # Both calls of an event were made, or its event was returned, once.
        returned = [e.payload for e in left]
        assert len(returned) == len(set(returned))
        for payload in ledger.accepted:
            assert ledger.seen.count(payload) + 2 * returned.count(payload) >= 2
            assert ledger.seen.count(payload) + returned.count(payload) <= 2
        assert set(ledger.seen) | set(returned) == set(ledger.accepted)
        stats = bus.stats
        assert stats.published == len(ledger.accepted)
        assert stats.pending == 0
        assert not asyncio.all_tasks() - {asyncio.current_task()}
        await bus.start()
        assert await bus.stop() == []

    return model


@pytest.mark.guarantee("AB-2", "AB-8")
@pytest.mark.parametrize("stop", STOPS, ids=str)
def test_publications_that_race_stop_are_accepted_or_refused(
    schedules: Schedules, stop: dict[str, Any]
) -> None:
    for module in builds():
        schedules.prove(publishers_and_stop(module, None, **stop), delays=2)


@pytest.mark.guarantee("AB-2", "AB-8")
@pytest.mark.parametrize("cancel_after", range(10))
@pytest.mark.parametrize("stop", STOPS, ids=str)
def test_a_cancelled_stop_loses_nothing(
    schedules: Schedules, stop: dict[str, Any], cancel_after: int
) -> None:
    for module in builds():
        schedules.prove(publishers_and_stop(module, cancel_after, **stop), delays=1)


@pytest.mark.twin("AB-2", "AB-8")
@pytest.mark.parametrize(
    "fault",
    [
        ("        taken, self._taken = self._taken, {}\n", "        self._taken, taken = {}, {}\n"),
        ("self._taken[call.accepted.number] =", "self._taken[id(call)] ="),
        ("            elif not waiter.done():", "            elif waiter.done():"),
        (
            (
                "        if not self._line or self._line[0] is not turn:\n"
                "            raise self._stopped()\n"
                "        self._line.popleft()"
            ),
            "        if turn in self._line:\n            self._line.popleft()",
        ),
        ("            await asyncio.wait([keeper])\n", ""),
        (
            (
                "        if self._watchers and self._pending <= len(self._inside):\n"
                "            self._announce()"
            ),
            "",
        ),
    ],
    ids=[
        "forgets what it took",
        "returns twice",
        "leaves the line",
        "accepts after the stop",
        "leaves its keeper",
        "wakes nobody",
    ],
)
def test_a_stop_that_loses_is_found(
    schedules: Schedules, fault: tuple[str, str], request: pytest.FixtureRequest
) -> None:
    broken = twin(FILE, fault)

    async def any_turn() -> None:
        stop: dict[str, Any] = detangle.choice(STOPS)
        await publishers_and_stop(broken, detangle.choice([None, *range(10)]), **stop)()

    schedules.catch(any_turn)


def stops_inside_and_outside(
    module: ModuleType, ordered: bool, **stop: Any
) -> Callable[[], Coroutine[Any, Any, None]]:
    """A handler stops the bus while the main task does, and others are under way."""

    async def model() -> None:
        seen: list[object] = []
        returned: list[object] = []

        async def handler(event: Event) -> None:
            seen.append(event.payload)
            await asyncio.sleep(0)
            if event.payload == 0:
                returned.extend(e.payload for e in await bus.stop())
                await stopped.wait()  # a stop outside does not wait for what comes after

        stopped = asyncio.Event()
        bus = module.AsyncEventBus(2, on_error=lambda *_: None)
        await bus.start()
        bus.subscribe("topic", handler, ordered=ordered)
        for payload in range(4):
            await bus.publish(event(payload))
        await asyncio.sleep(0)
        returned.extend(e.payload for e in await bus.stop(**stop))
        stopped.set()
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)  # the handler, on its way home from its own stop
        assert sorted([*seen, *returned], key=str) == list(range(4))
        assert not bus.is_running
        assert bus.stats.pending == 0
        await bus.start()
        await bus.publish(event("again"))
        assert await bus.stop() == []
        assert seen[-1] == "again"

    return model


@pytest.mark.guarantee("AB-8")
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("stop", STOPS, ids=str)
def test_stops_inside_and_outside_of_a_handler_both_end(
    schedules: Schedules, stop: dict[str, Any], ordered: bool
) -> None:
    for module in builds():
        schedules.prove(stops_inside_and_outside(module, ordered, **stop), delays=2)


@pytest.mark.twin("AB-8")
@pytest.mark.parametrize(
    "fault",
    [
        ("            self._take_back(me.route)", "            pass"),
        ("                self._inside.discard(me)", "                pass"),
        (
            "self._pending <= len(self._inside) or keeper is not self._keeper",
            "self._pending <= len(self._inside)",
        ),
    ],
    ids=["waits behind itself", "stays inside", "outlives the run"],
)
def test_a_stop_that_waits_for_ever_is_found(schedules: Schedules, fault: tuple[str, str]) -> None:
    broken = twin(FILE, fault)

    async def any_stop() -> None:
        stop: dict[str, Any] = detangle.choice(STOPS)
        await stops_inside_and_outside(broken, detangle.flip(), **stop)()

    schedules.catch(any_stop)


def idle_waiters(module: ModuleType) -> Callable[[], Coroutine[Any, Any, None]]:
    """Two tasks wait for an idle bus, one is cancelled; the handlers publish on."""

    async def model() -> None:
        seen: list[object] = []

        async def chain(event_: Event) -> None:
            await asyncio.sleep(0)
            seen.append(event_.payload)
            if event_.payload:
                await bus.publish(event(event_.payload - 1))

        async def idle() -> None:
            await bus.wait_idle()
            assert seen == [2, 1, 0]

        async with module.AsyncEventBus(2) as bus:
            bus.subscribe("topic", chain)
            await bus.publish(event(2))
            waiters = [asyncio.create_task(idle()) for _ in range(2)]
            await turns(2)
            waiters[0].cancel()
            await waiters[1]
            await settled(waiters[0])

    return model


@pytest.mark.guarantee("AB-10")
def test_no_waiter_for_an_idle_bus_is_forgotten(schedules: Schedules) -> None:
    for module in builds():
        schedules.prove(idle_waiters(module), delays=2)


@pytest.mark.twin("AB-10")
@pytest.mark.parametrize(
    "fault",
    [
        ("return not self._pending or self._idle", "return not self._backlog or self._idle"),
        (
            (
                "        if self._watchers and self._pending <= len(self._inside):\n"
                "            self._announce()"
            ),
            "",
        ),
        ("        for watcher in watchers:", "        for watcher in list(watchers)[:1]:"),
    ],
    ids=["ignores what runs", "wakes nobody", "wakes one"],
)
def test_a_forgotten_waiter_is_found(schedules: Schedules, fault: tuple[str, str]) -> None:
    schedules.catch(idle_waiters(twin(FILE, fault)))


@pytest.mark.guarantee("AB-7")
def test_an_idle_bus_has_nothing_to_run() -> None:
    """No timer, no ready callback: the loop finds nothing that could ever run again."""

    async def idle(module: ModuleType) -> None:
        async with module.AsyncEventBus() as bus:
            bus.subscribe("topic", lambda _: None)
            await bus.publish(event(1))
            await bus.wait_idle()
            await asyncio.get_running_loop().create_future()

    for module in builds():
        with pytest.raises(detangle.DeadlockError):
            detangle.run(functools.partial(idle, module))


@pytest.mark.twin("AB-7")
def test_a_bus_that_polls_is_found() -> None:
    polling = twin(
        FILE,
        (
            "    await asyncio.get_running_loop().create_future()\n",
            ("    while True:\n        await asyncio.sleep(0.1)\n"),
        ),
    )

    async def idle() -> None:
        async with polling.AsyncEventBus():
            await asyncio.get_running_loop().create_future()

    with pytest.raises(detangle.TimeLimitExceeded):
        detangle.run(idle, max_time=10.0)


# Threads: the inbox


class StubLoop:
    """As much of a loop as `publish_threadsafe` and `_close` use; its turns are run by hand."""

    def __init__(self) -> None:
        self.posted: list[Callable[[], None]] = []

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        self.posted.append(callback)

    def call_soon(self, callback: Callable[[], None]) -> None: ...

    def is_running(self) -> bool:
        return False


def posting_races_stop(module: ModuleType, posters: int) -> Callable[[], None]:
    """Threads post while the loop's thread stops the bus."""

    def model() -> None:
        import interleave_test  # pyright: ignore[reportMissingImports]  # not on Python 3.11

        bus = module.AsyncEventBus()
        loop = StubLoop()
        bus._loop, bus._state, bus._open = loop, "running", True
        bus.subscribe("topic", lambda _: None)
        futures: list[Any] = []

        def post() -> None:
            futures.append(bus.publish_threadsafe(event(1)))

        def run_loop() -> None:
            for callback in loop.posted[:]:
                callback()
            bus._close()

        threads = [interleave_test.spawn(each) for each in (*[post] * posters, run_loop)]
        for thread in threads:
            thread.join()
        for callback in loop.posted:  # the loop's last turn
            callback()
        assert all(future.done() for future in futures), "a future never settles"
        accepted = sum(future.exception() is None for future in futures)
        assert accepted == bus.stats.published

    return model


@pytest.mark.guarantee("AB-2")
def test_every_event_posted_while_the_bus_stops_settles(interleavings: Interleavings) -> None:
    interleavings.prove(posting_races_stop(async_event_bus, 1))
    interleavings.prove(posting_races_stop(async_event_bus, 2), granularity="line")


@pytest.mark.twin("AB-2")
def test_an_event_posted_after_the_last_look_is_found(interleavings: Interleavings) -> None:
    broken = twin(
        FILE,
        (
            "    def _post(self, posted: _Posted) -> bool:\n        with self._lock:",
            "    def _post(self, posted: _Posted) -> bool:\n        if True:",
        ),
    )
    interleavings.catch(
        posting_races_stop(broken, 1),
        diagram="Without the lock, an event is posted after stop has looked for the last time",
    )
