"""Two loaders need each other's key: both calls must end, one of them with an error."""

from interleave_test import spawn


def model(module):
    cache = module.TTLCache(60.0, clock=lambda: 1.0)

    def load_net():
        return cache.get_or_load("gross", load_gross)

    def load_gross():
        return cache.get_or_load("net", load_net)

    def ask(key, load):
        try:
            cache.get_or_load(key, load)
        except RuntimeError as error:
            assert "would wait for itself" in str(error)

    callers = [
        spawn(ask, "net", load_net, name="Ann"),
        spawn(ask, "gross", load_gross, name="Bob"),
    ]
    for caller in callers:
        caller.join()
