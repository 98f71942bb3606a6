"""Two loaders need each other's key: both calls must end, if need be by an error."""

from interleave_test import spawn


def model(module):
    cache = module.TTLCache(60.0, clock=lambda: 1.0)

    def ask(key, other):
        try:
            cache.get_or_load(key, lambda: cache.get_or_load(other, lambda: 9.90))
        except RuntimeError as error:
            assert "would wait for itself" in str(error)

    callers = [
        spawn(ask, "net", "gross", name="Ann"),
        spawn(ask, "gross", "net", name="Bob"),
    ]
    for caller in callers:
        caller.join()
