"""A value is replaced: a reader must see the old one or the new one."""

from interleave_test import spawn


def model(module):
    cache = module.ShardedCache(2, default_ttl=60.0, clock=lambda: 1.0)
    cache.set(3, "old")
    writer = spawn(cache.set, 3, "new", name="writer")
    reader = spawn(cache.get, 3, "nothing", name="reader")
    writer.join()
    reader.join()
    assert reader.result() in {"old", "new"}, f"the reader sees {reader.result()}"
