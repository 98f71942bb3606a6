"""Two loaders need each other's key: both calls must end, if need be by an error."""

import contextlib
import threading

from interleave_test import spawn


def model(module):
    cache = module.TTLCache(60.0, clock=lambda: 1.0)

    def ask(key, other):
        def load():
            threading.Event().wait(0.1)  # a slow source
            return cache.get_or_load(other, lambda: 9.90)

        with contextlib.suppress(RuntimeError):  # "the load would wait for itself"
            cache.get_or_load(key, load)

    callers = [
        spawn(ask, "net", "gross", name="Ann"),
        spawn(ask, "gross", "net", name="Bob"),
    ]
    for caller in callers:
        caller.join()
