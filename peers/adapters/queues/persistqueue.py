"""persist-queue: https://github.com/peter-wangxu/persist-queue."""

import tempfile
from typing import Any

import persistqueue

from peers.adapters.queues import WorkQueue
from peers.outcomes import NotOffered

_HOME = "https://github.com/peter-wangxu/persist-queue"


class File(WorkQueue):
    """Its queue in files."""

    name = "persistqueue.Queue"
    package = "persist-queue"
    documented = _HOME
    take_it = "What it holds outlives the process."
    imports = "import persistqueue\nimport tempfile"
    unexplored = "it keeps its items in files"
    runs = 100

    @staticmethod
    def new() -> Any:
        return persistqueue.Queue(tempfile.mkdtemp())

    @staticmethod
    def bounded(size: int) -> Any:
        return persistqueue.Queue(tempfile.mkdtemp(), maxsize=size)

    @staticmethod
    def put(q: Any, item: Any) -> None:
        q.put_nowait(item)

    @staticmethod
    def get(q: Any) -> Any:
        try:
            return q.get_nowait()
        except persistqueue.Empty:
            return None

    @staticmethod
    def wait(q: Any, timeout: float | None = None) -> Any:
        return q.get(timeout=timeout)


class SQLite(File):
    """Its queue in SQLite, as its documentation says to use it with threads."""

    name = "persistqueue.SQLiteQueue, multithreading=True"
    take_it = "What it holds outlives the process; several processes may read the file."
    explorable = ("persistqueue",)
    granularity = "line"

    @staticmethod
    def new() -> Any:
        return persistqueue.SQLiteQueue(tempfile.mkdtemp(), multithreading=True)

    @staticmethod
    def bounded(size: int) -> Any:
        raise NotOffered("it has no bound")

    @staticmethod
    def close(q: Any) -> None:
        raise NotOffered("its close is for the file, which keeps the items")


class SQLiteAck(File):
    """Its queue in SQLite whose items are acknowledged."""

    name = "persistqueue.SQLiteAckQueue, multithreading=True"
    take_it = "What it holds outlives the process; an item is there until it is acknowledged."
    explorable = ("persistqueue",)
    granularity = "line"

    @staticmethod
    def new() -> Any:
        return persistqueue.SQLiteAckQueue(tempfile.mkdtemp(), multithreading=True)

    @staticmethod
    def bounded(size: int) -> Any:
        raise NotOffered("it has no bound")

    @staticmethod
    def close(q: Any) -> None:
        raise NotOffered("its close is for the file, which keeps the items")

    @staticmethod
    def put(q: Any, item: Any) -> None:
        q.put(item)

    @staticmethod
    def get(q: Any) -> Any:
        # A worker that has done with the item calls q.ack(item).
        try:
            return q.get(block=False)
        except persistqueue.Empty:
            return None

    @staticmethod
    def reclaim(q: Any) -> None:
        q.resume_unack_tasks()
