"""AsyncTTLCache under every schedule and every cancellation, by detangle's loop.

A deviation from asyncio's order and a cancellation both count as a delay, so two delays cover,
for example, any single cancellation at any await together with any single change of order.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from types import ModuleType
from typing import Any

import detangle

import reference_impl.caches.async_ttl_cache as ours
from tests.caches.async_ttl_cache import faults
from tests.caches.async_ttl_cache.helpers import COMPONENT, load_42, says, start_at_once
from tests.kit.explore import Schedules
from tests.kit.fakes import Clock
from tests.kit.proofs import Proof, each_proof, each_twin
from tests.kit.twins import Fault, Twin, build


class Source:
    """What is behind a cache: it loads values, and watches those who ask for them."""

    def __init__(self, cache: Any, fails: int = 0) -> None:
        self.cache = cache
        self.fails = fails  # so many of the first loads
        self.calls = self.running = self.cancelled = self.most = self.for_nobody = 0
        self._waiting: dict[object, int] = {}  # who asks, and how many loads had landed then

    @property
    def is_awaited(self) -> bool:
        """Whether anybody waits for a load, or for the turn in which it gets the value."""
        return bool(self._waiting)

    def _landed(self) -> int:
        return int(self.cache.stats.loads + self.cache.stats.load_failures)

    async def load(self) -> int:
        """Count what becomes of a load."""
        self.calls += 1
        number = self.calls
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        self.for_nobody += not self.is_awaited
        if number <= self.fails:
            raise OSError(number)
        return number

    async def ask(self) -> int:
        """What a caller does."""
        joins = self._landed() in self._waiting.values()
        me = object()

        async def load() -> int:
            assert not joins, "a load was repeated for one who had joined it"
            return await self.load()

        self._waiting[me] = self._landed()
        try:
            return int(await self.cache.get_or_load("key", load))
        finally:
            del self._waiting[me]

    def callers(self, number: int) -> "list[asyncio.Task[int]]":
        """So many callers, each of whom may be cancelled at each of their awaits."""
        tasks = [asyncio.create_task(self.ask()) for _ in range(number)]
        for task in tasks:
            detangle.inject_cancellation(task)
        return tasks


def outcome(task: "asyncio.Task[Any]") -> str:
    if task.cancelled():
        assert task in detangle.current_loop().injected, "a caller was cancelled by nobody"
        return "cancelled"
    return "failed" if task.exception() else str(task.result())


async def settled(tasks: "list[asyncio.Task[Any]]") -> list[str]:
    """How the tasks ended, once the loads that they abandoned have ended, too."""
    await asyncio.wait(tasks)
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)
    # A load whose task has ended lands in a callback that is scheduled by now.
    loop = asyncio.get_running_loop()
    landed = loop.create_future()
    loop.call_soon(landed.set_result, None)
    await landed
    return [outcome(task) for task in tasks]


async def nothing_is_left(cache: Any, *keys: str) -> None:
    """Whoever asks next gets a value that is stored, or loads one, and waits for no old load."""
    for key in keys or ("key",):
        await cache.get_or_load(key, load_42)


async def cancellation(m: ModuleType, callers: int = 3) -> None:
    cache = m.AsyncTTLCache()
    source = Source(cache)
    ends = await settled(source.callers(callers))
    gone = ends.count("cancelled")
    assert source.cancelled <= gone, "a load was cancelled though someone waited for it"
    assert source.most <= 1 + source.cancelled, "two loads of one key ran at once"
    assert not source.for_nobody, "a load went on though nobody waited for it"
    values = set(ends) - {"cancelled"}
    assert len(values) <= 1, f"callers got different values: {ends}"
    assert "failed" not in values, "a caller got an error"
    assert source.calls - source.cancelled <= 1, "a load was repeated"
    if values:
        assert str(await cache.get("key")) in values, "the value was not stored"
    if not gone:
        assert (values, source.calls) == ({"1"}, 1)
    await nothing_is_left(cache)


async def cancellation_of_five(m: ModuleType) -> None:
    await cancellation(m, 5)


async def cancellation_where_tasks_start_at_once(m: ModuleType, callers: int = 3) -> None:
    start_at_once()
    await cancellation(m, callers)


async def cancellation_of_five_where_tasks_start_at_once(m: ModuleType) -> None:
    await cancellation_where_tasks_start_at_once(m, 5)


async def two_callers(m: ModuleType) -> None:
    cache = m.AsyncTTLCache()
    source = Source(cache)
    first = asyncio.create_task(cache.get_or_load("key", source.load), name="first caller")
    second = asyncio.create_task(cache.get_or_load("key", source.load), name="second caller")
    detangle.inject_cancellation(first)
    await asyncio.wait([first, second])
    assert not second.cancelled(), "the second caller is cancelled, too"


async def failure(m: ModuleType) -> None:
    """The first load fails; who asks after that loads again."""
    cache = m.AsyncTTLCache()
    source = Source(cache, fails=1)
    tasks = source.callers(3)
    ends = await settled(tasks)
    errors = [task.exception() for task in tasks if outcome(task) == "failed"]
    assert all(isinstance(error, OSError) for error in errors)
    assert len({id(error) for error in errors}) <= 1, "a failure became several"
    assert source.cancelled <= ends.count("cancelled")
    if "cancelled" not in ends and source.calls == 1:
        assert ends == ["failed"] * 3
    stats = cache.stats
    assert (stats.loads, stats.misses) == (len(cache), 3 - stats.hits)
    await nothing_is_left(cache)


async def invalidation(m: ModuleType, change: Callable[[Any], Awaitable[object]]) -> None:
    """Versions: whoever asks after version 2 was there must not be given version 1."""
    cache, version = m.AsyncTTLCache(), 1
    asked: list[tuple[int, int]] = []  # the version at the time of asking, and what came

    async def load() -> int:
        seen = version
        await asyncio.sleep(0)
        return seen

    async def caller() -> None:
        before = version
        asked.append((before, await cache.get_or_load("key", load)))

    async def writer() -> None:
        nonlocal version
        version = 2
        await change(cache)

    tasks = [asyncio.create_task(each()) for each in (caller, caller, writer, caller)]
    for task in (tasks[0], tasks[1], tasks[3]):
        detangle.inject_cancellation(task)
    await settled(tasks)
    assert all(got >= before for before, got in asked), f"an old value came back: {asked}"
    assert await cache.get("key", 2) == 2, "the load undid it"
    await nothing_is_left(cache)


async def a_set_during_the_load(m: ModuleType) -> None:
    await invalidation(m, lambda cache: cache.set("key", 2))


async def a_delete_during_the_load(m: ModuleType) -> None:
    await invalidation(m, lambda cache: cache.delete("key"))


async def a_clear_during_the_load(m: ModuleType) -> None:
    await invalidation(m, lambda cache: cache.clear())


async def loads_that_wait_for_each_other(m: ModuleType) -> None:
    """Two loads ask for each other's keys: errors, values or cancellations, but no hang."""
    cache = m.AsyncTTLCache()

    async def load(other: str, then: Any) -> str:
        await asyncio.sleep(0)
        return "got " + str(await cache.get_or_load(other, then))

    async def a() -> str:
        return await load("b", b)

    async def b() -> str:
        return await load("a", a)

    tasks = [
        asyncio.create_task(cache.get_or_load(key, loader))
        for key, loader in (("a", a), ("b", b), ("a", a))
    ]
    for task in tasks:
        detangle.inject_cancellation(task)
    await settled(tasks)
    for task in tasks:
        assert task.cancelled() or "would wait for itself" in str(task.exception())
    await nothing_is_left(cache, "a", "b")


async def leaving(m: ModuleType) -> None:
    """A block is left while loads are in flight; one of its two callers may be cancelled."""
    clock = asyncio.get_running_loop().time
    cache = m.AsyncTTLCache(10.0, clock=clock, cleanup_interval=20.0)
    source = Source(cache)

    async def block() -> None:
        async with cache:
            await cache.set("other", 1)
            await asyncio.sleep(0)
        assert source.running <= source.is_awaited, "an abandoned load was left to itself"

    blocks = [asyncio.create_task(block())]
    ends = await settled(source.callers(2) + blocks)
    assert ends[2] == "None", blocks[0].exception()
    assert "failed" not in ends
    assert source.cancelled <= ends.count("cancelled"), "an awaited load was cancelled"
    if "cancelled" not in ends:
        assert ends[:2] == ["1", "1"]
    await asyncio.sleep(100.0)
    assert cache.stats.expirations == 0, "the clean-up goes on"
    await nothing_is_left(cache)


class Stale:
    """A cache whose value of "key", 1, is past its life, and the source that refreshes it."""

    def __init__(self, cache: Any, clock: Clock) -> None:
        self.cache, self.clock = cache, clock
        self.version = 1
        self.calls = self.cancelled = self.most = 0
        self.running = set[int]()

    @classmethod
    async def made(cls, m: ModuleType) -> "Stale":
        clock = Clock()
        stale = cls(m.AsyncTTLCache(10.0, clock=clock), clock)
        assert await stale.ask() == 1
        clock.tick(10.0)
        stale.version, stale.calls = 2, 0
        return stale

    async def load(self) -> int:
        """Count what becomes of a refresh, which reads the source first."""
        self.calls += 1
        number, seen = self.calls, self.version
        self.running.add(number)
        self.most = max(self.most, len(self.running))
        try:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running.discard(number)
        return seen

    async def ask(self) -> int:
        """What a caller does who takes a stale value."""
        return int(await self.cache.get_or_load("key", self.load, stale=100.0))

    async def ask_and_go_on(self) -> int:
        got = await self.ask()
        await asyncio.sleep(0)
        return got

    async def wait(self) -> int:
        """What a caller does who does not."""
        return int(await self.cache.get_or_load("key", self.load))


def cancellable(*callers: Coroutine[Any, Any, Any]) -> "list[asyncio.Task[Any]]":
    tasks = [asyncio.create_task(caller) for caller in callers]
    for task in tasks:
        detangle.inject_cancellation(task)
    return tasks


async def refresh_for_all(m: ModuleType) -> None:
    """Whoever of those who take the stale value is cancelled, its refresh goes on."""
    stale = await Stale.made(m)
    ends = await settled(cancellable(*(stale.ask_and_go_on() for _ in range(3))))
    assert set(ends) <= {"1", "2", "cancelled"}
    assert stale.calls <= 1, "it was refreshed more than once"
    assert not stale.cancelled, "a caller's cancellation ended the refresh"
    if stale.calls:
        assert await stale.cache.get("key") == 2, "the refresh was lost"
    else:
        assert ends == ["cancelled"] * 3, "nobody refreshed it"
    await nothing_is_left(stale.cache)


async def refresh_awaited(m: ModuleType) -> None:
    """One takes the stale value, and two wait for its refresh, or load if they come first."""
    stale = await Stale.made(m)
    first = cancellable(stale.ask_and_go_on())
    ends = await settled(first + cancellable(stale.wait(), stale.wait()))
    assert ends[0] in {"1", "2", "cancelled"}
    assert set(ends[1:]) <= {"2", "cancelled"}, "who takes no stale value got one"
    assert stale.most <= 1 + stale.cancelled, "two loads of one key ran at once"
    assert stale.cancelled <= ends[1:].count("cancelled")
    if ends[0] == "1":
        assert await stale.cache.get("key") == 2, "the refresh was lost"
    await nothing_is_left(stale.cache)


async def outdated_refresh(m: ModuleType, change: Callable[[Any], Awaitable[object]]) -> None:
    """Whoever asks after version 3 is there gets neither the stale value nor version 2."""
    stale, asked = await Stale.made(m), list[tuple[int, int]]()

    async def caller() -> None:
        before = stale.version
        asked.append((before, await stale.ask()))

    async def writer() -> None:
        await asyncio.sleep(0)
        stale.version = 3
        await change(stale.cache)

    tasks = cancellable(caller(), caller())
    await settled([*tasks, asyncio.create_task(writer()), *cancellable(caller())])
    assert all(got == 3 for before, got in asked if before == 3), f"an old value came: {asked}"
    assert await stale.cache.get("key", 3) == 3, "the refresh undid it"
    await nothing_is_left(stale.cache)


async def a_set_during_the_refresh(m: ModuleType) -> None:
    await outdated_refresh(m, lambda cache: cache.set("key", 3))


async def a_delete_during_the_refresh(m: ModuleType) -> None:
    await outdated_refresh(m, lambda cache: cache.delete("key"))


async def a_clear_during_the_refresh(m: ModuleType) -> None:
    await outdated_refresh(m, lambda cache: cache.clear())


async def leaving_while_it_refreshes(m: ModuleType) -> None:
    """A block that is left, or whose task is cancelled, ends what is under way."""
    stale = await Stale.made(m)

    async def block() -> None:
        async with stale.cache:
            await asyncio.sleep(0)
            before = set(stale.running)
        assert not before & stale.running, "a refresh was left to itself"

    blocks = [asyncio.create_task(block())]
    ends = await settled(cancellable(stale.ask_and_go_on(), stale.ask_and_go_on()) + blocks)
    assert ends[2] == "None", blocks[0].exception()
    assert set(ends[:2]) <= {"1", "2", "cancelled"}
    assert not stale.running
    await nothing_is_left(stale.cache)


async def history(m: ModuleType) -> None:
    """Every operation at any time is one step."""
    cache = m.AsyncTTLCache(10.0, 3, clock=lambda: 0.0)
    log = detangle.History()

    async def client(name: str, value: int) -> None:
        for number in (value, -value):
            await log.call(name, "put", ("key", number), cache.set("key", number))
            await log.call(name, "get", "key", cache.get("key"))
            await asyncio.sleep(0)

    await asyncio.gather(client("a", 1), client("b", 2), client("c", 3))
    log.assert_linearizable(detangle.lin.KV())


async def a_get_and_a_set_without_another_await(m: ModuleType) -> None:
    """Look-ups and writes with no lock: between two awaits nobody comes in."""
    cache = m.AsyncTTLCache()
    await cache.set("count", 0)

    async def add() -> None:
        await cache.set("count", await cache.get("count") + 1)

    await asyncio.gather(*(add() for _ in range(4)))
    assert await cache.get("count") == 4, "an addition was lost"


def hangs(name: str, fault: Fault) -> Twin:
    return Twin(name, fault, "DeadlockError")


CANCELLED = "a caller was cancelled by nobody"
SHARED = says("lets both await one task", faults.all_await_one_task, "the second caller is")
STRANDS = hangs("strands those who joined a failure", faults.strands_who_joined_a_failure)
STORES = says("stores an outdated load", faults.stores_whatever_has_happened, "the load undid it")
DELETES = says("deletes only what is there", faults.deletes_only_what_is_there, "came back")
CLEARS = says("clears only what is there", faults.deletes_one_by_one, "an old value came back")
CANCELLATION = [
    says("lets all await one task", faults.all_await_one_task, CANCELLED),
    says("ends a load with its first caller", faults.ends_with_the_first_caller, CANCELLED),
    says("loads on for nobody", faults.goes_on_for_nobody, "though nobody waited for it"),
    says("drops a load that has ended", faults.drops_what_has_ended, "was not stored"),
    hangs("strands those who stay when one leaves", faults.strands_who_stays),
    says("joins an abandoned load", faults.joins_the_abandoned, CANCELLED),
]
CIRCLES = [
    hangs("forgets in which load it is", faults.loads_in_an_empty_context),
    hangs("sees only circles of one key", faults.sees_only_its_own_key),
]
LEAVING = [
    says("leaves too early", faults.leaves_too_early, "was left to itself"),
    says("cancels all loads", faults.cancels_all_loads, CANCELLED),
    says("never ends the clean-up", faults.never_ends_the_clean_up, "the clean-up goes on"),
]
REFRESHES = [
    says("lets each who asks refresh", faults.refreshes_for_each, "refreshed more than once"),
    says("refreshes in the caller's task", faults.ends_with_who_noticed, "ended the refresh"),
]
FOR_WAITERS = [says("lets a waiter end a refresh", faults.ends_with_who_waits, CANCELLED)]
UNDOES = [says("stores each refresh", faults.stores_each_refresh, "the refresh undid it")]
KEEPS = [says("gives what was deleted", faults.deletes_only_what_is_there, "== 3")]
LEFT = [says("leaves a refresh to itself", faults.shields_each_load, "left to itself")]
LATER = [Twin("sets in a later step", faults.sets_later, "NotLinearizable")]
SUSPENDING = [says("suspends in get", faults.suspends_in_get, "an addition was lost")]
PROOFS = [
    Proof("AC-2", cancellation, CANCELLATION, preemptions=5),
    Proof("AC-2", two_callers, [SHARED], preemptions=3),
    Proof("AC-2", failure, [STRANDS], preemptions=3),
    Proof("AC-1", a_set_during_the_load, [STORES], preemptions=3),
    Proof("AC-1", a_delete_during_the_load, [DELETES], preemptions=3),
    Proof("AC-1", a_clear_during_the_load, [CLEARS], preemptions=3),
    Proof("AC-2", loads_that_wait_for_each_other, CIRCLES, preemptions=2),
    Proof("AC-4", leaving, LEAVING, preemptions=3),
    Proof("AC-6", refresh_for_all, REFRESHES, preemptions=4),
    Proof("AC-6", refresh_awaited, FOR_WAITERS, preemptions=3),
    Proof("AC-6", a_set_during_the_refresh, UNDOES, preemptions=3),
    Proof("AC-6", a_delete_during_the_refresh, UNDOES + KEEPS, preemptions=3),
    Proof("AC-6", a_clear_during_the_refresh, preemptions=3),
    Proof("AC-6", leaving_while_it_refreshes, LEFT, preemptions=3),
    Proof(
        "AC-1",
        history,
        LATER,
        preemptions=3,
    ),
    Proof(
        "AC-3",
        a_get_and_a_set_without_another_await,
        SUSPENDING,
        preemptions=4,
    ),
]
DRAWN = [
    Proof("AC-2", cancellation_of_five),
    Proof("AC-2", loads_that_wait_for_each_other),
]
if sys.version_info >= (3, 12):
    PROOFS.append(Proof("AC-2", cancellation_where_tasks_start_at_once, preemptions=5))
    DRAWN.append(Proof("AC-2", cancellation_of_five_where_tasks_start_at_once))


def on(module: ModuleType, proof: Proof) -> Callable[[], Coroutine[Any, Any, None]]:
    """The proof's model of this module."""
    model: Any = proof.check
    return lambda: model(module)


@each_proof(PROOFS)
def test_every_schedule(proof: Proof, schedules: Schedules) -> None:
    schedules.prove(on(ours, proof), delays=proof.preemptions)


@each_proof(DRAWN)
def test_drawn_schedules(proof: Proof, schedules: Schedules) -> None:
    schedules.sample(on(ours, proof), schedules=1000)


@each_twin(PROOFS)
def test_a_schedule_catches(proof: Proof, twin: Twin, schedules: Schedules) -> None:
    model = on(build(COMPONENT, twin.fault), proof)
    schedules.catch(model, twin=twin)
