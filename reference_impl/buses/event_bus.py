# event_bus.py: publish and subscribe between threads, on a bounded pool of workers (EventBus)
# https://executable-guarantees.example/buses/event_bus.html
# Version 1.0.0 (2026-11-23); Python 3.11 to 3.14, with or without the GIL; standard library only
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: 2026 The Executable Guarantees authors
"""An event bus whose handlers run in a pool of threads of its own.

Examples:
    >>> from .event import Event, EventType
    >>> seen: list[object] = []
    >>> with EventBus(max_workers=2) as bus:
    ...     subscription = bus.subscribe(EventType.TEST_RESULT, lambda e: seen.append(e.payload))
    ...     bus.publish(Event.create(EventType.TEST_RESULT, "unit A7 passed"))
    ...     bus.wait_idle()
    >>> seen
    ['unit A7 passed']

Thread safety:
    `EventBus` and `Subscription` are internally synchronized: each operation is atomic and
    legal in any thread, handlers included. Handlers are called without the lock.

Fork: the child gets a stopped bus with its subscriptions; what waits stays the parent's.
Interpreter exit: each running bus is stopped, drained for 10 seconds at most; then its
daemon threads die. Signal handlers and finalizers (`__del__`) must not call the bus, as they
may interrupt a holder of its lock. Its threads keep a running bus alive: stop it, dropping
it is not enough. Nothing here relies on the GIL.
"""

import atexit
import logging
import os
import threading
from collections import deque
from collections.abc import Collection, Hashable
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from inspect import iscoroutinefunction
from typing import Self
from weakref import WeakValueDictionary

from .event import (
    ANY,
    BusFull,
    BusStats,
    BusStopped,
    ErrorHandler,
    Event,
    Handler,
    Subscription,
    check_callable,
    check_limit,
    check_timeout,
    check_topic,
)

__all__ = ["EventBus"]

_STOPPED, _RUNNING, _STOPPING = "not running", "running", "stopping"
_EXIT_TIMEOUT = 10.0
_logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Route:
    """What the bus knows of a subscription; guarded by the bus's lock."""

    topic: Hashable
    handler: Handler
    ordered: bool
    active: bool = True
    # An ordered route with a call ready or running is busy; its other calls wait here.
    busy: bool = False
    mailbox: "deque[_Accepted]" = field(default_factory=deque)


@dataclass(slots=True, eq=False)
class _Accepted:
    """An accepted event, and how many of its calls have not started."""

    number: int
    event: Event
    context: Context
    unstarted: int


class EventBus:
    """Calls the handlers of each published event, in worker threads.

    Delivery is breadth first: `publish` puts the calls in line and returns, in a handler
    as elsewhere. It is at most once: what waits when the process dies is gone.

    Args:
        max_workers: Threads, and so the most handlers that run at once.
        max_queue: The most accepted events with a call not yet started.
        on_error: Called as `on_error(event, handler, exception)`, in the worker, when a handler
            raises anything. Without it, and when it raises itself, the failure is logged.
        name: What messages and threads call the bus.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If a number is below 1.

    Thread safety:
        Internally synchronized; the module tells of fork, exit, signals and `__del__`.
    """

    def __init__(
        self,
        max_workers: int = 10,
        *,
        max_queue: int = 10_000,
        on_error: ErrorHandler | None = None,
        name: str = "event-bus",
    ) -> None:
        self._max_workers = check_limit("max_workers", max_workers)
        self._max_queue = check_limit("max_queue", max_queue)
        self._on_error = _log_failure if on_error is None else on_error
        check_callable("on_error", self._on_error)
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, got {name!r}")
        self._name = name
        self._routes: dict[Hashable, tuple[_Route, ...]] = {}  # no topic without a route
        self._published = self._delivered = self._failed = self._dropped = 0
        self._threads_made = self._idle_moments = 0
        self._reset()
        _buses[id(self)] = self

    def _reset(self) -> None:
        """Also for a forked child, which has neither the threads nor a usable lock."""
        # One lock. While it is free: _pending counts the calls in _ready, in mailboxes and
        # in _running, _backlog the events among the first two; and no worker sleeps
        # without a notification while a call is ready.
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)  # a call is ready, or the bus stops
        self._room = threading.Condition(self._lock)  # the backlog fell below max_queue, ditto
        self._quiet = threading.Condition(self._lock)  # pending is 0, or stopping goes ahead
        self._state = _STOPPED
        self._ready: deque[tuple[_Accepted, _Route]] = deque()
        self._backlog = 0
        self._pending = 0
        self._workers: dict[int, threading.Thread] = {}  # by number
        self._running: dict[int, tuple[_Accepted, _Route]] = {}  # by thread
        self._sleeping = 0  # workers that wait and were not notified
        self._stops: set[object] = set()  # calls of stop under way
        self._inside: set[int] = set()  # threads whose running call has called stop
        self._given_up: set[int] = set()  # threads that a stop has left running
        self._ended: list[threading.Thread] = []  # workers for a stop to join
        self._taken_back: list[_Accepted] = []
        for route in self._all_routes():
            route.busy, route.mailbox = False, deque()

    def _all_routes(self) -> set[_Route]:
        return {route for routes in self._routes.values() for route in routes}

    def subscribe(
        self, event_type: Hashable, handler: Handler, *, ordered: bool = False
    ) -> Subscription:
        """Have `handler` called with each event of this topic accepted from now on.

        Args:
            event_type: The topic, or `ANY` for all.
            handler: Called with the event, in a worker; its result is ignored.
            ordered: One event at a time, in each publisher's order. Otherwise calls of
                the handler may run side by side.

        Raises:
            TypeError: If the topic cannot be hashed, or the handler cannot be called or is
                a coroutine function.

        Cost: grows with the number of subscriptions to the topic. Never waits for a handler.
        """
        check_topic(event_type)
        check_callable("handler", handler)
        if iscoroutinefunction(handler):
            raise TypeError(f"handler {handler!r} is a coroutine function: use AsyncEventBus")
        with self._lock:
            others = self._routes.get(event_type, ())
            # All routes of a topic hold the dict's key: it is not to die under the lock.
            route = _Route(others[0].topic if others else event_type, handler, ordered)
            self._routes[route.topic] = (*others, route)
        return Subscription(partial(self._cancel, route))

    def unsubscribe(self, event_type: Hashable, handler: Handler) -> bool:
        """Cancel each subscription to exactly this topic whose handler equals this one.

        Returns whether there was one. Raises TypeError if the topic cannot be hashed.
        """
        check_topic(event_type)
        with self._lock:
            routes = self._routes.get(event_type, ())
        # Bound methods are equal, not identical; and == may be anyone's code.
        found = [route for route in routes if route.handler == handler]
        return sum(map(self._cancel, found)) > 0

    def _cancel(self, route: _Route) -> bool:
        with self._lock:
            if not route.active:
                return False
            route.active = False
            others = tuple(r for r in self._routes[route.topic] if r is not route)
            if others:
                self._routes[route.topic] = others
            else:
                del self._routes[route.topic]
            dropped = self._drop_locked({route})
            self._room.notify_all()  # who waits to publish may have no handler any more
        del dropped  # kept so far, to die without the lock
        return True

    def _drop_locked(self, routes: Collection[_Route]) -> list[_Accepted]:
        dropped: list[_Accepted] = []
        for _ in range(len(self._ready)):
            accepted, route = self._ready.popleft()
            if route in routes:
                dropped.append(accepted)
                route.busy = False
            else:
                self._ready.append((accepted, route))
        for route in routes:
            dropped += route.mailbox
            route.mailbox.clear()
        for accepted in dropped:
            accepted.unstarted -= 1
            self._backlog -= not accepted.unstarted
        self._dropped += len(dropped)
        self._pending -= len(dropped)
        self._progress_locked()
        return dropped

    def publish(self, event: Event, timeout: float | None = None) -> None:
        """Accept `event`: one call for each subscription to its topic, and to `ANY`.

        Args:
            event: What happened. Its handlers see the caller's context variables.
            timeout: Seconds to wait for room; None waits without limit, but in a handler of
                this bus it fails at once, since that handler may hold up the room.

        Raises:
            BusFull: If there was no room in time; the event was not accepted.
            BusStopped: If the bus does not run, or was stopped meanwhile; not accepted.
            TypeError: If `event` is no Event, or `timeout` no number.
            ValueError: If `timeout` is negative.

        Cost: grows with the subscriptions called, not with the backlog.
        """
        if not isinstance(event, Event):
            raise TypeError(f"event must be an Event, got {event!r}: use Event.create")
        timeout = check_timeout(timeout)
        context = copy_context()
        with self._lock:
            routes = self._routes_locked(event)
            if routes and self._backlog >= self._max_queue:
                routes = self._await_room_locked(event, timeout)
            self._published += 1
            if not routes:
                return
            accepted = _Accepted(self._published, event, context, len(routes))
            self._backlog += 1
            self._pending += len(routes)
            for route in routes:
                if route.busy:
                    route.mailbox.append(accepted)
                    continue
                route.busy = route.ordered
                self._ready.append((accepted, route))
                if self._sleeping:
                    self._sleeping -= 1
                    self._work.notify()

    def _routes_locked(self, event: Event) -> tuple[_Route, ...]:
        if self._state != _RUNNING:
            raise BusStopped(f"{self._name} is {self._state}: publish between start and stop")
        return self._routes.get(event.event_type, ()) + self._routes.get(ANY, ())

    def _await_room_locked(self, event: Event, timeout: float | None) -> tuple[_Route, ...]:
        def settled() -> bool:
            return not self._routes_locked(event) or self._backlog < self._max_queue

        full = f"{self._name} holds {self._max_queue} events: raise max_queue, "
        if timeout is None and threading.get_ident() in self._running:
            raise BusFull(full + "or pass a timeout, as a handler may be waiting for itself")
        try:
            if not self._room.wait_for(settled, timeout):
                raise BusFull(full + f"or publish later, as {timeout} s made no room")
            return self._routes_locked(event)
        finally:
            self._room.notify()  # one waiter is told of new room; it tells the next

    def start(self) -> None:
        """Start the workers; on a running bus, do nothing.

        Raises RuntimeError if the bus is stopping, or the system has no thread left; it
        stays stopped then. Cost: a thread for each worker not left from before.
        """
        with self._lock:
            if self._state == _STOPPING:
                raise RuntimeError(f"{self._name} is stopping: start it once stop() returned")
            while len(self._workers) < self._max_workers:
                number = self._threads_made = self._threads_made + 1
                name = f"{self._name}-{number}"
                worker = threading.Thread(
                    target=self._work_loop, args=(number,), name=name, daemon=True
                )
                worker.start()  # it comes as far as our lock
                self._workers[number] = worker
            self._inside.clear()
            self._given_up.clear()
            self._ended.clear()
            self._state = _RUNNING

    def stop(self, timeout: float | None = None, *, drain: bool = True) -> list[Event]:
        """Refuse new events, let the accepted ones be handled, and end the workers.

        In a handler it waits for all calls that are not themselves inside `stop`, and takes
        back what only those could handle. Interrupted, it leaves the bus stopping, and the
        next `stop` finishes. On a stopped bus there is nothing to do but to wait for a
        handler that has stopped it to end.

        Args:
            timeout: Seconds to wait for handlers; None waits without limit. One that still
                runs then is logged and left alone, and keeps its place among the workers.
            drain: False starts no further call; those that run are waited for all the same.

        Returns:
            The events with a call that was not started, each once, in order of acceptance.

        Raises:
            TypeError: If `timeout` is no number.
            ValueError: If `timeout` is negative.
        """
        timeout = check_timeout(timeout)
        me, this = threading.get_ident(), object()
        taken: list[_Accepted] = []
        finished = False
        try:
            with self._lock:
                if me in self._running:
                    if self._state == _STOPPED:
                        return []
                    self._inside.add(me)
                self._state = _STOPPING
                self._stops.add(this)
                known = set(self._given_up)
                self._sleeping = 0
                for condition in (self._work, self._room, self._quiet):
                    condition.notify_all()
                if not drain:
                    self._take_back_locked()
                left: list[tuple[_Accepted, _Route]] = []
                if not self._quiet.wait_for(lambda: self._drained(me, known), timeout):
                    excused = self._inside if me in self._inside else set()
                    stuck = self._running.keys() - excused
                    self._given_up |= stuck
                    left = [self._running[thread] for thread in stuck]
                self._take_back_locked()
                self._quiet.wait_for(lambda: len(self._workers) == len(self._running))
                ended = list(self._ended)
            for worker in ended:
                worker.join()
            finished = True
        finally:
            with self._lock:
                self._stops.discard(this)
                if finished:
                    taken, self._taken_back = self._taken_back, []
                    if not self._stops:
                        self._state = _STOPPED
                        self._quiet.notify_all()
        for accepted, route in left:
            topic = accepted.event.event_type
            _logger.warning("%s stopped, but %r runs on (%r)", self._name, route.handler, topic)
        events = {accepted.number: accepted.event for accepted in taken}
        return [events[number] for number in sorted(events)]

    def _drained(self, me: int, known: set[int]) -> bool:
        if me not in self._inside:
            return self._pending == len(self._running) and self._running.keys() <= known
        # In a handler: all that runs is inside stop, and nobody else can start what waits.
        inside = len(self._inside)
        busy = len(self._running) > inside
        return not busy and (not self._ready or len(self._workers) == inside)

    def _take_back_locked(self) -> None:
        self._taken_back += self._drop_locked(self._all_routes())

    def wait_idle(self, timeout: float | None = None) -> None:
        """Wait until no call waits or runs, those of the handlers' own events included.

        Returns once the bus was idle, even if it is busy again; on a stopped bus at once.

        Args:
            timeout: Seconds to wait; None waits without limit.

        Raises:
            TimeoutError: If the bus was not idle in time.
            RuntimeError: In a handler of this bus, which would wait for itself.
            TypeError: If `timeout` is no number.
            ValueError: If `timeout` is negative.
        """
        timeout = check_timeout(timeout)
        with self._lock:
            if threading.get_ident() in self._running:
                raise RuntimeError(f"{self._name} is not idle while its handler waits for that")
            seen = self._idle_moments

            def was_idle() -> bool:
                idle = not self._pending or self._idle_moments != seen
                return idle or self._state == _STOPPED

            if not self._quiet.wait_for(was_idle, timeout):
                raise TimeoutError(f"{self._name}: {self._pending} calls left after {timeout} s")

    @property
    def stats(self) -> BusStats:
        """The figures of one instant."""
        with self._lock:
            return BusStats(
                self._published, self._delivered, self._failed, self._dropped, self._pending
            )

    @property
    def is_running(self) -> bool:
        """Whether `publish` accepts events."""
        return self._state == _RUNNING

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _work_loop(self, number: int) -> None:
        me = threading.get_ident()
        call: tuple[_Accepted, _Route] | None = None
        succeeded = False
        while True:
            # Ending one call and starting the next in one step halves the lock's traffic.
            # Not `with`, which costs more: no KeyboardInterrupt comes between in a worker.
            self._lock.acquire()
            try:
                if call is not None:
                    self._end_locked(me, call[1], succeeded)
                following = self._next_locked(me) if self._ready else None
            finally:
                self._lock.release()
            call, following = following, None  # the old call dies: no lock held, not asleep
            if call is None and (call := self._await_call(me, number)) is None:
                return
            succeeded = call[0].context.copy().run(self._call, call[0].event, call[1].handler)

    def _await_call(self, me: int, number: int) -> tuple[_Accepted, _Route] | None:
        with self._lock:
            while not self._ready:
                if self._state != _RUNNING:
                    if worker := self._workers.pop(number, None):
                        self._ended.append(worker)
                    self._quiet.notify_all()
                    return None
                self._sleeping += 1
                self._work.wait()
            return self._next_locked(me)

    def _next_locked(self, me: int) -> tuple[_Accepted, _Route]:
        call = self._running[me] = self._ready.popleft()
        accepted = call[0]
        accepted.unstarted -= 1
        if not accepted.unstarted:
            self._backlog -= 1
            if self._backlog == self._max_queue - 1:
                self._room.notify()
        return call

    def _end_locked(self, me: int, route: _Route, succeeded: bool) -> None:
        if self._running.pop(me, None) is None:
            return  # a child, forked by the handler: the call is the parent's
        if succeeded:
            self._delivered += 1
        else:
            self._failed += 1
        if route.mailbox:
            self._ready.append((route.mailbox.popleft(), route))  # behind what is ready
        else:
            route.busy = False
        self._pending -= 1
        if not self._pending or self._state != _RUNNING:
            self._inside.discard(me)
            self._given_up.discard(me)
            self._progress_locked()

    def _progress_locked(self) -> None:
        if not self._pending:
            self._idle_moments += 1
        self._quiet.notify_all()

    def _call(self, event: Event, handler: Handler) -> bool:
        try:
            handler(event)
        except BaseException as error:
            try:
                self._on_error(event, handler, error)
            except BaseException:
                with suppress(BaseException):  # not even a faulty log handler ends a worker
                    _logger.exception("%s: on_error failed", self._name)
            return False
        return True


def _log_failure(event: Event, handler: Handler, exception: BaseException) -> None:
    _logger.error("%r failed on a %r event", handler, event.event_type, exc_info=exception)


_buses: WeakValueDictionary[int, EventBus] = WeakValueDictionary()


def _all_buses() -> list[EventBus]:
    return [bus for bus in (reference() for reference in _buses.valuerefs()) if bus is not None]


def _stop_all() -> None:
    for bus in _all_buses():
        if undelivered := bus.stop(_EXIT_TIMEOUT):
            _logger.warning("the interpreter exits: %d events undelivered", len(undelivered))


def _after_fork() -> None:
    for bus in _all_buses():
        bus._reset()  # noqa: SLF001


atexit.register(_stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
