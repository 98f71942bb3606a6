# event.py: the events that both buses carry, and what else they share (Event, EventType, ANY)
# https://executable-guarantees.example/buses/event.html
# Version 1.2.0 (2026-11-30); Python 3.11 to 3.14, with or without the GIL; standard library only
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: 2026 The Executable Guarantees authors
"""Events, topics, and the errors and figures that EventBus and AsyncEventBus share.

An event is a topic and a payload, with an identifier and the time of its making. The topic
is any hashable value; `EventType` names a few, so that a small program need not invent its
own. `ANY` is not a topic: it subscribes to every one.

Examples:
    >>> event = Event.create(EventType.TEST_RESULT, {"unit": "A7", "passed": True})
    >>> event.payload["passed"]
    True
    >>> event.event_type == "test_result"
    True
    >>> Event.create(ANY)
    Traceback (most recent call last):
    ...
    ValueError: event_type is ANY, which only subscribes: publish under a topic of your own

Thread safety:
    Everything here is immutable, and so safe to share between threads, tasks and
    processes. The payload is the exception: each handler gets the same object, maybe in
    several threads at once. Publish payloads that nobody changes.

Fork, exit, signal handlers, `__del__`, free-threaded build: nothing here holds a lock, a thread
or a file, so there is nothing to mind.
"""

import atexit
import functools
import inspect
import os
import sys
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, StrEnum
from threading import TIMEOUT_MAX
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Final, NoReturn, Self, SupportsIndex, TypeAlias
from uuid import uuid4

__all__ = [
    "ANY",
    "AnyTopic",
    "BusFull",
    "BusStats",
    "BusStopped",
    "ErrorHandler",
    "Event",
    "EventType",
    "Handler",
    "Subscription",
]


class EventType(StrEnum):
    """Topics to start with. A member equals its text, so both name the same topic."""

    TEST_RESULT = "test_result"
    STATUS_CHANGED = "status_changed"
    ITEM_ADDED = "item_added"
    ITEM_REMOVED = "item_removed"
    JOB_STARTED = "job_started"
    JOB_COMPLETED = "job_completed"
    JOB_FAILED = "job_failed"


class AnyTopic(Enum):
    """The type of `ANY`. An enum, so that a copy or an unpickled `ANY` is still `ANY`."""

    ANY = "any"

    def __repr__(self) -> str:
        return self.name


ANY: Final = AnyTopic.ANY
"""Given to `subscribe` in place of a topic, it subscribes to every topic."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Event:
    """Something that happened.

    Two events are equal if all four fields are; the hash leaves the payload out, so an
    event with a payload that cannot be hashed can still be kept in a set.

    Attributes:
        event_type: The topic: any hashable value but `ANY`.
        payload: Whatever the handlers need. It is shared, not copied.
        event_id: Unique, unless given; a random UUID in hexadecimal.
        created_at: When it was made, as an aware time in UTC: for people, not for ordering.

    Raises:
        TypeError: If `event_type` cannot be hashed.
        ValueError: If `event_type` is `ANY`.
    """

    event_type: Hashable
    # One bus carries payloads of every type, so a type variable would have nothing to bind.
    payload: Any = field(default=None, hash=False)
    event_id: str = field(default_factory=lambda: uuid4().hex)
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        if self.event_type is ANY:
            raise ValueError(
                "event_type is ANY, which only subscribes: publish under a topic of your own"
            )
        check_topic(self.event_type)

    @classmethod
    def create(cls, event_type: Hashable, payload: Any = None) -> Self:
        """Make an event of this topic and payload, with a new identifier and the time.

        Cost: constant, a few microseconds, most of them for the identifier.

        Raises:
            TypeError: If `event_type` cannot be hashed.
            ValueError: If `event_type` is `ANY`.
        """
        return cls(event_type, payload)


Handler: TypeAlias = Callable[[Event], object]
"""What a subscription calls; its result is ignored, or awaited on a loop."""

ErrorHandler: TypeAlias = Callable[[Event, Handler, BaseException], object]
"""What hears of a failing handler: the event, the handler, and what it raised."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class BusStats:
    """A bus's figures at one instant, counted since it was made.

    `published` counts events. The others count calls, of which an event has one for each
    subscription that it met; each call is in exactly one of the four.

    Attributes:
        published: Events accepted, those without a subscription included.
        delivered: Calls that returned.
        failed: Calls that raised.
        dropped: Calls that never started: their subscription was cancelled, or `stop`
            took their event back.
        pending: Calls that wait or run.
    """

    published: int
    delivered: int
    failed: int
    dropped: int
    pending: int


class BusStopped(RuntimeError):
    """The bus is not running, so the event was not accepted."""


class BusFull(RuntimeError):
    """The bus had no room in time, so the event was not accepted."""


class Subscription:
    """A handler's subscription to a topic, as `subscribe` returns it.

    As a context manager it cancels itself on leaving.

    Args:
        cancel: Ends it at the bus, and says whether it had not ended before.

    Thread safety:
        As its bus: internally synchronized, or loop-bound.
    """

    def __init__(self, cancel: Callable[[], bool]) -> None:
        self._cancel = cancel

    def cancel(self) -> bool:
        """Start no further call and drop those that wait; one that runs is not waited for.

        Returns:
            Whether this ended it; False if it had ended before.

        Cost: grows with the number of calls that wait in the bus.
        """
        return self._cancel()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse copy.copy, copy.deepcopy and pickle."""
        raise TypeError(
            f"{type(self).__name__} cannot be copied or pickled: subscribe again at the bus"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()


def check_topic(event_type: Hashable) -> None:
    """Raise TypeError unless the topic can be hashed."""
    try:
        hash(event_type)
    except TypeError:
        raise TypeError(
            f"event_type must be hashable, not {event_type!r}: use a string, an enum or a tuple"
        ) from None


def check_callable(argument: str, value: object, *, may_await: bool = False) -> None:
    """Raise TypeError unless calling the argument's value does its work.

    The call of a generator function does not, nor, unless it may await, of a coroutine function.
    """
    inner = _unwrapped(value)
    if may_await and (not callable(value) or _is_generator(inner)):
        raise TypeError(
            f"{argument} must be a plain or a coroutine function, not {value!r}: "
            "define it with `def` or `async def`, without `yield`"
        )
    if not may_await:
        try:
            _check_plain(argument, value)
        except TypeError as error:
            raise TypeError(f"{error}, or use AsyncEventBus") from None


_SUSPENDED: Final = (CoroutineType, GeneratorType, AsyncGeneratorType)


def check_result(result: object) -> None:
    """Raise TypeError if a call only made a coroutine or a generator, of which nothing runs.

    What a lambda, a decorator or a class returns cannot be seen before it is called.
    """
    if type(result) not in _SUSPENDED:  # much cheaper than isinstance; nothing inherits from them
        return
    if isinstance(result, CoroutineType):
        result.close()  # or Python warns that it was never awaited
        raise TypeError(
            f"the call returned {result!r}, which nobody awaits: "
            "await it in a handler of AsyncEventBus"
        )
    raise TypeError(f"the call returned {result!r}, which nobody runs: loop over it inside")


def check_limit(argument: str, value: int) -> int:
    """Return the argument's value; TypeError unless an int, ValueError if below 1."""
    return _check_count(argument, value)


def check_timeout(timeout: float | None) -> float | None:
    """Return what may be waited for; TypeError unless a number, ValueError if negative."""
    return None if timeout is None else min(_check_seconds("timeout", timeout), TIMEOUT_MAX)


_finishing: set[tuple[int, Callable[[], None]]] = set()  # what was arranged, by process


def finish_with_process(finish: Callable[[], None]) -> None:
    """Have `finish` called as this process ends in order, maybe twice.

    atexit is not enough: a child of multiprocessing may end by `os._exit`. It has a list of its
    own, which is emptied as a child begins: so this is to be called again in a forked child.
    """
    known = (os.getpid(), finish)
    if known in _finishing:
        return
    atexit.register(finish)
    # Not imported here: who has no children does not pay. Another thread may be importing it.
    util = sys.modules.get("multiprocessing.util")
    if after_fork := getattr(util, "register_after_fork", None):
        after_fork(finish, _finish_in_child)  # a child may import this before it has begun
        if sys.modules["multiprocessing.process"].parent_process() is not None:
            _finish_in_child(finish)
    _finishing.add(known)


def _finish_in_child(finish: Callable[[], None]) -> None:
    # Before multiprocessing closes its own queues and pools, which have lower priorities.
    sys.modules["multiprocessing.util"].Finalize(None, finish, exitpriority=100)


def _check_type(name: str, value: object, wanted: str, *kinds: type) -> None:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise TypeError(f"{name} must be {wanted}, not {value!r}")


def _check_count(name: str, value: int) -> int:
    _check_type(name, value, "an int", int)
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value!r}")
    return value


def _check_seconds(name: str, value: float, *, zero: bool = True) -> float:
    _check_type(name, value, "a number of seconds", int, float)
    if not (value > 0 or (zero and value == 0)):  # so put, it refuses NaN, too
        least = "at least" if zero else "above"
        raise ValueError(f"{name} must be {least} 0 seconds, not {value!r}")
    return float(min(value, 1e300))  # also for an int that fits no float


def _check_plain(name: str, function: object) -> None:
    """Refuse what only makes a coroutine or a generator when called."""
    inner = _unwrapped(function)
    if not callable(function) or _is_generator(inner) or inspect.iscoroutinefunction(inner):
        raise TypeError(
            f"{name} must be a plain function, not {function!r}: define it with `def`, "
            "and await elsewhere"
        )


def _unwrapped(function: object) -> object:
    """What a call runs, behind partials, bound methods and an object's `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    known = inspect.isroutine(function) or inspect.isclass(function)
    if known or inspect.iscoroutinefunction(function):  # the last are marked objects, mocks too
        return function
    return getattr(function, "__call__", function)  # noqa: B004  (of an object that can be called)


def _is_generator(function: object) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
