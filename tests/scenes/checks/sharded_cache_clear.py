"""A price changes while it is loaded: after a clear, no shard may keep the old one."""

from interleave_test import spawn


def model(module):
    cache = module.ShardedCache(2, default_ttl=60.0, clock=lambda: 1.0)
    price = {3: "old"}

    def load():
        return price[3]

    def read():
        return cache.get_or_load(3, load)

    def change():
        price[3] = "new"
        cache.clear()

    threads = [spawn(read, name="reader"), spawn(change, name="writer")]
    for thread in threads:
        thread.join()
    kept = cache.get(3, "nothing")
    assert kept != "old", f"the cache keeps the {kept} price"
