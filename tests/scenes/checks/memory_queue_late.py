"""A worker reports while its claim is taken back: either comes too late."""

from interleave_test import spawn


def model(module):
    queue = module.MemoryQueue(clock=lambda: 1.0)
    queue.add("resize")
    item = queue.get_next()
    item.mark_completed()

    def report():
        try:
            queue.update(item)
        except module.StaleItemError:
            return False
        return True

    worker = spawn(report, name="worker")
    keeper = spawn(queue.requeue_stale, 0.0, name="keeper")
    worker.join()
    keeper.join()
    both = worker.result() and keeper.result()
    assert not both, "the job was given back, and reported as completed"
