"""An interrupt at the coroutine's end cancels nothing in a loop that has gone on."""

import queue
import threading
from contextlib import suppress
from types import SimpleNamespace

from interleave_test import no_interleave, spawn

from tests.interleavings.test_run_sync import MODEL, Interrupted, ModelLoop, call


def model(module):
    module.asyncio = MODEL  # a loop that the explorer can step
    module.queue = SimpleNamespace(SimpleQueue=Interrupted, Empty=queue.Empty)
    ModelLoop.late = False
    begun, may_end = threading.Event(), threading.Event()

    async def work():
        begun.set()
        may_end.wait()

    def interrupted():
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
    assert not ModelLoop.late, "a cancellation was posted to another call's loop"
    with no_interleave():
        module._close_idle()
