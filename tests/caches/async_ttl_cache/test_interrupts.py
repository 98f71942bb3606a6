"""AsyncTTLCache after an exception of a signal handler, at each point of each call."""

import asyncio
import contextlib
import gc
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import reference_impl.caches.async_ttl_cache as ours
from tests.caches.async_ttl_cache import faults
from tests.caches.async_ttl_cache.helpers import COMPONENT, Loader, load_42, says
from tests.kit.fakes import Clock, turns
from tests.kit.interrupts import Ending, Interrupt, Interrupts
from tests.kit.profile import budget
from tests.kit.proofs import each_twin_of
from tests.kit.twins import Twin, build

OPEN = list["State"]()


@pytest.fixture(autouse=True)
def _no_loop_is_left_running() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # interrupted before its first step
        yield
        while OPEN:  # those of a check that failed
            OPEN[-1].close()
        gc.collect()


class State:
    """A cache of three entries at most, on a loop of its own, which the test steps by hand."""

    def __init__(self, module: Any = ours) -> None:
        self.clock = Clock(1_000.0)
        self.left = list[tuple[Any, Any, str]]()
        self.cache: Any = module.AsyncTTLCache(
            10.0, 3, clock=self.clock, on_evict=lambda *left: self.left.append(left)
        )
        self.loop = asyncio.new_event_loop()
        OPEN.append(self)
        self.loop.set_exception_handler(lambda *_: None)  # of tasks that were interrupted
        self.loop.run_until_complete(self.fill())
        self.left.clear()
        asyncio._set_running_loop(self.loop)

    async def fill(self) -> None:
        """An entry to expire soonest, and one of another life; the last is read."""
        await self.cache.set("old", 1, 5.0)
        await self.cache.get_or_load("stale", load_42, 6.0, stale=100.0)
        await self.cache.set("new", 3)
        await self.cache.get("old")

    def shown(self) -> object:
        """The live entries, once what has been begun has ended."""
        with self.running() as loop:
            loop.run_until_complete(turns())
        return step(self.cache.items())

    @contextmanager
    def running(self) -> Iterator[asyncio.AbstractEventLoop]:
        """The loop, to run something to its end."""
        asyncio._set_running_loop(None)
        try:
            yield self.loop
        finally:
            asyncio._set_running_loop(self.loop)

    def close(self) -> None:
        asyncio._set_running_loop(None)
        OPEN.remove(self)
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(turns())
        self.loop.close()


def step(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run it until it ends or suspends; in that case return it, so that it is not closed."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    return coroutine


CALLS: dict[str, tuple[float, Callable[[Any], Any]]] = {
    "get": (0.0, lambda cache: step(cache.get("old"))),
    "get the expired": (5.0, lambda cache: step(cache.get("old"))),
    "get none": (0.0, lambda cache: step(cache.get("none"))),
    "set": (0.0, lambda cache: step(cache.set("next", 4))),
    "set with another life": (0.0, lambda cache: step(cache.set("next", 4, 7.0))),
    "set again": (0.0, lambda cache: step(cache.set("new", 4))),
    "set the expired": (5.0, lambda cache: step(cache.set("old", 4))),
    "set with all expired": (20.0, lambda cache: step(cache.set("next", 4))),
    "delete": (0.0, lambda cache: step(cache.delete("old"))),
    "delete the expired": (5.0, lambda cache: step(cache.delete("old"))),
    "clear": (5.0, lambda cache: step(cache.clear())),
    "keys": (5.0, lambda cache: step(cache.keys())),
    "items": (20.0, lambda cache: step(cache.items())),
    "cleanup_expired": (7.0, lambda cache: step(cache.cleanup_expired())),
    "size": (7.0, lambda cache: cache.size),
    "len": (20.0, lambda cache: len(cache)),
    "in": (5.0, lambda cache: "old" in cache),
    "stats": (0.0, lambda cache: cache.stats),
    "get_or_load": (0.0, lambda cache: step(cache.get_or_load("old", load_42))),
    "get_or_load none": (0.0, lambda cache: step(cache.get_or_load("none", load_42))),
    "get_or_load stale": (7.0, lambda cache: step(cache.get_or_load("stale", load_42, stale=50.0))),
    "enter": (0.0, lambda cache: step(cache.__aenter__())),
    "leave": (0.0, lambda cache: step(cache.__aexit__(None, None, None))),
}


async def is_in_order(state: State) -> None:
    """All that the cache shows agrees, and it goes on as ever."""
    await turns()  # a load that was begun lands
    cache, before = state.cache, state.cache.stats
    keys, items = await cache.keys(), await cache.items()
    assert [key for key, _ in items] == keys
    assert cache.size == len(cache) == len(keys) == len(set(keys)) <= 3
    assert all(key in cache for key in keys)
    for number in range(4):
        full = len(keys) == 3
        await cache.set(number, number)
        evicted, keys = keys[: int(full)], [*keys[int(full) :], number]
        assert await cache.keys() == keys, f"in place of {evicted}"
    state.clock.tick(1_000.0)
    assert len(cache) == 0
    assert await cache.items() == []
    after = cache.stats
    assert after.expirations >= before.expirations + 3
    for key in ("old", "stale", "new", "next", "none"):
        assert await cache.get_or_load(key, load_42) == 42, f"{key} is not loaded"
    assert await cache.keys() == ["new", "next", "none"]
    stats = cache.stats
    assert (stats.loads, stats.misses) == (after.loads + 5, after.misses + 5)


def check(state: State, _ending: Ending) -> None:
    """It has happened or has not; nothing has left twice; and the loop's tasks go on."""
    asyncio._set_running_loop(None)
    try:
        assert len(set(state.left)) == len(state.left), "told twice"
        state.loop.run_until_complete(asyncio.wait_for(is_in_order(state), 5.0))
    finally:
        state.close()


class Sweep:
    """One call of the table: it has happened or it has not, whenever it is interrupted."""

    def __init__(self, name: str, module: Any = ours) -> None:
        self.later, self.action = CALLS[name]
        self.module = module
        self.seen = [self.shown(call=False), self.shown(call=True)]

    def prepare(self) -> State:
        state = State(self.module)
        state.clock.tick(self.later)
        return state

    def call(self, state: State) -> object:
        return self.action(state.cache)

    def shown(self, *, call: bool) -> object:
        state = self.prepare()
        _kept = self.call(state) if call else None
        try:
            return state.shown()
        finally:
            state.close()

    def check(self, state: State, ending: Ending) -> None:
        assert state.shown() in self.seen, "it is neither as before nor as after the call"
        check(state, ending)


@pytest.mark.guarantee("AC-1")
@pytest.mark.parametrize("name", CALLS)
def test_an_interrupted_call_has_happened_or_has_not(name: str, interrupts: Interrupts) -> None:
    sweep = Sweep(name)
    interrupts.prove(sweep.prepare, sweep.call, sweep.check)


TWO_STEPS = says("deletes before it sets", faults.deletes_before_it_sets, "neither as before")


@each_twin_of("AC-1", TWO_STEPS)
def test_an_interrupted_call_catches(twin: Twin, interrupts: Interrupts) -> None:
    sweep = Sweep("set again", build(COMPONENT, twin.fault))
    interrupts.catch(sweep.prepare, sweep.call, sweep.check, twin=twin)


# Loads: what one caller's interrupt means for the others.


class Loading(State):
    """One task that leads a load of "key", and one coroutine, stepped by hand, that joined it."""

    def __init__(self, module: Any = ours, *, leads: bool = False) -> None:
        super().__init__(module)
        self.loader = Loader()
        self.leader: asyncio.Task[Any] | None = None
        if not leads:
            self.leader = self.loop.create_task(self.cache.get_or_load("key", self.loader))
            self.turn()
        self.joiner: Coroutine[Any, Any, Any] = self.cache.get_or_load("key", self.loader)

    def joined(self) -> "Loading":
        step(self.joiner)
        self.turn()
        return self

    def landed(self, failure: Exception | None = None) -> "Loading":
        self.land(failure)
        self.turn()
        return self

    def land(self, failure: Exception | None = None) -> None:
        if failure is not None:
            self.loader.gate.set_exception(failure)
        else:
            self.loader.gate.set_result("loaded")

    def turn(self) -> None:
        with self.running() as loop:
            loop.run_until_complete(turns())

    def drop_the_loop(self) -> None:
        """Go on with the next one."""
        self.joiner.close()
        self.close()
        self.loop = asyncio.new_event_loop()
        OPEN.append(self)
        asyncio._set_running_loop(self.loop)

    @property
    def is_lost(self) -> bool:
        """Whether asyncio has cancelled what the load waits for, and will never wake it."""
        self.turn()
        return self.loader.gate.cancelled() and not self.loader.cleaned


def the_others_get_it(state: Loading, ending: Ending) -> None:
    """The leader, and the joiner if it was not interrupted."""
    if not state.loader.gate.done():
        state.land()
    state.turn()
    assert state.leader is not None
    assert state.leader.result() == "loaded", "the leader is stranded"
    assert state.loader.started == 1
    if not ending.interrupted:
        assert ending.result == "loaded" or step(state.joiner) == "loaded"
    state.joiner.close()
    assert step(state.cache.get("key")) == "loaded"
    assert step(state.cache.delete("key")) is True
    state.left.clear()
    check(state, ending)


@pytest.mark.guarantee("AC-2")
def test_one_who_is_interrupted_while_joining_strands_nobody(interrupts: Interrupts) -> None:
    interrupts.prove(Loading, lambda state: step(state.joiner), the_others_get_it)


ENDS = Twin("ends a load with one who is interrupted", faults.ends_with_who_waits, "CancelledError")


@each_twin_of("AC-2", ENDS)
def test_one_who_is_interrupted_while_joining_catches(twin: Twin, interrupts: Interrupts) -> None:
    broken = build(COMPONENT, twin.fault)
    interrupts.catch(
        lambda: Loading(broken), lambda state: step(state.joiner), the_others_get_it, twin=twin
    )


@pytest.mark.guarantee("AC-2")
def test_one_who_is_interrupted_while_waking_strands_nobody(interrupts: Interrupts) -> None:
    interrupts.prove(
        lambda: Loading().joined().landed(), lambda state: step(state.joiner), the_others_get_it
    )


def leave(state: Loading) -> None:
    """The joiner's task is cancelled."""
    with contextlib.suppress(asyncio.CancelledError):
        state.joiner.throw(asyncio.CancelledError())


@pytest.mark.guarantee("AC-2")
def test_one_who_is_interrupted_while_leaving_strands_nobody(interrupts: Interrupts) -> None:
    def check_others(state: Loading, ending: Ending) -> None:
        the_others_get_it(state, Ending(interrupted=True, error=ending.error))

    interrupts.prove(lambda: Loading().joined(), leave, check_others)


def nothing_goes_on(state: Loading, ending: Ending) -> None:
    """Leaving the block ends what nobody awaits, and the key can be loaded."""

    async def leave_and_load() -> None:
        async with state.cache:
            pass
        if not dropped:
            assert state.loader.cleaned == state.loader.started, "a load goes on for nobody"
        assert await state.cache.get_or_load("key", load_42) == 42
        assert await state.cache.delete("key") is True

    if dropped := state.is_lost:
        state.drop_the_loop()
    state.joiner.close()
    with state.running() as loop:
        loop.run_until_complete(asyncio.wait_for(leave_and_load(), 5.0))
    state.left.clear()
    check(state, ending)


@pytest.mark.guarantee("AC-2")
def test_a_leader_who_is_interrupted_leaves_no_load_that_cannot_be_ended(
    interrupts: Interrupts,
) -> None:
    interrupts.prove(lambda: Loading(leads=True), lambda state: step(state.joiner), nothing_goes_on)


@pytest.mark.guarantee("AC-2")
def test_the_last_one_who_is_interrupted_while_leaving_leaves_no_such_load(
    interrupts: Interrupts,
) -> None:
    interrupts.prove(lambda: Loading(leads=True).joined(), leave, nothing_goes_on)


@pytest.mark.guarantee("AC-2")
def test_a_failure_that_is_interrupted_on_its_way_reaches_the_others(
    interrupts: Interrupts,
) -> None:
    def check_leader(state: Loading, ending: Ending) -> None:
        assert state.leader is not None
        assert str(state.leader.exception()) == "no route"
        assert ending.interrupted or isinstance(ending.error, OSError)
        check(state, ending)

    interrupts.prove(
        lambda: Loading().joined().landed(OSError("no route")),
        lambda state: step(state.joiner),
        check_leader,
    )


class Refreshing(Loading):
    """In a block, and a stale value that is being refreshed."""

    def __init__(self) -> None:
        super().__init__(leads=True)
        step(self.cache.__aenter__())
        self.clock.tick(7.0)
        self.joiner.close()
        assert step(self.cache.get_or_load("stale", self.loader, stale=50.0)) == 42
        self.turn()
        assert self.loader.started == 1
        self.joiner = self.cache.__aexit__(None, None, None)


@pytest.mark.guarantee("AC-6")
def test_a_block_whose_end_is_interrupted_can_be_left_again(interrupts: Interrupts) -> None:
    def leave_again(state: Refreshing, ending: Ending) -> None:
        if state.is_lost:
            state.drop_the_loop()
        with state.running() as loop:
            again = state.cache.__aexit__(None, None, None)
            loop.run_until_complete(asyncio.wait_for(again, 5.0))
        nothing_goes_on(state, ending)

    interrupts.prove(Refreshing, lambda state: step(state.joiner), leave_again)


def loaded() -> Loading:
    state = Loading()
    state.land()
    return state


def run_the_loop(state: Loading) -> None:
    """As long as there is something to do."""
    loop: Any = state.loop
    while loop._ready:
        loop._run_once()


@pytest.mark.guarantee("AC-2")
def test_a_load_whose_landing_is_interrupted_can_be_repeated(interrupts: Interrupts) -> None:
    """The loop logs what is raised in a callback; who waited may have to be cancelled."""

    def load_again(state: Loading, ending: Ending) -> None:
        assert state.leader is not None
        state.turn()
        state.leader.cancel()
        state.turn()
        stats = state.cache.stats
        if asyncio.all_tasks(state.loop) or stats.loads + stats.load_failures == 1:
            state.drop_the_loop()  # asyncio has lost a step of theirs, or the callback
        state.joiner.close()
        with state.running() as loop:
            again = asyncio.wait_for(state.cache.get_or_load("key", load_42), 5.0)
            assert loop.run_until_complete(again) in {42, "loaded"}
        assert step(state.cache.delete("key")) is True
        state.left.clear()
        check(state, ending)

    interrupts.prove(loaded, run_the_loop, load_again, twice=budget(False, True))


class CtrlC(Interrupt, KeyboardInterrupt):
    """A signal's exception that ends the loop, as all others do not."""


@pytest.mark.guarantee("AC-5")
def test_a_loop_that_is_interrupted_leaves_a_cache_for_the_next(
    interrupts: Interrupts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it runs the load, lands it, and wakes the callers."""
    monkeypatch.setattr("tests.kit.interrupts.Interrupt", CtrlC)

    def check_on_the_next_loop(state: Loading, ending: Ending) -> None:
        if state.leader is not None and ending.happened:
            assert state.leader.result() == "loaded"
        state.drop_the_loop()
        with state.running() as loop:
            found = loop.run_until_complete(state.cache.get_or_load("key", load_42))
        assert found in {42, "loaded"}
        assert step(state.cache.delete("key")) is True
        state.left.clear()
        check(state, ending)

    interrupts.prove(loaded, run_the_loop, check_on_the_next_loop, twice=budget(False, True))
