# file_watch.py: the files that appear in a directory, as an async iterator (DirectoryWatch)
# https://executable-guarantees.example/bridges/file_watch.html
# Version 1.0.1 (2026-11-30); Python 3.11 to 3.14, with or without the GIL; needs watchdog 7
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: 2026 The Executable Guarantees authors
"""From watchdog's threads to an event loop: no file missed, no wake-up lost, nothing left over."""

import asyncio
import contextlib
import errno
import fnmatch
import logging
import math
import os
import re
import signal
import stat
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn, Self, SupportsIndex

from watchdog import events
from watchdog.observers import Observer

if sys.platform == "linux":
    import fcntl

__all__ = ["DirectoryWatch"]

# inotify tells when a file that was written is closed. Elsewhere only the lack of changes can
# tell, so files that are created or modified count as found by a scan.
_INOTIFY = getattr(Observer, "__name__", "") == "InotifyObserver"
# With full events, a file that is moved in cannot be taken for one that is being written.
_OPTIONS: dict[str, Any] = {"generate_full_events": True} if _INOTIFY else {}
_AHEAD = 1024  # a scan runs so many files ahead of those who take them
_TURNS = 64  # so many files may be taken in a row before other tasks are let in
_TICK_NS = 20_000_000  # file systems write times in steps of up to 10 ms
_LULL = 0.1  # seconds after the last file that went, in which its directory may go, too
_ROOT = os.sep  # the job to see whether the root is there; no file and no directory has this name
_GONE = (FileNotFoundError, NotADirectoryError)
_Look = tuple[int, int, int, int]  # device, inode, mtime_ns, size: a new file or an old story
_logger = logging.getLogger(__name__)


class DirectoryWatch:
    """The regular files of a directory, those there and those to come, as an async iterator.

    `async with` starts a watchdog observer and a thread that scans, and ends them; inside,
    `async for` gives the path of each file that was there, was closed after writing, or was moved
    in. A file that changes is given again, and so is one that was moved away and comes back.
    At least once is what is promised: a file can be given twice where a scan and an event meet,
    and one can be gone by the time that its path is given.

    Args:
        path: the directory; a symbolic link to one is followed once, on entry. The paths given
            begin with it, just as it was passed.
        patterns: shell patterns for names, such as `("*.csv", "report-?.txt")`; a file is given
            if one of them matches. Names that begin with a dot are hidden, and never given.
        recursive: whether to watch the directories below, too, except hidden ones and links.
        settle: seconds, from 0, for which a file found by a scan must not change before it is
            given. If in doubt, 0 where files are renamed in or the system tells when a file is
            closed (Linux); on other systems longer than any pause of who writes the files.
        rescan_interval: seconds, above 0, from one scan of everything to the next; it finds what
            no event told of, such as links, and files whose events the system dropped. None does
            without: then those are lost. If in doubt, 60.
        clock: returns seconds; it must not use the watch.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: a number is out of range, or a pattern can match no name.

    Async safety:
        Loop-bound: it belongs to the loop on which it was entered. Several tasks may iterate at
        the same time, and each file is given to one of them. A cancelled iteration takes nothing.
        The threads touch the loop by `call_soon_threadsafe` alone.

    Contexts:
        *Fork*: a child has the object but not its threads; make a new watch there. *Interpreter
        exit*: the threads are daemons and hold nothing up. *A loop that is closed* without
        leaving the block: the threads end when they next wake it, which may be never while files
        wait to be taken. *Signal handlers* may not use it, except those of
        `loop.add_signal_handler`. *`__del__`*: there is none; leave the block. *Free-threaded
        builds*: no difference; what threads share is behind one lock.

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
        recursive: bool = False,
        settle: float = 0.0,
        rescan_interval: float | None = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"path must be a str or a path, not {path!r}")
        if not isinstance(recursive, bool):
            raise TypeError(f"recursive must be True or False, not {recursive!r}")
        if not callable(clock):
            raise TypeError(f"clock must be a function that returns seconds, not {clock!r}")
        interval = math.inf if rescan_interval is None else rescan_interval
        self._path, self._names, self._recursive = Path(path), _compiled(patterns), recursive
        self._settle = _seconds("settle", settle, 0.0)
        self._interval = _seconds("rescan_interval", interval, math.ulp(0.0))
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inbox: _Inbox | None = None
        self._keeper: threading.Thread | None = None
        self._bell, self._calls = asyncio.Event(), 0  # it wakes all who wait, on the loop only

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse copy.copy, copy.deepcopy and pickle."""
        raise TypeError(f"{type(self).__name__} cannot be copied or pickled: make another one")

    async def __aenter__(self) -> Self:
        """Start the observer; from here on no file is missed.

        Raises:
            FileNotFoundError: the directory does not exist.
            NotADirectoryError: it is something else.
            OSError: it may not be read, or the system has no watches left (on Linux
                `fs.inotify.max_user_instances` and `max_user_watches`).
            RuntimeError: the watch is in use already.
        """
        if self._inbox is not None and not self._inbox.ended:
            raise RuntimeError("this watch is in use already: make another one, or leave it first")
        loop, bell = asyncio.get_running_loop(), asyncio.Event()
        inbox = _Inbox(
            lambda: loop.call_soon_threadsafe(bell.set), self._settle, self._interval, self._clock
        )
        watcher = _Watcher(inbox, self._path, self._names, self._recursive)
        keeper = threading.Thread(target=watcher.run, name="directory-watch", daemon=True)
        keeper.start()
        self._loop, self._bell, self._inbox, self._keeper = loop, bell, inbox, keeper
        try:
            while not inbox.started:
                await self._rung()
            if inbox.error is not None:
                raise inbox.error  # noqa: TRY301
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the observer and the scans, and wait for the end of their threads, off the loop.

        Those who still iterate see the end of the iteration. A cancellation ends the wait, and
        the threads end by themselves.

        Raises:
            RuntimeError: another loop has entered; the watch goes on, unless that one is closed.
        """
        if self._inbox is None or self._loop is None or self._keeper is None:
            return
        if self._loop is not asyncio.get_running_loop() and not self._inbox.ended:
            if self._loop.is_closed():  # nobody can leave any more
                self._inbox.close()
            raise RuntimeError("leave this watch on the loop that entered it")
        self._inbox.close()
        while not self._inbox.ended:
            await self._rung()
        self._keeper.join()  # it has said its last word: this is only its way out

    async def _rung(self) -> None:
        """Wait for the next wake-up; who waits looks again whether it concerns them."""
        self._bell.clear()
        await self._bell.wait()

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
            await self._rung()
        return self._path / name


class _Inbox:
    """What the threads and the loop share, behind one lock.

    `offer`, `forget`, `known`, `due` and `doubt` are for the threads, `next_job` and
    `wait_for_room` for the keeper alone, `take` for the loop.

    `_awake` is the promise that a wake-up is on its way to the loop, or that the loop knows of
    files to take. Only `take` ends it, in the same locked step in which it finds nothing; so the
    first file after that posts a wake-up, and no other one needs to.
    """

    def __init__(
        self, ring: Callable[[], object], settle: float, interval: float, clock: Callable[[], float]
    ) -> None:
        self._ring, self._settle, self._interval, self._clock = ring, settle, interval, clock
        # Guards all below. Notified of a job for the keeper, of room for its scan, of the end.
        self._changed = threading.Condition(threading.Lock())
        # First come, first served; with whether the look was taken just after a change.
        self._pending: OrderedDict[str, tuple[_Look, bool]] = OrderedDict()
        self._taken: dict[str, tuple[_Look, bool]] = {}  # and not gone since, as far as is known
        self._settling: OrderedDict[str, tuple[float, _Look]] = OrderedDict()  # and until when
        self._scans: OrderedDict[str, None] = OrderedDict()  # directories, as a set in order
        self._rescan_at = -math.inf
        self._doubt_at = math.inf  # when to see whether the root is there
        self._full = False  # a scan waits for room
        self.error: BaseException | None = None
        self._awake = self.started = self.closing = self.ended = False

    def offer(self, name: str, look: _Look, *, event: bool = False) -> None:
        """Let a file be taken, unless it is the one that was taken last under that name.

        A file that an event reports may have changed without a trace, if the look was taken
        just after a change: it is given again.
        """
        fresh = time.time_ns() - look[2] < _TICK_NS
        with self._changed:
            known, was_fresh = self._taken.get(name, (None, False))
            old = name not in self._pending and known == look and not (event and was_fresh)
            if old or self.closing:
                return
            self._pending[name] = look, fresh
            if self._awake:
                return
            self._awake = True
        self._post()

    def take(self) -> str | None:
        """Take the file that waits longest; None if there is none now."""
        with self._changed:
            if self.closing:  # in this same step, lest an error that comes now be missed
                raise self.error or StopAsyncIteration
            if self._full and len(self._pending) <= _AHEAD // 2:
                self._full = False
                self._changed.notify()
            if not self._pending:
                self._awake = False
                return None
            name, self._taken[name] = self._pending.popitem(last=False)
            return name

    def forget(self, name: str) -> None:
        """A file is gone: it need not be given, and one of its name is new."""
        with self._changed:
            self._pending.pop(name, None)
            self._taken.pop(name, None)

    def known(self, directory: str = "") -> list[str]:
        """The names of the files below a directory that were given or will be. Cost: linear."""
        with self._changed:
            names = [*self._pending, *self._taken]
        return [name for name in names if name.startswith(directory)]

    def due(self, name: str, look: _Look | None) -> bool:
        """Whether a file that was found is new, and was seen unchanged for long enough."""
        with self._changed:
            until, before = self._settling.pop(name, (math.inf, None))
            known = self._pending.get(name) or self._taken.get(name)
            if look is None or (known is not None and known[0] == look):
                return False
            if not self._settle or (before == look and until <= self._clock()):
                return True
            if before != look:
                until = self._clock() + self._settle
            self._settling[name] = until, look
            self._changed.notify()
            return False

    def request(self, directory: str) -> None:
        """Ask for a scan of a directory."""
        with self._changed:
            self._scans[directory] = None
            self._changed.notify()

    def doubt(self) -> None:
        """Have the root looked at once nothing has gone for a moment.

        Cost: constant; the keeper is woken by the first call of a burst alone.
        """
        with self._changed:
            if self._doubt_at == math.inf:
                self._changed.notify()
            self._doubt_at = self._clock() + _LULL

    def next_job(self) -> str | None:
        """Wait for a directory to scan, a file or the root to look at again; None for the end."""
        with self._changed:
            while not self.closing:
                now = self._clock()
                if now >= self._rescan_at:
                    self._scans[""], self._rescan_at = None, now + self._interval
                if now >= self._doubt_at:
                    self._doubt_at = math.inf
                    return _ROOT
                if self._scans:
                    return self._scans.popitem(last=False)[0]
                name, (until, _) = next(iter(self._settling.items()), ("", (math.inf, None)))
                if until <= now:
                    return name
                wait = min(until, self._rescan_at, self._doubt_at) - now
                self._changed.wait(None if wait > threading.TIMEOUT_MAX else wait)
            return None

    def wait_for_room(self) -> bool:
        """Wait until those who take files have caught up; False for the end."""
        with self._changed:
            self._full = len(self._pending) >= _AHEAD
            while self._full and not self.closing:
                self._changed.wait()
            return not self.closing

    def tell(self, *, ended: bool = False) -> None:
        """Tell the loop that the observer has started, or that the threads have ended."""
        self.started, self.ended = True, ended
        self._post()

    def close(self, error: BaseException | None = None) -> None:
        """Let the threads end; the loop learns of an error with their end."""
        with self._changed:
            self.closing, self.error = True, self.error or error
            self._changed.notify_all()

    def _post(self) -> None:
        try:
            self._ring()
        except RuntimeError:  # the loop is closed, and nobody will leave the block any more
            self.close()


class _Watcher(events.FileSystemEventHandler):
    """What touches the file system: `dispatch` in the observer's thread, `run` in the keeper's.

    Files are named by their path from the root on; directories the same, with a separator at the
    end, and "" is the root.
    """

    def __init__(self, inbox: _Inbox, path: Path, names: re.Pattern[str], recursive: bool) -> None:
        self._inbox, self._path, self._names, self._recursive = inbox, path, names, recursive
        self._observer: Any = None

    def run(self) -> None:
        """Start the observer, scan what there is, and again when asked or due, until the end."""
        try:
            os.scandir(self._path).close()  # what is missing or may not be read fails on entry
            self._root = os.path.realpath(self._path).rstrip(os.sep) + os.sep
            self._identity = os.lstat(self._root)
            self._keep_observer()
            while (job := self._inbox.next_job()) is not None:  # first, to scan the root
                if job == _ROOT:
                    self._check_root()
                else:
                    (self._scan if not job or job.endswith(os.sep) else self._check)(job)
        except Exception as error:  # the iteration ends with it
            self._inbox.close(error)
        finally:
            try:
                self._end_observer()
            finally:  # whatever watchdog does: who leaves the block waits for this
                self._inbox.tell(ended=True)

    def dispatch(self, event: events.FileSystemEvent) -> None:
        """Handle an event, in the observer's thread, which an exception would end."""
        try:
            self._handle(event)
        except Exception:
            _logger.exception("could not handle %r: the directory will be scanned", event)
            self._inbox.request("")

    def _handle(self, event: events.FileSystemEvent) -> None:
        if self._inbox.closing or event.is_synthetic:  # those are for a directory: it is scanned
            return
        kind, start = event.event_type, len(self._root)
        source, target = os.fsdecode(event.src_path)[start:], os.fsdecode(event.dest_path)[start:]
        if event.is_directory:
            self._handle_directory(kind, source and source + os.sep, target and target + os.sep)
        elif kind in {"moved", "deleted"}:
            self._check(source, gone=True)
            self._check(target, gone=True, whole=True)
        elif kind == "closed" or (kind in {"created", "modified"} and not _INOTIFY):
            self._check(source, whole=kind == "closed")
        if kind in {"moved", "deleted"} and source:
            # Perhaps the root is next. Linux tells of its end only when nobody has it, or a file
            # that was in it, open any more.
            self._inbox.doubt()

    def _handle_directory(self, kind: str, source: str, target: str) -> None:
        if kind in {"deleted", "moved"} and source and self._recursive:
            for name in self._inbox.known(source):
                self._check(name, gone=True)
        elif kind == "deleted" and not source:
            self._vanished()
        appeared = source if kind == "created" else target
        if self._enters(appeared):
            self._inbox.request(appeared)

    def _check(self, name: str, *, gone: bool = False, whole: bool = False) -> None:
        """Give the file of that name, if there is one.

        `gone` says that what was there is not there any more, `whole` that an event tells of a
        whole file. One that is found while it is being written is left to such an event.
        """
        if gone:
            self._inbox.forget(name)
        look = self._look(name) if self._wants(name) else None
        if whole and look is not None:
            self._inbox.offer(name, look, event=True)
        elif self._inbox.due(name, look) and look and not _open_for_writing(self._root + name):
            self._inbox.offer(name, look)

    def _look(self, name: str) -> _Look | None:
        """What is there under a name, if it is a regular file."""
        try:
            found = os.lstat(self._root + name)
        except OSError as error:
            if not isinstance(error, _GONE):  # of this one: the others are not to suffer
                _logger.warning("passed over until the next scan: %s", error)
            self._check_root()  # perhaps all is gone
            return None
        look = found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
        return look if stat.S_ISREG(found.st_mode) else None

    def _scan(self, top: str) -> None:
        """Find the files below a directory, lazily: no further ahead than there is room."""
        unseen = set(self._inbox.known(top))
        if not top:
            self._check_root()
            self._keep_observer()
            self._inbox.tell()  # from here on no file is missed; also whether the loop is closed
        directories = [top]
        while directories:
            directory = directories.pop()
            try:
                with os.scandir(self._root + directory) as entries:
                    for entry in entries:
                        if not self._inbox.wait_for_room():
                            return
                        name = directory + entry.name
                        unseen.discard(name)
                        if self._enters(name) and entry.is_dir(follow_symlinks=False):
                            directories.append(name + os.sep)
                        self._check(name)
            except _GONE:
                self._check_root()
            except OSError:
                _logger.exception("could not scan %r", self._root + directory)
        for name in unseen:
            if self._look(name) is None:  # its end no event told
                self._check(name, gone=True)

    def _wants(self, name: str) -> bool:
        directory, _, base = name.rpartition(os.sep)
        return bool(self._names.match(base)) and (not directory or self._enters(directory))

    def _enters(self, directory: str) -> bool:
        return self._recursive and bool(directory) and os.sep + "." not in os.sep + directory

    def _check_root(self) -> None:
        with contextlib.suppress(*_GONE):
            if os.path.samestat(os.lstat(self._root), self._identity):
                return
        self._vanished()

    def _vanished(self) -> None:
        reason = "the watched directory was removed, moved or replaced: enter the watch anew"
        self._inbox.close(FileNotFoundError(errno.ENOENT, reason, self._path))

    def _keep_observer(self) -> None:
        """Start the observer, and another one if its threads have ended."""
        if (old := self._observer) is not None:
            threads = old, *old.emitters, getattr(old, "_inotify_fd", old)
            if all(each.is_alive() for each in threads):
                return
        self._end_observer()
        self._observer = observer = Observer(**_OPTIONS)  # from here on `run` stops it
        wanted: list[type[events.FileSystemEvent]] = [events.FileClosedEvent, events.FileMovedEvent]
        wanted += [events.FileDeletedEvent, events.DirDeletedEvent]
        wanted += [events.DirCreatedEvent, events.DirMovedEvent] if self._recursive else []
        kinds = wanted if _INOTIFY else None  # fewer events, later overflow
        observer.schedule(self, self._root, recursive=self._recursive, event_filter=kinds)
        observer.start()
        # When a file is moved out, watchdog holds back what follows for 0.5 s, lest the other
        # half of the move be late. The halves serve as well here, but there is no setting. For
        # the directories below a root it needs the pairs itself.
        for emitter in () if self._recursive else observer.emitters:
            grouper = getattr(getattr(emitter, "_inotify", None), "_move_event_grouper", None)
            if grouper is not None:
                getattr(grouper, "_queue", grouper).delay = 0.0

    def _end_observer(self) -> None:
        """End the observer, started or not, and wait for its threads."""
        if self._observer is not None:
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


def _open_for_writing(path: str) -> bool:
    """Whether a program has the file open for writing; False where the system does not tell.

    Linux grants a read lease on a file only while nobody can write to it, and only to the file's
    owner or a privileged process. A program that opens the file for writing meanwhile waits
    until the lease is given back, right below.
    """
    if sys.platform == "linux":
        safely = os.O_NONBLOCK | os.O_NOFOLLOW  # it may have become a pipe or a link
        try:
            with open(path, "rb", 0, opener=lambda path, how: os.open(path, how | safely)) as file:
                # To break a lease sends its holder SIGIO, which kills; SIGURG is ignored.
                fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError as error:  # or not the owner, or a file system without leases
            return error.errno == errno.EAGAIN
    return False


def _compiled(patterns: Iterable[str]) -> re.Pattern[str]:
    single = isinstance(patterns, (str, bytes)) or not isinstance(patterns, Iterable)
    either = []
    for pattern in [None] if single else list(patterns) or [""]:
        if not isinstance(pattern, str):
            raise TypeError(f"patterns must be strings, such as ['*.csv'], not {patterns!r}")
        if not pattern or "/" in pattern or os.sep in pattern or pattern.startswith("."):
            raise ValueError(f"patterns must match visible names, as '*.csv' does, not {pattern!r}")
        either.append(fnmatch.translate(pattern))
    return re.compile(rf"(?![.]|\Z)(?:{'|'.join(either)})", re.IGNORECASE * (os.name == "nt"))


def _seconds(name: str, value: float, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not value >= least:
        raise ValueError(f"{name} must be {'above' if least else 'at least'} zero, not {value!r}")
    return float(min(value, 1e300))  # not every int fits a float
