"""What one expects of a watcher of a directory."""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peers.adapters.watchers import Watcher
from peers.checks import Family
from peers.outcomes import DoesNotHold, Holds, NotOffered, once, sampled

FAMILY = Family("watchers", "Watching a directory")
_DEADLINE = 5.0  # seconds for a file to be reported


class _Log:
    """What a watcher has told."""

    def __init__(self, report: Callable[[str], Any] | None = None) -> None:
        self.paths: list[str] = []
        self.errors: list[BaseException] = []
        self._report = report

    def report(self, path: Any) -> None:
        self.paths.append(os.fsdecode(path))
        if self._report is not None:
            self._report(os.fsdecode(path))

    def count(self, name: str) -> int:
        return sum(Path(path).name == name for path in self.paths)

    def has(self, *names: str, deadline: float = _DEADLINE) -> bool:
        """Whether each name is told of in time."""
        return self._wait(lambda: set(names) <= {Path(each).name for each in self.paths}, deadline)

    def fails(self, deadline: float) -> bool:
        """Whether the watcher says in time that it has given up."""
        return self._wait(lambda: bool(self.errors), deadline)

    def _wait(self, ready: Callable[[], bool], deadline: float) -> bool:
        end = time.monotonic() + deadline
        while not ready() and time.monotonic() < end:
            time.sleep(0.02)
        return ready()


class _Watching:
    """A watcher in a thread, told to end when the block is left."""

    def __init__(self, row: type[Watcher], folder: Path, log: _Log) -> None:
        self.end = threading.Event()
        self._call = row.watch, str(folder), log
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        watch, folder, log = self._call
        try:
            watch(folder, log.report, self.end)
        except Exception as error:
            log.errors.append(error)

    def ended(self, deadline: float) -> bool:
        """Tell it to end, and whether it does in time."""
        self.end.set()
        self._thread.join(deadline)
        return not self._thread.is_alive()

    def __enter__(self) -> "_Watching":
        return self

    def __exit__(self, *_: object) -> None:
        self.ended(3)


def _watched(row: type[Watcher], folder: Path, log: _Log) -> _Watching:
    """The watcher, once it tells of a first file."""
    watching = _Watching(row, folder, log)
    for number in range(20):
        probe = folder / f"ready-{number}"
        probe.write_text("x")
        if log.has(probe.name, deadline=0.5):
            break
    else:
        raise NotOffered("it has told of nothing in 10 s")
    time.sleep(0.5)  # until it has told all of the first file
    log.paths.clear()
    return watching


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        yield Path(name).resolve()


_START = """import os, pathlib, tempfile, threading, time
folder, told = tempfile.mkdtemp(), []
"""
_WATCH = """\
threading.Thread(target=watch, args=(folder, told.append, threading.Event()), daemon=True).start()
time.sleep(1)
"""


@FAMILY.check("The adapter works")
def adapter_sound(row: type[Watcher]) -> Holds:
    """A file that is written into the folder is told of, and the watcher can be ended.

    Otherwise no other cell of the row says anything.
    """
    with _folder() as folder:
        log = _Log()
        with _Watching(row, folder, log) as watching:
            for number in range(20):
                path = folder / f"file-{number}"
                path.write_text("x")
                if log.has(path.name, deadline=0.5):
                    break
            else:
                raise DoesNotHold(f"told of nothing; errors: {log.errors}")
            if str(path) not in log.paths:
                raise DoesNotHold(f"not told of {path}, but {log.paths}")
            if not watching.ended(5):
                raise DoesNotHold("it does not end in 5 s")
        (folder / "late").write_text("x")
        if log.has("late", deadline=1):
            raise DoesNotHold("told of a file after its end")
    return once("told of a file; ended")


@FAMILY.check("A new file is told of", plain=True)
def created(row: type[Watcher]) -> Holds:
    """Each file that is written into the folder is told of, one after the other.

    It is what it is for.
    """
    with _folder() as folder:
        log = _Log()
        with _watched(row, folder, log):
            for number in range(20):
                (folder / f"{number}.txt").write_text("x")
                if not log.has(f"{number}.txt"):
                    raise DoesNotHold(f"file {number} of 20 was not told of in {_DEADLINE:g} s")
    return once("20 of 20")


@FAMILY.check("Nothing is lost in a burst", plain=True)
def burst(row: type[Watcher]) -> Holds:
    """Of 2,000 files that are written as fast as it goes, each is told of.

    A copied folder is such a burst.
    """
    names = [f"{number}.txt" for number in range(2000)]
    with _folder() as folder:
        log = _Log()
        with _watched(row, folder, log):
            for name in names:
                (folder / name).write_text("x")
            if not log.has(*names, deadline=20):
                lost = len(set(names) - {Path(each).name for each in log.paths})
                raise DoesNotHold(f"{lost} of 2,000 files were never told of")
    return once("all 2,000")


@FAMILY.check(
    "Files in new folders",
    uses=("watch",),
    reports={
        # Of the notify crate, on which it is built.
        "watchfiles": "https://github.com/notify-rs/notify/issues/727",
    },
    reproduction=_START
    + _WATCH
    + """for i in range(300):
    os.makedirs(f"{folder}/d{i}/e")
    pathlib.Path(f"{folder}/d{i}/e/file").write_text("x")
time.sleep(8)
assert sum(each.endswith("file") for each in set(told)) == 300, "not all 300 files were told of"
""",
)
def new_folder_race(row: type[Watcher]) -> Holds:
    """A file that is written into a folder just made is told of.

    Programs that unpack, clone or build make a folder and fill it at once.
    """
    names = {f"f{number}" for number in range(300)}
    with _folder() as folder:
        log = _Log()
        with _watched(row, folder, log):
            for number in range(300):
                new = folder / f"d{number}" / "e"
                new.mkdir(parents=True)
                (new / f"f{number}").write_text("x")
            if not log.has(*names, deadline=10):
                lost = len(names - {Path(each).name for each in log.paths})
                raise DoesNotHold(f"{lost} of 300 files in new folders were never told of")
    return sampled(300, "each file in a new folder was told of")


@FAMILY.check(
    "Files of a folder moved in",
    uses=("watch",),
    reports={"watchdog": "https://github.com/gorakhargosh/watchdog/issues/1094"},
    reproduction=_START
    + _WATCH
    + """os.makedirs(f"{folder}-2/deep")
pathlib.Path(f"{folder}-2/deep/file.txt").write_text("x")
os.rename(f"{folder}-2", f"{folder}/sub")
time.sleep(4)
assert f"{folder}/sub/deep/file.txt" in told, f"its file was not told of, but {told}"
""",
)
def moved_in_folder(row: type[Watcher]) -> Holds:
    """Where a folder with files is moved in, its files are told of.

    That is how a whole delivery is made visible at once.
    """
    with _folder() as folder, _folder() as outside:
        (outside / "sub" / "deep").mkdir(parents=True)
        (outside / "sub" / "deep" / "file.txt").write_text("x")
        log = _Log()
        with _watched(row, folder, log):
            (outside / "sub").rename(folder / "sub")
            if not log.has("file.txt"):
                told = sorted({Path(each).name for each in log.paths})
                raise DoesNotHold(f"its file was not told of, but {told or 'nothing'}")
    return once("the file two folders below")


@FAMILY.check(
    "A file moved in is told of",
    uses=("watch",),
    reports={"watchdog": "https://github.com/gorakhargosh/watchdog/issues/1094"},
    reproduction=_START
    + _WATCH
    + """pathlib.Path(f"{folder}-2").write_text("x")
os.rename(f"{folder}-2", f"{folder}/file.txt")
time.sleep(4)
assert f"{folder}/file.txt" in told, f"the file was not told of, but {told or 'nothing'}"
""",
)
def moved_in(row: type[Watcher]) -> Holds:
    """A file that is moved in from elsewhere is told of.

    Careful programs write elsewhere and move, so that nobody sees half a file.
    """
    with _folder() as folder, _folder() as outside:
        (outside / "file.txt").write_text("x")
        log = _Log()
        with _watched(row, folder, log):
            (outside / "file.txt").rename(folder / "file.txt")
            if not log.has("file.txt"):
                raise DoesNotHold(f"the file was not told of, but {log.paths or 'nothing'}")
    return once("told of")


@FAMILY.check("A replaced file is told of", plain=True)
def replaced(row: type[Watcher]) -> Holds:
    """A file that `os.replace` puts over another one is told of, by the name that it then has.

    Editors and careful programs save so.
    """
    with _folder() as folder:
        (folder / "file.txt").write_text("1")
        log = _Log()
        with _watched(row, folder, log):
            (folder / "file.tmp").write_text("2")
            (folder / "file.tmp").replace(folder / "file.txt")
            if not log.has("file.txt"):
                raise DoesNotHold(f"not told of file.txt, but {log.paths or 'nothing'}")
    return once("told of by its new name")


@FAMILY.check(
    "One file, told once",
    uses=("watch",),
    reports={"watchdog": "https://github.com/gorakhargosh/watchdog/issues/346"},
    reproduction=_START
    + _WATCH
    + """pathlib.Path(folder, "file.txt").write_text("x")
time.sleep(3)
times = told.count(f"{folder}/file.txt")
assert times == 1, f"told {times} times of one file"
""",
)
def once_per_file(row: type[Watcher]) -> Holds:
    """A file that is written in one go is told of once.

    Otherwise each program has to find out itself which of several calls is the one to act on.
    """
    with _folder() as folder:
        log = _Log()
        with _watched(row, folder, log):
            (folder / "file.txt").write_text("x")
            log.has("file.txt")
            time.sleep(2.0)
        if log.count("file.txt") != 1:
            raise DoesNotHold(f"told {log.count('file.txt')} times of one file")
    return once("once")


@FAMILY.check(
    "Told when it is complete",
    uses=("watch",),
    reports={"watchdog": "https://github.com/gorakhargosh/watchdog/issues/586"},
    reproduction=_START
    + _WATCH
    + """with open(f"{folder}/file.txt", "w") as file:
    for _ in range(20):
        print("a line", file=file, flush=True)
        time.sleep(0.1)
    assert file.name not in told, "told of a file that is still being written"
""",
)
def complete_when_reported(row: type[Watcher]) -> Holds:
    """A file that takes seconds to be written is not told of before it is closed.

    Otherwise the reader takes half a file for a whole one.
    """
    with _folder() as folder:
        log = _Log()
        with _watched(row, folder, log):
            with (folder / "file.txt").open("w") as file:
                for _ in range(20):
                    file.write("a line\n")
                    file.flush()
                    time.sleep(0.1)
                early = log.count("file.txt")
            late = log.has("file.txt")
        if early:
            raise DoesNotHold("told of a file that was still being written")
        if not late:
            raise DoesNotHold("not told of in 5 s after it was closed")
    return once("told after it was closed, 2 s after its first line")


@FAMILY.check(
    "Files there before are told of",
    uses=("watch",),
    reproduction=_START
    + """pathlib.Path(folder, "old.txt").write_text("x")
"""
    + _WATCH
    + """time.sleep(3)
assert f"{folder}/old.txt" in told, "a file that was there before the start was not told of"
""",
)
def existing(row: type[Watcher]) -> Holds:
    """A file that is there when the watch begins is told of, too.

    What came while the program was not running has to be processed as well; a listing of one's
    own before or after the start either misses files or takes some twice.
    """
    with _folder() as folder:
        (folder / "old.txt").write_text("x")
        log = _Log()
        with _Watching(row, folder, log):
            if not log.has("old.txt", deadline=4):
                raise DoesNotHold("a file that was there before the start was not told of")
    return once("told of")


@FAMILY.check(
    "Deletions are told of",
)
def deleted(row: type[Watcher]) -> Holds:
    """A file that is deleted is told of.

    A mirror or an index of the folder has to follow deletions.
    """
    if row.no_deletions:
        raise NotOffered(row.no_deletions)
    with _folder() as folder:
        (folder / "old.txt").write_text("x")
        log = _Log()
        with _watched(row, folder, log):
            (folder / "old.txt").unlink()
            if not log.has("old.txt"):
                raise DoesNotHold("a deleted file was not told of")
    return once("told of")


@FAMILY.check(
    "A handler may raise once",
    plain=True,
    uses=("watch",),
    reports={"watchdog": "https://github.com/gorakhargosh/watchdog/issues/793"},
    reproduction=_START
    + """def report(path): told.append(path); raise ValueError("a fault of the handler's")
threading.Thread(target=watch, args=(folder, report, threading.Event()), daemon=True).start()
for i in range(10):
    time.sleep(0.5)
    pathlib.Path(folder, f"file-{i}").write_text("x")
assert len(told) > 1, f"after one exception of the handler nothing is told of any more"
""",
)
def handler_raises(row: type[Watcher]) -> Holds:
    """After an exception of the function that it calls, later files are told of.

    One odd file must not end the service, least of all without a word to the main program.
    """
    if row.no_handler:
        raise NotOffered(row.no_handler)
    faults: list[str] = []
    threading.excepthook = lambda _: None

    def report(path: str) -> None:
        if Path(path).name == "a.txt" and not faults:
            faults.append(path)
            raise ValueError("a fault of the handler's")

    with _folder() as folder:
        log = _Log(report)
        with _watched(row, folder, log):
            (folder / "a.txt").write_text("x")
            log.has("a.txt")
            time.sleep(1)
            (folder / "b.txt").write_text("x")
            if not log.has("b.txt"):
                raise DoesNotHold(
                    "after one exception of the handler nothing is told of any more, and the "
                    "main program hears nothing"
                )
    return once("later files are told of")


@FAMILY.check(
    "A folder made again",
    uses=("watch",),
    reproduction=_START
    + """\
threading.Thread(target=watch, args=(folder, told.append, threading.Event()), daemon=True).start()
for step in (os.rmdir, os.mkdir, os.listdir):
    time.sleep(1)
    step(folder)
pathlib.Path(folder, "file.txt").write_text("x")
time.sleep(4)
assert told, "the folder was removed and made again: neither is told of, nor are its files"
""",
)
def recreated_root(row: type[Watcher]) -> Holds:
    """The folder is removed and made again: its files are told of, or that it was removed is.

    A deployment or a clean-up script does that; a watcher that says nothing looks like a quiet
    day.
    """
    with _folder() as above:
        folder = above / "watched"
        folder.mkdir()
        log = _Log()
        with _watched(row, folder, log):
            for file in folder.iterdir():
                file.unlink()
            time.sleep(1)
            log.paths.clear()
            folder.rmdir()
            time.sleep(1)
            removal = str(folder) in log.paths
            folder.mkdir()
            time.sleep(1)
            (folder / "file.txt").write_text("x")
            if log.has("file.txt"):
                return once("its files are told of")
            if log.errors:
                return once(f"{type(log.errors[0]).__name__}: {log.errors[0]}"[:100])
            if removal:
                return once("it is told that the folder was removed; its files then are not")
    raise DoesNotHold("neither is it told that the folder was removed, nor are its files")


@FAMILY.check("It ends when told to", plain=True)
def stops(row: type[Watcher]) -> Holds:
    """Ended, it leaves no thread, idle or in the middle of a burst.

    A service that does not end is killed, and loses what it had in hand.
    """
    before = threading.active_count()
    for busy in (False, True):
        with _folder() as folder:
            log = _Log()
            watching = _Watching(row, folder, log)
            (folder / "first").write_text("x")
            log.has("first", deadline=1)
            for number in range(500 if busy else 0):
                (folder / f"{number}.txt").write_text("x")
            if not watching.ended(8):
                raise DoesNotHold("it does not end in 8 s" + " in a burst" * busy)
        end = time.monotonic() + 3
        while threading.active_count() > before and time.monotonic() < end:
            time.sleep(0.02)
        if threading.active_count() > before:
            left = [each.name for each in threading.enumerate()][before:]
            raise DoesNotHold(f"threads left: {left}")
    return once("idle and in a burst: no thread left")
