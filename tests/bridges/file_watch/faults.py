"""The faults of DirectoryWatch's twins: of what it hears, sees, gives, and of how it rings.

They change what stands around the watch, or its public methods, and know nothing of its inside.
"""

import asyncio
import contextlib
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from tests.bridges.file_watch.spying import Event, Observers, Pass
from tests.kit.primitives import silent
from tests.kit.twins import Fault, override, patch

GIVE = "DirectoryWatch.__anext__"


class _Shadow:
    """A module, or an object, with some of its names replaced."""

    def __init__(self, original: Any, **names: Any) -> None:
        self.__dict__.update(names)
        self._original = original

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


def shadowed(name: str, **names: Any) -> Fault:
    """The component's module sees another `os`, or another `fcntl`."""

    def change(module: ModuleType) -> None:
        vars(module)[name] = _Shadow(vars(module)[name], **names)

    return patch(change)


# What it hears.


def hears(change: Callable[[Pass, Event], None]) -> Fault:
    """Each event comes to the watch through `change(tell, event)`."""

    def install(module: ModuleType) -> None:
        Observers(module, change)

    return patch(install)


def deaf_to(*kinds: type[Event]) -> Fault:
    """Events of these kinds do not reach the watch."""

    def change(tell: Pass, event: Event) -> None:
        if type(event) not in kinds:
            tell(event)

    return hears(change)


def wakes_nobody() -> Fault:
    """While it handles an event, no thread is woken."""
    return hears(lambda tell, event: tell(event)) + silent("Observer.hear")


# What it sees.


def sees_files(change: Callable[[os.stat_result], dict[str, int]]) -> Fault:
    """What it learns of a regular file differs by `change` from what is there."""

    def lstat(path: Any, **options: Any) -> Any:
        found = os.lstat(path, **options)
        if not stat.S_ISREG(found.st_mode):
            return found
        names = ("st_dev", "st_ino", "st_mtime_ns", "st_size", "st_mode", "st_uid")
        return SimpleNamespace(**{name: getattr(found, name) for name in names} | change(found))

    return shadowed("os", lstat=lstat)


class Listing:
    """What os.scandir gives, of entries that are known."""

    def __init__(self, entries: list[Any]) -> None:
        self._entries = entries

    def __enter__(self) -> list[Any]:
        return self._entries

    def __exit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass


def scans_by(listed: Callable[[int, list[Any]], list[Any]]) -> Fault:
    """The n-th time that it lists a directory it sees `listed(n, what is there)`, n from 0."""
    times: dict[str, int] = {}

    def scandir(path: Any) -> Any:
        name = os.path.realpath(path)
        with os.scandir(path) as entries:
            there = list(entries)
        times[name] = times.get(name, -1) + 1
        return Listing(listed(times[name], there))

    return shadowed("os", scandir=scandir)


def stale_listing() -> Fault:
    """What it sees in a directory is what was there when it first looked."""
    first: list[Any] = []

    def listed(time: int, there: list[Any]) -> list[Any]:
        if time == 0:
            first[:] = there
        return first

    return scans_by(listed)


# What it is made with.


def made_with(**options: Any) -> Fault:
    """Whatever its options, these are others."""

    def make(original: Any) -> Any:
        def init(self: Any, *arguments: Any, **given: Any) -> None:
            original(self, *arguments, **given | options)

        return init

    return override("DirectoryWatch.__init__", make)


def hurried(times: float) -> Fault:
    """Its clock runs so many times too fast."""

    def make(original: Any) -> Any:
        def init(self: Any, *arguments: Any, clock: Callable[[], float], **given: Any) -> None:
            original(self, *arguments, clock=lambda: times * clock(), **given)

        return init

    return override("DirectoryWatch.__init__", make)


# What it gives.


def kept(watch: Any, kind: type) -> Any:
    """What a fault remembers of this one watch."""
    return vars(watch).setdefault(f"twin_{kind.__name__}", kind())


def gives_twice() -> Fault:
    """Each file is given twice in a row."""

    def make(original: Any) -> Any:
        async def give(self: Any) -> Path:
            if again := kept(self, list):
                return Path(again.pop())
            again.append(await original(self))
            return Path(again[0])

        return give

    return override(GIVE, make)


def gives_once(look: Callable[[Path], object]) -> Fault:
    """A file is given only if its `look` differs from all that were given before."""

    def make(original: Any) -> Any:
        async def give(self: Any) -> Path:
            known = kept(self, set)
            while (seen := look(path := await original(self))) in known:
                pass
            known.add(seen)
            return path  # type: ignore[no-any-return]

        return give

    return override(GIVE, make)


def name_and_look(path: Path) -> object:
    """What tells a file from another one, were it not that it can go and come back."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return object()
    return path, found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def gives_hidden() -> Fault:
    """With each file, those beside it are given whose names begin with a dot."""

    def make(original: Any) -> Any:
        async def give(self: Any) -> Path:
            known = kept(self, set)
            if not (ready := kept(self, list)):
                path = await original(self)
                hidden = {each for each in path.parent.glob(".*") if each.is_file()} - known
                ready.extend([path, *sorted(hidden)])
                known.update(hidden)
            return Path(ready.pop())

        return give

    return override(GIVE, make)


# How it rings.


def rings(change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Fault:
    """The loop's `call_soon_threadsafe` is, for the watch, `change` of what it is."""
    loops: dict[Any, Any] = {}

    def running() -> Any:
        loop = asyncio.get_running_loop()
        if loop not in loops:
            post = change(loop.call_soon_threadsafe)
            loops[loop] = _Shadow(loop, call_soon_threadsafe=post)
        return loops[loop]

    return shadowed("asyncio", get_running_loop=running)


def rings_in_the_thread() -> Fault:
    """What is to be done on the loop is done at once, where that is asked for."""
    return rings(lambda _: lambda callback, *arguments: callback(*arguments))


def rings_for_each_event() -> Fault:
    """Besides, each event wakes the loop."""
    loops: list[Any] = []

    def entered(original: Any) -> Any:
        async def enter(self: Any) -> Any:
            loops.append(asyncio.get_running_loop())
            return await original(self)

        return enter

    def change(tell: Pass, event: Event) -> None:
        tell(event)
        loops[-1].call_soon_threadsafe(lambda: None)

    return override("DirectoryWatch.__aenter__", entered) + hears(change)


def ignores_a_closed_loop() -> Fault:
    """Nobody hears that the loop is closed."""

    def change(post: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            try:
                return post(*arguments)
            except RuntimeError:
                return None

        return call

    return rings(change)


# How it ends.


def leaves_without_waiting() -> Fault:
    """Leaving tells the threads to end, and does not wait for it."""

    def make(original: Any) -> Any:
        async def leave(self: Any, *error: object) -> None:
            vars(self)["twin_leaving"] = asyncio.ensure_future(original(self, *error))
            await asyncio.sleep(0)

        return leave

    return override("DirectoryWatch.__aexit__", make)


def leaves_and_blocks_the_loop() -> Fault:
    """Leaving tells the threads to end, and joins them on the loop (here for a moment only)."""

    def make(original: Any) -> Any:
        async def leave(self: Any, *error: object) -> None:
            leaving = original(self, *error)
            with contextlib.suppress(StopIteration):  # of one that has left already
                leaving.send(None)
            for thread in threading.enumerate():
                if thread.name == "directory-watch":
                    thread.join(0.5)
            leaving.close()

        return leave

    return override("DirectoryWatch.__aexit__", make)


def forgets_an_observer() -> Fault:
    """With each observer another one is started, and nobody ends it."""

    def change(module: Any) -> None:
        make = module.Observer

        def two(**options: Any) -> Any:
            make(**options).start()
            return make(**options)

        module.Observer = two

    return patch(change)
