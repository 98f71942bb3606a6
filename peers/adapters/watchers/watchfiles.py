"""watchfiles: https://github.com/samuelcolvin/watchfiles."""

import threading
from collections.abc import Callable
from typing import Any

import watchfiles

from peers.adapters.watchers import Watcher


class Watch(Watcher):
    """Its generator, with an event to stop it."""

    name = "watchfiles.watch"
    package = "watchfiles"
    documented = "https://watchfiles.helpmanual.io/api/watch/"
    take_it = "Fast and quiet: changes come in batches, and editors' files are left out."
    imports = "import watchfiles"
    no_handler = "no function is given: one iterates"

    @staticmethod
    def watch(folder: str, report: Callable[[str], Any], end: threading.Event) -> None:
        for changes in watchfiles.watch(folder, stop_event=end):
            for _, path in changes:
                report(path)
