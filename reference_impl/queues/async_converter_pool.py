# async_converter_pool.py: files of watched directories converted off the loop (AsyncConverterPool)
# https://executable-guarantees.example/queues/async_converter_pool.html
# Version 1.0.1 (2026-11-30); Python 3.11 to 3.14, with or without the GIL; needs watchdog
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: 2026 The Executable Guarantees authors
"""Converters of the files that appear in directories, with priorities and so many at once.

A file is converted in a thread (or a given executor), its result is submitted on the loop, and
then the file is moved to `done_dir`, or to `error_dir` with a `NAME.error.json` that says why.

Examples:
    >>> import asyncio, tempfile
    >>> async def main(inbox: Path) -> None:
    ...     async def submit(text: str) -> None:
    ...         print(text)
    ...         submitted.set()
    ...     submitted = asyncio.Event()
    ...     upper = Converter("upper", inbox, ("*.txt",), lambda path: path.read_text().upper())
    ...     async with AsyncConverterPool([upper], submit):
    ...         (inbox / "unit.txt").write_text("passed")
    ...         await submitted.wait()
    ...     print((inbox / "done" / "unit.txt").read_text())
    >>> with tempfile.TemporaryDirectory() as name:
    ...     asyncio.run(main(Path(name)))
    PASSED
    passed

Async safety:
    Loop-bound: all but the constructors and `stats` belongs on the loop that runs the pool.
    Programs in other threads and processes hand over files by renaming them into a directory.

Fork: the child must not use the pool. Interpreter exit: `asyncio.run` cancels `run`; the files
under way stay where they are, for the next start. The pool's own threads are daemonic, so none
holds up the exit; a given executor's may. Signal handlers and finalizers (`__del__`) must not
call the pool; what `loop.add_signal_handler` runs may start a task that calls `stop`. Nothing
here relies on the GIL.
"""

import asyncio
import contextlib
import errno
import fnmatch
import inspect
import itertools
import json
import logging
import os
import re
import stat
import threading
import traceback
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent import futures
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Generic, NamedTuple, NoReturn, Self, SupportsIndex, TypeVar

from ..bridges.file_watch import DirectoryWatch

__all__ = ["AsyncConverterPool", "Converter", "ConverterPoolStats"]

_AHEAD = 64  # files, at least, that are drawn from a watch before there are slots for them
_LONGEST_NAME = 255 - len(".error.json")  # bytes, where a file system takes 255
_FOR_EVER = 1e9  # seconds
_logger = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Converter(Generic[T]):
    """Which files to convert, and how.

    Args:
        name: What messages and `stats` call it; each converter of a pool has its own.
        watch_dir: The directory in which the files appear, not those below it.
        patterns: Shell patterns for names, such as `("*.csv",)`. Hidden names never match.
        convert: Called with a file's absolute path, in a thread or another process; what it
            returns is submitted. What it raises is the file's failure.
        priority: The lowest number comes first; equals take turns.
        done_dir: Where converted files go: an existing directory on the same file system.
            None is `done` in the watched directory, made if need be.
        error_dir: The same for files that could not be converted or submitted, and `error`.

    Raises:
        TypeError: If an argument is of the wrong type, `convert` a coroutine function included.
        ValueError: If the name or the patterns are empty, or a pattern can match no name.
    """

    name: str
    watch_dir: Path
    patterns: Sequence[str]
    convert: Callable[[Path], T]
    priority: int = 5
    done_dir: Path | None = None
    error_dir: Path | None = None

    def __post_init__(self) -> None:
        _check_type("name", self.name, str)
        if not self.name:
            raise ValueError("name must not be empty, got ''")
        _check_type("watch_dir", self.watch_dir, str, os.PathLike)
        if isinstance(self.patterns, Iterable) and not isinstance(self.patterns, str | bytes):
            object.__setattr__(self, "patterns", tuple(self.patterns))  # an iterator serves once
        DirectoryWatch(self.watch_dir, self.patterns)  # refuses bad patterns
        if not callable(self.convert) or _is_async(self.convert):
            raise TypeError(
                f"convert must be a plain function, which runs in a thread, got {self.convert!r}: "
                "define it with `def`, and await in submit"
            )
        _check_type("priority", self.priority, int)
        _check_type("done_dir", self.done_dir, str, os.PathLike, type(None))
        _check_type("error_dir", self.error_dir, str, os.PathLike, type(None))


@dataclass(frozen=True, slots=True, weakref_slot=True)
class ConverterPoolStats:
    """What a pool has done since it was made, and what it does now."""

    converted: int  # files converted, submitted, and moved to their done_dir
    failed: int  # files moved to their error_dir
    held: int  # files dealt with that could not be moved: the next start does them again
    running: int  # files being converted or submitted now
    waiting: int  # files that wait for a slot, as far as they were drawn from their watch
    abandoned: int  # conversions past their timeout, or cancelled, that have not ended yet
    lost: tuple[str, ...]  # the names of converters whose watch has ended


class _Look(NamedTuple):
    """What tells a file from another one of its name, or from what it was before."""

    device: int
    inode: int
    size: int
    mtime_ns: int


@dataclass(slots=True, eq=False)
class _Line(Generic[T]):
    """A converter and its files."""

    converter: Converter[T]
    watch_dir: Path
    done_dir: Path
    error_dir: Path
    # A path is in at most one of the next two, each with its look when announced last.
    waiting: OrderedDict[Path, _Look] = field(default_factory=OrderedDict)
    active: dict[Path, _Look] = field(default_factory=dict)
    held: dict[Path, _Look] = field(default_factory=dict)  # dealt with, but still there
    room: asyncio.Event = field(default_factory=asyncio.Event)  # in waiting
    served: int = 0  # the number of its last turn
    watching: bool = False


class _Unusable(Exception):
    """Nothing can be converted any more; the cause says why."""


class AsyncConverterPool(Generic[T]):
    """Converts files as they appear in directories, the most urgent first, so many at a time.

    At least once: a process that ends between the submission of a result and the move of its
    file converts and submits it again at the next start. Otherwise once for each appearance: a
    file that changes, or comes again, is converted again.

    Producers write elsewhere on the same file system and rename the file in; what is written in
    place is converted when it has been closed, where the system tells (Linux), and a conversion
    during which its file changed is thrown away.

    Single use: `run` it, or enter it as a context manager, which runs it in the background
    and stops it on leaving, and raises what ended it before.

    Args:
        converters: At least one. No name can belong to two of them in one directory.
        submit: Called on the loop with each result; what it returns is awaited. What it raises
            is the file's failure. After a crash a result may come again.
        max_concurrency: The most files that are converted or submitted at once.
        executor: Runs the conversions, and is not shut down. It should have `max_concurrency`
            workers at least, or files line up in it without priority, and their timeouts run.
            None gives each conversion a daemonic thread of its own.
        convert_timeout: Seconds for one conversion; then its file has failed, and its result is
            dropped. Its thread cannot be ended: it runs on. None for no limit.

    Raises:
        TypeError: If an argument is of the wrong type, `submit` a plain function included.
        ValueError: If a number is out of range, two converters share a name or files, or a file
            would be moved into a watched directory.

    Async safety:
        Loop-bound; the module tells of threads, fork, exit, signals and `__del__`.
    """

    def __init__(
        self,
        converters: Iterable[Converter[T]],
        submit: Callable[[T], Awaitable[None]],
        *,
        max_concurrency: int = 4,
        executor: futures.Executor | None = None,
        convert_timeout: float | None = None,
    ) -> None:
        self._lines = _lines(converters)
        _check_submit(submit)
        _check_type("max_concurrency", max_concurrency, int)
        if max_concurrency < 1:
            raise ValueError(f"max_concurrency must be 1 or more, got {max_concurrency!r}")
        _check_type("executor", executor, futures.Executor, type(None))
        _check_type("convert_timeout", convert_timeout, int, float, type(None))
        if convert_timeout == 0:
            raise ValueError("convert_timeout must be above 0, or None for no limit, got 0")
        self._timeout = _seconds("convert_timeout", convert_timeout or _FOR_EVER)
        self._submit, self._max_concurrency = submit, max_concurrency
        self._own = executor is None
        self._in_context = executor is None or _shares_memory(executor)
        self._start = _start_thread if executor is None else executor.submit
        self._loop: asyncio.AbstractEventLoop | None = None  # from run on, as _context and _group
        self._runner: asyncio.Task[None] | None = None  # of the context manager
        self._up, self._over = asyncio.Event(), asyncio.Event()  # all watches began; run ended
        self._stop_asked, self._stopping = False, asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()  # one a slot
        self._timers: list[asyncio.TimerHandle] = []  # of stop
        self._interrupted = False  # by a slot's task, which has thrown it out of the loop
        self._turns = itertools.count(1)
        self._converted = self._failed = self._abandoned = 0
        self._lost: list[str] = []

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse copy.copy, copy.deepcopy and pickle."""
        raise TypeError(f"{type(self).__name__} cannot be copied or pickled: make another one")

    async def run(self) -> None:
        """Convert the files that are there and those that come, until `stop`.

        Returns at once if the pool was stopped before. A converter whose directory vanishes is
        logged and lost, the others go on. When `run` is cancelled, so is all that is under way,
        and the files stay for the next start.

        Raises:
            OSError: FileNotFoundError, NotADirectoryError or PermissionError if a directory
                cannot be used, also if all of them have vanished; another one if two are not on
                the same file system.
            BrokenExecutor, RuntimeError: If the executor cannot be used any more. The files that
                it had stay for the next start.
            RuntimeError: If this pool runs, or has run, already.
        """
        self._check_loop()
        if self._stop_asked:
            self._up.set()
            return
        if self._loop is not None or self._runner not in (None, asyncio.current_task()):
            raise RuntimeError("a pool runs once: make a new AsyncConverterPool to run again")
        self._loop, self._context = asyncio.get_running_loop(), copy_context()
        try:
            for line in self._lines:
                _prepare(line)
            async with asyncio.TaskGroup() as self._group:
                feeders = [self._group.create_task(self._feed(line)) for line in self._lines]
                try:
                    await self._stopping.wait()
                finally:
                    self._stopping.set()
                    for feeder in feeders:
                        feeder.cancel()
        except BaseExceptionGroup as errors:
            error = errors.exceptions[0]
            raise (error.__cause__ if isinstance(error, _Unusable) else error) or error from None
        except (KeyboardInterrupt, SystemExit) as error:
            # What a slot's task has thrown out of the loop would leave it for the second time.
            raise (asyncio.CancelledError if self._interrupted else error) from None
        finally:
            for timer in self._timers:
                timer.cancel()
            self._stopping.set()
            self._up.set()
            self._over.set()

    async def stop(self, timeout: float | None = 30.0) -> None:  # noqa: ASYNC109
        """Choose no more files, let those under way finish, and end `run`.

        Files that wait, or come now, stay for the next start. In the task of a `submit` it only
        requests all that, and returns at once. When it is cancelled, the request stands.

        Args:
            timeout: Seconds for the files under way. Then their conversions are abandoned, their
                submissions cancelled, and those that ignore it waited for; the files stay for
                the next start. None never cancels.

        Raises:
            TypeError, ValueError: If `timeout` is no duration.
            RuntimeError: On another loop.
        """
        seconds = _FOR_EVER if timeout is None else _seconds("timeout", timeout)
        self._check_loop()
        self._stop_asked = True
        self._stopping.set()
        if self._loop is not None and not self._over.is_set():
            self._timers.append(self._loop.call_later(seconds, self._cancel_tasks))
            if asyncio.current_task() not in self._tasks:
                await self._over.wait()

    def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()

    @property
    def stats(self) -> ConverterPoolStats:
        """The figures of one instant, if read on the loop. Cost: grows with the converters."""
        return ConverterPoolStats(
            converted=self._converted,
            failed=self._failed,
            held=sum(len(line.held) for line in self._lines),
            running=len(self._tasks),
            waiting=sum(len(line.waiting) for line in self._lines),
            abandoned=self._abandoned,
            lost=tuple(self._lost),
        )

    async def __aenter__(self) -> Self:
        if self._loop is not None or self._runner is not None:
            await self.run()  # which refuses, unless it was stopped
        self._runner = asyncio.create_task(self.run())
        try:
            await self._up.wait()
        except asyncio.CancelledError:
            await self.__aexit__()
            raise
        if self._over.is_set():
            await self._runner  # raises what prevented the start
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        self._check_loop()  # before anything is cancelled from a loop that is not its own
        try:
            await self.stop()
        finally:
            self._cancel_tasks()  # there are some if the wait was cancelled
            await self._runner

    def _check_loop(self) -> None:
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            raise RuntimeError("the pool runs on another event loop: call it there")

    # From a watch to a line, and from the lines to a slot. What is in a line can be chosen at
    # once; what is not stays in the watch, so that a million files cost no memory here.

    async def _feed(self, line: _Line[T]) -> None:
        try:
            async with DirectoryWatch(line.watch_dir, line.converter.patterns) as watch:
                line.watching = True
                if all(each.watching for each in self._lines):
                    self._up.set()
                async for path in watch:
                    self._announce(line, path)
                    while len(line.waiting) >= max(_AHEAD, self._max_concurrency):
                        line.room.clear()
                        await line.room.wait()
        except Exception:
            self._lost.append(line.converter.name)
            # Whoever starts the pool, or runs it for nothing, should know.
            if not self._up.is_set() or len(self._lost) == len(self._lines):
                self._stopping.set()
                raise
            _logger.exception("converter %r has lost its directory", line.converter.name)

    def _announce(self, line: _Line[T], path: Path) -> None:
        """Take note of a file that is new, or has changed."""
        seen = _look(path)
        if seen is None or line.held.get(path) == seen:
            return
        line.held.pop(path, None)
        if path in line.active:
            line.active[path] = seen
        else:
            line.waiting[path] = seen  # in its old place, if it had one
            self._dispatch()

    def _dispatch(self) -> None:
        """Choose files for the free slots, as late as can be: when there is a slot."""
        while not self._stopping.is_set() and self._taken() < self._max_concurrency:
            if (chosen := self._next()) is None:
                break
            line, path, seen = chosen
            line.active[path] = seen
            name, handling = f"{line.converter.name}: {path.name}", self._handle(line, path, seen)
            task = self._group.create_task(handling, name=name, context=self._context.copy())
            self._tasks.add(task)
            task.add_done_callback(self._release)

    def _taken(self) -> int:
        """The slots in use. A given executor's worker that hangs is one worker less."""
        return len(self._tasks) + (0 if self._own else self._abandoned)

    def _next(self) -> tuple[_Line[T], Path, _Look] | None:
        while lines := [line for line in self._lines if line.waiting]:
            line = min(lines, key=lambda each: (each.converter.priority, each.served))
            path, announced = line.waiting.popitem(last=False)
            line.room.set()
            now = _look(path)
            # If it is being written, it will be announced when it has been closed.
            if now is not None and (now == announced or _only_dated_back(announced, now)):
                line.served = next(self._turns)
                return line, path, now
        return None

    def _release(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._stopping.set()
            self._interrupted |= isinstance(task.exception(), KeyboardInterrupt | SystemExit)
        self._dispatch()

    # One file. The moves stand in plain functions: no cancellation can come in between.

    async def _handle(self, line: _Line[T], path: Path, seen: _Look) -> None:
        stage, error, task = "convert", None, asyncio.current_task()
        try:
            future = await self._settled(line.converter, path)
            error = self._error_of(future)
            # What is gone cannot be converted anew: a converter may have moved or deleted it.
            if error is None and _look(path) in (seen, None):
                stage = "submit"
                await self._submit(future.result())
        except BaseException as raised:
            fatal = not isinstance(raised, Exception | asyncio.CancelledError)
            fatal = fatal or isinstance(raised, _Unusable)
            if fatal or (task and task.cancelling()):
                del line.active[path]  # it stays where it is, for the next start
                raise
            error = raised
        try:
            self._conclude(line, path, seen, stage, error)
        finally:
            error = None  # or it and this frame would hold each other

    async def _settled(self, converter: Converter[T], path: Path) -> "futures.Future[T]":
        """Run a conversion; its future, which is done."""
        call: Callable[[], T] = partial(converter.convert, path)
        if self._in_context:
            call = partial(copy_context().run, call)
        try:
            future = self._start(call)
        except Exception as error:
            raise _Unusable from error
        done = asyncio.Event()
        future.add_done_callback(lambda _: self._post(done.set))
        try:
            async with asyncio.timeout(self._timeout):
                await done.wait()
        except TimeoutError:
            if not future.done():  # else it is the loop that was late
                message = f"not converted within {self._timeout} s: mend converter"
                raise TimeoutError(f"{message} {converter.name!r}, or give it more") from None
        finally:
            if not future.done() and not future.cancel():
                self._abandoned += 1
                future.add_done_callback(lambda _: self._post(self._ended_late))
        return future

    def _error_of(self, future: "futures.Future[T]") -> BaseException | None:
        """What a conversion raised; raises _Unusable if it was the executor."""
        if future.cancelled():
            raise _Unusable from RuntimeError("the executor was shut down: stop the pool first")
        if isinstance(future.exception(), futures.BrokenExecutor) and not self._own:
            raise _Unusable from future.exception()
        return future.exception()

    def _post(self, callback: Callable[[], object]) -> None:
        """Have the loop call, from any thread."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(callback)

    def _ended_late(self) -> None:
        self._abandoned -= 1
        self._dispatch()

    def _conclude(
        self, line: _Line[T], path: Path, seen: _Look, stage: str, error: BaseException | None
    ) -> None:
        """Move a file to where it belongs, unless it has become another one."""
        announced, now = line.active.pop(path), _look(path)
        error = None if error is None else _tellable(error)
        if now is None:
            _logger.warning("%s has gone before it was moved", path, exc_info=error)
        elif now != seen:
            # It was written to, or replaced: what was converted is old, or half of each.
            if announced != seen or _only_dated_back(seen, now):
                line.waiting[path] = announced if announced != seen else now
        elif error is None:
            self._converted += self._move(line, path, seen, line.done_dir, b"")
        else:
            name = line.converter.name
            _logger.error("converter %r could not %s %s", name, stage, path, exc_info=error)
            reason = _reason(name, path, stage, error)
            self._failed += self._move(line, path, seen, line.error_dir, reason)

    def _move(self, line: _Line[T], path: Path, seen: _Look, folder: Path, reason: bytes) -> bool:
        try:
            target = _move(path, folder, reason)
            if _look(target) == seen:
                return True
            # In the last moment a producer has put another file there: it is not done yet.
            back = _put_back(target, path)
            line.waiting[back] = _look(back) or seen
        except OSError:
            _logger.exception("%s could not be moved to %s: it stays", path, folder)
            line.held[path] = seen
        return False


def _shares_memory(executor: futures.Executor) -> bool:
    """Others pickle what they are given, and a context cannot be pickled."""
    pickling = getattr(futures, "InterpreterPoolExecutor", ())  # though it has threads
    return isinstance(executor, futures.ThreadPoolExecutor) and not isinstance(executor, pickling)


def _start_thread(call: Callable[[], T]) -> "futures.Future[T]":
    """Call in a daemonic thread: one that hangs holds up neither its slot nor the exit."""
    future: futures.Future[T] = futures.Future()
    threading.Thread(target=_run, args=(future, call), name="convert", daemon=True).start()
    return future


def _run(future: "futures.Future[T]", call: Callable[[], T]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            result = call()
        except BaseException as error:  # SystemExit is the file's failure, too
            future.set_exception(error)
            del future  # the error holds this frame
        else:
            future.set_result(result)


# Files.


def _look(path: Path) -> _Look | None:
    """What is there now, if it is a regular file."""
    with contextlib.suppress(OSError):
        found = path.lstat()
        if stat.S_ISREG(found.st_mode):
            return _Look(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    return None


def _only_dated_back(before: _Look, now: _Look) -> bool:
    """Whether a file only got an older date, as copies that keep the date do after closing."""
    return now[:3] == before[:3] and now.mtime_ns < before.mtime_ns


def _move(path: Path, folder: Path, reason: bytes) -> Path:
    """Move a file into a folder, overwriting nothing; its reason, if any, is written first."""
    endings = ("", ".error.json") if reason else ("",)
    made = _first_free(path.name, lambda name: _reserve(folder, name, endings))
    try:
        for file in made[1:]:
            file.write_bytes(reason)
        return path.replace(made[0])
    except BaseException:
        _remove(made)
        raise


def _put_back(moved: Path, path: Path) -> Path:
    """Move a file back to where it was, or beside it if there is another one by now."""

    def link(name: str) -> Path:
        path.with_name(name).hardlink_to(moved)
        return path.with_name(name)

    back = _first_free(path.name, link)
    moved.unlink()
    return back


def _reserve(folder: Path, name: str, endings: Iterable[str]) -> list[Path]:
    """Make empty files, for a rename to replace: a rename alone would overwrite.

    They are opened for reading, since closing them after writing would tell a watch of new files.
    """
    made: list[Path] = []
    try:
        for ending in endings:
            file = folder / (_cut(name, _LONGEST_NAME) + ending if ending else name)
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o666))
            made.append(file)
    except BaseException:
        _remove(made)
        raise
    return made


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _first_free(name: str, make: Callable[[str], R]) -> R:
    """Make something of that name or, if it is taken, of that name and the time."""
    wanted = name
    while True:
        try:
            return make(wanted)
        except FileExistsError:
            stamp = f"-{datetime.now(UTC):%Y%m%dT%H%M%S%f}" + _cut(Path(name).suffix, 50)
            wanted = _cut(Path(name).stem, _LONGEST_NAME - 80) + stamp


def _cut(name: str, length: int) -> str:
    """The name, or as many of its bytes."""
    return os.fsdecode(os.fsencode(name)[:length])


def _tellable(error: BaseException) -> BaseException:
    """The error or, if logging or a traceback of it would fail, one that says so."""
    with contextlib.suppress(Exception):
        _ = bool(error), traceback.format_exception(error)
        return error
    return RuntimeError(f"cannot show {object.__repr__(error)}").with_traceback(error.__traceback__)


def _reason(converter: str, path: Path, stage: str, error: BaseException) -> bytes:
    told = traceback.TracebackException.from_exception(error)  # which bears a faulty __str__
    reason = {
        "file": path.name,
        "converter": converter,
        "stage": stage,
        "error": type(error).__name__,
        "message": str(told),
        "traceback": list(told.format()),
        "failed_at": datetime.now(UTC).isoformat(),
    }
    return json.dumps(reason, indent=1).encode() + b"\n"


def _prepare(line: _Line[T]) -> None:
    """See that a converter's directories can be used; make those that it did not name."""
    converter, device = line.converter, None
    for what in ("watch_dir", "done_dir", "error_dir"):
        folder: Path = getattr(line, what)
        if getattr(converter, what) is None:
            with contextlib.suppress(FileExistsError):  # what is there is looked at below
                folder.mkdir()
        code, problem = 0, ""
        if not folder.exists():
            code, problem = errno.ENOENT, "is missing: create it"
        elif not folder.is_dir():
            code, problem = errno.ENOTDIR, "is no directory: name one"
        elif not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            code, problem = errno.EACCES, "must be readable and writable: change its mode"
        elif (device := device or folder.stat().st_dev) != folder.stat().st_dev:
            code, problem = errno.EXDEV, "is on another file system than watch_dir: name one on it"
        if code:
            raise OSError(code, f"{what} of converter {converter.name!r} {problem}", str(folder))


# Arguments.


def _lines(converters: Iterable[Converter[T]]) -> list[_Line[T]]:
    _check_type("converters", converters, Iterable)
    lines: list[_Line[T]] = []
    for each in converters:
        _check_type("converters", each, Converter)
        watched = Path(each.watch_dir).absolute()
        done = Path(watched / "done" if each.done_dir is None else each.done_dir).absolute()
        error = Path(watched / "error" if each.error_dir is None else each.error_dir).absolute()
        lines.append(_Line(each, watched, done, error))
    if not lines:
        raise ValueError("converters must hold one Converter at least, got none")
    for one, other in itertools.combinations(lines, 2):
        _check_apart(one, other)
    for line, other in itertools.product(lines, lines):
        for what, folder in (("done_dir", line.done_dir), ("error_dir", line.error_dir)):
            if _same(folder, other.watch_dir):
                raise ValueError(
                    f"{what} of converter {line.converter.name!r} is watched by "
                    f"{other.converter.name!r}, which might convert its files again: name another "
                    f"directory than {str(folder)!r}"
                )
    return lines


def _check_apart(one: _Line[T], other: _Line[T]) -> None:
    first, second = one.converter, other.converter
    if first.name == second.name:
        raise ValueError(f"converters must have different names, got {first.name!r} twice")
    for a, b in itertools.product(first.patterns, second.patterns):
        if _same(one.watch_dir, other.watch_dir) and _overlap(a, b):
            raise ValueError(
                f"converters {first.name!r} and {second.name!r} both watch {str(one.watch_dir)!r}, "
                f"and a name can match {a!r} as well as {b!r}: make them exclude each other"
            )


def _same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _overlap(first: str, second: str) -> bool:
    """Whether a name can match both patterns. Two sets in brackets are taken to overlap."""
    pieces = re.compile(r"\[!?+\]?+[^]]*\]|.", re.DOTALL).findall
    a, b = pieces(os.path.normcase(first)), pieces(os.path.normcase(second))

    @cache
    def meet(i: int, j: int) -> bool:
        """The same of what is left of the patterns, in pieces, from here on."""
        if i < len(a) and a[i] == "*":
            return meet(i + 1, j) or (j < len(b) and meet(i, j + 1))
        if j < len(b) and b[j] == "*":
            return meet(i, j + 1) or (i < len(a) and meet(i + 1, j))
        if i == len(a) or j == len(b):
            return i == len(a) and j == len(b)
        # A character against a set is decided; against "?", or set against set, it can be.
        one, other = sorted((a[i], b[j]), key=len)
        alike = "?" in (one, other) or len(one) > 1 or fnmatch.fnmatchcase(one, other)
        return alike and meet(i + 1, j + 1)

    return meet(0, 0)


def _is_async(function: object) -> bool:
    call = getattr(function, "__call__", None)  # noqa: B004  (of an object that can be called)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _check_submit(submit: Callable[[T], Awaitable[None]]) -> None:
    function: object = submit
    while isinstance(function, partial):
        function = function.func
    # A lambda may return an awaitable, and so may an object; a plain function blocks the loop.
    plain = inspect.isroutine(function) and getattr(function, "__name__", "") != "<lambda>"
    if not callable(submit) or (plain and not inspect.iscoroutinefunction(function)):
        raise TypeError(
            f"submit must be a coroutine function, got {submit!r}: define it with `async def`, "
            "and put what blocks into asyncio.to_thread"
        )


def _check_type(name: str, value: object, *kinds: type) -> None:
    if not isinstance(value, kinds) or (isinstance(value, bool) and int in kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{name} must be of type {wanted}, got {value!r}")


def _seconds(name: str, value: float) -> float:
    _check_type(name, value, int, float)
    if not value >= 0:
        raise ValueError(f"{name} must be 0 or more seconds, got {value!r}")
    return min(value, _FOR_EVER)
