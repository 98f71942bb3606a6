"""A file that comes just when the loop has taken the last one, and goes to sleep, is given."""

import math
import queue
import time
from typing import Any


def model(m: Any) -> None:
    from interleave_test import spawn

    calls: queue.Queue[str] = queue.Queue()  # what call_soon_threadsafe appends to
    inbox = m._Inbox(lambda: calls.put("wake up"), 0.0, math.inf, time.monotonic)
    inbox.offer("first.csv", (1, 1, 1, 1))
    calls.get()  # the loop has been woken for it
    given: list[str] = []

    def loop() -> None:
        while len(given) < 2:
            if (name := inbox.take()) is None:
                calls.get()
            else:
                inbox.unconfirmed = None
                given.append(name)

    threads = [
        spawn(loop, name="loop"),
        spawn(inbox.offer, "second.csv", (1, 2, 1, 1), name="observer"),
    ]
    for thread in threads:
        thread.join()
    assert given == ["first.csv", "second.csv"]
