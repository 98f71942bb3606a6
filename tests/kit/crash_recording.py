"""Crash points: a process ends after each of its system calls in turn, and another one goes on.

A check of this kind is a module with these functions:

    given(folder)                      what is there at first (optional)
    before(module, folder, server)     what the first process does, until it is ended
    between(folder)                    what others do before the restart (optional)
    after(module, folder, server)      what the next process does, and asserts of what it finds

`server` is a list of what the outside world was given: no crash takes that back. A step is a
system call that changes the folder, or what is appended to `server`. Between two of them nothing
changes that outlives the process; so there is a crash point before the first, and one after each.
"""

import builtins
import contextlib
import ctypes
import io
import itertools
import json
import logging
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NamedTuple

from tests.kit import COMPONENTS

LANES = {"P1": "first process", "others": "a producer", "P2": "after the restart"}
_CRASHED = 77  # an exit code
_PATIENCE = 30  # seconds, against hangs
_SHOWN = 44  # characters of a file's contents
_LOCK = ".pending-queue.lock"  # it stays, and is empty
_RANDOM = re.compile(r"[0-9a-f]{16,}")  # in the names of temporary files
_open, _os_open = io.open, os.open
# System calls in words, by their names in `os`.
_CALLS = {
    "rename": "rename {} → {}",
    "replace": "rename {} → {}",
    "link": "link {} → {}",
    "unlink": "unlink {}",
    "remove": "unlink {}",
    "mkdir": "make the directory {}",
    "rmdir": "remove the directory {}",
    "truncate": "set the length of {}",
    "fsync": "fsync {}",
}
_EXCLUSIVE = "rename {} → {}, if there is none"  # renameat2, with RENAME_NOREPLACE


class Place(NamedTuple):
    """Where a call comes from."""

    path: str  # as linecache knows it
    line: int
    function: str


class Step(NamedTuple):
    """A system call, or what the outside world is given."""

    lane: str
    call: str
    places: list[Place]  # the component's, the innermost first
    shared: dict[str, str]  # the files after it with their contents, and what the server has


class Run(NamedTuple):
    """A process that ended at a crash point, and what came after it."""

    point: int  # so many steps were done
    died: bool
    start: dict[str, str]  # the files before it
    steps: list[Step]
    failure: str | None  # of the next process: "AssertionError: …", "hang"


def crashes(module: ModuleType, check: Any) -> Iterator[Run]:
    """End a process at each crash point in turn; the last run is of one that came to its end.

    Raises:
        RuntimeError: the system cannot do that.
    """
    if sys.platform != "linux":
        raise RuntimeError("crash points are recorded on Linux: keep the traces that there are")
    for point in itertools.count():
        run = crash_at(point, module, check)
        yield run
        if not run.died:
            return


def crash_at(point: int, module: ModuleType, check: Any) -> Run:
    """End a process after so many steps, and start the next one."""
    with tempfile.TemporaryDirectory() as root:
        folder, log = Path(root, "folder"), _Log(Path(root, "log"))
        folder.mkdir()
        getattr(check, "given", lambda folder: None)(folder)
        start = _contents(folder, [])
        code = _forked(_Process("P1", folder, log, point), check.before, module)
        if failure := log.failure():
            raise AssertionError(f"{check.__name__}: before fails by itself: {failure}")
        if between := getattr(check, "between", None):
            between(folder)
            shared = _contents(folder, log.given())
            log.write("step", Step("others", _first_line(between), [], shared))
        ended = _forked(_Process("P2", folder, log), check.after, module)
        failure = "hang" if ended == -signal.SIGALRM else log.failure()
        assert ended == 0 or failure, f"{check.__name__}: after ends with the exit code {ended}"
        return Run(point, code == _CRASHED, start, log.steps(), failure)


def _first_line(function: Callable[..., object]) -> str:
    return (function.__doc__ or "").partition("\n")[0].rstrip(".")


def _forked(process: "_Process", work: Callable[..., object], module: ModuleType) -> int:
    """Do the work in a child; its exit code."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        signal.alarm(_PATIENCE)
        logging.disable(logging.CRITICAL)
        process.run(work, module)
        os._exit(0)
    finally:
        os._exit(1)


class _Log:
    """What the processes have done, in a file that outlives them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()

    def write(self, kind: str, what: object) -> None:
        file = _os_open(self._path, os.O_WRONLY | os.O_APPEND)
        os.write(file, json.dumps([kind, what]).encode() + b"\n")
        os.close(file)

    def _of(self, kind: str) -> list[Any]:
        records = map(json.loads, self._path.read_text(encoding="utf-8").splitlines())
        return [what for each, what in records if each == kind]

    def steps(self) -> list[Step]:
        return [
            Step(lane, call, [Place(*place) for place in places], shared)
            for lane, call, places, shared in self._of("step")
        ]

    def given(self) -> list[str]:
        return self._of("given")

    def failure(self) -> str | None:
        return next(iter(self._of("failure")), None)


class _Process:
    """Notes each step of the process that it is in, which ends after so many of them."""

    def __init__(self, lane: str, folder: Path, log: _Log, point: int | None = None) -> None:
        self._lane, self._folder, self._log, self._left = lane, folder, log, point
        self._root = os.path.realpath(folder)

    def run(self, work: Callable[..., object], module: ModuleType) -> None:
        """Do the work; what is replaced for it ends with this process."""
        for name, words in _CALLS.items():
            setattr(os, name, self._noted(words, getattr(os, name)))
        os.open, io.open, builtins.open = self._os_open, self._open, self._open
        # A function of the class, which an instance finds before it asks the library.
        ctypes.CDLL.renameat2 = self._renameat2()
        self._end_if_due()
        try:
            work(module, self._folder, _Server(self.note, self._log))
        except BaseException as error:
            self._log.write("failure", f"{type(error).__name__}: {error}")

    def _end_if_due(self) -> None:
        if self._left == 0:
            os._exit(_CRASHED)

    def note(self, call: str) -> None:
        """A step is done."""
        shared = _contents(self._folder, self._log.given())
        self._log.write("step", Step(self._lane, call, list(_places()), shared))
        if self._left is not None:
            self._left -= 1
            self._end_if_due()

    def _inside(self, path: Any) -> str:
        """The path below the folder, to be shown; empty if it is elsewhere."""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        folder, name = os.path.split(os.path.abspath(os.fsdecode(path)))
        found = os.path.join(os.path.realpath(folder), name)
        return _shown(found.removeprefix(self._root)) if found.startswith(self._root) else ""

    def _noted(self, words: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            paths = [self._inside(path) for path in arguments[: words.count("{}")]]
            result = real(*arguments, **options)
            if any(paths):
                self.note(words.format(*paths))
            return result

        return call

    def _renameat2(self) -> Callable[..., int]:
        def call(library: Any, _: int, source: bytes, __: int, target: bytes, flags: int) -> int:
            # By its name in the library: an attribute would be kept, and this one passed by.
            failed = int(library["renameat2"](_, source, __, target, flags))
            if not failed and self._inside(target):
                self.note(_EXCLUSIVE.format(self._inside(source), self._inside(target)))
            return failed

        return call

    def _os_open(self, path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        created = flags & os.O_CREAT and not os.path.lexists(path) and self._inside(path)
        file = _os_open(path, flags, *arguments, **options)
        if created:
            self.note(f"create {created}")
        return file

    def _open(self, file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        name = "" if isinstance(file, int) else self._inside(file)
        if not name or not set(mode) & set("wxa"):
            return _open(file, mode, *arguments, **options)
        there = os.path.lexists(file)
        raw = _Raw(file, mode.replace("b", "").replace("t", ""))
        raw.noted = lambda: self.note(f"write to {name}")
        if not there or "w" in mode:
            self.note(f"{'empty' if there else 'create'} {name}")
        if "b" in mode:
            return raw if arguments == (0,) else io.BufferedWriter(raw)
        return io.TextIOWrapper(io.BufferedWriter(raw), options.get("encoding"))


class _Raw(io.FileIO):
    """A file whose buffer is written by this call."""

    noted: Callable[[], None]

    def write(self, data: Any) -> int:
        """Write, and note it."""
        written = super().write(data)
        self.noted()
        return written


class _Server(list[str]):
    """What the outside world was given, by this process and by those before it."""

    def __init__(self, note: Callable[[str], None], log: _Log) -> None:
        super().__init__(log.given())
        self._note, self._log = note, log

    def append(self, what: str) -> None:
        """Give it to the outside world."""
        super().append(what)
        self._log.write("given", what)
        self._note(f"the server receives {what!r}")


def _places() -> Iterator[Place]:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith(str(COMPONENTS)):
            yield Place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname)
        frame = frame.f_back


def _contents(folder: Path, given: list[str]) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != _LOCK]
    shown = {_shown(str(path.relative_to(folder))): _beginning(path) for path in files}
    return shown | {"server": repr(given)}


def _shown(path: str) -> str:
    return _RANDOM.sub("…", path.lstrip(os.sep))


def _beginning(path: Path) -> str:
    text = repr(path.read_text(encoding="utf-8", errors="replace"))
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
