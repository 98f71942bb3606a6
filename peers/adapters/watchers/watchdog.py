"""watchdog: https://github.com/gorakhargosh/watchdog."""

import threading
from collections.abc import Callable
from typing import Any

from watchdog.events import (
    DirDeletedEvent,
    FileClosedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

from peers.adapters.watchers import Watcher


class AnyEvent(Watcher):
    """Its quick start: a handler that hears of everything."""

    name = "watchdog, on_any_event"
    package = "watchdog"
    documented = "https://python-watchdog.readthedocs.io/en/stable/quickstart.html"
    take_it = "Every kind of event on every system, moves and deletions too."
    imports = (
        "from watchdog.events import FileSystemEventHandler\n"
        "from watchdog.observers import Observer"
    )

    @staticmethod
    def watch(folder: str, report: Callable[[str], Any], end: threading.Event) -> None:
        class Handler(FileSystemEventHandler):
            def on_any_event(self, event: FileSystemEvent) -> None:
                report(event.dest_path or event.src_path)  # type: ignore[arg-type]

        observer = Observer()
        observer.schedule(Handler(), folder, recursive=True)
        observer.start()
        end.wait()
        observer.stop()


class Closed(Watcher):
    """For files to be processed: those that are closed after writing or moved within."""

    name = "watchdog, closed and moved"
    package = "watchdog"
    documented = "https://python-watchdog.readthedocs.io/en/stable/api.html#event-handler-classes"
    take_it = "Linux tells it when a file is complete."
    imports = (
        "from watchdog.events import "
        "DirDeletedEvent, FileClosedEvent, FileMovedEvent, FileSystemEventHandler\n"
        "from watchdog.observers import Observer"
    )
    no_deletions = "this row asks for closed and moved files; FileDeletedEvent would do"

    @staticmethod
    def watch(folder: str, report: Callable[[str], Any], end: threading.Event) -> None:
        class Handler(FileSystemEventHandler):
            def on_any_event(self, event: FileSystemEvent) -> None:
                report(event.dest_path or event.src_path)  # type: ignore[arg-type]

        observer = Observer()
        observer.schedule(
            Handler(),
            folder,
            recursive=True,
            event_filter=[FileClosedEvent, FileMovedEvent, DirDeletedEvent],
        )
        observer.start()
        end.wait()
        observer.stop()
