"""When the directory is gone, the iteration says so, and does not just end."""

import math
import queue
import time
from typing import Any


def model(m: Any) -> None:
    from interleave_test import spawn

    calls: queue.Queue[str] = queue.Queue()  # what call_soon_threadsafe appends to
    inbox = m._Inbox(lambda: calls.put("wake up"), 0.0, math.inf, time.monotonic)

    def keeper() -> None:
        inbox.advance(m._State.CLOSING, FileNotFoundError("the directory is gone"))
        inbox.advance(m._State.ENDED)

    def loop() -> str:
        try:
            while inbox.take() is None:
                calls.get()
        except StopAsyncIteration:
            return "ended"
        except FileNotFoundError as error:
            return str(error)
        return "a file"

    threads = [spawn(loop, name="loop"), spawn(keeper, name="keeper")]
    for thread in threads:
        thread.join()
    assert threads[0].result() == "the directory is gone", "the iteration ended without its reason"
