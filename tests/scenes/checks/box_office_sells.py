"""Two customers and one seat: only one of them may get it."""

from interleave_test import spawn


def model(module):
    office = module.BoxOffice(seats=1)
    customers = [spawn(office.sell, name, name=name) for name in ("Ann", "Bob")]
    for customer in customers:
        customer.join()
    sold_to = " and ".join(sorted(office.sold_to))
    assert len(office.sold_to) == 1, f"1 seat, sold to {sold_to}"
