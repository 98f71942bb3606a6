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
from collections.abc import Callable, Generator, Hashable, Sequence
from concurrent.futures import Future
from contextvars import Context, copy_context
from functools import partial
from inspect import isawaitable
from typing import Any, NamedTuple, NoReturn, Self, SupportsIndex

from ._dispatcher import Call, Dispatcher, Route, State
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

__all__ = ["AsyncEventBus"]

_SLICE = 32  # calls started in one turn of the loop: then its other tasks have theirs
_logger = logging.getLogger(__name__)
# An eager task needs no turn of the loop where its handler waits for nothing.
_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
_handling: set[asyncio.Task[Any] | None] = set()  # tasks that run a handler, of any bus


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
        self._state = State.STOPPED
        self._keeper: asyncio.Task[None] | None = None  # one a run, None while stopped
        # A signal handler may raise in a plain method, but not between statements without a
        # call or a loop: there changes are prepared, what is to follow them is scheduled, and
        # then they are made in one line, as the dispatcher does.
        self._dispatcher = Dispatcher()
        self._scheduled = False  # a turn that starts calls
        self._running: dict[asyncio.Task[Any] | None, Call] = {}
        self._cancelled: set[asyncio.Task[Any] | None] = set()  # those that stop has cancelled
        # Nobody passes whoever waits here for room. While there is room, the first is awake.
        self._waiting: deque[asyncio.Future[None] | _Posted] = deque()
        self._watchers: dict[asyncio.Future[None], None] = {}
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
        route = self._dispatcher.subscribe(event_type, handler, ordered)
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
        routes = self._dispatcher.routes.get(event_type, ())
        return self._cancel([route for route in routes if route.handler == handler])

    def _cancel(self, routes: Sequence[Route]) -> bool:
        """End those of these routes, which are of one topic, that have not ended."""
        self._check_loop()
        ended = self._dispatcher.left_of(routes)
        if ended:
            # Not at once: an interrupt in Future.set_result would strand who waits for that.
            later = self._loop if self._waiting or self._watchers else None
            if later:
                later.call_soon(self._look_again)
            self._dispatcher.drop(ended, cancel=True)
            self._dispatcher.recount()
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
            await self._wait_for_room(limit)
        self._accept(event, copy_context())
        if self._waiting:
            self._offer_room()

    async def _wait_for_room(self, limit: float | None) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(limit):
                await turn
        except BaseException as error:
            if turn in self._waiting:
                self._waiting.remove(turn)
                self._offer_room()  # the offer may have been ours: pass it on
            if isinstance(error, TimeoutError):
                raise self._full(f"no room within {limit} s; wait longer") from None
            raise
        if not self._waiting or self._waiting[0] is not turn:
            raise self._stopped()
        self._waiting.popleft()

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
        self._waiting.extend(posted)
        self._offer_room()

    def _refuse(self, posted: _Posted) -> None:
        if posted.future.set_running_or_notify_cancel():
            posted.future.set_exception(self._stopped())

    async def start(self) -> None:
        """Accept events, on this loop from now on; on a running bus, do nothing.

        Raises:
            RuntimeError: If the bus is stopping.
        """
        self._check_loop()
        if self._state is State.STOPPING:
            raise RuntimeError(f"{self._name} {self._why_not()}")
        if self._state is State.STOPPED:
            self._loop = asyncio.get_running_loop()
            # asyncio.run cancels it, with all other tasks, where it ends without a stop.
            self._keeper = self._loop.create_task(_keep(self), name=self._name)
            self._keeper.add_done_callback(self._abandon)
            self._state = State.RUNNING
            with self._lock:
                self._open, self._pid = True, os.getpid()

    async def stop(
        self,
        timeout: float | None = None,  # noqa: ASYNC109
        *,
        drain: bool = True,
    ) -> list[Event]:
        """Refuse new events, let the accepted ones be handled, and end.

        In a handler's own task, of this bus or another AsyncEventBus, it only requests that, and
        returns an empty list at once: the bus drains and stays stopping, and the next `stop`
        elsewhere, or leaving an `async with` block, finishes and returns the rest. When it is
        cancelled the bus stays stopping, too. On a stopped bus it does nothing.

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
        requests = asyncio.current_task() in _handling
        return await self._stop(limit, drain=drain, requests=requests)

    async def _stop(self, limit: float | None, *, drain: bool, requests: bool) -> list[Event]:
        keeper = self._keeper
        if keeper is None:
            return []
        self._close()
        if not drain:
            self._take_back()
        if requests:
            return []

        def drained() -> bool:
            return not self._dispatcher.pending or keeper is not self._keeper

        if not await self._reached(drained, limit):
            self._take_back()
            self._cancel_running()
            await self._reached(drained, None)
        keeper.cancel()
        await asyncio.wait([keeper])
        if keeper is not self._keeper:  # another stop ended this run
            return []
        self._state, self._keeper = State.STOPPED, None
        self._tell_watchers()
        taken, self._dispatcher.taken_back = self._dispatcher.taken_back, {}
        return [taken[number].event for number in sorted(taken)]

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
        was_idle = self._dispatcher.idle_from_now()
        if not await self._reached(lambda: was_idle() or self._keeper is None, limit):
            left = self._dispatcher.pending
            raise TimeoutError(f"{self._name} was not idle within {timeout} s: {left} calls left")

    @property
    def stats(self) -> BusStats:
        """The figures of one instant, if read on the loop."""
        return self._dispatcher.stats()

    @property
    def is_running(self) -> bool:
        """Whether `publish` accepts events."""
        return self._state is State.RUNNING

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        task = asyncio.current_task()
        if task in _handling and task not in self._running:  # of another bus, which is to wait
            await self._stop(None, drain=True, requests=False)
        else:
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
        if self._state is not State.RUNNING:
            raise self._stopped()
        full = self._waiting or self._dispatcher.backlog >= self._max_queue
        return not full or not self._dispatcher.routes_of(event)

    def _accept(self, event: Event, context: Context) -> None:
        routes = self._dispatcher.routes_of(event)
        if routes:
            self._schedule()
        self._dispatcher.accept(event, context, routes)

    def _offer_room(self) -> None:
        while self._waiting and self._dispatcher.backlog < self._max_queue:
            head = self._waiting[0]
            if not isinstance(head, _Posted):
                # It accepts in its own step, or a cancellation could come in between.
                if not head.done():
                    head.set_result(None)
                return
            self._waiting.popleft()
            if head.future.set_running_or_notify_cancel():
                self._accept(head.event, head.context)
                head.future.set_result(None)

    def _schedule(self) -> None:
        """Have a turn of the loop start calls, unless as many run as may."""
        if self._dispatcher.started < self._max_concurrency and not self._scheduled:
            assert self._loop is not None
            self._loop.call_soon(self._turn)
            self._scheduled = True

    def _turn(self) -> None:
        self._scheduled = False
        self._start_calls()

    def _look_again(self) -> None:
        self._offer_room()
        if not self._dispatcher.pending:
            self._tell_watchers()

    def _start_calls(self) -> None:
        """Start a slice of the calls: never in a publisher's frame, never all in one turn."""
        if self._keeper is None or self._keeper.cancelling():
            return  # the loop is about to close: a new task would not end
        dispatcher = self._dispatcher
        try:
            for _ in range(_SLICE):
                if dispatcher.started >= self._max_concurrency or not (call := dispatcher.start()):
                    break
                self._start(call)
        finally:
            self._offer_room()
            if dispatcher.ready:
                self._schedule()

    def _start(self, call: Call) -> None:
        coro, context = self._handle(call), call[0].context.copy()
        if not _EAGER:
            coro.send(None)  # as far as _first_step, where a cancellation finds it
        task = asyncio.Task(coro, loop=self._loop, context=context, **_EAGER)
        if not _EAGER:
            self._running[task] = call

    async def _handle(self, call: Call) -> None:
        if not _EAGER:
            try:
                await _first_step()
            except asyncio.CancelledError:
                self._put_back(call)
                return
        task, event, handler = asyncio.current_task(), call[0].event, call[1].handler
        self._running[task] = call
        _handling.add(task)
        delivered = False
        try:
            result = handler(event)
            if isawaitable(result):
                result = await result
            check_result(result)
            delivered = task not in self._cancelled
        except BaseException as error:
            await self._report(event, handler, error)
            if isinstance(error, SystemExit | KeyboardInterrupt):
                raise  # out of the loop, as from any of its tasks
        else:
            if not delivered:
                message = "by stop(), though the handler went on to its end"
                await self._report(event, handler, asyncio.CancelledError(message))
        finally:
            _handling.discard(task)
            del self._running[task]
            self._cancelled.discard(task)
            self._settle(call, delivered)

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

    def _put_back(self, call: Call) -> None:
        """Of a call whose task was cancelled before its first step."""
        task = asyncio.current_task()
        del self._running[task]
        if not self._dispatcher.left_of([call[1]]):
            self._dispatcher.finish(call, False, dropped=True)
        else:
            self._dispatcher.put_back(call)
            if task in self._cancelled:
                self._take_back()
        self._cancelled.discard(task)
        self._look_again()
        if self._dispatcher.ready:
            self._schedule()

    def _settle(self, call: Call, delivered: bool) -> None:
        self._dispatcher.finish(call, delivered)
        if self._watchers and not self._dispatcher.pending:
            self._tell_watchers()
        if self._dispatcher.ready:
            if _EAGER:
                self._schedule()
            else:
                self._start_calls()

    def _take_back(self) -> None:
        """Drop what was not started, for `stop` to return."""
        self._dispatcher.drop(self._dispatcher.all_routes(), cancel=False)
        self._dispatcher.recount()
        self._look_again()

    def _cancel_running(self) -> None:
        for task in list(self._running):
            if task and task not in self._cancelled:
                self._cancelled.add(task)
                task.cancel()

    def _close(self) -> None:
        """Refuse events from now on, those in line and in the inbox included."""
        if self._state is not State.RUNNING:
            return
        self._state = State.STOPPING
        with self._lock:
            self._open = False
            posted, self._inbox = self._inbox, []
        line, self._waiting = self._waiting, deque()
        for waiter in (*line, *posted):
            if isinstance(waiter, _Posted):
                self._refuse(waiter)
            elif not waiter.done():
                waiter.set_result(None)

    def _abandon(self, keeper: asyncio.Task[None]) -> None:
        if keeper is self._keeper:
            dropped = self.stats.dropped
            self._close()
            self._take_back()
            _tell(self, "its loop ended", self.stats.dropped - dropped)

    def _tell_watchers(self) -> None:
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
        return BusStopped(f"{self._name} {self._why_not()}")

    def _why_not(self) -> str:
        """Why it accepts nothing, and what to do."""
        if os.getpid() != self._pid:
            return "belongs to the parent process: make another bus in a forked child"
        if self._state is State.STOPPED:
            return "is not running: await start() before publishing"
        if self._keeper is not None and self._keeper.done():
            return "has had its task cancelled with all others: await stop(), then start()"
        return "is stopping: await stop() outside its handlers, then start()"

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
