"""An operation that runs when another one fails keeps its result."""

import threading

from interleave_test import no_interleave

from tests.bridges.parallel_execute.helpers import started_at_once


def model(module):
    ran, failing = [], threading.Event()

    def operation(key):
        ran.append(key)
        if key == "bad":
            failing.set()
            raise LookupError(key)
        failing.wait()
        return key

    with started_at_once(module), no_interleave():  # the workers alone are interleaved
        good, bad = module.parallel_execute(["good", "bad"], operation, 2, fail_fast=True)
    assert good.is_success == ("good" in ran), "it has run, and its result is lost"
    assert bad.is_failure
