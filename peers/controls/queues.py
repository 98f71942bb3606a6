"""For each check of queues a queue that fails it, and one that holds them all."""

import asyncio
import heapq
import queue
import threading
import time
from typing import Any

from peers.adapters.queues import WorkQueue


class _Line:
    """What was put, and how much of it was taken: taking is one assignment."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.lock = threading.Lock()
        self.items: list[Any] = []
        self.taken = 0
        self.is_closed = False


class Sound(WorkQueue):
    """Polls, which is slow, but cannot lose a wake-up."""

    name = "a list and a lock"
    package = None
    documented = ""
    take_it = ""

    @staticmethod
    def new() -> Any:
        return _Line(1_000)

    @staticmethod
    def bounded(size: int) -> Any:
        return _Line(size)

    @staticmethod
    def put(q: Any, item: Any) -> None:
        with q.lock:
            if q.is_closed or len(q.items) - q.taken >= q.size:
                raise ValueError("closed or full")
            q.items.append(item)

    @staticmethod
    def get(q: Any) -> Any:
        with q.lock:
            if len(q.items) == q.taken:
                return None
            item = q.items[q.taken]
            q.taken += 1
            return item

    @staticmethod
    def wait(q: Any, timeout: float | None = None) -> Any:
        end = time.monotonic() + (3600.0 if timeout is None else timeout)
        while (item := Sound.get(q)) is None:
            if q.is_closed or time.monotonic() > end:
                raise TimeoutError
            threading.Event().wait(0.002)
        return item

    @staticmethod
    async def awaited(q: Any) -> Any:
        while (item := Sound.get(q)) is None:
            await asyncio.sleep(0.002)
        return item

    @staticmethod
    def close(q: Any) -> None:
        q.is_closed = True

    @staticmethod
    def reclaim(q: Any) -> None:
        with q.lock:
            q.taken = 0


class Lifo(Sound):
    """Gives the newest first."""

    @staticmethod
    def get(q: Any) -> Any:
        with q.lock:
            return q.items.pop() if q.items else None


class Unlocked(Sound):
    """Looks, and takes later."""

    explorable = ("peers.controls.queues",)

    @staticmethod
    def put(q: Any, item: Any) -> None:
        if len(q.items) >= q.size:
            raise ValueError("full")
        q.items = [*q.items, item]

    @staticmethod
    def get(q: Any) -> Any:
        if not q.items:
            return None
        item = q.items[0]
        q.items = q.items[1:]
        return item


class ClearsLate(Sound):
    """Clears its event after it has looked."""

    explorable = ("peers.controls.queues",)

    @staticmethod
    def new() -> Any:
        line = _Line(1_000)
        line.event = threading.Event()  # type: ignore[attr-defined]
        return line

    @staticmethod
    def put(q: Any, item: Any) -> None:
        Sound.put(q, item)
        q.event.set()

    @staticmethod
    def wait(q: Any, timeout: float | None = None) -> Any:
        while (item := Sound.get(q)) is None:
            q.event.clear()
            q.event.wait(timeout)
        return item


class Compares(Sound):
    """A heap of the items themselves."""

    @staticmethod
    def put(q: Any, item: Any) -> None:
        heapq.heappush(q.items, item)

    @staticmethod
    def get(q: Any) -> Any:
        return heapq.heappop(q.items) if q.items else None


class ClosesInSilence(Sound):
    """Whoever waits does not hear of the close."""

    @staticmethod
    def wait(q: Any, timeout: float | None = None) -> Any:
        while (item := Sound.get(q)) is None:
            time.sleep(0.002)
        return item


class ClosesEmpty(Sound):
    """A close drops what is there."""

    @staticmethod
    def close(q: Any) -> None:
        q.is_closed = True
        q.items.clear()


class Late(Sound):
    """Its timeout is ten times as long."""

    @staticmethod
    def wait(q: Any, timeout: float | None = None) -> Any:
        return Sound.wait(q, timeout and 10 * timeout)


class WallClock(Sound):
    """Its deadline is a time of day."""

    @staticmethod
    def wait(q: Any, timeout: float | None = None) -> Any:
        end = time.time() + (3600.0 if timeout is None else timeout)
        while (item := Sound.get(q)) is None:
            if time.time() > end:
                raise TimeoutError
            threading.Event().wait(0.002)
        return item


class Forgets(Sound):
    """Does not know what was taken."""

    @staticmethod
    def reclaim(q: Any) -> None:
        """Nothing."""


class Conditions(Sound):
    """The standard library's: its conditions know neither signal handlers nor fork."""

    @staticmethod
    def new() -> Any:
        return queue.Queue()

    @staticmethod
    def put(q: Any, item: Any) -> None:
        q.put_nowait(item)

    @staticmethod
    def get(q: Any) -> Any:
        try:
            return q.get_nowait()
        except queue.Empty:
            return None

    @staticmethod
    def wait(q: Any, timeout: float | None = None) -> Any:
        return q.get(timeout=timeout)

    @staticmethod
    def reclaim(q: Any) -> None:
        """Nothing."""


class TakesThenAwaits(Sound):
    """Awaits once more with the item in its hand."""

    asynchronous = True

    @staticmethod
    def new() -> Any:
        return asyncio.Queue()

    @staticmethod
    def put(q: Any, item: Any) -> None:
        q.put_nowait(item)

    @staticmethod
    def get(q: Any) -> Any:
        return None if q.empty() else q.get_nowait()

    @staticmethod
    async def awaited(q: Any) -> Any:
        item = await q.get()
        await asyncio.sleep(0)
        return item


SOUND = Sound
CONTROLS: dict[str, type[WorkQueue]] = {
    "adapter_sound": Lifo,
    "linearizable": Unlocked,
    "no_lost_wakeup": ClearsLate,
    "bounded": Unlocked,
    "fifo_equal": Lifo,
    "uncomparable": Compares,
    "close_releases": ClosesInSilence,
    "close_keeps": ClosesEmpty,
    "timed_get": Late,
    "wall_clock": WallClock,
    "redelivery": Forgets,
    "interrupted": Conditions,
    "fork": Conditions,
    "cancelled_get": TakesThenAwaits,
}
