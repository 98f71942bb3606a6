"""A coroutine may call `run_sync` itself: the inner call gets a helper of its own."""

from interleave_test import no_interleave, spawn

from tests.interleavings.test_run_sync import MODEL, call


def model(module):
    module.asyncio = MODEL  # a loop that the explorer can step
    with no_interleave():
        module._start_anew()  # nothing is idle

    async def inner():
        return "done"

    async def outer():
        return module.run_sync(inner())

    caller = spawn(call, module, outer, name="caller")
    caller.join()
    assert caller.result() == "done"
    with no_interleave():
        module._close_idle()
