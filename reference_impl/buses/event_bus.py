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
from collections.abc import Callable, Collection, Hashable, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from itertools import filterfalse
from operator import attrgetter
from time import monotonic
from typing import NoReturn, Self, SupportsIndex
from weakref import WeakValueDictionary

from ._dispatcher import Accepted, Call, Dispatcher, Route, State
from .event import (
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

_EXIT_TIMEOUT = 10.0
_RUNNING = State.RUNNING  # Python 3.11 is slow to find it
_logger = logging.getLogger(__name__)
_here = threading.local()  # of a worker: `bus`, whose it is


@dataclass(slots=True, eq=False)
class _Waiters:
    """Callers who wait at a locked lock, which is released to wake them; None while none does.

    Each release wakes one, who releases it again on leaving. Whoever replaces it and releases
    it for the last time wakes all: each who wakes at a lock that was replaced passes that on.
    """

    lock: "threading.Lock | None" = None  # before Python 3.13 it is a function


@dataclass(slots=True, eq=False)
class _Stop:
    """A call of stop that waits."""

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
        self._dispatcher = Dispatcher()
        self._threads_made = 0
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
        # One lock guards everything. While it is free, no worker sleeps without a wake-up on
        # its way while a call could be started, and as many calls are started as run.
        #
        # A signal handler may raise in any caller, but never between statements without a
        # call or a loop: all changes are prepared, and then made in one such line, those of
        # the dispatcher first, with the release that tells of them. Workers run no signal
        # handlers and need no such care.
        self._lock = threading.Lock()
        self._work = _locked()  # where workers sleep; each that is woken wakes the next
        self._sleeping = 0  # workers that do
        self._waking = False  # _work was released, and nobody has woken yet
        self._for_room = _Waiters()  # until the backlog is below max_queue, or the bus stops
        self._for_quiet = _Waiters()  # until pending is 0, or stopping goes ahead
        self._state = State.STOPPED
        self._dispatcher.forget()
        self._workers: dict[int, threading.Thread] = {}  # by number
        self._running: dict[int, Call] = {}  # by thread
        self._stops: list[_Stop] = []
        self._given_up: set[int] = set()  # threads that a stop has left running
        self._ended: list[threading.Thread] = []  # workers for a stop to join

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
            route = self._dispatcher.subscribe(event_type, handler, ordered)
        return Subscription(partial(self._cancel, [route]))

    def unsubscribe(self, event_type: Hashable, handler: Handler) -> bool:
        """Cancel each subscription to exactly this topic whose handler equals this one.

        Returns whether there was one. Raises TypeError if the topic cannot be hashed.
        """
        check_topic(event_type)
        with self._lock:
            routes = self._dispatcher.routes.get(event_type, ())
        # Bound methods are equal, not identical; and == may be anyone's code.
        return self._cancel([route for route in routes if route.handler == handler])

    def _cancel(self, routes: Sequence[Route]) -> bool:
        """End those of these routes, which are of one topic, that have not ended."""
        with self._lock:
            ended = self._dispatcher.left_of(routes)
            # Kept until the lock is free: what is dropped is not to die before.
            dropped = self._change_locked(self._state, ended, cancel=True) if ended else None
        del dropped
        return bool(ended)

    def _change_locked(
        self, state: State, routes: Collection[Route], *, cancel: bool = False
    ) -> list[Call]:
        """Enter the state, drop the calls of these routes that have not started, and tell all.

        Cancelling ends the routes, which are of one topic; else `stop` is to return the events.
        """
        wake = self._sleeping and not self._waking and state is State.STOPPING
        dropped = self._dispatcher.drop(routes, cancel=cancel)
        self._state = state
        room, self._for_room.lock = self._for_room.lock, None
        quiet, self._for_quiet.lock = self._for_quiet.lock, None
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
        self._dispatcher.recount()
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
        if not self._wait(self._for_room, partial(self._accept_locked, event, context), timeout):
            raise BusFull(full + f"or publish later, as {timeout} s made no room")

    def _accept_locked(self, event: Event, context: Context) -> bool:
        """Accept the event, unless the bus is full."""
        if self._state is not _RUNNING:
            raise BusStopped(f"{self._name} is {self._state}: publish between start and stop")
        dispatcher = self._dispatcher
        routes = dispatcher.routes_of(event)
        if routes and dispatcher.backlog >= self._max_queue:
            return False
        # Where all wait for calls that run, the workers who end those find them.
        wake = self._sleeping and not self._waking and not {*routes} <= dispatcher.mailboxes.keys()
        dispatcher.accept(event, context, routes)
        if wake:
            self._waking = True
            self._work.release()
        return True

    def _wait(self, waiters: _Waiters, reached: Callable[[], bool], timeout: float | None) -> bool:
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
                    lock = waiters.lock = waiters.lock or spare
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
            if self._state is State.STOPPING:
                raise RuntimeError(
                    f"{self._name} is stopping: start it once stop() returned outside its handlers"
                )
            if self._state is State.RUNNING or not wanted:
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
            given_up, ended = set[int](), list[threading.Thread]()
            self._workers, self._state = hired, State.RUNNING
            self._given_up, self._ended = given_up, ended

    def stop(self, timeout: float | None = None, *, drain: bool = True) -> list[Event]:
        """Refuse new events, let the accepted ones be handled, and end the workers.

        In a handler, of this bus or another EventBus, it only requests that, and returns an
        empty list at once: the bus drains and stays stopping, and the next `stop` elsewhere, or
        leaving a `with` block, finishes and returns the rest. Interrupted, it leaves the bus
        stopping, too. On a stopped bus it does nothing.

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
        if not _in_handler():
            return self._finish_stop(timeout, drain=drain)
        with self._lock:
            if self._state is not State.STOPPED:
                routes = () if drain else self._dispatcher.all_routes()
                self._change_locked(State.STOPPING, routes)
        return []

    def _finish_stop(self, timeout: float | None, *, drain: bool) -> list[Event]:
        dispatcher, this = self._dispatcher, _Stop()
        left, taken = dispatcher.taken_back, dict[int, Accepted]()
        stuck: list[Call] = []
        try:
            with self._lock:
                known = self._given_up.copy()
                # No comprehension: at its jump a signal handler may pass by the `with` (3.13).
                self._stops = [*filterfalse(attrgetter("left"), self._stops), this]
                self._change_locked(State.STOPPING, () if drain else dispatcher.all_routes())
            self._wait(self._for_quiet, lambda: self._drained(known), timeout)
            with self._lock:
                if not self._drained(known):
                    stuck = list(self._running.values())
                    self._given_up |= self._running.keys()
                self._change_locked(State.STOPPING, dispatcher.all_routes())
            self._wait(self._for_quiet, lambda: len(self._workers) == len(self._running), None)
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
                self._change_locked(State.STOPPED if last else self._state, ())
                taken = left.copy()
                left.clear()
            for accepted, route in stuck:
                topic = accepted.event.event_type
                _logger.warning("%s stopped, but %r runs on (%r)", self._name, route.handler, topic)
            return [taken[number].event for number in sorted(taken)]
        except BaseException:
            left |= taken  # for the next stop
            raise
        finally:
            this.left = True

    def _drained(self, known: set[int]) -> bool:
        """Whether no call is left but those that an earlier stop has left running."""
        return self._dispatcher.pending == len(self._running) and self._running.keys() <= known

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
            was_idle = self._dispatcher.idle_from_now()

        def reached() -> bool:
            return was_idle() or self._state is State.STOPPED

        if not self._wait(self._for_quiet, reached, timeout):
            left = self._dispatcher.pending
            raise TimeoutError(f"{self._name}: {left} calls left after {timeout} s")

    @property
    def stats(self) -> BusStats:
        """The figures of one instant."""
        with self._lock:
            return self._dispatcher.stats()

    @property
    def is_running(self) -> bool:
        """Whether `publish` accepts events."""
        return self._state is State.RUNNING

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if _in_handler() and threading.get_ident() not in self._running:
            self._finish_stop(None, drain=True)  # of another bus, which is to wait
        else:
            self.stop()

    def _work_loop(self, number: int) -> None:
        with self._lock:
            if number not in self._workers:
                return  # `start` failed
        me, dispatcher, _here.bus = threading.get_ident(), self._dispatcher, self
        call: Call | None = None
        delivered = False
        while True:
            # Ending one call and starting the next in one step halves the lock's traffic.
            # Not `with`, which costs more: no signal handler raises in a worker.
            self._lock.acquire()
            try:
                # Where the handler has forked, the child's bus knows nothing of the call.
                if call is not None and self._running.pop(me, None) is not None:
                    dispatcher.finish(call, delivered)
                    if not dispatcher.pending or self._state is not _RUNNING:
                        self._given_up.discard(me)
                        self._tell_of_quiet_locked()
                following = dispatcher.start() if dispatcher.ready else None
                if following is not None:
                    self._running[me] = following
                    if self._for_room.lock:
                        self._tell_of_room_locked()
            finally:
                self._lock.release()
            call, following = following, None  # the old call dies: no lock held, not asleep
            if call is None and (call := self._await_call(me, number)) is None:
                return
            delivered = call[0].context.copy().run(self._call, call[0].event, call[1].handler)

    def _await_call(self, me: int, number: int) -> Call | None:
        woken = False
        while True:
            with self._lock:
                if woken:
                    self._sleeping -= 1
                    self._waking = False
                call = self._dispatcher.start()
                if call is not None:
                    self._running[me] = call
                    self._tell_of_room_locked()
                leaves = call is None and self._state is not State.RUNNING
                # When stopping too: the wake-up that brought a call may have been that of `stop`.
                wanted = self._dispatcher.ready or self._state is not State.RUNNING
                if wanted and self._sleeping and not self._waking:
                    self._waking = True
                    self._work.release()
                if leaves:
                    if worker := self._workers.pop(number, None):
                        self._ended.append(worker)
                    self._tell_of_quiet_locked()
                if leaves or call:
                    return call
                self._sleeping += 1
            self._work.acquire(timeout=-1)
            woken = True

    def _tell_of_room_locked(self) -> None:
        if self._for_room.lock and self._dispatcher.backlog == self._max_queue - 1:
            with suppress(RuntimeError):
                self._for_room.lock.release()

    def _tell_of_quiet_locked(self) -> None:
        """Wake all who wait for that; of workers, as a caller may be interrupted."""
        if lock := self._for_quiet.lock:
            self._for_quiet.lock = None
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


def _in_handler() -> bool:
    """Whether this thread runs a handler, of whichever bus."""
    bus: EventBus | None = getattr(_here, "bus", None)
    return bus is not None and threading.get_ident() in bus._running  # noqa: SLF001


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
