"""Thread explorations as a table: a model, its guarantee, and the twins that it must catch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest

Faults = list[tuple[str, str]]


@dataclass
class Proof:
    """One row: every schedule of the model is run, and the same search on each twin."""

    guarantee: str
    model: Callable[[ModuleType], None]
    twins: list[Faults]
    reason: str = ""  # what each twin's failure must tell, a pattern
    granularity: str = "opcode"
    preemptions: int = 1
    diagram: str | None = None
    variant: Faults = field(default_factory=list)  # what is explored in place of the file

    @property
    def search(self) -> dict[str, Any]:
        """How deep to look, as Interleavings takes it."""
        return {"granularity": self.granularity, "preemptions": self.preemptions}


def each_proof(proofs: Mapping[str, Proof]) -> pytest.MarkDecorator:
    """Give the test each `proof` in turn, marked with its guarantee."""
    return pytest.mark.parametrize(
        "proof",
        [
            pytest.param(proof, id=name, marks=pytest.mark.guarantee(proof.guarantee))
            for name, proof in proofs.items()
        ],
    )


def each_twin(proofs: Mapping[str, Proof]) -> pytest.MarkDecorator:
    """Give the test each `proof` with the `faults` of each of its twins."""
    return pytest.mark.parametrize(
        ("proof", "faults"),
        [
            pytest.param(proof, faults, id=f"{name}-{n}", marks=pytest.mark.twin(proof.guarantee))
            for name, proof in proofs.items()
            for n, faults in enumerate(proof.twins)
        ],
    )
