"""Two workers run two keys, each once."""

import threading

from interleave_test import no_interleave

from tests.bridges.parallel_execute.helpers import started_at_once


def model(module):
    ran, both = [], threading.Event()

    def operation(key):
        ran.append(key)
        if len(ran) == 2:
            both.set()
        both.wait()  # the workers meet here
        return key.upper()

    with started_at_once(module), no_interleave():  # the workers alone are interleaved
        results = module.parallel_execute(iter("ab"), operation, 2)
    assert sorted(ran) == ["a", "b"], f"these were run: {ran}"
    assert [result.unwrap() for result in results] == ["A", "B"]
