"""Two visits at the same time: both must be counted."""

from interleave_test import spawn


def model(module):
    counter = module.Counter()
    visitors = [spawn(counter.add, name="Ann"), spawn(counter.add, name="Bob")]
    for visitor in visitors:
        visitor.join()
    assert counter.visits == 2, f"2 visits, {counter.visits} counted"
