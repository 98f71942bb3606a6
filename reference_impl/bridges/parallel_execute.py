# parallel_execute.py: one operation on many keys at once, a result for each (parallel_execute)
# https://executable-guarantees.example/bridges/parallel_execute.html
# Version 1.2.0 (2026-11-30); Python 3.11 to 3.14, with or without the GIL; standard library only
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: 2026 The Executable Guarantees authors
"""Run one blocking operation on many keys, in threads or in any executor.

Examples:
    >>> results = parallel_execute(["4", "x", "2"], int, max_workers=2)
    >>> [result.key for result in results if result.is_failure]
    ['x']
    >>> values, failures = partition(results)
    >>> values
    [4, 2]
    >>> failures[0].unwrap()
    Traceback (most recent call last):
    ...
    ValueError: invalid literal for int() with base 10: 'x'

    The same, each result as soon as it is there:

    >>> sorted(parallel_as_completed(["4", "2"], int, max_workers=2))
    [(0, Success(key='4', value=4)), (1, Success(key='2', value=2))]

Thread safety:
    Any thread may call the functions at any time: calls share nothing. The results are
    immutable; the keys, values and errors in them are those of the caller. The operation is
    called by several threads at once, and must protect its own state. One thread at a time
    may use the iterator of `parallel_as_completed`.

Fork: nothing outlives a call, so fork before or after. A child forked by an operation has
none of the call's threads, nor has one forked while an iterator is open. Interpreter exit:
threads that a call has left behind are daemons and die; an executor that was given is waited
for. Signal handlers and finalizers (`__del__`) may call, but they hold up what they interrupt;
what a handler raises in the caller's thread, at any point and again, ends the call and leaves
no thread that waits. From Python 3.12 no thread starts once the interpreter ends. Nothing here
relies on the GIL.
"""

import _thread
import concurrent.futures
import functools
import inspect
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import FrozenInstanceError, dataclass, field
from functools import partial
from typing import Any, ClassVar, Generic, Literal, NoReturn, TypeAlias, TypeVar, cast

from ._remote import Portable, RemoteError, arrived, opened, sealing

__all__ = [
    "DeadlineExceeded",
    "Failure",
    "RemoteError",
    "Result",
    "Success",
    "parallel_as_completed",
    "parallel_execute",
    "partition",
]

K = TypeVar("K")
T = TypeVar("T")

_NoneType = type(None)
_NOT_BEGUN: Any = object()
_ENDED = partial(CancelledError, "not started, since the call ended")


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Success(Generic[K, T]):
    """What came of a key whose operation returned; immutable.

    Attributes:
        key: the key.
        value: what the operation returned, None included.
    """

    key: K
    value: T
    is_success: ClassVar[Literal[True]] = True
    is_failure: ClassVar[Literal[False]] = False

    def unwrap(self) -> T:
        """Return the value."""
        return self.value


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Failure(Generic[K]):
    """What came of a key whose operation raised, or did not run to its end; immutable.

    Attributes:
        key: the key.
        error: the exception object that the operation raised. DeadlineExceeded: there was no
            result in time. `concurrent.futures.CancelledError`: the operation was not
            started, since another one had failed. RemoteError: what the operation raised in
            another process cannot be pickled, or not unpickled here.
    """

    key: K
    error: Exception
    is_success: ClassVar[Literal[False]] = False
    is_failure: ClassVar[Literal[True]] = True

    def unwrap(self) -> NoReturn:
        """Raise the error."""
        try:
            raise self.error
        finally:
            del self  # the error keeps this frame, which must not keep the error


def _refuse_change(_: object, name: str, *_value: object) -> NoReturn:
    raise FrozenInstanceError(f"cannot set or delete {name!r}: results are immutable")


# Up to Python 3.12 dataclasses' own refusal is a TypeError for what is no field, such as what
# `Success[int, str](1, "a")` leaves of its types; those may only be refused as an AttributeError.
for _class in (Success, Failure):
    setattr(_class, "__setattr__", _refuse_change)  # noqa: B010 - or mypy would object
    setattr(_class, "__delattr__", _refuse_change)  # noqa: B010

Result: TypeAlias = Success[K, T] | Failure[K]


class DeadlineExceeded(TimeoutError):
    """The call's `timeout` was over before the key had its result.

    An operation's own TimeoutError is of another type, so that `match` tells them apart.
    """


def partition(results: Iterable[Result[K, T]]) -> tuple[list[T], list[Failure[K]]]:
    """Return the values of the successes, and the failures, each in the order of `results`.

    Cost: linear.
    """
    known = list(results)
    values = [result.value for result in known if isinstance(result, Success)]
    return values, [result for result in known if isinstance(result, Failure)]


def parallel_execute(
    keys: Iterable[K],
    operation: Callable[[K], T],
    max_workers: int = 10,
    *,
    timeout: float | None = None,
    fail_fast: bool = False,
    on_progress: Callable[[int, int | None], None] | None = None,
    executor: Executor | None = None,
) -> list[Result[K, T]]:
    """Call `operation` with each key, several at once; return what came of each, in order.

    It blocks until the last key has its result: on an event loop's thread, hand it to
    `asyncio.to_thread`.

    Args:
        keys: drawn one by one in the caller's thread, no further ahead than 4 `max_workers`
            + 32 keys without a result. They may be a generator.
        operation: a blocking function of one key; several threads call it at once, each time
            in a copy of the caller's context variables. For an `executor` of processes it and
            this module must be importable there, and keys and values must be picklable.
        max_workers: the most operations that run at once, from 1. Above 100 there is a
            warning. If in doubt, what the other side bears.
        timeout: seconds for the whole call; None waits without limit. At the deadline the
            keys without a result fail with DeadlineExceeded. Operations that still run cannot
            be stopped: they go on in daemon threads, and what they return is dropped.
        fail_fast: after the first failure, start no other operation; its keys fail with
            CancelledError. Operations that run by then are waited for, and keep their result.
        on_progress: called as `on_progress(completed, total)` in the caller's thread, once
            for each operation that ended; `total` is `len(keys)`, which is asked for nothing
            else, or None if that fails.
        executor: runs the operations instead of threads of the call's own. It is not shut
            down. Do not give the one that the call itself runs in: it may wait for itself.

    Raises:
        TypeError: an argument is of the wrong type, or a coroutine or generator function.
        ValueError: `max_workers` is below 1, or `timeout` negative or not a number.
        RuntimeError: the system has no thread left.
        BaseException: what `keys` or `on_progress` raised; what an operation raised that is no
            Exception (KeyboardInterrupt, SystemExit); KeyboardInterrupt in the caller. No
            more keys are drawn or started then, and what runs is not waited for.

    Thread safety:
        Internally synchronized: calls are independent, in threads and in operations, too.

    Cost: at most `max_workers` threads, started as keys come; a few microseconds a key.
    """
    options = _Options(max_workers, timeout, fail_fast, on_progress, executor)
    call, drawn = _checked(keys, operation, options)
    results = call.books.results
    next(call.run(drawn), None)  # it yields nothing, and leaves all in `results`
    return cast("list[Result[K, T]]", results)


def parallel_as_completed(
    keys: Iterable[K],
    operation: Callable[[K], T],
    max_workers: int = 10,
    *,
    timeout: float | None = None,
    fail_fast: bool = False,
    on_progress: Callable[[int, int | None], None] | None = None,
    executor: Executor | None = None,
) -> Generator[tuple[int, Result[K, T]], None, None]:
    """Do as `parallel_execute`; yield `(index, result)` of each key as soon as it is there.

    Keys are drawn, `on_progress` is called and the deadline is looked at in the thread that
    asks for the next result, while it asks. Operations go on meanwhile, up to the same number
    of keys in flight: those whose result nobody has taken are among them.

    Closing the iterator, or dropping it, ends the call, as an exception ends that of
    `parallel_execute`: nothing more is drawn or started, and what runs is not waited for.

    Args:
        keys: as for `parallel_execute`; the first has index 0.
        operation: the same.
        max_workers: the same.
        timeout: the same, from this call on.
        fail_fast: the same.
        on_progress: the same. It hears of an operation's end before its result is yielded.
        executor: the same.

    Raises:
        TypeError: as `parallel_execute`, at this call; later exceptions, from the iterator.
        ValueError: the same.

    Thread safety:
        Not synchronized: one thread at a time may use the iterator.

    Cost: that of `parallel_execute`, and memory only for the keys in flight.
    """
    options = _Options(max_workers, timeout, fail_fast, on_progress, executor, in_order=False)
    call, drawn = _checked(keys, operation, options)
    return call.run(drawn)


def _checked(
    keys: Iterable[K], operation: Callable[[K], T], options: "_Options"
) -> "tuple[_Call[K, T], Iterator[K]]":
    """Check a call's arguments; return what makes the call, and its keys to draw."""
    workers, executor = _check_count("max_workers", options.max_workers), options.executor
    if options.timeout is not None:
        _check_seconds("timeout", options.timeout)
    _check_plain("operation", operation)
    if options.on_progress is not None:
        _check_plain("on_progress", options.on_progress)
        options.total = _length(keys)
    _check_type("executor", executor, "None or a concurrent.futures.Executor", _NoneType, Executor)
    try:
        drawn = iter(keys)
    except TypeError as error:
        message = f"keys must be iterable, not {keys!r}: pass a list or a generator"
        raise TypeError(message) from error
    if workers > 100:
        crowd = f"max_workers is {workers}: more than 100 operations at once mostly wait"
        warnings.warn(f"{crowd} for each other; try fewer, or asyncio", stacklevel=3)
    if executor is None:
        return _InThreads(operation, options), drawn
    # Only threads of this interpreter can be given a context, and the call itself.
    interpreters = getattr(concurrent.futures, "InterpreterPoolExecutor", ())
    here = isinstance(executor, ThreadPoolExecutor) and not isinstance(executor, interpreters)
    return (_InPool if here else _InExecutor)(operation, options, executor), drawn


def _length(keys: Iterable[object]) -> int | None:
    try:
        return len(cast("Sized", keys))
    except Exception:
        return None


@dataclass(slots=True)
class _Options:
    max_workers: int
    timeout: float | None
    fail_fast: bool
    on_progress: Callable[[int, int | None], None] | None
    executor: Executor | None
    in_order: bool = True  # all results in a list at the end; else each as soon as it is there
    total: int | None = None


@dataclass(slots=True)
class _Books(Generic[K, T]):
    """What a call keeps of other people's objects: all that it drops when it ends."""

    in_order: bool
    results: list[Result[K, T] | None] = field(default_factory=list)  # if in order
    unread: deque[tuple[int, Result[K, T]]] = field(default_factory=deque)  # else
    unfinished: dict[int, K] = field(default_factory=dict)  # by index
    ready: deque[int] = field(default_factory=deque)  # of unfinished, not yet handed on
    fatal: BaseException | None = None  # for the caller to raise

    def keep(self, index: int, result: Result[K, T]) -> None:
        if self.in_order:
            self.results[index] = result
        else:
            self.unread.append((index, result))


class _Call(ABC, Generic[K, T]):
    """One call: what its caller and the threads that run its operations share.

    A signal handler may raise in the caller's thread at each call of a function and in each
    wait, and again in what cleans up. So the caller waits for bells: locks that one call into
    C releases, and the call ends by assignments, which nothing can interrupt: see `run`.
    """

    def __init__(
        self, operation: Callable[[K], T], options: _Options, *, limit: int, resume: int
    ) -> None:
        self.operation = operation
        self.options = options
        self.limit = limit  # the caller draws no more at so many keys without a result,
        self.resume = resume  # and goes on at so many
        self.context = copy_context()  # never entered: each operation runs in a copy
        self.deadline: float | None = None
        if options.timeout is not None:
            self.deadline = time.monotonic() + min(options.timeout, threading.TIMEOUT_MAX)
        self.drawn = 0
        self.reported = 0  # calls of on_progress
        # Guards all below, and what subclasses add, except at the end: see `run`. While it is
        # free, each key drawn stands in books.unfinished or has its result, never both: who
        # takes it out of there settles it. No thread enters it twice.
        self.lock = threading.RLock()
        self.books = _Books[K, T](options.in_order)
        self.no_books = _Books[K, T](options.in_order)  # what `books` is from the end on
        self.urgent = options.on_progress is not None  # the caller attends to each outcome
        self.stuck = False  # an operation was given up
        self.completed = 0  # operations that ended
        self.wanted = -1  # the caller waits until no more than this are unfinished
        self.refusal: Callable[[], Exception] | None = None  # why nothing is begun any more
        # The bells, locked until they ring. Whoever waits for one looks at the books again.
        self.news = threading.Lock()  # wakes the caller: see settle_locked
        self.work = threading.Lock()  # wakes a thread: a key is ready, or none will be
        self.news.acquire()
        self.work.acquire()
        self.threads: list[threading.Thread] = []  # those of the call, started
        self.starter = threading.Lock()  # held while start_threads is at work

    def run(self, keys: Iterator[K]) -> Generator[tuple[int, Result[K, T]], None, None]:
        """Do all that the caller's thread does; yield each result, unless in order."""
        try:
            for key in keys:
                if self.draw(key):
                    yield from self.give(self.resume)
                elif self.books.unread:
                    self.attend()
                    yield self.books.unread.popleft()
                del key  # also closes a hole of CPython's: a loop that ends by `if`
            yield from self.give(0)
        finally:
            # The end: from here on nothing is begun, and what still runs, and keeps the call,
            # keeps neither results nor keys. A signal handler may raise as `release` returns,
            # not before; the thread that it wakes wakes the next.
            books, self.books = self.books, self.no_books
            self.refusal = _ENDED
            try:
                self.work.release()
            except RuntimeError:
                pass  # it has rung, and nobody has come yet
            finally:
                # Not under the lock; and `fatal` keeps this frame, which must not keep it.
                del books
                self.let_go()
        self.join()

    def draw(self, key: K) -> bool:
        """Take in a key; tell whether as many are in flight as may be."""
        with self.lock:
            books = self.books
            index = self.drawn
            self.drawn += 1
            if books.in_order:
                books.results.append(None)
            if self.refusal is None and self.seconds_left() == 0:
                self.give_up_locked()
            if self.refusal is None:
                books.unfinished[index] = key
                books.ready.append(index)
                self.begin_locked()
            else:
                books.keep(index, Failure(key, self.refusal()))
            full = len(books.unfinished) + len(books.unread) >= self.limit
            urgent = self.urgent
            del books  # an error that it keeps may keep this frame
        if urgent:
            self.attend()
        return full

    def give(self, most: int) -> Iterator[tuple[int, Result[K, T]]]:
        """Yield results, and wait for them, until no more than `most` keys are in flight."""
        while True:
            with self.lock:
                unread, unfinished = self.books.unread, len(self.books.unfinished)
                enough = unfinished + len(unread) <= most
            self.attend()  # also at the end: what ends the call may have come since the last draw
            if enough:
                return
            if unread:
                yield unread.popleft()
            else:
                self.wait(most if self.options.in_order else unfinished - 1)

    def wait(self, wanted: int) -> None:
        """Return when no more than `wanted` keys are unfinished; attend to news meanwhile."""
        unfinished = wanted + 1
        while unfinished > wanted:
            with self.lock:
                seconds = self.seconds_left()
                if seconds == 0:
                    self.give_up_locked()
                unfinished = len(self.books.unfinished)
                self.wanted = wanted
                idle = not self.has_news_locked()
                if not idle:
                    self.wanted = -1
            if idle:
                self.news.acquire(True, -1 if seconds is None else seconds)
            self.attend()

    def seconds_left(self) -> float | None:
        if self.deadline is None:
            return None
        return min(max(0.0, self.deadline - time.monotonic()), threading.TIMEOUT_MAX)

    def has_news_locked(self) -> bool:
        """Whether the caller has something to attend to, or what it waits for."""
        return (
            len(self.books.unfinished) <= self.wanted
            or self.books.fatal is not None
            or (self.options.on_progress is not None and self.completed > self.reported)
        )

    def attend(self) -> None:
        """Raise what ends the call, and tell of progress; without the lock."""
        with self.lock:
            if self.books.fatal is not None:
                raise self.books.fatal
            completed = self.completed
        if self.options.on_progress is not None:
            while self.reported < completed:
                self.reported += 1
                self.options.on_progress(self.reported, self.options.total)

    def settle_locked(
        self, index: int, outcome: Result[K, T] | BaseException, *, begun: bool = True
    ) -> None:
        """Keep what came of an operation, unless the call has given it up, or has ended."""
        books = self.books
        if index not in books.unfinished:
            return
        del books.unfinished[index]
        self.completed += begun
        if isinstance(outcome, BaseException):
            self.fail_locked(outcome)
        else:
            books.keep(index, outcome)
            if outcome.is_failure and self.options.fail_fast:
                self.refuse_locked(CancelledError, "not started, since another key failed")
        if self.urgent or len(books.unfinished) <= self.wanted:
            _ring(self.news)

    def fail_locked(self, error: BaseException) -> None:
        """Have the caller end the call, and raise the first such error."""
        if self.books.fatal is None:
            self.books.fatal = error
        self.urgent = True
        self.refuse_locked(CancelledError, "not started, since the call failed")

    def refuse_locked(self, error: type[Exception], why: str) -> None:
        """Begin no more operations: the keys that wait, and those to come, fail with `error`."""
        books = self.books
        if self.refusal is None:
            self.refusal = partial(error, why)
        for index in books.ready:
            books.keep(index, Failure(books.unfinished.pop(index), self.refusal()))
        books.ready.clear()

    def give_up_locked(self) -> None:
        """At the deadline: settle all that is unfinished."""
        timeout = self.options.timeout
        self.refuse_locked(DeadlineExceeded, f"not started within {timeout} s")
        books = self.books
        for index, key in books.unfinished.items():
            late = DeadlineExceeded(f"not finished within {timeout} s")
            books.keep(index, Failure(key, late))
            self.stuck = True
        books.unfinished.clear()

    @abstractmethod
    def begin_locked(self) -> None:
        """Have the key begun that was made ready last."""

    def let_go(self) -> None:
        """See to it that nothing is begun any more, whatever the way out."""

    def want_thread_locked(self) -> None:
        """Have `start_threads` run, in a thread of the system's: one call into C starts that.

        An exception that a signal handler raises within `Thread.start` would leave a lock of
        the new thread taken, and that waiting for it forever.
        """
        if self.starter.acquire(False):
            _thread.start_new_thread(self.start_threads, ())

    def start_threads(self) -> None:
        """Start the threads that are lacking."""
        with self.lock:  # except while one starts: it may have done all by then
            while (thread := self.next_thread_locked()) is not None:
                self.lock.release()
                try:
                    thread.start()
                except Exception as error:  # the system has none left
                    self.lock.acquire()
                    self.fail_locked(error)
                    _ring(self.news)
                    break
                self.lock.acquire()
                self.threads.append(thread)
            self.starter.release()

    def next_thread_locked(self) -> threading.Thread | None:
        """The next thread to start, if one is lacking."""
        return None

    def join(self) -> None:
        """Wait for the call's threads, when all keys have their results."""
        self.starter.acquire()  # then all are started that will be
        for thread in () if self.stuck else self.threads:
            thread.join()


class _InThreads(_Call[K, T]):
    """A call whose operations run in threads of its own."""

    def __init__(self, operation: Callable[[K], T], options: _Options) -> None:
        limit = 4 * options.max_workers + 32
        # Resumed at half, the caller comes before the threads run out of keys.
        super().__init__(operation, options, limit=limit, resume=limit // 2)
        self.coming = 0  # threads that were started and have not come to our lock
        # While the lock is free: if a key is ready and a thread sleeps, one is waking, and will
        # wake the next. To wake all at once takes longer than short operations do.
        self.sleeping = 0  # threads that wait and were not woken
        self.waking = False  # one was woken and has not come yet

    def begin_locked(self) -> None:
        if self.sleeping and not self.waking:
            self.wake_locked()
        if self.lacks_threads_locked():
            self.want_thread_locked()

    def lacks_threads_locked(self) -> bool:
        """Whether more keys are ready than there are threads on their way to them."""
        if len(self.threads) >= self.options.max_workers:
            return False
        return len(self.books.ready) > self.sleeping + self.waking + self.coming

    def next_thread_locked(self) -> threading.Thread | None:
        if not self.lacks_threads_locked():
            return None
        self.coming += 1
        name = f"parallel_execute-{len(self.threads) + 1}"
        return threading.Thread(target=self.work_off, name=name, daemon=True)

    def wake_locked(self) -> None:
        self.sleeping -= 1
        self.waking = True
        _ring(self.work)

    def work_off(self) -> None:
        """Run operations while there are keys, in one of the call's threads."""
        outcome: Result[K, T] | BaseException | None = None
        with self.lock:  # except during the operation
            self.coming -= 1
            while (taken := self.take_locked()) is not None:
                index, key = taken
                self.lock.release()
                outcome = taken = None  # the operation may take long, and keep this frame
                try:
                    outcome = Success(key, self.context.copy().run(self.operation, key))
                except Exception as error:
                    outcome = Failure(key, error)
                except BaseException as error:
                    outcome = error
                self.lock.acquire()
                self.settle_locked(index, outcome)
        _ring(self.work)  # who leaves wakes the next
        del outcome  # an error keeps this frame, which must not keep the error

    def take_locked(self) -> tuple[int, K] | None:
        """Sleep until a key is ready, and take it; None if there will be none."""
        while True:
            books = self.books
            if books.ready:
                index = books.ready.popleft()
                if self.sleeping and books.ready and not self.waking:
                    self.wake_locked()
                return index, books.unfinished[index]
            if self.refusal is not None:
                return None
            self.sleeping += 1
            self.lock.release()
            self.work.acquire()
            self.lock.acquire()
            self.waking = False

    def refuse_locked(self, error: type[Exception], why: str) -> None:
        super().refuse_locked(error, why)
        _ring(self.work)


class _InExecutor(_Call[K, T]):
    """A call whose operations run in an executor of the caller's."""

    def __init__(self, operation: Callable[[K], T], options: _Options, executor: Executor) -> None:
        # It may run all that it is given, so it is given no more than may run.
        limit = options.max_workers
        super().__init__(operation, options, limit=limit, resume=limit - 1)
        self.urgent = True
        self.executor = executor
        self.futures: dict[int, Future[T]] = {}  # not done, by index
        self.doomed: list[Future[T]] = []  # for the caller to cancel
        self.seal = sealing(executor)
        self.function: Callable[[Any], T] = Portable(self.seal(operation))

    def begin_locked(self) -> None:
        """Leave it to `attend`: an executor is foreign code."""

    def has_news_locked(self) -> bool:
        return bool(self.books.ready or self.doomed) or super().has_news_locked()

    def attend(self) -> None:
        self.hand_on()
        super().attend()

    def hand_on(self) -> None:
        with self.lock:
            books = self.books
            jobs = [(index, books.unfinished[index]) for index in books.ready]
            books.ready.clear()
            del books  # an error that it keeps may keep this frame
        for index, key in jobs:
            self.submit(index, key)
        self.cancel()

    def submit(self, index: int, key: K) -> None:
        try:
            future = self.executor.submit(self.function, self.seal(key))
        except Exception as error:  # the pool is broken, or was shut down
            with self.lock:
                self.settle_locked(index, Failure(key, error))
            return
        with self.lock:
            if self.refusal is None:
                self.futures[index] = future
            else:
                self.doomed.append(future)
        future.add_done_callback(partial(self.landed, index, key))

    def landed(self, index: int, key: K, future: Future[T]) -> None:
        """Settle a key whose future is done, in whichever thread that came to pass."""
        begun = True
        outcome: Result[K, T] | BaseException
        try:
            if future.cancelled():
                outcome, begun = Failure(key, CancelledError("cancelled by its executor")), False
            elif (error := arrived(future.exception())) is None:
                outcome = Success(key, opened(future.result()))
                begun = outcome.value is not _NOT_BEGUN
            else:
                outcome = Failure(key, error) if isinstance(error, Exception) else error
        except Exception as unreadable:
            outcome = Failure(key, unreadable)
        except BaseException as leaving:  # of what was unpickled; it would end a pool's thread
            outcome = leaving
        with self.lock:
            self.futures.pop(index, None)
            if not begun and self.refusal is not None:
                outcome = Failure(key, self.refusal())
            self.settle_locked(index, outcome, begun=begun)
        del outcome  # an error keeps this frame, which must not keep the error

    def refuse_locked(self, error: type[Exception], why: str) -> None:
        super().refuse_locked(error, why)
        self.doomed += self.futures.values()
        self.futures.clear()

    def cancel(self) -> None:
        """Cancel what need not run; a future that runs refuses.

        In the caller's thread, as some executors hang in their own.
        """
        with self.lock:
            doomed, self.doomed = self.doomed, []
        for future in doomed:
            future.cancel()

    def let_go(self) -> None:
        with self.lock:
            self.doomed += self.futures.values()
            self.futures.clear()
        self.cancel()


class _InPool(_InExecutor[K, T]):
    """A call whose operations run in a ThreadPoolExecutor; a thread of its own hands them on.

    The pool's `submit` and its futures take locks by Python code. An exception of a signal
    handler would leave one of them taken, and threads of the pool waiting for it forever.
    """

    def __init__(self, operation: Callable[[K], T], options: _Options, executor: Executor) -> None:
        super().__init__(operation, options, executor)
        self.function = self.run_in_thread
        self.daemon = threading.current_thread().daemon  # what the pool's threads inherit
        self.fed = False

    def run_in_thread(self, key: K) -> T:
        """What the pool is given: the operation in the caller's context."""
        with self.lock:
            refused = self.refusal is not None
        return _NOT_BEGUN if refused else self.context.copy().run(self.operation, key)

    def begin_locked(self) -> None:
        if not self.fed:
            self.want_thread_locked()
        _ring(self.work)

    def next_thread_locked(self) -> threading.Thread | None:
        if self.fed:
            return None
        self.fed = True
        name = "parallel_execute-submit"
        return threading.Thread(target=self.feed, name=name, daemon=self.daemon)

    def feed(self) -> None:
        """Hand on what is ready, and cancel what is doomed, until the call ends."""
        try:
            while self.books is not self.no_books:
                self.work.acquire()
                self.hand_on()
            super().let_go()
        except BaseException as error:  # the pool's `submit` raised it
            with self.lock:
                self.fail_locked(error)
                _ring(self.news)

    def refuse_locked(self, error: type[Exception], why: str) -> None:
        super().refuse_locked(error, why)
        _ring(self.work)

    def has_news_locked(self) -> bool:
        return _Call.has_news_locked(self)

    def attend(self) -> None:
        _Call.attend(self)

    def let_go(self) -> None:
        """Leave it to the thread that hands on."""


def _ring(bell: threading.Lock) -> None:
    """Let a thread pass that waits for the bell, or the next one that will."""
    try:  # not `suppress`: that is Python code, which a signal handler may interrupt
        if bell.locked():  # else it has rung, and nobody has come yet
            bell.release()
    except RuntimeError:
        pass  # another thread was quicker


def _check_type(name: str, value: object, wanted: str, *kinds: type) -> None:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise TypeError(f"{name} must be {wanted}, not {value!r}")


def _check_count(name: str, value: int) -> int:
    _check_type(name, value, "an int", int)
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value!r}")
    return value


def _check_seconds(name: str, value: float, *, zero: bool = True) -> float:
    _check_type(name, value, "a number of seconds", int, float)
    if not (value > 0 or (zero and value == 0)):  # so put, it refuses NaN, too
        least = "at least" if zero else "above"
        raise ValueError(f"{name} must be {least} 0 seconds, not {value!r}")
    return float(min(value, 1e300))  # also for an int that fits no float


def _check_plain(name: str, function: object) -> None:
    """Refuse what only makes a coroutine or a generator when called."""
    inner = _unwrapped(function)
    if not callable(function) or _is_generator(inner) or inspect.iscoroutinefunction(inner):
        raise TypeError(
            f"{name} must be a plain function, not {function!r}: define it with `def`, "
            "and await elsewhere"
        )


def _unwrapped(function: object) -> object:
    """What a call runs, behind partials, bound methods and an object's `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    known = inspect.isroutine(function) or inspect.isclass(function)
    if known or inspect.iscoroutinefunction(function):  # the last are marked objects, mocks too
        return function
    return getattr(function, "__call__", function)  # noqa: B004  (of an object that can be called)


def _is_generator(function: object) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
