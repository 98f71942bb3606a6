"""A file that comes just when the loop finds nothing more, and goes to sleep, is given."""

import math
import queue
import time
from typing import Any


def model(m: Any) -> None:
    from interleave_test import no_interleave, spawn

    calls = m.calls = queue.Queue[str]()  # what call_soon_threadsafe appends to
    inbox = m._Inbox(lambda: calls.put("wake up"), 0.0, math.inf, time.monotonic)
    with no_interleave():
        inbox.offer("first.csv", (1, 1, 1, 1))
        calls.get()  # the loop is woken, and takes it
        assert inbox.take() == "first.csv"
        inbox.unconfirmed = None

    def loop() -> str:
        while (name := inbox.take()) is None:
            calls.get()
        return str(name)

    taking = spawn(loop, name="loop")
    offering = spawn(inbox.offer, "second.csv", (1, 2, 1, 1), name="observer")
    offering.join()
    taking.join()
    assert taking.result() == "second.csv"
