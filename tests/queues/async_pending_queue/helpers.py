"""What the tests of AsyncPendingQueue share: its name, its block, a clock, silence."""

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from reference_impl.queues import async_pending_queue
from tests.kit.fakes import Clock

COMPONENT = "queues/async_pending_queue"
LOGGER = async_pending_queue.__name__  # of a copy, that of the copy
# Where only processes die, not the power, what is in memory outlives them as on a disk.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX file systems and processes")


@contextlib.asynccontextmanager
async def owning(queue: Any) -> AsyncIterator[Any]:
    """The queue's own block, which an assertion that fails leaves without waiting."""
    async with queue:
        try:
            yield queue
        except BaseException:
            await queue.stop(0)
            raise


def stopped_clock() -> Clock:
    """The running loop's, which the test moves from now on, but not as far as its PATIENCE."""
    loop = asyncio.get_running_loop()
    clock = Clock(float(int(loop.time())))  # so that eighths of a second add up
    loop.time = clock  # type: ignore[method-assign]
    return clock


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing is logged: what keeps records keeps the errors that they tell of."""
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
