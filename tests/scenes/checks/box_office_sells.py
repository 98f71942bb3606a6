"""Two customers and one seat: one of them must be told that it is sold out."""

from interleave_test import spawn


def model(module):
    office = module.BoxOffice(["A1"])
    customers = [spawn(office.sell, name="Ann"), spawn(office.sell, name="Bob")]
    for customer in customers:
        customer.join()
    sold = sorted(customer.result() for customer in customers)
    assert sold == ["A1", "sold out"], f"sold: {sold}"
