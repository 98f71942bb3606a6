"""huey: https://github.com/coleifer/huey."""

import functools
from collections.abc import Callable
from typing import Any

import huey.storage

from peers.adapters.queues import WorkQueue
from peers.outcomes import NotOffered


def _not_offered(wait: Callable[..., Any]) -> Callable[..., Any]:
    """For checks; the program about Ctrl-C, which has an item there, shows what is decorated."""

    @functools.wraps(wait)
    def refused(*_: Any) -> Any:
        raise NotOffered("no call waits for an item: huey's consumer polls")

    return refused


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
    @_not_offered
    def wait(q: Any, timeout: float | None = None) -> Any:
        item = q.dequeue()
        assert item is not None, "no item"
        return item
