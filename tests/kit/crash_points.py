"""Crash points: a process ends after each of its system calls in turn, and another one goes on.

A check of this kind is a module with these functions:

    given(folder)                      what is there at first (optional)
    before(module, folder, server)     what the first process does, until it is ended
    between(folder)                    what others do before the restart (optional)
    after(module, folder, server)      what the next process does, and asserts of what it finds

`server` is a list of what the outside world was given: no crash takes that back. Nothing that
outlives a process changes between two system calls. So there is a crash point before the first
that changes the folder, or gives something to `server`, and one after each. Calls that name
files below a descriptor (`dir_fd`) are not seen.
"""

import builtins
import ctypes
import io
import itertools
import json
import logging
import os
import re
import signal
import stat
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NamedTuple

from tests.kit import COMPONENTS

_CRASHED = 77  # an exit code
_PATIENCE = 30  # seconds, against hangs
# Where only processes die, not the power, what is in memory outlives them as on a disk.
_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
_SHOWN = 24  # characters of a file's contents
_RANDOM = re.compile(r"[0-9a-f]{16,}")  # in the names of temporary files
_open, _os_open, _listdir = io.open, os.open, os.listdir
# System calls in words, by their names in `os`, and whether they change anything.
_CALLS = {
    "rename": ("rename {} → {}", True),
    "replace": ("rename {} → {}", True),
    "link": ("link {} → {}", True),
    "unlink": ("unlink {}", True),
    "remove": ("unlink {}", True),
    "mkdir": ("make the directory {}", True),
    "rmdir": ("remove the directory {}", True),
    "truncate": ("set the length of {}", True),
    "fsync": ("fsync {}", True),
    "listdir": ("list {}", False),
    "scandir": ("list {}", False),
}
_EXCLUSIVE = "rename {} → {}, overwriting nothing"  # renameat2, with RENAME_NOREPLACE


class Place(NamedTuple):
    """Where a call comes from."""

    path: str  # as linecache knows it
    line: int
    function: str


class Call(NamedTuple):
    """A system call that succeeded, or what the outside world was given."""

    by: str  # "before", "between", "after"
    words: str
    names: list[str]  # of the files, below the folder
    changes: bool
    places: list[Place]  # in components, the innermost first
    files: dict[str, str]  # those that there are after it, and how they begin
    server: list[str]


class Run(NamedTuple):
    """A process that ended at a crash point, and what came after it."""

    died: bool
    files: dict[str, str]  # at first
    calls: list[Call]
    failure: str  # of the next process: "AssertionError: …", "hang", or ""
    line: int  # of the check, where it failed


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
    """End a process after so many calls that change something, and start the next one.

    It ends by itself where there are fewer.
    """
    with tempfile.TemporaryDirectory(dir=_MEMORY) as root:
        folder, log = Path(root, "folder").resolve(), _Log(Path(root, "log"))
        folder.mkdir()
        getattr(check, "given", lambda folder: None)(folder)
        files = _contents(folder)
        code = _forked(lambda: _Process("before", folder, log, point).run(check.before, module))
        failure, _ = log.failure()
        if failure or code not in {0, _CRASHED}:
            raise AssertionError(f"{check.__name__}: before fails by itself: {failure or code}")
        if between := getattr(check, "between", None):
            between(folder)
            words = between.__doc__.partition("\n")[0]
            log.write("call", Call("between", words, [], True, [], _contents(folder), log.server()))
        ended = _forked(lambda: _Process("after", folder, log).run(check.after, module))
        failure, line = ("hang", 0) if ended == -signal.SIGALRM else log.failure()
        assert failure or not ended, f"{check.__name__}: after ends with the exit code {ended}"
        return Run(code == _CRASHED, files, log.calls(), failure, line)


def _forked(work: Callable[[], None]) -> int:
    """Do it in a child, which has so many seconds; its exit code."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        signal.alarm(_PATIENCE)
        logging.disable(logging.CRITICAL)
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
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
        with _open(self._path, encoding="utf-8") as file:
            return [what for each, what in map(json.loads, file) if each == kind]

    def calls(self) -> list[Call]:
        calls = [Call(*each) for each in self._of("call")]
        return [each._replace(places=[Place(*p) for p in each.places]) for each in calls]

    def server(self) -> list[str]:
        return self._of("server")

    def failure(self) -> tuple[str, int]:
        for failure, line in self._of("failure"):
            return failure, line
        return "", 0


class _Process:
    """Notes the calls of the process that it is in, which ends after so many changes."""

    def __init__(self, by: str, folder: Path, log: _Log, left: int = -1) -> None:
        self._by, self._folder, self._log, self._left = by, folder, log, left
        self._server = _Server(self, log)

    def run(self, work: Callable[..., object], module: ModuleType) -> None:
        """Do the work; what is replaced for it ends with this process."""
        for name, (words, changes) in _CALLS.items():
            setattr(os, name, self._noting(getattr(os, name), words, changes))
        for owner, name, call in (
            (os, "open", self._os_open),
            (io, "open", self._open),
            (builtins, "open", self._open),
            # Of the class: an instance finds it before it asks the library.
            (ctypes.CDLL, "renameat2", self._renameat2()),
        ):
            setattr(owner, name, call)
        self._end_if_due()
        try:
            work(module, self._folder, self._server)
        except BaseException as error:
            failure = f"{type(error).__name__}: {error}".partition("\n")[0]
            self._log.write("failure", (failure, _line_of(error, work)))

    def _end_if_due(self) -> None:
        if self._left == 0:
            os._exit(_CRASHED)

    def note(self, words: str, *paths: Any, changes: bool = True) -> None:
        """A call was made, which is told in these words."""
        names = [*map(self._inside, paths)]
        if any(names) or not paths:
            places, files = list(_places()), _contents(self._folder)
            told = words.format(*names) if paths else words
            call = Call(self._by, told, names, changes, places, files, self._server)
            self._log.write("call", call)
            self._left -= changes
            self._end_if_due()

    def _inside(self, path: Any) -> str:
        """The path below the folder, to be shown; empty if it is elsewhere."""
        if isinstance(path, int):
            path = Path(f"/proc/self/fd/{path}").readlink()
        below = os.path.relpath(os.fsdecode(path), self._folder)
        return "" if below.startswith("..") else _shown(below)

    def _noting(self, real: Callable[..., Any], words: str, changes: bool) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            result = real(*arguments, **options)
            self.note(words, *(arguments[: words.count("{}")] or (".",)), changes=changes)
            return result

        return call

    def _renameat2(self) -> Callable[..., int]:
        def call(library: Any, *arguments: Any) -> int:
            # By its name in the library: an attribute would be kept, and found instead of this.
            failed = int(library["renameat2"](*arguments))
            if not failed:
                self.note(_EXCLUSIVE, arguments[1], arguments[3])
            return failed

        return call

    def _os_open(self, path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        creates = flags & os.O_CREAT and not os.path.lexists(path)
        file = _os_open(path, flags, *arguments, **options)
        if creates:
            self.note("create {}", path)
        return file

    def _open(self, file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if isinstance(file, int) or not set(mode) & set("wxa") or not self._inside(file):
            return _open(file, mode, *arguments, **options)
        there = os.path.lexists(file)
        raw = _Raw(file, mode.replace("b", "").replace("t", ""))
        raw.written = lambda: self.note("write to {}", file)
        if not there:
            self.note("create {}", file)
        elif "w" in mode:
            self.note("empty {}", file)
        buffered = raw if arguments == (0,) else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, options.get("encoding"))


class _Raw(io.FileIO):
    """A file, as its buffer sees it."""

    written: Callable[[], None]

    def write(self, data: Any) -> int:
        """Write, and tell."""
        size = super().write(data)
        self.written()
        return size


class _Server(list[str]):
    """What the outside world was given, by this process and by those before it."""

    def __init__(self, process: _Process, log: _Log) -> None:
        super().__init__(log.server())
        self._process, self._log = process, log

    def append(self, what: str) -> None:
        """Give it to the outside world."""
        super().append(what)
        self._log.write("server", what)
        self._process.note(f"the server receives {what!r}")


def _places() -> Iterator[Place]:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith(str(COMPONENTS)):
            yield Place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname)
        frame = frame.f_back


def _line_of(error: BaseException, work: Any) -> int:
    """The last line of the work's file that an error came through."""
    path, lines = work.__code__.co_filename, traceback.walk_tb(error.__traceback__)
    return [line for frame, line in lines if frame.f_code.co_filename == path][-1]


def _contents(folder: Path) -> dict[str, str]:
    """The files below the folder, and how they begin."""
    found = {_shown(path): _beginning(folder / path) for path in _files(f"{folder}/", "")}
    return dict(sorted(found.items()))


def _files(root: str, below: str) -> Iterator[str]:
    for name in _listdir(root + below):
        if stat.S_ISDIR(os.lstat(f"{root}{below}{name}").st_mode):
            yield from _files(root, f"{below}{name}/")
        else:
            yield below + name


def _beginning(path: Path) -> str:
    with _open(path, "rb") as file:
        text = " ".join(file.read().decode(errors="replace").split())
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def _shown(path: str) -> str:
    return "the directory" if path == "." else _RANDOM.sub("…", path)
