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
import itertools
import json
import math
import os
import re
import secrets
import signal
import stat
import sys
from collections.abc import Awaitable, Callable, Container, Coroutine, Iterator
from contextvars import Context, copy_context
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, NamedTuple

if sys.platform == "linux":
    import fcntl

STATES = ("queued", "processing", "completed", "error")


Work = Callable[[], Coroutine[Any, Any, None]]


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

    async def run(self, serve: Work, held: contextlib.AbstractContextManager[object]) -> None:
        """Serve until a stop, while this is held; returns at once after a stop.

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
            with held:
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
        if not serving.cancelled():  # what is not retrieved would be logged
            self._failure = self._failure or serving.exception()
        if cancelled:
            raise asyncio.CancelledError
        if self._failure is not None:
            raise self._failure

    def serves(self) -> None:
        """Tell those who enter that the start is complete."""
        self._started.set()

    @property
    def serving(self) -> bool:
        """Whether the start is complete, and no stop was requested."""
        return self._started.is_set() and self.state is State.RUNNING

    def spawn(self, work: Work, name: str, done: Callable[[], object]) -> None:
        """Handle a file in a task of its own, with a fresh copy of the context of `run`.

        `done` is called when the task has ended and is no longer among the tasks.
        """
        assert self.loop is not None
        work_known = self._when_known(work)
        task = self.loop.create_task(work_known, name=name, context=self._context.copy())
        self.tasks.add(task)
        task.add_done_callback(functools.partial(self._finished, done))

    async def _when_known(self, work: Work) -> None:
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
        for task in () if self._tasks_cancelled else self.tasks:  # once: then they may clean up
            task.cancel()
        self._tasks_cancelled = True

    async def enter(self, run: Work) -> None:
        """Run in the background; returns when it serves, or raises what prevented that."""
        self.check_loop()
        if not self._stop_requested:
            self._check_unused()
        self._runner = asyncio.create_task(run())
        await self._or_cancel(self._runner, self._started.wait())
        if self._closed.is_set():
            await self._runner

    async def leave(self, stop: Work) -> None:
        """Stop, and raise what ended the run before."""
        self.check_loop()  # or it would wait forever for another loop's task
        assert self._runner is not None
        await self._or_cancel(self._runner, stop())
        await self._runner

    async def _or_cancel(self, runner: asyncio.Task[None], step: Awaitable[object]) -> None:
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


def _regular(path: str | os.PathLike[str]) -> Look:
    if stat.S_ISREG((found := os.lstat(path)).st_mode):
        return Look(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    raise OSError(errno.EINVAL, "it is no regular file: move it away", os.fspath(path))


def look(path: str | os.PathLike[str]) -> Look | None:
    """What is there, if it is a regular file; None if it is gone, or something else.

    Raises:
        OSError: the system does not tell (EACCES, EIO …): it may well be there.
    """
    try:
        return _regular(path)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.EINVAL}:
            raise
    return None


def exists(path: str) -> bool:
    """Whether there is anything of that name; where the system does not tell, there is."""
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno not in {errno.ENOENT, errno.ENOTDIR}
    return True


def is_open_for_writing(path: str) -> bool | None:
    """Whether a program has a regular file open for writing; None where the system cannot tell.

    Linux grants a read lease on a file only while nobody can write to it, and only to the file's
    owner or a privileged process. A program that opens the file for writing meanwhile waits
    until the file is closed, right below. A doubt, such as no descriptor left, is a yes.
    """
    if sys.platform != "linux":
        return None
    try:
        with open(path, "rb", 0) as file:
            # To break a lease sends its holder SIGIO, which kills; SIGURG is ignored.
            fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return None if error.errno in _CANNOT_TELL else True
    return False


def rename_new(source: str, target: str) -> None:
    """Rename a file, but never in place of another one; its owner does not matter.

    One system call on Linux, macOS and Windows. Where the file system cannot do that (NFS), a
    link and an unlink: a crash between them leaves one file under both names, and other users'
    files may not be linked.

    Raises:
        FileExistsError: there is something under the new name, and it is left alone.
        OSError: it cannot be renamed; if it is the unlink that failed, it has both names.
    """
    try:
        rename_exclusively(source, target)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        os.link(source, target, follow_symlinks=False)
        os.unlink(source)


def rename_exclusively(source: str, target: str) -> None:
    """The same in one system call, or an OSError with one of the UNSUPPORTED numbers."""
    old, new, failed = os.fsencode(source), os.fsencode(target), -1
    ctypes.set_errno(errno.ENOSYS)
    if sys.platform == "win32":
        failed = os.rename(old, new)
    elif hasattr(_LIBRARY, "renameat2"):
        failed = _LIBRARY.renameat2(-100, old, -100, new, 1)  # AT_FDCWD, RENAME_NOREPLACE
    elif hasattr(_LIBRARY, "renamex_np"):
        failed = _LIBRARY.renamex_np(old, new, 4)  # RENAME_EXCL
    if failed:
        raise OSError(code := ctypes.get_errno(), os.strerror(code), source, None, target)


_LIBRARY: Any = None if sys.platform == "win32" else ctypes.CDLL(None, use_errno=True)
UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_CANNOT_TELL = UNSUPPORTED | {errno.EACCES, errno.EPERM, errno.ENOENT}
_TEMPORARY = re.compile(r"\.pending-[0-9a-f]{16}\.tmp")
_SIDECAR = re.compile(r"\.(.+)\.attempts", re.DOTALL)


def temporary(directory: str) -> str:
    """A path for a file that is not complete; `Spool.recover` removes what is left of them."""
    return f"{directory}{os.sep}.pending-{secrets.token_hex(8)}.tmp"


def unlink_quietly(path: str) -> None:
    """Remove a file that nobody needs, if it is there."""
    with contextlib.suppress(OSError):
        os.unlink(path)


class Spool:
    """The files of a queue and how often they were attempted, in one directory; no call waits.

    NAME.queued becomes NAME.processing, and then NAME.completed, NAME.error, or NAME.queued
    again. Each of these steps is one system call: who dies leaves a file under one name.

    The hidden .NAME.attempts has a byte for each attempt that has begun. The first one needs
    none, since NAME.processing says as much: what succeeds at once has no second file. A count
    is written before the step that it counts, and removed after the one that ends it.
    """

    def __init__(self, directory: str, max_attempts: int) -> None:
        self.directory, self._max_attempts = directory, max_attempts
        self.attempts: dict[str, int] = {}  # as .NAME.attempts have them: only the owner writes

    def path(self, name: str, state: str) -> str:
        """Where NAME is in that state."""
        return f"{self.directory}{os.sep}{name}.{state}"

    def claim(self, name: str) -> tuple[int, Look]:
        """Make NAME.queued NAME.processing; returns the attempt's number, and the file's look.

        There must be no NAME.processing. A rename takes whatever is there at that instant: with
        a link and an unlink, a producer's newer file could come, and be lost, in between.

        Raises:
            OSError: it is gone, no regular file, or cannot be renamed; it is not claimed.
        """
        queued = self.path(name, "queued")
        found, before = _regular(queued), self.attempts.get(name, 0)
        if 1 <= before < self._max_attempts:
            self._count(name, before + 1)
        try:
            os.rename(queued, self.path(name, "processing"))
        except OSError:
            self._count(name, before)
            raise
        return before + 1, found

    def is_unchanged(self, name: str, before: Look) -> bool:
        """Whether NAME.processing is as it was, and nobody can be seen writing to it."""
        path = self.path(name, "processing")
        return look(path) == before and not is_open_for_writing(path)

    def put_back(self, name: str, attempts: int) -> str:
        """Queue NAME.processing again after so many attempts; returns its stem.

        That is NAME, or has a suffix where there is a newer NAME.queued.
        """
        stem = name
        for stem in _stems(name):
            used = stem != name and exists(self.path(stem, "processing"))
            if used or exists(self.path(stem, "queued")):
                continue
            self._count(stem, attempts)
            try:
                rename_new(self.path(name, "processing"), self.path(stem, "queued"))
                break
            except FileExistsError:  # of a producer, just now
                if stem != name:
                    self.forget(stem)
        if stem != name:
            self.forget(name)
        return stem

    def _count(self, name: str, attempts: int) -> None:
        """Have it on disk that so many attempts have begun."""
        if self.attempts.get(name, 0) != attempts:
            sidecar = self.path(f".{name}", "attempts")
            open(sidecar, "ab").close()  # an empty one says as much as none
            os.truncate(sidecar, attempts)
            self.attempts[name] = attempts

    def complete(self, name: str) -> None:
        """Make NAME.processing NAME.completed, with a suffix if there is one."""
        self._finish(name, self._free(name, "completed"))

    def give_up(self, name: str, reason: str) -> None:
        """Make NAME.processing NAME.error, after the NAME.error.json that says why."""
        target, written = self._free(name, "error"), temporary(self.directory)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        said = {"error": reason, "attempts": self._max_attempts, "time": now}
        try:
            with open(written, "w", encoding="utf-8") as file:
                file.write(json.dumps(said, indent=1))
            os.replace(written, f"{target}.json")
        finally:
            unlink_quietly(written)
        self._finish(name, target)

    def _free(self, name: str, state: str) -> str:
        paths = (self.path(stem, state) for stem in _stems(name))
        return next(path for path in paths if not exists(path))

    def _finish(self, name: str, target: str) -> None:
        os.rename(self.path(name, "processing"), target)
        self.forget(name)

    def forget(self, name: str) -> None:
        """The file has come to its end, or is gone: what comes under its name is new."""
        if self.attempts.pop(name, None) is not None:
            unlink_quietly(self.path(f".{name}", "attempts"))

    def recover(self, spared: Container[str] = ()) -> tuple[int, list[tuple[str, OSError]]]:
        """Queue what a dead owner left .processing, and remove its temporaries but the spared.

        Returns:
            How many files were queued; the names of those that cannot be, with the reason.
        """
        orphans, faults = list[str](), list[tuple[str, OSError]]()
        with os.scandir(self.directory) as entries:
            for entry in entries:
                if _TEMPORARY.fullmatch(entry.name) and entry.name not in spared:
                    unlink_quietly(entry.path)
                elif match := _SIDECAR.fullmatch(entry.name):
                    self.attempts[match[1]] = entry.stat(follow_symlinks=False).st_size
                elif entry.name.endswith(".processing") and not entry.name.startswith("."):
                    orphans.append(entry.name.removesuffix(".processing"))
        for name in self.attempts.keys() - set(orphans):
            if not exists(self.path(name, "queued")):
                self.forget(name)
        for name in orphans:
            try:
                self.restore(name)
            except OSError as fault:
                faults.append((name, fault))
        return len(orphans) - len(faults), faults

    def restore(self, name: str) -> str:
        """Queue NAME.processing again, which nobody uploads; returns its stem.

        If it has another name already, by a link whose unlink is missing, it only loses this one.
        """
        inode = _regular(processing := self.path(name, "processing")).inode
        if os.lstat(processing).st_nlink > 1 and (stem := self._linked_as(name, inode)):
            os.unlink(processing)
            return stem
        return self.put_back(name, max(1, self.attempts.get(name, 0)))

    def _linked_as(self, name: str, inode: int) -> str | None:
        with os.scandir(self.directory) as entries:
            for entry in entries:
                stem, _, state = entry.name.rpartition(".")
                moved = (stem == name and state != "processing") or stem.startswith(f"{name}-")
                if moved and state in STATES and entry.inode() == inode:
                    return stem
        return None


def _stems(name: str) -> Iterator[str]:
    return itertools.chain([name], (f"{name}-{number}" for number in itertools.count(1)))


def safe_repr(value: object) -> str:
    """The repr of a value or, where that fails, the default one."""
    with contextlib.suppress(Exception):
        return repr(value)
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
    # A lambda may return an awaitable; what else is plain cannot.
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
    known = inspect.isroutine(function) or inspect.isclass(function)
    if known or inspect.iscoroutinefunction(function):  # the last are marked objects, mocks too
        return function
    return getattr(function, "__call__", function)  # noqa: B004  (of an object that can be called)


def _is_generator(function: object) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
