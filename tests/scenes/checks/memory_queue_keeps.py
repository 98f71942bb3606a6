"""Two threads add a job each: the queue must hold both."""

from interleave_test import spawn


def model(module):
    queue = module.MemoryQueue(clock=lambda: 1.0)
    adders = [spawn(queue.add, "resize", name="Ann"), spawn(queue.add, "upload", name="Bob")]
    for adder in adders:
        adder.join()
    jobs = [item.data for item in queue]
    assert len(jobs) == 2, f"2 jobs were added, the queue holds {jobs}"
