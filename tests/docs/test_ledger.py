"""The ledger: what the pages promise, what the tests prove, what the evidence says.

That no test names an unknown guarantee is seen to at collection, by tests/kit/ledger.py.
"""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from site_build.evidence import FIGURES, json_path, pages
from tests.kit import ROOT
from tests.kit.catalogue import components, digests, promises

every_component = pytest.mark.parametrize("component", components())
# What others import, and what therefore neither promises nor is measured by itself.
SHARED = {"buses/event"}


def evidence(component: str) -> dict[str, Any]:
    path = json_path(component)
    assert path.is_file(), f"{component} has no evidence: run `nox -s evidence`"
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


@every_component
def test_page_promises_something(component: str) -> None:
    assert bool(promises(component)) is (component not in SHARED)


@every_component
def test_evidence_is_of_this_source(component: str) -> None:
    assert evidence(component)["files"] == digests(component), (
        f"{component} changed after it was proved: run `nox -s evidence`"
    )


@every_component
def test_evidence_covers_each_promise(component: str) -> None:
    rows = evidence(component)["guarantees"]
    assert list(rows) == list(promises(component))
    for identifier, row in rows.items():
        assert row["tests"], f"{identifier} has no passing test: run `nox -s evidence`"
        assert row["twins"], f"{identifier} has no broken twin that is caught"


@every_component
def test_evidence_names_tests_that_exist(component: str) -> None:
    for row in evidence(component)["guarantees"].values():
        for name in [*row["tests"], *row["twins"]]:
            path, _, test = name.partition("::")
            function = test.split("::")[-1].split("[")[0]
            assert function in (ROOT / path).read_text(encoding="utf-8") or _inherited(function), (
                f"{name} is gone: run `nox -s evidence`"
            )


def _inherited(function: str) -> bool:
    """Whether a contract class or a state machine gives this file the test."""
    contracts = (ROOT / "tests" / "contracts").glob("*.py")
    return function == "runTest" or any(
        f"def {function}" in contract.read_text(encoding="utf-8") for contract in contracts
    )


@pytest.mark.parametrize("component", sorted(set(components()) - SHARED))
def test_figures_are_of_this_source(component: str) -> None:
    path = FIGURES / f"{Path(component).name}.json"
    assert path.is_file(), f"{component} has no figures: run `nox -s bench`"
    figures = json.loads(path.read_text(encoding="utf-8"))
    assert figures["sources"] == digests(component), f"{component} changed: run `nox -s bench`"
    assert date.fromisoformat(figures["date"])


def test_generated_pages_are_as_generated() -> None:
    for path, text in pages().items():
        assert path.read_text(encoding="utf-8") == text, (
            f"{path.relative_to(ROOT)} differs from its results: "
            "run `python -m site_build.evidence render`"
        )
