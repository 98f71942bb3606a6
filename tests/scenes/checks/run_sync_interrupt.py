"""An interrupt that comes with the coroutine's end cancels nothing in a loop that has gone on."""

import queue
import threading
from contextlib import suppress
from types import ModuleType, SimpleNamespace

from interleave_test import no_interleave, spawn

from tests.interleavings.test_run_sync import MODEL, Interrupted, ModelLoop, call


def model(module: ModuleType) -> None:
    module.asyncio = MODEL  # a loop that the explorer can step
    module.queue = SimpleNamespace(SimpleQueue=Interrupted, Empty=queue.Empty)
    ModelLoop.late = False
    begun, may_end = threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        may_end.wait()

    def interrupted() -> None:
        Interrupted.caller, Interrupted.after = threading.get_ident(), begun
        with suppress(KeyboardInterrupt):
            call(module, work)
        Interrupted.caller = None

    with no_interleave():
        module._start_anew()  # nothing is idle
    caller = spawn(interrupted, name="caller")
    begun.wait()
    may_end.set()
    caller.join()
    assert not ModelLoop.late, "a cancellation was posted to the loop of another call"
    with no_interleave():
        module._close_idle()
