"""AsyncPendingQueue's owner dies at each step, and by SIGKILL, and nothing is lost (PQ-1).

What the deaths do and what is checked after each stands in crashes.py.
"""

import os
from functools import partial

import pytest

from tests.kit.process import run_python
from tests.kit.profile import budget
from tests.kit.twins import Twin, must_fail
from tests.queues.async_pending_queue import faults

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="the owners are forked")
HARNESS = """
from reference_impl.queues import async_pending_queue as ours
from tests.kit.twins import build
from tests.queues.async_pending_queue.crashes import crash_everywhere, kill_at_random
from tests.queues.async_pending_queue.faults import CRASHES
"""


@forks
@pytest.mark.guarantee("PQ-1")
def test_a_death_at_any_step_loses_nothing() -> None:
    """Before and after each rename, replace, link, unlink, fsync, truncate and write."""
    print(run_python(f"{HARNESS}\ncrash_everywhere(ours, second=4)", deadline=280).stdout)


@forks
@pytest.mark.stress
@pytest.mark.timeout(1200)
@pytest.mark.guarantee("PQ-1")
def test_a_death_at_any_step_and_another_while_recovering_lose_nothing() -> None:
    print(run_python(f"{HARNESS}\ncrash_everywhere(ours, second=1)", deadline=1100).stdout)


@forks
@pytest.mark.guarantee("PQ-2")
def test_busy_owners_are_killed_again_and_again() -> None:
    kills = budget(12, 120)
    print(run_python(f"{HARNESS}\nkill_at_random(ours, {kills})", deadline=280).stdout)


@forks
@pytest.mark.stress
@pytest.mark.timeout(1200)
@pytest.mark.guarantee("PQ-2")
@pytest.mark.parametrize("seed", range(1, 4))
def test_busy_owners_are_killed_hundreds_of_times(seed: int) -> None:
    print(run_python(f"{HARNESS}\nkill_at_random(ours, 300, {seed})", deadline=1100).stdout)


@forks
@pytest.mark.parametrize(
    "twin",
    [
        pytest.param(
            Twin(name, fault, f"AssertionError: {message}"),
            id=name,
            marks=pytest.mark.twin("PQ-1", fault=name, fails=(f"AssertionError: {message}",)),
        )
        for name, (fault, message) in faults.CRASHES.items()
    ],
)
def test_a_step_out_of_order_is_caught(twin: Twin) -> None:
    points = budget("second=100, stride=3", "second=4")
    code = f"{HARNESS}\ncrash_everywhere(build(ours, CRASHES[{twin.name!r}][0]), {points})"
    must_fail(twin, partial(run_python, code, deadline=280))
