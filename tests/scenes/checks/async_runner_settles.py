"""A cancellation races the end of the task: whoever cancels is told who won."""

from contextlib import ExitStack

from interleave_test import no_interleave, spawn

from tests.interleavings.async_runner.test_threads import ended, outcome, result


def model(module):
    with ExitStack() as stack:
        with no_interleave():  # the task has ended, and the future is not told yet
            future, loop = stack.enter_context(ended(module))
        canceller = spawn(future.cancel, name="canceller")
        turns = spawn(loop.run_all, name="loop's thread")
        was_cancelled = result(canceller)
        result(turns)
        expected = "cancelled" if was_cancelled else "done"
        assert outcome(future) == expected, "cancel() said otherwise"
