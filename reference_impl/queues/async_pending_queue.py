# async_pending_queue.py: a durable upload queue in a directory, for asyncio (AsyncPendingQueue)
# https://executable-guarantees.example/queues/async_pending_queue.html
# Version 1.0.1 (2026-11-30); Python 3.11 to 3.14, with or without the GIL; needs watchdog
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
import heapq
import inspect
import json
import logging
import math
import os
import random
import re
import secrets
import stat
import sys
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextvars import Context, copy_context
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Self, SupportsIndex

from ..bridges.file_watch import DirectoryWatch

__all__ = ["AsyncPendingQueue", "DirectoryInUse", "PendingStats", "exponential_backoff"]

_LOCK = ".pending-queue.lock"
_TEMPORARY = re.compile(r"\.pending-[0-9a-f]{16}\.tmp")
_SIDECAR = re.compile(r"\.(.+)\.attempts", re.DOTALL)
_STATES = ("queued", "processing", "completed", "error")
# In bytes: of the usual 255, what is left beside the longest suffix and "-1234567".
_LONGEST_NAME = 255 - len(".processing") - 8
_AT_ONCE = 100  # so many of those whose pause is over are seen to before other tasks are let in
_logger = logging.getLogger(__name__)


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
        attempt: How many times it has failed, from 1.
        base: The most seconds to wait after the first failure.
        cap: The most seconds to wait after any.
        jitter: Gives numbers from 0 to 1.

    Raises:
        ValueError: If `attempt` is below 1, or `base` or `cap` is no duration.

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


class AsyncPendingQueue:
    """Uploads each file that appears in a directory, at least once, so many at a time.

    Producers write elsewhere on the same file system and rename to `NAME.queued`; `submit`
    does that. Each file wants a name of its own, since a rename replaces what waits under it,
    put back after a failed attempt, say. Completed files and errors stay: move or delete them
    as you like. To have a file tried again, rename `NAME.error` to `NAME.queued`.

    Single use: `run` it, or enter it as a context manager, which runs it in the background
    and stops it on leaving, and raises what ended it before.

    Args:
        directory: Where the files are: an existing directory on a local file system with
            hard links, a relative one as of now. One queue owns it at a time.
        upload: Called with the path of `NAME.processing`, whose `stem` is the NAME. What it
            raises is a failed attempt. A file may come again after a crash: uploads must
            bear repetition.
        max_concurrency: The most uploads at once.
        max_attempts: The most attempts for a file, counted across restarts.
        backoff: Gives the seconds to wait before the next attempt, from the number of
            failures since the start of this queue.
        upload_timeout: Seconds for one upload, which is then cancelled and has failed; None
            for no limit.

    Raises:
        TypeError: If an argument is of the wrong type, `upload` a plain function included.
        ValueError: If a number is out of range.

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
        backoff: Callable[[int], float] = exponential_backoff,
        upload_timeout: float | None = None,
    ) -> None:
        if not isinstance(directory, str | os.PathLike):
            raise TypeError(f"directory must be a path, got {directory!r}")
        _check_upload(upload)
        if not callable(backoff):
            raise TypeError(f"backoff must be callable, got {backoff!r}")
        if upload_timeout is not None:
            upload_timeout = _check_seconds("upload_timeout", upload_timeout)
            if not upload_timeout:
                raise ValueError("upload_timeout must be more than 0 seconds, or None; got 0")
        # Absolute, or a later os.chdir would point it elsewhere.
        self._directory, self._upload, self._backoff = Path(directory).absolute(), upload, backoff
        self._max_concurrency = _check_count("max_concurrency", max_concurrency)
        self._max_attempts = _check_count("max_attempts", max_attempts)
        self._upload_timeout, self._stats = upload_timeout, PendingStats()
        self._loop: asyncio.AbstractEventLoop | None = None  # from run on
        self._context: Context
        self._serving: asyncio.Task[None] | None = None
        self._runner: asyncio.Task[None] | None = None  # of the context manager
        self._up, self._over = asyncio.Event(), asyncio.Event()  # it began to watch; run ended
        self._stopping = self._stop_asked = self._cancelled = False
        self._deadlines: list[asyncio.TimerHandle] = []  # of stop
        self._writing: set[str] = set()  # temporaries of submissions under way
        # Of each file that was drawn from the watch and has not ended, the name is in one of
        # these. The task that draws goes on when its name is no longer among the ready ones.
        self._ready: OrderedDict[str, None] = OrderedDict()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._waiting: dict[str, float] = {}  # and until when, by the loop's clock
        # A heap of the same, and of what is out of date, with one timer for its first. A timer
        # for each name would be what the collector stops for: there may be 100,000 in an outage.
        self._pauses: list[tuple[float, str]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._failures: dict[str, int] = {}  # since the start, of those that will be tried again
        self._room: asyncio.Future[None] | None = None

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse copy.copy, copy.deepcopy and pickle."""
        raise TypeError(f"{type(self).__name__} cannot be copied or pickled: make another one")

    async def submit(self, name: str, data: bytes) -> Path:
        """Write `data` to disk, and only then let it appear as `NAME.queued`.

        Works whether or not the queue runs. When it is cancelled while it writes, that is
        finished first, and nothing is queued; later on, the file is queued all the same. Cost:
        two fsyncs, in a thread.

        Args:
            name: What the file is called; `path.stem` in `upload`.
            data: All of its bytes.

        Returns:
            The path that it was queued as.

        Raises:
            FileExistsError: If there is a file of that name, in whatever state.
            TypeError, ValueError: If the name cannot be one, or `data` is not bytes.
            OSError: If it cannot be written. Nothing is queued, unless it was the last step
                that failed, the fsync of the directory.
            RuntimeError: Here and in `run` and `stop`: on another loop.
        """
        self._check_loop()
        _check_name(name)
        if not isinstance(data, bytes):
            raise TypeError(f"data must be bytes, got {type(data).__name__}")
        _check_directory(self._directory)
        queued = self._path(name, "queued")
        while True:
            self._check_absent(name)
            temporary = _temporary(self._directory)
            self._writing.add(temporary.name)
            try:
                await _in_thread(partial(_write, temporary, data))
                self._check_absent(name)
                queued.hardlink_to(temporary)
            except FileNotFoundError:
                # An owner that has just started took it for a dead one's: write it again.
                _check_directory(self._directory)
            else:
                break
            finally:
                _unlink(temporary)
                self._writing.discard(temporary.name)
        if self._up.is_set() and not self._stopping:
            self._offer(name)
        else:
            # A link is no event that a watch, in another process perhaps, hears of; this is.
            with contextlib.suppress(OSError):
                os.close(os.open(queued, os.O_WRONLY))
        await _in_thread(partial(_sync_directory, self._directory))
        return queued

    async def run(self) -> None:
        """Own the directory, recover what a dead owner left, and upload until `stop`.

        Returns at once if the queue was stopped before. When it is cancelled, uploads are
        cancelled, too, and their files put back.

        Raises:
            DirectoryInUse: If another queue owns the directory.
            FileNotFoundError: If the directory is missing, or vanishes.
            OSError: If it cannot be written to, or has no hard links.
            RuntimeError: Here and on entry: if it was run or entered before.
        """
        self._check_loop()
        if self._stop_asked:
            self._up.set()
            return
        self._check_unused()
        self._loop, self._context = asyncio.get_running_loop(), copy_context()
        try:
            with _ownership(self._directory):
                self._serving = self._loop.create_task(self._serve(), name="pending-queue")
                await self._until_over(self._serving)
        finally:
            self._stopping = True
            for timer in filter(None, (self._timer, *self._deadlines)):
                timer.cancel()
            self._serving = None  # or a cancellation that it keeps would hold it and this queue
            self._up.set()
            self._over.set()

    async def _until_over(self, serving: asyncio.Task[None]) -> None:
        cancelled = False
        while not serving.done() or self._running:
            try:
                await asyncio.wait(self._running.values() if serving.done() else [serving])
            except asyncio.CancelledError:
                cancelled = True
                self._request_stop(0)
            if serving.done() and not self._stopping:  # the directory is gone
                self._request_stop(0)
        if cancelled:
            raise asyncio.CancelledError
        if not serving.cancelled():
            serving.result()

    async def stop(self, timeout: float | None = 30.0) -> None:  # noqa: ASYNC109
        """Start no more uploads, let those under way finish, and end `run`.

        In an upload's own task it only requests all that, and returns at once. When it is
        cancelled, the request stands.

        Args:
            timeout: Seconds for the uploads under way. Then they are cancelled, their files
                put back, and those that ignore it waited for. None never cancels.

        Raises:
            TypeError, ValueError: If `timeout` is no duration.
        """
        seconds = math.inf if timeout is None else _check_seconds("timeout", timeout)
        self._check_loop()
        self._stop_asked = True
        self._request_stop(seconds)
        if self._loop is not None and asyncio.current_task() not in self._running.values():
            await self._over.wait()

    def _request_stop(self, timeout: float) -> None:
        if not self._stopping and self._serving is not None:
            self._serving.cancel()
        self._stopping = True
        if self._loop is not None and self._running and timeout < math.inf:
            self._deadlines.append(self._loop.call_later(timeout, self._cancel_uploads))

    def _cancel_uploads(self) -> None:
        if not self._cancelled:  # once: their clean-up is left in peace
            self._cancelled = True
            for task in self._running.values():  # `cancelling` may be a timeout of their own
                task.cancel()

    @property
    def stats(self) -> PendingStats:
        """The figures of one instant, if read on the loop. Cost: constant."""
        return replace(self._stats, uploading=len(self._running), waiting=len(self._waiting))

    async def __aenter__(self) -> Self:
        self._check_loop()
        if not self._stop_asked:
            self._check_unused()
        self._runner = asyncio.create_task(self.run())
        await self._unless_cancelled(self._runner, self._up.wait())
        if self._over.is_set():
            await self._runner  # raises what prevented the start
        return self

    async def __aexit__(self, *_: object) -> None:
        self._check_loop()  # or it would wait for ever for another loop's task
        assert self._runner is not None
        await self._unless_cancelled(self._runner, self.stop())
        await self._runner

    async def _unless_cancelled(
        self, runner: asyncio.Task[None], step: Coroutine[Any, Any, object]
    ) -> None:
        try:
            await step
        except BaseException:
            runner.cancel()
            await asyncio.wait([runner])
            raise

    # From the directory to a task: one name is drawn ahead of the slots, and no more.

    async def _serve(self) -> None:
        await _in_thread(self._recover)
        async with DirectoryWatch(self._directory, ("*.queued",)) as watch:
            self._up.set()
            async for path in watch:
                name = path.name.removesuffix(".queued")
                if name not in self._waiting:
                    self._offer(name)
                while name in self._ready:
                    self._room = asyncio.get_running_loop().create_future()
                    await self._room

    def _offer(self, name: str) -> None:
        self._waiting.pop(name, None)
        if name not in self._running:  # else it is looked for when that has ended
            self._ready[name] = None
        self._dispatch()

    def _dispatch(self) -> None:
        assert self._loop is not None
        while self._ready and len(self._running) < self._max_concurrency and not self._stopping:
            name, _ = self._ready.popitem(last=False)
            upload, context = self._process(name), self._context.copy()
            task = self._loop.create_task(upload, name=f"upload {name}", context=context)
            self._running[name] = task
            task.add_done_callback(partial(self._done, name))
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _done(self, name: str, _: asyncio.Task[None]) -> None:
        del self._running[name]
        # A newer file of that name, or one that the disk left .processing and whose pause is over.
        paths = self._path(name, "queued"), self._path(name, "processing")
        if name not in self._waiting and any(map(os.path.lexists, paths)):
            self._offer(name)
        self._dispatch()

    def _retry(self, name: str, stem: str) -> None:
        """Have what was `name`, and is queued as `stem` now, tried again after a while."""
        assert self._loop is not None
        self._failures[stem] = failures = self._failures.pop(name, 0) + 1
        try:
            delay = _check_seconds("what backoff returns", self._backoff(failures))
        except Exception:
            self._error("backoff(%r) failed: the default is used", failures)
            delay = exponential_backoff(failures)
        self._waiting[stem] = until = self._loop.time() + delay
        heapq.heappush(self._pauses, (until, stem))
        if self._pauses[0] == (until, stem):
            self._set_timer()

    def _set_timer(self) -> None:
        assert self._loop is not None
        if self._timer is not None:
            self._timer.cancel()
        until, _ = self._pauses[0]
        self._timer = self._loop.call_at(until, self._end_pauses, until)

    def _end_pauses(self, now: float) -> None:
        assert self._loop is not None
        now = max(now, self._loop.time())
        for _ in range(_AT_ONCE):
            if not self._pauses or self._pauses[0][0] > now:
                break
            until, name = heapq.heappop(self._pauses)
            if self._waiting.get(name) == until:
                self._offer(name)
        if self._pauses:
            self._set_timer()

    # One file. What touches its names stands in plain functions: no cancellation splits them.

    async def _process(self, name: str) -> None:
        if name not in self._running:  # an eager task: others are to know of it first
            await asyncio.sleep(0)
        try:
            attempt = self._claim(name)
            if attempt > self._max_attempts:
                error: str | None = repr(RuntimeError("the last attempt's end is not known"))
            else:
                error = await self._attempt(name, attempt)
            self._settle(name, attempt, error)
        except OSError as fault:
            self._fault(name, fault)

    async def _attempt(self, name: str, attempt: int) -> str | None:
        """Upload it; returns what failed, unless it is cancelled by stop."""
        try:
            async with asyncio.timeout(self._upload_timeout):
                await self._upload(self._path(name, "processing"))
        except BaseException as error:
            task = self._running[name]
            if task is not asyncio.current_task(self._loop):
                raise  # it is closed: the loop is gone, and perhaps the ownership, too
            if task.cancelling():
                self._put_back(name, attempt)
                raise asyncio.CancelledError from error
            if isinstance(error, SystemExit | KeyboardInterrupt):
                self._put_back(name, attempt)
                raise
            self._stats.failed += 1
            reason = _told(error)
            _logger.warning("attempt %d to upload %r failed: %s", attempt, name, reason)
            return reason
        return None

    def _claim(self, name: str) -> int:
        """Count an attempt, make the file NAME.processing; returns the attempt's number."""
        queued, processing = self._path(name, "queued"), self._path(name, "processing")
        if os.path.lexists(processing):  # the disk was at fault when it was to be moved
            stem = self._restore(name)
            if stem != name:
                self._retry(stem, stem)
        if not stat.S_ISREG(queued.lstat().st_mode):
            raise OSError(errno.EINVAL, "it is no regular file: move it away", str(queued))
        attempt = self._attempts(name) + 1
        if attempt <= self._max_attempts:
            file = os.open(self._sidecar(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                os.write(file, b".")
            finally:
                os.close(file)
        # By rename: with a link and an unlink, a producer's newer file of this name could come
        # in between, and be unlinked in its place.
        try:
            queued.rename(processing)
        except OSError:
            os.truncate(self._sidecar(name), attempt - 1)  # it was none
            raise
        return attempt

    def _settle(self, name: str, attempt: int, error: str | None) -> None:
        if error is None:
            self._move(name, "completed")
            self._stats.completed += 1
        elif attempt < self._max_attempts:
            self._retry(name, self._move(name, "queued"))
            return
        else:
            self._move(name, "error", error)
            self._stats.given_up += 1
            _logger.error("%r is given up: see its .error.json", name)
        self._failures.pop(name, None)

    def _put_back(self, name: str, attempt: int) -> None:
        """Undo the claim of a cancelled upload: it does not count."""
        try:
            os.truncate(self._sidecar(name), attempt - 1)
            self._retry(name, self._move(name, "queued"))
        except OSError as fault:
            self._fault(name, fault)

    def _fault(self, name: str, fault: OSError) -> None:
        """The disk or another process is at fault: log it, and see again later."""
        self._error("trouble with the file %r", name)
        paths = self._path(name, "queued"), self._path(name, "processing")
        if not isinstance(fault, FileNotFoundError) or any(map(os.path.lexists, paths)):
            self._retry(name, name)
        else:
            self._failures.pop(name, None)
            _unlink(self._sidecar(name))

    def _move(self, name: str, state: str, error: str | None = None) -> str:
        """Give NAME.processing its next name, but none that is taken; returns its stem."""
        stem, number = name, 0
        while True:
            target = self._path(stem, state)
            busy = stem != name and os.path.lexists(self._path(stem, "processing"))
            if not busy and not os.path.lexists(target):
                if error is not None:
                    self._explain(stem, error)
                with contextlib.suppress(FileExistsError):
                    # By link: a rename would overwrite what a producer puts there meanwhile.
                    target.hardlink_to(self._path(name, "processing"))
                    break
            number += 1
            stem = f"{name}-{number}"
        self._finish_move(name, stem, state)
        return stem

    def _finish_move(self, name: str, stem: str, state: str) -> None:
        """The file has its next name: see to its attempts, and end the other name."""
        if state != "queued":
            self._sidecar(name).unlink(missing_ok=True)
        elif stem != name and self._attempts(name):
            self._sidecar(name).replace(self._sidecar(stem))
        self._path(name, "processing").unlink(missing_ok=True)

    def _explain(self, stem: str, error: str) -> None:
        """Say in NAME.error.json why, before there is a NAME.error."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        reason = {"error": error, "attempts": self._max_attempts, "time": now}
        temporary = _temporary(self._directory)
        try:
            temporary.write_text(json.dumps(reason, indent=1), encoding="utf-8")
            temporary.replace(self._directory / f"{stem}.error.json")
        finally:
            _unlink(temporary)

    def _recover(self) -> None:
        """In a thread, before all else: sweep, and put back what a dead owner was uploading."""
        orphans = []
        with os.scandir(self._directory) as entries:
            for entry in entries:
                name = entry.name
                if _TEMPORARY.fullmatch(name) and name not in self._writing:
                    _unlink(self._directory / name)
                elif match := _SIDECAR.fullmatch(name):
                    states = (self._path(match[1], state) for state in _STATES[:2])
                    if not any(map(os.path.lexists, states)):
                        _unlink(self._directory / name)
                elif name.endswith(".processing") and not name.startswith("."):
                    orphans.append(name.removesuffix(".processing"))
        for name in orphans:
            try:
                self._restore(name)
            except OSError:
                self._error("%r cannot be put back: it stays .processing", name)

    def _restore(self, name: str) -> str:
        """Put back NAME.processing, or finish the move that gave it another name; returns that."""
        found = self._path(name, "processing").lstat()
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file: move it away", name)
        if found.st_nlink > 1:
            with os.scandir(self._directory) as entries:
                for entry in entries:
                    stem, _, state = entry.name.rpartition(".")
                    moved = (stem == name and state != "processing") or stem.startswith(f"{name}-")
                    if moved and state in _STATES and entry.inode() == found.st_ino:
                        self._finish_move(name, stem, state)
                        return stem
        self._stats.recovered += 1
        return self._move(name, "queued")

    def _path(self, name: str, state: str) -> Path:
        return self._directory / f"{name}.{state}"

    # It has a byte for each attempt: one more or one less is one step, which no crash splits.
    def _sidecar(self, name: str) -> Path:
        return self._directory / f".{name}.attempts"

    def _attempts(self, name: str) -> int:
        try:
            return self._sidecar(name).stat().st_size
        except FileNotFoundError:
            return 0

    def _check_absent(self, name: str) -> None:
        for state in _STATES:
            if os.path.lexists(path := self._path(name, state)):
                message = "there is such a file: submit under another name"
                raise FileExistsError(errno.EEXIST, message, str(path))

    def _check_loop(self) -> None:
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            raise RuntimeError(
                "this queue belongs to the event loop that ran it: "
                "use it there, or make a new AsyncPendingQueue"
            )

    def _check_unused(self) -> None:
        if self._loop is not None or self._runner not in (None, asyncio.current_task()):
            raise RuntimeError("a queue runs once: make a new AsyncPendingQueue to run again")

    def _error(self, message: str, *values: object) -> None:
        self._stats.errors += 1
        _logger.exception(message, *values)


@contextlib.contextmanager
def _ownership(directory: Path) -> Iterator[None]:
    """Hold the directory's lock, which the system releases when the process dies."""
    _check_directory(directory)
    with _fork_guard, _fitness(directory):
        file = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        _held.add(file)
    try:
        if not _try_lock(file):
            raise DirectoryInUse(
                f"{str(directory)!r} belongs to another AsyncPendingQueue: "
                "stop that one, or use another directory"
            )
        with _fitness(directory):  # or no upload could be settled
            probe = _temporary(directory)
            probe.hardlink_to(directory / _LOCK)
            probe.unlink()
        yield
    finally:
        with _fork_guard:
            if file in _held:  # in a forked child it is closed already
                _held.discard(file)
                os.close(file)


def _check_directory(directory: Path) -> None:
    if not directory.is_dir():
        number = errno.ENOTDIR if directory.exists() else errno.ENOENT
        message = "directory must be an existing directory: create it first"
        raise OSError(number, message, str(directory))


@contextlib.contextmanager
def _fitness(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"directory must be writable and allow hard links ({error.strerror})"
        raise OSError(error.errno, message, str(directory)) from error


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


def _told(error: BaseException) -> str:
    try:
        return repr(error)
    except Exception:
        return f"{object.__repr__(error)}, whose repr fails"


def _temporary(directory: Path) -> Path:
    return directory / f".pending-{secrets.token_hex(8)}.tmp"


def _unlink(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    if sys.platform != "win32":  # which cannot open one
        file = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


async def _in_thread(function: Callable[[], None]) -> None:
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
    future.result()


def _check_count(name: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be 1 or more, got {value!r}")
    return value


def _check_seconds(name: str, value: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of seconds, got {value!r}")
    if not value >= 0:
        raise ValueError(f"{name} must be 0 or more seconds, got {value!r}")
    return float(min(value, 1e300))  # an int may be more than a clock can add


def _check_name(name: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, got {name!r}")
    if not name or name.startswith(".") or any(c in name for c in ("/", os.sep, "\0")):
        raise ValueError(f"name must be a file's, no path, and not hidden, got {name!r}")
    try:
        length = len(os.fsencode(name))
    except UnicodeEncodeError as error:
        raise ValueError(f"name must be what the file system can encode, got {name!r}") from error
    if length > _LONGEST_NAME:
        raise ValueError(f"name must have at most {_LONGEST_NAME} bytes, got {name!r}")


def _check_upload(upload: Callable[[Path], Awaitable[None]]) -> None:
    function: object = upload
    while isinstance(function, partial):
        function = function.func
    # A lambda may return an awaitable, and so may an object; a plain function blocks the loop.
    plain = inspect.isroutine(function) and getattr(function, "__name__", "") != "<lambda>"
    if not callable(upload) or (plain and not inspect.iscoroutinefunction(function)):
        raise TypeError(
            f"upload must be a coroutine function, got {upload!r}: define it with `async def`, "
            "and put what blocks into asyncio.to_thread"
        )
