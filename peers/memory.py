"""What an entry of a cache costs: python -m peers.memory MODULE:ROW prints bytes for each.

The growth of the resident memory of a process of its own while 100,000 entries with int keys
and int values come in, or as many as do in half a minute; by `put`, or by loading where there
is no `put`. Keys and values are counted, as one has to have them.
"""

import gc
import os
import subprocess
import sys
import time
from pathlib import Path

from peers.adapters.caches import Cache
from peers.cell import row
from peers.outcomes import NotOffered

ENTRIES = 100_000
_SECONDS = 30.0
_FIRST = 1_000_000  # no small int, which would cost nothing


def _resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _twice(key: int) -> int:
    return key * 2


def _bytes(subject: type[Cache]) -> float:
    """In this process, which should have done nothing else before."""
    try:
        warm, full = subject.new(), subject.new(ENTRIES)
        subject.put(warm, 1, 1)

        def add(key: int) -> None:
            subject.put(full, key, key * 2)

    except NotOffered:
        subject.cached(_twice)(1)
        add = subject.cached(_twice, ENTRIES)
    gc.collect()
    before, end, added = _resident(), time.monotonic() + _SECONDS, 0
    while added < ENTRIES and time.monotonic() < end:
        add(_FIRST + added)
        added += 1
    gc.collect()
    return (_resident() - before) / added


def measured(address: str) -> float:
    """Bytes for an entry of the cache at MODULE:ROW, found in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "peers.memory", address],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        cwd=Path(__file__).parents[1],
    )
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    found = row(sys.argv[1])
    assert issubclass(found, Cache), f"{sys.argv[1]} is no cache that threads call"
    print(round(_bytes(found)), flush=True)
    os._exit(0)
