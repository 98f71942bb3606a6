"""An operation that runs when another one fails keeps what came of it."""

from types import ModuleType

from interleave_test import no_interleave

from tests.bridges.parallel_execute.helpers import started_at_once


def model(module: ModuleType) -> None:
    ran: list[str] = []

    def operation(key: str) -> str:
        ran.append(key)
        if key == "bad":
            raise LookupError(key)
        return key

    with started_at_once(module), no_interleave():  # the workers alone are interleaved
        good, bad = module.parallel_execute(iter(["good", "bad"]), operation, 2, fail_fast=True)
    assert good.is_success == ("good" in ran), "it has run, and its result is lost"
    assert bad.is_failure
