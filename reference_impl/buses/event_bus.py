# event_bus.py: publish and subscribe between threads, on a bounded pool of workers (EventBus)
# https://executable-guarantees.example/buses/event_bus.html
# Version 1.2.0 (2026-11-30); Python 3.11 to 3.14, with or without the GIL; standard library only
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
Exit: each running bus is stopped, drained for 10 seconds at most, and what is left is logged,
as the interpreter exits or a child of multiprocessing ends, whatever its start method; then
its daemon threads die. Not by `os._exit`, SIGKILL, or a SIGTERM that nobody handles. Signal
handlers and finalizers (`__del__`) must not call the bus, as they may interrupt a holder of
its lock; where one raises, the call that it interrupts has happened or has not, and the bus
is consistent. Its threads keep a running bus alive: stop it, dropping it is not enough.
Nothing here relies on the GIL.
"""

import _thread
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Hashable, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import NoReturn, Self, SupportsIndex, TypeAlias
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
    check_result,
    check_timeout,
    check_topic,
    finish_with_process,
)

__all__ = ["EventBus"]

_STOPPED, _RUNNING, _STOPPING = "not running", "running", "stopping"
_EXIT_TIMEOUT = 10.0
_logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Route:
    """What the bus knows of a subscription."""

    topic: Hashable
    handler: Handler
    ordered: bool


@dataclass(slots=True, eq=False)
class _Accepted:
    """An accepted event, and how many of its calls have not started."""

    number: int
    event: Event
    context: Context
    unstarted: int


_Call: TypeAlias = tuple[_Accepted, _Route]


@dataclass(slots=True, eq=False)
class _Bell:
    """Where callers wait: at a locked lock, which is released to wake them; None while none does.

    Each release wakes one, who releases it again on leaving. Who replaces it and releases it
    for the last time wakes all: whoever wakes at a bell that has been replaced passes that on.
    """

    lock: "threading.Lock | None" = None  # before Python 3.13 it is a function


@dataclass(slots=True, eq=False)
class _Stop:
    """A call of stop."""

    left: bool = False


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
            raise TypeError(f"name must be a str, not {name!r}")
        self._name = name
        self._routes: dict[Hashable, tuple[_Route, ...]] = {}  # no topic without a route
        self._published = self._delivered = self._failed = self._dropped = 0
        self._threads_made = self._idle_moments = 0
        self._reset()
        _buses[id(self)] = self

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse copy.copy, copy.deepcopy and pickle."""
        raise TypeError(
            f"{type(self).__name__} cannot be copied or pickled: "
            "make another bus, and subscribe its handlers there"
        )

    def _reset(self) -> None:
        """Also for a forked child, which has neither the threads nor a usable lock."""
        # One lock. While it is free: _pending counts the calls in _ready, in mailboxes behind
        # their first and in _running, _backlog the events among the first two; and no worker
        # sleeps without a wake-up on its way while one of those calls could be started.
        #
        # A signal handler may raise in any caller, but never between statements without a
        # call or a loop: all changes are prepared, and then made in one such line, with the
        # release that tells of them. Workers run no signal handlers and need no such care.
        self._lock = threading.Lock()
        self._work = _locked()  # where workers sleep; each that is woken wakes the next
        self._sleeping = 0  # workers that do
        self._waking = False  # _work was released, and nobody has woken yet
        self._room = _Bell()  # the backlog fell below max_queue, or the bus stops
        self._quiet = _Bell()  # pending is 0, or stopping goes ahead
        self._state = _STOPPED
        self._ready: deque[_Call] = deque()
        # The first call of an ordered route is in _ready or runs, the others come after it.
        self._mailboxes: dict[_Route, deque[_Accepted]] = {}
        self._backlog = 0
        self._recounted: dict[_Accepted, int] = {}  # what their `unstarted` is to be
        self._pending = 0
        self._workers: dict[int, threading.Thread] = {}  # by number
        self._running: dict[int, _Call] = {}  # by thread
        self._stops: list[_Stop] = []
        self._inside: set[int] = set()  # threads whose running call has called stop
        self._given_up: set[int] = set()  # threads that a stop has left running
        self._ended: list[threading.Thread] = []  # workers for a stop to join
        self._taken_back: list[_Accepted] = []

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
                a coroutine function or a generator function.

        Cost: grows with the number of subscriptions to the topic. Never waits for a handler.
        """
        check_topic(event_type)
        check_callable("handler", handler)
        with self._lock:
            others = self._routes.get(event_type, ())
            # All routes of a topic hold the dict's key: it is not to die under the lock.
            route = _Route(others[0].topic if others else event_type, handler, ordered)
            self._routes[route.topic] = (*others, route)
        return Subscription(partial(self._cancel, [route]))

    def unsubscribe(self, event_type: Hashable, handler: Handler) -> bool:
        """Cancel each subscription to exactly this topic whose handler equals this one.

        Returns whether there was one. Raises TypeError if the topic cannot be hashed.
        """
        check_topic(event_type)
        with self._lock:
            routes = self._routes.get(event_type, ())
        # Bound methods are equal, not identical; and == may be anyone's code.
        return self._cancel([route for route in routes if route.handler == handler])

    def _cancel(self, routes: Sequence[_Route]) -> bool:
        if not routes:
            return False
        with self._lock:
            left = self._routes.get(routes[0].topic, ())
            ended = [route for route in routes if route in left]
            # Kept until the lock is free: what is dropped is not to die before.
            dropped = self._change_locked(self._state, ended, cancel=True) if ended else None
        del dropped
        return bool(ended)

    def _change_locked(
        self, state: str, routes: Collection[_Route], *, cancel: bool = False
    ) -> list[_Accepted]:
        """Enter the state and drop the calls of these routes that have not started.

        Cancelling ends the routes, which are of one topic; else `stop` is to return the events.
        """
        dropped, ready, mailboxes, unstarted = self._without_locked(routes)
        recounted = {accepted: left for accepted, left in unstarted.items() if left}
        emptied = len(unstarted) - len(recounted)
        count = len(dropped)
        topic = next(iter(routes)).topic if cancel else ANY
        others = self._routes[topic] if cancel else ()
        kept = tuple(route for route in others if route not in routes)
        wake = self._sleeping and not self._waking and state == _STOPPING
        if kept:  # first, as it may call the topic's own code
            self._routes[topic] = kept
        elif cancel:
            del self._routes[topic]
        else:
            self._taken_back += dropped
        self._state = state
        self._ready, self._mailboxes, self._recounted = ready, mailboxes, recounted
        self._backlog -= emptied
        self._dropped += count
        self._pending -= count
        self._idle_moments += not self._pending
        room, self._room.lock = self._room.lock, None
        quiet, self._quiet.lock = self._quiet.lock, None
        try:
            if wake:
                self._waking = True
                self._work.release()
        finally:
            try:
                if room:
                    room.release()
            except RuntimeError:
                pass  # it has been released, and who is woken will pass that on
            finally:
                try:
                    if quiet:
                        quiet.release()
                except RuntimeError:
                    pass
        self._recount_locked()
        return dropped

    def _without_locked(
        self, routes: Collection[_Route]
    ) -> tuple[list[_Accepted], deque[_Call], dict[_Route, deque[_Accepted]], dict[_Accepted, int]]:
        """What has not started of these routes, and what would be left without that."""
        self._recount_locked()
        dropped = [accepted for accepted, route in self._ready if route in routes]
        ready = deque(call for call in self._ready if call[1] not in routes)
        running = set(self._running.values())
        mailboxes = self._mailboxes.copy()
        for route in routes:
            if route in mailboxes:
                first, *behind = mailboxes.pop(route)
                dropped += behind
                if (first, route) in running:
                    mailboxes[route] = deque([first])
        unstarted = {accepted: accepted.unstarted for accepted in dropped}
        for accepted in dropped:
            unstarted[accepted] -= 1
        return dropped, ready, mailboxes, unstarted

    def _recount_locked(self) -> None:
        for accepted, unstarted in self._recounted.items():
            accepted.unstarted = unstarted
        self._recounted = {}

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
            raise TypeError(f"event must be an Event, not {event!r}: use Event.create")
        if timeout is not None:
            timeout = check_timeout(timeout)
        context = copy_context()
        with self._lock:
            if self._accept_locked(event, context):
                return
            inside = threading.get_ident() in self._running
        full = f"{self._name} holds {self._max_queue} events: raise max_queue, "
        if timeout is None and inside:
            raise BusFull(full + "or pass a timeout, as a handler may be waiting for itself")
        if not self._wait(self._room, partial(self._accept_locked, event, context), timeout):
            raise BusFull(full + f"or publish later, as {timeout} s made no room")

    def _accept_locked(self, event: Event, context: Context) -> bool:
        """Accept the event, unless the bus is full."""
        if self._state != _RUNNING:
            raise BusStopped(f"{self._name} is {self._state}: publish between start and stop")
        routes = self._routes.get(event.event_type, ()) + self._routes.get(ANY, ())
        if not routes:
            self._published += 1
            return True
        if self._backlog >= self._max_queue:
            return False
        count = len(routes)
        accepted = _Accepted(self._published + 1, event, context, count)
        calls = [(accepted, route) for route in routes]
        # Where all wait for calls that run, the workers who end those find them.
        wake = self._sleeping and not self._waking and not {*routes} <= self._mailboxes.keys()
        self._published += 1
        self._pending += count
        self._backlog += 1
        self._ready += calls
        if wake:
            self._waking = True
            self._work.release()
        return True

    def _wait(self, bell: _Bell, reached: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until `reached`, which has the lock, says so; False if it did not in time."""
        end = monotonic() + (timeout or 0.0)
        last: threading.Lock | None = None  # where this thread waited
        late = False
        try:
            while True:
                spare = _locked()
                with self._lock:
                    if reached():
                        return True
                    lock = bell.lock = bell.lock or spare
                if late:
                    return False
                if last and last is not lock:  # it was replaced: all are to look
                    with suppress(RuntimeError):
                        last.release()
                last = lock
                left = -1 if timeout is None else min(timeout, max(0.0, end - monotonic()))
                late = not lock.acquire(timeout=left)
        finally:
            try:
                if last:
                    last.release()  # its wake-up may have been ours, and is for all
            except RuntimeError:
                pass

    def start(self) -> None:
        """Start the workers; on a running bus, do nothing.

        Raises RuntimeError if the bus is stopping, or the system has no thread left; it
        stays stopped then. Cost: a thread for each worker not left from before.
        """
        finish_with_process(_stop_all)
        wanted, errors, done = [True], list[BaseException](), _thread.allocate_lock()
        done.acquire()

        def hire() -> None:
            try:
                self._hire(wanted)
            except BaseException as error:
                errors.append(error)
            finally:
                done.release()

        if threading.get_ident() != threading.main_thread().ident:
            self._hire(wanted)
            return
        # A signal handler that raises in Thread.start would leave a thread that only half is.
        try:
            _thread.start_new_thread(hire, ())
            done.acquire()
        except BaseException:
            del wanted[:]
            with self._lock:  # it is done, or will do nothing
                raise
        if errors:
            raise errors.pop()

    def _hire(self, wanted: list[bool]) -> None:
        with self._lock:
            if self._state == _STOPPING:
                raise RuntimeError(f"{self._name} is stopping: start it once stop() returned")
            if self._state == _RUNNING or not wanted:
                return
            hired = self._workers.copy()
            while len(hired) < self._max_workers:
                number = self._threads_made = self._threads_made + 1
                name = f"{self._name}-{number}"
                worker = threading.Thread(
                    target=self._work_loop, args=(number,), name=name, daemon=True
                )
                worker.start()  # it comes as far as our lock, and ends if it was not hired
                hired[number] = worker
            inside, given_up, ended = set[int](), set[int](), list[threading.Thread]()
            self._workers, self._state = hired, _RUNNING
            self._inside, self._given_up, self._ended = inside, given_up, ended

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
        me, this = threading.get_ident(), _Stop()
        line, taken = self._taken_back, list[_Accepted]()
        stuck: list[_Call] = []
        try:
            with self._lock:
                if me in self._running:
                    if self._state == _STOPPED:
                        return []
                    self._inside.add(me)
                known = self._given_up.copy()
                self._stops = [stop for stop in self._stops if not stop.left] + [this]
                self._change_locked(_STOPPING, () if drain else self._all_routes())
            self._wait(self._quiet, lambda: self._drained(me, known), timeout)
            with self._lock:
                if not self._drained(me, known):
                    excused = self._inside if me in self._inside else set[int]()
                    left = self._running.keys() - excused
                    stuck = [self._running[thread] for thread in left]
                    self._given_up |= left
                self._change_locked(_STOPPING, self._all_routes())
            self._wait(self._quiet, lambda: len(self._workers) == len(self._running), None)
            with self._lock:
                ended = self._ended.copy()
            try:
                for worker in ended:
                    worker.join()
            except BaseException:
                self._ended = []  # a join cut short twice does not end again before Python 3.13
                raise
            with self._lock:
                this.left = True
                last = all(stop.left for stop in self._stops)
                self._change_locked(_STOPPED if last else self._state, ())
                count = len(line)
                taken = line[:]
                del line[:count]
            for accepted, route in stuck:
                topic = accepted.event.event_type
                _logger.warning("%s stopped, but %r runs on (%r)", self._name, route.handler, topic)
            events = {accepted.number: accepted.event for accepted in taken}
            return [events[number] for number in sorted(events)]
        except BaseException:
            line += taken  # for the next stop
            raise
        finally:
            this.left = True

    def _drained(self, me: int, known: set[int]) -> bool:
        if me not in self._inside:
            return self._pending == len(self._running) and self._running.keys() <= known
        # In a handler: all that runs is inside stop, and nobody else can start what waits.
        inside = len(self._inside)
        busy = len(self._running) > inside
        return not busy and (not self._ready or len(self._workers) == inside)

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

        if not self._wait(self._quiet, was_idle, timeout):
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
        with self._lock:
            if number not in self._workers:
                return  # `start` failed
        me = threading.get_ident()
        call: _Call | None = None
        succeeded = False
        while True:
            # Ending one call and starting the next in one step halves the lock's traffic.
            # Not `with`, which costs more: no signal handler raises in a worker.
            self._lock.acquire()
            try:
                if call is not None:
                    self._end_locked(me, call, succeeded)
                following = self._next_locked(me) if self._ready else None
            finally:
                self._lock.release()
            call, following = following, None  # the old call dies: no lock held, not asleep
            if call is None and (call := self._await_call(me, number)) is None:
                return
            succeeded = call[0].context.copy().run(self._call, call[0].event, call[1].handler)

    def _await_call(self, me: int, number: int) -> _Call | None:
        woken = False
        while True:
            with self._lock:
                if woken:
                    self._sleeping -= 1
                    self._waking = False
                call = self._next_locked(me)
                leaves = call is None and self._state != _RUNNING
                # When stopping too: the wake-up that brought a call may have been that of `stop`.
                wanted = self._ready or self._state != _RUNNING
                if wanted and self._sleeping and not self._waking:
                    self._waking = True
                    self._work.release()
                if leaves:
                    if worker := self._workers.pop(number, None):
                        self._ended.append(worker)
                    self._tell_all_locked()
                if leaves or call:
                    return call
                self._sleeping += 1
            self._work.acquire(timeout=-1)
            woken = True

    def _next_locked(self, me: int) -> _Call | None:
        if self._recounted:
            self._recount_locked()
        while self._ready:
            call = accepted, route = self._ready.popleft()
            if route.ordered:
                line = self._mailboxes.get(route)
                if line is None:
                    self._mailboxes[route] = deque([accepted])
                elif line[0] is not accepted:
                    line.append(accepted)
                    continue
            self._running[me] = call
            accepted.unstarted -= 1
            if not accepted.unstarted:
                self._backlog -= 1
                if self._room.lock and self._backlog == self._max_queue - 1:
                    with suppress(RuntimeError):
                        self._room.lock.release()
            return call
        return None

    def _end_locked(self, me: int, call: _Call, succeeded: bool) -> None:
        if self._running.pop(me, None) is None:
            return  # a child, forked by the handler: the call is the parent's
        if succeeded:
            self._delivered += 1
        else:
            self._failed += 1
        route = call[1]
        if route.ordered:
            line = self._mailboxes[route]
            line.popleft()
            if line:
                self._ready.append((line[0], route))  # behind what is ready
            else:
                del self._mailboxes[route]
        self._pending -= 1
        if not self._pending or self._state != _RUNNING:
            self._inside.discard(me)
            self._given_up.discard(me)
            self._idle_moments += not self._pending
            self._tell_all_locked()

    def _tell_all_locked(self) -> None:
        """Tell all who wait for quiet; of workers, as a caller may be interrupted."""
        if lock := self._quiet.lock:
            self._quiet.lock = None
            with suppress(RuntimeError):
                lock.release()

    def _call(self, event: Event, handler: Handler) -> bool:
        try:
            check_result(handler(event))
        except BaseException as error:
            try:
                check_result(self._on_error(event, handler, error))
            except BaseException:
                with suppress(BaseException):  # not even a faulty log handler ends a worker
                    _logger.exception("%s: on_error failed", self._name)
            return False
        return True


def _log_failure(event: Event, handler: Handler, exception: BaseException) -> None:
    _logger.error("%r failed on a %r event", handler, event.event_type, exc_info=exception)


def _locked() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire(timeout=0)
    return lock


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


finish_with_process(_stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
