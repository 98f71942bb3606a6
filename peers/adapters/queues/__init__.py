"""Queues that hand items from one part of a program to another."""

from typing import Any, ClassVar

from peers.adapters import Row
from peers.outcomes import NotOffered


class WorkQueue(Row):
    """A queue that is filled and emptied at once, or waited for."""

    # `wait` is a coroutine function, and the queue is used in one event loop.
    asynchronous: ClassVar[bool] = False
    # Why its calls cannot be interrupted at each point: "its core is compiled".
    uninterrupted: ClassVar[str] = ""
    # How often real threads run a check; fewer where each queue is a directory of files.
    runs: ClassVar[int] = 300
    # Between which steps threads change, where they are explored.
    granularity: ClassVar[str] = "opcode"

    @staticmethod
    def new() -> Any:
        """A queue of any number of items."""
        raise NotImplementedError

    @staticmethod
    def bounded(size: int) -> Any:
        """A queue of so many items at most, whose `put` raises when it is full."""
        raise NotOffered("it has no bound")

    @staticmethod
    def put(q: Any, item: Any) -> None:
        """Put it at once, or raise."""
        raise NotImplementedError

    @staticmethod
    def get(q: Any) -> Any:
        """An item at once, or None."""
        raise NotImplementedError

    @staticmethod
    def wait(q: Any, timeout: float | None = None) -> Any:
        """The next item; raises when so many seconds have passed."""
        raise NotOffered("no call waits for an item")

    @staticmethod
    def awaited(q: Any) -> Any:
        """An awaitable of the next item, for asyncio."""
        raise NotOffered("no call awaits an item")

    @staticmethod
    def close(q: Any) -> None:
        """Accept nothing more; what is there can be taken."""
        raise NotOffered("it cannot be closed")

    @staticmethod
    def reclaim(q: Any) -> None:
        """What is called when a worker has died: items that it took can be had again."""
        raise NotOffered("an item that was taken is the taker's")
