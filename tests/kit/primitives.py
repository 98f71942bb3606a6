"""Faults of locks and wake-ups, and the view of who waits, without a look inside.

A component makes its locks from the `threading` that its module imported. Here that name is
bound to a stand-in, so that its locks can be broken (`unlocked`, `silent`, `wakes_one`) and its
waits be watched (`watched`), whatever the component calls them and wherever it keeps them.
"""

import _thread
import inspect
import sys
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from types import CodeType, ModuleType
from typing import Any

from tests.kit.fakes import PATIENCE
from tests.kit.twins import Fault, override, patch

_Local = _thread._local  # of the system's threads: explorers replace threading.local


class _Namespace:
    """A library with some names replaced; the rest is looked up at each use."""

    def __init__(self, library: ModuleType, names: dict[str, Any]) -> None:
        self._library, self._names = library, names

    def __getattr__(self, name: str) -> Any:
        return self._names[name] if name in self._names else getattr(self._library, name)

    def stands_for(self, library: ModuleType) -> bool:
        return self._library is library

    def with_names(self, names: dict[str, Any]) -> "_Namespace":
        return _Namespace(self._library, self._names | names)


def rebind(
    module: ModuleType, library: ModuleType = threading, /, **names: Any
) -> Callable[[], None]:
    """Give the module other primitives than the library's; returns what takes that back.

    The library is threading, or what the module imports besides: asyncio, time.
    """
    before = dict(vars(module))
    for name, value in before.items():
        if value is library:
            vars(module)[name] = _Namespace(library, names)
        elif isinstance(value, _Namespace) and value.stands_for(library):
            vars(module)[name] = value.with_names(names)
        for primitive, ours in names.items():
            if value is getattr(library, primitive):
                vars(module)[name] = ours

    def undo() -> None:
        vars(module).update(before)

    return undo


@contextmanager
def rebound(module: ModuleType, **names: Any) -> Iterator[None]:
    """The module has these in the place of threading's within the block."""
    undo = rebind(module, **names)
    try:
        yield
    finally:
        undo()


def primitive(module: ModuleType, name: str) -> Any:
    """What the module makes under this name of threading: the real thing, or a stand-in."""
    for value in vars(module).values():
        if isinstance(value, _Namespace) and value.stands_for(threading):
            return getattr(value, name)
    return vars(module).get(name, getattr(threading, name))


# Faults.


def _during(method: str | None, off: Any) -> Fault:
    """While the method runs, `off.on` is set in its thread; without a method it always is."""

    def make(original: Any) -> Any:
        if isinstance(original, property):
            assert original.fget is not None
            return property(make(original.fget))
        if inspect.iscoroutinefunction(original):

            async def steps(*arguments: Any, **options: Any) -> Any:
                return await _Steps(original(*arguments, **options), off)

            return steps

        def call(*arguments: Any, **options: Any) -> Any:
            before = getattr(off, "on", False)
            off.on = True
            try:
                return original(*arguments, **options)
            finally:
                off.on = before

        return call

    return Fault() if method is None else override(method, make)


class _Steps:
    """A coroutine in each step of which `off.on` is set; between its steps others run."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], off: Any) -> None:
        self._coroutine, self._off = coroutine, off

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[Any], Any] = self._coroutine.send
        given: Any = None
        while True:
            before, self._off.on = getattr(self._off, "on", False), True
            try:
                yielded = step(given)
            except StopIteration as end:
                return end.value
            finally:
                self._off.on = before
            try:
                step, given = self._coroutine.send, (yield yielded)
            except BaseException as error:
                step, given = self._coroutine.throw, error


class _Lock:
    """A lock that excludes nobody while `is_off()`."""

    def __init__(self, inner: Any, is_off: Callable[[], bool]) -> None:
        self.inner, self._is_off = inner, is_off
        self._skipped = _Local()

    def acquire(self, *arguments: Any, **options: Any) -> bool:
        if self._is_off():
            self._skipped.times = getattr(self._skipped, "times", 0) + 1
            return True
        return bool(self.inner.acquire(*arguments, **options))

    def release(self) -> None:
        if times := getattr(self._skipped, "times", 0):
            self._skipped.times = times - 1
        else:
            self.inner.release()

    def locked(self) -> bool:
        return bool(self.inner.locked())

    def __enter__(self) -> "_Lock":
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class _Condition(_Lock):
    """A condition over such a lock: its waits and notifies take the lock where nobody has."""

    @contextmanager
    def _held(self) -> Iterator[None]:
        if getattr(self._skipped, "times", 0) or self._is_off():
            with self.inner:
                yield
        else:
            yield

    def wait(self, timeout: float | None = None) -> bool:
        with self._held():
            return bool(self.inner.wait(timeout))

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        with self._held():
            return self.inner.wait_for(predicate, timeout)

    def notify(self, n: int = 1) -> None:
        with self._held():
            self.inner.notify(n)

    def notify_all(self) -> None:
        with self._held():
            self.inner.notify_all()


def unlocked(*methods: str) -> Fault:
    """No lock excludes while one of these public methods runs; without any, never.

    ("MemoryQueue.update", "MemoryQueue.stats"): properties are methods, too.
    """
    off = _Local()

    def is_off() -> bool:
        return not methods or getattr(off, "on", False)

    def condition(lock: Any = None) -> _Condition:
        inner = lock.inner if isinstance(lock, _Lock) else lock
        made = _Condition(threading.Condition(inner), is_off)
        if isinstance(lock, _Lock):
            made._skipped = lock._skipped  # one lock under two names
        return made

    def change(module: ModuleType) -> None:
        rebind(
            module,
            Lock=lambda: _Lock(threading.Lock(), is_off),
            RLock=lambda: _Lock(threading.RLock(), is_off),
            Condition=condition,
        )

    fault = patch(change)
    for method in methods:
        fault += _during(method, off)
    return fault


class Over:
    """Stands over a primitive, which does what is not done here."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __enter__(self) -> Any:
        return self.inner.__enter__()

    def __exit__(self, *error: Any) -> Any:
        return self.inner.__exit__(*error)


class _Notifies(Over):
    """A condition or event whose wake-ups go astray while `is_off()`."""

    def __init__(self, inner: Any, is_off: Callable[[], bool], most: int) -> None:
        super().__init__(inner)
        self._is_off, self._most = is_off, most

    def notify(self, n: int = 1) -> None:
        self.inner.notify(min(n, self._most) if self._is_off() else n)

    def notify_all(self) -> None:
        if self._is_off():
            self.inner.notify(self._most)
        else:
            self.inner.notify_all()

    def set(self) -> None:
        if self._most or not self._is_off():
            self.inner.set()


class _Plain:
    """A plain lock, perhaps a bell: the function that makes a bell locks it, too.

    Whoever waits for a bell acquires it once more, and to release it is to wake somebody up.
    """

    def __init__(self, inner: Any, maker: CodeType) -> None:
        self.inner = inner  # what it is as long as it is no bell: a lock
        self._maker: CodeType | None = maker
        self.is_bell = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __enter__(self) -> Any:
        return self.inner.__enter__()

    def __exit__(self, *error: Any) -> Any:
        return self.inner.__exit__(*error)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._maker is not None:
            self.is_bell, self._maker = sys._getframe(1).f_code is self._maker, None
            if self.is_bell:
                self.inner = threading.Lock()
        elif self.is_bell and blocking and self.inner.locked():
            self.waiting(None if timeout == -1 else timeout)
        return bool(self.inner.acquire(blocking, timeout))

    def release(self) -> None:
        if not self.is_bell or self.rings():
            self.inner.release()

    def waiting(self, timeout: float | None) -> None:
        """Somebody is about to wait for this bell."""

    def rings(self) -> bool:
        """The bell is being released: does that wake anybody?"""
        return True


def _astray(most: int, methods: tuple[str, ...]) -> Fault:
    off = _Local()

    def is_off() -> bool:
        return not methods or getattr(off, "on", False)

    class Plain(_Plain):
        def rings(self) -> bool:
            return bool(most) or not is_off()

    def lock() -> Plain:
        return Plain(threading.Lock(), sys._getframe(1).f_code)

    def condition(lock: Any = None) -> _Notifies:
        inner = lock.inner if isinstance(lock, _Plain) else lock
        return _Notifies(threading.Condition(inner), is_off, most)

    def change(module: ModuleType) -> None:
        rebind(
            module,
            Lock=lock,
            Condition=condition,
            Event=lambda: _Notifies(threading.Event(), is_off, most),
        )

    fault = patch(change)
    for method in methods:
        fault += _during(method, off)
    return fault


def silent(*methods: str) -> Fault:
    """While one of these methods runs, no condition is notified, no event set, no bell released.

    Without any, none ever is.
    """
    return _astray(0, methods)


def wakes_one(*methods: str) -> Fault:
    """Where all who wait should be woken, one is. (A bell never wakes more than one.)"""
    return _astray(1, methods)


# Who waits, and who holds a lock.


class Waits:
    """Tells of each wait on a condition, event or bell of a watched module, and of its locks."""

    def __init__(self) -> None:
        self.timeouts: list[float | None] = []
        self.notified = 0
        self.held = 0  # locks that somebody holds now
        self._begun = threading.Semaphore(0)
        self._holders: dict[int, int] = {}

    def mine(self) -> int:
        """Locks that the calling thread holds now."""
        return self._holders.get(threading.get_ident(), 0)

    def holds(self, step: int) -> None:
        """The calling thread holds one lock more, or one less."""
        me = threading.get_ident()
        self._holders[me] = self._holders.get(me, 0) + step
        self.held += step

    def begin(self, timeout: float | None) -> None:
        """A wait begins; of a condition's, its lock is still held."""
        self.timeouts.append(timeout)
        self._begun.release()

    def await_waiting(self, threads: int = 1, patience: float = PATIENCE) -> None:
        """Return once so many more waits have begun.

        Whoever then gets the condition's lock finds them asleep.
        """
        for _ in range(threads):
            assert self._begun.acquire(timeout=patience), "nobody waits"

    def forget(self) -> None:
        """Of the waits so far, none counts for `await_waiting`."""
        while self._begun.acquire(blocking=False):
            pass


class _Tracked:
    """A lock that counts in `waits.held` while it is held; a condition can be made of it."""

    def __init__(self, inner: Any, waits: Waits) -> None:
        self._inner, self._waits, self._depth = inner, waits, 0

    def acquire(self, *arguments: Any, **options: Any) -> bool:
        if not self._inner.acquire(*arguments, **options):
            return False
        self._count(+1)
        return True

    def release(self) -> None:
        self._count(-1)
        self._inner.release()

    def locked(self) -> bool:
        return self._depth > 0

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _count(self, step: int) -> None:  # with the lock held
        self._waits.holds((self._depth + step > 0) - (self._depth > 0))
        self._depth += step

    # What threading.Condition asks of its lock.

    def _is_owned(self) -> bool:
        if hasattr(self._inner, "_is_owned"):
            return bool(self._inner._is_owned())
        return self._depth > 0

    def _release_save(self) -> tuple[Any, int]:
        depth = self._depth
        self._count(-depth)
        if hasattr(self._inner, "_release_save"):
            return self._inner._release_save(), depth
        self._inner.release()
        return None, depth

    def _acquire_restore(self, saved: tuple[Any, int]) -> None:
        state, depth = saved
        if hasattr(self._inner, "_acquire_restore"):
            self._inner._acquire_restore(state)
        else:
            self._inner.acquire()
        self._count(depth)


@contextmanager
def watched(module: ModuleType) -> Iterator[Waits]:
    """Watch the waits and the locks of what this module makes within the block."""
    waits = Waits()

    class Plain(_Plain):
        def waiting(self, timeout: float | None) -> None:
            waits.begin(timeout)

        def rings(self) -> bool:
            waits.notified += 1
            return True

    def lock() -> Plain:
        return Plain(_Tracked(threading.Lock(), waits), sys._getframe(1).f_code)

    def rlock() -> _Tracked:
        return _Tracked(threading.RLock(), waits)

    class Condition(threading.Condition):
        def __init__(self, lock: Any = None) -> None:
            inner = lock.inner if isinstance(lock, _Plain) else lock
            super().__init__(rlock() if inner is None else inner)  # type: ignore[arg-type]

        def wait(self, timeout: float | None = None) -> bool:
            waits.begin(timeout)
            return super().wait(timeout)

        def notify(self, n: int = 1) -> None:
            waits.notified += 1
            super().notify(n)

    class Event(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if not self.is_set():
                waits.begin(timeout)
            return super().wait(timeout)

    undo = rebind(module, Lock=lock, RLock=rlock, Condition=Condition, Event=Event)
    try:
        yield waits
    finally:
        undo()
