"""Two loaders need each other's key: both calls must end, if need be by an error."""

import threading

from interleave_test import spawn


def model(module):
    cache = module.TTLCache(60.0, clock=lambda: 1.0)

    def ask(key, other):
        def load():
            threading.Event().wait(0.1)  # a slow source
            return cache.get_or_load(other, lambda: 9.90)

        try:
            cache.get_or_load(key, load)
        except RuntimeError as error:
            assert "would wait for itself" in str(error)

    callers = [
        spawn(ask, "net", "gross", name="Ann"),
        spawn(ask, "gross", "net", name="Bob"),
    ]
    for caller in callers:
        caller.join()
