"""Three requests need one price at the same time: the API must be called once."""

import threading

from interleave_test import spawn


def model(module):
    calls = []

    def ask(item):
        calls.append(item)
        threading.Event().wait(0.2)  # the API takes its time
        return 9.90

    prices = module.Prices(ask)
    requests = [spawn(prices.get, "bolt", name=f"request {n}") for n in (1, 2, 3)]
    for request in requests:
        request.join()
    assert len(calls) == 1, f"3 requests, {len(calls)} calls of the API"
