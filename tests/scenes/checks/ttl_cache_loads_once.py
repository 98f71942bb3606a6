"""Two threads need one value that is not there: one loader must run for both."""

from interleave_test import spawn


def model(module):
    cache = module.TTLCache(60.0, clock=lambda: 1.0)
    calls = []

    def load():
        calls.append("load")
        return 9.90

    def ask():
        return cache.get_or_load("bolt", load)

    callers = [spawn(ask, name="Ann"), spawn(ask, name="Bob")]
    for caller in callers:
        caller.join()
    assert len(calls) == 1, f"2 callers, {len(calls)} loads"
