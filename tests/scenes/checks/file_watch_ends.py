"""When the directory is gone, the iteration says so, and does not just end."""

import math
import queue
import time
from typing import Any


def model(m: Any) -> None:
    from interleave_test import spawn

    calls: queue.Queue[str] = queue.Queue()  # what call_soon_threadsafe appends to
    inbox = m._Inbox(lambda: calls.put("wake up"), 0.0, math.inf, time.monotonic)

    def loop() -> str:
        try:
            while inbox.take() is None:
                calls.get()
        except StopAsyncIteration:
            return "the end"
        except FileNotFoundError as error:
            return str(error)
        return "a file"

    gone = FileNotFoundError("the directory is gone")
    keeper = spawn(inbox.advance, m._State.ENDED, gone, name="keeper")
    taking = spawn(loop, name="loop")
    keeper.join()
    taking.join()
    assert taking.result() == str(gone), "the iteration ended without its reason"
