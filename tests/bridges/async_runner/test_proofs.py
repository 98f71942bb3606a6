"""Each check of the files beside this one holds for AsyncRunner, and fails for its twins."""

from reference_impl.bridges import async_runner
from tests.bridges.async_runner import test_calls, test_cleaning_up, test_close, test_futures
from tests.bridges.async_runner.helpers import must_fail, of_a_twin
from tests.kit.proofs import Proof, each_twin, holding
from tests.kit.twins import Twin

PROOFS = [
    *test_futures.PROOFS,
    *test_close.PROOFS,
    *test_cleaning_up.PROOFS,
    *test_calls.PROOFS,
]

test_it_holds = holding(PROOFS, async_runner)


@each_twin(PROOFS)
@of_a_twin
def test_the_check_catches_a_twin(proof: Proof, twin: Twin) -> None:
    must_fail(proof, twin)
