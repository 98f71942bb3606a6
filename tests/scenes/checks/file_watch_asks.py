"""The keeper, which does the scans, is woken for a directory that appears while it sleeps."""

import math
import time
from typing import Any


def model(m: Any) -> None:
    from interleave_test import spawn

    inbox = m._Inbox(lambda: None, 0.0, math.inf, time.monotonic)
    inbox.next_job()  # the scan of everything: the next one is never due
    keeper = spawn(inbox.next_job, name="keeper")
    observer = spawn(inbox.schedule, m._ScanDirectory("new/"), name="observer")
    observer.join()
    keeper.join()
    assert keeper.result().path == "new/"
