"""A price changes while it is loaded: the cache must not keep the old one."""

from interleave_test import spawn


def model(module):
    cache = module.TTLCache(60.0, clock=lambda: 1.0)
    price = {"bolt": "old"}

    def load():
        return price["bolt"]

    def read():
        return cache.get_or_load("bolt", load)

    def change():
        price["bolt"] = "new"
        cache.delete("bolt")

    threads = [spawn(read, name="reader"), spawn(change, name="writer")]
    for thread in threads:
        thread.join()
    kept = cache.get("bolt", "nothing")
    assert kept != "old", f"the cache keeps the {kept} price"
