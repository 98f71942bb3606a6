"""Watchers that look again and again: one that keeps all, and for each check one that breaks it."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from peers.adapters.watchers import Watcher

_PAUSE = 0.02


def _files(folder: str) -> Iterator[str]:
    for above, _, names in os.walk(folder):
        yield from (f"{above}/{name}" for name in names)


def _size(path: str) -> tuple[int, int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


class Polling(Watcher):
    """It lists the folder, and tells of files that have not changed for a while."""

    name = "polling"

    @staticmethod
    def watch(folder: str, report: Callable[[str], Any], end: threading.Event) -> None:
        _poll(folder, report, end)


def _poll(
    folder: str,
    report: Callable[[str], Any],
    end: threading.Event,
    *,
    quiet: float = 0.4,
    known: Callable[[str], bool] = lambda _: False,
    times: int = 1,
    careful: bool = True,
) -> None:
    told: dict[str, Any] = {path: _size(path) for path in _files(folder) if known(path)}
    seen: dict[str, tuple[Any, float]] = {}
    while not end.wait(_PAUSE):
        now = time.monotonic()
        paths = set(_files(folder))
        for path in paths | set(told):
            size = _size(path)
            if seen.get(path, (None, 0.0))[0] != size:
                seen[path] = size, now
            if told.get(path) == size or (size and now - seen[path][1] < quiet) or known(path):
                continue
            told[path] = size
            for _ in range(times):
                try:
                    report(path)
                except ValueError:
                    if not careful:
                        return


class Deaf(Watcher):
    """It tells of the first files alone."""

    name = "deaf"

    @staticmethod
    def watch(folder: str, report: Callable[[str], Any], end: threading.Event) -> None:
        told: list[str] = []

        def few(path: str) -> None:
            told.append(path)
            if len(told) < 8:
                report(path)

        _poll(folder, few, end)


class Wrong(Watcher):
    """It tells of paths that are not there."""

    name = "wrong"

    @staticmethod
    def watch(folder: str, report: Callable[[str], Any], end: threading.Event) -> None:
        _poll(folder, lambda path: report(f"/elsewhere{path}"), end)


class OneLevel(Watcher):
    """It does not look into folders that came later."""

    name = "one level"

    @staticmethod
    def watch(folder: str, report: Callable[[str], Any], end: threading.Event) -> None:
        _poll(folder, report, end, known=lambda path: path.count("/") != folder.count("/") + 1)


class WrittenHere(Watcher):
    """It takes a file for its own that is older than the watch, which it is if it was moved in."""

    name = "written here"

    @staticmethod
    def watch(folder: str, report: Callable[[str], Any], end: threading.Event) -> None:
        began = time.time_ns()

        def old(path: str) -> bool:
            size = _size(path)
            return size is not None and size[1] < began

        _poll(folder, report, end, known=old)


class ByName(Watcher):
    """A name that it has told of is told."""

    name = "by name"

    @staticmethod
    def watch(folder: str, report: Callable[[str], Any], end: threading.Event) -> None:
        names = set(_files(folder))
        _poll(folder, report, end, known=names.__contains__)


class Twice(Watcher):
    """It says all twice."""

    name = "twice"

    @staticmethod
    def watch(folder: str, report: Callable[[str], Any], end: threading.Event) -> None:
        _poll(folder, report, end, times=2)


class Hasty(Watcher):
    """It does not wait until a file is complete."""

    name = "hasty"

    @staticmethod
    def watch(folder: str, report: Callable[[str], Any], end: threading.Event) -> None:
        _poll(folder, report, end, quiet=0.0)


class Growing(Watcher):
    """It tells of no file that has gone."""

    name = "growing"

    @staticmethod
    def watch(folder: str, report: Callable[[str], Any], end: threading.Event) -> None:
        _poll(folder, lambda path: Path(path).exists() and report(path), end)


class Fragile(Watcher):
    """An exception of the function ends it."""

    name = "fragile"

    @staticmethod
    def watch(folder: str, report: Callable[[str], Any], end: threading.Event) -> None:
        _poll(folder, report, end, careful=False)


class Attached(Watcher):
    """It keeps to the folder that it was given first, whatever its path names by now."""

    name = "attached"

    @staticmethod
    def watch(folder: str, report: Callable[[str], Any], end: threading.Event) -> None:
        first = Path(folder).stat().st_ino
        holder = os.open(folder, os.O_RDONLY)  # so that its number is not given again
        try:
            _poll(folder, report, end, known=lambda _: Path(folder).stat().st_ino != first)
        finally:
            os.close(holder)


class Endless(Watcher):
    """It leaves a thread."""

    name = "endless"

    @staticmethod
    def watch(folder: str, report: Callable[[str], Any], end: threading.Event) -> None:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        _poll(folder, report, end)


SOUND = Polling
CONTROLS = {
    "adapter_sound": Wrong,
    "created": Deaf,
    "burst": Deaf,
    "new_folder_race": OneLevel,
    "moved_in_folder": OneLevel,
    "moved_in": WrittenHere,
    "replaced": ByName,
    "once_per_file": Twice,
    "complete_when_reported": Hasty,
    "existing": ByName,
    "deleted": Growing,
    "handler_raises": Fragile,
    "recreated_root": Attached,
    "stops": Endless,
}
