"""A cancellation races the end of the task: whoever cancels is told who won."""

from interleave_test import spawn

from tests.interleavings.async_runner.test_threads import ended, outcome, result


def model(module):
    with ended(module) as (future, loop):  # the task has ended, and the future is not told yet
        canceller = spawn(future.cancel, name="canceller")
        turns = spawn(loop.run_all, name="loop's thread")
        was_cancelled = result(canceller)
        result(turns)
        expected = "cancelled" if was_cancelled else "done"
        assert outcome(future) == expected, "cancel() said otherwise"
