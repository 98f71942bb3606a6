"""Three look-ups by two threads: each is counted, as a hit or as a miss."""

from interleave_test import spawn


def model(module):
    cache = module.TTLCache(10.0, clock=lambda: 1.0)
    cache.set("a", 1)

    def two_lookups():
        cache.get("a")
        cache.get("b")

    threads = [spawn(cache.get, "a", name="one look-up"), spawn(two_lookups, name="two look-ups")]
    for thread in threads:
        thread.join()
    stats = cache.stats
    assert (stats.hits, stats.misses) == (2, 1), f"counted {stats.hits} hits, {stats.misses} misses"
