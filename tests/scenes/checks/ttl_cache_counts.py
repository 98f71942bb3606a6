"""Two threads look for a price that is not cached: both misses must be counted."""

from interleave_test import spawn


def model(module):
    cache = module.TTLCache()
    readers = [spawn(cache.get, "bolt", name="Ann"), spawn(cache.get, "bolt", name="Bob")]
    for reader in readers:
        reader.join()
    counted = cache.stats.misses
    assert counted == 2, f"2 misses, {counted} counted"
