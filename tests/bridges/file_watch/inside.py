"""What only a look inside DirectoryWatch shows. Tests that need it prove no promise."""

import math
from types import ModuleType
from typing import Any

import pytest

from tests.kit.fakes import Clock


def inbox(
    module: Any, clock: Clock | None = None, *, settle: float = 0.0, interval: float = math.inf
) -> Any:
    """What the threads and the loop share, without either."""
    return module._Inbox(lambda: None, settle, interval, clock or Clock())


def run_ahead(module: ModuleType, files: int) -> None:
    """Let scans run so many files ahead of those who take them."""
    assert hasattr(module, "_AHEAD")
    vars(module)["_AHEAD"] = files


def keep(module: ModuleType, patch: pytest.MonkeyPatch) -> None:
    """Put back how far scans run ahead when the patch ends."""
    patch.setattr(module, "_AHEAD", vars(module).get("_AHEAD"), raising=False)


def is_open_for_writing(module: Any, path: object) -> bool:
    """What a scan asks of each file that it finds."""
    return bool(module._open_for_writing(str(path)))


def names_that_match(module: Any, *patterns: str) -> Any:
    """The expression for the names that are given."""
    return module._compiled(patterns)


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
    found = watch._inbox._settling.get(name)
    return None if found is None else int(found[1][-1])
