"""AsyncTTLCache under every schedule and every cancellation, by detangle's loop.

A deviation from asyncio's order and a cancellation both count as a delay, so `delays=2` covers,
for example, any single cancellation at any await together with any single change of order.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import detangle
import pytest

import reference_impl.caches.async_ttl_cache as ours
from tests.kit.explore import Schedules
from tests.kit.twins import twin

FILE = "caches/async_ttl_cache.py"
Model = Callable[[], Coroutine[Any, Any, None]]


class Source:
    """Loads values, and counts what becomes of its loads."""

    def __init__(self, fails: int = 0) -> None:
        self.fails = fails  # so many of the first loads
        self.calls = self.running = self.cancelled = self.most = 0

    async def load(self) -> int:
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
        if number <= self.fails:
            raise OSError(number)
        return number


def outcome(task: "asyncio.Task[Any]") -> str:
    if task.cancelled():
        assert task in detangle.current_loop().injected, "a caller was cancelled by nobody"
        return "cancelled"
    return "failed" if task.exception() else str(task.result())


def nothing_is_left(cache: Any) -> None:
    assert not cache._loads
    assert not cache._flying


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


def callers_of(cache: Any, source: Source, number: int) -> "list[asyncio.Task[Any]]":
    """Callers each of whom may be cancelled at each of their awaits."""

    async def caller() -> int:
        joins = "key" in cache._loads

        async def load() -> int:
            assert not joins, "a load was repeated for one who had joined it"
            return await source.load()

        return int(await cache.get_or_load("key", load))

    tasks = [asyncio.create_task(caller()) for _ in range(number)]
    for task in tasks:
        detangle.inject_cancellation(task)
    return tasks


def cancellation(module: Any, callers: int = 3, *, eager: bool = False) -> Model:
    async def model() -> None:
        if eager:
            asyncio.get_running_loop().set_task_factory(vars(asyncio)["eager_task_factory"])
        cache, source = module.AsyncTTLCache(), Source()
        tasks = callers_of(cache, source, callers)
        ends = await settled(tasks)
        gone = ends.count("cancelled")
        assert source.cancelled <= gone, "a load was cancelled though someone waited for it"
        assert source.most <= 1 + source.cancelled, "two loads of one key ran at once"
        values = set(ends) - {"cancelled"}
        assert len(values) <= 1, f"callers got different values: {ends}"
        assert "failed" not in values, [task.exception() for task in tasks if not task.cancelled()]
        assert source.calls - source.cancelled <= 1, "a load was repeated"
        if values:
            assert str(await cache.get("key")) in values
        if not gone:
            assert (values, source.calls) == ({"1"}, 1)
        nothing_is_left(cache)

    return model


@pytest.mark.guarantee("AC-2")
def test_any_caller_is_cancelled_at_any_await(schedules: Schedules) -> None:
    schedules.prove(cancellation(ours), delays=5)
    schedules.sample(cancellation(ours, callers=5), schedules=1000)


@pytest.mark.guarantee("AC-2")
@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks need Python >= 3.12")
def test_any_caller_is_cancelled_where_tasks_start_at_once(schedules: Schedules) -> None:
    schedules.prove(cancellation(ours, eager=True), delays=5)
    schedules.sample(cancellation(ours, callers=5, eager=True), schedules=1000)


@pytest.mark.twin("AC-2")
@pytest.mark.parametrize(
    "fault",
    [
        ("            await turn\n", "            await (load.task or turn)\n"),
        ("if not load.waiters:", "if mine:"),
        ("            load.task.cancel()", "            pass"),
        ("        if load.task and load.task.done():\n            return\n", ""),
        ("if not turn.done():  # by cancellation", "if True:"),
        (
            "            del self._loads[key]\n        if load.task",
            "            pass\n        if load.task",
        ),
    ],
    ids=[
        "callers await the task",
        "the load goes with its first caller",
        "it goes on for nobody",
        "one that has ended is abandoned",
        "cancelled waiters are settled",
        "an abandoned one is joined",
    ],
)
def test_faults_in_cancellation_are_caught(fault: tuple[str, str], schedules: Schedules) -> None:
    schedules.catch(cancellation(twin(FILE, fault)))


def two_callers(module: Any) -> Model:
    async def model() -> None:
        cache, source = module.AsyncTTLCache(), Source()
        first = asyncio.create_task(cache.get_or_load("key", source.load), name="first caller")
        second = asyncio.create_task(cache.get_or_load("key", source.load), name="second caller")
        detangle.inject_cancellation(first)
        await asyncio.wait([first, second])
        assert not second.cancelled(), "the second caller is cancelled, too"

    return model


@pytest.mark.twin("AC-2")
def test_a_shared_task_is_cancelled_with_its_first_caller(schedules: Schedules) -> None:
    schedules.prove(two_callers(ours), delays=3)
    fault = ("            await turn\n", "            return await load.task\n")
    title = "Who awaits the task itself takes it along when cancelled"
    schedules.catch(two_callers(twin(FILE, fault)), diagram=title, lanes=("_run", "load", "caller"))


def failure(module: Any) -> Model:
    """The first load fails; who asks after that loads again."""

    async def model() -> None:
        cache, source = module.AsyncTTLCache(), Source(fails=1)
        tasks = callers_of(cache, source, 3)
        ends = await settled(tasks)
        errors = [task.exception() for task in tasks if outcome(task) == "failed"]
        assert all(isinstance(error, OSError) for error in errors)
        assert len({id(error) for error in errors}) <= 1, "a failure became several"
        assert source.cancelled <= ends.count("cancelled")
        if "cancelled" not in ends and source.calls == 1:
            assert ends == ["failed"] * 3
        stats = cache.stats
        assert (stats.loads, stats.misses) == (len(cache), 3 - stats.hits)
        nothing_is_left(cache)

    return model


@pytest.mark.guarantee("AC-2")
def test_the_loader_fails_and_any_caller_is_cancelled(schedules: Schedules) -> None:
    schedules.prove(failure(ours), delays=3)


@pytest.mark.twin("AC-2")
def test_waiters_stranded_by_a_failure_are_caught(schedules: Schedules) -> None:
    fault = (
        "if not turn.done():  # by cancellation",
        "if not turn.done() and not task.exception():",
    )
    schedules.catch(failure(twin(FILE, fault)))


def invalidation(module: Any, how: str) -> Model:
    """Versions: whoever asks after version 2 was there must not be given version 1."""

    async def model() -> None:
        cache, version = module.AsyncTTLCache(), 1
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
            if how == "set":
                await cache.set("key", 2)
            elif how == "delete":
                await cache.delete("key")
            else:
                await cache.clear()

        tasks = [asyncio.create_task(each()) for each in (caller, caller, writer, caller)]
        for task in (tasks[0], tasks[1], tasks[3]):
            detangle.inject_cancellation(task)
        await settled(tasks)
        assert all(got >= before for before, got in asked), f"an old value came back: {asked}"
        assert await cache.get("key", 2) == 2, "the load undid it"
        nothing_is_left(cache)

    return model


@pytest.mark.guarantee("AC-1", "AC-2")
@pytest.mark.parametrize("how", ["set", "delete", "clear"])
def test_the_key_changes_during_the_load(how: str, schedules: Schedules) -> None:
    schedules.prove(invalidation(ours, how), delays=3)


@pytest.mark.twin("AC-1", "AC-2")
@pytest.mark.parametrize(
    ("how", "fault"),
    [
        (
            "set",
            (
                "            if good:\n                self._put",
                "        if good:\n                self._put",
            ),
        ),
        ("delete", ("        self._loads.pop(key, None)\n", "")),
        ("clear", ("OrderedDict(), {}, [], {}\n", "OrderedDict(), {}, [], self._loads\n")),
    ],
)
def test_a_load_that_undoes_a_change_is_caught(
    how: str, fault: tuple[str, str], schedules: Schedules
) -> None:
    schedules.catch(invalidation(twin(FILE, fault), how))


def crossing(module: Any) -> Model:
    """Two loads ask for each other's keys: errors, values or cancellations, but no hang."""

    async def model() -> None:
        cache = module.AsyncTTLCache()

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
        nothing_is_left(cache)

    return model


@pytest.mark.guarantee("AC-2")
def test_loads_that_wait_for_each_other_never_hang(schedules: Schedules) -> None:
    schedules.prove(crossing(ours), delays=2)
    schedules.sample(crossing(ours), schedules=500)


@pytest.mark.twin("AC-2")
@pytest.mark.parametrize(
    "fault",
    [
        ("elif _leads_to(load, outer):", "elif load is outer:"),
        ("awaits[turn] = load\n", "awaits = {turn: load}\n"),
    ],
    ids=["only a load of its own key is found", "what loads wait for is not kept"],
)
def test_a_hang_is_caught(fault: tuple[str, str], schedules: Schedules) -> None:
    schedules.catch(crossing(twin(FILE, fault)))


def leaving(module: Any) -> Model:
    """A block is left while loads are in flight; one of its two callers may be cancelled."""

    async def model() -> None:
        cache, source = module.AsyncTTLCache(10.0), Source()

        async def block() -> None:
            async with cache:
                await cache.set("other", 1)
                await asyncio.sleep(0)
            flying = [load for load in cache._flying if not load.waiters]
            assert not flying, "an abandoned load was left to itself"
            assert cache._timer is None

        tasks = callers_of(cache, source, 2)
        blocks = [asyncio.create_task(block())]
        ends = await settled(tasks + blocks)
        assert ends[2] == "None"
        assert "failed" not in ends
        assert source.cancelled <= ends.count("cancelled")
        if "cancelled" not in ends:
            assert ends[:2] == ["1", "1"]
        nothing_is_left(cache)

    return model


@pytest.mark.guarantee("AC-4")
def test_the_block_is_left_with_loads_in_flight(schedules: Schedules) -> None:
    schedules.prove(leaving(ours), delays=3)


@pytest.mark.twin("AC-4")
@pytest.mark.parametrize(
    "fault",
    [
        ("            await asyncio.wait(ending)", "            break"),
        (
            "        while ending := [",
            "        [load.task.cancel() for load in flying]\n        while ending := [",
        ),
        ("            self._disarm()\n        here", "            pass\n        here"),
    ],
    ids=["abandoned loads are not awaited", "all loads are cancelled", "the timer stays"],
)
def test_leaving_wrongly_is_caught(fault: tuple[str, str], schedules: Schedules) -> None:
    schedules.catch(leaving(twin(FILE, fault)))


def history(module: Any) -> Model:
    """Every operation at any time, with expired entries about, is one step."""

    async def model() -> None:
        cache = module.AsyncTTLCache(10.0, 3, clock=lambda: 0.0)
        log = detangle.History()

        async def client(name: str, value: int) -> None:
            await log.call(name, "put", ("key", value), cache.set("key", value))
            await log.call(name, "get", "key", cache.get("key"))
            await asyncio.sleep(0)
            await log.call(name, "put", ("key", -value), cache.set("key", -value))
            await log.call(name, "get", "key", cache.get("key"))

        await asyncio.gather(client("a", 1), client("b", 2), client("c", 3))
        log.assert_linearizable(detangle.lin.KV())

    return model


@pytest.mark.guarantee("AC-1")
def test_gets_and_sets_are_linearizable(schedules: Schedules) -> None:
    schedules.prove(history(ours), delays=3)


@pytest.mark.twin("AC-1", "AC-3")
def test_a_set_in_two_steps_is_caught(schedules: Schedules) -> None:
    fault = (
        "        self._put(key, value, seconds)\n\n",
        "        asyncio.get_running_loop().call_soon(self._put, key, value, seconds)\n\n",
    )
    schedules.catch(history(twin(FILE, fault)))


def counter(module: Any) -> Model:
    """Look-ups and writes with no lock: between two awaits nobody comes in."""

    async def model() -> None:
        cache = module.AsyncTTLCache()
        await cache.set("count", 0)

        async def add() -> None:
            await cache.set("count", await cache.get("count") + 1)

        await asyncio.gather(*(add() for _ in range(4)))
        assert await cache.get("count") == 4

    return model


@pytest.mark.guarantee("AC-1", "AC-3")
def test_a_get_and_a_set_without_another_await_lose_nothing(schedules: Schedules) -> None:
    schedules.prove(counter(ours), delays=4)


@pytest.mark.twin("AC-1", "AC-3")
def test_a_get_that_suspends_is_caught(schedules: Schedules) -> None:
    fault = (
        "            return entry[0]\n        self._misses",
        "            await asyncio.sleep(0)\n            return entry[0]\n        self._misses",
    )
    schedules.catch(counter(twin(FILE, fault)))
