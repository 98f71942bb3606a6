"""Watchers of a directory and of those below it."""

import threading
from collections.abc import Callable
from typing import Any, ClassVar

from peers.adapters import Row
from peers.outcomes import NotOffered


class Watcher(Row):
    """It tells of files, in a thread of its own or in the one that iterates."""

    unexplored = "it starts threads, and the kernel decides"
    no_handler: ClassVar[str] = ""  # why one gives it no function, where one does not
    no_deletions: ClassVar[str] = ""  # why it does not tell of deleted files, where it does not

    @staticmethod
    def watch(folder: str, report: Callable[[str], Any], end: threading.Event) -> None:
        """Watch until `end` is set, in a thread that may block; `report(path)` for what is told."""
        raise NotOffered("no watching")
