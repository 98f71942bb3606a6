"""Two look-ups by two threads: both must be counted."""

from interleave_test import spawn


def model(module):
    cache = module.TTLCache(60.0, clock=lambda: 1.0)
    cache.set("bolt", 9.90)
    readers = [spawn(cache.get, "bolt", name="Ann"), spawn(cache.get, "bolt", name="Bob")]
    for reader in readers:
        reader.join()
    assert cache.stats.hits == 2, f"2 look-ups, {cache.stats.hits} counted"
