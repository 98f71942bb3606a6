# run_sync.py: call a coroutine from plain code, also where an event loop is running (run_sync)
# https://executable-guarantees.example/bridges/run_sync.html
# Version 1.2.0 (2026-11-30); Python 3.11 to 3.14, with or without the GIL; standard library only
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: 2026 The Executable Guarantees authors
"""Run a coroutine to its end from plain code and return its result, at any depth.

Without a running loop the coroutine runs in the calling thread, and with one in a helper thread
while the caller waits; in both cases on a loop of its own. Loops and helper threads are used
again, 8 of each at most, but a loop only while nothing and nobody remembers it.

Contexts:
    *Fork*: idle loops and threads are closed before it, and the child makes its own. A child
    that is forked *inside* a coroutine should leave by `os._exit`: it shares that loop's
    descriptors with its parent. *Interpreter exit*: an `atexit` hook closes what is idle; later
    calls work while threads can be started. *Signal handlers* may raise (Ctrl-C) at any moment,
    but must not call `run_sync`; neither must *`__del__`* of objects that the cyclic collector
    finds.
    *Free-threaded build*: the same promises; nothing rests on the GIL.
"""

import asyncio
import atexit
import contextlib
import inspect
import operator
import os
import queue
import signal
import sys
import threading
import traceback
import weakref
from _thread import start_new_thread
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["run_sync"]

T = TypeVar("T")
Closable = TypeVar("Closable", bound="_Closable")

_KEPT = 8  # idle loops, and as many idle threads
_BLOCKED_AFTER = 5.0  # seconds beyond the timeout
_LAST_TURNS = 20  # of a loop that an interrupt has hit in its own code

# What a coroutine may set on its loop. A loop without one of these attributes is never kept.
_settings = operator.attrgetter(
    "_asyncgens_shutdown_called",
    "_debug",
    "_default_executor",
    "_exception_handler",
    "_executor_shutdown_called",
    "_task_factory",
    "slow_callback_duration",
)


# The function in C behind Python's: no handler runs before it has taken effect.
_set_signal = getattr(signal.signal, "__wrapped__", signal.signal)


def run_sync(coro: Coroutine[Any, Any, T], *, timeout: float | None = None) -> T:
    """Run `coro` to its end, wait for it, and return its result.

    Args:
        coro: a coroutine that has not begun. It sees a copy of the caller's context. With a
            loop running in this thread, it runs in another thread, and that loop stands still
            meanwhile: what needs that loop (its locks, tasks, connections) must be awaited
            there, not here.
        timeout: seconds until the coroutine is cancelled; None or `math.inf` is for no limit.
            It runs up to its first wait in any case, and what it hands to `asyncio.to_thread`
            is waited for. If in doubt, twice what the slowest good call takes.

    Returns:
        What the coroutine returns; also after a cancellation that it swallows.

    Raises:
        TypeError: `coro` is not a coroutine, or `timeout` not a number.
        ValueError: `timeout` is negative or NaN.
        TimeoutError: the time is over; the coroutine was cancelled and has cleaned up. Or, with
            a loop running here, the coroutine has blocked its thread at one place for 5 seconds
            more, which the message names: it is cancelled as soon as its thread is free.
        RuntimeError: the system starts no more threads.
        OSError: the system has no descriptors left for a loop.
        BaseException: whatever the coroutine raises, the object itself.

    A refused coroutine is closed. KeyboardInterrupt, or another exception that a signal handler
    raises while this waits, cancels the coroutine, waits for its clean-up, and goes on; each
    further one cancels once more. Tasks that the coroutine leaves are cancelled and awaited,
    async generators closed, as by `asyncio.run`.

    Cost: a turn of a loop; within a running loop two switches of threads besides. A new loop
    where no idle one is kept, and after a call that raised or left something behind.

    Thread safety:
        Internally synchronized: any thread may call it at any time. Depth and number of calls
        are bounded by the system's threads and descriptors only.

    Examples:
        >>> import asyncio
        >>> async def double(number: int) -> int:
        ...     await asyncio.sleep(0)
        ...     return 2 * number
        >>> run_sync(double(21))
        42
        >>> async def main() -> int:
        ...     return run_sync(double(21), timeout=60.0)  # a loop is running here
        >>> asyncio.run(main())
        42
    """
    try:
        _check_coroutine(coro)
        limit = _check_timeout(timeout)
        if _loop_is_running():
            return _run_elsewhere(_Job(coro, limit))
        return _run(lambda: _bounded(coro, limit), copy_context())
    except BaseException:
        # It has not begun if it was refused, or no loop or thread was to be had.
        native: Any = coro
        try:  # not by a call in Python, which could be interrupted once more
            if native.cr_frame is not None and not (native.cr_running or native.cr_suspended):
                native.close()
        except AttributeError:
            pass
        raise


def _check_coroutine(coro: object) -> None:
    if isinstance(coro, Coroutine):
        return
    if inspect.iscoroutinefunction(coro):
        name = getattr(coro, "__name__", "function")
        raise TypeError(f"coro must be a coroutine, not the function {coro!r}: call {name}(...)")
    if inspect.isawaitable(coro):
        raise TypeError(f"coro must be a coroutine, not {coro!r}: await it in the loop it is of")
    raise TypeError(f"coro must be a coroutine, what an `async def` returns, not {coro!r}")


def _check_timeout(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    seconds = _check_seconds("timeout", timeout)
    return None if seconds >= threading.TIMEOUT_MAX else seconds


def _check_type(name: str, value: object, wanted: str, *kinds: type) -> None:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise TypeError(f"{name} must be {wanted}, not {value!r}")


def _check_seconds(name: str, value: float, *, zero: bool = True) -> float:
    _check_type(name, value, "a number of seconds", int, float)
    if not (value > 0 or (zero and value == 0)):  # so put, it refuses NaN, too
        least = "at least" if zero else "above"
        raise ValueError(f"{name} must be {least} 0 seconds, not {value!r}")
    return float(min(value, 1e300))  # also for an int that fits no float


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _bounded(coro: Coroutine[Any, Any, T], limit: float | None) -> Coroutine[Any, Any, T]:
    return coro if limit is None else _within(coro, limit)


async def _within(coro: Coroutine[Any, Any, T], limit: float) -> T:
    scope = asyncio.timeout(limit)
    try:
        async with scope:
            return await coro
    except TimeoutError as error:
        if scope.expired() and isinstance(error.__cause__, asyncio.CancelledError):
            error.args = (f"cancelled after {limit:g} s",)  # it comes without a word
        raise
    except BaseException:
        with contextlib.suppress(RuntimeError):  # an interrupt of this frame has not reached it
            coro.close()
        raise


def _undisturbed(work: Callable[[], object]) -> None:
    """Do it where no signal handler runs: to its end, also if an interrupt ends the wait for it."""
    if not _is_main_thread():
        work()
        return
    errors: list[BaseException] = []
    ended = threading.Lock()
    ended.acquire()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)
        finally:
            ended.release()

    try:
        start_new_thread(run, ())
    except RuntimeError:  # no thread is to be had
        run()
    ended.acquire()
    if errors:
        raise errors.pop()


class _Closable(Protocol):
    def close(self) -> None: ...


class _Shelf(Generic[Closable]):
    """Idle things, 8 at most; the last one put is the first one taken.

    A thread has one thing at a time, which is noted: where an interrupt has cut off a call, the
    next one of that thread closes what the first had.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the three below; nothing is closed under it
        self._things: list[Closable] = []
        self._closed = 0  # how many have closed it: forks under way, and the exit
        self._taken: dict[int, Closable] = {}  # by thread; only that thread takes it out again

    def get(self, make: Callable[[], Closable]) -> Closable:
        """Take one, or make one."""
        me = threading.get_ident()
        if me in self._taken:
            self.discard()
        while (thing := self.take()) is None:
            if not _is_main_thread():
                thing = self._taken[me] = make()
                return thing
            _undisturbed(lambda: self._add(make()))
        return thing

    def take(self) -> Closable | None:
        me = threading.get_ident()
        with self._lock:
            if not self._things:
                return None
            # No handler runs between these two, since neither is a call.
            thing = self._taken[me] = self._things[-1]
            del self._things[-1]
            return thing

    def _add(self, thing: Closable) -> None:
        with self._lock:
            self._things += [thing]

    def put(self, thing: Closable) -> bool:
        """Keep it for another call; False if the caller has to discard it."""
        me = threading.get_ident()
        with self._lock:
            if self._closed or len(self._things) >= _KEPT:
                return False
            self._things += [thing]
            if me in self._taken:
                del self._taken[me]
        return True

    def has_given(self, thing: Closable) -> bool:
        return self._taken.get(threading.get_ident()) is thing

    def discard(self) -> None:
        """Close what this thread has."""
        me = threading.get_ident()
        self._taken[me].close()
        del self._taken[me]

    def close(self) -> list[Closable]:
        """Return what stood here, and keep nothing until as many `reopen`s."""
        with self._lock:
            self._closed += 1
            things, self._things = self._things, []
            return things

    def reopen(self) -> None:
        with self._lock:
            self._closed -= 1


class _Loop:
    """A loop with its runner, and the traces of use that it had when it was new: none."""

    def __init__(self) -> None:
        # With a loop factory, since a Runner without one sets the thread's current loop.
        self.runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.loop = self.runner.get_loop()
        self._pid = os.getpid()
        self._closing = threading.Lock()
        self._attributes: dict[str, Any] = getattr(self.loop, "__dict__", {})
        with contextlib.suppress(AttributeError):
            self._attributes["call_exception_handler"] = _reporting(self.loop)
        self._when_new = self._traces()

    def _traces(self) -> object:
        # Tasks, futures, timers, callbacks, readers, transports and async generators all hold
        # their loop, however they were made; so do a thread that may still post to it, and locks
        # that were bound to it. Libraries that keep something for a loop refer to it weakly.
        try:
            held = sys.getrefcount(self.loop), weakref.getweakrefcount(self.loop)
            return held, len(self.loop.__dict__), _settings(self.loop)
        except AttributeError:
            return object()  # equal to nothing

    def is_as_new(self) -> bool:
        return self._traces() == self._when_new

    def run(self, coro: Coroutine[Any, Any, T], context: Context) -> T:
        return self._guarded(lambda: self.runner.run(coro, context=context))

    def wind_down(self, error: BaseException | None = None) -> None:
        """Cancel and await what is left on it, as `asyncio.run` does.

        Not where the error that ended the run may have lost a step of a task: a wait for that
        would never end.
        """
        try:
            if error is None or _can_go_on(error):
                self._guarded(self._close_runner)
                return
        except BaseException:
            self._guarded(self._give_up)
            raise
        self._guarded(self._give_up)

    def _close_runner(self) -> None:
        self._attributes["close"] = lambda: None  # the loop is closed later, undisturbed
        self.runner.close()

    def _give_up(self) -> None:
        """Cancel what is left, give it some turns, and close what has not ended."""

        def tasks() -> "set[asyncio.Task[Any]]":
            return asyncio.all_tasks(self.loop)

        for task in tasks():
            task.cancel()
        for _ in range(_LAST_TURNS):
            if not tasks():
                break
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        for task in tasks():
            coro: Any = task.get_coro()
            with contextlib.suppress(RuntimeError):  # its clean-up waits for something
                coro.close()
        self._attributes["call_exception_handler"] = lambda _: None  # of what was lost

    def _guarded(self, work: Callable[[], T]) -> T:
        """Have it run the loop; whatever cuts that off, this thread is as it was before."""
        hooks = sys.get_asyncgen_hooks()
        ours = _is_main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        try:
            return work()
        except BaseException:
            # What asyncio does itself, as long as it is not interrupted. A call into C each, and
            # first of all, so that a further interrupt comes when it has taken effect.
            if "_thread_id" in self._attributes:
                self._attributes["_thread_id"] = None
            try:
                asyncio._set_running_loop(None)  # noqa: SLF001
            finally:
                try:
                    sys.set_asyncgen_hooks(*hooks)
                finally:
                    if ours:
                        left = _set_signal(signal.SIGINT, signal.default_int_handler)
                        runners = getattr(self.runner, "_on_sigint", left)
                        if left is not None and getattr(left, "func", None) != runners:
                            _set_signal(signal.SIGINT, left)
            raise

    def close(self) -> None:
        if os.getpid() == self._pid:
            _undisturbed(self.close_here)
        else:  # closing it here would unregister the parent's descriptors from their shared epoll
            _abandoned.append(self)

    def close_here(self) -> None:
        with self._closing:
            self._attributes.pop("close", None)
            self.loop.close()


def _is_main_thread() -> bool:
    return threading.get_ident() == threading.main_thread().ident


def _reporting(loop: asyncio.AbstractEventLoop) -> Callable[[dict[str, Any]], None]:
    """Raise what a signal handler has raised in a callback, instead of logging it as asyncio."""
    report = loop.call_exception_handler

    def report_or_raise(context: dict[str, Any]) -> None:
        error = context.get("exception")
        theirs = (Exception, asyncio.CancelledError, GeneratorExit)
        in_callback = "handle" in context
        if in_callback and isinstance(error, BaseException) and not isinstance(error, theirs):
            raise error
        report(context)

    return report_or_raise


def _can_go_on(error: BaseException) -> bool:
    """Whether it was raised where no step of a task can have been lost.

    That is in a coroutine, in the loop's sleep, and where its turns are over or have not begun.
    """
    last = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        code, module = frame.f_code, frame.f_globals.get("__name__", "")
        if code.co_flags & inspect.CO_COROUTINE:
            return True
        if module == "selectors" and code.co_name == "select":
            return True
        if module.startswith("asyncio."):
            last = code.co_qualname
    return last in {None, "Runner.run", "BaseEventLoop.run_until_complete"}


def _run(start: Callable[[], Coroutine[Any, Any, T]], context: Context) -> T:
    """Run what `start` makes on a loop of its own, in this thread, which runs none."""
    loops = _loops  # in a child forked by the coroutine, the shelf that keeps nothing
    # A new one is made in an empty context, as it keeps that of its making.
    loop = loops.get(lambda: Context().run(_Loop))
    coro: Any = start()
    is_new = getattr(coro, "cr_suspended", True) is False  # another task may have begun it
    try:
        result: T = loop.run(coro, context)
        if loop.is_as_new() and loops.put(loop):
            return result
        loop.wind_down()
    except BaseException as error:
        try:
            if loops.has_given(loop):  # otherwise it is another call's by now
                try:
                    loop.wind_down(error)
                finally:
                    loops.discard()  # the frames of the traceback hold it
        finally:
            try:  # what never began, or was given up
                if is_new and not coro.cr_running:
                    coro.close()
            except RuntimeError:  # its clean-up waits for something
                pass
        raise
    loops.discard()
    return result


class _Job(Generic[T]):
    """A call on its way through a helper thread."""

    def __init__(self, coro: Coroutine[Any, Any, T], limit: float | None) -> None:
        self._coro = coro
        self.limit = limit
        self._context = copy_context()
        # Guards the next three. _cancel is there exactly while the coroutine runs, so that
        # nothing is posted to its loop once that serves another call.
        self._lock = threading.Lock()
        self._cancel: Callable[[], object] | None = None
        self._begun = False
        self._given_up = False
        self._value: T
        self._error: BaseException | None = None
        self.over = False  # set by the helper, last of all

    def run(self) -> None:
        """In the helper: all of the call."""
        try:
            if _loop_is_running():  # so this is a greenlet of the caller's thread
                raise RuntimeError(  # noqa: TRY301
                    "run_sync needs a thread of its own, and threading is patched, as by gevent: "
                    "await, or call it where no loop runs"
                )
            self._value = _run(self._watched, self._context)
        except BaseException as error:
            self._error = error
        self.over = True

    async def _watched(self) -> T:
        task = asyncio.current_task()
        assert task is not None
        loop, cancel = task.get_loop(), task.cancel
        self._begin(lambda: loop.call_soon_threadsafe(cancel))
        try:
            return await _bounded(self._coro, self.limit)
        finally:
            self._end()

    def _begin(self, cancel: Callable[[], object]) -> None:
        with self._lock:
            if self._given_up:
                raise asyncio.CancelledError
            self._begun = True
            self._cancel = cancel

    def _end(self) -> None:
        with self._lock:
            self._cancel = None

    def interrupt(self) -> bool:
        """Cancel the coroutine, or never begin it; return whether its end is still to come."""
        with self._lock:
            self._given_up = True
            if self._cancel is not None:
                self._cancel()
            return self._begun and not self.over

    def result(self) -> T:
        """Return or raise what the coroutine did."""
        if self._error is not None:
            raise self._error
        return self._value


class _Helper:
    """A thread that runs jobs, one at a time, for the one caller that has it."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._replies: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._job: _Job[Any] | None = None  # whose caller has it
        self._is_blocked = False  # then it ends by itself, once its job has ended
        try:
            # A daemon: an idle one must not hold up the exit; a busy one has a caller who waits.
            self._thread = threading.Thread(target=self._work, name="run_sync", daemon=True)
            Context().run(self._thread.start)  # not the caller's: it would live as long as this
        except RuntimeError as error:
            self._inbox.put(None)
            if isinstance(error, RecursionError):
                raise
            raise RuntimeError(
                f"run_sync needs another thread: {error}; nest fewer calls, or await"
            ) from error

    def do(self, job: _Job[Any]) -> None:
        """Have the job done; however this is interrupted, it does not run on unseen."""
        self._job = job
        try:
            self._inbox.put(job)
            self._wait_for(job)
        except BaseException:
            waiting = True
            while waiting and not self._is_blocked:
                try:  # a further one cancels the clean-up
                    waiting = job.interrupt()
                    if waiting:
                        self._wait_for(job)
                except BaseException:  # noqa: S110
                    pass
            self._job = None
            raise
        self._job = None

    def _wait_for(self, job: _Job[Any]) -> None:
        wait, place = job.limit, None
        while not job.over:  # a reply can be an interrupted wait's, or have been lost by one
            try:
                self._replies.get(timeout=wait)
            except queue.Empty:
                last, place = place, self._place()
                self._is_blocked = place is not None and place == last
                if self._is_blocked:
                    raise TimeoutError(
                        f"not ended {_BLOCKED_AFTER:g} s after its timeout of {job.limit:g} s: the "
                        f"coroutine blocks its thread {place}, where no cancellation reaches it; "
                        "release what it needs before the call, or await it"
                    ) from None
                wait = _BLOCKED_AFTER

    def _place(self) -> str | None:
        """Where a coroutine keeps the thread from its loop; None where the loop goes on."""
        frame = top = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001
        while frame is not None and not frame.f_code.co_flags & inspect.CO_COROUTINE:
            frame = frame.f_back
        if top is None or frame is None:
            return None
        name, code = self._thread.name, top.f_code
        return f"{name!r} in {code.co_qualname} ({code.co_filename}:{top.f_lineno})"

    def close(self) -> None:
        if self._job is not None:
            self._job.interrupt()
        self._inbox.put(None)
        if self._is_blocked:
            return
        wait = getattr(self._thread, "_wait_for_tstate_lock", None)
        if wait is None:
            self._thread.join()
        else:
            # Before Python 3.13 an interrupted join can make others join forever. This is what
            # it does, without an entry for the thread that calls it.
            _undisturbed(wait)

    def close_here(self) -> None:
        self._inbox.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._inbox.get()) is not None:
            job.run()
            del job  # while it waits for the next one
            self._replies.put(None)


def _run_elsewhere(job: _Job[T]) -> T:
    helpers = _helpers
    helper = helpers.get(_Helper)
    try:
        helper.do(job)
    except BaseException:
        helpers.discard()
        raise
    if not helpers.put(helper):
        helpers.discard()
    return job.result()


_loops: _Shelf[_Loop] = _Shelf()
_helpers: _Shelf[_Helper] = _Shelf()
_abandoned: list[_Loop] = []


def _close_idle() -> None:
    helpers, loops = _helpers.close(), _loops.close()
    for helper in helpers:
        helper.close_here()
    for loop in loops:
        loop.close_here()


def _reopen() -> None:
    _helpers.reopen()
    _loops.reopen()


def _start_anew() -> None:
    """In a forked child: other shelves, whose locks nobody holds."""
    global _loops, _helpers
    _loops, _helpers = _Shelf(), _Shelf()


atexit.register(_close_idle)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_close_idle, after_in_parent=_reopen, after_in_child=_start_anew)
