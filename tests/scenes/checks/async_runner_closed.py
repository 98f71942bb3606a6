"""A coroutine that is submitted during the close is refused, or its future settles."""

from interleave_test import no_interleave, spawn

from tests.interleavings.async_runner.test_threads import Job, ModelLoop, outcome, seen, submit


def model(module):
    loop, job = ModelLoop(), Job()  # a loop that the explorer can step
    with seen(module, loop):
        with no_interleave():
            runner = module.AsyncRunner()
            runner.start()
        closer = spawn(runner.close, name="closer")
        future = submit(runner, job)  # None: it was refused
        closer.join()
        assert future is None or outcome(future) in ("done", "cancelled")
        assert job.ended, "a coroutine is left"
