"""This project's component, which belongs to an event loop: here one in a thread."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from peers.adapters.watchers import Watcher
from reference_impl.bridges.file_watch import DirectoryWatch


class Watch(Watcher):
    """With the folders below."""

    name = "DirectoryWatch"
    ours = True
    documented = "https://executable-guarantees.example/bridges/file_watch.html"
    take_it = "One file to copy, on watchdog, for programs that process each file that comes."
    imports = "import asyncio\nfrom reference_impl.bridges.file_watch import DirectoryWatch"
    no_handler = "no function is given: one iterates"
    no_deletions = "it gives files that are there, and tells of none that goes"

    @staticmethod
    def watch(folder: str, report: Callable[[str], Any], end: threading.Event) -> None:
        async def watch() -> None:
            async with DirectoryWatch(folder, recursive=True) as files:
                async for path in files:
                    report(str(path))

        async def main() -> None:
            task = asyncio.create_task(watch())
            task.add_done_callback(lambda _: end.set())
            await asyncio.to_thread(end.wait)
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
            elif (error := task.exception()) is not None:
                raise error

        asyncio.run(main())
