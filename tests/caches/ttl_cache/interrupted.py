"""Caches in telling states, the calls to be interrupted there, and what must hold afterwards."""

import _thread
import gc
import math
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from reference_impl.caches.ttl_cache import CacheStats
from tests.caches.ttl_cache.helpers import Later
from tests.contracts.cache_contract import Clock
from tests.kit.interrupts import Ending, asleep, elsewhere

Make = Callable[..., Any]


class Word(str):
    """A key whose `__hash__` and `__eq__` are Python code, where a handler may run, too."""

    __slots__ = ("__weakref__",)

    def __hash__(self) -> int:
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other)


KINDS: dict[str, type[str]] = {"plain keys": str, "keys in Python": Word}


def lock() -> Any:
    """A lock that is taken until somebody releases it."""
    made = threading.Lock()
    made.acquire()
    return made


class Aside:
    """A call in a thread that no check of threads knows, as a broken twin may strand it."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self.ident = self.native = 0
        self.ended = lock()
        self._call = partial(call, *arguments)
        _thread.start_new_thread(self._run, ())

    def _run(self) -> None:
        self.native, self.ident = threading.get_native_id(), threading.get_ident()
        try:
            self.value = self._call()
        except BaseException as error:
            self.error = error
        finally:
            del self._call
            self.ended.release()

    def result(self) -> Any:
        """What the call gave; a Hang if it does not end."""
        elsewhere(self.ended.acquire)
        self.ended.release()
        if self.error is not None:
            raise self.error
        return self.value

    def await_sleep(self) -> None:
        """Return when the call waits, or has ended."""
        while self.ended.locked() and not (self.ident and asleep(self.ident, self.native)):
            time.sleep(0.0005)


@dataclass
class State:
    """A cache in a telling state, and who else is at it."""

    cache: Any
    clock: Clock
    kind: type[str]
    words: list[weakref.ref[Word]] = field(default_factory=list)
    room: float = math.inf
    told: list[tuple[Any, Any, str]] = field(default_factory=list)
    begun: Any = field(default_factory=lock)
    leave: Any = field(default_factory=lock)
    others: list[Aside] = field(default_factory=list)
    again: list[str] = field(default_factory=list)  # loads of the others
    helper: Any = None
    over: bool = False  # the interrupted call

    def word(self, text: str) -> Word:
        """A value that must not be kept."""
        made = Word(text)
        self.words.append(weakref.ref(made))
        return made

    def set(self, text: str, ttl: float | None = None) -> None:
        word = self.word(text)
        self.cache.set(word if self.kind is Word else text, word, ttl)

    def load(self) -> Word:
        """A loader for the call that is interrupted."""
        return self.word("loaded")

    def load_behind(self) -> Word:
        """The same, which says that it has begun, and waits until it may leave."""
        self.begun.release()
        self.leave.acquire()
        return self.word("loaded")

    def load_again(self) -> str:
        """A loader for the others."""
        self.again.append("again")
        return "again"

    @property
    def counts(self) -> CacheStats:
        counts: CacheStats = elsewhere(lambda: self.cache.stats)
        return counts


def empty(make: Make, kind: type[str], *, telling: bool = False, **options: Any) -> State:
    clock, told = Clock(), list[tuple[Any, Any, str]]()
    if telling:
        options["on_evict"] = lambda *left: told.append(left)
    cache = make(default_ttl=10.0, clock=clock, **options)
    return State(cache, clock, kind, room=options["max_size"] or math.inf, told=told)


def filled(make: Make, kind: type[str], **options: Any) -> State:
    """Room for three: "a", "dead", "b", of which one has expired; one was evicted."""
    state = empty(make, kind, max_size=3, **options)
    for text, ttl in (("gone", None), ("a", None), ("dead", 4.0), ("b", None)):
        state.set(text, ttl)
    state.clock.tick(4.0)
    return state


def full(make: Make, kind: type[str], **options: Any) -> State:
    """Three live entries and no room."""
    state = empty(make, kind, max_size=3, **options)
    for text, ttl in (("a", None), ("other ttl", 5.0), ("b", None)):
        state.set(text, ttl)
    return state


def behind(make: Make, kind: type[str], **options: Any) -> State:
    """Six expired entries, of two times to live, and two live ones."""
    state = empty(make, kind, max_size=None, **options)
    for number in range(6):
        state.set(f"dead {number}", 4.0 if number % 2 else 3.0)
    state.set("a")
    state.set("b")
    state.clock.tick(4.0)
    return state


Prepare = Callable[..., State]
Call = Callable[[State], object]
UNHASHABLE: Any = ["no", "key"]

# Each happens in one step, or not at all.
CALLS: dict[str, tuple[Prepare, Call]] = {
    "get a hit": (filled, lambda s: s.cache.get(s.kind("a"))),
    "get a miss": (filled, lambda s: s.cache.get(s.kind("c"))),
    "get the expired": (filled, lambda s: s.cache.get(s.kind("dead"))),
    "get by no key": (filled, lambda s: s.cache.get(UNHASHABLE)),
    "set in the place of the expired": (filled, lambda s: s.cache.set(s.kind("c"), 1)),
    "set the expired": (filled, lambda s: s.cache.set(s.kind("dead"), 1)),
    "set again": (filled, lambda s: s.cache.set(s.kind("a"), 1)),
    "set where it is full": (full, lambda s: s.cache.set(s.kind("c"), 1)),
    "set with a new ttl": (full, lambda s: s.cache.set(s.kind("c"), 1, 7.0)),
    "set again with another ttl": (full, lambda s: s.cache.set(s.kind("a"), 1, 5.0)),
    "set with a backlog": (behind, lambda s: s.cache.set(s.kind("c"), 1)),
    "set by no key": (full, lambda s: s.cache.set(UNHASHABLE, 1)),
    "delete": (filled, lambda s: s.cache.delete(s.kind("a"))),
    "delete the expired": (filled, lambda s: s.cache.delete(s.kind("dead"))),
    "delete the absent": (filled, lambda s: s.cache.delete(s.kind("c"))),
    "delete by no key": (filled, lambda s: s.cache.delete(UNHASHABLE)),
    "in": (filled, lambda s: s.kind("a") in s.cache),
    "clear": (filled, lambda s: s.cache.clear()),
    "clean up": (behind, lambda s: s.cache.cleanup_expired()),
    "size": (behind, lambda s: s.cache.size),
    "len": (filled, lambda s: len(s.cache)),
    "keys": (behind, lambda s: s.cache.keys()),
    "items": (behind, lambda s: s.cache.items()),
    "stats": (filled, lambda s: s.cache.stats),
    "find instead of loading": (filled, lambda s: s.cache.get_or_load(s.kind("a"), s.load)),
    "load by no key": (filled, lambda s: s.cache.get_or_load(UNHASHABLE, s.load)),
}
SHARDED = ("get a hit", "set where it is full", "find instead of loading")


def snapshot(state: State) -> tuple[list[tuple[Any, Any]], CacheStats]:
    """All that can be seen; first what has expired is removed."""
    items = elsewhere(state.cache.items)
    return items, state.counts


def use_it_fully(state: State) -> None:
    """The lock is free, the bound holds, the counts go on from where they were."""
    cache, before = state.cache, state.cache.stats
    for number in range(6):
        assert cache.get(f"new {number}") is None
        assert cache.get_or_load(state.kind(f"new {number}"), lambda: 1) == 1
        cache.set(number, number, 1.0 + number)
        assert len(cache) == len(cache.keys()) == len(cache.items()) <= state.room
    after = cache.stats
    assert after.hits + after.misses == before.hits + before.misses + 12
    assert after.loads == before.loads + 6
    state.clock.tick(3.0)
    assert not [number for number in (0, 1, 2) if number in cache]
    state.clock.tick(100.0)
    assert len(cache) == 0
    assert cache.keys() == []


def leaves_it_whole(state: State, ending: Ending) -> None:
    """It can be used, and keeps nothing."""
    ending.error = ending.result = None
    stays = elsewhere(state.cache.items)
    assert not [told for told in state.told if told[:2] in stays], "told of what stays"
    assert len(set(state.told)) == len(state.told), "told twice"
    elsewhere(use_it_fully, state)
    elsewhere(state.cache.clear)
    del stays
    state.told.clear()
    for other in state.others:
        other.value = None
    for generation in range(3):  # what was interrupted may leave circles, most of them young
        if any(word() is not None for word in state.words):
            gc.collect(generation)
    assert not [word() for word in state.words if word() is not None], "something is kept"


def happens_or_not(make: Make, name: str, kind: type[str], **options: Any) -> Any:
    """How to interrupt an entry of CALLS: what to prepare, what to call, what to look at."""
    prepare, call = CALLS[name]
    seen = list[Any]()
    for called in (False, True):
        state = prepare(make, kind, **options)
        if called:
            try:
                call(state)
            except TypeError:
                assert "by no key" in name
        seen.append(snapshot(state))

    def check(state: State, ending: Ending) -> None:
        now = snapshot(state)
        assert now in seen, "half a call"
        assert ending.interrupted or now == seen[1]
        del now
        leaves_it_whole(state, ending)

    return partial(prepare, make, kind, **options), call, check


# Loads take several steps.


def lead(state: State) -> object:
    return state.cache.get_or_load(state.kind("new"), state.load)


def lead_and_fail(state: State) -> object:
    return state.cache.get_or_load(state.kind("new"), lambda: 1 // 0)


def look_at_a_load(state: State, ending: Ending) -> None:
    """What was counted has happened, and the next caller gets the value or loads it."""
    stored, counts = elsewhere(lambda: "new" in state.cache), state.counts
    assert counts.misses + counts.hits <= 1
    assert counts.loads + counts.load_failures <= 1
    assert counts.loads or not stored
    found = elsewhere(state.cache.get_or_load, state.kind("new"), state.load_again)
    assert found == ("loaded" if stored else "again")
    del found
    leaves_it_whole(state, ending)


def awaited(make: Make, kind: type[str], **options: Any) -> State:
    """Two others will join the load once its loader runs, and let it go on then."""
    state = filled(make, kind, **options)

    def join() -> None:
        state.begun.acquire()
        for _ in range(2):
            state.others.append(Aside(state.cache.get_or_load, kind("new"), state.load_again))
        for other in state.others:
            other.await_sleep()
        state.leave.release()

    state.helper = Aside(join)
    return state


def lead_others(state: State) -> object:
    return state.cache.get_or_load(state.kind("new"), state.load_behind)


def look_at_those_who_joined(state: State, ending: Ending) -> None:
    """They get the load's value, or one of them loads again."""
    if state.begun.locked():
        state.begun.release()  # in case that the loader has not run
    state.helper.result()
    values = {other.result() for other in state.others}
    assert len(values) == 1
    assert state.again == (["again"] if values == {"again"} else [])
    assert elsewhere(state.cache.get, "new") in {*values, None}
    if not ending.interrupted:
        assert ending.result in values
    values.clear()
    leaves_it_whole(state, ending)


def led_elsewhere(make: Make, kind: type[str], **options: Any) -> State:
    """Another thread loads, until the call that is to be interrupted waits for it."""
    state = filled(make, kind, **options)
    caller = threading.get_ident(), threading.get_native_id()
    state.others.append(Aside(state.cache.get_or_load, kind("new"), state.load_behind))
    state.begun.acquire()

    def open_the_gate() -> None:
        while not state.over and not (state.cache.stats.misses > 1 and asleep(*caller)):
            time.sleep(0.0005)
        state.leave.release()

    state.helper = Aside(open_the_gate)
    return state


def join(state: State) -> object:
    return state.cache.get_or_load(state.kind("new"), state.load_again)


def look_at_the_one_who_led(state: State, ending: Ending) -> None:
    """It has not noticed anything."""
    state.over = True
    state.helper.result()
    assert state.others[0].result() == "loaded"
    assert ending.interrupted or ending.result == "loaded"
    assert elsewhere(state.cache.get, "new") == "loaded"
    assert (state.again, state.counts.loads) == ([], 1)
    leaves_it_whole(state, ending)


# Stale values.


def stale(make: Make, kind: type[str], **options: Any) -> State:
    """The value of "new" has had its life, and is stale."""
    state = empty(make, kind, max_size=3, **options)
    key = kind("new")
    state.cache.get_or_load(key, lambda: state.word("stale"), 5.0, stale=5.0)
    state.clock.tick(6.0)
    return state


def refresh(state: State) -> object:
    return state.cache.get_or_load(state.kind("new"), state.load, 5.0, stale=5.0)


def look_at_a_refresh(state: State, ending: Ending) -> None:
    """Whatever has become of it, the next caller but one does not get the stale value."""
    assert ending.interrupted or ending.result == "loaded"
    found = [elsewhere(refresh, state) for _ in range(2)]
    assert found[1] == "loaded"
    assert state.counts.loads <= 2 + ending.interrupted
    del found
    leaves_it_whole(state, ending)


def handing_over(make: Make, kind: type[str], **options: Any) -> State:
    """The same, and an executor will refresh it."""
    executor = Later()
    state = stale(make, kind, executor=executor, **options)
    state.helper = executor
    return state


def look_at_what_is_handed_over(state: State, ending: Ending) -> None:
    """The executor has it or not; if not, the next caller sees to it."""
    assert ending.interrupted or (ending.result, len(state.helper.jobs)) == ("stale", 1)
    elsewhere(state.helper.run)
    assert elsewhere(refresh, state) in {"stale", "loaded"}
    elsewhere(state.helper.run)
    assert elsewhere(refresh, state) == "loaded"
    assert state.counts.loads == 2
    leaves_it_whole(state, ending)


def refreshed_elsewhere(make: Make, kind: type[str], **options: Any) -> State:
    """The same, and another thread is loading a new value."""
    state = stale(make, kind, **options)
    state.others.append(
        Aside(partial(state.cache.get_or_load, kind("new"), state.load_behind, 5.0, stale=5.0))
    )
    state.begun.acquire()
    return state


def look_at_the_one_who_refreshes(state: State, ending: Ending) -> None:
    assert ending.interrupted or ending.result == "stale"
    state.leave.release()
    assert state.others[0].result() == "loaded"
    assert elsewhere(refresh, state) == "loaded"
    assert state.counts.loads == 2
    leaves_it_whole(state, ending)


LOADS: dict[str, tuple[str, Prepare, Call, Callable[[State, Ending], None]]] = {
    "lead": ("TC-6", filled, lead, look_at_a_load),
    "lead and fail": ("TC-6", filled, lead_and_fail, look_at_a_load),
    "lead others": ("TC-6", awaited, lead_others, look_at_those_who_joined),
    "join": ("TC-6", led_elsewhere, join, look_at_the_one_who_led),
    "refresh": ("TC-12", stale, refresh, look_at_a_refresh),
    "hand over": ("TC-12", handing_over, refresh, look_at_what_is_handed_over),
    "take the stale": ("TC-12", refreshed_elsewhere, refresh, look_at_the_one_who_refreshes),
}
