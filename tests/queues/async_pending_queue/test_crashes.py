"""AsyncPendingQueue's owner dies at each step, and by SIGKILL, and nothing is lost (PQ-1).

What the deaths do and what is checked after each stands in crashes.py.
"""

import os
from functools import partial

import pytest

from tests.kit.process import run_python
from tests.kit.profile import budget
from tests.kit.proofs import each_twin_of
from tests.kit.twins import Twin, must_fail
from tests.queues.async_pending_queue import faults

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="the owners are forked")
HARNESS = """
from reference_impl.queues import async_pending_queue as ours
from tests.kit.twins import build
from tests.queues.async_pending_queue.crashes import crash_everywhere, kill_at_random
from tests.queues.async_pending_queue.faults import CRASHES, CRASHES_OF_LINKS
"""


@forks
@pytest.mark.guarantee("PQ-1")
def test_a_death_at_any_step_loses_nothing() -> None:
    """Before and after each rename, exclusive or not, replace, unlink, fsync and truncate."""
    print(run_python(f"{HARNESS}\ncrash_everywhere(ours, second=4)", deadline=280).stdout)


@forks
@pytest.mark.guarantee("PQ-1")
def test_a_death_at_any_step_loses_nothing_where_files_have_to_be_linked() -> None:
    """There a file may have two names."""
    points = budget("second=100, stride=5", "second=2")
    code = f"{HARNESS}\ncrash_everywhere(ours, {points}, linked=True)"
    print(run_python(code, deadline=280).stdout)


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
@pytest.mark.timeout(1200)
@pytest.mark.guarantee("PQ-7")
@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root makes files of two owners"
)
def test_owners_that_handle_other_users_files_are_killed_again_and_again() -> None:
    """The producers are root; the owners are nobody, and submit files of their own."""
    kills = budget(12, 1_000)
    code = f"{HARNESS}\nkill_at_random(ours, {kills}, user=65534)"
    print(run_python(code, deadline=1100).stdout)


@forks
@pytest.mark.stress
@pytest.mark.timeout(1200)
@pytest.mark.guarantee("PQ-2")
@pytest.mark.parametrize("seed", range(1, 4))
def test_busy_owners_are_killed_hundreds_of_times(seed: int) -> None:
    print(run_python(f"{HARNESS}\nkill_at_random(ours, 300, {seed})", deadline=1100).stdout)


TWINS = {
    name: Twin(name, fault, f"AssertionError: {message}")
    for name, (fault, message) in (faults.CRASHES | faults.CRASHES_OF_LINKS).items()
}


@forks
@each_twin_of("PQ-1", *TWINS.values())
def test_a_step_out_of_order_is_caught(twin: Twin) -> None:
    linked = twin.name in faults.CRASHES_OF_LINKS
    points = f"{budget('second=100, stride=3', 'second=4')}, linked={linked}"
    fault = f"(CRASHES | CRASHES_OF_LINKS)[{twin.name!r}][0]"
    code = f"{HARNESS}\ncrash_everywhere(build(ours, {fault}), {points})"
    must_fail(twin, partial(run_python, code, deadline=280))
