"""What one expects of a cache that threads share."""

import threading
from typing import Any

from peers.adapters.caches import Cache
from peers.checks import Family
from peers.outcomes import DoesNotHold, Holds, once, raise_first, together

FAMILY = Family("caches", "Caches for threads")


@FAMILY.check(
    "One load for many callers",
    uses=("cached",),
    reports={"functools": "https://github.com/python/cpython/issues/93179"},
    reproduction="""
import time
calls = []
def slow(key):
    calls.append(key)
    time.sleep(0.5)
f = cached(slow)
threads = [threading.Thread(target=f, args=("k",)) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(calls) == 1, f"8 callers of one missing key made {len(calls)} loads"
""",
)
def single_flight(row: type[Cache]) -> Holds:
    """Callers who miss one key at the same time wait for one load.

    Otherwise each expiry of a popular key sends every caller to the database at once.
    """
    gate, calls = threading.Event(), []

    def slow(key: Any) -> object:
        calls.append(key)
        gate.wait(5)
        return object()

    function = row.cached(slow)
    timer = threading.Timer(0.5, gate.set)
    timer.start()
    raise_first(together(*[lambda: function("k")] * 8, deadline=10))
    if len(calls) != 1:
        raise DoesNotHold(f"8 callers of one missing key made {len(calls)} loads")
    return once("8 callers, one load")
