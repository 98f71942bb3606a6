# async_event_bus.py: publish and subscribe on one event loop, with bounded tasks (AsyncEventBus)
# https://executable-guarantees.example/buses/async_event_bus.html
# Version 1.2.0 (2026-11-30); Python 3.11 to 3.14, with or without the GIL; standard library only
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: 2026 The Executable Guarantees authors
"""An event bus whose handlers run as tasks of one event loop, so many at once and no more.

Examples:
    >>> import asyncio
    >>> from .event import Event, EventType
    >>> async def main() -> None:
    ...     async def show(event: Event) -> None:
    ...         print(event.payload)
    ...     async with AsyncEventBus() as bus:
    ...         bus.subscribe(EventType.TEST_RESULT, show)
    ...         await bus.publish(Event.create(EventType.TEST_RESULT, "unit A7 passed"))
    >>> asyncio.run(main())
    unit A7 passed

Async safety:
    Loop-bound, for good, to the loop that starts it: there each operation is atomic. Other
    threads may call `publish_threadsafe` alone; its lock guards nothing but an inbox.

Fork: the child must not use the bus; its `publish_threadsafe` refuses. Exit: where
`asyncio.run` ends without `stop`, the bus is closed: who waits for room gets `BusStopped`,
and what waits is dropped. That is logged as a warning; so is, at the exit of the interpreter
or the end of a child of multiprocessing, what is left of a loop that was not ended in order.
Nothing is drained by then: leave `async with` before. Signal handlers and finalizers
(`__del__`) must not call the bus, as they may interrupt a holder of its lock; what
`loop.add_signal_handler` runs may. Nothing here relies on the GIL.
"""

import asyncio
import logging
import os
import sys
import threading
import types
import weakref
from collections import deque
from collections.abc import Callable, Collection, Generator, Hashable, Sequence
from concurrent.futures import Future
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from inspect import isawaitable
from typing import Any, NamedTuple, NoReturn, Self, SupportsIndex

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

__all__ = ["AsyncEventBus"]

_STOPPED, _RUNNING, _STOPPING = "not running", "running", "stopping"
_SLICE = 32  # calls started in one turn of the loop: then its other tasks have theirs
_logger = logging.getLogger(__name__)
# An eager task needs no turn of the loop where its handler waits for nothing.
_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}


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


@dataclass(slots=True, eq=False)
class _Call:
    """One event for one subscription."""

    accepted: _Accepted
    route: _Route
    delivered: bool = False
    cancelled: bool = False  # by stop


class _Posted(NamedTuple):
    """An event from another thread, in the inbox or in the line for room."""

    event: Event
    context: Context
    future: Future[None]


class AsyncEventBus:
    """Calls the handlers of each published event, each in a task of one event loop.

    Plain functions hold up the loop while they run; coroutine functions are awaited.
    Delivery is breadth first: `publish` puts the calls in line and returns, in a handler
    as elsewhere. It is at most once: what waits when the process dies is gone.

    Args:
        max_concurrency: The most handlers that run at once.
        max_queue: The most accepted events with a call not yet started.
        on_error: Called, and awaited if need be, as `on_error(event, handler, exception)` in
            the handler's task when it raises. Without it, and when it raises, that is logged.
        name: What messages call the bus.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If a number is below 1.

    Async safety:
        Loop-bound; the module tells of threads, fork, exit, signals and `__del__`.
    """

    def __init__(
        self,
        max_concurrency: int = 100,
        *,
        max_queue: int = 10_000,
        on_error: ErrorHandler | None = None,
        name: str = "event-bus",
    ) -> None:
        self._max_concurrency = check_limit("max_concurrency", max_concurrency)
        self._max_queue = check_limit("max_queue", max_queue)
        self._on_error = _log_failure if on_error is None else on_error
        check_callable("on_error", self._on_error, may_await=True)
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, not {name!r}")
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._state = _STOPPED
        self._keeper: asyncio.Task[None] | None = None  # one a run, None while stopped
        self._routes: dict[Hashable, tuple[_Route, ...]] = {}  # no topic without a route
        self._published = self._delivered = self._failed = self._dropped = 0
        # _pending counts the calls in _ready, in mailboxes behind their first and started,
        # _backlog the events among the first two, _active the third. A signal handler may raise
        # in a plain method, but not between statements without a call or a loop: there changes
        # are prepared, what is to follow them is scheduled, and then they are made in one line.
        self._pending = self._backlog = self._active = self._idle_moments = 0
        self._ready: deque[_Call] = deque()
        # The first call of an ordered route is in _ready or runs, the others come after it.
        self._mailboxes: dict[_Route, deque[_Call]] = {}
        self._recounted: dict[_Accepted, int] = {}  # what their `unstarted` is to be
        self._scheduled = False  # a turn of the dispatcher
        self._running: dict[asyncio.Task[Any] | None, _Call] = {}
        # Nobody passes who is in line. While there is room, the head of the line is awake.
        self._line: deque[asyncio.Future[None] | _Posted] = deque()
        self._watchers: dict[asyncio.Future[None], None] = {}
        self._inside: set[_Call] = set()  # those that wait in stop
        self._taken: dict[int, Event] = {}  # for stop to return
        # Other threads touch what this lock guards, nothing else: while _open is false the
        # inbox is empty, and while it is not empty, _take_inbox is on its way.
        self._lock = threading.Lock()
        self._inbox: list[_Posted] = []
        self._open = False
        self._pid = os.getpid()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse copy.copy, copy.deepcopy and pickle."""
        raise TypeError(
            f"{type(self).__name__} cannot be copied or pickled: "
            "make another bus, and subscribe its handlers there"
        )

    def subscribe(
        self, event_type: Hashable, handler: Handler, *, ordered: bool = False
    ) -> Subscription:
        """Have `handler` called with each event of this topic accepted from now on.

        Works whether or not the bus runs. Cost: grows with the topic's subscriptions.

        Args:
            event_type: The topic, or `ANY` for every topic.
            handler: Called with the event; if that returns an awaitable, it is awaited.
            ordered: One event at a time, in each publisher's order. Without it, calls of
                the same handler run side by side.

        Raises:
            TypeError: If the topic cannot be hashed, or the handler cannot be called.
            RuntimeError: Here and in every other operation: on another loop.
        """
        self._check_loop()
        check_topic(event_type)
        check_callable("handler", handler, may_await=True)
        route = _Route(event_type, handler, ordered)
        self._routes[event_type] = (*self._routes.get(event_type, ()), route)
        return Subscription(partial(self._cancel, [route]))

    def unsubscribe(self, event_type: Hashable, handler: Handler) -> bool:
        """Cancel each subscription to exactly this topic of a handler equal to this one.

        Returns:
            Whether there was one.

        Raises:
            TypeError: If the topic cannot be hashed.
        """
        check_topic(event_type)
        # Bound methods of one object are equal, not identical.
        routes = self._routes.get(event_type, ())
        return self._cancel([route for route in routes if route.handler == handler])

    def _cancel(self, routes: Sequence[_Route]) -> bool:
        """Cancel these of one topic."""
        self._check_loop()
        left = self._routes.get(routes[0].topic, ()) if routes else ()
        ended = [route for route in routes if route in left]
        if ended:
            self._drop(ended, cancel=True)
        return bool(ended)

    async def publish(self, event: Event, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Accept `event`: one call for each subscription to its topic and to `ANY`.

        Does not suspend while there is room. CancelledError means not accepted. Cost: grows
        with the number of subscriptions called, not with the backlog.

        Args:
            event: What happened. The handlers see the caller's context variables.
            timeout: Seconds to wait for room in a full bus; None waits without limit,
                but in a handler's own task it fails at once, since it may wait for itself.

        Raises:
            BusFull: If there was no room in time; the event was not accepted.
            BusStopped: If the bus does not run, or was stopped meanwhile; not accepted.
            TypeError: If `event` is no Event, or `timeout` is no number.
            ValueError: If `timeout` is negative.
        """
        limit = check_timeout(timeout)
        if not self._has_room(event):
            if limit is None and asyncio.current_task() in self._running:
                raise self._full("a handler that waits may wait for itself: pass a timeout")
            await self._stand_in_line(limit)
        self._accept(event, copy_context())
        if self._line:
            self._offer()

    async def _stand_in_line(self, limit: float | None) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            async with asyncio.timeout(limit):
                await turn
        except BaseException as error:
            if turn in self._line:
                self._line.remove(turn)
                self._offer()  # the offer may have been ours: pass it on
            if isinstance(error, TimeoutError):
                raise self._full(f"no room within {limit} s; wait longer") from None
            raise
        if not self._line or self._line[0] is not turn:
            raise self._stopped()
        self._line.popleft()

    def publish_nowait(self, event: Event) -> None:
        """Accept `event` as `publish` does, or raise BusFull: for what cannot await."""
        if not self._has_room(event):
            raise self._full("publish later, or await publish()")
        self._accept(event, copy_context())

    def publish_threadsafe(self, event: Event) -> Future[None]:
        """Hand `event` to the loop, from any thread; never blocks.

        One thread's events are accepted in order; in a full bus they wait in line with all
        others. Without waiting for the futures there is no backpressure; in the loop's own
        thread use `asyncio.wrap_future`. Cancelling one works until the event is accepted.

        Returns:
            A future: None once the event is accepted, BusStopped if it never will be.

        Raises:
            TypeError: If `event` is no Event.
        """
        _check_event(event)
        posted = _Posted(event, copy_context(), Future())
        if os.getpid() != self._pid or not self._post(posted):
            self._refuse(posted)
        return posted.future

    def _post(self, posted: _Posted) -> bool:
        with self._lock:
            if self._open and self._loop is not None:
                try:
                    # One wake-up a burst; first, so that an interrupt strands nobody.
                    if not self._inbox:
                        self._loop.call_soon_threadsafe(self._take_inbox)
                    self._inbox.append(posted)
                except RuntimeError:  # the loop is closed
                    self._open = False
            return self._open

    def _take_inbox(self) -> None:
        with self._lock:
            posted, self._inbox = self._inbox, []
        self._line.extend(posted)
        self._offer()

    def _refuse(self, posted: _Posted) -> None:
        if posted.future.set_running_or_notify_cancel():
            posted.future.set_exception(self._stopped())

    async def start(self) -> None:
        """Accept events, on this loop from now on; on a running bus, do nothing.

        Raises:
            RuntimeError: If the bus is stopping.
        """
        self._check_loop()
        if self._state == _STOPPING:
            raise RuntimeError(f"{self._name} is stopping: start it after stop() returned")
        if self._state == _STOPPED:
            self._loop = asyncio.get_running_loop()
            # asyncio.run cancels it, with all other tasks, where it ends without a stop.
            self._keeper = self._loop.create_task(_keep(self), name=self._name)
            self._keeper.add_done_callback(self._abandon)
            self._state = _RUNNING
            with self._lock:
                self._open, self._pid = True, os.getpid()

    async def stop(
        self,
        timeout: float | None = None,  # noqa: ASYNC109
        *,
        drain: bool = True,
    ) -> list[Event]:
        """Refuse new events, let the accepted ones be handled, and end.

        On a stopped bus it does nothing. In a handler's own task it waits for all calls that
        are not themselves inside `stop`, and takes back what only they could have handled.
        When it is cancelled the bus stays stopping, and the next `stop` finishes.

        Args:
            timeout: Seconds to wait for the handlers. Then they are cancelled, count as
                failed, and their clean-up is awaited, however long it takes.
            drain: False starts no further call; those that run are waited for all the same.

        Returns:
            The events with a call that was not started, each once, in order of acceptance.

        Raises:
            TypeError, ValueError: If `timeout` is no duration.
        """
        limit = check_timeout(timeout)
        self._check_loop()
        keeper, me = self._keeper, self._running.get(asyncio.current_task())
        if keeper is None:
            return []
        self._close()
        if not drain:
            self._take_back(self._all_routes())
        if me is not None:
            self._enter_stop(me)

        def over() -> bool:
            return self._pending <= len(self._inside) or keeper is not self._keeper

        try:
            if not await self._reached(over, limit):
                self._take_back(self._all_routes())
                self._cancel_running()
                await self._reached(over, None)
            keeper.cancel()
            await asyncio.wait([keeper])
        finally:
            if me is not None:
                self._inside.discard(me)
        if keeper is not self._keeper:  # another stop ended this run
            return []
        self._state, self._keeper = _STOPPED, None
        self._announce()
        taken, self._taken = self._taken, {}
        return [taken[number] for number in sorted(taken)]

    def _enter_stop(self, me: _Call) -> None:
        self._inside.add(me)
        if len(self._inside) == self._max_concurrency:
            self._take_back(self._all_routes())
        elif me.route.ordered:
            self._take_back([me.route])

    async def wait_idle(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Wait until no call waits or runs, those of the handlers' own events included.

        Returns when the bus was idle, even if it is busy again by then; on a stopped bus at
        once. Cancelling it changes nothing.

        Args:
            timeout: Seconds to wait, at most; None waits without limit.

        Raises:
            TimeoutError: If the bus was not idle in time.
            RuntimeError: In a handler's own task, which would wait for itself.
            TypeError, ValueError: If `timeout` is no duration.
        """
        limit = check_timeout(timeout)
        self._check_loop()
        if asyncio.current_task() in self._running:
            raise RuntimeError(
                f"a handler of {self._name} cannot wait for it to be idle: "
                "call wait_idle from another task"
            )
        seen = self._idle_moments

        def was_idle() -> bool:
            return not self._pending or self._idle_moments != seen or self._keeper is None

        if not await self._reached(was_idle, limit):
            raise TimeoutError(
                f"{self._name} was not idle within {timeout} s: {self._pending} calls left"
            )

    @property
    def stats(self) -> BusStats:
        """The figures of one instant, if read on the loop."""
        return BusStats(
            self._published, self._delivered, self._failed, self._dropped, self._pending
        )

    @property
    def is_running(self) -> bool:
        """Whether `publish` accepts events."""
        return self._state == _RUNNING

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _check_loop(self) -> None:
        try:
            running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        own = self._loop
        if own is not None and own is not running and (running or own.is_running()):
            raise RuntimeError(
                f"{self._name} belongs to another event loop: use one bus per loop, "
                "and publish_threadsafe from other threads"
            )

    def _has_room(self, event: Event) -> bool:
        _check_event(event)
        self._check_loop()
        if self._state != _RUNNING:
            raise self._stopped()
        full = self._line or self._backlog >= self._max_queue
        return not full or not self._routes_of(event)

    def _routes_of(self, event: Event) -> tuple[_Route, ...]:
        return self._routes.get(event.event_type, ()) + self._routes.get(ANY, ())

    def _accept(self, event: Event, context: Context) -> None:
        routes = self._routes_of(event)
        count = len(routes)
        accepted = _Accepted(self._published + 1, event, context, count)
        calls = [_Call(accepted, route) for route in routes]
        if calls:
            self._schedule(calls)
        self._published += 1
        self._backlog += count > 0
        self._pending += count
        self._ready += calls

    def _offer(self) -> None:
        while self._line and self._backlog < self._max_queue:
            head = self._line[0]
            if not isinstance(head, _Posted):
                # It accepts in its own step, or a cancellation could come in between.
                if not head.done():
                    head.set_result(None)
                return
            self._line.popleft()
            if head.future.set_running_or_notify_cancel():
                self._accept(head.event, head.context)
                head.future.set_result(None)

    def _schedule(self, calls: Collection[_Call]) -> None:
        """Have the dispatcher look at these calls, if any more may run."""
        if calls and self._active < self._max_concurrency and not self._scheduled:
            assert self._loop is not None
            self._loop.call_soon(self._turn)
            self._scheduled = True

    def _turn(self) -> None:
        self._scheduled = False
        self._dispatch()

    def _look_again(self) -> None:
        self._offer()
        self._subtract(0)

    def _dispatch(self) -> None:
        """Start a slice of the calls: never in a publisher's frame, never all in one turn."""
        if self._keeper is None or self._keeper.cancelling():
            return  # the loop is about to close: a new task would not end
        try:
            for _ in range(_SLICE):
                if self._active >= self._max_concurrency or not (call := self._next()):
                    break
                self._start(call)
        finally:
            self._offer()
            self._schedule(self._ready)

    def _next(self) -> _Call | None:
        self._recount()
        while self._ready:
            call = self._ready.popleft()
            if call.route.ordered:
                line = self._mailboxes.setdefault(call.route, deque())
                if not line:
                    line.append(call)
                elif line[0] is not call:
                    line.append(call)
                    continue
            return call
        return None

    def _start(self, call: _Call) -> None:
        call.accepted.unstarted -= 1
        if not call.accepted.unstarted:
            self._backlog -= 1
        self._active += 1
        coro, context = self._handle(call), call.accepted.context.copy()
        if not _EAGER:
            coro.send(None)  # as far as _first_step, where a cancellation finds it
        task = asyncio.Task(coro, loop=self._loop, context=context, **_EAGER)
        if not _EAGER:
            self._running[task] = call

    async def _handle(self, call: _Call) -> None:
        if not _EAGER:
            try:
                await _first_step()
            except asyncio.CancelledError:
                del self._running[asyncio.current_task()]
                self._put_back(call)
                return
        task, event, handler = asyncio.current_task(), call.accepted.event, call.route.handler
        self._running[task] = call
        try:
            result = handler(event)
            if isawaitable(result):
                result = await result
            check_result(result)
            call.delivered = not call.cancelled
        except BaseException as error:
            await self._report(event, handler, error)
            if isinstance(error, SystemExit | KeyboardInterrupt):
                raise  # out of the loop, as from any of its tasks
        else:
            if call.cancelled:
                message = "by stop(), though the handler went on to its end"
                await self._report(event, handler, asyncio.CancelledError(message))
        finally:
            del self._running[task]
            self._settle(call)
            if _EAGER:
                self._schedule(self._ready)
            elif self._ready:
                self._dispatch()

    async def _report(self, event: Event, handler: Handler, error: BaseException) -> None:
        if isinstance(error, GeneratorExit):
            raise error  # the loop is gone
        try:
            result = self._on_error(event, handler, error)
            if isawaitable(result):
                result = await result
            check_result(result)
        except BaseException as second:
            _log_failure(event, self._on_error, second)
            if isinstance(second, SystemExit | KeyboardInterrupt | GeneratorExit):
                raise

    def _put_back(self, call: _Call) -> None:
        self._recount()
        self._active -= 1
        self._backlog += not call.accepted.unstarted
        call.accepted.unstarted += 1
        self._ready.appendleft(call)
        if call.cancelled:
            self._take_back(self._all_routes())
        elif call.route not in self._routes.get(call.route.topic, ()):
            self._drop([call.route])
        self._schedule(self._ready)

    def _settle(self, call: _Call) -> None:
        if call.delivered:
            self._delivered += 1
        else:
            self._failed += 1
        self._active -= 1
        if call.route.ordered:
            line = self._mailboxes[call.route]
            line.popleft()
            if line:
                self._ready.append(line[0])  # behind what is ready
            else:
                del self._mailboxes[call.route]
        self._subtract(1)

    def _all_routes(self) -> set[_Route]:
        return {route for routes in self._routes.values() for route in routes}

    def _drop(self, routes: Collection[_Route], *, cancel: bool = False) -> list[_Call]:
        """Drop the calls of these routes that have not started; cancel routes of one topic."""
        self._recount()
        dropped = [call for call in self._ready if call.route in routes]
        ready = deque(call for call in self._ready if call.route not in routes)
        mailboxes, first_ready = self._mailboxes.copy(), set(dropped)
        for route in routes:
            if route in mailboxes:
                first, *behind = mailboxes.pop(route)
                dropped += behind
                if first not in first_ready:  # it runs
                    mailboxes[route] = deque([first])
        recounted = {call.accepted: call.accepted.unstarted for call in dropped}
        for call in dropped:
            recounted[call.accepted] -= 1
        count, emptied = len(dropped), list(recounted.values()).count(0)
        topic = next(iter(routes)).topic if cancel else ANY
        others = self._routes[topic] if cancel else ()
        kept = tuple(route for route in others if route not in routes)
        # Not at once: an interrupt in Future.set_result would strand who waits for that.
        later = self._loop if cancel and (self._line or self._watchers) else None
        if later:
            later.call_soon(self._look_again)
        if kept:  # first, as it may call the topic's own code
            self._routes[topic] = kept
        elif cancel:
            del self._routes[topic]
        self._ready, self._mailboxes, self._recounted = ready, mailboxes, recounted
        self._backlog -= emptied
        self._dropped += count
        self._pending -= count
        self._idle_moments += count > 0 and not self._pending
        self._recount()
        if not later:
            self._look_again()
        return dropped

    def _recount(self) -> None:
        for accepted, unstarted in self._recounted.items():
            accepted.unstarted = unstarted
        self._recounted = {}

    def _take_back(self, routes: Collection[_Route]) -> None:
        for call in self._drop(routes):
            self._taken[call.accepted.number] = call.accepted.event

    def _cancel_running(self) -> None:
        for task, call in list(self._running.items()):
            if task and not call.cancelled and call not in self._inside:
                call.cancelled = True
                task.cancel()

    def _close(self) -> None:
        """Refuse events from now on, those in line and in the inbox included."""
        if self._state != _RUNNING:
            return
        self._state = _STOPPING
        with self._lock:
            self._open = False
            posted, self._inbox = self._inbox, []
        line, self._line = self._line, deque()
        for waiter in (*line, *posted):
            if isinstance(waiter, _Posted):
                self._refuse(waiter)
            elif not waiter.done():
                waiter.set_result(None)

    def _abandon(self, keeper: asyncio.Task[None]) -> None:
        if keeper is self._keeper:
            dropped = self.stats.dropped
            self._close()
            self._take_back(self._all_routes())
            _tell(self, "its loop ended", self.stats.dropped - dropped)

    def _subtract(self, calls: int) -> None:
        self._pending -= calls
        if calls and not self._pending:
            self._idle_moments += 1
        if self._watchers and self._pending <= len(self._inside):
            self._announce()

    def _announce(self) -> None:
        watchers, self._watchers = self._watchers, {}
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)

    async def _reached(self, goal: Callable[[], bool], limit: float | None) -> bool:
        try:
            async with asyncio.timeout(limit):
                while not goal():
                    watcher: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._watchers[watcher] = None
                    try:
                        await watcher
                    finally:
                        self._watchers.pop(watcher, None)
        except TimeoutError:
            return goal()
        return True

    def _stopped(self) -> BusStopped:
        return BusStopped(f"{self._name} is {self._state}: await start() before publishing")

    def _full(self, advice: str) -> BusFull:
        return BusFull(f"{self._name} holds {self._max_queue} events: {advice}")


def _check_event(event: Event) -> None:
    if not isinstance(event, Event):
        raise TypeError(f"event must be an Event, not {event!r}: use Event.create")


def _log_failure(event: Event, handler: Callable[..., object], error: BaseException) -> None:
    _logger.error("%r failed on a %r event", handler, event.event_type, exc_info=error)


@types.coroutine
def _first_step() -> Generator[None, None, None]:
    yield


# The buses that were started, until their run ends, or its loss has been told. Weak, since
# nothing else keeps a bus alive, and by identity, since these are to outlive it.
_started: dict[int, weakref.ref[AsyncEventBus]] = {}


async def _keep(bus: AsyncEventBus) -> None:
    """Be there while the bus runs, and end with its loop."""
    _started[id(bus)] = weakref.ref(bus)
    finish_with_process(_tell_all)
    try:
        await asyncio.get_running_loop().create_future()
    except GeneratorExit:  # it is collected: the loop was closed, and cancelled nothing
        _tell(bus, "its loop was closed", bus.stats.pending)
        raise


def _tell(bus: AsyncEventBus, end: str, calls: int) -> None:
    if _started.pop(id(bus), None) and calls:
        _logger.warning("%s: %s without stop(), calls dropped: %d", bus._name, end, calls)  # noqa: SLF001


def _tell_all() -> None:
    for reference in list(_started.values()):
        if (bus := reference()) and bus._pid == os.getpid():  # noqa: SLF001  (not a forked parent's)
            _tell(bus, "the process exits", bus.stats.pending)


finish_with_process(_tell_all)
