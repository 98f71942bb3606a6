"""Two threads delete one entry: one of them must be told that it was there."""

from interleave_test import spawn


def model(module):
    cache = module.ShardedCache(2, default_ttl=60.0, clock=lambda: 1.0)
    cache.set(3, "value")
    threads = [spawn(cache.delete, 3, name="Ann"), spawn(cache.delete, 3, name="Bob")]
    for thread in threads:
        thread.join()
    told = sum(thread.result() for thread in threads)
    assert told == 1, f"1 entry, {told} threads were told that they deleted it"
