"""Signal handlers that raise at any point: the cache stays usable, and keeps nothing."""

import itertools
import sys
import weakref
from collections.abc import Callable
from functools import partial
from types import FrameType, ModuleType
from typing import Any

import pytest

from reference_impl.caches import ttl_cache
from tests.contracts.cache_contract import Clock
from tests.kit.fakes import Beside


class Interrupt(BaseException):
    """What a signal handler raises."""


def interrupted(m: ModuleType, action: Callable[[], object], step: int) -> bool:
    """Run `action`; raise as it comes back from its `step`-th call of a C function.

    That is where the interpreter runs signal handlers; and while it waits for a lock, so that
    `acquire` may raise without the lock. False if there were fewer such places.
    """
    calls = 0

    def profile(frame: FrameType, event: str, function: Any) -> None:
        nonlocal calls
        if event not in {"c_call", "c_return"} or frame.f_code.co_filename != m.__file__:
            return
        if function.__name__ in {"__enter__", "__exit__"}:  # `with` takes care of its own
            return
        if event == "c_return" or function.__name__ == "acquire":
            calls += 1
            if calls == step:
                raise Interrupt

    sys.setprofile(profile)
    try:
        action()
    except Interrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


class Word(str):
    """A key whose `__hash__` is Python code, where a signal handler may run, too."""

    __slots__ = ("__weakref__",)
    calls = until = 0

    def __hash__(self) -> int:
        Word.calls += 1
        if Word.calls == Word.until:
            raise Interrupt
        return super().__hash__()


def interrupted_in_a_key(_: ModuleType, action: Callable[[], object], step: int) -> bool:
    """Run `action`; raise in the `step`-th hash of a Word. False if there were fewer."""
    Word.calls, Word.until = 0, step
    try:
        action()
    except Interrupt:
        return True
    finally:
        Word.until = 0
    return False


INTERRUPTED: dict[str, Callable[[Any], object]] = {
    "get": lambda cache: cache.get(Word("d")),
    "get the dead": lambda cache: cache.get(Word("e")),
    "set": lambda cache: cache.set(Word("new"), 1),
    "set again": lambda cache: cache.set(Word("d"), 1),
    "set with a new ttl": lambda cache: cache.set(Word("new"), 1, ttl=5.0),
    "delete": lambda cache: cache.delete(Word("d")),
    "len": lambda cache: len(cache),
    "clear": lambda cache: cache.clear(),
    "load": lambda cache: cache.get_or_load(Word("new"), lambda: 1),
}
Interrupted = Callable[[ModuleType, Callable[[], object], int], bool]


def filled(m: ModuleType, clock: Clock) -> tuple[Any, list[weakref.ref[Word]]]:
    """A cache in which c and e are dead, d is alive, and from which a and b are gone."""
    cache = m.TTLCache(10.0, 3, clock=clock)
    words = [Word(letter) for letter in "abcde"]
    for word in words:
        cache.set(word, word, ttl=4.0 if word in "ace" else None)
    clock.tick(4.0)
    return cache, [weakref.ref(word) for word in words]


def check_an_interrupt_leaves_the_cache_usable(
    m: ModuleType, name: str, where: Interrupted = interrupted
) -> None:
    step = 0
    for step in itertools.count(1):
        clock = Clock()
        cache, words = filled(m, clock)
        if not where(m, partial(INTERRUPTED[name], cache), step):
            break
        assert Beside(cache.get, "nothing").result() is None  # the lock is free
        assert cache.get_or_load("new", lambda: 1) == 1
        for number in range(5):
            cache.set(number, number)
            assert len(cache) == len(cache.keys()) <= 3
        assert cache.keys() == [2, 3, 4]
        clock.tick(10.0)
        assert len(cache) == 0
        assert not any(word() for word in words)  # and nothing of them is kept
    assert step > 1


@pytest.mark.parametrize("name", INTERRUPTED)
def test_an_interrupt_leaves_the_cache_usable(name: str) -> None:
    check_an_interrupt_leaves_the_cache_usable(ttl_cache, name)


@pytest.mark.parametrize("name", [name for name in INTERRUPTED if name != "clear"])  # no hash
def test_an_interrupt_in_a_key_leaves_the_cache_usable(name: str) -> None:
    check_an_interrupt_leaves_the_cache_usable(ttl_cache, name, interrupted_in_a_key)
