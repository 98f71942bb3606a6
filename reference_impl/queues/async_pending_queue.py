# async_pending_queue.py: a durable upload queue in a directory, for asyncio (AsyncPendingQueue)
# https://executable-guarantees.example/queues/async_pending_queue.html
# Version 1.1.0 (2026-11-30); Python 3.11 to 3.14, with or without the GIL; needs watchdog
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: 2026 The Executable Guarantees authors
"""An upload queue whose items are the files of one directory, so that a crash loses none.

`NAME.queued` becomes `NAME.processing` while it is uploaded, and then `NAME.completed`, or
`NAME.queued` again, or `NAME.error` with a `NAME.error.json` that says why.

Examples:
    >>> import asyncio, tempfile
    >>> from pathlib import Path
    >>> async def main(directory: Path) -> None:
    ...     async def upload(path: Path) -> None:
    ...         print(path.stem, path.read_bytes())
    ...         sent.set()
    ...     sent = asyncio.Event()
    ...     async with AsyncPendingQueue(directory, upload) as queue:
    ...         await queue.submit("unit A7.csv", b"voltage;3.3")
    ...         await sent.wait()
    ...     print(queue.stats.completed)
    >>> with tempfile.TemporaryDirectory() as name:
    ...     asyncio.run(main(Path(name)))
    unit A7.csv b'voltage;3.3'
    1

Async safety:
    Loop-bound: all but the constructor, `stats` and `exponential_backoff` belongs on the loop
    that runs the queue. Programs in other threads and processes hand over files by renaming
    them into the directory.

Fork: the child does not inherit the ownership of the directory, and must not use the queue.
Interpreter exit: `asyncio.run` cancels `run`, which puts back what was being uploaded; a loop
that is closed without that leaves it to the next start. Signal handlers and finalizers
(`__del__`) must not call the queue; what `loop.add_signal_handler` runs may start a task that
calls `stop`. Nothing here relies on the GIL.
"""

import asyncio
import contextlib
import errno
import functools
import heapq
import logging
import math
import os
import random
import stat
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, Self, SupportsIndex, TypeVar

from ..bridges.file_watch import DirectoryWatch
from ._spool import (
    STATES,
    UNSUPPORTED,
    Lifecycle,
    Spool,
    _check_async,
    _check_count,
    _check_plain,
    _check_seconds,
    _check_type,
    exists,
    rename_exclusively,
    rename_new,
    safe_repr,
    temporary,
    unlink_quietly,
)

__all__ = ["AsyncPendingQueue", "DirectoryInUse", "PendingStats", "exponential_backoff"]

_LOCK = ".pending-queue.lock"
_OWN_FILES = ("*.processing", "*.completed", "*.error", "*.error.json")
# In bytes: of the usual 255, what is left beside the longest suffix and "-1234567".
_LONGEST_NAME = 255 - len(".processing") - 8
_TIMER_BATCH = 100  # pauses that end before other tasks are let in
_LAST_END_UNKNOWN = repr(RuntimeError("the last attempt's end is not known"))
_logger = logging.getLogger(__name__)
R = TypeVar("R")


class DirectoryInUse(RuntimeError):
    """Another queue, in this process or in another one, owns the directory."""


def exponential_backoff(
    attempt: int,
    *,
    base: float = 1.0,
    cap: float = 300.0,
    jitter: Callable[[], float] = random.random,
) -> float:
    """Seconds to wait after a failure: doubling, capped, and with full jitter.

    A pure function of its arguments: `jitter() * min(cap, base * 2 ** (attempt - 1))`. Full
    jitter spreads the clients of a server that comes back over the whole interval.

    Args:
        attempt: how many times it has failed, from 1.
        base: the most seconds to wait after the first failure.
        cap: the most seconds to wait after any.
        jitter: gives numbers from 0 to 1.

    Raises:
        ValueError: `attempt` is below 1, or `base` or `cap` is no duration.

    Examples:
        >>> [exponential_backoff(n, cap=10.0, jitter=lambda: 1.0) for n in (1, 2, 3, 4, 5)]
        [1.0, 2.0, 4.0, 8.0, 10.0]
        >>> exponential_backoff(3, jitter=lambda: 0.25)
        1.0
    """
    _check_count("attempt", attempt)
    longest = _check_seconds("cap", cap)
    return jitter() * min(longest, _check_seconds("base", base) * 2.0 ** min(attempt - 1, 1000))


@dataclass(slots=True, weakref_slot=True)
class PendingStats:
    """What a queue has done since it was made, and what it does now."""

    completed: int = 0  # files uploaded
    failed: int = 0  # attempts that failed, the last ones included
    given_up: int = 0  # files that became .error
    recovered: int = 0  # files put back that a dead owner, or a faulty disk, left .processing
    errors: int = 0  # faults of files and of the disk, each of them logged
    uploading: int = 0  # files being uploaded now
    waiting: int = 0  # files that wait for their next attempt
    ignored: int = 0  # names seen that do not end in .queued


class Schedule:
    """Which names are ready, running, or wait for their next attempt; it touches no file.

    A name has one of these places, or none. Those that are ready are served first come, first
    served. A pause costs an entry in a heap and no timer: in an outage there may be 100,000.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.ready: OrderedDict[str, None] = OrderedDict()
        self.running: dict[str, bool] = {}  # and whether it was added meanwhile
        self.waiting: dict[str, float] = {}  # and until when
        self._pauses: list[tuple[float, str]] = []  # a heap of the same, and of outdated ones
        self._failures: dict[str, int] = {}  # since the start, of what will be tried again

    def add(self, name: str) -> None:
        """Make it ready; one that is running is only marked."""
        self.waiting.pop(name, None)
        if name in self.running:
            self.running[name] = True
        else:
            self.ready[name] = None

    def start(self) -> str:
        """Let the first that is ready run."""
        name, _ = self.ready.popitem(last=False)
        self.running[name] = False
        return name

    def end(self, name: str) -> bool:
        """Let it run no more; whether it was added meanwhile."""
        return self.running.pop(name)

    def fail(self, name: str, stem: str) -> int:
        """Count a failure of what goes on as `stem`; how many there are now."""
        self._failures[stem] = failures = self._failures.pop(name, 0) + 1
        return failures

    def forget(self, name: str) -> None:
        """It has come to its end: what comes under its name is new."""
        self._failures.pop(name, None)

    def pause(self, name: str, seconds: float) -> float:
        """Let it wait; when the first of all pauses ends."""
        self.waiting[name] = until = self._clock() + seconds
        heapq.heappush(self._pauses, (until, name))
        return self._pauses[0][0]

    def end_pauses(self, end: float, most: int) -> float:
        """Make ready what waits until this end, or until now; when the next pause ends.

        In the order of the ends, and at most so many: the next call goes on.
        """
        now = max(end, self._clock())
        while self._pauses and self._pauses[0][0] <= now and most:
            until, name = heapq.heappop(self._pauses)
            if self.waiting.get(name) == until:
                self.add(name)
            most -= 1
        return self._pauses[0][0] if self._pauses else math.inf


class AsyncPendingQueue:
    """Uploads each `*.queued` of a directory, at least once, at most `max_concurrency` at a time.

    Producers write elsewhere on the same file system and rename to `NAME.queued`; `submit`
    does that. Whose files they are does not matter. Other names are left alone, and counted.
    Each file needs a name of its own, since a rename replaces what waits under it, put back
    after a failed attempt, say. Completed files and errors stay: move or delete them as you
    like. To have a file tried again, rename `NAME.error` to `NAME.queued`.

    Single use: `run` it, or enter it as a context manager, which runs it in the background
    and stops it on leaving, and raises what ended it before.

    Args:
        directory: where the files are: an existing directory on a local file system, a relative
            one as of now. One queue owns it at a time.
        upload: called with the path of `NAME.processing`, whose `stem` is the NAME. What it
            raises is a failed attempt. It must not write to the file: a file that changes
            meanwhile is uploaded again. A file may come again after a crash, too: the server
            must tolerate duplicates.
        max_concurrency: the most uploads at once.
        max_attempts: the most attempts for a file, counted across restarts.
        settle: seconds for which a file that was written in place must not change before it
            is taken. If in doubt, 0: files that are renamed in are complete.
        backoff: gives the seconds to wait before the next attempt, from the number of
            failures since the start of this queue. What it raises ends the queue.
        upload_timeout: seconds for one upload, which is then cancelled and has failed; None
            for no limit.

    Raises:
        TypeError: an argument is of the wrong type; also for an `upload` that is a plain
            function, and a `backoff` that is none.
        ValueError: a number is out of range.

    Async safety:
        Loop-bound; the module tells of threads, fork, exit, signals and `__del__`.
    """

    def __init__(
        self,
        directory: Path,
        upload: Callable[[Path], Awaitable[None]],
        *,
        max_concurrency: int = 5,
        max_attempts: int = 5,
        settle: float = 0.0,
        backoff: Callable[[int], float] = exponential_backoff,
        upload_timeout: float | None = None,
    ) -> None:
        _check_type("directory", directory, "a path", str, os.PathLike)
        _check_async("upload", upload)
        _check_plain("backoff", backoff)
        if upload_timeout is not None:
            upload_timeout = _check_seconds("upload_timeout", upload_timeout, zero=False)
        # Absolute, or a later os.chdir would point it elsewhere.
        self._directory, self._upload, self._backoff = Path(directory).absolute(), upload, backoff
        self._max_concurrency = _check_count("max_concurrency", max_concurrency)
        self._max_attempts = _check_count("max_attempts", max_attempts)
        self._settle = _check_seconds("settle", settle)
        self._upload_timeout, self._stats = upload_timeout, PendingStats()
        self._life = Lifecycle(type(self).__name__)
        self._files: Spool  # from run on
        self._schedule = Schedule(time.monotonic)  # another one from run on
        self._timer: asyncio.TimerHandle | None = None  # for all pauses, at the end of the first
        self._room = asyncio.Event()  # set when a name has left the ready ones
        self._ignored: set[str] = set()
        self._echoes: set[str] = set()  # queued by this queue; the watch gives them, too, later
        self._writing: set[str] = set()  # temporaries of submissions under way

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse copy.copy, copy.deepcopy and pickle."""
        raise TypeError(f"{type(self).__name__} cannot be copied or pickled: make another one")

    async def submit(self, name: str, data: bytes) -> Path:
        """Write `data` to disk, and only then let it appear as `NAME.queued`.

        Works whether or not the queue runs. When it is cancelled while it writes, that is
        finished first, and nothing is queued; later on, the file is queued all the same. Cost:
        two fsyncs, in a thread.

        Args:
            name: what the file is called; `path.stem` in `upload`.
            data: all of its bytes.

        Returns:
            The path that it was queued as.

        Raises:
            FileExistsError: there is a file of that name, in whatever state.
            TypeError, ValueError: the name cannot be one, or `data` is not bytes.
            OSError: it cannot be written. Nothing is queued, unless it was the last step
                that failed, the fsync of the directory.
            RuntimeError: here and in `run` and `stop`: on another loop.
        """
        self._life.check_loop()
        _check_name(name)
        if not isinstance(data, bytes):
            raise TypeError(f"data must be bytes, not {type(data).__name__}")
        folder = _real(self._directory)
        queued = os.path.join(folder, f"{name}.queued")
        while True:
            _check_absent(folder, name)
            written = temporary(folder)
            self._writing.add(os.path.basename(written))
            try:
                await _in_thread(functools.partial(_write, written, data))
                _check_absent(folder, name)
                rename_new(written, queued)
            except FileNotFoundError:
                # An owner that has just started took it for a dead one's: write it again.
                _real(self._directory)
            else:
                break
            finally:
                unlink_quietly(written)
                self._writing.discard(os.path.basename(written))
        if self._life.serving:
            self._echoes.add(name)
            self._offer(name)
        else:
            # A link is no event that a watch, in another process perhaps, hears of; this is.
            with contextlib.suppress(OSError):
                os.close(os.open(queued, os.O_WRONLY))
        await _in_thread(functools.partial(_sync_directory, folder))
        return self._directory / f"{name}.queued"

    async def run(self) -> None:
        """Own the directory, recover what a dead owner left, and upload until `stop`.

        Returns at once if the queue was stopped before. When it is cancelled, uploads are
        cancelled, too, and their files put back.

        Raises:
            DirectoryInUse: another queue owns the directory.
            FileNotFoundError: the directory is missing, or vanishes, or a link to it is switched.
            OSError: it cannot be written to, or the files of other users could not be moved
                without a loss; the message says what to change.
            RuntimeError: here and on entry: it was run or entered before.
            Exception: what `backoff` raised.
        """
        await self._life.run(self._serve, self._owning())

    async def stop(self, timeout: float | None = 30.0) -> None:  # noqa: ASYNC109
        """Start no more uploads, let those under way finish, and end `run`.

        In an upload's own task it only requests all that, and returns at once. When it is
        cancelled, the request stands.

        Args:
            timeout: seconds for the uploads under way. Then they are cancelled, their files
                put back, and those that ignore it waited for. None never cancels.

        Raises:
            TypeError, ValueError: `timeout` is no duration.
        """
        seconds = math.inf if timeout is None else _check_seconds("timeout", timeout)
        await self._life.stop(seconds)

    @property
    def stats(self) -> PendingStats:
        """The figures of one instant, if read on the loop. Cost: constant."""
        now = self._schedule
        running, waiting, ignored = len(now.running), len(now.waiting), len(self._ignored)
        return replace(self._stats, uploading=running, waiting=waiting, ignored=ignored)

    async def __aenter__(self) -> Self:
        await self._life.enter(self.run)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._life.leave(self.stop)

    # From the directory to a task: one name is drawn ahead of the slots, and no more.

    @contextlib.contextmanager
    def _owning(self) -> Iterator[None]:
        place = _real(self._directory)
        try:
            with directory_lock(place):
                self._files = Spool(place, self._max_attempts)
                self._schedule = Schedule(asyncio.get_running_loop().time)
                yield
        finally:
            if self._timer is not None:
                self._timer.cancel()

    async def _serve(self) -> None:
        files, schedule = self._files, self._schedule
        recovered, faults = await _in_thread(functools.partial(files.recover, self._writing))
        self._stats.recovered += recovered
        for name, fault in faults:
            self._error("%r cannot be put back: it stays .processing", name, fault)
        watch = DirectoryWatch(self._directory, exclude=_OWN_FILES, settle=self._settle)
        async with watch:
            self._life.serves()
            async for path in watch:
                name = path.name.removesuffix(".queued")
                if name == path.name:
                    self._ignore(name)
                    continue
                if not self._is_echo(name) and name not in schedule.waiting:
                    self._offer(name)
                while name in schedule.ready:
                    self._room.clear()
                    await self._room.wait()

    def _is_echo(self, name: str) -> bool:
        """Whether the watch tells late of what this queue has queued, and has taken since."""
        echo = name in self._echoes
        self._echoes.discard(name)
        return echo and not exists(self._files.path(name, "queued"))

    def _ignore(self, name: str) -> None:
        """Count a file that is left alone, unless its producer has renamed it by now."""
        path = os.path.join(self._files.directory, name)
        if name in self._ignored or not exists(path):
            return
        if not self._ignored:
            reason = "%r is left alone: rename it to %r to have it uploaded (later ones: see stats)"
            _logger.warning(reason, path, f"{name}.queued")
        self._ignored.add(name)

    def _offer(self, name: str) -> None:
        self._schedule.add(name)
        self._dispatch()

    def _dispatch(self) -> None:
        schedule, life = self._schedule, self._life
        while schedule.ready and len(schedule.running) < self._max_concurrency and life.serving:
            name = schedule.start()
            ended = functools.partial(self._ended, name)
            life.spawn(functools.partial(self._handle, name), f"upload {name}", ended)
        self._room.set()

    def _ended(self, name: str) -> None:
        # A newer file of that name, or one that the disk left .processing, its pause being over.
        if self._schedule.end(name) and name not in self._schedule.waiting and self._is_there(name):
            self._schedule.add(name)
        self._dispatch()

    def _is_there(self, name: str) -> bool:
        return any(exists(self._files.path(name, state)) for state in ("queued", "processing"))

    def _retry(self, name: str, stem: str) -> None:
        """Have what was `name`, and is queued as `stem` now, tried again after a while."""
        failures = self._schedule.fail(name, stem)
        try:
            seconds = _check_seconds("what backoff returns", self._backoff(failures))
        except Exception:
            _logger.exception("backoff(%r) failed: the queue ends", failures)
            raise
        self._echoes.add(stem)
        self._set_timer(self._schedule.pause(stem, seconds))

    def _set_timer(self, end: float) -> None:
        if self._timer is None or self._timer.when() != end:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_at(end, self._end_pauses, end)

    def _end_pauses(self, end: float) -> None:
        self._timer = None
        if (end := self._schedule.end_pauses(end, _TIMER_BATCH)) < math.inf:
            self._set_timer(end)
        self._dispatch()

    # One file. What touches its names is in plain functions: no cancellation splits them.

    async def _handle(self, name: str) -> None:
        files = self._files
        error: str | None = _LAST_END_UNKNOWN
        try:
            if exists(files.path(name, "processing")):  # the disk was at fault
                self._restore(name)
            attempt, before = files.claim(name)
            if attempt <= self._max_attempts:
                error = await self._attempt(name, attempt)
                if not files.is_unchanged(name, before):
                    _logger.warning("%r was written to while it was uploaded: once more", name)
                    self._retry(name, files.put_back(name, attempt - 1))
                    return
                if error is not None:
                    self._stats.failed += 1
                    _logger.warning("attempt %d to upload %r failed: %s", attempt, name, error)
            if error is not None and attempt < self._max_attempts:
                self._retry(name, files.put_back(name, attempt))
            else:
                self._finish(name, error)
        except OSError as fault:
            self._fault(name, fault)

    def _restore(self, name: str) -> None:
        stem = self._files.restore(name)
        self._stats.recovered += 1
        if stem != name:
            self._retry(stem, stem)

    async def _attempt(self, name: str, attempt: int) -> str | None:
        """Upload it; returns what failed, unless the upload is cancelled."""
        task, path = asyncio.current_task(), Path(self._files.path(name, "processing"))
        try:
            if self._upload_timeout is None:
                await self._upload(path)
            else:
                async with asyncio.timeout(self._upload_timeout):
                    await self._upload(path)
        except BaseException as error:
            if task is None or task is not asyncio.current_task(self._life.loop):
                raise  # it is closed: the loop is gone, and perhaps the ownership, too
            cancelled = task.cancelling() > 0
            if not cancelled and not isinstance(error, SystemExit | KeyboardInterrupt):
                return safe_repr(error)
            self._put_back(name, attempt - 1)
            if cancelled:
                raise asyncio.CancelledError from error
            raise
        return None

    def _finish(self, name: str, error: str | None) -> None:
        if error is not None:
            self._files.give_up(name, error)
            self._stats.given_up += 1
            _logger.error("%r is given up: see its .error.json", name)
        else:
            self._files.complete(name)
            self._stats.completed += 1
        self._schedule.forget(name)

    def _put_back(self, name: str, attempts: int) -> None:
        try:
            self._retry(name, self._files.put_back(name, attempts))
        except OSError as fault:
            self._fault(name, fault)

    def _fault(self, name: str, fault: OSError) -> None:
        """The disk or another process is at fault: log it, and see again later."""
        self._error("trouble with the file %r", name, fault)
        if isinstance(fault, FileNotFoundError) and not self._is_there(name):
            self._schedule.forget(name)
            self._files.forget(name)
        else:
            self._retry(name, name)

    def _error(self, message: str, name: str, fault: OSError) -> None:
        self._stats.errors += 1
        _logger.error(message, name, exc_info=fault)


@contextlib.contextmanager
def directory_lock(directory: str) -> Iterator[None]:
    """Hold the directory's lock, which the system releases when the process dies.

    Raises:
        DirectoryInUse: another queue holds it.
        OSError: what a queue does in the directory would fail; the message says what to change.
    """
    with _fork_guard:
        file = _open_lock(directory)
        _held.add(file)
    try:
        if not _try_lock(file):
            raise DirectoryInUse(
                f"{directory!r} belongs to another AsyncPendingQueue: "
                "stop that one, or use another directory"
            )
        _check_moves(directory)
        yield
    finally:
        with _fork_guard:
            if file in _held:  # in a forked child it is closed already
                _held.discard(file)
                os.close(file)


def _open_lock(directory: str) -> int:
    path = os.path.join(directory, _LOCK)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError as error:
        with contextlib.suppress(OSError):
            return os.open(path, os.O_RDONLY)  # enough for a lock
        if exists(path):
            raise _refusal(
                path, "let this user read it, or remove it while no queue runs"
            ) from error
        raise _refusal(directory, "it must be writable for this user") from error


def _refusal(path: str, remedy: str) -> PermissionError:
    try:
        owner = Path(path).owner()
    except (KeyError, OSError, NotImplementedError):
        owner = "somebody else"
    return PermissionError(errno.EACCES, f"{remedy}: it belongs to {owner}", path)


def _check_moves(directory: str) -> None:
    """See that files, those of other users, too, can be moved without overwriting others."""
    found, user = os.stat(directory), os.geteuid() if hasattr(os, "geteuid") else 0
    if found.st_mode & stat.S_ISVTX and user not in (0, found.st_uid):
        raise _refusal(
            directory, "no file of other users can be renamed here: remove the sticky bit"
        )
    old, new = temporary(directory), temporary(directory)
    try:
        os.close(os.open(old, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        rename_exclusively(old, new)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise _refusal(directory, f"it must be writable ({error.strerror})") from error
        if user and _links_are_protected():
            reason = "its file system has no exclusive rename, and fs.protected_hardlinks forbids "
            reason += "links to other users' files: use another one, or set that to 0"
            raise PermissionError(errno.EPERM, reason, directory) from error
        rename_new(old, new)
    finally:
        unlink_quietly(old)
        unlink_quietly(new)


def _links_are_protected() -> bool:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/fs/protected_hardlinks").read_text().strip() != "0"
    return False


def _real(directory: Path) -> str:
    """Where the directory is now: a link to it may be switched later."""
    if not directory.is_dir():
        number = errno.ENOTDIR if directory.exists() else errno.ENOENT
        message = "directory must be an existing directory: create it first"
        raise OSError(number, message, str(directory))
    return os.path.realpath(directory)


# A lock belongs to the open file, which a forked child shares, and would keep it when its owner
# is dead: so the child closes it. The guard keeps forks from coming between opening and noting.
_fork_guard = threading.Lock()
_held: set[int] = set()


def _close_in_child() -> None:
    for file in _held:
        os.close(file)
    _held.clear()
    _fork_guard.release()


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: int) -> bool:
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    os.register_at_fork(
        before=_fork_guard.acquire,
        after_in_parent=_fork_guard.release,
        after_in_child=_close_in_child,
    )

    def _try_lock(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _write(path: str, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(directory: str) -> None:
    if sys.platform != "win32":  # which cannot open one
        file = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


async def _in_thread(function: Callable[[], R]) -> R:
    """Run it to its end; a cancellation is raised after that."""
    future = asyncio.get_running_loop().run_in_executor(None, function)
    cancelled = False
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            cancelled = True
    error = future.exception()
    if cancelled:
        raise asyncio.CancelledError from error
    return future.result()


def _check_absent(directory: str, name: str) -> None:
    for state in STATES:
        if exists(path := os.path.join(directory, f"{name}.{state}")):
            message = "there is such a file: submit under another name"
            raise FileExistsError(errno.EEXIST, message, path)


def _check_name(name: str) -> None:
    _check_type("name", name, "a str", str)
    if not name or name.startswith(".") or any(c in name for c in ("/", os.sep, "\0")):
        raise ValueError(f"name must be a file's, no path, and not hidden, not {name!r}")
    try:
        length = len(os.fsencode(name))
    except UnicodeEncodeError as error:
        raise ValueError(f"name must be what the file system can encode, not {name!r}") from error
    if length > _LONGEST_NAME:
        raise ValueError(f"name must have at most {_LONGEST_NAME} bytes, not {name!r}")
