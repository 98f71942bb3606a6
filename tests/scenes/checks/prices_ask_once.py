"""Three requests need one price at the same time: the API must be called once."""

from interleave_test import spawn


def model(module):
    api = module.Api()
    prices = module.Prices(api)
    requests = [spawn(prices.get, "bolt", name=f"request {n}") for n in (1, 2, 3)]
    for request in requests:
        request.join()
    assert api.calls == 1, f"3 requests, {api.calls} calls of the API"
