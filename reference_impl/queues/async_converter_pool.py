# async_converter_pool.py: files of watched directories converted off the loop (AsyncConverterPool)
# https://executable-guarantees.example/queues/async_converter_pool.html
# Version 1.1.0 (2026-11-30); Python 3.11 to 3.14, with or without the GIL; needs watchdog 7
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: 2026 The Executable Guarantees authors
"""Converts the files that appear in directories, by priority, with bounded concurrency.

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

Fork:
    The child must not use the pool.

Exit:
    `asyncio.run` cancels `run`; the files under way stay where they are, for the next start. The
    pool's own threads are daemonic, so none delays the exit; a given executor's may.

Signals:
    Handlers, and finalizers (`__del__`), must not call the pool; what `loop.add_signal_handler`
    runs may start a task that calls `stop`. Nothing here relies on the GIL.
"""

import asyncio
import contextlib
import errno
import filecmp
import hashlib
import itertools
import json
import logging
import math
import os
import platform
import re
import shutil
import stat
import threading
import traceback
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent import futures
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Generic, NoReturn, Self, SupportsIndex, TypeVar

from ..bridges.file_watch import DirectoryWatch, name_filter
from ._spool import (
    UNSUPPORTED,
    Lifecycle,
    Look,
    State,
    _check_async,
    _check_count,
    _check_plain,
    _check_seconds,
    _check_type,
    is_open_for_writing,
    look,
    rename_exclusively,
    rename_new,
    unlink_quietly,
)

__all__ = ["AsyncConverterPool", "Converter", "ConverterPoolStats"]

_PREFETCH = 64  # files, at least, that are drawn from a watch before there are slots for them
_RECHECK_SECONDS = 1.0  # until a file that is still open, or cannot be examined, is looked at again
_LONGEST_STEM = 255 - len(".error.json")  # bytes, where a file system takes names of 255
_SUBMITTED, _FAILED = ".submitted", ".failed"  # the ends of hidden names: files to be moved on
_STAMP = re.compile(r"-\d{8}T\d{12}(?=\.|\Z)")
_UNKNOWN = Look(-1, -1, -1, -1)  # the system does not tell now: it may well be there
_logger = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Converter(Generic[T]):
    """Which files to convert, and how.

    Args:
        name: what messages and `stats` call it; each converter of a pool has its own.
        watch_dir: the directory in which the files appear, not those below it.
        patterns: shell patterns for names, such as `("*.csv",)`. Hidden names never match. Where
            several converters watch a directory, the first whose patterns match takes a file.
        convert: called with a file's absolute path, in a thread or another process; what it
            returns is submitted. What it raises is the file's failure.
        priority: the lowest number comes first; equals take turns.
        done_dir: where converted files go, an existing directory, also on another file system.
            None is `done` in the watched directory, created if necessary.
        error_dir: the same for files that could not be converted or submitted, and `error`.
        exclude: shell patterns for names that it leaves alone, such as `("~$*", "*.tmp")`.

    Raises:
        TypeError: an argument is of the wrong type, `convert` a coroutine function included.
        ValueError: the name or the patterns are empty, or a pattern can match no name.
    """

    name: str
    watch_dir: Path
    patterns: Sequence[str]
    convert: Callable[[Path], T]
    priority: int = 5
    done_dir: Path | None = None
    error_dir: Path | None = None
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        _check_type("name", self.name, "a str", str)
        if not self.name:
            raise ValueError("name must be a name of its own, not ''")
        _check_type("watch_dir", self.watch_dir, "a path", str, os.PathLike)
        for what in ("patterns", "exclude"):
            given = getattr(self, what)
            if isinstance(given, Iterable) and not isinstance(given, str | bytes):
                object.__setattr__(self, what, tuple(given))  # an iterator serves once
        name_filter(self.patterns, self.exclude)  # refuses bad patterns
        _check_plain("convert", self.convert)
        _check_type("priority", self.priority, "an int", int)
        for what in ("done_dir", "error_dir"):
            _check_type(what, getattr(self, what), "a path or None", str, os.PathLike, type(None))


@dataclass(frozen=True, slots=True, weakref_slot=True)
class ConverterPoolStats:
    """What a pool has done since it was made, and what it does now."""

    converted: int  # files converted, submitted, and moved to their done_dir
    failed: int  # files moved to their error_dir
    held: int  # files dealt with that could not be moved yet
    running: int  # files being converted or submitted now
    waiting: int  # files that wait for a slot, or to be closed, as far as they were noticed
    abandoned: int  # conversions past their timeout, or cancelled, that have not ended yet
    lost: tuple[str, ...]  # the names of converters whose watch has ended


class AsyncConverterPool(Generic[T]):
    """Converts files as they appear in directories, the most urgent first.

    At-least-once delivery: a process that ends between the submission of a result and the move of
    its file converts and submits it again at the next start. Otherwise once for each appearance:
    a file that changes, or comes again, is converted again. A file that cannot be moved then is
    hidden where it is, and moved later; it is not submitted again.

    Producers write elsewhere on the same file system and rename the file in; what is written in
    place is converted when it has been closed, where the system tells (Linux), and a conversion
    during which its file changed is thrown away.

    Single use: `run` it, or enter it as a context manager, which runs it in the background
    and stops it on leaving, and raises what ended it before.

    Args:
        converters: at least one. Those of one directory share a watch.
        submit: called on the loop with each result; what it returns is awaited. What it raises
            is the file's failure. After a crash a result may come again.
        max_concurrency: the most files that are converted or submitted at once.
        executor: runs the conversions, and is not shut down. It should have at least
            `max_concurrency` workers, or files line up in it without priority, and their timeouts
            run. None gives each conversion a daemonic thread of its own.
        convert_timeout: seconds for one conversion; then its file has failed, and its result is
            dropped. Its thread cannot be ended: it runs on. None for no limit.
        settle: seconds, from 0, for which a file that a scan finds must not change before it is
            converted, as DirectoryWatch takes it.

    Raises:
        TypeError: an argument is of the wrong type, a plain function as `submit` included.
        ValueError: a number is out of range, two converters share a name, or a file would be
            moved into a watched directory.

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
        settle: float = 0.0,
    ) -> None:
        self._inboxes = _inboxes(converters)
        self._lanes = [lane for inbox in self._inboxes for lane in inbox.lanes]
        _check_async("submit", submit)
        self._max_concurrency = _check_count("max_concurrency", max_concurrency)
        _check_type("executor", executor, "an Executor or None", futures.Executor, type(None))
        if convert_timeout is not None:
            convert_timeout = _check_seconds("convert_timeout", convert_timeout, zero=False)
        self._timeout, self._settle = convert_timeout, _check_seconds("settle", settle)
        self._submit, self._executor = submit, executor
        self._life = Lifecycle(type(self).__name__)
        self._turns = itertools.count(1)
        self._abandoned = 0
        self._lost: list[str] = []

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse copy.copy, copy.deepcopy and pickling."""
        raise TypeError(f"{type(self).__name__} cannot be copied or pickled: make another one")

    async def run(self) -> None:
        """Convert the files that are there and those that come, until `stop`.

        Returns at once if the pool was stopped before. A converter whose directory vanishes is
        logged and lost, the others go on. When `run` is cancelled, so is all that is under way,
        and the files stay for the next start.

        Raises:
            OSError: a directory cannot be used, or files cannot be moved to it; it says what to
                change. FileNotFoundError if all directories have vanished.
            BrokenExecutor, RuntimeError: the executor cannot be used any more. The files that it
                had stay for the next start.
            RuntimeError: this pool runs, or has run, already.
        """
        await self._life.run(self._serve, contextlib.nullcontext())

    async def stop(self, timeout: float | None = 30.0) -> None:  # noqa: ASYNC109
        """Choose no more files, let those under way finish, and end `run`.

        Files that wait, or come now, stay for the next start. In the task of a `submit` it only
        requests all that, and returns at once. When it is cancelled, the request stands.

        Args:
            timeout: seconds for the files under way. Then their conversions are abandoned, their
                submissions cancelled, and those that ignore it waited for; the files stay for
                the next start. None never cancels.

        Raises:
            TypeError, ValueError: `timeout` is no duration.
            RuntimeError: on another loop.
        """
        await self._life.stop(math.inf if timeout is None else _check_seconds("timeout", timeout))

    @property
    def stats(self) -> ConverterPoolStats:
        """The figures of one instant, if read on the loop. Cost: grows with the converters."""
        return ConverterPoolStats(
            converted=sum(lane.done.moved for lane in self._lanes),
            failed=sum(lane.error.moved for lane in self._lanes),
            held=sum(len(each.unmoved) + each.done.held + each.error.held for each in self._lanes),
            running=len(self._life.tasks),
            waiting=sum(len(lane.waiting) + len(lane.postponed) for lane in self._lanes),
            abandoned=self._abandoned,
            lost=tuple(self._lost),
        )

    async def __aenter__(self) -> Self:
        await self._life.enter(self.run)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._life.leave(self.stop)

    # From a watch to a lane, and from the lanes to a slot. What is in a lane can be chosen at
    # once; what is not stays in the watch, so that a million files cost no memory here.

    async def _serve(self) -> None:
        for lane in self._lanes:
            lane.prepare()
        hidden = [*_hidden_in(self._inboxes)]
        async with asyncio.TaskGroup() as group:
            for inbox in self._inboxes:
                group.create_task(self._feed(inbox))
            if hidden:
                group.create_task(self._move_on(hidden))

    async def _move_on(self, hidden: "list[tuple[_Destination, str]]") -> None:
        """Move the files that an earlier run has dealt with, and could not move."""
        for destination, path in hidden:
            await self._carry(destination, path, b"")

    async def _feed(self, inbox: "_Inbox[T]") -> None:
        """Draw files from the watch of a directory."""
        prefetch = max(_PREFETCH, self._max_concurrency)
        patterns = [each for lane in inbox.lanes for each in lane.converter.patterns]
        try:
            async with DirectoryWatch(inbox.path, patterns, settle=self._settle) as watch:
                inbox.watched = True
                if all(each.watched for each in self._inboxes):
                    self._life.serves()
                async for path in watch:
                    if (lane := inbox.lane_for(path.name)) is not None:
                        self._announce(lane, os.fspath(path))
                    while inbox.is_full(prefetch):
                        inbox.room.clear()
                        await inbox.room.wait()
        except Exception as error:
            names = [lane.converter.name for lane in inbox.lanes]
            self._lost += names
            # Whoever starts the pool, or runs it for nothing, should know.
            if not all(each.watched for each in self._inboxes) or len(self._lost) == len(
                self._lanes
            ):
                return self._life.fail(error)
            _logger.exception("converter %s has lost its directory", ", ".join(map(repr, names)))

    def _announce(self, lane: "_Lane[T]", path: str) -> None:
        """Take note of a file that is new, or has changed; when in doubt, look again later."""
        seen = _look(path)
        lane.postponed.discard(path)
        if seen is None or self._life.loop is None or self._life.state is not State.RUNNING:
            return
        if seen is _UNKNOWN or is_open_for_writing(path):
            lane.postponed.add(path)
            self._life.loop.call_later(_RECHECK_SECONDS, self._announce, lane, path)
        elif path in lane.active:
            lane.active[path] = seen
        elif lane.unmoved.get(path) != seen:
            lane.unmoved.pop(path, None)
            lane.waiting[path] = seen  # in its old place, if it had one
            self._dispatch()

    def _dispatch(self) -> None:
        """Choose files for the free slots, as late as possible: when there is a slot."""
        while self._has_room() and (chosen := self._next()) is not None:
            lane, path, seen = chosen
            lane.active[path] = seen
            name = f"{lane.converter.name}: {os.path.basename(path)}"
            self._life.spawn(partial(self._handle, lane, path, seen), name, self._dispatch)

    def _has_room(self) -> bool:
        """Whether a slot is free. A given executor's worker that hangs is one worker less."""
        taken = len(self._life.tasks) + (0 if self._executor is None else self._abandoned)
        return self._life.state is State.RUNNING and taken < self._max_concurrency

    def _next(self) -> "tuple[_Lane[T], str, Look] | None":
        while lanes := [lane for lane in self._lanes if lane.waiting]:
            lane = min(lanes, key=lambda each: (each.converter.priority, each.last_turn))
            path, announced = lane.waiting.popitem(last=False)
            lane.inbox.room.set()
            now = _look(path)
            # If it is being written, it will be announced when it has been closed.
            if now is not None and (now == announced or _only_dated_back(announced, now)):
                lane.last_turn = next(self._turns)
                return lane, path, now
            if now is _UNKNOWN:
                self._announce(lane, path)
        return None

    # One file. The moves are plain functions: no cancellation can come in between.

    async def _handle(self, lane: "_Lane[T]", path: str, seen: Look) -> None:
        future = await self._convert(lane.converter, path)
        now, stage, error = _look(path), "convert", future.exception()
        if now == seen and is_open_for_writing(path):
            now = _UNKNOWN
        # What is gone cannot be converted again: a converter may have moved or deleted it.
        if now not in (seen, None):
            return self._convert_again(lane, path, seen, now)
        if error is None:
            stage, error = "submit", await self._failure_of_submitting(future.result())
        return await self._conclude(lane, path, seen, stage, error)

    async def _failure_of_submitting(self, result: T) -> BaseException | None:
        """Submit; what that raises, unless the pool itself has cancelled it."""
        task = asyncio.current_task()
        try:
            await self._submit(result)
        except (Exception, asyncio.CancelledError) as error:
            if task and task.cancelling():
                raise
            return error
        return None

    async def _convert(self, converter: Converter[T], path: str) -> "futures.Future[T]":
        """Run a conversion; its future, which is done. What the executor raises ends the pool."""
        call: Callable[[], T] = partial(converter.convert, Path(path))
        if self._executor is None or _shares_memory(self._executor):
            call = partial(copy_context().run, call)
        start = _start_thread if self._executor is None else self._executor.submit
        future, done = start(call), asyncio.Event()
        future.add_done_callback(lambda _: self._post(done.set))
        try:
            async with asyncio.timeout(self._timeout):
                await done.wait()
        except TimeoutError:
            if not future.done():  # else it is the loop that was late
                message = f"not converted within {self._timeout} s: mend converter"
                late: futures.Future[T] = futures.Future()
                late.set_exception(TimeoutError(f"{message} {converter.name!r}, or give it more"))
                return late
        finally:
            if not future.done() and not future.cancel():
                self._abandoned += 1
                future.add_done_callback(lambda _: self._post(self._ended_late))
        if future.cancelled():
            raise RuntimeError("the executor was shut down: stop the pool first")
        error = future.exception()
        if isinstance(error, futures.BrokenExecutor) and self._executor is not None:
            raise error
        return future

    def _post(self, callback: Callable[[], object]) -> None:
        """Have the loop call, from any thread."""
        assert self._life.loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._life.loop.call_soon_threadsafe(callback)

    def _ended_late(self) -> None:
        self._abandoned -= 1
        self._dispatch()

    def _convert_again(self, lane: "_Lane[T]", path: str, seen: Look, now: Look | None) -> None:
        """A file was written to, or replaced: what was converted is old, or half of each."""
        announced = lane.active.pop(path)
        if now is _UNKNOWN:
            self._announce(lane, path)
        elif now is not None and (announced != seen or _only_dated_back(seen, now)):
            lane.waiting[path] = announced if announced != seen else now

    async def _conclude(
        self, lane: "_Lane[T]", path: str, seen: Look, stage: str, error: BaseException | None
    ) -> None:
        """Move a file to where it belongs, unless it has become another one."""
        name, destination, reason = lane.converter.name, lane.done, b""
        if error is not None:
            error, destination = _printable(error), lane.error
            reason = _reason(name, path, stage, error)
        now = _look(path)
        if now not in (seen, None, _UNKNOWN):
            return self._convert_again(lane, path, seen, now)
        del lane.active[path]
        if now is None:
            return _logger.warning("%s has gone before it was moved", path, exc_info=error)
        if error is not None:
            _logger.error("converter %r could not %s %s", name, stage, path, exc_info=error)
        try:
            moved = destination.accept(path, reason)
            if _look(moved) not in (seen, _UNKNOWN):
                # In the last moment a producer has put another file there: it is not done yet.
                return self._announce(lane, destination.put_back(moved, path))
        except OSError:
            message = "%s could not be moved to %s, nor hidden: the next start does it again"
            if _look(path) is not None:  # else it has gone in the last moment
                lane.unmoved[path] = seen
            return _logger.exception(message, path, destination.folder)
        return await self._carry(destination, moved, reason)

    async def _carry(self, destination: "_Destination", path: str, reason: bytes) -> None:
        """Move a file on if it is hidden; it stays hidden where that fails."""
        carry = partial(destination.carry, path, reason)
        try:
            if destination.by_copy:
                await _in_thread(carry)
            else:
                carry()
        except OSError:
            message = "%s could not be moved to %s: it is hidden until the next start moves it on"
            _logger.exception(message, path, destination.folder)
            destination.held += 1
        else:
            destination.moved += 1


def _shares_memory(executor: futures.Executor) -> bool:
    """Others pickle what they are given, and a context cannot be pickled."""
    pickling = getattr(futures, "InterpreterPoolExecutor", ())  # though it has threads
    return isinstance(executor, futures.ThreadPoolExecutor) and not isinstance(executor, pickling)


def _start_thread(call: Callable[[], R]) -> "futures.Future[R]":
    """Call in a daemonic thread: one that hangs delays neither its slot nor the exit."""
    future: futures.Future[R] = futures.Future()
    threading.Thread(target=_run, args=(future, call), name="convert", daemon=True).start()
    return future


def _run(future: "futures.Future[R]", call: Callable[[], R]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            result = call()
        except BaseException as error:  # SystemExit is the file's failure, too
            future.set_exception(error)
            del future  # the error holds this frame
        else:
            future.set_result(result)


async def _in_thread(call: Callable[[], object]) -> None:
    """Call off the loop; a cancellation waits for the end, lest it be done again meanwhile."""
    future = asyncio.wrap_future(_start_thread(call))
    try:
        await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


# Directories. One that several converters watch is watched once, and each converter has two
# destinations. From here on there are only plain functions.


@dataclass(slots=True, eq=False)
class _Inbox(Generic[T]):
    """A watched directory, and the converters for its files, in the order that they were given."""

    path: str
    lanes: "list[_Lane[T]]" = field(default_factory=list)
    room: asyncio.Event = field(default_factory=asyncio.Event)  # set when a file leaves a lane
    watched: bool = False

    def lane_for(self, name: str) -> "_Lane[T] | None":
        """That of the first converter whose patterns match."""
        return next((lane for lane in self.lanes if lane.accepts(name)), None)

    def is_full(self, most: int) -> bool:
        """Whether the next file need not be drawn yet, since it cannot be more urgent."""
        urgent = min(lane.converter.priority for lane in self.lanes)
        most_urgent = (lane for lane in self.lanes if lane.converter.priority == urgent)
        return all(len(lane.waiting) >= most for lane in most_urgent)


@dataclass(slots=True, eq=False)
class _Lane(Generic[T]):
    """A converter and its files."""

    converter: Converter[T]
    inbox: _Inbox[T]
    accepts: Callable[[str], bool]
    done: "_Destination"
    error: "_Destination"
    last_turn: int = 0  # a number that grows
    # A path is in at most one of the next two, each with its look when announced last.
    waiting: OrderedDict[str, Look] = field(default_factory=OrderedDict)
    active: dict[str, Look] = field(default_factory=dict)
    postponed: set[str] = field(default_factory=set)  # in doubt
    unmoved: dict[str, Look] = field(default_factory=dict)  # dealt with, but still there

    def prepare(self) -> None:
        """See that the directories can be used; create those that the converter did not name."""
        for each in (None, self.done, self.error):
            what, folder = (each.keeps, each.folder) if each else ("watch_dir", self.inbox.path)
            if getattr(self.converter, what) is None:
                with contextlib.suppress(FileExistsError):  # what is there is looked at below
                    os.mkdir(folder)
            code, problem = _fault_of(folder)
            try:
                if each is not None and not problem:
                    each.try_out()
            except OSError as error:
                code, problem = error.errno or errno.EIO, f"cannot take files: {error.strerror}"
            if problem:
                who = f"{what} of converter {self.converter.name!r}"
                raise OSError(code, f"{who} {problem}", folder)


@dataclass(slots=True, eq=False)
class _Destination:
    """Where a converter's files end, and how they get there.

    By one rename. Where there is none from the one directory to the other (file systems, mounts),
    a file is hidden beside its old place, by one rename, too, and `carry` copies it from there.
    So a file that has been dealt with is never taken again, whatever happens to the copy.
    """

    keeps: str  # done_dir or error_dir
    inbox: str
    folder: str
    ending: str  # of the names of hidden files
    by_copy: bool = False
    moved: int = 0
    held: int = 0

    def try_out(self) -> None:
        """Find out how files get here, by one that is hidden."""
        probe = _temporary(self.inbox, self.folder)
        arrived = os.path.join(self.folder, os.path.basename(probe))
        try:
            unlink_quietly(arrived)
            open(probe, "wb").close()
            _refuse_links(probe)
            try:
                rename_new(probe, arrived)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                self.by_copy = True
                self._copy_as(probe, b"", os.path.basename(probe))
        finally:
            unlink_quietly(probe)
            unlink_quietly(arrived)

    def accept(self, path: str, reason: bytes) -> str:
        """Take a file from the converters, in one step; where it is then.

        It is here or, where it cannot get here so, hidden in its own directory, to be carried.
        """
        name = os.path.basename(path)
        if not self.by_copy:
            with contextlib.suppress(OSError):
                return _first_free(name, partial(self._enter, path, reason))
        hidden = os.path.join(self.inbox, ".")
        return _first_free(name, lambda name: _renamed(path, f"{hidden}{name}{self.ending}"))

    def _enter(self, path: str, reason: bytes, name: str) -> str:
        note = os.path.join(self.folder, _cut(name, _LONGEST_STEM) + ".error.json")
        unwritten, written = _temporary(self.folder, path), ""
        try:
            if reason:
                with open(unwritten, "wb") as file:
                    file.write(reason)
                written = _renamed(unwritten, note)
            return _renamed(path, os.path.join(self.folder, name))
        except BaseException:
            unlink_quietly(unwritten)
            unlink_quietly(written)
            raise

    def put_back(self, moved: str, path: str) -> str:
        """Move a file back to where it was, or beside it if there is another one by now."""
        folder, name = os.path.split(path)
        return _first_free(name, lambda name: _renamed(moved, os.path.join(folder, name)))

    def carry(self, path: str, reason: bytes) -> None:
        """Move a file on if it is hidden; the same again completes what was cut off."""
        folder, name = os.path.split(path)
        if folder == self.inbox:
            if self.ending == _FAILED:
                reason = reason or b'{"message": "the log of an earlier run has the reason"}\n'
            move = partial(self._copy_as if self.by_copy else self._enter, path, reason)
            _first_free(name[1 : -len(self.ending)], move, os.lstat(path).st_mtime)

    def _copy_as(self, path: str, reason: bytes, name: str) -> str:
        target, copy = os.path.join(self.folder, name), _temporary(self.folder, path)
        if not _is_copied(path, target):
            try:
                _copy(path, copy)
                self._enter(copy, reason, name)
            finally:
                unlink_quietly(copy)
            _synchronize(self.folder)
        os.unlink(path)
        return target


# Files.


def _look(path: str) -> Look | None:
    try:
        return look(path)
    except OSError:
        return _UNKNOWN


def _only_dated_back(before: Look, now: Look) -> bool:
    """Whether a file only got an older date, as copies that keep the date do after closing."""
    return now[:3] == before[:3] and now.mtime_ns < before.mtime_ns


def _hidden_in(inboxes: Iterable[_Inbox[T]]) -> Iterator[tuple[_Destination, str]]:
    """The files that have been dealt with, and are to be moved on."""
    for inbox in inboxes:
        for name in sorted(os.listdir(inbox.path)):
            stem, ending = os.path.splitext(name)
            if name.startswith(".") and ending in {_SUBMITTED, _FAILED}:
                path = os.path.join(inbox.path, name)
                if (lane := inbox.lane_for(_STAMP.sub("", stem[1:]))) is None:
                    _logger.warning("%s belongs to no converter: it is left alone", path)
                elif _look(path):
                    yield (lane.done if ending == _SUBMITTED else lane.error), path


def _fault_of(folder: str) -> tuple[int, str]:
    """Why files cannot be moved out of a directory, or into it, if they cannot."""
    if not os.path.exists(folder):
        return errno.ENOENT, "is missing: create it"
    if not os.path.isdir(folder):
        return errno.ENOTDIR, "is no directory: name one"
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return errno.EACCES, "must be readable and writable: change its mode"
    found = os.stat(folder)
    if found.st_mode & stat.S_ISVTX and os.geteuid() not in {0, found.st_uid}:  # never on Windows
        return errno.EPERM, "must not be sticky, or other users' files stay there: `chmod -t` it"
    return 0, ""


def _refuse_links(probe: str) -> None:
    """Refuse to move files by links where other users' files may not be linked."""
    try:
        rename_exclusively(probe, f"{probe}.new")
    except OSError as error:
        protected = Path("/proc/sys/fs/protected_hardlinks")
        if error.errno not in UNSUPPORTED or not protected.exists() or not os.geteuid():
            return
        if protected.read_text().strip() != "0":
            reason = "others' files, whose links fs.protected_hardlinks forbids: set it to 0, or "
            raise OSError(errno.EPERM, f"{reason}use a file system with RENAME_NOREPLACE") from None
    else:
        os.rename(f"{probe}.new", probe)


def _is_copied(path: str, target: str) -> bool:
    """Whether an earlier attempt has copied the file; FileExistsError if another one is there."""
    if not os.path.lexists(target):
        return False
    same = os.lstat(path).st_mtime_ns == os.lstat(target).st_mtime_ns
    if same and filecmp.cmp(path, target, shallow=False):
        return True
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)


def _first_free(name: str, make: Callable[[str], str], date: float | None = None) -> str:
    """Make something of that name or, if it is taken or too long, of that name and the time."""
    for number in itertools.count():
        when = datetime.now(UTC) if date is None else datetime.fromtimestamp(date + number, UTC)
        stem, ending = os.path.splitext(name)
        stamped = f"{_cut(stem, _LONGEST_STEM - 80)}-{when:%Y%m%dT%H%M%S%f}{_cut(ending, 50)}"
        try:
            return make(stamped if number else name)
        except OSError as error:
            if error.errno != errno.EEXIST and (number or error.errno != errno.ENAMETOOLONG):
                raise
    raise AssertionError("numbers never end")


def _renamed(source: str, target: str) -> str:
    rename_new(source, target)
    return target


def _cut(name: str, length: int) -> str:
    """The name, or as many of its bytes."""
    return os.fsdecode(os.fsencode(name)[:length])


def _copy(source: str, target: str) -> None:
    """Copy a file to the disk, with its mode and times where the file system takes them."""
    with open(source, "rb") as original, open(target, "wb") as copy:
        shutil.copyfileobj(original, copy, 1 << 20)
        copy.flush()
        with contextlib.suppress(OSError):
            shutil.copystat(source, target)
        os.fsync(copy.fileno())


def _synchronize(folder: str) -> None:
    """See that the names in a directory survive a loss of power."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _temporary(folder: str, source: str) -> str:
    """A hidden path, the same each time, which other machines with that folder do not use."""
    digest = hashlib.sha256(os.fsencode(f"{platform.node()} {source}")).hexdigest()
    return os.path.join(folder, f".{digest[:32]}.copy")


def _printable(error: BaseException) -> BaseException:
    """The error or, if logging or a traceback of it would fail, one that says so."""
    with contextlib.suppress(Exception):
        _ = bool(error), traceback.format_exception(error)
        return error
    return RuntimeError(f"cannot show {object.__repr__(error)}").with_traceback(error.__traceback__)


def _reason(converter: str, path: str, stage: str, error: BaseException) -> bytes:
    shown = traceback.TracebackException.from_exception(error)  # tolerates a faulty __str__
    whose = {"file": os.path.basename(path), "converter": converter, "stage": stage}
    what = {"error": type(error).__name__, "message": str(shown), "traceback": [*shown.format()]}
    when = {"failed_at": datetime.now(UTC).isoformat()}
    return json.dumps(whose | what | when, indent=1).encode() + b"\n"


# Arguments.


def _inboxes(converters: Iterable[Converter[T]]) -> list[_Inbox[T]]:
    """The watched directories, each with its converters."""
    _check_type("converters", converters, "an iterable of Converters", Iterable)
    inboxes: dict[str, _Inbox[T]] = {}
    names = set[str]()
    for each in converters:
        _check_type("converters", each, "an iterable of Converters", Converter)
        if each.name in names:
            raise ValueError(f"converters must have different names, not {each.name!r} twice")
        names.add(each.name)
        watched = Path(each.watch_dir).absolute()
        inbox = inboxes.setdefault(os.path.realpath(watched), _Inbox(str(watched)))
        done = Path(inbox.path, "done") if each.done_dir is None else Path(each.done_dir)
        error = Path(inbox.path, "error") if each.error_dir is None else Path(each.error_dir)
        to_done = _Destination("done_dir", inbox.path, str(done.absolute()), _SUBMITTED)
        to_error = _Destination("error_dir", inbox.path, str(error.absolute()), _FAILED)
        accepts = name_filter(each.patterns, each.exclude)
        inbox.lanes.append(_Lane(each, inbox, accepts, to_done, to_error))
    if not inboxes:
        raise ValueError("converters must hold at least one Converter, not none")
    for lane in (lane for inbox in inboxes.values() for lane in inbox.lanes):
        for target in (lane.done, lane.error):
            if (watching := inboxes.get(os.path.realpath(target.folder))) is not None:
                raise ValueError(
                    f"{target.keeps} of converter {lane.converter.name!r} must not be watched by "
                    f"{watching.lanes[0].converter.name!r}, which might convert its files again: "
                    f"name another directory, not {target.folder!r}"
                )
    return list(inboxes.values())
