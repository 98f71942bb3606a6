"""Each check of the files beside this one holds for run_sync both ways, and fails for its twins."""

import gc

import pytest

from reference_impl.bridges import run_sync as component
from tests.bridges.run_sync import test_bad_input, test_interrupts, test_isolation, test_outcomes
from tests.bridges.run_sync.faults import FILE, Call
from tests.bridges.run_sync.helpers import both_ways, kept
from tests.kit.proofs import Proof, each_proof, each_twin
from tests.kit.twins import Twin

PROOFS = [
    *test_outcomes.PROOFS,
    *test_isolation.PROOFS,
    *test_interrupts.PROOFS,
    *test_bad_input.PROOFS,
]


@each_proof(PROOFS)
@both_ways
def test_it_holds(proof: Proof, way: Call) -> None:
    proof.hold(component, way)


@each_twin(PROOFS)
@both_ways
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of what it left
def test_the_check_catches_a_twin(proof: Proof, twin: Twin, way: Call) -> None:
    proof.must_fail(twin, FILE, way)
    kept.clear()
    gc.collect()  # here, where the complaints of what was dropped are expected
