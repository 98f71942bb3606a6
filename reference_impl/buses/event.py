# event.py: the events that both buses carry, and what else they share (Event, EventType, ANY)
# https://executable-guarantees.example/buses/event.html
# Version 1.1.0 (2026-11-30); Python 3.11 to 3.14, with or without the GIL; standard library only
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

Fork, interpreter exit, signal handlers, `__del__`, free-threaded build: nothing here holds a
lock, a thread or a file, so there is nothing to mind.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, StrEnum
from functools import partial
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from threading import TIMEOUT_MAX
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
            f"event_type must be hashable, got {event_type!r}: use a string, an enum or a tuple"
        ) from None


def check_callable(argument: str, value: object, *, may_await: bool = False) -> None:
    """Raise TypeError unless calling the argument's value does its work.

    The call of a generator function does not, nor, unless it may await, of a coroutine function.
    """
    if not callable(value):
        raise TypeError(f"{argument} must be callable, got {value!r}: pass a function")
    called: Any = value
    while isinstance(called, partial):
        called = called.func
    for function in (called, type(called).__call__):
        if isgeneratorfunction(function) or isasyncgenfunction(function):
            raise TypeError(
                f"{argument} {value!r} is a generator function, which does nothing when called: "
                "pass a function without yield"
            )
        if iscoroutinefunction(function) and not may_await:
            raise TypeError(f"{argument} {value!r} is a coroutine function: use AsyncEventBus")


def check_limit(argument: str, value: int) -> int:
    """Return the argument's value; TypeError unless an int, ValueError if below 1."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{argument} must be an int, got {value!r}: pass a number from 1")
    if value < 1:
        raise ValueError(f"{argument} must be 1 or more, got {value!r}")
    return value


def check_timeout(timeout: float | None) -> float | None:
    """Return what may be waited for; TypeError unless a number, ValueError if negative."""
    if timeout is None:
        return None
    if not isinstance(timeout, int | float) or isinstance(timeout, bool):
        raise TypeError(f"timeout must be None or a number of seconds, got {timeout!r}")
    if not timeout >= 0:
        raise ValueError(f"timeout must be None or at least 0 seconds, got {timeout!r}")
    return min(timeout, TIMEOUT_MAX)
