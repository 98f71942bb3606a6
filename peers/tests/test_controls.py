"""Each check is failed by its control, and by nothing that keeps what it asks for."""

import importlib
from typing import Any

import pytest

from peers.adapters import Row
from peers.cell import family
from peers.checks import Check
from peers.claims import claimed
from peers.running import FAMILIES, Subject, examined, subjects_of

CELLS = [(name, check) for name in FAMILIES for check in family(name).checks.values()]
each_check = pytest.mark.parametrize(
    ("name", "check"), CELLS, ids=[f"{name}-{check.name}" for name, check in CELLS]
)
FINE = ("holds", "not offered", "not explored")


def ask(name: str, row: type[Row], check: Check) -> dict[str, Any]:
    return examined(Subject(name, "controls", row), check)


@each_check
def test_a_check_is_failed_by_its_control(name: str, check: Check) -> None:
    controls = importlib.import_module(f"peers.controls.{name}")
    assert check.name in controls.CONTROLS, f"peers/controls/{name}.py has none for {check.name}"
    found = ask(name, controls.CONTROLS[check.name], check)
    if check.clock and found["outcome"] == "not explored":
        pytest.skip(found["seen"])
    assert found["outcome"] == "fails", found


@each_check
def test_what_keeps_all_is_failed_by_none(name: str, check: Check) -> None:
    controls = importlib.import_module(f"peers.controls.{name}")
    if not hasattr(controls, "SOUND"):
        pytest.skip(f"peers/controls/{name}.py has nothing that keeps all")
    found = ask(name, controls.SOUND, check)
    assert found["outcome"] in FINE, found


OURS = [
    (subject, check)
    for name in FAMILIES
    for subject in subjects_of(name, "ours")
    for check in family(name).checks.values()
]


@pytest.mark.parametrize(
    ("subject", "check"),
    OURS,
    ids=[f"{subject.family}-{subject.row.__name__}-{check.name}" for subject, check in OURS],
)
def test_ours_fails_nothing_but_what_its_page_says(subject: Subject, check: Check) -> None:
    found = examined(subject, check)
    claim = claimed(subject.family, subject.slug, check.name)
    otherwise = claim is not None and claim.says != "yes"
    assert found["outcome"] in (*FINE, *(["fails"] if otherwise else [])), found
