"""A worker waits, a job comes: the worker must be woken."""

from interleave_test import spawn


def model(module):
    queue = module.MemoryQueue(clock=lambda: 1.0)
    worker = spawn(queue.wait_next, name="worker")
    adder = spawn(queue.add, "resize", name="adder")
    worker.join()
    adder.join()
    assert worker.result().data == "resize"
