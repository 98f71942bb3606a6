# async_runner.py: one event loop in a background thread, for callers in threads (AsyncRunner)
# https://executable-guarantees.example/bridges/async_runner.html
# Version 1.2.0 (2026-11-30); Python 3.11 to 3.14, with or without the GIL; standard library only
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: 2026 The Executable Guarantees authors
"""An event loop in a thread of its own, which runs coroutines for other threads.

Examples:
    >>> import asyncio
    >>> async def fetch(unit: str) -> str:
    ...     await asyncio.sleep(0)
    ...     return f"report of {unit}"
    >>> with AsyncRunner() as runner:
    ...     first, second = runner.submit(fetch("A7")), runner.submit(fetch("A8"))
    ...     runner.run(fetch("A9"), timeout=60), first.result(), second.result()
    ('report of A9', 'report of A7', 'report of A8')

Thread safety:
    `AsyncRunner` and the futures that it returns are internally synchronized: each operation
    is atomic and legal in any thread; `run` not in the runner's own, where it could only hang.
    Coroutines run on one loop: what they share with each other needs no lock, what they share
    with other threads does.

Fork: in the child the runner is closed; its coroutines and futures stay the parent's, and no
future settles in the child. Fork in a coroutine only to `exec` or `os._exit`.
Interpreter exit: when the main thread has ended, each runner is closed, for 10 seconds at most;
so it is at the end of a child of `multiprocessing`. Other threads that still use one are refused,
and what they wait for is cancelled: join them in the main thread.
Signal handlers may raise at any moment. Neither they nor finalizers (`__del__`) must call the
runner or cancel its futures, as they may interrupt a holder of a lock. Its thread keeps a started
runner alive: close it, dropping it is not enough. Nothing here relies on the GIL.
"""

import asyncio
import atexit
import logging
import os
import threading
from _thread import start_new_thread
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from contextvars import copy_context
from enum import StrEnum
from inspect import iscoroutinefunction
from typing import Any, NoReturn, Self, SupportsIndex, TypeVar
from weakref import WeakValueDictionary

__all__ = ["AsyncRunner"]

_EXIT_TIMEOUT = 10.0
_NEXT_STEP = 0.001  # seconds until a task whose step is due has made it
_T = TypeVar("_T")
_logger = logging.getLogger(__name__)


class _State(StrEnum):
    NEW = "not started"
    RUNNING = "running"
    CLOSED = "closed"
    EXITED = "closed, as the main thread has ended"
    FORKED = "closed in this process, as it was started before the fork"


_ADVICE = {
    _State.NEW: "call start(), or use it in a with statement",
    _State.CLOSED: "submit before close()",
    _State.EXITED: "let the main thread wait for the threads that use it",
    _State.FORKED: "make another AsyncRunner",
}


def _undisturbed(work: Callable[[], _T]) -> _T:
    """Do it where no signal handler runs: to its end, also if the wait for it is interrupted."""
    if threading.get_ident() != threading.main_thread().ident:
        return work()
    results: list[_T] = []
    errors: list[BaseException] = []
    ended = threading.Lock()
    ended.acquire()

    def run() -> None:
        try:
            results.append(work())
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
    return results.pop()


def _join(thread: threading.Thread) -> None:
    wait = getattr(thread, "_wait_for_tstate_lock", None)
    if wait is None:
        thread.join()
    else:
        # Before Python 3.13 an interrupted join can make others join forever. This is what it
        # does, without an entry for the thread that calls it.
        _undisturbed(wait)


def _post(
    loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *arguments: object
) -> None:
    """Have the loop call it, unless it is closed: then what it ran has ended."""
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError as error:
        if isinstance(error, RecursionError):
            raise


class _Submission(Future[_T]):
    """What `submit` returns, and the way of its coroutine to a task and back.

    To `concurrent.futures` it is PENDING while the task runs, so that it can be cancelled all
    that time.
    """

    def __init__(self, coro: Coroutine[Any, Any, _T]) -> None:
        super().__init__()
        # The four below are the loop's thread's.
        self.coro: Coroutine[Any, Any, _T] | None = coro
        self.task: asyncio.Task[_T] | None = None
        self.has_begun = self.is_task_cancelled = False
        self.loop: asyncio.AbstractEventLoop | None = None  # from when it is accepted
        # Never released: who gets it settles the future. The others come too late.
        self._right_to_settle = threading.Lock()

    def running(self) -> bool:
        """Whether its task has begun, and the future has not settled."""
        return self.has_begun and not self.done()

    def cancel(self) -> bool:
        """Settle at once, if nothing else has, and cancel the task."""
        # An interrupt in between would leave waiters without an answer.
        return _undisturbed(self._cancel)

    def _cancel(self) -> bool:
        if not self._right_to_settle.acquire(blocking=False):
            return super().cancel()  # too late, unless it was settled like this
        self.request_cancel()  # first, as what follows calls the future's callbacks
        super().cancel()
        # Not left to the end of the task: futures.wait() and as_completed() hear of it here.
        self.set_running_or_notify_cancel()
        return True

    def request_cancel(self) -> None:
        """Have the loop cancel the task, from any thread; the future settles with its end."""
        if self.loop is not None:
            _post(self.loop, self.cancel_task)

    def cancel_task(self) -> None:
        """Once: a second cancellation would interrupt the clean-up that the first began."""
        if self.task is not None and not self.is_task_cancelled:
            self.is_task_cancelled = True
            self.task.cancel()

    def settle(self, task: asyncio.Task[_T]) -> None:
        """Pass on how the task ended."""
        self.task = None
        if task.cancelled():
            self._cancel()
        elif not self._right_to_settle.acquire(blocking=False):
            # Cancelled before. The task's exception, if any, is not taken: asyncio logs it.
            super().cancel()
        elif self.set_running_or_notify_cancel():
            error = task.exception()
            if error is None:
                self.set_result(task.result())
            else:
                self.set_exception(error)

    def fail(self, error: BaseException) -> None:
        """Settle without a task."""
        free = self._right_to_settle.acquire(blocking=False)
        if free and self.set_running_or_notify_cancel():
            self.set_exception(error)


class _Outcome:
    """How a submission has ended, for the one caller who waits for it.

    The future's own condition is not for a thread that may be interrupted: its lock would be
    lost, and the loop's thread wait for it.
    """

    def __init__(self, submission: _Submission[Any]) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self.is_settled = self.is_cancelled = False
        self._unsettled = threading.Lock()  # locked for as long
        self._unsettled.acquire()
        self.wait = self._unsettled.acquire  # one call into C
        submission.add_done_callback(self._take)

    def _take(self, submission: Future[Any]) -> None:
        """In the loop's thread."""
        self.is_cancelled = submission.cancelled()
        if not self.is_cancelled:
            self.error = submission.exception()
            if self.error is None:
                self.value = submission.result()
        self.is_settled = True
        self._unsettled.release()


class AsyncRunner:
    """Runs coroutines on an event loop in a background thread.

    Start it once, close it once: it cannot be started again. As a context manager it starts on
    entry, and on leaving closes without a time limit. Between calls the thread sleeps.

    Args:
        name: What messages and the thread call the runner.

    Raises:
        TypeError: If `name` is no str.

    Thread safety:
        Internally synchronized; the module tells of fork, exit, signals and `__del__`.
    """

    def __init__(self, *, name: str = "async-runner") -> None:
        _check_type("name", name, "a str", str)
        self._name = name
        # Guards _state. Who accepts a coroutine posts it to the loop before letting go, and who
        # closes posts after that: so the loop begins all that was accepted, then winds down.
        self._lock = threading.Lock()
        self._state = _State.NEW
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._has_ended = False  # true as the last that the thread does
        self._not_ended = threading.Lock()  # free from then on
        self._not_ended.acquire()
        self._current = threading.local()  # its `role` tells the loop's thread and its helpers
        # Accepted and not ended. Callers add while they hold the lock, the loop's thread removes.
        self._open: set[_Submission[Any]] = set()
        self._is_winding_down = self._wound_down = False  # the loop's thread's
        _runners[id(self)] = self

    def start(self) -> None:
        """Start the thread and its loop; on a running runner, do nothing.

        Raises:
            RuntimeError: If the runner was closed, or the system has no thread left.
            OSError: If the system has no descriptor left for the loop.

        After an error it can be tried again. Cost: a thread, a loop and its descriptors.
        """
        with self._lock:
            if self._state == _State.RUNNING:
                return
            if self._state != _State.NEW:
                raise RuntimeError(f"{self._name} is {self._state}: make another AsyncRunner")
            go = threading.Lock()
            go.acquire()
            try:
                loop, thread = _undisturbed(lambda: self._make_thread(go.acquire))
                self._loop, self._thread, self._state = loop, thread, _State.RUNNING
            finally:
                go.release()  # the thread runs the loop only if that was reached

    def _make_thread(
        self, await_go: Callable[[], object]
    ) -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
        loop = asyncio.new_event_loop()
        try:
            loop.set_default_executor(
                ThreadPoolExecutor(
                    thread_name_prefix=f"{self._name}-helper",
                    initializer=lambda: setattr(self._current, "role", "helper"),
                )
            )
            thread = threading.Thread(
                target=self._run_loop, args=(loop, await_go), name=self._name, daemon=True
            )
            thread.start()
        except BaseException as error:
            loop.close()
            if type(error) is RuntimeError:
                raise RuntimeError(f"{self._name} cannot start its thread: {error}") from error
            raise
        return loop, thread

    def submit(self, coro: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Run `coro` on the loop, and return at once.

        It runs in a task of its own, in a copy of the caller's context. Cancelling the future
        settles it at once and cancels the task, whose clean-up goes on by itself; `close` waits
        for that. Callbacks of the future run in the loop's thread, in that of who cancels it, or
        beside it where that is the main thread: they must not block.

        Args:
            coro: A coroutine, as a call of a coroutine function makes it.

        Returns:
            A future that settles in every case: with the coroutine's result or its own
            exception object, SystemExit included, or cancelled, as by `close`. While its task
            runs, `running()` is true, and it can still be cancelled.

        Raises:
            TypeError: If `coro` is no coroutine.
            RuntimeError: If the runner is not running. `coro` is closed.

        An interrupt (what a signal handler raises) leaves nothing that runs: the coroutine never
        begins, or is cancelled.

        Cost: a task, and a system call that wakes the loop.
        """
        return self._submit(coro)[0]

    def _submit(
        self, coro: Coroutine[Any, Any, _T], timeout: float | None = None, *, to_wait: bool = False
    ) -> "tuple[_Submission[_T], _Outcome | None, float | None]":
        submission = outcome = limit = None
        try:
            _check_coroutine(coro)
            submission = _Submission(coro)
            if to_wait:
                limit = _check_timeout(timeout)
                self._check_thread()
                outcome = _Outcome(submission)
            self._accept(submission)
            return submission, outcome, limit  # noqa: TRY300
        except BaseException:
            native: Any = coro
            if submission is not None and submission.loop is not None:
                try:
                    start_new_thread(self._withdraw, (submission,))
                except RuntimeError:  # no thread is to be had
                    self._withdraw(submission)
                raise
            try:  # not by a call in Python, which could be interrupted once more
                has_begun = native.cr_frame is None or native.cr_running or native.cr_suspended
            except AttributeError:  # a coroutine of another kind, or none at all
                has_begun = not isinstance(coro, Coroutine)
            if not has_begun:
                native.close()
            raise

    def _accept(self, submission: _Submission[Any]) -> None:
        context = copy_context()
        with self._lock:
            if self._state == _State.RUNNING and self._loop is not None:
                submission.loop = self._loop
                self._open.add(submission)
                self._loop.call_soon_threadsafe(self._begin, submission, context=context)
                return
            state = self._state
        raise RuntimeError(f"{self._name} is {state}: {_ADVICE[state]}")

    def _withdraw(self, submission: _Submission[Any]) -> None:
        """Its caller was interrupted: it ends, or never begins, whatever the loop has heard."""
        assert submission.loop is not None
        _post(submission.loop, self._drop, submission)

    def run(self, coro: Coroutine[Any, Any, _T], timeout: float | None = None) -> _T:
        """Run `coro` on the loop, and wait for it.

        A KeyboardInterrupt, or what else a signal handler raises in this thread meanwhile,
        cancels the coroutine, too, and is raised after its clean-up; the next one at once.

        Args:
            coro: A coroutine, as a call of a coroutine function makes it.
            timeout: Seconds until the coroutine is cancelled; None waits without limit. The
                clean-up is always waited for. A coroutine that returns a result in spite of its
                cancellation returns it here; what else it raises is raised.

        Raises:
            TimeoutError: If the time was up, after the coroutine's clean-up.
            concurrent.futures.CancelledError: If it was cancelled, as by `close`.
            RuntimeError: In the runner's own thread, which would wait for itself; or if the
                runner is not running. `coro` is closed.
            TypeError: If `coro` is no coroutine, or `timeout` no number.
            ValueError: If `timeout` is negative.

        Cost: that of `submit`, and two switches of threads.
        """
        submission, outcome, limit = self._submit(coro, timeout, to_wait=True)
        assert outcome is not None
        is_late = False
        try:
            if not outcome.wait(timeout=-1 if limit is None else limit):
                is_late = True
                submission.request_cancel()  # of no effect if it has ended
                outcome.wait()
        except BaseException:
            try:
                start_new_thread(self._withdraw, (submission,))
            except RuntimeError:  # no thread is to be had
                self._withdraw(submission)
            if not outcome.is_settled:
                outcome.wait()
            raise
        del submission  # which holds the error, whose traceback holds this frame
        try:
            if outcome.is_cancelled and is_late:
                raise TimeoutError(f"{self._name}: cancelled after {limit:g} s")
            if outcome.is_cancelled:
                raise CancelledError
            if outcome.error is not None:
                raise outcome.error
            return outcome.value  # type: ignore[no-any-return]
        finally:
            del outcome

    def _check_thread(self) -> None:
        if getattr(self._current, "role", None) == "loop":
            raise RuntimeError(f"run() would wait for itself in {self._name}'s own thread: await")

    def close(self, timeout: float | None = None) -> None:
        """Refuse new coroutines, cancel those that run, and end the thread.

        Each task on the loop is cancelled once, and its clean-up awaited; what was cancelled
        before is left to clean up. Then asynchronous generators, the loop's default executor and
        the loop are closed. When this returns, every future has settled. On a closed runner it
        waits for that, if need be.

        In a coroutine, in a callback on the loop, and in a thread of the loop's default
        executor, it requests the close and returns.

        Args:
            timeout: Seconds to wait; None waits without limit.

        Raises:
            TimeoutError: If something still runs on the loop. The runner stays closed, its
                thread goes on cleaning up, and the next `close` waits again.
            TypeError: If `timeout` is no number.
            ValueError: If `timeout` is negative.

        Cost: grows with the tasks on the loop; and the time that their clean-up takes.
        """
        limit = _check_timeout(timeout)
        _undisturbed(self._request_close)
        if self._thread is None or hasattr(self._current, "role"):
            return  # the loop would wait for itself, or for a helper that waits for it
        try:
            self._not_ended.acquire(timeout=-1 if limit is None else limit)
        finally:
            if self._has_ended:  # for the next one who waits
                try:  # noqa: SIM105  (which would be Python code, and could be interrupted)
                    self._not_ended.release()
                except RuntimeError:
                    pass
        if not self._has_ended:
            raise TimeoutError(f"{self._left(timeout)}: it goes on, call close() again to wait")
        _join(self._thread)

    def _left(self, timeout: float | None) -> str:
        return (
            f"{self._name} has not ended after {timeout} s, with {len(self._open)} coroutines left"
        )

    def _request_close(self, state: _State = _State.CLOSED) -> None:
        with self._lock:
            if self._state in {_State.NEW, _State.RUNNING}:
                self._state = state
        if self._loop is not None:
            _post(self._loop, self._start_winding_down)

    def __enter__(self) -> Self:
        before = self._state
        try:
            self.start()
        except BaseException:
            if before == _State.NEW and self._state == _State.RUNNING:  # nobody else would close it
                try:
                    start_new_thread(self._request_close, ())
                except RuntimeError:  # no thread is to be had
                    self._request_close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse copy.copy, copy.deepcopy and pickle."""
        raise TypeError(
            f"{type(self).__name__} cannot be copied or pickled: "
            "share this one between threads, and make another in each process"
        )

    def _abandon(self) -> None:
        """Leave it to the parent: the child of a fork has no thread for it."""
        self._lock = threading.Lock()
        if self._thread is None:
            return
        self._state, self._thread = _State.FORKED, None
        # Closing the loop would take its descriptors off the parent's selector, too.
        _inherited.append(self._loop)
        with suppress(AttributeError):
            self._loop.close = lambda: None  # type: ignore[union-attr, method-assign]
        self._loop = None

    # What follows runs in the loop's thread.

    def _run_loop(self, loop: asyncio.AbstractEventLoop, await_go: Callable[[], object]) -> None:
        await_go()
        if self._loop is not loop:  # start() was interrupted
            loop.close()
            return
        self._current.role = "loop"
        try:
            while not self._wound_down:  # not even where a callback has stopped the loop
                try:
                    loop.run_forever()
                except (SystemExit, KeyboardInterrupt) as error:
                    # A task or callback raised it. The loop has kept its place: it can go on.
                    self._report(error)
        finally:
            # Of use only where the loop itself broke: nothing is accepted, or open, any more.
            self._request_close()
            with ExitStack() as last:
                last.callback(self._announce_end)
                last.callback(loop.close)
                for submission in self._open.copy():
                    last.callback(submission.cancel)
                    if submission.coro is not None:
                        last.callback(submission.coro.close)

    def _announce_end(self) -> None:
        self._has_ended = True
        with suppress(RuntimeError):  # one whose time was up has seen it just now
            self._not_ended.release()

    def _report(self, error: BaseException) -> None:
        ended = [s.task for s in self._open.copy() if s.task is not None and s.task.done()]
        if not any(not task.cancelled() and task.exception() is error for task in ended):
            _logger.error("%s: no future takes %r", self._name, error, exc_info=error)

    def _begin(self, submission: _Submission[Any]) -> None:
        coro, submission.coro = submission.coro, None
        if coro is None:  # it was withdrawn
            return
        if submission.cancelled():
            self._open.discard(submission)
            coro.close()
            return
        submission.has_begun = True
        try:
            submission.task = asyncio.get_running_loop().create_task(coro)
        except BaseException as error:  # from a task factory that a coroutine has set
            self._open.discard(submission)
            coro.close()
            submission.fail(error)
            return
        submission.task.add_done_callback(lambda task: self._end_of(submission, task))

    def _end_of(self, submission: _Submission[Any], task: asyncio.Task[Any]) -> None:
        self._open.discard(submission)
        submission.settle(task)

    def _drop(self, submission: _Submission[Any]) -> None:
        if submission.coro is None:
            submission.cancel_task()
        else:
            self._open.discard(submission)
            submission.coro.close()
            submission.coro = None
            submission.cancel()

    def _start_winding_down(self) -> None:
        if self._is_winding_down:
            return
        self._is_winding_down = True
        task = asyncio.Task(self._wind_down(), loop=asyncio.get_running_loop(), name=self._name)
        task.add_done_callback(self._end_winding_down)

    def _end_winding_down(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():  # by a coroutine that cancels all tasks which it finds
            self._is_winding_down = False
            self._start_winding_down()
            return
        self._wound_down = True
        asyncio.get_running_loop().stop()

    async def _wind_down(self) -> None:
        loop = asyncio.get_running_loop()
        ours = {submission.task for submission in self._open if submission.task is not None}
        others = _other_tasks() - ours
        for submission in self._open:
            submission.cancel_task()
        await _spread()
        # The rest belongs to nobody who is being cancelled. It cannot be left for later, as
        # what was submitted may wait for it.
        rest: set[asyncio.Task[Any]] = set()
        while ours:
            free = {task for task in others - rest if not task.cancelling()}
            for task in free:
                task.cancel()
            rest |= free
            ours = await _wait_until_one_may_be_free(ours, others - rest)
        await _end_tasks(rest)
        await loop.shutdown_asyncgens()
        with suppress(RuntimeError):  # no thread to wait in, as at exit: loop.close() does not
            await loop.shutdown_default_executor()
        await _end_tasks(set())  # which those threads have left


def _other_tasks() -> set[asyncio.Task[Any]]:
    me = asyncio.current_task()
    return {task for task in asyncio.all_tasks() if task is not me}


async def _wait_until_one_may_be_free(
    ours: "set[asyncio.Task[Any]]", cancelled: "set[asyncio.Task[Any]]"
) -> "set[asyncio.Task[Any]]":
    """Wait for all of ours, or for a step of one that is being cancelled; return what is left.

    Who ends a timeout of its own takes that cancellation back, in a step, and tells nobody.
    """
    waits = {getattr(task, "_fut_waiter", task) for task in cancelled if not task.done()}
    soon = _NEXT_STEP if None in waits else None  # one of them waits for its turn only
    how = asyncio.FIRST_COMPLETED if waits else asyncio.ALL_COMPLETED
    await asyncio.wait(ours | (waits - {None}), timeout=soon, return_when=how)
    return {task for task in ours if not task.done()}


async def _spread() -> None:
    """Let tasks that are being cancelled cancel their children: a level in each turn.

    Cancelled in the same turn as their parents, they would soon be cancelled again by those,
    in their clean-up.
    """
    reached: set[asyncio.Task[Any]] = set()
    while new := {task for task in _other_tasks() if task.cancelling()} - reached:
        reached |= new
        await asyncio.sleep(0)


async def _end_tasks(cancelled: Collection[asyncio.Task[Any]]) -> None:
    while tasks := _other_tasks():
        for task in tasks.difference(cancelled):
            task.cancel()
        await asyncio.wait(tasks)


def _check_coroutine(coro: object) -> None:
    if not isinstance(coro, Coroutine):
        is_function = iscoroutinefunction(coro)
        hint = "call the function" if is_function else "await other awaitables in one"
        raise TypeError(f"coro must be a coroutine, not {coro!r}: {hint}")


def _check_timeout(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    return min(_check_seconds("timeout", timeout), threading.TIMEOUT_MAX)


def _check_type(name: str, value: object, wanted: str, *kinds: type) -> None:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise TypeError(f"{name} must be {wanted}, not {value!r}")


def _check_seconds(name: str, value: float, *, zero: bool = True) -> float:
    _check_type(name, value, "a number of seconds", int, float)
    if not (value > 0 or (zero and value == 0)):  # so put, it refuses NaN, too
        least = "at least" if zero else "above"
        raise ValueError(f"{name} must be {least} 0 seconds, not {value!r}")
    return float(min(value, 1e300))  # also for an int that fits no float


_runners: WeakValueDictionary[int, AsyncRunner] = WeakValueDictionary()
_inherited: list[object] = []  # the parent's loops, which a child must not close


def _all_runners() -> list[AsyncRunner]:
    return [r for r in (reference() for reference in _runners.valuerefs()) if r is not None]


def _close_all() -> None:
    for runner in _all_runners():
        _runners.pop(id(runner), None)  # it has its time once
        try:
            runner._request_close(_State.EXITED)  # noqa: SLF001
            runner.close(_EXIT_TIMEOUT)
        except TimeoutError:
            left = runner._left(_EXIT_TIMEOUT)  # noqa: SLF001
            _logger.warning("the interpreter exits: %s: their futures are cancelled", left)
            for submission in runner._open.copy():  # noqa: SLF001
                submission.cancel()
        except Exception:  # the rest of the exit goes on
            _logger.exception("the interpreter exits: a runner cannot be closed")


def _after_fork() -> None:
    for runner in _all_runners():
        runner._abandon()  # noqa: SLF001


# As the main thread ends: a clean-up may have to release a thread of the loop's executor, and
# those are joined before atexit's hooks. Children of multiprocessing call these alone.
with suppress(AttributeError, RuntimeError):  # it is private; or the exit is under way
    threading._register_atexit(_close_all)  # type: ignore[attr-defined]  # noqa: SLF001
atexit.register(_close_all)  # for what is started later
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
