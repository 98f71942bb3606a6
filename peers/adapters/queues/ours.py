"""This project's MemoryQueue."""

from typing import Any

from peers.adapters.queues import WorkQueue
from reference_impl.queues.memory_queue import MemoryQueue


class Memory(WorkQueue):
    """MemoryQueue, whose items have a status."""

    name = "MemoryQueue"
    package = None
    ours = True
    documented = "https://executable-guarantees.example/queues/memory_queue.html"
    take_it = "One file to copy; priorities, delays, retries and claims in one process."
    imports = "from reference_impl.queues.memory_queue import MemoryQueue"
    explorable = ("reference_impl.queues",)

    @staticmethod
    def new() -> Any:
        return MemoryQueue[Any]()

    @staticmethod
    def bounded(size: int) -> Any:
        return MemoryQueue[Any](size)

    @staticmethod
    def put(q: Any, item: Any) -> None:
        q.add(item)

    @staticmethod
    def get(q: Any) -> Any:
        item = q.get_next()
        return item and item.data

    @staticmethod
    def wait(q: Any, timeout: float | None = None) -> Any:
        return q.wait_next(timeout).data

    @staticmethod
    def close(q: Any) -> None:
        q.close()

    @staticmethod
    def reclaim(q: Any) -> None:
        q.requeue_stale(0.0)
