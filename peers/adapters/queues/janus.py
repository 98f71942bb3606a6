"""janus: https://github.com/aio-libs/janus."""

from typing import Any

import janus

from peers.adapters.queues import WorkQueue


class Queue(WorkQueue):
    """Its synchronous side, as threads use it."""

    name = "janus.Queue, sync_q"
    package = "janus"
    documented = "https://github.com/aio-libs/janus"
    take_it = "A queue with a side for threads and one for asyncio; small, and stable for years."
    imports = "import janus"
    explorable = ("janus",)

    @staticmethod
    def new() -> Any:
        return janus.Queue()

    @staticmethod
    def bounded(size: int) -> Any:
        return janus.Queue(size)

    @staticmethod
    def put(q: Any, item: Any) -> None:
        q.sync_q.put_nowait(item)

    @staticmethod
    def get(q: Any) -> Any:
        try:
            return q.sync_q.get_nowait()
        except janus.SyncQueueEmpty:
            return None

    @staticmethod
    def wait(q: Any, timeout: float | None = None) -> Any:
        return q.sync_q.get(timeout=timeout)

    @staticmethod
    def awaited(q: Any) -> Any:
        return q.async_q.get()

    @staticmethod
    def close(q: Any) -> None:
        q.shutdown()
