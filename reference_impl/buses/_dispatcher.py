# _dispatcher.py: what the two buses share: who is called with what, in which order, and counted
# https://executable-guarantees.example/buses/event_bus.html#_dispatcher
# Version 1.0.0 (2026-11-30); Python 3.11 to 3.14, with or without the GIL; standard library only
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: 2026 The Executable Guarantees authors
"""The bookkeeping of EventBus and AsyncEventBus; a part of them, not for use on its own.

It knows neither locks nor threads nor tasks. Its bus lets one caller in at a time, makes the
calls that `start` hands out, and reports each to `finish` or `put_back`.
"""

from collections import deque
from collections.abc import Callable, Collection, Hashable, Sequence
from contextvars import Context
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from .event import ANY, BusStats, Event, Handler


class State(StrEnum):
    """The life of a bus, in the words of its messages."""

    STOPPED = "not running"
    RUNNING = "running"
    STOPPING = "stopping"


@dataclass(slots=True, eq=False)
class Route:
    """What the bus knows of a subscription."""

    topic: Hashable
    handler: Handler
    ordered: bool


@dataclass(slots=True, eq=False)
class Accepted:
    """An accepted event, and how many of its calls were not started."""

    number: int  # counted from 1
    event: Event
    context: Context  # the publisher's
    unstarted: int


Call: TypeAlias = tuple[Accepted, Route]


class Dispatcher:
    """Routes, calls and figures of a bus.

    Between two operations:

    - `pending` is the number of calls in `ready`, in mailboxes behind their first, and started.
    - `backlog` is the number of events with a call that was not started.
    - The first call of a mailbox is in `ready` or started; the others are nowhere else.
    - Each call that ever was is delivered, failed, dropped or pending, or was forgotten.

    Examples:
        >>> from contextvars import copy_context
        >>> dispatcher, event = Dispatcher(), Event("topic")
        >>> route = dispatcher.subscribe("topic", print, ordered=False)
        >>> dispatcher.accept(event, copy_context(), dispatcher.routes_of(event))
        >>> dispatcher.backlog, dispatcher.pending
        (1, 1)
        >>> call = dispatcher.start()
        >>> dispatcher.backlog, dispatcher.pending
        (0, 1)
        >>> dispatcher.finish(call, delivered=True)
        >>> dispatcher.stats()
        BusStats(published=1, delivered=1, failed=0, dropped=0, pending=0)

    Thread safety:
        Externally synchronized.

    Signals:
        A handler that raises interrupts an operation before it has changed anything, or after
        all of it: each prepares its changes, and makes them in a straight line at its end. Such
        a line has no loop and calls nothing, so that no handler can run in it. What the bus does
        next in the same manner, as its line returns, is not separated from the operation either.
    """

    def __init__(self) -> None:
        self.routes: dict[Hashable, tuple[Route, ...]] = {}  # no topic without a route
        self.published = self.delivered = self.failed = self.dropped = 0
        self.idle_moments = 0  # how often the last pending call went
        self.forget()

    def forget(self) -> None:
        """Drop what is accepted without counting it: a forked child leaves it to its parent."""
        self.pending = self.started = self.backlog = 0
        self.ready: deque[Call] = deque()
        self.mailboxes: dict[Route, deque[Accepted]] = {}  # of ordered routes with a call
        self._recounted: dict[Accepted, int] = {}  # what their `unstarted` is to be
        self.taken_back: dict[int, Accepted] = {}  # for `stop` to return, by number

    def stats(self) -> BusStats:
        """The figures."""
        return BusStats(self.published, self.delivered, self.failed, self.dropped, self.pending)

    def idle_from_now(self) -> Callable[[], bool]:
        """What tells whether no call is pending, or none was for a moment since."""
        seen = self.idle_moments
        return lambda: not self.pending or self.idle_moments != seen

    def subscribe(self, topic: Hashable, handler: Handler, ordered: bool) -> Route:
        """Add a route, for events that are accepted from now on."""
        others = self.routes.get(topic, ())
        # All routes of a topic hold the dict's key: it is not to die with the last but one.
        route = Route(others[0].topic if others else topic, handler, ordered)
        self.routes[route.topic] = (*others, route)
        return route

    def routes_of(self, event: Event) -> tuple[Route, ...]:
        """Whom to call with it."""
        return self.routes.get(event.event_type, ()) + self.routes.get(ANY, ())

    def all_routes(self) -> set[Route]:
        """Every route, of whichever topic."""
        return {route for routes in self.routes.values() for route in routes}

    def left_of(self, routes: Sequence[Route]) -> set[Route]:
        """Those of these routes, which are of one topic, that have not ended."""
        left = self.routes.get(routes[0].topic, ()) if routes else ()
        return {*routes} & {*left}

    def accept(self, event: Event, context: Context, routes: Collection[Route]) -> None:
        """Put a call of each of these routes in line."""
        count = len(routes)
        accepted = Accepted(self.published + 1, event, context, count)
        calls = [(accepted, route) for route in routes]
        self.published += 1
        if calls:
            self.backlog += 1
            self.pending += count
            self.ready += calls  # not into mailboxes yet: one line for all

    def start(self) -> Call | None:
        """The next call, now started; None if no call may start."""
        if self._recounted:
            self.recount()
        ready = self.ready
        while ready:
            call = accepted, route = ready[0]
            if route.ordered:
                mailbox = self.mailboxes.get(route)
                if mailbox is None:
                    self.mailboxes[route] = deque((accepted,))
                elif mailbox[0] is not accepted:
                    mailbox += (accepted,)
                    del ready[0]
                    continue
            accepted.unstarted -= 1
            if not accepted.unstarted:
                self.backlog -= 1
            self.started += 1
            del ready[0]
            return call
        return None

    def put_back(self, call: Call) -> None:
        """A started call that has done nothing waits again, first in line."""
        self.recount()
        accepted = call[0]
        if not accepted.unstarted:
            self.backlog += 1
        accepted.unstarted += 1
        self.started -= 1
        self.ready.appendleft(call)

    def finish(self, call: Call, delivered: bool, *, dropped: bool = False) -> None:
        """A started call has ended, or is dropped after all; the next of its mailbox is ready."""
        route = call[1]
        if route.ordered:
            mailbox = self.mailboxes[route]
            if len(mailbox) > 1:
                del mailbox[0]
                self.ready += ((mailbox[0], route),)  # behind what is ready
            else:
                del self.mailboxes[route]
        if delivered:
            self.delivered += 1
        elif dropped:
            self.dropped += 1
        else:
            self.failed += 1
        self.started -= 1
        self.pending -= 1
        if not self.pending:
            self.idle_moments += 1

    def drop(self, routes: Collection[Route], *, cancel: bool) -> list[Call]:
        """Drop the calls of these routes that were not started, and return them.

        Cancelling ends the routes, which are of one topic; else `stop` is to return the events.
        Call `recount` when all that belongs to the change is done.
        """
        self.recount()
        ready, mailboxes, dropped = self._without(routes)
        recounted = {accepted: accepted.unstarted for accepted, _ in dropped}
        for accepted, _ in dropped:
            recounted[accepted] -= 1
        count, emptied = len(dropped), list(recounted.values()).count(0)
        topic = next(iter(routes)).topic if cancel else ANY
        kept = tuple(route for route in self.routes.get(topic, ()) if route not in routes)
        taken = {} if cancel else {accepted.number: accepted for accepted, _ in dropped}
        if cancel and kept:  # first, as it may call the topic's own code
            self.routes[topic] = kept
        elif cancel:
            del self.routes[topic]
        self.taken_back |= taken
        self.ready, self.mailboxes, self._recounted = ready, mailboxes, recounted
        self.backlog -= emptied
        self.dropped += count
        self.pending -= count
        if count and not self.pending:
            self.idle_moments += 1
        return dropped

    def recount(self) -> None:
        """Finish a `drop`: it leaves the counts of its events to this, which may be cut short.

        Whatever needs them does it first; at the latest then the dropped events are released.
        """
        for accepted, unstarted in self._recounted.items():
            accepted.unstarted = unstarted
        self._recounted = {}

    def _without(
        self, routes: Collection[Route]
    ) -> tuple[deque[Call], dict[Route, deque[Accepted]], list[Call]]:
        """What would be ready and in mailboxes without these routes, and what would be gone."""
        ready = deque(call for call in self.ready if call[1] not in routes)
        gone = [call for call in self.ready if call[1] in routes]
        mailboxes, unstarted = self.mailboxes.copy(), set(gone)
        for route in routes:
            if route in mailboxes:
                first, *behind = mailboxes.pop(route)
                gone += [(accepted, route) for accepted in behind]
                if (first, route) not in unstarted:  # it runs
                    mailboxes[route] = deque((first,))
        return ready, mailboxes, gone
