"""huey: https://github.com/coleifer/huey."""

from typing import Any

import huey.storage

from peers.adapters.queues import WorkQueue
from peers.outcomes import NotOffered


class Memory(WorkQueue):
    """The storage behind MemoryHuey, from which huey's consumer takes its tasks."""

    name = "huey MemoryStorage"
    package = "huey"
    documented = "https://huey.readthedocs.io/en/latest/api.html#MemoryHuey"
    take_it = "For tests of huey's tasks; in production it has Redis, SQLite or files."
    imports = "import huey.storage"
    explorable = ("huey",)

    @staticmethod
    def new() -> Any:
        return huey.storage.MemoryStorage()

    @staticmethod
    def put(q: Any, item: Any) -> None:
        q.enqueue(item)

    @staticmethod
    def get(q: Any) -> Any:
        return q.dequeue()

    @staticmethod
    def wait(q: Any, timeout: float | None = None) -> Any:
        raise NotOffered("no call waits for an item: huey's consumer polls")
