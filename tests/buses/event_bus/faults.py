"""Faults of EventBus, each a class that does one thing wrong, mixed in before the real one.

They override public methods alone, so they break whatever implementation is below them.
`lost` is for wake-ups: it knows threads by the public method that they are in.
"""

import _thread
import itertools
import logging
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from reference_impl.buses.event import (
    ANY,
    BusFull,
    BusStats,
    BusStopped,
    Event,
    Handler,
    Subscription,
)
from tests.kit.primitives import Over, primitive, rebind
from tests.kit.twins import Fault, Twin, override, patch

if TYPE_CHECKING:
    from reference_impl.buses.event_bus import EventBus as _Bus
else:
    _Bus = object


def mixed(fault: type) -> Fault:
    """The module's bus with this class's methods before its own; `module` is the module."""

    def change(module: ModuleType) -> None:
        base = module.EventBus
        module.EventBus = type("EventBus", (fault, base), {"module": module})  # type: ignore[attr-defined]

    return patch(change)


def wrong(fault: type, *fails: str) -> Twin:
    """The twin that does what the class's docstring says."""
    first = str(fault.__doc__).partition("\n")[0].rstrip(".")
    return Twin(first[0].lower() + first[1:], mixed(fault), fails)


def arguments(**changes: Callable[[Any], Any]) -> Fault:
    """The bus changes these of the arguments that it is given."""

    class Broken(_Bus):
        def __init__(self, max_workers: int = 10, **options: Any) -> None:
            changed = {"max_workers": max_workers, **options}
            for name, change in changes.items():
                changed[name] = change(changed.get(name))
            super().__init__(**changed)

    return mixed(Broken)


class _Handlers(_Bus):
    """A bus that calls `call(event, handler)` where it should call the handler."""

    def subscribe(self, event_type: Any, handler: Handler, **how: Any) -> Subscription:
        def called(event: Event) -> None:
            self.call(event, handler)

        return super().subscribe(event_type, called, **how)

    def call(self, event: Event, handler: Handler) -> None:
        handler(event)


# Who is called.


class ForgetsAny(_Bus):
    """Takes ANY for a topic."""

    def subscribe(self, event_type: Any, handler: Handler, **how: Any) -> Subscription:
        topic = object() if event_type is ANY else event_type
        return super().subscribe(topic, handler, **how)


class ReplacesOthers(_Bus):
    """Lets a subscription replace the one before it."""

    last: dict[Hashable, Subscription] = {}

    def subscribe(self, event_type: Any, handler: Handler, **how: Any) -> Subscription:
        if event_type in self.last:
            self.last[event_type].cancel()
        made = super().subscribe(event_type, handler, **how)
        self.last = {**self.last, event_type: made}
        return made


class LooksUpBeforeTheWait(_Bus):
    """Looks up whom to call before it waits for room."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.time = itertools.count()
        self.begun: dict[str, int] = {}

    def subscribe(self, event_type: Any, handler: Handler, **how: Any) -> Subscription:
        since = next(self.time)

        def called(event: Event) -> None:
            if since < self.begun[event.event_id]:
                handler(event)

        return super().subscribe(event_type, called, **how)

    def publish(self, event: Event, timeout: float | None = None) -> None:
        self.begun[event.event_id] = next(self.time)
        super().publish(event, timeout)


class AcceptsWhileStopping(_Bus):
    """Loses in silence what is published while it drains."""

    def publish(self, event: Event, timeout: float | None = None) -> None:
        with suppress(BusStopped):
            super().publish(event, timeout)


class ChecksThenPuts(_Bus):
    """Checks in one step that it runs, puts in another, and is silent if it no longer runs."""

    def publish(self, event: Event, timeout: float | None = None) -> None:
        if not self.is_running:
            raise BusStopped("checked")
        with suppress(BusStopped):
            super().publish(event, timeout)


class CallsTheCancelled(_Bus):
    """Calls whom it found before they were cancelled."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.live: dict[int, tuple[Hashable, Handler]] = {}
        self.numbers = itertools.count()

    def subscribe(self, event_type: Any, handler: Handler, **how: Any) -> Subscription:
        number, made = next(self.numbers), super().subscribe(event_type, handler, **how)
        self.live[number] = event_type, handler

        def cancel() -> bool:
            ended = made.cancel()
            self.live.pop(number, None)
            return ended

        return Subscription(cancel)

    def publish(self, event: Event, timeout: float | None = None) -> None:
        found = dict(self.live)
        super().publish(event, timeout)
        for number, (topic, handler) in found.items():
            if topic == event.event_type and number not in self.live:
                handler(event)


# Failures.


class ForgivesExits(_Handlers):
    """Takes what is no Exception for a success."""

    def call(self, event: Event, handler: Handler) -> None:
        try:
            handler(event)
        except Exception:
            raise
        except BaseException:
            return


class LosesAWorker(_Handlers):
    """Loses the worker whose handler raises SystemExit."""

    def call(self, event: Event, handler: Handler) -> None:
        try:
            handler(event)
        except SystemExit:
            threading.Event().wait()


# Cancelling, order, room.


class IgnoresCalls(_Bus):
    """Leaves the calls of a cancelled handler in the line, to come to nothing."""

    def subscribe(self, event_type: Any, handler: Handler, **how: Any) -> Subscription:
        live = [True]

        def called(event: Event) -> None:
            if live:
                handler(event)

        super().subscribe(event_type, called, **how)
        return Subscription(lambda: bool(live) and live.pop())


class ComparesUnderItsLock(_Bus):
    """Compares handlers under a lock."""

    module: ModuleType

    def unsubscribe(self, event_type: Hashable, handler: Handler) -> bool:
        with primitive(self.module, "Lock")():
            return super().unsubscribe(event_type, handler)


class ForgetsTheOrder(_Bus):
    """Calls an ordered handler side by side."""

    def subscribe(self, event_type: Any, handler: Handler, **how: Any) -> Subscription:
        return super().subscribe(event_type, handler)


class SerializesByALock(_Bus):
    """Holds a worker for each call of an ordered handler."""

    def subscribe(self, event_type: Any, handler: Handler, **how: Any) -> Subscription:
        if not how.get("ordered"):
            return super().subscribe(event_type, handler)
        turn = threading.Lock()

        def called(event: Event) -> None:
            with turn:
                handler(event)

        return super().subscribe(event_type, called)


class LosesWhatAnOrderedHandlerMisses(_Bus):
    """Loses what comes while an ordered handler is busy."""

    busy = False

    def subscribe(self, event_type: Any, handler: Handler, **how: Any) -> Subscription:
        def called(event: Event) -> None:
            handler(event)
            self.busy = False

        return super().subscribe(event_type, called, **how)

    def publish(self, event: Event, timeout: float | None = None) -> None:
        if not self.busy:
            self.busy = True
            super().publish(event, timeout)


class KeepsTheRoomOfTheDropped(_Bus):
    """Never gives back the room of what it dropped."""

    room: int

    def __init__(self, *args: Any, max_queue: int = 10_000, **options: Any) -> None:
        super().__init__(*args, max_queue=max_queue, **options)
        self.room = max_queue

    def publish(self, event: Event, timeout: float | None = None) -> None:
        if self.is_running and self.stats.dropped >= self.room:
            raise BusFull("the dropped calls take up the room")
        super().publish(event, timeout)


class HoldsItselfUp(_Bus):
    """Waits in a handler for room that only this handler could make."""

    def publish(self, event: Event, timeout: float | None = None) -> None:
        try:
            super().publish(event, timeout)
        except BusFull:
            if timeout is None:
                threading.Event().wait()
            raise


class CountsNoDropped(_Bus):
    """Drops without counting."""

    @property
    def stats(self) -> BusStats:
        return replace(super().stats, dropped=0)


# Workers, start and stop.


class Polls(_Bus):
    """Looks for work ten times a second."""

    module: ModuleType

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.over = primitive(self.module, "Event")()

    def start(self) -> None:
        self.over.wait(0.1)
        super().start()


class ReturnsNothing(_Bus):
    """Forgets what it took back."""

    def stop(self, timeout: float | None = None, *, drain: bool = True) -> list[Event]:
        super().stop(timeout, drain=drain)
        return []


class ReturnsInReverse(_Bus):
    """Returns the last event first."""

    def stop(self, timeout: float | None = None, *, drain: bool = True) -> list[Event]:
        return super().stop(timeout, drain=drain)[::-1]


class ReturnsAgain(_Bus):
    """Returns again what it has returned."""

    returned: list[Event] = []

    def stop(self, timeout: float | None = None, *, drain: bool = True) -> list[Event]:
        self.returned = self.returned + super().stop(timeout, drain=drain)
        return self.returned


class TellsOfNoHandlerLeft(_Bus):
    """Says nothing of a handler that it leaves."""

    def stop(self, timeout: float | None = None, *, drain: bool = True) -> list[Event]:
        logging.disable()
        try:
            return super().stop(timeout, drain=drain)
        finally:
            logging.disable(logging.NOTSET)


class StartsWhileStopping(_Bus):
    """Takes a start for done while it is stopping."""

    def start(self) -> None:
        with suppress(RuntimeError):
            super().start()


class DrainsAlways(_Bus):
    """Drains in any case."""

    def stop(self, timeout: float | None = None, *, drain: bool = True) -> list[Event]:
        return super().stop(timeout)


class ForgetsWhatAHandlerTookBack(_Bus):
    """Forgets what a stop in a handler took back."""

    asked = False

    def stop(self, timeout: float | None = None, *, drain: bool = True) -> list[Event]:
        try:
            self.wait_idle(0)
        except RuntimeError:
            self.asked = True
            return super().stop(timeout, drain=drain)
        except TimeoutError:
            pass
        returned, forgets, self.asked = super().stop(timeout, drain=drain), self.asked, False
        return [] if forgets else returned


class StopsBeside(_Bus):
    """Does not know that a handler stops it."""

    def stop(self, timeout: float | None = None, *, drain: bool = True) -> list[Event]:
        returned: list[Event] = []

        def stop() -> None:
            returned.extend(super(StopsBeside, self).stop(timeout, drain=drain))

        thread = threading.Thread(target=stop)
        thread.start()
        thread.join()
        return returned


class StopsOneAtATime(_Bus):
    """Stops in one thread at a time."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.stopping = threading.Lock()

    def stop(self, timeout: float | None = None, *, drain: bool = True) -> list[Event]:
        with self.stopping:
            return super().stop(timeout, drain=drain)


class WaitsForCallsBehindIt(_Bus):
    """Waits in a handler for calls that nobody else can make."""

    def stop(self, timeout: float | None = None, *, drain: bool = True) -> list[Event]:
        try:
            self.wait_idle(0)
        except RuntimeError:
            if self.stats.pending > 1:
                threading.Event().wait()
        except TimeoutError:
            pass
        return super().stop(timeout, drain=drain)


class StaysStopping(_Bus):
    """Stays stopping after two stops."""

    stops = 0

    def stop(self, timeout: float | None = None, *, drain: bool = True) -> list[Event]:
        self.stops += 1
        return super().stop(timeout, drain=drain)

    def start(self) -> None:
        if self.stops > 1:
            raise RuntimeError("it is stopping")
        super().start()


class LosesAnOrderedHandler(_Bus):
    """Never again calls an ordered handler whose calls it took back."""

    last: Subscription

    def subscribe(self, event_type: Any, handler: Handler, **how: Any) -> Subscription:
        self.last = super().subscribe(event_type, handler, **how)
        return self.last

    def stop(self, timeout: float | None = None, *, drain: bool = True) -> list[Event]:
        returned = super().stop(timeout, drain=drain)
        if returned:
            self.last.cancel()
        return returned


# Contexts.


class EmptyContext(_Bus):
    """Calls handlers in an empty context."""

    def publish(self, event: Event, timeout: float | None = None) -> None:
        Context().run(super().publish, event, timeout)


class SharedContext(_Handlers):
    """Makes one copy of the context for all calls."""

    contexts: dict[str, Context] = {}

    def publish(self, event: Event, timeout: float | None = None) -> None:
        self.contexts = {event.event_id: copy_context()}
        super().publish(event, timeout)

    def call(self, event: Event, handler: Handler) -> None:
        self.contexts[event.event_id].run(handler, event)


# Idleness.


class WaitsForItself(_Bus):
    """Waits in a handler for itself."""

    def wait_idle(self, timeout: float | None = None) -> None:
        try:
            super().wait_idle(timeout)
        except RuntimeError as error:
            raise TimeoutError from error


class MissesIdleMoments(_Bus):
    """Misses an idle moment."""

    def wait_idle(self, timeout: float | None = None) -> None:
        super().wait_idle(timeout)
        while self.stats.pending:
            super().wait_idle(timeout)


class ForgetsTheRunning(_Bus):
    """Takes a bus for idle while one call runs."""

    def wait_idle(self, timeout: float | None = None) -> None:
        if self.stats.pending > 1:
            super().wait_idle(timeout)


# Interrupts.


class CountsBeforehand(_Bus):
    """Counts an event and only then accepts it."""

    begun = 0

    def publish(self, event: Event, timeout: float | None = None) -> None:
        self.begun += 1
        super().publish(event, timeout)

    @property
    def stats(self) -> BusStats:
        return replace(super().stats, published=self.begun)


class CancelsOneByOne(_Bus):
    """Cancels one after another what is to be cancelled together."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.made: list[tuple[Hashable, Handler, Subscription]] = []

    def subscribe(self, event_type: Any, handler: Handler, **how: Any) -> Subscription:
        made = super().subscribe(event_type, handler, **how)
        self.made.append((event_type, handler, made))
        return made

    def unsubscribe(self, event_type: Hashable, handler: Handler) -> bool:
        found = [made for topic, each, made in self.made if topic == event_type and each == handler]
        return sum(made.cancel() for made in found) > 0


class RunsBeforeItHasStarted(_Bus):
    """Says that it runs before it has started."""

    asked = False

    def start(self) -> None:
        self.asked = True
        super().start()

    @property
    def is_running(self) -> bool:
        return self.asked or super().is_running


class LosesWhatItTook(_Bus):
    """Loses what it took back, if it is interrupted."""

    def stop(self, timeout: float | None = None, *, drain: bool = True) -> list[Event]:
        return list(super().stop(timeout, drain=drain))


# Wake-ups.


def own_subscriptions() -> Fault:
    """The module's subscriptions are of a class of its own, in which they may be broken."""

    def change(module: ModuleType) -> None:
        module.Subscription = type("Subscription", (module.Subscription,), {})  # type: ignore[attr-defined]

    return patch(change)


class _Knowing(Over):
    """A lock that knows in which public method who waits or releases is; "" is a worker.

    A wait is what has a timeout; all else excludes.
    """

    here: Any  # of the thread: .method

    def __init__(self) -> None:
        super().__init__(threading.Lock())
        self.waiting: list[str] = []

    def method(self) -> str:
        return getattr(self.here, "method", "")

    def acquire(self, *arguments: Any, **options: Any) -> Any:
        if "timeout" not in options:
            return self.inner.acquire(*arguments, **options)
        method = self.method()
        self.waiting.append(method)
        try:
            return self.inner.acquire(*arguments, **options)
        finally:
            self.waiting.remove(method)


def _entering(here: Any, path: str) -> Fault:
    method = path.rpartition(".")[2]

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            before, here.method = getattr(here, "method", ""), method
            try:
                return original(*arguments, **options)
            finally:
                here.method = before

        return call

    return override(path, make)


def lost(by: str, to: str, *, first: int = 0) -> Fault:
    """The wake-ups that one public method gives do not reach those who wait in another.

    "" is a worker between its calls. The first few at each lock get through.
    """
    entered = _thread._local()  # explorers replace threading.local

    class Lock(_Knowing):
        here = entered
        through = first

        def release(self) -> None:
            if self.method() == by and to in self.waiting:
                self.through -= 1
                if self.through < 0:
                    return
            self.inner.release()

    def change(module: ModuleType) -> None:
        rebind(module, Lock=Lock)

    fault = own_subscriptions() + patch(change)
    for path in ("EventBus.publish", "EventBus.stop", "EventBus.wait_idle", "Subscription.cancel"):
        fault += _entering(entered, path)
    return fault
