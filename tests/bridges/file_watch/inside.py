"""What only a look inside DirectoryWatch shows. Tests that need it prove no promise."""

import math
import os
import sys
from types import ModuleType
from typing import Any

import pytest

from tests.kit.fakes import Clock


def inbox(
    module: Any, clock: Clock | None = None, *, settle: float = 0.0, interval: float = math.inf
) -> Any:
    """What the threads and the loop share, without either."""
    return module._Inbox(lambda: None, settle, interval, clock or Clock())


def next_job(box: Any) -> str | None:
    """The next job's file or directory; a separator is the look at the root; None is the end."""
    job = box.next_job()
    return job and str(getattr(job, "path", getattr(job, "name", os.sep)))


def take(box: Any) -> str | None:
    """The next file, which is given."""
    name: str | None = box.take()
    box.unconfirmed = None
    return name


def request(box: Any, directory: str) -> None:
    """Have a directory scanned."""
    box.schedule(_module_of(box)._ScanDirectory(directory))


def doubt(box: Any) -> None:
    """Have the root looked at, when nothing has gone for a moment."""
    module = _module_of(box)
    box.schedule(module._CheckRoot(), module._LULL, put_off=True)


def close(module: Any, box: Any) -> None:
    """Nothing more is given."""
    box.advance(module._State.CLOSING)


def settle(box: Any, name: str, seen: Any) -> None:
    """Look again at a file when it has been quiet."""
    box.wait_for_quiet(_module_of(box)._LookAgain(name, seen))


def _module_of(box: Any) -> Any:
    return sys.modules[type(box).__module__]


def run_ahead(module: ModuleType, files: int) -> None:
    """Let scans run so many files ahead of those who take them."""
    assert hasattr(module, "_READ_AHEAD")
    vars(module)["_READ_AHEAD"] = files


def keep(module: ModuleType, patch: pytest.MonkeyPatch) -> None:
    """Put back how far scans run ahead when the patch ends."""
    patch.setattr(module, "_READ_AHEAD", vars(module).get("_READ_AHEAD"), raising=False)


def is_open_for_writing(module: Any, path: object) -> bool | None:
    """What a scan asks of each file that it finds."""
    found: bool | None = module._open_for_writing(str(path))
    return found


def look(number: int) -> Any:
    """What is there under a name: this many tells one from another."""
    return (1, number, 10**18, 100)


def without_inotify(module: ModuleType, observer: object, patch: pytest.MonkeyPatch) -> None:
    """Let it be on a system that does not tell when a file is closed."""
    patch.setattr(module, "Observer", observer)
    patch.setattr(module, "_OPTIONS", {})
    patch.setattr(module, "_INOTIFY", False)


def size_given(watch: Any, name: str) -> int:
    """The size of the file that was given last under this name, when it was looked at."""
    return int(watch._inbox._taken[name][0][-1])


def size_settling(watch: Any, name: str) -> int | None:
    """The size of the file that must not change for a while; None if there is none."""
    inbox = watch._inbox
    with inbox._lock:
        waiting = {
            job.name: job.before[-1] for _, job in inbox._agenda.values() if hasattr(job, "before")
        }
    return waiting.get(name)
