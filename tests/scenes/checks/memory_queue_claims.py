"""Two workers and three jobs: no job may be claimed twice."""

from interleave_test import spawn


def model(module):
    queue = module.MemoryQueue(clock=lambda: 1.0)
    for job in ("resize", "upload", "notify"):
        queue.add(job)
    workers = [spawn(queue.get_next, name="Ann"), spawn(queue.get_next, name="Bob")]
    for worker in workers:
        worker.join()
    ann, bob = (worker.result().data for worker in workers)
    assert ann != bob, f"both workers claimed {ann!r}"
