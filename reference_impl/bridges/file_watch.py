# file_watch.py: the files that appear in a directory, as an async iterator (DirectoryWatch)
# https://executable-guarantees.example/bridges/file_watch.html
# Version 1.1.0 (2026-11-30); Python 3.11 to 3.14, with or without the GIL; needs watchdog 7
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: 2026 The Executable Guarantees authors
"""From watchdog's threads to an event loop: no file missed, no wake-up lost, nothing left over."""

import asyncio
import contextlib
import copy
import enum
import errno
import fnmatch
import heapq
import itertools
import logging
import math
import os
import re
import signal
import stat
import sys
import threading
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, Self, SupportsIndex

from watchdog import events, version
from watchdog.observers import Observer

if sys.platform == "linux":
    import fcntl

__all__ = ["DirectoryWatch", "name_filter"]

# inotify tells when a file that was written is closed. Elsewhere only the lack of changes can
# tell, so files that are created or modified count as found by a scan.
_INOTIFY = getattr(Observer, "__name__", "") == "InotifyObserver"
# With full events, a file that is moved in cannot be taken for one that is being written.
_OPTIONS: dict[str, Any] = {"generate_full_events": True} if _INOTIFY else {}
_READ_AHEAD = 1024  # files that a scan finds before it waits for those who take them
_TURNS = 64  # files that may be taken in a row before other tasks are let in
_CLOCK_STEP_NS = 20_000_000  # file systems write times in steps of up to 10 ms
_LULL = 0.1  # seconds after the last file that went, in which its directory may go, too
_QUIET = 0.5  # seconds, where `settle` is 0, for a file whose writers cannot be seen
_RETRY, _LONGEST_RETRY = 0.5, 60.0  # seconds to the next attempt: doubled each time, up to that
_NO_LEASES = {errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}
_GONE = (FileNotFoundError, NotADirectoryError)
_Look = tuple[int, int, int, int]  # device, inode, mtime_ns, size: they tell one file from another
_Names = Callable[[str], bool]  # whether a name is one of them
_Kinds = list[type[events.FileSystemEvent]]
_UNSEEN: _Look = (0, 0, 0, -1)
_logger = logging.getLogger(__name__)


class DirectoryWatch:
    """The regular files of a directory, those there and those to come, as an async iterator.

    `async with` starts a watchdog observer and a thread that scans, and ends them; inside,
    `async for` gives the path of each file that was there, was closed after writing, or was moved
    in. A file that changes is given again, and so is one that was moved away and comes back.
    Delivery is at least once: a file can be given twice where a scan and an event meet, and it
    can be gone by the time that its path is given.

    Args:
        path: the directory. It is made absolute on entry, and followed: a link is looked up again
            at each rescan. The paths given begin with it, just as it was passed.
        patterns: shell patterns for names, such as `("*.csv", "report-?.txt")`; a file is given
            if one of them matches. Names that begin with a dot are hidden, and never given.
        exclude: shell patterns for the names of files that are not given, such as `("~$*",
            "*.tmp")`, and of directories that are not entered. They win over `patterns`.
        recursive: whether to watch the directories below, too, except hidden ones and links.
        settle: seconds, from 0, for which the time of modification and the size of a file must
            not change before it is given. A file that is moved in is whole, and does not wait.
            If in doubt, 0 where files are renamed in or written by programs of your own user
            (Linux); elsewhere, longer than any pause of the programs that write them.
        rescan_interval: seconds, above 0, from one scan of everything to the next. A scan finds
            what no event told of, such as hard links and dropped events. None does without: then
            those files are lost. If in doubt, 60.
        missing: what to do when the directory does not exist, or no longer: "raise" a
            FileNotFoundError, or "wait" until it is there, and then give all files in it.
        clock: returns seconds; it must not use the watch.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: a number is out of range, or a pattern can match no name.

    Async safety:
        Loop-bound: it belongs to the loop on which it was entered. Several tasks may iterate at
        the same time, and each file is given to one of them. A cancelled iteration takes nothing.
        The threads touch the loop by `call_soon_threadsafe` alone, and what they share with it
        is behind one lock, with or without the GIL.

    Fork:
        A child has the object but not its threads; make a new watch there.

    Exit:
        The threads are daemons, and hold up no interpreter exit. If the loop is closed without
        leaving the block, they end when they next wake it, which may be never while files wait to
        be taken. There is no `__del__`: leave the block.

    Signals:
        Signal handlers may not use it, except those of `loop.add_signal_handler`. An exception
        that one raises while a file is taken loses no file: it is given next.

    Examples:
        >>> async def main(inbox: Path) -> None:
        ...     (inbox / "early.csv").touch()
        ...     async with DirectoryWatch(inbox, ["*.csv"]) as watch:
        ...         print((await anext(watch)).name)
        ...         (inbox / "late.csv").touch()
        ...         print((await anext(watch)).name)
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     asyncio.run(main(Path(folder)))
        early.csv
        late.csv
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        patterns: Iterable[str] = ("*",),
        *,
        exclude: Iterable[str] = (),
        recursive: bool = False,
        settle: float = 0.0,
        rescan_interval: float | None = 60.0,
        missing: Literal["raise", "wait"] = "raise",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        _check_type("path", path, "a str or a path", str, os.PathLike)
        _check_type("recursive", recursive, "True or False", bool)
        _check_type("clock", clock, "a function that returns seconds", Callable)  # type: ignore[arg-type]
        if missing not in ("raise", "wait"):
            raise ValueError(f"missing must be 'raise' or 'wait', not {missing!r}")
        excluded = _patterns("exclude", exclude)
        self._path, self._waits, self._clock = Path(path), missing == "wait", clock
        self._matches = name_filter(patterns, excluded)
        self._enters = name_filter(("*",), excluded) if recursive else None
        self._settle = _check_seconds("settle", settle)
        interval = math.inf if rescan_interval is None else rescan_interval
        self._interval = _check_seconds("rescan_interval", interval, zero=False)
        self._prefix = str(self._path).rstrip(os.sep) + os.sep
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inbox: _Inbox | None = None
        self._keeper: threading.Thread | None = None
        self._wakeup, self._calls = asyncio.Event(), 0  # it wakes all who wait, on the loop only

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse copy.copy, copy.deepcopy and pickle."""
        raise TypeError(f"{type(self).__name__} cannot be copied or pickled: make another one")

    async def __aenter__(self) -> Self:
        """Start the observer; from here on no file is missed.

        Raises:
            FileNotFoundError: the directory does not exist (not with `missing="wait"`).
            NotADirectoryError: it is something else (not with `missing="wait"`).
            OSError: it may not be read, or the system has no watches left (on Linux
                `fs.inotify.max_user_instances` and `max_user_watches`).
            RuntimeError: the watch is in use already, or watchdog is older than 7.
        """
        if version.VERSION_MAJOR < 7:
            found = f"DirectoryWatch needs watchdog 7 or later, and found {version.VERSION_STRING}"
            raise RuntimeError(f"{found}: run pip install 'watchdog>=7'")
        if self._inbox is not None and self._inbox.state is not _State.ENDED:
            raise RuntimeError("this watch is in use already: make another one, or leave it first")
        loop, wakeup = asyncio.get_running_loop(), asyncio.Event()
        inbox = _Inbox(
            lambda: loop.call_soon_threadsafe(wakeup.set), self._settle, self._interval, self._clock
        )
        watcher = _Watcher(inbox, self._path, self._matches, self._enters, waits=self._waits)
        keeper = threading.Thread(target=watcher.run, name="directory-watch", daemon=True)
        self._loop, self._wakeup, self._inbox, self._keeper = loop, wakeup, inbox, keeper
        try:
            keeper.start()
            while inbox.state is _State.STARTING:
                await self._wait_for_wakeup()
            if inbox.error is not None:
                raise inbox.error  # noqa: TRY301
        except BaseException:
            if keeper.ident is None:  # it was not started, or ends as soon as it is
                inbox.advance(_State.ENDED)
            else:
                await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the observer and the scans, and wait for the end of their threads, off the loop.

        Tasks that still iterate see the end of the iteration. A cancellation ends the wait, and
        the threads end by themselves.

        Raises:
            RuntimeError: another loop has entered; the watch goes on, unless that one is closed.
        """
        if self._inbox is None or self._loop is None or self._keeper is None:
            return
        if self._loop is not asyncio.get_running_loop() and self._inbox.state is not _State.ENDED:
            if self._loop.is_closed():  # nobody can leave any more
                self._inbox.advance(_State.CLOSING)
            raise RuntimeError("leave this watch on the loop that entered it")
        self._inbox.advance(_State.CLOSING)
        while self._inbox.state is not _State.ENDED:
            await self._wait_for_wakeup()
        if self._keeper.is_alive():
            self._keeper.join()  # it has said its last word: this is only its way out

    async def _wait_for_wakeup(self) -> None:
        """Wait for the next wake-up; each task then looks again whether it concerns it."""
        self._wakeup.clear()
        await self._wakeup.wait()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Path:
        """Wait for the next file and return its path.

        Raises:
            StopAsyncIteration: the block was left.
            FileNotFoundError: the directory has vanished, was moved away or was replaced.
            RuntimeError: the watch was not entered, or on another loop.

        Cost: constant; it never touches the file system.
        """
        if (inbox := self._inbox) is None or self._loop is not asyncio.get_running_loop():
            raise RuntimeError("iterate inside `async with`, on the loop that entered this watch")
        self._calls += 1
        if not self._calls % _TURNS:  # before taking, so that a cancellation here loses nothing
            await asyncio.sleep(0)
        while (name := inbox.take()) is None:
            await self._wait_for_wakeup()
        path = Path(self._prefix + name)
        inbox.unconfirmed = None  # from here to the caller no signal handler runs
        return path


def name_filter(patterns: Iterable[str], exclude: Iterable[str] = ()) -> Callable[[str], bool]:
    """Return the function that tells whether DirectoryWatch gives files of a name.

    Names and patterns are compared in Unicode's composed form (NFC), so that names from macOS,
    which are often decomposed, match patterns that were typed elsewhere.

    Args:
        patterns: shell patterns, one of which must match a name that is not hidden.
        exclude: shell patterns, none of which may match.

    Raises:
        TypeError: a pattern is no string.
        ValueError: a pattern can match no name.

    Examples:
        >>> matches = name_filter(["*.xlsx"], exclude=["~$*"])
        >>> [matches(name) for name in ("report.xlsx", "~$report.xlsx", ".report.xlsx")]
        [True, False, False]
    """
    wanted = "|".join(map(fnmatch.translate, _patterns("patterns", patterns)))
    unwanted = "|".join(map(fnmatch.translate, _patterns("exclude", exclude))) or "(?!)"
    expression = rf"(?![.]|\Z)(?!{unwanted})(?:{wanted})"
    match = re.compile(expression, re.IGNORECASE * (os.name == "nt")).match
    return lambda name: match(name if name.isascii() else _composed(name)) is not None


class _State(enum.IntEnum):
    STARTING = 0
    RUNNING = 1
    CLOSING = 2  # nothing more is given
    ENDED = 3  # nothing more happens


# The jobs of the keeper. Files are named by their path from the root on; directories the same,
# with a separator at the end, and "" is the root.


@dataclass(unsafe_hash=True, slots=True)
class _ScanDirectory:
    """Find the files below a directory."""

    path: str


@dataclass(unsafe_hash=True, slots=True)
class _LookAgain:
    """See whether a file is to be given."""

    name: str
    before: _Look = field(default=_UNSEEN, compare=False)  # when its quiet period began
    closed: bool = field(default=False, compare=False)  # an event told that it was closed
    moved_in: bool = field(default=False, compare=False)  # or so


@dataclass(unsafe_hash=True, slots=True)
class _CheckRoot:
    """See whether the path still names the directory that is watched."""

    deleted: bool = False  # an event told that it does not


_Job = _ScanDirectory | _LookAgain | _CheckRoot


class _Inbox:
    """What the threads and the loop share, behind one lock: files, and jobs for the keeper.

    `take` is for the loop, `next_job` and `wait_for_room` for the keeper alone, the rest for all.

    `_awake` is the promise that a wake-up is on its way to the loop, or that the loop knows of
    files to take. Only `take` ends it, in the same locked step in which it finds nothing; so the
    first file after that posts a wake-up, and no other one needs to.
    """

    def __init__(
        self, post: Callable[[], object], settle: float, interval: float, clock: Callable[[], float]
    ) -> None:
        self._post, self.settle, self._interval, self._clock = post, settle, interval, clock
        self._lock = threading.RLock()  # guards all below
        # Notified of an earlier job for the keeper, of room for its scan, of the end.
        self._changed = threading.Condition(self._lock)
        # First come, first served; with whether the look was taken just after a change.
        self._pending: OrderedDict[str, tuple[_Look, bool]] = OrderedDict()
        self._taken: dict[str, tuple[_Look, bool]] = {}  # and not gone since, as far as is known
        self._agenda: dict[_Job, tuple[float, _Job]] = {}  # each job with the time when it is due
        self._by_time: list[tuple[float, int, _Job]] = []  # a heap; some were put off since
        self._serial = itertools.count()  # jobs of one time are done in the order of requests
        self._full = False  # a scan waits for room
        self._awake = False
        self.unconfirmed: str | None = None  # taken; given unless a signal handler raises
        self.state = _State.STARTING
        self.error: BaseException | None = None
        self.schedule(_ScanDirectory(""))

    def is_news(self, name: str, look: _Look, *, told: bool = False) -> bool:
        """Whether this is another file than the one that was given, or will be, under its name.

        A file that an event told of may have changed without a trace, if the last look was taken
        just after a change. One whose time was set back was copied with the time of the original.
        """
        with self._lock:
            pending = name in self._pending
            known, fresh = (self._pending if pending else self._taken).get(name, (_UNSEEN, False))
            if known == look:
                return told and fresh and not pending
            set_back = look[2] < known[2] and (look[:2], look[3]) == (known[:2], known[3])
            return told or not set_back

    def offer(self, name: str, look: _Look, *, told: bool = False) -> None:
        """Let a file be taken, if it is news."""
        fresh = time.time_ns() - look[2] < _CLOCK_STEP_NS
        with self._lock:
            if self.state >= _State.CLOSING or not self.is_news(name, look, told=told):
                return
            self._pending[name] = look, fresh
            if self._awake:
                return
            self._awake = True
        self.wake()

    def take(self) -> str | None:
        """Take the file that waits longest; None if there is none now."""
        with self._lock:
            if self.state >= _State.CLOSING:  # in this same step: no error may be missed
                if self.error is None:
                    raise StopAsyncIteration
                raise copy.copy(self.error).with_traceback(self.error.__traceback__)
            if self._full and len(self._pending) <= _READ_AHEAD // 2:
                self._full = False
                self._changed.notify()
            if self.unconfirmed is None:
                if not self._pending:
                    self._awake = False
                    return None
                name = next(iter(self._pending))
                # One straight line: no signal handler runs before all of it is done.
                self.unconfirmed, self._taken[name] = name, self._pending[name]
                del self._pending[name]
            return self.unconfirmed

    def forget(self, name: str) -> None:
        """A file is gone: it need not be given, and one of its name is new."""
        with self._lock:
            self._pending.pop(name, None)
            self._taken.pop(name, None)

    def known(self, directory: str = "") -> list[str]:
        """The names of the files below a directory that were given or will be. Cost: linear."""
        with self._lock:
            names = [*self._pending, *self._taken]
        return [name for name in names if name.startswith(directory)]

    def schedule(self, job: _Job, after: float = 0.0, *, put_off: bool = False) -> None:
        """Have a job done after so many seconds; if it is due earlier, only if it may be put off.

        Cost: logarithmic, and constant for a job that is put off; then the keeper sleeps on.
        """
        with self._lock:
            due = self._clock() + after
            planned, _ = self._agenda.get(job, (None, job))
            earlier = planned is None or due < planned
            if earlier or put_off:
                self._agenda[job] = due, job
            if earlier:
                heapq.heappush(self._by_time, (due, next(self._serial), job))
                self._changed.notify()

    def wait_for_quiet(self, job: _LookAgain) -> None:
        """Look again at a file after a quiet period, which begins again if it has changed."""
        with self._lock:
            _, there = self._agenda.get(job, (0.0, None))
            since = there.before if isinstance(there, _LookAgain) else _UNSEEN
            if since[2:] != job.before[2:]:  # inodes may drift
                self.schedule(job, self.settle or _QUIET, put_off=True)

    def next_job(self) -> _Job | None:
        """Wait for the next job; None for the end."""
        with self._changed:
            while self.state < _State.CLOSING:
                due, _, job = self._by_time[0]  # there is always the next scan of everything
                if (wait := due - self._clock()) > 0:
                    self._changed.wait(None if wait > threading.TIMEOUT_MAX else wait)
                    continue
                heapq.heappop(self._by_time)
                planned, job = self._agenda.get(job, (-math.inf, job))
                if planned > due:  # it was put off
                    heapq.heappush(self._by_time, (planned, next(self._serial), job))
                elif planned == due:  # and not done earlier
                    del self._agenda[job]
                    if job == _ScanDirectory(""):
                        self.schedule(job, self._interval)
                    return job
            return None

    def wait_for_room(self) -> bool:
        """Wait until those who take files have caught up; False for the end."""
        with self._lock:
            self._full = len(self._pending) >= _READ_AHEAD
            while self._full and self.state < _State.CLOSING:
                self._changed.wait()
            return self.state < _State.CLOSING

    def advance(self, state: _State, error: BaseException | None = None) -> None:
        """Begin the next state; the loop learns of an error with the end of the threads."""
        with self._lock:
            self.state, self.error = max(self.state, state), self.error or error
            self._changed.notify_all()
        if state is not _State.CLOSING:
            self.wake()

    def wake(self) -> None:
        """Wake the loop."""
        try:
            self._post()
        except RuntimeError:  # the loop is closed, and nobody will leave the block any more
            self.advance(_State.CLOSING)


class _Watcher(events.FileSystemEventHandler):
    """What touches the file system: `dispatch` in the observer's thread, `run` in the keeper's."""

    def __init__(
        self, inbox: _Inbox, path: Path, matches: _Names, enters: _Names | None, *, waits: bool
    ) -> None:
        self._inbox, self._given, self._settle, self._waits = inbox, path, inbox.settle, waits
        self._matches, self._enters = matches, enters
        self._path = str(path.absolute())  # not normalized: `..` may follow a link
        self._prefix = self._path.rstrip(os.sep) + os.sep
        # What is observed, with device and inode: the root, or where a missing one can appear.
        self._place: tuple[str, tuple[int, int]] | None = None
        self._observer, self._event_prefix = _Observer(self), ""
        self._failing: dict[_Job, float] = {}  # after how many seconds it was tried again

    def run(self) -> None:
        """Start the observer, scan what there is, and do what is asked for, until the end."""
        try:
            with contextlib.suppress(*_GONE if self._waits else ()):
                os.scandir(self._path).close()  # what is missing or may not be read fails on entry
            self._check_root()
            while (job := self._inbox.next_job()) is not None:  # first, to scan the root
                self._do(job)
        except Exception as error:  # the iteration ends with it
            self._inbox.advance(_State.CLOSING, error)
        finally:
            try:
                self._observer.end()
            finally:  # whatever watchdog does: who leaves the block waits for this
                self._inbox.advance(_State.ENDED)

    def _do(self, job: _Job) -> None:
        try:
            if isinstance(job, _LookAgain):
                self._check(job)
            elif isinstance(job, _ScanDirectory):
                self._scan(job.path)
            else:
                self._check_root(deleted=job.deleted)
        except OSError as error:
            self._try_again(job, error)
        else:
            if self._failing and not isinstance(job, _ScanDirectory):  # may have failed in part
                self._failing.pop(job, None)

    def _try_again(self, job: _Job, error: OSError) -> None:
        """The system cannot tell now: do it again, ever less often, and log that once."""
        if job not in self._failing:
            _logger.warning("will be tried again: %s", error)
        self._failing[job] = wait = min(2 * self._failing.get(job, _RETRY / 2), _LONGEST_RETRY)
        self._inbox.schedule(job, wait)

    # Events, in the observer's thread.

    def dispatch(self, event: events.FileSystemEvent) -> None:
        """Handle an event; an exception would end the thread."""
        try:
            if self._inbox.state < _State.CLOSING and not event.is_synthetic:
                self._handle(event)  # synthetic ones are for a directory: it is scanned
        except Exception:
            _logger.exception("could not handle %r: the directory will be scanned", event)
            self._inbox.schedule(_ScanDirectory(""))

    def _handle(self, event: events.FileSystemEvent) -> None:
        kind, start = event.event_type, len(self._event_prefix)
        source, target = os.fsdecode(event.src_path)[start:], os.fsdecode(event.dest_path)[start:]
        gone = kind in {"moved", "deleted"}
        if not self._is_there():
            self._inbox.schedule(_CheckRoot())
        elif event.is_directory:
            self._handle_directory(kind, source and source + os.sep, target and target + os.sep)
        elif gone:
            self._replaced(source)
            self._replaced(target, moved_in=True)
        elif self._wants(source) and (kind == "closed" or not _INOTIFY):
            self._do(_LookAgain(source, closed=kind == "closed"))
        if gone and source:
            # Perhaps the root is next. Linux tells of its end only when nobody has it, or a file
            # that was in it, open any more.
            self._inbox.schedule(_CheckRoot(), _LULL, put_off=True)

    def _handle_directory(self, kind: str, source: str, target: str) -> None:
        if kind in {"deleted", "moved"} and source and self._enters:
            for name in self._inbox.known(source):
                self._replaced(name)
        elif kind == "deleted" and not source:
            self._inbox.schedule(_CheckRoot(deleted=True))
        appeared = source if kind == "created" else target
        if self._wants_below(appeared.rstrip(os.sep)):
            self._inbox.schedule(_ScanDirectory(appeared))

    def _replaced(self, name: str, *, moved_in: bool = False) -> None:
        """What had this name is gone; another file may have it already."""
        if self._wants(name):
            self._inbox.forget(name)
            self._do(_LookAgain(name, moved_in=moved_in))

    def _wants(self, name: str) -> bool:
        directory, _, base = name.rpartition(os.sep)
        return self._matches(base) and (not directory or self._wants_below(directory))

    def _wants_below(self, directory: str) -> bool:
        return self._enters is not None and all(map(self._enters, directory.split(os.sep)))

    # Files.

    def _check(self, job: _LookAgain) -> None:
        """Give a file if it is there, is news, and is whole, as far as the system tells."""
        name, path = job.name, self._prefix + job.name
        try:
            found = os.lstat(path)
        except _GONE:
            if job.closed:  # an event told of a file that is nowhere: perhaps all is
                self._inbox.schedule(_CheckRoot())
            found = None
        if found is None or not stat.S_ISREG(found.st_mode):
            self._inbox.forget(name)
            return
        look = found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
        if job.moved_in or (job.closed and not self._settle and found.st_uid == os.geteuid()):
            self._inbox.offer(name, look, told=True)
        elif self._inbox.is_news(name, look, told=job.closed):
            quiet = job.before[2:] == look[2:]
            is_open = _open_for_writing(path) if quiet or not self._settle else None
            if is_open is False or (is_open is None and quiet):
                self._inbox.offer(name, look, told=job.closed)
            elif is_open is None:  # if it is open, an event will tell that it was closed
                self._inbox.wait_for_quiet(_LookAgain(name, look, job.closed))

    def _scan(self, top: str) -> None:
        """Find the files below a directory, lazily: no further ahead than there is room."""
        if not top:
            self._inbox.advance(_State.RUNNING)  # also to see whether the loop is closed
            self._check_root()
            if not self._observer.is_alive():
                self._observe()
        unseen, directories = set(self._inbox.known(top)), [top] if self._is_there() else []
        while directories:
            directory = directories.pop()
            try:
                with os.scandir(self._prefix + directory) as entries:
                    for entry in entries:
                        if not self._inbox.wait_for_room():
                            return
                        name = directory + entry.name
                        unseen.discard(name)
                        if self._matches(entry.name):
                            self._do(_LookAgain(name))
                        if self._wants_below(entry.name) and entry.is_dir(follow_symlinks=False):
                            directories.append(name + os.sep)
            except _GONE:
                self._inbox.schedule(_CheckRoot(), _LULL, put_off=True)
            except OSError as error:
                self._try_again(_ScanDirectory(directory), error)
                unseen = {name for name in unseen if not name.startswith(directory)}
            else:
                self._failing.pop(_ScanDirectory(directory), None)
        for name in unseen:  # its end no event told
            self._do(_LookAgain(name))

    # The root, in the keeper's thread.

    def _is_there(self) -> bool:
        return self._place is not None and self._place[0] == self._path

    def _check_root(self, *, deleted: bool = False) -> None:
        """Follow the path to another directory, or wait for one, if so asked; else end."""
        while deleted or self._find_place() != self._place:
            place, deleted = self._find_place(), False
            if not self._waits and (self._place or place[0] != self._path):
                reason = "the watched directory was removed, moved or replaced: enter it again"
                error = FileNotFoundError(errno.ENOENT, reason, self._given)
                self._inbox.advance(_State.CLOSING, error)
                return
            self._place = place
            for name in self._inbox.known():
                self._inbox.forget(name)
            with contextlib.suppress(*_GONE):  # in the meantime: then there is another place
                self._observe()
            self._inbox.schedule(_ScanDirectory(""))

    def _find_place(self) -> tuple[str, tuple[int, int]]:
        """Find the root or, if it is missing, the nearest directory in which it can appear."""
        if (root := _identity(self._path)) is not None:
            return self._path, root
        for parent in Path(os.path.realpath(self._path)).parents:  # of a link's target
            if (found := _identity(str(parent))) is not None:
                return str(parent), found
        raise FileNotFoundError(errno.ENOENT, "not even a directory above is there", self._given)

    def _observe(self) -> None:
        there, below = self._is_there(), self._enters is not None
        kinds: _Kinds = [events.FileMovedEvent, events.DirDeletedEvent]
        kinds += [events.FileClosedEvent, events.FileDeletedEvent] if there else []
        kinds += [] if there else [events.FileCreatedEvent]  # also that of a link
        kinds += [events.DirCreatedEvent, events.DirMovedEvent] if below or not there else []
        path = os.path.realpath(self._place[0]) if self._place else ""
        self._event_prefix = path.rstrip(os.sep) + os.sep
        self._observer.start(path, kinds, recursive=below and there)


class _Observer:
    """watchdog's observer, and what is odd about it in one place."""

    def __init__(self, handler: events.FileSystemEventHandler) -> None:
        self._handler = handler
        self._observer: Any = None

    def start(self, path: str, kinds: _Kinds, *, recursive: bool) -> None:
        """Start one, in the place of the last one."""
        self.end()
        self._observer = observer = Observer(**_OPTIONS)  # from here on `end` ends it
        wanted = kinds if _INOTIFY else None  # fewer events, later overflow
        observer.schedule(self._handler, path, recursive=recursive, event_filter=wanted)
        observer.start()
        # When a file is moved out, watchdog holds back what follows for 0.5 s, lest the other
        # half of the move be late. The halves serve as well here, but there is no public setting.
        # For the directories below a root it needs the pairs itself.
        for group in () if recursive else self._groups():
            grouper = getattr(group, "_move_event_grouper", None)
            if grouper is not None:
                getattr(grouper, "_queue", grouper).delay = 0.0

    def is_alive(self) -> bool:
        """Whether events can come: its threads run, and no unmount has taken its watches."""
        observer = self._observer  # that the thread which reads is alive, no public name tells
        threads = (observer, *observer.emitters, getattr(observer, "_inotify_fd", observer))
        watches = (getattr(group, "_active_callbacks_by_watch", True) for group in self._groups())
        return all(thread.is_alive() for thread in threads) and all(watches)

    def end(self) -> None:
        """End it, started or not, and wait for its threads."""
        if self._observer is None:
            return
        # Its readers first: watchdog logs an error where `stop` meets one with an event.
        for emitter in self._observer.emitters:
            while emitter.is_alive() and (group := getattr(emitter, "_inotify", None)):
                emitter.stopped_event.set()
                with contextlib.suppress(KeyError):  # of each watch that watchdog lost count of
                    group.deactivate()
                    emitter.join()
        self._observer.stop()
        if self._observer.is_alive():
            self._observer.join()

    def _groups(self) -> list[Any]:
        """The watches of each emitter, for which watchdog has no public name."""
        groups = (getattr(emitter, "_inotify", None) for emitter in self._observer.emitters)
        return [group for group in groups if group is not None]


def _open_for_writing(path: str) -> bool | None:
    """Whether a program has the file open for writing; None where the system does not tell.

    Linux grants a read lease on a file only while nobody can write to it, and only to the file's
    owner or a privileged process. A program that opens the file for writing meanwhile waits
    until the lease is given back, by closing, right below.

    Raises:
        OSError: it may tell at another time.
    """
    if sys.platform != "linux":
        return None
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)  # it may be a pipe now
    except PermissionError:
        return None
    except _GONE:
        return True  # let events tell what becomes of it
    try:
        # To break a lease sends its holder SIGIO, which kills; SIGURG is ignored.
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno in _NO_LEASES:
            return None
        if error.errno != errno.EAGAIN:
            raise
        return True
    finally:
        os.close(file)
    return False


def _identity(path: str) -> tuple[int, int] | None:
    """What tells a directory from another one of its path; None where there is none."""
    with contextlib.suppress(*_GONE):
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            return found.st_dev, found.st_ino
    return None


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _patterns(name: str, patterns: Iterable[str]) -> list[str]:
    """Check shell patterns for names."""
    single = isinstance(patterns, (str, bytes)) or not isinstance(patterns, Iterable)
    checked: list[Any] = [patterns] if single else list(patterns)
    visible = name == "patterns"
    for pattern in checked or [""] * visible:
        if single or not isinstance(pattern, str):
            raise TypeError(f"{name} must be strings, such as ['*.csv'], not {patterns!r}")
        if not pattern or "/" in pattern or os.sep in pattern or (visible and pattern[0] == "."):
            wanted = "visible names" if visible else "names"
            raise ValueError(f"{name} must match {wanted}, as '*.csv' does, not {pattern!r}")
    return list(map(_composed, checked))


def _check_type(name: str, value: object, wanted: str, *kinds: type) -> None:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise TypeError(f"{name} must be {wanted}, not {value!r}")


def _check_seconds(name: str, value: float, *, zero: bool = True) -> float:
    _check_type(name, value, "a number of seconds", int, float)
    if not (value > 0 or (zero and value == 0)):  # so put, it refuses NaN, too
        least = "at least" if zero else "above"
        raise ValueError(f"{name} must be {least} 0 seconds, not {value!r}")
    return float(min(value, 1e300))  # also for an int that fits no float
