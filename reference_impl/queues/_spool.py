# _spool.py: what the two file queues share: one life cycle, and moves that overwrite nothing
# https://executable-guarantees.example/queues/async_pending_queue.html#_spool
# Version 1.0.0 (2026-11-30); Python 3.11 to 3.14, with or without the GIL
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: 2026 The Executable Guarantees authors
"""What AsyncPendingQueue and AsyncConverterPool share; a part of them, not for use on its own."""

import asyncio
import contextlib
import ctypes
import errno
import functools
import inspect
import math
import os
import stat
import sys
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from contextvars import Context, copy_context
from enum import IntEnum
from typing import Any, NamedTuple


class State(IntEnum):
    """The life of a queue or a pool; it only moves on to a later one."""

    NEW = 0
    RUNNING = 1
    STOPPING = 2  # no more files are taken; those under way are finished
    CLOSED = 3


class Lifecycle:
    """A single run: one task that serves, one task for each file under way, and their end.

    Loop-bound. `serve` is cancelled as soon as a stop is requested; the tasks that `spawn`
    started go on until they end, or until the deadline of the stop cancels them.
    """

    def __init__(self, what: str) -> None:
        self._what = what  # the class's name, for messages
        self.state = State.NEW
        self.loop: asyncio.AbstractEventLoop | None = None  # from run on
        self.tasks: set[asyncio.Task[None]] = set()
        self._context: Context
        self._serving: asyncio.Task[None] | None = None
        self._runner: asyncio.Task[None] | None = None  # of the context manager
        self._started, self._closed = asyncio.Event(), asyncio.Event()
        self._deadlines: list[asyncio.TimerHandle] = []
        self._stop_requested = self._tasks_cancelled = False
        self._failure: BaseException | None = None

    async def run(
        self,
        serve: Callable[[], Coroutine[Any, Any, None]],
        resource: AbstractContextManager[object] | None = None,
    ) -> None:
        """Serve until a stop, while the resource is held; returns at once after a stop.

        Raises:
            RuntimeError: it has run or been entered before, or runs on another loop.
            Exception: what serving, or `fail`, ended with.
        """
        self.check_loop()
        if self._stop_requested:
            self._started.set()
            return
        self._check_unused()
        self.state = State.RUNNING
        self.loop, self._context = asyncio.get_running_loop(), copy_context()
        try:
            with resource or contextlib.nullcontext():
                self._serving = self.loop.create_task(serve(), name=self._what)
                await self._until_done(self._serving)
        finally:
            self.state = State.CLOSED
            for timer in self._deadlines:
                timer.cancel()
            # Or an exception that they keep would hold this object, and it them.
            self._serving = self._failure = None
            self._started.set()
            self._closed.set()

    async def _until_done(self, serving: asyncio.Task[None]) -> None:
        cancelled = False
        while not serving.done() or self.tasks:
            try:
                await asyncio.wait(self.tasks if serving.done() else [serving])
            except asyncio.CancelledError:
                cancelled = True
                self.request_stop(0)
            if serving.done() and self.state is State.RUNNING:  # it failed
                self.request_stop(0)
        if cancelled:
            raise asyncio.CancelledError
        if self._failure is not None:
            raise self._failure
        if not serving.cancelled():
            serving.result()

    def serves(self) -> None:
        """Tell those who enter that the start is complete."""
        self._started.set()

    def spawn(
        self, work: Callable[[], Coroutine[Any, Any, None]], name: str, done: Callable[[], object]
    ) -> asyncio.Task[None]:
        """Handle a file in a task of its own, with a fresh copy of the context of `run`.

        `done` is called when the task has ended and is no longer among the tasks.
        """
        assert self.loop is not None
        context = self._context.copy()
        task = self.loop.create_task(self._work(work), name=name, context=context)
        self.tasks.add(task)
        task.add_done_callback(functools.partial(self._finished, done))
        return task

    async def _work(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if asyncio.current_task() not in self.tasks:  # an eager task: it is to be known first
            await asyncio.sleep(0)
        await work()

    def _finished(self, done: Callable[[], object], task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # The loop has raised these two itself: `run` ends as if it was cancelled.
            own = isinstance(error, KeyboardInterrupt | SystemExit)
            self.fail(asyncio.CancelledError() if own else error)
        done()

    def fail(self, error: BaseException) -> None:
        """Cancel what is under way, and end `run` with the error; the first one counts."""
        self._failure = self._failure or error
        self.request_stop(0)

    async def stop(self, timeout: float) -> None:  # noqa: ASYNC109
        """Request a stop and wait for the end; from a task of its own only request it."""
        self.check_loop()
        self._stop_requested = True
        self.request_stop(timeout)
        if self.loop is not None and asyncio.current_task() not in self.tasks:
            await self._closed.wait()

    def request_stop(self, timeout: float) -> None:
        """Take no more files, and cancel those under way when the time is over."""
        if self.state < State.STOPPING:
            self.state = State.STOPPING
            if self._serving is not None:
                self._serving.cancel()
        if self.loop is not None and self.state is State.STOPPING and timeout < math.inf:
            self._deadlines.append(self.loop.call_later(timeout, self._cancel_tasks))

    def _cancel_tasks(self) -> None:
        if not self._tasks_cancelled:  # once: their clean-up is left in peace
            self._tasks_cancelled = True
            for task in self.tasks:
                task.cancel()

    async def enter(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run in the background; returns when it serves, or raises what prevented that."""
        self.check_loop()
        if not self._stop_requested:
            self._check_unused()
        self._runner = asyncio.create_task(run())
        await self._or_cancel(self._runner, self._started.wait())
        if self._closed.is_set():
            await self._runner

    async def leave(self, stop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Stop, and raise what ended the run before."""
        self.check_loop()  # or it would wait forever for another loop's task
        assert self._runner is not None
        await self._or_cancel(self._runner, stop())
        await self._runner

    async def _or_cancel(
        self, runner: asyncio.Task[None], step: Coroutine[Any, Any, object]
    ) -> None:
        try:
            await step
        except BaseException:
            runner.cancel()
            await asyncio.wait([runner])
            raise

    def check_loop(self) -> None:
        """Refuse to be used on a loop other than the one that runs, or ran, it."""
        if self.loop is not None and self.loop is not asyncio.get_running_loop():
            raise RuntimeError(
                f"this {self._what} belongs to the event loop that ran it: "
                f"use it there, or make a new {self._what}"
            )

    def _check_unused(self) -> None:
        if self.loop is not None or self._runner not in (None, asyncio.current_task()):
            raise RuntimeError(f"this {self._what} runs once: make a new one to run again")


# Files.


class Look(NamedTuple):
    """What tells a file from another one of its name, or from what it was before."""

    device: int
    inode: int
    size: int
    mtime_ns: int


def look(path: str | os.PathLike[str]) -> Look | None:
    """What is there, if it is a regular file; None if it is gone, or something else.

    Raises:
        OSError: the system does not tell (EACCES, EIO …): it may well be there.
    """
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return Look(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def rename_new(source: str, target: str) -> None:
    """Rename a file, but never in place of another one; its owner does not matter.

    One system call on Linux, macOS and Windows. Where the file system cannot do that (NFS), a
    link and an unlink: a crash between them leaves one file under both names, and other users'
    files may not be linked.

    Raises:
        FileExistsError: there is something under the new name, and it is left alone.
        OSError: it cannot be renamed, and nothing has changed.
    """
    if _RENAME_EXCLUSIVELY is not None:
        try:
            return _RENAME_EXCLUSIVELY(source, target)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    os.link(source, target, follow_symlinks=False)
    os.unlink(source)
    return None


_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_AT_FDCWD, _NOREPLACE, _EXCLUSIVELY = -100, 1, 4  # of linux/fcntl.h, linux/fs.h, sys/stdio.h


def _exclusive_rename() -> Callable[[str, str], None] | None:
    if sys.platform == "win32":
        return os.rename
    library = ctypes.CDLL(None, use_errno=True)
    function: Any = getattr(library, "renameat2", None) or getattr(library, "renamex_np", None)
    if function is None:
        return None
    on_linux = function.__name__ == "renameat2"

    def rename(source: str, target: str) -> None:
        old, new = os.fsencode(source), os.fsencode(target)
        if on_linux:
            failed = function(_AT_FDCWD, old, _AT_FDCWD, new, _NOREPLACE)
        else:
            failed = function(old, new, _EXCLUSIVELY)
        if failed:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), source, None, target)

    return rename


_RENAME_EXCLUSIVELY = _exclusive_rename()


def safe_repr(value: object) -> str:
    """The repr of a value or, where that fails, the default one."""
    try:
        return repr(value)
    except Exception:
        return object.__repr__(value)


# Arguments.


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


def _check_async(name: str, function: object) -> None:
    """Refuse what cannot be awaited when called: a plain function would block the loop."""
    inner = _unwrapped(function)
    # A lambda may return an awaitable, and so may an object's call; what else is plain cannot.
    plain = inspect.isroutine(inner) and getattr(inner, "__name__", "") != "<lambda>"
    wrong = _is_generator(inner) or (plain and not inspect.iscoroutinefunction(inner))
    if not callable(function) or wrong:
        raise TypeError(
            f"{name} must be a coroutine function, not {function!r}: define it with `async def`, "
            "and put what blocks into asyncio.to_thread"
        )


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
    if inspect.isroutine(function) or inspect.isclass(function):
        return function
    return getattr(function, "__call__", function)  # noqa: B004  (of an object that can be called)


def _is_generator(function: object) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
