"""DirectoryWatch seen from outside: its events, where its threads sleep, what it gives.

Nothing here knows a private name. What stands between watchdog and the watch is `Observers`;
where the keeper sleeps is seen by `Naps`, through the primitives that the module makes.
"""

import asyncio
import contextlib
import itertools
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from watchdog import events

from tests.kit.fakes import PATIENCE, Clock, until
from tests.kit.primitives import Over, rebind

Event = events.FileSystemEvent
Pass = Callable[[Event], None]

sentinels = itertools.count()


class Observers:
    """Stands where a module has watchdog's Observer: `hear` gets each event with what passes it on.

    Where somebody stands there already, this one is nearer to watchdog.
    """

    def __init__(self, module: Any, hear: Callable[[Pass, Event], None]) -> None:
        self.hear, self.make = hear, module.Observer
        self.made: list[Any] = []
        self.handlers: list[Any] = []
        if isinstance(there := module.Observer, Observers):
            while isinstance(there.make, Observers):
                there = there.make
            self.make, there.make = there.make, self
        else:
            module.Observer = self

    def __call__(self, **options: Any) -> Any:
        observer = self.make(**options)
        schedule = observer.schedule

        def between(handler: Any, *arguments: Any, **others: Any) -> Any:
            self.handlers.append(handler)
            return schedule(_Between(self, handler), *arguments, **others)

        observer.schedule = between
        self.made.append(observer)
        return observer


class _Between(events.FileSystemEventHandler):
    def __init__(self, observers: Observers, handler: Any) -> None:
        self._observers, self._handler = observers, handler

    def dispatch(self, event: Event) -> None:
        self._observers.hear(self._handler.dispatch, event)


class _Nap(Over):
    """A condition that tells whether somebody sleeps in it."""

    asleep = False

    def wait(self, timeout: float | None = None) -> bool:
        self.asleep = True
        try:
            return bool(self.inner.wait(timeout))
        finally:
            self.asleep = False

    def notify(self, n: int = 1) -> None:
        self.asleep = False  # who is notified is on its way
        self.inner.notify(n)

    def notify_all(self) -> None:
        self.asleep = False
        self.inner.notify_all()


class Spy:
    """A watch and what a test needs to know of it."""

    def __init__(self, module: ModuleType, inbox: Path) -> None:
        self.module, self.inbox = module, inbox
        self.watch: Any = None
        self.clock = Clock()
        self.handled: list[Event] = []
        self.settles = False  # then a sentinel is moved in, lest it settle
        self.change: Callable[[Event], Event | None] = lambda event: event
        self._naps: list[_Nap] = []
        self.observers = Observers(module, self._hear)
        make = getattr(vars(module).get("threading", threading), "Condition", threading.Condition)

        def condition(lock: Any = None) -> Any:
            self._naps.append(_Nap(make(lock)))
            return self._naps[-1]

        self.undo = rebind(module, Condition=condition)

    def _hear(self, tell: Pass, event: Event) -> None:
        if (changed := self.change(event)) is not None:
            tell(changed)
        self.handled.append(event)

    @property
    def root(self) -> str:
        """The directory as events name it."""
        return os.path.realpath(self.inbox)

    def told(self, kind: type[Event], *names: str) -> bool:
        """Whether such an event of each of these files has been handled."""
        paths = {each.src_path for each in self.handled if type(each) is kind}
        return paths >= {f"{self.root}{os.sep}{name}" for name in names}

    def tell(self, event: Event) -> None:
        """Tell the watch of an event by hand."""
        self.observers.handlers[-1].dispatch(event)

    async def name(self, wanted: str = "") -> str:
        """The next file, by its path below the directory; sentinels only if wanted."""
        while True:
            async with asyncio.timeout(PATIENCE):
                given = str((await anext(self.watch)).relative_to(self.inbox))
            if given == wanted or not given.startswith("sentinel"):
                return given

    async def names(self, number: int) -> list[str]:
        """The next files."""
        return [await self.name() for _ in range(number)]

    def put_sentinel(self) -> str:
        """Make a file that others are known by."""
        sentinel = f"sentinel-{next(sentinels)}"
        if self.settles:
            outside = self.inbox.with_name(f"outside-{sentinel}")
            outside.touch()
            outside.rename(self.inbox / sentinel)
        else:
            (self.inbox / sentinel).touch()
        return sentinel

    async def nothing_more(self) -> None:
        """Nothing is pending: the next file is one that is made now."""
        sentinel = self.put_sentinel()
        assert await self.name(sentinel) == sentinel

    async def caught_up(self) -> None:
        """All events so far are handled; what they gave again is taken, too."""
        sentinel = self.put_sentinel()
        while await self.name(sentinel) != sentinel:
            pass

    async def at_rest(self) -> None:
        """The threads have done all that was asked of them, and sleep."""

        def sleeps() -> bool:
            for nap in self._naps:
                with nap:
                    if nap.asleep:
                        return True
            return False

        async with asyncio.timeout(PATIENCE):
            await until(sleeps)

    def wake(self) -> None:
        """Have those who sleep look at the clock."""
        for nap in self._naps:
            with nap:
                nap.notify_all()

    async def at(self, now: float) -> None:
        """It is so late now, and all that was due is done."""
        self.set(now)
        await self.at_rest()

    def set(self, now: float) -> None:
        """It is so late now."""
        self.clock.now = now
        self.wake()


@contextlib.contextmanager
def spying(module: ModuleType, inbox: Path) -> Iterator[Spy]:
    """What is seen of a watch that is made within; at the end no observer is left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Observer", vars(module)["Observer"])  # to be put back
        spy = Spy(module, inbox)
        try:
            yield spy
        finally:
            spy.undo()
            for observer in spy.observers.made:
                observer.stop()
                if observer.is_alive():
                    observer.join()


@contextlib.asynccontextmanager
async def entered(module: ModuleType, inbox: Path, **options: Any) -> AsyncIterator[Spy]:
    """A watch that was entered. Its clock stands still, and it has no rescans unless asked for."""
    with spying(module, inbox) as spy:
        options = {"clock": spy.clock, "rescan_interval": None} | options
        spy.settles = bool(options.get("settle"))
        spy.watch = module.DirectoryWatch(inbox, **options)
        async with spy.watch:
            yield spy


@contextlib.asynccontextmanager
async def quiet(module: ModuleType, inbox: Path, **options: Any) -> AsyncIterator[Spy]:
    """The same, and its first scan has ended: what comes now comes by events."""
    early = f"sentinel-{next(sentinels)}"
    (inbox / early).touch()
    async with entered(module, inbox, **options) as spy:
        assert await spy.name(early) == early
        await spy.at_rest()
        yield spy
