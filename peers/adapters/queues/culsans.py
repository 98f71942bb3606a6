"""culsans: https://github.com/x42005e1f/culsans."""

from typing import Any

import culsans

from peers.adapters.queues import WorkQueue


class Queue(WorkQueue):
    """Its synchronous side, as threads use it."""

    name = "culsans.Queue, sync_q"
    package = "culsans"
    documented = "https://github.com/x42005e1f/culsans"
    take_it = "As janus, and for trio, gevent, eventlet and several event loops too."
    imports = "import culsans"
    unexplored = "its locks are its own, of aiologic"

    @staticmethod
    def new() -> Any:
        return culsans.Queue()

    @staticmethod
    def bounded(size: int) -> Any:
        return culsans.Queue(size)

    @staticmethod
    def put(q: Any, item: Any) -> None:
        q.sync_q.put_nowait(item)

    @staticmethod
    def get(q: Any) -> Any:
        try:
            return q.sync_q.get_nowait()
        except culsans.SyncQueueEmpty:
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
